"""Bars against a reference that looks at one row at a time, in plain Python, and shares no code with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.clock import time_ns
from penstock.window.bars import Bars, kernel
from penstock.window.bars.open import OpenBars
from penstock.window.grid import Grid
from penstock.window.sessions import Sessions

SIZE = 10  # ns: small numbers read well in a failure
Interval = tuple[int, int, int]  # start, end, over


def tumbling(time: int) -> Interval | None:
    start = time - time % SIZE
    return start, start + SIZE, start + SIZE


def next_tumbling(time: int) -> Interval:
    start = -(-time // SIZE) * SIZE
    return start, start + SIZE, start + SIZE


@dataclass
class Reference:
    """What the docstring of Bars says, row by row."""

    lateness: int = 0
    late: str = "revise"
    revise_for: int = 10 * SIZE
    fill: str = "none"
    interval: Callable[[int], Interval | None] = tumbling
    after: Callable[[int], Interval] = next_tumbling  # the first to start at an instant or after it
    spans: dict[int, Interval] = field(default_factory=dict)  # by start
    clock: int | None = None
    symbols: list[Any] = field(default_factory=list)
    rows: dict[tuple[int, Any], list[tuple[int, float, Any]]] = field(default_factory=dict)
    closed: set[tuple[int, Any]] = field(default_factory=set)
    given: dict[tuple[int, Any], int] = field(default_factory=dict)
    active: set[Any] = field(default_factory=set)
    next: int | None = None
    out: list[tuple[Any, ...]] = field(default_factory=list)
    side: list[int] = field(default_factory=list)
    dropped: int = 0
    lates: int = 0
    missing: int = 0
    outside: int = 0

    def bar(self, start: int, symbol: Any) -> tuple[Any, ...]:
        rows = self.rows[start, symbol]
        by_time = sorted(range(len(rows)), key=lambda i: (rows[i][0], i))
        volume, amount = type(rows[0][2])(0), 0.0
        for _, price, size in rows:
            volume += size
            amount += price * size
        return (
            rows[by_time[0]][1],
            max(row[1] for row in rows),
            min(row[1] for row in rows),
            rows[by_time[-1]][1],
            volume,
            amount,
            amount / volume if volume > 0 else None,
            len(rows),
        )

    def emit(self, row: int, start: int, symbol: Any, values: tuple[Any, ...]) -> None:
        revision = self.given.get((start, symbol), -1) + 1
        self.given[start, symbol] = revision
        self.out.append((row, symbol, start, self.spans[start][1], *values, revision))

    def tick(self, time: int, row: int) -> None:
        self.clock = time if self.clock is None else max(self.clock, time)
        ready = [
            (start, self.symbols.index(symbol))
            for start, symbol in self.rows
            if (start, symbol) not in self.closed and self.due(start) <= self.clock
        ]
        if self.fill == "none":
            for start, number in sorted(ready):
                self.closed.add((start, self.symbols[number]))
                self.emit(row, start, self.symbols[number], self.bar(start, self.symbols[number]))
            return
        if self.next is None and ready:
            self.next = min(ready)[0]
        while self.next is not None and self.due(self.next) <= self.clock:
            start = self.next
            for symbol in self.symbols:
                if (start, symbol) in self.rows:
                    self.closed.add((start, symbol))
                    self.active.add(symbol)
                    self.emit(row, start, symbol, self.bar(start, symbol))
                elif symbol in self.active:
                    price = math.nan
                    if self.fill == "previous":
                        newest = max(at for at, name in self.closed if name == symbol)
                        price = self.bar(newest, symbol)[3]
                    self.emit(row, start, symbol, (price,) * 4 + (0, 0.0, None, 0))
            self.jump(self.spans[start][1])

    def due(self, start: int) -> int:
        return self.spans[start][2] + self.lateness

    def jump(self, time: int) -> None:
        span = self.after(time)
        self.next = span[0]
        self.spans[span[0]] = span

    def row(self, number: int, symbol: Any, time: int, price: float, size: Any) -> None:
        if symbol not in self.symbols:
            self.symbols.append(symbol)
        found = self.interval(time)
        start = found[0] if found else 0
        if found:
            self.spans[start] = found
        clock = time if self.clock is None else max(self.clock, time)
        if math.isnan(price):
            self.missing += 1
        elif found is None:
            self.outside += 1
        elif self.due(start) > clock:
            self.rows.setdefault((start, symbol), []).append((time, price, size))
        else:
            self.lates += 1
            if self.late == "side":
                self.side.append(number)
            elif self.late == "drop" or clock - self.due(start) >= self.revise_for:
                self.dropped += 1
            else:
                self.rows.setdefault((start, symbol), []).append((time, price, size))
                self.closed.add((start, symbol))
                self.active.add(symbol)
                if self.next is None and self.fill != "none":
                    now = self.interval(clock - self.lateness)
                    self.jump(now[0] if now else clock - self.lateness)
                self.emit(number, start, symbol, self.bar(start, symbol))
                return
        self.tick(time, number)

    def flush(self) -> None:
        dues = [self.due(start) for start, symbol in self.rows if (start, symbol) not in self.closed]
        if dues:
            self.tick(max(dues), -1)


def rows_of(batch: pa.RecordBatch, positions: Any, first: int) -> list[tuple[Any, ...]]:
    columns = [column.to_pylist() for column in batch.columns]
    rows = [int(p) + first if p >= 0 else -1 for p in positions]
    assert len(rows) == batch.num_rows
    return list(zip(rows, *columns, strict=True))


def same(left: Any, right: Any) -> bool:
    """Equal, bit for bit; NaN equals NaN."""
    return repr(left) == repr(right)


row = st.tuples(
    st.sampled_from(["A", "B", "C", "D"]),
    st.integers(-25, 25),
    st.sampled_from([1.1, 2.3, 3.7, 0.1, 100.25, -4.3, math.nan]),
    st.integers(0, 9),
)
steps = st.lists(st.one_of(row, row, row, row, st.integers(0, 80)), max_size=60)
drift = st.sampled_from([0, 1, 3, 12])


@st.composite
def inputs(draw: st.DrawFn) -> tuple[list[Any], list[int], bool]:
    """Rows and heartbeats with times; where to cut; whether times never decrease."""
    out: list[Any] = []
    base, speed, ordered = 1000, draw(drift), draw(st.booleans())
    for step in draw(steps):
        base += speed
        if isinstance(step, int):
            out.append(base + step - 40)
        else:
            symbol, jitter, price, size = step
            if ordered:
                base += max(0, jitter)
                jitter = 0
            out.append((symbol, base + jitter, price, size))
    cuts = draw(st.lists(st.integers(0, max(0, len(out))), max_size=8))
    return out, sorted(set(cuts)), draw(st.booleans())


def feed(reference: Reference, events: list[Any]) -> int:
    """All rows and heartbeats, and the end; returns how many rows there were."""
    number = 0
    for event in events:
        if isinstance(event, int):
            reference.tick(event, -1)
        else:
            reference.row(number, *event)
            number += 1
    reference.flush()
    return number


def drive(
    make: Callable[[], Bars], events: list[Any], cuts: list[int], saved: bool
) -> tuple[list[Any], Bars, list[Any]]:
    """Feed the events, cut there, with a snapshot and a restore at each cut when `saved`."""
    bars, out, batch, first, number = make(), [], [], 0, 0
    side: list[Any] = []

    def send() -> None:
        nonlocal bars, batch, first
        got = bars.update(table(batch), first)
        out.extend(rows_of(got, bars.positions, first))
        batch, first = [], number

    for place, event in enumerate([*events, None]):
        if place in cuts or event is None or isinstance(event, int):
            send()
            if saved:
                fresh = make()
                fresh.restore(bars.snapshot())
                assert fresh.snapshot() == bars.snapshot()
                bars = fresh
        if isinstance(event, int):
            out.extend(rows_of(bars.advance(event), bars.positions, first))
        elif event is not None:
            batch.append((*event, number))
            number += 1
    for late in bars.late_rows():
        side.extend(late.column("number").to_pylist())
    out.extend(rows_of(bars.flush(), bars.positions, first))
    return out, bars, side


def table(rows: list[Any], size: pa.DataType | None = None) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True)) or [[], [], [], [], []]
    types = [pa.string(), pa.int64(), pa.float64(), size or pa.int64(), pa.int64()]
    names = ["symbol", "ts_event", "price", "size", "number"]
    return pa.RecordBatch.from_arrays([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names=names)


CELLS = ("dense", "sparse", "dense numpy", "sparse numpy")


@contextmanager
def kept(cells: str) -> Iterator[None]:
    """Open bars are kept in this way, whatever there is of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "AFTER", None if "numpy" in cells else 0)
        if "sparse" in cells:
            patch.setattr(OpenBars, "DENSE", 0)
            patch.setattr(OpenBars, "PER_ROW", 0)
        yield


