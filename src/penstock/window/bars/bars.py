"""Bars: trades, quotes or smaller bars in, open-high-low-close-volume per symbol and interval out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from penstock.errors import PenstockWarning, TypeMismatch, UsageError
from penstock.records import BARS
from penstock.window.bars import snapshot as snapshots
from penstock.window.bars.core import Core
from penstock.window.bars.options import Options
from penstock.window.bars.output import Out, frame_of, no_rows, record_batch
from penstock.window.grid import HIGHEST, LOWEST, Int64
from penstock.window.sessions import Sessions

__all__ = ["Bars", "BarsStatistics"]

_PART = 1 << 16  # rows that stay in the cache between the passes over them


@dataclass(frozen=True, slots=True)
class BarsStatistics:
    """Rows in, bars out, and what became of the rest, since the start.

    `bars` counts first issues, `filled` those of them without a trade, `revisions` the re-issues. Of the rows, `late`
    came after their bar was closed, `dropped` were late and not used (or revisions of smaller bars), `outside` lay in
    no session, `missing` had no price or size. `open`, `symbols` and `watermark_ns` (None before the first row) are
    as of now.
    """

    rows: int
    bars: int
    filled: int
    revisions: int
    late: int
    dropped: int
    outside: int
    missing: int
    open: int
    symbols: int
    watermark_ns: int | None


class Bars(Core):
    """Bars of one interval, from trades, quotes or smaller bars of many symbols, as rows come.

    Takes   interval: length of a bar (seconds, timedelta, text such as "1m"); by: the symbol column (strings or
            integers, dictionaries too); time: the event time column; price, size: columns of a trade. Without a
            column `price`, rows are smaller bars when they have open, high, low, close and volume, and quotes with
            price="mid" and columns bid_px, ask_px. size=None: prices without sizes.
            lateness: how long a bar stays open for rows that come out of order.
            late: what to do with rows that come after that; revise_for: for how long a closed bar can be revised
            (event time after it was due; 10 intervals when not given).
            fill: bars for intervals without a trade. label: what ts_event is, the start of the bar or its end.
            sessions, or tz and origin: where intervals lie (see Sessions, Grid). closed: "right" for (start, end].

    What happens, exactly:

    Time     An interval is [start, end). The watermark is the greatest event time of any row so far, of all symbols,
             minus `lateness`; no clock is read. Every row with a time moves it, also one without price or outside
             all sessions, and so does `advance`. A bar closes when the watermark reaches its end; an idle symbol's
             bar closes with the others. A row is late when its interval is over for the watermark at that row. Where a
             row at the very end still belongs to the interval (closed="right", a closing print), all that is 1 ns
             later.
    Values   Open is the price of the earliest row, of equal times the first to arrive; close that of the latest, of
             equal times the last to arrive; high and low the extremes; volume, amount (price x size) and trade_count
             sums in order of arrival; vwap amount / volume, null without volume. A size of 0 is a trade without
             volume. Rows whose price or size is null, NaN or infinite are left out and counted; a negative size is
             an error. Quotes have volume 0 and count in trade_count. Smaller bars give exactly the bars of their
             trades (open, high, low, close, volume, trade_count; amounts are sums of sums); those with trade_count 0
             are left out, as are revisions (counted as dropped); without amount and vwap, amount is null.
    Late     "revise" gives the bar again with revision + 1, once per late row, with all values as if the row had
             been in time; where no bar was given for the interval, the row makes one, of revision 0. "drop" leaves
             the row out. "side" keeps it for `late_rows`.
    Filling  From its first bar on a symbol has a bar for every interval (of the sessions, if any) that closes:
             "previous" with all prices the close before, as revised by then, "nan" with NaN, volume and trade_count
             0. Fills once given are not revised by a late row in an earlier interval. `drop_symbols` ends it.
    Order    Bars come in order of the row that caused them, then of their end, then of when their symbol was first
             seen. Cutting the input into other batches changes no bit of any bar.

        bars = Bars("1m", lateness="2s", sessions=Sessions("09:30-16:00", tz="America/New_York"))
        for chunk in stream.chunks(follow=True):
            done = bars.update(chunk.batch, chunk.first)

    State   One cell of 72 bytes per open bar, closed bars for `revise_for`, one entry per symbol seen.
    Raises  WindowError, UsageError for parameters that cannot work.
    """

    def __init__(
        self,
        interval: Any,
        *,
        by: str = "symbol",
        price: str = "price",
        size: str | None = "size",
        time: str = "ts_event",
        lateness: Any = 0,
        late: Literal["revise", "drop", "side"] = "revise",
        revise_for: Any = None,
        label: Literal["start", "end"] = "start",
        fill: Literal["none", "previous", "nan"] = "none",
        sessions: Sessions | None = None,
        tz: str | None = None,
        origin: Any = 0,
        closed: Literal["left", "right"] = "left",
    ) -> None:
        self._begin(
            Options.of(
                interval=interval,
                by=by,
                price=price,
                size=size,
                time=time,
                lateness=lateness,
                late=late,
                revise_for=revise_for,
                label=label,
                fill=fill,
                sessions=sessions,
                tz=tz,
                origin=origin,
                closed=closed,
            )
        )

    def _begin(self, options: Options) -> None:
        Core.__init__(self, options)
        self._nothing = no_rows(self.schema)
        self.positions: Int64 = np.empty(0, np.int64)

    @property
    def size_ns(self) -> int:
        return self.options.interval

    @property
    def lateness_ns(self) -> int:
        return self.options.lateness

    @property
    def late(self) -> str:
        return self.options.late

    @property
    def parameters(self) -> dict[str, Any]:
        """Plain values of what this Bars was made with."""
        return self.options.shown()

    @property
    def any_open(self) -> bool:
        """Whether a bar is unfinished; in no time."""
        return bool(len(self._open.starts))

    @property
    def next_due(self) -> int | None:
        """The event time at which `advance` gives the next bar, made or filled; None when there is none to come."""
        dues = [int(self._open.dues[0])] if self.any_open else []
        if self._fills and (due := self._fills.next_due(self._intervals)) is not None:
            dues.append(due)
        return min(dues) + self._shift if dues else None

    @property
    def schema(self) -> pa.Schema:
        """records.BARS; `symbol` is of the integer type when symbols are integers, `volume` float64 when sizes are."""
        schema = BARS
        if self._symbols.type != pa.string():
            at = schema.get_field_index("symbol")
            schema = schema.set(at, schema.field(at).with_type(self._symbols.type))
        if self._reader.volume == "float64":
            at = schema.get_field_index("volume")
            schema = schema.set(at, schema.field(at).with_type(pa.float64()))
        return schema

    def update(self, batch: pa.RecordBatch, first: int = 0) -> pa.RecordBatch:
        """Take in rows; returns the bars they closed and revised, in emission order.

        Takes   batch: n rows with the columns named above; first: number of row 0 in its stream, for messages.
        Returns bars of `schema`. `positions` then holds, for each of them, the row of the batch that caused it.
        Cost    3 ns per row with dictionary or integer symbols, 8 ns with strings, plus 30 us per batch and, where
                bars close, 60 us and 60 ns per bar. Without llvmlite 17 to 26 ns per row.
        Raises  RecordError, TypeMismatch, SchemaMismatch, WindowError for rows that cannot be used; no bar has
                changed then.
        """
        if not isinstance(batch, pa.RecordBatch):
            raise TypeMismatch(
                expected="a pyarrow.RecordBatch",
                got=type(batch).__name__,
                where="in Bars.update",
                hint="Bars.batch takes whole frames; penstock.records.to_batches makes batches",
            )
        return self._give(self._take(batch, first))

    def advance(self, ts_ns: int) -> pa.RecordBatch:
        """Close what is due when event time has come to `ts_ns`, as a row of that time would say; never goes back."""
        if isinstance(ts_ns, bool) or not isinstance(ts_ns, int | np.integer) or not LOWEST < ts_ns <= HIGHEST:
            raise UsageError(
                expected="a time as an int of ns since 1970",
                got=repr(ts_ns),
                where="in Bars.advance",
                hint="penstock.clock.time_ns makes one",
            )
        return self._give(self._advance(max(self._clock, int(ts_ns) - self._shift)))

    def flush(self) -> pa.RecordBatch:
        """Close every open bar, as if event time had come to where the last one is due; later rows may be late then."""
        dues = self._open.dues
        return self._give(self._advance(max(self._clock, int(dues[-1])) if len(dues) else self._clock))

    def batch(self, frame: Any) -> Any:
        """The bars of a whole frame, all closed: a Bars of the same parameters takes it in and is flushed.

        Takes   frame: pyarrow RecordBatch or Table, polars or pandas frame, or what exports an Arrow stream. Its rows
                are in order of arrival: one that is sorted by symbol first has nearly all its rows late.
        Returns the same kind of frame. This Bars is not touched.
        """
        fresh = Bars.__new__(Bars)
        fresh._begin(self.options)
        table, back = frame_of(frame)
        done = [fresh.update(part) for part in table.to_batches(max_chunksize=_PART)]
        done.append(fresh.flush())
        counts = fresh._counts
        if counts["late"] * 2 > counts["rows"]:
            warnings.warn(
                f"{counts['late']} of {counts['rows']} rows are late - in Bars.batch; sort the frame by time, or "
                "give lateness=",
                PenstockWarning,
                stacklevel=2,
            )
        return back(pa.Table.from_batches(done, fresh.schema))

    def open_bars(self) -> pa.Table:
        """The unfinished bars, ascending by (start, symbol as first seen), as they stand."""
        out = Out()
        out.add(self._open.peek(), 0)
        return pa.Table.from_batches([self._rows(out)])

    def late_rows(self) -> list[pa.RecordBatch]:
        """Rows set aside by late="side" since the last call, as they came."""
        rows, self._side = self._side, []
        return rows

    def drop_symbols(self, symbols: Iterable[Any]) -> None:
        """Stop filling these symbols until they trade again. Unknown ones are passed over."""
        if self._fills:
            numbers = [self._symbols.find(symbol) for symbol in symbols]
            self._fills.drop([number for number in numbers if number is not None])

    def statistics(self) -> BarsStatistics:
        watermark = None
        if self._clock != LOWEST:
            watermark = max(LOWEST, self._clock + self._shift - self.options.lateness)
        return BarsStatistics(**self._counts, open=len(self._open), symbols=len(self._symbols), watermark_ns=watermark)

    def snapshot(self) -> bytes:
        """Everything needed to go on from here with the same bits: open bars, what late rows may revise, fills, late
        rows not yet drained, counts, symbols. Parameters are in it, to be compared by `restore`.
        """
        return snapshots.save(self)

    def restore(self, data: bytes) -> None:
        """Go on from a snapshot; what this Bars held is gone.

        Raises  WindowError for a snapshot of other parameters (the message names both) or for bytes that are none.
        """
        snapshots.load(self, data)

    def _rows(self, out: Out) -> pa.RecordBatch:
        if not out.parts:
            if self._nothing.schema != self.schema:
                self._nothing = no_rows(self.schema)
            return self._nothing
        return record_batch(
            out,
            self._symbols,
            self.schema,
            at_end=self.options.label == "end",
            no_amount=self._reader.kind == "bars",
        )

    def _give(self, out: Out) -> pa.RecordBatch:
        self.positions = out.positions()
        return self._rows(out)
