"""What needs a whole row of keys, as functions of compiled code.

A row is given by the address of its first key block, the bytes from block to block, and the number of keys; the lanes
of the last block beyond them hold anything and are never looked at. Each function is written once per program that
calls it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from penstock.factor.emit import BOOL, I32, I64, PTR, Code, Value, Variable, kind

__all__ = ["COUNTED", "Kernels", "scratch_bytes"]

COUNTED = 192
"""Rows of up to this many keys are ranked by comparing all pairs: n² / lanes comparisons, no histograms."""

_HEADER = 128
_DOUBLE = kind("double")


def scratch_bytes(keys: int, lanes: int) -> int:
    """Room that the functions here need beside the planes."""
    padded = -(-keys // lanes) * lanes
    groups = 4 * (1 << max(4, (2 * padded - 1).bit_length())) + padded * 8 * 8
    return _HEADER + max(4 * 8 * padded + 3 * 2048 * 4, groups) + 1024


@dataclass
class Kernels:
    """The functions that a module needs, by name; asking for a name makes it."""

    dtype: np.dtype[Any]
    lanes: int
    texts: dict[str, str] = field(default_factory=dict)
    needs: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.number = kind("float" if self.dtype == np.float32 else "double")
        self.block = self.number.of(self.lanes)
        self.whole = kind("i32" if self.dtype == np.float32 else "i64")
        self.bits = 8 * self.number.size

    def need(self, name: str) -> str:
        """`name`, once the function of that name is written."""
        if name not in self.texts:
            self.texts[name] = ""
            writer: Callable[[], str] = getattr(self, f"_{name}")
            self.texts[name] = writer()
        return name

    # ---- pieces ----

    def _function(self, name: str, result: str, parameters: str, code: Code, returns: str) -> str:
        self.needs |= code.needs
        lines = [*code.sections["alloca"], *code.sections["body"], f"  ret {returns}"]
        head = f"define internal {result} @{name}({parameters}) #1 {{\nstart:"
        return "\n".join([head, *lines, "}"])

    def _blocks(self, code: Code) -> Value:
        keys = Value(code, I64, "%keys")
        return code.put(I64, f"udiv i64 {(keys + (self.lanes - 1)).text}, {self.lanes}")

    def _row(self, code: Code, block: Value, name: str = "x") -> Value:
        base, stride = Value(code, PTR, f"%{name}"), Value(code, I64, "%stride")
        return code.at(base, block * stride, 1)

    def _load(self, code: Code, block: Value, name: str = "x") -> Value:
        return code.load(self.block, self._row(code, block, name), self.block.size)

    def _inside(self, code: Code, block: Value) -> Value:
        """A mask: the lanes that are keys."""
        keys = Value(code, I64, "%keys")
        left = code.cast("trunc", keys - block * self.lanes, "i32")
        wide = kind("i32", self.lanes)
        number = ", ".join(f"i32 {i}" for i in range(self.lanes))
        return code.compare("olt", Value(code, wide, f"<{number}>"), code.like(wide, left))

    def _present(self, code: Code, x: Value, block: Value) -> Value:
        return code.compare("ord", x, x) & self._inside(code, block)

    def _counted(self, code: Code, mask: Value) -> Value:
        bits = code.put(kind(f"i{self.lanes}"), f"bitcast {mask.kind.text} {mask.text} to i{self.lanes}")
        return code.cast("zext", code.intrinsic("ctpop", bits), "i64")

    def _image(self, code: Code, x: Value) -> Value:
        """Unsigned whole numbers in the order of the floats, -0 as 0; NaN is the largest."""
        whole = code.cast("bitcast", x + 0.0, self.whole.base)
        sign = code.bits("ashr", whole, self.bits - 1)
        image = whole ^ (sign | (-(2 ** (self.bits - 1))))
        return code.select(code.compare("ord", x, x), image, -1)

    def _unimage(self, code: Code, image: Value) -> Value:
        sign = code.bits("ashr", image, self.bits - 1)
        return code.cast("bitcast", image ^ (~sign | (-(2 ** (self.bits - 1)))), self.number.base)

    @contextmanager
    def _keys(self, code: Code) -> Iterator[tuple[Value, Callable[[str], Value]]]:
        """Key after key: its number, and a function from a row's name to its address there."""
        keys = Value(code, I64, "%keys")
        with code.loop(0, self._blocks(code)) as block:
            left = keys - block * self.lanes
            with code.loop(0, code.select(left < self.lanes, left, self.lanes)) as lane:
                yield (
                    block * self.lanes + lane,
                    lambda name: code.at(self._row(code, block, name), lane, self.number),
                )

    def _cut(self, code: Code, largest: Value, count: Value) -> tuple[Value, Value, Value]:
        """`reproducible._cut`: scale and the two cutting constants."""
        small = largest < 2.0**-1022
        bits = code.cast("bitcast", code.select(small, largest * 2.0**54, largest), "i64")
        exponent = ((bits >> 52) & 0x7FF) - 1022 - code.select(small, code.number(I64, 54), 0)
        exponent = code.select(largest == 0.0, 0, exponent)
        zeros = code.call(I64, "llvm.ctlz.i64", count, code.number(BOOL, False))
        room = 64 - zeros
        big = exponent > 900
        exponent = exponent - code.select(big, code.number(I64, 128), 0)
        scale = code.select(big, code.number(_DOUBLE, 2.0**-128), 1.0)
        top = exponent + room

        def lifted(power: Value) -> Value:
            half = code.bits("ashr", power, 1)
            one, two = (code.cast("bitcast", (p + 1023) << 52, "double") for p in (half, power - half))
            return one * 1.5 * two

        return scale, lifted(top), lifted(top - 53 + room)

    # ---- counts and sums ----

    def _row_count(self) -> str:
        code = Code()
        total = code.variable(I64, 0)
        with code.loop(0, self._blocks(code)) as block:
            mask = self._present(code, self._load(code, block), block)
            total.set(total.get() + self._counted(code, mask))
        made = code.cast("sitofp", total.get(), self.number.base)
        return self._function(
            "row_count", self.number.text, "ptr %x, i64 %stride, i64 %keys", code, f"{self.number.text} {made.text}"
        )

    def _row_sum(self) -> str:
        code = Code()
        blocks = self._blocks(code)
        total, most = code.variable(I64, 0), code.variable(self.block, 0.0)
        with code.loop(0, blocks) as block:
            x = self._load(code, block)
            mask = self._present(code, x, block)
            total.set(total.get() + self._counted(code, mask))
            size = code.select(mask, code.intrinsic("fabs", x), 0.0)
            most.set(code.select(size > most.get(), size, most.get()))
        largest = code.reduce("fmax", most.get())
        if largest.kind is not _DOUBLE:
            largest = code.cast("fpext", largest, "double")
        infinite = largest == math.inf
        result = code.variable(_DOUBLE, 0.0)
        wide = kind("double", self.lanes)
        with code.when(~infinite):
            scale, first, second = self._cut(code, largest, total.get())
            high, low = code.variable(wide, 0.0), code.variable(wide, 0.0)
            with code.loop(0, blocks) as block:
                x = self._load(code, block)
                x = code.select(self._present(code, x, block), x, 0.0)
                x = (code.cast("fpext", x, "double") if x.kind.base == "float" else x) * scale
                piece = (x + first) - first
                high.set(high.get() + piece)
                low.set(low.get() + (((x - piece) + second) - second))
            # Exact sums: any order of lanes gives the same.
            result.set((code.reduce("fadd", high.get()) + code.reduce("fadd", low.get())) / scale)
        with code.when(infinite, seldom=True):
            signs = code.variable(self.block, 0.0)
            with code.loop(0, blocks) as block:
                x = self._load(code, block)
                mask = self._present(code, x, block) & (code.intrinsic("fabs", x) == math.inf)
                signs.set(signs.get() + code.select(mask, x, 0.0))
            plain = code.reduce("fadd", signs.get())
            result.set(code.cast("fpext", plain, "double") if plain.kind is not _DOUBLE else plain)
        made = result.get()
        if self.number is not _DOUBLE:
            made = code.cast("fptrunc", made, "float")
        return self._function(
            "row_sum", self.number.text, "ptr %x, i64 %stride, i64 %keys", code, f"{self.number.text} {made.text}"
        )

    # ---- order ----

    def _areas(self, code: Code) -> dict[str, Value]:
        """Parts of the scratch: entries twice, whole images of float64, a row, histograms."""
        n = self._blocks(code) * self.lanes
        places, at = {}, code.at(Value(code, PTR, "%scratch"), _HEADER, 1)
        for name in ("entries", "others", "images", "row", "counts"):
            places[name], at = at, code.at(at, n, I64)
        return places

    def _row_sort(self) -> str:
        """The address of the sorted entries: 32 bits that order a key above its number; how many at %scratch.

        What orders a key is its image's distance from the row's smallest, so that digits are cut where keys differ:
        three of them are enough. Of a float64 only the upper bits of it; keys that agree in these are settled after.
        Keys that are missing come last and are not counted.
        """
        code = Code()
        areas, blocks, double = self._areas(code), self._blocks(code), self.bits == 64
        images, entry = kind(self.whole.base, self.lanes), kind("i64", self.lanes)
        held = code.variable(I64, 0)
        least, most = code.variable(images, -1), code.variable(images, 0)
        with code.loop(0, blocks) as block:
            x = self._load(code, block)
            mask = self._present(code, x, block)
            held.set(held.get() + self._counted(code, mask))
            image = code.select(mask, self._image(code, x), -1)
            code.store(image, code.at(areas["images"], block, images), 64)
            least.set(code.intrinsic("umin", least.get(), image))
            most.set(code.intrinsic("umax", most.get(), code.select(mask, image, 0)))
        count = held.get()
        code.store(count, Value(code, PTR, "%scratch"), 8)
        low, high = code.reduce("umin", least.get()), code.reduce("umax", most.get())
        span = code.select(count > 0, high - low, 0)
        span = span if double else code.cast("zext", span, "i64")
        if double:
            length = 64 - self._zeros(code, span)
            shift = code.intrinsic("smax", length - 27, code.number(I64, 0))
            span = span >> shift
        last = span + 1
        number = Value(code, entry, "<" + ", ".join(f"i64 {i}" for i in range(self.lanes)) + ">")
        with code.loop(0, blocks) as block:
            image = code.load(images, code.at(areas["images"], block, images), 64)
            above = image - low
            above = (above >> shift) if double else code.cast("zext", above, "i64")
            above = code.select(image == -1, last, above)
            code.store((above << 32) | (number + block * self.lanes), code.at(areas["entries"], block, entry), 64)
        bits = code.put(I64, f"udiv i64 {(66 - self._zeros(code, last)).text}, 3")
        found = code.variable(PTR, self._by_words(code, areas, areas["entries"], areas["others"], bits))
        if double:
            self.need("settle")
            args = f"ptr {found.get().text}, ptr {areas['images'].text}, i64 {count.text}"
            settled = code.put(BOOL, f"call i1 @settle({args})")
            with code.when(~settled, seldom=True):
                self._by_halves(code, areas, found)
        parameters = "ptr %x, i64 %stride, i64 %keys, ptr %scratch"
        return self._function("row_sort", "ptr", parameters, code, f"ptr {found.get().text}")

    def _zeros(self, code: Code, x: Value) -> Value:
        return code.call(I64, "llvm.ctlz.i64", x, code.number(BOOL, False))

    def _by_words(self, code: Code, areas: dict[str, Value], source: Value, other: Value, bits: Value) -> Value:
        n = self._blocks(code) * self.lanes
        self.need("words")
        args = f"ptr {source.text}, ptr {other.text}, ptr {areas['counts'].text}, i64 {n.text}, i64 {bits.text}"
        return code.put(PTR, f"call ptr @words({args})")

    def _by_halves(self, code: Code, areas: dict[str, Value], found: Variable) -> None:
        """All of it again, by the lower halves first: the sort keeps what is equal in order."""
        n = self._blocks(code) * self.lanes
        eleven = code.number(I64, 11)
        with code.loop(0, n) as i:
            low = code.load(I64, code.at(areas["images"], i, I64), 8) << 32
            code.store(low | i, code.at(areas["entries"], i, I64), 8)
        half = self._by_words(code, areas, areas["entries"], areas["others"], eleven)
        with code.loop(0, n) as i:
            place = code.at(half, i, I64)
            key = code.load(I64, place, 8) & 0xFFFFFFFF
            high = code.load(I64, code.at(areas["images"], key, I64), 8) & -(1 << 32)
            code.store(high | key, place, 8)
        first = code.put(BOOL, f"icmp eq ptr {half.text}, {areas['entries'].text}")
        other = code.select(first, areas["others"], areas["entries"])
        found.set(self._by_words(code, areas, half, other, eleven))

    def _words(self) -> str:
        """Radix sort of n entries by their upper half: three digits, least first; one that all share is passed over."""
        code = Code()
        counts, n, bits = Value(code, PTR, "%counts"), Value(code, I64, "%n"), Value(code, I64, "%bits")
        source = code.variable(PTR, Value(code, PTR, "%entries"))
        target = code.variable(PTR, Value(code, PTR, "%others"))
        zero = kind("i32", 8)
        size = code.number(I64, 1) << bits
        size = code.select(size < 16, 16, size)
        mask = (code.number(I64, 1) << bits) - 1
        tables = [counts, code.at(counts, size, I32), code.at(counts, size * 2, I32)]
        shifts = [code.number(I64, 32), bits + 32, bits * 2 + 32]
        with code.loop(0, code.put(I64, f"udiv i64 {(size * 3).text}, 8")) as i:
            code.store(code.number(zero, 0), code.at(counts, i, zero), 4)

        def slot(entry: Value, p: int) -> Value:
            return code.at(tables[p], (entry >> shifts[p]) & mask, I32)

        entries = source.get()
        with code.loop(0, n) as i:
            entry = code.load(I64, code.at(entries, i, I64), 8)
            for p in range(3):
                place = slot(entry, p)
                code.store(code.load(I32, place) + 1, place)
        for p in range(3):
            shared = code.cast("zext", code.load(I32, slot(code.load(I64, source.get(), 8), p)), "i64") == n
            with code.when(~shared):
                self._positions(code, tables[p], size)
                come, go = source.get(), target.get()
                with code.loop(0, n) as i:
                    entry = code.load(I64, code.at(come, i, I64), 8)
                    place = slot(entry, p)
                    to = code.load(I32, place)
                    code.store(to + 1, place)
                    code.store(entry, code.at(go, code.cast("zext", to, "i64"), I64), 8)
                source.set(go)
                target.set(come)
        parameters = "ptr %entries, ptr %others, ptr %counts, i64 %n, i64 %bits"
        return self._function("words", "ptr", parameters, code, f"ptr {source.get().text}")

    def _positions(self, code: Code, table: Value, size: Value) -> None:
        """Counts become the number of entries before them, 16 at a time."""
        row = kind("i32", 16)
        before = code.variable(row, 0)
        with code.loop(0, size >> 4) as i:
            place = code.at(table, i, row)
            counts = total = code.load(row, place, 4)
            for step in (1, 2, 4, 8):
                total = total + self._shuffled(code, total, [i - step if i >= step else 16 for i in range(16)])
            upto = total + before.get()
            code.store(upto - counts, place, 4)
            before.set(self._shuffled(code, upto, [15] * 16))

    def _shuffled(self, code: Code, x: Value, lanes: list[int]) -> Value:
        """The lanes of x in that order; 16 for a zero."""
        order = ", ".join(f"i32 {i}" for i in lanes)
        return code.put(
            x.kind, f"shufflevector {x.kind.text} {x.text}, {x.kind.text} zeroinitializer, <16 x i32> <{order}>"
        )

    def _settle(self) -> str:
        """Sort entries of equal upper halves by their whole images; false if there are too many of them for that."""
        code = Code()
        entries, images = Value(code, PTR, "%entries"), Value(code, PTR, "%images")
        count = Value(code, I64, "%count")
        good = code.variable(BOOL, True)

        def entry(at: Value) -> Value:
            return code.load(I64, code.at(entries, at, I64), 8)

        def image(e: Value) -> Value:
            return code.load(I64, code.at(images, e & 0xFFFFFFFF, I64), 8)

        i = code.variable(I64, 1)
        first = code.variable(I64, 0)
        with code.while_() as done:
            at = i.get()
            code.leave(done, at >= count)
            mine = entry(at)
            equal = (mine >> 32) == (entry(at - 1) >> 32)
            with code.when(~equal):
                first.set(at)
            with code.when(equal):
                # Put in its place among the equal ones before it; equal images stay where they are.
                own = image(mine)
                j = code.variable(I64, at)
                with code.while_() as found:
                    code.leave(found, j.get() <= first.get())
                    before = entry(j.get() - 1)
                    code.leave(found, code.compare("ule", image(before), own))
                    code.store(before, code.at(entries, j.get(), I64), 8)
                    j.set(j.get() - 1)
                code.store(mine, code.at(entries, j.get(), I64), 8)
                good.set(good.get() & ((at - j.get()) < 32))
                code.leave(done, ~good.get())
            i.set(at + 1)
        return self._function("settle", "i1", "ptr %entries, ptr %images, i64 %count", code, f"i1 {good.get().text}")

    def _row_order(self) -> str:
        code = Code()
        keys = Value(code, I64, "%keys")
        few = keys <= COUNTED
        parameters = "ptr %x, i64 %stride, i64 %keys, ptr %scratch, ptr %to"
        args = parameters
        for name, condition in (("order_pairs", few), ("order_sorted", ~few)):
            self.need(name)
            with code.when(condition):
                code.do(f"call void @{name}({args})")
        return self._function("row_order", "void", parameters, code, "void")

    def _order_pairs(self) -> str:
        code = Code()
        keys, scratch = Value(code, I64, "%keys"), Value(code, PTR, "%scratch")
        blocks = self._blocks(code)
        with code.loop(0, blocks) as block:
            code.store(self._load(code, block), code.at(scratch, block, self.block), 8)
        wide = kind(self.whole.base, self.lanes)
        with code.loop(0, blocks) as block:
            x = self._load(code, block)
            seen = code.variable(wide, 0)
            with code.loop(0, keys) as j:
                other = code.like(self.block, code.load(self.number, code.at(scratch, j, self.number)))
                below = code.cast("sext", other < x, self.whole.base)
                upto = code.cast("sext", other <= x, self.whole.base)
                seen.set(seen.get() - below - upto)
            place = (code.cast("sitofp", seen.get(), self.number.base) - 1.0) * 0.5 + 1.0
            made = code.select(code.compare("ord", x, x), place, math.nan)
            code.store(made, self._row(code, block, "to"), self.block.size)
        return self._function(
            "order_pairs", "void", "ptr %x, i64 %stride, i64 %keys, ptr %scratch, ptr %to", code, "void"
        )

    def _order_sorted(self) -> str:
        code = Code()
        self.need("row_sort")
        areas = self._areas(code)
        found = code.put(PTR, "call ptr @row_sort(ptr %x, i64 %stride, i64 %keys, ptr %scratch)")
        count = code.load(I64, Value(code, PTR, "%scratch"), 8)
        blocks = self._blocks(code)
        with code.loop(0, blocks) as block:
            code.store(code.number(self.block, math.nan), code.at(areas["row"], block, self.block), self.block.size)

        def entry(at: Value) -> Value:
            return code.load(I64, code.at(found, at, I64), 8)

        def image(e: Value) -> Value:
            return code.load(I64, code.at(areas["images"], e & 0xFFFFFFFF, I64), 8)

        def give(e: Value, place: Value) -> None:
            code.store(place, code.at(areas["row"], e & 0xFFFFFFFF, self.number))

        i = code.variable(I64, 0)
        with code.while_() as done:
            first = i.get()
            code.leave(done, first >= count)
            mine = entry(first)
            j = code.variable(I64, first + 1)
            with code.while_() as ended:
                code.leave(ended, j.get() >= count)
                other = entry(j.get())
                code.leave(ended, (other >> 32) != (mine >> 32))
                if self.bits == 64:
                    code.leave(ended, image(other) != image(mine))
                j.set(j.get() + 1)
            stop = j.get()
            middle = code.cast("sitofp", first + stop - 1, "double") * 0.5 + 1.0
            place = code.cast("fptrunc", middle, "float") if self.number.base == "float" else middle
            give(mine, place)
            with code.loop(first + 1, stop) as k:
                give(entry(k), place)
            i.set(stop)
        with code.loop(0, blocks) as block:
            made = code.load(self.block, code.at(areas["row"], block, self.block), self.block.size)
            code.store(made, self._row(code, block, "to"), self.block.size)
        parameters = "ptr %x, i64 %stride, i64 %keys, ptr %scratch, ptr %to"
        return self._function("order_sorted", "void", parameters, code, "void")

    def _row_quantile(self) -> str:
        code = Code()
        self.need("row_sort")
        areas = self._areas(code)
        found = code.put(PTR, "call ptr @row_sort(ptr %x, i64 %stride, i64 %keys, ptr %scratch)")
        count = code.load(I64, Value(code, PTR, "%scratch"), 8)
        result = code.variable(self.number, math.nan)
        with code.when(count > 0):
            last = count - 1
            place = code.cast("sitofp", last, "double") * Value(code, _DOUBLE, "%q")
            floor = code.intrinsic("floor", place)
            low = code.put(I64, f"fptosi double {floor.text} to i64")
            part = place - floor
            if self.number is not _DOUBLE:
                part = code.cast("fptrunc", part, "float")

            def value(at: Value) -> Value:
                key = code.load(I64, code.at(found, at, I64), 8) & 0xFFFFFFFF
                return self._unimage(code, code.load(self.whole, code.at(areas["images"], key, self.whole)))

            below = value(low)
            above = value(code.select(low < last, low + 1, last))
            between = below + (above - below) * part
            result.set(code.select((below == above) | (part == 0.0), below, between))
        made = result.get()
        parameters = "ptr %x, i64 %stride, i64 %keys, ptr %scratch, double %q"
        return self._function("row_quantile", self.number.text, parameters, code, f"{self.number.text} {made.text}")

    # ---- groups ----

    def _group_codes(self) -> str:
        """Labels as whole numbers from 0, in order of appearance; -1 for NaN."""
        code = Code()
        padded = self._blocks(code) * self.lanes
        # The table is at least twice as long as the row, so that a free place is never far.
        length = 64 - self._zeros(code, padded * 2 - 1)
        slots = code.number(I64, 1) << code.intrinsic("smax", length, code.number(I64, 4))
        table = code.at(Value(code, PTR, "%scratch"), _HEADER, 1)
        labels = code.at(table, slots, I32)
        with code.loop(0, slots) as i:
            code.store(code.number(I32, 0), code.at(table, i, I32))
        groups, last = code.variable(I64, 0), code.variable(I64, -1)
        before = code.variable(self.number, math.nan)
        with self._keys(code) as (_, place):
            label = code.load(self.number, place("x")) + 0.0
            with code.when(label != before.get()):  # also for every NaN
                last.set(-1)
                before.set(label)
                with code.when(code.compare("ord", label, label)):
                    image = code.cast("bitcast", label, self.whole.base)
                    image = image if self.bits == 64 else code.cast("zext", image, "i64")
                    mixed = image * -7046029254386353131
                    slot = code.variable(I64, (mixed >> 32) & (slots - 1))
                    with code.while_() as found:
                        entry = code.load(I32, code.at(table, slot.get(), I32))
                        with code.when(entry == 0):
                            new = groups.get()
                            groups.set(new + 1)
                            code.store(code.cast("trunc", new + 1, "i32"), code.at(table, slot.get(), I32))
                            code.store(image, code.at(labels, new, I64), 8)
                        group = code.cast("zext", code.load(I32, code.at(table, slot.get(), I32)) - 1, "i64")
                        last.set(group)
                        code.leave(found, code.load(I64, code.at(labels, group, I64), 8) == image)
                        slot.set((slot.get() + 1) & (slots - 1))
            made = last.get()
            code.store(made if self.bits == 64 else code.cast("trunc", made, "i32"), place("to"))
        parameters = "ptr %x, i64 %stride, i64 %keys, ptr %scratch, ptr %to"
        return self._function("group_codes", "void", parameters, code, "void")

    def _group_sum(self) -> str:
        code = Code()
        padded, at = self._blocks(code) * self.lanes, code.at(Value(code, PTR, "%scratch"), _HEADER, 1)
        columns: dict[str, Value] = {}
        for name in ("largest", "count", "scale", "first", "second", "high", "low"):
            columns[name], at = at, code.at(at, padded, I64)

        def cell(name: str, group: Value) -> Value:
            return code.at(columns[name], group, I64)

        def get(name: str, group: Value) -> Value:
            return code.load(I64 if name == "count" else _DOUBLE, cell(name, group), 8)

        def number(place: Value) -> Value:
            made = code.load(self.whole, place)
            return made if self.bits == 64 else code.cast("sext", made, "i64")

        def wide(place: Value) -> Value:
            x = code.load(self.number, place)
            return x if x.kind is _DOUBLE else code.cast("fpext", x, "double")

        codes = kind(self.whole.base, self.lanes)
        top = code.variable(codes, -1)
        with code.loop(0, self._blocks(code)) as block:
            these = code.load(codes, self._row(code, block, "g"), 64)
            top.set(code.intrinsic("smax", top.get(), code.select(self._inside(code, block), these, -1)))
        most = code.reduce("smax", top.get())
        groups = (most if self.bits == 64 else code.cast("sext", most, "i64")) + 1
        for name in ("largest", "count", "high", "low"):
            with code.loop(0, groups) as group:
                code.store(code.number(I64, 0), cell(name, group), 8)
        with self._keys(code) as (_, place):
            group, x = number(place("g")), wide(place("x"))
            with code.when((group >= 0) & code.compare("ord", x, x)):
                size, largest = code.intrinsic("fabs", x), get("largest", group)
                code.store(code.select(size > largest, size, largest), cell("largest", group), 8)
                code.store(get("count", group) + 1, cell("count", group), 8)
        with code.loop(0, groups) as group:
            largest = get("largest", group)
            cuts = self._cut(code, code.select(largest == math.inf, 1.0, largest), get("count", group))
            for name, value in zip(("scale", "first", "second"), cuts, strict=True):
                code.store(value, cell(name, group), 8)
        with self._keys(code) as (_, place):
            group, x = number(place("g")), wide(place("x"))
            with code.when((group >= 0) & code.compare("ord", x, x)):
                infinite = get("largest", group) == math.inf
                scaled = x * get("scale", group)
                first, second = get("first", group), get("second", group)
                high = (scaled + first) - first
                low = ((scaled - high) + second) - second
                plain = code.select(code.intrinsic("fabs", x) == math.inf, x, 0.0)
                code.store(get("high", group) + code.select(infinite, plain, high), cell("high", group), 8)
                code.store(get("low", group) + code.select(infinite, 0.0, low), cell("low", group), 8)
        with code.loop(0, groups) as group:
            infinite = get("largest", group) == math.inf
            total = (get("high", group) + get("low", group)) / get("scale", group)
            code.store(code.select(infinite, get("high", group), total), cell("high", group), 8)
        with self._keys(code) as (_, place):
            group = number(place("g"))
            total = get("high", code.select(group < 0, 0, group))
            made = code.cast("fptrunc", total, "float") if self.number.base == "float" else total
            code.store(code.select(group < 0, math.nan, made), place("to"))
        parameters = "ptr %x, ptr %g, i64 %stride, i64 %keys, ptr %scratch, ptr %to"
        return self._function("group_sum", "void", parameters, code, "void")
