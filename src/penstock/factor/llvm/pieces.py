"""What functions over whole rows are made of, and the room they need.

A row is given by the address of its first key block, the bytes from block to block, and the number of keys; the lanes
of the last block beyond them hold anything and are never looked at. Each function is written once per program that
calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from penstock.native.emit import BOOL, I32, I64, PTR, Code, Value, kind

__all__ = ["CODES", "DOUBLE", "HEADER", "OWNER", "SUMS", "WIDTH", "Pieces", "scratch_bytes"]

WIDTH = 16
"""Whole numbers of 32 bits that are handled together."""

HEADER = 128
"""Bytes of the scratch that hold single results."""

OWNER = 16
"""Where the header says whose the rest of the scratch is: what is kept there for the next row is used if still so."""

CODES, SUMS = 1, 2
"""Owners: numbers of groups, and keys by group."""

LEAST, MORE = 128, 32
"""Keys for which there is room at least, and places more than keys."""

DOUBLE = kind("double")


def scratch_bytes(keys: int, lanes: int) -> int:
    """Room that the functions here need beside the planes."""
    padded = -(-keys // lanes) * lanes
    room = max(padded, LEAST) + MORE
    sort = 4 * 8 * room + 3 * 2048 * 4 + 4 * room
    numbers = 4 * (1 << max(4, (2 * padded - 1).bit_length())) + 3 * 8 * padded
    return HEADER + max(sort, numbers, 15 * 8 * room) + 1024


@dataclass
class Pieces:
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

    def _function(self, name: str, result: str, parameters: str, code: Code, returns: str) -> str:
        self.needs |= code.needs
        lines = [*code.sections["alloca"], *code.sections["body"], f"  ret {returns}"]
        head = f"define internal {result} @{name}({parameters}) #1 {{\nstart:"
        return "\n".join([head, *lines, "}"])

    def _owned(self, code: Code, owner: int) -> Value:
        return code.load(I64, code.at(Value(code, PTR, "%scratch"), OWNER, 1), 8) == owner

    def _own(self, code: Code, owner: int = 0) -> None:
        code.store(code.number(I64, owner), code.at(Value(code, PTR, "%scratch"), OWNER, 1), 8)

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
        room = 64 - self._zeros(code, count)
        big = exponent > 900
        exponent = exponent - code.select(big, code.number(I64, 128), 0)
        scale = code.select(big, code.number(DOUBLE, 2.0**-128), 1.0)
        top = exponent + room

        def lifted(power: Value) -> Value:
            half = code.bits("ashr", power, 1)
            one, two = (code.cast("bitcast", (p + 1023) << 52, "double") for p in (half, power - half))
            return one * 1.5 * two

        return scale, lifted(top), lifted(top - 53 + room)

    def _zeros(self, code: Code, x: Value) -> Value:
        suffix = f"v{x.kind.lanes}i64" if x.kind.lanes else "i64"
        return code.call(x.kind, f"llvm.ctlz.{suffix}", x, code.number(BOOL, False))

    def _areas(self, code: Code) -> dict[str, Value]:
        """Parts of the scratch: entries twice, whole images, a row, histograms, keys in order."""
        n = code.intrinsic("umax", self._blocks(code) * self.lanes, code.number(I64, LEAST)) + MORE
        places, at = {}, code.at(Value(code, PTR, "%scratch"), HEADER, 1)
        for name in ("entries", "others", "images", "row", "counts"):
            places[name], at = at, code.at(at, n, I64)
        places["order"] = code.at(places["counts"], 3 * 2048, I32)
        return places

    def _shuffled(self, code: Code, x: Value, lanes: list[int]) -> Value:
        """The lanes of x in that order; 16 for a zero."""
        return self._chosen(code, x, code.number(x.kind, 0), lanes)

    def _chosen(self, code: Code, x: Value, y: Value, lanes: list[int]) -> Value:
        """Lanes of x, and of y from 16."""
        order = ", ".join(f"i32 {i}" for i in lanes)
        return code.put(x.kind, f"shufflevector {x.kind.text} {x.text}, {x.kind.text} {y.text}, <16 x i32> <{order}>")
