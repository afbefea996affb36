"""What time rows have and when windows close. In the timelines, rows stand at their event time, ! is a mark.

Windows are [0, 10), [10, 20), … ns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock import window as W
from penstock.errors import SchemaMismatch, UsageError, WindowError
from penstock.log.chunk import Chunk
from penstock.records import DOCUMENT, rows_to_batch
from penstock.window.clocks import LabelClock, choose_clock

PLAIN = pa.schema([("x", pa.int64())])
EVENTS = pa.schema([("ts_event", pa.int64()), ("other", pa.int64())])


def events(*times: int | None, first: int = 0, created: Any = None, column: str = "t", type_: Any = None) -> Chunk:
    batch = pa.record_batch({column: pa.array(times, type_ or pa.int64())})
    return Chunk(batch, first, np.arange(first, first + len(times)) if created is None else np.array(created))


def spans(windows: list[W.Window]) -> list[tuple[int, list[int]]]:
    return [(w.start_ns, [int(o) for o in w.offsets]) for w in windows]


# -- EventClock


def test_the_watermark_moves_row_by_row_with_the_latest_time() -> None:
    """Lateness 0: the first row at or past the end closes a window.

    offset      0     1        2       3
    time        3     8        12      20
                └ [0, 10) ┘    └[10,20)┘
    watermark   3     8        12      20
    closes                     [0,10)  [10,20)
    """
    windows = W.FixedTimeWindow(1e-8, time="t").push(events(3, 8, 12, 20))
    assert spans(windows) == [(0, [0, 1]), (10, [2])]
    assert [w.position for w in windows] == [3, 4]


def test_lateness_lets_rows_come_behind_the_latest() -> None:
    """lateness 5: a row may come up to 5 ns behind.

    offset      0    1    2    3    4
    time        3    12   7    15   8
    watermark   -2   7    7    10   10
    closes                     [0,10)
    row 2 (7): 10 > 7, in time        row 4 (8): 10 <= 10, late
    """
    emitter = W.FixedTimeWindow(1e-8, time="t", lateness="5ns")
    windows = emitter.push(events(3, 12, 7, 15, 8))
    assert spans(windows) == [(0, [0, 2])]
    assert windows[0].position == 4
    assert emitter.statistics().late == 1


def test_replay_at_any_speed_closes_the_same_windows() -> None:
    """No wall clock in the watermark: append times play no part."""
    slow = W.FixedTimeWindow(1e-8, time="t").push(events(3, 12, 25, created=[0, 10**12, 10**15]))
    fast = W.FixedTimeWindow(1e-8, time="t").push(events(3, 12, 25, created=[5, 5, 5]))
    assert spans(slow) == spans(fast) == [(0, [0]), (10, [1])]


def test_without_idle_no_mark_is_asked_for() -> None:
    emitter = W.FixedTimeWindow(1e-8, time="t")
    emitter.push(events(3))
    assert emitter.deadline(0) is None


def test_idle_closes_by_wall_time_when_no_row_comes() -> None:
    """idle 100, lateness 5: the runner sends a mark when no row was appended for 100 ns.

    append time  50                 150
    row          t=3                 !          watermark 150 - 5 = 145: [0, 10) closes
    """
    emitter = W.FixedTimeWindow(1e-8, time="t", lateness="5ns", idle="100ns")
    emitter.push(events(3, created=[50]))
    assert emitter.deadline(60) == 150
    assert emitter.deadline(1000) == 1000
    assert emitter.mark(14, 1) == []  # 14 - 5 < 10: closes nothing, changes nothing
    assert emitter.statistics().watermark_ns == -2
    (window,) = emitter.mark(150, 1)
    assert (window.position, window.index, window.mark_ns) == (1, 0, 150)
    assert emitter.statistics().watermark_ns == 145
    assert emitter.deadline(0) is None  # nothing is open


def test_idle_waits_for_the_end_of_the_window_when_that_is_later() -> None:
    emitter = W.FixedTimeWindow(1e-8, time="t", lateness="5ns", idle="1ns")
    emitter.push(events(3, created=[2]))
    assert emitter.deadline(0) == 15


# -- AppendClock


def test_append_time_closes_by_marks_and_by_rows() -> None:
    """A row at append time 12 closes [0, 10); the mark at 20 closes [10, 20) though no row came.

    created     3    8    12        ! 20
    closes                [0,10)    [10,20)
    """
    emitter = W.FixedTimeWindow(1e-8)
    windows = emitter.push(events(0, 0, 0, created=[3, 8, 12]))
    assert spans(windows) == [(0, [0, 1])]
    assert emitter.deadline(13) == 20
    assert emitter.mark(19, 3) == []
    (window,) = emitter.mark(20, 3)
    assert (window.start_ns, window.position, window.index, window.mark_ns) == (10, 3, 1, 20)


def test_a_row_appended_before_a_mark_but_read_after_it_is_not_late() -> None:
    """The mark at 20 stood at position 1; row 1 says 19, and is taken as 20: in [20, 30)."""
    emitter = W.FixedTimeWindow(1e-8)
    emitter.push(events(0, created=[12]))
    assert spans(emitter.mark(20, 1)) == [(10, [0])]
    emitter.push(events(0, first=1, created=[19]))
    assert spans(emitter.flush(2)) == [(20, [1])]
    assert emitter.statistics().late == 0


# -- MarkClock


def test_only_marks_move_the_mark_clock() -> None:
    """
    row         3    25   ! 10      7       ! 30
    closes                [0,10)            [20,30)
    row 2 (7): 10 <= watermark 10, late
    """
    emitter = W.FixedTimeWindow(1e-8, time=W.MarkClock("t"))
    assert emitter.push(events(3, 25)) == []
    assert emitter.deadline(0) is None
    assert spans(emitter.mark(10, 2)) == [(0, [0])]
    assert emitter.push(events(7, first=2)) == []
    assert emitter.statistics().late == 1
    assert spans(emitter.mark(30, 3)) == [(20, [1])]


def test_marks_of_the_mark_clock_count_though_they_close_nothing() -> None:
    emitter = W.FixedTimeWindow(1e-8, time=W.MarkClock("t"))
    assert emitter.mark(50, 0) == []
    emitter.push(events(3))
    assert emitter.statistics().late == 1
    assert emitter.statistics().watermark_ns == 50
    assert emitter.mark(20, 1) == []  # going back does nothing
    assert emitter.statistics().watermark_ns == 50


def test_the_mark_clock_without_event_column_has_append_times() -> None:
    emitter = W.FixedTimeWindow(1e-8, time=W.MarkClock())
    emitter.push(events(999, created=[3]))
    assert spans(emitter.mark(10, 1)) == [(0, [0])]


# -- which clock


@pytest.mark.parametrize(
    "options, schema, expected",
    [
        ({}, PLAIN, W.AppendClock),
        ({}, EVENTS, W.EventClock),
        ({}, PLAIN.with_metadata({b"penstock.event": b"x"}), W.EventClock),
        ({"time": "append"}, EVENTS, W.AppendClock),
        ({"time": "other"}, EVENTS, W.EventClock),
        ({"lateness": 1}, EVENTS, W.EventClock),
        ({"time": W.MarkClock()}, EVENTS, W.MarkClock),
    ],
)
def test_the_clock_is_chosen_by_options_and_schema(options: dict[str, Any], schema: pa.Schema, expected: type) -> None:
    clock = choose_clock(*(options.get(name) for name in ("time", "lateness", "idle")), schema)
    assert type(clock) is expected
    clock.bind(schema)
    assert repr(clock).startswith(expected.__name__)


def test_lateness_needs_event_time() -> None:
    with pytest.raises(WindowError, match=r"got time=\"append\" with lateness='5s' - in time; rows are never late"):
        W.FixedTimeWindow(1, time="append", lateness="5s").bind(PLAIN)
    with pytest.raises(WindowError, match=r"got time=\"append\" with idle=3"):
        W.FixedTimeWindow(1, time="append", idle=3).bind(PLAIN)
    with pytest.raises(WindowError, match="expected an event time column, got columns x - in time; name it with time="):
        W.FixedTimeWindow(1, lateness="5s").bind(PLAIN)


def test_unknown_column() -> None:
    with pytest.raises(
        WindowError, match=r"expected a column 'ts_evnt', got columns ts_event, other - in time; did you"
    ):
        W.FixedTimeWindow(1, time="ts_evnt").bind(EVENTS)
    with pytest.raises(WindowError, match=r"expected a column 'zzz', got .*; name one of them, or use time=\"append\""):
        W.FixedTimeWindow(1, time="zzz").push(events(1))
    with pytest.raises(WindowError, match="expected a column 'zzz'"):
        W.CountWindow(1, time="zzz").bind(EVENTS)
    with pytest.raises(SchemaMismatch, match="penstock.event"):
        W.FixedTimeWindow(1).bind(PLAIN.with_metadata({b"penstock.event": b"gone"}))


@pytest.mark.parametrize("time", [5, 1.5, ["t"], object()])
def test_time_is_a_column_or_a_clock(time: Any) -> None:
    with pytest.raises(WindowError, match='expected a column\'s name, "append" or a clock, got'):
        W.FixedTimeWindow(1, time=time)


def test_a_clock_has_its_own_lateness() -> None:
    with pytest.raises(WindowError, match="expected lateness and idle within the clock, got time=EventClock"):
        W.FixedTimeWindow(1, time=W.EventClock("t"), lateness=1)


def test_columns_have_names() -> None:
    with pytest.raises(WindowError, match="expected the name of a column for time, got ''"):
        W.EventClock("")
    with pytest.raises(WindowError, match="expected the name of a column for time, got 3"):
        W.MarkClock(3)  # type: ignore[arg-type]


def test_durations_of_a_clock() -> None:
    assert W.EventClock("t", lateness="1m30s").lateness_ns == 90 * 10**9
    with pytest.raises(UsageError, match="expected a duration of at least 0, got -1 - in lateness"):
        W.EventClock("t", lateness=-1)
    with pytest.raises(UsageError, match="expected a duration, got True"):
        W.EventClock("t", lateness=True)
    with pytest.raises(WindowError, match="expected idle above 0, got 0"):
        W.EventClock("t", idle=0)


# -- times that are none


def test_null_times_are_named() -> None:
    emitter = W.FixedTimeWindow(1, time="t")
    with pytest.raises(
        WindowError, match=r"expected a time for `t`, got null - in column 't' of row 6; drop"
    ) as caught:
        emitter.push(events(1, None, first=5))
    assert caught.value.offset == 6  # type: ignore[attr-defined]
    emitter.push(events(1, 2, first=5))  # nothing of the refused chunk stayed


@pytest.mark.parametrize("type_", [pa.float64(), pa.string(), pa.bool_()])
def test_columns_that_hold_no_times(type_: pa.DataType) -> None:
    values = pa.array([1, 0]).cast(type_)
    with pytest.raises(WindowError, match=r"expected int64 \(ns\), timestamp or date32 for `t`, got"):
        W.FixedTimeWindow(1, time="t").push(Chunk(pa.record_batch({"t": values}), 0, np.arange(2)))


def test_nan_is_no_time() -> None:
    with pytest.raises(WindowError, match="timestamp"):
        W.FixedTimeWindow(1, time="t").push(events(float("nan"), type_=pa.float64()))  # type: ignore[arg-type]


def test_times_at_the_edge_of_int64() -> None:
    with pytest.raises(WindowError, match="after the year 1677"):
        W.FixedTimeWindow(1, time="t", lateness=1).push(events(-(2**63) + 5))
    for emitter in (W.FixedTimeWindow(1, time="t"), W.SlidingWindow(2, 1, time="t"), W.SessionWindow(1, time="t")):
        with pytest.raises(WindowError, match="fit|2262"):
            emitter.push(events(2**63 - 1))
    with pytest.raises(WindowError, match="fit"):
        W.SlidingWindow(2, 1, time="t").push(events(-(2**63)))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_any_unit(unit: str) -> None:
    times = pa.array(np.array([0, 1, 2], "datetime64[s]").astype(f"datetime64[{unit}]"))
    windows = W.FixedTimeWindow(1, time="t").push(Chunk(pa.record_batch({"t": times}), 0, np.arange(3)))
    assert [w.start_ns for w in windows] == [0, 10**9]


# -- documents


def documents(*rows: dict[str, Any]) -> Chunk:
    return Chunk(rows_to_batch(rows, DOCUMENT), 0, np.arange(len(rows)))


def test_a_field_of_documents_can_be_the_time() -> None:
    rows = [{"at": 3}, {"at": "1970-01-01T00:00:00.000000008Z"}, {"at": 12, "x": 1}]
    assert spans(W.FixedTimeWindow(1e-8, time="at").push(documents(*rows))) == [(0, [0, 1])]


def test_a_datetime_in_documents_can_be_the_time() -> None:
    from datetime import UTC, datetime

    rows = [{"at": datetime(2026, 1, 1, tzinfo=UTC)}, {"at": datetime(2026, 1, 1, 0, 1, tzinfo=UTC)}]
    assert len(W.FixedTimeWindow("1m", time="at").push(documents(*rows))) == 1


@pytest.mark.parametrize("value", [None, 1.5, "yesterday", True, {"x": 1}, [1], "2026-01-01T00:00:00", 2**70])
def test_documents_without_a_time_are_named(value: Any) -> None:
    rows = [{"at": 1}, {"at": value} if value is not None else {"other": 1}]
    with pytest.raises(
        WindowError, match=r"expected a time: .*got .* - in field 'at' of document 1; time= names a field"
    ):
        W.FixedTimeWindow(1, time="at").push(documents(*rows))


# -- labels


def test_windows_by_count_take_their_times_from_the_event_column() -> None:
    batch = pa.record_batch({"ts_event": [30, 10, None, 40]})
    windows = W.CountWindow(2).push(Chunk(batch, 0, np.array([1, 2, 3, 4])))
    assert [(w.start_ns, w.end_ns) for w in windows] == [(30, 10), (3, 40)]  # null: the time of the append
    windows = W.CountWindow(2, time="append").push(Chunk(batch, 0, np.array([1, 2, 3, 4])))
    assert [(w.start_ns, w.end_ns) for w in windows] == [(1, 2), (3, 4)]


def test_the_label_clock_never_moves_by_marks() -> None:
    clock = LabelClock(None)
    clock.bind(PLAIN)
    assert clock.mark(10**18) < 0
    assert clock.due(5, 5) is None
