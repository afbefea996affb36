"""Python values to Arrow columns, strictly, with the place of what does not fit.

A column whose values are all of classes that pyarrow stores exactly goes there in one call. Any other is looked at
value by value, which accepts numpy scalars and the like, and names the first value that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types

from penstock.errors import RecordError, SchemaMismatch, TypeMismatch
from penstock.records.casts import cast
from penstock.records.describe import Spot, near, place, type_name, value_text
from penstock.records.tensors import element_dtype, tensor_column
from penstock.records.values import Unfit, converter, exact_kinds, is_missing, is_uuid

__all__ = ["build_array", "build_columns"]

_ABSENT: Any = object()
_NONE = type(None)
# What pyarrow raises for a value that is out of range or no UTF-8: the walk that follows says which it is.
_REFUSED = (pa.ArrowException, OverflowError, UnicodeError)


def build_columns(
    rows: Sequence[Mapping[str, Any]], fields: Iterable[pa.Field], spot: Spot, valid: Sequence[bool] | None = None
) -> list[pa.Array]:
    """One array per field from dicts with these keys.

    Takes   rows: n exact dicts; fields: of the columns; spot: where the rows stand; valid: False for rows that
            are null themselves (an empty dict stands in) and whose members may be.
    Returns arrays of n values each.
    Raises  TypeMismatch, SchemaMismatch.
    """
    fields = list(fields)
    columns: list[list[Any]] = []
    absent = 0
    for field in fields:
        name = field.name
        try:
            values = [row[name] for row in rows]
        except KeyError:
            values = [row.get(name, _ABSENT) for row in rows]
            for i, value in enumerate(values):
                if value is _ABSENT:
                    if not field.nullable and (valid is None or valid[i]):
                        raise _no_key(rows[i], field, fields, spot.member(name), i) from None
                    values[i] = None
                    absent += 1
        columns.append(values)
    if len(fields) * len(rows) - absent != sum(map(len, rows)):
        _refuse_unknown(rows, fields, spot)
    arrays = []
    for values, field in zip(columns, fields, strict=True):
        # The whole of the usual case, before anything is made that only a refusal needs.
        if exact_kinds(field.type, field.nullable).issuperset(map(type, values)):
            try:
                arrays.append(build_array(values, field.type, field.name, spot.where))
                continue
            except _REFUSED:
                pass
        arrays.append(_column(values, field, spot.member(field.name), valid))
    return arrays


def build_array(values: list[Any], type_: pa.DataType, name: str, where: str) -> pa.Array:
    """`pa.array` of values that fit; raises RecordError where pyarrow would answer with chunks."""
    if types.is_float16(type_):
        # Before version 21 pyarrow takes half floats from numpy only.
        missing = [value is None for value in values]
        halves = np.array([0.0 if value is None else value for value in values], np.float16)
        return pa.array(halves, mask=np.array(missing, bool))
    array = pa.array(values, type_)
    if isinstance(array, pa.ChunkedArray):
        raise _too_much(name, where)
    return array


def _too_much(name: str, where: str) -> RecordError:
    return RecordError(
        expected=f"at most 2 GiB of text for `{name}` in one batch",
        got="more",
        where=place(where, None),
        hint="append fewer rows at a time",
        column=name,
        limit=2**31,
    )


def _no_key(row: Mapping[Any, Any], field: pa.Field, fields: list[pa.Field], spot: Spot, i: int) -> TypeMismatch:
    known = {other.name for other in fields}
    close = near(field.name, [key for key in row if isinstance(key, str) and key not in known])
    return TypeMismatch(
        expected=f"{type_name(field.type)} for `{field.name}`",
        got="no such key",
        hint=f"is {close!r} meant to be it?" if close else "give it in each row, or open the stream with it nullable",
        **spot.facts(i),
    )


def _refuse_unknown(rows: Sequence[Mapping[Any, Any]], fields: list[pa.Field], spot: Spot) -> None:
    known = {field.name: None for field in fields}
    for i, row in enumerate(rows):
        for key in row:
            if not isinstance(key, str):
                raise TypeMismatch(
                    expected="string keys",
                    got=f"key {value_text(key)}",
                    hint="convert the keys with str(key)",
                    **spot.facts(i),
                )
            if key not in known:
                close = near(key, known)
                listed = ", ".join(known) if len(known) < 12 else f"({len(known)})"
                raise SchemaMismatch(
                    expected=f"one of the columns {listed}",
                    got=f"unknown column {key[:100]!r}",
                    hint=f"did you mean {close!r}?" if close else "open the stream with the wider schema",
                    **{**spot.facts(i), "column": key},
                )


def _column(values: list[Any], field: pa.Field, spot: Spot, valid: Sequence[bool] | None) -> pa.Array:
    type_ = field.type
    kinds = set(map(type, values))
    if not field.nullable and _NONE in kinds:
        _refuse_none(values, field, spot, valid)
    if kinds <= exact_kinds(type_, True):
        try:
            return build_array(values, type_, field.name, spot.where)
        except _REFUSED:
            pass
    if types.is_dictionary(type_):
        return _dictionary(values, field, spot, valid)
    if isinstance(type_, pa.FixedShapeTensorType):
        return _tensors(values, field, spot, valid)
    if isinstance(type_, pa.BaseExtensionType) and not is_uuid(type_):
        storage = _column(values, field.with_type(type_.storage_type), spot, valid)
        return pa.ExtensionArray.from_storage(type_, storage)
    build = _builder(type_)
    if build is not None:
        return build(values, field, spot, [value is not None for value in values])
    convert = converter(type_, times=field.name.startswith("ts_"))
    if convert is None:
        convert = _unfillable
    fitted: list[Any] = []
    for i, value in enumerate(values):
        try:
            fitted.append(None if is_missing(value) else convert(value))
        except Unfit as unfit:
            raise TypeMismatch(
                expected=f"{unfit.expected or type_name(type_)} for `{field.name}`",
                got=unfit.got or value_text(value),
                hint=unfit.hint,
                **spot.facts(i),
            ) from None
    if not field.nullable and None in fitted:
        _refuse_none(fitted, field, spot, valid)
    if is_uuid(type_):
        return pa.ExtensionArray.from_storage(type_, pa.array(fitted, type_.storage_type))
    try:
        return build_array(fitted, type_, field.name, spot.where)
    except pa.ArrowCapacityError as error:
        raise _too_much(field.name, spot.where) from error


def _unfillable(value: Any) -> Any:
    raise Unfit("rows cannot fill a column of this type; append an Arrow batch")


def _refuse_none(values: Sequence[Any], field: pa.Field, spot: Spot, valid: Sequence[bool] | None) -> None:
    for i, value in enumerate(values):
        if value is None and (valid is None or valid[i]):
            raise TypeMismatch(
                expected=f"{type_name(field.type)} for `{field.name}`",
                got="None",
                hint="leave such rows out, or open the stream with the column nullable",
                **spot.facts(i),
            )


def _dictionary(values: list[Any], field: pa.Field, spot: Spot, valid: Sequence[bool] | None) -> pa.Array:
    plain = _column(values, field.with_type(field.type.value_type), spot, valid)
    try:
        return cast(plain, field.type)
    except Unfit as unfit:
        raise TypeMismatch(
            expected=f"{type_name(field.type)} for `{field.name}`",
            got=unfit.got or type_name(plain.type),
            where=place(spot.where, None, field.name),
            hint=unfit.hint,
            column=field.name,
        ) from None


# ---- lists, structs, maps, tensors ------------------------------------------------------------------------------

_Builder = Callable[[list[Any], pa.Field, Spot, list[bool]], pa.Array]


def _builder(type_: pa.DataType) -> _Builder | None:
    if types.is_struct(type_):
        return _struct
    if types.is_map(type_):
        return _map
    if types.is_fixed_size_list(type_):
        return _fixed_list
    if types.is_list(type_) or types.is_large_list(type_):
        return _list
    if types.is_list_view(type_) or types.is_large_list_view(type_):
        return _list
    return None


def _unfit(i: int, value: Any, field: pa.Field, spot: Spot, hint: str) -> TypeMismatch:
    return TypeMismatch(
        expected=f"{type_name(field.type)} for `{field.name}`",
        got=value_text(value),
        hint=hint,
        **spot.facts(i),
    )


def _lists(values: list[Any], field: pa.Field, spot: Spot) -> list[Sequence[Any]]:
    lists: list[Sequence[Any]] = []
    for i, value in enumerate(values):
        if value is None:
            lists.append(())
        elif isinstance(value, (list, tuple)):
            lists.append(value)
        elif isinstance(value, np.ndarray) and value.ndim and not isinstance(value, np.ma.MaskedArray):
            # tolist() makes Python numbers, which are quicker to look at; it would turn times into ints.
            lists.append(value.tolist() if value.dtype.kind in "iufbUO" else list(value))
        else:
            raise _unfit(i, value, field, spot, "give a list")
    return lists


def _list(values: list[Any], field: pa.Field, spot: Spot, valid: list[bool]) -> pa.Array:
    type_ = field.type
    lists = _lists(values, field, spot)
    lengths = list(map(len, lists))
    item = type_.value_field
    child = _column(list(chain.from_iterable(lists)), item.with_name(field.name), spot.items(lengths), None)
    large = types.is_large_list(type_) or types.is_large_list_view(type_)
    offset = pa.int64() if large else pa.int32()
    offsets = pa.array(accumulate(lengths, initial=0), offset)
    if types.is_list(type_) or types.is_large_list(type_):
        make = pa.LargeListArray if large else pa.ListArray
        return make.from_arrays(offsets, child, type_, mask=_mask(valid))
    view = pa.LargeListViewArray if large else pa.ListViewArray
    return view.from_arrays(offsets[:-1], pa.array(lengths, offset), child, type_, mask=_mask(valid))


def _fixed_list(values: list[Any], field: pa.Field, spot: Spot, valid: list[bool]) -> pa.Array:
    size = field.type.list_size
    lists = _lists(values, field, spot)
    for i, (items, present) in enumerate(zip(lists, valid, strict=True)):
        if not present:
            lists[i] = [None] * size
        elif len(items) != size:
            raise TypeMismatch(
                expected=f"{size} items for `{field.name}`",
                got=str(len(items)),
                hint="give a list of that length",
                **spot.facts(i),
            )
    inner = None if all(valid) else [present for present in valid for _ in range(size)]
    child = _column(
        list(chain.from_iterable(lists)),
        field.type.value_field.with_name(field.name),
        spot.items([size] * len(lists)),
        inner,
    )
    return pa.Array.from_buffers(field.type, len(values), [_bitmap(valid)], children=[child])


def _struct(values: list[Any], field: pa.Field, spot: Spot, valid: list[bool]) -> pa.Array:
    members: list[dict[str, Any]] = []
    for i, value in enumerate(values):
        if value is None:
            members.append({})
        elif isinstance(value, Mapping):
            members.append(value if type(value) is dict else dict(value))
        else:
            raise _unfit(i, value, field, spot, "give a dict")
    arrays = build_columns(members, field.type.fields, spot, valid)
    return pa.Array.from_buffers(field.type, len(values), [_bitmap(valid)], children=arrays)


def _map(values: list[Any], field: pa.Field, spot: Spot, valid: list[bool]) -> pa.Array:
    type_ = field.type
    pairs: list[list[Any]] = []
    for i, value in enumerate(values):
        listed = [] if value is None else list(value.items()) if isinstance(value, Mapping) else value
        if not isinstance(listed, (list, tuple)) or not all(
            isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in listed
        ):
            raise _unfit(i, value, field, spot, "give a dict, or a list of (key, value)")
        pairs.append(list(listed))
    lengths = list(map(len, pairs))
    flat = list(chain.from_iterable(pairs))
    inner = spot.items(lengths)
    keys = _column([key for key, _ in flat], type_.key_field.with_name(field.name), inner, None)
    items = _column([item for _, item in flat], type_.item_field.with_name(field.name), inner, None)
    offsets = pa.array(accumulate(lengths, initial=0), pa.int32())
    return pa.MapArray.from_arrays(offsets, keys, items, type_, mask=_mask(valid))


def _mask(valid: list[bool]) -> pa.Array | None:
    return None if all(valid) else pa.array([not present for present in valid])


def _bitmap(valid: list[bool]) -> pa.Buffer | None:
    return None if all(valid) else pa.py_buffer(np.packbits(valid, bitorder="little").tobytes())


def _tensors(values: list[Any], field: pa.Field, spot: Spot, valid: Sequence[bool] | None) -> pa.Array:
    element, shape = element_dtype(field)
    wanted = f"an array of shape {shape} and dtype {element} for `{field.name}`"
    stacked = np.zeros((len(values), *shape), element)
    for i, value in enumerate(values):
        if value is None:
            if valid is not None and not valid[i]:
                continue
            _refuse_none(values, field.with_nullable(False), spot, valid)

        def refuse(got: str, hint: str, i: int = i) -> TypeMismatch:
            return TypeMismatch(expected=wanted, got=got, hint=hint, **spot.facts(i))

        try:
            array = np.asarray(value)
        except (ValueError, TypeError):
            raise refuse("lists of unequal length", "give a numpy array") from None
        if array.shape != shape:
            raise refuse(f"shape {array.shape}" if array.dtype != object else value_text(value), "reshape it")
        if not _fits(value, array, element):
            raise refuse(f"dtype {array.dtype}", "convert it with array.astype(...)")
        stacked[i] = array
    column = tensor_column(stacked)
    return column if column.type.equals(field.type) else cast(column, field.type)


def _fits(value: Any, array: np.ndarray[Any, Any], element: np.dtype[Any]) -> bool:
    """Whether the array's values are exactly values of `element`; a Python float is rounded as in a column."""
    kind, wanted = array.dtype.kind, element.kind
    if kind not in "biufcmM" or (kind != wanted and (kind in "bcmM" or wanted in "bmM")):
        return False
    # An array says its width; lists of Python numbers have none, so for them only the values count.
    if isinstance(value, (np.ndarray, np.generic)) and not np.can_cast(array.dtype, element, "safe"):
        return False
    with np.errstate(invalid="ignore", over="ignore"):
        try:
            cast_array = array.astype(element)
        except OverflowError:  # times; older numpy wraps around
            return False
        if kind in "fc" and wanted in "fc":
            return bool(np.all(np.isfinite(cast_array) | ~np.isfinite(array)))
        # "Safe" is not exact: int64 to float64 rounds above 2**53, and finer times wrap around.
        back = (cast_array.real if wanted == "c" else cast_array).astype(array.dtype)
    same = back == array
    return bool(np.all(same | np.isnat(array)) if kind in "mM" else np.all(same))
