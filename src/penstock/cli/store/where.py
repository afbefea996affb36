"""Which store a command means: a folder (--dir), or a server (--uri)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from penstock.cli.hubs import where_of
from penstock.cli.tree import debug_option, json_option
from penstock.errors import UsageError

if TYPE_CHECKING:
    from penstock.store import Client, Store

__all__ = ["DEFAULT_URI", "answers", "named", "opened", "path_names", "stored", "time_of", "uri_options"]

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_URI: Final = "grpc://127.0.0.1:8815"
_DIR: Final = "Folder of the store.  [default: $PENSTOCK_HUB, ./penstock-data, or the server on this machine]"


def stored(*, json: bool = True) -> Callable[[F], F]:
    """--dir, --uri, --token, --ca, --json and --debug; the first four arrive as one dict, `where`."""

    def add(function: F) -> F:
        function = debug_option(function)
        return uri_options(json_option(function) if json else function)

    return add


def uri_options(function: F) -> F:
    """--dir, --uri, --token, --ca."""
    function = click.option("--ca", metavar="FILE", help="Certificates to trust, for grpc+tls://.")(function)
    function = click.option("--token", metavar="KEY", help="Key of the server.  [default: $PENSTOCK_TOKEN]")(function)
    function = click.option("--uri", metavar="URL", help="Server of the store, such as grpc://host:8815.")(function)
    return click.option("--dir", "--hub", "folder", metavar="DIR", help=_DIR)(function)


@contextmanager
def opened(where: dict[str, Any], *, create: bool = False) -> Iterator[Store | Client]:
    """The store of a command: a folder's, or one behind a server.

    Raises  UsageError when nothing is named and nothing is there.
    """
    from penstock.store import connect
    from penstock.store import open as open_store

    uri, folder = named(where)
    if uri is not None:
        with connect(uri, token=where["token"], ca=where["ca"]) as client:
            yield client
        return
    if folder is None and not create and not Path("penstock-data").exists():
        raise UsageError(
            expected="a store: --dir, --uri, $PENSTOCK_HUB, or the folder ./penstock-data",
            got="none",
            where=f"here, and no server answers at {DEFAULT_URI}",
            hint="penstock store serve --dir DIR starts one",
        )
    with open_store(folder, create=create) as store:
        yield store


def named(where: dict[str, Any], *, server_first: bool = False) -> tuple[str | None, str | None]:
    """(URL, folder) meant; both None: the default folder. A server on this machine is meant when there is no folder."""
    uri, folder = where["uri"], where["folder"]
    if uri is not None and folder is not None:
        click.get_current_context().fail("--dir and --uri are two places; give one")
    if uri is not None:
        return uri, None
    folder = where_of(folder) or os.environ.get("PENSTOCK_HUB") or None
    if folder is not None:
        return None, folder
    if (server_first or not Path("penstock-data").exists()) and answers():
        return DEFAULT_URI, None
    return None, None


def answers() -> bool:
    """Whether something listens where a server on this machine does by default."""
    try:
        with socket.create_connection(("127.0.0.1", 8815), timeout=0.5):
            return True
    except OSError:
        return False


def time_of(text: str | None) -> int | str | None:
    """An event time as it is typed: ISO text, or nanoseconds; a short number is more likely a year, and refused."""
    if text is not None and text.isdigit() and (len(text) > 11 or text == "0"):
        return int(text)
    return text


def path_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Paths of the store, for a shell that completes one."""
    from penstock.errors import PenstockError
    from penstock.store.service.complete import paths

    where = {name: ctx.params.get(name) for name in ("folder", "uri", "token", "ca")}
    try:
        with opened(where) as store:
            return paths(store, incomplete)
    except PenstockError:
        return []
