"""What users write: windows of a stream for a function, limits, results, errors, groups, async."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow as pa
import pytest

import penstock as ps
from penstock import window as W
from penstock.errors import ConsumerFailed, GroupBusy, OffsetError, UsageError, WindowError
from penstock.testing import ManualClock
from penstock_tests.rows import EVENTS, events, left, ns, numbers
from penstock_tests.waiting import PATIENCE_S

NOW = {"blocking": False}
S = 1_000_000_000


def run(streaming: Any, **limits: Any) -> list[list[int]]:
    """The `n` of each window."""
    out: list[list[int]] = []
    streaming.apply(lambda window: out.append(ns(window)), **{**NOW, **limits})
    return out


@contextlib.contextmanager
def running(streaming: Any, fn: Callable[[ps.Window], Any], **limits: Any) -> Iterator[threading.Event]:
    """`apply` in a thread until the block ends."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            streaming.apply(fn, stop=stop, **limits)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert not failed, failed


# -- windows of every kind


def test_one_row_per_window(hub: ps.Hub) -> None:
    numbers(hub, 3)
    assert run(hub.streams.get("s", lazy=True)) == [[0], [1], [2]]
    assert left(hub) == []


def test_window_shows_its_rows(hub: ps.Hub) -> None:
    hub.streams.put([{"foo": "bar"}, {"foo": "baz"}], "s")
    seen: list[ps.Window] = []
    hub.streams.get("s", lazy=True, size=2, **NOW).apply(seen.append)
    (window,) = seen
    assert window.data == [{"foo": "bar"}, {"foo": "baz"}]
    assert window.table.column_names == ["document"]
    assert window.frame.shape == (2, 1)
    assert window.offsets == range(2)
    assert len(window.created) == 2
    assert window.late == 0
    assert window.start <= window.end <= datetime.now(UTC)
    assert repr(window) == f"Window [{window.start}] [{{'foo': 'bar'}}, {{'foo': 'baz'}}]"


def test_count(hub: ps.Hub) -> None:
    numbers(hub, 12)
    assert run(hub.streams.get("s", lazy=True, size=5)) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert left(hub) == [10, 11]


def test_count_by_key(hub: ps.Hub) -> None:
    events(hub, 1, 2, key="a")
    events(hub, 3, key="b")
    events(hub, 4, key="a")
    assert run(hub.streams.get("e", lazy=True, size=2, by="key")) == [[0, 1]]
    assert left(hub, "e") == [2, 3]


def test_interval_by_event_time(hub: ps.Hub) -> None:
    events(hub, 10, 11.5, 12, 15)
    assert run(hub.streams.get("e", lazy=True, interval=2)) == [[0, 1], [2]]
    assert left(hub, "e") == [3]


