"""Types of columns: as users give and get them, as files hold them, as Delta names them.

Delta has fewer types than Arrow, and nothing may change on the way: a type it lacks travels in one that holds every
value, its `carrier`, and is cast back. Extension types (tensors, UUIDs) travel as what they are made of.
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa
from pyarrow import types

from penstock.errors import SchemaMismatch
from penstock.records.describe import type_name

__all__ = [
    "carrier",
    "delta_struct",
    "delta_type",
    "plain",
    "restored",
    "settled",
    "settled_schema",
    "values_type",
]


def values_type(type_: pa.DataType) -> pa.DataType:
    """The type of a column's values, also when it has a dictionary."""
    return type_.value_type if types.is_dictionary(type_) else type_


_CARRIERS: Final = [
    (types.is_uint8, pa.int16()),
    (types.is_uint16, pa.int32()),
    (types.is_uint32, pa.int64()),
    (types.is_uint64, pa.decimal128(20, 0)),
    (types.is_float16, pa.float32()),
    (types.is_time32, pa.int32()),
    (types.is_time64, pa.int64()),
    (types.is_duration, pa.int64()),
    (types.is_date64, pa.int64()),
    (types.is_large_string, pa.string()),
    (types.is_string_view, pa.string()),
    (types.is_large_binary, pa.binary()),
    (types.is_binary_view, pa.binary()),
    (types.is_fixed_size_binary, pa.binary()),
]
_DELTA: Final = [
    (types.is_int8, "byte"),
    (types.is_int16, "short"),
    (types.is_int32, "integer"),
    (types.is_int64, "long"),
    (types.is_float32, "float"),
    (types.is_float64, "double"),
    (types.is_boolean, "boolean"),
    (types.is_string, "string"),
    (types.is_binary, "binary"),
    (types.is_date32, "date"),
    (types.is_timestamp, "timestamp"),
]


def carrier(field: pa.Field, table: str = "") -> pa.DataType:
    """The type that files hold for a column: Delta has fewer than Arrow, and nothing may change on the way.

    Raises  SchemaMismatch for a type that has none (unions, nested types of what Delta lacks).
    """
    type_ = values_type(field.type)
    if isinstance(type_, pa.BaseExtensionType):  # tensors, among others: what they are made of
        return carrier(field.with_type(type_.storage_type), table)
    if types.is_decimal32(type_) or types.is_decimal64(type_):
        type_ = pa.decimal128(type_.precision, type_.scale)
    if types.is_timestamp(type_):
        # Delta's timestamps are whole microseconds in UTC: others travel as numbers.
        return pa.timestamp("us", "UTC") if type_.unit == "us" and type_.tz else pa.int64()
    for test, found in _CARRIERS:
        if test(type_):
            return found
    if types.is_fixed_size_list(type_) or types.is_list(type_) or types.is_large_list(type_):
        return pa.list_(carrier(type_.value_field, table))
    if types.is_struct(type_):
        return pa.struct([pa.field(child.name, carrier(child, table)) for child in type_.fields])
    if delta_type(type_) is not None:
        return type_
    raise SchemaMismatch(
        expected="a type that a table can hold",
        got=type_name(field.type),
        where=f"at `{field.name}`" + (f", in table {table!r}" if table else ""),
        hint="numbers, text, bytes, dates, times, lists and structs of them; cast the column, or leave it out",
        column=field.name,
    )


def delta_type(type_: pa.DataType) -> Any:
    """The type in Delta's schema, None when it has none."""
    for test, name in _DELTA:
        if test(type_):
            return name
    if types.is_decimal128(type_):
        return f"decimal({type_.precision},{type_.scale})" if type_.scale >= 0 else None
    if types.is_list(type_):
        inner = delta_type(type_.value_type)
        return None if inner is None else {"type": "array", "elementType": inner, "containsNull": True}
    if types.is_struct(type_):
        inners = [delta_type(child.type) for child in type_.fields]
        if None in inners:
            return None
        return delta_struct([(child.name, inner, True) for child, inner in zip(type_.fields, inners, strict=True)])
    return None


def delta_struct(fields: list[tuple[str, Any, bool]]) -> dict[str, Any]:
    """A struct in Delta's schema, of (name, type, may be null)."""
    found = [{"name": name, "type": type_, "nullable": null, "metadata": {}} for name, type_, null in fields]
    return {"type": "struct", "fields": found}


def settled(type_: pa.DataType) -> pa.DataType:
    """The type in which a table gives a column: itself, but no views, for which pyarrow has hardly a function."""
    if types.is_string_view(type_):
        return pa.string()
    if types.is_binary_view(type_):
        return pa.binary()
    if types.is_dictionary(type_):
        return pa.dictionary(type_.index_type, settled(type_.value_type), type_.ordered)
    if types.is_list(type_) or types.is_list_view(type_):
        return pa.list_(_settled_field(type_.value_field))
    if types.is_large_list(type_) or types.is_large_list_view(type_):
        return pa.large_list(_settled_field(type_.value_field))
    if types.is_fixed_size_list(type_):
        return pa.list_(_settled_field(type_.value_field), type_.list_size)
    if types.is_struct(type_):
        return pa.struct([_settled_field(child) for child in type_.fields])
    return type_


def _settled_field(field: pa.Field) -> pa.Field:
    return field.with_type(settled(field.type))


def settled_schema(schema: pa.Schema) -> pa.Schema:
    """A schema with the types of `settled`."""
    return pa.schema([_settled_field(field) for field in schema], schema.metadata)


def restored(column: pa.ChunkedArray | pa.Array, type_: pa.DataType) -> pa.ChunkedArray | pa.Array:
    """A column from a file, as the type it came with. Cost: nothing when they are equal."""
    if column.type.equals(type_):
        return column
    if isinstance(type_, pa.BaseExtensionType):
        return _extended(restored(column, type_.storage_type), type_)
    if types.is_decimal(column.type) or types.is_fixed_size_list(type_):
        return column.cast(type_)
    if types.is_dictionary(type_):
        return column.cast(type_.value_type).dictionary_encode().cast(type_)
    return column.cast(type_)


def _extended(column: pa.ChunkedArray | pa.Array, type_: pa.BaseExtensionType) -> pa.ChunkedArray | pa.Array:
    """A column of what an extension type is made of, as that type; no copy."""
    if isinstance(column, pa.Array):
        return pa.ExtensionArray.from_storage(type_, column)
    return pa.chunked_array([pa.ExtensionArray.from_storage(type_, chunk) for chunk in column.chunks], type_)


def plain(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """A column without its extension type; no copy."""
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    return column.storage
