"""What `conform` converts and what it refuses, type by type."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import TypeMismatch
from penstock.records import batch_to_rows, conform, tensor_array, tensor_column, tensor_field

U = pa.timestamp("us", "UTC")
N = pa.timestamp("ns", "UTC")
D8 = pa.dictionary(pa.int8(), pa.string())
D32 = pa.dictionary(pa.int32(), pa.string())
DAY = datetime(2026, 11, 20)  # noqa: DTZ001 - what columns without a zone hold
I8 = pa.int8()
REQUIRED = pa.field("b", pa.int8(), nullable=False)
STRUCT = pa.struct({"a": pa.string(), "b": I8})
nan, inf = float("nan"), float("inf")


def cast(column: pa.Array, target: pa.DataType, name: str = "x") -> pa.Array:
    batch = conform(pa.record_batch([column], [name]), pa.schema([(name, target)]), where="s", first=10)
    batch.validate(full=True)
    assert batch.schema == pa.schema([(name, target)])
    return batch.column(0)


EXACT: list[tuple[pa.DataType, list[Any], pa.DataType]] = [
    (pa.int32(), [1, None, -(2**31)], pa.int64()),
    (pa.int64(), [1, None, -128, 127], pa.int8()),
    (pa.uint64(), [2**63 - 1], pa.int64()),
    (pa.int64(), [0, 2**53, -(2**53), None], pa.float64()),
    (pa.int64(), [2**24], pa.float32()),
    (pa.int32(), [7, None], pa.decimal128(12, 2)),
    (pa.float64(), [1.0, None, -(2.0**53)], pa.int64()),
    (pa.float32(), [1.5, nan, inf, None], pa.float64()),
    (pa.float64(), [1.5, nan, -inf, None, -0.0], pa.float32()),
    (pa.float64(), [0.5, 65504.0], pa.float16()),
    (pa.float16(), [np.float16(0.5), None], pa.float32()),
    (pa.string(), ["a", None, "é"], pa.large_string()),
    (pa.large_string(), ["a", None], pa.string_view()),
    (pa.string_view(), ["a", None, "longer than twelve bytes"], pa.string()),
    (pa.binary(), [b"ab", None], pa.large_binary()),
    (pa.binary_view(), [b"ab", None], pa.binary()),
    (pa.binary(2), [b"ab", None], pa.binary()),
    (pa.binary(), [b"ab", None], pa.binary(2)),
    (D8, ["a", None, "b", "a"], pa.string()),
    (D8, ["a", None], pa.string_view()),
    (D8, ["a", None, "b"], D32),
    (D32, ["a", "b"], D8),
    (pa.string(), ["a", None, "b", "a"], D8),
    (pa.string_view(), ["a", None, "b", "a"], D32),
    (pa.string(), ["a"], pa.dictionary(pa.int8(), pa.string_view())),
    (pa.int32(), [5, None], pa.dictionary(pa.int8(), pa.int64())),
    (pa.null(), [None, None], pa.string()),
    (pa.null(), [None, None], pa.struct({"a": pa.int8()})),
    (pa.null(), [None], D8),
    (pa.null(), [None], pa.string_view()),
    (pa.timestamp("s", "UTC"), [DAY, None], N),
    (N, [DAY, None], pa.timestamp("s", "UTC")),
    (U, [DAY], pa.timestamp("us", "Europe/Paris")),
    (pa.timestamp("s"), [DAY], pa.timestamp("us")),
    (pa.date32(), [date(2026, 1, 1)], pa.date64()),
    (pa.date64(), [date(2026, 1, 1)], pa.date32()),
    (pa.time32("s"), [time(1)], pa.time64("us")),
    (pa.time64("us"), [time(1)], pa.time32("s")),
    (pa.duration("s"), [timedelta(1)], pa.duration("us")),
    (pa.decimal128(5, 2), [Decimal("1.50")], pa.decimal128(4, 1)),
    (pa.list_(pa.int8()), [[1, None], None, []], pa.list_(pa.int64())),
    (pa.list_(pa.float32()), [[1.5, None], None, []], pa.large_list(pa.float64())),
    (pa.list_(pa.int8(), 2), [[1, 2], None], pa.list_(pa.int16())),
    (pa.list_(pa.int8()), [[1, 2]], pa.list_(pa.int8(), 2)),
    (pa.list_view(pa.int8()), [[1, 2], None], pa.list_(pa.int8())),
    (pa.large_list(pa.int8()), [[1, 2], None, [], [3]], pa.list_view(pa.int64())),
    (pa.list_(pa.int8()), [[1, 2], None, [], [3]], pa.large_list_view(pa.int8())),
    (pa.list_(pa.int8()), [None, [1, 2], None, [3, 4]], pa.list_(pa.int16(), 2)),
    (pa.list_(pa.int8(), 2), [None, [1, 2], None, [3, 4]], pa.list_(pa.int16(), 2)),
    (pa.list_(pa.float64()), [[0.5, None], None], pa.list_(pa.float32())),
    (pa.list_(pa.string()), [["a", "b"], None, ["a"]], pa.list_(D8)),
    (pa.list_(pa.list_(pa.int8())), [[[1], None, []], None], pa.large_list(pa.large_list(pa.int64()))),
    (pa.list_(pa.int8()), [None, [1]], pa.list_(pa.field("item", pa.int16(), nullable=False))),
    (pa.binary(), [b"a", None, b"a"], pa.dictionary(pa.int8(), pa.binary_view())),
    (pa.struct({"a": pa.int8()}), [None, {"a": 1}], pa.struct([pa.field("a", pa.int16(), nullable=False)])),
    (pa.map_(pa.string(), pa.float64()), [[("a", 1.0), ("b", None)], None, []], pa.map_(pa.large_string(), pa.int64())),
    (pa.binary_view(), [b"a", None, b"a"], pa.dictionary(pa.int8(), pa.binary())),
    (pa.list_(pa.string_view()), [["a"], None], pa.list_(pa.string())),
    (pa.list_(D8), [["a", "b", "a"], None], pa.list_(pa.string())),
    (pa.struct({"a": pa.int8()}), [{"a": 1}, None], pa.struct({"a": pa.int64()})),
    (pa.struct({"a": pa.string_view(), "b": pa.int8()}), [{"a": "x", "b": None}], STRUCT),
    (pa.map_(pa.string(), pa.int8()), [[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
]  # fmt: skip


if hasattr(pa, "json_"):  # pyarrow 19
    EXACT += [
        (pa.null(), [None], pa.uuid()),
        (pa.uuid(), [b"\x00" * 16], pa.binary(16)),
        (pa.binary(16), [b"\x00" * 16], pa.uuid()),
        (pa.string(), ["{}"], pa.json_()),
        (pa.json_(), ["{}"], pa.string()),
    ]


def made(type_: pa.DataType, values: list[Any]) -> pa.Array:
    if isinstance(type_, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(type_, pa.array(values, type_.storage_type))
    return pa.array(values, type_)


def plain(column: pa.Array) -> list[Any]:
    """Values that compare: nan as text, times in UTC without zone, whole numbers as they are."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    rows = []
    for value in column.to_pylist():
        if isinstance(value, datetime):
            value = (value.astimezone(UTC) if value.tzinfo else value).replace(tzinfo=None)
        rows.append("nan" if value != value else value)
    return rows


