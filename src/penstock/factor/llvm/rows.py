"""The words over keys: what needs the whole row is a call, the rest waits until a row is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.factor.llvm.kernels import Kernels
from penstock.factor.llvm.loop import CONTEXT
from penstock.factor.llvm.machine import Words
from penstock.factor.llvm.pieces import DOUBLE, OWNER
from penstock.native.emit import I64, PTR, Code, Value

__all__ = ["Lazy", "RowMachine"]


class Lazy:
    """A value per key of a row, computed block by block when it is stored."""

    __hash__ = None  # type: ignore[assignment]
    __array_ufunc__ = None

    def __init__(self, at: Callable[[Value], Value], plane: Value | None = None, codes: Value | None = None) -> None:
        self.at = at
        self.plane = plane
        self.codes = codes  # the plane with the numbers of its groups, where it is known to hold labels


def _lifted(name: str) -> Callable[..., Lazy]:
    def method(self: Lazy, *others: Any) -> Lazy:
        def at(block: Value) -> Value:
            given = [other.at(block) if isinstance(other, Lazy) else other for other in others]
            made: Value = getattr(self.at(block), name)(*given)
            return made

        return Lazy(at)

    return method


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "neg", "lt", "le", "gt", "ge", "eq"):
    setattr(Lazy, f"__{_name}__", _lifted(f"__{_name}__"))
for _name in ("ne", "and", "or", "invert"):
    setattr(Lazy, f"__{_name}__", _lifted(f"__{_name}__"))


class RowMachine:
    """The words over keys: what needs the whole row is a call, the rest waits for `Lazy.at`."""

    def __init__(self, words: Words, kernels: Kernels, row: Callable[[], Value]) -> None:
        self.words = words
        self.kernels = kernels
        self.nan = words.nan
        self.double = words.double
        self.new_row = row

    def __getattr__(self, name: str) -> Any:
        word = getattr(self.words, name)

        def call(*args: Any) -> Lazy:
            return Lazy(lambda block: word(*[a.at(block) if isinstance(a, Lazy) else a for a in args]))

        return call

    @property
    def code(self) -> Code:
        return self.words.code

    def named(self, name: str) -> Value:
        return Value(self.code, I64 if name in ("%stride", "%keys") else PTR, name)

    def address(self, plane: Value, block: Value) -> Value:
        return self.code.at(plane, block * self.named("%stride"), 1)

    def lazy(self, plane: Value, codes: Value | None = None) -> Lazy:
        """A row of a plane as a value."""
        block = self.words.block
        return Lazy(lambda at: self.code.load(block, self.address(plane, at), block.size), plane, codes)

    def constant(self, value: float) -> Lazy:
        """A number as an operand: on the left of what waits it must wait too."""
        made = self.words.single(value)
        return Lazy(lambda at: made)

    def store(self, x: Any, plane: Value) -> None:
        """Compute a row into a plane."""
        if isinstance(x, Lazy) and x.plane is not None and x.plane.text == plane.text:
            return
        with self.code.loop(0, Value(self.code, I64, "%blocks")) as block:
            made = self.words.spread(x.at(block) if isinstance(x, Lazy) else x)
            self.code.store(made, self.address(plane, block), self.words.block.size)

    def row(self, x: Any) -> Value:
        """The address of a plane's row that holds x."""
        if isinstance(x, Lazy) and x.plane is not None:
            return x.plane
        plane = self.new_row()
        self.store(x, plane)
        return plane

    def _reduce(self, name: str, x: Any, *more: Value) -> Lazy:
        kernel = self.kernels.need(name)
        given = (self.row(x), self.named("%stride"), self.named("%keys"), *more)
        made = self.code.call(self.words.number, kernel, *given)
        # One value for all keys, but a `Lazy`: a register on the left would not wait for what stands on the right.
        return Lazy(lambda block: made)

    def row_count(self, x: Any) -> Lazy:
        return self._reduce("row_count", x)

    def row_sum(self, x: Any) -> Lazy:
        return self._reduce("row_sum", x)

    def row_quantile(self, x: Any, q: float) -> Lazy:
        share = self.code.number(DOUBLE, q)
        return self._reduce("row_quantile", x, self.named("%scratch"), share)

    def function(self, number: int, *xs: Any) -> Lazy:
        """Not a word: the row that a NumPy function gives, by way of the engine's callback."""
        to = self.new_row()
        rows = [*map(self.row, xs), to]
        table = Value(self.code, PTR, self.code.name())
        self.code.sections["alloca"].append(f"  {table.text} = alloca [{len(rows)} x ptr], align 8")
        for i, row in enumerate(rows):
            self.code.store(row, self.code.at(table, i, I64), 8)
        with self.code.into("entry"):
            words = [self.code.at(self.named("%context"), CONTEXT.index(word), I64) for word in ("function", "row")]
            call, first = self.code.load(PTR, words[0], 8), self.code.load(I64, words[1], 8)
        row = first + Value(self.code, I64, "%r")
        self.code.do(f"call void {call.text}(i64 {number}, i64 {row.text}, ptr {table.text})")
        return self.lazy(to)

    def _make(self, name: str, sources: str, to: Value) -> None:
        kernel = self.kernels.need(name)
        self.code.do(f"call void @{kernel}({sources}, i64 %stride, i64 %keys, ptr %scratch, ptr {to.text})")

    def row_order(self, x: Any) -> Lazy:
        source, to = self.row(x), self.new_row()
        self._make("row_order", f"ptr {source.text}", to)
        return self.lazy(to)

    def group_codes(self, labels: Any, to: Value) -> None:
        """Not a word: what is done once for a plane of labels before `group_sum` is called on it."""
        self._nobody()
        self._make("group_codes", f"ptr {self.row(labels).text}", to)

    def _nobody(self) -> None:
        """What is kept in the scratch for the next row is not from a former call."""
        with self.code.into("entry"):
            place = self.code.at(self.named("%scratch"), OWNER, 1)
            self.code.store(self.code.number(I64, 0), place, 8)

    def group_sum(self, x: Any, group: Any) -> Lazy:
        self._nobody()
        source, to = self.row(x), self.new_row()
        codes = group.codes if isinstance(group, Lazy) else None
        if codes is None:
            codes = self.new_row()
            self.group_codes(group, codes)
        self._make("group_sum", f"ptr {source.text}, ptr {codes.text}", to)
        return self.lazy(to)
