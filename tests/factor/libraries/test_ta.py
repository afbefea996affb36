"""Indicators against the TA-Lib package; where it is not installed, against recursions written out."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from penstock import factor as f
from penstock.connect import samples
from penstock.errors import SourceError
from penstock.factor.libraries import ta

o, h, lo, c, v = f.fields("open", "high", "low", "close", "volume")

# name: (ours, TA-Lib's call with arrays o h l c v); a tuple of ours meets a tuple of theirs.
CALLS = {
    "sma": (ta.sma(c, 10), lambda t, o, h, lo, c, v: t.SMA(c, 10)),
    "ema": (ta.ema(c, 10), lambda t, o, h, lo, c, v: t.EMA(c, 10)),
    "wma": (ta.wma(c, 10), lambda t, o, h, lo, c, v: t.WMA(c, 10)),
    "trima_even": (ta.trima(c, 10), lambda t, o, h, lo, c, v: t.TRIMA(c, 10)),
    "trima_odd": (ta.trima(c, 7), lambda t, o, h, lo, c, v: t.TRIMA(c, 7)),
    "dema": (ta.dema(c, 8), lambda t, o, h, lo, c, v: t.DEMA(c, 8)),
    "tema": (ta.tema(c, 8), lambda t, o, h, lo, c, v: t.TEMA(c, 8)),
    "midpoint": (ta.midpoint(c), lambda t, o, h, lo, c, v: t.MIDPOINT(c)),
    "midprice": (ta.midprice(h, lo), lambda t, o, h, lo, c, v: t.MIDPRICE(h, lo)),
    "bbands": (ta.bbands(c, 20, 2.0, 1.5), lambda t, o, h, lo, c, v: t.BBANDS(c, 20, 2.0, 1.5)),
    "avgprice": (ta.avgprice(o, h, lo, c), lambda t, o, h, lo, c, v: t.AVGPRICE(o, h, lo, c)),
    "medprice": (ta.medprice(h, lo), lambda t, o, h, lo, c, v: t.MEDPRICE(h, lo)),
    "typprice": (ta.typprice(h, lo, c), lambda t, o, h, lo, c, v: t.TYPPRICE(h, lo, c)),
    "wclprice": (ta.wclprice(h, lo, c), lambda t, o, h, lo, c, v: t.WCLPRICE(h, lo, c)),
    "var": (ta.var(c, 7), lambda t, o, h, lo, c, v: t.VAR(c, 7)),
    "stddev": (ta.stddev(c, 7), lambda t, o, h, lo, c, v: t.STDDEV(c, 7)),
    "correl": (ta.correl(h, lo, 12), lambda t, o, h, lo, c, v: t.CORREL(h, lo, 12)),
    "linearreg": (ta.linearreg(c), lambda t, o, h, lo, c, v: t.LINEARREG(c)),
    "linearreg_slope": (ta.linearreg_slope(c), lambda t, o, h, lo, c, v: t.LINEARREG_SLOPE(c)),
    "tsf": (ta.tsf(c), lambda t, o, h, lo, c, v: t.TSF(c)),
    "mom": (ta.mom(c, 10), lambda t, o, h, lo, c, v: t.MOM(c, 10)),
    "roc": (ta.roc(c), lambda t, o, h, lo, c, v: t.ROC(c)),
    "rocp": (ta.rocp(c), lambda t, o, h, lo, c, v: t.ROCP(c)),
    "rocr": (ta.rocr(c), lambda t, o, h, lo, c, v: t.ROCR(c)),
    "rsi": (ta.rsi(c, 14), lambda t, o, h, lo, c, v: t.RSI(c, 14)),
    "cmo": (ta.cmo(c, 14), lambda t, o, h, lo, c, v: t.CMO(c, 14)),
    "apo": (ta.apo(c), lambda t, o, h, lo, c, v: t.APO(c, matype=1)),
    "ppo": (ta.ppo(c), lambda t, o, h, lo, c, v: t.PPO(c, matype=1)),
    "macd": (ta.macd(c), lambda t, o, h, lo, c, v: t.MACD(c)),
    "macd_fast": (ta.macd(c, 5, 9, 4), lambda t, o, h, lo, c, v: t.MACD(c, 5, 9, 4)),
    "macd_swapped": (ta.macd(c, 9, 5, 4), lambda t, o, h, lo, c, v: t.MACD(c, 9, 5, 4)),
    "trix": (ta.trix(c, 9), lambda t, o, h, lo, c, v: t.TRIX(c, 9)),
    "willr": (ta.willr(h, lo, c), lambda t, o, h, lo, c, v: t.WILLR(h, lo, c)),
    "cci": (ta.cci(h, lo, c), lambda t, o, h, lo, c, v: t.CCI(h, lo, c)),
    "bop": (ta.bop(o, h, lo, c), lambda t, o, h, lo, c, v: t.BOP(o, h, lo, c)),
    "stochf": (ta.stochf(h, lo, c), lambda t, o, h, lo, c, v: t.STOCHF(h, lo, c)),
    "stoch": (ta.stoch(h, lo, c), lambda t, o, h, lo, c, v: t.STOCH(h, lo, c)),
    "stochrsi": (ta.stochrsi(c), lambda t, o, h, lo, c, v: t.STOCHRSI(c)),
    "ultosc": (ta.ultosc(h, lo, c), lambda t, o, h, lo, c, v: t.ULTOSC(h, lo, c)),
    "aroon": (ta.aroon(h, lo), lambda t, o, h, lo, c, v: t.AROON(h, lo)),
    "aroonosc": (ta.aroonosc(h, lo), lambda t, o, h, lo, c, v: t.AROONOSC(h, lo)),
    "plus_dm": (ta.plus_dm(h, lo), lambda t, o, h, lo, c, v: t.PLUS_DM(h, lo)),
    "plus_dm_1": (ta.plus_dm(h, lo, 1), lambda t, o, h, lo, c, v: t.PLUS_DM(h, lo, 1)),
    "minus_dm": (ta.minus_dm(h, lo), lambda t, o, h, lo, c, v: t.MINUS_DM(h, lo)),
    "plus_di": (ta.plus_di(h, lo, c), lambda t, o, h, lo, c, v: t.PLUS_DI(h, lo, c)),
    "plus_di_1": (ta.plus_di(h, lo, c, 1), lambda t, o, h, lo, c, v: t.PLUS_DI(h, lo, c, 1)),
    "minus_di": (ta.minus_di(h, lo, c), lambda t, o, h, lo, c, v: t.MINUS_DI(h, lo, c)),
    "dx": (ta.dx(h, lo, c), lambda t, o, h, lo, c, v: t.DX(h, lo, c)),
    "adx": (ta.adx(h, lo, c), lambda t, o, h, lo, c, v: t.ADX(h, lo, c)),
    "adxr": (ta.adxr(h, lo, c), lambda t, o, h, lo, c, v: t.ADXR(h, lo, c)),
    "trange": (ta.trange(h, lo, c), lambda t, o, h, lo, c, v: t.TRANGE(h, lo, c)),
    "atr": (ta.atr(h, lo, c), lambda t, o, h, lo, c, v: t.ATR(h, lo, c)),
    "natr": (ta.natr(h, lo, c), lambda t, o, h, lo, c, v: t.NATR(h, lo, c)),
    "obv": (ta.obv(c, v), lambda t, o, h, lo, c, v: t.OBV(c, v)),
    "ad": (ta.ad(h, lo, c, v), lambda t, o, h, lo, c, v: t.AD(h, lo, c, v)),
    "adosc": (ta.adosc(h, lo, c, v), lambda t, o, h, lo, c, v: t.ADOSC(h, lo, c, v)),
    "mfi": (ta.mfi(h, lo, c, v), lambda t, o, h, lo, c, v: t.MFI(h, lo, c, v)),
}


def bars(seed=0, rows=160, symbols=4):
    """Prices in ticks, so that highs, lows and closes repeat; one symbol that stands still for a while."""
    rng = np.random.default_rng(seed)
    close = np.round(30 * np.exp(rng.normal(0, 0.01, (rows, symbols)).cumsum(0)), 1)
    open_ = np.round(close * np.exp(rng.normal(0, 0.01, close.shape)), 1)
    high = np.maximum(open_, close) + np.round(np.abs(rng.normal(0, 0.2, close.shape)), 1)
    low = np.minimum(open_, close) - np.round(np.abs(rng.normal(0, 0.2, close.shape)), 1)
    volume = np.round(np.exp(rng.normal(8, 0.5, close.shape)))
    panel = {"open": open_, "high": high, "low": low, "close": close, "volume": volume}
    for name, x in panel.items():
        x[60:100, -1] = (x if name == "volume" else panel["close"])[60, -1]
    return panel


def ours(panel, name, **options):
    nodes = CALLS[name][0]
    nodes = nodes if isinstance(nodes, tuple) else (nodes,)
    program = f.compile({f"out{i}": node for i, node in enumerate(nodes)}, **options)
    return list(program.batch(panel).values())


def compare(name, panel, need):
    need(importlib.util.find_spec("talib"), "TA-Lib: pip install TA-Lib")
    import talib

    got = ours(panel, name)
    # A stochastic oscillator of what only moves by rounding errors is anything from 0 to 100.
    for k in range(panel["close"].shape[1] - (name == "stochrsi")):
        columns = [np.ascontiguousarray(panel[n][:, k], float) for n in panel]
        want = CALLS[name][1](talib, *columns)
        for made, theirs in zip(got, want if isinstance(want, tuple) else (want,), strict=True):
            np.testing.assert_allclose(made[:, k], theirs, rtol=1e-9, atol=1e-7, err_msg=f"{name}, symbol {k}")


@pytest.mark.parametrize("name", CALLS)
def test_equals_talib(name, need):
    compare(name, bars(), need)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_equals_talib_on_real_days(name, need):
    try:
        table = samples.daily_bars(("IBM", "AAPL"))
    except SourceError as error:
        need(False, str(error))
    import pyarrow as pa

    frame = pa.Table.from_batches(table).to_pandas()
    panel = {
        n: frame.pivot(index="ts_event", columns="symbol", values=n).iloc[-600:].to_numpy(float)
        for n in ("open", "high", "low", "close", "volume")
    }
    compare(name, panel, need)


def wilder(x, n, first):
    """Row by row: seeded at row `first` with the mean of the n rows before and at it."""
    out = np.full(x.shape, np.nan)
    mean = x[first - n + 1 : first + 1].mean(0)
    out[first] = mean
    for t in range(first + 1, len(x)):
        mean = mean + (x[t] - mean) / n
        out[t] = mean
    return out


def test_recursions_written_out():
    panel = bars(seed=4, symbols=3)
    close, high, low = panel["close"], panel["high"], panel["low"]
    change = np.diff(close, axis=0, prepend=np.nan)
    gain, loss = wilder(np.maximum(change, 0), 14, 14), wilder(np.maximum(-change, 0), 14, 14)
    np.testing.assert_allclose(ours(panel, "rsi")[0], 100 * gain / (gain + loss), rtol=1e-10)
    before = np.concatenate([np.full((1, 3), np.nan), close[:-1]])
    true = np.maximum(np.maximum(high - low, abs(high - before)), abs(low - before))
    np.testing.assert_allclose(ours(panel, "atr")[0], wilder(true, 14, 14), rtol=1e-10)
    mean = np.full(close.shape, np.nan)
    mean[9] = close[:10].mean(0)
    for t in range(10, len(close)):
        mean[t] = mean[t - 1] + 2 / 11 * (close[t] - mean[t - 1])
    np.testing.assert_allclose(ours(panel, "ema")[0], mean, rtol=1e-10)
    np.testing.assert_array_equal(
        ours(panel, "obv")[0], (np.where(np.isnan(change), 1, np.sign(change)) * panel["volume"]).cumsum(0)
    )


def test_recursive_means_leave_a_missing_row_out():
    panel = bars(seed=5, symbols=2)
    whole = panel["close"].copy()  # its first symbol, as the last stands still
    panel["close"][50, 0] = np.nan
    got = ours(panel, "ema")[0]
    assert np.isnan(got[50, 0])
    assert not np.isnan(got[51:, 0]).any()
    mean = got[49, 0]
    for t in range(51, 80):
        mean = mean + 2 / 11 * (whole[t, 0] - mean)
        np.testing.assert_allclose(got[t, 0], mean, rtol=1e-10)
    assert not np.isnan(ours(panel, "obv")[0][52:]).any()


def test_the_library():
    library = f.library("ta")
    program = f.compile(library)
    assert program.inputs == ("close", "high", "low", "open", "volume") or set(program.inputs) == {
        "close", "high", "low", "open", "volume"
    }  # fmt: skip
    assert {"rsi", "macd", "macd_signal", "bbands_upper", "stoch_slowk", "stochrsi_fastd", "aroon_up", "obv"} <= set(
        library
    )
    assert {"ema", "rsi", "atr", "adx", "obv", "ad", "macd_signal"} <= set(program.endless)
    assert not {"sma", "wma", "bbands_upper", "cci", "aroon_up", "mfi"} & set(program.endless)
    assert library["rsi"] is ta.rsi(c, 14)
    assert library["aroon_up"] is ta.aroon(h, lo).up
    assert "Wilder's relative strength" in library.explain("rsi")
    assert "never forgets" in library.explain("rsi")
    out = program.batch(bars())
    assert all(np.isfinite(x[100:]).all() for x in out.values())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_batch_and_ticks_give_the_same_bits(dtype):
    panel = bars(seed=6, rows=120)
    program = f.compile(f.library("ta"), dtype=dtype)
    whole = program.batch(panel)
    live = program.stream(n=4)
    live.batch({name: x[:90] for name, x in panel.items()})
    live = program.stream(state=live.snapshot())
    for t in range(90, 120):
        for name, row in live.step(**{name: x[t] for name, x in panel.items()}).items():
            assert row.tobytes() == whole[name][t].tobytes(), (name, t)
