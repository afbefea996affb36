"""One segment on disk: create it, open it, map its bytes. `mending.py` repairs what a crash left of one.

A segment exists once its index does. Every function that writes is called with the stream's lock held.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.clock import WALL
from penstock.errors import CorruptSegment, UnknownStream
from penstock.log.disk import sync_folder
from penstock.log.format import (
    ENTRY_BYTES,
    ENTRY_DTYPE,
    TEMPLATE,
    VERSION,
    Entry,
    Kind,
    arrow_name,
    digest,
    index_name,
    pack,
    rows_at,
    unpack,
)
from penstock.log.lock import at_fork
from penstock.log.message import Codec, schema_of
from penstock.log.template import RowTemplate

__all__ = ["EXPIRED", "SegmentFile", "Segments", "create", "dropped", "firsts", "write_all"]

EXPIRED: Final = ".expired"  # after the name of a data file that a retention is removing

_PLACE: Final = struct.Struct("<8xQQQQ")  # first, rows, position, length of an entry
_SEALED, _DROPPED = int(Kind.SEALED), int(Kind.DROPPED)

# Regions up to this size beyond the current mapping are read instead of mapped: mapping costs about 10 µs.
_PREAD_BYTES: Final = 1 << 20


def firsts(folder: Path) -> list[int]:
    """First offsets of the segments in `folder`, in order.

    A data file or an index is enough: a segment that lost one of them must be missed, not overlooked.
    Raises  UnknownStream when the folder is gone.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        raise dropped(folder) from None
    found = {name[:20] for name in names if name[20:] in (".arrow", ".idx")}
    found -= {name[:20] for name in names if name.endswith(EXPIRED)}
    return sorted(int(name) for name in found if name.isdigit())


def dropped(folder: Path) -> UnknownStream:
    """The error of whoever still uses a stream that is gone."""
    return UnknownStream(
        f"stream {folder.name!r} was dropped",
        where=f"in {folder.parent}",
        hint="get it again from the hub to begin a new one",
    )


def create(folder: Path, first: int, codec: Codec, *, sync: bool) -> None:
    """A new, empty segment. Data file first, index second, both by rename, so none is ever half there."""
    now = WALL.now_ns()
    header = pack(Kind.HEADER, first, 0, 0, len(codec.prefix), now, message=digest(codec.prefix))
    for name, data in ((arrow_name(first), codec.prefix), (index_name(first), header)):
        path = folder / name
        temporary = folder / (name + ".new")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            write_all(fd, data, 0)
            if sync:
                os.fsync(fd)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        temporary.rename(path)
    if sync:
        sync_folder(folder)


def write_all(fd: int, data: bytes | bytearray | memoryview | pa.Buffer, position: int) -> None:
    """Write until all is written: a signal or a nearly full disk may cut a single call short."""
    view = memoryview(data)
    while True:
        written = os.pwrite(fd, view, position)
        if written == len(view):
            return
        view, position = view[written:], position + written


Few = tuple[int, int, int, int, int, int]
"""Of an entry: first offset, rows, position, length, when it was appended, digest of its message."""


