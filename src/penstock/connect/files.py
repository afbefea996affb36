"""Finding data files and reading them piece by piece: Parquet, Arrow IPC (file, stream, Feather), CSV."""

from __future__ import annotations

import contextlib
import difflib
import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from penstock.connect.csvfile import header_of, read_csv
from penstock.connect.shape import Piece
from penstock.errors import SchemaMismatch, SourceError
from penstock.records import conform, widen

__all__ = ["FORMATS", "Files", "find_files", "format_of"]

Wanted = Callable[[Sequence[str], str], list[str]]
"""(column names, file) → the columns to read."""

FORMATS = ("parquet", "arrow", "csv")
_SUFFIXES = {
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".arrow", ".arrows", ".ipc", ".feather"), "arrow"),
    **dict.fromkeys((".csv", ".tsv", ".txt"), "csv"),
}
_PACKED = (".gz", ".bz2", ".zst", ".lz4")
_MAGIC = {b"PAR1": "parquet", b"ARRO": "arrow", b"\xff\xff\xff\xff": "arrow"}


def format_of(path: Path) -> str | None:
    """The format by suffix, else by the first bytes; None if neither says."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    if suffixes and suffixes[-1] in _SUFFIXES:
        return _SUFFIXES[suffixes[-1]]
    with path.open("rb") as file:
        return _MAGIC.get(file.read(4))


def find_files(data: str | os.PathLike[str]) -> list[Path]:
    """The data files of a path: a file, a folder (all below it, hidden and `_` names left out) or a glob pattern.

    Returns in natural order: part-2 before part-10.
    Raises  SourceError if there is none, with the nearest names that exist.
    """
    path = Path(data).expanduser()
    if path.is_dir():
        found = [p for p in path.rglob("*") if p.is_file() and _is_data(p.relative_to(path))]
        if not found:
            others = sorted(p.name for p in path.iterdir())[:5]
            got = f"only {', '.join(map(repr, others))}" if others else "an empty folder"
            known = " ".join(sorted(_SUFFIXES))
            raise SourceError(expected="data files", got=got, where=f"in {path}", hint=f"files are known by {known}")
        return sorted(found, key=lambda p: _natural(p.relative_to(path).as_posix()))
    if path.exists():
        return [path]
    matched = sorted(map(Path, glob.glob(str(path))), key=lambda p: _natural(str(p)))
    if matched:
        return matched
    raise _absent(path)


def _absent(path: Path) -> SourceError:
    parent = path.parent
    if not parent.is_dir():
        return SourceError("no such file", where=f"at {path}", hint=f"there is no folder {parent} either")
    names = sorted(p.name for p in parent.iterdir())
    close = difflib.get_close_matches(path.name, names, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"the folder holds {len(names)} other names"
    return SourceError("no such file", where=f"at {path}", hint=hint, near=close)


def _is_data(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _PACKED]
    return not any(part[0] in "._" for part in path.parts) and bool(suffixes) and suffixes[-1] in _SUFFIXES


def _natural(text: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", text)
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts if p]


@dataclass(frozen=True)
class Files:
    """Files read one after the other as one sequence of rows.

    Takes   format: one of FORMATS, or None to tell by name and content; batch_rows: the most rows of a piece (CSV
            pieces follow the file's blocks); delimiter (None: tab for .tsv, else comma); header: names for CSV files
            that do not begin with them.
    """

    paths: Sequence[Path]
    format: str | None = None
    batch_rows: int = 65536
    delimiter: str | None = None
    header: Sequence[str] | None = None

    def pieces(self, wanted: Wanted, *, unify: bool) -> Iterator[Piece]:
        """All rows, in file order; row numbers begin at 0 in each file, whose `base` says how many came before.

        Takes   wanted: (names, file) → columns to keep; unify: whether the files must have one schema.
        Raises  SourceError for files that are empty, unreadable, or (with `unify`) do not fit together.
        """
        schema = self._unified() if unify and len(self.paths) > 1 else None
        base = 0
        for path in self.paths:
            row = 0
            for piece in self._file(path, wanted, schema):
                piece.base, row = base, piece.stop
                yield piece
            base += row

    def _file(self, path: Path, wanted: Wanted, schema: pa.Schema | None) -> Iterator[Piece]:
        if self._format(path) == "csv":
            yield from read_csv(path, wanted, delimiter=self._delimiter(path), header=self.header)
            return
        row = 0
        for batch in self._batches(path, wanted):
            fitting = batch if schema is None else conform(batch, _chosen(schema, batch.schema.names))
            stop = row + batch.num_rows
            yield Piece(str(path), fitting, np.arange(row, stop), stop)
            row = stop

    def total(self) -> int | None:
        """Rows of all files, where their formats tell without reading them; else None."""
        import pyarrow.parquet as pq

        if any(self._format(path) != "parquet" for path in self.paths):
            return None
        rows = 0
        for path in self.paths:
            with _readable(path):
                rows += int(pq.read_metadata(path).num_rows)
        return rows

    def _format(self, path: Path) -> str:
        if path.stat().st_size == 0:
            raise SourceError(expected="a data file", got="an empty file", where=f"at {path}")
        found = self.format or format_of(path)
        if found is None:
            raise SourceError(
                "the format of the file is not known", where=f"at {path}", hint=f"set format= to one of {FORMATS}"
            )
        return found

    def _delimiter(self, path: Path) -> str:
        return self.delimiter or ("\t" if ".tsv" in path.suffixes else ",")

    def _batches(self, path: Path, wanted: Wanted) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        source = str(path)
        with _readable(path):
            if self._format(path) == "parquet":
                with pq.ParquetFile(path) as file:
                    names = wanted(file.schema_arrow.names, source)
                    for batch in file.iter_batches(batch_size=self.batch_rows, columns=names):
                        yield batch.select(names)
                return
            with _ipc(path) as (schema, batches):
                names = wanted(schema.names, source)
                for batch in batches:
                    for start in range(0, batch.num_rows, self.batch_rows):
                        yield batch.select(names).slice(start, self.batch_rows)

    def _unified(self) -> pa.Schema | None:
        """The one schema of all files; CSV files need the same names only, their types come from the first."""
        formats = {self._format(path) == "csv" for path in self.paths}
        if len(formats) > 1:
            raise SourceError(
                expected="files of one kind",
                got="CSV files among typed ones",
                where=f"in {self.paths[0].parent}",
                hint="set schema=, so that each is read as that",
            )
        first, unified = self._schema(self.paths[0]), None
        for path in self.paths[1:]:
            other = self._schema(path)
            if set(other.names) != set(first.names):
                raise _apart(self.paths[0], first, path, other)
            try:
                unified = widen(unified or first, _chosen(other, first.names))
            except SchemaMismatch as error:
                raise SourceError(
                    f"the files do not fit together: {error}", where=f"at {path}", hint="set schema= or rename="
                ) from error
        return None if True in formats else unified

    def _schema(self, path: Path) -> pa.Schema:
        import pyarrow.parquet as pq

        if self._format(path) == "csv":
            names = header_of(path, self._delimiter(path)) if self.header is None else self.header
            return pa.schema([(name, pa.string()) for name in names])
        with _readable(path):
            if self._format(path) == "parquet":
                return pq.read_schema(path)
            with _ipc(path) as (schema, _):
                return schema


def _chosen(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in names], metadata=schema.metadata)


def _apart(one: Path, first: pa.Schema, two: Path, other: pa.Schema) -> SourceError:
    lacks = [name for name in first.names if name not in other.names]
    adds = [name for name in other.names if name not in first.names]
    got = " and ".join(
        f"{verb} {', '.join(map(repr, some))}" for verb, some in (("one without", lacks), ("one with", adds)) if some
    )
    return SourceError(
        expected=f"the columns of {one.name}", got=got, where=f"at {two}", hint="set schema= or columns= to choose"
    )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what Arrow says of a damaged file into a SourceError that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise SourceError(
            f"the file does not read as {format_of(path)}: {reason}",
            where=f"at {path}",
            hint="it may be cut short; write it again, or set format=",
        ) from error


@contextlib.contextmanager
def _ipc(path: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """Schema and batches of an Arrow IPC file, stream or Feather file, mapped, not copied."""
    with path.open("rb") as file:
        indexed = file.read(6) == b"ARROW1"
    # Not closed here: batches keep the map alive as long as they need it.
    mapped = pa.memory_map(str(path))
    if indexed:
        reader = pa.ipc.open_file(mapped)
        yield reader.schema, (reader.get_batch(i) for i in range(reader.num_record_batches))
    else:
        reader = pa.ipc.open_stream(mapped)
        yield reader.schema, iter(reader)
