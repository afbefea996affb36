"""Which schema two schemas both fit."""

from __future__ import annotations

import pyarrow as pa
from pyarrow import types

from penstock.errors import SchemaMismatch
from penstock.records.describe import type_name
from penstock.records.schemas import DTYPE, KIND

__all__ = ["same_meaning", "widen"]

_UNITS = ("s", "ms", "us", "ns")
_MANTISSA = {16: 11, 32: 24, 64: 53}


def widen(old: pa.Schema, new: pa.Schema, *, stream: str = "") -> pa.Schema:
    """The schema that rows of `old` and rows of `new` both fit.

    Allowed are new nullable columns, a wider type in which each old value stays exact (int32 → int64,
    int32 → float64, string → large_string, a longer dictionary index, a finer time unit, null → any; the same
    inside lists and structs), and nullable instead of not nullable. A column that `new` has not, or has
    narrower, stays as in `old`.

    Takes   old: the stream's schema; new: the wanted one; stream: its name, for the message.
    Returns `old` itself if it already fits both; else old's columns in their order, then the new ones. Metadata
            keeps old's values and gains new's keys.
    Raises  SchemaMismatch naming `column`, `old`, `new` (types) and `stream`.
    """
    place = f"in stream {stream!r}" if stream else None
    for schema in (old, new):
        twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
        if twice:
            raise SchemaMismatch(
                expected="each column name once",
                got=f"`{twice[0]}` more than once",
                where=place,
                hint="rename one of them",
                column=twice[0],
                stream=stream,
            )
    if old.equals(new, check_metadata=True):
        return old
    kinds = [(schema.metadata or {}).get(KIND) for schema in (old, new)]
    if kinds[0] != kinds[1] and b"document" in kinds:
        names = ["documents (JSON)" if kind == b"document" else "typed columns" for kind in kinds]
        raise SchemaMismatch(
            expected=names[0],
            got=names[1],
            where=place,
            hint="use another stream name, or open this one without a schema",
            column="document",
            stream=stream,
        )
    fields = []
    for field in old:
        other = new.field(field.name) if field.name in new.names else None
        fields.append(field if other is None else _widen_field(field, other, place, stream))
    for field in new:
        if field.name in old.names:
            continue
        if not field.nullable:
            raise SchemaMismatch(
                expected=f"new column `{field.name}` to be nullable",
                got=f"{type_name(field.type)} not null",
                where=place,
                hint="rows already in the stream have no value for it; make the field nullable",
                column=field.name,
                old=None,
                new=field.type,
                stream=stream,
            )
        fields.append(field)
    schema = pa.schema(fields, metadata=_merged(old.metadata, new.metadata))
    return old if schema.equals(old, check_metadata=True) else schema


def same_meaning(left: pa.Field, right: pa.Field) -> bool:
    """Whether equal storage also means equal values: the element dtype noted beside a tensor column agrees."""
    return bool((left.metadata or {}).get(DTYPE) == (right.metadata or {}).get(DTYPE))


def _widen_field(old: pa.Field, new: pa.Field, place: str | None, stream: str) -> pa.Field:
    wider = _wider(old.type, new.type) if same_meaning(old, new) or types.is_null(old.type) else None
    if wider is None:
        raise SchemaMismatch(
            expected=f"{_meaning(old)} or a type it fits into, for column `{old.name}`",
            got=_meaning(new),
            where=place,
            hint="convert the column, or use another stream",
            column=old.name,
            old=old.type,
            new=new.type,
            stream=stream,
        )
    return pa.field(old.name, wider, old.nullable or new.nullable, _merged(old.metadata, new.metadata))


def _meaning(field: pa.Field) -> str:
    noted = (field.metadata or {}).get(DTYPE)
    return type_name(field.type) + (f" (elements {noted.decode()})" if noted else "")


def _merged(old: dict[bytes, bytes] | None, new: dict[bytes, bytes] | None) -> dict[bytes, bytes] | None:
    return {**(new or {}), **(old or {})} or None


