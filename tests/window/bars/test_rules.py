"""The rules of Bars one by one, by examples that can be checked by eye."""

from __future__ import annotations

import math
import warnings
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock.window.bars.bars as bars_module
from penstock.clock import time_ns
from penstock.errors import PenstockWarning, RecordError, UsageError, WindowError
from penstock.records import BARS
from penstock.window.bars import Bars
from penstock.window.bars.late import Fills
from penstock.window.sessions import Sessions

pytestmark = pytest.mark.usefixtures("either")

S = 10**9
HIGHEST = 2**63 - 1


def trades(*rows: tuple[Any, ...], **types: pa.DataType) -> pa.RecordBatch:
    """(time in s, symbol, price, size) each."""
    time, symbol, price, size = zip(*rows, strict=True) if rows else ([], [], [], [])
    return pa.RecordBatch.from_arrays(
        [
            pa.array([round(t * S) for t in time], pa.int64()),
            pa.array(symbol, types.get("symbol", pa.string())),
            pa.array(price, types.get("price", pa.float64())),
            pa.array(size, types.get("size", pa.int64())),
        ],
        names=["ts_event", "symbol", "price", "size"],
    )


def seen(batch: Any, *names: str) -> list[tuple[Any, ...]]:
    """Symbol, start in s, and more columns."""
    columns = [batch.column(name).to_pylist() for name in ("symbol", "ts_event", *names)]
    return [(row[0], row[1] / S, *row[2:]) for row in zip(*columns, strict=True)]


# -- values


def test_a_bar_has_all_columns_of_the_record() -> None:
    bars = Bars("1s")
    assert bars.update(trades((0.1, "A", 10.0, 3), (0.2, "A", 12.0, 1), (0.3, "A", 9.0, 2))).num_rows == 0
    out = bars.flush()
    assert out.schema == BARS
    assert out.to_pylist() == [
        {
            "symbol": "A",
            "ts_event": 0,
            "ts_close": S,
            "open": 10.0,
            "high": 12.0,
            "low": 9.0,
            "close": 9.0,
            "volume": 6,
            "amount": 60.0,
            "vwap": 10.0,
            "trade_count": 3,
            "revision": 0,
        }
    ]


def test_open_and_close_go_by_event_time_and_ties_by_arrival() -> None:
    bars = Bars("1s")
    bars.update(trades((0.5, "A", 1.0, 1), (0.2, "A", 2.0, 1), (0.2, "A", 3.0, 1), (0.7, "A", 4.0, 1)))
    bars.update(trades((0.7, "A", 5.0, 1), (0.2, "A", 6.0, 1), (0.6, "A", 7.0, 1)))
    assert seen(bars.flush(), "open", "close", "high", "low") == [("A", 0, 2.0, 5.0, 7.0, 1.0)]


def test_sums_are_folded_row_by_row() -> None:
    prices = [0.1, 1e16, -1e16, 0.2, 0.3]
    rows = [(0.1, "A", price, 1) for price in prices]
    total = 0.0
    for price in prices:
        total += price
    assert total != math.fsum(prices)
    for cut in range(6):
        bars = Bars("1s")
        bars.update(trades(*rows[:cut]))
        bars.update(trades(*rows[cut:]))
        assert bars.flush().column("amount").to_pylist() == [total]


def test_rows_without_a_price_or_size_are_left_out_and_counted() -> None:
    bars = Bars("1s")
    price, size = [math.nan, None, math.inf, -math.inf, 5.0, 6.0], [1, 1, 1, 1, None, 2]
    bars.update(trades(*((0.1, "A", p, s) for p, s in zip(price, size, strict=True))))
    assert seen(bars.flush(), "open", "volume", "trade_count") == [("A", 0, 6.0, 2, 1)]
    counts = bars.statistics()
    assert (counts.rows, counts.missing, counts.bars) == (6, 5, 1)


def test_rows_without_a_price_still_move_the_watermark() -> None:
    bars = Bars("1s")
    out = bars.update(trades((0.1, "A", 5.0, 1), (1.0, "B", math.nan, 1), (0.2, "A", 6.0, 1)))
    assert seen(out, "close", "revision") == [("A", 0, 5.0, 0), ("A", 0, 6.0, 1)]
    assert bars.positions.tolist() == [1, 2]