@pytest.mark.parametrize("source, values, target", EXACT, ids=lambda value: str(value)[:40])
def test_exact(source: pa.DataType, values: list[Any], target: pa.DataType) -> None:
    column = made(source, values)
    assert plain(cast(column, target)) == ["nan" if value != value else value for value in values]
    # Any cut gives the same values.
    for cut in range(len(values) + 1):
        parts = [cast(column.slice(0, cut), target), cast(column.slice(cut), target)]
        assert [value for part in parts for value in plain(part)] == plain(column)


REFUSED: list[tuple[pa.DataType, list[Any], pa.DataType, int | None, str]] = [
    (pa.int64(), [1, 2, 300, 400], pa.int8(), 2, "expected int8 for `x`, got int64 int 300 - at s[12].x; convert the"),
    (pa.int64(), [0, -1], pa.uint8(), 1, ""),
    (pa.int64(), [0, None, 2**53 + 1], pa.float64(), 2, ""),
    (pa.float64(), [1.0, 1.5], pa.int64(), 1, "expected int64 for `x`, got float64 float 1.5 - at s[11].x; "),
    (pa.float64(), [nan], pa.int64(), 0, ""),
    (pa.float64(), [1.0, 1e17], pa.int64(), 1, "a float this large is not exact; give ints"),
    (pa.float64(), [inf], pa.int64(), 0, ""),
    (pa.float64(), [0.5, 0.1], pa.float32(), 1, "cast the column to float32 yourself if rounding is meant"),
    (pa.float64(), [1e300], pa.float32(), 0, ""),
    (pa.float64(), [1e5], pa.float16(), 0, ""),
    (pa.string(), ["1"], pa.int64(), None, "parse the column before it is appended"),
    (pa.string(), ["1"], pa.float64(), None, "expected float64 for `x`, got string - at s.x; parse the column"),
    (pa.string_view(), ["1"], pa.float64(), None, ""),
    (pa.string(), ["a"], pa.binary(), None, ""),
    (pa.binary(), [b"a"], pa.string(), None, ""),
    (pa.binary(), [b"ab", b"a"], pa.binary(2), 1, ""),
    (pa.bool_(), [True], pa.int64(), None, ""),
    (pa.int8(), [1], pa.bool_(), None, ""),
    (pa.int64(), [1], pa.string(), None, ""),
    (pa.int64(), [1], U, None, ""),
    (U, [DAY], pa.int64(), None, "name the column ts_… to store it as int64 nanoseconds"),
    (pa.timestamp("us"), [DAY], U, None, "give the column its zone, such as UTC"),
    (U, [DAY], pa.timestamp("us"), None, "drop the column's zone, or open the stream with one"),
    (U, [DAY, DAY.replace(microsecond=1)], pa.timestamp("s", "UTC"), 1, "round the column to the coarser unit first"),
    (pa.timestamp("s", "UTC"), [DAY, DAY.replace(year=3000)], N, 1, ""),
    (pa.date32(), [date(2026, 1, 1)], U, None, ""),
    (pa.time64("us"), [time(0), time(0, 0, 0, 1)], pa.time32("s"), 1, ""),
    (pa.duration("us"), [timedelta(0), timedelta(0, 0, 1)], pa.duration("s"), 1, ""),
    (pa.decimal128(5, 2), [Decimal("1.50"), Decimal("1.55")], pa.decimal128(4, 1), 1, ""),
    (pa.decimal128(5, 2), [Decimal("1")], pa.float64(), None, ""),
    (D32, [str(i) for i in range(200)], D8, None, "(200 distinct values) - at s.x; open the stream with a longer"),
    (pa.string(), [str(i) for i in range(200)], D8, None, "200 distinct values"),
    (D8, ["1"], pa.int64(), None, "parse the column"),
    (pa.string(), ["1"], pa.dictionary(pa.int8(), pa.int64()), None, "parse the column"),
    (pa.list_(pa.int64()), [[1], [1, 300]], pa.list_(pa.int8()), 1, ""),
    (pa.list_(pa.float64()), [[0.5], [0.5, 0.1]], pa.list_(pa.float32()), 1, "if rounding is meant"),
    (pa.list_(pa.float64()), [[1.0], [1.5]], pa.list_(pa.int64()), 1, ""),
    (pa.int64(), [2048, 2049], pa.float16(), 1, ""),
    (pa.list_(I8), [None, [1], [1, None]], pa.list_(REQUIRED), 2, "(null inside) - at s[12].x; drop such rows"),
    (pa.struct({"a": pa.int8()}), [None, {"a": None}], pa.struct([pa.field("a", pa.int16(), nullable=False)]), 1, ""),
    (pa.list_(pa.string()), [["1"]], pa.list_(pa.int8()), None, "parse the column"),
    (pa.list_(pa.int8()), [[1, 2], [1]], pa.list_(pa.int8(), 2), 1, ""),
    (pa.list_(pa.int8()), [[1]], pa.int8(), None, ""),
    (pa.struct({"a": pa.int8()}), [{"a": 1}], pa.struct({"b": pa.int8()}), None, ""),
    (pa.struct({"a": pa.int8(), "b": pa.int8()}), [{"a": 1}], pa.struct({"a": pa.int8()}), None, ""),
    (pa.struct({"a": pa.int8()}), [{"a": 1}], pa.struct([("a", I8), REQUIRED]), None, "give the member 'b'"),
    (pa.list_(I8), [[1]], pa.dictionary(I8, pa.list_(I8)), None, "open the stream with the plain type"),
    (pa.map_(pa.string(), pa.int8()), [[("a", 1)]], pa.map_(pa.int8(), pa.int8()), None, ""),
    (pa.int64(), [1], pa.fixed_shape_tensor(pa.int64(), [1]), None, "tensor_column()"),
    (pa.month_day_nano_interval(), [], pa.int64(), None, ""),
]  # fmt: skip


