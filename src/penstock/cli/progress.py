"""Progress of what takes longer than a second, on stderr, for a terminal only."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["progress"]

_PATIENCE_S = 1.0


@contextmanager
def progress(label: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
    """A function that takes how much is done, of `total` (None: not known). The bar is gone when the work is."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    bar = _Bar(label, total)
    timer = threading.Timer(_PATIENCE_S, bar.show)
    timer.daemon = True
    timer.start()
    try:
        yield bar.update
    finally:
        timer.cancel()
        bar.hide()


class _Bar:
    """A bar that appears when `show` is called, by a timer, and takes updates before and after."""

    def __init__(self, label: str, total: float | None) -> None:
        self._label, self._total = label, total
        self._done = 0.0
        self._mutex = threading.Lock()
        self._ended = False
        self._bar: Any = None
        self._task: Any = None

    def show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        with self._mutex:
            if self._ended:
                return
            columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,.0f}")]
            columns += [TimeElapsedColumn() if self._total is None else TimeRemainingColumn()]
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self._label, total=self._total, completed=self._done)
            self._bar.start()

    def update(self, done: float) -> None:
        self._done = done
        if self._bar is not None:
            self._bar.update(self._task, completed=done)

    def hide(self) -> None:
        with self._mutex:
            self._ended = True
            if self._bar is not None:
                self._bar.stop()