def test_a_size_of_zero_is_a_trade_without_volume() -> None:
    bars = Bars("1s")
    bars.update(trades((0.1, "A", 5.0, 0), (0.2, "A", 7.0, 0)))
    assert seen(bars.flush(), "high", "volume", "amount", "vwap", "trade_count") == [("A", 0, 7.0, 0, 0.0, None, 2)]


def test_negative_prices_are_prices() -> None:
    out = Bars("1s").batch(trades((0.1, "CL", -37.63, 10), (0.2, "CL", -40.32, 10)))
    assert seen(out, "high", "low", "amount") == [("CL", 0, -37.63, -40.32, -376.3 - 403.2)]


def test_fractional_sizes_make_float_volumes() -> None:
    bars = Bars("1s")
    bars.update(trades((0.1, "BTC", 100.0, 0.5), (0.2, "BTC", 102.0, 0.25), size=pa.float64()))
    out = bars.flush()
    assert out.schema.field("volume").type == pa.float64()
    assert out.schema.names == BARS.names
    assert seen(out, "volume", "amount", "vwap") == [("BTC", 0, 0.75, 75.5, 75.5 / 0.75)]


def test_prices_without_sizes() -> None:
    bars = Bars("1s", size=None)
    bars.update(trades((0.1, "IX", 1.0, 9), (0.2, "IX", 2.0, 9)).select(["ts_event", "symbol", "price"]))
    assert seen(bars.flush(), "close", "volume", "vwap", "trade_count") == [("IX", 0, 2.0, 0, None, 2)]


def test_quotes_make_bars_of_their_middle() -> None:
    quotes = pa.RecordBatch.from_pydict(
        {
            "symbol": ["A", "A", "A", "B"],
            "ts_event": [0, 1, 2, 3],
            "bid_px": [10.0, 11.0, None, 1.0],
            "ask_px": [10.5, 12.0, 12.0, 1.0],
        }
    )
    bars = Bars("1s", price="mid")
    bars.update(quotes)
    assert seen(bars.flush(), "open", "close", "volume", "amount", "vwap", "trade_count") == [
        ("A", 0, 10.25, 11.5, 0, 0.0, None, 2),
        ("B", 0, 1.0, 1.0, 0, 0.0, None, 1),
    ]
    assert bars.statistics().missing == 1


# -- time


def test_all_symbols_close_when_time_has_passed_and_not_before() -> None:
    bars = Bars("1s", lateness="0.5s")
    assert bars.update(trades((0.1, "A", 1.0, 1), (0.2, "B", 2.0, 1), (1.4, "C", 3.0, 1))).num_rows == 0
    out = bars.update(trades((1.5, "C", 3.0, 1)))
    assert seen(out) == [("A", 0), ("B", 0)]
    assert bars.positions.tolist() == [0, 0]
    assert bars.statistics().watermark_ns == 1 * S


def test_a_heartbeat_closes_idle_symbols() -> None:
    bars = Bars("1s", lateness=2)
    assert bars.advance(100 * S).num_rows == 0
    bars = Bars("1s", lateness=2)
    bars.update(trades((0.1, "A", 1.0, 1)))
    assert bars.next_due == 3 * S
    assert bars.any_open
    assert bars.advance(3 * S - 1).num_rows == 0
    assert seen(bars.advance(3 * S)) == [("A", 0)]
    assert bars.positions.tolist() == [-1]
    assert not bars.any_open
    assert bars.next_due is None
    assert bars.advance(1).num_rows == 0
    assert bars.statistics().watermark_ns == 1 * S


def test_replay_of_ordered_trades_loses_no_volume() -> None:
    """Bars depend on the trades alone: nothing is late in ordered input, however it is cut."""
    random = np.random.default_rng(3)
    count = 20_000
    time = np.sort(random.integers(0, 20 * S, count))
    size = random.integers(1, 100, count)
    symbol = pa.array([f"S{i}" for i in random.integers(0, 50, count)])
    table = pa.table({"symbol": symbol, "ts_event": time, "price": random.random(count), "size": size})
    for rows in (7, 100, 20_000):
        bars = Bars("1s")
        done = [bars.update(part) for part in table.to_batches(max_chunksize=rows)]
        volume = pa.Table.from_batches([*done, bars.flush()]).column("volume").to_numpy().sum()
        assert volume == size.sum()
        assert bars.statistics().late == 0


