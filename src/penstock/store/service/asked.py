"""SQL of strangers, in a process of its own: what it reads, computes and breaks is not the server's.

duckdb's own limit on memory does not hold for what is one value (`repeat('x', 1e9)`, `range(1e9)`); the system's does.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import pyarrow as pa

from penstock.errors import PenstockError, StoreError
from penstock.store.query import Limits, ask
from penstock.store.service import wire
from penstock.store.service.aside import spawned
from penstock.store.service.memory import data_bytes, frugal

__all__ = ["Asker", "Question", "run"]

_STARTED: Final = "import sys; from penstock.store.service.asked import run; run(sys.argv[1])"
_SLACK_BYTES: Final = 128 << 20  # stacks of threads, and what duckdb and Arrow hold back
_GRACE_S: Final = 5.0


class Question(msgspec.Struct, frozen=True):
    """A query, the tables it names, what of them, and what it may take.

    room  bytes for the tables, memory  bytes beside them, seconds: see `query.Limits`.
    """

    query: str
    tables: list[str]
    start: int | None
    end: int | None
    as_of: int | None
    room: int
    memory: int
    seconds: float


class Asker:
    """The process that answers, started by the first question, and again when one has ended it. One at a time."""

    def __init__(self, hub: Path) -> None:
        self._hub = hub
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, question: Question) -> pa.Table:
        """The answer. Raises as `query.ask`; StoreError when the query had to be ended, or has ended the process."""
        process = self._running()
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        # It has the same limit, and keeps to it unless it hangs.
        timer = threading.Timer(question.seconds + _GRACE_S, end)
        timer.daemon = True
        timer.start()
        try:
            return _exchanged(process, question)
        except (OSError, EOFError, pa.ArrowException) as error:
            process.kill()
            code = process.wait()
            if late.is_set():
                reason = f"the query took more than {question.seconds:g} s"
            else:
                reason = f"the query has ended its engine ({f'signal {-code}' if code < 0 else f'exit code {code}'})"
            raise StoreError(reason, where="in store.sql", hint="ask less") from error
        except BaseException as error:
            if not isinstance(error, PenstockError):
                process.kill()  # in the middle of an answer
            raise
        finally:
            timer.cancel()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = spawned(_STARTED, str(self._hub), stdin=subprocess.PIPE)
        return self._process

    def close(self) -> None:
        """End the process, and the question that it is at."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):
                    pipe.close()
            process.wait()


def _exchanged(process: subprocess.Popen[bytes], question: Question) -> pa.Table:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.json.encode(question) + b"\n")
    process.stdin.flush()
    head = process.stdout.readline()
    if not head:
        raise EOFError
    if head != b"{}\n":
        raise wire.decode_error(head)
    with pa.ipc.open_stream(process.stdout) as reader:
        return reader.read_all()


def run(hub: str) -> None:
    """What that process does: a question per line of standard input, its answer to standard output."""
    from penstock.store.store import open

    frugal()
    os.nice(5)  # those who read and write come first
    out = sys.stdout.buffer
    with open(hub) as store:
        for line in iter(sys.stdin.buffer.readline, b""):
            try:
                found = _answer(store, msgspec.json.decode(line, type=Question))
            except PenstockError as error:
                out.write(wire.encode_error(error) + b"\n")
            except (MemoryError, pa.ArrowException, OSError) as error:
                failed = StoreError(f"the query failed: {type(error).__name__}: {error}", where="in store.sql")
                out.write(wire.encode_error(failed) + b"\n")
            else:
                _send(found, out)
                del found
            out.flush()


def _answer(store: Any, question: Question) -> pa.Table:
    with _within(question.room + question.memory + _SLACK_BYTES):
        frames = {
            name: store.table(name).read(None, question.start, question.end, as_of=question.as_of)
            for name in question.tables
        }
        return ask(question.query, frames, store.tables(), limits=Limits(question.memory, question.seconds))


def _send(found: pa.Table, out: BinaryIO) -> None:
    out.write(b"{}\n")
    with pa.ipc.new_stream(out, found.schema) as writer:
        writer.write_table(found)


@contextlib.contextmanager
def _within(size: int) -> Iterator[None]:
    """Let this process take so many bytes more than it has, where the system can say how many that are."""
    now = data_bytes()
    if now is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (now + size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
