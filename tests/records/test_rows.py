from __future__ import annotations

import collections
import enum
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import RecordError, SchemaMismatch, TypeMismatch
from penstock.records import BARS, DOCUMENT, QUOTES, TRADES, batch_to_rows, rows_to_batch, tensor_field

NS = pa.timestamp("ns", "UTC")
TRADE = {"symbol": "AAPL", "ts_event": 1, "ts_recv": 2, "price": 1.5, "size": 100, "side": "B", "sequence": 7}
INF, NAN = float("inf"), float("nan")
NUMPY_TRUE = f"numpy {type(np.bool_(True)).__name__} {np.bool_(True)!r}"  # numpy 1 spells it otherwise
NAIVE = datetime(2026, 11, 20, 9, 30)  # noqa: DTZ001 - what columns without a zone hold
AWARE = NAIVE.replace(tzinfo=UTC)


def one(type_: pa.DataType, value: object, *, name: str = "x", nullable: bool = True) -> pa.Array:
    """The column of one row."""
    batch = rows_to_batch([{name: value}], pa.schema([pa.field(name, type_, nullable)]))
    batch.validate(full=True)
    return batch.column(0)


def back(type_: pa.DataType, value: object, **options: Any) -> object:
    """The value that comes back."""
    column = one(type_, value, **options)
    [row] = batch_to_rows(pa.record_batch([column], ["x"]))
    return row["x"]


# ---- the schemas ------------------------------------------------------------------------------------------------


def named(value: object) -> str:
    """A test id without addresses: two test processes must find the same names."""
    return str(value).split(" at 0x")[0][:40]


@pytest.mark.parametrize("schema", [TRADES, QUOTES, BARS])
def test_market_rows_come_back(schema: pa.Schema) -> None:
    examples: dict[str, list[Any]] = {
        "string": ["A", "é"],
        "int64": [1, -(2**63)],
        "int32": [0, 2**31 - 1],
        "double": [1.5, 1e-308],
    }
    rows = [
        {field.name: examples[str(field.type)][i % 2] if i < 3 or not field.nullable else None for field in schema}
        for i in range(5)
    ]
    batch = rows_to_batch(rows, schema)
    batch.validate(full=True)
    assert batch.schema.equals(schema, check_metadata=True)
    assert batch_to_rows(batch) == rows


def test_no_rows() -> None:
    for schema in (TRADES, DOCUMENT):
        batch = rows_to_batch([], schema)
        assert batch.num_rows == 0
        assert batch.schema == schema
        assert batch_to_rows(batch) == []


def test_batch_without_columns() -> None:
    batch = pa.RecordBatch.from_struct_array(pa.array([{}, {}], pa.struct([])))
    assert batch_to_rows(batch) == [{}, {}]


def test_missing_keys_are_null() -> None:
    rows = [{"symbol": "A", "ts_event": 1, "price": 1.0, "size": 1}, TRADE]
    assert batch_to_rows(rows_to_batch(rows, TRADES)) == [
        {**rows[0], "ts_recv": None, "side": None, "sequence": None},
        TRADE,
    ]


def test_documents() -> None:
    rows = [{"foo": "bar"}, {"document": {"$date": 1}, "n": float("inf")}]
    batch = rows_to_batch(rows, DOCUMENT)
    assert batch.schema.equals(DOCUMENT, check_metadata=True)
    assert batch_to_rows(batch) == rows
    assert batch_to_rows(pa.Table.from_batches([batch, batch])) == rows * 2
    with pytest.raises(TypeMismatch, match=r"at s\[11\] \$\.a; use sorted"):
        rows_to_batch([{"a": 1}, {"a": {1}}], DOCUMENT, where="s", first=10)


