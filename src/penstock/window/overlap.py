"""Windows that overlap: each row is kept once, in a pane, and every window is a row of panes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.errors import WindowError
from penstock.window.pending import Group, Int64, Rows, Segment, runs
from penstock.window.pick import Closed, count_keys, emission, late_windows, split

__all__ = ["Sliding"]

_FIRST = -(2**80)  # before any window number
_FAR = 2**62


class Sliding:
    """Windows [origin + k·every, origin + k·every + size) for every integer k.

    Borders of windows cut the axis into panes: one for each `every`, or two when `every` does not divide `size`.
    Closing a window joins the panes it covers, size / every of them.
    """

    def __init__(self, size_ns: int, every_ns: int, origin_ns: int, *, emit_late: bool) -> None:
        self.size_ns = size_ns
        self.every_ns = every_ns
        self.origin_ns = origin_ns % every_ns
        self.emit_late = emit_late
        self._whole, self._rest = divmod(size_ns, every_ns)
        self._panes: dict[int, list[Segment]] = {}
        self._order: list[int] = []  # panes with rows, ascending
        self._done = _FIRST  # last window that the watermark has passed

    def bind(self, schema: pa.Schema) -> None:
        pass

    def feed(
        self, rows: Rows, times: Int64, marks: Int64, before: int, keys: Int64 | None
    ) -> tuple[list[Closed], Int64 | None]:
        reach = self.size_ns + self.every_ns
        low, high = int(times.min()), int(times.max())
        if low < reach - 2 * _FAR or high > 2 * _FAR - 1 - reach:
            raise WindowError(
                expected=f"times whose windows of {self.size_ns} ns fit in int64",
                got=str(high if -low <= high else low),
                where="in SlidingWindow",
                is_beyond=True,
            )
        since = times - self.origin_ns
        number = since // self.every_ns
        ends = self.origin_ns + number * self.every_ns + self.size_ns  # of the last window around each row
        earliest = ends - (ends - 1 - times) // self.every_ns * self.every_ns  # end of the first one
        missed = earliest <= marks
        late = np.flatnonzero(missed) if missed.any() else None
        at = np.arange(len(rows)) if late is None else np.flatnonzero(ends > marks)
        if self._rest:
            panes = 2 * number + (since - number * self.every_ns >= self._rest)
        else:
            panes = number
        ordered = panes[at]
        if len(at):
            if not bool((ordered[1:] >= ordered[:-1]).all()):
                order = np.argsort(ordered, kind="stable")
                at, ordered = at[order], ordered[order]
            lows, highs = runs(ordered)
            for low, high, pane in zip(lows, highs, ordered[lows].tolist(), strict=True):
                if pane not in self._panes:
                    self._panes[pane] = []
                    insort(self._order, pane)
                mine = at[low:high]
                self._panes[pane].append(Segment(rows, mine, None if keys is None else keys[mine]))
        closed = self._close(self._last_ended(int(marks[-1])), lambda end: int(np.searchsorted(marks, end)), rows)
        if late is not None and self.emit_late:
            for step in range(self._whole + 1):
                end = earliest[late] + step * self.every_ns
                over = (end <= marks[late]) & (end <= ends[late])
                closed += late_windows(rows, late[over], end[over] - self.size_ns, end[over], keys)
            closed.sort(key=emission)
        return closed, late

    def advance(self, watermark: int, position: int) -> list[Closed]:
        return self._close(self._last_ended(watermark), lambda end: position, None)

    def flush(self, position: int) -> list[Closed]:
        done = self._done
        closed = self._close(self._span(self._order[-1])[1], lambda end: position, None) if self._order else []
        self._done = done
        return closed

    def _last_ended(self, watermark: int) -> int:
        return (watermark - self.size_ns - self.origin_ns) // self.every_ns

    def _span(self, pane: int) -> tuple[int, int]:
        """The first and the last window that cover a pane."""
        if not self._rest:
            return pane - self._whole + 1, pane
        return (pane >> 1) - self._whole + (pane & 1), pane >> 1

    def _covered(self, window: int) -> tuple[int, int]:
        """Positions [low, high) in the order of panes that a window covers."""
        if self._rest:
            first, last = 2 * window, 2 * (window + self._whole)
        else:
            first, last = window, window + self._whole - 1
        return bisect_left(self._order, first), bisect_right(self._order, last)

    def _next(self) -> int | None:
        """The next window with rows that is still to close."""
        window = self._done + 1
        for pane in self._order:
            first, last = self._span(pane)
            if last >= window:
                return max(first, window)
        return None

    def _close(self, limit: int, where: Callable[[int], int], rows: Rows | None) -> list[Closed]:
        """Close windows up to number `limit`. `where` is the closing row among `rows`, or else the position."""
        closed: list[Closed] = []
        while (window := self._next()) is not None and window <= limit:
            self._done = window
            low, high = self._covered(window)
            start = self.origin_ns + window * self.every_ns
            end = start + self.size_ns
            at = where(end)
            segments = [segment for pane in self._order[low:high] for segment in self._panes[pane]]
            if rows is not None:
                # Rows that came after the window closed are late for it, though not for the windows behind it.
                segments = [kept for s in segments if (kept := _before(s, rows, at)) is not None]
                at = int(rows.offsets[at]) + 1
            if segments:
                closed += split(segments, start, end, at, mixed=True)
            self._drop()
        self._done = max(self._done, limit)
        self._drop()
        return closed

    def _drop(self) -> None:
        gone = 0
        while gone < len(self._order) and self._span(self._order[gone])[1] <= self._done:
            del self._panes[self._order[gone]]
            gone += 1
        del self._order[:gone]

    def next_end(self) -> int | None:
        window = self._next()
        return None if window is None else self.origin_ns + window * self.every_ns + self.size_ns

    def open_windows(self) -> int:
        windows: dict[int, list[Segment]] = {}
        for pane in self._order:
            first, last = self._span(pane)
            for window in range(max(first, self._done + 1), last + 1):
                windows.setdefault(window, []).extend(self._panes[pane])
        return sum(count_keys(segments) for segments in windows.values())

    def save(self) -> list[Group]:
        done = [self._done] if self._done >= -(2**63) else []
        return [(done, []), *(([pane], self._panes[pane]) for pane in self._order)]

    def load(self, groups: list[Group]) -> None:
        (done, _), *rest = groups
        self._done = done[0] if done else _FIRST
        self._panes = {pane: segments for (pane,), segments in rest}
        self._order = sorted(self._panes)

    def parameters(self) -> dict[str, Any]:
        return {"size_ns": self.size_ns, "every_ns": self.every_ns, "origin_ns": self.origin_ns}


def _before(segment: Segment, rows: Rows, row: int) -> Segment | None:
    """The part of a segment that lies before one of these rows; all of it when it is of another chunk."""
    if segment.rows is not rows:
        return segment
    count = int(np.searchsorted(segment.at, row))
    if count == 0:
        return None
    return Segment(rows, segment.at[:count], None if segment.keys is None else segment.keys[:count])
