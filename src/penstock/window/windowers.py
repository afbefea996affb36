"""What closes windows: the interface, and windows by count and by what came since the last one.

A windower gets rows with their times and the watermark after each, and gives back closed windows. It knows nothing
of clocks, key values or numbering.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from penstock.window.pending import Group, Int64, Rows, Segment, by_key, runs
from penstock.window.pick import Closed, count_keys, emission, lay, split

__all__ = ["Count", "Relaxed", "Windower"]


class Windower(Protocol):
    """Assigns rows to windows, and closes windows when the watermark has reached their end."""

    def bind(self, schema: pa.Schema) -> None:
        """Learn what rows look like, before the first and whenever it changes."""

    def feed(
        self, rows: Rows, times: Int64, marks: Int64, before: int, keys: Int64 | None
    ) -> tuple[list[Closed], Int64 | None]:
        """Windows these rows close, in order of emission, and the positions of late rows.

        `marks` is the watermark after each row, `before` the one before the first.
        """

    def advance(self, watermark: int, position: int) -> list[Closed]:
        """Windows that a mark closes."""

    def flush(self, position: int) -> list[Closed]:
        """All open windows, as far as they are filled."""

    def next_end(self) -> int | None:
        """The watermark that closes the next window; None when nothing is open."""

    def open_windows(self) -> int: ...

    def save(self) -> list[Group]: ...

    def load(self, groups: list[Group]) -> None: ...

    def parameters(self) -> dict[str, Any]: ...


class Count:
    """Every `size` rows, of all keys together or of each key. Times only label: first row's and last row's."""

    def __init__(self, size: int, keyed: bool) -> None:
        self.size = size
        self.keyed = keyed
        # For each key number (0 when not keyed): rows waiting, their segments, time of the first and the last.
        self._open: dict[int, tuple[int, list[Segment], int, int]] = {}

    def bind(self, schema: pa.Schema) -> None:
        pass

    def feed(
        self, rows: Rows, times: Int64, marks: Int64, before: int, keys: Int64 | None
    ) -> tuple[list[Closed], Int64 | None]:
        if keys is None:
            at = np.arange(len(rows))
            lows, highs, numbers = [0], [len(rows)], [0]
        else:
            at = by_key(keys)
            ordered = keys[at]
            lows, highs = runs(ordered)
            numbers = ordered[lows].tolist()
        size = self.size
        pieces: list[Segment] = []
        found: list[tuple[int, int, int, int]] = []  # key, time of the first row, last row of the first window, end
        firsts, lasts = times[at[lows]].tolist(), times[at[np.array(highs) - 1]].tolist()
        waiting = self._open
        for number, low, high, first, last in zip(numbers, lows, highs, firsts, lasts, strict=True):
            count, segments, start, _ = waiting.get(number) or (0, [], first, 0)
            total = count + high - low
            if total < size:
                segments.append(Segment(rows, at[low:high], None))
                waiting[number] = (total, segments, start, last)
                continue
            rest = total % size
            cut = high - rest
            pieces += segments
            pieces.append(Segment(rows, at[low:cut], None))
            found.append((number, start, low + size - count - 1, cut))
            if rest:
                waiting[number] = (rest, [Segment(rows, at[cut:high], None)], int(times[at[cut]]), last)
            elif count:
                del waiting[number]
        if not found:
            return [], None
        pick = lay(pieces)
        closed: list[Closed] = []
        low = 0
        for number, start, last, cut in found:
            ends = at[last:cut:size]
            stops = times[ends].tolist()
            high = low + size * len(stops)
            columns = (
                (rows.offsets[ends] + 1).tolist(),
                stops,
                [start, *times[at[last + 1 : cut : size]].tolist()],
                range(low, high, size),
            )
            closed += [
                (position, end, number, begin, pick, row, row + size, 0)
                for position, end, begin, row in zip(*columns, strict=True)
            ]
            low = high
        if len(found) > 1:
            closed.sort(key=emission)
        return closed, None

    def advance(self, watermark: int, position: int) -> list[Closed]:
        return []

    def flush(self, position: int) -> list[Closed]:
        closed: list[Closed] = []
        for number, (count, segments, start, end) in self._open.items():
            closed.append((position, end, number, start, lay(segments), 0, count, 0))
        self._open.clear()
        return sorted(closed, key=emission)

    def next_end(self) -> int | None:
        return None

    def open_windows(self) -> int:
        return len(self._open)

    def save(self) -> list[Group]:
        return [([number, start, end], segments) for number, (_, segments, start, end) in self._open.items()]

    def load(self, groups: list[Group]) -> None:
        self._open = {
            number: (sum(len(segment.at) for segment in segments), segments, start, end)
            for (number, start, end), segments in groups
        }

    def parameters(self) -> dict[str, Any]:
        return {"size": self.size}


class Relaxed:
    """All that came since the last window, closed by the first mark at least `seconds` after its first row."""

    def __init__(self, size_ns: int) -> None:
        self.size_ns = size_ns
        self._segments: list[Segment] = []
        self._start = 0

    def bind(self, schema: pa.Schema) -> None:
        pass

    def feed(
        self, rows: Rows, times: Int64, marks: Int64, before: int, keys: Int64 | None
    ) -> tuple[list[Closed], Int64 | None]:
        if not self._segments:
            self._start = int(times[0])
        self._segments.append(Segment(rows, np.arange(len(rows)), keys))
        return [], None

    def advance(self, watermark: int, position: int) -> list[Closed]:
        if not self._segments or watermark < self._start + self.size_ns:
            return []
        segments, self._segments = self._segments, []
        return split(segments, self._start, watermark, position)

    def flush(self, position: int) -> list[Closed]:
        if not self._segments:
            return []
        segments, self._segments = self._segments, []
        return split(segments, self._start, self._start + self.size_ns, position)

    def next_end(self) -> int | None:
        return self._start + self.size_ns if self._segments else None

    def open_windows(self) -> int:
        return count_keys(self._segments) if self._segments else 0

    def save(self) -> list[Group]:
        return [([self._start], self._segments)] if self._segments else []

    def load(self, groups: list[Group]) -> None:
        for (self._start,), self._segments in groups:
            pass

    def parameters(self) -> dict[str, Any]:
        return {"size_ns": self.size_ns}
