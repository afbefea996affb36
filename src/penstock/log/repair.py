"""Mending a stream by hand: what `check` finds and what the next append or read would not put right by itself.

Without `give_up` no row that can be read before is unreadable after. With it, rows whose bytes are not what was
written are marked as lost: their offsets stay taken, readers pass over them with a warning, the bytes are kept in a
`.bad` file.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from penstock.log.check import Damage, Problem, Report, check, recovered, survey
from penstock.log.disk import storage
from penstock.log.format import ENTRY_BYTES, Entry, Kind, arrow_name, digest, index_name, pack, unpack
from penstock.log.lock import FileLock
from penstock.log.mending import read_last, rebuild_index, repair_tail, replace_index, set_aside
from penstock.log.message import Codec, is_schema, message_lengths, schema_of
from penstock.log.meta import Meta
from penstock.log.retention import remove
from penstock.log.segment import EXPIRED, firsts, write_all

__all__ = ["repair"]


def repair(folder: Path, *, give_up: bool = False) -> Report:
    """Mend what can be mended; the report is of the stream as it is afterwards.

    Takes   give_up: mark as lost what cannot be read, so that readers go on behind it.
    Raises  UnknownStream, ReadOnly, DiskFull.
    Cost    as `check`, twice; producers wait for the first.
    """
    firsts(folder)  # raises when there is no such stream
    with storage(folder, "a repair"):
        with FileLock.held(folder / "lock"):
            mended = _Repair(folder, give_up).run()
    return replace(check(folder), mended=tuple(mended))


class _Repair:
    def __init__(self, folder: Path, give_up: bool) -> None:
        self.folder, self.give_up = folder, give_up
        self.mended: list[str] = []
        self.mend: dict[Damage, Callable[[Problem, int | None], None]] = {
            Damage.TORN: self._torn,
            Damage.NO_INDEX: self._no_index,
            Damage.NO_DATA: self._no_data,
            Damage.HEADER: self._header,
            Damage.SCHEMA: self._schema,
            Damage.ENTRY: self._entries,
            Damage.MESSAGE: self._message,
            Damage.NO_SEAL: self._seal,
            Damage.GAP: self._gap,
        }

    def run(self) -> list[str]:
        for left in self.folder.glob(f"*{EXPIRED}"):
            remove(self.folder, int(left.name.partition(".")[0]))
            self.mended.append(f"{left}: finished its removal")
        for left in self.folder.glob("*.new"):
            left.unlink()
            self.mended.append(f"{left}: removed, a file that was never finished")
        done: set[Problem] = set()
        while todo := [one for one in self._problems() if one not in done and (self.give_up or not one.loses)]:
            # One at a time: what mends one may change the others.
            done.add(todo[0])
            found = firsts(self.folder)
            following = next((first for first in found if first > todo[0].segment), None)
            self.mend[todo[0].damage](todo[0], following)
            self.mended.append(str(todo[0]))
        return self.mended

    def _problems(self) -> list[Problem]:
        found = firsts(self.folder)
        problems: list[Problem] = []
        for first, following in zip(found, [*found[1:], None], strict=True):
            sizes = [0, 0]
            for i, name in enumerate((arrow_name(first), index_name(first))):
                with contextlib.suppress(FileNotFoundError):
                    sizes[i] = (self.folder / name).stat().st_size
            problems += survey(self.folder, first, following, *sizes).problems
        return problems

    # -- without a loss

    def _torn(self, problem: Problem, _: int | None) -> None:
        with self._open(problem.segment) as (data, index):
            repair_tail(self.folder, problem.segment, data, index)

    def _no_index(self, problem: Problem, _: int | None) -> None:
        if problem.loses:
            path = self.folder / arrow_name(problem.segment)
            path.rename(path.with_name(path.name + ".bad"))
        else:
            rebuild_index(self.folder, problem.segment)

    def _header(self, problem: Problem, following: int | None) -> None:
        """A header says what the first message is; so say the data file, other segments, the description."""
        with self._open(problem.segment) as (data, index):
            after = unpack(os.pread(index, ENTRY_BYTES, ENTRY_BYTES))
            stamp = 1 if after is None else after.appended
            length = after.position if after is not None and after.first == problem.segment else None
            for prefix in [_prefix(data), *self._schemas()]:
                if is_schema(prefix) and length in (None, len(prefix)):
                    write_all(index, _header(problem.segment, prefix, stamp), 0)
                    return
        self._without_schema(problem, following)

    def _schema(self, problem: Problem, following: int | None) -> None:
        """Another segment, or the description, may have the same schema message; without it no row can be read."""
        with self._open(problem.segment) as (data, index):
            header = unpack(os.pread(index, ENTRY_BYTES, 0))
            for prefix in self._schemas():
                if header is not None and len(prefix) == header.length and digest(prefix) == header.message:
                    write_all(data, prefix, 0)
                    return
        self._without_schema(problem, following)

    def _schemas(self) -> list[bytes]:
        """The schema messages that this stream has elsewhere."""
        known = [Codec(Meta.load(self.folder).schema).prefix]
        for first in firsts(self.folder):
            with contextlib.suppress(FileNotFoundError), (self.folder / arrow_name(first)).open("rb") as file:
                known.append(_prefix(file.fileno()))
        return known

    def _without_schema(self, problem: Problem, following: int | None) -> None:
        if self.give_up:
            last = read_last(self.folder, problem.segment)
            stop = following if following is not None else problem.segment if last is None else last.stop
            self._replace(problem.segment, problem.segment, max(stop, problem.segment), following)

    def _seal(self, problem: Problem, _: int | None) -> None:
        with self._open(problem.segment) as (_data, index):
            last = unpack(os.pread(index, ENTRY_BYTES, problem.position - ENTRY_BYTES))
            assert last is not None
            write_all(index, pack(Kind.SEALED, last.stop, 0, last.end, 0, max(last.appended, 1)), problem.position)
            os.ftruncate(index, problem.position + ENTRY_BYTES)

    def _entries(self, problem: Problem, following: int | None) -> None:
        """From the messages themselves, if they are whole; else as lost."""
        with self._open(problem.segment) as (data, index):
            before = unpack(os.pread(index, ENTRY_BYTES, problem.position - ENTRY_BYTES))
            start = _prefix_end(data) if before is None else before.end
            stamp = 1 if before is None else before.appended
            size = os.fstat(data).st_size
            view = memoryview(mmap.mmap(data, 0, prot=mmap.PROT_READ) if size else b"")
            found = None
            with contextlib.suppress(ValueError):
                codec = Codec(schema_of(view[: _prefix_end(data)]))
                found = recovered(codec, view, start, problem.end, problem.stop - problem.first)
            entries, first = b"", problem.first
            for one in found or ():
                entries += one.entry(first, stamp)
                first += one.rows
            if found is None:
                set_aside(self.folder / arrow_name(problem.segment), data, start, problem.end, "bad")
                if problem.stop > problem.first:
                    entries = _lost(problem.first, problem.stop, start, problem.end, stamp)
            old = os.pread(index, os.fstat(index).st_size, 0)
            rest = old[problem.position + problem.count * ENTRY_BYTES : len(old) // ENTRY_BYTES * ENTRY_BYTES]
            if not rest and following is not None:
                entries += pack(Kind.SEALED, problem.stop, 0, problem.end, 0, max(stamp, 1))
            replace_index(self.folder, problem.segment, old[: problem.position] + entries + rest)

    # -- with a loss

    def _message(self, problem: Problem, _: int | None) -> None:
        with self._open(problem.segment) as (data, index):
            entry = unpack(os.pread(index, ENTRY_BYTES, problem.number * ENTRY_BYTES))
            assert entry is not None
            set_aside(self.folder / arrow_name(problem.segment), data, entry.position, entry.end, "bad")
            write_all(index, _marked(entry), problem.number * ENTRY_BYTES)

    def _no_data(self, problem: Problem, following: int | None) -> None:
        self._replace(problem.segment, problem.first, problem.stop, following)

    def _gap(self, problem: Problem, following: int | None) -> None:
        path = self.folder / index_name(problem.segment)
        if path.exists() and problem.first > problem.segment:
            last = read_last(self.folder, problem.segment)
            with path.open("r+b") as file:
                if last is not None and last.kind is not Kind.SEALED:
                    end = file.seek(0, os.SEEK_END) // ENTRY_BYTES * ENTRY_BYTES
                    seal = pack(Kind.SEALED, last.stop, 0, last.end, 0, max(last.appended, 1))
                    write_all(file.fileno(), seal, end)
        self._replace(problem.first, problem.first, problem.stop, following)

    def _replace(self, segment: int, first: int, stop: int, following: int | None) -> None:
        """A segment all of whose rows are lost. By rename, so that a producer sees that it is another one."""
        earlier = [other for other in firsts(self.folder) if other < segment]
        before = read_last(self.folder, earlier[-1]) if earlier else None
        stamp = 1 if before is None else before.appended
        old = read_last(self.folder, segment)
        stamp = stamp if old is None else max(stamp, old.appended)
        prefix = Codec(Meta.load(self.folder).schema).prefix
        entries = _header(segment, prefix, stamp)
        if stop > first:
            entries += _lost(first, stop, len(prefix), len(prefix), stamp)
        if following is not None:
            entries += pack(Kind.SEALED, stop, 0, len(prefix), 0, max(stamp, 1))
        data, index = self.folder / arrow_name(segment), self.folder / index_name(segment)
        for path in (data, index):
            if path.exists():
                shutil.copyfile(path, path.with_name(path.name + ".bad"))
        temporary = data.with_name(data.name + ".new")
        temporary.write_bytes(prefix)
        temporary.rename(data)
        replace_index(self.folder, segment, entries)

    @contextlib.contextmanager
    def _open(self, first: int):  # type: ignore[no-untyped-def]
        with (
            (self.folder / arrow_name(first)).open("r+b", buffering=0) as data,
            (self.folder / index_name(first)).open("r+b", buffering=0) as index,
        ):
            yield data.fileno(), index.fileno()


def _prefix(data: int) -> bytes:
    """The schema message of a data file."""
    return os.pread(data, _prefix_end(data), 0)


def _prefix_end(data: int) -> int:
    lengths = message_lengths(memoryview(os.pread(data, 1 << 20, 0)))
    return lengths[0] if lengths else 0


def _header(first: int, prefix: bytes, stamp: int) -> bytes:
    return pack(Kind.HEADER, first, 0, 0, len(prefix), stamp, message=digest(prefix))


def _lost(first: int, stop: int, position: int, end: int, stamp: int) -> bytes:
    """An entry that says that these rows are lost."""
    return pack(Kind.LOST, first, stop - first, position, end - position, stamp)


def _marked(entry: Entry) -> bytes:
    """The entry, as one whose rows are lost."""
    return pack(
        Kind.LOST, entry.first, entry.rows, entry.position, entry.length, entry.appended, entry.min_event,
        entry.max_event, entry.origin_id, entry.origin, entry.origin_index, entry.message, entry.flags,
    )  # fmt: skip
