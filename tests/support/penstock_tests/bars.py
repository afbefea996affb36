"""A few bars of one symbol, as a table of the store gives them back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

__all__ = ["MINUTE", "NOON", "bars", "strict"]

NOON = 1_767_268_800_000_000_000  # 2026-01-01T12:00Z
MINUTE = 60_000_000_000


def strict(frame: pa.Table, *names: str) -> pa.Table:
    """As a table gives it back: neither key nor time is ever null."""
    return frame.cast(pa.schema([field.with_nullable(field.name not in names) for field in frame.schema]))


def bars(symbol: str = "AAPL", rows: int = 3, first: int = 0, price: float = 1.0) -> pa.Table:
    times = NOON + (first + np.arange(rows)) * MINUTE
    columns = {"symbol": pa.array([symbol] * rows, pa.string()), "ts_event": times, "close": np.full(rows, price)}
    return strict(pa.table(columns), "symbol", "ts_event")
