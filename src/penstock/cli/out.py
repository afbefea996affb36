"""What commands print: JSON lines, aligned text, and numbers, sizes and times as people read them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Aligned",
    "age",
    "count",
    "grid",
    "json_rows",
    "print_json",
    "rate",
    "rows_text",
    "size",
    "stdout",
    "styled",
    "width",
    "write",
]

_CELL = 48
_GAP = "  "


@contextmanager
def stdout() -> Iterator[IO[bytes]]:
    """Stdout for bytes, flushed at the end."""
    sys.stdout.flush()
    file = sys.stdout.buffer
    if not isinstance(file, io.RawIOBase):
        yield file
        file.flush()
        return
    # Without buffers (python -u) a write may take a part and say so, which the writers of formats do not expect.
    raw = _Raw(file)
    whole = io.BufferedWriter(raw)
    try:
        yield whole
        whole.flush()
    finally:
        raw.file = None  # what could not be written must not be tried again when `whole` goes
        whole.detach()


class _Raw(io.RawIOBase):
    """A raw file, or, without one, nowhere."""

    def __init__(self, file: io.RawIOBase) -> None:
        self.file: io.RawIOBase | None = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int | None:
        return len(data) if self.file is None else self.file.write(data)


def write(text: str | bytes) -> None:
    """To stdout, at once: who reads a pipe sees a row when it is there."""
    with stdout() as file:
        file.write(text.encode("utf-8", "replace") if isinstance(text, str) else text)


def print_json(value: Any) -> None:
    """One JSON object on a line of stdout. NaN and infinity, which JSON lacks, are null."""
    write(_encode(value) + b"\n")


def json_rows(batch: pa.RecordBatch) -> Iterator[bytes]:
    """The rows of a batch as JSON texts: documents as they are stored, times of a stream of rows as ISO text."""
    from penstock.records import batch_to_rows, is_document

    if is_document(batch.schema):
        for text in batch.column(0).to_pylist():
            yield text.encode()
        return
    for row in batch_to_rows(batch):
        yield _encode(row)


def _encode(value: Any) -> bytes:
    import msgspec

    return msgspec.json.encode(value, enc_hook=_plain)


def _plain(value: Any) -> Any:
    """Of what Arrow holds and JSON has no form for: times of ns, arrays, numbers of numpy."""
    import numpy as np

    if isinstance(value, np.datetime64):
        return f"{np.datetime_as_string(value)}Z"
    if isinstance(value, np.timedelta64):
        return int(value.astype("timedelta64[ns]").astype(np.int64))
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return str(value)


# -- for people


def styled(stream: Any = None) -> bool:
    """Whether colour and bold are welcome: a terminal that can, and no NO_COLOR."""
    stream = sys.stdout if stream is None else stream
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width() -> int | None:
    """Columns of the terminal that stdout is; None when it is none and nothing needs to be cut."""
    if not sys.stdout.isatty():
        return None
    import shutil

    return shutil.get_terminal_size().columns


def count(number: int) -> str:
    """1234567 -> '1,234,567'."""
    return f"{number:,}"


def rows_text(number: int) -> str:
    """1 -> '1 row', 1234 -> '1,234 rows'."""
    return f"{number:,} row" + "s" * (number != 1)


def size(number: float) -> str:
    """Bytes: 12345678 -> '12.3 MB'."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 999.5 or unit == "TB":
            return f"{number:.0f} {unit}" if unit == "B" or number >= 99.95 else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError


def rate(rows_per_second: float | None) -> str:
    """Rows per second: 12345.6 -> '12,346/s'; '-' when it is not known."""
    if rows_per_second is None:
        return "-"
    return f"{rows_per_second:,.0f}/s" if rows_per_second >= 10 else f"{rows_per_second:.2g}/s"


def age(ns: int | None, now_ns: int) -> str:
    """How long ago: '3 s ago', '5 min ago', '2 d ago'; '-' when there is no such time."""
    if ns is None:
        return "-"
    seconds = max(0.0, (now_ns - ns) / 1e9)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (unit == "min" and seconds >= length):
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def grid(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """A small table as aligned text: header, a line per row. `right`: numbers of the columns that hold numbers."""
    rows = list(rows)
    wide = [max(len(header[i]), *(len(row[i]) for row in rows), 0) for i in range(len(header))]
    to_right = set(right)
    lines = [_line(header, wide, to_right, bold=styled())]
    lines += [_line(row, wide, to_right) for row in rows]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str], wide: Sequence[int], right: set[int], *, bold: bool = False) -> str:
    placed = enumerate(zip(cells, wide, strict=True))
    text = _GAP.join(cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in placed).rstrip()
    return f"\033[1m{text}\033[0m" if bold else text


