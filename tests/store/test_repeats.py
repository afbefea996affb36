"""What repeats the row before it: equal to the bit, of any type, and only where no row can come between."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
import penstock.store
from penstock.errors import SchemaMismatch
from penstock.store import Store
from penstock.store.compact import compact
from penstock.store.repeats import alike
from penstock.store.roll import roll

NOON = 1_767_268_800_000_000_000
SCHEMA = pa.schema([("symbol", pa.string()), ("ts_event", pa.int64()), ("x", pa.float64())])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with penstock.store.open(tmp_path / "data") as store:
        store.create("t", SCHEMA)
        yield store


def row(x: float | None, key: str = "A", time: int = NOON) -> pa.Table:
    return pa.table({"symbol": [key], "ts_event": [time], "x": pa.array([x], pa.float64())}, SCHEMA)


def history(store: Store, path: str = "t/A") -> list[tuple[int, float | None]]:
    found = store.read(path, revisions=True, columns=["_offset", "x"])
    return list(zip(found["_offset"].to_pylist(), found["x"].to_pylist(), strict=True))


NESTED = pa.struct([("a", pa.float64()), ("b", pa.list_(pa.string()))])
COLUMNS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "floats": (pa.float64(), [0.0, -0.0, float("nan"), None, 1.5, 5e-324]),
    "halves": (pa.float16(), [np.float16(0), np.float16(-0.0), np.float16("nan"), None]),
    "ints": (pa.int64(), [0, None, 2**63 - 1]),
    "unsigned": (pa.decimal128(20, 0), [Decimal(0), None, Decimal(2**64 - 1)]),
    "text": (pa.string(), ["", None, "x", "x\x00"]),
    "bytes": (pa.binary(), [b"", None, b"\x00"]),
    "bools": (pa.bool_(), [True, False, None]),
    "dates": (pa.date32(), [0, 1, None]),
    "times": (pa.timestamp("us", "UTC"), [0, -1, None]),
    "lists": (pa.list_(pa.float64()), [[], None, [0.0], [-0.0], [None], [0.0, 0.0], [float("nan")]]),
    "tensors": (pa.list_(pa.float32(), 2), [[0.0, 1.0], [1.0, 0.0], None, [-0.0, 1.0], [None, 1.0]]),
    "nested": (
        NESTED,
        [None, {"a": None, "b": None}, {"a": 0.0, "b": []}, {"a": -0.0, "b": []}, {"a": 0.0, "b": ["x"]}],
    ),
}


@pytest.mark.parametrize("name", list(COLUMNS))
def test_only_the_same_value_is_alike(name: str) -> None:
    type_, values = COLUMNS[name]
    column = pa.array(values, type_)
    first, second = (found.ravel() for found in np.meshgrid(np.arange(len(values)), np.arange(len(values))))
    for shape in (
        column,
        pa.chunked_array([column[:2], column[2:]]),
        pa.array([*values, *values], type_)[len(values) :],
    ):
        assert (alike(shape, first, second) == (first == second)).all()


def test_columns_with_a_dictionary() -> None:
    column = pa.array(["x", None, "y", "x"]).dictionary_encode()
    assert alike(column, np.array([0, 0, 1, 1]), np.array([3, 2, 1, 0])).tolist() == [True, False, True, False]


@pytest.mark.parametrize("tier", ["hot", "rolled at once", "rolled each", "compacted"])
def test_repeats_are_no_revisions(tier: str, store: Store) -> None:
    values = [1.0, 1.0, 2.0, 2.0, 1.0, float("nan"), float("nan"), None, None, 0.0, -0.0, -0.0]
    table = store.table("t")
    known = []
    for value in values:
        store.write("t", row(value))
        known.append(int(next(table.stream.chunks(table.stream.next_offset - 1)).created[0]))
        if tier in ("rolled each", "compacted"):
            store.flush()
    if tier == "rolled at once":
        store.flush()
    if tier == "compacted":
        compact(table, everything=True)
    assert [at for at, _ in history(store)] == [0, 2, 4, 5, 7, 9, 10]
    for at, moment in enumerate(known):
        found = store.read("t/A", as_of=moment, columns=["x", "ts_known"])
        assert str(found["x"].to_pylist()) == str([values[at]])
        since = max(n for n in (0, 2, 4, 5, 7, 9, 10) if n <= at)
        assert found["ts_known"].to_pylist() == [known[since]]
    stored = sum(file.rows for file in table.state().files.values())
    assert stored == {"hot": 0, "rolled at once": 7, "rolled each": 12, "compacted": 7}[tier]


def test_a_row_that_stands_in_another_file(store: Store) -> None:
    """Of 1, 2, 1 the third is the value, also when a compaction sees only the first and the third."""
    table = store.table("t")
    for value, rows in ((1.0, 1), (2.0, 50), (1.0, 1), (1.0, 1)):
        store.write("t", row(value))
        if rows > 1:  # in a file too large to be merged with the others
            others = {"symbol": ["B"] * rows, "ts_event": NOON + np.arange(rows), "x": np.zeros(rows)}
            store.write("t", pa.table(others, SCHEMA))
        store.flush()
    compact(table, min_files=3)
    assert sorted(file.rows for file in table.state().files.values()) == [2, 51]
    assert history(store) == [(0, 1.0), (1, 2.0), (52, 1.0)]
    assert store.read("t/A")["x"].to_pylist() == [1.0]
    compact(table, everything=True)
    assert history(store) == [(0, 1.0), (1, 2.0), (52, 1.0)]


def test_when_writers_say_since_when(store: Store) -> None:
    """A row may come between two that are there; so only what is known at the same time repeats."""
    schema = SCHEMA.append(pa.field("ts_known", pa.int64()))
    table = store.create("u", schema)
    for value, known in ((1.0, 100), (1.0, 100), (1.0, 300)):
        table.write(row(value).append_column("ts_known", pa.array([known])))
    store.flush()
    compact(table, everything=True)
    assert [at for at, _ in history(store, "u/A")] == [0, 2]
    table.write(row(2.0).append_column("ts_known", pa.array([200])))
    for _ in range(2):
        assert [store.read("u/A", as_of=at)["x"].to_pylist() for at in (100, 200, 300)] == [[1.0], [2.0], [1.0]]
        store.maintain(force=True)
    with pytest.raises(SchemaMismatch, match="expected a table that was made with a column `ts_known`, got one withou"):
        store.write("t", row(1.0).append_column("ts_known", pa.array([1])))


def test_rows_that_stand_for_themselves_repeat_nothing(store: Store) -> None:
    table = store.create("u", SCHEMA, rows="all")
    for _ in range(3):
        table.write(row(1.0))
        store.flush()
    compact(table, everything=True)
    assert store.read("u/A").num_rows == store.read("u/A", revisions=True).num_rows == 3


def test_an_adopted_stream_keeps_what_was_appended(tmp_path: Path) -> None:
    with ps.open(tmp_path) as hub:
        stream = hub.streams.get("bars", schema=SCHEMA)
        store = penstock.store.open(hub)
        table = store.create("t", SCHEMA, stream="bars")
        for _ in range(3):
            stream.append(row(1.0))
            store.flush()
        compact(table, everything=True)  # its writers may yet say since when a row was known
        assert [at for at, _ in history(store)] == [0, 1, 2]
        assert store.read("t/A")["x"].to_pylist() == [1.0]


OPS = st.lists(
    st.tuples(st.sampled_from("AB"), st.integers(0, 1), st.sampled_from([0.0, -0.0, 1.0, float("nan"), None])),
    min_size=1,
    max_size=12,
)


@settings(max_examples=25)
@given(rows=OPS, cuts=st.sets(st.integers(0, 11)), pieces=st.integers(1, 5), data=st.data())
def test_answers_do_not_tell_what_was_dropped(
    rows: list[tuple[str, int, float | None]], cuts: set[int], pieces: int, data: st.DataObject, tmp_path_factory: Any
) -> None:
    """The same rows, never rolled, and rolled and compacted anyhow: equal answers as of every moment."""
    folder = tmp_path_factory.mktemp("two")
    with penstock.store.open(folder / "plain") as plain, penstock.store.open(folder / "kept") as kept:
        schema = SCHEMA.append(pa.field("ts_known", pa.int64()))
        told = data.draw(st.booleans())
        for store in (plain, kept):
            store.create("t", schema if told else SCHEMA)
        for at, (key, time, x) in enumerate(rows):
            frame = row(x, key, NOON + time)
            if told:
                frame = frame.append_column("ts_known", pa.array([data.draw(st.integers(0, 3))]))
            plain.write("t", frame)
            kept.write("t", frame)
            if at in cuts:
                roll(kept.table("t"), force=True, max_rows=pieces)
                compact(kept.table("t"), min_files=2, everything=data.draw(st.booleans()))
        columns = ["symbol", "ts_event", "x", "_offset"]
        moments = [None, 0, 1, 2, 3] if told else [None]
        for revisions in (False, True):
            for moment in moments:
                mine, theirs = (s.read("t", columns=columns, as_of=moment, revisions=revisions) for s in (kept, plain))
                assert str(mine.to_pylist()) == str(theirs.to_pylist())
