"""`penstock stream`: look into streams, append to them, read them, and keep them in order."""

from __future__ import annotations

import click

from penstock.cli.tree import Commands, debug_option, help_if_alone, hub_option

__all__ = ["stream"]


@click.group(
    cls=Commands,
    places={
        "ls": "penstock.cli.stream.show:ls",
        "info": "penstock.cli.stream.show:info",
        "tail": "penstock.cli.stream.tail:tail",
        "append": "penstock.cli.stream.append:append",
        "read": "penstock.cli.stream.read:read",
        "groups": "penstock.cli.stream.groups:groups",
        "seek": "penstock.cli.stream.groups:seek",
        "retain": "penstock.cli.stream.keep:retain",
        "repair": "penstock.cli.stream.repair:repair",
        "drop": "penstock.cli.stream.keep:drop",
    },
)
@hub_option
@debug_option
@click.pass_context
def stream(ctx: click.Context, hub: str | None) -> None:
    """Durable streams: look, append, read, keep."""
    root = ctx.find_root()
    root.obj = hub or root.obj
    help_if_alone(ctx)
