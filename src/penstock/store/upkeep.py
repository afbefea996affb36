"""Rolling, compaction, vacuum and checkpoints as one step, and what repeats the step: a thread or a process.

The process is a new interpreter, never a fork. It ends when the program that started it does, however that ends.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from penstock.clock import WALL
from penstock.errors import KeyNotFound, PenstockError, PenstockWarning, UsageError
from penstock.store.compact import GRACE, Compacted, Progress, checkpoint, compact, grace_ns, vacuum
from penstock.store.roll import Rolled, roll

if TYPE_CHECKING:
    from penstock.store.store import Store
    from penstock.store.table import Table

__all__ = ["Maintained", "Upkeep", "maintain", "run"]

_VACUUM_EVERY_NS: Final = 600_000_000_000
_STARTED: Final = "import sys; from penstock.store.upkeep import run; run(sys.argv[1], float(sys.argv[2]))"


@dataclass(frozen=True, slots=True)
class Maintained:
    """What one step did to a table."""

    rolled: Rolled
    compacted: Compacted
    checkpoint: bool
    vacuumed: int


def maintain(table: Table, *, force: bool = False, grace: Any = GRACE, progress: Progress | None = None) -> Maintained:
    """Do what is due for a table: roll, compact, write a checkpoint, and every ten minutes vacuum.

    Takes   force: all of it, due or not; grace: how long replaced files stay; progress: of the compaction.
    Edges   What another process does to the table at the moment is left to it.
    """
    rolled = roll(table, force=force, wait=force)
    compacted = compact(table, everything=force, wait=force, progress=progress)
    done = checkpoint(table, commits=1) if force else checkpoint(table)
    mark = table.folder / "_penstock" / "vacuumed"
    last = mark.stat().st_mtime_ns if mark.exists() else 0
    removed = 0
    if force or WALL.now_ns() - last > _VACUUM_EVERY_NS:
        removed = vacuum(table, grace=grace)
        mark.touch()
    return Maintained(rolled, compacted, done, removed)


class Upkeep:
    """Maintains a store every few seconds until it is closed; `with` closes it.

    Takes   every: seconds between two steps; process: in a process of its own, so that compactions take no time of
            this one; failed: called with (table, error) when a table could not be maintained, a warning without it.
    """

    def __init__(
        self,
        store: Store,
        *,
        every: float = 5.0,
        process: bool = False,
        failed: Callable[[str, Exception], None] | None = None,
    ) -> None:
        if not every > 0:
            raise UsageError(expected="seconds above 0", got=repr(every), where="in every")
        self._store, self._every, self._failed = store, every, failed
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        if process:
            command = [sys.executable, "-c", _STARTED, str(store.hub.path), str(every)]
            path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
            # Not of the terminal's group: Ctrl-C is for the one that started it, with which it ends after its step.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}, start_new_session=True
            )
        else:
            self._thread = threading.Thread(target=self._loop, name="penstock-upkeep", daemon=True)
            self._thread.start()

    @property
    def pid(self) -> int | None:
        """Of the process, if it is one."""
        return None if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it goes on."""
        if self._process is not None:
            return self._process.poll() is None
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> int | None:
        """Until it ends; the exit code of its process."""
        if self._thread is not None:
            self._thread.join()
        return None if self._process is None else self._process.wait()

    def _loop(self) -> None:
        while not self._stopping.wait(self._every):
            try:
                self._store.maintain(failed=self._failed)
            except (PenstockError, OSError) as error:  # of the store, not of a table; the next step may go
                warnings.warn(f"the store was not maintained: {error}", PenstockWarning, stacklevel=2)

    def close(self) -> None:
        """Stop after the step that is under way. Rows that were not rolled stay in the log."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        if self._process is not None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process.wait()

    def __enter__(self) -> Upkeep:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run(hub: str, every: float) -> None:
    """Maintain the store of a hub until standard input ends: what the process of `Upkeep` does."""
    from penstock.store.store import open

    with open(hub) as store:
        while True:
            began = time.monotonic()
            store.maintain()
            left = max(0.0, every - (time.monotonic() - began))
            if select.select([sys.stdin], [], [], left)[0] and not os.read(sys.stdin.fileno(), 1):
                return


def maintain_all(
    store: Store,
    names: list[str],
    *,
    force: bool = False,
    grace: Any = GRACE,
    progress: Progress | None = None,
    failed: Callable[[str, Exception], None] | None = None,
) -> dict[str, Maintained]:
    """`maintain` of several tables; one that cannot be maintained does not keep the others from it."""
    grace_ns(grace)
    done = {}
    for name in names:
        try:
            done[name] = maintain(store.table(name), force=force, grace=grace, progress=progress)
        except KeyNotFound:  # dropped meanwhile
            continue
        except (PenstockError, OSError) as error:
            if failed is not None:
                failed(name, error)
            else:
                warnings.warn(f"table {name!r} was not maintained: {error}", PenstockWarning, stacklevel=3)
    return done
