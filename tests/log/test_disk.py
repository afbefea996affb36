"""A disk that is full: a real one, of 4 MB."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pyarrow as pa
import pytest

from penstock.errors import CorruptSegment, DiskFull, PenstockWarning, ReadOnly, StorageError, UnknownStream
from penstock.log import Folder, Position
from penstock.log.disk import storage, storage_error
from penstock.log.format import ENTRY_BYTES, arrow_name, index_name
from penstock_tests.damage import numbers
from penstock_tests.waiting import PATIENCE_S

PAGE = 4096


class Disk:
    """A small file system, and a file that takes all the room that is left."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, leave: int = 0) -> None:
        """Leave only `leave` whole pages."""
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(PAGE))
        if leave:
            os.truncate(self._ballast, self._ballast.stat().st_size // PAGE * PAGE - leave * PAGE)

    def free(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path, need: Callable[[object, str], None]) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    done = os.geteuid() == 0 and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=300", "tmpfs", str(path)], capture_output=True
    ).returncode  # fmt: skip
    need(done, "root, to mount a small file system")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)


def test_nothing_acknowledged_is_lost_and_nothing_refused_stays(disk: Disk, prices: pa.Schema) -> None:
    hub = Folder(disk.path / "hub")
    stream, other = hub.stream("s", schema=prices), hub.stream("other", schema=prices)
    other.append({"n": 1})
    disk.fill(leave=30)
    acknowledged: list[int] = []
    with pytest.raises(
        DiskFull, match=r"expected room for \d+ bytes, got 0 bytes free - in .*; nothing of this was kept"
    ):
        for i in range(10_000):
            stream.append({"n": i, "text": "x" * (i % 300)})
            acknowledged.append(i)
    assert len(acknowledged) > 50
    for _ in range(3):
        with pytest.raises(DiskFull) as error:
            stream.append(pa.table({"n": range(1000), "text": ["y" * 40] * 1000}, prices))
        assert error.value.kept == range(0)  # type: ignore[attr-defined]
        assert isinstance(error.value, OSError)
    assert numbers(stream) == acknowledged
    assert numbers(Folder(disk.path / "hub").stream("s")) == acknowledged  # a process that begins now
    assert numbers(other) == [1]
    disk.free()
    assert stream.append({"n": -1}) == range(len(acknowledged), len(acknowledged) + 1)
    assert numbers(Folder(disk.path / "hub").stream("s")) == [*acknowledged, -1]
    assert list(stream._folder.glob("*.torn")) == []
    other.append({"n": 2})
    hub.close()


@pytest.mark.parametrize("pages", range(8))
def test_a_disk_that_fills_up_anywhere_while_segments_are_rolled(pages: int, disk: Disk, prices: pa.Schema) -> None:
    """The message, the seal, the new data file, its schema, its index: each is once the one that does not fit."""
    hub = Folder(disk.path / "hub")
    stream = hub.stream("s", schema=prices, segment_bytes=9000)
    stream.append({"n": 0, "text": "x" * 3000})
    disk.fill(leave=pages)
    count = 1
    with pytest.raises(DiskFull):
        while True:
            stream.append({"n": count, "text": "x" * 3000})
            count += 1
    for reader in (stream, Folder(disk.path / "hub").stream("s")):
        assert numbers(reader) == list(range(count))
        assert list(reader.tail("end", timeout=0)) == []
        with pytest.raises(DiskFull):
            for _ in range(8):
                reader.append({"n": 99, "text": "x" * 3000})
        count = reader.next_offset
    disk.free()
    for writer in (Folder(disk.path / "hub").stream("s"), stream):
        writer.append({"n": 7})
        count += 1
        assert len(numbers(writer)) == count


