"""`penstock plant token`: keys for those who connect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli import out
from penstock.cli.outcome import say
from penstock.cli.plant.options import tokens_file
from penstock.cli.tree import Commands, debug_option, help_if_alone, json_option

if TYPE_CHECKING:
    from penstock.plant import Tokens

__all__ = ["add", "ls", "revoke", "token"]


@click.group(
    cls=Commands,
    places={name: f"penstock.cli.plant.token:{name}" for name in ("add", "ls", "revoke")},
)
@debug_option
@click.pass_context
def token(ctx: click.Context) -> None:
    """Keys for those who connect: add, list, revoke."""
    help_if_alone(ctx)


def _file(function: Any) -> Any:
    text = "Where tokens are kept.  [default: $XDG_CONFIG_HOME/penstock/tokens.json]"
    return click.option("--tokens", metavar="FILE", help=text)(debug_option(function))


def _tokens(path: str | None) -> Tokens:
    from penstock.plant import Tokens

    return Tokens(tokens_file() if path is None else Path(path).expanduser())


@click.command(short_help="Make a key, and show it once.")
@click.argument("name")
@_file
def add(name: str, tokens: str | None) -> None:
    """Make a key for NAME and print it: it cannot be shown again, since only its digest is kept."""
    held = _tokens(tokens)
    key = held.add(name)
    out.write(key + "\n")
    say(f"the key of {name!r} is shown this once; plants with --tokens {held.path} let it in at once")


@click.command(short_help="List whose keys there are.")
@_file
@json_option
def ls(tokens: str | None, as_json: bool) -> None:
    """List names, and when their keys were made."""
    from penstock.clock import iso

    held = _tokens(tokens).all()
    if as_json:
        for one in held:
            out.print_json({"name": one.name, "created": iso(one.created)})
    elif held:
        out.write(out.grid(["NAME", "CREATED"], [[one.name, iso(one.created)] for one in held]))


@click.command(short_help="Forget a key; its connections are closed.")
@click.argument("name")
@_file
def revoke(name: str, tokens: str | None) -> None:
    """Forget the key of NAME: running plants close its connections within a second."""
    held = _tokens(tokens)
    held.revoke(name)
    say(f"the key of {name!r} is revoked in {held.path}")
