from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.app import load_market
from penstock.connect.samples import DAILY_BARS
from penstock.records import TRADES, event_times


def test_the_made_up_market() -> None:
    market = load_market(synthetic=True, limit=1000)
    assert market.synthetic
    assert market.trades.schema.equals(TRADES)
    assert market.trades.num_rows == 1000
    assert market.symbols == sorted(set(market.trades["symbol"].to_pylist()))
    assert market.daily is None
    first, last = market.span_ns
    times = event_times(market.trades, "ts_event")
    assert (first, last) == (times.min(), times.max())


def test_without_a_network_it_is_the_made_up_market_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    told: list[str] = []
    market = load_market(limit=500, tell=told.append)
    assert market.synthetic
    assert market.trades.num_rows == 500
    assert told[0].startswith("loading real market data")
    assert told[1].startswith("no real trades: ")
    assert told[2] == "going on with a made-up market"


@pytest.mark.slow
def test_the_real_market(need: Callable[[object, str], None]) -> None:
    market = load_market(limit=1000, tell=lambda text: print(text, file=sys.stderr))
    need(not market.synthetic, "the package index, for the real sample data")
    assert market.symbols == ["ES"]
    assert market.trades.num_rows == 1000
    assert market.daily is not None
    assert market.daily.schema.equals(DAILY_BARS)
    times = event_times(market.daily.combine_chunks().to_batches()[0], "ts_event")
    assert (times[1:] >= times[:-1]).all()