@pytest.mark.parametrize("fill", ["none", "previous", "nan"])
@pytest.mark.parametrize("late", ["revise", "drop", "side"])
@pytest.mark.parametrize("examples", [50, pytest.param(1500, marks=pytest.mark.slow)])
def test_any_cut_gives_the_bars_of_the_reference(examples: int, late: Any, fill: Any) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(inputs(), st.sampled_from([0, 3, 25]), st.sampled_from([0, 15, 100]))
    def check(drawn: Any, lateness: int, keep: int) -> None:
        events, cuts, saved = drawn
        reference = Reference(lateness, late, keep, fill)
        number = feed(reference, events)

        def make() -> Bars:
            return Bars(f"{SIZE}ns", lateness=f"{lateness}ns", late=late, revise_for=f"{keep}ns", fill=fill)

        for cells in CELLS:
            with kept(cells):
                out, bars, side = drive(make, events, cuts, saved)
            assert same(out, reference.out), cells
            counts = bars.statistics()
            assert (counts.rows, counts.late, counts.missing) == (number, reference.lates, reference.missing)
            assert (counts.dropped, side) == (reference.dropped, reference.side)
            assert counts.bars + counts.revisions == len(out)
            assert counts.open == 0

    check()


NEW_YORK = "America/New_York"
HOUR = 3600 * 10**9
PLACES: dict[str, tuple[Any, list[str]]] = {
    "days of a zone": (Grid(7 * HOUR, tz=NEW_YORK), ["2026-03-08T05:00Z", "2026-11-01T06:00Z"]),
    "half-hour zone": (Grid(3 * HOUR, tz="Australia/Lord_Howe"), ["2026-10-03T15:30Z", "2026-04-04T15:00Z"]),
    "breaks": (
        Sessions("09:30-16:00", tz=NEW_YORK, breaks=["12:00-13:00"]).grid(HOUR),
        ["2026-03-06T14:30Z", "2026-03-06T18:00Z", "2026-03-06T21:00Z"],
    ),
    "closing auction": (
        Sessions("09:30-16:00", tz=NEW_YORK, closing="include").grid(4 * HOUR),
        ["2026-03-06T21:00Z", "2026-03-06T21:00Z", "2026-11-02T21:00Z"],
    ),
    "overnight": (
        Sessions("18:00-17:00", tz=NEW_YORK, closing="include", breaks=["12:00-13:00"]).grid(24 * HOUR),
        ["2026-03-08T21:00Z", "2026-03-09T21:00Z", "2026-03-09T16:30Z"],
    ),
    "outside": (
        Sessions("09:30-16:00", tz="Asia/Kolkata", outside="keep", closing="include").grid(5 * HOUR),
        ["2026-03-06T04:00Z", "2026-03-06T10:30Z", "2026-03-06T18:30Z"],
    ),
}


