"""What an emitter hands to a function: some rows of a stream, and when and why they belong together."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from penstock.clock import utc
from penstock.errors import UsageError
from penstock.records import batch_to_rows
from penstock.window.pending import Int64
from penstock.window.pick import Pick

if TYPE_CHECKING:
    from penstock.window.logic import Logic

__all__ = ["Window"]

_SHOWN = 3


class Window:
    """Rows that belong together, in the order of their offsets. Made by emitters; cannot be changed.

    Nothing is copied or decoded before it is asked for, so a window costs about 1 us until then. It keeps the batches
    its rows lie in alive.

    start, end    aware datetimes in UTC, cut to microseconds; start_ns, end_ns the same in ns. Of windows by time
                  their borders, [start, end); of windows by count the times of the first and the last row.
    key           value of the `by=` column, None when not keyed
    late          rows in it that came after it was emitted: 0, or 1 for the windows of late="emit"
    position      offset after the last row seen when it closed: rows >= position had no part in it
    index         its number among the windows closed at that position; (position, index) always grows
    mark_ns       time of the mark that closed it, None when a row did
    """

    __slots__ = ("_end", "_high", "_index", "_key", "_late", "_logic", "_low", "_mark", "_pick", "_position", "_start")

    def __init__(
        self,
        pick: Pick,
        low: int,
        high: int,
        start: int,
        end: int,
        key: Any,
        position: int,
        index: int,
        late: int,
        mark: int | None,
        logic: Logic | None,
    ) -> None:
        self._pick = pick
        self._low = low
        self._high = high
        self._start = start
        self._end = end
        self._key = key
        self._position = position
        self._index = index
        self._late = late
        self._mark = mark
        self._logic = logic

    @property
    def start_ns(self) -> int:
        return self._start

    @property
    def end_ns(self) -> int:
        return self._end

    @property
    def start(self) -> datetime:
        return utc(self._start)

    @property
    def end(self) -> datetime:
        return utc(self._end)

    @property
    def key(self) -> Any:
        return self._key

    @property
    def late(self) -> int:
        return self._late

    @property
    def position(self) -> int:
        return self._position

    @property
    def index(self) -> int:
        return self._index

    @property
    def mark_ns(self) -> int | None:
        return self._mark

    @property
    def table(self) -> pa.Table:
        """The rows as an Arrow table, with the stream's schema."""
        return self._pick.table(self._low, self._high)

    @property
    def data(self) -> list[dict[str, Any]]:
        """The rows as dicts; documents come back as they were appended. Decoded anew at each call."""
        return _rows(self.table)

    @property
    def frame(self) -> Any:
        """The rows as a polars DataFrame; UsageError when polars is not installed."""
        try:
            import polars
        except ImportError:
            raise UsageError(
                problem="window.frame needs polars, which is not installed",
                hint="pip install polars, or use window.table (Arrow) or window.table.to_pandas()",
            ) from None
        return polars.from_arrow(self.table)

    @property
    def value(self) -> Any:
        """What the emitter's logic makes of the rows; `data` when it has none. Computed anew at each call."""
        return self.data if self._logic is None else self._logic(self)

    @property
    def offsets(self) -> range | Int64:
        """Offsets of the rows: a range when they follow each other, else (n,) int64, ascending."""
        found = self._pick.offsets(self._low, self._high)
        count = len(found)
        if count == 0:
            return range(self._position, self._position)
        first, last = int(found[0]), int(found[-1])
        return range(first, last + 1) if last - first == count - 1 else found

    @property
    def created(self) -> Int64:
        """(n,) int64 append times of the rows, ns UTC."""
        return self._pick.created(self._low, self._high)

    def __len__(self) -> int:
        return self._high - self._low

    def __bool__(self) -> bool:
        return True  # an empty window is still a window

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.data)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        count = len(self)
        shown = count if count <= _SHOWN + 2 else _SHOWN
        rows = [repr(row) for row in _rows(self._pick.table(self._low, self._low + shown))]
        if shown < count:
            rows.append(f"… +{count - shown} rows")
        return f"Window [{self.start}] [{', '.join(rows)}]"


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    batches = table.to_batches()
    if len(batches) == 1:
        return batch_to_rows(batches[0])
    return [row for batch in batches for row in batch_to_rows(batch)]
