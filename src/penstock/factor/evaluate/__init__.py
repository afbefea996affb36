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
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.errors import FactorError
from penstock.factor import frames
from penstock.factor.evaluate.data import FLOAT, Panel, as_block, as_table, by_time, read, whole
from penstock.factor.evaluate.result import Result
from penstock.factor.evaluate.rows import ahead, both_finite, pearson, row_means, row_ranks

__all__ = ["Result", "aggregate", "decay", "forward", "ic", "ir", "quantile_returns", "rank_ic", "turnover"]

Array = np.ndarray[Any, np.dtype[Any]]
HOW = ("mean", "sum", "min", "max", "first", "last", "count")


def forward(
    data: Any, horizon: int = 1, *, price: str = "close", symbol: str = "symbol", time: str = "ts_event"
) -> Any:
    """What the next `horizon` rows earn: price[t + horizon] / price[t] - 1, beside row t.

    Takes   data: a long frame with the column `price`, or a dict, or one (rows, symbols) array.
    Returns the data with `returns` added; for one array an array. NaN for the last `horizon` rows.
    Raises  FactorError for horizon < 1 or data that do not fit.
    """
    whole("horizon", horizon, 1)
    if isinstance(data, np.ndarray):
        return ahead(as_block(data, "price", None), horizon)
    data = pa.table(data) if isinstance(data, pa.RecordBatchReader) else data  # can be read once
    panel = frames.read(data, [price], FLOAT, frames.Labels([]), symbols=None, symbol=symbol, time=time)
    earned = ahead(panel.inputs[0], horizon)
    if isinstance(data, Mapping):
        return {**data, "returns": earned}
    made, kind = as_table(panel.wrap({"returns": earned}))
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
    horizons = list(horizons)
    if not horizons:
        raise FactorError("there is no horizon to look at", where="in evaluate", hint="horizons=(1, 5, 20)")
    panel, prices = read(data, price, "price", **options)
    columns: dict[str, Any] = {"horizon": horizons, **{name: [] for name in panel.blocks}}
    for horizon in horizons:
        whole("horizon", horizon, 1)
        earned = ahead(prices, horizon)
        for name, block in panel.blocks.items():
            made = pearson(*both_finite(block, earned), rank)
            there = made[~np.isnan(made)]
            columns[name].append(float(there.mean()) if len(there) else math.nan)
    return Result(pa.table(columns), panel.kind, "horizon", "bars")


def turnover(data: Any, *, lag: int = 1, **options: Any) -> Result:
    """How much of a portfolio that follows the factor changes hands from `lag` rows before to this one, 0 to 1.

    The portfolio's weights are the ranks less their mean, scaled so that their sizes add up to 1; absent symbols weigh
    0. Half the sum of the changes' sizes is what is bought, and as much is sold.
    Returns a row per time, a column per factor; NaN for the first `lag` rows and where there is no portfolio.
    """
    whole("lag", lag, 1)
    panel, _ = read(data, None, "", **options)
    made = {}
    for name, block in panel.blocks.items():
        ranks = row_ranks(np.where(np.isfinite(block), block, np.nan))
        with np.errstate(all="ignore"):
            weights = ranks - row_means(ranks)
            weights /= np.nansum(np.abs(weights), axis=1, keepdims=True)
        some = ~np.isnan(weights).all(axis=1)
        weights = np.nan_to_num(weights)
        out = np.full(len(block), np.nan)
        out[lag:] = np.abs(weights[lag:] - weights[:-lag]).sum(axis=1) / 2
        out[lag:][~(some[lag:] & some[:-lag])] = np.nan
        made[name] = out
    return Result(by_time(panel, made), panel.kind, panel.time, "lines")


def quantile_returns(data: Any, returns: Any = "returns", *, n: int = 5, **options: Any) -> Result:
    """The mean returns of n portfolios: the symbols of each row cut by the factor's rank, q1 the lowest.

    Returns a row per factor and time: columns q1 … qn, NaN for an empty one, and spread = qn - q1. Ties share a
    quantile.
    Raises  FactorError for n < 2.
    """
    whole("n", n, 2)
    panel, earned = read(data, returns, "returns", **options)
    tables = []
    for name, block in panel.blocks.items():
        x, y = both_finite(block, earned)
        count = (~np.isnan(x)).sum(axis=1, keepdims=True)
        bucket = np.ceil(row_ranks(x) * n / np.maximum(count, 1))
        columns = {}
        for q in range(1, n + 1):
            columns[f"q{q}"] = row_means(np.where(bucket == q, y, np.nan))[:, 0]
        columns["spread"] = columns[f"q{n}"] - columns["q1"]
        tables.append(by_time(panel, {"factor": pa.repeat(name, len(block)), **columns}))
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
    panel, labels = read(data, by, "labels", factors=factors, symbol=symbol, time=time, codes=True)
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


def _correlations(data: Any, returns: Any, rank: bool, options: dict[str, Any]) -> Result:
    panel, made = _correlate(data, returns, rank, options)
    return Result(by_time(panel, made), panel.kind, panel.time, "sums")


def _correlate(data: Any, returns: Any, rank: bool, options: dict[str, Any]) -> tuple[Panel, dict[str, Array]]:
    panel, earned = read(data, returns, "returns", **options)
    return panel, {name: pearson(*both_finite(block, earned), rank) for name, block in panel.blocks.items()}


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
