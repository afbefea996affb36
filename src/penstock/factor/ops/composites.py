"""Operators made of other operators: no state and no code of their own."""

from __future__ import annotations

from penstock.factor.ops import elementwise as e
from penstock.factor.ops.cross import cs_count, cs_group_sum, cs_order, cs_quantile, cs_sum
from penstock.factor.ops.windowed import ts_absdev, ts_delay, ts_mean, ts_rank, ts_slope, ts_sum, ts_var
from penstock.factor.ops.windowed import ts_quantile as _ts_quantile
from penstock.factor.table import Number, Rows, Series, Share, Value, composite

__all__ = [
    "clip",
    "cs_bucket",
    "cs_demean",
    "cs_diff_weighted_sum",
    "cs_indneutralize",
    "cs_mean",
    "cs_rank",
    "cs_scale",
    "cs_std",
    "cs_winsorize",
    "cs_zscore",
    "signed_power",
    "ts_count",
    "ts_delta",
    "ts_mad",
    "ts_median",
    "ts_rank_pct",
    "ts_resid",
    "ts_returns",
    "ts_std",
    "ts_zscore",
]


@composite(nan="NaN where an operand is")
def clip(x: Series, low: Series, high: Series) -> Value:
    """Keep x within `low` and `high`."""
    return e.min(e.max(x, low), high)


@composite(aliases=("SignedPower", "signedpower"), tolerance=4, nan="NaN where an operand is")
def signed_power(x: Series, y: Series) -> Value:
    """The power of the size with the sign kept: sign(x) * |x| ** y."""
    return e.sign(x) * e.pow(e.abs(x), y)


@composite(
    aliases=("stddev", "Std", "std", "rolling_std"),
    least={"n": 2},
    tolerance=8,
    nan="NaN while the window holds one",
)
def ts_std(x: Series, *, n: Rows) -> Value:
    """The sample standard deviation (ddof 1) of the last n rows."""
    return e.sqrt(ts_var(x, n))


@composite(aliases=("delta", "Delta"), nan="NaN if either row is")
def ts_delta(x: Series, *, n: Rows) -> Value:
    """The change over n rows: x - ts_delay(x, n)."""
    return x - ts_delay(x, n)


@composite(aliases=("returns",), tolerance=4, degree=0, nan="NaN if either row is")
def ts_returns(x: Series, *, n: Rows = 1) -> Value:
    """The relative change over n rows: x / ts_delay(x, n) - 1."""
    return x / ts_delay(x, n) - 1.0


@composite(least={"n": 2}, tolerance=16, degree=0, nan="NaN while the window holds one, or if its rows are equal")
def ts_zscore(x: Series, *, n: Rows) -> Value:
    """How many standard deviations this row is above the mean of the last n."""
    return (x - ts_mean(x, n)) / ts_std(x, n)


@composite(aliases=("Count", "count"), degree=0, nan="NaN only until n rows have been seen")
def ts_count(x: Series, *, n: Rows) -> Value:
    """How many of the last n rows are present.

    Unit  rows.
    """
    return ts_sum(1.0 - e.is_nan(x), n)


@composite(aliases=("mad", "Mad"), tolerance=16, nan="NaN while the window holds one")
def ts_mad(x: Series, *, n: Rows) -> Value:
    """The mean absolute deviation of the last n rows from their mean."""
    return ts_absdev(x, ts_mean(x, n), n)


@composite(aliases=("median", "Med"), tolerance=4, nan="NaN while the window holds one")
def ts_median(x: Series, *, n: Rows) -> Value:
    """The median of the last n rows."""
    return _ts_quantile(x, n, 0.5)


@composite(aliases=("Rank",), tolerance=1, degree=0, nan="NaN while the window holds one")
def ts_rank_pct(x: Series, *, n: Rows) -> Value:
    """The rank of this row among the last n as a share, in (0, 1]: the mean of ties over n."""
    return ts_rank(x, n, pct=True)


