"""Tables and keys by path: writing, reading, errors."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import penstock as ps
import penstock.store
from penstock.clock import ManualClock
from penstock.errors import (
    KeyNotFound,
    PenstockWarning,
    RecordError,
    SchemaMismatch,
    StoreError,
    TypeMismatch,
    UnknownStream,
    UsageError,
)
from penstock.store import Store
from penstock.store.roll import roll
from penstock_tests.bars import MINUTE, NOON, bars, strict


def test_a_frame_makes_the_table(store: Store) -> None:
    assert store.write("historical/minute", bars()) == range(3)
    store.write("historical/minute", bars("MSFT", 2))
    assert store.read("historical/minute/AAPL").equals(bars())
    assert store.read("historical/minute/MSFT", to="polars")["close"].to_list() == [1.0, 1.0]
    assert isinstance(store.read("historical/minute", to="pandas"), pd.DataFrame)
    assert store.read("historical/minute").num_rows == 5
    assert store.ls() == ["historical/minute"]
    assert store.ls("historical") == ["historical/minute"]
    assert store.ls("historical/minute") == ["historical/minute/AAPL", "historical/minute/MSFT"]
    assert store.ls("historical/minute/A*") == ["historical/minute/AAPL"]


def test_a_frame_for_one_key(store: Store) -> None:
    store.write("minute/AAPL", bars().drop_columns("symbol"))
    store.write("minute/MSFT", bars("MSFT").drop_columns("symbol"))
    store.write("minute/MSFT", bars("MSFT", first=3))
    assert store.ls("minute") == ["minute/AAPL", "minute/MSFT"]
    assert store.read("minute/MSFT").num_rows == 6
    with pytest.raises(UsageError, match="expected rows of key 'MSFT', got rows of other keys - in table 'minute'; "):
        store.write("minute/MSFT", bars("AAPL"))


@pytest.mark.parametrize("make", [pl.from_arrow, pa.Table.to_pandas, lambda t: t.to_batches()[0], pa.Table.to_reader])
def test_all_kinds_of_frames(make: object, store: Store) -> None:
    store.create("t", bars().schema)
    store.write("t", make(bars()))  # type: ignore[operator]
    assert store.read("t/AAPL").equals(bars())


@pytest.mark.parametrize("origin", [(), ("client/1",), ("client/1", "x"), "client/1", 5])
def test_what_is_no_origin(origin: object, store: Store) -> None:
    store.create("t", bars().schema)
    with pytest.raises(UsageError, match="expected an origin"):
        store.write("t", bars(), origin=origin)
    assert store.read("t").num_rows == 0


@pytest.mark.parametrize("data", [None, 5, "x", ["x"], [None]])
def test_what_is_no_frame(data: object, store: Store) -> None:
    store.create("t", bars().schema)
    for path in ("t", "t/AAPL"):
        with pytest.raises(TypeMismatch, match="expected a dict"):
            store.write(path, data)
    assert store.read("t").num_rows == 0


def test_rows_as_dicts(store: Store) -> None:
    store.create("t", bars().schema)
    store.write("t", [{"symbol": "A", "ts_event": NOON, "close": 1.5}])
    store.write("t/B", {"ts_event": NOON, "close": 2.5})
    assert store.read("t").to_pylist() == [
        {"symbol": "A", "ts_event": NOON, "close": 1.5},
        {"symbol": "B", "ts_event": NOON, "close": 2.5},
    ]
    with pytest.raises(SchemaMismatch, match="expected a frame, whose columns the new table gets, got dict"):
        store.write("u", {"ts_event": NOON})


@pytest.mark.parametrize("tier", ["hot", "cold"])
def test_ranges_and_columns(tier: str, store: Store) -> None:
    store.write("t", bars(rows=10))
    if tier == "cold":
        store.flush()
    key = "t/AAPL"
    assert store.read(key, NOON + MINUTE, NOON + 3 * MINUTE).equals(bars(rows=2, first=1))
    assert store.read(key, datetime(2026, 1, 1, 12, 8, tzinfo=UTC)).equals(bars(rows=2, first=8))
    assert store.read(key, end="2026-01-01T12:01:00Z", columns=["close"]).equals(bars(rows=1).select(["close"]))
    assert store.read(key, "2027-01-01").num_rows == 0
    assert store.read(key, columns=["close", "_offset"])["_offset"].to_pylist() == list(range(10))
    assert store.read(key, columns="close").schema.names == ["close"]
    with pytest.raises(
        UsageError, match=r"expected a column of symbol, ts_event, close, got 'clsoe' - .* mean 'close'"
    ):
        store.read(key, columns=["clsoe"])
    with pytest.raises(UsageError, match="expected a datetime with a time zone"):
        store.read(key, datetime(2026, 1, 1))  # noqa: DTZ001


def test_corrections_and_what_was_known(store: Store) -> None:
    table = store.create("t", bars().schema)
    store.write("t", bars(price=1.0))
    known = table.read(columns=["ts_known"])["ts_known"][0].as_py()
    store.flush()
    store.write("t", bars(rows=1, price=2.0))
    later = table.read("AAPL", columns=["ts_known"])["ts_known"][0].as_py()
    assert later > known
    for _ in range(2):
        assert store.read("t/AAPL")["close"].to_pylist() == [2.0, 1.0, 1.0]
        assert store.read("t/AAPL", as_of=known)["close"].to_pylist() == [1.0, 1.0, 1.0]
        assert store.read("t/AAPL", as_of=later)["close"].to_pylist() == [2.0, 1.0, 1.0]
        assert store.read("t/AAPL", as_of=known - 1).num_rows == 0
        assert store.read("t/AAPL", revisions=True)["close"].to_pylist() == [1.0, 2.0, 1.0, 1.0]
        store.maintain(force=True, grace=0)
    assert len(table.state().files) == 1


def test_when_it_was_known_may_be_said(store: Store) -> None:
    schema = bars().schema.append(pa.field("ts_known", pa.int64()))
    store.create("t", schema)
    for price, known in ((1.0, 100), (3.0, 300), (2.0, 200)):  # in another order than they became known
        store.write("t", bars(rows=1, price=price).append_column("ts_known", pa.array([known])))
    for _ in range(2):
        assert store.read("t/AAPL").equals(bars(rows=1, price=3.0))
        assert [store.read("t/AAPL", as_of=at)["close"].to_pylist() for at in (99, 100, 250, 300)] == [
            [],
            [1],
            [2],
            [3],
        ]
        store.flush()


def test_duplicates_change_nothing(store: Store) -> None:
    store.write("t", bars())
    store.flush()
    store.write("t", bars())
    assert store.read("t/AAPL").equals(bars())
    store.flush()
    assert store.read("t").equals(bars())


def test_a_clock_that_is_set_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A correction is never known before what it corrects."""
    table = store.create("t", bars().schema)
    for seconds, price in ((2_000_000_000, 1.0), (1_000_000_000, 2.0), (1_500_000_000, 3.0)):
        monkeypatch.setattr("penstock.log.writer.WALL", ManualClock(seconds * 1_000_000_000))
        table.write(bars(rows=1, price=price))
    for _ in range(2):
        found = table.read("AAPL", revisions=True, columns=["close", "ts_known"])
        assert found["close"].to_pylist() == [1.0, 2.0, 3.0]
        assert found["ts_known"].to_pylist() == [2_000_000_000_000_000_000] * 3
        assert table.read("AAPL", as_of=2_000_000_000_000_000_000)["close"].to_pylist() == [3.0]
        assert table.read("AAPL", as_of=1_999_999_999_999_999_999).num_rows == 0
        store.flush()


