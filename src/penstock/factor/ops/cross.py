"""Operators over the keys of one row. Keys that are NaN take no part and get NaN.

Sums over keys are exact to far below the last bit and rounded once (`m.row_sum`), so that their bits depend neither on
the order of symbols nor on lanes, padding or threads.
"""

from __future__ import annotations

from penstock.factor.table import Series, Share, Value, cross

__all__ = [
    "cs_corr",
    "cs_count",
    "cs_group_sum",
    "cs_order",
    "cs_quantile",
    "cs_regress_residual",
    "cs_sum",
]

Machine = Value


def _among(m: Machine, x: Value, value: Value) -> Value:
    # A key without a value gets none from the others: what joins a universe later then changes nothing for them.
    return m.where(m.present(x), value, m.nan)


@cross(degree=0)
def cs_count(m: Machine, x: Series) -> Value:
    """How many keys of the row are present, given to each of them.

    Unit  keys.
    """
    return _among(m, x, m.row_count(x))


@cross(tolerance=4)
def cs_sum(m: Machine, x: Series) -> Value:
    """The sum of the row's present keys, given to each of them."""
    return _among(m, x, m.row_sum(x))


@cross(degree=0)
def cs_order(m: Machine, x: Series) -> Value:
    """The place of each key in its row: 1 the smallest, the mean of ties.

    Cost  a sort of the row.
    """
    return m.row_order(x)


@cross(tolerance=4)
def cs_quantile(m: Machine, x: Series, *, q: Share) -> Value:
    """The q-quantile of the row, linear between neighbours, given to each present key.

    Cost  a sort of the row.   Source  Hyndman, Fan (1996), definition 7.
    """
    return _among(m, x, m.row_quantile(x, q))


@cross(tolerance=4)
def cs_group_sum(m: Machine, x: Series, group: Series) -> Value:
    """The sum of the present keys with the same `group` in this row, given to each of them."""
    return _among(m, x, m.group_sum(x, group))


PAIR_NAN = "NaN where x or y is NaN or infinite{}; such keys take no part"


def _centred(m: Machine, x: Value, count: Value) -> Value:
    # The second mean is the first one's rounding error, taken from what is small already: nothing else is lost then.
    # Of equal keys it is a few units in the last place, and its sum exact: they become exactly zeros.
    near = x - m.row_sum(x) / count
    return near - m.row_sum(near) / count


@cross(tolerance=16, degree=0, nan=PAIR_NAN.format(", and if there are fewer than two or one side's are equal"))
def cs_corr(m: Machine, x: Series, y: Series) -> Value:
    """Pearson's correlation of x and y over the row's keys that have both, within ±1, given to each of them.

    Of ranks, `cs_corr(cs_rank(x), cs_rank(y))`, it is Spearman's, if all keys have both.
    """
    both = m.finite(x) & m.finite(y)
    dx, dy = m.where(both, x, m.nan), m.where(both, y, m.nan)
    count = m.row_count(dx)
    dx, dy = _centred(m, dx, count), _centred(m, dy, count)
    # Shares of the absolute deviations: squares of these neither overflow nor vanish, whatever the unit.
    dx, dy = dx / m.row_sum(m.abs(dx)), dy / m.row_sum(m.abs(dy))
    # One root, not two: of two sides that are multiples of each other it is then exactly ±1.
    ratio = m.row_sum(dx * dy) / m.sqrt(m.row_sum(dx * dx) * m.row_sum(dy * dy))
    return _among(m, dx, m.where(ratio > 1.0, 1.0, m.where(ratio < -1.0, -1.0, ratio)))


@cross(tolerance=32, aliases=("regression_neut",), nan=PAIR_NAN.format(""))
def cs_regress_residual(m: Machine, y: Series, x: Series) -> Value:
    """What is left of y beside its least-squares line on x, with intercept, through the row's keys that have both.

    Where x is the same for all of them the line is level: y less its mean. For two regressors, which must then be
    present for the same keys, `cs_regress_residual(cs_regress_residual(y, a), cs_regress_residual(b, a))`.

    Unit  that of y.   Source  Frisch, Waugh (1933), Econometrica 1(4), for several regressors.
    """
    both = m.finite(x) & m.finite(y)
    dx, dy = m.where(both, x, m.nan), m.where(both, y, m.nan)
    count = m.row_count(dx)
    dx, dy = _centred(m, dx, count), _centred(m, dy, count)
    total = m.row_sum(m.abs(dx))
    share = m.where(total == 0.0, dx, dx / total)
    square = m.row_sum(share * share)
    slope = m.row_sum(share * dy) / m.where(total == 0.0, 1.0, square)
    rest = dy - share * slope
    # Roundings of the two means, the one of x enlarged by the slope, are a shift of the whole row.
    return rest - m.row_sum(rest) / count
