"""`penstock plant`: serve streams, run handlers, compare them, and say who may connect."""

from __future__ import annotations

import click

from penstock.cli.tree import Commands, debug_option, help_if_alone

__all__ = ["plant"]


@click.group(
    cls=Commands,
    places={
        "serve": "penstock.cli.plant.serve:serve",
        "handle": "penstock.cli.plant.handle:handle",
        "diff": "penstock.cli.plant.diff:diff",
        "ask": "penstock.cli.plant.ask:ask",
        "token": "penstock.cli.plant.token:token",
    },
)
@debug_option
@click.pass_context
def plant(ctx: click.Context) -> None:
    """The ticker plant: serve, handle, compare, ask, tokens."""
    help_if_alone(ctx)
