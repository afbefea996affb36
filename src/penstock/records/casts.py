"""Arrow columns to another type, only where each value stays exactly what it was.

Arrow's own safe cast is the last step, not the judge: it rounds float64 to float32, turns text into numbers, drops
zones, has no kernel between dictionaries and views, and looks at list items outside a slice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from penstock.records.describe import type_name
from penstock.records.tensors import tensor_array, tensor_column
from penstock.records.values import Unfit

__all__ = ["cast", "null_rows"]

_EXACT_FLOAT = 2**53
_UNITS = ("s", "ms", "us", "ns")


def cast(array: pa.Array, target: pa.DataType, *, times: bool = False) -> pa.Array:
    """`array` as `target`, or Unfit.

    Takes   array: n values; target: the wanted type; times: an int64 column of event times, which takes
            timestamps with a zone.
    Returns n values, equal to the given ones.
    Raises  Unfit, with the next step, for types that do not convert and for values that would change.
    Cost    O(1) for equal types, O(n) else.
    """
    source = array.type
    if source.equals(target):
        return array
    if types.is_run_end_encoded(source):
        return cast(pc.run_end_decode(array), target, times=times)
    if isinstance(target, pa.FixedShapeTensorType):
        return _tensor(array, target)
    if isinstance(target, pa.BaseExtensionType):
        if isinstance(source, pa.BaseExtensionType):
            raise Unfit("convert the column")
        return pa.ExtensionArray.from_storage(target, cast(array, target.storage_type))
    if isinstance(source, pa.BaseExtensionType):
        return cast(array.storage, target, times=times)
    if types.is_dictionary(target):
        return _encoded(array, target)
    if types.is_dictionary(source):
        return cast(_decoded(array), target, times=times)
    if types.is_null(source):
        return pa.nulls(len(array), target)
    if _is_list(source) and _is_list(target):
        return _list(array, target)
    if types.is_struct(source) and types.is_struct(target):
        return _struct(array, target)
    if types.is_map(source) and types.is_map(target):
        return _map(array, target)
    if times and types.is_int64(target) and types.is_timestamp(source):
        if source.tz is None:
            raise Unfit("give the column its zone, such as UTC")
        return _safe(array, pa.timestamp("ns", source.tz)).view(pa.int64())
    if not _convertible(source, target):
        raise Unfit(_advice(source, target))
    if types.is_integer(source) and types.is_float16(target):
        # Arrow rounds integers to half floats without a word.
        return _from_float(_safe(array, pa.float32()), target)
    if types.is_floating(source):
        return _from_float(array, target)
    return _safe(array, target)


def null_rows(array: pa.Array) -> int:
    """Number of rows without a value; sees those that hide in a dictionary's values or in runs."""
    if types.is_dictionary(array.type) and array.dictionary.null_count:
        return int(_decoded(array).null_count)
    if types.is_run_end_encoded(array.type):
        return int(pc.run_end_decode(array).null_count)
    return int(array.null_count)


