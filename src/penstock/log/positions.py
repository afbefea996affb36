"""How far each group has come: exact at a killed process, durable at a lost power supply.

A position is (offset, index): everything closed by rows before `offset` is done, and of what row `offset - 1` itself
closed, the first `index + 1` windows.
A third number, `low`, is the lowest offset that no committed window holds: what the group still has to do begins there.

It is written to two places:

* a mapped page `groups/<name>.pos`, two slots in turn, at every commit (0.5 µs; the kernel keeps it when the process is
  killed, a slot torn by the kill has a wrong digest and the other one counts);
* the hub's SQLite file (WAL, synchronous=FULL), at most every `SYNC_S` seconds and when the group is given back.

The higher sequence number wins when a group is opened. The page's file lock says who holds the group.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sqlite3
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from penstock.clock import WALL
from penstock.errors import DiskFull, GroupBusy, ReadOnly, StorageError, StreamError, UsageError
from penstock.log.disk import storage, storage_error
from penstock.log.format import digest
from penstock.log.lock import FileLock, at_fork
from penstock.log.segment import dropped

__all__ = ["Catalogue", "Group", "Position", "groups_of", "peek"]

SYNC_S: Final = 0.1
_SLOT = struct.Struct("<QqqqqQ")  # sequence, offset, index, low, committed ns, pid; then the digest
_SLOT_BYTES: Final = 64
_PAGE: Final = 4096
_NAME_BYTES: Final = 200
_SCHEMA: Final = """
create table if not exists positions (
    stream text not null, name text not null, created integer not null, sequence integer not null,
    "offset" integer not null, "index" integer not null, low integer not null, begin integer not null,
    committed integer not null, primary key (stream, name, created)
) without rowid
"""


_PARENTS: Final[list[sqlite3.Connection]] = []  # in a forked child: what it must not touch


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Done are all windows closed at an offset below `offset`, and those at it up to number `index`."""

    offset: int
    index: int = -1
    low: int = field(default=0, compare=False)


