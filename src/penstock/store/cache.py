"""Decoded frames in a fixed amount of memory: least recently used out first, every byte accounted for.

Room is taken before a frame is read, by an estimate, and corrected to what it really takes once it is there; so the
frames held and those being read exceed the budget together by no more than the estimates were wrong.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from penstock.errors import FrameTooLarge, StoreError, UsageError

__all__ = ["CacheStatistics", "FrameCache", "frame_bytes"]


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """Bytes used (frames held, lent and being read), free, max; frames held; what became of the requests so far.

    lent: bytes of frames that somebody has at the moment; whether or not they are held, they cannot be let go.
    """

    used: int
    free: int
    max: int
    frames: int
    hits: int
    misses: int
    evicted: int
    refused: int
    lent: int = 0


def frame_bytes(table: pa.Table) -> int:
    """Bytes that a frame keeps in memory: of all its buffers, also where the frame is a slice of them."""
    return int(table.get_total_buffer_size())


class _Loading:
    def __init__(self, size: int) -> None:
        self.size = size
        self.done = threading.Event()


class FrameCache:
    """Frames by key. Safe for many threads; a frame that several ask for at once is read once.

    Takes   max_bytes: the budget.
    """

    def __init__(self, max_bytes: int) -> None:
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
            raise UsageError(expected="a number of bytes, at least 1", got=repr(max_bytes), where="in max_bytes")
        self._max = max_bytes
        self._changed = threading.Condition()
        self._frames: OrderedDict[Hashable, tuple[pa.Table, int]] = OrderedDict()
        self._loading: dict[Hashable, _Loading] = {}
        self._lent: dict[int, list[int]] = {}  # by id of the frame: how many have it, its bytes, whether it is held
        self._used = 0
        self._hits = self._misses = self._evicted = self._refused = 0

    def get(self, key: Hashable, estimate: int, load: Callable[[], pa.Table]) -> pa.Table:
        """The frame of `key`; `load` makes it when it is not held.

        Takes   estimate: bytes it will about take.
        Raises  FrameTooLarge, when the estimate is over the budget before anything is read; whatever `load` raises,
                and then nothing is kept of it.
        Edges   Waits while frames that are being read take the room. A frame that turns out larger than the budget is
                handed over but not kept.
        """
        return self._get(key, estimate, load, patience=None, lend=False)

    @contextmanager
    def lend(
        self, key: Hashable, estimate: int, load: Callable[[], pa.Table], *, patience: float | None = None
    ) -> Iterator[pa.Table]:
        """As `get`, and its bytes count as used until the block ends, even when the frame is not kept.

        Takes   patience: seconds to wait for room that others have; None: without end.
        Raises  StoreError when they have not given it back by then.
        """
        frame = self._get(key, estimate, load, patience=patience, lend=True)
        try:
            yield frame
        finally:
            with self._changed:
                mine = self._lent[id(frame)]
                mine[0] -= 1
                if not mine[0]:
                    del self._lent[id(frame)]
                    self._used -= 0 if mine[2] else mine[1]
                    self._changed.notify_all()

    def _get(
        self, key: Hashable, estimate: int, load: Callable[[], pa.Table], *, patience: float | None, lend: bool
    ) -> pa.Table:
        until = None if patience is None else time.monotonic() + patience
        with self._changed:
            while (other := self._loading.get(key)) is not None:
                self._wait(until)
                if self._loading.get(key) is other:
                    continue
            if key in self._frames:
                self._frames.move_to_end(key)
                self._hits += 1
                frame, size = self._frames[key]
                if lend:
                    self._lent.setdefault(id(frame), [0, size, 1])[0] += 1
                return frame
            self._misses += 1
            if estimate > self._max:
                self._refused += 1
                raise FrameTooLarge(
                    expected=f"a frame of at most {self._max} bytes",
                    got=f"about {estimate}",
                    where=f"for {key!r}",
                    hint="ask for fewer columns or a shorter time, or give more memory",
                    size=estimate,
                    limit=self._max,
                )
            while not self._make_room(estimate):
                self._wait(until)
            mine = self._loading[key] = _Loading(estimate)
            self._used += estimate
        try:
            frame = load()
            size = frame_bytes(frame)
        except BaseException:
            with self._changed:
                del self._loading[key]
                self._used -= mine.size
                self._changed.notify_all()
            raise
        with self._changed:
            del self._loading[key]
            self._used -= mine.size
            keep = size <= self._max and self._make_room(size)
            if keep:
                self._frames[key] = (frame, size)
            if lend:
                self._lent[id(frame)] = [1, size, int(keep)]
            if keep or lend:
                self._used += size
            self._changed.notify_all()
        return frame

    def _wait(self, until: float | None) -> None:
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            lent = sum(size for _, size, _ in self._lent.values())
            raise StoreError(
                f"the memory for frames, {self._max} bytes, is taken by frames that are being sent or read",
                where=f"in the store's cache, {lent} bytes of it lent",
                hint="try again, or give more memory",
            )
        self._changed.wait(left)

    def _make_room(self, size: int) -> bool:
        """Let frames go, the one not used for longest first, until there is room; False if others have it."""
        if self._used + size > self._max:
            for key in [key for key, (frame, _) in self._frames.items() if id(frame) not in self._lent]:
                self._drop(key)
                self._evicted += 1
                if self._used + size <= self._max:
                    break
        return self._used + size <= self._max

    def _drop(self, key: Hashable) -> None:
        frame, size = self._frames.pop(key)
        lent = self._lent.get(id(frame))
        if lent is None:
            self._used -= size
        else:
            lent[2] = 0

    def evict(self, wanted: Callable[[Hashable], bool] = lambda _: True) -> int:
        """Let go of frames whose key `wanted` picks; returns their bytes."""
        with self._changed:
            before = self._used
            for key in [key for key in self._frames if wanted(key)]:
                self._drop(key)
            self._changed.notify_all()
            return before - self._used

    def holds(self, key: Hashable) -> bool:
        """Whether the frame is there."""
        return key in self._frames

    def keys(self) -> list[Hashable]:
        """Keys of the frames held, the one used last at the end."""
        with self._changed:
            return list(self._frames)

    def statistics(self) -> CacheStatistics:
        """Bytes and counts as of now."""
        with self._changed:
            free = max(0, self._max - self._used)
            counts = len(self._frames), self._hits, self._misses, self._evicted, self._refused
            lent = sum(size for _, size, _ in self._lent.values())
            return CacheStatistics(self._used, free, self._max, *counts, lent)
