"""The compiled loops of bars: when they are used, how they are called. Their text is in `loops`.

LLVM is loaded when bars of this process have seen `AFTER` rows, so that what never sees many does not pay 50 ms for
it; until then, and where llvmlite is not installed or may not make code, NumPy does the same. Bits do not differ.
Calls release the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.errors import PenstockError
from penstock.window.bars.cells import WORDS, Cells
from penstock.window.bars.input import Rows
from penstock.window.grid import Int64

__all__ = ["AFTER", "Kernel", "Strings", "kernel", "place"]

AFTER: int | None = 4096
"""Rows before LLVM is loaded; None for never."""

_USUAL = (("fold", True, "int64", False, False), ("scan", "int64"), ("number", "i32", True), ("collect",))
"""Compiled together: trades with whole sizes and symbols in a dictionary. All others are compiled when called for."""

_seen = 0
_made: Kernel | None = None
_failed = False


class Strings:
    """Numbers of strings by a hash table of their bytes.  Cost  3 ns per row, 32 to 64 bytes per string."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._bits = 0
        self._table = np.empty((0, 2), np.int64)
        self._count = 0

    def find(self, column: pa.Array, known: pa.Array) -> tuple[NDArray[np.intp], bool]:
        """The number of each string, -1 for unknown ones; whether all are known.

        Takes   column: strings or large strings without nulls; known: strings by number, those of before and more.
        """
        count = len(known)
        if not self._bits or 2 * count > len(self._table):
            self._bits = max(10, (4 * count - 1).bit_length())
            self._table = np.full((1 << self._bits, 2), -1, np.int64)
            self._count = 0
        table = place(self._table)
        offsets, text, _ = _layout(known)
        if count > self._count:
            fresh = known.slice(self._count)
            self._kernel.strings(False)[1](
                len(fresh), *_layout(fresh), table, self._bits, offsets, text, 0, self._count
            )
            self._count = count
        out = np.empty(len(column), np.intp)
        find, _ = self._kernel.strings(pa.types.is_large_string(column.type))
        worst = find(len(column), *_layout(column), table, self._bits, offsets, text, place(out))
        return out, worst >= 0


def _layout(column: pa.Array) -> tuple[int, int, int]:
    """Where the offsets of these strings are, where their bytes, and how many bytes there are."""
    _, offsets, data = column.buffers()
    width = 8 if pa.types.is_large_string(column.type) else 4
    return offsets.address + width * column.offset, data.address if data else 0, data.size if data else 0


def place(array: NDArray[Any]) -> int:
    """Where an array without gaps lies, in a fifth of the time of `array.ctypes.data`; ValueError for gaps."""
    return pa.py_buffer(array).address  # type: ignore[no-any-return]


def kernel(rows: int) -> Kernel | None:
    """The compiled loops, for a batch of so many rows; None where NumPy is to do it."""
    global _seen, _made, _failed
    if AFTER is None or _failed:
        return None
    if _made is None:
        _seen += rows
        if _seen < AFTER:
            return None
        try:
            _made = Kernel()
        except (ImportError, OSError, RuntimeError, PenstockError):
            _failed = True
    return _made


class Kernel:
    """The loops, the usual ones compiled at once, the others when first called for.

    Raises  ImportError without llvmlite, and what LLVM raises where no code can be made.
    """

    def __init__(self) -> None:
        if sys.byteorder != "little" or np.dtype(np.intp).itemsize != 8:
            raise ImportError("the loops are written for 64 bits, little endian")
        from penstock.native import jit
        from penstock.window.bars import loops

        self._loops: Any = loops
        self._compile = jit.compile_text
        self._functions: dict[Any, Callable[..., int]] = {}  # by name, loop
        self._code: dict[Any, Any] = {}
        self._function(*_USUAL[0])

    def _function(self, *loop: Any, name: str = "") -> Callable[..., int]:
        """The function `name` (that of the loop when not given) of one of `loops` and its arguments."""
        found = self._functions.get((name, loop))
        if found is None:
            wanted = _USUAL if loop in _USUAL else (loop,)
            if wanted not in self._code:
                text = self._loops.text(*wanted)
                self._code[wanted] = self._compile(text), text
            code, text = self._code[wanted]
            called = name or loop[0]
            head = next(line for line in text.splitlines() if line.startswith("define") and f"@{called}(" in line)
            kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * head.count("%"))
            found = self._functions[name, loop] = kind(code.address(called))
        return found

    def fold(self, cells: Cells, at: Int64, rows: Rows, stops: Int64, bases: Int64) -> None:
        """`cells.fold` into cells `bases[r] + at` of the rows up to `stops[r]`.

        Cost  1.5 ns per row, 3 ns when all rows are of one cell or of 100,000.
        """
        one = rows.high is rows.open and rows.close is rows.open
        size = "" if rows.volume is None else cells.kind
        function = self._function("fold", one, size, rows.amount is not None, rows.trades is not None)
        if one:
            close = place(rows.close)
            prices = (close, close, close, close)
        else:
            prices = (place(rows.open), place(rows.high), place(rows.low), place(rows.close))
        rest = [0 if column is None else place(column) for column in (rows.volume, rows.amount, rows.trades)]
        function(
            place(cells.words), len(stops), place(stops), place(bases), place(at), place(rows.time), *prices, *rest
        )

    def collect(self, cells: Cells, pages: NDArray[np.intp], width: int) -> tuple[Int64, Int64, Cells]:
        """The cells in use of these pages (that begin at cells `pages`), which are empty then: page, symbol, copies.

        Cost  0.5 ns per cell, 6 ns per cell in use.
        """
        given = (place(cells.words), len(pages), place(pages), width)
        count = self._function("collect", name="count")(*given)
        numbers, columns = np.empty((2, count), np.int64), np.empty((WORDS, count), np.int64)
        at = place(numbers)
        self._function("collect", name="take")(*given, count, at, at + 8 * count, place(columns))
        return numbers[0], numbers[1], Cells(columns.T, cells.kind)

    def scan(self, time: Int64, price: NDArray[Any], size: NDArray[Any] | None) -> tuple[int, int]:
        """1 for times that decrease, 2 for a price that is not finite, 4 for a size below 0 or not finite, summed.

        And the greatest of integer sizes.  Cost  0.3 ns per row.
        """
        function = self._function("scan", "" if size is None else "int64" if size.dtype == np.int64 else "float64")
        most = np.empty(1, np.int64)
        odd = function(len(time), place(time), place(price), 0 if size is None else place(size), place(most))
        return odd, int(most[0])

    def number(self, codes: NDArray[Any], base: int, table: NDArray[np.intp]) -> tuple[NDArray[np.intp], bool]:
        """table[codes - base], -1 outside the table; whether all are at least 0.  Cost  0.6 ns per row."""
        kind = codes.dtype
        function = self._function("number", f"i{8 * kind.itemsize}", kind.kind == "i")
        out = np.empty(len(codes), np.intp)
        worst = function(len(codes), place(codes), base, place(table), len(table), place(out))
        return out, worst >= 0

    def strings(self, wide: bool) -> tuple[Callable[..., int], Callable[..., int]]:
        """`find` and `add` of `loops.strings`; wide: for offsets of 64 bits."""
        of = "i64" if wide else "i32"
        return self._function("strings", of, name="find"), self._function("strings", of, name="add")

    def seek(self, keys: Int64, table: Int64, bits: int) -> NDArray[np.intp]:
        """`open.Table._seek`."""
        out = np.empty(len(keys), np.intp)
        self._function("seek")(len(keys), place(keys), place(table), bits, place(out))
        return out
