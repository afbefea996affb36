"""`penstock stream read`: rows of a stream to the terminal, a pipe or a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from penstock.cli import out
from penstock.cli.hubs import open_hub, stream_names
from penstock.cli.out import rows_text
from penstock.cli.outcome import say
from penstock.cli.progress import progress
from penstock.cli.stream.formats import BINARY, FORMATS, SUFFIXES, WRITERS, pieces
from penstock.cli.stream.when import COLUMNS, WHEN, columns_of, when
from penstock.cli.tree import shared

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["beside", "form_of", "read", "to_stdout"]


@click.command(short_help="Write rows to the terminal, a pipe or a file.")
@click.argument("name", shell_complete=stream_names)
@click.option("--start", metavar=WHEN, help="First row.  [default: start]")
@click.option("--stop", metavar=WHEN, help="Row after the last one.  [default: end]")
@click.option("--columns", metavar="A,B", help=COLUMNS)
@click.option("--format", "form", type=click.Choice(FORMATS), help="[default: by FILE's name, else table]")
@click.option("-o", "--output", metavar="FILE", help='File to write, "-" for stdout.  [default: -]')
@shared()
def read(
    name: str,
    start: str | None,
    stop: str | None,
    columns: str | None,
    form: str | None,
    output: str | None,
    hub: str | None,
    as_json: bool,
) -> None:
    """Write rows of the stream NAME as aligned text, JSON lines, CSV, Parquet or Arrow.

    A TIME picks by event time where the stream has one, else by time of append. A FILE is written beside its place and
    moved there when it is whole. Arrow on stdout and in .arrows is the stream format, in other files the file format.
    """
    if as_json and form not in (None, "json"):
        click.get_current_context().fail(f"--json and --format {form} are two formats; give one")
    path = None if output in (None, "-") else Path(str(output)).expanduser()
    form = "json" if as_json else form or (form_of(path) if path is not None else "table")
    if path is None and form in BINARY and sys.stdout.isatty():
        click.get_current_context().fail(f"{form} is not for a terminal; give -o FILE, or send it into a pipe")
    with open_hub(hub) as opened:
        table = opened.streams.get(name, create=False).read(when(start), when(stop), columns_of(columns))
        if path is None:
            to_stdout(table, form)
            return
        with progress(f"writing {path.name}", table.num_rows) as done, beside(path) as file:
            WRITERS[form](table, file, done, path)
    say(f"wrote {rows_text(table.num_rows)} to {path}")


def form_of(path: Path) -> str:
    """The format that a file's name says."""
    found = SUFFIXES.get(path.suffix.lower())
    if found is None:
        click.get_current_context().fail(f"the format of {path.name} is not known by its name; give --format")
    return found


@contextmanager
def beside(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its place only when it is whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def to_stdout(table: pa.Table, form: str, advice: str = "--columns chooses, --json shows all") -> None:
    """The rows of a table; `advice` for a terminal that has no room for all columns."""
    if form == "table":
        from penstock.records import is_document

        if not is_document(table.schema):
            shown = out.Aligned(table.schema, width=out.width())
            for batch in pieces(table):
                out.write(shown.text(batch))
            if shown.left_out:
                say(f"no room for {', '.join(shown.left_out)}; {advice}")
            return
    with out.stdout() as file:
        if form == "parquet":  # its writer asks the file where it stands, which a pipe cannot tell
            import io

            whole = io.BytesIO()
            WRITERS[form](table, whole, lambda rows: None, None)
            file.write(whole.getbuffer())
        else:
            WRITERS[form](table, file, lambda rows: None, None)