def test_right_closed_intervals_hold_their_end() -> None:
    rows = [(0.0, "A", 1.0, 1), (0.5, "A", 2.0, 1), (1.0, "A", 3.0, 1), (1.5, "A", 4.0, 1)]
    assert seen(Bars("1s").batch(trades(*rows)), "close") == [("A", 0, 2.0), ("A", 1, 4.0)]
    right = Bars("1s", closed="right")
    assert seen(right.batch(trades(*rows)), "close") == [("A", -1, 1.0), ("A", 0, 3.0), ("A", 1, 4.0)]
    right.update(trades(*rows[:3]))
    assert right.statistics().watermark_ns == 1 * S
    assert right.next_due == 1 * S + 1
    assert right.advance(1 * S).num_rows == 0
    assert right.advance(1 * S + 1).num_rows == 1


def test_bars_may_be_labelled_by_their_end() -> None:
    out = Bars("1s", label="end").batch(trades((0.5, "A", 1.0, 1)))
    assert (out.column("ts_event").to_pylist(), out.column("ts_close").to_pylist()) == ([S], [S])


def test_bars_lie_on_their_origin() -> None:
    rows = trades((100.0, "A", 1.0, 1))
    assert seen(Bars(60, origin=30 * S).batch(rows)) == [("A", 90)]
    assert seen(Bars(60, origin="1970-01-01T00:00:45Z").batch(rows)) == [("A", 45)]
    assert seen(Bars(60, origin=datetime(1970, 1, 1, tzinfo=UTC)).batch(rows)) == [("A", 60)]


def test_a_closing_print_may_count_to_the_last_bar() -> None:
    close = time_ns("2026-03-06T21:00Z")
    sessions = {how: Sessions("09:30-16:00", tz="America/New_York", closing=how) for how in ("exclude", "include")}
    rows = pa.RecordBatch.from_pydict(
        {
            "symbol": ["A", "A", "A", "A"],
            "ts_event": [close - 1, close, close, close + 1],
            "price": [1.0, 2.0, 3.0, 4.0],
            "size": [1, 10, 100, 1000],
        }
    )
    for how, volume, outside in (("exclude", 1, 3), ("include", 111, 1)):
        bars = Bars("30m", sessions=sessions[how])
        out = bars.update(rows)
        assert out.column("volume").to_pylist() == [volume]
        assert out.column("ts_close").to_pylist() == [close]
        assert bars.statistics().outside == outside
        assert bars.statistics().late == 0


def test_a_bar_of_a_day_is_a_session_with_its_breaks() -> None:
    sessions = Sessions("09:30-16:00", tz="America/New_York", breaks=["12:00-13:00"])
    times = [time_ns(f"2026-03-{day}:00Z") for day in ("06T14:30", "06T17:00", "06T17:30", "06T20:59", "09T13:30")]
    rows = {"symbol": ["A"] * 5, "ts_event": times, "price": [1.0, 2.0, 3.0, 4.0, 5.0], "size": [1, 10, 100, 1000, 7]}
    bars = Bars("1d", sessions=sessions)
    out = bars.update(pa.RecordBatch.from_pydict(rows))
    assert out.column("volume").to_pylist() == [1001]
    assert out.column("ts_event").to_pylist() == [time_ns("2026-03-06T14:30Z")]
    assert out.column("ts_close").to_pylist() == [time_ns("2026-03-06T21:00Z")]
    assert bars.statistics().outside == 2


def test_a_closing_print_after_rows_of_the_night() -> None:
    sessions = Sessions("09:30-16:00", tz="America/New_York", closing="include", outside="keep")
    close = time_ns("2026-03-06T21:00Z")
    bars = Bars("2h", sessions=sessions, lateness="1d")
    for time in (close + 5, close - 5, close, close + 6):
        bars.update(pa.RecordBatch.from_pydict({"symbol": ["A"], "ts_event": [time], "price": [1.0], "size": [1]}))
    out = bars.flush()
    assert out.column("ts_close").to_pylist() == [close, time_ns("2026-03-06T23:00Z")]
    assert out.column("volume").to_pylist() == [2, 2]


def test_a_session_without_a_trade_and_batches_of_rows_outside() -> None:
    bars = Bars("1h", sessions=Sessions("09:30-16:00", tz="America/New_York"))
    night = pa.RecordBatch.from_pydict(
        {"symbol": ["A"], "ts_event": [time_ns("2026-03-07T12:00Z")], "price": [1.0], "size": [1]}
    )
    for _ in range(2):
        assert bars.update(night).num_rows == 0
    assert bars.statistics().outside == 2
    assert bars.flush().num_rows == 0


