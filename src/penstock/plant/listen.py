"""The client's half of the conversation, as a state machine without sockets: what to say, and what came.

It knows how far each stream has come (`positions`), so that a new connection goes on behind the last message: no gap
and no duplicate. A server that knows only the market's own words gives nothing to go on from: it starts anew.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import pyarrow as pa

from penstock.errors import PenstockWarning, SourceError
from penstock.plant import arrow
from penstock.plant.messages import OWN

__all__ = ["Listener", "Received"]


@dataclass(frozen=True, slots=True)
class Received:
    """One frame: messages (dicts, or a record batch), and what to answer, if anything.

    marks   for each message the stream it is of and the offset after it; of a batch, one for all
    """

    messages: list[dict[str, Any]] | pa.RecordBatch
    marks: list[tuple[str, int]]
    reply: str | None = None


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_MISSED: Final = ("slow_consumer", "conflated", "unreadable")


class Listener:
    """One subscription, through any number of connections.

    Takes   url: for messages; patterns: a comma list; key; since: None, "start", "end", a time as text, an offset, or
            offsets by stream; options: further words of the subscribe, such as policy and conflate; keep_seq: leave
            `seq` and `stream` in the messages; is_plain: say nothing but the market's own words; on_status: called
            with each status, instead of a warning for those that say that something was missed.
    """

    def __init__(
        self,
        url: str,
        patterns: str,
        *,
        key: str = "",
        since: Any = None,
        options: dict[str, Any] | None = None,
        keep_seq: bool = False,
        is_plain: bool = False,
        on_status: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        self._url, self._patterns, self._key = url, patterns, key
        self._since, self._options = since, options or {}
        self._keep_seq, self._is_plain, self._on_status = keep_seq, is_plain, on_status
        self.positions: dict[str, int] = {}  # the offset after the last message of each stream
        self.begins: dict[str, int] = {}  # the offset of the first
        self.is_subscribed = False
        self.messages = self.connections = 0

    def begin(self) -> str:
        """There is a new connection: what to say first."""
        self.is_subscribed = False
        self.connections += 1
        # The greeting is not waited for: some servers have none.
        return _text({"action": "auth", "params": self._key})

    def received(self, data: str | bytes) -> Received:
        """The messages of a frame, and what to say now.

        Raises  SourceError when the server refuses the key or a channel, or says what is no message.
        """
        if isinstance(data, bytes):
            return self._batch(data)
        try:
            found = _decode(data)
        except msgspec.DecodeError as error:
            raise self._error(f"a frame that is no JSON ({error})") from None
        if isinstance(found, dict):
            found = [found]
        reply: str | None = None
        messages: list[dict[str, Any]] = []
        marks: list[tuple[str, int]] = []
        for message in found if isinstance(found, list) else [found]:
            if not isinstance(message, dict):
                raise self._error(f"a message that is no object: {message!r:.80}")
            if message.get("ev") == "status":
                reply = self._status(message) or reply
            elif self._is_new(message, marks):
                messages.append(message)
        self.messages += len(messages)
        return Received(messages, marks, reply)

    def _is_new(self, message: dict[str, Any], marks: list[tuple[str, int]]) -> bool:
        """Whether this message did not come yet; its `seq` and `stream` are noted, and taken off."""
        if self._is_plain:
            return True
        stream, seq = message.get("stream"), message.get("seq")
        if type(stream) is not str or type(seq) is not int:
            return True
        if seq < self.positions.get(stream, 0):
            return False
        self.positions[stream] = seq + 1
        marks.append((stream, seq + 1))
        if not self._keep_seq:
            del message["stream"], message["seq"]
            for name in OWN:
                if name + "_" in message:  # the message's own field of that name
                    message[name] = message.pop(name + "_")
        return True

    def _batch(self, data: bytes) -> Received:
        try:
            batch = arrow.decode(data)
            seq = batch.column(arrow.SEQ).to_numpy()
            stream = (batch.schema.metadata or {})[b"penstock.stream"].decode()
        except (pa.ArrowInvalid, KeyError, StopIteration) as error:
            raise self._error(f"a binary frame that is no batch ({error})") from None
        begin = int((seq < self.positions.get(stream, 0)).sum())  # offsets of a stream only grow
        if len(seq):
            self.positions[stream] = max(self.positions.get(stream, 0), int(seq[-1]) + 1)
        self.messages += len(seq) - begin
        return Received(batch.slice(begin) if begin else batch, [(stream, self.positions.get(stream, 0))])

    def _status(self, message: dict[str, Any]) -> str | None:
        kind, text = message.get("status"), message.get("message", "")
        if self._on_status is not None:
            self._on_status(message)
        if kind == "auth_success":
            return self._subscribe()
        if kind == "auth_failed":
            raise SourceError(
                f"the plant refuses the key: {text}",
                where=f"at {self._url}",
                hint="give token=, or set PENSTOCK_TOKEN",
                status=kind,
            )
        if kind == "success":
            self.is_subscribed = True
            for stream, begin in (message.get("streams") or {}).items():
                self.positions.setdefault(stream, begin)
                self.begins.setdefault(stream, begin)
        elif kind in ("error", "max_connections"):
            raise SourceError(f"the plant says: {text}", where=f"at {self._url}", status=kind)
        elif kind in _MISSED and self._on_status is None:
            warnings.warn(f"{text} - at {self._url}", PenstockWarning, stacklevel=2)
        return None

    def _subscribe(self) -> str:
        words: dict[str, Any] = {"action": "subscribe", "params": self._patterns}
        if not self._is_plain:
            words |= {"seq": True, **self._options}
            if self.positions:
                # Streams that were not there yet are new since then: all of them was missed.
                words["since"] = {**self.positions, "*": 0}
                words.pop("snapshot", None)
            elif self._since is not None:
                words["since"] = self._since
        return _text(words)

    def _error(self, got: str) -> SourceError:
        return SourceError(expected="messages of a plant", got=got, where=f"at {self._url}")


def _text(words: dict[str, Any]) -> str:
    return _encode(words).decode()
