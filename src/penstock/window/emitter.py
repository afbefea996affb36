"""The emitter: a clock, a windower and a logic behind one interface, with positions, numbers and snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from penstock.clock import duration_ns
from penstock.errors import WindowError
from penstock.window.clocks import NEVER, AppendClock, Clock, choose_clock, choose_given
from penstock.window.keys import Keys
from penstock.window.logic import Logic
from penstock.window.pending import Found, Int64, Rows, offsets_of
from penstock.window.pick import Closed
from penstock.window.state import State, pack, ranges, unpack
from penstock.window.window import Window
from penstock.window.windowers import Windower

if TYPE_CHECKING:
    from penstock.log.chunk import Chunk

__all__ = ["Emitter", "EmitterStatistics"]

LATE = ("drop", "emit", "side")
_COMPACT = 1 << 18  # rows held in memory below which nobody looks whether all of them are still needed


@dataclass(frozen=True, slots=True)
class EmitterStatistics:
    """What an emitter has done and what it holds. `watermark_ns` is None before the first row."""

    rows: int
    windows: int
    late: int
    open_windows: int
    open_rows: int
    watermark_ns: int | None


class Emitter:
    """Decides when windows are ready. Windows are a function of the rows and the marks, however rows are cut.

    Takes   windower: what closes windows; by: column whose values get windows of their own; time, lateness, idle:
            the clock (see `choose_clock`), or a clock as `time`; late: what becomes of rows whose window is closed:
            "drop" (counted, the default), "emit" (a window of that row alone, `.late` 1), "side" (handed out by
            `take_late`); logic: what `window.value` is.

    A row is late for a window when the window's end <= the watermark at that row, the row itself included. Rows of one
    call of `push` are one chunk of a stream, ascending; chunks follow each other. Windows come in the order (position,
    end, first appearance of the key), and (position, index) grows strictly.
    """

    def __init__(
        self,
        windower: Windower,
        *,
        by: str | None = None,
        time: Any = None,
        lateness: Any = None,
        idle: Any = None,
        late: str = "drop",
        logic: Logic | None = None,
    ) -> None:
        if late not in LATE:
            raise WindowError(expected="late to be 'drop', 'emit' or 'side'", got=repr(late), where=f"in {self._name}")
        if logic is not None and not callable(logic):
            raise WindowError(expected="a function of a window as logic", got=repr(logic), where=f"in {self._name}")
        self._windower = windower
        self._keys = None if by is None else Keys(by)
        self._time = (time, lateness, idle)
        # A clock that was given counts marks before any row; one that is chosen needs the schema first.
        self._given: Clock | None = (
            None if time is None or isinstance(time, str) else choose_given(time, lateness, idle)
        )
        self._clock = self._given
        self._policy = late
        self._logic = logic
        self._schema: pa.Schema | None = None
        self._position = 0
        self._watermark = NEVER
        self._last_created = 0
        self._emitted = (-1, -1)
        self._rows = self._windows = self._late = 0
        self._side: list[Rows] = []
        self._held, self._check = 0, _COMPACT

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def position(self) -> int:
        """Offset after the last row seen."""
        return self._position

    def bind(self, schema: pa.Schema) -> None:
        """Check the columns this emitter needs against a stream's schema; WindowError names what is missing.

        `push` does it for the first chunk and whenever the schema changes; calling it before shows mistakes early.
        """
        if self._keys is not None:
            self._keys.bind(schema)
        clock = self._clock or choose_clock(*self._time, schema)
        clock.bind(schema)
        self._windower.bind(schema)
        self._clock, self._schema = clock, schema

    def push(self, chunk: Chunk) -> list[Window]:
        """Take the next rows; returns the windows they closed.

        Raises  WindowError for rows before those already seen, and for null or impossible times; the emitter is then
                as before the call.
        """
        batch = chunk.batch
        count = batch.num_rows
        if not count:
            return []
        first = chunk.first
        if first < self._position:
            raise WindowError(
                expected=f"rows from offset {self._position} on",
                got=f"rows {first} to {first + count - 1}",
                where=f"in {self._name}.push",
                hint="push each row once, in order",
            )
        if self._clock is None or self._schema is None or not batch.schema.equals(self._schema, check_metadata=True):
            self.bind(batch.schema)
        clock: Any = self._clock
        rows = Rows(batch, np.arange(first, first + count), chunk.created)
        times, marks = clock.read(rows, self._watermark)
        known = 0 if self._keys is None else len(self._keys.values)
        try:
            keys = None if self._keys is None else self._keys.encode(rows)
            closed, late = self._windower.feed(rows, times, marks, self._watermark, keys)
        except WindowError as error:
            if self._keys is not None:
                self._keys.load(self._keys.values[:known])
            if getattr(error, "is_beyond", False):  # the time farthest from ours is to blame
                blamed = times.argmax() if -int(times.min()) <= int(times.max()) else times.argmin()
                vars(error)["offset"] = int(rows.offsets[blamed])
            raise
        self._watermark = int(marks[-1])
        self._position = first + count
        self._last_created = int(chunk.created[-1])
        self._rows += count
        if late is not None:
            self._late += len(late)
            if self._policy == "side":
                self._side.append(rows.pick(late))
        self._held += count
        if self._held > self._check:
            self._compact()
        return self._windows_of(closed, None)

    def mark(self, ts_ns: int, position: int) -> list[Window]:
        """Wall time, or a heartbeat, at `ts_ns`, seen after all rows before `position`; returns the windows it closed.

        A mark that closes no window changes nothing (but see MarkClock), so whoever keeps `position` and `mark_ns` of
        the windows can replay them exactly.
        """
        self._at(position, "mark")
        if self._clock is None:
            return []
        wanted = self._clock.mark(ts_ns)
        end = self._windower.next_end()
        if not (self._clock.moves_always or (end is not None and end <= wanted)):
            return []
        self._watermark = max(wanted, self._watermark)
        return self._windows_of(self._windower.advance(self._watermark, position), ts_ns)

    def flush(self, position: int) -> list[Window]:
        """All open windows, as far as they are filled; the watermark stays. Rows that come later open them anew."""
        self._at(position, "flush")
        return self._windows_of(self._windower.flush(position), None)

    def _at(self, position: int, verb: str) -> None:
        if position < self._position:
            raise WindowError(
                expected=f"a position of at least {self._position}, the rows seen",
                got=str(position),
                where=f"in {self._name}.{verb}",
            )

    def deadline(self, now_ns: int) -> int | None:
        """Wall time in ns of the next mark that closes a window if no row comes, at least `now_ns`; None: never."""
        end = self._windower.next_end()
        if end is None or self._clock is None:
            return None
        due = self._clock.due(end, self._last_created)
        return None if due is None else max(due, now_ns)

    def take_late(self) -> list[Rows]:
        """Late rows of late="side" since the last call: pieces with `batch`, `offsets` and `created`, in order."""
        side, self._side = self._side, []
        return side

    @property
    def lowest_open(self) -> int | None:
        """Lowest offset that still lies in an open window; a run without snapshot must start there."""
        firsts = [int(offsets_of(segments)[0]) for _, segments in self._windower.save() if segments]
        return min(firsts, default=None)

    def statistics(self) -> EmitterStatistics:
        held = sum(len(segment.at) for _, segments in self._windower.save() for segment in segments)
        watermark = None if self._watermark == NEVER else self._watermark
        return EmitterStatistics(self._rows, self._windows, self._late, self._windower.open_windows(), held, watermark)

    def parameters(self) -> dict[str, Any]:
        """What makes the windows of this emitter what they are; snapshots of others are refused."""
        time, lateness, _ = self._time
        clock = {"time": time} if self._given is None else self._given.parameters()
        if lateness is not None:
            clock["lateness_ns"] = duration_ns(lateness, name="lateness")
        by = None if self._keys is None else self._keys.by
        return {"emitter": self._name, **self._windower.parameters(), "by": by, "late": self._policy, **clock}

    def snapshot(self) -> bytes:
        """The state: numbers, and offsets of the rows in open windows, not the rows. About 1 us per open window."""
        groups = [(numbers, offsets_of(segments)) for numbers, segments in self._windower.save()]
        groups.append(([], np.concatenate([rows.offsets for rows in self._side] or [np.empty(0, np.int64)])))
        return pack(
            State(
                parameters=self.parameters(),
                clock="" if self._clock is None else str(self._clock.parameters()["time"]),
                schema=None if self._schema is None else self._schema.serialize().to_pybytes(),
                position=self._position,
                watermark=self._watermark,
                last_created=self._last_created,
                emitted=self._emitted,
                counters=(self._rows, self._windows, self._late),
                keys=[] if self._keys is None else self._keys.values,
                groups=groups,
                extra=self._extra(),
            )
        )

    def restore(self, snapshot: bytes, fetch: Callable[[Sequence[range]], Iterable[Chunk]]) -> None:
        """Become the emitter that made the snapshot.

        Takes   snapshot: bytes of `snapshot`; fetch: reads rows of the stream again; gets ranges of offsets, gives
                chunks that cover them (other rows among them do no harm). Not called when nothing is open.
        Raises  WindowError if the snapshot was made with other parameters, is damaged, or needs rows that are gone.
        """
        state = unpack(snapshot, self.parameters())
        self._schema, self._clock = None, self._given
        if self._given is None and state.clock == "append":
            self._clock = AppendClock()  # as it was chosen then, though the schema may have an event column now
        if self._keys is not None:
            self._keys.load(state.keys)
        if state.schema is not None:
            self.bind(pa.ipc.read_schema(pa.py_buffer(state.schema)))
        wanted = np.unique(np.concatenate([offsets for _, offsets in state.groups]))
        chunks = fetch(ranges(wanted)) if len(wanted) else []
        self._load(state.groups, (_rows_of(chunk) for chunk in chunks), wanted)
        self._load_extra(state.extra)
        self._position = state.position
        self._watermark = state.watermark
        self._last_created = state.last_created
        self._emitted = state.emitted
        self._rows, self._windows, self._late = state.counters

    def _extra(self) -> bytes | None:
        """State of an emitter that keeps more than rows."""
        return None

    def _load_extra(self, extra: bytes | None) -> None:
        pass

    def _load(self, groups: list[tuple[list[int], Int64]], rows: Iterable[Rows], wanted: Int64) -> None:
        found = Found(rows, wanted)
        if not found.complete:
            raise WindowError(
                problem=f"rows of open windows are no longer kept: {len(wanted)} from offset {wanted[0]} on are needed",
                where=f"in {self._name}.restore",
                hint="keep rows longer, or start without the snapshot",
            )
        numbers = {} if self._keys is None else {id(rows): self._keys.encode(rows) for rows in found.rows}
        side = found.segments(groups[-1][1], lambda rows: None)
        self._side = [segment.rows.pick(segment.at) for segment in side]
        loaded = [(n, found.segments(offsets, lambda rows: numbers.get(id(rows)))) for n, offsets in groups[:-1]]
        self._windower.load(loaded)
        self._held, self._check = len(wanted), max(_COMPACT, 4 * len(wanted))

    def _compact(self) -> None:
        """Let go of chunks of which only few rows still wait."""
        saved = self._windower.save()
        segments = [segment for _, some in saved for segment in some]
        wanted = np.unique(offsets_of(segments))
        if 2 * len(wanted) < self._held:
            unique = {id(segment.rows): segment.rows for segment in segments}
            side, self._side = self._side, []
            groups = [(numbers, offsets_of(some)) for numbers, some in saved]
            self._load([*groups, ([], np.empty(0, np.int64))], unique.values(), wanted)
            self._side = side
        self._held, self._check = len(wanted), max(_COMPACT, 4 * len(wanted))

    def _windows_of(self, closed: list[Closed], mark: int | None) -> list[Window]:
        if not closed:
            return []
        names: Sequence[Any] = (None,) if self._keys is None else self._keys.values
        logic = self._logic
        last, index = self._emitted
        out = []
        for position, end, key, start, pick, low, high, late in closed:
            if position == last:
                index += 1
            else:
                last, index = position, 0
            out.append(Window(pick, low, high, start, end, names[key], position, index, late, mark, logic))
        self._emitted = (last, index)
        self._windows += len(out)
        return out


def _rows_of(chunk: Chunk) -> Rows:
    return Rows(chunk.batch, np.arange(chunk.first, chunk.first + chunk.batch.num_rows), chunk.created)
