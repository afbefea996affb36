"""A key dropped: gone from both tiers, for every reader, as of every time; everything else as it was."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa
import pytest

import penstock as ps
import penstock.store
from penstock.errors import CorruptFile, KeyNotFound, UsageError
from penstock.store import Store, Table
from penstock.store.compact import compact, vacuum
from penstock.store.roll import roll
from penstock_tests.children import die_at

NOON = 1_767_268_800_000_000_000
DAY = 86_400_000_000_000
SCHEMA = pa.schema([("symbol", pa.string()), ("ts_event", pa.int64()), ("n", pa.int64())])
ALL = ["symbol", "ts_event", "n", "ts_known", "_offset"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with penstock.store.open(tmp_path / "data") as store:
        store.create("t", SCHEMA)
        yield store


def rows(first: int, keys: str = "ABC", days: int = 3) -> pa.Table:
    numbers = np.arange(first, first + len(keys) * days)
    times = NOON + numbers % days * DAY
    return pa.table({"symbol": [keys[n // days] for n in range(len(numbers))], "ts_event": times, "n": numbers})


def everything(table: Table) -> pa.Table:
    return table.read(columns=ALL, revisions=True)


def without(found: pa.Table, key: str) -> pa.Table:
    return found.filter(pa.compute.not_equal(found["symbol"], key)).combine_chunks()


@pytest.mark.parametrize("tiers", ["hot", "cold", "both", "compacted"])
def test_a_key_goes_and_the_others_stay(tiers: str, store: Store) -> None:
    table = store.table("t")
    for first in (0, 100, 200):
        store.write("t", rows(first))
        if tiers != "hot" and not (tiers == "both" and first == 200):
            store.flush()
    if tiers == "compacted":
        compact(table, everything=True)
    expected = without(everything(table), "B")
    known = int(table.read(columns=["ts_known"])["ts_known"].to_numpy().max())
    with penstock.store.open(store.hub.path) as other:
        theirs = other.table("t")
        assert theirs.read("B").num_rows == 3
        told: list[tuple[int, int]] = []
        store.drop("t/B", progress=lambda *numbers: told.append(numbers))
        assert told[-1][0] == told[-1][1] >= 27
        for mine in (table, theirs, penstock.store.open(store.hub.path).table("t")):
            assert everything(mine).equals(expected)
            assert mine.keys() == ["A", "C"]
            assert mine.counts() == {"A": 9, "C": 9}
            for as_of in (None, known):
                with pytest.raises(KeyNotFound, match="no key 'B' in table 't'"):
                    mine.read("B", as_of=as_of)
    assert sorted(deltalake.DeltaTable(str(table.folder)).to_pyarrow_table()["symbol"].to_pylist()) == list(
        "A" * 9 + "C" * 9
    )
    vacuum(table, grace=0)
    assert len(list(table.folder.rglob("date=*/*.parquet"))) == len(table.state().files)
    store.write("t/B", {"ts_event": NOON, "n": 7})
    for _ in range(2):
        assert store.read("t/B")["n"].to_pylist() == [7]
        store.maintain(force=True)
    assert everything(table).num_rows == 19


def test_the_only_key(store: Store) -> None:
    store.write("t", rows(0, keys="A"))
    store.drop("t/A")
    assert store.ls("t") == []
    assert store.read("t").num_rows == 0
    assert store.table("t").state().files == {}
    store.write("t", rows(0, keys="A"))
    assert store.read("t/A").num_rows == 3


def test_keys_of_any_name(store: Store) -> None:
    for key in ("a/b", "a", "A*", "Ü x", "100%=?"):
        store.write("t", rows(0, keys="A").set_column(0, "symbol", pa.array([key] * 3)))
    with pytest.raises(
        UsageError, match=r"expected a table, or one key of it, got 't/\*' - in store.drop; drop the keys"
    ):
        store.drop("t/*")
    with pytest.raises(KeyNotFound, match="no key 'a/c' in table 't'; did you mean 'a/b'"):
        store.drop("t/a/c")
    assert len(store.ls("t")) == 5
    for left, key in enumerate(("A*", "a/b", "a", "100%=?", "Ü x")):
        store.drop(f"t/{key}")
        assert len(store.ls("t")) == 4 - left
        assert f"t/{key}" not in store.ls("t")


def test_an_adopted_stream_keeps_its_rows(tmp_path: Path) -> None:
    with ps.open(tmp_path) as hub:
        stream = hub.streams.get("bars", schema=SCHEMA)
        stream.append(rows(0))
        store = penstock.store.open(hub)
        store.create("t", SCHEMA, stream="bars")
        store.drop("t/B")
        stream.append(rows(9, keys="AC"))
        store.flush()
        assert store.table("t").keys() == ["A", "C"]
        assert stream.read().num_rows == 15


def test_a_file_that_cannot_be_read(store: Store) -> None:
    table = store.table("t")
    store.write("t", rows(0))
    store.flush()
    victim = sorted(table.folder.rglob("date=*/*.parquet"))[-1]
    data = victim.read_bytes()
    victim.write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptFile):
        store.drop("t/B")
    victim.write_bytes(data)
    again = penstock.store.open(store.hub.path)
    assert again.read("t/B").num_rows == 3


def test_files_of_another_program(store: Store) -> None:
    table = store.table("t")
    for first in (0, 100):
        store.write("t", rows(first))
        store.flush()
    expected = without(everything(table), "B")
    deltalake.DeltaTable(str(table.folder)).optimize.compact()
    with pytest.raises(KeyNotFound, match="no key 'D'"):
        store.drop("t/D")
    store.drop("t/B")
    assert everything(table).equals(expected)
    assert deltalake.DeltaTable(str(table.folder)).to_pyarrow_table().num_rows == 12


def test_another_program_compacts_at_the_same_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import penstock.store.compact as compacting
    import penstock.store.erase as module

    table = store.table("t")
    for first in (0, 100):
        store.write("t", rows(first))
        store.flush()
    expected = without(everything(table), "B")
    real = compacting.rewritten
    met: list[object] = []

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        if not met:
            met.append(deltalake.DeltaTable(str(table.folder)).optimize.compact())
        return real(*arguments, **options)

    monkeypatch.setattr(module, "rewritten", meanwhile)
    store.drop("t/B")
    assert everything(table).equals(expected)


def test_a_scan_under_way_goes_on(store: Store) -> None:
    store.write("t", rows(0))
    store.flush()
    scan = store.table("t").scan()
    assert next(scan).num_rows == 3
    store.drop("t/B")
    vacuum(store.table("t"), grace=0)
    assert [part["symbol"].to_pylist() for part in scan] == [["A", "C"]] * 2


def test_beside_writers_and_upkeep(store: Store) -> None:
    """What was written before a drop is gone, what was written after it is there; the other key has all of its rows."""
    permits, written = threading.Semaphore(0), [0]

    def write() -> None:
        with penstock.store.open(store.hub.path) as mine:
            for n in range(60):
                permits.acquire()
                times = [NOON + n, NOON + n]
                mine.write("t", pa.table({"symbol": ["A", "B"], "ts_event": times, "n": [n, n]}, SCHEMA))
                written[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    store.write("t/B", {"ts_event": NOON, "n": -1})
    with store.upkeep(every=0.1):
        for _ in range(3):
            permits.release(20)  # they are written while the key is dropped
            least = written[0]
            store.drop("t/B")
            found = store.read("t")
            left = found.filter(pa.compute.equal(found["symbol"], "B"))["n"].to_pylist()
            assert left == list(range(60))[left[0] : left[-1] + 1] if left else True
            assert not left or left[0] >= least
            store.write("t/B", {"ts_event": NOON - 1, "n": -1})
        writer.join()
    assert store.read("t/A")["n"].to_pylist() == list(range(60))
    left = store.read("t/B")["n"].to_pylist()
    assert left == [-1, *range(60)[60 - len(left) + 1 :]]


def test_by_way_of_a_server(tmp_path: Path) -> None:
    with (
        penstock.store.serve(tmp_path / "data", memory="64m", port=0) as server,
        penstock.store.connect(server.url) as far,
    ):
        far.write("t", rows(0))
        assert far.read("t/B").num_rows == 3
        far.drop("t/B")
        with pytest.raises(KeyNotFound, match="no key 'B'"):
            far.read("t/B")
        assert far.ls("t") == ["t/A", "t/C"]


def test_in_an_object_store(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    with penstock.store.open(tmp_path / "data", tables=(tmp_path / "bucket").as_uri()) as store:
        store.create("t", SCHEMA)
        store.write("t", rows(0))
        expected = without(everything(store.table("t")), "B")
        store.drop("t/B")
        assert everything(store.table("t")).equals(expected)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("call", ["write", "fsync", "link", "unlink"])
def test_killed_at_each_system_call(call: str, tmp_path: Path) -> None:
    """Either nothing was removed, or all of it; and at the next try all of it."""
    with penstock.store.open(tmp_path) as store:
        table = store.create("t", SCHEMA)
        for first in (0, 100):
            table.write(rows(first, days=2))
            roll(table, force=True, max_rows=4)
        table.write(rows(200, days=2))
        whole = everything(table)
    for number in range(100):
        child = os.fork()
        if child == 0:
            die_at(call, number)
            try:
                with penstock.store.open(tmp_path) as store:
                    store.drop("t/B")
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        with penstock.store.open(tmp_path) as store:
            found = everything(store.table("t"))
            assert found.equals(whole) or found.equals(without(whole, "B"))
            if os.WIFEXITED(status):
                return
            if not found.equals(whole):
                break
    with penstock.store.open(tmp_path) as store:
        assert everything(store.table("t")).equals(without(whole, "B"))
