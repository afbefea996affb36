"""A column over time as text: dots of braille, two by four to a character."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.clock import iso
from penstock.errors import UsageError

__all__ = ["plot"]

_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


def plot(times: NDArray[np.int64], values: pa.ChunkedArray, *, width: int = 72, height: int = 12) -> str:
    """A line through the values, scaled to `width` by `height` characters, with its ends written on the axes.

    Takes   times: (rows,) ns, sorted; values: (rows,) numbers; missing and infinite ones are left out.
    Raises  UsageError when there is no number to draw.
    """
    try:
        y = values.cast(pa.float64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UsageError(expected="a column of numbers", got=f"{values.type}", where="in plot") from error
    keep = np.isfinite(y)
    x, y = times[keep].astype(np.float64), y[keep]
    if not len(y):
        raise UsageError(expected="numbers", got="no rows with one", where="in plot")
    low, high = float(y.min()), float(y.max())
    span = x[-1] - x[0]
    columns, rows = 2 * width, 4 * height
    at = np.zeros(len(x)) if span == 0 else (x - x[0]) / span * (columns - 1)
    if span and len(x) < columns:  # the line between few points
        at, y = np.arange(columns), np.interp(np.arange(columns), at, y)
    up = np.full(len(y), 0.5) if high == low else y / (high - low) - low / (high - low)
    where, lows, highs = _columns(at.round().astype(int), (up * (rows - 1)).round().astype(int))
    cells = np.zeros((height, width), int)
    for column, bottom, top in zip(where.tolist(), lows.tolist(), highs.tolist(), strict=True):
        for dot in range(bottom, top + 1):
            line = rows - 1 - dot
            cells[line // 4, column // 2] |= _DOTS[line % 4, column % 2]
    labels = [f"{high:.6g}", *[""] * (height - 2), f"{low:.6g}"] if height > 1 else [f"{high:.6g}"]
    wide = max(map(len, labels))
    text = [
        f"{label:>{wide}} ┤{''.join(chr(0x2800 + cell) for cell in line)}"
        for label, line in zip(labels, cells.tolist(), strict=True)
    ]
    first, last = (iso(int(times[keep][i])).replace(".000000000Z", "Z") for i in (0, -1))
    gap = max(1, width - len(first) - len(last))
    return "\n".join([*text, f"{'':>{wide}}  {first}{' ' * gap}{last}"]) + "\n"


def _columns(
    at: NDArray[np.int64], up: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Per dot column its lowest and highest dot, joined with where the line comes from."""
    where, first = np.unique(at, return_index=True)
    lows, highs = np.minimum.reduceat(up, first), np.maximum.reduceat(up, first)
    before = up[np.maximum(first - 1, 0)]
    return where, np.minimum(lows, before), np.maximum(highs, before)
