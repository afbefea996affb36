"""The store: tables and keys by path, over a hub."""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import json
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import pyarrow as pa

from penstock.clock import WALL
from penstock.connect import Dataset, DatasetStatistics
from penstock.errors import KeyNotFound, PenstockError, SchemaMismatch, StorageError, UnknownStream, UsageError
from penstock.hub import Hub
from penstock.hub import open as open_hub
from penstock.log.disk import replacing, storage, sync_folder
from penstock.log.lock import FileLock, at_fork
from penstock.records import to_batches
from penstock.store.compact import GRACE, Progress
from penstock.store.delta import DeltaLog
from penstock.store.exchange import export, import_files
from penstock.store.frames import converted
from penstock.store.layout import Layout, delta_schema, stored
from penstock.store.paths import check_path, check_table, has_wildcard, inside
from penstock.store.query import sql
from penstock.store.remote import remote_url
from penstock.store.replay import replay
from penstock.store.roll import GROUP, locked, roll
from penstock.store.stats import statistics
from penstock.store.table import Table, near_all, own_stream
from penstock.store.upkeep import Maintained, Upkeep, maintain_all

__all__ = ["Store", "open"]

FORMAT: Final = 1
_ABOUT: Final = "_penstock/table.json"
_GRAVE: Final = ".dropped-"


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
    if tables is not None and (not isinstance(tables, str) or "://" not in tables):
        raise UsageError(
            expected="the URL of an object store",
            got=repr(tables),
            where="in tables",
            hint='such as "s3://bucket/folder"; without it, tables lie in the hub\'s folder',
        )
    own = not isinstance(hub, Hub)
    found = hub if isinstance(hub, Hub) else open_hub(hub, create=create)
    return Store(found, own=own, url=tables, storage_options=storage_options)


