"""`penstock plant diff`: two handlers over the same history."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import click

from penstock.cli import out
from penstock.cli.hubs import open_hub, stream_names
from penstock.cli.outcome import DIFFERENCE
from penstock.cli.plant.options import handler_options, log_option
from penstock.cli.progress import progress
from penstock.cli.stream.when import WHEN, when
from penstock.cli.tree import json_option

__all__ = ["diff", "facts_of"]


@click.command(short_help="Replay a stream through two handlers, and show where they differ.")
@click.argument("old")
@click.argument("new")
@click.option(
    "--stream",
    metavar="NAME",
    required=True,
    shell_complete=stream_names,
    help="Its history; NAME.input of a handler's.",
)
@click.option("--start", metavar=WHEN, help="Begin there.")
@click.option("--stop", metavar=WHEN, help="End before that.")
@handler_options("Of a call.")
@click.option(
    "--hub", "--data", "hub", metavar="DIR", help="Folder of the hub.  [default: $PENSTOCK_HUB, else ./penstock-data]"
)
@json_option
@log_option
def diff(
    old: str,
    new: str,
    stream: str,
    start: str | None,
    stop: str | None,
    hub: str | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Hand the arrays of a stream to the handlers OLD and NEW, in step, until they give different messages.

    The exit code is 1 if they do. A failure counts as what a handler gave.
    """
    import msgspec

    from penstock.plant.handlers import diff as compare
    from penstock.plant.journal import arrays_of

    with open_hub(hub) as opened:
        source = opened.streams.get(stream, create=False)
        rows = len(source) if start is None and stop is None else None
        with progress("comparing", rows) as done:
            arrays = _counted(arrays_of(source, when(start), when(stop)), done)
            found = asyncio.run(compare(old, new, arrays, hub=opened.path, **options))
    facts = facts_of(stream, found)
    if as_json:
        out.print_json(facts)
    elif not found:
        out.write(f"no difference: {found.messages:,} messages of {found.arrays:,} arrays of {stream!r}\n")
    else:
        out.write(f"they differ at offset {facts['offset']:,} of {stream!r}, array {facts['array']:,}\n")
        for name in ("old", "new"):
            out.write(f"{name}  ".encode() + msgspec.json.encode(facts[name]) + b"\n")
    return DIFFERENCE if found else 0


def facts_of(stream: str, found: Any) -> dict[str, Any]:
    """What --json tells."""
    number, offset, old, new = found.first or (None, None, None, None)
    counts = {"stream": stream, "arrays": found.arrays, "messages": found.messages, "differ": bool(found)}
    return {**counts, "array": number, "offset": offset, "old": old, "new": new}


def _counted(arrays: Iterable[Any], done: Any) -> Iterator[Any]:
    for offset, messages in arrays:
        yield offset, messages
        done(offset)
