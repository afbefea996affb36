"""Our own client: sync and async, through restarts and kills, without gap and duplicate."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from websockets.sync.server import serve as serve_others

import penstock as ps
from penstock.errors import DiskFull, PenstockWarning, SourceError, UsageError
from penstock.hub import Hub
from penstock.plant import Limits, Service, Tokens, serve, subscribe
from penstock_tests.waiting import PATIENCE_S, until


@pytest.fixture
def service(hub: Hub, bars: Any) -> Iterator[Service]:
    with serve(hub, port=0) as found:
        yield found


def test_history_and_live(service: Service, bars: Any, kit: SimpleNamespace) -> None:
    bars.append([kit.bar("A", n) for n in range(3)])
    got = []
    with subscribe(service.url, "AM.*", since=1, timeout=PATIENCE_S) as subscription:
        for message in subscription:
            got.append(message)
            if len(got) == 2:
                bars.append(kit.bar("B", 9))
            if message["sym"] == "B":
                break
        assert subscription.positions == {"bars": 4}
    assert [(m["sym"], m["v"]) for m in got] == [("A", 101), ("A", 102), ("B", 109)]
    assert set(got[0]) == {"ev", "sym", "v", "vw", "o", "c", "h", "l", "s", "e", "n", "z"}
    assert subscription.statistics().messages == 3


def test_positions_are_those_of_the_messages_handed_out(service: Service, bars: Any, kit: SimpleNamespace) -> None:
    bars.append([kit.bar("A", n) for n in range(10)])
    with subscribe(service.url, "AM.*", since="start") as subscription:
        for message in subscription:
            if message["v"] == 104:
                break
        positions = subscription.positions
    assert positions == {"bars": 5}
    rest = [m["v"] for m in kit.got(service.url, "AM.*", 5, since=positions)]
    assert rest == [105, 106, 107, 108, 109]


def test_async(service: Service, bars: Any, kit: SimpleNamespace) -> None:
    async def main() -> list[Any]:
        got = []
        async with subscribe(service.url, ["AM.A", "AM.B"], since="start", seq=True) as subscription:
            async for message in subscription:
                got.append((message["sym"], message["seq"], message["stream"]))
                if len(got) == 2:
                    return got
        raise AssertionError

    bars.append([kit.bar("A", 1), kit.bar("X", 1), kit.bar("B", 1)])
    assert asyncio.run(main()) == [("A", 0, "bars"), ("B", 2, "bars")]


def test_arrow(service: Service, bars: Any, kit: SimpleNamespace) -> None:
    bars.append([kit.bar("A", n) for n in range(3)])
    batches = kit.got(service.url, "AM.*", 1, since="start", arrow=True)
    assert pa.Table.from_batches(batches).drop(["_seq"]).equals(bars.read())


def test_frames(service: Service, bars: Any, kit: SimpleNamespace) -> None:
    bars.append([kit.bar("A", n) for n in range(3)])
    with subscribe(service.url, "AM.*", since="start") as subscription:
        assert len(next(iter(subscription.frames()))) == 3

    async def main() -> int:
        async with subscribe(service.url, "AM.*", since="start") as subscription:
            return len(await anext(aiter(subscription.aframes())))

    assert asyncio.run(main()) == 3


def test_it_ends_when_nothing_came_for_so_long(service: Service) -> None:
    """However long the plant takes to answer."""
    assert list(subscribe(service.url, "AM.*", timeout=0.1)) == []
    assert list(subscribe(service.url, "AM.*", timeout=0.1).frames()) == []

    async def main() -> list[Any]:
        return [m async for m in subscribe(service.url, "AM.*", timeout=0.1)]

    assert asyncio.run(main()) == []


def test_snapshot_and_conflation(service: Service, bars: Any, kit: SimpleNamespace) -> None:
    bars.append([kit.bar("A", 1), kit.bar("A", 2)])
    kit.wait_until(lambda: service.server.plant.metrics.rows == 2)
    found = iter(subscribe(service.url, "AM.*", snapshot=True, conflate=20, timeout=PATIENCE_S))
    assert next(found)["v"] == 102
    bars.append([kit.bar("A", 3), kit.bar("A", 4)])
    assert next(found)["v"] == 104


def test_documents_come_as_they_were_appended(hub: Hub) -> None:
    docs = hub.streams.get("docs", attributes={"event": "D"})
    document = {"ev": "D", "sym": "x", "seq": 5, "stream": "mine", "deep": [{"a": None}]}
    docs.append(document)
    with serve(hub, port=0) as service:
        assert next(iter(subscribe(service.url, "D.*", since="start"))) == document


def test_wrong_words() -> None:
    with pytest.raises(UsageError, match="expected a URL such as ws://localhost:5000, got 'localhost:5000'"):
        subscribe("localhost:5000")
    with pytest.raises(UsageError, match="expected a channel such as AM.AAPL"):
        subscribe("ws://localhost", "AM")
    with pytest.raises(UsageError, match=r"expected a channel such as AM.\*, got ''"):
        subscribe("ws://localhost", "")
    with pytest.raises(UsageError, match="since, snapshot, conflate and arrow need a plant: leave plain out"):
        subscribe("ws://localhost", plain=True, since=0)
    with pytest.raises(UsageError, match="expected a time with its zone"):
        subscribe("ws://localhost", since="yesterday")


def test_no_plant_there() -> None:
    with pytest.raises(
        SourceError,
        match=r"no plant answers at ws://127.0.0.1:1: .*; is it running\? `penstock plant serve` starts one",
    ):
        next(iter(subscribe("ws://127.0.0.1:1")))

    async def main() -> None:
        async for _ in subscribe("ws://127.0.0.1:1"):
            pass

    with pytest.raises(SourceError, match="no plant answers"):
        asyncio.run(main())


def test_keys(hub: Hub, bars: Any, tmp_path: Path, kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    key = tokens.add("me")
    bars.append(kit.bar("A", 1))
    with serve(hub, port=0, tokens=tokens) as service:
        with pytest.raises(
            SourceError, match=r"the plant refuses the key: authentication failed - at ws://.*; give token="
        ) as error:
            next(iter(subscribe(service.url, token="wrong")))
        assert error.value.status == "auth_failed"
        assert next(iter(subscribe(service.url, since="start", token=key)))
        monkeypatch.setenv("PENSTOCK_TOKEN", key)
        assert next(iter(subscribe(service.url, since="start")))


def test_what_the_plant_refuses(service: Service) -> None:
    with pytest.raises(SourceError, match=r"the plant says: no such channel: NO\.\* \(this plant has AM\) - at ws://"):
        next(iter(subscribe(service.url, "NO.*")))


def test_a_lost_plant(hub: Hub, bars: Any, kit: SimpleNamespace) -> None:
    service = serve(hub, port=0)
    bars.append(kit.bar("A", 1))
    once, patient = (
        iter(subscribe(service.url, since="start", reconnect=False)),
        iter(subscribe(service.url, since="start", patience=0.2)),
    )
    next(once), next(patient)
    service.stop()
    for found in (once, patient):
        with pytest.raises(SourceError, match="the plant at ws://.* was lost: "):
            next(found)
    quiet = subscribe(service.url, since="start", timeout=0.3)
    quiet._listener.connections = 1
    assert list(quiet) == []


def test_an_error_of_on_status_is_no_lost_plant(service: Service) -> None:
    def full(status: dict[str, Any]) -> None:
        raise DiskFull("no room")

    with pytest.raises(DiskFull, match="no room"):
        next(iter(subscribe(service.url, on_status=full)))

    async def main() -> None:
        async for _ in subscribe(service.url, on_status=full):
            pass

    with pytest.raises(DiskFull, match="no room"):
        asyncio.run(main())


def test_close_from_another_thread(service: Service) -> None:
    subscription = subscribe(service.url)
    threading.Timer(0.3, subscription.close).start()
    assert list(subscription) == []

    other = subscribe(service.url)

    async def main() -> list[Any]:
        threading.Timer(0.3, other.close).start()
        return [m async for m in other]

    assert asyncio.run(main()) == []


@pytest.mark.parametrize("mode", ["sync", "async", "arrow"])
def test_restarts_leave_no_gap_and_no_duplicate(hub: Hub, bars: Any, kit: SimpleNamespace, mode: str) -> None:
    """The plant is stopped and started again three times while rows are appended."""
    first = serve(hub, port=0)
    port, service = first.port, first
    got: list[int] = []
    subscription = subscribe(first.url, "AM.*", since="start", seq=True, arrow=mode == "arrow")

    def read() -> None:
        for message in subscription:
            got.extend(message["_seq"].to_pylist() if mode == "arrow" else [message["seq"]])

    async def aread() -> None:
        async for message in subscription:
            got.append(message["seq"])  # noqa: PERF401 - looked at while it grows

    thread = threading.Thread(target=(lambda: asyncio.run(aread())) if mode == "async" else read)
    thread.start()
    n = 0
    for _ in range(3):
        for _ in range(20):
            bars.append([kit.bar("A", n + k) for k in range(5)])
            n += 5
        kit.wait_until(lambda n=n: len(got) > n - 50)
        service.stop()
        bars.append(kit.bar("A", n))
        n += 1
        service = serve(hub, port=port)
    kit.wait_until(lambda: len(got) >= n)
    subscription.close()
    thread.join(PATIENCE_S)
    service.stop()
    assert got == list(range(n))
    assert subscription.statistics().connections >= 4


PLANT = """
import sys
import penstock as ps
service = ps.plant.serve(ps.open(sys.argv[1]), "bars", port=int(sys.argv[2]))
print("ready", service.port, flush=True)
service.wait()
"""


@contextmanager
def process(hub: Hub, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    made = subprocess.Popen([sys.executable, "-c", PLANT, str(hub.path), str(port)], stdout=subprocess.PIPE, text=True)
    assert made.stdout is not None
    try:
        yield made, int(made.stdout.readline().split()[1])
    finally:
        made.kill()
        made.wait()
        made.stdout.close()


@pytest.mark.slow
def test_killed_plant(hub: Hub, bars: Any, kit: SimpleNamespace) -> None:
    """SIGKILL at any moment: the client goes on where it was."""
    got: list[int] = []
    n = 0
    subscription: Any = None
    thread: Any = None
    port = 0

    def read(subscription: Any) -> None:
        got.extend(m["seq"] for m in subscription)

    for turn in range(3):
        with process(hub, port) as (plant, port):
            if turn == 0:
                subscription = subscribe(f"ws://127.0.0.1:{port}", "AM.*", since="start", seq=True)
                thread = threading.Thread(target=read, args=(subscription,))
                thread.start()
            before = len(got)
            for _ in range(30):
                bars.append([kit.bar("A", n + k) for k in range(10)])
                n += 10
            kit.wait_until(lambda before=before: len(got) > before)
            os.kill(plant.pid, signal.SIGKILL)
        bars.append(kit.bar("A", n))
        n += 1
    with process(hub, port):
        kit.wait_until(lambda: len(got) >= n)
        subscription.close()
        thread.join(PATIENCE_S)
    assert got == list(range(n))


def appended_to_one_who_listens(service: Service, docs: Any) -> None:
    """Append a row as soon as a client has subscribed; returns at once."""

    def run() -> None:
        until(lambda: service.call(lambda: any(s.held for s in service.server.plant.subscribers)))
        docs.append({"n": -1})

    threading.Thread(target=run, daemon=True).start()


@pytest.mark.slow
@pytest.mark.parametrize("is_secure", [False, True], ids=["plain", "tls"])
def test_a_client_that_is_slow_loses_nothing(hub: Hub, kit: SimpleNamespace, tmp_path: Path, is_secure: bool) -> None:
    """The plant's outbox holds a fraction of what comes: the rest is read from the log again."""
    docs = hub.streams.get("docs", attributes={"event": "D"})
    certificate, context = kit.certificate(tmp_path) if is_secure else (None, None)
    limits = Limits(outbox_bytes=50_000, send_buffer=20_000)
    with serve(hub, port=0, limits=limits, certificate=certificate) as service:
        subscription = subscribe(service.url, "D.*", seq=True, timeout=PATIENCE_S, tls=context)
        found = iter(subscription)
        appended_to_one_who_listens(service, docs)
        got = [next(found)["seq"]]
        for n in range(200):
            docs.append([{"n": n, "text": "x" * 2000} for _ in range(20)])
        kit.wait_until(lambda: service.server.plant.metrics.rows == 4001)
        while len(got) < 4001:
            got.append(next(found)["seq"])
        assert got == list(range(4001))
        assert service.server.plant.metrics.behind >= 1
        subscription.close()


