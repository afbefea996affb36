"""Session windows."""

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


def session(**options: Any) -> W.SessionWindow:
    return W.SessionWindow("5ns", time="t", **options)


def test_a_gap_ends_a_session() -> None:
    """Gap 5:

    time      1    4    8          13         30
              └─────────┴── 13     └── 18
    closes                         [1,13)     [13,18)     4 apart: same session; 5 apart: another
    """
    assert shown(session().push(rows(1, 4, 8, 13, 30))) == [
        (1, 13, [0, 1, 2], 0, 4),
        (13, 18, [3], 0, 5),
    ]


def test_other_keys_close_a_session() -> None:
    """Gap 5, by key:

    time      a1   b4       b8      a9
    a         └── 6 ┐
    closes          └───── [1,6)    9 begins another session of a
    """
    windows = session(by="k").push(rows(1, 4, 8, 9, 20, keys="abbab"))
    assert [(w.key, *shown([w])[0][:3]) for w in windows] == [
        ("a", 1, 6, [0]),
        ("b", 4, 13, [1, 2]),
        ("a", 9, 14, [3]),
    ]


def test_a_row_between_two_sessions_makes_them_one() -> None:
    """Gap 5, lateness 20:

    time      1          9            5               60
              └── 6      └── 14       └ overlaps both
              [1, 14) of rows 0, 1, 2
    """
    emitter = session(lateness="20ns")
    emitter.push(rows(1, 9))
    assert emitter.statistics().open_windows == 2
    emitter.push(rows(5, first=2))
    assert emitter.statistics().open_windows == 1
    assert shown(emitter.push(rows(60, first=3))) == [(1, 14, [0, 1, 2], 0, 4)]


def test_rows_of_joined_sessions_are_in_the_order_of_offsets() -> None:
    emitter = session(lateness="20ns")
    windows = emitter.push(rows(9, 1, 10, 2, 6, 60))
    assert [list(w.offsets) for w in windows] == [[0, 1, 2, 3, 4]]
    assert windows[0].table["t"].to_pylist() == [9, 1, 10, 2, 6]


def test_a_row_that_reaches_an_open_session_is_not_late() -> None:
    """Gap 5, lateness 4; at row 1 the watermark is 8:

    time      6         12          3                   7
              └── 11    └── 17      [3, 8) is over,     7 < 11: joins too, [3, 12)
                                    but 6 < 8: joins [6, 11)
    """
    emitter = session(lateness="4ns")
    emitter.push(rows(6, 12, 3, 7))
    assert emitter.statistics().late == 0
    assert shown(emitter.flush(4)) == [(3, 12, [0, 2, 3], 0, 4), (12, 17, [1], 0, 4)]


def test_late_rows() -> None:
    """A row is late when it reaches no open session and its own is over: 2 + 5 <= 12."""
    emitter = session(late="emit")
    windows = emitter.push(rows(1, 12, 2, 8, 40))
    assert shown(windows) == [
        (1, 6, [0], 0, 2),
        (2, 7, [2], 1, 3),
        (8, 17, [1, 3], 0, 5),
    ]
    assert emitter.statistics().late == 1


def test_append_time_closes_idle_sessions_by_marks() -> None:
    emitter = W.SessionWindow("5ns", by="k")
    emitter.push(Chunk(pa.record_batch({"k": ["a", "b"]}), 0, np.array([1, 3])))
    assert emitter.deadline(0) == 6
    assert [w.key for w in emitter.mark(7, 2)] == ["a"]
    assert emitter.deadline(0) == 8
    assert [w.key for w in emitter.mark(8, 2)] == ["b"]
    assert emitter.deadline(0) is None


@pytest.mark.parametrize("gap", [0, "0s", -1, True, None, "soon"])
def test_gaps_that_are_none(gap: Any) -> None:
    with pytest.raises((WindowError, UsageError), match="in gap"):
        W.SessionWindow(gap)
