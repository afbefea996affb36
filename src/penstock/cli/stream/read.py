"""`penstock stream read`: rows of a stream to the terminal, a pipe or a file."""

from __future__ import annotations

import click

from penstock.cli.deliver import deliver, target_of
from penstock.cli.formats import FORMATS
from penstock.cli.hubs import open_hub, stream_names
from penstock.cli.stream.when import COLUMNS, WHEN, columns_of, when
from penstock.cli.tree import shared

__all__ = ["read"]


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
    target = target_of(output, form, as_json)
    with open_hub(hub) as opened:
        table = opened.streams.get(name, create=False).read(when(start), when(stop), columns_of(columns))
        deliver(table, target)
