"""Sums by group: labels are numbered first, once per plane of them."""

from __future__ import annotations

import math

from penstock.factor.llvm.pieces import DOUBLE, HEADER, Pieces
from penstock.native.emit import I32, I64, PTR, Code, Value, kind

__all__ = ["Groups"]


class Groups(Pieces):
    """Sums by group: labels are numbered first, once per plane of them."""

    def _group_codes(self) -> str:
        """Labels as whole numbers from 0, in order of appearance; -1 for NaN."""
        code = Code()
        padded = self._blocks(code) * self.lanes
        # The table is at least twice as long as the row, so that a free place is never far.
        length = 64 - self._zeros(code, padded * 2 - 1)
        slots = code.number(I64, 1) << code.intrinsic("smax", length, code.number(I64, 4))
        table = code.at(Value(code, PTR, "%scratch"), HEADER, 1)
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
        padded, at = self._blocks(code) * self.lanes, code.at(Value(code, PTR, "%scratch"), HEADER, 1)
        columns: dict[str, Value] = {}
        for name in ("largest", "count", "scale", "first", "second", "high", "low"):
            columns[name], at = at, code.at(at, padded, I64)

        def cell(name: str, group: Value) -> Value:
            return code.at(columns[name], group, I64)

        def get(name: str, group: Value) -> Value:
            return code.load(I64 if name == "count" else DOUBLE, cell(name, group), 8)

        def number(place: Value) -> Value:
            made = code.load(self.whole, place)
            return made if self.bits == 64 else code.cast("sext", made, "i64")

        def wide(place: Value) -> Value:
            x = code.load(self.number, place)
            return x if x.kind is DOUBLE else code.cast("fpext", x, "double")

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
