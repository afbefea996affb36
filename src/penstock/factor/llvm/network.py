"""Rows sorted by a network of smaller-and-larger: no branches, no histograms, as fast for any values.

A row is a matrix of 32-bit entries, 16 lanes wide: on top as many bits of order as there is room for, below them the
number of the key. A column is sorted first, all 16 side by side, then neighbouring columns are merged, four times. The
place of an entry is column by column: only ten of the steps have to move values between lanes.

What orders is a distance. Near zero it is linear and farther out logarithmic, as floats themselves are, but linear
from where half of the row's values are near zero in their scale: else a row with both signs would spend most of its
bits on the way through the small exponents. Entries that agree in their bits of order are settled by their values.

Source  Batcher (1968), AFIPS 32, the bitonic merge.
"""

from __future__ import annotations

from penstock.factor.llvm.pieces import WIDTH, Pieces
from penstock.native.emit import I64, PTR, Code, Value, kind

__all__ = ["Networks"]

ROW = kind("i32", WIDTH)

_EIGHT = (
    *((0, 2), (1, 3), (4, 6), (5, 7), (0, 4), (1, 5), (2, 6), (3, 7), (0, 1), (2, 3)),
    *((4, 5), (6, 7), (2, 4), (3, 5), (1, 4), (3, 6), (1, 2), (3, 4), (5, 6)),
)
"""Sorts eight."""

BELOW = 6
"""Binary orders below the row's typical size that are kept apart."""


