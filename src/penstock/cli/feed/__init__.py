"""`penstock feed`: something to subscribe to, made up or recorded."""

from __future__ import annotations

import click

from penstock.cli.tree import Commands, debug_option, help_if_alone

__all__ = ["feed"]


@click.group(
    cls=Commands,
    places={"fake": "penstock.cli.feed.fake:fake", "replay": "penstock.cli.feed.replay:replay"},
)
@debug_option
@click.pass_context
def feed(ctx: click.Context) -> None:
    """Feeds with a plant in front of them: a made-up market, or a recorded one."""
    help_if_alone(ctx)
