"""Windows and batches into a folder of files, one file each, that appears whole or not at all."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pcsv

from penstock.errors import SourceError, UsageError
from penstock.records import to_batches

__all__ = ["FileSink"]

_SUFFIX = {"parquet": ".parquet", "arrow": ".arrow", "csv": ".csv"}
_NUMBERED = re.compile(r"(\d{20})\.[a-z]+")


class FileSink:
    """A folder that gets one file for each window or batch put into it; `Dataset(folder)` reads them back in order.

    Takes   folder: made if it is not there; format: "parquet", "arrow" (IPC stream) or "csv".
    Edges   A window's file is named by its `position` and `index`: a window that comes again after a crash replaces
            its own file, so nothing is doubled. Batches are numbered on from the last one in the folder.
    Raises  UsageError for another format; SourceError if the folder cannot be written to, or rows do not go into CSV.
    """

    def __init__(self, folder: str | os.PathLike[str], *, format: str = "parquet") -> None:
        if format not in _SUFFIX:
            expected = ", ".join(map(repr, _SUFFIX))
            raise UsageError(expected=f"one of {expected}", got=repr(format), where="in FileSink")
        self.folder = Path(folder)
        self.format = format
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._refused(error) from error
        numbers = [int(found[1]) for p in self.folder.iterdir() if (found := _NUMBERED.fullmatch(p.name))]
        self._next = max(numbers, default=-1) + 1

    def put(self, window_or_batch: Any) -> Path:
        """Write one file and return its path; it is complete, under its name, when this returns."""
        position = getattr(window_or_batch, "position", None)
        if position is not None:
            stem, table = f"{position:020d}-{window_or_batch.index:06d}", window_or_batch.table
        else:
            batches = to_batches(window_or_batch)
            if not batches:
                raise UsageError(
                    expected="rows", got=f"a {type(window_or_batch).__name__} of none", where="in FileSink.put"
                )
            stem, table = f"{self._next:020d}", pa.Table.from_batches(batches)
            self._next += 1
        path = self.folder / (stem + _SUFFIX[self.format])
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self._write(table, part)
            os.replace(part, path)
        except (OSError, pa.ArrowException) as error:
            raise self._refused(error) from error
        finally:
            part.unlink(missing_ok=True)
        return path

    def _write(self, table: pa.Table, path: Path) -> None:
        if self.format == "parquet":
            import pyarrow.parquet as pq

            pq.write_table(table, path)
        elif self.format == "csv":
            pcsv.write_csv(table, path)
        else:
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)

    def _refused(self, error: Exception) -> SourceError:
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0].rstrip(".")
        return SourceError(
            f"{self.format} files cannot be written: {reason}",
            where=f"in {self.folder}",
            hint='check the folder, or use format="parquet"' if self.format == "csv" else "check the folder",
        )