def _safe(array: pa.Array, target: pa.DataType) -> pa.Array:
    try:
        return array.cast(target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise Unfit(_advice(array.type, target), got=str(error)) from error


def _from_float(array: pa.Array, target: pa.DataType) -> pa.Array:
    if types.is_float16(array.type):
        # Half floats have few kernels; each of them is a float32.
        wide = array.cast(pa.float32())
        return wide if target.equals(wide.type) else _from_float(wide, target)
    if types.is_integer(target):
        bounds = pc.min_max(array).as_py().values()
        if any(bound is not None and abs(bound) > _EXACT_FLOAT for bound in bounds):
            raise Unfit("a float this large is not exact; give ints")
        return _safe(array, target)
    result = _safe(array, target)
    if target.bit_width < array.type.bit_width:
        back = result.cast(array.type)
        same = pc.or_(pc.equal(back, array), pc.and_(pc.is_nan(back), pc.is_nan(array)))
        if pc.all(same).as_py() is False:
            raise Unfit(f"cast the column to {type_name(target)} yourself if rounding is meant")
    return result


# ---- dictionaries, tensors --------------------------------------------------------------------------------------


def _decoded(array: pa.DictionaryArray) -> pa.Array:
    values = array.dictionary
    # There is no kernel that takes from views.
    if types.is_string_view(values.type):
        values = values.cast(pa.large_string())
    elif types.is_binary_view(values.type):
        values = values.cast(pa.large_binary())
    return values.take(array.indices)


def _encoded(array: pa.Array, target: pa.DataType) -> pa.Array:
    if types.is_dictionary(array.type):
        values, indices = array.dictionary, array.indices
    else:
        plain = cast(array, target.value_type)
        if types.is_string_view(plain.type):
            plain = plain.cast(pa.large_string())
        elif types.is_binary_view(plain.type):
            plain = plain.cast(pa.large_binary())
        try:
            encoded = plain.dictionary_encode()
        except pa.ArrowNotImplementedError as error:
            raise Unfit("open the stream with the plain type", got=type_name(array.type)) from error
        values, indices = encoded.dictionary, encoded.indices
    values = cast(values, target.value_type)
    try:
        indices = indices.cast(target.index_type)
    except pa.ArrowInvalid as error:
        hint = "open the stream with a longer index, such as int32"
        raise Unfit(hint, got=f"{len(values)} distinct values") from error
    return pa.DictionaryArray.from_arrays(indices, values, ordered=target.ordered)


def _tensor(array: pa.Array, target: pa.FixedShapeTensorType) -> pa.Array:
    """From a tensor of the same elements and logical shape, stored in another order of axes or with names."""
    source = array.type
    if types.is_null(source):
        return pa.ExtensionArray.from_storage(target, pa.nulls(len(array), target.storage_type))
    same = isinstance(source, pa.FixedShapeTensorType) and source.value_type.equals(target.value_type)
    if same and target.permutation is None and not array.null_count:
        values = tensor_array(array)
        if list(values.shape[1:]) == list(target.shape):
            made = tensor_column(values)
            storage = pa.Array.from_buffers(target.storage_type, len(made), [None], children=[made.storage.values])
            return pa.ExtensionArray.from_storage(target, storage)
    raise Unfit("make the column with penstock.records.tensor_column()")


# ---- lists, structs, maps ---------------------------------------------------------------------------------------


def _is_list(type_: pa.DataType) -> bool:
    return bool(
        types.is_list(type_)
        or types.is_large_list(type_)
        or types.is_list_view(type_)
        or types.is_large_list_view(type_)
        or types.is_fixed_size_list(type_)
    )


def _child(array: pa.Array, field: pa.Field, null_parents: int = 0) -> pa.Array:
    """`array` as the child of a list or struct; more nulls than parents without a value are too many."""
    if not field.nullable and null_rows(array) > null_parents:
        raise Unfit("drop such rows, or open the stream with the member nullable", got="null inside")
    return cast(array, field.type)


def _list(array: pa.Array, target: pa.DataType) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype(np.int64)
    child = _child(array.flatten(), target.value_field)
    mask = array.is_null() if array.null_count else None
    if types.is_fixed_size_list(target):
        return _fixed_list(array, child, lengths, target)
    large = types.is_large_list(target) or types.is_large_list_view(target)
    width: Any = np.int64 if large else np.int32
    if not large and len(child) > np.iinfo(np.int32).max:
        raise Unfit("append fewer rows at a time", got="more items than a list column can count")
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))).astype(width))
    if types.is_list(target) or types.is_large_list(target):
        make = pa.LargeListArray if large else pa.ListArray
        return make.from_arrays(offsets, child, target, mask=mask)
    view = pa.LargeListViewArray if large else pa.ListViewArray
    return view.from_arrays(offsets[:-1], pa.array(lengths.astype(width)), child, target, mask=mask)


