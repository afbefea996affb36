"""Following a stream: entries of the index, in order, as chunks of rows.

A reader holds no lock and never blocks a producer. It asks the index how far commits have come, reads the entries it
has not seen, and decodes their messages as views of the mapped file.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.errors import CorruptSegment, OffsetError, PenstockWarning, UnknownStream
from penstock.log.chunk import Chunk
from penstock.log.format import ENTRY_BYTES, Entry, Kind, index_name, unpack
from penstock.log.meta import Meta
from penstock.log.segment import SegmentFile, firsts, rebuild_index
from penstock.log.template import RowTemplate
from penstock.records import conform

__all__ = ["Reader", "ends"]

_ENTRIES_AT_ONCE: Final = 16384
_LARGE_BYTES: Final = 32768  # from this size on, joining messages costs more than handing them out one by one


def ends(folder: Path) -> tuple[int, int]:
    """(first kept offset, next offset) of a stream folder. Reads the last whole index entry, takes no lock."""
    found = firsts(folder)
    for first in reversed(found):
        path = folder / index_name(first)
        try:
            with path.open("rb") as file:
                for number in range(os.fstat(file.fileno()).st_size // ENTRY_BYTES - 1, -1, -1):
                    entry = unpack(os.pread(file.fileno(), ENTRY_BYTES, number * ENTRY_BYTES))
                    if entry is not None:
                        return found[0], entry.stop
        except FileNotFoundError:
            continue
    return (found[0], found[-1]) if found else (0, 0)


class Reader:
    """A cursor into one stream.

    `poll` gives the next rows or None at the end; nothing here waits. Not thread-safe.

    Takes   offset: of the first row wanted; schema: what every chunk is to have (older segments are widened to it),
            None for each segment's own; columns: names of the columns wanted.
    Raises  CorruptSegment, OffsetError (when a retention has dropped the rows).
    """

    def __init__(
        self, folder: Path, offset: int, *, schema: pa.Schema | None = None, columns: Sequence[str] | None = None
    ) -> None:
        self.folder, self.offset = folder, offset
        self.schema, self.columns = schema, None if columns is None else list(columns)
        self._segment: SegmentFile | None = None
        self._template: RowTemplate | None = None
        self._next_entry = 1
        self._entries: NDArray[np.void] | None = None
        self._at = 0  # position in self._entries
        self._closing = False  # whether the segment ends after self._entries

    def poll(self, max_rows: int = 65536, max_bytes: int = 16 << 20) -> Chunk | None:
        """The next rows, at most `max_rows` unless a single append is larger; None when there is nothing new.

        Cost    4 µs for a one-row append, less each when there are many; no copy for messages over 64 KiB.
        """
        return self._poll(max_rows, max_bytes, None)

    def poll_until(self, stop: int, max_rows: int = 65536, max_bytes: int = 16 << 20) -> Chunk | None:
        """As `poll`, but no row at or after offset `stop`."""
        if self.offset >= stop:
            return None
        chunk = self._poll(max_rows, max_bytes, stop)
        if chunk is not None and chunk.stop > stop:
            self.offset = stop
            self._at -= 1  # the rest of the last entry is for a later poll
            chunk = chunk.slice(0, stop - chunk.first)
        return chunk

    def entries(self) -> NDArray[np.void] | None:
        """Index entries not yet polled, at least one; None at the end. For those who need no rows."""
        if self._entries is None or self._at == len(self._entries):
            if not self._more():
                return None
        assert self._entries is not None
        found = self._entries[self._at :]
        self._at = len(self._entries)
        self.offset = int(found["first"][-1] + found["rows"][-1])
        return found

    def _more(self) -> bool:
        """Read further entries; goes on to the next segment at a seal. False at the end of the stream."""
        while True:
            if self._closing:
                self._segment, self._closing = None, False
            if self._segment is None and not self._open():
                return False
            segment = self._segment
            assert segment is not None
            count = segment.count()
            if count <= self._next_entry:
                return False
            found = segment.entries(self._next_entry, min(count, self._next_entry + _ENTRIES_AT_ONCE))
            if not len(found):
                return False
            self._next_entry += len(found)
            if found["kind"][-1] == Kind.DROPPED:
                raise self._dropped()
            self._closing = bool(found["kind"][-1] == Kind.SEALED)
            end = int(found["first"][-1] + found["rows"][-1])
            if self._closing:
                found = found[:-1]
            # leave out the entries before a position inside the segment
            skip = int(np.searchsorted(found["first"] + found["rows"], self.offset, side="right"))
            if skip < len(found):
                self._entries, self._at = found[skip:], 0
                return True
            if self._closing:
                self.offset = max(self.offset, end)
                if end == segment.first or not (self.folder / index_name(end)).exists():
                    return False  # sealed, and its successor not begun

    def _open(self) -> bool:
        """Open the segment that holds `offset`."""
        try:
            names = firsts(self.folder)
        except FileNotFoundError:
            raise self._dropped() from None
        before = [first for first in names if first <= self.offset]
        if not before:
            if names:
                raise OffsetError(
                    expected=f"an offset from {names[0]} on",
                    got=f"{self.offset}",
                    where=f"in stream {self.folder.name!r}",
                    hint='older rows were dropped by its retention; start at "start"',
                )
            return False
        first = before[-1]
        if not (self.folder / index_name(first)).exists():
            if first != names[-1] or os.access(self.folder, os.W_OK):
                rebuild_index(self.folder, first)
            else:
                return False
        segment = SegmentFile(self.folder, first)
        # A whole segment missing in between would otherwise look like the end of the stream.
        following = names[len(before)] if len(before) < len(names) else None
        if following is not None:
            last = _last(segment)
            if last is not None and last.stop < self.offset < following:
                raise CorruptSegment(
                    expected=f"a segment that begins at offset {last.stop}",
                    got=f"the next one at {following}",
                    where=f"in {self.folder}",
                    hint="a segment file is missing; restore it, or read from the later offset",
                    file=str(self.folder / index_name(last.stop)),
                    position=0,
                    first=last.stop,
                    stop=following,
                )
        if self.schema is not None and not segment.codec.schema.equals(self.schema):
            self.schema = Meta.load(self.folder).schema  # widened since we began
        self._segment = segment
        self._template = RowTemplate.of(segment.codec.schema, None)
        self._entries = None
        self._next_entry = self._seek(segment)
        return True

    def _seek(self, segment: SegmentFile) -> int:
        """Number of the entry that holds `offset`, by bisection over the index."""
        low, high = 1, segment.count()
        while low < high:
            middle = (low + high) // 2
            found = segment.entries(middle, middle + 1)
            if len(found) and int(found["first"][0] + found["rows"][0]) <= self.offset:
                low = middle + 1
            else:
                high = middle
        return max(1, min(low, segment.count()))

    def _poll(self, max_rows: int, max_bytes: int, stop: int | None) -> Chunk | None:
        if (self._entries is None or self._at == len(self._entries)) and not self._more():
            return None
        entries, segment = self._entries, self._segment
        assert entries is not None and segment is not None
        at = self._at
        ahead = entries[at : at + self._take(entries[at:], max_rows, max_bytes, stop)]
        if ahead["kind"][0] == Kind.LOST:
            return self._skip_lost(ahead[0])
        number = self._next_entry - (len(entries) - at) - self._closing
        start = int(ahead["position"][0])
        region = segment.region(start, int(ahead["position"][-1] + ahead["length"][-1]))
        batches = segment.batches(region, start, number, ahead, self._template)
        if len(batches) == 1:
            batch = batches[0]
        else:
            batch = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
        first, created = int(ahead["first"][0]), ahead["appended"].astype(np.int64)
        if batch.num_rows != len(ahead):
            created = np.repeat(created, ahead["rows"].astype(np.int64))
        self._at = at + len(ahead)
        if first < self.offset:  # the cursor stood inside the first entry
            inside = self.offset - first
            batch, created, first = batch.slice(inside), created[inside:], self.offset
        self.offset = first + batch.num_rows
        return Chunk(self._shape(batch), first, created)

    def _take(self, ahead: NDArray[np.void], max_rows: int, max_bytes: int, stop: int | None) -> int:
        """How many entries make one chunk: small ones together as far as the limits go, a large one alone."""
        if len(ahead) == 1 or ahead["length"][0] >= _LARGE_BYTES or ahead["kind"][0] == Kind.LOST:
            return 1
        take = int(np.searchsorted(np.cumsum(ahead["rows"]), max_rows, side="right"))
        ahead = ahead[: max(take, 1)]
        size = ahead["position"] + ahead["length"] - ahead["position"][0]
        take = min(len(ahead), int(np.searchsorted(size, max_bytes, side="right")))
        if stop is not None:
            take = min(take, int(np.searchsorted(ahead["first"], stop, side="left")))
        ends = np.flatnonzero((ahead["length"] >= _LARGE_BYTES) | (ahead["kind"] == Kind.LOST))
        if len(ends):
            take = min(take, int(ends[0]))
        others = np.flatnonzero(ahead["flags"] != ahead["flags"][0])  # rows by template are read apart from others
        if len(others):
            take = min(take, int(others[0]))
        return max(take, 1)

    def _shape(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Bring a batch to the schema and columns asked for."""
        if self.schema is not None and batch.schema is not self.schema and not batch.schema.equals(self.schema):
            batch = conform(batch, self.schema, where=f"in stream {self.folder.name!r}")
        return batch if self.columns is None else batch.select(self.columns)

    def _dropped(self) -> UnknownStream:
        return UnknownStream(
            f"stream {self.folder.name!r} was dropped", where=f"in {self.folder.parent}", hint="get it again from the hub"
        )

    def _skip_lost(self, entry: np.void) -> Chunk | None:
        first, stop = int(entry["first"]), int(entry["first"] + entry["rows"])
        warnings.warn(
            f"stream {self.folder.name!r}: offsets {first} to {stop} were given up by a repair and are skipped",
            PenstockWarning,
            stacklevel=3,
        )
        self._at += 1
        self.offset = stop
        return self._poll(65536, 16 << 20, None)


def _last(segment: SegmentFile) -> Entry | None:
    for number in range(segment.count() - 1, -1, -1):
        entry = unpack(os.pread(segment._index, ENTRY_BYTES, number * ENTRY_BYTES))
        if entry is not None:
            return entry
    return None
