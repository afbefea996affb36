from __future__ import annotations

import threading
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from penstock.log import Folder
from penstock.log.bell import PAGE, Bell


def test_a_ring_wakes_and_a_ring_before_the_wait_is_not_missed(tmp_path: Path) -> None:
    bell, other = Bell(tmp_path / "bell"), Bell(tmp_path / "bell")
    assert (tmp_path / "bell").stat().st_size == PAGE
    armed = bell.arm()
    other.ring()
    begin = time.monotonic()
    for _ in range(20):
        bell.wait(armed, 0.1)  # word 0 has changed: none of these sleeps
    assert time.monotonic() - begin < 1.5
    bell.wait(bell.arm(), 0)
    bell.wait(bell.arm(), -1)


def test_ringing_without_anybody_waiting_changes_nothing(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "bell")
    bell.ring()
    assert (tmp_path / "bell").read_bytes() == bytes(PAGE)
    bell.arm()
    bell.ring()
    assert (tmp_path / "bell").read_bytes()[:8] == b"\1\0\0\0\0\0\0\0"


def test_waking_lets_other_threads_run(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "bell")
    woken = threading.Event()

    def wait() -> None:
        while not woken.is_set():
            bell.wait(bell.arm(), 0.1)

    thread = threading.Thread(target=wait)
    thread.start()
    counted = 0
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        counted += 1
    woken.set()
    bell.ring()
    thread.join(5)
    assert not thread.is_alive()
    assert counted > 1000


def echo(path: Path, pipe: Connection) -> None:
    stream = Folder(path).stream("s")
    tail = stream.tail(timeout=20)
    pipe.send("ready")
    for batch in tail:
        pipe.send(batch.num_rows)


@pytest.mark.parametrize("way", ["futex", "poll"])
def test_an_append_wakes_another_process(
    way: str, hub: Folder, monkeypatch: pytest.MonkeyPatch, fork: Callable[..., BaseProcess]
) -> None:
    if way == "poll":
        monkeypatch.setattr("penstock.log.bell._SYSCALL", None)
    stream = hub.stream("s")
    ours, theirs = Pipe()
    fork(echo, hub.path, theirs)
    assert ours.poll(20)
    assert ours.recv() == "ready"
    for i in range(20):
        stream.append({"i": i})
        assert ours.poll(5), "nobody was woken within 5 s"
        assert ours.recv() == 1


def test_polling_where_the_page_cannot_be_mapped(tmp_path: Path, hub: Folder) -> None:
    (tmp_path / "a folder").mkdir()
    for path in (tmp_path / "a folder", tmp_path / "no" / "such" / "place"):
        bell = Bell(path)
        assert bell.arm() == 0
        bell.ring()
        begin = time.monotonic()
        for _ in range(30):
            bell.wait(0, 1)  # from 50 µs to 5 ms, not the second that was asked for
        assert time.monotonic() - begin < 5
        bell.awake()
        assert bell._poll_s == 50e-6
    stream = hub.stream("s")
    stream._bell = Bell(tmp_path / "a folder")
    tail = stream.tail(timeout=10)
    threading.Timer(0.02, lambda: Folder(hub.path).stream("s").append({"a": 1})).start()
    assert next(tail).num_rows == 1


def test_a_page_that_is_too_short_is_made_whole(tmp_path: Path) -> None:
    (tmp_path / "bell").write_bytes(b"")
    Bell(tmp_path / "bell").arm()
    assert (tmp_path / "bell").stat().st_size == PAGE


def test_a_reader_sleeps_between_appends(hub: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tail with nothing to do looks at the index a few times a second, not in a loop."""
    looks = 0
    stream = hub.stream("s")
    plain: Callable[..., bool] = stream._reaches

    def counted(offset: int) -> bool:
        nonlocal looks
        looks += 1
        return plain(offset)

    monkeypatch.setattr(stream, "_reaches", counted)
    assert list(stream.tail(timeout=0.5)) == []
    assert looks < 40
