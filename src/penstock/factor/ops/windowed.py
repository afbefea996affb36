"""Operators along time. A window of n rows is this row and the n - 1 before it.

Nearly all are monoids: a summary per row (`lift`) and a merge of two neighbouring summaries (`combine`), from which the
machine builds every window without ever subtracting, so that nothing drifts and a NaN or an infinity leaves with its
row. Where a window has to be looked at whole (ranks, quantiles), the machine folds over a ring of past rows.
Empty state is NaN, hence the rows before a window is full are NaN without anybody counting.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from penstock.factor.table import Cell, Flag, Monoid, Ring, Rows, Series, Share, State, Value, windowed

__all__ = [
    "SHORT",
    "ts_absdev",
    "ts_argmax",
    "ts_argmin",
    "ts_corr",
    "ts_corr_or_zero",
    "ts_cov",
    "ts_cumsum",
    "ts_decay_linear",
    "ts_delay",
    "ts_ema",
    "ts_kurt",
    "ts_max",
    "ts_max_drawdown",
    "ts_mean",
    "ts_min",
    "ts_product",
    "ts_quantile",
    "ts_rank",
    "ts_rsquare",
    "ts_since_max",
    "ts_since_min",
    "ts_skew",
    "ts_slope",
    "ts_sum",
    "ts_var",
    "window_state",
]

Machine = Value
Summary = tuple[Value, ...]

SHORT = 4
"""Windows up to this many rows are folded row by row: n - 1 merges cost no more than the three of a longer one."""


def window_state(monoid: Monoid, operands: int = 1) -> Callable[..., State]:
    """The state of `m.window(s, monoid, n, …)`: the n - 1 rows before this one, of each operand."""
    return lambda n, **_: {"past": Ring(n - 1, operands)} if n > 1 else {}


def past_state(n: int, **_: object) -> State:
    """The state of `m.fold` and `m.order`: the n - 1 rows before this one."""
    return {"past": Ring(n - 1)} if n > 1 else {}


def _full(n: int, **_: object) -> int:
    return n - 1


MOMENT_NAN = "NaN while the window holds a NaN or an infinity"
SQUARE_NAN = MOMENT_NAN + ", and where squares of deviations are beyond what the dtype holds"
POWER_NAN = (
    MOMENT_NAN + ", and where powers of deviations are larger than the dtype holds or too small for all its digits"
)


def _normal(m: Machine, x: Value) -> Value:
    """A mask: neither infinite nor so small that digits are lost, for what was squared and is divided by."""
    return (x >= (2.0**-1022 if m.double else 2.0**-126)) & m.finite(x)


def _smaller(m: Machine, a: Value, b: Value) -> Value:
    return m.where((a <= b) | ~m.present(a), a, b)


def _larger(m: Machine, a: Value, b: Value) -> Value:
    return m.where((a >= b) | ~m.present(a), a, b)


def _lift_value(m: Machine, x: Value) -> Summary:
    return (x,)


SUM = Monoid("sum", 1, _lift_value, lambda m, a, b, na, nb: (a[0] + b[0],))
PRODUCT = Monoid("product", 1, _lift_value, lambda m, a, b, na, nb: (a[0] * b[0],))
MINIMUM = Monoid("min", 1, _lift_value, lambda m, a, b, na, nb: (_smaller(m, a[0], b[0]),))
MAXIMUM = Monoid("max", 1, _lift_value, lambda m, a, b, na, nb: (_larger(m, a[0], b[0]),))


@windowed(state=window_state(SUM), lookback=_full, aliases=("sum", "Sum", "rolling_sum"), tolerance=8)
def ts_sum(m: Machine, s: Value, x: Series, *, n: Rows) -> Value:
    """The sum of the last n rows.

    State   n - 1 cells per key.   Cost  O(1) per row.   Error  at most n roundings, independent of history.
    """
    return m.window(s, SUM, n, x)[0]


@windowed(state=window_state(PRODUCT), lookback=_full, aliases=("product",), tolerance=32, degree=0)
def ts_product(m: Machine, s: Value, x: Series, *, n: Rows) -> Value:
    """The product of the last n rows.

    State   n - 1 cells per key.   Cost  O(1) per row.   Unit  that of x to the nth power.
    """
    return m.window(s, PRODUCT, n, x)[0]


@windowed(state=window_state(MINIMUM), lookback=_full, aliases=("Min", "rolling_min"))
def ts_min(m: Machine, s: Value, x: Series, *, n: Rows) -> Value:
    """The smallest of the last n rows; the older of equal zeros.

    State   n - 1 cells per key.   Cost  O(1) per row.
    """
    return m.window(s, MINIMUM, n, x)[0]


@windowed(state=window_state(MAXIMUM), lookback=_full, aliases=("Max", "rolling_max"))
def ts_max(m: Machine, s: Value, x: Series, *, n: Rows) -> Value:
    """The largest of the last n rows; the older of equal zeros.

    State   n - 1 cells per key.   Cost  O(1) per row.
    """
    return m.window(s, MAXIMUM, n, x)[0]


def _first(better: Callable[[Value, Value], Value]) -> Monoid:
    """(value, position from 1) of the best row, the oldest of equals; a NaN is better than all."""

    def combine(m: Machine, a: Summary, b: Summary, na: Value, nb: Value) -> Summary:
        newer = better(b[0], a[0]) | ~m.present(b[0])
        newer = newer & m.present(a[0])
        return m.where(newer, b[0], a[0]), m.where(newer, b[1] + na, a[1])

    return Monoid("value, position", 2, lambda m, x: (x, 1.0), combine)


ARGMIN = _first(lambda new, old: new < old)
ARGMAX = _first(lambda new, old: new > old)


@windowed(state=window_state(ARGMIN), lookback=_full, aliases=("IdxMin", "argmin"), degree=0)
def ts_argmin(m: Machine, s: Value, x: Series, *, n: Rows) -> Value:
    """Where in the window its smallest row is: 1 the oldest … n the newest; the oldest of ties.

    State   n - 1 cells per key.   Cost  O(1) per row.   Unit  rows.
    """
    value, position = m.window(s, ARGMIN, n, x)
    return m.where(m.present(value), position, m.nan)


@windowed(state=window_state(ARGMAX), lookback=_full, aliases=("IdxMax", "argmax"), degree=0)
def ts_argmax(m: Machine, s: Value, x: Series, *, n: Rows) -> Value:
    """Where in the window its largest row is: 1 the oldest … n the newest; the oldest of ties.

    State   n - 1 cells per key.   Cost  O(1) per row.   Unit  rows.
    """
    value, position = m.window(s, ARGMAX, n, x)
    return m.where(m.present(value), position, m.nan)


def _last(better: Callable[[Value, Value], Value]) -> Monoid:
    """(value, rows since) of the best row, the newest of equals; a NaN is better than all."""

    def combine(m: Machine, a: Summary, b: Summary, na: Value, nb: Value) -> Summary:
        older = (better(a[0], b[0]) | ~m.present(a[0])) & m.present(b[0])
        return m.where(older, a[0], b[0]), m.where(older, a[1] + nb, b[1])

    return Monoid("value, rows since", 2, lambda m, x: (x, 0.0), combine)


SINCE_MIN = _last(lambda old, new: old < new)
SINCE_MAX = _last(lambda old, new: old > new)


@windowed(state=window_state(SINCE_MIN), lookback=_full, degree=0)
def ts_since_min(m: Machine, s: Value, x: Series, *, n: Rows) -> Value:
    """How many rows ago the smallest of the last n was: 0 this row … n - 1; the newest of ties.

    State   n - 1 cells per key.   Cost  O(1) per row.   Unit  rows.
    """
    value, since = m.window(s, SINCE_MIN, n, x)
    return m.where(m.present(value), since, m.nan)


@windowed(state=window_state(SINCE_MAX), lookback=_full, degree=0)
def ts_since_max(m: Machine, s: Value, x: Series, *, n: Rows) -> Value:
    """How many rows ago the largest of the last n was: 0 this row … n - 1; the newest of ties.

    State   n - 1 cells per key.   Cost  O(1) per row.   Unit  rows.
    """
    value, since = m.window(s, SINCE_MAX, n, x)
    return m.where(m.present(value), since, m.nan)


def _mean(m: Machine, a: Summary, b: Summary, na: Value, nb: Value) -> Summary:
    return (a[0] + (b[0] - a[0]) * (nb / (na + nb)),)


# A row deviates from itself by x - x: 0, or NaN if infinite, so that such a window is NaN in any order of merges.
MEAN = Monoid("mean", 1, lambda m, x: (x + (x - x),), _mean)


@windowed(
    state=window_state(MEAN),
    lookback=_full,
    aliases=("mean", "Mean", "sma", "SMA", "rolling_mean"),
    tolerance=8,
    nan=MOMENT_NAN,
)
def ts_mean(m: Machine, s: Value, x: Series, *, n: Rows) -> Value:
    """The mean of the last n rows; exactly their value if they are equal.

    State   n - 1 cells per key.   Cost  O(1) per row.   Source  Chan, Golub, LeVeque (1979).
    """
    return m.window(s, MEAN, n, x)[0]


def _moments2(m: Machine, a: Summary, b: Summary, na: Value, nb: Value) -> Summary:
    """Chan, Golub, LeVeque (1979): mean and sum of squared deviations."""
    n = na + nb
    step = b[0] - a[0]
    part = step * (nb / n)
    return a[0] + part, a[1] + b[1] + step * part * na


def _moments4(m: Machine, a: Summary, b: Summary, na: Value, nb: Value) -> Summary:
    """Pébay (2008), SAND2008-6212, equations 2.1 and 3.1: deviations to the fourth power."""
    n = na + nb
    d = b[0] - a[0]
    wa, wb = na / n, nb / n
    cross = d * d * (na * wb)
    m2 = a[1] + b[1] + cross
    m3 = a[2] + b[2] + cross * d * (wa - wb) + 3.0 * d * (wa * b[1] - wb * a[1])
    m4 = (
        a[3]
        + b[3]
        + cross * d * d * (wa * wa - wa * wb + wb * wb)
        + 6.0 * d * d * (wa * wa * b[1] + wb * wb * a[1])
        + 4.0 * d * (wa * b[2] - wb * a[2])
    )
    return a[0] + d * wb, m2, m3, m4


def _moments3(m: Machine, a: Summary, b: Summary, na: Value, nb: Value) -> Summary:
    n = na + nb
    d = b[0] - a[0]
    wa, wb = na / n, nb / n
    cross = d * d * (na * wb)
    m3 = a[2] + b[2] + cross * d * (wa - wb) + 3.0 * d * (wa * b[1] - wb * a[1])
    return a[0] + d * wb, a[1] + b[1] + cross, m3


MOMENTS2 = Monoid("mean, m2", 2, lambda m, x: (x, x - x), _moments2)
MOMENTS3 = Monoid("mean, m2, m3", 3, lambda m, x: (x, x - x, 0.0), _moments3)
MOMENTS4 = Monoid("mean, m2, m3, m4", 4, lambda m, x: (x, x - x, 0.0, 0.0), _moments4)


@windowed(
    state=window_state(MOMENTS2),
    lookback=_full,
    least={"n": 2},
    aliases=("Var", "var", "variance"),
    tolerance=16,
    degree=2,
    nan=SQUARE_NAN,
)
def ts_var(m: Machine, s: Value, x: Series, *, n: Rows) -> Value:
    """The sample variance (ddof 1) of the last n rows; exactly 0 for equal rows.

    State   n - 1 cells per key.   Cost  O(1) per row.   Source  Chan, Golub, LeVeque (1979).
    """
    m2 = m.window(s, MOMENTS2, n, x)[1]
    return m.where(m.finite(m2), m2, m.nan) / (n - 1.0)


@windowed(
    state=window_state(MOMENTS3),
    lookback=_full,
    least={"n": 3},
    aliases=("Skew", "skew"),
    tolerance=32,
    degree=0,
    nan=POWER_NAN,
)
def ts_skew(m: Machine, s: Value, x: Series, *, n: Rows) -> Value:
    """The sample skewness of the last n rows, corrected for bias as pandas does; NaN for equal rows.

    State   n - 1 cells per key.   Cost  O(1) per row.   Source  Pébay (2008).
    """
    _, m2, m3 = m.window(s, MOMENTS3, n, x)
    # Of equal rows m2 is 0 exactly, and NaN is meant.
    power = m2 * m.sqrt(m2)
    return m.where(_normal(m, power), (n * math.sqrt(n - 1.0) / (n - 2.0)) * (m3 / power), m.nan)


@windowed(
    state=window_state(MOMENTS4),
    lookback=_full,
    least={"n": 4},
    aliases=("Kurt", "kurt"),
    tolerance=128,
    degree=0,
    nan=POWER_NAN,
)
def ts_kurt(m: Machine, s: Value, x: Series, *, n: Rows) -> Value:
    """The sample excess kurtosis of the last n rows, corrected for bias as pandas does; NaN for equal rows.

    State   n - 1 cells per key.   Cost  O(1) per row.   Source  Pébay (2008).
    """
    _, m2, _, m4 = m.window(s, MOMENTS4, n, x)
    scale = n * (n + 1.0) * (n - 1.0) / ((n - 2.0) * (n - 3.0))
    power = m2 * m2
    made = scale * (m4 / power) - 3.0 * (n - 1.0) * (n - 1.0) / ((n - 2.0) * (n - 3.0))
    return m.where(_normal(m, power), made, m.nan)


def _comoments(m: Machine, a: Summary, b: Summary, na: Value, nb: Value) -> Summary:
    n = na + nb
    dx, dy = b[0] - a[0], b[1] - a[1]
    px, py = dx * (nb / n), dy * (nb / n)
    return a[0] + px, a[1] + py, a[2] + b[2] + px * dy * na


def _comoments_full(m: Machine, a: Summary, b: Summary, na: Value, nb: Value) -> Summary:
    n = na + nb
    dx, dy = b[0] - a[0], b[1] - a[1]
    px, py = dx * (nb / n), dy * (nb / n)
    return (
        a[0] + px,
        a[1] + py,
        a[2] + b[2] + px * dy * na,
        a[3] + b[3] + px * dx * na,
        a[4] + b[4] + py * dy * na,
    )


COVARIANCE = Monoid("mean x, mean y, mxy", 3, lambda m, x, y: (x, y, (x - x) + (y - y)), _comoments)
CORRELATION = Monoid(
    "mean x, mean y, mxy, mxx, myy", 5, lambda m, x, y: (x, y, (x - x) + (y - y), 0.0, 0.0), _comoments_full
)


@windowed(
    state=window_state(COVARIANCE, 2),
    lookback=_full,
    least={"n": 2},
    aliases=("covariance", "cov", "Cov"),
    tolerance=8,
    degree=2,
    nan=SQUARE_NAN,
)
def ts_cov(m: Machine, s: Value, x: Series, y: Series, *, n: Rows) -> Value:
    """The sample covariance (ddof 1) of the last n rows.

    State   2 n - 2 cells per key.   Cost  O(1) per row.   Source  Chan, Golub, LeVeque (1979).
    Unit    that of x times that of y.
    """
    mxy = m.window(s, COVARIANCE, n, x, y)[2]
    return m.where(m.finite(mxy), mxy, m.nan) / (n - 1.0)


@windowed(
    state=window_state(CORRELATION, 2),
    lookback=_full,
    least={"n": 2},
    aliases=("correlation", "corr", "Corr"),
    tolerance=8,
    degree=0,
    nan=POWER_NAN,
)
def ts_corr(m: Machine, s: Value, x: Series, y: Series, *, n: Rows) -> Value:
    """Pearson's correlation of the last n rows, within ±1; NaN if one side's rows are all equal.

    State   2 n - 2 cells per key.   Cost  O(1) per row.   Source  Chan, Golub, LeVeque (1979).
    """
    _, _, mxy, mxx, myy = m.window(s, CORRELATION, n, x, y)
    return _correlation(m, mxy, mxx, myy)


def _correlation(m: Machine, mxy: Value, mxx: Value, myy: Value) -> Value:
    ratio = mxy / (m.sqrt(mxx) * m.sqrt(myy))
    within = m.where(ratio > 1.0, 1.0, m.where(ratio < -1.0, -1.0, ratio))
    # By an infinite square it would be 0, and by one that has vanished ±1.
    return m.where(_normal(m, mxx) & _normal(m, myy), within, m.nan)


@windowed(
    state=window_state(CORRELATION, 2),
    lookback=_full,
    least={"n": 2},
    tolerance=8,
    degree=0,
    nan=POWER_NAN,
)
def ts_corr_or_zero(m: Machine, s: Value, x: Series, y: Series, *, n: Rows) -> Value:
    """Pearson's correlation of the last n rows, within ±1; 0 if one side's rows are all equal.

    State   2 n - 2 cells per key.   Cost  O(1) per row.   Source  Chan, Golub, LeVeque (1979).
    """
    _, _, mxy, mxx, myy = m.window(s, CORRELATION, n, x, y)
    flat = (mxy == 0.0) & ((mxx == 0.0) | (myy == 0.0))
    return m.where(flat, 0.0, _correlation(m, mxy, mxx, myy))


def _decay(m: Machine, a: Summary, b: Summary, na: Value, nb: Value) -> Summary:
    return a[0] + b[0], a[1] + b[1] + na * b[0], m.where(a[2] == b[2], a[2], m.nan)


DECAY = Monoid("sum, weighted sum, value of equal rows", 3, lambda m, x: (x, x, x), _decay)


@windowed(state=window_state(DECAY), lookback=_full, aliases=("decay_linear", "WMA", "wma"), tolerance=16)
def ts_decay_linear(m: Machine, s: Value, x: Series, *, n: Rows) -> Value:
    """The mean of the last n rows with weights 1 (oldest) to n (newest); exactly their value if they are equal.

    State   n - 1 cells per key.   Cost  O(1) per row.
    """
    # Sums of equal rows differ in the last bit by where blocks begin, and a rank along time would order that.
    _, weighted, equal = m.window(s, DECAY, n, x)
    return m.where(m.present(equal), equal, weighted / (n * (n + 1.0) / 2.0))


def _regression(m: Machine, a: Summary, b: Summary, na: Value, nb: Value) -> Summary:
    """Mean, sum of (row - middle row)(x - mean), sum of (x - mean)²; the middles are (na + nb) / 2 rows apart."""
    n = na + nb
    step = b[0] - a[0]
    part = step * (nb / n)
    return a[0] + part, a[1] + b[1] + part * na * (n * 0.5), a[2] + b[2] + step * part * na


def _trend(m: Machine, a: Summary, b: Summary, na: Value, nb: Value) -> Summary:
    n = na + nb
    part = (b[0] - a[0]) * (nb / n)
    return a[0] + part, a[1] + b[1] + part * na * (n * 0.5)


TREND = Monoid("mean, mtx", 2, lambda m, x: (x, x - x), _trend)
REGRESSION = Monoid("mean, mtx, mxx", 3, lambda m, x: (x, x - x, 0.0), _regression)


@windowed(
    state=window_state(TREND), lookback=_full, least={"n": 2}, aliases=("slope", "Slope"), tolerance=8, nan=MOMENT_NAN
)
def ts_slope(m: Machine, s: Value, x: Series, *, n: Rows) -> Value:
    """The slope of the least-squares line through the last n rows, per row.

    State   n - 1 cells per key.   Cost  O(1) per row.   Unit  that of x per row.
    """
    return m.window(s, TREND, n, x)[1] / (n * (n * n - 1.0) / 12.0)


@windowed(
    state=window_state(REGRESSION),
    lookback=_full,
    least={"n": 2},
    aliases=("rsquare", "Rsquare"),
    tolerance=16,
    degree=0,
    nan=POWER_NAN,
)
def ts_rsquare(m: Machine, s: Value, x: Series, *, n: Rows) -> Value:
    """The share of the last n rows' variance that their least-squares line explains, 0 to 1; NaN for equal rows.

    State   n - 1 cells per key.   Cost  O(1) per row.
    """
    _, mtx, mxx = m.window(s, REGRESSION, n, x)
    ratio = (mtx / mxx) * mtx / (n * (n * n - 1.0) / 12.0)
    return m.where(_normal(m, mxx), m.where(ratio > 1.0, 1.0, ratio), m.nan)


def _drawdown(m: Machine, a: Summary, b: Summary, na: Value, nb: Value) -> Summary:
    """Highest, lowest, deepest fall: in a, in b, or from a's highest to b's lowest."""
    across = (a[0] - b[1]) / a[0]
    return _larger(m, a[0], b[0]), _smaller(m, a[1], b[1]), _larger(m, _larger(m, a[2], b[2]), across)


def _lift_price(m: Machine, x: Value) -> Summary:
    price = m.where((x > 0.0) & m.finite(x), x, m.nan)
    return price, price, price - price


DRAWDOWN = Monoid(
    "high, low, fall",
    3,
    _lift_price,
    _drawdown,
)


@windowed(
    state=window_state(DRAWDOWN),
    lookback=_full,
    aliases=("max_drawdown",),
    tolerance=4,
    degree=0,
    nan="NaN while the window holds a row that is not a number above 0",
)
def ts_max_drawdown(m: Machine, s: Value, x: Series, *, n: Rows) -> Value:
    """The deepest fall (high - later low) / high within the last n rows of a price, 0 to 1.

    State   n - 1 cells per key.   Cost  O(1) per row.
    """
    return m.window(s, DRAWDOWN, n, x)[2]


@windowed(state=lambda n: {"past": Ring(n)}, lookback=lambda n: n, aliases=("delay", "Ref", "ref"), nan="passes")
def ts_delay(m: Machine, s: Value, x: Series, *, n: Rows) -> Value:
    """The value n rows ago; NaN for the first n rows.

    State   n cells per key.   Cost  O(1) per row.
    """
    return m.delay(s.past, x)


@windowed(state=past_state, lookback=_full, degree=0)
def ts_rank(m: Machine, s: Value, x: Series, *, n: Rows, pct: Flag = False) -> Value:
    """The rank of this row among the last n: 1 the smallest … n, the mean of ties; with pct divided by n.

    State   n - 1 cells per key.   Cost  O(n) comparisons per row.
    """

    def count(rank: Value, old: Value) -> Value:
        less = m.where(old < x, 1.0, m.where(old == x, 0.5, 0.0))
        return rank + m.where(m.present(old), less, m.nan)

    rank = m.fold(s, n, x, m.where(m.present(x), 1.0, m.nan), count)
    return rank / float(n) if pct else rank


@windowed(state=past_state, lookback=_full, aliases=("quantile", "Quantile"), tolerance=4)
def ts_quantile(m: Machine, s: Value, x: Series, *, n: Rows, q: Share) -> Value:
    """The q-quantile of the last n rows, linear between neighbours.

    State   n - 1 cells per key.   Cost  O(n log n) per row.   Source  Hyndman, Fan (1996), definition 7.
    """
    place = q * (n - 1)
    low = math.floor(place)
    below, above = m.order(s, n, x, (low, min(low + 1, n - 1)))
    part = place - low
    # Equal neighbours are returned as they are: inf - inf would be NaN.
    return m.where((below == above) | (part == 0.0), below, below + (above - below) * part)


@windowed(state=past_state, lookback=lambda n: (n - 1, 0), tolerance=16)
def ts_absdev(m: Machine, s: Value, x: Series, center: Series, *, n: Rows) -> Value:
    """The mean distance of the last n rows from `center`'s current row.

    State   n - 1 cells per key.   Cost  O(n) per row.
    """
    total = m.fold(s, n, x, 0.0, lambda sofar, old: sofar + m.abs(old - center))
    return (total + m.abs(x - center)) / float(n)


@windowed(
    state=lambda span: {"mean": Cell()},
    lookback=lambda span: None,
    least={"span": 1},
    aliases=("ema", "EMA"),
    tolerance=16,
    nan="NaN at a row that is NaN or infinite; such rows are left out",
)
def ts_ema(m: Machine, s: Value, x: Series, *, span: Rows) -> Value:
    """The exponential mean with weight 2 / (span + 1) for the newest row, from the first finite row on.

    It never forgets: the first row keeps a share of (1 - weight) ** rows. Of present rows it is what pandas gives for
    `ewm(span=span, adjust=False, ignore_na=True).mean()`.

    State   1 cell per key.   Cost  O(1) per row.
    """
    weight = 2.0 / (span + 1.0)

    def step(mean: Value, x: Value) -> Value:
        moved = m.where(m.present(mean), mean + weight * (x - mean), x)
        return m.where(m.finite(x), moved, mean)

    return m.where(m.finite(x), m.scan(s.mean, step, x), m.nan)


@windowed(
    state=lambda: {"total": Cell()},
    lookback=lambda: None,
    tolerance=64,
    nan="NaN at a row that is NaN or infinite; such rows are left out",
)
def ts_cumsum(m: Machine, s: Value, x: Series) -> Value:
    """The sum of all finite rows so far. It never forgets, and its rounding errors stay.

    State   1 cell per key.   Cost  O(1) per row.
    """

    def step(total: Value, x: Value) -> Value:
        added = m.where(m.present(total), total + x, x)
        return m.where(m.finite(x), added, total)

    return m.where(m.finite(x), m.scan(s.total, step, x), m.nan)
