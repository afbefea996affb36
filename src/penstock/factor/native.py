"""A plan as one module of compiled code: functions along time, functions over keys, and the loop that calls them.

Along time: a function holds a stretch of operators and loops over key blocks and, in each, over the rows of a chunk.
Over keys: a function holds the cross-sectional operators of one operand and loops over rows. What one function leaves
to another lies in planes: per key block the planes one after the other, in each the chunk's rows one after the other.

    run(context, ordinal, rows)

The context is an array of 64-bit words, `CONTEXT`; streams, chunks and universes differ in it, not in the code. Several
threads each have their own, with their key blocks (`lo` to `hi`) and the number of their `part`. Before and after
what needs whole rows they wait for each other; then rows are divided among them, or operators if rows are too few.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from penstock.factor.emit import I64, PTR, Code, Kind, Value, kind
from penstock.factor.executor import gates
from penstock.factor.graph import Node
from penstock.factor.kernels import Kernels
from penstock.factor.layout import Field, Layout
from penstock.factor.machine_llvm import LlvmMachine, Sorted, Words, close
from penstock.factor.passes import Plan
from penstock.factor.table import TABLE, Monoid

__all__ = ["CONTEXT", "Module", "lanes_of", "write"]

CONTEXT = (
    "planes",
    "plane_rows",
    "plane_block",
    "state",
    "state_block",
    "extra",
    "extra_block",
    "keys",
    "blocks",
    "inputs",
    "input_row",
    "outputs",
    "output_row",
    "tile",
    "scratch",
    "lo",
    "hi",
    "part",
    "parts",
    "gate",
    "syscall",
)

LIMIT = 1500
"""Instructions after which a stretch along time is cut: a function's compile time grows faster than its length."""


def lanes_of(dtype: np.dtype[Any]) -> int:
    """Keys in a block: 64 bytes of them, on every processor."""
    return 64 // dtype.itemsize


@dataclass
class Module:
    """What `write` gives: the text, the number of planes, and the rings that are also kept sorted."""

    text: str = ""
    planes: int = 0
    sorted: list[Sorted] = field(default_factory=list)
    extra_rows: int = 0
    crosses: bool = False


@dataclass
class Unit:
    """A function along time while it is written, and which nodes it takes from planes and leaves in them."""

    name: str
    step: int
    code: Code
    made: dict[Node, Value] = field(default_factory=dict)
    planes: dict[Node, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shared:
    """A function over keys, and how many planes it wants for itself."""

    name: str
    spares: int


@dataclass(frozen=True, slots=True)
class Call:
    """What the loop calls, in order; over keys with the numbers of the planes to use."""

    name: str
    cross: bool
    step: int
    unit: Unit | None
    planes: list[int]


class Lazy:
    """A value per key of a row, computed block by block when it is stored."""

    __hash__ = None  # type: ignore[assignment]
    __array_ufunc__ = None

    def __init__(self, at: Callable[[Value], Value], plane: Value | None = None, codes: Value | None = None) -> None:
        self.at = at
        self.plane = plane
        self.codes = codes  # the plane with the numbers of its groups, where it is known to hold labels


def _lifted(name: str) -> Callable[..., Lazy]:
    def method(self: Lazy, *others: Any) -> Lazy:
        def at(block: Value) -> Value:
            given = [other.at(block) if isinstance(other, Lazy) else other for other in others]
            made: Value = getattr(self.at(block), name)(*given)
            return made

        return Lazy(at)

    return method


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "neg", "lt", "le", "gt", "ge", "eq"):
    setattr(Lazy, f"__{_name}__", _lifted(f"__{_name}__"))
for _name in ("ne", "and", "or", "invert"):
    setattr(Lazy, f"__{_name}__", _lifted(f"__{_name}__"))


