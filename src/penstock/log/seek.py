"""Finding places by what the index knows: append times, event times, origins. No message is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.log.format import ENTRY_BYTES, ENTRY_DTYPE, NO_TIME, Kind, index_name, unpack
from penstock.log.segment import firsts

__all__ = ["event_ranges", "index_entries", "last_origin", "offset_at"]


def index_entries(folder: Path, first: int) -> NDArray[np.void]:
    """The entries of one segment that hold rows, as a structured array of ENTRY_DTYPE.

    Digests are not checked here: a reader checks those of the entries it goes on to read.
    """
    try:
        with (folder / index_name(first)).open("rb") as file:
            size = os.fstat(file.fileno()).st_size // ENTRY_BYTES * ENTRY_BYTES
            entries = np.frombuffer(file.read(size), ENTRY_DTYPE)
    except FileNotFoundError:  # dropped by a retention meanwhile, or still to be rebuilt
        return np.empty(0, ENTRY_DTYPE)
    return entries[(entries["kind"] == Kind.ROWS) & (entries["rows"] > 0)]


def _segments(folder: Path) -> Iterator[NDArray[np.void]]:
    for first in firsts(folder):
        entries = index_entries(folder, first)
        if len(entries):
            yield entries


def offset_at(folder: Path, moment: int) -> int:
    """Offset of the first row appended at or after `moment` (ns UTC); the next offset when there is none."""
    found = 0
    for first in reversed(firsts(folder)):
        entries = index_entries(folder, first)
        if not len(entries):
            continue
        at = int(np.searchsorted(entries["appended"], moment, side="left"))
        if at == len(entries):
            return found or int(entries["first"][-1] + entries["rows"][-1])
        found = int(entries["first"][at])
        if at > 0:
            return found
    return found


def event_ranges(folder: Path, start: int, stop: int, low: int, high: int) -> list[tuple[int, int]]:
    """Offset ranges within [start, stop) whose appends have event times within [low, high)."""
    ranges: list[tuple[int, int]] = []
    for entries in _segments(folder):
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


def last_origin(folder: Path, who: int) -> tuple[int, int] | None:
    """(origin, index) of the newest entry made by `who`, or None. Cost: one pass over the index, from the end."""
    for first in reversed(firsts(folder)):
        entries = index_entries(folder, first)
        mine = np.flatnonzero(entries["origin_id"] == who)
        for at in mine[::-1].tolist():
            entry = unpack(entries[at : at + 1].tobytes())
            if entry is not None:
                return entry.origin, entry.origin_index
    return None
