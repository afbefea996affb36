"""Windows of the user's own: one method says where they end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.errors import WindowError
from penstock.window.clocks import LabelClock
from penstock.window.emitter import Emitter
from penstock.window.logic import Logic
from penstock.window.pending import Group, Int64, Rows, Segment, by_key, runs
from penstock.window.pick import Closed, Pick, emission, lay
from penstock.window.window import Window

__all__ = ["CustomWindow"]


class CustomWindow(Emitter):
    """Base of windows that end where `cuts` says.

        class Volume(ps.window.CustomWindow):
            def __init__(self, volume, by=None):
                super().__init__(by=by)
                self.volume = volume

            def cuts(self, pending):
                total = np.cumsum(pending.table["size"].to_numpy())
                first = np.searchsorted(total, self.volume)
                return [first + 1] if first < len(total) else []

    Takes   by: key column; time: column of `start` and `end` (default as in CountWindow); logic: as everywhere.
    `cuts` must be a function of the rows alone, row by row: whether a window ends after row k may depend on rows 0
    to k of `pending`, not on later ones, because those may not be there yet. This is checked as far as it can be:
    each time the first cut is asked for again with the later rows hidden, and rows that were left without a cut must
    not get one when more arrive; WindowError says what differed.
    Public attributes that are numbers, strings or booleans are parameters of the snapshot.
    Cost    one or two calls of `cuts` for each chunk and key, over all rows that wait.
    """

    def __init__(self, *, by: str | None = None, time: str | None = None, logic: Logic | None = None) -> None:
        if type(self).cuts is CustomWindow.cuts:
            raise WindowError(
                expected="a method cuts(self, pending) -> list of row counts",
                got=f"{type(self).__name__} without one",
                where=f"in {type(self).__name__}",
            )
        super().__init__(_Cuts(self.cuts, self._value), by=by, time=LabelClock(time), logic=logic)

    def cuts(self, pending: Window) -> Sequence[int]:
        """Row counts at which windows end.

        Takes   pending: rows of the key (all rows when not keyed) that are in no window yet, at least one.
        Returns ascending counts, each 1 to len(pending): [5, 8] means rows 0 to 4 and rows 5 to 7 are windows. Not
                all need to be named at once; the rest is asked for again. [] when no window ends here.
        """
        raise NotImplementedError

    def _value(self, number: int) -> Any:
        return None if self._keys is None else self._keys.values[number]

    def parameters(self) -> dict[str, Any]:
        own = {
            name: value
            for name, value in sorted(vars(self).items())
            if not name.startswith("_") and isinstance(value, bool | int | float | str)
        }
        return {**super().parameters(), **own}


class _Waiting:
    """Rows of one key without a window: `known` of them are known to hold no cut."""

    __slots__ = ("known", "segments", "times")

    def __init__(self, segments: list[Segment], times: Int64, known: int) -> None:
        self.segments = segments
        self.times = times
        self.known = known


class _Cuts:
    """The windower behind CustomWindow."""

    def __init__(self, cuts: Callable[[Window], Sequence[int]], value: Callable[[int], Any]) -> None:
        self._cuts = cuts
        self._value = value
        self._open: dict[int, _Waiting] = {}

    def bind(self, schema: pa.Schema) -> None:
        pass

    def feed(
        self, rows: Rows, times: Int64, marks: Int64, before: int, keys: Int64 | None
    ) -> tuple[list[Closed], Int64 | None]:
        at = np.arange(len(rows)) if keys is None else by_key(keys)
        lows, highs = ([0], [len(rows)]) if keys is None else runs(keys[at])
        numbers = [0] if keys is None else keys[at[lows]].tolist()
        closed: list[Closed] = []
        for number, low, high in zip(numbers, lows, highs, strict=True):
            mine = at[low:high]
            waiting = self._open.get(number)
            if waiting is None:
                waiting = _Waiting([Segment(rows, mine, None)], times[mine], 0)
            else:
                segments = [*waiting.segments, Segment(rows, mine, None)]
                waiting = _Waiting(segments, np.concatenate([waiting.times, times[mine]]), waiting.known)
            windows, rest = self._cut(number, waiting)
            closed += windows
            if rest is None:
                self._open.pop(number, None)
            else:
                self._open[number] = rest
        closed.sort(key=emission)
        return closed, None

    def _cut(self, key: int, waiting: _Waiting) -> tuple[list[Closed], _Waiting | None]:
        pick, times = lay(waiting.segments), waiting.times
        offsets = pick.offsets(0, len(pick))
        done, closed = 0, []
        known = waiting.known
        while done < len(pick):
            cuts = self._ask(pick, done, len(pick), times, offsets, key)
            if not cuts:
                break
            if cuts[0] <= known or self._ask(pick, done, done + cuts[0], times, offsets, key) != cuts[:1]:
                raise WindowError(
                    expected="cuts to depend on the rows before them alone",
                    got=f"a window after {cuts[0]} rows only when later rows are there",
                    where=f"in cuts, pending from offset {int(offsets[done])}",
                    hint="decide for each row from the rows up to it",
                )
            known = 0
            for low, high in pairwise([0, *cuts]):
                a, b = done + low, done + high
                closed.append((int(offsets[b - 1]) + 1, int(times[b - 1]), key, int(times[a]), pick, a, b, 0))
            done += cuts[-1]
        if done == len(pick):
            return closed, None
        if not done:
            return closed, _Waiting(waiting.segments, times, len(pick))
        segments = []
        skip = done
        for segment in waiting.segments:
            if skip < len(segment.at):
                segments.append(Segment(segment.rows, segment.at[skip:], None))
            skip = max(0, skip - len(segment.at))
        return closed, _Waiting(segments, times[done:], len(pick) - done)

    def _ask(self, pick: Pick, low: int, high: int, times: Int64, offsets: Int64, key: int) -> list[int]:
        position = int(offsets[high - 1]) + 1
        start, end = int(times[low]), int(times[high - 1])
        pending = Window(pick, low, high, start, end, self._value(key), position, 0, 0, None, None)
        found = self._cuts(pending)
        try:
            cuts = [cut.__index__() for cut in found]
        except (TypeError, AttributeError):
            cuts = [0]
        if cuts and (cuts[0] < 1 or cuts[-1] > high - low or any(b <= a for a, b in pairwise(cuts))):
            raise WindowError(
                expected=f"ascending whole numbers from 1 to {high - low}",
                got=repr(found),
                where="in the result of cuts",
            )
        return cuts

    def advance(self, watermark: int, position: int) -> list[Closed]:
        return []

    def flush(self, position: int) -> list[Closed]:
        closed: list[Closed] = []
        for key, waiting in self._open.items():
            pick, times = lay(waiting.segments), waiting.times
            closed.append((position, int(times[-1]), key, int(times[0]), pick, 0, len(pick), 0))
        self._open.clear()
        return sorted(closed, key=emission)

    def next_end(self) -> int | None:
        return None

    def open_windows(self) -> int:
        return len(self._open)

    def save(self) -> list[Group]:
        return [([key, w.known, *w.times.tolist()], w.segments) for key, w in self._open.items()]

    def load(self, groups: list[Group]) -> None:
        self._open = {n[0]: _Waiting(segments, np.array(n[2:], np.int64), n[1]) for n, segments in groups}

    def parameters(self) -> dict[str, Any]:
        return {}
