"""What a client does on its own: addresses, timeouts, retries that write once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl
import pyarrow.parquet as pq
import pytest

from penstock.connect import Dataset
from penstock.errors import FrameTooLarge, SourceError, StoreError, UsageError
from penstock.store import Client, Server, connect, serve

NOON = 1_767_268_800_000_000_000
Frame = Callable[..., pa.Table]


@pytest.mark.parametrize("uri", ["localhost:1", "http://x", "grpc://", "grpc://h/path", 5, None, "grpc:///x"])
def test_addresses_that_are_none(uri: Any) -> None:
    with pytest.raises(UsageError, match='expected "grpc://host:port" or "grpc\\+tls://host:port", got'):
        connect(uri)


def test_addresses_without_a_port_have_the_usual_one() -> None:
    assert connect("grpc://localhost")._location == "grpc+tcp://localhost:8815"
    assert connect("grpc+tls://[::1]")._location == "grpc+tls://[::1]:8815"
    assert connect("grpcs://host:1/")._location == "grpc+tls://host:1"
    assert repr(connect()) == "Client('grpc://127.0.0.1:8815')"
    with pytest.raises(UsageError, match="expected seconds, got -1 - in timeout"):
        connect("grpc://x", timeout=-1)


def test_a_closed_client_says_so(server: Server) -> None:
    client = connect(server.url)
    client.ls()
    client.close()
    client.close()
    with pytest.raises(UsageError, match="expected a client that is open, got a closed one"):
        client.ls()


def test_no_answer_in_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(server.desk, "ls", lambda prefix="": ended.wait(600) and [])
    with (
        connect(server.url, timeout=0.1) as client,
        pytest.raises(SourceError, match="no answer within 0.1 s - to ls of grpc://.*; ask less"),
    ):
        client.ls()
    ended.set()


def test_what_was_written_when_the_answer_was_lost_is_not_written_again(
    server: Server, frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server writes, and breaks off before it answers: once it still knows, once it has to look in the log."""
    lost = [1, 1]
    write = server.desk.write

    def losing(*args: Any, **options: Any) -> range | None:
        found = write(*args, **options)
        if lost:
            if lost.pop():
                server.desk._writers.clear()
            raise fl.FlightUnavailableError("gone")
        return found

    with connect(server.url) as client:
        client.create("t", frame(1).schema, rows="all")
        for at, lose in enumerate(([0], [1], [])):
            lost[:] = lose
            monkeypatch.setattr(server.desk, "write", losing)
            client.write("t", frame(5, first=5 * at))
        assert client.read("t/A")["x"].to_pylist() == [float(i) for i in range(15)]
        assert client.stats()["requests"]["skipped"] == 2


def test_a_large_frame_goes_in_pieces_and_goes_on_after_the_last(
    server: Server, frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = server.desk.write, [0]

    def losing(*args: Any, **options: Any) -> range | None:
        calls[0] += 1
        if calls[0] == 3:
            raise fl.FlightUnavailableError("gone")
        return write(*args, **options)

    monkeypatch.setattr(server.desk, "write", losing)
    with connect(server.url, timeout=600) as client:
        client.create("t", frame(1).schema, rows="all")
        client.write("t", frame(600_000))
        assert calls[0] > 4
        assert sum(client.read("t", columns=["x"])["x"].to_numpy()) == sum(range(600_000))
        assert server.desk.store.table("t").stream.next_offset == 600_000


def test_a_source_streams_into_a_served_table_and_resumes(client: Client, frame: Frame, tmp_path: Path) -> None:
    pq.write_table(frame(1000), tmp_path / "a.parquet")
    client.create("t", frame(1).schema)
    source = Dataset(tmp_path / "a.parquet", schema=client.schema("t"))
    assert source.stream(client.target("t")).rows == 1000
    again = Dataset(tmp_path / "a.parquet", schema=client.schema("t")).stream(client.target("t"))
    assert (again.rows, again.resumed_at) == (0, 1000)
    assert client.last_origin("t", "nobody") is None
    assert client.last_origin("none", "nobody") is None
    client.drop("t")
    client.create("t", frame(1).schema)
    assert Dataset(tmp_path / "a.parquet", schema=client.schema("t")).stream(client.target("t")).rows == 1000
    assert client.read("t/A").num_rows == 1000


def test_export_and_scan_are_of_any_size(tmp_path: Path, frame: Frame) -> None:
    with serve(tmp_path / "hub", memory=100_000, port=0, keep=None) as server, connect(server.url) as client:
        for day in range(6):
            client.write("t", frame(1000, first=day * 86_400))
        server.desk.store.flush()
        with pytest.raises(FrameTooLarge):
            client.read("t")
        told: list[int] = []
        assert client.export("t", tmp_path / "t.parquet", progress=lambda rows, total: told.append(rows)) == 6000
        assert pq.read_table(tmp_path / "t.parquet")["x"].to_pylist() == [
            float(i) for d in range(6) for i in range(86_400 * d, 86_400 * d + 1000)
        ]
        assert told[-1] == 6000
        client.write("u", frame(5000))
        server.desk.store.flush()
        with pytest.raises(FrameTooLarge):
            list(client.scan("u"))


def test_rows_that_are_no_table(client: Client) -> None:
    with pytest.raises(StoreError, match="rows that are no table: .* - in a write to 't'"):
        client.write("t", [{"a": 1}, {"a": "x"}])
    with pytest.raises(UsageError, match="expected a path as text, got 5"):
        client.read(5)  # type: ignore[arg-type]
