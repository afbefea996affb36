"""What happened after a bar was closed: bars kept for late rows, and bars made for intervals without trades."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.errors import WindowError
from penstock.window.bars.cells import Bar, Cells, fold
from penstock.window.bars.input import Float64, Rows
from penstock.window.bars.intervals import Intervals
from penstock.window.grid import HIGHEST, LOWEST, Int64

__all__ = ["Fills", "History", "empty_bar"]


class History:
    """Closed bars, kept for `keep_ns` of event time after they were due, so that a late row can revise them."""

    def __init__(self, keep_ns: int) -> None:
        self.keep_ns = keep_ns
        self.closed: deque[Bar] = deque()  # each ascending by (start, symbol), one after the other
        self.revised: dict[tuple[int, int], tuple[Bar, int]] = {}  # (start, symbol) -> newest bar, revision

    def add(self, bars: Bar) -> None:
        if len(bars):
            self.closed.append(bars)

    def forget(self, clock: int) -> None:
        """Drop what no row can revise any more."""
        limit = clock - self.keep_ns
        before = len(self.closed)
        while self.closed and int(self.closed[0].due[-1]) <= limit:
            self.closed.popleft()
        if self.revised and (len(self.closed) < before or not self.closed):
            self.revised = {at: pair for at, pair in self.revised.items() if int(pair[0].due[0]) > limit}

    def revise(self, new: Bar, row: Rows, filled: bool) -> tuple[Bar, int]:
        """The bar with one late row in it, and how often this bar was given before.

        Takes   new: the row's interval and symbol, its cells empty; filled: whether a filled bar was given for it.
        """
        at = (int(new.start[0]), int(new.symbol[0]))
        known = self.revised.get(at)
        if known is None:
            old = self._closed(*at)
            known = (new, int(filled) - 1) if old is None else (old, 0)
        bar = known[0].take(slice(0, 1))
        bar.cells = bar.cells.copy()
        fold(bar.cells, np.zeros(1, np.intp), row, False)
        self.revised[at] = (bar, known[1] + 1)
        return self.revised[at]

    def _closed(self, start: int, symbol: int) -> Bar | None:
        chunk = bisect_right(self.closed, start, key=lambda bars: int(bars.start[0])) - 1
        # One interval may span chunks when symbols closed it apart (flush); look at each that can hold it.
        while chunk >= 0 and int(self.closed[chunk].start[-1]) >= start:
            bars = self.closed[chunk]
            low, high = np.searchsorted(bars.start, [start, start + 1])
            row = int(low) + int(np.searchsorted(bars.symbol[low:high], symbol))
            if row < high and int(bars.symbol[row]) == symbol:
                return bars.take(slice(row, row + 1))
            chunk -= 1
        return None


class Fills:
    """Bars for intervals in which a symbol did not trade, from its first bar on."""

    MOST = 1 << 24  # rows of one call: 1.6 GB, far more than any feed closes at once
    BLOCK = 1 << 20

    def __init__(self, how: str) -> None:
        self.how = how
        self.next: int | None = None  # where the first interval not yet closed may start
        self.since = np.empty(0, np.int64)  # per symbol: filled from intervals starting here; LOWEST: not at all
        self.close = np.empty(0, np.float64)
        self.latest = np.empty(0, np.int64)  # start of the newest bar

    def widen(self, symbols: int) -> None:
        short = symbols - len(self.since)
        if short > 0:
            short = max(short, len(self.since) // 2)
            self.since = np.concatenate([self.since, np.full(short, LOWEST)])
            self.close = np.concatenate([self.close, np.full(short, np.nan)])
            self.latest = np.concatenate([self.latest, np.full(short, LOWEST)])

    def check(
        self,
        intervals: Intervals,
        clock: int,
        symbols: int,
        first: int | None,
        bars: Callable[[], tuple[NDArray[np.intp], Int64]],
    ) -> None:
        """Raises WindowError when closing all intervals due at `clock` would make too many rows.

        Takes   first: where the earliest bar not closed starts; bars: symbol and start of bars not closed, asked for
                only when there is reason to count.
        """
        low = self.next if self.next is not None else first
        if low is None or clock < low:
            return
        steps = (clock - low) // intervals.size_ns + 1
        if steps * symbols <= self.MOST:
            return
        begin = np.full(symbols, HIGHEST)
        known = self.since[:symbols]
        begin[: len(known)][known != LOWEST] = low
        symbol, start = bars()
        np.minimum.at(begin, symbol, np.maximum(start, low))
        count = intervals.count(low, clock)
        rows = sum(((clock - begin[begin <= clock]) // intervals.size_ns + 1).tolist()) * count // steps
        if rows > self.MOST:
            raise WindowError(
                expected=f"at most {self.MOST} filled bars in one call",
                got=f"about {rows}, for {count} intervals",
                where="in Bars(fill=...)",
                hint="give sessions=, drop symbols that no longer trade with drop_symbols, or look for a wrong time",
            )

    def next_due(self, intervals: Intervals) -> int | None:
        """The event time at which the next interval is due, when a symbol waits to be filled."""
        if self.next is None or not bool((self.since != LOWEST).any()):
            return None
        return intervals.next_due(self.next)

    def was_filled(self, start: int, symbol: int) -> bool:
        return (
            self.next is not None
            and start < self.next
            and int(self.since[symbol]) != LOWEST
            and start >= int(self.since[symbol])
        )

    def revised(self, bar: Bar, intervals: Intervals, clock: int) -> None:
        """A late row changed or made this bar: the newest close of its symbol may be another.

        A symbol whose first bar is made by a late row is filled from the first interval still open.
        """
        symbol, start = int(bar.symbol[0]), int(bar.start[0])
        if start >= int(self.latest[symbol]):
            self.latest[symbol] = start
            self.close[symbol] = bar.cells.close[0]
        if int(self.since[symbol]) == LOWEST:
            if self.next is None:
                self.next = intervals.first_open(clock)
            self.since[symbol] = self.next

    def fill(self, bars: Bar, intervals: Intervals, clock: int, symbols: int) -> list[Bar]:
        """The bars of all intervals due at `clock`: those that closed, and those made in between."""
        if self.next is None:
            if not len(bars):
                return []
            self.next = int(bars.start[0])
        starts, ends, dues = intervals.between(self.next, clock)
        out, step = [], max(1, self.BLOCK // max(1, symbols))
        for low in range(0, len(starts), step):
            part = slice(low, low + step)
            a, b = np.searchsorted(bars.start, [starts[low], starts[part][-1] + 1])
            out.append(self._block(bars.take(slice(a, b)), starts[part], ends[part], dues[part], symbols))
        if len(starts):
            self.next = int(ends[-1])
        return out

    def _block(self, bars: Bar, starts: Int64, ends: Int64, dues: Int64, symbols: int) -> Bar:
        row = np.searchsorted(starts, bars.start)
        source = np.full((len(starts), symbols), -1, np.intp)  # which bar is there
        source[row, bars.symbol] = np.arange(len(bars))
        there = source >= 0
        since, close = self.since[:symbols], self.close[:symbols]
        first = np.where(there.any(axis=0), there.argmax(axis=0), len(starts))
        first[since != LOWEST] = 0
        wanted = np.arange(len(starts))[:, None] >= first
        at, symbol = np.nonzero(wanted)
        bar = source[at, symbol]
        real = bar >= 0
        newest = np.maximum.accumulate(source, axis=0)[at, symbol]  # bars ascend, so the last is the greatest
        cells = Cells.empty(len(at), str(bars.cells.volume.dtype))
        price: Float64 = np.full(len(at), np.nan)
        if self.how == "previous":
            price = np.where(newest >= 0, np.append(bars.cells.close, np.nan)[newest], close[symbol])
        for name in ("open", "high", "low", "close"):
            getattr(cells, name)[:] = price
        cells.put(real, bars.cells.take(bar[real]))
        new = np.flatnonzero((since == LOWEST) & (first < len(starts)))
        self.since[new] = starts[first[new]]
        self.close[bars.symbol] = bars.cells.close  # ascending by start: the newest stays
        self.latest[bars.symbol] = bars.start
        return Bar(symbol, starts[at], ends[at], dues[at], cells)

    def drop(self, symbols: list[int]) -> None:
        self.since[symbols] = LOWEST


def empty_bar(symbol: int, start: int, end: int, due: int, volume: str) -> Bar:
    """One bar without rows."""
    one: Any = np.array([start], np.int64)
    number: NDArray[np.intp] = np.array([symbol], np.intp)
    return Bar(number, one, np.array([end], np.int64), np.array([due], np.int64), Cells.empty(1, volume))
