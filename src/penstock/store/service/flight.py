"""Flight's calls over a desk: who may make them, what they answer, and errors that arrive as what they are.

do_get     a ticket (path, or JSON of `wire.Read` or `wire.Query`) → its frame, a piece after the other
do_put     a descriptor (path, or JSON of `wire.Put`) and record batches; each is durable when its answer comes
do_action  stats, health, ls, evict, drop, create, query, maintain, last_origin → JSON
list_flights, get_flight_info, get_schema: tables and keys with their columns
"""

from __future__ import annotations

import base64
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.flight as fl

from penstock.errors import KeyNotFound, PenstockError, StoreError, UnknownStream, UsageError
from penstock.store.service import wire
from penstock.store.service.desk import Desk
from penstock.store.service.gate import Gate
from penstock.store.service.sizes import pieces
from penstock.tokens import Check

__all__ = ["Calls", "middleware"]

_LOG: Final = logging.getLogger("penstock.store.server")
_AT_ONCE: Final = 4  # messages that are taken in together

_ACTIONS: Final = {
    "stats": 'numbers: {"level": 0, 1 or 2}, or the number alone',
    "health": "whether all is well, and what is not",
    "ls": 'tables or keys below {"prefix": …}',
    "evict": 'let frames go: {"path": …}, all by default',
    "drop": 'remove the table or key {"name": …}',
    "create": "make a table: {name, schema, key, time, identity, rows, partition, durability}",
    "query": 'the answer of {"sql": …} as an Arrow stream',
    "maintain": 'roll and compact {"path": …} now; progress as it goes',
    "last_origin": 'how far the source {"path": …, "who": …} has come',
}


# -- who may


class _Auth(fl.ServerMiddlewareFactory):  # type: ignore[misc]
    def __init__(self, check: Check) -> None:
        self._check = check

    def start_call(self, info: Any, headers: dict[str, list[Any]]) -> None:
        given = headers.get("authorization") or [""]
        text = given[0] if isinstance(given[0], str) else given[0].decode("utf-8", "replace")
        scheme, _, key = text.partition(" ")
        try:
            if scheme.lower() == "bearer" and key and self._check(key) is not None:
                return
            error = StoreError(
                expected="a token that the server knows",
                got="none" if not text else "another",
                where="at the store's server",
                hint="give token=…; `penstock plant token add NAME` on the server's machine makes one",
            )
        except Exception as failure:  # a file of tokens that cannot be read lets nobody in
            _LOG.error("tokens cannot be looked at: %s", failure)
            error = StoreError(
                "the server cannot look at its tokens", where="at the store's server", hint="see its log"
            )
        raise fl.FlightUnauthenticatedError(str(error), wire.encode_error(error))


def middleware(check: Check | None) -> dict[str, Any]:
    """What looks at each call's token; nothing without `check`."""
    return {} if check is None else {"auth": _Auth(check)}


# -- the verbs


