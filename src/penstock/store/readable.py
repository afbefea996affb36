"""The reading half of a table: rows come out of its stream and its data files as one frame."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.errors import CorruptFile, KeyNotFound, OffsetError, PenstockWarning, UsageError
from penstock.records.describe import near
from penstock.store.columns import restored
from penstock.store.frames import row_bytes
from penstock.store.layout import KNOWN, OFFSET, TIME
from penstock.store.merge import ints, merged
from penstock.store.paths import has_wildcard, near_all
from penstock.store.state import DataFile, State
from penstock.store.tiers import Tiers
from penstock.store.wish import EVER, Wish, moment, span_of

__all__ = ["Readable"]

_TRIES: Final = 20


class Readable(Tiers):
    """What `Table` is to those who only read: its two tiers as one frame."""

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
                columns: names; `ts_known`, since when a value is known, and `_offset` may be among them;
                as_of: the rows as they were known then, later corrections left out;
                revisions: every value a row had, by the time it was known; what repeats the one before is none;
                on_corrupt: "raise", or "skip" to warn and give what other data files hold.
        Raises  KeyNotFound with near keys; UsageError for unknown columns and bad times; CorruptFile.
        Cost    1 to 3 ms for a key's day out of 100 million rows.
        """
        span, known = span_of(start, end), moment(as_of, "as_of")
        if on_corrupt not in ("raise", "skip"):
            raise UsageError(expected="'raise' or 'skip'", got=repr(on_corrupt), where="in on_corrupt")
        wish = Wish(span, columns, known, None, revisions, on_corrupt)
        found = self._retried(lambda state: self._read(state, key, wish))
        if not found.num_rows and key is not None and not has_wildcard(key):
            if not self.has(key):
                raise self.no_key(key)
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
        span, known = span_of(start, end), moment(as_of, "as_of")
        ends = [file.high[OFFSET] + 1 for file in self.state().files.values() if OFFSET in file.high]
        before = max([self.stream.next_offset, *ends])  # an adopted stream may have been made anew
        if key is not None and not has_wildcard(key) and not self.has(key):
            raise self.no_key(key)
        for piece in self._retried(lambda state: self._spans(state, span)):
            wish = Wish(piece, columns, known, before, revisions, "raise")
            found = self._retried(partial(self._read, key=key, wish=wish))
            if found.num_rows:
                yield found

    def _spans(self, state: State, span: tuple[int, int]) -> list[tuple[int, int]]:
        """Event times in `span` cut at the borders of partitions; only where there are rows."""
        ends: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        time = self.layout.time
        ends += [np.array([file.low[time], file.high[time]]) for file in self.files(state, None, span)]
        ends += [ints(table, TIME) for table in self.tail.tables(self.rolled(state), None, *span)[0]]
        times = np.concatenate(ends)
        if not len(times):
            return []
        if self.layout.partition == "none":
            return [span]
        starts = np.unique(self.layout.partitions(times))
        stops = self.layout.following(starts)
        spans = zip(*(_nanoseconds(days) for days in (starts, stops)), strict=True)
        return [(max(low, span[0]), min(high, span[1])) for low, high in spans]

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

    def _read(self, state: State, key: str | None, wish: Wish) -> pa.Table:
        tail = self.tail
        schema = self.user_schema(tail.stream.schema)
        names = self._names(wish.columns, schema)
        keys = None if key is None else [key]
        if key is not None and has_wildcard(key):
            counts = self._counts(state)
            keys = [key] if key in counts else fnmatch.filter(counts, key)
        one = keys is not None and len(keys) == 1
        # Since when a value is known, and which are revisions, is told by all columns: repeats are neither.
        whole = wish.revisions or KNOWN in names or OFFSET in names
        needed = [name for name in schema.names if whole or name in names or name in self.layout.identity]
        if not one and self.layout.key not in needed:
            needed.insert(0, self.layout.key)
        if one:
            needed = [name for name in needed if name != self.layout.key]
        wanted = pa.schema([schema.field(name) for name in needed])
        rolled = self.rolled(state)
        parts: list[pa.Table] = []
        if keys is None or keys:
            parts += self._cold(state, keys, wish, wanted)
            parts += [_aligned(table, wanted) for table in tail.tables(rolled, keys, *wish.span)[0]]
        parts.append(_empty(wanted))
        told = self.may_be_told if whole else None
        limits: dict[str, Any] = {"as_of": wish.as_of, "before": wish.before, "revisions": wish.revisions}
        found = merged(parts, self.layout, one_key=one, told=told, **limits)
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

    def _cold(self, state: State, keys: list[str] | None, wish: Wish, wanted: pa.Schema) -> Iterator[pa.Table]:
        columns = [name for name in wanted.names if name != self.layout.time]
        for file in self.files(state, keys, wish.span):
            try:
                try:
                    table = self.parts.read(file, keys, *wish.span, columns)
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
        if not pa.types.is_int64(type_):
            zone = getattr(type_, "tz", None)  # a date has none
            table = table.set_column(at, self.layout.time, times.cast(pa.timestamp("ns", zone)).cast(type_))
        return table

    def files(self, state: State, keys: list[str] | None, span: tuple[int, int]) -> Iterator[DataFile]:
        """Files that may hold rows of these keys and times."""
        key, time = self.layout.key, self.layout.time
        low, high = span
        first, last = (min(keys), max(keys)) if keys else ("", "")
        for file in state.files.values():
            if time in file.low and not (file.low[time] < high and file.high[time] >= low):
                continue
            if keys is not None and key in file.low and not (file.low[key] <= last and file.high[key] >= first):
                continue
            yield file

    def has(self, key: str) -> bool:
        """Whether the key has rows at any time. Cost: footers of data files, once."""
        found: bool = self._retried(lambda state: self._has(state, key))
        return found

    def _has(self, state: State, key: str) -> bool:
        if any(table.num_rows for table in self.tail.tables(self.rolled(state), [key], *EVER)[0]):
            return True
        return any(self.parts.has(file, key) for file in self.files(state, [key], EVER))

    def keys(self, pattern: str = "*") -> list[str]:
        """Keys that match a shell pattern, sorted. Cost: the footer of each data file, once."""
        return sorted(fnmatch.filter(self.counts(), pattern))

    def counts(self) -> dict[str, int]:
        """Stored rows of each key: also corrected ones, and repeats that no roll or compaction has met yet.

        Files that are corrupt count nothing.
        """
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

    def no_key(self, key: str) -> KeyNotFound:
        """The error for a key that has no rows, with near ones."""
        keys = self.keys()
        close = near_all(key, keys)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"it has {len(keys)} other keys"
        return KeyNotFound(f"no key {key!r} in table {self.name!r}", hint=hint, near=close)

    def estimate(self, key: str | None = None, start: Any = None, end: Any = None) -> int:
        """Bytes that `read` of these rows will about take, by the statistics of the files; nothing is read for it."""
        span = span_of(start, end)
        state = self.state()
        keys = None if key is None else [key]
        rows = sum(int(table.num_rows) for table in self.tail.tables(self.rolled(state), keys, *span)[0])
        for file in self.files(state, keys, span):
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


def _nanoseconds(days: NDArray[Any]) -> list[int]:
    """Days as ns; of the first and the last that int64 has times of, the ends are beyond it."""
    return [day * 86_400_000_000_000 for day in days.astype(np.int64).tolist()]


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
