"""Statistics of each row of a block (rows, symbols); NaN takes no part."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["ahead", "both_finite", "pearson", "row_means", "row_ranks"]

Array = np.ndarray[Any, np.dtype[Any]]


def both_finite(x: Array, y: Array) -> tuple[Array, Array]:
    """Cells in which both are finite, NaN elsewhere."""
    there = np.isfinite(x) & np.isfinite(y)
    return np.where(there, x, np.nan), np.where(there, y, np.nan)


def row_means(x: Array) -> Array:
    """The mean of each row's numbers (rows, 1); NaN for none."""
    count = (~np.isnan(x)).sum(axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        mean: Array = np.nansum(x, axis=1, keepdims=True) / np.where(count > 0, count, np.nan)
    return mean


def pearson(x: Array, y: Array, rank: bool) -> Array:
    """The correlation of each row, of ranks if asked for; NaN where one side is level."""
    if rank:
        x, y = row_ranks(x), row_ranks(y)
    # Taken twice: a row of equal symbols then deviates by exactly 0 and has no correlation.
    x, y = _level(x), _level(y)
    x, y = x - row_means(x), y - row_means(y)
    x, y = _level(x - row_means(x)), _level(y - row_means(y))
    with np.errstate(all="ignore"):
        over = np.sqrt(np.nansum(x * x, axis=1)) * np.sqrt(np.nansum(y * y, axis=1))
        made: Array = np.clip(np.nansum(x * y, axis=1) / over, -1.0, 1.0)
    return made


def _level(x: Array) -> Array:
    """Rows times powers of two, the largest between 1/2 and 1: squares of huge and tiny numbers stay in range."""
    largest = np.max(np.abs(x), axis=1, keepdims=True, initial=0.0, where=~np.isnan(x))
    leveled: Array = np.ldexp(x, -np.frexp(largest)[1])
    return leveled


def row_ranks(x: Array) -> Array:
    """The place of each number in its row, from 1, ties their mean; NaN for NaN."""
    keys = x.shape[1]
    by = np.argsort(x, axis=1, kind="stable")
    ranked = np.take_along_axis(x, by, axis=1)
    new = np.ones(x.shape, bool)
    new[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    place = np.arange(keys)
    first = np.maximum.accumulate(np.where(new, place, 0), axis=1)
    ends = np.ones(x.shape, bool)
    ends[:, :-1] = new[:, 1:]
    last = np.minimum.accumulate(np.where(ends, place, keys)[:, ::-1], axis=1)[:, ::-1]
    out = np.empty(x.shape)
    np.put_along_axis(out, by, (first + last) / 2 + 1.0, axis=1)
    return np.where(np.isnan(x), np.nan, out)


def ahead(price: Array, horizon: int) -> Array:
    """What the next `horizon` rows earn, beside each row."""
    out = np.full(price.shape, np.nan)
    with np.errstate(all="ignore"):
        out[:-horizon] = price[horizon:] / price[:-horizon] - 1.0
    return out
