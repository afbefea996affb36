"""Where a run begins, what it does again and what not: restarts, marks, snapshots, and a log that changes meanwhile."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import penstock as ps
from penstock import window as W
from penstock.errors import (
    DiskFull,
    OffsetError,
    PenstockWarning,
    RecordError,
    SchemaMismatch,
    UnknownStream,
    WindowError,
)
from penstock.log import Position
from penstock.testing import ManualClock
from penstock.window import history, runner
from penstock_tests.rows import EVENTS, events, left, ns, numbers
from penstock_tests.waiting import PATIENCE_S

NOW = {"blocking": False}
S = 1_000_000_000


def listed(window: ps.Window) -> dict[str, Any]:
    return {"of": ns(window)}


def results(hub: ps.Hub, name: str = "out") -> list[list[int]]:
    return [row["of"] for row in hub.streams.get(name).rows()]


def folder(hub: ps.Hub, name: str = "s") -> Path:
    return hub.path / "streams" / name


def forget(hub: ps.Hub, name: str = "s") -> None:
    """Delete the snapshots of all groups."""
    found = list((folder(hub, name) / "groups").glob("*.state"))
    assert found
    for path in found:
        path.unlink()


def killed(work: Callable[[], object], point: Callable[[pytest.MonkeyPatch], object] = lambda patch: None) -> None:
    """Run `work` in a child that ends at `point`, at once and with nothing tidied up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads; none of them works for the child
        child = os.fork()
    if child == 0:
        try:
            with pytest.MonkeyPatch.context() as patch:
                point(patch)
                work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def at(thing: Any, name: str, *, call: int = 1, after: bool = False) -> Callable[[pytest.MonkeyPatch], None]:
    """The point right before, or after, the n-th call of a method."""

    def point(patch: pytest.MonkeyPatch) -> None:
        real = getattr(thing, name)
        calls = [0]

        def dying(*args: Any, **options: Any) -> Any:
            calls[0] += 1
            if calls[0] == call and not after:
                os._exit(9)
            found = real(*args, **options)
            if calls[0] == call:
                os._exit(9)
            return found

        patch.setattr(thing, name, dying)

    return point


# -- restarts


@pytest.mark.parametrize("gone", ["", "state", "groups", "groups and positions"])
def test_results_are_not_doubled(hub: ps.Hub, gone: str) -> None:
    """Whatever is lost of what a group keeps, the results know how far it was."""
    streaming = hub.streams.get("s", lazy=True, size=3, into="out", **NOW)
    for count in (4, 1, 7, 9, 3):
        numbers(hub, count)
        streaming.apply(listed)
        if gone == "state":
            forget(hub)
        elif gone:
            shutil.rmtree(folder(hub) / "groups")
        if gone == "groups and positions":
            hub.close()
            for path in hub.path.glob("hub.sqlite*"):
                path.unlink()
    assert results(hub) == [[n, n + 1, n + 2] for n in range(0, 24, 3)]


@pytest.mark.parametrize("gone", [False, True])
def test_an_early_end_loses_no_row_of_its_chunk(hub: ps.Hub, gone: bool) -> None:
    numbers(hub, 20)
    streaming = hub.streams.get("s", lazy=True, size=3, into="out", **NOW)
    for limits in ({"max_windows": 1}, {"until": lambda window: True}, {"until": 11}, {"max_windows": 2}, {}):
        streaming.apply(listed, **limits)
        if gone:
            forget(hub)
    assert results(hub) == [[n, n + 1, n + 2] for n in range(0, 18, 3)]
    assert left(hub) == [18, 19]


def test_replaying_does_not_take_back_what_was_committed(hub: ps.Hub) -> None:
    numbers(hub, 3)
    streaming = hub.streams.get("s", lazy=True, into="out", **NOW)
    streaming.apply(listed)
    forget(hub)
    streaming.apply(listed, until=1)
    assert left(hub) == []
    assert hub.streams.get("s").position("default").low == 3


def test_an_interrupt_in_the_emitter_loses_nothing(hub: ps.Hub) -> None:
    """Between reading rows and handing out their windows there is no place where they could fall through."""

    class Interrupted(W.CustomWindow):
        def cuts(self, pending: ps.Window) -> list[int]:
            if strike and pending.data[-1]["n"] == 5:
                strike.clear()
                raise KeyboardInterrupt
            return list(range(2, len(pending) + 1, 2))

    strike = [True]
    numbers(hub, 3)
    streaming = hub.streams.get("s", lazy=True, emitter=Interrupted(), into="out", **NOW)
    streaming.apply(listed)
    numbers(hub, 3)
    with pytest.raises(KeyboardInterrupt):
        streaming.apply(listed)
    assert left(hub) == [2, 3, 4, 5]
    streaming.apply(listed)
    assert results(hub) == [[0, 1], [2, 3], [4, 5]]


