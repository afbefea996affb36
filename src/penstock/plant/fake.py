"""A made-up market: random walks as bars, trades or quotes, the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from penstock.clock import NS
from penstock.errors import UsageError
from penstock.records import BARS, QUOTES, TRADES

__all__ = ["EVENTS", "FakeMarket"]

EVENTS = {"AM": 60 * NS, "A": NS, "T": 0, "Q": 0}
"""Events it can make, and the length of their bars in ns: minutes, seconds; trades; quotes."""


class FakeMarket:
    """Random walks of some symbols.

    Takes   symbols: distinct names;  event: "AM", "A" (bars of a minute, of a second), "T" or "Q";  seed: of the
            numbers, which depend on nothing else;  start: ns since 1970 of the first bar, trade or quote.
    Prices have two decimals and stay positive; a bar opens where the last one closed and its vwap lies within it.
    Raises  UsageError for other events, no symbols, or one given twice.

    >>> market = FakeMarket(["AAPL", "MSFT"], seed=7, start=0)
    >>> market.next().num_rows
    2
    """

    def __init__(self, symbols: Sequence[str], event: str = "AM", *, seed: int = 0, start: int = 0) -> None:
        if event not in EVENTS:
            raise UsageError(expected=f"an event of {', '.join(EVENTS)}", got=repr(event))
        if not symbols or len(set(symbols)) != len(symbols) or not all(symbols):
            raise UsageError(expected="symbols, each once", got=", ".join(map(repr, symbols)) or "none")
        self.symbols, self.event = list(symbols), event
        self.schema: pa.Schema = {"T": TRADES, "Q": QUOTES}.get(event, BARS)
        self._random = np.random.default_rng(seed)
        self._length = EVENTS[event]
        self._time = start // self._length * self._length if self._length else start
        self._price = np.round(self._random.uniform(5, 500, len(symbols)), 2)
        self._sequence = 0

    def next(self, now: int | None = None) -> pa.RecordBatch:
        """One row per symbol: the bar of the next interval; trades and quotes are of `now` (ns)."""
        count, random = len(self.symbols), self._random
        steps = self._price[:, None] * np.exp(random.normal(0, 0.0005, (count, 8)).cumsum(1))
        path = np.maximum(np.round(np.column_stack([self._price, steps]), 2), 0.01)
        self._price = path[:, -1].copy()
        self._sequence += 1
        if self._length:
            columns = self._bars(path)
            self._time += self._length
        else:
            self._time = now if now is not None else self._time + 1
            columns = self._trades(path) if self.event == "T" else self._quotes(path)
        columns["symbol"] = self.symbols
        return pa.RecordBatch.from_pydict({f.name: columns[f.name] for f in self.schema}, schema=self.schema)

    def _bars(self, path: np.ndarray) -> dict[str, object]:
        count = len(path)
        sizes = self._random.integers(1, 400, path.shape)
        volume = sizes.sum(1)
        amount = (sizes * path).sum(1)
        return {
            "ts_event": np.full(count, self._time),
            "ts_close": np.full(count, self._time + self._length),
            "open": path[:, 0],
            "high": path.max(1),
            "low": path.min(1),
            "close": path[:, -1],
            "volume": volume,
            "amount": amount,
            "vwap": np.clip(np.round(amount / volume, 4), path.min(1), path.max(1)),
            "trade_count": np.full(count, path.shape[1]),
            "revision": np.zeros(count, np.int32),
        }

    def _trades(self, path: np.ndarray) -> dict[str, object]:
        count = len(path)
        return {
            "ts_event": np.full(count, self._time),
            "ts_recv": np.full(count, self._time),
            "price": path[:, -1],
            "size": self._random.integers(1, 400, count),
            "side": [("buy", "sell")[i] for i in self._random.integers(0, 2, count)],
            "sequence": np.full(count, self._sequence),
        }

    def _quotes(self, path: np.ndarray) -> dict[str, object]:
        count = len(path)
        half = np.round(self._random.integers(1, 5, count) / 100, 2)
        return {
            "ts_event": np.full(count, self._time),
            "ts_recv": np.full(count, self._time),
            "bid_px": np.maximum(np.round(path[:, -1] - half, 2), 0.01),
            "ask_px": np.round(path[:, -1] + half, 2),
            "bid_sz": self._random.integers(1, 40, count),
            "ask_sz": self._random.integers(1, 40, count),
            "sequence": np.full(count, self._sequence),
        }
