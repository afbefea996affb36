"""Chained plants: streams of a remote plant as streams of a hub here, each row once, whatever is killed meanwhile.

Every append says from which row of the remote stream it was made, in the same commit. After a crash on either side the
mirror finds that in the log and asks for what comes after it.
"""

from __future__ import annotations

import ssl
import threading
import warnings
from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from penstock.errors import OffsetError, PenstockWarning, UsageError
from penstock.hub import Hub
from penstock.log import Stream
from penstock.plant import arrow
from penstock.plant.client import Subscription, subscribe
from penstock.records import is_document

__all__ = ["Mirror"]

_KNOWN: Final = "upstream"


class Mirror:
    """Copies what a remote plant has into streams of the same names here: same columns, same types.

    Takes   url: of the remote plant; hub: where the copies go; patterns: which messages, all by default;
            prefix: of the names here; name: by which the copies know their origin, by default the URL: give one when
            the plant may move; since: "start" for all that it has, None for what comes from the first run on;
            token, tls: as `subscribe` takes them.
    Edges   A copy serves as a plant's stream at once: its attribute `event` is the remote one's. Offsets here count the
            rows that were copied. A stream that exists here must be a copy of this origin, or empty. What is itself a
            copy of a stream of this hub is left out, with a PenstockWarning: two plants may copy one another.

    >>> mirror = Mirror("ws://plant:5000", hub, "AM.*", token=key)
    >>> mirror.run()                                             # until `stop()`
    """

    def __init__(
        self,
        url: str,
        hub: Hub,
        patterns: str | Sequence[str] = "*",
        *,
        prefix: str = "",
        name: str | None = None,
        since: str | None = "start",
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if since not in ("start", None):
            raise UsageError(expected='since to be "start" or None', got=repr(since), where="in plant.Mirror")
        self.url, self.hub, self.prefix, self.name = url, hub, prefix, name or url
        self._patterns, self._since, self._token, self._tls = patterns, since, token, tls
        self._streams: dict[str, Stream] = {}
        self._circular: dict[str, bool] = {}
        self._subscription: Subscription | None = None
        self._stopped = threading.Event()
        self.rows = 0

    def run(self, *, timeout: float | None = None, patience: float | None = None) -> int:
        """Copy until `stop`, or until nothing came for `timeout` seconds; returns the rows copied.

        Raises  SourceError as `subscribe` does; SchemaMismatch when a remote stream is another one than before.
        """
        before = self.rows
        subscription = self._subscription = subscribe(
            self.url,
            self._patterns,
            since=self._begin(),
            arrow=True,
            token=self._token,
            timeout=timeout,
            patience=patience,
            tls=self._tls,
        )
        if self._stopped.is_set():
            return 0
        with subscription:
            for batch in subscription.frames():
                assert isinstance(batch, pa.RecordBatch)
                self._append(batch)
        return self.rows - before

    def stop(self) -> None:
        """End `run`, from any thread."""
        self._stopped.set()
        if self._subscription is not None:
            self._subscription.close()

    def _begin(self) -> Any:
        """From where on to ask: behind what the copies have."""
        found = {}
        for local in self.hub.streams.list():
            stream = self.hub.streams.get(local, create=False)
            source = stream.attributes.get(_KNOWN)
            if isinstance(source, dict) and source.get("name") == self.name:
                last = stream.last_origin(self._who(source["stream"]))
                self._streams[source["stream"]] = stream
                found[source["stream"]] = source["since"] if last is None else last[0] + 1
        if not found:
            return self._since
        # What is not known yet was made there since, or has had no row.
        return {**found, "*": 0}

    def _who(self, stream: str) -> str:
        return f"{self.name}#{stream}"

    def _append(self, batch: pa.RecordBatch) -> None:
        metadata = dict(batch.schema.metadata or {})
        name = metadata.pop(b"penstock.stream").decode()
        event = metadata.pop(b"penstock.ev", b"").decode()
        root = metadata.pop(b"penstock.root", b"").decode()
        if self._is_ours(name, root):
            return
        seq = batch.column(arrow.SEQ)
        schema = pa.schema(list(batch.schema)[1:], metadata or None)
        rows = pa.RecordBatch.from_arrays(batch.columns[1:], schema=schema)
        stream = self._streams.get(name) or self._make(name, event, schema, seq[0].as_py(), root)
        if not schema.equals(stream.schema) and not is_document(schema):
            stream.widen(schema)
        # One commit of rows and origin: either both are there after a crash, or none.
        stream.append(rows, origin=(self._who(name), seq[-1].as_py()))
        self.rows += batch.num_rows

    def _is_ours(self, name: str, root: str) -> bool:
        """Whether a remote stream is a copy of one of this hub: plants in a circle would copy without end."""
        if name not in self._circular:
            created, _, known = root.partition(" ")
            found = bool(known) and self.hub.streams.exists(known)
            self._circular[name] = found and str(self.hub.streams.metadata(known).created_ns) == created
            if self._circular[name]:
                text = f"{name!r} of {self.url} is a copy of {known!r} of this hub, and is left out"
                warnings.warn(text, PenstockWarning, stacklevel=4)
        return self._circular[name]

    def _make(self, name: str, event: str, schema: pa.Schema, since: int, root: str) -> Stream:
        local = self.prefix + name
        attributes: dict[str, Any] = {_KNOWN: {"name": self.name, "stream": name, "since": since, "root": root}}
        if event:
            attributes["event"] = event
        if self.hub.streams.exists(local) and self.hub.streams.get(local).next_offset:
            raise OffsetError(
                f"stream {local!r} has rows that do not come from {self.name}",
                hint="give another prefix=, or drop the stream",
            )
        stream = self.hub.streams.get(local, schema=None if is_document(schema) else schema, attributes=attributes)
        self._streams[name] = stream
        return stream
