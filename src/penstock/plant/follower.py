"""A thread that sleeps on a stream's doorbell and tells the event loop when there may be something new."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

from penstock.log.bell import Bell

__all__ = ["Follower"]


class Follower:
    """Rings in the loop: `ring()` is called there once for each `sleep` or `linger`.

    Takes   folder: of the stream; loop; ring: called in the loop.
    Edges   The bell may ring for nothing, ten times a second at least: whoever is rung looks and sleeps again.
    """

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._bell = Bell(folder / "bell")
        self._loop, self._ring = loop, ring
        self._orders = threading.Event()
        self._mark: int | None = None
        self._seconds = 0.0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"plant-{folder.name}", daemon=True)
        self._thread.start()

    def arm(self) -> int:
        """To be called before the last look at the stream; `sleep` takes the answer."""
        return self._bell.arm()

    def sleep(self, armed: int) -> None:
        """Ring when rows were appended since `arm`."""
        self._mark = armed
        self._orders.set()

    def linger(self, seconds: float) -> None:
        """Ring after that time: rows come in quick succession, and some of them make one frame."""
        self._bell.awake()
        self._mark, self._seconds = None, seconds
        self._orders.set()

    def stop(self) -> None:
        """End the thread, within a tenth of a second."""
        self._stopping = True
        self._orders.set()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._orders.wait()
            self._orders.clear()
            if self._stopping:
                return
            if self._mark is None:
                time.sleep(self._seconds)  # more exact than a timer of the loop, which counts in ms
            else:
                self._bell.wait(self._mark, 0.1)
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(self._ring)
