"""Factors over history and tick by tick: the same bits, also across a snapshot; and where one value came from.

python examples/alphas.py
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from penstock import factor as f
from penstock.connect import samples
from penstock.window import Bars

SYMBOLS = [f"S{i:04}" for i in range(8)]


def main() -> None:
    trades = pa.Table.from_batches(samples.market(100_000, symbols=SYMBOLS, seed=7))
    bars = pa.table(Bars("1m").batch(trades)).sort_by([("ts_event", "ascending"), ("symbol", "ascending")])

    close = f.field("close")
    mine = f.Factors(reversal=-f.rank(f.ts_delta(close, 5)), trend="close / ts_mean(close, 10) - 1")
    program = f.compile(mine | f.library("alpha101").select("alpha006", "alpha012"))
    panel = program.batch(bars)

    # the same tick by tick; at tick 20 another stream goes on from the first one's snapshot
    live = program.stream(SYMBOLS)
    differ = values = 0
    for tick, ts in enumerate(pa.compute.unique(bars["ts_event"]).to_pylist()):
        if tick == 20:
            live = program.stream(state=live.snapshot())
        row = bars.filter(pa.compute.equal(bars["ts_event"], ts))
        at = [SYMBOLS.index(symbol) for symbol in row["symbol"].to_pylist()]
        inputs = {name: np.full(len(SYMBOLS), np.nan) for name in program.inputs}
        for name, array in inputs.items():
            array[at] = row[name].to_numpy()
        out = live.step(**inputs)
        want = panel.filter(pa.compute.equal(panel["ts_event"], ts))
        for name in program.outputs:
            differ += int((out[name][at].view("u8") != want[name].to_numpy().view("u8")).sum())
            values += len(at)

    print(f"{values:,} values, {differ} differ between history and ticks; the last one of S0003 came from:")
    print(program.explain("reversal", bars, symbol="S0003"))


if __name__ == "__main__":
    main()
