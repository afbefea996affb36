"""Bars at work: what happens to the rows of a batch, in which order. `Bars` is this with a face."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.errors import RecordError
from penstock.window.bars.cells import Bar
from penstock.window.bars.input import Reader, Rows
from penstock.window.bars.intervals import Found, Intervals, Which, compact, each
from penstock.window.bars.kernel import Kernel, kernel
from penstock.window.bars.late import Fills, History, empty_bar
from penstock.window.bars.open import OpenBars
from penstock.window.bars.options import Options
from penstock.window.bars.output import Out
from penstock.window.bars.symbols import Symbols
from penstock.window.grid import HIGHEST, LOWEST, Int64

__all__ = ["Core"]

_COUNTS = ("rows", "bars", "filled", "revisions", "late", "dropped", "outside", "missing")


class Core:
    """The state of Bars and its steps."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._shift = int(options.closed == "right")  # (start, end] is [start, end) for times 1 ns earlier
        self._intervals = Intervals(options.grid(), options.lateness)
        self._reader = Reader(price=options.price, size=options.size, time=options.time)
        self._symbols = Symbols(options.by)
        self._open = OpenBars()
        self._history = History(options.revise_for)
        self._fills = Fills(options.fill) if options.fill != "none" else None
        self._clock = LOWEST  # greatest event time so far, less the shift
        self._traded = 0  # no bar has more volume
        self._side: list[pa.RecordBatch] = []
        self._counts = dict.fromkeys(_COUNTS, 0)

    def _take(self, batch: pa.RecordBatch, first: int) -> Out:
        """Take in rows; what they closed and revised."""
        loops = kernel(batch.num_rows)
        rows = self._reader.read(batch, first, loops)
        count = len(rows.time)
        if not count:
            return Out()
        if self._shift:
            rows.time, rows.ordered = rows.time - self._shift, None
        time, use = rows.time, rows.usable
        if rows.ordered is None:
            rows.ordered = not bool((time[1:] < time[:-1]).any())
        ordered = rows.ordered and int(time[0]) >= self._clock
        run = time if ordered else np.maximum(np.maximum.accumulate(time), self._clock)
        missing = 0 if use is None else count - len(use) - rows.revised
        found, which, outside, dropped = None, None, 0, rows.revised
        if use is not None:
            rows = rows.take(use)
        if len(rows.time):
            found, which, inside = self._intervals.of(rows.time, ordered)
            if inside is not None:
                outside = len(rows.time) - len(inside)
                use = inside if use is None else use[inside]
                rows = rows.take(inside)
        traded = self._bound(rows, first)
        symbol = self._symbols.encode(batch, first, loops)
        if use is not None:
            symbol = symbol[use]
        self._check_fills(int(run[-1]), found, which, symbol)
        # Up to here symbols may have got their numbers; nothing else has changed. From here on nothing fails.
        self._reader.keep()
        self._traded = traded
        self._count(rows=count, missing=missing, outside=outside, dropped=dropped)
        out = Out(run)
        if found is not None and len(rows.time):
            late = None
            if not ordered:
                number = each(which)
                due = found[2] if number is None else found[2][number]
                late = np.flatnonzero(due <= (run if use is None else run[use]))
            if late is not None and len(late):
                self._take_late(batch, rows, found, which, symbol, use, late, out, loops)
            else:
                self._fold(found, which, symbol, rows, ordered, loops)
        self._close(int(run[-1]), out, loops)
        self._clock = int(run[-1])
        self._history.forget(self._clock)
        return out

    def _advance(self, clock: int) -> Out:
        """Event time has come to `clock`."""
        self._check_fills(clock)
        out = Out()
        self._close(clock, out)
        self._clock = clock
        self._history.forget(clock)
        return out

    def _count(self, **more: int) -> None:
        for name, count in more.items():
            self._counts[name] += count

    def _bound(self, rows: Rows, first: int) -> int:
        """A volume no bar exceeds once these rows are in; RecordError when int64 could not hold it."""
        if rows.volume is None or rows.volume.dtype != np.int64 or not len(rows.volume):
            return self._traded
        more = (int(rows.volume.max()) if rows.most is None else rows.most) * len(rows.volume)
        if more + self._traded > HIGHEST:
            # The bound is that of all rows so far; look at the bars that are left.
            more = sum(rows.volume.tolist())
            bars = [self._open.peek(), *self._history.closed, *(bar for bar, _ in self._history.revised.values())]
            self._traded = max((int(bar.cells.volume.max(initial=0)) for bar in bars), default=0)
            if more + self._traded > HIGHEST:
                raise RecordError(
                    expected="volumes within int64",
                    got=f"{more} in one batch, on bars of up to {self._traded}",
                    where=f"in the batch at row {first}",
                    hint="give sizes as float64, or in larger units",
                )
        return more + self._traded

    def _check_fills(self, clock: int, found: Found | None = None, which: Which = None, symbol: Any = None) -> None:
        """WindowError when filling up to `clock` would fill the memory; found, which, symbol: the rows coming in."""
        if self._fills is None:
            return
        coming = found is not None and len(found[0]) > 0

        def bars() -> tuple[NDArray[np.intp], Int64]:
            waiting = self._open.peek()
            if not coming or found is None:
                return waiting.symbol, waiting.start
            number = each(which)
            starts = found[0][number] if number is not None else np.full(len(symbol), found[0][0])
            return np.concatenate([waiting.symbol, symbol]), np.concatenate([waiting.start, starts])

        firsts = [int(self._open.starts[0])] if len(self._open.starts) else []
        if coming and found is not None:
            firsts.append(int(found[0][0]))
        self._fills.check(self._intervals, clock, len(self._symbols), min(firsts, default=None), bars)

    def _fold(
        self,
        found: Found,
        which: Which,
        symbol: NDArray[np.intp],
        rows: Rows,
        ordered: bool,
        loops: Kernel | None,
    ) -> None:
        if len(rows.time):
            self._open.add(found, which, symbol, len(self._symbols), rows, ordered, self._reader.volume, loops)

    def _take_late(
        self,
        batch: Any,
        rows: Rows,
        found: Found,
        which: Any,
        symbol: NDArray[np.intp],
        use: Any,
        late: NDArray[np.intp],
        out: Out,
        loops: Kernel | None,
    ) -> None:
        """Fold the rows in time, then treat the late ones as asked."""
        good = np.ones(len(rows.time), bool)
        good[late] = False
        used, whose = compact(found, None if which is None else which[good])
        self._fold(used, whose, symbol[good], rows.take(good), False, loops)
        self._count(late=len(late))
        position = late if use is None else use[late]
        if self.options.late != "revise":
            if self.options.late == "drop":
                self._count(dropped=len(late))
            else:
                self._side.append(_some(batch, position.tolist()))
            return
        assert out.run is not None
        for row, at in zip(late.tolist(), position.tolist(), strict=True):
            clock = int(out.run[at])
            self._close(clock, out)
            i = 0 if which is None else int(which[row])
            start, end, due = (int(column[i]) for column in found)
            if clock - due >= self._history.keep_ns:
                self._count(dropped=1)
                continue
            one = int(symbol[row])
            filled = self._fills is not None and self._fills.was_filled(start, one)
            new = empty_bar(one, start, end, due, self._reader.volume)
            bar, revision = self._history.revise(new, rows.take(np.array([row])), filled)
            if self._fills:
                self._fills.revised(bar, self._intervals, clock)
            self._count(revisions=int(revision > 0), bars=int(revision == 0))
            out.add(bar, revision, at)

    def _close(self, clock: int, out: Out, loops: Kernel | None = None) -> None:
        """Close what is due at `clock`."""
        dues = self._open.dues
        if len(dues) and int(dues[0]) <= clock:
            bars = self._open.close(clock, loops)
            if self.options.late == "revise":
                self._history.add(bars)
        elif self._fills:
            bars = Bar.join([], self._reader.volume)
        else:
            return
        if not self._fills:
            self._count(bars=len(bars))
            out.add(bars, 0)
            return
        self._fills.widen(len(self._symbols))
        made = 0
        for part in self._fills.fill(bars, self._intervals, clock, len(self._symbols)):
            made += len(part)
            out.add(part, 0)
        self._count(bars=made, filled=made - len(bars))


def _some(batch: pa.RecordBatch, rows: list[int]) -> pa.RecordBatch:
    """Some rows of a batch, as they came."""
    try:
        return batch.take(pa.array(rows, pa.int64()))
    except pa.ArrowNotImplementedError:
        # pyarrow cannot take from view types; late rows are few.
        parts = pa.Table.from_batches([batch.slice(row, 1) for row in rows])
        return parts.combine_chunks().to_batches()[0]
