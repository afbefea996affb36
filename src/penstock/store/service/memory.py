"""What a server's process takes from the system: its peak, and a C library that gives back what is free."""

from __future__ import annotations

import ctypes
import resource
import sys
from typing import Final

__all__ = ["data_bytes", "frugal", "peak_bytes"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of mallopt(3)
_LARGE: Final = 512 << 10
_ARENAS: Final = 2


def frugal() -> bool:
    """Have glibc give freed memory back to the system, for this process; False where there is another C library.

    By default it raises the size from which on a block is the system's to 32 MB as soon as one was freed, and takes
    the others from an arena for each of many threads: under four clients that write, 70 MB that were free.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = ((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LARGE), (_ARENA_MAX, _ARENAS))
    return all(mallopt(name, value) == 1 for name, value in settings)


def peak_bytes() -> int:
    """The most memory this process has had, in bytes."""
    found = _status(b"VmHWM")
    if found is not None:
        return found
    # Elsewhere than on Linux; there getrusage would count the parent's, too.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def data_bytes() -> int | None:
    """What RLIMIT_DATA counts of this process, in bytes; None where the system does not say."""
    return _status(b"VmData")


def _status(name: bytes) -> int | None:
    try:
        with open("/proc/self/status", "rb") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name)) * 1024
    except (OSError, StopIteration):
        return None
