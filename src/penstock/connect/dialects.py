"""What a market data server says and wants to hear, as state machines without sockets: Massive, Alpaca, plain JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import msgspec

from penstock.clock import iso
from penstock.connect.market import ALPACA, CHANNELS, MASSIVE, Kind, Message
from penstock.errors import SourceError, UsageError

__all__ = ["Alpaca", "BadFrame", "Dialect", "Heard", "Json", "Massive", "Note", "dialect_of", "is_loopback", "shown"]

_json = msgspec.json.Decoder().decode
_pack = msgspec.msgpack.Decoder(list[dict[str, msgspec.Raw]]).decode
_value = msgspec.msgpack.Decoder().decode
_HOSTS: Final = {"massive": ("massive.com", "polygon.io"), "alpaca": ("alpaca.markets",)}
_MISSED: Final = ("slow_consumer", "conflated", "force_disconnect")


class BadFrame(ValueError):
    """A frame that holds no messages; its text says why."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something the server says that its user should know, and that ends nothing: its kind, and the text."""

    kind: str
    text: str


@dataclass(slots=True)
class Heard:
    """What a frame held: messages, replies to send, notes; and `begins` {stream: offset} when it is a plant's."""

    messages: list[Message] = field(default_factory=list)
    replies: list[str | bytes] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    begins: dict[str, int] | None = None


class Dialect(Protocol):
    """One server's way of talking.

    headers   of the request;  kinds  of messages that make rows;  is_live  whether what was asked for comes now
    begin     there is a new connection: what to say first;  received  a frame
    event     of a message;  document  a message as JSON can hold it
    """

    headers: dict[str, str]
    kinds: Mapping[str, Kind]
    is_live: bool

    @property
    def events(self) -> set[str]:
        """Events that were asked for, as far as that is known."""
        ...

    def begin(self) -> list[str | bytes]: ...

    def received(self, data: str | bytes) -> Heard: ...

    def event(self, message: Message) -> str: ...

    def document(self, message: Message) -> Message: ...

    def resume(self, positions: dict[str, int]) -> str:
        """What asks a plant for all from these offsets on."""
        ...


class Massive:
    """The protocol of Massive, formerly Polygon: `ev`, auth, subscribe. A plant is recognised by its offsets."""

    kinds = MASSIVE

    def __init__(self, key: str, channels: Sequence[str], where: str) -> None:
        self.headers: dict[str, str] = {}
        self._key, self._params, self._where = key, ",".join(channels), where
        self._channels = channels
        self.is_live = False

    @property
    def events(self) -> set[str]:
        return {channel.partition(".")[0] for channel in self._channels} - {"*"}

    def begin(self) -> list[str | bytes]:
        # The greeting is not waited for: some servers have none.
        self.is_live = False
        return [_text({"action": "auth", "params": self._key})]

    def received(self, data: str | bytes) -> Heard:
        heard = Heard()
        for message in _messages(data):
            if message.get("ev") == "status":
                self._status(message, heard)
            else:
                heard.messages.append(message)
        return heard

    def _status(self, message: Message, heard: Heard) -> None:
        kind, text = message.get("status"), str(message.get("message", ""))
        if kind == "auth_success":
            heard.replies.append(_text({"action": "subscribe", "params": self._params}))
        elif kind in ("auth_failed", "auth_timeout"):
            raise _refused("key", text, self._where, str(kind))
        elif kind == "success":
            self.is_live = True
            streams = message.get("streams")
            if isinstance(streams, dict):
                heard.begins = {**(heard.begins or {}), **streams}
        elif kind == "max_connections":
            raise _refused("connection", text, self._where, kind)
        elif kind == "error":
            raise _refused("subscription", text, self._where, kind)
        elif kind in _MISSED:
            heard.notes.append(Note(str(kind), text))

    def event(self, message: Message) -> str:
        found = message.get("ev")
        return found if type(found) is str else ""

    def document(self, message: Message) -> Message:
        return message

    def resume(self, positions: dict[str, int]) -> str:
        # Streams that were not there yet are new since then: all of them was missed.
        words = {"seq": True, "since": {**positions, "*": 0}, "policy": "catch_up"}
        return _text({"action": "subscribe", "params": self._params, **words})