if hasattr(pa, "json_"):
    REFUSED.append((pa.json_(), ["1"], pa.uuid(), None, "convert the column"))


@pytest.mark.parametrize("source, values, target, row, message", REFUSED, ids=lambda value: str(value)[:40])
def test_refused(source: pa.DataType, values: list[Any], target: pa.DataType, row: int | None, message: str) -> None:
    with pytest.raises(TypeMismatch) as caught:
        cast(made(source, values), target)
    error = caught.value
    assert message in str(error)
    assert error.column == "x"
    assert error.row == (None if row is None else 10 + row)
    assert "for `x`, got " in str(error)
    assert len(str(error)) < 400


def test_event_times_become_nanoseconds() -> None:
    for unit, scale in (("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1)):
        column = pa.array([5, None, -5], pa.timestamp(unit, "America/New_York"))
        assert cast(column, pa.int64(), "ts_event").to_pylist() == [5 * scale, None, -5 * scale]
    with pytest.raises(
        TypeMismatch, match=r"expected int64 for `ts_event`, got timestamp\[us\] .*give the column its zone"
    ):
        cast(pa.array([5], pa.timestamp("us")), pa.int64(), "ts_event")
    with pytest.raises(TypeMismatch) as caught:
        cast(pa.array([5, 10**12], pa.timestamp("s", "UTC")), pa.int64(), "ts_event")
    assert caught.value.row == 11


def test_members_that_are_missing_are_null() -> None:
    column = pa.array([{"a": 1}, None], pa.struct({"a": I8}))
    found = cast(column, pa.struct({"b": pa.string(), "a": pa.int64()}))
    assert found.to_pylist() == [{"b": None, "a": 1}, None]


def test_dictionary_of_views() -> None:
    indices = pa.array([0, None, 0], pa.int8())
    for view, wanted in ((pa.binary_view(), pa.binary()), (pa.string_view(), pa.string())):
        value = b"a" if wanted == pa.binary() else "a"
        column = pa.DictionaryArray.from_arrays(indices, pa.array([value], view))
        assert cast(column, wanted).to_pylist() == [value, None, value]


def test_run_ends_are_decoded() -> None:
    column = pc.run_end_encode(pa.array([1, 1, None], pa.int32()))
    assert cast(column, pa.int64()).to_pylist() == [1, 1, None]


def test_nulls_that_hide() -> None:
    """In the values of a dictionary, in runs, in a null column: `null_count` of the column says 0 for the first two."""
    hidden = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), pa.array(["a", None]))
    runs = pc.run_end_encode(pa.array(["a", None, "a"]))
    plain = pa.array(["a", None, "a"])
    for column in (hidden, runs, plain):
        for schema in (
            pa.schema([pa.field("x", column.type, nullable=False)]),
            pa.schema([pa.field("x", pa.string(), nullable=False)]),
        ):
            with pytest.raises(TypeMismatch, match=r"got null - at s\[11\]\.x; drop such rows") as caught:
                conform(
                    pa.RecordBatch.from_arrays(
                        [column], schema=pa.schema([pa.field("x", column.type, schema.field(0).nullable)])
                    ),
                    schema,
                    where="s",
                    first=10,
                )
            assert caught.value.row == 11
    with pytest.raises(TypeMismatch, match=r"got null - at s\[10\]\.x"):
        conform(
            pa.record_batch([pa.nulls(2)], ["x"]),
            pa.schema([pa.field("x", pa.string(), nullable=False)]),
            where="s",
            first=10,
        )
    assert cast(hidden, pa.string()).to_pylist() == ["a", None, "a"]


