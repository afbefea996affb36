"""Consumer groups: who holds one, and how far it has come, whatever is killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from penstock.errors import GroupBusy, PenstockWarning, ReadOnly, StorageError, StreamError, UsageError
from penstock.log import Folder, Group, Position, Stream
from penstock_tests.damage import flip
from penstock_tests.waiting import PATIENCE_S

Fork = Callable[..., BaseProcess]


@pytest.fixture
def stream(hub: Folder) -> Stream:
    found = hub.stream("s")
    found.append([{"i": i} for i in range(100)])
    return found


def page_of(stream: Stream, name: str = "g") -> Path:
    return stream._folder / "groups" / f"{name}.pos"


def test_a_group_begins_where_it_is_told_and_goes_on_where_it_stood(stream: Stream, hub: Folder) -> None:
    group = stream.group("g", start=10)
    assert group.is_new
    assert (group.position, group.begin) == (Position(10, low=10), 10)
    group.commit(Position(20, 3, low=15))
    assert stream.position("g") == Position(20, 3)
    group.close()
    again = Folder(hub.path).stream("s").group("g", start="end")
    assert not again.is_new
    assert (again.position.offset, again.position.index, again.position.low, again.begin) == (20, 3, 15, 10)
    again.reset(5)
    again.close()
    assert stream.position("g").low == 5
    reset = stream.group("g")
    assert (reset.position, reset.begin, reset.is_new) == (Position(5), 5, False)
    reset.close()
    assert stream.group("end", start="end").position.offset == 100
    assert stream.position("nobody") == Position(0)


def test_positions_are_ordered_by_offset_then_index() -> None:
    assert Position(1, 5) < Position(2, -1) < Position(2, 0)
    assert Position(3, 1, low=1) == Position(3, 1, low=2)


def test_only_one_holds_it(stream: Stream, hub: Folder) -> None:
    group = stream.group("g")
    for other in (stream, Folder(hub.path).stream("s")):
        with pytest.raises(GroupBusy, match=f"group 'g' of stream 's' is held by process {os.getpid()} - in") as error:
            other.group("g")
        assert error.value.pid == os.getpid()  # type: ignore[attr-defined]
    stream.group("other").close()
    group.close()
    group.close()
    calls: list[Callable[[], object]] = [lambda: group.commit(Position(1)), lambda: group.reset(1)]
    for call in calls:
        with pytest.raises(StreamError, match="group 'g' of stream 's' was given back - in process"):
            call()
    stream.group("g").close()


def holder(path: Path, pipe: Connection, commits: int) -> None:
    group = Folder(path).stream("s").group("g")
    for i in range(1, commits + 1):
        group.commit(Position(i, i % 3, low=i - 1))
    pipe.send(os.getpid())
    if commits:
        time.sleep(600)
    i = 0
    while True:
        i += 1
        group.commit(Position(50, i, low=i % 50))
        if i % 100 == 0:
            pipe.send(i)


def test_a_killed_holder_frees_it_at_its_last_commit(stream: Stream, hub: Folder, fork: Fork) -> None:
    ours, theirs = Pipe()
    process = fork(holder, hub.path, theirs, 50)
    assert ours.poll(PATIENCE_S)
    pid = ours.recv()
    with pytest.raises(GroupBusy) as error:
        stream.group("g")
    assert error.value.pid == pid == process.pid  # type: ignore[attr-defined]
    assert stream.position("g") == Position(50, 2)
    os.kill(pid, signal.SIGKILL)
    process.join(PATIENCE_S)
    with closing(stream.group("g")) as group:
        assert (group.position.offset, group.position.index, group.position.low) == (50, 2, 49)


class closing:
    def __init__(self, group: Group) -> None:
        self.group = group

    def __enter__(self) -> Group:
        return self.group

    def __exit__(self, *_: object) -> None:
        self.group.close()


def test_kills_at_any_moment_never_lose_a_commit(stream: Stream, hub: Folder, fork: Fork) -> None:
    """What was told before the kill is the least that is kept, and a torn slot is never believed."""
    for pause in range(12):
        ours, theirs = Pipe(duplex=False)
        process = fork(holder, hub.path, theirs, 0)
        theirs.close()
        assert ours.poll(PATIENCE_S)
        ours.recv()
        time.sleep(pause * 0.0007)  # where in a commit it dies is the point
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join(PATIENCE_S)
        told = -1  # it may have died before its first commit
        try:
            while ours.poll(0):
                told = ours.recv()
        except EOFError:
            pass
        with closing(stream.group("g")) as group:
            index = group.position.index
            assert told <= index
            assert group.position.low == max(index, 0) % 50
            group.reset(0)


def test_a_fork_holds_nothing(stream: Stream, fork: Fork) -> None:
    """A child that lives on must neither keep its parent's group nor write its position."""
    group = stream.group("g")
    group.commit(Position(7, low=7))
    ours, theirs = Pipe()

    def child() -> None:
        try:
            group.commit(Position(99))
            theirs.send("committed")
        except StreamError:
            theirs.send("refused")
        theirs.recv()

    process = fork(child)
    assert ours.poll(PATIENCE_S)
    assert ours.recv() == "refused"
    group.close()
    with closing(stream.group("g")) as again:  # while the child lives
        assert again.position.offset == 7
    ours.send("end")
    process.join(PATIENCE_S)
    assert process.exitcode == 0


