"""The operator table: what an operator is called, takes, keeps, forgets and how exact it is.

A decorated function is the whole definition: its signature is the schema (operands, then attributes with their
kinds and defaults), its body the `step` that every machine reads, its docstring the reference. The public
functions, the stub file, the text parser, the tests and the fuzzer are generated from the records here.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

from penstock.errors import FactorError
from penstock.factor.graph import Attribute, Node, operand

__all__ = [
    "ALIASES",
    "TABLE",
    "Cell",
    "Flag",
    "Kind",
    "Monoid",
    "Number",
    "Operator",
    "Parameter",
    "Ring",
    "Rows",
    "Series",
    "Share",
    "State",
    "Value",
    "composite",
    "cross",
    "cross_numpy",
    "elementwise",
    "lookup",
    "windowed",
]

Value: TypeAlias = Any
"""What a machine computes with: a block of values, a vector register, a text. Steps only apply operators to it."""

if TYPE_CHECKING:
    Series: TypeAlias = Any
    Rows: TypeAlias = int
    Share: TypeAlias = float
    Number: TypeAlias = float
    Flag: TypeAlias = bool
else:
    # Classes of their own at run time, so that the decorators can tell one word from another.

    class Series:
        """An operand: a value per row and key."""

    class Rows:
        """An attribute: a whole number of rows, at least 1."""

    class Share:
        """An attribute: a number from 0 to 1."""

    class Number:
        """An attribute: a number, NaN included."""

    class Flag:
        """An attribute: True or False."""


class Kind(Enum):
    """How an operator's rows and keys depend on each other."""

    SOURCE = "source"
    ELEMENTWISE = "elementwise"
    WINDOWED = "windowed"
    CROSS = "cross-sectional"
    COMPOSITE = "composite"


@dataclass(frozen=True, slots=True)
class Cell:
    """State of `parts` values per key."""

    parts: int = 1

    def __post_init__(self) -> None:
        _whole("Cell", "parts", self.parts)

    @property
    def rows(self) -> int:
        return 1


@dataclass(frozen=True, slots=True)
class Ring:
    """The `rows` rows before this one, of each of the first `operands` operands.

    All operators that look back on one operand share its rows: a program keeps as many as the longest of them wants.
    """

    rows: int
    operands: int = 1

    def __post_init__(self) -> None:
        _whole("Ring", "rows", self.rows)
        _whole("Ring", "operands", self.operands)


