"""Single rows by template: a dict to a whole Arrow message and back, without pyarrow in between.

A one-row message of a given schema has the same metadata but for a few numbers, so pyarrow makes it once, and each
further row is a copy of it with the values put in place: 2 µs for a dict of seven columns, where building a batch and
serialising it takes 25 (`benchmarks/log.py`). The bytes are plain Arrow: tests read every message with pyarrow.

The body's layout is ours and fixed (one slot of 8 bytes for each bitmap, value and offset pair, in column order, text
after the slots), and its index entry says so, so many such messages are read at once by NumPy: `gather`.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.log.message import FlatTable
from penstock.records import encode_document

__all__ = ["RowTemplate"]

_I32 = struct.Struct("<i")
_PAIR = struct.Struct("<qq")
_I64 = struct.Struct("<q")
_JOIN_BYTES: Final = 24  # texts longer than this on average are joined one by one, shorter ones gathered byte by byte

# Types whose single value a template can hold. Everything else takes the pyarrow path.
_LETTERS: Final[dict[str, tuple[str, type]]] = {
    "int8": ("b", int), "int16": ("h", int), "int32": ("i", int), "int64": ("q", int),
    "uint8": ("B", int), "uint16": ("H", int), "uint32": ("I", int), "uint64": ("Q", int),
    "float": ("f", float), "double": ("d", float),
    "string": ("ii", str), "large_string": ("qq", str),  # with its two offsets
}  # fmt: skip


class RowTemplate:
    """One-row messages of a schema.

    `RowTemplate.of(schema)` is None when a column's type has no template. `encode` returns None for a row that needs
    a second look (another type, a missing or unknown column): the caller then takes the strict path, which either
    converts it or says what is wrong.
    """

    def __init__(self, schema: pa.Schema, event: str | None) -> None:
        self.schema, self.event = schema, event
        self.document = schema.metadata is not None and schema.metadata.get(b"penstock.kind") == b"document"
        kinds = [_LETTERS[str(field.type)] for field in schema]
        example = pa.RecordBatch.from_arrays(
            [
                pa.array([None if field.nullable else python()], field.type)
                for (_, python), field in zip(kinds, schema, strict=True)
            ],
            schema=schema,
        )
        whole = example.serialize().to_pybytes()
        size = _I32.unpack_from(whole, 4)[0]
        message = FlatTable.message(whole, 8)
        batch = message.table(2)
        self.length_at = message.position(3)
        nodes, buffer = batch.vector(1), batch.vector(2)

        # The body: every validity bitmap, value and offset pair in one struct, 8 bytes each; text after it. Nullable
        # columns always have a bitmap, null or not, so that positions stay: only the null counts differ.
        head = bytearray(whole[: 8 + size])
        form = "<"
        body = 0
        self.text_at: list[int] = []  # where the (offset, length) of each text buffer stands in the metadata
        self.plan: list[tuple[str, type, bool, bool, int]] = []  # name, type, nullable, text?, where its null count is
        for i, ((letter, python), field) in enumerate(zip(kinds, schema, strict=True)):
            null_at = nodes + 16 * i + 8
            self.plan.append((field.name, python, field.nullable, python is str, null_at))
            _I64.pack_into(head, null_at, 0)
            width = struct.calcsize("<" + letter)
            buffers = [(1, "B7x")] if field.nullable else [(0, "")]
            buffers.append((width, letter + f"{-width % 8}x" * (width < 8)))
            for length, part in buffers:
                _PAIR.pack_into(head, buffer, body, length)
                form += part
                body += length + -length % 8
                buffer += 16
            if python is str:
                self.text_at.append(buffer)
                buffer += 16
        self.head = bytes(head) + bytes(body)
        self.fixed_at = len(head)
        self.body = body
        self.fixed = struct.Struct(form)

    @classmethod
    def of(cls, schema: pa.Schema, event: str | None) -> RowTemplate | None:
        """The template of a schema, or None when a column's type has none."""
        return cls(schema, event) if len(schema) and all(str(f.type) in _LETTERS for f in schema) else None

    def encode(self, row: dict[str, Any], where: str = "") -> tuple[bytearray, int | None] | None:
        """(message, event time) of `row`, or None when the strict path has to look at it."""
        if self.document:
            text = encode_document(row, where=where)
            return self._message([0, len(text)], [text], []), None
        values: list[Any] = []
        texts: list[bytes] = []
        missing: list[int] = []
        known = 0
        value: Any
        try:
            for name, python, nullable, is_text, null_at in self.plan:
                value = row.get(name)
                if type(value) is python:
                    known += 1
                    if nullable:
                        values.append(1)
                    if is_text:
                        text = value.encode()  # type: ignore[attr-defined] # mypy thinks that `type` narrows it
                        texts.append(text)
                        values.append(0)
                        values.append(len(text))
                    else:
                        values.append(value)
                elif value is None and nullable:
                    known += name in row
                    missing.append(null_at)
                    if is_text:
                        texts.append(b"")
                        values += (0, 0, 0)
                    else:
                        values += (0, 0)
                else:
                    return None
            if known != len(row):
                return None
            if self.event is None:
                return self._message(values, texts, missing), None
            event = row.get(self.event)
            return None if event is None else (self._message(values, texts, missing), event)
        except (struct.error, OverflowError, UnicodeEncodeError):  # out of the column's range, or no text
            return None

    def _message(self, values: list[Any], texts: list[bytes], missing: list[int]) -> bytearray:
        message = bytearray(self.head)
        self.fixed.pack_into(message, self.fixed_at, *values)
        for at in missing:
            _I64.pack_into(message, at, 1)
        body = self.body
        for at, text in zip(self.text_at, texts, strict=True):
            length = len(text)
            _PAIR.pack_into(message, at, body, length)
            message += text
            body += length
            if length % 8:
                message += bytes(-length % 8)
                body += -length % 8
        _I64.pack_into(message, self.length_at, body)
        return message

    def gather(self, region: pa.Buffer, starts: NDArray[np.int64]) -> pa.RecordBatch:
        """The rows of many messages made by a template of this schema.

        Takes   region: bytes that hold the messages; starts: (rows,) where in it each begins.
        Cost    about 0.2 µs a row, one NumPy gather per slot.
        """
        count = len(starts)
        data = np.frombuffer(region, np.uint8)
        # every position of the region as the start of an int64: a gather then needs one index per value
        words: NDArray[np.int64] = np.ndarray((len(data) - 7,), "<i8", data, 0, (1,))
        slot = starts + 8 + (words[starts] >> 32)  # continuation and metadata size are the first two int32
        text = slot + self.body
        columns = []
        for (_, python, nullable, _, _), field in zip(self.plan, self.schema, strict=True):
            validity = None
            if nullable:
                validity = pa.py_buffer(np.packbits((words[slot] & 1).astype(np.uint8), bitorder="little"))
                slot = slot + 8
            if python is str:
                wide = pa.types.is_large_string(field.type)
                lengths = words[slot + 8] if wide else words[slot] >> 32
                slot = slot + (16 if wide else 8)
                offsets = np.zeros(count + 1, np.int64)
                np.cumsum(lengths, out=offsets[1:])
                if not wide and offsets[-1] > 0x7FFFFFFF:
                    raise OverflowError("texts of one gather over 2 GiB")  # the reader's byte limit is far below
                buffers = [validity, pa.py_buffer(offsets if wide else offsets.astype(np.int32))]
                buffers.append(_texts(region, data, text, lengths, offsets))
                text = text + lengths + -lengths % 8
            else:
                raw = words[slot]
                slot = slot + 8
                width = field.type.bit_width // 8
                values = raw if width == 8 else raw.astype(f"<u{width}")  # the low bytes, whatever they mean
                buffers = [validity, pa.py_buffer(np.ascontiguousarray(values))]
            columns.append(pa.Array.from_buffers(field.type, count, buffers))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _texts(
    region: pa.Buffer,
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    offsets: NDArray[np.int64],
) -> pa.Buffer:
    total = int(offsets[-1])
    if total > _JOIN_BYTES * len(starts):
        view = memoryview(region)
        return pa.py_buffer(
            b"".join([view[at:end] for at, end in zip(starts.tolist(), (starts + lengths).tolist(), strict=True)])
        )
    index = np.arange(total) + np.repeat(starts - offsets[:-1], lengths)
    return pa.py_buffer(data[index])
