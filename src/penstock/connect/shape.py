"""What a file holds → what a stream wants: names, types, constants, event time; and the rows that do not fit.

A `Piece` is rows as a reader found them; `Shape.fit` makes a `Fit` of it. Neither reads or waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.connect.cells import conform_column, convert, text_of, text_type
from penstock.connect.times import MISSING, REASONS, Times, column_times
from penstock.errors import SourceError
from penstock.records import event_column, event_times
from penstock.records.describe import near, type_name, value_text

__all__ = ["EVENT", "SKIP", "Bad", "Fit", "Piece", "Shape", "time_array"]

EVENT = "ts_event"
SKIP = 'set on_bad="skip" to drop such rows'
_Mark = tuple[str, str, str]  # column, expected, hint


@dataclass(frozen=True, slots=True)
class Bad:
    """One row that does not fit: where it stands, what was expected and found, and the row itself as `raw`."""

    source: str
    row: int
    line: int | None
    column: str | None
    expected: str
    got: str
    hint: str
    raw: Any

    @property
    def where(self) -> str:
        place = f"{self.source}:{self.line}" if self.line is not None else f"{self.source} row {self.row}"
        return f"at {place}" + (f", column `{self.column}`" if self.column is not None else "")

    def error(self) -> SourceError:
        return SourceError(
            expected=self.expected, got=self.got, where=self.where, hint=self.hint, row=self.row, column=self.column
        )

    def document(self) -> dict[str, Any]:
        """The row for an error stream: a JSON object."""
        keys = ("source", "row", "line", "column", "expected", "got", "raw")
        return {key: getattr(self, key) for key in keys}


@dataclass(slots=True)
class Piece:
    """Consecutive rows of one source, as read.

    batch    the rows;  rows  (rows,) their numbers in the source, from 0;  stop  the number after the last row read,
    bad ones included;  base  rows of all sources before this one;  text  whether cells are still text (CSV);
    fitted   whether the columns are the wanted ones already;  line  row number → line in the file;
    times    event times known beside the columns (documents);  bad  rows that could not be read at all.
    """

    source: str
    batch: pa.RecordBatch
    rows: NDArray[np.int64]
    stop: int
    base: int = 0
    text: bool = False
    fitted: bool = False
    line: Callable[[int], int] | None = None
    times: NDArray[np.int64] | None = None
    bad: list[Bad] = field(default_factory=list)


@dataclass(slots=True)
class Fit:
    """Rows that fit, and those that do not.

    batch, rows, stop  as of a Piece, but numbered through all sources;  times  event times, None if there are none;
    bad                (number, row) of each row that does not fit.
    """

    batch: pa.RecordBatch
    rows: NDArray[np.int64]
    stop: int
    times: NDArray[np.int64] | None
    bad: list[tuple[int, Bad]]


class Shape:
    """How columns of a source become columns of a stream.

    Takes   schema: the columns wanted, or None to keep what is there; columns: the source columns to keep;
            rename: source name → stream name; constants: columns to add, one value for all rows;
            time: the source column with the event time, which comes out as int64 ns UTC named `ts_event`;
            unit, zone: see `times.column_times`.
    """

    def __init__(
        self,
        *,
        schema: pa.Schema | None = None,
        columns: Sequence[str] | None = None,
        rename: Mapping[str, str] | None = None,
        constants: Mapping[str, Any] | None = None,
        time: str | None = None,
        unit: str = "ns",
        zone: ZoneInfo | None = None,
    ) -> None:
        self.schema = schema
        self.columns = None if columns is None else list(columns)
        self.asked = dict(rename or {})
        self.rename = dict(self.asked)
        self.constants = dict(constants or {})
        self.unit = unit
        self.zone = zone
        self.event = EVENT if schema is None else (event_column(schema) or (EVENT if time is not None else None))
        if time is not None and self.event is not None:
            self.rename.setdefault(time, self.event)
        self.time = time
        self._types: dict[str, pa.DataType] = {}  # of text columns, found in the first piece

    def row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The same for one dict: chosen, renamed, constants added; keys that the schema has not are left out.

        Without a schema it stays a document, whose event time keeps its name.
        """
        names = self.asked if self.schema is None else self.rename
        renamed = {names.get(k, k): v for k, v in row.items() if self.columns is None or k in self.columns}
        renamed.update(self.constants)
        return renamed if self.schema is None else {k: v for k, v in renamed.items() if k in self.schema.names}

    def wanted(self, names: Sequence[str], source: str) -> list[str]:
        """The columns of a source to read, in its order.

        Raises  SourceError if a column that was named, or that the schema does not let be null, is missing.
        """
        if len(set(names)) != len(names):
            twice = next(name for name in names if list(names).count(name) > 1)
            raise SourceError(
                expected="each column once", got=f"{twice!r} twice", where=f"in {source}", hint="rename one in the file"
            )
        here = {self.rename.get(name, name): name for name in names}
        for name in [*(self.columns or ()), *self.rename, *([self.time] if self.time else ())]:
            if name not in names:
                raise self._missing(name, names, source)
        if len(here) < len(names):
            target = next(self.rename.get(n, n) for n in names if here[self.rename.get(n, n)] != n)
            raise SourceError(
                f"two columns would be named {target!r}", where=f"in {source}", hint="choose with columns= or rename="
            )
        keep = list(self.columns) if self.columns is not None else list(names)
        if self.time is not None and self.time not in keep:
            keep.append(self.time)
        if self.schema is None:
            return [name for name in keep if self.rename.get(name, name) not in self.constants]
        for target in self.schema:
            absent = here.get(target.name) not in keep and target.name not in self.constants
            if absent and not target.nullable:
                raise self._missing(target.name, names, source)
        return [n for n in keep if (t := self.rename.get(n, n)) in self.schema.names and t not in self.constants]

    def _missing(self, name: str, names: Sequence[str], source: str) -> SourceError:
        close = near(name, names) or next((n for n in names if n.lower() == name.lower()), None)
        hint = f"set rename={{{close!r}: {name!r}}}" if close else f"set rename= or constants={{{name!r}: ...}}"
        have = ", ".join(map(repr, names))
        return SourceError(
            expected=f"a column {name!r}", got=f"the columns {have}", where=f"in {source}", hint=hint, column=name
        )

    def fit(self, piece: Piece, *, first_only: bool) -> Fit:
        """The rows that fit and those that do not, in order.

        Takes   first_only: cut the piece before its first bad row instead of leaving bad rows out.
        """
        fields, arrays, times = list(piece.batch.schema), piece.batch.columns, piece.times
        marks: dict[int, _Mark] = {}
        if not piece.fitted:
            fields, arrays = [], []
            names = self.wanted(piece.batch.schema.names, piece.source)
            for target in self._targets(piece, names):
                array, ns = self._column(piece, target, names, marks, first_only)
                fields.append(target)
                arrays.append(array)
                times = times if ns is None else ns
        elif times is None and self.event is not None and self.event in piece.batch.schema.names:
            times = event_times(piece.batch, self.event)
        good = np.ones(len(piece.rows), np.bool_)
        good[list(marks)] = False
        if first_only and (marks or piece.bad):
            first = min([*(int(piece.rows[i]) for i in marks), *(b.row for b in piece.bad)])
            good &= piece.rows < first
            bad = [b for b in piece.bad if b.row == first] or [self._bad(piece, min(marks), marks)]
        else:
            bad = sorted([*piece.bad, *(self._bad(piece, i, marks) for i in marks)], key=lambda b: b.row)
        rows = piece.rows
        if not good.all():
            keep = np.flatnonzero(good)
            arrays = [array.take(pa.array(keep)) for array in arrays]
            times, rows = None if times is None else times[keep], rows[keep]
        metadata = (piece.batch.schema if self.schema is None else self.schema).metadata
        batch = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields, metadata=metadata))
        numbered = [(piece.base + b.row, b) for b in bad]
        return Fit(batch, rows + piece.base, piece.base + piece.stop, times, numbered)

    def _targets(self, piece: Piece, names: Sequence[str]) -> Iterator[pa.Field]:
        if self.schema is not None:
            yield from self.schema
            return
        for name in names:
            target = self.rename.get(name, name)
            kind = piece.batch.schema.field(name).type
            if target == self.event:
                yield pa.field(target, pa.int64(), nullable=False)
            else:
                yield piece.batch.schema.field(name).with_name(target).with_type(self._type(piece, name, kind))
        for name, value in self.constants.items():
            yield pa.field(name, pa.scalar(value).type, nullable=False)

    def _type(self, piece: Piece, name: str, kind: pa.DataType) -> pa.DataType:
        if not piece.text:
            return kind
        if name not in self._types:
            self._types[name] = text_type(text_of(piece.batch.column(name), False)[0])
        return self._types[name]

    def _column(
        self, piece: Piece, target: pa.Field, names: Sequence[str], marks: dict[int, _Mark], first_only: bool
    ) -> tuple[pa.Array, NDArray[np.int64] | None]:
        """One target column and, if it is the event time, its ns; cells that do not fit are marked."""
        rows = len(piece.rows)
        if target.name in self.constants:
            value = pa.scalar(self.constants[target.name])
            return conform_column(pa.repeat(value, rows), target, "constants"), None
        source = next((n for n in names if self.rename.get(n, n) == target.name), None)
        if source is None:
            return pa.nulls(rows, target.type), None
        column, odd = piece.batch.column(source), set[int]()
        if piece.text:
            column, odd = text_of(column, first_only)
        if target.name == self.event or _is_time(target, column.type, piece.text):
            found = column_times(column, unit=self.unit, zone=self.zone)
            for i in np.flatnonzero(found.why).tolist():
                if found.why[i] != MISSING or not target.nullable or target.name == self.event:
                    marks.setdefault(i, (source, *REASONS[int(found.why[i])]))
            return time_array(found, target), found.ns if target.name == self.event else None
        array, wrong = convert(column, target, piece.text, piece.source, first_only)
        for i in odd:
            marks.setdefault(i, (source, "text in UTF-8", SKIP))
        for i in wrong:
            marks.setdefault(i, (source, type_name(target.type), SKIP))
        if not target.nullable and array.null_count:
            for i in np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False)).tolist():
                marks.setdefault(i, (source, "a value", SKIP))
        return array, None

    def _bad(self, piece: Piece, i: int, marks: dict[int, _Mark]) -> Bad:
        column, expected, hint = marks[i]
        row = int(piece.rows[i])
        raw = {name: _plain(value) for name, value in piece.batch.slice(i, 1).to_pylist()[0].items()}
        line = piece.line(row) if piece.line is not None else None
        got = "an empty cell" if raw[column] == "" else value_text(raw[column])
        return Bad(piece.source, row, line, column, expected, got, hint, raw)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str | int | float | bool | None | list | dict) else str(value)


def _is_time(target: pa.Field, kind: pa.DataType, text: bool) -> bool:
    """Whether a column that is not the event time is a time too: `ts_*` wanted as int64, or a timestamp from text."""
    if pa.types.is_int64(target.type) and target.name.startswith("ts_"):
        return text or not pa.types.is_integer(kind)
    return text and bool(pa.types.is_timestamp(target.type))


def time_array(found: Times, target: pa.Field) -> pa.Array:
    """Times as a column of `target`: int64 ns, or a timestamp, cut to its unit."""
    array = pa.array(found.ns, mask=found.why != 0)
    if pa.types.is_int64(target.type):
        return array
    return array.cast(pa.timestamp("ns", tz=getattr(target.type, "tz", None))).cast(target.type, safe=False)