def _wider(old: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    """The type both fit into, or None."""
    if old.equals(new) or types.is_null(new):
        return old
    if types.is_null(old):
        return new
    if types.is_dictionary(old) or types.is_dictionary(new):
        return _wider_dictionary(old, new)
    for family in (_wider_number, _wider_decimal, _wider_text, _wider_time, _wider_nested):
        found = family(old, new)
        if found is not None:
            return found
    return None


def _wider_dictionary(old: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    if not types.is_dictionary(old):
        # Plain values hold whatever a dictionary holds.
        return _wider(old, new.value_type)
    value = _wider(old.value_type, new.value_type if types.is_dictionary(new) else new)
    # Plain values may be more than a short index can count.
    index = _wider_number(old.index_type, new.index_type if types.is_dictionary(new) else pa.int32())
    return None if value is None or index is None else pa.dictionary(index, value, old.ordered)


def _wider_number(old: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    if not all(types.is_integer(type_) or types.is_floating(type_) for type_ in (old, new)):
        return None
    if _holds(old, new):
        return old
    return new if _holds(new, old) else None


def _holds(wide: pa.DataType, narrow: pa.DataType) -> bool:
    """Whether each value of `narrow` is one of `wide`."""
    if wide.equals(narrow):
        return True
    if types.is_floating(narrow):
        return types.is_floating(wide) and bool(wide.bit_width >= narrow.bit_width)
    bits = narrow.bit_width - types.is_signed_integer(narrow)
    if types.is_floating(wide):
        return bool(bits <= _MANTISSA[wide.bit_width])
    if types.is_signed_integer(narrow) and not types.is_signed_integer(wide):
        return False
    return bool(wide.bit_width - types.is_signed_integer(wide) >= bits)


def _wider_decimal(old: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    if not (types.is_decimal(old) and types.is_decimal(new)):
        return None
    for wide, narrow in ((old, new), (new, old)):
        if wide.scale >= narrow.scale and wide.precision - wide.scale >= narrow.precision - narrow.scale:
            return wide
    return None


def _wider_text(old: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    for short, long, view in (
        (types.is_string, types.is_large_string, types.is_string_view),
        (types.is_binary, types.is_large_binary, types.is_binary_view),
    ):
        if all(short(type_) or long(type_) or view(type_) for type_ in (old, new)):
            return new if short(old) and long(new) else old
    if types.is_fixed_size_binary(new) and (types.is_binary(old) or types.is_large_binary(old)):
        return old
    if types.is_fixed_size_binary(old) and (types.is_binary(new) or types.is_large_binary(new)):
        return new
    return None


def _wider_time(old: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    if types.is_date(old) and types.is_date(new):
        return old if types.is_date64(old) else new
    for family in (types.is_timestamp, types.is_time, types.is_duration):
        if family(old) and family(new):
            if types.is_timestamp(old) and old.tz != new.tz:
                return None
            return old if _UNITS.index(old.unit) >= _UNITS.index(new.unit) else new
    return None


def _wider_nested(old: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    if types.is_fixed_size_list(old) and types.is_fixed_size_list(new):
        if old.list_size != new.list_size:
            return None
        item = _wider_item(old.value_field, new.value_field)
        return None if item is None else pa.list_(item, old.list_size)
    if all(types.is_list(type_) or types.is_large_list(type_) for type_ in (old, new)):
        item = _wider_item(old.value_field, new.value_field)
        large = types.is_large_list(old) or types.is_large_list(new)
        return None if item is None else pa.large_list(item) if large else pa.list_(item)
    if types.is_struct(old) and types.is_struct(new):
        members: list[pa.Field] = []
        added = [field for field in new.fields if old.get_field_index(field.name) < 0]
        if any(not field.nullable for field in added):
            return None
        for field in old.fields:
            other = new.field(field.name) if new.get_field_index(field.name) >= 0 else field
            wider = _wider_item(field, other)
            if wider is None:
                return None
            members.append(wider)
        return pa.struct([*members, *added])
    return None


def _wider_item(old: pa.Field, new: pa.Field) -> pa.Field | None:
    type_ = _wider(old.type, new.type)
    return None if type_ is None else pa.field(old.name, type_, old.nullable or new.nullable, old.metadata)
