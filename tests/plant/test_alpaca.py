"""Alpaca's dialect: what is said, by hand; and what Alpaca's own client makes of it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.sync.client import ClientConnection, connect

import penstock as ps
from penstock.connect import WebSocket
from penstock.hub import Hub
from penstock.plant import Limits, Service, Tokens, serve
from penstock.plant.alpaca import AlpacaSession
from penstock.plant.alpaca.words import ERRORS, packed_time
from penstock.plant.session import Close, Reply
from penstock_tests.talks import Inbox, subscribed
from penstock_tests.waiting import PATIENCE_S

# alpaca-py still uses the library's old client, which warns of its end, and a function that Python 3.14 warns of.
OLD = pytest.mark.filterwarnings(
    "ignore:websockets:DeprecationWarning",
    "ignore:.*legacy:DeprecationWarning",
    "ignore:.*iscoroutinefunction:DeprecationWarning",
)


class Talk:
    """A connection, message by message."""

    def __init__(self, connection: ClientConnection, packed: bool) -> None:
        self.connection, self.packed = connection, packed

    def say(self, **words: Any) -> None:
        self.connection.send(msgspec.msgpack.encode(words) if self.packed else json.dumps(words))

    def hear(self) -> list[dict[str, Any]]:
        data = self.connection.recv(PATIENCE_S)
        assert isinstance(data, bytes) == self.packed
        found: list[dict[str, Any]] = msgspec.msgpack.decode(data) if isinstance(data, bytes) else json.loads(data)
        return found

    def ask(self, **words: Any) -> list[dict[str, Any]]:
        self.say(**words)
        return self.hear()


@pytest.fixture(params=[True, False], ids=["msgpack", "json"])
def talk(service: Service, request: pytest.FixtureRequest) -> Iterator[Talk]:
    with open_talk(service.url, request.param) as found:
        yield found


class open_talk:
    def __init__(self, url: str, packed: bool = True, path: str = "/v2/iex") -> None:
        headers = {"Content-Type": "application/msgpack"} if packed else {}
        self.context = connect(url + path, additional_headers=headers, proxy=None, close_timeout=1)
        self.packed = packed

    def __enter__(self) -> Talk:
        return Talk(self.context.__enter__(), self.packed)

    def __exit__(self, *error: Any) -> None:
        self.context.__exit__(*error)


def enter(talk: Talk, key: str = "k", secret: str = "s") -> Talk:
    assert talk.hear() == [{"T": "success", "msg": "connected"}]
    assert talk.ask(action="auth", key=key, secret=secret) == [{"T": "success", "msg": "authenticated"}]
    return talk


def lists(**channels: list[str]) -> dict[str, Any]:
    names = ["trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds", "news", "orderbooks"]
    names += ["corrections", "cancelErrors"]
    return {"T": "subscription", **{name: channels.get(name, []) for name in names}}


def test_the_conversation(talk: Talk, bars: Any, trades: Any, kit: SimpleNamespace) -> None:
    enter(talk)
    assert talk.ask(action="subscribe", trades=["A"], bars=["*"]) == [lists(trades=["A"], bars=["*"])]
    assert talk.ask(action="subscribe", trades=["B"]) == [lists(trades=["A", "B"], bars=["*"])]
    assert talk.ask(action="unsubscribe", trades=["A"]) == [lists(trades=["B"], bars=["*"])]
    trades.append([kit.trade("A", 1), kit.trade("B", 2, sequence=9)])
    (trade,) = talk.hear()
    when = trade.pop("t")
    assert trade == {"T": "t", "S": "B", "i": 9, "p": 12.0, "s": 3}
    assert (when.timestamp() if talk.packed else when) in (kit.START / 1e9, "2026-01-01T12:00:00.000000002Z")
    bars.append([kit.bar("A", 1), kit.bar("A", 1, revision=1, volume=7)])
    (bar,) = talk.hear()  # the revised one is for updatedBars
    assert (bar["T"], bar["S"], bar["o"], bar["c"], bar["v"], bar["n"], bar["vw"]) == (
        "b",
        "A",
        11.0,
        12.0,
        101,
        10,
        10.5,
    )


def test_revised_bars_are_updated_bars(talk: Talk, bars: Any, kit: SimpleNamespace) -> None:
    enter(talk)
    talk.ask(action="subscribe", bars=["A"], updatedBars=["*"])
    empty = {"open": None, "high": None, "low": None, "close": None, "vwap": None}
    bars.append(
        [
            kit.bar("A", 1),
            kit.bar("B", 1),
            kit.bar("B", 1, revision=2),
            kit.bar("A", 1, revision=1),
            kit.bar("A", 3, **empty),
        ]
    )
    assert [(m["T"], m["S"], m.get("r")) for m in talk.hear()] == [("b", "A", None), ("u", "B", 2), ("u", "A", 1)]
    talk.ask(action="unsubscribe", bars=["A"])
    bars.append([kit.bar("A", 2), kit.bar("A", 2, revision=3)])
    assert [(m["T"], m["S"], m.get("r")) for m in talk.hear()] == [("u", "A", 3)]


def test_errors_have_their_codes(talk: Talk) -> None:
    enter(talk)
    said = [
        ({"action": "auth", "key": "k", "secret": "s"}, 403, "already authenticated"),
        ({"action": "dance"}, 400, "invalid syntax"),
        ({"action": "subscribe", "candles": ["A"]}, 400, "invalid syntax: no channel 'candles'"),
        ({"action": "subscribe", "bars": "A"}, 400, "invalid syntax: bars is no list of symbols"),
        ({"action": "subscribe", "bars": ["A,B"]}, 400, "invalid syntax: bars has a symbol that can be none"),
    ]
    for words, code, text in said:
        assert talk.ask(**words) == [{"T": "error", "code": code, "msg": text}]
    assert talk.ask(action="subscribe", quotes=["A"], trades=["A"]) == [
        {"T": "error", "code": 410, "msg": "invalid subscribe action for this feed: there are no quotes"},
        lists(trades=["A"]),
    ]
    talk.connection.send("[1" if not talk.packed else b"\xc1")
    assert talk.hear()[0]["code"] == 400


@pytest.mark.parametrize("packed", [True, False])
def test_who_has_no_key_gets_nothing(service: Service, packed: bool, bars: Any, kit: SimpleNamespace) -> None:
    with open_talk(service.url, packed) as talk:
        talk.hear()
        bars.append(kit.bar("A", 1))
        assert talk.ask(action="subscribe", bars=["*"]) == [{"T": "error", "code": 401, "msg": "not authenticated"}]
        with pytest.raises(Exception, match="1008"):
            talk.hear()


def test_key_and_secret_are_a_token(hub: Hub, bars: Any, tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    mine, other = tokens.add("me"), tokens.add("other")
    with serve(hub, port=0, tokens=tokens) as service:
        with open_talk(service.url) as talk:
            enter(talk, "me", mine)
        for key, secret in (("me", other), ("me", "x"), ("", mine), ("you", mine), (None, None), (1, mine)):
            with open_talk(service.url) as talk:
                talk.hear()
                assert talk.ask(action="auth", key=key, secret=secret) == [
                    {"T": "error", "code": 402, "msg": "auth failed"}
                ]
                with pytest.raises(Exception, match="1008"):
                    talk.hear()


def test_limits(hub: Hub, bars: Any) -> None:
    limits = Limits(subscriptions=3, connections_per_token=1)
    with serve(hub, port=0, limits=limits) as service, open_talk(service.url) as talk:
        enter(talk)
        talk.ask(action="subscribe", bars=["A", "B", "C"])
        assert talk.ask(action="subscribe", bars=["D"]) == [
            {"T": "error", "code": 405, "msg": "symbol limit exceeded"},
            lists(bars=["A", "B", "C"]),
        ]
        with open_talk(service.url) as second:
            second.hear()
            (found,) = second.ask(action="auth", key="k", secret="s")
            assert (found["code"], found["msg"]) == (406, "connection limit exceeded")
    with serve(hub, port=0, limits=Limits(auth_seconds=2)) as service, open_talk(service.url) as late:
        late.hear()
        assert late.hear() == [{"T": "error", "code": 404, "msg": "auth timeout"}]


def test_fragmented_frames(service: Service) -> None:
    with open_talk(service.url) as talk:
        enter(talk)
        data = msgspec.msgpack.encode({"action": "subscribe", "bars": [f"S{n}" for n in range(5000)]})
        talk.connection.send(data[at : at + 4096] for at in range(0, len(data), 4096))
        assert len(talk.hear()[0]["bars"]) == 5000


def test_a_slow_client_is_told_in_its_own_words(hub: Hub, trades: Any, kit: SimpleNamespace) -> None:
    from penstock.plant.alpaca import AlpacaSubscriber
    from penstock.plant.plant import Plant

    plant = Plant(hub, "trades", limits=Limits(outbox_messages=10))
    wire = kit.MemoryWire()
    client = plant.attach(wire, make=lambda **options: AlpacaSubscriber(packed=False, **options))
    for words in ({"action": "auth", "key": "", "secret": ""}, {"action": "subscribe", "trades": ["*"]}):
        plant.received(client, json.dumps(words))
    wire.take()
    wire.is_stalled, wire.unread = True, 1 << 20
    for number in range(20):
        trades.append(kit.trade("A", number))
        kit.run(plant)
    (found,) = wire.take()[-1]
    assert (found["T"], found["code"]) == ("error", 407)
    assert "slow client: did not keep up and is cut off: " in found["msg"]
    assert wire.closed is not None


@pytest.mark.parametrize("policy", ["conflate", "drop_oldest", "catch_up"])
def test_policies(hub: Hub, trades: Any, kit: SimpleNamespace, policy: str) -> None:
    from penstock.plant.alpaca import AlpacaSubscriber
    from penstock.plant.plant import Plant

    plant = Plant(hub, "trades", limits=Limits(outbox_messages=10), policy=policy)
    wire = kit.MemoryWire()
    client = plant.attach(wire, make=lambda **options: AlpacaSubscriber(packed=False, **options))
    for words in ({"action": "auth", "key": "", "secret": ""}, {"action": "subscribe", "trades": ["*"]}):
        plant.received(client, json.dumps(words))
    wire.take()
    wire.is_stalled, wire.unread = True, 1 << 20
    for number in range(40):
        trades.append(kit.trade("AB"[number % 2], number))
        kit.run(plant)
    wire.is_stalled, wire.unread = False, 0
    client.outbox.flush()
    kit.run(plant)
    said = [message for frame in wire.take() for message in frame]
    got = [message["p"] for message in said if message["T"] == "t"]
    if policy == "catch_up":
        assert got == [10.0 + number for number in range(40)]
    elif policy == "conflate":
        assert got[-2:] == [48.0, 49.0]
        assert [m["code"] for m in said if m["T"] == "error"] == [407]
    else:
        assert got[-1] == 49.0
        assert len(got) == 10


def test_documents_and_daily_bars(hub: Hub, kit: SimpleNamespace) -> None:
    daily = hub.streams.get("daily", schema=ps.records.BARS, attributes={"event": "D"})
    mixed = hub.streams.get("mixed")
    with serve(hub, port=0) as service, open_talk(service.url, False) as talk:
        enter(talk)
        (answer,) = talk.ask(action="subscribe", trades=["A"], dailyBars=["*"], lulds=["*"], news=["*"])
        # Whoever has the trades of a symbol is told of what becomes of them.
        assert (answer["corrections"], answer["cancelErrors"]) == (["A"], ["A"])
        daily.append(kit.bar("A", 0, revision=1))
        assert talk.hear()[0]["T"] == "d"
        mixed.append([{"ev": "LULD", "T": "A", "h": 2.0}, {"ev": "TC", "sym": "A", "oi": 1}, {"ev": "TC", "sym": "B"}])
        assert talk.hear() == [{"T": "l", "S": "A", "h": 2.0}, {"T": "c", "S": "A", "oi": 1}]


def test_documents_of_the_markets_other_protocol(hub: Hub, kit: SimpleNamespace) -> None:
    mixed = hub.streams.get("mixed")
    ms = kit.START // 1_000_000
    with serve(hub, port=0) as service, open_talk(service.url, False) as talk:
        enter(talk)
        talk.ask(action="subscribe", trades=["A"], quotes=["A"], bars=["A"], updatedBars=["A"])
        bar = {
            "ev": "AM",
            "sym": "A",
            "o": 1.0,
            "h": 2.0,
            "l": 0.5,
            "c": 1.5,
            "v": 30,
            "z": 10,
            "s": ms,
            "e": ms + 60_000,
        }
        mixed.append(
            [
                {"ev": "T", "sym": "A", "p": 1.5, "s": 2, "t": ms, "i": "52", "x": 4, "c": [12, 37], "z": 3},
                {"ev": "Q", "sym": "A", "bp": 1.0, "bs": 1, "ap": 2.0, "as": 2, "c": 1, "ax": 4, "t": ms},
                bar,
                {**bar, "revision": 1},
            ]
        )
        trade, quote, first, second = talk.hear()
    when = "2026-01-01T12:00:00.000000000Z"
    assert trade == {"T": "t", "S": "A", "p": 1.5, "s": 2, "t": when, "i": 52, "x": "4", "c": ["12", "37"], "z": "3"}
    assert (quote["T"], quote["c"], quote["ax"], quote["t"]) == ("q", ["1"], "4", when)
    assert (first["T"], first["n"], first["vw"], first["t"], first["c"]) == ("b", 3, None, when, 1.5)
    assert second["T"] == "u"


def test_the_plants_own_source_reads_it(hub: Hub, tmp_path: Path, bars: Any, trades: Any, kit: SimpleNamespace) -> None:
    wide = ps.records.TRADES.append(pa.field("trade_id", pa.int64()))
    with ps.open(tmp_path / "copy") as other, serve(hub, port=0) as service:
        targets = {"bars": other.streams.get("b"), "trades": other.streams.get("t", schema=wide)}
        channels = {"trades": ["*"], "bars": ["*"], "updatedBars": ["*"]}
        source = WebSocket(service.url + "/v2/sip", dialect="alpaca", token="k:s", subscribe=channels)
        stopping = threading.Event()
        thread = threading.Thread(target=source.stream, args=(targets,), kwargs={"stopping": stopping})
        thread.start()
        kit.wait_until(lambda: service.call(lambda: any(s.held for s in service.server.plant.subscribers)))
        rows = [kit.bar("A", 0, amount=1050.0), kit.bar("A", 0, revision=3, amount=1050.0)]
        bars.append(rows)
        trades.append(kit.trade("A", 5, sequence=3))
        kit.wait_until(lambda: len(targets["bars"]) == 2 and len(targets["trades"]) == 1)
        stopping.set()
        thread.join(PATIENCE_S)
        assert targets["bars"].rows() == rows
        assert targets["trades"].rows()[0]["trade_id"] == 3
        assert targets["trades"].rows()[0]["ts_event"] == kit.START + 5


# ---- alpaca-py ---------------------------------------------------------------------------------------------------


class Stream(Inbox):
    """Alpaca's client, run as its users run it."""

    def __init__(self, port: int, key: str = "k", secret: str = "s") -> None:
        from alpaca.data.live import StockDataStream

        super().__init__()
        self.client = StockDataStream(key, secret, url_override=f"ws://127.0.0.1:{port}/v2/iex")
        self.client._reconnect_min_backoff = 0.05  # its users wait a second

    async def take(self, message: Any) -> None:
        self.add(message)

    async def __aenter__(self) -> Stream:
        self.task = asyncio.create_task(self.client._run_forever())  # what `run` does, in this loop
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        await self.client.stop_ws()
        if self.client._ws is not None:
            await self.client._ws.close()  # else it looks for the order to stop every five seconds only
        await asyncio.wait_for(self.task, PATIENCE_S)


