"""Rows of bars as numbers: what waits for its tick, and what a tick is made of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import FactorError, WindowError
from penstock.factor.frames import Labels
from penstock.records import event_column, event_times, is_document
from penstock.window.keys import Keys
from penstock.window.pending import Int64, Rows

if TYPE_CHECKING:
    from penstock.factor.program import Program

__all__ = ["Bars", "Held"]

Array = np.ndarray[Any, np.dtype[Any]]
_REVISION = "revision"


@dataclass(frozen=True, slots=True)
class Held:
    """Rows: times, offsets, created (ns), numbers of symbols, revisions; values (inputs, rows) as the program's."""

    times: Int64
    offsets: Int64
    created: Int64
    codes: Int64
    revision: Int64
    values: Array

    def __len__(self) -> int:
        return len(self.times)

    def at(self, rows: Any) -> Held:
        """Some of the rows: positions, a mask or a slice."""
        return _held((part[rows] for part in self.columns()), self.values[:, rows])

    def columns(self) -> tuple[Int64, Int64, Int64, Int64, Int64]:
        """All but the values."""
        return self.times, self.offsets, self.created, self.codes, self.revision

    @staticmethod
    def join(parts: Sequence[Held]) -> Held:
        """The rows of all parts, one behind the other."""
        if len(parts) == 1:
            return parts[0]
        columns = (np.concatenate(some) for some in zip(*(part.columns() for part in parts), strict=True))
        return _held(columns, np.concatenate([part.values for part in parts], axis=1))

    def by_time(self) -> Held:
        """In the order of times; rows of one time as they are."""
        if bool((self.times[1:] >= self.times[:-1]).all()):
            return self
        return self.at(np.argsort(self.times, kind="stable"))

    def once(self) -> Held:
        """One row for each time and symbol: the highest revision, of equal ones the last. Rows are by time already."""
        order = np.lexsort((self.revision, self.codes, self.times))
        times, codes = self.times[order], self.codes[order]
        last = np.append((times[1:] != times[:-1]) | (codes[1:] != codes[:-1]), True)
        if last.all():
            return self
        return self.at(np.sort(order[last]))


def _held(columns: Iterable[Int64], values: Array) -> Held:
    times, offsets, created, codes, revision = columns
    return Held(times, offsets, created, codes, revision, values)