class SegmentFile:
    """A segment opened for reading: its entries, and zero-copy views of its messages.

    Safe for several threads: what one has mapped and checked serves the others.
    """

    def __init__(self, folder: Path, first: int) -> None:
        self.folder, self.first = folder, first
        self.path, self._index_path = folder / arrow_name(first), str(folder / index_name(first))
        self._data = self._index = -1
        self._data = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        self._index = os.open(self._index_path, os.O_RDONLY | os.O_CLOEXEC)
        self._map: pa.Buffer | None = None
        self._ticking = threading.Lock()
        self._checked = bytearray()  # 1 for each entry whose message's digest was found right
        at_fork(self)
        header = unpack(os.pread(self._index, ENTRY_BYTES, 0))
        if header is None or not header.heads(first):
            got = "unreadable bytes" if header is None else "another entry"
            raise self._corrupt("an index header", got, 0, first, first, self.folder / index_name(first))
        self._after = (1, header.stop, header.end)  # the entries read last: number, offset and position behind them
        prefix = os.pread(self._data, header.length, 0)
        if digest(prefix) != header.message:
            raise self._corrupt("the schema message", f"{len(prefix)} other bytes", 0, first, first)
        try:
            self.codec = Codec(schema_of(prefix))
        except ValueError as error:
            raise self._corrupt("a schema message", f"{len(prefix)} bytes ({error})", 0, first, first) from error
        self._template = RowTemplate.of(self.codec.schema, None)

    def __del__(self) -> None:
        for fd in (self._data, self._index):
            if fd >= 0:
                os.close(fd)

    def after_fork(self) -> None:
        self._ticking = threading.Lock()

    def count(self) -> int:
        """Whole entries now in the index, the header included. Cost: one system call."""
        return os.lseek(self._index, 0, os.SEEK_END) // ENTRY_BYTES

    def entries(self, start: int, stop: int) -> NDArray[np.void]:
        """Entries `start` to `stop` (0 is the header) as a structured array of ENTRY_DTYPE.

        Checked are their digests, and that each begins where the one before it ends, in rows and in bytes. Fewer when
        one in between is unreadable or not in its place. Raises CorruptSegment when that is the first of them, unless
        it is unreadable and the very last of the index: a writer may be putting that one there just now.
        """
        data = os.pread(self._index, (stop - start) * ENTRY_BYTES, start * ENTRY_BYTES)
        found = np.frombuffer(data, ENTRY_DTYPE, len(data) // ENTRY_BYTES)
        stored = found["digest"].tolist()
        for i, expected in enumerate(stored):
            if digest(data[i * ENTRY_BYTES : (i + 1) * ENTRY_BYTES - 8]) != expected:
                if i == 0 and start < self.count() - 1:
                    raise self.unreadable(start)
                found = found[:i]
                break
        if any(version != VERSION for version in set(found["version"].tolist())):
            unpack(data, int((found["version"] != VERSION).argmax()) * ENTRY_BYTES)  # raises
        if len(found):
            found = found[: self._in_place(data, found, start)]
            if not len(found):
                raise self.unreadable(start, "an entry of other rows")
            first, rows, position, length = _PLACE.unpack_from(data, (len(found) - 1) * ENTRY_BYTES)
            self._after = (start + len(found), first + rows, position + length)
        return found

    def _in_place(self, data: bytes, found: NDArray[np.void], start: int) -> int:
        """How many of these entries, from the first on, follow the one before them without a gap."""
        first, _, position, _ = _PLACE.unpack_from(data)
        if (start, first, position) != self._after and start > 0:
            before = self.entry(start - 1)
            if before is not None and (before.stop, before.end) != (first, position):
                return 0
        if len(found) == 1:
            return 1
        apart = found["first"][1:] != (found["first"] + found["rows"])[:-1]
        apart |= found["position"][1:] != (found["position"] + found["length"])[:-1]
        apart |= (found["kind"][:-1] == _SEALED) & (found["kind"][1:] != _DROPPED)
        return 1 + int(apart.argmax()) if apart.any() else len(found)

    def few(self, number: int, most: int) -> tuple[list[Few], bool]:
        """Entries from `number` on, and whether they are all there are now; checked as by `entries`.

        None when there are more than `most`, or one that is not of rows, or not as it should be: ask `entries` then.
        """
        data = os.pread(self._index, (most + 1) * ENTRY_BYTES, number * ENTRY_BYTES)
        size = len(data) // ENTRY_BYTES * ENTRY_BYTES
        if not size:
            return [], True
        if size > most * ENTRY_BYTES:
            return [], False
        at, offset, position = self._after
        if at != number:  # another reader was here
            before = self.entry(number - 1)
            if before is None:
                return [], False
            offset, position = before.stop, before.end
        found = []
        for at in range(0, size, ENTRY_BYTES):
            few = rows_at(data, at)
            if few is None or few[0] != offset or few[2] != position:
                return [], False
            found.append(few)
            offset, position = offset + few[1], position + few[3]
        self._after = number + len(found), offset, position
        return found, True

    def unreadable(self, number: int, got: str = "unreadable bytes") -> CorruptSegment:
        """The error of entry `number`, with the offsets that the readable ones around it leave open."""
        size = self.count()
        before = next((e for n in range(number - 1, -1, -1) if (e := self.entry(n)) is not None), None)
        after = next((e for n in range(number + 1, size) if (e := self.entry(n)) is not None), None)
        first = self.first if before is None else before.stop
        return self._corrupt(
            "an index entry",
            got,
            number * ENTRY_BYTES,
            first,
            first if after is None else max(first, after.first),
            self.folder / index_name(self.first),
        )

    def entry(self, number: int) -> Entry | None:
        """Entry `number`; None when it is unreadable, or not there."""
        return unpack(os.pread(self._index, ENTRY_BYTES, number * ENTRY_BYTES))

    def last(self) -> Entry | None:
        """The last readable entry of the index."""
        return next((e for n in range(self.count() - 1, -1, -1) if (e := self.entry(n)) is not None), None)

    def find(self, offset: int) -> int:
        """Number of the entry that holds `offset`, or of the first after it."""
        return self._first_not(lambda entry: entry.stop <= offset, lambda entry: entry.first <= offset)

    def find_time(self, moment: int) -> int:
        """Number of the first entry appended at or after `moment`, or of the end."""
        return self._first_not(lambda entry: entry.appended < moment, lambda _: False)

    def _first_not(self, is_before: Callable[[Entry], bool], is_sure: Callable[[Entry], bool]) -> int:
        """Bisection: number of the first entry that is not before, the header apart.

        An unreadable entry next to it counts as that entry, unless the readable one `is_sure`: reading it then raises.
        """
        low, high = 1, self.count()
        while low < high:
            middle = (low + high) // 2
            entry = self.entry(middle)
            if entry is None:  # a corrupt index, or a torn end: look at each
                break
            if is_before(entry):
                low = middle + 1
            else:
                high = middle
        unknown = None
        for number in range(low, high + 1):
            entry = self.entry(number)
            if entry is None:
                unknown = number if unknown is None else unknown
            elif is_before(entry):
                unknown = None
            else:
                return number if unknown is None or is_sure(entry) else unknown
        return min(high, self.count()) if unknown is None else unknown

    def region(self, position: int, end: int) -> pa.Buffer:
        """Bytes [position, end) of the data file: a view of the mapping, or a copy when a small one lies beyond it."""
        found = self._map
        if found is None or end > found.size:
            size = os.lseek(self._data, 0, os.SEEK_END)
            if end > size or size - position <= _PREAD_BYTES:
                return pa.py_buffer(os.pread(self._data, end - position, position))
            found = self._map = pa.py_buffer(mmap.mmap(self._data, size, prot=mmap.PROT_READ))
        return found.slice(position, end - position)

    def message(self, number: int, position: int, length: int, expected: int, first: int, rows: int) -> pa.RecordBatch:
        """The rows of one entry; as `batches`, for one that is large."""
        message = self.region(position, position + length)
        if number >= len(self._checked) or not self._checked[number]:
            if digest(message) != expected or message.size != length:
                raise self._other_bytes(memoryview(message), length, expected, position, first, rows)
            self._tick(number, number + 1)
        return self.codec.decode(message)

    def batches(
        self, region: pa.Buffer, start: int, number: int, entries: NDArray[np.void]
    ) -> tuple[list[pa.RecordBatch], int]:
        """The rows of consecutive entries, the first of them entry `number`, as few batches as can be had cheaply.

        Takes   region: bytes of the data file from position `start` on that hold their messages.
        Returns the batches, and of how many entries: one whose message is corrupt ends them, so that the rows before
                it can be had.
        Raises  CorruptSegment when that is the first; a message's digest is checked when this object first reads it.
        """
        positions = (entries["position"] - np.uint64(start)).astype(np.int64)
        good = self._check(region, positions, number, entries)
        positions, entries = positions[:good], entries[:good]
        flagged = (entries["flags"] & np.uint64(TEMPLATE)).astype(bool)
        if self._template is not None and len(entries) > 1 and flagged.all():
            return [self._template.gather(region, positions)], good
        decode = self.codec.decode
        lengths = entries["length"].tolist()
        return [decode(region.slice(at, size)) for at, size in zip(positions.tolist(), lengths, strict=True)], good

    def messages(self, number: int, found: list[Few]) -> list[pa.RecordBatch]:
        """The rows of a few entries, as `few` has them, the first of them entry `number`; as `batches`."""
        start = found[0][2]
        region = self.region(start, found[-1][2] + found[-1][3])
        view, stop = memoryview(region), number + len(found)
        is_known = stop <= len(self._checked) and self._checked.find(0, number, stop) < 0
        batches: list[pa.RecordBatch] = []
        for first, rows, position, length, _, expected in found:
            at = position - start
            message = view[at : at + length]
            if not is_known and (digest(message) != expected or len(message) != length):
                if not batches:
                    raise self._other_bytes(message, length, expected, position, first, rows)
                break
            batches.append(self.codec.decode(region.slice(at, length)))
        if not is_known:
            self._tick(number, number + len(batches))
        return batches

    def _check(self, region: pa.Buffer, positions: NDArray[np.int64], number: int, entries: NDArray[np.void]) -> int:
        """How many of the entries, from the first on, have the messages they say. Raises when the first has not."""
        stop = number + len(entries)
        if stop <= len(self._checked) and self._checked.find(0, number, stop) < 0:
            return len(entries)
        view = memoryview(region)
        lengths, stored = entries["length"].tolist(), entries["message"].tolist()
        good = 0
        for at, length, expected in zip(positions.tolist(), lengths, stored, strict=True):
            message = view[at : at + length]
            if digest(message) != expected or len(message) != length:
                if not good:
                    position, first, rows = (int(entries[name][0]) for name in ("position", "first", "rows"))
                    raise self._other_bytes(message, length, expected, position, first, rows)
                break
            good += 1
        self._tick(number, number + good)
        return good

    def _tick(self, start: int, stop: int) -> None:
        with self._ticking:  # readers of several threads share a segment
            if stop > len(self._checked):
                self._checked.extend(bytes(stop + 1024 - len(self._checked)))
            self._checked[start:stop] = b"\x01" * (stop - start)

    def _other_bytes(
        self, found: memoryview, length: int, expected: int, position: int, first: int, rows: int
    ) -> CorruptSegment:
        return self._corrupt(
            f"{length} bytes with digest {expected:016x}",
            f"{len(found)} bytes with digest {digest(found):016x}",
            position,
            first,
            first + rows,
        )

    def is_current(self) -> bool:
        """Whether the folder still has these very files."""
        try:
            return os.path.samestat(os.fstat(self._index), os.stat(self._index_path)) and os.path.samestat(
                os.fstat(self._data), os.stat(self.path)
            )
        except FileNotFoundError:
            return False

    def _corrupt(
        self, expected: str, got: str, position: int, first: int, stop: int, path: Path | None = None
    ) -> CorruptSegment:
        path = path or self.path
        return CorruptSegment(
            expected=expected,
            got=got,
            where=f"in {path} at byte {position}, offsets {first} to {stop}",
            hint=f"restore the file, or give these rows up with `penstock stream repair {self.folder.name} --give-up`",
            file=str(path),
            position=position,
            first=first,
            stop=stop,
        )


class Segments:
    """The segments of a stream that readers of one process share: the last few used, opened once."""

    def __init__(self, folder: Path, limit: int = 16) -> None:
        self.folder, self._path = folder, str(folder)
        self._limit = limit
        self._open: dict[int, SegmentFile] = {}
        try:
            self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise dropped(folder) from None
        self.after_fork()
        at_fork(self)

    def after_fork(self) -> None:
        self._mutex = threading.Lock()

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)

    def is_current(self) -> bool:
        """Whether the stream's folder is still the one it was: not dropped, nor dropped and made anew."""
        try:
            if os.path.samestat(os.fstat(self._fd), os.stat(self._path)):
                return True
        except FileNotFoundError:
            pass
        self.clear()  # open files would keep the room of a dropped stream
        return False

    def get(self, first: int) -> SegmentFile:
        """The segment that begins at offset `first`."""
        with self._mutex:
            found = self._open.pop(first, None)
            if found is None or not found.is_current():
                # What a retention has removed keeps its room, on the disk and mapped, as long as it is open here.
                self._open = {at: kept for at, kept in self._open.items() if kept.is_current()}
                found = SegmentFile(self.folder, first)
            self._open[first] = found  # last in the order of use
            while len(self._open) > self._limit:
                del self._open[next(iter(self._open))]
            return found

    def clear(self) -> None:
        """Let go of all; readers that still use one keep it open."""
        with self._mutex:
            self._open.clear()