class Store:
    """Tables of a hub. Threads and processes may share one; `with` closes it."""

    def __init__(
        self, hub: Hub, *, own: bool = False, url: str | None = None, storage_options: dict[str, str] | None = None
    ) -> None:
        self.hub, self._own = hub, own
        self._url, self._storage_options = url, storage_options
        self.path = hub.path / "tables"
        self._root = str(self.path)
        self._tables: dict[str, tuple[tuple[int, int], Table]] = {}
        self.after_fork()
        at_fork(self)

    def after_fork(self) -> None:
        self._mutex = threading.Lock()

    # -- tables

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
        stream: str | None = None,
        durability: str | None = None,
    ) -> Table:
        """Make a table, or open the one that is there if it is the same.

        Takes   schema: its columns; key, time, identity, rows, partition: see `layout.Layout`;
                stream: an existing stream whose rows are the table's, whoever appends them, and which keeps its own
                retention; without it, the table has a stream of its own, which forgets what is in data files;
                durability: of that stream, "os" | "group" | "always" (see `penstock.log.Options`).
        Raises  UsageError, SchemaMismatch; UsageError when the table is there with another layout, or lies inside
                another one.
        """
        name = check_table(name)
        if stream is not None:
            schema = self.hub.streams.get(stream, create=False).schema
        options = {"key": key, "time": time, "identity": identity, "rows": rows, "partition": partition}
        layout = Layout.of(schema, name, **options)
        with self._locked():
            if self.exists(name):
                table = self.table(name)
                if table.layout != layout or (stream is not None and table.stream.name != stream):
                    raise UsageError(
                        expected=f"the layout of table {name!r}, {table.layout.as_dict()}",
                        got=f"{layout.as_dict()}",
                        where="in store.create",
                        hint="use another name, or drop the table",
                    )
                return table
            self._check_place(name)
            self._make(name, schema, layout, stream, durability)
        return self.table(name)

    def _make(self, name: str, schema: pa.Schema, layout: Layout, stream: str | None, durability: str | None) -> None:
        folder = inside(self.path, self.path / name)
        own = own_stream(name)
        if stream is None:
            required = (layout.key, layout.time)
            fields = [f.with_nullable(f.nullable and f.name not in required) for f in schema]
            schema = pa.schema(fields, {**(schema.metadata or {}), b"penstock.event": layout.time.encode()})
            if self.hub.streams.exists(own):  # a creation or a drop was killed
                with contextlib.suppress(UnknownStream):
                    self.hub.streams.drop(own)
            self.hub.streams.get(
                own, schema=schema, durability=durability, retention={"until": GROUP}, segment_bytes=64 << 20
            )
        text = delta_schema(stored(schema, layout), layout)
        configuration = {"penstock.layout": json.dumps(layout.as_dict())}
        url = None if self._url is None else remote_url(self._url, name)
        self._log(folder, url).create(text, layout.partition_columns, configuration)
        about = {
            "format": FORMAT,
            "name": name,
            "app": f"penstock/{uuid.uuid4().hex}",
            "stream": stream or own,
            "url": url,
            "layout": layout.as_dict(),
            "schema": base64.b64encode(schema.serialize().to_pybytes()).decode(),
        }
        _write(folder / _ABOUT, json.dumps(about, indent=1).encode() + b"\n")
        # The names of all folders on the way, too: the log will forget what is said to lie in them.
        while folder != self.hub.path:
            sync_folder(folder)
            folder = folder.parent
        sync_folder(self.hub.path)
        sync_folder(self.hub.path / "streams")

    def _log(self, folder: Path, url: str | None) -> DeltaLog:
        if url is None:
            return DeltaLog(folder)
        from penstock.store.remote import RemoteLog

        return RemoteLog(folder, url, self._storage_options)

    def _check_place(self, name: str) -> None:
        for other in self.tables():
            if name.startswith(other + "/") or other.startswith(name + "/"):
                raise UsageError(
                    expected="a table that is not inside another",
                    got=repr(name),
                    where=f"in the store, which has {other!r}",
                    hint="use another name",
                )

    def exists(self, name: str) -> bool:
        """Whether there is a table of that name."""
        return (self.path / check_table(name) / _ABOUT).exists()

    def table(self, name: str) -> Table:
        """A table. Raises KeyNotFound with near names; UsageError for a name that leads out of the store."""
        kept = self._known(name)
        if kept is not None:
            return kept
        name = check_path(name)
        folder = self.path / name
        try:
            found = os.stat(folder / _ABOUT)
        except (FileNotFoundError, NotADirectoryError):
            raise self._unknown(name) from None
        stamp = (found.st_ino, found.st_mtime_ns)
        inside(self.path, folder)
        try:
            about = json.loads((folder / _ABOUT).read_bytes())
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']!r}")
            layout, url = Layout.from_dict(about["layout"]), about["url"]
            table = Table(name, folder, layout, about["app"], self.hub, about["stream"], self._log(folder, url))
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, PenstockError):
                raise
            raise StorageError(
                expected=f"the description of a table, format {FORMAT}",
                got=f"{type(error).__name__}: {error}",
                where=f"in {folder / _ABOUT}",
                hint="restore the file from a copy, or update penstock",
            ) from error
        with self._mutex:
            self._tables[name] = (stamp, table)
        return table

    def _known(self, name: str) -> Table | None:
        """A table that was opened before and is still the one of its name. Cost: one system call."""
        kept = self._tables.get(name) if isinstance(name, str) else None
        if kept is None:
            return None
        try:
            found = os.stat(f"{self._root}/{name}/{_ABOUT}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        return kept[1] if kept[0] == (found.st_ino, found.st_mtime_ns) else None

    def tables(self, pattern: str = "*") -> list[str]:
        """Names of tables that match a shell pattern, sorted."""
        found = []
        for folder, names, _ in os.walk(self.path):
            if os.path.exists(os.path.join(folder, _ABOUT)):
                found.append(Path(folder).relative_to(self.path).as_posix())
                names.clear()
            names[:] = [name for name in names if name[0] not in "._"]
        return sorted(fnmatch.filter(found, pattern))

    def split(self, path: str) -> tuple[Table, str | None]:
        """The table and the key (None: all) that a path names. Raises KeyNotFound, UsageError."""
        kept = self._known(path)
        if kept is not None:
            return kept, None
        path = check_path(path)
        parts = path.split("/")
        for count in range(1, len(parts) + 1):  # no table lies inside another: the first is the one
            name = "/".join(parts[:count])
            if name in self._tables or os.path.exists(f"{self._root}/{name}/{_ABOUT}"):
                return self.table(name), "/".join(parts[count:]) or None
        raise self._unknown(path)

    def _unknown(self, path: str) -> KeyNotFound:
        names = self.tables()
        close = near_all(path, names) or near_all(path.rpartition("/")[0], names)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"the store has {len(names)} tables"
        return KeyNotFound(f"no table {path!r}", where=f"in {self.path}", hint=hint, near=close)

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

    def drop(self, name: str) -> None:
        """Remove a table, its rows and its history, for every process; an adopted stream stays.

        Raises  KeyNotFound.
        """
        table = self.table(name)
        with self._locked(), locked(table), storage(self.path, "a removal"):  # no roll or compaction is under way then
            own = own_stream(table.name)
            with contextlib.suppress(UnknownStream):
                self.hub.streams.drop(own)
            grave = self.path / f"{_GRAVE}{WALL.now_ns()}-{os.getpid()}"
            os.rename(table.folder, grave)
            table.log.drop()
            with self._mutex:
                self._tables.pop(table.name, None)
            parent = table.folder.parent
            while parent != self.path and not any(parent.iterdir()):
                parent.rmdir()
                parent = parent.parent
            for found in self.path.glob(f"{_GRAVE}*"):
                shutil.rmtree(found, ignore_errors=True)

    def _locked(self) -> AbstractContextManager[FileLock]:
        with storage(self.hub.path, "tables"):
            self.path.mkdir(exist_ok=True)
        return FileLock.held(self.path / ".lock")

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


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}-{os.getpid()}.new")
    with storage(path.parent, f"{len(data)} bytes"):
        with replacing(path, temporary) as file:
            file.write(data)