def test_interval_by_append_time_closes_without_rows(hub: ps.Hub) -> None:
    clock = ManualClock(0)
    stream = numbers(hub, 2)
    streaming = hub.streams.get("s", lazy=True, interval="1h", clock=clock)
    assert run(streaming) == []
    assert left(hub) == [0, 1]
    appended = int(stream.buffer()[0].created.timestamp() * S)
    clock.advance(ns=appended + 3600 * S)
    seen: list[ps.Window] = []
    streaming.apply(seen.append, **NOW)
    (window,) = seen
    assert ns(window) == [0, 1]
    assert window.start == datetime.fromtimestamp(appended // S // 3600 * 3600, UTC)
    assert window.end - window.start == timedelta(hours=1)
    assert left(hub) == []


def test_interval_closes_by_the_wall_clock(hub: ps.Hub) -> None:
    numbers(hub, 1)
    assert run(hub.streams.get("s", lazy=True, interval=0.05), blocking=True, max_windows=1) == [[0]]


def test_relaxed(hub: ps.Hub) -> None:
    clock = ManualClock(0)
    stream = numbers(hub, 3)
    streaming = hub.streams.get("s", lazy=True, interval=2, relaxed=True, clock=clock)
    created = int(stream.buffer()[0].created.timestamp() * S)
    assert run(streaming) == []
    clock.advance(ns=created + 3 * S)
    assert run(streaming) == [[0, 1, 2]]
    numbers(hub, 2)
    assert run(streaming) == []
    clock.advance(3)
    assert run(streaming) == [[3, 4]]


def test_sliding(hub: ps.Hub) -> None:
    events(hub, 10, 11, 12, 14)
    assert run(hub.streams.get("e", lazy=True, interval=2, every=1)) == [[0], [0, 1], [1, 2], [2]]


def test_session(hub: ps.Hub) -> None:
    events(hub, 10, 11, 12, 30, 31, 60)
    assert run(hub.streams.get("e", lazy=True, gap=5)) == [[0, 1, 2], [3, 4]]


def test_time_zone(hub: ps.Hub) -> None:
    noon = datetime(2026, 3, 29, 12, tzinfo=UTC).timestamp()
    events(hub, noon, noon + 24 * 3600, noon + 48 * 3600)
    seen: list[ps.Window] = []
    hub.streams.get("e", lazy=True, interval="1d", tz="Europe/Berlin", **NOW).apply(seen.append)
    assert [window.start.isoformat() for window in seen] == ["2026-03-28T23:00:00+00:00", "2026-03-29T22:00:00+00:00"]
    assert seen[0].end - seen[0].start == timedelta(hours=23)


class Until(W.CustomWindow):
    """Ends with each row whose n is a multiple of `of`."""

    def __init__(self, of: int) -> None:
        super().__init__()
        self.of = of

    def cuts(self, pending: ps.Window) -> list[int]:
        return [i + 1 for i, row in enumerate(pending.data) if row["n"] % self.of == 0]


def test_custom_emitter(hub: ps.Hub) -> None:
    numbers(hub, 8)
    emitter = Until(3)
    streaming = hub.streams.get("s", lazy=True, emitter=emitter)
    assert run(streaming) == [[0], [1, 2, 3], [4, 5, 6]]
    assert streaming.emitter is emitter
    assert emitter.position == 0  # a run works on a copy
    assert repr(streaming) == "Streaming('s', Until, group='default')"
    assert run(hub.streams.get("s", lazy=True, emitter=emitter, group="other")) == [[0], [1, 2, 3], [4, 5, 6]]


def test_bars(hub: ps.Hub) -> None:
    stream = hub.streams.get("trades", schema=ps.records.TRADES)
    times = [0, 20, 61, 125]
    stream.append([{"symbol": "A", "ts_event": t * S, "price": 1.0 + t, "size": 1} for t in times])
    hub.streams.get("trades", lazy=True, emitter=W.Bars("1m"), into="bars", **NOW).apply()
    bars = hub.streams.get("bars").read()
    assert bars.select(["ts_event", "close"]).to_pylist() == [
        {"ts_event": 0, "close": 21.0},
        {"ts_event": 60 * S, "close": 62.0},
    ]
    # Rows from the one that opened the first open bar on wait; restarted, the bars go on.
    stream.append({"symbol": "A", "ts_event": 200 * S, "price": 5.0, "size": 1})
    hub.streams.get("trades", lazy=True, emitter=W.Bars("1m"), into="bars", **NOW).apply()
    assert hub.streams.get("bars").read()["close"].to_pylist() == [21.0, 62.0, 126.0]


def test_decorator(hub: ps.Hub) -> None:
    numbers(hub, 2)
    out: list[list[int]] = []

    @hub.streams.get("s", lazy=True, blocking=False)
    def consumer(window: ps.Window) -> None:
        out.append(ns(window))

    assert out == [[0], [1]]
    assert consumer.__name__ == "consumer"  # still a function


# -- limits


def test_until_an_offset(hub: ps.Hub) -> None:
    numbers(hub, 10)
    streaming = hub.streams.get("s", lazy=True, size=2, until=5)
    assert run(streaming, blocking=True) == [[0, 1], [2, 3]]
    assert left(hub) == [4, 5, 6, 7, 8, 9]
    assert run(streaming, blocking=True) == []
    assert run(streaming, until=7, blocking=True) == [[4, 5]]
    assert run(streaming, until=None) == [[6, 7], [8, 9]]


def test_until_an_offset_leaves_the_rows_behind_it_alone(hub: ps.Hub) -> None:
    """A window that wall time would close must not pull in rows at or after `until`."""
    numbers(hub, 4)
    clock = ManualClock(4 * 10**18)
    streaming = hub.streams.get("s", lazy=True, interval=1, clock=clock)
    assert run(streaming, until=2, blocking=True) == []
    assert left(hub) == [0, 1, 2, 3]
    assert run(streaming, until=4, blocking=True) == [[0, 1, 2, 3]]


def test_until_a_time(hub: ps.Hub) -> None:
    numbers(hub, 2)
    clock = ManualClock(0)
    streaming = hub.streams.get("s", lazy=True, clock=clock)

    def consumer(window: ps.Window) -> None:
        clock.advance(5)

    streaming.apply(consumer, until=datetime(1970, 1, 1, 0, 0, 10, tzinfo=UTC))
    assert clock.now_ns() == 10 * S
    assert streaming.apply(consumer, until="1970-01-01T00:00:10Z").windows == 0


def test_until_a_function(hub: ps.Hub) -> None:
    numbers(hub, 10)
    streaming = hub.streams.get("s", lazy=True, size=2, until=lambda window: 5 in ns(window))
    assert run(streaming, blocking=True) == [[0, 1], [2, 3], [4, 5]]
    assert left(hub) == [6, 7, 8, 9]
    assert run(streaming, until=None) == [[6, 7], [8, 9]]


def test_max_windows(hub: ps.Hub) -> None:
    numbers(hub, 10)
    streaming = hub.streams.get("s", lazy=True, size=3, max_windows=1)
    assert [run(streaming), run(streaming), run(streaming), run(streaming)] == [
        [[0, 1, 2]],
        [[3, 4, 5]],
        [[6, 7, 8]],
        [],
    ]
    assert left(hub) == [9]


def test_stop_event(hub: ps.Hub) -> None:
    numbers(hub, 10)
    stop = threading.Event()
    out: list[list[int]] = []

    def consumer(window: ps.Window) -> None:
        out.append(ns(window))
        if len(out) == 2:
            stop.set()

    done = hub.streams.get("s", lazy=True, size=2, stop=stop).apply(consumer)
    assert out == [[0, 1], [2, 3]]
    assert done.windows == 2
    assert left(hub) == [4, 5, 6, 7, 8, 9]
    assert run(hub.streams.get("s", lazy=True, size=2)) == [[4, 5], [6, 7], [8, 9]]


def test_stop_event_while_waiting(hub: ps.Hub) -> None:
    numbers(hub, 1)
    seen = threading.Event()
    with running(hub.streams.get("s", lazy=True), lambda window: seen.set()):
        assert seen.wait(PATIENCE_S)


def test_timeout(hub: ps.Hub) -> None:
    numbers(hub, 2)
    assert run(hub.streams.get("s", lazy=True, timeout=0.05), blocking=True) == [[0], [1]]


def test_blocking_waits_for_rows(hub: ps.Hub) -> None:
    stream = hub.streams.get("s")
    out: list[list[int]] = []
    came = threading.Semaphore(0)

    def consumer(window: ps.Window) -> None:
        out.append(ns(window))
        came.release()

    streaming = hub.streams.get("s", lazy=True)
    with running(streaming, consumer):
        for n in range(3):
            stream.append({"n": n})
            assert came.acquire(timeout=PATIENCE_S)
        assert streaming.statistics().rows == 3
    assert out == [[0], [1], [2]]


def test_flush(hub: ps.Hub) -> None:
    numbers(hub, 7)
    streaming = hub.streams.get("s", lazy=True, size=5, flush=True)
    assert run(streaming) == [[0, 1, 2, 3, 4], [5, 6]]
    assert left(hub) == []
    assert run(streaming) == []
    numbers(hub, 6)
    assert run(streaming) == [[7, 8, 9, 10, 11], [12]]


def test_flush_when_stopped(hub: ps.Hub) -> None:
    numbers(hub, 3)
    stop = threading.Event()
    out: list[list[int]] = []

    def consumer(window: ps.Window) -> None:
        out.append(ns(window))
        stop.set()

    hub.streams.get("s", lazy=True, size=2, flush=True, stop=stop).apply(consumer)
    assert out == [[0, 1], [2]]
    assert left(hub) == []


def test_no_flush_after_max_windows(hub: ps.Hub) -> None:
    numbers(hub, 3)
    streaming = hub.streams.get("s", lazy=True, size=2, flush=True)
    assert run(streaming, max_windows=1) == [[0, 1]]
    assert left(hub) == [2]


# -- results


RESULTS: list[tuple[Callable[[ps.Window], Any], list[dict[str, Any]]]] = [
    (lambda window: {"sum": sum(ns(window))}, [{"sum": 1}, {"sum": 5}]),
    (lambda window: [{"n": n} for n in ns(window)], [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}]),
    (lambda window: [], []),
    (lambda window: None, []),
    (lambda window: pa.table({"n": ns(window)}), [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}]),
    (lambda window: pa.RecordBatch.from_pydict({"n": ns(window)}), [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}]),
    (lambda window: polars.DataFrame({"n": ns(window)}), [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}]),
    (lambda window: window, [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}]),
    (lambda window: {"n": 0} if 0 in ns(window) else None, [{"n": 0}]),
]


