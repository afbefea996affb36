from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock.errors import SchemaMismatch, TypeMismatch, UsageError
from penstock.records import tensor_array, tensor_column, tensor_field

DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    "complex64", "complex128", "M8[ns]", "M8[us]", "M8[D]", "M8[25s]", "m8[ns]", "m8[h]",
]  # fmt: skip
SHAPES = [(0,), (3,), (3, 0), (0, 0), (2, 0, 3), (1, 4), (2, 3, 4), (0, 2, 3), (1,), (2, 1, 1, 1, 2)]


def through_ipc(batch: pa.RecordBatch) -> pa.RecordBatch:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return pa.ipc.open_stream(sink.getvalue()).read_next_batch()


def round_trip(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Through field, column, an IPC stream and back."""
    field = tensor_field("x", array.shape[1:], array.dtype)
    column = tensor_column(array)
    assert column.type == field.type
    batch = through_ipc(pa.RecordBatch.from_arrays([column], schema=pa.schema([field])))
    batch.validate(full=True)
    return tensor_array(batch.column(0), batch.schema.field(0))


def check(array: np.ndarray[Any, Any]) -> None:
    found = round_trip(array)
    assert found.shape == array.shape
    assert found.dtype == array.dtype.newbyteorder("=")
    assert found.tobytes() == np.ascontiguousarray(array, dtype=found.dtype).tobytes()  # nan and -0.0 to the bit
    assert not found.flags.writeable


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_each_dtype_and_shape(dtype: str, shape: tuple[int, ...]) -> None:
    check(np.arange(np.prod(shape)).reshape(shape).astype(dtype))


@pytest.mark.parametrize("axes", list(itertools.permutations(range(4))))
def test_each_order_of_axes(axes: tuple[int, ...]) -> None:
    """Cyclic orders of the item's axes are where the Arrow helper notes the wrong shape."""
    check(np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).transpose(axes))


@pytest.mark.parametrize(
    "make",
    [
        lambda a: np.asfortranarray(a),
        lambda a: a[:, ::2],
        lambda a: a[::-1],
        lambda a: a[:, ::-1, ::-2],
        lambda a: a[1:3, 1:, 2:],
        lambda a: np.broadcast_to(a[:1], a.shape),
        lambda a: a[0][None],
        lambda a: a.T,
        lambda a: a.astype(">f8"),
        lambda a: a.astype(">i4")[:, ::-1],
        lambda a: a.astype(">M8[us]"),
        lambda a: a.astype(">c16"),
        lambda a: (a > 5)[::-1],
        lambda a: a.view(np.matrix) if a.ndim == 2 else a,
    ],
)
def test_layouts(make: Any) -> None:
    check(make(np.arange(4 * 5 * 6, dtype=np.float64).reshape(4, 5, 6)))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_view_of_any_array(data: st.DataObject) -> None:
    dtype = data.draw(
        hnp.boolean_dtypes()
        | hnp.integer_dtypes(endianness="?")
        | hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64))
        | hnp.complex_number_dtypes(endianness="?", sizes=(64, 128))
        | hnp.datetime64_dtypes(endianness="?")
        | hnp.timedelta64_dtypes(endianness="?")
    )
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4))
    array = data.draw(hnp.arrays(dtype, shape))
    if data.draw(st.booleans()):
        array = array.transpose(data.draw(st.permutations(range(array.ndim))))
    index = data.draw(hnp.basic_indices(array.shape, min_dims=1, allow_newaxis=True, allow_ellipsis=True))
    view = array[index]
    if isinstance(view, np.ndarray) and view.ndim:
        check(view)


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.int16, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_slices_and_chunks(array: np.ndarray[Any, Any], start: int, size: int) -> None:
    column = tensor_column(array)
    assert np.array_equal(tensor_array(column.slice(start, size)), array[start : start + size])
    table = pa.table({"x": pa.chunked_array([column.slice(0, start), column.slice(start)])})
    assert np.array_equal(tensor_array(table.column("x")), array)
    assert np.array_equal(tensor_array(pa.chunked_array([column])), array)
    assert np.array_equal(tensor_array(pa.chunked_array([], column.type)), array[:0])


def test_no_copy_in_and_out() -> None:
    for dtype in DTYPES:
        array = np.zeros((4, 8), dtype)
        column = tensor_column(array)
        found = tensor_array(column, tensor_field("x", (8,), dtype))
        assert np.shares_memory(found, array), dtype
        assert np.shares_memory(tensor_array(column.slice(2), tensor_field("x", (8,), dtype)), array), dtype
        with pytest.raises(ValueError, match="read-only"):
            found[0] = found[1]


def test_memory_outlives_the_makers() -> None:
    column = tensor_column(np.arange(10_000.0).reshape(10, 1000).copy())
    found = tensor_array(column)
    del column
    assert found.sum() == 10_000 * 9_999 / 2


