"""The plant itself: streams of a hub on one side, subscribers on the other, and nothing that waits.

Log first, publish second: messages are rows that are in the log already. `publish` reads what is new there and puts it
in the outboxes; `replay` reads history for those who asked for it, a little at a time. Whoever runs a plant
(`server.py`) calls both, hands in what clients send, and brings sockets and time.
"""

from __future__ import annotations

import fnmatch
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from penstock.clock import WALL, Clock
from penstock.errors import PenstockError, UnknownStream, UsageError
from penstock.hub import Hub
from penstock.plant.feed import Burst, Feed
from penstock.plant.lanes import Router
from penstock.plant.limits import Limits
from penstock.plant.metrics import Metrics
from penstock.plant.outbox import Outbox, Wire
from penstock.plant.parcels import Encoding
from penstock.plant.patterns import Pattern, Wanted
from penstock.plant.protocol import Code, Policy, status
from penstock.plant.questions import Answer, Questions
from penstock.plant.session import Question
from penstock.plant.snapshot import Latest
from penstock.plant.subscriber import Subscriber
from penstock.plant.unread import Unread
from penstock.tokens import Check, any_key

__all__ = ["Plant", "PlantStatistics"]

_TURNS: Final = 4  # of each feed, before the next: pieces of the log, most of which end where an append was large
_log: Final = logging.getLogger("penstock.plant")


@dataclass(frozen=True, slots=True)
class PlantStatistics:
    """A plant since it was made: rows published, bursts of them, rows replayed; clients now and ever; what is failed.

    positions   of each stream, the offset up to which it is published
    """

    rows: int
    bursts: int
    replayed: int
    subscribers: int
    connects: int
    refused: int
    positions: dict[str, int]
    failed: dict[str, str]


