"""Named factors: what a program computes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping

from penstock.errors import FactorError
from penstock.factor.graph import Node, formula, operand

__all__ = ["Factors"]

_NAME = re.compile(r"[^\W\d][\w.]*\Z")
_TAKEN = ("symbol", "ts_event")


class Factors(Mapping[str, Node]):
    """Factors by name, in order: `Factors(reversal=-rank(ts_delta(close, 5)), trend="close / mean(close, 10) - 1")`.

    Takes   expressions, texts (see `parse`) or numbers; a mapping first, if names are not Python words.
    Returns a mapping of name to node; `a | b` joins two, refusing one name for two expressions.
    """

    __slots__ = ("_nodes",)

    def __init__(self, factors: Mapping[str, object] | None = None, /, **named: object) -> None:
        self._nodes: dict[str, Node] = {}
        if factors is not None and not isinstance(factors, Mapping):
            raise FactorError(
                expected="a mapping of names to expressions",
                got=type(factors).__name__,
                hint="f.Factors(alpha=expression)",
            )
        for name, value in [*(factors or {}).items(), *named.items()]:
            if not isinstance(name, str) or not _NAME.match(name):
                raise FactorError(
                    expected="a factor name of letters, digits, _ and .", got=repr(name), hint="it will name a column"
                )
            if name in _TAKEN:
                raise FactorError(
                    f"a factor cannot be called {name!r}", hint="that column says which row a value is of"
                )
            if name in self._nodes:
                raise FactorError(f"there are two factors called {name!r}", hint="rename one")
            self._nodes[name] = self._read(name, value)

    @staticmethod
    def _read(name: str, value: object) -> Node:
        from penstock.factor.text import parse

        if isinstance(value, str):
            return parse(value, where=f"in factor {name!r}")
        return operand(value, f"factor {name!r}")

    def __getitem__(self, name: str) -> Node:
        if name not in self._nodes:
            near = difflib.get_close_matches(str(name), self._nodes, n=3)
            raise KeyError(f"no factor {name!r}" + (f"; did you mean {' or '.join(near)}" if near else ""))
        return self._nodes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __or__(self, other: Mapping[str, object]) -> Factors:
        joined = dict(self._nodes)
        for name, node in Factors(other).items():
            if name in joined and joined[name] is not node:
                raise FactorError(
                    f"there are two factors called {name!r}: {formula(joined[name], 60)} and {formula(node, 60)}",
                    hint="rename one",
                )
            joined[name] = node
        return Factors(joined)

    def __ror__(self, other: Mapping[str, object]) -> Factors:
        return Factors(other) | self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Factors) and {n: id(x) for n, x in self.items()} == {
            n: id(x) for n, x in other.items()
        }

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={formula(node, 60)}" for name, node in list(self._nodes.items())[:20])
        return f"Factors({inside}{', …' if len(self) > 20 else ''})"