# ---- what is refused, word for word -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, expected, got, hint",
    [
        ({"price": "N/A"}, "float64", "string 'N/A'", "convert it with float(), or use None for a missing value"),
        ({"price": b"1"}, "float64", "bytes b'1'", "convert it with float()"),
        ({"price": True}, "float64", "bool True", "use 0.0 or 1.0, or a bool column"),
        ({"price": np.bool_(True)}, "float64", NUMPY_TRUE, "use 0.0 or 1.0, or a bool column"),
        ({"price": None}, "float64", "None", "leave such rows out, or open the stream with the column nullable"),
        (
            {"price": 2**53 + 1},
            "float64",
            "int 9007199254740993",
            "an int this large is not exact as a float; use an int64 column or float(value)",
        ),
        ({"price": Decimal("1.5")}, "float64", "Decimal Decimal('1.5')", "convert it with float()"),
        ({"price": [1.5]}, "float64", "list [1.5]", "convert it with float()"),
        ({"size": 1.5}, "int64", "float 1.5", "round it, or use a float64 column"),
        ({"size": 1e18}, "int64", "float 1e+18", "a float this large is not exact; give an int"),
        ({"size": float("nan")}, "int64", "float nan", "use None for a missing value"),
        ({"size": float("inf")}, "int64", "float inf", "round it, or use a float64 column"),
        ({"size": True}, "int64", "bool True", "use 0 or 1, or a bool column"),
        ({"size": "100"}, "int64", "string '100'", "convert it with int(), or use None for a missing value"),
        ({"size": Decimal(1)}, "int64", "Decimal Decimal('1')", "convert it with int()"),
        (
            {"size": 2**63},
            "int64 (-9223372036854775808 to 9223372036854775807)",
            "int 9223372036854775808",
            "use a wider integer column",
        ),
        ({"size": AWARE}, None, None, None),
        ({"ts_event": NAIVE}, None, None, None),
        ({"ts_event": "2026"}, None, None, None),
        ({"ts_event": None}, None, None, None),
        ({"symbol": None}, None, None, None),
        ({"symbol": 1}, "string", "int 1", "convert it with str()"),
        ({"symbol": b"A"}, "string", "bytes b'A'", "decode it with value.decode(), or use a binary column"),
        (
            {"symbol": "\ud800"},
            "text without lone surrogates",
            "string '\\ud800'",
            'decode bytes with errors="replace"',
        ),
        ({"side": 1}, "string", "int 1", "convert it with str()"),
    ],
)
def test_refused_value(change: dict[str, object], expected: str | None, got: str, hint: str) -> None:
    with pytest.raises(TypeMismatch) as caught:
        rows_to_batch([TRADE, {**TRADE, **change}, {**TRADE, **change}], TRADES, where="trades", first=2)
    [column] = change
    error = caught.value
    assert (error.column, error.row, error.path) == (column, 3, f"$.{column}")
    assert f"for `{column}`, got" in str(error)
    assert f" - at trades[3].{column}; " in str(error)
    if expected is not None:
        assert str(error) == f"expected {expected} for `{column}`, got {got} - at trades[3].{column}; {hint}"


def test_refused_keys() -> None:
    with pytest.raises(
        SchemaMismatch, match=r"got unknown column 'prize' - at trades\[1\]; did you mean 'price'\?"
    ) as caught:
        rows_to_batch([TRADE, {**TRADE, "prize": 1}], TRADES, where="trades")
    assert (caught.value.column, caught.value.row) == ("prize", 1)
    with pytest.raises(SchemaMismatch, match=r"got unknown column 'zzz' .*open the stream with the wider schema"):
        rows_to_batch([{**TRADE, "zzz": None}], TRADES)
    with pytest.raises(TypeMismatch, match=r"expected string keys, got key int 5 - at rows\[0\]; convert"):
        rows_to_batch([{**TRADE, 5: 1}], TRADES)
    with pytest.raises(
        TypeMismatch, match=r"expected float64 for `price`, got no such key - at rows\[0\]\.price; is 'prize' meant"
    ):
        rows_to_batch([{**{k: v for k, v in TRADE.items() if k != "price"}, "prize": 1.0}], TRADES)
    with pytest.raises(TypeMismatch, match=r"got no such key - at rows\[1\]\.size; give it in each row"):
        rows_to_batch([TRADE, {k: v for k, v in TRADE.items() if k != "size"}], TRADES)


def test_refused_unknown_key_next_to_a_missing_one() -> None:
    """The number of cells is right; the names are not."""
    schema = pa.schema([("a", pa.int64()), ("b", pa.int64())])
    with pytest.raises(SchemaMismatch, match="unknown column 'c'"):
        rows_to_batch([{"a": 1, "b": 2}, {"a": 1, "c": 2}], schema)


@pytest.mark.parametrize("row", [1, None, "a", [("a", 1)], object(), {1}])
def test_refused_rows(row: object) -> None:
    with pytest.raises(
        TypeMismatch, match=r"expected a dict for each row, got .* - at s\[6\]; give rows such as"
    ) as caught:
        rows_to_batch([TRADE, row], TRADES, where="s", first=5)  # type: ignore[list-item]
    assert caught.value.row == 6


def test_refused_empty_row() -> None:
    with pytest.raises(TypeMismatch, match=r"expected a row with at least one column, got \{\} - at s\[1\]"):
        rows_to_batch([TRADE, {}], TRADES, where="s")


def test_refused_schema_with_one_name_twice() -> None:
    with pytest.raises(SchemaMismatch, match="expected each column name once, got `a` more than once"):
        rows_to_batch([{"a": 1}], pa.schema([("a", pa.int64()), ("a", pa.int64())]))


def test_rows_that_answer_for_missing_keys_are_not_believed() -> None:
    row = collections.defaultdict(lambda: "made up", {"a": 1})
    schema = pa.schema([("a", pa.int64()), ("b", pa.string())])
    assert batch_to_rows(rows_to_batch([row], schema)) == [{"a": 1, "b": None}]
    assert dict(row) == {"a": 1}
    counter = collections.Counter(a=1)
    assert batch_to_rows(rows_to_batch([counter], pa.schema([("a", pa.int64()), ("b", pa.int64())]))) == [
        {"a": 1, "b": None}
    ]