def test_any_order_comes_out_sorted(store: Store) -> None:
    rows = pa.concat_tables([bars("B", 5), bars("A", 5)])
    for part in np.random.default_rng(1).permutation(10):
        store.write("t", rows.slice(part, 1))
        if part % 3 == 0:
            store.flush()
    assert store.read("t").equals(pa.concat_tables([bars("A", 5), bars("B", 5)]).combine_chunks())
    assert store.read("t/B").equals(bars("B", 5))


def test_trades_of_one_moment(store: Store) -> None:
    store.create("trades", ps.records.TRADES, identity=("sequence",))
    rows = [{"symbol": "A", "ts_event": NOON, "price": p, "size": 1, "sequence": n} for n, p in ((2, 2.0), (1, 1.0))]
    store.write("trades", rows)
    store.write("trades", [{**rows[0], "price": 2.5}])
    for _ in range(2):
        assert store.read("trades/A")["price"].to_pylist() == [1.0, 2.5]
        store.flush()


def test_every_row_for_itself(store: Store) -> None:
    store.create("t", bars().schema, rows="all", partition="none")
    store.write("t", bars())
    store.flush()
    store.write("t", bars())
    assert store.read("t/AAPL").num_rows == 6
    assert store.read("t").num_rows == 6


def test_a_new_column_appears(store: Store) -> None:
    store.write("t", bars(rows=1))
    store.flush()
    wide = bars(rows=1, first=1).append_column("volume", pa.array([7]))
    store.write("t", wide)
    for _ in range(3):
        assert store.read("t/AAPL")["volume"].to_pylist() == [None, 7]
        assert store.schema("t").names == ["symbol", "ts_event", "close", "volume"]
        store.maintain(force=True)
    store.write("t", bars(rows=1, first=2))
    assert store.read("t/AAPL", columns=["volume"])["volume"].to_pylist() == [None, 7, None]


