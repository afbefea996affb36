"""A stream: named, append-only, durable rows of one schema, numbered from 0.

Appending and reading are the two halves (`writer.py`, `reader.py`); this file joins them to what users say.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.clock import utc
from penstock.errors import CorruptSegment, OffsetError, PenstockWarning, SchemaMismatch, UnknownStream, UsageError
from penstock.log.bell import Bell
from penstock.log.check import Report, check
from penstock.log.chunk import Chunk
from penstock.log.disk import storage
from penstock.log.encoder import Encoder, is_rows, kept
from penstock.log.format import NO_TIME, Kind, origin_id
from penstock.log.lock import at_fork
from penstock.log.mending import read_last
from penstock.log.meta import DOCUMENT_KIND, TABLE_KIND, Meta, Metadata, check_attributes, check_schema
from penstock.log.pick import Bound, Columns, When, bound, is_oldest
from penstock.log.positions import Catalogue, Group, Position, groups_of, peek
from penstock.log.reader import Reader, ends
from penstock.log.repair import repair
from penstock.log.retention import expire
from penstock.log.seek import event_ranges, last_origin, offset_at
from penstock.log.segment import Segments, dropped, firsts
from penstock.log.writer import NO_ORIGIN, StaleSchema, Writer
from penstock.records import batch_to_rows, event_times, to_batches, widen

__all__ = ["Item", "Stream", "StreamStatistics"]


@dataclass(frozen=True, slots=True)
class Item:
    """A row that a group has not committed: its offset, when it was appended, and itself.

    processed   whether the group has read past it: it waits in a window that is not closed yet
    """

    offset: int
    created: datetime
    processed: bool
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """Of one Stream object: appends and rows appended by it, and the stream's offsets and bytes now."""

    appends: int
    rows: int
    first_offset: int
    next_offset: int
    bytes: int


