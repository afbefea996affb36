"""Bars as an emitter: rows in, windows of closed bars out, with the positions, marks and snapshots of all windows."""

from __future__ import annotations

from collections import deque
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.errors import WindowError
from penstock.window.bars.bars import Bars
from penstock.window.clocks import EventClock
from penstock.window.emitter import Emitter, EmitterStatistics
from penstock.window.grid import DAY_NS, LOWEST
from penstock.window.logic import Logic
from penstock.window.pending import Group, Int64, Rows, runs
from penstock.window.pick import Closed, Pick

__all__ = ["BarWindow"]

_ROW = "penstock.row"


class BarWindow(Emitter):
    """Windows whose rows are bars: those that one row, or one mark, closed or revised, in the order of `Bars`.

    Takes   bars: a Bars, or its interval and then its options (by, price, size, lateness, late, fill, sessions, …);
            idle: when no row came for that long, bars are closed by wall time (duration; None: by rows alone).
    Of its windows, `table` has the schema of the bars; `start` is their first ts_event and `end` their last ts_close;
    `offsets` is, for each bar, the last row seen when it closed, and `created` when that row was appended, or the time
    of the mark. Rows of late="side" come from `take_late`. The state is in the snapshot, no rows are read again.
    """

    def __init__(self, bars: Any, *, idle: Any = None, logic: Logic | None = None, **options: Any) -> None:
        if not isinstance(bars, Bars):
            bars = Bars(bars, **options)
        elif options:
            raise WindowError(
                expected="the options within Bars", got=", ".join(sorted(options)), where="in BarWindow",
                hint="give either a Bars, or its interval and options",
            )  # fmt: skip
        self._bars: Bars = bars
        clock = EventClock(bars.parameters["time"], f"{bars.lateness_ns}ns", idle)
        late = "side" if bars.late == "side" else "drop"
        super().__init__(_BarMaker(bars), time=clock, late=late, logic=logic)

    def statistics(self) -> EmitterStatistics:
        """As of every emitter; `late` also counts rows that made a revision, `open_rows` is 0."""
        counted, bars = super().statistics(), self._bars.statistics()
        return EmitterStatistics(counted.rows, counted.windows, bars.late, bars.open, 0, counted.watermark_ns)

    @property
    def lowest_open(self) -> int | None:
        """Offset of a row before which none lies in an open bar; None when none is open."""
        windower = self._windower
        assert isinstance(windower, _BarMaker)
        return windower.since

    def _extra(self) -> bytes | None:
        return self._bars.snapshot()

    def _load_extra(self, extra: bytes | None) -> None:
        if extra is not None:
            self._bars.restore(extra)


class _BarMaker:
    """The windower behind BarWindow."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        # the longest a bar can be; by local days and sessions the hour of a clock change comes to it
        self._longest = bars.size_ns + (DAY_NS // 12 if bars.size_ns >= DAY_NS else 0)
        self._step = max(1, self._longest // 16)
        self._latest = LOWEST
        # (latest event time of all rows so far, in steps; offset of the first row with it): both grow
        self._came: deque[tuple[int, int]] = deque()

    @property
    def since(self) -> int | None:
        """Offset of a row before which none lies in an open bar; None when none is open. However rows are cut."""
        due = self._bars.next_due
        if due is None or not self._bars.any_open:
            return None
        begin = (due - self._bars.lateness_ns - self._longest - 1) // self._step
        while self._came[0][0] < begin:
            self._came.popleft()
        return self._came[0][1]

    def bind(self, schema: pa.Schema) -> None:
        pass

    def feed(
        self, rows: Rows, times: Int64, marks: Int64, before: int, keys: Int64 | None
    ) -> tuple[list[Closed], Int64 | None]:
        first, batch = int(rows.offsets[0]), rows.batch
        if self._bars.late == "side":
            batch = batch.append_column(pa.field(_ROW, pa.int64()), pa.array(np.arange(len(rows))))
        made = self._bars.update(batch, first)
        late: Int64 | None = None
        if self._bars.late == "side" and (side := self._bars.late_rows()):
            late = np.concatenate([some.column(_ROW).to_numpy() for some in side])
        latest = np.maximum(np.maximum.accumulate(times), self._latest)
        steps = latest // self._step
        last = self._came[-1][0] if self._came else int(steps[0]) - 1
        at = np.flatnonzero(np.diff(steps, prepend=last))
        self._came.extend(zip(steps[at].tolist(), rows.offsets[at].tolist(), strict=True))
        self._latest = int(latest[-1])
        if not made.num_rows:
            return [], late
        causes = self._bars.positions
        closed = Rows(made, rows.offsets[causes], rows.created[causes])
        return self._windows(closed, (closed.offsets + 1)), late

    def _windows(self, rows: Rows, positions: Int64) -> list[Closed]:
        """A window for each position."""
        pick = Pick([rows], None, None)
        lows, highs = runs(positions)
        starts = np.minimum.reduceat(rows.batch.column("ts_event").to_numpy(), lows).tolist()
        ends = np.maximum.reduceat(rows.batch.column("ts_close").to_numpy(), lows).tolist()
        return [
            (position, end, 0, start, pick, low, high, 0)
            for position, end, start, low, high in zip(positions[lows].tolist(), ends, starts, lows, highs, strict=True)
        ]

    def advance(self, watermark: int, position: int) -> list[Closed]:
        return self._at(self._bars.advance(watermark + self._bars.lateness_ns), position, watermark)

    def flush(self, position: int) -> list[Closed]:
        return self._at(self._bars.flush(), position, self._bars.statistics().watermark_ns or 0)

    def _at(self, made: pa.RecordBatch, position: int, watermark: int) -> list[Closed]:
        if not self._bars.any_open:
            self._came.clear()
        count = made.num_rows
        if not count:
            return []
        offsets = np.full(count, position - 1)
        rows = Rows(made, offsets, np.full(count, watermark + self._bars.lateness_ns))
        return self._windows(rows, offsets + 1)

    def next_end(self) -> int | None:
        """The watermark at which the next bar is due, of those that are open or are filled."""
        due = self._bars.next_due
        return None if due is None else due - self._bars.lateness_ns

    def open_windows(self) -> int:
        return self._bars.statistics().open

    def save(self) -> list[Group]:
        return [([self._latest, *chain.from_iterable(self._came)], [])]

    def load(self, groups: list[Group]) -> None:
        (self._latest, *came), _ = groups[0]
        self._came = deque(zip(came[::2], came[1::2], strict=True))

    def parameters(self) -> dict[str, Any]:
        return {"bars": self._bars.parameters}
