"""Windows of a time grid, with or without the empty ones."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.errors import WindowError
from penstock.window.grid import Grid
from penstock.window.pending import Group, Int64, Rows, Segment, runs
from penstock.window.pick import Closed, Pick, count_keys, emission, late_windows, split

__all__ = ["Fixed"]

MAX_EMPTY = 1_000_000
"""Empty windows one jump of the watermark may close; more means a wrong time in the data."""


class Fixed:
    """The windows of a grid."""

    def __init__(self, grid: Grid, *, emit_late: bool, emit_empty: bool) -> None:
        self.grid = grid
        self.emit_late = emit_late
        self.emit_empty = emit_empty
        self._slots: dict[int, tuple[int, list[Segment]]] = {}  # end: start, segments
        self._ends: list[int] = []  # heap of the keys of _slots
        self._cursor: int | None = None  # end of the last window closed, when empty ones count
        self._seen: set[int] = set()  # keys that have had a window
        self._blank: Pick | None = None

    def bind(self, schema: pa.Schema) -> None:
        if self.emit_empty:
            columns = [column.combine_chunks() for column in schema.empty_table().columns]
            none = np.empty(0, np.int64)
            self._blank = Pick([Rows(pa.RecordBatch.from_arrays(columns, schema=schema), none, none)], None, None)

    def feed(
        self, rows: Rows, times: Int64, marks: Int64, before: int, keys: Int64 | None
    ) -> tuple[list[Closed], Int64 | None]:
        starts, ends = self.grid.assign(times)
        late: Int64 | None = None
        at = np.arange(len(rows))
        missed = ends <= marks
        if missed.any():
            late = np.flatnonzero(missed)
            at = np.flatnonzero(~missed)
        ordered = ends if late is None else ends[at]
        if len(at):
            if not bool((ordered[1:] >= ordered[:-1]).all()):
                order = np.argsort(ordered, kind="stable")
                at, ordered = at[order], ordered[order]
            lows, highs = runs(ordered)
            for low, high, end, start in zip(
                lows, highs, ordered[lows].tolist(), starts[at[lows]].tolist(), strict=True
            ):
                slot = self._slots.get(end)
                if slot is None:
                    self._slots[end] = slot = (start, [])
                    heappush(self._ends, end)
                mine = at[low:high]
                slot[1].append(Segment(rows, mine, None if keys is None else keys[mine]))
        limit = int(marks[-1])
        closed = self._close(limit, lambda end: int(rows.offsets[np.searchsorted(marks, end)]) + 1)
        if late is not None and self.emit_late:
            closed += late_windows(rows, late, starts[late], ends[late], keys)
            closed.sort(key=emission)
        return closed, late

    def advance(self, watermark: int, position: int) -> list[Closed]:
        return self._close(watermark, lambda end: position)

    def flush(self, position: int) -> list[Closed]:
        return self._close(max(self._ends), lambda end: position) if self._ends else []

    def _close(self, limit: int, position_of: Callable[[int], int]) -> list[Closed]:
        closed: list[Closed] = []
        while True:
            end = self._ends[0] if self._ends else None
            if self._cursor is not None:
                empty = self._after(self._cursor)
                if empty[1] <= limit and (end is None or empty[1] < end):
                    self._skip(min(limit, end or limit))
                    closed += self._empty(empty, position_of(empty[1]))
                    self._cursor = empty[1]
                    continue
            if end is None or end > limit:
                return closed
            heappop(self._ends)
            start, segments = self._slots.pop(end)
            windows = split(segments, start, end, position_of(end))
            if self.emit_empty:
                windows = self._among(windows, (start, end))
                self._cursor = end if self._cursor is None else max(end, self._cursor)
            closed += windows

    def _after(self, border: int) -> tuple[int, int]:
        starts, ends = self.grid.assign(np.array([border], np.int64))
        return int(starts[0]), int(ends[0])

    def _skip(self, until: int) -> None:
        missing = (until - (self._cursor or 0)) // self.grid.size_ns
        if missing * max(1, len(self._seen)) > MAX_EMPTY:
            raise WindowError(
                expected=f"at most {MAX_EMPTY} empty windows at once",
                got=f"{missing} of {self.grid.size_ns} ns for {len(self._seen)} keys, up to {until} ns",
                where="in emit_empty",
                hint="look for a wrong time in the data, or leave emit_empty out",
            )

    def _empty(self, span: tuple[int, int], position: int) -> list[Closed]:
        blank = self._blank
        assert blank is not None
        return [(position, span[1], key, span[0], blank, 0, 0, 0) for key in sorted(self._seen)]

    def _among(self, windows: list[Closed], span: tuple[int, int]) -> list[Closed]:
        """Empty windows for the keys that have none here; and note the keys that have one."""
        here = {window[2] for window in windows}
        missing = self._seen - here
        if missing:
            windows += [window for window in self._empty(span, windows[0][0]) if window[2] in missing]
            windows.sort(key=emission)
        self._seen |= here
        return windows

    def next_end(self) -> int | None:
        end = self._ends[0] if self._ends else None
        if self._cursor is not None:
            empty = self._after(self._cursor)[1]
            return empty if end is None else min(empty, end)
        return end

    def open_windows(self) -> int:
        return sum(count_keys(segments) for _, segments in self._slots.values())

    def save(self) -> list[Group]:
        groups: list[Group] = [([end, start], segments) for end, (start, segments) in self._slots.items()]
        if self._cursor is not None:
            groups.append(([self._cursor, *sorted(self._seen)], []))
        return groups

    def load(self, groups: list[Group]) -> None:
        self._slots = {numbers[0]: (numbers[1], segments) for numbers, segments in groups if segments}
        self._ends = sorted(self._slots)
        for numbers, segments in groups:
            if not segments:
                self._cursor, self._seen = numbers[0], set(numbers[1:])

    def parameters(self) -> dict[str, Any]:
        grid = self.grid
        return {"size_ns": grid.size_ns, "origin_ns": grid.origin_ns, "tz": grid.tz, "emit_empty": self.emit_empty}
