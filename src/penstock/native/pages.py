"""Arrays in large pages: memory that the system gives 2 MB at a time instead of 4 KB.

A page costs some 1.3 µs when it is first written to, and threads of a process wait for each other meanwhile: of results
of 200 MB that is a tenth of the time to compute them (docs/design/0024). Arrays of one call lie side by side, or each
would end in the middle of a large page.

In a virtual machine whose host takes back what is free, a large page costs six times what 512 small ones do, unless it
was in use a moment ago. So a mapping takes its large pages in steps, and from the first slow step on it has small ones.
"""

from __future__ import annotations

import mmap
import time
from typing import Any

import numpy as np

__all__ = ["LEAST", "arrays"]

Array = np.ndarray[Any, np.dtype[Any]]

LARGE = 1 << 21
"""Bytes of a large page."""

LEAST = 4 * LARGE
"""Bytes of all arrays together from which on they get a mapping of their own."""

_ADVICE = getattr(mmap, "MADV_HUGEPAGE", None)
_GONE = getattr(mmap, "MADV_DONTNEED", 0)
_SMALL = getattr(mmap, "MADV_NOHUGEPAGE", 0)
_POPULATE = 23  # MADV_POPULATE_WRITE of Linux 5.14, which Python has no name for

_STEP = 4 * LARGE
_SLOW_NS = 3_000_000
"""Processor time of a step from which on small pages are quicker: 0.5 ms are usual, small ones take 3.2, a host 18."""


class _Part:
    """A stretch of a mapping; when nothing refers to it any more, the system has its pages back.

    NumPy keeps it as the base of the array that is made of it, beyond which no view looks.
    """

    __slots__ = ("__array_interface__", "memory", "place", "size")

    def __init__(self, memory: mmap.mmap, address: int, place: int, size: int) -> None:
        self.memory, self.place, self.size = memory, place, size
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (size,), "data": (address + place, False)}

    def __del__(self, gone: int = _GONE) -> None:
        self.memory.madvise(gone, self.place, self.size)


def arrays(count: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> list[Array]:
    """So many arrays whose values are not set.

    Cost    50 ms a GB in large pages; in small ones none before they are written to. Of each that goes, what lies in
            pages of its own is given back, also while others live.
    Raises  MemoryError.
    """
    size = dtype.itemsize
    for extent in shape:
        size *= extent
    step = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    if count * step < LEAST or _ADVICE is None:
        return [np.empty(shape, dtype) for _ in range(count)]
    try:
        memory = mmap.mmap(-1, count * step + LARGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(_ADVICE)
    except OSError:  # a limit of the process, or a kernel without large pages
        return [np.empty(shape, dtype) for _ in range(count)]
    address = np.frombuffer(memory, np.uint8).ctypes.data
    first = -address % LARGE
    _populate(memory, first, count * step)
    parts = [_Part(memory, address, first + i * step, step) for i in range(count)]
    return [np.asarray(part)[:size].view(dtype).reshape(shape) for part in parts]


def _populate(memory: mmap.mmap, first: int, size: int) -> None:
    """Take the memory as large pages, for as long as they come quickly."""
    for place in range(first, first + size - _STEP + 1, _STEP):
        began = time.thread_time_ns()
        try:
            memory.madvise(_POPULATE, place, _STEP)
        except OSError:  # an older kernel, or no memory: whoever writes to it will see
            return
        if time.thread_time_ns() - began > _SLOW_NS:
            memory.madvise(_SMALL, place + _STEP, first + size - place - _STEP)
            return
