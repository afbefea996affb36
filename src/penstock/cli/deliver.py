"""Where the rows that a command has read go: the terminal, a pipe or a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from penstock.cli import out
from penstock.cli.formats import BINARY, SUFFIXES, WRITERS, pieces
from penstock.cli.out import rows_text
from penstock.cli.outcome import say
from penstock.cli.progress import progress

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Target", "deliver", "target_of"]


@dataclass(frozen=True, slots=True)
class Target:
    """A file, or None for stdout, and the format of what is written there."""

    path: Path | None
    form: str


def target_of(output: str | None, form: str | None, as_json: bool, *, used: bool = True) -> Target:
    """What -o, --format and --json say together; `used`: whether rows go there at all.

    Fails as a wrong call does: for two formats, a file whose name says none, bytes for a terminal.
    """
    context = click.get_current_context()
    if as_json and form not in (None, "json"):
        context.fail(f"--json and --format {form} are two formats; give one")
    path = None if output in (None, "-") else Path(str(output)).expanduser()
    form = "json" if as_json else form or (_form_of(path) if path is not None else "table")
    if used and path is None and form in BINARY and sys.stdout.isatty():
        context.fail(f"{form} is not for a terminal; give -o FILE, or send it into a pipe")
    return Target(path, form)


def deliver(table: pa.Table, target: Target, advice: str = "--columns chooses, --json shows all") -> None:
    """Write rows to the target; `advice` is for a terminal that has no room for all columns."""
    path = target.path
    if path is None:
        _to_stdout(table, target.form, advice)
        return
    with progress(f"writing {path.name}", table.num_rows) as done, _beside(path) as file:
        WRITERS[target.form](table, file, done, path)
    say(f"wrote {rows_text(table.num_rows)} to {path}")


def _form_of(path: Path) -> str:
    """The format that a file's name says."""
    found = SUFFIXES.get(path.suffix.lower())
    if found is None:
        click.get_current_context().fail(f"the format of {path.name} is not known by its name; give --format")
    return found


@contextmanager
def _beside(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its place only when it is whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, os.strerror(error.errno or 0), str(path.parent)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _to_stdout(table: pa.Table, form: str, advice: str) -> None:
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