class Stream:
    """One stream of a hub; get it by `hub.streams.get(name)`.

    Safe for many threads, and for any number of processes at once. Blocking calls have an `async` twin with an `a` in
    front: `aappend`, `aread`, `atail`.
    """

    def __init__(self, folder: Path, catalogue: Catalogue) -> None:
        self._folder, self._catalogue = folder, catalogue
        self._meta_path = str(folder / "meta.json")  # joined once: it is looked at with every table appended
        self._segments = Segments(folder)
        self._bell = Bell(folder / "bell")
        self._writer_of: Writer | None = None
        self._rows = 0
        self._is_gone = False
        self._load()
        self.after_fork()
        at_fork(self)

    def after_fork(self) -> None:
        self._opening = threading.Lock()

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

    # -- what it is

    @property
    def name(self) -> str:
        """The stream's name."""
        return self._meta.name

    @property
    def schema(self) -> pa.Schema:
        """The schema of its rows; one column `document` when none was given."""
        return self._fresh().schema

    @property
    def is_document(self) -> bool:
        """Whether rows are JSON documents."""
        return self._fresh().is_document

    @property
    def attributes(self) -> dict[str, Any]:
        """A copy of the stream's attributes; change them by `set_attributes`."""
        return dict(self._fresh().meta.attributes)

    @property
    def first_offset(self) -> int:
        """Offset of the oldest kept row."""
        return ends(self._folder)[0]

    @property
    def next_offset(self) -> int:
        """Offset that the next appended row will get."""
        return ends(self._folder)[1]

    def __len__(self) -> int:
        first, stop = ends(self._folder)
        return stop - first

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        first, stop = ends(self._folder)
        return f"Stream({self.name!r}, {self._meta.kind}, offsets {first} to {stop})"

    def metadata(self) -> Metadata:
        """Name, kind, created, schema, attributes, offsets, bytes, groups."""
        meta = self._fresh().meta
        first, stop = ends(self._folder)
        groups = {
            name: self.position(name).low
            for name in groups_of(self._folder, self._catalogue, self.name, meta.created_ns)
        }
        return Metadata(
            meta.name, meta.kind, meta.created_ns, meta.schema, dict(meta.attributes),
            first, stop, self._size(), len(firsts(self._folder)), groups,
        )  # fmt: skip

    def statistics(self) -> StreamStatistics:
        """Counters of this object, and where the stream stands."""
        first, stop = ends(self._folder)
        appends = self._writer_of.appends if self._writer_of is not None else 0
        return StreamStatistics(appends, self._rows, first, stop, self._size())

    def _size(self) -> int:
        total = 0
        try:
            for entry in os.scandir(self._folder):
                if entry.name.endswith((".arrow", ".idx")):
                    try:
                        total += entry.stat().st_size
                    except FileNotFoundError:  # a retention is at work
                        continue
        except FileNotFoundError:
            raise dropped(self._folder) from None
        return total

    # -- appending

    def append(self, data: Any, *, origin: tuple[str, int] | tuple[str, int, int] | None = None) -> range:
        """Append rows; returns their offsets. When it returns, a killed process loses none of them.

        Takes   data: a dict, dicts, an Arrow batch or table, anything with `__arrow_c_stream__` (polars, pandas 3,
                duckdb), a pandas frame. No rows: nothing happens. Rows of one call are never interleaved with another
                producer's.
                origin: (who, position[, index]) from which input position these rows were made; all rows then form
                one commit, and `last_origin(who)` finds it again after a crash.
        Raises  TypeMismatch, SchemaMismatch, RowTooLarge: nothing was written. DiskFull, ReadOnly, StorageError.
        Cost    about 5 µs for a small dict; one copy of a table's columns.
        """
        made_from = NO_ORIGIN if origin is None else _origin(origin)
        encoder = self._encoder
        messages = encoder.row(data) if type(data) is dict else None
        if messages is None:
            data, encoder = kept(data, encoder.where), self._fresh()
        while True:
            try:
                if messages is None:
                    if encoder.is_document and not is_rows(data):
                        data = self._tabular(data)
                        encoder = self._encoder
                    messages = encoder.messages(data, whole=origin is not None)
                if not messages:
                    stop = self.next_offset
                    return range(stop, stop)
                first, stop = self._writer().append(messages, encoder.codec, made_from)
            except StaleSchema:
                self._load()
                encoder, messages = self._encoder, None
            except UnknownStream:
                self._is_gone = True
                raise
            else:
                self._rows += stop - first
                return range(first, stop)

    async def aappend(self, data: Any, *, origin: tuple[str, int] | tuple[str, int, int] | None = None) -> range:
        """As `append`. Cancelled, it may still have appended: a thread that writes is not interrupted."""
        return await asyncio.to_thread(self.append, data, origin=origin)

    def _tabular(self, data: Any) -> Any:
        """A table for a stream of documents: an empty stream takes its schema, another one its rows as documents."""
        batches = to_batches(data, None, where=self._encoder.where)
        if not batches:
            return []
        if batches[0].schema.equals(self._meta.schema):
            return batches[0] if len(batches) == 1 else pa.Table.from_batches(batches)
        if self.next_offset == 0 and self._decide(batches[0].schema):
            return pa.Table.from_batches(batches)
        return [row for batch in batches for row in batch_to_rows(batch)]

    def _decide(self, schema: pa.Schema) -> bool:
        """Give an empty stream of no declared schema the one of its first table."""
        check_schema(schema, self.name)
        writer = self._writer()
        with writer.locked():
            meta = Meta.load(self._folder)
            if meta.kind == DOCUMENT_KIND and writer.next_offset == 0:
                replace(meta, kind=TABLE_KIND, schema=schema).save(self._folder)
        self._load()
        return not self._encoder.is_document

    def _writer(self) -> Writer:
        if self._writer_of is None:
            with self._opening:
                if self._writer_of is None:
                    options = self._meta.options
                    self._writer_of = Writer(
                        self._folder,
                        self._bell,
                        durability=options.durability,
                        segment_bytes=options.segment_bytes,
                        on_roll=self._expire,
                    )
        return self._writer_of

    # -- reading

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
            if reader.offset < min(end, ends(self._folder)[1]):
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
        return self._follow(self.reader(start), end, follow, timeout, stopping)

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
                left = 0.1 if timeout is None else timeout - (time.monotonic() - last)
                if left <= 0:
                    return
                self.wait(reader.offset, left)

    def reader(self, start: When = None) -> Reader:
        """A cursor from `start` on that never blocks; `wait` waits for it."""
        encoder = self._fresh()
        offset = self._offset_of(self._bounds(start, None)[0])
        return Reader(self._folder, offset, schema=encoder.schema, segments=self._segments, oldest=is_oldest(start))

    def wait(self, offset: int, seconds: float) -> bool:
        """Wait until there are rows at or after `offset`, at most `seconds` and a tenth of a second; True if so.

        Raises  UnknownStream when the stream was dropped.
        """
        armed = self._bell.arm()
        if self._reaches(offset):
            self._bell.awake()
            return True
        self._bell.wait(armed, seconds)
        return self._reaches(offset)

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

    # -- groups

    def group(self, name: str, *, start: When = None) -> Group:
        """Hold a consumer group; a new one begins at `start`. Raises GroupBusy."""
        begin = self._offset_of(self._bounds(start, None)[0])
        found = Group(self._folder, self._catalogue, self.name, name, begin=begin, created_ns=self._meta.created_ns)
        stop = self.next_offset
        if found.position.offset > max(stop, found.begin):
            warnings.warn(
                f"group {name!r} of stream {self.name!r} stood at offset {found.position.offset}, but the stream ends"
                f" at {stop}: rows were lost with the power supply; it goes on at {stop}",
                PenstockWarning,
                stacklevel=2,
            )
            found.reset(stop)
        return found

    def position(self, group: str) -> Position:
        """How far a group has come; the first offset for one that is not there yet."""
        found = peek(self._folder, self._catalogue, self.name, group, self._meta.created_ns)
        first = self.first_offset
        return Position(first, -1, first) if found is None else found

    def buffer(self, group: str = "default", *, limit: int | None = None) -> list[Item]:
        """Rows that no consumer of `group` has committed yet, oldest first, at most `limit`."""
        position = self.position(group)
        reader = self.reader()
        reader.seek(position.low)
        items: list[Item] = []
        while (limit is None or len(items) < limit) and (chunk := reader.poll()) is not None:
            rows = batch_to_rows(chunk.batch if limit is None else chunk.batch.slice(0, limit - len(items)))
            items += [
                Item(chunk.first + i, utc(int(chunk.created[i])), chunk.first + i < position.offset, row)
                for i, row in enumerate(rows)
            ]
        return items

    def last_origin(self, who: str) -> tuple[int, int] | None:
        """(position, index) of the last append whose origin was `who`, or None. Cost: a scan of the index."""
        return last_origin(self._segments, origin_id(who))

    # -- keeping

    def mark(self) -> tuple[int, int]:
        """(next offset, wall time ns) such that every later append gets at least that append time."""
        return self._writer().mark()

    def set_attributes(self, attributes: dict[str, Any]) -> None:
        """Set some attributes, JSON values; None removes one."""
        self.change(attributes=attributes)

    def widen(self, schema: pa.Schema) -> None:
        """Take a wider schema: new nullable columns, wider types. Raises SchemaMismatch for anything else."""
        self.change(schema=schema)

    def change(
        self, *, schema: pa.Schema | None = None, attributes: dict[str, Any] | None = None, **options: Any
    ) -> None:
        """Change the stream's description and options, if that changes anything. `Folder.stream` says what they are."""
        check_attributes({k: v for k, v in (attributes or {}).items() if v is not None}, self.name)
        if schema is not None:
            check_schema(schema, self.name)

        def changed(old: Meta, following: int) -> Meta:
            new = replace(old, options=old.options.changed(**options))
            if attributes:
                merged = {**old.attributes, **attributes}
                new = replace(new, attributes={k: v for k, v in merged.items() if v is not None})
            return new if schema is None else self._reshaped(new, schema, following)

        old = self._fresh().meta
        if _same(old, changed(old, self.next_offset)):
            return  # without the lock: reading a stream where nothing may be written begins here, too
        writer = self._writer()
        with writer.locked():
            old = Meta.load(self._folder)
            new = changed(old, writer.next_offset)
            if not _same(old, new):
                # Sealed first: no open segment is ever of another schema than the description.
                if writer.next_offset and not new.schema.equals(old.schema, check_metadata=True):
                    writer.end_segment()
                new.save(self._folder)
                writer.adopt(new.options)
        self._load()

    def _reshaped(self, meta: Meta, schema: pa.Schema, following: int) -> Meta:
        """`meta` with a schema that `schema` fits, too."""
        if meta.kind != DOCUMENT_KIND:
            return replace(meta, schema=widen(meta.schema, schema, stream=self.name))
        if schema.equals(meta.schema):
            return meta
        if following:
            raise SchemaMismatch(
                expected="JSON documents",
                got=f"a schema with columns {', '.join(schema.names)}",
                where=f"in stream {self.name!r}",
                hint="it holds documents already; use another name for the table",
                stream=self.name,
                column=None,
            )
        return replace(meta, schema=schema, kind=TABLE_KIND)

    def sync(self) -> None:
        """Make everything appended so far survive a lost power supply."""
        self._writer().sync()

    def seal(self) -> None:
        """End the open segment: the next append begins another, and then retention may drop this one."""
        self._writer().seal()

    def retain(self) -> int:
        """Drop the segments that the stream's retention allows; returns how many. It also runs at every new segment."""
        with self._writer().locked():
            return len(self._expire())

    def _expire(self) -> list[int]:
        retention = Meta.load(self._folder).options.retention  # another process may have set it
        committed = None
        if retention.until is not None:
            found = peek(self._folder, self._catalogue, self.name, retention.until, self._meta.created_ns)
            committed = None if found is None else found.low
        with storage(self._folder, "the removal of old segments"):
            return expire(self._folder, retention, committed)

    @property
    def is_there(self) -> bool:
        """Whether this is still the stream of its name: it may have been dropped, and even made anew."""
        return not self._is_gone and self._segments.is_current() and (self._folder / "meta.json").exists()

    @property
    def is_dropped(self) -> bool:
        """Whether it was marked as dropped, although its folder is still there."""
        found = firsts(self._folder)
        last = read_last(self._folder, found[-1]) if found else None
        return last is not None and last.kind is Kind.DROPPED

    def mark_dropped(self, remove: Callable[[], None]) -> None:
        """Tell every producer and reader that the stream ends here, for ever, and `remove` its folder."""
        self._is_gone = True
        self._writer().drop(remove)
        self._bell.ring()
        self.close()

    def check(self) -> Report:
        """Look at every byte: what is wrong, and what that costs. Changes nothing."""
        return check(self._folder)

    def repair(self, *, give_up: bool = False) -> Report:
        """Mend what `check` finds; with `give_up` also mark rows that cannot be read as lost, and go on behind them."""
        found = repair(self._folder, give_up=give_up)
        self._segments.clear()
        return found

    def close(self) -> None:
        """Give open files back; the stream can be used again."""
        if self._writer_of is not None:
            self._writer_of.close()
            self._writer_of = None
        self._segments.clear()


def _stamp(path: str) -> tuple[int, int, int]:
    """What changes whenever `meta.json` is replaced."""
    found = os.stat(path)
    return found.st_ino, found.st_mtime_ns, found.st_size


def _same(old: Meta, new: Meta) -> bool:
    return old == new and old.schema.equals(new.schema, check_metadata=True)


def _origin(origin: Any) -> tuple[int, int, int]:
    """(who, position[, index]) as an index entry has it."""
    who, numbers = origin[0], tuple(origin[1:])
    if (
        not isinstance(who, str)
        or len(numbers) not in (1, 2)
        or not all(type(number) is int and -(2**63) <= number < 2**63 for number in numbers)
    ):
        raise UsageError(expected="an origin (who, position) or (who, position, index)", got=repr(origin))
    return origin_id(who), numbers[0], numbers[1] if numbers[1:] else 0
