"""Rows for factors: files (Parquet, Arrow, CSV) or a stream of the hub, as one table."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from penstock.cli.hubs import open_hub, stream_names
from penstock.cli.outcome import say
from penstock.cli.progress import progress
from penstock.cli.stream.when import WHEN, when
from penstock.cli.tree import hub_option
from penstock.errors import SourceError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Rows", "data_options", "load"]

F = TypeVar("F", bound=Callable[..., Any])
REVISION = "revision"


@dataclass(frozen=True, slots=True)
class Rows:
    """Where rows come from, as the options say."""

    data: str | None
    stream: str | None
    start: str | None
    stop: str | None
    symbol: str
    time: str
    rename: tuple[str, ...]
    hub: str | None

    @property
    def given(self) -> bool:
        return self.data is not None or self.stream is not None


def data_options(function: F) -> F:
    """--data, --stream and what goes with them, as keyword arguments named as in `Rows`."""
    for option in (
        hub_option,
        click.option(
            "--rename", metavar="OLD=NEW", multiple=True, help="Read the column OLD as NEW.  [may be given again]"
        ),
        click.option(
            "--time-column", "time", metavar="NAME", default="ts_event", show_default=True, help="Column of times."
        ),
        click.option(
            "--symbol-column", "symbol", metavar="NAME", default="symbol", show_default=True, help="Column of symbols."
        ),
        click.option("--stop", metavar=WHEN, help="Of the stream: row after the last one."),
        click.option("--start", metavar=WHEN, help="Of the stream: first row."),
        click.option("--stream", metavar="NAME", shell_complete=stream_names, help="A stream of the hub."),
        click.option("--data", metavar="FILE", help="A Parquet, Arrow or CSV file, a folder of them, or a pattern."),
    ):
        function = option(function)
    return function


def load(rows: Rows, inputs: Sequence[str]) -> pa.Table:
    """The rows: symbol, time and the inputs, under those names; of revised rows (bars) the last revision.

    Raises  UsageError for options that do not go together; SourceError for files and columns there are not.
    """
    if rows.data is not None and rows.stream is not None:
        raise UsageError("--data and --stream are two sources", hint="give one")
    if not rows.given:
        raise UsageError("no rows are given", hint="--data FILE or --stream NAME")
    if rows.data is not None and (rows.start is not None or rows.stop is not None):
        raise UsageError("--start and --stop are for a --stream")
    columns = _Columns(rows, inputs)
    table = _from_stream(rows, columns) if rows.stream is not None else _from_files(str(rows.data), columns)
    table = columns.renamed(table)
    return table if REVISION in inputs else _latest(table, rows)


class _Columns:
    """Which columns to read, and what they are called here."""

    def __init__(self, rows: Rows, inputs: Sequence[str]) -> None:
        self.old: dict[str, str] = {}
        for text in rows.rename:
            old, sign, new = text.partition("=")
            if not sign or not old.strip() or not new.strip():
                raise UsageError(expected="OLD=NEW", got=repr(text), where="in --rename")
            self.old[new.strip()] = old.strip()
        self.flags = {rows.symbol: "--symbol-column", rows.time: "--time-column"}
        self.needed = list(dict.fromkeys([rows.symbol, rows.time, *inputs]))

    def wanted(self, there: Sequence[str], where: str) -> list[str]:
        """The columns to read of those there are, under their names there."""
        names = [self.old.get(name, name) for name in self.needed]
        missing = [(name, self.old.get(name, name)) for name in self.needed if self.old.get(name, name) not in there]
        if missing:
            folded = {name.lower(): name for name in there}
            new, old = missing[0]
            near = [folded[old.lower()]] if old.lower() in folded else difflib.get_close_matches(old, there, n=1)
            if new in self.flags:
                hint = f"{self.flags[new]} {near[0] if near else 'NAME'} says which it is"
            else:
                hint = f"--rename {near[0] if near else 'OLD'}={new} reads another column"
            names_text = ", ".join(map(repr, there[:20])) or "no columns"
            which = f"column {old!r}" if len(missing) == 1 else f"columns {', '.join(repr(o) for _, o in missing)}"
            verb = "is" if len(missing) == 1 else "are"
            raise SourceError(f"{which} {verb} missing", where=f"in {where} with {names_text}", hint=hint)
        return list(dict.fromkeys([*names, *([REVISION] if REVISION in there else [])]))

    def renamed(self, table: pa.Table) -> pa.Table:
        import pyarrow as pa

        columns = {name: table[self.old.get(name, name)] for name in self.needed}
        if REVISION in table.column_names:
            columns.setdefault(REVISION, table[REVISION])
        return pa.table(columns)


def _from_stream(rows: Rows, columns: _Columns) -> pa.Table:
    name = str(rows.stream)
    with open_hub(rows.hub) as hub:
        stream = hub.streams.get(name, create=False)
        if stream.is_document:
            hint = "give it columns: penstock stream append --schema"
            raise SourceError(expected="a stream with columns", got="documents", where=f"in stream {name!r}", hint=hint)
        wanted = columns.wanted(stream.schema.names, f"stream {name!r}")
        return stream.read(when(rows.start), when(rows.stop), wanted)


def _from_files(data: str, columns: _Columns) -> pa.Table:
    import pyarrow as pa

    from penstock.connect.files import Files, find_files, format_of

    paths = find_files(data)
    forms = {"csv" if path.stat().st_size and format_of(path) == "csv" else "typed" for path in paths}
    with progress(f"reading {Path(data).name}") as done:
        if forms == {"csv"}:
            parts = [_csv(path, columns) for path in paths]
            found = [part for part in parts if part.num_rows]  # without rows a column has no type
        else:
            found, count = [], 0
            for piece in Files(paths).pieces(columns.wanted, unify=True):
                found.append(pa.table(piece.batch))
                count += piece.batch.num_rows
                done(count)
    if not found:
        raise SourceError(expected="rows", got="a file without any", where=f"at {data}")
    return pa.concat_tables(found, promote_options="permissive")


def _csv(path: Path, columns: _Columns) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv as pcsv

    from penstock.connect.csvfile import header_of

    delimiter = "\t" if ".tsv" in path.suffixes else ","
    names = header_of(path, delimiter)
    wanted = columns.wanted(names, str(path))
    try:
        return pcsv.read_csv(
            path,
            read_options=pcsv.ReadOptions(column_names=names, skip_rows=1),
            parse_options=pcsv.ParseOptions(delimiter=delimiter),
            convert_options=pcsv.ConvertOptions(include_columns=wanted),
        )
    except pa.ArrowInvalid as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise SourceError(f"the file does not read as csv: {reason}", where=f"at {path}") from error


def _latest(table: pa.Table, rows: Rows) -> pa.Table:
    """Of the rows of one symbol and time the one with the highest revision, where there are revisions."""
    import numpy as np
    import pyarrow.compute as pc

    if REVISION not in table.column_names or not table.num_rows:
        return table
    bare = table.drop([REVISION])
    revision = pc.fill_null(table[REVISION], 0).to_numpy()
    if not revision.any():
        return bare
    codes = pc.rank(table[rows.symbol], tiebreaker="dense").to_numpy()
    times = pc.rank(table[rows.time], tiebreaker="dense").to_numpy()
    order = np.lexsort((np.arange(len(codes)), revision, codes, times))
    last = np.ones(len(order), bool)
    last[:-1] = (np.diff(codes[order]) != 0) | (np.diff(times[order]) != 0)
    kept = np.sort(order[last])
    if len(kept) < len(order):
        say(f"{len(order) - len(kept):,} rows are left out: later revisions of them are there")
    return bare.take(kept)