@OLD
def test_typed_objects(hub: Hub, bars: Any, trades: Any, kit: SimpleNamespace) -> None:
    from alpaca.data.models import Bar, Quote, Trade

    quotes = hub.streams.get("quotes", schema=ps.records.QUOTES)

    async def main(service: Service) -> list[Any]:
        stream = Stream(service.port)
        stream.client.subscribe_trades(stream.take, "A")
        stream.client.subscribe_quotes(stream.take, "*")
        stream.client.subscribe_bars(stream.take, "*")
        stream.client.subscribe_updated_bars(stream.take, "*")
        async with stream:
            await subscribed(service, "T.A", "Q.*", "AM.*")
            trades.append([kit.trade("B", 0), kit.trade("A", 1, sequence=7)])
            await stream.until(lambda got: len(got) == 1)
            bars.append([kit.bar("A", 0), kit.bar("A", 0, revision=1, volume=7)])
            await stream.until(lambda got: len(got) == 3)
            quotes.append({"symbol": "A", "ts_event": kit.START, "bid_px": 1.5, "bid_sz": 2, "ask_px": None})
            await stream.until(lambda got: len(got) == 4)
        return stream.got

    with serve(hub, port=0) as service:
        trade, bar, updated, quote = asyncio.run(main(service))
    assert isinstance(trade, Trade)
    assert (trade.symbol, trade.price, trade.size, trade.id) == ("A", 11.0, 2, 7)
    assert int(trade.timestamp.timestamp()) == kit.START // 10**9
    assert isinstance(bar, Bar)
    assert isinstance(updated, Bar)
    assert (bar.open, bar.close, bar.volume, bar.trade_count, bar.vwap, updated.volume) == (
        10.0,
        11.0,
        100,
        10,
        10.5,
        7,
    )
    assert isinstance(quote, Quote)
    assert (quote.bid_price, quote.bid_size, quote.ask_price) == (1.5, 2, 0)


