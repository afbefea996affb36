"""The words of the steps as instructions: one row of one key block, `lanes` keys side by side.

Constants and what only depends on the row's number stay single values until they meet a block, so the optimizer
computes them once. Where state lies is `memory.py`'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.factor.elementary import Elementary
from penstock.factor.graph import Node
from penstock.factor.layout import Field, turn
from penstock.factor.layout import Past as Look
from penstock.factor.llvm.memory import Area, Memory, Window, stride
from penstock.factor.ops.windowed import SHORT
from penstock.factor.table import Monoid
from penstock.native.emit import I64, PTR, Code, Value, Variable, kind

if TYPE_CHECKING:
    from penstock.factor.machine import AlongTime

__all__ = ["LlvmMachine", "Past", "Register", "Rows", "Words"]

Summary = tuple[Value, ...]


class Words(Elementary):
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

    def single(self, x: Any) -> Value:
        """A Python number as a constant; values as they are."""
        return x if isinstance(x, Value) else self.code.number(self.number, x)

    def spread(self, x: Any) -> Value:
        """At full width."""
        return self.code.like(self.block, x)


class Rows:
    """The past rows of one operand, as one function along time keeps them: row t of a stream in slot t mod depth.

    How many it wants is known when the function has been written to its end; until then they go by name.
    """

    def __init__(self, machine: LlvmMachine, node: Node, name: str) -> None:
        code = machine.code
        self.machine = machine
        self.node = node
        self.depth = 0
        self.first = 0
        self.base = Value(code, PTR, f"%{name}")
        self.count = Value(code, I64, f"%{name}.depth")
        with code.into("entry"):
            start = code.put(I64, f"urem i64 {machine.ordinal.text}, {self.count.text}")
        with code.into("block"):
            counter = code.variable(I64, start)
        self.slot = counter.get()
        self._slots = {0: self.slot}
        with code.into("after"):
            following = self.slot + 1
            counter.set(code.select(following == self.count, 0, following))

    def back(self, rows: Value | int) -> Value:
        """The slot of the row so many before this one; whole numbers are asked for outside of loops only."""
        if isinstance(rows, int) and rows in self._slots:
            return self._slots[rows]
        there = self.slot + (self.count - rows)
        made = self.machine.code.select(there >= self.count, there - self.count, there)
        if isinstance(rows, int):
            self._slots[rows] = made
        return made

    def place(self, slot: Value) -> Value:
        return self.machine.code.at(self.base, slot, self.machine.block)

    def names(self) -> tuple[str, str]:
        """What the names stand for: once per call, and once per key block."""
        count = f"  {self.count.text} = add i64 0, {self.depth}"
        return count, f"  {self.base.text} = getelementptr [64 x i8], ptr %state, i64 {self.first}"


class Past:
    """How a step looks back: on the `rows` rows before this one of what is `shift` rows behind `of`."""

    def __init__(self, of: Rows, rows: int, shift: int, turn: int) -> None:
        self.of = of
        self.rows = rows
        self.shift = shift
        self.turn = turn
        of.depth = max(of.depth, rows + shift)

    def slot(self, back: Value | int) -> Value:
        """Where the row `back` rows before this one is."""
        return self.of.back(back + self.shift)

    def load(self, back: Value | int) -> Value:
        return self.of.machine.kept(self.of.place(self.slot(back)))


HELD = 5
"""Rows of cells that a function keeps in registers from row to row; more would only be moved between memories."""


class Register:
    """A `Cell`, or the prefix of a window: the first few in registers while rows of a block are computed.

    `first` counts from the first of the function's `cells`.
    """

    def __init__(self, machine: LlvmMachine, first: int, parts: int) -> None:
        self.machine = machine
        self.first = first
        self.parts = parts
        self.variables: list[Variable] = []

    def load(self) -> list[Value]:
        code, block = self.machine.code, self.machine.block
        if not self.variables and self.machine.held + self.parts > HELD:
            return [code.load(block, self.place(part), block.size) for part in range(self.parts)]
        if not self.variables:
            self.machine.held += self.parts
            self.variables = [code.variable(block) for _ in range(self.parts)]
            for part, variable in enumerate(self.variables):
                with code.into("block"):
                    variable.set(code.load(block, self.place(part), block.size))
                with code.into("end"):
                    code.store(variable.get(), self.place(part), block.size)
        return [variable.get() for variable in self.variables]

    def place(self, part: int) -> Value:
        return self.machine.code.at(Value(self.machine.code, PTR, "%cells"), self.first + part, self.machine.block)

    def store(self, values: Sequence[Value]) -> None:
        for part, value in enumerate(values):
            if self.variables:
                self.variables[part].set(value)
            else:
                self.machine.code.store(value, self.place(part), self.machine.block.size)


class LlvmMachine(Words):
    """The words along time, for the function that `code` is.

    `state` is the address of the key block's memory, `ordinal` the number of the call's first row, both values of
    `code`; memory gives out the rows.
    """

    def __init__(self, code: Code, dtype: np.dtype[Any], lanes: int, memory: Memory | None = None) -> None:
        super().__init__(code, dtype, lanes)
        self.state = Value(code, PTR, "%state")
        self.ordinal = Value(code, I64, "%ordinal")
        self.memory = Memory(dtype, lanes) if memory is None else memory
        self.rows: dict[Field, Rows] = {}
        self.cells = Area()
        self.held = 0
        self._phases: dict[tuple[int, int], Value] = {}
        self._closing: dict[tuple[int, int], list[Window]] = {}

    def used(self, uses: Mapping[str, Field | tuple[Look, ...]]) -> SimpleNamespace:
        """A node's state, as its step sees it."""
        made = SimpleNamespace()
        for name, used in uses.items():
            if isinstance(used, Field):
                first = self.cells.take(used.parts)
                self.memory.cells.append((used, self.cells, first))
                setattr(made, name, Register(self, first, used.parts))
            else:
                setattr(made, name, [Past(self._rows(look.field), look.rows, look.shift, look.turn) for look in used])
        return made

    def kept(self, place: Value) -> Value:
        """A row of the key block's memory, while the next block's is asked for: a tick comes to each place only once,
        and waiting for memory was half of its time at 4,096 symbols (docs/design/0016).
        """
        self.ask(self.code.at(place, Value(self.code, I64, "%ahead"), 1))
        return self.code.load(self.block, place, self.block.size)

    def ask(self, place: Value) -> None:
        """Have memory brought near."""
        self.code.needs.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.code.do(f"call void @llvm.prefetch.p0(ptr {place.text}, i32 0, i32 3, i32 1)")

    def _rows(self, field: Field) -> Rows:
        if field not in self.rows:
            self.rows[field] = Rows(self, field.node, f"past{len(self.rows)}")
        return self.rows[field]

    def finish(self, value: Callable[[Node], Value]) -> tuple[list[str], list[str]]:
        """End the row: operands become past rows, full blocks are closed; the names of past rows.

        Takes   value: this row of a node.
        """
        code = self.code
        for field, rows in self.rows.items():
            rows.first = self.memory.take(rows.depth)
            self.memory.pasts.append((field, rows))
            place = rows.place(rows.slot)
            self.ask(code.at(place, Value(code, I64, "%ahead"), 1))
            code.store(self.spread(value(rows.node)), place, self.block.size)
        for (n, turns), windows in self._closing.items():
            with code.when(self._phases[n, turns] == n - 1, seldom=True):
                after = code.put(I64, "add i64 %r, 1")
                following = self.ordinal + after
                for window in windows:
                    code.do(self.memory.closing(window).replace("%next", following.text))
        names = [rows.names() for rows in self.rows.values()]
        blocks = [second for _, second in names]
        if self.cells.rows:
            self.cells.first = self.memory.take(self.cells.rows)
            blocks += [
                f"  %cells = getelementptr [64 x i8], ptr %state, i64 {self.cells.first}",
                "  %cells.next = getelementptr i8, ptr %cells, i64 %ahead",
                f"  %cells.rows = select i1 %b.next.there, i64 {self.cells.rows}, i64 0",
                "  call void @ahead(ptr %cells.next, i64 %cells.rows)",
            ]
        return [first for first, _ in names], blocks

    def phase(self, n: int, turns: int) -> Value:
        """This row's (ordinal + turns) mod n, counted along instead of divided."""
        code = self.code
        if (n, turns) not in self._phases:
            with code.into("entry"):
                first = code.put(I64, f"urem i64 {(self.ordinal + turns).text}, {n}")
            with code.into("block"):
                counter = code.variable(I64, first)
            self._phases[n, turns] = now = counter.get()
            with code.into("after"):
                following = now + 1
                counter.set(code.select(following == n, 0, following))
        return self._phases[n, turns]

    def count(self, x: Value) -> Value:
        """A whole number as one of the program's dtype."""
        return self.code.cast("sitofp", x, self.number.base)

    # ---- words ----

    def delay(self, past: Sequence[Past], x: Any) -> Value:
        (one,) = past
        return one.load(one.rows)

    def scan(self, cell: Register, step: Callable[[Any, Any], Any], x: Any) -> Value:
        (old,) = cell.load()
        new = self.spread(step(old, self.spread(x)))
        cell.store([new])
        return new

    def window(self, state: Any, monoid: Monoid, n: int, *xs: Any) -> tuple[Value, ...]:
        code = self.code
        row = self.lift(monoid, [self.spread(x) for x in xs])
        if n == 1:
            return row
        if n <= SHORT:
            made: Summary | None = None
            for j in range(n - 1):
                lifted = self.lift(monoid, [past.load(n - 1 - j) for past in state.past])
                made = lifted if made is None else self.combine(monoid, made, lifted, j, 1)
            assert made is not None
            return self.combine(monoid, made, row, n - 1, 1)
        window = self.memory.window(monoid, n, self.cells, tuple(state.past))
        turns = turn(monoid.name, n, state.past)
        self._closing.setdefault((n, turns), []).append(window)
        running = Register(self, window.prefix, monoid.parts)
        phase = self.phase(n, turns)
        place = self.count(phase)
        first, last = phase == 0, phase == n - 1
        merged = self.combine(monoid, tuple(running.load()), row, place, 1)
        prefix = self._choose(first, row, merged)
        running.store(prefix)
        # The block's last row has no suffix to merge with: any may be read, the result is not taken.
        suffix = self._suffix(monoid, window, phase, code.select(last, 0, (n - 2) - phase))
        seen = place + 1.0
        return self._choose(last, prefix, self.combine(monoid, suffix, prefix, float(n) - seen, seen))

    def _suffix(self, monoid: Monoid, window: Window, phase: Value, rows: Value) -> Summary:
        """The summary of the last rows of the block before, `rows` + 1 of them."""
        code, bits = self.code, stride(window.n)
        index = rows >> bits if bits else rows
        base = code.at(self.state, window.suffixes, self.block)
        size = self.block.size * monoid.parts
        places = [code.at(code.at(base, part, self.block), index, size) for part in range(monoid.parts)]
        kept = tuple(self.kept(place) for place in places)
        if not bits:
            return kept
        held = [code.variable(self.block, value) for value in kept]
        with code.loop((index << bits) + 1, rows + 1) as j:
            row = self.lift(monoid, [past.load(phase + 1 + j) for past in window.past])
            merged = self.combine(monoid, row, tuple(h.get() for h in held), 1, self.count(j))
            for variable, value in zip(held, merged, strict=True):
                variable.set(value)
        return tuple(variable.get() for variable in held)

    def lift(self, monoid: Monoid, xs: Sequence[Value]) -> Summary:
        return tuple(self.spread(part) for part in monoid.lift(self, *xs))

    def combine(self, monoid: Monoid, a: Summary, b: Summary, na: Any, nb: Any) -> Summary:
        return tuple(self.spread(part) for part in monoid.combine(self, a, b, self.single(na), self.single(nb)))

    def _choose(self, condition: Value, a: Summary, b: Summary) -> Summary:
        return tuple(self.code.select(condition, x, y) for x, y in zip(a, b, strict=True))

    def fold(self, state: Any, n: int, x: Any, start: Any, step: Callable[[Any, Any], Any]) -> Value:
        if n == 1:
            return self.spread(start)
        code, (past,) = self.code, state.past
        depth = past.of.count
        oldest = past.slot(n - 1)
        stop = oldest + (n - 1)
        result = code.variable(self.block, self.spread(start))
        for first, end in ((oldest, code.select(stop < depth, stop, depth)), (code.number(I64, 0), stop - depth)):
            with code.loop(first, end) as slot:
                result.set(self.spread(step(result.get(), self.kept(past.of.place(slot)))))
        return result.get()

    def order(self, state: Any, n: int, x: Any, places: Sequence[int]) -> tuple[Value, ...]:
        code = self.code
        value = self.spread(x) + 0.0
        if n == 1:
            return tuple(value for _ in places)
        depth, (past,) = n - 1, state.past
        images = self.memory.window(None, n, self.cells, (past,))
        whole = self.image(value)
        oldest = self.image(past.load(depth) + 0.0)

        def place(at: Any) -> Value:
            return code.at(code.at(self.state, images.suffixes, self.block), at, self.block)

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


if TYPE_CHECKING:
    _machine: type[AlongTime] = LlvmMachine
