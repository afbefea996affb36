"""What a crash can leave of a segment, put right: torn tails, an index that is missing.

Nothing here needs to be asked for: the next producer repairs the last segment when it opens it, a reader that finds no
index has it rebuilt. What cannot be put right without losing rows is left to `repair.py`.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from penstock.errors import CorruptSegment, PenstockWarning, RecordError
from penstock.log.disk import storage
from penstock.log.format import (
    ENTRY_BYTES,
    NO_TIME,
    VERSION,
    Entry,
    Kind,
    arrow_name,
    digest,
    index_name,
    pack,
    unpack,
)
from penstock.log.lock import FileLock
from penstock.log.message import Codec, message_lengths, schema_of
from penstock.log.segment import dropped, firsts
from penstock.records import event_column, event_times

__all__ = [
    "Found",
    "has_header",
    "holds_rows",
    "last_entry",
    "mend",
    "messages_in",
    "read_last",
    "rebuild_index",
    "repair_tail",
    "replace_index",
    "set_aside",
]

_MESSAGE = struct.Struct("<4si")
_HEAD = struct.Struct("<IIQ")  # kind, version, first
_PLACE = struct.Struct("<8xQQQQ")  # first, rows, position, length


def set_aside(path: Path, fd: int, position: int, size: int, suffix: str = "torn") -> Path | None:
    """Copy bytes [position, size) of a data file to a `.torn` file beside it.

    Returns its path; None when a full disk does not take it, which must not keep anybody from cutting.
    """
    number = 0
    while (torn := path.with_name(f"{path.name}@{position}{f'.{number}' if number else ''}.{suffix}")).exists():
        number += 1
    try:
        with torn.open("wb") as out:
            while position < size:
                block = os.pread(fd, min(1 << 20, size - position), position)
                if not block:
                    break
                out.write(block)
                position += len(block)
    except OSError:
        torn.unlink(missing_ok=True)
        return None
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
    gone: list[Entry] = []  # committed, but their rows are not there
    found = ""
    while count:
        last = unpack(os.pread(index_fd, ENTRY_BYTES, (count - 1) * ENTRY_BYTES))
        if last is not None:
            if last.kind is Kind.DROPPED:
                return last
            if last.end <= data_size and not _is_hole(data_fd, last):
                break
            gone.append(last)
        last = None
        count -= 1
    if last is not None and not _is_in_place(index_fd, first, count - 1, last):
        last, found = None, "entries of other rows"  # what to cut off cannot be told by them
    if last is None:
        raise CorruptSegment(
            expected="an index entry",
            got=f"{index_size} bytes of {found}" if found else f"{index_size} unreadable bytes",
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
        kept = f"kept in {torn.name}" if torn else "no room to keep them"
        cut.append(f"{data_size - last.end} bytes of data ({kept})")
    if cut:
        why = "that no append had committed"
        if any(entry.rows for entry in gone):
            why = f"of rows {last.stop} to {gone[0].stop}, which did not reach the disk"
        warnings.warn(
            f"{path}: cut {' and '.join(cut)} {why}; next offset is {last.stop}", PenstockWarning, stacklevel=2
        )
    return last


def _is_in_place(fd: int, first: int, number: int, entry: Entry) -> bool:
    """Whether an entry follows the one before it, in the index of this segment. What is unreadable is not asked."""
    if number and os.pread(fd, 16, 0) == _HEAD.pack(Kind.HEADER, VERSION, first):  # the usual case, at little cost
        offset, rows, position, length = _PLACE.unpack(os.pread(fd, _PLACE.size, (number - 1) * ENTRY_BYTES))
        if entry.follows(offset + rows, position + length):
            return True
    header = entry if number == 0 else unpack(os.pread(fd, ENTRY_BYTES, 0))
    if number == 0 or (header is not None and not header.heads(first)):
        return header is not None and header.heads(first)
    before = unpack(os.pread(fd, ENTRY_BYTES, (number - 1) * ENTRY_BYTES))
    return before is None or entry.follows(before.stop, before.end)


def _is_hole(fd: int, entry: Entry) -> bool:
    """Whether the entry's message never reached the disk: after a power loss the file may be long but empty."""
    return entry.kind is Kind.ROWS and os.pread(fd, 8, entry.position) == bytes(8)


