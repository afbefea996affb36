"""What commands that serve or subscribe share: options, folders, and a plant that is started from them."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from penstock.cli.outcome import say
from penstock.cli.tree import debug_option
from penstock.errors import SourceError, UsageError

if TYPE_CHECKING:
    import ssl

    from penstock.hub import Hub
    from penstock.plant import Service

__all__ = [
    "DRAIN_S", "URI", "ca_of", "count_option", "handler_options", "home", "log_option", "serving", "serving_options",
    "sized", "started", "subscribing", "token_option", "tokens_file",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])

URI: Final = "ws://127.0.0.1:5000"
DRAIN_S: Final = 2.0
_POLICIES = ("disconnect", "conflate", "drop_oldest", "catch_up")


def home(*parts: str) -> Path:
    """A folder of this user's data: below $XDG_DATA_HOME/penstock, by default ~/.local/share/penstock."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base, "penstock", *parts)


def tokens_file() -> Path:
    """Where tokens are kept when no file is named."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base, "penstock", "tokens.json")


def handler_options(memory: str) -> Callable[[F], F]:
    """--timeout, --memory (of which `memory` says what it is) and --trusted: what a handler may."""

    def add(function: F) -> F:
        function = click.option(
            "--trusted", is_flag=True, help="All of Klong's verbs: files, processes, sockets, Python."
        )(function)
        function = click.option(
            "--memory", metavar="SIZE", default="512MiB", show_default=True, callback=sized, help=memory
        )(function)
        return click.option(
            "--timeout",
            metavar="SECONDS",
            type=click.FloatRange(min=0, min_open=True),
            default=1.0,
            show_default=True,
            help="A call that takes longer is ended.",
        )(function)

    return add


def log_option(function: F) -> F:
    """--log, and --debug."""

    def begin(ctx: click.Context, param: click.Parameter, value: str) -> None:
        import logging

        logging.basicConfig(level=value.upper(), force=True)

    levels = click.Choice(("debug", "info", "warning", "warn", "error"), case_sensitive=False)
    text = "How much the libraries tell on stderr."
    option = click.option(
        "--log", type=levels, default="warning", show_default=True, callback=begin, expose_value=False, help=text
    )
    return option(debug_option(function))


def serving(port: int) -> Callable[[F], F]:
    """Options of those who serve; they arrive as one dict, `serving`."""

    def add(function: F) -> F:
        options = [
            click.option(
                "--port", type=click.IntRange(0, 65535), default=port, show_default=True, help="0: a free one."
            ),
            click.option(
                "--bind", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Others need --tokens."
            ),
            click.option(
                "--tokens", metavar="FILE", help="Let in only those with a key of `penstock plant token add`."
            ),
            click.option("--tls-cert", metavar="FILE", help="A PEM certificate: serve wss:// instead of ws://."),
            click.option("--tls-key", metavar="FILE", help="Its key, if it is in a file of its own."),
            click.option(
                "--policy",
                type=click.Choice(_POLICIES),
                default="disconnect",
                show_default=True,
                help="What happens to subscribers that do not keep up and asked for nothing else.",
            ),
            click.option(
                "--origin", metavar="URL", multiple=True, help="Browser pages of this origin may connect, too."
            ),
            click.option(
                "--limit",
                metavar="NAME=N",
                multiple=True,
                help="Of one client or all, such as connections=100; docs/plant.md has the names.",
            ),
        ]
        for option in reversed(options):
            function = option(function)
        return function

    return add


def serving_options(given: dict[str, Any]) -> dict[str, Any]:
    """What `penstock.plant.serve` takes, of the options of `serving`; they are taken out of `given`."""
    from penstock.plant import Tokens

    names = ("port", "bind", "tokens", "tls_cert", "tls_key", "policy", "origin", "limit")
    port, bind, tokens, chain, key, policy, origins, limits = (given.pop(name) for name in names)
    if key is not None and chain is None:
        click.get_current_context().fail("--tls-key needs --tls-cert")
    options: dict[str, Any] = {"host": bind, "port": port, "policy": policy, "origins": list(origins)}
    if chain is not None:
        options["certificate"] = chain if key is None else (chain, key)
    if tokens is not None:
        options["tokens"] = Tokens(Path(tokens).expanduser())
        if not len(options["tokens"]):
            say(f"warning: there is no key in {tokens}: nobody can connect; `penstock plant token add` makes one")
    if limits:
        options["limits"] = _limits(limits)
    return options


def _limits(texts: Sequence[str]) -> Any:
    from dataclasses import fields

    from penstock.plant import Limits

    known = {field.name for field in fields(Limits)}
    found: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            found[name] = float(value) if name.endswith("_seconds") else int(value.replace("_", ""))
        except ValueError:
            found[name] = None
        if name not in known or found[name] is None:
            raise UsageError(
                expected=f"NAME=N with a name of {', '.join(sorted(known))}", got=repr(text), where="in --limit"
            )
    return Limits(**found)


@contextmanager
def started(start: Callable[..., Service], options: dict[str, Any]) -> Iterator[Service]:
    """A plant that runs, and is stopped when its subscribers have what they were sent.

    What is there by then stays to the end: it is taken out of the garbage collector's sight, which would walk all of it
    every so often (50 to 150 ms, in which nobody gets a message).
    Raises  SourceError when the port is taken or the address is not this machine's.
    """
    try:
        service = start(**options)
    except OSError as error:
        place = f"{options['host']}:{options['port']}"
        if error.errno == errno.EADDRINUSE:
            raise SourceError(
                f"port {options['port']} of {options['host']} is taken", hint="give another --port, or 0 for a free one"
            ) from error
        raise SourceError(f"cannot listen on {place}: {error.strerror or error}", hint="look at --bind") from error
    gc.collect()
    gc.freeze()
    try:
        yield service
    finally:
        gc.unfreeze()
        service.stop(drain_seconds=DRAIN_S)


def serve_hub(hub: Hub, streams: Sequence[str]) -> Callable[..., Service]:
    """What `started` starts."""
    from penstock.plant import serve

    return lambda **options: serve(hub, list(streams), **options)


def sized(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A size such as 512MB, in bytes."""
    from penstock.cli.stream.keep import _bytes

    return _bytes(ctx, param, value)


# -- those who subscribe


def token_option(function: F) -> F:
    """--token, --ca."""
    function = click.option("--ca", metavar="FILE", help="Certificates to trust, for wss://.")(function)
    return click.option("--token", metavar="KEY", help="Key of the plant.  [default: $PENSTOCK_TOKEN]")(function)


def count_option(what: str) -> Callable[[F], F]:
    """--count."""
    return click.option("--count", metavar="N", type=click.IntRange(min=1), help=f"End after N {what}.")


def subscribing(name: str, patterns: str) -> Callable[[F], F]:
    """Options of those who subscribe: the URL (by that name), --patterns, --token, --ca."""

    def add(function: F) -> F:
        function = token_option(function)
        text = "Channels, such as AM.*,T.AAPL."
        function = click.option("--patterns", metavar="A,B", default=patterns, show_default=True, help=text)(function)
        return click.option(name, metavar="URL", default=URI, show_default=True, help="Of the plant.")(function)

    return add


def ca_of(path: str | None) -> ssl.SSLContext | None:
    """What trusts the certificates of a file."""
    if path is None:
        return None
    import ssl

    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # an SSLError is one
        raise UsageError(expected="a PEM file of certificates", got=f"{path!r} ({error})", where="in --ca") from error