@OLD
def test_subscribe_and_unsubscribe_while_it_runs(service: Service, bars: Any, kit: SimpleNamespace) -> None:
    async def main() -> list[str]:
        stream = Stream(service.port)
        stream.client.subscribe_bars(stream.take, "A")
        async with stream:
            await subscribed(service, "AM.A")
            await asyncio.to_thread(stream.client.subscribe_bars, stream.take, "B")
            await subscribed(service, "AM.A", "AM.B")
            await asyncio.to_thread(stream.client.unsubscribe_bars, "A")
            await subscribed(service, "AM.B")
            bars.append([kit.bar("A", 0), kit.bar("B", 0)])
            await stream.until(bool)
        return [bar.symbol for bar in stream.got]

    assert asyncio.run(main()) == ["B"]


@OLD
def test_wrong_key_is_a_value_error(hub: Hub, bars: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    key = tokens.add("me")

    async def main(service: Service) -> None:
        wrong = Stream(service.port, "me", "wrong")
        with pytest.raises(ValueError, match="auth failed"):
            await wrong.client._start_ws()
        await wrong.client.close()
        right = Stream(service.port, "me", key)
        await right.client._start_ws()
        await right.client.close()

    with serve(hub, port=0, tokens=tokens) as service:
        asyncio.run(main(service))


@OLD
def test_restart_of_the_plant(hub: Hub, bars: Any, kit: SimpleNamespace) -> None:
    async def main(first: Service) -> list[str]:
        stream = Stream(first.port)
        stream.client.subscribe_bars(stream.take, "*")
        async with stream:
            await subscribed(first, "AM.*")
            bars.append(kit.bar("A", 1))
            await stream.until(bool)
            await asyncio.to_thread(first.stop)
            with serve(hub, port=first.port) as second:
                await subscribed(second, "AM.*")
                bars.append(kit.bar("B", 2))
                await stream.until(lambda got: len(got) == 2)
                await stream.stop()
        return [bar.symbol for bar in stream.got]

    with serve(hub, port=0) as first:
        assert asyncio.run(main(first)) == ["A", "B"]


# ---- anything ----------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200),
        st.dictionaries(
            st.sampled_from(["action", "key", "secret", "bars", "trades", "x"]),
            st.one_of(st.text(max_size=9), st.sampled_from(["auth", "subscribe"]), st.lists(st.text(max_size=5))),
        ).map(msgspec.msgpack.encode),
    ),
    shown=st.booleans(),
)
def test_whatever_is_said_is_answered(data: str | bytes, shown: bool) -> None:
    session = AlpacaSession(lambda key: "", Limits(), 0, packed=True)
    if shown:
        session.received(msgspec.msgpack.encode({"action": "auth", "key": "", "secret": ""}), 0)
    for act in session.received(data, 0):
        if isinstance(act, Reply):
            assert act.frame[0] == 0x82
        elif not shown and isinstance(act, Close):
            assert not session.is_open


def test_codes_and_times() -> None:
    assert set(ERRORS) == {400, 401, 402, 403, 404, 405, 406, 407, 409, 410, 500}
    decode = msgspec.msgpack.decode
    for ns in (0, 1_767_268_800_123_456_789, -1, -(10**18), 2**63 - 1):
        found = decode(msgspec.msgpack.encode(packed_time(ns)))
        assert abs(found.timestamp() - ns / 1e9) < 1e-3
