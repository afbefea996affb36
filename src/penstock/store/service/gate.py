"""How many messages a server takes in at a time: gRPC makes room for one as soon as somebody asks for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from penstock.errors import UsageError

__all__ = ["Gate", "Place"]


class Place:
    """One that takes messages in, one after the other: `wait` before it asks for the next, `came`, `leave`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def wait(self) -> None:
        """Until there is room for a message."""
        self._gate._enter(self)

    def came(self) -> None:
        """The message is there; it keeps its room until it is left."""
        self._gate._came(self)

    def leave(self) -> None:
        """The message is gone. Twice does no harm."""
        self._gate._leave(self)


class Gate:
    """Room for `places` messages that arrive or are being written.

    One that has nothing to send keeps no room from others: after `idle_s` without a byte another takes its place, and
    its message, when it comes at last, is one more than there is room for. Safe for many threads.
    """

    def __init__(self, places: int, *, idle_s: float = 0.1, clock: Callable[[], float] = time.monotonic) -> None:
        if places < 1:
            raise UsageError(expected="at least 1 place", got=repr(places), where="in a gate")
        self._places, self._idle, self._clock = places, idle_s, clock
        self._changed = threading.Condition()
        self._since: dict[Place, float | None] = {}  # when each began to wait for its message; None: it has it

    def place(self) -> Place:
        """For one that sends."""
        return Place(self)

    def __len__(self) -> int:
        return len(self._since)

    def _enter(self, place: Place) -> None:
        with self._changed:
            while len(self._since) >= self._places:
                waiting = [(since, other) for other, since in self._since.items() if since is not None]
                if not waiting:
                    self._changed.wait()
                    continue
                since, other = min(waiting, key=lambda found: found[0])
                left = since + self._idle - self._clock()
                if left <= 0:
                    del self._since[other]
                    break
                self._changed.wait(left)
            self._since[place] = self._clock()

    def _came(self, place: Place) -> None:
        with self._changed:
            self._since[place] = None

    def _leave(self, place: Place) -> None:
        with self._changed:
            self._since.pop(place, None)
            self._changed.notify()