def test_a_failure_before_the_windows_are_handed_out_loses_nothing(hub: ps.Hub) -> None:
    hub.streams.get("e.late", schema=pa.schema({"n": pa.string()}))
    events(hub, 10, 13, 11, 20)
    streaming = hub.streams.get("e", lazy=True, interval=2, late="side", into="out", **NOW)
    with pytest.raises(SchemaMismatch):
        streaming.apply(listed)
    assert left(hub, "e") == [0, 1, 2, 3]
    hub.streams.drop("e.late")
    streaming.apply(listed)
    assert results(hub) == [[0], [1]]
    assert hub.streams.get("e.late").read()["n"].to_pylist() == [2]


def test_a_result_that_was_appended_but_not_committed(hub: ps.Hub) -> None:
    numbers(hub, 4)
    calls: list[int] = []

    def consumer(window: ps.Window) -> dict[str, Any]:
        calls.extend(ns(window))
        return listed(window)

    streaming = hub.streams.get("s", lazy=True, into="out", **NOW)
    killed(lambda: streaming.apply(consumer), at(runner.Group, "commit", call=2))
    assert results(hub) == [[0], [1]]
    assert hub.streams.get("s").position("default") == Position(1, 0)
    streaming.apply(consumer)
    assert results(hub) == [[0], [1], [2], [3]]
    assert calls == [2, 3]


def test_an_error_that_was_recorded_but_not_committed(hub: ps.Hub) -> None:
    numbers(hub, 3)

    def consumer(window: ps.Window) -> dict[str, Any]:
        if ns(window) == [1]:
            raise ValueError
        return listed(window)

    streaming = hub.streams.get("s", lazy=True, into="out", **NOW)
    killed(lambda: streaming.apply(consumer), at(runner.Group, "commit", call=2))
    streaming.apply(consumer)
    assert results(hub) == [[0], [2]]
    assert hub.streams.get("s.errors").next_offset == 1


def test_none_after_results_is_not_asked_again(hub: ps.Hub) -> None:
    numbers(hub, 4)
    streaming = hub.streams.get("s", lazy=True, into="out", **NOW)
    killed(
        lambda: streaming.apply(lambda window: listed(window) if ns(window) == [0] else None),
        at(runner.Group, "commit", call=3, after=True),
    )
    calls: list[list[int]] = []
    streaming.apply(lambda window: calls.append(ns(window)))
    assert calls == [[3]]


def test_a_group_keeps_its_place_when_start_is_no_longer_kept(hub: ps.Hub) -> None:
    stream = hub.streams.get("s", retention={"bytes": 0})
    numbers(hub, 4)
    streaming = hub.streams.get("s", lazy=True, start=1, **NOW)
    seen: list[list[int]] = []
    streaming.apply(lambda window: seen.append(ns(window)))
    stream.seal()
    numbers(hub, 2)
    stream.retain()
    assert stream.first_offset == 4
    streaming.apply(lambda window: seen.append(ns(window)))
    assert seen == [[1], [2], [3], [4], [5]]
    with pytest.raises(OffsetError):
        hub.streams.get("s", lazy=True, start=1, group="new", **NOW).apply(print)


# -- marks


def wall(hub: ps.Hub) -> tuple[ManualClock, Any]:
    """Windows of an hour by append time, and a clock that closes them."""
    clock = ManualClock(0)
    return clock, hub.streams.get("s", lazy=True, interval="1h", into="out", clock=clock, **NOW)


def later(clock: ManualClock, hours: float = 2) -> None:
    """Let `hours` go by, counted from now at first."""
    clock.advance(ns=max(0, int(datetime.now(UTC).timestamp() * S) - clock.now_ns()))
    clock.advance(hours * 3600)


