"""From pieces to one numbered sequence of rows: shaped, sorted or checked, as many laps as asked for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.clock import NS, iso
from penstock.connect.shape import Fit, Piece, Shape, time_array
from penstock.connect.times import Times
from penstock.errors import SourceError
from penstock.records.describe import near

__all__ = ["Laps", "timeless"]


@dataclass(frozen=True)
class Laps:
    """Rows of a source, lap after lap.

    Takes   pieces: reads one lap; shape: what its rows become; skip_bad: leave out rows that do not fit, instead of
            stopping before the first; sort: True, "check" or False; loop: laps, None for ever; who: for messages.
    """

    pieces: Callable[[], Iterator[Piece]]
    shape: Shape
    skip_bad: bool
    sort: bool | str
    loop: int | None
    who: str

    def __iter__(self) -> Iterator[Fit]:
        """Every lap, numbered and moved on in time as one sequence."""
        first = last = None
        rows = 0
        for lap in itertools.count() if self.loop is None else range(self.loop):
            span = 0 if first is None or last is None else -(-(last - first + 1) // (60 * NS)) * 60 * NS
            before = lap * rows
            for fit in self.one():
                if lap == 0:
                    rows = fit.stop
                    if fit.times is not None and len(fit.times):
                        low, high = int(fit.times.min()), int(fit.times.max())
                        first = low if first is None else min(first, low)
                        last = high if last is None else max(last, high)
                    yield fit
                else:
                    yield self._moved(fit, before, lap * span)
            if rows == 0:
                return

    def _moved(self, fit: Fit, rows: int, ns: int) -> Fit:
        """A lap's rows, `rows` further and `ns` later: the event time, and every other int64 `ts_*`."""
        batch = fit.batch
        times = None if fit.times is None else fit.times + ns
        for i, field in enumerate(batch.schema):
            if field.name == self.shape.event and times is not None:
                later = time_array(Times(times, np.zeros(len(times), np.int8)), field)
            elif field.name.startswith("ts_") and pa.types.is_int64(field.type):
                later = pc.add(batch.column(i), ns)
            else:
                continue
            batch = batch.set_column(i, field, later)
        return Fit(batch, fit.rows + rows, fit.stop + rows, times, [(row + rows, bad) for row, bad in fit.bad])

    def one(self) -> Iterator[Fit]:
        """Rows of one lap; with on_bad="stop" those before the first bad row, then its error."""
        if self.sort is True:
            yield from self._sorted()
            return
        latest: tuple[int, int] | None = None
        for fit in self._read():
            if self.sort == "check":
                latest = self._check(fit, latest)
            yield fit

    def _read(self) -> Iterator[Fit]:
        for piece in self.pieces():
            fit = self.shape.fit(piece, first_only=not self.skip_bad)
            if fit.bad and not self.skip_bad:
                error = fit.bad[0][1].error()
                fit.stop, fit.bad = fit.bad[0][0], []
                yield fit
                raise error
            yield fit

    def _sorted(self) -> Iterator[Fit]:
        fits = list(self._read())
        if not fits:
            return
        bad = [found for fit in fits for found in fit.bad]
        if any(fit.times is None for fit in fits):
            raise timeless(fits[0].batch.schema.names, self.who)
        times = np.concatenate([fit.times for fit in fits if fit.times is not None])
        order = np.argsort(times, kind="stable")
        table = pa.Table.from_batches([fit.batch for fit in fits]).combine_chunks()
        # Bad rows have no time; they are reported with the first batch, and numbers are those of the sorted rows.
        whole = table.take(pa.array(order)).combine_chunks().to_batches()
        rows = np.arange(len(order))
        batch = whole[0] if whole else fits[0].batch
        yield Fit(batch, rows, len(order), times[order], [(0, found) for _, found in bad])

    def _check(self, fit: Fit, latest: tuple[int, int] | None) -> tuple[int, int] | None:
        """Raises SourceError at the first row older than the one before; (time, row number) of the last row."""
        if fit.times is None:
            raise timeless(fit.batch.schema.names, self.who)
        if not len(fit.times):
            return latest
        times, rows = fit.times, fit.rows
        if latest is not None:
            times, rows = np.concatenate(([latest[0]], times)), np.concatenate(([latest[1]], rows))
        steps = np.flatnonzero(np.diff(times) < 0)
        if len(steps):
            at = int(steps[0])
            raise SourceError(
                expected=f"a time of at least {iso(int(times[at]))}",
                got=iso(int(times[at + 1])),
                where=f"at row {int(rows[at + 1])} of {self.who}",
                hint="set sort=True to sort the rows, or sort=False to keep their order",
            )
        return int(times[-1]), int(rows[-1])


def timeless(names: Sequence[str], who: str) -> SourceError:
    """The error of a source whose rows have no event time where one is needed."""
    close = near("ts_event", names) or near("timestamp", names) or near("date", names)
    hint = f"set time={close!r}" if close else "set time= to the column with the event time"
    return SourceError(
        expected="a column with the event time, which pace=, start=, stop= and sort= go by",
        got=f"the columns {', '.join(map(repr, names))}",
        where=f"in {who}",
        hint=hint,
    )
