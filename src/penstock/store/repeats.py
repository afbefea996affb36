"""Rows that say again what is known: the same identity, and in every column the value of the row before.

They are no revisions. A read that shows revisions leaves them out, and rolls and compactions write them no more, which
no answer can tell: of a run of equal rows the first stays, and at any time as of which somebody asks, what stood before
that time is a beginning of the run. This needs that no row will ever come between two of a run. Rows are known in the
order of their offsets, so none does; but where writers say themselves since when a row was known, one may, and there
only rows known at the same time repeat each other.

Equal is equal to the bit: NaN and null equal themselves, 0.0 and -0.0 differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from penstock.store.columns import plain
from penstock.store.layout import KNOWN, OFFSET, TIME, Layout

__all__ = ["alike", "repeated"]

_BITS = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}


def repeated(
    table: pa.Table,
    order: NDArray[np.intp],
    last: NDArray[np.bool_],
    layout: Layout,
    *,
    told: bool,
    between: Sequence[tuple[int, int]] = (),
) -> NDArray[np.bool_]:
    """For each place in the order of a table whether its row repeats the one before.

    Takes   table: with all columns; order, last: of `merge.order_of`; told: whether writers may say when rows were
            known; between: ranges of offsets, ends included, of rows that are not in the table but may be of the same
            identities: what such a row may stand inside is no run.
    Cost    a few passes over the rows that have a predecessor of their identity; nothing when there are none.
    """
    found = np.zeros(len(order), bool)
    places = np.flatnonzero(~last[:-1]) + 1
    if layout.rows != "latest" or not len(places):
        return found
    rows, before = order[places], order[places - 1]
    equal = np.ones(len(places), bool)
    offsets = table.column(OFFSET).to_numpy()
    for low, high in between:
        equal &= (offsets[rows] <= low) | (offsets[before] >= high)
    same = {layout.key, layout.time, *layout.identity, TIME, OFFSET, *(() if told else (KNOWN,))}
    for name in table.schema.names:
        if name not in same and equal.any():
            equal[equal] = alike(table.column(name), rows[equal], before[equal])
    found[places] = equal
    return found


def alike(column: pa.ChunkedArray | pa.Array, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Whether the values at `first` are those at `second`, pair by pair, to the bit."""
    column = plain(column)
    a, b = (column.take(pa.array(rows)) for rows in (first, second))
    return _equal(*(found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found for found in (a, b)))


def _equal(a: pa.Array, b: pa.Array) -> NDArray[np.bool_]:
    if types.is_dictionary(a.type):
        a, b = a.cast(a.type.value_type), b.cast(b.type.value_type)
    there: NDArray[np.bool_] = a.is_valid().to_numpy(zero_copy_only=False)
    found: NDArray[np.bool_] = there == b.is_valid().to_numpy(zero_copy_only=False)
    both = np.flatnonzero(found & there)
    if len(both):
        if len(both) < len(a):
            a, b = a.take(pa.array(both)), b.take(pa.array(both))
        found[both] = _values_equal(a, b)
    return found


def _values_equal(a: pa.Array, b: pa.Array) -> NDArray[np.bool_]:
    """As `_equal`, of arrays without nulls."""
    if types.is_struct(a.type):
        found = np.ones(len(a), bool)
        for at in range(a.type.num_fields):
            found &= _equal(pc.struct_field(a, at), pc.struct_field(b, at))
        return found
    if types.is_list(a.type) or types.is_large_list(a.type) or types.is_fixed_size_list(a.type):
        return _lists_equal(a, b)
    if types.is_string_view(a.type) or types.is_binary_view(a.type):  # for which there is no comparison
        a, b = a.cast(pa.large_binary()), b.cast(pa.large_binary())
    if types.is_floating(a.type):
        a, b = a.view(_BITS[a.type.bit_width]), b.view(_BITS[b.type.bit_width])
    values: Any = pc.equal(a, b).to_numpy(zero_copy_only=False)
    return np.asarray(values, bool)


def _lists_equal(a: pa.Array, b: pa.Array) -> NDArray[np.bool_]:
    lengths = pc.list_value_length(a).to_numpy()
    found: NDArray[np.bool_] = lengths == pc.list_value_length(b).to_numpy()
    rows = np.flatnonzero(found & (lengths > 0))
    if len(rows):
        items = _equal(*(pc.list_flatten(x.take(pa.array(rows))) for x in (a, b)))
        starts = np.concatenate(([0], np.cumsum(lengths[rows])[:-1]))
        found[rows] = np.logical_and.reduceat(items, starts)
    return found
