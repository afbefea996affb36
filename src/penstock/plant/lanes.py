"""Who gets which messages of a feed: those who want the same share a lane, and a lane is encoded once.

A lane is a set of patterns (`Wanted`) in one encoding. For each burst, the router finds the rows of every lane, the
lane makes ready WebSocket frames of them, and the same bytes go to all of its outboxes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from penstock.plant.feed import Burst, Feed
from penstock.plant.parcels import Encoding, Parcel
from penstock.plant.patterns import Wanted

if TYPE_CHECKING:
    from penstock.plant.outbox import Outbox

__all__ = ["Lane", "Router"]

_MAX_ROUTES: Final = 100_000


class Lane:
    """Subscribers who get the same bytes of one feed."""

    __slots__ = ("encoding", "is_whole", "outboxes", "rows", "wanted")

    def __init__(self, wanted: Wanted, encoding: Encoding, *, is_whole: bool) -> None:
        self.wanted, self.encoding, self.is_whole = wanted, encoding, is_whole
        self.outboxes: dict[Outbox, int | None] = {}  # and how it conflates there
        self.rows: list[int] = []  # of the burst that is being routed


class Router:
    """The lanes of one feed.   Cost of `route`  one look-up a row; nothing where all lanes want all of the feed."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self._lanes: dict[tuple[Wanted, Encoding], Lane] = {}
        self._whole: list[Lane] = []
        self._wild: list[Lane] = []
        self._exact: dict[tuple[str, str], list[Lane]] = {}
        self._routes: dict[str | tuple[str, str], list[Lane]] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def join(self, wanted: Wanted, encoding: Encoding, outbox: Outbox, conflate: int | None) -> Lane:
        """Put an outbox on the lane of `wanted`, which is made for the first."""
        lane = self._lanes.get((wanted, encoding))
        if lane is None:
            lane = Lane(wanted, encoding, is_whole=wanted.takes_all(self.feed.fixed))
            self._lanes[wanted, encoding] = lane
            if lane.is_whole:
                self._whole.append(lane)
            elif wanted.is_exact:
                self._add(lane, wanted.keys)
            else:
                self._wild.append(lane)
                self._routes.clear()
        lane.outboxes[outbox] = conflate
        return lane

    def change(self, lane: Lane, wanted: Wanted) -> bool:
        """Let a lane of single symbols bring others; False if that is not possible: leave it, and join another.

        Cost    by the symbols that come and go: a client of 10,000 may change one as often as it likes.
        """
        if len(lane.outboxes) > 1 or not (lane.wanted.is_exact and wanted.is_exact):
            return False
        if lane.is_whole or lane.wanted.but != wanted.but or (wanted, lane.encoding) in self._lanes:
            return False
        del self._lanes[lane.wanted, lane.encoding]
        self._lanes[wanted, lane.encoding] = lane
        before, lane.wanted = lane.wanted, wanted
        self._forget(lane, before.keys - wanted.keys)
        self._add(lane, wanted.keys - before.keys)
        return True

    def leave(self, lane: Lane, outbox: Outbox) -> None:
        """Take an outbox off its lane; a lane without any is forgotten."""
        lane.outboxes.pop(outbox, None)
        if lane.outboxes:
            return
        self._lanes.pop((lane.wanted, lane.encoding), None)
        if lane.is_whole:
            self._whole.remove(lane)
        elif lane.wanted.is_exact:
            self._forget(lane, lane.wanted.keys)
        else:
            self._wild.remove(lane)
            self._routes.clear()

    def route(self, burst: Burst) -> Iterator[tuple[Lane, list[Parcel]]]:
        """Each lane that gets some of the burst, with its parcels."""
        for lane in list(self._whole):  # a subscriber may leave meanwhile
            yield lane, lane.encoding.frames(burst, None)
        if not self._wild and not self._exact:
            return
        touched: list[Lane] = []
        routes = self._routes
        names: Sequence[str | tuple[str, str]] = burst.names()
        for row, name in enumerate(names):
            found = routes.get(name)
            if found is None:
                found = self._find(name)
            for lane in found:
                if not lane.rows:
                    touched.append(lane)
                lane.rows.append(row)
        for lane in touched:
            rows, lane.rows = lane.rows, []
            yield lane, lane.encoding.frames(burst, rows if len(rows) < len(burst) else None)

    def _add(self, lane: Lane, keys: Iterable[tuple[str, str]]) -> None:
        for key in keys:
            self._exact.setdefault(key, []).append(lane)
            self._routes.pop(self._name(key), None)

    def _forget(self, lane: Lane, keys: Iterable[tuple[str, str]]) -> None:
        for key in keys:
            held = self._exact[key]
            held.remove(lane)
            if not held:
                del self._exact[key]
            self._routes.pop(self._name(key), None)

    def _name(self, key: tuple[str, str]) -> str | tuple[str, str]:
        return key if self.feed.is_mixed else key[1]

    def _find(self, name: str | tuple[str, str]) -> list[Lane]:
        event, symbol = (self.feed.event or "", name) if isinstance(name, str) else name
        found = [lane for lane in self._exact.get((event, symbol), ()) if lane.wanted.matches(event, symbol)]
        found += [lane for lane in self._wild if lane.wanted.matches(event, symbol)]
        if len(self._routes) >= _MAX_ROUTES:
            self._routes.clear()  # symbols without end, such as ids: bounded, at the price of looking again
        self._routes[name] = found
        return found
