"""`penstock plant serve`: streams of a hub to subscribers."""

from __future__ import annotations

from typing import Any

import click

from penstock.cli.hubs import open_hub
from penstock.cli.outcome import say
from penstock.cli.plant.options import log_option, serve_hub, serving, serving_options, started

__all__ = ["serve"]


@click.command(short_help="Serve streams of a hub to subscribers.")
@click.argument("streams", nargs=-1)
@serving(5000)
@click.option("--compression", is_flag=True, help="Offer permessage-deflate: costs far more CPU than all the rest.")
@click.option("--day-end", metavar="TIME", help='When clients are told that the day is over: "17:00 America/New_York".')
@click.option(
    "--hub", "--data", "hub", metavar="DIR", help="Folder of the hub.  [default: $PENSTOCK_HUB, else ./penstock-data]"
)
@log_option
def serve(streams: tuple[str, ...], compression: bool, day_end: str | None, hub: str | None, **given: Any) -> None:
    """Serve STREAMS, names or patterns such as 'bars*', to whoever subscribes; all by default.

    Rows go out as they are appended, by whatever process. Streams made later are found.
    """
    options = {**serving_options(given), "compression": compression, "day_end": day_end}
    with open_hub(hub) as opened, started(serve_hub(opened, streams or ["*"]), options) as service:
        feeds = service.server.plant.feeds
        say(f"plant at {service.url}: {', '.join(feeds) or 'no streams yet'} of {opened.path}; Ctrl-C ends")
        service.wait()
