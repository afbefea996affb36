"""What a stranger may try: other protocols, crowds, rows of any shape, tables that go while they are read."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl
import pytest

import penstock as ps
from penstock.errors import KeyNotFound, PenstockError, SourceError, StoreError, UsageError
from penstock.store import Client, Server, connect, serve
from penstock.store.service import wire

NOON = 1_767_268_800_000_000_000
Frame = Callable[..., pa.Table]
Serving = Callable[..., tuple[subprocess.Popen[str], str]]


OTHER_PROTOCOLS = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "zeros": bytes(70_000),
    "noise": os.urandom(5000),
    "preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 200,
    "half": b"PRI * HTTP/2.0\r\n",
    "frame": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(1000),
    "nothing": b"",
}


@pytest.mark.parametrize("said", OTHER_PROTOCOLS.values(), ids=OTHER_PROTOCOLS)
def test_other_protocols_on_the_port_harm_nobody(server: Server, client: Client, frame: Frame, said: bytes) -> None:
    client.write("t", frame(10))
    strangers = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
    try:
        for stranger in strangers:
            stranger.sendall(said)
        with connect(server.url) as other:
            assert other.read("t/A").num_rows == 10
    finally:
        for stranger in strangers:
            stranger.close()
    assert client.read("t/A").num_rows == 10


def test_fifty_clients_at_once(server: Server, frame: Frame) -> None:
    together = threading.Barrier(50)

    def work(number: int) -> int:
        with connect(server.url, timeout=600, patience=600) as client:
            together.wait(600)
            for first in range(0, 300, 100):
                client.write("t", frame(100, f"K{number}", first))
            assert client.stats()["memory"]["max"] == 64 << 20
            assert f"t/K{number}" in client.ls("t")
            return int(client.read(f"t/K{number}").num_rows)

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(work, range(50))) == [300] * 50
    assert server.desk.store.table("t").stream.next_offset == 15_000
    assert server.desk.stats()["memory"]["lent"] == 0


def test_a_table_that_is_dropped_and_made_again_while_others_read_and_write(server: Server, frame: Frame) -> None:
    ended = threading.Event()
    seen: set[str] = set()
    failed: list[BaseException] = []

    def work(act: Callable[[Client], Any]) -> None:
        with connect(server.url, timeout=600) as client:
            while not ended.is_set():
                try:
                    act(client)
                except (KeyNotFound, StoreError) as error:  # it was gone at that moment
                    seen.add(type(error).__name__)
                    if type(error) is not KeyNotFound:
                        failed.append(error)
                except BaseException as error:
                    failed.append(error)
                    return

    acts: list[Callable[[Client], Any]] = [
        lambda client: client.read("t/A"),
        lambda client: client.read("t"),
        lambda client: client.ls("t"),
        lambda client: client.stats(2),
        lambda client: client.write("t", frame(200)),
    ]
    threads = [threading.Thread(target=work, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    with connect(server.url, timeout=600) as client:
        for _ in range(6):
            client.write("t", frame(2000))
            try:
                client.drop("t")
            except KeyNotFound as error:
                failed.append(error)
    ended.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert server.desk.stats()["memory"]["lent"] == 0


def raw_put(server: Server, path: str, table: pa.Table) -> None:
    with fl.FlightClient(server.url) as client:
        writer, _ = client.do_put(fl.FlightDescriptor.for_path(*path.split("/")), table.schema)
        try:
            for batch in table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]:
                writer.write_batch(batch)
        finally:
            writer.close()


def refused(server: Server, path: str, table: pa.Table) -> fl.FlightError | None:
    """What a put of a table is refused with, if it is."""
    try:
        raw_put(server, path, table)
    except fl.FlightError as error:
        return error
    return None


def base(rows: int = 2) -> dict[str, Any]:
    return {"symbol": ["A"] * rows, "ts_event": [NOON + i for i in range(rows)]}


ODD = {
    "no-columns": pa.table({}),
    "no-rows": pa.table({"symbol": pa.array([], pa.string()), "ts_event": pa.array([], pa.int64())}),
    "no-key": pa.table({"ts_event": [NOON]}),
    "no-time": pa.table({"symbol": ["A"]}),
    "null-key": pa.table({"symbol": pa.array([None, "A"]), "ts_event": [NOON, NOON + 1]}),
    "null-time": pa.table({"symbol": ["A", "A"], "ts_event": pa.array([None, NOON])}),
    "number-key": pa.table({"symbol": [1, 2], "ts_event": [NOON, NOON + 1]}),
    "float-time": pa.table({"symbol": ["A"], "ts_event": [1.5]}),
    "last-time": pa.table({"symbol": ["A"], "ts_event": [2**63 - 1]}),
    "long-key": pa.table({"symbol": ["x" * 10_000], "ts_event": [NOON]}),
    "nul-key": pa.table({"symbol": ["a\0b"], "ts_event": [NOON]}),
    "path-key": pa.table({"symbol": ["../../x"], "ts_event": [NOON]}),
    "empty-key": pa.table({"symbol": [""], "ts_event": [NOON]}),
    "twice-a-column": pa.Table.from_arrays(
        [pa.array(["A"]), pa.array([NOON]), pa.array([1]), pa.array([2])], names=["symbol", "ts_event", "x", "x"]
    ),
    "no-name": pa.table({**base(), "": [1, 2]}),
    "our-name": pa.table({**base(), "_offset": [1, 2]}),
    "nested": pa.table({**base(), "n": [{"a": [1, {"b": 2}["b"]]}, {"a": None}]}),
    "union": pa.table({**base(), "u": pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])}),
    "month-interval": pa.table({**base(), "i": pa.array([(1, 2, 3), None], pa.month_day_nano_interval())}),
    "decimal": pa.table({**base(), "d": pa.array([1, 2], pa.decimal256(70, 2))}),
    "run-ends": pa.table({**base(), "r": pa.RunEndEncodedArray.from_arrays([2], ["x"])}),
    "many-columns": pa.table({**base(), **{f"c{i}": [1, 2] for i in range(300)}}),
    "null-column": pa.table({**base(), "z": pa.nulls(2)}),
}  # fmt: skip


@pytest.mark.parametrize("table", ODD.values(), ids=ODD)
def test_rows_of_any_shape_are_taken_or_refused_with_a_reason(
    server: Server, client: Client, frame: Frame, table: pa.Table
) -> None:
    client.write("good", frame(5))
    for path in ("new", "good"):
        error = refused(server, path, table)
        if error is not None:
            assert error.extra_info, error
            assert "the server failed" not in str(wire.decode_error(error.extra_info))
        elif path in client.ls():
            before = client.read(path)
            server.desk.store.flush(path)
            assert client.read(path).equals(before)
    assert client.read("good").num_rows >= 5


def test_what_is_larger_than_the_limit_is_refused(tmp_path: Path, frame: Frame) -> None:
    with serve(tmp_path / "hub", memory="64m", port=0, keep=None, max_message="1m") as server:
        with pytest.raises(fl.FlightServerError, match="expected record batches of at most 1048576 bytes, got"):
            raw_put(server, "t", frame(200_000))
        with connect(server.url) as client:
            client.write("t", frame(100))
            with pytest.raises(UsageError, match="a request of at most 65536 bytes"):
                client.sql("select '" + "x" * 70_000 + "'")
            with pytest.raises(UsageError):
                client.read("t/" + "x" * 10_000)
            assert client.read("t").num_rows == 100


def test_calls_that_there_are_not(server: Server, client: Client) -> None:
    with fl.FlightClient(server.url) as raw:
        with pytest.raises((NotImplementedError, fl.FlightError, pa.ArrowException)):
            writer, _ = raw.do_exchange(fl.FlightDescriptor.for_path("t"))
            writer.close()
        with pytest.raises((NotImplementedError, fl.FlightError, pa.ArrowException)):
            raw.authenticate_basic_token("me", "secret")
        with pytest.raises(fl.FlightError, match="expected an action of stats, health, ls"):
            list(raw.do_action("shutdown"))
    assert client.health()["ok"]


def test_a_put_that_sends_nothing_does_not_hold_up_others(server: Server, client: Client, frame: Frame) -> None:
    """As many as there is room for, and more, each open and silent."""
    schema = frame(1).schema
    with fl.FlightClient(server.url) as raw:
        idle = [raw.do_put(fl.FlightDescriptor.for_path("t"), schema) for _ in range(8)]
        assert client.write("t", frame(200_000)) == 200_000
        for number, (writer, answers) in enumerate(idle):
            writer.write_batch(frame(1, f"I{number}").to_batches()[0])
            assert answers.read() is not None
            writer.close()
    assert client.read("t/I7").num_rows == 1


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_during_a_write(tmp_path: Path, serving: Serving, frame: Frame, number: int, code: int) -> None:
    """What was acknowledged is there; what was not is told to have failed."""
    process, url = serving(tmp_path / "hub", roll=False)
    acknowledged, begun = [0], threading.Event()
    failed: list[Exception] = []

    def work() -> None:
        with connect(url, patience=0) as client:
            try:
                while True:
                    client.write("t", frame(20_000, first=acknowledged[0]))
                    acknowledged[0] += 20_000
                    begun.set()
            except SourceError as error:
                failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(600)
    process.send_signal(number)
    assert process.wait(600) == code
    thread.join()
    assert len(failed) == 1
    with ps.store.open(tmp_path / "hub") as store:
        assert store.read("t/A").num_rows >= acknowledged[0] > 0


def test_a_client_of_another_make(server: Server, client: Client, frame: Frame) -> None:
    raw_put(server, "historical/minute", frame(10))
    with fl.FlightClient(server.url) as raw:
        (info,) = raw.list_flights()
        assert info.descriptor.path == [b"historical", b"minute"]
        assert raw.do_get(info.endpoints[0].ticket).read_all().num_rows == 10
        assert raw.get_schema(fl.FlightDescriptor.for_path("historical", "minute")).schema.names == [
            "symbol",
            "ts_event",
            "x",
        ]
        reader = raw.do_get(
            fl.Ticket(b'{"path": "historical/minute/A", "columns": ["x"], "end": "2026-01-01T12:00:03Z"}')
        )
        assert reader.to_reader().read_all()["x"].to_pylist() == [0.0, 1.0, 2.0]
        with pytest.raises(PenstockError):
            raise wire.decode_error(b"{}")
