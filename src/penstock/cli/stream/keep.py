"""`penstock stream retain` and `drop`: forgetting and removing."""

from __future__ import annotations

import re

import click

from penstock.cli import out
from penstock.cli.hubs import open_hub, stream_names
from penstock.cli.questions import agreed
from penstock.cli.tree import shared

__all__ = ["drop", "retain"]

_UNITS = {"": 1, "b": 1}
_UNITS |= {f"{letter}b": 1000**i for i, letter in enumerate("kmgt", 1)}
_UNITS |= {f"{letter}ib": 1024**i for i, letter in enumerate("kmgt", 1)}


def _bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A number of bytes: 1000000, 10MB, 4GiB."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", value.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise click.BadParameter(f"{value!r} is no size; give bytes, or such as 500MB, 4GiB", ctx, param)
    return round(float(match[1]) * _UNITS[match[2]])


@click.command(short_help="Drop what the retention lets go.")
@click.argument("name", shell_complete=stream_names)
@click.option("--age", metavar="DURATION", help='From now on forget rows older than this, such as "7d" or "12h".')
@click.option(
    "--bytes", "limit", metavar="SIZE", callback=_bytes, help="From now on keep at most this much, such as 4GB."
)
@click.option("--until", metavar="GROUP", help="From now on forget only what this group has done.")
@click.option("--forever", is_flag=True, help="From now on keep everything.")
@shared()
def retain(
    name: str, age: str | None, limit: int | None, until: str | None, forever: bool, hub: str | None, as_json: bool
) -> None:
    """Drop what the retention of the stream NAME lets go, now.

    Whole segments go, oldest first; the newest one always stays. With an option the retention is set first, for all who
    append: parts that are not given are not kept.
    """
    asked = {"age": age, "bytes": limit, "until": until}
    asked = {key: value for key, value in asked.items() if value is not None}
    if forever and asked:
        click.get_current_context().fail(f"--forever and --{next(iter(asked))} contradict each other")
    with open_hub(hub) as opened:
        stream = opened.streams.get(name, create=False)
        if asked or forever:
            stream.change(retention=asked)
        dropped = stream.retain()
        first, stop = stream.first_offset, stream.next_offset
    if as_json:
        out.print_json({"stream": name, "segments_dropped": dropped, "first_offset": first, "next_offset": stop})
    else:
        segments = {0: "no segment", 1: "1 segment"}.get(dropped, f"{dropped:,} segments")
        out.write(f"dropped {segments} of {name!r}; offsets {first:,} to {stop:,} are kept\n")


@click.command(short_help="Remove a stream.")
@click.argument("name", shell_complete=stream_names)
@click.option("--yes", is_flag=True, help="Do not ask.")
@shared()
def drop(name: str, yes: bool, hub: str | None, as_json: bool) -> None:
    """Remove the stream NAME, its rows and its groups, for every process. Asks on a terminal, else --yes is needed."""
    with open_hub(hub) as opened:
        metadata = opened.streams.metadata(name)
        what = f"stream {name!r} with {out.rows_text(metadata.rows)} ({out.size(metadata.bytes)})"
        agreed(what, yes)
        opened.streams.drop(name)
    if as_json:
        out.print_json({"stream": name, "rows": metadata.rows, "bytes": metadata.bytes})
    else:
        out.write(f"dropped {what}\n")
