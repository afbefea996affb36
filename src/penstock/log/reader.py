"""Following a stream: entries of the index, in order, as chunks of rows.

A reader holds no lock and never blocks a producer. It asks the index how far commits have come, reads the entries it
has not seen, and decodes their messages as views of the mapped file.
"""

from __future__ import annotations

import os
import warnings
from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.clock import WALL
from penstock.errors import CorruptSegment, OffsetError, PenstockWarning
from penstock.log.chunk import Chunk
from penstock.log.format import ENTRY_DTYPE, Kind, arrow_name, index_name
from penstock.log.mending import last_entry, mend
from penstock.log.meta import Meta
from penstock.log.segment import EXPIRED, SegmentFile, Segments, dropped, firsts
from penstock.records import conform

__all__ = ["Reader", "ends"]

_ENTRIES_AT_ONCE: Final = 16384
_FEW: Final = 64  # up to which entries cost less one by one than as arrays: 8 µs each, and not 35 for the first
_length: Final = itemgetter(3)
# as ints: looking a member up costs 0.3 us
_LOST, _SEALED, _DROPPED = int(Kind.LOST), int(Kind.SEALED), int(Kind.DROPPED)
_FIELDS: Final = ["kind", "first", "rows", "position", "length", "message", "appended"]
_NOTHING: Final = np.empty(0, ENTRY_DTYPE)
_TICK_NS: Final = 100_000_000  # well over what file times are precise to
_LARGE_BYTES: Final = 32768  # from this size on, joining messages costs more than handing them out one by one