@pytest.mark.parametrize("fill", ["none", "previous"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("examples", [40, pytest.param(1500, marks=pytest.mark.slow)])
def test_any_cut_gives_the_bars_of_local_time_and_sessions(examples: int, place: str, fill: Any) -> None:
    grid, moments = PLACES[place]

    def interval(time: int) -> Interval | None:
        # The rules of one instant are tested with Grid and Sessions; here, what Bars makes of them.
        if isinstance(grid, Grid):
            start, end = grid.span(time)
            return start, end, end
        found = [int(column[0]) for column in grid.assign([time])]
        return (found[0], found[1], found[2]) if found[3] else None

    def after(time: int) -> Interval:
        found = grid.between(time, time + 5 * 24 * HOUR)
        i = int(np.searchsorted(found[0], time))
        return int(found[0][i]), int(found[1][i]), int(found[-1][i])

    shifts = st.sampled_from([0, 0, 1, -1, HOUR // 3, -HOUR // 3, HOUR, -HOUR, 2 * HOUR, 9 * HOUR, -9 * HOUR])
    row = st.tuples(st.sampled_from("AB"), st.sampled_from(moments), shifts, st.sampled_from([1.5, 2.25, math.nan]))

    @settings(max_examples=examples, deadline=None)
    @given(st.lists(row, max_size=25), st.lists(st.integers(0, 25)), st.sampled_from([0, HOUR]), st.booleans())
    def check(rows: list[Any], cuts: list[int], lateness: int, ordered: bool) -> None:
        events = [(symbol, time_ns(moment) + shift, price, 3) for symbol, moment, shift, price in rows]
        if ordered:
            events.sort(key=lambda event: event[1])
        reference = Reference(lateness, "revise", 100 * HOUR, fill, interval, after)
        feed(reference, events)

        def make() -> Bars:
            kind = {"lateness": lateness / 1e9, "revise_for": "100h", "fill": fill}
            if isinstance(grid, Grid):
                return Bars(grid.size_ns // 10**9, tz=grid.tz, **kind)
            return Bars(grid.size_ns // 10**9, sessions=grid.sessions, **kind)

        out, bars, _ = drive(make, events, cuts, False)
        assert same(out, reference.out)
        assert bars.statistics().outside == reference.outside

    check()
