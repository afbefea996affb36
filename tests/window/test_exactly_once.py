"""Producers and consumers killed at any instant: the results are those of a run that nobody killed."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock import window as W
from penstock.log import Group, Stream
from penstock.testing import ManualClock
from penstock.window import history, runner
from penstock.window.results import Results
from penstock_tests.children import Point, points, quiet, relay, storm

ROWS = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("ts_event", pa.int64(), nullable=False),
        pa.field("price", pa.float64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("producer", pa.int64()),
        pa.field("n", pa.int64()),
    ]
)
SYMBOLS = ("A", "B", "C")
MS = 1_000_000


class Volume(W.CustomWindow):
    """Ends when the sizes of a symbol add up to 40."""

    def __init__(self) -> None:
        super().__init__(by="symbol")

    def cuts(self, pending: ps.Window) -> list[int]:
        total = np.cumsum(pending.table["size"].to_numpy())
        first = int(np.searchsorted(total, 40))
        return [first + 1] if first < len(total) else []


# -- what the functions make of a window


def told(window: ps.Window) -> dict[str, Any]:
    """Everything about it."""
    return {
        "offsets": [int(offset) for offset in window.offsets],
        "key": window.key,
        "start": window.start_ns,
        "end": window.end_ns,
        "late": window.late,
        "total": sum(window.table["size"].to_pylist()),
    }


def several(window: ps.Window) -> pa.Table:
    """A row for each of the window's."""
    offsets = [int(offset) for offset in window.offsets]
    return pa.table({"offset": offsets, "of": [len(window)] * len(window), "price": window.table["price"]})


def sometimes(window: ps.Window) -> list[dict[str, Any]] | None:
    """None, no rows, or rows, by what is in the window."""
    first = int(window.offsets[0])
    return None if first % 3 == 0 else [] if first % 7 == 1 else [told(window)] * (first % 3)


def failing(window: ps.Window) -> dict[str, Any] | None:
    """Raises for some windows, and has no result for others."""
    first = int(window.offsets[0])
    if first % 5 == 0:
        raise ValueError(f"window from {first}")
    return None if first % 5 == 1 else told(window)


@dataclass(frozen=True)
class Case:
    """A consumer. `exact`: its windows are a function of the rows alone; else of the marks too."""

    name: str
    options: dict[str, Any]
    fn: Callable[[ps.Window], Any] | None = told
    exact: bool = True
    stream: dict[str, Any] = field(default_factory=dict)

    def streaming(self, hub: ps.Hub, group: str, into: str) -> Any:
        return hub.streams.get("in", lazy=True, group=group, into=into, **self.options)


CASES = [
    Case("each row", {"size": 1}),
    Case("seven rows", {"size": 7}, several),
    Case("keyed count", {"size": 5, "by": "symbol"}, sometimes),
    Case("errors", {"size": 3, "retries": 1}, failing, stream={"segment_bytes": 30_000}),
    Case("event time", {"interval": "20ms", "lateness": "4ms", "late": "side"}),
    Case("event time, keyed", {"interval": "10ms", "by": "symbol", "lateness": "2ms", "late": "emit"}, sometimes),
    Case("append time", {"interval": "10ms", "time": "append"}, exact=False),
    Case("idle", {"interval": "10ms", "lateness": "1ms", "idle": "500us", "late": "side"}, exact=False),
    Case("relaxed", {"interval": "10ms", "relaxed": True, "by": "symbol"}, exact=False),
    Case("sliding", {"interval": "30ms", "every": "10ms", "by": "symbol", "lateness": "3ms"}, several),
    Case("sessions", {"gap": "4ms", "by": "symbol", "lateness": "2ms", "late": "side"}, failing),
    Case("custom", {"emitter": Volume()}, several, stream={"segment_bytes": 30_000}),
    Case("bars", {"emitter": W.Bars("20ms", lateness="3ms", late="revise")}, None),
]
NAMED = {case.name: case for case in CASES}


def rows(producer: int, start: int, count: int, now: int, rng: random.Random) -> list[dict[str, Any]]:
    """Rows `start` on of a producer; some are out of order, a few by much."""
    jitter = [rng.choice((0, 0, 0, 1, 2, 30)) * MS for _ in range(count)]
    return [
        {
            "symbol": rng.choice(SYMBOLS),
            "ts_event": now + i - late,
            "price": float(rng.randint(1, 1000)),
            "size": rng.randint(1, 9),
            "producer": producer,
            "n": start + i,
        }
        for i, late in enumerate(jitter)
    ]


# -- processes


