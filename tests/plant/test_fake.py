from __future__ import annotations

import numpy as np
import pytest

from penstock.errors import UsageError
from penstock.plant.fake import EVENTS, FakeMarket
from penstock.records import BARS, QUOTES, TRADES


@pytest.mark.parametrize("event", EVENTS)
def test_the_same_seed_is_the_same_market(event):
    one, two, other = (FakeMarket(["A", "B"], event, seed=seed, start=1) for seed in (7, 7, 8))
    first = [one.next(5) for _ in range(5)]
    assert first == [two.next(5) for _ in range(5)]
    assert first != [other.next(5) for _ in range(5)]
    assert first[0].schema == {"T": TRADES, "Q": QUOTES}.get(event, BARS)


def test_bars_hang_together():
    market = FakeMarket([f"S{i}" for i in range(50)], seed=1, start=90 * 10**9)
    before = None
    for minute in range(200):
        bar = {
            name: column.to_numpy(zero_copy_only=False)
            for name, column in zip(BARS.names, market.next().columns, strict=True)
        }
        assert (bar["ts_event"] == (minute + 1) * 60 * 10**9).all()
        assert (bar["ts_close"] - bar["ts_event"] == 60 * 10**9).all()
        assert (bar["low"] <= np.minimum(bar["open"], bar["close"])).all()
        assert (bar["high"] >= np.maximum(bar["open"], bar["close"])).all()
        assert ((bar["low"] <= bar["vwap"]) & (bar["vwap"] <= bar["high"])).all()
        assert (bar["low"] > 0).all()
        if before is not None:
            assert (bar["open"] == before).all()
        before = bar["close"]


def test_quotes_do_not_cross():
    market = FakeMarket(["A"], "Q", seed=1)
    for now in range(100):
        row = market.next(now).to_pylist()[0]
        assert 0 < row["bid_px"] < row["ask_px"]
        assert row["ts_event"] == now


def test_what_cannot_be_meant():
    with pytest.raises(UsageError, match="expected an event of AM, A, T, Q, got 'X'"):
        FakeMarket(["A"], "X")
    with pytest.raises(UsageError, match="expected symbols, each once, got 'A', 'A'"):
        FakeMarket(["A", "A"])
    with pytest.raises(UsageError, match="expected symbols, each once, got none"):
        FakeMarket([])
