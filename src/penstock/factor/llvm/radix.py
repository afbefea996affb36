"""Rows sorted by digits: for rows too long for the network, or too uneven for its few bits."""

from __future__ import annotations

from penstock.factor.llvm.pieces import Pieces
from penstock.native.emit import BOOL, I32, I64, PTR, Code, Value, Variable, kind

__all__ = ["Radix"]


class Radix(Pieces):
    """Rows sorted by digits."""

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
            self.need("arranged")
            args = f"ptr {found.get().text}, ptr {areas['images'].text}, i64 {count.text}"
            settled = code.put(BOOL, f"call i1 @arranged({args})")
            with code.when(~settled, seldom=True):
                self._by_halves(code, areas, found)
        parameters = "ptr %x, i64 %stride, i64 %keys, ptr %scratch"
        return self._function("row_sort", "ptr", parameters, code, f"ptr {found.get().text}")

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

    def _arranged(self) -> str:
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
        return self._function("arranged", "i1", "ptr %entries, ptr %images, i64 %count", code, f"i1 {good.get().text}")
