"""Delta's log: states as values, commits that exclude each other, checkpoints that say the same."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.clock import WALL, ManualClock
from penstock.errors import StorageError
from penstock.store.checkpoint import checkpoint_state, write_checkpoint
from penstock.store.delta import DeltaLog, add_action, remove_action, txn_action
from penstock.store.layout import Layout, delta_schema, stored
from penstock.store.state import RETENTION, DataFile, State

SCHEMA = pa.schema([("symbol", pa.string()), ("ts_event", pa.int64())])
LAYOUT = Layout.of(SCHEMA, "t")
DAY = 86_400_000_000_000


def made(folder: Path) -> DeltaLog:
    log = DeltaLog(folder)
    log.create(delta_schema(stored(SCHEMA, LAYOUT), LAYOUT), ["date"], {"penstock.layout": "{}"})
    return log


def file(name: str, rows: int = 1) -> DataFile:
    return DataFile(name, 10, rows, {"date": "2026-01-01"}, {"symbol": "A"}, {"symbol": "B"}, 5)


def test_commits_and_what_they_make(tmp_path: Path) -> None:
    log = made(tmp_path)
    first = log.commit(log.load(), "WRITE", [add_action(file("a")), txn_action("x", 7)], lambda _: True)
    assert first is not None
    second = log.commit(first, "WRITE", [remove_action(file("a")), add_action(file("b c", 3))], lambda _: True)
    assert second == log.load() == DeltaLog(tmp_path).load()
    assert (second.version, second.transactions, list(second.files)) == (2, {"x": 7}, ["b c"])
    assert second.files["b c"] == file("b c", 3)
    assert list(second.removed) == ["a"]
    assert first.files == {"a": file("a")}  # a state does not change
    assert made(tmp_path).load() == second  # making it again makes nothing
    assert list((tmp_path / "_penstock").iterdir()) == []


def test_a_commit_that_no_longer_holds(tmp_path: Path) -> None:
    log, other = made(tmp_path), DeltaLog(tmp_path)
    old = log.load()
    other.commit(old, "WRITE", [add_action(file("theirs"))], lambda _: True)
    asked: list[int] = []
    assert log.commit(old, "WRITE", [add_action(file("mine"))], lambda newer: bool(asked.append(newer.version))) is None
    assert asked == [1]
    assert list(log.load().files) == ["theirs"]


def test_many_at_once_have_a_number_each(tmp_path: Path) -> None:
    log = made(tmp_path)
    ready = threading.Barrier(8)

    def commit(who: int) -> None:
        mine = DeltaLog(tmp_path)
        ready.wait()
        for n in range(10):
            mine.commit(mine.load(), "WRITE", [add_action(file(f"{who}-{n}"))], lambda _: True)

    threads = [threading.Thread(target=commit, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = log.load()
    assert state.version == 80
    assert len(state.files) == 80
    assert deltalake.DeltaTable(str(tmp_path)).version() == 80


def test_checkpoints_say_the_same(tmp_path: Path) -> None:
    log = made(tmp_path)
    state = log.load()
    for n in range(5):
        actions = [add_action(file(f"{n}.parquet", n)), txn_action(f"app{n % 2}", n)]
        if n == 3:
            actions.append(remove_action(file("1.parquet", 1)))
        after = log.commit(state, "WRITE", actions, lambda _: True)
        assert after is not None
        state = after
    write_checkpoint(tmp_path / "_delta_log", state)
    found = DeltaLog(tmp_path).load()
    assert (found.version, found.files, found.transactions) == (state.version, state.files, state.transactions)
    assert (found.metadata, found.protocol) == (state.metadata, state.protocol)
    other = deltalake.DeltaTable(str(tmp_path))
    assert sorted(path.rpartition("/")[2] for path in other.file_uris()) == [
        "0.parquet",
        "2.parquet",
        "3.parquet",
        "4.parquet",
    ]
    assert other.transaction_version("app0") == 4
    other.create_checkpoint()  # theirs in place of ours
    theirs = DeltaLog(tmp_path).load()
    assert (theirs.files, theirs.transactions) == (state.files, state.transactions)


def test_transactions_that_expire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = WALL.now_ns()
    clock = ManualClock(now - 40 * DAY)
    monkeypatch.setattr("penstock.store.delta.WALL", clock)
    log = DeltaLog(tmp_path)
    log.create(delta_schema(stored(SCHEMA, LAYOUT), LAYOUT), ["date"], {RETENTION: "interval 30 days"})
    for who in ("early", "again", "late"):
        log.commit(log.load(), "WRITE", [txn_action(who, 1, expires=True), txn_action("ever", 9)], lambda _: True)
        clock.advance(ns=9 * DAY)  # 40, 31 and 22 days ago
    log.commit(log.load(), "WRITE", [txn_action("again", 2, expires=True)], lambda _: True)  # 13 days ago
    assert log.load().transactions == {"early": 1, "ever": 9, "again": 2, "late": 1}
    known = log.load()
    clock.advance(ns=13 * DAY)
    state = log.load()
    assert state.transactions == {"ever": 9, "again": 2, "late": 1}
    log.commit(known, "WRITE", [add_action(file("a"))], lambda _: True)
    assert log.load(known).transactions == state.transactions  # also by way of a state from before
    other = deltalake.DeltaTable(str(tmp_path))  # it sees the same
    assert [other.transaction_version(who) for who in ("early", "again", "late", "ever")] == [None, 2, 1, 9]
    write_checkpoint(tmp_path / "_delta_log", log.load())
    assert DeltaLog(tmp_path).load().transactions == state.transactions
    other.update_incremental()
    other.create_checkpoint()
    assert DeltaLog(tmp_path).load().transactions == state.transactions
    monkeypatch.setattr("penstock.store.delta.WALL", ManualClock(now - 400 * DAY))  # a clock set back takes nothing
    assert DeltaLog(tmp_path).load().transactions == state.transactions
    clock.advance(ns=4000 * DAY)
    monkeypatch.setattr("penstock.store.delta.WALL", clock)
    assert DeltaLog(tmp_path).load().transactions == {"ever": 9}


@pytest.mark.parametrize(
    "text, milliseconds",
    [("interval 30 days", 2_592_000_000), ("INTERVAL 1 week", 604_800_000), ("90 seconds", 90_000)],
)
def test_how_long_transactions_are_kept(text: str, milliseconds: int) -> None:
    state = State(metadata={"configuration": {RETENTION: text}}, transactions={"a": 1}, heard={"a": 0})
    assert state.without_expired(milliseconds - 1) is state
    assert state.without_expired(milliseconds).transactions == {}


@pytest.mark.parametrize("text", [None, "", "interval", "interval 1 month 2 days", "interval x days", "2 moons"])
def test_what_is_no_interval_ends_nothing(text: str | None) -> None:
    configuration = {} if text is None else {RETENTION: text}
    state = State(metadata={"configuration": configuration}, transactions={"a": 1}, heard={"a": 0})
    assert state.without_expired(2**62) is state


def test_damaged_checkpoints(tmp_path: Path) -> None:
    log = made(tmp_path)
    write_checkpoint(tmp_path / "_delta_log", log.load())
    path = tmp_path / "_delta_log" / f"{0:020}.checkpoint.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StorageError, match="expected the checkpoint of version 0, got .* restore the file from a copy"):
        DeltaLog(tmp_path).load()
    path.unlink()
    with pytest.raises(StorageError, match="expected its last checkpoint, got no such file - in"):
        DeltaLog(tmp_path).load()


@given(st.binary(max_size=300))
def test_bytes_that_are_no_checkpoint(data: bytes) -> None:
    with pytest.raises(StorageError, match="expected the checkpoint of version 3"):
        checkpoint_state(pa.BufferReader(data), 3, "t")


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=9),
        lambda e: (
            st.lists(e, max_size=3)
            | st.dictionaries(
                st.sampled_from(["add", "remove", "txn", "path", "size", "appId", "version", "protocol"]), e, max_size=3
            )
        ),
    )
)
def test_commits_of_anything(tmp_path_factory: pytest.TempPathFactory, action: object) -> None:
    """What is no commit is a StorageError, or says nothing to us."""
    folder = tmp_path_factory.mktemp("table")
    log = made(folder)
    (folder / "_delta_log" / f"{1:020}.json").write_text(json.dumps(action) + "\n")
    with contextlib.suppress(StorageError):
        assert isinstance(log.load(), State)