class Plant:
    """Streams and their subscribers.

    Takes   hub; streams: names or patterns such as "bars*", by default all but those that begin with "_"; streams made
            later are found by `look`;
            policy: for those who do not keep up, "conflate", "drop_oldest", "disconnect" or "catch_up";
            limits; check: who a key belongs to, by default any key is good; clock.
    Raises  UnknownStream for a name that is no pattern and no stream, UsageError.
    Edges   One thread only. Rows appended before the plant was made are history.

    >>> plant = Plant(hub, streams=["bars", "trades"])
    """

    def __init__(
        self,
        hub: Hub,
        streams: str | Sequence[str] = "*",
        *,
        policy: Policy | str = Policy.DISCONNECT,
        limits: Limits | None = None,
        check: Check = any_key,
        clock: Clock = WALL,
    ) -> None:
        self.hub, self.limits, self.check, self.clock = hub, limits or Limits(), check, clock
        self.policy = policy if isinstance(policy, Policy) else Policy.named(policy)
        self._streams = [streams] if isinstance(streams, str) else list(streams)
        if not self._streams:
            raise UsageError(expected="at least one stream", got="none", where="in Plant", hint='streams="*" is all')
        self.feeds: dict[str, Feed] = {}
        self.subscribers: dict[Subscriber, None] = {}
        self.metrics = Metrics()
        self._routers: dict[str, Router] = {}
        self._latest: dict[str, Latest] = {}
        self._connections: Counter[str] = Counter()
        self._reading: dict[Subscriber, None] = {}  # those with histories
        self._timed: dict[Outbox, None] = {}  # those that conflate for an interval
        self._unread = Unread()
        self._old: set[str] = set()  # streams that were there at the start, and could not be served then
        self.on_ask: Callable[[Any, Answer], object] | None = None
        self._questions = Questions(self.limits)
        self.look(is_first=True)

    # -- streams

    @property
    def failed(self) -> dict[str, str]:
        """Streams that cannot be read now, and why."""
        return self._unread.why

    def look(self, *, is_first: bool = False) -> list[Feed]:
        """Find streams that are new; returns their feeds. Their rows are live from the first one on.

        At a plant's start what is there is history. One that cannot be served, such as one whose attributes cannot be
        meant, is in `failed`, and tried again.
        Raises  at the start, for a stream that was asked for by its name.
        """
        found: list[Feed | None] = []
        names = self.hub.streams.list()
        for wanted in self._streams:
            if any(mark in wanted for mark in "*?["):
                fresh = [n for n in fnmatch.filter(names, wanted) if n not in self.feeds and not n.startswith("_")]
                found += [self._try(name, is_first=is_first) for name in fresh]
            elif wanted not in self.feeds and is_first:
                found.append(self._add(wanted, is_first=True))
            elif wanted not in self.feeds and wanted in names:
                found.append(self._try(wanted, is_first=False))
        for name in [name for name in self.failed if name not in self.feeds and name not in names]:
            self._unread.remove(name)
        return [feed for feed in found if feed is not None]

    def _try(self, name: str, *, is_first: bool) -> Feed | None:
        now = self.clock.now_ns()
        if name in self.failed and name not in self._unread.due(now):
            return None
        try:
            feed = self._add(name, is_first=is_first)
        except UnknownStream:  # dropped since it was listed
            return None
        except Exception as error:
            _log.warning("stream %s cannot be served: %s", name, error)
            if is_first:
                self._old.add(name)
            self._unread.add(name, str(error), now)
            return None
        self._unread.remove(name)
        return feed

    def _add(self, name: str, *, is_first: bool) -> Feed:
        feed = Feed(self.hub.streams.get(name, create=False), at="end" if is_first or name in self._old else "start")
        self.feeds[name], self._routers[name] = feed, Router(feed)
        for subscriber in self.subscribers:
            subscriber.join(feed)
        return feed

    def also(self, name: str) -> None:
        """Serve the stream of this name, too, from the next `look` on."""
        if name not in self._streams:
            self._streams.append(name)

    def look_again(self) -> list[Feed]:
        """Try streams that could not be read, when it is time: those that can be now, behind what was published last.

        Their subscribers are told, and what is no longer there as what they missed.
        """
        back = []
        for name in self._unread.due(self.clock.now_ns()):
            feed = self.feeds.get(name)
            if feed is None:  # `look` tries it
                continue
            try:
                missed = feed.again()
            except UnknownStream:
                self.drop(name)
                continue
            except Exception as error:
                self._unread.add(name, str(error), self.clock.now_ns())
                continue
            self._unread.remove(name)
            back.append(feed)
            _log.warning("stream %s can be read again", name)
            facts = {"from": missed.start, "to": missed.stop - 1, "missed": len(missed)} if missed else {}
            self._tell(feed, status("readable", f"stream {name} can be read again", stream=name, **facts))
        return back

    def drop(self, name: str) -> None:
        """Forget a stream that was dropped from the hub."""
        feed = self.feeds.pop(name)
        self._unread.remove(name)
        for subscriber in self.subscribers:
            subscriber.lose(feed)
        del self._routers[name]
        self._latest.pop(name, None)

    def router(self, name: str) -> Router:
        """The lanes of a stream."""
        return self._routers[name]

    def events(self) -> list[str]:
        """Events that the plant's streams declare, sorted; documents may have others."""
        return sorted({feed.event for feed in self.feeds.values() if feed.event is not None})

    def serves(self, pattern: Pattern) -> bool:
        """Whether a stream may have messages of that pattern."""
        return pattern.event == "*" or any(pattern.may_be(feed.fixed) for feed in self.feeds.values())

    def feeds_of(self, patterns: Iterable[Pattern]) -> list[Feed]:
        """Streams that may have messages of these patterns."""
        wanted = list(patterns)
        return [feed for feed in self.feeds.values() if any(p.may_be(feed.fixed) for p in wanted)]

    # -- clients

    def attach(
        self, wire: Wire, *, is_arrow: bool = False, peer: str = "", make: Callable[..., Subscriber] | None = None
    ) -> Subscriber:
        """A client has connected: it is greeted. `make` makes it, for another dialect."""
        now = self.clock.now_ns()
        if make is None:
            subscriber = Subscriber(self, wire, is_arrow=is_arrow, peer=peer, now=now)
        else:
            subscriber = make(plant=self, wire=wire, peer=peer, now=now)
        self.subscribers[subscriber] = None
        self.metrics.connects += 1
        subscriber.tell(status("connected", "Connected Successfully"))
        subscriber.outbox.flush()
        return subscriber

    def detach(self, subscriber: Subscriber) -> None:
        """A client has gone."""
        if self.subscribers.pop(subscriber, 0) == 0:
            return
        subscriber.detach()
        self._questions.forget(subscriber)
        self._reading.pop(subscriber, None)
        self._timed.pop(subscriber.outbox, None)
        if subscriber.is_admitted:
            self._connections[subscriber.who or ""] -= 1
        self.metrics.left(subscriber.outbox.statistics())

    def admit(self, subscriber: Subscriber) -> bool:
        """Count a client that has shown its key; False when there are too many of that key."""
        who = subscriber.who or ""
        if self._connections[who] >= self.limits.connections_per_token:
            self.metrics.refused += 1
            return False
        self._connections[who] += 1
        subscriber.is_admitted = True
        return True

    def received(self, subscriber: Subscriber, data: str | bytes) -> None:
        """A message of a client."""
        self.metrics.received += 1
        subscriber.received(data, self.clock.now_ns())

    def asked(self, subscriber: Subscriber, question: Question) -> None:
        """A question for the handler behind this plant: `on_ask(params, answer)` has it answered (`Questions.ask`)."""
        self._questions.ask(subscriber, question, self.on_ask)

    def tick(self) -> None:
        """Close those who show no key in time; call it a few times a second."""
        now = self.clock.now_ns()
        for subscriber in list(self.subscribers):
            subscriber.tick(now)

    def due(self) -> int | None:
        """Send what was conflated for an interval that is over; returns when to call again (ns), None if never."""
        now = self.clock.now_ns()
        following: int | None = None
        for outbox in list(self._timed):
            if outbox.due(now):
                outbox.flush()
            when = outbox.next_due()
            if when is None:
                del self._timed[outbox]
            elif following is None or when < following:
                following = when
        return following

    def close(self, code: Code = Code.RESTART, reason: str = "the plant restarts") -> None:
        """Tell all clients to go: with 1012 the market's own clients come back."""
        for subscriber in list(self.subscribers):
            subscriber.close(code, reason)

    def announce(self, kind: str, message: str, **facts: object) -> None:
        """Send a status to all clients, such as "end_of_day"."""
        found = status(kind, message, **facts)
        for subscriber in list(self.subscribers):
            if subscriber.session.is_open:
                subscriber.tell(found)
                subscriber.outbox.flush()

    def statistics(self) -> PlantStatistics:
        """What was published, and to how many; of each client see `Subscriber.statistics`."""
        m = self.metrics
        return PlantStatistics(
            m.rows, m.bursts, m.replayed, len(self.subscribers), m.connects, m.refused,
            {feed.name: feed.position for feed in self.feeds.values()}, dict(self.failed),
        )  # fmt: skip

    # -- messages

    def publish(self, feeds: Iterable[Feed], max_rows: int = 1024) -> list[Feed]:
        """Put what is new in these feeds into the outboxes and write; returns those that had something.

        One that has more than a few times `max_rows` is not `is_drained` then: it is to be published again.

        Edges   a stream that was dropped is forgotten; one that cannot be read is in `failed`, and the others go on.
        Cost    for each feed: reading and encoding its rows, once; for each subscriber: about 1 µs and one write.
        """
        dirty: dict[Outbox, None] = {}
        busy = []
        for feed in feeds:
            if feed.name in self.failed:
                continue
            try:
                for turn in range(_TURNS):
                    burst = feed.poll(max_rows)
                    if burst is None:
                        break
                    if not turn:
                        busy.append(feed)
                    self._put(feed, burst, dirty)
                    if feed.is_drained:
                        break
            except UnknownStream:
                self.drop(feed.name)
            except Exception as error:  # whatever a stream holds, the others go on
                if not isinstance(error, PenstockError):
                    _log.exception("stream %s cannot be published", feed.name)
                self._fail(feed, error)
        for outbox in dirty:
            outbox.flush()
        return busy

    def _put(self, feed: Feed, burst: Burst, dirty: dict[Outbox, None]) -> None:
        """Messages into the outboxes of those who want them."""
        now = self.clock.now_ns()
        self.metrics.published(len(burst), now - burst.created)
        for lane, parcels in self._routers[feed.name].route(burst):
            outboxes = lane.outboxes
            for parcel in parcels:
                conflates = False
                for outbox, conflate in list(outboxes.items()):  # one that is full may leave the lane
                    dirty[outbox] = None
                    conflates = conflates or outbox.policy is Policy.CONFLATE
                    try:
                        if conflate is None:
                            outbox.put(parcel)
                        else:
                            outbox.put_latest(parcel, conflate, now)
                            if conflate:
                                self._timed[outbox] = None
                    except Exception:  # whatever is wrong with one client, the others go on
                        _log.exception("a client cannot be served and is cut")
                        outbox.close(Code.INTERNAL, "cannot be served")
                if not conflates:
                    parcel.lighten()  # nobody will want its messages one by one
        latest = self._latest.get(feed.name)
        if latest is not None:
            latest.add(burst)

    def _fail(self, feed: Feed, error: Exception) -> None:
        """A stream cannot be read: its subscribers are told, the others do not notice, and `look_again` tries it."""
        self._unread.add(feed.name, str(error), self.clock.now_ns())
        self._tell(feed, status("unreadable", f"stream {feed.name} cannot be read: {error}", stream=feed.name))

    def _tell(self, feed: Feed, found: bytes) -> None:
        for subscriber in list(self.subscribers):
            if any(pattern.may_be(feed.fixed) for pattern in subscriber.held):
                subscriber.tell(found)
                subscriber.outbox.flush()

    def replay(self, max_rows: int = 256) -> bool:
        """One step of history for one subscriber, in turns; False when nobody has use for more now."""
        for _ in range(len(self._reading)):
            subscriber = next(iter(self._reading))
            del self._reading[subscriber]
            rows = subscriber.replay(max_rows)
            if subscriber.histories:
                self._reading[subscriber] = None
            if rows:
                self.metrics.replayed += rows
                return True
        return False

    @property
    def has_histories(self) -> bool:
        """Whether somebody has something to be read from the log."""
        return bool(self._reading)

    def wants_history(self, subscriber: Subscriber) -> None:
        """A subscriber has something to be read from the log."""
        self._reading[subscriber] = None

    def behind(self, subscriber: Subscriber, feed: Feed) -> None:
        """A subscriber has fallen behind and goes on from the log."""
        self.metrics.behind += 1
        self.wants_history(subscriber)
        subscriber.join(feed)

    def snapshot(self, wanted: Wanted, encoding: Encoding) -> Iterator[bytes]:
        """Frames with the latest message of each symbol that is wanted."""
        for feed in self.feeds_of(wanted.patterns):
            latest = self._latest.get(feed.name)
            if latest is None:
                latest = self._latest[feed.name] = Latest(feed)
            yield from latest.frames(wanted, encoding)
