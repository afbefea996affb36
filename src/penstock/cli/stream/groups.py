"""`penstock stream groups` and `seek`: who reads a stream, how far each has come, and putting one elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli import out
from penstock.cli.hubs import open_hub, stream_names
from penstock.cli.outcome import say
from penstock.cli.stream.show import groups_of, groups_table
from penstock.cli.stream.when import WHEN, when
from penstock.cli.tree import shared

if TYPE_CHECKING:
    from penstock.log import Stream

__all__ = ["groups", "seek"]


@click.command(short_help="List who reads a stream, and how far each has come.")
@click.argument("name", shell_complete=stream_names)
@shared()
def groups(name: str, hub: str | None, as_json: bool) -> None:
    """List the consumer groups of the stream NAME.

    DONE TO is the offset up to which all is done, LAG how many rows there are from it on. Rows from NEEDS FROM on are
    in windows that are still open.
    """
    with open_hub(hub) as opened:
        found = groups_of(opened.streams.get(name, create=False))
    if as_json:
        for group, place in found.items():
            out.print_json({"group": group, **place})
    elif found:
        out.write(groups_table(found))
    else:
        say(f"no groups in stream {name!r}")


@click.command(short_help="Put a group elsewhere in a stream.")
@click.argument("name", shell_complete=stream_names)
@click.argument("group")
@click.argument("offset", metavar=WHEN)
@click.option("--create", is_flag=True, help="Make the group if there is none of that name.")
@shared()
def seek(name: str, group: str, offset: str, create: bool, hub: str | None, as_json: bool) -> None:
    """Put GROUP of the stream NAME to an offset, or to the first row at or after a time.

    Its next window begins there. The group must not be in use. Results of windows from there on are made again, beside
    those that are in the stream of results already: drop that stream first to have each once.
    """
    import difflib

    from penstock.errors import StreamError

    with open_hub(hub) as opened:
        stream = opened.streams.get(name, create=False)
        known = stream.metadata().groups
        if group not in known and not create:
            near = difflib.get_close_matches(group, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else "see `penstock stream groups`, or give --create"
            raise StreamError(f"no group {group!r}", where=f"in stream {name!r}", hint=hint)
        target = _offset(stream, offset)
        held = stream.group(group, start=target)
        try:
            before = held.position.offset
            held.reset(target)
        finally:
            held.close()
    if as_json:
        out.print_json({"stream": name, "group": group, "before": before, "offset": target})
    else:
        out.write(f"group {group!r} of {name!r} goes on at offset {target:,} (it was at {before:,})\n")


def _offset(stream: Stream, text: str) -> int:
    from penstock.errors import OffsetError
    from penstock.records import event_column

    place = when(text)
    stop = stream.next_offset
    if isinstance(place, int) and place > stop:
        raise OffsetError(
            expected=f"an offset from {stream.first_offset} to {stop}",
            got=str(place),
            where=f"in stream {stream.name!r}",
            hint='"end" is the next row to be appended',
        )
    if isinstance(place, int) or place in ("start", "end") or event_column(stream.schema) is None:
        return stream.reader(place).offset
    # By event time: the first row of the stream that lies there, as rows need not be in its order.
    found = stream.read(place, stop, ["_offset"])
    return int(found.column(0)[0].as_py()) if found.num_rows else stop