class RowMachine:
    """The words over keys: what needs the whole row is a call, the rest waits for `Lazy.at`."""

    def __init__(self, words: Words, kernels: Kernels, row: Callable[[], Value]) -> None:
        self.words = words
        self.kernels = kernels
        self.nan = words.nan
        self.double = words.double
        self.new_row = row

    def __getattr__(self, name: str) -> Any:
        word = getattr(self.words, name)

        def call(*args: Any) -> Lazy:
            return Lazy(lambda block: word(*[a.at(block) if isinstance(a, Lazy) else a for a in args]))

        return call

    @property
    def code(self) -> Code:
        return self.words.code

    def named(self, name: str) -> Value:
        return Value(self.code, I64 if name in ("%stride", "%keys") else PTR, name)

    def address(self, plane: Value, block: Value) -> Value:
        return self.code.at(plane, block * self.named("%stride"), 1)

    def lazy(self, plane: Value, codes: Value | None = None) -> Lazy:
        """A row of a plane as a value."""
        block = self.words.block
        return Lazy(lambda at: self.code.load(block, self.address(plane, at), block.size), plane, codes)

    def store(self, x: Any, plane: Value) -> None:
        """Compute a row into a plane."""
        if isinstance(x, Lazy) and x.plane is plane:
            return
        with self.code.loop(0, Value(self.code, I64, "%blocks")) as block:
            made = self.words.spread(x.at(block) if isinstance(x, Lazy) else x)
            self.code.store(made, self.address(plane, block), self.words.block.size)

    def row(self, x: Any) -> Value:
        """The address of a plane's row that holds x."""
        if isinstance(x, Lazy) and x.plane is not None:
            return x.plane
        plane = self.new_row()
        self.store(x, plane)
        return plane

    def _reduce(self, name: str, x: Any, *more: Value) -> Value:
        kernel = self.kernels.need(name)
        return self.code.call(self.words.number, kernel, self.row(x), self.named("%stride"), self.named("%keys"), *more)

    def row_count(self, x: Any) -> Value:
        return self._reduce("row_count", x)

    def row_sum(self, x: Any) -> Value:
        return self._reduce("row_sum", x)

    def row_quantile(self, x: Any, q: float) -> Value:
        share = self.code.number(_DOUBLE, q)
        return self._reduce("row_quantile", x, self.named("%scratch"), share)

    def _make(self, name: str, sources: str, to: Value) -> None:
        kernel = self.kernels.need(name)
        self.code.do(f"call void @{kernel}({sources}, i64 %stride, i64 %keys, ptr %scratch, ptr {to.text})")

    def row_order(self, x: Any) -> Lazy:
        source, to = self.row(x), self.new_row()
        self._make("row_order", f"ptr {source.text}", to)
        return self.lazy(to)

    def group_codes(self, labels: Any, to: Value) -> None:
        """Not a word: what is done once for a plane of labels before `group_sum` is called on it."""
        self._make("group_codes", f"ptr {self.row(labels).text}", to)

    def group_sum(self, x: Any, group: Any) -> Lazy:
        source, to = self.row(x), self.new_row()
        codes = group.codes if isinstance(group, Lazy) else None
        if codes is None:
            codes = self.new_row()
            self.group_codes(group, codes)
        self._make("group_sum", f"ptr {source.text}, ptr {codes.text}", to)
        return self.lazy(to)


_DOUBLE = kind("double")