@pytest.mark.parametrize("number", range(len(RESULTS)))
def test_results(hub: ps.Hub, number: int) -> None:
    fn, expected = RESULTS[number]
    numbers(hub, 4)
    streaming = hub.streams.get("s", lazy=True, size=2, into="out", **NOW)
    done = streaming.apply(fn)
    assert hub.streams.get("out").rows() == expected
    assert (done.windows, done.results, done.errors) == (2, len(expected), 0)
    assert left(hub) == []
    assert streaming.apply(fn).windows == 0
    assert hub.streams.get("out").rows() == expected


def test_without_a_function_rows_are_passed_on(hub: ps.Hub) -> None:
    numbers(hub, 4)
    hub.streams.get("s", lazy=True, size=3, into="out", **NOW).apply()
    assert hub.streams.get("out").rows() == [{"n": 0}, {"n": 1}, {"n": 2}]
    logic = W.Reduce(lambda total, row: {"n": total.get("n", 0) + row["n"]}, dict)
    hub.streams.get("s", lazy=True, group="sums", emitter=W.CountWindow(2, logic=logic), into="sums", **NOW).apply()
    assert hub.streams.get("sums").rows() == [{"n": 1}, {"n": 5}]


def test_without_a_function_and_into(hub: ps.Hub) -> None:
    with pytest.raises(UsageError, match=r"expected a function of a window, or into=, got neither"):
        hub.streams.get("s", lazy=True).apply()


