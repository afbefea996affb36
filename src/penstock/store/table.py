"""One table: rows go into its stream, and come out as `readable` says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import SchemaMismatch, TypeMismatch, UnknownStream, UsageError
from penstock.hub import Hub
from penstock.log.format import origin_id
from penstock.records import event_times, to_batches
from penstock.store.columns import carrier, settled
from penstock.store.delta import DeltaLog
from penstock.store.layout import KNOWN, OFFSET, Layout, taken_name
from penstock.store.paths import check_key
from penstock.store.readable import Readable
from penstock.store.wish import EVER

__all__ = ["PASSING", "Table"]

PASSING: Final = -1  # the index of an origin that nobody comes back to after a while
_CONNECTION: Final = "client/"


class Table(Readable):
    """A table of a store; get it by `store.table(name)`. Safe for many threads, and for any number of processes.

    It is a target of `penstock.connect`, too: `Dataset("bars.parquet").stream(store.table("historical/minute"))`.
    """

    def __init__(self, name: str, folder: Path, layout: Layout, app: str, hub: Hub, stream: str, log: DeltaLog) -> None:
        super().__init__(name, folder, layout, app, hub, stream, log)
        self._alike: tuple[pa.Schema, pa.Schema] | None = None  # the stream's schema, and the last data's that fits it
        self._checked: set[str] = set()  # keys known to be good

    def write(self, data: Any, *, key: str | None = None, origin: Any = None) -> range:
        """Add rows; returns their offsets. Durable against a killed process, and visible, when it returns.

        Takes   data: what a stream takes: an Arrow, polars or pandas frame, dicts. A row with the identity of one that
                is there corrects it. Columns the table has not are added to it when they may be null; a column
                `ts_known` (int64 ns) says since when a row was known, null for now;
                key: the key of rows that have no key column;
                origin: (source, position), as for `Stream.append`. A source whose name begins with "client/" is one
                connection: how far it came is kept for 30 days after its last rows, of others for ever.
        Raises  SchemaMismatch, TypeMismatch, UsageError for a key that no path can name; nothing was written then.
        Cost    about 40 µs for 100 rows; a copy of a large frame's columns.
        """
        stream = self._stream or self.stream
        try:
            schema = stream.schema
        except UnknownStream as error:
            raise self.gone() from error
        where = f"table {self.name!r}"
        fitting = self._fitting(data, schema) if key is None else None
        if fitting is not None:
            batches = [fitting]
        else:
            batches = self._batches(data, schema, key, where)
            if batches and not batches[0].schema.equals(schema):
                stream.widen(batches[0].schema)
        for batch in batches:
            self._check_keys(batch.column(schema.get_field_index(self.layout.key)))
            self._check_times(batch)
        if not batches:
            stop = stream.next_offset
            return range(stop, stop)
        whole = batches[0] if len(batches) == 1 else pa.Table.from_batches(batches)
        if isinstance(origin, tuple | list) and len(origin) == 2 and str(origin[0]).startswith(_CONNECTION):
            origin = (*origin, PASSING)
        try:
            return stream.append(whole, origin=origin)
        except UnknownStream as error:
            raise self.gone() from error

    def _fitting(self, data: Any, schema: pa.Schema) -> pa.RecordBatch | None:
        """`data` as a batch of the table's schema, when all it may lack is the note that key and time are not null.

        The general way there (`conform`) costs more than the append.
        """
        if not isinstance(data, pa.Table | pa.RecordBatch) or not data.num_rows:
            return None
        found = data.schema
        if not (self._alike is not None and self._alike[0] is schema and self._alike[1].equals(found)):
            if found.names != schema.names or found.types != schema.types or any(field.metadata for field in found):
                return None
            self._alike = (schema, found)
        columns = data.columns
        if isinstance(data, pa.Table):
            if any(column.num_chunks != 1 for column in columns):
                return None
            columns = [column.chunk(0) for column in columns]
        for column, field in zip(columns, schema, strict=True):
            if column.null_count and not field.nullable:
                return None
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    append = write  # the name by which sources of penstock.connect know it

    def last_origin(self, who: str) -> tuple[int, int] | None:
        """How far a source has come, see `Stream.last_origin`; kept when the rows are rolled and forgotten."""
        found = self.stream.last_origin(who)
        position = self.state().transactions.get(self.origin_app(origin_id(who))) if found is None else found[0]
        return None if position is None else (position, 0)

    def origin_app(self, origin: int) -> str:
        """Under which name a commit records how far a source has come, by its number in the stream's index."""
        return f"{self.app}/{origin:016x}"

    def _batches(self, data: Any, schema: pa.Schema, key: str | None, where: str) -> list[pa.RecordBatch]:
        """`data` as batches of the table's columns and new ones."""
        rows = isinstance(data, dict) or (
            (not hasattr(data, "__arrow_c_stream__") and not hasattr(data, "__arrow_c_array__"))
            and not hasattr(data, "iloc")
        )
        if rows:
            if key is not None and isinstance(data, Iterable):
                found = [data] if isinstance(data, Mapping) else data
                data = [{self.layout.key: key, **row} if isinstance(row, Mapping) else row for row in found]
            return to_batches(data, schema, where=where)
        names = data.schema.names if isinstance(data, pa.Table | pa.RecordBatch) else [OFFSET]
        if key is None and all(name in schema.names for name in names):
            return to_batches(data, schema, where=where)
        batches = to_batches(data, None, where=where)
        if key is not None:
            batches = [self._with_key(batch, key) for batch in batches]
        if not batches:
            return []
        added = [field for field in batches[0].schema if field.name not in schema.names]
        for field in added:
            if not field.nullable:
                batches = [_nullable(batch, field.name) for batch in batches]
            carrier(field, self.name)
            if field.name == KNOWN:
                raise self._told_late()
        wide = schema
        for field in added:
            if field.name == self.layout.date:
                raise taken_name(field, self.name)
            wide = wide.append(pa.field(field.name, settled(field.type)))
        self.layout.check_names(wide, self.name)
        return [batch for found in batches for batch in to_batches(found, wide, where=where)]

    def _told_late(self) -> SchemaMismatch:
        """What repeats a row is dropped by compactions; one that was known before it would have to come between."""
        return SchemaMismatch(
            expected=f"a table that was made with a column `{KNOWN}`",
            got="one without it",
            where=f"in table {self.name!r}",
            hint="make another table with it, and write what was known when there",
            column=KNOWN,
        )

    def _with_key(self, batch: pa.RecordBatch, key: str) -> pa.RecordBatch:
        if self.layout.key not in batch.schema.names:
            return batch.append_column(self.layout.key, pa.repeat(key, batch.num_rows))
        if not pc.all(pc.equal(batch.column(self.layout.key), key)).as_py():
            raise UsageError(
                expected=f"rows of key {key!r}",
                got="rows of other keys",
                where=f"in table {self.name!r}",
                hint=f"write to {self.name!r}, without the key",
            )
        return batch

    def _check_keys(self, column: pa.Array) -> None:
        if column.null_count:
            check_key(None, f"in `{self.layout.key}`, in table {self.name!r}")
        known = self._checked
        keys = pc.unique(column).to_pylist()
        if known.issuperset(keys):
            return
        for key in keys:
            check_key(key, f"in `{self.layout.key}`, in table {self.name!r}")
        if len(known) > 100_000:
            known.clear()
        known.update(keys)

    def _check_times(self, batch: pa.RecordBatch) -> None:
        """The two outermost times stand for "ever" and "not a time"; a row there could not be read again."""
        times = event_times(batch, self.layout.time)
        if times.min() == EVER[0] or times.max() == EVER[1]:
            raise TypeMismatch(
                expected=f"a time for `{self.layout.time}`",
                got="the smallest or greatest int64",
                where=f"in table {self.name!r}",
                hint="drop such rows, or fill the event time",
                column=self.layout.time,
            )


def _nullable(batch: pa.RecordBatch, name: str) -> pa.RecordBatch:
    at = batch.schema.get_field_index(name)
    return batch.set_column(at, batch.schema.field(at).with_nullable(True), batch.column(at))
