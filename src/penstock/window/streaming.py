"""Windows of a stream for a function: what `hub.streams.get(name, lazy=True, ...)` gives."""

from __future__ import annotations

import asyncio
import copy
import inspect
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, TypeVar

from penstock.clock import WALL, Clock, time_ns
from penstock.errors import UsageError
from penstock.log import Stream
from penstock.window.choose import emitter_for
from penstock.window.emitter import Emitter
from penstock.window.runner import Limits, Runner, StreamingStatistics
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
            rows), stop (a threading.Event): when `apply` returns; flush: emit unfinished windows then.
    Raises  UsageError, WindowError for options that cannot be.
    """

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
        stop: threading.Event | None = None,
        timeout: float | None = None,
        clock: Clock = WALL,
        **windows: Any,
    ) -> None:
        self.stream = stream
        self.group = group
        self._open_stream = open_stream
        self._emitter = emitter_for(**windows, schema=stream.schema)
        if not isinstance(group, str) or not group:
            raise UsageError(expected="the name of a group", got=repr(group), where=f"of stream {stream.name!r}")
        if on_error not in ("skip", "stop"):
            raise UsageError(expected='on_error "skip" or "stop"', got=repr(on_error), where=f"of group {group!r}")
        if type(retries) is not int or retries < 0:
            raise UsageError(expected="retries of at least 0", got=repr(retries), where=f"of group {group!r}")
        name = into.name if isinstance(into, Stream) else into
        if name is not None and not isinstance(name, str):
            raise UsageError(expected="into: a stream or its name", got=repr(into), where=f"of group {group!r}")
        if name == stream.name:
            raise UsageError(
                expected="into another stream",
                got=repr(name),
                where=f"of group {group!r}",
                hint="results appended to the input would be input again",
            )
        self._into = name
        self._run = {"start": start, "retries": retries, "on_error": on_error, "standby": standby, "clock": clock}
        self._limits: dict[str, Any] = {
            "blocking": blocking, "flush": flush, "until": until,
            "max_windows": max_windows, "stop": stop, "timeout": timeout,
        }  # fmt: skip
        self._statistics: StreamingStatistics | None = None

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
        if fn is not None and not callable(fn):
            raise UsageError(expected="a function of a window", got=repr(fn), where=f"in apply on {self.stream.name!r}")
        unknown = sorted(set(limits) - set(self._limits))
        if unknown:
            raise UsageError(
                expected=f"options {', '.join(sorted(self._limits))}",
                got=", ".join(unknown),
                where=f"in apply on {self.stream.name!r}",
                hint="other options go to streams.get(…, lazy=True, …)",
            )
        runner = Runner(
            self.stream,
            copy.deepcopy(self._emitter),
            fn,
            group=self.group,
            into=self._into,
            open_stream=self._open_stream,
            limits=_limits(**{**self._limits, **limits}),
            **self._run,
        )
        self._runner = runner
        try:
            return runner.run()
        finally:
            self._statistics = runner.statistics()

    def __call__(self, fn: F) -> F:
        """As `apply`, for use as a decorator: runs at once, and returns the function."""
        self.apply(fn)
        return fn

    async def aapply(self, fn: Function | None = None, **limits: Any) -> StreamingStatistics:
        """As `apply`, in a thread. Cancelled, it stops after the window in hand, which is committed."""
        stop = limits.get("stop") or self._limits["stop"] or threading.Event()
        task = asyncio.create_task(asyncio.to_thread(self.apply, fn, **{**limits, "stop": stop}))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait({task})
            raise

    def statistics(self) -> StreamingStatistics:
        """What the run in hand, or the last one, has done; zeros before the first."""
        runner = getattr(self, "_runner", None)
        return runner.statistics() if runner is not None else StreamingStatistics()

    def __repr__(self) -> str:
        return f"Streaming({self.stream.name!r}, {type(self._emitter).__name__}, group={self.group!r})"


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
