"""Symbols as numbers, in the order in which rows first showed them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.errors import RecordError, SchemaMismatch, TypeMismatch
from penstock.window.bars.input import place
from penstock.window.bars.kernel import Kernel, Strings

__all__ = ["Symbols"]

_NULL = -2
_WIDEST = 1 << 21  # integers in a table; 16 MB


class Symbols:
    """Numbers for symbols: 0 for the first one seen, 1 for the next. Text of any Arrow kind, or integers.

    Cost    integers from a narrow range and dictionaries seen before 0.6 ns per row, strings 4 ns (without llvmlite
            1-2 and 7-13); one dict entry per symbol for ever.
    """

    def __init__(self, by: str) -> None:
        self.by = by
        self.kind = ""  # "string", "int64", "uint64"; "" until the first batch
        self._type: pa.DataType | None = None  # of the column before
        self._number: dict[Any, int] = {}
        self._array: pa.Array | None = None
        self._fresh: list[Any] = []  # not in _array yet
        self._table = np.full(1, -1, np.intp)  # number of integer _base + i
        self._base = 0
        self._range: tuple[int, ...] = ()  # least and greatest integer the table was made for
        self._dictionary: pa.Array | None = None
        self._met: pa.Array | None = None  # the last wide dictionary
        self._lookup = self._table
        self._hashed: Strings | None = None  # of all symbols that are strings

    def __len__(self) -> int:
        return len(self._number)

    def find(self, symbol: Any) -> int | None:
        return self._number.get(symbol)

    def encode(self, batch: pa.RecordBatch, first: int, kernel: Kernel | None = None) -> NDArray[np.intp]:
        """(n,) the number of each row's symbol; kernel: the compiled loops, None to do without.

        Raises  SchemaMismatch without such a column, TypeMismatch for another type, RecordError for a null.
        """
        if self.by not in batch.schema.names:
            raise SchemaMismatch(
                expected=f"a column `{self.by}`",
                got=f"columns {', '.join(batch.schema.names)}",
                where="in Bars",
                hint="name the column with by=",
                column=self.by,
            )
        column = batch.column(self.by)
        if column.type == self._type:
            wanted = self.kind
        elif (wanted := _wanted(column.type)) == "":
            raise TypeMismatch(
                expected=f"strings or integers for `{self.by}`",
                got=str(column.type),
                where=place(first, self.by),
                hint="cast the column before it comes here",
                column=self.by,
            )
        if self.kind not in ("", wanted):
            raise TypeMismatch(
                expected=f"{self.kind} for `{self.by}`, as in the batches before",
                got=wanted,
                where=place(first, self.by),
                column=self.by,
            )
        if column.null_count:
            self._refuse_null(first + int(column.is_null().to_numpy(zero_copy_only=False).argmax()))
        if not len(column):
            return np.empty(0, np.intp)
        self.kind, self._type = wanted, column.type
        if pa.types.is_dictionary(column.type):
            return self._dictionaries(column, first, kernel)
        if wanted == "string":
            if _is_view(column.type):
                column = column.cast(pa.large_string())
            if kernel is not None:
                return self._strings(column, kernel)
            if 0 < 4 * len(self._number) <= len(column):
                # Few symbols, all seen before: 7 ns a row, against 13 by way of a dictionary of the batch.
                known = pc.index_in(column, value_set=self.array().cast(column.type))
                if not known.null_count:
                    numbers: NDArray[np.intp] = known.to_numpy().astype(np.intp)
                    return numbers
            return self._dictionaries(column.dictionary_encode(), first, kernel, shared=False)
        return self._integers(column, first, kernel)

    def _strings(self, column: pa.Array, kernel: Kernel) -> NDArray[np.intp]:
        if self._hashed is None:
            self._hashed = Strings(kernel)
        out, known = self._hashed.find(column, self.array())
        if not known:
            new = np.flatnonzero(out < 0)
            # An encoding numbers what it meets in the order of rows.
            met = column.take(pa.array(new)).dictionary_encode()
            out[new] = np.array(self._add(met.dictionary.to_pylist()), np.intp)[met.indices.to_numpy()]
        return out

    def _integers(self, column: pa.Array, first: int, kernel: Kernel | None) -> NDArray[np.intp]:
        values = column.to_numpy(zero_copy_only=False)
        if kernel is not None:
            known, good = kernel.number(values, self._base, self._table)
            if good:
                return known
        low, high = int(values.min()), int(values.max())
        if not self._base <= low <= high < self._base + len(self._table):
            low, high = min((low, *self._range)), max((high, *self._range))
            reach = high - low + 1
            if reach > max(_WIDEST, 8 * len(self._number)) or low < -(2**62) or high > 2**62:
                return self._dictionaries(column.dictionary_encode(), first, kernel, shared=False)
            self._range = (low, high)
            self._base, self._table = low, np.full(1 << (reach - 1).bit_length(), -1, np.intp)
            for value, number in self._number.items():
                if low <= value <= high:
                    self._table[value - low] = number
        table = self._table
        at = values.astype(np.intp) - self._base if self._base or values.dtype != np.intp else values
        out: NDArray[np.intp] = table.take(at)
        if int(out.min()) < 0:
            new = _in_order(at[out < 0], len(table))
            table[new] = self._add((new + self._base).tolist())
            out = table.take(at)
        return out

    def _dictionaries(
        self, column: pa.DictionaryArray, first: int, kernel: Kernel | None, shared: bool = True
    ) -> NDArray[np.intp]:
        """`shared`: the dictionary may be that of the batches before."""
        values, codes = column.dictionary, column.indices.to_numpy(zero_copy_only=False)
        wide = len(values) > 4 * len(codes) + 1024
        if shared and _same(values, self._dictionary, wide):
            lookup = self._lookup
        elif wide and not (shared and _same(values, self._met, True)):
            # A wide dictionary under few rows: look up what the rows use. When it comes again, a table pays.
            self._met = values if shared else self._met
            used, codes = np.unique(codes, return_inverse=True)
            values = _plain(values).take(pa.array(used))
            lookup = self._numbers(values)
        else:
            lookup = self._unknown(values) if wide else self._numbers(values)
            if shared:
                self._dictionary, self._lookup = values, lookup
        out, known = _look(lookup, codes, kernel)
        if not known:
            if values.null_count and (null := out == _NULL).any():
                self._refuse_null(first + int(null.argmax()))
            # New ones get their numbers in the order of rows, whatever the order of the dictionary.
            new = _in_order(codes[out < 0], len(lookup))
            lookup[new] = self._add(_plain(values).take(pa.array(new)).to_pylist())
            out, _ = _look(lookup, codes, kernel)
        return out

    def _refuse_null(self, row: int) -> None:
        raise RecordError(
            expected=f"a symbol in `{self.by}`",
            got="null",
            where=place(row, self.by),
            hint="filter such rows out before they come here",
            row=row,
        )

    def _numbers(self, values: pa.Array) -> NDArray[np.intp]:
        get = self._number.get
        return np.array([_NULL if value is None else get(value, -1) for value in values.to_pylist()], np.intp)

    def _unknown(self, values: pa.Array) -> NDArray[np.intp]:
        """As if all were new: those that rows use are looked up then."""
        lookup = np.full(len(values), -1, np.intp)
        if values.null_count:
            lookup[values.is_null().to_numpy(zero_copy_only=False)] = _NULL
        return lookup

    def _add(self, values: list[Any]) -> list[int]:
        """Their numbers, new ones for those not seen before."""
        number = self._number
        if number.keys().isdisjoint(values) and len(set(values)) == len(values):
            numbers = list(range(len(number), len(number) + len(values)))
            number.update(zip(values, numbers, strict=True))
            self._fresh.extend(values)
            return numbers
        for value in values:
            if value not in number:
                number[value] = len(number)
                self._fresh.append(value)
        return [number[value] for value in values]

    @property
    def type(self) -> pa.DataType:
        return {"int64": pa.int64(), "uint64": pa.uint64()}.get(self.kind, pa.string())

    def array(self) -> pa.Array:
        """All symbols, by number."""
        if self._array is None:
            self._array = pa.array([], self.type)
        if self._fresh:
            self._array = pa.concat_arrays([self._array.cast(self.type), pa.array(self._fresh, self.type)])
            self._fresh = []
        return self._array

    def load(self, kind: str, values: list[Any]) -> None:
        """Put back the symbols of a snapshot."""
        self.__init__(self.by)  # type: ignore[misc]
        self.kind = kind
        self._add(values)


def _wanted(kind: pa.DataType) -> str:
    """What symbols of that type are: "string", "int64", "uint64", or "" for no symbols."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind):
        return "uint64" if kind == pa.uint64() else "int64"
    return "string" if pa.types.is_string(kind) or pa.types.is_large_string(kind) or _is_view(kind) else ""


