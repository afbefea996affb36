"""History and then live, on one connection: no gap, no duplicate, whatever else the client holds."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.clock import ManualClock
from penstock.hub import Hub
from penstock.plant import Limits, Plant


@pytest.fixture
def plant(hub: Hub, bars: Any, trades: Any, clock: ManualClock) -> Plant:
    return Plant(hub, clock=clock)


def seqs(client: Any) -> list[int]:
    return [m["seq"] for m in client.wire.messages()]


@pytest.mark.parametrize(
    "since, first",
    [("start", 0), (0, 0), (3, 3), (6, 6), ("end", 6), ({"bars": 2}, 2), ({"*": 0}, 0), ("2026-01-01T12:04:00Z", 4)],
    ids=str,
)
def test_since(plant: Plant, bars: Any, kit: SimpleNamespace, since: Any, first: int) -> None:
    bars.append([kit.bar("A", n) for n in range(6)])
    kit.run(plant)
    client = kit.Client(plant)
    (told,) = client.subscribe("AM.*", since=since, seq=True)
    assert told["streams"] == {"bars": first if since != "2026-01-01T12:04:00Z" else 0}
    bars.append([kit.bar("A", n) for n in range(6, 9)])
    kit.run(plant)
    assert seqs(client) == list(range(first, 9))


def test_since_a_time_of_append(plant: Plant, hub: Hub, kit: SimpleNamespace) -> None:
    docs = hub.streams.get("docs", attributes={"event": "D"})
    plant.look()
    docs.append([{"n": 0}, {"n": 1}])
    _, moment = docs.mark()
    docs.append({"n": 2})
    kit.run(plant)
    client = kit.Client(plant)
    client.subscribe("D.*", since=ps.clock.iso(moment), seq=True)
    kit.run(plant)
    assert seqs(client) == [2]


def test_since_a_time_in_a_stream_without_rows(plant: Plant, bars: Any, kit: SimpleNamespace) -> None:
    client = kit.Client(plant)
    client.subscribe("AM.*", since="2026-01-01T12:00:00Z", seq=True)
    bars.append(kit.bar("A", 1))
    kit.run(plant)
    assert seqs(client) == [0]


def test_since_what_has_expired(hub: Hub, kit: SimpleNamespace) -> None:
    small = hub.streams.get("bars", schema=ps.records.BARS, retention={"bytes": 1})
    small.append([kit.bar("A", n) for n in range(10)])
    small.seal()
    small.append(kit.bar("A", 10))
    small.retain()
    plant = Plant(hub)
    client = kit.Client(plant)
    (told,) = client.subscribe("AM.*", since=3, seq=True)
    assert told["status"] == "error"
    assert "older rows were dropped by its retention" in told["message"]
    client.subscribe("AM.*", since="start", seq=True)
    kit.run(plant)
    assert seqs(client) == [10]


def test_one_large_append_is_replayed_in_pieces(plant: Plant, bars: Any, kit: SimpleNamespace) -> None:
    bars.append([kit.bar(f"S{n % 7}", n) for n in range(2000)])
    kit.run(plant)
    client = kit.Client(plant)
    client.subscribe("AM.S1,AM.S2*", since="start", seq=True)
    kit.run(plant)
    assert seqs(client) == [n for n in range(2000) if n % 7 in (1, 2)]


def test_history_waits_for_a_client_that_does_not_read(hub: Hub, bars: Any, kit: SimpleNamespace) -> None:
    plant = Plant(hub, limits=Limits(outbox_bytes=100_000), policy="disconnect")
    bars.append([kit.bar("A", n) for n in range(5000)])
    kit.run(plant)
    client = kit.Client(plant)
    client.stall()
    client.subscribe("AM.*", since=0, seq=True)
    kit.run(plant)
    assert client.subscriber.outbox.statistics().queued_bytes < 100_000
    found: list[int] = []
    for _ in range(200):
        client.resume()
        plant.replay()
        found += seqs(client)
        client.stall()
    assert found == list(range(5000))


def test_live_goes_on_while_another_reads_history(plant: Plant, bars: Any, kit: SimpleNamespace) -> None:
    bars.append([kit.bar("A", n) for n in range(3000)])
    kit.run(plant)
    live, late = kit.Client(plant), kit.Client(plant)
    live.subscribe("AM.*", seq=True)
    late.subscribe("AM.*", since=0, seq=True)
    got_live, got_late, n = [], [], 3000
    while late.subscriber.histories:
        bars.append([kit.bar("A", n)])
        n += 1
        plant.publish(list(plant.feeds.values()))
        plant.replay()
        got_live += seqs(live)
        got_late += seqs(late)
    kit.run(plant)
    assert got_live == list(range(3000, n))
    assert got_late + seqs(late) == list(range(n))


def test_too_many_histories(hub: Hub, bars: Any, kit: SimpleNamespace) -> None:
    plant = Plant(hub, limits=Limits(histories=1))
    client = kit.Client(plant)
    client.subscribe("AM.A", since="start")
    (told,) = client.subscribe("AM.B", since="start")
    assert told["message"] == "cannot subscribe to: AM.B (too many histories at once: the limit is 1)"


def test_subscribing_again_with_since_rewinds(plant: Plant, bars: Any, kit: SimpleNamespace) -> None:
    client = kit.Client(plant)
    client.subscribe("AM.*", seq=True)
    bars.append([kit.bar("A", n) for n in range(4)])
    kit.run(plant)
    assert seqs(client) == [0, 1, 2, 3]
    client.subscribe("AM.*", since=2)
    bars.append(kit.bar("A", 4))
    kit.run(plant)
    assert seqs(client) == [2, 3, 4]


def test_a_client_may_move_to_another_plant_of_the_hub(plant: Plant, hub: Hub, bars: Any, kit: SimpleNamespace) -> None:
    other = Plant(hub)
    bars.append([kit.bar("A", n) for n in range(5)])
    kit.run(plant)
    client = kit.Client(other)  # which has not looked yet
    (told,) = client.subscribe("AM.*", since=5, seq=True)
    assert told["status"] == "success"
    bars.append(kit.bar("A", 5))
    kit.run(other)
    assert seqs(client) == [5]


wishes = st.sampled_from(["AM.*", "AM.A", "AM.B", "AM.A*", "*", "*.B", "T.*", "T.A"])
steps = st.one_of(
    st.tuples(st.just("append"), st.sampled_from(["bars", "trades"]), st.integers(1, 5)),
    st.tuples(st.just("publish")),
    st.tuples(st.just("replay"), st.integers(1, 4)),
    st.tuples(st.just("subscribe"), wishes, st.sampled_from([None, "start", 0.3, 0.7])),
    st.tuples(st.just("unsubscribe"), wishes),
    st.tuples(st.just("stall")),
    st.tuples(st.just("resume")),
)


@pytest.mark.parametrize("unsubscribing", [False, True])
@settings(max_examples=60)
@given(data=st.data())
def test_every_message_comes_exactly_once(
    unsubscribing: bool, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, kit: SimpleNamespace
) -> None:
    """Against a model: a message is due when a pattern was held at its offset.

    With a pattern given up, another that is replayed may bring again what that one had brought: it is not lost.
    """
    with ps.open(tmp_path_factory.mktemp("hub")) as hub:
        streams = {
            "bars": hub.streams.get("bars", schema=ps.records.BARS, durability="os"),
            "trades": hub.streams.get("trades", schema=ps.records.TRADES, durability="os"),
        }
        plant = Plant(hub, limits=Limits(outbox_bytes=3000, actions_per_second=10_000), policy="catch_up")
        feeds = list(plant.feeds.values())
        client = kit.Client(plant)
        client.subscribe("T.NOBODY", seq=True)
        rows: dict[str, list[str]] = {"bars": [], "trades": []}
        due: list[tuple[str, str, int, int]] = []  # pattern, stream, begin, end
        held: dict[str, dict[str, int]] = {}
        got: Counter[tuple[str, int]] = Counter()
        events = {"bars": "AM", "trades": "T"}

        def collect() -> None:
            for m in client.wire.messages():
                got[m["stream"], m["seq"]] += 1

        def fits(pattern: str, stream: str, symbol: str) -> bool:
            if pattern == "*":
                return True
            event, _, wanted = pattern.partition(".")
            if event not in ("*", events[stream]):
                return False
            return symbol.startswith(wanted[:-1]) if wanted.endswith("*") else symbol == wanted

        for step in data.draw(st.lists(steps, max_size=40)):
            if step[0] == "append":
                _, name, count = step
                symbols = data.draw(st.lists(st.sampled_from(["A", "AB", "B"]), min_size=count, max_size=count))
                make = kit.bar if name == "bars" else kit.trade
                streams[name].append([make(symbol, n) for n, symbol in enumerate(symbols)])
                rows[name] += symbols
            elif step[0] == "publish":
                plant.publish(feeds)
            elif step[0] == "replay":
                plant.replay(step[1])
            elif step[0] == "subscribe" and step[1] not in held:
                _, pattern, since = step
                words: dict[str, Any] = {}
                positions = {feed.name: feed.position for feed in feeds}
                begins = dict(positions)
                if since == "start":
                    words["since"], begins = "start", dict.fromkeys(begins, 0)
                elif since is not None:
                    begins = {name: int(position * since) for name, position in positions.items()}
                    words["since"] = begins
                collect()
                client.send(action="subscribe", params=pattern, **words)
                held[pattern] = begins
            elif step[0] == "unsubscribe" and unsubscribing and step[1] in held:
                pattern = step[1]
                # Only what it has been through: rows that wait in the log, or in the outbox for the log, do not come.
                reached = {
                    feed.name: min([feed.position, *(h.offset for h in client.subscriber.histories if h.feed is feed)])
                    for feed in feeds
                }
                collect()
                client.send(action="unsubscribe", params=pattern)
                # It also gives up what it covers.
                for gone in [p for p in held if p not in {str(q) for q in client.subscriber.held}]:
                    due += [(gone, name, begin, reached[name]) for name, begin in held.pop(gone).items()]
            elif step[0] == "stall":
                client.stall()
            elif step[0] == "resume":
                client.resume()
            collect()
        client.resume()
        kit.run(plant)
        client.resume()
        kit.run(plant)
        collect()
        due += [(p, name, begin, len(rows[name])) for p, begins in held.items() for name, begin in begins.items()]
        wanted = {
            (name, offset)
            for pattern, name, begin, end in due
            for offset in range(begin, end)
            if fits(pattern, name, rows[name][offset])
        }
        assert client.wire.closed is None
        assert wanted <= got.keys()
        if not unsubscribing:
            assert got == Counter(wanted)