def _fixed_list(array: pa.Array, child: pa.Array, lengths: Any, target: pa.DataType) -> pa.Array:
    size, rows = target.list_size, len(array)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    if (lengths[valid] != size).any():
        raise Unfit("give lists of that length", expected=f"{size} items")
    if array.null_count:
        # A row without a value still owns `size` items.
        first = np.cumsum(np.where(valid, size, 0)) - size
        take = (first[:, None] + np.arange(size)).ravel()
        child = child.take(pa.array(take, mask=np.repeat(~valid, size)))
    bitmap = pa.py_buffer(np.packbits(valid, bitorder="little").tobytes()) if array.null_count else None
    return pa.Array.from_buffers(target, rows, [bitmap], children=[child])


def _struct(array: pa.Array, target: pa.DataType) -> pa.Array:
    names = [field.name for field in array.type.fields]
    wanted = {field.name for field in target.fields}
    if len(set(names)) < len(names) or not wanted.issuperset(names):
        raise Unfit("open the stream with the wider struct")
    members = dict(zip(names, array.flatten(), strict=True))
    children = []
    for field in target.fields:
        member = members.get(field.name)
        if member is None:
            if not field.nullable:
                raise Unfit(f"give the member {field.name!r}, or open the stream with it nullable")
            member = pa.nulls(len(array), field.type)
        children.append(_child(member, field, array.null_count))
    bitmap = None
    if array.null_count:
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        bitmap = pa.py_buffer(np.packbits(valid, bitorder="little").tobytes())
    return pa.Array.from_buffers(target, len(array), [bitmap], children=children)


def _map(array: pa.Array, target: pa.DataType) -> pa.Array:
    offsets = array.offsets.to_numpy()
    start, stop = int(offsets[0]), int(offsets[-1])
    keys = _child(array.keys.slice(start, stop - start), target.key_field)
    items = _child(array.items.slice(start, stop - start), target.item_field)
    mask = array.is_null() if array.null_count else None
    return pa.MapArray.from_arrays(pa.array(offsets - start), keys, items, target, mask=mask)


# ---- what converts ----------------------------------------------------------------------------------------------


def _is_text(type_: pa.DataType) -> bool:
    return bool(types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_))


def _is_bytes(type_: pa.DataType) -> bool:
    variable = types.is_binary(type_) or types.is_large_binary(type_) or types.is_binary_view(type_)
    return bool(variable or types.is_fixed_size_binary(type_))


def _convertible(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether values of these types may convert; whether each is exact is asked of the cast."""
    if types.is_integer(source):
        return bool(types.is_integer(target) or types.is_floating(target) or types.is_decimal(target))
    if types.is_floating(source):
        return bool(types.is_floating(target) or types.is_integer(target))
    if types.is_timestamp(source):
        return bool(types.is_timestamp(target)) and (source.tz is None) == (target.tz is None)
    families = (_is_text, _is_bytes, types.is_decimal, types.is_date, types.is_time, types.is_duration)
    return any(family(source) and family(target) for family in families)


def _advice(source: pa.DataType, target: pa.DataType) -> str:
    if types.is_timestamp(source) and types.is_timestamp(target):
        if source.tz is None and target.tz is not None:
            return "give the column its zone, such as UTC"
        if source.tz is not None and target.tz is None:
            return "drop the column's zone, or open the stream with one"
    if types.is_timestamp(source) and types.is_integer(target):
        return "name the column ts_… to store it as int64 nanoseconds, or open the stream with a timestamp column"
    for family in (types.is_timestamp, types.is_time, types.is_duration):
        if family(source) and family(target):
            if _UNITS.index(source.unit) < _UNITS.index(target.unit):
                return f"64-bit counts of {target.unit} end before that"
            return "round the column to the coarser unit first"
    if _is_text(source):
        return "parse the column before it is appended"
    return "convert the column, or open the stream with the wider type"
