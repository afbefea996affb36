"""The plant's side of a handler: start its worker, call it, kill it when it hangs, start it again, load it anew."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.errors import HandlerError
from penstock.plant.handlers import wire

__all__ = ["Failure", "Handler", "HandlerStatistics", "Outcome"]

_GRACE = 0.5
"""Seconds after the alarm, until the worker is killed."""

_LOAD = 20.0
_ROOT = str(Path(__file__).resolve().parents[3])


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call gave nothing.

    kind    exception, timeout, memory, exit, result (not messages), died (the process is gone), load
    text    one sentence;  trace  the handler's own frames, if there are any
    """

    kind: str
    text: str
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call gave: messages, what it published to other streams, or a failure."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    published: list[tuple[str, list[dict[str, Any]]]] = field(default_factory=list)
    failure: Failure | None = None
    answer: Any = None


@dataclass(frozen=True, slots=True)
class HandlerStatistics:
    """Calls, failures by kind, restarts and reloads since the start; seconds spent in calls."""

    calls: int
    failures: dict[str, int]
    restarts: int
    reloads: int
    seconds: float


class Handler:
    """A handler in a worker process.

    Takes   spec: `file.kg`, `file.py`, `file.py:function` or `module:function`;
            timeout: seconds a call may take;  memory: bytes it may want beyond what is loaded, 0 for any;
            hub: folder that `ps_read` and `ps_query` read;  trusted: all of Klong's verbs;
            patience: failures in a row after which the worker is started anew with fresh state.
    A call after a timeout, a lack of memory, an exit or a death finds a new worker, with fresh state.
    Cancelling a call kills the worker; the next call finds a new one.
    """

    def __init__(
        self,
        spec: str | os.PathLike[str],
        *,
        timeout: float = 1.0,
        memory: int = 512 << 20,
        hub: str | os.PathLike[str] | None = None,
        trusted: bool = False,
        patience: int = 100,
        on_print: Callable[[str], None] | None = None,
    ) -> None:
        self.spec = str(spec)
        self.timeout = timeout
        self.memory = memory
        self.entry = ""
        self.columns = False
        self.answers = False
        self._hub = None if hub is None else str(hub)
        self._trusted = trusted
        self._patience = patience
        self._on_print = on_print
        self._worker: _Worker | None = None
        self._busy = asyncio.Lock()
        self._row = 0
        self._calls = self._restarts = self._reloads = self._number = 0
        self._failures: dict[str, int] = {}
        self._seconds = 0.0
        self._seen = self._stamp()
        self._source: bytes | None = None

    @property
    def path(self) -> Path | None:
        """The handler's file; None for a module."""
        place = self.spec.rpartition(":")[0] if ".py:" in self.spec else self.spec
        return Path(place) if place.endswith((".py", ".kg")) else None

    def check(self) -> None:
        """Raise HandlerError if the handler's file is not there."""
        path = self.path
        if path is not None and not path.is_file():
            raise HandlerError(expected="a handler's file", got=f"{str(path)!r}, which is not there")

    async def start(self) -> None:
        """Load the handler.

        Raises  HandlerError if there is no such file, it does not load, or it defines no entry.
        """
        self.check()
        async with self._busy:
            self._seen = self._stamp()
            source = self._read()
            self._worker = await self._open(source)
            self._source = source

    async def __call__(self, messages: Sequence[dict[str, Any]]) -> Outcome:
        """Hand messages to the handler; never raises for what the handler does."""
        return await self._ask({"messages": list(messages)})

    async def on_columns(self, batch: bytes) -> Outcome:
        """The same with an Arrow IPC stream; a handler of messages gets its rows."""
        return await self._ask({"columns": batch})

    async def ask(self, question: Any) -> Outcome:
        """What the handler's `onask` answers."""
        return await self._ask({"ask": question})

    async def changed(self) -> Outcome | None:
        """Load the file anew if it has changed. None if it has not; the old definition stays if the new one fails."""
        stamp = self._stamp()
        if stamp == self._seen or stamp is None:
            return None
        self._seen = stamp
        async with self._busy:
            try:
                source = self._read()
                fresh = await self._open(source)
            except HandlerError as error:
                return Outcome(failure=Failure("load", str(error)))
            await self._close()
            self._worker, self._source = fresh, source
            self._reloads += 1
        return Outcome()

    async def stop(self) -> None:
        """End the worker."""
        async with self._busy:
            await self._close()

    def statistics(self) -> HandlerStatistics:
        return HandlerStatistics(self._calls, dict(self._failures), self._restarts, self._reloads, self._seconds)

    # ---- the worker ----

    async def _ask(self, what: dict[str, Any]) -> Outcome:
        async with self._busy:
            self._calls += 1
            began = time.perf_counter()
            try:
                outcome = await self._once(what)
            finally:
                self._seconds += time.perf_counter() - began
            if outcome.failure is None:
                self._row = 0
                return outcome
            kind = outcome.failure.kind
            self._failures[kind] = self._failures.get(kind, 0) + 1
            self._row += 1
            if kind not in ("exception", "result") or self._row >= self._patience:
                await self._close()  # its state may be half of something
            return outcome

    async def _once(self, what: dict[str, Any]) -> Outcome:
        if self._worker is None:
            try:
                # From what was loaded last: the file may be broken, or gone, by now.
                self._worker = await self._open(self._source)
            except HandlerError as error:
                return Outcome(failure=Failure("load", str(error)))
            self._restarts += 1
            self._row = 0
        self._number += 1
        worker = self._worker
        try:
            frame = wire.pack({"do": "call", "id": self._number, **what})
        except HandlerError as error:
            return Outcome(failure=Failure("exception", str(error)))
        limit = self.timeout + _GRACE if self.timeout else None
        try:
            reply = await asyncio.wait_for(worker.exchange(frame), limit)
        except TimeoutError:
            return Outcome(failure=Failure("timeout", f"did not return within {self.timeout:g} s and was killed"))
        except (OSError, EOFError, HandlerError):
            return Outcome(failure=Failure("died", await worker.cause()))
        except asyncio.CancelledError:
            worker.kill()
            self._worker = None
            raise
        failure = reply.get("failure")
        if failure is not None:
            text = failure["text"]
            if failure["kind"] == "timeout":
                text = f"did not return within {self.timeout:g} s"
            return Outcome(failure=Failure(failure["kind"], text, failure["trace"]))
        published = [(name, rows) for name, rows in reply["published"]]
        return Outcome(reply["messages"], published, None, reply.get("answer"))

    def _read(self) -> bytes | None:
        path = self.path
        try:
            return None if path is None else path.read_bytes()
        except OSError as error:
            raise HandlerError(f"handler {self.spec} cannot be read: {error}") from error

    async def _open(self, source: bytes | None) -> _Worker:
        worker = await _Worker.start(self._on_print)
        load = {
            "do": "load",
            "spec": self.spec,
            "source": source,
            "seconds": self.timeout,
            "load_seconds": _LOAD,
            "memory": self.memory,
            "hub": self._hub,
            "trusted": self._trusted,
        }
        try:
            reply = await asyncio.wait_for(worker.exchange(wire.pack(load)), _LOAD + _GRACE)
        except (TimeoutError, OSError, EOFError) as error:
            await worker.end()
            why = "did not load in time" if isinstance(error, TimeoutError) else await worker.cause()
            raise HandlerError(f"handler {self.spec} {why}", hint="run it alone and look") from error
        except BaseException:
            worker.kill()
            raise
        if reply["do"] != "ready":
            await worker.end()
            failure = reply["failure"]
            raise HandlerError(f"handler {self.spec} does not load: {failure['text']}", trace=failure["trace"])
        self.entry, self.columns, self.answers = reply["entry"], reply["columns"], reply["answers"]
        return worker

    async def _close(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.end()

    def _stamp(self) -> tuple[int, int, int] | None:
        path = self.path
        if path is None:
            return None
        try:
            found = path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def _spawn(link: socket.socket) -> subprocess.Popen[bytes]:
    # Spawned, never forked: threads and locks of this process are not the handler's. A session of its own, so that
    # Ctrl-C is ours, and whatever it starts can be ended with it.
    # This package is found where this process has it; last, so that it hides nothing.
    program = f"import sys; sys.path.append({_ROOT!r}); from penstock.plant.handlers.worker import run; run()"
    return subprocess.Popen(
        [sys.executable, "-c", program, str(link.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=[link.fileno()],
        start_new_session=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )


class _Worker:
    """One process and the socket to it."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process, self.reader, self.writer = process, reader, writer
        self.said: deque[str] = deque(maxlen=20)
        self._listening: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, on_print: Callable[[str], None] | None) -> _Worker:
        mine, theirs = socket.socketpair()
        with theirs:
            process = _spawn(theirs)
        reader, writer = await asyncio.open_connection(sock=mine)
        worker = cls(process, reader, writer)
        worker._listening = asyncio.create_task(worker._listen(on_print))
        return worker

    async def _listen(self, on_print: Callable[[str], None] | None) -> None:
        assert self.process.stderr is not None
        reader = asyncio.StreamReader(limit=1 << 16)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), self.process.stderr)
        with contextlib.closing(transport):
            while True:
                try:
                    line = await reader.readline()
                except ValueError:  # a line over the limit: its beginning is gone
                    continue
                if not line:
                    return
                text = line.decode("utf-8", "replace").rstrip("\n")
                self.said.append(text)
                if on_print is not None:
                    on_print(text)

    async def exchange(self, frame: bytes) -> dict[str, Any]:
        self.writer.write(frame)
        await self.writer.drain()
        head = await self.reader.readexactly(wire.HEAD)
        return wire.unpack(await self.reader.readexactly(wire.size(head)))

    async def cause(self) -> str:
        """How the process ended, as the rest of a sentence."""
        code = await asyncio.to_thread(self._wait, 1.0)
        if code is None:
            self.kill()
            return "stopped answering"
        last = f": {self.said[-1]}" if self.said else ""
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}{last}"
        return f"left with exit code {code}{last}"

    def _wait(self, seconds: float) -> int | None:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End the process and whatever it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.writer.close()
        self.process.wait()

    async def end(self) -> None:
        """Kill, and wait until all that it said was read."""
        self.kill()
        if self._listening is not None:
            self._listening.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await self._listening
        if self.process.stderr is not None:
            self.process.stderr.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
