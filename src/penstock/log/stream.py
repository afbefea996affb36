"""A stream: named, append-only, durable rows of one schema, numbered from 0.

Reading is one half (`readable.py`), appending the other (`encoder.py`, `writer.py`); this file joins them, and keeps
what a stream is: its description, its groups, how long rows stay.
"""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.clock import utc
from penstock.errors import PenstockError, PenstockWarning, UnknownStream, UsageError
from penstock.log.check import Report, check
from penstock.log.disk import storage
from penstock.log.encoder import is_rows, kept
from penstock.log.format import Kind, origin_id
from penstock.log.lock import at_fork
from penstock.log.mending import read_last
from penstock.log.meta import DOCUMENT_KIND, TABLE_KIND, Meta, Metadata, check_attributes, check_schema
from penstock.log.pick import When
from penstock.log.positions import Catalogue, Group, Position, groups_of, peek
from penstock.log.readable import Readable
from penstock.log.reader import ends
from penstock.log.repair import repair
from penstock.log.retention import expire
from penstock.log.seek import last_origin
from penstock.log.segment import dropped, firsts
from penstock.log.writer import NO_ORIGIN, StaleSchema, Writer
from penstock.records import batch_to_rows, to_batches

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


class Stream(Readable):
    """One stream of a hub; get it by `hub.streams.get(name)`.

    Safe for many threads, and for any number of processes at once. Blocking calls have an `async` twin with an `a` in
    front: `aappend`, `aread`, `atail`.
    """

    def __init__(self, folder: Path, catalogue: Catalogue) -> None:
        super().__init__(folder)
        self._catalogue = catalogue
        self._writer_of: Writer | None = None
        self._rows = 0
        self._is_gone = False
        self.after_fork()
        at_fork(self)

    def after_fork(self) -> None:
        self._opening = threading.Lock()

    # -- what it is

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

    def __len__(self) -> int:
        first, stop = ends(self._folder)
        return stop - first

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        try:
            first, stop = ends(self._folder)
        except PenstockError:  # dropped, or damaged
            return f"Stream({self.name!r}, {self._meta.kind})"
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
                        on_roll=partial(_expire, self._folder, self._catalogue),  # not a method: it would be a cycle
                    )
        return self._writer_of

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
        if isinstance(attributes, dict):
            check_attributes({k: v for k, v in attributes.items() if v is not None}, self.name)
        else:
            check_attributes(attributes, self.name)
        if schema is not None:
            check_schema(schema, self.name)

        def changed(old: Meta, following: int) -> Meta:
            return old.changed(schema, attributes, options, holds_rows=following > 0)

        old = self._fresh().meta
        if old.is_same(changed(old, self.next_offset)):
            return  # without the lock: reading a stream where nothing may be written begins here, too
        writer = self._writer()
        with writer.locked():
            old = Meta.load(self._folder)
            new = changed(old, writer.next_offset)
            if not old.is_same(new):
                # Sealed first: no open segment is ever of another schema than the description.
                if writer.next_offset and not new.schema.equals(old.schema, check_metadata=True):
                    writer.end_segment()
                new.save(self._folder)
                writer.adopt(new.options)
        self._load()

    def sync(self) -> None:
        """Make everything appended so far survive a lost power supply."""
        self._writer().sync()

    def seal(self) -> None:
        """End the open segment: the next append begins another, and then retention may drop this one."""
        self._writer().seal()

    def retain(self) -> int:
        """Drop the segments that the stream's retention allows; returns how many. It also runs at every new segment."""
        with self._writer().locked():
            return len(_expire(self._folder, self._catalogue))

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


def _expire(folder: Path, catalogue: Catalogue) -> list[int]:
    meta = Meta.load(folder)  # another process may have set the retention
    retention, committed = meta.options.retention, None
    if retention.until is not None:
        found = peek(folder, catalogue, meta.name, retention.until, meta.created_ns)
        committed = None if found is None else found.low
    with storage(folder, "the removal of old segments"):
        return expire(folder, retention, committed)


def _origin(origin: Any) -> tuple[int, int, int]:
    """(who, position[, index]) as an index entry has it."""
    if isinstance(origin, tuple | list) and len(origin) in (2, 3) and isinstance(origin[0], str):
        numbers = [number for number in origin[1:] if type(number) is int and -(2**63) <= number < 2**63]
        if len(numbers) == len(origin) - 1:
            return origin_id(origin[0]), numbers[0], numbers[1] if numbers[1:] else 0
    raise UsageError(expected="an origin (who, position) or (who, position, index)", got=repr(origin))
