"""When a trading day is over. No clock: times are handed in."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from penstock.clock import time_ns, utc
from penstock.errors import UsageError

__all__ = ["DayEnd"]

_TEXT = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?: ([A-Za-z0-9_+/-]+))?$")


class DayEnd:
    """A time of day, such as "17:00 America/New_York" (without a zone: UTC).

    Takes   text; now: ns; the first end is the first after it.
    Raises  UsageError for anything else.
    """

    def __init__(self, text: str, now: int) -> None:
        found = _TEXT.match(text) if isinstance(text, str) else None
        try:
            self._zone = ZoneInfo((found[3] if found is not None else None) or "UTC")
        except (ZoneInfoNotFoundError, ValueError, OSError):
            found = None
        if found is None:
            raise UsageError(
                expected='a time of day such as "17:00 America/New_York"', got=repr(text), where="in day_end"
            )
        self._hour, self._minute = int(found[1]), int(found[2])
        self._next = self._after(now)

    def over(self, now: int) -> str | None:
        """The date of a day that has ended since the last call, if one has."""
        if now < time_ns(self._next):
            return None
        day, self._next = self._next, self._after(now)
        return f"{day:%Y-%m-%d}"

    def _after(self, now: int) -> datetime:
        here = utc(now).astimezone(self._zone)
        end = here.replace(hour=self._hour, minute=self._minute, second=0, microsecond=0)
        while time_ns(end) <= now:
            end += timedelta(days=1)  # of the calendar: a day with a clock change has 23 or 25 hours
        return end
