"""Arrow IPC messages of one schema: record batches to bytes and back."""

from __future__ import annotations

import struct
from typing import Final

import pyarrow as pa

__all__ = ["Codec", "FlatTable", "is_schema", "message_lengths", "schema_of"]

_I32 = struct.Struct("<i")
_I64 = struct.Struct("<q")
_CONTINUATION: Final = b"\xff\xff\xff\xff"


class Codec:
    """Encodes and decodes the messages of one schema.

    `prefix` is the schema message, with which every `.arrow` file begins.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        # serialize() pads the message to 8 bytes, as an IPC stream wants it
        self.prefix: bytes = schema.serialize().to_pybytes()
        # Dictionaries travel in messages of their own. Each append carries its own ones, so that an entry can be read
        # without what came before it; readers of the plain file see replaced dictionaries, which IPC streams allow.
        self.has_dictionaries = any(_has_dictionary(field.type) for field in schema)

    def encode(self, batch: pa.RecordBatch) -> pa.Buffer:
        """The message(s) of one batch. Cost: one copy of the columns."""
        if not self.has_dictionaries:
            return batch.serialize()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.schema) as writer:
            writer.write_batch(batch)
        whole = sink.getvalue()
        begin, end = _stream_body(whole)
        return whole.slice(begin, end - begin)

    def decode(self, message: pa.Buffer) -> pa.RecordBatch:
        """The batch in `message`, its columns viewing the buffer (a copy when the schema has dictionaries)."""
        if not self.has_dictionaries:
            return pa.ipc.read_record_batch(message, self.schema)
        # pyarrow hands dictionaries only to a stream reader, and that wants one contiguous stream
        with pa.ipc.open_stream(pa.py_buffer(self.prefix + message.to_pybytes())) as reader:
            return reader.read_next_batch()


def schema_of(message: bytes | memoryview) -> pa.Schema:
    """The schema in a schema message. Raises ValueError for anything else: pyarrow has several errors for that."""
    try:
        return pa.ipc.read_schema(pa.py_buffer(message))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a schema message: {error}") from error


def is_schema(message: bytes | memoryview) -> bool:
    """Whether these bytes are a schema message."""
    try:
        schema_of(message)
    except ValueError:
        return False
    return True


def _has_dictionary(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return True
    if isinstance(kind, pa.ExtensionType):
        return _has_dictionary(kind.storage_type)
    return any(_has_dictionary(kind.field(i).type) for i in range(kind.num_fields))


def _stream_body(whole: pa.Buffer) -> tuple[int, int]:
    """Byte range of the messages after the schema message and before the end marker."""
    view = memoryview(whole)
    lengths = message_lengths(view)
    return lengths[0], sum(lengths)


def message_lengths(view: memoryview) -> list[int]:
    """Lengths in bytes of the whole IPC messages at the head of `view`; stops at the end marker or a torn one."""
    lengths: list[int] = []
    at = 0
    while at + 8 <= len(view) and bytes(view[at : at + 4]) == _CONTINUATION:
        size = _I32.unpack_from(view, at + 4)[0]
        if size <= 0 or at + 8 + size > len(view):
            break
        try:
            length = 8 + size + FlatTable.message(view, at + 8).int64(3)
        except (struct.error, IndexError):
            break
        if length <= 0 or at + length > len(view):
            break
        lengths.append(length)
        at += length
    return lengths


class FlatTable:
    """Just enough of a flatbuffer table to find where Arrow's metadata keeps its numbers (Message.fbs)."""

    def __init__(self, data: memoryview | bytes, at: int) -> None:
        self.data, self.at = data, at
        self.vtable = at - _I32.unpack_from(data, at)[0]
        self.slots = (struct.unpack_from("<H", data, self.vtable)[0] - 4) // 2

    @classmethod
    def message(cls, data: memoryview | bytes, at: int) -> FlatTable:
        return cls(data, at + struct.unpack_from("<I", data, at)[0])

    def position(self, slot: int) -> int:
        """Byte position of a field, 0 when it has its default."""
        if slot >= self.slots:
            return 0
        offset = struct.unpack_from("<H", self.data, self.vtable + 4 + 2 * slot)[0]
        return self.at + offset if offset else 0

    def int64(self, slot: int) -> int:
        at = self.position(slot)
        return int(_I64.unpack_from(self.data, at)[0]) if at else 0

    def table(self, slot: int) -> FlatTable:
        at = self.position(slot)
        return FlatTable(self.data, at + struct.unpack_from("<I", self.data, at)[0])

    def vector(self, slot: int) -> int:
        """Byte position of the first element of a vector of structs."""
        at = self.position(slot)
        return int(at + struct.unpack_from("<I", self.data, at)[0] + 4)
