"""What a machine runs: the nodes of all outputs, cut into stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.factor.graph import Node, topological
from penstock.factor.table import TABLE, Kind

__all__ = ["Plan", "Stage", "cut"]


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of a program without a dependence between keys, or the cross-sectional operators that end it."""

    cross: bool
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a machine runs: stages in order, inputs, outputs and their names, after which node a value is last used."""

    stages: tuple[Stage, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    names: tuple[str, ...]
    last_use: Mapping[Node, tuple[Node, ...]]


def cut(outputs: Mapping[str, Node]) -> Plan:
    """Order the nodes into stages: cross-sectional operators need a whole row of their operands."""
    order = list(topological(outputs.values()))
    stage: dict[Node, int] = {}  # even: along time; odd: cross-sectional
    for node in order:
        before = max((stage[arg] for arg in node.args), default=0)
        crosses = node.op in TABLE and TABLE[node.op].kind is Kind.CROSS
        stage[node] = (before // 2 * 2 + 1 if before % 2 == 0 else before + 2) if crosses else (before + 1) // 2 * 2
    order.sort(key=lambda node: stage[node])
    groups: dict[int, list[Node]] = {}
    for node in order:
        groups.setdefault(stage[node], []).append(node)
    kept = {id(node) for node in outputs.values()}
    last: dict[Node, Node] = {}
    for node in order:
        for arg in node.args:
            last[arg] = node
    uses: dict[Node, list[Node]] = {}
    for arg, node in last.items():
        if id(arg) not in kept and arg.op != "const":
            uses.setdefault(node, []).append(arg)
    return Plan(
        stages=tuple(Stage(number % 2 == 1, tuple(nodes)) for number, nodes in sorted(groups.items())),
        nodes=tuple(order),
        inputs=tuple(node for node in order if node.op == "field"),
        outputs=tuple(outputs.values()),
        names=tuple(outputs),
        last_use={node: tuple(args) for node, args in uses.items()},
    )