# ---- each type: taken, and refused ------------------------------------------------------------------------------


class Side(enum.StrEnum):
    BUY = "buy"


class Level(enum.IntEnum):
    ONE = 1


EAST = timezone(timedelta(hours=2))
LAST_MS = datetime(1969, 12, 31, 23, 59, 59, 999000)  # noqa: DTZ001
TAKEN: list[tuple[pa.DataType, object, object]] = [
    (pa.int64(), np.int8(3), 3),
    (pa.int64(), np.uint64(3), 3),
    (pa.int64(), 2.0, 2),
    (pa.int64(), np.float32(2), 2),
    (pa.int64(), Level.ONE, 1),
    (pa.int8(), -128, -128),
    (pa.uint8(), 255, 255),
    (pa.uint64(), 2**64 - 1, 2**64 - 1),
    (pa.float64(), 1, 1.0),
    (pa.float64(), 2**53, 2.0**53),
    (pa.float64(), np.float32(0.5), 0.5),
    (pa.float64(), np.int64(3), 3.0),
    (pa.float64(), float("inf"), float("inf")),
    (pa.float32(), 0.1, float(np.float32(0.1))),
    (pa.float32(), float("-inf"), float("-inf")),
    (pa.float32(), 2**24, 2.0**24),
    (pa.float16(), 0.5, 0.5),
    (pa.float16(), np.float16(0.5), 0.5),
    (pa.string(), np.str_("x"), "x"),
    (pa.string(), Side.BUY, "buy"),
    (pa.large_string(), "x", "x"),
    (pa.string_view(), "x", "x"),
    (pa.binary(), bytearray(b"x"), b"x"),
    (pa.binary(), memoryview(b"x"), b"x"),
    (pa.large_binary(), b"x", b"x"),
    (pa.binary_view(), b"x", b"x"),
    (pa.binary(2), b"xy", b"xy"),
    (pa.bool_(), True, True),
    (pa.bool_(), np.bool_(False), False),
    (pa.timestamp("us", "UTC"), AWARE, AWARE),
    (pa.timestamp("us", "UTC"), AWARE.astimezone(EAST), AWARE),
    (pa.timestamp("s", "Europe/Paris"), AWARE, AWARE),
    (pa.timestamp("us", "UTC"), np.datetime64("2026-11-20T09:30", "m"), AWARE),
    (NS, np.datetime64(1, "ns"), np.datetime64(1, "ns")),
    (NS, AWARE, np.datetime64("2026-11-20T09:30", "ns")),
    (NS, np.datetime64("2026-11", "M"), np.datetime64("2026-11-01", "ns")),
    (NS, np.datetime64("1969", "Y"), np.datetime64("1969-01-01", "ns")),
    (NS, np.datetime64(3, "25s"), np.datetime64(75, "s").astype("M8[ns]")),
    (pa.duration("s"), np.timedelta64(-3, "W"), timedelta(weeks=-3)),
    (pa.timestamp("us"), NAIVE, NAIVE),
    (pa.timestamp("ms"), np.datetime64("1969-12-31T23:59:59.999"), LAST_MS),
    (pa.date32(), date(2026, 11, 20), date(2026, 11, 20)),
    (pa.date64(), date(2026, 11, 20), date(2026, 11, 20)),
    (pa.date32(), np.datetime64("2026-11-20"), date(2026, 11, 20)),
    (pa.time32("s"), time(9, 30), time(9, 30)),
    (pa.time64("us"), time(9, 30, 0, 1), time(9, 30, 0, 1)),
    (pa.time64("ns"), time(0, 0, 0, 1), np.timedelta64(1000, "ns")),
    (pa.time64("ns"), np.timedelta64(1, "ns"), np.timedelta64(1, "ns")),
    (pa.duration("us"), timedelta(-1, 0, 1), timedelta(-1, 0, 1)),
    (pa.duration("ns"), timedelta(microseconds=1), np.timedelta64(1000, "ns")),
    (pa.duration("s"), np.timedelta64(1, "D"), timedelta(1)),
    (pa.decimal128(5, 2), Decimal("1.5"), Decimal("1.50")),
    (pa.decimal128(5, 2), Decimal("1.5000"), Decimal("1.50")),
    (pa.decimal128(5, 2), Decimal("-999.99"), Decimal("-999.99")),
    (pa.decimal128(5, 2), 7, Decimal("7.00")),
    (pa.decimal256(70, 0), 10**60, Decimal(10**60)),
    (pa.decimal128(5, 2), Decimal("0E+40"), Decimal("0.00")),
    (pa.dictionary(pa.int32(), pa.string()), "x", "x"),
    (pa.dictionary(pa.int8(), pa.int64()), 5, 5),
    (pa.dictionary(pa.int8(), pa.string_view()), "x", "x"),
    (pa.list_(pa.int64()), (1, 2.0, None), [1, 2, None]),
    (pa.list_(pa.float32()), np.array([0.5, 1], np.float32), [0.5, 1.0]),
    (pa.list_(pa.timestamp("us", "UTC")), np.array(["2026-11-20T09:30"], "M8[m]"), [AWARE]),
    (pa.list_(NS), [np.datetime64(1, "ns"), None], [np.datetime64(1, "ns"), None]),
    (pa.large_list(pa.string()), ["a", None], ["a", None]),
    (pa.list_view(pa.int8()), [1], [1]),
    (pa.large_list_view(pa.int8()), [1], [1]),
    (pa.list_(pa.int64(), 2), [1, 2], [1, 2]),
    (pa.list_(pa.list_(pa.int64())), [[1], [], None], [[1], [], None]),
    (pa.struct({"a": pa.int64(), "b": pa.string()}), {"b": "x"}, {"a": None, "b": "x"}),
    (pa.struct({"a": NS}), {"a": AWARE}, {"a": np.datetime64("2026-11-20T09:30", "ns")}),
    (pa.map_(pa.string(), pa.int64()), {"a": 1}, [("a", 1)]),
    (pa.map_(pa.string(), pa.int64()), [("a", None)], [("a", None)]),
    (pa.map_(pa.string(), NS), {"a": np.datetime64(1, "ns")}, [("a", np.datetime64(1, "ns"))]),
    (pa.struct([]), {}, {}),
]  # fmt: skip


