"""Whatever a client says, in whatever order: statuses, and documented closes."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.clock import ManualClock
from penstock.errors import UsageError
from penstock.plant import Code, Limits, Plant
from penstock.plant.limits import Rate
from penstock.plant.protocol import AUTH_FAILED, AUTH_SUCCESS
from penstock.plant.session import Ask, Authenticated, Close, Reply, Session

patterns = st.lists(
    st.sampled_from(["AM.*", "AM.A", "T.*", "*", "*.A", "NO.*", "AM", "", "AM.A*B", "é.ü", "x" * 300]), max_size=5
).map(",".join)
whens = st.sampled_from(
    [None, "start", "end", 0, 2, 9, "soon", "2026-01-01T12:01:00Z", {"bars": 1}, {"*": 0}, {"no": 1}]
)
asks = st.builds(
    lambda action, params, since, seq, conflate, snapshot, policy: {
        "action": action, "params": params, "since": since, "seq": seq, "conflate": conflate, "snapshot": snapshot,
        "policy": policy,
    },
    st.sampled_from(["auth", "subscribe", "subscribe", "subscribe", "unsubscribe", "snapshot"]),
    patterns, whens, st.sampled_from([None, True, False]), st.sampled_from([None, True, 5]),
    st.sampled_from([None, False, True]), st.sampled_from([None, "conflate", "drop_oldest", "disconnect", "catch_up"]),
)  # fmt: skip


def mutated(text: str, cuts: list[tuple[int, str]]) -> str:
    for at, put in cuts:
        at %= len(text) + 1
        text = text[:at] + put + text[at + len(put) :]
    return text


said = st.one_of(
    asks.map(json.dumps),
    st.builds(mutated, asks.map(json.dumps), st.lists(st.tuples(st.integers(0, 500), st.text(max_size=3)), max_size=3)),
    st.text(max_size=50),
    st.binary(max_size=20),
)


@settings(max_examples=50)
@given(
    steps=st.lists(st.one_of(said, st.sampled_from([1, 2, 3])), max_size=30), is_arrow=st.booleans(), auth=st.booleans()
)
def test_anything(
    steps: list[Any], is_arrow: bool, auth: bool, tmp_path_factory: pytest.TempPathFactory, kit: SimpleNamespace
) -> None:
    with ps.open(tmp_path_factory.mktemp("hub")) as hub:
        bars = hub.streams.get("bars", schema=ps.records.BARS)
        trades = hub.streams.get("trades", schema=ps.records.TRADES)
        clock = ManualClock(kit.START)
        plant = Plant(hub, clock=clock, limits=Limits(outbox_bytes=20_000))
        client, other = kit.Client(plant, auth=auth, is_arrow=is_arrow), kit.Client(plant)
        client.wire.take()
        other.subscribe("*", seq=True)
        rows = 0
        for step in steps:
            if step == 1:
                bars.append([kit.bar("A", rows), kit.bar("B", rows)])
                trades.append(kit.trade("A", rows))
                rows += 3
            elif step == 2:
                client.resume() if client.wire.is_stalled else client.stall()
            elif step == 3:
                clock.advance(1)
                plant.due()
                plant.tick()
            elif client.wire.closed is None:
                client.send(step)
            kit.run(plant)
        client.resume() if client.wire.closed is None else None
        kit.run(plant)
        frames = client.wire.take()
        if not client.subscriber.session.is_open and client.subscriber.who is None:
            assert all(m["status"] == "auth_failed" for frame in frames for m in frame)
        if client.wire.closed is not None:
            assert client.wire.closed[0] in (Code.POLICY, Code.UNSUPPORTED)
        assert client.subscriber.outbox.statistics().queued_bytes <= 40_000
        assert len(other.wire.messages()) == rows
        plant.detach(client.subscriber)
        plant.detach(other.subscriber)
        assert [len(plant.router(name)) for name in ("bars", "trades")] == [0, 0]


def test_acts() -> None:
    session = Session(lambda key: "me" if key == "k" else None, Limits(), 0)
    assert session.received('{"action":"auth","params":"k"}', 0) == [Authenticated("me")]
    assert session.received('{"action":"auth","params":"k"}', 0) == [Reply(AUTH_SUCCESS)]
    (ask,) = session.received('{"action":"subscribe","params":"AM.A,AM"}', 0)
    assert isinstance(ask, Ask)
    assert [str(pattern) for pattern in ask.patterns] == ["AM.A"]
    assert len(ask.wrong) == 1
    strange = Session(lambda key: None, Limits(auth_seconds=3), 0)
    assert strange.overdue(2_999_999_999) is None
    assert strange.overdue(3_000_000_000) == Close(Code.POLICY, "no authentication in time")
    wrong = Session(lambda key: None, Limits(), 0)
    assert wrong.received('{"action":"auth"}', 0) == [
        Reply(AUTH_FAILED), Close(Code.POLICY, "authentication failed"),
    ]  # fmt: skip
    assert wrong.received('{"action":"auth","params":"k"}', 0) == []
    assert wrong.overdue(10**12) is None


def test_a_rate_is_a_budget() -> None:
    rate = Rate(10, 3, 0)
    assert [rate.take(0) for _ in range(4)] == [True, True, True, False]
    assert [rate.take(100_000_000), rate.take(100_000_000)] == [True, False]
    assert [rate.take(10**12) for _ in range(4)] == [True, True, True, False]


def test_limits_are_above_zero() -> None:
    with pytest.raises(UsageError, match="expected connections above 0, got 0 - in Limits"):
        Limits(connections=0)
    assert Limits(send_buffer=None).send_buffer is None