def produce(path: Path, producer: int) -> NoReturn:
    """Append for ever; restarted, go on behind what is there."""
    stream = ps.open(path).streams.get("in")
    rng = random.Random()
    found = stream.last_origin(f"producer {producer}")
    n = 0 if found is None else found[0]
    while True:
        count = rng.randint(1, 5)
        stream.append(rows(producer, n, count, time.time_ns(), rng), origin=(f"producer {producer}", n + count))
        n += count
        time.sleep(rng.random() * 0.003)


def consume(path: Path, case: Case) -> None:
    runner.SNAPSHOT_S = random.Random().choice((0.0, 0.01, 1.0))  # type: ignore[misc]
    case.streaming(ps.open(path), "g", "out").apply(case.fn)


def killed(path: Path, case: Case, kills: int, rows: int) -> None:
    """Kill consumer and producers `kills` times, until so many rows are there."""
    with ps.open(path) as hub:
        hub.streams.get("in", schema=ROWS, **case.stream)
    storm(
        path,
        {
            "consumer": (6, lambda: consume(path, case)),
            "first": (1, lambda: produce(path, 0)),
            "second": (1, lambda: produce(path, 1)),
        },
        kills,
        enough=lambda: there(path) > rows,
        mean_s=1 / 20,
        # An interrupt, too, may come between any two steps, and lets the consumer save what it has.
        signals=(signal.SIGKILL, signal.SIGKILL, signal.SIGINT),
    )


def there(path: Path) -> int:
    with ps.open(path) as hub:
        return hub.streams.get("in").next_offset


# -- what must be there


def check(path: Path, case: Case) -> None:
    """Let the consumer finish, and compare."""
    with quiet(), ps.open(path) as hub:
        stream = hub.streams.get("in")
        table = stream.read()
        for producer in (0, 1):
            mine = table.filter(pa.compute.equal(table["producer"], producer))["n"].to_pylist()
            assert mine == list(range(len(mine)))
        case.streaming(hub, "g", "out").apply(case.fn, blocking=False, flush=not case.exact)
        (compare if case.exact else account)(hub, case)
        low = stream.position("g").low
        again = case.streaming(hub, "g", "out").apply(case.fn, blocking=False)
        assert (again.windows, stream.position("g").low) == (0, low)


def compare(hub: ps.Hub, case: Case) -> None:
    """With a run over the same log from its start to its end."""
    sides = [name for name in ("in.late", "in.errors") if hub.streams.exists(name)]
    before = {name: hub.streams.get(name).next_offset for name in sides}
    case.streaming(hub, "expected", "expected").apply(case.fn, blocking=False)
    out, expected = hub.streams.get("out"), hub.streams.get("expected")
    assert out.read().equals(expected.read())
    for name, there in before.items():
        sides_ = hub.streams.get(name)
        mine, theirs = sides_.read(0, there), sides_.read(there)
        columns = [column for column in mine.column_names if column not in ("consumer", "detail")]
        assert mine.select(columns).equals(theirs.select(columns)), name
    assert hub.streams.get("in").position("g").low == hub.streams.get("in").position("expected").low


def account(hub: ps.Hub, case: Case) -> None:
    """Every row is in exactly one window, or among the late ones."""
    stream = hub.streams.get("in")
    found = [offset for row in hub.streams.get("out").rows() for offset in row["offsets"]]
    if hub.streams.exists("in.late"):
        offset_of = {pair: offset for offset, pair in enumerate(pairs(stream))}
        found += [offset_of[pair] for pair in pairs(hub.streams.get("in.late"))]
    assert sorted(found) == list(range(stream.next_offset))


def pairs(stream: Stream) -> Iterator[tuple[int, int]]:
    table = stream.read()
    return zip(table["producer"].to_pylist(), table["n"].to_pylist(), strict=True)


