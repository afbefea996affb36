"""Where nothing may be written, and where there is no room: errors that say so, and every row still there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import penstock.store
from penstock.errors import DiskFull, KeyNotFound, ReadOnly
from penstock.store.compact import compact
from penstock.store.roll import locked, roll

NOON = 1_767_268_800_000_000_000
SCHEMA = pa.schema([("symbol", pa.string()), ("ts_event", pa.int64()), ("n", pa.int64())])


def rows(first: int, count: int) -> pa.Table:
    numbers = np.arange(first, first + count)
    return pa.table({"symbol": [f"S{n % 5}" for n in numbers], "ts_event": NOON + numbers, "n": numbers}, SCHEMA)


@pytest.fixture
def mounted(tmp_path: Path, need: Callable[[object, str], None]) -> Iterator[Callable[[str], Path]]:
    """Mounts something at a folder of its own: `mounted(arguments of mount)`."""
    target = tmp_path / "mounted"
    target.mkdir()

    def mount(command: str) -> Path:
        done = os.geteuid() == 0 and not subprocess.run(
            command.format(target=target), shell=True, capture_output=True
        ).returncode  # fmt: skip
        need(done, "root, to mount a file system")
        return target

    yield mount
    subprocess.run(["umount", "-l", str(target)], check=False, capture_output=True)


def test_a_store_that_may_only_be_read(tmp_path: Path, mounted: Callable[[str], Path]) -> None:
    with penstock.store.open(tmp_path / "data") as store:
        store.create("t", SCHEMA)
        store.write("t", rows(0, 10))
        store.flush()
        store.write("t", rows(10, 10))
        expected = store.read("t")
    there = mounted(f"mount --bind {tmp_path / 'data'} {{target}} && mount -o remount,bind,ro {{target}}")
    with penstock.store.open(there) as store:
        assert store.read("t").equals(expected)
        assert store.ls("t") == [f"t/S{n}" for n in range(5)]
        assert store.stats()["rows"] == 20
        for refused in (
            lambda: store.write("t", rows(0, 1)),
            lambda: store.write("u", rows(0, 1)),
            lambda: store.create("u", SCHEMA),
            lambda: store.flush(),
            lambda: store.drop("t"),
            lambda: store.drop("t/S1"),
            lambda: compact(store.table("t")),
        ):
            with pytest.raises(ReadOnly, match="expected a writable folder, got 'Read-only file system'"):
                refused()
        failed: list[type] = []
        assert store.maintain(force=True, failed=lambda name, error: failed.append(type(error))) == {}
        assert failed == [ReadOnly]
        with pytest.raises(KeyNotFound):
            store.drop("t/S9")


def test_a_disk_that_fills_up(mounted: Callable[[str], Path]) -> None:
    there = mounted("mount -t tmpfs -o size=3m tmpfs {target}")
    with penstock.store.open(there / "data") as store:
        table = store.create("t", SCHEMA)
        written = 0
        with pytest.raises(DiskFull, match=r"expected room for [0-9]+ bytes, got [0-9]+ bytes free"):
            while written < 10_000_000:
                store.write("t", rows(written, 2000))
                written += 2000
        for refused in (lambda: roll(table, force=True), lambda: store.drop("t/S1")):
            with pytest.raises(DiskFull, match="expected room for a data file of [0-9]+ bytes"):
                refused()
            assert sorted(store.read("t")["n"].to_pylist()) == list(range(written))
        subprocess.run(["mount", "-o", "remount,size=64m", str(there)], check=True)
        assert store.maintain(force=True, grace=0)["t"].rolled.rows == written
        store.write("t", rows(written, 1))
        assert sorted(store.read("t")["n"].to_pylist()) == list(range(written + 1))


def test_the_lock_of_a_table_that_was_dropped(tmp_path: Path) -> None:
    with penstock.store.open(tmp_path / "data") as store:
        table = store.create("t", SCHEMA)
        store.drop("t")
        with pytest.raises(KeyNotFound, match="no table 't' any more"), locked(table):
            pass