if hasattr(pa, "uuid"):  # pyarrow 18
    TAKEN.append((pa.uuid(), UUID(int=5), UUID(int=5)))


@pytest.mark.parametrize("type_, value, expected", TAKEN, ids=named)
def test_taken(type_: pa.DataType, value: object, expected: object) -> None:
    found = back(type_, value)
    assert found == expected
    assert type(found) is type(expected)
    if isinstance(expected, datetime):
        assert (found.tzinfo is None) == (expected.tzinfo is None)  # type: ignore[attr-defined]
    assert back(type_, None) is None
    # And the same value from its own way back.
    assert back(type_, found) == expected


@pytest.mark.parametrize("type_", {str(type_): type_ for type_, _, _ in TAKEN}.values(), ids=str)
def test_none_where_none_may_be(type_: pa.DataType) -> None:
    with pytest.raises(TypeMismatch, match=r"for `x`, got None - at rows\[0\]\.x; leave such rows out"):
        one(type_, None, nullable=False)


REFUSED: list[tuple[pa.DataType, object, str]] = [
    (pa.int8(), 128, r"expected int8 \(-128 to 127\)"),
    (pa.uint8(), -1, r"expected uint8 \(0 to 255\)"),
    (pa.uint64(), 2**64, r"expected uint64 \(0 to"),
    (pa.int64(), np.timedelta64(1, "ns"), r"convert it with int\(\)"),
    (pa.int64(), np.array(3), "got numpy array of shape"),
    (pa.float64(), np.timedelta64(1, "ns"), r"convert it with float\(\)"),
    (pa.float64(), 1j, "got complex 1j"),
    (pa.float64(), 10**400, "an int this large"),
    (pa.float64(), np.longdouble("1e400"), r"convert it with float\(\)"),
    (pa.float32(), 1e39, r"expected float32 \(up to 3.4028e\+38\)"),
    (pa.float32(), 2**24 + 1, "an int this large"),
    (pa.float16(), 1e5, r"expected float16 \(up to 65504\)"),
    (pa.string(), None if False else 1.5, r"convert it with str\(\)"),
    (pa.string(), date(2026, 1, 1), r"convert it with str\(\)"),
    (pa.binary(), "x", "encode it"),
    (pa.binary(), 1, "convert it to bytes"),
    (pa.binary(2), b"x", "expected 2 bytes for `x`, got 1 bytes"),
    (pa.bool_(), 1, "use True or False"),
    (pa.bool_(), "yes", "use True or False"),
    (NS, NAIVE, "give it its zone"),
    (NS, 5, "give an aware datetime"),
    (NS, "2026-01-01", "give an aware datetime"),
    (NS, date(2026, 1, 1), "give an aware datetime"),
    (NS, datetime(3000, 1, 1, tzinfo=UTC), "expected a time the column's unit can hold"),
    (NS, np.datetime64("3000-01-01"), "expected a time the column's unit can hold"),
    (NS, np.datetime64(1, "ps"), "use unit ns or coarser"),
    (NS, np.datetime64(2**60, "D"), "expected a time the column's unit can hold"),
    (NS, np.datetime64(2**62, "m"), "expected a time the column's unit can hold"),
    (NS, np.datetime64(2**62, "Y"), "expected a time the column's unit can hold"),
    (pa.duration("s"), np.timedelta64(2**62, "W"), "expected a time the column's unit can hold"),
    (pa.duration("s"), np.timedelta64(1, "M"), "use a unit from weeks to ns"),
    (pa.timestamp("us"), AWARE, "give the column its zone"),
    (pa.timestamp("s", "UTC"), AWARE.replace(microsecond=1), "expected whole s for `x`"),
    (pa.timestamp("us", "UTC"), np.datetime64(1, "ns"), "expected whole us for `x`"),
    (pa.date32(), AWARE, r"use value.date\(\)"),
    (pa.date32(), "2026-01-01", "give a datetime.date"),
    (pa.time64("us"), time(1, tzinfo=UTC), "drop the zone"),
    (pa.time64("us"), 5, "give a datetime.time"),
    (pa.time64("us"), np.timedelta64(25, "h"), "less than 24 h"),
    (pa.time32("s"), time(0, 0, 0, 1), "expected whole s"),
    (pa.duration("s"), timedelta(microseconds=1), "expected whole s"),
    (pa.duration("s"), 5, "give a datetime.timedelta"),
    (pa.duration("ns"), timedelta.max, "expected a time the column's unit can hold"),
    (pa.duration("ns"), np.timedelta64(1, "Y"), "use a unit from weeks to ns"),
    (pa.decimal128(5, 2), 1.5, r"use Decimal\(str\(value\)\)"),
    (pa.decimal128(5, 2), True, "give a Decimal or an int"),
    (pa.decimal128(5, 2), Decimal("1.005"), "round it"),
    (pa.decimal128(5, 2), Decimal("1000"), "round it"),
    (pa.decimal128(5, 2), Decimal("1E+999999"), "round it"),
    (pa.decimal128(5, 2), Decimal("NaN"), "use None"),
    (pa.null(), 1, "open the stream with a type for this column"),
    (pa.month_day_nano_interval(), 1, "append an Arrow batch"),
    (pa.run_end_encoded(pa.int32(), pa.int64()), 1, "append an Arrow batch"),
    (pa.dictionary(pa.int8(), pa.string()), 1, r"convert it with str\(\)"),
    (pa.list_(pa.int64()), "abc", "give a list"),
    (pa.list_(pa.int64()), {"a": 1}, "give a list"),
    (pa.list_(pa.int64()), {1}, "give a list"),
    (pa.list_(pa.int64()), 5, "give a list"),
    (pa.list_(pa.int64(), 2), [1], "expected 2 items for `x`, got 1"),
    (pa.struct({"a": pa.int64()}), [1], "give a dict"),
    (pa.map_(pa.string(), pa.int64()), [1], "give a dict, or a list"),
    (pa.map_(pa.string(), pa.int64()), 1, "give a dict, or a list"),
]  # fmt: skip


