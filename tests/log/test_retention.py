from __future__ import annotations

import threading
from collections.abc import Callable

import pyarrow as pa
import pytest

from penstock.errors import OffsetError, PenstockWarning
from penstock.log import Folder, Position, Retention, Stream
from penstock.log.format import arrow_name, index_name
from penstock.log.retention import expire, remove
from penstock.log.segment import EXPIRED, firsts
from penstock_tests.damage import numbers
from penstock_tests.waiting import PATIENCE_S

Again = Callable[..., Stream]


@pytest.fixture
def stream(hub: Folder, prices: pa.Schema) -> Stream:
    """Fifty rows in five segments of ten."""
    found = hub.stream("s", schema=prices)
    for i in range(50):
        found.append({"n": i})
        if i % 10 == 9 and i < 49:
            found.seal()
    return found


def test_by_bytes(stream: Stream, again: Again) -> None:
    size = stream.statistics().bytes
    stream.change(retention={"bytes": size})
    assert stream.retain() == 0
    again("s").change(retention={"bytes": size * 3 // 5})
    assert stream.retain() == 2  # what another process has set counts
    assert (stream.first_offset, stream.next_offset, len(stream)) == (20, 50, 30)
    assert numbers(stream) == numbers(again("s")) == list(range(20, 50))
    assert stream.metadata().segments == 3
    stream.change(retention={"bytes": 0})
    assert stream.retain() == 2
    assert numbers(stream) == list(range(40, 50))  # the open segment stays
    with pytest.raises(
        OffsetError, match=r"expected an offset from 40 on, got 39 - in start of stream 's'; older rows"
    ):
        stream.read(39)
    assert stream.read(stop=39).num_rows == 0
    assert numbers(stream) == stream.read("start")["n"].to_pylist()


def test_by_age(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.clock import ManualClock

    created = stream.read(columns=["_created"])["_created"].cast(pa.int64()).to_pylist()
    monkeypatch.setattr("penstock.log.retention.WALL", ManualClock(created[29] + 3600 * 10**9 + 1))
    stream.change(retention={"age": "1h"})
    assert stream.retain() == 3
    assert stream.first_offset == 30
    assert stream.retain() == 0


def test_until_a_group_has_them(stream: Stream, again: Again) -> None:
    stream.change(retention={"until": "store"})
    assert stream.retain() == 0  # a group that never was has still to read everything
    group = again("s").group("store")
    group.commit(Position(35, low=25))
    assert stream.retain() == 2
    assert stream.first_offset == 20
    stream.change(retention={"bytes": 0})
    assert Retention.of({"bytes": 0}).until is None
    assert stream.retain() == 2
    group.close()


def test_until_bounds_the_others(stream: Stream) -> None:
    with_group = stream.group("store")
    stream.change(retention={"bytes": 0, "until": "store"})
    assert stream.retain() == 0
    with_group.commit(Position(10, low=10))
    assert stream.retain() == 1
    with_group.close()


def test_it_runs_at_every_new_segment(hub: Folder, prices: pa.Schema, again: Again) -> None:
    stream = hub.stream("s", schema=prices, segment_bytes=600, retention={"bytes": 3000})
    for i in range(100):
        stream.append({"n": i, "text": "x" * 100})
    assert stream.first_offset > 50
    assert stream.statistics().bytes < 5000
    assert numbers(again("s")) == list(range(stream.first_offset, 100))


def test_a_retention_that_cannot_run_keeps_no_append(hub: Folder, prices: pa.Schema) -> None:
    stream = hub.stream("s", schema=prices, segment_bytes=600, retention={"bytes": 1, "until": "g"})
    stream.append({"n": 0, "text": "x" * 400})
    hub.catalogue.close()
    (hub.path / "hub.sqlite").write_bytes(b"no database" * 1000)
    with pytest.warns(PenstockWarning, match="retention did not run: expected the hub's catalogue"):
        assert stream.append({"n": 1, "text": "x" * 400}) == range(1, 2)


def test_readers_of_a_removed_segment_go_on_and_late_ones_are_told(stream: Stream, again: Again) -> None:
    inside = again("s").reader(0)
    chunk = inside.poll_until(5)
    assert chunk is not None
    late = again("s").reader(0)
    oldest = again("s").reader()
    stream.change(retention={"bytes": 0})
    stream.retain()
    seen: list[int] = []
    while len(seen) < 5 and (chunk := inside.poll()) is not None:
        seen += chunk.batch["n"].to_pylist()
    assert seen == [5, 6, 7, 8, 9]  # its file is still open
    with pytest.raises(OffsetError, match="expected an offset from 40 on, got 10"):
        inside.poll()
    with pytest.raises(OffsetError, match="expected an offset from 40 on, got 0"):
        late.poll()
    found = oldest.poll()  # it asked for the oldest row, whichever that is
    assert found is not None
    assert found.first == 40


def test_reading_all_while_rows_expire(hub: Folder, prices: pa.Schema, again: Again) -> None:
    stream = hub.stream("s", schema=prices, segment_bytes=700, retention={"bytes": 6000})
    done = threading.Event()
    errors: list[BaseException] = []

    def read() -> None:
        found = again("s")
        try:
            while not done.is_set():
                rows = numbers(found)
                assert rows == list(range(rows[0], rows[-1] + 1)) if rows else True
                found.statistics()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(600):
        stream.append({"n": i, "text": "x" * 80})
    done.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert errors == []


@pytest.mark.parametrize("steps", [1, 2])
def test_a_removal_that_was_killed_half_way(steps: int, stream: Stream, again: Again) -> None:
    """The data file is renamed, the index goes, the renamed file goes."""
    folder = stream._folder
    data = folder / arrow_name(0)
    data.rename(folder / (arrow_name(0) + EXPIRED))
    if steps == 2:
        (folder / index_name(0)).unlink()
    assert numbers(again("s")) == list(range(10, 50))
    assert stream.first_offset == 10
    with pytest.raises(OffsetError):
        stream.read(5)
    assert expire(folder, Retention(max_bytes=10**9), None) == []
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith("0" * 20)) == []
    assert firsts(folder) == [10, 20, 30, 40]


def test_removing_twice_is_no_error(stream: Stream) -> None:
    remove(stream._folder, 0)
    remove(stream._folder, 0)
    assert firsts(stream._folder) == [10, 20, 30, 40]


def test_retention_of() -> None:
    assert Retention.of(None) == Retention()
    assert Retention.of({"age": "7d", "bytes": 5, "until": "g"}) == Retention(7 * 86400 * 10**9, 5, "g")
    assert Retention.of(Retention(1)) == Retention(1)
