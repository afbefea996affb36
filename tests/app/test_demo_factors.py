from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from penstock.app import demo_factors
from penstock.app.demo_factors import Comparison, compare, factor_schema, program_of
from penstock.hub import Hub
from penstock.log import Stream
from penstock.records import BARS

MINUTE = 60_000_000_000


def bars(rows: int, symbols: str = "AB", *, seed: int = 0) -> pa.Table:
    """Bars of each symbol; after the first minutes B misses some."""
    random = np.random.default_rng(seed)
    made = []
    for i in range(rows):
        for symbol in symbols:
            if symbol == "B" and i in (3, 7, 8):
                continue
            low, high = np.sort(random.uniform(10, 11, 2)).tolist()
            made.append(
                {
                    "symbol": symbol, "ts_event": i * MINUTE, "ts_close": (i + 1) * MINUTE, "open": low, "high": high,
                    "low": low, "close": float(random.uniform(low, high)), "volume": int(random.integers(1, 1000)),
                    "amount": 1.0, "vwap": (low + high) / 2, "trade_count": 1, "revision": 0,
                }
            )  # fmt: skip
    return pa.Table.from_pylist(made, BARS)


def run(hub: Hub, factors: object, table: pa.Table) -> tuple[object, Stream, Stream]:
    """Bars through a live consumer; the program and both streams."""
    program = program_of(factors)  # type: ignore[arg-type]
    source = hub.streams.get("bars", schema=BARS)
    into = hub.streams.get("factors", schema=factor_schema(program))
    for batch in table.to_batches(max_chunksize=7):
        source.append(batch)
    feed = program.follow(source, into="factors", symbols=sorted(set(table["symbol"].to_pylist())), on_error="stop")
    feed.run(blocking=False, flush=True)
    return program, source, into


@pytest.mark.parametrize("name", ["along", "across"])
def test_live_is_history_to_the_bit(hub: Hub, name: str) -> None:
    factors = demo_factors.ALONG if name == "along" else demo_factors.across("close")
    table = bars(60)
    program, source, into = run(hub, factors, table)
    values = table.num_rows * len(factors)
    assert compare(program, source, into) == Comparison(values, 0)  # type: ignore[arg-type]
    warm = into.read().slice(len(into) - 10)
    assert all(np.isfinite(warm[factor].to_numpy()).any() for factor in factors)


def test_a_difference_is_counted_in_bits(hub: Hub) -> None:
    program, source, into = run(hub, demo_factors.ALONG, bars(30, "A"))
    values = into.read()
    changed = values["vwap_gap"].to_numpy().copy()
    changed.view(np.uint64)[3] ^= 0b101
    other = hub.streams.get("other", schema=into.schema)
    other.append(
        values.set_column(values.schema.get_field_index("vwap_gap"), into.schema.field("vwap_gap"), pa.array(changed))
    )
    assert compare(program, source, other).bits == 2  # type: ignore[arg-type]
    short = hub.streams.get("short", schema=into.schema)
    short.append(values.slice(1))
    assert compare(program, source, short) == Comparison(len(values) * 6, len(values) * 6 * 64)  # type: ignore[arg-type]
