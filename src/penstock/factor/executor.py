"""Threads that compute parts of one program together, and the gates at which they wait for each other.

The threads live in compiled code: between a call and its result they neither hold nor need the interpreter. A gate is
two 32-bit words, a number that changes when it opens and how many sleep before it; who waits looks at the number some
thousand times and then sleeps until it changes (a futex; without one it goes on looking).
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
import weakref
from typing import Any

import numpy as np

from penstock.errors import FactorError

__all__ = ["SYSCALL", "Executor", "gates"]

LOOKS = 2000
"""Looks at a gate before sleeping: some 30 µs, about what it takes to fall asleep and be woken."""

_MOST = 256
_FUTEX = {"x86_64": 202, "aarch64": 98}


def _syscall() -> tuple[int, int]:
    """The address of libc's `syscall` and the number of `futex`; zeros where there is none."""
    number = _FUTEX.get(platform.machine())
    if not sys.platform.startswith("linux") or number is None:
        return 0, 0
    found = ctypes.cast(ctypes.CDLL(None).syscall, ctypes.c_void_p).value
    return (found or 0), number


SYSCALL = _syscall()


def gates() -> list[str]:
    """Functions of a module: `gate_wait(gate, seen)` and `gate_open(gate)`."""
    address, number = SYSCALL
    pause = "  call void @llvm.x86.sse2.pause()" if platform.machine() in ("x86_64", "AMD64") else ""
    declare = "declare void @llvm.x86.sse2.pause()" if pause else ""
    # Through a word of memory: an address in the text would make it another text in every process.
    sleep = (
        f"""
  %sleepers = getelementptr i32, ptr %gate, i64 1
  %a = atomicrmw add ptr %sleepers, i32 1 seq_cst
  %system = load ptr, ptr %syscall
  %b = call i64 (i64, ...) %system(i64 {number}, ptr %gate, i32 128, i32 %seen, ptr null)
  %c = atomicrmw sub ptr %sleepers, i32 1 seq_cst"""
        if address
        else pause
    )
    wake = (
        f"""
  %sleepers = getelementptr i32, ptr %gate, i64 1
  %n = load atomic i32, ptr %sleepers seq_cst, align 4
  %some = icmp ne i32 %n, 0
  br i1 %some, label %wake, label %done
wake:
  %system = load ptr, ptr %syscall
  %b = call i64 (i64, ...) %system(i64 {number}, ptr %gate, i32 129, i32 2147483647)
  br label %done"""
        if address
        else "  br label %done"
    )
    return [
        declare,
        f"""define internal void @gate_wait(ptr %gate, i32 %seen, ptr %syscall) #1 {{
start:
  br label %look
look:
  %i = phi i64 [0, %start], [%next, %again]
  %now = load atomic i32, ptr %gate acquire, align 4
  %open = icmp ne i32 %now, %seen
  br i1 %open, label %done, label %closed
closed:
  %tired = icmp sge i64 %i, {LOOKS}
  br i1 %tired, label %sleep, label %again
again:
{pause}
  %next = add i64 %i, 1
  br label %look
sleep:{sleep}
  %then = load atomic i32, ptr %gate acquire, align 4
  %opened = icmp ne i32 %then, %seen
  br i1 %opened, label %done, label %sleep
done:
  ret void
}}""",
        f"""define internal void @gate_open(ptr %gate, ptr %syscall) #1 {{
start:
  %old = atomicrmw add ptr %gate, i32 1 seq_cst
{wake}
done:
  ret void
}}""",
    ]


# Words of 8 bytes: 0 start gate, 1 done gate, 2 function, 3 contexts, 4 ordinal, 5 rows, 6 stop, 7 how many take part,
# 9 syscall, 16 who is at work: how many in the lower half, in the upper whether others may join.
_POOL = """
define internal ptr @word(ptr %pool, i64 %i) #0 {
  %at = getelementptr i64, ptr %pool, i64 %i
  ret ptr %at
}
define internal void @part(ptr %pool, i64 %index) #1 {
  %f = call ptr @word(ptr %pool, i64 2)
  %function = load ptr, ptr %f
  %p = call ptr @word(ptr %pool, i64 3)
  %parts = load ptr, ptr %p
  %mine = getelementptr ptr, ptr %parts, i64 %index
  %context = load ptr, ptr %mine
  %o = call ptr @word(ptr %pool, i64 4)
  %ordinal = load i64, ptr %o
  %r = call ptr @word(ptr %pool, i64 5)
  %rows = load i64, ptr %r
  call void %function(ptr %context, i64 %ordinal, i64 %rows)
  ret void
}
define void @work(ptr %pool, i64 %index, i64 %first) #0 {
start:
  %s = call ptr @word(ptr %pool, i64 9)
  %c = call ptr @word(ptr %pool, i64 16)
  %from = trunc i64 %first to i32
  br label %wait
wait:
  %seen = phi i32 [%from, %start], [%now, %leave], [%now, %last]
  call void @gate_wait(ptr %pool, i32 %seen, ptr %s)
  %now = load atomic i32, ptr %pool acquire, align 4
  %q = call ptr @word(ptr %pool, i64 6)
  %stop = load atomic i64, ptr %q acquire, align 8
  %stopped = icmp ne i64 %stop, 0
  br i1 %stopped, label %end, label %join
join:
  %crew = atomicrmw add ptr %c, i64 1 acq_rel
  %open = icmp uge i64 %crew, 4294967296
  br i1 %open, label %inside, label %leave
inside:
  %t = call ptr @word(ptr %pool, i64 7)
  %threads = load i64, ptr %t
  %wanted = icmp ult i64 %index, %threads
  br i1 %wanted, label %part, label %leave
part:
  call void @part(ptr %pool, i64 %index)
  br label %leave
leave:
  %before = atomicrmw sub ptr %c, i64 1 acq_rel
  %none = icmp eq i64 %before, 1
  br i1 %none, label %last, label %wait
last:
  %d = call ptr @word(ptr %pool, i64 1)
  call void @gate_open(ptr %d, ptr %s)
  br label %wait
end:
  ret void
}
define void @dispatch(ptr %pool, ptr %function, ptr %parts, i64 %ordinal, i64 %rows, ptr %gate, i64 %threads) #0 {
start:
  %s = call ptr @word(ptr %pool, i64 9)
  %c = call ptr @word(ptr %pool, i64 16)
  %d = call ptr @word(ptr %pool, i64 1)
  %f = call ptr @word(ptr %pool, i64 2)
  store ptr %function, ptr %f
  %p = call ptr @word(ptr %pool, i64 3)
  store ptr %parts, ptr %p
  %o = call ptr @word(ptr %pool, i64 4)
  store i64 %ordinal, ptr %o
  %r = call ptr @word(ptr %pool, i64 5)
  store i64 %rows, ptr %r
  %t = call ptr @word(ptr %pool, i64 7)
  store i64 %threads, ptr %t
  %claim = call ptr @word(ptr %gate, i64 8)
  store i64 0, ptr %claim
  %shares = call ptr @word(ptr %gate, i64 16)
  store i64 0, ptr %shares
  %open = atomicrmw add ptr %c, i64 4294967296 acq_rel
  call void @gate_open(ptr %pool, ptr %s)
  call void @part(ptr %pool, i64 0)
  %close = atomicrmw sub ptr %c, i64 4294967296 acq_rel
  br label %look
look:
  %seen = load atomic i32, ptr %d acquire, align 4
  %crew = load atomic i64, ptr %c acquire, align 8
  %empty = icmp eq i64 %crew, 0
  br i1 %empty, label %end, label %wait
wait:
  call void @gate_wait(ptr %d, i32 %seen, ptr %s)
  br label %look
end:
  ret void
}
define void @awake(ptr %pool) #0 {
  %s = call ptr @word(ptr %pool, i64 9)
  call void @gate_open(ptr %pool, ptr %s)
  ret void
}
attributes #0 = { nounwind }
attributes #1 = { nounwind noinline }
"""

