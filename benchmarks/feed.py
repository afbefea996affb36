"""A stream of bars through a program into a stream: catching up, tick by tick, and the program alone.

    python benchmarks/feed.py [--rounds 3] [--json FILE]

Ten factors (six along time, four across symbols), in CPU seconds of this process: everything from the log and back.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import penstock as ps
from _report import arguments, rounds, show, write
from penstock import factor as f
from penstock.app import demo_factors

MINUTE = 60_000_000_000
FACTORS = f.Factors({**demo_factors.ALONG, **demo_factors.across("close")})


def bars(symbols: int, ticks: int) -> pa.Table:
    """Bars of every symbol for every minute."""
    random = np.random.default_rng(7)
    rows = symbols * ticks
    close = random.uniform(9, 11, rows)
    names = pa.array([f"S{number:05}" for number in range(symbols)])
    start = np.repeat(np.arange(ticks) * MINUTE, symbols)
    return pa.table(
        {
            "symbol": names.take(pa.array(np.tile(np.arange(symbols), ticks))), "ts_event": start,
            "ts_close": start + MINUTE, "open": close, "high": close + 1, "low": close - 1, "close": close,
            "volume": random.integers(1, 99, rows), "amount": close, "vwap": close,
            "trade_count": random.integers(1, 9, rows), "revision": np.zeros(rows, np.int32),
        }
    ).cast(ps.records.BARS)  # fmt: skip


def behind(program: f.Program, table: pa.Table, at_once: int) -> float:
    """Rows per second when all are there already, appended that many at a time."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    with ps.open(folder) as hub:
        stream = hub.streams.get("bars", schema=ps.records.BARS)
        for batch in table.to_batches(max_chunksize=at_once):
            stream.append(batch)
        feed = program.follow(stream, into="factors")
        start = time.process_time()
        feed.run(blocking=False, flush=True)
        taken = time.process_time() - start
    shutil.rmtree(folder)
    return table.num_rows / taken


def live(program: f.Program, table: pa.Table, symbols: int, times: list[float]) -> float:
    """Rows per second when each tick is computed and appended before the next one comes; `times` get each tick's."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    names = table["symbol"].slice(0, symbols).to_pylist()
    with ps.open(folder) as hub:
        stream = hub.streams.get("bars", schema=ps.records.BARS)
        batches = table.to_batches(max_chunksize=symbols)
        began = [0]

        def tick(window: ps.Window) -> pa.Table:
            return window.table

        def done(window: ps.Window) -> bool:
            times.append(time.perf_counter() - began[0])
            if len(times) < len(batches):
                began[0] = time.perf_counter()
                stream.append(batches[len(times)])
            return len(times) == len(batches)

        feed = program.follow(stream, into="factors", symbols=names)
        start = time.process_time()
        began[0] = time.perf_counter()
        stream.append(batches[0])
        feed.apply(tick, until=done)
        taken = time.process_time() - start
    shutil.rmtree(folder)
    return table.num_rows / taken


def alone(program: f.Program, table: pa.Table) -> float:
    start = time.process_time()
    program.batch(table)
    return table.num_rows / (time.process_time() - start)


def main() -> None:
    options = arguments(__doc__ or "")
    program = f.compile(FACTORS)
    results: list[dict[str, Any]] = []
    for symbols, ticks in ((5, 10_000), (500, 500)):
        table = bars(symbols, ticks)
        times: list[float] = []

        def tick_by_tick(table: pa.Table = table, symbols: int = symbols, times: list[float] = times) -> float:
            times.clear()
            return live(program, table, symbols, times)

        sides: dict[str, Callable[[], float]] = {
            "behind, large appends": lambda table=table: behind(program, table, 65536),
            "behind, an append per tick": lambda table=table, symbols=symbols: behind(program, table, symbols),
            "live, tick by tick": tick_by_tick,
            "program.batch alone": lambda table=table: alone(program, table),
        }
        figures = rounds(sides, options.rounds)
        results += show(f"{symbols} symbols x {ticks} ticks", figures, "rows/s", "live, tick by tick")
        ordered = sorted(times)
        p99 = ordered[len(ordered) * 99 // 100]
        print(f"  from append to append, live: median {statistics.median(times) * 1e6:.0f} us, p99 {p99 * 1e6:.0f} us")
    write(options.json, results, "numpy", "pyarrow", "llvmlite")


if __name__ == "__main__":
    main()
