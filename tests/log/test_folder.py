"""Names, making and dropping, folders of other kinds, folders that cannot be written."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock.errors import CorruptSegment, ReadOnly, StorageError, UnknownStream, UsageError
from penstock.log import Folder, Position, Stream
from penstock.log.format import Kind, pack
from penstock.records import TRADES
from penstock_tests.waiting import PATIENCE_S

ODD = [
    "a/../b",
    "..",
    ".",
    ".hidden",
    "a b",
    "é🙂",
    "100%",
    "%2F",
    "a\\b",
    "x" * 200,
    "CON",
    "_own",
    "a;b,c=d+e@f!g~h",
    "-r",
]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_stay_inside_the_hub(name: str, hub: Folder, again: Callable[..., Stream]) -> None:
    hub.stream(name).append({"a": 1})
    assert again(name).rows() == [{"a": 1}]
    assert hub.exists(name)
    assert hub.names("*" if not name.startswith("_") else "_*") == [name]
    [folder] = [path for path in (hub.path / "streams").iterdir()]
    assert folder.resolve().parent == (hub.path / "streams").resolve()
    assert sorted(path.name for path in hub.path.parent.iterdir()) == ["hub"]
    hub.drop(name)
    assert hub.names("*") == hub.names("_*") == []


@pytest.mark.parametrize(
    "name, message",
    [
        ("", "printable text without blanks at its ends, got ''"),
        ("a\0b", r"printable text .* got 'a\\x00b'"),
        (" a", "got ' a'"),
        ("a\n", "printable"),
        ("\ud800", "printable"),
        (5, "got 5"),
        (None, "got None"),
        (b"a", "got b'a'"),
        ("x" * 10_000, "a stream name of at most 200 bytes, got 10000 bytes - in hub"),
        ("é" * 100, "got 600 bytes"),
    ],
)
def test_bad_names(name: Any, message: str, hub: Folder) -> None:
    for call in (hub.stream, hub.exists, hub.drop):
        with pytest.raises(UsageError, match=message):
            call(name)


def test_listing(hub: Folder) -> None:
    for name in ("trades", "quotes", "trades/late", "_marks/x", "t[1]"):
        hub.stream(name)
    (hub.path / "streams" / "stray file").write_text("x")
    (hub.path / "streams" / "no stream").mkdir()
    assert hub.names() == ["quotes", "t[1]", "trades", "trades/late"]
    assert hub.names("t*") == ["t[1]", "trades", "trades/late"]
    assert hub.names("trades/*") == ["trades/late"]
    assert hub.names("_*") == ["_marks/x"]
    assert hub.names("nothing") == []
    assert hub.names("T*") == []


def test_unknown_streams_name_those_near(hub: Folder) -> None:
    for name in ("trades", "trades.errors", "quotes"):
        hub.stream(name)
    with pytest.raises(UnknownStream, match=r"no stream 'trade' - in hub .*; did you mean 'trades'") as error:
        hub.stream("trade", create=False)
    assert error.value.near[0] == "trades"  # type: ignore[attr-defined]
    with pytest.raises(UnknownStream, match="no stream 'zzz' - in hub .*; see `penstock stream ls`"):
        hub.drop("zzz")
    assert isinstance(error.value, KeyError)
    assert not hub.exists("trade")


def test_bad_schema_and_attributes_make_no_stream(hub: Folder) -> None:
    for options, message in (
        ({"schema": {"price": float}}, r"expected a pyarrow.Schema, got dict .*; for example penstock.records.TRADES"),
        ({"schema": pa.schema([])}, "expected a schema with columns, got an empty one - of stream 's'"),
        ({"attributes": {"f": open}}, "expected attributes: a dict of JSON values"),
        ({"attributes": ["x"]}, "expected attributes: a dict of JSON values"),
        ({"durability": "none"}, "expected durability"),
        ({"retention": {"age": -1}}, "expected a duration of at least 0"),
        ({"max_row_bytes": "1"}, "expected max_row_bytes of at least 1, got '1'"),
    ):
        with pytest.raises(UsageError, match=message):
            hub.stream("s", **options)
    assert hub.names() == []


def test_other_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(StorageError, match="expected an empty folder or a hub, got a folder with other things in it"):
        Folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(StorageError, match="expected a folder, got a file"):
        Folder(tmp_path / "mine.txt")
    with pytest.raises(UnknownStream, match=r"expected a hub, got no hub.json - in .*; give the hub's folder"):
        Folder(tmp_path / "new", create=False)
    (tmp_path / "hub").mkdir()
    Folder(tmp_path / "hub")
    (tmp_path / "hub" / "hub.json").write_text('{"format":2}')
    with pytest.raises(StorageError, match="expected a hub of format 1, got 2"):
        Folder(tmp_path / "hub")
    (tmp_path / "hub" / "hub.json").write_text("?")
    with pytest.raises(StorageError, match="expected a hub of format 1, got DecodeError"):
        Folder(tmp_path / "hub")


def test_a_broken_description_is_corrupt(hub: Folder, again: Callable[..., Stream]) -> None:
    stream = hub.stream("s", schema=TRADES)
    path = stream._folder / "meta.json"
    whole = path.read_text()
    for broken in ("", "{}", whole[:-40], whole.replace('"format": 1', '"format": 2'), whole.replace('"os"', '"none"')):
        path.write_text(broken)
        with pytest.raises(CorruptSegment, match="expected the description of a stream, format 1") as error:
            again("s")
        assert error.value.file == str(path)  # type: ignore[attr-defined]
    path.write_text(whole)
    assert again("s").schema.equals(TRADES)


# -- dropping


@pytest.fixture(params=["open", "sealed", "empty", "documents"])
def doomed(request: pytest.FixtureRequest, hub: Folder, prices: pa.Schema) -> Stream:
    if request.param == "documents":
        stream = hub.stream("s")
        stream.append({"n": 0})
        return stream
    stream = hub.stream("s", schema=prices)
    if request.param != "empty":
        stream.append([{"n": i} for i in range(5)])
    if request.param == "sealed":
        stream.seal()
    return stream


def test_drop_stops_every_producer_and_reader(doomed: Stream, hub: Folder, again: Callable[..., Stream]) -> None:
    producer, reading, lazy = again("s"), again("s"), again("s")
    if len(producer):
        producer.append({"n": 7})
    readers = [doomed.reader(), reading.reader()]
    for reader in readers:
        while reader.poll() is not None:
            pass
    tail = reading.tail()
    caught: list[Any] = []

    def wait() -> None:
        with pytest.raises(UnknownStream) as error:
            next(tail)
        caught.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    hub.drop("s")
    waiting.join(PATIENCE_S)
    assert len(caught) == 1
    calls: list[Callable[[], object]] = [
        lambda: producer.append({"n": 8}),
        lambda: lazy.append([{"n": 8}]),
        lambda: doomed.append({"n": 8}),
        lambda: doomed.next_offset,
        lambda: doomed.read(),
        lambda: producer.metadata(),
        lambda: producer.statistics(),
        lambda: producer.seal(),
        lambda: reading.wait(0, 0.01),
        lambda: lazy.group("g"),
        lambda: producer.widen(producer._meta.schema),
        *(reader.poll for reader in readers),
    ]
    for call in calls:
        with pytest.raises(UnknownStream, match="stream 's' was dropped - in .*; get it again"):
            call()
    assert hub.names() == []
    assert list((hub.path / "streams").iterdir()) == []


def test_a_stream_made_anew_is_another_one(doomed: Stream, hub: Folder, again: Callable[..., Stream]) -> None:
    stale = again("s")
    group = stale.group("g")
    stale.append([{"n": i} for i in range(3)])
    group.commit(Position(5, low=5))
    readers = [stale.reader("end"), stale.reader("start")]
    hub.drop("s")
    fresh = hub.stream("s")
    fresh.append([{"new": i} for i in range(20)])
    group.close()  # late: it must leave nothing for the new stream
    for reader in readers:
        with pytest.raises(UnknownStream):
            while reader.poll() is not None:
                pass
    with pytest.raises(UnknownStream):
        stale.append({"n": 5})
    with pytest.raises(UnknownStream):
        stale.wait(0, 0.01)
    assert fresh.position("g").offset == 0
    assert fresh.metadata().groups == {}
    with fresh_group(fresh) as new:
        assert new.is_new
    assert len(again("s").rows()) == 20


class fresh_group:
    def __init__(self, stream: Stream) -> None:
        self.group = stream.group("g")

    def __enter__(self) -> Any:
        return self.group

    def __exit__(self, *_: object) -> None:
        self.group.close()


def test_the_other_process_gets_the_new_stream_by_asking_again(hub: Folder) -> None:
    other = Folder(hub.path)
    hub.stream("s").append({"a": 1})
    other.stream("s").append({"a": 2})
    hub.drop("s")
    hub.stream("s").append({"b": 1})
    assert other.stream("s").rows() == [{"b": 1}]
    hub.drop("s")
    other.stream("s").append({"c": 1})
    assert hub.stream("s").rows() == [{"c": 1}]
    other.close()


def test_a_drop_that_was_killed_between_mark_and_removal_is_finished(hub: Folder) -> None:
    stream = hub.stream("s")
    stream.append({"a": 1})
    [index] = stream._folder.glob("*.idx")
    with index.open("ab") as file:
        file.write(pack(Kind.DROPPED, 1, 0, 0, 0, 1))
    with pytest.raises(UnknownStream):
        stream.append({"a": 2})
    with pytest.raises(UnknownStream):
        hub.stream("s", create=False)
    stream = hub.stream("s")
    assert stream.append({"b": 1}) == range(0, 1)
    assert hub.stream("s").rows() == [{"b": 1}]


def test_a_grave_left_by_a_killed_drop_is_no_stream_and_goes_with_the_next(hub: Folder) -> None:
    for name in ("a", "b"):
        hub.stream(name).append({"x": 1})
    (hub.path / "streams" / "a").rename(hub.path / "streams" / ".dropped-1-2")
    assert hub.names() == ["b"]
    hub.drop("b")
    assert list((hub.path / "streams").iterdir()) == []


def test_two_drop_at_once(hub: Folder) -> None:
    others = [Folder(hub.path) for _ in range(4)]
    for _ in range(10):
        hub.stream("s").append({"a": 1})
        results: list[str] = []

        def drop(folder: Folder, results: list[str] = results) -> None:
            try:
                folder.drop("s")
                results.append("dropped")
            except UnknownStream:
                results.append("unknown")

        threads = [threading.Thread(target=drop, args=(folder,)) for folder in others]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert sorted(results) == ["dropped", "unknown", "unknown", "unknown"]
    for folder in others:
        folder.close()


def test_making_and_dropping_at_once(hub: Folder) -> None:
    """Whatever the order, an append either is refused or is in the stream that it was acknowledged for."""
    errors: list[BaseException] = []
    stop = threading.Event()

    def produce(folder: Folder) -> None:
        try:
            while not stop.is_set():
                try:
                    folder.stream("s").append({"a": 1})
                    folder.stream("s").rows()
                except UnknownStream:
                    continue
        except BaseException as error:
            errors.append(error)

    others = [Folder(hub.path) for _ in range(3)]
    threads = [threading.Thread(target=produce, args=(folder,)) for folder in others]
    for thread in threads:
        thread.start()
    for _ in range(40):
        try:
            hub.drop("s")
        except UnknownStream:
            continue
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert errors == []
    for folder in others:
        folder.close()


# -- where nothing may be written


@pytest.fixture
def readonly(hub: Folder, tmp_path: Path, need: Callable[[object, str], None]) -> Iterator[Path]:
    """The hub, mounted once more so that nothing in it may be written."""
    target = tmp_path / "readonly"
    target.mkdir()
    done = os.geteuid() == 0 and not subprocess.run(
        f"mount --bind {hub.path} {target} && mount -o remount,bind,ro {target}", shell=True, capture_output=True
    ).returncode  # fmt: skip
    need(done, "root, to mount a read-only folder")
    try:
        yield target
    finally:
        subprocess.run(["umount", "-l", str(target)], check=False)


def test_a_read_only_hub_can_be_read_and_followed(hub: Folder, readonly: Path, prices: pa.Schema) -> None:
    stream = hub.stream("s", schema=prices, attributes={"a": 1})
    stream.append([{"n": 1}, {"n": 2}])
    group = stream.group("g")
    group.commit(Position(1, low=1))
    group.close()
    there = Folder(readonly)
    assert there.names() == ["s"]
    found = there.stream("s", schema=prices, attributes={"a": 1}, durability="os")  # changes nothing: no write
    assert found.read()["n"].to_pylist() == [1, 2]
    assert found.metadata().groups == {"g": 1}
    assert [item.offset for item in found.buffer("g")] == [1]
    tail = found.tail(timeout=PATIENCE_S)
    threading.Timer(0.02, lambda: stream.append({"n": 3})).start()
    assert next(tail)["n"].to_pylist() == [3]
    for call in (
        lambda: found.append({"n": 4}),
        lambda: found.seal(),
        lambda: found.set_attributes({"a": 2}),
        lambda: found.widen(pa.schema([("new", pa.int8())])),
        lambda: found.group("new"),
        lambda: found.group("g"),
        lambda: there.stream("other"),
        lambda: there.drop("s"),
    ):
        with pytest.raises(ReadOnly, match="expected a writable (folder|hub), got"):
            call()
    assert stream.append({"n": 5}) == range(3, 4)
    there.close()


def test_a_hub_cannot_be_made_where_nothing_may_be_written(readonly: Path) -> None:
    with pytest.raises(ReadOnly, match=r"expected a writable folder, got 'Read-only file system'"):
        Folder(readonly / "sub")


def test_a_read_only_segment_without_index_says_so(hub: Folder, readonly: Path, prices: pa.Schema) -> None:
    stream = hub.stream("s", schema=prices)
    stream.append({"n": 1})
    (stream._folder / "00000000000000000000.idx").unlink()
    found = Folder(readonly).stream("s")
    with pytest.raises(
        CorruptSegment, match=r"expected the index of a segment, got none, and it cannot be rebuilt here"
    ):
        found.read()
