"""A write is there once, however often it was sent: lost answers, cut connections, times that are over, new servers."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl
import pytest

from penstock.errors import KeyNotFound, SourceError, TypeMismatch
from penstock.store import Client, Server, connect, serve

NOON = 1_767_268_800_000_000_000
Frame = Callable[..., pa.Table]
Serving = Callable[..., tuple[subprocess.Popen[str], str]]


class Proxy:
    """Between a client and a server; the first connection is reset after so many bytes from either side."""

    def __init__(self, port: int, *, sent: int | None = None, answered: int | None = None) -> None:
        self._to, self._limits = port, [sent, answered]
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.cuts = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                limits, self._limits = self._limits, [None, None]
                self._open += [near, far]
                for pair, limit in (((near, far), limits[0]), ((far, near), limits[1])):
                    threading.Thread(target=self._pass, args=(*pair, limit), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, limit: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(4096 if limit is not None else 1 << 16):
                passed += len(data)
                if limit is not None and passed >= limit:
                    self.cuts += 1
                    for end in (source, target):  # a reset, not an end
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        with contextlib.suppress(OSError):
                            end.shutdown(socket.SHUT_RD)
                        end.close()
                    return
                target.sendall(data)

    def close(self) -> None:
        for end in (self._listening, *self._open):
            end.close()


@pytest.fixture
def proxied(server: Server) -> Iterator[Callable[..., tuple[Client, Proxy]]]:
    opened: list[Any] = []

    def make(**limits: int) -> tuple[Client, Proxy]:
        proxy = Proxy(server.port, **limits)
        client = connect(f"grpc://127.0.0.1:{proxy.port}", timeout=600, patience=600)
        opened[:0] = [client, proxy]
        return client, proxy

    yield make
    for found in opened:
        found.close()


def numbers(server: Server, rows: int) -> None:
    """What was written is there once: `rows="all"` hides nothing."""
    assert sorted(server.desk.store.read("t/A")["x"].to_pylist()) == [float(i) for i in range(rows)]


@pytest.mark.parametrize("sent", [400, 2000, 100_000, 1_300_000, 2_500_000, 3_990_000])
def test_a_connection_that_is_reset_in_mid_write(
    server: Server, client: Client, frame: Frame, proxied: Callable[..., tuple[Client, Proxy]], sent: int
) -> None:
    client.create("t", frame(1).schema, rows="all")
    other, proxy = proxied(sent=sent)
    assert other.write("t", frame(200_000)) == 200_000  # 4 MB
    assert proxy.cuts == 1
    numbers(server, 200_000)


@pytest.mark.parametrize("answered", [1, 200, 400, 600])
def test_a_connection_that_is_reset_before_an_answer(
    server: Server, client: Client, frame: Frame, proxied: Callable[..., tuple[Client, Proxy]], answered: int
) -> None:
    client.create("t", frame(1).schema, rows="all")
    other, proxy = proxied(answered=answered)
    for first in range(0, 50, 10):
        other.write("t", frame(10, first=first))
    assert proxy.cuts == 1
    numbers(server, 50)


@pytest.mark.parametrize("made", [True, False], ids=["table", "first"])
def test_a_write_that_takes_too_long_is_repeated_and_waits_for_its_first(
    server: Server, client: Client, frame: Frame, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    """The server is still at it: the repeated one must not overtake. Also when there was no table before."""
    if made:
        client.create("t", frame(1).schema, rows="all")
    write, turn = server.desk.store.write, server.desk._writers.turn
    begun, repeated, calls = threading.Event(), threading.Event(), [0]

    def slow(*args: Any, **options: Any) -> range:
        begun.set()
        assert repeated.wait(600)
        calls[0] += 1
        return write(*args, **options)

    def turned(who: str) -> Any:
        if begun.is_set():
            repeated.set()
        return turn(who)

    monkeypatch.setattr(server.desk.store, "write", slow)
    monkeypatch.setattr(server.desk._writers, "turn", turned)
    with connect(server.url, timeout=0.5, patience=600) as hasty:
        hasty.write("t", frame(10))
    assert calls[0] == 1
    assert server.desk.store.table("t").stream.next_offset == 10


def test_a_write_that_failed_and_is_written_again_is_one(
    tmp_path: Path, server: Server, frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there, and nobody said so; others come in between; then the caller repeats it."""
    write, lost = server.desk.write, [True]

    def losing(*args: Any, **options: Any) -> range | None:
        found = write(*args, **options)
        if lost[0]:
            server.desk._writers.clear()
            threading.Event().wait(1.0)  # longer than the client's time
        return found

    monkeypatch.setattr(server.desk, "write", losing)
    with connect(server.url, timeout=0.2, patience=0) as client:
        server.desk.store.create("t", frame(1).schema, rows="all")
        with pytest.raises(
            SourceError,
            match="no answer within 0.2 s - to write of .*; write it again: what is there is not written twice",
        ):
            client.write("t", frame(10))
        lost[0] = False
        client._timeout = 60.0
        client.write("t", frame(10, first=10))
        client.write("t", frame(10))  # equal rows, another frame
        numbers(server, 20)
        client.write("t", frame(10))  # now they are meant
        assert server.desk.store.read("t/A").num_rows == 30


