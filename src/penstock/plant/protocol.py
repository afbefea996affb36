"""The words of the wire: what a client may ask, what the plant answers, and the frames around both. No I/O, no clock.

The stocks protocol of Massive (formerly Polygon), as its two public clients speak it:

    plant   [{"ev":"status","status":"connected","message":"Connected Successfully"}]
    client  {"action":"auth","params":KEY}
    plant   [{"ev":"status","status":"auth_success","message":"authenticated"}]         or auth_failed, then close 1008
    client  {"action":"subscribe","params":"AM.*,T.AAPL"}                               or unsubscribe
    plant   [{"ev":"status","status":"success","message":"subscribed to: AM.*"}, …]     one per channel; or error
    plant   [{"ev":"AM","sym":"AAPL",…}, …]                                             always an array

Beyond it, in the same messages: `since`, `seq`, `conflate`, `snapshot`, `policy` of a subscribe, and the action
`snapshot`. What a client may close with, and the plant closes with, is in `Code`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import msgspec

from penstock.errors import UsageError

__all__ = [
    "ARROW",
    "AUTH_FAILED",
    "AUTH_SUCCESS",
    "CONNECTED",
    "Action",
    "Code",
    "Policy",
    "answer",
    "array",
    "binary_frame",
    "parse_action",
    "status",
    "statuses",
    "text_frame",
]

ARROW: Final = "penstock.arrow.v1"
"""Name of the WebSocket sub-protocol whose data frames are Arrow IPC streams."""

_encode = msgspec.json.Encoder().encode
_ACTIONS: Final = ("auth", "subscribe", "unsubscribe", "snapshot", "ask")
_OPTIONS: Final = ("since", "seq", "conflate", "snapshot", "policy")


class Code(IntEnum):
    """Close codes of the plant (RFC 6455, section 7.4.1, and the IANA registry).

    The market's own clients reconnect after all of these but NORMAL and GOING_AWAY, which end them for good; so a plant
    that restarts says RESTART.
    """

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL = 1002
    UNSUPPORTED = 1003
    INVALID = 1007
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012
    TRY_LATER = 1013


class Policy(IntEnum):
    """What happens to a subscriber that does not keep up, when its outbox is full.

    CONFLATE     of each symbol it gets the latest message only
    DROP_OLDEST  it loses the oldest messages
    DISCONNECT   it is cut with close code 1008
    CATCH_UP     its queue is given up and read again from the log at its own pace: it loses nothing, and comes late
    """

    CONFLATE = 0
    DROP_OLDEST = 1
    DISCONNECT = 2
    CATCH_UP = 3

    @classmethod
    def named(cls, name: str) -> Policy:
        """The policy of a name such as "drop_oldest".   Raises  UsageError."""
        found = cls.__members__.get(name.upper()) if isinstance(name, str) else None
        if found is None:
            known = ", ".join(member.name.lower() for member in cls)
            raise UsageError(expected=f"a policy of {known}", got=repr(name))
        return found


@dataclass(frozen=True, slots=True)
class Action:
    """What a client asks.

    name      "auth", "subscribe", "unsubscribe", "snapshot" or "ask";  params  as sent, a comma list or the key
    since     None, an offset, "start", a time as text, or offsets by stream ("*": 0, all others)
    seq       whether each message is to carry its offset;  snapshot  whether the latest of each symbol comes first
    conflate  None, 0 (only the latest of each symbol whenever the client is behind), or a number of ms between frames
    policy    None, or what to do when it does not keep up
    question, id   of "ask": any JSON value, and what the answer carries
    """

    name: str
    params: str
    since: int | str | dict[str, int] | None = None
    seq: bool | None = None
    conflate: int | None = None
    snapshot: bool = False
    policy: Policy | None = None
    question: Any = None
    id: int | str | None = None


def parse_action(text: str) -> Action:
    """The action of a text frame.   Raises  UsageError, whose message is fit for the wire."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UsageError(expected="a JSON object", got=_cut(text), hint=str(error)[:120]) from None
    if type(found) is not dict:
        raise UsageError(expected='a JSON object such as {"action":"subscribe","params":"AM.*"}', got=_cut(text))
    name = found.get("action")
    if name not in _ACTIONS:
        raise UsageError(expected=f"an action of {', '.join(_ACTIONS)}", got=_cut(name))
    if name == "ask":
        return Action(name, "", question=found.get("params"), id=_id(found.get("id")))
    params = found.get("params", "")
    if not isinstance(params, str):
        raise UsageError(expected="params to be a text", got=_cut(params))
    if name != "subscribe" or found.keys() <= {"action", "params"}:
        return Action(name, params)
    since = _since(found.get("since"))
    snapshot = _flag(found, "snapshot") or False
    if since is not None and snapshot:
        raise UsageError("either since or snapshot: history holds the latest of each symbol already")
    policy = found.get("policy")
    return Action(
        name,
        params,
        since,
        _flag(found, "seq"),
        _conflate(found.get("conflate")),
        snapshot,
        None if policy is None else Policy.named(policy),
    )


