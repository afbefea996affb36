"""A source that does what its script says, and stops where the test wants it to."""

from __future__ import annotations

import threading
from enum import Enum
from typing import Any

from penstock.connect.base import Target
from penstock.errors import SourceError

__all__ = ["ABORT", "EOF", "PAUSE", "Mark", "ScriptedSource"]


class Mark(Enum):
    """Marks that stand among the rows of a script."""

    EOF = "end here, as a source that has no more"
    ABORT = "fail here, as a connection that breaks"
    PAUSE = "wait here until `resume()`"


EOF, ABORT, PAUSE = Mark.EOF, Mark.ABORT, Mark.PAUSE


class ScriptedSource:
    """Appends the items of its script one by one, and obeys the marks among them.

    Takes   script: anything a stream appends (dicts, batches, frames), and marks; error: what ABORT raises.
    Edges   It remembers where it stands: run again after EOF or ABORT it goes on behind the mark, as a feed does that
            reconnects. At the end of the script it ends.
    Raises  SourceError, or `error`, at ABORT.

    >>> source = ScriptedSource({"n": 1}, PAUSE, {"n": 2})
    """

    def __init__(self, *script: Any, error: BaseException | None = None) -> None:
        self._script = script
        self._at = 0
        self._error = error
        self._state = threading.Condition()
        self._paused = False

    def stream(self, stream: Target, *, stopping: threading.Event | None = None) -> None:
        while self._at < len(self._script) and not (stopping is not None and stopping.is_set()):
            item = self._script[self._at]
            if item is PAUSE:
                self._pause(stopping)
                continue
            self._at += 1
            if item is EOF:
                return
            if item is ABORT:
                problem = f"the script aborts at item {self._at - 1}"
                raise self._error if self._error is not None else SourceError(problem)
            stream.append(item)

    def wait_paused(self, timeout: float = 10.0) -> None:
        """Wait until it stands at a PAUSE: everything before is appended.   Raises  TimeoutError."""
        with self._state:
            if not self._state.wait_for(lambda: self._paused, timeout):
                raise TimeoutError(f"the source did not pause within {timeout} s, it stands at item {self._at}")

    def resume(self) -> None:
        """Go on behind the PAUSE."""
        with self._state:
            self._paused = False
            self._state.notify_all()

    def _pause(self, stopping: threading.Event | None) -> None:
        with self._state:
            self._paused = True
            self._state.notify_all()
            while self._paused:
                # `stopping` is no condition of ours: look at it again every few ms.
                self._state.wait(0.005)
                if stopping is not None and stopping.is_set():
                    self._paused = False
                    return
            self._at += 1
