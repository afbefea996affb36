from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

import penstock as ps
from penstock.errors import UsageError
from penstock.hub import Hub
from penstock.plant.feed import Feed
from penstock.records import encode_document


def sent(feed: Feed, seq: bool = False) -> list[Any]:
    burst = feed.poll()
    assert burst is not None
    return [json.loads(m) for m in burst.messages(seq)]


def test_a_bar_has_the_protocols_fields(bars: Any, kit: SimpleNamespace) -> None:
    feed = Feed(bars)
    bars.append([kit.bar("AAPL", 0), kit.bar("MSFT", 1, vwap=None, revision=2)])
    begin = kit.START // 1_000_000
    first, second = sent(feed)
    assert list(first)[:2] == ["ev", "sym"]
    assert first == {
        "ev": "AM", "sym": "AAPL", "v": 100, "vw": 10.5, "o": 10.0, "c": 11.0, "h": 12.0, "l": 9.0, "s": begin,
        "e": begin + 60_000, "n": 10, "z": 10,
    }  # fmt: skip
    assert "vw" not in second
    assert second["revision"] == 2


def test_day_totals_come_from_columns_of_the_stream(hub: Hub, kit: SimpleNamespace) -> None:
    schema = ps.records.BARS
    for name in ("day_volume", "day_open", "day_vwap"):
        schema = schema.append(pa.field(name, pa.int64() if name == "day_volume" else pa.float64()))
    stream = hub.streams.get("bars", schema=schema)
    feed = Feed(stream)
    stream.append(kit.bar("A", 0, day_volume=5000, day_open=9.5, day_vwap=10.25))
    (message,) = sent(feed)
    assert (message["av"], message["op"], message["a"]) == (5000, 9.5, 10.25)


def test_values_that_json_lacks(trades: Any, kit: SimpleNamespace) -> None:
    feed = Feed(trades)
    trades.append([kit.trade("A", 0, price=math.nan), kit.trade("A", 1, price=math.inf)])
    assert [m["p"] for m in sent(feed)] == [None, None]


def test_any_table_is_a_channel(hub: Hub) -> None:
    schema = pa.schema(
        [("key", pa.string()), ("n", pa.int64()), ("at", pa.timestamp("us", "UTC")), ("seq", pa.int32())]
    )
    stream = hub.streams.get("things", schema=schema)
    feed = Feed(stream)
    stream.append([{"key": "k", "n": 1, "at": datetime(2026, 1, 1, tzinfo=UTC), "seq": 3}, {"key": None, "n": 2}])
    first, second = sent(feed, seq=True)
    assert first == {
        "ev": "things", "sym": "k", "n": 1, "at": "2026-01-01T00:00:00Z", "seq_": 3, "seq": 0, "stream": "things",
    }  # fmt: skip
    assert second == {"ev": "things", "n": 2, "seq": 1, "stream": "things"}


def test_attributes_name_the_event_the_key_and_the_fields(hub: Hub) -> None:
    schema = pa.schema([("where", pa.string()), ("value", pa.float64()), ("quality", pa.int64())])
    attributes = {"event": "TEMP", "key": "where", "fields": {"value": "c", "quality": None}}
    stream = hub.streams.get("lab", schema=schema, attributes=attributes)
    feed = Feed(stream)
    stream.append({"where": "roof", "value": 21.5, "quality": 1})
    assert sent(feed) == [{"ev": "TEMP", "sym": "roof", "c": 21.5}]


@pytest.mark.parametrize("attributes", [{"key": "wher"}, {"fields": {"wher": "c"}}], ids=["key", "fields"])
def test_attributes_that_name_no_column(hub: Hub, attributes: Any) -> None:
    stream = hub.streams.get("lab", schema=pa.schema([("where", pa.string())]), attributes=attributes)
    with pytest.raises(UsageError, match="expected a column of where, got 'wher' .* did you mean 'where'?"):
        Feed(stream)


@pytest.mark.parametrize("event", ["", "A.B", 5, "A*"], ids=repr)
def test_attribute_event_must_be_an_event(hub: Hub, event: Any) -> None:
    with pytest.raises(UsageError, match="expected attribute `event` to be a text such as 'AM'"):
        Feed(hub.streams.get("lab", attributes={"event": event}))


def test_documents_pass_as_they_are(hub: Hub) -> None:
    stream = hub.streams.get("docs", attributes={"event": "X"})
    feed = Feed(stream)
    documents = [
        {"ev": "AM", "sym": "A", "deep": {"ev": 1, "list": [1, None, "ü"]}},
        {"T": "LULD1", "h": 1.5},
        {"ev": "XT", "pair": "BTC-USD"},
        {"ev": "C", "p": "EUR/USD"},
        {"ev": 5, "sym": 7},
    ]
    stream.append(documents)
    burst = feed.poll()
    assert burst is not None
    assert burst.messages(False)[0] == encode_document(documents[0])
    assert burst.keys() == [("AM", "A"), ("X", "LULD1"), ("XT", "BTC-USD"), ("C", "EUR/USD"), ("X", "")]
    assert [json.loads(m) for m in burst.messages(False)[1:]] == [
        {"ev": "X", **documents[1]}, documents[2], documents[3], {"ev": "X", "sym": 7},
    ]  # fmt: skip


def test_documents_with_more_than_json_has(hub: Hub) -> None:
    stream = hub.streams.get("docs")
    feed = Feed(stream)
    stream.append({"a": math.nan, "t": datetime(2026, 1, 1, tzinfo=UTC), "big": 1 << 70, "$k": [b"\x01"]})
    (message,) = sent(feed)
    assert message == {"ev": "docs", "a": None, "t": "2026-01-01T00:00:00Z", "big": 1 << 70, "$k": ["AQ=="]}


def test_a_documents_own_seq_is_kept_apart(hub: Hub) -> None:
    stream = hub.streams.get("docs")
    feed = Feed(stream)
    stream.append([{"ev": "X", "seq": "mine", "stream": [1]}, {"ev": "X", "text": '"seq"'}])
    first, second = sent(feed, seq=True)
    assert first == {"ev": "X", "seq_": "mine", "stream_": [1], "seq": 0, "stream": "docs"}
    assert second == {"ev": "X", "text": '"seq"', "seq": 1, "stream": "docs"}


def test_a_widened_stream_goes_on(bars: Any, kit: SimpleNamespace) -> None:
    feed = Feed(bars)
    bars.append(kit.bar("A", 0))
    assert len(sent(feed)) == 1
    bars.widen(bars.schema.append(pa.field("note", pa.string())))
    bars.append(kit.bar("A", 1, note="late"))
    assert sent(feed)[0]["note"] == "late"
