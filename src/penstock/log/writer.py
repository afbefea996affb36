"""Appending: many threads and processes, one file lock, data first, entry second.

Each append takes the stream's lock, sees in one system call whether another producer has appended since (the index
grew), writes the message, writes the entry, rings the bell. A producer killed in between leaves bytes that the next
one cuts off; nothing it had acknowledged is touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from typing import NoReturn

import pyarrow as pa

from penstock.clock import WALL
from penstock.errors import CorruptSegment, PenstockError, PenstockWarning, StreamError
from penstock.log.bell import Bell
from penstock.log.disk import FULL, storage, storage_error
from penstock.log.durable import GroupSync, sync_segments
from penstock.log.format import ENTRY_BYTES, Kind, arrow_name, digest, index_name, pack, unpack
from penstock.log.lock import FileLock, at_fork
from penstock.log.mending import has_header, read_last, rebuild_index, repair_tail
from penstock.log.message import Codec, schema_of
from penstock.log.meta import Meta, Options
from penstock.log.segment import create, dropped, firsts, write_all

__all__ = ["Message", "StaleSchema", "Writer"]


# (bytes, rows, smallest event time, greatest event time, flags) of one append
Message = tuple["bytes | bytearray | pa.Buffer", int, int, int, int]
NO_ORIGIN = (0, 0, 0)
_ROWS = int(Kind.ROWS)  # looking a member up costs 0.3 us
_LOOK_S = 1e-3


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
        self,
        folder: Path,
        bell: Bell,
        *,
        durability: str = "os",
        group_ms: float = 2.0,
        segment_bytes: int = 1 << 28,
        on_roll: Callable[[], Sized] = tuple,
    ) -> None:
        self.folder, self.bell = folder, bell
        self.durability, self.segment_bytes = durability, segment_bytes
        self._group_s = group_ms / 1000
        self._on_roll = on_roll
        self.appends = 0
        self._synced = 0  # segments before this one were synced whole
        self._look_at = 0.0  # when to see again whether the index still has its name
        self._unsynced = 0  # oldest segment that may hold appends of ours that no shared fdatasync has covered
        self._data = self._index = -1
        self._renew()
        try:
            self._lock = FileLock(folder / "lock")
        except FileNotFoundError:
            raise dropped(folder) from None
        except OSError as error:
            raise storage_error(error, folder, "appends") from error
        at_fork(self)

    def _renew(self) -> None:
        self._mutex = threading.RLock()
        self._group = GroupSync(self._group_s)
        self._forget()

    after_fork = _renew  # another thread may have been in the middle of an append

    def _forget(self) -> None:
        """Drop what is known of the last segment; the next append looks again."""
        data, index = self._data, self._index
        self._data = self._index = -1  # first: an interrupt must not leave numbers of closed files
        for fd in (data, index):
            if fd >= 0:
                os.close(fd)
        self._first = -1  # first offset of the open segment
        self._index_end = -1  # bytes of its index that we know of
        self._position = 0  # bytes of its data file that are committed
        self._next = 0
        self._began = 0  # next offset when the lock was taken
        self._appended = 0
        self._sealed = True
        self._schema: pa.Schema | None = None  # of the open segment
        self._codec: Codec | None = None  # the last one found to be of that schema

    def close(self) -> None:
        """Give the files back. A later append opens them again."""
        with self._alone():
            self._forget()
            self._lock.close()

    def __del__(self) -> None:
        if hasattr(self, "_data"):
            self._forget()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep this process's other threads out. For why it is no `with self._mutex:`, see `append`."""
        self._no_other()
        try:
            self._mutex.acquire()
            yield
        finally:
            try:
                self._mutex.release()
            except RuntimeError:  # interrupted before it was taken
                pass

    def _no_other(self) -> None:
        """A signal handler may run in the middle of an append; one that appends there would wait for itself."""
        if self._mutex._is_owned():  # type: ignore[attr-defined]  # threading.Condition asks it, too
            raise StreamError(
                expected="one append of a thread at a time",
                got="another inside it, as of a signal handler",
                where=f"in {self.folder}",
                hint="let the handler set a flag, or append from a thread",
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the stream's lock, the state of its last segment known."""
        with self._alone():
            try:
                self._enter()
                yield
            finally:
                if self._lock.fd >= 0:
                    fcntl.flock(self._lock.fd, fcntl.LOCK_UN)

    def _enter(self) -> None:
        """Take the stream's lock, learn what other producers did since, and cut off what a killed one left."""
        self._take_lock()
        if self._index >= 0 and not self._sealed:
            size = os.lseek(self._index, 0, os.SEEK_END)
            if (now := time.monotonic()) > self._look_at:  # not each time: a stat costs as much as a write
                self._look_at = now + _LOOK_S
                if not os.fstat(self._index).st_nlink:  # somebody has removed it
                    size = -1
            if size > self._index_end and size % ENTRY_BYTES == 0:
                entry = unpack(os.pread(self._index, ENTRY_BYTES, size - ENTRY_BYTES))
                if entry is not None and entry.kind is Kind.ROWS and entry.first >= self._next:
                    self._index_end, self._position = size, entry.end
                    self._next, self._appended = entry.stop, max(self._appended, entry.appended)
            if size == self._index_end and os.lseek(self._data, 0, os.SEEK_END) == self._position:
                self._began = self._next
                return
        self._load()
        self._began = self._next

    def _take_lock(self) -> None:
        if self._lock.fd < 0:  # at first after a fork or a close; what was known may be old by then
            self._forget()
            try:
                self._lock.open()
            except FileNotFoundError:
                raise dropped(self.folder) from None
            except OSError as error:
                self._refuse(error, "appends")
        fcntl.flock(self._lock.fd, fcntl.LOCK_EX)

    @property
    def next_offset(self) -> int:
        """Offset the next row would get; call with the lock held."""
        return self._next

    def append(
        self, messages: list[Message], codec: Codec, origin: tuple[int, int, int] = NO_ORIGIN
    ) -> tuple[int, int]:
        """Commit messages in order, without another producer's in between; returns (first offset, next offset).

        Raises  DiskFull (nothing of the message that did not fit stays; `kept` are the offsets committed before it),
                ReadOnly, StorageError; StaleSchema: nothing was committed.
        """
        # Not `with self.locked()`: a context manager would be a fifth of the cost. The unlocking calls stand here and
        # not in a method, because an interrupt could come between a method's call and its first line. And not
        # `with self._mutex:`, because Python 3.14 lets one in between taking a lock and the block that gives it back;
        # an RLock knows whether it was taken.
        self._no_other()
        try:
            self._mutex.acquire()
            try:
                self._enter()
                first = self._next
                if len(messages) > 1:
                    self._check_schema(messages, codec)
                for message in messages:
                    self._commit(message, codec, origin)
                stop = self._next
                if self.durability == "always" and messages:
                    with storage(self.folder, "an fdatasync"):
                        os.fdatasync(self._data)
                        os.fdatasync(self._index)
            finally:
                if self._lock.fd >= 0:
                    fcntl.flock(self._lock.fd, fcntl.LOCK_UN)
        finally:
            try:
                self._mutex.release()
            except RuntimeError:  # interrupted before it was taken
                pass
        self.bell.ring()
        if self.durability == "group" and messages:
            self._group.wait(self._sync_appends)
        return first, stop

    def adopt(self, options: Options) -> None:
        """Go on with other options. Every producer does so at its next segment at the latest."""
        self.durability, self.segment_bytes = options.durability, options.segment_bytes

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
            self._end()

    def drop(self, remove: Callable[[], None]) -> None:
        """Mark the stream as dropped, so that other producers and readers stop, and `remove` it, the lock held.

        Raises  UnknownStream when another process was faster. A corrupt stream can be dropped, and one on a full disk.
        """
        with self._alone():
            try:
                self._take_lock()
                if not self._lock.is_current():
                    raise dropped(self.folder)
                self._mark_dropped()
                with storage(self.folder, "the removal of the stream"):
                    remove()
            finally:
                if self._lock.fd >= 0:
                    fcntl.flock(self._lock.fd, fcntl.LOCK_UN)
            self._forget()

    def sync(self) -> None:
        """Let all that was appended so far survive a lost power supply. Cost: an fdatasync of each new segment."""
        with self.locked():
            found = [first for first in firsts(self.folder) if first >= self._synced]
        sync_segments(self.folder, found)
        self._synced = max([self._synced, *found[-1:]])

    def _sync_appends(self) -> None:
        """Fdatasync what this object appended since the last time."""
        with self._alone():
            oldest, newest = self._unsynced, self._first
            fds = [os.dup(self._data), os.dup(self._index)] if oldest == newest >= 0 else []
        try:
            if fds:
                with storage(self.folder, "an fdatasync"):
                    for fd in fds:
                        os.fdatasync(fd)
            else:  # it was ended since; whoever did that may not have known that we want it synced
                sync_segments(self.folder, [first for first in firsts(self.folder) if first >= oldest])
                self._unsynced = max(oldest, newest)
        finally:
            for fd in fds:
                os.close(fd)

    # -- with the lock held

    def _commit(self, what: Message, codec: Codec, origin: tuple[int, int, int]) -> None:
        message, rows, low, high, flags = what
        length = len(message)
        if self._sealed or (self._position + length > self.segment_bytes and self._next > self._first):
            self._roll(codec)
        elif self._codec is not codec and not self._fits(codec):
            self._roll(codec)
        now = WALL.now_ns()
        if now < self._appended:
            now = self._appended
        position, index_end = self._position, self._index_end
        entry = pack(_ROWS, self._next, rows, position, length, now, low, high, *origin, digest(message), flags)
        try:
            if os.pwrite(self._data, message, position) != length:
                write_all(self._data, message, position)
            if os.pwrite(self._index, entry, index_end) != ENTRY_BYTES:
                write_all(self._index, entry, index_end)
        except BaseException as error:  # an interrupt too: the next append must find clean ends
            self._cut(index_end, position)
            if isinstance(error, OSError):
                self._refuse(error, f"{length} bytes")
            raise
        self._position = position + length
        self._index_end = index_end + ENTRY_BYTES
        self._next += rows
        self._appended = now
        self.appends += 1

    def _cut(self, index_end: int, position: int) -> None:
        """Take back a write that did not come to its end."""
        with contextlib.suppress(OSError):
            # Once the whole entry is there a reader may have seen it: then it stays.
            if os.lseek(self._index, 0, os.SEEK_END) < index_end + ENTRY_BYTES:
                os.ftruncate(self._index, index_end)
                os.ftruncate(self._data, position)
        began, kept = self._began, self._next
        self._forget()
        self._began, self._next = began, kept  # what `_refuse` tells

    def _load(self) -> None:
        """Open the last segment, repairing its tail; a stream without one is at offset 0."""
        appended = self._appended
        self._forget()
        if not self._lock.is_current():  # dropped, perhaps made anew: the lock we hold protects nothing
            raise dropped(self.folder)
        first = self._last_segment()
        if first is None:
            return
        try:
            self._data = os.open(self.folder / arrow_name(first), os.O_RDWR | os.O_CLOEXEC)
            self._index = os.open(self.folder / index_name(first), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise CorruptSegment(
                expected=f"the segment of the rows from {first} on",
                got="no such file",
                where=f"at {error.filename}",
                hint=f"restore the file, or run `penstock stream repair {self.folder.name} --give-up`",
                file=str(error.filename),
                position=0,
                first=first,
                stop=first,
            ) from None
        except OSError as error:
            self._refuse(error, "appends")
        with storage(self.folder, "the repair of a segment"):
            last = repair_tail(self.folder, first, self._data, self._index)
        if last.kind is Kind.DROPPED:
            raise dropped(self.folder)
        header = unpack(os.pread(self._index, ENTRY_BYTES, 0))
        prefix = b"" if header is None else os.pread(self._data, header.length, 0)
        schema = None
        if header is not None and header.heads(first) and digest(prefix) == header.message:
            with contextlib.suppress(ValueError):
                schema = schema_of(prefix)
        if schema is None:
            raise CorruptSegment(
                expected="the schema message",
                got=f"{len(prefix)} other bytes",
                where=f"in {self.folder / arrow_name(first)}",
                hint=f"run `penstock stream repair {self.folder.name}`",
                file=str(self.folder / arrow_name(first)),
                position=0,
                first=first,
                stop=last.stop,
            )
        self._schema = schema
        self._first = first
        self._index_end = os.lseek(self._index, 0, os.SEEK_END)
        self._position, self._next = last.end, last.stop
        self._appended = max(appended, last.appended)
        self._sealed = last.kind is Kind.SEALED  # last: an interrupt before leaves True, and all is looked at again

    def _last_segment(self) -> int | None:
        """First offset of the last segment, its index there."""
        while found := firsts(self.folder):
            if has_header(self.folder / index_name(found[-1])):
                return found[-1]
            with contextlib.suppress(FileNotFoundError):
                rebuild_index(self.folder, found[-1])
                continue
            return found[-1]  # without data: opening it says so
        return None

    def _fits(self, codec: Codec) -> bool:
        """Whether the open segment has this codec's schema. By schema, not by bytes: those vary with pyarrow."""
        if self._schema is None or not self._schema.equals(codec.schema, check_metadata=True):
            return False
        self._codec = codec
        return True

    def _check_schema(self, messages: list[Message], codec: Codec) -> None:
        """Raise StaleSchema now if it may come up between `messages`, when some would be committed already."""
        total = sum(len(message[0]) for message in messages)
        if self._sealed or self._position + total > self.segment_bytes or not self._fits(codec):
            self._read_meta(codec)

    def _read_meta(self, codec: Codec) -> None:
        """Adopt the stream's options as they are now. Raises StaleSchema when its schema is no longer the codec's."""
        try:
            meta = Meta.load(self.folder)
        except FileNotFoundError:
            raise dropped(self.folder) from None
        if not meta.schema.equals(codec.schema, check_metadata=True):
            raise StaleSchema
        self.adopt(meta.options)

    def _roll(self, codec: Codec) -> None:
        """Begin the next segment. The old one is sealed first: a producer that only knows it looks again then."""
        self._read_meta(codec)
        if self._first >= 0 and not self._sealed:
            self._end()
        try:
            self._begin(codec)
        except OSError as error:
            if error.errno not in FULL or not self._retain():
                self._refuse(error, "a new segment")
            try:
                self._begin(codec)
            except OSError as again:
                self._refuse(again, "a new segment")
        following, appended, began = self._next, self._appended, self._began
        self._load()
        self._appended, self._began = max(self._appended, appended), began
        assert self._next == following, (self._next, following)
        self._retain()

    def _begin(self, codec: Codec) -> None:
        if self._next == self._first:  # the old one is empty, and of another schema: its name is taken
            (self.folder / index_name(self._first)).unlink(missing_ok=True)
        create(self.folder, self._next, codec, sync=self.durability != "os")

    def _retain(self) -> int:
        """Let retention do its work; how many segments it dropped. What keeps it from that keeps no append."""
        try:
            return len(self._on_roll())
        except (PenstockError, OSError) as error:
            warnings.warn(f"{self.folder}: retention did not run: {error}", PenstockWarning, stacklevel=2)
            return 0

    def _end(self) -> None:
        """Seal the open segment."""
        entry = pack(Kind.SEALED, self._next, 0, self._position, 0, max(self._appended, 1))
        try:
            if self.durability != "os":
                os.fdatasync(self._data)
            write_all(self._index, entry, self._index_end)
            if self.durability != "os":
                os.fdatasync(self._index)
        except BaseException as error:
            self._cut(self._index_end, self._position)
            if isinstance(error, OSError):
                self._refuse(error, f"{ENTRY_BYTES} bytes")
            raise
        self._index_end += ENTRY_BYTES
        self._sealed = True

    def _mark_dropped(self) -> None:
        found = firsts(self.folder)
        if not found:
            return  # no producer or reader has a segment open; all look at the folder again
        try:
            fd = os.open(self.folder / index_name(found[-1]), os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # no index: who has it open notices that nothing names it
            return
        try:
            size = os.lseek(fd, 0, os.SEEK_END)
            last = read_last(self.folder, found[-1])
            first, position = (0, 0) if last is None else (last.stop, last.end)
            mark = pack(Kind.DROPPED, first, 0, position, 0, 1)
            try:
                write_all(fd, mark, size // ENTRY_BYTES * ENTRY_BYTES)
            except OSError:
                # A full disk. An index of another length than they know makes producers look at the folder, too.
                os.ftruncate(fd, max(0, size - 1))
        finally:
            os.close(fd)

    def _refuse(self, error: OSError, wanted: str) -> NoReturn:
        kept = range(self._began, self._next)
        raise storage_error(error, self.folder, wanted, kept=kept) from error
