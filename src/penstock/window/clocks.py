"""What time a row has, and how far time has come: row times and the watermark, from rows and marks alone.

The watermark is the time up to which windows are complete. A *mark* is a moment of wall time, or a heartbeat, that
the runner hands in between two rows; no file of this package but the runner asks for the time.

    AppendClock   time of a row: when it was appended       watermark: time of the last row or mark
    EventClock    time of a row: a column                   watermark: latest time so far, minus lateness
    MarkClock     time of a row: a column, or as appended   watermark: the last mark
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from penstock.clock import duration_ns
from penstock.errors import RecordError, WindowError
from penstock.records import event_column, event_times, is_document
from penstock.window.keys import member, nearest
from penstock.window.pending import Int64, Rows

__all__ = ["NEVER", "AppendClock", "Clock", "EventClock", "LabelClock", "MarkClock", "choose_clock", "choose_given"]

NEVER = -(2**63)
"""The watermark before any row or mark."""


class Clock(Protocol):
    """What an emitter asks of its clock. `moves_always`: a mark counts even when it closes no window."""

    moves_always: bool

    def bind(self, schema: pa.Schema) -> None:
        """Look for what is needed in the schema; WindowError when it is not there."""

    def read(self, rows: Rows, watermark: int) -> tuple[Int64, Int64]:
        """The time of each row, and the watermark after each row, given the one before the first."""

    def mark(self, ts_ns: int) -> int:
        """The watermark a mark at `ts_ns` asks for."""

    def due(self, end_ns: int, last_created: int) -> int | None:
        """Wall time in ns at which a mark closes a window that ends at `end_ns`; None when marks are not needed."""

    def parameters(self) -> dict[str, Any]: ...


class AppendClock:
    """Rows have the time they were appended, or that of the last mark if it is later; so no row is ever late.

    Windows close by wall time even when no row comes.
    """

    moves_always = False

    def bind(self, schema: pa.Schema) -> None:
        pass

    def read(self, rows: Rows, watermark: int) -> tuple[Int64, Int64]:
        times = np.maximum(rows.created, watermark)
        return times, times

    def mark(self, ts_ns: int) -> int:
        return ts_ns

    def due(self, end_ns: int, last_created: int) -> int | None:
        return end_ns

    def parameters(self) -> dict[str, Any]:
        return {"time": "append"}

    def __repr__(self) -> str:
        return "AppendClock()"


class _ColumnClock:
    """Row times from a column: int64 ns, a timestamp of any unit, date32; of documents, a field of the JSON."""

    def __init__(self, column: str | None) -> None:
        if column is not None and (not isinstance(column, str) or not column):
            raise WindowError(expected="the name of a column for time", got=repr(column), where="in time")
        self.column = column
        self._found = column

    def bind(self, schema: pa.Schema) -> None:
        self._found = self.column or event_column(schema)
        if self._found is None:
            raise WindowError(
                expected="an event time column",
                got=f"columns {', '.join(schema.names)}",
                where="in time",
                hint='name it with time="…", or use time="append"',
            )
        if self._found not in schema.names and not is_document(schema):
            raise WindowError(
                expected=f"a column {self._found!r}",
                got=f"columns {', '.join(schema.names)}",
                where="in time",
                hint=nearest(self._found, schema.names) or 'name one of them, or use time="append"',
            )

    def _times(self, rows: Rows) -> Int64:
        column = str(self._found)
        if column not in rows.batch.schema.names:
            return member(rows, column, "time").times()
        try:
            return event_times(rows.batch, column)
        except RecordError as error:
            row = getattr(error, "row", None)
            at = "" if row is None else f" of row {int(rows.offsets[row])}"
            raise WindowError(
                expected=error.expected,
                got=error.got,
                where=f"in column {column!r}{at}",
                hint=error.hint,
                offset=None if row is None else int(rows.offsets[row]),
            ) from error


class EventClock(_ColumnClock):
    """Rows have the time of a column; the watermark is the latest time seen so far, minus `lateness`.

    It moves row by row and from data only, so replaying the same rows gives the same windows at any speed.

    Takes   column: its name, None for the stream's own event column; lateness: how long rows may come behind the
            latest one and still count (duration); idle: when no row came for that long, the runner sends wall
            marks, and the watermark moves to the mark's time minus lateness (duration, None for never).
    """

    moves_always = False

    def __init__(self, column: str | None = None, lateness: Any = 0, idle: Any = None) -> None:
        super().__init__(column)
        self.lateness_ns = duration_ns(lateness, name="lateness")
        self.idle_ns = None if idle is None else duration_ns(idle, name="idle")
        if self.idle_ns == 0:
            raise WindowError(
                expected="idle above 0", got=repr(idle), where="in idle", hint='use time="append" for wall time'
            )

    def read(self, rows: Rows, watermark: int) -> tuple[Int64, Int64]:
        times = self._times(rows)
        if len(times) and int(times.min()) < NEVER + self.lateness_ns:
            raise WindowError(
                expected=f"times at least {self.lateness_ns} ns (lateness) after the year 1677",
                got=f"{int(times.min())} ns",
                where=f"in column {self._found!r}",
                offset=int(rows.offsets[times.argmin()]),
            )
        marks = np.maximum.accumulate(times - self.lateness_ns)
        return times, np.maximum(marks, watermark, out=marks)

    def mark(self, ts_ns: int) -> int:
        return ts_ns - self.lateness_ns

    def due(self, end_ns: int, last_created: int) -> int | None:
        if self.idle_ns is None:
            return None
        return max(last_created + self.idle_ns, end_ns + self.lateness_ns)

    def parameters(self) -> dict[str, Any]:
        return {"time": "event", "column": self.column, "lateness_ns": self.lateness_ns}

    def __repr__(self) -> str:
        return f"EventClock({self.column!r}, lateness={self.lateness_ns / 1e9}, idle={self.idle_ns})"


class MarkClock(_ColumnClock):
    """The watermark moves by marks only; row times are those of a column, the event column, or of the append.

    For end-of-day messages, heartbeats of a feed, and tests. Marks are then part of the input: a replay needs them all.
    """

    moves_always = True

    def __init__(self, column: str | None = None) -> None:
        super().__init__(column)
        self._append = False

    def bind(self, schema: pa.Schema) -> None:
        self._append = self.column is None and event_column(schema) is None
        if not self._append:
            super().bind(schema)

    def read(self, rows: Rows, watermark: int) -> tuple[Int64, Int64]:
        times = rows.created if self._append else self._times(rows)
        return times, np.full(len(times), watermark, np.int64)

    def mark(self, ts_ns: int) -> int:
        return ts_ns

    def due(self, end_ns: int, last_created: int) -> int | None:
        return None

    def parameters(self) -> dict[str, Any]:
        return {"time": "marks", "column": self.column}

    def __repr__(self) -> str:
        return f"MarkClock({self.column!r})"


def choose_clock(time: Any, lateness: Any, idle: Any, schema: pa.Schema) -> Clock:
    """The clock that `time=`, `lateness=` and `idle=` of a window mean for this schema.

    Takes   time: None (the stream's event column, when it has one, else append time), "append", a column's name, or
            a clock.
    Raises  WindowError for options that contradict each other, and for a column that is not there.
    """
    if time is None and (lateness is not None or idle is not None or event_column(schema) is not None):
        time = EventClock(None, lateness or 0, idle)
    elif time is None or (isinstance(time, str) and time == "append"):
        for name, value in (("lateness", lateness), ("idle", idle)):
            if value is not None:
                raise WindowError(
                    expected="event time when lateness or idle is given",
                    got=f'time="append" with {name}={value!r}',
                    where="in time",
                    hint="rows are never late by append time; leave one of the two out",
                )
        time = AppendClock()
    elif isinstance(time, str):
        time = EventClock(time, lateness or 0, idle)
    else:
        return choose_given(time, lateness, idle)
    clock: Clock = time
    return clock


def choose_given(clock: Any, lateness: Any, idle: Any) -> Clock:
    """The clock given as `time=`; WindowError when it is none, or when it has its own lateness and idle."""
    if not all(hasattr(clock, name) for name in ("bind", "read", "mark", "due", "parameters", "moves_always")):
        raise WindowError(
            expected='a column\'s name, "append" or a clock',
            got=repr(clock),
            where="in time",
            hint='such as time="ts_event"',
        )
    if lateness is not None or idle is not None:
        raise WindowError(
            expected="lateness and idle within the clock",
            got=f"time={clock!r} with lateness={lateness!r}, idle={idle!r}",
            where="in time",
            hint="give them to EventClock(column, lateness, idle)",
        )
    given: Clock = clock
    return given


class LabelClock(_ColumnClock):
    """For windows that do not close by time: labels only. A row without event time has the time of its append."""

    moves_always = False

    def bind(self, schema: pa.Schema) -> None:
        if self.column is not None:
            super().bind(schema)
        else:
            self._found = event_column(schema)

    def read(self, rows: Rows, watermark: int) -> tuple[Int64, Int64]:
        name = self._found
        if name is None:
            times = rows.created
        elif name in rows.batch.schema.names and rows.batch.column(name).null_count:
            known = rows.batch.column(name).is_valid().to_numpy(zero_copy_only=False)
            times = rows.created.copy()
            times[known] = self._times(rows.pick(np.flatnonzero(known)))
        else:
            times = self._times(rows)
        return times, np.maximum(np.maximum.accumulate(times), watermark)

    def mark(self, ts_ns: int) -> int:
        return NEVER

    def due(self, end_ns: int, last_created: int) -> int | None:
        return None

    def parameters(self) -> dict[str, Any]:
        return {"time": "labels", "column": self.column}