def test_a_column_of_another_type(store: Store) -> None:
    store.write("t", bars())
    wrong = bars().set_column(2, "close", pa.array(["x"] * 3))
    with pytest.raises(RecordError, match="close"):
        store.write("t", wrong)
    with pytest.raises(SchemaMismatch, match="expected a column name that the store does not use, got '_offset'"):
        store.write("t", bars().append_column("_offset", pa.array([1] * 3)))
    with pytest.raises(TypeMismatch, match="null"):
        store.write("t", bars().set_column(1, "ts_event", pa.array([None] * 3, pa.int64())))
    assert store.read("t").num_rows == 3


@pytest.mark.parametrize("partition", ["day", "month", "year", "none"])
def test_partitions(partition: str, store: Store) -> None:
    times = np.array(["1969-12-31T23", "1970-01-01", "2025-12-31", "2026-01-01", "2026-02-01"], "datetime64[ns]")
    frame = pa.table({"symbol": ["A"] * 5, "ts_event": times.view("int64"), "n": range(5)})
    frame = strict(frame, "symbol", "ts_event")
    table = store.create("t", frame.schema, partition=partition)
    store.write("t", frame)
    store.flush()
    assert len(table.state().files) == {"day": 5, "month": 5, "year": 4, "none": 1}[partition]
    assert store.read("t/A").equals(frame)
    assert sum(part.num_rows for part in table.scan("A", end=0)) == 1
    assert pa.concat_tables(table.scan()).equals(frame)


def test_a_stream_that_is_there_already(tmp_path: Path) -> None:
    with ps.open(tmp_path) as hub:
        stream = hub.streams.get("bars", schema=bars().schema)
        stream.append(bars())
        store = penstock.store.open(hub)
        store.create("live/bars", bars().schema, stream="bars")
        assert store.read("live/bars/AAPL").equals(bars())
        store.flush()
        stream.append(bars(first=3))
        assert store.read("live/bars/AAPL").num_rows == 6
        assert stream.first_offset == 0
        store.drop("live/bars")
        assert stream.next_offset == 6
        with pytest.raises(UnknownStream):
            store.create("u", bars().schema, stream="nothing")


