"""Processes that write and maintain, killed at any instant: no row lost, none doubled, the table opens everywhere."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

import penstock
import penstock.store
from penstock.store.compact import checkpoint, compact, vacuum
from penstock.store.roll import roll
from penstock_tests.children import die_at

# What a killed writer left half-written is cut off, with a warning, by whoever writes next.
pytestmark = pytest.mark.filterwarnings("ignore:.*that no append had committed:penstock.errors.PenstockWarning")

SRC = str(Path(penstock.__file__).parent.parent)
SCHEMA = pa.schema([("symbol", pa.string()), ("ts_event", pa.int64()), ("writer", pa.int64()), ("number", pa.int64())])
START = 1_767_268_800_000_000_000

# Each row is of its own time; the writer says what it was told to be there.
WRITER = """
import sys, pyarrow as pa, penstock.store
folder, who, first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
table = penstock.store.open(folder).table("m/t")
for number in range(first, first + 2_000):
    at = 1_767_268_800_000_000_000 + number * 3_000_000_000_000 + who
    table.write(pa.table({"symbol": [f"S{number % 7}"] * 3, "ts_event": [at, at + 10, at + 20],
                          "writer": [who] * 3, "number": [number] * 3}))
    print(number, flush=True)
"""
KEEPER = """
import sys, penstock.store
from penstock.store.compact import checkpoint, compact, vacuum
from penstock.store.roll import roll
table = penstock.store.open(sys.argv[1]).table("m/t")
print("ready", flush=True)
while True:
    roll(table, force=True, max_rows=50)
    compact(table, min_files=2)
    checkpoint(table, commits=3)
    vacuum(table, grace=0)
    print("round", flush=True)
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([SRC, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def kill(process: subprocess.Popen[str]) -> list[str]:
    process.send_signal(signal.SIGKILL)
    assert process.stdout is not None
    lines = process.stdout.read().split("\n")[:-1]
    process.stdout.close()
    process.wait()
    return lines


def assert_whole(folder: Path, acknowledged: dict[int, int]) -> int:
    """All rows that were acknowledged, whole writes only, each once, in both tiers together; returns the rows."""
    with penstock.store.open(folder) as store:
        table = store.table("m/t")
        state = table.state()
        rows = table.read().to_pylist()
        stored = table.read(None, revisions=True).num_rows
        assert stored == len(rows)  # none doubled
        assert table.stream.next_offset == len(rows)  # none lost
        found: dict[int, dict[int, int]] = {}
        for row in rows:
            of = found.setdefault(row["writer"], {})
            of[row["number"]] = of.get(row["number"], 0) + 1
        for who, number in acknowledged.items():
            assert sorted(found.get(who, {})) == list(range(len(found.get(who, {}))))
            assert len(found.get(who, {})) in (number, number + 1)
        assert {count for of in found.values() for count in of.values()} <= {3}
        assert sum(file.rows for file in state.files.values()) == table.rolled(state)
        return len(rows)


def rounds(folder: Path, count: int, seed: int) -> None:
    chance = random.Random(seed)
    with penstock.store.open(folder) as store:
        store.create("m/t", SCHEMA)
    acknowledged = {1: 0, 2: 0}
    for _ in range(count):
        writers = {who: start(WRITER, folder, who, acknowledged[who]) for who in acknowledged}
        keepers = [start(KEEPER, folder), start(KEEPER, folder)]
        for process in (*writers.values(), *keepers):
            assert process.stdout is not None
            process.stdout.readline()
        deadline = time.monotonic() + chance.random() * 0.5
        while time.monotonic() < deadline:
            time.sleep(0.001)
        order = [*writers.values(), *keepers]
        assert [process.poll() for process in keepers] == [None, None]  # they fail at nothing
        chance.shuffle(order)
        said = {id(process): kill(process) for process in order}
        for who, process in writers.items():
            acknowledged[who] += 1 + len(said[id(process)])
        assert_whole(folder, acknowledged)
        with penstock.store.open(folder) as store:  # a number that was written but not said is there, too
            rows = store.table("m/t").read(columns=["writer", "number"]).to_pylist()
            acknowledged = {
                who: 1 + max((r["number"] for r in rows if r["writer"] == who), default=-1) for who in (1, 2)
            }
    assert sum(acknowledged.values()) > 0


def opens_elsewhere(folder: Path) -> None:
    import deltalake
    import polars

    with penstock.store.open(folder) as store:
        table = store.table("m/t")
        store.flush()
        rows = table.read()
    path = str(folder / "tables" / "m" / "t")
    other = deltalake.DeltaTable(path).to_pyarrow_table().sort_by("_offset")
    assert other.num_rows == rows.num_rows
    assert polars.scan_delta(path).select(polars.len()).collect().item() == rows.num_rows
    mine = table.read(columns=[*rows.schema.names, "_offset"]).sort_by("_offset")
    assert other.select(mine.schema.names).cast(mine.schema).equals(mine)


def test_writers_and_keepers_killed(tmp_path: Path) -> None:
    rounds(tmp_path, 1, seed=1)
    opens_elsewhere(tmp_path)


@pytest.mark.slow
def test_writers_and_keepers_killed_at_many_instants(tmp_path: Path) -> None:
    rounds(tmp_path, 30, seed=2)  # four processes each
    opens_elsewhere(tmp_path)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("call", ["write", "fsync", "link", "rename", "unlink", "fdatasync"])
def test_killed_at_each_system_call(call: str, tmp_path: Path) -> None:
    """A keeper that dies at its n-th call of a kind, for every n until it comes through."""
    with penstock.store.open(tmp_path) as store:
        table = store.create("m/t", SCHEMA)
        for day in range(2):
            times = [START + day * 86_400_000_000_000 + n for n in range(4)]
            frame = {"symbol": ["B", "A"] * 2, "ts_event": times, "writer": [1] * 4, "number": [day] * 4}
            table.write(pa.table(frame))
        expected = table.read(None, revisions=True)
    for number in range(100):
        child = os.fork()
        if child == 0:
            die_at(call, number)
            try:
                with penstock.store.open(tmp_path) as store:
                    table = store.table("m/t")
                    roll(table, force=True, max_rows=3)
                    compact(table, everything=True)
                    checkpoint(table, commits=1)
                    vacuum(table, grace=0)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        with penstock.store.open(tmp_path) as store:
            table = store.table("m/t")
            assert table.read(None, revisions=True).equals(expected)
            assert sum(file.rows for file in table.state().files.values()) == table.rolled(table.state())
        if os.WIFEXITED(status):
            return
    raise AssertionError("it never came through")


def test_two_writer_processes(tmp_path: Path) -> None:
    with penstock.store.open(tmp_path) as store:
        store.create("m/t", SCHEMA)
    code = WRITER.replace("2_000", "100")
    writers = [start(code, tmp_path, who, 0) for who in (1, 2)]
    keeper = start(KEEPER, tmp_path)
    for process in writers:
        assert len(process.communicate()[0].split()) == 100
        assert process.returncode == 0
    kill(keeper)
    assert assert_whole(tmp_path, {1: 100, 2: 100}) == 600
