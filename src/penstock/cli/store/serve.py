"""`penstock store serve`: a store to whoever asks, with a fixed amount of memory for frames."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from penstock.cli.hubs import where_of
from penstock.cli.outcome import INTERRUPTED, TERMINATED, Terminated, say
from penstock.cli.plant.options import log_option

__all__ = ["serve"]

_DRAIN_S = 5.0


@click.command(short_help="Serve a store to clients.")
@click.option(
    "--dir",
    "--hub",
    "folder",
    metavar="DIR",
    help="Folder of the store.  [default: $PENSTOCK_HUB, else ./penstock-data]",
)
@click.option("--memory", metavar="SIZE", default="1g", show_default=True, help="For frames; others go, oldest first.")
@click.option("--port", type=click.IntRange(0, 65535), default=8815, show_default=True, help="0: a free one.")
@click.option("--bind", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Others need --tokens.")
@click.option("--tokens", metavar="FILE", help="Let in only those with a key of `penstock plant token add`.")
@click.option("--tls-cert", metavar="FILE", help="A PEM certificate: serve grpc+tls://.")
@click.option("--tls-key", metavar="FILE", help="Its key, if it is in a file of its own.")
@click.option("--roll/--no-roll", default=True, show_default=True, help="Roll and compact what is due all the time.")
@click.option("--max-message", metavar="SIZE", default="64m", show_default=True, help="Of one batch that is written.")
@log_option
def serve(
    folder: str | None,
    memory: str,
    port: int,
    bind: str,
    tokens: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    roll: bool,
    max_message: str,
) -> None:
    """Serve the tables of a folder over Arrow Flight; rows that others write there are seen at once."""
    from pathlib import Path

    # The C library's pool, told to give back what is free; Arrow's own keep it, beyond any budget. Arrow looks at this
    # when it is imported, which is now.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

    from penstock.store import serve as serve_store
    from penstock.store.service.memory import frugal
    from penstock.tokens import Tokens

    if tls_key is not None and tls_cert is None:
        click.get_current_context().fail("--tls-key needs --tls-cert")
    options: dict[str, Any] = {"host": bind, "port": port, "memory": memory, "max_message": max_message}
    if tls_cert is not None:
        options["certificate"] = tls_cert if tls_key is None else (tls_cert, tls_key)
    if tokens is not None:
        options["tokens"] = Tokens(Path(tokens).expanduser())
        if not len(options["tokens"]):
            say(f"warning: there is no key in {tokens}: nobody can connect; `penstock plant token add` makes one")
    frugal()
    server = serve_store(where_of(folder), keep=5.0 if roll else None, **options)
    memory_bytes = server.desk.cache.statistics().max
    code = 0
    try:
        say(f"store at {server.url}: {server.desk.name}, {memory_bytes} bytes for frames; Ctrl-C ends")
        # Not for ever at once: a signal may wake one of gRPC's threads, and this one is to hear of it.
        while not server.wait(0.5):
            pass
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Terminated:
        code = TERMINATED
    except BaseException:
        server.stop(_DRAIN_S)
        raise
    if not server.stop(_DRAIN_S):
        say("a client did not take what it had asked for; it was left")
    # Not by way of the interpreter's end: threads of gRPC that still want something from it would hold it up, that of
    # a client that has stopped reading for ever. All that was acknowledged is in the log.
    sys.stderr.flush()
    os._exit(code)
