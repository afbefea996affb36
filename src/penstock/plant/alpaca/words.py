"""Channels, error codes and frames of Alpaca's protocol. No I/O."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.clock import iso
from penstock.plant.protocol import array, binary_frame, text_frame

__all__ = ["CHANNELS", "ERRORS", "error", "frame", "is_alpaca", "is_packed", "joined", "moment", "packed_time", "write"]

CHANNELS: Final[Mapping[str, tuple[str, str]]] = {
    "trades": ("T", "t"), "quotes": ("Q", "q"), "bars": ("AM", "b"), "updatedBars": ("AM", "u"),
    "dailyBars": ("D", "d"), "statuses": ("S", "s"), "lulds": ("LULD", "l"), "news": ("N", "n"),
    "orderbooks": ("OB", "o"), "corrections": ("TC", "c"), "cancelErrors": ("TX", "x"),
}  # fmt: skip
"""Of each channel: the event of the plant's messages, and the `T` of Alpaca's."""

ERRORS: Final[Mapping[int, str]] = {
    400: "invalid syntax", 401: "not authenticated", 402: "auth failed", 403: "already authenticated",
    404: "auth timeout", 405: "symbol limit exceeded", 406: "connection limit exceeded", 407: "slow client",
    409: "insufficient subscription", 410: "invalid subscribe action for this feed", 500: "internal error",
}  # fmt: skip

_pack = msgspec.msgpack.Encoder(enc_hook=str).encode
_json = msgspec.json.Encoder(enc_hook=str).encode


def is_alpaca(path: str) -> bool:
    """Whether a request's path asks for this dialect: `/v2/iex`, `/v2/sip`, `/v1beta1/news` …"""
    return path.startswith(("/v2/", "/v1beta"))


def is_packed(content_type: str) -> bool:
    """Whether a request's header `Content-Type` asks for MessagePack."""
    return content_type.strip().lower().startswith("application/msgpack")


def error(code: int, more: str = "") -> dict[str, Any]:
    """One error; `more` stands behind its text."""
    return {"T": "error", "code": code, "msg": f"{ERRORS[code]}: {more}" if more else ERRORS[code]}


def write(message: Mapping[str, Any], packed: bool) -> bytes:
    """One message."""
    return _pack(message) if packed else _json(message)


def joined(messages: list[bytes], packed: bool) -> bytes:
    """A whole WebSocket frame with an array of messages."""
    if not packed:
        return text_frame(array(messages))
    count = len(messages)
    if count < 16:
        head = bytes((0x90 | count,))
    elif count < 65536:
        head = struct.pack("!BH", 0xDC, count)
    else:
        head = struct.pack("!BI", 0xDD, count)
    return binary_frame(head + b"".join(messages))


def frame(*messages: Mapping[str, Any], packed: bool) -> bytes:
    """A whole WebSocket frame with these messages."""
    return joined([write(message, packed) for message in messages], packed)


def moment(ns: int, packed: bool) -> Any:
    """A time: RFC 3339 text, or a MessagePack timestamp with all of its ns."""
    return packed_time(ns) if packed else iso(ns)


def packed_time(ns: int) -> msgspec.msgpack.Ext:
    """A MessagePack timestamp (extension -1): 8 bytes, from 1970 to 2514; before, 12."""
    seconds, rest = divmod(ns, 1_000_000_000)
    if 0 <= seconds < 1 << 34:
        return msgspec.msgpack.Ext(-1, ((rest << 34) | seconds).to_bytes(8, "big"))
    return msgspec.msgpack.Ext(-1, struct.pack("!Iq", rest, seconds))
