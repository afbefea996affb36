"""Many clients and fast feeds, on real sockets."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.asyncio.client import connect

from penstock.hub import Hub
from penstock.plant import Limits, serve, subscribe
from penstock_tests.waiting import PATIENCE_S

UNHURRIED: dict[str, Any] = {"limits": Limits(auth_seconds=PATIENCE_S), "ping_seconds": PATIENCE_S}
"""Of a plant with many clients in one process: a loaded machine may keep that from answering for seconds."""

FEED = """
import sys, time
import penstock as ps
folder, rate, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ticks = ps.open(folder).streams.get("ticks", attributes={"event": "T"})
begin = time.perf_counter()
for n in range(0, rows, 20):
    ticks.append([{"ev": "T", "sym": f"S{k % 7}", "n": n + k, "at": time.time_ns()} for k in range(20)])
    time.sleep(max(0, begin + n / rate - time.perf_counter()))
"""


@contextmanager
def feeding(hub: Hub, rate: int, rows: int) -> Iterator[subprocess.Popen[bytes]]:
    hub.streams.get("ticks", attributes={"event": "T"})
    process = subprocess.Popen([sys.executable, "-c", FEED, str(hub.path), str(rate), str(rows)])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_since_while_the_feed_runs_at_20000_messages_a_second(hub: Hub, kit: SimpleNamespace) -> None:
    """From the start, from an offset, from a time, and after a disconnect: no gap, no duplicate."""
    rows, half = 60_000, 20_000
    with feeding(hub, 20_000, rows) as feed, serve(hub, "ticks", port=0) as service:
        ticks = hub.streams.get("ticks")
        kit.wait_until(lambda: ticks.next_offset > half)
        moment = ticks.read(half - 1, half)["document"][0].as_py()
        found: dict[str, list[int]] = {}

        def follow(name: str, since: Any, patterns: str = "T.*", cut: int = 0) -> None:
            got = found[name] = []
            positions = since
            while True:
                with subscribe(service.url, patterns, since=positions, seq=True, timeout=PATIENCE_S) as subscription:
                    for message in subscription:
                        got.append(message["seq"])
                        if message["seq"] == rows - 1:
                            return
                        if cut and len(got) % cut == 0:
                            break
                positions = subscription.positions

        time_since = kit_iso(json.loads(moment)["at"])
        threads = [
            threading.Thread(target=follow, args=args)
            for args in [
                ("start", "start"), ("offset", half), ("time", time_since), ("some", "start", "T.S1,T.S5"),
                ("cut", "start", "T.*", 7_777), ("live", None),
            ]
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        assert feed.wait(PATIENCE_S) == 0
        for thread in threads:
            thread.join(PATIENCE_S)
    assert found["start"] == list(range(rows))
    assert found["offset"] == list(range(half, rows))
    assert found["cut"] == list(range(rows))
    # An append has one time, which is later than what its rows say.
    assert found["time"] == list(range(half - 20, rows))
    assert found["some"] == [n for n in range(rows) if n % 20 % 7 in (1, 5)]
    assert found["live"] == list(range(found["live"][0], rows))


def kit_iso(ns: int) -> str:
    from penstock.clock import iso

    return iso(ns)


@pytest.mark.slow
def test_a_thousand_subscribers(hub: Hub, kit: SimpleNamespace) -> None:
    ticks = hub.streams.get("ticks", attributes={"event": "T"})
    rows, count = 200, 1000

    async def one(url: str, number: int) -> int:
        async with connect(url, compression=None, ping_interval=None, open_timeout=PATIENCE_S) as connection:
            await connection.recv()
            await connection.send('{"action":"auth","params":""}')
            await connection.recv()
            wanted = "T.*" if number % 2 else f"T.S{number % 10},T.X"
            await connection.send(json.dumps({"action": "subscribe", "params": wanted}))
            await connection.recv()
            ready.release()
            due = rows if number % 2 else rows // 10
            got = 0
            async with asyncio.timeout(PATIENCE_S):
                while got < due:
                    got += len(json.loads(await connection.recv()))
            return got

    async def main(url: str) -> list[int]:
        return await asyncio.gather(*[one(url, number) for number in range(count)])

    ready = threading.Semaphore(0)
    found: list[int] = []
    with serve(hub, "ticks", port=0, **UNHURRIED) as service:
        clients = threading.Thread(target=lambda: found.extend(asyncio.run(main(service.url))))
        clients.start()
        for _ in range(count):
            assert ready.acquire(timeout=PATIENCE_S)
        assert len(service.server.plant.subscribers) == count
        assert len(service.server.plant.router("ticks")) == 1 + 5  # as many encodings as different wishes
        for n in range(0, rows, 10):
            ticks.append([{"ev": "T", "sym": f"S{k}", "n": n} for k in range(10)])
        clients.join(PATIENCE_S)
        assert len(found) == count
        kit.wait_until(lambda: not service.server.plant.subscribers)
    assert sum(found) == count // 2 * (rows + rows // 10)


@pytest.mark.slow
def test_a_hundred_clients_come_and_go_each_second(hub: Hub, kit: SimpleNamespace) -> None:
    rows = 15_000

    async def come_and_go(url: str, stopping: threading.Event) -> int:
        async def one() -> None:
            async with connect(url, compression=None, open_timeout=PATIENCE_S, close_timeout=1) as connection:
                await connection.recv()
                await connection.send('{"action":"auth","params":""}')
                await connection.recv()
                await connection.send('{"action":"subscribe","params":"T.S1*,T.S2","since":0}')
                await connection.recv()

        count, begin, tasks = 0, time.perf_counter(), []
        while count < 200 or not stopping.is_set():
            tasks.append(asyncio.create_task(one()))
            count += 1
            await asyncio.sleep(max(0, begin + count / 100 - time.perf_counter()))
        await asyncio.gather(*tasks)
        return count

    with serve(hub, "*", port=0, **UNHURRIED) as service, feeding(hub, 5_000, rows) as feed:
        kit.wait_until(lambda: "ticks" in service.server.plant.feeds)
        got: list[Any] = []
        steady = threading.Thread(target=lambda: got.extend(kit.got(service.url, "T.*", rows, since="start", seq=True)))
        steady.start()
        stopping = threading.Event()
        counts: list[int] = []
        others = threading.Thread(target=lambda: counts.append(asyncio.run(come_and_go(service.url, stopping))))
        others.start()
        feed.wait(PATIENCE_S)
        stopping.set()
        others.join(PATIENCE_S)
        steady.join(PATIENCE_S)
        kit.wait_until(lambda: not service.server.plant.subscribers)
        assert len(service.server.plant.router("ticks")) == 0
    assert [m["seq"] for m in got] == list(range(rows))
    assert counts[0] >= 200


@pytest.mark.slow
def test_all_clients_come_back_at_once(hub: Hub, kit: SimpleNamespace) -> None:
    """300 clients, a plant that restarts twice: each gets every message once."""
    ticks = hub.streams.get("ticks", attributes={"event": "T"})
    count, rows = 300, 0
    found: list[list[int]] = [[] for _ in range(count)]

    async def one(url: str, got: list[int]) -> None:
        async with subscribe(url, "T.*", since="start", seq=True) as subscription:
            async for message in subscription:
                got.append(message["seq"])
                if message["last"]:
                    return

    async def main(url: str) -> None:
        await asyncio.gather(*[one(url, got) for got in found])

    service = serve(hub, "ticks", port=0, **UNHURRIED)
    port = service.port
    ticks.append({"last": False})
    clients = threading.Thread(target=lambda: asyncio.run(main(service.url)))
    clients.start()
    for turn in range(3):
        ticks.append([{"last": False}] * 50)
        rows += 50
        kit.wait_until(lambda rows=rows: all(len(got) > rows for got in found))
        if turn < 2:
            service.stop()
            ticks.append({"last": False})
            rows += 1
            service = serve(hub, "ticks", port=port, **UNHURRIED)
    ticks.append({"last": True})
    clients.join(PATIENCE_S)
    service.stop()
    assert all(got == list(range(rows + 2)) for got in found)
