"""Rows to look at."""

from __future__ import annotations

import pytest

from penstock.hub import Hub
from penstock.log import Stream
from penstock.records import TRADES

START = 1_763_600_000_000_000_000  # 2025-11-20T00:53:20Z


def trade(i: int) -> dict[str, object]:
    """The i-th trade: one a second."""
    return {"symbol": "AB"[i % 2], "ts_event": START + i * 1_000_000_000, "price": 100 + i / 4, "size": i}


@pytest.fixture
def trades(hub: Hub) -> Stream:
    """Twenty trades, in four appends."""
    stream = hub.streams.get("trades", schema=TRADES, attributes={"venue": "XNAS", "of": {"a": 1}})
    for first in range(0, 20, 5):
        stream.append([trade(i) for i in range(first, first + 5)])
    return stream
