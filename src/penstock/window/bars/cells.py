"""A bar in the making is a cell of some columns; how rows are folded into cells.

Sums are folded one row after the other in arrival order, onto what the cell holds, so that no cut of the input into
batches can change a bit of them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.window.bars.input import Float64, Rows
from penstock.window.grid import HIGHEST, LOWEST, Int64

__all__ = ["EMPTY", "EMPTY_WORDS", "PLACE", "WORDS", "Bar", "Cells", "fold"]

EMPTY: dict[str, Any] = {
    "open": np.nan,
    "high": -np.inf,
    "low": np.inf,
    "close": np.nan,
    "volume": 0,
    "amount": 0.0,
    "trades": 0,
    "first": HIGHEST,
    "last": LOWEST,
}


_FLOATS = ("open", "high", "low", "close", "amount")
PLACE = {name: number for number, name in enumerate(EMPTY)}
WORDS = len(EMPTY)
EMPTY_WORDS = np.array([np.array(value, "f8" if name in _FLOATS else "i8").view("i8") for name, value in EMPTY.items()])


class Cells:
    """n cells of 72 bytes, each in one piece: a row of a trade touches two lines of memory, not nine.

    Columns are views. `first` and `last` are the event times that gave open and close.
    """

    __slots__ = ("_floats", "kind", "words")

    def __init__(self, words: Int64, kind: str) -> None:
        self.words = words  # (n, WORDS), floats by their bits
        self._floats: Float64 = words.view(np.float64)
        self.kind = kind  # dtype of `volume`

    @classmethod
    def empty(cls, count: int, volume: str) -> Cells:
        words = np.empty((count, WORDS), np.int64)
        words[:] = EMPTY_WORDS
        return cls(words, volume or "int64")

    @classmethod
    def of(cls, columns: dict[str, NDArray[Any]]) -> Cells:
        """Cells of these columns."""
        words = np.stack([np.ascontiguousarray(columns[name]).view(np.int64) for name in EMPTY], axis=1)
        return cls(words, str(columns["volume"].dtype))

    def __len__(self) -> int:
        return len(self.words)

    @property
    def open(self) -> Float64:
        return self._floats[:, PLACE["open"]]

    @property
    def high(self) -> Float64:
        return self._floats[:, PLACE["high"]]

    @property
    def low(self) -> Float64:
        return self._floats[:, PLACE["low"]]

    @property
    def close(self) -> Float64:
        return self._floats[:, PLACE["close"]]

    @property
    def volume(self) -> NDArray[Any]:
        return (self.words if self.kind == "int64" else self._floats)[:, PLACE["volume"]]

    @property
    def amount(self) -> Float64:
        return self._floats[:, PLACE["amount"]]

    @property
    def trades(self) -> Int64:
        return self.words[:, PLACE["trades"]]

    @property
    def first(self) -> Int64:
        return self.words[:, PLACE["first"]]

    @property
    def last(self) -> Int64:
        return self.words[:, PLACE["last"]]

    def take(self, at: Any) -> Cells:
        """These cells; a slice gives a view."""
        plain = isinstance(at, np.ndarray) and at.dtype != np.bool_
        return Cells(self.words.take(at, axis=0) if plain else self.words[at], self.kind)

    def put(self, at: Any, other: Cells) -> None:
        self.words[at] = other.words

    def columns(self) -> Cells:
        """The same, each column in one piece, one after the other; `memory` is all of it."""
        return Cells(np.ascontiguousarray(self.words.T).T, self.kind)

    @property
    def memory(self) -> Int64:
        """The words as they lie in memory, in one piece: (n, WORDS), or (WORDS, n) of `columns`."""
        return self.words if self.words.flags.c_contiguous else self.words.T

    def copy(self) -> Cells:
        return Cells(self.words.copy(), self.kind)

    def grown(self, count: int) -> Cells:
        """As many cells, these first and the rest empty."""
        cells = Cells.empty(count, self.kind)
        cells.put(slice(0, len(self)), self)
        return cells

    def clear(self, at: Any) -> None:
        self.words[at] = EMPTY_WORDS


def fold(cells: Cells, at: NDArray[np.intp], rows: Rows, ordered: bool) -> None:
    """Fold rows into cells, in the order of rows.

    Takes   at: (n,) the cell of each row; rows: n rows; ordered: times never decrease and none is before the `last`
            of its cell.
    Each cell: open is the price of the earliest row (of equal times the first to arrive), close that of the latest (of
    equal times the last to arrive), high and low the extremes, volume, amount and trades the sums.
    This is what the compiled loop of `kernel` does, to the bit, and what runs in its place without llvmlite.

    Cost    8 ns per row when ordered, else 12 ns.
    """
    time = rows.time
    if ordered:
        # Of repeated targets the last assignment stays: backwards, that marks each cell with its earliest row.
        number, mark = np.arange(len(at)), np.empty(len(cells), np.intp)
        mark[at[::-1]] = number[::-1]
        row = np.flatnonzero(mark[at] == number)
        cell = at[row]
        mark[at] = number
        last = mark[cell]
        cells.close[cell] = rows.close[last]
        cells.last[cell] = time[last]
        new = cells.trades[cell] == 0
        cell, row = cell[new], row[new]
        cells.open[cell] = rows.open[row]
        cells.first[cell] = time[row]
    else:
        before = cells.first[at]
        np.minimum.at(cells.first, at, time)
        row = np.flatnonzero((time == cells.first[at]) & (time < before))[::-1]
        cells.open[at[row]] = rows.open[row]
        np.maximum.at(cells.last, at, time)
        row = np.flatnonzero(time == cells.last[at])
        cells.close[at[row]] = rows.close[row]
    np.maximum.at(cells.high, at, rows.high)
    np.minimum.at(cells.low, at, rows.low)
    if rows.volume is not None:
        np.add.at(cells.volume, at, rows.volume)
        with np.errstate(invalid="ignore", over="ignore"):
            np.add.at(cells.amount, at, rows.close * rows.volume if rows.amount is None else rows.amount)
    np.add.at(cells.trades, at, 1 if rows.trades is None else rows.trades)


@dataclass(slots=True)
class Bar:
    """Bars taken out of the cells, ascending by (start, symbol); `due` is the event time that closes each."""

    symbol: NDArray[np.intp]
    start: Int64
    end: Int64
    due: Int64
    cells: Cells

    def __len__(self) -> int:
        return len(self.symbol)

    def take(self, at: Any) -> Bar:
        return Bar(self.symbol[at], self.start[at], self.end[at], self.due[at], self.cells.take(at))

    @classmethod
    def join(cls, parts: list[Bar], volume: str) -> Bar:
        if len(parts) == 1:
            return parts[0]
        if not parts:
            none = np.empty(0, np.int64)
            return cls(np.empty(0, np.intp), none, none, none, Cells.empty(0, volume))
        cells = Cells(np.concatenate([p.cells.words for p in parts]), parts[0].cells.kind)
        symbol, start, end, due = (np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)[:4])
        return cls(symbol, start, end, due, cells)
