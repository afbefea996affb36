"""Symbols as numbers, in the order in which rows first showed them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.errors import RecordError, SchemaMismatch, TypeMismatch
from penstock.window.bars.input import place

__all__ = ["Symbols"]

_NULL = -2
_WIDEST = 1 << 21  # integers in a table; 16 MB


class Symbols:
    """Numbers for symbols: 0 for the first one seen, 1 for the next. Text of any Arrow kind, or integers.

    Cost    integers from a narrow range and dictionaries seen before 1-2 ns per row, strings 13 ns; one dict entry
            per symbol for ever.
    """

    def __init__(self, by: str) -> None:
        self.by = by
        self.kind = ""  # "string", "int64", "uint64"; "" until the first batch
        self._number: dict[Any, int] = {}
        self._array: pa.Array | None = None
        self._fresh: list[Any] = []  # not in _array yet
        self._table = np.full(1, -1, np.intp)  # number of integer _base + i
        self._base = 0
        self._range: tuple[int, ...] = ()  # least and greatest integer the table was made for
        self._dictionary: pa.Array | None = None
        self._lookup = self._table

    def __len__(self) -> int:
        return len(self._number)

    def find(self, symbol: Any) -> int | None:
        return self._number.get(symbol)

    def encode(self, batch: pa.RecordBatch, first: int) -> NDArray[np.intp]:
        """(n,) the number of each row's symbol.

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
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_integer(kind):
            wanted = "uint64" if kind == pa.uint64() else "int64"
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or _is_view(kind):
            wanted = "string"
        else:
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
        self.kind = wanted
        if pa.types.is_dictionary(column.type):
            return self._dictionaries(column, first)
        if wanted == "string":
            if _is_view(column.type):
                column = column.cast(pa.large_string())
            if 0 < 4 * len(self._number) <= len(column):
                # Few symbols, all seen before: 7 ns a row, against 13 by way of a dictionary of the batch.
                known = pc.index_in(column, value_set=self.array().cast(column.type))
                if not known.null_count:
                    numbers: NDArray[np.intp] = known.to_numpy().astype(np.intp)
                    return numbers
            return self._dictionaries(column.dictionary_encode(), first, shared=False)
        return self._integers(column, first)

    def _integers(self, column: pa.Array, first: int) -> NDArray[np.intp]:
        values = column.to_numpy(zero_copy_only=False)
        low, high = int(values.min()), int(values.max())
        if not self._base <= low <= high < self._base + len(self._table):
            low, high = min((low, *self._range)), max((high, *self._range))
            reach = high - low + 1
            if reach > max(_WIDEST, 8 * len(self._number)) or low < -(2**62) or high > 2**62:
                return self._dictionaries(column.dictionary_encode(), first, shared=False)
            self._range = (low, high)
            self._base, self._table = low, np.full(1 << (reach - 1).bit_length(), -1, np.intp)
            for value, number in self._number.items():
                if low <= value <= high:
                    self._table[value - low] = number
        table = self._table
        at = values.astype(np.intp) - self._base if self._base or values.dtype != np.intp else values
        out: NDArray[np.intp] = table.take(at)
        if int(out.min()) < 0:
            new, where = np.unique(values[out < 0], return_index=True)
            new = new[np.argsort(where)]
            table[new.astype(np.intp) - self._base] = self._add(new.tolist())
            out = table.take(at)
        return out

    def _dictionaries(self, column: pa.DictionaryArray, first: int, shared: bool = True) -> NDArray[np.intp]:
        """`shared`: the dictionary may be that of the batches before."""
        values, codes = column.dictionary, column.indices.to_numpy(zero_copy_only=False)
        if shared and _same(values, self._dictionary):
            lookup = self._lookup
        elif len(values) > 4 * len(codes) + 1024:
            # A wide dictionary under few rows: look up what the rows use.
            used, codes = np.unique(codes, return_inverse=True)
            values = _plain(values).take(pa.array(used))
            lookup = self._numbers(values)
        else:
            lookup = self._numbers(values)
            if shared:
                self._dictionary, self._lookup = values, lookup
        out: NDArray[np.intp] = lookup.take(codes)
        if int(out.min()) < 0:
            if values.null_count and (null := out == _NULL).any():
                self._refuse_null(first + int(null.argmax()))
            # New ones get their numbers in the order of rows, whatever the order of the dictionary.
            new, where = np.unique(codes[out < 0], return_index=True)
            new = new[np.argsort(where)]
            lookup[new] = self._add(_plain(values).take(pa.array(new)).to_pylist())
            out = lookup.take(codes)
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


def _same(one: pa.Array, other: pa.Array | None) -> bool:
    if other is None or len(one) != len(other) or one.type != other.type:
        return False
    if one.offset == other.offset:
        # A dictionary shared by many batches keeps its buffers; we hold them, so no other can take their place.
        places = [b.address if b else 0 for b in one.buffers()]
        if places == [b.address if b else 0 for b in other.buffers()]:
            return True
    return bool(one.equals(other))


def _is_view(kind: pa.DataType) -> bool:
    return str(kind) == "string_view"  # pyarrow 15 has no name for it


def _plain(values: pa.Array) -> pa.Array:
    """Views as strings: pyarrow cannot take from views."""
    return values.cast(pa.large_string()) if _is_view(values.type) else values
