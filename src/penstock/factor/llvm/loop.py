"""Copying in and out, and the loop that calls a plan's functions.

    run(context, ordinal, rows)

The context is an array of 64-bit words, `CONTEXT`; streams, chunks and universes differ in it, not in the code. Several
threads each have their own and take shares of the work: tiles of key blocks (of `lo` to `hi`) of what goes along time,
calls by stretches of rows of what needs whole rows. Between the two they wait until all shares are done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.factor.executor import gates
from penstock.factor.graph import Node
from penstock.factor.llvm.machine import Words
from penstock.factor.plan import Plan
from penstock.native.emit import I64, PTR, Code, Kind, Value

__all__ = ["CONTEXT", "Call", "Loop", "context", "named"]

CONTEXT = (
    "planes",
    "plane_rows",
    "plane_block",
    "state",
    "state_block",
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
    "parts",
    "side",
    "gate",
    "syscall",
    "function",
    "row",
)


STRETCH = 16
"""Rows that a call over keys is given at once: it keeps numbers of groups from row to row."""


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
        if name in ("planes", "state", "inputs", "outputs", "scratch", "gate"):
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
    functions: bool

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

    def _calls(self, groups: list[list[Call]]) -> str:
        """The table of calls over keys: a function's number, then the slots of its planes."""
        names: list[str] = []
        table: list[int] = []
        starts: list[int] = []
        for group in groups:
            for call in group:
                if call.cross:
                    if call.name not in names:
                        names.append(call.name)
                    starts.append(len(table))
                    table += [names.index(call.name), *(self.slots[number] for number in call.planes)]
        words = ", ".join(f"i64 {word}" for word in table) or "i64 0"
        code = Code()
        function, slots = (
            named(code, "%function"),
            "ptr %context, ptr %planes, ptr %scratch, i64 %from, i64 %to, ptr %slots",
        )
        for number, name in enumerate(names):
            with code.when(function == number):
                code.do(f"call void @{name}({slots})")
        text = [
            f"@calls = internal constant [{max(1, len(table))} x i64] [{words}]",
            "define internal void @cross(ptr %context, ptr %planes, ptr %scratch, i64 %from, i64 %to, i64 %at) #1 {",
            "start:",
            "  %first = getelementptr i64, ptr @calls, i64 %at",
            "  %function = load i64, ptr %first",
            "  %slots = getelementptr i64, ptr %first, i64 1",
            *code.lines,
            "  ret void",
            "}",
        ]
        at = ", ".join(f"i64 {start}" for start in starts) or "i64 0"
        text.append(f"@starts = internal constant [{max(1, len(starts))} x i64] [{at}]")
        return "\n".join(text)

    def _run(self) -> str:
        groups = [_ordered(group) for group in self._groups()]
        words = ("planes", "plane_rows", "plane_block", "tile", "scratch", "lo", "hi", "parts")

        def written(name: str, code: Code, result: Value | None) -> str:
            kind, last = ("void", "ret void") if result is None else ("i64", f"ret i64 {result.text}")
            head = (
                f"define internal {kind} @{name}(ptr %context, i64 %ordinal, i64 %rows, i64 %step, i64 %number) #1 {{"
            )
            body = [*code.sections["alloca"], *context(*words), *code.lines]
            return "\n".join([head, "start:", *body, f"  {last}", "}"])

        texts = [
            self._calls(groups),
            written("steps", *self._steps(groups)),
            written("shares", *self._shares(groups)),
            written("share", self._share(groups), None),
        ]
        return "\n".join([*gates(), *texts, _RUN.format(words="\n".join(context("parts", "side", "gate")))])

    def _chunk(self, code: Code, number: Value) -> tuple[Value, Value]:
        """First row and number of rows of a chunk."""
        rows, chunk = named(code, "%rows"), named(code, "%plane_rows")
        first = number * chunk
        return first, code.select(rows - first < chunk, rows - first, chunk)

    def _pieces_of(self, code: Code, whole: Value, size: Value | int) -> Value:
        by = code.like(I64, size)
        return code.put(I64, f"udiv i64 {(whole + by - 1).text}, {by.text}")

    def _steps(self, groups: list[list[Call]]) -> tuple[Code, Value]:
        """How many steps there are: each begins when all shares of the one before are done."""
        code = Code()
        chunks = self._pieces_of(code, named(code, "%rows"), named(code, "%plane_rows"))
        if not self.crosses:
            return code, code.intrinsic("smin", chunks, code.number(I64, 1))
        return code, chunks * len(groups)

    def _shares(self, groups: list[list[Call]]) -> tuple[Code, Value]:
        """How many shares a step has: tiles of keys, or calls over keys by stretches of rows."""
        code = Code()
        tiles = self._pieces_of(code, named(code, "%hi") - named(code, "%lo"), named(code, "%tile"))
        result = code.variable(I64, code.intrinsic("smax", tiles, code.number(I64, 1)))
        if self.crosses:
            step = named(code, "%step")
            chunk = code.put(I64, f"udiv i64 {step.text}, {len(groups)}")
            group = step - chunk * len(groups)
            stretches = self._pieces_of(code, self._chunk(code, chunk)[1], STRETCH)
            for number, calls in enumerate(groups):
                if calls and calls[0].cross:
                    with code.when(group == number):
                        # Who is alone takes all at once: in a tick, what is around a call takes as long as the call.
                        times = code.select(named(code, "%parts") == 1, code.number(I64, 1), len(calls))
                        result.set(stretches * times)
        return code, result.get()

    def _share(self, groups: list[list[Call]]) -> Code:
        """One share of a step."""
        code = Code()
        step, number, planes = named(code, "%step"), named(code, "%number"), named(code, "%planes.base", PTR)
        lo, hi, tile, stride = (named(code, f"%{name}") for name in ("lo", "hi", "tile", "plane_block"))

        def along(group: list[Call], first: Value, count: Value, base: Value) -> None:
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

        if not self.crosses:
            # A tile of keys at a time, over all rows: planes for one tile are enough, and they stay in the cache.
            base = code.at(planes, 0 - (lo + number * tile) * stride, 1)
            with code.loop(0, self._pieces_of(code, named(code, "%rows"), named(code, "%plane_rows"))) as chunks:
                along(groups[0], *self._chunk(code, chunks), base)
            return code
        chunk = code.put(I64, f"udiv i64 {step.text}, {len(groups)}")
        group = step - chunk * len(groups)
        first, count = self._chunk(code, chunk)
        stretches = self._pieces_of(code, count, STRETCH)
        before = 0
        for i, calls in enumerate(groups):
            with code.when(group == i):
                if not calls or not calls[0].cross:
                    along(calls, first, count, planes)
                    continue
                alone = named(code, "%parts") == 1
                call = code.put(I64, f"udiv i64 {number.text}, {stretches.text}")
                stretch = code.select(alone, number, number - call * stretches)
                begin = stretch * STRETCH
                end = code.select(begin + STRETCH < count, begin + STRETCH, count)
                if self.functions:  # NumPy's, which are told of which row they are called
                    place = code.at(named(code, "%context", PTR), CONTEXT.index("row"), I64)
                    code.store(named(code, "%ordinal") + first, place, 8)
                last = code.select(alone, code.number(I64, len(calls)), call + 1)
                with code.loop(code.select(alone, 0, call), last) as one:
                    at = code.load(I64, code.at(named(code, "@starts", PTR), one + before, I64), 8)
                    span = f"i64 {begin.text}, i64 {end.text}, i64 {at.text}"
                    code.do(f"call void @cross(ptr %context, ptr %planes.base, ptr %scratch.base, {span})")
                before += len(calls)
        return code