def _flag(found: dict[str, Any], name: str) -> bool | None:
    value = found.get(name)
    if value is not None and type(value) is not bool:
        raise UsageError(expected=f"{name} to be true or false", got=_cut(value))
    return value


def _id(value: Any) -> int | str | None:
    if value is None or type(value) is int or (type(value) is str and len(value) <= 64):
        return value
    raise UsageError(expected="id to be a number or a text", got=_cut(value))


def _since(value: Any) -> int | str | dict[str, int] | None:
    if value is None or (type(value) is int and 0 <= value < 2**63) or (type(value) is str and len(value) <= 64):
        return value
    if type(value) is dict and all(type(offset) is int and 0 <= offset < 2**63 for offset in value.values()):
        if value.get("*", 0) == 0:
            return value
        raise UsageError(expected='"*" in since to be 0, all of the streams that are not named', got=_cut(value))
    raise UsageError(expected='since to be an offset, "start", a time, or offsets by stream', got=_cut(value))


def _conflate(value: Any) -> int | None:
    if value is None or value is False:
        return None
    if value is True:
        return 0
    if type(value) is int and 1 <= value <= 3_600_000:
        return value
    raise UsageError(expected="conflate to be true, false, or milliseconds from 1 to 3600000", got=_cut(value))


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# ---- what the plant says ----------------------------------------------------------------------------------------


def status(kind: str, message: str, **facts: Any) -> bytes:
    """One status object, such as {"ev":"status","status":"success","message":"subscribed to: AM.*"}."""
    return _encode({"ev": "status", "status": kind, "message": message, **facts})


def answer(id: int | str | None, value: Any) -> bytes:
    """What the handler behind the plant answers to a question, as one object."""
    return _encode({"ev": "answer", "id": id, "answer": value})


def array(messages: Iterable[bytes]) -> bytes:
    """A JSON array of messages that are JSON already."""
    return b"[" + b",".join(messages) + b"]"


def statuses(*found: bytes) -> bytes:
    """A text frame that holds an array of statuses."""
    return text_frame(array(found))


def text_frame(payload: bytes) -> bytes:
    """A whole unmasked text frame (RFC 6455, section 5.2). `payload` is UTF-8."""
    return _head(0x81, len(payload)) + payload


def binary_frame(payload: bytes) -> bytes:
    """A whole unmasked binary frame."""
    return _head(0x82, len(payload)) + payload


def _head(first: int, size: int) -> bytes:
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return struct.pack("!BBH", first, 126, size)
    return struct.pack("!BBQ", first, 127, size)


CONNECTED: Final = statuses(status("connected", "Connected Successfully"))
AUTH_SUCCESS: Final = statuses(status("auth_success", "authenticated"))
AUTH_FAILED: Final = statuses(status("auth_failed", "authentication failed"))
