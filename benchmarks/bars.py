"""One-second bars of one million trades, beside loops and libraries doing the same work, in one run.

Every side gets the same trades in its own favourite form, made before the clock starts, in batches where it takes
batches, and holds its unfinished bars between them. All bars are compared with those of the plain loop. Peers make
open, high, low, close and volume; ours also amount, vwap and number of trades, and would take late trades. "The loop
alone" is the compiled fold into cells that are known already: what the rest is to be measured by.

    python benchmarks/bars.py [--trades 1000000] [--symbols 500] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import gc
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from _report import arguments, rounds, show, write
from penstock.window.bars import Bars, kernel
from penstock.window.bars.cells import Cells
from penstock.window.bars.input import Rows

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
TINY, SMALL, LARGE = 1_000, 10_000, 100_000
Bar = tuple[int, int, float, float, float, float, int]  # start, symbol, open, high, low, close, volume


class Trades:
    """Random trades in order of time, 10,000 a second, in every form a side wants."""

    def __init__(self, count: int, symbols: int) -> None:
        random = np.random.default_rng(7)
        self.count, self.symbols = count, symbols
        self.time = START + np.sort(random.integers(0, max(1, count // 10_000) * SECOND, count))
        self.symbol = random.integers(0, symbols, count)
        self.price = np.round(100 + np.cumsum(random.normal(0, 0.01, count)), 2)
        self.size = random.integers(1, 1000, count)
        self.names = np.array([f"SYM{number:05d}" for number in range(symbols)])

    def arrow(self, symbol: pa.Array, rows: int) -> list[pa.RecordBatch]:
        table = pa.table({"symbol": symbol, "ts_event": self.time, "price": self.price, "size": self.size})
        return [table.slice(i, rows).combine_chunks().to_batches()[0] for i in range(0, self.count, rows)]

    def tuples(self) -> list[tuple[int, int, float, int]]:
        columns = (self.time, self.symbol, self.price, self.size)
        return list(zip(*(column.tolist() for column in columns), strict=True))


def plain(trades: list[tuple[int, int, float, int]]) -> list[Bar]:
    """A dict of open bars, emptied whenever a trade of a later second comes."""
    done: list[Bar] = []
    bars: dict[int, list[Any]] = {}
    end = 0
    for moment, symbol, price, size in trades:
        if moment >= end:
            start = end - SECOND
            for key, (a, b, c, d, e) in bars.items():
                done.append((start, key, a, b, c, d, e))
            bars = {}
            end = moment // SECOND * SECOND + SECOND
        bar = bars.get(symbol)
        if bar is None:
            bars[symbol] = [price, price, price, price, size]
        else:
            if price > bar[1]:
                bar[1] = price
            elif price < bar[2]:
                bar[2] = price
            bar[3] = price
            bar[4] += size
    done += [(end - SECOND, key, *bar) for key, bar in bars.items()]
    return done


def by_numpy(batches: list[tuple[np.ndarray, ...]]) -> list[list[np.ndarray]]:
    """Sort each batch by (second, symbol), reduce the groups, and join them with the bars left open."""

    def reduce(columns: list[np.ndarray]) -> list[np.ndarray]:
        start, symbol, first, high, low, last, volume = columns
        order = np.lexsort((symbol, start))
        start, symbol = start[order], symbol[order]
        head = np.flatnonzero(np.r_[True, (start[1:] != start[:-1]) | (symbol[1:] != symbol[:-1])])
        tail = np.r_[head[1:], len(start)] - 1
        return [
            start[head],
            symbol[head],
            first[order[head]],
            np.maximum.reduceat(high[order], head),
            np.minimum.reduceat(low[order], head),
            last[order[tail]],
            np.add.reduceat(volume[order], head),
        ]

    done: list[list[np.ndarray]] = []
    left: list[np.ndarray] | None = None
    for moment, symbol, price, size in batches:
        bars = reduce([moment // SECOND * SECOND, symbol, price, price, price, price, size])
        if left is not None:
            bars = reduce([np.concatenate(pair) for pair in zip(left, bars, strict=True)])
        closed = bars[0] < bars[0][-1]
        done.append([column[closed] for column in bars])
        left = [column[~closed] for column in bars]
    return [*done, left] if left is not None else done


def by_polars(frames: list[Any]) -> list[Any]:
    """Group each frame, group again with the bars left open."""
    import polars as pl

    keys = ["start", "symbol"]
    merge = [
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("volume").sum(),
    ]
    price = pl.col("price")
    make = [
        price.first().alias("open"),
        price.max().alias("high"),
        price.min().alias("low"),
        price.last().alias("close"),
        pl.col("size").sum().alias("volume"),
    ]
    second = (pl.col("ts_event") // SECOND * SECOND).alias("start")
    done, left = [], None
    for frame in frames:
        bars = frame.group_by(second, "symbol").agg(make)
        if left is not None:
            bars = pl.concat([left, bars]).group_by(keys, maintain_order=True).agg(merge)
        open_now = pl.col("start") == bars["start"].max()
        done.append(bars.filter(~open_now))
        left = bars.filter(open_now)
    return [*done, left]


def by_pandas(frames: list[Any]) -> list[Any]:
    """As by_polars."""
    import pandas as pd

    done, left = [], None
    for frame in frames:
        groups = frame.groupby([frame["ts_event"] // SECOND * SECOND, "symbol"], observed=True)
        price = groups["price"].agg(["first", "max", "min", "last"])
        bars = price.set_axis(["open", "high", "low", "close"], axis=1).assign(volume=groups["size"].sum())
        bars = bars.rename_axis(["start", "symbol"]).reset_index()
        if left is not None:
            bars = (
                pd.concat([left, bars])
                .groupby(["start", "symbol"], as_index=False)
                .agg({"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"})
            )
        open_now = bars["start"] == bars["start"].max()
        done.append(bars[~open_now])
        left = bars[open_now]
    return [*done, left]


def by_csp(moments: np.ndarray, trades: np.ndarray) -> list[Bar]:
    """The plain loop inside one csp node; csp calls it for each trade."""
    import csp
    from csp import ts

    done: list[Bar] = []

    @csp.node
    def make(trade: ts[object]) -> None:
        with csp.state():
            s_bars: dict = {}
            s_end = 0
        with csp.stop():
            for key, (a, b, c, d, e) in s_bars.items():
                done.append((s_end - 1_000_000_000, key, a, b, c, d, e))
        if csp.ticked(trade):
            moment, symbol, price, size = trade
            if moment >= s_end:
                start = s_end - 1_000_000_000
                for key, (a, b, c, d, e) in s_bars.items():
                    done.append((start, key, a, b, c, d, e))
                s_bars = {}
                s_end = moment // 1_000_000_000 * 1_000_000_000 + 1_000_000_000
            bar = s_bars.get(symbol)
            if bar is None:
                s_bars[symbol] = [price, price, price, price, size]
            else:
                if price > bar[1]:
                    bar[1] = price
                elif price < bar[2]:
                    bar[2] = price
                bar[3] = price
                bar[4] += size

    @csp.graph
    def graph() -> None:
        make(csp.curve(object, (moments, trades)))

    first = datetime.fromtimestamp(START // SECOND, UTC).replace(tzinfo=None)
    csp.run(graph, starttime=first, endtime=first + timedelta(days=1))
    return done


def by_bytewax(items: list[tuple[str, tuple[datetime, int, float, int]]]) -> list[Any]:
    """fold_window on the event clock. With a wait under 1 s, its wall clock closes windows early and loses trades."""
    import bytewax.operators as op
    from bytewax.dataflow import Dataflow
    from bytewax.operators import windowing
    from bytewax.testing import TestingSink, TestingSource, run_main

    def fold(bar: list[Any], trade: tuple[datetime, int, float, int]) -> list[Any]:
        _, symbol, price, size = trade
        if not bar:
            return [symbol, price, price, price, price, size]
        if price > bar[2]:
            bar[2] = price
        elif price < bar[3]:
            bar[3] = price
        bar[4] = price
        bar[5] += size
        return bar

    def merge(one: list[Any], other: list[Any]) -> list[Any]:
        raise AssertionError("tumbling windows do not merge")

    origin = datetime(1970, 1, 1, tzinfo=UTC)
    clock = windowing.EventClock(lambda trade: trade[0], wait_for_system_duration=timedelta(seconds=1))
    windower = windowing.TumblingWindower(align_to=origin, length=timedelta(seconds=1))
    out: list[Any] = []
    flow = Dataflow("bars")
    stream = op.input("trades", flow, TestingSource(items, batch_size=1000))
    bars = windowing.fold_window("bars", stream, clock, windower, list, fold, merge)
    op.output("out", bars.down, TestingSink(out))
    run_main(flow)
    return out


def ours(batches: list[pa.RecordBatch], after: int | None = 0) -> list[pa.RecordBatch]:
    kernel.AFTER = after
    bars = Bars("1s", late="drop")
    return [*(bars.update(batch) for batch in batches), bars.flush()]


def loop(parts: list[tuple[np.ndarray, Rows]], cells: Cells, bases: np.ndarray) -> Cells:
    """The compiled fold and nothing else."""
    kernel.AFTER = 0
    compiled = kernel.kernel(0)
    assert compiled is not None, "llvmlite is not installed"
    cells.clear(slice(None))
    for at, rows in parts:
        compiled.fold(cells, at, rows, np.array([len(at)]), bases)
    return cells


def sides(trades: Trades) -> Iterator[tuple[str, Callable[[], Any], Callable[[Any], set[Bar]]]]:
    """Name, run, and bars of what it returned, for each side that is installed."""
    names = {name: number for number, name in enumerate(trades.names.tolist())}

    def of_ours(done: list[pa.RecordBatch]) -> set[Bar]:
        columns = pa.Table.from_batches(done).to_pydict()
        symbols = [names.get(name, name) for name in columns["symbol"]]
        rest = (columns[name] for name in ("open", "high", "low", "close", "volume"))
        return set(zip(columns["ts_event"], symbols, *rest, strict=True))

    def of_frames(done: list[Any]) -> set[Bar]:
        rows: set[Bar] = set()
        for frame in done:
            columns = [frame[name].to_list() for name in ("start", "symbol", "open", "high", "low", "close", "volume")]
            columns[1] = [names.get(name, name) for name in columns[1]]
            rows.update(zip(*columns, strict=True))
        return rows

    def of_arrays(done: list[list[np.ndarray]]) -> set[Bar]:
        return set(zip(*(np.concatenate(column).tolist() for column in zip(*done, strict=True)), strict=True))

    def of_bytewax(done: list[Any]) -> set[Bar]:
        return {(window * SECOND, bar[0], *bar[1:]) for _, (window, bar) in done}

    tuples = trades.tuples()
    string = pa.array(trades.names[trades.symbol])
    codes = pa.array(trades.symbol.astype(np.int32))
    forms = {
        "dictionary": pa.DictionaryArray.from_arrays(codes, pa.array(trades.names)),
        "integer": pa.array(trades.symbol),
        "string": string,
    }
    for rows in (TINY, SMALL, LARGE):
        for form, column in forms.items():
            batches = trades.arrow(column, rows)
            yield f"penstock, {form} symbols, batches of {rows:,}", lambda b=batches: ours(b), of_ours
    for rows in (TINY, SMALL, LARGE):
        batches = trades.arrow(forms["dictionary"], rows)
        yield f"penstock without llvmlite, dictionary, {rows:,}", lambda b=batches: ours(b, None), of_ours
    second = trades.time // SECOND
    cell = (second - second[0]) * trades.symbols + trades.symbol
    given = []
    for rows in range(0, trades.count, LARGE):
        part = slice(rows, rows + LARGE)
        price = trades.price[part]
        given.append((cell[part], Rows(trades.time[part], *[price] * 4, trades.size[part], *[None] * 3, 0)))
    cells = Cells.empty(int(second[-1] - second[0] + 1) * trades.symbols, "int64")

    def of_cells(cells: Cells) -> set[Bar]:
        used = np.flatnonzero(cells.trades)
        start = (used // trades.symbols + second[0]) * SECOND
        rest = (cells.open, cells.high, cells.low, cells.close, cells.volume)
        columns = (start, used % trades.symbols, *(column[used] for column in rest))
        return set(zip(*(column.tolist() for column in columns), strict=True))

    yield "penstock, the loop alone", lambda: loop(given, cells, np.zeros(1, np.int64)), of_cells
    yield "plain Python, tuples", lambda: plain(tuples), set
    columns = (trades.time, trades.symbol, trades.price, trades.size)
    for rows in (TINY, SMALL, LARGE):
        parts = [tuple(column[i : i + rows] for column in columns) for i in range(0, trades.count, rows)]
        yield f"numpy, batches of {rows:,}", lambda p=parts: by_numpy(p), of_arrays
    if have("polars"):
        import polars as pl

        for form in ("integer", "string"):
            for rows in (TINY, SMALL, LARGE):
                frames = [pl.DataFrame(pl.from_arrow(batch)) for batch in trades.arrow(forms[form], rows)]
                yield f"polars, {form} symbols, batches of {rows:,}", lambda f=frames: by_polars(f), of_frames
    if have("pandas"):
        for rows in (SMALL, LARGE):
            frames = [batch.to_pandas() for batch in trades.arrow(forms["integer"], rows)]
            yield f"pandas, integer symbols, batches of {rows:,}", lambda f=frames: by_pandas(f), of_frames
    if have("csp"):
        values = np.empty(trades.count, object)
        values[:] = tuples
        # Of two ticks in one nanosecond csp's NumPy curve delivers one: give each its own. Bars use the trade's time.
        moments = trades.time.copy()
        while (same := np.flatnonzero(moments[1:] <= moments[:-1])).size:
            moments[same + 1] = moments[same] + 1
        moments = moments.astype("datetime64[ns]")
        yield "csp, Python node", lambda: by_csp(moments, values), set
    if have("bytewax"):
        keyed = [(str(trade[1]), (datetime.fromtimestamp(trade[0] / SECOND, UTC), *trade[1:])) for trade in tuples]
        yield "bytewax, fold_window", lambda: by_bytewax(keyed), of_bytewax


def have(package: str) -> bool:
    if importlib.util.find_spec(package) is not None:
        return True
    print(f"left out: {package} is not installed for Python {sys.version.split()[0]}")
    return False


def main() -> None:
    given = arguments(__doc__, trades=1_000_000, symbols=500)
    trades = Trades(given.trades, given.symbols)
    expected: set[Bar] = set(plain(trades.tuples()))
    timed: dict[str, Callable[[], float]] = {}
    for name, run, bars in sides(trades):

        def side(name: str = name, run: Callable[[], Any] = run, bars: Callable[[Any], set[Bar]] = bars) -> float:
            begin = time.perf_counter()
            done = run()
            seconds = time.perf_counter() - begin
            if bars(done) != expected:
                raise SystemExit(f"{name} made other bars")
            return given.trades / seconds / 1e6

        timed[name] = side
    # What was made so far stays: without this, each collection walks over millions of tuples in someone's turn.
    gc.collect()
    gc.freeze()
    print(f"{given.trades:,} trades of {given.symbols:,} symbols, {len(expected):,} bars")
    print("best and median round, and the ratio of medians to plain Python")
    figures = rounds(timed, given.rounds)
    rows = show("one-second bars", figures, "M trades/s", "plain Python, tuples")
    write(given.json, rows, "penstock", "numpy", "pyarrow", "polars", "pandas", "csp", "bytewax")


if __name__ == "__main__":
    main()
