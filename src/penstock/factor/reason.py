"""What one value was computed from, as a tree to read and as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.factor.graph import Node, formula

__all__ = ["Reason", "Term"]

Symbol = str | int


@dataclass(frozen=True, slots=True)
class Term:
    """One part of an expression and its value at one row and key.

    `args`: places of its operands in `Reason.terms`; `value`: a number, or the text of a group label;
    `rows`: for a part that looks along time, (time, a value per operand that is not a constant), oldest first;
    `keys`: for a part that looks over keys, (symbol, a value per such operand), from the smallest first operand on.
    """

    node: Node
    value: float | str
    args: tuple[int, ...] = ()
    rows: tuple[tuple[int | str, tuple[float | str, ...]], ...] = ()
    keys: tuple[tuple[Symbol, tuple[float | str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """What a value was computed from; `str()` shows it as a tree, `facts()` as plain values for JSON.

    `terms`: the parts, operands before what uses them, the whole expression last; `row`: from 0, of `rows`.
    """

    name: str
    symbol: Symbol
    ts: int | str
    row: int
    rows: int
    lookback: int
    terms: tuple[Term, ...]

    @property
    def value(self) -> float | str:
        return self.terms[-1].value

    def facts(self) -> dict[str, Any]:
        """All of it in JSON's types; terms name their operands by place."""
        terms = [
            {
                "term": formula(term.node, 2000),
                "op": term.node.op,
                "value": term.value,
                "args": list(term.args),
                "rows": [{"ts": ts, "values": list(values)} for ts, values in term.rows],
                "keys": [{"symbol": symbol, "values": list(values)} for symbol, values in term.keys],
            }
            for term in self.terms
        ]
        where = {"factor": self.name, "symbol": self.symbol, "ts": self.ts, "row": self.row, "rows": self.rows}
        return {**where, "lookback": self.lookback, "value": self.value, "terms": terms}

    def __str__(self) -> str:
        warm = f"warm after {self.lookback} rows" if self.lookback else "needs no earlier row"
        place = f"row {self.row} of {self.rows}; {warm}"
        lines = [f"{self.name} of {self.symbol} at {self.ts} = {_number(self.value)}   ({place})"]
        shown: set[int] = set()
        stack: list[tuple[int, str, str]] = [(len(self.terms) - 1, "", "")]
        while stack:
            at, head, prefix = stack.pop()
            term = self.terms[at]
            again = at in shown and bool(term.args)
            shown.add(at)
            lines.append(f"{head}{formula(term.node, 100)} = {_number(term.value)}{'   (as above)' if again else ''}")
            if again:
                continue
            below = [i for i in dict.fromkeys(term.args) if self.terms[i].node.op != "const"]
            lines += [f"{prefix}{'│' if below else ' '}    {line}".rstrip() for line in self._behind(term, at)]
            last = len(below) - 1
            for i, arg in reversed(list(enumerate(below))):
                stack.append((arg, prefix + ("└─ " if i == last else "├─ "), prefix + ("   " if i == last else "│  ")))
        return "\n".join(lines)

    def _behind(self, term: Term, at: int) -> Iterator[str]:
        names = [formula(self.terms[i].node, 40) for i in dict.fromkeys(term.args) if self.terms[i].node.op != "const"]
        if term.rows:
            chosen: list[Any] = [*term.rows] if len(term.rows) <= 12 else [*term.rows[:2], None, *term.rows[-8:]]
            yield from _grid([f"{len(term.rows)} rows", *names], [row and (str(row[0]), *row[1]) for row in chosen])
        if term.keys:
            mine = next((i for i, key in enumerate(term.keys) if key[0] == self.symbol), 0)
            picked: list[Any] = []
            for i, key in enumerate(term.keys):
                if len(term.keys) <= 12 or i in (0, len(term.keys) - 1) or abs(i - mine) <= 2:
                    picked.append((f"{'>' if i == mine else ' '} {key[0]}", *key[1]))
                elif picked[-1] is not None:
                    picked.append(None)
            yield from _grid([f"  {len(term.keys)} keys", *names], picked)


def _grid(head: Sequence[str], rows: Sequence[Any]) -> list[str]:
    cells = [list(head), *(["…"] if row is None else [row[0], *map(_number, row[1:])] for row in rows)]
    wide = [max(len(row[i]) for row in cells if i < len(row)) for i in range(len(head))]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, wide, strict=False))
        )
        for row in cells
    ]


def _number(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return "NaN" if value != value else format(value, ".10g")
