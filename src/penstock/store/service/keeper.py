"""A store's upkeep as a process that is there all the time: one that ends is started again, after longer and longer."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final

from penstock.store.store import Store
from penstock.store.upkeep import Upkeep

__all__ = ["Keeper"]

_LOG: Final = logging.getLogger("penstock.store.server")
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 60.0


class Keeper:
    """Rolls and compacts every few seconds in a process of its own, until it is closed.

    Edges   A process that ends by itself or is killed is started again after 0.5 s, twice as long each time up to a
            minute; one that ran for a minute begins at 0.5 s again. It ends when this one does, however that ends.
    """

    def __init__(self, store: Store, every: float = 5.0) -> None:
        self._store, self._every = store, every
        self._stopping = threading.Event()
        self._mutex = threading.Lock()
        self._restarts = 0
        self._last_exit: int | None = None
        self._upkeep: Upkeep | None = Upkeep(store, every=every, process=True)
        self._thread = threading.Thread(target=self._watch, name="penstock-store-keeper", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        pause, began = _FIRST_PAUSE_S, time.monotonic()
        upkeep = self._upkeep
        while upkeep is not None:
            code = upkeep.wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > _LONGEST_PAUSE_S:
                pause = _FIRST_PAUSE_S
            upkeep.close()  # its pipe
            with self._mutex:
                self._upkeep, self._last_exit = None, code
            _LOG.error("the upkeep of the store ended (%s); it is started again in %g s", _how(code), pause)
            if self._stopping.wait(pause):
                return
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            upkeep, began = self._start(), time.monotonic()

    def _start(self) -> Upkeep | None:
        """The next one; None when all is to stop."""
        while True:
            with self._mutex:
                if self._stopping.is_set():
                    return None
                try:
                    self._upkeep = Upkeep(self._store, every=self._every, process=True)
                except OSError as error:  # no memory, no process left: others may give some back
                    _LOG.error("the upkeep of the store cannot be started: %s", error)
                else:
                    self._restarts += 1
                    return self._upkeep
            self._stopping.wait(_LONGEST_PAUSE_S)

    def statistics(self) -> dict[str, Any]:
        """Whether it runs, its process, how often it was started again, and the last one's exit code (-9: killed)."""
        with self._mutex:
            running = self._upkeep is not None and self._upkeep.is_running
            pid = None if self._upkeep is None else self._upkeep.pid
            return {"running": running, "pid": pid, "restarts": self._restarts, "last_exit": self._last_exit}

    def close(self) -> None:
        """Stop after the step that is under way."""
        self._stopping.set()
        with self._mutex:
            upkeep, self._upkeep = self._upkeep, None
        if upkeep is not None:
            upkeep.close()
        self._thread.join()


def _how(code: int | None) -> str:
    return f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
