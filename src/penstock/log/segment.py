"""One segment on disk: create it, open it, repair its tail, map its bytes.

A segment exists once its index does. Every function that writes is called with the stream's lock held.
"""

from __future__ import annotations

import mmap
import os
import warnings
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.clock import WALL
from penstock.errors import CorruptSegment, PenstockWarning
from penstock.log.format import (
    ENTRY_BYTES,
    ENTRY_DTYPE,
    NO_TIME,
    TEMPLATE,
    Entry,
    Kind,
    arrow_name,
    digest,
    index_name,
    pack,
    unpack,
)
from penstock.log.message import Codec, message_lengths
from penstock.log.template import RowTemplate
from penstock.records import event_column, event_times

__all__ = ["SegmentFile", "create", "firsts", "rebuild_index", "repair_tail", "set_aside"]

# Regions up to this size beyond the current mapping are read instead of mapped: mapping costs about 10 µs.
_PREAD_BYTES: Final = 1 << 20


def firsts(folder: Path) -> list[int]:
    """First offsets of the segments in `folder`, in order: its data files. A missing index can be rebuilt."""
    return sorted(
        int(name[:20])
        for name in os.listdir(folder)
        if len(name) == 26 and name.endswith(".arrow") and name[:20].isdigit()
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
    """pwrite until all is written: a signal or a nearly full disk may cut a single call short."""
    view = memoryview(data)
    while True:
        written = os.pwrite(fd, view, position)
        if written == len(view):
            return
        view, position = view[written:], position + written


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def set_aside(path: Path, fd: int, position: int, size: int) -> Path:
    """Copy bytes [position, size) of a data file to a `.torn` file beside it; returns that path."""
    torn = path.with_name(f"{path.name}@{position}.torn")
    number = 1
    while torn.exists():
        torn = path.with_name(f"{path.name}@{position}.{number}.torn")
        number += 1
    try:
        with torn.open("wb") as out:
            while position < size:
                block = os.pread(fd, min(1 << 20, size - position), position)
                if not block:
                    break
                out.write(block)
                position += len(block)
    except OSError:  # a full disk: the cut itself must still happen, nothing acknowledged is in these bytes
        torn.unlink(missing_ok=True)
    return torn


def repair_tail(folder: Path, first: int, data_fd: int, index_fd: int) -> Entry:
    """Cut what was never committed off the end of a segment; returns its last whole entry.

    Cut are: a torn or unreadable entry at the end of the index, entries that point beyond the end of the data file
    (power was lost before the data reached the disk), and data after the last entry. The data cut off is kept in a
    `.torn` file and a PenstockWarning says how many bytes.

    Raises  CorruptSegment when not even the header can be read.
    """
    path = folder / arrow_name(first)
    index_size = os.fstat(index_fd).st_size
    data_size = os.fstat(data_fd).st_size
    count = index_size // ENTRY_BYTES
    last: Entry | None = None
    while count:
        last = unpack(os.pread(index_fd, ENTRY_BYTES, (count - 1) * ENTRY_BYTES))
        if last is not None and last.end <= data_size and not _is_hole(data_fd, last):
            break
        last = None
        count -= 1
    if last is None:
        raise CorruptSegment(
            expected="an index entry",
            got=f"{index_size} unreadable bytes",
            where=f"in {folder / index_name(first)}",
            hint=f"run `penstock stream repair {folder.name}` to rebuild the index from the data file",
            file=str(folder / index_name(first)),
            position=0,
            first=first,
            stop=first,
        )
    cut: list[str] = []
    if index_size != count * ENTRY_BYTES:
        os.ftruncate(index_fd, count * ENTRY_BYTES)
        cut.append(f"{index_size - count * ENTRY_BYTES} bytes of its index")
    if data_size > last.end:
        torn = set_aside(path, data_fd, last.end, data_size)
        os.ftruncate(data_fd, last.end)
        cut.append(f"{data_size - last.end} bytes of data, kept in {torn.name},")
    if cut:
        warnings.warn(
            f"{path}: cut {' and '.join(cut)} that no append had committed; next offset is {last.stop}",
            PenstockWarning,
            stacklevel=2,
        )
    return last


def _is_hole(fd: int, entry: Entry) -> bool:
    """Whether the entry's message never reached the disk: after a power loss the file may be long but empty."""
    return entry.kind is Kind.ROWS and os.pread(fd, 8, entry.position) == bytes(8)


def rebuild_index(folder: Path, first: int) -> int:
    """Write the index of a data file anew from its messages; returns the number of rows found.

    What only the index knew is gone: append times become the file's time, origins none, so a consumer that wrote into
    this stream resumes from its group's position instead.
    """
    path = folder / arrow_name(first)
    stamp = os.stat(path).st_mtime_ns
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) if size else b""
        view = memoryview(data)
        lengths = message_lengths(view)
        if not lengths:
            raise CorruptSegment(
                expected="an Arrow schema message",
                got=f"{size} bytes that begin with {bytes(view[:8])!r}",
                where=f"in {path}",
                hint="restore the file, or drop the stream",
                file=str(path),
                position=0,
                first=first,
                stop=first,
            )
        schema = pa.ipc.read_schema(pa.py_buffer(view[: lengths[0]]))
        codec = Codec(schema)
        column = event_column(schema)
        entries = [pack(Kind.HEADER, first, 0, 0, lengths[0], stamp, message=digest(view[: lengths[0]]))]
        offset, position = first, lengths[0]
        pending = 0  # dictionary messages belong to the record batch after them
        for length in lengths[1:]:
            message = pa.py_buffer(view[position : position + pending + length])
            try:
                batch = codec.decode(message)
                batch.validate()
            except (pa.ArrowException, OSError, StopIteration):
                if not codec.has_dictionaries:
                    break
                pending += length
                continue
            low, high = _event_range(batch, column)
            entries.append(
                pack(Kind.ROWS, offset, batch.num_rows, position, len(message), stamp, low, high,
                     message=digest(message))
            )  # fmt: skip
            offset += batch.num_rows
            position += len(message)
            pending = 0
            del batch, message
        if position < size:
            torn = set_aside(path, file.fileno(), position, size)
            os.ftruncate(file.fileno(), position)
            warnings.warn(
                f"{path}: cut {size - position} bytes that hold no whole message, kept in {torn.name}",
                PenstockWarning,
                stacklevel=2,
            )
    temporary = folder / (index_name(first) + ".new")
    temporary.write_bytes(b"".join(entries))
    temporary.rename(folder / index_name(first))
    if offset > first:  # without rows it is only a creation that was cut short
        warnings.warn(
            f"{path}: its index was missing and was rebuilt, {offset - first} rows; append times and origins are lost",
            PenstockWarning,
            stacklevel=2,
        )
    return offset - first


