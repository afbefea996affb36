"""Who has written how much: what makes a write that is sent twice one write."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["Writers"]

_KEPT: Final = 10_000


class _Writer:
    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.waiting = 0
        self.positions: dict[str, int] = {}


class Writers:
    """The last position of each one that writes, by table, and whose turn it is. Safe for many threads.

    One writer's messages are taken in one after the other: a repeated one waits for its first, and finds it done.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._mutex = threading.Lock()
        self._writers: OrderedDict[str, _Writer] = OrderedDict()

    @contextmanager
    def turn(self, who: str) -> Iterator[dict[str, int]]:
        """Its last positions by table, to be read and changed until the block ends."""
        with self._mutex:
            writer = self._writers.setdefault(who, _Writer())
            self._writers.move_to_end(who)
            writer.waiting += 1
            self._forget()
        try:
            with writer.turn:
                yield writer.positions
        finally:
            with self._mutex:
                writer.waiting -= 1

    def _forget(self) -> None:
        over = len(self._writers) - self._kept
        if over > 0:  # those that are at it stay, or their repeated messages would not wait for them
            idle = (name for name, other in self._writers.items() if not other.waiting)
            for name in list(itertools.islice(idle, over)):
                del self._writers[name]

    def clear(self) -> None:
        """Forget all, as a server that was started anew has."""
        with self._mutex:
            self._writers.clear()