@pytest.mark.parametrize("slot", [0, 1])
@pytest.mark.parametrize("at", [0, 8, 30, 50])
def test_a_torn_slot_leaves_the_other(slot: int, at: int, stream: Stream, hub: Folder) -> None:
    group = stream.group("g")
    group.commit(Position(10, low=10))
    group.commit(Position(11, low=11))
    newest = group._sequence % 2
    del group  # not closed: SQLite has only what was there at first
    flip(page_of(stream), 64 * slot + at)
    expected = 10 if slot == newest else 11
    assert Folder(hub.path).stream("s").position("g").offset == expected
    with closing(Folder(hub.path).stream("s").group("g")) as again:
        assert again.position.offset == expected


def test_without_its_page_the_catalogue_counts_and_the_other_way_round(stream: Stream, hub: Folder) -> None:
    with closing(stream.group("g", start=3)) as group:
        group.commit(Position(42, 1, low=40))
    flip(page_of(stream), 10)
    flip(page_of(stream), 64 + 10)
    assert stream.position("g") == Position(42, 1)
    page_of(stream).unlink()
    with closing(stream.group("g")) as group:
        assert (group.position.offset, group.begin, group.is_new) == (42, 3, False)
        group.commit(Position(50, low=50))
    hub.close()
    for path in hub.path.glob("hub.sqlite*"):
        path.unlink()
    with closing(Folder(hub.path).stream("s").group("g")) as group:
        assert group.position.offset == 50


def test_the_newer_of_page_and_catalogue_counts(stream: Stream, hub: Folder) -> None:
    with closing(stream.group("g")) as group:
        group.commit(Position(5, low=5))
        old = page_of(stream).read_bytes()
        group.commit(Position(6, low=6))
    page_of(stream).write_bytes(old)  # the page did not reach the disk, SQLite did
    assert Folder(hub.path).stream("s").position("g").offset == 6


def test_a_catalogue_that_is_none_says_so(stream: Stream, hub: Folder) -> None:
    hub.close()
    (hub.path / "hub.sqlite").write_bytes(b"not a database" * 100)
    fresh = Folder(hub.path).stream("s")
    with pytest.raises(
        StorageError, match="expected the hub's catalogue, got file is not a database - in .*; move the"
    ):
        fresh.group("g")
    assert len(fresh.rows()) == 100
    (hub.path / "hub.sqlite").unlink()
    fresh.group("g").close()  # the failed attempt did not keep the lock


def test_a_catalogue_that_cannot_be_opened_says_so(stream: Stream, hub: Folder) -> None:
    (hub.path / "hub.sqlite").mkdir()
    with pytest.raises(
        ReadOnly, match=r"expected a writable hub, got unable to open database file - in .*; consumers keep"
    ):
        Folder(hub.path).stream("s").group("g")


def test_a_catalogue_that_another_process_has_locked_is_waited_for(stream: Stream, hub: Folder) -> None:
    stream.group("g").close()
    other = sqlite3.connect(hub.path / "hub.sqlite", isolation_level=None)
    other.execute("begin immediate")
    group = stream.group("g")  # reads only
    assert group.position.offset == 0
    other.execute("rollback")
    other.close()
    group.close()


def test_names_of_groups(stream: Stream) -> None:
    names = ["a/b", "..", "é", "x" * 200, "a.b.pos", "a b", ".hidden"]
    for name in names:
        with closing(stream.group(name)) as group:
            group.commit(Position(1, low=1))
    assert sorted(stream.metadata().groups) == sorted(names)
    assert all(path.parent == stream._folder / "groups" for path in stream._folder.rglob("*.pos"))
    for bad in ("", "\n", "x" * 201, "é" * 40, None, 3):
        with pytest.raises(UsageError, match="expected a group name: printable text of at most 200 bytes"):
            stream.group(bad)  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            stream.position(bad)  # type: ignore[arg-type]


def test_snapshots(stream: Stream) -> None:
    group = stream.group("g")
    assert group.load_state() is None
    group.save_state(b"one")
    group.save_state(b"two" * 1000)
    assert group.load_state() == b"two" * 1000
    path = stream._folder / "groups" / "g.state"
    flip(path, 100)
    assert group.load_state() is None
    path.write_bytes(b"short")
    assert group.load_state() is None
    group.save_state(b"")
    assert group.load_state() == b""
    group.save_state(b"old")
    group.reset(0)
    assert group.load_state() == b""
    group.close()


def test_a_position_beyond_the_end_is_told_and_taken_back(stream: Stream) -> None:
    """After a lost power supply the rows may be gone, but not the position: later rows must not be passed over."""
    with closing(stream.group("g")) as group:
        group.commit(Position(500, low=500))
    with pytest.warns(PenstockWarning, match=r"stood at offset 500, but the stream ends at 100: rows were lost"):
        group = stream.group("g")
    assert group.position == Position(100, low=100)
    group.close()


def test_many_processes_ask_for_one_group(stream: Stream, hub: Folder, fork: Fork) -> None:
    """One at a time has it, each begins where the one before ended, and no commit is overwritten."""

    def child(pipe: Connection) -> None:
        found = Folder(hub.path).stream("s")
        won = 0
        while won < 5:
            try:
                group = found.group("g")
            except GroupBusy:
                time.sleep(0.001)
                continue
            before = group.position.offset
            group.commit(Position(before + 1, low=before + 1))
            group.close()
            won += 1
        pipe.send(won)

    pipes = [Pipe(duplex=False) for _ in range(3)]
    processes = [fork(child, theirs) for _, theirs in pipes]
    for process in processes:
        process.join(PATIENCE_S)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert stream.position("g").offset == 15