def test_into_a_stream_with_a_schema(hub: ps.Hub) -> None:
    out = hub.streams.get("out", schema=pa.schema({"n": pa.int64()}))
    numbers(hub, 3)
    streaming = hub.streams.get("s", lazy=True, into=out, **NOW)
    streaming.apply(lambda window: {"n": "x" if ns(window) == [1] else ns(window)[0]})
    assert out.read()["n"].to_pylist() == [0, 2]
    (error,) = hub.streams.get("s.errors").rows()
    assert (error["error"], error["first_offset"], error["next_offset"]) == ("TypeMismatch", 1, 2)


def test_into_a_stream_of_another_hub(hub: ps.Hub, tmp_path: Path) -> None:
    numbers(hub, 2)
    with ps.open(tmp_path / "second") as second:
        out = second.streams.get("s")
        streaming = hub.streams.get("s", lazy=True, into=out, **NOW)
        streaming.apply(lambda window: {"n": -ns(window)[0]})
        streaming.apply(lambda window: {"n": -ns(window)[0]})
        assert out.rows() == [{"n": 0}, {"n": -1}]
        assert second.streams.list() == ["s"]
    assert hub.streams.list() == ["s"]


def test_into_itself_is_refused(hub: ps.Hub) -> None:
    stream = numbers(hub, 1)
    for into in ("s", stream):
        with pytest.raises(
            UsageError, match=r"expected into another stream, got 's' - of group 'default'; results app"
        ):
            hub.streams.get("s", lazy=True, into=into)


def test_two_groups_are_independent(hub: ps.Hub) -> None:
    numbers(hub, 4)
    one = hub.streams.get("s", lazy=True, size=2, group="one", into="out", **NOW)
    two = hub.streams.get("s", lazy=True, size=3, group="two", into="out", **NOW)
    one.apply(lambda window: {"one": ns(window)}, max_windows=1)
    two.apply(lambda window: {"two": ns(window)})
    one.apply(lambda window: {"one": ns(window)})
    assert hub.streams.get("out").rows() == [{"one": [0, 1]}, {"two": [0, 1, 2]}, {"one": [2, 3]}]
    assert (left(hub, group="one"), left(hub, group="two"), left(hub, group="three")) == ([], [3], [0, 1, 2, 3])
    assert hub.streams.metadata("s").groups == {"one": 4, "two": 3}


# -- where a new group begins


def test_start(hub: ps.Hub) -> None:
    stream = numbers(hub, 3)
    between = stream.buffer()[-1].created + timedelta(microseconds=1)
    while datetime.now(UTC) <= between:
        pass
    numbers(hub, 2)
    streamings = {
        start: hub.streams.get("s", lazy=True, group=f"g{number}", start=start)
        for number, start in enumerate(["start", "end", 1, 7, between, between.isoformat()])
    }
    found = {start: run(streaming) for start, streaming in streamings.items()}
    rows = [[n] for n in range(5)]
    assert found == {
        "start": rows,
        "end": [],
        1: rows[1:],
        7: [],
        between: rows[3:],
        between.isoformat(): rows[3:],
    }
    numbers(hub, 4)
    rest = [[n] for n in range(5, 9)]
    assert run(streamings["end"]) == rest
    assert run(streamings[7]) == rest[2:]
    assert run(streamings[between]) == rest  # a group that is there goes on where it stands


