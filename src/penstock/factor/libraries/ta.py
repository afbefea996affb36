"""Indicators with TA-Lib's names, parameters and conventions, as expressions.

    from penstock.factor.libraries import ta
    close, high, low = f.fields("close", "high", "low")
    mine = f.Factors(rsi=ta.rsi(close, 14), **ta.bbands(close, 20)._asdict())
    f.library("ta")["rsi"]                              # each at TA-Lib's usual parameters

Functions take series first, then parameters with TA-Lib's defaults, and give an expression, or a named tuple of them.
As there: exponential means begin with the mean of their first n rows, Wilder's (rsi, atr, adx …) with that of theirs,
`macd` begins both of its means at the slow one's first row, `bbands` and `stddev` divide by n, `aroon` takes the newest
of equal highs. Rows before the first value are NaN, and a function of n rows of a series waits for n rows of it.

Different: a row that is NaN makes windows with it NaN, and recursive means leave it out and go on, where TA-Lib stays
NaN to the end of the series. Recursive means, and sums from the first row on (`ad`, `obv`), never forget: they are in
`program.endless`. TA-Lib sets results whose divisor is 0 to 0 (`rsi`, `cci`, `mfi`, `willr`, `adx` …); so does this.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from penstock.factor import ops as _ops
from penstock.factor.graph import Node, constant, field
from penstock.factor.libraries.base import Library
from penstock.factor.ops import elementwise as e
from penstock.factor.ops.composites import ts_delta, ts_mad, ts_std
from penstock.factor.ops.windowed import (
    ts_corr_or_zero,
    ts_cumsum,
    ts_decay_linear,
    ts_delay,
    ts_ema,
    ts_max,
    ts_mean,
    ts_min,
    ts_since_max,
    ts_since_min,
    ts_slope,
    ts_sum,
    ts_var,
)

__all__ = [
    "ZERO",
    "Aroon",
    "Bands",
    "Fast",
    "Macd",
    "Stoch",
    "ad",
    "adosc",
    "adx",
    "adxr",
    "apo",
    "aroon",
    "aroonosc",
    "atr",
    "avgprice",
    "bbands",
    "bop",
    "build",
    "cci",
    "cmo",
    "correl",
    "dema",
    "dx",
    "ema",
    "linearreg",
    "linearreg_slope",
    "macd",
    "medprice",
    "mfi",
    "midpoint",
    "midprice",
    "minus_di",
    "minus_dm",
    "mom",
    "natr",
    "obv",
    "plus_di",
    "plus_dm",
    "ppo",
    "roc",
    "rocp",
    "rocr",
    "rsi",
    "sma",
    "stddev",
    "stoch",
    "stochf",
    "stochrsi",
    "tema",
    "trange",
    "trima",
    "trix",
    "tsf",
    "typprice",
    "ultosc",
    "var",
    "wclprice",
    "willr",
    "wma",
]

assert _ops  # fills the table

ZERO = 1e-14
"""What is nearer to 0 counts as 0, as in TA-Lib."""


class Bands(NamedTuple):
    """Bollinger's bands."""

    upper: Node
    middle: Node
    lower: Node


class Macd(NamedTuple):
    """The difference of two means, its mean, and how far it is above it."""

    macd: Node
    signal: Node
    hist: Node


class Stoch(NamedTuple):
    """The slow stochastic oscillator and its mean."""

    slowk: Node
    slowd: Node


class Fast(NamedTuple):
    """The fast stochastic oscillator and its mean."""

    fastk: Node
    fastd: Node


class Aroon(NamedTuple):
    """How new the lowest low and the highest high are, 0 to 100."""

    down: Node
    up: Node


def _over(x: Node, y: Node) -> Node:
    """The quotient x / y, 0 where y is 0 or next to it."""
    return e.where(e.abs(y) < ZERO, 0, x / y)


# ---- means ----


def sma(x: Node, n: int = 30) -> Node:
    """The mean of n rows."""
    return ts_mean(x, n)


