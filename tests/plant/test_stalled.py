"""Clients that stop reading, beside one that reads: what they cost it, counted and never timed."""

from __future__ import annotations

import os
import queue
import random
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

import penstock as ps
from penstock.hub import Hub
from penstock.plant import Limits, Plant, Service, serve, subscribe
from penstock_tests.waiting import PATIENCE_S, until

COUNT = 50
LIMITS = Limits(outbox_bytes=200_000, send_buffer=50_000, auth_seconds=PATIENCE_S, stalled_seconds=10 * PATIENCE_S)
POLICIES = ("disconnect", "conflate", "drop_oldest", "catch_up")


def ticks(first: int, count: int) -> list[dict[str, Any]]:
    return [{"ev": "T", "sym": f"S{n % 7}", "n": n, "note": "0" * 200} for n in range(first, first + count)]


def memory() -> int:
    """Bytes of this process that are in use."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def stalled(service: Service, count: int) -> Iterator[None]:
    """Clients that subscribe and then never read again."""
    held = []
    for _ in range(count):
        made = socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE_S)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.sendall(
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        made.recv(4096)
        for text in (b'{"action":"auth","params":""}', b'{"action":"subscribe","params":"T.*"}'):
            made.sendall(bytes([0x81, 0x80 | len(text)]) + b"\0\0\0\0" + text)
        held.append(made)
    try:
        until(lambda: subscribed(service) == count)
        yield
    finally:
        for made in held:
            made.close()


def subscribed(service: Service) -> int:
    plant = service.server.plant
    return int(service.call(lambda: sum(bool(s.held) for s in plant.subscribers)))


def overflowed(service: Service) -> tuple[int, int]:
    """Clients that were full at least once, and all that are there."""
    plant = service.server.plant
    return service.call(lambda: (sum(s.outbox.overflows > 0 for s in plant.subscribers), len(plant.subscribers)))  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_stalled_clients_hold_up_nobody(hub: Hub, policy: str) -> None:
    """Each message is appended when the quick client has the one before: one that waited for the stalled would hang."""
    stream = hub.streams.get("ticks", attributes={"event": "T"})
    arrived: queue.SimpleQueue[int] = queue.SimpleQueue()
    with (
        serve(hub, "ticks", port=0, policy=policy, limits=LIMITS, ping_seconds=PATIENCE_S) as service,
        stalled(service, COUNT),
    ):
        quick = subscribe(service.url, "T.*")

        def read() -> None:
            for message in quick:
                arrived.put(message["n"])

        reader = threading.Thread(target=read)
        reader.start()
        try:
            until(lambda: subscribed(service) == COUNT + 1)
            before, sent = memory(), 0

            def send(count: int) -> None:
                nonlocal sent
                stream.append(ticks(sent, count))
                for n in range(sent, sent + count):
                    assert arrived.get(timeout=PATIENCE_S) == n
                sent += count

            left = COUNT
            while left:
                assert sent < 100_000, "the outboxes never fill"
                send(20)
                full, there = overflowed(service)
                # Of the policy DISCONNECT they are closing, or gone already.
                left = min(COUNT - full, there - 1)
            for _ in range(300):
                send(1)
            for _ in range(20):
                send(200)
            plant = service.server.plant
            queued = service.call(lambda: [s.outbox.statistics().queued_bytes for s in plant.subscribers])
            assert max(queued) <= LIMITS.outbox_bytes
            grown = memory() - before
            assert grown < 60e6, f"{grown / 1e6:.0f} MB more"
            if policy == "disconnect":
                until(lambda: len(plant.subscribers) == 1)
        finally:
            quick.close()
            reader.join()


def calls(plant: Plant) -> int:
    """Functions that are called to publish what was appended."""
    found = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal found
        found += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        plant.publish(list(plant.feeds.values()))
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("policy", POLICIES)
def test_a_stalled_client_costs_a_few_calls_a_burst(hub: Hub, kit: SimpleNamespace, policy: str) -> None:
    """Whatever it holds, and in the turn in which all of them are full at once, too."""
    stream = hub.streams.get("ticks", attributes={"event": "T"})
    plant = Plant(hub, "ticks", policy=policy, limits=Limits(outbox_bytes=500_000))
    quick = kit.Client(plant)
    quick.subscribe("T.*")
    stream.append(ticks(0, 10))
    calls(plant)
    stream.append(ticks(10, 10))
    alone = calls(plant)
    many = [kit.Client(plant) for _ in range(COUNT)]
    for client in many:
        client.subscribe("T.*")
        client.stall()
    waiting, most, last = 0, 0, 0
    for turn in range(400):
        stream.append(ticks(20 + turn * 10, 10))
        last = calls(plant) - alone
        most = max(most, last)
        waiting += not any(client.subscriber.outbox.overflows for client in many)
    assert all(client.subscriber.outbox.overflows for client in many)
    assert waiting > 150  # appends that each of them holds when it is full
    assert [m["n"] for m in quick.wire.messages()] == list(range(20 + 4000))
    assert last <= COUNT * 20, (alone, last)
    assert most <= COUNT * waiting * 4, (alone, most)


@pytest.mark.parametrize("seed", range(24))
def test_what_came_and_what_it_was_told_that_it_missed_is_all(hub: Hub, kit: SimpleNamespace, seed: int) -> None:
    """Whatever the client asks for, and whenever it stops and goes on: nothing comes twice, nothing is lost untold."""
    chance = random.Random(seed)
    is_document = chance.random() < 0.5
    schema = None if is_document else ps.records.TRADES
    stream = hub.streams.get("ticks", schema=schema, attributes={"event": "T"})
    symbols: list[str] = []

    def append() -> None:
        some = [f"S{chance.randrange(5)}" for _ in range(chance.randrange(1, 20))]
        at = len(symbols)
        symbols.extend(some)
        rows = [
            {"sym": s, "n": at + n, "note": "0" * 50} if is_document else kit.trade(s, n) for n, s in enumerate(some)
        ]
        stream.append(rows)

    def go_on() -> None:
        client.wire.is_stalled, client.wire.unread = False, 0
        client.subscriber.outbox.flush()
        for frame in client.wire.take():
            if not isinstance(frame, list):
                got.extend(frame["_seq"].to_pylist())
                continue
            got.extend(m["seq"] for m in frame if m["ev"] == "T")
            told.extend(m["missed"] for m in frame if "missed" in m)

    append()
    policy = chance.choice(["conflate", "drop_oldest", "catch_up"])
    plant = Plant(hub, "ticks", policy=policy, limits=Limits(outbox_bytes=chance.choice([2_000, 20_000])))
    client = kit.Client(plant, is_arrow=chance.random() < 0.3)
    got, told = list[int](), list[int]()
    pattern, since = chance.choice(["T.*", "T.S1,T.S2", "T.S*"]), chance.choice([None, 0, 3])
    begin = len(symbols) if since is None else since
    client.subscribe(pattern, seq=True, since=since)
    for _ in range(chance.randrange(5, 60)):
        what = chance.choice(["append", "append", "burst", "stall", "go on", "policy", "replay", "publish"])
        if what == "append":
            append()
        elif what == "burst":
            for _ in range(20):
                append()
                plant.publish(list(plant.feeds.values()))
        elif what == "stall":
            client.stall()
        elif what == "go on":
            go_on()
        elif what == "policy" and policy != "catch_up":
            client.send(action="subscribe", params="NONE.x", policy=chance.choice(["conflate", "drop_oldest"]))
        elif what == "replay":
            plant.replay(chance.randrange(1, 50))
        else:
            plant.publish(list(plant.feeds.values()))
    for _ in range(5):
        go_on()
        kit.run(plant)
    go_on()
    outbox = client.subscriber.outbox.statistics()
    assert (outbox.queued_bytes, outbox.queued_messages) == (0, 0)
    wanted = [n for n in range(begin, len(symbols)) if "," not in pattern or symbols[n] in ("S1", "S2")]
    assert len(got) == len(set(got))
    assert set(got) <= set(wanted)
    assert len(got) + sum(told) == len(wanted)
    if policy == "catch_up":
        assert got == wanted
    if policy == "conflate":
        last = {symbols[n]: n for n in wanted}
        assert set(last.values()) <= set(got)
