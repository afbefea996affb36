"""Following a stream: whatever is appended between two polls, it comes once, in order, and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.errors import CorruptSegment
from penstock.hub import Hub

SCHEMA = pa.schema([("n", pa.int64()), ("text", pa.string())])


def batch(first: int, count: int, size: int = 3) -> pa.RecordBatch:
    numbers = list(range(first, first + count))
    return pa.record_batch([numbers, [f"{n % 7}" * size for n in numbers]], schema=SCHEMA)


@pytest.fixture
def hub(tmp_path: Path) -> Any:
    with ps.open(tmp_path / "hub") as found:
        yield found


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from([1, 1, 1, 2, 10, 40]), st.sampled_from([0, 3, 3, 40_000])),
        st.tuples(st.just("burst"), st.integers(2, 90), st.just(3)),
        st.tuples(st.just("poll"), st.sampled_from([1, 5, 30, 1000]), st.sampled_from([1000, 1 << 20])),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_any_cut_gives_the_same_rows(tmp_path_factory: pytest.TempPathFactory, steps: list[Any]) -> None:
    with ps.open(tmp_path_factory.mktemp("hub")) as hub:
        stream = hub.streams.get("s", schema=SCHEMA)
        reader, found, rows = stream.reader("start"), [], 0
        appends: set[tuple[int, int]] = set()

        def poll(max_rows: int, max_bytes: int) -> bool:
            chunk = reader.poll(max_rows, max_bytes)
            if chunk is None:
                assert reader.offset == rows
                return False
            assert chunk.first == sum(map(len, found))
            assert reader.offset == chunk.stop
            assert len(chunk) <= max_rows or (chunk.first, len(chunk)) in appends
            assert not reader.is_at_end or chunk.stop == rows
            found.append(chunk)
            return True

        for kind, count, size in steps:
            if kind == "poll":
                poll(count, size)
                continue
            for _ in range(count if kind == "burst" else 1):
                more = 1 + rows % 3 if kind == "burst" else count
                stream.append(batch(rows, more, size))
                appends.add((rows, more))
                rows += more
        while poll(1000, 1 << 20):
            pass
        assert not found or pa.Table.from_batches([chunk.batch for chunk in found]).equals(stream.read())
        whole = list(stream.chunks("start"))
        for name in ("created",):
            one, other = ([getattr(c, name) for c in chunks] for chunks in (found, whole))
            assert np.array_equal(np.concatenate([[], *one]), np.concatenate([[], *other]))


def spoil(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x55
    path.write_bytes(data)


@pytest.mark.parametrize("bad", [0, 1, 3])
def test_a_corrupt_message_ends_what_comes_together(hub: Hub, bad: int) -> None:
    stream = hub.streams.get("s", schema=SCHEMA)
    reader = stream.reader("start")
    stream.append(batch(0, 2))
    assert reader.poll().stop == 2
    ends = []
    for n in range(4):
        stream.append(batch(2 + n * 2, 2))
        ends.append(next(hub.streams.path("s").glob("*.arrow")).stat().st_size)
    spoil(next(hub.streams.path("s").glob("*.arrow")), ends[bad] - 1)
    if bad:
        chunk = reader.poll()
        assert (chunk.first, chunk.stop) == (2, 2 + bad * 2)
        assert not reader.is_at_end
    for _ in range(2):
        with pytest.raises(CorruptSegment, match="expected .* bytes with digest") as error:
            reader.poll()
        assert (error.value.first, error.value.stop) == (2 + bad * 2, 4 + bad * 2)


def test_a_corrupt_entry_ends_what_comes_together(hub: Hub) -> None:
    stream = hub.streams.get("s", schema=SCHEMA)
    reader = stream.reader("start")
    stream.append(batch(0, 1))
    assert reader.poll().stop == 1
    for n in range(1, 4):
        stream.append(batch(n, 1))
    spoil(next(hub.streams.path("s").glob("*.idx")), 3 * 128 + 9)
    assert reader.poll().stop == 2
    with pytest.raises(CorruptSegment, match="unreadable"):
        reader.poll()


def test_readers_that_share_segments_do_not_disturb_one_another(hub: Hub) -> None:
    stream = hub.streams.get("s", schema=SCHEMA)
    for n in range(6):
        stream.append(batch(n, 1))
    readers = [stream.reader(n) for n in (0, 3, "end")]
    for n in range(6, 12):
        stream.append(batch(n, 1))
        for reader in readers:
            chunk = reader.poll(2)
            assert chunk is not None
            assert chunk.batch["n"].to_pylist() == list(range(chunk.first, chunk.stop))


def test_dictionaries_and_a_schema_that_was_widened(hub: Hub) -> None:
    schema = pa.schema([("name", pa.dictionary(pa.int32(), pa.string()))])
    stream = hub.streams.get("d", schema=schema)
    reader = stream.reader("start")
    for names in (["a", "b"], ["c"], ["b", "d"]):
        stream.append(pa.record_batch([pa.array(names).dictionary_encode()], schema=schema))
    assert reader.poll().batch["name"].to_pylist() == ["a", "b", "c", "b", "d"]
    plain = hub.streams.get("s", schema=SCHEMA)
    reader = plain.reader("start")
    plain.append(batch(0, 1))
    assert reader.poll().stop == 1
    plain.widen(SCHEMA.append(pa.field("more", pa.float64())))
    plain.append({"n": 1, "text": "x", "more": 2.5})
    plain.append({"n": 2, "text": "y", "more": 3.5})
    rows = [row for chunk in iter(reader.poll, None) for row in chunk.batch.to_pylist()]
    assert rows == [{"n": 1, "text": "x", "more": 2.5}, {"n": 2, "text": "y", "more": 3.5}]
