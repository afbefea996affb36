"""Session windows: rows of a key that follow each other by less than a gap."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.errors import WindowError
from penstock.window.pending import Bools, Group, Int64, Rows, Segment, by_key, runs, tidy
from penstock.window.pick import Closed, Pick, emission, late_windows, lay

__all__ = ["Gaps"]


class _Session:
    __slots__ = ("first", "key", "last", "mixed", "open", "segments")

    def __init__(self, key: int, first: int, last: int, segments: list[Segment], mixed: bool = False) -> None:
        self.key = key
        self.first = first
        self.last = last
        self.segments = segments
        self.mixed = mixed  # segments are not in the order of their offsets
        self.open = True


class Gaps:
    """Sessions [first row, last row + gap). A row joins every open session of its key it overlaps as [t, t + gap).

    Rows exactly `gap` apart are two sessions. A row between two open sessions makes them one.

    Keys whose rows come in the order of their times are cut with array operations; others row by row. Both give the
    same sessions: a key does not depend on other keys but through the watermark.
    """

    def __init__(self, gap_ns: int, *, emit_late: bool) -> None:
        self.gap_ns = gap_ns
        self.emit_late = emit_late
        self._open: dict[int, list[_Session]] = {}
        # (end, tie, session); ends may be older than the session, they are put right when they come up.
        self._ends: list[tuple[int, int, _Session]] = []
        self._tie = iter(range(2**62))  # itertools.count cannot be copied from Python 3.14 on

    def bind(self, schema: pa.Schema) -> None:
        pass

    def feed(
        self, rows: Rows, times: Int64, marks: Int64, before: int, keys: Int64 | None
    ) -> tuple[list[Closed], Int64 | None]:
        gap = self.gap_ns
        if int(times.max()) > 2**63 - 1 - gap:
            raise WindowError(
                expected=f"times at least {gap} ns (gap) before the year 2262",
                got=str(int(times.max())),
                where="in SessionWindow",
                is_beyond=True,
            )
        if len(rows) == 1:
            # A live feed pushes single rows: 15 us instead of 60.
            only = 0 if keys is None else int(keys[0])
            late = self._one_by_one(only, rows, times.tolist(), [0], np.array([before]), marks)
            return self._closed([], late, rows, times, marks, keys)
        at = np.arange(len(rows)) if keys is None else by_key(keys)
        lows, highs = ([0], [len(rows)]) if keys is None else runs(keys[at])
        numbers = [0] if keys is None else keys[at[lows]].tolist()
        t = times[at]
        passed = np.concatenate([[before], marks[:-1]])[at]  # the watermark before each row
        # Rows that must be looked at one by one: older than the one before, or perhaps late.
        odd = np.zeros(len(t), bool)
        odd[1:] = t[1:] < t[:-1]
        odd[lows] = False
        odd |= t + gap <= marks[at]
        slow = np.logical_or.reduceat(odd, lows)
        opened = [self._latest(number) for number in numbers]
        firsts = t[lows]
        heads = np.array([first if s is None else s.last for s, first in zip(opened, firsts.tolist(), strict=True)])
        slow |= heads > firsts
        ago = np.empty(len(t), np.int64)
        ago[1:] = t[:-1]
        ago[lows] = heads
        fresh = (t - ago >= gap) | (passed >= ago + gap)  # rows that begin a session, if their key has one already
        late = []
        for i in np.flatnonzero(slow).tolist():
            part = slice(lows[i], highs[i])
            late += self._one_by_one(numbers[i], rows, t[part].tolist(), at[part].tolist(), passed[part], marks)
        closed = self._in_order(rows, at, t, marks, fresh, lows, numbers, opened, slow)
        return self._closed(closed, late, rows, times, marks, keys)

    def _closed(
        self, closed: list[Closed], late: list[int], rows: Rows, times: Int64, marks: Int64, keys: Int64 | None
    ) -> tuple[list[Closed], Int64 | None]:
        """Close what is over, and add the windows of late rows."""
        closed += self._close(int(marks[-1]), lambda ends: (rows.offsets[np.searchsorted(marks, ends)] + 1).tolist())
        gone = np.array(sorted(late), np.int64) if late else None
        if gone is not None and self.emit_late:
            closed += late_windows(rows, gone, times[gone], times[gone] + self.gap_ns, keys)
        closed.sort(key=emission)
        return closed, gone

    def _in_order(
        self,
        rows: Rows,
        at: Int64,
        t: Int64,
        marks: Int64,
        fresh: Bools,
        lows: list[int],
        numbers: list[int],
        opened: list[_Session | None],
        slow: Bools,
    ) -> list[Closed]:
        """Cut the keys whose rows are in order; returns the sessions that begin and end among these rows."""
        new = fresh.copy()
        new[lows] = True
        begins = np.flatnonzero(new)
        stops = np.append(begins[1:], len(t))
        which = np.searchsorted(lows, begins, side="right") - 1
        first, last = t[begins], t[stops - 1]
        fast = ~slow[which]
        goes_on = (begins == np.array(lows)[which]) & ~fresh[begins] & np.array([s is not None for s in opened])[which]
        over = fast & ~goes_on & (last + self.gap_ns <= marks[-1])
        for i in np.flatnonzero(fast & ~over).tolist():
            segment = Segment(rows, at[begins[i] : stops[i]], None)
            session = opened[which[i]] if goes_on[i] else None
            if session is None:
                self._add(_Session(numbers[which[i]], int(first[i]), int(last[i]), [segment]))
            else:
                session.segments.append(segment)
                session.last = int(last[i])
        if not over.any():
            return []
        pick = Pick([rows], None, at)
        ends = last[over] + self.gap_ns
        positions = rows.offsets[np.searchsorted(marks, ends)] + 1
        keys = np.array(numbers)[which[over]]
        columns = (positions, ends, keys, first[over], begins[over], stops[over])
        return [
            (position, end, key, start, pick, low, high, 0)
            for position, end, key, start, low, high in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def _latest(self, key: int) -> _Session | None:
        some = self._open.get(key)
        if not some:
            return None
        return some[0] if len(some) == 1 else max(some, key=lambda session: session.last)

    def _add(self, session: _Session) -> None:
        self._open.setdefault(session.key, []).append(session)
        heappush(self._ends, (session.last + self.gap_ns, next(self._tie), session))

    def _one_by_one(
        self, key: int, rows: Rows, times: list[int], at: list[int], passed: Int64, marks: Int64
    ) -> list[int]:
        """The definition, for keys out of order; returns the late rows."""
        gap = self.gap_ns
        late: list[int] = []
        mine: dict[_Session, list[int]] = {}  # rows that join each session here
        for t, row, watermark in zip(times, at, passed.tolist(), strict=True):
            end = t + gap
            touched = [
                session
                for session in self._open.get(key, ())
                if session.first < end and t < (over := session.last + gap) and over > watermark
            ]
            if not touched:
                if end <= marks[row]:
                    late.append(row)
                else:
                    session = _Session(key, t, t, [])
                    self._add(session)
                    mine[session] = [row]
                continue
            session = touched[0]
            session.first = min(session.first, t)
            session.last = max(session.last, t)
            joined = mine.setdefault(session, [])
            joined.append(row)
            for other in touched[1:]:
                session.first = min(session.first, other.first)
                session.last = max(session.last, other.last)
                session.segments += other.segments
                session.mixed = True
                joined += mine.pop(other, [])
                other.open = False
                self._open[key].remove(other)
        for session, joined in mine.items():
            session.segments.append(Segment(rows, np.array(sorted(joined)), None))
        return late

    def advance(self, watermark: int, position: int) -> list[Closed]:
        return self._close(watermark, lambda ends: [position] * len(ends))

    def flush(self, position: int) -> list[Closed]:
        return self._close(2**63, lambda ends: [position] * len(ends))

    def _close(self, limit: int, positions_of: Callable[[Int64], list[int]]) -> list[Closed]:
        ready: list[_Session] = []
        while (session := self._first()) is not None and session.last + self.gap_ns <= limit:
            heappop(self._ends)
            some = self._open[session.key]
            if len(some) == 1:
                del self._open[session.key]
            else:
                some.remove(session)
            ready.append(session)
        if not ready:
            return []
        pieces: list[Segment] = []
        closed: list[Closed] = []
        spans = []
        low = 0
        for session in ready:
            segments = tidy(session.segments) if session.mixed else session.segments
            pieces += segments
            high = low + sum(len(segment.at) for segment in segments)
            spans.append((low, high))
            low = high
        pick = lay(pieces)
        ends = np.array([session.last + self.gap_ns for session in ready])
        for session, position, (low, high) in zip(ready, positions_of(ends), spans, strict=True):
            closed.append((position, session.last + self.gap_ns, session.key, session.first, pick, low, high, 0))
        closed.sort(key=emission)
        return closed

    def _first(self) -> _Session | None:
        """The open session that ends first."""
        ends = self._ends
        while ends:
            end, tie, session = ends[0]
            if session.open and end == session.last + self.gap_ns:
                return session
            heappop(ends)
            if session.open:
                heappush(ends, (session.last + self.gap_ns, tie, session))
        return None

    def next_end(self) -> int | None:
        session = self._first()
        return None if session is None else session.last + self.gap_ns

    def open_windows(self) -> int:
        return sum(len(sessions) for sessions in self._open.values())

    def save(self) -> list[Group]:
        return [([s.key, s.first, s.last], s.segments) for some in self._open.values() for s in some]

    def load(self, groups: list[Group]) -> None:
        self._open, self._ends = {}, []
        for (key, first, last), segments in groups:
            session = _Session(key, first, last, segments)
            self._open.setdefault(key, []).append(session)
            self._ends.append((last + self.gap_ns, next(self._tie), session))
        heapify(self._ends)

    def parameters(self) -> dict[str, Any]:
        return {"gap_ns": self.gap_ns}
