"""One connected client: its patterns, the lanes and histories that bring them, and its outbox.

Each message comes once, however many patterns it fits, and whatever is replayed meanwhile:

* the plain patterns of a client share one lane per feed; conflating ones have another, without what the plain take;
* a history leaves out what the client's other patterns bring (`Overlap`), and joins the live lane when it is through.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from penstock.clock import time_ns
from penstock.errors import PenstockError, UsageError
from penstock.log.pick import When
from penstock.plant.feed import Feed
from penstock.plant.history import History, Overlap
from penstock.plant.lanes import Lane
from penstock.plant.outbox import Outbox, OutboxStatistics, Wire
from penstock.plant.parcels import Encoding
from penstock.plant.patterns import Pattern, Wanted
from penstock.plant.protocol import Action, Code, status
from penstock.plant.session import Act, Ask, Authenticated, Close, Question, Reply, Session

if TYPE_CHECKING:
    from penstock.plant.plant import Plant

__all__ = ["Subscriber", "SubscriberStatistics"]

_log: Final = logging.getLogger("penstock.plant")


@dataclass(frozen=True, slots=True)
class SubscriberStatistics:
    """One client: who it is and from where, since when (ns), what it wants, what it got and what waits for it.

    replaying   streams of which it reads history, and the rows it is behind
    """

    who: str | None
    peer: str
    opened: int
    patterns: tuple[str, ...]
    replaying: dict[str, int]
    outbox: OutboxStatistics


@dataclass(slots=True)
class _Held:
    """A pattern of the client: how it conflates, from which offset of each feed on it comes, and where it is live."""

    conflate: int | None
    begins: dict[str, int] = field(default_factory=dict)
    live: set[str] = field(default_factory=set)


class Subscriber:
    """A client of a plant; made by `Plant.attach`. Not thread-safe: all of a plant runs in one thread.

    Takes   wire; is_arrow: whether it speaks `penstock.arrow.v1`; peer: where it comes from, for people.
    """

    def __init__(self, plant: Plant, wire: Wire, *, is_arrow: bool, peer: str, now: int) -> None:
        self.plant, self.peer, self.opened = plant, peer, now
        self.session = Session(plant.check, plant.limits, now)
        self.outbox = Outbox(
            wire,
            max_bytes=plant.limits.outbox_bytes,
            max_messages=plant.limits.outbox_messages,
            policy=plant.policy,
            encoding=Encoding(is_arrow=is_arrow),
            on_behind=self._behind,
        )
        self.is_admitted = False
        self._taken, self._moved = 0, now
        self.held: dict[Pattern, _Held] = {}
        self.histories: list[History] = []
        self._lanes: dict[tuple[str, int | None], Lane] = {}

    @property
    def who(self) -> str | None:
        """The name of its token; None until it has shown one."""
        return self.session.who

    def received(self, data: str | bytes, now: int) -> None:
        """A message of the client."""
        self._do(self.session.received(data, now), now)

    def tell(self, *found: bytes) -> None:
        """Say these statuses, in the words of its dialect."""
        self.outbox.say(self.outbox.encoding.statuses(*found))

    def tick(self, now: int) -> None:
        """Close it if it has not shown a key in time, or takes nothing of what waits for it."""
        overdue = self.session.overdue(now)
        if overdue is not None:
            self._do([overdue], now)
        outbox = self.outbox
        pending = outbox.wire.pending()
        taken = outbox.bytes_out - pending
        if taken != self._taken or (not pending and outbox.is_idle):
            self._taken, self._moved = taken, now
        elif now - self._moved >= self.plant.limits.stalled_seconds * 1e9 and not outbox.is_closed:
            self.close(Code.POLICY, "takes nothing")

    def statistics(self) -> SubscriberStatistics:
        """What it wants, what it got, what waits."""
        replaying = {history.feed.name: history.feed.position - history.offset for history in self.histories}
        patterns = tuple(str(pattern) for pattern in self.held)
        return SubscriberStatistics(self.who, self.peer, self.opened, patterns, replaying, self.outbox.statistics())

    def close(self, code: Code, reason: str) -> None:
        """End the connection."""
        self.outbox.close(code, reason)

    def _do(self, acts: list[Act], now: int) -> None:
        for act in acts:
            if isinstance(act, Reply):
                self.outbox.say(act.frame)
            elif isinstance(act, Close):
                self.close(act.code, act.reason)
            elif isinstance(act, Authenticated):
                if self.plant.admit(self):
                    self.tell(status("auth_success", "authenticated"))
                else:
                    self.tell(status("max_connections", "too many connections of this key"))
                    self.close(Code.POLICY, "too many connections of this key")
            elif isinstance(act, Question):
                self.plant.asked(self, act)
            else:
                self._answer(act, now)
        self.outbox.flush()

    def _answer(self, ask: Ask, now: int) -> None:
        told = list(ask.wrong)
        if ask.action.name == "subscribe":
            told += self._subscribe(ask.action, ask.patterns)
            if ask.action.snapshot:
                # Before the status, which says from which offsets on messages come: these are of older ones.
                self._snapshot(ask.patterns)
        elif ask.action.name == "unsubscribe":
            told += self._unsubscribe(ask.patterns)
        else:
            told += self._snapshot(ask.patterns)
        if told:
            self.tell(*told)

    # -- what it wants

    def _subscribe(self, action: Action, patterns: list[Pattern]) -> list[bytes]:
        told, good = list[bytes](), list[Pattern]()
        for pattern in patterns:
            if not self.plant.serves(pattern):
                served = ", ".join(self.plant.events()) or "nothing yet"
                told.append(status("error", f"no such channel: {pattern} (this plant has {served})"))
            elif len(self.held) + len(good) >= self.plant.limits.subscriptions and pattern not in self.held:
                told.append(status("error", f"too many subscriptions: {pattern} (the limit is {len(self.held)})"))
            else:
                good.append(pattern)
        if action.seq is not None and action.seq != self.outbox.encoding.seq:
            self._leave_all()
            self.outbox.encoding = Encoding(action.seq, self.outbox.encoding.is_arrow)
            self._join_all()
        if action.policy is not None:
            self.outbox.policy = action.policy
        if not good:
            return told
        try:
            histories = self._histories(action, good)
        except PenstockError as error:
            return [*told, *(status("error", f"cannot subscribe to: {pattern} ({error})") for pattern in good)]
        feeds = self.plant.feeds_of(good)
        replayed = {history.feed.name for history in histories}
        for pattern in good:
            self._forget(pattern)
            held = self.held[pattern] = _Held(action.conflate)
            for feed in feeds:
                if pattern.may_be(feed.fixed) and feed.name not in replayed:
                    self._go_live(pattern, held, feed)
        for history in histories:
            for pattern in history.wanted.patterns:
                self.held[pattern].begins[history.feed.name] = history.begin
            history.overlaps = self._overlaps(history)
            self.histories.append(history)
            self.plant.wants_history(self)
        self._join_all()
        # Where each stream begins for this client: from there it can go on, if it is cut before the first message.
        begins = {feed.name: next((h.begin for h in histories if h.feed is feed), feed.position) for feed in feeds}
        return [*told, *(status("success", f"subscribed to: {pattern}", streams=begins) for pattern in good)]

    def _histories(self, action: Action, patterns: list[Pattern]) -> list[History]:
        since = action.since
        if since is None:
            return []
        feeds = self.plant.feeds_of(patterns)
        if isinstance(since, int) and len(feeds) > 1:
            names = ", ".join(feed.name for feed in feeds)
            raise UsageError(
                f"{patterns[0]} is made of the streams {names}", hint='give since as {"STREAM": OFFSET, …}'
            )
        histories = []
        for feed in feeds:
            start: When
            moment = None
            if isinstance(since, dict):
                if feed.name in since:
                    start = since[feed.name]
                elif since.get("*") == 0:  # streams that the client does not know yet: all of them
                    start = "start"
                else:
                    continue
            else:
                start = since
                if isinstance(since, str) and since not in ("start", "end"):
                    moment = time_ns(since, name="since")
            while isinstance(start, int) and start > feed.position and self.plant.publish([feed]):
                pass  # it comes from another plant of this hub, which was quicker
            if isinstance(start, int) and start > feed.position:
                raise UsageError(
                    expected=f"since at most {feed.position}, the end of stream {feed.name!r}", got=repr(start)
                )
            wanted = Wanted(pattern for pattern in patterns if pattern.may_be(feed.fixed))
            if start != "end":
                histories.append(History(feed, wanted, start, overlaps=[], since_ns=moment))
        if len(self.histories) + len(histories) > self.plant.limits.histories:
            raise UsageError(f"too many histories at once: the limit is {self.plant.limits.histories}")
        return histories

    def _overlaps(self, history: History) -> list[Overlap]:
        name = history.feed.name
        return [
            Overlap(pattern, held.begins[name])
            for pattern, held in self.held.items()
            if name in held.begins and pattern not in history.wanted.patterns
        ]

    def _go_live(self, pattern: Pattern, held: _Held, feed: Feed) -> None:
        """From the feed's position on, the pattern comes by a lane: no history has to bring it any more."""
        held.begins.setdefault(feed.name, feed.position)
        held.live.add(feed.name)
        for history in self.histories:
            if history.feed is feed and pattern not in history.wanted.patterns:
                history.overlaps.append(Overlap(pattern, feed.position))

    def _unsubscribe(self, patterns: list[Pattern]) -> list[bytes]:
        told = []
        for pattern in patterns:
            covered = [held for held in self.held if _covers(pattern, held)]
            for held in covered:
                self._forget(held)
            if covered:
                told.append(status("success", f"unsubscribed to: {pattern}"))
            else:
                told.append(status("error", f"not subscribed to: {pattern}"))
        self._join_all()
        return told

    def _forget(self, pattern: Pattern) -> None:
        if self.held.pop(pattern, None) is None:
            return
        for history in self.histories:
            for overlap in history.overlaps:
                if overlap.pattern == pattern:
                    overlap.end = min(overlap.end, self._reached(pattern, history.feed))
        for history in [h for h in self.histories if pattern in h.wanted.patterns]:
            left = Wanted(history.wanted.patterns - {pattern})
            if left:
                history.wanted = left
            else:
                self.histories.remove(history)

    def _reached(self, pattern: Pattern, feed: Feed) -> int:
        """Up to which offset the pattern has come."""
        return next(
            (h.offset for h in self.histories if h.feed is feed and pattern in h.wanted.patterns), feed.position
        )

    def _snapshot(self, patterns: list[Pattern]) -> list[bytes]:
        for frame in self.plant.snapshot(Wanted(patterns), self.outbox.encoding):
            self.outbox.say(frame)
        return [status("success", f"snapshot of: {pattern}") for pattern in patterns]

    # -- lanes

    def join(self, feed: Feed) -> None:
        """Be on the lanes of this feed that fit what is held: after any change, and for a feed that is new."""
        groups: dict[int | None, set[Pattern]] = {}
        for pattern, held in self.held.items():
            if not pattern.may_be(feed.fixed):
                continue
            if feed.name not in held.begins:
                self._go_live(pattern, held, feed)
            if feed.name in held.live:
                groups.setdefault(held.conflate, set()).add(pattern)
        wanted, taken = dict[int | None, Wanted](), set[Pattern]()
        for conflate in sorted(groups, key=lambda value: -1 if value is None else value):
            wanted[conflate] = Wanted(groups[conflate], taken)
            taken |= groups[conflate]
        router, encoding = self.plant.router(feed.name), self.outbox.encoding
        # First off what does not fit any more: another of its lanes may be the one that is joined then.
        for name, conflate in [key for key in self._lanes if key[0] == feed.name]:
            lane, due = self._lanes[name, conflate], wanted.get(conflate)
            if due is None or lane.encoding != encoding or not (lane.wanted == due or router.change(lane, due)):
                self._leave(name, conflate)
        for conflate, due in wanted.items():
            if (feed.name, conflate) not in self._lanes:
                self._lanes[feed.name, conflate] = router.join(due, encoding, self.outbox, conflate)

    def _leave(self, name: str, conflate: int | None) -> None:
        self.plant.router(name).leave(self._lanes.pop((name, conflate)), self.outbox)

    def _join_all(self) -> None:
        for feed in self.plant.feeds.values():
            self.join(feed)

    def _leave_all(self) -> None:
        for name, conflate in list(self._lanes):
            self._leave(name, conflate)

    def lose(self, feed: Feed) -> None:
        """The stream is gone; one of its name may come again."""
        for name, conflate in [key for key in self._lanes if key[0] == feed.name]:
            self._leave(name, conflate)
        self.histories = [history for history in self.histories if history.feed is not feed]
        for held in self.held.values():
            held.begins.pop(feed.name, None)
            held.live.discard(feed.name)

    def detach(self) -> None:
        """Off all lanes: the connection is gone."""
        self._leave_all()
        self.held.clear()
        self.histories.clear()

    # -- history

    def replay(self, max_rows: int) -> int:
        """One step of one history; returns the rows read, 0 when there is nothing to do now."""
        if not self.histories or self.outbox.room <= 0 or self.outbox.is_closed:
            return 0
        history = self.histories.pop(0)  # in turns
        before = history.rows
        try:
            for parcel in history.step(self.outbox.encoding, max_rows):
                self.outbox.put_history(parcel)
        except Exception as error:  # whatever a stream holds, the others go on
            if not isinstance(error, PenstockError):
                _log.exception("history of stream %s cannot be read", history.feed.name)
            self.tell(status("error", f"history of {history.feed.name} ends: {error}"))
            self.close(Code.INTERNAL, "history cannot be read")
            return 0
        if history.is_done:
            for pattern in history.wanted.patterns:
                self._go_live(pattern, self.held[pattern], history.feed)
            self.join(history.feed)
        else:
            self.histories.append(history)
        self.outbox.flush()
        return max(history.rows - before, 1)

    def _behind(self, begins: dict[str, int]) -> None:
        """The outbox was full and gave messages up, from these offsets on: they come again from the log."""
        for name, begin in begins.items():
            feed = self.plant.feeds[name]
            patterns = {p for p, held in self.held.items() if name in held.live and held.conflate is None}
            if not patterns:
                continue
            try:
                history = History(feed, Wanted(patterns), begin, overlaps=[])
            except PenstockError as error:  # so late that the log has dropped what it missed
                self.tell(status("error", f"cannot catch up with {name}: {error}", stream=name))
                self.close(Code.POLICY, "slow consumer")
                return
            for pattern in patterns:
                self.held[pattern].live.discard(name)
            history.overlaps = self._overlaps(history)
            self.histories.append(history)
            self.plant.behind(self, feed)


def _covers(pattern: Pattern, held: Pattern) -> bool:
    """Whether all that `held` brings fits `pattern`."""
    if pattern == held:
        return True
    return pattern.is_prefix and pattern.event in ("*", held.event) and held.symbol.startswith(pattern.symbol)