_CHEAP, _LONG = ("cs_count", "cs_sum"), "_codes"


def _ordered(calls: list[Call]) -> list[Call]:
    """Calls over keys with those of one kind side by side, long ones at both ends and short ones in the middle, where
    threads meet: then the last shares of a step are short.
    """
    if not calls or not calls[0].cross:
        return calls
    made = sorted(calls, key=lambda call: (call.name.endswith(_CHEAP), not call.name.endswith(_LONG), call.name))
    return made[::2] + made[1::2][::-1]


_RUN = """define void @run(ptr %context, i64 %ordinal, i64 %rows) #0 {{
start:
{words}
  %syscall = getelementptr i64, ptr %context, i64 SYSCALL
  %claim = getelementptr i64, ptr %gate.base, i64 8
  %done = getelementptr i64, ptr %gate.base, i64 16
  %steps = call i64 @steps(ptr %context, i64 %ordinal, i64 %rows, i64 0, i64 0)
  %alone = icmp eq i64 %parts, 1
  %last.first = icmp ne i64 %side, 0
  %one.more = select i1 %last.first, i64 1, i64 1048576
  br i1 %alone, label %step, label %look
step:
  %s = phi i64 [0, %start], [%s.next, %step.done]
  %s.more = icmp slt i64 %s, %steps
  br i1 %s.more, label %all, label %end
all:
  %all.shares = call i64 @shares(ptr %context, i64 %ordinal, i64 %rows, i64 %s, i64 0)
  br label %one
one:
  %i = phi i64 [0, %all], [%i.next, %one.body]
  %i.more = icmp slt i64 %i, %all.shares
  br i1 %i.more, label %one.body, label %step.done
one.body:
  call void @share(ptr %context, i64 %ordinal, i64 %rows, i64 %s, i64 %i)
  %i.next = add i64 %i, 1
  br label %one
step.done:
  %s.next = add i64 %s, 1
  br label %step
look:
  %seen = load atomic i32, ptr %gate.base acquire, align 4
  %word = load atomic i64, ptr %claim acquire, align 8
  %now = lshr i64 %word, 40
  %more = icmp ult i64 %now, %steps
  br i1 %more, label %within, label %end
within:
  %front.word = lshr i64 %word, 20
  %front = and i64 %front.word, 1048575
  %back = and i64 %word, 1048575
  %given = add i64 %front, %back
  %shares = call i64 @shares(ptr %context, i64 %ordinal, i64 %rows, i64 %now, i64 0)
  %left = icmp ult i64 %given, %shares
  br i1 %left, label %take, label %wait
take:
  %following = add i64 %word, %one.more
  %taken = cmpxchg ptr %claim, i64 %word, i64 %following acq_rel acquire, align 8
  %mine = extractvalue {{ i64, i1 }} %taken, 1
  br i1 %mine, label %work, label %look
work:
  %end.share = sub i64 %shares, 1
  %from.back = sub i64 %end.share, %back
  %next = select i1 %last.first, i64 %from.back, i64 %front
  call void @share(ptr %context, i64 %ordinal, i64 %rows, i64 %now, i64 %next)
  %before = atomicrmw add ptr %done, i64 1 acq_rel
  %so.far = add i64 %before, 1
  %last = icmp eq i64 %so.far, %shares
  br i1 %last, label %open, label %look
open:
  store atomic i64 0, ptr %done monotonic, align 8
  %then = add i64 %now, 1
  %begin = shl i64 %then, 40
  store atomic i64 %begin, ptr %claim release, align 8
  call void @gate_open(ptr %gate.base, ptr %syscall)
  br label %look
wait:
  call void @gate_wait(ptr %gate.base, i32 %seen, ptr %syscall)
  br label %look
end:
  ret void
}}""".replace("SYSCALL", str(CONTEXT.index("syscall")))
"""The loop over steps and shares: alone in order, else each thread claims the next share of the step that is under way.

Nobody waits for a thread that has not begun: who comes late finds the work done. Half of the threads (`side`) take
shares from the end, so that of two each has the same keys and calls in every step, and what it needs in its own cache.
The gate's further words are the step with how many shares of it were taken from either end (24, 20 and 20 bits), and
how many are done.
"""
