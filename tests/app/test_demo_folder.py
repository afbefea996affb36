from __future__ import annotations

import os
from pathlib import Path

import pytest

import penstock as ps
from penstock.app.demo_folder import MARK, take_folder
from penstock.errors import PenstockError, ReadOnly, StorageError


def made(path: Path) -> None:
    """What a demo leaves."""
    lock = take_folder(path)
    with ps.open(path) as hub:
        hub.streams.get("trades").append({"a": 1})
        hub.streams.get("_marks/trades/bars").append({"a": 1})
        hub.streams.get("trades").group("bars").close()
    lock.close()


def test_a_folder_that_is_not_there_and_one_that_is_empty(tmp_path: Path) -> None:
    made(tmp_path / "a" / "b")
    (tmp_path / "c").mkdir()
    made(tmp_path / "c")


def test_what_an_earlier_demo_left_is_replaced(tmp_path: Path) -> None:
    made(tmp_path / "d")
    (tmp_path / "d" / "notes.txt").write_text("mine")
    lock = take_folder(tmp_path / "d")
    with ps.open(tmp_path / "d") as hub:
        assert hub.streams.list() == hub.streams.list("_*") == []
        assert hub.streams.get("trades").metadata().groups == {}
    lock.close()
    assert (tmp_path / "d" / "notes.txt").read_text() == "mine"


def test_a_demo_that_was_killed_at_any_point_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "d"
    path.mkdir()
    (path / MARK).touch()  # before anything else was made
    take_folder(path).close()
    made(path)
    (path / "hub.json").unlink()  # while the earlier one was being cleared
    take_folder(path).close()
    made(path)


@pytest.mark.parametrize("kind", ["file", "things", "hub", "stream", "busy"])
def test_anything_else_is_refused_and_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "d"
    lock = None
    if kind == "file":
        path.write_text("x")
    elif kind == "things":
        path.mkdir()
        for name in "abcde":
            (path / name).touch()
    elif kind == "hub":
        with ps.open(path) as hub:
            hub.streams.get("trades").append({"a": 1})
    elif kind == "stream":
        made(path)
        with ps.open(path) as hub:
            hub.streams.get("mine").append({"a": 1})
    else:
        lock = take_folder(path)
    before = sorted(str(p) for p in path.rglob("*"))
    said = {
        "file": "expected a folder, got a file",
        "things": "got a folder that holds 'a', 'b', 'c' and 2 more",
        "hub": "got a hub that the demo did not make",
        "stream": "expected only streams that the demo made, got 'mine' - in the hub",
        "busy": "another demo runs there",
    }[kind]
    with pytest.raises(StorageError, match=f"{said}.* at .*{path.name}.*give another --data"):
        take_folder(path)
    assert sorted(str(p) for p in path.rglob("*")) == before
    if lock is not None:
        lock.close()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PenstockError, match="expected a writable folder, got Not a directory") as raised:
        take_folder(tmp_path / "file" / "d")
    assert isinstance(raised.value, ReadOnly)
    assert os.listdir(tmp_path) == ["file"]
