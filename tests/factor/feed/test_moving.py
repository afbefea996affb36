"""State that moves: to symbols that come late, to other programs, and through whole libraries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock import factor as f
from penstock.factor import snapshot
from penstock.factor.feed import FactorWindow
from penstock.factor.feed.moving import absent, joined
from penstock.log import Chunk

GROUPS = ("sector", "industry", "subindustry")


def bars(ticks: int, symbols: int, *, seed: int = 0) -> pa.RecordBatch:
    """Bars of symbols that come one after the other, and now and then miss one; with groups and capitalisation."""
    random = np.random.default_rng(seed)
    come = np.sort(random.integers(0, ticks * 2 // 3, symbols))
    there = (np.arange(ticks)[:, None] >= come) & (random.random((ticks, symbols)) < 0.9)
    tick, symbol = np.nonzero(there)
    walk = np.exp(np.cumsum(random.normal(0, 0.02, (ticks, symbols)), axis=0)) * 20
    close = np.round(walk, 2)[there]
    low, high = close * random.uniform(0.97, 1, len(close)), close * random.uniform(1, 1.03, len(close))
    columns: dict[str, Any] = {
        "symbol": pa.array([f"S{number}" for number in symbol.tolist()]),
        "ts_event": tick,
        "open": random.uniform(low, high),
        "high": high,
        "low": low,
        "close": close,
        "volume": random.integers(1, 9999, len(close)),
        "amount": close * random.uniform(1, 99, len(close)),
        "vwap": random.uniform(low, high),
        "cap": random.uniform(1, 9, symbols)[symbol],
    }
    for number, name in enumerate(GROUPS):
        columns[name] = pa.array([f"{name} {key % (3 + number)}" for key in symbol.tolist()])
    return pa.RecordBatch.from_pydict(columns)


def pushed(window: FactorWindow, batch: pa.RecordBatch, cuts: Sequence[int]) -> list[Any]:
    found = []
    for low, high in pairwise(sorted({0, *(cut % len(batch) for cut in cuts), len(batch)})):
        found += window.push(Chunk(batch.slice(low, high - low), low, np.zeros(high - low, np.int64)))
    return found + window.flush(len(batch))


def bits(table: pa.Table, outputs: Sequence[str]) -> dict[str, Any]:
    kinds = {4: np.uint32, 8: np.uint64}
    arrays = {name: np.ascontiguousarray(table[name].to_numpy()) for name in outputs}
    return {name: array.view(kinds[array.itemsize]).tolist() for name, array in arrays.items()}


def different(made: pa.Table, expected: pa.Table, outputs: Sequence[str]) -> list[str]:
    """Names of outputs in which a bit differs."""
    assert made.select([0, 1]).equals(expected.select([0, 1]).cast(made.select([0, 1]).schema))
    ours, theirs = bits(made, outputs), bits(expected, outputs)
    return [name for name in outputs if ours[name] != theirs[name]]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["alpha101", "alpha158", "ta"])
def test_libraries_live_are_libraries_in_history(name: str, dtype: str) -> None:
    program = f.compile(f.library(name), dtype=dtype)
    batch = bars(330, 9)
    expected = pa.table(program.batch(pa.table(batch)))
    random = np.random.default_rng(1)
    for cuts in ([], random.integers(0, len(batch), 40).tolist()):
        made = pa.concat_tables([w.table for w in pushed(FactorWindow(program), batch, cuts)])
        assert different(made, expected, program.outputs) == []


def restart(one: f.Program, two: f.Program, batch: pa.RecordBatch, at: int, options: dict[str, Any]) -> tuple[Any, int]:
    """One program to row `at`, then the other; the other's rows, and how many rows there were before."""
    first, second = FactorWindow(one, **options), FactorWindow(two, **options)
    created = np.zeros(len(batch), np.int64)
    before = first.push(Chunk(batch.slice(0, at), 0, created[:at]))

    def fetch(ranges: Sequence[range]) -> list[Chunk]:
        return [Chunk(batch.slice(r.start, len(r)), r.start, created[r.start : r.stop]) for r in ranges]

    second.restore(first.snapshot(), fetch)
    made = second.push(Chunk(batch.slice(at), at, created[at:])) + second.flush(len(batch))
    return (second, pa.concat_tables([w.table for w in made])), sum(len(w) for w in before)


