"""Files into tables and out of them: Parquet, CSV, Arrow, with progress."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from penstock.connect import Dataset, DatasetStatistics
from penstock.errors import UsageError
from penstock.log.disk import storage
from penstock.store.table import Table

__all__ = ["export", "import_files"]

_SUFFIXES: Final = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}


def import_files(
    table: Table,
    data: Any,
    *,
    progress: Callable[[DatasetStatistics], None] | None = None,
    batch_rows: int = 65_536,
    **options: Any,
) -> DatasetStatistics:
    """Append the rows of files (a path, folder, pattern or list of paths) to a table.

    Takes   progress: called after each batch with the numbers so far (`rows`, and `total` where the files tell);
            options: of `penstock.connect.Dataset`: columns, rename, constants, time, tz, unit, on_bad, name, …
    Edges   An import that was killed and is run again goes on at the row after the last one that is in the table.
    """
    schema = options.pop("schema", None) or table.stream.schema.remove_metadata()
    return Dataset(data, schema=schema, progress=progress, batch_rows=batch_rows, **options).stream(table)


def export(
    table: Table,
    key: str | None,
    path: str | os.PathLike[str],
    start: Any = None,
    end: Any = None,
    columns: Sequence[str] | None = None,
    *,
    format: str | None = None,
    as_of: Any = None,
    revisions: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write rows of a table to one file, partition by partition; returns how many.

    Takes   format: "parquet", "csv" or "arrow", by the path's suffix unless given;
            progress: called with (rows written, rows stored in all, revisions among them).
    Edges   The file appears whole, once it is complete; one that is there is replaced.
    """
    target = Path(path).expanduser()
    kind = format or _SUFFIXES.get(target.suffix.lower())
    if kind not in ("parquet", "csv", "arrow"):
        raise UsageError(
            expected="a file that ends with .parquet, .csv or .arrow",
            got=repr(str(path)),
            where="in export",
            hint='or set format="parquet", "csv" or "arrow"',
        )
    counts = table.counts()
    total = sum(counts.values()) if key is None else counts.get(key, 0)
    empty = table.read(None, 0, 0, columns)
    temporary = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}.new")
    rows = 0
    with storage(target.parent, "an export"):
        try:
            with _writer(kind, temporary, empty.schema) as writer:
                for found in table.scan(key, start, end, columns, as_of=as_of, revisions=revisions):
                    writer.write_table(found)
                    rows += found.num_rows
                    if progress is not None:
                        progress(rows, total)
            temporary.rename(target)
        finally:
            temporary.unlink(missing_ok=True)
    return rows


def _writer(kind: str, path: Path, schema: pa.Schema) -> Any:
    import pyarrow.csv
    import pyarrow.parquet

    if kind == "parquet":
        return pyarrow.parquet.ParquetWriter(path, schema, compression="zstd")
    if kind == "csv":
        return pyarrow.csv.CSVWriter(path, schema)
    return pa.ipc.new_file(str(path), schema)
