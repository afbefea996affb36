"""Maintenance that a client asks for, in a process of its own: a compaction takes more memory than a server has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock.errors import PenstockError, StoreError
from penstock.store.service import wire

__all__ = ["maintain", "run", "spawned"]

_STARTED: Final = "import sys; from penstock.store.service.aside import run; run(*sys.argv[1:])"


def maintain(
    hub: Path,
    path: str | None,
    *,
    force: bool = True,
    progress: Callable[[int, int], None] | None = None,
    failed: Callable[[str, Exception], None] | None = None,
) -> dict[str, Any]:
    """As `Store.maintain` of the hub in a folder; what was done to each table, in JSON's types.

    Raises  what that raises; StoreError when the process was killed, and then what it had done stays done.
    """
    process = spawned(_STARTED, str(hub), wire.encode(wire.Maintain(path, force)).decode())
    done: dict[str, Any] | None = None
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            told = msgspec.json.decode(line)
            if "error" in told:
                raise wire.decode_error(line)
            if "done" in told:
                done = told["done"]
            elif "failed" in told and failed is not None:
                failed(told["table"], StoreError(told["failed"]))
            elif "rows" in told and progress is not None:
                progress(told["rows"], told["total"])
    if done is None:
        raise StoreError(
            f"the maintenance ended with exit code {process.returncode}",
            where="at the store's server",
            hint="what it had done stays done; try again",
        )
    return done


def spawned(code: str, *words: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """A new interpreter that runs `code`, and whose standard output is read here; never a fork.

    Not of the terminal's group: Ctrl-C is for the server, with whose pipes it ends.
    """
    found = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdin=stdin,
        stdout=subprocess.PIPE,
        # Arrow's own pools reserve a gigabyte and keep what was freed.
        env={**os.environ, "PYTHONPATH": found, "ARROW_DEFAULT_MEMORY_POOL": "system"},
        start_new_session=True,
    )


def run(hub: str, request: str) -> None:
    """What that process does: a line of JSON for each thing there is to tell."""
    from penstock.store.store import open

    def tell(**told: Any) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
        sys.stdout.buffer.flush()

    wanted = wire.decode(request.encode(), wire.Maintain, "maintain")
    try:
        with open(hub) as store:
            done = store.maintain(
                wanted.path,
                force=wanted.force,
                progress=lambda rows, total: tell(rows=rows, total=total),
                failed=lambda table, error: tell(table=table, failed=str(error)),
            )
        tell(done=done)
    except PenstockError as error:
        sys.stdout.buffer.write(wire.encode_error(error) + b"\n")
