"""What "group" durability is made of: one fdatasync shared by the appends of a few milliseconds."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from penstock.log.disk import storage, sync_folder
from penstock.log.format import arrow_name, index_name

__all__ = ["GroupSync", "sync_segments"]


def sync_segments(folder: Path, found: Iterable[int]) -> None:
    """Fdatasync whole segments, data before index, and the folder that names them."""
    with storage(folder, "an fdatasync"):
        for first in found:
            for name in (arrow_name(first), index_name(first)):
                try:
                    fd = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:  # dropped by a retention meanwhile
                    continue
                try:
                    os.fdatasync(fd)
                finally:
                    os.close(fd)
        sync_folder(folder)


class GroupSync:
    """The first append to come waits some milliseconds and syncs, the others wait for it.

    No flags: an interrupt may come between any two lines, and only `finally` lets go of a lock for sure.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._leading = threading.RLock()
        self._tickets = itertools.count()
        self._done = 0  # tickets below this one are synced

    def wait(self, sync: Callable[[], None]) -> None:
        """Return when a `sync` that began after this call has ended. Raises what it raised, in the thread that led."""
        ticket = next(self._tickets)
        try:  # not `with`: see `Writer.append`
            self._leading.acquire()
            if ticket < self._done:
                return
            time.sleep(self._seconds)  # the time others have to join
            following = next(self._tickets)
            sync()
            self._done = following
        finally:
            try:
                self._leading.release()
            except RuntimeError:  # interrupted before it was taken
                pass
