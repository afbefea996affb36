"""Appending: many threads and processes, one file lock, data first, entry second.

Each append takes the stream's lock, sees in one system call whether another producer has appended since (the index
grew), writes the message, writes the entry, rings the bell. A producer killed in between leaves bytes that the next
one cuts off; nothing it had acknowledged is touched.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pyarrow as pa

from penstock.clock import WALL
from penstock.errors import DiskFull, ReadOnly, StorageError, UnknownStream
from penstock.log.bell import Bell
from penstock.log.format import (
    ENTRY_BYTES,
    Kind,
    arrow_name,
    digest,
    index_name,
    pack,
    unpack,
)
from penstock.log.lock import FileLock
from penstock.log.message import Codec
from penstock.log.meta import Meta
from penstock.log.segment import create, firsts, rebuild_index, repair_tail, write_all

__all__ = ["Message", "StaleSchema", "Writer"]


# (bytes, rows, smallest event time, greatest event time, flags) of one append
Message = tuple["bytes | bytearray | pa.Buffer", int, int, int, int]
NO_ORIGIN = (0, 0, 0)


class StaleSchema(Exception):
    """Another producer has widened the stream's schema: encode the rows anew."""


class Writer:
    """The appending end of one stream folder, for this process.

    Takes   durability: "os" (survives a killed process), "group" (an append returns after an fdatasync that up to
            `group_ms` of appends share) or "always" (an fdatasync each);
            segment_bytes: size at which the next segment begins; on_roll: called, the lock held, when it did.
    Cost    about 4 µs per append of a small message with "os".
    """

    def __init__(
        self, folder: Path, bell: Bell, *, durability: str = "os", group_ms: float = 2.0, segment_bytes: int = 1 << 28,
        on_roll: Callable[[], object] = lambda: None,
    ) -> None:
        self.folder, self.bell = folder, bell
        self.durability, self.segment_bytes = durability, segment_bytes
        self._on_roll = on_roll
        self.appends = 0
        self._mutex = threading.Lock()
        self._group = _GroupSync(group_ms / 1000) if durability == "group" else None
        self._data = self._index = -1
        self._forget()
        try:
            self._lock = FileLock(folder / "lock")
        except FileNotFoundError:
            self._gone()
        except OSError as error:
            self._refuse(error, 0)

    def _forget(self) -> None:
        """Drop what is known of the last segment; the next append looks again."""
        for fd in (self._data, self._index):
            if fd >= 0:
                os.close(fd)
        self._data = self._index = -1
        self._first = -1  # first offset of the open segment
        self._index_end = -1  # bytes of its index that we know of
        self._position = 0  # bytes of its data file that are committed
        self._next = 0
        self._appended = 0
        self._sealed = True
        self._prefix = b""

    def close(self) -> None:
        """Give the files back. A later append opens them again."""
        with self._mutex:
            self._forget()
            self._lock.close()

    def __del__(self) -> None:
        if hasattr(self, "_data"):
            self._forget()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the stream's lock, the state of its last segment known."""
        self._acquire()
        try:
            yield
        finally:
            self._release()

    def _acquire(self) -> None:
        self._mutex.acquire()
        try:
            if self._lock.fd < 0:
                self._reopen()
            fcntl.flock(self._lock.fd, fcntl.LOCK_EX)
            self._refresh()
        except BaseException:
            self._release()
            raise

    def _release(self) -> None:
        self._lock.release()
        self._mutex.release()

    def _reopen(self) -> None:
        """Open the lock file, at first and after a fork; what was known may be old by then."""
        self._forget()
        try:
            self._lock.open()
        except FileNotFoundError:
            self._gone()
        except OSError as error:
            self._refuse(error, 0)

    @property
    def next_offset(self) -> int:
        """Offset the next row would get; call with the lock held."""
        return self._next

    def append(
        self, messages: list[Message], codec: Codec, origin: tuple[int, int, int] = NO_ORIGIN
    ) -> tuple[int, int]:
        """Commit messages in order, without another producer's in between; returns (first offset, next offset).

        Raises  DiskFull (nothing of the message that did not fit stays; those before it are committed), ReadOnly.
        """
        self._acquire()  # not `with self.locked()`: a context manager would be a fifth of the cost
        try:
            first = self._next
            for message in messages:
                self._commit(message, codec, origin)
            stop = self._next
            if self.durability == "always" and messages:
                os.fdatasync(self._data)
                os.fdatasync(self._index)
        finally:
            self._release()
        self.bell.ring()
        if self._group is not None and messages:
            self._group.sync(self)
        return first, stop

    def mark(self) -> tuple[int, int]:
        """(next offset, wall time ns): every later append gets an append time of at least that time."""
        with self.locked():
            self._appended = max(self._appended, WALL.now_ns())
            return self._next, self._appended

    def seal(self) -> None:
        """End the open segment; the next append begins another. No effect on an empty one."""
        with self.locked():
            self.end_segment()

    def end_segment(self) -> None:
        """As `seal`, with the lock held already."""
        if not self._sealed and self._next > self._first:
            self._end(Kind.SEALED)

    def drop(self) -> None:
        """Mark the stream as dropped, so that other producers stop. Then the folder may be removed."""
        with self.locked():
            if self._first >= 0 and not self._sealed:
                self._end(Kind.DROPPED)

    def sync(self) -> None:
        """fdatasync what was appended so far by anyone to the open segment."""
        with self._mutex:
            data, index = (os.dup(self._data), os.dup(self._index)) if self._data >= 0 else (-1, -1)
        for fd in (data, index):
            if fd >= 0:
                try:
                    os.fdatasync(fd)
                finally:
                    os.close(fd)

    # -- with the lock held

    def _commit(self, what: Message, codec: Codec, origin: tuple[int, int, int]) -> None:
        message, rows, low, high, flags = what
        length = len(message)
        if self._sealed or self._position + length > self.segment_bytes or self._prefix != codec.prefix:
            self._roll(codec)
        now = WALL.now_ns()
        if now < self._appended:
            now = self._appended
        position, index_end = self._position, self._index_end
        entry = pack(Kind.ROWS, self._next, rows, position, length, now, low, high, *origin, digest(message), flags)
        try:
            if os.pwrite(self._data, message, position) != length:
                write_all(self._data, message, position)
            if os.pwrite(self._index, entry, index_end) != ENTRY_BYTES:
                write_all(self._index, entry, index_end)
        except BaseException as error:  # an interrupt too: the next append must find clean ends
            with contextlib.suppress(OSError):
                # Once the whole entry is there a reader may have seen it: then it stays.
                if os.lseek(self._index, 0, os.SEEK_END) < index_end + ENTRY_BYTES:
                    os.ftruncate(self._index, index_end)
                    os.ftruncate(self._data, position)
            self._forget()
            if isinstance(error, OSError):
                self._refuse(error, length)
            raise
        self._position = position + length
        self._index_end = index_end + ENTRY_BYTES
        self._next += rows
        self._appended = now
        self.appends += 1

    def _refresh(self) -> None:
        """Learn what other producers did since, and cut off what a killed one left."""
        if self._index >= 0 and not self._sealed:
            size = os.lseek(self._index, 0, os.SEEK_END)
            if size > self._index_end and size % ENTRY_BYTES == 0:
                entry = unpack(os.pread(self._index, ENTRY_BYTES, size - ENTRY_BYTES))
                if entry is not None and entry.kind is Kind.ROWS:
                    self._index_end, self._position = size, entry.end
                    self._next, self._appended = entry.stop, max(self._appended, entry.appended)
            if size == self._index_end and os.lseek(self._data, 0, os.SEEK_END) == self._position:
                return
        self._load()

    def _load(self) -> None:
        """Open the last segment, repairing its tail; a stream without one is at offset 0."""
        appended = self._appended
        self._forget()
        if not self._lock.is_current():  # dropped, perhaps made anew: the lock we hold protects nothing
            self._gone()
        found = firsts(self.folder)
        if not found:
            return
        first = found[-1]
        if not (self.folder / index_name(first)).exists():
            rebuild_index(self.folder, first)
        try:
            self._data = os.open(self.folder / arrow_name(first), os.O_RDWR | os.O_CLOEXEC)
            self._index = os.open(self.folder / index_name(first), os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            self._refuse(error, 0)
        last = repair_tail(self.folder, first, self._data, self._index)
        if last.kind is Kind.DROPPED:
            self._gone()
        header = unpack(os.pread(self._index, ENTRY_BYTES, 0))
        self._first = first
        self._index_end = os.lseek(self._index, 0, os.SEEK_END)
        self._position, self._next = last.end, last.stop
        self._appended = max(appended, last.appended)
        self._sealed = last.kind is Kind.SEALED
        self._prefix = os.pread(self._data, header.length, 0) if header is not None else b""

    def _roll(self, codec: Codec) -> None:
        """Begin the next segment. The old one is sealed first: a producer that only knows it looks again then."""
        if Codec(Meta.load(self.folder).schema).prefix != codec.prefix:
            raise StaleSchema
        try:
            if self._first >= 0 and not self._sealed:
                self._end(Kind.SEALED)
                if self._next == self._first:  # empty, and of another schema: its name is taken
                    (self.folder / index_name(self._first)).unlink()
            create(self.folder, self._next, codec, sync=self.durability != "os")
        except OSError as error:
            self._refuse(error, len(codec.prefix))
        following, appended = self._next, self._appended
        self._load()
        self._appended = max(self._appended, appended)
        assert self._next == following, (self._next, following)
        self._on_roll()

    def _end(self, kind: Kind) -> None:
        if self.durability != "os":
            os.fdatasync(self._data)
        write_all(
            self._index, pack(kind, self._next, 0, self._position, 0, max(self._appended, 1)), self._index_end
        )
        if self.durability != "os":
            os.fdatasync(self._index)
        self._index_end += ENTRY_BYTES
        self._sealed = True

    # -- errors

    def _gone(self) -> NoReturn:
        raise UnknownStream(
            f"stream {self.folder.name!r} was dropped",
            where=f"in {self.folder.parent}",
            hint="get it again from the hub to begin a new one",
        )

    def _refuse(self, error: OSError, needed: int) -> NoReturn:
        where = f"in {self.folder}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            with contextlib.suppress(OSError):
                stat = os.statvfs(self.folder)
                raise DiskFull(
                    expected=f"room for {needed} bytes",
                    got=f"{stat.f_bavail * stat.f_frsize} bytes free",
                    where=where,
                    hint="nothing of this append was kept; free some space, or set a retention, and append again",
                ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise ReadOnly(
                expected="a writable folder",
                got=f"{os.strerror(error.errno)!r}",
                where=where,
                hint="reading works; to append, change the folder's permissions or copy the hub",
            ) from error
        raise StorageError(
            expected="the file system to take the append", got=f"{error}", where=where, hint="look at the disk"
        ) from error


class _GroupSync:
    """One fdatasync for all appends of some milliseconds: the first to come waits and syncs, the others wait for it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._turn = threading.Condition()
        self._asked = self._done = 0
        self._leading = False

    def sync(self, writer: Writer) -> None:
        with self._turn:
            self._asked += 1
            ticket = self._asked
            while self._leading and self._done < ticket:
                self._turn.wait()
            if self._done >= ticket:
                return
            self._leading = True
        covered = ticket
        try:
            time.sleep(self._seconds)  # the time others have to join
            with self._turn:
                covered = self._asked
            writer.sync()
            with self._turn:
                self._done = max(self._done, covered)
        finally:
            with self._turn:
                self._leading = False
                self._turn.notify_all()


