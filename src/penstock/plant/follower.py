"""A thread that sleeps on a stream's doorbell and tells the event loop when there may be something new."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from penstock.log.bell import Bell

__all__ = ["Follower"]

_MOST_S: Final = 0.01


class Follower:
    """Calls `ring()` in the loop when rows may have come.

    Takes   folder: of the stream; loop; ring: called in the loop; it calls `look`, and then reads all there is;
            linger: the shortest time between two rings, in seconds: rows in quick succession make one frame.
    Edges   It rings for nothing too, ten times a second at least.

    No row is missed: the bell is armed before the ring, so what is appended before that is there when the loop looks,
    and what is appended after it rings again. The loop never tells the thread anything but that it looks: each word
    between two threads costs more than reading a few rows.
    """

    def __init__(
        self, folder: Path, loop: asyncio.AbstractEventLoop, ring: Callable[[], None], *, linger: float
    ) -> None:
        self._bell = Bell(folder / "bell")
        self._loop, self._ring, self._linger = loop, ring, linger
        self._took = 0.0
        self._is_rung = self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"plant-{folder.name}", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """To be called before a look at the stream: a ring after this is for what comes after it."""
        self._is_rung = False
        self._bell.awake()

    def looked(self, took: float) -> None:
        """To be called after the look, which took so many seconds: the rest is that much longer, so a loop that has
        much to do gets more rows at a time, and not more turns.
        """
        self._took = min(took, _MOST_S)

    def stop(self) -> None:
        """End the thread, within a tenth of a second."""
        self._stopping = True
        self._bell.ring()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            armed = self._bell.arm()
            if not self._is_rung:  # else the loop has yet to look, which is after this arming
                self._is_rung = True
                try:
                    self._loop.call_soon_threadsafe(self._ring)
                except RuntimeError:  # the loop was closed
                    return
            time.sleep(self._linger + self._took)  # more exact than a timer of the loop, which counts in ms
            self._bell.wait(armed, 0.1)
