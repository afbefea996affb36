"""`penstock stream tail`: the last rows, and those that come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from penstock.cli import out
from penstock.cli.hubs import open_hub, stream_names
from penstock.cli.outcome import say
from penstock.cli.stream.when import COLUMNS, WHEN, columns_of, when
from penstock.cli.tree import shared

if TYPE_CHECKING:
    import pyarrow as pa

    from penstock.log import Stream

__all__ = ["tail"]

_LAST = 10
_STEP = 1 << 18


@click.command(short_help="Show the last rows, and those that come.")
@click.argument("name", shell_complete=stream_names)
@click.option("--start", metavar=WHEN, help="Begin there instead of at the last rows.")
@click.option("-n", "last", metavar="ROWS", type=click.IntRange(min=0), help=f"The last ROWS rows.  [default: {_LAST}]")
@click.option(
    "-f/-F",
    "--follow/--no-follow",
    default=None,
    help="Go on with rows as they are appended.  [default: only with --timeout or --start end]",
)
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(min=0), help="End when no row came for so long.")
@click.option("--columns", metavar="A,B", help=COLUMNS)
@shared()
def tail(
    name: str,
    start: str | None,
    last: int | None,
    follow: bool | None,
    timeout: float | None,
    columns: str | None,
    hub: str | None,
    as_json: bool,
) -> None:
    """Show the last rows of the stream NAME, and follow it.

    Documents come as one JSON object per line, other rows as aligned text, or with --json as JSON too. A TIME as
    --start, such as "2026-11-20" or "2026-11-20T09:30:00Z", picks by event time where the stream has one, else by time
    of append.
    """
    from penstock.records import is_document

    if start is not None and last is not None:
        click.get_current_context().fail("--start and -n say both where to begin; give one")
    if follow is False and timeout is not None:
        click.get_current_context().fail("--timeout ends following; leave out --no-follow")
    follows = follow if follow is not None else timeout is not None or start == "end"
    with open_hub(hub) as opened:
        stream = opened.streams.get(name, create=False)
        shown: out.Aligned | None = None
        for batch in _batches(stream, start, _LAST if last is None else last, follows, timeout, columns_of(columns)):
            if as_json or is_document(batch.schema):
                out.write(b"".join(text + b"\n" for text in out.json_rows(batch)))
                continue
            if shown is None or not batch.schema.equals(shown.schema):  # widened meanwhile
                shown = out.Aligned(batch.schema, width=out.width())
                out.write(shown.text(batch))
                if shown.left_out:
                    say(f"no room for {', '.join(shown.left_out)}; --columns chooses, --json shows all")
            else:
                out.write(shown.text(batch))


def _batches(
    stream: Stream, start: str | None, last: int, follow: bool, timeout: float | None, columns: list[str] | None
) -> Iterator[pa.RecordBatch]:
    """Rows there are now, then, when asked, those to come: what is appended in between is among the latter."""
    stop = stream.next_offset
    begin = when(start)
    if begin is None:
        begin = max(stream.first_offset, stop - last)
    elif begin == "start":
        begin = stream.first_offset
    elif begin == "end":
        begin = stop
    if isinstance(begin, int) and stream.first_offset <= begin < stop:
        for low in range(begin, stop, _STEP):  # in steps: a stream may be larger than memory
            yield from stream.read(low, min(low + _STEP, stop), columns).to_batches()
    else:
        yield from stream.read(begin, max(begin, stop) if isinstance(begin, int) else stop, columns).to_batches()
    if follow:
        after = max(begin, stop) if isinstance(begin, int) else stop
        yield from stream.tail(after, timeout=timeout, columns=columns)
