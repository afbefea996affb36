"""The sink against a real server that reads slowly, drops, restarts and answers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.sync.server import ServerConnection

import penstock as ps
from penstock.connect import Sink, WebSocketSink
from penstock.errors import SourceError, UsageError
from penstock_tests.sockets import serving
from penstock_tests.waiting import PATIENCE_S, until

ROWS = pa.table({"symbol": ["A", "B", "C"], "c": [1.5, float("nan"), 2.5]})


class Taker:
    """A server that keeps what comes; `talk` is called with each connection and its number first."""

    def __init__(self, talk: Callable[[ServerConnection, int], None] = lambda connection, number: None) -> None:
        self.talk, self.frames, self.connections = talk, list[Any](), 0

    def __call__(self, connection: ServerConnection) -> None:
        self.connections += 1
        try:
            self.talk(connection, self.connections)
            for text in connection:
                self.frames.append(json.loads(text))
        except ConnectionClosed:
            pass

    @property
    def rows(self) -> list[Any]:
        return [row for frame in self.frames for row in frame]


def test_rows_arrive_as_arrays() -> None:
    taker = Taker()
    with (
        serving(taker) as url,
        WebSocketSink(
            url, rename={"symbol": "sym"}, constants={"ev": "AM"}, hello=[{"action": "publish"}], max_rows=2
        ) as sink,
    ):
        assert isinstance(sink, Sink)
        assert sink.put(ROWS) == 3
        assert sink.put({"symbol": "D", "c": 1}) == 1
        until(lambda: len(taker.frames) == 4)
    assert taker.frames == [
        {"action": "publish"},
        [{"ev": "AM", "sym": "A", "c": 1.5}, {"ev": "AM", "sym": "B", "c": None}],
        [{"ev": "AM", "sym": "C", "c": 2.5}],
        [{"ev": "AM", "sym": "D", "c": 1}],
    ]
    assert (sink.statistics().rows, sink.statistics().frames, sink.statistics().connections) == (4, 3, 1)


def test_windows(tmp_path: Path) -> None:
    taker = Taker()
    with ps.open(tmp_path / "hub") as hub, serving(taker) as url, WebSocketSink(url) as sink:
        hub.streams.get("s").append([{"n": 1, "deep": {"x": [1]}}, {"n": 2}])
        windows = hub.streams.get("s", lazy=True, size=1, blocking=False, group="g")
        windows.apply(lambda window: sink.put(window) and None)
        until(lambda: len(taker.frames) == 2)
    assert taker.rows == [{"n": 1, "deep": {"x": [1]}}, {"n": 2}]


def drop_first(listener: socket.socket) -> None:
    """Take a connection and its first message, and go without an answer."""
    with listener.accept()[0] as peer:
        protocol = ServerProtocol()
        while True:
            protocol.receive_data(peer.recv(65536))
            for event in protocol.events_received():
                if not isinstance(event, Request):
                    return
                protocol.send_response(protocol.accept(event))
                peer.sendall(b"".join(protocol.data_to_send()))


def test_what_was_not_answered_is_sent_again() -> None:
    taker = Taker()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        sink = WebSocketSink(f"ws://127.0.0.1:{port}")
        thread = threading.Thread(target=sink.put, args=(ROWS,))
        thread.start()
        drop_first(listener)
        drop_first(listener)
    with serving(taker, port):
        thread.join(PATIENCE_S)
        until(lambda: len(taker.rows) == 3)
        assert (sink.statistics().rows, sink.statistics().frames >= 2) == (3, True)
        sink.close()


def test_a_restart_of_the_server() -> None:
    taker = Taker()
    with serving(taker) as url:
        sink = WebSocketSink(url)
        sink.put(ROWS)
    with serving(taker, int(url.rpartition(":")[2])):
        sink.put(ROWS)
        until(lambda: len(taker.rows) == 6)
        sink.close()


def test_a_put_waits_while_the_server_does_not_read() -> None:
    go = threading.Event()
    taker = Taker(lambda connection, number: go.wait(PATIENCE_S) and None)
    big = [{"text": "x" * 1000}] * 1000
    done = threading.Event()
    with serving(taker) as url, WebSocketSink(url, max_rows=10) as sink:
        thread = threading.Thread(target=lambda: [sink.put(big) for _ in range(20)] and done.set())
        thread.start()
        assert not done.wait(0.3)
        go.set()
        assert done.wait(PATIENCE_S)
        thread.join()
        until(lambda: len(taker.rows) == 20_000)
    assert sink.statistics().connections == 1


def test_answers_of_the_server_do_not_stop_it() -> None:
    def talk(connection: ServerConnection, number: int) -> None:
        for text in connection:
            for _ in range(100):
                connection.send(text)

    with serving(Taker(talk)) as url, WebSocketSink(url) as sink:
        for _ in range(5):
            sink.put(ROWS)


def test_no_server() -> None:
    with serving(Taker()) as url:
        pass
    with pytest.raises(SourceError, match="no server takes rows at ws://127.0.0.1:[0-9]+: "):
        WebSocketSink(url + "?key=hidden", patience=0.1).put(ROWS)
    sink = WebSocketSink(url)
    sink.close()
    with pytest.raises(SourceError, match="the sink to ws://.* is closed; make another one"):
        sink.put(ROWS)


def test_options_that_cannot_be_meant() -> None:
    with pytest.raises(UsageError, match="expected a URL such as wss://server/path, got 'http://x'"):
        WebSocketSink("http://x")
    with pytest.raises(UsageError, match="expected a number of at least 1, got 0 - in max_rows"):
        WebSocketSink("ws://x", max_rows=0)
