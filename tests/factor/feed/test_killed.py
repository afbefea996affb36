"""Feeds killed at any instant: their stream has the bits of a run that nobody killed, each row once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import penstock as ps
from penstock import factor as f
from penstock.errors import PenstockWarning
from penstock.factor.feed.runner import FeedRunner
from penstock.log import Group
from penstock.records import BARS, TRADES
from penstock.window import Bars, history, runner
from penstock.window.results import Results

SYMBOLS = "ABCDE"
STEP = 1_000_000
PROGRAM = f.compile(
    f.Factors(
        reversal="cs_rank(-ts_delta(close, 5))",
        trend="close / ts_mean(close, 30) - 1",
        ema="ts_ema(close, 9)",
        flow="ts_corr(close, volume, 6)",
    ),
    engine="numpy",  # what is tested is not the compiler, and a child begins at once
)


@dataclass(frozen=True)
class Case:
    """A feed. `exact`: its ticks are a function of the rows alone; else of the moments of idle too."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    exact: bool = True
    stream: dict[str, Any] = field(default_factory=dict)

    def feed(self, hub: ps.Hub, group: str, into: str, *, every: float = 1.0) -> Any:
        return PROGRAM.follow(hub.streams.get("in"), into=into, group=group, snapshot_every=every, **self.options)


CASES = [
    Case("discovered", {"late": "side"}),
    Case("fixed", {"symbols": list(SYMBOLS), "late": "side"}, stream={"segment_bytes": 60_000}),
    Case("lateness", {"lateness": "2ms", "late": "side"}),
    Case("absent", {"every": "1ms", "rows": "all", "lateness": "1ms"}),
    Case("forget", {"forget": 31}, stream={"segment_bytes": 60_000}),
    Case("idle", {"idle": "1ms", "late": "side"}, exact=False),
]
NAMED = {case.name: case for case in CASES}


def rows(tick: int, rng: random.Random) -> list[dict[str, Any]]:
    """Bars of one time; some symbols have none, some two, and some are of a time before."""
    made = []
    for name in SYMBOLS:
        for _ in range(rng.choice((0, 1, 1, 1, 1, 1, 1, 2))):
            back = rng.choice((0, 0, 0, 0, 0, 0, 0, 0, 1, 3))
            price = rng.uniform(9, 11)
            made.append(
                {
                    "symbol": name, "ts_event": (tick - back) * STEP, "ts_close": (tick - back + 1) * STEP,
                    "open": price, "high": price, "low": price, "close": price, "volume": rng.randint(1, 99),
                    "amount": 1.0, "vwap": price, "trade_count": 1, "revision": rng.choice((0, 0, 1)),
                }
            )  # fmt: skip
    return made


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """A killed producer leaves bytes that the next one cuts off, and says so. Everything else is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*no append had committed", PenstockWarning)
        yield


def spawn(path: Path, job: Callable[[], object]) -> int:
    """A child that does `job`; what it raises is in `path`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads; none of them works for the child
        child = os.fork()
    if child:
        return child
    try:
        with quiet():
            job()
        os._exit(0)
    except BaseException:
        with (path / "failed").open("a") as file:
            traceback.print_exc(file=file)
    finally:
        os._exit(1)


