"""From a call to an exit code: what becomes of errors, signals, warnings and a reader that goes away."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TextIO

from penstock.errors import PenstockError, PenstockWarning, UsageError

__all__ = ["DIFFERENCE", "Terminated", "run", "say"]

DONE, FAILED, USAGE, BROKEN_PIPE, INTERRUPTED, TERMINATED = 0, 1, 2, 141, 130, 143
DIFFERENCE = FAILED
"""Exit code of a command that did what it was asked and found that things are not as they should be."""


class Terminated(BaseException):
    """SIGTERM, as an exception: what is open gets closed on the way out."""


def say(text: str) -> None:
    """A line for people, on stderr: `penstock: text`."""
    with contextlib.suppress(BrokenPipeError):
        print(f"penstock: {text}", file=sys.stderr, flush=True)


def run(argv: Sequence[str] | None) -> int:
    """Run the command line and return its exit code; nothing but a debug run lets an exception out."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args or os.environ.get("PENSTOCK_DEBUG", "").lower() not in ("", "0", "false", "no", "off")
    try:
        with _sigterm(), _warnings():
            code = _invoke(args)
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        _forget_stdout()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Terminated:
        return TERMINATED
    except Exception as error:
        if debug:
            import traceback

            traceback.print_exc()
        else:
            say(_sentence(error))
        return USAGE if isinstance(error, UsageError) else FAILED


def _invoke(args: list[str]) -> int:
    import click

    from penstock.cli.tree import penstock

    if "_PENSTOCK_COMPLETE" in os.environ:  # a shell asks for completions; click answers and exits
        penstock.main(args, prog_name="penstock")
    try:
        # Not `main` of click: it turns Ctrl-C and a closed pipe into exits of its own.
        with penstock.make_context("penstock", args, auto_envvar_prefix="PENSTOCK") as context:
            result = penstock.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.Abort:
        raise KeyboardInterrupt from None
    except click.UsageError as error:
        text = error.format_message().rstrip(".")
        path = error.ctx.command_path if error.ctx is not None else "penstock"
        say(f"{text[:1].lower()}{text[1:]}; see {path} --help")
        return USAGE
    except click.ClickException as error:
        say(error.format_message().rstrip("."))
        return FAILED
    return result if type(result) is int else DONE


def _sentence(error: Exception) -> str:
    """The error in one line."""
    if isinstance(error, PenstockError):
        text = str(error)
    elif isinstance(error, OSError) and error.strerror:
        place = f" - at {error.filename}" if error.filename else ""
        text = f"{error.strerror[0].lower()}{error.strerror[1:]}{place}"
    else:
        text = f"unexpected {type(error).__name__}: {error}; run it again with --debug to see where"
    return " ".join(text.split("\n"))


@contextlib.contextmanager
def _sigterm() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals; a host program keeps its own way
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _warnings() -> Iterator[None]:
    """Our own warnings as one line each, on stderr."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", PenstockWarning)
        warnings.showwarning = show
        yield


def _forget_stdout() -> None:
    """Let the interpreter's last flush go nowhere: the reader is gone, and nobody wants to hear of it."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
