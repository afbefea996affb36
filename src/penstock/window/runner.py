"""Running a consumer: rows in, windows to a function, results out, each exactly once.

A run is a function of two recorded inputs: the rows of the stream, and the *marks*, the moments of wall time that
closed windows, kept in the stream `_marks/<stream>/<group>` before a window they closed is handed out. So a run that
was killed is repeated from its last snapshot (or from the group's first row), with the same windows, and those that
were done are passed over. Done is the greatest of

* the group's committed position,
* the position in the last index entry that this group made in `into` and in `<stream>.errors`,

so a result and the knowledge that it is there are one write.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pyarrow as pa

from penstock.clock import Clock
from penstock.errors import ConsumerFailed, GroupBusy, PenstockWarning, StorageError, UnknownStream
from penstock.log import Chunk, Group, Position, Stream
from penstock.records import ERRORS
from penstock.window.emitter import Emitter
from penstock.window.window import Window

if TYPE_CHECKING:
    from penstock.log import Reader

__all__ = ["Limits", "Runner", "StreamingStatistics"]

SNAPSHOT_S: Final = 1.0  # how much work a killed consumer may have to repeat
_MARKS: Final = pa.schema([pa.field(name, pa.int64(), nullable=False) for name in ("position", "ts", "flush")])


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run ends. `until` as an offset, a wall time in ns, or a test of the window just done."""

    blocking: bool = True
    flush: bool = False
    offset: int | None = None
    deadline_ns: int | None = None
    test: Callable[[Window], Any] | None = None
    max_windows: int | None = None
    stop: threading.Event | None = None
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class StreamingStatistics:
    """One run: rows read, windows handed to the function, those passed over because they were done before, results
    appended, errors recorded, attempts beyond the first, late rows; `lag` is rows appended but not yet read."""

    rows: int = 0
    windows: int = 0
    skipped: int = 0
    results: int = 0
    errors: int = 0
    retries: int = 0
    late: int = 0
    next_offset: int = 0
    lag: int = 0


class _State(msgspec.Struct):
    """A snapshot: the emitter's, the next row it wants, how many marks it has seen."""

    emitter: bytes
    offset: int
    marks: int


