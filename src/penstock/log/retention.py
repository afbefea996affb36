"""Forgetting: dropping whole sealed segments from the old end of a stream."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from penstock.clock import WALL
from penstock.log.format import arrow_name, index_name
from penstock.log.mending import read_last
from penstock.log.meta import Retention
from penstock.log.segment import EXPIRED, firsts

__all__ = ["expire", "remove"]


def expire(folder: Path, retention: Retention, committed: int | None) -> list[int]:
    """Drop what `retention` allows; returns the first offsets of the dropped segments. Call with the lock held.

    Takes  committed: lowest offset that the group `retention.until` still needs; None when it has no position yet.
    """
    if retention.age_ns is None and retention.max_bytes is None and retention.until is None:
        return []
    for left in folder.glob(f"*{EXPIRED}"):  # a removal that was killed half-way
        remove(folder, int(left.name.partition(".")[0]))
    if retention.until is not None and committed is None:
        return []
    found = firsts(folder)
    sizes = {first: _size(folder, first) for first in found}
    total = sum(sizes.values())
    oldest_kept = WALL.now_ns() - retention.age_ns if retention.age_ns is not None else None
    gone: list[int] = []
    for first in found[:-1]:
        last = read_last(folder, first)
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
        gone.append(first)
    return gone


def remove(folder: Path, first: int) -> None:
    """Remove a segment.

    The data file is renamed first: from then on the segment is no more, whenever this is killed, and what is left of
    it cannot be taken for one that lost its data file.
    """
    data, expired = folder / arrow_name(first), folder / (arrow_name(first) + EXPIRED)
    with contextlib.suppress(FileNotFoundError):
        data.rename(expired)
    (folder / index_name(first)).unlink(missing_ok=True)
    expired.unlink(missing_ok=True)


def _size(folder: Path, first: int) -> int:
    total = 0
    for name in (arrow_name(first), index_name(first)):
        with contextlib.suppress(FileNotFoundError):
            total += os.stat(folder / name).st_size
    return total
