"""The reading half of a table: rows come out of its stream and its data files as one frame."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.clock import time_ns
from penstock.errors import (
    CorruptFile,
    KeyNotFound,
    OffsetError,
    PenstockWarning,
    UnknownStream,
    UsageError,
)
from penstock.hub import Hub
from penstock.log import Stream
from penstock.log.lock import at_fork
from penstock.records.describe import near
from penstock.store.delta import DataFile, DeltaLog, State
from penstock.store.hot import Tail
from penstock.store.layout import KNOWN, OFFSET, TIME, Layout, delta_schema, restored, stored
from penstock.store.merge import ints, merged
from penstock.store.parts import Parts
from penstock.store.paths import has_wildcard

__all__ = ["EVER", "Readable", "moment", "near_all", "own_stream", "row_bytes"]

EVER: Final = (-(2**63), 2**63 - 1)
_TRIES: Final = 20


def moment(value: Any, name: str) -> int | None:
    """Ns UTC of an int (ns), an aware datetime or ISO text with its zone; None stays None. Raises UsageError."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    return time_ns(value, name=name)


def own_stream(table: str) -> str:
    """The name of a table's own stream; hidden, as all that begin so."""
    return f"_store/{table}"


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a read wants of each key."""

    bounds: tuple[int, int]
    columns: Sequence[str] | None
    as_of: int | None
    before: int | None
    revisions: bool
    on_corrupt: str


class Readable:
    """What `Table` is to those who only read: its description, its two tiers, and what they say together."""

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
        self._alike: tuple[pa.Schema, pa.Schema] | None = None  # a stream's schema, and the last data's that fits it
        self._checked: set[str] = set()  # keys known to be good

    def after_fork(self) -> None:
        self._mutex = threading.Lock()

    # -- what it is

    @property
    def stream(self) -> Stream:
        """The stream behind the table. Raises KeyNotFound when the table was dropped."""
        stream = self._stream
        if stream is None or not stream.is_there:
            try:
                stream = self._stream = self._hub.streams.get(self._stream_name, create=False)
            except UnknownStream as error:
                raise self._gone() from error
        return stream

    def _gone(self) -> KeyNotFound:
        return KeyNotFound(
            f"no table {self.name!r} any more",
            where=f"in {self._hub.path}",
            hint="it, or the stream behind it, was dropped",
            near=[],
        )

    @property
    def schema(self) -> pa.Schema:
        """The columns that `read` gives."""
        return self._user(self.stream.schema)

    def _user(self, schema: pa.Schema) -> pa.Schema:
        if KNOWN in schema.names:
            schema = schema.remove(schema.get_field_index(KNOWN))
        return schema.remove_metadata()

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

    @property
    def owns_stream(self) -> bool:
        """Whether the stream is the table's own, and goes with it."""
        return self._stream_name == own_stream(self.name)

    @property
    def tail(self) -> Tail:
        """The hot tier."""
        stream = self.stream
        with self._mutex:
            if self._tail is None or self._tail.stream is not stream:
                self._tail = Tail(stream, self.layout)
            return self._tail

    def __repr__(self) -> str:
        return f"Table({self.name!r})"

    # -- reading

    def read(
        self,
        key: str | None = None,
        start: Any = None,
        end: Any = None,
        columns: Sequence[str] | None = None,
        *,
        as_of: Any = None,
        revisions: bool = False,
        on_corrupt: str = "raise",
    ) -> pa.Table:
        """Rows of a key, sorted by time; of several (`key` a pattern) or all, sorted by key and time.

        Takes   start, end: event times, rows in [start, end): int ns, aware datetime, ISO text with its zone;
                columns: names, `ts_known` and `_offset` may be among them;
                as_of: the rows as they were known then, later corrections left out;
                revisions: every value a row had, by the time it was known;
                on_corrupt: "raise", or "skip" to warn and give what other data files hold.
        Raises  KeyNotFound with near keys; UsageError for unknown columns and bad times; CorruptFile.
        Cost    1 to 3 ms for a key's day out of 100 million rows.
        """
        bounds, known = _bounds(start, end), moment(as_of, "as_of")
        if on_corrupt not in ("raise", "skip"):
            raise UsageError(expected="'raise' or 'skip'", got=repr(on_corrupt), where="in on_corrupt")
        wish = _Wish(bounds, columns, known, None, revisions, on_corrupt)
        found = self._retried(lambda state: self._read(state, key, wish))
        if not found.num_rows and key is not None and not has_wildcard(key):
            if not self._retried(lambda state: self._has(state, key)):
                raise self._no_key(key)
        return found

    def scan(
        self,
        key: str | None = None,
        start: Any = None,
        end: Any = None,
        columns: Sequence[str] | None = None,
        *,
        as_of: Any = None,
        revisions: bool = False,
    ) -> Iterator[pa.Table]:
        """As `read`, in pieces that follow each other in time: one partition of the table after the other.

        All pieces are of the moment at which the scan began. Memory: one partition's rows.
        """
        bounds, known = _bounds(start, end), moment(as_of, "as_of")
        ends = [file.high[OFFSET] + 1 for file in self.state().files.values() if OFFSET in file.high]
        before = max([self.stream.next_offset, *ends])  # an adopted stream may have been made anew
        if key is not None and not has_wildcard(key) and not self._retried(lambda state: self._has(state, key)):
            raise self._no_key(key)
        for span in self._retried(lambda state: self._spans(state, bounds)):
            wish = _Wish(span, columns, known, before, revisions, "raise")
            found = self._retried(partial(self._read, key=key, wish=wish))
            if found.num_rows:
                yield found

    def _spans(self, state: State, bounds: tuple[int, int]) -> list[tuple[int, int]]:
        """Event times in `bounds` cut at the borders of partitions; only where there are rows."""
        ends: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        time = self.layout.time
        ends += [np.array([file.low[time], file.high[time]]) for file in self._files(state, None, bounds)]
        ends += [ints(table, TIME) for table in self.tail.tables(self.rolled(state), None, *bounds)[0]]
        times = np.concatenate(ends)
        if not len(times):
            return []
        if self.layout.partition == "none":
            return [bounds]
        starts = np.unique(self.layout.partitions(times))
        stops = self.layout.following(starts)
        day = 86_400_000_000_000
        spans = zip((starts.astype(np.int64) * day).tolist(), (stops.astype(np.int64) * day).tolist(), strict=True)
        return [(max(low, bounds[0]), min(high, bounds[1])) for low, high in spans]

    def _retried(self, act: Callable[[State], Any]) -> Any:
        """`act` on the newest state; again when a vacuum or a retention was faster: a newer one has what it took."""
        for attempt in range(_TRIES):
            state = self.state()
            try:
                return act(state)
            except (FileNotFoundError, OffsetError):
                if attempt == _TRIES - 1:
                    raise
                self.forget_state()
        raise AssertionError

    def _read(self, state: State, key: str | None, wish: _Wish) -> pa.Table:
        tail = self.tail
        schema = self._user(tail.stream.schema)
        names = self._names(wish.columns, schema)
        keys = None if key is None else [key]
        if key is not None and has_wildcard(key):
            counts = self._counts(state)
            keys = [key] if key in counts else fnmatch.filter(counts, key)
        one = keys is not None and len(keys) == 1
        needed = [name for name in schema.names if name in names or name in self.layout.identity]
        if not one and self.layout.key not in needed:
            needed.insert(0, self.layout.key)
        if one:
            needed = [name for name in needed if name != self.layout.key]
        wanted = pa.schema([schema.field(name) for name in needed])
        rolled = self.rolled(state)
        parts: list[pa.Table] = []
        if keys is None or keys:
            parts += self._cold(state, keys, wish, wanted)
            parts += [_aligned(table, wanted) for table in tail.tables(rolled, keys, *wish.bounds)[0]]
        parts.append(_empty(wanted))
        found = merged(parts, self.layout, one_key=one, as_of=wish.as_of, before=wish.before, revisions=wish.revisions)
        if one and self.layout.key in names:
            field = schema.field(self.layout.key)
            value = pa.repeat(pa.scalar(keys[0] if keys else "", pa.string()), found.num_rows)
            found = found.append_column(field, restored(value, field.type))
        return found.select(names)

    def _names(self, columns: Sequence[str] | None, schema: pa.Schema) -> list[str]:
        if columns is None:
            return list(schema.names)
        names = [columns] if isinstance(columns, str) else list(columns)
        for name in names:
            if name not in schema.names and name not in (KNOWN, OFFSET):
                close = near(name, schema.names) if isinstance(name, str) else None
                raise UsageError(
                    expected=f"a column of {', '.join(schema.names)}",
                    got=repr(name),
                    where=f"in table {self.name!r}",
                    hint=f"did you mean {close!r}?" if close else None,
                )
        return names

    def _cold(self, state: State, keys: list[str] | None, wish: _Wish, wanted: pa.Schema) -> Iterator[pa.Table]:
        columns = [name for name in wanted.names if name != self.layout.time]
        for file in self._files(state, keys, wish.bounds):
            try:
                try:
                    table = self.parts.read(file, keys, *wish.bounds, columns)
                except FileNotFoundError as error:
                    if self.log.load(state).version != state.version:  # a vacuum was faster
                        raise
                    raise self.parts.quarantine(file, "no such file") from error
            except CorruptFile as error:
                self._report(file, error)
                if wish.on_corrupt == "raise":
                    raise
                warnings.warn(f"{error}", PenstockWarning, stacklevel=6)
                continue
            if table is not None and table.num_rows:
                yield _aligned(self._timed(table, wanted), wanted)

    def _timed(self, table: pa.Table, wanted: pa.Schema) -> pa.Table:
        """A file's rows with TIME; files hold event times as int64 ns, whatever type they came with."""
        at = table.schema.get_field_index(self.layout.time)
        times = table.column(at)
        table = table.append_column(pa.field(TIME, pa.int64()), times)
        type_ = wanted.field(self.layout.time).type if self.layout.time in wanted.names else pa.int64()
        if pa.types.is_timestamp(type_):
            table = table.set_column(at, self.layout.time, times.cast(pa.timestamp("ns", type_.tz)).cast(type_))
        return table

    def _files(self, state: State, keys: list[str] | None, bounds: tuple[int, int]) -> Iterator[DataFile]:
        """Files that may hold rows of these keys and times."""
        key, time = self.layout.key, self.layout.time
        low, high = bounds
        first, last = (min(keys), max(keys)) if keys else ("", "")
        for file in state.files.values():
            if time in file.low and not (file.low[time] < high and file.high[time] >= low):
                continue
            if keys is not None and key in file.low and not (file.low[key] <= last and file.high[key] >= first):
                continue
            yield file

    def _has(self, state: State, key: str) -> bool:
        """Whether the key has rows at any time."""
        if any(table.num_rows for table in self.tail.tables(self.rolled(state), [key], *EVER)[0]):
            return True
        return any(self.parts.part(file).range(key) is not None for file in self._files(state, [key], EVER))

    def keys(self, pattern: str = "*") -> list[str]:
        """Keys that match a shell pattern, sorted. Cost: the footer of each data file, once."""
        return sorted(fnmatch.filter(self.counts(), pattern))

    def counts(self) -> dict[str, int]:
        """Stored rows of each key, corrections and duplicates counted. Files that are corrupt count nothing."""
        found: dict[str, int] = self._retried(self._counts)
        return found

    def _counts(self, state: State) -> dict[str, int]:
        counts = self.tail.keys(self.rolled(state))
        for file in state.files.values():
            try:
                keys = self.parts.keys(file)
            except CorruptFile:
                continue
            for key, rows in keys.items():
                counts[key] = counts.get(key, 0) + rows
        return counts

    def _no_key(self, key: str) -> KeyNotFound:
        keys = self.keys()
        close = near_all(key, keys)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"it has {len(keys)} other keys"
        return KeyNotFound(f"no key {key!r} in table {self.name!r}", hint=hint, near=close)

    def estimate(self, key: str | None = None, start: Any = None, end: Any = None) -> int:
        """Bytes that `read` of these rows will about take, by the statistics of the files; nothing is read for it."""
        bounds = _bounds(start, end)
        state = self.state()
        keys = None if key is None else [key]
        rows = sum(int(table.num_rows) for table in self.tail.tables(self.rolled(state), keys, *bounds)[0])
        for file in self._files(state, keys, bounds):
            found = None if key is None else self.parts.part(file).range(key)
            rows += file.rows if key is None else 0 if found is None else found[1] - found[0]
        return rows * row_bytes(self.schema)

    def _report(self, file: DataFile, error: CorruptFile) -> None:
        """Keep a note of a corrupt file beside the table, for people and for `maintain`."""
        note = self.folder / "_penstock" / f"quarantine-{Path(file.path).name}.json"
        with contextlib.suppress(OSError):  # in a folder that cannot be written the error alone says it
            if note.exists():
                return
            about = {"file": file.path, "rows": file.rows, "problem": error.got, "low": file.low, "high": file.high}
            temporary = note.with_name(f"{note.name}-{os.getpid()}.new")
            temporary.write_text(json.dumps(about, indent=1) + "\n")
            temporary.rename(note)

    # -- for those who write files

    def stored_schema(self) -> pa.Schema:
        """Columns of a data file written now."""
        return stored(self.stream.schema, self.layout)

    def delta_schema(self) -> str:
        """Delta's text of the table's columns."""
        return delta_schema(self.stored_schema(), self.layout)


