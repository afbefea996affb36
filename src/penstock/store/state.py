"""A Delta table as of one version: its files, and how far each writer has come. What a log's actions add up to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import unquote

from penstock.errors import StorageError

__all__ = ["KEEP_REMOVED_MS", "READER", "RETENTION", "DataFile", "State"]

READER: Final = 1
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
