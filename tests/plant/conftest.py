"""What tests of the plant share: rows, a wire that keeps what it was given, conditions to wait for."""

from __future__ import annotations

import json
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import penstock as ps
from penstock.clock import ManualClock
from penstock.hub import Hub
from penstock.plant import ARROW, Plant, Service, serve, subscribe
from penstock.plant.arrow import decode
from penstock_tests.waiting import PATIENCE_S, until

START = 1_767_268_800_000_000_000  # 2026-01-01T12:00Z
MINUTE = 60_000_000_000


def bar(symbol: str, number: int, **other: Any) -> dict[str, Any]:
    begin = START + number * MINUTE
    return {
        "symbol": symbol, "ts_event": begin, "ts_close": begin + MINUTE, "open": 10.0 + number, "high": 12.0 + number,
        "low": 9.0 + number, "close": 11.0 + number, "volume": 100 + number, "amount": 1050.0, "vwap": 10.5,
        "trade_count": 10, "revision": 0, **other,
    }  # fmt: skip


def trade(symbol: str, number: int, **other: Any) -> dict[str, Any]:
    return {"symbol": symbol, "ts_event": START + number, "price": 10.0 + number, "size": 1 + number, **other}


def frames(data: bytes) -> list[Any]:
    """Whole WebSocket frames: text as JSON, binary as a record batch."""
    found = []
    at = 0
    while at < len(data):
        first, size = data[at], data[at + 1]
        at += 2
        if size == 126:
            (size,) = struct.unpack_from("!H", data, at)
            at += 2
        elif size == 127:
            (size,) = struct.unpack_from("!Q", data, at)
            at += 8
        payload = data[at : at + size]
        assert len(payload) == size, "a frame is cut"
        found.append(json.loads(payload) if first == 0x81 else decode(payload))
        at += size
    return found


class MemoryWire:
    """A connection whose other side reads when the test says so."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.unread = 0
        self.is_stalled = False
        self.closed: tuple[int, str] | None = None
        self.writes = 0

    def write(self, data: bytes) -> None:
        assert self.closed is None, "written after the close"
        self.writes += 1
        self.data += data
        if self.is_stalled:
            self.unread += len(data)

    def pending(self) -> int:
        return self.unread

    def close(self, code: int, reason: str) -> None:
        assert self.closed is None, "closed twice"
        self.closed = code, reason

    def take(self) -> list[Any]:
        """What came since the last `take`: frames."""
        found = frames(bytes(self.data))
        self.data.clear()
        return found

    def messages(self) -> list[dict[str, Any]]:
        """What came since the last `take`: messages but statuses."""
        return [m for frame in self.take() for m in frame if m["ev"] != "status"]


class Client:
    """One subscriber of a plant on a memory wire."""

    def __init__(self, plant: Plant, *, key: str = "", auth: bool = True, is_arrow: bool = False) -> None:
        self.plant, self.wire = plant, MemoryWire()
        self.subscriber = plant.attach(self.wire, is_arrow=is_arrow)
        if auth:
            self.send(action="auth", params=key)
            self.wire.take()

    def send(self, text: str | bytes | None = None, **fields: Any) -> None:
        self.plant.received(self.subscriber, json.dumps(fields) if text is None else text)

    def ask(self, text: str | bytes | None = None, **fields: Any) -> list[dict[str, Any]]:
        """Send and return the statuses that come at once."""
        self.send(text, **fields)
        return [m for frame in self.wire.take() for m in frame]

    def subscribe(self, params: str, **options: Any) -> list[dict[str, Any]]:
        return self.ask(action="subscribe", params=params, **options)

    def stall(self) -> None:
        self.wire.is_stalled, self.wire.unread = True, 1 << 20

    def resume(self) -> None:
        self.wire.is_stalled, self.wire.unread = False, 0
        self.subscriber.outbox.flush()


def run(plant: Plant) -> None:
    """Publish and replay until there is nothing more to do."""
    while plant.publish(list(plant.feeds.values())) or plant.replay():
        pass


def got(url: str, patterns: str, count: int, **options: Any) -> list[Any]:
    """The first `count` messages, or batches, of a plant."""
    found: list[Any] = []
    with subscribe(url, patterns, timeout=PATIENCE_S, **options) as subscription:
        for message in subscription:
            found.append(message)
            if len(found) == count:
                return found
    raise AssertionError(f"{len(found)} of {count} came")


def certificate(folder: Path) -> tuple[str, ssl.SSLContext]:
    """A PEM file for 127.0.0.1, and the context of a client that trusts it."""
    import trustme

    authority = trustme.CA()
    pem = folder / "server.pem"
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return str(pem), context


@pytest.fixture
def bars(hub: Hub) -> Any:
    return hub.streams.get("bars", schema=ps.records.BARS)


@pytest.fixture
def trades(hub: Hub) -> Any:
    return hub.streams.get("trades", schema=ps.records.TRADES)


@pytest.fixture
def service(hub: Hub, bars: Any, trades: Any) -> Iterator[Service]:
    """A plant of both streams on a port."""
    with serve(hub, port=0) as found:
        yield found


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """Helpers: tests of one folder cannot import from one another."""
    return SimpleNamespace(
        ARROW=ARROW, START=START, Client=Client, MemoryWire=MemoryWire, bar=bar, frames=frames, run=run, trade=trade,
        certificate=certificate, got=got, wait_until=until,
    )  # fmt: skip