@pytest.mark.slow
def test_what_was_missed_is_a_warning(hub: Hub, kit: SimpleNamespace) -> None:
    docs = hub.streams.get("docs", attributes={"event": "D"})
    statuses: list[Any] = []
    with serve(hub, port=0, limits=Limits(outbox_bytes=50_000, send_buffer=20_000)) as service:
        for on_status in (None, statuses.append):
            found = iter(subscribe(service.url, "D.*", policy="conflate", timeout=PATIENCE_S, on_status=on_status))
            kit.wait_until(lambda: not service.server.plant.subscribers)
            appended_to_one_who_listens(service, docs)
            next(found)
            before = service.server.plant.metrics.rows
            for n in range(200):
                docs.append([{"n": n, "text": "x" * 2000} for _ in range(20)])
            rows = before + 4000
            kit.wait_until(lambda rows=rows: service.server.plant.metrics.rows == rows)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                while next(found)["n"] != 199:
                    pass
                found.close()  # type: ignore[attr-defined]
            if on_status is None:
                assert any(
                    w.category is PenstockWarning and "kept the latest of each symbol" in str(w.message) for w in caught
                )
    assert "conflated" in [m["status"] for m in statuses]


# ---- other servers ----------------------------------------------------------------------------------------------


@contextmanager
def another(*frames: Any, greeting: bool = True) -> Iterator[tuple[str, list[Any]]]:
    """A server that knows only the market's own words, such as the market's."""
    heard: list[Any] = []

    def handle(connection: Any) -> None:
        if greeting:
            connection.send(json.dumps([{"ev": "status", "status": "connected", "message": "hello"}]))
        heard.append(json.loads(connection.recv()))
        answer = {"ev": "status", "status": "auth_success", "message": "authenticated"}
        connection.send(json.dumps([answer] if greeting else answer))
        heard.append(json.loads(connection.recv()))
        for frame in frames:
            connection.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))
        for _ in connection:
            pass

    with serve_others(handle, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}", heard
        finally:
            server.shutdown()
            thread.join()


