"""A plan as one module of compiled code: functions along time, functions over keys, and the loop that calls them.

Along time: a function holds a stretch of operators and loops over key blocks and, in each, over the rows of a chunk.
Over keys: a function holds one cross-sectional operator and loops over rows; its planes are given with each call. What
one function leaves to another lies in planes: per key block the planes one after the other, in each the chunk's rows
one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from penstock.factor.functions import is_function
from penstock.factor.graph import Node
from penstock.factor.layout import Layout
from penstock.factor.llvm.kernels import Kernels
from penstock.factor.llvm.loop import Call, Loop, context, named
from penstock.factor.llvm.machine import LlvmMachine, Words
from penstock.factor.llvm.memory import Memory
from penstock.factor.llvm.rows import RowMachine
from penstock.factor.plan import Plan
from penstock.factor.table import TABLE
from penstock.native.emit import PTR, Code, Value

__all__ = ["Module", "lanes_of", "write"]

LIMIT = 1500
"""Instructions after which a stretch along time is cut; 500 and 4,000 compile about as fast."""


def lanes_of(dtype: np.dtype[Any]) -> int:
    """Keys in a block: 64 bytes of them, on every processor."""
    return 64 // dtype.itemsize


@dataclass
class Module:
    """What `write` gives: the text, the number of planes, and the rows of 64 bytes that a key block's state takes."""

    text: str = ""
    planes: int = 0
    rows: int = 0
    crosses: bool = False


@dataclass
class Unit:
    """A function along time while it is written, and which nodes it takes from planes and leaves in them."""

    name: str
    step: int
    code: Code
    made: dict[Node, Value] = field(default_factory=dict)
    planes: dict[Node, str] = field(default_factory=dict)
    names: tuple[list[str], list[str]] = ([], [])


@dataclass(frozen=True, slots=True)
class Shared:
    """A function over keys, and how many planes it wants for itself."""

    name: str
    spares: int


