"""Windows and batches to a WebSocket server, as JSON arrays of rows."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import pyarrow as pa
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.protocol import State
from websockets.sync.client import ClientConnection, connect

from penstock.connect.dialects import is_loopback, shown
from penstock.errors import SourceError, UsageError
from penstock.records import batch_to_rows, to_batches

__all__ = ["WebSocketSink", "WebSocketSinkStatistics"]

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 5.0
_LOST: Final = (OSError, ConnectionClosed, InvalidHandshake, EOFError)
_encoder = msgspec.json.Encoder(decimal_format="string", enc_hook=str)


@dataclass(frozen=True, slots=True)
class WebSocketSinkStatistics:
    """Rows and bytes the server has taken, frames sent (again, too), connections made."""

    rows: int = 0
    bytes: int = 0
    frames: int = 0
    connections: int = 0


class WebSocketSink:
    """Sends rows to a WebSocket server: each frame is a JSON array of objects.

        windows.apply(lambda window: sink.put(window) and None)

    Takes   url; rename: other names for columns; constants: fields to add to each row, such as {"ev": "AM"};
            hello: messages to send first on each connection, texts or what JSON can hold; headers: of the request;
            max_rows: of one frame; patience: seconds for which a lost server is looked for, None for ever;
            timeout: seconds in which the server takes what was sent, else the connection is made anew.
    Raises  UsageError. `put`: SourceError when there is no server for longer than `patience`.
    Edges   When `put` returns, the server's side has read all of it: it has answered the ping behind it. What it had
            not answered when the connection was lost is sent again: at least once. `put` waits while the server does
            not read. Documents go as they are, columns as fields, numbers that are none as null. One thread at a time.
    """

    def __init__(
        self,
        url: str,
        *,
        rename: Mapping[str, str] | None = None,
        constants: Mapping[str, Any] | None = None,
        hello: Sequence[Any] = (),
        headers: Mapping[str, str] | None = None,
        max_rows: int = 1000,
        patience: float | None = 60.0,
        timeout: float = 20.0,
    ) -> None:
        if not isinstance(url, str) or not url.startswith(("ws://", "wss://")):
            raise UsageError(expected="a URL such as wss://server/path", got=repr(url), where="in WebSocketSink")
        if isinstance(max_rows, bool) or not isinstance(max_rows, int) or max_rows < 1:
            raise UsageError(expected="a number of at least 1", got=repr(max_rows), where="in max_rows")
        self.url = url
        self._rename, self._constants = dict(rename or {}), dict(constants or {})
        self._hello = [h if isinstance(h, str | bytes) else _encoder.encode(h).decode() for h in hello]
        self._headers, self._max_rows = dict(headers or {}), max_rows
        self._patience, self._timeout = patience, timeout
        self._connection: ClientConnection | None = None
        self._stack = contextlib.ExitStack()  # holds the connection
        self._closed = threading.Event()
        self._statistics = WebSocketSinkStatistics()

    def __repr__(self) -> str:
        return f"WebSocketSink({shown(self.url)!r})"

    def __enter__(self) -> WebSocketSink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def statistics(self) -> WebSocketSinkStatistics:
        """What was sent."""
        return self._statistics

    def close(self) -> None:
        """Close the connection; a `put` that waits raises. A second call does nothing."""
        self._closed.set()
        self._drop()

    def put(self, window_or_batch: Any) -> int:
        """Send all rows; returns how many, when the server has read them."""
        data = window_or_batch.table if hasattr(window_or_batch, "position") else window_or_batch
        frames = list(self._frames(data))
        pause, began = _FIRST_PAUSE_S, time.monotonic()
        while not self._closed.is_set():
            try:
                self._send(frames)
                break
            except InvalidURI as error:
                raise SourceError(f"no server can be at {shown(self.url)}: {error}") from None
            except _LOST as error:
                self._drop()
                if self._patience is not None and time.monotonic() - began >= self._patience:
                    reason = str(error) or type(error).__name__
                    raise SourceError(f"no server takes rows at {shown(self.url)}: {reason}") from error
            self._closed.wait(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_PAUSE_S)
        else:
            raise SourceError(f"the sink to {shown(self.url)} is closed", hint="make another one")
        rows = sum(count for count, _ in frames)
        old = self._statistics
        self._statistics = replace(
            old, rows=old.rows + rows, bytes=old.bytes + sum(len(text.encode()) for _, text in frames)
        )
        return rows

    def _send(self, frames: list[tuple[int, str]]) -> None:
        connection = self._connection
        if connection is None:
            opened = connect(
                self.url,
                additional_headers=self._headers,
                compression=None,
                open_timeout=self._timeout,
                close_timeout=1,
                proxy=None if is_loopback(urlsplit(self.url).hostname or "") else True,
            )
            connection = self._connection = self._stack.enter_context(opened)
            self._statistics = replace(self._statistics, connections=self._statistics.connections + 1)
            for words in self._hello:
                connection.send(words)
        for _, text in frames:
            connection.send(text)
            self._statistics = replace(self._statistics, frames=self._statistics.frames + 1)
        # Whoever answers a ping has read all frames before it (RFC 6455, section 5.5.2): a send only fills buffers.
        answered = connection.ping()
        end = time.monotonic() + self._timeout
        while not answered.wait(0.05):
            if connection.state is not State.OPEN:
                raise EOFError("the connection was closed before the server had read all")
            if time.monotonic() > end:
                raise TimeoutError(f"nothing was read for {self._timeout:g} s")
            _discard(connection)
        _discard(connection)

    def _drop(self) -> None:
        self._connection = None
        self._stack.close()

    def _frames(self, data: Any) -> Iterator[tuple[int, str]]:
        rows: list[dict[str, Any]] = []
        for batch in [data] if isinstance(data, pa.RecordBatch) else to_batches(data, where="in WebSocketSink.put"):
            for row in batch_to_rows(batch):
                rows.append({**self._constants, **{self._rename.get(name, name): value for name, value in row.items()}})
                if len(rows) == self._max_rows:
                    yield len(rows), _encoder.encode(rows).decode()
                    rows = []
        if rows:
            yield len(rows), _encoder.encode(rows).decode()


def _discard(connection: ClientConnection) -> None:
    """Answers are not wanted, and must not fill the queue: a full one stops the reading of pongs."""
    try:
        while True:
            connection.recv(0)
    except TimeoutError:
        pass
