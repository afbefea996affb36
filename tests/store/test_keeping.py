"""Rolls, compactions, vacuums and checkpoints, with readers beside them; corrupt files; other programs' writes."""

from __future__ import annotations

import json
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import penstock.store
from penstock.clock import WALL, ManualClock
from penstock.errors import CorruptFile, DiskFull, PenstockWarning, StorageError, UsageError
from penstock.store import Store, Table
from penstock.store.checkpoint import last_version
from penstock.store.compact import checkpoint, compact, due, vacuum
from penstock.store.roll import locked, roll

NOON = 1_767_268_800_000_000_000
MINUTE = 60_000_000_000
SCHEMA = pa.schema([("symbol", pa.string()), ("ts_event", pa.int64()), ("n", pa.int64())])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with penstock.store.open(tmp_path / "data") as store:
        store.create("t", SCHEMA)
        yield store


def rows(first: int, count: int = 100, keys: int = 5, days: int = 1) -> pa.Table:
    numbers = np.arange(first, first + count)
    times = NOON + numbers * MINUTE // 100 + numbers % days * 86_400_000_000_000
    return pa.table({"symbol": [f"S{n % keys}" for n in numbers], "ts_event": times, "n": numbers})


def files_of(table: Table) -> list[Path]:
    return sorted(path for path in table.folder.rglob("*.parquet") if "_delta_log" not in path.parts)


def test_what_is_due_is_rolled(store: Store) -> None:
    table = store.table("t")
    store.write("t", rows(0))
    assert roll(table).rows == 0  # neither 10,000 rows nor a minute
    assert roll(table, min_rows=100).rows == 100
    store.write("t", rows(100, 30))
    done = roll(table, force=True, max_rows=20)
    assert (done.rows, done.commits, done.offset) == (30, 2, 130)
    assert roll(table, force=True).commits == 0


def test_the_log_forgets_what_is_rolled(store: Store) -> None:
    table = store.table("t")
    store.write("t", rows(0, 300_000))
    expected = table.read()
    table.stream.seal()
    store.write("t", rows(300_000, 10))
    assert table.stream.first_offset == 0
    store.flush()
    assert table.stream.first_offset == 300_000
    assert table.read().slice(0, 10).equals(expected.slice(0, 10))
    assert table.read().num_rows == 300_010


