"""What a factor is worth: its correlation with later returns, its decay, its turnover, what its quantiles earn.

    from penstock.factor import evaluate
    bars = evaluate.forward(bars, horizon=5)                  # adds the column `returns`: what the next five rows earn
    evaluate.rank_ic(bars, factors=["alpha001"]).frame        # a row per time, in the kind that came
    evaluate.ir(bars).plot()                                  # takes matplotlib

All take a long Arrow, polars or pandas frame (a row per `symbol` and `time`, columns of factors and one of `returns`),
or a dict of (rows, symbols) arrays, or one such array; with arrays `returns` may be an array itself. `factors` are all
numeric columns that nothing else names. A cell that is NaN or infinite takes no part; a row with fewer than two
symbols, or whose symbols are all equal, has no correlation (NaN). Returns stand beside the factor that is to foretell
them.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.errors import FactorError
from penstock.factor import frames

__all__ = ["Result", "aggregate", "decay", "forward", "ic", "ir", "quantile_returns", "rank_ic", "turnover"]

Array = np.ndarray[Any, np.dtype[Any]]
FLOAT = np.dtype("float64")
HOW = ("mean", "sum", "min", "max", "first", "last", "count")


class Result:
    """A table that also draws itself; anything that takes Arrow streams takes it (`polars.DataFrame(result)`).

    `table`: as Arrow; `frame`: in the kind of frame that came in (Arrow for arrays); `result["alpha001"]`: a column.
    """

    def __init__(self, table: pa.Table, kind: str, x: str, drawn: str, split: str | None = None) -> None:
        self.table = table
        self._kind, self._x, self._drawn, self._split = kind, x, drawn, split

    @property
    def frame(self) -> Any:
        """The table as polars, pandas or Arrow, as the data were."""
        if self._kind == "pandas":
            return self.table.to_pandas()
        return importlib.import_module("polars").from_arrow(self.table) if self._kind == "polars" else self.table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)

    def __getitem__(self, name: str) -> Array:
        if name not in self.table.column_names:
            raise KeyError(f"no column {name!r}; there are {', '.join(self.table.column_names)}")
        column: Array = self.table[name].to_numpy(zero_copy_only=False)
        return column

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        return f"Result of {len(self)} rows\n{self.table.slice(0, 10).to_string(preview_cols=8)}"

    def plot(self, ax: Any = None) -> Any:
        """Draw it with matplotlib, into `ax` or a new figure; the axes.

        Correlations and quantile returns are added up along time, turnover is a line, the rest are bars.
        Raises  FactorError if matplotlib is not installed.
        """
        try:
            plotter = importlib.import_module("matplotlib.pyplot")
        except ImportError as error:
            raise FactorError(
                "plot() takes matplotlib, which is not installed", hint="pip install matplotlib"
            ) from error
        ax = plotter.subplots()[1] if ax is None else ax
        parts = {"": self.table}
        if self._split:
            names = self.table[self._split].unique().to_pylist()
            parts = {f"{name} ": self.table.filter(pa.compute.equal(self.table[self._split], name)) for name in names}
        lines = [(f"{part}{c}", table, c) for part, table in parts.items() for c in table.column_names]
        lines = [line for line in lines if pa.types.is_floating(line[1][line[2]].type)]
        for i, (label, table, column) in enumerate(lines):
            x, y = table[self._x].to_pylist(), table[column].to_numpy(zero_copy_only=False)
            if self._drawn == "bars":
                at = np.arange(len(x)) + (i - (len(lines) - 1) / 2) * 0.8 / len(lines)
                ax.bar(at, y, 0.8 / len(lines), label=label)
                ax.set_xticks(np.arange(len(x)), [str(name) for name in x])
            else:
                ax.plot(x, np.nancumsum(y) if self._drawn == "sums" else y, label=label)
        ax.set_xlabel(self._x)
        ax.legend()
        return ax


@dataclass(frozen=True, slots=True)
class _Panel:
    """Blocks (rows, symbols) by name, what the rows and symbols are called, and the kind of the data."""

    blocks: dict[str, Array]
    times: pa.Array
    time: str
    symbols: list[Any]
    kind: str


def forward(
    data: Any, horizon: int = 1, *, price: str = "close", symbol: str = "symbol", time: str = "ts_event"
) -> Any:
    """What the next `horizon` rows earn: price[t + horizon] / price[t] - 1, beside row t.

    Takes   data: a long frame with the column `price`, or a dict, or one (rows, symbols) array.
    Returns the data with `returns` added; for one array an array. NaN for the last `horizon` rows.
    Raises  FactorError for horizon < 1 or data that do not fit.
    """
    _whole("horizon", horizon, 1)
    if isinstance(data, np.ndarray):
        return _ahead(_block(data, "price", None), horizon)
    panel = frames.read(data, [price], FLOAT, frames.Labels([]), symbols=None, symbol=symbol, time=time)
    earned = _ahead(panel.inputs[0], horizon)
    if isinstance(data, Mapping):
        return {**data, "returns": earned}
    made, kind = _arrow(panel.wrap({"returns": earned}))
    if kind == "pandas":
        return data.assign(returns=made["returns"].to_numpy())
    if kind == "polars":
        return data.with_columns(importlib.import_module("polars").from_arrow(made["returns"]).alias("returns"))
    table = pa.table(data)
    if "returns" in table.column_names:
        table = table.drop_columns(["returns"])
    return table.append_column("returns", made["returns"])


def ic(data: Any, returns: Any = "returns", **options: Any) -> Result:
    """The correlation of each row's factor with its returns, over symbols (Pearson).

    Takes   data: as the module says; returns: the column, or with arrays an array;
            options: factors: names; symbol, time: columns of a frame.
    Returns a row per time, a column per factor.
    Raises  FactorError for data that do not fit.
    """
    return _correlations(data, returns, False, options)


def rank_ic(data: Any, returns: Any = "returns", **options: Any) -> Result:
    """As `ic`, of ranks (Spearman, ties their mean)."""
    return _correlations(data, returns, True, options)


def ir(data: Any, returns: Any = "returns", *, rank: bool = True, **options: Any) -> Result:
    """How steady the correlation is: per factor its mean, deviation, and their quotient.

    Returns columns factor, mean, std (ddof 1), ir = mean / std, t = ir * sqrt(rows), positive: the share of rows with
            a correlation above 0, rows: those with one.
    """
    panel, made = _correlate(data, returns, rank, options)
    rows = []
    for name, series in made.items():
        there = series[~np.isnan(series)]
        mean = float(there.mean()) if len(there) else math.nan
        std = float(there.std(ddof=1)) if len(there) > 1 else math.nan
        ratio = mean / std if std else math.nan
        positive = float((there > 0).mean()) if len(there) else math.nan
        rows.append((name, mean, std, ratio, ratio * math.sqrt(len(there)), positive, len(there)))
    names = ("factor", "mean", "std", "ir", "t", "positive", "rows")
    return Result(
        pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), panel.kind, "factor", "bars"
    )


def decay(
    data: Any,
    price: Any = "close",
    *,
    horizons: Sequence[int] = (1, 2, 3, 5, 10, 20),
    rank: bool = True,
    **options: Any,
) -> Result:
    """The mean correlation with the returns of the next 1, 2, … rows.

    Takes   price: the column (or array) whose returns are meant.
    Returns a row per horizon, a column per factor.
    """
    panel, prices = _read(data, price, "price", **options)
    columns: dict[str, Any] = {"horizon": list(horizons), **{name: [] for name in panel.blocks}}
    for horizon in horizons:
        _whole("horizon", horizon, 1)
        earned = _ahead(prices, horizon)
        for name, block in panel.blocks.items():
            made = _pearson(*_both(block, earned), rank)
            there = made[~np.isnan(made)]
            columns[name].append(float(there.mean()) if len(there) else math.nan)
    return Result(pa.table(columns), panel.kind, "horizon", "bars")


def turnover(data: Any, *, lag: int = 1, **options: Any) -> Result:
    """How much of a portfolio that follows the factor changes hands from `lag` rows before to this one, 0 to 1.

    The portfolio's weights are the ranks less their mean, scaled so that their sizes add up to 1; absent symbols weigh
    0. Half the sum of the changes' sizes is what is bought, and as much is sold.
    Returns a row per time, a column per factor; NaN for the first `lag` rows and where there is no portfolio.
    """
    _whole("lag", lag, 1)
    panel, _ = _read(data, None, "", **options)
    made = {}
    for name, block in panel.blocks.items():
        ranks = _ranks(np.where(np.isfinite(block), block, np.nan))
        with np.errstate(all="ignore"):
            weights = ranks - _mean(ranks)
            weights /= np.nansum(np.abs(weights), axis=1, keepdims=True)
        some = ~np.isnan(weights).all(axis=1)
        weights = np.nan_to_num(weights)
        out = np.full(len(block), np.nan)
        out[lag:] = np.abs(weights[lag:] - weights[:-lag]).sum(axis=1) / 2
        out[lag:][~(some[lag:] & some[:-lag])] = np.nan
        made[name] = out
    return Result(_by_time(panel, made), panel.kind, panel.time, "lines")


def quantile_returns(data: Any, returns: Any = "returns", *, n: int = 5, **options: Any) -> Result:
    """The mean returns of n portfolios: the symbols of each row cut by the factor's rank, q1 the lowest.

    Returns a row per factor and time: columns q1 … qn, NaN for an empty one, and spread = qn - q1. Ties share a
    quantile.
    Raises  FactorError for n < 2.
    """
    _whole("n", n, 2)
    panel, earned = _read(data, returns, "returns", **options)
    tables = []
    for name, block in panel.blocks.items():
        x, y = _both(block, earned)
        count = (~np.isnan(x)).sum(axis=1, keepdims=True)
        bucket = np.ceil(_ranks(x) * n / np.maximum(count, 1))
        columns = {}
        for q in range(1, n + 1):
            columns[f"q{q}"] = _mean(np.where(bucket == q, y, np.nan))[:, 0]
        columns["spread"] = columns[f"q{n}"] - columns["q1"]
        tables.append(_by_time(panel, {"factor": pa.repeat(name, len(block)), **columns}))
    return Result(pa.concat_tables(tables), panel.kind, panel.time, "sums", split="factor")


def aggregate(
    data: Any,
    by: Any,
    how: str | Sequence[str] = "mean",
    *,
    per: str | None = "symbol",
    factors: Sequence[str] | None = None,
    symbol: str = "symbol",
    time: str = "ts_event",
) -> Result:
    """Cells with one label taken together: months of a symbol, sectors of a day.

    Takes   by: the column of labels (texts, numbers, dates), or with arrays (rows,) or (rows, symbols) labels; a
            missing label is left out;
            how: of mean, sum, min, max, first, last, count, in order of time, of cells that are numbers;
            per: "symbol": a row per label and symbol; "time": per label and time; None: per label.
    Returns columns label, symbol or time, and a column per factor (`alpha001_mean` for several `how`), labels sorted.
    Raises  FactorError for another `how` or `per`, or data that do not fit.
    """
    ways = [how] if isinstance(how, str) else list(how)
    if not ways or any(way not in HOW for way in ways):
        raise FactorError(expected=f"how of {', '.join(HOW)}", got=repr(how), where="in aggregate")
    if per not in ("symbol", "time", None):
        raise FactorError(expected="per 'symbol', 'time' or None", got=repr(per), where="in aggregate")
    panel, labels = _read(data, by, "labels", factors=factors, symbol=symbol, time=time, codes=True)
    shape = (len(panel.times), len(panel.symbols))
    names, code = labels
    other = {"symbol": np.arange(shape[1])[None, :], "time": np.arange(shape[0])[:, None], None: np.zeros((1, 1), int)}
    width = {"symbol": shape[1], "time": shape[0], None: 1}[per]
    cell = (code * width + other[per]).reshape(-1)
    used = np.unique(cell[code.reshape(-1) >= 0])
    columns: dict[str, Any] = {by if isinstance(by, str) else "label": names.take(pa.array(used // width))}
    if per == "symbol":
        columns[symbol] = pa.array([panel.symbols[i] for i in used % width])
    elif per == "time":
        columns[panel.time] = panel.times.take(pa.array(used % width))
    for name, block in panel.blocks.items():
        for way in ways:
            made = _fold(way, block.reshape(-1), cell, len(names) * width)[used]
            columns[name if len(ways) == 1 else f"{name}_{way}"] = made
    return Result(pa.table(columns), panel.kind, next(iter(columns)), "bars", split=symbol if per == "symbol" else None)


def _fold(way: str, values: Array, cell: Array, size: int) -> Array:
    """Per cell number the values of it that are there, folded."""
    there = np.isfinite(values) & (cell >= 0)
    values, cell = values[there], cell[there]
    count = np.bincount(cell, minlength=size).astype(float)
    if way == "count":
        return count
    out = np.full(size, np.nan)
    if way in ("sum", "mean"):
        total = np.bincount(cell, values, minlength=size)
        with np.errstate(all="ignore"):
            return np.where(count > 0, total / count if way == "mean" else total, np.nan)
    if way in ("min", "max"):
        worst = math.inf if way == "min" else -math.inf
        out[count > 0] = worst
        (np.minimum if way == "min" else np.maximum).at(out, cell, values)
    elif way == "first":
        out[cell[::-1]] = values[::-1]
    else:
        out[cell] = values
    return out


# ---- correlations ----


def _correlations(data: Any, returns: Any, rank: bool, options: dict[str, Any]) -> Result:
    panel, made = _correlate(data, returns, rank, options)
    return Result(_by_time(panel, made), panel.kind, panel.time, "sums")


def _correlate(data: Any, returns: Any, rank: bool, options: dict[str, Any]) -> tuple[_Panel, dict[str, Array]]:
    panel, earned = _read(data, returns, "returns", **options)
    return panel, {name: _pearson(*_both(block, earned), rank) for name, block in panel.blocks.items()}


def _both(x: Array, y: Array) -> tuple[Array, Array]:
    there = np.isfinite(x) & np.isfinite(y)
    return np.where(there, x, np.nan), np.where(there, y, np.nan)


def _mean(x: Array) -> Array:
    """The mean of each row's numbers (rows, 1); NaN for none."""
    count = (~np.isnan(x)).sum(axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        mean: Array = np.nansum(x, axis=1, keepdims=True) / np.where(count > 0, count, np.nan)
    return mean


def _pearson(x: Array, y: Array, rank: bool) -> Array:
    if rank:
        x, y = _ranks(x), _ranks(y)
    # Taken twice: a row of equal symbols then deviates by exactly 0 and has no correlation.
    x, y = _level(x), _level(y)
    x, y = x - _mean(x), y - _mean(y)
    x, y = _level(x - _mean(x)), _level(y - _mean(y))
    with np.errstate(all="ignore"):
        over = np.sqrt(np.nansum(x * x, axis=1)) * np.sqrt(np.nansum(y * y, axis=1))
        made: Array = np.clip(np.nansum(x * y, axis=1) / over, -1.0, 1.0)
    return made


def _level(x: Array) -> Array:
    """Rows times powers of two, the largest between 1/2 and 1: squares of huge and tiny numbers stay in range."""
    largest = np.max(np.abs(x), axis=1, keepdims=True, initial=0.0, where=~np.isnan(x))
    leveled: Array = np.ldexp(x, -np.frexp(largest)[1])
    return leveled


def _ranks(x: Array) -> Array:
    """The place of each number in its row, from 1, ties their mean; NaN for NaN."""
    keys = x.shape[1]
    by = np.argsort(x, axis=1, kind="stable")
    ranked = np.take_along_axis(x, by, axis=1)
    new = np.ones(x.shape, bool)
    new[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    place = np.arange(keys)
    first = np.maximum.accumulate(np.where(new, place, 0), axis=1)
    ends = np.ones(x.shape, bool)
    ends[:, :-1] = new[:, 1:]
    last = np.minimum.accumulate(np.where(ends, place, keys)[:, ::-1], axis=1)[:, ::-1]
    out = np.empty(x.shape)
    np.put_along_axis(out, by, (first + last) / 2 + 1.0, axis=1)
    return np.where(np.isnan(x), np.nan, out)


def _ahead(price: Array, horizon: int) -> Array:
    out = np.full(price.shape, np.nan)
    with np.errstate(all="ignore"):
        out[:-horizon] = price[horizon:] / price[:-horizon] - 1.0
    return out


# ---- data in ----


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise FactorError(expected=f"{name} a whole number of at least {least}", got=repr(value), where="in evaluate")


def _by_time(panel: _Panel, columns: Mapping[str, Any]) -> pa.Table:
    if panel.time in columns:
        raise FactorError(
            f"a factor is called {panel.time!r}, as the column that says which row it is", hint="rename it"
        )
    return pa.table({panel.time: panel.times, **columns})


def _arrow(data: Any) -> tuple[pa.Table, str]:
    """A frame as Arrow, and the kind it is."""
    package = type(data).__module__.partition(".")[0]
    names = [str(name) for name in getattr(data, "columns", ())] if package == "pandas" else []
    if package == "pandas" and names:
        levels = [name for name in data.index.names if name is not None and name not in names]
        data = data.reset_index(levels) if levels else data
        return pa.Table.from_pandas(data, preserve_index=False), "pandas"
    if package == "polars" and hasattr(data, "to_arrow"):
        return data.to_arrow(), "polars"
    if isinstance(data, pa.RecordBatch) or hasattr(data, "__arrow_c_stream__"):
        return pa.table(data), "arrow"
    raise FactorError(
        expected="a long Arrow, polars or pandas frame, a dict of (rows, symbols) arrays, or one",
        got=f"{type(data).__module__}.{type(data).__qualname__}",
        where="in evaluate",
        hint="call .collect()" if type(data).__name__ == "LazyFrame" else None,
    )


def _read(
    data: Any,
    other: Any,
    what: str,
    *,
    factors: Sequence[str] | None = None,
    symbol: str = "symbol",
    time: str = "ts_event",
    codes: bool = False,
) -> tuple[_Panel, Any]:
    """The factors as a panel, and beside them `other` (returns, prices or labels): a column's name or an array."""
    wanted = [factors] if isinstance(factors, str) else factors
    if isinstance(data, (np.ndarray, Mapping)):
        return _read_arrays(data, other, what, wanted, codes)
    table, kind = _arrow(data)
    if other is not None and not isinstance(other, str):
        raise FactorError(
            expected=f"the name of the column of {what}",
            got=type(other).__name__,
            where="in evaluate",
            hint="join it to the frame by symbol and time",
        )
    taken = {symbol, time, other}
    if wanted is None:
        numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
        wanted = [f.name for f in table.schema if f.name not in taken and any(test(f.type) for test in numeric)]
    _some(wanted, table.column_names)
    beside = [] if other is None or codes else [other]
    read = frames.read(table, [*wanted, *beside], FLOAT, frames.Labels([]), symbols=None, symbol=symbol, time=time)
    times = pa.compute.unique(table[time]).sort()
    assert read.symbols is not None
    panel = _Panel(dict(zip(wanted, read.inputs, strict=False)), times, time, list(read.symbols), kind)
    if not codes:
        return panel, read.inputs[-1] if beside else None
    names, code = _coded(_column(table, other))
    block = np.full((len(times), len(panel.symbols)), -1)
    row = pa.compute.index_in(table[time], times).to_numpy(zero_copy_only=False)
    keys = _column(table, symbol)
    key = pa.compute.index_in(keys, pa.array(panel.symbols, keys.type))
    block[row, key.to_numpy(zero_copy_only=False)] = code
    return panel, (names, block)


def _column(table: pa.Table, name: Any) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise FactorError(f"there is no column {name!r}", where=f"in a frame with {', '.join(table.column_names)}")
    kind = table[name].type
    return table[name].cast(kind.value_type) if pa.types.is_dictionary(kind) else table[name]


def _coded(labels: Any) -> tuple[pa.Array, Array]:
    """The labels there are, sorted, and per cell the number of its own; -1 where it is missing."""
    names = labels.unique().drop_null().sort()
    code = pa.compute.index_in(labels, names, skip_nulls=True).fill_null(-1)
    return names, code.to_numpy(zero_copy_only=False)


def _read_arrays(data: Any, other: Any, what: str, wanted: Sequence[str] | None, codes: bool) -> tuple[_Panel, Any]:
    given = {"factor": data} if isinstance(data, np.ndarray) else dict(data)
    if isinstance(other, str):
        if other not in given:
            raise FactorError(
                f"there is no {other!r} among {', '.join(map(repr, given))}",
                where="in evaluate",
                hint=f"give the array of {what}, or the name it has in the dict",
            )
        beside: Any = given.pop(other)
    else:
        beside = other
    names = list(given) if wanted is None else list(wanted)
    _some(names, list(given))
    blocks: dict[str, Array] = {}
    for name in names:
        if name not in given:
            raise FactorError(f"there is no {name!r} among {', '.join(map(repr, given))}", where="in evaluate")
        blocks[name] = _block(given[name], name, next(iter(blocks.values())).shape if blocks else None)
    shape = next(iter(blocks.values())).shape
    panel = _Panel(blocks, pa.array(np.arange(shape[0])), "row", list(range(shape[1])), "arrow")
    if beside is None:
        return panel, None
    if not codes:
        return panel, _block(beside, what, shape)
    labels = np.asarray(beside)
    if labels.shape not in (shape, shape[:1]):
        raise FactorError(
            expected=f"labels of shape {shape} or {shape[:1]}", got=str(labels.shape), where="in aggregate"
        )
    flat = labels.reshape(-1)
    try:
        given = pa.array(flat.tolist() if flat.dtype.kind == "O" else flat, from_pandas=True)
    except (pa.ArrowException, TypeError) as error:
        raise FactorError(
            f"these labels are not of one kind: {error}", where="in aggregate", hint="texts, numbers or dates alone"
        ) from error
    there, code = _coded(given)
    return panel, (there, np.broadcast_to(code.reshape(*labels.shape, *[1] * (2 - labels.ndim)), shape))


def _block(value: Any, name: str, shape: tuple[int, ...] | None) -> Array:
    block = frames.floats(value, name, FLOAT, frames.Labels([]), "in evaluate")
    if block.ndim != 2 or (shape is not None and block.shape != shape):
        raise FactorError(
            expected=f"{name!r} of shape {shape or '(rows, symbols)'}", got=str(block.shape), where="in evaluate"
        )
    return block


def _some(names: Sequence[str], there: Sequence[str]) -> None:
    if not names:
        raise FactorError(
            "there is no factor to evaluate", where=f"in data with {', '.join(map(str, there)) or 'nothing'}"
        )
