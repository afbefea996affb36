from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import RecordError, TypeMismatch
from penstock.log import Folder
from penstock.log.message import Codec, message_lengths
from penstock.log.template import RowTemplate
from penstock.records import BARS, DOCUMENT, QUOTES, TRADES, batch_to_rows, rows_to_batch

INTEGERS = {f"{sign}int{bits}": (sign, bits) for sign in ("", "u") for bits in (8, 16, 32, 64)}
TEXTS = ["", "a", "seven77", "eight888", "nine99999", "é" * 4, "🙂" * 2, "x" * 16, "y" * 63, "z" * 1000]
TYPES: dict[str, pa.DataType] = {
    **{name: getattr(pa, name)() for name in INTEGERS},
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "large_string": pa.large_string(),
}


def values_of(name: str) -> list[Any]:
    if name in INTEGERS:
        sign, bits = INTEGERS[name]
        low, high = (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return [0, 1, low, high]
    if name.startswith("float"):
        return [0.0, -0.0, 1.5, -1e30, math.inf, -math.inf, math.nan, 2.0**-149]
    return TEXTS


def template_of(schema: pa.Schema) -> RowTemplate:
    found = RowTemplate.of(schema, None)
    assert found is not None
    return found


def encoded(template: RowTemplate, row: dict[str, Any]) -> bytes:
    found = template.encode(row)
    assert found is not None, row
    return bytes(found[0])


def is_same(left: pa.RecordBatch, right: pa.RecordBatch) -> bool:
    """Equal values, NaN and the sign of zero included."""
    return left.schema.equals(right.schema, check_metadata=True) and all(
        repr(a.to_pylist()) == repr(b.to_pylist()) for a, b in zip(left.columns, right.columns, strict=True)
    )


def decoded(message: bytes, schema: pa.Schema) -> list[pa.RecordBatch]:
    """By pyarrow's readers of a message and of a stream, and by polars."""
    import polars as pl

    file = Codec(schema).prefix + message
    with pa.ipc.open_stream(pa.py_buffer(file)) as reader:
        whole = reader.read_all()
    found = [pa.ipc.read_record_batch(pa.py_buffer(message), schema), *whole.to_batches()]
    for batch in found:
        batch.validate(full=True)
    frame = pl.read_ipc_stream(file)
    found.append(frame.to_arrow().cast(schema).to_batches()[0].replace_schema_metadata(schema.metadata))
    return found


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("nullable", [False, True])
def test_every_type_is_read_by_everybody(name: str, nullable: bool) -> None:
    schema = pa.schema([pa.field("before", pa.int8()), pa.field("x", TYPES[name], nullable), ("after", pa.string())])
    template = template_of(schema)
    messages, rows = [], []
    for i, value in enumerate([*values_of(name), *([None] if nullable else [])]):
        row = {"before": None if i % 2 else i, "x": value, "after": "tail" * (i % 3) or None}
        message = encoded(template, row)
        expected = rows_to_batch([row], schema)
        for found in decoded(message, schema):
            assert is_same(found, expected), row
        assert len(message) % 8 == 0
        assert message_lengths(memoryview(message)) == [len(message)]
        messages.append(message)
        rows.append(row)
    assert_gathered(template, messages, rows_to_batch(rows, schema))


def assert_gathered(template: RowTemplate, messages: list[bytes], expected: pa.RecordBatch) -> None:
    region = pa.py_buffer(b"".join(messages))
    starts = np.cumsum([0, *map(len, messages[:-1])])
    found = template.gather(region, starts)
    found.validate(full=True)
    assert is_same(found, expected)
    some = starts[::2]  # not all of a region, as when others lie in between
    assert is_same(template.gather(region, some), expected.take(pa.array(np.arange(0, expected.num_rows, 2))))


@pytest.mark.parametrize("schema", [TRADES, QUOTES, BARS], ids=["trades", "quotes", "bars"])
def test_the_market_schemas_have_templates(schema: pa.Schema) -> None:
    full = {"int64": 7, "int32": -7, "double": 1.25, "string": "AAPL"}
    row = {field.name: full[str(field.type)] for field in schema}
    bare = {field.name: full[str(field.type)] for field in schema if not field.nullable}
    template = template_of(schema)
    messages = [encoded(template, row), encoded(template, bare)]
    for message, given_row in zip(messages, (row, bare), strict=True):
        for found in decoded(message, schema):
            assert is_same(found, rows_to_batch([given_row], schema))
    assert_gathered(template, messages, rows_to_batch([row, bare], schema))


def test_documents() -> None:
    rows: list[dict[str, Any]] = [{"a": 1}, {"text": "é" * 100, "deep": {"list": [1, None]}}, {"x" * 7: None}]
    template = template_of(DOCUMENT)
    messages = [encoded(template, row) for row in rows]
    for message, row in zip(messages, rows, strict=True):
        for found in decoded(message, DOCUMENT):
            assert batch_to_rows(found) == [row]
    assert_gathered(template, messages, rows_to_batch(rows, DOCUMENT))


columns = st.lists(st.tuples(st.sampled_from(sorted(TYPES)), st.booleans()), min_size=1, max_size=8)


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.Schema, list[dict[str, Any]]]:
    kinds = draw(columns)
    schema = pa.schema([pa.field(f"c{i}", TYPES[name], nullable) for i, (name, nullable) in enumerate(kinds)])

    def value(name: str) -> st.SearchStrategy[Any]:
        if name in INTEGERS:
            low, high = values_of(name)[2:]
            return st.integers(low, high)
        if name == "float32":
            return st.floats(width=32)
        return st.floats() if name == "float64" else st.text(max_size=20)

    row = st.fixed_dictionaries(
        {f"c{i}": st.none() | value(name) if nullable else value(name) for i, (name, nullable) in enumerate(kinds)}
    )
    return schema, draw(st.lists(row, min_size=1, max_size=12))


