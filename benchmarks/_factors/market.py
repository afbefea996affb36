"""Made-up prices, the same in every run."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Panel = dict[str, Array]

BARS = ("open", "close", "high", "low", "volume", "amount")
"""What the peer's two libraries take."""


def prices(rows: int, symbols: int, dtype: str = "float32") -> Panel:
    """Random walks, and as `b` further ones."""
    random = np.random.default_rng(7)
    walks = (20 * np.exp(random.normal(0, 0.02, (2, rows, symbols)).cumsum(1))).astype(dtype)
    return {"a": walks[0], "b": walks[1]}


def market(rows: int, symbols: int, dtype: str = "float32") -> Panel:
    """Daily bars with what the 101 alphas want beside."""
    random = np.random.default_rng(1)
    start = random.uniform(0.5, 100, symbols) * np.exp(random.normal(0, 0.03, (rows, symbols)).cumsum(0))
    close = start * random.uniform(0.95, 1.05, start.shape)
    volume = random.uniform(5, 10, start.shape)
    panel = {
        "open": start,
        "close": close,
        "high": np.maximum(start, close) * random.uniform(1, 1.05, start.shape),
        "low": np.minimum(start, close) * random.uniform(0.95, 1, start.shape),
        "volume": volume,
        "amount": volume * start,
        "vwap": start * random.uniform(0.99, 1.01, start.shape),
        "cap": random.uniform(1, 100, start.shape),
    }
    for name, groups in (("sector", 5), ("industry", 12), ("subindustry", 30)):
        panel[name] = np.tile(random.integers(0, groups, symbols), (rows, 1))
    return {name: np.ascontiguousarray(x, dtype) for name, x in panel.items()}
