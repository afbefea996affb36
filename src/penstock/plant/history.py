"""Messages from the log for one subscriber, until it meets the live ones.

Live messages of a feed begin at its `position`, and both that and the replay move in one thread: when the replay has
read all rows before `position`, the subscriber joins the live lane in the same step: no gap, and no duplicate.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.log.pick import When
from penstock.plant.feed import Burst, Feed
from penstock.plant.parcels import Encoding, Parcel
from penstock.plant.patterns import Pattern, Wanted
from penstock.records import event_column, event_times

__all__ = ["History", "Overlap"]


@dataclass(slots=True)
class Overlap:
    """Messages that another subscription of the same client brings: those of `pattern` at offsets [begin, end)."""

    pattern: Pattern
    begin: int
    end: int = 2**63 - 1


class History:
    """One replay of one feed.

    Takes   wanted: patterns that get it; start: offset, "start", or time in ns: of a feed with event times, rows
            before that time are left out; overlaps: what the client gets otherwise.
    Raises  OffsetError when `start` has expired.
    """

    def __init__(
        self, feed: Feed, wanted: Wanted, start: When, *, overlaps: list[Overlap], since_ns: int | None = None
    ) -> None:
        self.feed, self.wanted, self.overlaps = feed, wanted, overlaps
        self._cursor = feed.cursor(start)
        self._since = since_ns
        self.begin = self._cursor.offset
        self.rows = 0

    @property
    def offset(self) -> int:
        """Offset of the next row it reads."""
        return self._cursor.offset

    @property
    def is_done(self) -> bool:
        """Whether all that is not live has been read."""
        return self._cursor.offset >= self.feed.position

    def step(self, encoding: Encoding, max_rows: int = 256) -> list[Parcel]:
        """The next messages. Read until `is_done`.   Raises  CorruptSegment, UnknownStream, OffsetError."""
        chunk = self._cursor.poll(max_rows, self.feed.position)
        if chunk is None:
            # Rows that were lost, and are skipped: nothing is left before the live ones.
            self._cursor.skip(self.feed.position)
            return []
        self.rows += len(chunk)
        burst = self.feed.burst(chunk)
        rows = self._rows(burst)
        if rows is not None and not rows:
            return []
        return encoding.frames(burst, rows)

    def _rows(self, burst: Burst) -> list[int] | None:
        rows: list[int] | None = None
        if not self.wanted.takes_all(self.feed.fixed):
            found: dict[tuple[str, str], bool] = {}
            rows = []
            for row, key in enumerate(burst.keys()):
                wanted = found.get(key)
                if wanted is None:
                    wanted = found[key] = self.wanted.matches(*key)
                if wanted:
                    rows.append(row)
        overlaps = [o for o in self.overlaps if o.begin < burst.stop and o.end > burst.first]
        if overlaps:
            rows = [row for row in (range(len(burst)) if rows is None else rows) if not _is_in(burst, row, overlaps)]
        if self._since is not None:
            column = event_column(burst.batch.schema)
            if column is not None:
                late = event_times(burst.batch, column) >= self._since
                if not late.all():
                    rows = [row for row in (range(len(burst)) if rows is None else rows) if late[row]]
        return rows


def _is_in(burst: Burst, row: int, overlaps: list[Overlap]) -> bool:
    offset, key = burst.first + row, burst.key(row)
    return any(o.begin <= offset < o.end and o.pattern.matches(*key) for o in overlaps)