class Writer:
    """Writes a plan's module."""

    def __init__(self, plan: Plan, layout: Layout, dtype: np.dtype[Any]) -> None:
        self.plan = plan
        self.dtype = dtype
        self.lanes = lanes_of(dtype)
        self.uses = layout.uses
        self.memory = Memory(dtype, self.lanes)
        self.kernels = Kernels(dtype, self.lanes)
        self.module = Module(crosses=any(stage.cross for stage in plan.stages))
        self.units: list[Unit] = []
        self.calls: list[Call] = []
        self.shared: dict[Any, Shared] = {}
        self.texts: list[str] = []
        self.needs: set[str] = set()
        self.home: dict[Node, Unit] = {}
        self.born: dict[Node, int] = dict.fromkeys(plan.inputs, 0)
        self.crossing: set[Node] = set()
        self.number: dict[Node, int] = {node: i for i, node in enumerate(plan.nodes)}
        self.last: dict[Node, int] = {}
        self.temporaries: list[tuple[int, int]] = []
        self.functions = {node: i for i, node in enumerate(filter(is_function, plan.nodes))}
        self.codes: dict[Node, int] = {}
        self.coded: dict[int, tuple[int, int]] = {}
        self.spares = 0
        self.slots: dict[int, int] = {}

    # ---- along time ----

    def along(self, nodes: list[Node], step: int) -> int:
        """Functions for a stage along time; the number of the step after them."""
        unit: Unit | None = None
        machine: LlvmMachine | None = None

        def end() -> None:
            if unit is not None and machine is not None:
                unit.names = machine.finish(partial(self.value, machine, unit))

        for node in nodes:
            if node.op == "field" or (node.op == "const" and all(out is not node for out in self.plan.outputs)):
                continue
            if unit is None or machine is None or len(unit.code.lines) > LIMIT:
                if unit is not None:
                    end()
                    step += 1
                unit = Unit(f"along_{len(self.units)}", step, Code())
                unit.code.label = "body"
                self.units.append(unit)
                self.calls.append(Call(unit.name, False, step, []))
                machine = LlvmMachine(unit.code, self.dtype, self.lanes, self.memory)
            self.home[node] = unit
            if node.op == "const":
                unit.made[node] = machine.spread(float(node.attrs[0][1]))
                continue
            args = [self.value(machine, unit, arg) for arg in node.args]
            operator = TABLE[node.op]
            state = [machine.used(self.uses[node])] if operator.state is not None else []
            made = operator.step(machine, *state, *args, **dict(node.attrs))
            unit.made[node] = machine.single(made)
        end()
        return step + (unit is not None)

    def value(self, machine: Words, unit: Unit, node: Node) -> Value:
        """A node's value in a function along time: made there, a constant, or loaded from its plane."""
        found = unit.made.get(node)
        if found is None:
            if node.op == "const":
                found = machine.single(float(node.attrs[0][1]))
            else:
                code, block = unit.code, machine.block
                found = code.load(block, code.at(self.plane(unit, node), named(code, "%offset"), 1), block.size)
                self.last[node] = max(self.last.get(node, 0), unit.step)
            unit.made[node] = found
        return found

    def plane(self, unit: Unit, node: Node) -> Value:
        unit.planes.setdefault(node, f"%plane_{self.number[node]}")
        return Value(unit.code, PTR, unit.planes[node])

    # ---- over keys ----

    def across(self, nodes: tuple[Node, ...], step: int) -> int:
        """A call for each node of a cross-sectional stage; nodes of one operator share a function.

        Groups that are new are numbered beside what wants none, and what wants them is called in a step of its own.
        """
        labels = dict.fromkeys(arg for node in nodes for _, arg in self._labels(node) if arg.op != "const")
        fresh = {label for label in labels if label not in self.codes}
        for label in labels:
            if label in fresh:
                number = self.codes[label] = len(self.number) + self.spares
                self.spares += 1
                self.coded[number] = (step, step)
                self.calls.append(Call(self._coder(), True, step, [self.number[label], number]))
                self._take(label, step)
        first = step
        for node in sorted(nodes, key=lambda node: any(arg in fresh for _, arg in self._labels(node))):
            step = first + any(arg in fresh for _, arg in self._labels(node))
            planes = [arg for arg in node.args if arg.op != "const"]
            # The function knows constants and attributes; planes are given with each call.
            key: Any = (node.op, node.attrs, tuple(arg if arg.op == "const" else None for arg in node.args))
            key = node if node in self.functions else key
            function = self.shared.get(key)
            if function is None:
                function = self.shared[key] = self._shared_function(node)
            spare = range(len(self.number) + self.spares, len(self.number) + self.spares + function.spares)
            self.spares += function.spares
            self.temporaries += [(number, step) for number in spare]
            numbers = [self.number[arg] for arg in planes]
            for _, arg in self._labels(node):
                if arg.op != "const":
                    numbers.append(self.codes[arg])
                    self.coded[self.codes[arg]] = (self.coded[self.codes[arg]][0], step)
            numbers += [self.number[node], *spare]
            self.calls.append(Call(function.name, True, step, numbers))
            self.born[node] = step
            for arg in planes:
                self._take(arg, step)
        return step + 1

    def _take(self, node: Node, step: int) -> None:
        self.last[node] = max(self.last.get(node, 0), step)
        self.crossing.add(node)

    def _labels(self, node: Node) -> list[tuple[int, Node]]:
        """The operands of a cross-sectional node that are called `group`."""
        if node in self.functions:
            return []
        names = [p.name for p in TABLE[node.op].operands]
        return [(i, arg) for i, arg in enumerate(node.args) if names[i] == "group"]

    def _coder(self) -> str:
        """The function that numbers the groups of a plane of labels."""
        name = "across_codes"
        if not any(text.startswith(f"define internal void @{name}(") for text in self.texts):
            code = Code()
            code.label = "body"
            machine = RowMachine(Words(code, self.dtype, self.lanes), self.kernels, lambda: Value(code, PTR, "%row0"))
            machine.group_codes(machine.lazy(Value(code, PTR, "%row0")), Value(code, PTR, "%row1"))
            self.texts.append(self._across_text(name, code, ["%row0", "%row1"]))
        return name

    def _shared_function(self, node: Node) -> Shared:
        code = Code()
        code.label = "body"
        words = Words(code, self.dtype, self.lanes)
        rows: list[str] = []

        def new_row() -> Value:
            rows.append(f"%row{len(rows)}")
            return Value(code, PTR, rows[-1])

        machine = RowMachine(words, self.kernels, new_row)
        args: list[Any] = [
            machine.constant(float(arg.attrs[0][1])) if arg.op == "const" else machine.lazy(new_row())
            for arg in node.args
        ]
        for i, arg in self._labels(node):
            if arg.op != "const":
                args[i].codes = new_row()
        given = len(rows)
        if node in self.functions:
            made = machine.function(self.functions[node], *args)
        else:
            made = TABLE[node.op].step(machine, *args, **dict(node.attrs))
        # The first row asked for is the result's own; steps that ask for none get it now.
        result = Value(code, PTR, rows[given]) if len(rows) > given else new_row()
        machine.store(made, result)
        name = f"across_{len(self.shared)}" + (f"_{node.op}" if node.op.isascii() else "")
        self.texts.append(self._across_text(name, code, rows))
        self.needs |= code.needs
        return Shared(name, len(rows) - given - 1)

    # ---- together ----

    def write(self) -> Module:
        step = 1
        for stage in self.plan.stages:
            step = self.across(stage.nodes, step) if stage.cross else self.along(list(stage.nodes), step)
        for out in self.plan.outputs:
            self.last[out] = step
        self._export()
        self._place(step)
        texts = [self._along_text(unit) for unit in self.units]
        crosses, functions = self.module.crosses, bool(self.functions)
        loop = Loop(self.plan, self.dtype, self.lanes, self.calls, self.slots, self.number, crosses, functions)
        texts += loop.texts()
        needs = self.kernels.needs | self.needs
        texts += self.memory.texts()
        needs |= self.memory.needs
        texts += self.texts
        texts += self.kernels.texts.values()
        for unit in self.units:
            needs |= unit.code.needs
        tail = [
            'attributes #0 = { nounwind "no-builtins" }',
            'attributes #1 = { nounwind noinline "no-builtins" }',
            '!0 = !{!"branch_weights", i32 1, i32 30}',
        ]
        self.module.text = "\n".join([*sorted(needs), *texts, *tail, ""])
        self.module.rows = max(1, self.memory.rows)
        self.module.planes = max(1, max(self.slots.values(), default=0) + 1)
        return self.module

    def _export(self) -> None:
        """Leave in planes what later functions and outputs take."""
        taken = {id(node) for node in self.crossing} | {id(node) for node in self.plan.outputs}
        taken |= {id(node) for unit in self.units for node in unit.planes}
        for node, unit in self.home.items():
            if id(node) in taken:
                code = unit.code
                machine = Words(code, self.dtype, self.lanes)
                made = machine.spread(unit.made[node])
                code.store(made, code.at(self.plane(unit, node), named(code, "%offset"), 1), machine.block.size)

    def _place(self, end: int) -> None:
        """Slots for planes: one is free again in the step after its last reader's."""
        births: dict[int, list[tuple[int, int]]] = {}
        for node, unit in self.home.items():
            if node in unit.planes:
                self.born[node] = unit.step
        for node, step in self.born.items():
            births.setdefault(step, []).append((self.number[node], self.last.get(node, step)))
        for number, (step, last) in self.coded.items():
            births.setdefault(step, []).append((number, last))
        for number, step in self.temporaries:
            births.setdefault(step, []).append((number, step))
        free: list[int] = []
        busy: list[tuple[int, int]] = []
        count = 0
        for step in range(end + 1):
            free += [slot for last, slot in busy if last < step]
            busy = [(last, slot) for last, slot in busy if last >= step]
            for number, last in births.get(step, []):
                if free:
                    slot = free.pop()
                else:
                    slot, count = count, count + 1
                self.slots[number] = slot
                busy.append((last, slot))

    def _along_text(self, unit: Unit) -> str:
        sections, size = unit.code.sections, 64
        where = [f"  {name} = getelementptr i8, ptr %pb, i64 {name}o" for name in unit.planes.values()]
        offsets = [
            f"  {name}o = mul i64 %plane_bytes, {self.slots[self.number[node]]}" for node, name in unit.planes.items()
        ]
        return "\n".join(
            [
                f"define internal void @{unit.name}(ptr %context, ptr %planes, i64 %ordinal, i64 %rows,"
                " i64 %lo, i64 %hi) #1 {",
                "start:",
                *sections["alloca"],
                *context("plane_rows", "plane_block", "state", "state_block"),
                f"  %plane_bytes = mul i64 %plane_rows, {size}",
                *unit.names[0],
                *offsets,
                *sections["entry"],
                "  br label %blocks",
                "blocks:",
                "  %b = phi i64 [%lo, %start], [%b.next, %rows.done]",
                "  %b.more = icmp slt i64 %b, %hi",
                "  br i1 %b.more, label %block, label %done",
                "block:",
                _opaque("%b.here", "%b"),
                "  %pbo = mul i64 %b.here, %plane_block",
                "  %pb = getelementptr i8, ptr %planes, i64 %pbo",
                "  %sbo = mul i64 %b.here, %state_block",
                "  %state = getelementptr i8, ptr %state.base, i64 %sbo",
                "  %b.after = add nsw i64 %b, 1",
                "  %b.next.there = icmp slt i64 %b.after, %hi",
                "  %ahead = select i1 %b.next.there, i64 %state_block, i64 0",
                *unit.names[1],
                *where,
                *sections["block"],
                "  br label %rows.head",
                "rows.head:",
                f"  %r = phi i64 [0, %block], [%r.next, %{unit.code.label}]",
                "  %r.more = icmp slt i64 %r, %rows",
                "  br i1 %r.more, label %body, label %rows.done",
                "body:",
                f"  %row.offset = mul i64 %r, {size}",
                _opaque("%offset", "%row.offset"),
                *sections["body"],
                *sections["after"],
                "  %r.next = add nsw i64 %r, 1",
                "  br label %rows.head",
                "rows.done:",
                *sections["end"],
                "  %b.next = add nsw i64 %b, 1",
                "  br label %blocks",
                "done:",
                "  ret void",
                "}",
            ]
        )

    def _across_text(self, name: str, code: Code, rows: list[str]) -> str:
        sections = code.sections
        offsets = [f"  {row}.first = mul i64 %plane_bytes, {row}.slot" for row in rows]
        slots, places = [], []
        for i, row in enumerate(rows):
            slots.append(f"  {row}.at = getelementptr i64, ptr %slots, i64 {i}")
            slots.append(f"  {row}.slot = load i64, ptr {row}.at")
            places.append(f"  {row}.plane = getelementptr i8, ptr %planes, i64 {row}.first")
            places.append(f"  {row} = getelementptr i8, ptr {row}.plane, i64 %offset")
        return "\n".join(
            [
                f"define internal void @{name}(ptr %context, ptr %planes, ptr %scratch, i64 %from, i64 %to,"
                " ptr %slots) #1 {",
                "start:",
                *sections["alloca"],
                *context("plane_rows", "plane_block", "keys", "blocks"),
                "  %stride = add i64 %plane_block, 0",
                "  %plane_bytes = mul i64 %plane_rows, 64",
                *slots,
                *offsets,
                *sections["entry"],
                "  br label %rows.head",
                "rows.head:",
                f"  %r = phi i64 [%from, %start], [%r.next, %{code.label}]",
                "  %r.more = icmp slt i64 %r, %to",
                "  br i1 %r.more, label %body, label %done",
                "body:",
                "  %offset = mul i64 %r, 64",
                *places,
                *sections["body"],
                "  %r.next = add nsw i64 %r, 1",
                "  br label %rows.head",
                "done:",
                "  ret void",
                "}",
            ]
        )


def write(plan: Plan, layout: Layout, dtype: np.dtype[Any]) -> Module:
    """The module of a plan."""
    return Writer(plan, layout, dtype).write()


def _opaque(name: str, number: str) -> str:
    """The same number, of which LLVM knows nothing: its strength reduction would try to make a pointer of its own for
    each of hundreds of addresses, which makes translation some 7 % longer and the code no faster (docs/design/0017).
    """
    return f'  {name} = call i64 asm "", "=r,0"(i64 {number})'
