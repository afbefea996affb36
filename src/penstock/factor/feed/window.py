"""Factors as windows: the emitter that a feed runs, and that `streams.get(…, lazy=True, emitter=…)` takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from penstock.clock import duration_ns
from penstock.errors import FactorError, WindowError
from penstock.factor.feed.memory import Fetch
from penstock.factor.feed.moving import Symbol
from penstock.factor.feed.ticks import Ticks
from penstock.window import Emitter, EventClock, Window

if TYPE_CHECKING:
    from penstock.factor.program import Program

__all__ = ["FactorWindow"]


class FactorWindow(Emitter):
    """Windows whose rows are factors: a window per tick, and in it a row per symbol that had one.

    Takes   program: what is computed; symbols: the universe, None for the symbols that show up; symbol, time: columns
            (time: default the stream's event column);
            lateness: how far rows may come behind the latest one; idle: complete a tick by wall time when no row came
            for that long; late: "drop" (counted, the default) or "side" (handed out by `take_late`);
            every: the time between ticks; ticks that are absent are then computed too, without any row;
            rows: "present", a row of factors for each symbol with a row in the tick, in the order of those; or "all",
            a row for each symbol of the universe;
            forget: ticks without a row after which a symbol leaves; at least `program.warmup`.
    Of a window, `start` and `end` are the tick's time, `offsets` and `created` those of the rows it was made from (with
    rows="all" of the first and the last of them). The state is in the snapshot. A snapshot of another program is taken
    over: see `penstock.factor.feed.moving`.
    Raises  FactorError, WindowError for options that cannot be.
    """

    def __init__(
        self,
        program: Program,
        *,
        symbols: Sequence[Symbol] | None = None,
        symbol: str = "symbol",
        time: str | None = None,
        lateness: Any = None,
        idle: Any = None,
        late: str = "drop",
        every: Any = None,
        rows: str = "present",
        forget: int | None = None,
    ) -> None:
        where = "in FactorWindow"
        if late not in ("drop", "side"):
            raise FactorError(expected='late "drop" or "side"', got=repr(late), where=where)
        if rows not in ("present", "all"):
            raise FactorError(expected='rows "present" or "all"', got=repr(rows), where=where)
        if not program.inputs:
            raise FactorError("the program has no inputs, and so nothing to follow", where=where)
        if forget is not None and symbols is not None:
            raise FactorError(
                "symbols and forget are both given", where=where, hint="a universe that was named does not change"
            )
        if forget is not None and (type(forget) is not int or forget < max(1, program.warmup)):
            raise FactorError(
                expected=f"forget of at least {max(1, program.warmup)} ticks, the program's warmup",
                got=repr(forget),
                where=where,
                hint="a symbol that came back sooner would miss what it had",
            )
        step = None if every is None else duration_ns(every, name="every")
        if step == 0:
            raise FactorError(expected="every above 0", got=repr(every), where=where)
        clock = EventClock(time, lateness or 0, idle)
        self._ticks = Ticks(program, symbols, symbol, time, step, rows, forget, clock.lateness_ns)
        super().__init__(self._ticks, time=clock, late=late)
        self._idle_ns = clock.idle_ns

    @property
    def ticks(self) -> Ticks:
        """What makes them, and its counters."""
        return self._ticks

    @property
    def late(self) -> int:
        """Rows whose tick was complete when they came."""
        return self._late

    @property
    def schema(self) -> pa.Schema:
        """Of the rows of factors; known once `bind` has seen the schema of the bars."""
        return self._ticks.bars.schema

    def bind(self, schema: pa.Schema) -> None:
        """Check the columns the program needs against a stream's schema.   Raises  FactorError."""
        self._ticks.bind(schema)
        super().bind(schema)

    def deadline(self, now_ns: int) -> int | None:
        """As of every emitter: when `idle` completes the ticks that wait."""
        if self._idle_ns is None or not len(self._ticks.held):
            return None
        return max(self._last_created + self._idle_ns, now_ns)

    def mark(self, ts_ns: int, position: int) -> list[Window]:
        """Complete the ticks that wait.

        Unlike a mark of other windows it does not move the watermark to wall time: bars bear the time at which they
        began, and the next ones would be late.
        """
        self._at(position, "mark")
        return self._windows_of(self._ticks.advance(self._watermark, position), ts_ns)

    def restore(self, snapshot: bytes, fetch: Fetch) -> None:
        """Become the emitter that made the snapshot, as every emitter does; also that of another program."""
        try:
            super().restore(snapshot, fetch)
            self._ticks.wake(fetch, self._position)
        except FactorError as error:
            raise WindowError(problem=str(error), where="in FactorWindow.restore") from error

    def _extra(self) -> bytes | None:
        return self._ticks.extra()

    def _load_extra(self, extra: bytes | None) -> None:
        assert extra is not None
        self._ticks.load_extra(extra)

    def _compact(self) -> None:
        self._held, self._check = 0, 1 << 62  # no batch is held: what waits is numbers
