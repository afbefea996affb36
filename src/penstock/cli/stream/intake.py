"""What `penstock stream append` reads, into a stream: JSON and CSV lines as they come, files piece by piece.

A line that does not fit ends it, naming the line, once the rows before it are appended; or it is counted and left out.
"""

from __future__ import annotations

import csv
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from penstock.errors import PenstockError, RecordError, SourceError

if TYPE_CHECKING:
    import pyarrow as pa

    from penstock.log import Stream

__all__ = ["Intake", "Tally", "array", "blocks", "csv_lines", "json_lines"]

_BLOCK = 1 << 20
_BOM = b"\xef\xbb\xbf"
_SHOWN = 5


class Tally:
    """A stream that counts what is appended to it; sources append to it as to the stream itself."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._who = f"penstock stream append {uuid.uuid4()}"
        self._begun: tuple[int, tuple[str, int], int] | None = None  # number, origin and rows of an append
        # One value, so that an interruption finds an append counted, or not: its number, then rows, first and stop.
        self._counted: tuple[int, int, int | None, int | None] = (0, 0, None, None)

    @property
    def rows(self) -> int:
        """Rows appended."""
        return self._counted[1]

    @property
    def offsets(self) -> tuple[int | None, int | None]:
        """Offsets of the first row and after the last one; other producers' rows may lie between."""
        return self._counted[2:]

    def append(self, data: Any, *, origin: tuple[str, int] | None = None) -> range:
        """As the stream's own."""
        number, rows, first, _ = self._counted
        made_from = origin or (self._who, number + 1)
        self._begun = (number + 1, made_from, 1 if isinstance(data, dict) else data.num_rows)
        made = self.stream.append(data, origin=made_from)
        self._counted = (number + 1, rows + len(made), made.start if first is None else first, made.stop)
        return made

    def settle(self) -> None:
        """After an interruption: count an append that was committed, though nobody came to hear of it."""
        if self._begun is not None and self._begun[0] > self._counted[0]:
            number, (who, position), rows = self._begun
            if self.stream.last_origin(who) == (position, 0):
                self._counted = (number, self.rows + rows, *self.offsets)

    def last_origin(self, who: str) -> tuple[int, int] | None:
        """As the stream's own."""
        return self.stream.last_origin(who)


@dataclass
class Intake:
    """Rows as dicts, into a stream; each knows its place in the source.

    target   where they go;  place  how the source is called ("stdin", a path);  unit  what is counted ("line", "item")
    skip     whether what does not fit is left out;  warn  told of the first few of them;  skipped  how many
    """

    target: Tally
    place: str
    unit: str
    skip: bool
    warn: Callable[[str], None]
    skipped: int = 0

    def put(self, rows: list[tuple[int, Any]]) -> None:
        """Append rows, given with their numbers; a row may be an error found on the way, or bytes of JSON."""
        good: list[tuple[int, dict[str, Any]]] = []
        for number, row in rows:
            try:
                good.append((number, self._decoded(row)))
            except PenstockError as error:
                self._append(good)
                good = []
                self.bad(number, error)
        self._append(good)

    def _decoded(self, row: Any) -> dict[str, Any]:
        from penstock.records import decode_document

        if isinstance(row, PenstockError):
            raise row
        if isinstance(row, bytes):
            row = decode_document(row)
        if not isinstance(row, dict):
            raise RecordError(expected="a JSON object", got=repr(row)[:60])
        if not self.target.stream.is_document:
            self._read_times(row)
        return row

    def _read_times(self, row: dict[str, Any]) -> None:
        """Times that JSON can only hold as text, in columns that are times."""
        import pyarrow as pa

        from penstock.clock import time_ns

        for field in self.target.stream.schema:
            value = row.get(field.name)
            if not isinstance(value, str):
                continue
            if pa.types.is_int64(field.type) and field.name.startswith("ts_"):
                row[field.name] = time_ns(value, name=field.name)
            elif pa.types.is_timestamp(field.type):
                import numpy as np

                row[field.name] = np.datetime64(time_ns(value, name=field.name), "ns")

    def _append(self, rows: list[tuple[int, dict[str, Any]]]) -> None:
        from penstock.records import rows_to_batch

        if not rows:
            return
        try:
            if len(rows) == 1:
                self.target.append(rows[0][1])
            else:
                self.target.append(rows_to_batch([row for _, row in rows], self.target.stream.schema))
        except RecordError as error:
            if len(rows) == 1:
                self.bad(rows[0][0], error)
                return
            at = getattr(error, "row", None)
            if self.skip or not isinstance(at, int) or not 0 < at < len(rows):
                at = len(rows) // 2
            # Columns are looked at one by one: a row before this one may be bad too.
            self._append(rows[:at])
            self._append(rows[at:])

    def bad(self, number: int, error: PenstockError) -> None:
        """What becomes of a row that does not fit: raised with its place, or counted and left out."""
        found = self.error(number, error)
        if not self.skip:
            raise found from error
        self.skipped += 1
        if self.skipped <= _SHOWN:
            found.hint = None
            self.warn(f"left out: {found}")

    def error(self, number: int, error: PenstockError) -> SourceError:
        """The error of one row, with its place in the source."""
        column = getattr(error, "column", None)
        named = column is None or f"`{column}`" in str(error.expected)
        where = f"at {self.unit} {number} of {self.place}" + ("" if named else f", column `{column}`")
        expected, got = error.expected, error.got
        return SourceError(error.problem, expected=expected, got=got, where=where, hint=error.hint, line=number)


