"""An advisory lock on a file, between processes, that a fork does not smuggle into the child.

`flock` belongs to the open file, not to the process: a forked child would hold its parent's lock and keep it after
the parent was killed. So a child closes its copies at birth and opens the file anew when it needs the lock.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path

__all__ = ["FileLock"]


class FileLock:
    """The lock on `path`. `fd` is the open file, -1 after a fork or a close. Raises OSError when it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1
        self.open()
        _ALL.add(self)

    def open(self) -> None:
        """Open the file if it is not open."""
        if self.fd < 0:
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def acquire(self) -> None:
        """Wait for the lock. A signal handler that raises leaves it unheld."""
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
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()


_ALL: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _after_fork() -> None:
    for lock in list(_ALL):
        lock.close()


os.register_at_fork(after_in_child=_after_fork)
