"""`penstock stream append`: rows from a file, or from stdin as they come."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from penstock.cli import out
from penstock.cli.hubs import open_hub, stream_names
from penstock.cli.out import rows_text
from penstock.cli.outcome import Terminated, say
from penstock.cli.progress import progress
from penstock.cli.tree import shared
from penstock.errors import PenstockError, SourceError

if TYPE_CHECKING:
    from penstock.cli.stream.intake import Intake, Tally

__all__ = ["append"]

_FORMATS = ("ndjson", "json", "csv", "parquet", "arrow")
_SUFFIXES = {".json": "json", ".ndjson": "ndjson", ".jsonl": "ndjson"}
_SCHEMA = "Columns: trades, quotes, bars, or a file that has them.  [default: the stream's]"
_FORM = "[default: by FILE's name or first bytes; stdin: ndjson]"
_SKIP = 'set on_bad="skip" to drop such rows'


@click.command(short_help="Append rows from a file or from stdin.")
@click.argument("name", shell_complete=stream_names)
@click.argument("file", default="-")
@click.option("--schema", metavar="SCHEMA", help=_SCHEMA)
@click.option("--format", "form", type=click.Choice(_FORMATS), help=_FORM)
@click.option(
    "--on-bad",
    type=click.Choice(("stop", "skip")),
    default="stop",
    show_default=True,
    help="What to do at a row that does not fit: stop there, or leave it out.",
)
@click.option("--once", is_flag=True, help="Append each row of FILE once, however often this is run.")
@shared()
def append(
    name: str,
    file: str,
    schema: str | None,
    form: str | None,
    on_bad: str,
    once: bool,
    hub: str | None,
    as_json: bool,
) -> None:
    """Append the rows of FILE, or of stdin, to the stream NAME, which is made if it is not there.

    JSON: an object per line (ndjson), or one object, or an array of them (json). CSV begins with the names of its
    columns. Parquet and Arrow bring their types. A stream without columns keeps JSON objects as documents, and takes
    the columns of the first table. From stdin, JSON lines, CSV rows for a stream with columns, and Arrow batches are
    appended as they come.
    """
    from penstock.cli.stream.intake import Intake, Tally
    from penstock.cli.stream.schemas import schema_of

    path = None if file == "-" else Path(file).expanduser()
    if once and path is None:
        click.get_current_context().fail("--once needs a FILE: what came from stdin cannot be known again")
    columns = None if schema is None else schema_of(schema)
    if path is not None:
        form = form or _format_of(path)
    with open_hub(hub, create=True) as opened:
        target = Tally(opened.streams.get(name, schema=columns))
        intake = Intake(target, "stdin" if path is None else str(path), "line", on_bad == "skip", _warn)
        try:
            if path is None:
                _from_stdin(intake, form)
            else:
                _from_file(intake, path, form, once)
        except PenstockError as error:
            error.hint = _advice(error, on_bad, target.rows)
            raise
        except (KeyboardInterrupt, Terminated):
            target.settle()
            say(f"stopped; {_done(target)}")
            raise
    _report(target, intake.skipped, as_json)


def _warn(text: str) -> None:
    say(f"warning: {text}")


def _advice(error: PenstockError, on_bad: str, rows: int) -> str | None:
    """The hint in the words of the command line, and what is in the stream already."""
    hint = error.hint
    if hint and hint.startswith("set tz="):
        hint = "write such times with their zone: 2026-11-20T09:30:00Z"
    parts = [hint] if hint and hint != _SKIP else []
    is_row = hint == _SKIP or getattr(error, "row", None) is not None or " of stdin" in (error.where or "")
    if on_bad == "stop" and is_row:
        parts.append("--on-bad skip leaves such rows out")
    if rows:
        parts.append(f"{rows_text(rows)} before it {'is' if rows == 1 else 'are'} appended")
    return "; ".join(parts) or None


def _done(target: Tally) -> str:
    if not target.rows:
        return f"nothing was appended to {target.stream.name!r}"
    return f"appended {rows_text(target.rows)} to {target.stream.name!r}"


def _report(target: Tally, skipped: int, as_json: bool) -> None:
    first, stop = target.offsets
    if as_json:
        facts = {"stream": target.stream.name, "rows": target.rows, "first_offset": first, "next_offset": stop}
        out.print_json({**facts, "skipped": skipped})
    else:
        place = f", offsets {first:,} to {stop:,}" if target.rows else ""
        out.write(_done(target) + place + (f"; {skipped:,} left out\n" if skipped else "\n"))


def _format_of(path: Path) -> str:
    """The format by name, else by the first bytes. Raises SourceError when neither tells, or there is no such file."""
    from penstock.connect.files import find_files, format_of

    if path.is_dir():
        raise SourceError(expected="a file", got="a folder", where=f"at {path}", hint="append its files one by one")
    find_files(path)  # its error names files of similar names
    suffix = path.suffix.lower()
    found = _SUFFIXES.get(suffix) or format_of(path)
    if found is None:
        with path.open("rb") as file:
            start = file.read(64).lstrip()[:1]
        found = {b"{": "ndjson", b"[": "json"}.get(start)
    if found is None:
        hint = f"give --format, one of {', '.join(_FORMATS)}"
        raise SourceError("the format of the file is not known", where=f"at {path}", hint=hint)
    return found


def _from_file(intake: Intake, path: Path, form: str | None, once: bool) -> None:
    from penstock.cli.stream.intake import array, json_lines

    if form in ("json", "ndjson"):
        if once:
            click.get_current_context().fail("--once is for CSV, Parquet and Arrow files")
        with path.open("rb") as file, progress(f"appending {path.name}", path.stat().st_size) as done:
            if form == "ndjson":
                json_lines(file, intake, done)
            else:
                intake.unit = "item"
                array(file.read(), intake)
    else:
        _dataset(intake, str(path), form, once=once)


def _from_stdin(intake: Intake, form: str | None) -> None:
    from penstock.cli.stream.intake import array, csv_lines, json_lines

    file: Any = sys.stdin.buffer
    if sys.stdin.isatty():
        say(f"reading {form or 'JSON objects, one per line,'} from the terminal; Ctrl-D ends")
    if form is None:
        form = _peek(file)
    if form == "ndjson":
        json_lines(file, intake, lambda size: None)
    elif form == "json":
        intake.unit = "item"
        array(file.read(), intake)
    elif form == "arrow":
        import pyarrow as pa

        try:
            with pa.ipc.open_stream(file) as reader:
                # A generator: the reader itself would count as one table, and be read to its end.
                _dataset(intake, (batch for batch in reader), None)
        except pa.ArrowInvalid as error:
            reason = str(error).split("\n")[0]
            raise SourceError(expected="an Arrow IPC stream", got=reason, where="on stdin") from error
    elif form == "csv" and not intake.target.stream.is_document:
        csv_lines(file, intake)
    else:
        # Types are told from all of a CSV's rows, and Parquet begins at its end: both need the whole.
        with _spooled(file, form) as path:
            _dataset(intake, path, form)


def _peek(file: IO[bytes]) -> str:
    """The format of stdin by its first bytes; JSON lines when they do not say."""
    peek = getattr(file, "peek", None)
    start = peek(6)[:6] if peek is not None else b""
    if start[:4] == b"PAR1":
        return "parquet"
    if start[:4] == b"\xff\xff\xff\xff":
        return "arrow"
    return "json" if start.lstrip()[:1] == b"[" else "ndjson"


@contextmanager
def _spooled(file: IO[bytes], form: str) -> Iterator[str]:
    import shutil

    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        path = Path(folder) / f"stdin.{form}"
        with path.open("wb") as copy:
            shutil.copyfileobj(file, copy)
        yield str(path)


def _dataset(intake: Intake, data: Any, form: str | None, *, once: bool = False) -> None:
    """Tables, by the source for files and frames."""
    from penstock.connect import Dataset

    stream = intake.target.stream
    with progress(f"appending to {stream.name}") as done:
        source = Dataset(
            data,
            schema=None if stream.is_document else stream.schema,
            format=form,
            on_bad="skip" if intake.skip else "stop",
            errors=lambda rows: _left_out(rows, intake),
            resume=once,
            batch_rows=65_536,
            progress=lambda statistics: done(statistics.rows),
        )
        source.stream(intake.target)


def _left_out(rows: list[dict[str, Any]], intake: Intake) -> None:
    from penstock.errors import RecordError

    for row in rows:
        number = row["line"] if row["line"] is not None else row["row"]
        intake.unit = "line" if row["line"] is not None else "row"
        intake.bad(number, RecordError(expected=row["expected"], got=row["got"], column=row["column"]))