def test_start_by_event_time(hub: ps.Hub) -> None:
    events(hub, 10, 11)
    events(hub, 12, 11, 13)
    for number, start in enumerate([datetime(1970, 1, 1, 0, 0, 12, tzinfo=UTC), np.datetime64(12, "s")]):
        assert run(hub.streams.get("e", lazy=True, group=f"g{number}", start=start)) == [[2], [3], [4]]
    assert run(hub.streams.get("e", lazy=True, group="late", start="1970-01-01T00:01:00Z")) == []


def test_start_that_cannot_be(hub: ps.Hub) -> None:
    numbers(hub, 1)
    with pytest.raises(UsageError, match="expected an offset"):
        run(hub.streams.get("s", lazy=True, start="yesterday"))
    with pytest.raises(OffsetError):
        run(hub.streams.get("s", lazy=True, start=-1))
    with pytest.raises(UsageError):
        run(hub.streams.get("s", lazy=True, start=True))


def test_seek(hub: ps.Hub) -> None:
    numbers(hub, 5)
    streaming = hub.streams.get("s", lazy=True, size=2, into="out", **NOW)
    streaming.apply(lambda window: {"of": ns(window)})
    assert streaming.seek(1) == 1
    assert left(hub) == [1, 2, 3, 4]
    streaming.apply(lambda window: {"of": ns(window)})
    streaming.apply(lambda window: {"of": ns(window)})
    assert [row["of"] for row in hub.streams.get("out").rows()] == [[0, 1], [2, 3], [1, 2], [3, 4]]
    assert streaming.seek("end") == 5
    assert streaming.apply(lambda window: None).windows == 0
    assert streaming.seek("start") == 0
    assert streaming.apply(lambda window: None).windows == 2


def test_seek_while_a_consumer_runs(hub: ps.Hub) -> None:
    numbers(hub, 1)
    seen = threading.Event()
    streaming = hub.streams.get("s", lazy=True)
    with running(streaming, lambda window: seen.set()):
        assert seen.wait(PATIENCE_S)
        with pytest.raises(GroupBusy):
            streaming.seek(0)


# -- errors


def test_an_error_becomes_a_row_and_the_consumer_goes_on(hub: ps.Hub) -> None:
    events(hub, 1, 2, key="a")
    events(hub, 3, 4, key="b")
    events(hub, 5, 6, key="a")

    def consumer(window: ps.Window) -> dict[str, Any]:
        if 2 in ns(window):
            raise ValueError("no good")
        return {"of": ns(window)}

    streaming = hub.streams.get("e", lazy=True, size=2, by="key", group="g", into="out", retries=2, **NOW)
    done = streaming.apply(consumer)
    assert [row["of"] for row in hub.streams.get("out").rows()] == [[0, 1], [4, 5]]
    (error,) = hub.streams.get("e.errors").rows()
    detail = error.pop("detail")
    assert error == {
        "stream": "e",
        "consumer": "g",
        "first_offset": 2,
        "next_offset": 4,
        "key": "b",
        "error": "ValueError",
        "message": "no good",
        "attempts": 3,
        "raw": None,
    }
    assert 'raise ValueError("no good")' in detail
    assert (done.windows, done.results, done.errors, done.retries) == (3, 2, 1, 2)
    assert left(hub, "e", "g") == []
    assert streaming.apply(consumer).windows == 0


def test_a_retry_that_works(hub: ps.Hub) -> None:
    numbers(hub, 1)
    tries: list[int] = []

    def consumer(window: ps.Window) -> dict[str, Any]:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("try again")
        return {"tries": len(tries)}

    done = hub.streams.get("s", lazy=True, into="out", retries=5, **NOW).apply(consumer)
    assert hub.streams.get("out").rows() == [{"tries": 3}]
    assert (done.errors, done.retries) == (0, 2)
    assert not hub.streams.exists("s.errors")


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_an_error_without_text(hub: ps.Hub) -> None:
    numbers(hub, 2)

    def consumer(window: ps.Window) -> None:
        raise Odd if ns(window) == [0] else ValueError("lone \udcff surrogate")

    hub.streams.get("s", lazy=True, **NOW).apply(consumer)
    messages = [row["message"] for row in hub.streams.get("s.errors").rows()]
    assert messages == ["(its text cannot be made)", "lone ? surrogate"]