class Alpaca:
    """Alpaca's market data protocol, in MessagePack: greeting, auth within 10 s, lists of symbols by channel."""

    kinds = ALPACA
    _FATAL: Final = {402: "key", 405: "subscription", 406: "connection", 409: "subscription", 410: "subscription"}

    def __init__(self, key: str, channels: Mapping[str, Sequence[str]], where: str) -> None:
        self.headers = {"Content-Type": "application/msgpack"}
        self._key, _, self._secret = key.partition(":")
        self._channels, self._where = channels, where
        self.is_live = False

    @property
    def events(self) -> set[str]:
        return {CHANNELS[channel] for channel in self._channels}

    def begin(self) -> list[str | bytes]:
        self.is_live = False
        return []

    def received(self, data: str | bytes) -> Heard:
        heard = Heard()
        packed = isinstance(data, bytes)
        for message in _unpacked(data) if isinstance(data, bytes) else _messages(data):
            kind = message.get("T")
            if kind == "success":
                words: dict[str, Any] | None = None
                if message.get("msg") == "connected":
                    words = {"action": "auth", "key": self._key, "secret": self._secret}
                elif message.get("msg") == "authenticated":
                    words = {"action": "subscribe", **{name: list(found) for name, found in self._channels.items()}}
                if words is not None:
                    heard.replies.append(msgspec.msgpack.encode(words) if packed else _text(words))
            elif kind == "subscription":
                self.is_live = True
            elif kind == "error":
                self._error(message, heard)
            else:
                heard.messages.append(message)
        return heard

    def _error(self, message: Message, heard: Heard) -> None:
        code, text = message.get("code"), f"{message.get('msg', '')} ({message.get('code')})"
        what = self._FATAL.get(code) if isinstance(code, int) else None
        if what is not None:
            raise _refused(what, text, self._where, "max_connections" if code == 406 else f"error {code}")
        heard.notes.append(Note("slow_consumer" if code == 407 else "error", text))

    def event(self, message: Message) -> str:
        found = message.get("T")
        return found if type(found) is str else ""

    def document(self, message: Message) -> Message:
        return {name: iso(value) if type(value) is _Moment else value for name, value in message.items()}

    def resume(self, positions: dict[str, int]) -> str:
        raise AssertionError("no server of this dialect has offsets")


