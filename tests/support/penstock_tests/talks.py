"""A plant on a port, talked to by hand; and what its vendors' clients wait for."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from penstock.plant import Service
from penstock_tests.waiting import PATIENCE_S, reaches

__all__ = ["Inbox", "ask", "code_of", "get", "hear", "opened", "subscribed"]


@contextmanager
def opened(service: Service, *, auth: bool = True) -> Iterator[Any]:
    """A connection that was greeted, and has shown its key."""
    with connect(service.url, compression=None, close_timeout=1) as connection:
        assert hear(connection)[0]["status"] == "connected"
        if auth:
            ask(connection, action="auth", params="")
        yield connection


def hear(connection: Any) -> list[dict[str, Any]]:
    """The next frame's messages."""
    found: list[dict[str, Any]] = json.loads(connection.recv(PATIENCE_S))
    return found


def ask(connection: Any, **words: Any) -> list[dict[str, Any]]:
    """Say this; the answer."""
    connection.send(json.dumps(words))
    return hear(connection)


def code_of(connection: Any) -> int:
    """The code that the plant closes with; nothing but statuses comes before."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            assert all(m["ev"] == "status" for m in hear(connection))
    assert closed.value.rcvd is not None
    return int(closed.value.rcvd.code)


def get(service: Service, path: str, **headers: str) -> tuple[int, str]:
    """Status and text of a page of the plant."""
    request = urllib.request.Request(service.url.replace("ws", "http", 1) + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def subscribed(service: Service, *texts: str) -> None:
    """Wait until the plant's only client holds these patterns, and nothing else."""

    def held() -> set[str]:
        return {str(pattern) for subscriber in service.server.plant.subscribers for pattern in subscriber.held}

    await reaches(lambda: service.call(held) == set(texts))


class Inbox:
    """What a vendor's client has handed to its user."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self._came = asyncio.Event()

    def add(self, *messages: Any) -> None:
        self.got += messages
        self._came.set()

    async def until(self, condition: Callable[[list[Any]], Any]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition(self.got):
                self._came.clear()
                await self._came.wait()
