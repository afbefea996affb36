"""A sink that remembers what it was given."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from penstock.records import batch_to_rows, to_batches

__all__ = ["CollectSink"]


class CollectSink:
    """Keeps every window or batch put into it, in order.

    Takes   failing: number of a `put`, from 0 → what it raises instead of keeping; each once.
    Safe for many threads.

    >>> sink = CollectSink(failing={1: OSError("full")})
    """

    def __init__(self, *, failing: Mapping[int, BaseException] | None = None) -> None:
        self.items: list[Any] = []
        self._failing = dict(failing or {})
        self._puts = 0
        self._came = threading.Condition()

    def put(self, window_or_batch: Any) -> None:
        with self._came:
            number, self._puts = self._puts, self._puts + 1
            if number in self._failing:
                raise self._failing.pop(number)
            self.items.append(window_or_batch)
            self._came.notify_all()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows so far as dicts; of windows, their data."""
        with self._came:
            items = list(self.items)
        rows: list[dict[str, Any]] = []
        for item in items:
            if hasattr(item, "position"):
                rows += item.data
            else:
                rows += [row for batch in to_batches(item) for row in batch_to_rows(batch)]
        return rows

    def wait(self, count: int, timeout: float = 10.0) -> list[Any]:
        """Wait until `count` items are here and return them.   Raises  TimeoutError."""
        with self._came:
            if not self._came.wait_for(lambda: len(self.items) >= count, timeout):
                raise TimeoutError(f"{len(self.items)} of {count} items came within {timeout} s")
            return list(self.items)
