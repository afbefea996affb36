"""Counts and sums of rows."""

from __future__ import annotations

import math

from penstock.factor.llvm.pieces import DOUBLE, Pieces
from penstock.native.emit import I64, Code, kind

__all__ = ["Sums"]


class Sums(Pieces):
    """Counts and sums of rows."""

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
        if largest.kind is not DOUBLE:
            largest = code.cast("fpext", largest, "double")
        infinite = largest == math.inf
        result = code.variable(DOUBLE, 0.0)
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
            result.set(code.cast("fpext", plain, "double") if plain.kind is not DOUBLE else plain)
        made = result.get()
        if self.number is not DOUBLE:
            made = code.cast("fptrunc", made, "float")
        return self._function(
            "row_sum", self.number.text, "ptr %x, i64 %stride, i64 %keys", code, f"{self.number.text} {made.text}"
        )
