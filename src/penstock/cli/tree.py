"""The tree of commands, and the options that many of them share."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

import click

__all__ = ["Commands", "debug_option", "help_if_alone", "hub_option", "json_option", "penstock", "shared"]

F = TypeVar("F", bound=Callable[..., Any])


class Commands(click.Group):
    """A group whose commands are imported when they are called, or listed.

    Takes   commands: name → "module:attribute".
    """

    def __init__(self, *args: Any, places: dict[str, str], **options: Any) -> None:
        super().__init__(*args, **{"invoke_without_command": True, "no_args_is_help": False, **options})
        self.places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which they are of use."""
        return list(self.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name not in self.places:
            return None
        module, _, attribute = self.places[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        if ctx.auto_envvar_prefix:
            # By the option's name as it is typed; click would take the name of the function's argument.
            prefix = f"{ctx.auto_envvar_prefix}_{cmd_name}"
            for option in command.params:
                if isinstance(option, click.Option):
                    name = max(option.opts, key=len).lstrip("-").replace("-", "_")
                    option.envvar = f"{prefix}_{name}".upper()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command asked for; a name that is none gets the near ones."""
        if args and not args[0].startswith("-") and args[0] not in self.places:
            import difflib

            near = difflib.get_close_matches(args[0], self.places, 2)
            hint = f"did you mean {' or '.join(map(repr, near))}" if near else f"there are {', '.join(self.places)}"
            ctx.fail(f"no command {args[0]!r}: {hint}")
        return super().resolve_command(ctx, args)


def help_if_alone(ctx: click.Context) -> None:
    """What a group does when no command is named: show its commands, as a wrong call."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from penstock import __version__

        click.echo(f"penstock {__version__}")
        ctx.exit()


def hub_option(function: F) -> F:
    """--hub."""
    text = "Folder of the hub.  [default: $PENSTOCK_HUB, else ./penstock-data]"
    return click.option("--hub", metavar="DIR", help=text)(function)


def json_option(function: F) -> F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="JSON on stdout, one object per line.")(function)


def debug_option(function: F) -> F:
    """--debug."""
    # Read from the arguments before anything can fail (outcome.py); here it only has to be known.
    option = click.option("--debug", is_flag=True, expose_value=False, help="Show where an error came from.")
    return option(function)


def shared(*, json: bool = True) -> Callable[[F], F]:
    """The options of every command on a hub: --hub, --json, --debug."""

    def add(function: F) -> F:
        function = debug_option(function)
        if json:
            function = json_option(function)
        return hub_option(function)

    return add


@click.group(
    cls=Commands,
    places={
        "stream": "penstock.cli.stream:stream",
        "factor": "penstock.cli.factor:factor",
        "feed": "penstock.cli.feed:feed",
        "tail": "penstock.cli.tail:tail",
        "collect": "penstock.cli.collect:collect",
        "plant": "penstock.cli.plant:plant",
        "store": "penstock.cli.store:store",
        "demo": "penstock.cli.demo:demo",
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@hub_option
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@debug_option
@click.pass_context
def penstock(ctx: click.Context, hub: str | None) -> None:
    """Live data to computation: from feed to factor to frame."""
    ctx.obj = hub
    help_if_alone(ctx)
