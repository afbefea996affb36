"""What waits for one subscriber: bounded, written in one piece, with a stated policy when it is full.

The fan-out never waits for a socket: it puts a parcel here and goes on. `flush` hands the wire what it takes now, all
in one write; the rest stays until the wire says that it takes more. Whatever a subscriber misses it is told:

    {"ev":"status","status":"conflated" or "slow_consumer","message":…,"stream":S,"from":A,"to":B,"missed":N}

N messages between the offsets A and B of stream S did not come, or will not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from penstock.plant.feed import Feed
from penstock.plant.kept import Kept, Missed, kept
from penstock.plant.parcels import Encoding, Parcel
from penstock.plant.protocol import Code, Policy, status

__all__ = ["Outbox", "OutboxStatistics", "Wire"]

_WIRE_HIGH: Final = 64 << 10
_WRITE: Final = 256 << 10
_FOLDS: Final = 4
"""Parcels that waited, folded for each new one: many clients that are full at once would hold up the others."""


class Wire(Protocol):
    """A connection as the plant sees it. Nothing here waits.

    write      take bytes: whole WebSocket frames;  pending  how many of them the socket has not taken yet
    close      send a close frame behind them, and end the connection soon, whether the other side answers or not
    """

    def write(self, data: bytes) -> None: ...

    def pending(self) -> int: ...

    def close(self, code: int, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class OutboxStatistics:
    """Of one subscriber: what was written, what waits, what it missed, how often it was behind."""

    messages: int
    frames: int
    bytes: int
    writes: int
    queued_messages: int
    queued_bytes: int
    missed: int
    overflows: int


class Outbox:
    """The queue of one subscriber.

    Takes   wire; max_bytes, max_messages: that may wait here; on_behind: called with the offset per stream from which
            on messages were given up, for the policy CATCH_UP.
    """

    def __init__(
        self,
        wire: Wire,
        *,
        max_bytes: int = 4 << 20,
        max_messages: int = 50_000,
        policy: Policy = Policy.DISCONNECT,
        encoding: Encoding | None = None,
        on_behind: Callable[[dict[str, int]], None] | None = None,
    ) -> None:
        self.wire, self.policy, self.encoding = wire, policy, encoding or Encoding()
        self.max_bytes, self.max_messages, self._on_behind = max_bytes, max_messages, on_behind
        self._queue: deque[Parcel | bytes] = deque()
        self._bytes = self._count = 0
        self._missed: dict[str, Missed] = {}  # dropped and not told yet
        self._kept: Kept | None = None  # while it conflates
        self._older: list[Parcel] = []  # what waited when that began, to be folded; part of _bytes and _count
        self._by_interval: dict[int, tuple[int, Kept]] = {}  # when it is due, in ns
        self.is_closed = False
        self.messages_out = self.frames_out = self.bytes_out = self.writes = self.missed = self.overflows = 0

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits here."""
        return not self._queue and self._kept is None and not self._missed

    @property
    def room(self) -> int:
        """Bytes that history may still put here: half of the limit is for what is live."""
        if self._count * 2 > self.max_messages:
            return 0
        return self.max_bytes // 2 - self._bytes

    def statistics(self) -> OutboxStatistics:
        """What was written, and what waits."""
        held = 0 if self._kept is None else self._kept.size
        count = 0 if self._kept is None else self._kept.count
        return OutboxStatistics(
            self.messages_out, self.frames_out, self.bytes_out, self.writes,
            self._count + count, self._bytes + held, self.missed, self.overflows,
        )  # fmt: skip

    # -- in

    def put(self, parcel: Parcel) -> None:
        """Messages for the subscriber. If there is no room, its policy takes effect."""
        if self.is_closed:
            return
        if self._kept is not None:
            self._fold(self._kept, parcel)
            if self._older:
                self._fold_older(self._kept, _FOLDS)
            return
        size = self._bytes + len(parcel.frame)
        count = self._count + parcel.count
        if (size > self.max_bytes or count > self.max_messages) and self._queue:
            self._overflow(parcel)
            return
        self._queue.append(parcel)
        self._bytes, self._count = size, count

    def put_history(self, parcel: Parcel) -> None:
        """Messages from the log, of one who asked for them while there was `room`: they are never left out."""
        if not self.is_closed:
            parcel.is_history = True
            parcel.lighten()
            self._queue.append(parcel)
            self._bytes += len(parcel.frame)
            self._count += parcel.count

    def put_latest(self, parcel: Parcel, interval_ms: int, now: int) -> None:
        """Messages of which only the latest of each symbol is wanted.

        They go at once if `interval_ms` is 0 and the wire is free; else they are folded until it is, or until the
        interval is over.
        """
        if self.is_closed:
            return
        if interval_ms:
            found = self._by_interval.get(interval_ms)
            if found is None:
                found = self._by_interval[interval_ms] = now + interval_ms * 1_000_000, kept(self.encoding)
            self._fold(found[1], parcel)
        elif self._kept is None and not self._queue and self.wire.pending() < _WIRE_HIGH:
            self.put(parcel)
        else:
            if self._kept is None:
                self._kept = kept(self.encoding)
            self._fold(self._kept, parcel)

    def say(self, frame: bytes) -> None:
        """A frame of statuses: in order with the messages, and never left out."""
        if self.is_closed or not frame:
            return
        self._queue.append(frame)
        self._bytes += len(frame)
        if self._bytes > self.max_bytes * 2:
            self._cut(None)  # it asks and does not read the answers

    def due(self, now: int) -> bool:
        """Move what was folded for an interval that is over to the queue; True if there was any."""
        ready = [interval for interval, (when, _) in self._by_interval.items() if when <= now]
        for interval in ready:
            for frame in self._by_interval.pop(interval)[1].frames():
                self._queue.append(frame)
                self._bytes += len(frame)
        return bool(ready)

    def next_due(self) -> int | None:
        """When `due` has something to do, in ns."""
        return min((when for when, _ in self._by_interval.values()), default=None)

    # -- out

    def flush(self) -> None:
        """Hand the wire what it takes now. Called when something was put here, and when the wire takes more."""
        queue, wire = self._queue, self.wire
        while not self.is_closed and wire.pending() < _WIRE_HIGH:
            if self._missed:
                self._tell()
            if not queue:
                if self._kept is None:
                    return
                self._unfold()
            item = queue.popleft()
            if isinstance(item, bytes):
                data, count = item, 0
            else:
                data, count = item.frame, item.count
            frames = 1
            if queue:
                data, count, frames = self._gather(data, count)
            self._bytes -= len(data)
            self._count -= count
            self.messages_out += count
            self.frames_out += frames
            self.bytes_out += len(data)
            self.writes += 1
            wire.write(data)

    def _gather(self, first: bytes, count: int) -> tuple[bytes, int, int]:
        """As many frames as one write is good for."""
        queue, parts, size = self._queue, [first], len(first)
        while queue and size < _WRITE:
            item = queue.popleft()
            if isinstance(item, bytes):
                data = item
            else:
                data, count = item.frame, count + item.count
            parts.append(data)
            size += len(data)
        return b"".join(parts), count, len(parts)

    # -- when it is full

    def _overflow(self, parcel: Parcel) -> None:
        self.overflows += 1
        if self.policy is Policy.DISCONNECT:
            self._cut(parcel)
        elif self.policy is Policy.CONFLATE:
            size, count = self._bytes, self._count
            # Messages that came before the client's policy was this one stay in the queue, as frames.
            self._older = self._take_live(lambda item: item.burst is not None)
            self._bytes, self._count = size, count
            self._kept = kept(self.encoding)
            self._fold(self._kept, parcel)
        elif self.policy is Policy.CATCH_UP and self._on_behind is not None:
            self._give_up(parcel)
        else:
            self._drop(parcel)

    def _fold(self, held: Kept, parcel: Parcel) -> None:
        held.fold(parcel)
        if held.size > self.max_bytes:
            held.compact()
            if held.size > self.max_bytes:
                self._cut(parcel)  # even the latest of each symbol is too much

    def _fold_older(self, held: Kept, most: int) -> None:
        """The last of what waited first: an earlier message of a symbol that is there is not wanted."""
        older = self._older
        for _ in range(min(most, len(older))):
            item = older.pop()
            self._bytes -= len(item.frame)
            self._count -= item.count
            held.fold_older(item)

    def _unfold(self) -> None:
        assert self._kept is not None
        self._fold_older(self._kept, len(self._older))
        held, self._kept = self._kept, None
        for stream, missed in held.missed().items():
            self.missed += missed.count
            self._queue.append(self._told("conflated", "kept the latest of each symbol", stream, missed))
            self._bytes += len(self._queue[-1])  # type: ignore[arg-type]
        count = held.count
        for frame in held.frames():
            self._queue.append(frame)
            self._bytes += len(frame)
        self.messages_out += count

    def _drop(self, parcel: Parcel) -> None:
        """Make room by the oldest messages."""
        queue, left = self._queue, deque[Parcel | bytes]()
        size, most = len(parcel.frame), self.max_messages - parcel.count
        while queue and (self._bytes + size > self.max_bytes or self._count > most):
            item = queue.popleft()
            if isinstance(item, bytes) or item.is_history:
                left.append(item)
                continue
            self._bytes -= len(item.frame)
            self._count -= item.count
            self._miss([item])
        queue.extendleft(reversed(left))
        queue.append(parcel)
        self._bytes += size
        self._count += parcel.count

    def _miss(self, items: Sequence[Parcel]) -> None:
        feed: Feed | None = None
        for item in items:
            if item.feed is not feed:  # nearly always the one of before
                feed = item.feed
                found = self._missed.setdefault(feed.name, Missed(item.first, item.last, 0))
            found.add(item.first, item.last, item.count)
            self.missed += item.count

    def _tell(self) -> None:
        told = [
            self._told("slow_consumer", "dropped the oldest messages", stream, missed)
            for stream, missed in self._missed.items()
        ]
        self._missed = {}
        self._queue.extendleft(reversed(told))
        self._bytes += sum(map(len, told))

    def _take_live(self, wanted: Callable[[Parcel], bool] | None = None) -> list[Parcel]:
        """Take what is live, and `wanted`, out of the queue; statuses and history stay."""
        live = [item for item in self._queue if not isinstance(item, bytes) and not item.is_history]
        if wanted is not None:
            live = [item for item in live if wanted(item)]
        if len(live) == len(self._queue):
            self._queue.clear()
        else:
            taken = set(map(id, live))
            self._queue = deque(item for item in self._queue if id(item) not in taken)
        self._bytes = self._count = 0
        for item in self._queue:
            if isinstance(item, bytes):
                self._bytes += len(item)
            else:
                self._bytes += len(item.frame)
                self._count += item.count
        return live

    def _give_up(self, parcel: Parcel) -> None:
        """Forget what is live in the queue: it will be read from the log again."""
        begins: dict[str, int] = {}
        feed: Feed | None = None
        for item in [*self._take_live(), parcel]:
            if item.feed is not feed:
                feed = item.feed
                begins.setdefault(feed.name, item.first)
        assert self._on_behind is not None
        self._on_behind(begins)

    def _cut(self, parcel: Parcel | None) -> None:
        """Say what it missed, and close."""
        self._miss([item for item in self._queue if not isinstance(item, bytes)])
        self._miss(self._older)
        self._miss([] if parcel is None else [parcel])
        told = [
            self._told("slow_consumer", "did not keep up and is cut off", stream, missed)
            for stream, missed in self._missed.items()
        ]
        self._queue.clear()
        self._missed, self._kept, self._older, self._by_interval = {}, None, [], {}
        self._bytes = self._count = 0
        if not self.is_closed:
            self.wire.write(b"".join(told))
            self.close(Code.POLICY, "slow consumer")

    def close(self, code: Code, reason: str) -> None:
        """Hand the wire what it takes, the statuses that wait in any case, and close it."""
        if self.is_closed:
            return
        self.flush()
        said = b"".join(item for item in self._queue if isinstance(item, bytes))
        if said:
            self.wire.write(said)
        self.is_closed = True
        self._queue.clear()
        self._kept, self._older, self._by_interval = None, [], {}
        self._bytes = self._count = 0
        self.wire.close(code, reason)

    def _told(self, kind: str, message: str, stream: str, missed: Missed) -> bytes:
        text = f"{message}: {missed.count} messages of {stream} missed"
        facts = {"stream": stream, "from": missed.first, "to": missed.last, "missed": missed.count}
        return self.encoding.statuses(status(kind, text, **facts))