def _same(one: pa.Array, other: pa.Array | None, shallow: bool) -> bool:
    """Whether they are equal; shallow: only when they share their memory."""
    if other is None or len(one) != len(other) or one.type != other.type:
        return False
    if one.offset == other.offset:
        # A dictionary shared by many batches keeps its buffers; we hold them, so no other can take their place.
        places = [b.address if b else 0 for b in one.buffers()]
        if places == [b.address if b else 0 for b in other.buffers()]:
            return True
    return not shallow and bool(one.equals(other))


def _look(lookup: NDArray[np.intp], codes: NDArray[Any], kernel: Kernel | None) -> tuple[NDArray[np.intp], bool]:
    """lookup[codes], and whether none is below 0; IndexError for a code outside."""
    if kernel is not None and len(lookup):
        out, known = kernel.number(codes, 0, lookup)
        if known or 0 <= int(codes.min()) <= int(codes.max()) < len(lookup):
            return out, known
    out = lookup.take(codes)
    return out, int(out.min()) >= 0


def _in_order(places: NDArray[Any], size: int) -> NDArray[np.intp]:
    """Each place of a table of that size once, by where it first occurs."""
    if size > 16 * len(places) + 1024:
        new, first = np.unique(places, return_index=True)
        return new[np.argsort(first)].astype(np.intp)
    # Of repeated targets the last assignment stays: backwards, that is the first occurrence.
    mark = np.full(size, -1, np.intp)
    mark[places[::-1]] = np.arange(len(places) - 1, -1, -1)
    new = np.flatnonzero(mark >= 0)
    return new[np.argsort(mark[new])]


def _is_view(kind: pa.DataType) -> bool:
    return str(kind) == "string_view"  # pyarrow 15 has no name for it


def _plain(values: pa.Array) -> pa.Array:
    """Views as strings: pyarrow cannot take from views."""
    return values.cast(pa.large_string()) if _is_view(values.type) else values
