"""Maintenance in a process of its own: what it tells, and what becomes of it when it is killed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import penstock as ps
from penstock.errors import KeyNotFound, StoreError
from penstock.store import Client, Server
from penstock.store.service import aside

Frame = Callable[..., pa.Table]


def test_what_was_done_and_how_far_it_is(server: Server, client: Client, frame: Frame) -> None:
    for first in range(0, 500, 100):
        client.write("t", frame(100, first=first))
        server.desk.store.flush("t")
    client.write("u", frame(10))
    told: list[tuple[int, int]] = []
    client.write("t", frame(100, first=500))
    done = client.maintain(progress=lambda rows, total: told.append((rows, total)))
    assert done["t"]["rolled"]["rows"] == 100
    assert done["u"]["rolled"]["rows"] == 10
    assert told[-1] == (600, 600)
    assert client.read("t/A")["x"].to_pylist() == [float(i) for i in range(600)]


def test_a_table_that_there_is_not(client: Client, tmp_path: Path) -> None:
    with pytest.raises(KeyNotFound, match="no table 'none'"):
        client.maintain("none")
    ps.store.open(tmp_path / "other").close()
    with pytest.raises(KeyNotFound, match="no table 'none'"):
        aside.maintain(tmp_path / "other", "none")


def test_one_that_is_killed_is_told_as_such(client: Client, frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    client.write("t", frame(10))
    spawned = aside.spawned

    def killed(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = spawned(*args, **options)
        process.kill()
        return process

    monkeypatch.setattr(aside, "spawned", killed)
    with pytest.raises(
        StoreError, match="the maintenance ended with exit code -9 - at the store's server; what it had done stays done"
    ):
        client.maintain("t")
    monkeypatch.undo()
    assert client.maintain("t")["t"]["rolled"]["rows"] == 10
