"""Cells of one column → another type, and which of them do not fit."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import RecordError
from penstock.records import conform

__all__ = ["cast_cells", "conform_column", "convert", "text_of", "text_type"]


def conform_column(array: pa.Array, target: pa.Field, where: str) -> pa.Array:
    """One column cast by the rules of `records.conform`; nulls are let through, the caller counts them."""
    loose = target.with_nullable(True)
    batch = pa.RecordBatch.from_arrays([array], names=[target.name])
    return conform(batch, pa.schema([loose]), where=where).column(0)


def text_of(column: pa.Array, first_only: bool) -> tuple[pa.Array, set[int]]:
    """Bytes as text, and the rows that are no UTF-8."""
    if not pa.types.is_binary(column.type):
        return column, set()
    return cast_cells(column, lambda some: some.cast(pa.string()), pa.string(), first_only)


def text_type(column: pa.Array) -> pa.DataType:
    """int64, float64 or bool if every filled cell reads as that; else string."""
    filled = _nulls(column).drop_null()
    if len(filled):
        for kind in (pa.int64(), pa.float64()):
            try:
                filled.cast(kind)
            except pa.ArrowInvalid:
                continue
            return kind
        if set(pc.unique(filled).to_pylist()) <= {"true", "false", "True", "False"}:
            return pa.bool_()
    return pa.string()


def _nulls(column: pa.Array) -> pa.Array:
    """An empty cell is a missing value."""
    empty = pc.equal(column, "")
    if not pc.any(empty).as_py():
        return column
    # Copied, because pyarrow before 24 reads a sliced text array from its wrong end in if_else.
    return pc.if_else(empty, pa.scalar(None, column.type), pa.concat_arrays([column]) if column.offset else column)


def convert(column: pa.Array, target: pa.Field, text: bool, source: str, first_only: bool) -> tuple[pa.Array, set[int]]:
    """One column as `target` wants it, null where a cell does not fit, and those rows.

    Takes   text: whether the cells are text to parse (an empty one is missing); first_only: see `cast_cells`.
    """
    if not text:
        return cast_cells(column, lambda some: conform_column(some, target, source), target.type, first_only)
    column = _nulls(column)
    if pa.types.is_string(target.type):
        return column, set()

    def parse(some: pa.Array) -> pa.Array:
        try:
            return some.cast(target.type)
        except pa.ArrowInvalid:
            return pc.utf8_trim_whitespace(some).cast(target.type)

    return cast_cells(column, parse, target.type, first_only)


def cast_cells(
    column: pa.Array, cast: Callable[[pa.Array], pa.Array], kind: pa.DataType, first_only: bool
) -> tuple[pa.Array, set[int]]:
    """cast(column), null where a cell does not cast, and those rows; with `first_only` all is null after the first.

    Halves the column until it has found them: O(bad · log rows) casts.
    """
    parts, wrong, todo = [], set[int](), [(0, len(column))]
    while todo:
        start, stop = todo.pop()
        try:
            parts.append(cast(column.slice(start, stop - start)))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, RecordError):
            if stop - start > 1:
                middle = (start + stop) // 2
                todo += [(middle, stop), (start, middle)]
                continue
            wrong.add(start)
            stop = len(column) if first_only else stop
            parts.append(pa.nulls(stop - start, kind))
            todo = [] if first_only else todo
    return (parts[0] if len(parts) == 1 else pa.concat_arrays(parts)), wrong
