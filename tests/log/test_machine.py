"""A stream against a plain list: appended to, sealed, widened, expired, dropped, and torn at any byte."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.errors import OffsetError, PenstockWarning, UnknownStream
from penstock.log import Folder, Stream
from penstock.log.format import ENTRY_BYTES, ENTRY_DTYPE, Kind, arrow_name, index_name
from penstock.log.mending import rebuild_index
from penstock.log.segment import firsts
from penstock.records import batch_to_rows

NARROW = pa.schema([pa.field("n", pa.int32(), nullable=False), ("text", pa.string())])
WIDE = pa.schema([pa.field("n", pa.int64(), nullable=False), ("text", pa.large_string()), ("extra", pa.float64())])
texts = st.none() | st.sampled_from(["", "a", "12345678", "é" * 30]) | st.text(max_size=5)
rows = st.fixed_dictionaries({"n": st.integers(-(2**31), 2**31 - 1), "text": texts})
bounds = st.tuples(st.integers(0, 60), st.integers(0, 60))


class StreamMachine(RuleBasedStateMachine):
    """`model` holds the rows of offsets `base` and up; `first` is the oldest one kept."""

    def __init__(self) -> None:
        super().__init__()
        # in memory where there is such a place: each change of a description is an fsync
        self.root = Path(
            tempfile.mkdtemp(prefix="penstock-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        )
        self.caught = warnings.catch_warnings()
        self.caught.__enter__()
        warnings.simplefilter("ignore", PenstockWarning)  # torn tails are told; test_mending looks at that

    @initialize(segment_bytes=st.sampled_from([1, 700, 2_000, 100_000]), documents=st.booleans())
    def begin(self, segment_bytes: int, documents: bool) -> None:
        self.options: dict[str, Any] = {"segment_bytes": segment_bytes, "max_batch_bytes": 300}
        self.schema = None if documents else NARROW
        self.hubs = [Folder(self.root / "hub"), Folder(self.root / "hub")]
        self.new()

    def new(self) -> None:
        self.streams: list[Stream] = [hub.stream("s", schema=self.schema, **self.options) for hub in self.hubs]
        self.model: list[dict[str, Any]] = []
        self.first = 0
        self.is_wide = False
        self.seen = 0
        self.tail = self.streams[1].reader(0)

    def teardown(self) -> None:
        self.caught.__exit__(None, None, None)
        for hub in getattr(self, "hubs", ()):
            hub.close()
        shutil.rmtree(self.root)

    # -- acts

    @rule(who=st.integers(0, 1), row=rows, strict=st.booleans())
    def append_one(self, who: int, row: dict[str, Any], strict: bool) -> None:
        """By template, or, as a list, by pyarrow."""
        found = self.streams[who].append([row] if strict else row)
        assert found == range(len(self.model), len(self.model) + 1)
        self.model.append(row)

    @rule(who=st.integers(0, 1), many=st.lists(rows, min_size=2, max_size=12), table=st.booleans())
    def append_many(self, who: int, many: list[dict[str, Any]], table: bool) -> None:
        data = pa.Table.from_pylist(many, NARROW) if table and self.schema is not None else many
        found = self.streams[who].append(data, origin=("machine", len(self.model)) if who else None)
        assert found == range(len(self.model), len(self.model) + len(many))
        self.model += many

    @rule(who=st.integers(0, 1))
    def seal(self, who: int) -> None:
        self.streams[who].seal()

    @precondition(lambda self: self.schema is not None and not self.is_wide)
    @rule(who=st.integers(0, 1))
    def widen(self, who: int) -> None:
        self.streams[who].widen(WIDE)
        self.is_wide = True

    @rule(who=st.integers(0, 1))
    def reopen(self, who: int) -> None:
        """As a process that ends and begins again."""
        self.hubs[who].close()
        self.hubs[who] = Folder(self.root / "hub")
        self.streams[who] = self.hubs[who].stream("s", schema=self.schema)

    @rule(limit=st.integers(0, 4_000))
    def expire(self, limit: int) -> None:
        self.streams[0].change(retention={"bytes": limit})
        self.streams[0].retain()
        self.streams[0].change(retention={})
        found = firsts(self.streams[0]._folder)
        if found:
            assert self.first <= found[0] <= len(self.model)
            self.first = found[0]

    @rule(documents=st.booleans())
    def drop(self, documents: bool) -> None:
        self.hubs[0].drop("s")
        self.schema = None if documents else NARROW
        if not self.model:
            self.new()
            return
        for stream in self.streams:
            with pytest.raises(UnknownStream):
                stream.append({"n": 1})
        with pytest.raises(UnknownStream):
            while self.tail.poll() is not None:
                pass
        self.new()

    @rule(cut=st.floats(0, 1), garbage=st.binary(max_size=200), entry=st.binary(max_size=300))
    def crash(self, cut: float, garbage: bytes, entry: bytes) -> None:
        """A producer was killed while it wrote: whatever follows the last commit is anything."""
        index = self.last_index()
        # Without an index nobody has begun to write to the segment. A torn entry is cut before another is written; to add
        # to it here could, once in 256 times, make it whole.
        if index.exists() and index.stat().st_size % ENTRY_BYTES == 0:
            with index.with_suffix(".arrow").open("ab") as file:
                file.write(garbage[: int(len(garbage) * cut)])
            with index.open("ab") as file:
                file.write(entry)

    @rule(cut=st.integers(1, 127), who=st.integers(0, 1), row=rows)
    def crash_in_the_entry(self, cut: int, who: int, row: dict[str, Any]) -> None:
        """The message is whole, its entry is not: it was never acknowledged."""
        self.streams[who].append(row)
        index = self.last_index()
        os.truncate(index, index.stat().st_size // ENTRY_BYTES * ENTRY_BYTES - cut)
        if self.tail._segment is not None and self.tail.offset > len(self.model):
            self.tail = self.streams[1].reader(self.seen)  # it had read what a real reader cannot have seen

    @rule(cut=st.integers(0, 2**16), who=st.integers(0, 1), row=rows)
    def crash_in_the_message(self, cut: int, who: int, row: dict[str, Any]) -> None:
        """Only a part of the message came to the file, and no entry."""
        self.streams[who].append(row)
        index = self.last_index()
        entries = np.frombuffer(index.read_bytes(), ENTRY_DTYPE)
        last = entries[-1]
        assert last["kind"] == Kind.ROWS
        os.truncate(index, (len(entries) - 1) * ENTRY_BYTES)
        os.truncate(index.with_suffix(".arrow"), int(last["position"]) + cut % (int(last["length"]) + 1))

    @rule(which=st.integers(0, 20))
    def lose_an_index(self, which: int) -> None:
        folder = self.streams[0]._folder
        found = firsts(folder)
        if found:
            with self.streams[1]._writer().locked():  # which cuts a torn end: else its rows might come back
                first = firsts(folder)[which % len(found)]
                (folder / index_name(first)).unlink(missing_ok=True)
                rebuild_index(folder, first)

    @rule(mutation=st.sampled_from(["data", "index"]))
    def leave_a_creation_unfinished(self, mutation: str) -> None:
        """Killed between the seal and the index of the next segment."""
        stream = self.streams[0]
        if self.model and self.first < len(self.model):
            stream.seal()
            path = stream._folder / arrow_name(len(self.model))
            if mutation == "data":
                path.with_suffix(".idx").unlink(missing_ok=True)  # of an empty segment, whose name it takes
                path.write_bytes(stream._fresh().codec.prefix)
            else:
                path.with_suffix(".idx.new").write_bytes(b"half")

    def last_index(self) -> Path:
        folder = self.streams[0]._folder
        return folder / index_name((firsts(folder) or [0])[-1])

    # -- what must hold

    def expected(self, start: int, stop: int) -> list[dict[str, Any]]:
        found = self.model[start:stop]
        return [{**row, "extra": None} for row in found] if self.is_wide else found

    @rule(which=st.integers(0, 1), between=bounds)
    def read(self, which: int, between: tuple[int, int]) -> None:
        start, stop = between
        stream = self.streams[which]
        if start < self.first:
            with pytest.raises(OffsetError):
                stream.read(start, stop)
            start = self.first
        assert stream.rows(start, stop) == self.expected(start, stop)

    @rule(which=st.integers(0, 1), start=st.integers(0, 60))
    def chunks(self, which: int, start: int) -> None:
        start = max(start, self.first)
        chunks = list(self.streams[which].chunks(start))
        assert sum(map(len, chunks)) == max(0, len(self.model) - start)
        for chunk in chunks:
            assert chunk.first == start
            start = chunk.stop

    @rule(limit=st.integers(1, 10))
    def follow(self, limit: int) -> None:
        """One reader that lives on, through all of it."""
        try:
            chunk = self.tail.poll(max_rows=limit)
        except OffsetError:
            assert self.tail.offset < self.first
            self.seen = self.first
            self.tail = self.streams[1].reader(self.seen)
            return
        if chunk is not None:
            assert chunk.first == self.seen
            found = [row["n"] for row in batch_to_rows(chunk.batch)]
            assert found == [row["n"] for row in self.model[chunk.first : chunk.stop]]
            self.seen = chunk.stop
        else:
            assert self.seen == len(self.model)

    @invariant()
    def is_the_model(self) -> None:
        if not hasattr(self, "streams"):
            return
        fresh = Folder(self.root / "hub")
        for stream in (*self.streams, fresh.stream("s", create=False)):
            table = stream.read(columns=["_offset", "_created"])
            assert table["_offset"].to_pylist() == list(range(self.first, len(self.model)))
            assert (np.diff(table["_created"].cast(pa.int64()).to_numpy()) >= 0).all()
            assert (stream.first_offset, stream.next_offset) == (self.first, len(self.model))
        assert stream.rows() == self.expected(self.first, len(self.model))
        fresh.close()


TestStream = StreamMachine.TestCase
TestStream.settings = settings(
    max_examples=50,
    stateful_step_count=25,
    suppress_health_check=list(HealthCheck),
    deadline=None,
    report_multiple_bugs=False,
)
