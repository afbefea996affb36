"""A table's two tiers, and what it is: the stream whose rows are its newest, the files that have the others."""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa

from penstock.errors import KeyNotFound, UnknownStream
from penstock.hub import Hub
from penstock.log import Stream
from penstock.log.lock import at_fork
from penstock.store.columns import settled_schema
from penstock.store.delta import DeltaLog
from penstock.store.hot import Tail
from penstock.store.layout import KNOWN, Layout, delta_schema, stored
from penstock.store.parts import Parts
from penstock.store.state import State

__all__ = ["Tiers", "own_stream"]


def own_stream(table: str) -> str:
    """The name of a table's own stream; hidden, as all that begin so."""
    return f"_store/{table}"


class Tiers:
    """The stream (hot) and the files (cold) behind a table, and up to which offset rows are in files.

    Takes   folder: of its files, or of the notes about them; app: the id under which its commits record offsets.
    """

    def __init__(self, name: str, folder: Path, layout: Layout, app: str, hub: Hub, stream: str, log: DeltaLog) -> None:
        self.name, self.folder, self.layout, self.app = name, folder, layout, app
        self._hub, self._stream_name = hub, stream
        self.log = log
        self.parts = Parts(log.files, layout, name)
        self.after_fork()
        at_fork(self)
        self._state: State | None = None
        self._tail: Tail | None = None
        self._stream: Stream | None = None
        self._rolled_app: tuple[Stream | None, str] = (None, "")

    def after_fork(self) -> None:
        self._mutex = threading.Lock()

    @property
    def stream(self) -> Stream:
        """The stream behind the table. Raises KeyNotFound when the table was dropped."""
        stream = self._stream
        if stream is None or not stream.is_there:
            try:
                stream = self._stream = self._hub.streams.get(self._stream_name, create=False)
            except UnknownStream as error:
                raise self.gone() from error
        return stream

    def gone(self) -> KeyNotFound:
        """The error for a table that was dropped."""
        return KeyNotFound(
            f"no table {self.name!r} any more",
            where=f"in {self._hub.path}",
            hint="it, or the stream behind it, was dropped",
            near=[],
        )

    @property
    def owns_stream(self) -> bool:
        """Whether the stream is the table's own, and goes with it."""
        return self._stream_name == own_stream(self.name)

    @property
    def may_be_told(self) -> bool:
        """Whether writers may say since when a row was known; of an adopted stream, they may from some time on."""
        return not self.owns_stream or KNOWN in self.stream.schema.names

    @property
    def tail(self) -> Tail:
        """The hot tier."""
        stream = self.stream
        with self._mutex:
            if self._tail is None or self._tail.stream is not stream:
                self._tail = Tail(stream, self.layout)
            return self._tail

    # -- the files

    def state(self, *, fresh: bool = True) -> State:
        """The table's files as of now. Cost: one failed open when nothing has changed."""
        with self._mutex:
            if self._state is None or fresh:
                self._state = self.log.load(self._state)
            return self._state

    def put_state(self, state: State) -> None:
        """Take a state that a commit has made."""
        with self._mutex:
            if self._state is None or state.version > self._state.version:
                self._state = state

    def forget_state(self) -> None:
        """Read the table's log from its last checkpoint again."""
        with self._mutex:
            self._state = None

    def version(self) -> tuple[int, int]:
        """What changes whenever an answer may: the version of the files, and the stream's next offset."""
        return self.state().version, self.stream.next_offset

    def rolled(self, state: State) -> int:
        """The stream's offset up to which rows are in data files."""
        return state.transactions.get(self.rolled_app(self.stream), 0)

    def rolled_app(self, stream: Stream) -> str:
        """Under which name commits record the stream's offset: of this stream, not of another of its name."""
        if self._rolled_app[0] is not stream:
            self._rolled_app = (stream, f"{self.app}/{stream.metadata().created_ns}")
        return self._rolled_app[1]

    # -- columns

    @property
    def schema(self) -> pa.Schema:
        """The columns that `read` gives."""
        return self.user_schema(self.stream.schema)

    def user_schema(self, schema: pa.Schema) -> pa.Schema:
        """Those of a stream's columns that `read` gives."""
        if KNOWN in schema.names:
            schema = schema.remove(schema.get_field_index(KNOWN))
        return settled_schema(schema.remove_metadata())

    def stored_schema(self) -> pa.Schema:
        """Columns of a data file written now."""
        return stored(self.stream.schema, self.layout)

    def delta_schema(self) -> str:
        """Delta's text of the table's columns."""
        return delta_schema(self.stored_schema(), self.layout)

    def __repr__(self) -> str:
        return f"Table({self.name!r})"
