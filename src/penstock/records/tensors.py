"""n-d arrays as columns: Arrow's `fixed_shape_tensor`, always in C order of the logical shape.

The canonical type has no bool, complex, datetime64 or timedelta64 elements. They are stored as uint8, as floats
with a last axis of 2, and as int64; the numpy dtype is noted in the field's metadata (`penstock.dtype`), so that
`tensor_array(column, field)` gives back what went in. Text, objects and structured dtypes are refused: a
structured array is one column per field. Other byte orders are stored, and come back, in the machine's order.

The storage is built by hand because the Arrow helper refuses 0-d items, empty axes, zero rows, one row made by
`a[None]` and negative strides, and notes a wrong axis order for items whose axes were rotated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.errors import SchemaMismatch, TypeMismatch, UsageError
from penstock.records.describe import place, type_name, value_text
from penstock.records.schemas import DTYPE

__all__ = ["element_dtype", "tensor_array", "tensor_column", "tensor_field"]

_MOST = 2**31 - 1
_Array = np.ndarray[Any, np.dtype[Any]]


def tensor_field(name: str, shape: Sequence[int], dtype: Any) -> pa.Field:
    """The field of a tensor column.

    Takes   name: the column's; shape: of one row's array, () for a scalar, axes of length 0 allowed;
            dtype: a numpy dtype or its name, bool, int, uint, float, complex, datetime64 and timedelta64.
    Returns a not nullable field; metadata `penstock.dtype` where the stored elements are of another type.
    Raises  UsageError for a negative or non-integer axis; TypeMismatch for any other dtype.
    """
    try:
        given = list(shape)
        axes = [int(axis) for axis in given if int(axis) == axis and axis >= 0]
    except (TypeError, ValueError):
        given, axes = [-1], []
    if len(axes) != len(given):
        raise _bad_shape(shape, f"in tensor_field({name!r})")
    try:
        element = np.dtype(dtype)
    except TypeError as error:
        raise UsageError(
            expected="a numpy dtype",
            got=repr(dtype),
            where=f"in tensor_field({name!r})",
            hint='give a dtype such as "float64"',
        ) from error
    stored, extra = _storage(element, name)
    metadata = {DTYPE: element.newbyteorder("=").str[1:].encode()} if stored != element.newbyteorder("=") else None
    type_ = _tensor_type(stored, [*axes, *extra], f"in tensor_field({name!r})")
    return pa.field(name, type_, nullable=False, metadata=metadata)


def tensor_column(array: _Array) -> pa.ExtensionArray:
    """An array as a tensor column, one row per item of the first axis.

    Takes   array: (rows, *shape), any strides; rows may be 0.
    Returns a column of `tensor_field(name, array.shape[1:], array.dtype).type`.
    Raises  TypeMismatch for what is no array of at least one axis, or has a dtype a tensor cannot have.
    Cost    no copy for C-contiguous arrays of native byte order: the column is a view, so leave the array
            alone until it is written. One copy otherwise.
    """
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise TypeMismatch(
            expected="a numpy array (rows, *shape)",
            got=value_text(array),
            hint="use np.asarray(value)" if not isinstance(array, np.ndarray) else "fill the masked values first",
        )
    if array.ndim == 0:
        raise TypeMismatch(
            expected="a numpy array (rows, *shape)",
            got="an array without axes",
            hint="for one row use array.reshape((1, *array.shape))",
        )
    stored, extra = _storage(array.dtype, "")
    rows, shape = len(array), array.shape[1:]
    type_ = _tensor_type(stored, [*shape, *extra], "in tensor_column()")
    flat = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    elements = flat.reshape(-1).view(stored)
    values = pa.Array.from_buffers(type_.value_type, elements.size, [None, pa.py_buffer(elements)])
    storage = pa.Array.from_buffers(type_.storage_type, rows, [None], children=[values])
    return pa.ExtensionArray.from_storage(type_, storage)


def tensor_array(column: pa.Array | pa.ChunkedArray, field: pa.Field | None = None) -> _Array:
    """The array of a tensor column.

    Takes   column: of a fixed_shape_tensor type, also one written by others (its axis order is applied);
            field: the column's field, needed for bool, complex, datetime64 and timedelta64 elements.
    Returns (rows, *shape), read-only.
    Raises  SchemaMismatch if the column is no tensor; TypeMismatch for a null, `row` is the first.
    Cost    no copy; a table column of several chunks is joined first.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    type_ = column.type
    name = field.name if field is not None else "column"
    if not isinstance(type_, pa.FixedShapeTensorType):
        raise SchemaMismatch(
            expected=f"a tensor for `{name}`",
            got=type_name(type_),
            hint="make the column with tensor_column()",
            column=name,
        )
    storage = column.storage
    rows, size = len(storage), storage.type.list_size
    values = storage.values.slice(storage.offset * size, rows * size)
    if storage.null_count or values.null_count:
        missing = storage.is_null() if storage.null_count else values.is_null()
        row = int(missing.to_numpy(zero_copy_only=False).argmax()) // (1 if storage.null_count else size)
        raise TypeMismatch(
            expected=f"an array for `{name}`",
            got="null",
            where=place("", row, name),
            hint="drop such rows; tensors have no missing values",
            column=name,
            row=row,
        )
    stored = np.dtype(type_.value_type.to_pandas_dtype())
    data = values.buffers()[1]
    if rows * size == 0 or data is None:
        flat = np.empty(0, stored)
    else:
        flat = np.frombuffer(data, stored, count=rows * size, offset=values.offset * stored.itemsize)
    shape = tuple(type_.shape)
    if field is not None and DTYPE in (field.metadata or {}):
        element, shape = element_dtype(field)
        flat = flat.view(element)
    array = flat.reshape((rows, *shape))
    if type_.permutation is not None:
        # The column's own logical shape: axis i is the stored axis permutation[i].
        array = array.transpose((0, *(axis + 1 for axis in type_.permutation)))
    array.flags.writeable = False
    return array


