"""Paths that lead out of the store, and keys that no path can name, are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock.store
from penstock.errors import PenstockError, StorageError, UsageError
from penstock.store.paths import check_key, check_path, check_table, inside

SCHEMA = pa.schema({"symbol": pa.string(), "ts_event": pa.int64()})


@pytest.mark.parametrize(
    "path,expected",
    [
        ("", "a path without blanks at its ends"),
        (" a", "a path without blanks"),
        ("a\n", "a path without blanks"),
        ("/etc/passwd", "a path inside the store"),
        ("~/x", "a path inside the store"),
        ("s3://b/x", "a path inside the store"),
        ("a\\b", "a path inside the store"),
        ("a\0b", "a path of printable characters"),
        ("a\x1bb", "a path of printable characters"),
        ("..", "a path without empty parts"),
        ("a/../../b", "a path without empty parts"),
        ("a//b", "a path without empty parts"),
        ("a/./b", "a path without empty parts"),
        ("a/", "a path without empty parts"),
        ("x" * 10_000, "a path of at most 1000 characters, got 10000 characters"),
        (7, "a path as text, got 7"),
        (None, "a path as text, got None"),
    ],
    ids=range(17),
)
def test_bad_paths(path: object, expected: str, tmp_path: Path) -> None:
    store = penstock.store.open(tmp_path)
    for call in (store.read, store.table, store.split, store.drop, store.schema):
        with pytest.raises(UsageError, match=expected):
            call(path)
    with pytest.raises(UsageError, match=expected):
        store.create(path, SCHEMA)
    with pytest.raises(UsageError, match=expected):
        store.write(path, SCHEMA.empty_table())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hub.json", "streams"]


@pytest.mark.parametrize("name", ["_delta_log", ".hidden", "a/_b", "a b", "a*", "a=b", "x.parquet", "a%2F"])
def test_names_no_table_can_have(name: str) -> None:
    with pytest.raises(UsageError, match="expected a table name of letters, digits"):
        check_table(name)
    with pytest.raises(UsageError, match="expected a table name of at most 180 bytes, got 200 bytes"):
        check_table("x" * 200)


@pytest.mark.parametrize("key", ["", " x", "a\0", "..", "a/../b", "a//b", "\x7f", "a\\b", "k" * 201, None])
def test_keys_no_row_can_have(key: str | None, tmp_path: Path) -> None:
    store = penstock.store.open(tmp_path)
    store.create("t", SCHEMA)
    rows = pa.table({"symbol": pa.array(["A", key], pa.string()), "ts_event": [1, 2]})
    with pytest.raises(PenstockError, match="expected a key of 1 to 200 printable|expected string for"):
        store.write("t", rows)
    assert store.read("t").num_rows == 0


def test_keys_with_slashes_and_any_letters(tmp_path: Path) -> None:
    store = penstock.store.open(tmp_path)
    keys = ["BRK/B", "Ünï", "日経", "a.b", "^GSPC", "EUR=X", "x" * 200]
    store.create("t", SCHEMA)
    store.write("t", pa.table({"symbol": keys, "ts_event": range(len(keys))}))
    store.flush()
    for number, key in enumerate(keys):
        assert store.read(f"t/{key}")["ts_event"].to_pylist() == [number]


def test_links_out_of_the_store(tmp_path: Path) -> None:
    other = penstock.store.open(tmp_path / "other")
    other.create("t", SCHEMA)
    store = penstock.store.open(tmp_path / "data")
    store.path.mkdir()
    (store.path / "t").symlink_to(other.path / "t")
    with pytest.raises(
        UsageError, match=r"expected a table inside .*, got a link to .*; move the folder into the store"
    ):
        store.read("t/A")
    (store.path / "b").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="got a link to"):
        store.create("b/new", SCHEMA)
    assert inside(tmp_path, tmp_path / "data") == tmp_path / "data"


def test_a_log_that_names_files_outside(tmp_path: Path) -> None:
    store = penstock.store.open(tmp_path)
    store.create("t", SCHEMA)
    for path in ("../secret.parquet", "/etc/secret.parquet", "%2e%2e/x.parquet", "s3://b/x"):
        add = {"path": path, "partitionValues": {}, "size": 1, "modificationTime": 0, "dataChange": True}
        (store.path / "t" / "_delta_log" / f"{1:020}.json").write_text(json.dumps({"add": add}))
        with pytest.raises(StorageError, match="expected data files inside the table, got"):
            penstock.store.open(tmp_path).read("t")


@given(st.text(max_size=40))
def test_any_text_is_a_path_inside_or_refused(text: str) -> None:
    for check in (check_path, check_table, lambda key: check_key(key, "")):
        try:
            assert check(text) == text
        except UsageError:
            continue
        root = Path("/root/of/store")
        assert ".." not in text.split("/")
        assert (root / text).is_relative_to(root)
        assert text.isprintable()
