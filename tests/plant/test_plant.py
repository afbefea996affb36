"""The plant without sockets: who gets what."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

import penstock as ps
from penstock.clock import ManualClock
from penstock.errors import UnknownStream, UsageError
from penstock.hub import Hub
from penstock.plant import Limits, Plant, Policy


@pytest.fixture
def plant(hub: Hub, bars: Any, trades: Any, clock: ManualClock) -> Plant:
    return Plant(hub, clock=clock)


def symbols(messages: list[dict[str, Any]]) -> list[str]:
    return [f"{m['ev']}.{m['sym']}" for m in messages]


def test_greeting_auth_subscribe_data(plant: Plant, bars: Any, kit: SimpleNamespace) -> None:
    client = kit.Client(plant, auth=False)
    assert client.wire.take() == [[{"ev": "status", "status": "connected", "message": "Connected Successfully"}]]
    assert client.ask(action="auth", params="anything") == [
        {"ev": "status", "status": "auth_success", "message": "authenticated"}
    ]
    told = client.subscribe("AM.*, T.AAPL")
    assert [(m["status"], m["message"]) for m in told] == [
        ("success", "subscribed to: AM.*"), ("success", "subscribed to: T.AAPL"),
    ]  # fmt: skip
    bars.append([kit.bar("AAPL", 1), kit.bar("MSFT", 1)])
    kit.run(plant)
    (frame,) = client.wire.take()
    assert symbols(frame) == ["AM.AAPL", "AM.MSFT"]
    assert "seq" not in frame[0]


def test_nothing_without_a_key(plant: Plant, bars: Any, kit: SimpleNamespace) -> None:
    for said in ['{"action":"subscribe","params":"AM.*"}', "nonsense", '{"action":"snapshot","params":"*"}']:
        client = kit.Client(plant, auth=False)
        client.wire.take()
        bars.append(kit.bar("A", 1))
        kit.run(plant)
        client.send(said)
        assert client.wire.take() == []
        assert client.wire.closed == (1008, 'authenticate first: {"action":"auth","params":KEY}')
        client.send(action="auth", params="late")
        assert client.wire.take() == []


def test_wrong_key(hub: Hub, bars: Any, kit: SimpleNamespace) -> None:
    plant = Plant(hub, check=lambda key: "me" if key == "right" else None)
    client = kit.Client(plant, auth=False)
    client.wire.take()
    assert client.ask(action="auth", params="wrong")[0]["status"] == "auth_failed"
    assert client.wire.closed == (1008, "authentication failed")
    client = kit.Client(plant, key="right")
    assert client.subscriber.who == "me"
    assert client.ask(action="auth", params="wrong")[0]["status"] == "auth_success"  # it is who it was


def test_no_key_in_time(hub: Hub, bars: Any, clock: ManualClock, kit: SimpleNamespace) -> None:
    plant = Plant(hub, clock=clock, limits=Limits(auth_seconds=2))
    slow, quick = kit.Client(plant, auth=False), kit.Client(plant)
    clock.advance(1.9)
    plant.tick()
    assert slow.wire.closed is None
    clock.advance(0.2)
    plant.tick()
    assert slow.wire.closed == (1008, "no authentication in time")
    assert quick.wire.closed is None


def test_each_message_comes_once_however_many_patterns_fit(plant: Plant, bars: Any, kit: SimpleNamespace) -> None:
    client = kit.Client(plant)
    client.subscribe("AM.*,AM.A*,AM.AAPL,*")
    client.subscribe("*.AAPL")
    bars.append([kit.bar("AAPL", 1), kit.bar("B", 1)])
    kit.run(plant)
    assert symbols(client.wire.messages()) == ["AM.AAPL", "AM.B"]


def test_patterns_choose(plant: Plant, bars: Any, trades: Any, kit: SimpleNamespace) -> None:
    wishes = {"AM.*": 3, "AM.A*": 2, "AM.AA,T.B": 2, "T.*": 2, "*.B": 2, "*": 5, "AM.X": 0}
    clients = {}
    for wish in wishes:
        clients[wish] = kit.Client(plant)
        clients[wish].subscribe(wish)
    bars.append([kit.bar("AA", 1), kit.bar("AB", 1), kit.bar("B", 1)])
    trades.append([kit.trade("AA", 1), kit.trade("B", 1)])
    kit.run(plant)
    assert {wish: len(client.wire.messages()) for wish, client in clients.items()} == wishes


def test_equal_wishes_share_one_frame(plant: Plant, bars: Any, kit: SimpleNamespace) -> None:
    clients = [kit.Client(plant) for _ in range(3)]
    for client in clients:
        client.subscribe("AM.A*")
    assert len(plant.router("bars")) == 1
    frames = []
    for client in clients:
        client.wire.write = frames.append
    bars.append(kit.bar("A", 1))
    kit.run(plant)
    assert frames[0] is frames[1] is frames[2]
    plant.detach(clients[0].subscriber)
    clients[1].ask(action="unsubscribe", params="AM.A*")
    plant.detach(clients[2].subscriber)
    assert len(plant.router("bars")) == 0


def test_rows_of_several_streams_make_one_write(plant: Plant, bars: Any, trades: Any, kit: SimpleNamespace) -> None:
    client = kit.Client(plant)
    client.subscribe("*")
    writes = client.wire.writes
    bars.append(kit.bar("A", 1))
    trades.append([kit.trade("A", n) for n in range(3)])
    plant.publish(list(plant.feeds.values()))
    assert client.wire.writes == writes + 1
    assert len(client.wire.messages()) == 4


def test_unsubscribe(plant: Plant, bars: Any, kit: SimpleNamespace) -> None:
    client = kit.Client(plant)
    client.subscribe("AM.A,AM.B,T.A")
    told = client.ask(action="unsubscribe", params="AM.A,AM.C")
    assert [(m["status"], m["message"]) for m in told] == [
        ("success", "unsubscribed to: AM.A"), ("error", "not subscribed to: AM.C"),
    ]  # fmt: skip
    bars.append([kit.bar("A", 1), kit.bar("B", 1)])
    kit.run(plant)
    assert symbols(client.wire.messages()) == ["AM.B"]
    client.ask(action="unsubscribe", params="*")
    bars.append(kit.bar("B", 2))
    kit.run(plant)
    assert client.wire.messages() == []
    assert client.subscriber.held == {}


def test_errors_are_statuses(plant: Plant, kit: SimpleNamespace) -> None:
    client = kit.Client(plant)

    def error(**fields: Any) -> str:
        (told,) = client.ask(**fields)
        assert told["status"] == "error"
        return str(told["message"])

    assert error(action="subscribe", params="NO.*") == "no such channel: NO.* (this plant has AM, T)"
    assert "invalid subscription: AM (expected a channel such as" in error(action="subscribe", params="AM")
    assert error(action="subscribe", params=" ,") == "params of subscribe name no channel"
    assert "made of the streams bars, trades; give since as" in error(action="subscribe", params="*", since=0)
    assert "expected since at most 0, the end of stream 'bars', got 5" in error(
        action="subscribe", params="AM.*", since=5
    )
    assert "expected a time with its zone, got 'soon'" in error(action="subscribe", params="AM.*", since="soon")
    assert "expected a JSON object" in client.ask("{")[0]["message"]
    assert client.subscriber.held == {}


def test_a_client_that_takes_nothing_for_long_is_cut(
    hub: Hub, bars: Any, clock: ManualClock, kit: SimpleNamespace
) -> None:
    plant = Plant(hub, clock=clock, policy="conflate", limits=Limits(stalled_seconds=60))
    slow, quiet = kit.Client(plant), kit.Client(plant)
    slow.subscribe("AM.*")
    slow.stall()
    for seconds in (1, 58):
        bars.append(kit.bar("A", 1))
        kit.run(plant)
        clock.advance(seconds)
        plant.tick()
    assert slow.wire.closed is None
    slow.wire.unread -= 10_000  # it does read, slowly
    clock.advance(10)
    plant.tick()
    clock.advance(59)
    plant.tick()
    assert slow.wire.closed is None
    clock.advance(2)
    plant.tick()
    assert slow.wire.closed == (1008, "takes nothing")
    assert quiet.wire.closed is None


def test_too_much_is_cut(hub: Hub, bars: Any, clock: ManualClock, kit: SimpleNamespace) -> None:
    plant = Plant(hub, clock=clock, limits=Limits(subscriptions=2, actions_per_second=20))
    client = kit.Client(plant)
    assert [m["status"] for m in client.subscribe("AM.A,AM.B,AM.C")] == ["error", "success", "success"]
    for _ in range(300):
        client.send(action="subscribe", params="AM.A")
    assert client.wire.closed == (1008, "too many messages")
    client = kit.Client(plant)
    for _ in range(101):
        clock.advance(1)
        client.send("?")
    assert client.wire.closed == (1008, "too many errors")
    client = kit.Client(plant)
    client.send(b"\x00")
    assert client.wire.closed == (1003, "text frames only")


def test_connections_per_key(hub: Hub, bars: Any, kit: SimpleNamespace) -> None:
    plant = Plant(hub, limits=Limits(connections_per_token=2), check=lambda key: key)
    one, two = kit.Client(plant, key="a"), kit.Client(plant, key="a")
    kit.Client(plant, key="b")
    third = kit.Client(plant, auth=False)
    third.wire.take()
    assert third.ask(action="auth", params="a")[0]["status"] == "max_connections"
    assert third.wire.closed == (1008, "too many connections of this key")
    plant.detach(third.subscriber)
    plant.detach(one.subscriber)
    assert kit.Client(plant, key="a").wire.closed is None
    assert two.wire.closed is None


def test_seq_on_request(plant: Plant, bars: Any, kit: SimpleNamespace) -> None:
    plain, numbered = kit.Client(plant), kit.Client(plant)
    plain.subscribe("AM.*")
    (told,) = numbered.subscribe("AM.*", seq=True)
    assert told["streams"] == {"bars": 0}
    bars.append([kit.bar("A", 1), kit.bar("B", 1)])
    kit.run(plant)
    assert [(m["seq"], m["stream"]) for m in numbered.wire.messages()] == [(0, "bars"), (1, "bars")]
    assert ["seq" in m for m in plain.wire.messages()] == [False, False]
    numbered.subscribe("AM.A", seq=False)
    bars.append(kit.bar("A", 2))
    kit.run(plant)
    assert "seq" not in numbered.wire.messages()[0]


def test_streams_made_later_are_found(plant: Plant, hub: Hub, kit: SimpleNamespace) -> None:
    client = kit.Client(plant)
    client.subscribe("*", seq=True)
    hub.streams.get("_hidden").append({"a": 1})
    late = hub.streams.get("late", attributes={"event": "L"})
    late.append([{"sym": "a"}, {"sym": "b"}])
    assert [feed.name for feed in plant.look()] == ["late"]
    late.append({"sym": "c"})
    kit.run(plant)
    assert [(m["ev"], m["sym"], m["seq"]) for m in client.wire.messages()] == [
        ("L", "a", 0),
        ("L", "b", 1),
        ("L", "c", 2),
    ]
    assert plant.look() == []


def test_a_dropped_stream_is_forgotten_and_may_come_again(
    plant: Plant, hub: Hub, bars: Any, kit: SimpleNamespace
) -> None:
    client = kit.Client(plant)
    client.subscribe("*")
    hub.streams.drop("bars")
    kit.run(plant)
    assert set(plant.feeds) == {"trades"}
    again = hub.streams.get("bars", schema=ps.records.BARS)
    again.append(kit.bar("Z", 1))
    plant.look()
    kit.run(plant)
    assert symbols(client.wire.messages()) == ["AM.Z"]


def test_which_streams(hub: Hub, bars: Any, trades: Any) -> None:
    assert set(Plant(hub, "t*").feeds) == {"trades"}
    assert set(Plant(hub, ["bars"]).feeds) == {"bars"}
    assert Plant(hub, ["none*"]).feeds == {}
    with pytest.raises(UnknownStream):
        Plant(hub, ["none"])
    with pytest.raises(UsageError, match="expected at least one stream, got none"):
        Plant(hub, [])
    with pytest.raises(UsageError, match="expected a policy of conflate, drop_oldest, disconnect, catch_up, got 'x'"):
        Plant(hub, policy="x")


def test_announce_reaches_those_with_a_key(plant: Plant, kit: SimpleNamespace) -> None:
    known, unknown = kit.Client(plant), kit.Client(plant, auth=False)
    unknown.wire.take()
    plant.announce("end_of_day", "2026-01-01")
    assert known.wire.take() == [[{"ev": "status", "status": "end_of_day", "message": "2026-01-01"}]]
    assert unknown.wire.take() == []


def test_close_tells_all(plant: Plant, kit: SimpleNamespace) -> None:
    clients = [kit.Client(plant), kit.Client(plant, auth=False)]
    plant.close()
    assert [client.wire.closed for client in clients] == [(1012, "the plant restarts")] * 2


# ---- snapshots --------------------------------------------------------------------------------------------------


def test_snapshot_is_the_latest_of_each_symbol(plant: Plant, bars: Any, kit: SimpleNamespace) -> None:
    bars.append([kit.bar("A", 1), kit.bar("B", 1), kit.bar("A", 2)])
    kit.run(plant)
    client = kit.Client(plant)
    client.send(action="snapshot", params="AM.*")
    data, told = client.wire.take()
    assert [(m["sym"], m["v"]) for m in data] == [("B", 101), ("A", 102)]
    assert told[0]["message"] == "snapshot of: AM.*"
    bars.append([kit.bar("B", 3)])
    kit.run(plant)
    client.send(action="snapshot", params="AM.B")
    assert [(m["sym"], m["v"]) for m in client.wire.messages()] == [("B", 103)]


def test_snapshot_then_live_without_gap(plant: Plant, bars: Any, kit: SimpleNamespace) -> None:
    bars.append([kit.bar("A", n) for n in range(5)])
    kit.run(plant)
    bars.append(kit.bar("A", 5))  # in the log, not published yet
    client = kit.Client(plant)
    client.send(action="subscribe", params="AM.*", snapshot=True, seq=True)
    kit.run(plant)
    assert [m["seq"] for m in client.wire.messages()] == [4, 5]


# ---- Arrow ------------------------------------------------------------------------------------------------------


def test_arrow_frames_have_the_streams_own_columns(plant: Plant, bars: Any, kit: SimpleNamespace) -> None:
    bars.append([kit.bar("A", 0), kit.bar("B", 0)])
    kit.run(plant)
    client = kit.Client(plant, is_arrow=True)
    (told,) = client.subscribe("AM.B", since="start")
    kit.run(plant)
    bars.append([kit.bar("A", 1), kit.bar("B", 1)])
    kit.run(plant)
    batches = client.wire.take()
    table = pa.Table.from_batches(batches)
    assert table["_seq"].to_pylist() == [1, 3]
    assert table.drop(["_seq"]).equals(bars.read().filter(pa.array([False, True, False, True])))
    assert batches[0].schema.metadata[b"penstock.stream"] == b"bars"
    assert batches[0].schema.metadata[b"penstock.ev"] == b"AM"
    assert told["status"] == "success"


def test_arrow_snapshot(plant: Plant, bars: Any, kit: SimpleNamespace) -> None:
    bars.append([kit.bar("A", n) for n in range(3)] + [kit.bar("B", 9)])
    kit.run(plant)
    client = kit.Client(plant, is_arrow=True)
    client.send(action="snapshot", params="AM.*")
    batch, _ = client.wire.take()
    assert batch["_seq"].to_pylist() == [2, 3]
    assert batch["symbol"].to_pylist() == ["A", "B"]


def test_large_bursts_are_cut_into_frames(plant: Plant, hub: Hub, kit: SimpleNamespace) -> None:
    docs = hub.streams.get("docs", attributes={"event": "D"})
    plant.look()
    clients = [kit.Client(plant), kit.Client(plant, is_arrow=True)]
    for client in clients:
        client.subscribe("D.*")
    docs.append([{"n": n, "text": "x" * 20_000} for n in range(60)])
    docs.append({"n": 60, "text": "x" * 800_000})
    for client in clients:
        sizes: list[int] = []
        client.wire.write = lambda data, sizes=sizes, write=client.wire.write: (sizes.append(len(data)), write(data))
    kit.run(plant)
    found = clients[0].wire.take()
    assert [m["n"] for frame in found for m in frame] == list(range(61))
    assert len(found) >= 4
    assert sum(batch.num_rows for batch in clients[1].wire.take()) == 61


def test_policy_names() -> None:
    assert Policy.named("catch_up") is Policy.CATCH_UP


def test_a_stream_that_cannot_be_written_hurts_nobody_else(
    plant: Plant, bars: Any, trades: Any, kit: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    client = kit.Client(plant)
    client.subscribe("*")

    def broken(chunk: Any) -> Any:
        raise RuntimeError("what a row")

    plant.feeds["bars"].burst = broken  # type: ignore[method-assign]
    bars.append(kit.bar("A", 1))
    trades.append(kit.trade("A", 1))
    plant.publish(list(plant.feeds.values()))
    assert plant.failed == {"bars": "what a row"}
    status, data = client.wire.take()
    assert status[0]["message"] == "stream bars cannot be read: what a row"
    assert symbols(data) == ["T.A"]
    assert "stream bars cannot be published" in caplog.text


def test_a_stream_that_is_mended_comes_again(
    hub: Hub, clock: Any, bars: Any, trades: Any, kit: SimpleNamespace
) -> None:
    plant = Plant(hub, clock=clock)
    client = kit.Client(plant)
    client.subscribe("AM.*", seq=True)
    other = kit.Client(plant)
    other.subscribe("T.*")
    bars.append([kit.bar("A", 0)])
    kit.run(plant)
    assert len(client.wire.messages()) == 1
    (segment,) = hub.streams.path("bars").glob("*.arrow")
    before = segment.stat().st_size
    bars.append([kit.bar("A", 1)])
    bars.append([kit.bar("A", 2)])
    good = segment.read_bytes()
    segment.write_bytes(good[: before + 300] + b"?" + good[before + 301 :])
    kit.run(plant)
    assert [m["status"] for m in client.wire.take()[0]] == ["unreadable"]
    assert list(plant.failed) == ["bars"]
    assert plant.look_again() == []  # not yet
    for _ in range(3):
        clock.advance(60)
        kit.run(plant)
        assert plant.look_again() == []
    assert client.wire.take() == []  # it was told once
    segment.unlink()
    segment.write_bytes(good)  # restored, as another file
    clock.advance(60)
    assert plant.look_again() == [plant.feeds["bars"]]
    assert plant.failed == {}
    kit.run(plant)
    status, *data = client.wire.take()
    assert status == [
        {"ev": "status", "status": "readable", "message": "stream bars can be read again", "stream": "bars"}
    ]
    assert [m["seq"] for frame in data for m in frame] == [1, 2]
    assert other.wire.take() == []


def test_rows_that_are_gone_when_a_stream_is_mended_are_told(hub: Hub, clock: Any, kit: SimpleNamespace) -> None:
    stream = hub.streams.get("s", attributes={"event": "S"}, segment_bytes=4096)
    plant = Plant(hub, clock=clock)
    client = kit.Client(plant)
    client.subscribe("S.*", seq=True)
    for n in range(40):
        stream.append({"n": n, "text": "x" * 500})
    segments = sorted(hub.streams.path("s").glob("*.arrow"))
    assert len(segments) > 2
    segments[0].write_bytes(segments[0].read_bytes()[:-9] + b"?" * 9)
    kit.run(plant)
    told = [m for frame in client.wire.take() for m in frame]
    begin = plant.feeds["s"].position
    assert [m["seq"] for m in told if m["ev"] == "S"] == list(range(begin))
    assert told[-1]["status"] == "unreadable"
    first = int(segments[1].name.split(".")[0])
    for kind in (".arrow", ".idx"):  # as a retention does
        segments[0].with_suffix(kind).unlink()
    clock.advance(1)
    assert plant.look_again() == [plant.feeds["s"]]
    kit.run(plant)
    (status,), *data = client.wire.take()
    assert (status["status"], status["from"], status["to"], status["missed"]) == (
        "readable",
        begin,
        first - 1,
        first - begin,
    )
    assert [m["seq"] for frame in data for m in frame] == list(range(first, 40))


def test_a_stream_that_cannot_be_served_keeps_no_other_from_it(hub: Hub, clock: Any, kit: SimpleNamespace) -> None:
    old = hub.streams.get("a-old", attributes={"event": "no.event"})
    old.append({"n": 0})
    plant = Plant(hub, clock=clock)
    client = kit.Client(plant)
    client.subscribe("*", seq=True)
    for name, event in (("b-bad", "*"), ("c-good", "C")):
        hub.streams.get(name, attributes={"event": event}).append({"n": 1})
    assert [feed.name for feed in plant.look()] == ["c-good"]
    assert plant.look() == plant.look_again() == []
    assert {name: "expected attribute `event`" in why for name, why in plant.failed.items()} == {
        "a-old": True, "b-bad": True,
    }  # fmt: skip
    for name, event in (("a-old", "A"), ("b-bad", "B")):
        hub.streams.get(name).set_attributes({"event": event})
    clock.advance(2)
    assert [feed.name for feed in plant.look()] == ["a-old", "b-bad"]
    assert plant.failed == {}
    old.append({"n": 2})
    kit.run(plant)
    # What was there when the plant began is history; what came later is live from the first row on.
    assert sorted((m["stream"], m["seq"]) for m in client.wire.messages()) == [
        ("a-old", 1),
        ("b-bad", 0),
        ("c-good", 0),
    ]
    hub.streams.get("d", attributes={"event": ","})
    assert plant.look() == []
    assert list(plant.failed) == ["d"]
    hub.streams.drop("d")
    assert plant.look() == []
    assert plant.failed == {}
    with pytest.raises(UsageError, match="expected attribute `event`"):
        hub.streams.get("e", attributes={"event": ","})
        Plant(hub, "e")


def test_a_damaged_segment_is_told(plant: Plant, hub: Hub, bars: Any, kit: SimpleNamespace) -> None:
    bars.append([kit.bar("A", n) for n in range(100)])
    kit.run(plant)
    (segment,) = hub.streams.path("bars").glob("*.arrow")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(data)
    client = kit.Client(Plant(ps.open(hub.path)))  # as another process sees it
    client.subscribe("AM.*", since="start")
    kit.run(client.plant)
    told = [m for frame in client.wire.take() for m in frame if m["ev"] == "status"]
    assert "history of bars ends: " in told[-1]["message"]
    assert client.wire.closed == (1011, "history cannot be read")


def test_statistics(plant: Plant, bars: Any, kit: SimpleNamespace) -> None:
    bars.append([kit.bar("A", n) for n in range(3)])
    kit.run(plant)
    client = kit.Client(plant)
    client.subscribe("AM.*", since=1)
    found = client.subscriber.statistics()
    assert (found.who, found.patterns, found.replaying) == ("", ("AM.*",), {"bars": 2})
    kit.run(plant)
    found = client.subscriber.statistics()
    assert (found.replaying, found.outbox.messages, found.outbox.queued_messages) == ({}, 2, 0)
    whole = plant.statistics()
    assert (whole.rows, whole.replayed, whole.subscribers, whole.positions["bars"]) == (3, 2, 1, 3)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_subscribed_what_fits_comes_once(plant: Plant, bars: Any, kit: SimpleNamespace, seed: int) -> None:
    """Channels that overlap come and go, live and from the log, while others have theirs."""
    chance = random.Random(seed)
    channels = ["AM.*", "AM.A", "AM.A*", "*", "*.A", "AM.B", "AM.AB", "AM.AB*"]
    bars.append([kit.bar(chance.choice(["A", "B", "AB"]), n) for n in range(20)])
    kit.run(plant)
    clients = [kit.Client(plant) for _ in range(3)]
    for _ in range(30):
        client, some = chance.choice(clients), ",".join(chance.sample(channels, chance.randrange(1, 4)))
        if chance.random() < 0.4:
            client.send(action="unsubscribe", params=some)
        else:
            words: dict[str, Any] = {"conflate": True} if chance.random() < 0.2 else {}
            if chance.random() < 0.5:
                words["since"] = {"bars": chance.randrange(len(bars))}
            client.send(action="subscribe", params=some, seq=True, **words)
        for _ in range(chance.randrange(3)):
            plant.replay(3)
        if chance.random() < 0.5:
            bars.append([kit.bar(chance.choice(["A", "B", "AB"]), 1)])
            plant.publish(list(plant.feeds.values()))
        if chance.random() < 0.2:
            kit.run(plant)
    kit.run(plant)
    for client in clients:
        client.wire.take()
    first = len(bars)
    bars.append([kit.bar(symbol, 1) for symbol in ("A", "B", "AB", "X")])
    kit.run(plant)
    for client in clients:
        held = client.subscriber.held
        due = [first + n for n, s in enumerate(("A", "B", "AB", "X")) if any(p.matches("AM", s) for p in held)]
        assert sorted(m["seq"] for m in client.wire.messages()) == due


def test_a_client_with_many_symbols_changes_one(plant: Plant, trades: Any, kit: SimpleNamespace) -> None:
    client, other = kit.Client(plant), kit.Client(plant)
    client.subscribe(",".join(f"T.S{n}" for n in range(3000)))
    other.subscribe("T.S1,T.S2")
    router = plant.router("trades")
    (mine, theirs) = router._lanes.values()
    client.subscribe("T.X")
    client.send(action="unsubscribe", params="T.S1")
    assert list(router._lanes.values()) == [theirs, mine]  # the same, changed in place
    client.send(action="unsubscribe", params="T.S*")
    client.wire.take()
    trades.append([kit.trade(symbol, 1) for symbol in ("S1", "S2", "S3", "X")])
    kit.run(plant)
    assert [m["sym"] for m in client.wire.messages()] == ["X"]
    assert [m["sym"] for m in other.wire.messages()] == ["S1", "S2"]
    client.subscribe("T.S1,T.S2")
    client.send(action="unsubscribe", params="T.X")
    assert list(router._lanes.values()) == [theirs]  # who want the same share one
