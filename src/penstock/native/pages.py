"""Arrays in large pages: memory that the system gives 2 MB at a time instead of 4 KB.

A page costs some 1.3 µs when it is first written to, and threads of a process wait for each other meanwhile: of results
of 200 MB that is a tenth of the time to compute them (docs/design/0024). Arrays of one call lie side by side, or each
would end in the middle of a large page.
"""

from __future__ import annotations

import mmap
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

    Cost    memory is taken as they are written to; of each that goes, what lies in pages of its own is given back,
            also while others live.
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
    parts = [_Part(memory, address, first + i * step, step) for i in range(count)]
    return [np.asarray(part)[:size].view(dtype).reshape(shape) for part in parts]
