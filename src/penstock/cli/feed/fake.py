"""`penstock feed fake`: a made-up market in a stream, with a plant in front of it."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.outcome import Terminated, say
from penstock.cli.plant.options import (
    count_option,
    home,
    log_option,
    serve_hub,
    serving,
    serving_options,
    started,
)
from penstock.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.hub import Hub
    from penstock.log import Stream
    from penstock.plant.fake import FakeMarket

__all__ = ["STREAMS", "fake"]

STREAMS = {"AM": "bars", "A": "seconds", "T": "trades", "Q": "quotes"}
"""The stream of each event."""

_MADE_BY = "penstock feed fake"
_KEPT_BYTES = 1 << 30


@click.command(short_help="A made-up market, and a plant that serves it.")
@click.option("--symbols", metavar="A,B", default="AAPL", show_default=True, help="Each has a message in every round.")
@click.option("--ev", metavar="A,B", default="AM", show_default=True, help="AM, A (bars), T (trades), Q (quotes).")
@click.option(
    "--delay", metavar="SECONDS", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Between rounds."
)
@click.option(
    "--seed", metavar="N", type=click.IntRange(min=0), help="The same numbers at each start.  [default: others]"
)
@count_option("rounds")
@serving(5000)
@click.option(
    "--data", metavar="DIR", help="Hub that keeps what was sent.  [default: one of this user's, for each port]"
)
@log_option
def fake(
    symbols: str, ev: str, delay: float, seed: int | None, count: int | None, data: str | None, **given: Any
) -> None:
    """Make up bars, trades or quotes, a round every so often, and serve them.

    They are kept, so that subscribers can ask for what they missed, also across restarts: times go on where the last
    run ended. Bars are of one minute (AM) or one second (A), however fast they come.
    """
    from penstock.hub import open as open_
    from penstock.plant.fake import FakeMarket

    options = serving_options(given)
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    names = [name.strip() for name in symbols.split(",")]
    markets = [FakeMarket(names, event.strip(), seed=seed) for event in ev.split(",")]  # refuses what cannot be meant
    folder = home(f"feed-{options['port']}") if data is None else Path(data).expanduser()
    with open_(folder) as hub:
        streams = [_stream(hub, market) for market in markets]
        markets = [
            FakeMarket(names, market.event, seed=seed, start=_start(stream))
            for market, stream in zip(markets, streams, strict=True)
        ]
        with started(serve_hub(hub, [stream.name for stream in streams]), options) as service:
            what = ", ".join(f"{market.event}.{name}" for market in markets for name in names[:5])
            say(f"feed of {what}{' …' if len(names) > 5 else ''} at {service.url}; data in {folder}; Ctrl-C ends")
            first = [stream.next_offset for stream in streams]
            try:
                _produce(markets, streams, delay, count)
            except (KeyboardInterrupt, Terminated):
                # Counted in the streams: the signal may have come between an append and its count.
                say(f"stopped; {sum(s.next_offset - f for s, f in zip(streams, first, strict=True)):,} messages sent")
                raise


def _stream(hub: Hub, market: FakeMarket) -> Stream:
    name = STREAMS[market.event]
    if hub.streams.exists(name) and hub.streams.get(name, create=False).attributes.get("made_by") != _MADE_BY:
        raise StreamError(
            f"the stream {name!r} is not of a made-up market",
            where=f"in hub {hub.path}",
            hint="give another --data",
        )
    return hub.streams.get(
        name,
        schema=market.schema,
        attributes={"event": market.event, "made_by": _MADE_BY},
        retention={"bytes": _KEPT_BYTES},
    )


def _start(stream: Stream) -> int:
    """Now, or after the last row, if bars have run ahead of the clock."""
    from penstock.clock import WALL

    now, stop = WALL.now_ns(), stream.next_offset
    if stop == stream.first_offset:
        return now
    column = "ts_close" if "ts_close" in stream.schema.names else "ts_event"
    return max(now, int(stream.read(stop - 1, stop, [column])[column][0].as_py()))


def _produce(markets: Sequence[FakeMarket], streams: Sequence[Stream], delay: float, count: int | None) -> None:
    from penstock.clock import WALL

    following, done = time.monotonic(), 0
    while count is None or done < count:
        for market, stream in zip(markets, streams, strict=True):
            stream.append(market.next(WALL.now_ns()))
        done += 1
        following += delay
        wait = following - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        else:
            following = time.monotonic()  # too slow, or put to sleep: what was missed is not made up for
