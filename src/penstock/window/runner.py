"""Running a consumer: rows in, windows to a function, results out, each exactly once.

A run is a function of two recorded inputs: the rows of the stream, and the *marks*, the moments of wall time that
closed windows (see `history.py`). So a run that was killed is repeated from its last snapshot (or from the group's
first row), with the same windows, and those that were done are passed over. Done is the greatest of

* the group's committed position,
* the position in the last index entry that this group made in `into` and in `<stream>.errors` (see `results.py`),

so a result and the knowledge that it is there are one write.
"""

from __future__ import annotations

import contextlib
import copy
import os
import shlex
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any, Final, Protocol

import numpy as np

from penstock.clock import WALL, Clock, time_ns
from penstock.errors import (
    ConsumerFailed,
    GroupBusy,
    OffsetError,
    PenstockError,
    PenstockWarning,
    StorageError,
    UnknownStream,
    WindowError,
)
from penstock.log import Chunk, Group, Position, Reader, Stream
from penstock.records import event_column, event_times
from penstock.window.bars.emitter import BarWindow
from penstock.window.emitter import Emitter
from penstock.window.history import History, Mark, Saved
from penstock.window.results import Place, Results, text_of
from penstock.window.window import Window

__all__ = ["Limits", "Runner", "StreamingStatistics", "begin_of"]

SNAPSHOT_S: Final = 1.0  # how much work a killed consumer may have to repeat
_LOW_S: Final = 0.1  # how old the committed `low` may be while a consumer runs
_FEW: Final = 64  # rows tried at once behind a row that could not be read


class Stop(Protocol):
    """A threading.Event, or what answers like one."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run ends. `until` as an offset, a wall time in ns, or a test of the window just done."""

    blocking: bool = True
    flush: bool = False
    offset: int | None = None
    deadline_ns: int | None = None
    test: Callable[[Window], Any] | None = None
    max_windows: int | None = None
    stop: Stop | None = None
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class StreamingStatistics:
    """One run: rows read, windows handed to the function, those passed over because they were done before, results
    appended (rows), errors recorded, attempts beyond the first, late rows of the group so far; `next_offset` is the
    next row to read, `lag` the rows appended and not yet read. While it runs, `late` may be a second old.
    """

    rows: int = 0
    windows: int = 0
    skipped: int = 0
    results: int = 0
    errors: int = 0
    retries: int = 0
    late: int = 0
    next_offset: int = 0
    lag: int = 0


