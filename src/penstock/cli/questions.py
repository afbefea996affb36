"""What a command asks before it removes something."""

from __future__ import annotations

import sys

import click

from penstock.cli.outcome import say

__all__ = ["agreed"]


def agreed(what: str, yes: bool) -> None:
    """Return if `what` may be dropped for good: `--yes` was given, or the terminal's answer is yes; else end."""
    if yes:
        return
    if not sys.stdin.isatty():
        click.get_current_context().fail(f"{what} would be removed for good; give --yes")
    print(f"drop {what} for good? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        say("nothing was dropped")
        click.get_current_context().exit(1)