class Writer:
    """Writes a plan's module."""

    def __init__(self, plan: Plan, layout: Layout, dtype: np.dtype[Any]) -> None:
        self.plan = plan
        self.dtype = dtype
        self.lanes = lanes_of(dtype)
        self.fields = layout.by_node()
        self.kernels = Kernels(dtype, self.lanes)
        self.merges: dict[tuple[Monoid, int], str] = {}
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
        self.codes: dict[Node, int] = {}
        self.coded: dict[int, tuple[int, int]] = {}
        self.spares = 0
        self.slots: dict[int, int] = {}

    def images(self, ring: Field) -> Sorted:
        made = Sorted(ring, self.module.extra_rows)
        self.module.sorted.append(made)
        self.module.extra_rows += ring.depth
        return made

    # ---- along time ----

    def along(self, nodes: list[Node], step: int) -> int:
        """Functions for a stage along time; the number of the step after them."""
        unit: Unit | None = None
        machine: LlvmMachine | None = None
        for node in nodes:
            if node.op == "field" or (node.op == "const" and all(out is not node for out in self.plan.outputs)):
                continue
            if unit is None or len(unit.code.lines) > LIMIT:
                if unit is not None:
                    step += 1
                unit = Unit(f"along_{len(self.units)}", step, Code())
                unit.code.label = "body"
                self.units.append(unit)
                self.calls.append(Call(unit.name, False, step, unit, []))
                machine = LlvmMachine(unit.code, self.dtype, self.lanes, merges=self.merges, images=self.images)
            assert machine is not None
            self.home[node] = unit
            if node.op == "const":
                unit.made[node] = machine.spread(float(node.attrs[0][1]))
                continue
            args = [self.value(machine, unit, arg) for arg in node.args]
            operator = TABLE[node.op]
            state = [machine.fields(self.fields.get(node, []))] if operator.state is not None else []
            made = operator.step(machine, *state, *args, **dict(node.attrs))
            unit.made[node] = machine.single(made)
        return step + (unit is not None)

    def value(self, machine: Words, unit: Unit, node: Node) -> Value:
        """A node's value in a function along time: made there, a constant, or loaded from its plane."""
        found = unit.made.get(node)
        if found is None:
            if node.op == "const":
                found = machine.single(float(node.attrs[0][1]))
            else:
                code, block = unit.code, machine.block
                found = code.load(block, code.at(self.plane(unit, node), _named(code, "%offset"), 1), block.size)
                self.last[node] = max(self.last.get(node, 0), unit.step)
            unit.made[node] = found
        return found

    def plane(self, unit: Unit, node: Node) -> Value:
        unit.planes.setdefault(node, f"%plane_{self.number[node]}")
        return Value(unit.code, PTR, unit.planes[node])

    # ---- over keys ----

    def across(self, nodes: tuple[Node, ...], step: int) -> int:
        """A call for each node of a cross-sectional stage; nodes of one operator share a function."""
        labels = [arg for node in nodes for at, arg in self._labels(node) if arg.op != "const"]
        for label in dict.fromkeys(labels):
            if label not in self.codes:
                number = self.codes[label] = len(self.number) + self.spares
                self.spares += 1
                self.coded[number] = (step, step)
                self.calls.append(Call(self._coder(), True, step, None, [self.number[label], number]))
                self._take(label, step)
        step += any(self.coded[self.codes[label]][0] == step for label in labels)
        for node in nodes:
            planes = [arg for arg in node.args if arg.op != "const"]
            # The function knows constants and attributes; planes are given with each call.
            key = (node.op, node.attrs, tuple(arg if arg.op == "const" else None for arg in node.args))
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
            self.calls.append(Call(function.name, True, step, None, numbers))
            self.born[node] = step
            for arg in planes:
                self._take(arg, step)
        return step + 1

    def _take(self, node: Node, step: int) -> None:
        self.last[node] = max(self.last.get(node, 0), step)
        self.crossing.add(node)

    def _labels(self, node: Node) -> list[tuple[int, Node]]:
        """The operands of a cross-sectional node that are called `group`."""
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
            words.single(float(arg.attrs[0][1])) if arg.op == "const" else machine.lazy(new_row()) for arg in node.args
        ]
        for i, arg in self._labels(node):
            if arg.op != "const":
                args[i].codes = new_row()
        given = len(rows)
        made = TABLE[node.op].step(machine, *args, **dict(node.attrs))
        if isinstance(made, Lazy) and made.plane is not None and made.plane.text in rows[given : given + 1]:
            pass  # the first row asked for is the result's own
        elif len(rows) == given:
            machine.store(made, new_row())
        else:
            machine.store(made, Value(code, PTR, rows[given]))
        name = f"across_{len(self.shared)}_{node.op}"
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
        texts = [self._slots("input", self.plan.inputs), self._slots("output", self.plan.outputs)]
        texts += [self._along_text(unit) for unit in self.units]
        texts += [self._copy_in(), self._copy_out(), self._run()]
        needs = self.kernels.needs | self.needs
        for (monoid, lanes), name in self.merges.items():
            text, more = close(name, monoid, self.dtype, lanes)
            texts.append(text)
            needs |= more
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
                code.store(made, code.at(self.plane(unit, node), _named(code, "%offset"), 1), machine.block.size)

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
                *_context("plane_rows", "plane_block", "state", "state_block", "extra", "extra_block"),
                f"  %plane_bytes = mul i64 %plane_rows, {size}",
                *offsets,
                *sections["entry"],
                "  br label %blocks",
                "blocks:",
                "  %b = phi i64 [%lo, %start], [%b.next, %rows.done]",
                "  %b.more = icmp slt i64 %b, %hi",
                "  br i1 %b.more, label %block, label %done",
                "block:",
                "  %pbo = mul i64 %b, %plane_block",
                "  %pb = getelementptr i8, ptr %planes, i64 %pbo",
                "  %sbo = mul i64 %b, %state_block",
                "  %state = getelementptr i8, ptr %state.base, i64 %sbo",
                "  %ebo = mul i64 %b, %extra_block",
                "  %extra = getelementptr i8, ptr %extra.base, i64 %ebo",
                *where,
                *sections["block"],
                "  br label %rows.head",
                "rows.head:",
                f"  %r = phi i64 [0, %block], [%r.next, %{unit.code.label}]",
                "  %r.more = icmp slt i64 %r, %rows",
                "  br i1 %r.more, label %body, label %rows.done",
                "body:",
                f"  %offset.plain = mul i64 %r, {size}",
                '  %offset = call i64 asm "", "=r,0"(i64 %offset.plain)',
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
        given = ", ".join(f"i64 {row}.slot" for row in rows)
        offsets = [f"  {row}.first = mul i64 %plane_bytes, {row}.slot" for row in rows]
        places = []
        for row in rows:
            places.append(f"  {row}.plane = getelementptr i8, ptr %planes, i64 {row}.first")
            places.append(f"  {row} = getelementptr i8, ptr {row}.plane, i64 %offset")
        return "\n".join(
            [
                f"define internal void @{name}(ptr %context, ptr %planes, ptr %scratch, i64 %from, i64 %to,"
                f" {given}) #1 {{",
                "start:",
                *sections["alloca"],
                *_context("plane_rows", "plane_block", "keys", "blocks"),
                "  %stride = add i64 %plane_block, 0",
                "  %plane_bytes = mul i64 %plane_rows, 64",
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

    # ---- in, out, and the loop ----

    def _copier(self, what: str) -> tuple[Code, Words]:
        code = Code()
        code.sections["entry"] = [*_context("plane_rows", "plane_block", "keys", what + "s", what + "_row")]
        return code, Words(code, self.dtype, self.lanes)

    def _copied(self, name: str, code: Code) -> str:
        parameters = "ptr %context, ptr %planes, i64 %first, i64 %rows, i64 %lo, i64 %hi"
        return "\n".join(
            [
                f"define internal void @{name}({parameters}) #1 {{",
                "start:",
                *code.sections["alloca"],
                *code.sections["entry"],
                *code.lines,
                "  ret void",
                "}",
            ]
        )

    def _pieces(
        self, what: str, nodes: tuple[Node, ...], inner: Callable[[Code, Words, Value, Value, Value | None], None]
    ) -> Code:
        """For each array, row and key block: (plane's place, array's place, keys in the last block or None)."""
        code, words = self._copier(what)
        arrays, step = _named(code, f"%{what}s.base", PTR), _named(code, f"%{what}_row")
        planes, stride = _named(code, "%planes", PTR), _named(code, "%plane_block")
        lo, hi, keys = _named(code, "%lo"), _named(code, "%hi"), _named(code, "%keys")
        whole = code.put(I64, f"udiv i64 {keys.text}, {self.lanes}")
        rest = keys - whole * self.lanes
        full = code.select(hi < whole, hi, whole)
        with code.loop(0, len(nodes)) as i:
            array = code.load(PTR, code.at(arrays, i, I64), 8)
            slot = code.load(I64, code.at(_named(code, f"@{what}_slots", PTR), i, I64), 8)
            plane = code.at(planes, _named(code, "%plane_rows") * slot * 64, 1)
            with code.loop(0, _named(code, "%rows")) as row:
                here = code.at(array, (_named(code, "%first") + row) * step, 1)
                there = code.at(plane, row * 64, 1)
                with code.loop(lo, full) as block:
                    inner(code, words, code.at(there, block * stride, 1), code.at(here, block * 64, 1), None)
                with code.when((hi > whole) & (rest > 0)):
                    inner(code, words, code.at(there, whole * stride, 1), code.at(here, whole * 64, 1), rest)
        return code

    def _slots(self, what: str, nodes: tuple[Node, ...]) -> str:
        """The planes of the inputs or outputs, as a table of the module."""
        slots = ", ".join(f"i64 {self.slots[self.number[node]]}" for node in nodes) or "i64 0"
        return f"@{what}_slots = internal constant [{max(1, len(nodes))} x i64] [{slots}]"

    def _copy_in(self) -> str:
        def inner(code: Code, words: Words, plane: Value, array: Value, rest: Value | None) -> None:
            if rest is None:
                code.store(code.load(words.block, array, words.number.size), plane, 64)
                return
            code.store(words.spread(words.nan), plane, 64)
            with code.loop(0, rest) as lane:
                one = code.load(words.number, code.at(array, lane, words.number))
                code.store(one, code.at(plane, lane, words.number))

        return self._copied("copy_in", self._pieces("input", self.plan.inputs, inner))

    def _copy_out(self) -> str:
        # One NaN: payload and sign depend on the order of operands.
        def inner(code: Code, words: Words, plane: Value, array: Value, rest: Value | None) -> None:
            if rest is None:
                x = code.load(words.block, plane, 64)
                code.store(code.select(words.present(x), x, words.nan), array, words.number.size)
                return
            with code.loop(0, rest) as lane:
                x = code.load(words.number, code.at(plane, lane, words.number))
                code.store(code.select(words.present(x), x, words.nan), code.at(array, lane, words.number))

        return self._copied("copy_out", self._pieces("output", self.plan.outputs, inner))

    def _groups(self) -> list[list[Call]]:
        """Calls that run one after the other without waiting for other keys; cross-sectional steps by themselves."""
        groups: list[list[Call]] = [[]]
        for call in self.calls:
            last = groups[-1]
            if last and (last[0].cross != call.cross or (call.cross and last[0].step != call.step)):
                groups.append([])
            groups[-1].append(call)
        if groups[0] and groups[0][0].cross:
            groups.insert(0, [])
        if groups[-1] and groups[-1][0].cross:
            groups.append([])
        return groups

    def _run(self) -> str:
        code = Code()
        lo, hi, rows = _named(code, "%lo"), _named(code, "%hi"), _named(code, "%rows")
        chunk, tile, stride = _named(code, "%plane_rows"), _named(code, "%tile"), _named(code, "%plane_block")
        part, parts, planes = _named(code, "%part"), _named(code, "%parts"), _named(code, "%planes.base", PTR)
        groups = self._groups()

        def pieces(whole: Value, size: Value) -> Any:
            return code.loop(0, code.put(I64, f"udiv i64 {(whole + size - 1).text}, {size.text}"))

        def along(group: list[Call], first: Value, count: Value, base: Value, number: Value) -> None:
            """One tile of keys through functions along time."""
            a = lo + number * tile
            b = code.select(a + tile < hi, a + tile, hi)
            area, span = f"ptr %context, ptr {base.text}", f"i64 {count.text}, i64 {a.text}, i64 {b.text}"
            ordinal = _named(code, "%ordinal") + first
            if group is groups[0]:
                code.do(f"call void @copy_in({area}, i64 {first.text}, {span})")
            for one in group:
                code.do(f"call void @{one.name}({area}, i64 {ordinal.text}, {span})")
            if group is groups[-1]:
                code.do(f"call void @copy_out({area}, i64 {first.text}, {span})")

        def across(group: list[Call], count: Value) -> None:
            code.do("call void @meet(ptr %context)")
            few = count < parts
            begin = code.put(I64, f"udiv i64 {(count * part).text}, {parts.text}")
            end = code.put(I64, f"udiv i64 {(count * (part + 1)).text}, {parts.text}")
            # Calls of one kind after the other, so that each thread gets its share of the long ones.
            for i, one in enumerate(sorted(group, key=lambda call: call.name)):
                mine = code.put(I64, f"urem i64 {i}, {parts.text}") == part
                start = code.select(few, 0, begin)
                stop = code.select(few, code.select(mine, count, 0), end)
                slots = ", ".join(f"i64 {self.slots[number]}" for number in one.planes)
                span = f"ptr %scratch.base, i64 {start.text}, i64 {stop.text}, {slots}"
                code.do(f"call void @{one.name}(ptr %context, ptr %planes.base, {span})")
            code.do("call void @meet(ptr %context)")

        def chunked(number: Value) -> tuple[Value, Value]:
            first = number * chunk
            return first, code.select(rows - first < chunk, rows - first, chunk)

        if not self.module.crosses:
            # A tile of keys at a time, over all rows: planes for one tile are enough, and they stay in the cache.
            with pieces(hi - lo, tile) as number:
                base = code.at(planes, 0 - (lo + number * tile) * stride, 1)
                with pieces(rows, chunk) as chunks:
                    along(groups[0], *chunked(chunks), base, number)
        else:
            with pieces(rows, chunk) as chunks:
                first, count = chunked(chunks)
                for group in groups:
                    if group and group[0].cross:
                        across(group, count)
                    else:
                        with pieces(hi - lo, tile) as number:
                            along(group, first, count, planes, number)
        words = ("planes", "plane_rows", "plane_block", "tile", "scratch", "lo", "hi", "part", "parts")
        run = [
            "define void @run(ptr %context, i64 %ordinal, i64 %rows) #0 {",
            "start:",
            *code.sections["alloca"],
            *_context(*words),
            *code.lines,
            "  ret void",
            "}",
        ]
        return "\n".join([*gates(), _MEET.format(words="\n".join(_context("parts", "gate"))), *run])


_MEET = (
    """define internal void @meet(ptr %context) #1 {{
start:
{words}
  %syscall = getelementptr i64, ptr %context, i64 """
    + str(CONTEXT.index("syscall"))
    + """
  %alone = icmp eq i64 %parts, 1
  br i1 %alone, label %done, label %arrive
arrive:
  %seen = load atomic i32, ptr %gate.base acquire, align 4
  %count = getelementptr i32, ptr %gate.base, i64 2
  %before = atomicrmw add ptr %count, i32 1 acq_rel
  %all = trunc i64 %parts to i32
  %others = sub i32 %all, 1
  %last = icmp eq i32 %before, %others
  br i1 %last, label %open, label %wait
open:
  store atomic i32 0, ptr %count release, align 4
  call void @gate_open(ptr %gate.base, ptr %syscall)
  br label %done
wait:
  call void @gate_wait(ptr %gate.base, i32 %seen, ptr %syscall)
  br label %done
done:
  ret void
}}"""
)


def _named(code: Code, name: str, of: Kind = I64) -> Value:
    return Value(code, of, name)


def _context(*names: str) -> list[str]:
    """Words of the context as values of their names; pointers as `name.base`."""
    lines = []
    for name in names:
        lines.append(f"  %{name}.at = getelementptr i64, ptr %context, i64 {CONTEXT.index(name)}")
        if name in ("planes", "state", "extra", "inputs", "outputs", "scratch", "gate"):
            lines.append(f"  %{name}.base = load ptr, ptr %{name}.at")
        else:
            lines.append(f"  %{name} = load i64, ptr %{name}.at")
    return lines


def write(plan: Plan, layout: Layout, dtype: np.dtype[Any]) -> Module:
    """The module of a plan."""
    return Writer(plan, layout, dtype).write()
