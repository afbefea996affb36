"""The expression graph: one node class, immutable and interned.

Equal expressions are the same object, so a sub-factor written twice is computed once, and passes compare with `is`.
A node holds an operator's name, its operand nodes and its attributes; what the operator means stands in the table.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NoReturn

import xxhash

from penstock.errors import FactorError

__all__ = ["Node", "constant", "digests", "field", "fields", "formula", "operand", "topological"]

Attribute = int | float | bool | str

_lock = threading.Lock()
_interned: weakref.WeakValueDictionary[tuple[object, ...], Node] = weakref.WeakValueDictionary()


class Node:
    """One value per row and key: an operator applied to other nodes.

    Takes   op: a name of the table; args: operand nodes; attrs: (name, value) pairs.
    Returns the one node of that description. Arithmetic, comparison and `& | ~` build further nodes;
            `bool(node)` raises, because a graph has no truth value before it has data.
    """

    __slots__ = ("__weakref__", "args", "attrs", "op")
    __match_args__ = ("op", "args")
    __array_ufunc__ = None  # numpy scalars on the left leave the operation to the node

    op: str
    args: tuple[Node, ...]
    attrs: tuple[tuple[str, Attribute], ...]

    def __new__(cls, op: str, args: tuple[Node, ...] = (), attrs: tuple[tuple[str, Attribute], ...] = ()) -> Node:
        # Ids in place of nodes: `==` on nodes builds a graph. They cannot be stale, a live node keeps its args alive.
        # `_exact` tells 0.0 from -0.0 and 1 from 1.0 and True, which compare equal.
        key = (op, tuple(map(id, args)), tuple((name, _exact(value)) for name, value in attrs))
        with _lock:
            node = _interned.get(key)
            if node is None:
                node = object.__new__(cls)
                object.__setattr__(node, "op", op)
                object.__setattr__(node, "args", args)
                object.__setattr__(node, "attrs", attrs)
                _interned[key] = node
            return node

    def __setattr__(self, name: str, value: object = None) -> NoReturn:
        raise FactorError(f"a node is immutable, cannot set {name!r}", hint="build a new expression")

    __delattr__ = __setattr__

    def __reduce__(self) -> tuple[Callable[..., Node], tuple[object, ...]]:
        # As a flat list, because a graph may be deeper than pickle's stack.
        place: dict[int, int] = {}
        flat = []
        for node in topological([self]):
            flat.append((node.op, tuple(place[id(arg)] for arg in node.args), node.attrs))
            place[id(node)] = len(place)
        return _unpickled, (flat,)

    def __copy__(self) -> Node:
        return self

    def __deepcopy__(self, memo: object) -> Node:
        return self

    def __bool__(self) -> NoReturn:
        raise FactorError(
            f"the truth of {formula(self, 80)} is not known before there is data",
            hint="use f.where(condition, a, b) in place of if, and & | ~ in place of and, or, not",
        )

    def __iter__(self) -> NoReturn:
        raise FactorError(f"{formula(self, 80)} cannot be iterated over", hint="run a program and iterate its result")

    def __repr__(self) -> str:
        return formula(self)

    __hash__ = object.__hash__

    def __add__(self, other: object) -> Node:
        return Node("add", (self, operand(other, "operand of +")))

    def __radd__(self, other: object) -> Node:
        return Node("add", (operand(other, "operand of +"), self))

    def __sub__(self, other: object) -> Node:
        return Node("sub", (self, operand(other, "operand of -")))

    def __rsub__(self, other: object) -> Node:
        return Node("sub", (operand(other, "operand of -"), self))

    def __mul__(self, other: object) -> Node:
        return Node("mul", (self, operand(other, "operand of *")))

    def __rmul__(self, other: object) -> Node:
        return Node("mul", (operand(other, "operand of *"), self))

    def __truediv__(self, other: object) -> Node:
        return Node("div", (self, operand(other, "operand of /")))

    def __rtruediv__(self, other: object) -> Node:
        return Node("div", (operand(other, "operand of /"), self))

    def __pow__(self, other: object) -> Node:
        return Node("pow", (self, operand(other, "operand of **")))

    def __rpow__(self, other: object) -> Node:
        return Node("pow", (operand(other, "operand of **"), self))

    def __neg__(self) -> Node:
        return Node("neg", (self,))

    def __pos__(self) -> Node:
        return self

    def __abs__(self) -> Node:
        return Node("abs", (self,))

    def __lt__(self, other: object) -> Node:
        return Node("lt", (self, operand(other, "operand of <")))

    def __le__(self, other: object) -> Node:
        return Node("le", (self, operand(other, "operand of <=")))

    def __gt__(self, other: object) -> Node:
        return Node("gt", (self, operand(other, "operand of >")))

    def __ge__(self, other: object) -> Node:
        return Node("ge", (self, operand(other, "operand of >=")))

    def __eq__(self, other: object) -> Node:  # type: ignore[override]
        return Node("eq", (self, operand(other, "operand of ==")))

    def __ne__(self, other: object) -> Node:  # type: ignore[override]
        return Node("ne", (self, operand(other, "operand of !=")))

    def __and__(self, other: object) -> Node:
        return Node("and_", (self, operand(other, "operand of &")))

    def __or__(self, other: object) -> Node:
        return Node("or_", (self, operand(other, "operand of |")))

    def __invert__(self) -> Node:
        return Node("not_", (self,))


def _unpickled(flat: Iterable[tuple[str, tuple[int, ...], tuple[tuple[str, Attribute], ...]]]) -> Node:
    made: list[Node] = []
    for op, args, attrs in flat:
        made.append(Node(op, tuple(made[i] for i in args), attrs))
    return made[-1]


def _exact(value: Attribute) -> tuple[str, str]:
    return type(value).__name__, value.hex() if isinstance(value, float) else str(value)


def constant(value: float) -> Node:
    """The node of a number.

    Raises  FactorError for anything else, and for an integer beyond what a float64 holds.
    """
    try:
        number = float(value)
    except OverflowError:
        raise FactorError(expected="a number below 1.8e308", got=_brief(value)) from None
    except (TypeError, ValueError):
        raise FactorError(expected="a number", got=_brief(value), where="in constant") from None
    if isinstance(value, (bool, str, bytes)) or _kind(value) == "b":
        raise FactorError(expected="a number", got=_brief(value), where="in constant")
    return Node("const", (), (("value", number),))


def field(name: str) -> Node:
    """The node of an input column.

    Raises  FactorError unless `name` is an identifier (letters, digits, `_`, not a digit first).
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise FactorError(
            expected="a field name of letters, digits and _",
            got=repr(name),
            hint='for example f.fields("close", "volume")',
        )
    return Node("field", (), (("name", name),))


