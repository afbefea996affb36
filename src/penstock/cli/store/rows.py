"""`penstock store read` and `write`: a frame to the terminal, a pipe or a file, and rows from there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Any

import click

from penstock.cli import out
from penstock.cli.deliver import deliver, target_of
from penstock.cli.formats import FORMATS
from penstock.cli.outcome import say
from penstock.cli.store.where import opened, path_names, stored, time_of
from penstock.cli.stream.when import columns_of
from penstock.errors import KeyNotFound, SourceError

__all__ = ["TIME", "read", "write"]

TIME = "TIME"
_COLUMNS = 'Columns, such as "ts_event,close"; "ts_known" and "_offset" may be among them.'


@click.command(short_help="Write the rows of a table or key to the terminal, a pipe or a file.")
@click.argument("path", shell_complete=path_names)
@click.option("--start", metavar=TIME, help="Rows from this event time on.")
@click.option("--end", metavar=TIME, help="Rows before this event time.")
@click.option("--columns", metavar="A,B", help=_COLUMNS)
@click.option("--as-of", metavar=TIME, help="Rows as they were known then, without later corrections.")
@click.option("--revisions", is_flag=True, help="Every value that a row had.")
@click.option("--skip-corrupt", is_flag=True, help="Give what other data files hold when one is corrupt.")
@click.option("-n", "last", metavar="ROWS", type=click.IntRange(min=0), help="Only the last so many rows.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="[default: by FILE's name, else table]")
@click.option("-o", "--output", metavar="FILE", help='File to write, "-" for stdout.  [default: -]')
@stored()
def read(
    path: str,
    start: str | None,
    end: str | None,
    columns: str | None,
    as_of: str | None,
    revisions: bool,
    skip_corrupt: bool,
    last: int | None,
    form: str | None,
    output: str | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Write the rows of PATH, a table, a key of it ('historical/minute/AAPL') or keys by a pattern, sorted by time."""
    target = target_of(output, form, as_json)
    corrupt = "skip" if skip_corrupt else "raise"
    options: dict[str, Any] = {"as_of": time_of(as_of), "revisions": revisions, "on_corrupt": corrupt}
    with opened(where) as store:
        table = store.read(path, time_of(start), time_of(end), columns_of(columns), **options)
    if last is not None:
        table = table.slice(max(0, table.num_rows - last))
    deliver(table, target)


@click.command(short_help="Write rows from a file or from stdin.")
@click.argument("path", shell_complete=path_names)
@click.argument("file", default="-")
@stored()
def write(path: str, file: str, as_json: bool, **where: Any) -> None:
    """Write the rows of FILE (Parquet, Arrow, CSV, or a JSON object per line; '-' is stdin: JSON) to PATH.

    PATH is a table, whose rows name their keys, or a key of it. A table that is not there is made by the rows' columns
    symbol and ts_event. Times in JSON may be ISO text. A row with the key and time of another corrects it. For much,
    use import: it shows progress, and goes on after a kill.
    """
    with opened(where, create=where["uri"] is None) as store:
        try:
            schema = store.schema(path)
        except KeyNotFound:
            schema = None
        table = _json_table(file, schema, path) if _is_json(file) else _file_table(file)
        if table.num_rows:
            store.write(path, table)
    if as_json:
        out.print_json({"path": path, "rows": table.num_rows})
    else:
        say(f"wrote {out.rows_text(table.num_rows)} to {path}")


def _is_json(file: str) -> bool:
    return file == "-" or Path(file).suffix.lower() in (".json", ".ndjson", ".jsonl")


def _file_table(file: str) -> Any:
    import pyarrow as pa

    from penstock.connect import Dataset

    source = Dataset(file)
    return pa.Table.from_batches(list(source.batches()), source.schema)


def _json_table(file: str, schema: Any, path: str) -> Any:
    import pyarrow as pa

    from penstock.records import rows_to_batch

    if file == "-":
        rows = _json_rows(sys.stdin.buffer, "stdin")
    else:
        with Path(file).expanduser().open("rb") as opened_file:
            rows = _json_rows(opened_file, file)
    if schema is None or not rows:
        return pa.Table.from_pylist(rows)
    names = {name for row in rows for name in row}
    if not names <= set(schema.names):  # new columns: the store says whether they can be added
        return pa.Table.from_pylist(rows)
    fields = [field for field in schema if field.name in names or field.nullable]
    return pa.Table.from_batches([rows_to_batch(rows, pa.schema(fields), where=path)])


def _json_rows(file: IO[bytes], place: str) -> list[dict[str, Any]]:
    import msgspec

    from penstock.clock import time_ns

    rows = []
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeError) as error:
            raise SourceError(
                expected="a JSON object per line", got=str(error), where=f"at line {number} of {place}"
            ) from error
        for name, value in row.items():
            if isinstance(value, str) and name.startswith("ts_"):
                row[name] = time_ns(value, name=name)
        rows.append(row)
    return rows
