"""A user's operators, tried on a few numbers before anything is compiled of them.

What is wrong with a step would else show as an error from within an engine, or not at all: a window over something
other than its operand reads rows that were never kept, a monoid that is not associative gives other values for other
beginnings of history.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from penstock.errors import FactorError
from penstock.factor.graph import Node
from penstock.factor.machine import OverKeys, Words
from penstock.factor.machine_numpy import NumpyMachine
from penstock.factor.table import TABLE, Cell, Kind, Monoid, Operator, Ring

__all__ = ["tried"]

_WORDS = "a step is written in + - * /, comparisons, & | ~ and the words of m (penstock.factor.machine lists them)"
_ANYWHERE = {name for name in dir(Words) if not name.startswith("_")} | {"nan", "double"}
_OVER_KEYS = _ANYWHERE | {name for name in dir(OverKeys) if not name.startswith("_")}
_KEYS = 4
_NEAR = 1e-6

Array = np.ndarray[Any, np.dtype[Any]]


def tried(nodes: Iterable[Node]) -> None:
    """Try the operators of `nodes` that are not built in.

    Raises  FactorError that names the operator, for a state, a lookback, a monoid or a step that cannot be meant.
    """
    seen: set[tuple[Any, ...]] = set()
    for node in nodes:
        operator = TABLE.get(node.op)
        if operator is None or operator.numpy or operator.kind is Kind.COMPOSITE:
            continue
        if operator.step.__module__.startswith("penstock.factor.") or (node.op, node.attrs) in seen:
            continue
        seen.add((node.op, node.attrs))
        _Trial(operator, dict(node.attrs)).run()


class Number:
    """An array that can do what a value of compiled code can, and no more."""

    __slots__ = ("array",)
    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: Any) -> None:
        self.array = array

    def _with(self, other: Any, function: Callable[[Any, Any], Any], kind: type[Number] | None = None) -> Any:
        if isinstance(other, Mask) is not isinstance(self, Mask):
            raise TypeError("a mask is no number; m.where(mask, 1.0, 0.0) makes one of it")
        return (kind or type(self))(function(self.array, other.array if isinstance(other, Number) else float(other)))

    def __add__(self, other: Any) -> Any:
        return self._with(other, np.add)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self._with(other, np.subtract)

    def __rsub__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: b - a)

    def __mul__(self, other: Any) -> Any:
        return self._with(other, np.multiply)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return self._with(other, np.divide)

    def __rtruediv__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: b / a)

    def __neg__(self) -> Any:
        return Number(-self.array)

    def __lt__(self, other: Any) -> Any:
        return self._with(other, np.less, Mask)

    def __le__(self, other: Any) -> Any:
        return self._with(other, np.less_equal, Mask)

    def __gt__(self, other: Any) -> Any:
        return self._with(other, np.greater, Mask)

    def __ge__(self, other: Any) -> Any:
        return self._with(other, np.greater_equal, Mask)

    def __eq__(self, other: Any) -> Any:
        return self._with(other, np.equal, Mask)

    def __ne__(self, other: Any) -> Any:
        return self._with(other, np.not_equal, Mask)

    def __bool__(self) -> bool:
        raise TypeError("a value is not known while code is made of it; use m.where")

    def __repr__(self) -> str:
        return f"a {type(self).__name__.lower()}"


class Mask(Number):
    """What comparisons give."""

    __slots__ = ()
    __hash__ = None

    def __and__(self, other: Any) -> Any:
        return self._with(other, np.logical_and)

    def __or__(self, other: Any) -> Any:
        return self._with(other, np.logical_or)

    def __invert__(self) -> Any:
        return Mask(~self.array)


def _shown(value: Any) -> Any:
    return (Mask if value.dtype == bool else Number)(value) if isinstance(value, np.ndarray) else value


def _bare(value: Any) -> Any:
    return value.array if isinstance(value, Number) else value


class _Machine:
    """The words of the NumPy machine for such numbers; those that look back check what they are given instead."""

    def __init__(self, trial: _Trial) -> None:
        self._trial = trial
        self._inner = NumpyMachine(np.dtype(np.float64), _KEYS)

    def __getattr__(self, name: str) -> Any:
        if name not in (_OVER_KEYS if self._trial.operator.kind is Kind.CROSS else _ANYWHERE):
            raise AttributeError(f"m.{name} is no word of operators that are {self._trial.operator.kind.value}")
        word = getattr(self._inner, name)
        if not callable(word):
            return word
        return lambda *args, **named: _shown(word(*map(_bare, args), **{k: _bare(v) for k, v in named.items()}))

    def where(self, mask: Any, x: Any, y: Any) -> Any:
        if not isinstance(mask, Mask):
            raise TypeError("m.where takes a mask first, such as x > 0.0")
        return _shown(self._inner.where(mask.array, _bare(x), _bare(y)))

    def delay(self, past: Any, x: Any) -> Any:
        self._trial.looks_back("m.delay", past, None, [x])
        return x

    def scan(self, cell: Any, step: Callable[[Any, Any], Any], x: Any) -> Any:
        if not isinstance(cell, Cell):
            self._trial.fail("m.scan takes a Cell of the state")
        return self._trial.number(step(Number(np.full((1, _KEYS), np.nan)), x), "the step of m.scan")

    def window(self, state: Any, monoid: Monoid, n: int, *xs: Any) -> tuple[Any, ...]:
        self._trial.looks_back("m.window", getattr(state, "past", None), n, xs)
        self._trial.associative(self, monoid, len(xs))
        return self._trial.parts(monoid, monoid.lift(self, *xs), "lift")

    def fold(self, state: Any, n: int, x: Any, start: Any, step: Callable[[Any, Any], Any]) -> Any:
        self._trial.looks_back("m.fold", getattr(state, "past", None), n, [x])
        return self._trial.number(step(start, x), "the step of m.fold")

    def order(self, state: Any, n: int, x: Any, places: Any) -> tuple[Any, ...]:
        self._trial.looks_back("m.order", getattr(state, "past", None), n, [x])
        return tuple(x for _ in places)


class _Trial:
    """One operator with its attributes."""

    def __init__(self, operator: Operator, attributes: dict[str, Any]) -> None:
        self.operator, self.attributes = operator, attributes
        self.operands = tuple(Number(row) for row in _samples(len(operator.operands)))

    def fail(self, problem: str, hint: str | None = None) -> Any:
        step = self.operator.step
        try:
            place = f" at {Path(inspect.getfile(step)).name}:{inspect.getsourcelines(step)[1]}"
        except (OSError, TypeError):  # typed in, or made by a machine
            place = ""
        call = ", ".join(f"{name}={value!r}" for name, value in self.attributes.items())
        where = f"in operator {self.operator.name}{f'({call})' if call else ''}{place}"
        raise FactorError(problem, where=where, hint=hint, operator=self.operator.name)

    def asked(self, what: str, function: Callable[..., Any] | None, *args: Any) -> Any:
        """What a function of the user's gives."""
        assert function is not None
        try:
            with np.errstate(all="ignore"):
                return function(*args, **self.attributes)
        except FactorError:
            raise
        except Exception as error:
            hint = _WORDS if isinstance(error, TypeError) and args else None
            try:
                self.fail(f"{what} raised {type(error).__name__}: {error}", hint)
            except FactorError as told:
                raise told from error

    def run(self) -> None:
        operator, state = self.operator, []
        if operator.state is not None:
            state = [self._state()]
        self.number(self.asked("its step", operator.step, _Machine(self), *state, *self.operands), "its step")

    def _state(self) -> SimpleNamespace:
        fields = self.asked("its state", self.operator.state)
        if not isinstance(fields, Mapping) or not all(isinstance(one, (Cell, Ring)) for one in fields.values()):
            self.fail(f"expected a mapping of names to Cell and Ring from its state, got {fields!r}")
        rows = self.asked("its lookback", self.operator.lookback)
        each = rows if isinstance(rows, tuple) else (rows,) * len(self.operands)
        if len(each) != len(self.operands) or not all(
            one is None or (isinstance(one, int) and not isinstance(one, bool) and one >= 0) for one in each
        ):
            self.fail(f"expected rows, or None for what never forgets, from its lookback, got {rows!r}")
        for name, one in fields.items():
            if not isinstance(one, Ring):
                continue
            if one.operands > len(self.operands):
                self.fail(f"the ring {name!r} is of {one.operands} operands, of which there are {len(self.operands)}")
            if any(back is not None and back < one.rows for back in each[: one.operands]):
                self.fail(f"its ring {name!r} looks back {one.rows} rows, its lookback says {rows!r}")
        return SimpleNamespace(**fields)

    def looks_back(self, word: str, past: Any, n: int | None, xs: Any) -> None:
        """Refuse rows that are not kept."""
        if n == 1:
            return
        if not isinstance(past, Ring):
            self.fail(f"{word} needs past rows", 'state=lambda n: {"past": f.Ring(n - 1)}, or f.window_state(monoid)')
        if n is not None and past.rows != n - 1:
            self.fail(f"{word} over {n} rows looks back {n - 1}, its ring keeps {past.rows}")
        if len(xs) != past.operands or any(x is not own for x, own in zip(xs, self.operands, strict=False)):
            self.fail(
                f"{word} must be given the operator's first {past.operands} operands as they are: their rows are kept",
                "change them in the monoid's lift, or with other operators before this one",
            )

    def parts(self, monoid: Monoid, made: Any, what: str) -> tuple[Any, ...]:
        if not isinstance(made, tuple) or len(made) != monoid.parts:
            got = f"{len(made)}" if isinstance(made, tuple) else type(made).__name__
            self.fail(f"expected a tuple of {monoid.parts} from {what} of the monoid {monoid.name!r}, got {got}")
        return tuple(self.number(one, f"{what} of the monoid {monoid.name!r}") for one in made)

    def associative(self, m: _Machine, monoid: Monoid, count: int) -> None:
        """Refuse a monoid for which it matters where windows are cut."""
        one, two, three = (
            self.parts(monoid, monoid.lift(m, *map(Number, _samples(count, seed))), "lift") for seed in (1, 2, 3)
        )

        def merged(a: Any, b: Any, na: float, nb: float) -> Any:
            made = monoid.combine(m, a, b, Number(np.float64(na)), Number(np.float64(nb)))
            return self.parts(monoid, made, "combine")

        left = merged(merged(one, two, 1.0, 1.0), three, 2.0, 1.0)
        right = merged(one, merged(two, three, 1.0, 1.0), 1.0, 2.0)
        for a, b in zip(left, right, strict=True):
            if not np.allclose(_bare(a), _bare(b), _NEAR, _NEAR, equal_nan=True):
                self.fail(
                    f"the monoid {monoid.name!r} is not associative: of three rows, the first two merged first, "
                    f"it gives {_first(a)}, the last two first {_first(b)}",
                    "combine(combine(a, b), c) must be combine(a, combine(b, c))",
                )

    def number(self, made: Any, what: str) -> Any:
        if isinstance(made, Mask):
            self.fail(f"{what} gives a mask, not a number", "m.where(mask, 1.0, 0.0)")
        plain = isinstance(made, (int, float)) and not isinstance(made, bool)
        if not isinstance(made, Number) and not plain:
            self.fail(f"expected a value from {what}, got {made!r}")
        return made


def _first(value: Any) -> str:
    return format(float(np.asarray(_bare(value)).reshape(-1)[0]), ".6g")


def _samples(count: int, seed: int = 0) -> Array:
    """A row of numbers above 1 per operand."""
    return np.random.default_rng([seed, count]).uniform(1, 2, (count, 1, _KEYS))
