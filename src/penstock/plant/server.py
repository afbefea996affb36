"""The plant on a port: WebSocket connections, doorbells and timers around a `Plant`. All I/O of the plant is here."""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import ssl
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as listen
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from penstock.errors import UsageError
from penstock.plant.alpaca import AlpacaSubscriber, is_alpaca, is_packed
from penstock.plant.connection import CLOSE_S, Connection, SocketWire
from penstock.plant.day import DayEnd
from penstock.plant.feed import Feed
from penstock.plant.follower import Follower
from penstock.plant.health import Page, Pages, is_loopback, origin_fits, page
from penstock.plant.plant import Plant
from penstock.plant.protocol import ARROW, Code
from penstock.plant.subscriber import Subscriber
from penstock.tokens import Tokens, any_key

__all__ = ["Server"]

_log: Final = logging.getLogger("penstock.plant")
_REPLAY_S: Final = 0.002  # of every turn of the loop, for history: what is live goes first


class Server:
    """Serves a plant in the running event loop.

    Takes   plant; host, port: 0 picks a free one (`port` then says which); tokens: None lets every key in, on loopback
            only; certificate: a PEM file with certificate and key, or (certificate, key), or an SSLContext, for TLS;
            origins: of browser pages that may connect, beside those of this machine and port; compression: offer
            permessage-deflate (costs a hundred times the CPU of writing a frame, and 64 KiB per client);
            ping_seconds: between heartbeats, and until a silent client is cut; linger_ms: the shortest time between
            two frames of a stream, so that rows in quick succession share one; day_end: such as
            "17:00 America/New_York", when all clients are told that the day is over (status end_of_day); pages: further
            answers to plain HTTP, called with path and headers.
    Raises  UsageError for an address others can reach, without tokens; OSError when the port is taken.
    """

    def __init__(
        self,
        plant: Plant,
        *,
        host: str = "127.0.0.1",
        port: int = 5000,
        tokens: Tokens | None = None,
        certificate: str | tuple[str, str] | ssl.SSLContext | None = None,
        origins: Collection[str] = (),
        compression: bool = False,
        ping_seconds: float = 20.0,
        linger_ms: float = 0.5,
        day_end: str | None = None,
        pages: Pages | None = None,
    ) -> None:
        if not is_loopback(host) and (tokens is None or not len(tokens)) and plant.check is any_key:
            raise UsageError(
                expected="tokens for an address that others can reach",
                got=f"host={host!r} without any",
                where="in plant.Server",
                hint="make one with Tokens(file).add(name) and give tokens=, or listen on 127.0.0.1",
            )
        self.plant, self.host, self.port = plant, host, port
        self._tokens = tokens
        if tokens is not None:
            plant.check = tokens.check
        self._ssl = _context(certificate)
        self._origins, self._compression = frozenset(origins), compression
        self._pages = pages
        self._ping, self._linger = ping_seconds, linger_ms / 1000
        self._day_end = None if day_end is None else DayEnd(day_end, plant.clock.now_ns())
        self._listening: WebSocketServer | None = None
        self._followers: dict[Feed, Follower] = {}
        self._rung: dict[Feed, None] = {}
        self._is_pumping = self._is_replaying = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_ready = False
        self.sockets = 0  # connected, handshakes included
        self._drained: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws{'s' if self._ssl else ''}://{host}:{self.port}"

    # -- life

    async def start(self) -> None:
        """Listen, and begin to publish. Cancelled, it leaves nothing behind."""
        self._loop = asyncio.get_running_loop()
        deflate = ServerPerMessageDeflateFactory(
            server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
        )
        self._listening = await listen(
            self._serve,
            self.host,
            self.port,
            ssl=self._ssl,
            create_connection=partial(Connection, owner=self),  # type: ignore[arg-type]  # any callable does
            process_request=self._request,
            subprotocols=[Subprotocol(ARROW)],
            select_subprotocol=_subprotocol,
            extensions=[deflate] if self._compression else None,
            compression=None,
            max_size=self.plant.limits.message_bytes,
            max_queue=4,
            write_limit=(32 << 10, 16 << 10),
            open_timeout=self.plant.limits.auth_seconds,
            close_timeout=CLOSE_S,
            ping_interval=self._ping,
            ping_timeout=self._ping,
            start_serving=False,
            backlog=1024,
        )
        await self._listening.start_serving()
        self.port = next(iter(self._listening.sockets)).getsockname()[1]
        for feed in self.plant.feeds.values():
            self._follow(feed)
        self.spawn(self._watch())
        self._is_ready = True

    async def stop(self, *, code: Code = Code.RESTART, drain_seconds: float = 0.0) -> None:
        """Publish what is in the log, close all connections with `code`, and give the port back.

        Takes   drain_seconds: how long clients may take to read what waits for them.
        """
        if self._listening is None:
            return
        self._is_ready = False
        for follower in self._followers.values():
            follower.stop()
        while self.plant.publish(list(self.plant.feeds.values())):
            pass
        self._drained = asyncio.Event()
        self.drained()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._drained.wait(), drain_seconds)
        self.plant.close(code)
        self._listening.close(code=code, reason="the plant restarts")
        await self._listening.wait_closed()
        for follower in self._followers.values():
            await asyncio.to_thread(follower.join)
        self._followers.clear()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listening = None

    def drained(self) -> None:
        """A client has read something: if it was the last that had to, a server that stops goes on."""
        if self._drained is not None and all(subscriber.outbox.is_idle for subscriber in self.plant.subscribers):
            self._drained.set()

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def spawn(self, work: Any) -> None:
        """Run a coroutine beside; it is cancelled when the server stops."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- clients

    def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer to plain HTTP, and to those who may not connect; None for the handshake."""
        headers = request.headers
        try:
            origin, host = headers.get("Origin"), headers.get("Host", "")
            if origin is not None and not origin_fits(origin, host, self._origins):
                return _response(Page(403, f"origin {origin} is not allowed\n"))
            found = page(self.plant, request.path, headers, is_ready=self._is_ready)
            upgrades = "upgrade" in headers.get("Connection", "").lower()
        except Exception:  # headers may say anything, such as two origins: that is the client's fault
            return _response(Page(400, "bad request\n"))
        if found is None and not upgrades and self._pages is not None:
            found = self._pages(request.path, headers)
        if found is None and not upgrades:
            found = Page(426, "this is a WebSocket server; see /healthz, /metrics\n")
        if found is None and len(self.plant.subscribers) >= self.plant.limits.connections:
            found = Page(503, "too many connections\n")
        return None if found is None else _response(found)

    async def _serve(self, connection: ServerConnection) -> None:
        assert isinstance(connection, Connection)
        wire = SocketWire(connection, self)
        address = connection.remote_address
        peer = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else ""
        is_arrow = connection.subprotocol == ARROW
        subscriber = self.plant.attach(wire, is_arrow=is_arrow, peer=peer, make=_dialect(connection))
        wire.subscriber, connection.wire = subscriber, wire
        try:
            while True:
                self.plant.received(subscriber, await connection.recv())
                self.pulse()
        except ConnectionClosed:
            pass
        finally:
            self.plant.detach(subscriber)
            self.drained()

    # -- messages

    def _follow(self, feed: Feed) -> None:
        folder = self.plant.hub.streams.path(feed.name)
        self._followers[feed] = Follower(folder, self._loop, lambda: self._ring(feed), linger=self._linger)

    def _ring(self, feed: Feed) -> None:
        self._rung[feed] = None
        if len(self._followers) == 1 and not self._is_pumping:
            self._pump()
        elif not self._is_pumping:
            self._is_pumping = True
            # Not at once: other streams may have rung in the same turn, and all go out in one write.
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._is_pumping = False
        if not self._is_ready:
            return
        rung, self._rung = self._rung, {}
        followed = {feed: follower for feed in rung if (follower := self._followers.get(feed)) is not None}
        for follower in followed.values():
            follower.look()
        began = time.perf_counter()
        busy = self.plant.publish(followed)
        took = time.perf_counter() - began
        for feed, follower in followed.items():
            follower.looked(took)
            if self.plant.feeds.get(feed.name) is not feed or feed.name in self.plant.failed:
                self._followers.pop(feed).stop()
            elif not feed.is_drained:
                self._loop.call_soon(self._ring, feed)  # others first
        if busy:
            self.pulse()
            self._due()

    def pulse(self) -> None:
        """Somebody may have use for history."""
        if not self._is_replaying and self.plant.has_histories:
            self._is_replaying = True
            self._loop.call_soon(self._replay)

    def _replay(self) -> None:
        self._is_replaying = False
        until = time.perf_counter() + _REPLAY_S
        while self.plant.replay():
            if time.perf_counter() >= until:
                self.pulse()
                return

    def _due(self) -> None:
        following = self.plant.due()
        if following is not None and self._timer is None:
            seconds = max(0.001, (following - self.plant.clock.now_ns()) / 1e9)
            self._timer = self._loop.call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._due()

    async def _watch(self) -> None:
        """Streams that are new, keys that were revoked, clients that show none."""
        rounds = 0
        while True:
            await asyncio.sleep(0.1)
            rounds += 1
            self.plant.tick()
            day = None if self._day_end is None else self._day_end.over(self.plant.clock.now_ns())
            if day is not None:
                self.plant.announce("end_of_day", day)
            if rounds % 10:
                continue
            for find in (self.plant.look_again, self.plant.look):
                try:
                    for feed in find():
                        self._follow(feed)
                except Exception:
                    _log.exception("looking for streams failed; it is tried again")
            try:
                if self._tokens is not None and self._tokens.refresh():
                    names = {token.name for token in self._tokens.all()}
                    for subscriber in list(self.plant.subscribers):
                        if subscriber.who is not None and subscriber.who not in names:
                            subscriber.close(Code.POLICY, "the key was revoked")
            except Exception:
                _log.exception("looking for new keys failed; it is tried again")


