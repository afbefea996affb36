"""`penstock factor`: known factors and your own, looked into, compiled, run, timed and built."""

from __future__ import annotations

import click

from penstock.cli.tree import Commands, debug_option, help_if_alone

__all__ = ["factor"]


@click.group(
    cls=Commands,
    places={
        "list": "penstock.cli.factor.show:list_",
        "explain": "penstock.cli.factor.show:explain",
        "compile": "penstock.cli.factor.compile:compile_",
        "run": "penstock.cli.factor.run:run",
        "bench": "penstock.cli.factor.bench:bench",
        "build": "penstock.cli.factor.build:build",
    },
)
@debug_option
@click.pass_context
def factor(ctx: click.Context) -> None:
    """Factors: list, explain, compile, run, time, build."""
    help_if_alone(ctx)
