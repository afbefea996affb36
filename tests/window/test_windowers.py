"""Windows by count, and of what came since the last one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock import window as W
from penstock.errors import UsageError, WindowError
from penstock.log.chunk import Chunk


def chunk(*keys: str, first: int = 0, created: list[int] | None = None) -> Chunk:
    times = np.arange(first, first + len(keys)) if created is None else np.array(created)
    return Chunk(pa.record_batch({"k": list(keys)}), first, times)


def shown(windows: list[W.Window]) -> list[tuple[Any, ...]]:
    return [(w.key, [int(o) for o in w.offsets], w.position) for w in windows]


def test_every_n_rows_in_the_order_of_offsets() -> None:
    """CountWindow(3); each chunk is a | b c d e | f g:

    offset      0 | 1 2 3 4 | 5 6
                └─────┘ └─────┘ 6 waits for flush
    position          3       6
    """
    emitter = W.CountWindow(3)
    assert emitter.push(chunk("a")) == []
    assert shown(emitter.push(chunk(*"bcde", first=1))) == [(None, [0, 1, 2], 3)]
    assert shown(emitter.push(chunk(*"fg", first=5))) == [(None, [3, 4, 5], 6)]
    assert emitter.lowest_open == 6
    assert emitter.deadline(0) is None
    assert emitter.mark(10**18, 7) == []
    assert shown(emitter.flush(7)) == [(None, [6], 7)]
    assert emitter.flush(7) == []


def test_every_n_rows_of_each_key_in_the_order_they_are_full() -> None:
    """CountWindow(2, by="k"):

    offset   0 1 2 3 4 5
    key      a b c b a a
                   │ └ a: 0 4
                   └ b: 1 3
    """
    emitter = W.CountWindow(2, by="k")
    assert shown(emitter.push(chunk(*"abcbaa"))) == [("b", [1, 3], 4), ("a", [0, 4], 5)]
    assert emitter.statistics().open_windows == 2
    assert shown(emitter.flush(6)) == [("c", [2], 6), ("a", [5], 6)]


def test_windows_of_a_flush_come_by_end_then_by_first_appearance_of_the_key() -> None:
    emitter = W.CountWindow(9, by="k")
    emitter.push(chunk(*"zyx", created=[5, 5, 4]))
    assert [(w.key, w.index) for w in emitter.flush(3)] == [("x", 0), ("z", 1), ("y", 2)]


def test_one_row_per_window() -> None:
    windows = W.CountWindow().push(chunk(*"abc", first=4))
    assert shown(windows) == [(None, [4], 5), (None, [5], 6), (None, [6], 7)]
    assert [w.index for w in windows] == [0, 0, 0]


@pytest.mark.parametrize("size", [0, -1, True, 2.0, 1.5, "5", None, np.float64(3)])
def test_sizes_that_are_no_count(size: Any) -> None:
    with pytest.raises(WindowError, match="expected size of at least 1 row, a whole number, got"):
        W.CountWindow(size)


def test_numpy_integers_are_sizes() -> None:
    assert W.CountWindow(np.int32(3)).parameters()["size"] == 3


def test_what_came_since_the_last_window() -> None:
    """RelaxedTimeWindow(10 ns): due 10 ns after the first row that waits; the first mark from then on closes.

    created   5   7       15        21      ! 22
              └ due 15                      [5, 22) all three, though 21 came after 15
    created   30          ! 35  ! 41
              └ due 40          [30, 41)
    """
    emitter = W.RelaxedTimeWindow(1e-8)
    assert emitter.deadline(0) is None
    assert emitter.push(chunk(*"abc", created=[5, 7, 21])) == []
    assert emitter.deadline(0) == 15
    (window,) = emitter.mark(22, 3)
    assert (window.start_ns, window.end_ns, len(window), window.position, window.mark_ns) == (5, 22, 3, 3, 22)
    assert emitter.deadline(0) is None
    emitter.push(chunk("d", first=3, created=[30]))
    assert emitter.mark(35, 4) == []
    (window,) = emitter.mark(41, 4)
    assert (window.start_ns, window.end_ns, window.offsets) == (30, 41, range(3, 4))
    assert emitter.mark(100, 4) == []  # no empty windows


def test_relaxed_windows_do_not_overlap_though_append_times_lie_before_the_mark() -> None:
    emitter = W.RelaxedTimeWindow(1e-8)
    emitter.push(chunk("a", created=[5]))
    emitter.mark(22, 1)
    emitter.push(chunk("b", first=1, created=[21]))
    assert emitter.flush(2)[0].start_ns == 22


def test_keys_of_a_relaxed_window_close_together() -> None:
    emitter = W.RelaxedTimeWindow(1e-8, by="k")
    emitter.push(chunk(*"ab", created=[5, 6]))
    emitter.push(chunk(*"ca", first=2, created=[7, 8]))
    assert emitter.statistics().open_windows == 3
    windows = emitter.mark(15, 4)
    assert shown(windows) == [("a", [0, 3], 4), ("b", [1], 4), ("c", [2], 4)]
    assert {(w.start_ns, w.end_ns) for w in windows} == {(5, 15)}


@pytest.mark.parametrize("seconds", [0, "0s", 10**12])
def test_relaxed_seconds(seconds: Any) -> None:
    with pytest.raises(WindowError, match="expected seconds above 0 and under 146 years, got"):
        W.RelaxedTimeWindow(seconds)
    with pytest.raises(UsageError, match="expected a duration, got True"):
        W.RelaxedTimeWindow(True)
