"""Sums whose bits do not depend on the order of their terms.

Each term is cut at fixed binary places into pieces so short that sums of pieces are exact; exact sums may be taken in
any order, over any lanes. Two pieces hold 106 - 3 log2(count) bits below the largest term; the rest is dropped. The
sum of the two exact sums is rounded once.

Source  Rump, Ogita, Oishi (2008), SIAM J. Sci. Comput. 31(1), "extraction"; Demmel, Nguyen (2013), ARITH 21.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["group_sums", "row_sums"]

Floats = NDArray[np.float64]

# Above 2 ** 900 the cutting constants would overflow; such rows are summed 2 ** 128 times smaller.
_BIG, _SHIFT = 900, 128


def _cut(largest: Floats, count: NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    """The scale and the two cutting constants, from the largest magnitude and the number of terms."""
    exponent = np.frexp(largest)[1].astype(np.int64)  # largest < 2 ** exponent
    room = np.frexp(count.astype(np.float64))[1].astype(np.int64)  # count < 2 ** room
    big = exponent > _BIG
    exponent = exponent - np.where(big, _SHIFT, 0)
    scale = np.where(big, 2.0**-_SHIFT, 1.0)
    top = exponent + room
    return scale, np.ldexp(1.5, top.astype(np.int32)), np.ldexp(1.5, (top - 53 + room).astype(np.int32))


def row_sums(x: Floats) -> Floats:
    """The sum over the last axis, NaN left out; shape (rows, 1). Infinities give ±inf, or NaN for both signs."""
    present = ~np.isnan(x)
    x = np.where(present, x, 0.0)
    largest = np.max(np.abs(x), axis=-1, keepdims=True, initial=0.0)
    infinite = np.isinf(largest)
    count = np.sum(present, axis=-1, keepdims=True)
    scale, first, second = _cut(np.where(infinite, 1.0, largest), count)
    scaled = x * scale
    high = (scaled + first) - first
    rest = scaled - high
    low = (rest + second) - second
    total = (high.sum(axis=-1, keepdims=True) + low.sum(axis=-1, keepdims=True)) / scale
    if infinite.any():
        plain = np.where(np.isinf(x), x, 0.0).sum(axis=-1, keepdims=True)
        total = np.where(infinite, plain, total)
    return np.asarray(total, np.float64)


def group_sums(x: Floats, group: NDArray[Any], groups: int) -> Floats:
    """The sums of one-dimensional `x` by `group` (0 … groups - 1), NaN left out; shape (groups,)."""
    present = ~np.isnan(x)
    x, group = x[present], group[present]
    largest = np.zeros(groups)
    np.maximum.at(largest, group, np.abs(x))
    infinite = np.isinf(largest)
    count = np.bincount(group, minlength=groups)
    scale, first, second = _cut(np.where(infinite, 1.0, largest), count)
    scaled = x * scale[group]
    first, second = first[group], second[group]
    high = (scaled + first) - first
    rest = scaled - high
    low = (rest + second) - second
    sums = np.bincount(group, high, groups) + np.bincount(group, low, groups)
    total = sums / scale
    if infinite.any():
        plain = np.bincount(group, np.where(np.isinf(x), x, 0.0), groups)
        total = np.where(infinite, plain, total)
    return np.asarray(total, np.float64)