@composite(aliases=("resid", "Resi"), least={"n": 2}, tolerance=16, nan="NaN while the window holds one")
def ts_resid(x: Series, *, n: Rows) -> Value:
    """This row minus the least-squares line through the last n rows at this row."""
    return x - ts_mean(x, n) - ts_slope(x, n) * ((n - 1) / 2)


@composite(aliases=("rank",), tolerance=1, degree=0, nan="NaN where x is; such keys take no part")
def cs_rank(x: Series) -> Value:
    """The rank of each key in its row as a share, in (0, 1]: the mean of ties over the number of keys present."""
    return cs_order(x) / cs_count(x)


@composite(tolerance=4, nan="NaN where x is NaN or infinite; such keys take no part")
def cs_mean(x: Series) -> Value:
    """The mean of the row's finite keys, given to each of them."""
    # The second term is the first one's rounding error: a row of equal keys has exactly their value as its mean.
    x = e.finite(x)
    count = cs_count(x)
    mean = cs_sum(x) / count
    return mean + cs_sum(x - mean) / count


@composite(aliases=("demean",), tolerance=8, nan="NaN where x is NaN or infinite; such keys take no part")
def cs_demean(x: Series) -> Value:
    """Subtract the mean of the row."""
    return e.finite(x) - cs_mean(x)


@composite(tolerance=16, degree=2, nan="NaN where x or w is; such keys take no part")
def cs_diff_weighted_sum(x: Series, w: Series) -> Value:
    """Subtract the sum of x * w over the row: the weighted mean, for weights with a sum of 1.

    Unit  that of x, for weights without one.   Error  a rounding of each product and two of the row's sum.
    """
    return x - cs_sum(x * w)


@composite(tolerance=16, nan="NaN where x is NaN or infinite, and for fewer than two; such keys take no part")
def cs_std(x: Series) -> Value:
    """The sample standard deviation (ddof 1) of the row's finite keys, given to each of them."""
    d = cs_demean(x)
    return e.sqrt(cs_sum(d * d) / (cs_count(d) - 1.0))


@composite(
    aliases=("zscore",),
    tolerance=64,
    degree=0,
    nan="NaN where x is NaN or infinite, or if the row's keys are equal; such keys take no part",
)
def cs_zscore(x: Series) -> Value:
    """How many standard deviations each key is above the mean of its row."""
    return cs_demean(x) / cs_std(x)


@composite(aliases=("scale",), tolerance=8, degree=0, nan="NaN where x is NaN or infinite; such keys take no part")
def cs_scale(x: Series, *, a: Number = 1.0) -> Value:
    """Scale by a over the sum of the row's absolute values, which then is a; NaN for a row of zeros."""
    x = e.finite(x)
    return x * a / cs_sum(e.abs(x))


@composite(
    aliases=("winsorize",),
    tolerance=4,
    check=lambda q: None if q <= 0.5 else f"q must be at most 0.5, got {q!r}",
    nan="NaN where x is; such keys take no part",
)
def cs_winsorize(x: Series, *, q: Share = 0.01) -> Value:
    """Clip to the q- and (1 - q)-quantiles of its row."""
    return clip(x, cs_quantile(x, q), cs_quantile(x, 1.0 - q))


@composite(
    aliases=("quantile_bucket", "cs_quantile_bucket", "bucket"),
    least={"n": 2},
    degree=0,
    nan="NaN where x is; such keys take no part",
)
def cs_bucket(x: Series, *, n: Rows) -> Value:
    """The bucket, 1 to n, of each key when its row is cut into n of equal size by rank; ties share a bucket."""
    return e.ceil(cs_order(x) * n / cs_count(x))


@composite(
    aliases=("indneutralize", "IndNeutralize", "group_demean"),
    tolerance=8,
    nan="NaN where x is NaN or infinite, or the group is NaN; such keys take no part",
)
def cs_indneutralize(x: Series, group: Series) -> Value:
    """Subtract the mean of the keys with the same group in its row."""
    x = e.finite(x)
    count = cs_group_sum(e.eq(x, x), group)
    mean = cs_group_sum(x, group) / count
    return x - (mean + cs_group_sum(x - mean, group) / count)
