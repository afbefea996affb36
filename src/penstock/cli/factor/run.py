"""`penstock factor run`: factors over a file or a stream, to a file, a stream, or the terminal."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from penstock.cli import out
from penstock.cli.deliver import deliver, target_of
from penstock.cli.factor.data import Rows, data_options, load
from penstock.cli.factor.follow import follow as follow_stream
from penstock.cli.factor.options import compiled, factor_options, program_options
from penstock.cli.formats import FORMATS, pieces
from penstock.cli.hubs import open_hub
from penstock.cli.out import rows_text
from penstock.cli.progress import progress
from penstock.cli.stream.when import columns_of
from penstock.errors import FactorError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from penstock.factor import Executor, Program

__all__ = ["computed", "run"]

CELLS = 1 << 22
"""Values of one call: enough to be fast, few enough to show progress and to hear Ctrl-C."""


@click.command(short_help="Compute factors over a file or a stream.")
@factor_options
@program_options
@data_options
@click.option("-o", "--output", metavar="FILE", help='File to write, "-" for stdout.  [default: -]')
@click.option("--format", "form", type=click.Choice(FORMATS), help="[default: by FILE's name, else table]")
@click.option("--into", metavar="STREAM", help="Append to this stream of the hub instead.")
@click.option("--append", is_flag=True, help="With --into: also if the stream has rows.")
@click.option("-n", "last", metavar="ROWS", type=click.IntRange(1), help="Only the last so many rows.")
@click.option("--follow", is_flag=True, help="With --stream and --into: go on with rows as they are appended.")
@click.option("--group", metavar="NAME", help="With --follow: whose place in the stream it is.  [default: factors]")
@click.option("--symbols", metavar="A,B", help="With --follow: the universe; a tick with all of them is complete.")
@click.option(
    "--every", metavar="DURATION", help="With --follow: the time between ticks; absent ones are computed too."
)
@click.option("--lateness", metavar="DURATION", help="With --follow: how far rows may come behind the latest one.")
@click.option("--idle", metavar="DURATION", help="With --follow: complete a tick when no row came for so long.")
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(0), help="With --follow: end when none came.")
@click.option(
    "--threads", metavar="N", type=click.IntRange(1, 256), default=1, show_default=True, help="To compute with."
)
def run(
    factors: tuple[str, ...],
    expressions: tuple[str, ...],
    dtype: str,
    engine: str | None,
    output: str | None,
    form: str | None,
    into: str | None,
    append: bool,
    last: int | None,
    follow: bool,
    group: str | None,
    symbols: str | None,
    every: str | None,
    lateness: str | None,
    idle: str | None,
    timeout: float | None,
    threads: int,
    as_json: bool,
    **source: Any,
) -> None:
    """Compute FACTORS over the rows of a file (--data) or of a stream (--stream): symbol, time and a column per factor.

    The rows need columns symbol and ts_event, or those that --symbol-column and --time-column name, and the inputs of
    the factors; rows come out in the order in which they came. Where a stream has several revisions of a bar, the last
    one counts.

    With --follow it is a consumer: each row of factors is appended once, also when this is killed and started again,
    and it goes on where it stood.
    """
    context = click.get_current_context()
    if follow:
        if source["stream"] is None or into is None:
            context.fail("--follow needs --stream and --into")
        if output is not None or form is not None or append or last is not None or threads > 1 or source["rename"]:
            context.fail("--follow takes no file, no format, no --append, -n, --threads, --rename")
        options: dict[str, Any] = {
            "group": group or "factors",
            "every": every,
            "lateness": lateness,
            "idle": idle,
            "timeout": timeout,
        }
        options["symbols"] = columns_of(symbols)
        follow_stream(compiled(factors, expressions, dtype, engine), Rows(**source), into, options, as_json)
        return
    if any(option is not None for option in (group, symbols, every, lateness, idle, timeout)):
        context.fail("--group, --symbols, --every, --lateness, --idle and --timeout are for --follow")
    if into is not None and (output is not None or form is not None):
        context.fail("--into takes no file and no format")
    if append and into is None:
        context.fail("--append is for --into")
    target = target_of(output, form, as_json, used=into is None)
    rows = Rows(**source)
    with ExitStack() as stack:
        stream = None
        if into is not None:
            hub = stack.enter_context(open_hub(rows.hub, create=True))
            if into in hub.streams.list() and len(hub.streams.get(into)) and not append:
                raise UsageError(f"stream {into!r} has rows already", hint="--append adds to them; or another name")
        program = compiled(factors, expressions, dtype, engine)
        table = load(rows, program.inputs)
        executor = stack.enter_context(_executor(threads)) if threads > 1 else None
        table = computed(program, table, rows, executor)
        table = table if last is None else table.slice(max(0, table.num_rows - last))
        if into is not None:
            stream = hub.streams.get(into, schema=table.schema)
            first = stream.next_offset
            with progress(f"appending to {into}", table.num_rows) as done:
                count = 0
                for batch in pieces(table):
                    stream.append(batch)
                    count += batch.num_rows
                    done(count)
            if as_json:
                facts = {"stream": into, "rows": table.num_rows, "first_offset": first}
                out.print_json({**facts, "next_offset": stream.next_offset})
            else:
                place = f", offsets {first:,} to {stream.next_offset:,}" if table.num_rows else ""
                out.write(f"appended {rows_text(table.num_rows)} to {into!r}{place}\n")
            return
    deliver(table, target, "--json shows all")


def _executor(threads: int) -> Executor:
    from penstock.factor import Executor

    return Executor(threads)


def computed(program: Program, table: pa.Table, rows: Rows, executor: Executor | None) -> pa.Table:
    """`program.batch(table)`, a stretch of times after the other, with progress; the same bits."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    step = max(1, CELLS // (len(program.outputs) + len(program.inputs)))
    clocked = table.column(rows.time).type
    if table.num_rows <= step or table[rows.time].null_count or not _ordered(clocked):
        out_: pa.Table = program.batch(table, symbol=rows.symbol, time=rows.time, executor=executor)
        return out_
    ticks = pc.rank(table[rows.time], tiebreaker="dense").to_numpy().astype(np.int64)
    order = None
    if (np.diff(ticks) < 0).any():
        order = np.argsort(ticks, kind="stable")
        table, ticks = table.take(order), ticks[order]
    edges = np.flatnonzero(np.diff(ticks)) + 1  # where another time begins
    symbols = sorted(pc.unique(table[rows.symbol]).to_pylist())
    live = program.stream(symbols, executor=executor)
    made, start = [], 0
    with progress("computing", table.num_rows) as done:
        while start < table.num_rows:
            after = int(np.searchsorted(edges, start + step))
            stop = int(edges[after]) if after < len(edges) else table.num_rows
            try:
                made.append(live.batch(table.slice(start, stop - start), symbol=rows.symbol, time=rows.time))
            except FactorError as error:
                error.where = f"{error.where or 'in the data'}, counted from row {start:,} in the order of times"
                raise
            start = stop
            done(start)
    whole = pa.concat_tables(made)
    if order is None:
        return whole
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return whole.take(back)


def _ordered(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    return bool(types.is_integer(kind) or types.is_timestamp(kind) or types.is_date(kind))
