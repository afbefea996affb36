"""Messages of a server on their way into streams: which stream, as what, what does not fit, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow as pa

from penstock.connect.base import Target
from penstock.connect.dialects import Dialect
from penstock.connect.market import Kind, Message
from penstock.connect.rows import row_pieces
from penstock.connect.shape import Bad, Shape
from penstock.errors import SourceError, UsageError
from penstock.records import is_document

__all__ = ["SKIP_MESSAGES", "Intake"]

SKIP_MESSAGES: Final = 'set on_bad="skip" to drop such messages'
_OTHER: Final = f"give a stream for each kind, or set documents=True; {SKIP_MESSAGES}"
_MAX_EVENTS: Final = 1000


@dataclass(slots=True)
class _Held:
    """Messages that wait to be appended together: of one target, and of one stream of a plant."""

    target: Target
    remote: str | None
    kind: Kind | None
    is_raw: bool
    schema: pa.Schema | None
    rows: list[Message]
    numbers: list[int]
    following: list[int]


class Intake:
    """Holds messages and appends them, those of one stream together.

    Takes   name: by which streams remember how far it has come; dialect; documents: messages stay as they are; schema:
            of all rows, or None; shaping: of `Shape`; on_bad, errors: as `WebSocket` takes them.

    number          messages so far;  rows, batches  appended;  skipped  messages that did not fit
    """

    def __init__(
        self,
        name: str,
        dialect: Dialect,
        *,
        documents: bool,
        schema: pa.Schema | None,
        shaping: dict[str, Any],
        on_bad: str,
        errors: Any,
    ) -> None:
        self._name, self._dialect, self._documents, self._schema = name, dialect, documents, schema
        self._shaping, self._time = shaping, shaping["time"]
        self._on_bad, self._errors = on_bad, errors
        self._shapes: dict[int, Shape] = {}
        self.number = self.rows = self.batches = self.skipped = 0

    def open(self, targets: dict[str, Target]) -> None:
        """Begin anew, with streams by event, kind or "*".   Raises  UsageError for what cannot go into one stream."""
        self._targets = targets
        self._ways: dict[str, tuple[Target, Kind | None, bool, pa.Schema | None] | None] = {}
        self._kinds: dict[int, str] = {}
        self._held: dict[tuple[int, str | None], _Held] = {}
        self._positions: dict[tuple[int, str], int] = {}
        self.number = self.rows = self.batches = self.skipped = 0
        if not targets:
            raise UsageError(expected="a stream, or streams by event or kind", got="none", where="in WebSocket.stream")
        wanted: dict[str, str] = {}
        for event in self._dialect.events:
            kind = self._dialect.kinds.get(event)
            if kind is not None and event not in targets and kind.name not in targets:
                wanted[kind.name] = event
        if len(wanted) > 1 and not self._documents and "*" in targets:
            raise UsageError(
                f"{' and '.join(sorted(wanted))} do not go into one stream",
                where="in WebSocket.stream",
                hint='give {"bars": …, "trades": …}, or set documents=True',
            )

    def _way(self, event: str) -> tuple[Target, Kind | None, bool, pa.Schema | None] | None:
        """Where messages of an event go, and as what; None: nowhere."""
        kind = self._dialect.kinds.get(event)
        target = self._targets.get(event)
        if target is None and kind is not None:
            target = self._targets.get(kind.name)
        if target is None:
            target = self._targets.get("*")
        if target is None:
            return None
        declared = getattr(target, "schema", None)
        if declared is not None and is_document(declared):
            declared = None
        schema = self._schema or declared
        if self._documents or (kind is None and schema is None and not self._dialect.kinds):
            return target, None, True, None
        if kind is None and self._dialect.kinds:
            return target, None, False, None  # neither a document nor a row
        first = self._kinds.setdefault(id(target), kind.name if kind is not None else "")
        if kind is not None and first != kind.name:
            return target, None, False, None
        return target, kind, False, schema or (kind.schema if kind is not None else None)

    def hold(self, messages: list[Message], now: int, *, is_plant: bool) -> None:
        """Messages to what is appended next; those of a plant say where they stand there."""
        dialect = self._dialect
        for message in messages:
            number, self.number = self.number, self.number + 1
            remote: str | None = None
            following = 0
            if is_plant:
                remote, seq = message.pop("stream", None), message.pop("seq", None)
                if type(remote) is not str or type(seq) is not int:
                    continue  # it came before the plant knew from where on we want it: it comes again
                following = seq + 1
                for name in ("stream", "seq"):
                    if name + "_" in message:  # the message's own field of that name
                        message[name] = message.pop(name + "_")
            event = dialect.event(message)
            if event not in self._ways:
                if len(self._ways) >= _MAX_EVENTS:
                    self._ways.clear()
                self._ways[event] = self._way(event)
            way = self._ways[event]
            if way is None:
                continue
            target, kind, is_raw, schema = way
            if remote is not None:
                if following <= self._positions.get((id(target), remote), 0):
                    continue
                self._positions[id(target), remote] = following
            if not is_raw and schema is None:
                known = ", ".join(dialect.kinds)
                got = f"{event!r}" if event not in dialect.kinds else f"{event!r} beside {self._kinds[id(target)]}"
                wrong = dialect.document(message)
                self.bad([Bad(self._name, number, None, None, f"a message of {known}", got, _OTHER, wrong)])
                continue
            held = self._held.get((id(target), remote))
            if held is None:
                held = self._held[id(target), remote] = _Held(target, remote, kind, is_raw, schema, [], [], [])
            if is_raw:
                held.rows.append(dialect.document(message))
            else:
                held.rows.append(message if kind is None else kind.row(message, now))
            held.numbers.append(number)
            held.following.append(following)

    def flush(self) -> None:
        """Append what is held."""
        all_held, self._held = list(self._held.values()), {}
        stop: SourceError | None = None
        for held in all_held:
            data, bad, cut = self._made(held)
            count = len(data) if isinstance(data, list) else data.num_rows
            if count:
                origin = None
                if held.remote is not None:
                    origin = (self._who(held.remote), held.following[-1 if cut is None else count - 1])
                held.target.append(data, origin=origin)
                self.rows += count
                self.batches += 1
            stop = stop or cut
            if bad:
                self.bad(bad)
        if stop is not None:
            raise stop

    def _made(self, held: _Held) -> tuple[Any, list[Bad], SourceError | None]:
        """What is held, as the stream takes it; what does not fit; and the error, with on_bad="stop"."""
        if held.is_raw:
            return held.rows, [], None
        shape = self._shapes.get(id(held.schema))
        if shape is None:
            shape = self._shapes[id(held.schema)] = Shape(schema=held.schema, **self._shaping)
        piece = next(row_pieces(held.rows, len(held.rows), shape, time=self._time, source=self._name))
        if not piece.bad:
            return piece.batch, [], None
        if self._on_bad == "skip":
            return piece.batch, [replace(bad, row=held.numbers[bad.row]) for bad in piece.bad], None
        first = piece.bad[0]
        good = int((piece.rows < first.row).sum())
        return piece.batch.slice(0, good), [], replace(first, row=held.numbers[first.row]).error()

    def bad(self, found: list[Bad]) -> None:
        """What does not fit: the end with on_bad="stop", else counted and reported."""
        if self._on_bad == "stop":
            self.flush()
            raise found[0].error()
        self.skipped += len(found)
        self.report([bad.document() for bad in found])

    def report(self, documents: list[dict[str, Any]]) -> None:
        """Documents for whoever takes the errors."""
        if self._errors is None:
            return
        (self._errors.append if hasattr(self._errors, "append") else self._errors)(documents)

    # -- how far it has come

    def _who(self, remote: str) -> str:
        return f"{self._name}#{remote}"

    def begins(self, begins: dict[str, int]) -> dict[str, int]:
        """From which offsets on a plant's streams are wanted: behind what was appended, else from now on."""
        found = {}
        for remote, begin in begins.items():
            ends = []
            for target in {id(t): t for t in self._targets.values()}.values():
                key = id(target), remote
                if key not in self._positions:
                    self._positions[key] = self._remembered(target, remote, begin)
                ends.append(self._positions[key])
            found[remote] = min(ends)
        return found

    def _remembered(self, target: Target, remote: str, begin: int) -> int:
        last = target.last_origin(self._who(remote))
        if last is not None:
            return last[0]
        attributes = getattr(target, "attributes", None)
        if not isinstance(attributes, dict):
            return begin
        # Where it began is kept too: a run that ends before its first row has begun nevertheless.
        known = dict(attributes.get("websocket") or {})
        if self._who(remote) not in known:
            known[self._who(remote)] = begin
            target.set_attributes({"websocket": known})  # type: ignore[attr-defined]
        return int(known[self._who(remote)])