def test_tensors() -> None:
    array = np.arange(12).reshape(2, 2, 3)
    field = tensor_field("x", (2, 3), np.int64)
    permuted = pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.int64(), [3, 2], dim_names=["a", "b"], permutation=[1, 0]),
        pa.FixedSizeListArray.from_arrays(np.ascontiguousarray(array.transpose(0, 2, 1)).ravel(), 6),
    )
    batch = conform(pa.record_batch([permuted], ["x"]), pa.schema([field]))
    assert np.array_equal(tensor_array(batch.column(0)), array)
    assert batch.schema.field(0).type.permutation is None
    for wrong in (
        tensor_column(array.astype(np.int32)),
        tensor_column(array.reshape(2, 6)),
        pa.array([None, None], field.type),
    ):
        with pytest.raises(TypeMismatch):
            conform(pa.record_batch([wrong], ["x"]), pa.schema([field]))


def test_tensor_elements_must_mean_the_same() -> None:
    field = tensor_field("x", (2,), bool)
    column = tensor_column(np.ones((1, 2), bool))
    with pytest.raises(TypeMismatch, match=r"make the column with tensor_field\(\) and tensor_column\(\)"):
        conform(pa.record_batch([column], ["x"]), pa.schema([field]))
    good = pa.RecordBatch.from_arrays([column], schema=pa.schema([field]))
    assert conform(good, pa.schema([field])) is good


