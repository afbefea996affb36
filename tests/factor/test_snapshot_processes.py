"""Snapshots taken over by other processes, lesser processors, other factors and symbols; and bytes that are none."""

from __future__ import annotations

import json
import os
import platform
import random
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
import xxhash
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock import factor as f
from penstock.errors import CompileError, FactorError
from penstock.factor import snapshot
from penstock.native import jit

close, volume, sector = f.fields("close", "volume", "sector")

# ---- other processes ----

CHILD = """
import json, sys
import numpy as np
from penstock import factor as f
task = json.load(sys.stdin)
factors = f.Factors(task["factors"]) if "factors" in task else f.library(task["library"])
program = f.compile(factors, dtype=task["dtype"], engine=task.get("engine"))
data = dict(np.load(task["data"]))
data = {name: data[name] for name in program.inputs}
live = program.stream(state=task["state"])
first = live.ordinal
half = (first + len(next(iter(data.values())))) // 2
rows = [live.step(**{name: x[t] for name, x in data.items()}) for t in range(first, half)]
ticks = {name: np.stack([row[name] for row in rows]) for name in program.outputs}
rest = live.batch({name: x[half:] for name, x in data.items()})
np.savez(task["out"], **{name: np.concatenate([ticks[name], rest[name]]) for name in program.outputs})
live.snapshot(task["after"])
from penstock.native import jit
print(jit._target()[2])
"""