@pytest.mark.parametrize("options", [{}, {"symbols": [f"S{n}" for n in range(9)]}, {"every": "1ns", "lateness": "2ns"}],
                         ids=["discovered", "fixed", "lateness"])  # fmt: skip
def test_any_program_after_any_other(options: dict[str, Any]) -> None:
    library = f.library("alpha101")
    random = np.random.default_rng(5)
    batch = bars(150, 9, seed=2)
    names = [name for name in library if f.compile({name: library[name]}, engine="numpy").warmup < 60][:40]
    for _ in range(8):
        one, two = (
            f.compile(
                {str(name): library[str(name)] for name in random.choice(names, 6, replace=False)}, engine="numpy"
            )
            for _ in range(2)
        )
        at = int(random.integers(500, len(batch) - 100))
        (second, made), before = restart(one, two, batch, at, options)
        straight = pa.concat_tables([w.table for w in pushed(FactorWindow(two, **options), batch, [])])
        assert different(made, straight.slice(before), two.outputs) == []
        assert second.ticks.universe.ordinal == second.ticks.ticks
        assert second.ticks.universe.live is not None
        assert {*second.ticks.universe.symbols} == {f"S{number}" for number in range(9)}


def test_the_same_operators_move_even_without_a_log() -> None:
    one = f.compile(f.Factors(e="ts_ema(close, 9)", m="ts_mean(close, 20)"), engine="numpy")
    two = f.compile(
        f.Factors(twice="ts_ema(close, 9) * 2", m="ts_mean(close, 20)", new="ts_max(close, 7)"), engine="numpy"
    )
    batch = bars(80, 4)
    first, second = FactorWindow(one), FactorWindow(two)
    created = np.zeros(len(batch), np.int64)
    at = len(batch) - 20
    before = first.push(Chunk(batch.slice(0, at), 0, created[:at]))
    waiting = first.ticks.held.offsets

    def nothing_but_what_waits(ranges: Sequence[range]) -> list[Chunk]:
        rows = [row for r in ranges for row in r if row in waiting]
        return [Chunk(batch.slice(row, 1), row, created[:1]) for row in rows]

    second.restore(first.snapshot(), nothing_but_what_waits)
    made = second.push(Chunk(batch.slice(at), at, created[at:])) + second.flush(len(batch))
    table = pa.concat_tables([w.table for w in made])
    expected = pa.table(two.batch(pa.table(batch))).slice(sum(len(w) for w in before))
    assert different(table, expected, ("twice", "m")) == []


FACTORS: list[Callable[[], f.Factors]] = [
    lambda: f.Factors(x="ts_sum(nan_to(close, 1), 3)", y="ts_corr(close, volume, 6)"),
    lambda: f.Factors(x="ts_ema(nan_to(close, 1), 5)", y="ts_count(close, 4)"),
    lambda: f.Factors(x="ts_rank(close, 9)", y="decay_linear(close, 30)", z="ts_argmax(high, 7)"),
    lambda: f.library("alpha158"),
]


@pytest.mark.parametrize("factors", FACTORS, ids=["filled", "endless", "windows", "alpha158"])
@pytest.mark.parametrize("ordinal", [0, 1, 40, 300])
def test_who_was_absent_is_as_if_always_nan(factors: Callable[[], f.Factors], ordinal: int) -> None:
    program = f.compile(factors(), engine="numpy")
    random = np.random.default_rng(3)
    rows = {name: random.uniform(1, 9, (ordinal + 70, 2)) for name in program.inputs}
    for block in rows.values():
        block[:ordinal, 1] = np.nan
    whole = program.batch(rows)
    live = program.stream(["A"])
    if ordinal:
        live.batch({name: np.ascontiguousarray(block[:ordinal, :1]) for name, block in rows.items()})
    live = joined(live, ["B"])
    made = live.batch({name: block[ordinal:] for name, block in rows.items()})
    assert live.symbols == ("A", "B")
    for name in program.outputs:
        assert made[name].tobytes() == np.ascontiguousarray(whole[name][ordinal:]).tobytes(), name
    assert absent(program, 0, ordinal).shape == (program.layout.rows, 1)
    header, _ = snapshot.decode(live.snapshot())
    assert header.since == [0, ordinal]
