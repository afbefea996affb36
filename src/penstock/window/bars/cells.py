"""A bar in the making is a cell of some columns; how rows are folded into cells.

Sums are folded one row after the other in arrival order, onto what the cell holds, so that no cut of the input into
batches can change a bit of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.window.bars.input import Float64, Rows
from penstock.window.grid import HIGHEST, LOWEST, Int64

__all__ = ["EMPTY", "Bar", "Cells", "fold"]

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


@dataclass(slots=True)
class Cells:
    """Columns of equal length. `first` and `last` are the event times that gave open and close."""

    open: Float64
    high: Float64
    low: Float64
    close: Float64
    volume: NDArray[Any]
    amount: Float64
    trades: Int64
    first: Int64
    last: Int64
    mark: NDArray[np.intp] = field(init=False)  # scratch of `fold`

    def __post_init__(self) -> None:
        self.mark = np.empty(len(self.open), np.intp)

    @classmethod
    def empty(cls, count: int, volume: str) -> Cells:
        types = {"volume": volume or "int64", "trades": "int64", "first": "int64", "last": "int64"}
        return cls(*(np.full(count, value, types.get(name, "float64")) for name, value in EMPTY.items()))

    def __len__(self) -> int:
        return len(self.open)

    def take(self, at: Any) -> Cells:
        return Cells(*(getattr(self, name)[at] for name in EMPTY))

    def put(self, at: Any, other: Cells) -> None:
        for name in EMPTY:
            getattr(self, name)[at] = getattr(other, name)

    def grown(self, count: int) -> Cells:
        """As many cells, these first and the rest empty."""
        cells = Cells.empty(count, str(self.volume.dtype))
        cells.put(slice(0, len(self)), self)
        return cells

    def clear(self, at: Any) -> None:
        for name, value in EMPTY.items():
            getattr(self, name)[at] = value


def fold(cells: Cells, at: NDArray[np.intp], rows: Rows, ordered: bool) -> None:
    """Fold rows into cells, in the order of rows.

    Takes   at: (n,) the cell of each row; rows: n rows; ordered: times never decrease and none is before the `last`
            of its cell.
    Each cell: open is the price of the earliest row (of equal times the first to arrive), close that of the latest (of
    equal times the last to arrive), high and low the extremes, volume, amount and trades the sums.
    Cost    8 ns per row when ordered, else 12 ns.
    """
    time = rows.time
    if ordered:
        # Of repeated targets the last assignment stays: backwards, that marks each cell with its earliest row.
        number, mark = np.arange(len(at)), cells.mark
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
    if rows.volume is not None and rows.amount is not None:
        np.add.at(cells.volume, at, rows.volume)
        np.add.at(cells.amount, at, rows.amount)
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
        cells = Cells(*(np.concatenate([getattr(p.cells, name) for p in parts]) for name in EMPTY))
        symbol, start, end, due = (np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)[:4])
        return cls(symbol, start, end, due, cells)