@pytest.mark.parametrize(
    "point",
    [
        at(history.History, "record"),
        at(history.History, "record", after=True),
        at(runner.Results, "put"),
        at(runner.Results, "put", after=True),
        at(runner.Group, "commit"),
        at(runner.Group, "commit", after=True),
        at(runner.Group, "save_state", call=2),
    ],
)
def test_a_mark_is_replayed_where_it_was(hub: ps.Hub, point: Callable[[pytest.MonkeyPatch], None]) -> None:
    clock, streaming = wall(hub)
    numbers(hub, 3)
    later(clock)
    killed(lambda: streaming.apply(listed), point)
    numbers(hub, 2)
    later(clock)
    for _ in range(2):
        streaming.apply(listed)
        forget(hub)
    assert results(hub) in ([[0, 1, 2], [3, 4]], [[0, 1, 2, 3, 4]])
    recorded = hub.streams.exists("_marks/s/default") and hub.streams.get("_marks/s/default").next_offset
    assert recorded == len(results(hub))


def test_windows_of_one_mark_are_done_one_by_one(hub: ps.Hub) -> None:
    clock = ManualClock(0)
    streaming = hub.streams.get("e", lazy=True, interval=5, relaxed=True, by="key", into="out", clock=clock, **NOW)
    stream = events(hub, 1, 2)
    stream.append({"ts_event": 3, "key": "b", "n": 2})
    stream.append({"ts_event": 3, "key": "c", "n": 3})
    later(clock)
    streaming.apply(listed, max_windows=1)
    assert results(hub) == [[0, 1]]
    assert left(hub, "e") == [2, 3]
    events(hub, 4)
    streaming.apply(listed, max_windows=1)
    assert results(hub) == [[0, 1], [2]]
    later(clock)
    streaming.apply(listed)
    assert results(hub) == [[0, 1], [2], [3], [4]]


def test_a_flush_is_replayed(hub: ps.Hub) -> None:
    streaming = hub.streams.get("s", lazy=True, size=3, into="out", **NOW)
    numbers(hub, 4)
    streaming.apply(listed, flush=True)
    numbers(hub, 4)
    killed(lambda: streaming.apply(listed, flush=True), at(history.History, "record", after=True))
    forget(hub)
    numbers(hub, 4)
    streaming.apply(listed)
    assert results(hub) == [[0, 1, 2], [3], [4, 5, 6], [7], [8, 9, 10]]


def test_no_flush_before_the_place_that_was_reached(hub: ps.Hub) -> None:
    """Flushed there, the windows behind it would be others than those that are done."""
    streaming = hub.streams.get("s", lazy=True, size=4, into="out", **NOW)
    numbers(hub, 10)
    streaming.apply(listed)
    forget(hub)
    streaming.apply(listed, until=6, flush=True)
    streaming.apply(listed, flush=True)
    forget(hub)
    streaming.apply(listed, until=9, flush=True)  # before a flush that is on record
    streaming.apply(listed)
    assert results(hub) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_until_before_a_recorded_mark(hub: ps.Hub) -> None:
    clock, streaming = wall(hub)
    for _ in range(3):
        numbers(hub, 2)
        later(clock)
        streaming.apply(listed)
    forget(hub)
    streaming.apply(listed, until=3)
    numbers(hub, 2)
    later(clock)
    streaming.apply(listed)
    assert results(hub) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_a_clock_that_steps_back(hub: ps.Hub) -> None:
    """Wall time that falls closes nothing twice, and rows of that time go into the windows that are still open."""
    clock, streaming = wall(hub)
    numbers(hub, 2)
    later(clock, 48)
    streaming.apply(listed)
    clock._now -= 24 * 3600 * S
    numbers(hub, 2)
    streaming.apply(listed)
    assert results(hub) == [[0, 1]]
    clock.advance(23 * 3600)
    streaming.apply(listed)
    assert results(hub) == [[0, 1]]
    clock.advance(3 * 3600)
    streaming.apply(listed)
    forget(hub)
    streaming.apply(listed)
    assert results(hub) == [[0, 1], [2, 3]]


def test_idle_after_a_restart_reads_what_is_there_first(hub: ps.Hub) -> None:
    """What was appended while no consumer ran is older than the mark that closes windows of idle streams."""
    clock = ManualClock(0)
    hub.streams.get("e", schema=EVENTS)
    streaming = hub.streams.get("e", lazy=True, interval=10, lateness=5, idle=60, into="out", clock=clock, **NOW)
    now = datetime.now(UTC).timestamp() // 10 * 10 + 10
    events(hub, now, now + 1)
    streaming.apply(listed)
    events(hub, now + 3)
    events(hub, now + 11, now + 4)  # in time, within the lateness
    later(clock)
    streaming.apply(listed)
    assert results(hub) == [[0, 1, 2, 4], [3]]
    forget(hub, "e")
    streaming.apply(listed)
    events(hub, now + 5, now + 7300)
    streaming.apply(listed)
    assert results(hub) == [[0, 1, 2, 4], [3]]
    assert streaming.statistics().late == 1


