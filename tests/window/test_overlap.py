"""Windows that overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock import window as W
from penstock.errors import UsageError, WindowError
from penstock.log.chunk import Chunk


def rows(*times: int, keys: str = "", first: int = 0) -> Chunk:
    batch = pa.record_batch({"t": pa.array(times, pa.int64()), "k": list(keys) if keys else ["a"] * len(times)})
    return Chunk(batch, first, np.arange(first, first + len(times)))


def shown(windows: list[W.Window]) -> list[tuple[Any, ...]]:
    return [(w.start_ns, w.end_ns, [int(o) for o in w.offsets], w.late, w.position) for w in windows]


def sliding(size: int, every: int, **options: Any) -> W.SlidingWindow:
    return W.SlidingWindow(f"{size}ns", f"{every}ns", time="t", **options)


def test_each_row_lies_in_size_over_every_windows() -> None:
    """Size 10, every 5:

    time       3        7         12           21
    [-5, 5)    ───┘     │         │
    [0, 10)    ─────────┴┘        │
    [5, 15)             ──────────┴─┘
    [10, 20)                      ────────┘
    """
    windows = sliding(10, 5).push(rows(3, 7, 12, 21))
    assert shown(windows) == [
        (-5, 5, [0], 0, 2),
        (0, 10, [0, 1], 0, 3),
        (5, 15, [1, 2], 0, 4),
        (10, 20, [2], 0, 4),
    ]


def test_every_need_not_divide_size() -> None:
    """Size 10, every 4: [-4, 6), [0, 10), [4, 14), [8, 18), …; a row lies in two or three."""
    windows = sliding(10, 4).push(rows(5, 9, 40))
    assert shown(windows) == [
        (-4, 6, [0], 0, 2),
        (0, 10, [0, 1], 0, 3),
        (4, 14, [0, 1], 0, 3),
        (8, 18, [1], 0, 3),
    ]


def test_origin_is_the_start_of_a_window() -> None:
    windows = sliding(10, 10, origin=np.datetime64(3, "ns")).push(rows(3, 12, 13))
    assert shown(windows) == [(3, 13, [0, 1], 0, 3)]


def test_a_row_may_be_late_for_some_windows_only() -> None:
    """Size 10, every 5, late="emit":

    time       3      11             4
    closes            [-5,5) [0,10)  4 is late for both: windows of its own
    time                             9: late for [0, 10), in time for [5, 15)
    """
    emitter = sliding(10, 5, late="emit")
    windows = emitter.push(rows(3, 11, 4, 9, 15))
    assert shown(windows) == [
        (-5, 5, [0], 0, 2),
        (0, 10, [0], 0, 2),
        (-5, 5, [2], 1, 3),
        (0, 10, [2], 1, 3),
        (0, 10, [3], 1, 4),
        (5, 15, [1, 3], 0, 5),
    ]
    assert emitter.statistics().late == 2


def test_a_late_row_is_set_aside_once() -> None:
    emitter = sliding(10, 5, late="side")
    emitter.push(rows(3, 11, 4, 9))
    assert [rows.offsets.tolist() for rows in emitter.take_late()] == [[2, 3]]
    assert shown(emitter.flush(4)) == [(5, 15, [1, 3], 0, 4), (10, 20, [1], 0, 4)]


def test_rows_of_a_window_are_in_the_order_of_offsets_for_each_key() -> None:
    emitter = sliding(10, 5, by="k", lateness="20ns")
    emitter.push(rows(8, 2, 9, 3, keys="abba"))
    windows = emitter.push(rows(1, 60, keys="ba", first=4))
    assert [(w.start_ns, w.key, list(w.offsets)) for w in windows] == [
        (-5, "a", [3]),
        (-5, "b", [1, 4]),
        (0, "a", [0, 3]),
        (0, "b", [1, 2, 4]),
        (5, "a", [0]),
        (5, "b", [2]),
    ]


def test_gaps_cost_nothing() -> None:
    windows = sliding(3, 1).push(rows(0, 2**61))
    assert [w.start_ns for w in windows] == [-2, -1, 0]


def test_many_windows_around_a_row() -> None:
    emitter = sliding(1000, 1)
    windows = emitter.push(rows(0, 500, 2000))
    assert len(windows) == 1500
    assert {len(w) for w in windows} == {1, 2}


def test_flush_leaves_the_watermark() -> None:
    emitter = sliding(10, 5)
    emitter.push(rows(12))
    assert [w.start_ns for w in emitter.flush(1)] == [5, 10]
    emitter.push(rows(13, first=1))
    assert [w.start_ns for w in emitter.flush(2)] == [5, 10]


def test_every_is_at_most_size() -> None:
    with pytest.raises(
        WindowError, match=r"expected every of at most size, got every=3 with size=2 - in SlidingWindow"
    ):
        W.SlidingWindow(2, 3)


@pytest.mark.parametrize("every", [0, "0ms", -1, None, True])
def test_every_is_a_duration(every: Any) -> None:
    with pytest.raises((WindowError, UsageError), match="in every"):
        W.SlidingWindow(2, every)
