"""A store that is served elsewhere: `penstock.store.connect("grpc://localhost:8815")`, with the verbs of a store.

A call that finds no server tries again for a while, also over a restart. Writes carry a number, so that what was there
before the connection broke, or before the time was over, is not there twice.
"""

from __future__ import annotations

import base64
import os
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec
import pyarrow as pa
import pyarrow.flight as fl
import xxhash

from penstock.errors import FrameTooLarge, KeyNotFound, SourceError, StoreError, UsageError
from penstock.records import to_batches
from penstock.store.exchange import export
from penstock.store.frames import converted
from penstock.store.service import wire
from penstock.store.service.sizes import pieces
from penstock.store.table import Table
from penstock.store.wish import EVER, moment

__all__ = ["Client", "connect"]

T = TypeVar("T")
_SCHEMES: Final = {"grpc": "grpc+tcp", "grpc+tcp": "grpc+tcp", "grpc+tls": "grpc+tls", "grpcs": "grpc+tls"}
_AT_ONCE: Final = 16
_WRITTEN_BYTES: Final = 1 << 20  # of a message: a server holds each up to three times while it takes it in
_UNSURE: Final = 16
_NARROW_NS: Final = 60_000_000_000


def connect(
    uri: str = "grpc://127.0.0.1:8815",
    *,
    token: str | None = None,
    timeout: float = 60.0,
    patience: float = 10.0,
    ca: str | os.PathLike[str] | None = None,
) -> Client:
    """A client of a store's server. It connects at the first call.

    Takes   uri: "grpc://host:port", or "grpc+tls://…"; token: its key, by default $PENSTOCK_TOKEN;
            timeout: seconds that one call may take; patience: seconds to try again while no server answers;
            ca: a PEM file of certificates to trust, the system's by default.
    Raises  UsageError.

    >>> client = connect("grpc://localhost:8815", token="…")
    """
    return Client(uri, token=token, timeout=timeout, patience=patience, ca=ca)


