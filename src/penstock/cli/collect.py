"""`penstock collect`: a plant's messages into a table of the store."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from penstock.cli import out
from penstock.cli.hubs import open_hub
from penstock.cli.outcome import Terminated, say
from penstock.cli.plant.options import ca_of, count_option, log_option, subscribing
from penstock.cli.stream.when import WHEN, when
from penstock.cli.tree import json_option

if TYPE_CHECKING:
    from penstock.plant.collect import Collector

__all__ = ["collect"]


@click.command(short_help="Write a plant's messages into a table of the store.")
@subscribing("--uri", "AM.*")
@click.option("--into", metavar="TABLE", default="historical/minute", show_default=True, help="Path of the table.")
@click.option("--since", metavar=WHEN, default="start", show_default=True, help="Where to begin the first time.")
@click.option("--plain", is_flag=True, help="The server knows only the market's own words.")
@count_option("rows or a few more")
@click.option("--for", "duration", metavar="DURATION", help='End after so long, such as "8h".')
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(min=0), help="End when nothing came for so long.")
@click.option(
    "--hub", "--data", "hub", metavar="DIR", help="Folder of the hub.  [default: $PENSTOCK_HUB, else ./penstock-data]"
)
@json_option
@log_option
def collect(
    uri: str,
    patterns: str,
    token: str | None,
    ca: str | None,
    into: str,
    since: str,
    plain: bool,
    count: int | None,
    duration: str | None,
    timeout: float | None,
    hub: str | None,
    as_json: bool,
) -> None:
    """Write the bars (or trades, or quotes: --patterns) that a plant sends into TABLE, with their own types.

    Each row is written once, whatever is stopped or killed meanwhile: started again, it asks for what it does not have.
    """
    from penstock.clock import duration_ns
    from penstock.plant.collect import Collector
    from penstock.store import open as open_store

    seconds = None if duration is None else duration_ns(duration, name="--for") / 1e9
    with open_hub(hub, create=True) as opened, open_store(opened) as store, store.upkeep():
        collector = Collector(
            uri, store, into, patterns, since=when(since), plain=plain, token=token, tls=ca_of(ca), tell=say
        )
        say(f"collecting {patterns} of {uri} into {into} of {opened.path}; Ctrl-C ends")
        try:
            with _shown(collector):
                collector.run(count=count, timeout=timeout, seconds=seconds)
        except (KeyboardInterrupt, Terminated):
            say(f"stopped; {_done(collector)}")
            raise
    if as_json:
        out.print_json({"table": into, "rows": collector.rows, "skipped": collector.skipped})
    else:
        out.write(_done(collector) + "\n")


def _done(collector: Collector) -> str:
    left_out = f"; {collector.skipped:,} messages left out" if collector.skipped else ""
    return f"wrote {out.rows_text(collector.rows)} to {collector.into}{left_out}"


@contextmanager
def _shown(collector: Collector) -> Iterator[None]:
    """Rows and rate on a line of a terminal, twice a second."""
    if not out.styled(sys.stderr):
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_show, args=(lambda: collector.rows, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _show(rows: Callable[[], int], ended: threading.Event) -> None:
    before = rows()
    while not ended.wait(0.5):
        now = rows()
        sys.stderr.write(f"\r\033[K{out.rows_text(now)}, {out.rate((now - before) * 2.0)}")
        sys.stderr.flush()
        before = now
    sys.stderr.write("\r\033[K")
    sys.stderr.flush()
