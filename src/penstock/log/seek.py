"""Finding places by what the index knows: append times, event times, origins. No message is read.

Every entry's digest is checked: a corrupt one raises CorruptSegment here as it does when rows are read, for its rows
could be among those looked for.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from penstock.log.format import NO_TIME, Kind
from penstock.log.segment import SegmentFile, Segments, firsts

__all__ = ["event_ranges", "index_entries", "last_origin", "offset_at"]


def index_entries(segment: SegmentFile) -> NDArray[np.void]:
    """The entries of one segment that hold rows, as a structured array of ENTRY_DTYPE. Cost: about 0.3 µs each."""
    count = segment.count()
    found = segment.entries(1, count)
    if 1 + len(found) < count:
        segment.entries(1 + len(found), count)  # raises, unless it is the last one, being written
    rows: NDArray[np.void] = found[(found["kind"] == Kind.ROWS) & (found["rows"] > 0)]
    return rows


def _opened(segments: Segments, wanted: list[int]) -> Iterator[SegmentFile]:
    for first in wanted:
        try:
            yield segments.get(first)
        except FileNotFoundError:  # dropped by a retention meanwhile, or still being made
            continue


def offset_at(segments: Segments, moment: int) -> int:
    """Offset of the first row appended at or after `moment` (ns UTC); the next offset when there is none."""
    found = None
    for segment in _opened(segments, firsts(segments.folder)[::-1]):
        number = segment.find_time(moment)
        entry = segment.entry(number)
        if entry is not None and entry.kind in (Kind.ROWS, Kind.LOST):
            found = entry.first
        elif found is None:
            last = segment.last()
            found = segment.first if last is None else last.stop
        if number > 1:
            break
    return 0 if found is None else found


def event_ranges(segments: Segments, start: int, stop: int, low: int, high: int) -> list[tuple[int, int]]:
    """Offset ranges within [start, stop) whose appends have event times within [low, high)."""
    ranges: list[tuple[int, int]] = []
    found = firsts(segments.folder)
    if not found:  # nothing was ever appended
        return ranges
    wanted = [first for first, end in zip(found, [*found[1:], stop], strict=True) if first < stop and end > start]
    for segment in _opened(segments, wanted):
        entries = index_entries(segment)
        begins = entries["first"].astype(np.int64)
        ends = begins + entries["rows"].astype(np.int64)
        timed = entries["min_event"] != NO_TIME
        inside = (ends > start) & (begins < stop)
        inside &= ~timed | ((entries["max_event"] >= low) & (entries["min_event"] < high))
        for begin, end in zip(begins[inside].tolist(), ends[inside].tolist(), strict=True):
            begin, end = max(begin, start), min(end, stop)
            if ranges and ranges[-1][1] == begin:
                ranges[-1] = (ranges[-1][0], end)
            else:
                ranges.append((begin, end))
    return ranges


def last_origin(segments: Segments, who: int) -> tuple[int, int] | None:
    """(origin, index) of the newest entry made by `who`, or None. Cost: one pass over the index, from the end."""
    for segment in _opened(segments, firsts(segments.folder)[::-1]):
        entries = index_entries(segment)
        mine = np.flatnonzero(entries["origin_id"] == who)
        if len(mine):
            return int(entries["origin"][mine[-1]]), int(entries["origin_index"][mine[-1]])
    return None
