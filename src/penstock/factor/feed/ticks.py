"""From rows to ticks to factors.

A tick is what one time has: a row per symbol at most. It is complete, and computed, when

* a row comes whose time is later (by more than `lateness`, when that is given), or
* every symbol of a fixed universe has its row (without `lateness`, whose point is to wait), or
* nothing came for `idle` of wall time.

A row whose tick is complete is late. Ticks are a function of the rows, and of the recorded moments of `idle`, however
rows are cut; so a replay makes the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from penstock.errors import WindowError
from penstock.factor.feed.held import Bars, Held
from penstock.factor.feed.memory import Fetch, Memory, filled
from penstock.factor.feed.moving import Symbol
from penstock.factor.feed.universe import Universe, UniverseState
from penstock.window.clocks import NEVER
from penstock.window.pending import Group, Int64, Rows, Segment
from penstock.window.pick import Closed, Pick

if TYPE_CHECKING:
    from penstock.factor.live import Live
    from penstock.factor.program import Program

__all__ = ["Replay", "Ticks"]

Replay = Callable[["Program", Sequence[Symbol], int], "tuple[Live, Int64]"]
"""A program run for these symbols over the last ticks, up to this ordinal; per symbol the ordinal of its last row."""

Array = np.ndarray[Any, np.dtype[Any]]

MAX_ABSENT: Final = 1_000_000
"""Absent ticks one row may jump over; more means a wrong time in the data."""

_NOTHING: Final = np.zeros(0, np.int64)
_NO_BATCH: Final = pa.RecordBatch.from_arrays([], names=[])


class _Extra(msgspec.Struct):
    """What a snapshot keeps beside the rows that wait."""

    names: list[Any]
    labels: dict[str, list[Any]]
    universe: UniverseState
    floor: int
    counts: tuple[int, int, int]
    memory: bytes


class Ticks:
    """The windower behind FactorWindow.

    ticks, duplicates, unknown   ticks made, absent ones among them; rows left out because of another one of that
                                 symbol in the tick; rows of symbols that are none of the universe's
    """

    def __init__(
        self,
        program: Program,
        symbols: Sequence[Symbol] | None,
        symbol: str,
        time: str | None,
        every_ns: int | None,
        rows: str,
        forget: int | None,
        lateness_ns: int,
    ) -> None:
        self._options = (program, symbols, symbol, time, every_ns, rows, forget, lateness_ns)
        self.program, self.every_ns, self._all, self._lateness_ns = program, every_ns, rows == "all", lateness_ns
        self.universe = Universe(program, symbols, forget)
        self.bars = Bars(program, symbol, time, self.universe.fixed)
        self.ticks = self.duplicates = self.unknown = 0
        self._floor = NEVER  # time of the last tick
        self.held = self._none()
        self._bound: pa.Schema | None = None
        self._asleep: _Extra | None = None
        self._segments: list[Segment] = []
        self._know()
        self.memory = Memory(self.bars, every_ns, lateness_ns)

    def __deepcopy__(self, memo: object) -> Ticks:
        # Only what was never used is copied: a run begins with a copy of what was configured.
        made = Ticks(*self._options)
        if self._bound is not None:
            made.bind(self._bound)
        return made

    def _know(self) -> None:
        """Number the symbols of a fixed universe, also those that have no row."""
        names = self.bars.keys.values
        there = set(names)
        self.bars.keys.load([*names, *(name for name in self.universe.fixed or () if name not in there)])

    def _none(self) -> Held:
        values = np.zeros((len(self.program.inputs), 0), self.program.dtype)
        return Held(_NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, values)

    def bind(self, schema: pa.Schema) -> None:
        self.bars.bind(schema)
        self._bound = schema

    # -- rows to ticks

    def feed(
        self, rows: Rows, times: Int64, marks: Int64, before: int, keys: Int64 | None
    ) -> tuple[list[Closed], Int64 | None]:
        self._look_for_jumps(rows, marks, before)
        codes = self.bars.codes(rows)
        late = (times < marks) | (times <= self._floor)
        take = ~late
        if self.universe.fixed is not None:
            known = self.universe.columns(self.bars.keys.values)[codes] >= 0
            self.unknown += len(known) - int(known.sum())
            take &= known
            late &= known
        at = np.flatnonzero(take)
        held = self.bars.read(rows, at, times, codes)
        waiting = len(self.held)
        if waiting:
            held = Held.join([self.held, held])
        missed = np.flatnonzero(late)
        full: dict[int, int] = {}
        if self.universe.fixed is not None and not self._lateness_ns:
            full, over = self._full(held)
            if over is not None:
                new = np.flatnonzero(over)
                missed = np.sort(np.concatenate([missed, at[new[new >= waiting] - waiting]]))
                held = held.at(~over)
        held = held.by_time()
        which, lows = _runs(held.times)
        reached = np.searchsorted(marks, which, side="right")
        done = reached < len(marks)
        positions = rows.offsets[np.minimum(reached, len(marks) - 1)] + 1
        for number, time in enumerate(which.tolist()):
            if time in full:
                done[number] = True
                positions[number] = max(full[time], int(rows.offsets[0]))  # it may be full by a smaller universe
        count = int(done.sum())
        low = int(lows[count])
        closed = self._emit(held.at(slice(0, low)), which[:count], positions[:count]) if count else []
        self.held = held.at(slice(low, None)) if count else held
        return closed, missed if len(missed) else None

    def _full(self, held: Held) -> tuple[dict[int, int], Any]:
        """Ticks that have all symbols: time to position; and which rows came after that, None for none.

        Without lateness rows that are not late have ascending times, and at most one tick waits.
        """
        symbols = len(self.universe.symbols)
        which, lows = _runs(held.times)
        full: dict[int, int] = {}
        over: Any = None
        for number in np.flatnonzero(np.diff(lows) >= symbols).tolist():
            low, high = int(lows[number]), int(lows[number + 1])
            _, firsts = np.unique(held.codes[low:high], return_index=True)
            if len(firsts) == symbols:
                last = low + int(firsts.max())
                full[int(which[number])] = int(held.offsets[last]) + 1
                if last + 1 < high:
                    over = np.zeros(len(held), bool) if over is None else over
                    over[last + 1 : high] = True
        return full, over

    def _look_for_jumps(self, rows: Rows, marks: Int64, before: int) -> None:
        if self.every_ns is None:
            return
        start = int(marks[0]) if before == NEVER else before
        far = np.flatnonzero(np.diff(marks.astype(np.float64), prepend=float(start)) > MAX_ABSENT * self.every_ns)
        if len(far):
            row = int(far[0])
            raise WindowError(
                expected=f"a row at most {MAX_ABSENT} ticks after the one before",
                got=f"{(int(marks[row]) - (int(marks[row - 1]) if row else start)) // self.every_ns}",
                where=f"in row {int(rows.offsets[row])}",
                hint="look for a wrong time in the data, or leave every= out",
                offset=int(rows.offsets[row]),
            )

    def advance(self, watermark: int, position: int) -> list[Closed]:
        held, self.held = self.held, self._none()
        if not len(held):
            return []
        which, _ = _runs(held.times)
        return self._emit(held, which, np.full(len(which), position))

    def flush(self, position: int) -> list[Closed]:
        return self.advance(NEVER, position)

    # -- ticks to factors

    def _emit(self, held: Held, which: Int64, positions: Int64) -> list[Closed]:
        """Windows of complete ticks: their rows by time, their times, where each was complete."""
        once = held.once()
        self.duplicates += len(held) - len(once)
        before, self._floor = self._floor, int(which[-1])
        real = np.searchsorted(which, once.times)
        first = np.searchsorted(once.times, which)
        lows = np.minimum.reduceat(once.offsets, first)
        self.memory.note(which, positions, lows)
        number, times = filled(which, self.every_ns, before)
        self.ticks += len(times)
        pieces = self.universe.run(len(times), number[real], once.codes, once.values, self.bars.keys.values)
        if self._all:
            created = np.maximum.reduceat(once.created, first)
            owner = np.searchsorted(number, np.arange(len(times)))  # the tick behind an absent one
            return self._of_all(pieces, times, positions[owner], lows[owner], created[owner])
        values = np.empty((len(self.program.outputs), len(once)), self.program.dtype)
        for start, _, low, high, _, at, blocks in pieces:
            row = number[real[low:high]] - start
            for output, block in zip(values, blocks, strict=True):
                output[low:high] = block[row, at]
        batch = self.bars.table(once.codes, once.times, values)
        pick = Pick([Rows(batch, once.offsets, once.created)], None, None)
        borders = zip(positions.tolist(), which.tolist(), first.tolist(), [*first[1:].tolist(), len(once)], strict=True)
        return [(position, time, 0, time, pick, low, high, 0) for position, time, low, high in borders]

    def _of_all(self, pieces: Any, times: Int64, positions: Int64, lows: Int64, created: Int64) -> list[Closed]:
        """As `_emit`, with a row for each symbol of the universe, also in ticks that are absent."""
        sizes, codes, values = [], [], []
        for start, stop, _, _, columns, _, blocks in pieces:
            sizes += [len(columns)] * (stop - start)
            codes.append(np.tile(columns, stop - start))
            values.append(np.array([block.reshape(-1) for block in blocks], self.program.dtype))
        batch = self.bars.table(np.concatenate(codes), np.repeat(times, sizes), np.concatenate(values, axis=1))
        pick = Pick([Rows(batch, np.repeat(lows, sizes), np.repeat(created, sizes))], None, None)
        highs = list(accumulate(sizes))
        borders = zip(positions.tolist(), times.tolist(), highs, sizes, strict=True)
        return [(position, time, 0, time, pick, high - size, high, 0) for position, time, high, size in borders]

    # -- keeping

    def next_end(self) -> int | None:
        return int(self.held.times[0]) + 1 if len(self.held) else None

    def open_windows(self) -> int:
        return len(_runs(self.held.times)[0])

    def save(self) -> list[Group]:
        held = self.held  # another thread may ask for statistics
        if not len(held):
            return []
        order = np.argsort(held.offsets)
        rows = Rows(_NO_BATCH, held.offsets[order], held.created[order])
        return [([], [Segment(rows, np.arange(len(order)), None)])]

    def load(self, groups: list[Group]) -> None:
        self._segments = [segment for _, segments in groups for segment in segments]

    def extra(self) -> bytes:
        """What a snapshot keeps beside the rows that wait."""
        return msgspec.msgpack.encode(
            _Extra(
                self.bars.keys.values,
                self.bars.labels.saved(),
                self.universe.save(),
                self._floor,
                (self.ticks, self.duplicates, self.unknown),
                self.memory.saved(),
            )
        )

    def load_extra(self, data: bytes) -> None:
        """Take over what `extra` gave; `wake` does the rest."""
        self._asleep = state = msgspec.msgpack.decode(data, type=_Extra)
        self.bars.keys.load(state.names)
        self._know()
        for name, labels in state.labels.items():
            if name in self.bars.labels.codes:
                self.bars.labels.encode(name, labels)
        self._floor = state.floor
        self.ticks, self.duplicates, self.unknown = state.counts
        self.memory.load(state.memory)

    def wake(self, fetch: Fetch, position: int) -> None:
        """Bring the program to where it was; another one, or further symbols, are warmed with the last ticks.

        Takes   fetch: reads rows of the stream again; position: the next row, up to which they are read.
        """
        state, self._asleep = self._asleep, None
        if state is None:
            return
        for segment in self._segments:
            rows = segment.rows.pick(segment.at)
            read = self.bars.read(rows, np.arange(len(rows)), self.bars.times(rows), self.bars.codes(rows))
            self.held = Held.join([self.held, read])
        self._segments = []
        before = set(state.universe.symbols)

        def replay(program: Program, symbols: Sequence[Symbol], ordinal: int) -> tuple[Live, Int64]:
            again = self.memory.again(fetch, self.held, position, symbols, before, ordinal)
            self.held = Held.join([self.held, again.held])
            self.held = self.held.at(np.argsort(self.held.offsets))
            return again.live, again.seen

        self.universe.load(state.universe, self.bars.keys.values, replay)
        if self.universe.fixed is not None and len(self.held):
            known = self.universe.columns(self.bars.keys.values)[self.held.codes] >= 0
            self.held = self.held.at(known)
        self.held = self.held.by_time()

    def parameters(self) -> dict[str, Any]:
        return {"symbol": self.bars.symbol, "column": self.bars.time, "every_ns": self.every_ns}


def _runs(times: Int64) -> tuple[Int64, Int64]:
    """The distinct values of ascending `times`, and where each begins; the length at the end."""
    if not len(times):
        return times, np.zeros(1, np.int64)
    lows = np.concatenate([[0], np.flatnonzero(times[1:] != times[:-1]) + 1])
    return times[lows], np.append(lows, len(times))
