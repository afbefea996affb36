"""The order of a row: ranks and quantiles.

A few keys are counted against each other. More are sorted: by the network while the number of a key leaves it bits
enough, by digits else, or where the network's order is too coarse.
"""

from __future__ import annotations

import math

from penstock.factor.llvm.network import Networks
from penstock.factor.llvm.pieces import DOUBLE, HEADER, WIDTH
from penstock.factor.llvm.radix import Radix
from penstock.factor.llvm.ties import Ties
from penstock.native.emit import BOOL, I32, I64, PTR, Code, Value, kind

__all__ = ["COUNTED", "Orders"]

COUNTED = 40
"""Rows of up to this many keys are ranked by comparing all pairs."""

NETWORK = 8192
"""Rows of up to this many keys are sorted by the network."""

FEW = 192
"""Rows of up to this many keys, where the network fails, are counted too."""


class Orders(Networks, Radix, Ties):
    """The order of a row: ranks and quantiles."""

    def _row_order(self) -> str:
        code = Code()
        keys = Value(code, I64, "%keys")
        few = keys <= COUNTED
        self._own(code)
        parameters = "ptr %x, i64 %stride, i64 %keys, ptr %scratch, ptr %to"
        for name, condition in (("order_pairs", few), ("order_sorted", ~few)):
            self.need(name)
            with code.when(condition):
                code.do(f"call void @{name}({parameters})")
        return self._function("row_order", "void", parameters, code, "void")

    def _order_pairs(self) -> str:
        code = Code()
        keys, scratch = Value(code, I64, "%keys"), code.at(Value(code, PTR, "%scratch"), HEADER, 1)
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
        for name in ("by_network", "by_digits", "order_pairs"):
            self.need(name)
        areas = self._areas(code)
        row = code.variable(BOOL, True)
        source = "ptr %x, i64 %stride, i64 %keys, ptr %scratch"
        done = code.put(BOOL, f"call i1 @by_network({source})")
        with code.when(~done, seldom=True):
            row.set(Value(code, I64, "%keys") > FEW)
            with code.when(row.get()):
                code.do(f"call void @by_digits({source})")
            with code.when(~row.get()):
                code.do(f"call void @order_pairs({source}, ptr %to)")
        with code.loop(0, code.select(row.get(), self._blocks(code), 0)) as block:
            made = code.load(self.block, code.at(areas["row"], block, self.block), self.block.size)
            code.store(made, self._row(code, block, "to"), self.block.size)
        return self._function("order_sorted", "void", f"{source}, ptr %to", code, "void")

    def _by_network(self) -> str:
        """The row's places, NaN for missing keys, and its keys in order; the scratch says how many, and their bits.

        False if there are too many keys, or the network's order is too coarse for them.
        """
        code = Code()
        for name in ("entries", "network", "dealt", "settled"):
            self.need(name)
        areas, keys, scratch = self._areas(code), Value(code, I64, "%keys"), Value(code, PTR, "%scratch")
        with code.loop(0, self._blocks(code)) as block:
            code.store(code.number(self.block, math.nan), code.at(areas["row"], block, self.block), self.block.size)
        done = code.variable(BOOL, False)
        source = "ptr %x, i64 %stride, i64 %keys, ptr %scratch"
        order, row, matrix = areas["order"], areas["row"], areas["entries"]
        with code.when(keys <= NETWORK):
            tall = code.put(I64, f"udiv i64 {(keys + (WIDTH - 1)).text}, {WIDTH}")
            rows = code.intrinsic(
                "umax", code.number(I64, 1) << (64 - self._zeros(code, tall - 1)), code.number(I64, 8)
            )
            bits = code.put(I64, f"call i64 @entries({source}, i64 {rows.text}, ptr {matrix.text})")
            count = code.load(I64, scratch, 8)
            code.do(f"call void @network(ptr {matrix.text}, i64 {rows.text})")
            some = f"i64 {count.text}, i64 {bits.text}, ptr {order.text}, ptr {row.text}"
            code.do(f"call void @dealt(ptr {matrix.text}, i64 {rows.text}, {some})")
            code.store((code.number(I64, 1) << bits) - 1, code.at(scratch, 1, I64), 8)
            done.set(code.put(BOOL, f"call i1 @settled({source}, {some})"))
        return self._function("by_network", "i1", source, code, f"i1 {done.get().text}")

    def _dealt(self) -> str:
        """From the sorted matrix: entries in order, and places as if no two keys were equal."""
        code = Code()
        matrix, rows, count = Value(code, PTR, "%matrix"), Value(code, I64, "%rows"), Value(code, I64, "%count")
        order, row = Value(code, PTR, "%order"), Value(code, PTR, "%row")
        mask = code.cast("trunc", (code.number(I64, 1) << Value(code, I64, "%bits")) - 1, "i32")

        def one(source: Value, at: Value) -> None:
            entry = code.load(I32, source, 4)
            code.store(entry, code.at(order, at, I32), 4)
            key = code.cast("zext", entry & mask, "i64")
            code.store(code.cast("sitofp", at + 1, self.number.base), code.at(row, key, self.number))

        with code.loop(0, WIDTH) as lane:
            column, first = code.at(matrix, lane, I32), lane * rows
            left = code.intrinsic("smin", rows, count - first)
            with code.when(left == rows):
                with code.loop(0, rows >> 3) as i:
                    for k in range(8):
                        one(code.at(column, (i << 3) + k, WIDTH * 4), first + (i << 3) + k)
            with code.when(left < rows):
                with code.loop(0, left) as i:
                    one(code.at(column, i, WIDTH * 4), first + i)
        parameters = "ptr %matrix, i64 %rows, i64 %count, i64 %bits, ptr %order, ptr %row"
        return self._function("dealt", "void", parameters, code, "void")

    def _by_digits(self) -> str:
        """As `by_network`, for any row."""
        code = Code()
        for name in ("row_sort", "spread"):
            self.need(name)
        areas, scratch = self._areas(code), Value(code, PTR, "%scratch")
        source = "ptr %x, i64 %stride, i64 %keys, ptr %scratch"
        found = code.put(PTR, f"call ptr @row_sort({source})")
        count, all_bits = code.load(I64, scratch, 8), code.number(I64, 0xFFFFFFFF)
        code.store(all_bits, code.at(scratch, 1, I64), 8)
        with code.loop(0, count) as i:
            key = code.cast("trunc", code.load(I64, code.at(found, i, I64), 8), "i32")
            code.store(key, code.at(areas["order"], i, I32), 4)
        rest = f"i64 {count.text}, i64 {all_bits.text}, ptr {areas['order'].text}, ptr {areas['row'].text}"
        code.do(f"call i1 @spread({source}, {rest})")
        return self._function("by_digits", "void", source, code, "void")

    def _row_quantile(self) -> str:
        code = Code()
        self._own(code)
        for name in ("by_network", "by_digits"):
            self.need(name)
        areas, source = self._areas(code), "ptr %x, i64 %stride, i64 %keys, ptr %scratch"
        done = code.put(BOOL, f"call i1 @by_network({source})")
        with code.when(~done, seldom=True):
            code.do(f"call void @by_digits({source})")
        count = code.load(I64, Value(code, PTR, "%scratch"), 8)
        result = code.variable(self.number, math.nan)
        with code.when(count > 0):
            last = count - 1
            place = code.cast("sitofp", last, "double") * Value(code, DOUBLE, "%q")
            floor = code.intrinsic("floor", place)
            low = code.put(I64, f"fptosi double {floor.text} to i64")
            part = place - floor
            if self.number is not DOUBLE:
                part = code.cast("fptrunc", part, "float")
            mask = code.load(I64, code.at(Value(code, PTR, "%scratch"), 1, I64), 8)

            def value(at: Value) -> Value:
                key = code.cast("zext", code.load(I32, code.at(areas["order"], at, I32), 4), "i64") & mask
                return self._at_key(code, key) + 0.0

            below = value(low)
            above = value(code.select(low < last, low + 1, last))
            between = below + (above - below) * part
            result.set(code.select((below == above) | (part == 0.0), below, between))
        made = result.get()
        parameters = "ptr %x, i64 %stride, i64 %keys, ptr %scratch, double %q"
        return self._function("row_quantile", self.number.text, parameters, code, f"{self.number.text} {made.text}")
