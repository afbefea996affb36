"""Servers of a store: in this process, and as processes of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import penstock as ps

SRC = str(Path(ps.__file__).parent.parent)
NOON = 1_767_268_800_000_000_000


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def frame() -> Callable[..., pa.Table]:
    """`frame(rows, symbol="A", first=0)`: one row per second from noon on, x counts."""

    def make(rows: int, symbol: str = "A", first: int = 0) -> pa.Table:
        number = np.arange(first, first + rows)
        return pa.table({"symbol": [symbol] * rows, "ts_event": NOON + number * 10**9, "x": number.astype(float)})

    return make


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ps.store.Server]:
    """A server in this process, with 64 MB, on a free port."""
    with ps.store.serve(tmp_path / "hub", memory="64m", port=0, keep=None) as found:
        yield found


@pytest.fixture
def client(server: ps.store.Server) -> Iterator[ps.store.Client]:
    with ps.store.connect(server.url) as found:
        yield found


@pytest.fixture
def serving() -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """`serving(folder, memory="64m", port=0)`: `penstock store serve` as a process, and its URL."""
    started: list[subprocess.Popen[str]] = []

    def start(
        folder: Path, *, memory: str = "64m", port: int = 0, roll: bool = True, group: bool = False
    ) -> tuple[subprocess.Popen[str], str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        env = {**kept, "PYTHONPATH": os.pathsep.join([SRC, *filter(None, [os.environ.get("PYTHONPATH")])])}
        command = [sys.executable, "-m", "penstock", "store", "serve", "--dir", str(folder), "--memory", memory]
        command += ["--port", str(port), "--roll" if roll else "--no-roll"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env, start_new_session=group)
        started.append(process)
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("penstock: store at "), line + process.stderr.read()
        return process, line.split()[3].rstrip(":")

    yield start
    for process in started:
        process.kill()
        process.wait()
        with contextlib.suppress(BrokenPipeError):
            assert process.stderr is not None
            process.stderr.close()
