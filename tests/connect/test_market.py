"""What a plant writes of a row, the source reads back as that row."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.connect.market import ALPACA, CHANNELS, MASSIVE
from penstock.plant.messages import FIELDS, mapper
from penstock.records import BARS, QUOTES, TRADES, rows_to_batch

SCHEMAS = {"AM": BARS, "T": TRADES, "Q": QUOTES}
TIMES = st.integers(0, 10**12).map(lambda ms: ms * 1_000_000)
PRICES = st.floats(0.01, 1e6)
SIZES = st.integers(0, 10**9)


def row(schema: pa.Schema) -> Any:
    of: dict[str, Any] = {
        "symbol": st.text("ABC", min_size=1),
        "side": st.sampled_from(["buy", "sell"]),
        "revision": st.integers(0, 9),
    }
    kinds = {pa.float64(): PRICES, pa.int64(): SIZES}
    of |= {"ts_event": TIMES, "ts_close": TIMES}
    return st.fixed_dictionaries({f.name: of[f.name] if f.name in of else kinds[f.type] for f in schema})


@pytest.mark.parametrize("event", ["AM", "T", "Q"])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_there_and_back(event: str, data: st.DataObject) -> None:
    schema = SCHEMAS[event]
    rows = data.draw(st.lists(row(schema), min_size=1, max_size=5))
    _, _, messages = mapper(schema, event, {}, "s")(rows_to_batch(rows, schema))
    kind = MASSIVE[event]
    assert kind.schema == schema
    for given_row, text in zip(rows, messages(), strict=True):
        expected = {**given_row}
        if event == "AM":
            expected["amount"] = float(given_row["volume"]) * given_row["vwap"]
        else:
            expected["ts_recv"] = 5
        found = kind.row(json.loads(text), 5)
        assert {name: found.get(name) for name in schema.names} == expected


def test_every_field_of_the_plant_has_its_column() -> None:
    for event, fields in FIELDS.items():
        row = MASSIVE[event].row({"ev": event, **dict.fromkeys(fields.values(), 1)}, 5)
        assert {column for column in fields if column not in row} == set()


def test_what_is_left_out() -> None:
    bar = {"ev": "AM", "sym": "A", "v": 10, "o": 1.0, "h": 1.0, "l": 1.0, "c": 1.0, "s": 0, "e": 1}
    assert str(MASSIVE["AM"].row(bar, 0)["amount"]) == "nan"
    assert MASSIVE["AM"].row(bar, 0)["trade_count"] == 0
    assert MASSIVE["AM"].row({**bar, "z": 4}, 0)["trade_count"] == 2
    assert MASSIVE["AM"].row({**bar, "z": "x", "vw": "y"}, 0)["trade_count"] == 0
    assert MASSIVE["XA"].row({**bar, "pair": "BTC-USD"}, 0)["symbol"] == "BTC-USD"
    quote = MASSIVE["C"].row({"ev": "C", "p": "USD/CNH", "a": 6.8, "b": 6.7, "t": 3}, 9)
    assert (quote["symbol"], quote["bid_px"], quote["ask_px"], quote["ts_event"]) == ("USD/CNH", 6.7, 6.8, 3_000_000)


def test_alpaca_kinds_have_channels() -> None:
    assert set(ALPACA) <= set(CHANNELS.values())
    bar = {"T": "d", "S": "A", "t": "2026-01-01T05:00:00Z", "v": 1, "vw": 2.0, "n": 1}
    row = ALPACA["d"].row(bar, 0)
    assert row["ts_close"] - row["ts_event"] == 24 * 3600 * 10**9
    assert ALPACA["t"].row({"T": "t", "S": "A", "t": "noon"}, 0)["ts_event"] == "noon"
