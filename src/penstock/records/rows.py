"""Dict rows to record batches and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from penstock.errors import SchemaMismatch, TypeMismatch
from penstock.records.casts import cast
from penstock.records.columns import build_array, build_columns
from penstock.records.describe import Spot, place, value_text
from penstock.records.documents import decode_documents, encode_document
from penstock.records.schemas import is_document
from penstock.records.tensors import tensor_array
from penstock.records.values import is_uuid

__all__ = ["batch_to_rows", "rows_to_batch"]

_UTC = frozenset({"UTC", "Etc/UTC", "Z", "+00:00"})


def rows_to_batch(
    rows: Sequence[Mapping[str, Any]], schema: pa.Schema, *, where: str = "", first: int = 0
) -> pa.RecordBatch:
    """Dict rows as one record batch, strictly.

    Accepted are values that are exactly the column's: an int for a float column up to 2**53 and a whole float for
    an int column, numpy scalars, None (pandas.NA, NaT) where the column is nullable, aware datetimes and numpy
    datetime64 for timestamp columns with a zone and for int64 columns named ts_…, naive datetimes for timestamp
    columns without one, lists, tuples and arrays for list and tensor columns, dicts for structs and maps. Floats
    are rounded to float32 and float16 columns. A missing key is None; NaN stays NaN. A document schema takes any
    dict that `encode_document` takes.

    Takes   rows: n dicts with str keys, none empty; schema: the columns; where, first: stream name and number of
            the first row, for messages.
    Returns n rows of `schema`.
    Raises  TypeMismatch (`column`, `row`, `path`) for a value, key or row that does not fit;
            SchemaMismatch (`column`, `row`) for a key that is no column; RecordError over 2 GiB of text a column.
    Cost    about 0.4 µs per row of seven columns; values that pyarrow would bend are looked at one by one, at
            about 1 µs each.
    """
    plain = _plain_rows(rows, where, first)
    if is_document(schema):
        texts = [encode_document(row, where=where, row=first + i) for i, row in enumerate(plain)]
        return pa.RecordBatch.from_arrays([build_array(texts, pa.string(), "document", where)], schema=schema)
    names = schema.names
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SchemaMismatch(
            expected="each column name once",
            got=f"`{twice}` more than once",
            where=place(where, None),
            hint="rename one of them",
            column=twice,
        )
    arrays = build_columns(plain, schema, Spot(where, lambda i: first + i))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _plain_rows(rows: Iterable[Any], where: str, first: int) -> list[dict[str, Any]]:
    """Exact dicts (a defaultdict would grow when asked), none empty."""
    listed = rows if isinstance(rows, list) else list(rows)
    if set(map(type, listed)) - {dict}:
        listed = [dict(row) if isinstance(row, Mapping) else row for row in listed]
        for i, row in enumerate(listed):
            if not isinstance(row, dict):
                raise TypeMismatch(
                    expected="a dict for each row",
                    got=value_text(row),
                    where=place(where, first + i),
                    hint='give rows such as {"price": 1.5}',
                    column=None,
                    row=first + i,
                )
    if not all(listed):
        i = next(i for i, row in enumerate(listed) if not row)
        raise TypeMismatch(
            expected="a row with at least one column",
            got="{}",
            where=place(where, first + i),
            hint="leave empty rows out",
            column=None,
            row=first + i,
        )
    return listed


def batch_to_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a batch as dicts; `rows_to_batch` with the same schema gives an equal batch.

    Takes   batch: n rows (a RecordBatch or Table).
    Returns n dicts, columns in order, null as None; documents as the dicts that went in. Times of unit ns come as
            numpy datetime64 and timedelta64, because datetime would cut them (a time64 of that unit as timedelta64
            since midnight), and so do columns with years after 9999; tensors come as read-only arrays.
    Raises  RecordError for a document row that is no JSON object.
    Cost    about 0.6 µs per row of seven columns.
    """
    if is_document(batch.schema):
        return decode_documents(batch.column(0).to_pylist())
    names = batch.schema.names
    if not names:
        return [{} for _ in range(batch.num_rows)]
    columns = [_listed(column, field) for column, field in zip(batch.columns, batch.schema, strict=True)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


@lru_cache(maxsize=512)
def _simple(type_: pa.DataType) -> bool:
    """Whether pyarrow's own conversion keeps each value, whatever else is installed."""
    if types.is_dictionary(type_) or types.is_run_end_encoded(type_):
        return False
    if isinstance(type_, pa.BaseExtensionType):
        return is_uuid(type_)
    if types.is_nested(type_):
        return all(_simple(type_.field(i).type) for i in range(type_.num_fields))
    if types.is_timestamp(type_) and type_.tz is not None:
        return False
    if types.is_timestamp(type_) or types.is_time(type_) or types.is_duration(type_):
        return bool(type_.unit != "ns")
    return True


def _listed(column: Any, field: pa.Field) -> list[Any]:
    type_ = column.type
    if isinstance(type_, pa.FixedShapeTensorType):
        return list(tensor_array(column, field))
    if isinstance(column, pa.ChunkedArray):
        return [value for chunk in column.chunks for value in _listed(chunk, field)]
    if isinstance(type_, pa.BaseExtensionType) and not is_uuid(type_):
        return _listed(column.storage, field)
    if types.is_run_end_encoded(type_):
        return _listed(pc.run_end_decode(column), field)
    if types.is_dictionary(type_):
        values = _listed(column.dictionary, field)
        return [None if index is None else values[index] for index in column.indices.to_pylist()]
    if not _simple(type_):
        return _listed_nested(column, field) if types.is_nested(type_) else _times(column)
    if (types.is_integer(type_) or types.is_floating(type_)) and not column.null_count:
        return column.to_numpy().tolist()  # type: ignore[no-any-return]
    if types.is_timestamp(type_) or types.is_duration(type_):
        return _times(column)
    return column.to_pylist()  # type: ignore[no-any-return]


def _times(column: pa.Array) -> list[Any]:
    type_ = column.type
    if type_.unit == "ns":
        return _counted(column, "ns")
    try:
        if types.is_timestamp(type_) and type_.tz in _UTC:
            # Without Arrow's detour over the zone database, which not every machine has.
            naive = column.view(pa.timestamp(type_.unit)).to_pylist()
            return [None if moment is None else moment.replace(tzinfo=UTC) for moment in naive]
        return column.to_pylist()  # type: ignore[no-any-return]
    except (OverflowError, ValueError, KeyError):  # beyond the year 9999, or a zone nobody knows
        return _counted(column, type_.unit)


def _counted(column: pa.Array, unit: str) -> list[Any]:
    """64-bit counts as numpy times of `unit`, in UTC."""
    kind = "M8" if types.is_timestamp(column.type) else "m8"
    times = pc.fill_null(column.view(pa.int64()), 0).to_numpy().view(f"{kind}[{unit}]")
    if not column.null_count:
        return list(times)
    return [time if there else None for time, there in zip(times, column.is_valid().to_pylist(), strict=True)]


def _listed_nested(column: pa.Array, field: pa.Field) -> list[Any]:
    """Lists, structs and maps with times, tensors or dictionaries somewhere inside."""
    type_ = column.type
    there = column.is_valid().to_pylist()
    if types.is_struct(type_):
        names = [member.name for member in type_.fields]
        members = [_listed(column.field(i), type_.field(i)) for i in range(type_.num_fields)]
        rows = zip(*members, strict=True)
        return [dict(zip(names, row, strict=True)) if ok else None for ok, row in zip(there, rows, strict=True)]
    if types.is_fixed_size_list(type_):
        size = type_.list_size
        inner = _listed(column.values.slice(column.offset * size, len(column) * size), type_.value_field)
        return [inner[i * size : (i + 1) * size] if ok else None for i, ok in enumerate(there)]
    if types.is_map(type_):
        keys = _listed(column.keys, type_.key_field)
        inner = list(zip(keys, _listed(column.items, type_.item_field), strict=True))
    elif types.is_list(type_) or types.is_large_list(type_):
        inner = _listed(column.values, type_.value_field)
    elif types.is_list_view(type_) or types.is_large_list_view(type_):
        whole = pa.list_ if types.is_list_view(type_) else pa.large_list
        return _listed_nested(cast(column, whole(type_.value_field)), field)
    else:  # unions
        return column.to_pylist()  # type: ignore[no-any-return]
    offsets = column.offsets.to_pylist()
    return [inner[start:stop] if ok else None for ok, start, stop in zip(there, offsets, offsets[1:], strict=False)]
