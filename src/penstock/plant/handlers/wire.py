"""Frames between a plant and a handler's worker: four bytes of length, then a map in MessagePack.

A map's `do` says what it is:

    to the worker    load (spec, limits), call (id, messages | columns), stop
    from the worker  ready (entry), failed (failure), result (id, messages, published, failure)

Nothing in a frame is code, and neither side believes a length over `LARGEST`.
"""

from __future__ import annotations

import math
import socket
import struct
from typing import Any

import msgspec

from penstock.errors import HandlerError

__all__ = ["HEAD", "LARGEST", "pack", "receive", "send", "size", "unpack"]

HEAD = 4
LARGEST = 256 << 20

_HEAD = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(dict[str, Any])


def pack(frame: dict[str, Any]) -> bytes:
    """The bytes of a frame. Integers over 64 bits, which JSON may have and MessagePack has not, become floats.

    Raises  HandlerError if it is over `LARGEST`.
    """
    try:
        body = _encoder.encode(frame)
    except OverflowError:
        body = _encoder.encode(_narrow(frame))
    if len(body) > LARGEST:
        raise HandlerError(
            expected=f"at most {LARGEST >> 20} MiB between a plant and a handler", got=f"{len(body) >> 20} MiB"
        )
    return _HEAD.pack(len(body)) + body


def _narrow(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _narrow(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_narrow(one) for one in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return value


def size(head: bytes) -> int:
    """Bytes of the body that follows."""
    (found,) = _HEAD.unpack(head)
    if found > LARGEST:
        raise HandlerError(expected=f"a frame of at most {LARGEST} bytes from a handler", got=f"one of {found}")
    return int(found)


def unpack(body: bytes) -> dict[str, Any]:
    """The frame of a body."""
    try:
        return _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise HandlerError(f"a handler's worker sent what is no frame: {error}") from error


def send(link: socket.socket, frame: dict[str, Any]) -> None:
    """Send a frame, blocking."""
    link.sendall(pack(frame))


def receive(link: socket.socket) -> dict[str, Any] | None:
    """The next frame, blocking; None once the other side is gone."""
    head = _exactly(link, HEAD)
    body = _exactly(link, size(head)) if head is not None else None
    return None if body is None else unpack(body)


def _exactly(link: socket.socket, count: int) -> bytes | None:
    data = bytearray(count)
    view, have = memoryview(data), 0
    while have < count:
        got = link.recv_into(view[have:])
        if not got:
            return None
        have += got
    return bytes(data)
