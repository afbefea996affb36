"""Processes that are killed at a known point."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence

__all__ = ["kill_at"]


def kill_at(
    command: Sequence[str], mark: str, *, timeout: float = 60.0, env: dict[str, str] | None = None
) -> list[str]:
    """Run `command` and SIGKILL it when it prints a line that holds `mark`.

    Returns the lines it printed until then, that one included. The process and its children get no chance to tidy up.
    Raises  AssertionError with what it printed, if it ended or `timeout` seconds passed before the mark.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=True
    )
    assert process.stdout is not None
    # The reader blocks on the pipe: only the end of the process frees it when no mark comes.
    watchdog = threading.Timer(timeout, _kill, [process])
    watchdog.start()
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if mark in line:
                return lines
    finally:
        watchdog.cancel()
        _kill(process)
        process.stdout.close()
        process.wait()
    raise AssertionError(
        f"{mark!r} was not printed (exit code {process.returncode}); the process said:\n" + "\n".join(lines)
    )


def _kill(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has ended by itself