# -- late rows


def test_late_rows_revise_their_bar_once_each() -> None:
    bars = Bars("1s")
    bars.update(trades((0.5, "A", 10.0, 1), (1.0, "B", 1.0, 1)))
    out = bars.update(trades((0.6, "A", 12.0, 2), (0.1, "A", 8.0, 1)))
    assert seen(out, "open", "high", "low", "close", "volume", "vwap", "trade_count", "revision") == [
        ("A", 0, 10.0, 12.0, 10.0, 12.0, 3, 34 / 3, 2, 1),
        ("A", 0, 8.0, 12.0, 8.0, 12.0, 4, 42 / 4, 3, 2),
    ]
    assert bars.positions.tolist() == [0, 1]
    counts = bars.statistics()
    assert (counts.late, counts.dropped, counts.bars, counts.revisions) == (2, 0, 1, 2)


def test_a_late_row_makes_the_bar_that_was_not_there() -> None:
    bars = Bars("1s")
    bars.update(trades((5.0, "A", 1.0, 1)))
    out = bars.update(trades((0.5, "B", 2.0, 1), (0.6, "B", 3.0, 1)))
    assert seen(out, "close", "revision") == [("B", 0, 2.0, 0), ("B", 0, 3.0, 1)]
    assert (bars.statistics().bars, bars.statistics().revisions) == (1, 1)


def test_bars_are_revised_for_a_while() -> None:
    bars = Bars("1s", revise_for="2s")
    bars.update(trades((0.5, "A", 1.0, 1)))
    bars.advance(3 * S - 1)
    assert bars.update(trades((0.5, "A", 2.0, 1))).num_rows == 1
    bars.advance(3 * S)
    assert bars.update(trades((0.5, "A", 3.0, 1))).num_rows == 0
    assert (bars.statistics().late, bars.statistics().dropped) == (2, 1)
    assert len(bars._history.closed) == 0
    assert bars._history.revised == {}


@pytest.mark.parametrize("late", ["drop", "side"])
def test_late_rows_may_be_dropped_or_set_aside(late: Any) -> None:
    bars = Bars("1s", late=late)
    bars.update(trades((0.5, "A", 1.0, 1), (1.5, "A", 1.0, 1)))
    rows = trades((0.7, "A", 2.0, 5), (1.7, "A", 3.0, 1), (0.8, "B", 4.0, 6))
    assert bars.update(rows).num_rows == 0
    aside = bars.late_rows()
    assert bars.late_rows() == []
    assert bars.statistics().late == 2
    if late == "side":
        assert pa.Table.from_batches(aside).to_pylist() == [rows.to_pylist()[0], rows.to_pylist()[2]]
        assert bars.statistics().dropped == 0
    else:
        assert aside == []
        assert bars.statistics().dropped == 2


def test_rows_after_a_flush_are_late_for_what_was_flushed() -> None:
    bars = Bars("1s", lateness=5)
    bars.update(trades((0.5, "A", 1.0, 1)))
    assert seen(bars.flush(), "revision") == [("A", 0, 0)]
    assert bars.statistics().watermark_ns == S
    assert seen(bars.update(trades((0.7, "A", 2.0, 1))), "revision") == [("A", 0, 1)]
    assert bars.flush().num_rows == 0


# -- filling


def test_symbols_are_filled_from_their_first_bar_on() -> None:
    bars = Bars("1s", fill="previous")
    out = bars.update(trades((0.5, "A", 1.0, 1), (2.5, "B", 2.0, 1), (4.0, "B", 3.0, 1)))
    assert seen(out, "close", "volume", "amount", "vwap", "trade_count") == [
        ("A", 0, 1.0, 1, 1.0, 1.0, 1),
        ("A", 1, 1.0, 0, 0.0, None, 0),
        ("A", 2, 1.0, 0, 0.0, None, 0),
        ("B", 2, 2.0, 1, 2.0, 2.0, 1),
        ("A", 3, 1.0, 0, 0.0, None, 0),
        ("B", 3, 2.0, 0, 0.0, None, 0),
    ]
    assert bars.positions.tolist() == [1, 1, 2, 2, 2, 2]
    assert (bars.statistics().bars, bars.statistics().filled) == (6, 4)


