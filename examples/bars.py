"""Trades to one-minute bars, live: a consumer with results in another stream, read as a table.

python examples/bars.py
"""

from __future__ import annotations

import tempfile

import penstock as ps
from penstock.connect import Dataset, samples
from penstock.window import Bars


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, ps.open(folder) as hub:
        trades = hub.streams.get("trades", schema=ps.records.TRADES)
        Dataset(samples.market(100_000, symbols=["AAPL", "MSFT", "TSLA"], seed=7)).stream(trades)

        # closed bars go to `bars`, each once, also when this is killed and started again
        hub.streams.get("trades", lazy=True, emitter=Bars("1m"), into="bars", blocking=False).apply()

        bars = hub.streams.get("bars").read(columns=["symbol", "ts_event", "open", "high", "low", "close", "volume"])
        print(f"{len(trades):,} trades, {bars.num_rows:,} bars; the last three:")
        for row in bars.slice(bars.num_rows - 3).to_pylist():
            print(f"  {row}")


if __name__ == "__main__":
    main()
