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
from penstock_tests.waiting import PATIENCE_S


def seconds_of(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_a_ring_wakes_and_a_ring_before_the_wait_is_not_missed(tmp_path: Path) -> None:
    bell, other = Bell(tmp_path / "bell"), Bell(tmp_path / "bell")
    assert (tmp_path / "bell").stat().st_size == PAGE
    armed = bell.arm()
    other.ring()
    # Word 0 has changed: none of these sleeps, though other processes may hold one up.
    assert min(seconds_of(lambda: bell.wait(armed, 0.1)) for _ in range(20)) < 0.1
    bell.wait(bell.arm(), 0)
    bell.wait(bell.arm(), -1)


def test_ringing_without_anybody_waiting_changes_nothing(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "bell")
    bell.ring()
    assert (tmp_path / "bell").read_bytes() == bytes(PAGE)
    bell.arm()
    bell.ring()
    assert (tmp_path / "bell").read_bytes()[:8] == b"\1\0\0\0\0\0\0\0"


def test_waiting_lets_other_threads_run(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "bell")

    def beside_a_wait() -> float:
        """Seconds of a processor that this thread has while another one waits."""
        begun, ended = threading.Event(), threading.Event()

        def wait() -> None:
            begun.set()
            bell.wait(bell.arm(), 0.1)
            ended.set()

        thread = threading.Thread(target=wait)
        thread.start()
        begun.wait()
        began = time.thread_time()
        while not ended.is_set():
            pass
        thread.join()
        return time.thread_time() - began

    # Until the interpreter lets the other thread begin, 5 ms may go by. A loaded machine may leave less, not each time.
    assert any(beside_a_wait() > 0.02 for _ in range(100))


def echo(path: Path, pipe: Connection) -> None:
    stream = Folder(path).stream("s")
    tail = stream.tail(timeout=PATIENCE_S)
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
    assert ours.poll(PATIENCE_S)
    assert ours.recv() == "ready"
    for i in range(20):
        stream.append({"i": i})
        assert ours.poll(PATIENCE_S), "nobody was woken"
        assert ours.recv() == 1


def test_polling_where_the_page_cannot_be_mapped(tmp_path: Path, hub: Folder) -> None:
    (tmp_path / "a folder").mkdir()
    for path in (tmp_path / "a folder", tmp_path / "no" / "such" / "place"):
        bell = Bell(path)
        assert bell.arm() == 0
        bell.ring()
        took = [seconds_of(lambda: bell.wait(0, 0.1)) for _ in range(30)]  # noqa: B023
        assert min(took[-10:]) < 0.1  # from 50 µs to 5 ms, not what was asked for
        bell.awake()
        assert bell._poll_s == 50e-6
    stream = hub.stream("s")
    stream._bell = Bell(tmp_path / "a folder")
    tail = stream.tail(timeout=PATIENCE_S)
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