class Networks(Pieces):
    """Rows sorted by a network."""

    def _entries(self) -> str:
        """Fills the matrix from a row; returns the bits of a key's number. How many are present is at %scratch."""
        code = Code()
        keys, to = Value(code, I64, "%keys"), Value(code, PTR, "%to")
        blocks, double = self._blocks(code), self.bits == 64
        images, sign = kind(self.whole.base, self.lanes), -(1 << (self.bits - 1))
        fraction = 52 if double else 23
        held, whole = code.variable(I64, 0), code.variable(I64, 0)
        orders = code.variable(images, 0)
        with code.loop(0, blocks) as block:
            x = self._load(code, block)
            mask = self._present(code, x, block)
            held.set(held.get() + self._counted(code, mask))
            size = code.cast("bitcast", x, self.whole.base) & ~sign
            some = mask & (size != 0)
            whole.set(whole.get() + self._counted(code, some))
            orders.set(orders.get() + code.select(some, size >> fraction, 0))
        count = held.get()
        code.store(count, Value(code, PTR, "%scratch"), 8)
        total = code.reduce("add", orders.get())
        total = total if double else code.cast("zext", total, "i64")
        share = code.put(I64, f"udiv i64 {total.text}, {code.intrinsic('umax', whole.get(), code.number(I64, 1)).text}")
        near = code.intrinsic("smax", share - BELOW, code.number(I64, 0)) << fraction
        near = near if double else code.cast("trunc", near, "i32")
        offset = code.cast("bitcast", near, self.number.base)
        most = -sign - 1
        area = self._areas(code)["images"]
        low, high = code.variable(images, most), code.variable(images, sign)
        with code.loop(0, blocks) as block:
            x = self._load(code, block)
            mask = self._present(code, x, block)
            away = code.cast("bitcast", code.intrinsic("fabs", x) + offset, self.whole.base) - near
            away = code.select(x < 0.0, 0 - away, away)
            low.set(code.intrinsic("smin", low.get(), code.select(mask, away, most)))
            high.set(code.intrinsic("smax", high.get(), code.select(mask, away, sign)))
            code.store(code.select(mask, away, most), code.at(area, block, images), 64)
        least = code.reduce("smin", low.get())
        span = code.reduce("smax", high.get()) - least
        span = span if double else code.cast("zext", span, "i64")
        bits = 64 - self._zeros(code, keys - 1)
        shift = code.intrinsic("smax", bits + 32 - self._zeros(code, span), code.number(I64, 0))
        shift = shift if double else code.cast("trunc", shift, "i32")
        up = code.cast("trunc", bits, "i32")
        entry = kind("i32", self.lanes)
        number = Value(code, entry, "<" + ", ".join(f"i32 {i}" for i in range(self.lanes)) + ">")
        # Signed comparisons, because the oldest processors have no others: the topmost bit is turned, and stays so.
        turned = Value(code, entry, "<" + ", ".join(f"i32 {-(i & 1) ^ -(1 << 31)}" for i in range(self.lanes)) + ">")
        with code.loop(0, blocks) as block:
            away = code.load(images, code.at(area, block, images), 64)
            above = (away - least) >> shift
            above = code.cast("trunc", above, "i32") if double else above
            made = (above << up) | (number + code.cast("trunc", block * self.lanes, "i32"))
            made = code.select(away == most, -1, made)
            code.store(made ^ turned, code.at(to, block, entry), entry.size)
        with code.loop(blocks, Value(code, I64, "%rows") * (WIDTH // self.lanes)) as block:
            code.store(turned ^ -1, code.at(to, block, entry), entry.size)
        parameters = "ptr %x, i64 %stride, i64 %keys, ptr %scratch, i64 %rows, ptr %to"
        return self._function("entries", "i64", parameters, code, f"i64 {bits.text}")

    def _crossed(self, code: Code, rows: list[Value], pairs: list[tuple[int, int]]) -> None:
        for i, j in pairs:
            a, b = rows[i], rows[j]
            rows[i], rows[j] = code.intrinsic("smin", a, b), code.intrinsic("smax", a, b)

    def _over(self, code: Code, places: list[Value], pairs: list[tuple[int, int]]) -> None:
        rows = [code.load(ROW, place, 64) for place in places]
        self._crossed(code, rows, pairs)
        for row, place in zip(rows, places, strict=True):
            code.store(row, place, 64)

    def _merge(self) -> str:
        """Columns that fall and rise (or rise and fall) in stretches of 2 * first rows become sorted in each."""
        code = Code()
        base, rows = Value(code, PTR, "%base"), Value(code, I64, "%rows")
        stride = code.variable(I64, Value(code, I64, "%first"))
        with code.while_() as done:
            far = stride.get()
            code.leave(done, far < 16)
            near = far >> 1
            with code.loop(0, rows >> 2) as i:
                at = i & (near - 1)
                first = ((i - at) << 2) + at
                places = [code.at(base, first + near * k, ROW) for k in range(4)]
                self._over(code, places, [(0, 2), (1, 3), (0, 1), (2, 3)])
            stride.set(far >> 2)
        with code.when(stride.get() == 8):
            with code.loop(0, rows >> 1) as i:
                at = i & 7
                first = ((i - at) << 1) + at
                self._over(code, [code.at(base, first, ROW), code.at(base, first + 8, ROW)], [(0, 1)])
        last = [(i, i ^ d) for d in (4, 2, 1) for i in range(8) if not i & d]
        with code.loop(0, rows >> 3) as i:
            self._over(code, [code.at(base, (i << 3) + k, ROW) for k in range(8)], last)
        return self._function("merge", "void", "ptr %base, i64 %rows, i64 %first", code, "void")

    def _network(self) -> str:
        """Sorts the matrix; its odd columns come in and are kept with all bits turned until they are merged."""
        code = Code()
        base, rows = Value(code, PTR, "%base"), Value(code, I64, "%rows")
        self.need("merge")
        with code.loop(0, rows >> 3) as i:
            self._over(code, [code.at(base, (i << 3) + k, ROW) for k in range(8)], list(_EIGHT))
        size = code.variable(I64, 8)
        with code.while_() as done:
            half = size.get()
            code.leave(done, half >= rows)
            with code.loop(0, rows >> 1) as i:
                at = i & (half - 1)
                first = (i - at) << 1
                places = [code.at(base, first + at, ROW), code.at(base, first + (half * 2 - 1 - at), ROW)]
                self._over(code, places, [(0, 1)])
            code.do(f"call void @merge(ptr {base.text}, i64 {rows.text}, i64 {(half >> 1).text})")
            size.set(half << 1)
        for level in range(4):
            turn = [-(((i >> level) ^ (i >> level + 1)) & 1) if level < 3 else -((i >> level) & 1) for i in range(16)]
            with code.loop(0, rows) as i:
                place = code.at(base, i, ROW)
                row = code.load(ROW, place, 64) ^ Value(code, ROW, "<" + ", ".join(f"i32 {t}" for t in turn) + ">")
                for distance in (1 << k for k in range(level, -1, -1)):
                    other = self._shuffled(code, row, [i ^ distance for i in range(16)])
                    lower, upper = code.intrinsic("smin", row, other), code.intrinsic("smax", row, other)
                    row = self._chosen(code, lower, upper, [16 + i if i & distance else i for i in range(16)])
                code.store(row, place, 64)
            code.do(f"call void @merge(ptr {base.text}, i64 {rows.text}, i64 {(rows >> 1).text})")
        return self._function("network", "void", "ptr %base, i64 %rows", code, "void")
