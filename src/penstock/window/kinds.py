"""The windows as users write them."""

from __future__ import annotations

from typing import Any

from penstock.clock import duration_ns, time_ns
from penstock.errors import WindowError
from penstock.window.clocks import AppendClock, LabelClock
from penstock.window.emitter import Emitter
from penstock.window.fixed import Fixed
from penstock.window.gaps import Gaps
from penstock.window.grid import Grid
from penstock.window.logic import Logic
from penstock.window.overlap import Sliding
from penstock.window.windowers import Count, Relaxed

__all__ = ["CountWindow", "FixedTimeWindow", "RelaxedTimeWindow", "SessionWindow", "SlidingWindow"]

MOST = 100_000  # windows around a row


class CountWindow(Emitter):
    """Every `size` rows, in the order of their offsets; with `by`, every `size` rows of each key.

    Takes   size: rows, at least 1; by: key column; time: column that gives `start` and `end` (default: the stream's
            event column, else the time of append), the times of the first and the last row.
    A part of a window comes only from `flush`. Closed by its last row: position = its offset + 1.
    """

    def __init__(
        self, size: int = 1, *, by: str | None = None, time: str | None = None, logic: Logic | None = None
    ) -> None:
        clock = AppendClock() if time == "append" else LabelClock(time)
        super().__init__(Count(whole(size, "size"), by is not None), by=by, time=clock, logic=logic)


class FixedTimeWindow(Emitter):
    """The windows [k·size, (k+1)·size) since the epoch, `origin` or local midnight; each comes when the watermark
    has reached its end.

    Takes   size: duration; by: key column; origin: a border (aware time or ISO text; without `tz`); tz: zone whose
            midnights are borders; time: "append", a column, or a clock (default: the stream's event column, else the
            time of append); lateness: how far rows may come behind the latest one (event time); idle: close by wall
            time after that long without rows (event time); late: "drop" (default), "emit" or "side"; emit_empty:
            windows without rows too, from the first window with rows on, for each key that has had one.
    """

    def __init__(
        self,
        size: Any,
        *,
        by: str | None = None,
        origin: Any = None,
        tz: str | None = None,
        time: Any = None,
        lateness: Any = None,
        idle: Any = None,
        late: str = "drop",
        emit_empty: bool = False,
        logic: Logic | None = None,
    ) -> None:
        grid = Grid(span(size, "size"), origin_ns=moment(origin), tz=tz)
        windower = Fixed(grid, emit_late=late == "emit", emit_empty=emit_empty)
        super().__init__(windower, by=by, time=time, lateness=lateness, idle=idle, late=late, logic=logic)


class RelaxedTimeWindow(Emitter):
    """What came since the last window; comes `seconds` after its first row was appended, by wall time.

    No row waits longer than `seconds`, and there are no empty windows. `end` is the moment it closed (flush: when it
    was due); `start` the time of its first row. With `by`, all keys close together, one window each.
    """

    def __init__(self, seconds: Any, *, by: str | None = None, logic: Logic | None = None) -> None:
        super().__init__(Relaxed(span(seconds, "seconds")), by=by, time=AppendClock(), logic=logic)


class SlidingWindow(Emitter):
    """The windows [k·every, k·every + size) since the epoch or `origin`; a row lies in size / every of them.

    Takes   size, every: durations, every <= size; origin: start of a window (aware time or ISO text); the rest as in
            FixedTimeWindow. Windows without rows are skipped.
    A late row may miss some of its windows and still be in others. It counts once, late="side" hands it out once, and
    late="emit" gives one window for each it missed.
    """

    def __init__(
        self,
        size: Any,
        every: Any,
        *,
        by: str | None = None,
        origin: Any = None,
        time: Any = None,
        lateness: Any = None,
        idle: Any = None,
        late: str = "drop",
        logic: Logic | None = None,
    ) -> None:
        size_ns, every_ns = span(size, "size"), span(every, "every")
        if every_ns > size_ns:
            raise WindowError(
                expected="every of at most size",
                got=f"every={every!r} with size={size!r}",
                where="in SlidingWindow",
                hint="rows between two windows would be in none; use FixedTimeWindow, or a smaller every",
            )
        if size_ns > MOST * every_ns:
            raise WindowError(
                expected=f"every of at least size / {MOST:,}",
                got=f"every={every!r} with size={size!r}",
                where="in SlidingWindow",
                hint="each row would be in more windows than that; use a larger every",
            )
        windower = Sliding(size_ns, every_ns, moment(origin), emit_late=late == "emit")
        super().__init__(windower, by=by, time=time, lateness=lateness, idle=idle, late=late, logic=logic)


class SessionWindow(Emitter):
    """Rows that follow each other by less than `gap`, of each key with `by`.

    Takes   gap: duration; the rest as in FixedTimeWindow.
    A session is [first row, last row + gap) and comes when the watermark has reached its end. Rows exactly `gap`
    apart are two sessions. With `lateness`, a row between two open sessions joins them to one. A row is late when it
    reaches no open session and its own, [t, t + gap), is over.
    """

    def __init__(
        self,
        gap: Any,
        *,
        by: str | None = None,
        time: Any = None,
        lateness: Any = None,
        idle: Any = None,
        late: str = "drop",
        logic: Logic | None = None,
    ) -> None:
        windower = Gaps(span(gap, "gap"), emit_late=late == "emit")
        super().__init__(windower, by=by, time=time, lateness=lateness, idle=idle, late=late, logic=logic)


def whole(value: Any, name: str) -> int:
    """A number of rows, at least 1."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < 1:
        raise WindowError(expected=f"{name} of at least 1 row, a whole number", got=repr(value), where=f"in {name}")
    return int(value)


def span(value: Any, name: str) -> int:
    """A duration above 0, in ns."""
    ns = duration_ns(value, name=name)
    if not 0 < ns < 2**62:
        raise WindowError(expected=f"{name} above 0 and under 146 years", got=repr(value), where=f"in {name}")
    return ns


def moment(origin: Any) -> int:
    return 0 if origin is None else time_ns(origin, name="origin")
