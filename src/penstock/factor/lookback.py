"""How far back values reach: the rows after which nothing depends on what was before the first one."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.factor.graph import Node
from penstock.factor.table import TABLE

__all__ = ["endless", "lookbacks", "own"]


def _rows(node: Node) -> int | tuple[int, ...] | None:
    operator = TABLE.get(node.op)
    return 0 if operator is None or operator.lookback is None else operator.lookback(**dict(node.attrs))


def own(node: Node) -> tuple[int, ...]:
    """Rows that a node's own state looks back, per operand; 0 where it never forgets."""
    rows = _rows(node)
    return rows if isinstance(rows, tuple) else (rows or 0,) * len(node.args)


def endless(node: Node) -> bool:
    """Whether the node itself never forgets, as an exponential mean."""
    return _rows(node) is None


def lookbacks(nodes: Iterable[Node]) -> dict[Node, int]:
    """Per node the rows that it and all below it look back.

    Takes   nodes: operands before what uses them, without composites.
    """
    rows: dict[Node, int] = {}
    for node in nodes:
        rows[node] = max((rows[arg] + back for arg, back in zip(node.args, own(node), strict=True)), default=0)
    return rows