def test_stop_on_error(hub: ps.Hub) -> None:
    numbers(hub, 6)
    streaming = hub.streams.get("s", lazy=True, size=2, on_error="stop", into="out", **NOW)

    def consumer(window: ps.Window) -> dict[str, Any]:
        if 2 in ns(window):
            raise ValueError("no good")
        return {"of": ns(window)}

    with pytest.raises(ConsumerFailed, match=r"raised ValueError: no good - on offsets 2 to 4 of 's', group") as caught:
        streaming.apply(consumer)
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.offsets == range(2, 4)  # type: ignore[attr-defined]
    assert left(hub) == [2, 3, 4, 5]
    assert not hub.streams.exists("s.errors")
    streaming.apply(lambda window: {"of": ns(window)})
    assert [row["of"] for row in hub.streams.get("out").rows()] == [[0, 1], [2, 3], [4, 5]]


def test_an_interrupt_leaves_its_window_uncommitted(hub: ps.Hub) -> None:
    numbers(hub, 6)

    def consumer(window: ps.Window) -> dict[str, Any]:
        if 2 in ns(window):
            raise KeyboardInterrupt
        return {"of": ns(window)}

    streaming = hub.streams.get("s", lazy=True, size=2, into="out", **NOW)
    with pytest.raises(KeyboardInterrupt):
        streaming.apply(consumer)
    assert left(hub) == [2, 3, 4, 5]
    streaming.apply(lambda window: {"of": ns(window)})
    assert [row["of"] for row in hub.streams.get("out").rows()] == [[0, 1], [2, 3], [4, 5]]
    assert left(hub) == []


def test_a_row_without_a_time_goes_to_the_errors(hub: ps.Hub) -> None:
    stream = hub.streams.get("s")
    rows: list[dict[str, Any]] = [{"t": n * S, "n": n} for n in range(200)]
    for bad in (0, 5, 6, 7, 150, 199):
        rows[bad] = {"n": bad}
    stream.append(rows)
    streaming = hub.streams.get("s", lazy=True, interval=50, time="t", into="out", **NOW)
    streaming.apply(lambda window: {"count": len(window)})
    assert [row["count"] for row in hub.streams.get("out").rows()] == [46, 50, 50]
    errors = hub.streams.get("s.errors").rows()
    assert [(row["first_offset"], row["next_offset"], row["error"]) for row in errors] == [
        (bad, bad + 1, "WindowError") for bad in (0, 5, 6, 7, 150, 199)
    ]
    assert left(hub) == list(range(151, 200))
    stream.append({"t": 210 * S, "n": 200})
    for path in (hub.path / "streams" / "s" / "groups").glob("*.state"):
        path.unlink()
    streaming.apply(lambda window: {"count": len(window)})
    assert [row["count"] for row in hub.streams.get("out").rows()] == [46, 50, 50, 48]
    assert hub.streams.get("s.errors").next_offset == 6


def test_a_row_without_a_time_can_stop_the_consumer(hub: ps.Hub) -> None:
    hub.streams.put([{"t": 1}, {"n": 1}], "s")
    streaming = hub.streams.get("s", lazy=True, interval=50, time="t", on_error="stop", **NOW)
    with pytest.raises(WindowError, match="in field 't' of document 1"):
        streaming.apply(lambda window: None)
    assert left(hub) == [0, 1]


# -- late rows


def test_late_rows_to_the_side(hub: ps.Hub) -> None:
    events(hub, 10, 13, 11, 14, 10.5, 20)
    streaming = hub.streams.get("e", lazy=True, interval=2, late="side", **NOW)
    done = streaming.apply(lambda window: None)
    assert hub.streams.get("e.late").read()["n"].to_pylist() == [2, 4]
    assert done.late == 2
    assert done.windows == 3
    assert left(hub, "e") == [5]
    streaming.apply(lambda window: None)
    assert hub.streams.get("e.late").next_offset == 2


def test_late_rows_dropped_and_emitted(hub: ps.Hub) -> None:
    events(hub, 10, 13, 11, 20)
    streaming = hub.streams.get("e", lazy=True, interval=2)
    assert run(streaming) == [[0], [1]]
    assert streaming.statistics().late == 1
    assert run(hub.streams.get("e", lazy=True, interval=2, late="emit", group="g")) == [[0], [2], [1]]
    assert run(hub.streams.get("e", lazy=True, interval=2, lateness=3, group="h")) == [[0, 2], [1]]


