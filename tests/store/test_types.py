"""Columns of every type, through both tiers and into Delta; keys and times of every kind."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import deltalake
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import penstock as ps
import penstock.store
from penstock.errors import SchemaMismatch, TypeMismatch, UsageError
from penstock.store import Store
from penstock_tests.bars import NOON, bars, strict


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, None, 255], pa.uint8()),
        pa.array([1, None, 65535], pa.uint16()),
        pa.array([1, None, 2**32 - 1], pa.uint32()),
        pa.array([1, None, 2**64 - 1], pa.uint64()),
        pa.array([-128, None, 127], pa.int8()),
        pa.array([np.float16(1.5), None, np.float16(-0.0)], pa.float16()),
        pa.array([1.5, None, float("nan")], pa.float32()),
        pa.array([True, None, False]),
        pa.array(["x", None, ""], pa.large_string()),
        pa.array(["x", None, ""]).dictionary_encode(),
        pa.array([b"x", None, b"\x00"], pa.large_binary()),
        pa.array([b"xy", None, b"\x00\x00"], pa.binary(2)),
        pa.array([1, None, 10**18 + 1], pa.timestamp("ns")),
        pa.array([1, None, 10**18 + 1], pa.timestamp("ns", "Europe/Berlin")),
        pa.array([1, None, 2], pa.timestamp("us", "UTC")),
        pa.array([1, None, 2], pa.timestamp("us", "America/New_York")),
        pa.array([1, None, 2], pa.timestamp("s")),
        pa.array([1, None, 2], pa.date32()),
        pa.array([86_400_000, None, 0], pa.date64()),
        pa.array([1, None, 2], pa.time32("ms")),
        pa.array([1, None, 2], pa.time64("ns")),
        pa.array([1, None, 2], pa.duration("ns")),
        pa.array([Decimal("1.50"), None, Decimal(-2)], pa.decimal128(10, 2)),
        pa.array([[1.0, None], None, []], pa.list_(pa.float64())),
        pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float64(), 2)),
        pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": None}]),
        pa.nulls(3, pa.string()),
    ],
    ids=lambda values: str(values.type).replace(" ", ""),
)
def test_every_type_comes_back(values: pa.Array, store: Store) -> None:
    frame = bars().append_column("x", values)
    store.write("t", frame)
    for _ in range(2):
        found = store.read("t/AAPL")
        assert found.schema.equals(frame.schema)
        assert str(found["x"].to_pylist()) == str(frame["x"].to_pylist())
        store.flush()
    store.write("t", frame.set_column(2, "close", pa.array([7.0] * 3)))
    store.write("t", frame.set_column(2, "close", pa.array([7.0] * 3)))
    store.maintain(force=True)
    assert str(store.read("t/AAPL")["x"].to_pylist()) == str(frame["x"].to_pylist())
    assert deltalake.DeltaTable(str(store.path / "t")).to_pyarrow_table().num_rows == 6  # the third say nothing new


def test_keys_in_dictionaries_of_their_own(store: Store) -> None:
    for symbols in (["B", "A"], ["C", "B"], ["A", "D"]):
        frame = bars(rows=2).set_column(0, "symbol", pa.array(symbols).dictionary_encode())
        store.write("t", frame)
        for _ in range(2):
            assert store.read("t")["symbol"].to_pylist() == sorted(store.read("t")["symbol"].to_pylist())
            assert store.read("t/B")["symbol"].to_pylist()[0] == "B"
        if symbols[0] == "C":
            store.flush()
    assert store.read("t").num_rows == 6
    assert store.read("t").schema.field("symbol").type == pa.dictionary(pa.int32(), pa.string())


def test_every_bit_of_a_float_comes_back(store: Store) -> None:
    bits = np.array([0x7FF8000000000001, 0xFFF8000000000000, 0x7FF0000000000001, 1 << 63, 1], np.uint64)
    store.write("t", bars(rows=5).set_column(2, "close", pa.array(bits.view(np.float64))))
    for _ in range(2):
        assert (store.read("t/AAPL")["close"].to_numpy().view(np.uint64) == bits).all()
        store.flush()


@pytest.mark.parametrize("time", [-(2**63), 2**63 - 1])
def test_times_that_are_none(time: int, store: Store) -> None:
    store.create("t", bars().schema)
    with pytest.raises(TypeMismatch, match="expected a time for `ts_event`, got the smallest or greatest int64 - in"):
        store.write("t", bars(rows=1).set_column(1, bars().schema.field(1), pa.array([time])))
    inside = time + 1 if time < 0 else time - 1
    store.write("t", bars(rows=1).set_column(1, bars().schema.field(1), pa.array([inside])))
    for _ in range(2):
        assert store.read("t/AAPL")["ts_event"].to_pylist() == [inside]
        store.flush()


def test_what_no_table_can_hold(store: Store) -> None:
    odd = bars().append_column("x", pa.array([{}] * 3, pa.map_(pa.string(), pa.int64())))
    with pytest.raises(
        SchemaMismatch, match=r"expected a type that a table can hold, got .*map.* - at `x`, in table 't'"
    ):
        store.write("t", odd)
    assert store.ls() == []


def test_times_as_timestamps(store: Store) -> None:
    zone = pa.timestamp("us", "Europe/Berlin")
    # around the hour that comes twice
    times = pa.array([1_761_436_800_000_000 + n * 1_800_000_000 for n in range(8)], zone)
    frame = strict(pa.table({"symbol": ["A"] * 8, "when": times, "n": range(8)}), "symbol", "when")
    store.create("t", frame.schema, time="when")
    store.write("t", frame)
    for _ in range(2):
        assert store.read("t/A").equals(frame)
        # two o'clock comes twice that night
        assert store.read("t/A", "2025-10-26T02:00:00+02:00", "2025-10-26T02:00:00+01:00")["n"].to_pylist() == [0, 1]
        store.flush()


VIEWS = pa.table(
    {
        "symbol": pa.array(["B", "A"], pa.string_view()),
        "ts_event": [NOON, NOON],
        "s": pa.array(["x", None], pa.string_view()),
        "b": pa.array([b"x", None], pa.binary_view()),
        "l": pa.array([["x"], [None]], pa.list_(pa.string_view())),
        "c": pa.array([{"s": "x"}, {"s": None}], pa.struct([("s", pa.string_view())])),
    }
)
WANTED = [{"s": None, "b": None, "l": [None], "c": {"s": None}}, {"s": "x", "b": b"x", "l": ["x"], "c": {"s": "x"}}]


@pytest.mark.parametrize("adopted", [False, True])
def test_views_are_given_as_what_they_view(adopted: bool, store: Store) -> None:
    """For views pyarrow can neither sort nor take; frames of polars are made of them."""
    if adopted:
        store.hub.streams.get("views", schema=VIEWS.schema).append(VIEWS)
        store.create("t", VIEWS.schema, stream="views")
    else:
        store.write("t", VIEWS)
    names = ["s", "b", "l", "c"]
    for _ in range(2):
        assert store.read("t", columns=names).to_pylist() == WANTED
        assert store.read("t/A", columns=names).to_pylist() == WANTED[:1]
        assert not any("view" in str(type_) for type_ in store.read("t").schema.types)
        store.maintain(force=True)
    assert store.schema("t").equals(store.read("t").schema)


def test_a_frame_of_polars_makes_a_table(store: Store) -> None:
    columns: dict[str, Any] = {"symbol": ["B", "A"], "ts_event": [NOON, NOON], "s": ["x", None], "l": [["x"], []]}
    frame = pl.DataFrame(columns).with_columns(pl.col("s").cast(pl.Enum(["w", "x"])).alias("e"))
    frame = frame.with_columns(pl.col("symbol").cast(pl.Categorical))
    store.write("t", frame)
    store.write("t", frame.with_columns(pl.lit("C").cast(pl.Categorical).alias("symbol")).head(1))
    for _ in range(2):
        found = store.read("t", to="polars")
        assert found["symbol"].to_list() == ["A", "B", "C"]
        assert found["l"].to_list() == [[], ["x"], ["x"]]
        assert found["e"].to_list() == [None, "x", "x"]
        assert store.read("t/C").num_rows == 1
        store.maintain(force=True)
    assert pl.scan_delta(store.path / "t").select(pl.len()).collect().item() == 3
    wide = frame.with_columns(pl.lit("y").alias("added"))
    store.write("t", wide)
    assert store.read("t", columns=["added"])["added"].to_pylist() == ["y", "y", None]


def test_tensors_and_other_extension_types(store: Store) -> None:
    values = np.arange(24, dtype="f4").reshape(2, 3, 4)
    field, column = ps.records.tensor_field("w", (3, 4), "float32"), ps.records.tensor_column(values)
    frame = pa.table({"symbol": ["A", "B"], "ts_event": [NOON] * 2}).append_column(field, column)
    pair = pa.array([None, [1.0, 2.0]], pa.list_(pa.float64(), 2))
    frame = frame.append_column("p", pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float64(), (2,)), pair))
    frame = frame.append_column("id", pa.array([b"0" * 16, None], pa.uuid()))
    for _ in range(2):
        store.write("t", frame)
        for _ in range(2):
            found = store.read("t", columns=["w", "p", "id"])
            assert found.schema.types == frame.schema.types[2:]
            assert (ps.records.tensor_array(found["w"]) == values).all()
            assert found["p"].to_pylist() == frame["p"].to_pylist()
            assert found["id"].to_pylist() == frame["id"].to_pylist()
            store.flush()
    assert store.read("t", revisions=True).num_rows == 2
    store.maintain(force=True)
    assert store.read("t", columns=["w"])["w"].to_pylist() == frame["w"].to_pylist()
    assert deltalake.DeltaTable(str(store.path / "t")).to_pyarrow_table()["w"].to_pylist()[0] == list(range(12))


DAYS = [date(1950, 1, 1), date(1969, 12, 31), date(2026, 1, 1), date(2026, 1, 2)]


def test_dates_as_times(store: Store) -> None:
    frame = strict(pa.table({"symbol": ["A"] * 4, "ts_event": DAYS, "n": range(4)}), "symbol", "ts_event")
    store.write("daily", frame)
    for _ in range(2):
        assert store.read("daily/A").equals(frame)
        assert store.read("daily/A", date(2026, 1, 1), date(2026, 1, 2))["n"].to_pylist() == [2]
        assert store.read("daily/A", "1969-12-31", "2026-01-02")["n"].to_pylist() == [1, 2]
        assert [part["n"].to_pylist() for part in store.table("daily").scan("A")] == [[0], [1], [2], [3]]
        store.flush()
    out = store.hub.streams.get("out", schema=pa.schema([("symbol", pa.string()), ("ts_event", pa.int64())]))
    store.replay("daily/A", columns=["symbol"]).stream(out)
    assert out.read()["ts_event"].to_pylist() == [(day - date(1970, 1, 1)).days * 86_400_000_000_000 for day in DAYS]
    store.write("daily/A", {"ts_event": date(1950, 1, 1), "n": 7})
    assert store.read("daily/A", end=date(1951, 1, 1))["n"].to_pylist() == [7]


@pytest.mark.parametrize("type_", [pa.int32(), pa.uint64(), pa.float64(), pa.string(), pa.time64("ns")], ids=str)
def test_what_cannot_be_a_time(type_: pa.DataType, store: Store) -> None:
    frame = pa.table({"symbol": ["A"], "ts_event": pa.nulls(1, type_)})
    with pytest.raises(SchemaMismatch, match="expected int64 nanoseconds, a timestamp or a date, got"):
        store.write("t", frame)


NEW_YORK = ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    "moment",
    [
        NOON,
        np.int64(NOON),
        "2026-01-01T12:00:00Z",
        "2026-01-01T07:00:00-05:00",
        "2026-01-01T12:00:00.000000000+00:00",
        datetime(2026, 1, 1, 12, tzinfo=UTC),
        datetime(2026, 1, 1, 7, tzinfo=NEW_YORK),
        np.datetime64("2026-01-01T12:00"),
        pd.Timestamp("2026-01-01T07:00", tz="America/New_York"),
    ],
    ids=lambda moment: f"{type(moment).__name__}:{moment}",
)
def test_moments_of_all_kinds(moment: Any, store: Store) -> None:
    store.write("t", bars(rows=2))
    known = store.read("t/AAPL", columns=["ts_known"])["ts_known"][0].as_py()
    for _ in range(2):
        assert store.read("t/AAPL", moment).num_rows == 2
        assert store.read("t/AAPL", end=moment).num_rows == 0
        assert store.read("t/AAPL", as_of=moment).num_rows == 0  # long before it was written
        assert store.read("t/AAPL", as_of=np.int64(known)).num_rows == 2
        assert store.read("t/AAPL", as_of=np.int64(known - 1)).num_rows == 0
        store.flush()


def test_moments_that_are_none(store: Store) -> None:
    store.write("t", bars())
    for wrong in (1.7e18, True, datetime(2026, 1, 1), "2026-01-01T12:00", "noon", pd.NaT):  # noqa: DTZ001
        with pytest.raises(UsageError, match="in start"):
            store.read("t/AAPL", wrong)
    store.flush()
    assert store.read("t/AAPL", -(10**30), 10**30, as_of=10**30).num_rows == 3  # beyond int64 is its end
    assert store.read("t/AAPL", 10**30).num_rows == 0


@pytest.mark.parametrize("partition", ["day", "month", "year", "none"])
def test_the_first_and_the_last_time_of_all(partition: str, store: Store) -> None:
    times = [-(2**63) + 1, -1, 0, 2**63 - 2]
    frame = strict(pa.table({"symbol": ["A"] * 4, "ts_event": times, "n": range(4)}), "symbol", "ts_event")
    table = store.create("t", frame.schema, partition=partition)
    table.write(frame)
    for _ in range(2):
        assert table.read("A").equals(frame)
        assert pa.concat_tables(table.scan()).equals(frame)
        store.flush()