def test_nan_fills_have_no_prices() -> None:
    out = Bars("1s", fill="nan").batch(trades((0.5, "A", 1.0, 1), (2.5, "A", 2.0, 1)))
    assert [repr(row) for row in seen(out, "open", "close", "vwap", "trade_count")] == [
        "('A', 0.0, 1.0, 1.0, 1.0, 1)",
        "('A', 1.0, nan, nan, None, 0)",
        "('A', 2.0, 2.0, 2.0, 2.0, 1)",
    ]


def test_fills_carry_the_revised_close_and_are_themselves_revised() -> None:
    bars = Bars("1s", fill="previous")
    bars.update(trades((0.5, "A", 1.0, 1), (0.5, "B", 1.0, 1)))
    out = bars.update(trades((2.0, "B", 5.0, 1), (0.6, "A", 7.0, 1), (3.0, "B", 6.0, 1), (1.5, "A", 8.0, 1)))
    assert seen(out, "close", "revision") == [
        ("A", 0, 1.0, 0),
        ("B", 0, 1.0, 0),
        ("A", 1, 1.0, 0),
        ("B", 1, 1.0, 0),
        ("A", 0, 7.0, 1),
        ("A", 2, 7.0, 0),
        ("B", 2, 5.0, 0),
        ("A", 1, 8.0, 1),
    ]
    # The newest bar of A is now that of second 1.
    assert seen(bars.advance(4 * S), "close") == [("A", 3, 8.0), ("B", 3, 6.0)]


def test_dropped_symbols_are_filled_again_only_when_they_trade() -> None:
    bars = Bars("1s", fill="previous")
    bars.update(trades((0.5, "A", 1.0, 1), (0.5, "B", 2.0, 1)))
    bars.drop_symbols(["A", "unknown"])
    assert seen(bars.advance(2 * S)) == [("A", 0), ("B", 0), ("A", 1), ("B", 1)]  # A had an open bar
    bars.drop_symbols(["A"])
    assert seen(bars.advance(3 * S)) == [("B", 2)]
    bars.drop_symbols(["B"])
    assert bars.next_due is None
    assert bars.advance(5 * S).num_rows == 0
    bars.update(trades((5.5, "A", 3.0, 1)))
    assert seen(bars.advance(7 * S), "close") == [("A", 5, 3.0), ("A", 6, 3.0)]
    Bars("1s").drop_symbols(["A"])


def test_fills_stay_inside_sessions() -> None:
    sessions = Sessions("09:30-16:00", tz="America/New_York", breaks=["12:00-13:00"])
    bars = Bars("1h", sessions=sessions, fill="previous")
    friday, monday = time_ns("2026-03-06T20:10Z"), time_ns("2026-03-09T15:00Z")
    bars.update(
        pa.RecordBatch.from_pydict(
            {"symbol": ["A", "A"], "ts_event": [friday, monday], "price": [1.0, 2.0], "size": [1, 1]}
        )
    )
    assert bars.next_due == time_ns("2026-03-09T15:30Z")
    out = bars.advance(time_ns("2026-03-09T20:00Z"))
    assert [
        time_ns(t) for t in ("2026-03-09T14:30Z", "2026-03-09T15:30Z", "2026-03-09T17:00Z", "2026-03-09T18:00Z")
    ] == (out.column("ts_event").to_pylist()[:4])
    assert out.column("close").to_pylist() == [2.0] * 5
    assert bars.flush().num_rows == 0
    assert bars.next_due == time_ns("2026-03-10T14:30Z")


@pytest.mark.parametrize(
    "sessions, due",
    [
        (Sessions("09:30-16:00", tz="UTC"), "2026-03-06T10:30:00.001Z"),
        (Sessions("09:30-10:30", tz="UTC"), "2026-03-09T09:30:00.001Z"),
        (Sessions("09:30-10:30", tz="UTC", days="fri"), "2026-03-13T09:30:00.001Z"),
        (Sessions("09:30-10:30", tz="UTC", outside="keep"), "2026-03-06T10:30:00.001Z"),
        (
            Sessions("09:30-10:30", tz="UTC", special={"2026-03-10": "08:30-10:30"}, days="fri"),
            "2026-03-10T08:30:00.001Z",
        ),
    ],
)
def test_the_next_filled_bar_is_found_across_nights_in_no_time(sessions: Sessions, due: str) -> None:
    bars = Bars("1ms", sessions=sessions, fill="previous")
    last = time_ns("2026-03-06T10:29:59.999Z")
    bars.update(pa.RecordBatch.from_pydict({"symbol": ["A"], "ts_event": [last], "price": [1.0], "size": [1]}))
    assert bars.next_due == last + 1_000_000
    bars.advance(last + 1_000_000)
    assert bars.next_due == time_ns(due)
    assert seen(bars.advance(time_ns(due)), "close") == [("A", time_ns(due) / S - 0.001, 1.0)]


