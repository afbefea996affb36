"""Tables in an object store, by URL: Delta's log and data files through the package deltalake.

Only data files and Delta's log lie there; the hub with the streams, the tables' descriptions and the locks is a folder
of this machine. Commits are conditional writes, made by deltalake: of two that record an offset of the same table, or
take the same file, one fails. What an object store has acknowledged is durable, so nothing is flushed here.

deltalake runs threads of its own: a process that has used such a table must not fork.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, PyFileSystem

from penstock.clock import WALL
from penstock.errors import StorageError
from penstock.store.checkpoint import checkpoint_state
from penstock.store.delta import DeltaLog
from penstock.store.frames import library
from penstock.store.state import State

__all__ = ["RemoteFiles", "RemoteLog", "remote_url"]

_HOUR_NS = 3_600_000_000_000


def remote_url(base: str, table: str) -> str:
    """Where a table lies below the URL of a store's tables."""
    return f"{base.rstrip('/')}/{quote(table)}"


@dataclass(frozen=True, slots=True)
class RemoteFiles:
    """Data files below a URL."""

    log: RemoteLog

    def source(self, path: str) -> Any:
        """What pyarrow reads. Raises FileNotFoundError."""
        return self.log.fs.open_input_file(path)

    def write(self, path: str, data: pa.Buffer) -> None:
        """Write a new object; it is whole and durable when this returns."""
        try:
            # Not through pyarrow's file around it: that hands on buffers, for which this one has no use.
            file = self.log.handler._handler.open_output_stream(path, None)
            file.write(data.to_pybytes())
            file.close()
        except OSError as error:
            raise StorageError(
                expected=f"room for a data file of {data.size} bytes",
                got=str(error).split("\n")[0],
                where=f"at {path}",
                hint="look at the object store and its credentials",
            ) from error


class RemoteLog(DeltaLog):
    """Delta's log below a URL.

    Takes   folder: the table's folder on this machine; url; options: deltalake's storage options (keys, endpoint).
    Raises  UsageError when deltalake is not installed.
    """

    def __init__(self, folder: Path, url: str, options: dict[str, str] | None) -> None:
        super().__init__(folder)
        self.url, self._options = url, options
        self._delta = library("deltalake", f"tables at {url}")
        self.files = RemoteFiles(self)

    @cached_property
    def handler(self) -> Any:
        """Deltalake's hold on what is below the URL; only once the table is there."""
        from deltalake.fs import DeltaStorageHandler

        return DeltaStorageHandler(self.url, self._options)

    @cached_property
    def fs(self) -> FileSystem:
        """The same as pyarrow reads it."""
        return PyFileSystem(self.handler)

    def _bytes(self, name: str) -> bytes | None:
        try:
            with self.fs.open_input_file(f"_delta_log/{name}") as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None

    def _commit_at(self, version: int) -> list[dict[str, Any]] | None:
        data = self._bytes(f"{version:020}.json")
        return None if data is None else self._actions(version, data)

    def last_checkpoint(self) -> int | None:
        """Version of the last checkpoint, None when there is none."""
        note = self._bytes("_last_checkpoint")
        return None if note is None else int(json.loads(note)["version"])

    def _checkpoint_at(self, version: int) -> State:
        data = self._bytes(f"{version:020}.checkpoint.parquet")
        if data is None:
            raise FileNotFoundError(version)
        return checkpoint_state(pa.BufferReader(data), version, self.url)

    def create(self, schema: str, partitions: list[str], configuration: dict[str, str]) -> State:
        """Make an empty table, unless there is one."""
        (self.folder / "_penstock").mkdir(parents=True, exist_ok=True)
        try:
            self._delta.DeltaTable.create(
                self.url,
                self._delta.Schema.from_json(schema),
                mode="ignore",
                partition_by=partitions,
                configuration=configuration,
                raise_if_key_not_exists=False,
                storage_options=self._options,
            )
        except (OSError, self._delta.exceptions.DeltaError) as error:
            raise self._refused("a new table", error) from error
        return self.load()

    def commit(
        self, state: State, operation: str, actions: list[dict[str, Any]], check: Callable[[State], bool]
    ) -> State | None:
        """As `DeltaLog.commit`."""
        newer = self.load(state)
        if newer.version != state.version and not check(newer):
            return None
        transaction, found = self._delta.transaction, self._table()
        files: list[Any] = []
        marks: list[Any] = []
        for action in actions:
            if add := action.get("add"):
                add = {**add, "path": unquote(add["path"])}
                values = add["partitionValues"], add["modificationTime"], add["dataChange"], add["stats"]
                files.append(transaction.AddAction(add["path"], add["size"], *values))
            elif gone := action.get("remove"):
                at, values = gone["deletionTimestamp"], gone["partitionValues"]
                path = unquote(gone["path"])
                files.append(transaction.RemoveAction(path, gone["dataChange"], at, gone["size"], values))
            elif mark := action.get("txn"):
                marks.append(self._delta.Transaction(mark["appId"], mark["version"], mark.get("lastUpdated")))
            elif changed := action.get("metaData"):
                self._widen(found, newer, changed["schemaString"])
                found = self._table()
        properties = self._delta.CommitProperties(app_transactions=marks, custom_metadata={"penstock": operation})
        try:
            found.create_write_transaction(
                files, "append", found.schema(), found.metadata().partition_columns, commit_properties=properties
            )
        except self._delta.exceptions.CommitFailedError:
            return None
        except (OSError, self._delta.exceptions.DeltaError) as error:
            raise self._refused(f"a commit of {len(files)} files", error) from error
        return self.load(newer)

    def _table(self) -> Any:
        return self._delta.DeltaTable(self.url, storage_options=self._options)  # anew: a reused one gets slower

    def _widen(self, table: Any, state: State, schema: str) -> None:
        have = {field["name"] for field in json.loads(state.metadata["schemaString"])["fields"]}
        fields = [
            self._delta.Field.from_json(json.dumps(field))
            for field in json.loads(schema)["fields"]
            if field["name"] not in have
        ]
        if fields:
            table.alter.add_columns(fields)

    def checkpoint(self, state: State, keep_ns: int) -> None:
        """Write a checkpoint, and drop commits that it makes needless."""
        table = self._table()
        table.create_checkpoint()
        table.cleanup_metadata()

    def sweep(self, state: State, oldest: int) -> int:
        """Remove data files that no state names and that are older than `oldest` (ns UTC); returns how many.

        In whole hours: that is how deltalake counts.
        """
        hours = math.ceil(max(0, WALL.now_ns() - oldest) / _HOUR_NS) if oldest < WALL.now_ns() - _HOUR_NS else 0
        removed = self._table().vacuum(
            retention_hours=hours, enforce_retention_duration=False, dry_run=False, full=True
        )
        return len(removed)

    def drop(self) -> None:
        """Remove every object of the table."""
        for found in self.fs.get_file_info(FileSelector("", recursive=True, allow_not_found=True)):
            if found.is_file:
                self.fs.delete_file(found.path)

    def _refused(self, wanted: str, error: Exception) -> StorageError:
        return StorageError(
            expected=f"the object store to take {wanted}",
            got=str(error).split("\n")[0],
            where=f"at {self.url}",
            hint="look at the URL, at storage_options= and at the credentials",
        )
