from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import SchemaMismatch
from penstock.records import DOCUMENT, TRADES, conform, tensor_field, widen


def widened(old: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    try:
        return widen(pa.schema([("x", old)]), pa.schema([("x", new)])).field("x").type
    except SchemaMismatch:
        return None


U = pa.timestamp("us", "UTC")
N = pa.timestamp("ns", "UTC")
D8 = pa.dictionary(pa.int8(), pa.string())
D32 = pa.dictionary(pa.int32(), pa.string())
T2 = pa.fixed_shape_tensor(pa.int8(), [2])
T3 = pa.fixed_shape_tensor(pa.int8(), [3])
I8, I16 = pa.int8(), pa.int16()
NO = None


@pytest.mark.parametrize(
    "old, new, result",
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.int64(), pa.int32(), pa.int64()),
        (pa.uint8(), pa.int16(), pa.int16()),
        (pa.int16(), pa.uint8(), pa.int16()),
        (pa.uint8(), pa.int8(), NO),
        (pa.int8(), pa.uint64(), NO),
        (pa.uint64(), pa.int64(), NO),
        (pa.int32(), pa.float64(), pa.float64()),
        (pa.int64(), pa.float64(), NO),
        (pa.float64(), pa.int64(), NO),
        (pa.float64(), pa.uint32(), pa.float64()),
        (pa.int16(), pa.float32(), pa.float32()),
        (pa.int32(), pa.float32(), NO),
        (pa.int8(), pa.float16(), pa.float16()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.bool_(), pa.int8(), NO),
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.large_string(), pa.string(), pa.large_string()),
        (pa.string(), pa.string_view(), pa.string()),
        (pa.string_view(), pa.string(), pa.string_view()),
        (pa.string(), pa.binary(), NO),
        (pa.binary(), pa.large_binary(), pa.large_binary()),
        (pa.binary(4), pa.binary(), pa.binary()),
        (pa.binary(), pa.binary(4), pa.binary()),
        (pa.binary(4), pa.binary(5), NO),
        (D8, D32, D32),
        (D32, D8, D32),
        (D8, pa.string(), D32),
        (pa.string(), D8, pa.string()),
        (D8, pa.dictionary(pa.int8(), pa.large_string()), pa.dictionary(pa.int8(), pa.large_string())),
        (D8, pa.int64(), NO),
        (pa.int32(), pa.dictionary(pa.int8(), pa.int64()), pa.int64()),
        (pa.null(), pa.string(), pa.string()),
        (pa.string(), pa.null(), pa.string()),
        (pa.null(), T2, T2),
        (U, N, N),
        (N, U, N),
        (U, pa.timestamp("us"), NO),
        (U, pa.timestamp("us", "Europe/Paris"), NO),
        (pa.date32(), pa.date64(), pa.date64()),
        (pa.date64(), pa.date32(), pa.date64()),
        (pa.date32(), U, NO),
        (pa.time32("s"), pa.time64("ns"), pa.time64("ns")),
        (pa.duration("ns"), pa.duration("s"), pa.duration("ns")),
        (pa.int64(), N, NO),
        (T2, T2, T2),
        (T2, T3, NO),
        (T2, pa.fixed_shape_tensor(pa.int16(), [2]), NO),
        (pa.list_(pa.int8()), pa.list_(pa.int64()), pa.list_(pa.int64())),
        (pa.list_(pa.int8()), pa.large_list(pa.int8()), pa.large_list(pa.int8())),
        (pa.large_list(pa.int8()), pa.list_(pa.int8()), pa.large_list(pa.int8())),
        (pa.list_(pa.int8()), pa.list_(pa.string()), NO),
        (pa.list_(pa.int8(), 2), pa.list_(pa.int16(), 2), pa.list_(pa.int16(), 2)),
        (pa.list_(pa.int8(), 2), pa.list_(pa.int8(), 3), NO),
        (pa.list_(pa.int8(), 2), pa.list_(pa.int16()), NO),
        (pa.struct({"a": I8}), pa.struct({"b": I8, "a": I16}), pa.struct({"a": I16, "b": I8})),
        (pa.struct({"a": I8, "b": I8}), pa.struct({"a": I8}), pa.struct({"a": I8, "b": I8})),
        (pa.struct({"a": pa.int8()}), pa.struct([pa.field("b", pa.int8(), nullable=False)]), NO),
        (pa.struct({"a": pa.int8()}), pa.struct({"a": pa.string()}), NO),
        (pa.decimal128(5, 2), pa.decimal128(6, 2), pa.decimal128(6, 2)),
        (pa.decimal128(6, 2), pa.decimal128(5, 2), pa.decimal128(6, 2)),
        (pa.decimal128(5, 2), pa.decimal128(6, 3), pa.decimal128(6, 3)),
        (pa.decimal128(5, 2), pa.decimal128(5, 3), NO),
        (pa.decimal128(5, 2), pa.decimal256(40, 2), pa.decimal256(40, 2)),
        (pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), pa.int8())),
        (pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), pa.int16()), NO),
    ],
    ids=str,
)  # fmt: skip
def test_types(old: pa.DataType, new: pa.DataType, result: pa.DataType | None) -> None:
    assert widened(old, new) == result


