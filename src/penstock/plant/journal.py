"""What a handler node keeps: the arrays its handler was given, and what came of each, exactly once.

    NAME          messages, one row each
    NAME.input    an array of messages per row, as the handler saw it, and how far the upstream's streams had come
    NAME.errors   a failure per row
    others        what the handler published with `ps_publish`

Of the arrays those that were handled are dropped beyond a GiB, failures beyond 256 MiB, unless the retention of these
streams was set to something else.

Each append says from which array it was made, in the same commit. A node that is killed at any instant hands the array
it was at to the handler again, and appends only what is not there yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from penstock.errors import RecordError, StreamError, TypeMismatch, UsageError
from penstock.hub import Hub
from penstock.log import Stream
from penstock.log.positions import Position
from penstock.plant.handlers import Failure, Outcome
from penstock.records import decode_document, encode_document

__all__ = ["Array", "Journal", "arrays_of"]

_GROUP: Final = "handler"
_MADE_BY: Final = "a handler"
_ARRAY_BYTES: Final = 256 << 20
_INPUT: Final = {"bytes": 1 << 30, "until": _GROUP}
_ERRORS: Final = {"bytes": 256 << 20}
"""What is kept unless somebody has said otherwise: of the arrays those that wait, and the last GiB of the others."""


@dataclass(frozen=True, slots=True)
class Array:
    """Messages that the handler gets in one call, and their number in the journal."""

    number: int
    messages: list[dict[str, Any]]


class Journal:
    """The streams of one node.

    Takes   hub: where they are; name: of the stream of messages; upstream: where the arrays come from. Offsets of
            another upstream mean nothing: after one, `since` is empty.
    Raises  GroupBusy when another node of that name runs on this hub; UsageError when NAME holds what a node has not
            made.

    >>> journal = Journal(hub, "avg", upstream="ws://localhost:5000")
    """

    def __init__(self, hub: Hub, name: str, *, upstream: str) -> None:
        self.hub, self.name, self.upstream = hub, name, upstream
        inputs = f"{name}.input"
        output = hub.streams.get(name) if hub.streams.exists(name) else None
        if output is not None and output.next_offset and output.attributes.get("made_by") != _MADE_BY:
            raise UsageError(
                expected="the stream of a handler, or none",
                got=f"stream {name!r}, which has rows of something else",
                where=f"in hub {hub.path}",
                hint="give another name with --into",
            )
        self.input = _made(hub, inputs, _INPUT, max_row_bytes=_ARRAY_BYTES)
        self.output = hub.streams.get(name, attributes={"made_by": _MADE_BY})
        self._errors = _made(hub, f"{name}.errors", _ERRORS)
        self._group = self.input.group(_GROUP, start="start")
        # With its time: after a new beginning array 3 is not the array 3 of before.
        self._who = f"{inputs}@{self.input.metadata().created_ns}"
        self._reserved = {name, self.input.name, self._errors.name}
        self._streams: dict[str, Stream] = {}
        self._done: dict[str, int] = {}  # of each stream, the number after the last array it has something of
        self.since: dict[str, int] = self._known()
        self.messages = self.failures = 0

    @property
    def handled(self) -> int:
        """Number of the next array to be handed to the handler."""
        return self._group.position.offset

    @property
    def waiting(self) -> int:
        """Arrays that came and were not handed over yet."""
        return self.input.next_offset - self.handled

    def _known(self) -> dict[str, int]:
        last = self.input.next_offset - 1
        if last < self.input.first_offset:
            return {}
        row = decode_document(self.input.read(last, last + 1)["document"][0].as_py())
        return dict(row["since"]) if row["upstream"] == self.upstream else {}

    def take(self, messages: Sequence[dict[str, Any]], since: Mapping[str, int]) -> list[Failure]:
        """Keep an array, and from where on the upstream is to be asked after it. An empty one is never handed over.

        Returns why a message was left out: it cannot be kept, since it is nested too deeply.
        """
        self.since = dict(since)
        row = {"messages": list(messages), "since": self.since, "upstream": self.upstream}
        try:
            self.input.append(row)
            return []
        except TypeMismatch:
            bad = {at: _unfit(message) for at, message in enumerate(messages)}
        failures = [Failure("input", text) for text in bad.values() if text]
        self.input.append({**row, "messages": [m for at, m in enumerate(messages) if not bad[at]]})
        rows = [{"array": self.input.next_offset - 1, "kind": f.kind, "text": f.text, "trace": ""} for f in failures]
        self._append(self._errors, rows, None)
        self.failures += len(failures)
        return failures

    def pending(self) -> Iterator[Array | None]:
        """Arrays not handled yet, for ever; None whenever there is none now."""
        reader = self.input.reader(self.handled)
        while True:
            chunk = reader.poll(16)
            if chunk is None:
                yield None
                continue
            for number, text in enumerate(chunk.batch.column(0).to_pylist(), chunk.first):
                yield Array(number, decode_document(text)["messages"])

    def publish(self, published: Sequence[tuple[str, list[dict[str, Any]]]]) -> list[Failure]:
        """Append what was published outside of arrays: in the answer to a question."""
        return [f for name, rows in _merged(published).items() for f in self._publish(name, rows, None)]

    def before(self, count: int) -> Iterator[Array]:
        """The last `count` arrays that were handled."""
        stop = self.handled
        first = max(self.input.first_offset, stop - count)
        for number in range(first, stop):
            text = self.input.read(number, number + 1)["document"][0].as_py()
            yield Array(number, decode_document(text)["messages"])

    def settle(self, number: int, outcome: Outcome | None) -> list[Failure]:
        """Append what came of an array, and go on to the next; returns what could not be done.

        A message that does not fit its stream is a failure as any other, and the rest is kept.
        Raises  StorageError when nothing can be written: then the array is handled again.
        """
        failures = [] if outcome is None or outcome.failure is None else [outcome.failure]
        if outcome is not None:
            for name, rows in _merged(outcome.published).items():
                failures += self._publish(name, rows, number)
            # Clients would take it for the plant's own word.
            messages = [message for message in outcome.messages if message.get("ev") != "status"]
            if len(messages) < len(outcome.messages):
                failures.append(Failure("result", "expected another ev than 'status', which is the plant's own"))
            if messages:
                failures += self._append(self.output, messages, number)
        if failures:
            rows = [
                {"array": number, "kind": failure.kind, "text": failure.text, "trace": failure.trace}
                for failure in failures
            ]
            self._append(self._errors, rows, number)
            self.failures += len(failures)
        self._group.commit(Position(number + 1, low=number + 1))
        return failures

    def _publish(self, name: str, rows: list[dict[str, Any]], number: int | None) -> list[Failure]:
        if name in self._reserved:
            return [Failure("publish", f"expected another stream than {name!r}: return the messages instead")]
        try:
            stream = self._streams.get(name)
            if stream is None:
                stream = self._streams[name] = self.hub.streams.get(name)
        except (UsageError, StreamError) as error:
            return [Failure("publish", str(error))]
        return self._append(stream, rows, number)

    def _append(self, stream: Stream, rows: list[dict[str, Any]], number: int | None) -> list[Failure]:
        done = self._done.get(stream.name)
        if done is None:
            last = stream.last_origin(self._who)
            done = self._done[stream.name] = 0 if last is None else last[0] + 1
        if number is not None and number < done:
            return []  # it is there: an earlier run was killed between this and the end of `settle`
        try:
            stream.append(rows, origin=None if number is None else (self._who, number))
        except (RecordError, StreamError) as error:
            return [Failure("publish" if stream is not self.output else "result", str(error))]
        if number is not None:
            self._done[stream.name] = number + 1
        if stream is self.output:
            self.messages += len(rows)
        return []

    @property
    def published(self) -> list[str]:
        """Streams that the handler has published to since the start."""
        return list(self._streams)

    def close(self) -> None:
        """Give the name back."""
        self._group.close()


def _made(hub: Hub, name: str, retention: dict[str, Any], **options: Any) -> Stream:
    """The stream; it has the retention if it is new, else its own."""
    if not hub.streams.exists(name):
        options["retention"] = retention
    stream: Stream = hub.streams.get(name, **options)
    return stream


def _unfit(message: dict[str, Any]) -> str:
    """Why a message cannot stand in an array; "" if it can."""
    try:
        encode_document({"messages": [message]})
    except TypeMismatch as error:
        return f"a message of the upstream is left out: {error}"
    return ""


def _merged(published: Sequence[tuple[str, list[dict[str, Any]]]]) -> dict[str, list[dict[str, Any]]]:
    merged: dict[str, list[dict[str, Any]]] = {}
    for name, rows in published:
        if rows:
            merged.setdefault(name, []).extend(rows)
    return merged


def arrays_of(stream: Stream, start: Any = None, stop: Any = None) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(offset, messages) of a stream's history, as a handler gets them.

    Of a node's `NAME.input` they are the arrays it got; of any other stream, what was appended at once.
    """
    from penstock.plant.feed import Feed

    feed = Feed(stream)
    for chunk in stream.chunks(start, stop):
        if stream.is_document and stream.name.endswith(".input"):
            for offset, text in enumerate(chunk.batch.column(0).to_pylist(), chunk.first):
                yield offset, decode_document(text)["messages"]
            continue
        burst = feed.burst(chunk)
        made = [msgspec.json.decode(text) for text in burst.messages(False)]
        for first, after in _appends(chunk.created.tolist()):
            yield chunk.first + first, made[first:after]


def _appends(created: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Rows of one append have one time."""
    begin = 0
    for at in range(1, len(created) + 1):
        if at == len(created) or created[at] != created[begin]:
            yield begin, at
            begin = at
