"""The command line as a tree."""

from __future__ import annotations

from collections.abc import Iterator

import click

from penstock.cli.tree import penstock as root

__all__ = ["commands", "root"]


def commands(group: click.Group = root, path: str = "penstock") -> Iterator[tuple[str, click.Command]]:
    """Every command with its path, groups first."""
    yield path, group
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command