def test_same_and_narrower_is_the_old_object() -> None:
    assert widen(TRADES, TRADES) is TRADES
    assert widen(TRADES, pa.schema(list(TRADES))) is TRADES
    assert widen(TRADES, pa.schema([TRADES.field("price"), TRADES.field("symbol")])) is TRADES
    assert widen(TRADES, pa.schema([("price", pa.float32(), False)])) is TRADES
    assert widen(TRADES, pa.schema([])) is TRADES
    assert widen(DOCUMENT, DOCUMENT) is DOCUMENT


def test_columns_and_nulls() -> None:
    old = pa.schema([pa.field("a", pa.int32(), nullable=False), ("b", pa.string())])
    new = pa.schema([("c", pa.bool_()), pa.field("b", pa.string(), nullable=False), ("a", pa.int64())])
    assert widen(old, new) == pa.schema([("a", pa.int64()), ("b", pa.string()), ("c", pa.bool_())])


def test_metadata() -> None:
    old = pa.schema([pa.field("a", pa.int8(), metadata={"unit": "m"})], metadata={"k": "old"})
    new = pa.schema([pa.field("a", pa.int8(), metadata={"unit": "ft", "note": "x"})], metadata={"k": "new", "l": "new"})
    wide = widen(old, new)
    assert wide.metadata == {b"k": b"old", b"l": b"new"}
    assert wide.field("a").metadata == {b"unit": b"m", b"note": b"x"}


def test_refused_says_column_types_and_stream() -> None:
    old, new = pa.schema([("a", pa.int8()), ("price", pa.float64())]), pa.schema([("price", pa.string())])
    with pytest.raises(SchemaMismatch) as caught:
        widen(old, new, stream="trades")
    assert str(caught.value) == (
        "expected float64 or a type it fits into, for column `price`, got string - in stream 'trades'; "
        "convert the column, or use another stream"
    )
    error = caught.value
    assert (error.column, error.old, error.new, error.stream) == ("price", pa.float64(), pa.string(), "trades")
    with pytest.raises(SchemaMismatch, match="got string; convert"):
        widen(old, new)


def test_refused_required_new_column() -> None:
    with pytest.raises(
        SchemaMismatch, match=r"expected new column `b` to be nullable, got int8 not null .*make the field nullable"
    ):
        widen(pa.schema([]), pa.schema([pa.field("b", pa.int8(), nullable=False)]), stream="s")


def test_refused_documents_against_columns() -> None:
    loose = pa.schema([("a", pa.int8())])
    with pytest.raises(SchemaMismatch, match=r"expected documents \(JSON\), got typed columns - in stream 's'"):
        widen(DOCUMENT, loose, stream="s")
    with pytest.raises(SchemaMismatch, match=r"expected typed columns, got documents \(JSON\)"):
        widen(loose, DOCUMENT)


def test_refused_names_twice() -> None:
    twice = pa.schema([("a", pa.int8()), ("a", pa.int8())])
    for pair in ((twice, TRADES), (TRADES, twice)):
        with pytest.raises(SchemaMismatch, match="`a` more than once"):
            widen(*pair)


def test_tensor_elements_must_mean_the_same() -> None:
    old = pa.schema([tensor_field("x", (2,), bool)])
    new = pa.schema([tensor_field("x", (2,), np.uint8)])
    with pytest.raises(SchemaMismatch, match=r"\(elements b1\) or a type it fits into, for column `x`, got"):
        widen(old, new)
    assert widen(old, old) is old
    assert widen(pa.schema([("x", pa.null())]), old).field("x").metadata == {b"penstock.dtype": b"b1"}


kinds = st.sampled_from(
    [I8, I16, pa.int64(), pa.uint8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.string(), pa.bool_(),
     pa.large_string(), pa.string_view(), D8, D32, pa.null(), U, N, pa.timestamp("s"), pa.date32(), pa.date64(),
     pa.list_(I8), pa.list_(pa.int32()), pa.struct({"a": I8}), pa.struct({"a": I16, "b": pa.string()}),
     pa.decimal128(5, 2), pa.decimal128(7, 3)]
)  # fmt: skip
schemas = st.dictionaries(st.sampled_from("abc"), st.tuples(kinds, st.booleans()), max_size=3).map(
    lambda columns: pa.schema(
        [pa.field(name, kind, null or kind == pa.null()) for name, (kind, null) in columns.items()]
    )
)


@settings(max_examples=400, deadline=None)
@given(schemas, schemas)
def test_what_it_promises(old: pa.Schema, new: pa.Schema) -> None:
    try:
        wide = widen(old, new)
    except SchemaMismatch:
        return
    assert wide.names[: len(old)] == old.names
    assert set(wide.names) == {*old.names, *new.names}
    # Widening is settled in one step, and either schema's rows fit the result.
    assert widen(wide, new) is wide
    assert widen(wide, old) is wide
    for schema in (old, new):
        batch = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
        if set(schema.names) >= {field.name for field in wide if not field.nullable}:
            assert conform(batch, wide).schema == wide