class Aligned:
    """Rows of a stream as aligned text, batch by batch: a header once, widths that only grow.

    Takes   width: columns of the terminal, to leave out the columns that do not fit (`left_out`, known after the first
            batch); None for all of them.
    Times are shown in UTC as ISO text, with as many digits as they have; numbers with ten digits; missing cells as "-".
    """

    def __init__(self, schema: pa.Schema, *, width: int | None = None) -> None:
        import pyarrow.types as types

        from penstock.records import event_column

        self.schema = schema
        self._width = width
        self._event = event_column(schema)
        self._right = {
            i
            for i, field in enumerate(schema)
            if (types.is_integer(field.type) or types.is_floating(field.type)) and not self._is_time(field)
        }
        self._wide: list[int] | None = None
        self.left_out: list[str] = []

    def _is_time(self, field: pa.Field) -> bool:
        import pyarrow.types as types

        named = field.name == self._event or field.name.startswith("ts_")
        return bool(types.is_timestamp(field.type) or (named and types.is_int64(field.type)))

    def text(self, batch: pa.RecordBatch) -> str:
        """The lines of a batch; the first call's begin with the header."""
        columns = [self._cells(batch.column(i), field) for i, field in enumerate(batch.schema)]
        names = batch.schema.names
        lines = []
        first = self._wide is None
        wide = [len(name) for name in names] if self._wide is None else self._wide
        self._wide = wide = [max(w, *map(len, cells)) if cells else w for w, cells in zip(wide, columns, strict=True)]
        if first:
            self._shown = self._fitting(wide)
            self.left_out = names[self._shown :]
            lines.append(_line(names[: self._shown], wide[: self._shown], self._right, bold=styled()))
        rows = zip(*columns[: self._shown], strict=True)
        lines += [_line(row, wide[: self._shown], self._right) for row in rows]
        return "\n".join(lines) + "\n"

    def _fitting(self, wide: Sequence[int]) -> int:
        if self._width is None:
            return len(wide)
        total = -len(_GAP)
        for i, w in enumerate(wide):
            total += w + len(_GAP)
            if total > self._width:
                return max(1, i)
        return len(wide)

    def _cells(self, column: pa.Array, field: pa.Field) -> list[str]:
        import pyarrow.types as types

        if self._is_time(field):
            return _times(column)
        if types.is_floating(field.type):
            return ["-" if v is None else format(v, ".10g") for v in column.to_pylist()]
        if types.is_integer(field.type) or types.is_boolean(field.type):
            return ["-" if v is None else str(v) for v in column.to_pylist()]
        if types.is_string(field.type) or types.is_large_string(field.type) or types.is_dictionary(field.type):
            return ["-" if v is None else _short(v if isinstance(v, str) else repr(v)) for v in column.to_pylist()]
        import pyarrow as pa

        from penstock.records import batch_to_rows

        rows = batch_to_rows(pa.RecordBatch.from_arrays([column], schema=pa.schema([field])))
        return ["-" if (v := row[field.name]) is None else _short(_encode(v).decode()) for row in rows]


def _short(text: str) -> str:
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def _times(column: pa.Array) -> list[str]:
    """ISO text in UTC, to the second or with 3, 6 or 9 digits, whatever no time of the batch needs more of."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        try:
            column = column.cast(pa.timestamp("ns", column.type.tz)).view(pa.int64())
        except pa.ArrowInvalid:  # before 1677 or after 2262
            return ["-" if text is None else text for text in column.cast(pa.string()).to_pylist()]
    missing = column.is_null().to_numpy(zero_copy_only=False)
    ns = column.fill_null(0).to_numpy()
    unit: Any = next((u for u, n in (("s", 10**9), ("ms", 10**6), ("us", 10**3)) if not (ns % n).any()), "ns")
    texts = np.datetime_as_string(ns.astype("datetime64[ns]"), unit=unit).tolist()
    return ["-" if gone else f"{text}Z" for text, gone in zip(texts, missing.tolist(), strict=True)]