# -- holding a group


def test_a_group_has_one_consumer(hub: ps.Hub) -> None:
    numbers(hub, 1)
    seen = threading.Event()
    with running(hub.streams.get("s", lazy=True), lambda window: seen.set()):
        assert seen.wait(PATIENCE_S)
        with pytest.raises(GroupBusy, match=r"group 'default' of stream 's' is held by process \d+"):
            hub.streams.get("s", lazy=True, **NOW).apply(lambda window: None)
        assert run(hub.streams.get("s", lazy=True, group="other")) == [[0]]


def test_standby_takes_over(hub: ps.Hub) -> None:
    stream = numbers(hub, 1)
    first, second = threading.Event(), threading.Event()
    with running(hub.streams.get("s", lazy=True), lambda window: first.set()) as stop:
        assert first.wait(PATIENCE_S)
        with running(hub.streams.get("s", lazy=True, standby=True), lambda window: second.set()):
            stop.set()
            stream.append({"n": 1})
            while left(hub):  # by the first, if it looks once more before it stops, else by the second
                pass
            numbers(hub, 1)
            assert second.wait(PATIENCE_S)


def test_standby_can_be_stopped(hub: ps.Hub) -> None:
    numbers(hub, 1)
    seen = threading.Event()
    with running(hub.streams.get("s", lazy=True), lambda window: seen.set()):
        assert seen.wait(PATIENCE_S)
        standby = hub.streams.get("s", lazy=True, standby=True)
        with running(standby, lambda window: None):
            pass
        assert standby.apply(lambda window: None, until=datetime.now(UTC)).windows == 0


# -- numbers


def test_statistics(hub: ps.Hub) -> None:
    numbers(hub, 5)
    streaming = hub.streams.get("s", lazy=True, size=2, **NOW)
    assert streaming.statistics() == type(streaming.statistics())()
    done = streaming.apply(lambda window: None, max_windows=1)
    assert done == streaming.statistics()
    assert (done.rows, done.windows, done.skipped, done.next_offset, done.lag) == (5, 1, 0, 5, 0)
    done = streaming.apply(lambda window: None)
    assert (done.windows, done.skipped) == (1, 1)


# -- options that cannot be


