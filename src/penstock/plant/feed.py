"""A stream as a source of messages: rows of the log, read where the plant stands, turned into bursts.

A burst is some consecutive rows of one stream with their messages, each encoded once, for all who get them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import msgspec
import pyarrow as pa

from penstock.log import Chunk, Reader, Stream
from penstock.log.pick import When
from penstock.plant.messages import Made, Mapper, apart, event_of, mapper

__all__ = ["Burst", "Cursor", "Feed"]


class Burst:
    """Rows [first, stop) of one stream as messages.

    event     what all messages are, or None when each has its own: then `events` has them;  symbols  of each row
    created   append time of the last row, in ns
    """

    __slots__ = (
        "_make", "_messages", "_names", "_numbered", "_others", "batch", "created", "events", "feed", "first",
        "symbols",
    )  # fmt: skip

    def __init__(self, feed: Feed, chunk: Chunk, made: Made) -> None:
        self.feed = feed
        self.batch, self.first, self.created = chunk.batch, chunk.first, int(chunk.created[-1])
        self.events, self.symbols, self._make = made
        self._messages: list[bytes] | None = None
        self._numbered: list[bytes] | None = None
        self._names: list[tuple[str, str]] | None = None
        self._others: dict[Hashable, list[bytes]] | None = None

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def stop(self) -> int:
        """Offset after the last row."""
        return self.first + len(self.symbols)

    def messages(self, seq: bool) -> list[bytes]:
        """The messages as JSON; with `seq` each carries its offset and stream. Made once."""
        if self._messages is None:
            self._messages = self._make()
        if not seq:
            return self._messages
        if self._numbered is None:
            end, first = self.feed.seq_end, self.first
            messages = apart(self._messages) if self.feed.is_mixed else self._messages
            self._numbered = [b'%b,"seq":%d%b' % (m[:-1], first + at, end) for at, m in enumerate(messages)]
        return self._numbered

    def other(self, name: Hashable, make: Callable[[], list[bytes]]) -> list[bytes]:
        """The messages in another dialect, by its name. Made once."""
        if self._others is None:
            self._others = {}
        found = self._others.get(name)
        if found is None:
            found = self._others[name] = make()
        return found

    def key(self, row: int) -> tuple[str, str]:
        """(event, symbol) of a row."""
        event = self.feed.event if self.events is None else self.events[row]
        return event or "", self.symbols[row]

    def names(self) -> list[str] | list[tuple[str, str]]:
        """What tells the rows of this feed apart: symbols; (event, symbol) where each message has its own event."""
        if self.events is None:
            return self.symbols
        if self._names is None:
            self._names = list(zip(self.events, self.symbols, strict=True))
        return self._names

    def keys(self) -> list[tuple[str, str]]:
        """(event, symbol) of each row."""
        if self.events is not None:
            return self.names()  # type: ignore[return-value]
        event = self.feed.event or ""
        return [(event, symbol) for symbol in self.symbols]


class Cursor:
    """Rows of a stream, at most so many at a time, even if one append has more."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._left: Chunk | None = None

    @property
    def offset(self) -> int:
        """Offset of the next row."""
        return self._reader.offset if self._left is None else self._left.first

    @property
    def is_at_end(self) -> bool:
        """Whether the last `poll` has seen that there was no more."""
        return self._left is None and self._reader.is_at_end

    def poll(self, max_rows: int, stop: int | None = None) -> Chunk | None:
        """The next rows, those before offset `stop`; None when there are none."""
        chunk = self._left
        if chunk is None:
            reader = self._reader
            chunk = reader.poll(max_rows, 1 << 20) if stop is None else reader.poll_until(stop, max_rows, 1 << 20)
            if chunk is None:
                return None
        if len(chunk) <= max_rows:
            self._left = None
            return chunk
        self._left = chunk.slice(max_rows, len(chunk))
        return chunk.slice(0, max_rows)

    def look(self) -> Chunk | None:
        """Some of the rows that come next, which the next `poll` gives, too."""
        if self._left is None:
            self._left = self._reader.poll(1)
        return self._left

    def skip(self, offset: int) -> None:
        """Go on at `offset`; there is nothing to be read before it."""
        self._reader.seek(offset)


class Feed:
    """One stream of a hub on its way to subscribers.

    Takes   stream: of the hub; at: offset from which rows are live, by default where the stream ends now.
    Raises  UsageError for attributes that cannot be meant.

    event       of its messages; None for documents, each of which has its own
    root        when the stream was made of which this one is a copy, and its name: its own if it is none
    position    offset of the next row to be published: all before it are history
    """

    def __init__(self, stream: Stream, *, at: When = "end") -> None:
        self.stream, self.name = stream, stream.name
        schema = stream.schema
        self._attributes: dict[str, Any] = stream.attributes
        self.event = event_of(schema, self._attributes, self.name)
        upstream = self._attributes.get("upstream")
        known = upstream.get("root") if isinstance(upstream, dict) else None
        self.root = known or f"{stream.metadata().created_ns} {self.name}"
        self.is_mixed = stream.is_document
        self.seq_end = b',"stream":' + _text(self.name) + b"}"
        self._schema, self._mapper = schema, self._mapper_of(schema)
        self._cursor = self.cursor(at)
        self.position = self._cursor.offset
        self.rows = 0
        self.is_drained = False  # whether the last `poll` found that there was no more

    @property
    def fixed(self) -> str | None:
        """The event of every message, or None when documents may have any."""
        return None if self.is_mixed else self.event

    def poll(self, max_rows: int = 1024) -> Burst | None:
        """The next live rows, or None; `position` moves behind them."""
        chunk = self._cursor.poll(max_rows)
        self.is_drained = chunk is None or self._cursor.is_at_end
        if chunk is None:
            return None
        burst = self.burst(chunk)
        self.position = chunk.stop
        self.rows += len(chunk)
        return burst

    def again(self) -> range:
        """Open the stream anew behind what was published; returns the offsets that are gone, of which none will come.

        Raises  what reading raises: nothing has changed then.
        """
        begin = self.position
        if begin < (first := self.stream.first_offset):
            begin = first
        cursor = self.cursor(begin)
        chunk = cursor.look()
        if chunk is not None:
            self.burst(chunk)
        missed = range(self.position, begin)
        self._cursor, self.position = cursor, begin
        return missed

    def cursor(self, start: When) -> Cursor:
        """A cursor of its own, for history.   Raises  OffsetError when `start` has expired."""
        return Cursor(self.stream.reader(start))

    def burst(self, chunk: Chunk) -> Burst:
        """The messages of a chunk of this stream.   Cost  about 1 µs a row."""
        schema = chunk.batch.schema
        if schema is not self._schema and not schema.equals(self._schema):
            self._mapper, self._schema = self._mapper_of(schema), schema  # the stream was widened
        return Burst(self, chunk, self._mapper(chunk.batch))

    def _mapper_of(self, schema: pa.Schema) -> Mapper:
        return mapper(schema, self.event, self._attributes, self.name)

    def __repr__(self) -> str:
        return f"Feed({self.name!r}, event {self.event!r}, at offset {self.position})"


def _text(value: str) -> bytes:
    return msgspec.json.encode(value)
