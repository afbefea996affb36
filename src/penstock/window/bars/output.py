"""Bars as record batches, and frames of other libraries as Arrow and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.errors import TypeMismatch
from penstock.window.bars.cells import PLACE, Bar
from penstock.window.bars.symbols import Symbols
from penstock.window.grid import Int64

__all__ = ["Out", "frame_of", "no_rows", "record_batch"]


_INT, _FLOAT = pa.int64(), pa.float64()
_TYPES = {"<i8": _INT, "<f8": _FLOAT, "<i4": pa.int32()}


class Out:
    """Bars on their way out, in emission order.

    `run` is the event time after each row of the batch that closes them; None when no row does (advance, flush).
    """

    def __init__(self, run: Int64 | None = None) -> None:
        self.run = run
        self.parts: list[Bar] = []
        self._revisions: list[int] = []
        self._causes: list[Int64] = []

    def add(self, bars: Bar, revision: int, cause: int | None = None) -> None:
        """Add bars caused by row `cause`, or, without, by the row at which each is due."""
        count = len(bars)
        if not count:
            return
        if cause is not None or self.run is None:
            causes = np.full(count, -1 if cause is None else cause, np.int64)
        elif bars.due[0] == bars.due[-1]:
            causes = np.full(count, np.searchsorted(self.run, bars.due[0]), np.int64)
        else:
            # Bars of one interval stand together: a search for each of these, not for each bar.
            heads = np.concatenate([[0], np.flatnonzero(bars.due[1:] != bars.due[:-1]) + 1])
            found = self.run.searchsorted(bars.due[heads]).astype(np.int64)
            causes = np.repeat(found, np.diff(heads, append=count))
        self.parts.append(bars)
        self._revisions.append(revision)
        self._causes.append(causes)

    def positions(self) -> Int64:
        if len(self._causes) == 1:
            return self._causes[0]
        return np.concatenate(self._causes) if self._causes else np.empty(0, np.int64)

    def revisions(self) -> Any:
        if not any(self._revisions):
            return np.zeros(sum(len(part) for part in self.parts), np.int32)
        return np.repeat(np.array(self._revisions, np.int32), [len(part) for part in self.parts])


def record_batch(out: Out, symbols: Symbols, schema: pa.Schema, *, at_end: bool, no_amount: bool) -> pa.RecordBatch:
    """The bars of `out` as rows of `schema`.

    Takes   at_end: whether ts_event is the end of the bar; no_amount: whether amounts may be unknown (NaN).
    """
    bars = Bar.join(out.parts, "")
    # All columns of the cells in one buffer, one after the other.
    cells = bars.cells.columns()
    buffer, count = pa.py_buffer(cells.memory), len(bars)
    volume, amount = cells.volume, cells.amount
    # A bar without volume has no vwap; null, because it is absent and not unknown.
    traded = volume > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        vwap = amount / volume
    absent = None if traded.all() else ~traded
    unknown = np.isnan(amount) if no_amount else None
    if unknown is not None:
        absent = unknown if absent is None else absent | unknown
    end = _array(bars.end)

    def column(name: str, kind: pa.DataType = _FLOAT) -> pa.Array:
        return pa.Array.from_buffers(kind, count, [None, buffer], 0, PLACE[name] * count)

    columns = [
        symbols.array().take(_array(bars.symbol)),
        end if at_end else _array(bars.start),
        end,
        column("open"),
        column("high"),
        column("low"),
        column("close"),
        column("volume", _INT if volume.dtype == np.int64 else _FLOAT),
        column("amount") if unknown is None else pa.array(amount, mask=unknown),
        _array(vwap) if absent is None else pa.array(vwap, mask=absent),
        column("trades", _INT),
        _array(out.revisions()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def frame_of(frame: Any) -> tuple[pa.Table, Callable[[pa.Table], Any]]:
    """A frame as a table, and the function that makes its kind of frame of a table.

    Raises  TypeMismatch for what is no frame.
    """
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame]), _one_batch
    if isinstance(frame, pa.Table):
        return frame, _same
    library = type(frame).__module__.partition(".")[0]
    if library == "polars":
        import polars

        return frame.to_arrow(), polars.from_arrow
    if library == "pandas":
        return pa.Table.from_pandas(frame, preserve_index=False), pa.Table.to_pandas
    if hasattr(frame, "__arrow_c_stream__"):
        return pa.table(frame), _same
    raise TypeMismatch(
        expected="a pyarrow, polars or pandas frame",
        got=type(frame).__name__,
        where="in Bars.batch",
        hint="penstock.records.to_batches makes record batches of rows",
    )


def no_rows(schema: pa.Schema) -> pa.RecordBatch:
    """A batch without rows."""
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


def _array(values: Any) -> pa.Array:
    """pa.array(values) of what is known to be a plain column, in half the time."""
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(_TYPES[values.dtype.str], len(values), [None, pa.py_buffer(values)], 0)


def _same(table: pa.Table) -> pa.Table:
    return table


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else no_rows(table.schema)