if hasattr(pa, "uuid"):
    REFUSED.append((pa.uuid(), "x", r"use uuid.UUID\(value\)"))


@pytest.mark.parametrize("type_, value, message", REFUSED, ids=named)
def test_refused(type_: pa.DataType, value: object, message: str) -> None:
    with pytest.raises(TypeMismatch, match=message) as caught:
        one(type_, value)
    assert caught.value.column == "x"
    assert caught.value.row == 0
    assert "`x`" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_places_inside_a_row() -> None:
    inner = pa.struct([pa.field("b", pa.int64(), nullable=False), ("c", pa.list_(pa.string()))])
    schema = pa.schema(
        [("a", pa.list_(inner)), ("m", pa.map_(pa.string(), pa.int8())), ("f", pa.list_(pa.float32(), 2))]
    )
    good = {"a": [{"b": 1, "c": ["x"]}, {"b": 2, "c": None}, None], "m": {"k": 1}, "f": [1.0, 2.0]}
    assert batch_to_rows(rows_to_batch([good], schema)) == [{**good, "m": [("k", 1)]}]

    def fails(change: dict[str, object]) -> TypeMismatch | SchemaMismatch:
        with pytest.raises((TypeMismatch, SchemaMismatch)) as caught:
            rows_to_batch([good, good, {**good, **change}], schema, where="s", first=4)
        assert caught.value.row == 6
        return caught.value

    error = fails({"a": [{"b": 1}, {"b": 1}, {"b": "x"}]})
    assert (error.column, error.path) == ("a", "$.a[2].b")
    assert str(error) == (
        "expected int64 for `b`, got string 'x' - at s[6] $.a[2].b; "
        "convert it with int(), or use None for a missing value"
    )
    assert fails({"a": [{"b": 1, "c": ["x", 5]}]}).path == "$.a[0].c[1]"
    assert fails({"a": [{"c": []}]}).path == "$.a[0].b"
    assert fails({"a": [{"b": None}]}).path == "$.a[0].b"
    assert fails({"a": [{"b": 1}, 5]}).path == "$.a[1]"
    assert "at s[6] $.a[0]; " in str(fails({"a": [{"b": 1, "d": 1}]}))
    assert fails({"m": {"k": 300}}).path == "$.m[0]"
    assert fails({"f": [1.0, "x"]}).path == "$.f[1]"


