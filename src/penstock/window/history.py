"""What the earlier runs of a consumer left: the marks they saw, their snapshot, and the name their results carry.

Windows that wall time has closed can be made again only if the moments are known. They are rows of the stream
`_marks/<stream>/<group>`, written before the windows are handed out. Its attributes say since when they count: a group
that was moved (`seek`) begins a new history, and so does a stream that was dropped and made again under its old name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec
import pyarrow as pa

from penstock.errors import UnknownStream
from penstock.log import Stream
from penstock.log.format import origin_id

__all__ = ["History", "Mark", "Output", "Saved", "marks_of"]

_SCHEMA: Final = pa.schema([pa.field(name, pa.int64(), nullable=False) for name in ("position", "ts", "flush")])
# Small segments, so that the retention can drop some; a mark takes about 500 bytes.
_KEPT: Final = {"retention": {"bytes": 64 << 20}, "segment_bytes": 8 << 20}
_NAME_BYTES: Final = 80
_KEEPS_ROWS: Final = (dict, list, tuple, pa.Table, pa.RecordBatch)  # can be read twice


class Mark(NamedTuple):
    """Wall time `ts` (ns), seen after all rows before `position`; or a flush there."""

    position: int
    ts: int
    flush: bool


class Saved(msgspec.Struct):
    """A snapshot: the emitter's bytes, the next row it wants, the number of marks it has seen."""

    emitter: bytes
    offset: int
    marks: int

    @classmethod
    def of(cls, data: bytes | None) -> Saved | None:
        """From the bytes of `encoded`; None when there are none, or another version made them."""
        try:
            return None if not data else msgspec.msgpack.decode(data, type=cls)
        except msgspec.MsgspecError:
            return None

    def encoded(self) -> bytes:
        """As bytes."""
        return msgspec.msgpack.encode(self)


class Output:
    """A stream to append to: opened at first use, and anew when it was dropped meanwhile.

    Takes   opened: gives the stream, and makes it if need be.
    """

    def __init__(self, opened: Callable[[], Stream]) -> None:
        self._opened = opened
        self._stream: Stream | None = None

    @property
    def stream(self) -> Stream:
        """The stream as it is there now."""
        if self._stream is None or not self._stream.is_there:
            self._stream = self._opened()
        return self._stream

    def append(self, data: Any, origin: tuple[str, int, int] | None = None) -> range:
        """Append rows; returns their offsets."""
        if self._stream is None or not isinstance(data, _KEEPS_ROWS):
            return self.stream.append(data, origin=origin)
        try:
            return self._stream.append(data, origin=origin)
        except UnknownStream:  # rather than looking each time: that is as slow as appending
            return self.stream.append(data, origin=origin)


class History:
    """Of one group of one stream. Only the consumer that holds the group may have one.

    who     name under which results, errors and late rows remember where they came from
    first   number of the first mark that counts
    """

    def __init__(self, stream: Stream, group: str, open_stream: Callable[..., Stream]) -> None:
        self._open_stream = open_stream
        self._name = marks_of(stream.name) + _part(group)
        self._created = stream.metadata().created_ns
        self._subject = f"{stream.name}\0{group}\0{self._created}"
        self._number, self.first = 0, 0
        self._marks = Output(self._make)
        try:
            known = open_stream(self._name, create=False).metadata().attributes
        except UnknownStream:
            return
        self._number, self.first = int(known.get("number", 0)), int(known.get("first", 0))
        if known.get("created") != self._created:  # marks of a stream of the same name that was dropped
            self.renew()

    @property
    def who(self) -> str:
        """See the class."""
        return f"{self._subject}\0{self._number}"

    def renew(self) -> None:
        """Begin anew: marks, results and errors of before no longer count."""
        marks = self._marks.stream
        self._number, self.first = self._number + 1, marks.next_offset
        marks.set_attributes(self._attributes())  # in one step, or a kill in between would leave half of it

    def marks(self, start: int) -> tuple[int, list[Mark]]:
        """Marks from number `start` on, and the number of the first of them; those before may be dropped by now."""
        try:
            stream = self._open_stream(self._name, create=False)
        except UnknownStream:
            return start, []
        start = max(start, stream.first_offset)
        if start >= stream.next_offset:
            return start, []
        columns = (stream.read(start).column(name).to_pylist() for name in _SCHEMA.names)
        return start, [Mark(position, ts, bool(flush)) for position, ts, flush in zip(*columns, strict=True)]

    def record(self, mark: Mark) -> int:
        """Keep a mark; returns the number of marks there are now. A killed process does not lose it."""
        row = {"position": mark.position, "ts": mark.ts, "flush": int(mark.flush)}
        return self._marks.append(row).stop

    def _make(self) -> Stream:
        try:
            return self._open_stream(self._name, create=False)
        except UnknownStream:
            return self._open_stream(self._name, schema=_SCHEMA, attributes=self._attributes(), **_KEPT)

    def _attributes(self) -> dict[str, int]:
        return {"created": self._created, "number": self._number, "first": self.first}


def marks_of(stream: str) -> str:
    """What the names of all streams of marks of that stream begin with."""
    return f"_marks/{_part(stream)}/"


def _part(name: str) -> str:
    """A name as part of another one: without "/", and short enough for two of them."""
    part = quote(name, safe=" ,;=+@!~")
    return part if len(quote(part)) <= _NAME_BYTES else f"{origin_id(name):016x}"