def test_there_may_be_no_session_to_come() -> None:
    years = [(date(2026, 6, 1) + timedelta(days=i)).isoformat() for i in range(500)]
    bars = Bars("1h", sessions=Sessions("09:30-10:30", tz="UTC", holidays=years), fill="previous")
    rows = {"symbol": ["A"], "ts_event": [time_ns("2026-05-29T10:00Z")], "price": [1.0], "size": [1]}
    bars.update(pa.RecordBatch.from_pydict(rows))
    bars.flush()
    assert bars.next_due is None


def test_a_wrong_time_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = "expected at most 16777216 filled bars in one call, got about .* intervals - in Bars"
    with pytest.raises(WindowError, match=refused):
        Bars("1s", fill="previous").update(trades((0, "A", 1.0, 1), (9e9, "A", 1.0, 1)))
    bars = Bars("1s", fill="previous")
    bars.update(trades((0.5, "A", 1.0, 1)))
    with pytest.raises(WindowError, match=refused):
        bars.advance(HIGHEST)
    bars.advance(2 * S)
    before = bars.snapshot()
    for call in (lambda: bars.advance(HIGHEST), lambda: bars.update(trades((9e9, "A", 1.0, 1)))):
        with pytest.raises(WindowError, match=refused):
            call()
        assert bars.snapshot() == before
    monkeypatch.setattr(Fills, "MOST", 100)
    assert bars.advance(90 * S).num_rows == 88
    with pytest.raises(WindowError) as error:
        bars.advance(191 * S)
    assert str(error.value) == (
        "expected at most 100 filled bars in one call, got about 102, for 102 intervals - in Bars(fill=...); give "
        "sessions=, drop symbols that no longer trade with drop_symbols, or look for a wrong time"
    )
    # Symbols count from their first bar on: these are 75 rows, not 16 times 60.
    rows = [(149.5, f"S{i}", 1.0, 1) for i in range(15)]
    assert bars.update(trades(*rows, (150.0, "A", 1.0, 1))).num_rows == 60 + 15
    bars.drop_symbols([f"S{i}" for i in range(15)])
    assert bars.advance(190 * S).num_rows == 40


def test_large_fills_are_made_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(0.5, "A", 1.0, 1), (3.5, "B", 2.0, 1), (9.5, "A", 3.0, 1), (12.5, "B", 4.0, 1), (30.5, "A", 5.0, 1)]
    whole = Bars("1s", fill="previous").batch(trades(*rows))
    monkeypatch.setattr(Fills, "BLOCK", 5)
    assert Bars("1s", fill="previous").batch(trades(*rows)) == whole


# -- bars of bars


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from("ABC"), st.integers(1, 9), st.integers(0, 5)), max_size=60),
    st.sampled_from(["none", "previous"]),
    st.booleans(),
)
def test_bars_of_bars_are_the_bars_of_the_trades(rows: list[Any], fill: Any, in_pieces: bool) -> None:
    rows = sorted((time / 10, symbol, price / 4, size) for time, symbol, price, size in rows)
    small, large, direct = Bars("1s", fill=fill), Bars("5s"), Bars("5s").batch(trades(*rows))
    pieces = [[row] for row in rows] if in_pieces else [rows]
    made = [large.update(small.update(trades(*piece))) for piece in pieces]
    made += [large.update(small.flush()), large.flush()]
    out = pa.Table.from_batches(made)
    names = ["open", "high", "low", "close", "volume", "amount", "trade_count", "revision"]
    assert sorted(seen(out, *names)) == sorted(seen(direct, *names))  # quarters add up exactly


