"""Servers as processes: signals, kills at any instant, clients that go on with the next one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.flight as fl
import pytest

import penstock as ps
from penstock.errors import SourceError
from penstock.store import connect

NOON = 1_767_268_800_000_000_000
Frame = Callable[..., pa.Table]
Serving = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_cleanly(tmp_path: Path, serving: Serving, frame: Frame, number: int, code: int) -> None:
    process, url = serving(tmp_path / "hub")
    with connect(url) as client:
        client.write("t", frame(10))
    process.send_signal(number)
    assert process.wait(600) == code
    assert process.stderr is not None
    assert process.stderr.read() == ""
    with ps.store.open(tmp_path / "hub") as store:
        assert store.read("t/A").num_rows == 10


def test_ctrl_c_of_a_terminal_reaches_its_helper_too_and_nothing_is_told(tmp_path: Path, serving: Serving) -> None:
    process, url = serving(tmp_path / "hub", group=True)
    with connect(url) as client:
        client.ls()
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(600) == 130
    assert process.stderr is not None
    assert process.stderr.read() == ""  # ends when the helper does, too


def test_a_read_goes_on_with_the_next_server_from_the_middle(tmp_path: Path, serving: Serving) -> None:
    rows = 1_500_000
    with ps.store.open(tmp_path / "hub") as store:
        store.write("t", pa.table({"symbol": ["A"] * rows, "ts_event": NOON + np.arange(rows), "x": np.zeros(rows)}))
    process, url = serving(tmp_path / "hub", memory="1g", roll=False)
    raw = fl.FlightClient(url)
    reader = raw.do_get(fl.Ticket(b"t/A"))
    reader.read_chunk()
    process.kill()
    process.wait()
    with pytest.raises(fl.FlightUnavailableError):  # what the client takes as a reason to try again
        reader.read_all()


@pytest.mark.slow
def test_a_client_that_has_stopped_reading_does_not_keep_it(tmp_path: Path, serving: Serving) -> None:
    rows = 2_000_000
    with ps.store.open(tmp_path / "hub") as store:
        store.write("t", pa.table({"symbol": ["A"] * rows, "ts_event": NOON + np.arange(rows), "x": np.zeros(rows)}))
    process, url = serving(tmp_path / "hub", memory="1g")
    raw = fl.FlightClient(url)
    reader = raw.do_get(fl.Ticket(b"t/A"))
    reader.read_chunk()
    process.terminate()
    assert process.wait(600) == 143
    assert process.stderr is not None
    assert process.stderr.read() == "penstock: a client did not take what it had asked for; it was left\n"
    reader.cancel()


@pytest.mark.slow
def test_killed_at_any_instant_each_row_is_there_once(tmp_path: Path, serving: Serving, frame: Frame) -> None:
    """A writer sends on while its server is killed and started again: `rows="all"` would show what is there twice."""
    process, url = serving(tmp_path / "hub", roll=False)
    port = int(url.rpartition(":")[2])
    draw, enough = random.Random(5), threading.Event()
    failed: list[BaseException] = []
    writes = [0]

    def write() -> None:
        try:
            with connect(url, timeout=600, patience=600) as client:
                client.create("t", frame(1).schema, rows="all")
                while not enough.is_set():
                    client.write("t", frame(20, first=20 * writes[0]))
                    writes[0] += 1
        except BaseException as error:
            failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    pause = threading.Event()
    for _ in range(6):
        before = writes[0]
        while writes[0] == before and writer.is_alive():
            pause.wait(0.002)
        pause.wait(draw.uniform(0.0, 0.06))  # in the middle of one of the next
        process.kill()
        process.wait()
        process, _ = serving(tmp_path / "hub", port=port, roll=False)
    enough.set()
    writer.join()
    assert failed == []
    process.kill()
    process.wait()
    with ps.store.open(tmp_path / "hub") as store:
        assert store.read("t/A")["x"].to_pylist() == [float(i) for i in range(20 * writes[0])]
        store.flush("t")
        assert deltalake.DeltaTable(tmp_path / "hub" / "tables" / "t").to_pyarrow_table().num_rows == 20 * writes[0]


@pytest.mark.slow
def test_reads_go_on_with_the_next_server(tmp_path: Path, serving: Serving, frame: Frame) -> None:
    process, url = serving(tmp_path / "hub", roll=False)
    port = int(url.rpartition(":")[2])
    with connect(url, timeout=600, patience=600) as client:
        client.write("t", frame(10))
        process.kill()
        process.wait()
        with (
            connect(url, patience=0.05) as hasty,
            pytest.raises(
                SourceError, match=f"no store's server answers: .* - at {url}; start one: penstock store serve"
            ),
        ):
            hasty.read("t/A")
        started = threading.Timer(0.2, serving, (tmp_path / "hub",), {"port": port, "roll": False})
        started.start()
        assert client.read("t/A").num_rows == 10
        started.join()


@pytest.mark.slow
def test_a_port_that_is_taken_is_an_error_of_one_line(tmp_path: Path, serving: Serving) -> None:
    _, url = serving(tmp_path / "hub", roll=False)
    with pytest.raises(
        AssertionError, match="penstock: cannot listen on 127.0.0.1:.* address already in use; give another port"
    ):
        serving(tmp_path / "hub", port=int(url.rpartition(":")[2]), roll=False)


@pytest.mark.slow
def test_others_see_what_is_written_beside_the_server(tmp_path: Path, serving: Serving, frame: Frame) -> None:
    _, url = serving(tmp_path / "hub")
    with connect(url) as client, ps.store.open(tmp_path / "hub") as store:
        store.write("t", frame(10))
        assert client.read("t/A").num_rows == 10
        store.write("t", frame(10, first=10))
        assert client.read("t/A").num_rows == 20
        store.flush()
        assert client.read("t/A").num_rows == 20