def test_what_was_not_there_is_not_passed_over_when_it_is_written_again(
    server: Server, client: Client, frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.create("t", frame(1).schema, rows="all")
    write = server.desk.write
    monkeypatch.setattr(
        server.desk, "write", lambda *args, **options: (_ for _ in ()).throw(KeyNotFound("not now", near=[]))
    )
    with pytest.raises(KeyNotFound, match="not now"):
        client.write("t", frame(10))
    monkeypatch.setattr(server.desk, "write", write)
    client.write("t", frame(10, first=10))
    client.write("t", frame(10))
    numbers(server, 20)


def test_rows_that_are_refused_do_not_hold_up_others(client: Client, server: Server, frame: Frame) -> None:
    client.create("t", frame(1).schema, rows="all")
    wrong = pa.table({"symbol": ["A"], "ts_event": ["x"], "x": [1.0]})
    for first in range(0, 30, 10):
        with pytest.raises(TypeMismatch):
            client.write("t", wrong)
        client.write("t", frame(10, first=first))
    numbers(server, 30)


def test_many_writes_that_failed_are_kept_for_a_while(client: Client, server: Server, frame: Frame) -> None:
    wrong = pa.table({"symbol": ["A"], "ts_event": ["x"], "x": [1.0]})
    client.create("t", frame(1).schema, rows="all")
    for number in range(40):
        with pytest.raises(TypeMismatch):
            client.write("t", wrong.append_column(f"c{number}", pa.array([1])))
    assert len(client._unsure) == 16


def test_a_drop_whose_answer_was_lost_is_done(
    server: Server, client: Client, frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.write("t", frame(1))
    drop, lost = server.desk.drop, [True]

    def losing(name: str) -> None:
        drop(name)
        if lost.pop():
            raise fl.FlightUnavailableError("gone")

    monkeypatch.setattr(server.desk, "drop", losing)
    client.drop("t")
    assert client.ls() == []
    with pytest.raises(KeyNotFound):
        client.drop("t")


def test_an_answer_lost_with_its_server_is_found_by_the_next_one(tmp_path: Path, frame: Frame) -> None:
    """Also when the rows were rolled meanwhile, and the log has forgotten them."""
    with serve(tmp_path / "hub", memory="64m", port=0, keep=None) as server, connect(server.url) as client:
        client.create("t", frame(1).schema, rows="all")
        client.write("t", frame(10))
        who, position, port = client._who, client._position, server.port
        server.desk.store.flush("t")
    with serve(tmp_path / "hub", memory="64m", port=port, keep=None) as server, connect(server.url) as client:
        client._put("t", frame(10).to_batches(), who, position, True)
        client._put("t", frame(10, first=10).to_batches(), who, position + 1, False)
        assert client.stats()["requests"]["skipped"] == 1
        numbers(server, 20)
