"""Subscribing to a plant: `for message in subscribe("ws://localhost:5000", "AM.*"): ...`, or `async for`.

A lost connection is made again, and goes on behind the last message that was handed out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import ssl
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

import pyarrow as pa
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as aconnect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from penstock.clock import iso, time_ns
from penstock.errors import PenstockError, SourceError, UsageError
from penstock.plant.health import is_loopback
from penstock.plant.listen import Listener, Received
from penstock.plant.patterns import Pattern, split
from penstock.plant.protocol import ARROW

__all__ = ["Subscription", "SubscriptionStatistics", "subscribe"]

Since = int | str | datetime | dict[str, int] | None

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 5.0
_OPEN_S: Final = 10.0
_LOST: Final = (OSError, ConnectionClosed, InvalidHandshake, TimeoutError, EOFError)


@dataclass(frozen=True, slots=True)
class SubscriptionStatistics:
    """Of a subscription: messages handed out, connections made, and the next offset of each stream."""

    messages: int
    connections: int
    positions: dict[str, int]


def subscribe(
    url: str,
    patterns: str | Sequence[str] = "*",
    *,
    token: str | None = None,
    since: Since = None,
    conflate: bool | int = False,
    snapshot: bool = False,
    policy: str = "catch_up",
    arrow: bool = False,
    seq: bool = False,
    timeout: float | None = None,
    patience: float | None = None,
    reconnect: bool = True,
    plain: bool = False,
    tls: ssl.SSLContext | None = None,
    on_status: Callable[[dict[str, Any]], object] | None = None,
    on_lost: Callable[[str], object] | None = None,
) -> Subscription:
    """Messages of a plant, for ever: iterate over what this returns, with `for` or `async for`.

    Takes   url: "ws://host:port", or wss; patterns: such as "AM.*,T.AAPL", or a list;
            token: the key, by default $PENSTOCK_TOKEN;
            since: None for what comes from now on; "start", an offset, a time (aware datetime, ISO text), or offsets
            by stream, for history and then what comes, without gap or duplicate;
            conflate: True for only the latest of each symbol when this program is behind, or ms between frames;
            snapshot: begin with the latest message of each symbol;
            policy: what the plant does when this program does not keep up: "catch_up" (nothing is lost), "conflate",
            "drop_oldest", "disconnect";
            arrow: record batches instead of dicts, typed, and several times cheaper;
            seq: leave `seq` and `stream` in each message;
            timeout: end when nothing came for that many seconds; patience: how long a lost plant is looked for, None
            for ever; reconnect: False to raise when the connection is lost;
            plain: say only the market's own words, for servers that know no others: `since` needs a plant;
            tls: for wss, an SSLContext, for example of your own authority;
            on_status: called with each status message; on_lost: with a text, when the connection is lost and will be
            looked for.
    Raises  UsageError here; while iterating: SourceError when no plant answers at first, when it refuses the key or a
            channel, or is lost longer than `patience`.

    >>> subscription = subscribe("ws://localhost:5000", "AM.*", since="start")
    """
    text = patterns if isinstance(patterns, str) else ",".join(patterns)
    parts = split(text)
    if not parts:
        raise UsageError(expected="a channel such as AM.*", got=repr(patterns), where="in plant.subscribe")
    for part in parts:
        Pattern.parse(part)
    if not isinstance(url, str) or not url.startswith(("ws://", "wss://")):
        raise UsageError(expected="a URL such as ws://localhost:5000", got=repr(url), where="in plant.subscribe")
    if plain and (since is not None or snapshot or conflate or arrow):
        raise UsageError(
            "since, snapshot, conflate and arrow need a plant: leave plain out", where="in plant.subscribe"
        )
    options: dict[str, Any] = {"policy": policy}
    if conflate is not False:
        options["conflate"] = conflate
    if snapshot:
        options["snapshot"] = True
    listener = Listener(
        url,
        ",".join(parts),
        key=os.environ.get("PENSTOCK_TOKEN", "") if token is None else token,
        since=_since(since),
        options=options,
        keep_seq=seq,
        is_plain=plain,
        on_status=on_status,
    )
    return Subscription(
        url,
        listener,
        is_arrow=arrow,
        timeout=timeout,
        patience=patience,
        reconnect=reconnect,
        tls=tls,
        on_lost=on_lost,
    )


def _since(value: Since) -> int | str | dict[str, int] | None:
    if value is None or isinstance(value, int | dict):
        return value
    if value in ("start", "end"):
        return str(value)
    return iso(time_ns(value, name="since"))


class Subscription:
    """Messages of a plant; made by `subscribe`. One iteration at a time; `close` ends it from any thread."""

    def __init__(
        self,
        url: str,
        listener: Listener,
        *,
        is_arrow: bool,
        timeout: float | None,
        patience: float | None,
        reconnect: bool,
        tls: ssl.SSLContext | None,
        on_lost: Callable[[str], object] | None = None,
    ) -> None:
        self.url, self.on_lost = url, on_lost
        self._listener, self._is_arrow, self._timeout = listener, is_arrow, timeout
        self._patience, self._reconnect, self._tls = patience, reconnect, tls
        self._closed = threading.Event()
        self._wake: Callable[[], None] | None = None
        self._seen = 0.0
        self._handed: dict[str, int] = {}
        self._aconnection: ClientConnection | None = None

    @property
    def positions(self) -> dict[str, int]:
        """Of each stream, the offset after the last message handed out: what `since` takes."""
        return {**self._listener.begins, **self._handed}

    def statistics(self) -> SubscriptionStatistics:
        """What came so far."""
        return SubscriptionStatistics(self._listener.messages, self._listener.connections, self.positions)

    def close(self) -> None:
        """End the iteration, and the connection. A second call does nothing."""
        self._closed.set()
        wake = self._wake
        if wake is not None:
            wake()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """As `close`; when it returns, the connection of an `async for` is closed. Cancelled, it closes soon after."""
        self._closed.set()
        if self._aconnection is not None:
            await self._aconnection.close()
        else:
            self.close()

    def __iter__(self) -> Iterator[Any]:
        """Message after message: dicts; with `arrow`, record batches."""
        for found in self._received():
            yield from self._each(found)

    async def __aiter__(self) -> AsyncIterator[Any]:
        """As `for`, without blocking."""
        async with contextlib.aclosing(self._areceived()) as received:
            async for found in received:
                for message in self._each(found):
                    yield message

    def frames(self) -> Iterator[list[dict[str, Any]] | pa.RecordBatch]:
        """Messages as they came together: lists of dicts; with `arrow`, record batches."""
        for found in self._received():
            self._handed.update(found.marks)
            yield found.messages

    async def aframes(self) -> AsyncIterator[list[dict[str, Any]] | pa.RecordBatch]:
        """As `frames`, without blocking."""
        async with contextlib.aclosing(self._areceived()) as received:
            async for found in received:
                self._handed.update(found.marks)
                yield found.messages

    def _each(self, found: Received) -> Iterator[Any]:
        if not isinstance(found.messages, list) or len(found.marks) != len(found.messages):
            self._handed.update(found.marks)
            yield from found.messages if isinstance(found.messages, list) else [found.messages]
            return
        for message, (stream, offset) in zip(found.messages, found.marks, strict=True):
            self._handed[stream] = offset
            yield message

    def _received(self) -> Iterator[Received]:
        pauses = self._begin()
        while not self._closed.is_set():
            try:
                with connect(self.url, **self._options()) as connection:
                    self._wake = connection.close
                    connection.send(self._listener.begin())
                    while not self._closed.is_set():
                        try:
                            data = connection.recv(self._left())
                        except TimeoutError:
                            return
                        found = self._take(data)
                        if found.reply is not None:
                            connection.send(found.reply)
                        if len(found.messages):
                            pauses.reset()
                            yield found
            except _LOST as error:
                pause = pauses.following(error)
                if pause is None or self._closed.wait(pause):
                    return
            finally:
                self._wake = None

    async def _areceived(self) -> AsyncGenerator[Received, None]:
        pauses, loop = self._begin(), asyncio.get_running_loop()
        while not self._closed.is_set():
            try:
                async with aconnect(self.url, **self._options()) as connection:

                    def wake(close: Callable[[], Any] = connection.close) -> None:
                        with contextlib.suppress(RuntimeError):  # the loop was closed
                            asyncio.run_coroutine_threadsafe(close(), loop)

                    self._wake, self._aconnection = wake, connection
                    await connection.send(self._listener.begin())
                    while not self._closed.is_set():
                        try:
                            async with asyncio.timeout(self._left()):
                                data = await connection.recv()
                        except TimeoutError:
                            return
                        found = self._take(data)
                        if found.reply is not None:
                            await connection.send(found.reply)
                        if len(found.messages):
                            pauses.reset()
                            yield found
            except _LOST as error:
                pause = pauses.following(error)
                if pause is None:
                    return
                await asyncio.sleep(pause)
            finally:
                self._wake = self._aconnection = None

    def _begin(self) -> _Pauses:
        self._seen = time.monotonic()
        return _Pauses(self)

    def _options(self) -> dict[str, Any]:
        return {
            "ssl": self._tls if self.url.startswith("wss://") else None,
            "compression": None,
            "max_size": None,  # one message may be as large as a row of the log
            "open_timeout": _OPEN_S,
            "close_timeout": 1,
            "subprotocols": [Subprotocol(ARROW)] if self._is_arrow else None,
            "proxy": None if is_loopback(urlsplit(self.url).hostname or "") else True,
        }

    def _left(self) -> float | None:
        """Seconds until the iteration ends because nothing came; None for never."""
        return None if self._timeout is None else max(0.0, self._seen + self._timeout - time.monotonic())

    def _take(self, data: str | bytes) -> Received:
        found = self._listener.received(data)
        if len(found.messages):
            self._seen = time.monotonic()
        return found

    def lost(self, error: Exception, *, since: float | None) -> SourceError | None:
        """What to raise now that the connection is lost, `since` that time; None to try again."""
        if isinstance(error, InvalidURI):
            return SourceError(f"no plant can be at {self.url}: {error}")
        if self._listener.connections == 0:
            return SourceError(
                f"no plant answers at {self.url}: {_text(error)}",
                hint="is it running? `penstock plant serve` starts one",
            )
        if not self._reconnect or (
            since is not None and self._patience is not None and time.monotonic() - since >= self._patience
        ):
            return SourceError(f"the plant at {self.url} was lost: {_text(error)}")
        return None


class _Pauses:
    """How long to wait before the next attempt: twice as long each time, and not in step with other clients."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self.reset()

    def reset(self) -> None:
        self._pause, self._since, self._is_first = _FIRST_PAUSE_S, None, True

    def following(self, error: Exception) -> float | None:
        """Seconds to wait; None to end.   Raises  SourceError."""
        subscription = self._subscription
        if subscription._closed.is_set():
            return None
        if isinstance(error, PenstockError):  # of `on_status`: some of ours are an OSError, too
            raise error
        if self._since is None:
            self._since = time.monotonic()
        problem = subscription.lost(error, since=self._since)
        if problem is not None:
            raise problem from error
        left = subscription._left()
        if left == 0:
            return None
        if self._is_first and subscription.on_lost is not None:
            subscription.on_lost(f"the plant at {subscription.url} was lost: {_text(error)}")
        self._is_first = False
        pause, self._pause = self._pause, min(self._pause * 2, _LONGEST_PAUSE_S)
        pause *= random.uniform(0.5, 1.0)
        return pause if left is None else min(pause, left)

    _since: float | None


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
