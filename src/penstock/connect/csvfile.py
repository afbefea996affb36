"""CSV and TSV files, read as text so that every cell that does not fit can be named: file, line, column."""

from __future__ import annotations

import contextlib
import csv
import io
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
from numpy.typing import NDArray

from penstock.connect.shape import SKIP, Bad, Piece
from penstock.errors import SourceError

__all__ = ["header_of", "read_csv"]

BLOCK = 1 << 20


def header_of(path: Path, delimiter: str) -> list[str]:
    """The names in a file's first line that is not blank.   Raises  SourceError if there is none, or one is no text."""
    for record in _records(path, delimiter):
        if record:
            names = [name.strip() for name in record]
            for name in names:
                if "\ufffd" in name:  # what `_records` puts for bytes that are none
                    raise SourceError(
                        expected="column names in UTF-8",
                        got=repr(name),
                        where=f"in {path}",
                        hint="save the file as UTF-8, such as with iconv -t utf-8",
                    )
            return names
    raise SourceError(expected="a line with the column names", got="an empty file", where=f"in {path}")


def read_csv(
    path: Path,
    wanted: Callable[[Sequence[str], str], list[str]],
    *,
    delimiter: str = ",",
    header: Sequence[str] | None = None,
    block: int = BLOCK,
) -> Iterator[Piece]:
    """Pieces of about `block` bytes; all cells are bytes.

    Takes   wanted: (column names, file) → the columns to keep; header: names, when the file does not begin with them.
    Edges   Quoted cells may hold line ends; blank lines are skipped and have no row number; a row with too many or
            too few cells is one of the piece's `bad`. Compressed by suffix: .gz, .bz2, .zst, .lz4.
    Cost    About 5 M rows/s of three columns on one core.
    """
    source = str(path)
    written = header_of(path, delimiter) if header is None else list(header)
    names = wanted(written, source)
    # Two, because ragged rows are met ahead of the cells of their piece, and each must only walk forward.
    line, ragged_line = (_Lines(path, delimiter, skip=header is None) for _ in range(2))
    ragged: deque[Bad] = deque()

    def note(found: pcsv.InvalidRow) -> str:
        row = found.number - (2 if header is None else 1)
        expected, got = f"{found.expected_columns} cells", str(found.actual_columns)
        ragged.append(Bad(source, row, ragged_line(row), None, expected, got, SKIP, found.text))
        return "skip"

    row = 0
    try:
        with _opened(path) as stream:
            reader = pcsv.open_csv(
                stream,
                # Row numbers are only known to a single thread; it is no slower, the cells stay bytes.
                read_options=pcsv.ReadOptions(use_threads=False, block_size=block, column_names=written),
                parse_options=pcsv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note),
                convert_options=pcsv.ConvertOptions(
                    column_types={name: pa.binary() for name in written}, include_columns=names
                ),
            )
            first = header is None
            for batch in reader:
                if first:
                    # With our own names the header is the first row: names may be padded, and are not cells.
                    batch, first = batch.slice(1), False
                rows, stop, bad = _number(row, batch.num_rows, ragged)
                yield Piece(source, batch, rows, stop, text=True, line=line, bad=bad)
                row = stop
    except pa.ArrowInvalid as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise SourceError(
            f"{path.name} does not read as CSV: {reason}",
            where=f"in {source}, after row {row}",
            hint='look for a quote (") that is not closed, or set delimiter=',
        ) from error
    if ragged:
        empty = pa.RecordBatch.from_pydict({name: pa.array([], pa.binary()) for name in names})
        yield Piece(source, empty, np.zeros(0, np.int64), ragged[-1].row + 1, text=True, line=line, bad=list(ragged))


def _number(row: int, count: int, ragged: deque[Bad]) -> tuple[NDArray[np.int64], int, list[Bad]]:
    """Numbers of the next `count` rows, the number after them, and the ragged rows between, which have numbers too."""
    parts, passed = [np.zeros(0, np.int64)], []
    while count:
        run = min(count, ragged[0].row - row) if ragged else count
        parts.append(np.arange(row, row + run))
        row, count = row + run, count - run
        if ragged and ragged[0].row == row and count:
            passed.append(ragged.popleft())
            row += 1
    return np.concatenate(parts), row, passed


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pa.NativeFile]:
    """The bytes of a file, unpacked. Raises SourceError when they do not unpack to the end."""
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            yield stream
    except OSError as error:
        if error.errno is not None:  # the disk's, not the packer's
            raise
        raise SourceError(
            f"{path.name} does not unpack: {error}", where=f"at {path}", hint="it may be cut short; write it again"
        ) from error


def _records(path: Path, delimiter: str) -> Iterator[list[str]]:
    with (
        _opened(path) as stream,
        io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline="") as text,
    ):
        yield from csv.reader(text, delimiter=delimiter)


class _Lines:
    """Row number → line in the file where it begins. Opened at the first question, which are asked in order."""

    def __init__(self, path: Path, delimiter: str, *, skip: bool) -> None:
        self._path = path
        self._delimiter = delimiter
        self._skip = skip
        self._begin()

    def _begin(self) -> None:
        self._found: Iterator[tuple[int, int]] = self._walk()
        self._next = 0

    def _walk(self) -> Iterator[tuple[int, int]]:
        row, line = -1 if self._skip else 0, 1
        for record in _records(self._path, self._delimiter):
            if record:
                yield row, line
                row += 1
            line += 1 + sum(cell.count("\n") for cell in record)

    def __call__(self, row: int) -> int:
        if row < self._next:
            self._begin()
        for at, line in self._found:
            self._next = at + 1
            if at == row:
                return line
        return row + (2 if self._skip else 1)