class Client:
    """The verbs of a store, over the network. Threads may share one: reads run beside each other, writes in turn."""

    def __init__(
        self,
        uri: str,
        *,
        token: str | None = None,
        timeout: float = 60.0,
        patience: float = 10.0,
        ca: str | os.PathLike[str] | None = None,
    ) -> None:
        self.uri = uri
        self._location = _location(uri)
        for name, value in (("timeout", timeout), ("patience", patience)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
                raise UsageError(expected="seconds", got=repr(value), where=f"in {name}")
        self._timeout, self._patience = timeout, patience
        key = token if token is not None else os.environ.get("PENSTOCK_TOKEN")
        self._headers = [] if not key else [(b"authorization", f"Bearer {key}".encode())]
        self._endless = fl.FlightCallOptions(headers=self._headers)  # for what takes its time, and is not cut off
        self._roots = None if ca is None else _pem(ca)
        self._mutex = threading.Lock()
        self._flight: fl.FlightClient | None = None
        self._closed = False
        self._turn = threading.Lock()
        self._who, self._position = _somebody(), 0
        self._unsure: OrderedDict[bytes, tuple[str, int]] = OrderedDict()  # writes that failed, by what they wrote

    @property
    def name(self) -> str:
        """Where the store is."""
        return self.uri

    # -- one call

    def _open(self) -> fl.FlightClient:
        with self._mutex:
            if self._closed:
                raise UsageError(expected="a client that is open", got="a closed one", where=f"of {self.uri}")
            if self._flight is None:
                options: dict[str, Any] = {} if self._roots is None else {"tls_root_certs": self._roots}
                # A channel of its own: gRPC would share one, with its growing pauses after failures.
                options["generic_options"] = [("grpc.use_local_subchannel_pool", 1)]
                self._flight = fl.FlightClient(self._location, **options)
            return self._flight

    def _forget(self, flight: fl.FlightClient) -> None:
        """Take a new connection next time; calls of other threads may go on with this one."""
        with self._mutex:
            if self._flight is flight:
                self._flight = None

    def _call(
        self, act: Callable[[fl.FlightClient, fl.FlightCallOptions, bool], T], what: str, *, late: bool = False
    ) -> T:
        """`act(flight, options, again)`, and again while there is no server; errors as the ones the server had.

        Takes   late: again also when there was no answer in time.
        """
        until, pause, again = 0.0, 0.02, False
        while True:
            flight = self._open()
            try:
                return act(flight, fl.FlightCallOptions(timeout=self._timeout, headers=self._headers), again)
            except (fl.FlightUnavailableError, fl.FlightCancelledError) as error:  # none, or one that just ended
                self._forget(flight)
                until = until or time.monotonic() + self._patience
                if time.monotonic() + pause > until:
                    reason = str(error).split(". Detail")[0].split("\n")[0][:200]
                    raise SourceError(
                        f"no store's server answers: {reason}",
                        where=f"at {self.uri}",
                        hint="start one: penstock store serve",
                    ) from error
            except fl.FlightTimedOutError as error:
                self._forget(flight)
                until = until or time.monotonic() + self._patience
                if not late or time.monotonic() + pause > until:
                    hint = "write it again: what is there is not written twice" if late else "ask less"
                    raise SourceError(
                        f"no answer within {self._timeout:g} s",
                        where=f"to {what} of {self.uri}",
                        hint=f"{hint}, or give a longer timeout",
                    ) from error
            except (fl.FlightError, pa.ArrowException, OSError) as error:
                raise self._told(error, what) from error
            time.sleep(pause)
            pause, again = min(2 * pause, 0.5), True

    def _told(self, error: Exception, what: str) -> Exception:
        extra = getattr(error, "extra_info", None)
        if extra:
            return wire.decode_error(extra)
        text = str(error).split(". Detail")[0].split("\n")[0][:300]
        return StoreError(f"the server refused: {text}", where=f"in {what} of {self.uri}")

    def _act(self, name: str, request: Any) -> Any:
        def act(flight: fl.FlightClient, options: fl.FlightCallOptions, again: bool) -> Any:
            return [found.body.to_pybytes() for found in flight.do_action((name, wire.encode(request)), options)]

        (body,) = self._call(act, name)
        return msgspec.json.decode(body)

    # -- reading

    def read(
        self,
        path: str,
        start: Any = None,
        end: Any = None,
        columns: Sequence[str] | None = None,
        *,
        as_of: Any = None,
        revisions: bool = False,
        on_corrupt: str = "raise",
        to: str = "arrow",
    ) -> Any:
        """As `Store.read`. Raises FrameTooLarge for a frame over the server's memory, which it has not read."""
        names = [columns] if isinstance(columns, str) else columns if columns is None else list(columns)
        times = moment(start, "start"), moment(end, "end"), names, moment(as_of, "as_of")
        return converted(self._frame(wire.Read(_path(path), *times, revisions, on_corrupt)), to)

    def sql(self, query: str, *, start: Any = None, end: Any = None, as_of: Any = None, to: str = "arrow") -> Any:
        """As `Store.sql`, by duckdb, on the server."""
        times = moment(start, "start"), moment(end, "end"), moment(as_of, "as_of")
        return converted(self._frame(wire.Query(_path(query), *times)), to)

    def _frame(self, request: wire.Read | wire.Query) -> pa.Table:
        ticket = fl.Ticket(wire.encode(request))
        return self._call(lambda flight, options, again: flight.do_get(ticket, options).read_all(), "read")

    def scan(
        self,
        path: str,
        start: Any = None,
        end: Any = None,
        columns: Sequence[str] | None = None,
        *,
        as_of: Any = None,
        revisions: bool = False,
    ) -> Iterator[pa.Table]:
        """As `read`, in pieces that follow each other in time, each as long as the server's memory can hold.

        Edges   The pieces are read one after the other: give `as_of` to have all of them of one moment.
        """
        low, high = moment(start, "start"), moment(end, "end")
        todo = [(EVER[0] if low is None else low, EVER[1] if high is None else high)]
        while todo:
            low, high = todo.pop()
            try:
                found = self.read(path, low, high, columns, as_of=as_of, revisions=revisions)
            except FrameTooLarge:
                if high - low < _NARROW_NS:
                    raise
                middle = (low + high) // 2
                todo += [(middle, high), (low, middle)]
                continue
            if found.num_rows:
                yield found

    def export(
        self, path: str, file: str | os.PathLike[str], start: Any = None, end: Any = None, **options: Any
    ) -> int:
        """As `Store.export`: to a file of this machine, by `scan`."""
        return export(cast("Table", _Far(self, path)), None, file, start, end, **options)

    # -- writing

    def write(self, path: str, data: Any, *, origin: tuple[str, int] | None = None) -> int:
        """As `Store.write`; returns the rows written. When it returns, they survive a killed server.

        A frame goes in pieces of 1 MB, in their order; when the connection breaks, or no answer comes in time, it goes
        on after the last one that is there, so that each row is written once.
        Takes   origin: (source, position), all rows as one piece: one that is there is not written again.
        Edges   A write that has failed may be there, in part. The same rows, written to the same path by the same
                client again, are the same write: they go on where it stood.
        """
        batches = _batches(data, path)
        if origin is not None and len(batches) > 1:
            batches = pa.Table.from_batches(batches).combine_chunks().to_batches()
        if not batches:
            return 0
        with self._turn:
            who, first, again = self._number(path, batches) if origin is None else (*origin, True)
            try:
                for at in range(0, len(batches), _AT_ONCE):  # the timeout is for each of these
                    self._put(path, batches[at : at + _AT_ONCE], who, first + at, again)
            except BaseException:
                if origin is None:
                    self._leave(path, batches, who, first)
                raise
        return sum(batch.num_rows for batch in batches)

    def _number(self, path: str, batches: list[pa.RecordBatch]) -> tuple[str, int, bool]:
        """Under which name, from which number on, and whether they may be there."""
        if self._unsure and (found := self._unsure.pop(_digest(path, batches), None)) is not None:
            return (*found, True)
        first = self._position + 1
        self._position += len(batches)
        return self._who, first, False

    def _leave(self, path: str, batches: list[pa.RecordBatch], who: str, first: int) -> None:
        """Keep the numbers of a write that failed, and go on under another name: a server passes over what is before
        the last number it has of one.
        """
        self._unsure[_digest(path, batches)] = (who, first)
        while len(self._unsure) > _UNSURE:
            self._unsure.popitem(last=False)
        if who == self._who:
            self._who, self._position = _somebody(), 0

    def _put(self, path: str, batches: list[pa.RecordBatch], who: str, first: int, retry: bool) -> None:
        done = 0

        def act(flight: fl.FlightClient, options: fl.FlightCallOptions, again: bool) -> None:
            nonlocal done
            put = wire.Put(_path(path), who, first + done, retry or again)
            descriptor = fl.FlightDescriptor.for_command(wire.encode(put))
            writer, answers = flight.do_put(descriptor, batches[0].schema, options)
            try:
                for batch in batches[done:]:
                    writer.write_batch(batch)
                    if answers.read() is None:
                        break
                    done += 1
            finally:
                writer.close()  # tells the server's error, if it had one
            if done < len(batches):
                raise fl.FlightUnavailableError("the server ended the call")

        self._call(act, "write", late=True)

    def target(self, path: str) -> Target:
        """What sources of `penstock.connect` append to: `Dataset("bars.parquet").stream(client.target("daily"))`."""
        return Target(self, path)

    def create(
        self,
        name: str,
        schema: pa.Schema,
        *,
        key: str = "symbol",
        time: str = "ts_event",
        identity: Sequence[str] = (),
        rows: str = "latest",
        partition: str = "day",
        durability: str | None = None,
    ) -> None:
        """As `Store.create`."""
        text = base64.b64encode(schema.serialize().to_pybytes())
        self._act("create", wire.Create(_path(name), text, key, time, list(identity), rows, partition, durability))

    def drop(self, name: str) -> None:
        """As `Store.drop`. A key of a large table takes its time: nothing cuts that off."""

        def act(flight: fl.FlightClient, options: fl.FlightCallOptions, again: bool) -> None:
            try:
                list(flight.do_action(("drop", wire.encode(wire.Name(_path(name)))), self._endless))
            except fl.FlightServerError as error:
                if not (again and isinstance(self._told(error, "drop"), KeyNotFound)):  # then it was dropped before
                    raise

        self._call(act, "drop")

    def maintain(
        self,
        path: str | None = None,
        *,
        force: bool = True,
        progress: Callable[[int, int], None] | None = None,
        failed: Callable[[str, Exception], None] | None = None,
    ) -> dict[str, Any]:
        """As `Store.maintain`, by the server: what it did to each table, in JSON's types."""

        def act(flight: fl.FlightClient, options: fl.FlightCallOptions, again: bool) -> dict[str, Any]:
            done: dict[str, Any] = {}
            for found in flight.do_action(("maintain", wire.encode(wire.Maintain(path, force))), self._endless):
                told = msgspec.json.decode(found.body.to_pybytes())
                if "done" in told:
                    done = told["done"]
                elif "failed" in told and failed is not None:
                    failed(told["table"], StoreError(told["failed"]))
                elif progress is not None and "rows" in told:
                    progress(told["rows"], told["total"])
            return done

        return self._call(act, "maintain")

    # -- looking

    def ls(self, prefix: str = "") -> list[str]:
        """As `Store.ls`."""
        found: list[str] = self._act("ls", wire.List(_path(prefix)))
        return found

    def schema(self, path: str) -> pa.Schema:
        """As `Store.schema`."""
        descriptor = fl.FlightDescriptor.for_command(wire.encode(wire.Read(_path(path))))
        # Not `get_schema`: pyarrow's server drops what an error of that call carries.
        return self._call(lambda flight, options, again: flight.get_flight_info(descriptor, options).schema, "schema")

    def stats(self, level: int = 0) -> dict[str, Any]:
        """Numbers of the server: memory, configuration, counts; 1 also frames and tables, 2 also keys."""
        found: dict[str, Any] = self._act("stats", wire.Stats(_level(level)))
        return found

    def health(self) -> dict[str, Any]:
        """{"ok": whether all is well with the server, "problems": what is not}."""
        found: dict[str, Any] = self._act("health", wire.Health())
        return found

    def evict(self, path: str = "") -> int:
        """Have the server let go of frames, of a table or key or all; returns their bytes."""
        return int(self._act("evict", wire.Evict(_path(path))))

    def last_origin(self, path: str, who: str) -> tuple[int, int] | None:
        """How far a source has come in a table."""
        found = self._act("last_origin", wire.Origin(_path(path), who))
        return None if found is None else (found[0], found[1])

    def close(self) -> None:
        """Give the connection back."""
        with self._mutex:
            flight, self._flight, self._closed = self._flight, None, True
        if flight is not None:
            flight.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.uri!r})"