def holds_rows(path: Path) -> bool:
    """Whether a data file has anything after its schema message."""
    try:
        with path.open("rb") as file:
            mark, size = _MESSAGE.unpack(file.read(8).ljust(8, b"\0"))
            return bool(mark == b"\xff\xff\xff\xff" and os.fstat(file.fileno()).st_size > 8 + size)
    except FileNotFoundError:
        return False


def has_header(path: Path) -> bool:
    """Whether there is an index, and not one that power was lost over before its first bytes reached the disk."""
    try:
        with path.open("rb") as file:
            return any(file.read(ENTRY_BYTES))
    except FileNotFoundError:
        return False


def read_last(folder: Path, first: int, *, in_place: bool = False) -> Entry | None:
    """The last readable index entry of a segment, or None.

    Takes   in_place: True to raise CorruptSegment when it is not where it belongs: its rows are not the last ones then.
    """
    try:
        with (folder / index_name(first)).open("rb") as file:
            fd = file.fileno()
            for number in range(os.fstat(fd).st_size // ENTRY_BYTES - 1, -1, -1):
                entry = unpack(os.pread(fd, ENTRY_BYTES, number * ENTRY_BYTES))
                if entry is not None:
                    if in_place and not _is_in_place(fd, first, number, entry):
                        raise _no_index(folder, first, "entries of other rows")
                    return entry
    except FileNotFoundError:
        pass
    return None


def last_entry(folder: Path, first: int) -> Entry | None:
    """As `read_last`, with a missing index rebuilt; None while there is nothing to read. Not with the lock held."""
    found = read_last(folder, first, in_place=True)
    if found is None and mend(folder, first):
        found = read_last(folder, first)
        if found is None and holds_rows(folder / arrow_name(first)):
            raise _no_index(folder, first, "unreadable bytes")
    return found


def mend(folder: Path, first: int) -> bool:
    """Make sure of the index of a segment that has none; False while there is nothing to read.

    A producer that was killed (or is still at work) between making the data file and its index leaves one without
    rows: that is no segment yet. With rows the index was lost; it is rebuilt, the stream's lock held.
    Raises  CorruptSegment when it cannot be.
    """
    path = folder / index_name(first)
    if not holds_rows(folder / arrow_name(first)):
        return False
    try:
        with FileLock.held(folder / "lock") as lock:
            if not lock.is_current() or not (folder / arrow_name(first)).exists():  # dropped meanwhile, or expired
                return False
            if not has_header(path):
                rebuild_index(folder, first)
    except FileNotFoundError:
        raise dropped(folder) from None
    except OSError as error:
        raise _no_index(folder, first, f"none, and it cannot be rebuilt here ({error})") from error
    return True


def _no_index(folder: Path, first: int, got: str) -> CorruptSegment:
    return CorruptSegment(
        expected="the index of a segment",
        got=got,
        where=f"at {folder / index_name(first)}",
        hint=f"restore the file, or run `penstock stream repair {folder.name}`",
        file=str(folder / index_name(first)),
        position=0,
        first=first,
        stop=first,
    )


def rebuild_index(folder: Path, first: int) -> int:
    """Write the index of a data file anew from its messages; returns the number of rows found.

    What only the index knew is gone: append times become the file's time, origins none, so a consumer that wrote into
    this stream resumes from its group's position instead. Call with the stream's lock held.
    """
    path = folder / arrow_name(first)
    following = next((other for other in firsts(folder) if other > first), None)
    stamp = _stamp(folder, first, following)
    with storage(folder, "the index of a segment"), path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) if size else b""
        view = memoryview(data)
        lengths = message_lengths(view)
        if not lengths and not any(view[:4096]):
            return _remove_hollow(folder, first, size)
        try:
            codec = Codec(schema_of(view[: lengths[0] if lengths else 8]))
        except ValueError:
            raise CorruptSegment(
                expected="an Arrow schema message",
                got=f"{size} bytes that begin with {bytes(view[:8])!r}",
                where=f"in {path}",
                hint="restore the file, or drop the stream",
                file=str(path),
                position=0,
                first=first,
                stop=first,
            ) from None
        entries = [pack(Kind.HEADER, first, 0, 0, lengths[0], stamp, message=digest(view[: lengths[0]]))]
        offset, position = first, lengths[0]
        for found in messages_in(codec, view, position, size):
            entries.append(found.entry(offset, stamp))
            offset += found.rows
            position = found.position + found.length
        if following is not None:
            entries.append(pack(Kind.SEALED, offset, 0, position, 0, max(stamp, 1)))
        if position < size:
            torn = set_aside(path, file.fileno(), position, size)
            os.ftruncate(file.fileno(), position)
            warnings.warn(
                f"{path}: cut {size - position} bytes that hold no whole message,"
                f" {f'kept in {torn.name}' if torn else 'for which there was no room elsewhere'}",
                PenstockWarning,
                stacklevel=2,
            )
        replace_index(folder, first, b"".join(entries))
    if offset > first:  # without rows it is only a creation that was cut short
        warnings.warn(
            f"{path}: its index was missing and was rebuilt, {offset - first} rows; append times and origins are lost",
            PenstockWarning,
            stacklevel=2,
        )
    return offset - first


