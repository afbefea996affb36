"""When each row of a recording is due."""

from __future__ import annotations

import math
import re
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.clock import NS, Clock
from penstock.errors import UsageError

__all__ = ["Pacer", "speed_of"]


def speed_of(pace: Any) -> float | None:
    """Event seconds per clock second: "recorded" is 1, "60x" and 60 are 60, "max" and None are None (no waiting).

    Raises  UsageError for anything else, and for 0, negative and infinite speeds.
    """
    if pace is None or pace == "max":
        return None
    if pace == "recorded":
        return 1.0
    speed = math.nan
    if isinstance(pace, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*[x×]\s*", pace)
        speed = float(match[1]) if match else math.nan
    elif isinstance(pace, int | float) and not isinstance(pace, bool):
        speed = float(pace)
    if not (speed > 0 and math.isfinite(speed)):
        raise UsageError(
            expected='"recorded", "max", a speed such as "60x", or a number above 0',
            got=repr(pace),
            where="in pace",
        )
    return speed


class Pacer:
    """Hands out runs of rows as they fall due on `clock`.

    The first row is due at once; every other so much later as its event time says, divided by `speed`. Times are
    measured from that first row, so waiting does not drift. A row older than one already due is due at once.
    """

    def __init__(self, clock: Clock, speed: float | None, stop: threading.Event) -> None:
        self._clock = clock
        self._speed = speed
        self._stop = stop
        self._anchor: tuple[int, int] | None = None

    def take(self, times: NDArray[np.int64] | None, most: int) -> tuple[int, int]:
        """Wait until the first of `times` is due.

        Returns how many rows are due now (at most `most`; 0 if stopped), and how late the first is, in ns.
        """
        if self._stop.is_set():
            return 0, 0
        if self._speed is None or times is None:
            return most, 0
        now = self._clock.now_ns()
        if self._anchor is None:
            self._anchor = (now, int(times[0]))
        start, origin = self._anchor
        due = start + round((int(times[0]) - origin) / self._speed)
        while now < due:
            if self._clock.wait(self._stop, (due - now) / NS) or self._stop.is_set():
                return 0, 0
            now = self._clock.now_ns()
        # Rows after the first that were due in the meantime go with it: one append, not thousands.
        reached = origin + math.floor((now - start) * self._speed)
        later = np.flatnonzero(times[:most] > reached)
        return (int(later[0]) if len(later) else min(most, len(times))) or 1, now - due