class Catalogue:
    """The hub's SQLite file. Opened at first use; safe between threads and processes.

    A row is of one group of one stream; `created` is that stream's, so that a consumer of a dropped one which is late
    to give its group back leaves nothing for a new stream of that name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self.after_fork()
        at_fork(self)

    def after_fork(self) -> None:
        self._mutex = threading.Lock()
        if self._connection is not None:
            # A connection must not cross a fork, and must not even be closed in the child.
            _PARENTS.append(self._connection)
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            with _storage(self.path):
                connection = sqlite3.connect(self.path, timeout=30, check_same_thread=False, isolation_level=None)
                try:
                    connection.execute("pragma journal_mode=wal")
                    connection.execute("pragma synchronous=full")
                    connection.execute(_SCHEMA)
                except BaseException:
                    connection.close()
                    raise
            self._connection = connection
        return self._connection

    def put(self, stream: str, name: str, created: int, sequence: int, position: Position, begin: int) -> None:
        """Write a group's position; durable when it returns."""
        with self._mutex, _storage(self.path):
            self._open().execute(
                "insert or replace into positions values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (stream, name, created, sequence, position.offset, position.index, position.low, begin, WALL.now_ns()),
            )

    def get(self, stream: str, name: str, created: int) -> tuple[int, Position, int] | None:
        """(sequence, position, begin) of a group, or None."""
        if not self.path.exists():
            return None
        with self._mutex, _storage(self.path):
            row = self._reading(
                'select sequence, "offset", "index", low, begin from positions where stream=? and name=? and created=?',
                (stream, name, created),
            )
        return (row[0][0], Position(*row[0][1:4]), row[0][4]) if row else None

    def names(self, stream: str, created: int) -> list[str]:
        """Names of the groups of a stream."""
        if not self.path.exists():
            return []
        with self._mutex, _storage(self.path):
            found = self._reading("select name from positions where stream=? and created=?", (stream, created))
        return [str(row[0]) for row in found]

    def forget(self, stream: str, name: str | None = None) -> None:
        """Drop one group of a stream, or all."""
        if self.path.exists():
            with self._mutex, _storage(self.path):
                self._open().execute(
                    "delete from positions where stream=? and (? is null or name=?)", (stream, name, name)
                )

    def _reading(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        if os.access(self.path.parent, os.W_OK):
            return self._open().execute(query, values).fetchall()
        # In a folder that cannot be written a WAL database opens only while its -shm file is there, because a process
        # that may write has it open; else as immutable, without what that process has not yet moved out of the WAL.
        for option in ("mode=ro", "immutable=1"):
            with (
                contextlib.suppress(sqlite3.OperationalError),
                contextlib.closing(sqlite3.connect(f"file:{quote(str(self.path))}?{option}", uri=True)) as connection,
            ):
                return connection.execute(query, values).fetchall()
        return []  # the pages beside the streams remain

    def close(self) -> None:
        """Close the file; it opens again at the next use."""
        with self._mutex:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def __del__(self) -> None:
        if self._connection is not None:
            self._connection.close()


@contextlib.contextmanager
def _storage(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        where = f"in {path}"
        if "full" in text:
            raise DiskFull(
                expected="room for a group's position", got=text, where=where, hint="free some space and start again"
            ) from error
        if "readonly" in text or "unable to open" in text:
            raise ReadOnly(
                expected="a writable hub",
                got=text,
                where=where,
                hint="consumers keep their position in the hub's folder",
            ) from error
        raise StorageError(
            expected="the hub's catalogue",
            got=text,
            where=where,
            hint="move the file away: positions are kept beside each stream too",
        ) from error


class Group:
    """A consumer's hold on a group, and its position. Close it to give it back.

    Takes   begin: offset at which a group that is new begins; created_ns: the stream's.
    Raises  GroupBusy when another process or thread holds it; UsageError for a bad name; DiskFull, ReadOnly.
    """

    def __init__(
        self, folder: Path, catalogue: Catalogue, stream: str, name: str, *, begin: int = 0, created_ns: int = 0
    ) -> None:
        self.stream, self.name = stream, name
        self.folder = folder
        self._catalogue, self._created_ns = catalogue, created_ns
        path = _page_path(folder, name)
        try:
            path.parent.mkdir(exist_ok=True)
            self._lock = FileLock(path)
        except FileNotFoundError:
            raise dropped(folder) from None
        except OSError as error:
            raise storage_error(error, folder, "a group's position") from error
        if not self._lock.acquire_nowait():
            holder = _holder(self._lock.fd)
            self._lock.close()
            raise GroupBusy(
                f"group {name!r} of stream {stream!r} is held by process {holder}",
                where=f"in {folder}",
                hint="stop that consumer, or use another group=",
                pid=holder,
            )
        try:
            self._page = _map(path)
            self._synced = 0.0
            stored = catalogue.get(stream, name, created_ns)
            known = [found[:2] for found in (_newest(self._page), stored) if found is not None]
            self.is_new = not known
            self._sequence, self._position = max(known) if known else (0, Position(begin, low=begin))
            self._begin = stored[2] if stored is not None else begin
            if self.is_new:
                self.sync()
            self._write()
        except BaseException:
            self._lock.close()
            raise

    @property
    def position(self) -> Position:
        """What has been committed."""
        return self._position

    @property
    def begin(self) -> int:
        """Offset at which this group's first window began: where a replay without a snapshot begins."""
        return self._begin

    def commit(self, position: Position) -> None:
        """Everything up to `position` is done. Cost 0.5 µs, and a SQLite write ten times a second."""
        self._position = position
        self._write()
        now = time.monotonic()
        if now - self._synced > SYNC_S:
            self.sync()

    def reset(self, offset: int) -> None:
        """Go (back) to `offset`: the next window begins there."""
        self._position, self._begin = Position(offset, low=offset), offset
        self.save_state(b"")  # empty, not gone: the next run must know that what it finds in its outputs is of before
        self._write()
        self.sync()

    def sync(self) -> None:
        """Write the position to the catalogue; durable when it returns."""
        self._synced = time.monotonic()
        if not self._lock.is_current():  # the stream was dropped: a new one of its name must not find this position
            return
        self._catalogue.put(self.stream, self.name, self._created_ns, self._sequence, self._position, self._begin)

    def save_state(self, state: bytes) -> None:
        """Replace the consumer's snapshot in one step. A lost power supply may lose it: it only saves replaying."""
        path = self._state_path()
        temporary = path.with_name(path.name + ".new")
        with storage(self.folder, f"{len(state)} bytes of a consumer's state"):
            try:
                temporary.write_bytes(digest(state).to_bytes(8, "little") + state)
                temporary.rename(path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise

    def load_state(self) -> bytes | None:
        """The last snapshot saved, or None when there is none that is whole."""
        try:
            data = self._state_path().read_bytes()
        except FileNotFoundError:
            return None
        return data[8:] if digest(data[8:]).to_bytes(8, "little") == data[:8] else None

    def _state_path(self) -> Path:
        return _page_path(self.folder, self.name).with_suffix(".state")

    def close(self) -> None:
        """Write the position to the catalogue and let another consumer have the group."""
        if self._lock.fd >= 0:
            try:
                self.sync()
            finally:
                self._lock.close()

    def _write(self) -> None:
        if self._lock.fd < 0:  # closed, or the parent's in a forked child
            raise StreamError(
                f"group {self.name!r} of stream {self.stream!r} was given back",
                where=f"in process {os.getpid()}",
                hint="hold it again with stream.group(...)",
            )
        self._sequence += 1
        position = self._position
        body = _SLOT.pack(self._sequence, position.offset, position.index, position.low, WALL.now_ns(), os.getpid())
        at = self._sequence % 2 * _SLOT_BYTES
        self._page[at : at + 56] = body + digest(body).to_bytes(8, "little")


def _page_path(folder: Path, name: str) -> Path:
    is_name = isinstance(name, str) and name.isprintable() and name == name.strip()
    quoted = quote(name, safe="") if is_name else ""
    if not 0 < len(quoted) <= _NAME_BYTES:
        raise UsageError(
            expected=f"a group name: printable text of at most {_NAME_BYTES} bytes, without blanks at its ends",
            got=repr(name)[:100],
            where=f"of stream {folder.name!r}",
            hint='for example "store"',
        )
    return folder / "groups" / (quoted + ".pos")


def _map(path: Path) -> mmap.mmap:
    """The page. Written, so that a full disk is an error here and no SIGBUS later.

    By a file of its own and not by the lock's: a mapping keeps a copy of its file open, and with it would keep the
    lock, after it was given back and in every forked child.
    """
    with storage(path.parent, f"{_PAGE} bytes"):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_size < _PAGE:
                os.pwrite(fd, bytes(_PAGE), 0)
            return mmap.mmap(fd, _PAGE)
        finally:
            os.close(fd)


def _newest(page: bytes | mmap.mmap) -> tuple[int, Position, int] | None:
    found = None
    for at in (0, _SLOT_BYTES):
        body = bytes(page[at : at + _SLOT.size])
        end = at + _SLOT.size
        if any(body) and digest(body) == int.from_bytes(page[end : end + 8], "little"):
            sequence, offset, index, low, _, pid = _SLOT.unpack(body)
            if found is None or sequence > found[0]:
                found = (sequence, Position(offset, index, low), pid)
    return found


def _holder(fd: int) -> int:
    found = _newest(os.pread(fd, _PAGE, 0))
    return found[2] if found else 0


def peek(folder: Path, catalogue: Catalogue, stream: str, name: str, created_ns: int = 0) -> Position | None:
    """A group's position, without holding it; None when there is no such group."""
    try:
        page = _newest(_page_path(folder, name).read_bytes())
    except OSError:
        page = None
    known = [found[:2] for found in (page, catalogue.get(stream, name, created_ns)) if found is not None]
    return max(known)[1] if known else None


def groups_of(folder: Path, catalogue: Catalogue, stream: str, created_ns: int = 0) -> list[str]:
    """Names of all groups of a stream."""
    pages = {unquote(path.name.removesuffix(".pos")) for path in (folder / "groups").glob("*.pos")}
    return sorted(pages | set(catalogue.names(stream, created_ns)))