def test_smaller_bars_from_elsewhere_need_only_prices_and_volume() -> None:
    daily = {
        "symbol": ["A"] * 3,
        "ts_event": [0, S, 2 * S],
        "open": [1.0, 2.0, 3.0],
        "high": [1.5, 2.5, 3.5],
        "low": [0.5, 1.5, 2.5],
        "close": [1.1, 2.1, 3.1],
        "volume": [1, 0, 3],
    }
    names = ("open", "high", "low", "close", "volume", "amount", "vwap", "trade_count")
    bare = Bars("3s").batch(pa.RecordBatch.from_pydict(daily))
    assert seen(bare, *names) == [("A", 0, 1.0, 3.5, 0.5, 3.1, 4, None, None, 3)]
    vwap = pa.RecordBatch.from_pydict(daily | {"vwap": [1.0, None, 3.0]})
    assert seen(Bars("3s").batch(vwap), *names) == [("A", 0, 1.0, 3.5, 0.5, 3.1, 4, 10.0, 2.5, 3)]


def test_revisions_of_smaller_bars_are_dropped_and_counted() -> None:
    small, large = Bars("1s"), Bars("10s")
    large.update(small.update(trades((0.5, "A", 1.0, 1), (1.5, "A", 2.0, 1), (0.6, "A", 9.0, 7))))
    large.update(small.flush())
    assert seen(large.flush(), "high", "volume") == [("A", 0, 2.0, 2)]
    assert (large.statistics().rows, large.statistics().dropped, large.statistics().missing) == (3, 1, 0)


def test_a_late_smaller_bar_revises() -> None:
    bars = Bars("2s")
    first = Bars("1s").batch(trades((0.5, "A", 5.0, 1), (2.5, "A", 6.0, 1)))
    late = Bars("1s").batch(trades((1.1, "A", 1.0, 1), (1.9, "A", 4.0, 1)))
    bars.update(first)
    assert seen(bars.update(late), "open", "high", "low", "close", "volume", "revision") == [
        ("A", 0, 5.0, 5.0, 1.0, 4.0, 3, 1)
    ]


# -- frames, and looking in from outside


def test_frames_come_back_as_they_went_in() -> None:
    batch = trades((0.5, "A", 1.0, 1), (1.5, "A", 2.0, 1))
    bars = Bars("1s")
    expected = bars.batch(batch)
    assert isinstance(expected, pa.RecordBatch)
    assert expected.num_rows == 2
    table = pa.Table.from_batches([batch.slice(0, 1), batch.slice(1)])
    assert bars.batch(table).combine_chunks().to_batches()[0] == expected
    frame = bars.batch(pl.DataFrame(pl.from_arrow(table)))
    assert isinstance(frame, pl.DataFrame)
    assert frame.to_arrow().cast(BARS).combine_chunks().to_batches()[0] == expected
    panda = bars.batch(batch.to_pandas())
    assert isinstance(panda, pd.DataFrame)
    assert panda["close"].tolist() == [1.0, 2.0]
    assert isinstance(bars.batch(pa.RecordBatchReader.from_batches(batch.schema, [batch])), pa.Table)
    assert bars.batch(batch.slice(0, 0)).num_rows == 0
    assert bars.batch(table.slice(0, 0)).num_rows == 0
    assert bars.statistics().rows == 0  # untouched


def test_long_frames_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = trades(*((i / 10, "AB"[i % 2], float(i), i) for i in range(100)))
    whole = Bars("1s").batch(rows)
    monkeypatch.setattr(bars_module, "_PART", 7)
    assert Bars("1s").batch(rows) == whole


