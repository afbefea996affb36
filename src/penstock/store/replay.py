"""A stored range as a source: `penstock.connect` streams it at any pace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from penstock.clock import iso
from penstock.connect import Dataset
from penstock.records import event_times
from penstock.store.table import Table
from penstock.store.wish import moment

__all__ = ["Replay", "replay"]

_BATCH: Final = 65_536


class Replay:
    """The rows of a range in the order of their event times; can be iterated again.

    Rows of the same time come in the order of their keys. Memory: the rows of one partition (a day, mostly).
    """

    def __init__(self, table: Table, key: str | None, options: dict[str, Any]) -> None:
        self.table, self.key, self._options = table, key, options

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for found in self.table.scan(self.key, **self._options):
            times = event_times(found, self.table.layout.time)
            if not (times[1:] >= times[:-1]).all():
                found = found.take(pa.array(np.argsort(times, kind="stable")))
            yield from found.combine_chunks().to_batches(max_chunksize=_BATCH)


def replay(
    table: Table,
    key: str | None,
    start: Any = None,
    end: Any = None,
    columns: Sequence[str] | None = None,
    *,
    as_of: Any = None,
    pace: str | float | None = None,
    **options: Any,
) -> Dataset:
    """A `Dataset` over a stored range; `options` are the Dataset's. Event times come as `ts_event`, int64 ns.

    With `as_of` the rows are the same in every run, and a replay that was killed goes on where it stood.
    """
    low, high, known = moment(start, "start"), moment(end, "end"), moment(as_of, "as_of")
    names = columns
    if names is not None and table.layout.time not in names:
        names = [table.layout.time, *names]
    rows = Replay(table, key, {"start": low, "end": high, "columns": names, "as_of": known})
    if known is not None and "name" not in options:
        ends = ["" if end is None else iso(end) for end in (low, high)]
        options["name"] = f"store:{table.name}/{key or '*'}@{ends[0]}..{ends[1]}#{iso(known)}"
    if table.layout.time != "ts_event" and "time" not in options:
        options["time"] = table.layout.time
    return Dataset(rows, pace=pace, **options)
