"""The demo's folder: a fresh hub, and nobody else's data thrown away for it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.parse import unquote

from penstock.errors import ReadOnly, StorageError
from penstock.log.lock import FileLock

__all__ = ["MARK", "STREAMS", "take_folder"]

MARK = "penstock-demo.json"
"""The file that says: this hub was made by the demo."""

STREAMS = ("trades", "bars", "factors", "daily", "ranks")
_HUB = ("hub.json", "hub.sqlite", "hub.sqlite-wal", "hub.sqlite-shm")
_HINT = "give another --data"


def take_folder(path: Path) -> FileLock:
    """Make `path` ready for a fresh hub; close the lock that is returned when the demo is over.

    What an earlier demo left there is removed; anything else is refused and stays.
    Raises  StorageError: the folder holds something else, streams that the demo did not make, or a demo runs there;
            ReadOnly.
    """
    if path.exists() and not path.is_dir():
        raise StorageError(expected="a folder", got="a file", where=f"at {path}", hint=_HINT)
    names = sorted(entry.name for entry in path.iterdir()) if path.exists() else []
    if names and MARK not in names:
        got = "a hub that the demo did not make" if "hub.json" in names else f"a folder that holds {_some(names)}"
        expected = "an empty folder, or one that an earlier demo made"
        raise StorageError(expected=expected, got=got, where=f"at {path}", hint=_HINT)
    try:
        # In this order: a demo that is killed here leaves a folder that the next one takes.
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / MARK)
    except OSError as error:
        raise ReadOnly(expected="a writable folder", got=str(error.strerror), where=f"at {path}", hint=_HINT) from error
    if not lock.acquire_nowait():
        lock.close()
        raise StorageError("another demo runs there", where=f"at {path}", hint=f"wait for it, or {_HINT}")
    try:
        _clear(path)
        os.pwrite(lock.fd, b'{"made by": "penstock demo"}\n', 0)
        (path / "streams").mkdir(exist_ok=True)
    except BaseException:
        lock.close()
        raise
    return lock


def _clear(path: Path) -> None:
    streams = path / "streams"
    if streams.is_dir():
        found = {unquote(entry.name) for entry in streams.iterdir() if (entry / "meta.json").exists()}
        others = sorted(name for name in found if name not in STREAMS and not name.startswith("_marks/"))
        if others:
            raise StorageError(
                expected="only streams that the demo made",
                got=_some(others),
                where=f"in the hub at {path}",
                hint=f"{_HINT}, or drop {'it' if len(others) == 1 else 'them'}",
            )
    for name in _HUB:
        (path / name).unlink(missing_ok=True)
    shutil.rmtree(streams, ignore_errors=True)


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