class Runner:
    """One run of one consumer. Use `Streaming.apply`.

    Takes   into: gives the stream for results, made if need be; open_stream: gives a stream of the hub by name.
    """

    def __init__(
        self,
        stream: Stream,
        emitter: Emitter,
        fn: Callable[[Window], Any] | None,
        *,
        group: str,
        start: Any,
        into: Callable[[], Stream] | None,
        open_stream: Callable[..., Stream],
        retries: int,
        on_error: str,
        standby: bool,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._stream, self._emitter, self._fn = stream, emitter, fn
        self._group_name, self._start = group, start
        self._open_stream = open_stream
        self._into = into
        self._retries, self._on_error, self._standby = retries, on_error, standby
        self._clock, self._limits = clock, limits
        self._reader: Reader | None = None
        self._done: Place = (0, -1)
        self._begin = 0  # first row of this run
        self._left_out = 0  # offset after the last row that is in no window for want of a time or a key
        self._ending = False
        self._rows = self._windows = self._skipped = self._appended = self._errors = self._retried = self._late = 0
        # Windows the emitter has closed, and how many of them are done; None while that is not known.
        self._ahead: list[Window] | None = []
        self._ahead_at = 0
        self._ahead_low: list[int] | None = None

    def run(self) -> StreamingStatistics:
        """Until a limit is reached. Whatever ends it, the group is given back with its position."""
        group = self._take_group()
        if group is None:
            return self.statistics()
        process = os.getpid()
        with contextlib.closing(group):
            self._group = group
            self._resume()
            try:
                self._loop()
                if self._limits.flush and not self._ending:
                    self._flush()
            finally:
                if os.getpid() == process:  # a child that the function forked holds nothing
                    if self._is_settled:
                        self._save()
                    group.commit(self._position())
        return self.statistics()

    def statistics(self) -> StreamingStatistics:
        """What was done so far."""
        reached = 0 if self._reader is None else self._reader.offset
        try:
            lag = 0 if self._reader is None else max(0, self._stream.next_offset - reached)
        except (UnknownStream, OSError):
            lag = 0
        return StreamingStatistics(
            self._rows,
            self._windows,
            self._skipped,
            self._appended,
            self._errors,
            self._retried,
            self._late,
            reached,
            lag,
        )

    # -- where it stands

    def _take_group(self) -> Group | None:
        while True:
            known = self._group_name in self._stream.metadata().groups
            start = None if known else begin_of(self._stream, self._start)
            try:
                return self._stream.group(self._group_name, start=start)
            except GroupBusy:
                if not self._standby:
                    raise
                if self._is_stopped or self._is_over:
                    return None
                time.sleep(0.05)

    def _resume(self) -> None:
        """Find what was done, bring the emitter to its last snapshot, and know the marks that follow it."""
        group, stream = self._group, self._stream
        history = self._history = History(stream, group.name, self._open_stream)
        data = group.load_state()
        if data == b"":  # moved by `seek`
            history.renew()
        saved = Saved.of(data)
        self._use(history)
        start = history.first if saved is None else saved.marks
        start, marks = history.marks(start)
        self._marks = deque(marks)
        reached = max(self._done[0], saved.offset if saved else 0, marks[-1].position if marks else 0)
        following = stream.next_offset
        if reached > max(following, group.begin):
            # After a power loss, or when files were put back: new rows will get the offsets of those that are gone.
            anew = min(group.position.low, following)
            self._warn(
                f"ends at {following}, but group {group.name!r} had come to offset {reached}; it begins at {anew}"
            )
            group.reset(anew)
            history.renew()
            self._use(history)
            saved = None
            start, self._marks = history.first, deque()
        self._low = self._held = group.position.low
        # Retention up to this group must leave what the snapshot needs, which is older than the position.
        self._is_kept = stream._meta.options.retention.until == group.name
        first = stream.first_offset
        if saved is not None and self._restore(saved):
            begin, is_known = saved.offset, saved.offset >= first
        else:
            begin = min(group.begin, self._low)
            is_known = begin >= first and saved is None and start == history.first
        if not is_known:
            # Rows or marks of the past are gone: it cannot be repeated. Go on with what is still to do.
            begin = self._low
            self._dropped(begin, first)
            self._done = (self._done[0], -1)
        self._begin = max(begin, first)
        self._seen = start
        self._reader = stream.reader(self._begin)
        self._low_at = 0.0
        self._save()

    def _use(self, history: History) -> None:
        """Find out what was done."""
        self._results = Results(
            self._stream, self._group_name, history.who, into=self._into, open_stream=self._open_stream
        )
        position = self._group.position
        self._done = self._results.done((position.offset, position.index))

    def _restore(self, saved: Saved) -> bool:
        """Bring the emitter to the snapshot; False when rows that it needs are gone."""
        fresh = copy.deepcopy(self._emitter)
        stream, gone = self._stream, False

        def fetch(ranges: Sequence[range]) -> Iterator[Chunk]:
            nonlocal gone
            for wanted in ranges:
                gone = gone or wanted.start < stream.first_offset
                yield from stream.chunks(max(wanted.start, stream.first_offset), wanted.stop)

        try:
            self._emitter.restore(saved.emitter, fetch)
        except WindowError as error:
            if gone:
                self._emitter = fresh
                return False
            place = shlex.join([stream.name, self._group_name, str(self._group.position.low)])
            raise WindowError(
                problem=error.problem or str(error),
                where=f"in group {self._group_name!r} of stream {stream.name!r}",
                hint="use the options of before, or another group=; or let this one begin anew where it stands:"
                f" `penstock stream seek {place}`",
            ) from error
        return True

    def _dropped(self, begin: int, first: int) -> None:
        if begin < first:
            self._warn(
                f"offsets {begin} to {first} were dropped by its retention before group {self._group_name!r} had done"
                f" them; it goes on at {first}"
            )

    def _warn(self, text: str) -> None:
        warnings.warn(f"stream {self._stream.name!r}: {text}", PenstockWarning, stacklevel=5)

    # -- marks

    def _replay(self) -> None:
        mark = self._marks.popleft()
        self._seen += 1
        self._ahead = None
        if mark.flush:
            self._handle(self._emitter.flush(mark.position))
        else:
            self._handle(self._emitter.mark(mark.ts, mark.position))

    def _mark(self, position: int, ts: int) -> None:
        """Close by wall time what is due; all rows before `position` were read, later ones are not older than `ts`."""
        now = ts if self._clock is WALL else max(ts, self._clock.now_ns())
        due = self._emitter.deadline(now)
        if due is None or due > now:
            return
        self._ahead = None
        windows = self._emitter.mark(now, position)
        if windows:
            self._seen = self._history.record(Mark(position, now, False))
        self._handle(windows)

    def _flush(self) -> None:
        assert self._reader is not None
        position = max(self._reader.offset, self._emitter.position)
        if position < self._done[0] or self._marks:
            return  # not yet where it was before: what is open here is in windows that are done
        self._ahead = None
        windows = self._emitter.flush(position)
        if windows:
            self._seen = self._history.record(Mark(position, self._clock.now_ns(), True))
        self._handle(windows, always=True)

    # -- the loop

    @property
    def _is_stopped(self) -> bool:
        return self._limits.stop is not None and self._limits.stop.is_set()

    @property
    def _is_over(self) -> bool:
        return self._limits.deadline_ns is not None and self._clock.now_ns() >= self._limits.deadline_ns

    def _loop(self) -> None:
        limits, emitter = self._limits, self._emitter
        came = time.monotonic()
        live: tuple[int, int] | None = None  # a mark on its way: rows before its position come first
        while not (self._ending or self._is_stopped or self._is_over):
            if self._is_settled and time.monotonic() - self._saved_at > SNAPSHOT_S:
                self._save()
            target = self._marks[0].position if self._marks else None if live is None else live[0]
            chunk = self._poll(_least(target, limits.offset))
            assert self._reader is not None
            offset = self._reader.offset
            if chunk is not None:
                came = time.monotonic()
                self._push(chunk)
            elif target is not None and offset >= target:
                if live is not None:
                    self._mark(*live)
                    live = None
                else:
                    self._replay()
                continue
            due = None
            if target is None and not self._ending:
                now = self._clock.now_ns()
                due = emitter.deadline(now)
                if due is not None and due <= now:
                    live = self._stream.mark()
                    if limits.offset is None or live[0] <= limits.offset:
                        continue
                    live = None  # rows behind `until` say when it was
            if chunk is not None:
                continue
            if not limits.blocking or (limits.offset is not None and offset >= limits.offset):
                return
            left = 0.1
            if limits.timeout is not None:
                left = min(left, limits.timeout - (time.monotonic() - came))
                if left <= 0:
                    return
            if due is not None:
                left = min(left, max(0.0, (due - self._clock.now_ns()) / 1e9))
            self._stream.wait(offset, left)

    def _poll(self, stop: int | None) -> Chunk | None:
        while True:
            assert self._reader is not None
            try:
                return self._reader.poll() if stop is None else self._reader.poll_until(stop)
            except OffsetError:
                behind, self._reader = self._reader.offset, self._stream.reader("start")
                self._dropped(behind, self._reader.offset)

    def _push(self, chunk: Chunk) -> None:
        at, step = 0, len(chunk)
        while at < len(chunk) and not self._ending:
            part = chunk.slice(at, min(at + step, len(chunk)))
            self._ahead = None
            try:
                windows = self._emitter.push(part)
            except PenstockError as error:
                bad = getattr(error, "offset", None)
                if type(bad) is not int or not part.first <= bad < part.stop or self._on_error == "stop":
                    raise
                self._ahead, self._ahead_at = [], 0  # where one row is to blame, the emitter is as it was
                if bad > part.first:
                    step = bad - part.first
                else:
                    self._leave_out(bad, error)
                    at, step = at + 1, _FEW
                continue
            self._rows += len(part)
            self._results.put_late(self._emitter.take_late())
            self._handle(windows)
            at, step = at + len(part), 2 * step

    def _handle(self, windows: list[Window], *, always: bool = False) -> None:
        """Hand out windows in order; those from `_ahead_at` on are not done, whatever ends this."""
        limits, commit = self._limits, self._group.commit
        self._ahead, self._ahead_at, self._ahead_low = windows, 0, None
        for number, window in enumerate(windows):
            self._ahead_at = number
            place = (window.position, window.index)
            if place <= self._done:
                self._skipped += 1
                continue
            if self._ending or (limits.stop is not None and not always and limits.stop.is_set()):
                self._ending = True
                return
            self._one(window)
            self._ahead_at = number + 1
            self._done = place
            now = time.monotonic()
            if now - self._low_at > _LOW_S:
                self._low_at = now
                self._low = self._lowest()
            commit(Position(*place, self._low))
            self._windows += 1
            if limits.max_windows is not None and self._windows >= limits.max_windows:
                self._ending = True
            elif limits.test is not None and limits.test(window):
                self._ending = True
        self._ahead, self._ahead_at = [], 0

    def _one(self, window: Window) -> None:
        """The function, its result, its error."""
        results, attempts = self._results, 0
        while True:
            attempts += 1
            appending = False
            try:
                result = _passed(window) if self._fn is None else self._fn(window)
                if result is not None and results.is_wanted:
                    appending = True
                    self._appended += results.put(result, (window.position, window.index))
            except Exception as error:
                # The log in trouble is not the function's fault: stop, uncommitted.
                if isinstance(error, StorageError) or (appending and isinstance(error, OSError | UnknownStream)):
                    raise
                if attempts <= self._retries:
                    self._retried += 1
                    continue
                self._failed(window, error, attempts)
            return

    def _failed(self, window: Window, error: Exception, attempts: int) -> None:
        offsets = window.offsets
        rows = range(int(offsets[0]), int(offsets[-1]) + 1) if len(offsets) else range(window.position, window.position)
        if self._on_error == "stop":
            raise ConsumerFailed(
                f"the consumer's function raised {type(error).__name__}: {text_of(error)}",
                where=f"on offsets {rows.start} to {rows.stop} of {self._stream.name!r}, group {self._group_name!r}",
                hint='the window is not committed; mend it and run again, or use on_error="skip"',
                offsets=offsets,
            ) from error
        self._results.tell(error, (window.position, window.index), rows, window.key, attempts)
        self._errors += 1

    def _leave_out(self, offset: int, error: PenstockError) -> None:
        """A row that no window can be found for: to the errors, once; the windows go on without it."""
        place = (offset + 1, -1)  # before every window that is closed there
        self._left_out = offset + 1
        if place > self._done:
            self._results.tell(error, place, range(offset, offset + 1), None, 1)
            self._errors += 1
            self._done = place
            self._group.commit(Position(*place, self._low))

    # -- keeping

    @property
    def _is_settled(self) -> bool:
        """Whether all that the emitter has closed is done; else its state must not become the snapshot."""
        return self._ahead is not None and self._ahead_at == len(self._ahead)

    @property
    def _next_row(self) -> int:
        """The first row that the emitter has not seen. The reader may be ahead of it."""
        return max(self._begin, self._emitter.position)

    def _lowest(self) -> int:
        """Lowest offset that no committed window holds; it never falls."""
        if self._ahead is None or (not self._is_settled and isinstance(self._emitter, BarWindow)):
            return self._low  # rows of windows that are not done cannot be told
        low = self._emitter.lowest_open
        low = max(self._next_row, self._left_out) if low is None else low
        if not self._is_settled:
            if self._ahead_low is None:  # for each window, the lowest offset in it and those after it; once for all
                firsts = [int(w.offsets[0]) if len(w) else self._next_row for w in self._ahead]
                self._ahead_low = list(accumulate(reversed(firsts), min))[::-1]
            low = min(low, self._ahead_low[self._ahead_at])
        return max(self._low, min(low, self._held) if self._is_kept else low)

    def _position(self) -> Position:
        return Position(*self._done, self._lowest())

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        low = self._emitter.lowest_open
        self._late = self._emitter.statistics().late
        # Without it a killed consumer repeats more, and nothing else: no reason to stop.
        with contextlib.suppress(OSError, StorageError):
            self._group.save_state(Saved(self._emitter.snapshot(), self._next_row, self._seen).encoded())
            self._held = self._next_row if low is None else min(low, self._next_row)


def begin_of(stream: Stream, start: Any) -> Any:
    """`start` of a group as an offset or a word. A time means the first row of that event time or later, when the
    schema has one (found by reading the column), else the first row appended then.
    """
    is_time = isinstance(start, datetime | np.datetime64) or (isinstance(start, str) and start not in ("start", "end"))
    column = event_column(stream.schema)
    if column is None or not is_time:
        return start
    moment = time_ns(start, name="start")
    for chunk in stream.chunks():
        hits = np.flatnonzero(event_times(chunk.batch, column) >= moment)
        if len(hits):
            return chunk.first + int(hits[0])
    return stream.next_offset


def _passed(window: Window) -> Any:
    """A window without a function: the value of its logic, else its rows."""
    return window.table if window._logic is None else window.value


def _least(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)