def _whole(what: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1 << 24:
        raise FactorError(expected=f"{name} of a {what} a whole number from 1 to {1 << 24}", got=repr(value))


State: TypeAlias = Mapping[str, Cell | Ring]


@dataclass(frozen=True, slots=True)
class Monoid:
    """A summary of consecutive rows that merges.

    Takes   name: for printed layouts, and of what says in which rows blocks begin; parts: values per summary;
            lift: (m, *operands) -> the summary of one row;
            combine: (m, a, b, na, nb) -> the summary of `a`'s na rows followed by `b`'s nb rows. Plain arithmetic,
            comparison and `m.where` only (no exp, log, pow), so that its bits do not depend on how it is called.
            A NaN must come through `lift` and `combine`: rows before the first are NaN, which is what makes warm-up
            rows NaN. Summaries are never saved, but made again from the rows.
    """

    name: str
    parts: int
    lift: Callable[..., tuple[Value, ...]]
    combine: Callable[..., tuple[Value, ...]]

    def __post_init__(self) -> None:
        _whole(f"Monoid {self.name!r}", "parts", self.parts)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One operand or attribute of an operator; `least` bounds Rows and Number from below."""

    name: str
    kind: str
    default: Any = inspect.Parameter.empty
    least: float | None = None

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True, slots=True, repr=False)
class Operator:
    """A record of the table, and the public function: calling it with nodes builds a node.

    `lookback` gives the rows after which a value no longer depends on what was before the first row, for all operands
    or for each (None: never, as for an exponential mean). `tolerance` bounds the error against an independent
    computation, in units of the dtype's epsilon times the larger of the result and (largest input of the window) **
    `degree`; with `degree` 0 the 1 of a ratio, times largest input over spread where it is a ratio of moments. It holds
    for windows up to 64 rows; what is summed over longer ones errs with the square root of their length at most.
    `numpy`: the step is a function of NumPy arrays (see `cross_numpy`).
    """

    name: str
    kind: Kind
    step: Callable[..., Any]
    operands: tuple[Parameter, ...]
    attributes: tuple[Parameter, ...]
    state: Callable[..., State] | None = None
    lookback: Callable[..., int | tuple[int, ...] | None] | None = None
    tolerance: float = 0.0
    degree: int = 1
    nan: str = ""
    aliases: tuple[str, ...] = ()
    check: Callable[..., str | None] | None = None
    version: int = 1
    numpy: bool = False
    doc: str = field(default="", repr=False)

    def __call__(self, *args: object, **kwargs: object) -> Node:
        values = self._bind(args, kwargs)
        where = f"operand {{}} of {self.name}"
        nodes = tuple(operand(values[p.name], where.format(p.name)) for p in self.operands)
        attrs = tuple((p.name, self._attribute(p, values[p.name])) for p in self.attributes)
        problem = self.check(**dict(attrs)) if self.check else None
        if problem:
            raise FactorError(f"{self._call(dict(attrs))}: {problem}")
        return Node(self.name, nodes, attrs)

    def __reduce__(self) -> tuple[Callable[[str], Operator], tuple[str]]:
        return _by_name, (self.name,)

    def __copy__(self) -> Operator:
        return self

    def __deepcopy__(self, memo: object) -> Operator:
        return self

    def _bind(self, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, object]:
        parameters = self.operands + self.attributes
        names = [p.name for p in parameters]
        if len(args) > len(names):
            raise FactorError(expected=f"{self.usage()}", got=f"{len(args)} arguments", where=f"in {self.name}")
        values = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in names:
                raise FactorError(f"{self.name} has no argument {name!r}", hint=f"write {self.usage()}")
            if name in values:
                raise FactorError(f"{self.name}: {name} is given twice", hint=f"write {self.usage()}")
            values[name] = value
        for p in parameters:
            if p.name not in values:
                if p.required:
                    raise FactorError(f"{self.name}: {p.name} is missing", hint=f"write {self.usage()}")
                values[p.name] = p.default
        return values

    def _attribute(self, p: Parameter, value: object) -> Attribute:
        """`value` as what the signature says, or an error that names the call."""
        if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
            value = value.item()  # type: ignore[attr-defined]
        if isinstance(value, Node) and value.op == "const":
            number = float(value.attrs[0][1])
            value = int(number) if number.is_integer() else number
        if isinstance(value, int) and value.bit_length() > 1000:
            raise FactorError(f"{self.name}: {p.name} is too large, it has {value.bit_length()} bits")
        call = self._call({p.name: value})
        if p.kind == "Flag":
            if value is True or value is False:
                return bool(value)
            raise FactorError(f"{call}: {p.name} must be True or False, got {value!r}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            hint = "operands come first, then attributes" if isinstance(value, Node) else None
            raise FactorError(f"{call}: {p.name} must be a number, got {value!r}", hint=hint)
        if p.kind == "Rows":
            if not float(value).is_integer():
                raise FactorError(
                    f"{call}: {p.name} must be a whole number of rows, got {value!r}",
                    hint="round it the way your source does (WorldQuant's paper: down)",
                )
            if value < (p.least or 1):
                back = self.name in ("ts_delay", "ts_delta", "ts_returns")
                hint = "a negative delay would look ahead" if back and value < 0 else None
                raise FactorError(f"{call}: {p.name} must be at least {int(p.least or 1)}, got {int(value)}", hint=hint)
            if value > 1 << 24:
                raise FactorError(f"{call}: {p.name} must be at most {1 << 24}, got {int(value)}")
            return int(value)
        if p.kind == "Share" and not 0 <= value <= 1:
            raise FactorError(f"{call}: {p.name} must be between 0 and 1, got {value!r}")
        if p.least is not None and not value >= p.least:
            raise FactorError(f"{call}: {p.name} must be at least {p.least:g}, got {value!r}")
        if math.isnan(value) and p.kind != "Number":
            raise FactorError(f"{call}: {p.name} must be a number, got nan")
        return float(value)

    def _call(self, attrs: Mapping[str, object]) -> str:
        return f"{self.name}({', '.join([p.name for p in self.operands] + [f'{k}={v!r}' for k, v in attrs.items()])})"

    def __repr__(self) -> str:
        return f"<operator {self.usage()}>"

    def usage(self) -> str:
        """The call as one writes it: `ts_quantile(x, n, q)`."""
        parts = [p.name if p.required else f"{p.name}={p.default!r}" for p in self.operands + self.attributes]
        return f"{self.name}({', '.join(parts)})"

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        return self.doc

    @property
    def __name__(self) -> str:
        return self.name

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.Signature(
            [
                inspect.Parameter(p.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=p.default)
                for p in self.operands + self.attributes
            ]
        )


TABLE: dict[str, Operator] = {}
ALIASES: dict[str, str] = {}


def lookup(name: str) -> Operator:
    """The record of an operator's name or alias.

    Raises  FactorError that names near spellings.
    """
    found = TABLE.get(ALIASES.get(name, name))
    if found is None:
        near = difflib.get_close_matches(name, [*TABLE, *ALIASES], n=3)
        hint = f"did you mean {' or '.join(near)}" if near else "penstock.factor.TABLE lists all operators"
        raise FactorError(f"there is no operator {name!r}", hint=hint)
    return found


def _by_name(name: str) -> Operator:
    importlib.import_module("penstock.factor.ops")  # fills the table, where a pickle is the first to ask
    return lookup(name)


def _register(
    step: Callable[..., Any],
    kind: Kind,
    *,
    least: Mapping[str, float] | None = None,
    aliases: tuple[str, ...] = (),
    numpy: bool = False,
    **facts: Any,
) -> Operator:
    name = step.__name__
    taken = [n for n in (name, *aliases) if n in TABLE or n in ALIASES]
    if taken:
        raise FactorError(f"there is an operator {taken[0]!r} already", hint="choose another name")
    for one in (name, *aliases):
        if not one.isidentifier():
            raise FactorError(expected="a name of letters, digits and _ for an operator", got=repr(one))
    operands: list[Parameter] = []
    attributes: list[Parameter] = []
    skip = {Kind.COMPOSITE: 0, Kind.ELEMENTWISE: 1, Kind.CROSS: 1, Kind.WINDOWED: 2}[kind]
    for p in list(inspect.signature(step).parameters.values())[0 if numpy else skip :]:
        word = str(getattr(p.annotation, "__name__", p.annotation)).rpartition(".")[2]
        if word not in ("Series", "Rows", "Share", "Number", "Flag"):
            raise FactorError(
                expected="Series, Rows, Share, Number or Flag", got=repr(p.annotation), where=f"at {name}({p.name})"
            )
        if p.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise FactorError(f"{name}: {p.name!r} stands for any number of arguments", hint="name each of them")
        if word == "Series" and attributes:
            raise FactorError(f"{name}: operand {p.name!r} follows an attribute", hint="put the Series first")
        record = Parameter(p.name, word, p.default, (least or {}).get(p.name))
        (operands if word == "Series" else attributes).append(record)
    if numpy and not operands:
        raise FactorError(f"operator {name} has no operand", hint="annotate its rows: x: penstock.factor.Series")
    if not step.__doc__:
        raise FactorError(f"operator {name} has no docstring", hint="say shape, edges and cost")
    operator = Operator(
        name,
        kind,
        step,
        tuple(operands),
        tuple(attributes),
        aliases=aliases,
        numpy=numpy,
        doc=inspect.cleandoc(step.__doc__),
        **facts,
    )
    TABLE[name] = operator
    ALIASES.update(dict.fromkeys(aliases, name))
    return operator


Decorator: TypeAlias = Callable[[Callable[..., Any]], Operator]


def elementwise(
    *, aliases: tuple[str, ...] = (), tolerance: float = 0.0, nan: str = "NaN where an operand is"
) -> Decorator:
    """An operator whose value needs this row and key only: `step(m, *operands, **attributes) -> value`."""
    return lambda step: _register(step, Kind.ELEMENTWISE, aliases=aliases, tolerance=tolerance, nan=nan)


def windowed(
    *,
    state: Callable[..., State],
    lookback: Callable[..., int | tuple[int, ...] | None],
    aliases: tuple[str, ...] = (),
    least: Mapping[str, float] | None = None,
    tolerance: float = 0.0,
    degree: int = 1,
    nan: str = "NaN while the window holds one",
    check: Callable[..., str | None] | None = None,
    version: int = 1,
) -> Decorator:
    """An operator with state along time: `step(m, s, *operands, **attributes) -> value`, fields of `state` in `s`.

    Raise `version` when the step changes what it keeps or means: snapshots of the former are then not taken for it.
    """
    return lambda step: _register(
        step,
        Kind.WINDOWED,
        state=state,
        lookback=lookback,
        aliases=aliases,
        least=least,
        tolerance=tolerance,
        degree=degree,
        nan=nan,
        check=check,
        version=version,
    )


def cross(
    *,
    aliases: tuple[str, ...] = (),
    tolerance: float = 0.0,
    degree: int = 1,
    nan: str = "NaN where an operand is; such keys take no part",
) -> Decorator:
    """An operator over all keys of a row: `step(m, *operands, **attributes) -> value`."""
    return lambda step: _register(step, Kind.CROSS, aliases=aliases, tolerance=tolerance, degree=degree, nan=nan)


def cross_numpy(
    *, aliases: tuple[str, ...] = (), nan: str = "where its function says so", version: int = 1
) -> Decorator:
    """An operator over all keys of a row, as a plain function of NumPy arrays: `function(*operands, **attributes)`.

    Each operand is an array (keys,) of the program's dtype, NaN for missing, which the function may keep or change; it
    returns an array (keys,) of real numbers, which is rounded to that dtype. It is called once per row, in any order
    and from any thread, in both engines: what it gives must depend on its arguments alone. NumPy's floating-point
    warnings are off in it. It cannot use the executor that it is computed with, nor go into a C library.

    What it raises, or a result of another shape or kind, is a FactorError that names operator, factor and row. A stream
    is then between two rows and refuses to go on: go on from a snapshot.

    Raise `version` when the function changes what it means: it is part of the digest by which snapshots are taken over.
    """
    return lambda step: _register(step, Kind.CROSS, aliases=aliases, nan=nan, version=version, numpy=True)


def composite(
    *,
    aliases: tuple[str, ...] = (),
    least: Mapping[str, float] | None = None,
    tolerance: float = 0.0,
    degree: int = 1,
    nan: str = "as the operators it is made of",
    check: Callable[..., str | None] | None = None,
) -> Decorator:
    """An operator made of others: `step(*nodes, **attributes) -> node`; it has neither state nor code of its own."""
    return lambda step: _register(
        step, Kind.COMPOSITE, aliases=aliases, least=least, tolerance=tolerance, degree=degree, nan=nan, check=check
    )
