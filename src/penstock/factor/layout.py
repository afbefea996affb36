"""Where state lives: a table of fields first, memory afterwards.

Every stateful node of a program owns rows; a row holds one value per key. `Layout.address` is the only place that
turns (row, key) into a position. Its one knob is `block`, the keys stored side by side: all of them for NumPy, a
vector's width for compiled code, where the state of one key block then is one stretch of memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock.factor.graph import Node, formula
from penstock.factor.table import TABLE, Cell, Ring

__all__ = ["Field", "Layout"]


@dataclass(frozen=True, slots=True)
class Field:
    """One `Cell` or `Ring` of one node: `parts` times `depth` rows from row `first` on, part after part."""

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
        """What must agree for the rows to mean the same in another program."""
        return self.digest, self.name, self.depth, self.parts, self.ring


@dataclass(frozen=True, slots=True)
class Layout:
    """The state of a program: its fields in order, and how many rows they take."""

    fields: tuple[Field, ...]
    rows: int

    @classmethod
    def of(cls, nodes: Iterable[Node], digest: Mapping[Node, str]) -> Layout:
        """Assign rows to the stateful ones of `nodes`, in their order."""
        fields: list[Field] = []
        rows = 0
        for node in nodes:
            operator = TABLE.get(node.op)
            if operator is None or operator.state is None:
                continue
            for name, spec in operator.state(**dict(node.attrs)).items():
                assert isinstance(spec, (Cell, Ring))
                ring = isinstance(spec, Ring)
                fields.append(Field(node, digest[node], name, rows, spec.rows, spec.parts, ring))
                rows += fields[-1].rows
        return cls(tuple(fields), rows)

    def address(self, row: int, key: int, block: int) -> int:
        """Position of a value, in values from the start of the state."""
        return (key // block * self.rows + row) * block + key % block

    def by_node(self) -> dict[Node, list[Field]]:
        """The fields of each stateful node."""
        found: dict[Node, list[Field]] = {}
        for field in self.fields:
            found.setdefault(field.node, []).append(field)
        return found

    def describe(self) -> str:
        """The layout as a table, one line per field."""
        lines = [f"{'rows':>11}  {'depth':>6} {'parts':>5}  field"]
        for f in self.fields:
            span = f"{f.first}..{f.first + f.rows - 1}"
            lines.append(f"{span:>11}  {f.depth:>6} {f.parts:>5}  {formula(f.node, 80)}.{f.name}")
        lines.append(f"{self.rows} rows per key")
        return "\n".join(lines)
