"""Which tables there are: making one, finding it by its path, dropping it or a key of it."""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import json
import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa

from penstock.clock import WALL
from penstock.errors import KeyNotFound, PenstockError, StorageError, UnknownStream, UsageError
from penstock.hub import Hub
from penstock.log.disk import replacing, storage, sync_folder
from penstock.log.lock import FileLock, at_fork
from penstock.store.columns import settled_schema
from penstock.store.compact import Progress
from penstock.store.delta import DeltaLog
from penstock.store.erase import erase
from penstock.store.layout import Layout, delta_schema, stored
from penstock.store.paths import check_path, check_table, has_wildcard, inside, near_all
from penstock.store.remote import remote_url
from penstock.store.roll import GROUP, locked
from penstock.store.state import RETENTION
from penstock.store.table import Table
from penstock.store.tiers import own_stream

__all__ = ["Catalogue"]

FORMAT: Final = 1
_ABOUT: Final = "_penstock/table.json"
_GRAVE: Final = ".dropped-"


class Catalogue:
    """The tables of a hub, by name.

    Takes   url: where the files of tables made from now on lie, instead of the hub's folder; storage_options: of URLs.
    """

    def __init__(self, hub: Hub, url: str | None, storage_options: dict[str, str] | None) -> None:
        self.hub, self._url, self._storage_options = hub, url, storage_options
        self.path = hub.path / "tables"
        self._root = str(self.path)
        self._tables: dict[str, tuple[tuple[int, int], Table]] = {}
        self.after_fork()
        at_fork(self)

    def after_fork(self) -> None:
        self._mutex = threading.Lock()

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
            fields = [f.with_nullable(f.nullable and f.name not in required) for f in settled_schema(schema)]
            schema = pa.schema(fields, {**(schema.metadata or {}), b"penstock.event": layout.time.encode()})
            if self.hub.streams.exists(own):  # a creation or a drop was killed
                with contextlib.suppress(UnknownStream):
                    self.hub.streams.drop(own)
            self.hub.streams.get(
                own, schema=schema, durability=durability, retention={"until": GROUP}, segment_bytes=64 << 20
            )
        text = delta_schema(stored(schema, layout), layout)
        configuration = {"penstock.layout": json.dumps(layout.as_dict()), RETENTION: "interval 30 days"}
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

    def drop(self, path: str, *, progress: Progress | None = None) -> None:
        """Remove a table, or a key of it: rows and history, for every process and every `as_of`.

        An adopted stream stays. A key's data files are written again without it, which takes about a second per
        million rows; rows of it that are written later begin it anew. See `erase.erase`.
        Takes   progress: called with (rows done, rows in all) while a key is removed.
        Raises  KeyNotFound; UsageError for a pattern.
        """
        table, key = self.split(path)
        if key is None:
            self._drop(table)
        elif has_wildcard(key) and key not in table.counts():
            raise UsageError(
                expected="a table, or one key of it",
                got=repr(path),
                where="in store.drop",
                hint="drop the keys that store.ls() gives for the pattern, one by one",
            )
        else:
            erase(table, key, progress=progress)

    def _drop(self, table: Table) -> None:
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

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with contextlib.ExitStack() as held:
            with storage(self.hub.path, "tables"):
                self.path.mkdir(exist_ok=True)
                held.enter_context(FileLock.held(self.path / ".lock"))
            yield


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}-{os.getpid()}.new")
    with storage(path.parent, f"{len(data)} bytes"):
        with replacing(path, temporary) as file:
            file.write(data)