@dataclass(frozen=True, slots=True)
class _Told:
    """Errors on their way to a client: ours as they are, others as a failure that is written to the log."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, fl.FlightError) or not isinstance(error, Exception):
            return
        if isinstance(error, UnknownStream):  # what the caller knows is the table that was behind it
            error = KeyNotFound("no such table any more", hint="it was dropped meanwhile", near=[])
        if not isinstance(error, PenstockError):
            _LOG.error("a request failed", exc_info=error)
            failed = StoreError(f"the server failed: {type(error).__name__}: {error}", where="at the store's server")
            failed.hint = "its log says where"
            raise fl.FlightServerError(str(failed)[:300], wire.encode_error(failed)) from error
        raise fl.FlightServerError(str(error)[:300], wire.encode_error(error)) from error


_TOLD: Final = _Told()


class Calls(fl.FlightServerBase):  # type: ignore[misc]
    """Flight's callbacks; each runs in a thread of gRPC's."""

    def __init__(
        self, desk: Desk, max_message: int, location: str, middleware: dict[str, Any], options: dict[str, Any]
    ) -> None:
        super().__init__(location, middleware=middleware, **options)
        self._desk, self._max_message, self._gate = desk, max_message, Gate(_AT_ONCE)

    # -- frames out

    def do_get(self, context: Any, ticket: fl.Ticket) -> fl.FlightDataStream:
        """A frame, in pieces; its memory counts as used until the last one is sent or the client is gone."""
        with _TOLD:
            wanted = wire.ticket(ticket.ticket)
            if isinstance(wanted, wire.Query):
                return _sent(self._desk.lend_answer(wanted.sql, wanted.start, wanted.end, wanted.as_of))
            options: dict[str, Any] = {
                "as_of": wanted.as_of,
                "revisions": wanted.revisions,
                "on_corrupt": wanted.on_corrupt,
            }
            lent = self._desk.lend(wanted.path, wanted.start, wanted.end, wanted.columns, **options)
            return _sent(lent)

    # -- rows in

    def do_put(self, context: Any, descriptor: fl.FlightDescriptor, reader: Any, writer: Any) -> None:
        """Each record batch is a write; its answer, {first, stop} or {} when it was there, says it is durable."""
        with _TOLD:
            put, place, stream = _put_of(descriptor), self._gate.place(), iter(reader)
            position = put.position
            while True:
                place.wait()
                try:
                    chunk = next(stream, None)
                    place.came()
                    if chunk is None:
                        return
                    if chunk.data is None:
                        continue
                    found = self._take(put, position, chunk.data)
                finally:
                    chunk = None  # the message, with its memory, before its place
                    place.leave()
                position += 1
                answer = {} if found is None else {"first": found.start, "stop": found.stop}
                writer.write(msgspec.json.encode(answer))
                self._desk.cool(put.path)

    def _take(self, put: wire.Put, position: int, batch: pa.RecordBatch) -> range | None:
        if batch.nbytes > self._max_message:
            raise UsageError(
                expected=f"record batches of at most {self._max_message} bytes",
                got=f"{batch.nbytes} bytes",
                where=f"in a put to {put.path!r}",
                hint="send smaller ones",
            )
        origin = None if put.who is None else (put.who, position)
        return self._desk.write(put.path, pa.Table.from_batches([batch]), origin=origin, retry=put.retry)

    # -- looking

    def list_flights(self, context: Any, criteria: bytes) -> Iterator[fl.FlightInfo]:
        """Tables, or what lies below a prefix."""
        with _TOLD:
            for path in self._desk.ls(_text(criteria)):
                with suppress(KeyNotFound):  # dropped meanwhile
                    yield self._info(path)

    def get_flight_info(self, context: Any, descriptor: fl.FlightDescriptor) -> fl.FlightInfo:
        """Columns, and about how many bytes."""
        with _TOLD:
            return self._info(_path_of(descriptor))

    def get_schema(self, context: Any, descriptor: fl.FlightDescriptor) -> fl.SchemaResult:
        """Columns of a table."""
        with _TOLD:
            return fl.SchemaResult(self._desk.schema(_path_of(descriptor)))

    def _info(self, path: str) -> fl.FlightInfo:
        table, key = self._desk.store.split(path)
        size = self._desk.estimate(table, key)
        endpoint = fl.FlightEndpoint(wire.encode(wire.Read(path)), [])
        return fl.FlightInfo(table.schema, fl.FlightDescriptor.for_path(*path.split("/")), [endpoint], -1, size)

    def list_actions(self, context: Any) -> list[tuple[str, str]]:
        """Names of actions, with a word on each."""
        return list(_ACTIONS.items())

    def do_action(self, context: Any, action: fl.Action) -> Iterator[bytes]:
        """One of `_ACTIONS`; most answer with one JSON value."""
        with _TOLD:
            body = b"" if action.body is None else action.body.to_pybytes()
            act: Callable[[bytes], Iterator[bytes]] | None = (
                getattr(self, f"_do_{action.type}") if action.type in _ACTIONS else None
            )
            if act is None:
                raise UsageError(
                    expected=f"an action of {', '.join(_ACTIONS)}", got=repr(action.type[:60]), where="in do_action"
                )
            yield from act(body)

    def _do_stats(self, body: bytes) -> Iterator[bytes]:
        level = int(body) if body.isdigit() and len(body) < 4 else wire.decode(body, wire.Stats, "stats").level
        yield msgspec.json.encode(self._desk.stats(level))

    def _do_health(self, body: bytes) -> Iterator[bytes]:
        yield msgspec.json.encode(self._desk.health())

    def _do_ls(self, body: bytes) -> Iterator[bytes]:
        yield msgspec.json.encode(self._desk.ls(wire.decode(body, wire.List, "ls").prefix))

    def _do_evict(self, body: bytes) -> Iterator[bytes]:
        yield msgspec.json.encode(self._desk.evict(wire.decode(body, wire.Evict, "evict").path))

    def _do_drop(self, body: bytes) -> Iterator[bytes]:
        self._desk.drop(wire.decode(body, wire.Name, "drop").name)
        yield b"null"

    def _do_create(self, body: bytes) -> Iterator[bytes]:
        wanted = wire.decode(body, wire.Create, "create")
        options = {name: getattr(wanted, name) for name in wanted.__struct_fields__}
        try:
            schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(options.pop("schema"))))
        except (pa.ArrowException, ValueError, OSError) as error:
            raise UsageError(expected="an Arrow schema as base64", got=str(error)[:100], where="in create") from error
        self._desk.create(options.pop("name"), schema, **options)
        yield b"null"

    def _do_query(self, body: bytes) -> Iterator[bytes]:
        wanted = wire.decode(body, wire.Query, "query")
        found = self._desk.sql(wanted.sql, start=wanted.start, end=wanted.end, as_of=wanted.as_of)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, found.schema) as writer:
            writer.write_table(found)
        yield sink.getvalue().to_pybytes()

    def _do_last_origin(self, body: bytes) -> Iterator[bytes]:
        wanted = wire.decode(body, wire.Origin, "last_origin")
        yield msgspec.json.encode(self._desk.last_origin(wanted.path, wanted.who))

    def _do_maintain(self, body: bytes) -> Iterator[bytes]:
        wanted = wire.decode(body, wire.Maintain, "maintain")
        told: queue.SimpleQueue[bytes | BaseException | None] = queue.SimpleQueue()

        def work() -> None:
            try:
                done = self._desk.maintain(
                    wanted.path,
                    force=wanted.force,
                    progress=lambda rows, total: told.put(msgspec.json.encode({"rows": rows, "total": total})),
                    failed=lambda table, error: told.put(msgspec.json.encode({"table": table, "failed": str(error)})),
                )
                told.put(msgspec.json.encode({"done": done}))
            except Exception as error:
                told.put(error)
            told.put(None)

        threading.Thread(target=work, name="penstock-store-maintain", daemon=True).start()
        while (item := told.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item


def _sent(lent: AbstractContextManager[pa.Table]) -> fl.FlightDataStream:
    """A frame as a stream that gives it back at its end, and when the client goes."""
    frame = lent.__enter__()

    def out() -> Iterator[pa.RecordBatch]:
        try:
            yield first
            yield from rest
        finally:
            lent.__exit__(None, None, None)

    try:
        rest = pieces(frame)
        first = next(rest, None) or pa.RecordBatch.from_pylist([], schema=frame.schema)
        stream = out()
        return fl.GeneratorStream(frame.schema, _Started(stream))
    except BaseException:
        lent.__exit__(None, None, None)
        raise


class _Started:
    """A generator that is ended with this object also when it never began: only one that has begun runs `finally`."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._ahead: list[pa.RecordBatch] = [next(batches)]

    def __iter__(self) -> _Started:
        return self

    def __next__(self) -> pa.RecordBatch:
        return self._ahead.pop() if self._ahead else next(self._batches)


