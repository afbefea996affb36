"""What a crash can leave of a stream's files, and what reading and appending make of it."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.errors import CorruptSegment, PenstockWarning, StorageError, UnknownStream
from penstock.log import Folder, Stream
from penstock.log.format import ENTRY_BYTES, Kind, arrow_name, digest, pack, unpack
from penstock.log.lock import FileLock
from penstock.records import TRADES
from penstock_tests.damage import append_bytes, data_of, entries_of, flip, index_of, numbers

Again = Callable[..., Stream]


@pytest.fixture
def stream(hub: Folder, prices: pa.Schema) -> Stream:
    """Ten rows in ten appends, in one segment."""
    found = hub.stream("s", schema=prices)
    for i in range(10):
        found.append({"n": i, "text": "x" * i})
    return found


@pytest.fixture
def segments(hub: Folder, prices: pa.Schema) -> Stream:
    """Thirty rows, ten to a segment."""
    found = hub.stream("s", schema=prices)
    for i in range(30):
        found.append({"n": i, "text": "x" * (i % 4)})
        if i % 10 == 9 and i < 29:
            found.seal()
    return found


# -- torn tails


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
@pytest.mark.parametrize("where", ["data", "index", "both"])
def test_a_torn_tail_is_cut_kept_and_told(where: str, size: int, stream: Stream, again: Again) -> None:
    garbage = np.random.default_rng(size).bytes(size)
    if where != "index":
        append_bytes(data_of(stream), garbage)
    if where != "data":
        append_bytes(index_of(stream), garbage)
    reader = again("s")
    assert numbers(reader) == list(range(10))  # who reads is not concerned
    assert reader.next_offset == 10
    with pytest.warns(
        PenstockWarning, match=r"cut \d+ bytes .*that no append had committed; next offset is 10"
    ) as told:
        assert again("s").append({"n": 10}) == range(10, 11)
    text = str(told[0].message)
    torn = list(stream._folder.glob("*.torn"))
    if where == "index":
        assert torn == []
    else:
        assert [path.read_bytes() for path in torn] == [garbage]
        assert f"cut {size} bytes of data (kept in {torn[0].name})" in text.replace(
            "its index and ", "its index and cut "
        )
    assert numbers(reader) == numbers(again("s")) == list(range(11))


def test_a_partial_message_and_a_partial_entry(stream: Stream, again: Again) -> None:
    data, index = data_of(stream).read_bytes(), index_of(stream).read_bytes()
    other = again("s")
    other.append({"n": 10, "text": "y" * 50})
    full_data, full_index = data_of(stream).read_bytes(), index_of(stream).read_bytes()
    for cut in (1, 50, len(full_data) - len(data)):
        data_of(stream).write_bytes(full_data[: len(data) + cut])
        index_of(stream).write_bytes(index)
        with pytest.warns(PenstockWarning, match=f"cut {cut} bytes of data"):
            assert again("s").append({"n": 77}) == range(10, 11)
        assert numbers(again("s")) == [*range(10), 77]
    for cut in (1, ENTRY_BYTES - 1):
        data_of(stream).write_bytes(full_data)
        index_of(stream).write_bytes(full_index[: len(index) + cut])
        assert numbers(again("s")) == list(range(10))
        with pytest.warns(
            PenstockWarning, match=f"cut {cut} bytes of its index and {len(full_data) - len(data)} bytes of"
        ):
            assert again("s").append({"n": 78}) == range(10, 11)
        assert numbers(again("s")) == [*range(10), 78]


def test_another_producer_that_knows_the_stream_repairs_too(stream: Stream, again: Again) -> None:
    """It has the files open and its own idea of their ends."""
    alive = again("s")
    alive.append({"n": 10})
    append_bytes(data_of(stream), b"torn message")
    with pytest.warns(PenstockWarning, match="cut 12 bytes of data"):
        alive.append({"n": 11})
    append_bytes(index_of(stream), bytes(ENTRY_BYTES))
    with pytest.warns(PenstockWarning, match="cut 128 bytes of its index"):
        alive.append({"n": 12})
    append_bytes(data_of(stream), b"x")
    append_bytes(index_of(stream), b"y")
    reader = stream.reader()
    with pytest.warns(PenstockWarning, match="cut 1 bytes of its index and 1 bytes of data"):
        stream.append({"n": 13})
    assert alive.append({"n": 14}) == range(14, 15)
    chunk = reader.poll()
    assert chunk is not None
    assert chunk.batch["n"].to_pylist() == list(range(15))


def test_rows_that_did_not_reach_the_disk(stream: Stream, again: Again) -> None:
    """After a power loss the index may be ahead of the data."""
    entries = entries_of(stream)
    os.truncate(data_of(stream), int(entries["position"][8]) + 3)
    with pytest.warns(
        PenstockWarning, match=r"cut 384 bytes of its index and 3 bytes .* of rows 7 to 10, which did not"
    ):
        assert again("s").append({"n": 77}) == range(7, 8)
    assert numbers(again("s")) == [*range(7), 77]


def test_a_hole_where_the_last_message_should_be(stream: Stream, again: Again) -> None:
    entries = entries_of(stream)
    with data_of(stream).open("r+b") as file:
        file.truncate(int(entries["position"][10]))
        file.truncate(int(entries["position"][10] + entries["length"][10]))
    with pytest.warns(PenstockWarning, match="of rows 9 to 10, which did not reach the disk"):
        assert again("s").append({"n": 99}) == range(9, 10)
    assert numbers(again("s")) == [*range(9), 99]


@pytest.mark.parametrize("index", ["missing", "empty", "zeros"])
@pytest.mark.parametrize("data", [b"", bytes(300)])
def test_a_segment_begun_just_before_power_was_lost(data: bytes, index: str, segments: Stream, again: Again) -> None:
    segments.seal()
    data_of(segments, 30).write_bytes(data)
    if index != "missing":
        index_of(segments, 30).write_bytes(b"" if index == "empty" else bytes(128))
    assert numbers(again("s")) == list(range(30))
    with pytest.warns(PenstockWarning, match=r"\d+ empty bytes, removed; the stream goes on at the segment before"):
        assert again("s").append({"n": 30}) == range(30, 31)
    assert numbers(again("s")) == list(range(31))


# -- the index


@pytest.mark.parametrize("first", [0, 10, 20])
@pytest.mark.parametrize("who", ["reader", "producer", "tail"])
def test_a_missing_index_is_rebuilt(first: int, who: str, segments: Stream, again: Again) -> None:
    before = segments.read(columns=["n", "text", "_offset"])
    index_of(segments, first).unlink()
    found = again("s")
    with pytest.warns(
        PenstockWarning, match=r"its index was missing and was rebuilt, 10 rows; append times and origins"
    ):
        if who == "reader":
            assert found.read(columns=["n", "text", "_offset"]) == before
        elif who == "tail":
            assert sum(batch.num_rows for batch in found.tail("start", timeout=0)) == 30
        else:
            assert found.append({"n": 30}) == range(30, 31)
            assert numbers(found) == list(range(31))
    created = found.read(columns=["_created"])["_created"].cast(pa.int64()).to_numpy()
    assert (np.diff(created) >= 0).all()
    assert unpack(index_of(segments, first).read_bytes()) is not None
    assert found.read(8, 25, columns=["n"])["n"].to_pylist() == list(range(8, 25))


def test_a_rebuilt_index_knows_event_times_and_dictionaries(hub: Folder, again: Again) -> None:
    schema = pa.schema([("ts_event", pa.int64()), ("side", pa.dictionary(pa.int8(), pa.string()))])
    stream = hub.stream("s", schema=schema)
    for i in range(5):
        stream.append(
            [{"ts_event": i * 10**9, "side": "B"}, {"ts_event": i * 10**9 + 5, "side": None if i % 2 else "S"}]
        )
    rows = stream.rows()
    index_of(stream).unlink()
    with pytest.warns(PenstockWarning, match="rebuilt, 10 rows"):
        assert again("s").rows() == rows
    assert again("s").read("1970-01-01T00:00:02Z", "1970-01-01T00:00:03Z").num_rows == 2


def test_a_rebuild_cuts_a_torn_end(stream: Stream, again: Again) -> None:
    append_bytes(data_of(stream), data_of(stream).read_bytes()[-50:])
    index_of(stream).unlink()
    with pytest.warns(PenstockWarning) as told:
        assert numbers(again("s")) == list(range(10))
    assert any("cut 50 bytes that hold no whole message, kept in" in str(w.message) for w in told)


def test_a_data_file_that_is_none_has_no_index_to_rebuild(stream: Stream, again: Again) -> None:
    index_of(stream).unlink()
    whole = data_of(stream).read_bytes()
    for other in (b"no arrow at all" * 10, whole[:8] + b"?" * 200 + whole[208:]):
        data_of(stream).write_bytes(other)
        with pytest.raises(CorruptSegment, match=r"expected an Arrow schema message, got \d+ bytes that begin with b'"):
            again("s").append({"n": 10})
        assert data_of(stream).read_bytes() == other


def test_a_creation_cut_short_is_no_segment_and_no_warning(segments: Stream, again: Again) -> None:
    segments.seal()
    prefix = segments._encoder.codec.prefix
    data_of(segments, 30).write_bytes(prefix)
    (segments._folder / (arrow_name(30) + ".new")).write_bytes(b"left over")
    reader = again("s")
    assert numbers(reader) == list(range(30))
    assert list(reader.tail("end", timeout=0)) == []
    assert not index_of(segments, 30).exists()
    assert again("s").append({"n": 30}) == range(30, 31)
    assert numbers(reader) == list(range(31))


def test_readers_never_make_an_index_while_a_producer_holds_the_lock(segments: Stream, again: Again) -> None:
    """A producer makes the data file first; its index must not be overtaken by one without its rows."""
    segments.seal()
    lock = FileLock(segments._folder / "lock")
    lock.acquire()
    data_of(segments, 30).write_bytes(segments._encoder.codec.prefix)
    assert numbers(again("s")) == list(range(30))
    assert again("s").next_offset == 30
    assert not index_of(segments, 30).exists()
    lock.close()


def test_an_unreadable_header_is_corrupt(stream: Stream, again: Again) -> None:
    flip(index_of(stream), 20)
    with pytest.raises(CorruptSegment, match=r"expected an index header, got unreadable bytes - in .*\.idx at byte 0"):
        again("s").read()
    index_of(stream).write_bytes(b"\x07" * 256)
    calls: list[Callable[[Stream], Any]] = [lambda s: s.next_offset, lambda s: s.read(), lambda s: s.append({"n": 1})]
    for call in calls:
        with pytest.raises(CorruptSegment, match=r"unreadable bytes"):
            call(again("s"))


def test_a_flipped_seal(segments: Stream, again: Again) -> None:
    flip(index_of(segments, 0), 11 * ENTRY_BYTES + 9)
    assert numbers(again("s")) == list(range(30))
    assert [n for b in again("s").tail("start", timeout=0) for n in b["n"].to_pylist()] == list(range(30))
    os.truncate(index_of(segments, 10), 11 * ENTRY_BYTES)  # lost altogether
    assert numbers(again("s")) == list(range(30))
    assert numbers(again("s"), 5, 25) == list(range(5, 25))


def test_newer_entries_are_not_cut_off(stream: Stream, again: Again) -> None:
    body = bytearray(pack(Kind.ROWS, 10, 1, position=10**6, length=10)[:-8])
    body[4] = 2
    append_bytes(index_of(stream), bytes(body) + digest(bytes(body)).to_bytes(8, "little"))
    size = index_of(stream).stat().st_size
    calls: list[Callable[[Stream], Any]] = [
        lambda s: s.append({"n": 1}),
        lambda s: s.read(),
        lambda s: next(s.tail("start", timeout=0)),
    ]
    for call in calls:
        with pytest.raises(StorageError, match="a newer release of penstock wrote this stream"):
            call(again("s"))
    assert index_of(stream).stat().st_size == size


# -- corruption in the middle


def test_a_flipped_message_names_its_place_and_leaves_the_rest(segments: Stream, hub: Folder, again: Again) -> None:
    hub.stream("other").append({"a": 1})
    entry = entries_of(segments, 10)[5]  # row 14
    at = int(entry["position"] + entry["length"]) - 9
    flip(data_of(segments, 10), at)
    found = again("s")
    with pytest.raises(CorruptSegment) as error:
        found.read()
    facts = error.value
    assert (facts.file, facts.first, facts.stop) == (str(data_of(segments, 10)), 14, 15)  # type: ignore[attr-defined]
    assert facts.position == int(entry["position"])  # type: ignore[attr-defined]
    assert f"at byte {int(entry['position'])}, offsets 14 to 15" in str(facts)
    assert "`penstock stream repair s --give-up`" in str(facts)
    assert numbers(found, 0, 14) == list(range(14))
    assert numbers(found, 15) == list(range(15, 30))
    seen = []
    with pytest.raises(CorruptSegment):
        seen += [n for batch in found.tail("start", timeout=0) for n in batch["n"].to_pylist()]
    reader = found.reader()
    with pytest.raises(CorruptSegment):
        while (chunk := reader.poll()) is not None:
            seen += chunk.batch["n"].to_pylist()
    assert seen == list(range(14))  # what stands before it was handed out
    reader.seek(15)
    assert reader.poll() is not None
    assert found.append({"n": 30}) == range(30, 31)
    assert again("other").rows() == [{"a": 1}]


def test_a_flipped_index_entry(segments: Stream, again: Again) -> None:
    for number in (3, 4, 8):
        flip(index_of(segments, 10), number * ENTRY_BYTES + 30)
    found = again("s")
    with pytest.raises(CorruptSegment, match=r"an index entry, got unreadable bytes .* at byte 384, offsets 12 to 14"):
        found.read()
    assert numbers(found, 0, 12) == list(range(12))
    assert numbers(found, 14, 17) == [14, 15, 16]
    assert numbers(found, 18) == list(range(18, 30))
    for offset in (12, 13, 17):
        with pytest.raises(CorruptSegment):
            found.read(offset, offset + 1)
    with pytest.raises(CorruptSegment):
        found.last_origin("nobody")
    with pytest.raises(CorruptSegment):
        found.read(found.read(12 - 1, 12, columns=["_created"])["_created"][0].as_py())


def test_a_corrupt_entry_is_not_missed_by_event_times(hub: Folder, again: Again) -> None:
    stream = hub.stream("s", schema=TRADES)
    for i in range(5):
        stream.append({**dict.fromkeys(TRADES.names), "symbol": "A", "ts_event": i, "price": 1.0, "size": 1})
    flip(index_of(stream), 3 * ENTRY_BYTES + 56 + 7)  # the highest byte of max_event
    with pytest.raises(CorruptSegment, match="offsets 2 to 3"):
        again("s").read("1970-01-01T00:00:00Z")


def test_a_flipped_schema_message(segments: Stream, again: Again) -> None:
    flip(data_of(segments, 10), 40)
    with pytest.raises(CorruptSegment, match=r"expected the schema message, got \d+ other bytes"):
        again("s").read()
    assert numbers(again("s"), 20) == list(range(20, 30))
    again("s").append({"n": 30})
    flip(data_of(segments, 20), 40)
    with pytest.raises(CorruptSegment, match=r"expected the schema message, got \d+ other bytes"):
        again("s").append({"n": 31})


def test_a_truncated_data_file_in_the_middle(segments: Stream, again: Again) -> None:
    entry = entries_of(segments, 10)[5]
    os.truncate(data_of(segments, 10), int(entry["position"]) + 10)
    with pytest.raises(CorruptSegment, match=r"expected \d+ bytes with digest .*, got 10 bytes .*offsets 14 to 15"):
        again("s").read()
    assert numbers(again("s"), 0, 14) == list(range(14))
    assert numbers(again("s"), 20) == list(range(20, 30))
    assert again("s").append({"n": 30}) == range(30, 31)


# A whole segment that is missing at an end cannot be told from one that was dropped, or never was.
@pytest.mark.parametrize("kinds, first", [("data", 0), ("data", 10), ("data", 20), ("both", 10)])
def test_a_missing_segment(first: int, kinds: str, segments: Stream, again: Again) -> None:
    data_of(segments, first).unlink()
    if kinds == "both":
        index_of(segments, first).unlink()
    found = again("s")
    with pytest.raises(CorruptSegment, match=rf"expected a segment of the rows from {first} on, got no") as error:
        found.read()
    assert error.value.first == first  # type: ignore[attr-defined]
    with pytest.raises(CorruptSegment):
        list(found.chunks())
    if first:
        assert numbers(found, 0, first) == list(range(first))
    if first < 20:
        assert numbers(found, first + 10) == list(range(first + 10, 30))
        assert found.append({"n": 30}) == range(30, 31)
    else:
        with pytest.raises(CorruptSegment, match=r"expected the segment of the rows from 20 on, got no such file"):
            found.append({"n": 30})


def test_lost_index_entries_before_a_later_segment(segments: Stream, again: Again) -> None:
    os.truncate(index_of(segments, 10), 6 * ENTRY_BYTES)
    found = again("s")
    with pytest.raises(CorruptSegment, match="expected a segment of the rows from 15 on, got none before offset 20"):
        found.read()
    with pytest.raises(CorruptSegment):
        list(found.tail("start", timeout=0))
    assert numbers(found, 0, 15) == list(range(15))
    assert numbers(found, 20) == list(range(20, 30))


def test_a_corrupt_stream_can_be_dropped(hub: Folder, again: Again) -> None:
    for spoil in (
        lambda s: index_of(s).write_bytes(b"?" * 300),
        lambda s: data_of(s).unlink(),
        lambda s: index_of(s).unlink(),
        lambda s: data_of(s).write_bytes(b"no arrow at all"),
        lambda s: shutil.rmtree(s._folder / "groups"),
    ):
        stream = hub.stream("s")
        producer = again("s")
        stream.append({"a": 1})
        producer.append({"a": 2})
        stream.group("g").close()
        spoil(stream)
        hub.drop("s")
        assert hub.names() == []
        with pytest.raises(UnknownStream, match="was dropped"):
            while True:  # an index that was removed is missed within a millisecond
                producer.append({"a": 3})


def test_no_file_stays_open_or_mapped_for_long(hub: Folder, prices: pa.Schema) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = open_files()
    for k in range(30):
        folder = Folder(hub.path)
        stream = folder.stream(f"s{k % 3}", schema=prices)
        stream.append({"n": 1})
        stream.read()
        next(stream.tail(0))
        stream.group("g").close()
        folder.close()
        del folder, stream
    import gc

    gc.collect()
    assert open_files() <= before + 2


def test_a_warning_that_is_an_error_leaves_the_stream_whole(stream: Stream, again: Again) -> None:
    append_bytes(data_of(stream), b"torn")
    found = again("s")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PenstockWarning):
            found.append({"n": 10})
        assert found.append({"n": 10}) == range(10, 11)
    assert numbers(again("s")) == list(range(11))