def test_an_adopted_stream_made_anew(tmp_path: Path) -> None:
    with ps.open(tmp_path) as hub:
        hub.streams.get("bars", schema=bars().schema).append(bars(rows=9))
        store = penstock.store.open(hub)
        table = store.create("t", bars().schema, stream="bars")
        store.flush()
        hub.streams.drop("bars")
        with pytest.raises(KeyNotFound, match="no table 't' any more"):
            store.read("t")
        hub.streams.get("bars", schema=bars().schema).append(bars(rows=2, price=5.0))
        for _ in range(2):
            assert store.read("t/AAPL")["close"].to_pylist() == [5.0] * 2 + [1.0] * 7
            assert sum(part.num_rows for part in table.scan()) == 9
            store.flush()


def test_rows_of_an_adopted_stream_without_key_or_time(tmp_path: Path) -> None:
    schema = pa.schema([("symbol", pa.string()), ("ts_event", pa.int64()), ("when", pa.int64())])
    with ps.open(tmp_path) as hub:
        stream = hub.streams.get("bars", schema=schema)
        store = penstock.store.open(hub)
        table = store.create("t", schema, stream="bars", time="when")
        for first in (0, 8):
            symbols = [None, "A", "B", None, "A", "A", None, None]
            times = [1, 2, None, 4, 5, 6, 7, None]
            frame = {"symbol": symbols, "ts_event": [1] * 8, "when": [None if t is None else t + first for t in times]}
            stream.append(pa.table(frame, schema))
        expected = [2, 5, 6, 10, 13, 14]
        assert store.read("t")["when"].to_pylist() == store.read("t/A")["when"].to_pylist() == expected
        for stop in (3, 4, 16):
            with pytest.warns(
                PenstockWarning, match=r"rows of stream 'bars' at offsets \d+ to \d+ have no `symbol` or"
            ):
                roll(table, force=True, max_rows=stop - table.rolled(table.state()), commits=1)
            assert table.rolled(table.state()) == stop
            assert store.read("t")["when"].to_pylist() == store.read("t/A")["when"].to_pylist() == expected
            assert store.read("t/A", revisions=True).num_rows == 6
        assert [part.num_rows for part in table.scan()] == [6]


def test_keys_that_look_like_patterns(store: Store) -> None:
    for key in ("A*", "AB", "[x]"):
        store.write("t", bars(key, rows=1))
    assert store.read("t/A*")["symbol"].to_pylist() == ["A*"]
    assert store.read("t/[x]")["symbol"].to_pylist() == ["[x]"]
    assert store.read("t/A?")["symbol"].to_pylist() == ["A*", "AB"]
    assert store.read("t/Z*").num_rows == 0


def test_empty_frames_and_tables(store: Store) -> None:
    assert store.write("t", bars(rows=0)) == range(0)
    assert store.read("t").equals(bars(rows=0))
    assert store.flush() == 0
    assert store.ls("t") == []
    with pytest.raises(KeyNotFound, match="no key 'A' in table 't'; it has 0 other keys"):
        store.read("t/A")


def test_unknown_names_have_near_ones(store: Store) -> None:
    store.write("historical/minute", bars())
    with pytest.raises(KeyNotFound, match=r"no table 'historical/minuet' - in .*; did you mean 'historical/minute'"):
        store.read("historical/minuet")
    with pytest.raises(KeyNotFound, match="no key 'APPL' in table 'historical/minute'; did you mean 'AAPL'") as caught:
        store.read("historical/minute/APPL")
    assert caught.value.near == ["AAPL"]  # type: ignore[attr-defined]
    with pytest.raises(KeyNotFound):
        store.ls("nothing")
    with pytest.raises(KeyNotFound):
        store.drop("nothing")