def test_a_server_with_the_markets_words_only() -> None:
    with another([{"ev": "T", "sym": "A", "p": 1.5}]) as (url, heard):
        subscription = subscribe(url, "T.*", token="k", plain=True)
        assert next(iter(subscription)) == {"ev": "T", "sym": "A", "p": 1.5}
        subscription.close()
    assert heard == [{"action": "auth", "params": "k"}, {"action": "subscribe", "params": "T.*"}]


def test_a_server_without_greeting_and_arrays() -> None:
    with another({"ev": "AVG", "a": 52.2865}, greeting=False) as (url, _):
        assert next(iter(subscribe(url, "AM.*", plain=True))) == {"ev": "AVG", "a": 52.2865}


@pytest.mark.parametrize(
    "frame, message",
    [
        ("{", "a frame that is no JSON"),
        ("[1]", "a message that is no object: 1"),
        (b"x", "a binary frame that is no batch"),
    ],
)
def test_a_server_that_speaks_nonsense(frame: Any, message: str) -> None:
    with another(frame) as (url, _), pytest.raises(SourceError, match=f"expected messages of a plant, got {message}"):
        next(iter(subscribe(url, "AM.*")))


def test_a_port_that_speaks_no_websocket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            peer, _ = server.accept()
            peer.recv(1000)
            peer.sendall(b"SSH-2.0\r\n")
            peer.close()

        threading.Thread(target=hang_up).start()
        with pytest.raises(SourceError, match="no plant answers"):
            next(iter(subscribe(f"ws://127.0.0.1:{server.getsockname()[1]}")))


def test_the_example_of_the_docstring(hub: Hub) -> None:
    assert ps.plant.subscribe("ws://localhost:5000", "AM.*", since="start").positions == {}
