"""The store: tables and keys by path, over a hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import pyarrow as pa

from penstock.connect import Dataset, DatasetStatistics
from penstock.errors import KeyNotFound, SchemaMismatch, UsageError
from penstock.hub import Hub
from penstock.hub import open as open_hub
from penstock.records import to_batches
from penstock.store.catalogue import Catalogue
from penstock.store.compact import GRACE, Progress
from penstock.store.exchange import export, import_files
from penstock.store.frames import converted
from penstock.store.paths import check_path, has_wildcard
from penstock.store.query import sql
from penstock.store.replay import replay
from penstock.store.roll import roll
from penstock.store.stats import statistics
from penstock.store.table import Table
from penstock.store.upkeep import Maintained, Upkeep, maintain_all

__all__ = ["Store", "open"]


def open(
    hub: str | os.PathLike[str] | Hub | None = None,
    *,
    create: bool = True,
    tables: str | None = None,
    storage_options: dict[str, str] | None = None,
) -> Store:
    """Open the store of a hub.

    Takes   hub: its folder, made at first use, or a hub that is open; None: $PENSTOCK_HUB, or ./penstock-data;
            create: False to refuse a folder that is no hub;
            tables: URL of an object store ("s3://bucket/folder") where the files of tables made from now on lie;
            storage_options: keys and endpoints of object stores, as deltalake takes them; they are not kept.
    Raises  UsageError, StorageError, ReadOnly, UnknownStream when not `create`.

    >>> store = open("data")
    """
    if tables is not None and (
        not isinstance(tables, str) or "://" not in tables or tables.startswith("memory://")  # which forgets all of it
    ):
        raise UsageError(
            expected="the URL of an object store that keeps what it is given",
            got=repr(tables),
            where="in tables",
            hint='such as "s3://bucket/folder"; without it, tables lie in the hub\'s folder',
        )
    own = not isinstance(hub, Hub)
    found = hub if isinstance(hub, Hub) else open_hub(hub, create=create)
    return Store(found, own=own, url=tables, storage_options=storage_options)


class Store(Catalogue):
    """Tables of a hub. Threads and processes may share one; `with` closes it."""

    def __init__(
        self, hub: Hub, *, own: bool = False, url: str | None = None, storage_options: dict[str, str] | None = None
    ) -> None:
        super().__init__(hub, url, storage_options)
        self._own = own

    # -- rows

    def write(self, path: str, data: Any, *, origin: Any = None) -> range:
        """Add rows to a table, or to one key of it. Durable against a killed process, and visible, when it returns.

        A table that is not there is made from a frame: by its columns `symbol` and `ts_event`. See `Table.write`.
        """
        try:
            table, key = self.split(path)
        except KeyNotFound:
            table, key, data = self._first(check_path(path), data)
        return table.write(data, key=key, origin=origin)

    def _first(self, path: str, data: Any) -> tuple[Table, str | None, Any]:
        """A table for the first rows of a path: its name, or, when they have no key column, all but the last part."""
        if isinstance(data, dict | list) or not (hasattr(data, "__arrow_c_stream__") or hasattr(data, "iloc")):
            raise SchemaMismatch(
                expected="a frame, whose columns the new table gets",
                got=type(data).__name__,
                where=f"in the first write to {path!r}",
                hint="make the table before: store.create(name, schema)",
                column=None,
            )
        batches = to_batches(data, None, where=f"table {path!r}")
        schema = batches[0].schema if batches else getattr(data, "schema", None)
        if not isinstance(schema, pa.Schema):
            raise SchemaMismatch(
                expected="rows", got="none", where=f"in the first write to {path!r}", hint="make the table before"
            )
        frame = pa.Table.from_batches(batches, schema)
        if "symbol" in schema.names or "/" not in path:
            return self.create(path, schema.remove_metadata()), None, frame
        name, _, key = path.rpartition("/")
        schema = pa.schema([pa.field("symbol", pa.string(), False), *schema])
        return self.create(name, schema), key, frame

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
        """The rows of a key, of keys by pattern ("historical/minute/A*"), or of a whole table. See `Table.read`.

        Takes   to: "arrow" (a pyarrow.Table), "polars" or "pandas".
        """
        table, key = self.split(path)
        found = table.read(key, start, end, columns, as_of=as_of, revisions=revisions, on_corrupt=on_corrupt)
        return converted(found, to)

    def ls(self, prefix: str = "") -> list[str]:
        """Tables below a prefix, or the keys of a table; patterns pick some. Sorted full paths."""
        if not prefix:
            return self.tables()
        path = check_path(prefix.rstrip("/"))
        try:
            table, key = self.split(path)
        except KeyNotFound:
            found = self.tables(path if has_wildcard(path) else path + "/*")
            if not found:
                raise
            return found
        return [f"{table.name}/{found}" for found in table.keys("*" if key is None else key)]

    def schema(self, path: str) -> pa.Schema:
        """The columns of a table."""
        return self.split(path)[0].schema

    def flush(self, path: str | None = None) -> int:
        """Roll all rows of a table, or of all tables, into data files now; returns how many."""
        names = self.tables() if path is None else [self.split(path)[0].name]
        return sum(roll(self.table(name), force=True).rows for name in names)

    def replay(self, path: str, start: Any = None, end: Any = None, **options: Any) -> Dataset:
        """A stored range as a source, in the order of event times: `.stream(stream)` appends it, at `pace=` "60x", …

        Takes   path: a table, a key, or keys by pattern; see `replay.replay` for the rest.
        """
        table, key = self.split(path)
        return replay(table, None if key == "*" else key, start, end, **options)

    def import_files(self, path: str, data: Any, **options: Any) -> DatasetStatistics:
        """Append the rows of Parquet, CSV or Arrow files to a table that is there. See `exchange.import_files`."""
        table, key = self.split(path)
        if key is not None:
            options["constants"] = {**options.get("constants", {}), table.layout.key: key}
        return import_files(table, data, **options)

    def export(
        self, path: str, file: str | os.PathLike[str], start: Any = None, end: Any = None, **options: Any
    ) -> int:
        """Write a table, or a key of it, to one Parquet, CSV or Arrow file; returns the rows. See `exchange.export`."""
        table, key = self.split(path)
        return export(table, key, file, start, end, **options)

    def sql(self, query: str, **options: Any) -> pa.Table:
        """The answer of a query over tables, their names in double quotes. See `query.sql`."""
        return sql(self, query, **options)

    # -- keeping

    def maintain(
        self,
        path: str | None = None,
        *,
        force: bool = False,
        grace: Any = GRACE,
        progress: Progress | None = None,
        failed: Callable[[str, Exception], None] | None = None,
    ) -> dict[str, Maintained]:
        """Roll, compact, vacuum and write checkpoints where that is due, of a table or of all; what was done to each.

        Takes   force: all of it, due or not; grace: how long replaced files stay for other programs' readers;
                progress: called with (rows done, rows in all) by compactions;
                failed: called with (table, error), a warning without it; other tables go on.
        """
        names = self.tables() if path is None else [self.split(path)[0].name]
        return maintain_all(self, names, force=force, grace=grace, progress=progress, failed=failed)

    def upkeep(self, *, every: float = 5.0, process: bool = False) -> Upkeep:
        """Have that done every few seconds, by a thread or by a process, until the result is closed."""
        return Upkeep(self, every=every, process=process)

    def stats(self, level: int = 0) -> dict[str, Any]:
        """Numbers of the store, in JSON's types: 0 its sums, 1 also of each table, 2 also of each key."""
        return statistics(self, level)

    def close(self) -> None:
        """Give open files back; a hub that was handed in stays open."""
        with self._mutex:
            self._tables.clear()
        if self._own:
            self.hub.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({str(self.hub.path)!r})"
