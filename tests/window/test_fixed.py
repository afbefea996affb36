"""Windows of a time grid. Sizes are 10 ns in the timelines; rows stand at their event time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock import window as W
from penstock.clock import iso, time_ns
from penstock.errors import UsageError, WindowError
from penstock.log.chunk import Chunk

SIZE = 1e-8


def rows(*times: int, keys: str = "", first: int = 0) -> Chunk:
    batch = pa.record_batch({"t": pa.array(times, pa.int64()), "k": list(keys) if keys else ["a"] * len(times)})
    return Chunk(batch, first, np.arange(first, first + len(times)))


def shown(windows: list[W.Window]) -> list[tuple[Any, ...]]:
    return [(w.start_ns, w.end_ns, w.key, [int(o) for o in w.offsets], w.late, w.position, w.index) for w in windows]


def fixed(**options: Any) -> W.FixedTimeWindow:
    return W.FixedTimeWindow(SIZE, time="t", **options)


def test_windows_are_half_open_and_aligned_to_the_epoch() -> None:
    """
    time     9      10      19      20
             [0,10) └ [10, 20) ┘    closes [10, 20)
    """
    assert shown(fixed().push(rows(9, 10, 19, 20))) == [
        (0, 10, None, [0], 0, 2, 0),
        (10, 20, None, [1, 2], 0, 4, 0),
    ]


def test_times_before_1970() -> None:
    assert shown(fixed().push(rows(-11, -10, 0))) == [
        (-20, -10, None, [0], 0, 2, 0),
        (-10, 0, None, [1], 0, 3, 0),
    ]


def test_one_row_may_close_many_windows() -> None:
    """Without lateness a row closes one; with 25 ns of lateness row 3 closes three at once, by end, then by key."""
    emitter = fixed(by="k", lateness="25ns")
    assert emitter.push(rows(15, 5, 4, keys="bab")) == []
    assert shown(emitter.push(rows(50, keys="c", first=3))) == [
        (0, 10, "b", [2], 0, 4, 0),
        (0, 10, "a", [1], 0, 4, 1),
        (10, 20, "b", [0], 0, 4, 2),
    ]


def test_late_rows_are_dropped_and_counted() -> None:
    """late="drop", the default of event time:

    time        3   12      4           13
    closes          [0,10)  late: 10 <= 12
    """
    emitter = fixed()
    assert shown(emitter.push(rows(3, 12, 4, 13))) == [(0, 10, None, [0], 0, 2, 0)]
    assert emitter.statistics().late == 1
    assert emitter.take_late() == []


def test_late_rows_as_windows_of_their_own() -> None:
    """late="emit": each late row at once, in a window of its own with the borders of the one it missed."""
    windows = fixed(late="emit").push(rows(3, 12, 4, 5, 25))
    assert shown(windows) == [
        (0, 10, None, [0], 0, 2, 0),
        (0, 10, None, [2], 1, 3, 0),
        (0, 10, None, [3], 1, 4, 0),
        (10, 20, None, [1], 0, 5, 0),
    ]
    assert windows[1].table["t"].to_pylist() == [4]


def test_late_rows_set_aside() -> None:
    """late="side": pieces with batch, offsets and append times, in order."""
    emitter = fixed(late="side")
    emitter.push(rows(3, 12, 4, 5))
    emitter.push(rows(30, 1, first=4))
    a, b = emitter.take_late()
    assert (a.batch["t"].to_pylist(), a.offsets.tolist(), a.created.tolist()) == ([4, 5], [2, 3], [2, 3])
    assert (b.batch["t"].to_pylist(), b.offsets.tolist()) == ([1], [5])
    assert emitter.take_late() == []


def test_the_row_itself_moves_the_watermark_first_so_the_first_of_a_chunk_can_be_late() -> None:
    emitter = fixed()
    emitter.push(rows(12))
    assert emitter.push(rows(9, first=1)) == []
    assert emitter.statistics().late == 1


def test_a_row_exactly_lateness_behind_the_end_is_late() -> None:
    """lateness 5: [0, 10) closes when a row at 15 comes; at 14 the watermark is 9."""
    emitter = fixed(lateness="5ns")
    emitter.push(rows(14, 9))
    assert emitter.statistics().late == 0
    emitter.push(rows(15, 9, first=2))
    assert emitter.statistics().late == 1


def test_empty_windows_are_skipped_or_asked_for() -> None:
    """
    time           3               35
    emit_empty     [0,10) [10,20) [20,30)
    """
    assert len(fixed().push(rows(3, 35))) == 1
    windows = fixed(emit_empty=True).push(rows(3, 35))
    assert shown(windows) == [
        (0, 10, None, [0], 0, 2, 0),
        (10, 20, None, [], 0, 2, 1),
        (20, 30, None, [], 0, 2, 2),
    ]


def test_empty_windows_of_keys_begin_after_their_first() -> None:
    windows = fixed(emit_empty=True, by="k").push(rows(3, 14, 25, 36, keys="abca"))
    assert [(w.start_ns, w.key, len(w)) for w in windows] == [
        (0, "a", 1),
        (10, "a", 0),
        (10, "b", 1),
        (20, "a", 0),
        (20, "b", 0),
        (20, "c", 1),
    ]


def test_empty_windows_come_by_marks_too() -> None:
    emitter = W.FixedTimeWindow(SIZE, emit_empty=True)
    emitter.push(rows(0, 0))
    assert shown(emitter.mark(10, 2)) == [(0, 10, None, [0, 1], 0, 2, 0)]
    assert emitter.deadline(0) == 20
    assert shown(emitter.mark(20, 2)) == [(10, 20, None, [], 0, 2, 1)]
    assert emitter.deadline(0) == 30


def test_a_flush_fills_the_empty_windows_up_to_the_last_with_rows() -> None:
    emitter = fixed(emit_empty=True, lateness=1)
    emitter.push(rows(3, 35))
    assert [(w.start_ns, len(w)) for w in emitter.flush(2)] == [(0, 1), (10, 0), (20, 0), (30, 1)]
    assert emitter.flush(2) == []


def test_a_wrong_time_does_not_make_a_billion_empty_windows() -> None:
    emitter = fixed(emit_empty=True)
    with pytest.raises(
        WindowError, match=r"expected at most 1000000 empty windows at once, got \d+ of 10 ns for 1 keys"
    ):
        emitter.push(rows(3, 10**12))


def test_flush_gives_partial_windows_and_opens_them_anew() -> None:
    emitter = fixed()
    emitter.push(rows(3))
    assert shown(emitter.flush(1)) == [(0, 10, None, [0], 0, 1, 0)]
    emitter.push(rows(4, first=1))
    assert shown(emitter.flush(2)) == [(0, 10, None, [1], 0, 2, 0)]


def test_origin_moves_the_borders() -> None:
    windows = W.FixedTimeWindow("1h", time="t", origin="1970-01-01T00:20:00Z").push(rows(0, 30 * 60 * 10**9))
    assert [iso(w.start_ns)[:16] for w in windows] == ["1969-12-31T23:20"]


def test_days_of_a_time_zone() -> None:
    """New York on 2026-11-01 has 25 hours."""
    times = [time_ns(text) for text in ("2026-11-01T12:00Z", "2026-11-02T05:00Z", "2026-11-03T12:00Z")]
    windows = W.FixedTimeWindow("1d", time="t", tz="America/New_York").push(rows(*times))
    assert [(iso(w.start_ns)[:16], (w.end_ns - w.start_ns) // (3600 * 10**9)) for w in windows] == [
        ("2026-11-01T04:00", 25),
        ("2026-11-02T05:00", 24),
    ]


def test_empty_days_of_a_time_zone() -> None:
    times = [time_ns(text) for text in ("2026-03-07T12:00Z", "2026-03-10T12:00Z")]
    windows = W.FixedTimeWindow("1d", time="t", tz="America/New_York", emit_empty=True).push(rows(*times))
    assert [(len(w), (w.end_ns - w.start_ns) // (3600 * 10**9)) for w in windows] == [(1, 24), (0, 23), (0, 24)]


@pytest.mark.parametrize(
    "size, error", [(0, WindowError), ("0s", WindowError), (True, UsageError), (-1, UsageError), ("x", UsageError)]
)
def test_sizes_that_are_no_duration(size: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="in size"):
        W.FixedTimeWindow(size)


def test_unknown_zone_and_naive_origin() -> None:
    with pytest.raises(WindowError, match="expected the name of a time zone, got 'Mars/Olympus'"):
        W.FixedTimeWindow(1, tz="Mars/Olympus")
    with pytest.raises(UsageError, match="expected a time with its zone"):
        W.FixedTimeWindow(1, origin="2026-01-01T00:00")