def blocks(file: IO[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Whole lines as they come: (number of the first, lines). What is there is given out before more is waited for."""
    read = getattr(file, "read1", None) or file.read
    rest, number = [b""], 1
    while data := read(_BLOCK):
        head, found, tail = data.rpartition(b"\n")
        if not found:
            rest.append(data)
            continue
        lines = b"".join([*rest, head]).split(b"\n")
        rest = [tail]
        if number == 1:
            lines[0] = lines[0].removeprefix(_BOM)
        yield number, lines
        number += len(lines)
    last = b"".join(rest)
    if last:
        yield number, [last.removeprefix(_BOM) if number == 1 else last]


def json_lines(file: IO[bytes], intake: Intake, done: Callable[[float], None]) -> None:
    """One JSON object per line; blank lines count, and are nothing else. `done` is told how many bytes were taken."""
    size = 0
    for first, lines in blocks(file):
        intake.put([(number, line) for number, line in enumerate(lines, first) if line.strip()])
        size += sum(map(len, lines)) + len(lines)
        done(size)


def array(data: bytes, intake: Intake) -> None:
    """A JSON text: an array of objects, or one object. Lines of objects are taken too."""
    import io

    import msgspec

    try:
        found: Any = msgspec.json.decode(data.removeprefix(_BOM), type=list[msgspec.Raw] | dict[str, msgspec.Raw])
    except msgspec.ValidationError as error:
        wanted = "a JSON object or an array of them"
        raise SourceError(expected=wanted, got=str(error), where=f"in {intake.place}") from error
    except (msgspec.DecodeError, UnicodeError) as error:
        start = data.lstrip()[:1]
        if start == b"{" and b"\n" in data.strip():
            intake.unit = "line"
            json_lines(io.BytesIO(data), intake, lambda size: None)
            return
        raise SourceError(expected="JSON", got=str(error), where=f"in {intake.place}") from error
    items = [bytes(item) for item in found] if isinstance(found, list) else [data]
    intake.put(list(enumerate(items, 1)))


class _Feed:
    """Lines of blocks as text, for the csv module; `is_drained` when the next one has to be waited for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._blocks = blocks(file)
        self._lines: list[bytes] = []

    @property
    def is_drained(self) -> bool:
        return not self._lines

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while not self._lines:
            self._lines = next(self._blocks)[1][::-1]
        return self._lines.pop().decode("utf-8", "replace") + "\n"


def csv_lines(file: IO[bytes], intake: Intake) -> None:
    """CSV with a header, into a stream of columns; rows that came together are appended together.

    Raises  SourceError for a header without a needed column, and for a row that does not fit.
    """
    from penstock.connect.shape import Shape

    feed = _Feed(file)
    reader = csv.reader(feed)
    header: list[str] = next((record for record in reader if record), [])
    names = [name.strip() for name in header]
    shape = Shape(schema=intake.target.stream.schema)
    if not names:
        raise SourceError(expected="a line with the column names", got="nothing", where=f"in {intake.place}")
    shape.wanted(names, intake.place)
    held: list[tuple[int, list[str]]] = []
    line = reader.line_num + 1
    for record in reader:
        if record:
            held.append((line, record))
        line = reader.line_num + 1
        if held and (feed.is_drained or len(held) >= 8192):
            _csv_rows(held, names, shape, intake)
            held = []
    if held:
        _csv_rows(held, names, shape, intake)


def _csv_rows(held: list[tuple[int, list[str]]], names: list[str], shape: Any, intake: Intake) -> None:
    """Records with their lines, into the stream: cells are read as the columns' types."""
    import numpy as np
    import pyarrow as pa

    from penstock.connect.shape import Bad, Piece

    bad = [
        Bad(intake.place, i, at, None, f"{len(names)} cells", str(len(record)), "", record)
        for i, (at, record) in enumerate(held)
        if len(record) != len(names)
    ]
    gone = {found.row for found in bad}
    rows = [i for i in range(len(held)) if i not in gone]
    columns = list(zip(*(held[i][1] for i in rows), strict=True)) if rows else [()] * len(names)
    arrays = [pa.array([cell.encode() for cell in column], pa.binary()) for column in columns]
    batch: pa.RecordBatch = pa.RecordBatch.from_arrays(arrays, names)
    piece = Piece(
        intake.place, batch, np.array(rows, np.int64), len(held), text=True, line=lambda row: held[row][0], bad=bad
    )
    fit = shape.fit(piece, first_only=not intake.skip)
    if fit.batch.num_rows:
        intake.target.append(fit.batch)
    for _, found in fit.bad:
        intake.bad(found.line, RecordError(expected=found.expected, got=found.got, column=found.column))
