"""The demo's factors: written once, computed live by a feed, and once more over history to compare the bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.factor import Factors, Program
from penstock.factor import compile as compile_
from penstock.log import Stream

__all__ = ["ALONG", "Comparison", "across", "compare", "factor_schema", "program_of"]

ALONG = Factors(
    momentum="close / ts_delay(close, 10) - 1",
    trend="close / ts_mean(close, 20) - 1",
    volatility="ts_std(ts_returns(close, 1), 20)",
    place="(close - ts_min(low, 20)) / (ts_max(high, 20) - ts_min(low, 20))",
    flow="ts_corr(close, volume, 20)",
    vwap_gap="close / vwap - 1",
)
"""Of each bar and those before it, along time."""


def across(price: str) -> Factors:
    """Of all symbols at one time, across them; `price` is the column of the price."""
    return Factors(
        reversal=f"cs_rank(-ts_delta({price}, 5))",
        strength=f"cs_rank(ts_returns({price}, 20))",
        volume_z="cs_zscore(volume / ts_mean(volume, 20))",
        spread=f"cs_demean(ts_returns({price}, 1))",
    )


def program_of(factors: Factors) -> Program:
    """The compiled factors."""
    return compile_(factors)


def factor_schema(program: Program) -> pa.Schema:
    """Columns of the stream that a program's values go to."""
    keys = [pa.field("symbol", pa.string(), nullable=False), pa.field("ts_event", pa.int64(), nullable=False)]
    return pa.schema([*keys, *(pa.field(name, pa.float64()) for name in program.outputs)])


@dataclass(frozen=True, slots=True)
class Comparison:
    """Live against batch: values compared, and bits that differ; a row that only one of them has differs in all."""

    values: int
    bits: int


def compare(program: Program, bars: Stream, factors: Stream) -> Comparison:
    """The values in `factors`, made live, against the program over all of `bars` at once."""
    live = _sorted(factors.read())
    batch = _sorted(program.batch(bars.read()))
    both = live["symbol"].equals(batch["symbol"]) and live["ts_event"].equals(batch["ts_event"])
    rows = max(live.num_rows, batch.num_rows)
    values = rows * len(program.outputs)
    if not both:
        return Comparison(values, values * 64)
    bits = 0
    for name in program.outputs:
        one, other = (_bits(table[name]) for table in (live, batch))
        bits += int(np.unpackbits((one ^ other).view(np.uint8)).sum())
    return Comparison(values, bits)


def _sorted(table: Any) -> pa.Table:
    return table.sort_by([("ts_event", "ascending"), ("symbol", "ascending")]).combine_chunks()


def _bits(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.ascontiguousarray(column.to_numpy()).view(np.uint64)
