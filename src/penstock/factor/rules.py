"""Rewrites of one node. Each says whether it is exact: the same bits for every input, NaN, infinities and -0 included.

Exact rules are always applied. Inexact ones (sums regrouped, quotients compared as products) are not offered: they are
how a factor comes to mean something else than what was written.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from penstock.factor.graph import Node, constant

__all__ = ["RULES", "Rule"]

Rule = Callable[[Node], Node | None]
"""A node to another of the same value, or None if the rule does not apply."""


def _number(node: Node) -> float | None:
    return float(node.attrs[0][1]) if node.op == "const" else None


def _is(node: Node, value: float) -> bool:
    number = _number(node)
    return number == value and math.copysign(1, value) == math.copysign(1, number)


def times_one(node: Node) -> Node | None:
    """One as a factor: x * 1, 1 * x, x / 1 and x ** 1 are x."""
    match node:
        case Node("mul" | "div" | "pow", (x, one)) if _is(one, 1.0):
            return x
        case Node("mul", (one, x)) if _is(one, 1.0):
            return x
    return None


def minus_zero(node: Node) -> Node | None:
    """Zero taken away: x - 0 and x + (-0) are x, for both zeros; x + 0 is not, since -0 + 0 is 0."""
    match node:
        case Node("sub", (x, zero)) if _is(zero, 0.0):
            return x
        case Node("add", (x, zero)) if _is(zero, -0.0):
            return x
    return None


def times_minus_one(node: Node) -> Node | None:
    """Minus one as a factor: x * -1, -1 * x and x / -1 are -x."""
    match node:
        case Node("mul" | "div", (x, one)) if _is(one, -1.0):
            return Node("neg", (x,))
        case Node("mul", (one, x)) if _is(one, -1.0):
            return Node("neg", (x,))
    return None


def signs(node: Node) -> Node | None:
    """-(-x) is x; |-x|, ||x|| are |x|; x - (-y) is x + y; x + (-y) is x - y."""
    match node:
        case Node("neg", (Node("neg", (x,)),)):
            return x
        case Node("abs", (Node("neg" | "abs", (x,)),)):
            return Node("abs", (x,))
        case Node("sub", (x, Node("neg", (y,)))):
            return Node("add", (x, y))
        case Node("add", (x, Node("neg", (y,)))):
            return Node("sub", (x, y))
    return None


def power(node: Node) -> Node | None:
    """Squares and roots: x ** 2 is x * x and x ** 0.5 is sqrt(x), by the definition of pow."""
    match node:
        case Node("pow", (x, two)) if _is(two, 2.0):
            return Node("mul", (x, x))
        case Node("pow", (x, half)) if _is(half, 0.5):
            return Node("sqrt", (x,))
    return None


def delays(node: Node) -> Node | None:
    """A delay of a delay is one delay."""
    match node:
        case Node("ts_delay", (Node("ts_delay", (x,)) as inner,)):
            rows = int(node.attrs[0][1]) + int(inner.attrs[0][1])
            return Node("ts_delay", (x,), (("n", rows),))
    return None


def one_row(node: Node) -> Node | None:
    """The sum, product, smallest and largest of one row are the row."""
    match node:
        case Node("ts_sum" | "ts_product" | "ts_min" | "ts_max" | "ts_decay_linear", (x,)) if node.attrs[0][1] == 1:
            return x
    return None


def chosen(node: Node) -> Node | None:
    """A `where` on a constant is its branch."""
    match node:
        case Node("where", (condition, x, y)) if (number := _number(condition)) is not None:
            return constant(math.nan) if math.isnan(number) else x if number else y
    return None


RULES: tuple[Rule, ...] = (
    times_one,
    minus_zero,
    times_minus_one,
    signs,
    power,
    delays,
    one_row,
    chosen,
)