def ended(path: Path, child: int) -> int:
    """Its exit code; an error of its own is one of the test."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert not (path / "failed").exists(), (path / "failed").read_text()
    return code


def produce(path: Path) -> None:
    """Append for ever; restarted, go on behind what is there."""
    stream = ps.open(path).streams.get("in")
    found = stream.last_origin("producer")
    tick = 0 if found is None else found[0]
    rng = random.Random()
    while True:
        tick += 1 if rng.random() < 0.95 else rng.randint(2, 9)
        if made := rows(tick, rng):
            stream.append(made, origin=("producer", tick))
        time.sleep(rng.random() * 0.004)


def consume(path: Path, case: Case) -> None:
    rng = random.Random()
    runner.SNAPSHOT_S = rng.choice((0.0, 0.01, 1.0))  # type: ignore[misc]
    case.feed(ps.open(path), "g", "out", every=rng.choice((0.0, 0.02, 1.0))).run()


def storm(path: Path, case: Case, kills: int) -> int:
    """Kill the feed, and now and then the producer, `kills` times; returns the number of rows that are there then."""
    with ps.open(path) as hub:
        hub.streams.get("in", schema=BARS, **case.stream)
    jobs: dict[str, Callable[[], object]] = {"feed": lambda: consume(path, case), "producer": lambda: produce(path)}
    rng = random.Random()
    children = {name: spawn(path, job) for name, job in jobs.items()}
    try:
        for _ in range(kills):
            name = rng.choices(list(jobs), (8, 1))[0]
            time.sleep(min(rng.expovariate(12), 0.4))
            os.kill(children[name], signal.SIGKILL)
            assert ended(path, children.pop(name)) == -signal.SIGKILL
            children[name] = spawn(path, jobs[name])
        time.sleep(0.05)
    finally:
        for child in children.values():
            os.kill(child, signal.SIGKILL)
        for child in children.values():
            os.waitpid(child, 0)
    assert not (path / "failed").exists(), (path / "failed").read_text()
    with ps.open(path) as hub:
        return hub.streams.get("in").next_offset


def bits(table: pa.Table) -> list[Any]:
    values = [np.ascontiguousarray(table[name].to_numpy()).view(np.uint64).tolist() for name in PROGRAM.outputs]
    return [table["symbol"].to_pylist(), table["ts_event"].to_pylist(), *values]


def check(path: Path, case: Case) -> None:
    """Let the feed finish, and compare with one that nobody killed."""
    with quiet(), ps.open(path) as hub:
        done = case.feed(hub, "g", "out").run(blocking=False, flush=True)
        made = hub.streams.get("out").read()
        late = hub.streams.exists("in.late") and hub.streams.get("in.late").next_offset
        assert (late or 0) == (done.late if "late" in case.options else 0)
        if "late" in case.options:
            assert by_row(made) == by_row(PROGRAM.batch(in_time(hub)))
        if not case.exact:
            return
        straight = case.feed(hub, "straight", "expected").run(blocking=False, flush=True)
        for name in ("ticks", "ordinal", "symbols", "missing", "duplicates", "unknown", "late"):
            assert getattr(done, name) == getattr(straight, name), name
        assert bits(made) == bits(hub.streams.get("expected").read())
        if late:
            sides = hub.streams.get("in.late")
            assert sides.read(0, late).equals(sides.read(late))
        assert case.feed(hub, "g", "out").run(blocking=False, flush=True).results == 0


def in_time(hub: ps.Hub) -> pa.Table:
    """The rows that are not among the late ones, of each symbol and time the highest revision, of those the last."""
    there = hub.streams.exists("in.late")
    late = (
        {(row["symbol"], row["ts_event"], row["close"]) for row in hub.streams.get("in.late").rows()} if there else {}
    )
    best: dict[tuple[str, int], dict[str, Any]] = {}
    for row in hub.streams.get("in").rows():
        key = row["symbol"], row["ts_event"]
        if (*key, row["close"]) not in late and (key not in best or row["revision"] >= best[key]["revision"]):
            best[key] = row
    return pa.Table.from_pylist(list(best.values()), BARS)


def by_row(table: pa.Table) -> list[Any]:
    """Its rows as bits, sorted."""
    rows = list(zip(*bits(table), strict=True))
    assert len({row[:2] for row in rows}) == len(rows)
    return sorted(rows)


@pytest.mark.parametrize("name", ["discovered", "idle"])
def test_killed_a_few_times(tmp_path: Path, name: str) -> None:
    assert storm(tmp_path, NAMED[name], 4) > 0
    check(tmp_path, NAMED[name])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_killed_at_random_instants(tmp_path: Path, case: Case) -> None:
    assert storm(tmp_path, case, 25) > 100
    check(tmp_path, case)


# -- killed at each place where something is written

PLACES = [
    (Results, "put"),
    (Results, "put_late"),
    (history.History, "record"),
    (Group, "commit"),
    (Group, "save_state"),
    (FeedRunner, "_save"),
    (os, "pwrite"),
    (os, "rename"),
    (os, "replace"),
    (os, "link"),
]


def dying_at(thing: Any, name: str, *, after: bool) -> Callable[[pytest.MonkeyPatch, int], None]:
    """Ends the process right before or after the n-th call."""

    def point(patch: pytest.MonkeyPatch, call: int) -> None:
        real = getattr(thing, name)
        left = [call]

        def dying(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if not left[0] and not after:
                os._exit(9)
            found = real(*args, **options)
            if not left[0]:
                os._exit(9)
            return found

        patch.setattr(thing, name, dying)

    return point


POINTS = {
    f"{name} {'after' if after else 'before'}": dying_at(thing, name, after=after)
    for thing, name in PLACES
    for after in (False, True)
}


def relay(path: Path, case: Case, point: Callable[[pytest.MonkeyPatch, int], None], deaths: int) -> int:
    """Feeds that each end at the point, one call later than the one before; returns how many did."""
    with ps.open(path) as hub:
        hub.streams.get("in", schema=BARS, **case.stream)
    rng = random.Random(5)
    died = tick = 0
    for call in range(1, deaths + 1):
        with quiet(), ps.open(path) as hub:
            for _ in range(6):
                tick += 1
                if made := rows(tick, rng):
                    hub.streams.get("in").append(made)

        def job(call: int = call) -> None:
            runner.SNAPSHOT_S = 0.0  # type: ignore[misc]
            with pytest.MonkeyPatch.context() as patch:
                feed = case.feed(ps.open(path), "g", "out", every=(0.0, 1.0)[call % 2])
                point(patch, call)
                feed.run(blocking=False)

        code = ended(path, spawn(path, job))
        assert code in (0, 9)
        died += code == 9
    return died


@pytest.mark.parametrize("point", ["put after", "commit before", "save_state before", "link after", "replace after"])
def test_killed_at_a_place(tmp_path: Path, point: str) -> None:
    case = NAMED["discovered"]
    assert relay(tmp_path, case, POINTS[point], 4) > 0
    check(tmp_path, case)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fixed", "absent", "forget"])
def test_killed_at_every_place(tmp_path: Path, name: str) -> None:
    case, died = NAMED[name], {}
    for point, dying in POINTS.items():
        path = tmp_path / point
        path.mkdir()
        died[point] = relay(path, case, dying, 4)
        check(path, case)
    assert sum(died.values()) > 30, died


@pytest.mark.slow
def test_killed_while_the_snapshots_are_damaged(tmp_path: Path) -> None:
    case = NAMED["lateness"]
    rng = random.Random(3)
    with ps.open(tmp_path) as hub:
        hub.streams.get("in", schema=BARS)
    tick = 0
    for turn in range(12):
        with quiet(), ps.open(tmp_path) as hub:
            for _ in range(40):
                tick += 1
                if made := rows(tick, rng):
                    hub.streams.get("in").append(made)

        def job() -> None:
            warnings.filterwarnings("ignore", ".*is damaged or gone", PenstockWarning)
            runner.SNAPSHOT_S = 0.0  # type: ignore[misc]
            case.feed(ps.open(tmp_path), "g", "out", every=0.0).run()

        child = spawn(tmp_path, job)
        time.sleep(rng.random() * 0.3)
        os.kill(child, signal.SIGKILL)
        assert ended(tmp_path, child) == -signal.SIGKILL
        files = sorted((tmp_path / "streams" / "in" / "groups").glob("*.state"))
        files += sorted((tmp_path / "streams" / "in" / "groups").glob("*.before"))
        for path in files[: 1 + turn % 2]:
            data = bytearray(path.read_bytes())
            data[rng.randrange(len(data))] ^= 0x55
            path.write_bytes(bytes(data))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is damaged or gone", PenstockWarning)
        check(tmp_path, case)


# -- trades to bars to factors, all of them killed


def trade(path: Path) -> None:
    """Append trades for ever; restarted, go on behind what is there."""
    stream = ps.open(path).streams.get("trades")
    found = stream.last_origin("producer")
    count = 0 if found is None else found[0]
    rng = random.Random()
    while True:
        made = [
            {
                "symbol": rng.choice(SYMBOLS), "ts_event": (count + i) * STEP // 7 - rng.choice((0, 0, 0, 0, 1)) * STEP,
                "price": rng.uniform(9, 11), "size": rng.randint(1, 9),
            }
            for i in range(rng.randint(1, 9))
        ]  # fmt: skip
        count += len(made)
        stream.append(made, origin=("producer", count))
        time.sleep(rng.random() * 0.002)


def bars_of(path: Path, **limits: Any) -> None:
    bars = Bars(0.001, lateness="1ms", late="revise")
    windows = ps.open(path).streams.get("trades", lazy=True, emitter=bars, group="bars", into="in")
    windows.apply(**limits)


@pytest.mark.slow
def test_a_pipeline_whose_every_part_is_killed(tmp_path: Path) -> None:
    case = NAMED["discovered"]
    with ps.open(tmp_path) as hub:
        hub.streams.get("trades", schema=TRADES)
        hub.streams.get("in", schema=BARS)
    jobs: dict[str, Callable[[], object]] = {
        "trades": lambda: trade(tmp_path),
        "bars": lambda: bars_of(tmp_path),
        "feed": lambda: consume(tmp_path, case),
    }
    rng = random.Random()
    children = {name: spawn(tmp_path, job) for name, job in jobs.items()}
    try:
        for _ in range(30):
            name = rng.choices(list(jobs), (1, 4, 5))[0]
            time.sleep(min(rng.expovariate(12), 0.4))
            os.kill(children[name], signal.SIGKILL)
            assert ended(tmp_path, children.pop(name)) == -signal.SIGKILL
            children[name] = spawn(tmp_path, jobs[name])
    finally:
        for child in children.values():
            os.kill(child, signal.SIGKILL)
        for child in children.values():
            os.waitpid(child, 0)
    assert not (tmp_path / "failed").exists(), (tmp_path / "failed").read_text()
    with quiet():
        bars_of(tmp_path, blocking=False)
    check(tmp_path, case)
    with ps.open(tmp_path) as hub:
        assert len(hub.streams.get("out")) > 100
