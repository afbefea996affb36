"""Bars as record batches, and frames of other libraries as Arrow and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.errors import TypeMismatch
from penstock.window.bars.cells import Bar
from penstock.window.bars.symbols import Symbols
from penstock.window.grid import Int64

__all__ = ["Out", "frame_of", "no_rows", "record_batch"]


_TYPES = {"<i8": pa.int64(), "<f8": pa.float64(), "<i4": pa.int32()}


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
            causes = np.searchsorted(self.run, bars.due).astype(np.int64)
        self.parts.append(bars)
        self._revisions.append(revision)
        self._causes.append(causes)

    def positions(self) -> Int64:
        return np.concatenate(self._causes) if self._causes else np.empty(0, np.int64)

    def revisions(self) -> Any:
        return np.repeat(np.array(self._revisions, np.int32), [len(part) for part in self.parts])


def record_batch(out: Out, symbols: Symbols, schema: pa.Schema, *, at_end: bool, no_amount: bool) -> pa.RecordBatch:
    """The bars of `out` as rows of `schema`.

    Takes   at_end: whether ts_event is the end of the bar; no_amount: whether amounts may be unknown (NaN).
    """
    bars = Bar.join(out.parts, "")
    cells = bars.cells
    # A bar without volume has no vwap; null, because it is absent and not unknown.
    traded = cells.volume > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        vwap = cells.amount / cells.volume
    absent = None if traded.all() else ~traded
    unknown = np.isnan(cells.amount) if no_amount else None
    if unknown is not None:
        absent = unknown if absent is None else absent | unknown
    columns = [
        symbols.array().take(_array(bars.symbol)),
        _array(bars.end if at_end else bars.start),
        _array(bars.end),
        _array(cells.open),
        _array(cells.high),
        _array(cells.low),
        _array(cells.close),
        _array(cells.volume),
        _array(cells.amount) if unknown is None else pa.array(cells.amount, mask=unknown),
        _array(vwap) if absent is None else pa.array(vwap, mask=absent),
        _array(cells.trades),
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
    return pa.Array.from_buffers(_TYPES[values.dtype.str], len(values), [None, pa.py_buffer(values)])


def _same(table: pa.Table) -> pa.Table:
    return table


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else no_rows(table.schema)
