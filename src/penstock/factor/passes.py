"""From what was written to what is run, in named steps.

`expand` and `simplify` take outputs to outputs; `check` may run after each and says what a pass has broken. `cut` of
`plan.py` ends it. `compile` in `program.py` calls nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.errors import FactorError
from penstock.factor.graph import Node, constant, formula, topological
from penstock.factor.machine_numpy import NumpyMachine
from penstock.factor.rules import RULES
from penstock.factor.table import TABLE, Kind, Operator, lookup
from penstock.factor.trial import tried

__all__ = ["PASSES", "Outputs", "Pass", "check", "expand", "simplify"]

Outputs = Mapping[str, Node]


@dataclass(frozen=True, slots=True)
class Pass:
    """A step of compilation: its name, what it does in a sentence, and the function (outputs, dtype) -> outputs."""

    name: str
    sentence: str
    run: Callable[[Outputs, np.dtype[Any]], dict[str, Node]]


def expand(outputs: Outputs, dtype: np.dtype[Any]) -> dict[str, Node]:
    """Replace composites by the operators they are made of, and try a user's own."""
    done: dict[Node, Node] = {}

    def settle(roots: Iterable[Node], depth: int) -> None:
        if depth > 64:
            raise FactorError("composites are nested more than 64 deep", hint="does one use itself?")
        for node in topological(roots, done):
            args = tuple(done[arg] for arg in node.args)
            operator = TABLE.get(node.op)
            if operator is not None and operator.kind is Kind.COMPOSITE:
                made = _composed(operator, args, dict(node.attrs))
                if not isinstance(made, Node):
                    raise FactorError(f"composite {node.op} must return a factor expression, got {made!r}")
                done.update((arg, arg) for arg in args)
                settle([made], depth + 1)
                done[node] = done[made]
            else:
                done[node] = Node(node.op, args, node.attrs)
                done[done[node]] = done[node]

    settle(outputs.values(), 0)
    expanded = {name: done[node] for name, node in outputs.items()}
    tried(topological(expanded.values()))
    return expanded


def _composed(operator: Operator, args: tuple[Node, ...], attrs: dict[str, Any]) -> Any:
    try:
        return operator.step(*args, **attrs)
    except FactorError:
        raise
    except Exception as error:
        raise FactorError(
            f"composite {operator.name} raised {type(error).__name__}: {error}", operator=operator.name
        ) from error


def simplify(outputs: Outputs, dtype: np.dtype[Any]) -> dict[str, Node]:
    """Apply the exact rules, and compute what only depends on constants (in the program's dtype)."""
    machine = NumpyMachine(dtype, 1)
    done: dict[Node, Node] = {}

    def fold(node: Node) -> Node | None:
        if not node.args or TABLE[node.op].kind is not Kind.ELEMENTWISE:
            return None
        if any(arg.op != "const" for arg in node.args):
            return None
        with np.errstate(all="ignore"):
            values = [machine.constant(float(arg.attrs[0][1])) for arg in node.args]
            result = np.asarray(TABLE[node.op].step(machine, *values, **dict(node.attrs)))
        return constant(float(result.reshape(-1)[0]))

    def settle(node: Node) -> Node:
        for _ in range(64):
            found = next((new for rule in (*RULES, fold) if (new := rule(node)) is not None), None)
            if found is None:
                return node
            node = found
        return node

    for node in topological(outputs.values()):
        done[node] = settle(Node(node.op, tuple(done[arg] for arg in node.args), node.attrs))
    return {name: done[node] for name, node in outputs.items()}


PASSES: tuple[Pass, ...] = (
    Pass("expand", "composites become the operators they are made of", expand),
    Pass("simplify", "exact rules, and arithmetic on constants", simplify),
)


def check(outputs: Outputs, *, after: str) -> None:
    """Every node names an operator with as many operands and the attributes its record says.

    Raises  FactorError that names the pass and the output.
    """
    for name, root in outputs.items():
        for node in topological([root]):
            if node.op in ("const", "field"):
                fits = not node.args and len(node.attrs) == 1
            else:
                record = lookup(node.op)
                fits = len(node.args) == len(record.operands) and [n for n, _ in node.attrs] == [
                    p.name for p in record.attributes
                ]
            if not fits:
                raise FactorError(
                    f"{formula(node, 80)} does not fit its operator", where=f"in factor {name!r} after {after}"
                )
