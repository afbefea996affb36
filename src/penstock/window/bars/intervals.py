"""The interval of each row of a batch, found once per batch and not once per row where that is possible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.window.grid import DAY_NS, HIGHEST, LOWEST, Grid, Int64
from penstock.window.sessions import SessionGrid

__all__ = ["Found", "Intervals", "Runs", "Which", "compact", "each"]

Found = tuple[Int64, Int64, Int64]


@dataclass(frozen=True, slots=True)
class Runs:
    """The interval of each row where rows are in order: number k for those after stops[k - 1] and up to stops[k]."""

    stops: Int64


Which = Runs | NDArray[np.intp] | None


def each(which: Which) -> NDArray[np.intp] | None:
    """The same as an array."""
    if not isinstance(which, Runs):
        return which
    return np.repeat(np.arange(len(which.stops)), np.diff(which.stops, prepend=0))


class Intervals:
    """Intervals of a Grid or of sessions, and when each is due: the event time at which no row can join it.

    An interval is due when event time has come `lateness` ns past the point where it is over.
    """

    def __init__(self, grid: Grid | SessionGrid, lateness: int) -> None:
        self.grid = grid
        self.size_ns = grid.size_ns
        self.lateness = lateness
        self._low, self._high = 0, 0  # times known to lie in _one
        self._one: Found = (np.empty(0, np.int64),) * 3

    def of(self, times: Int64, ordered: bool) -> tuple[Found, Which, NDArray[np.intp] | None]:
        """The intervals of these times.

        Takes   times: (n,) int64, n >= 1; ordered: whether they never decrease.
        Returns (starts, ends, dues) of the intervals in use, ascending; which: (n,) the interval of each time, None
                when there is only one, Runs where that is enough; inside: numbers of the times that have one, None
                when all have (`which` is then as long as `inside`).
        """
        if ordered:
            low, high = int(times[0]), int(times[-1])
        else:
            low, high = int(times.min()), int(times.max())
        if self._low <= low and high < self._high:
            return self._one, None, None
        count = (high - low) // self.size_ns + 1
        inside: Any = None
        if count <= max(64, len(times) // 4):
            starts, ends, over = self._between(low, high)
            if not len(starts):
                return self._none(), None, np.empty(0, np.intp)
            dues = self._due(over)
            # Where intervals touch, a row exactly on the border belongs to the second, or to the first when that
            # is over only later.
            borders = starts[1:] if over is ends else np.maximum(starts[1:], over[:-1])
            which: Any
            if ordered:
                stops = np.empty(len(starts), np.int64)
                stops[:-1], stops[-1] = times.searchsorted(borders), len(times)
                used = stops > 0
                used[1:] = stops[1:] > stops[:-1]
                if not used.all():
                    starts, ends, over, dues, stops = (column[used] for column in (starts, ends, over, dues, stops))
                runs = Runs(stops)
                which = each(runs) if isinstance(self.grid, SessionGrid) else runs
            elif isinstance(self.grid, Grid) and self.grid.tz is None and high - int(starts[0]) <= HIGHEST:
                which = (times - starts[0]) // self.size_ns  # all of one size: a quarter of the time of a search
            else:
                which = np.searchsorted(borders, times, side="right")
            if isinstance(self.grid, SessionGrid):
                good = (times >= starts[which]) & (times < over[which])
                if self.grid.resting and self.grid.sessions.outside == "drop":
                    good &= self.grid.resting_at(times, self.grid.sessions.between(low, high))
                if not good.all():
                    inside = np.flatnonzero(good)
                    which = which[inside]
                elif ordered:
                    which = runs
            if len(starts) == 1:
                if inside is None:
                    self._remember(starts, ends, dues)
                return (starts, ends, dues), None, inside
        else:
            if isinstance(self.grid, SessionGrid):
                start, end, late, good = self.grid.assign(times)
                if not good.all():
                    inside = np.flatnonzero(good)
                    start, end, late = start[inside], end[inside], late[inside]
            else:
                start, end = self.grid.assign(times)
                late = end
            starts, at, which = np.unique(start, return_index=True, return_inverse=True)
            return (starts, end[at], self._due(late[at])), which, inside
        if isinstance(which, Runs):
            return (starts, ends, dues), which, inside
        return *compact((starts, ends, dues), which), inside

    def between(self, low: int, clock: int) -> Found:
        """Intervals that start at or after `low` and are due when event time has come to `clock`."""
        high = clock - self.lateness
        if high < low:
            return self._none()
        starts, ends, over = self._between(low, high)
        dues = self._due(over)
        use = (starts >= low) & (dues <= clock)
        return starts[use], ends[use], dues[use]

    def count(self, low: int, clock: int) -> int:
        """How many intervals `between` would give, or a few more."""
        high = clock - self.lateness
        if isinstance(self.grid, SessionGrid) and self.grid.sessions.outside == "drop":
            starts, ends, _, _ = self.grid.sessions.between(low, high)
            open_for = np.minimum(ends, high) - np.maximum(starts, low)
            return int((open_for[open_for > 0] // self.size_ns + 1).sum())
        return (high - low) // self.size_ns + 1

    def first_open(self, clock: int) -> int:
        """Where the first interval not due at `clock` starts, or an instant between the last one due and that one."""
        time = max(LOWEST, clock - self.lateness)
        starts = self._between(time, time)[0]
        return int(starts[0]) if len(starts) else time

    def next_due(self, low: int) -> int | None:
        """When the first interval that starts at or after `low` is due; None when there is none for a year and more."""
        due = self._first_due(low, low + self.size_ns)
        if due is None and isinstance(self.grid, SessionGrid):
            for days in (5, 40, 400):
                segments = self.grid.sessions.between(low, min(low + days * DAY_NS, HIGHEST))[0]
                later = segments[segments >= low]
                if len(later):
                    return self._first_due(int(later[0]), int(later[0]))
        return due

    def _first_due(self, low: int, high: int) -> int | None:
        starts, _, over = self._between(low, min(high, HIGHEST))
        first = int(np.searchsorted(starts, low))
        return int(self._due(over)[first]) if first < len(starts) else None

    def _between(self, low: int, high: int) -> Found:
        if isinstance(self.grid, SessionGrid):
            return self.grid.between(low, high)
        starts, ends = self.grid.between(low, high)
        return starts, ends, ends

    def _due(self, over: Int64) -> Int64:
        if not self.lateness:
            return over
        return np.minimum(over, HIGHEST - self.lateness) + self.lateness

    def _remember(self, starts: Int64, ends: Int64, dues: Int64) -> None:
        self._one = (starts, ends, dues)
        self._low, self._high = int(starts[0]), int(ends[0])
        if isinstance(self.grid, SessionGrid):
            if self.grid.resting:
                self._high = self._low  # rows may be outside in it
            if self.grid.sessions.closing == "include":
                self._low += 1  # a row exactly there may belong to the session before

    def _none(self) -> Found:
        none = np.empty(0, np.int64)
        return none, none, none


def compact(found: Found, which: Any) -> tuple[Found, Any]:
    """Only the intervals in use, and `which` among them."""
    if which is None:
        return found, None
    starts, ends, dues = found
    used = np.bincount(which, minlength=len(starts)) > 0
    if used.all():
        return found, which
    return (starts[used], ends[used], dues[used]), (np.cumsum(used) - 1)[which]