def test_nulls_of_a_parent_are_not_missing_members() -> None:
    required = pa.struct([pa.field("b", pa.int64(), nullable=False)])
    item = pa.field("item", pa.int64(), nullable=False)
    schema = pa.schema([("s", required), ("l", pa.list_(item)), ("f", pa.list_(item, 2))])
    rows = [{"s": None, "l": None, "f": None}, {"s": {"b": 1}, "l": [1], "f": [1, 2]}]
    batch = rows_to_batch(rows, schema)
    batch.validate(full=True)
    assert batch_to_rows(batch) == rows
    for row in ({"s": {"b": None}}, {"l": [None]}, {"f": [1, None]}, {"s": {}}):
        with pytest.raises(TypeMismatch):
            rows_to_batch([*rows, row], schema)


# ---- times ------------------------------------------------------------------------------------------------------


def test_event_times_as_datetimes() -> None:
    moment = datetime(2026, 11, 20, 9, 30, 0, 1, tzinfo=EAST)
    wanted = int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) * 1000
    for value in (moment, np.datetime64(wanted, "ns"), np.datetime64(wanted // 1000, "us"), wanted, np.int64(wanted)):
        assert back(pa.int64(), value, name="ts_event") == wanted
    assert back(pa.int64(), np.datetime64("2026-11-20"), name="ts_event") == 1795132800 * 10**9
    with pytest.raises(TypeMismatch, match="give it its zone, such as value"):
        one(pa.int64(), NAIVE, name="ts_event")
    with pytest.raises(TypeMismatch, match="64-bit counts"):
        one(pa.int64(), datetime(3000, 1, 1, tzinfo=UTC), name="ts_event")
    with pytest.raises(TypeMismatch, match=r"an int64 column named ts_…"):
        one(pa.int64(), moment, name="when")


def test_pandas_scalars() -> None:
    pd = pytest.importorskip("pandas")
    stamp = pd.Timestamp("2026-11-20T09:30:00.000000001", tz="UTC")
    assert back(pa.int64(), stamp, name="ts_event") == stamp.value
    assert back(NS, stamp) == np.datetime64(stamp.value, "ns")
    assert back(pa.timestamp("ns"), stamp.tz_localize(None)) == np.datetime64(stamp.value, "ns")
    with pytest.raises(TypeMismatch, match="expected whole us"):
        one(pa.timestamp("us", "UTC"), stamp)
    assert back(pa.duration("ns"), pd.Timedelta(1, unit="ns")) == np.timedelta64(1, "ns")
    for type_ in (pa.int64(), pa.float64(), pa.string(), NS):
        for missing in (pd.NA, pd.NaT):
            assert back(type_, missing) is None
            with pytest.raises(TypeMismatch, match="got None"):
                one(type_, missing, nullable=False)


def test_numpy_nat_is_missing() -> None:
    assert back(NS, np.datetime64("NaT", "ns")) is None
    assert back(pa.int64(), np.datetime64("NaT", "ns"), name="ts_event") is None
    assert back(pa.duration("us"), np.timedelta64("NaT", "ns")) is None


def test_years_beyond_datetime_come_as_numpy() -> None:
    column = pa.array([10**12, None], pa.timestamp("s", "UTC"))
    assert batch_to_rows(pa.record_batch([column], ["x"])) == [{"x": np.datetime64(10**12, "s")}, {"x": None}]


def test_naming_no_times_keeps_nan() -> None:
    assert np.isnan(back(pa.float64(), float("nan")))  # type: ignore[call-overload]
    assert np.isnan(back(pa.float32(), np.float64("nan")))  # type: ignore[call-overload]


# ---- dictionaries, tensors, other batches -----------------------------------------------------------------------


def test_dictionary_too_short() -> None:
    schema = pa.schema([("x", pa.dictionary(pa.int8(), pa.string()))])
    rows = [{"x": str(i)} for i in range(200)]
    with pytest.raises(TypeMismatch, match=r"got 200 distinct values - at s\.x; open the stream with a longer index"):
        rows_to_batch(rows, schema, where="s")
    assert batch_to_rows(rows_to_batch(rows[:128], schema)) == rows[:128]


def test_tensor_rows() -> None:
    schema = pa.schema(
        [tensor_field("x", (2, 2), "float32"), tensor_field("b", (), bool), tensor_field("c", (2,), complex)]
    )
    row = {"x": [[1, 2.5], [3, 4]], "b": True, "c": np.array([1j, 2])}
    batch = rows_to_batch([row, {**row, "x": np.ones((2, 2), np.float32)}], schema)
    batch.validate(full=True)
    first, second = batch_to_rows(batch)
    assert first["x"].dtype == np.float32
    assert first["x"].tolist() == [[1.0, 2.5], [3.0, 4.0]]
    assert second["x"].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert bool(first["b"]) is True
    assert first["c"].tolist() == [1j, 2]
    again = rows_to_batch([first, second], schema)
    assert again.equals(batch)


@pytest.mark.parametrize(
    "value, message",
    [
        ([1.0, 2.0, 3.0], r"got shape \(3,\) - at s\[1\]\.x; reshape it"),
        ([[1.0], [2.0, 3.0]], "got lists of unequal length"),
        (np.ones(2), "got dtype float64"),
        (np.ones(2, bool), "got dtype bool"),
        ([True, False], "got dtype bool"),
        ([2**24 + 1, 0], "got dtype int64"),
        (["a", "b"], "got dtype <U1"),
        ([1j, 0], "got dtype complex128"),
        (None, "got None"),
        (object(), "got object"),
        ([1e300, 0], "got dtype float64"),
        ([10**30, 0], "expected an array of shape"),
        (np.array([1, 2], np.int64), "got dtype int64"),
        (np.array([1, 2], "m8[ns]"), "got dtype timedelta64"),
    ],
)
def test_refused_tensor_rows(value: object, message: str) -> None:
    schema = pa.schema([tensor_field("x", (2,), "float32")])
    with pytest.raises(TypeMismatch, match=message) as caught:
        rows_to_batch([{"x": [0, 0]}, {"x": value}], schema, where="s")
    assert (caught.value.column, caught.value.row) == ("x", 1)


@pytest.mark.parametrize(
    "dtype, taken, refused",
    [
        ("float64", [np.array([2**53, 0]), [1, 2.5], [INF, NAN]], [np.array([2**53 + 1, 0]), [2**53 + 1, 0]]),
        ("int64", [[1.0, 2], np.array([1, 2], np.uint8)], [[1.5, 2], [NAN, 1], np.array([1.0, 2.0])]),
        ("uint8", [[255, 0]], [[256, 0], [-1, 0], np.array([1, 2])]),
        ("bool", [[True, False], np.array([True, False])], [[1, 0], np.array([1, 0])]),
        ("complex64", [[1j, 2], [0.5, 1]], [[1e300, 0], [2**24 + 1, 0], np.array([1j, 0])]),
        ("M8[ns]", [np.array(["2026-01-01", "NaT"], "M8[s]")], [np.full(2, "3000-01-01", "M8[s]"), [1, 2], ["x"] * 2]),
        ("m8[s]", [np.array([1, 2], "m8[h]")], [np.array([1, 2], "m8[ms]"), [1, 2], np.array([1, 2])]),
    ],
)  # fmt: skip
def test_tensor_values_are_exact(dtype: str, taken: list[Any], refused: list[Any]) -> None:
    field = tensor_field("x", (2,), dtype)
    for value in taken:
        [row] = batch_to_rows(rows_to_batch([{"x": value}], pa.schema([field])))
        assert row["x"].dtype == np.dtype(dtype)
        assert str(row["x"].tolist()) == str(np.asarray(value).astype(dtype).tolist())
    for value in refused:
        with pytest.raises(TypeMismatch, match="got dtype"):
            rows_to_batch([{"x": value}], pa.schema([field]))


def test_tensors_inside() -> None:
    """Arrow data may hold tensors in structs; a struct that is null has none."""
    member = tensor_field("t", (2,), np.int8)
    schema = pa.schema([("s", pa.struct([member]))])
    batch = rows_to_batch([{"s": {"t": [1, 2]}}, {"s": None}], schema)
    batch.validate(full=True)
    first, second = batch_to_rows(batch)
    assert first["s"]["t"].tolist() == [1, 2]
    assert second == {"s": None}


def test_rows_of_slices_and_tables() -> None:
    types = [
        pa.list_(NS),
        pa.list_(NS, 1),
        pa.struct({"a": NS}),
        pa.map_(pa.string(), NS),
        pa.list_view(NS),
        pa.large_list(NS),
        pa.large_list_view(NS),
        pa.dictionary(pa.int8(), NS),
        NS,
        pa.duration("ns"),
    ]
    moment = np.datetime64(7, "ns")
    samples = [
        [moment],
        [moment],
        {"a": moment},
        [("k", moment)],
        [moment],
        [moment],
        [moment],
        moment,
        moment,
        np.timedelta64(7, "ns"),
    ]
    for type_, sample in zip(types, samples, strict=True):
        rows = [{"x": sample}, {"x": None}, {"x": sample}, {"x": sample}]
        batch = rows_to_batch(rows, pa.schema([("x", type_)]))
        assert batch_to_rows(batch) == rows, type_
        assert batch_to_rows(batch.slice(1, 2)) == rows[1:3], type_
        assert batch_to_rows(pa.Table.from_batches([batch, batch.slice(2)])) == rows + rows[2:], type_


def test_rows_of_other_columns() -> None:
    runs = pc.run_end_encode(pa.array([1, 1, None]))
    assert batch_to_rows(pa.record_batch([runs], ["r"])) == [{"r": 1}, {"r": 1}, {"r": None}]
    union = pa.UnionArray.from_sparse(pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array(["a", "b", "c"])])
    assert batch_to_rows(pa.record_batch([union], ["u"])) == [{"u": 1}, {"u": "b"}, {"u": 3}]


@pytest.mark.skipif(not hasattr(pa, "json_"), reason="pyarrow 19 has the JSON extension")
def test_rows_of_extensions() -> None:
    json = pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}", None, "1"]))
    assert batch_to_rows(pa.record_batch([json], ["j"])) == [{"j": "{}"}, {"j": None}, {"j": "1"}]
    assert batch_to_rows(rows_to_batch([{"j": "{}"}], pa.schema([("j", pa.json_())]))) == [{"j": "{}"}]


