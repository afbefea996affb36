from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.window.pending import Found, Rows, Segment, by_key, offsets_of, runs, take, tidy
from penstock.window.pick import join, lay
from penstock.window.state import ranges


def rows(*offsets: int) -> Rows:
    at = np.array(offsets, np.int64)
    return Rows(pa.record_batch({"o": at}), at, at + 1000)


def at(*positions: int) -> np.ndarray:
    return np.array(positions, np.int64)


@given(st.lists(st.integers(0, 9)))
def test_runs_are_the_borders_of_equal_values(values: list[int]) -> None:
    array = np.array(sorted(values), np.int64)
    if len(array):
        lows, highs = runs(array)
        assert [array[low] for low in lows] == sorted(set(values))
        assert highs == [*lows[1:], len(array)]


@given(st.lists(st.integers(0, 200_000)))
def test_by_key_is_a_stable_sort(keys: list[int]) -> None:
    assert by_key(np.array(keys, np.int64)).tolist() == sorted(range(len(keys)), key=lambda i: keys[i])


@pytest.mark.parametrize("type_", [pa.string(), pa.string_view(), pa.binary_view()])
def test_take_by_position_of_any_type(type_: pa.DataType) -> None:
    batch = pa.record_batch({"v": pa.array(["a", "b", "c", None, "e"]).cast(type_)})
    for positions in ([], [1, 2, 3], [4, 0], [2, 2], [3, 2, 1], [0, 2, 4]):
        taken = take(batch, at(*positions))
        assert taken.schema == batch.schema
        assert [v.as_py() for v in taken["v"]] == [batch["v"][i].as_py() for i in positions]


def test_rows_that_follow_each_other_are_not_copied() -> None:
    some = rows(*range(100))
    part = take(some.batch, np.arange(10, 20))
    assert part["o"].buffers()[1].address == some.batch["o"].buffers()[1].address


def test_a_pick_of_several_chunks_by_key() -> None:
    first, second = rows(0, 1, 2), rows(3, 4, 5)
    pick, keys = join([Segment(first, at(0, 1, 2), at(1, 0, 1)), Segment(second, at(0, 2), at(0, 1))])
    assert keys is not None
    assert keys.tolist() == [0, 0, 1, 1, 1]
    assert pick.offsets(0, 5).tolist() == [1, 3, 0, 2, 5]
    assert pick.created(3, 5).tolist() == [1002, 1005]
    assert pick.table(1, 4)["o"].to_pylist() == [3, 0, 2]


def test_a_pick_of_panes_is_put_in_the_order_of_offsets() -> None:
    first, second = rows(0, 1, 2), rows(3, 4)
    segments = [Segment(second, at(1), None), Segment(first, at(0, 2), None), Segment(second, at(0), None)]
    pick, keys = join(segments, mixed=True)
    assert keys is None
    assert pick.offsets(0, 4).tolist() == pick.table(0, 4)["o"].to_pylist() == [0, 2, 3, 4]
    assert lay(segments).offsets(0, 4).tolist() == [4, 0, 2, 3]
    assert [(s.rows is first, s.at.tolist()) for s in tidy(segments)] == [(True, [0, 2]), (False, [0, 1])]


@given(st.sets(st.integers(0, 40)))
def test_ranges_cover_the_offsets(offsets: set[int]) -> None:
    found = ranges(np.array(sorted(offsets), np.int64))
    assert [o for r in found for o in r] == sorted(offsets)
    assert all(b.start > a.stop for a, b in pairwise(found))


def test_rows_are_found_again_by_offset() -> None:
    found = Found([rows(0, 1, 2, 3), rows(4, 5, 6), rows(9)], at(1, 3, 6))
    assert found.complete
    assert [len(some) for some in found.rows] == [2, 1]
    segments = found.segments(at(3, 6), lambda some: some.offsets * 10)
    assert offsets_of(segments).tolist() == [3, 6]
    assert [s.keys.tolist() for s in segments if s.keys is not None] == [[30], [60]]
    assert not Found([rows(0, 1)], at(1, 2)).complete
