"""Looking at every byte of a stream: is each entry readable, each message what was written, no row missing?

Nothing is changed here; `repair.py` mends what this finds.
"""

from __future__ import annotations

import contextlib
import enum
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from penstock.log.format import ENTRY_BYTES, Entry, Kind, arrow_name, digest, index_name, unpack
from penstock.log.lock import FileLock
from penstock.log.mending import Found, has_header, holds_rows, messages_in, read_last
from penstock.log.message import Codec, is_schema, message_lengths, schema_of
from penstock.log.segment import EXPIRED, firsts

__all__ = ["Damage", "Problem", "Report", "check", "leftovers_of", "recovered", "survey"]

_LEFT: Final = (".torn", ".bad", ".new", EXPIRED)


class Damage(enum.Enum):
    """What can be wrong with a segment."""

    TORN = "bytes that no append had committed at the end; the next append cuts them"
    NO_INDEX = "no index; it can be rebuilt, but for append times and origins"
    NO_DATA = "no data file"
    HEADER = "an unreadable index header"
    SCHEMA = "another schema message than was written"
    ENTRY = "unreadable, missing or misplaced index entries"
    MESSAGE = "another message than was written"
    NO_SEAL = "no seal, although there is a later segment"
    GAP = "a segment is missing"


@dataclass(frozen=True, slots=True)
class Problem:
    """One place that is wrong. `first`, `stop`: offsets of the rows concerned; `loses`: whether mending gives them up.

    file, position   where: a path, and the byte in it;  segment  its first offset;
    number, count    of the index entries concerned, as they are in the file; end  of the message bytes concerned
    """

    damage: Damage
    file: str
    position: int
    first: int
    stop: int
    loses: bool
    segment: int
    number: int = 0
    count: int = 0
    end: int = 0

    def __str__(self) -> str:
        rows = f", offsets {self.first} to {self.stop}" if self.stop > self.first else ""
        lost = "; these rows are lost" if self.loses else ""
        return f"{self.file} at byte {self.position}{rows}: {self.damage.value}{lost}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a check saw: segments, entries and rows that are good, rows given up earlier, bytes read.

    problems    in order of their offsets;  leftovers  names of files that crashes and repairs left, harmless;
    mended      what a repair did
    """

    segments: int
    entries: int
    rows: int
    lost: int
    bytes: int
    first_offset: int
    next_offset: int
    problems: tuple[Problem, ...] = ()
    leftovers: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass(slots=True)
class Survey:
    """One segment looked at: its readable entries, its codec if its schema is known, where it ends."""

    entries: int = 0
    codec: Codec | None = None
    problems: list[Problem] = field(default_factory=list)
    stop: int = 0
    position: int = 0
    rows: int = 0
    lost: int = 0
    bytes: int = 0


def check(folder: Path) -> Report:
    """Look at a whole stream. Producers may go on meanwhile: what they add after the call is not looked at.

    Raises  UnknownStream.   Cost  reads every byte once, about 1 GB/s from a fast disk.
    """
    with _quiet(folder):
        found = firsts(folder)
        sizes = {first: (_size(folder / arrow_name(first)), _size(folder / index_name(first))) for first in found}
    surveys: list[Survey] = []
    for at, first in enumerate(found):
        following = found[at + 1] if at + 1 < len(found) else None
        try:
            surveys.append(survey(folder, first, following, *sizes[first]))
        except FileNotFoundError:
            if first in firsts(folder):
                raise
    return Report(
        len(surveys),
        sum(one.entries for one in surveys),
        sum(one.rows for one in surveys),
        sum(one.lost for one in surveys),
        sum(one.bytes for one in surveys),
        found[0] if found else 0,
        surveys[-1].stop if surveys else 0,
        tuple(problem for one in surveys for problem in one.problems),
        leftovers_of(folder),
    )


def leftovers_of(folder: Path) -> tuple[str, ...]:
    """Names of the files in a stream's folder that nothing needs."""
    return tuple(sorted(name for name in os.listdir(folder) if name.endswith(_LEFT)))