# ---- any cut gives the same -------------------------------------------------------------------------------------

ANY = pa.schema(
    [
        ("i", pa.int64()),
        ("f", pa.float64()),
        ("s", pa.string()),
        ("b", pa.binary()),
        ("t", NS),
        ("d", pa.dictionary(pa.int32(), pa.string())),
        ("l", pa.list_(pa.struct({"a": pa.int16(), "b": pa.list_(pa.bool_())}))),
    ]
)
small = st.none() | st.fixed_dictionaries(
    {
        "a": st.none() | st.integers(-(2**15), 2**15 - 1),
        "b": st.none() | st.lists(st.none() | st.booleans(), max_size=2),
    }
)
any_rows = st.lists(
    st.fixed_dictionaries(
        {"i": st.none() | st.integers(-(2**63), 2**63 - 1)},
        optional={
            "f": st.none() | st.floats(allow_nan=False) | st.integers(-(2**53), 2**53),
            "s": st.none() | st.text(max_size=5),
            "b": st.none() | st.binary(max_size=5),
            "t": st.none() | st.integers(-(2**62), 2**62).map(lambda ns: np.datetime64(ns, "ns")),
            "d": st.none() | st.sampled_from(["a", "b", "c"]),
            "l": st.none() | st.lists(small, max_size=3),
        },
    ),
    max_size=8,
)


