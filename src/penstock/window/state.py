"""Snapshots as bytes: numbers and offsets in msgpack, with the parameters they belong to and a digest."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import xxhash

from penstock.errors import WindowError
from penstock.window.pending import Int64

__all__ = ["State", "pack", "ranges", "unpack"]

_MAGIC = b"PSWN\x01"


class State(msgspec.Struct):
    """All an emitter knows. `groups` are the windower's: numbers, and offsets of the rows; the last: late rows."""

    parameters: dict[str, Any]
    clock: str
    schema: bytes | None
    position: int
    watermark: int
    last_created: int
    emitted: tuple[int, int]
    counters: tuple[int, int, int]
    keys: list[Any]
    groups: list[tuple[list[int], Any]]
    extra: bytes | None


def pack(state: State) -> bytes:
    """Magic, xxh3-64 of the rest, then (parameters, digest of the parameters, state)."""
    state.groups = [(numbers, _packed(offsets)) for numbers, offsets in state.groups]
    body = msgspec.msgpack.encode(state)
    return _MAGIC + xxhash.xxh3_64_digest(body) + body


def unpack(snapshot: bytes, parameters: dict[str, Any]) -> State:
    """The state; WindowError when it is damaged or was made with other parameters."""
    body = snapshot[13:]
    if snapshot[:5] != _MAGIC or snapshot[5:13] != xxhash.xxh3_64_digest(body):
        raise WindowError(
            expected="the bytes of an emitter's snapshot",
            got=f"{len(snapshot)} bytes that begin with {bytes(snapshot[:8])!r}",
            where="in restore",
            hint="start without the snapshot, from the lowest open offset",
        )
    state = msgspec.msgpack.decode(body, type=State)
    if state.parameters != parameters:
        raise WindowError(
            problem=f"snapshot was made for {told(state.parameters)}, this emitter is {told(parameters)}",
            where="in restore",
            hint="use the same parameters, or start without the snapshot",
        )
    state.groups = [(numbers, _unpacked(data)) for numbers, data in state.groups]
    return state


def told(parameters: dict[str, Any]) -> str:
    """Parameters as a call: FixedTimeWindow(size_ns=…, by=…), with digest."""
    digest = xxhash.xxh3_64_hexdigest(msgspec.msgpack.encode(sorted(parameters.items())))
    inside = ", ".join(
        f"{name}={value!r}" for name, value in parameters.items() if name != "emitter" and value is not None
    )
    return f"{parameters.get('emitter')}({inside}) [{digest[:8]}]"


def ranges(offsets: Int64) -> list[range]:
    """Ascending offsets as ranges."""
    if not len(offsets):
        return []
    cuts = np.flatnonzero(np.diff(offsets) != 1) + 1
    lows = offsets[np.concatenate([[0], cuts])].tolist()
    highs = offsets[np.concatenate([cuts - 1, [len(offsets) - 1]])].tolist()
    return [range(low, high + 1) for low, high in zip(lows, highs, strict=True)]


def _packed(offsets: Int64) -> tuple[bool, bytes]:
    """Borders of ranges when that is shorter, else each offset; little-endian int64 either way."""
    borders = np.array([[r.start, r.stop] for r in ranges(offsets)], "<i8")
    if borders.size < len(offsets):
        return True, borders.tobytes()
    return False, offsets.astype("<i8").tobytes()


def _unpacked(packed: tuple[bool, bytes]) -> Int64:
    numbers = np.frombuffer(packed[1], "<i8").astype(np.int64)
    if not packed[0]:
        return numbers
    return np.concatenate([np.arange(low, high) for low, high in numbers.reshape(-1, 2)])