def replace_index(folder: Path, first: int, entries: bytes) -> None:
    """Give a segment another index. Call with the stream's lock held."""
    path = folder / index_name(first)
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.write_bytes(entries)
        with contextlib.suppress(FileNotFoundError):
            # Producers that have the old one open see by its length that it is no longer as they left it.
            os.truncate(path, max(0, path.stat().st_size - 1))
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def _stamp(folder: Path, first: int, following: int | None) -> int:
    """An append time for all rows of a segment: the file's own, but between those of the segments around it."""
    stamp = os.stat(folder / arrow_name(first)).st_mtime_ns
    earlier = [other for other in firsts(folder) if other < first]
    if following is not None and has_header(folder / index_name(following)):
        with (folder / index_name(following)).open("rb") as file:
            entry = unpack(os.pread(file.fileno(), ENTRY_BYTES, ENTRY_BYTES))
        stamp = stamp if entry is None else min(stamp, entry.appended)
    if earlier and has_header(folder / index_name(earlier[-1])):
        before = read_last(folder, earlier[-1])
        stamp = stamp if before is None else max(stamp, before.appended)
    return stamp


def _remove_hollow(folder: Path, first: int, size: int) -> int:
    """A file that was made just before power was lost, and has no contents: no segment."""
    (folder / arrow_name(first)).unlink()
    (folder / index_name(first)).unlink(missing_ok=True)
    warnings.warn(
        f"{folder / arrow_name(first)}: {size} empty bytes, removed; the stream goes on at the segment before",
        PenstockWarning,
        stacklevel=2,
    )
    return 0


@dataclass(frozen=True, slots=True)
class Found:
    """A message of which no index tells."""

    position: int
    length: int
    rows: int
    low: int
    high: int
    message: int

    def entry(self, first: int, appended: int) -> bytes:
        """An index entry for it."""
        return pack(
            Kind.ROWS, first, self.rows, self.position, self.length, appended, self.low, self.high, message=self.message
        )


def messages_in(codec: Codec, view: memoryview, position: int, end: int) -> Iterator[Found]:
    """The whole messages of record batches from byte `position` of a data file on, as far as there are such."""
    column = event_column(codec.schema)
    pending = 0  # dictionary messages belong to the record batch after them
    for length in message_lengths(view[position:end]):
        message = pa.py_buffer(view[position : position + pending + length])
        try:
            batch = codec.decode(message)
            batch.validate(full=True)  # no digest says that these bytes are what was written
        except (pa.ArrowException, OSError, StopIteration):
            if not codec.has_dictionaries:
                return
            pending += length
            continue
        yield Found(position, len(message), batch.num_rows, *_event_range(batch, column), digest(message))
        position += len(message)
        pending = 0
        del batch, message


def _event_range(batch: pa.RecordBatch, column: str | None) -> tuple[int, int]:
    if column is None or not batch.num_rows:
        return NO_TIME, NO_TIME
    try:
        times = event_times(batch, column)
    except RecordError:  # what a reader then thinks of it is not this file's business
        return NO_TIME, NO_TIME
    return int(times.min()), int(times.max())
