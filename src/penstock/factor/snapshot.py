"""The state of a stream as bytes that say what they are.

    offset  bytes
    0       8      "PSFACTOR"
    8       4      version, little endian, as all numbers here
    12      4      length of the header
    16      8      length of the state
    24             header, JSON (UTF-8): dtype, ordinal, symbols, fields, …
                   state, rows of the layout one after the other, one value per symbol
    end     16     xxh3 (128 bits, big endian) of all before

Nothing in it is executable, and nothing is trusted before the digest agrees.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import xxhash

from penstock.errors import FactorError

__all__ = ["MAGIC", "VERSION", "Header", "SavedField", "decode", "encode", "read", "write"]

MAGIC = b"PSFACTOR"
VERSION = 1
_START = struct.Struct("<8sIIQ")
_DIGEST = 16

Planes = np.ndarray[Any, np.dtype[Any]]

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class SavedField(msgspec.Struct, frozen=True):
    """A field of the layout that was saved, and the ordinal at which its state began."""

    node: str
    name: str
    depth: Positive
    parts: Positive
    ring: bool
    since: Count
    formula: str

    @property
    def identity(self) -> tuple[str, str, int, int, bool]:
        return self.node, self.name, self.depth, self.parts, self.ring


class Header(msgspec.Struct, frozen=True):
    """What a snapshot says of itself. `since`: per symbol the ordinal at which it came."""

    program: str
    dtype: Literal["float32", "float64"]
    ordinal: Count
    first: Count
    symbols: list[str | int]
    since: list[Count]
    fields: list[SavedField]
    outputs: dict[str, str]
    labels: dict[str, list[str]]


def encode(header: Header, planes: Planes) -> bytes:
    """The snapshot of `planes` (rows, symbols)."""
    text = msgspec.json.encode(header)
    state = planes.astype(planes.dtype.newbyteorder("<"), copy=False).tobytes()
    body = _START.pack(MAGIC, VERSION, len(text), len(state)) + text + state
    return body + xxhash.xxh3_128_digest(body)


def decode(data: bytes, *, where: str = "in snapshot") -> tuple[Header, Planes]:
    """Header and planes of a snapshot.

    Raises  FactorError if `data` is no snapshot, cut, changed, or of a later version.
    """
    hint = "take a new snapshot, or start without and replay the history"
    if data[:8] != MAGIC:
        raise FactorError(
            expected=f"a factor snapshot, starting with {MAGIC!r}", got=repr(bytes(data[:8])), where=where
        )
    if len(data) < _START.size + _DIGEST:
        raise FactorError(
            expected=f"at least {_START.size + _DIGEST} bytes", got=str(len(data)), where=where, hint=hint
        )
    _, version, text_length, state_length = _START.unpack_from(data)
    if version != VERSION:
        raise FactorError(
            expected=f"snapshot version {VERSION}",
            got=f"version {version}",
            where=where,
            hint="use the release that wrote it",
        )
    whole = _START.size + text_length + state_length + _DIGEST
    if len(data) != whole:
        raise FactorError(expected=f"{whole} bytes", got=str(len(data)), where=where, hint=hint)
    if xxhash.xxh3_128_digest(data[:-_DIGEST]) != data[-_DIGEST:]:
        raise FactorError("the snapshot's digest does not match its bytes", where=where, hint=hint)
    text = data[_START.size : _START.size + text_length]
    try:
        header = msgspec.json.decode(text, type=Header)
    except msgspec.MsgspecError as error:
        raise FactorError(f"the snapshot's header cannot be read: {error}", where=where, hint=hint) from error
    dtype = np.dtype(header.dtype)
    rows, keys = sum(field.depth * field.parts for field in header.fields), len(header.symbols)
    if len(header.since) != keys or len(set(header.symbols)) != keys:
        raise FactorError("the snapshot's header contradicts itself on its symbols", where=where, hint=hint)
    if state_length != rows * keys * dtype.itemsize:
        raise FactorError(
            expected=f"{rows} rows of {keys} {dtype} values", got=f"{state_length} bytes", where=where, hint=hint
        )
    state = np.frombuffer(data, dtype.newbyteorder("<"), rows * keys, _START.size + text_length)
    return header, state.reshape(rows, keys).astype(dtype)


def read(state: bytes | bytearray | memoryview | str | os.PathLike[str]) -> tuple[Header, Planes]:
    """`decode` of bytes or of a file."""
    if isinstance(state, (bytes, bytearray, memoryview)):
        return decode(bytes(state))
    path = Path(state)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FactorError(f"cannot read the snapshot {str(path)!r}: {error.strerror}") from error
    return decode(data, where=f"in snapshot {str(path)!r}")


def write(data: bytes, path: str | os.PathLike[str]) -> None:
    """Put `data` at `path`, all of it or nothing."""
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise FactorError(f"cannot write the snapshot {str(target)!r}: {error.strerror}") from error