@pytest.mark.parametrize("names", [("a/b", "c", "a", "b/c"), ("s" * 150, "g" * 60, "s" * 150, "g" * 59)])
def test_marks_of_two_groups_are_apart(hub: ps.Hub, names: tuple[str, str, str, str]) -> None:
    clock = ManualClock(0)
    for stream, group in (names[:2], names[2:]):
        hub.streams.get(stream).append({"n": 1})
        later(clock)
        streaming = hub.streams.get(stream, lazy=True, interval="1h", group=group, into="out", clock=clock, **NOW)
        streaming.apply(listed)
    found = hub.streams.list("_marks/*")
    assert len(found) == 2
    assert [hub.streams.get(name).next_offset for name in found] == [1, 1]


def test_dropping_a_stream_drops_its_marks(hub: ps.Hub) -> None:
    clock, streaming = wall(hub)
    numbers(hub, 1)
    later(clock)
    streaming.apply(listed)
    hub.streams.put({"n": 1}, "s2")
    hub.streams.get("s2", lazy=True, size=2, flush=True, **NOW).apply(print)
    assert hub.streams.list("_marks/*") == ["_marks/s/default", "_marks/s2/default"]
    hub.streams.drop("s")
    assert hub.streams.list("_marks/*") == ["_marks/s2/default"]


# -- another emitter


def test_a_snapshot_of_other_windows_is_refused(hub: ps.Hub) -> None:
    numbers(hub, 7)
    hub.streams.get("s", lazy=True, size=5, into="out", **NOW).apply(listed)
    other = hub.streams.get("s", lazy=True, size=2, into="out", **NOW)
    message = (
        r"snapshot was made for CountWindow\(size=5.*\) \[\w+\], this emitter is CountWindow\(size=2.*\) \[\w+\]"
        r" - in group 'default' of stream 's'; use the options of before, or another group=; or let this one begin anew"
        r" where it stands: `penstock stream seek s default 5`"
    )
    with pytest.raises(WindowError, match=message):
        other.apply(listed)
    assert other.seek(5) == 5
    other.apply(listed)
    assert results(hub) == [[0, 1, 2, 3, 4], [5, 6]]


def test_a_group_that_was_moved_begins_a_new_history(hub: ps.Hub) -> None:
    """Marks and results of before belong to windows that are no more."""
    clock, streaming = wall(hub)
    for _ in range(2):
        numbers(hub, 2)
        later(clock)
        streaming.apply(listed)
    for gone in (False, True):
        streaming.seek(1)
        if gone:
            forget(hub)  # then it takes the old history for its own, but goes on from where it was put
        later(clock)
        streaming.apply(listed)
        forget(hub)
        streaming.apply(listed)
    assert results(hub)[:3] == [[0, 1], [2, 3], [1, 2, 3]]


def test_a_group_that_was_moved_by_the_log(hub: ps.Hub) -> None:
    """As `penstock stream seek` does it."""
    stream = numbers(hub, 4)
    streaming = hub.streams.get("s", lazy=True, size=2, into="out", **NOW)
    streaming.apply(listed)
    group = stream.group("default")
    group.reset(1)
    group.close()
    killed(lambda: streaming.apply(listed), at(runner.Results, "put", after=True))
    streaming.apply(listed)
    numbers(hub, 1)
    streaming.apply(listed)
    assert results(hub) == [[0, 1], [2, 3], [1, 2], [3, 4]]


def test_a_snapshot_of_another_version_is_passed_over(hub: ps.Hub) -> None:
    numbers(hub, 4)
    streaming = hub.streams.get("s", lazy=True, size=3, into="out", **NOW)
    streaming.apply(listed)
    group = hub.streams.get("s").group("default")
    group.save_state(b"something else")
    group.close()
    numbers(hub, 2)
    streaming.apply(listed)
    assert results(hub) == [[0, 1, 2], [3, 4, 5]]


# -- a log that loses rows


