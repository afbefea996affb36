"""The bytes of a segment's index. No I/O here; `docs/log-format.md` says the same for other readers.

A segment is two files named by its first offset, twenty digits: `N.arrow`, a plain Arrow IPC stream (one schema
message, then record batch messages, no end marker while it is open), and `N.idx`, an array of 128-byte entries.
Entry 0 is the header; each further entry commits one append. **An entry is the commit**: the message is written
first, its entry second, so an entry whose own digest holds always points at a whole message.

128 divides the page size: an entry never straddles two pages of the page cache, so a reader in another process
never sees half of one.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import xxhash

from penstock.errors import StorageError

__all__ = [
    "ENTRY_BYTES",
    "ENTRY_DTYPE",
    "NO_TIME",
    "TEMPLATE",
    "Entry",
    "Kind",
    "arrow_name",
    "digest",
    "index_name",
    "origin_id",
    "pack",
    "rows_at",
    "unpack",
]

ENTRY_BYTES: Final = 128
VERSION: Final = 1
TEMPLATE: Final = 1
NO_TIME: Final = -(2**63)  # "no event time": also numpy's NaT
_BODY = struct.Struct("<IIQQQQqqqQqqQQQQ")  # 120 bytes, the digest of which ends the entry
_DIGEST = struct.Struct("<Q")

ENTRY_DTYPE: Final = np.dtype(
    [
        ("kind", "<u4"),
        ("version", "<u4"),
        ("first", "<u8"),
        ("rows", "<u8"),
        ("position", "<u8"),
        ("length", "<u8"),
        ("appended", "<i8"),
        ("min_event", "<i8"),
        ("max_event", "<i8"),
        ("origin_id", "<u8"),
        ("origin", "<i8"),
        ("origin_index", "<i8"),
        ("message", "<u8"),
        ("flags", "<u8"),
        ("reserved", "<u8", (2,)),
        ("digest", "<u8"),
    ]
)


class Kind(enum.IntEnum):
    """What an entry says."""

    HEADER = 1  # first entry: first offset, length and digest of the schema message
    ROWS = 2  # one append
    SEALED = 3  # the segment is complete; the next one begins at `first`
    DROPPED = 4  # the stream was dropped; no append may follow
    LOST = 5  # rows whose message was corrupt and was given up by a repair


@dataclass(frozen=True, slots=True)
class Entry:
    """One index entry. Offsets and `rows` count rows, `position` and `length` bytes of the `.arrow` file.

    appended    wall time of the append, ns UTC, never decreasing along a stream
    min_event, max_event    range of the event-time column, or NO_TIME
    origin_id, origin, origin_index   who made this batch, from which input position; 0 when nobody said
    message     xxh3-64 of the message's bytes
    flags       TEMPLATE: one row, its body laid out as `template.py` says
    """

    kind: Kind
    first: int
    rows: int = 0
    position: int = 0
    length: int = 0
    appended: int = 0
    min_event: int = NO_TIME
    max_event: int = NO_TIME
    origin_id: int = 0
    origin: int = 0
    origin_index: int = 0
    message: int = 0
    flags: int = 0

    @property
    def stop(self) -> int:
        """Offset after the last row."""
        return self.first + self.rows

    @property
    def end(self) -> int:
        """File position after the message."""
        return self.position + self.length

    def heads(self, first: int) -> bool:
        """Whether it is the header of the segment that begins at offset `first`."""
        return self.kind is Kind.HEADER and self.first == first and self.rows == self.position == 0

    def follows(self, offset: int, position: int) -> bool:
        """Whether it begins there, as entries do where the one before ends."""
        return self.kind is not Kind.HEADER and self.first == offset and self.position == position


digest = xxhash.xxh3_64_intdigest
_ROWS: Final = int(Kind.ROWS)


def pack(
    kind: int,
    first: int,
    rows: int = 0,
    position: int = 0,
    length: int = 0,
    appended: int = 0,
    min_event: int = NO_TIME,
    max_event: int = NO_TIME,
    origin_id: int = 0,
    origin: int = 0,
    origin_index: int = 0,
    message: int = 0,
    flags: int = 0,
) -> bytes:
    """The 128 bytes of an entry. Arguments and not an `Entry`: this runs once per append."""
    body = _BODY.pack(
        kind, VERSION, first, rows, position, length, appended, min_event, max_event,
        origin_id, origin, origin_index, message, flags, 0, 0,
    )  # fmt: skip
    return body + _DIGEST.pack(digest(body))


def unpack(data: bytes | memoryview, at: int = 0) -> Entry | None:
    """The entry at byte `at`, or None when its digest does not hold (torn).

    Raises  StorageError for a whole entry of another version or kind: what a newer release wrote must not be taken
            for a torn tail and cut off.
    """
    body = data[at : at + ENTRY_BYTES - 8]
    if len(body) != ENTRY_BYTES - 8 or len(data) < at + ENTRY_BYTES:
        return None
    if _DIGEST.unpack_from(data, at + ENTRY_BYTES - 8)[0] != digest(body):
        return None
    fields = _BODY.unpack(body)
    if fields[1] != VERSION or fields[0] not in Kind._value2member_map_:
        raise StorageError(
            expected=f"an index entry of version {VERSION}",
            got=f"version {fields[1]}, kind {fields[0]}",
            where=f"at byte {at}",
            hint="a newer release of penstock wrote this stream: use that one",
        )
    return Entry(Kind(fields[0]), *fields[2:14])


def rows_at(data: bytes, at: int) -> tuple[int, int, int, int, int, int] | None:
    """(first, rows, position, length, appended, message) of the entry at byte `at`; None if it is no good one of ROWS.

    For those who read a few at a time: `unpack` takes four times as long, an array of ENTRY_DTYPE pays from dozens on.
    """
    fields = _BODY.unpack_from(data, at)
    if fields[0] != _ROWS or fields[1] != VERSION:
        return None
    if _DIGEST.unpack_from(data, at + ENTRY_BYTES - 8)[0] != digest(data[at : at + ENTRY_BYTES - 8]):
        return None
    return fields[2], fields[3], fields[4], fields[5], fields[6], fields[12]


def arrow_name(first: int) -> str:
    """File name of the segment that begins at offset `first`."""
    return f"{first:020d}.arrow"


def index_name(first: int) -> str:
    """File name of that segment's index."""
    return f"{first:020d}.idx"


def origin_id(name: str) -> int:
    """The number under which entries remember who made them; never 0."""
    return digest(name.encode()) or 1
