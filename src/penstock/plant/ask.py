"""Asking the handler behind a plant: one question, one answer, with `{"action":"ask","params":…,"id":…}`.

ask("ws://localhost:5001", ["mean", "AAPL"])        # what the handler's `onask` returns

client  {"action":"ask","params":ANYTHING,"id":7}
plant   [{"ev":"answer","id":7,"answer":ANYTHING}]
        [{"ev":"status","status":"ask_error","message":"…","id":7}]
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.sync.client import ClientConnection, connect

from penstock.errors import SourceError, UsageError
from penstock.plant.health import is_loopback

__all__ = ["ask", "forget"]

_LOST: Final = (OSError, ConnectionClosed, InvalidHandshake, EOFError)
_numbers = itertools.count(1)
_mutex = threading.Lock()
_connections: dict[tuple[str, str], ClientConnection] = {}


def ask(url: str, question: Any, *, token: str | None = None, timeout: float = 5.0) -> Any:
    """What the handler behind the plant at `url` answers.

    Takes   question: any JSON value;  token: the key, by default $PENSTOCK_TOKEN;  timeout: seconds in all.
    Raises  UsageError for what is no URL or no JSON; SourceError when no plant answers, in time, or its handler fails.
    Edges   The connection is kept for the next question, one per URL and key in each process. A question is asked
            again only when a kept connection turns out to be gone before it was sent.
    Cost    a round trip on the kept connection.

    >>> ask("ws://localhost:5001", "mean")
    """
    if not isinstance(url, str) or not url.startswith(("ws://", "wss://")):
        raise UsageError(expected="a URL such as ws://localhost:5001", got=repr(url), where="in ask")
    key = os.environ.get("PENSTOCK_TOKEN", "") if token is None else token
    number = next(_numbers)
    try:
        text = msgspec.json.encode({"action": "ask", "params": question, "id": number}).decode()
    except (TypeError, ValueError) as error:
        raise UsageError(expected="a question of JSON values", got=str(error), where="in ask") from error
    until = time.monotonic() + timeout
    with _mutex:
        connection = _connections.pop((url, key), None)
        try:
            if connection is not None:
                try:
                    connection.send(text)
                except _LOST:
                    connection = None
            if connection is None:
                connection = _open(url, key, until)
                connection.send(text)
            answer = _answer(connection, url, number, until)
        except TimeoutError as error:
            _close(connection)
            raise SourceError(f"the plant at {url} gives no answer within {timeout:g} s") from error
        except InvalidURI as error:
            raise SourceError(f"no plant can be at {url}: {error}") from error
        except _LOST as error:
            _close(connection)
            raise SourceError(f"no answer from {url}: {str(error) or type(error).__name__}") from error
        except BaseException:
            _close(connection)  # an answer that is late must not be taken for that of the next question
            raise
        _connections[url, key] = connection
    if "answer" in answer:
        return answer["answer"]
    raise SourceError(f"the plant says: {answer.get('message', '')}", where=f"at {url}", status="ask_error")


def forget() -> None:
    """Close all connections that are kept."""
    with _mutex:
        while _connections:
            _close(_connections.popitem()[1])


def _open(url: str, key: str, until: float) -> ClientConnection:
    connection = connect(
        url,
        compression=None,
        max_size=None,
        open_timeout=max(0.001, until - time.monotonic()),
        close_timeout=0.2,
        proxy=None if is_loopback(urlsplit(url).hostname or "") else True,
    ).__enter__()
    try:
        connection.send(msgspec.json.encode({"action": "auth", "params": key}).decode())
        while True:
            for message in _messages(connection, until):
                status = message.get("status")
                if status == "auth_success":
                    return connection
                if status in ("auth_failed", "max_connections"):
                    raise SourceError(
                        f"the plant refuses: {message.get('message', '')}",
                        where=f"at {url}",
                        hint="give token=, or set PENSTOCK_TOKEN",
                        status=status,
                    )
    except BaseException:
        _close(connection)
        raise


def _answer(connection: ClientConnection, url: str, number: int, until: float) -> dict[str, Any]:
    while True:
        for message in _messages(connection, until):
            if message.get("id") == number:
                return message
            if message.get("ev") == "status" and message.get("status") == "error":
                raise SourceError(f"the plant says: {message.get('message', '')}", where=f"at {url}", status="error")


def _messages(connection: ClientConnection, until: float) -> list[dict[str, Any]]:
    data = connection.recv(max(0.0, until - time.monotonic()))
    try:
        found = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise SourceError(expected="messages of a plant", got=f"a frame that is no JSON ({error})") from None
    return [one for one in (found if isinstance(found, list) else [found]) if isinstance(one, dict)]


def _close(connection: ClientConnection | None) -> None:
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)  # its thread wakes, and closes it
