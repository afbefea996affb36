"""Copying in and out, and the loop that calls a plan's functions.

    run(context, ordinal, rows)

The context is an array of 64-bit words, `CONTEXT`; streams, chunks and universes differ in it, not in the code. Several
threads each have their own, with their key blocks (`lo` to `hi`) and the number of their `part`. Before and after
what needs whole rows they wait for each other; then rows are divided among them, or operators if rows are too few.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.factor.executor import gates
from penstock.factor.graph import Node
from penstock.factor.llvm.machine import Words
from penstock.factor.passes import Plan
from penstock.native.emit import I64, PTR, Code, Kind, Value

__all__ = ["CONTEXT", "Call", "Loop", "context", "named"]

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


@dataclass(frozen=True, slots=True)
class Call:
    """What the loop calls, in order; over keys with the numbers of the planes to use."""

    name: str
    cross: bool
    step: int
    planes: list[int]


def named(code: Code, name: str, of: Kind = I64) -> Value:
    """What the function's text calls so."""
    return Value(code, of, name)


def context(*names: str) -> list[str]:
    """Words of the context as values of their names; pointers as `name.base`."""
    lines = []
    for name in names:
        lines.append(f"  %{name}.at = getelementptr i64, ptr %context, i64 {CONTEXT.index(name)}")
        if name in ("planes", "state", "extra", "inputs", "outputs", "scratch", "gate"):
            lines.append(f"  %{name}.base = load ptr, ptr %{name}.at")
        else:
            lines.append(f"  %{name} = load i64, ptr %{name}.at")
    return lines


@dataclass(frozen=True, slots=True)
class Loop:
    """Text of `run` and of what copies in and out, for a plan's calls and the planes they use."""

    plan: Plan
    dtype: np.dtype[Any]
    lanes: int
    calls: list[Call]
    slots: dict[int, int]
    number: dict[Node, int]
    crosses: bool

    def texts(self) -> list[str]:
        """All functions and tables."""
        tables = [self._slots("input", self.plan.inputs), self._slots("output", self.plan.outputs)]
        return [*tables, self._copy_in(), self._copy_out(), self._run()]

    def _copier(self, what: str) -> tuple[Code, Words]:
        code = Code()
        code.sections["entry"] = [*context("plane_rows", "plane_block", "keys", what + "s", what + "_row")]
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
        arrays, step = named(code, f"%{what}s.base", PTR), named(code, f"%{what}_row")
        planes, stride = named(code, "%planes", PTR), named(code, "%plane_block")
        lo, hi, keys = named(code, "%lo"), named(code, "%hi"), named(code, "%keys")
        whole = code.put(I64, f"udiv i64 {keys.text}, {self.lanes}")
        rest = keys - whole * self.lanes
        full = code.select(hi < whole, hi, whole)
        with code.loop(0, len(nodes)) as i:
            array = code.load(PTR, code.at(arrays, i, I64), 8)
            slot = code.load(I64, code.at(named(code, f"@{what}_slots", PTR), i, I64), 8)
            plane = code.at(planes, named(code, "%plane_rows") * slot * 64, 1)
            with code.loop(0, named(code, "%rows")) as row:
                here = code.at(array, (named(code, "%first") + row) * step, 1)
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
        lo, hi, rows = named(code, "%lo"), named(code, "%hi"), named(code, "%rows")
        chunk, tile, stride = named(code, "%plane_rows"), named(code, "%tile"), named(code, "%plane_block")
        part, parts, planes = named(code, "%part"), named(code, "%parts"), named(code, "%planes.base", PTR)
        groups = self._groups()

        def pieces(whole: Value, size: Value) -> Any:
            return code.loop(0, code.put(I64, f"udiv i64 {(whole + size - 1).text}, {size.text}"))

        def along(group: list[Call], first: Value, count: Value, base: Value, number: Value) -> None:
            """One tile of keys through functions along time."""
            a = lo + number * tile
            b = code.select(a + tile < hi, a + tile, hi)
            area, span = f"ptr %context, ptr {base.text}", f"i64 {count.text}, i64 {a.text}, i64 {b.text}"
            ordinal = named(code, "%ordinal") + first
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

        if not self.crosses:
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
            *context(*words),
            *code.lines,
            "  ret void",
            "}",
        ]
        return "\n".join([*gates(), _MEET.format(words="\n".join(context("parts", "gate"))), *run])


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
