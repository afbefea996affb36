"""Evaluation against pandas and SciPy, for every kind of data."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from penstock import factor as f
from penstock.errors import FactorError
from penstock.factor import evaluate
from penstock.factor.evaluate.rows import row_ranks

ROWS, SYMBOLS = 40, 12


def panel(seed=0):
    """Two factors (one with ties), prices, and a sector; with gaps and a row without anything."""
    rng = np.random.default_rng(seed)
    close = 20 * np.exp(rng.normal(0, 0.02, (ROWS, SYMBOLS)).cumsum(0))
    made = {"alpha": rng.normal(0, 1, close.shape), "ties": np.round(rng.normal(0, 1, close.shape)), "close": close}
    made["returns"] = evaluate.forward(close)
    made["alpha"] += 20 * np.nan_to_num(made["returns"])
    made["alpha"][rng.random(close.shape) < 0.1] = np.nan
    made["alpha"][5] = np.nan
    made["ties"][7] = 1.0
    made["alpha"][9, 0] = np.inf
    return made


def long(arrays):
    """A pandas frame, shuffled, with the sector of each symbol."""
    at = np.arange(ROWS * SYMBOLS)
    made = pd.DataFrame({name: x.reshape(-1) for name, x in arrays.items()})
    made.insert(0, "symbol", [f"S{k:02}" for k in at % SYMBOLS])
    made.insert(1, "ts_event", pd.Timestamp("2024-01-01") + pd.to_timedelta(at // SYMBOLS, "D"))
    made["sector"] = np.array(["tech", "bank", None])[at % SYMBOLS % 3]
    return made.sample(frac=1, random_state=1).reset_index(drop=True)


KINDS = {
    "pandas": lambda frame: frame,
    "polars": pl.from_pandas,
    "arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
}


def plain(frame):
    return frame if isinstance(frame, pd.DataFrame) else frame.to_pandas()


def expected(frame, name, method):
    def one(rows):
        rows = rows[[name, "returns"]].replace([np.inf, -np.inf], np.nan).dropna()
        if len(rows) < 2 or rows[name].nunique() < 2 or rows["returns"].nunique() < 2:
            return np.nan
        return rows[name].corr(rows["returns"], method=method)

    return np.array([one(rows) for _, rows in frame.groupby("ts_event")])


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize("kind", KINDS)
def test_ic_equals_pandas(kind, method):
    pytest.importorskip("scipy")
    frame = long(panel())
    compute = evaluate.ic if method == "pearson" else evaluate.rank_ic
    result = compute(KINDS[kind](frame), factors=["alpha", "ties"])
    assert type(result.frame) is type(KINDS[kind](frame))
    got = plain(result.frame)
    assert list(got.columns) == ["ts_event", "alpha", "ties"]
    assert list(got["ts_event"]) == sorted(frame["ts_event"].unique())
    for name in ("alpha", "ties"):
        np.testing.assert_allclose(got[name], expected(frame, name, method), atol=1e-12)
    assert np.isnan(got["alpha"][5])
    assert np.isnan(got["ties"][7])


def test_ranks_equal_scipy():
    stats = pytest.importorskip("scipy.stats")
    x = panel()["ties"]
    x[3, 4:] = np.nan
    want = stats.rankdata(x, axis=1, nan_policy="omit")
    np.testing.assert_array_equal(row_ranks(x), want)


@pytest.mark.parametrize("kind", KINDS)
def test_forward(kind):
    frame = long(panel()).drop(columns="returns")
    result = evaluate.forward(KINDS[kind](frame), horizon=3)
    assert type(result) is type(KINDS[kind](frame))
    close = frame.pivot(index="ts_event", columns="symbol", values="close")
    want = (close.shift(-3) / close - 1).unstack()
    got = plain(result).set_index(["symbol", "ts_event"])["returns"]
    np.testing.assert_allclose(got.loc[want.index], want, rtol=1e-12)
    again = plain(evaluate.forward(result, horizon=1))
    assert list(again.columns) == list(plain(result).columns)


def test_arrays_and_frames_give_the_same():
    arrays = panel()
    frame = long(arrays)
    of_frame = evaluate.rank_ic(frame, factors="alpha")["alpha"]
    one = {name: arrays[name] for name in ("alpha", "returns")}
    np.testing.assert_array_equal(evaluate.rank_ic(one)["alpha"], of_frame)
    np.testing.assert_array_equal(evaluate.rank_ic(arrays["alpha"], arrays["returns"])["factor"], of_frame)
    table = evaluate.rank_ic(one).table
    assert table.column_names == ["row", "alpha"]
    assert isinstance(evaluate.rank_ic(one).frame, pa.Table)
    np.testing.assert_array_equal(evaluate.forward({"close": arrays["close"]})["returns"], arrays["returns"])


def test_ir():
    frame = long(panel())
    series = pd.Series(evaluate.rank_ic(frame, factors=["alpha"])["alpha"]).dropna()
    got = evaluate.ir(frame, factors=["alpha", "ties"]).frame.set_index("factor")
    assert list(got.index) == ["alpha", "ties"]
    row = got.loc["alpha"]
    np.testing.assert_allclose(row["mean"], series.mean())
    np.testing.assert_allclose(row["std"], series.std())
    np.testing.assert_allclose(row["ir"], series.mean() / series.std())
    np.testing.assert_allclose(row["t"], series.mean() / series.std() * np.sqrt(len(series)))
    np.testing.assert_allclose(row["positive"], (series > 0).mean())
    assert row["rows"] == len(series) == 38
    pearson = pd.Series(evaluate.ic(frame, factors=["alpha"])["alpha"]).mean()
    np.testing.assert_allclose(evaluate.ir(frame, rank=False, factors=["alpha"])["mean"][0], pearson)
    nothing = evaluate.ir(np.full((3, 2), np.nan), np.zeros((3, 2)))
    assert nothing["rows"][0] == 0
    assert np.isnan(nothing["mean"][0])


def test_decay():
    frame = long(panel()).drop(columns="returns")
    got = evaluate.decay(frame, factors=["alpha"], horizons=(1, 4))
    for i, horizon in enumerate((1, 4)):
        want = evaluate.rank_ic(evaluate.forward(frame, horizon), factors=["alpha"])["alpha"]
        np.testing.assert_allclose(got["alpha"][i], np.nanmean(want), rtol=1e-12)
    assert list(got["horizon"]) == [1, 4]
    assert got["alpha"][0] > got["alpha"][1]  # it was made from the next row's returns
    arrays = panel()
    of_arrays = evaluate.decay({"alpha": arrays["alpha"]}, arrays["close"], horizons=(1, 4))
    np.testing.assert_array_equal(of_arrays["alpha"], got["alpha"])


def test_turnover():
    frame = long(panel())
    wide = frame.pivot(index="ts_event", columns="symbol", values="alpha").replace([np.inf, -np.inf], np.nan)
    ranks = wide.rank(axis=1)
    weights = ranks.sub(ranks.mean(axis=1), axis=0)
    weights = weights.div(weights.abs().sum(axis=1), axis=0)
    want = weights.fillna(0).diff(2).abs().sum(axis=1) / 2
    want[want.index[:2]] = np.nan
    want[[wide.index[5], wide.index[7]]] = np.nan
    got = evaluate.turnover(frame, lag=2, factors=["alpha"])["alpha"]
    np.testing.assert_allclose(got, want, atol=1e-12)
    assert np.nanmax(got) <= 1
    assert evaluate.turnover(np.tile(np.arange(5.0), (4, 1)))["factor"][1:].tolist() == [0.0, 0.0, 0.0]


def test_quantile_returns():
    frame = long(panel())
    got = evaluate.quantile_returns(frame, n=4, factors=["alpha", "ties"]).frame
    assert list(got.columns) == ["ts_event", "factor", "q1", "q2", "q3", "q4", "spread"]
    clean = frame.replace([np.inf, -np.inf], np.nan)
    for name in ("alpha", "ties"):
        rows = clean.dropna(subset=[name, "returns"]).copy()
        rank, count = rows.groupby("ts_event")[name].rank(), rows.groupby("ts_event")[name].transform("count")
        rows["q"] = np.ceil(rank * 4 / count)
        want = rows.pivot_table(index="ts_event", columns="q", values="returns", aggfunc="mean")
        mine = got[got["factor"] == name].set_index("ts_event")
        for q in (1, 2, 3, 4):
            np.testing.assert_allclose(mine[f"q{q}"], want[q].reindex(mine.index), atol=1e-15)
        np.testing.assert_allclose(mine["spread"], mine["q4"] - mine["q1"])
    means = got[got["factor"] == "alpha"][["q1", "q2", "q3", "q4"]].mean()
    assert means["q4"] > means["q1"]


@pytest.mark.parametrize("kind", KINDS)
def test_aggregate_months_of_a_symbol(kind):
    frame = long(panel())
    frame["month"] = frame["ts_event"].dt.strftime("%Y-%m")
    how = ["mean", "sum", "min", "max", "first", "last", "count"]
    got = plain(evaluate.aggregate(KINDS[kind](frame), "month", how, factors=["alpha"]).frame)
    want = frame.replace(np.inf, np.nan).sort_values("ts_event").groupby(["month", "symbol"])["alpha"]
    got = got.set_index(["month", "symbol"])
    assert len(got) == 2 * SYMBOLS
    for way in how:
        column = want.agg(way)
        np.testing.assert_allclose(got[f"alpha_{way}"], column.loc[got.index].astype(float), rtol=1e-12, err_msg=way)


def test_aggregate_sectors_of_a_day_and_of_all():
    frame = long(panel())
    got = evaluate.aggregate(frame, "sector", per="time", factors=["ties"]).frame.set_index(["sector", "ts_event"])
    want = frame.groupby(["sector", "ts_event"])["ties"].mean()
    np.testing.assert_allclose(got["ties"].loc[want.index], want)
    assert len(got) == len(want)
    total = evaluate.aggregate(frame, "sector", "sum", per=None, factors=["ties"])
    np.testing.assert_allclose(total["ties"], frame.groupby("sector")["ties"].sum())
    assert list(total["sector"]) == ["bank", "tech"]


def test_categories_and_nothing():
    frame = long(panel())
    options = {"per": "symbol", "factors": ["ties"]}
    want = evaluate.aggregate(frame, "sector", **options)["ties"]
    made = frame.astype({"symbol": "category", "sector": "category"})
    np.testing.assert_array_equal(evaluate.aggregate(made, "sector", **options)["ties"], want)
    np.testing.assert_array_equal(evaluate.aggregate(pl.from_pandas(made), "sector", **options)["ties"], want)
    empty = frame.iloc[:0]
    assert len(evaluate.aggregate(empty, "sector", **options)) == 0
    for compute in (evaluate.ic, evaluate.rank_ic, evaluate.quantile_returns):
        assert len(compute(empty, factors=["ties"])) == 0
    assert len(evaluate.turnover(empty, factors=["ties"])) == 0
    assert len(evaluate.forward(empty)) == 0
    assert np.isnan(evaluate.forward(np.ones((2, 3)), horizon=5)).all()


def test_aggregate_arrays():
    x = np.arange(12.0).reshape(4, 3)
    x[1, 1] = np.nan
    by_row = evaluate.aggregate(x, np.array([7, 7, 9, 9]), "sum")
    assert by_row["label"].tolist() == [7, 7, 7, 9, 9, 9]
    assert by_row["symbol"].tolist() == [0, 1, 2, 0, 1, 2]
    assert by_row["factor"].tolist() == [3, 1, 7, 15, 17, 19]
    labels = np.array([["a", "b", None]] * 4, dtype=object)
    by_cell = evaluate.aggregate({"x": x, "group": labels}, "group", "count", per=None)
    assert by_cell["group"].tolist() == ["a", "b"]
    assert by_cell["x"].tolist() == [4, 3]
    empty = evaluate.aggregate(np.full((2, 1), np.nan), np.array([1, 1]), ["mean", "min", "last", "count"])
    assert np.isnan(empty["factor_mean"][0])
    assert np.isnan(empty["factor_min"][0])
    assert np.isnan(empty["factor_last"][0])
    assert empty["factor_count"][0] == 0


def test_results_are_arrow_streams():
    result = f.evaluate.rank_ic(long(panel()), factors=["alpha"])
    assert pl.DataFrame(result).shape == (ROWS, 2)
    assert pa.table(result).num_rows == len(result) == ROWS
    assert "Result of 40 rows" in repr(result)
    with pytest.raises(KeyError, match="no column 'beta'; there are ts_event, alpha"):
        result["beta"]


def test_plots():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    frame = long(panel())
    options = {"factors": ["alpha", "ties"]}
    ic = evaluate.ic(frame, **options)
    ax = ic.plot()
    assert [line.get_label() for line in ax.lines] == ["alpha", "ties"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.nancumsum(ic["alpha"]))
    assert len(evaluate.ir(frame, **options).plot().patches) == 2 * 5
    assert len(evaluate.decay(frame, horizons=(1, 2), **options).plot().patches) == 4
    quantiles = evaluate.quantile_returns(frame, n=3, **options).plot()
    assert quantiles.lines[0].get_label() == "alpha q1"
    assert len(quantiles.lines) == 2 * 4
    figure, mine = pyplot.subplots()
    assert evaluate.turnover(frame, **options).plot(ax=mine) is mine
    evaluate.aggregate(frame, "sector", per=None, **options).plot()
    pyplot.close("all")
    assert figure


def test_bars_stand_at_the_group_they_are_of():
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot

    frame = pa.table(
        {
            "symbol": ["a", "a", "b"],
            "ts_event": [1, 2, 2],
            "month": ["Jan", "Feb", "Feb"],
            "alpha": [1.0, 2.0, 3.0],
        }
    )
    ax = evaluate.aggregate(frame, "month").plot()
    labels = [label.get_text() for label in ax.get_xticklabels()]
    where = {label: tick for label, tick in zip(labels, ax.get_xticks(), strict=True)}
    found = {bar.get_height(): bar.get_x() + bar.get_width() / 2 for bar in ax.patches}
    near = {height: min(where, key=lambda label: abs(where[label] - x)) for height, x in found.items()}
    assert near == {1.0: "Jan", 2.0: "Feb", 3.0: "Feb"}
    pyplot.close("all")


def test_whole_numbers_of_a_time_column_are_drawn_as_times():
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import dates, pyplot

    times = [1_700_000_000_000_000_000 + i * 86_400_000_000_000 for i in range(4)]
    frame = pa.table({"symbol": ["a", "b"] * 4, "ts_event": sorted(times * 2), "alpha": np.arange(8.0)})
    ax = evaluate.turnover(frame).plot()
    assert isinstance(ax.xaxis.get_major_formatter(), dates.AutoDateFormatter | dates.ConciseDateFormatter)
    ax = evaluate.turnover(np.arange(8.0).reshape(4, 2)).plot()
    assert list(ax.lines[0].get_xdata()) == [0, 1, 2, 3]
    pyplot.close("all")


def test_plot_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(FactorError, match="takes matplotlib, which is not installed; pip install matplotlib"):
        evaluate.turnover(panel()["alpha"]).plot()


A = np.zeros((4, 3))


def months():
    frame = pd.DataFrame({"symbol": "a", "ts_event": pd.date_range("2024-01-01", periods=3), "alpha": 1.0})
    return frame.assign(month=frame["ts_event"].dt.to_period("M"))


def test_horizons_may_be_anything_that_gives_numbers():
    prices = np.random.default_rng(4).uniform(1, 2, (9, 5))
    want = evaluate.decay(prices, prices, horizons=[1, 3]).table
    assert evaluate.decay(prices, prices, horizons=iter((1, 3))).table.equals(want)


def test_what_can_be_read_once_is_read_once():
    table = pa.table({"symbol": ["a", "b"] * 2, "ts_event": [1, 1, 2, 2], "close": [1.0, 2.0, 3.0, 5.0]})
    made = evaluate.forward(table.to_reader())
    assert made["returns"].to_pylist()[:2] == [2.0, 1.5]
    assert made.num_rows == 4


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: evaluate.ic(long(panel()), "return"), "field 'return' missing"),
        (lambda: evaluate.ic(long(panel()), factors=["alfa"]), "did you mean 'alpha'"),
        (lambda: evaluate.ic(long(panel()), factors=["sector"]), "expected numbers for 'sector'"),
        (lambda: evaluate.ic(long(panel()), A), "expected the name of the column of returns, got ndarray"),
        (
            lambda: evaluate.ic(pl.LazyFrame({"a": [1]})),
            "got polars.lazyframe.frame.LazyFrame - in evaluate; call .coll",
        ),
        (lambda: evaluate.ic([1, 2]), "expected a long Arrow, polars or pandas frame, a dict of"),
        (lambda: evaluate.ic(A), "there is no 'returns' among 'factor' - in evaluate; give the array of returns"),
        (lambda: evaluate.ic({"a": A}, A[:2]), "expected 'returns' of shape (4, 3), got (2, 3)"),
        (lambda: evaluate.ic(A[0], A), "expected 'factor' of shape (rows, symbols), got (3,)"),
        (lambda: evaluate.ic({"a": A, "b": A[:2]}, A), "expected 'b' of shape (4, 3), got (2, 3)"),
        (lambda: evaluate.ic({"a": A}, A, factors=["b"]), "there is no 'b' among 'a'"),
        (lambda: evaluate.ic({}, A), "there is no factor to evaluate - in data with nothing"),
        (lambda: evaluate.ic(long(panel())[["symbol", "ts_event", "returns"]]), "there is no factor to evaluate"),
        (lambda: evaluate.forward(A, 0), "expected horizon a whole number of at least 1, got 0"),
        (lambda: evaluate.forward(A, 1.5), "expected horizon a whole number of at least 1, got 1.5"),
        (lambda: evaluate.turnover(A, lag=0), "expected lag a whole number of at least 1"),
        (lambda: evaluate.quantile_returns(A, A, n=1), "expected n a whole number of at least 2, got 1"),
        (
            lambda: evaluate.aggregate(A, np.arange(4), "median"),
            "expected how of mean, sum, min, max, first, last, count",
        ),
        (lambda: evaluate.aggregate(A, np.arange(4), []), "expected how of mean"),
        (lambda: evaluate.aggregate(A, np.arange(4), per="day"), "expected per 'symbol', 'time' or None, got 'day'"),
        (lambda: evaluate.aggregate(A, np.arange(3)), "expected labels of shape (4, 3) or (4,), got (3,)"),
        (lambda: evaluate.aggregate(long(panel()), "industry"), "there is no column 'industry'"),
        (
            lambda: evaluate.aggregate(months(), "month", per=None),
            "expected labels that are texts, numbers or dates, got extension<pandas.period",
        ),
        (lambda: evaluate.ic(long(panel()), ticker="symbol"), "there is no option 'ticker' - in evaluate; factors,"),
        (lambda: evaluate.decay(A, A, horizons=[]), "there is no horizon to look at"),
    ],
)
def test_mistakes_name_the_next_step(call, message):
    with pytest.raises(FactorError) as caught:
        call()
    assert message in str(caught.value)
