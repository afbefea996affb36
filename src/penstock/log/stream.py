"""A stream: named, append-only, durable rows of one schema, numbered from 0.

Appending and reading are the two halves (`writer.py`, `reader.py`); this file joins them to what users say.
"""

from __future__ import annotations

import asyncio
import difflib
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.clock import time_ns, utc
from penstock.errors import OffsetError, RowTooLarge, SchemaMismatch, UsageError
from penstock.log.bell import Bell
from penstock.log.chunk import Chunk
from penstock.log.format import NO_TIME, TEMPLATE, origin_id
from penstock.log.message import Codec
from penstock.log.meta import DOCUMENT_KIND, TABLE_KIND, Meta, Metadata, check_attributes
from penstock.log.positions import Catalogue, Group, Position, groups_of, peek
from penstock.log.reader import Reader, ends
from penstock.log.retention import expire
from penstock.log.seek import event_ranges, last_origin, offset_at
from penstock.log.segment import firsts
from penstock.log.template import RowTemplate
from penstock.log.writer import NO_ORIGIN, Message, StaleSchema, Writer
from penstock.records import batch_to_rows, event_column, event_times, to_batches, widen

__all__ = ["Item", "Stream", "StreamStatistics"]

When = int | str | datetime | None


@dataclass(frozen=True, slots=True)
class Item:
    """A row that a group has not committed: its offset, when it was appended, whether it was processed, and itself."""

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
        self._bell = Bell(folder / "bell")
        self._writer_of: Writer | None = None
        self._opening = threading.Lock()
        self._rows = 0
        self._load()

    def _load(self) -> None:
        self._meta = Meta.load(self._folder)
        self._event = event_column(self._meta.schema)
        self._codec = Codec(self._meta.schema)
        self._template = RowTemplate.of(self._meta.schema, self._event)

    # -- what it is

    @property
    def name(self) -> str:
        """The stream's name."""
        return self._meta.name

    @property
    def schema(self) -> pa.Schema:
        """The schema of its rows; one column `document` when none was given."""
        return self._meta.schema

    @property
    def is_document(self) -> bool:
        """Whether rows are JSON documents."""
        return self._meta.kind == DOCUMENT_KIND

    @property
    def attributes(self) -> dict[str, Any]:
        """A copy of the stream's attributes; change them by `set_attributes`."""
        return dict(self._meta.attributes)

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
        self._load()
        first, stop = ends(self._folder)
        meta = self._meta
        groups = {name: self.position(name).low for name in groups_of(self._folder, self._catalogue, self.name)}
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
        return sum(path.stat().st_size for path in self._folder.iterdir() if path.suffix in (".arrow", ".idx"))

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
        made_from = NO_ORIGIN if origin is None else (origin_id(origin[0]), origin[1], origin[2] if origin[2:] else 0)
        while True:
            try:
                messages = self._row(data) if type(data) is dict else None
                if messages is None:
                    messages = self._messages(data, whole=origin is not None)
                if not messages:
                    stop = self.next_offset
                    return range(stop, stop)
                first, stop = self._writer().append(messages, self._codec, made_from)
            except StaleSchema:
                self._load()
            else:
                self._rows += stop - first
                return range(first, stop)

    async def aappend(self, data: Any, *, origin: tuple[str, int] | None = None) -> range:
        """As `append`. Cancelled, it may still have appended: a thread that writes is not interrupted."""
        return await asyncio.to_thread(self.append, data, origin=origin)

    def _row(self, row: dict[str, Any]) -> list[Message] | None:
        """One dict by template; None when it needs the strict path."""
        if self._template is None or not row:
            return None
        found = self._template.encode(row, self._where)
        if found is None:
            return None
        message, event = found
        if len(message) > self._meta.options.max_row_bytes:
            self._too_large(len(message))
        time = NO_TIME if event is None else event
        return [(message, 1, time, time, TEMPLATE)]

    @property
    def _where(self) -> str:
        return f"stream {self._meta.name!r}"

    def _messages(self, data: Any, *, whole: bool) -> list[Message]:
        """Any data as messages of this stream's schema, split so that none is over `max_batch_bytes`."""
        if self.is_document and not _is_rows(data):
            data = self._tabular(data)
        messages: list[Message] = []
        batches = to_batches(data, self._meta.schema, where=self._where)
        if whole and len(batches) > 1:
            batches = pa.Table.from_batches(batches).combine_chunks().to_batches()
        options = self._meta.options
        for batch in batches:
            size = batch.get_total_buffer_size() if whole else batch.nbytes
            step = batch.num_rows
            if not whole and size > options.max_batch_bytes:
                step = max(1, int(step * options.max_batch_bytes / size))
            for at in range(0, batch.num_rows, step):
                part = batch.slice(at, step)
                message = self._codec.encode(part)
                if len(message) > options.max_row_bytes:
                    self._check_rows(part)
                messages.append((message, part.num_rows, *self._event_range(part), 0))
        return messages

    def _tabular(self, data: Any) -> Any:
        """A table for a stream of documents: an empty stream takes its schema, another one its rows as documents."""
        batches = to_batches(data, None, where=self._where)
        if not batches:
            return []
        if batches[0].schema.equals(self._meta.schema):
            return batches[0] if len(batches) == 1 else pa.Table.from_batches(batches)
        if self.next_offset == 0 and self._decide(batches[0].schema):
            return pa.Table.from_batches(batches)
        return [row for batch in batches for row in batch_to_rows(batch)]

    def _decide(self, schema: pa.Schema) -> bool:
        """Give an empty stream of no declared schema the one of its first table."""
        with self._writer().locked():
            meta = Meta.load(self._folder)
            if meta.kind == DOCUMENT_KIND and self._writer().next_offset == 0:
                replace(meta, kind=TABLE_KIND, schema=schema).save(self._folder)
        self._load()
        return not self.is_document

    def _event_range(self, batch: pa.RecordBatch) -> tuple[int, int]:
        if self._event is None:
            return NO_TIME, NO_TIME
        times = event_times(batch, self._event)
        return int(times.min()), int(times.max())

    def _check_rows(self, batch: pa.RecordBatch) -> None:
        """Refuse a batch one of whose rows alone is over the limit."""
        if batch.num_rows == 1:
            self._too_large(batch.nbytes)
        for i in range(batch.num_rows):
            size = batch.slice(i, 1).nbytes
            if size > self._meta.options.max_row_bytes:
                self._too_large(size, i)

    def _too_large(self, size: int, row: int | None = None) -> None:
        limit = self._meta.options.max_row_bytes
        raise RowTooLarge(
            expected=f"a row of at most {limit} bytes",
            got=f"{size} bytes",
            where=f"at {self.name}[{row}]" if row is not None else f"in stream {self.name!r}",
            hint=f"split it, or open the stream with max_row_bytes={1 << (size - 1).bit_length()}",
            size=size,
            limit=limit,
        )

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
        Cost    no copy of messages over 64 KiB: columns view the mapped file.
        """
        wanted = self._columns(columns)
        low, high = self._bounds(start, stop)
        batches: list[pa.RecordBatch] = []
        ranges, keep = [(low.offset, high.offset)], None
        if self._event is not None and (low.time is not None or high.time is not None):
            keep = (NO_TIME if low.time is None else low.time, 2**63 - 1 if high.time is None else high.time)
            ranges = event_ranges(self._folder, low.offset, high.offset, *keep)
        schema = self._meta.schema
        for begin, end in ranges:
            reader = Reader(self._folder, begin, schema=schema)
            while (chunk := reader.poll_until(end, max_rows=1 << 20)) is not None:
                batch = self._pick(chunk, wanted, keep)
                if batch.num_rows:
                    batches.append(batch)
        table = pa.Table.from_batches(batches, _picked(schema, wanted))
        return table.unify_dictionaries() if self._codec.has_dictionaries else table

    async def aread(self, start: When = None, stop: When = None, columns: Sequence[str] | None = None) -> pa.Table:
        """As `read`. Cancelling it leaves nothing behind."""
        return await asyncio.to_thread(self.read, start, stop, columns)

    def rows(self, start: When = None, stop: When = None) -> list[dict[str, Any]]:
        """As `read`, but as dicts: documents as they were appended."""
        return [row for batch in self.read(start, stop).to_batches() for row in batch_to_rows(batch)]

    def tail(
        self, start: When = "end", *, timeout: float | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Batches as they are appended, from `start` on; blocks, and ends when nothing came for `timeout` seconds."""
        wanted = self._columns(columns)
        for chunk in self.chunks(start, follow=True, timeout=timeout):
            yield self._pick(chunk, wanted, None)

    async def atail(
        self, start: When = "end", *, timeout: float | None = None, columns: Sequence[str] | None = None
    ) -> AsyncIterator[pa.RecordBatch]:
        """As `tail`. Cancelling it loses no rows: a new one goes on from any offset."""
        wanted = self._columns(columns)
        reader = self.reader(start)
        last = time.monotonic()
        while True:
            chunk = reader.poll()
            if chunk is not None:
                yield self._pick(chunk, wanted, None)
                last = time.monotonic()
            elif timeout is not None and time.monotonic() - last >= timeout:
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

        Takes   follow: wait for further rows; timeout: end when none came for that many seconds;
                stopping: an event that ends the iteration within a tenth of a second.
        """
        end = None if stop is None else self._bounds(start, stop)[1].offset
        reader = self.reader(start)
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
        return Reader(self._folder, self._bounds(start, None)[0].offset, schema=self._meta.schema)

    def wait(self, offset: int, seconds: float) -> bool:
        """Wait until there are rows at or after `offset`, at most `seconds` and a tenth of a second; True if so."""
        armed = self._bell.arm()
        if ends(self._folder)[1] > offset:
            self._bell.awake()
            return True
        self._bell.wait(armed, seconds)
        return ends(self._folder)[1] > offset

    def _pick(
        self, chunk: Chunk, wanted: list[str] | None, keep: tuple[int, int] | None
    ) -> pa.RecordBatch:
        """Columns and rows asked for."""
        batch = chunk.batch
        names = batch.schema.names if wanted is None else wanted
        if wanted is not None:
            made = {
                "_offset": lambda: pa.array(np.arange(chunk.first, chunk.stop, dtype=np.int64)),
                "_created": lambda: pa.array(chunk.created).cast(pa.timestamp("ns", "UTC")),
            }
            columns = [made[name]() if name in made else batch.column(name) for name in names]
            picked = pa.RecordBatch.from_arrays(columns, schema=_picked(batch.schema, wanted))
        else:
            picked = batch
        if keep is not None and self._event is not None:
            times = event_times(batch, self._event)
            inside = (times >= keep[0]) & (times < keep[1])
            if not inside.all():
                picked = picked.filter(pa.array(inside))
        return picked

    def _columns(self, columns: Sequence[str] | None) -> list[str] | None:
        if columns is None:
            return None
        if isinstance(columns, str):
            columns = [columns]
        known = [*self._meta.schema.names, "_offset", "_created"]
        for name in columns:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                raise UsageError(
                    expected=f"a column of {', '.join(known)}",
                    got=repr(name),
                    where=f"in stream {self.name!r}",
                    hint=f"did you mean {near[0]!r}?" if near else None,
                )
        return list(columns)

    def _bounds(self, start: When, stop: When) -> tuple[_Bound, _Bound]:
        first, following = ends(self._folder)
        low = self._bound(start, first, following, "start") if start is not None else _Bound(first)
        high = self._bound(stop, first, following, "stop") if stop is not None else _Bound(following)
        if low.time is not None and self._event is not None:
            low = replace(low, offset=first)
        if high.time is not None and self._event is not None:
            high = replace(high, offset=following)
        return low, high

    def _bound(self, value: When, first: int, following: int, name: str) -> _Bound:
        if isinstance(value, str) and value in ("start", "end"):
            return _Bound(first if value == "start" else following)
        if isinstance(value, int | np.integer) and not isinstance(value, bool):
            if value < 0:
                raise OffsetError(
                    expected=f"an offset from {first} to {following}",
                    got=f"{value}",
                    where=f"in {name} of stream {self.name!r}",
                    hint=f"offsets count from 0; for the last rows use {name}=stream.next_offset - n",
                )
            if name == "start" and value < first:
                raise OffsetError(
                    expected=f"an offset from {first} on",
                    got=f"{value}",
                    where=f"in {name} of stream {self.name!r}",
                    hint='older rows were dropped by its retention; start at "start"',
                )
            return _Bound(int(value))
        try:
            moment = time_ns(value, name=name)
        except UsageError:
            raise UsageError(
                expected='an offset, "start", "end", or a time with its zone',
                got=repr(value),
                where=f"in {name} of stream {self.name!r}",
                hint='times are aware datetimes or text such as "2026-11-20T09:30:00Z"',
            ) from None
        return _Bound(offset_at(self._folder, moment) if self._event is None else first, moment)

    # -- groups

    def group(self, name: str, *, start: When = None) -> Group:
        """Hold a consumer group; a new one begins at `start`. Raises GroupBusy."""
        return Group(
            self._folder, self._catalogue, self.name, name, begin=self._bounds(start, None)[0].offset
        )

    def position(self, group: str) -> Position:
        """How far a group has come; the first offset for one that is not there yet."""
        found = peek(self._folder, self._catalogue, self.name, group)
        first = self.first_offset
        return Position(first, -1, first) if found is None else found

    def buffer(self, group: str = "default", *, limit: int | None = None) -> list[Item]:
        """Rows that no consumer of `group` has committed yet, oldest first, at most `limit`."""
        low = max(self.position(group).low, self.first_offset)
        items: list[Item] = []
        for chunk in self.chunks(low):
            rows = batch_to_rows(chunk.batch if limit is None else chunk.batch.slice(0, limit - len(items)))
            items += [
                Item(chunk.first + i, utc(int(chunk.created[i])), False, row) for i, row in enumerate(rows)
            ]
            if limit is not None and len(items) >= limit:
                break
        return items

    def last_origin(self, who: str) -> tuple[int, int] | None:
        """(position, index) of the last append whose origin was `who`, or None. Cost: a scan of the index, from the end."""
        return last_origin(self._folder, origin_id(who))

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
        writer = self._writer()
        with writer.locked():
            old = Meta.load(self._folder)
            new = replace(old, options=old.options.changed(**options))
            if attributes:
                merged = {**old.attributes, **attributes}
                new = replace(new, attributes={k: v for k, v in merged.items() if v is not None})
            if schema is not None and not schema.equals(old.schema, check_metadata=True):
                if old.kind == DOCUMENT_KIND:
                    if writer.next_offset and not schema.equals(old.schema):
                        raise SchemaMismatch(
                            expected="JSON documents",
                            got=f"a schema with columns {', '.join(schema.names)}",
                            where=f"in stream {self.name!r}",
                            hint="it holds documents already; use another name for the table",
                            stream=self.name,
                            column=None,
                        )
                    if not schema.equals(old.schema):
                        new = replace(new, schema=schema, kind=TABLE_KIND)
                else:
                    new = replace(new, schema=widen(old.schema, schema, stream=self.name))
            if new == old:
                return
            new.save(self._folder)
            if not new.schema.equals(old.schema) and writer.next_offset:
                writer.end_segment()
        self._load()
        if new.options != old.options:
            self._writer_of = None

    def sync(self) -> None:
        """Make everything appended so far survive a lost power supply."""
        self._writer().sync()

    def seal(self) -> None:
        """End the open segment, so that retention may drop it."""
        self._writer().seal()

    def retain(self) -> int:
        """Drop the segments that the stream's retention allows; returns how many. It also runs at every new segment."""
        with self._writer().locked():
            return len(self._expire())

    def _expire(self) -> list[int]:
        retention = self._meta.options.retention
        committed = None
        if retention.until is not None:
            found = peek(self._folder, self._catalogue, self.name, retention.until)
            committed = None if found is None else found.low
        return expire(self._folder, retention, committed)

    @property
    def is_there(self) -> bool:
        """Whether the stream still exists: another process may have dropped it."""
        return (self._folder / "meta.json").exists()

    def mark_dropped(self) -> None:
        """Tell every producer and reader that the stream ends here, for ever."""
        self._writer().drop()
        self._bell.ring()

    def close(self) -> None:
        """Give open files back; the stream can be used again."""
        if self._writer_of is not None:
            self._writer_of.close()
            self._writer_of = None


@dataclass(frozen=True, slots=True)
class _Bound:
    offset: int
    time: int | None = None


def _is_rows(data: Any) -> bool:
    """Whether `data` is dicts and not a table."""
    return isinstance(data, dict | list | tuple) or not (
        hasattr(data, "__arrow_c_stream__")
        or hasattr(data, "__arrow_c_array__")
        or hasattr(data, "iloc")
        or isinstance(data, pa.RecordBatchReader)
    )


def _picked(schema: pa.Schema, wanted: list[str] | None) -> pa.Schema:
    if wanted is None:
        return schema
    made = {
        "_offset": pa.field("_offset", pa.int64()),
        "_created": pa.field("_created", pa.timestamp("ns", "UTC")),
    }
    return pa.schema([made[name] if name in made else schema.field(name) for name in wanted], schema.metadata)