def fields(*names: str) -> tuple[Node, ...]:
    """The nodes of input columns: `close, volume = f.fields("close", "volume")`."""
    return tuple(field(name) for name in names)


def operand(value: object, where: str) -> Node:
    """`value` as a node: a node itself, or a real number.

    Raises  FactorError for anything else, truth values and arrays included.
    """
    if isinstance(value, Node):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return constant(value)
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () and _kind(value) in "iuf":
        return constant(float(value))  # type: ignore[arg-type]
    hint = (
        'name inputs with f.field("close"), parse text with f.parse("rank(close)")' if isinstance(value, str) else None
    )
    raise FactorError(
        expected="a factor expression or a number",
        got=_brief(value),
        where=f"in {where}",
        hint=hint,
    )


def _kind(value: object) -> str:
    return str(getattr(getattr(value, "dtype", None), "kind", "?"))


def _brief(value: object) -> str:
    # The decimal digits of a huge integer are refused by Python itself.
    huge = isinstance(value, int) and value.bit_length() > 1000
    text = f"of {value.bit_length()} bits" if huge else repr(value)  # type: ignore[attr-defined]
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def topological(roots: Iterable[Node], known: Mapping[Node, object] | None = None) -> Iterator[Node]:
    """All nodes below `roots`, operands first, each once; nothing below a node of `known`.

    Iterative, because a graph may be deeper than the interpreter's stack.
    """
    seen: set[int] = set()
    for root in roots:
        stack: list[tuple[Node, int]] = [(root, 0)]
        while stack:
            node, index = stack.pop()
            if index == 0 and (id(node) in seen or (known is not None and node in known)):
                continue
            if index < len(node.args):
                if index == 0:
                    seen.add(id(node))
                stack.append((node, index + 1))
                child = node.args[index]
                if id(child) not in seen:
                    stack.append((child, 0))
            else:
                seen.add(id(node))
                yield node


def digests(roots: Iterable[Node], version: Callable[[str], int] = lambda op: 1) -> dict[Node, str]:
    """A digest of each node's structure (32 hex digits), the same in every process and release.

    Takes   version: of an operator by name; a new version keeps state of the old from being taken for its own.
    """
    found: dict[Node, str] = {}
    for node in topological(roots):
        attrs = ",".join(f"{name}={'/'.join(_exact(value))}" for name, value in node.attrs)
        text = f"{node.op}@{version(node.op)}({','.join(found[arg] for arg in node.args)};{attrs})"
        found[node] = xxhash.xxh3_128_hexdigest(text.encode())
    return found


_INFIX = {
    "or_": ("|", 1),
    "and_": ("&", 2),
    "lt": ("<", 3),
    "le": ("<=", 3),
    "gt": (">", 3),
    "ge": (">=", 3),
    "eq": ("==", 3),
    "ne": ("!=", 3),
    "add": ("+", 4),
    "sub": ("-", 4),
    "mul": ("*", 5),
    "div": ("/", 5),
    "pow": ("**", 7),
}


def formula(node: Node, width: int = 400) -> str:
    """The node as text that `f.parse` reads back; cut with … past `width` characters or 40 levels."""
    budget = [width]

    def number(value: float) -> str:
        whole = value.is_integer() and abs(value) < 1e15 and (value or math.copysign(1, value) > 0)
        return repr(int(value)) if whole else repr(value)

    def show(node: Node, depth: int, strength: int) -> str:
        if budget[0] <= 0 or depth > 40:
            return "…"
        if node.op == "const":
            value = dict(node.attrs)["value"]
            assert isinstance(value, float)
            text = number(value)
            text = f"({text})" if text.startswith("-") and strength > 4 else text
        elif node.op == "field":
            text = str(dict(node.attrs)["name"])
        elif node.op in _INFIX:
            sign, own = _INFIX[node.op]
            left = show(node.args[0], depth + 1, own + (own in (3, 7)))
            right = show(node.args[1], depth + 1, own + 1 - (own == 7))
            text = f"{left} {sign} {right}"
            return f"({text})" if own < strength else text
        elif node.op in ("neg", "not_"):
            text = ("-" if node.op == "neg" else "~") + show(node.args[0], depth + 1, 6)
            return f"({text})" if strength > 6 else text
        else:
            budget[0] -= len(node.op) + 2
            parts = [show(arg, depth + 1, 0) for arg in node.args]
            parts += [f"{name}={number(v) if isinstance(v, float) else v}" for name, v in node.attrs]
            return f"{node.op}({', '.join(parts)})"
        budget[0] -= len(text)
        return text

    return show(node, 0, 0)