@settings(max_examples=200, deadline=None)
@given(any_rows, st.integers(0, 8))
def test_any_cut_gives_the_same(rows: list[dict[str, Any]], cut: int) -> None:
    whole = rows_to_batch(rows, ANY)
    whole.validate(full=True)
    full = [{name: row.get(name) for name in ANY.names} for row in rows]
    assert batch_to_rows(whole) == full
    parts = [rows_to_batch(rows[:cut], ANY), rows_to_batch(rows[cut:], ANY, first=cut)]
    assert [row for part in parts for row in batch_to_rows(part)] == full
    assert [row for part in (whole.slice(0, cut), whole.slice(cut)) for row in batch_to_rows(part)] == full
    assert rows_to_batch(batch_to_rows(whole), ANY).equals(whole)
    # A dictionary may differ from cut to cut; the other columns are the same to the bit.
    for name in set(ANY.names) - {"d"}:
        assert parts[1].column(name).equals(whole.slice(cut).column(name))


hostile = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=3)
    | st.datetimes()
    | st.dates()
    | st.decimals()
    | st.just(np.ones(2))
    | st.just(object()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(ANY.names) | st.text(max_size=2), hostile, max_size=3) | hostile, max_size=3
    )
)
def test_only_record_errors_leave(rows: list[Any]) -> None:
    for schema in (ANY, DOCUMENT):
        try:
            batch = rows_to_batch(rows, schema, where="s")
        except RecordError:
            continue
        else:
            batch.validate(full=True)
            assert batch.num_rows == len(rows)


def test_too_much_text_for_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyarrow answers with chunks over 2 GiB; made small here by asking for a type that does the same."""
    chunks = pa.chunked_array([["a"], ["b"]])
    monkeypatch.setattr("penstock.records.columns.pa.array", lambda *_: chunks)
    with pytest.raises(
        RecordError, match="expected at most 2 GiB of text for `symbol` in one batch, got more"
    ) as caught:
        rows_to_batch([TRADE], TRADES)
    assert caught.value.limit == 2**31

    def refuse(*_: object) -> None:
        raise pa.ArrowCapacityError("array cannot contain more than 2147483646 bytes")

    monkeypatch.setattr("penstock.records.columns.pa.array", refuse)
    with pytest.raises(RecordError, match="expected at most 2 GiB of text for `symbol`"):
        rows_to_batch([TRADE], TRADES)


def test_zones_nobody_knows_come_as_numpy_in_utc() -> None:
    column = pa.array([5, None], pa.timestamp("us", "Mars/Olympus"))
    assert batch_to_rows(pa.record_batch([column], ["x"])) == [{"x": np.datetime64(5, "us")}, {"x": None}]


def test_utc_needs_no_zone_database() -> None:
    [row] = batch_to_rows(pa.record_batch([pa.array([5], pa.timestamp("us", "UTC"))], ["x"]))
    assert row["x"].tzinfo is UTC
    nested = pa.array([[5, None]], pa.list_(pa.timestamp("us", "UTC")))
    [row] = batch_to_rows(pa.record_batch([nested], ["x"]))
    assert row["x"][0].tzinfo is UTC
