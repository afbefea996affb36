"""Whatever holds rows, as record batches of one schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types

from penstock.errors import RecordError, SchemaMismatch, TypeMismatch
from penstock.records.casts import cast, null_rows
from penstock.records.describe import near, place, type_name, value_text
from penstock.records.documents import decode_document
from penstock.records.frames import frame_batches, is_pandas
from penstock.records.rows import rows_to_batch
from penstock.records.schemas import DOCUMENT, KIND, is_document
from penstock.records.values import Unfit
from penstock.records.widening import same_meaning

__all__ = ["conform", "to_batches"]

_ROWS = 65_536
_WHOLE = "give a table, a batch or a frame; a single column needs a name"
_FORMS = "a dict, dicts, an Arrow batch or table, or a dataframe"


def to_batches(data: Any, schema: pa.Schema | None = None, *, where: str = "") -> list[pa.RecordBatch]:
    """Data in any usual form as record batches.

    Takes   data: a dict (one row), an iterable of dicts (read to its end), a RecordBatch, Table, RecordBatchReader,
            anything with __arrow_c_stream__ or __arrow_c_array__ (polars, duckdb), or a pandas frame. Of a pandas
            frame the named index levels become columns, an unnamed index of row numbers is dropped, and NaN stays
            NaN in float columns but is null in any other;
            schema: what the batches shall have, else documents for dicts and the data's own schema for the rest;
            where: stream name for messages.
    Returns batches in order, none empty; [] for no rows.
    Raises  TypeMismatch for other data and for values that do not fit; SchemaMismatch for columns that do not.
    Cost    no copy where the data is Arrow and its schema is `schema`.
    """
    if isinstance(data, Mapping):
        return [rows_to_batch([data], DOCUMENT if schema is None else schema, where=where)]
    if isinstance(data, pa.RecordBatch):
        batches = [_whole(data, where)]
    elif isinstance(data, pa.Table):
        batches = _whole(data, where).to_batches()
    elif is_pandas(data, "DataFrame"):
        batches = frame_batches(data, schema, where)
    elif (
        hasattr(data, "__arrow_c_stream__")
        or hasattr(data, "__arrow_c_array__")
        or isinstance(data, pa.RecordBatchReader)
    ):
        batches = _imported(data, where)
    else:
        return _rows(data, DOCUMENT if schema is None else schema, where)
    batches = [batch for batch in batches if batch.num_rows]
    if schema is None:
        return batches
    conformed, first = [], 0
    for batch in batches:
        conformed.append(conform(batch, schema, where=where, first=first))
        if is_document(schema):
            _check_documents(batch, where, first)
        first += batch.num_rows
    return conformed


def conform(batch: pa.RecordBatch, schema: pa.Schema, *, where: str = "", first: int = 0) -> pa.RecordBatch:
    """A batch with the columns of `schema`: found by name, cast only where each value stays exact.

    Exact are: integers and floats of another width as far as the values fit; text, binary and lists of the small,
    large and view kinds; dictionaries and their values, both ways; finer units of time, and coarser ones where
    nothing is cut; timestamps with a zone to int64 nanoseconds for columns named ts_…. Missing nullable columns
    become null.

    Takes   batch: n rows; schema: the wanted one; where, first: stream name and number of the first row.
    Returns n rows; `batch` itself if its schema is equal but for metadata.
    Raises  SchemaMismatch (`column`) for a missing or unknown column; TypeMismatch (`column`, `expected`, `row`)
            for a type or value that does not fit, or a null where none may be.
    Cost    O(columns) if nothing is cast.
    """
    given = batch.schema
    if given.equals(schema, check_metadata=True) or (
        given.equals(schema) and all(same_meaning(left, right) for left, right in zip(given, schema, strict=True))
    ):
        for i, field in enumerate(schema):
            if not field.nullable:
                _check_nulls(batch.column(i), field, where, first)
        return batch
    if is_document(schema) and "document" not in given.names:
        raise SchemaMismatch(
            expected="documents (JSON)",
            got=f"columns {', '.join(given.names) or '(none)'}",
            where=place(where, None),
            hint="open another stream with that schema, or append dicts",
            column="document",
        )
    _check_names(given, schema, where)
    arrays = []
    for field in schema:
        index = given.get_field_index(field.name)
        if index < 0:
            arrays.append(pa.nulls(batch.num_rows, field.type))
            continue
        column = batch.column(index)
        if not field.nullable:
            _check_nulls(column, field, where, first)
        arrays.append(_cast(column, given.field(index), field, where, first))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _check_names(given: pa.Schema, schema: pa.Schema, where: str) -> None:
    for names in (given.names, schema.names):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise SchemaMismatch(
                expected="each column name once",
                got=f"`{twice}` more than once",
                where=place(where, None),
                hint="rename one of them",
                column=twice,
            )
    known = set(schema.names)
    missing = [field.name for field in schema if not field.nullable and field.name not in given.names]
    for name in given.names:
        if name not in known:
            close = near(name, missing or schema.names)
            raise SchemaMismatch(
                expected=f"the columns {', '.join(schema.names) if len(schema) < 12 else f'({len(schema)})'}",
                got=f"unknown column {name!r}",
                where=place(where, None),
                hint=f"did you mean {close!r}?" if close else "open the stream with the wider schema",
                column=name,
            )
    if missing:
        raise SchemaMismatch(
            expected=f"{type_name(schema.field(missing[0]).type)} for `{missing[0]}`",
            got=f"no such column (columns: {', '.join(given.names) or 'none'})",
            where=place(where, None),
            hint="add the column, or open the stream with it nullable",
            column=missing[0],
        )


def _check_nulls(column: pa.Array, field: pa.Field, where: str, first: int) -> None:
    if not null_rows(column):
        return
    row = next(i for i in range(len(column)) if not column[i].is_valid or column[i].as_py() is None)
    raise TypeMismatch(
        expected=f"{type_name(field.type)} for `{field.name}`",
        got="null",
        where=place(where, first + row, field.name),
        hint="drop such rows, or open the stream with the column nullable",
        column=field.name,
        row=first + row,
    )


def _cast(column: pa.Array, given: pa.Field, field: pa.Field, where: str, first: int) -> pa.Array:
    times = field.name.startswith("ts_")
    try:
        if not same_meaning(given, field):
            raise Unfit("make the column with tensor_field() and tensor_column()")
        return cast(column, field.type, times=times)
    except Unfit as unfit:
        row = _first_unfit(column, field.type, times)
        value = "" if row is None else _scalar_text(column, row)
        reason = f" ({unfit.got[:150]})" if unfit.got and not value else ""
        raise TypeMismatch(
            expected=f"{unfit.expected or type_name(field.type)} for `{field.name}`",
            got=f"{type_name(column.type)}{value}{reason}",
            where=place(where, None if row is None else first + row, field.name),
            hint=unfit.hint,
            column=field.name,
            row=None if row is None else first + row,
        ) from None


def _scalar_text(column: pa.Array, row: int) -> str:
    if not types.is_primitive(column.type):
        return ""
    try:
        return f" {value_text(column[row].as_py())}"
    except (OverflowError, ValueError):  # a time that datetime cannot hold
        return f" {column[row].value}"


def _first_unfit(column: pa.Array, target: pa.DataType, times: bool) -> int | None:
    """Number of the first row that does not convert, by halving; None if it is the type itself."""

    def fits(start: int, stop: int) -> bool:
        try:
            cast(column.slice(start, stop - start), target, times=times)
        except Unfit:
            return False
        return True

    if not fits(0, 0) or types.is_dictionary(target):
        return None
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        if fits(low, middle):
            low = middle
        else:
            high = middle
    return low


def _check_documents(batch: pa.RecordBatch, where: str, first: int) -> None:
    """Text from elsewhere that says it is documents."""
    if (batch.schema.metadata or {}).get(KIND) == b"document":
        return
    for i, text in enumerate(batch.column(0).to_pylist()):
        decode_document(text, where=where, row=first + i)


def _rows(data: Any, schema: pa.Schema, where: str) -> list[pa.RecordBatch]:
    series = is_pandas(data, "Series")
    if series or not isinstance(data, Iterable) or isinstance(data, (str, bytes, bytearray, memoryview, np.ndarray)):
        hint = 'give rows such as {"price": 1.5}'
        if series:
            hint = _WHOLE
        elif hasattr(data, "collect"):
            hint = "collect the lazy frame first: data.collect()"
        elif hasattr(data, "__aiter__"):
            hint = "collect the async iterator first"
        raise TypeMismatch(expected=_FORMS, got=value_text(data), where=place(where, None), hint=hint)
    batches = []
    rows, first = iter(data), 0
    while chunk := list(islice(rows, _ROWS)):
        batches += _split(chunk, schema, where, first)
        first += len(chunk)
    return batches


def _split(rows: list[Any], schema: pa.Schema, where: str, first: int) -> list[pa.RecordBatch]:
    """The rows as one batch, or as several where a column would exceed what a batch can hold."""
    try:
        return [rows_to_batch(rows, schema, where=where, first=first)]
    except RecordError as error:
        if getattr(error, "limit", None) is None or len(rows) == 1:
            raise
    half = len(rows) // 2
    return _split(rows[:half], schema, where, first) + _split(rows[half:], schema, where, first + half)


def _imported(data: Any, where: str) -> list[pa.RecordBatch]:
    try:
        if isinstance(data, pa.RecordBatchReader):
            reader = data
        elif hasattr(data, "__arrow_c_stream__"):
            _check_objects(data, where)
            reader = pa.RecordBatchReader.from_stream(data)
        else:
            return [_whole(pa.record_batch(data), where)]
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise _unreadable(data, error, where) from error
    try:
        return [_whole(batch, where) for batch in reader]
    except pa.ArrowException as error:  # anything else is the producer's own
        raise _unreadable(data, error, where) from error


def _check_objects(data: Any, where: str) -> None:
    """Polars exports a column of Python objects as their addresses, and Arrow cannot tell."""
    if type(data).__module__.partition(".")[0] != "polars":
        return
    names, kinds = getattr(data, "columns", ()), getattr(data, "dtypes", ())
    for name, kind in zip(names, kinds, strict=False):
        if str(kind) == "Object":
            raise TypeMismatch(
                expected=f"one type for `{name}`",
                got="Object (Python objects)",
                where=place(where, None, name),
                hint="convert the column of the frame, such as frame.with_columns(pl.col(name).map_elements(...))",
                column=name,
            )


def _whole(data: Any, where: str) -> Any:
    """The batch or table, with columns of its own length.

    Members of a struct may be longer than the struct, and Arrow imports a slice of one as a batch whose columns
    are: asked for its rows it gives those of its neighbours.
    """
    try:
        data.validate()
    except pa.ArrowInvalid:
        data = data.slice(0, data.num_rows)
        try:
            data.validate()
        except pa.ArrowInvalid as error:
            raise _unreadable(data, error, where) from error
    return data


def _unreadable(data: Any, error: Exception, where: str) -> TypeMismatch:
    got = f"{type(data).__name__} ({str(error)[:200]})"
    return TypeMismatch(expected=_FORMS, got=got, where=place(where, None), hint=_WHOLE)
