"""The latest message of each symbol: what a conflating outbox holds instead of a queue, and what a snapshot is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pyarrow as pa

from penstock.plant import arrow
from penstock.plant.feed import Feed
from penstock.plant.parcels import MAX_FRAME, Encoding, Parcel
from penstock.plant.patterns import Wanted
from penstock.plant.protocol import binary_frame

__all__ = ["Kept", "Missed", "kept"]


class Missed:
    """What of a stream was left out: `count` messages, between the offsets `first` and `last`."""

    __slots__ = ("count", "first", "last")

    def __init__(self, first: int, last: int, count: int) -> None:
        self.first, self.last, self.count = first, last, count

    def add(self, first: int, last: int, count: int) -> None:
        if first < self.first:
            self.first = first
        if last > self.last:
            self.last = last
        self.count += count


class Kept(Protocol):
    """Folds parcels to the latest message of each symbol of each stream.

    size     bytes held, or more: `compact` finds out;  count  messages held
    missed   what was replaced, by stream
    fold     a parcel later than all so far; `fold_older` one that is earlier than all so far
    frames   of those that are `wanted`, each stream's in the order of its offsets
    """

    size: int

    @property
    def count(self) -> int: ...

    def fold(self, parcel: Parcel) -> None: ...

    def fold_older(self, parcel: Parcel) -> None: ...

    def compact(self) -> None: ...

    def missed(self) -> dict[str, Missed]: ...

    def frames(self, wanted: Wanted | None = None) -> list[bytes]: ...


def kept(encoding: Encoding) -> Kept:
    """An empty one for this encoding."""
    return _KeptArrow() if encoding.is_arrow else _KeptJson(encoding)


class _Stream:
    """Of one stream: the latest by symbol, or by (event, symbol) where each message has its own event."""

    __slots__ = ("feed", "first", "folded", "last", "latest", "pieces", "rows")

    def __init__(self, feed: Feed, first: int) -> None:
        self.feed, self.first, self.last, self.folded = feed, first, first, 0
        self.latest: dict[Any, Any] = {}
        self.pieces: list[_Piece] = []
        self.rows = 0

    def wants(self, wanted: Wanted | None, name: Any) -> bool:
        if wanted is None:
            return True
        event, symbol = name if isinstance(name, tuple) else (self.feed.event or "", name)
        return wanted.matches(event, symbol)


class _Base:
    def __init__(self) -> None:
        self.streams: dict[str, _Stream] = {}
        self.size = 0

    @property
    def count(self) -> int:
        return sum(len(stream.latest) for stream in self.streams.values())

    def stream(self, parcel: Parcel) -> _Stream:
        """Where the parcel belongs; it is counted there."""
        feed = parcel.feed
        found = self.streams.get(feed.name)
        if found is None:
            found = self.streams[feed.name] = _Stream(feed, parcel.first)
        found.folded += parcel.count
        found.first, found.last = min(found.first, parcel.first), max(found.last, parcel.last)
        return found

    def missed(self) -> dict[str, Missed]:
        return {
            name: Missed(stream.first, stream.last, stream.folded - len(stream.latest))
            for name, stream in self.streams.items()
            if stream.folded > len(stream.latest)
        }


class _KeptJson(_Base):
    """(offset, message) by name.   Cost  of every stalled client: about 20 ns a symbol of a parcel."""

    def __init__(self, encoding: Encoding) -> None:
        super().__init__()
        self._encoding = encoding

    def fold(self, parcel: Parcel) -> None:
        self.stream(parcel).latest.update(parcel.latest(self._encoding))
        self.size += len(parcel.frame)

    def fold_older(self, parcel: Parcel) -> None:
        latest = self.stream(parcel).latest
        for name, held in parcel.latest(self._encoding).items():
            latest.setdefault(name, held)
        self.size += len(parcel.frame)

    def compact(self) -> None:
        found = [len(message) for stream in self.streams.values() for _, message in stream.latest.values()]
        self.size = sum(found) + len(found)

    def frames(self, wanted: Wanted | None = None) -> list[bytes]:
        found, at, size = list[bytes](), list[bytes](), 0
        for message in self._messages(wanted):
            if at and size + len(message) > MAX_FRAME:
                found.append(self._encoding.frame(at))
                at, size = [], 0
            at.append(message)
            size += len(message) + 1
        if at:
            found.append(self._encoding.frame(at))
        return found

    def _messages(self, wanted: Wanted | None) -> Iterator[bytes]:
        for stream in self.streams.values():
            latest = stream.latest
            if wanted is not None:
                latest = {name: held for name, held in latest.items() if stream.wants(wanted, name)}
            for _, message in sorted(latest.values()):
                yield message


class _Piece:
    """Some rows of a stream, with their offsets."""

    __slots__ = ("batch", "offsets")

    def __init__(self, batch: pa.RecordBatch, offsets: list[int]) -> None:
        self.batch, self.offsets = batch, offsets

    def taken(self, rows: list[int]) -> _Piece:
        # take, not slice: a view would hold on to the whole.
        return _Piece(self.batch.take(pa.array(rows, pa.int64())), [self.offsets[row] for row in rows])


class _KeptArrow(_Base):
    """Pieces of batches, compacted to the latest row of each name whenever twice as many rows are held as names."""

    def fold(self, parcel: Parcel) -> None:
        self._fold(parcel, is_older=False)

    def fold_older(self, parcel: Parcel) -> None:
        self._fold(parcel, is_older=True)

    def _fold(self, parcel: Parcel, *, is_older: bool) -> None:
        burst, stream = parcel.burst, self.stream(parcel)
        assert burst is not None
        names = burst.names()
        rows = range(len(burst)) if parcel.rows is None else parcel.rows
        found = dict(zip((names[row] for row in rows), rows, strict=True))
        last = sorted(row for name, row in found.items() if not (is_older and name in stream.latest))
        if not last:
            return
        piece = _Piece(burst.batch, list(range(burst.first, burst.stop))).taken(last)
        stream.latest.update((names[row], burst.first + row) for row in last)
        stream.pieces.append(piece)
        stream.rows += len(last)
        self.size += int(piece.batch.nbytes)
        if stream.rows > 2 * len(stream.latest) + 256:
            self.compact()

    def compact(self) -> None:
        self.size = 0
        for stream in self.streams.values():
            stream.pieces = self._wanted(stream, None)
            stream.rows = len(stream.latest)
            self.size += sum(int(piece.batch.nbytes) for piece in stream.pieces)

    def _wanted(self, stream: _Stream, wanted: Wanted | None) -> list[_Piece]:
        offsets = {offset for name, offset in stream.latest.items() if stream.wants(wanted, name)}
        left = []
        for piece in stream.pieces:
            rows = [at for at, offset in enumerate(piece.offsets) if offset in offsets]
            if rows:
                left.append(piece.taken(rows))
        return left

    def frames(self, wanted: Wanted | None = None) -> list[bytes]:
        found = []
        for name, stream in self.streams.items():
            pieces = self._wanted(stream, wanted)
            for schema in dict.fromkeys(piece.batch.schema for piece in pieces):
                same = [piece for piece in pieces if piece.batch.schema.equals(schema)]
                batch = pa.Table.from_batches([piece.batch for piece in same]).combine_chunks().to_batches()[0]
                offsets = pa.array([offset for piece in same for offset in piece.offsets], pa.int64())
                found.append(binary_frame(arrow.encode(batch, offsets, name, stream.feed.event, stream.feed.root)))
        return found
