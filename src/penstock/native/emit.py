"""Instructions in LLVM's text form: values that overload operators, loops, branches, variables.

A function is written into sections that end up one after the other, so that what a loop body turns out to need
(a counter, a cell in a register) can still be set up before it: `entry`, once per call; `block`, once per key block;
`body`, once per row; `after`, once per row after the body; `end`, once per key block after its rows.

Text, because building it takes a tenth of the time of an object per instruction, and it is what the cache hashes.
Nothing here permits the optimizer to regroup, contract or assume anything about floats.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np

__all__ = ["BOOL", "I32", "I64", "PTR", "Code", "Kind", "Value", "Variable", "kind", "module"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A type: `lanes` values of `base` side by side; 0 lanes for a single one."""

    base: str
    lanes: int
    text: str
    size: int

    @property
    def is_float(self) -> bool:
        return self.base in ("float", "double")

    def of(self, lanes: int) -> Kind:
        return kind(self.base, lanes)

    def to(self, base: str) -> Kind:
        return kind(base, self.lanes)


_BITS = {"float": 32, "double": 64, "i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64, "i128": 128, "ptr": 64}


def kind(base: str, lanes: int = 0) -> Kind:
    """The type of that description; always the same object."""
    return _kind(base, lanes)


@cache
def _kind(base: str, lanes: int) -> Kind:
    text = f"<{lanes} x {base}>" if lanes else base
    return Kind(base, lanes, text, _BITS[base] * max(1, lanes) // 8)


BOOL, I32, I64, PTR = kind("i1"), kind("i32"), kind("i64"), kind("ptr")

Operand: TypeAlias = "Value | float | int | bool | np.floating[Any]"
_INTEGER = {"fadd": "add", "fsub": "sub", "fmul": "mul", "fdiv": "udiv"}
_ORDER = {"olt": "slt", "ole": "sle", "ogt": "sgt", "oge": "sge", "oeq": "eq", "une": "ne"}


class Value:
    """A register or constant of the code being written."""

    __slots__ = ("code", "kind", "text")
    __hash__ = None  # type: ignore[assignment]
    __array_ufunc__ = None

    def __init__(self, code: Code, kind: Kind, text: str) -> None:
        self.code = code
        self.kind = kind
        self.text = text

    def __add__(self, other: Operand) -> Value:
        return self.code.arithmetic("fadd", self, other)

    def __radd__(self, other: Operand) -> Value:
        return self.code.arithmetic("fadd", other, self)

    def __sub__(self, other: Operand) -> Value:
        return self.code.arithmetic("fsub", self, other)

    def __rsub__(self, other: Operand) -> Value:
        return self.code.arithmetic("fsub", other, self)

    def __mul__(self, other: Operand) -> Value:
        return self.code.arithmetic("fmul", self, other)

    def __rmul__(self, other: Operand) -> Value:
        return self.code.arithmetic("fmul", other, self)

    def __truediv__(self, other: Operand) -> Value:
        return self.code.arithmetic("fdiv", self, other)

    def __rtruediv__(self, other: Operand) -> Value:
        return self.code.arithmetic("fdiv", other, self)

    def __neg__(self) -> Value:
        return self.code.put(self.kind, f"fneg {self.kind.text} {self.text}")

    def __lt__(self, other: Operand) -> Value:
        return self.code.compare("olt", self, other)

    def __le__(self, other: Operand) -> Value:
        return self.code.compare("ole", self, other)

    def __gt__(self, other: Operand) -> Value:
        return self.code.compare("ogt", self, other)

    def __ge__(self, other: Operand) -> Value:
        return self.code.compare("oge", self, other)

    def __eq__(self, other: object) -> Value:  # type: ignore[override]
        return self.code.compare("oeq", self, other)  # type: ignore[arg-type]

    def __ne__(self, other: object) -> Value:  # type: ignore[override]
        return self.code.compare("une", self, other)  # type: ignore[arg-type]

    def __and__(self, other: Operand) -> Value:
        return self.code.bits("and", self, other)

    def __or__(self, other: Operand) -> Value:
        return self.code.bits("or", self, other)

    def __xor__(self, other: Operand) -> Value:
        return self.code.bits("xor", self, other)

    def __lshift__(self, other: Operand) -> Value:
        return self.code.bits("shl", self, other)

    def __rshift__(self, other: Operand) -> Value:
        """Zeros come in from above."""
        return self.code.bits("lshr", self, other)

    def __invert__(self) -> Value:
        return self.code.bits("xor", self, True if self.kind.base == "i1" else -1)

    def __bool__(self) -> bool:
        raise TypeError("a value of compiled code is not known while it is written; use m.where")


class Variable:
    """A place that loops may change; the optimizer makes it a register."""

    __slots__ = ("code", "kind", "place")

    def __init__(self, code: Code, kind: Kind, place: str) -> None:
        self.code = code
        self.kind = kind
        self.place = place

    def get(self) -> Value:
        return self.code.put(self.kind, f"load {self.kind.text}, ptr {self.place}")

    def set(self, value: Operand) -> None:
        made = self.code.like(self.kind, value)
        self.code.do(f"store {self.kind.text} {made.text}, ptr {self.place}")


class Code:
    """One function while it is written."""

    SECTIONS = ("entry", "block", "body", "after", "end")

    def __init__(self) -> None:
        self.sections: dict[str, list[str]] = {name: [] for name in ("alloca", *self.SECTIONS)}
        self.lines = self.sections["body"]
        self.count = 0
        self.label = "start"
        self.needs: set[str] = set()

    # ---- writing ----

    @contextmanager
    def into(self, section: str) -> Iterator[None]:
        """Write straight-line instructions into another section."""
        before = self.lines
        self.lines = self.sections[section]
        try:
            yield
        finally:
            self.lines = before

    def name(self) -> str:
        self.count += 1
        return f"%v{self.count}"

    def put(self, kind: Kind, text: str) -> Value:
        """An instruction that gives a value."""
        name = self.name()
        self.lines.append(f"  {name} = {text}")
        return Value(self, kind, name)

    def do(self, text: str) -> None:
        """An instruction that gives none."""
        self.lines.append(f"  {text}")

    def begin(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.label = label

    def function(self, result: str, name: str, parameters: str, returned: str = "void") -> str:
        """The text of a whole function without key blocks: what was written into `body`, and `ret`."""
        head = f"define {result} @{name}({parameters}) #0 {{\nstart:"
        return "\n".join([head, *self.sections["alloca"], *self.sections["body"], f"  ret {returned}", "}"])

    # ---- constants and conversions ----

    def number(self, kind: Kind, value: float | int | bool | np.floating[Any]) -> Value:
        """A constant; floats are rounded to the type first."""
        if kind.is_float:
            exact = ctypes.c_float(float(value)).value if kind.base == "float" else float(value)
            if exact != exact:
                exact = float("nan")
            text = f"0x{struct.unpack('<Q', struct.pack('<d', exact))[0]:016X}"
        elif kind.base == "i1":
            text = "true" if value else "false"
        else:
            text = str(int(value))
        return Value(self, kind, f"splat ({kind.base} {text})" if kind.lanes else text)

    def like(self, kind: Kind, value: Operand) -> Value:
        """`value` as that type: constants made, single values spread over the lanes."""
        if not isinstance(value, Value):
            return self.number(kind, value)
        if value.kind is kind:
            return value
        if value.kind.base != kind.base or value.kind.lanes:
            raise TypeError(f"expected {kind.text}, got {value.kind.text}")
        if not value.text.startswith("%"):
            return Value(self, kind, f"splat ({kind.base} {value.text})")
        one = self.put(kind, f"insertelement {kind.text} poison, {kind.base} {value.text}, i64 0")
        zeros = f"<{kind.lanes} x i32> zeroinitializer"
        return self.put(kind, f"shufflevector {kind.text} {one.text}, {kind.text} poison, {zeros}")

    def pair(self, x: Operand, y: Operand) -> tuple[Value, Value]:
        """Both as the wider of their types."""
        if not isinstance(x, Value):
            wide = y.kind  # type: ignore[union-attr]
        elif not isinstance(y, Value) or x.kind.lanes >= y.kind.lanes:
            wide = x.kind
        else:
            wide = y.kind
        return self.like(wide, x), self.like(wide, y)

    def cast(self, how: str, x: Value, base: str) -> Value:
        """A conversion instruction: fptrunc, fpext, sitofp, zext, trunc, bitcast, …"""
        to = x.kind.to(base)
        return self.put(to, f"{how} {x.kind.text} {x.text} to {to.text}")

    # ---- arithmetic ----

    def arithmetic(self, name: str, x: Operand, y: Operand) -> Value:
        a, b = self.pair(x, y)
        if not a.kind.is_float:
            name = _INTEGER[name]
        return self.put(a.kind, f"{name} {a.kind.text} {a.text}, {b.text}")

    def bits(self, name: str, x: Operand, y: Operand) -> Value:
        a, b = self.pair(x, y)
        return self.put(a.kind, f"{name} {a.kind.text} {a.text}, {b.text}")

    def compare(self, name: str, x: Operand, y: Operand) -> Value:
        a, b = self.pair(x, y)
        if a.kind.is_float:
            return self.put(a.kind.to("i1"), f"fcmp {name} {a.kind.text} {a.text}, {b.text}")
        return self.put(a.kind.to("i1"), f"icmp {_ORDER.get(name, name)} {a.kind.text} {a.text}, {b.text}")

    def select(self, mask: Value, x: Operand, y: Operand) -> Value:
        """Choose x where the mask holds, else y."""
        a, b = self.pair(x, y)
        if mask.kind.lanes and not a.kind.lanes:
            a, b = self.like(a.kind.of(mask.kind.lanes), a), self.like(b.kind.of(mask.kind.lanes), b)
        return self.put(a.kind, f"select {mask.kind.text} {mask.text}, {a.kind.text} {a.text}, {b.kind.text} {b.text}")

    def call(self, result: Kind, name: str, *args: Value) -> Value:
        """A call of an intrinsic or of a function of this module."""
        given = ", ".join(f"{a.kind.text} {a.text}" for a in args)
        if name.startswith("llvm."):
            self.needs.add(f"declare {result.text} @{name}({', '.join(a.kind.text for a in args)})")
        return self.put(result, f"call {result.text} @{name}({given})")

    def intrinsic(self, name: str, *args: Value) -> Value:
        """An intrinsic that is named after its operand's type and returns it."""
        made = args[0].kind
        short = {"float": "f32", "double": "f64"}.get(made.base, made.base)
        suffix = f"v{made.lanes}{short}" if made.lanes else short
        return self.call(made, f"llvm.{name}.{suffix}", *args)

    def reduce(self, name: str, x: Value) -> Value:
        """One value of all lanes: fmax, umin, add, …"""
        short = {"float": "f32", "double": "f64"}.get(x.kind.base, x.kind.base)
        start = [self.number(x.kind.of(0), -0.0)] if name == "fadd" else []
        return self.call(x.kind.of(0), f"llvm.vector.reduce.{name}.v{x.kind.lanes}{short}", *start, x)

    # ---- memory ----

    def at(self, base: Value, index: Operand, unit: Kind | int) -> Value:
        """The address `index` units (a type, or a number of bytes) after `base`."""
        step = f"[{unit} x i8]" if isinstance(unit, int) else unit.text
        i = self.like(I64, index)
        return self.put(PTR, f"getelementptr {step}, ptr {base.text}, i64 {i.text}")

    def load(self, kind: Kind, place: Value, align: int = 0) -> Value:
        how = f", align {align}" if align else ""
        return self.put(kind, f"load {kind.text}, ptr {place.text}{how}")

    def store(self, value: Value, place: Value, align: int = 0) -> None:
        how = f", align {align}" if align else ""
        self.do(f"store {value.kind.text} {value.text}, ptr {place.text}{how}")

    def variable(self, kind: Kind, start: Operand | None = None) -> Variable:
        place = self.name()
        self.sections["alloca"].append(f"  {place} = alloca {kind.text}, align {max(1, kind.size)}")
        made = Variable(self, kind, place)
        if start is not None:
            made.set(start)
        return made

    # ---- control ----

    @contextmanager
    def loop(self, start: Operand, stop: Operand, step: int = 1) -> Iterator[Value]:
        """Count from start while below (above, for a negative step) stop."""
        self.count += 1
        head, body, latch, done = (f"{part}{self.count}" for part in ("head", "body", "next", "done"))
        first, last, here = self.like(I64, start), self.like(I64, stop), self.label
        self.do(f"br label %{head}")
        self.begin(head)
        index, follow = self.name(), self.name()
        self.do(f"{index} = phi i64 [{first.text}, %{here}], [{follow}, %{latch}]")
        more = self.put(BOOL, f"icmp {'slt' if step > 0 else 'sgt'} i64 {index}, {last.text}")
        self.do(f"br i1 {more.text}, label %{body}, label %{done}")
        self.begin(body)
        yield Value(self, I64, index)
        self.do(f"br label %{latch}")
        self.begin(latch)
        self.do(f"{follow} = add nsw i64 {index}, {step}")
        self.do(f"br label %{head}")
        self.begin(done)

    @contextmanager
    def while_(self) -> Iterator[str]:
        """Repeat until `leave(label, condition)`, with the label given here, was true."""
        self.count += 1
        body, done = f"again{self.count}", f"left{self.count}"
        self.do(f"br label %{body}")
        self.begin(body)
        yield done
        self.do(f"br label %{body}")
        self.begin(done)

    def leave(self, label: str, when: Value) -> None:
        self.count += 1
        self.do(f"br i1 {when.text}, label %{label}, label %stay{self.count}")
        self.begin(f"stay{self.count}")

    @contextmanager
    def when(self, condition: Value, seldom: bool = False) -> Iterator[None]:
        """Only if a single condition holds; values made inside are not to be used outside."""
        self.count += 1
        then, done = f"then{self.count}", f"fi{self.count}"
        weight = ", !prof !0" if seldom else ""
        self.do(f"br i1 {condition.text}, label %{then}, label %{done}{weight}")
        self.begin(then)
        yield
        self.do(f"br label %{done}")
        self.begin(done)

    def sweep(self, count: Operand, lanes: int, body: Callable[[Value, int], None]) -> None:
        """Count from 0 to `count`, which is at least 0: `body(index, lanes)` for `lanes` values at a time, then
        `body(index, 0)` for each that is left.
        """
        n = self.like(I64, count)
        whole = n & -lanes
        with self.loop(0, whole, lanes) as index:
            body(index, lanes)
        with self.loop(whole, n) as index:
            body(index, 0)


def module(*codes: tuple[Code, str]) -> str:
    """The text of a module of functions: each the code it was written with, and its text."""
    needs = sorted(set().union(*(code.needs for code, _ in codes)))
    rest = ['!0 = !{!"branch_weights", i32 1, i32 2000}', 'attributes #0 = { nounwind "no-builtins" }']
    return "\n".join([*needs, *(text for _, text in codes), *rest, ""])
