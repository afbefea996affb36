"""Recordings, files and frames, replayed into a stream at the pace they were recorded, faster, or at once."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.clock import NS, WALL, Clock
from penstock.connect.base import Target, resume_at
from penstock.connect.files import FORMATS, Files, find_files
from penstock.connect.laps import Laps, timeless
from penstock.connect.pace import Pacer, speed_of
from penstock.connect.rows import frame_pieces, is_frame, row_pieces
from penstock.connect.shape import Bad, Fit, Piece, Shape
from penstock.connect.times import REASONS, UNITS, value_times, zone_of
from penstock.errors import SourceError, UsageError
from penstock.records.describe import value_text

__all__ = ["Dataset", "DatasetStatistics"]


@dataclass(frozen=True, slots=True)
class DatasetStatistics:
    """Of the run that goes on, or of the last one.

    rows, batches, bytes  handed over;  skipped  rows that did not fit, with on_bad="skip";
    out_of_order          rows handed over whose event time lies before an earlier row's;
    resumed_at            row number the run began at;  total  rows of one lap where the files tell, else None;
    lag_ns, max_lag_ns    how late the last batch was, and the latest;  seconds  since the start, by the clock.
    """

    rows: int = 0
    batches: int = 0
    bytes: int = 0
    skipped: int = 0
    out_of_order: int = 0
    resumed_at: int = 0
    total: int | None = None
    lag_ns: int = 0
    max_lag_ns: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Cut:
    """A batch that is due: its rows, the number of the row after them, event times, and how late it is."""

    batch: pa.RecordBatch
    following: int
    times: NDArray[np.int64] | None
    lag_ns: int


class Dataset:
    """Rows that exist already, as a source.

        Dataset("trades.parquet", pace="60x").stream(stream)     # append them as they fall due
        for batch in Dataset(frame, time="when", tz="UTC"): ...  # or take the batches

    Takes   data: a path, glob pattern, folder or list of paths (Parquet, CSV, Arrow IPC file or stream, Feather); a
            pandas or polars frame, Arrow table or batch; or an iterable of dicts, batches or frames;
            schema: the columns wanted, found by name and cast where no value changes. Columns it has not are left out;
            columns, rename, constants: which source columns, under which names, and columns to add, one value each;
            time: the source column with the event time; it comes out as `ts_event`, int64 ns UTC. Not needed if
            there is a `ts_event`; tz: the zone of times that have none; unit: of times that are numbers;
            start, stop: event times, rows in [start, stop) are handed over; loop: how often, None for ever. Each
            further lap is moved on in time by the span of the data, rounded up to a minute;
            sort: True to sort by event time (reads all into memory), "check" to refuse rows out of order, False
            (default) to keep the order and count them;
            pace: "recorded", a speed ("60x", 60.0), or "max" (None): no waiting;
            batch_rows: the most rows of a batch; at a pace, rows that fall due together go together;
            on_bad: "stop" (default) hands over what stands before the first row that does not fit and raises,
            "skip" counts it, gives it to `errors` (a stream, or a function of a list of dicts) and goes on;
            name: by which a stream remembers how far this source has come, a path's own by default. Frames and
            iterables have none unless given; resume: False to begin at row 0 whatever the stream remembers;
            format, delimiter, header (names, for CSV files without): see `files.Files`; clock: what `pace` waits on;
            progress: called with the statistics after each batch.
    Raises  UsageError for options that cannot be meant, SourceError for data that is not there or does not fit.
    Edges   An iterator is used up by one lap. Rows keep the number they have in the source, bad ones counted, so a
            replay that was stopped or killed goes on at the row after the last appended one.
    """

    def __init__(
        self,
        data: Any,
        *,
        name: str | None = None,
        schema: pa.Schema | None = None,
        columns: Sequence[str] | None = None,
        rename: Mapping[str, str] | None = None,
        constants: Mapping[str, Any] | None = None,
        time: str | None = None,
        tz: str | None = None,
        unit: str = "ns",
        start: str | int | datetime | None = None,
        stop: str | int | datetime | None = None,
        loop: int | None = 1,
        sort: bool | str = False,
        pace: str | float | None = None,
        batch_rows: int = 16_384,
        on_bad: str = "stop",
        errors: Any = None,
        resume: bool = True,
        format: str | None = None,
        delimiter: str | None = None,
        header: Sequence[str] | None = None,
        clock: Clock = WALL,
        progress: Callable[[DatasetStatistics], None] | None = None,
    ) -> None:
        _choice("sort", sort, (True, False, "check"))
        _choice("on_bad", on_bad, ("stop", "skip"))
        _choice("unit", unit, tuple(UNITS))
        _choice("format", format, (None, *FORMATS))
        for option, value in (("batch_rows", batch_rows), ("loop", 1 if loop is None else loop)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(expected="a number of at least 1", got=repr(value), where=f"in {option}")
        if delimiter is not None and not (
            isinstance(delimiter, str) and len(delimiter) == 1 and delimiter.isascii() and delimiter not in '"\r\n'
        ):
            raise UsageError(
                expected="one character between cells", got=repr(delimiter), where="in delimiter", hint='such as ";"'
            )
        for option, names in (("columns", columns), ("header", header)):
            if names is not None and (isinstance(names, str) or not names):
                hint = f"set {option}=[{names!r}]" if names else None
                raise UsageError(expected="a list of names", got=repr(names), where=f"in {option}", hint=hint)
        self._paths = _paths(data)
        self._data = data
        rows = self._paths is not None or is_frame(data) or isinstance(data, Iterable)
        if not rows or isinstance(data, Mapping):
            hint = "give [row] for one row" if isinstance(data, Mapping) else None
            expected = "a path, a frame, or an iterable of dicts"
            raise UsageError(expected=expected, got=value_text(data), where="in Dataset", hint=hint)
        if loop != 1 and isinstance(data, Iterator):
            raise UsageError(
                expected="data that can be read again",
                got="an iterator",
                where="in loop",
                hint="give a list, or a path",
            )
        self._zone = zone_of(tz)
        self._time = time
        self._speed = speed_of(pace)
        self._shape = Shape(
            schema=schema, columns=columns, rename=rename, constants=constants, time=time, unit=unit, zone=self._zone
        )
        self._files = Files(self._paths or [], format, max(batch_rows, 65_536), delimiter, header)
        self._bounds = (_moment(start, "start", self._zone), _moment(stop, "stop", self._zone))
        self._batch_rows, self._errors = batch_rows, errors
        self._clock, self._progress = clock, progress
        self._resume = resume
        self.name = name or _name(data)
        self._laps = Laps(self._pieces, self._shape, on_bad == "skip", sort, loop, repr(self))
        self._statistics = DatasetStatistics()
        self._began, self._latest = 0, -(2**63)

    def __repr__(self) -> str:
        return f"Dataset({self.name or type(self._data).__name__!r})"

    @property
    def schema(self) -> pa.Schema:
        """The schema of its batches: the one given, else that of the first rows, which are read for it.

        Raises  SourceError if there are no rows, or they come from an iterator that reading would use up.
        """
        if self._shape.schema is not None:
            return self._shape.schema
        if not isinstance(self._data, Iterator):
            for fit in self._laps.one():
                return fit.batch.schema
        got = "an iterator" if isinstance(self._data, Iterator) else "no rows"
        raise SourceError(expected="rows to tell the types from", got=got, where=f"in {self!r}", hint="set schema=")

    def statistics(self) -> DatasetStatistics:
        """Counters of the run that goes on, or of the last one."""
        return self._statistics

    def stream(self, stream: Target, *, stopping: threading.Event | None = None) -> DatasetStatistics:
        """Append every row to `stream` when it is due; blocks until the end, or until `stopping` is set.

        Each append carries the number of the row after it, in the same commit: a replay that is killed at any
        instant and run again appends each row once.
        """
        name = self.name if self._resume else None
        skip = resume_at(stream, name) if name is not None else 0
        for cut in self._cuts(skip, stopping or threading.Event()):
            stream.append(cut.batch, origin=None if name is None else (name, cut.following))
            self._count(cut)
        return self._statistics

    async def astream(self, stream: Target) -> DatasetStatistics:
        """As `stream`. Cancelled, it stops before the next batch; what was appended stays."""
        stopping = threading.Event()
        task = asyncio.ensure_future(asyncio.to_thread(self.stream, stream, stopping=stopping))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            stopping.set()
            await asyncio.wait([task])
            raise

    def batches(self, *, stopping: threading.Event | None = None) -> Iterator[pa.RecordBatch]:
        """The batches as they fall due, from row 0."""
        for cut in self._cuts(0, stopping or threading.Event()):
            yield cut.batch
            self._count(cut)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self.batches()

    # -- from the first row to the last

    def _count(self, cut: _Cut) -> None:
        old = self._statistics
        self._statistics = replace(
            old,
            rows=old.rows + cut.batch.num_rows,
            batches=old.batches + 1,
            bytes=old.bytes + cut.batch.nbytes,
            out_of_order=old.out_of_order + self._backwards(cut.times),
            lag_ns=cut.lag_ns,
            max_lag_ns=max(old.max_lag_ns, cut.lag_ns),
            seconds=(self._clock.now_ns() - self._began) / NS,
        )
        if self._progress is not None:
            self._progress(self._statistics)

    def _backwards(self, times: NDArray[np.int64] | None) -> int:
        if times is None:
            return 0
        latest = np.maximum.accumulate(np.concatenate(([self._latest], times)))
        self._latest = int(latest[-1])
        return int((times < latest[:-1]).sum())

    def _cuts(self, skip: int, stopping: threading.Event) -> Iterator[_Cut]:
        """Rows from number `skip` on, as they fall due."""
        total = self._files.total() if self._paths else None
        self._statistics = DatasetStatistics(resumed_at=skip, total=total)
        self._began, self._latest = self._clock.now_ns(), -(2**63)
        pacer = Pacer(self._clock, self._speed, stopping)
        seen = 0
        for fit in self._laps:
            seen = fit.stop
            self._report(fit.bad, skip)
            fit = self._chosen(fit, skip)
            if self._speed is not None and fit.times is None and len(fit.rows):
                raise timeless(fit.batch.schema.names, repr(self))
            start, rows = 0, len(fit.rows)
            while start < rows:
                count, lag = pacer.take(None if fit.times is None else fit.times[start:], self._batch_rows)
                if count == 0:
                    return
                stop = min(start + count, rows)
                following = fit.stop if stop == rows else int(fit.rows[stop - 1]) + 1
                times = None if fit.times is None else fit.times[start:stop]
                yield _Cut(fit.batch.slice(start, stop - start), following, times, lag)
                start = stop
        if seen < skip:
            raise SourceError(
                expected=f"at least the {skip} rows that were replayed before",
                got=f"{seen}",
                where=f"in {self!r}",
                hint="the data was cut; give the new data a name=, or set resume=False",
            )

    def _chosen(self, fit: Fit, skip: int) -> Fit:
        """The rows from number `skip` on, in [start, stop)."""
        keep = fit.rows >= skip
        low, high = self._bounds
        if low is not None or high is not None:
            if fit.times is None:
                raise timeless(fit.batch.schema.names, repr(self))
            keep &= (fit.times >= (-(2**63) if low is None else low)) & (
                fit.times < (2**63 - 1 if high is None else high)
            )
        if keep.all():
            return fit
        picked = np.flatnonzero(keep)
        times = None if fit.times is None else fit.times[picked]
        return Fit(fit.batch.take(pa.array(picked)), fit.rows[picked], fit.stop, times, fit.bad)

    def _report(self, bad: list[tuple[int, Bad]], skip: int) -> None:
        if not bad:
            return
        if hasattr(self._errors, "append") and self.name is not None:
            # Its own memory, since it is another stream: it may be ahead of the rows, never behind.
            skip = resume_at(self._errors, self.name)
        fresh = [(row, found) for row, found in bad if row >= skip]
        self._statistics = replace(self._statistics, skipped=self._statistics.skipped + len(fresh))
        documents = [found.document() for _, found in fresh]
        if not documents or self._errors is None:
            return
        if not hasattr(self._errors, "append"):
            self._errors(documents)
        else:
            self._errors.append(documents, origin=None if self.name is None else (self.name, fresh[-1][0] + 1))

    def _pieces(self) -> Iterator[Piece]:
        if self._paths is not None:
            return self._files.pieces(self._shape.wanted, unify=self._shape.schema is None)
        source = self.name or type(self._data).__name__
        if is_frame(self._data):
            return frame_pieces(self._data, self._files.batch_rows, source=source)
        return row_pieces(self._data, self._batch_rows, self._shape, time=self._time, source=source)


def _choice(option: str, value: Any, known: Sequence[Any]) -> None:
    if not any(value is k or (isinstance(k, str) and value == k) for k in known):
        expected = ", ".join(map(repr, known[:-1])) + f" or {known[-1]!r}"
        raise UsageError(expected=expected, got=repr(value), where=f"in {option}")


def _paths(data: Any) -> list[Path] | None:
    """The files of a path or a list of paths; None if `data` is something else."""
    if isinstance(data, str | os.PathLike):
        return find_files(data)
    if isinstance(data, list | tuple) and data and all(isinstance(item, str | os.PathLike) for item in data):
        return [path for item in data for path in find_files(item)]
    return None


def _name(data: Any) -> str | None:
    """What a stream remembers a path by: absolute, so that two files of one name are two sources."""
    if isinstance(data, str | os.PathLike):
        return str(Path(data).expanduser().absolute())
    if isinstance(data, list | tuple) and data and all(isinstance(item, str | os.PathLike) for item in data):
        return "|".join(str(_name(item)) for item in data)
    return None


def _moment(value: Any, name: str, zone: Any) -> int | None:
    if value is None:
        return None
    found = value_times([value], zone=zone)
    if found.why[0]:
        expected, hint = REASONS[int(found.why[0])]
        raise UsageError(expected=expected, got=repr(value), where=f"in {name}", hint=hint.split(";")[0])
    return int(found.ns[0])