numbers = st.sampled_from(
    [pa.int8(), pa.uint8(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64()]
)
edges = (
    st.integers(-(2**63), 2**64 - 1)
    | st.integers(-300, 300)
    | st.floats()
    | st.sampled_from([2**53, 2**53 + 1, 2**24 + 1, 0.1, 65504, 65520, nan, inf])
)


@settings(max_examples=500, deadline=None)
@given(numbers, numbers, st.lists(st.none() | edges, max_size=4))
def test_numbers_stay_what_they_were(source: pa.DataType, target: pa.DataType, values: list[Any]) -> None:
    try:
        with np.errstate(all="ignore"):
            column = pa.array(values, source, from_pandas=False)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return
    try:
        found = cast(column, target)
    except TypeMismatch:
        return
    for old, new in zip(column.to_pylist(), found.to_pylist(), strict=True):
        assert (old is None and new is None) or old == new or (old != old and new != new)


def test_first_bad_row_is_found_anywhere() -> None:
    for size in (1, 2, 3, 100, 1023):
        for row in {0, size // 3, size - 1}:
            values = np.zeros(size, np.int64)
            values[row:] = 300
            with pytest.raises(TypeMismatch) as caught:
                cast(pa.array(values), pa.int8())
            assert caught.value.row == 10 + row


def test_rows_and_columns_agree() -> None:
    """A value that rows refuse is refused from a column too, and the other way round."""
    for value in (1, 1.0, 1.5, 2**53 + 1, 300):
        column = pa.array([value])
        batch = conform(pa.record_batch([pa.array([1])], ["x"]), pa.schema([("x", pa.float64())]))
        assert batch_to_rows(batch) == [{"x": 1.0}]
        try:
            cast(column, pa.int8())
            fits = True
        except TypeMismatch:
            fits = False
        assert fits == (value in (1, 1.0))
