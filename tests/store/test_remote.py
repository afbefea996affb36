"""Tables by URL, through deltalake: here in a folder by its file:// URL, the same code as for s3://."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import deltalake
import numpy as np
import pyarrow as pa
import pytest

import penstock.store
from penstock.errors import CorruptFile, KeyNotFound, StorageError, UsageError
from penstock.store import Store
from penstock.store.compact import checkpoint, compact, vacuum
from penstock.store.roll import _roll, roll

NOON = 1_767_268_800_000_000_000
MINUTE = 60_000_000_000
SCHEMA = pa.schema([("symbol", pa.string()), ("ts_event", pa.int64()), ("n", pa.int64())])


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket"


@pytest.fixture
def store(tmp_path: Path, bucket: Path) -> Iterator[Store]:
    with penstock.store.open(tmp_path / "data", tables=bucket.as_uri()) as store:
        store.create("m/t", SCHEMA)
        yield store


def rows(first: int, count: int) -> pa.Table:
    numbers = np.arange(first, first + count)
    return pa.table({"symbol": [f"S{n % 3}" for n in numbers], "ts_event": NOON + numbers * 100 * MINUTE, "n": numbers})


def test_the_whole_way(store: Store, bucket: Path, tmp_path: Path) -> None:
    table = store.table("m/t")
    for first in range(0, 50, 10):
        store.write("m/t", rows(first, 10))
        store.flush()
    store.write("m/t", rows(0, 5))  # again, and still hot
    assert list((tmp_path / "data" / "tables").rglob("*.parquet")) == []
    assert len(list((bucket / "m" / "t").rglob("*.parquet"))) >= 5
    expected = rows(0, 50).sort_by([("symbol", "ascending"), ("ts_event", "ascending")])
    for _ in range(2):
        assert store.read("m/t").cast(SCHEMA).equals(expected)
        assert store.read("m/t/S1")["n"].to_pylist() == list(range(1, 50, 3))
        assert store.read("m/t", revisions=True).num_rows == 50
        store.flush()
        compact(table, everything=True)
        assert checkpoint(table, commits=1)
        vacuum(table, grace=0)
    assert len(list((bucket / "m" / "t").rglob("date=*/*.parquet"))) == len(table.state().files)
    assert table.rolled(table.state()) == 55
    with penstock.store.open(tmp_path / "data") as again:  # the table knows where it lies
        assert again.read("m/t").cast(SCHEMA).equals(expected)
    assert deltalake.DeltaTable((bucket / "m" / "t").as_uri()).to_pyarrow_table().num_rows == 50


def test_two_rollers_without_a_lock(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import penstock.store.roll as module

    with penstock.store.open(tmp_path / "data") as other:
        store.write("m/t", rows(0, 10))
        real, met = module.files_of, []

        def meanwhile(table: object, found: pa.Table) -> object:
            if not met:
                met.append(1)
                _roll(other.table("m/t"), force=True, min_rows=1, max_rows=6)
            return real(table, found)  # type: ignore[arg-type]

        monkeypatch.setattr(module, "files_of", meanwhile)
        roll(store.table("m/t"), force=True)
        assert sorted(store.read("m/t", revisions=True)["n"].to_pylist()) == list(range(10))


def test_a_new_column(store: Store) -> None:
    store.write("m/t", rows(0, 2))
    store.flush()
    store.write("m/t", rows(2, 2).append_column("x", pa.array([1.5, 2.5])))
    store.flush()
    assert store.read("m/t").sort_by("n")["x"].to_pylist() == [None, None, 1.5, 2.5]


def test_a_corrupt_object_and_a_drop(store: Store, bucket: Path) -> None:
    store.write("m/t", rows(0, 3))
    store.flush()
    victim = next((bucket / "m" / "t").rglob("date=*/*.parquet"))
    victim.write_bytes(b"nothing")
    with pytest.raises(CorruptFile, match="in table 'm/t', at date="):
        store.read("m/t")
    store.drop("m/t")
    assert [path for path in bucket.rglob("*") if path.is_file()] == []
    with pytest.raises(KeyNotFound):
        store.read("m/t")


def test_bad_urls(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="expected the URL of an object store that .*, got '/data' - in tables; such as"
    ):
        penstock.store.open(tmp_path, tables="/data")
    with pytest.raises(
        UsageError, match="expected the URL of an object store that keeps what it is given, got 'memory:"
    ):
        penstock.store.open(tmp_path, tables="memory://tables")
    with penstock.store.open(tmp_path, tables=(tmp_path / "file" / "x").as_uri()) as store:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises((StorageError, OSError)):
            store.create("t", SCHEMA)
