"""`penstock plant handle`: a plant's messages through a handler, served on."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.outcome import Terminated, say
from penstock.cli.plant.options import (
    ca_of,
    handler_options,
    home,
    log_option,
    serving,
    serving_options,
    started,
    token_option,
)
from penstock.cli.stream.when import WHEN, when

if TYPE_CHECKING:
    from penstock.plant.node import Node

__all__ = ["handle"]


@click.command(short_help="Run a handler between a plant and its own subscribers.")
@click.argument("handler")
@click.option(
    "--upstream",
    "--uri",
    "upstream",
    metavar="URL",
    default="ws://localhost:5000",
    show_default=True,
    help="Of the plant whose messages it handles.",
)
@click.option("--patterns", metavar="A,B", default="*", show_default=True, help="Channels, such as AM.*,T.AAPL.")
@click.option("--since", metavar=WHEN, help="Where to begin the first time.  [default: what comes from now on]")
@click.option("--plain", is_flag=True, help="The upstream knows only the market's own words.")
@click.option("--into", metavar="NAME", help="Stream of what it makes.  [default: the handler's name]")
@click.option("--warm", metavar="N", type=click.IntRange(min=0), default=0, help="Hand the last N arrays over again.")
@handler_options("What a call may want beyond what is loaded.")
@click.option("--data", metavar="DIR", help="Hub that keeps what it got and made.  [default: one of this user's]")
@click.option("--hub", metavar="DIR", help="Hub that the handler may read and query.  [default: that of --data]")
@token_option
@serving(5001)
@log_option
def handle(
    handler: str,
    upstream: str,
    patterns: str,
    since: str | None,
    into: str | None,
    data: str | None,
    hub: str | None,
    token: str | None,
    ca: str | None,
    **given: Any,
) -> None:
    """Hand a plant's messages to HANDLER, and serve what it returns.

    HANDLER is a file in Klong (avg.kg, which defines onmsg or oncols) or Python (alerts.py, alerts.py:spread), or
    module:function. It gets each array of messages and returns a message, a list of them, or nothing. It runs in a
    process of its own; when it fails, that is told on the wire and in the stream NAME.errors, and the feed goes on. The
    file is loaded again when it changes. After a restart it goes on where it was, each array's result once.
    """
    from penstock.hub import open as open_
    from penstock.plant.node import Node, name_of

    options = serving_options(given)
    name = into or name_of(handler)
    folder = home(f"{name}-{options['port']}") if data is None else Path(data).expanduser()
    with open_(folder) as opened:
        node = Node(
            handler,
            opened,
            upstream=upstream,
            patterns=patterns,
            into=into,
            since=when(since),
            reads=hub,
            token=token,
            tls=ca_of(ca),
            tell=say,
            **given,
        )
        try:
            number = asyncio.run(_run(node, options, f"data in {folder}"))
        finally:
            node.journal.close()
        done = node.statistics()
    waiting = f", {done.waiting:,} wait" if done.waiting else ""
    made = f"{done.messages:,} messages made, {done.failures:,} failures"
    say(f"stopped; {done.handler.calls:,} arrays handled{waiting}, {made}")
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if number == signal.SIGTERM:
        raise Terminated


async def _run(node: Node, options: dict[str, Any], place: str) -> int | None:
    """Run it until a signal, and return that."""
    loop, seen = asyncio.get_running_loop(), list[int]()

    def stop(number: int) -> None:
        seen.append(number)
        node.stop()

    # Not as exceptions: one that is raised inside a task of the loop's own would be that task's alone.
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    await node.start()
    with started(node.serve, options) as service:
        say(f"{node.name} of {node.upstream} at {service.url}; {place}; Ctrl-C ends")
        await node.run()
    return seen[0] if seen else None