def _event_range(batch: pa.RecordBatch, column: str | None) -> tuple[int, int]:
    if column is None or not batch.num_rows:
        return NO_TIME, NO_TIME
    times = event_times(batch, column)
    return int(times.min()), int(times.max())


class SegmentFile:
    """A segment opened for reading: its entries, and zero-copy views of its messages.

    Not thread-safe; each reader has its own.
    """

    def __init__(self, folder: Path, first: int) -> None:
        self.folder, self.first = folder, first
        self.path = folder / arrow_name(first)
        self._data = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._index = os.open(folder / index_name(first), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(self._data)
            raise
        self._map: pa.Buffer | None = None
        self._checked = bytearray()  # 1 for each entry whose message's digest was found right
        header = unpack(os.pread(self._index, ENTRY_BYTES, 0))
        if header is None or header.kind is not Kind.HEADER:
            raise self._corrupt("an index header", "unreadable bytes", 0, first, first, self.folder / index_name(first))
        prefix = os.pread(self._data, header.length, 0)
        if digest(prefix) != header.message:
            raise self._corrupt("the schema message", f"{len(prefix)} other bytes", 0, first, first)
        self.codec = Codec(pa.ipc.read_schema(pa.py_buffer(prefix)))

    def __del__(self) -> None:
        for fd in (getattr(self, "_data", None), getattr(self, "_index", None)):
            if fd is not None:
                os.close(fd)

    def count(self) -> int:
        """Whole entries now in the index, the header included. Cost: one system call."""
        return os.lseek(self._index, 0, os.SEEK_END) // ENTRY_BYTES

    def entries(self, start: int, stop: int) -> NDArray[np.void]:
        """Entries `start` to `stop` (0 is the header) as a structured array of ENTRY_DTYPE, digests checked."""
        data = os.pread(self._index, (stop - start) * ENTRY_BYTES, start * ENTRY_BYTES)
        found = np.frombuffer(data, ENTRY_DTYPE, len(data) // ENTRY_BYTES)
        stored = found["digest"].tolist()
        for i, expected in enumerate(stored):
            if digest(data[i * ENTRY_BYTES : (i + 1) * ENTRY_BYTES - 8]) != expected:
                # The last entry may be one that a writer is putting there just now.
                if start + i == self.count() - 1:
                    return found[:i]
                at = (start + i) * ENTRY_BYTES
                raise self._corrupt(
                    "an index entry", "unreadable bytes", at, self.first, self.first, self.folder / index_name(self.first)
                )
        return found

    def region(self, position: int, end: int) -> pa.Buffer:
        """Bytes [position, end) of the data file: a view of the mapping, or a copy when a small one lies beyond it."""
        if self._map is None or end > self._map.size:
            size = os.lseek(self._data, 0, os.SEEK_END)
            if end > size or size - position <= _PREAD_BYTES:
                return pa.py_buffer(os.pread(self._data, end - position, position))
            self._map = pa.py_buffer(mmap.mmap(self._data, size, prot=mmap.PROT_READ))
        return self._map.slice(position, end - position)

    def batches(
        self, region: pa.Buffer, start: int, number: int, entries: NDArray[np.void], template: RowTemplate | None
    ) -> list[pa.RecordBatch]:
        """The rows of consecutive entries, the first of them entry `number`, as few batches as can be had cheaply.

        Takes   region: bytes of the data file from position `start` on that hold their messages;
                template: of this segment's schema, if it has one.
        Raises  CorruptSegment; each message's digest is checked the first time this object reads it.
        """
        positions = (entries["position"] - np.uint64(start)).astype(np.int64)
        self._check(region, positions, number, entries)
        flagged = (entries["flags"] & np.uint64(TEMPLATE)).astype(bool)
        if template is not None and len(entries) > 1 and flagged.all():
            return [template.gather(region, positions)]
        decode = self.codec.decode
        return [
            decode(region.slice(at, length))
            for at, length in zip(positions.tolist(), entries["length"].tolist(), strict=True)
        ]

    def _check(self, region: pa.Buffer, positions: NDArray[np.int64], number: int, entries: NDArray[np.void]) -> None:
        stop = number + len(entries)
        if stop > len(self._checked):
            self._checked.extend(bytes(stop + 1024 - len(self._checked)))
        if self._checked.find(0, number, stop) < 0:
            return
        view = memoryview(region)
        lengths, stored = entries["length"].tolist(), entries["message"].tolist()
        for i, (at, length, expected) in enumerate(zip(positions.tolist(), lengths, stored, strict=True)):
            message = view[at : at + length]
            if digest(message) != expected or len(message) != length:
                raise self._corrupt(
                    f"{length} bytes with digest {expected:016x}",
                    f"{len(message)} bytes with digest {digest(message):016x}",
                    int(entries["position"][i]),
                    int(entries["first"][i]),
                    int(entries["first"][i] + entries["rows"][i]),
                )
        self._checked[number:stop] = b"\x01" * len(entries)

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
