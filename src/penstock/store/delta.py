"""Delta's transaction log in a folder of this machine: read it, and add to it durably.

The log is `_delta_log/N.json`, one commit each, its actions one JSON object per line, and now and then a checkpoint,
which is all before it as one Parquet file (Delta Transaction Log Protocol, reader version 1, writer version 2). A
commit is there when its file is: it is written and flushed under another name, then linked to its number, which only
one writer can have. So what is visible survives a lost power supply, and whoever lost the race looks at what came in
between.

Other libraries may write here, too: what they commit is read, but what needs a newer reader is refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from penstock.clock import WALL
from penstock.errors import StorageError
from penstock.log.disk import storage, sync_folder
from penstock.store.checkpoint import last_version, read_checkpoint
from penstock.store.files import Files, LocalFiles
from penstock.store.state import READER, DataFile, State

__all__ = ["DeltaLog", "add_action", "remove_action", "txn_action"]

_WRITER: Final = 2


def add_action(file: DataFile, *, data_change: bool = True) -> dict[str, Any]:
    """The action that makes a file part of the table."""
    stats = {"numRecords": file.rows, "minValues": file.low, "maxValues": file.high, "nullCount": {}}
    return {
        "add": {
            "path": quote(file.path, safe="/=-_.~"),
            "partitionValues": file.partition,
            "size": file.size,
            "modificationTime": file.modified_ms,
            "dataChange": data_change,
            "stats": json.dumps(stats, separators=(",", ":")),
        }
    }


def remove_action(file: DataFile, *, data_change: bool = True) -> dict[str, Any]:
    """The action that takes a file out of the table; its bytes stay until a vacuum."""
    return {
        "remove": {
            "path": quote(file.path, safe="/=-_.~"),
            "deletionTimestamp": WALL.now_ns() // 1_000_000,
            "dataChange": data_change,
            "extendedFileMetadata": True,
            "partitionValues": file.partition,
            "size": file.size,
        }
    }


def txn_action(app: str, version: int, *, expires: bool = False) -> dict[str, Any]:
    """The action that records how far a writer has come, in the same commit as its files.

    Takes   expires: whether it may be forgotten, RETENTION after its last; other programs keep to that, too.
    """
    time = {"lastUpdated": WALL.now_ns() // 1_000_000} if expires else {}
    return {"txn": {"appId": app, "version": version, **time}}


class DeltaLog:
    """The log of the table in `folder`. Safe for many threads and processes; holds no file open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: Files = LocalFiles(folder)
        self._log = folder / "_delta_log"

    def _path(self, version: int) -> str:
        return f"{self._log}/{version:020}.json"

    def load(self, known: State | None = None) -> State:
        """The newest state. Cost: one failed open when `known` is it, else about 0.1 ms per commit since."""
        state = known if known is not None else self._start()
        now_ms, version = WALL.now_ns() // 1_000_000, state.version
        actions: list[dict[str, Any]] = []
        while (found := self._commit_at(version + 1)) is not None:
            version += 1
            actions += found
        if version == state.version:
            return state if known is not None else state.without_expired(now_ms)
        try:
            return state.advanced(version, actions, str(self.folder)).without_expired(now_ms)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            got = f"{type(error).__name__}: {error}"
            raise self._damaged(f"actions of Delta in commit {version} and before", got) from error

    def _start(self) -> State:
        """The last checkpoint, or nothing."""
        for _ in range(5):  # a newer one may take its place while it is read
            version = self.last_checkpoint()
            if version is None:
                return State()
            try:
                return self._checkpoint_at(version)
            except FileNotFoundError:
                continue
        raise self._damaged("its last checkpoint", "no such file")

    def last_checkpoint(self) -> int | None:
        """Version of the last checkpoint, None when there is none."""
        return last_version(self._log)

    def _checkpoint_at(self, version: int) -> State:
        return read_checkpoint(self._log, version, str(self.folder))

    def _commit_at(self, version: int) -> list[dict[str, Any]] | None:
        try:
            with open(self._path(version), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return None
        return self._actions(version, data)

    def _actions(self, version: int, data: bytes) -> list[dict[str, Any]]:
        try:
            return [json.loads(line) for line in data.splitlines() if line.strip()]
        except ValueError as error:
            raise self._damaged(f"commit {version} as JSON", str(error)) from error

    def _damaged(self, expected: str, got: str) -> StorageError:
        return StorageError(
            expected=expected,
            got=got,
            where=f"in {self._log}",
            hint="restore the file; rows that the log still keeps are rolled again",
        )

    def create(self, schema: str, partitions: list[str], configuration: dict[str, str]) -> State:
        """Make an empty table, unless there is one."""
        with storage(self.folder, "a new table"):
            self._log.mkdir(parents=True, exist_ok=True)
            (self.folder / "_penstock").mkdir(exist_ok=True)
        state = self.load()
        if state.version >= 0:
            return state
        metadata = {
            "id": str(uuid.uuid4()),
            "format": {"provider": "parquet", "options": {}},
            "schemaString": schema,
            "partitionColumns": partitions,
            "configuration": configuration,
            "createdTime": WALL.now_ns() // 1_000_000,
        }
        actions: list[dict[str, Any]] = [{"protocol": {"minReaderVersion": READER, "minWriterVersion": _WRITER}}]
        actions.append({"metaData": metadata})
        with contextlib.suppress(_Taken):
            self._link(0, self._lines("CREATE TABLE", actions))
        return self.load()

    def commit(
        self, state: State, operation: str, actions: list[dict[str, Any]], check: Callable[[State], bool]
    ) -> State | None:
        """Add a commit, durably: when this returns a state, a lost power supply keeps it.

        Takes   state: what `actions` were made from; check: called with every newer state that another writer has
                made meanwhile: whether `actions` still hold there.
        Returns the state with the commit in it, or None when `check` said no.
        """
        lines = self._lines(operation, actions)
        while True:
            newer = self.load(state)
            if newer.version != state.version and not check(newer):
                return None
            state = newer
            try:
                self._link(state.version + 1, lines)
            except _Taken:
                continue
            made = state.advanced(state.version + 1, actions, str(self.folder))
            return made.without_expired(WALL.now_ns() // 1_000_000)

    def checkpoint(self, state: State, keep_ns: int) -> None:
        """Write a checkpoint of `state`, and drop commits before it that are older than `keep_ns`."""
        from penstock.store.checkpoint import write_checkpoint

        write_checkpoint(self._log, state)
        oldest = WALL.now_ns() - keep_ns
        for entry in list(os.scandir(self._log)):
            version = entry.name[:20]
            if version.isdigit() and int(version) < state.version and entry.stat().st_mtime_ns < oldest:
                Path(entry.path).unlink(missing_ok=True)

    def sweep(self, state: State, oldest: int) -> int:
        """Remove data files that `state` does not name and that are dead since before `oldest` (ns UTC); how many."""
        removed = 0
        for folder, names, files in os.walk(self.folder):
            names[:] = [name for name in names if name[0] not in "_."]
            for name in files:
                path = Path(folder, name)
                inside = path.relative_to(self.folder).as_posix()
                if not name.endswith(".parquet") or inside in state.files:
                    continue
                dead = state.removed.get(inside)
                if (path.stat().st_mtime_ns if dead is None else dead * 1_000_000) <= oldest:
                    path.unlink(missing_ok=True)
                    removed += 1
        return removed

    def drop(self) -> None:
        """Remove what does not lie in the table's folder."""

    def with_schema(self, state: State, schema: str) -> dict[str, Any] | None:
        """The action by which the table takes another schema; None when it has it."""
        if state.metadata.get("schemaString") == schema:
            return None
        return {"metaData": {**state.metadata, "schemaString": schema}}

    def _lines(self, operation: str, actions: list[dict[str, Any]]) -> bytes:
        info = {"timestamp": WALL.now_ns() // 1_000_000, "operation": operation, "operationParameters": {}}
        found = [{"commitInfo": {**info, "engineInfo": "penstock"}}, *actions]
        return b"".join(json.dumps(action, separators=(",", ":")).encode() + b"\n" for action in found)

    def _link(self, version: int, data: bytes) -> None:
        temporary = self.folder / "_penstock" / f"commit-{os.getpid()}-{uuid.uuid4().hex[:8]}.new"
        with storage(self.folder, f"a commit of {len(data)} bytes"):
            try:
                with temporary.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.link(temporary, self._path(version))
            except FileExistsError:
                raise _Taken from None
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(self._log)


class _Taken(Exception):
    """Another writer has that version."""
