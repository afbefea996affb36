"""`penstock store import` and `export`: much at once, with progress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from penstock.cli import out
from penstock.cli.outcome import say
from penstock.cli.progress import progress
from penstock.cli.store.where import opened, path_names, stored, time_of
from penstock.cli.stream.when import columns_of
from penstock.errors import KeyNotFound, UsageError

__all__ = ["export", "import_"]

_LAYOUTS = ("day", "month", "year", "none")


@click.command("import", short_help="Append files to a table.")
@click.argument("path", shell_complete=path_names)
@click.argument("files", nargs=-1, required=True)
@click.option("--rename", metavar="OLD=NEW", multiple=True, help="Read the column OLD as NEW; may be given again.")
@click.option("--columns", metavar="A,B", help="Only these columns of the files.")
@click.option("--time", metavar="COLUMN", help="The column of event times; it becomes ts_event.")
@click.option("--tz", metavar="ZONE", help='Of times that have none, such as "UTC" or "America/New_York".')
@click.option(
    "--unit", type=click.Choice(("ns", "us", "ms", "s")), default="ns", show_default=True, help="Of times as numbers."
)
@click.option(
    "--on-bad", type=click.Choice(("stop", "skip")), default="stop", show_default=True, help="Rows that do not fit."
)
@click.option(
    "--partition", type=click.Choice(_LAYOUTS), default="day", show_default=True, help="Of a table that is made."
)
@stored()
def import_(
    path: str,
    files: tuple[str, ...],
    rename: tuple[str, ...],
    columns: str | None,
    time: str | None,
    tz: str | None,
    unit: str,
    on_bad: str,
    partition: str,
    as_json: bool,
    **where: Any,
) -> None:
    """Append FILES (Parquet, CSV, Arrow; folders and patterns) to the table PATH, or to a key of it.

    A table that is not there is made. Each row is appended once: killed and run again, it goes on where it stood.
    """
    from penstock.connect import Dataset
    from penstock.store import Store

    pairs = dict(text.partition("=")[::2] for text in rename)
    if not all(old and new for old, new in pairs.items()):
        click.get_current_context().fail("--rename takes OLD=NEW")
    data: Any = files[0] if len(files) == 1 else list(files)
    options: dict[str, Any] = {"rename": pairs or None, "columns": columns_of(columns), "time": time, "tz": tz}
    options |= {"unit": unit, "on_bad": on_bad, "batch_rows": 65_536}
    with opened(where, create=where["uri"] is None) as store, progress(f"importing into {path}") as done:
        probe = Dataset(data, **options)
        schema, table, constants = _place(store, path, probe, partition)
        if constants:  # the same file may be another key's, too
            options |= {"constants": constants, "name": probe.name and f"{probe.name} as {path}"}
        source = Dataset(data, schema=schema, progress=lambda numbers: done(numbers.rows), **options)
        numbers = source.stream(store.table(table) if isinstance(store, Store) else store.target(table))
    facts = {"path": path, "rows": numbers.rows, "skipped": numbers.skipped, "resumed_at": numbers.resumed_at}
    if as_json:
        out.print_json(facts)
        return
    resumed = f"; {numbers.resumed_at:,} were there" if numbers.resumed_at else ""
    left_out = f"; {numbers.skipped:,} left out" if numbers.skipped else ""
    say(f"wrote {out.rows_text(numbers.rows)} to {path}{resumed}{left_out}")


def _place(store: Any, path: str, source: Any, partition: str) -> tuple[Any, str, dict[str, str]]:
    """Columns and name of the table that rows of `path` go to, which is made if it is not there, and their key."""
    import pyarrow as pa

    try:
        schema = store.schema(path)
    except KeyNotFound:
        schema = source.schema.remove_metadata()
        name = path
        if "symbol" not in schema.names:
            name, _, key = path.rpartition("/")
            if not name or not key:
                raise UsageError(
                    expected="a column symbol, or a path TABLE/KEY",
                    got=repr(path),
                    where=f"for columns {', '.join(schema.names)}",
                    hint="--rename OLD=symbol",
                ) from None
            schema = pa.schema([pa.field("symbol", pa.string(), False), *schema])
        store.create(name, schema, partition=partition)
        schema = store.schema(name)
    name = next(table for table in store.ls() if path == table or path.startswith(f"{table}/"))
    if path == name:
        return schema, name, {}
    numbers = store.stats(1)
    layout = numbers.get("store", numbers)["table"][name]["layout"]
    return schema, name, {layout["key"]: path[len(name) + 1 :]}


@click.command(short_help="Write a table or a key to one file.")
@click.argument("path", shell_complete=path_names)
@click.argument("file")
@click.option("--start", metavar="TIME", help="Rows from this event time on.")
@click.option("--end", metavar="TIME", help="Rows before this event time.")
@click.option("--columns", metavar="A,B", help="Only these columns.")
@click.option("--as-of", metavar="TIME", help="Rows as they were known then, without later corrections.")
@click.option("--revisions", is_flag=True, help="Every value that a row had.")
@stored()
def export(
    path: str,
    file: str,
    start: str | None,
    end: str | None,
    columns: str | None,
    as_of: str | None,
    revisions: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Write the rows of PATH to FILE (.parquet, .csv or .arrow), in the order of time; it appears when it is whole."""
    target = Path(file).expanduser()
    options: dict[str, Any] = {"as_of": time_of(as_of), "revisions": revisions}
    with opened(where) as store, progress(f"writing {target.name}") as done:
        rows = store.export(
            path,
            target,
            time_of(start),
            time_of(end),
            columns=columns_of(columns),
            progress=lambda n, of: done(n),
            **options,
        )
    if as_json:
        out.print_json({"path": path, "file": str(target), "rows": rows})
    else:
        say(f"wrote {out.rows_text(rows)} to {target}")
