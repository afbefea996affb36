"""One WebSocket connection of a server: where an outbox meets a socket."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Final

from websockets.asyncio.server import ServerConnection
from websockets.protocol import OPEN

if TYPE_CHECKING:
    from penstock.plant.server import Server
    from penstock.plant.subscriber import Subscriber

__all__ = ["CLOSE_S", "Connection", "SocketWire"]

CLOSE_S: Final = 2
"""Seconds that a closing connection gets."""

_HANDSHAKES: Final = 256  # connections beyond the limit that may be in their handshake


class Connection(ServerConnection):
    """A connection that says when it takes more."""

    def __init__(self, *arguments: Any, owner: Server, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._owner = owner
        self.wire: SocketWire | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        limits = self._owner.plant.limits
        self._owner.sockets += 1
        if self._owner.sockets > limits.connections + _HANDSHAKES:
            self.transport.abort()
        found = transport.get_extra_info("socket")
        if found is not None and limits.send_buffer is not None:
            # What the kernel holds is late for certain: the outbox can conflate, the kernel cannot.
            found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.send_buffer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.sockets -= 1
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.wire is not None:
            self.wire.resume()


class SocketWire:
    """A connection as an outbox sees it: frames go straight to its transport."""

    def __init__(self, connection: Connection, server: Server) -> None:
        self._connection, self._server = connection, server
        self._transport = connection.transport
        self._is_plain = not connection.protocol.extensions
        self.subscriber: Subscriber | None = None

    def write(self, data: bytes) -> None:
        connection = self._connection
        if connection.protocol.state is OPEN and not self._transport.is_closing():
            if self._is_plain:
                self._transport.write(data)
            else:
                self._deflate(data)

    def _deflate(self, data: bytes) -> None:
        """Each client that wants compression has its own: the extension of its connection writes the frames."""
        protocol, at = self._connection.protocol, 0
        while at < len(data):
            size, start = data[at + 1], at + 2
            if size >= 126:
                start = at + (4 if size == 126 else 10)
                size = int.from_bytes(data[at + 2 : start], "big")
            (protocol.send_text if data[at] == 0x81 else protocol.send_binary)(data[start : start + size])
            at = start + size
        self._connection.send_data()

    def pending(self) -> int:
        return self._transport.get_write_buffer_size()

    def close(self, code: int, reason: str) -> None:
        self._server.spawn(self._close(code, reason))

    async def _close(self, code: int, reason: str) -> None:
        try:
            # Its own: the library's begins only when what waits has been taken, which may be never.
            async with asyncio.timeout(CLOSE_S):
                await self._connection.close(code, reason)
        except TimeoutError:
            self._transport.abort()

    def resume(self) -> None:
        if self.subscriber is not None:
            self.subscriber.outbox.flush()
            self._server.pulse()
            self._server.drained()
