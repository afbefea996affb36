"""What a machine offers to the steps of the operator table, and what a program asks of it.

A step computes one row for all keys; it never sees how many rows or keys the machine works on at a time. Values carry
`+ - * /`, unary minus and comparisons; masks carry `& | ~`. Everything else is a method here. Plain Python numbers
stand for constants of the program's dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from penstock.factor.table import Monoid, Value

__all__ = ["AlongTime", "Engine", "Machine", "OverKeys", "Words"]

Planes = np.ndarray[Any, np.dtype[Any]]


class Words(Protocol):
    """The words of all steps: on one row and key."""

    nan: Value
    double: bool
    """Whether the program computes in float64."""

    def where(self, mask: Value, x: Value, y: Value) -> Value:
        """Choose x where the mask holds, else y; both are computed."""

    def present(self, x: Value) -> Value:
        """A mask: not NaN."""

    def finite(self, x: Value) -> Value:
        """A mask: neither NaN nor infinite."""

    def abs(self, x: Value) -> Value: ...

    def sqrt(self, x: Value) -> Value: ...

    def floor(self, x: Value) -> Value: ...

    def log(self, x: Value) -> Value: ...

    def exp(self, x: Value) -> Value: ...

    def pow(self, x: Value, y: Value) -> Value: ...

    def wide(self, x: Value) -> Value:
        """The float64 of x, in which `elementary.py` writes log, exp and pow."""

    def narrow(self, x: Value) -> Value:
        """A float64 rounded to the program's dtype."""

    def exponent(self, x: Value) -> Value:
        """The exponent field of a float64, less 1023: floor(log2 |x|) for a normal number."""

    def fraction(self, x: Value) -> Value:
        """A float64 with the exponent field of 1: from 1 to 2 for a normal number."""

    def power_of_two(self, x: Value) -> Value:
        """2 to the power of a whole float64 from -1022 to 1023."""


class AlongTime(Words, Protocol):
    """The words of windowed steps."""

    def delay(self, past: Value, x: Value) -> Value:
        """The row of as many rows ago as `past` holds."""

    def scan(self, cell: Value, step: Callable[[Value, Value], Value], x: Value) -> Value:
        """`cell = step(cell, x)` for each row in turn; the new cell."""

    def window(self, state: Any, monoid: Monoid, n: int, *xs: Value) -> tuple[Value, ...]:
        """The monoid's summary of the last n rows, in one prescribed order of merges.

        With p = (row ordinal + `layout.turn`) mod n, of the block of n rows that this row is in: the rows up to this
        one merged one after the other from the block's first (`prefix`); if p < n - 1, the rows p + 1 … n - 1 of the
        block before merged one after the other from its last (`suffix`), and then
        combine(suffix, prefix, n - 1 - p, p + 1).
        Windows of at most `SHORT` rows: lifted rows merged one after the other from the oldest.
        """

    def fold(self, state: Any, n: int, x: Value, start: Value, step: Callable[[Value, Value], Value]) -> Value:
        """`start` stepped over the n - 1 rows before this one, oldest first; x becomes a past row."""

    def order(self, state: Any, n: int, x: Value, places: Sequence[int]) -> tuple[Value, ...]:
        """The values at `places` (from 0) of the sorted last n rows; -0 counts as 0; NaN if one is missing."""


class OverKeys(Words, Protocol):
    """The words of cross-sectional steps."""

    def row_count(self, x: Value) -> Value:
        """How many keys of the row are present."""

    def row_sum(self, x: Value) -> Value:
        """The sum of the row's present keys, independent of their order: see `reproducible.py`."""

    def row_order(self, x: Value) -> Value:
        """1 + the number of smaller keys + half the number of other equal keys; NaN for NaN."""

    def row_quantile(self, x: Value, q: float) -> Value:
        """The q-quantile of the present keys, linear between neighbours; -0 counts as 0."""

    def group_sum(self, x: Value, group: Value) -> Value:
        """`row_sum` over the keys that share a group; NaN where the group is NaN."""


class Machine(AlongTime, OverKeys, Protocol):
    """The words in which steps are written."""


class Engine(Protocol):
    """A plan with memory for its state: what `program.stream` and `program.batch` drive.

    One engine serves one thread at a time. `rows` (fields of the plan, keys) is where a tick's inputs are put.
    """

    rows: Planes

    def tick(self, ordinal: int) -> Planes:
        """Advance by the one row in `rows`; (outputs, keys), valid until the next tick."""

    def run(self, inputs: Sequence[Planes], ordinal: int, rows: int) -> list[Planes]:
        """Advance by `rows` rows, of which the first has number `ordinal` in its stream.

        Takes   inputs: per field of the plan a C-contiguous (rows, keys) array of the program's dtype.
        Returns per output a (rows, keys) array that the caller owns; every NaN is the same NaN.
        """

    def save(self, ordinal: int) -> Planes:
        """The state before row `ordinal` as (layout.rows, keys), past rows with the oldest first; a copy."""

    def load(self, state: Planes, ordinal: int) -> None:
        """Take over what `save` gave, to go on with row `ordinal`."""
