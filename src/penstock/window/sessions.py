"""Trading sessions: which instants a market is open, and intervals that start with a session and stop at its end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from penstock.errors import WindowError
from penstock.window.grid import DAY_NS, HIGHEST, LOWEST, Grid, Int64, local_ns, zone

__all__ = ["SessionGrid", "Sessions"]

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?$")
_DAY = 86_400
_EPOCH_DAY = date(1970, 1, 1).toordinal()


class Sessions:
    """The hours in which a market is open.

    Takes   hours: "09:30-16:00", local time; a close at or before the open lies on the next day, so "18:00-17:00" is
            23 hours and "17:00-17:00" 24; tz: name of the zone; breaks: hours inside the session in which it rests;
            days: days of the week with a session, "mon-fri" or "mon,wed,sat-sun"; holidays: dates (ISO text or date)
            without one; special: date -> other hours, for early closes; outside: "drop" leaves rows outside all
            sessions out of bars (they are counted), "keep" gives them bars of their own; closing: "exclude", or
            "include" to count a row exactly at the end of a session (a closing auction) to its last bar.

    A session that passes midnight belongs to the day on which it closes (the trade date): with days="mon-fri",
    "18:00-17:00" opens on Sunday evening. A break cuts the session into segments; a segment holds its start and not
    its end. Hours are what the wall clock shows: a time the clock jumps over is the instant of the jump, one that comes
    twice is the first.

    Raises  WindowError for hours, days, dates or breaks that cannot be read or do not lie inside the session.
    """

    def __init__(
        self,
        hours: str,
        *,
        tz: str,
        breaks: Iterable[str] = (),
        days: str = "mon-fri",
        holidays: Iterable[str | date] = (),
        special: Mapping[Any, str] | None = None,
        outside: Literal["drop", "keep"] = "drop",
        closing: Literal["exclude", "include"] = "exclude",
    ) -> None:
        for name, value, allowed in (
            ("outside", outside, ("drop", "keep")),
            ("closing", closing, ("exclude", "include")),
        ):
            if value not in allowed:
                raise WindowError(
                    expected=f"{name} of {' or '.join(map(repr, allowed))}", got=repr(value), where="in Sessions"
                )
        if isinstance(breaks, str):
            breaks = [breaks]
        if isinstance(holidays, str | date):
            holidays = [holidays]
        self.hours = hours
        self.tz = zone(tz).key
        self.breaks = tuple(breaks)
        self.days = days
        self.holidays = tuple(sorted(_date(day).isoformat() for day in holidays))
        self.special = {_date(day).isoformat(): text for day, text in sorted((special or {}).items(), key=str)}
        self.outside = outside
        self.closing = closing
        self._weekdays = _weekdays(days)
        self._shut = {date.fromisoformat(day).toordinal() - _EPOCH_DAY for day in self.holidays}
        self._usual = self._segments(hours, strict=True)
        self._other = {
            date.fromisoformat(day).toordinal() - _EPOCH_DAY: self._segments(text, strict=False)
            for day, text in self.special.items()
        }
        self._known: dict[int, list[tuple[int, int, int, int]]] = {}

    def __repr__(self) -> str:
        more = ""
        for name, usual in (
            ("breaks", ()),
            ("days", "mon-fri"),
            ("holidays", ()),
            ("special", {}),
            ("outside", "drop"),
            ("closing", "exclude"),
        ):
            value = getattr(self, name)
            if value != usual:
                more += f", {name}={list(value) if isinstance(value, tuple) else value!r}"
        return f"Sessions({self.hours!r}, tz={self.tz!r}{more})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sessions) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def open_at(self, times: Any) -> NDArray[np.bool_]:
        """Whether each time (int64 ns) lies in a session and in no break of it."""
        at = np.asarray(times, dtype=np.int64)
        if not len(at):
            return np.empty(0, bool)
        segments = self._near(at)
        row = np.searchsorted(segments[0], at, side="right") - 1
        return (row >= 0) & (at < segments[1][row])

    def between(self, low: int, high: int) -> tuple[Int64, Int64, Int64, Int64]:
        """Segments of the sessions that touch [low, high], ascending: starts, ends, and their session's open, close."""
        return self._of_days(range(low // DAY_NS - 3, high // DAY_NS + 4))

    def grid(self, size_ns: int) -> SessionGrid:
        """Intervals of this size; see SessionGrid."""
        return SessionGrid(self, size_ns)

    def _near(self, at: Int64) -> tuple[Int64, Int64, Int64, Int64]:
        """Segments around these times: of every UTC day in use, and three to either side."""
        used = np.unique(at // DAY_NS)
        if int(used[-1] - used[0]) <= 64:
            return self.between(int(at.min()), int(at.max()))
        near = np.unique(np.concatenate([used + shift for shift in range(-3, 4)]))
        return self._of_days(near.tolist())

    def _of_days(self, days: Iterable[int]) -> tuple[Int64, Int64, Int64, Int64]:
        known, found = self._known, []
        for day in days:
            if day not in known:
                known[day] = self._day(day)
            found.extend(known[day])
        table = np.array(found, np.int64).reshape(-1, 4)
        return table[:, 0], table[:, 1], table[:, 2], table[:, 3]

    def _day(self, day: int) -> list[tuple[int, int, int, int]]:
        """Segments of the session of local day `day`."""
        if day in self._shut:
            return []
        if day in self._other:
            segments = self._other[day]
        elif (day + 3) % 7 in self._weekdays:  # 1970-01-01 was a Thursday
            segments = self._usual
        else:
            return []
        borders = [(self._instant(day, a), self._instant(day, b)) for a, b in segments]
        opens, closes = borders[0][0], borders[-1][1]
        # A clock jump can leave nothing of a short segment.
        return [(start, end, opens, closes) for start, end in borders if start < end]

    def _instant(self, day: int, second: int) -> int:
        return min(max(local_ns(self.tz, day, second), LOWEST), HIGHEST)

    def _segments(self, hours: str, *, strict: bool) -> list[tuple[int, int]]:
        """(start, end) in seconds after midnight of the closing day; negative on the day before."""
        opens, closes = _hours(hours)
        shift = 0
        if closes <= opens:
            closes += _DAY
        if closes > _DAY:
            shift = _DAY
        out, at = [], opens
        for text in self.breaks:
            start, end = _hours(text)
            if start < opens:
                start, end = start + _DAY, end + _DAY
            if end <= start:
                end += _DAY
            inside = at < start < end < closes
            if not inside and strict:
                raise WindowError(
                    expected=f"breaks inside {hours}, in order and apart",
                    got=repr(text),
                    where="in Sessions",
                    hint='write them as "12:00-13:00"',
                )
            if inside:
                out.append((at - shift, start - shift))
                at = end
            elif start < closes < end and at < start:
                closes = start  # an early close during the break
        return [*out, (at - shift, closes - shift)]


class SessionGrid:
    """Intervals of one size inside sessions.

    Intervals count from the start of their segment, and the last one of a segment is cut at its end. An interval of
    exactly a day is the whole session, breaks included (rows in a break stay outside). With outside="keep", the time
    between segments has the intervals of Grid(size_ns, tz=tz), cut where a segment starts or ends.

    Raises  WindowError for a size below 1 ns or above a day.
    """

    def __init__(self, sessions: Sessions, size_ns: int) -> None:
        if not 1 <= size_ns <= DAY_NS:
            raise WindowError(
                expected="an interval of at most a day with sessions",
                got=f"{size_ns} ns",
                where=f"in {sessions!r}",
                hint="make longer bars from the bars of one day, with tz and without sessions",
            )
        self.sessions = sessions
        self.size_ns = size_ns
        self._grid = Grid(size_ns, tz=sessions.tz)
        self._keep = sessions.outside == "keep"

    def between(self, low: int, high: int) -> tuple[Int64, Int64, Int64]:
        """Intervals that touch [low, high], ascending: starts, ends, and for each the time from which it is over.

        An interval is over at its end, or 1 ns later when the row exactly at the end still belongs to it.
        """
        starts, ends, _, closes = self._segments(self.sessions.between(low, high))
        size, parts = self.size_ns, []
        for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            if self._keep:
                parts += self._gap(int(ends[i - 1]) if i else LOWEST, start, low, high)
            first = start + max(0, (low - start - 1) // size) * size
            borders = np.arange(first, min(end, high + 1), size, dtype=np.int64)
            if len(borders):
                parts.append((borders, np.minimum(borders, end - size) + size))
        if self._keep:
            parts += self._gap(int(ends[-1]) if len(ends) else LOWEST, HIGHEST, low, high)
        if not parts:
            none = np.empty(0, np.int64)
            return none, none, none
        out_starts = np.concatenate([part[0] for part in parts])
        out_ends = np.concatenate([part[1] for part in parts])
        over = self._over(out_ends, starts, closes)
        use = (over > low) & (out_starts <= high)
        return out_starts[use], out_ends[use], over[use]

    def assign(self, times: Any) -> tuple[Int64, Int64, Int64, NDArray[np.bool_]]:
        """The interval of each time: starts, ends, times from which it is over, and whether there is one.

        Takes   times: (n,) int64. The first three are meaningless where the fourth is False.
        """
        at = np.asarray(times, dtype=np.int64)
        if not len(at):
            none = np.empty(0, np.int64)
            return none, none, none, np.empty(0, bool)
        real = self.sessions._near(at)
        starts, ends, _, closes = self._segments(real)
        if not len(starts):
            starts, ends, closes = (np.array([HIGHEST], np.int64) for _ in range(3))
        row = np.searchsorted(starts, at, side="right") - 1
        if self.sessions.closing == "include":
            # The row exactly at the close belongs to the session that ends, unless the next one opens there.
            shut = (row >= 0) & (at == ends[row]) & (ends[row] == closes[row])
        else:
            shut = np.zeros(len(at), bool)
        inside = (row >= 0) & ((at < ends[row]) | shut)
        row = np.maximum(row, 0)
        start = starts[row] + (at - starts[row] - shut) // self.size_ns * self.size_ns
        end = np.minimum(start, ends[row] - self.size_ns) + self.size_ns
        if self._keep and not inside.all():
            out = np.flatnonzero(~inside)
            low, high = self._grid.assign(at[out])
            after = np.searchsorted(starts, at[out], side="right")
            start[out] = np.maximum(low, np.where(after > 0, ends[after - 1], LOWEST))
            end[out] = np.minimum(high, np.append(starts, HIGHEST)[after])
            inside[:] = True
        over = self._over(end, starts, closes)
        if self.resting and not self._keep:
            inside &= self.resting_at(at, real)
        return start, end, over, inside

    @property
    def resting(self) -> bool:
        """Whether an interval may hold a break, in which rows are outside."""
        return self.size_ns == DAY_NS and bool(self.sessions.breaks)

    def resting_at(self, at: Int64, real: tuple[Int64, Int64, Int64, Int64]) -> NDArray[np.bool_]:
        """Whether each time lies in a segment, the end of a session included where it is to be."""
        row = np.searchsorted(real[0], at, side="right") - 1
        inside = (row >= 0) & (at < real[1][row])
        if self.sessions.closing == "include":
            inside |= (row >= 0) & (at == real[3][row])
        return inside

    def _segments(self, segments: tuple[Int64, Int64, Int64, Int64]) -> tuple[Int64, Int64, Int64, Int64]:
        if self.size_ns < DAY_NS:
            return segments
        # A day is the session from open to close.
        _, _, opens, closes = segments
        opens, at = np.unique(opens, return_index=True)
        return opens, closes[at], opens, closes[at]

    def _over(self, ends: Int64, starts: Int64, closes: Int64) -> Int64:
        if self.sessions.closing == "exclude":
            return ends
        return ends + (np.isin(ends, closes) & ~np.isin(ends, starts))

    def _gap(self, low: int, high: int, first: int, last: int) -> list[tuple[Int64, Int64]]:
        """Intervals of the gap [low, high) that touch [first, last]."""
        a, b = max(low, first), min(high - 1, last)
        if a > b:
            return []
        starts, ends = self._grid.between(a, b)
        return [(np.maximum(starts, low), np.minimum(ends, high))]


def _hours(text: Any) -> tuple[int, int]:
    """Seconds after midnight of "09:30-16:00"."""
    out = []
    for part in text.split("-") if isinstance(text, str) else ():
        match = _CLOCK.match(part.strip())
        if match is None:
            break
        hour, minute, second = int(match[1]), int(match[2]), int(match[3] or 0)
        at = hour * 3600 + minute * 60 + second
        if minute > 59 or second > 59 or at > _DAY:
            break
        out.append(at)
    if len(out) != 2 or out[0] == _DAY:
        raise WindowError(expected='hours such as "09:30-16:00"', got=repr(text), where="in Sessions")
    return out[0], out[1]


def _weekdays(text: Any) -> set[int]:
    """Numbers of the days in "mon-fri,sun"; Monday is 0."""
    out: set[int] = set()
    for part in text.lower().split(",") if isinstance(text, str) else ():
        first, _, last = part.strip().partition("-")
        if first not in _DAYS or (last or first) not in _DAYS:
            out.clear()
            break
        start = _DAYS.index(first)
        out.update((start + i) % 7 for i in range((_DAYS.index(last or first) - start) % 7 + 1))
    if not out:
        raise WindowError(expected='days such as "mon-fri" or "mon,wed,sun"', got=repr(text), where="in Sessions")
    return out


def _date(day: Any) -> date:
    try:
        return day if type(day) is date else date.fromisoformat(day)
    except (TypeError, ValueError):
        raise WindowError(expected='a date, or text such as "2026-12-25"', got=repr(day), where="in Sessions") from None