def test_rows_dropped_before_a_group_has_read_them(hub: ps.Hub) -> None:
    stream = numbers(hub, 5)
    streaming = hub.streams.get("s", lazy=True, size=2, into="out", **NOW)
    streaming.apply(listed, max_windows=1)
    hub.streams.get("s", retention={"bytes": 0})
    stream.seal()
    numbers(hub, 3)
    stream.retain()
    with pytest.warns(PenstockWarning, match=r"stream 's': offsets 2 to 5 were dropped by its retention before group"):
        streaming.apply(listed)
    assert results(hub) == [[0, 1], [5, 6]]
    assert left(hub) == [7]
    numbers(hub, 1)
    streaming.apply(listed)
    assert results(hub) == [[0, 1], [5, 6], [7, 8]]


@pytest.mark.parametrize("gone", [False, True])
def test_rows_of_open_windows_dropped(hub: ps.Hub, gone: bool) -> None:
    stream = numbers(hub, 5)
    streaming = hub.streams.get("s", lazy=True, size=3, into="out", **NOW)
    streaming.apply(listed)
    hub.streams.get("s", retention={"bytes": 0})
    stream.seal()
    numbers(hub, 4)
    stream.retain()
    if gone:
        forget(hub)
    with pytest.warns(PenstockWarning, match=r"offsets 3 to 5 were dropped"):
        streaming.apply(listed)
    assert results(hub) == [[0, 1, 2], [5, 6, 7]]
    numbers(hub, 2)
    streaming.apply(listed)
    assert results(hub) == [[0, 1, 2], [5, 6, 7], [8, 9, 10]]


def test_a_history_that_was_dropped_after_it_was_done(hub: ps.Hub) -> None:
    """Without snapshot and without the rows of the past, the group goes on with what is still to do."""
    stream = numbers(hub, 4)
    streaming = hub.streams.get("s", lazy=True, size=3, into="out", **NOW)
    streaming.apply(listed, flush=True)
    hub.streams.get("s", retention={"bytes": 0})
    stream.seal()
    numbers(hub, 4)
    stream.retain()
    forget(hub)
    streaming.apply(listed)
    assert results(hub) == [[0, 1, 2], [3], [4, 5, 6]]


def test_rows_dropped_while_a_consumer_runs(hub: ps.Hub) -> None:
    for _ in range(3):
        numbers(hub, 2).seal()
    streaming = hub.streams.get("s", lazy=True, into="out", **NOW)

    def consumer(window: ps.Window) -> dict[str, Any]:
        if ns(window) == [0]:
            numbers(hub, 2)
            hub.streams.get("s", retention={"bytes": 0}).retain()
        return listed(window)

    with pytest.warns(PenstockWarning, match=r"offsets 2 to 6 were dropped by its retention"):
        streaming.apply(consumer)
    assert results(hub) == [[0], [1], [6], [7]]


