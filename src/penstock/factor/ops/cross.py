"""Operators over the keys of one row. Keys that are NaN take no part and get NaN.

Sums over keys are exact to far below the last bit and rounded once (`m.row_sum`), so that their bits depend neither on
the order of symbols nor on lanes, padding or threads.
"""

from __future__ import annotations

from penstock.factor.table import Series, Share, Value, cross

__all__ = ["cs_count", "cs_group_sum", "cs_order", "cs_quantile", "cs_sum"]

Machine = Value


def _among(m: Machine, x: Value, value: Value) -> Value:
    # A key without a value gets none from the others: what joins a universe later then changes nothing for them.
    return m.where(m.present(x), value, m.nan)


@cross(degree=0)
def cs_count(m: Machine, x: Series) -> Value:
    """How many keys of the row are present, given to each of them."""
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

    Cost  a sort of the row.
    """
    return _among(m, x, m.row_quantile(x, q))


@cross(tolerance=4)
def cs_group_sum(m: Machine, x: Series, group: Series) -> Value:
    """The sum of the present keys with the same `group` in this row, given to each of them."""
    return _among(m, x, m.group_sum(x, group))
