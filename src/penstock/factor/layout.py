"""What a program keeps between rows: a table of fields first, memory afterwards.

The state is what was seen and cannot be computed again: the last rows of each operand that an operator looks back on,
once for all operators (`rows`), and what never forgets (a `Cell`). Summaries, suffixes and sorted copies, which engines
keep to be fast, are functions of these and no state. So a snapshot is small, says nothing about the engine, and what a
factor needs is found wherever another one has looked back on the same operand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import xxhash

from penstock.factor.graph import Node, formula
from penstock.factor.table import TABLE, Cell, Ring

__all__ = ["SPREAD", "Field", "Layout", "Past", "Turning", "origin", "turn"]

ROWS = "rows"
"""The name of fields that hold a node's own past rows."""

SPREAD = 8
"""Windows of so many rows or more begin their blocks at rows of their own, or all would end theirs in one tick."""


@dataclass(frozen=True, slots=True)
class Field:
    """Rows of the state from row `first` on: a cell's `parts`, or the last `depth` rows of `node`, the oldest first."""

    node: Node
    digest: str
    name: str
    first: int
    depth: int
    parts: int
    ring: bool

    @property
    def rows(self) -> int:
        return self.depth * self.parts

    @property
    def identity(self) -> tuple[str, str, int, int, bool]:
        """What must agree for rows to be taken over as they are."""
        return self.digest, self.name, self.depth, self.parts, self.ring


@dataclass(frozen=True, slots=True)
class Past:
    """How a node looks back: on the `rows` rows of `field` before the last `shift` ones."""

    field: Field
    rows: int
    shift: int

    @property
    def turn(self) -> int:
        """A number that is the operand's own, in every program."""
        return int(self.field.digest[:8], 16) + self.shift


@dataclass(frozen=True, slots=True)
class Layout:
    """The state of a program: its fields in order, how many rows they take, and per stateful node what it uses."""

    fields: tuple[Field, ...]
    rows: int
    uses: Mapping[Node, Mapping[str, Field | tuple[Past, ...]]]

    @classmethod
    def of(cls, nodes: Iterable[Node], digest: Mapping[Node, str]) -> Layout:
        """Assign rows to what the stateful ones of `nodes` keep, in their order."""
        kept: dict[tuple[Node, str], int] = {}
        wanted: dict[Node, dict[str, Cell | Ring]] = {}
        for node in nodes:
            operator = TABLE.get(node.op)
            if operator is None or operator.state is None:
                continue
            specs = wanted[node] = dict(operator.state(**dict(node.attrs)))
            for name, spec in specs.items():
                if isinstance(spec, Cell):
                    kept[node, name] = spec.parts
                    continue
                for base, shift in map(origin, node.args[: spec.operands]):
                    kept[base, ROWS] = max(kept.get((base, ROWS), 0), spec.rows + shift)
        fields: dict[tuple[Node, str], Field] = {}
        first = 0
        for (node, name), count in kept.items():
            ring = name == ROWS
            depth, parts = (count, 1) if ring else (1, count)
            fields[node, name] = Field(node, digest[node], name, first, depth, parts, ring)
            first += count
        uses: dict[Node, dict[str, Field | tuple[Past, ...]]] = {}
        for node, specs in wanted.items():
            uses[node] = {}
            for name, spec in specs.items():
                if isinstance(spec, Cell):
                    uses[node][name] = fields[node, name]
                else:
                    bases = map(origin, node.args[: spec.operands])
                    uses[node][name] = tuple(Past(fields[base, ROWS], spec.rows, shift) for base, shift in bases)
        return cls(tuple(fields.values()), first, uses)

    def by_node(self) -> dict[Node, list[Field]]:
        """The fields that each stateful node uses."""
        found: dict[Node, list[Field]] = {}
        for node, used in self.uses.items():
            each = [f for one in used.values() for f in ([one] if isinstance(one, Field) else [p.field for p in one])]
            if each:
                found[node] = list(dict.fromkeys(each))
        return found

    def describe(self) -> str:
        """The layout as a table, one line per field."""
        lines = [f"{'rows':>11}  {'depth':>6} {'parts':>5}  field"]
        for f in self.fields:
            span = f"{f.first}..{f.first + f.rows - 1}"
            lines.append(f"{span:>11}  {f.depth:>6} {f.parts:>5}  {formula(f.node, 80)}.{f.name}")
        lines.append(f"{self.rows} rows per key")
        return "\n".join(lines)


class Turning(Protocol):
    """What an engine makes of a `Past`."""

    @property
    def turn(self) -> int: ...


def turn(name: str, n: int, past: Sequence[Turning]) -> int:
    """The phase at which a window of n rows, whose monoid has that name, stands in row 0.

    Drawn anew for each n and monoid: of 60, 30, 20 and 10 rows the rest of one number would be the same end.
    """
    if n < SPREAD:
        return 0
    return xxhash.xxh3_64_intdigest(f"{name} {n} {sum(one.turn for one in past)}".encode()) % n


def origin(node: Node) -> tuple[Node, int]:
    """The node whose past rows `node`'s are, and how many rows earlier: a delay has no past of its own."""
    shift = 0
    while node.op == "ts_delay":
        shift += int(dict(node.attrs)["n"])
        node = node.args[0]
    return node, shift
