"""How a feed runs: as every consumer does, but many ticks in one append, and its state kept less often and twice."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from penstock.errors import PenstockWarning, StorageError
from penstock.log import Chunk
from penstock.log.format import digest
from penstock.window import Window
from penstock.window.runner import Runner

__all__ = ["FeedRunner"]

_SHARE: Final = 20  # keeping the state takes one part of that many of a run's time, at most
_APPEND_BYTES: Final = 8 << 20
_ROWS: Final = 65536  # computed at once


class FeedRunner(Runner):
    """A run of a feed.

    Takes   snapshot_every: seconds between two snapshots, at least;  the rest as of every Runner.
    The snapshot before the last one is kept beside it (`<group>.before`), for the case that the last one is damaged.
    """

    def __init__(self, *args: Any, snapshot_every: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self._every = snapshot_every
        self._kept_at, self._cost = float("-inf"), 0.0
        self._must = True

    # -- many ticks at once

    def _poll(self, stop: int | None) -> Chunk | None:
        """The next rows, of many appends when it is behind: ticks do not depend on how rows are cut."""
        parts: list[Chunk] = []
        rows = 0
        while rows < _ROWS and (chunk := super()._poll(stop)) is not None:
            if parts and not (chunk.first == parts[-1].stop and chunk.batch.schema == parts[-1].batch.schema):
                self._push(_one(parts))
                parts = []
            parts.append(chunk)
            rows += len(chunk)
        return _one(parts) if parts else None

    def _handle(self, windows: list[Window], *, always: bool = False) -> None:
        one_by_one = self._fn is not None or self._limits.max_windows is not None or self._limits.test is not None
        super()._handle(windows if one_by_one else self._together(windows), always=always)

    def _together(self, windows: list[Window]) -> list[Window]:
        """Neighbours that are still to do as one window, which has the place of its last tick.

        An append is there as a whole or not at all, so all its ticks are done or none.
        """
        made: list[Window] = []
        group: list[Window] = []
        rows = 0
        for window in windows:
            done = (window.position, window.index) <= self._done
            if group and (done or rows + len(window) > self._rows_at_once or window._pick is not group[0]._pick):
                made.append(_joined(group))
                group, rows = [], 0
            if done:
                made.append(window)
            else:
                group.append(window)
                rows += len(window)
        if group:
            made.append(_joined(group))
        return made

    @property
    def _rows_at_once(self) -> int:
        return max(1, _APPEND_BYTES // (8 * len(self._emitter.schema)))  # type: ignore[attr-defined]

    # -- the state

    def _loop(self) -> None:
        self._must = False
        try:
            super()._loop()
        finally:
            self._must = True

    def _save(self) -> None:
        now = time.monotonic()
        if not self._must and now - self._kept_at < max(self._every, _SHARE * self._cost):
            self._saved_at = now
            return
        last, before = self._group._state_path(), _before(self._group._state_path())
        beside = before.with_name(before.name + ".new")
        with contextlib.suppress(OSError):  # no second snapshot is no reason to stop
            if last.stat().st_size > 8:  # an empty one says that the group was moved
                beside.unlink(missing_ok=True)
                os.link(last, beside)
                beside.replace(before)
        super()._save()
        self._kept_at = time.monotonic()
        self._cost = self._kept_at - now

    def _resume(self) -> None:
        group = self._group
        path = group._state_path()
        before = _before(path)
        found = group.load_state()
        if found == b"":
            before.unlink(missing_ok=True)
        elif found is None and (path.exists() or before.exists() or group.position.offset > group.begin):
            place = f"group {group.name!r} of stream {self._stream.name!r}"
            kept = _whole(before)
            if kept is None:
                path.unlink(missing_ok=True)
                how = f"it begins at offset {group.begin} again; ticks that are done are computed, not appended"
            else:
                how = "it goes on from the one before"
                with contextlib.suppress(OSError, StorageError):
                    group.save_state(kept)
            warnings.warn(f"the snapshot of {place} is damaged or gone: {how}", PenstockWarning, stacklevel=4)
        super()._resume()


def _one(chunks: list[Chunk]) -> Chunk:
    """Chunks that follow each other as one."""
    if len(chunks) == 1:
        return chunks[0]
    table = pa.Table.from_batches([chunk.batch for chunk in chunks]).unify_dictionaries().combine_chunks()
    return Chunk(table.to_batches()[0], chunks[0].first, np.concatenate([chunk.created for chunk in chunks]))


def _joined(windows: list[Window]) -> Window:
    """Windows that lie one behind the other in one table, as one; it has the place of the last."""
    first, last = windows[0], windows[-1]
    if first is last:
        return first
    return Window(
        first._pick, first._low, last._high, first.start_ns, last.end_ns, None,
        last.position, last.index, 0, last.mark_ns, None,
    )  # fmt: skip


def _before(path: Path) -> Path:
    return path.with_suffix(".before")


def _whole(path: Path) -> bytes | None:
    """The snapshot in that file, None when there is none that is whole."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data[8:] if len(data) > 8 and digest(data[8:]).to_bytes(8, "little") == data[:8] else None