class _Far:
    """A path of a served store, as `exchange.export` asks a table."""

    def __init__(self, client: Client, path: str) -> None:
        self._client, self._path = client, path

    def counts(self) -> dict[str, int]:
        return {}

    def read(self, key: None, start: int, end: int, columns: Sequence[str] | None) -> pa.Table:
        return self._client.read(self._path, start, end, columns)

    def scan(self, key: None, *args: Any, **options: Any) -> Iterator[pa.Table]:
        return self._client.scan(self._path, *args, **options)


class Target:
    """A path of a served store, as sources know what they append to."""

    def __init__(self, client: Client, path: str) -> None:
        self._client, self._path = client, path

    def append(self, data: Any, *, origin: tuple[str, int] | None = None) -> int:
        """As `Client.write`."""
        return self._client.write(self._path, data, origin=origin)

    def last_origin(self, who: str) -> tuple[int, int] | None:
        """As `Client.last_origin`."""
        return self._client.last_origin(self._path, who)


def _location(uri: Any) -> str:
    if isinstance(uri, str):
        scheme, found, rest = uri.partition("://")
        if found and scheme in _SCHEMES and rest and "/" not in rest.rstrip("/"):
            host = rest.rstrip("/")
            named = host.rpartition("]")[2] if host.startswith("[") else host
            return f"{_SCHEMES[scheme]}://{host}" + ("" if ":" in named else ":8815")
    raise UsageError(
        expected='"grpc://host:port" or "grpc+tls://host:port"', got=repr(uri)[:100], where="in store.connect"
    )