def element_dtype(field: pa.Field) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The dtype and shape of one row's array in a tensor column.

    Raises  SchemaMismatch if the dtype noted in the metadata cannot be stored in a column of this type.
    """
    stored = np.dtype(field.type.value_type.to_pandas_dtype())
    noted = (field.metadata or {}).get(DTYPE)
    if noted is None:
        return stored, tuple(field.type.shape)
    try:
        element = np.dtype(noted.decode())
        fits = element.kind in "bcmM" and _storage(element, field.name)[0] == stored
    except (TypeError, ValueError):
        fits = False
    shape = tuple(field.type.shape)
    if not fits or (element.kind == "c" and (shape[-1:] != (2,) or field.type.permutation is not None)):
        raise SchemaMismatch(
            expected=f"metadata penstock.dtype of `{field.name}` to be a dtype stored as {type_name(field.type)}",
            got=repr(noted),
            hint="make the field with tensor_field()",
            column=field.name,
        )
    return element, shape[:-1] if element.kind == "c" else shape


def _tensor_type(stored: np.dtype[Any], axes: list[int], where: str) -> pa.FixedShapeTensorType:
    # Arrow counts the elements of an item in 32 bits.
    if math.prod(axes) > _MOST:
        raise _bad_shape(tuple(axes), where)
    return pa.fixed_shape_tensor(pa.from_numpy_dtype(stored), axes)


def _bad_shape(shape: object, where: str) -> UsageError:
    return UsageError(
        expected=f"a shape of ints of at least 0, with at most {_MOST} elements",
        got=repr(shape),
        where=where,
        hint="give the shape of one row's array, such as (3, 4)",
    )


def _storage(element: np.dtype[Any], name: str) -> tuple[np.dtype[Any], list[int]]:
    """The dtype elements are stored as, and the axes it adds."""
    kind, width = element.kind, element.itemsize
    if kind in "iu" or (kind == "f" and width <= 8):
        return element.newbyteorder("="), []
    if kind == "b":
        return np.dtype(np.uint8), []
    if kind == "c" and width <= 16:
        return np.dtype(f"f{width // 2}"), [2]
    if kind in "mM" and np.datetime_data(element)[0] != "generic":
        return np.dtype(np.int64), []
    hints = {
        "V": "use one column per field",
        "U": "use a string column",
        "S": "use a binary column",
        "O": "convert it to numbers",
        "f": "convert it to float64",
        "c": "convert it to complex128",
    }
    raise TypeMismatch(
        expected="elements of bool, int, uint, float, complex, datetime64 or timedelta64"
        + (f" for `{name}`" if name else ""),
        got=f"dtype {element}",
        hint=hints.get(kind, "convert it to a numeric dtype"),
        column=name or None,
    )
