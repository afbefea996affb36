"""Bars as an emitter: the same bars as Bars alone, with positions, marks and snapshots."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import window as W
from penstock.errors import WindowError
from penstock.log.chunk import Chunk

S = 10**9


def trades(rows: list[tuple[float, str]], first: int = 0) -> Chunk:
    at = [round(t * S) for t, _ in rows]
    batch = pa.record_batch(
        {
            "symbol": [symbol for _, symbol in rows],
            "ts_event": pa.array(at, pa.int64()),
            "price": [100.0 + (first + i) % 7 for i in range(len(rows))],
            "size": pa.array([1 + (first + i) % 3 for i in range(len(rows))], pa.int64()),
        }
    )
    return Chunk(batch, first, np.arange(1000 + first, 1000 + first + len(rows)))


def shown(windows: list[W.Window]) -> list[tuple[Any, ...]]:
    return [
        (w.position, w.index, w.start_ns, w.end_ns, w.mark_ns, list(w.offsets), w.created.tolist(), w.table.to_pylist())
        for w in windows
    ]


def test_a_window_for_each_row_that_closes_bars() -> None:
    emitter = W.BarWindow("1s")
    windows = emitter.push(trades([(0.1, "A"), (0.2, "B"), (0.9, "A"), (1.5, "A"), (3.0, "B")]))
    assert [(w.position, w.table["symbol"].to_pylist()) for w in windows] == [(4, ["A", "B"]), (5, ["A"])]
    assert (windows[0].start_ns, windows[0].end_ns) == (0, S)
    assert list(windows[0].offsets) == [3, 3]
    assert windows[0].created.tolist() == [1003, 1003]
    assert windows[0].data[0]["trade_count"] == 2
    assert windows[0].table.schema.names[:3] == ["symbol", "ts_event", "ts_close"]
    assert emitter.statistics() == W.EmitterStatistics(
        rows=5, windows=2, late=0, open_windows=1, open_rows=0, watermark_ns=3 * S
    )
    assert [w.table["symbol"].to_pylist() for w in emitter.flush(5)] == [["B"]]
    assert emitter.flush(5) == []


def test_idle_bars_close_by_marks() -> None:
    emitter = W.BarWindow("1s", lateness="100ms", idle="2s")
    assert emitter.deadline(0) is None
    emitter.push(trades([(0.5, "A")]))
    assert emitter.deadline(0) == 1000 + 2 * S
    assert emitter.mark(S, 1) == []  # due at 1.1 s
    (window,) = emitter.mark(round(1.1 * S), 1)
    assert (window.position, window.mark_ns, list(window.offsets)) == (1, round(1.1 * S), [0])
    assert window.created.tolist() == [round(1.1 * S)]
    assert emitter.deadline(0) is None


def test_without_idle_rows_alone_close_bars() -> None:
    emitter = W.BarWindow("1s")
    emitter.push(trades([(0.5, "A")]))
    assert emitter.deadline(0) is None


def test_filled_bars_keep_coming_by_marks() -> None:
    emitter = W.BarWindow("1s", fill="previous", idle="1s")
    emitter.push(trades([(0.5, "A")]))
    assert len(emitter.mark(S, 1)) == 1
    assert emitter.deadline(0) == 2 * S
    assert emitter.mark(2 * S - 1, 1) == []
    (window,) = emitter.mark(2 * S, 1)
    assert window.data[0]["trade_count"] == 0
    assert (window.index, emitter.deadline(0)) == (1, 3 * S)


def test_a_mark_that_closes_nothing_changes_nothing() -> None:
    emitter = W.BarWindow("1s")
    emitter.push(trades([(1.5, "A")]))
    before = emitter.snapshot()
    assert emitter.mark(round(1.9 * S), 1) == []
    assert emitter.snapshot() == before


def test_late_rows_revise_or_stand_aside() -> None:
    rows = [(0.5, "A"), (1.5, "A"), (0.6, "A"), (2.5, "A")]
    windows = W.BarWindow("1s").push(trades(rows))
    assert [(w.position, w.table["revision"].to_pylist()) for w in windows] == [(2, [0]), (3, [1]), (4, [0])]
    emitter = W.BarWindow("1s", late="side")
    windows = emitter.push(trades(rows))
    assert [w.position for w in windows] == [2, 4]
    assert emitter.statistics().late == 1
    state = emitter.snapshot()
    (late,) = emitter.take_late()
    assert (late.offsets.tolist(), late.created.tolist()) == ([2], [1002])
    assert late.batch.schema == trades(rows).batch.schema
    again = W.BarWindow("1s", late="side")
    again.restore(state, lambda wanted: [trades(rows)])
    assert [some.offsets.tolist() for some in again.take_late()] == [[2]]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 0.3, 1.0, 2.5, -0.2, -1.5]),
        st.sampled_from("ABC"),
        st.booleans(),
        st.booleans(),
        st.sampled_from([None, None, None, 0.0, 1.0, 3.0]),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(
    EVENTS,
    st.sampled_from(["revise", "drop", "side"]),
    st.sampled_from([0, 0.5]),
    st.sampled_from(["none", "previous", "nan"]),
    st.sampled_from(["left", "right"]),
)
def test_any_cut_and_any_restart_give_the_same_windows(
    events: list[tuple[float, str, bool, bool, float | None]], late: Any, lateness: float, fill: Any, closed: Any
) -> None:
    def make() -> W.BarWindow:
        return W.BarWindow("1s", late=late, lateness=lateness, fill=fill, closed=closed, idle="1s")

    rows: list[tuple[float, str]] = []
    now = 10.0
    for moved, symbol, *_ in events:
        now = max(0.0, now + moved)
        rows.append((now, symbol))
    marks = {i: round((rows[i][0] + mark) * S) for i, (*_, mark) in enumerate(events) if mark is not None}

    def run(cut: bool, restart: bool) -> tuple[list[W.Window], list[int]]:
        emitter = make()
        out: list[W.Window] = []
        side: list[int] = []
        low = 0
        for high in range(1, len(rows) + 1):
            if high < len(rows) and high not in marks and not (cut and events[high][2]):
                continue
            out += emitter.push(trades(rows[low:high], low))
            low = high
            if high in marks:
                out += emitter.mark(marks[high], high)
            if restart and events[high - 1][3]:
                state, lowest = emitter.snapshot(), emitter.lowest_open
                emitter = make()
                emitter.restore(state, lambda wanted: [trades(rows)])
                assert emitter.snapshot() == state
                assert emitter.lowest_open == lowest
            side += [int(o) for some in emitter.take_late() for o in some.offsets]
        return [*out, *emitter.flush(len(rows))], side

    whole = run(False, False)
    places = [(w.position, w.index) for w in whole[0]]
    assert places == sorted(set(places))
    for other in (run(True, False), run(True, True)):
        assert repr(shown(other[0])) == repr(shown(whole[0]))  # repr: nan equals nan
        assert other[1] == whole[1]


@settings(max_examples=100, deadline=None)
@given(EVENTS, st.sampled_from(["none", "previous"]))
def test_a_mark_at_the_deadline_closes_bars(events: list[Any], fill: Any) -> None:
    emitter = W.BarWindow("1s", fill=fill, idle="1ns", lateness=0.25)
    emitter.push(trades([(10 + abs(moved) * i, symbol) for i, (moved, symbol, *_) in enumerate(events)]))
    for _ in range(3):
        due = emitter.deadline(0)
        if due is None:
            assert fill == "none"
            break
        assert emitter.mark(due - 1, len(events)) == []
        assert emitter.mark(due, len(events))


def test_marks_wait_for_the_next_session() -> None:
    """Filled bars of a stock end at the close; the next is due a minute after the next open."""
    from penstock.clock import time_ns

    emitter = W.BarWindow("1m", fill="previous", idle="1s", sessions=W.Sessions("09:30-16:00", tz="America/New_York"))
    at = time_ns("2026-11-20T20:59:30Z")  # Friday, 30 s before the close
    emitter.push(trades([(at / S, "A")]))
    assert len(emitter.mark(time_ns("2026-11-20T21:00:00Z"), 1)) == 1
    assert emitter.deadline(0) == time_ns("2026-11-23T14:31:00Z")


def test_lowest_open_is_a_row_before_which_none_lies_in_an_open_bar() -> None:
    emitter = W.BarWindow("1s", idle="1s")
    assert emitter.lowest_open is None
    emitter.push(trades([(0.5, "A")], 3))
    assert emitter.lowest_open == 3
    emitter.push(trades([(1.5, "A")], 4))
    assert emitter.lowest_open == 4
    emitter.mark(5 * S, 5)
    assert emitter.lowest_open is None
    emitter.push(trades([(7.5, "A")], 5))
    assert emitter.lowest_open == 5


def test_lowest_open_follows_a_stream_in_which_a_bar_is_always_open() -> None:
    emitter = W.BarWindow("1s")
    for row in range(10_000):
        emitter.push(trades([(row / 10, "A")], row))
    assert emitter.lowest_open == 9_990
    again = W.BarWindow("1s")
    again.restore(emitter.snapshot(), lambda ranges: [])
    assert again.lowest_open == 9_990


def test_bars_made_before_can_be_given() -> None:
    bars = W.Bars("1s", by="symbol")
    emitter = W.BarWindow(bars, logic=len)
    other = copy.deepcopy(emitter)
    assert [w.value for w in emitter.push(trades([(0, "A"), (1, "A")]))] == [1]
    assert [w.value for w in other.push(trades([(0, "A"), (1, "A")]))] == [1]
    with pytest.raises(
        WindowError, match=r"expected the options within Bars, got late - in BarWindow; give either a Bars"
    ):
        W.BarWindow(bars, late="drop")


def test_a_snapshot_of_other_bars_is_refused() -> None:
    with pytest.raises(WindowError, match="snapshot was made for BarWindow.*'1m'.*this emitter is BarWindow.*'1s'"):
        W.BarWindow("1s").restore(W.BarWindow("1m").snapshot(), lambda wanted: [])


def test_null_times_are_named() -> None:
    batch = trades([(0, "A"), (1, "A")]).batch
    batch = batch.set_column(1, "ts_event", pa.array([1, None], pa.int64()))
    with pytest.raises(WindowError, match=r"expected a time for `ts_event`, got null - in column 'ts_event' of row 1"):
        W.BarWindow("1s").push(Chunk(batch, 0, np.arange(2)))
