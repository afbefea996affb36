"""Feeds killed at any instant: their stream has the bits of a run that nobody killed, each row once."""

from __future__ import annotations

import os
import random
import signal
import time
import warnings
from collections.abc import Callable
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
from penstock_tests.children import Point, ended, points, quiet, relay, spawn, storm

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


def killed(path: Path, case: Case, kills: int, rows: int) -> None:
    """Kill the feed, and now and then the producer, `kills` times, until so many rows are there."""
    with ps.open(path) as hub:
        hub.streams.get("in", schema=BARS, **case.stream)
    jobs = {"feed": (8, lambda: consume(path, case)), "producer": (1, lambda: produce(path))}
    storm(path, jobs, kills, enough=lambda: there(path, "in") > rows)


def there(path: Path, name: str) -> int:
    with ps.open(path) as hub:
        return hub.streams.get(name).next_offset


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
    killed(tmp_path, NAMED[name], 4, 0)
    check(tmp_path, NAMED[name])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_killed_at_random_instants(tmp_path: Path, case: Case) -> None:
    killed(tmp_path, case, 25, 100)
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


POINTS = points(PLACES)


def killed_at(path: Path, case: Case, point: Point) -> int:
    """Feeds that each end at the point; returns how many did."""
    with ps.open(path) as hub:
        hub.streams.get("in", schema=BARS, **case.stream)
    rng = random.Random(5)
    tick = 0

    def before() -> None:
        nonlocal tick
        with ps.open(path) as hub:
            for _ in range(6):
                tick += 1
                if made := rows(tick, rng):
                    hub.streams.get("in").append(made)

    def make(call: int) -> Callable[[], object]:
        runner.SNAPSHOT_S = 0.0  # type: ignore[misc]
        feed = case.feed(ps.open(path), "g", "out", every=(0.0, 1.0)[call % 2])
        return lambda: feed.run(blocking=False)

    return relay(path, point, 4, before=before, make=make)


@pytest.mark.parametrize("point", ["put after", "commit before", "save_state before", "link after", "replace after"])
def test_killed_at_a_place(tmp_path: Path, point: str) -> None:
    case = NAMED["discovered"]
    assert killed_at(tmp_path, case, POINTS[point]) > 0
    check(tmp_path, case)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fixed", "absent", "forget"])
def test_killed_at_every_place(tmp_path: Path, name: str) -> None:
    case, died = NAMED[name], {}
    for point, dying in POINTS.items():
        path = tmp_path / point
        path.mkdir()
        died[point] = killed_at(path, case, dying)
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
    jobs = {
        "trades": (1, lambda: trade(tmp_path)),
        "bars": (4, lambda: bars_of(tmp_path)),
        "feed": (5, lambda: consume(tmp_path, case)),
    }
    storm(tmp_path, jobs, 30, enough=lambda: there(tmp_path, "trades") > 1000)
    with quiet():
        bars_of(tmp_path, blocking=False)
    check(tmp_path, case)
    with ps.open(tmp_path) as hub:
        assert len(hub.streams.get("out")) > 100
