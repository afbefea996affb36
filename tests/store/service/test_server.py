"""The verbs of a store over the wire, and what is refused there."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars
import pyarrow as pa
import pyarrow.flight as fl
import pytest
import trustme

import penstock as ps
from penstock.errors import (
    CorruptFile,
    FrameTooLarge,
    KeyNotFound,
    PenstockError,
    SchemaMismatch,
    SourceError,
    StoreError,
    TypeMismatch,
    UsageError,
)
from penstock.store import Client, Server, connect, serve
from penstock.tokens import Tokens

NOON = 1_767_268_800_000_000_000
Frame = Callable[..., pa.Table]


def flight(server: Server) -> fl.FlightClient:
    return fl.FlightClient(server.url)


def test_a_served_store_answers_as_the_store_itself(server: Server, client: Client, frame: Frame) -> None:
    assert client.write("historical/minute", pa.concat_tables([frame(100), frame(50, "B")])) == 150
    store = server.desk.store
    for path in ("historical/minute", "historical/minute/A", "historical/minute/[AB]"):
        assert client.read(path).equals(store.read(path))
    part = client.read("historical/minute/A", "2026-01-01T12:00:10Z", NOON + 20 * 10**9, ["x"])
    assert part["x"].to_pylist() == [float(i) for i in range(10, 20)]
    assert isinstance(client.read("historical/minute/A", to="polars"), polars.DataFrame)
    assert client.ls() == ["historical/minute"]
    assert client.ls("historical/minute") == ["historical/minute/A", "historical/minute/B"]
    assert client.schema("historical/minute/A").equals(store.schema("historical/minute"))
    assert client.read("historical/minute/A", NOON, NOON).num_rows == 0
    assert sum(piece.num_rows for piece in client.scan("historical/minute")) == 150


def test_a_write_is_seen_at_once_and_corrections_are_kept(client: Client, frame: Frame) -> None:
    client.write("t", frame(3))
    assert client.read("t/A")["x"].to_pylist() == [0.0, 1.0, 2.0]
    known = client.read("t/A", columns=["ts_known"])["ts_known"][0].as_py()
    client.write("t/A", pa.table({"ts_event": [NOON], "x": [9.0]}))
    assert client.read("t/A")["x"].to_pylist() == [9.0, 1.0, 2.0]
    assert client.read("t/A", as_of=known)["x"].to_pylist() == [0.0, 1.0, 2.0]
    assert client.read("t/A", revisions=True).num_rows == 4
    client.write("t", [{"symbol": "C", "ts_event": NOON, "x": 1.5}])
    assert client.read("t/C")["x"].to_pylist() == [1.5]
    assert client.write("t", pa.table({"symbol": pa.array([], pa.string())})) == 0


def test_create_drop_maintain_evict(server: Server, client: Client, frame: Frame) -> None:
    client.create("trades", ps.records.TRADES, identity=["sequence"], rows="all", partition="month")
    assert server.desk.store.table("trades").layout.rows == "all"
    client.write("t", frame(10))
    assert client.maintain("t")["t"]["rolled"]["rows"] == 10
    client.read("t/A")
    assert client.stats()["memory"]["used"] > 0
    assert client.evict("trades") == 0
    assert client.evict("t") > 0
    assert client.stats()["memory"]["used"] == 0
    client.drop("t")
    assert client.ls() == ["trades"]
    client.write("t", frame(1, first=5))
    assert client.read("t/A")["x"].to_pylist() == [5.0]


def test_stats_have_levels(server: Server, client: Client, frame: Frame) -> None:
    client.write("t", frame(10))
    client.read("t/A")
    numbers = client.stats()
    memory = numbers["memory"]
    assert memory["used"] + memory["free"] == memory["max"] == 64 << 20
    assert numbers["config"] == {"root_path": str(server.desk.store.hub.path), "max_memory": 64 << 20}
    assert (numbers["requests"]["reads"], numbers["requests"]["rows_in"], numbers["frames"]["held"]) == (1, 10, 1)
    assert "store" not in numbers
    assert client.stats(1)["held"] == [{"path": "t/A", "start": None, "end": None}]
    assert "keys" not in client.stats(1)["store"]["table"]["t"]
    assert client.stats(2)["store"]["table"]["t"]["keys"] == {"A": 10}
    with pytest.raises(UsageError, match="expected level 0, 1 or 2, got 3 - in stats"):
        client.stats(3)
    (raw,) = flight(server).do_action(("stats", b"0"))
    assert json.loads(raw.body.to_pybytes())["memory"]["max"] == 64 << 20


def test_a_frame_over_the_budget_is_refused_before_it_is_read(tmp_path: Path, frame: Frame) -> None:
    with serve(tmp_path / "hub", memory=20_000, port=0, keep=None) as server, connect(server.url) as client:
        for symbol in "ABC":
            client.write("t", frame(400, symbol))
        with pytest.raises(
            FrameTooLarge, match="expected a frame of at most 20000 bytes, got about 48000 - for 't'; ask for"
        ) as met:
            client.read("t")
        assert (met.value.size, met.value.limit) == (48000, 20000)
        with pytest.raises(FrameTooLarge):
            client.read("t/*")
        with pytest.raises(
            FrameTooLarge, match="expected tables of at most 20000 bytes together, got about 48000 - in the query"
        ):
            client.sql('select * from "t"')
        assert client.stats()["frames"]["refused"] == 2
        assert client.read("t/A").num_rows == 400
        assert client.stats()["memory"]["used"] <= 20_000
        assert client.read("t", columns=["x"]).num_rows == 1200  # fits without the others
        client.evict()
        assert sum(piece.num_rows for piece in client.scan("t", NOON, NOON + 400 * 10**9)) == 1200


BAD_PATHS = {
    "above": "..", "above-first": "../x", "absolute": "/etc/passwd", "above-within": "t/../../x", "nul": "a\0b",
    "long": "x" * 10_000, "home": "~root", "backslash": "a\\b", "empty": "", "blank": " t", "empty-part": "a//b",
    "url": "file:///x",
}  # fmt: skip


@pytest.mark.parametrize("path", BAD_PATHS.values(), ids=BAD_PATHS)
def test_paths_that_lead_out_are_refused(server: Server, client: Client, path: str, frame: Frame) -> None:
    for act in (
        lambda: client.read(path),
        lambda: client.write(path, frame(1)),
        lambda: client.drop(path),
        lambda: client.schema(path),
        lambda: client.create(path, frame(1).schema),
    ):
        with pytest.raises(UsageError, match="expected a path"):
            act()
    with pytest.raises(fl.FlightError, match="expected a path"):
        flight(server).do_get(fl.Ticket(path.encode() or b" ")).read_all()


def test_links_out_are_refused(server: Server, client: Client, tmp_path: Path, frame: Frame) -> None:
    with ps.store.open(tmp_path / "other") as other:
        other.write("secret", frame(3))
    client.write("t", frame(1))
    (server.desk.store.path / "link").symlink_to(tmp_path / "other" / "tables" / "secret")
    with pytest.raises(UsageError, match="expected a table inside .*, got a link to"):
        client.read("link/A")


def test_errors_arrive_as_the_classes_they_are(client: Client, frame: Frame) -> None:
    client.write("historical/minute", pa.concat_tables([frame(3, "AAPL"), frame(3, "MSFT")]))
    with pytest.raises(KeyNotFound, match="no key 'AAPLE' in table 'historical/minute'; did you mean 'AAPL'") as met:
        client.read("historical/minute/AAPLE")
    assert met.value.near == ["AAPL"]
    with pytest.raises(KeyNotFound, match="did you mean 'historical/minute'") as met:
        client.schema("historical/minutes")
    assert met.value.near == ["historical/minute"]
    with pytest.raises(TypeMismatch, match="expected int64 for `ts_event`, got string") as wrong:
        client.write("historical/minute", pa.table({"symbol": ["A"], "ts_event": ["x"], "x": [1.0]}))
    assert wrong.value.column == "ts_event"
    with pytest.raises(UsageError, match="got 'clos' - in table"):
        client.read("historical/minute/AAPL", columns=["clos"])
    with pytest.raises(SchemaMismatch, match="expected a key column `symbol`"):
        client.write("new", pa.table({"a": [1]}))
    with pytest.raises(UsageError, match="expected a time with its zone, got '2026'"):
        client.read("historical/minute", "2026")


def test_a_corrupt_file_is_told_and_other_keys_are_served(server: Server, client: Client, frame: Frame) -> None:
    for symbol in ("AAPL", "MSFT"):
        client.write("t", frame(100, symbol))
        server.desk.store.flush("t")
    file = next(iter(server.desk.store.table("t").state().files.values()))
    path = server.desk.store.table("t").folder / file.path
    data = bytearray(path.read_bytes())
    data[len(data) // 2 - 200 : len(data) // 2] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(CorruptFile) as met:
        client.read("t/AAPL")
    assert met.value.table == "t"
    assert client.read("t/MSFT").num_rows == 100
    with pytest.warns(ps.errors.PenstockWarning):
        assert client.read("t", on_corrupt="skip").num_rows == 100


def test_requests_of_other_clients(server: Server, client: Client, frame: Frame) -> None:
    raw = flight(server)
    writer, _ = raw.do_put(fl.FlightDescriptor.for_path("historical", "minute"), frame(5).schema)
    writer.write_table(frame(5))
    writer.close()
    assert raw.do_get(fl.Ticket(b"historical/minute/A")).read_all().num_rows == 5
    (info,) = raw.list_flights()
    assert info.descriptor.path == [b"historical", b"minute"]
    assert raw.do_get(info.endpoints[0].ticket).read_all().num_rows == 5
    assert [i.descriptor.path[-1] for i in raw.list_flights(b"historical/minute")] == [b"A"]
    assert raw.get_schema(fl.FlightDescriptor.for_path("historical", "minute")).schema == client.schema(
        "historical/minute"
    )
    assert {action.type for action in raw.list_actions()} >= {"stats", "ls", "evict", "drop", "query"}
    (body,) = raw.do_action(("query", b'{"sql": "select 1 as one"}'))
    assert pa.ipc.open_stream(body.body).read_all().to_pydict() == {"one": [1]}
    assert raw.do_get(fl.Ticket(b'{"path": "historical/minute/A", "columns": ["x"]}')).read_all().num_columns == 1


def test_limits_of_requests_and_messages(tmp_path: Path, frame: Frame) -> None:
    with serve(tmp_path / "hub", memory="1m", port=0, keep=None, max_message="10k") as server:
        raw = flight(server)
        with pytest.raises(fl.FlightError, match="expected a request of at most 65536 bytes, got 100000 bytes"):
            raw.do_get(fl.Ticket(b"x" * 100_000)).read_all()
        with pytest.raises(fl.FlightError, match="expected a request of at most 65536 bytes"):
            list(raw.do_action(("ls", b'{"prefix": "' + b"x" * 100_000 + b'"}')))
        with connect(server.url) as client:
            with pytest.raises(
                UsageError, match="expected record batches of at most 10240 bytes, got .* - in a put to 't'; send"
            ):
                client.write("t", frame(1000))
            assert client.write("t", frame(100)) == 100


# -- who may


def test_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    key = tokens.add("me")
    with serve(tmp_path / "hub", memory="1m", port=0, keep=None, tokens=tmp_path / "tokens.json") as server:
        with connect(server.url, token=key) as client:
            assert client.ls() == []
            for wrong, got in ((None, "none"), ("nonsense", "another"), ("", "none"), (key + "x", "another")):
                with connect(server.url, token=wrong) as other:
                    for act in (
                        other.ls,
                        other.stats,
                        lambda other=other: other.read("t"),
                        lambda other=other: other.sql("select 1"),
                    ):
                        with pytest.raises(
                            StoreError,
                            match=f"expected a token that the server knows, got {got} - at the store's server; give token=",
                        ):
                            act()
            monkeypatch.setenv("PENSTOCK_TOKEN", key)
            with connect(server.url) as named:
                assert named.ls() == []
            tokens.revoke("me")
            with pytest.raises(StoreError, match="expected a token that the server knows"):
                client.ls()
        with pytest.raises(fl.FlightUnauthenticatedError):
            list(flight(server).list_flights())


def test_tokens_that_cannot_be_read_let_nobody_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    key = tokens.add("me")
    with (
        serve(tmp_path / "hub", memory="1m", port=0, keep=None, tokens=tokens) as server,
        connect(server.url, token=key) as client,
    ):
        assert client.ls() == []
        (tmp_path / "tokens.json").write_text("{ torn")
        with pytest.raises(
            StoreError, match="the server cannot look at its tokens - at the store's server; see its log"
        ):
            client.ls()
    assert "tokens cannot be looked at: expected a file of tokens" in caplog.text


def test_others_than_loopback_need_tokens(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="expected tokens, to listen where others can reach it, got none for '0.0.0.0' - in serve"
    ):
        serve(tmp_path / "hub", memory="1m", port=0, host="0.0.0.0", keep=None)
    with serve(
        tmp_path / "hub", memory="1m", port=0, host="0.0.0.0", keep=None, tokens=lambda key: "x" if key == "k" else None
    ) as server:
        with connect(f"grpc://127.0.0.1:{server.port}", token="k") as client:
            assert client.ls() == []


def test_tls(tmp_path: Path, frame: Frame) -> None:
    authority = trustme.CA()
    mine = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    mine.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    mine.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    pair = (tmp_path / "cert.pem", tmp_path / "key.pem")
    with serve(tmp_path / "hub", memory="1m", port=0, keep=None, certificate=pair) as server:
        assert server.url.startswith("grpc+tls://")
        with connect(server.url, ca=tmp_path / "ca.pem") as client:
            client.write("t", frame(3))
            assert client.read("t/A").num_rows == 3
        with connect(server.url, patience=0) as stranger, pytest.raises(SourceError, match="no store's server answers"):
            stranger.ls()
        with connect(f"grpc://127.0.0.1:{server.port}", patience=0) as plain, pytest.raises(SourceError):
            plain.ls()
    with pytest.raises(UsageError, match="expected PEM files of a certificate and its key, got No such file"):
        serve(tmp_path / "hub", memory="1m", port=0, certificate=tmp_path / "none.pem")
    with pytest.raises(UsageError, match="expected a PEM file of certificates"):
        connect("grpc+tls://localhost", ca=tmp_path / "none.pem")


def test_a_port_that_is_taken(server: Server, tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=f"cannot listen on 127.0.0.1:{server.port}: address already in use; give another port"
    ):
        serve(tmp_path / "other", memory="1m", port=server.port)
    with pytest.raises(SourceError, match="cannot listen on 192.0.2.1"):
        serve(tmp_path / "other", memory="1m", port=0, host="192.0.2.1", tokens=lambda key: None)
    with pytest.raises(UsageError, match='expected a size, such as "512m" or "1g", got \'much\' - in memory'):
        serve(tmp_path / "other", memory="much")


# -- many at once


def test_threads_share_a_client_and_a_frame_is_read_once(server: Server, client: Client, frame: Frame) -> None:
    client.write("t", pa.concat_tables([frame(1000, symbol) for symbol in "ABCD"]))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: client.read(f"t/{'ABCD'[i % 4]}").num_rows, range(80)))
        written = list(pool.map(lambda i: client.write("u", frame(10, first=10 * i)), range(20)))
    assert set(found) == {1000}
    assert sum(written) == client.read("u/A").num_rows == 200
    assert client.stats()["frames"]["misses"] <= 8


def test_a_client_that_goes_gives_its_frame_back(tmp_path: Path, frame: Frame) -> None:
    with serve(tmp_path / "hub", memory="200m", port=0, keep=None) as server, connect(server.url) as client:
        rows = 1_000_000
        client.write("t", pa.table({"symbol": ["A"] * rows, "ts_event": NOON + np.arange(rows), "x": np.zeros(rows)}))
        reader = flight(server).do_get(fl.Ticket(b"t/A"))
        reader.read_chunk()
        assert client.stats()["memory"]["lent"] > 0
        reader.cancel()
        ended = threading.Event()
        for _ in range(500):
            if client.stats()["memory"]["lent"] == 0:
                break
            ended.wait(0.01)
        assert client.stats()["memory"]["lent"] == 0


def test_hot_rows_are_rolled_when_they_take_too_much(tmp_path: Path, frame: Frame) -> None:
    with serve(tmp_path / "hub", memory="1m", port=0, keep=3600.0) as server, connect(server.url) as client:
        for first in range(0, 20_000, 2000):
            client.write("t", frame(2000, first=first))
        assert client.stats(1)["store"]["hot_rows"] * 40 <= 1 << 17
        assert client.read("t/A", columns=["x"], start=NOON + 19_990 * 10**9).num_rows == 10


def test_a_mistake_of_ours_is_told_as_one(server: Server, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(prefix: str = "") -> list[str]:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(server.desk, "ls", broken)
    with pytest.raises(
        StoreError, match="the server failed: ZeroDivisionError: by zero - at the store's server; its log"
    ):
        client.ls()


def test_stop_twice_and_wait(tmp_path: Path) -> None:
    server = serve(tmp_path / "hub", memory="1m", port=0, keep=None)
    assert not server.wait(0)
    assert server.stop()
    assert server.stop()
    assert server.wait()
    assert repr(server).startswith("Server('grpc://127.0.0.1:")
    with connect(server.url, patience=0) as client, pytest.raises(PenstockError, match="no store's server answers"):
        client.ls()
