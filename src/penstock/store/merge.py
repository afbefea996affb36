"""Rows with a history → rows as they are known. Pure functions over tables; nothing here reads a file.

A table here has the user's columns and TIME, KNOWN, OFFSET (int64, see `layout`). Its order is (key, time, identity,
known, offset), so all revisions of a row stand together, the last one last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.store.layout import KNOWN, OFFSET, TIME, Layout
from penstock.store.repeats import repeated

__all__ = ["ints", "merged", "order_of", "ranks"]


def ints(table: pa.Table | pa.RecordBatch, name: str) -> NDArray[np.int64]:
    """A column of int64 without nulls as an array."""
    found: NDArray[np.int64] = table.column(name).to_numpy()
    return found


def ranks(column: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    """A number per row that orders as the values do, null last. Few values cost little: O(rows) and a sort of those."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if not pa.types.is_dictionary(column.type):
        if pa.types.is_integer(column.type) and not column.null_count:
            found: NDArray[Any] = column.to_numpy()
            return found
        column = pc.dictionary_encode(column, null_encoding="encode")
    codes = column.indices.to_numpy()
    order = pc.sort_indices(column.dictionary).to_numpy()
    rank = np.empty(len(order), np.uint16 if len(order) < 1 << 16 else np.int32)  # 16 bits: numpy sorts them by radix
    rank[order] = np.arange(len(order))
    placed: NDArray[Any] = rank[codes]
    return placed


def order_of(table: pa.Table, layout: Layout, *, one_key: bool) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The row order of a table that is in none, and for each place in it whether the row is the last of its identity.

    Takes   one_key: every row has the same key (the column need not be there).
    Cost    two stable sorts, of times (which mostly are in order) and of small key numbers; with identity columns, or
            knowledge times out of order, a sort by all of them.
    """
    times, known, offsets = ints(table, TIME), ints(table, KNOWN), ints(table, OFFSET)
    keys = None if one_key else ranks(table.column(layout.key))
    identity = [ranks(table.column(name)) for name in layout.identity]
    arrived = not identity and _ascending(known) and _ascending(offsets)
    if arrived:
        order = np.arange(len(times)) if _ascending(times) else np.argsort(times, kind="stable")
        if keys is not None:
            order = order[np.argsort(keys[order], kind="stable")]
    else:
        columns = [offsets, known, *reversed(identity), times]
        order = np.lexsort(columns if keys is None else [*columns, keys])
    last = np.ones(len(order), bool)
    if layout.rows == "latest" and len(order) > 1:
        same = np.ones(len(order) - 1, bool)
        for values in (times, *identity, *(() if keys is None else (keys,))):
            placed = values[order]
            same &= placed[1:] == placed[:-1]
        last[:-1] = ~same
    return order, last


def _ascending(values: NDArray[np.int64]) -> bool:
    return bool((values[1:] >= values[:-1]).all())


def merged(
    parts: Sequence[pa.Table],
    layout: Layout,
    *,
    one_key: bool,
    as_of: int | None = None,
    before: int | None = None,
    revisions: bool = False,
    told: bool | None = None,
) -> pa.Table:
    """Rows of several places as one table in order: of each identity the last known, or all of them.

    Takes   parts: at least one table, of one schema; as_of: leave out what was known later (ns UTC);
            before: leave out rows from this offset on;
            told: leave out repeats, see `repeats.repeated`, for which all columns must be there; None: do not look.
    Cost    no sort and no copy when `one_key` and the parts follow each other in time, as they do without corrections.
    """
    found = []
    for part in parts:
        if as_of is not None and part.num_rows:
            known = ints(part, KNOWN) <= as_of
            part = part if known.all() else part.filter(pa.array(known))
        if before is not None and part.num_rows:
            old = ints(part, OFFSET) < before
            part = part if old.all() else part.filter(pa.array(old))
        if part.num_rows:
            found.append(part)
    if not found:
        return parts[0].slice(0, 0)
    if one_key:
        found.sort(key=lambda part: (part.column(TIME)[0].as_py(), part.column(OFFSET)[0].as_py()))
    table = found[0] if len(found) == 1 else pa.concat_tables(found)
    if one_key:
        times = ints(table, TIME)
        if (times[1:] > times[:-1]).all():
            return table
    order, last = order_of(table, layout, one_key=one_key)
    if told is not None and not last.all():
        kept = ~repeated(table, order, last, layout, told=told)
        identity = np.concatenate(([0], np.cumsum(last[:-1])))[kept]
        order, last = order[kept], np.append(identity[1:] != identity[:-1], True)
    if not revisions and not last.all():
        order = order[last]
    if len(order) == table.num_rows and (order[1:] > order[:-1]).all():
        return table
    return table.take(pa.array(order))
