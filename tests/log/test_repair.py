"""`check` and `repair`: what is found, what is mended, what only `give_up` mends, and that nothing else changes."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.errors import CorruptSegment, PenstockWarning, ReadOnly, UnknownStream
from penstock.log import Damage, Folder, Stream
from penstock.log.check import check
from penstock.log.format import arrow_name
from penstock.log.repair import repair
from penstock.log.retention import remove
from penstock_tests.damage import data_of, entries_of, flip, index_of, numbers, spoil
from penstock_tests.waiting import PATIENCE_S

Again = Callable[..., Stream]


@pytest.fixture
def stream(hub: Folder, prices: pa.Schema) -> Stream:
    """Thirty rows, ten to a segment, the fifth of each with large text."""
    found = hub.stream("s", schema=prices)
    for i in range(30):
        found.append({"n": i, "text": "x" * (2000 if i % 10 == 5 else i % 4)})
        if i % 10 == 9 and i < 29:
            found.seal()
    return found


def test_a_good_stream(stream: Stream, hub: Folder) -> None:
    report = stream.check()
    assert report.is_good
    assert (report.segments, report.entries, report.rows, report.lost) == (3, 35, 30, 0)
    assert (report.first_offset, report.next_offset) == (0, 30)
    assert report.bytes == stream.statistics().bytes
    assert (report.problems, report.leftovers, report.mended) == ((), (), ())
    before = {path: path.read_bytes() for path in stream._folder.iterdir() if path.is_file()}
    assert stream.repair(give_up=True).mended == ()
    assert {path: path.read_bytes() for path in stream._folder.iterdir() if path.is_file()} == before
    empty = hub.stream("empty").check()
    assert (empty.is_good, empty.segments, empty.rows, empty.next_offset) == (True, 0, 0, 0)
    with pytest.raises(UnknownStream):
        check(hub.path / "streams" / "none")
    with pytest.raises(UnknownStream):
        repair(hub.path / "streams" / "none")


def damages(stream: Stream) -> list[Damage]:
    return [problem.damage for problem in stream.check().problems]


MENDED: dict[str, tuple[Damage, Callable[[Stream], Any]]] = {
    "torn data": (Damage.TORN, lambda s: data_of(s, 20).open("ab").write(b"torn")),
    "torn index": (Damage.TORN, lambda s: index_of(s, 20).open("ab").write(b"torn")),
    "torn entry": (Damage.TORN, lambda s: index_of(s, 20).open("ab").write(bytes(128))),
    "no index, first": (Damage.NO_INDEX, lambda s: index_of(s, 0).unlink()),
    "no index, middle": (Damage.NO_INDEX, lambda s: index_of(s, 10).unlink()),
    "no index, last": (Damage.NO_INDEX, lambda s: index_of(s, 20).unlink()),
    "header": (Damage.HEADER, lambda s: flip(index_of(s, 10), 50)),
    "header, last": (Damage.HEADER, lambda s: flip(index_of(s, 20), 50)),
    "schema": (Damage.SCHEMA, lambda s: flip(data_of(s, 10), 60)),
    "schema, start": (Damage.SCHEMA, lambda s: spoil(data_of(s, 0), 0, bytes(16))),
    "entry": (Damage.ENTRY, lambda s: flip(index_of(s, 10), 3 * 128 + 40)),
    "first entry": (Damage.ENTRY, lambda s: flip(index_of(s, 0), 1 * 128 + 40)),
    "entries": (Damage.ENTRY, lambda s: spoil(index_of(s, 10), 4 * 128, bytes(3 * 128))),
    "last entries and seal": (Damage.ENTRY, lambda s: spoil(index_of(s, 10), 8 * 128, bytes(4 * 128))),
    "entries cut off": (Damage.ENTRY, lambda s: os.truncate(index_of(s, 10), 6 * 128 + 3)),
    "seal": (Damage.NO_SEAL, lambda s: flip(index_of(s, 0), 11 * 128 + 5)),
    "seal cut off": (Damage.NO_SEAL, lambda s: os.truncate(index_of(s, 10), 11 * 128)),
}


@pytest.mark.filterwarnings("ignore::penstock.errors.PenstockWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("what", MENDED)
def test_what_is_mended_without_a_loss(what: str, stream: Stream, again: Again) -> None:
    rows = stream.rows()
    kind, act = MENDED[what]
    act(stream)
    report = again("s").check()
    assert [problem.damage for problem in report.problems] == [kind]
    assert not report.problems[0].loses
    assert kind.value in str(report.problems[0])
    assert str(stream._folder) in report.problems[0].file
    mended = again("s").repair()
    assert mended.is_good
    assert [text.partition(": ")[2].partition(";")[0] for text in mended.mended] == [kind.value.partition(";")[0]]
    assert mended.rows == 30
    assert again("s").rows() == stream.rows() == rows
    assert stream.append({"n": 30}) == range(30, 31)
    created = again("s").read(columns=["_created"])["_created"].cast(pa.int64()).to_numpy()
    assert (np.diff(created) >= 0).all()


LOST: dict[str, tuple[list[Damage], Callable[[Stream], Any], set[int]]] = {
    "message": ([Damage.MESSAGE], lambda s: flip(data_of(s, 10), int(entries_of(s, 10)[6]["position"]) + 900), {15}),
    "first message": ([Damage.MESSAGE], lambda s: flip(data_of(s, 0), int(entries_of(s, 0)[1]["position"]) + 150), {0}),
    "last message": (
        [Damage.MESSAGE],
        lambda s: flip(data_of(s, 20), int(entries_of(s, 20)[10]["position"]) + 150),
        {29},
    ),
    "data truncated": (
        [Damage.MESSAGE] * 3,
        lambda s: os.truncate(data_of(s, 10), int(entries_of(s, 10)[8]["position"]) + 5),
        {17, 18, 19},
    ),
    "no data, first": ([Damage.NO_DATA], lambda s: data_of(s, 0).unlink(), set(range(10))),
    "no data, middle": ([Damage.NO_DATA], lambda s: data_of(s, 10).unlink(), set(range(10, 20))),
    "no data, last": ([Damage.NO_DATA], lambda s: data_of(s, 20).unlink(), set(range(20, 30))),
    "no segment": ([Damage.GAP], lambda s: remove(s._folder, 10), set(range(10, 20))),
    "only a creation": ([Damage.GAP], lambda s: only_a_creation(s), set(range(10, 20))),
    "entry and message": ([Damage.ENTRY], lambda s: entry_and_message(s), {12, 13, 14}),
    "entries and data cut off": ([Damage.GAP], lambda s: both_cut_off(s), set(range(13, 20))),
}


def only_a_creation(stream: Stream) -> None:
    data_of(stream, 10).write_bytes(stream._encoder.codec.prefix)
    index_of(stream, 10).unlink()


def entry_and_message(stream: Stream) -> None:
    spoil(data_of(stream, 10), int(entries_of(stream, 10)[4]["position"]), b"?" * 200)
    spoil(index_of(stream, 10), 3 * 128, bytes(3 * 128))


def both_cut_off(stream: Stream) -> None:
    os.truncate(data_of(stream, 10), int(entries_of(stream, 10)[4]["position"]))
    os.truncate(index_of(stream, 10), 4 * 128)


@pytest.mark.filterwarnings("ignore::penstock.errors.PenstockWarning")
@pytest.mark.parametrize("what", LOST)
def test_what_only_giving_up_mends(what: str, stream: Stream, again: Again) -> None:
    kinds, act, lost = LOST[what]
    act(stream)
    report = again("s").check()
    assert [problem.damage for problem in report.problems] == kinds
    assert all(problem.loses for problem in report.problems)
    assert "; these rows are lost" in str(report.problems[0])
    found = {n for problem in report.problems for n in range(problem.first, problem.stop)}
    assert found == lost
    files = {path: path.read_bytes() for path in stream._folder.glob("0*")}
    careful = again("s").repair()
    assert len(careful.problems) == len(kinds)
    assert {path: path.read_bytes() for path in stream._folder.glob("0*")} == files
    with pytest.raises(CorruptSegment):
        again("s").read()
    given_up = again("s").repair(give_up=True)
    assert given_up.is_good, given_up.problems
    assert (given_up.lost, given_up.rows) == (len(lost), 30 - len(lost))
    expected = [n for n in range(30) if n not in lost]
    with pytest.warns(PenstockWarning, match=r"offsets \d+ to \d+ were given up by a repair and are skipped"):
        assert again("s").read()["n"].to_pylist() == expected
    fresh = again("s")
    assert fresh.next_offset == 30
    assert fresh.append({"n": 30}) == range(30, 31)
    assert numbers(fresh) == [*expected, 30]
    offsets = fresh.read(columns=["_offset"])["_offset"].to_pylist()
    assert offsets == [*expected, 30]
    for start in sorted(lost)[:2]:
        assert numbers(fresh, start) == [n for n in [*expected, 30] if n >= start]
        assert fresh.read(start, start + 1).num_rows == 0
    assert [row for chunk in fresh.chunks() for row in chunk.batch["n"].to_pylist()] == [*expected, 30]
    assert fresh.repair(give_up=True).mended == ()


@pytest.mark.filterwarnings("ignore::penstock.errors.PenstockWarning")
def test_the_bytes_of_lost_rows_are_kept(stream: Stream, again: Again) -> None:
    entry = entries_of(stream, 10)[6]
    flip(data_of(stream, 10), int(entry["position"]) + 900)
    bad = data_of(stream, 10).read_bytes()[int(entry["position"]) : int(entry["position"] + entry["length"])]
    report = again("s").repair(give_up=True)
    [name] = report.leftovers
    assert name == f"{arrow_name(10)}@{int(entry['position'])}.bad"
    assert (stream._folder / name).read_bytes() == bad


@pytest.mark.filterwarnings("ignore::penstock.errors.PenstockWarning")
def test_consumers_and_producers_that_are_there_go_on(stream: Stream, hub: Folder, again: Again) -> None:
    """A repair may rewrite files that others have open."""
    producer, tail = again("s"), again("s").reader(0)
    producer.append({"n": 30})
    assert sum(len(chunk) for chunk in iter(tail.poll, None)) == 31
    index_of(stream, 20).unlink()
    assert again("s").repair().is_good
    assert producer.append({"n": 31}) == range(31, 32)
    chunk = tail.poll()
    assert chunk is not None
    assert (chunk.first, chunk.batch["n"].to_pylist()) == (31, [31])
    data_of(stream, 20).unlink()
    assert again("s").repair(give_up=True).lost == 12
    assert producer.append({"n": 32}) == range(32, 33)
    chunk = tail.poll()
    assert chunk is not None
    assert (chunk.first, chunk.batch["n"].to_pylist()) == (32, [32])
    assert again("s").check().is_good


def test_leftovers_are_told_and_unfinished_files_removed(stream: Stream, again: Again) -> None:
    folder = stream._folder
    for name in (arrow_name(30) + ".new", "meta.json.123.new", arrow_name(10) + "@5.torn", arrow_name(10) + "@5.bad"):
        (folder / name).write_bytes(b"x")
    data_of(stream, 0).rename(folder / (arrow_name(0) + ".expired"))
    report = again("s").check()
    assert report.is_good
    assert len(report.leftovers) == 5
    assert report.first_offset == 10
    mended = again("s").repair()
    assert len(mended.mended) == 3
    assert mended.leftovers == (arrow_name(10) + "@5.bad", arrow_name(10) + "@5.torn")
    assert not index_of(stream, 0).exists()


def test_checking_while_producers_append(stream: Stream, again: Again) -> None:
    """What is half written at the moment is no damage."""
    producer = again("s")
    stop = threading.Event()

    def produce() -> None:
        i = 30
        while not stop.is_set():
            producer.append({"n": i, "text": "x" * (i % 5000)})
            i += 1

    thread = threading.Thread(target=produce)
    thread.start()
    for _ in range(20):
        report = stream.check()
        assert report.is_good, report.problems
    stop.set()
    thread.join(PATIENCE_S)


def test_dictionaries_are_recovered_too(hub: Folder, again: Again) -> None:
    schema = pa.schema([("x", pa.dictionary(pa.int8(), pa.string()))])
    stream = hub.stream("d", schema=schema)
    for i in range(6):
        stream.append([{"x": f"v{i}"}, {"x": None}])
    rows = stream.rows()
    spoil(index_of(stream), 2 * 128, bytes(256))
    report = again("d").repair()
    assert report.is_good
    assert again("d").rows() == rows


@pytest.mark.filterwarnings("ignore::penstock.errors.PenstockWarning")
def test_no_copy_of_the_schema_message(hub: Folder, prices: pa.Schema, again: Again) -> None:
    stream = hub.stream("s", schema=prices)
    stream.append([{"n": 1}, {"n": 2}])
    flip(data_of(stream), 60)
    assert again("s").repair().is_good  # the description has it
    assert numbers(again("s")) == [1, 2]
    stream.widen(pa.schema([("new", pa.int8())]))
    flip(data_of(stream), 60)
    assert damages(again("s")) == [Damage.SCHEMA]
    assert not again("s").repair().is_good  # and now nobody has it
    report = again("s").repair(give_up=True)
    assert (report.is_good, report.lost) == (True, 2)
    assert len([name for name in report.leftovers if name.endswith(".bad")]) == 2
    again("s").append({"n": 3})
    assert numbers(again("s")) == [3]


@pytest.mark.filterwarnings("ignore::penstock.errors.PenstockWarning")
@pytest.mark.parametrize("seed", range(25))
def test_anything_spoilt_is_noticed_and_the_rest_is_read(seed: int, stream: Stream, again: Again) -> None:
    """Random bytes overwritten anywhere: a check sees it, giving up leaves a stream of rows that were appended."""
    chance = random.Random(seed)
    rows = {row["n"]: row for row in stream.rows()}
    kinds = [[data_of], [index_of], [data_of, index_of]][seed % 3]
    for _ in range(chance.randrange(1, 4)):
        path = chance.choice(kinds)(stream, chance.choice([0, 10, 20]))
        size = path.stat().st_size
        at = chance.randrange(size)
        before = path.read_bytes()[at : at + chance.choice([1, 20, 300])]
        spoil(path, at, bytes(byte ^ chance.randrange(1, 256) for byte in before))
    with_problems = again("s").check()
    assert not with_problems.is_good
    report = again("s").repair(give_up=True)
    assert report.is_good or len(kinds) == 2, report.problems
    if report.is_good:
        fresh = again("s")
        found = fresh.rows()
        assert len(found) == report.rows
        if len(kinds) == 1:  # else a message may have been spoilt together with the digest that would tell
            assert all(row == rows[row["n"]] for row in found)
            assert [row["n"] for row in found] == fresh.read(columns=["_offset"])["_offset"].to_pylist()
        fresh.append({"n": 99})
        assert again("s").check().is_good
    else:
        assert {problem.damage for problem in report.problems} <= {
            Damage.SCHEMA,
            Damage.HEADER,
            Damage.ENTRY,
            Damage.MESSAGE,
        }


def test_a_repair_where_nothing_may_be_written(stream: Stream, monkeypatch: pytest.MonkeyPatch, again: Again) -> None:
    copy = stream._folder.parent / "copy"
    shutil.copytree(stream._folder, copy)

    def refused(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("penstock.log.lock.os.open", refused)
    with pytest.raises(ReadOnly, match="expected a writable folder, got 'Permission denied'"):
        repair(copy)
    assert check(copy).is_good
