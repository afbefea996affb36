"""Frames ready for the wire: some rows of a burst in one encoding, made once for all who get the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa

from penstock.plant import arrow
from penstock.plant.feed import Burst
from penstock.plant.protocol import array, binary_frame, statuses, text_frame

__all__ = ["MAX_FRAME", "Encoding", "Parcel"]

MAX_FRAME: Final = 512 << 10
"""Bytes of a frame of many messages: half of what clients accept by default. A larger message goes alone."""


class Encoding:
    """How messages are written: as JSON, `seq` with their offsets; or as Arrow."""

    __slots__ = ("is_arrow", "seq")

    def __init__(self, seq: bool = False, is_arrow: bool = False) -> None:
        self.seq, self.is_arrow = seq, is_arrow

    def __hash__(self) -> int:
        return self.seq * 2 + self.is_arrow

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Encoding) and (self.seq, self.is_arrow) == (other.seq, other.is_arrow)

    def frames(self, burst: Burst, rows: list[int] | None) -> list[Parcel]:
        """Rows of a burst (None: all) as parcels, none larger than MAX_FRAME unless it is one message."""
        if self.is_arrow:
            return _arrow(burst, rows)
        rows = self.rows(burst, rows)
        if rows is not None and not rows:
            return []
        messages = self.messages(burst)
        if rows is not None:
            messages = [messages[row] for row in rows]
        return list(self._split(burst, rows, messages))

    def _split(self, burst: Burst, rows: list[int] | None, messages: list[bytes]) -> Iterator[Parcel]:
        frame = self.frame(messages)
        count = len(messages)
        if len(frame) > MAX_FRAME and count > 1:
            half = count // 2
            every = list(range(count)) if rows is None else rows
            yield from self._split(burst, every[:half], messages[:half])
            yield from self._split(burst, every[half:], messages[half:])
        else:
            yield Parcel(frame, count, burst, rows)

    # -- what another dialect says in its own way

    def rows(self, burst: Burst, rows: list[int] | None) -> list[int] | None:
        """Of these rows (None: all) those that are wanted."""
        return rows

    def messages(self, burst: Burst) -> list[bytes]:
        """Every row of a burst as a message. Made once."""
        return burst.messages(self.seq)

    def frame(self, messages: list[bytes]) -> bytes:
        """A whole WebSocket frame with these messages."""
        return text_frame(array(messages))

    def statuses(self, *found: bytes) -> bytes:
        """A frame with what the plant itself says (`protocol.status`); empty if there is no word for it."""
        return statuses(*found)


class Parcel:
    """A frame ready for the wire, and what is in it: rows of a burst (`rows` None: all of them).

    first, last  offsets of its first and last row
    """

    __slots__ = ("_latest", "burst", "count", "feed", "first", "frame", "is_history", "last", "rows")

    def __init__(self, frame: bytes, count: int, burst: Burst, rows: list[int] | None) -> None:
        self.frame, self.count, self.feed = frame, count, burst.feed
        self.burst: Burst | None = burst
        self.rows = rows
        self.first = burst.first + (rows[0] if rows else 0)
        self.last = burst.first + (rows[-1] if rows else len(burst) - 1)
        self.is_history = False
        self._latest: tuple[Encoding, dict[Any, tuple[int, bytes]]] | None = None

    def latest(self, encoding: Encoding) -> dict[Any, tuple[int, bytes]]:
        """(offset, message) by the name of its row: the last of each. Made once for all who conflate."""
        if self._latest is None or self._latest[0] != encoding:
            burst = self.burst
            assert burst is not None
            first, names, messages = burst.first, burst.names(), encoding.messages(burst)
            if self.rows is None:
                found = dict(zip(names, zip(range(first, burst.stop), messages, strict=True), strict=True))
            else:
                found = {names[row]: (first + row, messages[row]) for row in self.rows}
            self._latest = encoding, found
        return self._latest[1]

    def lighten(self) -> None:
        """Hold the frame only: what waits in a queue has its messages once, and nothing for the collector to walk."""
        self.burst = self.rows = self._latest = None


def _arrow(burst: Burst, rows: list[int] | None) -> list[Parcel]:
    if rows is None:
        batch, seq = burst.batch, np.arange(burst.first, burst.stop)
    else:
        picked = np.asarray(rows, np.int64)
        batch, seq = burst.batch.take(pa.array(picked)), burst.first + picked
    payload = arrow.encode(batch, seq, burst.feed.name, burst.feed.event, burst.feed.root)
    if len(payload) > MAX_FRAME and len(seq) > 1:
        every = list(range(len(burst))) if rows is None else rows
        half = len(every) // 2
        return _arrow(burst, every[:half]) + _arrow(burst, every[half:])
    return [Parcel(binary_frame(payload), len(seq), burst, rows)]
