"""The reading half of a stream: ranges, tails, and cursors, in users' words."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.errors import CorruptSegment, OffsetError, UsageError
from penstock.log.bell import Bell
from penstock.log.chunk import Chunk
from penstock.log.encoder import Encoder
from penstock.log.format import NO_TIME
from penstock.log.meta import Meta
from penstock.log.pick import Bound, Columns, When, bound, is_oldest
from penstock.log.reader import Reader, ends
from penstock.log.seek import event_ranges, offset_at
from penstock.log.segment import Segments, dropped
from penstock.records import batch_to_rows, event_times

__all__ = ["Readable"]


class Readable:
    """What `Stream` is to those who only read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._meta_path = str(folder / "meta.json")  # joined once: it is looked at with every table appended
        self._segments = Segments(folder)
        self._bell = Bell(folder / "bell")
        self._load()

    def _load(self) -> None:
        try:
            self._seen = _stamp(self._meta_path)  # before reading: a change in between is then seen next time
            self._encoder = Encoder(Meta.load(self._folder))
        except FileNotFoundError:
            raise dropped(self._folder) from None

    def _fresh(self) -> Encoder:
        """What the stream is now: another process may have changed its description. Cost: one system call."""
        try:
            if _stamp(self._meta_path) != self._seen:
                self._load()
        except FileNotFoundError:
            raise dropped(self._folder) from None
        return self._encoder

    @property
    def _meta(self) -> Meta:
        return self._encoder.meta

    @property
    def name(self) -> str:
        """The stream's name."""
        return self._meta.name

    @property
    def first_offset(self) -> int:
        """Offset of the oldest kept row."""
        return ends(self._folder)[0]

    @property
    def next_offset(self) -> int:
        """Offset that the next appended row will get."""
        return ends(self._folder)[1]

    def read(self, start: When = None, stop: When = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows from `start` to before `stop`, as a table.

        Takes   start, stop: an offset, "start", "end", or a time (aware datetime, ISO text with zone). A time means the
                event time when the schema has one, and picks rows; else the append time, and picks a range.
                columns: names; "_offset" (int64) and "_created" (timestamp[ns, UTC]) may be among them.
        Raises  OffsetError, CorruptSegment, UsageError for an unknown column.
        Cost    no copy of messages over 32 KiB: columns view the mapped file.
        """
        picked = Columns(columns, self._fresh().schema, self.name)
        low, high = self._bounds(start, stop)
        while True:
            encoder = self._encoder
            try:
                batches = self._batches(encoder, low, high, picked, oldest=is_oldest(start))
            except OffsetError:
                if not is_oldest(start):
                    raise
                low = Bound(self.first_offset)  # a retention was at work: who asked for all gets all that is left
                continue
            if batches is not None:
                table = pa.Table.from_batches(batches, picked.schema(encoder.schema))
                return table.unify_dictionaries() if encoder.codec.has_dictionaries else table

    def _batches(
        self, encoder: Encoder, low: Bound, high: Bound, picked: Columns, *, oldest: bool
    ) -> list[pa.RecordBatch] | None:
        """The rows of `read`; None when the stream was widened meanwhile."""
        event, schema = encoder.event, encoder.schema
        ranges, keep = [(low.offset, high.offset)], None
        if event is not None and (low.time is not None or high.time is not None):
            keep = (NO_TIME if low.time is None else low.time, 2**63 - 1 if high.time is None else high.time)
            ranges = event_ranges(self._segments, low.offset, high.offset, *keep)
        batches: list[pa.RecordBatch] = []
        reader = Reader(self._folder, low.offset, schema=schema, segments=self._segments, oldest=oldest)
        for begin, end in ranges:
            reader.seek(begin)
            while (chunk := reader.poll_until(end, max_rows=1 << 20)) is not None:
                batch = picked.batch(chunk)
                if keep is not None and event is not None:
                    times = event_times(chunk.batch, event)
                    inside = (times >= keep[0]) & (times < keep[1])
                    if not inside.all():
                        batch = batch.filter(pa.array(inside))
                if batch.num_rows:
                    batches.append(batch)
            if reader.schema is not schema and not schema.equals(reader.schema):
                self._load()
                return None
            if reader.offset < end and reader.offset < ends(self._folder)[1]:
                raise CorruptSegment(
                    expected=f"rows to offset {end}",
                    got=f"none from offset {reader.offset} on",
                    where=f"in {self._folder}",
                    hint=f"look at it with `penstock stream repair {self.name}`",
                    file=str(self._folder),
                    position=0,
                    first=reader.offset,
                    stop=end,
                )
        return batches

    async def aread(self, start: When = None, stop: When = None, columns: Sequence[str] | None = None) -> pa.Table:
        """As `read`. Cancelling it leaves nothing behind."""
        return await asyncio.to_thread(self.read, start, stop, columns)

    def rows(self, start: When = None, stop: When = None) -> list[dict[str, Any]]:
        """As `read`, but as dicts: documents as they were appended."""
        return [row for batch in self.read(start, stop).to_batches() for row in batch_to_rows(batch)]

    def tail(
        self, start: When = "end", *, timeout: float | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Batches as they are appended, from `start` on; blocks, and ends when nothing came for `timeout` seconds.

        "end" is where the stream ends at this call, not when the first batch is asked for.
        """
        picked = Columns(columns, self._fresh().schema, self.name)
        return (picked.batch(chunk) for chunk in self.chunks(start, follow=True, timeout=timeout))

    def atail(
        self, start: When = "end", *, timeout: float | None = None, columns: Sequence[str] | None = None
    ) -> AsyncIterator[pa.RecordBatch]:
        """As `tail`. Cancelling it loses no rows: a new one goes on from any offset."""
        picked = Columns(columns, self._fresh().schema, self.name)
        self._check_timeout(timeout)
        return self._afollow(self.reader(start), float("inf") if timeout is None else timeout, picked)

    async def _afollow(self, reader: Reader, patience: float, picked: Columns) -> AsyncIterator[pa.RecordBatch]:
        last = time.monotonic()
        while True:
            chunk = reader.poll()
            if chunk is not None:
                yield picked.batch(chunk)
                last = time.monotonic()
            elif time.monotonic() - last >= patience:
                return
            else:
                await asyncio.to_thread(self.wait, reader.offset, 0.1)

    def chunks(
        self,
        start: When = None,
        stop: When = None,
        *,
        follow: bool = False,
        timeout: float | None = None,
        stopping: threading.Event | None = None,
    ) -> Iterator[Chunk]:
        """Rows as `Chunk`s, which know their offsets and append times.

        Takes   start, stop: as for `read`, but event times pick whole appends: from the first that has a row at or
                after `start` to the last that has one before `stop`;
                follow: wait for further rows; timeout: end when none came for that many seconds;
                stopping: an event that ends the iteration within a tenth of a second.
        """
        end = None if stop is None else self._offset_of(self._bounds(None, stop)[1], is_stop=True)
        self._check_timeout(timeout)
        return self._follow(self.reader(start), end, follow, timeout, stopping)

    def _check_timeout(self, timeout: Any) -> None:
        if timeout is None or (isinstance(timeout, int | float) and timeout == timeout):
            return
        raise UsageError(
            expected="timeout: seconds, or None to wait for ever",
            got=repr(timeout),
            where=f"in stream {self.name!r}",
            hint="such as timeout=2.5",
        )

    def _follow(
        self, reader: Reader, end: int | None, follow: bool, timeout: float | None, stopping: threading.Event | None
    ) -> Iterator[Chunk]:
        last = time.monotonic()
        while stopping is None or not stopping.is_set():
            chunk = reader.poll() if end is None else reader.poll_until(end)
            if chunk is not None:
                yield chunk
                last = time.monotonic()
            elif not follow or (end is not None and reader.offset >= end):
                return
            else:
                left = 0.1 if timeout is None else min(0.1, timeout - (time.monotonic() - last))
                if left <= 0:
                    return
                self.wait(reader.offset, left)

    def reader(self, start: When = None) -> Reader:
        """A cursor from `start` on that never blocks; `wait` waits for it."""
        encoder = self._fresh()
        offset = self._offset_of(self._bounds(start, None)[0])
        return Reader(self._folder, offset, schema=encoder.schema, segments=self._segments, oldest=is_oldest(start))

    def wait(self, offset: int, seconds: float) -> bool:
        """Wait until there are rows at or after `offset`, at most `seconds`; True if there are.

        Raises  UnknownStream when the stream was dropped.
        """
        end = time.monotonic() + seconds
        while True:
            armed = self._bell.arm()
            if self._reaches(offset):
                self._bell.awake()
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._bell.wait(armed, left)

    def _reaches(self, offset: int) -> bool:
        if not self._segments.is_current():
            raise dropped(self._folder)
        return ends(self._folder)[1] > offset

    def _bounds(self, start: When, stop: When) -> tuple[Bound, Bound]:
        first, following = ends(self._folder)
        timed = self._encoder.event is not None

        def offset_of(moment: int) -> int:
            return offset_at(self._segments, moment)

        low = bound(start, first, following, "start", self.name, (lambda _: first) if timed else offset_of)
        high = bound(stop, first, following, "stop", self.name, (lambda _: following) if timed else offset_of)
        return low, high

    def _offset_of(self, end: Bound, *, is_stop: bool = False) -> int:
        """The offset of a bound for whole appends."""
        if end.time is None or self._encoder.event is None:
            return end.offset
        first, following = ends(self._folder)
        if is_stop:
            ranges = event_ranges(self._segments, first, following, NO_TIME, end.time)
            return ranges[-1][1] if ranges else first
        ranges = event_ranges(self._segments, first, following, end.time, 2**63 - 1)
        return ranges[0][0] if ranges else following


def _stamp(path: str) -> tuple[int, int, int]:
    """What changes whenever `meta.json` is replaced."""
    found = os.stat(path)
    return found.st_ino, found.st_mtime_ns, found.st_size
