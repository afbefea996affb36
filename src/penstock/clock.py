"""Wall and manual clocks, and the units of time. Nothing else in the package reads the wall clock.

A time is an int: nanoseconds since 1970-01-01T00:00Z. A duration is an int: nanoseconds.
"""

from __future__ import annotations

import re
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from penstock.errors import UsageError

__all__ = ["WALL", "Clock", "ManualClock", "WallClock", "duration_ns", "iso", "time_ns", "utc"]

NS = 1_000_000_000
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": NS,
    "m": 60 * NS,
    "min": 60 * NS,
    "h": 3600 * NS,
    "d": 86400 * NS,
    "w": 7 * 86400 * NS,
}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ns|us|µs|ms|min|s|m|h|d|w)")
_ISO = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9}))?)?\s*(Z|z|[+-]\d\d:?\d\d)?$")


class Clock(Protocol):
    """What tells the time: `now_ns()`, and `wait(event, seconds)`, which returns early when `event` is set."""

    def now_ns(self) -> int: ...

    def wait(self, event: threading.Event, seconds: float) -> bool: ...


class WallClock:
    """The machine's clock."""

    def now_ns(self) -> int:
        return time.time_ns()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)


class ManualClock:
    """A clock that moves only when told to; for tests and for replays.

    `wait` returns once the clock was advanced past the deadline, or the event was set.
    """

    def __init__(self, now_ns: int = 0) -> None:
        self._now = now_ns
        self._moved = threading.Condition()

    def now_ns(self) -> int:
        return self._now

    def advance(self, seconds: float = 0.0, *, ns: int = 0) -> int:
        """Move forward; returns the new time in ns."""
        step = round(seconds * NS) + ns
        if step < 0:
            raise UsageError(expected="a step forward", got=f"{step} ns", where="in ManualClock.advance")
        with self._moved:
            self._now += step
            self._moved.notify_all()
            return self._now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        with self._moved:
            deadline = self._now + round(seconds * NS)
            while self._now < deadline and not event.is_set():
                # The event is no condition of ours: look at it again every few ms of real time.
                self._moved.wait(0.005)
        return event.is_set()


WALL = WallClock()


def duration_ns(value: Any, *, name: str = "duration") -> int:
    """Nanoseconds of a duration: seconds (int, float), a timedelta, numpy timedelta64, or text such as "1m30s".

    Raises  UsageError for anything else, for values that are not finite and for negative ones.
    """
    where = f"in {name}"
    hint = 'give seconds, a timedelta, or text such as "500ms", "1m", "1h30m", "1d"'
    if isinstance(value, bool) or value is None:
        raise UsageError(expected="a duration", got=repr(value), where=where, hint=hint)
    if isinstance(value, timedelta):
        ns = ((value.days * 86400 + value.seconds) * 1_000_000 + value.microseconds) * 1000
    elif isinstance(value, str):
        position, ns = 0, 0
        text = value.strip()
        while position < len(text):
            match = _DURATION.match(text, position)
            if match is None:
                raise UsageError(expected="a duration", got=repr(value), where=where, hint=hint)
            whole, _, part = match[1].partition(".")
            unit = _UNITS[match[2]]
            ns += int(whole) * unit + (round(float("0." + part) * unit) if part else 0)
            position = match.end()
        if not text:
            raise UsageError(expected="a duration", got=repr(value), where=where, hint=hint)
    elif type(value).__name__ == "timedelta64":
        ns = _numpy_ns(value, "timedelta64", where)
    else:
        try:
            ns = value * NS if isinstance(value, int) else round(float(value) * NS)
        except (TypeError, ValueError, OverflowError):
            raise UsageError(expected="a duration", got=repr(value), where=where, hint=hint) from None
    if ns < 0:
        raise UsageError(expected="a duration of at least 0", got=repr(value), where=where)
    return ns


def time_ns(value: Any, *, name: str = "time") -> int:
    """Nanoseconds since the epoch of an aware datetime, numpy datetime64, or ISO text with its offset ("…Z").

    numpy datetime64 and dates without a time of day are read as UTC, the convention of their makers; a naive
    datetime is refused, because it would mean another instant on another machine.
    """
    where = f"in {name}"
    if isinstance(value, datetime):
        if value != value:  # pandas.NaT is a datetime, too
            raise UsageError(expected="a time", got=repr(value), where=where)
        if value.tzinfo is None:
            raise UsageError(
                expected="a datetime with a time zone",
                got=repr(value),
                where=where,
                hint="use datetime(..., tzinfo=UTC)",
            )
        delta = value - datetime(1970, 1, 1, tzinfo=UTC)
        extra = int(getattr(value, "nanosecond", 0))  # pandas.Timestamp keeps them beside the datetime
        return ((delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1000 + extra
    if type(value).__name__ == "datetime64":
        return _numpy_ns(value, "datetime64", where)
    if isinstance(value, str):
        match = _ISO.match(value.strip())
        if match is not None and (match[4] or not match[2]):
            clock = match[2] or "00:00"
            zone = "+00:00" if not match[4] or match[4] in "Zz" else match[4]
            try:
                whole = datetime.fromisoformat(f"{match[1]}T{clock}{zone}")
            except ValueError:
                pass
            else:
                return time_ns(whole) + int((match[3] or "0").ljust(9, "0"))
    raise UsageError(
        expected="a time with its zone",
        got=repr(value),
        where=where,
        hint='give an aware datetime or text such as "2026-11-20T09:30:00Z"',
    )


def _numpy_ns(value: Any, kind: str, where: str) -> int:
    """Ns of a numpy time. Going back must give the same value: numpy wraps, or raises, beyond 1677 to 2262."""
    try:
        exact = value.astype(f"{kind}[ns]")
        if exact.astype(value.dtype) == value:  # NaT is not equal to itself
            return int(exact.astype("int64"))
    except OverflowError:
        pass
    raise UsageError(expected="a time that fits int64 ns (the years 1677 to 2262)", got=repr(value), where=where)


def utc(ns: int) -> datetime:
    """The aware datetime of `ns`, cut to microseconds."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000)


def iso(ns: int) -> str:
    """ISO 8601 text of `ns` in UTC with nine digits: 2026-11-20T09:30:00.000000001Z."""
    return f"{utc(ns - ns % NS):%Y-%m-%dT%H:%M:%S}.{ns % NS:09d}Z"