@contextlib.contextmanager
def _quiet(folder: Path) -> Iterator[None]:
    """A moment in which no producer is in the middle of an append; where nothing may be written, nobody is."""
    try:
        lock = FileLock(folder / "lock")
    except OSError:
        yield
        return
    try:
        lock.acquire()
        yield
    finally:
        lock.release()
        lock.close()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def survey(folder: Path, first: int, following: int | None, data_size: int, index_size: int) -> Survey:
    """Look at one segment, as far as the sizes say. `following`: first offset of the next one."""
    data_path, index_path = folder / arrow_name(first), folder / index_name(first)
    found = Survey(stop=first)

    def problem(damage: Damage, path: Path, at: int, start: int, stop: int, loses: bool, **more: int) -> None:
        found.problems.append(Problem(damage, str(path), at, start, stop, loses, first, **more))

    if not data_path.exists():
        last = read_last(folder, first)
        found.stop = following if following is not None else first if last is None else last.stop
        problem(Damage.NO_DATA, data_path, 0, first, found.stop, True)
        return found
    if not has_header(index_path):
        if holds_rows(data_path):
            found.stop = first if following is None else following
            problem(Damage.NO_INDEX, index_path, 0, first, found.stop, False)
        elif following is not None:
            found.stop = following
            problem(Damage.GAP, data_path, 0, first, following, True)
        elif not _is_beginning(data_path):
            problem(Damage.NO_INDEX, data_path, 0, first, first, True)
        return found  # else its creation was cut short: no segment yet
    index = index_path.read_bytes()[:index_size]
    total = len(index) // ENTRY_BYTES

    def entry_at(number: int) -> Entry | None:
        return unpack(index, number * ENTRY_BYTES) if number < total else None

    found.bytes = data_size + index_size
    with data_path.open("rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), data_size, prot=mmap.PROT_READ) if data_size else b"")
    header = entry_at(0)
    lengths = message_lengths(view[: 1 << 20])
    length = lengths[0] if lengths else 0
    if header is None or not header.heads(first):
        following_entry = entry_at(1)
        if following_entry is not None and following_entry.first == first:
            length = following_entry.position
        problem(Damage.HEADER, index_path, 0, first, first, False)
    else:
        found.entries += 1
        length = header.length
        if digest(view[:length]) != header.message or not is_schema(view[:length]):
            problem(Damage.SCHEMA, data_path, 0, first, first, False)
    with contextlib.suppress(ValueError):
        found.codec = Codec(schema_of(view[:length]))
    offset, position, number, is_sealed, is_torn, seal_at = first, length, 1, False, False, total
    while number < total:
        entry = entry_at(number)
        if entry is None or not entry.follows(offset, position) or (is_sealed and entry.kind is not Kind.DROPPED):
            begin, after = number, None
            place = (offset, position, offset - 1 if is_sealed else following)  # nothing may follow a seal
            while number < total and (after := _resumes(entry_at, number, total, place)) is None:
                number += 1
            if after is None and following is None and not any(map(entry_at, range(begin, total))):
                is_torn = True
                break
            if after is not None:
                stop, end = after.first, after.position
            else:
                stop, end = _tail(found.codec, view, offset, position, following)
                seal_at = begin
                if stop == offset and (following is not None or is_sealed):
                    break  # it held no rows: it was the seal
            more = {"number": begin, "count": number - begin, "end": end}
            loses = recovered(found.codec, view, position, end, stop - offset) is None
            problem(Damage.ENTRY, index_path, begin * ENTRY_BYTES, offset, stop, loses, **more)
            offset, position = stop, end
            continue
        if entry.kind is Kind.ROWS:
            if digest(view[entry.position : entry.end]) != entry.message or entry.end > data_size:
                more = {"number": number, "count": 1, "end": entry.end}
                problem(Damage.MESSAGE, data_path, entry.position, entry.first, entry.stop, True, **more)
            else:
                found.rows += entry.rows
        found.entries += 1
        if entry.kind is Kind.LOST:
            found.lost += entry.rows
        is_sealed = is_sealed or entry.kind is Kind.SEALED
        offset, position, number = entry.stop, entry.end, number + 1
    found.stop, found.position = offset, position
    if following is None:
        if position < data_size or len(index) % ENTRY_BYTES or is_torn:
            problem(Damage.TORN, data_path, position, offset, offset, False)
    elif offset != following:
        end = _tail(found.codec, view, offset, position, following)[1]
        good = recovered(found.codec, view, position, end, following - offset)
        damage = Damage.GAP if good is None else Damage.ENTRY
        more = {"number": total, "end": end}
        problem(damage, index_path, total * ENTRY_BYTES, offset, following, good is None, **more)
        found.stop = following
    elif not is_sealed and not any(one.damage is Damage.ENTRY and one.stop == following for one in found.problems):
        problem(Damage.NO_SEAL, index_path, seal_at * ENTRY_BYTES, offset, offset, False)
    return found


def _is_beginning(path: Path) -> bool:
    """Whether a data file holds a schema message, or nothing yet."""
    with path.open("rb") as file:
        head = memoryview(file.read(1 << 20))
    lengths = message_lengths(head)
    return is_schema(head[: lengths[0]]) if lengths else not any(head)


def _resumes(
    entry_at: Callable[[int], Entry | None], number: int, total: int, place: tuple[int, int, int | None]
) -> Entry | None:
    """The entry of that number, if the segment may go on with it: it is further on, and what follows follows it.

    Takes   place: offset and position from which on entries are missing, offset at which the segment ends.
    """
    entry, (offset, position, following) = entry_at(number), place
    if entry is None or entry.kind is Kind.HEADER or entry.first < offset or entry.position < position:
        return None
    if (entry.first > offset) is not (entry.position > position):  # rows take bytes, and bytes hold rows
        return None
    if following is not None and entry.stop > following:
        return None
    after = entry_at(number + 1) if number + 1 < total else None
    return entry if after is None or after.follows(entry.stop, entry.end) else None


def _tail(codec: Codec | None, view: memoryview, offset: int, position: int, following: int | None) -> tuple[int, int]:
    """Offset and position at which a segment ends whose last entries are no good.

    Takes   following: first offset of the next segment; without one the rows are as many as there are whole messages.
    """
    found = _found(codec, view, position, len(view))
    stop, end = offset + sum(one.rows for one in found), position + sum(one.length for one in found)
    return (stop, end) if following in (None, stop) else (following, max(position, len(view)))


def _found(codec: Codec | None, view: memoryview, position: int, end: int) -> list[Found]:
    return [] if codec is None else list(messages_in(codec, view, position, end))


def recovered(codec: Codec | None, view: memoryview, position: int, end: int, rows: int) -> list[Found] | None:
    """The messages in bytes [position, end) of a data file, if they are all there is and hold exactly `rows` rows."""
    found = _found(codec, view, position, end)
    whole = sum(one.rows for one in found) == rows and position + sum(one.length for one in found) == end
    return found if whole else None
