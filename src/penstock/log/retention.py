"""Forgetting: dropping whole sealed segments from the old end of a stream."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from penstock.clock import WALL
from penstock.log.format import ENTRY_BYTES, Entry, arrow_name, index_name, unpack
from penstock.log.meta import Retention
from penstock.log.segment import firsts

__all__ = ["expire", "remove"]


def expire(folder: Path, retention: Retention, committed: int | None) -> list[int]:
    """Drop what `retention` allows; returns the first offsets of the dropped segments. Call with the lock held.

    Takes  committed: lowest offset that the group `retention.until` still needs; None when it has no position yet.
    """
    found = firsts(folder)
    if retention.until is not None and committed is None:
        return []
    if retention.age_ns is None and retention.max_bytes is None and retention.until is None:
        return []
    sizes = {first: _size(folder, first) for first in found}
    total = sum(sizes.values())
    oldest_kept = WALL.now_ns() - retention.age_ns if retention.age_ns is not None else None
    dropped: list[int] = []
    for first in found[:-1]:
        last = _last_entry(folder / index_name(first))
        if last is None:
            break
        if retention.until is not None and committed is not None and last.stop > committed:
            break
        old = oldest_kept is not None and last.appended < oldest_kept
        large = retention.max_bytes is not None and total > retention.max_bytes
        alone = retention.age_ns is None and retention.max_bytes is None  # `until` by itself
        if not (old or large or alone):
            break
        remove(folder, first)
        total -= sizes[first]
        dropped.append(first)
    return dropped


def remove(folder: Path, first: int) -> None:
    """Remove a segment. A kill in between leaves an index without data, which is no segment."""
    (folder / arrow_name(first)).unlink(missing_ok=True)
    (folder / index_name(first)).unlink(missing_ok=True)


def _size(folder: Path, first: int) -> int:
    total = 0
    for name in (arrow_name(first), index_name(first)):
        with contextlib.suppress(FileNotFoundError):
            total += os.stat(folder / name).st_size
    return total


def _last_entry(path: Path) -> Entry | None:
    try:
        data = _tail(path)
    except FileNotFoundError:
        return None
    return unpack(data)


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-ENTRY_BYTES, os.SEEK_END)
        return file.read()