def _by_table(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


_joined: Final = getattr(pa, "concat_batches", _by_table)  # of pyarrow from 19 on, in half of the time


def ends(folder: Path) -> tuple[int, int]:
    """(first kept offset, next offset) of a stream folder. Reads the last whole index entry, takes no lock.

    Raises  UnknownStream when it was dropped, CorruptSegment when the last segment has no index and none can be made.
    """
    while True:
        found = firsts(folder)
        for first in reversed(found):
            entry = last_entry(folder, first)
            if entry is not None:
                return found[0], entry.stop
            if not any((folder / name(first)).exists() for name in (arrow_name, index_name)):
                break  # a retention has removed it since it was listed
        else:
            return (found[0], found[0]) if found else (0, 0)


class Reader:
    """A cursor into one stream.

    `poll` gives the next rows or None at the end; nothing here waits. Not thread-safe.

    Takes   offset: of the first row wanted; schema: what every chunk is to have (older segments are widened to it),
            None for each segment's own; columns: names of the columns wanted; segments: shared with other readers, so
            that what one has mapped and checked serves all; oldest: `offset` only means the oldest row, so begin later
            if a retention drops that before the first poll.
    Raises  CorruptSegment, OffsetError (when a retention has dropped the rows), UnknownStream (dropped).
    """

    def __init__(
        self,
        folder: Path,
        offset: int,
        *,
        schema: pa.Schema | None = None,
        columns: Sequence[str] | None = None,
        segments: Segments | None = None,
        oldest: bool = False,
    ) -> None:
        self.folder, self._path, self.offset = folder, str(folder), offset
        self._oldest = oldest
        self._listed = -1  # time of the folder when there was last nothing new in it
        self._segments = Segments(folder) if segments is None else segments
        self.schema, self.columns = schema, None if columns is None else list(columns)
        self._segment: SegmentFile | None = None
        self._next_entry = 1
        self._entries: NDArray[np.void] | None = None
        self._at = 0  # position in self._entries
        self._fields: list[tuple[int, ...]] = []  # of self._entries, when one of them stands alone
        self._alone = b""  # 1 for each of self._entries that makes a chunk by itself
        self._closing = False  # whether the segment ends after self._entries
        self.is_at_end = False  # whether the last poll has seen that there was no more; False if it does not know
        self._shapes = False  # whether batches of this segment must be brought to another schema or columns

    def poll(self, max_rows: int = 65536, max_bytes: int = 16 << 20) -> Chunk | None:
        """The next rows, at most `max_rows` unless a single append is larger; None when there is nothing new.

        Cost    10 µs for what was appended since, 4 µs each for a few small appends, less when there are many; no copy
                for messages over 32 KiB.
        """
        if self._entries is None or self._at == len(self._entries):
            chunk = self._few(max_rows, max_bytes)
            if chunk is not None:
                return chunk
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
            if not self._more(None):
                return None
        assert self._entries is not None
        found = self._entries[self._at :]
        self._at = len(self._entries)
        self.offset = int(found["first"][-1] + found["rows"][-1])
        return found

    def seek(self, offset: int) -> None:
        """Go forward to `offset`; the rows in between are not read."""
        self.offset = max(self.offset, offset)
        if self._segment is None:
            return
        entries = self._entries
        if entries is not None and self._at < len(entries):
            at = int(np.searchsorted(entries["first"] + entries["rows"], self.offset, side="right"))
            self._at = max(self._at, at)
            if at < len(entries):
                return
        if not self._closing:
            self._next_entry = max(self._next_entry, self._segment.find(self.offset))

    def _more(self, stop: int | None) -> bool:
        """Read further entries; goes on to the next segment at a seal. False at the end of the stream.

        Takes   stop: offset up to which rows are wanted: an entry holds at least one, so there is a most of entries.
        """
        most = _ENTRIES_AT_ONCE if stop is None else min(_ENTRIES_AT_ONCE, max(0, stop - self.offset) + 1)
        while True:
            if self._closing:
                self._segment, self._closing = None, False
            if self._segment is None and not self._open():
                return False
            segment = self._segment
            assert segment is not None
            count = segment.count()
            found = _NOTHING
            if count > self._next_entry:
                found = segment.entries(self._next_entry, min(count, self._next_entry + most))
            if not len(found):
                if self._nothing_new(segment):
                    return False
                if segment.count() == count:
                    self._segment = None  # its seal was lost with the power, or a repair has made its index anew
                continue
            self._next_entry += len(found)
            if found["kind"][-1] == _DROPPED:
                raise dropped(self.folder)
            self._closing = bool(found["kind"][-1] == _SEALED)
            end = int(found["first"][-1] + found["rows"][-1])
            if self._closing:
                found = found[:-1]
            # leave out the entries before a position inside the segment
            skip = int(np.searchsorted(found["first"] + found["rows"], self.offset, side="right"))
            if skip < len(found):
                if int(found["first"][skip]) > self.offset:
                    raise segment.unreadable(self._next_entry - len(found) - self._closing + skip, "a later one")
                self._entries, self._at = found[skip:], 0
                alone = (self._entries["length"] >= _LARGE_BYTES) | (self._entries["kind"] == _LOST)
                self._alone = alone.tobytes()
                self._fields = self._entries[_FIELDS].tolist() if alone.any() else []
                return True
            if self._closing:
                self.offset = max(self.offset, end)
                if self._nothing_new(segment):
                    return False

    def _nothing_new(self, segment: SegmentFile) -> bool:
        """Whether there is neither a later segment, nor this one made anew. Cost: one system call in a quiet folder."""
        try:
            stamp = os.stat(self._path).st_mtime_ns
        except FileNotFoundError:
            raise dropped(self.folder) from None
        if stamp == self._listed:
            return True
        found = firsts(self.folder)
        if (found and found[-1] > segment.first) or not segment.is_current():
            return False
        if WALL.now_ns() - stamp > _TICK_NS:  # else the next change may leave the same time
            self._listed = stamp
        return True

    def _open(self) -> bool:
        """Open the segment that holds `offset`; False while there is none."""
        gap = False
        while True:
            if not self._segments.is_current():
                raise dropped(self.folder)
            names = firsts(self.folder)
            if not names:
                return False
            if self.offset < names[0]:
                if not self._oldest:
                    raise OffsetError(
                        expected=f"an offset from {names[0]} on",
                        got=f"{self.offset}",
                        where=f"in stream {self.folder.name!r}",
                        hint='older rows were dropped by its retention; start at "start"',
                    )
                self.offset = names[0]
            at = bisect_right(names, self.offset) - 1
            try:
                segment = self._segments.get(names[at])
            except FileNotFoundError:
                if not self._look_again(names[at], is_last=at == len(names) - 1):
                    return False
                continue
            last = segment.last() if at + 1 < len(names) else None
            if last is None or not last.stop <= self.offset < names[at + 1]:
                break
            # A whole segment missing in between would otherwise look like the end of the stream. But a listing may
            # leave out a file that was made while it was read, and name a later one: only the second is believed.
            if gap:
                raise self._missing(arrow_name(last.stop), last.stop, names[at + 1])
            gap = True
        self._oldest = False
        if self.schema is not None and not segment.codec.schema.equals(self.schema):
            self.schema = Meta.load(self.folder).schema  # widened since we began
        self._shapes = self.columns is not None or (
            self.schema is not None and not segment.codec.schema.equals(self.schema)
        )
        self._segment = segment
        self._entries = None
        self._next_entry = segment.find(self.offset)
        self._listed = -1
        return True

    def _look_again(self, first: int, *, is_last: bool) -> bool:
        """Whether to open segment `first` again, one of whose files was not there; False if it has no rows yet."""
        name = arrow_name(first)
        if not (self.folder / name).exists():
            # In this order: a retention renames the data file, removes the index, and then the renamed file.
            if not (self.folder / (name + EXPIRED)).exists() and (self.folder / index_name(first)).exists():
                raise self._missing(name, first, first)
            return True
        if mend(self.folder, first):
            return True
        if not is_last:
            raise self._missing(index_name(first), first, first)
        return False

    def _missing(self, name: str, first: int, stop: int) -> CorruptSegment:
        return CorruptSegment(
            expected=f"a segment of the rows from {first} on",
            got="no such file" if stop == first else f"none before offset {stop}",
            where=f"at {self.folder / name}",
            hint="restore the file, or read from a later offset",
            file=str(self.folder / name),
            position=0,
            first=first,
            stop=stop,
        )

    def _poll(self, max_rows: int, max_bytes: int, stop: int | None) -> Chunk | None:
        self.is_at_end = False
        while True:
            if (self._entries is None or self._at == len(self._entries)) and not self._more(stop):
                return None
            entries, segment, at = self._entries, self._segment, self._at
            assert entries is not None
            assert segment is not None
            if not (self._alone[at] and self._fields[at][0] == _LOST):
                break
            self._skip_lost(self._fields[at])
            if stop is not None and self.offset >= stop:
                return None
        number = self._next_entry - (len(entries) - at) - self._closing
        if self._alone[at]:
            _, first, rows, position, length, expected, appended = self._fields[at]
            batch = segment.message(number, position, length, expected, first, rows)
            # one time for all rows: a view with stride 0, where an array would be as large as a column
            created: NDArray[np.int64] = np.ndarray((rows,), np.int64, appended.to_bytes(8, "little"), 0, (0,))
            self._at = at + 1
        else:
            ahead = entries[at : at + self._take(entries[at:], at, max_rows, max_bytes, stop)]
            start = int(ahead["position"][0])
            region = segment.region(start, int(ahead["position"][-1] + ahead["length"][-1]))
            batches, good = segment.batches(region, start, number, ahead)
            ahead = ahead[:good]
            batch = batches[0] if len(batches) == 1 else _joined(batches)
            first, created = int(ahead["first"][0]), ahead["appended"].astype(np.int64)
            if (ahead["rows"] != 1).any():
                created = np.repeat(created, ahead["rows"].astype(np.int64))
            self._at = at + good
        if first < self.offset:  # the cursor stood inside the first entry
            inside = self.offset - first
            batch, created, first = batch.slice(inside), created[inside:], self.offset
        self.offset = first + batch.num_rows
        return Chunk(self._shape(batch) if self._shapes else batch, first, created)

    def _few(self, max_rows: int, max_bytes: int) -> Chunk | None:
        """What is new, if that is a few small appends: the daily bread of those who follow. None for all the rest."""
        segment, number = self._segment, self._next_entry
        if segment is None or self._closing:
            return None
        found, self.is_at_end = segment.few(number, _FEW)
        if not found or found[0][0] != self.offset:
            return None
        last = found[-1]
        if last[0] + last[1] - self.offset > max_rows or last[2] + last[3] - found[0][2] > max_bytes:
            return None
        if len(found) > 1 and max(found, key=_length)[3] >= _LARGE_BYTES:
            return None
        batches = segment.messages(number, found)
        self.is_at_end = len(batches) == len(found)
        found = found[: len(batches)]
        batch = batches[0] if len(batches) == 1 else _joined(batches)
        created = np.array([fields[4] for fields in found], np.int64)
        if batch.num_rows != len(found):
            created = np.repeat(created, [fields[1] for fields in found])
        first = self.offset
        self._next_entry += len(found)
        self.offset = first + batch.num_rows
        return Chunk(self._shape(batch) if self._shapes else batch, first, created)

    def _take(self, ahead: NDArray[np.void], at: int, max_rows: int, max_bytes: int, stop: int | None) -> int:
        """How many small entries make one chunk: as far as the limits go, and up to one that stands alone."""
        if len(ahead) == 1:
            return 1
        take = int(np.searchsorted(np.cumsum(ahead["rows"]), max_rows, side="right"))
        ahead = ahead[: max(take, 1)]
        size = ahead["position"] + ahead["length"] - ahead["position"][0]
        take = min(len(ahead), int(np.searchsorted(size, max_bytes, side="right")))
        if stop is not None:
            take = min(take, int(np.searchsorted(ahead["first"], stop, side="left")))
        alone = self._alone.find(1, at, at + take)
        if alone >= 0:
            take = alone - at
        others = np.flatnonzero(ahead["flags"] != ahead["flags"][0])  # rows by template are read apart from others
        if len(others):
            take = min(take, int(others[0]))
        return max(take, 1)

    def _shape(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Bring a batch to the schema and columns asked for."""
        if self.schema is not None and not batch.schema.equals(self.schema):
            batch = conform(batch, self.schema, where=f"stream {self.folder.name!r}")
        return batch if self.columns is None else batch.select(self.columns)

    def _skip_lost(self, fields: tuple[int, ...]) -> None:
        first, stop = fields[1], fields[1] + fields[2]
        warnings.warn(
            f"stream {self.folder.name!r}: offsets {first} to {stop} were given up by a repair and are skipped",
            PenstockWarning,
            stacklevel=4,
        )
        self._at += 1
        self.offset = stop
