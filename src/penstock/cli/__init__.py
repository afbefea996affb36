"""The `penstock` command: one file per group of commands, each imported when it is called."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `penstock` with `argv` (without the program's name; None: this process's) and return its exit code.

    Returns 0 done; 1 failed, or a difference was found; 2 a call that cannot be meant; 130 stopped by Ctrl-C, 143 by
            SIGTERM, 141 because the reader of its output went away.
    """
    from penstock.cli.outcome import run

    return run(argv)
