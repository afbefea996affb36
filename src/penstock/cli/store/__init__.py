"""`penstock store`: tables and keys by path, in a folder or behind a server."""

from __future__ import annotations

import click

from penstock.cli.tree import Commands, debug_option, help_if_alone

__all__ = ["store"]


@click.group(
    cls=Commands,
    places={
        "serve": "penstock.cli.store.serve:serve",
        "repl": "penstock.cli.store.prompt:repl",
        "ls": "penstock.cli.store.look:ls",
        "read": "penstock.cli.store.rows:read",
        "write": "penstock.cli.store.rows:write",
        "stats": "penstock.cli.store.look:stats",
        "compact": "penstock.cli.store.keep:compact",
        "drop": "penstock.cli.store.keep:drop",
        "import": "penstock.cli.store.files:import_",
        "export": "penstock.cli.store.files:export",
    },
)
@debug_option
@click.pass_context
def store(ctx: click.Context) -> None:
    """The dataframe store: serve, ask, read, write, keep."""
    help_if_alone(ctx)