def test_drop(store: Store) -> None:
    store.write("a/b", bars())
    table = store.table("a/b")
    store.flush()
    store.drop("a/b")
    assert store.ls() == []
    assert store.hub.streams.list("_*") == []
    with pytest.raises(KeyNotFound, match="no table 'a/b' any more"):
        table.read()
    with pytest.raises(KeyNotFound, match="any more"):
        table.write(bars())
    store.write("a/b", bars(rows=1))
    assert store.read("a/b").num_rows == 1


def test_layouts_are_for_ever(store: Store) -> None:
    first = store.create("t", bars().schema)
    assert store.create("t", bars().schema) is first
    with pytest.raises(UsageError, match="expected the layout of table 't'"):
        store.create("t", bars().schema, partition="year")
    with pytest.raises(UsageError, match=r"expected a table that is not inside another, got 't/u' - in the store"):
        store.create("t/u", bars().schema)
    with pytest.raises(SchemaMismatch, match="expected a key column `sym`, got columns symbol, ts_event, close"):
        store.create("u", bars().schema, key="sym")
    with pytest.raises(SchemaMismatch, match="expected text, got float64 - at `close`, in table 'u'"):
        store.create("u", bars().schema, key="close")
    with pytest.raises(SchemaMismatch, match="expected int64 nanoseconds, a timestamp or a date"):
        store.create("u", bars().schema, time="close")
    with pytest.raises(SchemaMismatch, match="expected a column of whole numbers, text or times"):
        store.create("u", bars().schema, identity=["close"])
    with pytest.raises(UsageError, match="expected a list of column names, got 'close'"):
        store.create("u", bars().schema, identity="close")
    twice = bars().schema.append(pa.field("CLOSE", pa.int64()))
    with pytest.raises(SchemaMismatch, match="expected names that differ in more than case, as `close` does not"):
        store.create("u", twice)
    with pytest.raises(SchemaMismatch, match="expected int64 nanoseconds, got float64 - at `ts_known`"):
        store.create("u", bars().schema.append(pa.field("ts_known", pa.float64())))
    with pytest.raises(SchemaMismatch, match="expected a column name that the store does not use, got 'date'"):
        store.write("t", bars().append_column("date", pa.array([1] * 3)))
    with pytest.raises(UsageError, match="expected 'latest', 'all', got 'some' - in rows"):
        store.create("u", bars().schema, rows="some")


def test_sql(store: Store) -> None:
    store.write("m/t", bars(rows=4))
    for engine in ("duckdb", "polars", None):
        found = store.sql('select count(*) as n, sum("close") as s from "m/t"', engine=engine)
        assert found.to_pylist() == [{"n": 4, "s": 4.0}]
    with pytest.raises(KeyNotFound, match="no table 'm/u'"):
        store.sql('select * from "m/u"')
    with pytest.raises(StoreError, match=r"does not take the query: .* - in store.sql; tables are 'm/t'"):
        store.sql('selct * from "m/t"')
    with pytest.raises(UsageError, match="expected 'duckdb' or 'polars', got 'x' - in engine"):
        store.sql("select 1", engine="x")


def test_other_frames_are_named(store: Store) -> None:
    store.write("t", bars())
    with pytest.raises(UsageError, match="expected 'arrow', 'polars' or 'pandas', got 'numpy' - in to"):
        store.read("t", to="numpy")
    with pytest.raises(UsageError, match="expected 'raise' or 'skip', got 'x' - in on_corrupt"):
        store.read("t", on_corrupt="x")


def test_stats(store: Store) -> None:
    store.write("t", bars())
    store.flush()
    store.write("t", bars(first=3))
    found = store.stats(2)
    assert (found["tables"], found["rows"], found["hot_rows"], found["files"]) == (1, 6, 3, 1)
    assert found["table"]["t"]["keys"] == {"AAPL": 6}
    assert found["table"]["t"]["first_time"].startswith("2026-01-01T12:00:00")
    assert "table" not in store.stats()
    with pytest.raises(UsageError, match="expected level 0, 1 or 2, got 3"):
        store.stats(3)
