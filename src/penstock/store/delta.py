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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from penstock.clock import WALL
from penstock.errors import StorageError
from penstock.log.disk import storage, sync_folder
from penstock.store.files import Files, LocalFiles

__all__ = ["KEEP_REMOVED_MS", "RETENTION", "DataFile", "DeltaLog", "State", "add_action", "remove_action", "txn_action"]

READER, WRITER = 1, 2
RETENTION: Final = "delta.setTransactionRetentionDuration"
KEEP_REMOVED_MS: Final = 604_800_000  # a week, Delta's own rule
_INTERVAL_MS: Final = {
    "millisecond": 1,
    "second": 1000,
    "minute": 60_000,
    "hour": 3_600_000,
    "day": 86_400_000,
    "week": 604_800_000,
}


@dataclass(frozen=True, slots=True)
class DataFile:
    """One data file of a table, as its add action tells: `low`, `high` hold the smallest and greatest of columns."""

    path: str
    size: int
    rows: int
    partition: dict[str, str | None]
    low: dict[str, Any] = field(default_factory=dict)
    high: dict[str, Any] = field(default_factory=dict)
    modified_ms: int = 0

    @classmethod
    def of(cls, add: dict[str, Any], folder: str) -> DataFile:
        """From an add action. Raises StorageError for a path that leads out of the table."""
        path = unquote(add["path"])
        if path.startswith("/") or "://" in path or ".." in path.split("/"):
            raise StorageError(
                expected="data files inside the table", got=repr(path), where=f"in {folder}", hint="copy the file there"
            )
        stats = json.loads(add.get("stats") or "{}")
        low, high = stats.get("minValues") or {}, stats.get("maxValues") or {}
        values = dict(add.get("partitionValues") or {})
        return cls(path, add["size"], stats.get("numRecords", -1), values, low, high, add.get("modificationTime", 0))


@dataclass(frozen=True, slots=True)
class State:
    """A table as of one version. Never changed; `advanced` makes the next."""

    version: int = -1
    files: dict[str, DataFile] = field(default_factory=dict)
    transactions: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)  # path → when, ms
    adds: dict[str, dict[str, Any]] = field(default_factory=dict)  # the actions themselves, for a checkpoint
    heard: dict[str, int] = field(default_factory=dict)  # transactions that expire → when they last wrote, ms

    def advanced(self, version: int, actions: Iterable[dict[str, Any]], where: str) -> State:
        """This table after a commit. Raises StorageError for one that needs a newer reader."""
        files, transactions, removed = dict(self.files), dict(self.transactions), dict(self.removed)
        adds, heard, metadata, protocol = dict(self.adds), dict(self.heard), self.metadata, self.protocol
        for action in actions:
            if found := action.get("add"):
                file = DataFile.of(found, where)
                files[file.path], adds[file.path] = file, found
                removed.pop(file.path, None)
            elif found := action.get("remove"):
                path = unquote(found["path"])
                files.pop(path, None)
                adds.pop(path, None)
                removed[path] = found.get("deletionTimestamp") or 0
            elif found := action.get("txn"):
                transactions[found["appId"]] = found["version"]
                heard.pop(found["appId"], None)
                if (at := found.get("lastUpdated")) is not None:
                    heard[found["appId"]] = at
            elif found := action.get("metaData"):
                metadata = found
            elif found := action.get("protocol"):
                protocol = found
                if found["minReaderVersion"] > READER:
                    raise StorageError(
                        expected=f"a Delta table of reader version {READER}",
                        got=f"version {found['minReaderVersion']}",
                        where=where,
                        hint="another program has changed it; read it with deltalake",
                    )
        return State(version, files, transactions, metadata, protocol, removed, adds, heard)

    def without_expired(self, now_ms: int) -> State:
        """This table without what it need not remember: files removed longer ago than KEEP_REMOVED_MS, and transactions
        that last wrote longer ago than its property RETENTION says.

        A transaction without a time never expires, nor does any in a table without that property, as for every Delta
        reader.
        """
        keep = _interval_ms((self.metadata.get("configuration") or {}).get(RETENTION))
        gone = () if keep is None else {app for app, at in self.heard.items() if at <= now_ms - keep}
        dead = [path for path, at in self.removed.items() if at <= now_ms - KEEP_REMOVED_MS]
        if not gone and not dead:
            return self
        left = {app: version for app, version in self.transactions.items() if app not in gone}
        heard = {app: at for app, at in self.heard.items() if app in left}
        removed = {path: at for path, at in self.removed.items() if at > now_ms - KEEP_REMOVED_MS}
        return replace(self, transactions=left, heard=heard, removed=removed)


def _interval_ms(text: str | None) -> int | None:
    """Milliseconds of "interval 30 days"; None for what is none (Delta takes more; what is not known never ends)."""
    words = (text or "").lower().removeprefix("interval").split()
    if len(words) != 2 or not words[0].isdigit():
        return None
    unit = _INTERVAL_MS.get(words[1].removesuffix("s"))
    return None if unit is None else int(words[0]) * unit


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
        from penstock.store.checkpoint import last_version

        return last_version(self._log)

    def _checkpoint_at(self, version: int) -> State:
        from penstock.store.checkpoint import read_checkpoint

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
        actions: list[dict[str, Any]] = [{"protocol": {"minReaderVersion": READER, "minWriterVersion": WRITER}}]
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