class Bars:
    """Reads rows of a stream: what their columns must be, and what they are as numbers.

    Takes   symbol: name of the column of symbols; time: of the times, None for the stream's event column;
            symbols: those that are wanted, for their type.
    """

    def __init__(self, program: Program, symbol: str, time: str | None, symbols: Sequence[Any] | None) -> None:
        self.program = program
        self.symbol, self.time = symbol, time
        self.keys = Keys(symbol)
        self.labels = Labels(program.labels)
        self._symbols = symbols
        self._names = pa.array([], pa.null())
        self.schema = pa.schema([])
        """Of the factors; known once `bind` has seen a schema of bars."""

    def bind(self, schema: pa.Schema) -> None:
        """Check a schema of bars.   Raises  FactorError that names what is missing or unfit."""
        if is_document(schema):
            raise FactorError(
                expected=f"a stream with columns {', '.join([self.symbol, *self.program.inputs])}",
                got="JSON documents",
                hint="make it with a schema: hub.streams.get(name, schema=ps.records.BARS)",
            )
        time = self.time or event_column(schema)
        if time is None:
            raise _missing("event time column", schema, 'name it: time="…"')
        for name in (self.symbol, time, *self.program.inputs):
            if name not in schema.names:
                near = difflib.get_close_matches(name, schema.names, 1)
                raise _missing(f"column {name!r}", schema, f"did you mean {near[0]!r}?" if near else None)
        both = [name for name in (self.symbol, time) if name in self.program.outputs]
        if both:
            raise FactorError(
                f"{both[0]!r} is a column of the stream and an output", hint="give the factor another name"
            )
        kind = schema.field(time).type
        if not (pa.types.is_int64(kind) or pa.types.is_timestamp(kind) or pa.types.is_date32(kind)):
            raise FactorError(
                expected=f"int64 (ns), timestamps or dates in {time!r}", got=str(kind), hint='name the column: time="…"'
            )
        key = _plain(schema.field(self.symbol).type)
        if not (_is_text(key) or pa.types.is_integer(key)):
            raise FactorError(
                expected=f"texts or whole numbers in {self.symbol!r}", got=str(key), hint='name the column: symbol="…"'
            )
        wanted = None if self._symbols is None else self._symbols[0]
        if wanted is not None and isinstance(wanted, str) != _is_text(key):
            raise FactorError(expected=f"symbols of {key}, as in {self.symbol!r}", got=repr(wanted), where="in symbols")
        for name in self.program.inputs:
            value = _plain(schema.field(name).type)
            label = name in self.labels.codes and _is_text(value)
            if not (label or pa.types.is_integer(value) or pa.types.is_floating(value) or pa.types.is_boolean(value)
                    or pa.types.is_decimal(value)):  # fmt: skip
                raise FactorError(
                    expected=f"numbers in {name!r}",
                    got=str(value),
                    hint="texts are read as group labels where an input is only used as a group",
                )
        self._time = schema.field(time)
        self._key = pa.string() if key == pa.string_view() else key  # pyarrow cannot take from views
        number = pa.from_numpy_dtype(self.program.dtype)
        self.schema = pa.schema(
            [
                pa.field(self.symbol, self._key, nullable=False),
                pa.field(time, self._time.type, nullable=False),
                *(pa.field(name, number) for name in self.program.outputs),
            ],
            metadata=None if time == "ts_event" else {b"penstock.event": time.encode()},
        )

    def codes(self, rows: Rows) -> Int64:
        """The number of each row's symbol.   Raises  WindowError with the offset of a row that has none."""
        column = rows.batch.column(self.symbol)
        if column.null_count:
            row = int(column.is_null().to_numpy(zero_copy_only=False).argmax())
            raise WindowError(
                expected=f"a symbol in {self.symbol!r}",
                got="null",
                where=f"in row {int(rows.offsets[row])}",
                hint="such a row belongs to nobody",
                offset=int(rows.offsets[row]),
            )
        return self.keys.encode(rows)

    def times(self, rows: Rows) -> Int64:
        """The time of each row, ns."""
        return event_times(rows.batch, self._time.name)

    def read(self, rows: Rows, at: Int64, times: Int64, codes: Int64) -> Held:
        """The rows at these positions; `times` and `codes` are of all."""
        batch, count = rows.batch, len(rows)
        whole = len(at) == count
        values = np.empty((len(self.program.inputs), len(at)), self.program.dtype)
        for number, name in enumerate(self.program.inputs):
            found = self._numbers(batch.column(name), name)
            with np.errstate(over="ignore"):  # beyond float32 is infinite
                values[number] = found if whole else found[at]
        if _REVISION in batch.schema.names and pa.types.is_integer(batch.schema.field(_REVISION).type):
            column = batch.column(_REVISION)
            column = pc.fill_null(column, 0) if column.null_count else column
            revision = column.to_numpy(zero_copy_only=False).astype(np.int64)
        else:
            revision = np.zeros(count, np.int64)
        columns = (times, rows.offsets, rows.created, codes, revision)
        return _held((column if whole else column[at] for column in columns), values)

    def _numbers(self, column: pa.Array, name: str) -> Array:
        if isinstance(column, pa.DictionaryArray):
            column = column.dictionary_decode()
        kind = column.type
        if pa.types.is_boolean(kind):
            column = column.cast(pa.uint8())
        elif _is_text(kind):
            encoded = column.cast(pa.large_string()).dictionary_encode()
            table = np.append(self.labels.encode(name, encoded.dictionary.to_pylist()), np.nan)
            found: Array = table[pc.fill_null(encoded.indices, len(table) - 1).to_numpy(zero_copy_only=False)]
            return found
        elif pa.types.is_integer(kind) and not column.null_count:
            return np.asarray(column.to_numpy(), np.float64)  # for few rows cheaper than a cast
        if not pa.types.is_float64(kind):
            column = column.cast(pa.float64(), safe=False)
        found = column.to_numpy(zero_copy_only=False)  # null is NaN
        return found

    def table(self, codes: Int64, times: Int64, values: Sequence[Array] | Array) -> pa.RecordBatch:
        """Rows of factors: missing is NaN, and nothing is null."""
        if len(self._names) != len(self.keys.values) or self._names.type != self._key:
            self._names = pa.array(self.keys.values, self._key)
        kind = self._time.type
        if pa.types.is_int64(kind):
            when = pa.array(times)
        else:
            when = pa.array(times, pa.timestamp("ns", getattr(kind, "tz", None))).cast(kind)
        return pa.RecordBatch.from_arrays(
            [self._names.take(pa.array(codes)), when, *(pa.array(value) for value in values)], schema=self.schema
        )


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _missing(what: str, schema: pa.Schema, hint: str | None) -> FactorError:
    return FactorError(
        expected=f"a stream with {'an' if what[0] == 'e' else 'a'} {what}",
        got=f"columns {', '.join(schema.names)}",
        hint=hint,
    )
