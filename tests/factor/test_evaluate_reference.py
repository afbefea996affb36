"""Evaluation against pandas and scipy, on panels with holes, ties, infinities, flat rows, and of every size from nothing."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from penstock.errors import FactorError
from penstock.factor import evaluate

SHAPES = [(30, 8), (12, 2), (12, 3), (40, 1), (1, 9), (5, 300), (0, 4), (4, 0), (0, 0)]


def panel(shape, seed=0, holes=0.15):
    """Factor, returns and prices; rows that are flat, absent, tied or infinite."""
    rng = np.random.default_rng([seed, *shape])
    factor, price = rng.normal(0, 1, shape), np.exp(rng.normal(0, 0.02, shape).cumsum(0))
    factor = np.where(rng.random(shape) < 0.4, factor.round(), factor)
    factor[rng.random(shape) < holes] = np.nan
    factor[rng.random(shape) < 0.03] = np.inf
    for row, value in ((2, 0.1), (3, np.nan), (4, -np.inf)):
        if row < shape[0]:
            factor[row] = value
    returns = rng.normal(0, 0.01, shape)
    returns[rng.random(shape) < 0.05] = np.nan
    return factor, returns, price


def pairs(factor, returns):
    for x, y in zip(factor, returns, strict=True):
        there = np.isfinite(x) & np.isfinite(y)
        yield x[there], y[there]


def correlation(factor, returns, function):
    made = []
    for x, y in pairs(factor, returns):
        flat = len(x) < 2 or len(set(x)) == 1 or len(set(y)) == 1
        made.append(math.nan if flat else function(x, y).statistic)
    return made


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_correlations_equal_scipy(shape, seed):
    factor, returns, _ = panel(shape, seed)
    one, two = correlation(factor, returns, stats.pearsonr), correlation(factor, returns, stats.spearmanr)
    np.testing.assert_allclose(evaluate.ic(factor, returns)["factor"], one, atol=1e-12)
    np.testing.assert_allclose(evaluate.rank_ic(factor, returns)["factor"], two, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e-30, 1e30, 1e300])
def test_correlations_do_not_depend_on_the_unit(scale):
    rng = np.random.default_rng(0)
    factor, returns = rng.uniform(0.1, 1, (5, 20)), rng.normal(0, 0.1, (5, 20))
    want = evaluate.ic(factor, returns)["factor"]
    allowed = 1e-3 if scale < 1e-310 else 1e-12  # a denormal has few digits
    np.testing.assert_allclose(evaluate.ic(factor * scale, returns)["factor"], want, atol=allowed)
    np.testing.assert_allclose(evaluate.ic(factor, returns * scale)["factor"], want, atol=allowed * 10)
    np.testing.assert_allclose(evaluate.ic(-factor * scale, returns)["factor"], -want, atol=allowed)


@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, 1e300, 5e-324, -3.3])
def test_a_flat_row_has_no_correlation(value):
    factor, returns = np.full((3, 7), value), np.random.default_rng(0).normal(0, 1, (3, 7))
    for function in (evaluate.ic, evaluate.rank_ic):
        assert np.isnan(function(factor, returns)["factor"]).all()
        assert np.isnan(function(returns, factor)["factor"]).all()
    assert evaluate.ir(factor, returns)["rows"].tolist() == [0]


@pytest.mark.parametrize("shape", SHAPES)
def test_ir_equals_pandas(shape):
    factor, returns, _ = panel(shape, 5)
    series = pd.Series(evaluate.rank_ic(factor, returns)["factor"], dtype=float).dropna()
    got = {name: column[0] for name, column in evaluate.ir(factor, returns).table.to_pydict().items()}
    assert got["rows"] == len(series)
    for name, want in (("mean", series.mean()), ("std", series.std()), ("positive", (series > 0).mean())):
        np.testing.assert_allclose(got[name], want, atol=1e-14)
    if len(series) > 1 and series.std():
        np.testing.assert_allclose(got["ir"], series.mean() / series.std(), rtol=1e-12)
        np.testing.assert_allclose(got["t"], stats.ttest_1samp(series, 0).statistic, rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_decay_equal_pandas(shape):
    factor, _, price = panel(shape, 6)
    frame = pd.DataFrame(price)
    horizons = (1, 3, 7)
    made = evaluate.decay(factor, price, horizons=horizons, rank=False)["factor"]
    for horizon, got in zip(horizons, made, strict=True):
        ahead = (frame.shift(-horizon) / frame - 1).to_numpy()
        np.testing.assert_allclose(evaluate.forward(price, horizon), ahead, rtol=1e-13)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy of an empty mean
            want = np.nanmean(correlation(factor, ahead, stats.pearsonr)) if shape[0] else math.nan
        np.testing.assert_allclose(got, want, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [2, 3, 10])
def test_quantile_returns_equal_pandas(shape, n):
    factor, returns, _ = panel(shape, 7)
    got = evaluate.quantile_returns(factor, returns, n=n)
    for row, (x, y) in enumerate(pairs(factor, returns)):
        bucket = np.ceil(stats.rankdata(x) * n / max(len(x), 1))
        for q in range(1, n + 1):
            want = y[bucket == q].mean() if (bucket == q).any() else math.nan
            np.testing.assert_allclose(got[f"q{q}"][row], want, rtol=1e-12, atol=1e-16)
    np.testing.assert_array_equal(got["spread"], got[f"q{n}"] - got["q1"])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lag", [1, 3])
def test_turnover_equals_a_portfolio_written_out(shape, lag):
    factor, _, _ = panel(shape, 8)
    weights = []
    for row in factor:
        x = np.where(np.isfinite(row), row, np.nan)
        ranks = pd.Series(x).rank()
        size = (ranks - ranks.mean()).abs().sum()
        weights.append(((ranks - ranks.mean()) / size).fillna(0).to_numpy() if size else None)
    want = [math.nan] * len(factor)
    for t in range(lag, len(factor)):
        if weights[t] is not None and weights[t - lag] is not None:
            want[t] = np.abs(weights[t] - weights[t - lag]).sum() / 2
    got = evaluate.turnover(factor, lag=lag)["factor"]
    np.testing.assert_allclose(got, want, atol=1e-12)
    assert np.nanmax([*got, 0]) <= 1 + 1e-12


@pytest.mark.parametrize("shape", [(30, 8), (40, 1), (1, 9), (0, 4), (4, 0)])
@pytest.mark.parametrize("per", ["symbol", "time", None])
@pytest.mark.parametrize("kind", ["texts", "numbers", "dates"])
def test_aggregates_equal_pandas(shape, per, kind):
    factor, _, _ = panel(shape, 9)
    rng = np.random.default_rng(3)
    names = {
        "texts": np.array(["b", "a", "c", ""]),
        "numbers": np.array([3, -1, 2, 7]),
        "dates": np.array(["2026-01-05", "2026-01-02", "2027-01-01", "1969-01-01"], "M8[D]"),
    }[kind]
    labels = names[rng.integers(0, 4, shape)]
    ways = ["mean", "sum", "min", "max", "first", "last", "count"]
    got = evaluate.aggregate(factor, labels, ways, per=per)
    t, k = np.indices(shape).reshape(2, -1)
    frame = pd.DataFrame({"label": labels.reshape(-1), "symbol": k, "row": t, "x": factor.reshape(-1)})
    frame["x"] = frame["x"].where(np.isfinite(frame["x"]))
    keys = ["label", *({"symbol": ["symbol"], "time": ["row"], None: []}[per])]
    want = frame.groupby(keys, sort=True)["x"].agg(ways)
    want["sum"] = want["sum"].where(want["count"] > 0)
    assert len(got) == len(want)
    for way in ways:
        np.testing.assert_allclose(got[f"factor_{way}"].astype(float), want[way].to_numpy(float), rtol=1e-12)
    if len(want):
        assert [str(x)[:10] for x in got.table["label"].to_pylist()] == [
            str(x)[:10] for x in want.reset_index()["label"]
        ]


def test_what_has_no_place_is_refused():
    x = np.ones((3, 2))
    with pytest.raises(FactorError, match="a factor is called 'row', as the column that says which row it is; rename"):
        evaluate.ic({"row": x, "returns": x})
    with pytest.raises(
        FactorError, match="these labels are not of one kind: .* - in aggregate; texts, numbers or dates"
    ):
        evaluate.aggregate(x, np.array(["a", 1, 2.5], object))
    with pytest.raises(FactorError, match=r"expected labels of shape \(3, 2\) or \(3,\), got \(2,\)"):
        evaluate.aggregate(x, np.zeros(2))
    with pytest.raises(FactorError, match=r"expected 'returns' of shape \(3, 2\), got \(2, 3\)"):
        evaluate.ic(x, x.T)
    with pytest.raises(FactorError, match="'factor' is no array|expected a long Arrow"):
        evaluate.ic({"factor": [[1.0, 2], [3]], "returns": x})
