"""What the sorted entries of a row leave open: keys that agree in their few bits of order, and equal values.

Where this is seldom, the stretches that agree are looked at one by one; where it is frequent, all values are fetched in
their order, put right and compared with their neighbours, without branches.
"""

from __future__ import annotations

import math

from penstock.factor.llvm.pieces import WIDTH, Pieces
from penstock.native.emit import BOOL, I32, I64, PTR, Code, Value, Variable, kind

__all__ = ["Ties"]


class Ties(Pieces):
    """What the sorted entries of a row leave open."""

    def _at_key(self, code: Code, key: Value) -> Value:
        """A key's value."""
        width = self.lanes.bit_length() - 1
        place = code.at(self._row(code, key >> width), key & (self.lanes - 1), self.number)
        return code.load(self.number, place)

    def _settled(self) -> str:
        """Entries that agree in their bits of order are put in that of their values, and the equal share a place.

        False if keys would have to move far.
        """
        code = Code()
        for name in ("shared", "spread"):
            self.need(name)
        count, order = Value(code, I64, "%count"), Value(code, PTR, "%order")
        top = code.number(I64, 1) << Value(code, I64, "%bits")
        limit, mask = code.cast("trunc", top, "i32"), top - 1
        wide = kind("i32", WIDTH)
        good, free = code.variable(BOOL, True), code.variable(I64, 0)
        blocks = code.put(I64, f"udiv i64 {(count + (WIDTH - 2)).text}, {WIDTH}")

        def entry(at: Value) -> Value:
            return code.load(I32, code.at(order, at, I32), 4)

        def value(e: Value) -> Value:
            return self._at_key(code, code.cast("zext", e, "i64") & mask)

        def equals(block: Value) -> Value:
            """Which of 16 entries agree with the one after them, as bits."""
            here, after = (code.load(wide, code.at(order, (block << 4) + k, I32), 4) for k in (0, 1))
            equal = code.compare("ult", here ^ after, limit)
            found = code.put(kind("i16"), f"bitcast {equal.kind.text} {equal.text} to i16")
            left = count - 1 - (block << 4)
            inside = (code.number(I64, 1) << code.intrinsic("smin", left, code.number(I64, 16))) - 1
            return code.cast("zext", found, "i64") & inside

        seen = code.variable(I64, 0)
        with code.loop(0, blocks) as block:
            seen.set(seen.get() + code.call(I64, "llvm.ctpop.i64", equals(block)))
        many = (seen.get() << 4) > count
        with code.when(many):
            given = "ptr %x, i64 %stride, i64 %keys, ptr %scratch"
            rest = f"i64 {count.text}, i64 {mask.text}, ptr %order, ptr %row"
            good.set(code.put(BOOL, f"call i1 @spread({given}, {rest})"))
        with code.loop(0, code.select(many | (seen.get() == 0), 0, blocks)) as block:
            found = equals(block)
            left = code.variable(I64, found)
            with code.when(found != 0):
                with code.while_() as none:
                    bits = left.get()
                    code.leave(none, bits == 0)
                    first = (block << 4) + code.call(I64, "llvm.cttz.i64", bits, code.number(BOOL, False))
                    left.set(bits & (bits - 1))
                    with code.when(first >= free.get()):
                        # A stretch of equal bits: put in order one after the other.
                        end = code.variable(I64, first + 1)
                        with code.while_() as over:
                            at = end.get()
                            code.leave(over, at >= count)
                            mine = entry(at)
                            code.leave(over, code.compare("uge", mine ^ entry(at - 1), limit))
                            own, j = value(mine), code.variable(I64, at)
                            with code.while_() as placed:
                                code.leave(placed, j.get() <= first)
                                before = entry(j.get() - 1)
                                code.leave(placed, value(before) <= own)
                                code.store(before, code.at(order, j.get(), I32), 4)
                                j.set(j.get() - 1)
                            code.store(mine, code.at(order, j.get(), I32), 4)
                            end.set(at + 1)
                        free.set(end.get())
                        span = f"i64 {first.text}, i64 {end.get().text}, i64 {mask.text}"
                        code.do(f"call void @shared(ptr %x, i64 %stride, {span}, ptr %order, ptr %row)")
        parameters = "ptr %x, i64 %stride, i64 %keys, ptr %scratch, i64 %count, i64 %bits, ptr %order, ptr %row"
        return self._function("settled", "i1", parameters, code, f"i1 {good.get().text}")

    def _spread(self) -> str:
        """As `shared`, of all keys and without branches; false if they are not in order by values."""
        code = Code()
        areas, count, mask = self._areas(code), Value(code, I64, "%count"), Value(code, I64, "%mask")
        order, row = Value(code, PTR, "%order"), Value(code, PTR, "%row")
        plain, values, firsts = areas["images"], code.at(areas["others"], WIDTH, I64), areas["entries"]
        wide, numbers = kind("i32", WIDTH), self.number.of(WIDTH)
        with code.loop(0, self._blocks(code)) as block:
            code.store(self._load(code, block), code.at(plain, block, self.block), 64)
        edge = code.number(self.number, math.nan)
        for place in (-1, count):
            code.store(edge, code.at(values, place, self.number))

        def key(at: Value) -> Value:
            return code.cast("zext", code.load(I32, code.at(order, at, I32), 4), "i64") & mask

        moves, now, good = code.variable(I64, 0), code.variable(I64, 0), code.variable(BOOL, True)
        with code.while_() as done:
            at = now.get()
            code.leave(done, at >= count)
            mine = code.load(self.number, code.at(plain, key(at), self.number))
            code.store(mine, code.at(values, at, self.number))
            now.set(at + 1)
            with code.when(mine < code.load(self.number, code.at(values, at - 1, self.number)), seldom=True):
                # Put in its place before larger ones.
                own = code.load(I32, code.at(order, at, I32), 4)
                j = code.variable(I64, at)
                with code.while_() as placed:
                    before = code.load(self.number, code.at(values, j.get() - 1, self.number))
                    code.leave(placed, ~(mine < before))
                    code.store(before, code.at(values, j.get(), self.number))
                    code.store(code.load(I32, code.at(order, j.get() - 1, I32), 4), code.at(order, j.get(), I32), 4)
                    j.set(j.get() - 1)
                code.store(mine, code.at(values, j.get(), self.number))
                code.store(own, code.at(order, j.get(), I32), 4)
                moves.set(moves.get() + (at - j.get()))
                good.set(moves.get() <= (at >> 2) + 64)
                code.leave(done, ~good.get())
        number = Value(code, wide, "<" + ", ".join(f"i32 {i}" for i in range(WIDTH)) + ">")
        blocks = code.put(I64, f"udiv i64 {(count + (WIDTH - 1)).text}, {WIDTH}")
        blocks = code.select(good.get(), blocks, 0)

        def scanned(found: Value, how: str, before: Variable, back: bool) -> Value:
            for step in (1, 2, 4, 8):
                moved = [i + step if back else i - step for i in range(WIDTH)]
                kept = [j if 0 <= j < WIDTH else i for i, j in enumerate(moved)]
                found = code.intrinsic(how, found, self._chosen(code, found, found, kept))
            made = code.intrinsic(how, found, before.get())
            before.set(self._chosen(code, made, made, [0 if back else WIDTH - 1] * WIDTH))
            return made

        first, last = code.variable(wide, 0), code.variable(wide, 1 << 30)
        with code.loop(0, blocks) as block:
            at = block << 4
            here, before = (code.load(numbers, code.at(values, at - k, self.number), 4) for k in (0, 1))
            begins = code.select(here != before, number + code.cast("trunc", at, "i32"), 0)
            code.store(scanned(begins, "smax", first, False), code.at(firsts, block, wide), 64)
        with code.loop(0, blocks) as block:
            at = (blocks - 1 - block) << 4
            here, after = (code.load(numbers, code.at(values, at + k, self.number), 4) for k in (0, 1))
            ends = code.select(here != after, number + code.cast("trunc", at, "i32"), 1 << 30)
            both = scanned(ends, "smin", last, True) + code.load(wide, code.at(firsts, at, I32), 64)
            place = code.cast("sitofp", both, self.number.base) * 0.5 + 1.0
            code.store(place, code.at(plain, at, self.number), 4)
        with code.loop(0, code.select(good.get(), count, 0)) as i:
            code.store(code.load(self.number, code.at(plain, i, self.number)), code.at(row, key(i), self.number))
        parameters = "ptr %x, i64 %stride, i64 %keys, ptr %scratch, i64 %count, i64 %mask, ptr %order, ptr %row"
        return self._function("spread", "i1", parameters, code, f"i1 {good.get().text}")

    def _shared(self) -> str:
        """Places of the keys from the first to the last in order: equal ones get the mean of theirs."""
        code = Code()
        order, row, stop = Value(code, PTR, "%order"), Value(code, PTR, "%row"), Value(code, I64, "%to")
        mask = Value(code, I64, "%mask")

        def key(at: Value) -> Value:
            return code.cast("zext", code.load(I32, code.at(order, at, I32), 4), "i64") & mask

        i = code.variable(I64, Value(code, I64, "%from"))
        with code.while_() as done:
            first = i.get()
            code.leave(done, first >= stop)
            mine = self._at_key(code, key(first))
            j = code.variable(I64, first + 1)
            with code.while_() as ended:
                code.leave(ended, j.get() >= stop)
                code.leave(ended, self._at_key(code, key(j.get())) != mine)
                j.set(j.get() + 1)
            end = j.get()
            middle = code.cast("sitofp", first + end - 1, "double") * 0.5 + 1.0
            place = code.cast("fptrunc", middle, "float") if self.number.base == "float" else middle
            with code.loop(first, end) as k:
                code.store(place, code.at(row, key(k), self.number))
            i.set(end)
        parameters = "ptr %x, i64 %stride, i64 %from, i64 %to, i64 %mask, ptr %order, ptr %row"
        return self._function("shared", "void", parameters, code, "void")