def _text(data: bytes) -> str:
    if len(data) > wire.REQUEST_BYTES:
        raise UsageError(expected=f"at most {wire.REQUEST_BYTES} bytes", got=f"{len(data)} bytes", where="in a request")
    try:
        return data.decode()
    except UnicodeError:
        raise UsageError(expected="a path in UTF-8", got=repr(data[:60]), where="in a request") from None


def _parts(names: Sequence[bytes]) -> str:
    return _text(b"/".join(names))


def _path_of(descriptor: fl.FlightDescriptor) -> str:
    if descriptor.descriptor_type == fl.DescriptorType.PATH:
        return _parts(descriptor.path)
    if descriptor.descriptor_type == fl.DescriptorType.CMD:
        wanted = wire.ticket(descriptor.command)
        if isinstance(wanted, wire.Read):
            return wanted.path
    raise UsageError(expected="a path", got="another descriptor", where="in a request")


def _put_of(descriptor: fl.FlightDescriptor) -> wire.Put:
    if descriptor.descriptor_type == fl.DescriptorType.PATH:
        return wire.Put(_parts(descriptor.path))
    if descriptor.descriptor_type == fl.DescriptorType.CMD:
        return wire.decode(descriptor.command, wire.Put, "a put")
    raise UsageError(expected="a path or JSON", got="another descriptor", where="in a put")
