"""Checkpoints of a Delta log: all commits so far as one Parquet file, so that opening a table stays cheap.

Format: Delta Transaction Log Protocol, "Checkpoints", version 1 (one row per action, a struct column per kind).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.errors import StorageError
from penstock.log.disk import replacing, storage
from penstock.store.state import State

__all__ = ["checkpoint_state", "last_version", "read_checkpoint", "write_checkpoint"]

_TEXTS = pa.map_(pa.string(), pa.string())
_SCHEMA: Final = pa.schema(
    {
        "txn": pa.struct({"appId": pa.string(), "version": pa.int64(), "lastUpdated": pa.int64()}),
        "add": pa.struct(
            {
                "path": pa.string(),
                "partitionValues": _TEXTS,
                "size": pa.int64(),
                "modificationTime": pa.int64(),
                "dataChange": pa.bool_(),
                "stats": pa.string(),
                "tags": _TEXTS,
            }
        ),
        "remove": pa.struct(
            {
                "path": pa.string(),
                "deletionTimestamp": pa.int64(),
                "dataChange": pa.bool_(),
                "extendedFileMetadata": pa.bool_(),
                "partitionValues": _TEXTS,
                "size": pa.int64(),
            }
        ),
        "metaData": pa.struct(
            {
                "id": pa.string(),
                "name": pa.string(),
                "description": pa.string(),
                "format": pa.struct({"provider": pa.string(), "options": _TEXTS}),
                "schemaString": pa.string(),
                "partitionColumns": pa.list_(pa.string()),
                "configuration": _TEXTS,
                "createdTime": pa.int64(),
            }
        ),
        "protocol": pa.struct({"minReaderVersion": pa.int32(), "minWriterVersion": pa.int32()}),
    }
)


def last_version(log: Path) -> int | None:
    """Version of the last checkpoint, None when there is none."""
    try:
        return int(json.loads((log / "_last_checkpoint").read_bytes())["version"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return _newest(log)  # the note is only a hint; the files say it too


def _newest(log: Path) -> int | None:
    found = [int(path.name[:20]) for path in log.glob("*.checkpoint.parquet") if path.name[:20].isdigit()]
    return max(found, default=None)


def read_checkpoint(log: Path, version: int, where: str) -> State:
    """The state at a checkpoint. Raises FileNotFoundError, StorageError."""
    with (log / f"{version:020}.checkpoint.parquet").open("rb") as file:
        return checkpoint_state(file, version, where)


def checkpoint_state(source: Any, version: int, where: str) -> State:
    """The state in a checkpoint that is open. Raises StorageError."""
    try:
        rows = pq.ParquetFile(source).read(use_threads=False).to_pylist()  # half the time of `read_table`
    except pa.ArrowException as error:
        raise StorageError(
            expected=f"the checkpoint of version {version}",
            got=str(error),
            where=f"in {where}/_delta_log",
            hint="restore the file from a copy",
        ) from error
    try:
        # What is null inside an action was not said.
        actions = [{kind: _given(value) for kind, value in row.items() if value is not None} for row in rows]
        return State().advanced(version, actions, where)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StorageError(
            expected=f"the checkpoint of version {version}",
            got=f"other columns, {type(error).__name__}: {error}",
            where=f"in {where}/_delta_log",
            hint="restore the file from a copy",
        ) from error


def _given(action: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in action.items() if value is not None}
    for name in ("partitionValues", "configuration", "tags"):
        if name in found:
            found[name] = dict(found[name])
    if "format" in found:
        found["format"] = {**found["format"], "options": dict(found["format"]["options"] or {})}
    return found


def _listed(action: dict[str, Any]) -> dict[str, Any]:
    """An action's maps as Arrow takes them."""
    found = dict(action)
    for name in ("partitionValues", "configuration", "tags"):
        if name in found:
            found[name] = list(found[name].items())
    if "format" in found:
        found["format"] = {**found["format"], "options": list((found["format"].get("options") or {}).items())}
    return found


def write_checkpoint(log: Path, state: State) -> None:
    """Write a checkpoint of `state`, durably, and say that it is the last."""
    rows: list[dict[str, Any]] = [{"protocol": state.protocol}, {"metaData": _listed(state.metadata)}]
    rows += [
        {"txn": {"appId": app, "version": version, "lastUpdated": state.heard.get(app)}}
        for app, version in state.transactions.items()
    ]
    rows += [{"add": _listed(add)} for add in state.adds.values()]
    # By these a vacuum, ours or another's, knows since when a file is dead; when it is gone, nobody asks any more.
    rows += [
        {"remove": {"path": path, "deletionTimestamp": at, "dataChange": False, "extendedFileMetadata": False}}
        for path, at in state.removed.items()
        if (log.parent / path).exists()
    ]
    table = pa.Table.from_pylist(rows, _SCHEMA)
    with storage(log, "a checkpoint"):
        _replace(log / f"{state.version:020}.checkpoint.parquet", lambda file: pq.write_table(table, file))
        note = json.dumps({"version": state.version, "size": len(rows)}).encode()
        _replace(log / "_last_checkpoint", lambda file: file.write(note))


def _replace(path: Path, write: Any) -> None:
    temporary = path.parent.parent / "_penstock" / f"{path.name}-{os.getpid()}.new"
    with replacing(path, temporary) as file:
        write(file)