def child(tmp_path, program, data, state, cpu="", **task):
    """Outputs and state of another process that goes on from `state`; and the processor it computes for."""
    np.savez(tmp_path / "data.npz", **data)
    (tmp_path / "state").write_bytes(state)
    task |= {name: str(tmp_path / name) for name in ("state", "after")}
    task |= {"dtype": program.dtype.name, "data": str(tmp_path / "data.npz"), "out": str(tmp_path / "out.npz")}
    environment = {**os.environ, "PENSTOCK_CPU": cpu, "PENSTOCK_CACHE": str(tmp_path / "cache"), "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as out:
        return dict(out), (tmp_path / "after").read_bytes(), done.stdout.strip()


def bars(rows, symbols, dtype="float64"):
    rng = np.random.default_rng([rows, symbols])
    close = 30 * np.exp(rng.normal(0, 0.02, (rows, symbols)).cumsum(0))
    panel = {"close": close, "open": close * rng.uniform(0.98, 1.02, close.shape)}
    panel["high"] = np.maximum(close, panel["open"]) * rng.uniform(1, 1.02, close.shape)
    panel["low"] = np.minimum(close, panel["open"]) * rng.uniform(0.98, 1, close.shape)
    panel["vwap"] = (panel["high"] + panel["low"]) / 2
    panel["volume"], panel["cap"] = rng.lognormal(10, 1, close.shape).round(), close * 1e6
    gone = rng.random(close.shape) < 0.01
    panel = {name: np.where(gone, np.nan, x) for name, x in panel.items()}
    for name, count in (("sector", 2), ("industry", 3), ("subindustry", 4)):
        panel[name] = np.broadcast_to(np.arange(symbols) % count, close.shape)
    return {name: x.astype(dtype) for name, x in panel.items()}


X86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="processors of another family")
PROCESSORS = [
    pytest.param("", "llvm", id="the same"),
    pytest.param("", "numpy", id="without a compiler"),
    pytest.param("x86-64-v3", "llvm", id="no AVX-512", marks=X86),
    pytest.param("x86-64", "llvm", id="no AVX", marks=X86),
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("cpu, engine", PROCESSORS)
def test_another_process_goes_on(tmp_path, cpu, engine, dtype):
    factors = {
        "a": "correlation(rank(close), rank(volume), 10)",
        "b": "indneutralize(decay_linear(delta(close, 3), 7), sector)",
        "c": "ts_quantile(close, 12, 0.3) / stddev(close, 20)",
        "d": "ema(log(close), 9) + ts_rank(volume, 30) ^ 1.5",
        "e": "ts_skew(close, 15) * exp(-abs(zscore(volume)))",
    }
    program = f.compile(factors, dtype=dtype)
    data = bars(90, 19, dtype)
    data = {name: data[name] for name in program.inputs}
    live = program.stream(n=19)
    live.batch({name: x[:41] for name, x in data.items()})
    state = live.snapshot()
    want = live.batch({name: x[41:] for name, x in data.items()})
    got, after, target = child(tmp_path, program, data, state, cpu, factors=factors, engine=engine)
    assert target == (cpu or jit._target()[2])
    assert all(got[name].tobytes() == want[name].tobytes() for name in factors)
    assert after == live.snapshot()


@X86
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("library", ["alpha101", "alpha158", "ta"])
def test_a_library_on_a_lesser_processor(tmp_path, library, dtype):
    program = f.compile(f.library(library), dtype=dtype)
    data = bars(program.warmup + 60, 9, dtype)
    data = {name: data[name] for name in program.inputs}
    live = program.stream(n=9)
    cut = program.warmup + 11
    live.batch({name: x[:cut] for name, x in data.items()})
    state = live.snapshot()
    want = live.batch({name: x[cut:] for name, x in data.items()})
    for cpu in ("x86-64-v3", "x86-64"):
        got, after, _ = child(tmp_path, program, data, state, cpu, library=library)
        assert not [name for name in want if got[name].tobytes() != want[name].tobytes()]
        assert after == live.snapshot()


@pytest.mark.parametrize(
    "name, message",
    [
        ("i386", "expected PENSTOCK_CPU of 'native', 'baseline'.*, got 'i386'"),
        ("x86-64-v9", "expected PENSTOCK_CPU of"),
    ],
)
def test_processors_that_cannot_be(monkeypatch, name, message):
    monkeypatch.setenv("PENSTOCK_CPU", name)
    with pytest.raises(CompileError, match=message):
        jit._lesser("x86_64-unknown-linux-gnu", {})


def test_a_greater_processor_is_refused(monkeypatch):
    monkeypatch.setenv("PENSTOCK_CPU", "x86-64-v4")
    there = dict.fromkeys(jit.LEVELS["x86-64-v4"], True)
    assert jit._lesser("x86_64-linux", there) == ("x86-64-v4", "")
    with pytest.raises(CompileError, match="PENSTOCK_CPU is 'x86-64-v4', this processor lacks avx512f; name a lesser"):
        jit._lesser("x86_64-linux", {**there, "avx512f": False})
    monkeypatch.setenv("PENSTOCK_CPU", "baseline")
    assert jit._lesser("x86_64-linux", {}) == ("x86-64", "")
    assert jit._lesser("aarch64-linux", {}) == ("generic", "")
    for name in ("", "native"):
        monkeypatch.setenv("PENSTOCK_CPU", name)
        assert jit._lesser("x86_64-linux", {}) is None


# ---- other factors and other symbols, in any order ----

SUM = f.ts_sum(close, 3)
POOL = {
    # Per factor what it keeps, operands first: a name for the operator and the rows it looks back.
    "sum": (SUM, [("sum", 2)]),
    "mean_of_sum": (f.ts_mean(SUM, 5), [("sum", 2), ("mean of sum", 4)]),
    "sum_of_ranks": (f.ts_sum(f.rank(close), 5), [("sum of ranks", 4)]),
    "std": (f.ts_std(close, 6), [("var", 5)]),
    "zscore": (f.ts_zscore(close, 6), [("var", 5)]),
    "deep": (f.ts_max(f.ts_mean(f.ts_delay(close, 2), 7), 4), [("delay", 2), ("mean", 6), ("max", 3)]),
    "quantile": (f.ts_quantile(volume, 8, 0.25), [("quantile", 7)]),
    "ranked": (f.ts_rank(volume * close, 5), [("rank", 4)]),
    "neutral": (f.ts_decay_linear(f.indneutralize(close, sector), 6), [("neutral", 5)]),
    "forever": (f.ts_ema(close, 4), [("ema", 0)]),
    "plain": (close - volume, []),
}
MORE = {"zscore": [("mean of close", 5)]}  # kept beside, not below
SYMBOLS = [f"S{i}" for i in range(6)]
PROGRAMS = {}


def program_of(names):
    """Compiled once per set of factors, by one engine or the other."""
    key = tuple(sorted(names))
    if key not in PROGRAMS:
        engine = ("llvm", "numpy")[len(PROGRAMS) % 2]
        PROGRAMS[key] = f.compile({name: POOL[name][0] for name in key}, engine=engine)
    return PROGRAMS[key]


def kept_by(names):
    return {kept for name in names for kept, _ in [*POOL[name][1], *MORE.get(name, [])]}


class Moves(RuleBasedStateMachine):
    """A stream that is saved, restored, and given other factors and symbols, against a model.

    The model knows every row that was there and when each symbol and each operator's state began. A value is there at
    the latest from the row at which all it needs is (earlier, where operators share what they keep), and from the row
    that `cold` told. It has the bits of a stream of its factor alone that saw all rows; until it is there it is NaN.
    """

    @initialize(seed=st.integers(0, 2**20), names=st.sets(st.sampled_from(sorted(POOL)), min_size=1))
    def begin(self, seed, names):
        self.rng = np.random.default_rng(seed)
        self.symbols = ["S0", "S1"]
        self.live = program_of(names).stream(self.symbols)
        self.names = set(names)
        self.history = []
        self.born = dict.fromkeys(self.symbols, 0)
        self.since = dict.fromkeys(kept_by(names), 0)

    def warm_at(self, name, symbol):
        """The row at which the factor's value is there."""
        row = self.born[symbol]
        for kept, rows in POOL[name][1]:
            row = max(row, self.since[kept]) + rows
        for kept, rows in MORE.get(name, []):
            row = max(row, max(self.born[symbol], self.since[kept]) + rows)
        return row

    @rule(rows=st.integers(1, 9), as_batch=st.booleans())
    def advance(self, rows, as_batch):
        first, made = len(self.history), []
        for _ in range(rows):
            count = len(self.symbols)
            row = {"close": self.rng.normal(5, 1, count).round(1), "volume": self.rng.normal(5, 1, count)}
            made.append(row | {"sector": self.rng.integers(0, 2, count).astype(float)})
        self.history += [{name: dict(zip(self.symbols, x, strict=True)) for name, x in row.items()} for row in made]
        if as_batch:
            got = self.live.batch({name: np.array([row[name] for row in made]) for name in self.live.program.inputs})
        else:
            steps = [self.live.step(**row) for row in made]
            got = {name: np.array([step[name] for step in steps]) for name in self.live.program.outputs}
        for name in self.names:
            for i, symbol in enumerate(self.symbols):
                self.compare(got[name][:, i], name, symbol, first)

    def compare(self, got, name, symbol, first):
        program = program_of([name])
        everyone = sorted({s for row in self.history for s in row["close"]})
        panel = {
            field: np.array([[row[field].get(s, np.nan) for s in everyone] for row in self.history])
            for field in program.inputs
        }
        if name == "forever":  # it remembers its first row, so that must be the same one
            for x in panel.values():
                x[: max(self.born[symbol], self.since["ema"])] = np.nan
        want = program.batch(panel)[name][first:, everyone.index(symbol)]
        cold = max(0, min(self.warm_at(name, symbol), self.told[name]) - first)
        assert got[cold:].tobytes() == want[cold:].tobytes(), (name, symbol, cold)
        early = ~np.isnan(got[:cold])
        assert got[:cold][early].tobytes() == want[:cold][early].tobytes(), (name, symbol, cold)

    @rule(kind=st.sampled_from([bytes, bytearray, memoryview]))
    def restore(self, kind):
        state = self.live.snapshot()
        again = self.live.program.stream(state=kind(state))
        assert again.snapshot() == state
        assert again.cold == self.live.cold
        self.live = again

    @rule(names=st.sets(st.sampled_from(sorted(POOL)), min_size=1))
    def other_factors(self, names):
        program, kept = program_of(names), kept_by(names)
        try:
            live = program.stream(state=self.live.snapshot())
        except FactorError as error:
            assert re.search("snapshot was made for .*, this program has ", str(error))  # noqa: PT017
            assert kept
            assert not kept & set(self.since)
            return
        self.live, self.names = live, set(names)
        self.since = {name: self.since.get(name, len(self.history)) for name in kept}

    @precondition(lambda self: len(self.symbols) < len(SYMBOLS))
    @rule(data=st.data(), by_restore=st.booleans())
    def add_symbols(self, data, by_restore):
        free = [s for s in SYMBOLS if s not in self.symbols]
        new = data.draw(st.lists(st.sampled_from(free), min_size=1, unique=True))
        if by_restore:
            self.symbols = list(data.draw(st.permutations([*self.symbols, *new])))
            self.live = self.live.program.stream(self.symbols, state=self.live.snapshot())
        else:
            self.live.add_symbols(new)
            self.symbols += new
        self.born.update(dict.fromkeys(new, len(self.history)))

    @precondition(lambda self: len(self.symbols) > 1)
    @rule(data=st.data(), by_restore=st.booleans())
    def drop_symbols(self, data, by_restore):
        kept = data.draw(st.lists(st.sampled_from(self.symbols), min_size=1, unique=True))
        if by_restore:
            self.live, self.symbols = self.live.program.stream(kept, state=self.live.snapshot()), kept
        else:
            self.live.drop_symbols([s for s in self.symbols if s not in kept])
            self.symbols = [s for s in self.symbols if s in kept]

    @invariant()
    def the_stream_knows_where_it_is(self):
        if hasattr(self, "live"):
            now = len(self.history)
            assert self.live.ordinal == now
            assert self.live.symbols == tuple(self.symbols)
            self.told = {name: now + self.live.cold.get(name, 0) for name in self.names}
            for name, row in self.told.items():
                assert row <= max(now, *(self.warm_at(name, s) for s in self.symbols)), name


Moves.TestCase.settings = settings(max_examples=16, stateful_step_count=16, deadline=None)
TestMoves = Moves.TestCase


# ---- bytes that are no snapshot ----

VICTIM = f.compile(
    {"v": f.ts_var(close, 20), "s": f.ts_sum(close, 6), "n": f.indneutralize(f.ema(volume, 5), f.field("sector"))}
)


def saved():
    live = VICTIM.stream(["A", "B", 3])
    rng = np.random.default_rng(0)
    for _ in range(25):
        live.step(close=rng.normal(5, 1, 3), volume=rng.normal(5, 1, 3), sector=["x", "y", "x"])
    return live.snapshot()


STATE = saved()


def sealed(body):
    return bytes(body) + xxhash.xxh3_128_digest(bytes(body))


def test_every_length_is_refused():
    for length in range(len(STATE)):
        with pytest.raises(FactorError):
            VICTIM.stream(state=STATE[:length])
    for more in (b"\0", b"x" * 16, STATE):
        with pytest.raises(FactorError, match=r"expected \d+ bytes, got \d+"):
            VICTIM.stream(state=STATE + more)


def test_every_flipped_bit_is_refused():
    for bit in range(0, len(STATE) * 8, 5):  # all bytes, and every bit of them in turn
        raw = bytearray(STATE)
        raw[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FactorError):
            VICTIM.stream(state=bytes(raw))


@pytest.mark.parametrize("seed", range(4))
def test_no_bytes_do_harm(seed):
    # With a digest that is right, so that what is behind it is read: refused, or a state like any other.
    rng = random.Random(seed)
    body, taken = STATE[:-16], 0
    numbers = (0, 1, 2, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
    for _ in range(2500):
        raw = bytearray(body)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(rng.choice([64, 256, 1200, len(raw) or 1]))
            kind = rng.random()
            if kind < 0.5 and raw:
                raw[min(at, len(raw) - 1)] = rng.randrange(256)
            elif kind < 0.7:
                raw[at : at + 8] = struct.pack("<Q", rng.choice([*numbers, rng.getrandbits(64)]))
            elif kind < 0.8:
                del raw[at : at + rng.randrange(1, 20)]
            elif kind < 0.9:
                raw[at:at] = rng.randbytes(rng.randrange(1, 20))
            else:
                del raw[at:]
        try:
            live = VICTIM.stream(state=sealed(raw))
        except FactorError:
            continue
        taken += 1
        count = len(live.symbols)
        live.step(close=np.ones(count), volume=np.ones(count), sector=["x"] * count)
        assert VICTIM.stream(state=live.snapshot()).snapshot() == live.snapshot()
    assert taken  # some changes only change values


@pytest.mark.parametrize(
    "raw, message",
    [
        (b"", "expected a factor snapshot, starting with b'PSFACTOR', got b''"),
        (b"PSFACTO", "expected a factor snapshot"),
        (b"\x7fELF" + bytes(300), "expected a factor snapshot, .* got b'.x7fELF"),
        (b"\x80\x04\x95" + bytes(300), "expected a factor snapshot"),
        (json.dumps({"ordinal": 3}).encode(), "expected a factor snapshot"),
        (b"PSFACTOR", "expected at least .* bytes, got 8"),
        (b"PSFACTOR" + bytes(400), "expected snapshot version 3, got version 0"),
        (b"PSFACTOR" + struct.pack("<I", 99) + bytes(400), "got version 99 .* use the release that wrote it"),
        (b"PSFACTOR" + struct.pack("<II", 3, 8) + b"\xff" * 400, r"expected \d+ bytes, got 416"),
        (b"PSFACTOR" + struct.pack("<II", 1, 2**32 - 1) + b"\xff" * 400, r"expected \d+ bytes, got 416"),
    ],
    ids=range(10),
)
def test_foreign_bytes_are_refused(tmp_path, raw, message):
    (tmp_path / "state").write_bytes(raw)
    for state in (raw, tmp_path / "state", str(tmp_path / "state")):
        with pytest.raises(FactorError, match=message) as caught:
            VICTIM.stream(state=state)
        assert ("state'" in str(caught.value)) == (state is not raw)


@pytest.mark.parametrize(
    "program, options, message",
    [
        (
            f.compile({"v": f.ts_var(f.field("open"), 20)}),
            {},
            r"snapshot was made for .*close.*, this program has .*open",
        ),
        (
            f.compile({"v": f.ts_var(close, 20)}, dtype="float32"),
            {},
            "made in float64, this program computes in float32",
        ),
        (VICTIM, {"symbols": ["Z"]}, "snapshot was made for symbols A, B, 3, this stream has Z"),
        (VICTIM, {"symbols": ["3"]}, "snapshot was made for symbols A, B, 3, this stream has 3"),  # text is no number
        (VICTIM, {"n": 2}, "snapshot was made for symbols A, B, 3, this stream has 0, 1"),
    ],
    ids=range(5),
)
def test_both_sides_are_named(program, options, message):
    with pytest.raises(FactorError, match=message):
        program.stream(state=STATE, **options)


def test_an_ordinal_that_cannot_be():
    start = list(snapshot.START.unpack_from(STATE))
    for ordinal, first in ((2**62 + 1, 0), (24, 25)):
        start[3], start[4] = ordinal, first
        with pytest.raises(FactorError, match="the snapshot's header contradicts itself on its ordinal"):
            VICTIM.stream(state=sealed(snapshot.START.pack(*start) + STATE[snapshot.START.size : -16]))


def test_a_file_that_is_replaced_while_it_is_written_stays_whole(tmp_path, monkeypatch):
    live = VICTIM.stream(state=STATE)
    path = tmp_path / "state"
    live.snapshot(path)
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    live.step(close=[1, 2, 3], volume=[1, 2, 3], sector=["x", "y", "x"])
    with pytest.raises(FactorError, match="cannot write the snapshot .*: No space left on device"):
        live.snapshot(path)
    assert path.read_bytes() == STATE
    assert list(tmp_path.iterdir()) == [path]


def test_the_size_of_a_snapshot_does_not_grow_with_history():
    live = VICTIM.stream(["A", "B", 3])
    sizes = []
    for rows in (1, 1000, 100_000):
        live.batch({"close": np.ones((rows, 3)), "volume": np.ones((rows, 3)), "sector": np.zeros((rows, 3))})
        sizes.append(len(live.snapshot()))
    assert len(set(sizes)) == 1
    assert snapshot.decode(live.snapshot())[0].ordinal == 101_001


class LongMoves(Moves):
    """More and longer ones."""


LongMoves.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestLongMoves = pytest.mark.slow(LongMoves.TestCase)