@pytest.mark.parametrize(
    "options, message",
    [
        ({"group": ""}, "expected the name of a group, got ''"),
        ({"group": 5}, "expected the name of a group, got 5"),
        ({"on_error": "raise"}, 'expected on_error "skip" or "stop", got \'raise\''),
        ({"retries": -1}, "expected retries of at least 0, got -1"),
        ({"retries": True}, "expected retries of at least 0, got True"),
        ({"standby": 1}, "expected standby True or False, got 1"),
        ({"into": 5}, "expected into: a stream or its name, got 5"),
        ({"size": 2, "interval": 3}, "expected either size or interval, got size=2 and interval=3"),
        ({"relaxed": True}, "expected interval with relaxed, got relaxed=True alone"),
        ({"max_windows": 0}, "expected max_windows of at least 1, got 0"),
        ({"timeout": -1}, "expected timeout: seconds, at least 0, got -1"),
        ({"blocking": 1}, "expected blocking True or False, got 1"),
        ({"flush": None}, "expected flush True or False, got None"),
        ({"stop": 5}, "expected stop: a threading.Event, got 5"),
        ({"until": -1}, "expected until: an offset, a time with its zone, or a function of the window, got -1"),
        ({"until": datetime(2026, 1, 1)}, "expected a datetime with a time zone"),  # noqa: DTZ001
        ({"wait": True}, "expected an option of windows, got wait=True"),
    ],
    ids=str,
)
def test_options_are_checked_at_once(hub: ps.Hub, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        hub.streams.get("s", lazy=True, **options)
    assert message in str(caught.value)


def test_options_of_apply_are_checked(hub: ps.Hub) -> None:
    streaming = hub.streams.get("s", lazy=True)
    with pytest.raises(UsageError, match=r"expected options blocking, flush, .*, got group - in apply on 's'; other"):
        streaming.apply(print, group="g")
    with pytest.raises(UsageError, match="expected a function of a window, got 5"):
        streaming.apply(5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expected max_windows of at least 1, got 0"):
        streaming.apply(print, max_windows=0)


def test_columns_are_checked_at_once(hub: ps.Hub) -> None:
    hub.streams.get("e", schema=EVENTS)
    with pytest.raises(WindowError, match=r"expected a column 'kay', .*; did you mean 'key'\?"):
        hub.streams.get("e", lazy=True, size=2, by="kay")


def test_checking_leaves_the_emitter_as_it_was(hub: ps.Hub) -> None:
    """Bound to one stream, an emitter would keep its clock on the next."""
    emitter = W.FixedTimeWindow(2)
    numbers(hub, 1)
    hub.streams.get("s", lazy=True, emitter=emitter)
    events(hub, 10, 12)
    assert run(hub.streams.get("e", lazy=True, emitter=emitter)) == [[0]]


# -- async


def test_aapply(hub: ps.Hub) -> None:
    numbers(hub, 3)
    out: list[int] = []

    async def main() -> None:
        streaming = hub.streams.get("s", lazy=True, **NOW)
        done = await streaming.aapply(lambda window: out.extend(ns(window)))
        assert done.windows == 3

    asyncio.run(main())
    assert out == [0, 1, 2]


def test_aapply_of_an_async_function(hub: ps.Hub) -> None:
    numbers(hub, 3)

    async def consumer(window: ps.Window) -> dict[str, Any]:
        await asyncio.sleep(0)
        if ns(window) == [1]:
            raise ValueError("no good")
        return {"thread": threading.current_thread() is threading.main_thread(), "n": ns(window)[0]}

    streaming = hub.streams.get("s", lazy=True, into="out", **NOW)
    asyncio.run(streaming.aapply(consumer))
    assert hub.streams.get("out").rows() == [{"thread": True, "n": 0}, {"thread": True, "n": 2}]
    assert hub.streams.get("s.errors").rows()[0]["first_offset"] == 1
    with pytest.raises(UsageError, match=r"expected a plain function of a window, got the async function .*aapply"):
        streaming.apply(consumer)


def test_aapply_cancelled_commits_the_window_in_hand(hub: ps.Hub) -> None:
    numbers(hub, 3)
    begun, go = threading.Event(), threading.Event()
    shared = threading.Event()

    def consumer(window: ps.Window) -> dict[str, Any]:
        begun.set()
        assert go.wait(PATIENCE_S)
        return {"n": ns(window)[0]}

    async def main() -> None:
        task = asyncio.create_task(hub.streams.get("s", lazy=True, into="out", stop=shared).aapply(consumer))
        assert await asyncio.to_thread(begun.wait, PATIENCE_S)
        task.cancel()
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert hub.streams.get("out").rows() == [{"n": 0}]
    assert left(hub) == [1, 2]
    assert not shared.is_set()  # others may wait for it


def test_aapply_stopped_by_an_event(hub: ps.Hub) -> None:
    numbers(hub, 1)
    stop = threading.Event()

    async def main() -> int:
        return (await hub.streams.get("s", lazy=True, stop=stop).aapply(lambda window: stop.set())).windows

    assert asyncio.run(main()) == 1
    with pytest.raises(UsageError, match="expected stop: a threading.Event, got 5"):
        asyncio.run(hub.streams.get("s", lazy=True).aapply(print, stop=5))


def test_aapply_error(hub: ps.Hub) -> None:
    numbers(hub, 1)

    def consumer(window: ps.Window) -> None:
        raise ValueError("no good")

    with pytest.raises(ConsumerFailed):
        asyncio.run(hub.streams.get("s", lazy=True, on_error="stop").aapply(consumer))


def test_many_aapply_leave_threads_for_appends(hub: ps.Hub) -> None:
    stream = hub.streams.get("s")
    count = 40

    async def main() -> None:
        came: list[str] = []
        tasks = [
            asyncio.create_task(
                hub.streams.get("s", lazy=True, group=f"g{i}", max_windows=1).aapply(lambda window: came.append("x"))
            )
            for i in range(count)
        ]
        await stream.aappend({"n": 1})
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)
        assert len(came) == count

    asyncio.run(main())


def test_a_cancelled_loop_leaves_the_async_window_uncommitted(hub: ps.Hub) -> None:
    numbers(hub, 2)

    async def main() -> None:
        begun = asyncio.Event()

        async def consumer(window: ps.Window) -> dict[str, Any]:
            begun.set()
            await asyncio.Event().wait()
            return {"n": 1}

        task = asyncio.create_task(hub.streams.get("s", lazy=True, into="out").aapply(consumer))
        await begun.wait()
        for other in asyncio.all_tasks() - {asyncio.current_task(), task}:
            other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert hub.streams.get("out").rows() == []
    assert not hub.streams.exists("s.errors")
    assert left(hub) == [0, 1]
