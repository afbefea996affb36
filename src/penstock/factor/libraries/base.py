"""What all libraries share: factors that know their formulas, and readings that are checked."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Callable, Iterable, Mapping

from penstock.errors import FactorError
from penstock.factor.factors import Factors
from penstock.factor.graph import Node, formula

__all__ = ["Library", "choose"]


class Library(Factors):
    """Factors with their sources: the formula as it was published, and how it is read here.

    Takes   name: of the library; factors: expressions or texts by name; sources: formulas by name;
            notes: readings by name, where one had to be chosen; other: from another spelling of a name to the name.
    """

    __slots__ = ("_notes", "_other", "_sources", "name")

    def __init__(
        self,
        name: str,
        factors: Mapping[str, object],
        sources: Mapping[str, str],
        notes: Mapping[str, str] | None = None,
        other: Callable[[str], str] = str,
    ) -> None:
        super().__init__(factors)
        self.name = name
        self._sources = dict(sources)
        self._notes = dict(notes or {})
        self._other = other

    def __getitem__(self, name: str) -> Node:
        return super().__getitem__(self._other(name) if isinstance(name, str) else name)

    def select(self, *names: str) -> Library:
        """The library of these factors alone, under the library's names.

        Raises  FactorError for a name there is not, with near matches.
        """
        chosen = [self._known(name) for name in names]
        return Library(self.name, {name: self._nodes[name] for name in chosen}, self._sources, self._notes, self._other)

    def _known(self, name: str) -> str:
        found = self._other(name) if isinstance(name, str) else name
        if found not in self._nodes:
            near = difflib.get_close_matches(str(name), self._nodes, n=3)
            raise FactorError(
                f"library {self.name!r} has no factor {name!r}",
                hint=f"did you mean {' or '.join(near)}" if near else f"it has {_ends(list(self._nodes))}",
            )
        return found

    def source(self, name: str) -> str:
        """The formula as it was published."""
        return self._sources[self._known(name)]

    def note(self, name: str) -> str:
        """How the formula is read here where it leaves a choice; "" if it leaves none."""
        return self._notes.get(self._known(name), "")

    def explain(self, name: str) -> str:
        """Formula, reading, graph, inputs and warm-up of one factor."""
        name = self._known(name)
        node = self._nodes[name]
        from penstock.factor.program import compile

        program = compile({name: node}, engine="numpy")
        endless = "; it never forgets" if program.endless else ""
        lines = [name, f"  formula   {self._sources[name]}"]
        if self.note(name):
            lines.append(textwrap.fill(self.note(name), 110, initial_indent="  reading   ", subsequent_indent=" " * 12))
        lines += [
            f"  graph     {formula(node, 2000)}",
            f"  inputs    {', '.join(program.inputs) or 'none'}",
            f"  warm      after {program.warmup} rows{endless}",
        ]
        return "\n".join(lines)

    def __or__(self, other: Mapping[str, object]) -> Factors:
        return Factors(self._nodes) | other


def choose(library: str, reading: str, value: object, allowed: Iterable[str]) -> str:
    """`value` if it is one of `allowed`.

    Raises  FactorError that lists them.
    """
    names = list(allowed)
    if value not in names:
        raise FactorError(
            expected=f"{reading} {' or '.join(map(repr, names))}", got=repr(value), where=f"in library {library!r}"
        )
    return str(value)


def _ends(names: list[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]}, {names[1]} … {names[-1]}"