def test_retention_up_to_a_group_leaves_what_its_snapshot_needs(hub: ps.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_LOW_S", 0.0)
    stream = hub.streams.get("e", schema=EVENTS, retention={"until": "g"})
    for n in range(4):
        stream.append([{"ts_event": 0, "key": key, "n": n} for key in "ab"])
        stream.append([{"ts_event": 0, "key": "rare", "n": n}] if n == 0 else [])
        stream.seal()
    streaming = hub.streams.get("e", lazy=True, size=2, by="key", group="g", into="out", **NOW)
    streaming.apply(listed, until=3)
    killed(lambda: streaming.apply(listed), at(runner.Group, "commit", call=4, after=True))
    stream.retain()
    assert stream.first_offset == 0
    stream.append({"ts_event": 0, "key": "rare", "n": 9})
    streaming.apply(listed)
    assert results(hub) == [[0, 1], [0, 1], [2, 3], [2, 3], [0, 9]]
    stream.seal()
    stream.append({"ts_event": 0, "key": "a", "n": 10})
    stream.retain()
    assert stream.first_offset == 10


def test_a_log_that_lost_its_last_rows(hub: ps.Hub) -> None:
    """After a power loss: new rows get the offsets of the old ones, and must not be passed over."""
    streaming = hub.streams.get("s", lazy=True, size=2, into="out", **NOW)
    numbers(hub, 5)
    streaming.apply(listed)
    hub.close()
    shutil.copytree(folder(hub), hub.path / "copy")
    numbers(hub, 5)
    streaming.apply(listed)
    assert results(hub) == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    hub.close()
    for path in (hub.path / "copy").iterdir():
        if path.suffix in (".arrow", ".idx"):
            shutil.copy(path, folder(hub))
    with ps.open(hub.path) as again:
        streaming = again.streams.get("s", lazy=True, size=2, into="out", **NOW)
        with pytest.warns(PenstockWarning, match=r"stood at offset 10, but the stream ends at 5"):
            streaming.apply(listed)
        again.streams.get("s").append([{"n": 100 + n} for n in range(4)])
        streaming.apply(listed)
        streaming.apply(listed)
        assert results(again)[5:] == [[100, 101], [102, 103]]


def test_a_log_that_lost_rows_whose_results_are_there(hub: ps.Hub) -> None:
    """The group's own position may be the older one: then the results tell."""
    streaming = hub.streams.get("s", lazy=True, into="out", **NOW)
    numbers(hub, 3)
    streaming.apply(listed)
    hub.close()
    shutil.copytree(folder(hub), hub.path / "log")
    shutil.copy(hub.path / "hub.sqlite", hub.path / "copy.sqlite")
    numbers(hub, 3)
    streaming.apply(listed)
    hub.close()
    shutil.rmtree(folder(hub))
    shutil.copytree(hub.path / "log", folder(hub))
    for path in hub.path.glob("hub.sqlite*"):
        path.unlink()
    (hub.path / "copy.sqlite").rename(hub.path / "hub.sqlite")
    with ps.open(hub.path) as again:
        numbers(again, 2)
        streaming = again.streams.get("s", lazy=True, into="out", **NOW)
        with pytest.warns(
            PenstockWarning, match=r"ends at 5, but group 'default' had come to offset 6; it begins at 3"
        ):
            streaming.apply(listed)
        assert results(again) == [[0], [1], [2], [3], [4], [5], [3], [4]]


def test_a_group_that_begins_behind_the_end(hub: ps.Hub) -> None:
    streaming = hub.streams.get("s", lazy=True, start=4, into="out", **NOW)
    for _ in range(3):
        numbers(hub, 2)
        streaming.apply(listed)
    assert results(hub) == [[4], [5]]


# -- streams that come and go


def test_results_dropped_between_two_runs(hub: ps.Hub) -> None:
    numbers(hub, 3)
    streaming = hub.streams.get("s", lazy=True, into="out", **NOW)
    streaming.apply(listed)
    hub.streams.drop("out")
    numbers(hub, 2)
    streaming.apply(listed)
    assert results(hub) == [[3], [4]]


@pytest.mark.parametrize(
    "make",
    [
        lambda table: table.to_pylist(),
        lambda table: table,
        lambda table: table.to_reader(),  # can be read only once
    ],
)
def test_results_dropped_while_a_consumer_runs(hub: ps.Hub, make: Callable[[pa.Table], Any]) -> None:
    numbers(hub, 3)

    def consumer(window: ps.Window) -> Any:
        if ns(window) == [1]:
            hub.streams.drop("out")
        return make(pa.table({"of": [ns(window)]}))

    hub.streams.get("s", lazy=True, into="out", **NOW).apply(consumer)
    assert results(hub) == [[1], [2]]
    assert not hub.streams.exists("s.errors")


def test_a_stream_dropped_and_made_again(hub: ps.Hub) -> None:
    """Results, marks and errors of the old one say nothing about the new one."""
    clock = ManualClock(0)

    def consumer(window: ps.Window) -> dict[str, Any]:
        if 5 in ns(window):
            raise ValueError
        return listed(window)

    streaming = hub.streams.get("s", lazy=True, interval="1h", into="out", clock=clock, **NOW)
    for _ in range(3):
        numbers(hub, 2)
        later(clock)
        streaming.apply(consumer)
    assert results(hub) == [[0, 1], [2, 3]]
    marks = hub.path / "marks"
    shutil.copytree(folder(hub, "_marks%2Fs%2Fdefault"), marks)
    hub.streams.drop("s")
    shutil.copytree(marks, folder(hub, "_marks%2Fs%2Fdefault"))  # as if it had been killed while dropping
    streaming = hub.streams.get("s", lazy=True, interval="1h", into="out", clock=clock, **NOW)
    for _ in range(3):
        numbers(hub, 2)
        later(clock)
        streaming.apply(listed)
        forget(hub)
    assert results(hub) == [[0, 1], [2, 3], [0, 1], [2, 3], [4, 5]]


def test_a_stream_dropped_while_a_consumer_runs(hub: ps.Hub) -> None:
    numbers(hub, 4)
    streaming = hub.streams.get("s", lazy=True, size=2, into="out")

    def consumer(window: ps.Window) -> dict[str, Any]:
        if 2 in ns(window):
            hub.streams.drop("s")
        return listed(window)

    with pytest.raises(UnknownStream, match="was dropped"):
        streaming.apply(consumer)
    assert streaming.statistics().lag == 0
    numbers(hub, 3)
    assert left(hub) == [0, 1, 2]
    hub.streams.get("s", lazy=True, into="out", **NOW).apply(listed)
    assert results(hub) == [[0, 1], [2, 3], [0], [1], [2]]


def test_results_into_the_stream_of_late_rows(hub: ps.Hub) -> None:
    """Late rows run ahead of the windows, and must not be taken for them."""
    events(hub, 10, 14, 11, 12, 30, 40)
    streaming = hub.streams.get("e", lazy=True, interval=2, late="side", into="e.late", **NOW)

    def consumer(window: ps.Window) -> pa.Table:
        return window.table

    killed(lambda: streaming.apply(consumer), at(runner.Results, "put"))
    assert hub.streams.get("e.late").read()["n"].to_pylist() == [2, 3]
    streaming.apply(consumer)
    assert hub.streams.get("e.late").read()["n"].to_pylist() == [2, 3, 0, 1, 4]


def test_a_schema_widened_while_a_consumer_runs(hub: ps.Hub) -> None:
    stream = events(hub, 10, 13, 11)
    wide = EVENTS.append(pa.field("extra", pa.string()))
    streaming = hub.streams.get("e", lazy=True, interval=2, late="side", into="out", **NOW)
    seen: list[list[str | None]] = []

    def consumer(window: ps.Window) -> dict[str, Any]:
        if ns(window) == [0]:
            with ps.open(hub.path) as other:  # as another process does it
                widened = other.streams.get("e", schema=wide)
                widened.append([{"ts_event": t * S, "key": "k", "n": t, "extra": "x"} for t in (12, 13, 11, 14)])
        seen.append([row.get("extra") for row in window.data])
        return listed(window)

    streaming.apply(consumer)
    assert results(hub) == [[0], [1, 12, 13]]
    assert seen == [[None], [None, "x", "x"]]
    late = hub.streams.get("e.late").read()
    assert late["extra"].to_pylist() == [None, "x"]
    forget(hub, "e")
    stream.append({"ts_event": 20 * S, "key": "k", "n": 20})
    streaming.apply(consumer)
    assert results(hub) == [[0], [1, 12, 13], [14]]


def test_documents_that_become_a_table(hub: ps.Hub) -> None:
    """The clock of a stream without rows is that of the first rows, whatever the stream was when the consumer began."""
    streaming = hub.streams.get("e", lazy=True, interval=2, into="out")
    assert hub.streams.get("e").is_document
    seen = threading.Event()

    def consumer(window: ps.Window) -> dict[str, Any]:
        seen.set()
        return listed(window)

    stop = threading.Event()
    thread = threading.Thread(target=lambda: streaming.apply(consumer, stop=stop))
    thread.start()
    try:
        with ps.open(hub.path) as other:
            other.streams.get("e").append(pa.table({"ts_event": [10 * S, 11 * S, 13 * S], "n": [0, 1, 2]}))
        assert seen.wait(PATIENCE_S)
    finally:
        stop.set()
        thread.join(PATIENCE_S)
    forget(hub, "e")
    hub.streams.get("e").append(pa.table({"ts_event": [15 * S], "n": [3]}))
    hub.streams.get("e", lazy=True, interval=2, into="out", **NOW).apply(consumer)
    assert results(hub) == [[0, 1], [2]]


# -- trouble


def test_a_full_disk_stops_the_consumer_and_commits_nothing(hub: ps.Hub) -> None:
    numbers(hub, 3)
    streaming = hub.streams.get("s", lazy=True, into="out", retries=5, **NOW)
    calls: list[list[int]] = []

    def consumer(window: ps.Window) -> dict[str, Any]:
        calls.append(ns(window))
        if ns(window) == [1]:
            size = max(path.stat().st_size for path in folder(hub, "out").iterdir())
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
            return {"of": ns(window), "text": "x" * 100_000}
        return listed(window)

    def full() -> None:
        try:
            with pytest.raises(DiskFull):
                streaming.apply(consumer)
            assert calls == [[0], [1]]
        finally:
            os._exit(9 if calls == [[0], [1]] else 1)

    killed(full)
    assert results(hub) == [[0]]
    assert not hub.streams.exists("s.errors")
    streaming.apply(listed)
    assert results(hub) == [[0], [1], [2]]


def test_whose_fault_an_error_is(hub: ps.Hub) -> None:
    """A stream that the function looks for is its own affair; a log that cannot be written is not."""
    numbers(hub, 3)

    def looking(window: ps.Window) -> dict[str, Any]:
        if ns(window) == [0]:
            hub.streams.metadata("no such stream")
        if ns(window) == [1]:
            raise DiskFull("no room")
        return listed(window)

    streaming = hub.streams.get("s", lazy=True, into="out", **NOW)
    with pytest.raises(DiskFull):
        streaming.apply(looking)
    assert [row["error"] for row in hub.streams.get("s.errors").rows()] == ["UnknownStream"]
    assert left(hub) == [1, 2]


def test_results_that_cannot_be_read(hub: ps.Hub) -> None:
    """What a result raises while it is appended is its own fault."""

    def broken() -> Iterator[pa.RecordBatch]:
        yield pa.RecordBatch.from_pydict({"of": [1]})
        raise ValueError("no more")

    numbers(hub, 2)
    hub.streams.get("out", schema=pa.schema({"of": pa.int64()}))

    def consumer(window: ps.Window) -> Any:
        if ns(window) == [0]:
            return pa.RecordBatchReader.from_batches(pa.schema({"of": pa.int64()}), broken())
        return {"of": 1}

    hub.streams.get("s", lazy=True, into="out", **NOW).apply(consumer)
    assert hub.streams.get("out").read()["of"].to_pylist() == [1]
    (error,) = hub.streams.get("s.errors").rows()
    assert "no more" in error["message"]


def test_rows_that_bars_cannot_use_stop_the_consumer(hub: ps.Hub) -> None:
    stream = hub.streams.get(
        "t", schema=pa.schema({"symbol": pa.string(), "ts_event": pa.int64(), "price": pa.string()})
    )
    stream.append({"symbol": "A", "ts_event": 1, "price": "x"})
    streaming = hub.streams.get("t", lazy=True, emitter=W.Bars("1m", size=None), into="bars", **NOW)
    with pytest.raises((RecordError, WindowError)):
        streaming.apply()
    assert left(hub, "t") == [0]


def test_an_emitter_that_fails_leaves_no_trace(hub: ps.Hub) -> None:
    """What it had closed by then is closed again in the next run."""
    events(hub, 1, 2, 11)
    streaming = hub.streams.get("e", lazy=True, interval=10, emit_empty=True, into="out", **NOW)
    streaming.apply(listed)
    assert results(hub) == [[0, 1]]
    events(hub, 12, 21, 1e9)
    for _ in range(2):
        with pytest.raises(WindowError, match="at most 1000000 empty windows at once"):
            streaming.apply(listed)
        assert left(hub, "e") == [2, 3, 4, 5]
    streaming.apply(listed, until=5)
    assert results(hub) == [[0, 1], [2, 3]]


def test_a_child_forked_by_the_function_commits_nothing(hub: ps.Hub) -> None:
    numbers(hub, 3)
    streaming = hub.streams.get("s", lazy=True, into="out", **NOW)

    def consumer(window: ps.Window) -> dict[str, Any]:
        if ns(window) == [1]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if child == 0:
                sys.exit(5)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
        return listed(window)

    parent = os.getpid()
    try:
        streaming.apply(consumer)
    except SystemExit as error:
        if os.getpid() != parent:
            os._exit(int(str(error.code)))
        raise
    assert results(hub) == [[0], [1], [2]]
    assert hub.streams.get("s").position("default") == Position(3, 0)


def test_snapshots_are_taken_while_it_runs(hub: ps.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed consumer does not read everything again."""
    monkeypatch.setattr(runner, "SNAPSHOT_S", 0.0)
    stream = hub.streams.get("s", segment_bytes=1000)
    for _ in range(20):
        numbers(hub, 3)
    streaming = hub.streams.get("s", lazy=True, size=2, into="out", **NOW)
    killed(lambda: streaming.apply(listed), at(runner.Group, "commit", call=25))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = streaming.apply(listed)
    assert done.rows < stream.next_offset - 30
    assert results(hub) == [[n, n + 1] for n in range(0, 60, 2)]