def test_a_full_disk(store: Store) -> None:
    table = store.table("t")
    store.write("t", rows(0, 50_000))
    expected = store.read("t")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # as a disk with no room for a data file
    try:
        with pytest.raises(DiskFull, match="expected room for a data file of [0-9]+ bytes"):
            roll(table, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files_of(table) == []
    assert store.read("t").equals(expected)
    assert roll(table, force=True).rows == 50_000
    assert store.read("t").equals(expected)


def test_many_make_one_table(store: Store) -> None:
    ready = threading.Barrier(6)

    def write(who: int) -> None:
        with penstock.store.open(store.hub.path) as mine:
            ready.wait()
            mine.write("new/table", rows(who * 10, 10))

    threads = [threading.Thread(target=write, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(store.read("new/table")["n"].to_pylist()) == list(range(60))


def test_one_roller_at_a_time(store: Store) -> None:
    table = store.table("t")
    store.write("t", rows(0))
    with locked(table):
        other = penstock.store.open(store.hub.path).table("t")
        assert roll(other, force=True, wait=False).rows == 0
        assert compact(other, everything=True, wait=False).partitions == 0


def test_a_roller_without_the_lock_conflicts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system whose locks do nothing: what the other wrote counts, and nothing is there twice."""
    import penstock.store.roll as module

    table, other = store.table("t"), penstock.store.open(store.hub.path).table("t")
    store.write("t", rows(0))
    real = module.files_of
    met: list[int] = []

    def meanwhile(table: Table, found: pa.Table) -> object:
        if not met:
            met.append(1)
            module._roll(other, force=True, min_rows=1, max_rows=60)
        return real(table, found)

    monkeypatch.setattr(module, "files_of", meanwhile)
    roll(table, force=True)
    assert table.read(revisions=True)["n"].to_pylist() == sorted(range(100), key=lambda n: (n % 5, n))
    assert sum(file.rows for file in table.state().files.values()) == 100


def test_small_files_become_large_ones(store: Store) -> None:
    table = store.table("t")
    for first in range(0, 1000, 100):
        store.write("t", rows(first, days=2))
        store.flush()
    expected = table.read(revisions=True, columns=["n", "ts_known", "_offset"])
    assert len(files_of(table)) == 20
    told: list[tuple[int, int]] = []
    done = compact(table, progress=lambda *numbers: told.append(numbers))
    assert (done.partitions, done.before, done.after, done.rows) == (2, 20, 2, 1000)
    assert told == [(500, 1000), (1000, 1000)]
    assert table.read(revisions=True, columns=["n", "ts_known", "_offset"]).equals(expected)
    assert compact(table).partitions == 0
    assert vacuum(table) == 0  # within the hour of grace
    assert vacuum(table, grace=0) == 20
    assert len(files_of(table)) == 2
    with pytest.raises(UsageError, match="in grace"):
        vacuum(table, grace="soon")


def test_the_grace_counts_from_the_removal(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the removal is in a checkpoint of a later day, and the files are old."""
    table = store.table("t")
    day = 86_400_000_000_000
    for first in range(0, 300, 100):
        store.write("t", rows(first))
        store.flush()
    for path in files_of(table):
        os.utime(path, (0, 0))
    compact(table, everything=True)
    clock = ManualClock(WALL.now_ns() + 2 * day)
    for module in ("compact", "delta"):
        monkeypatch.setattr(f"penstock.store.{module}.WALL", clock)
    assert checkpoint(table, commits=1)
    for path in (table.folder / "_delta_log").glob("*.json"):
        path.unlink()
    assert vacuum(table, grace="3d") == 0
    assert len(files_of(table)) == 4
    clock.advance(ns=2 * day)
    assert vacuum(table, grace="3d") == 3
    store.write("t", rows(300))
    store.flush()
    assert checkpoint(table, commits=1)
    last = table.folder / "_delta_log" / f"{last_version(table.folder / '_delta_log'):020}.checkpoint.parquet"
    assert set(pq.read_table(last)["remove"].to_pylist()) == {None}  # what is gone is not remembered
    clock.advance(ns=8 * day)
    store.write("t", rows(400))
    store.flush()
    assert table.state().removed == {}  # nor by a process that goes on for ever
    for late in (lambda: vacuum(table, grace="8d"), lambda: store.maintain(grace="8d")):
        with pytest.raises(UsageError, match="expected a week at most, got '8d' - in grace"):
            late()


def test_a_correction_does_not_rewrite_a_large_file(store: Store) -> None:
    table = store.table("t")
    store.write("t", rows(0, 10_000))
    store.flush()
    for number in range(4):
        store.write("t", rows(number, 1))
        store.flush()
    groups = due(table.state(), table)
    assert [[file.rows for file in group] for group in groups] == [[1, 1, 1, 1]]
    assert [len(group) for group in due(table.state(), table, everything=True)] == [5]


def test_full_files_are_left_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import penstock.store.compact as module

    table = store.table("t")
    monkeypatch.setattr(module, "FILE_ROWS", 200)
    for first in range(0, 600, 100):
        store.write("t", rows(first))
        store.flush()
    assert due(table.state(), table) == []
    for first in range(600, 1000, 50):
        store.write("t", rows(first, 50))
        store.flush()
    assert [len(group) for group in due(table.state(), table)] == [8]
    monkeypatch.setattr(module, "GROUP_ROWS", 220)
    assert [len(group) for group in due(table.state(), table)] == [4, 4]
    while due(table.state(), table):  # it ends
        compact(table, file_rows=200)
    assert sorted(table.read(columns=["n"])["n"].to_pylist()) == list(range(1000))
    compact(table, everything=True, file_rows=200)
    assert compact(table, everything=True, file_rows=200).partitions == 0


def test_files_are_cut_between_keys(store: Store) -> None:
    table = store.table("t")
    store.write("t", rows(0, 100))
    store.flush()
    store.write("t", rows(100, 100))
    store.flush()
    compact(table, everything=True, file_rows=70)
    found = sorted((file.low["symbol"], file.high["symbol"], file.rows) for file in table.state().files.values())
    assert found == [(f"S{n}", f"S{n}", 40) for n in range(5)]
    assert table.read("S3").num_rows == 40


def test_readers_during_everything(store: Store) -> None:
    """A reader sees, at every moment, all rows that were written before it asked, each once."""
    table = store.table("t")
    written, failures, stopping = [0], [], threading.Event()
    reads = [0]

    def read() -> None:
        with penstock.store.open(store.hub.path) as mine:
            while not stopping.is_set():
                least = written[0]
                found = mine.read("t", columns=["n"], revisions=True)["n"].to_pylist()
                if sorted(found) != list(range(len(found))) or len(found) < least:
                    failures.append((least, len(found), len(set(found))))
                    return
                reads[0] += 1

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(15):
            store.write("t", rows(number * 50, 50, days=2))
            written[0] += 50
            roll(table, force=True, max_rows=30)
            compact(table, min_files=2)
            checkpoint(table, commits=2)
            vacuum(table, grace=0)
            table.stream.seal()
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert reads[0] > 0


def test_checkpoints(store: Store) -> None:
    table = store.table("t")
    for first in range(5):
        store.write("t", rows(first, 1))
        store.flush()
    expected = table.read()
    log = table.folder / "_delta_log"
    assert not checkpoint(table)
    assert checkpoint(table, commits=5)
    assert last_version(log) == 5
    assert deltalake.DeltaTable(str(table.folder)).version() == 5
    for path in log.glob("*.json"):  # as when they are old enough
        path.unlink()
    other = penstock.store.open(store.hub.path).table("t")
    assert other.read().equals(expected)
    assert other.rolled(other.state()) == 5
    assert deltalake.DeltaTable(str(table.folder)).to_pyarrow_table().num_rows == 5
    (log / "_last_checkpoint").write_bytes(b"{")  # it is only a hint
    assert penstock.store.open(store.hub.path).read("t").equals(expected)
    store.write("t", rows(7, 1))
    store.flush()
    assert deltalake.DeltaTable(str(table.folder)).to_pyarrow_table().num_rows == 6


def test_many_writers_leave_a_bounded_log(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """600 connections and two named sources over 40 days: those of the last 30 days are remembered, and the named."""
    clock = ManualClock(WALL.now_ns() - 40 * 86_400_000_000_000)
    monkeypatch.setattr("penstock.store.delta.WALL", clock)
    store.create("m/u", SCHEMA)
    table = store.table("m/u")
    table.write(rows(0, 1), origin=("bars.csv", 7))
    at = 1
    sizes = []
    for day in range(40):
        for who in range(15):
            table.write(rows(at, 1), origin=(f"client/{day}.{who}", 1))
            at += 1
        table.write(rows(at, 1), origin=("feed", day))
        at += 1
        roll(table, force=True)
        checkpoint(table, commits=10)
        clock.advance(ns=86_400_000_000_000)
        if (last := last_version(table.folder / "_delta_log")) is not None:
            path = table.folder / "_delta_log" / f"{last:020}.checkpoint.parquet"
            sizes.append(sum(row is not None for row in pq.read_table(path)["txn"].to_pylist()))
    assert max(sizes) <= 1 + 2 + 31 * 15  # the offset, the named, a month's connections
    table.stream.seal()
    table.write(rows(at, 1))
    at += 1
    roll(table, force=True)
    assert checkpoint(table, commits=1)
    for path in (table.folder / "_delta_log").glob("*.json"):  # as when they are old enough
        path.unlink()
    for _ in range(2):
        with penstock.store.open(store.hub.path) as mine:
            again = mine.table("m/u")
            assert again.stream.first_offset == at - 1  # the log itself has forgotten who wrote
            assert len(again.state().transactions) <= 1 + 2 + 31 * 15
            assert again.rolled(again.state()) == at
            assert again.last_origin("bars.csv") == (7, 0)
            assert again.last_origin("feed") == (39, 0)
            assert again.last_origin("client/39.9") == (1, 0)
            assert again.last_origin("client/0.0") is None
            assert again.read().num_rows == at
        deltalake.DeltaTable(str(table.folder)).create_checkpoint()  # theirs in place of ours


def test_what_other_programs_do_to_the_table(store: Store) -> None:
    table = store.table("t")
    for first in range(3):
        store.write("t", rows(first * 10, 10))
        store.flush()
    expected = table.read()
    other = deltalake.DeltaTable(str(table.folder))
    other.optimize.compact()
    other.create_checkpoint()
    other.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert len(files_of(table)) == 1
    assert table.read().equals(expected)
    assert penstock.store.open(store.hub.path).read("t").equals(expected)
    assert table.read("S1").num_rows == 6
    assert store.ls("t") == [f"t/S{n}" for n in range(5)]
    store.write("t", rows(30, 10))
    store.flush()
    assert table.read().num_rows == 40
    compact(table, everything=True)
    assert table.read().num_rows == 40
    assert deltalake.DeltaTable(str(table.folder)).to_pyarrow_table().num_rows == 40


def test_another_program_compacts_at_the_same_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import penstock.store.compact as module

    table = store.table("t")
    for first in range(3):
        store.write("t", rows(first * 10, 10))
        store.flush()
    real = module.rewritten

    def meanwhile(*arguments: Any) -> Any:
        found = real(*arguments)
        deltalake.DeltaTable(str(table.folder)).optimize.compact()
        return found

    monkeypatch.setattr(module, "rewritten", meanwhile)
    assert compact(table, everything=True).partitions == 0
    assert sorted(table.read(revisions=True)["n"].to_pylist()) == list(range(30))
    assert len(table.state().files) == 1


@pytest.mark.parametrize("harm", ["flip", "keys", "cut", "empty", "gone", "text"])
def test_a_corrupt_file(harm: str, store: Store) -> None:
    table = store.table("t")
    store.write("t", pa.table({"symbol": ["A"] * 9, "ts_event": NOON + np.arange(9), "n": range(9)}))
    store.flush()
    victim = files_of(table)[0]
    store.write("t", pa.table({"symbol": ["B"] * 9, "ts_event": NOON + np.arange(9), "n": range(9)}))
    store.flush()
    data = victim.read_bytes()
    column = pq.read_metadata(victim).row_group(0).column(2)
    at = column.data_page_offset + column.total_compressed_size - 2
    keys = data.index(b"penstock.keys") + 60
    harmed = {
        "flip": data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
        "keys": data[:keys] + bytes([data[keys] ^ 1]) + data[keys + 1 :],
        "cut": data[:-20],
        "empty": b"",
        "text": b"not parquet" * 20,
    }
    if harm == "gone":
        victim.unlink()
    else:
        victim.write_bytes(harmed[harm])
    with pytest.raises(
        CorruptFile, match=r"expected a data file of 9 rows, got .* - in table 't', at .*parquet; "
    ) as met:
        store.read("t/A")
    assert victim.as_posix().endswith(met.value.file)  # type: ignore[attr-defined]
    assert store.read("t/B").num_rows == 9
    with pytest.raises(CorruptFile):
        store.read("t")
    with pytest.warns(PenstockWarning, match="expected a data file of 9 rows"):
        assert store.read("t", on_corrupt="skip")["symbol"].to_pylist() == ["B"] * 9
    notes = list((table.folder / "_penstock").glob("quarantine-*.json"))
    assert [json.loads(note.read_text())["rows"] for note in notes] == [9]
    store.write("t", rows(0, 5))  # the table goes on
    store.flush()
    compact(table, everything=True)
    assert store.read("t/B").num_rows == 9
    victim.write_bytes(data)  # restored
    again = penstock.store.open(store.hub.path)
    assert again.read("t/A").num_rows == 9
    compact(again.table("t"), everything=True)
    vacuum(again.table("t"), grace=0)
    assert list((table.folder / "_penstock").glob("quarantine-*.json")) == []
    assert again.read("t").num_rows == 23


def test_compaction_meets_a_corrupt_file(store: Store) -> None:
    table = store.table("t")
    for day in range(2):
        for first in range(2):
            frame = rows(first * 10, 10)
            moved = frame.set_column(1, "ts_event", pa.array(frame["ts_event"].to_numpy() + day * 86_400_000_000_000))
            store.write("t", moved)
            store.flush()
    victim = files_of(table)[0]
    victim.write_bytes(victim.read_bytes()[:-9])
    with pytest.warns(PenstockWarning, match="expected a data file of 10 rows"):
        done = compact(table, everything=True)
    assert done.partitions == 1  # the other day
    assert compact(table, everything=True).partitions == 0  # nothing is read again


def test_a_damaged_log(store: Store) -> None:
    table = store.table("t")
    store.write("t", rows(0))
    store.flush()
    commit = table.folder / "_delta_log" / f"{1:020}.json"
    commit.write_bytes(commit.read_bytes()[:50])
    with pytest.raises(StorageError, match="expected commit 1 as JSON, got .* restore the file"):
        penstock.store.open(store.hub.path).read("t")
    commit.write_text('{"protocol":{"minReaderVersion":3,"minWriterVersion":7}}\n')
    with pytest.raises(StorageError, match="expected a Delta table of reader version 1, got version 3"):
        penstock.store.open(store.hub.path).read("t")
    for text, got in (('{"format":9}', "ValueError: format 9"), ("{", "JSONDecodeError"), ("[]", "TypeError")):
        (table.folder / "_penstock" / "table.json").write_text(text)
        with pytest.raises(StorageError, match=f"expected the description of a table, format 1, got {got}"):
            penstock.store.open(store.hub.path).read("t")


def test_maintaining_goes_on_beside_a_broken_table(store: Store) -> None:
    store.create("u", SCHEMA)
    for name in ("t", "u"):
        store.write(name, rows(0))
        store.flush(name)
        store.write(name, rows(100))
    (store.path / "t" / "_delta_log" / f"{2:020}.json").write_text("{")
    with pytest.warns(PenstockWarning, match="table 't' was not maintained: expected commit 2 as JSON"):
        done = store.maintain(force=True)
    assert list(done) == ["u"]
    failed: list[str] = []
    store.maintain(force=True, failed=lambda name, error: failed.append(name))
    assert failed == ["t"]


def test_upkeep_in_a_thread_and_in_a_process(store: Store) -> None:
    table = store.table("t")
    for process in (False, True):
        before = table.rolled(table.state())
        store.write("t", rows(before, 20_000))
        with store.upkeep(every=0.05, process=process) as upkeep:
            assert upkeep.is_running
            assert (upkeep.pid is not None) == process
            waiting = threading.Event()
            for _ in range(600):
                if table.rolled(table.state()) > before:
                    break
                waiting.wait(0.05)
        assert not upkeep.is_running
        assert table.rolled(table.state()) == before + 20_000
    with pytest.raises(UsageError, match="expected seconds above 0, got 0"):
        store.upkeep(every=0)


def test_the_order_in_which_things_reach_the_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log, the data file and its folder, the commit, and only then its name."""
    table = store.table("t")
    store.write("t", rows(0))
    order: list[str] = []

    def noting(call: str) -> None:
        real = getattr(os, call)

        def noted(what: int | str | Path, *more: object) -> object:
            path = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else str(what)
            kinds = {".arrow": "log", ".idx": "log", ".parquet": "file", ".new": "commit", "_delta_log": "names"}
            kind = next((kinds[end] for end in kinds if path.endswith(end)), Path(path).name)
            order.append(f"{call} {kind}")
            return real(what, *more)

        monkeypatch.setattr(os, call, noted)

    for call in ("fsync", "fdatasync", "link"):
        noting(call)
    roll(table, force=True)
    steps = [step for step in dict.fromkeys(order) if not step.endswith("%2Ft")]  # the folder of the log
    assert steps == [
        *("fdatasync log", "fsync file", "fsync date=2026-01-01", "fsync t"),
        *("fsync commit", "link commit", "fsync names"),
    ]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_goes_on(store: Store) -> None:
    store.write("t", rows(0))
    store.flush()
    store.write("t", rows(100))
    expected = store.read("t")
    table = store.table("t")
    tail = table.tail
    with table._mutex, table.parts._mutex, tail._mutex, store._mutex:  # as if other threads were in there
        child = os.fork()
        if child == 0:
            os._exit(0 if store.read("t").equals(expected) and store.write("t", rows(200)) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.read("t").num_rows == 300
