"""Bars to factors, live, in a process that is killed half way: the stream of factors is that of history, bit by bit.

python examples/factors_live.py
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile

import penstock as ps
from penstock import factor as f
from penstock.connect import Dataset, samples
from penstock.window import Bars

MINE = {
    "reversal": "-1 * rank(delta(close, 5))",
    "trend": "close / ts_mean(close, 10) - 1",
    "flow": "correlation(close, volume, 10)",
}


def follow(folder: str) -> None:
    hub = ps.open(folder)
    f.compile(MINE).follow(hub.streams.get("bars"), into="factors").run(timeout=2, flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, ps.open(folder) as hub:
        trades = hub.streams.get("trades", schema=ps.records.TRADES)
        bars = hub.streams.get("bars", schema=ps.records.BARS)
        factors = hub.streams.get("factors")
        Dataset(samples.market(50_000, symbols=["AAPL", "MSFT", "TSLA"], seed=7)).stream(trades)
        context = multiprocessing.get_context("spawn")
        first = context.Process(target=follow, args=(folder,))
        first.start()
        minutes = hub.streams.get("trades", lazy=True, emitter=Bars("1m"), into=bars, blocking=False)
        minutes.apply(max_windows=20)
        factors.wait(30, 60)  # some are there ...
        os.kill(first.pid or 0, signal.SIGKILL)  # ... and who made them is gone
        first.join()
        minutes.apply(flush=True)
        second = context.Process(target=follow, args=(folder,))
        second.start()
        second.join()

        live, history = factors.read(), f.compile(MINE).batch(bars.read())
        same = all(live[name].to_numpy().tobytes() == history[name].to_numpy().tobytes() for name in MINE)
        print(f"{live.num_rows} rows of {len(MINE)} factors, {'the bits of history' if same else 'NOT as in history'}")


if __name__ == "__main__":
    main()