@pytest.mark.parametrize("name", ["each row", "relaxed", "bars"])
def test_killed_a_few_times(tmp_path: Path, name: str) -> None:
    case = NAMED[name]
    killed(tmp_path, case, 4, 0)
    check(tmp_path, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_killed_at_random_instants(tmp_path: Path, case: Case) -> None:
    killed(tmp_path, case, 30, 100)
    check(tmp_path, case)


# -- killed at each place where something is written


PLACES = [
    (Results, "put"),
    (Results, "tell"),
    (Results, "put_late"),
    (history.History, "record"),
    (Group, "commit"),
    (Group, "save_state"),
    (Group, "sync"),
    (runner.Runner, "_handle"),
    (os, "pwrite"),
    (os, "rename"),
]
POINTS = points(PLACES)


def killed_at(path: Path, case: Case, point: Point) -> int:
    """Consumers that each end at the point; returns how many did."""
    with ps.open(path) as hub:
        hub.streams.get("in", schema=ROWS, **case.stream)
    rng = random.Random(5)
    now = time.time_ns()
    clock = ManualClock(now)
    n = 0

    def before() -> None:
        nonlocal n
        with ps.open(path) as hub:
            for _ in range(4):
                hub.streams.get("in").append(rows(0, n, 5, now + n * 3 * MS, rng))
                n += 5
        clock.advance(0.02)

    def make(call: int) -> Callable[[], object]:
        runner.SNAPSHOT_S = (0.0, 1.0)[call % 2]  # type: ignore[misc]
        streaming = case.streaming(ps.open(path), "g", "out")
        return lambda: streaming.apply(case.fn, blocking=False)

    return relay(path, point, 4, before=before, make=make)


@pytest.mark.parametrize("point", ["put after", "commit before", "save_state before", "pwrite after"])
def test_killed_at_a_place(tmp_path: Path, point: str) -> None:
    case = NAMED["event time"]
    assert killed_at(tmp_path, case, POINTS[point]) > 0
    check(tmp_path, case)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["errors", "event time", "append time", "sliding"])
def test_killed_at_every_place(tmp_path: Path, name: str) -> None:
    case, died = NAMED[name], {}
    for point, dying in POINTS.items():
        path = tmp_path / point
        path.mkdir()
        died[point] = killed_at(path, case, dying)
        check(path, case)
        shutil.rmtree(path)
    assert sum(died.values()) > 30, died


# -- every other way to end


class Ending(BaseException):
    """What nobody expects."""


STEPS = st.one_of(
    st.tuples(st.just("rows"), st.integers(1, 12)),
    st.tuples(st.just("rows"), st.integers(1, 12)),
    st.tuples(st.just("run"), st.just(0)),
    st.tuples(st.just("max_windows"), st.integers(1, 4)),
    st.tuples(st.just("until"), st.integers(0, 40)),
    st.tuples(st.just("test"), st.integers(1, 4)),
    st.tuples(st.just("raise"), st.integers(1, 4)),
    st.tuples(st.just("raise after"), st.integers(1, 4)),
    st.tuples(st.just("forget"), st.just(0)),
    st.tuples(st.just("forget all"), st.just(0)),
    st.tuples(st.just("time"), st.integers(1, 40)),
)


@settings(max_examples=40)
@given(st.sampled_from([case.name for case in CASES]), st.lists(STEPS, max_size=14), st.integers(0, 5))
def test_ended_in_any_way(name: str, steps: list[tuple[str, int]], seed: int) -> None:
    case = NAMED[name]
    rng, now, n = random.Random(seed), time.time_ns(), 0
    clock = ManualClock(now)
    with tempfile.TemporaryDirectory() as folder, ps.open(folder) as hub:
        stream = hub.streams.get("in", schema=ROWS, **case.stream)
        for step, number in steps:
            if step == "rows":
                stream.append(rows(0, n, number, now + n * 3 * MS, rng))
                n += number
            elif step == "time":
                clock.advance(ns=number * MS)
            elif step.startswith("forget"):
                for path in (Path(folder) / "streams" / "in" / "groups").glob(
                    "*" if step == "forget all" else "*.state"
                ):
                    path.unlink()
            else:
                one_run(hub, case, clock, step, number)
        clock.advance(1)
        case.streaming(hub, "g", "out").apply(case.fn, blocking=False, flush=not case.exact)
        (compare if case.exact else account)(hub, case)


def one_run(hub: ps.Hub, case: Case, clock: ManualClock, step: str, number: int) -> None:
    calls = [0]

    def fn(window: ps.Window) -> Any:
        calls[0] += 1
        if step == "raise" and calls[0] == number:
            raise Ending
        return window.table if case.fn is None else case.fn(window)

    def ending(real: Callable[..., Any]) -> Callable[..., Any]:
        def put(*args: Any) -> Any:
            found = real(*args)
            if calls[0] == number:
                raise Ending
            return found

        return put

    limits: dict[str, Any] = {"max_windows": number} if step == "max_windows" else {}
    if step == "until":
        limits["until"] = number
    if step == "test":
        limits["until"] = lambda window: len(window) % number == 0
    streaming = hub.streams.get("in", lazy=True, group="g", into="out", clock=clock, **case.options)
    with pytest.MonkeyPatch.context() as patch:
        if step == "raise after":
            for name in ("put", "tell"):
                patch.setattr(Results, name, ending(getattr(Results, name)))
        with contextlib.suppress(Ending):
            streaming.apply(fn, blocking=False, **limits)
