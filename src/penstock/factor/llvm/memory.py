"""Where compiled code keeps a key block's state and what it makes of it, and how both are told apart.

Memory is rows of 64 bytes, a key block after the other. Each function along time has its own past rows of the operands
it looks back on, then the summaries, suffixes and sorted rows of its windows: so a tick goes forward through memory.
Only past rows and cells are state. The module's text brings what a caller needs for it:

    state_start(context, ordinal)           empty state
    state_load(context, planes, ordinal)    state from `planes` (layout.rows, keys), and all that is made of it
    state_save(context, planes, ordinal)    state into `planes`; `ordinal` is the next row's in all three
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.factor.layout import Field, turn
from penstock.factor.table import Monoid
from penstock.native.emit import I64, PTR, Code, Value, kind

if TYPE_CHECKING:
    from penstock.factor.llvm.machine import LlvmMachine, Past, Rows

__all__ = ["Area", "Memory", "Window", "stride"]

_NUMBERS = 5
"""Words of a window's record before those of its operands: where its suffixes and prefix are, n, the
stride's bits, its turn."""


def stride(n: int) -> int:
    """Of how many suffixes of a window one is kept, as a power of two; those between are merged when they are read."""
    return 0 if n < 48 else 1 if n < 96 else 2


@dataclass(slots=True)
class Area:
    """Rows of memory side by side; where they begin is known when all of them are given out."""

    first: int = 0
    rows: int = 0

    def take(self, rows: int) -> int:
        """The first of so many rows, counted from the area's."""
        first, self.rows = self.rows, self.rows + rows
        return first


@dataclass(frozen=True, slots=True)
class Window:
    """A window's record: rows of memory, and on what it looks back. Without a monoid: rows that are kept sorted.

    `number` is its place among all; `prefix` counts from the first row of `cells`, which are the cells and prefixes of
    one function.
    """

    number: int
    monoid: Monoid | None
    suffixes: int
    cells: Area
    prefix: int
    n: int
    past: tuple[Past, ...]


