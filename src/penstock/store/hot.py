"""The hot tier: rows of the table's stream that no data file holds yet, kept decoded and found by key.

What was read once stays until it is rolled, up to `limit` rows; beyond that (nobody rolls) each read looks at the log.
Chunks are joined as they grow, so that many small appends cost a read as little as a few large ones.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.log import Chunk, Stream
from penstock.log.lock import at_fork
from penstock.records import event_times
from penstock.store.columns import settled, values_type
from penstock.store.layout import KNOWN, OFFSET, TIME, Layout

__all__ = ["Tail", "with_system"]

_JOINED: Final = 65_536  # rows from which on a chunk is not joined with others
_INDEXED: Final = 4096  # rows from which on a map of keys pays
_WORTH: Final = 3  # and questions: it costs as much as ten looks at every row
_LIMIT: Final = 8_000_000


def with_system(chunk: Chunk, layout: Layout) -> pa.Table:
    """A chunk's rows with TIME, KNOWN and OFFSET. The time at which a row was known is its writer's word, if it has.

    Rows without a key or a time, which an adopted stream may have, are not in the table.
    """
    batch = chunk.batch
    types = [settled(type_) for type_ in batch.schema.types]
    if types != batch.schema.types:  # of an adopted stream; a table's own has none
        columns = [column.cast(type_) for column, type_ in zip(batch.columns, types, strict=True)]
        batch = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
    known, offsets = pa.array(chunk.created), pa.array(np.arange(chunk.first, chunk.stop))
    key, time = (batch.column(batch.schema.get_field_index(name)) for name in (layout.key, layout.time))
    if key.null_count or time.null_count:
        there = pc.and_(key.is_valid(), time.is_valid())
        batch, known, offsets = batch.filter(there), known.filter(there), offsets.filter(there)
    if KNOWN in batch.schema.names:
        at = batch.schema.get_field_index(KNOWN)
        known = pc.coalesce(batch.column(at), known)
        batch = batch.remove_column(at)
    columns = [*batch.columns, pa.array(event_times(batch, layout.time)), known, offsets]
    return pa.table(columns, names=[*batch.schema.names, TIME, KNOWN, OFFSET])


class _Rows:
    """The rows of the stream from offset `first` to before `stop`, with a map of their keys once it pays."""

    def __init__(self, table: pa.Table, first: int, stop: int, layout: Layout) -> None:
        self.table, self.first, self.stop, self._key = table, first, stop, layout.key
        self._asked = 0
        self._map: tuple[dict[str, int], NDArray[np.intp], NDArray[np.intp]] | None = None

    def since(self, offset: int) -> pa.Table:
        """The rows from an offset on. Offsets have gaps: rows may be lost, or not be of the table."""
        if offset <= self.first:
            return self.table
        return self.table.slice(int(np.searchsorted(self.table.column(OFFSET).to_numpy(), offset)))

    def of(self, keys: Sequence[str]) -> pa.Table:
        """The rows of these keys, in the order they came."""
        column = self.table.column(self._key)
        self._asked += 1
        if self.table.num_rows < _INDEXED or (self._asked < _WORTH and self._map is None):
            wanted = pa.array(keys, pa.string()).cast(values_type(column.type))
            found = pc.equal(column, wanted[0]) if len(keys) == 1 else pc.is_in(column, wanted)
            return self.table.filter(found)
        if self._map is None:
            self._map = _map(column)
        names, order, stops = self._map
        places = [order[stops[at] : stops[at + 1]] for key in keys if (at := names.get(key)) is not None]
        if not places:
            return self.table.slice(0, 0)
        rows = places[0] if len(places) == 1 else np.sort(np.concatenate(places))
        return self.table.take(pa.array(rows))


def _map(column: pa.ChunkedArray) -> tuple[dict[str, int], NDArray[np.intp], NDArray[np.intp]]:
    encoded = column.combine_chunks()
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    codes = encoded.indices.to_numpy()
    count = len(encoded.dictionary)
    codes = codes.astype(np.uint16) if count < 1 << 16 else codes
    order = np.argsort(codes, kind="stable")
    stops = np.concatenate(([0], np.cumsum(np.bincount(codes, minlength=count))))
    return {key: at for at, key in enumerate(encoded.dictionary.to_pylist())}, order, stops


class Tail:
    """The rows of a stream from the rolled offset on. Safe for many threads."""

    def __init__(self, stream: Stream, layout: Layout, *, limit: int = _LIMIT) -> None:
        self.stream, self._layout, self._limit = stream, layout, limit
        self.after_fork()
        at_fork(self)
        self._rows: list[_Rows] = []
        self._next = 0
        self._schema: pa.Schema | None = None
        self._reader: Any = None

    def after_fork(self) -> None:
        self._mutex = threading.Lock()

    def tables(self, rolled: int, keys: Sequence[str] | None, low: int, high: int) -> tuple[list[pa.Table], int]:
        """Rows from offset `rolled` on with event times in [low, high), of `keys` (None: all), and the next offset.

        Raises  OffsetError when the log has forgotten some of them, which it does only once they are rolled.
        """
        if self.stream.next_offset - rolled > self._limit:
            found, stop = [], rolled
            for chunk in self.stream.chunks(rolled):
                rows = _Rows(with_system(chunk, self._layout), chunk.first, chunk.stop, self._layout)
                found.append(_timed(rows.table if keys is None else rows.of(keys), low, high))
                stop = chunk.stop
            return found, stop
        with self._mutex:
            self._update(rolled)
            held, stop = list(self._rows), self._next
        found = []
        for rows in held:
            if rows.stop <= rolled:
                continue
            table = rows.since(rolled) if keys is None else rows.of(keys)
            if keys is not None and rows.first < rolled:
                table = table.filter(pc.greater_equal(table.column(OFFSET), rolled))
            found.append(_timed(table, low, high))
        return found, stop

    def keys(self, rolled: int) -> dict[str, int]:
        """Rows of each key in the hot tier."""
        counts: dict[str, int] = {}
        for table in self.tables(rolled, None, -(2**63), 2**63 - 1)[0]:
            for found in pc.value_counts(table.column(self._layout.key)):
                key = found["values"].as_py()
                counts[key] = counts.get(key, 0) + found["counts"].as_py()
        return counts

    def _update(self, rolled: int) -> None:
        schema = self.stream.schema
        if self._schema is None or not schema.equals(self._schema):
            self._rows, self._schema = [], schema
        while self._rows and self._rows[0].stop <= rolled:
            del self._rows[0]
        if not self._rows or self._rows[0].first > rolled:
            if self._reader is None or self._next != rolled or self._rows:
                self._reader = self.stream.reader(rolled)
            self._rows, self._next = [], rolled
        while (chunk := self._reader.poll()) is not None:
            if not chunk.batch.schema.equals(self._schema):  # widened meanwhile: all of it anew
                self._rows = []
                self._next = -1
                return self._update(rolled)
            self._rows.append(_Rows(with_system(chunk, self._layout), chunk.first, chunk.stop, self._layout))
            self._next = chunk.stop
            self._join()
        return None

    def _join(self) -> None:
        """As digits carry: a chunk is joined with the one before it while that is not much larger."""
        rows = self._rows
        while len(rows) > 1 and rows[-2].table.num_rows <= min(2 * rows[-1].table.num_rows, _JOINED):
            table = pa.concat_tables([rows[-2].table, rows[-1].table]).combine_chunks()
            rows[-2:] = [_Rows(table, rows[-2].first, rows[-1].stop, self._layout)]


def _timed(table: pa.Table, low: int, high: int) -> pa.Table:
    if (low == -(2**63) and high == 2**63 - 1) or not table.num_rows:
        return table
    times = table.column(TIME).to_numpy()
    keep = (times >= low) & (times < high)
    return table if keep.all() else table.filter(pa.array(keep))
