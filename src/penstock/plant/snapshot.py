"""The latest message of each symbol of a feed, for those who ask for a snapshot."""

from __future__ import annotations

from typing import Final

from penstock.plant.feed import Burst, Feed
from penstock.plant.kept import Kept, kept
from penstock.plant.parcels import Encoding, Parcel
from penstock.plant.patterns import Wanted

__all__ = ["LOOK_BACK", "Latest"]

LOOK_BACK: Final = 20_000
"""Rows before the live ones that a feed's first snapshot looks at: about 20 ms."""


class Latest:
    """The latest messages of one feed, by symbol.

    Takes   feed; the rows it looks back at are the last `LOOK_BACK` before its position, later ones are `add`ed.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._kept: dict[Encoding, Kept] = {}

    def add(self, burst: Burst) -> None:
        """Messages that were published."""
        for held in self._kept.values():
            held.fold(Parcel(b"", len(burst), burst, None))

    def frames(self, wanted: Wanted, encoding: Encoding) -> list[bytes]:
        """Frames of the latest messages that are wanted."""
        held = self._kept.get(encoding)
        if held is None:
            held = self._kept[encoding] = kept(encoding)
            feed = self._feed
            cursor = feed.cursor(max(feed.stream.first_offset, feed.position - LOOK_BACK))
            while (chunk := cursor.poll(LOOK_BACK, feed.position)) is not None:
                held.fold(Parcel(b"", len(chunk), feed.burst(chunk), None))
        return held.frames(wanted)