def _dialect(connection: ServerConnection) -> Callable[..., Subscriber] | None:
    """What makes a client of a dialect other than the plant's own, by the path of its request."""
    request = connection.request
    if request is None or not is_alpaca(request.path):
        return None
    kinds = request.headers.get_all("Content-Type")
    return partial(AlpacaSubscriber, packed=bool(kinds) and is_packed(kinds[0]))


def _subprotocol(connection: ServerConnection, offered: Any) -> Subprotocol | None:
    """Arrow when it is asked for; a client that offers only what is unknown here gets none, and may go."""
    return Subprotocol(ARROW) if ARROW in offered else None


def _response(found: Page) -> Response:
    data = found.body.encode() if isinstance(found.body, str) else found.body
    headers = Headers({"Content-Type": found.kind, "Content-Length": str(len(data)), "Connection": "close"})
    headers["X-Content-Type-Options"] = "nosniff"
    for name, value in found.headers.items():
        headers[name] = value
    return Response(found.status, http.HTTPStatus(found.status).phrase, headers, data)


def _context(certificate: str | tuple[str, str] | ssl.SSLContext | None) -> ssl.SSLContext | None:
    if certificate is None or isinstance(certificate, ssl.SSLContext):
        return certificate
    chain, key = (certificate, None) if isinstance(certificate, str) else certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(chain, key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            expected="a PEM file with a certificate and its key",
            got=f"{chain!r} ({error})",
            where="in plant.Server, certificate",
        ) from error
    return context
