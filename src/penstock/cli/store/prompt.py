"""`penstock store repl`: a prompt on a store."""

from __future__ import annotations

from typing import Any

import click

from penstock.cli.store.where import named, uri_options
from penstock.cli.tree import debug_option

__all__ = ["repl"]


@click.command(short_help="A prompt on a store.")
@click.option("--memory", metavar="SIZE", default="1g", show_default=True, help="For frames, with --dir.")
@uri_options
@debug_option
def repl(memory: str, **where: Any) -> int:
    """Ask a store at a prompt: stats, ls, head, query, plot, …; help lists them.

    Commands may come through a pipe; then the exit code is 1 if one of them failed. Without --dir, --uri and
    $PENSTOCK_HUB it is the server on this machine that is asked, or, if there is none, the folder ./penstock-data.
    """
    from penstock.store import connect
    from penstock.store import open as open_store
    from penstock.store.service.desk import Desk
    from penstock.store.service.repl import run
    from penstock.store.service.sizes import bytes_of

    size = bytes_of(memory, "--memory")
    uri, folder = named(where, server_first=True)
    if uri is not None:
        with connect(uri, token=where["token"], ca=where["ca"]) as client:
            client.stats()  # whether it is there, before the prompt is
            return run(client)
    with open_store(folder, create=False) as store, Desk(store, size) as desk:
        return run(desk)