def test_a_frame_sorted_by_symbol_is_warned_about() -> None:
    rows = trades(*((i, "A", 1.0, 1) for i in range(4)), *((i, symbol, 1.0, 1) for symbol in "BCD" for i in range(4)))
    with pytest.warns(PenstockWarning, match=r"9 of 16 rows are late - in Bars.batch; sort the frame by time"):
        Bars("1s").batch(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Bars("1s", lateness=10).batch(rows)


def test_open_bars_can_be_looked_at() -> None:
    bars = Bars("1s", lateness=3)
    assert bars.open_bars().num_rows == 0
    bars.update(trades((1.5, "B", 2.0, 2), (0.5, "A", 1.0, 1), (1.7, "A", 3.0, 1), (1.6, "B", 4.0, 2)))
    assert seen(bars.open_bars(), "close", "vwap", "trade_count") == [
        ("A", 0, 1.0, 1.0, 1),
        ("B", 1, 4.0, 3.0, 2),
        ("A", 1, 3.0, 3.0, 1),
    ]
    assert bars.statistics().open == 3
    assert seen(bars.flush()) == [("A", 0), ("B", 1), ("A", 1)]
    assert bars.open_bars().num_rows == 0


def test_what_bars_was_made_with_can_be_read() -> None:
    bars = Bars("90s", lateness=0.5, late="side", sessions=Sessions("09:30-16:00", tz="America/New_York"))
    assert (bars.size_ns, bars.lateness_ns, bars.late) == (90 * S, S // 2, "side")
    assert bars.parameters == {
        "interval": "90s",
        "by": "symbol",
        "price": "price",
        "size": "size",
        "time": "ts_event",
        "lateness": "500000000ns",
        "late": "side",
        "revise_for": "15m",
        "label": "start",
        "fill": "none",
        "sessions": "Sessions('09:30-16:00', tz='America/New_York')",
        "tz": None,
        "origin": 0,
        "closed": "left",
    }


def test_empty_batches_and_no_rows_at_all() -> None:
    bars = Bars("1s")
    assert bars.statistics().watermark_ns is None
    assert bars.flush().schema == BARS
    assert bars.update(trades()).num_rows == 0
    assert len(bars.positions) == 0
    assert bars.statistics().rows == 0


# -- what cannot be


@pytest.mark.parametrize(
    "options, message",
    [
        ({"late": "ignore"}, "expected late of 'revise', 'drop', 'side', got 'ignore' - in Bars"),
        ({"label": "left"}, "expected label of 'start', 'end', got 'left' - in Bars"),
        ({"fill": None}, "expected fill of 'none', 'previous', 'nan', got None - in Bars"),
        ({"closed": "both"}, "expected closed of 'left', 'right', got 'both' - in Bars"),
        ({"by": ""}, "expected the name of a column for by, got '' - in Bars"),
        ({"price": None}, "expected the name of a column for price, got None - in Bars"),
        ({"interval": 0}, "expected an interval of at least 1 ns, got 0 - in Bars"),
        ({"sessions": "09:30-16:00"}, "expected penstock.window.Sessions for sessions, got '09:30-16:00' - in Bars"),
        (
            {"sessions": Sessions("09:30-16:00", tz="UTC"), "tz": "UTC"},
            "sessions have a zone and a start of their own - in Bars; leave out tz and origin",
        ),
        ({"interval": "25h", "tz": "UTC"}, "expected size_ns of at most a day, or of whole days, with tz"),
    ],
)
def test_parameters_that_cannot_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(WindowError) as error:
        Bars(**{"interval": 1, **options})
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("options", [{"interval": "soon"}, {"lateness": -1}, {"revise_for": None, "origin": "noon"}])
def test_durations_and_times_must_be_some(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Bars(**{"interval": 1, **options})


@pytest.mark.parametrize("when", [1.5, True, "2026-01-01", None, 2**63, -(2**63)])
def test_a_heartbeat_is_an_int_of_ns(when: Any) -> None:
    with pytest.raises(UsageError, match="expected a time as an int of ns since 1970, got"):
        Bars("1s").advance(when)


def test_volumes_do_not_wrap() -> None:
    bars = Bars("1s")
    big = 2**62
    bars.update(trades((0.1, "A", 1.0, big)))
    before = bars.snapshot()
    with pytest.raises(RecordError) as error:
        bars.update(trades((0.2, "A", 1.0, big)), first=1)
    assert str(error.value) == (
        f"expected volumes within int64, got {big} in one batch, on bars of up to {big} - in the batch at row 1; "
        "give sizes as float64, or in larger units"
    )
    assert bars.snapshot() == before
    bars.flush()
    with pytest.raises(RecordError, match="expected volumes within int64"):
        bars.update(trades((0.3, "A", 1.0, big)))  # late: it would revise the bar
    bars.advance(100 * S)
    bars.update(trades((100.1, "A", 1.0, big)))
    assert bars.flush().column("volume").to_pylist() == [big]


def test_times_at_the_edge_of_int64_are_refused() -> None:
    for closed in ("left", "right"):
        for time in (HIGHEST, -HIGHEST - 1):
            rows = pa.RecordBatch.from_pydict({"symbol": ["A"], "ts_event": [time], "price": [1.0], "size": [1]})
            with pytest.raises(WindowError, match="expected a window within int64 nanoseconds"):
                Bars("1s", closed=closed).update(rows)  # type: ignore[arg-type]
    late = Bars("1s", lateness="100d")
    late.update(
        pa.RecordBatch.from_pydict({"symbol": ["A"], "ts_event": [HIGHEST - 5 * S], "price": [1.0], "size": [1]})
    )
    assert late.flush().num_rows == 1
