"""The upkeep's process: there again after it was killed, gone when its server is."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from penstock.store import Client, connect, serve
from penstock.store.service import keeper

Frame = Callable[..., pa.Table]
Serving = Callable[..., tuple[subprocess.Popen[str], str]]


def until(done: Callable[[], bool]) -> None:
    """Wait for a condition that some process will bring about."""
    pause = threading.Event()
    for _ in range(6000):
        if done():
            return
        pause.wait(0.02)
    raise AssertionError("did not come about in two minutes")


def restarted(client: Client, count: int) -> bool:
    """Whether the upkeep was started again so often."""
    return bool(client.stats()["upkeep"]["restarts"] == count)


def gone(pid: int) -> bool:
    """Whether a process has ended, whoever may still have to take note of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_killed_upkeep_is_started_again_and_rolls(
    tmp_path: Path, frame: Frame, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_FIRST_PAUSE_S", 0.01)
    with serve(tmp_path / "hub", memory="64m", port=0, keep=0.05) as server, connect(server.url) as client:
        upkeep = client.stats()["upkeep"]
        assert (upkeep["running"], upkeep["restarts"], upkeep["last_exit"]) == (True, 0, None)
        assert client.health() == {"ok": True, "problems": []}
        for count in (1, 2):
            before = client.stats()["upkeep"]["pid"]
            os.kill(before, signal.SIGKILL)
            until(partial(restarted, client, count))
            upkeep = client.stats()["upkeep"]
            assert upkeep["pid"] != before
            assert upkeep["last_exit"] == -9
        client.write("t", frame(12_000))
        until(lambda: client.stats(1)["store"]["table"]["t"]["hot_rows"] == 0)
        last = client.stats()["upkeep"]["pid"]
    assert gone(last)
    assert "the upkeep of the store ended (killed by signal 9); it is started again in 0.01 s" in caplog.text
    assert "it is started again in 0.02 s" in caplog.text  # longer each time


def test_health_says_that_the_upkeep_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "_FIRST_PAUSE_S", 3600.0)
    with serve(tmp_path / "hub", memory="64m", port=0, keep=0.05) as server, connect(server.url) as client:
        os.kill(client.stats()["upkeep"]["pid"], signal.SIGKILL)
        until(lambda: not client.stats()["upkeep"]["running"])
        until(lambda: client.stats()["upkeep"]["last_exit"] == -9)
        assert client.health() == {
            "ok": False,
            "problems": ["the upkeep ended with exit code -9, and is about to be started again"],
        }


def test_a_server_without_upkeep_is_well(tmp_path: Path) -> None:
    with serve(tmp_path / "hub", memory="64m", port=0, keep=None) as server, connect(server.url) as client:
        assert client.stats()["upkeep"] == {"running": False}
        assert client.health()["ok"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_upkeep_ends_with_its_server(tmp_path: Path, serving: Serving, number: int) -> None:
    process, url = serving(tmp_path / "hub")
    with connect(url) as client:
        pid = client.stats()["upkeep"]["pid"]
    assert not gone(pid)
    process.send_signal(number)
    process.wait()
    until(lambda: gone(pid))


def test_the_process_of_queries_ends_with_its_server(tmp_path: Path, serving: Serving) -> None:
    process, url = serving(tmp_path / "hub", roll=False)
    with connect(url) as client:
        client.sql("select 1")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    found = [int(pid) for task in children.parents[1].iterdir() for pid in (task / "children").read_text().split()]
    assert len(found) == 1
    process.kill()
    process.wait()
    until(lambda: gone(found[0]))
