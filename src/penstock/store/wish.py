"""What a read wants: of which times, which columns, and as known when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from numbers import Integral
from typing import Any, Final

from penstock.clock import time_ns

__all__ = ["EVER", "Wish", "moment", "span_of"]

EVER: Final = (-(2**63), 2**63 - 1)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a read wants of each key.

    span        event times in [low, high), ns UTC
    columns     names; None: all of the table
    as_of       only what was known then, ns UTC
    before      only rows of smaller offsets: what was there when a scan began
    revisions   every value a row had; on_corrupt: "raise" or "skip"
    """

    span: tuple[int, int] = EVER
    columns: Sequence[str] | None = None
    as_of: int | None = None
    before: int | None = None
    revisions: bool = False
    on_corrupt: str = "raise"


def moment(value: Any, name: str) -> int | None:
    """Ns UTC of an integer (ns), an aware datetime, a date (its midnight in UTC) or ISO text with its zone.

    None stays None, and what is beyond int64 becomes its end. Raises UsageError.
    """
    if value is None:
        return None
    if isinstance(value, Integral) and not isinstance(value, bool):
        found = int(value)
    elif isinstance(value, date) and not isinstance(value, datetime):
        found = time_ns(value.isoformat(), name=name)
    else:
        found = time_ns(value, name=name)
    return max(EVER[0], min(found, EVER[1]))


def span_of(start: Any, end: Any) -> tuple[int, int]:
    """The event times of [start, end), None for one that is open. Raises UsageError."""
    low, high = moment(start, "start"), moment(end, "end")
    return EVER[0] if low is None else low, EVER[1] if high is None else high
