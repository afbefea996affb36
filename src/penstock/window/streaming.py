"""Windows of a stream for a function: what `hub.streams.get(name, lazy=True, ...)` gives."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import copy
import difflib
import inspect
import threading
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

from penstock.clock import WALL, Clock, time_ns
from penstock.errors import UsageError
from penstock.log import Stream
from penstock.window.choose import emitter_for
from penstock.window.emitter import Emitter
from penstock.window.runner import Limits, Runner, Stop, StreamingStatistics, begin_of
from penstock.window.window import Window

__all__ = ["STREAMING_OPTIONS", "Streaming"]

Function = Callable[[Window], Any]
F = TypeVar("F", bound=Function)

_RUN_OPTIONS: Final = frozenset(
    {"group", "start", "into", "retries", "on_error", "blocking", "standby", "flush", "until", "max_windows", "stop"}
    | {"timeout", "clock"}
)
STREAMING_OPTIONS: Final = frozenset(inspect.signature(emitter_for).parameters) - {"schema"} | _RUN_OPTIONS
"""Every option of `streams.get(..., lazy=True, ...)`."""


class Streaming:
    """A stream as windows. `apply` runs a function on each, `@streaming` does the same as a decorator.

    Takes   size, interval, relaxed, every, gap, by, emitter, time, lateness, late, idle, tz, origin, emit_empty: the
            windows; nothing of it: one row each (see `penstock.window.emitter_for`);
            group: whose position this is; consumers of other groups see every row too;
            start: where a group that is new begins: "start", "end", an offset or a time;
            into: name of the stream, or the stream, to which results are appended: a dict, dicts or a table; None is no
            result. Exactly once, also when this process is killed at any instant;
            retries: how often a window whose function raised is tried again; then the error becomes a row of
            `<stream>.errors` and the consumer goes on, or with on_error="stop" raises ConsumerFailed;
            blocking: False: do what is ready now, then return; standby: wait for the group while another consumer holds
            it, instead of raising GroupBusy;
            until (an offset, an aware datetime, or a function of the window), max_windows, timeout (seconds without
            rows), stop (a threading.Event): when `apply` returns; flush: emit unfinished windows then, unless
            max_windows or a function ended it;
            clock: what closes windows by time (default: the machine's).
    A row that no window can be found for (no time, no such key) becomes a row of `<stream>.errors`, and the windows go
    on without it; with on_error="stop" it raises WindowError.
    Raises  UsageError, WindowError for options that cannot be.
    """

    _runs: Callable[..., Runner] = Runner  # what runs it; a feed of factors has its own

    def __init__(
        self,
        stream: Stream,
        open_stream: Callable[..., Stream],
        *,
        group: str = "default",
        start: Any = None,
        into: str | Stream | None = None,
        retries: int = 0,
        on_error: str = "skip",
        blocking: bool = True,
        standby: bool = False,
        flush: bool = False,
        until: Any = None,
        max_windows: int | None = None,
        stop: Stop | None = None,
        timeout: float | None = None,
        clock: Clock = WALL,
        **windows: Any,
    ) -> None:
        for option, value in windows.items():
            if option not in STREAMING_OPTIONS:
                near = difflib.get_close_matches(option, sorted(STREAMING_OPTIONS), 1)
                raise UsageError(
                    expected="an option of windows",
                    got=f"{option}={value!r}",
                    where=f"on stream {stream.name!r}",
                    hint=f"did you mean {near[0]!r}?"
                    if near
                    else f"options are {', '.join(sorted(STREAMING_OPTIONS))}",
                )
        self.stream = stream
        self.group = group
        self._open_stream = open_stream
        self._emitter = emitter_for(**windows)
        # A copy: a run binds its own to the first rows, whose schema an empty stream does not know yet.
        copy.deepcopy(self._emitter).bind(stream.schema)
        if not isinstance(group, str) or not group:
            raise UsageError(expected="the name of a group", got=repr(group), where=f"of stream {stream.name!r}")
        where = f"of group {group!r}"
        if on_error not in ("skip", "stop"):
            raise UsageError(expected='on_error "skip" or "stop"', got=repr(on_error), where=where)
        if type(retries) is not int or retries < 0:
            raise UsageError(expected="retries of at least 0", got=repr(retries), where=where)
        if not isinstance(standby, bool):
            raise UsageError(expected="standby True or False", got=repr(standby), where=where)
        self._into = _into(into, stream, open_stream, where)
        self._run = {"start": start, "retries": retries, "on_error": on_error, "standby": standby, "clock": clock}
        self._limits: dict[str, Any] = {
            "blocking": blocking, "flush": flush, "until": until,
            "max_windows": max_windows, "stop": stop, "timeout": timeout,
        }  # fmt: skip
        _limits(**self._limits)
        self._runner: Runner | None = None

    @property
    def emitter(self) -> Emitter:
        """The emitter as configured; each run works on a copy of it."""
        return self._emitter

    def apply(self, fn: Function | None = None, **limits: Any) -> StreamingStatistics:
        """Call `fn(window)` for each window, in order, until told to stop; returns what was done.

        Takes   fn: None to pass windows' rows (or the value of their logic) on to `into`;
                limits: `until`, `max_windows`, `stop`, `timeout`, `blocking`, `flush`, instead of those given before.
        A window is committed after `fn` returned and its result was appended. A process killed in between calls `fn`
        again for that one window, unless its result was appended already.
        Raises  GroupBusy, ConsumerFailed (on_error="stop"), and whatever stops the log: CorruptSegment, DiskFull, …
        """
        where = f"in apply on {self.stream.name!r}"
        if fn is not None and not callable(fn):
            raise UsageError(expected="a function of a window", got=repr(fn), where=where)
        if fn is None and self._into is None:
            raise UsageError(
                expected="a function of a window, or into=",
                got="neither",
                where=where,
                hint="windows would lead nowhere",
            )
        if inspect.iscoroutinefunction(fn):
            name = getattr(fn, "__qualname__", fn)
            raise UsageError(
                expected="a plain function of a window",
                got=f"the async function {name!r}",
                where=where,
                hint="use `await streaming.aapply(function)`",
            )
        unknown = sorted(set(limits) - set(self._limits))
        if unknown:
            raise UsageError(
                expected=f"options {', '.join(sorted(self._limits))}",
                got=", ".join(unknown),
                where=where,
                hint="other options go to streams.get(…, lazy=True, …)",
            )
        runner = self._runner = self._runs(
            self.stream,
            copy.deepcopy(self._emitter),
            fn,
            group=self.group,
            into=self._into,
            open_stream=self._open_stream,
            limits=_limits(**{**self._limits, **limits}),
            **self._run,
        )
        return runner.run()

    def __call__(self, fn: F) -> F:
        """As `apply`, for use as a decorator: runs at once, and returns the function."""
        self.apply(fn)
        return fn

    async def aapply(
        self, fn: Function | Callable[[Window], Awaitable[Any]] | None = None, **limits: Any
    ) -> StreamingStatistics:
        """As `apply`, in a thread of its own; an async `fn` runs in the event loop.

        Cancelled, it stops after the window in hand, which is committed.
        """
        loop = asyncio.get_running_loop()
        cancelled = threading.Event()
        stop = _limits(**{**self._limits, "stop": limits.get("stop", self._limits["stop"])}).stop
        limits["stop"] = cancelled if stop is None else _Either(stop, cancelled)
        # Not asyncio.to_thread: its few threads are shared, and consumers for ever in all of them would block appends.
        executor = concurrent.futures.ThreadPoolExecutor(1, "penstock")
        try:
            run = loop.run_in_executor(executor, partial(self.apply, None if fn is None else _in(loop, fn), **limits))
            try:
                return await asyncio.shield(run)
            except asyncio.CancelledError:
                cancelled.set()
                await asyncio.wait({run})
                if not run.cancelled() and (error := run.exception()) is not None:
                    raise asyncio.CancelledError from error
                raise
        finally:
            executor.shutdown(wait=False)

    def seek(self, where: Any) -> int:
        """Put the group elsewhere; returns the offset at which its next window begins.

        Takes   where: "start", "end", an offset, or a time (of the event, when rows have one; else of the append).
        Rows from there on are new to the group, also those it has done: results are appended again.
        Raises  GroupBusy while a consumer runs; OffsetError, UsageError.
        """
        offset = self.stream.reader(begin_of(self.stream, where)).offset
        with contextlib.closing(self.stream.group(self.group)) as group:
            group.reset(offset)
        return offset

    def statistics(self) -> StreamingStatistics:
        """What the run in hand, or the last one, has done; zeros before the first."""
        return StreamingStatistics() if self._runner is None else self._runner.statistics()

    def __repr__(self) -> str:
        return f"Streaming({self.stream.name!r}, {type(self._emitter).__name__}, group={self.group!r})"


class _Either:
    """Set when one of two events is."""

    def __init__(self, one: Stop, other: Stop) -> None:
        self._one, self._other = one, other

    def is_set(self) -> bool:
        return self._one.is_set() or self._other.is_set()


def _in(loop: asyncio.AbstractEventLoop, fn: Callable[[Window], Any]) -> Function:
    """`fn`, called in a thread; what it leaves to be awaited, `loop` awaits."""

    def call(window: Window) -> Any:
        result = fn(window)
        if not inspect.isawaitable(result):
            return result
        future = asyncio.run_coroutine_threadsafe(_awaited(result), loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise asyncio.CancelledError from None  # the loop ends: no failure of the function, nothing is committed

    return call


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def _into(
    into: str | Stream | None, stream: Stream, open_stream: Callable[..., Stream], where: str
) -> Callable[[], Stream] | None:
    """What opens the stream for results."""
    if into is None:
        return None
    if not isinstance(into, str | Stream):
        raise UsageError(expected="into: a stream or its name", got=repr(into), where=where)
    # A stream of this hub goes by its name, so that one dropped meanwhile is made again.
    elsewhere = isinstance(into, Stream) and into._folder.parent != stream._folder.parent
    name = into.name if isinstance(into, Stream) else into
    if name == stream.name and not elsewhere:
        raise UsageError(
            expected="into another stream",
            got=repr(name),
            where=where,
            hint="results appended to the input would be input again",
        )
    if isinstance(into, Stream) and elsewhere:
        return lambda: into
    return lambda: open_stream(name)


def _limits(
    *,
    blocking: Any,
    flush: Any,
    until: Any,
    max_windows: Any,
    stop: Any,
    timeout: Any,
) -> Limits:
    where = "in apply"
    for name, value in (("blocking", blocking), ("flush", flush)):
        if not isinstance(value, bool):
            raise UsageError(expected=f"{name} True or False", got=repr(value), where=where)
    if max_windows is not None and (type(max_windows) is not int or max_windows < 1):
        raise UsageError(expected="max_windows of at least 1", got=repr(max_windows), where=where)
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout < 0):
        raise UsageError(expected="timeout: seconds, at least 0", got=repr(timeout), where=where)
    if stop is not None and not callable(getattr(stop, "is_set", None)):
        raise UsageError(expected="stop: a threading.Event", got=repr(stop), where=where)
    offset = deadline = None
    test: Callable[[Window], Any] | None = None
    if type(until) is int and until >= 0:
        offset = until
    elif isinstance(until, datetime | str):
        deadline = time_ns(until, name="until")
    elif callable(until):
        test = until
    elif until is not None:
        raise UsageError(
            expected="until: an offset, a time with its zone, or a function of the window",
            got=repr(until),
            where=where,
        )
    return Limits(blocking, flush, offset, deadline, test, max_windows, stop, timeout)
