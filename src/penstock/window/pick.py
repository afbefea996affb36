"""Which rows a window shows: the choice of rows, and closed windows on their way out."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.window.pending import Int64, Rows, Segment, by_key, runs, take

__all__ = ["Closed", "Pick", "count_keys", "emission", "join", "late_windows", "lay", "split"]


class Pick:
    """Rows of several windows laid one behind the other; window k is [low, high) of it.

    Takes   rows: where the rows are; source: (n,) which of `rows`, None when there is one;
            at: (n,) position within it, None for all rows of the one in order.
    Tables are built once for the whole pick, at first use: slicing them per window costs about 1 us, taking rows
    anew for each window 50 times that.
    """

    __slots__ = ("_table", "at", "rows", "source")

    def __init__(self, rows: Sequence[Rows], source: NDArray[np.intp] | None, at: Int64 | None) -> None:
        self.rows = rows
        self.source = source
        self.at = at
        self._table: pa.Table | None = None

    def __len__(self) -> int:
        return len(self.rows[0]) if self.at is None else len(self.at)

    def table(self, low: int, high: int) -> pa.Table:
        whole = self._table
        if whole is None:
            if self.at is None:
                return pa.Table.from_batches([self.rows[0].batch.slice(low, high - low)])
            self._table = whole = self._build(self.at)
        return whole.slice(low, high - low)

    def offsets(self, low: int, high: int) -> Int64:
        return self._column("offsets", low, high)

    def created(self, low: int, high: int) -> Int64:
        return self._column("created", low, high)

    def _column(self, name: str, low: int, high: int) -> Int64:
        first: Int64 = getattr(self.rows[0], name)
        if self.at is None:
            return first[low:high]
        at = self.at[low:high]
        if self.source is None:
            return first[at]
        source = self.source[low:high]
        out = np.empty(len(at), np.int64)
        for number in np.unique(source).tolist():
            mine = source == number
            out[mine] = getattr(self.rows[number], name)[at[mine]]
        return out

    def _build(self, at: Int64) -> pa.Table:
        if self.source is None:
            return pa.Table.from_batches([take(self.rows[0].batch, at)])
        where = [np.flatnonzero(self.source == number) for number in range(len(self.rows))]
        parts = [
            pa.Table.from_batches([take(rows.batch, at[mine])])
            for rows, mine in zip(self.rows, where, strict=True)
            if len(mine)
        ]
        # Streams may widen their schema between two chunks of one window.
        table = pa.concat_tables(parts, promote_options="permissive")
        order = np.concatenate(where)
        if bool((order[1:] > order[:-1]).all()):
            return table.combine_chunks()
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return pa.Table.from_batches([take(table.combine_chunks().to_batches()[0], back)])


Closed = tuple[int, int, int, int, Pick, int, int, int]
"""A closed window on its way out: position, end, key number, start, pick, low, high, late rows. A plain tuple, since
there is one per window; sorted by the first three, the order of emission."""

emission = itemgetter(0, 1, 2)


def join(segments: Sequence[Segment], *, mixed: bool = False) -> tuple[Pick, Int64 | None]:
    """The rows of all segments by key number, then by offset, and the key number of each; None when not keyed.

    Without `mixed` the segments are taken to be in the order of their offsets already.
    """
    pick = lay(segments)
    keys = segments[0].keys
    if len(segments) > 1 and keys is not None:
        keys = np.concatenate([segment.keys for segment in segments if segment.keys is not None])
    order: NDArray[np.intp] | None = None
    if mixed and len(segments) > 1:
        offsets = pick.offsets(0, len(pick))
        if keys is not None:
            order = np.lexsort((offsets, keys))
        elif not bool((offsets[1:] > offsets[:-1]).all()):
            order = np.argsort(offsets)
    elif keys is not None and len(keys) > 1:
        order = by_key(keys)
    if order is not None:
        keys = None if keys is None else keys[order]
        source = None if pick.source is None else pick.source[order]
        pick = Pick(pick.rows, source, None if pick.at is None else pick.at[order])
    return pick, keys


def lay(segments: Sequence[Segment]) -> Pick:
    """The rows of all segments, one segment behind the other."""
    if len(segments) == 1:
        return Pick([segments[0].rows], None, segments[0].at)
    number: dict[int, int] = {}
    rows: list[Rows] = []
    which = []
    for segment in segments:
        name = id(segment.rows)
        if name not in number:
            number[name] = len(rows)
            rows.append(segment.rows)
        which.append(number[name])
    at = np.concatenate([segment.at for segment in segments])
    if len(rows) == 1:
        return Pick(rows, None, at)
    return Pick(rows, np.repeat(np.array(which, np.intp), [len(segment.at) for segment in segments]), at)


def split(segments: list[Segment], start: int, end: int, position: int, *, mixed: bool = False) -> list[Closed]:
    """One window of these rows, or one for each key among them, by key number."""
    pick, keys = join(segments, mixed=mixed)
    if keys is None:
        return [(position, end, 0, start, pick, 0, len(pick), 0)]
    lows, highs = runs(keys)
    return [
        (position, end, key, start, pick, low, high, 0)
        for key, low, high in zip(keys[lows].tolist(), lows, highs, strict=True)
    ]


def late_windows(rows: Rows, late: Int64, starts: Int64, ends: Int64, keys: Int64 | None) -> list[Closed]:
    """A window for each late row alone; `starts` and `ends` belong to `late`."""
    pick = Pick([rows], None, late)
    numbers = [0] * len(late) if keys is None else keys[late].tolist()
    columns = zip((rows.offsets[late] + 1).tolist(), ends.tolist(), numbers, starts.tolist(), strict=True)
    return [(position, end, key, start, pick, i, i + 1, 1) for i, (position, end, key, start) in enumerate(columns)]


def count_keys(segments: list[Segment]) -> int:
    """Number of windows these rows make: 1, or the number of keys among them."""
    if segments[0].keys is None:
        return 1
    return len(np.unique(np.concatenate([segment.keys for segment in segments if segment.keys is not None])))
