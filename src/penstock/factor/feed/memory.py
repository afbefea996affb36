"""Where the last ticks lie in the stream, to run a program over them that did not see them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from penstock.factor.feed.held import Bars, Held
from penstock.factor.feed.moving import Symbol
from penstock.factor.feed.universe import Universe
from penstock.window.clocks import NEVER
from penstock.window.pending import Int64, Rows

if TYPE_CHECKING:
    from penstock.factor.live import Live
    from penstock.log import Chunk

__all__ = ["Again", "Fetch", "Memory", "filled"]

Fetch = Callable[[Sequence[range]], "Iterable[Chunk]"]
"""Reads rows of the stream again; chunks may hold others among them, and lack those that are gone."""

_REMEMBERED: Final = 4096  # ticks, of 24 bytes each in a snapshot


class Again(NamedTuple):
    """A program that has run over the last ticks.

    live   as it stands after them;  seen  per symbol the ordinal of the last tick in which it had a row
    held   rows of symbols that were not in the universe, of ticks that wait
    """

    live: Live
    seen: Int64
    held: Held


class Memory:
    """Of each of the last ticks its time, the position at which it was complete, and the lowest offset of its rows.

    Its rows are those of its time before that position: rows that came later are late, and others there are not.

    Takes   bars: what reads rows; every_ns: time between ticks when absent ones are counted; lateness_ns: of the clock.
    """

    def __init__(self, bars: Bars, every_ns: int | None, lateness_ns: int) -> None:
        self._bars, self._every_ns, self._lateness_ns = bars, every_ns, lateness_ns
        self._ticks: deque[tuple[int, int, int]] = deque(maxlen=max(_REMEMBERED, bars.program.warmup + 1))

    def note(self, times: Int64, positions: Int64, lows: Int64) -> None:
        """Further ticks are complete."""
        self._ticks.extend(zip(times.tolist(), positions.tolist(), lows.tolist(), strict=True))

    def saved(self) -> bytes:
        """What `load` takes."""
        return np.array(self._ticks, "<i8").tobytes()

    def load(self, data: bytes) -> None:
        """Put back what was saved."""
        self._ticks.extend(map(tuple, np.frombuffer(data, "<i8").reshape(-1, 3).tolist()))

    def again(
        self, fetch: Fetch, held: Held, position: int, symbols: Sequence[Symbol], before: set[Symbol], ordinal: int
    ) -> Again:
        """Run the program over the last ticks, as many as it looks back, in a universe of these symbols.

        Takes   held: the rows that wait; position: the next row, up to which rows are read; before: the symbols that
                were in the universe then: of these the rows that were in the ticks count, of others those that are not
                late; ordinal: of the tick that comes next.
        """
        bars = self._bars
        names = bars.keys.values
        want = ordinal if bars.program.endless else min(ordinal, max(1, bars.program.warmup))
        times, positions, lows = np.array(self._ticks, np.int64).reshape(-1, 3).T
        number, last = times, NEVER
        start = int(held.offsets.min(initial=position))
        if len(times):
            last = int(times[-1])
            number, _ = filled(times, self._every_ns, NEVER)
            low = max(0, int(np.searchsorted(number, number[-1] + 1 - want, side="right")) - 1)
            # A symbol that is new may have had the first row of a tick: it came after all of the tick before.
            earlier = max(0, int(np.searchsorted(times, times[low] - self._lateness_ns)) - 1)
            start = min(start, int(lows[earlier:].min()))
            times, positions, lows, number = times[low:], positions[low:], lows[low:], number[low:]
        universe = Universe(bars.program, symbols)
        column = universe.columns(names)
        is_new = (column >= 0) & np.array([name not in before for name in names], bool)
        parts, waiting, high, begun = [held.at(slice(0, 0))], [held.at(slice(0, 0))], NEVER, position
        for rows in self._rows(fetch, start, position):
            begun = min(begun, int(rows.offsets[0]))
            when, codes = bars.times(rows), bars.codes(rows)
            marks = np.maximum(np.maximum.accumulate(when - self._lateness_ns), high)
            high = int(marks[-1])
            fresh = is_new[codes] & (when >= marks)
            if len(times):
                at = np.minimum(np.searchsorted(times, when), len(times) - 1)
                there = (rows.offsets < positions[at]) & (column[codes] >= 0) & ~is_new[codes]
                mine = (times[at] == when) & (there | fresh)
                parts.append(bars.read(rows, np.flatnonzero(mine), when, codes))
            waiting.append(bars.read(rows, np.flatnonzero(fresh & (when > last)), when, codes))
        gone = np.flatnonzero(lows < begun)  # by retention, from the front
        kept = int(gone[-1]) + 1 if len(gone) else 0
        times, number = times[kept:], number[kept:]
        found = Held.join(parts)
        found = found.at(np.isin(found.times, times)).by_time().once()
        first = int(number[0]) if len(number) else 0
        count = int(number[-1]) + 1 - first if len(number) else 0
        live = universe.live = bars.program.stream(list(symbols), first=ordinal - count)
        tick = number[np.searchsorted(times, found.times)] - first
        for _ in universe.run(count, tick, found.codes, found.values, names):
            pass
        return Again(live, universe.seen, Held.join(waiting))

    def _rows(self, fetch: Fetch, start: int, stop: int) -> Iterator[Rows]:
        """Rows [start, stop) of the stream once more, but for those without a symbol or a time."""
        if start >= stop:
            return
        for chunk in fetch([range(start, stop)]):
            offsets = np.arange(chunk.first, chunk.stop)
            good = offsets < stop
            for name in self._bars.schema.names[:2]:
                if chunk.batch.column(name).null_count:
                    good &= chunk.batch.column(name).is_valid().to_numpy(zero_copy_only=False)
            rows = Rows(chunk.batch, offsets, chunk.created).pick(np.flatnonzero(good))
            if len(rows):
                yield rows


def filled(times: Int64, every_ns: int | None, before: int) -> tuple[Int64, Int64]:
    """Of each tick its number when absent ones are counted, and the times of all.

    Takes   times: of the ticks, ascending, at least one; every_ns: time between two, None to count no absent ones;
            before: time of the tick before the first, NEVER for none.
    """
    number = np.arange(len(times))
    if every_ns is None:
        return number, times
    start = int(times[0]) if before == NEVER else before
    absent = np.maximum(0, (np.diff(times, prepend=start) - 1) // every_ns)
    number = number + np.cumsum(absent)
    every = np.zeros(int(number[-1]) + 1, np.int64)
    every[number] = times
    missing = np.flatnonzero(~np.isin(np.arange(len(every)), number))
    owner = np.searchsorted(number, missing)  # the tick behind it
    previous = np.concatenate([[start], times[:-1]])[owner]
    every[missing] = previous + (missing - (number[owner] - absent[owner]) + 1) * every_ns
    return number, every
