"""An advisory lock on a file, between processes, that a fork does not smuggle into the child.

`flock` belongs to the open file, not to the process: a forked child would hold its parent's lock and keep it after
the parent was killed. So a child closes its copies at birth and opens the file anew when it needs the lock. Locks
between threads have the opposite fault: one that another thread held at the fork is never released in the child, so
whoever has such locks makes new ones there (`at_fork`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

__all__ = ["FileLock", "Forked", "at_fork"]


class Forked(Protocol):
    """What has something to put right in a forked child."""

    def after_fork(self) -> None: ...


_ALL: weakref.WeakSet[Forked] = weakref.WeakSet()


def at_fork(thing: Forked) -> None:
    """Call `thing.after_fork()` in every child forked while it lives."""
    _ALL.add(thing)


class FileLock:
    """The lock on `path`. `fd` is its open file, -1 after a fork or a close.

    Raises  OSError when it cannot be opened.
    """

    fd = -1  # here, for `close`, whatever comes before the rest is there

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open()
        at_fork(self)

    def open(self) -> None:
        """Open the file if it is not open."""
        if self.fd < 0:
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def acquire(self) -> None:
        """Wait for the lock. A signal handler that raises leaves it unheld, or held until `release`."""
        self.open()
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def acquire_nowait(self) -> bool:
        """Take the lock if nobody holds it."""
        self.open()
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @classmethod
    @contextlib.contextmanager
    def held(cls, path: Path) -> Iterator[FileLock]:
        """The lock on `path`, waited for, until the block ends."""
        lock = cls(path)
        try:
            lock.acquire()
            yield lock
        finally:
            lock.release()
            lock.close()

    def release(self) -> None:
        """Let go; no effect when not held."""
        if self.fd >= 0:
            fcntl.flock(self.fd, fcntl.LOCK_UN)

    def is_current(self) -> bool:
        """Whether `path` still names the file we hold: a folder may have been removed and made anew."""
        try:
            return self.fd >= 0 and os.path.samestat(os.stat(self.path), os.fstat(self.fd))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Let go and close the file."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    after_fork = close

    def __del__(self) -> None:
        self.close()


def _after_fork() -> None:
    for thing in list(_ALL):
        thing.after_fork()


os.register_at_fork(after_in_child=_after_fork)
