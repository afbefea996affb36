"""Collecting: messages of a plant into a table of the store, typed, each exactly once.

    Collector("ws://localhost:5000", store, "historical/minute").run()

Every write says from which offset of the plant's stream it was made, in the same commit. After a crash on either side
the collector finds that in the table and asks for what comes after it.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
from websockets.exceptions import InvalidURI

from penstock.errors import RecordError, SchemaMismatch, SourceError
from penstock.plant import arrow
from penstock.plant.client import Subscription, subscribe
from penstock.plant.messages import FIELDS
from penstock.records import BARS, QUOTES, TRADES, decode_document, is_document, rows_to_batch
from penstock.store import Store, Table

__all__ = ["Collector", "rows_of"]

_ATTRIBUTE: Final = "collected"
_SCHEMAS: Final = {"AM": BARS, "A": BARS, "T": TRADES, "Q": QUOTES}
_TIMES: Final = ("ts_event", "ts_close")
_RETRY_S: Final = 1.0


class Collector:
    """Writes what a plant has into one table.

    Takes   url: of the plant; store; into: the table, made from the first rows; patterns: which messages;
            since: where to begin the first time, "start" for all that the plant has, None for what comes;
            name: by which the table knows the plant, by default the URL: give one when the plant may move;
            plain: the server knows only the market's words: then rows are made of its messages, and what it sends
            while this is not connected is missed; token, tls; tell: is told what happens, a line each.
    Edges   Bars of one symbol and time correct one another, as everywhere in the store; trades, quotes and other rows
            all stand for themselves. Messages that are documents (of a handler) become bars, trades or quotes by their
            `ev`; those that cannot are left out, and counted in `skipped`.
    """

    def __init__(
        self,
        url: str,
        store: Store,
        into: str,
        patterns: str | Sequence[str] = "AM.*",
        *,
        since: Any = "start",
        name: str | None = None,
        plain: bool = False,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        tell: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.url, self.store, self.into, self.name = url, store, into, name or url
        self._since, self._plain, self._tell = since, plain, tell
        self._options: dict[str, Any] = {"patterns": patterns, "token": token, "tls": tls}
        subscribe(url, patterns, since=since).close()  # what cannot be meant is said here
        self._table: Table | None = None
        self._stopped = threading.Event()
        self._subscription: Subscription | None = None
        self.rows = self.skipped = self.connections = 0

    def stop(self) -> None:
        """End `run`, from any thread."""
        self._stopped.set()
        if self._subscription is not None:
            self._subscription.close()

    def run(self, *, count: int | None = None, timeout: float | None = None, seconds: float | None = None) -> int:
        """Collect until `stop`, `count` rows or a few more, for `seconds`, or until nothing came for `timeout` seconds.

        Returns the rows written. A plant that is not there is waited for, without `timeout`.
        Raises  SourceError when the plant refuses the key or a channel; SchemaMismatch when rows are not the table's.
        """
        before, told = self.rows, ""
        timer = None if seconds is None else threading.Timer(seconds, self.stop)
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            while not self._stopped.is_set():
                try:
                    for batch, origin in self._batches(timeout):
                        self._write(batch, origin)
                        if count is not None and self.rows - before >= count:
                            return self.rows - before
                    break
                except SourceError as error:
                    cause = error.__cause__
                    if timeout is not None or cause is None or isinstance(cause, InvalidURI):
                        raise
                    if str(error) != told:
                        told = str(error)
                        self._tell(f"{told}; trying again")
                    self._stopped.wait(_RETRY_S)
        finally:
            if timer is not None:
                timer.cancel()
        return self.rows - before

    # -- from the plant

    def _batches(self, timeout: float | None) -> Iterator[tuple[pa.RecordBatch, tuple[str, int] | None]]:
        since = None if self._plain else self._begin()
        subscription = self._subscription = subscribe(
            self.url, since=since, arrow=not self._plain, plain=self._plain, timeout=timeout, on_status=self._status,
            on_lost=lambda text: self._tell(f"{text}; looking for it"),
            **self._options,
        )  # fmt: skip
        with subscription:
            if self._stopped.is_set():
                return
            for found in subscription.frames():
                if isinstance(found, pa.RecordBatch):
                    metadata = dict(found.schema.metadata or {})
                    stream = metadata.pop(b"penstock.stream").decode()
                    metadata.pop(b"penstock.ev", None)
                    metadata.pop(b"penstock.root", None)
                    origin = (self._who(stream), found.column(arrow.SEQ)[-1].as_py())
                    schema = pa.schema(list(found.schema)[1:], metadata or None)
                    rows = pa.RecordBatch.from_arrays(found.columns[1:], schema=schema)
                    if is_document(rows.schema):
                        yield from ((batch, origin) for batch in self._typed(map(_decoded, rows.column(0))))
                    else:
                        yield rows, origin
                else:
                    yield from ((batch, None) for batch in self._typed(found))

    def _status(self, status: Mapping[str, Any]) -> None:
        if status.get("status") == "connected":
            self.connections += 1
            if self.connections > 1:
                self._tell(f"connected again to {self.url}")
        elif status.get("status") in ("slow_consumer", "conflated"):
            self._tell(f"the plant says: {status.get('message', '')}")

    def _typed(self, messages: Any) -> Iterator[pa.RecordBatch]:
        """Messages as rows; all of one frame are of one kind, since a table is."""
        rows: list[dict[str, Any]] = []
        schema: pa.Schema | None = None
        for message in messages:
            try:
                kind = _SCHEMAS[message["ev"]]
                row = rows_of(message)
                rows_to_batch([row], kind)
            except (KeyError, TypeError, ValueError, ArithmeticError, RecordError) as error:
                self.skipped += 1
                if self.skipped == 1:
                    reason = str(error) if isinstance(error, RecordError) else f"{type(error).__name__}: {error}"
                    self._tell(f"a message is no row and is left out, as will be all such: {message!r:.200} ({reason})")
                continue
            if schema is not None and kind is not schema:
                raise SchemaMismatch(
                    expected="messages of one kind",
                    got="several in one frame",
                    where=f"from {self.url}",
                    hint="a table holds rows of one kind: say which with patterns",
                )
            schema = kind
            rows.append(row)
        if schema is not None:
            yield rows_to_batch(rows, schema)

    # -- into the table

    def _begin(self) -> Any:
        """From where on to ask: behind what the table has."""
        table = self._open()
        known = {} if table is None else table.stream.attributes.get(_ATTRIBUTE) or {}
        streams = known.get(self.name) if isinstance(known, dict) else None
        if table is None or not streams:
            return self._since
        found = {}
        for stream in streams:
            last = table.last_origin(self._who(stream))
            found[stream] = 0 if last is None else last[0] + 1
        return {**found, "*": 0}

    def _who(self, stream: str) -> str:
        return f"{self.name}#{stream}"

    def _open(self, schema: pa.Schema | None = None) -> Table | None:
        if self._table is None and self.store.exists(self.into):
            self._table = self.store.table(self.into)
        if self._table is None and schema is not None:
            kind = "latest" if set(BARS.names) <= set(schema.names) else "all"
            key = next((name for name in ("symbol", "sym", "key") if name in schema.names), "symbol")
            self._table = self.store.create(self.into, schema, key=key, rows=kind)
        return self._table

    def _write(self, batch: pa.RecordBatch, origin: tuple[str, int] | None) -> None:
        table = self._open(batch.schema)
        assert table is not None
        if origin is not None:
            # Before the rows: a table that has rows of a stream knows that it is to ask for it.
            stream = origin[0].rpartition("#")[2]
            known = table.stream.attributes.get(_ATTRIBUTE) or {}
            if stream not in known.get(self.name, []):
                streams = [*known.get(self.name, []), stream]
                table.stream.set_attributes({_ATTRIBUTE: {**known, self.name: streams}})
        try:
            table.write(batch, origin=origin)
        except RecordError as error:
            error.hint = "a table holds rows of one kind: say which with patterns, or collect into another table"
            raise
        self.rows += batch.num_rows


def _decoded(text: pa.Scalar) -> Any:
    return decode_document(text.as_py())


def rows_of(message: Mapping[str, Any]) -> dict[str, Any]:
    """A bar (AM, A), trade (T) or quote (Q) of the market's protocol as a row of BARS, TRADES or QUOTES.

    Times of the wire are ms; a bar without `n` has trade_count v // z, or 0; amount is volume × vwap, or × close.
    Raises  KeyError for other events.
    """
    schema = _SCHEMAS[message["ev"]]
    kind = "AM" if schema is BARS else message["ev"]
    row: dict[str, Any] = {}
    for column, wire in FIELDS[kind].items():
        if column in schema.names and message.get(wire) is not None:
            value = message[wire]
            row[column] = int(value) * 1_000_000 if column in _TIMES else value
    if schema is BARS:
        average = message.get("z")
        volume = row["volume"]
        if isinstance(volume, float) and volume.is_integer():
            row["volume"] = volume = int(volume)
        row.setdefault("trade_count", int(volume // average) if average else 0)
        row.setdefault("amount", float(volume) * (row.get("vwap") or row["close"]))
        row.setdefault("revision", 0)
    for column in ("open", "high", "low", "close", "vwap", "amount", "price", "bid_px", "ask_px"):
        if isinstance(row.get(column), int):
            row[column] = float(row[column])
    return row
