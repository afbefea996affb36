"""The open bars: a cell for each symbol in each open interval, found for all rows of a batch at once."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.window.bars.cells import Bar, Cells, fold
from penstock.window.bars.input import Rows
from penstock.window.bars.intervals import Which, each
from penstock.window.bars.kernel import Kernel
from penstock.window.grid import Int64

__all__ = ["OpenBars"]

Numbers = NDArray[np.intp]
Intervals = tuple[Int64, Int64, Int64]


class Store(Protocol):
    """Where cells lie. An open interval is a page, by number; a cell is one symbol of a page."""

    cells: Cells

    def reserve(self, pages: int) -> None:
        """Page numbers are below `pages`."""

    def at(self, pages: Numbers, which: Numbers | None, symbol: Numbers, kernel: Kernel | None = None) -> Numbers:
        """(n,) the cell of each row, made when it is not there; `which` of the pages, None for the only one."""

    def find(self, pages: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """All cells in use of these pages, ascending: which page, symbol, cell."""

    def clear(self, pages: Numbers, at: Numbers) -> None:
        """Empty these pages, whose cells in use are `at`."""


class Pages:
    """A cell for every symbol in every page, in use or not: finding one is an addition."""

    def __init__(self, width: int, volume: str) -> None:
        self.width = width
        self.cells = Cells.empty(0, volume)

    def reserve(self, pages: int) -> None:
        if pages * self.width > len(self.cells):
            self.cells = self.cells.grown(pages * self.width)

    def at(self, pages: Numbers, which: Numbers | None, symbol: Numbers, kernel: Kernel | None = None) -> Numbers:
        if which is None:
            return symbol + int(pages[0]) * self.width
        at: Numbers = (pages * self.width)[which]
        at += symbol
        return at

    def find(self, pages: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        which, symbol = np.nonzero(self.cells.trades.reshape(-1, self.width)[pages])
        return which, symbol, pages[which] * self.width + symbol

    def clear(self, pages: Numbers, at: Numbers) -> None:
        if len(pages) == 1:
            low = int(pages[0]) * self.width
            self.cells.clear(slice(low, low + self.width))
        else:
            self.cells.clear((pages[:, None] * self.width + np.arange(self.width)).ravel())


class Table:
    """Cells only for what is in use: a hash table of (page, symbol), searched and filled for many rows at once."""

    FREE, GONE = -1, -2  # a place never used ends a search, one emptied does not

    def __init__(self, volume: str) -> None:
        self._bits = 10
        self._keys = np.full(1 << self._bits, self.FREE, np.int64)
        self._used = 0  # at least the places not free
        self.cells = Cells.empty(1 << self._bits, volume)

    def reserve(self, pages: int) -> None:
        pass

    def at(self, pages: Numbers, which: Numbers | None, symbol: Numbers, kernel: Kernel | None = None) -> Numbers:
        page = pages[0] if which is None else pages[which]
        keys: Int64 = page.astype(np.int64) << 32 | symbol
        if 2 * (self._used + len(keys)) > len(self._keys):
            self._used = int(np.count_nonzero(self._keys != self.FREE))
            if 2 * (self._used + len(keys)) > len(self._keys):
                self._rebuild(len(keys))
        self._used += len(keys)
        return self._seek(keys) if kernel is None else kernel.seek(keys, self._keys, self._bits)

    def _seek(self, keys: Int64) -> Numbers:
        table, mask = self._keys, len(self._keys) - 1
        # Multiplicative hashing by the golden ratio: Knuth, The Art of Computer Programming 3, 6.4.
        mixed = keys.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        at: Numbers = (mixed >> np.uint64(64 - self._bits)).astype(np.intp)
        out, rows = at, np.empty(0, np.intp)
        while True:
            found = table[at]
            free = found == self.FREE
            if free.any():
                # All may claim; of several the last one stays, and the others go on from there.
                table[at[free]] = keys[free]
                found = table[at]
            wrong = np.flatnonzero(found != keys)
            if out is not at:
                out[rows] = at
            if not len(wrong):
                return out
            rows = wrong if out is at else rows[wrong]
            if out is at:
                out = at.copy()
            keys = keys[wrong]
            at = (at[wrong] + 1) & mask

    def _rebuild(self, more: int) -> None:
        """A table without emptied places, with room for `more`."""
        live = np.flatnonzero(self._keys >= 0)
        keys, cells = self._keys[live], self.cells.take(live)
        bits = max(10, (4 * (len(live) + more) - 1).bit_length())
        if self._bits - 2 <= bits <= self._bits:
            self.cells.clear(live)  # all others are empty
            self._keys[:] = self.FREE
        else:
            self._bits = bits
            self._keys = np.full(1 << bits, self.FREE, np.int64)
            self.cells = Cells.empty(1 << bits, cells.kind)
        self._used = len(live)
        self.cells.put(self._seek(keys), cells)

    def find(self, pages: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        at = np.flatnonzero(self._keys >= 0)
        keys = self._keys[at]
        order = np.full(max(int(pages.max()), int((keys >> 32).max(initial=0))) + 1, -1, np.int64)
        order[pages] = np.arange(len(pages))
        which = order[keys >> 32]
        here = np.flatnonzero(which >= 0)
        keys = which[here] << 32 | keys[here] & 0xFFFFFFFF
        by = np.argsort(keys)
        return keys[by] >> 32, keys[by] & 0xFFFFFFFF, at[here[by]]

    def clear(self, pages: Numbers, at: Numbers) -> None:
        self.cells.clear(at)
        self._keys[at] = self.GONE


class OpenBars:
    """Open intervals and their cells.

    Cells lie in Pages while those would not be too many, else in a Table: with many symbols of which few trade in an
    interval, or with many open intervals. Both give the same bars.
    """

    DENSE = 1 << 17  # cells that pages may have; 11 MB
    PER_ROW = 16  # and these for each row of a batch

    def __init__(self) -> None:
        self.starts = self.ends = self.dues = np.empty(0, np.int64)  # of the open intervals, ascending
        self._page = np.empty(0, np.intp)  # of each open interval
        self._free: list[int] = []
        self._pages = 0
        self._volume = ""
        self._store: Store = Pages(1, "int64")

    def __len__(self) -> int:
        return int(np.count_nonzero(self._store.cells.trades))

    def add(
        self,
        intervals: Intervals,
        which: Which,
        symbol: Numbers,
        symbols: int,
        rows: Rows,
        ordered: bool,
        volume: str,
        kernel: Kernel | None = None,
    ) -> None:
        """Fold rows into their bars.

        Takes   intervals: starts, ends, dues, ascending, each with a row; which: (n,) the interval of each row, None
                for the only one; symbol: (n,); symbols: how many there are by now; volume: its dtype;
                kernel: the compiled loops, None to do without.
        """
        if volume != self._volume:
            self._volume = volume
            self._store = Pages(1, volume)
        page = self._open(intervals, symbols, len(symbol))
        store = self._store
        if kernel is None:
            at = store.at(page, each(which), symbol)  # may move the cells
            fold(store.cells, at, rows, ordered)
        elif isinstance(store, Pages) and not isinstance(which, np.ndarray):
            stops = np.array([len(symbol)]) if which is None else which.stops
            kernel.fold(store.cells, symbol, rows, stops, page * store.width)
        else:
            at = store.at(page, each(which), symbol, kernel)
            kernel.fold(store.cells, at, rows, np.array([len(at)]), np.zeros(1, np.int64))

    def _open(self, intervals: Intervals, symbols: int, rows: int) -> Numbers:
        """Pages of the intervals, which are opened when they are not."""
        starts = intervals[0]
        open_now = self.starts
        if len(starts) == 1 and len(open_now) and starts[0] == open_now[-1]:
            self._fit(symbols, len(open_now), rows)
            return self._page[-1:]
        if not len(open_now) or starts[0] >= open_now[-1]:
            # In order of time: what is new comes behind.
            again = int(len(open_now) > 0 and starts[0] == open_now[-1])
            fresh = len(starts) - again
            self._fit(symbols, len(open_now) + fresh, rows)
            if fresh:
                columns = (self.starts, self.ends, self.dues)
                more = (column[again:] for column in intervals)
                self.starts, self.ends, self.dues = (np.concatenate(pair) for pair in zip(columns, more, strict=True))
                self._page = np.concatenate([self._page, self._allot(fresh)])
            return self._page[len(self._page) - len(starts) :]
        new = open_now.take(np.searchsorted(open_now, starts), mode="clip") != starts
        fresh = int(np.count_nonzero(new))
        self._fit(symbols, len(open_now) + fresh, rows)
        if fresh:
            joined = np.concatenate([open_now, starts[new]])
            order = np.argsort(joined, kind="stable")
            self.starts = joined[order]
            self.ends = np.concatenate([self.ends, intervals[1][new]])[order]
            self.dues = np.concatenate([self.dues, intervals[2][new]])[order]
            self._page = np.concatenate([self._page, self._allot(fresh)])[order]
        page: Numbers = self._page[np.searchsorted(self.starts, starts)]
        return page

    def _fit(self, symbols: int, intervals: int, rows: int) -> None:
        """Choose the kind of store, and make pages wide enough."""
        width = 1 << (symbols - 1).bit_length() if symbols > 1 else 1
        need, limit = width * intervals, max(self.DENSE, self.PER_ROW * rows)
        if isinstance(self._store, Pages):
            if need > limit:
                self._move(Table(self._volume))
            elif width > self._store.width:
                self._move(Pages(width, self._volume))
        elif need <= limit // 4:
            self._move(Pages(width, self._volume))

    def _move(self, store: Store) -> None:
        """Go over to another store with all open bars."""
        which, symbol, at = self._store.find(self._page) if len(self._page) else (self._page,) * 3
        cells = self._store.cells.take(at)
        self._store = store
        store.reserve(self._pages)
        if len(at):
            at = store.at(self._page, which, symbol)
            store.cells.put(at, cells)

    def _allot(self, count: int) -> Numbers:
        """Numbers of free pages."""
        short = count - len(self._free)
        if short > 0:
            self._free[:0] = range(self._pages + short - 1, self._pages - 1, -1)  # taken from the end: lowest first
            self._pages += short
            self._store.reserve(self._pages)
        left = len(self._free) - count
        taken = self._free[left:]
        del self._free[left:]
        return np.array(taken[::-1], np.intp)

    def peek(self) -> Bar:
        """All open bars."""
        return self._bars(len(self.starts))[0]

    def close(self, clock: int, kernel: Kernel | None = None) -> Bar:
        """Take out the bars that are due when event time has come to `clock`."""
        count = int(self.dues.searchsorted(clock, side="right"))
        store = self._store
        if count and kernel is not None and isinstance(store, Pages):
            which, symbol, cells = kernel.collect(store.cells, self._page[:count] * store.width, store.width)
            bars = Bar(symbol, self.starts[which], self.ends[which], self.dues[which], cells)
        else:
            bars, at = self._bars(count)
            if count:
                store.clear(self._page[:count], at)
        if count:
            self._free.extend(self._page[:count][::-1].tolist())
            self.starts, self.ends, self.dues = self.starts[count:], self.ends[count:], self.dues[count:]
            self._page = self._page[count:]
        return bars

    def _bars(self, count: int) -> tuple[Bar, Numbers]:
        """The bars of the first `count` intervals, and their cells."""
        if not count:
            return Bar.join([], self._volume), np.empty(0, np.intp)
        which, symbol, at = self._store.find(self._page[:count])
        bars = Bar(symbol, self.starts[which], self.ends[which], self.dues[which], self._store.cells.take(at))
        return bars, at

    def load(self, bars: Bar, symbols: int, volume: str) -> None:
        """Put back the open bars of a snapshot."""
        fresh = OpenBars()
        for name, value in vars(fresh).items():
            setattr(self, name, value)
        if not len(bars):
            return
        self._volume = volume
        self._store = Pages(1, volume)
        starts, row, which = np.unique(bars.start, return_index=True, return_inverse=True)
        page = self._open((starts, bars.end[row], bars.due[row]), symbols, len(bars))
        at = self._store.at(page, which, bars.symbol)
        self._store.cells.put(at, bars.cells)