class Runner:
    """One run of one consumer. Use `Streaming.apply`."""

    def __init__(
        self,
        stream: Stream,
        emitter: Emitter,
        fn: Callable[[Window], Any] | None,
        *,
        group: str,
        start: Any,
        into: str | None,
        open_stream: Callable[..., Stream],
        retries: int,
        on_error: str,
        standby: bool,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._stream, self._emitter, self._fn = stream, emitter, fn
        self._group_name, self._start, self._into_name = group, start, into
        self._open_stream = open_stream
        self._retries, self._on_error, self._standby = retries, on_error, standby
        self._clock, self._limits = clock, limits
        self._who = f"{stream.name}\0{group}"
        self._into: Stream | None = None
        self._reader: Reader | None = None
        self._ending = False
        self._rows = self._windows = self._skipped = self._results = self._errors = self._retried = 0
        self._low = 0
        self._low_at = 0.0

    def run(self) -> StreamingStatistics:
        """Until a limit is reached. Whatever ends it, the group is given back with its position."""
        with contextlib.closing(self._take_group()) as group:
            self._group = group
            self._resume()
            try:
                self._loop()
                if self._limits.flush and not self._ending:
                    self._flush()
            finally:
                if not self._is_behind:
                    self._save()
                group.commit(self._position())
        return self.statistics()

    def statistics(self) -> StreamingStatistics:
        """What was done so far."""
        reached = 0 if self._reader is None else self._reader.offset
        try:
            lag = 0 if self._reader is None else max(0, self._stream.next_offset - reached)
        except UnknownStream:
            lag = 0
        late = self._emitter.statistics().late
        return StreamingStatistics(
            self._rows, self._windows, self._skipped, self._results, self._errors, self._retried, late, reached, lag
        )

    # -- where it stands

    def _take_group(self) -> Group:
        while True:
            try:
                return self._stream.group(self._group_name, start=self._start)
            except GroupBusy:
                stop = self._limits.stop
                if not self._standby or (stop is not None and stop.is_set()):
                    raise
                time.sleep(0.05)

    def _resume(self) -> None:
        """Find what was done, bring the emitter to its last snapshot, and know the marks that follow it."""
        group, stream = self._group, self._stream
        done = (group.position.offset, group.position.index)
        if self._into_name is not None:
            self._into = self._open_stream(self._into_name)
            done = max(done, self._into.last_origin(self._who) or done)
        for name in (f"{stream.name}.errors",):
            with contextlib.suppress(UnknownStream):
                done = max(done, self._open_stream(name, create=False).last_origin(self._who) or done)
        self._done = done
        self._low = group.position.low
        self._ahead: list[Window] = []
        self._ahead_at = 0
        self._ahead_low: list[int] | None = None
        first = stream.first_offset
        begin, marks = group.begin, 0
        saved = group.load_state()
        if saved is not None:
            state = msgspec.msgpack.decode(saved, type=_State)
            self._emitter.restore(state.emitter, self._fetch)
            begin, marks = state.offset, state.marks
        if begin < first:
            warnings.warn(
                f"stream {stream.name!r}: offsets {begin} to {first} were dropped by its retention before group"
                f" {group.name!r} had read them; it goes on at {first}",
                PenstockWarning,
                stacklevel=4,
            )
            begin = first
        self._marks = self._recorded(marks)
        self._seen_marks = marks
        self._next_mark = next(self._marks, None)
        self._late_done = self._late_from()
        self._reader = stream.reader(begin)
        self._saved_at = time.monotonic()

    def _fetch(self, ranges: Sequence[range]) -> Iterable[Chunk]:
        for wanted in ranges:
            yield from self._stream.chunks(wanted.start, wanted.stop)

    def _late_from(self) -> int:
        with contextlib.suppress(UnknownStream):
            found = self._open_stream(f"{self._stream.name}.late", create=False).last_origin(self._who)
            if found is not None:
                return found[0]
        return 0

    # -- marks

    @property
    def _marks_name(self) -> str:
        return f"_marks/{self._stream.name}/{self._group_name}"

    def _recorded(self, start: int) -> Iterator[tuple[int, int, bool]]:
        """Marks of earlier runs: (position, wall ns, whether a flush)."""
        with contextlib.suppress(UnknownStream):
            stream = self._open_stream(self._marks_name, create=False)
            table = stream.read(max(start, stream.first_offset))
            for row in zip(*(table.column(name).to_pylist() for name in _MARKS.names), strict=True):
                yield row[0], row[1], bool(row[2])

    def _record(self, position: int, ts: int, *, flush: bool) -> None:
        marks = self._open_stream(self._marks_name, schema=_MARKS, retention={"bytes": 64 << 20})
        marks.append({"position": position, "ts": ts, "flush": int(flush)})
        self._seen_marks += 1

    def _replay_mark(self, mark: tuple[int, int, bool]) -> None:
        position, ts, flush = mark
        self._seen_marks += 1
        self._next_mark = next(self._marks, None)
        self._handle(self._emitter.flush(position) if flush else self._emitter.mark(ts, position))

    def _mark(self) -> None:
        """Close by wall time what is due, after reading every row appended before that time."""
        position, ts = self._stream.mark()
        assert self._reader is not None
        while not self._ending and self._reader.offset < position:
            chunk = self._reader.poll_until(position)
            if chunk is None:
                break
            self._push(chunk)
        now = max(ts, self._clock.now_ns()) if self._emitter.position == position else ts
        due = self._emitter.deadline(now)
        if self._ending or due is None or due > now:
            return
        windows = self._emitter.mark(now, position)
        if windows:
            self._record(position, now, flush=False)
            self._handle(windows)

    def _flush(self) -> None:
        assert self._reader is not None
        windows = self._emitter.flush(self._reader.offset)
        if windows:
            self._record(self._reader.offset, self._clock.now_ns(), flush=True)
            self._handle(windows)

    # -- the loop

    def _loop(self) -> None:
        limits, reader, emitter = self._limits, self._reader, self._emitter
        assert reader is not None
        last = time.monotonic()
        while not self._ending and not (limits.stop is not None and limits.stop.is_set()):
            if limits.deadline_ns is not None and self._clock.now_ns() >= limits.deadline_ns:
                return
            mark = self._next_mark
            stop = _least(None if mark is None else mark[0], limits.offset)
            chunk = reader.poll() if stop is None else reader.poll_until(stop)
            if chunk is not None:
                last = time.monotonic()
                self._push(chunk)
            elif mark is not None and reader.offset >= mark[0]:
                self._replay_mark(mark)
                continue
            elif limits.offset is not None and reader.offset >= limits.offset:
                return
            if mark is None:
                now = self._clock.now_ns()
                due = emitter.deadline(now)
                if due is not None and due <= now:
                    self._mark()
                    continue
            else:
                due = None
            if chunk is None:
                if not limits.blocking:
                    return
                left = 0.1
                if limits.timeout is not None:
                    left = min(left, limits.timeout - (time.monotonic() - last))
                    if left <= 0:
                        return
                if due is not None:
                    left = min(left, max(0.0, (due - self._clock.now_ns()) / 1e9))
                self._stream.wait(reader.offset, left)
            if time.monotonic() - self._saved_at > SNAPSHOT_S and not self._is_behind:
                self._save()

    def _push(self, chunk: Chunk) -> None:
        early = self._limits.max_windows is not None or self._limits.test is not None
        before = self._snapshot() if early else None
        windows = self._emitter.push(chunk)
        self._rows += len(chunk)
        self._side()
        self._handle(windows)
        if self._is_behind and before is not None:
            self._group.save_state(before)  # so that the next run need not begin further back

    def _handle(self, windows: list[Window]) -> None:
        """Hand out windows in order; those from `_ahead_at` on are not done, whatever ends this."""
        limits, commit = self._limits, self._group.commit
        self._ahead, self._ahead_at, self._ahead_low = windows, 0, None
        for number, window in enumerate(windows):
            self._ahead_at = number
            place = (window.position, window.index)
            if place <= self._done:
                self._skipped += 1
                continue
            if self._ending or (limits.stop is not None and limits.stop.is_set()):
                self._ending = True
                return
            self._one(window)
            self._ahead_at = number + 1
            self._done = place
            now = time.monotonic()
            if now - self._low_at > 0.1:
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
        attempts = 0
        while True:
            attempts += 1
            try:
                result = _passed(window) if self._fn is None else self._fn(window)
                self._put(window, result)
            except Exception as error:
                if attempts <= self._retries:
                    self._retried += 1
                    continue
                self._failed(window, error, attempts)
            return

    def _put(self, window: Window, result: Any) -> None:
        if result is None or self._into is None:
            return
        appended = self._into.append(result, origin=(self._who, window.position, window.index))
        self._results += len(appended)

    def _failed(self, window: Window, error: Exception, attempts: int) -> None:
        if isinstance(error, StorageError | UnknownStream):
            raise error  # not the function's fault: stop, uncommitted
        offsets = window.offsets
        first, stop = (int(offsets[0]), int(offsets[-1]) + 1) if len(offsets) else (window.position, window.position)
        if self._on_error == "stop":
            raise ConsumerFailed(
                f"the consumer's function raised {type(error).__name__}: {error}",
                where=f"on offsets {first} to {stop} of stream {self._stream.name!r}, group {self._group_name!r}",
                hint='the window is not committed; mend it and run again, or use on_error="skip"',
                offsets=offsets,
            ) from error
        row = {
            "stream": self._stream.name,
            "consumer": self._group_name,
            "first_offset": first,
            "next_offset": stop,
            "key": None if window.key is None else str(window.key),
            "error": type(error).__name__,
            "message": str(error).encode("utf-8", "replace").decode(),
            "detail": "".join(traceback.format_exception(error)).encode("utf-8", "replace").decode()[-20_000:],
            "attempts": attempts,
        }
        stream = self._open_stream(f"{self._stream.name}.errors", schema=ERRORS)
        stream.append([row], origin=(self._who, window.position, window.index))
        self._errors += 1

    def _side(self) -> None:
        """Late rows of late="side" to `<stream>.late`, each once."""
        for rows in self._emitter.take_late():
            keep = rows.offsets >= self._late_done
            batch = rows.batch.filter(pa.array(keep)) if not keep.all() else rows.batch
            if batch.num_rows:
                late = self._open_stream(f"{self._stream.name}.late", schema=self._stream.schema)
                late.append(batch, origin=(self._who, int(rows.offsets[-1]) + 1))

    # -- keeping

    def _lowest(self) -> int:
        """Lowest offset that no committed window holds."""
        emitter = self._emitter
        if not emitter.position:
            return self._low
        low = emitter.lowest_open
        low = emitter.position if low is None else low
        if self._ahead_at == len(self._ahead):
            return low
        if self._ahead_low is None:  # for each window, the lowest offset in it and those after it; once for all
            firsts = [int(w.offsets[0]) if len(w) else emitter.position for w in self._ahead]
            self._ahead_low = list(accumulate(reversed(firsts), min))[::-1]
        return min(low, self._ahead_low[self._ahead_at])

    def _position(self) -> Position:
        offset, index = self._done
        return Position(offset, index, self._lowest())

    @property
    def _is_behind(self) -> bool:
        """Whether the emitter has closed windows that are not done: its state must not become the snapshot."""
        return self._ahead_at < len(self._ahead)

    def _snapshot(self) -> bytes:
        assert self._reader is not None
        return msgspec.msgpack.encode(_State(self._emitter.snapshot(), self._reader.offset, self._seen_marks))

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        self._group.save_state(self._snapshot())


def _passed(window: Window) -> Any:
    """A window without a function: the value of its logic, else its rows."""
    return window.table if window._logic is None else window.value


def _least(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)