class Json:
    """A server that sends JSON: an object a message, or arrays of them.

    Takes   hello: messages to send first, texts or what JSON can hold; path: where in a message the rows are,
            such as "data.items".
    """

    kinds: Mapping[str, Kind] = {}

    def __init__(self, hello: Sequence[Any], path: str | None, headers: Mapping[str, str]) -> None:
        self.headers = dict(headers)
        self._hello = [h if isinstance(h, str | bytes) else _text(h) for h in hello]
        self._path = path.split(".") if path else []
        self.is_live = True

    @property
    def events(self) -> set[str]:
        return set()

    def begin(self) -> list[str | bytes]:
        return list(self._hello)

    def received(self, data: str | bytes) -> Heard:
        try:
            found = _json(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise BadFrame(f"a frame that is no JSON ({error})") from None
        for name in self._path:
            # Greetings and heartbeats have no rows: that is not an error.
            found = found.get(name) if isinstance(found, dict) else None
        if found is None:
            return Heard()
        rows = found if isinstance(found, list) else [found]
        if not all(isinstance(row, dict) for row in rows):
            raise BadFrame(f"a message that is no object ({found!r:.80})")
        return Heard(rows)

    def event(self, message: Message) -> str:
        return ""

    def document(self, message: Message) -> Message:
        return message

    def resume(self, positions: dict[str, int]) -> str:
        raise AssertionError("no server of this dialect has offsets")


class _Moment(int):
    """Time in ns: a MessagePack timestamp."""


def _messages(data: str | bytes) -> list[Message]:
    try:
        found = _json(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadFrame(f"a frame that is no JSON ({error})") from None
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list) or not all(isinstance(message, dict) for message in found):
        raise BadFrame(f"a frame that is no array of objects ({found!r:.80})")
    return found


def _unpacked(data: bytes) -> list[Message]:
    try:
        return [{name: _field(raw) for name, raw in message.items()} for message in _pack(data)]
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
        raise BadFrame(f"a frame that is no MessagePack array of maps ({error})") from None


def _field(raw: msgspec.Raw) -> Any:
    data = bytes(raw)
    head = data[0]
    # Timestamps (extension -1) are read by hand: a datetime has no ns.
    if head == 0xD7 and data[1] == 0xFF:
        both = int.from_bytes(data[2:], "big")
        return _Moment((both & 0x3_FFFF_FFFF) * 1_000_000_000 + (both >> 34))
    if head == 0xD6 and data[1] == 0xFF:
        return _Moment(int.from_bytes(data[2:], "big") * 1_000_000_000)
    if head == 0xC7 and data[1:3] == b"\x0c\xff":
        return _Moment(int.from_bytes(data[7:], "big", signed=True) * 1_000_000_000 + int.from_bytes(data[3:7], "big"))
    return _value(data)


def _refused(what: str, text: str, where: str, status: str) -> SourceError:
    hint = {
        "key": "give token=, or set the vendor's environment variable",
        "connection": "close the other one",
        "subscription": "see subscribe=",
    }[what]
    return SourceError(f"the server refuses the {what}: {text}", where=f"at {where}", hint=hint, status=status)


def _text(words: Any) -> str:
    return msgspec.json.encode(words).decode()


def shown(url: str) -> str:
    """A URL without what may be secret in it: user, password, query."""
    found = urlsplit(url)
    port = f":{found.port}" if found.port else ""
    return f"{found.scheme}://{found.hostname or ''}{port}{found.path}"


def is_loopback(host: str) -> bool:
    """Whether only this machine is meant."""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def dialect_of(
    name: str, url: str, token: str | tuple[str, str] | None, subscribe: Any, hello: Sequence[Any], path: str | None,
    headers: Mapping[str, str],
) -> Dialect:  # fmt: skip
    """The dialect of a name.   Raises  UsageError."""
    where = shown(url)
    if name not in ("massive", "polygon", "alpaca", "json"):
        raise UsageError(
            expected="one of 'massive', 'polygon', 'alpaca', 'json'", got=repr(name), where="in WebSocket, dialect"
        )
    if name == "json":
        if subscribe:
            raise UsageError("subscribe= has no meaning with dialect='json'", hint="give hello=[{...}]")
        return Json(hello, path, headers)
    if hello or path:
        raise UsageError(f"hello= and path= are for dialect='json', not {name!r}", where="in WebSocket")
    key = _key(name, url, token)
    parts = [subscribe] if isinstance(subscribe, str) else subscribe
    if not parts:
        raise UsageError(expected='channels such as subscribe="AM.*"', got="none", where="in WebSocket")
    made: Dialect
    if name == "alpaca":
        made = Alpaca(key, _lists(parts), where)
    else:
        if isinstance(parts, Mapping):
            raise UsageError(expected="channels such as 'AM.*'", got="a dict", where="in WebSocket, subscribe")
        made = Massive(key, _split(parts), where)
    made.headers |= headers
    return made


def _split(parts: Sequence[str]) -> list[str]:
    return [text.strip() for part in parts for text in part.split(",") if text.strip()]


def _lists(parts: Any) -> dict[str, list[str]]:
    """Alpaca's lists of symbols by channel, of a dict, or of "bars.*,trades.AAPL" (AM, T, Q will do too)."""
    events = {"AM": "bars", "T": "trades", "Q": "quotes"}
    if isinstance(parts, Mapping):
        found = {name: [v] if isinstance(v, str) else list(v) for name, v in parts.items()}
    else:
        found = {}
        for text in _split(parts):
            name, _, symbol = text.partition(".")
            found.setdefault(events.get(name, name), []).append(symbol or "*")
    for name in found:
        if name not in CHANNELS:
            raise UsageError(
                expected=f"a channel of {', '.join(CHANNELS)}", got=repr(name), where="in WebSocket, subscribe"
            )
    return found


def _key(name: str, url: str, token: str | tuple[str, str] | None) -> str:
    """The key: as given, or of the environment, where it goes to the vendor, or to this machine."""
    if isinstance(token, tuple):
        return ":".join(token)
    if token is not None:
        return token
    found = urlsplit(url)
    host, env = found.hostname or "", os.environ.get
    theirs = _HOSTS["alpaca" if name == "alpaca" else "massive"]
    is_theirs = found.scheme == "wss" and any(host == h or host.endswith("." + h) for h in theirs)
    if not is_theirs and not is_loopback(host):
        # A vendor's key is not for everybody whose address stands there.
        return env("PENSTOCK_TOKEN", "")
    if name == "alpaca":
        key, secret = env("APCA_API_KEY_ID"), env("APCA_API_SECRET_KEY")
        return f"{key}:{secret}" if key and secret else env("PENSTOCK_TOKEN", "")
    names = ["MASSIVE_API_KEY", "POLYGON_API_KEY"]
    for variable in [*(names if name == "massive" else reversed(names)), "PENSTOCK_TOKEN"]:
        if env(variable):
            return os.environ[variable]
    return ""