def _pem(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UsageError(
            expected="a PEM file of certificates", got=f"{path!r} ({error.strerror})", where="in ca"
        ) from error


def _path(path: Any) -> str:
    if isinstance(path, str) and path.isascii():
        return path
    try:
        path.encode()
    except (AttributeError, UnicodeError):
        raise UsageError(expected="a path as text", got=repr(path)[:100], where="in the store") from None
    return str(path)


def _level(level: Any) -> int:
    if level not in (0, 1, 2):
        raise UsageError(expected="level 0, 1 or 2", got=repr(level), where="in stats")
    return int(level)


def _batches(data: Any, path: str) -> list[pa.RecordBatch]:
    """What is sent of a frame, or of dicts: pieces of about 1 MB. Types are the server's to judge."""
    if not (isinstance(data, dict) or (isinstance(data, list) and data and isinstance(data[0], dict))):
        found = to_batches(data, None, where=f"table {path!r}")
        # Joined: each batch is a message, and waits for its answer.
        frame = pa.Table.from_batches(found).combine_chunks() if found else pa.table({})
    else:
        try:
            frame = pa.Table.from_pylist([data] if isinstance(data, dict) else data)
        except (pa.ArrowException, TypeError) as error:
            raise StoreError(f"rows that are no table: {error}", where=f"in a write to {path!r}") from error
    return list(pieces(frame, _WRITTEN_BYTES))


def _somebody() -> str:
    return f"client/{uuid.uuid4().hex}"


def _digest(path: str, batches: list[pa.RecordBatch]) -> bytes:
    """What a write writes, in 16 bytes."""
    found = xxhash.xxh3_128(f"{path}\n{batches[0].schema}\n".encode())
    for batch in batches:
        found.update(batch.serialize())
    return found.digest()
