"""Sums by group: labels are numbered first, once per plane of them.

Labels seldom change from row to row: numbers, and for sums the keys in the order of their groups, are kept in the
scratch and made again where a row differs from the one before. Where groups are of some size, the values are fetched in
that order, each group's beginning at a whole vector, and summed as vectors; else key by key.
"""

from __future__ import annotations

import math
from typing import Any

from penstock.factor.llvm.pieces import CODES, DOUBLE, HEADER, SUMS, Pieces
from penstock.native.emit import BOOL, I32, I64, PTR, Code, Value, kind

__all__ = ["Groups"]

GROUPED = 4
"""Keys per group, on average, from which on a group is summed as vectors."""

STEP = 8
"""Values of a group that are summed together."""

WIDE = kind("double", STEP)
COLUMNS = ("largest", "count", "scale", "first", "second", "high", "low")


class Groups(Pieces):
    """Sums by group."""

    def _kept(self, code: Code, name: str, kept: Value) -> Value:
        """Whether the row of that name has the bits kept contiguously there."""
        bits = kind(self.whole.base, self.lanes)
        other = code.variable(bits, 0)
        with code.loop(0, self._blocks(code)) as block:
            here = code.load(bits, self._row(code, block, name), 64)
            there = code.load(bits, code.at(kept, block, bits), 64)
            other.set(other.get() | code.select(self._inside(code, block), here ^ there, 0))
        return code.reduce("or", other.get()) == 0

    def _keep(self, code: Code, name: str, to: Value) -> None:
        with code.loop(0, self._blocks(code)) as block:
            code.store(self._load(code, block, name), code.at(to, block, self.block), self.block.size)

    def _group_codes(self) -> str:
        """Labels as whole numbers from 0, in order of appearance; -1 for NaN."""
        code = Code()
        self.need("group_number")
        padded = self._blocks(code) * self.lanes
        kept = code.at(Value(code, PTR, "%scratch"), HEADER, 1)
        made = code.at(kept, padded, I64)
        same = code.variable(BOOL, self._owned(code, CODES))
        with code.when(same.get()):
            same.set(self._kept(code, "x", kept))
        with code.when(~same.get()):
            self._keep(code, "x", kept)
            code.do(f"call void @group_number(i64 %keys, ptr {kept.text}, ptr {made.text})")
            self._own(code, CODES)
        with code.loop(0, self._blocks(code)) as block:
            numbers = code.load(self.block, code.at(made, block, self.block), self.block.size)
            code.store(numbers, self._row(code, block, "to"), self.block.size)
        parameters = "ptr %x, i64 %stride, i64 %keys, ptr %scratch, ptr %to"
        return self._function("group_codes", "void", parameters, code, "void")

    def _group_number(self) -> str:
        """The labels of contiguous keys by a hash table behind the numbers."""
        code = Code()
        keys, x, to = Value(code, I64, "%keys"), Value(code, PTR, "%x"), Value(code, PTR, "%to")
        padded = self._blocks(code) * self.lanes
        # The table is at least twice as long as the row, so that a free place is never far.
        length = 64 - self._zeros(code, padded * 2 - 1)
        slots = code.number(I64, 1) << code.intrinsic("smax", length, code.number(I64, 4))
        labels = code.at(to, padded, I64)
        table = code.at(labels, padded, I64)
        eight = kind("i32", 8)
        with code.loop(0, slots >> 3) as i:
            code.store(code.number(eight, 0), code.at(table, i, eight), 4)
        groups, last = code.variable(I64, 0), code.variable(I64, -1)
        before = code.variable(self.number, math.nan)
        with code.loop(0, keys) as key:
            label = code.load(self.number, code.at(x, key, self.number)) + 0.0
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
            code.store(made if self.bits == 64 else code.cast("trunc", made, "i32"), code.at(to, key, self.whole))
        return self._function("group_number", "void", "i64 %keys, ptr %x, ptr %to", code, "void")

    # ---- sums ----

    def _parts(self, code: Code) -> dict[str, Value]:
        """Parts of the scratch: numbers kept, keys by group and where groups begin, columns of groups, values."""
        n = self._blocks(code) * self.lanes + STEP
        parts, at = {}, code.at(Value(code, PTR, "%scratch"), HEADER, 1)
        for name, words in (("kept", 1), ("begins", 1), *((name, 1) for name in COLUMNS), ("plain", 1)):
            parts[name], at = at, code.at(at, n * words, I64)
        # Padded to whole vectors: with `GROUPED` keys per group less than three times the keys.
        parts["order"] = at
        parts["values"] = code.at(at, n * 3, I32)
        return parts

    def _group_sum(self) -> str:
        code = Code()
        for name in ("group_order", "group_vectors", "group_singles", "group_cuts", "group_given"):
            self.need(name)
        parts = self._parts(code)
        same = code.variable(BOOL, self._owned(code, SUMS))
        with code.when(same.get()):
            same.set(self._kept(code, "g", parts["kept"]))
        with code.when(~same.get()):
            codes = kind(self.whole.base, self.lanes)
            with code.loop(0, self._blocks(code)) as block:
                these = code.load(codes, self._row(code, block, "g"), 64)
                code.store(code.select(self._inside(code, block), these, -1), code.at(parts["kept"], block, codes), 64)
            code.do("call void @group_order(i64 %keys, ptr %scratch)")
            self._own(code, SUMS)
        parameters = "ptr %x, ptr %g, i64 %stride, i64 %keys, ptr %scratch, ptr %to"
        large = self._groups(code) * GROUPED <= Value(code, I64, "%keys")
        for name, condition in (("vectors", large), ("singles", ~large)):
            with code.when(condition):
                code.do(f"call void @group_{name}({parameters})")
        return self._function("group_sum", "void", parameters, code, "void")

    def _groups(self, code: Code) -> Value:
        return code.load(I64, code.at(Value(code, PTR, "%scratch"), 1, I64), 8)

    def _number(self, code: Code, place: Value) -> Value:
        made = code.load(self.whole, place)
        return made if self.bits == 64 else code.cast("sext", made, "i64")

    def _wide(self, code: Code, x: Value) -> Value:
        return x if x.kind.base == "double" else code.cast("fpext", x, "double")

    def _group_order(self) -> str:
        """How many groups there are, at %scratch + 8; if they are large enough, the keys by group."""
        code = Code()
        keys, parts = Value(code, I64, "%keys"), self._parts(code)
        kept, begins, order, cursor = (parts[name] for name in ("kept", "begins", "order", "high"))
        codes = kind(self.whole.base, self.lanes)
        top = code.variable(codes, -1)
        with code.loop(0, self._blocks(code)) as block:
            these = code.load(codes, code.at(kept, block, codes), 64)
            top.set(code.intrinsic("smax", top.get(), these))
        most = code.reduce("smax", top.get())
        groups = (most if self.bits == 64 else code.cast("sext", most, "i64")) + 1
        code.store(groups, code.at(Value(code, PTR, "%scratch"), 1, I64), 8)
        with code.when(groups * GROUPED <= keys):
            with code.loop(-1, groups) as group:
                code.store(code.number(I64, 0), code.at(cursor, group + 1, I64), 8)
            with code.loop(0, keys) as key:
                place = code.at(cursor, self._number(code, code.at(kept, key, self.whole)) + 1, I64)
                code.store(code.load(I64, place, 8) + 1, place, 8)
            total = code.variable(I64, 0)
            with code.loop(0, groups) as group:
                place = code.at(cursor, group + 1, I64)
                size = (code.load(I64, place, 8) + (STEP - 1)) & -STEP
                code.store(total.get(), place, 8)
                code.store(total.get(), code.at(begins, group, I64), 8)
                total.set(total.get() + size)
            code.store(total.get(), code.at(begins, groups, I64), 8)
            eight = kind("i32", STEP)
            with code.loop(0, total.get() >> 3) as i:
                code.store(code.like(eight, code.cast("trunc", keys, "i32")), code.at(order, i, eight), 4)
            with code.loop(0, keys) as key:
                group = self._number(code, code.at(kept, key, self.whole))
                with code.when(group >= 0):
                    place = code.at(cursor, group + 1, I64)
                    to = code.load(I64, place, 8)
                    code.store(to + 1, place, 8)
                    code.store(code.cast("trunc", key, "i32"), code.at(order, to, I32), 4)
        return self._function("group_order", "void", "i64 %keys, ptr %scratch", code, "void")

    def _group_vectors(self) -> str:
        """Sums of groups whose values lie side by side."""
        code = Code()
        keys, parts = Value(code, I64, "%keys"), self._parts(code)
        groups = self._groups(code)
        begins, order, plain, values = (parts[name] for name in ("begins", "order", "plain", "values"))
        self._keep(code, "x", plain)
        code.store(code.number(self.number, math.nan), code.at(plain, keys, self.number))
        with code.loop(0, code.load(I64, code.at(begins, groups, I64), 8) >> 3) as i:
            for k in range(STEP):
                at = (i << 3) + k
                key = code.cast("zext", code.load(I32, code.at(order, at, I32), 4), "i64")
                x = self._wide(code, code.load(self.number, code.at(plain, key, self.number)))
                code.store(x, code.at(values, at, DOUBLE), 8)

        def column(name: str, group: Value, of: Any = DOUBLE) -> Value:
            return code.load(of, code.at(parts[name], group, I64), 8)

        def give(name: str, group: Value, x: Value) -> None:
            code.store(x, code.at(parts[name], group, I64), 8)

        def vectors(group: Value) -> Any:
            return code.loop(column("begins", group, I64) >> 3, column("begins", group + 1, I64) >> 3)

        counts = kind("i64", STEP)
        with code.loop(0, groups) as group:
            most, count = code.variable(WIDE, 0.0), code.variable(counts, 0)
            with vectors(group) as i:
                x = code.load(WIDE, code.at(values, i, WIDE), 8)
                size = code.intrinsic("fabs", x)
                most.set(code.select(size > most.get(), size, most.get()))
                count.set(count.get() - code.cast("sext", code.compare("ord", x, x), "i64"))
            give("largest", group, code.reduce("fmax", most.get()))
            give("count", group, code.reduce("add", count.get()))
        code.do("call void @group_cuts(i64 %keys, ptr %scratch)")
        with code.loop(0, groups) as group:
            infinite = column("largest", group) == math.inf
            scale, first, second = (column(name, group) for name in ("scale", "first", "second"))
            high, low = code.variable(WIDE, 0.0), code.variable(WIDE, 0.0)
            with vectors(group) as i:
                x = code.load(WIDE, code.at(values, i, WIDE), 8)
                x = code.select(code.compare("ord", x, x), x, 0.0) * scale
                piece = (x + first) - first
                high.set(high.get() + piece)
                low.set(low.get() + (((x - piece) + second) - second))
            total = (code.reduce("fadd", high.get()) + code.reduce("fadd", low.get())) / scale
            give("high", group, total)
            with code.when(infinite, seldom=True):
                signs = code.variable(WIDE, 0.0)
                with vectors(group) as i:
                    x = code.load(WIDE, code.at(values, i, WIDE), 8)
                    signs.set(signs.get() + code.select(code.intrinsic("fabs", x) == math.inf, x, 0.0))
                give("high", group, code.reduce("fadd", signs.get()))
        code.do("call void @group_given(i64 %stride, i64 %keys, ptr %scratch, ptr %to)")
        parameters = "ptr %x, ptr %g, i64 %stride, i64 %keys, ptr %scratch, ptr %to"
        return self._function("group_vectors", "void", parameters, code, "void")

    def _group_cuts(self) -> str:
        """`_cut` of all groups."""
        code, counts = Code(), kind("i64", STEP)
        groups, parts = self._groups(code), self._parts(code)
        with code.loop(0, (groups + (STEP - 1)) >> 3) as i:
            largest = code.load(WIDE, code.at(parts["largest"], i, WIDE), 8)
            count = code.load(counts, code.at(parts["count"], i, counts), 8)
            cuts = self._cut(code, code.select(largest == math.inf, 1.0, largest), count)
            for name, value in zip(("scale", "first", "second"), cuts, strict=True):
                code.store(value, code.at(parts[name], i, WIDE), 8)
        return self._function("group_cuts", "void", "i64 %keys, ptr %scratch", code, "void")

    def _group_given(self) -> str:
        """Each key gets its group's sum."""
        code, number = Code(), self.number
        groups, parts = self._groups(code), self._parts(code)
        totals, kept = code.at(parts["largest"], 1, I64), parts["kept"]
        code.store(code.number(number, math.nan), code.at(totals, -1, number))
        with code.loop(0, groups) as group:
            total = code.load(DOUBLE, code.at(parts["high"], group, I64), 8)
            made = code.cast("fptrunc", total, "float") if number is not DOUBLE else total
            code.store(made, code.at(totals, group, number))
        with code.loop(0, self._blocks(code)) as block:
            to, first = self._row(code, block, "to"), block * self.lanes
            for lane in range(self.lanes):
                group = self._number(code, code.at(kept, first + lane, self.whole))
                code.store(code.load(number, code.at(totals, group, number)), code.at(to, lane, number))
        parameters = "i64 %stride, i64 %keys, ptr %scratch, ptr %to"
        return self._function("group_given", "void", parameters, code, "void")

    def _group_singles(self) -> str:
        """Sums key by key."""
        code = Code()
        parts = self._parts(code)

        def cell(name: str, group: Value) -> Value:
            return code.at(parts[name], group, I64)

        def get(name: str, group: Value) -> Value:
            return code.load(I64 if name == "count" else DOUBLE, cell(name, group), 8)

        def wide(place: Value) -> Value:
            return self._wide(code, code.load(self.number, place))

        groups = self._groups(code)
        for name in ("largest", "count", "high", "low"):
            with code.loop(0, groups) as group:
                code.store(code.number(I64, 0), cell(name, group), 8)
        with self._keys(code) as (_, place):
            group, x = self._number(code, place("g")), wide(place("x"))
            with code.when((group >= 0) & code.compare("ord", x, x)):
                size, largest = code.intrinsic("fabs", x), get("largest", group)
                code.store(code.select(size > largest, size, largest), cell("largest", group), 8)
                code.store(get("count", group) + 1, cell("count", group), 8)
        code.do("call void @group_cuts(i64 %keys, ptr %scratch)")
        with self._keys(code) as (_, place):
            group, x = self._number(code, place("g")), wide(place("x"))
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
        code.do("call void @group_given(i64 %stride, i64 %keys, ptr %scratch, ptr %to)")
        parameters = "ptr %x, ptr %g, i64 %stride, i64 %keys, ptr %scratch, ptr %to"
        return self._function("group_singles", "void", parameters, code, "void")
