"""What a machine offers to the steps of the operator table, and what a program asks of it.

A step computes one row for all keys; it never sees how many rows or keys the machine works on at a time. Values carry
`+ - * /`, unary minus and comparisons; masks carry `& | ~`. Everything else is a method here. Plain Python numbers
stand for constants of the program's dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from penstock.factor.layout import Layout
from penstock.factor.passes import Plan
from penstock.factor.table import Monoid, Value

__all__ = ["Engine", "Machine"]

Planes = np.ndarray[Any, np.dtype[Any]]


class Machine(Protocol):
    """The words in which steps are written."""

    nan: Value

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

    def delay(self, past: Value, x: Value) -> Value:
        """The value that leaves the ring as x enters: x of as many rows ago as the ring is deep."""

    def scan(self, cell: Value, step: Callable[[Value, Value], Value], x: Value) -> Value:
        """`cell = step(cell, x)` for each row in turn; the new cell."""

    def window(self, state: Any, monoid: Monoid, n: int, *xs: Value) -> tuple[Value, ...]:
        """The monoid's summary of the last n rows, in one prescribed order of merges.

        With p = (row ordinal) mod n, of the block of n rows that this row is in: the rows up to this one merged one
        after the other from the block's first (`prefix`); if p < n - 1, the rows p + 1 … n - 1 of the block before
        merged one after the other from its last (`suffix`), and then combine(suffix, prefix, n - 1 - p, p + 1).
        Windows of at most `SHORT` rows: lifted rows merged one after the other from the oldest.
        """

    def fold(self, state: Any, n: int, x: Value, start: Value, step: Callable[[Value, Value], Value]) -> Value:
        """`start` stepped over the n - 1 rows before this one, oldest first; x becomes a past row."""

    def order(self, state: Any, n: int, x: Value, places: Sequence[int]) -> tuple[Value, ...]:
        """The values at `places` (from 0) of the sorted last n rows; -0 counts as 0; NaN if one is missing."""

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


class Engine(Protocol):
    """A plan with memory for its state: what `program.stream` and `program.batch` drive.

    One engine serves one thread at a time.
    """

    def __init__(self, plan: Plan, layout: Layout, dtype: np.dtype[Any], keys: int) -> None: ...

    def run(self, inputs: Sequence[Planes], ordinal: int, rows: int) -> list[Planes]:
        """Advance by `rows` rows, of which the first has number `ordinal` in its stream.

        Takes   inputs: per field of the plan a C-contiguous (rows, keys) array of the program's dtype.
        Returns per output a (rows, keys) array that the caller owns; every NaN is the same NaN.
        """

    def save(self) -> Planes:
        """The state as (layout.rows, keys) in logical order; a copy."""

    def load(self, state: Planes) -> None:
        """Take over what `save` gave."""