def test_an_index_that_does_not_fit(disk: Disk, prices: pa.Schema) -> None:
    """The message goes in, its entry does not: 31 entries and the header fill the index's first page."""
    hub = Folder(disk.path / "hub")
    stream = hub.stream("s", schema=prices)
    for i in range(PAGE // ENTRY_BYTES - 1):
        stream.append({"n": i})
    assert (stream._folder / index_name(0)).stat().st_size == PAGE
    size = (stream._folder / arrow_name(0)).stat().st_size
    disk.fill()
    with pytest.raises(DiskFull):
        stream.append({"n": 31})
    assert (stream._folder / arrow_name(0)).stat().st_size == size
    assert numbers(stream) == list(range(31))
    with pytest.raises(DiskFull):
        stream.seal()
    with pytest.raises(DiskFull, match="expected room for the description of a stream|expected room for 128 bytes"):
        stream.widen(pa.schema([("new", pa.int8())]))
    disk.free()
    stream.append({"n": 31})
    stream.widen(pa.schema([("new", pa.int8())]))
    assert numbers(stream) == list(range(32))


def test_a_table_of_which_a_part_fits_says_which(disk: Disk, prices: pa.Schema) -> None:
    hub = Folder(disk.path / "hub")
    stream = hub.stream("s", schema=prices, max_batch_bytes=10_000)
    stream.append({"n": -1})
    disk.fill(leave=20)
    table = pa.table({"n": range(10_000), "text": ["z" * 20] * 10_000}, prices)
    with pytest.raises(DiskFull, match=r"offsets 1 to \d+ were kept; free some space and append the rest") as error:
        stream.append(table)
    kept: range = error.value.kept  # type: ignore[attr-defined]
    assert kept.start == 1
    assert stream.next_offset == kept.stop > 100
    disk.free()
    stream.append(table.slice(len(kept)))
    assert numbers(stream) == [-1, *range(10_000)]


def test_making_streams_and_hubs(disk: Disk) -> None:
    hub = Folder(disk.path / "hub")
    hub.stream("before").append({"a": 1})
    disk.fill()
    with pytest.raises(DiskFull, match="expected room for (a new stream|the description of a stream)"):
        hub.stream("new")
    with pytest.raises(DiskFull, match="expected room for a new hub"):
        Folder(disk.path / "second")
    assert hub.names() == ["before"]
    assert hub.stream("before").rows() == [{"a": 1}]
    with pytest.raises(DiskFull):
        hub.stream("before").set_attributes({"note": "x" * 5000})
    assert hub.stream("before").attributes == {}
    disk.free()
    hub.stream("new").append({"b": 1})
    Folder(disk.path / "second")
    assert list(disk.path.rglob("*.new")) == []


def test_no_more_inodes(disk: Disk) -> None:
    hub = Folder(disk.path / "hub")
    stream = hub.stream("s", segment_bytes=1000)
    files = []
    with contextlib.suppress(OSError):
        for i in range(1000):
            files.append(disk.path / f"f{i}")
            files[-1].touch()
    with pytest.raises(DiskFull):
        hub.stream("new")
    with pytest.raises(DiskFull):
        stream.append({"a": 1})
    with pytest.raises(DiskFull, match="expected room for a group's position"):
        stream.group("g")
    for path in files[:20]:
        path.unlink(missing_ok=True)
    stream.append({"a": 2})
    assert stream.rows() == [{"a": 2}]


def test_groups(disk: Disk) -> None:
    hub = Folder(disk.path / "hub")
    stream = hub.stream("s")
    stream.append([{"i": i} for i in range(100)])
    held = stream.group("held")
    disk.fill()
    with pytest.raises(DiskFull, match=r"expected room for (4096 bytes|a group's position)"):
        stream.group("new")
    for offset in range(1, 50):
        with contextlib.suppress(DiskFull):  # every tenth of a second the catalogue is written, which says so
            held.commit(Position(offset, low=offset))
    assert stream.position("held").offset == 49
    with pytest.raises(DiskFull, match="expected room for 1000 bytes of a consumer's state"):
        held.save_state(bytes(1000))
    assert held.load_state() is None
    with contextlib.suppress(DiskFull):
        held.close()
    disk.free()
    again = stream.group("held")
    assert again.position == Position(49, low=49)
    again.close()
    stream.group("new").close()


def test_the_bell_is_no_bus_error(disk: Disk, fork: Callable[..., BaseProcess]) -> None:
    """A page that is a hole in a full file system would kill whoever stores to it: readers poll instead."""
    hub = Folder(disk.path / "hub")
    stream = hub.stream("s")
    stream.append({"i": 0})
    (stream._folder / "bell").unlink()
    disk.fill()

    def child() -> None:
        found = Folder(disk.path / "hub").stream("s")
        tail = found.tail("start", timeout=0.05)
        os._exit(0 if sum(batch.num_rows for batch in tail) == 1 else 1)

    process = fork(child)
    process.join(PATIENCE_S)
    assert process.exitcode == 0
    there = Folder(disk.path / "hub").stream("s")
    tail = there.tail(timeout=PATIENCE_S)
    disk.free()
    threading.Timer(0.02, lambda: stream.append({"i": 1})).start()
    assert next(tail).num_rows == 1


def test_a_torn_tail_for_which_there_is_no_room_is_cut_all_the_same(disk: Disk) -> None:
    hub = Folder(disk.path / "hub")
    stream = hub.stream("s")
    stream.append({"i": 0})
    with (stream._folder / arrow_name(0)).open("ab") as file:
        file.write(bytes(PAGE))
    disk.fill()
    with pytest.warns(PenstockWarning, match=r"cut 4096 bytes of data \(no room to keep them\)"):
        stream.append({"i": 1})
    assert stream.rows() == [{"i": 0}, {"i": 1}]
    assert list(stream._folder.glob("*.torn")) == []


def test_an_index_that_cannot_be_rebuilt_for_want_of_room(disk: Disk) -> None:
    hub = Folder(disk.path / "hub")
    stream = hub.stream("s")
    stream.append({"i": 0})
    hub.close()
    index = stream._folder / index_name(0)
    disk.fill()
    index.rename(disk.path / "kept")
    fresh = Folder(disk.path / "hub").stream("s")
    with pytest.raises(CorruptSegment, match=r"cannot be rebuilt here \(.*expected room for"):
        fresh.read()
    with pytest.raises(DiskFull):
        fresh.append({"i": 1})
    disk.free()
    with pytest.warns(PenstockWarning, match="rebuilt, 1 rows"):
        assert fresh.rows() == [{"i": 0}]


@pytest.mark.parametrize("entries", [5, PAGE // ENTRY_BYTES])
def test_a_stream_can_be_dropped_to_make_room(entries: int, disk: Disk) -> None:
    hub = Folder(disk.path / "hub")
    stream, producer = hub.stream("s"), Folder(disk.path / "hub").stream("s")
    reader = producer.reader()
    for i in range(entries - 1):
        producer.append({"i": i, "text": "x" * 2000})
    while reader.poll() is not None:
        pass
    disk.fill()
    hub.drop("s")
    assert hub.names() == []
    for call in (lambda: producer.append({"i": -1}), reader.poll, lambda: producer.wait(0, 0), lambda: stream.rows()):
        with pytest.raises(UnknownStream, match="stream 's' was dropped"):
            call()
    del reader, call
    hub.stream("s").append({"new": 1})
    assert hub.stream("s").rows() == [{"new": 1}]


def test_retention_makes_room_for_the_next_segment(disk: Disk, prices: pa.Schema) -> None:
    hub = Folder(disk.path / "hub")
    stream = hub.stream("s", schema=prices, segment_bytes=100_000)
    for i in range(10):
        stream.append({"n": i, "text": "x" * 60_000})
    stream.change(retention={"bytes": 150_000})
    assert stream.first_offset == 0  # it is looked at when a segment begins
    disk.fill()
    assert stream.append({"n": 10, "text": "x" * 60_000}) == range(10, 11)
    assert numbers(stream) == [8, 9, 10]


def test_what_the_file_system_says() -> None:
    folder = Path("/nowhere")
    for code, kind, text in (
        (errno.ENOSPC, DiskFull, "expected room for x, got no room - in /nowhere; nothing of this was kept"),
        (errno.EDQUOT, DiskFull, "room for x"),
        (errno.EROFS, ReadOnly, "expected a writable folder, got 'Read-only file system' - in /nowhere; reading works"),
        (errno.EACCES, ReadOnly, "got 'Permission denied'"),
        (errno.EIO, StorageError, "expected the file system to take x, got .*Input/output error"),
    ):
        with pytest.raises(kind, match=text) as error, storage(folder, "x"):
            raise OSError(code, os.strerror(code))
        assert isinstance(error.value.__cause__, OSError)
    with pytest.raises(FileNotFoundError), storage(folder, "x"):
        open("/nowhere/at/all")
    inner = storage_error(OSError(errno.ENOSPC, "full"), folder, "y")
    with pytest.raises(DiskFull) as error, storage(folder, "x"):
        raise inner
    assert error.value is inner