def _bounds(start: Any, end: Any) -> tuple[int, int]:
    low, high = moment(start, "start"), moment(end, "end")
    return EVER[0] if low is None else low, EVER[1] if high is None else high


def _aligned(table: pa.Table, wanted: pa.Schema) -> pa.Table:
    """`table` with the columns of `wanted`, in their types, and TIME, KNOWN, OFFSET."""
    columns, fields = [], []
    for field in wanted:
        at = table.schema.get_field_index(field.name)
        column = pa.nulls(table.num_rows, field.type) if at < 0 else restored(table.column(at), field.type)
        columns.append(column)
        fields.append(field)
    for name in (TIME, KNOWN, OFFSET):
        columns.append(table.column(name))
        fields.append(pa.field(name, pa.int64()))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _empty(wanted: pa.Schema) -> pa.Table:
    fields = [pa.field(name, pa.int64()) for name in (TIME, KNOWN, OFFSET)]
    return pa.schema([*wanted, *fields]).empty_table()


def near_all(name: str, names: Sequence[str]) -> list[str]:
    """Up to three names like `name`."""
    import difflib

    return difflib.get_close_matches(name, names, 3)


def row_bytes(schema: pa.Schema) -> int:
    """About how many bytes a row takes in memory: fixed widths, and 24 for what has none."""
    total = 0
    for field in schema:
        try:
            total += (int(field.type.bit_width) + 7) // 8
        except ValueError:
            total += 24
    return total
