"""The words of the steps as instructions: one row of one key block, `lanes` keys side by side.

Constants and what only depends on the row's number stay single values until they meet a block, so the optimizer
computes them once. State is addressed by `Layout.address` with blocks of `lanes` keys: within a block, row after row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.factor import elementary
from penstock.factor.layout import Field
from penstock.factor.ops.windowed import SHORT
from penstock.factor.table import Monoid
from penstock.native.emit import I64, Code, Value, Variable, kind

if TYPE_CHECKING:
    from penstock.factor.machine import AlongTime

__all__ = ["LlvmMachine", "Past", "Register", "Sorted"]

Summary = tuple[Value, ...]


class Words:
    """The words without state; `number` is the type of one value, `block` that of a row of a key block."""

    def __init__(self, code: Code, dtype: np.dtype[Any], lanes: int) -> None:
        self.code = code
        self.number = kind("float" if dtype == np.float32 else "double")
        self.block = self.number.of(lanes)
        self.lanes = lanes
        self.double = dtype == np.float64
        self.nan = code.number(self.number, math.nan)

    def where(self, mask: Any, x: Any, y: Any) -> Value:
        if not isinstance(x, Value) and not isinstance(y, Value):
            x = self.code.number(self.number, x)
        return self.code.select(mask, x, y)

    def present(self, x: Any) -> Value:
        x = self.single(x)
        return self.code.compare("ord", x, x)

    def finite(self, x: Any) -> Value:
        return self.code.compare("olt", self.abs(x), math.inf)

    def abs(self, x: Any) -> Value:
        return self.code.intrinsic("fabs", self.single(x))

    def sqrt(self, x: Any) -> Value:
        return self.code.intrinsic("sqrt", self.single(x))

    def floor(self, x: Any) -> Value:
        return self.code.intrinsic("floor", self.single(x))

    def wide(self, x: Any) -> Value:
        x = self.single(x)
        return self.code.cast("fpext", x, "double") if x.kind.base == "float" else x

    def narrow(self, x: Any) -> Value:
        return self.code.cast("fptrunc", x, "float") if self.number.base == "float" else x

    def exponent(self, x: Any) -> Value:
        # 32-bit integers, because AVX2 converts no others.
        bits = self.code.cast("trunc", self.code.cast("bitcast", x, "i64") >> 52, "i32")
        return self.code.cast("sitofp", (bits & 0x7FF) - 1023, "double")

    def fraction(self, x: Any) -> Value:
        bits = self.code.cast("bitcast", x, "i64")
        return self.code.cast("bitcast", (bits & ((1 << 52) - 1)) | (1023 << 52), "double")

    def power_of_two(self, x: Any) -> Value:
        whole = self.code.cast("fptosi", x, "i32") + 1023
        return self.code.cast("bitcast", self.code.cast("zext", whole, "i64") << 52, "double")

    def log(self, x: Any) -> Any:
        return elementary.log(self, x)

    def exp(self, x: Any) -> Any:
        return elementary.exp(self, x)

    def pow(self, x: Any, y: Any) -> Any:
        return elementary.pow(self, x, y)

    def single(self, x: Any) -> Value:
        """A Python number as a constant; values as they are."""
        return x if isinstance(x, Value) else self.code.number(self.number, x)

    def spread(self, x: Any) -> Value:
        """At full width."""
        return self.code.like(self.block, x)


class Past:
    """A `Ring`: `slot` and `part` to a row of the block's state; a slot's parts lie side by side."""

    def __init__(self, machine: LlvmMachine, field: Field) -> None:
        self.machine = machine
        self.field = field

    def place(self, slot: Any, part: int = 0) -> Value:
        code, block = self.machine.code, self.machine.block
        base = code.at(self.machine.state, self.field.first + part, block)
        return code.at(base, slot, block.size * self.field.parts)

    def load(self, slot: Any) -> list[Value]:
        code, block = self.machine.code, self.machine.block
        return [code.load(block, self.place(slot, part), block.size) for part in range(self.field.parts)]

    def store(self, slot: Any, values: Sequence[Value]) -> None:
        for part, value in enumerate(values):
            self.machine.code.store(value, self.place(slot, part), self.machine.block.size)


class Register:
    """A `Cell`: in registers while rows of a block are computed, in the state between."""

    def __init__(self, machine: LlvmMachine, field: Field) -> None:
        self.machine = machine
        self.field = field
        self.variables: list[Variable] = []

    def load(self) -> list[Value]:
        code, block = self.machine.code, self.machine.block
        if not self.variables:
            self.variables = [code.variable(block) for _ in range(self.field.parts)]
            for part, variable in enumerate(self.variables):
                with code.into("block"):
                    variable.set(code.load(block, self.place(part), block.size))
                with code.into("end"):
                    code.store(variable.get(), self.place(part), block.size)
        return [variable.get() for variable in self.variables]

    def place(self, part: int) -> Value:
        return self.machine.code.at(self.machine.state, self.field.first + part, self.machine.block)

    def store(self, values: Sequence[Value]) -> None:
        for variable, value in zip(self.variables, values, strict=True):
            variable.set(value)


class Sorted:
    """The sorted images of a ring's rows, kept beside the state: what `load` can always make again from the ring."""

    def __init__(self, field: Field, first: int) -> None:
        self.field = field
        self.first = first

    @staticmethod
    def rows(ring: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
        """The images of `ring` (rows, keys), sorted along rows; missing rows are the largest."""
        image = np.ascontiguousarray(ring + ring.dtype.type(0)).view(f"i{ring.dtype.itemsize}")
        image = np.where(image < 0, image ^ np.iinfo(image.dtype).max, image)
        return np.sort(np.where(np.isnan(ring), np.iinfo(image.dtype).max, image), axis=0)


class LlvmMachine(Words):
    """The words along time, for the function that `code` is.

    Takes   state, extra: values of `code`: addresses of the key block's state and of its sorted rows;
            ordinal: of the call's first row; merges: where functions that close a ring's block are collected;
            images: assigns rows of `extra` to a field.
    """

    def __init__(
        self,
        code: Code,
        dtype: np.dtype[Any],
        lanes: int,
        *,
        merges: dict[tuple[Monoid, int], str] | None = None,
        images: Callable[[Field], Sorted] | None = None,
    ) -> None:
        super().__init__(code, dtype, lanes)
        self.state = Value(code, kind("ptr"), "%state")
        self.extra = Value(code, kind("ptr"), "%extra")
        self.ordinal = Value(code, I64, "%ordinal")
        self.merges: dict[tuple[Monoid, int], str] = {} if merges is None else merges
        self.images = images
        self._phases: dict[int, Value] = {}

    def fields(self, fields: Sequence[Field]) -> SimpleNamespace:
        """A node's state, as its step sees it."""
        return SimpleNamespace(**{f.name: (Past if f.ring else Register)(self, f) for f in fields})

    def phase(self, n: int) -> Value:
        """This row's ordinal mod n, counted along instead of divided."""
        code = self.code
        if n == 1:
            return code.number(I64, 0)
        if n not in self._phases:
            with code.into("entry"):
                first = code.put(I64, f"urem i64 {self.ordinal.text}, {n}")
            with code.into("block"):
                counter = code.variable(I64, first)
            self._phases[n] = now = counter.get()
            with code.into("after"):
                following = now + 1
                counter.set(code.select(following == n, 0, following))
        return self._phases[n]

    def count(self, x: Value) -> Value:
        """A whole number as one of the program's dtype."""
        return self.code.cast("sitofp", x, self.number.base)

    # ---- words ----

    def delay(self, past: Past, x: Any) -> Value:
        slot = self.phase(past.field.depth)
        (old,) = past.load(slot)
        past.store(slot, [self.spread(x)])
        return old

    def scan(self, cell: Register, step: Callable[[Any, Any], Any], x: Any) -> Value:
        (old,) = cell.load()
        new = self.spread(step(old, self.spread(x)))
        cell.store([new])
        return new

    def window(self, state: Any, monoid: Monoid, n: int, *xs: Any) -> tuple[Value, ...]:
        code = self.code
        blocks = [self.spread(x) for x in xs]
        row = self._lift(monoid, blocks)
        if n == 1:
            return row
        if n <= SHORT:
            made: Summary | None = None
            for j, old in enumerate(self._earlier(state.past, blocks)):
                lifted = self._lift(monoid, old)
                made = lifted if made is None else self._combine(monoid, made, lifted, j, 1)
            assert made is not None
            return self._combine(monoid, made, row, n - 1, 1)
        phase = self.phase(n)
        place = self.count(phase)
        first, last = phase == 0, phase == n - 1
        merged = self._combine(monoid, tuple(state.prefix.load()), row, place, 1)
        prefix = self._choose(first, row, merged)
        state.prefix.store(prefix)
        # The block's last row has no suffix to merge with: any slot may be read, the result is not taken.
        suffix = tuple(state.ring.load(code.select(last, 0, phase + 1)))
        seen = place + 1.0
        result = self._choose(last, prefix, self._combine(monoid, suffix, prefix, float(n) - seen, seen))
        state.ring.store(phase, row)
        with code.when(last, seldom=True):
            name = self.merges.setdefault((monoid, self.lanes), f"close_{len(self.merges)}")
            code.do(f"call void @{name}(ptr {state.ring.place(0).text}, i64 {n})")
        return result

    def _lift(self, monoid: Monoid, xs: Sequence[Value]) -> Summary:
        return tuple(self.spread(part) for part in monoid.lift(self, *xs))

    def _combine(self, monoid: Monoid, a: Summary, b: Summary, na: Any, nb: Any) -> Summary:
        return tuple(self.spread(part) for part in monoid.combine(self, a, b, self.single(na), self.single(nb)))

    def _choose(self, condition: Value, a: Summary, b: Summary) -> Summary:
        return tuple(self.code.select(condition, x, y) for x, y in zip(a, b, strict=True))

    def _earlier(self, past: Past, xs: Sequence[Value]) -> list[list[Value]]:
        """The ring's rows, oldest first, of a short window; then `xs` becomes one."""
        code, depth = self.code, past.field.depth
        oldest = self.phase(depth)
        rows = []
        for j in range(depth):
            slot = oldest + j
            rows.append(past.load(code.select(slot >= depth, slot - depth, slot) if j else oldest))
        past.store(oldest, xs)
        return rows

    def fold(self, state: Any, n: int, x: Any, start: Any, step: Callable[[Any, Any], Any]) -> Value:
        if n == 1:
            return self.spread(start)
        code, depth = self.code, n - 1
        oldest = self.phase(depth)
        result = code.variable(self.block, self.spread(start))
        for first, stop in ((oldest, code.number(I64, depth)), (code.number(I64, 0), oldest)):
            with code.loop(first, stop) as slot:
                (old,) = state.past.load(slot)
                result.set(self.spread(step(result.get(), old)))
        state.past.store(oldest, [self.spread(x)])
        return result.get()

    def order(self, state: Any, n: int, x: Any, places: Sequence[int]) -> tuple[Value, ...]:
        code = self.code
        value = self.spread(x) + 0.0
        if n == 1:
            return tuple(value for _ in places)
        assert self.images is not None
        depth, past = n - 1, state.past
        images = self.images(past.field)
        whole = self.image(value)
        slot = self.phase(depth)
        (old,) = past.load(slot)
        oldest = self.image(old + 0.0)
        past.store(slot, [self.spread(x)])

        def place(at: Any) -> Value:
            return code.at(code.at(self.extra, images.first, self.block), at, self.block)

        def get(at: Any) -> Value:
            return code.load(whole.kind, place(at), self.block.size)

        def larger(a: Value, b: Value) -> Value:
            return code.intrinsic("smax", a, b)

        def smaller(a: Value, b: Value) -> Value:
            return code.intrinsic("smin", a, b)

        # With `whole` put in its place, row k of the window is the middle one of rows k - 1, k before and `whole`.
        below = {k: get(k) for k in sorted({*places, *(k - 1 for k in places), depth - 1}) if 0 <= k < depth}

        def middle(k: int) -> Value:
            made = smaller(below[k], whole) if k < depth else whole
            return larger(below[k - 1], made) if k else made

        missing = middle(depth) == np.iinfo("i4" if self.number.base == "float" else "i8").max
        found = tuple(self.where(missing, self.nan, self.unimage(middle(k))) for k in places)
        # Then the row that leaves is taken out: what is above it moves down by one.
        left = code.variable(whole.kind, smaller(below[0] if 0 in below else get(0), whole))
        before = code.variable(whole.kind, get(0))
        with code.loop(0, depth - 1) as k:
            following = get(k + 1)
            current = left.get()
            risen = larger(before.get(), smaller(following, whole))
            code.store(code.select(current < oldest, current, risen), place(k), self.block.size)
            before.set(following)
            left.set(risen)
        current = left.get()
        code.store(
            code.select(current < oldest, current, larger(before.get(), whole)), place(depth - 1), self.block.size
        )
        return found

    def image(self, x: Value) -> Value:
        """Whole numbers in the order of the floats; NaN is the largest."""
        code, bits = self.code, 32 if self.number.base == "float" else 64
        most = 2 ** (bits - 1) - 1
        image = code.cast("bitcast", x, f"i{bits}")
        flipped = image ^ (code.bits("ashr", image, bits - 1) & most)
        return code.select(code.compare("ord", x, x), flipped, most)

    def unimage(self, image: Value) -> Value:
        code, bits = self.code, 32 if self.number.base == "float" else 64
        back = image ^ (code.bits("ashr", image, bits - 1) & (2 ** (bits - 1) - 1))
        return code.cast("bitcast", back, self.number.base)


def close(name: str, monoid: Monoid, dtype: np.dtype[Any], lanes: int) -> tuple[str, set[str]]:
    """The function that turns a finished block's rows into its suffixes: (ring, n)."""
    code = Code()
    machine = LlvmMachine(code, dtype, lanes)
    ring, n = Value(code, kind("ptr"), "%ring"), Value(code, I64, "%n")

    def places(slot: Value) -> list[Value]:
        return [code.at(ring, slot * monoid.parts + part, machine.block) for part in range(monoid.parts)]

    size = machine.block.size
    held = [code.variable(machine.block, code.load(machine.block, p, size)) for p in places(n - 1)]
    with code.loop(n - 2, -1, -1) as slot:
        here = places(slot)
        row = tuple(code.load(machine.block, p, size) for p in here)
        after = machine.count(n - 1 - slot)
        merged = machine._combine(monoid, row, tuple(h.get() for h in held), 1, after)
        for variable, value, place in zip(held, merged, here, strict=True):
            variable.set(value)
            code.store(value, place, size)
    text = "\n".join(
        [
            f"define internal void @{name}(ptr %ring, i64 %n) #1 {{",
            "start:",
            *code.sections["alloca"],
            *code.lines,
            "  ret void",
            "}",
        ]
    )
    return text, code.needs


if TYPE_CHECKING:
    _machine: type[AlongTime] = LlvmMachine