@dataclass
class Memory:
    """Rows of a key block's memory, as they are given out."""

    dtype: np.dtype[Any]
    lanes: int
    rows: int = 0
    windows: list[Window] = field(default_factory=list)
    cells: list[tuple[Field, Area, int]] = field(default_factory=list)
    pasts: list[tuple[Field, Rows]] = field(default_factory=list)
    monoids: dict[Monoid, tuple[int, int]] = field(default_factory=dict)
    needs: set[str] = field(default_factory=set)

    def take(self, rows: int) -> int:
        """The first of so many rows."""
        first, self.rows = self.rows, self.rows + rows
        return first

    def window(self, monoid: Monoid | None, n: int, cells: Area, past: tuple[Past, ...]) -> Window:
        """Room for a window's suffixes and prefix, or for its n - 1 sorted rows."""
        number = len(self.windows)
        if monoid is None:
            made = Window(number, None, self.take(n - 1), cells, 0, n, past)
        else:
            each = 1 << stride(n)
            suffixes = self.take(((n - 2 + each - 1) // each + 1) * monoid.parts)
            made = Window(number, monoid, suffixes, cells, cells.take(monoid.parts), n, past)
            self.monoids.setdefault(monoid, (len(self.monoids), len(past)))
        self.windows.append(made)
        return made

    def closing(self, window: Window) -> str:
        """The call that makes a window's suffixes of the block that ends before row `%next`."""
        assert window.monoid is not None
        number = self.monoids[window.monoid][0]
        return f"call void @close_{number}(ptr %state, ptr {self._record(window.number)}, i64 %next)"

    def _record(self, at: int) -> str:
        return f"getelementptr (i8, ptr @windows, i64 {at * self._length * 8})"

    @property
    def _length(self) -> int:
        """Words of a record; the same for all."""
        return 16

    # ---- text ----

    def texts(self) -> list[str]:
        """Tables and functions, once everything is given out."""
        made = [self._tables()]
        for monoid, (number, operands) in self.monoids.items():
            made += [
                self._closer(f"close_{number}", monoid, operands),
                self._opener(f"open_{number}", monoid, operands),
            ]
        made += [
            self._ahead(),
            self._sorter(),
            self._again(),
            self._start(),
            self._move("state_load"),
            self._move("state_save"),
        ]
        return made

    def _tables(self) -> str:
        records, functions = [], []
        for one in self.windows:
            words = [
                one.suffixes * 64,
                (one.cells.first + one.prefix) * 64,
                one.n,
                stride(one.n),
                turn(one.monoid.name, one.n, one.past) if one.monoid is not None else 0,
            ]
            for past in one.past:
                words += [past.of.first * 64, past.of.depth, past.shift]
            assert len(words) <= self._length
            records += words + [0] * (self._length - len(words))
            number = self.monoids[one.monoid][0] if one.monoid is not None else 0
            functions += [f"@close_{number}", f"@open_{number}"] if one.monoid is not None else ["@sort_rows", "null"]
        kept = []
        seen: set[Field] = set()
        for of, area, place in self.cells:
            kept += [(area.first + place) * 64, of.parts, 0, of.first, 1]
        for of, rows in self.pasts:
            whole = rows.depth == of.depth and of not in seen
            seen |= {of} if whole else set()
            kept += [rows.first * 64, rows.depth, 1, of.first + of.depth - rows.depth, int(whole)]
        return "\n".join(
            [
                _table("windows", "i64", records),
                _table("makers", "ptr", functions),
                _table("kept", "i64", kept),
            ]
        )

    def _function(self, name: str, parameters: str, code: Code, *, public: bool = False) -> str:
        self.needs |= code.needs
        head = f"define {'' if public else 'internal '}void @{name}({parameters}) #{0 if public else 1} {{"
        return "\n".join([head, "start:", *code.sections["alloca"], *code.lines, "  ret void", "}"])

    def _machine(self) -> tuple[Code, LlvmMachine, Callable[[int], Value]]:
        from penstock.factor.llvm.machine import LlvmMachine

        code = Code()
        machine = LlvmMachine(code, self.dtype, self.lanes, self)
        record = Value(code, PTR, "%window")
        return code, machine, lambda i: code.load(I64, code.at(record, i, I64), 8)

    def _sources(self, code: Code, word: Callable[[int], Value], operands: int, row: Value) -> list[_Source]:
        """Where an operand's past rows are, at the one with ordinal `row`."""
        made = []
        for i in range(operands):
            base, depth, shift = (word(_NUMBERS + 3 * i + j) for j in range(3))
            # The first rows look back on such before the stream began, which are NaN in their slots.
            slot = _modulo(code, row - shift, depth)
            made.append(_Source(code, code.at(Value(code, PTR, "%state"), base, 1), depth, code.variable(I64, slot)))
        return made

    def _closer(self, name: str, monoid: Monoid, operands: int) -> str:
        """Suffixes of the last n - 1 - p rows of the block before the one that `next` is row p of, from its end."""
        code, machine, word = self._machine()
        next, state, block = Value(code, I64, "%next"), Value(code, PTR, "%state"), machine.block
        n, bits, suffixes = word(2), word(3), code.at(state, word(0), 1)
        phase = code.put(I64, f"urem i64 {(next + word(4)).text}, {n.text}")
        count = n - 1 - phase
        one = code.number(I64, 1)
        round_up = code.bits("shl", one, bits) - 1
        sources = self._sources(code, word, operands, next - phase - 1)

        def places(index: Value) -> list[Value]:
            return [code.at(suffixes, index * monoid.parts + part, block) for part in range(monoid.parts)]

        with code.when(count > 0):
            row = machine.lift(monoid, [source.load(block) for source in sources])
            held = [code.variable(block, value) for value in row]
            for value, place in zip(row, places(code.number(I64, 0)), strict=True):
                code.store(value, place, block.size)
            with code.loop(1, count) as j:
                for source in sources:
                    source.back()
                row = machine.lift(monoid, [source.load(block) for source in sources])
                merged = machine.combine(monoid, row, tuple(h.get() for h in held), 1, machine.count(j))
                # Where few are kept, the last one written to a place is the one that belongs there.
                for variable, value, place in zip(
                    held, merged, places(code.bits("lshr", j + round_up, bits)), strict=True
                ):
                    variable.set(value)
                    code.store(value, place, block.size)
        return self._function(name, "ptr %state, ptr %window, i64 %next", code)

    def _opener(self, name: str, monoid: Monoid, operands: int) -> str:
        """The prefix of the rows before `next` in its block."""
        code, machine, word = self._machine()
        next, block = Value(code, I64, "%next"), machine.block
        n, prefix = word(2), code.at(Value(code, PTR, "%state"), word(1), 1)
        phase = code.put(I64, f"urem i64 {(next + word(4)).text}, {n.text}")
        sources = self._sources(code, word, operands, next - phase)
        with code.when(phase > 0):
            held = [code.variable(block, v) for v in machine.lift(monoid, [source.load(block) for source in sources])]
            with code.loop(1, phase) as j:
                for source in sources:
                    source.forth()
                row = machine.lift(monoid, [source.load(block) for source in sources])
                merged = machine.combine(monoid, tuple(h.get() for h in held), row, machine.count(j), 1)
                for variable, value in zip(held, merged, strict=True):
                    variable.set(value)
            for part, variable in enumerate(held):
                code.store(variable.get(), code.at(prefix, part, block), block.size)
        return self._function(name, "ptr %state, ptr %window, i64 %next", code)

    def _ahead(self) -> str:
        """Ask for rows of memory before they are wanted."""
        code, machine, _ = self._machine()
        with code.loop(0, Value(code, I64, "%rows")) as row:
            machine.ask(code.at(Value(code, PTR, "%first"), row, machine.block))
        return self._function("ahead", "ptr %first, i64 %rows", code)

    def _sorter(self) -> str:
        """The images of the n - 1 rows before `next`, in order; missing ones are the largest."""
        code, machine, word = self._machine()
        next, block = Value(code, I64, "%next"), machine.block
        count, images = word(2) - 1, code.at(Value(code, PTR, "%state"), word(0), 1)
        (source,) = self._sources(code, word, 1, next - count)
        whole = machine.image(code.number(block, 0.0)).kind
        most = code.number(whole, (1 << (8 * machine.number.size - 1)) - 1)
        with code.loop(0, count) as j:
            code.store(most, code.at(images, j, block), block.size)
        filled = code.variable(I64, 0)
        with code.loop(0, count):
            image = machine.image(source.load(block) + 0.0)
            source.forth()
            # Empty rows need no place, and there are many when a stream begins.
            with code.when(
                code.reduce("smin", image) < most.code.number(whole.of(0), (1 << (8 * machine.number.size - 1)) - 1)
            ):
                held = code.variable(whole, image)
                size = filled.get() + 1
                with code.loop(0, size) as k:
                    place = code.at(images, k, block)
                    there, mine = code.load(whole, place, block.size), held.get()
                    code.store(code.intrinsic("smin", there, mine), place, block.size)
                    held.set(code.intrinsic("smax", there, mine))
                filled.set(size)
        return self._function("sort_rows", "ptr %state, ptr %window, i64 %next", code)

    def _blocks(self, code: Code) -> Any:
        from penstock.factor.llvm.loop import context

        code.lines += context("keys", "blocks", "state", "state_block")
        return code.loop(0, Value(code, I64, "%blocks"))

    @staticmethod
    def _base(code: Code, block: Value) -> Value:
        return code.at(Value(code, PTR, "%state.base"), block * Value(code, I64, "%state_block"), 1)

    def _again(self) -> str:
        """Make all that is made of past rows."""
        code = Code()
        with self._blocks(code) as b:
            state = self._base(code, b)
            with code.loop(0, len(self.windows)) as i:
                record = code.at(Value(code, PTR, "@windows"), i, 8 * self._length)
                for j in range(2):
                    maker = code.load(PTR, code.at(Value(code, PTR, "@makers"), i * 2 + j, PTR), 8)
                    there = code.put(kind("i1"), f"icmp ne ptr {maker.text}, null")
                    with code.when(there):
                        code.do(f"call void {maker.text}(ptr {state.text}, ptr {record.text}, i64 %ordinal)")
        return self._function("again", "ptr %context, i64 %ordinal", code)

    def _start(self) -> str:
        code, machine, _ = self._machine()
        with self._blocks(code) as b:
            state = self._base(code, b)
            with code.loop(0, self.rows) as row:
                code.store(machine.spread(machine.nan), code.at(state, row, machine.block), 64)
        code.do("call void @again(ptr %context, i64 %ordinal)")
        return self._function("state_start", "ptr %context, i64 %ordinal", code, public=True)

    def _move(self, name: str) -> str:
        """Between memory and `planes`, row by row of each key block."""
        code, machine, _ = self._machine()
        planes, keys, number = Value(code, PTR, "%planes"), Value(code, I64, "%keys"), machine.number
        ordinal = Value(code, I64, "%ordinal")
        loading = name == "state_load"
        if loading:
            code.do("call void @state_start(ptr %context, i64 %ordinal)")
        with self._blocks(code) as b:
            state, first = self._base(code, b), b * self.lanes
            left = keys - first
            valid = code.select(left < self.lanes, left, self.lanes)
            with code.loop(0, len(self.cells) + len(self.pasts)) as i:
                record = code.at(Value(code, PTR, "@kept"), i, 40)
                place, depth, ring, row, whole = (code.load(I64, code.at(record, j, I64), 8) for j in range(5))
                begin = code.select(ring == 1, code.put(I64, f"urem i64 {ordinal.text}, {depth.text}"), 0)
                memory = code.at(state, place, 1)
                with code.when((whole == 1) | loading), code.loop(0, depth) as j:
                    slot = begin + j
                    here = code.at(memory, code.select(slot >= depth, slot - depth, slot), machine.block)
                    there = code.at(planes, (row + j) * keys + first, number)
                    with code.when(valid == self.lanes):
                        source, target = (there, here) if loading else (here, there)
                        x = code.load(machine.block, source, number.size)
                        if not loading:
                            x = code.select(machine.present(x), x, machine.nan)
                        code.store(x, target, number.size)
                    with code.when(valid < self.lanes), code.loop(0, valid) as lane:
                        mine, theirs = code.at(here, lane, number), code.at(there, lane, number)
                        x = code.load(number, theirs if loading else mine)
                        if not loading:
                            x = code.select(machine.present(x), x, machine.nan)
                        code.store(x, mine if loading else theirs)
        if loading:
            code.do("call void @again(ptr %context, i64 %ordinal)")
        return self._function(name, "ptr %context, ptr %planes, i64 %ordinal", code, public=True)


@dataclass(frozen=True, slots=True)
class _Source:
    """An operand's past rows, at one of them."""

    code: Code
    base: Value
    depth: Value
    slot: Any

    def load(self, block: Any) -> Value:
        return self.code.load(block, self.code.at(self.base, self.slot.get(), block), block.size)

    def back(self) -> None:
        now = self.slot.get()
        self.slot.set(self.code.select(now == 0, self.depth - 1, now - 1))

    def forth(self) -> None:
        following = self.slot.get() + 1
        self.slot.set(self.code.select(following == self.depth, 0, following))


def _modulo(code: Code, x: Value, n: Value) -> Value:
    """The rest of x by n, never negative."""
    rest = code.put(I64, f"srem i64 {x.text}, {n.text}")
    return code.select(rest < 0, rest + n, rest)


def _table(name: str, of: str, values: list[Any]) -> str:
    inside = ", ".join(f"{of} {value}" for value in values) or f"{of} {'null' if of == 'ptr' else 0}"
    return f"@{name} = internal constant [{max(1, len(values))} x {of}] [{inside}], align 64"