_Dispatch = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 2, ctypes.c_void_p, ctypes.c_int64)
_Work = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


class Executor:
    """Threads for `program.batch(…, executor=…)` and `program.stream(…, executor=…)`.

    Takes   threads: how many compute, the caller included; default: the processors this process may use.
            Results have the same bits for every number. A tick that is short (some 0.1 ms) is computed by the caller
            alone, because waking others would take longer than what they could do.
            `close` (or `with`) ends the threads; they sleep while there is nothing to do.
    Raises  FactorError unless threads is a whole number from 1 to 256.
    """

    def __init__(self, threads: int | None = None) -> None:
        if threads is None:
            threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= _MOST:
            raise FactorError(expected=f"threads from 1 to {_MOST}", got=repr(threads), where="in Executor")
        self.threads = threads
        self._lock = threading.Lock()
        self._closed = False
        _all.add(self)
        self._pid = 0
        self._end: weakref.finalize[Any, Any] | None = None

    def _start(self) -> None:
        from penstock.native import jit

        self._pid = os.getpid()

        native = jit.compile_text("\n".join([*gates(), _POOL]))
        # Own cache lines; the threads keep it alive.
        pool = np.zeros(32, np.int64)
        pool[9] = SYSCALL[0]
        self._native, self._pool = native, pool
        self._dispatch = _Dispatch(native.address("dispatch"))
        work = _Work(native.address("work"))
        crew = [
            threading.Thread(target=_run, args=(work, pool, native, i), name=f"penstock-factor-{i}", daemon=True)
            for i in range(1, self.threads)
        ]
        for thread in crew:
            thread.start()
        self._end = weakref.finalize(self, _stop, pool, native, crew, self._pid)

    def call(self, function: int, contexts: Any, ordinal: int, rows: int, gate: int, threads: int) -> None:
        """Compute in up to so many threads: `function(contexts[i], ordinal, rows)` in thread i, until all have left it.

        The functions share out the work at the gate, whose words for that are set to zero first; a thread that wakes
        up when all is done is not waited for.
        """
        with self._lock:
            self.check()
            if os.getpid() != self._pid:  # not started yet, or left behind by a fork
                self._start()
            self._dispatch(self._pool.ctypes.data, function, contexts, ordinal, rows, gate, threads)

    def close(self) -> None:
        """End the threads; a program that still has this executor refuses to run."""
        with self._lock:
            self._closed = True
            if self._end is not None:
                self._end()

    def check(self) -> None:
        """Raises FactorError if it is closed."""
        if self._closed:
            raise FactorError("this executor is closed", hint="make another one")

    @property
    def closed(self) -> bool:
        """Whether its threads have ended."""
        return self._closed

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __copy__(self) -> Executor:
        return self  # its threads end with the one that started them

    def __repr__(self) -> str:
        return f"Executor(threads={self.threads}{', closed' if self._closed else ''})"


_all: weakref.WeakSet[Executor] = weakref.WeakSet()


def _forked() -> None:
    """A lock that another thread held at the fork is never given back."""
    for executor in list(_all):
        executor._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _run(work: Any, pool: np.ndarray[Any, np.dtype[np.int64]], native: Any, index: int) -> None:
    work(pool.ctypes.data, index, 0)


def _stop(pool: Any, native: Any, crew: list[threading.Thread], pid: int) -> None:
    if os.getpid() != pid:
        return
    pool[6] = 1
    opener = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(native.address("awake"))
    opener(pool.ctypes.data)
    for thread in crew:
        thread.join()
