from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import penstock.records as records
from penstock.errors import SchemaMismatch, TypeMismatch
from penstock.records import BARS, DOCUMENT, ERRORS, QUOTES, TRADES, event_column, event_times, is_document


def spelled(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}{'' if field.nullable else '!'}" for field in schema)


def test_the_schemas_are_a_contract() -> None:
    assert spelled(TRADES) == (
        "symbol string!, ts_event int64!, ts_recv int64, price double!, size int64!, side string, sequence int64"
    )
    assert spelled(QUOTES) == (
        "symbol string!, ts_event int64!, ts_recv int64, bid_px double, ask_px double, bid_sz int64, ask_sz int64, "
        "sequence int64"
    )
    assert spelled(BARS) == (
        "symbol string!, ts_event int64!, ts_close int64!, open double, high double, low double, close double, "
        "volume int64!, amount double!, vwap double, trade_count int64!, revision int32!"
    )
    assert spelled(ERRORS) == (
        "stream string!, consumer string!, first_offset int64, next_offset int64, key string, error string!, "
        "message string!, detail string, attempts int32!, raw binary"
    )
    assert spelled(DOCUMENT) == "document string!"
    assert DOCUMENT.metadata == {b"penstock.kind": b"document"}


def test_all_is_there() -> None:
    assert sorted(records.__all__) == records.__all__
    for name in records.__all__:
        assert getattr(records, name) is not None


def test_is_document() -> None:
    assert is_document(DOCUMENT)
    assert not is_document(TRADES)
    assert not is_document(pa.schema([("document", pa.string())]))
    assert not is_document(pa.schema([("a", pa.string())], metadata=DOCUMENT.metadata))


def test_event_column() -> None:
    assert event_column(TRADES) == "ts_event"
    assert event_column(DOCUMENT) is None
    schema = pa.schema([("when", pa.int64()), ("ts_event", pa.int64())])
    assert event_column(schema) == "ts_event"
    assert event_column(schema.with_metadata({b"penstock.event": b"when"})) == "when"
    with pytest.raises(SchemaMismatch, match=r"penstock.event to name a column, got 'wehn'; did you mean 'when'\?"):
        event_column(schema.with_metadata({b"penstock.event": b"wehn"}))
    with pytest.raises(SchemaMismatch, match="columns: when, ts_event"):
        event_column(schema.with_metadata({b"penstock.event": b"\xff"}))


@pytest.mark.parametrize(
    "type_, raw, ns",
    [
        (pa.int64(), -5, -5),
        (pa.timestamp("ns"), 7, 7),
        (pa.timestamp("ns", "UTC"), 7, 7),
        (pa.timestamp("us", "America/New_York"), 7, 7_000),
        (pa.timestamp("ms"), -7, -7_000_000),
        (pa.timestamp("s", "UTC"), 7, 7 * 10**9),
        (pa.date32(), 2, 2 * 86400 * 10**9),
    ],
)
def test_event_times(type_: pa.DataType, raw: int, ns: int) -> None:
    storage = pa.array([raw, 0, raw], pa.int32() if type_ == pa.date32() else pa.int64())
    batch = pa.record_batch([storage.view(type_)], ["t"])
    for given in (batch, pa.Table.from_batches([batch])):
        times = event_times(given, "t")
        assert times.dtype == np.int64
        assert times.tolist() == [ns, 0, ns]
    assert event_times(batch.slice(2), "t").tolist() == [ns]
    assert event_times(batch.slice(3), "t").tolist() == []
    assert event_times(pa.Table.from_batches([batch, batch.slice(1)]), "t").tolist() == [ns, 0, ns, 0, ns]
    assert event_times(pa.Table.from_batches([], batch.schema), "t").tolist() == []


def test_event_times_are_a_view() -> None:
    for type_ in (pa.int64(), pa.timestamp("ns", "UTC")):
        column = pa.array(range(10), pa.int64()).view(type_)
        times = event_times(pa.record_batch([column], ["t"]).slice(3), "t")
        assert times.__array_interface__["data"][0] == column.buffers()[1].address + 24
        assert not times.flags.writeable


def test_event_times_refused() -> None:
    batch = pa.record_batch([pa.array([1, 2, None, None]), pa.array(["a"] * 4)], ["ts_event", "s"])
    with pytest.raises(
        TypeMismatch, match=r"expected a time for `ts_event`, got null - at rows\[2\].ts_event"
    ) as caught:
        event_times(batch, "ts_event")
    assert (caught.value.row, caught.value.column) == (2, "ts_event")
    assert event_times(batch.slice(0, 2), "ts_event").tolist() == [1, 2]
    with pytest.raises(SchemaMismatch, match=r"got columns ts_event, s; did you mean 'ts_event'\?"):
        event_times(batch, "ts_evnt")
    with pytest.raises(SchemaMismatch, match=r"got columns \(none\); name the column in schema metadata"):
        event_times(pa.record_batch([], schema=pa.schema([])), "t")
    with pytest.raises(SchemaMismatch, match=r"expected int64 \(ns\), timestamp or date32 for `s`, got string"):
        event_times(batch, "s")
    far = pa.record_batch([pa.array([10**11], pa.timestamp("s"))], ["t"])
    with pytest.raises(TypeMismatch, match="expected times from 1677 to 2262 for `t`"):
        event_times(far, "t")