def wma(x: Node, n: int = 30) -> Node:
    """The mean of n rows with weights 1 to n."""
    return ts_decay_linear(x, n)


def trima(x: Node, n: int = 30) -> Node:
    """The mean of means: weights rise to the middle of n rows and fall again."""
    return ts_mean(ts_mean(x, (n + 1) // 2), n // 2 + 1) if n > 1 else ts_mean(x, 1)


def _seeded(x: Node, first: Node, span: int) -> Node:
    """An exponential mean that begins with the first value `first` has, in its row, and goes on with x."""
    there = 1.0 - e.is_nan(first)
    begun = ts_cumsum(there)
    held = e.where(there & e.eq(begun, 1), first, x)
    return ts_ema(e.where(e.gt(begun, 0), held, constant(float("nan"))), span)


def ema(x: Node, n: int = 30) -> Node:
    """The exponential mean with weight 2 / (n + 1), from the mean of the first n rows on."""
    return _seeded(x, ts_mean(x, n), n)


def _wilder(x: Node, n: int) -> Node:
    """Wilder's mean: weight 1 / n, from the mean of the first n rows on."""
    return _seeded(x, ts_mean(x, n), 2 * n - 1)


def _wilder_sum(x: Node, n: int) -> Node:
    """Wilder's mean as TA-Lib begins it for moves: from the sum of n - 1 rows over n, shown a row later."""
    if n == 1:
        return x
    first = ts_sum(x, n - 1) / float(n)
    mean = _seeded(x, first, 2 * n - 1)
    return e.where(e.gt(ts_cumsum(1.0 - e.is_nan(first)), 1), mean, constant(float("nan")))


def dema(x: Node, n: int = 30) -> Node:
    """Twice the exponential mean less its exponential mean."""
    one = ema(x, n)
    return 2.0 * one - ema(one, n)


def tema(x: Node, n: int = 30) -> Node:
    """Three times the exponential mean, less three times its mean, plus the mean of that."""
    one = ema(x, n)
    two = ema(one, n)
    return 3.0 * one - 3.0 * two + ema(two, n)


def midpoint(x: Node, n: int = 14) -> Node:
    """The middle of the highest and lowest of n rows."""
    return (ts_max(x, n) + ts_min(x, n)) / 2.0


def midprice(high: Node, low: Node, n: int = 14) -> Node:
    """The middle of the highest high and lowest low of n rows."""
    return (ts_max(high, n) + ts_min(low, n)) / 2.0


def bbands(x: Node, n: int = 5, up: float = 2.0, down: float = 2.0) -> Bands:
    """The mean of n rows and the bands `up` and `down` standard deviations (divisor n) around it."""
    middle, width = ts_mean(x, n), stddev(x, n)
    return Bands(middle + width * up, middle, middle - width * down)


# ---- prices ----


def avgprice(open: Node, high: Node, low: Node, close: Node) -> Node:
    """The mean of the four prices."""
    return (open + high + low + close) / 4.0


def medprice(high: Node, low: Node) -> Node:
    """The mean of high and low."""
    return (high + low) / 2.0


def typprice(high: Node, low: Node, close: Node) -> Node:
    """The mean of high, low and close."""
    return (high + low + close) / 3.0


def wclprice(high: Node, low: Node, close: Node) -> Node:
    """The mean of high, low and twice the close."""
    return (high + low + close * 2.0) / 4.0


# ---- statistics ----


def var(x: Node, n: int = 5) -> Node:
    """The variance of n rows, divisor n."""
    return ts_var(x, n) * ((n - 1) / n)


def stddev(x: Node, n: int = 5) -> Node:
    """The standard deviation of n rows, divisor n."""
    return ts_std(x, n) * math.sqrt((n - 1) / n)


def correl(x: Node, y: Node, n: int = 30) -> Node:
    """Pearson's correlation of n rows; 0 for a side of equal rows."""
    return ts_corr_or_zero(x, y, n)


def linearreg_slope(x: Node, n: int = 14) -> Node:
    """The slope of the least-squares line through n rows."""
    return ts_slope(x, n)


def linearreg(x: Node, n: int = 14) -> Node:
    """The least-squares line through n rows at the newest."""
    return ts_mean(x, n) + ts_slope(x, n) * ((n - 1) / 2)


def tsf(x: Node, n: int = 14) -> Node:
    """The least-squares line through n rows, one row further."""
    return ts_mean(x, n) + ts_slope(x, n) * ((n + 1) / 2)


# ---- momentum ----


def mom(x: Node, n: int = 10) -> Node:
    """The change over n rows."""
    return ts_delta(x, n)


def rocr(x: Node, n: int = 10) -> Node:
    """The ratio to n rows ago."""
    return _over(x, ts_delay(x, n))


def rocp(x: Node, n: int = 10) -> Node:
    """The change over n rows as a share."""
    return _over(ts_delta(x, n), ts_delay(x, n))


def roc(x: Node, n: int = 10) -> Node:
    """The change over n rows in percent."""
    return rocp(x, n) * 100.0


def rsi(x: Node, n: int = 14) -> Node:
    """Wilder's relative strength: the mean gain as percent of mean gain and mean loss."""
    change = ts_delta(x, 1)
    gain, loss = _wilder(e.max(change, 0), n), _wilder(e.max(-change, 0), n)
    return 100.0 * _over(gain, gain + loss)


def cmo(x: Node, n: int = 14) -> Node:
    """Chande's momentum: mean gain less mean loss as percent of both, with Wilder's means."""
    change = ts_delta(x, 1)
    gain, loss = _wilder(e.max(change, 0), n), _wilder(e.max(-change, 0), n)
    return 100.0 * _over(gain - loss, gain + loss)


def apo(x: Node, fast: int = 12, slow: int = 26) -> Node:
    """The difference of two exponential means."""
    return ema(x, fast) - ema(x, slow)


def ppo(x: Node, fast: int = 12, slow: int = 26) -> Node:
    """The difference of two exponential means in percent of the slow one."""
    return 100.0 * _over(apo(x, fast, slow), ema(x, slow))


def macd(x: Node, fast: int = 12, slow: int = 26, signal: int = 9) -> Macd:
    """The fast less the slow exponential mean, its exponential mean, and their difference.

    Both means begin in the slow one's first row; TA-Lib shows `macd` only where it has `signal`, and so does this.
    """
    fast, slow = sorted((fast, slow))
    begins = 0.0 * ts_mean(x, slow)
    line = _seeded(x, ts_mean(x, fast) + begins, fast) - ema(x, slow)
    mean = ema(line, signal)
    shown = line + 0.0 * mean
    return Macd(shown, mean, line - mean)


def trix(x: Node, n: int = 30) -> Node:
    """The change of a threefold exponential mean over a row, in percent."""
    return roc(ema(ema(ema(x, n), n), n), 1)


def willr(high: Node, low: Node, close: Node, n: int = 14) -> Node:
    """Williams' %R: how far the close is below the highest high, in percent of the range of n rows; -100 to 0."""
    top = ts_max(high, n)
    return -100.0 * _over(top - close, top - ts_min(low, n))


def cci(high: Node, low: Node, close: Node, n: int = 14) -> Node:
    """How many 0.015 mean absolute deviations the typical price is above its mean of n rows."""
    price = typprice(high, low, close)
    return _over(price - ts_mean(price, n), 0.015 * ts_mad(price, n))


def bop(open: Node, high: Node, low: Node, close: Node) -> Node:
    """The body of the bar over its range."""
    return _over(close - open, high - low)


def stochf(high: Node, low: Node, close: Node, fastk: int = 5, fastd: int = 3) -> Fast:
    """Where the close is in the range of `fastk` rows, in percent, and the mean of that over `fastd`."""
    bottom = ts_min(low, fastk)
    k = 100.0 * _over(close - bottom, ts_max(high, fastk) - bottom)
    d = ts_mean(k, fastd)
    return Fast(k + 0.0 * d, d)


def stoch(high: Node, low: Node, close: Node, fastk: int = 5, slowk: int = 3, slowd: int = 3) -> Stoch:
    """The mean over `slowk` rows of the fast oscillator, and the mean of that over `slowd`."""
    k = stochf(high, low, close, fastk, slowk).fastd
    d = ts_mean(k, slowd)
    return Stoch(k + 0.0 * d, d)


def stochrsi(x: Node, n: int = 14, fastk: int = 5, fastd: int = 3) -> Fast:
    """The fast stochastic oscillator of the relative strength."""
    strength = rsi(x, n)
    return stochf(strength, strength, strength, fastk, fastd)


def ultosc(high: Node, low: Node, close: Node, n1: int = 7, n2: int = 14, n3: int = 28) -> Node:
    """Buying pressure over true range in three windows, weighed 4, 2 and 1, in percent."""
    before = ts_delay(close, 1)
    pressure, true = close - e.min(low, before), trange(high, low, close)
    parts = [_over(ts_sum(pressure, n), ts_sum(true, n)) for n in sorted((n1, n2, n3))]
    return 100.0 * (4.0 * parts[0] + 2.0 * parts[1] + parts[2]) / 7.0


def aroon(high: Node, low: Node, n: int = 14) -> Aroon:
    """100 for a low (a high) that is new among the last n + 1 rows, 0 for one n rows ago; the newest of equals."""
    return Aroon(*(100.0 * (n - since) / n for since in (ts_since_min(low, n + 1), ts_since_max(high, n + 1))))


def aroonosc(high: Node, low: Node, n: int = 14) -> Node:
    """The up less the down of `aroon`."""
    return 100.0 * (ts_since_min(low, n + 1) - ts_since_max(high, n + 1)) / n


# ---- directional movement ----


def _moves(high: Node, low: Node) -> tuple[Node, Node]:
    up, down = ts_delta(high, 1), -ts_delta(low, 1)
    return e.where((up > down) & (up > 0), up, 0), e.where((down > up) & (down > 0), down, 0)


def plus_dm(high: Node, low: Node, n: int = 14) -> Node:
    """Wilder's sum of upward moves; shown from the nth row on, as TA-Lib does."""
    return _dm(_moves(high, low)[0], n)


def minus_dm(high: Node, low: Node, n: int = 14) -> Node:
    """Wilder's sum of downward moves."""
    return _dm(_moves(high, low)[1], n)


def _dm(move: Node, n: int) -> Node:
    return move if n == 1 else n * _seeded(move, ts_sum(move, n - 1) / float(n), 2 * n - 1)


def _di(move: Node, high: Node, low: Node, close: Node, n: int) -> Node:
    scale = 1.0 if n == 1 else 100.0  # TA-Lib's DI over one row is a share
    return scale * _over(_wilder_sum(move, n), _wilder_sum(trange(high, low, close), n))


def plus_di(high: Node, low: Node, close: Node, n: int = 14) -> Node:
    """Upward moves in percent of the true range, both as Wilder's means."""
    return _di(_moves(high, low)[0], high, low, close, n)


def minus_di(high: Node, low: Node, close: Node, n: int = 14) -> Node:
    """Downward moves in percent of the true range, both as Wilder's means."""
    return _di(_moves(high, low)[1], high, low, close, n)


def dx(high: Node, low: Node, close: Node, n: int = 14) -> Node:
    """How far `plus_di` and `minus_di` are apart, in percent of their sum; n at least 2."""
    plus, minus = plus_di(high, low, close, n), minus_di(high, low, close, n)
    return 100.0 * _over(e.abs(minus - plus), minus + plus)


def adx(high: Node, low: Node, close: Node, n: int = 14) -> Node:
    """Wilder's mean of `dx`."""
    return _wilder(dx(high, low, close, n), n)


def adxr(high: Node, low: Node, close: Node, n: int = 14) -> Node:
    """The mean of `adx` now and n - 1 rows ago."""
    trend = adx(high, low, close, n)
    return (trend + ts_delay(trend, n - 1)) / 2.0


# ---- range ----


def trange(high: Node, low: Node, close: Node) -> Node:
    """The true range: of the row's high and low and the close before it."""
    before = ts_delay(close, 1)
    return e.max(e.max(high - low, e.abs(high - before)), e.abs(low - before))


def atr(high: Node, low: Node, close: Node, n: int = 14) -> Node:
    """Wilder's mean of the true range."""
    return _wilder(trange(high, low, close), n)


def natr(high: Node, low: Node, close: Node, n: int = 14) -> Node:
    """`atr` in percent of the close."""
    return 100.0 * _over(atr(high, low, close, n), close)


# ---- volume ----


def obv(close: Node, volume: Node) -> Node:
    """Volume added up with the sign of the close's change, from the first row's volume on."""
    change = ts_delta(close, 1)
    return ts_cumsum(e.where(e.is_nan(ts_delay(close, 1)), volume, e.sign(change) * volume))


def ad(high: Node, low: Node, close: Node, volume: Node) -> Node:
    """Volume added up by where the close is in the bar, -1 to 1."""
    return ts_cumsum(_over((close - low) - (high - close), high - low) * volume)


def adosc(high: Node, low: Node, close: Node, volume: Node, fast: int = 3, slow: int = 10) -> Node:
    """The fast less the slow exponential mean of `ad`, both from its first row on, shown from the slow one's nth."""
    line = ad(high, low, close, volume)
    shown = ts_delay(line, max(fast, slow) - 1) * 0.0
    return ts_ema(line, fast) - ts_ema(line, slow) + shown


def mfi(high: Node, low: Node, close: Node, volume: Node, n: int = 14) -> Node:
    """Money that came with a rising typical price in percent of all, over n rows; 0 if all is below 1."""
    price = typprice(high, low, close)
    change, money = ts_delta(price, 1), price * volume
    up, down = ts_sum(e.where(change > ZERO, money, 0), n), ts_sum(e.where(change < -ZERO, money, 0), n)
    return e.where(up + down < 1, 0, 100.0 * up / (up + down))


def build() -> Library:
    """Each indicator of open, high, low, close, volume at TA-Lib's usual parameters; parts as `macd_signal`."""
    o, h, l, c, v = (field(name) for name in ("open", "high", "low", "close", "volume"))  # noqa: E741
    bands, lines, slow, fast, fast_rsi, ages = (
        bbands(c),
        macd(c),
        stoch(h, l, c),
        stochf(h, l, c),
        stochrsi(c),
        aroon(h, l),
    )
    of_close = (sma, wma, ema, dema, tema, trima, trix, rsi, cmo, mom, roc, rocp, rocr, apo, ppo, midpoint, var, stddev)
    of_bar = (cci, willr, ultosc, trange, atr, natr, plus_di, minus_di, dx, adx, adxr, typprice, wclprice)
    nodes: dict[str, Node] = {
        **{one.__name__: one(c) for one in (*of_close, linearreg, linearreg_slope, tsf)},
        **{one.__name__: one(h, l, c) for one in of_bar},
        **{one.__name__: one(h, l) for one in (medprice, midprice, plus_dm, minus_dm, aroonosc)},
        **{one.__name__: one(o, h, l, c) for one in (avgprice, bop)},
        **{one.__name__: one(h, l, c, v) for one in (ad, adosc, mfi)},
        "obv": obv(c, v),
        **{f"bbands_{name}": node for name, node in bands._asdict().items()},
        "macd": lines.macd,
        "macd_signal": lines.signal,
        "macd_hist": lines.hist,
        **{f"stoch_{name}": node for name, node in slow._asdict().items()},
        **{f"stochf_{name}": node for name, node in fast._asdict().items()},
        **{f"stochrsi_{name}": node for name, node in fast_rsi._asdict().items()},
        **{f"aroon_{name}": node for name, node in ages._asdict().items()},
    }
    return Library("ta", nodes, {name: _sentence(name) for name in nodes})


def _sentence(name: str) -> str:
    made = globals().get(name) or globals()[name.partition("_")[0]]
    return str(made.__doc__).partition("\n")[0]
