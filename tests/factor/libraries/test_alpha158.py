"""Qlib's factors against pandas and NumPy, window by window."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from penstock import factor as f
from penstock.errors import FactorError

WINDOWS = (5, 10, 20, 30, 60)


def bars(seed=0, rows=150, symbols=6, holes=False):
    rng = np.random.default_rng(seed)
    close = np.round(30 * np.exp(rng.normal(0, 0.02, (rows, symbols)).cumsum(0)), 2)  # ticks, so that there are ties
    open_ = np.round(close * np.exp(rng.normal(0, 0.01, close.shape)), 2)
    high = np.maximum(open_, close) + np.round(np.abs(rng.normal(0, 0.2, close.shape)), 2)
    low = np.minimum(open_, close) - np.round(np.abs(rng.normal(0, 0.2, close.shape)), 2)
    volume = np.round(np.exp(rng.normal(10, 0.5, close.shape)))
    panel = {"open": open_, "high": high, "low": low, "close": close, "volume": volume}
    panel["vwap"] = (open_ + high + low + close) / 4
    if holes:
        for x in panel.values():
            x[100] = np.nan
    return panel


def line(y):
    """Slope, R² and last residual of a line through the window."""
    at = np.arange(1, len(y) + 1)
    slope, start = np.polyfit(at, y, 1)
    left = y - (slope * at + start)
    return slope, 1 - (left**2).sum() / ((y - y.mean()) ** 2).sum(), left[-1]


def reference(panel):
    o, h, l, c, v, w = (pd.DataFrame(panel[n]) for n in ("open", "high", "low", "close", "volume", "vwap"))  # noqa: E741
    big, small, e = np.maximum(o, c), np.minimum(o, c), 1e-12
    made = {
        "KMID": (c - o) / o,
        "KLEN": (h - l) / o,
        "KMID2": (c - o) / (h - l + e),
        "KUP": (h - big) / o,
        "KUP2": (h - big) / (h - l + e),
        "KLOW": (small - l) / o,
        "KLOW2": (small - l) / (h - l + e),
        "KSFT": (2 * c - h - l) / o,
        "KSFT2": (2 * c - h - l) / (h - l + e),
        "OPEN0": o / c,
        "HIGH0": h / c,
        "LOW0": l / c,
        "VWAP0": w / c,
    }
    change, flow = c.diff(), (c / c.shift(1) - 1).abs() * v
    families = {
        "ROC": lambda d: c.shift(d) / c,
        "MA": lambda d: c.rolling(d).mean() / c,
        "STD": lambda d: c.rolling(d).std() / c,
        "BETA": lambda d: c.rolling(d).apply(lambda y: line(y)[0], raw=True) / c,
        "RSQR": lambda d: c.rolling(d).apply(lambda y: line(y)[1], raw=True),
        "RESI": lambda d: c.rolling(d).apply(lambda y: line(y)[2], raw=True) / c,
        "MAX": lambda d: h.rolling(d).max() / c,
        "MIN": lambda d: l.rolling(d).min() / c,
        "QTLU": lambda d: c.rolling(d).quantile(0.8) / c,
        "QTLD": lambda d: c.rolling(d).quantile(0.2) / c,
        "RANK": lambda d: c.rolling(d).rank(pct=True),
        "RSV": lambda d: (c - l.rolling(d).min()) / (h.rolling(d).max() - l.rolling(d).min() + e),
        "IMAX": lambda d: h.rolling(d).apply(lambda y: y.argmax() + 1, raw=True) / d,
        "IMIN": lambda d: l.rolling(d).apply(lambda y: y.argmin() + 1, raw=True) / d,
        "IMXD": lambda d: (
            h.rolling(d).apply(lambda y: y.argmax(), raw=True) / d
            - l.rolling(d).apply(lambda y: y.argmin(), raw=True) / d
        ),
        "CORR": lambda d: c.rolling(d).corr(np.log(v + 1)),
        "CORD": lambda d: (c / c.shift(1)).rolling(d).corr(np.log(v / v.shift(1) + 1)),
        "CNTP": lambda d: (change > 0).astype(float).where(change.notna()).rolling(d).mean(),
        "CNTN": lambda d: (change < 0).astype(float).where(change.notna()).rolling(d).mean(),
        "CNTD": lambda d: np.sign(change).rolling(d).mean(),
        **moves("SUM", c),
        "VMA": lambda d: v.rolling(d).mean() / (v + e),
        "VSTD": lambda d: v.rolling(d).std() / (v + e),
        "WVMA": lambda d: flow.rolling(d).std() / (flow.rolling(d).mean() + e),
        **moves("VSUM", v),
    }
    for family, compute in families.items():
        made.update({f"{family}{d}": compute(d) for d in WINDOWS})
    return {name: x.to_numpy() for name, x in made.items()}


def moves(name, x):
    change = x.diff()
    total = {d: change.abs().rolling(d).sum() + 1e-12 for d in WINDOWS}
    return {
        f"{name}P": lambda d: change.clip(lower=0).rolling(d).sum() / total[d],
        f"{name}N": lambda d: (-change).clip(lower=0).rolling(d).sum() / total[d],
        f"{name}D": lambda d: change.rolling(d).sum() / total[d],
    }


@pytest.mark.parametrize("holes", [False, True])
def test_equals_pandas_and_polyfit(holes):
    panel = bars(holes=holes)
    want = reference(panel)
    program = f.compile(f.library("alpha158"))
    got = program.batch(panel)
    assert list(got) == list(want)
    assert len(got) == 158
    assert program.warmup == 60
    for name, x in want.items():
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(got[name], x, rtol=1e-8, atol=1e-9, err_msg=name)


def test_float32_is_near():
    panel = bars(seed=1)
    want = reference(panel)
    got = f.compile(f.library("alpha158"), dtype="float32").batch(panel)
    for name, x in want.items():
        # A rank or a place in the window differs where float32 makes two prices equal.
        assert np.isclose(got[name], x, rtol=2e-3, atol=2e-3, equal_nan=True).mean() > 0.99, name


def test_before_a_window_is_full_it_is_nan_where_qlib_takes_what_there_is():
    panel = bars(rows=12)
    got = f.compile(f.library("alpha158").select("MA10", "CORD5", "ROC5")).batch(panel)
    assert np.isnan(got["MA10"][:9]).all()
    assert not np.isnan(got["MA10"][9:]).any()
    close = pd.DataFrame(panel["close"])
    np.testing.assert_allclose(got["MA10"][9:], (close.rolling(10, min_periods=1).mean() / close)[9:], rtol=1e-12)
    assert np.isnan(got["CORD5"][:5]).all()
    assert np.isfinite(got["ROC5"][5:]).all()


@pytest.mark.parametrize("name", ["alpha158", "alpha360"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_batch_and_ticks_give_the_same_bits(name, dtype):
    panel = bars(seed=2, rows=80, symbols=3)
    program = f.compile(f.library(name), dtype=dtype)
    whole = program.batch(panel)
    live = program.stream(n=3)
    live.batch({name: x[:66] for name, x in panel.items()})
    live = program.stream(state=live.snapshot())
    for t in range(66, 80):
        for output, row in live.step(**{name: x[t] for name, x in panel.items()}).items():
            assert row.tobytes() == whole[output][t].tobytes(), (output, t)


def test_alpha360():
    panel = bars(seed=3, rows=70)
    library = f.library("alpha360")
    assert len(library) == 360
    names = list(library)
    assert names[0] == "CLOSE59"
    assert names[59:61] == ["CLOSE0", "OPEN59"]
    assert names[-1] == "VOLUME0"
    got = f.compile(library).batch(panel)
    for name in ("close", "open", "high", "low", "vwap", "volume"):
        x = pd.DataFrame(panel[name])
        newest = x + 1e-12 if name == "volume" else pd.DataFrame(panel["close"])
        for i in range(60):
            np.testing.assert_array_equal(got[f"{name.upper()}{i}"], (x.shift(i) / newest).to_numpy())


def test_windows_and_sources():
    library = f.library("alpha158", windows=(3, 7))
    assert len(library) == 13 + 2 * 29
    assert library["IMAX7"] is f.ts_argmax(f.field("high"), 7) / 7
    assert library["VSUMP3"] is f.parse(library.source("VSUMP3"))
    assert f.library("alpha158").source("CORD20").startswith("Corr($close / Ref($close, 1), Log($volume / Ref(")
    assert "warm      after 20 rows" in f.library("alpha158").explain("CORD20")
    for windows in ((1,), 5.0, (True,), "5"):
        with pytest.raises(FactorError, match="windows of whole numbers, at least 2"):
            f.library("alpha158", windows=windows)
    with pytest.raises(FactorError, match="library 'alpha360' has no reading 'windows'; it has none"):
        f.library("alpha360", windows=(3,))
    with pytest.raises(FactorError, match="no factor 'RSQ5'; did you mean RSQR5"):
        f.library("alpha158").select("RSQ5")
