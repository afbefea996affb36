"""A handler's process: load it, call it, within limits. `host` starts it with a socket.

Time is limited twice: an alarm interrupts the handler here, and the plant kills this process when that does not help
(a single long call of NumPy hears no alarm). Memory is limited by RLIMIT_DATA, on top of what the process has when
the handler is loaded. Whatever the handler prints goes to stderr.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from penstock.plant.handlers import bindings, wire
from penstock.plant.handlers.normal import Unfit, messages, plain

__all__ = ["main", "run"]


class _Late(BaseException):
    """Not an Exception: a handler that catches everything must not catch this."""


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    if not seconds or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_: object) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, ring)
    # Again and again: an alarm that fell into a `finally` or a destructor is lost.
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _limit_memory(bytes_more: int) -> None:
    if not bytes_more:
        return
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[5])
    except (ImportError, OSError):  # not Linux: the border is missing, the plant says so
        return
    limit = pages * os.sysconf("SC_PAGESIZE") + bytes_more
    # Not RLIMIT_AS: segments of streams that are mapped to be read, and what allocators only reserve, cost nothing.
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _failure(error: BaseException) -> dict[str, str]:
    kind = {
        _Late: "timeout",
        MemoryError: "memory",
        SystemExit: "exit",
        KeyboardInterrupt: "exit",
        Unfit: "result",
    }.get(type(error), "exception")
    told = {"timeout": "did not return in time", "memory": "wanted more memory than it may have", "result": str(error)}
    named = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    text = told.get(kind, named)
    trace = "" if kind in ("timeout", "result") else "".join(traceback.format_exception(error, limit=-6))
    return {"kind": kind, "text": text[:4000], "trace": trace[-8000:]}


class _Worker:
    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self.function: Callable[[Any], Any] | None = None
        self.answer: Callable[[Any], Any] | None = None
        self.columns = False
        self.seconds = 0.0

    def load(self, frame: dict[str, Any]) -> dict[str, Any]:
        spec = str(frame["spec"])
        self.seconds = float(frame["seconds"])
        source: bytes | None = frame.get("source")
        bindings.settle(frame.get("hub"))
        try:
            with _alarm(float(frame["load_seconds"])):
                np.random.seed(0)
                random.seed(0)
                made: tuple[Callable[[Any], Any] | None, bool, str]
                answer: Callable[[Any], Any] | None
                if spec.endswith(".kg"):
                    from penstock.plant.handlers.klong import Program, inside

                    program = Program(
                        Path(spec), source, trusted=bool(frame.get("trusted")), extra=bindings.bound(inside)
                    )
                    made = program if program.entry else None, program.columns, program.entry
                    answer = program.answer if program.answers else None
                else:
                    from penstock.plant.handlers import python

                    function, columns = python.load(spec, source)
                    made, answer = (function, columns, getattr(function, "__name__", "")), python.answer(spec)
                if source is not None:
                    bindings.prepare(source)
        except BaseException as error:
            return {"do": "failed", "failure": _failure(error)}
        self.function, self.columns, entry = made
        self.answer = answer
        return {"do": "ready", "entry": entry, "columns": self.columns, "answers": answer is not None}

    def call(self, frame: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {"do": "result", "id": frame["id"], "messages": [], "published": []}
        bindings.taken()
        try:
            with _alarm(self.seconds):
                if "ask" in frame:
                    if self.answer is None:
                        raise LookupError("this handler defines no onask")
                    result["answer"] = plain(self.answer(frame["ask"]))
                elif self.function is not None:
                    result["messages"] = messages(self.function(self._given(frame)))
            result["published"] = bindings.taken()
        except BaseException as error:
            result["failure"] = _failure(error)
        return result

    def _given(self, frame: dict[str, Any]) -> Any:
        if "columns" in frame:
            import pyarrow as pa

            table = pa.ipc.open_stream(frame["columns"]).read_all()
            columns = {name: table[name].to_numpy() for name in table.column_names}
            return columns if self.columns else table.to_pylist()
        given: list[dict[str, Any]] = frame["messages"]
        return _columns(given) if self.columns else given


def _columns(given: list[dict[str, Any]]) -> dict[str, Any]:
    """Messages as arrays, one per key; a message without a key has NaN there if the rest are numbers, else None."""
    made: dict[str, Any] = {}
    for name in dict.fromkeys(key for one in given for key in one):
        column = [one.get(name) for one in given]
        if all(isinstance(value, (int, float)) or value is None for value in column):
            if any(value is None for value in column):
                column = [np.nan if value is None else value for value in column]
            made[name] = np.asarray(column)
            continue
        made[name] = np.empty(len(column), object)
        made[name][:] = column
    return made


def _preload(frame: dict[str, Any]) -> None:
    """Import what the handler will need: neither the time nor the memory of that is the handler's."""
    source: bytes = frame.get("source") or b""
    wanted = ["klongpy"] if str(frame["spec"]).endswith(".kg") else []
    if frame.get("hub"):
        wanted.append("penstock.hub")
        wanted += ["duckdb", "penstock.store"] if b"query" in source else []
    wanted += ["penstock.plant.ask"] if b"ask" in source else []
    for name in wanted:
        with contextlib.suppress(ImportError):  # it is said when it is used
            importlib.import_module(name)


def main(descriptor: int) -> None:
    """Serve the plant at the other end of a socket until it is gone."""
    os.dup2(2, 1)  # what a handler prints
    link = socket.socket(fileno=descriptor)
    worker = _Worker(link)
    limited = False
    while (frame := wire.receive(link)) is not None:
        if frame["do"] == "stop":
            return
        if frame["do"] == "load":
            if not limited:
                limited = True
                _preload(frame)
                _limit_memory(int(frame["memory"]))
            reply = worker.load(frame)
        else:
            reply = worker.call(frame)
        try:
            body = wire.pack(reply)
        except BaseException as error:
            body = wire.pack({**reply, "messages": [], "published": [], "failure": _failure(error)})
        link.sendall(body)


def _end_with_parent() -> None:
    """A plant that is killed cannot end a handler that hears no alarm; the kernel can (prctl(2), PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def run() -> None:
    """Be the worker of the descriptor that the command line names, and leave with 1 when the plant is gone badly."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the plant's
    _end_with_parent()
    try:
        main(int(sys.argv[1]))
    except OSError:
        sys.exit(1)
