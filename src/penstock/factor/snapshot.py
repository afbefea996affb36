"""The state of a stream as bytes that say what they are.

    offset  bytes
    0       8      "PSFACTOR"
    8       4      version, little endian, as all numbers here
    12      4      bytes of a value: 4 or 8
    16      8      ordinal: rows since the stream began
    24      8      ordinal at which it began
    32      8      symbols
    40      8      fields of the layout
    48      8      rows of the layout
    56      8      length of the text that says what the rows are
    64      8      length of the text that says what the symbols are
    72      8      0
    80      16     digest of the program
    96      16     digest of the layout: programs that agree in it can take over each other's rows as they are
    112     144    0
    256            8 bytes each: per symbol the ordinal at which it came, per field the one from which its values are
                   right: all that they are made of was there
                   the two texts, JSON (UTF-8): fields and outputs; symbols and labels
                   state, rows of the layout one after the other, one value per symbol
    end     16     xxh3 (128 bits, big endian) of all before

Everything that changes while a stream runs stands at fixed places, so that a reader without JSON can go on from a
snapshot, and hand the texts on as they are; `capi/` is one. At 256 bytes before the texts, one form of xxh3 is enough.
Nothing in a snapshot is executable, and nothing is trusted before the digest agrees.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np
import xxhash

from penstock.errors import FactorError

__all__ = [
    "MAGIC",
    "START",
    "VERSION",
    "Header",
    "SavedField",
    "decode",
    "encode",
    "layout_digest",
    "pack",
    "read",
    "rows_text",
    "write",
]

MAGIC = b"PSFACTOR"
VERSION = 3
START = struct.Struct("<8sII7Q8x16s16s144x")
"""What stands before the texts: magic, version, bytes of a value, ordinal, first, symbols, fields, rows, two lengths,
digests of program and layout."""

_FIRST = struct.Struct("<8sIIQ")
"""What version 1 began with: magic, version, length of one text that said all, length of the state."""

_DIGEST = 16
_HINT = "take a new snapshot, or start without and replay the history"

Planes = np.ndarray[Any, np.dtype[Any]]

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class SavedField(msgspec.Struct, frozen=True):
    """A field of the layout that was saved, and the ordinal from which its values are right (see `Header.settled`)."""

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
    """What a snapshot says of itself. `since`: per symbol the ordinal at which it came.

    `settled`: whether the fields' `since` count what their values are made of. Until version 3 they told when a field
    was begun, and its first values were the NaN of operands that were not there yet.
    """

    program: str
    dtype: Literal["float32", "float64"]
    ordinal: Count
    first: Count
    symbols: list[str | int]
    since: list[Count]
    fields: list[SavedField]
    outputs: dict[str, str]
    labels: dict[str, list[str]]
    settled: bool = False


class _Field(msgspec.Struct, frozen=True):
    node: str
    name: str
    depth: Positive
    parts: Positive
    ring: bool
    formula: str


class _Rows(msgspec.Struct, frozen=True):
    fields: list[_Field]
    outputs: dict[str, str]


class _Universe(msgspec.Struct, frozen=True):
    symbols: list[str | int]
    labels: dict[str, list[str]]


def rows_text(fields: Iterable[SavedField], outputs: Mapping[str, str]) -> bytes:
    """The text that says what the rows are; the same for every stream of a program."""
    shapes = [_Field(f.node, f.name, f.depth, f.parts, f.ring, f.formula) for f in fields]
    return msgspec.json.encode(_Rows(shapes, dict(outputs)))


def layout_digest(dtype: str, identities: Iterable[tuple[str, str, int, int, bool]]) -> bytes:
    """16 bytes that say which values the rows of a state are."""
    text = ";".join(f"{node} {name} {depth} {parts} {int(ring)}" for node, name, depth, parts, ring in identities)
    return xxhash.xxh3_128_digest(f"{dtype}|{text}".encode())


def encode(header: Header, planes: Planes) -> bytes:
    """The snapshot of `planes` (rows, symbols)."""
    layout = layout_digest(header.dtype, (field.identity for field in header.fields))
    return pack(
        planes,
        ordinals=(header.ordinal, header.first),
        born=header.since,
        since=[field.since for field in header.fields],
        rows=rows_text(header.fields, header.outputs),
        universe=(header.symbols, header.labels),
        digests=(header.program, layout),
    )


def pack(
    planes: Planes,
    *,
    ordinals: tuple[int, int],
    born: Sequence[int],
    since: Sequence[int],
    rows: bytes,
    universe: tuple[list[str | int], dict[str, list[str]]],
    digests: tuple[str, bytes],
) -> bytes:
    """The snapshot of `planes` (rows, symbols), for who knows what never changes in a program.

    Takes   ordinals: of the next row and of the first; born, since: ordinals per symbol and per field;
            rows: see `rows_text`; universe: symbols and labels; digests: of the program (hex) and of the layout.
    """
    names = msgspec.json.encode(_Universe(*universe))
    start = START.pack(
        *(MAGIC, VERSION, planes.dtype.itemsize, *ordinals, len(born), len(since), len(planes)),
        *(len(rows), len(names), bytes.fromhex(digests[0]), digests[1]),
    )
    state = planes.astype(planes.dtype.newbyteorder("<"), copy=False).tobytes()
    body = b"".join([start, np.array([*born, *since], "<i8").tobytes(), rows, names, state])
    return body + xxhash.xxh3_128_digest(body)


def decode(data: bytes, *, where: str = "in snapshot") -> tuple[Header, Planes]:
    """Header and planes of a snapshot.

    Raises  FactorError if `data` is no snapshot, cut, changed, or of a later version.
    """
    if data[:8] != MAGIC:
        raise FactorError(
            expected=f"a factor snapshot, starting with {MAGIC!r}", got=repr(bytes(data[:8])), where=where
        )
    if len(data) < _FIRST.size + _DIGEST:
        raise _cut(f"at least {_FIRST.size + _DIGEST}", len(data), where)
    version = int.from_bytes(data[8:12], "little")
    if version not in (1, 2, VERSION):
        raise FactorError(
            expected=f"snapshot version {VERSION}",
            got=f"version {version}",
            where=where,
            hint="use the release that wrote it",
        )
    header, first = (_decode_first if version == 1 else _decode)(data, where)
    dtype = np.dtype(header.dtype)
    rows, keys = sum(field.depth * field.parts for field in header.fields), len(header.symbols)
    if len(header.since) != keys or len(set(header.symbols)) != keys:
        raise FactorError("the snapshot's header contradicts itself on its symbols", where=where, hint=_HINT)
    # Values of a field may be right later than now, by the rows that its operands look back.
    far = max((field.since for field in header.fields), default=0) > 3 << 61
    if far or not max([header.first, *header.since]) <= header.ordinal <= 1 << 62:
        raise FactorError("the snapshot's header contradicts itself on its ordinal", where=where, hint=_HINT)
    length = len(data) - _DIGEST - first
    if length != rows * keys * dtype.itemsize:
        raise FactorError(
            expected=f"{rows} rows of {keys} {dtype} values", got=f"{length} bytes", where=where, hint=_HINT
        )
    state = np.frombuffer(data, dtype.newbyteorder("<"), rows * keys, first)
    return header, state.reshape(rows, keys).astype(dtype)


def _cut(expected: str, got: int, where: str) -> FactorError:
    return FactorError(expected=f"{expected} bytes", got=str(got), where=where, hint=_HINT)


def _whole(data: bytes, whole: int, where: str) -> None:
    """Nothing is missing, too much or changed."""
    if len(data) != whole:
        raise _cut(str(whole), len(data), where)
    if xxhash.xxh3_128_digest(data[:-_DIGEST]) != data[-_DIGEST:]:
        raise FactorError("the snapshot's digest does not match its bytes", where=where, hint=_HINT)


_Text = TypeVar("_Text")


def _text(data: bytes, made: type[_Text], where: str) -> _Text:
    try:
        return msgspec.json.decode(data, type=made)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FactorError(f"the snapshot's header cannot be read: {error}", where=where, hint=_HINT) from error


def _decode(data: bytes, where: str) -> tuple[Header, int]:
    """The header, and where the state begins."""
    if len(data) < START.size + _DIGEST:
        raise _cut(f"at least {START.size + _DIGEST}", len(data), where)
    _, version, size, ordinal, first, keys, count, rows, texts, names, program, layout = START.unpack_from(data)
    there = START.size + 8 * (keys + count)
    _whole(data, there + texts + names + rows * keys * size + _DIGEST, where)
    since = np.frombuffer(data, "<i8", keys + count, START.size).tolist()
    shape = _text(data[there : there + texts], _Rows, where)
    universe = _text(data[there + texts : there + texts + names], _Universe, where)
    kept = [field.depth * field.parts for field in shape.fields]
    if size not in (4, 8) or len(kept) != count or sum(kept) != rows or max(ordinal, first) >= 2**63:
        raise FactorError("the snapshot's header contradicts itself on its rows", where=where, hint=_HINT)
    fields = [
        SavedField(f.node, f.name, f.depth, f.parts, f.ring, begun, f.formula)
        for f, begun in zip(shape.fields, since[keys:], strict=True)
    ]
    dtype: Literal["float32", "float64"] = "float32" if size == 4 else "float64"
    if layout_digest(dtype, (field.identity for field in fields)) != layout or min(since, default=0) < 0:
        raise FactorError("the snapshot's header contradicts itself on its layout", where=where, hint=_HINT)
    header = Header(
        *(program.hex(), dtype, ordinal, first, universe.symbols, since[:keys], fields, shape.outputs),
        *(universe.labels, version > 2),
    )
    return header, there + texts + names


def _decode_first(data: bytes, where: str) -> tuple[Header, int]:
    """As `_decode`, of version 1: one text that says all."""
    _, _, texts, state = _FIRST.unpack_from(data)
    _whole(data, _FIRST.size + texts + state + _DIGEST, where)
    return _text(data[_FIRST.size : _FIRST.size + texts], Header, where), _FIRST.size + texts


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
