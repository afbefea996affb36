"""Rows of a table in the formats that `penstock stream read` writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

from penstock.cli import out

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

__all__ = ["BINARY", "FORMATS", "SUFFIXES", "WRITERS", "pieces"]

FORMATS = ("table", "json", "csv", "parquet", "arrow")
BINARY = ("parquet", "arrow")
SUFFIXES = {
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "json"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".arrow", ".arrows", ".ipc", ".feather"), "arrow"),
    ".csv": "csv",
    ".txt": "table",
}
_STEP = 1 << 16


def pieces(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """Batches of a size that is neither slow for single appends nor large for memory; at least one."""
    import pyarrow as pa

    if not table.num_rows:
        yield pa.RecordBatch.from_arrays([pa.array([], field.type) for field in table.schema], schema=table.schema)
    for at in range(0, table.num_rows, _STEP):
        yield from table.slice(at, _STEP).combine_chunks().to_batches()


def _text(table: pa.Table, file: IO[bytes], done: Callable[[float], None], path: Path | None) -> None:
    from penstock.records import is_document

    if is_document(table.schema):
        _json(table, file, done, path)
        return
    shown, rows = out.Aligned(table.schema), 0
    for batch in pieces(table):
        file.write(shown.text(batch).encode())
        rows += batch.num_rows
        done(rows)


def _json(table: pa.Table, file: IO[bytes], done: Callable[[float], None], path: Path | None) -> None:
    rows = 0
    for batch in pieces(table):
        file.write(b"".join(text + b"\n" for text in out.json_rows(batch)))
        rows += batch.num_rows
        done(rows)


def _csv(table: pa.Table, file: IO[bytes], done: Callable[[float], None], path: Path | None) -> None:
    import pyarrow as pa
    import pyarrow.csv as pcsv

    rows, schema = 0, pa.schema([_flat_field(field) for field in table.schema])
    with pcsv.CSVWriter(file, schema) as writer:
        for batch in pieces(table):
            columns = [_flat(column, field) for column, field in zip(batch.columns, batch.schema, strict=True)]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
            rows += batch.num_rows
            done(rows)


def _flat_field(field: pa.Field) -> pa.Field:
    import pyarrow as pa

    return pa.field(field.name, pa.string() if _is_deep(field.type) else field.type)


def _is_deep(kind: pa.DataType) -> bool:
    """Whether a cell of this type has no form of its own in CSV."""
    from pyarrow import types

    deep = types.is_nested(kind) or types.is_dictionary(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    return bool(deep or types.is_fixed_size_binary(kind) or hasattr(kind, "storage_type"))


def _flat(column: pa.Array, field: pa.Field) -> pa.Array:
    """The column, one of lists, records or bytes as JSON text; texts in a dictionary as texts."""
    import msgspec
    import pyarrow as pa

    if not _is_deep(field.type):
        return column
    if pa.types.is_dictionary(field.type) and pa.types.is_string(field.type.value_type):
        return column.cast(pa.string())
    name = field.name
    rows = out.json_rows(pa.RecordBatch.from_arrays([column], schema=pa.schema([field])))
    values = [msgspec.json.decode(text)[name] for text in rows]
    texts = [v if v is None or isinstance(v, str) else msgspec.json.encode(v).decode() for v in values]
    return pa.array(texts, pa.string())


def _parquet(table: pa.Table, file: Any, done: Callable[[float], None], path: Path | None) -> None:
    import pyarrow.parquet as pq

    rows, step = 0, 16 * _STEP
    with pq.ParquetWriter(file, table.schema) as writer:
        for at in range(0, table.num_rows, step):
            part = table.slice(at, step)
            writer.write_table(part, row_group_size=step)
            rows += part.num_rows
            done(rows)


def _arrow(table: pa.Table, file: IO[bytes], done: Callable[[float], None], path: Path | None) -> None:
    import pyarrow as pa

    streams = path is None or path.suffix.lower() == ".arrows"
    rows = 0
    with pa.ipc.new_stream(file, table.schema) if streams else pa.ipc.new_file(file, table.schema) as writer:
        for batch in pieces(table):
            writer.write_batch(batch)
            rows += batch.num_rows
            done(rows)


WRITERS: dict[str, Callable[[Any, Any, Callable[[float], None], Path | None], None]] = {
    "table": _text,
    "json": _json,
    "csv": _csv,
    "parquet": _parquet,
    "arrow": _arrow,
}
"""By format: (table, file, what to tell how many rows are written, path or None for stdout)."""
