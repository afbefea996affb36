"""The source against real servers: a plant, and scripted ones that drop, lie, refuse and restart."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.sync.server import ServerConnection

import penstock as ps
from penstock.connect import WebSocket, attach
from penstock.errors import PenstockWarning, SourceError, UsageError
from penstock.hub import Hub
from penstock.records import BARS, QUOTES, TRADES
from penstock_tests.sockets import serving
from penstock_tests.waiting import PATIENCE_S, until

MS = 1_767_268_800_000
AM = {
    "ev": "AM",
    "sym": "A",
    "v": 300,
    "vw": 10.5,
    "o": 10,
    "h": 12.0,
    "l": 9.0,
    "c": 11.0,
    "z": 100,
    "s": MS,
    "e": MS + 60_000,
}
T = {"ev": "T", "sym": "A", "p": 10.5, "s": 3, "t": MS, "q": 7, "i": "52", "x": 4, "c": [12]}
Q = {"ev": "Q", "sym": "A", "bp": 1.5, "bs": 2, "ap": 1.6, "as": 4, "t": MS}


def status(kind: str, text: str = "", **facts: Any) -> str:
    return json.dumps([{"ev": "status", "status": kind, "message": text, **facts}])


class Script:
    """A market server: answers auth and subscribe, then lets `talk(connection, number)` say what comes."""

    def __init__(self, talk: Callable[[ServerConnection, int], None]) -> None:
        self.talk, self.heard, self.connections = talk, list[Any](), 0
        self.paths: list[str] = []

    def __call__(self, connection: ServerConnection) -> None:
        self.connections += 1
        assert connection.request is not None
        self.paths.append(connection.request.path)
        number = self.connections
        connection.send(status("connected"))
        for answer in (status("auth_success"), status("success", "subscribed to: AM.*")):
            self.heard.append(json.loads(connection.recv()))
            connection.send(answer)
        self.talk(connection, number)
        connection.close(1012)


class Running:
    """A source that runs in a thread."""

    def __init__(self, source: WebSocket, target: Any) -> None:
        self.source, self.stopping = source, threading.Event()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(target,), daemon=True)

    def _run(self, target: Any) -> None:
        try:
            self.source.stream(target, stopping=self.stopping)
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Running:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error


def once(*messages: Any) -> Callable[[ServerConnection, int], None]:
    """Says this, and then closes properly."""

    def talk(connection: ServerConnection, number: int) -> None:
        for message in messages:
            connection.send(message if isinstance(message, str | bytes) else json.dumps(message))
        connection.close(1000)

    return talk


def test_events_become_rows_of_their_streams(hub: Hub) -> None:
    streams, before = {name: hub.streams.get(name) for name in ("bars", "trades", "quotes")}, time.time_ns()
    script = Script(once([AM, T], [Q]))
    with serving(script) as url:
        source = WebSocket(url + "/stocks", subscribe=["AM.*", "T.A, Q.A"], token="k", reconnect=False)
        found = source.stream(streams)
    assert [s.schema for s in streams.values()] == [BARS, TRADES, QUOTES]
    assert script.heard == [{"action": "auth", "params": "k"}, {"action": "subscribe", "params": "AM.*,T.A,Q.A"}]
    assert script.paths == ["/stocks"]
    (bar,), (trade,), (quote,) = (s.read().to_pylist() for s in streams.values())
    ns = MS * 1_000_000
    assert bar == {
        "symbol": "A", "ts_event": ns, "ts_close": ns + 60_000_000_000, "open": 10.0, "high": 12.0, "low": 9.0,
        "close": 11.0, "volume": 300, "amount": 3150.0, "vwap": 10.5, "trade_count": 3, "revision": 0,
    }  # fmt: skip
    assert (trade["price"], trade["size"], trade["ts_event"], trade["sequence"]) == (10.5, 3, ns, 7)
    assert (quote["bid_px"], quote["bid_sz"], quote["ask_px"], quote["ask_sz"]) == (1.5, 2, 1.6, 4)
    assert before <= trade["ts_recv"] <= time.time_ns()
    assert (found.rows, found.connections, found.skipped, found.gaps) == (3, 1, 0, 0)


def test_columns_that_the_stream_has_beyond_the_schema_are_filled(hub: Hub) -> None:
    import pyarrow as pa

    wide = TRADES.append(pa.field("trade_id", pa.string())).append(pa.field("conditions", pa.list_(pa.int64())))
    stream = hub.streams.get("t", schema=wide)
    with serving(Script(once([T]))) as url:
        WebSocket(url, subscribe="T.*", reconnect=False).stream(stream)
    assert stream.read().to_pylist()[0]["trade_id"] == "52"
    assert stream.read().to_pylist()[0]["conditions"] == [12]


def test_documents(hub: Hub) -> None:
    stream = hub.streams.get("all")
    with serving(Script(once([AM, T, {"ev": "LULD", "T": "A"}]))) as url:
        attach(WebSocket(url, subscribe="*", documents=True, reconnect=False), stream)
    assert [json.loads(row["document"]) for row in stream.read().to_pylist()] == [AM, T, {"ev": "LULD", "T": "A"}]


def test_several_kinds_do_not_go_into_one_stream(hub: Hub) -> None:
    with pytest.raises(
        UsageError, match='bars and trades do not go into one stream - in WebSocket.stream; give {"bars"'
    ):
        WebSocket("ws://localhost:1", subscribe="AM.*,T.*").stream(hub.streams.get("one"))
    with pytest.raises(UsageError, match="expected a stream"):
        WebSocket("ws://localhost:1", subscribe="AM.*").stream({})


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({**T, "p": "N/A"}, "expected float64 for `price`, got string 'N/A' - at "),
        ({**T, "t": None}, "expected a time, got None - at "),
        ({**T, "s": 2.5}, "expected int64 for `size`, got"),
        ({"ev": "LULD", "T": "A"}, "expected a message of AM, A, "),
        (AM, "got 'AM' beside trades"),
        ("[1, 2", "expected messages, got a frame that is no JSON"),
        ("[1, 2]", "got a frame that is no array of objects"),
    ],
    ids=["price", "time", "size", "unknown", "other", "json", "array"],
)
def test_messages_that_do_not_fit(hub: Hub, wrong: Any, message: str) -> None:
    def frames() -> list[Any]:
        return [[T], wrong if isinstance(wrong, str) else [T, wrong, T], [T]]

    stream = hub.streams.get("t", schema=TRADES)
    with serving(Script(once(*frames()))) as url:
        with pytest.raises(SourceError) as caught:
            WebSocket(url, subscribe="T.*", reconnect=False).stream(stream)
        assert message in str(caught.value)
        before = len(stream)
        assert before in (1, 2)  # what stands before it
        errors = hub.streams.get("t.errors")
        source = WebSocket(url, subscribe="T.*", reconnect=False, on_bad="skip", errors=errors)
        assert source.stream(stream).skipped == 1
        assert len(stream) - before == (2 if isinstance(wrong, str) else 4)
    (row,) = errors.read().to_pylist()
    assert json.loads(row["document"])["source"] == url


def test_a_lost_connection_is_made_again_and_the_gap_is_told(hub: Hub) -> None:
    def talk(connection: ServerConnection, number: int) -> None:
        connection.send(json.dumps([{**T, "q": number}]))
        if number == 2:
            connection.socket.shutdown(2)
        elif number > 3:
            connection.close(1000)

    stream, errors, told = hub.streams.get("t"), hub.streams.get("t.errors"), list[dict[str, Any]]()
    with serving(Script(talk)) as url:
        source = WebSocket(url, subscribe="T.*", on_status=told.append, errors=errors)
        with Running(source, stream):
            until(lambda: len(stream) >= 4)
    assert stream.read().column("sequence").to_pylist()[:4] == [1, 2, 3, 4]
    assert source.statistics().gaps >= 3
    assert source.statistics().gap_ns > 0
    assert {t["status"] for t in told} == {"gap"}
    assert "nothing came from 20" in json.loads(errors.read().to_pylist()[0]["document"])["gap"]


def test_a_gap_is_a_warning_if_nobody_asks(hub: Hub) -> None:
    def talk(connection: ServerConnection, number: int) -> None:
        connection.send(json.dumps([T]))
        if number > 1:
            connection.close(1000)

    stream = hub.streams.get("t")
    with serving(Script(talk)) as url, pytest.warns(PenstockWarning, match="gap: nothing came from"):
        with Running(WebSocket(url, subscribe="T.*"), stream):
            until(lambda: len(stream) >= 2)


def test_a_restart_of_the_server(hub: Hub) -> None:
    stream = hub.streams.get("t")

    def talk(connection: ServerConnection, number: int) -> None:
        connection.send(json.dumps([T]))
        connection.recv()

    with serving(Script(talk)) as url:
        port = int(url.rpartition(":")[2])
        running = Running(WebSocket(url, subscribe="T.*", on_status=lambda _: None), stream)
        running.__enter__()
        until(lambda: len(stream) == 1)
    with serving(Script(talk), port):
        until(lambda: len(stream) == 2)
        running.__exit__()


def test_no_server_and_a_server_that_stays_away(hub: Hub) -> None:
    stream = hub.streams.get("t")
    with serving(Script(once([T]))) as url:
        pass
    with pytest.raises(SourceError, match="no server answers at ws://127.0.0.1:"):
        WebSocket(url, subscribe="T.*").stream(stream)
    with serving(lambda c: c.socket.shutdown(2)) as url, pytest.raises(SourceError, match="was lost: "):
        WebSocket(url, subscribe="T.*", patience=0.05).stream(stream)
    with serving(lambda c: c.close(1011)) as url, pytest.raises(SourceError, match="was lost: .*1011"):
        WebSocket(url, subscribe="T.*", reconnect=False).stream(stream)


@pytest.mark.parametrize(
    "answers, message",
    [
        ([status("auth_failed", "wrong")], "the server refuses the key: wrong - at ws://127.0.0.1"),
        ([status("max_connections", "one is enough")], "refuses the connection: one is enough"),
        ([status("auth_success"), status("error", "not authorized")], "refuses the subscription: not authorized"),
    ],
    ids=["key", "connections", "channel"],
)
def test_what_the_server_refuses(hub: Hub, answers: list[str], message: str) -> None:
    def refuse(connection: ServerConnection) -> None:
        for answer in answers:
            connection.recv()
            connection.send(answer)
        connection.close(1008)

    with serving(refuse) as url, pytest.raises(SourceError) as caught:
        WebSocket(url + "/x?key=hidden", subscribe="T.*", token="secret").stream(hub.streams.get("t"))
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_what_the_server_tells(hub: Hub) -> None:
    told: list[dict[str, Any]] = []
    talk = once(status("slow_consumer", "too slow"), status("force_disconnect", "go"))
    with serving(Script(talk)) as url:
        WebSocket(url, subscribe="T.*", reconnect=False, on_status=told.append).stream(hub.streams.get("t"))
        assert [t["status"] for t in told] == ["slow_consumer", "force_disconnect"]
    with (
        serving(Script(once(status("slow_consumer", "too slow")))) as url,
        pytest.warns(PenstockWarning, match="slow_consumer: too slow - at ws://127"),
    ):
        WebSocket(url, subscribe="T.*", reconnect=False).stream(hub.streams.get("t"))


def test_a_message_over_the_limit(hub: Hub) -> None:
    with serving(Script(once([T] * 1000))) as url, pytest.raises(SourceError, match="at most 5000 bytes, got a larger"):
        WebSocket(url, subscribe="T.*", max_message=5000).stream(hub.streams.get("t"))


def test_a_silent_server_is_left(hub: Hub) -> None:
    def talk(connection: ServerConnection, number: int) -> None:
        connection.send(json.dumps([T]))
        with pytest.raises(Exception, match="."):
            connection.recv()

    stream = hub.streams.get("t")
    with serving(Script(talk)) as url:
        source = WebSocket(url, subscribe="T.*", silence=0.2, on_status=lambda _: None)
        with Running(source, stream):
            until(lambda: len(stream) >= 2)


def test_plain_json(hub: Hub) -> None:
    def handler(connection: ServerConnection) -> None:
        assert json.loads(connection.recv()) == {"op": "subscribe"}
        assert connection.request is not None
        assert connection.request.headers["X-Key"] == "1"
        connection.send('{"type": "hello"}')
        connection.send(
            json.dumps({"data": {"items": [{"s": "A", "px": 1.5, "when": MS}, {"s": "B", "px": 2.5, "when": MS + 1}]}})
        )
        connection.send(json.dumps({"data": {"items": {"s": "C", "px": 3, "when": MS + 2, "more": 1}}}))
        connection.close()

    import pyarrow as pa

    schema = pa.schema(
        [("symbol", pa.string()), pa.field("ts_event", pa.int64(), nullable=False), ("price", pa.float64())]
    )
    options: dict[str, Any] = {
        "dialect": "json", "hello": [{"op": "subscribe"}], "path": "data.items", "headers": {"X-Key": "1"}, "reconnect": False,
    }  # fmt: skip
    with serving(handler) as url:
        typed, plain = hub.streams.get("typed", schema=schema), hub.streams.get("plain")
        WebSocket(url, rename={"s": "symbol", "px": "price"}, time="when", unit="ms", **options).stream(typed)
        WebSocket(url, **options).stream(plain)
    assert [tuple(row.values()) for row in typed.read().to_pylist()] == [
        (symbol, (MS + n) * 1_000_000, price) for n, (symbol, price) in enumerate([("A", 1.5), ("B", 2.5), ("C", 3.0)])
    ]
    assert json.loads(plain.read().to_pylist()[2]["document"])["more"] == 1


def alpaca(*data: list[dict[str, Any]], error: dict[str, Any] | None = None, heard: list[Any]) -> Any:
    pack = msgspec.msgpack.encode

    def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        assert connection.request.headers["Content-Type"] == "application/msgpack"
        connection.send(pack([{"T": "success", "msg": "connected"}]))
        heard.append(msgspec.msgpack.decode(connection.recv()))
        if error is not None:
            connection.send(pack([{"T": "error", **error}]))
            connection.close()
            return
        connection.send(pack([{"T": "success", "msg": "authenticated"}]))
        heard.append(msgspec.msgpack.decode(connection.recv()))
        connection.send(pack([{"T": "subscription", "trades": ["A"]}]))
        for found in data:
            connection.send(pack(found))
        connection.close()

    return handler


def test_alpaca(hub: Hub) -> None:
    ns = MS * 1_000_000 + 123_456_789
    when = msgspec.msgpack.Ext(-1, ((ns % 10**9 << 34) | ns // 10**9).to_bytes(8, "big"))
    whole = msgspec.msgpack.Ext(-1, (MS // 1000).to_bytes(4, "big"))
    long = msgspec.msgpack.Ext(-1, (ns % 10**9).to_bytes(4, "big") + (ns // 10**9).to_bytes(8, "big"))
    bar = {"T": "b", "S": "A", "o": 1.0, "h": 2.0, "l": 0.5, "c": 1.5, "v": 10, "n": 3, "vw": 1.25, "t": whole}
    heard: list[Any] = []
    data = [
        [{"T": "t", "S": "A", "p": 1.5, "s": 2, "i": 9, "x": "V", "c": ["@"], "z": "C", "t": when}, bar],
        [{**bar, "T": "u", "v": 12}, {"T": "q", "S": "A", "bp": 1.0, "bs": 1, "ap": 2.0, "as": 2, "t": long}],
    ]
    streams = {name: hub.streams.get(name) for name in ("bars", "trades", "quotes")}
    with serving(alpaca(*data, heard=heard)) as url:
        channels = {"trades": ["A"], "bars": "*", "updatedBars": ["*"], "quotes": ["A"]}
        WebSocket(url, dialect="alpaca", token=("k", "s"), subscribe=channels, reconnect=False).stream(streams)
        documents = hub.streams.get("documents")
        WebSocket(url, dialect="alpaca", token="k:s", subscribe="T.A,bars", documents=True, reconnect=False).stream(
            documents
        )
    assert heard[0] == {"action": "auth", "key": "k", "secret": "s"}
    assert heard[1] == {"action": "subscribe", "trades": ["A"], "bars": ["*"], "updatedBars": ["*"], "quotes": ["A"]}
    assert heard[3] == {"action": "subscribe", "trades": ["A"], "bars": ["*"]}
    assert streams["trades"].read().to_pylist()[0]["ts_event"] == ns
    assert streams["quotes"].read().to_pylist()[0]["ts_event"] == ns
    first, second = streams["bars"].read().to_pylist()
    assert (first["volume"], first["revision"], first["amount"], first["trade_count"]) == (10, 0, 12.5, 3)
    assert (second["volume"], second["revision"]) == (12, 1)
    assert first["ts_close"] - first["ts_event"] == 60_000_000_000
    assert json.loads(documents.read().to_pylist()[0]["document"])["t"] == "2026-01-01T12:00:00.123456789Z"


@pytest.mark.parametrize(
    "code, text, message",
    [(402, "auth failed", "refuses the key: auth failed (402)"), (406, "limit", "refuses the connection: limit (406)")],
)
def test_alpaca_refuses(hub: Hub, code: int, text: str, message: str) -> None:
    with serving(alpaca(error={"code": code, "msg": text}, heard=[])) as url, pytest.raises(SourceError) as caught:
        WebSocket(url, dialect="alpaca", token="k:s", subscribe="bars.*").stream(hub.streams.get("b"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"url": "http://x"}, "expected a URL such as wss://"),
        ({"dialect": "fix"}, "expected one of 'massive', 'polygon', 'alpaca', 'json', got 'fix'"),
        ({"subscribe": ()}, "expected channels such as"),
        ({"subscribe": {"bars": ["*"]}}, "got a dict"),
        ({"dialect": "alpaca", "subscribe": "candles.*"}, "expected a channel of trades, quotes"),
        ({"dialect": "json"}, "subscribe= has no meaning"),
        ({"hello": ["x"]}, "hello= and path= are for dialect='json'"),
        ({"time": "t"}, "rename= and time= are for dialect='json'"),
        ({"on_bad": "error"}, "expected 'stop' or 'skip'"),
        ({"max_rows": 0}, "expected a number of at least 1, got 0 - in max_rows"),
    ],
    ids=["url", "dialect", "none", "dict", "channel", "json", "hello", "time", "on_bad", "max_rows"],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        WebSocket(**{"url": "ws://x", "subscribe": "AM.*", **options})
    assert message in str(caught.value)


def test_keys_of_the_environment_go_to_the_vendor_only(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASSIVE_API_KEY", "vendors")
    monkeypatch.delenv("PENSTOCK_TOKEN", raising=False)

    def key(url: str, **options: Any) -> str:
        source = WebSocket(url, subscribe="AM.*", **options)
        assert "vendors" not in repr(source)
        return str(json.loads(source._dialect.begin()[0])["params"])

    assert key("wss://socket.massive.com/stocks") == "vendors"
    assert key("wss://socket.polygon.io/stocks", dialect="polygon") == "vendors"
    assert key("ws://127.0.0.1:5000") == "vendors"
    assert key("wss://massive.com.example/stocks") == ""
    assert key("ws://socket.massive.com/stocks") == ""  # in clear text
    monkeypatch.setenv("PENSTOCK_TOKEN", "ours")
    assert key("wss://plant.example") == "ours"
    monkeypatch.setenv("POLYGON_API_KEY", "second")
    assert key("wss://socket.polygon.io/stocks", dialect="polygon") == "second"
    assert key("wss://socket.polygon.io/stocks", token="given") == "given"


def row(number: int) -> dict[str, Any]:
    return {
        "symbol": "A",
        "ts_event": MS * 1_000_000 + number * 1_000_000,
        "price": 1.0 + number,
        "size": 1,
        "sequence": number,
    }


def test_a_plant_is_followed_exactly_once(hub: Hub, tmp_path: Path) -> None:
    trades, copy = hub.streams.get("trades", schema=TRADES), None
    trades.append([row(n) for n in range(5)])  # before we came
    with ps.open(tmp_path / "copy") as other:
        copy = other.streams.get("t")
        with ps.plant.serve(hub, "trades", port=0) as first:
            port = first.port
            source = WebSocket(first.url, subscribe="T.*", token="k", on_status=lambda _: None)
            with Running(source, copy):
                until(lambda: "websocket" in copy.attributes)
                trades.append([row(n) for n in range(5, 10)])
                until(lambda: len(copy) == 5)
            trades.append([row(n) for n in range(10, 15)])  # nobody listens
        with ps.plant.serve(hub, "trades", port=port) as second, Running(source, copy):  # a new run, as after a crash
            until(lambda: len(copy) == 10)
            trades.append([row(n) for n in range(15, 20)])
            until(lambda: len(copy) == 15)
            second.stop()  # in the same run
            trades.append([row(n) for n in range(20, 25)])
            with ps.plant.serve(hub, "trades", port=port):
                until(lambda: len(copy) == 20)
                trades.append([row(25)])
                until(lambda: len(copy) == 21)
        assert copy.read().column("sequence").to_pylist() == list(range(5, 26))
        assert source.statistics().gaps == 0
        assert copy.schema == TRADES


def test_a_plant_of_documents_into_several_streams(hub: Hub, tmp_path: Path) -> None:
    mixed = hub.streams.get("mixed")
    with ps.open(tmp_path / "copy") as other, ps.plant.serve(hub, "mixed", port=0) as plant:
        targets = {name: other.streams.get(name) for name in ("bars", "trades")}
        source = WebSocket(plant.url, subscribe="AM.*,T.*")
        for count in (1, 2):
            with Running(source, targets):
                until(lambda: "websocket" in targets["trades"].attributes)
                mixed.append([{**T, "seq": 1}, AM, {"ev": "X"}] * 3)
                until(lambda n=count: [len(t) for t in targets.values()] == [3 * n, 3 * n])
