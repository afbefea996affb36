"""What happens to those who do not keep up, and to the others: nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from penstock.clock import ManualClock
from penstock.hub import Hub
from penstock.plant import Limits, Plant

SMALL = Limits(outbox_bytes=20_000, outbox_messages=100)


def told(client: Any, kind: str) -> list[dict[str, Any]]:
    return [m for frame in client.wire.take() if isinstance(frame, list) for m in frame if m.get("status") == kind]


def make(hub: Hub, policy: str, clock: ManualClock, limits: Limits = SMALL) -> Plant:
    return Plant(hub, policy=policy, limits=limits, clock=clock)


@pytest.fixture
def slow_and_quick(hub: Hub, bars: Any, clock: ManualClock, kit: SimpleNamespace) -> Any:
    """Publishes 500 bars of 5 symbols, 10 at a time, to a client that reads and one that does not."""

    def make_both(
        default: str, *, is_arrow: bool = False, limits: Limits = SMALL, **options: Any
    ) -> tuple[Any, Any, Plant]:
        plant = make(hub, default, clock, limits)
        slow, quick = (kit.Client(plant, is_arrow=is_arrow) for _ in range(2))
        slow.subscribe("AM.*", seq=True, **options)
        quick.subscribe("AM.*", seq=True)
        slow.stall()
        for n in range(50):
            bars.append([kit.bar(f"S{k % 5}", n * 10 + k) for k in range(10)])
            kit.run(plant)
        return slow, quick, plant

    return make_both


def test_drop_oldest_tells_what_was_dropped(slow_and_quick: Any) -> None:
    slow, quick, _ = slow_and_quick("drop_oldest")
    assert [m["seq"] for m in quick.wire.messages()] == list(range(500))
    queued = slow.subscriber.outbox.statistics()
    assert queued.queued_messages <= 100
    assert queued.queued_bytes <= 20_000
    slow.resume()
    frames = slow.wire.take()
    status, messages = frames[0][0], [m for frame in frames[1:] for m in frame]
    first = messages[0]["seq"]
    assert [m["seq"] for m in messages] == list(range(first, 500))
    assert status == {
        "ev": "status", "status": "slow_consumer", "stream": "bars", "from": 0, "to": first - 1, "missed": first,
        "message": f"dropped the oldest messages: {first} messages of bars missed",
    }  # fmt: skip
    assert slow.subscriber.outbox.statistics().missed == first


@pytest.mark.parametrize("is_arrow", [False, True], ids=["json", "arrow"])
def test_conflate_keeps_the_latest_of_each_symbol(slow_and_quick: Any, is_arrow: bool) -> None:
    slow, quick, _ = slow_and_quick("conflate", is_arrow=is_arrow)
    assert slow.subscriber.outbox.statistics().queued_messages == 5
    slow.resume()
    status, *data = slow.wire.take()
    if is_arrow:
        assert pa.Table.from_batches(data)["_seq"].to_pylist() == [495, 496, 497, 498, 499]
        assert sum(batch.num_rows for batch in quick.wire.take()) == 500
    else:
        assert [m["seq"] for frame in data for m in frame] == [495, 496, 497, 498, 499]
        assert len(quick.wire.messages()) == 500
    assert status == [
        {"ev": "status", "status": "conflated", "stream": "bars", "from": 0, "to": 499, "missed": 495,
         "message": "kept the latest of each symbol: 495 messages of bars missed"}
    ]  # fmt: skip


def test_after_conflation_all_come_again(slow_and_quick: Any, bars: Any, kit: SimpleNamespace) -> None:
    slow, _, plant = slow_and_quick("conflate")
    slow.resume()
    slow.wire.take()
    bars.append([kit.bar("S1", 1000), kit.bar("S1", 1001)])
    kit.run(plant)
    assert [m["seq"] for m in slow.wire.messages()] == [500, 501]


def test_disconnect_tells_and_cuts(slow_and_quick: Any) -> None:
    slow, quick, plant = slow_and_quick("disconnect")
    assert slow.wire.closed == (1008, "slow consumer")
    (status,) = told(slow, "slow_consumer")
    assert (status["stream"], status["from"]) == ("bars", 0)
    assert status["to"] + 1 == status["missed"] < 500
    assert [m["seq"] for m in quick.wire.messages()] == list(range(500))
    plant.detach(slow.subscriber)
    assert plant.metrics.gone["missed"] == status["missed"]


def test_catch_up_loses_nothing(slow_and_quick: Any, kit: SimpleNamespace) -> None:
    slow, _, plant = slow_and_quick("catch_up")
    assert slow.subscriber.outbox.statistics().queued_bytes <= 20_000
    found: list[int] = []
    for _ in range(100):
        slow.resume()
        plant.replay()
        found += [m["seq"] for m in slow.wire.messages()]
        slow.stall()
    slow.resume()
    kit.run(plant)
    found += [m["seq"] for m in slow.wire.messages()]
    assert found == list(range(500))
    assert plant.metrics.behind >= 1
    assert slow.subscriber.histories == []


def test_a_client_may_choose_its_policy(slow_and_quick: Any) -> None:
    slow, _, _ = slow_and_quick("disconnect", policy="drop_oldest")
    assert slow.wire.closed is None


def test_conflate_true_conflates_whenever_it_is_behind(slow_and_quick: Any) -> None:
    slow, _, _ = slow_and_quick("disconnect", conflate=True)
    assert slow.wire.closed is None
    slow.resume()
    assert [m["seq"] for m in slow.wire.messages()] == [495, 496, 497, 498, 499]


def test_conflate_true_costs_nothing_while_it_keeps_up(
    hub: Hub, bars: Any, clock: ManualClock, kit: SimpleNamespace
) -> None:
    plant = make(hub, "disconnect", clock)
    client = kit.Client(plant)
    client.subscribe("AM.*", conflate=True, seq=True)
    for n in range(5):
        bars.append([kit.bar("A", n), kit.bar("A", n)])
        kit.run(plant)
    assert [m["seq"] for m in client.wire.messages()] == list(range(10))


def test_conflation_for_an_interval(hub: Hub, bars: Any, clock: ManualClock, kit: SimpleNamespace) -> None:
    plant = make(hub, "disconnect", clock)
    client = kit.Client(plant)
    client.subscribe("AM.*", conflate=100, seq=True)
    client.subscribe("AM.NOW", seq=True)
    bars.append([kit.bar("A", 1), kit.bar("B", 1), kit.bar("A", 2), kit.bar("NOW", 1)])
    kit.run(plant)
    assert [m["seq"] for m in client.wire.messages()] == [3]
    due = plant.due()
    assert due is not None
    clock.advance(ns=due - clock.now_ns() - 1)
    plant.due()
    assert client.wire.take() == []
    clock.advance(ns=1)
    assert plant.due() is None
    assert [m["seq"] for m in client.wire.messages()] == [1, 2]
    bars.append(kit.bar("A", 3))
    kit.run(plant)
    clock.advance(0.2)
    plant.due()
    assert [m["seq"] for m in client.wire.messages()] == [4]


def test_too_many_symbols_to_conflate_are_cut(hub: Hub, bars: Any, clock: ManualClock, kit: SimpleNamespace) -> None:
    plant = make(hub, "conflate", clock)
    client = kit.Client(plant)
    client.subscribe("AM.*")
    client.stall()
    for n in range(100):
        bars.append([kit.bar(f"S{n}.{k}", n) for k in range(10)])
        kit.run(plant)
    assert client.wire.closed == (1008, "slow consumer")


def test_a_client_that_asks_and_does_not_read_is_cut(hub: Hub, bars: Any, kit: SimpleNamespace) -> None:
    plant = Plant(hub, limits=Limits(outbox_bytes=5000, actions_per_second=100_000))
    client = kit.Client(plant)
    client.stall()
    for _ in range(500):
        if client.wire.closed is None:
            client.send(action="subscribe", params="AM.A")
    assert client.wire.closed == (1008, "slow consumer")
    assert client.subscriber.outbox.statistics().queued_bytes == 0


def test_one_message_larger_than_the_outbox_still_comes(hub: Hub, clock: ManualClock, kit: SimpleNamespace) -> None:
    docs = hub.streams.get("docs", attributes={"event": "D"})
    plant = make(hub, "disconnect", clock)
    client = kit.Client(plant)
    client.subscribe("D.*")
    docs.append({"text": "x" * 100_000})
    kit.run(plant)
    assert len(client.wire.messages()[0]["text"]) == 100_000


def test_one_that_is_too_late_even_for_the_log_is_cut(hub: Hub, clock: ManualClock, kit: SimpleNamespace) -> None:
    docs = hub.streams.get("docs", attributes={"event": "D"}, retention={"bytes": 1})
    plant = make(hub, "catch_up", clock)
    slow, quick = kit.Client(plant), kit.Client(plant)
    for client in (slow, quick):
        client.subscribe("D.*", seq=True)
    slow.stall()
    for n in range(30):
        docs.append([{"n": n, "text": "x" * 100} for _ in range(10)])
        kit.run(plant)
        if n == 5:
            docs.seal()
            docs.append({"n": -1})
            docs.retain()
    assert len(quick.wire.messages()) == 301
    assert slow.wire.closed == (1008, "slow consumer")
    assert "cannot catch up with docs" in told(slow, "error")[0]["message"]
    assert plant.failed == {}


def test_a_client_that_cannot_be_served_hurts_nobody_else(
    hub: Hub, bars: Any, clock: ManualClock, kit: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    plant = make(hub, "disconnect", clock)
    odd, sound = kit.Client(plant), kit.Client(plant)
    for client in (odd, sound):
        client.subscribe("AM.*")

    def broken(parcel: Any) -> None:
        raise RuntimeError("no")

    odd.subscriber.outbox.put = broken
    bars.append(kit.bar("A", 1))
    kit.run(plant)
    assert odd.wire.closed == (1011, "cannot be served")
    assert len(sound.wire.messages()) == 1
    assert plant.failed == {}
    assert "a client cannot be served" in caplog.text