@given(tables())
def test_gathering_equals_decoding_each(table: tuple[pa.Schema, list[dict[str, Any]]]) -> None:
    schema, rows = table
    template = template_of(schema)
    messages = [encoded(template, row) for row in rows]
    for message, row in zip(messages, rows, strict=True):
        expected = rows_to_batch([row], schema)
        assert is_same(pa.ipc.read_record_batch(pa.py_buffer(message), schema), expected)
    assert_gathered(template, messages, rows_to_batch(rows, schema))


REFUSED: dict[str, tuple[str, Any, Any]] = {
    # column type, value, what the strict path makes of it (an exception's type or the value)
    "bool for int": ("int64", True, TypeMismatch),
    "whole float for int": ("int64", 2.0, 2),
    "broken float for int": ("int64", 2.5, TypeMismatch),
    "int for float": ("float64", 3, 3.0),
    "huge int for float": ("float64", 2**53 + 1, TypeMismatch),
    "text for int": ("int64", "1", TypeMismatch),
    "int for text": ("string", 1, TypeMismatch),
    "bytes for text": ("string", b"a", TypeMismatch),
    "out of range": ("int8", 128, TypeMismatch),
    "negative for unsigned": ("uint32", -1, TypeMismatch),
    "lone surrogate": ("string", "\ud800", RecordError),
    "numpy int": ("int32", np.int16(5), 5),
    "numpy float": ("float64", np.float64(0.5), 0.5),
    "list": ("int64", [1], TypeMismatch),
}


@pytest.mark.parametrize("what", REFUSED)
def test_other_values_go_the_strict_way(what: str, hub: Folder) -> None:
    kind, value, outcome = REFUSED[what]
    schema = pa.schema([pa.field("x", TYPES[kind], nullable=False)])
    assert template_of(schema).encode({"x": value}) is None
    stream = hub.stream("s", schema=schema)
    if isinstance(outcome, type):
        with pytest.raises(outcome):
            stream.append({"x": value})
        assert stream.next_offset == 0
    else:
        stream.append({"x": value})
        assert stream.rows() == [{"x": outcome}]


@pytest.mark.parametrize(
    "row, message",
    [
        ({}, r"expected a row with at least one column, got \{\}"),
        ({"n": None}, "expected int64 for `n`, got None"),
        ({"text": "only"}, "`n`"),
        ({"n": 1, "txet": "a"}, r"unknown .*txet"),
    ],
    ids=["empty", "null", "missing", "unknown"],
)
def test_rows_that_do_not_fit_say_so(row: dict[str, Any], message: str, hub: Folder, prices: pa.Schema) -> None:
    assert row == {} or template_of(prices).encode(row) is None
    with pytest.raises(RecordError, match=message):
        hub.stream("s", schema=prices).append(row)


def test_a_row_without_its_event_time_is_refused_on_both_paths(hub: Folder) -> None:
    schema = pa.schema([("ts_event", pa.int64()), ("x", pa.int64())])
    stream = hub.stream("s", schema=schema)
    for data in ({"ts_event": None, "x": 1}, {"x": 1}, [{"x": 1}]):
        with pytest.raises(TypeMismatch, match="expected a time for `ts_event`, got null"):
            stream.append(data)
    assert stream.next_offset == 0


def test_types_without_a_template_have_none() -> None:
    for kind in (pa.bool_(), pa.timestamp("ns"), pa.list_(pa.int64()), pa.binary(), pa.dictionary(pa.int8(), "string")):
        assert RowTemplate.of(pa.schema([("x", kind)]), None) is None
    assert RowTemplate.of(pa.schema([]), None) is None