def test_arrow_reads_what_we_write() -> None:
    array = np.arange(24.0).reshape(2, 3, 4)
    column = tensor_column(array.transpose(0, 2, 1))
    assert np.array_equal(column.to_numpy_ndarray(), array.transpose(0, 2, 1))
    assert column.type.permutation is None


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_axis_order_of_foreign_columns(axes: tuple[int, ...]) -> None:
    """Stored (rows, *shape); the logical axis i is the stored axis permutation[i] (Arrow's canonical extensions)."""
    stored = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    type_ = pa.fixed_shape_tensor(pa.int64(), [3, 4, 5], dim_names=["a", "b", "c"], permutation=list(axes))
    column = pa.ExtensionArray.from_storage(type_, pa.FixedSizeListArray.from_arrays(stored.ravel(), 60))
    wanted = stored.transpose(0, *(axis + 1 for axis in axes))
    assert np.array_equal(tensor_array(column), wanted)
    assert np.array_equal(tensor_array(through_ipc(pa.record_batch([column], ["x"])).column(0)), wanted)


def test_field() -> None:
    field = tensor_field("x", (3, 4), "float32")
    assert field == pa.field("x", pa.fixed_shape_tensor(pa.float32(), [3, 4]), nullable=False)
    assert field.metadata is None
    assert tensor_field("x", [2], "complex64").type == pa.fixed_shape_tensor(pa.float32(), [2, 2])
    assert tensor_field("x", (), bool).metadata == {b"penstock.dtype": b"b1"}
    assert tensor_field("x", (), "<M8[ns]").metadata == {b"penstock.dtype": b"M8[ns]"}
    assert tensor_field("x", (), ">f8") == tensor_field("x", (), "<f8")
    assert tensor_field("x", (np.int64(3),), float).type.shape == [3]


@pytest.mark.parametrize("shape", [(-1,), (1.5,), "ab", ("a",), 3, (None,), (2**20, 2**20)])
def test_refused_shapes(shape: Any) -> None:
    with pytest.raises(UsageError, match=r"expected a shape of ints .* - in tensor_field\('x'\); "):
        tensor_field("x", shape, float)


def test_refused_dtype_name() -> None:
    with pytest.raises(UsageError, match=r"expected a numpy dtype, got 'what' - in tensor_field\('x'\)"):
        tensor_field("x", (), "what")


@pytest.mark.parametrize(
    "array, hint",
    [
        (np.zeros(2, [("a", int), ("b", float)]), "use one column per field"),
        (np.zeros(2, "V4"), "use one column per field"),
        (np.array(["a"]), "use a string column"),
        (np.array([b"a"]), "use a binary column"),
        (np.array([object()]), "convert it to numbers"),
        (np.zeros(2, np.longdouble), "convert it to float64"),
        (np.zeros(2, np.clongdouble), "convert it to complex128"),
        (np.zeros(2, "M8"), "convert it to a numeric dtype"),
        (np.array(1.0), r"use array.reshape\(\(1, \*array.shape\)\)"),
        (np.ma.masked_array([1, 2], [True, False]), "fill the masked values first"),
        ([1, 2], r"use np.asarray\(value\)"),
        (None, r"use np.asarray\(value\)"),
    ],
)
def test_refused_arrays(array: Any, hint: str) -> None:
    with pytest.raises(TypeMismatch, match=hint):
        tensor_column(array)
    if isinstance(array, np.ndarray) and array.ndim and not isinstance(array, np.ma.MaskedArray):
        with pytest.raises(TypeMismatch, match=f"for `x`, got dtype .*{hint}"):
            tensor_field("x", (), array.dtype)


def test_items_too_large_for_the_format() -> None:
    array = np.broadcast_to(np.zeros(1, np.int8), (1, 2**31))
    with pytest.raises(UsageError, match="expected a shape of ints of at least 0, with at most 2147483647 elements"):
        tensor_column(array)


def test_refused_columns() -> None:
    with pytest.raises(
        SchemaMismatch, match=r"expected a tensor for `x`, got int64; make the column with tensor_column"
    ):
        tensor_array(pa.array([1]), pa.field("x", pa.int64()))
    type_ = pa.fixed_shape_tensor(pa.int64(), [2])
    null = pa.ExtensionArray.from_storage(type_, pa.array([[1, 2], None], pa.list_(pa.int64(), 2)))
    with pytest.raises(
        TypeMismatch, match=r"expected an array for `column`, got null - at rows\[1\]\.column"
    ) as caught:
        tensor_array(null)
    assert caught.value.row == 1
    inner = pa.ExtensionArray.from_storage(type_, pa.array([[1, 2], [3, 4], [5, None]], pa.list_(pa.int64(), 2)))
    with pytest.raises(TypeMismatch) as caught:
        tensor_array(inner.slice(1))
    assert caught.value.row == 1
    assert tensor_array(inner.slice(0, 2)).tolist() == [[1, 2], [3, 4]]
    assert tensor_array(null.slice(0, 1)).tolist() == [[1, 2]]


@pytest.mark.parametrize("noted", [b"O", b"f8", b"c8", b"M8", b"what", b"b1", b"V8", b"\xff", b"U2", b"c16"])
def test_hostile_metadata(noted: bytes) -> None:
    """A field from elsewhere may note a dtype that its storage cannot be."""
    column = tensor_column(np.zeros((2, 3), np.int64))
    field = pa.field("x", column.type, metadata={b"penstock.dtype": noted})
    with pytest.raises(SchemaMismatch, match=r"expected metadata penstock\.dtype of `x` to be a dtype stored as"):
        tensor_array(column, field)
    doubles = tensor_column(np.zeros((2, 3)))
    with pytest.raises(SchemaMismatch):
        tensor_array(doubles, pa.field("x", doubles.type, metadata={b"penstock.dtype": b"c16"}))
