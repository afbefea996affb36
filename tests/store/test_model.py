"""The store against a dict: any writes, corrections, rolls, compactions, vacuums and reads between them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import penstock.store
from penstock.errors import KeyNotFound
from penstock.store.compact import checkpoint, compact, vacuum
from penstock.store.roll import roll

DAY = 86_400_000_000_000
START = 1_767_268_800_000_000_000
KEYS = ["A", "B", "a/b", "Ü"]
SCHEMA = pa.schema(
    {
        "symbol": pa.field("symbol", pa.string(), False).type,
        "ts_event": pa.int64(),
        "price": pa.float64(),
        "size": pa.uint64(),
        "note": pa.string(),
    }
)
VALUES = st.tuples(
    st.sampled_from(KEYS),
    st.integers(0, 5).map(lambda n: START + n * DAY // 3),
    st.one_of(st.none(), st.sampled_from([0.0, -0.0, float("nan"), float("inf")]), st.floats(width=32)),
    st.one_of(st.none(), st.sampled_from([0, 2**64 - 1]), st.integers(0, 100)),
    st.one_of(st.none(), st.sampled_from(["", "x"])),
)


def bits(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row whose floats are compared by their bits."""
    return tuple(np.float64(v).tobytes() if isinstance(v, float) else v for v in row)


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.store = penstock.store.open(self.folder)
        self.table = self.store.create("m/t", SCHEMA)
        self.written: list[tuple[int, tuple[Any, ...]]] = []  # (known, row) in the order of writing
        self.dropped: dict[str, int] = {}  # key → how many were written when it was dropped

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)

    @rule(rows=st.lists(VALUES, min_size=1, max_size=6))
    def write(self, rows: list[tuple[Any, ...]]) -> None:
        batch = pa.RecordBatch.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], SCHEMA)
        found = self.table.write(batch)
        assert found == range(len(self.written), len(self.written) + len(rows))
        known = int(next(self.table.stream.chunks(found.start)).created[0])
        self.written += [(known, row) for row in rows]

    @rule(most=st.integers(1, 5))
    def roll_some(self, most: int) -> None:
        roll(self.table, force=True, max_rows=most)

    @rule()
    def seal(self) -> None:
        self.table.stream.seal()

    @rule(everything=st.booleans(), file_rows=st.integers(1, 10))
    def compact(self, everything: bool, file_rows: int) -> None:
        compact(self.table, everything=everything, min_files=2, file_rows=file_rows)

    @rule(key=st.sampled_from(KEYS))
    def drop_key(self, key: str) -> None:
        if key in self.there():
            self.store.drop(f"m/t/{key}")
            self.dropped[key] = len(self.written)
        else:
            with pytest.raises(KeyNotFound):
                self.store.drop(f"m/t/{key}")

    def left(self) -> list[tuple[int, int, tuple[Any, ...]]]:
        """(offset, known, row) of what was not dropped."""
        found = [(at, known, row) for at, (known, row) in enumerate(self.written)]
        return [(at, known, row) for at, known, row in found if at >= self.dropped.get(row[0], 0)]

    def there(self) -> list[str]:
        """Keys that have rows."""
        return sorted({row[0] for _, _, row in self.left()})

    @rule()
    def vacuum(self) -> None:
        vacuum(self.table, grace=0)

    @rule()
    def checkpoint(self) -> None:
        checkpoint(self.table, commits=1)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = penstock.store.open(self.folder)
        self.table = self.store.table("m/t")

    def expected(self, key: str | None, low: int, high: int, as_of: int | None = None) -> list[tuple[Any, ...]]:
        latest = {row[:2]: row for _, known, row in self.left() if as_of is None or known <= as_of}
        return [bits(latest[at]) for at in sorted(latest) if low <= at[1] < high and (key is None or at[0] == key)]

    def rows(self, table: pa.Table) -> list[tuple[Any, ...]]:
        assert table.schema.names == SCHEMA.names
        assert table.schema.types == SCHEMA.types
        return [bits(row) for row in zip(*(c.to_pylist() for c in table.columns), strict=True)]

    @invariant()
    def everything_is_there(self) -> None:
        if hasattr(self, "table"):
            assert self.rows(self.table.read()) == self.expected(None, START, 2**62)

    @precondition(lambda self: self.there())
    @rule(data=st.data())
    def read_some(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.there()))
        low, high = sorted(data.draw(st.tuples(st.integers(-1, 6), st.integers(-1, 6))))
        low, high = START + low * DAY // 3, START + high * DAY // 3
        as_of = data.draw(st.one_of(st.none(), st.sampled_from([known for known, _ in self.written])))
        assert self.rows(self.table.read(key, low, high, as_of=as_of)) == self.expected(key, low, high, as_of)
        whole = [row for part in self.table.scan(None, low, high, as_of=as_of) for row in self.rows(part)]
        assert sorted(map(repr, whole)) == sorted(map(repr, self.expected(None, low, high, as_of)))

    @precondition(lambda self: self.written)
    @rule()
    def every_revision(self) -> None:
        found = self.table.read(None, revisions=True, columns=[*SCHEMA.names, "ts_known", "_offset"])
        rows = [
            (k, o, bits(tuple(r[n] for n in SCHEMA.names)))
            for r in found.to_pylist()
            for k, o in [(r["ts_known"], r["_offset"])]
        ]
        kept = self.revisions()
        wanted = [(known, at, bits(row)) for at, known, row in self.left() if at in kept]
        assert sorted(rows, key=lambda row: row[1]) == wanted
        for key in self.there():
            one = self.table.read(key, revisions=True, columns=["_offset"])["_offset"].to_pylist()
            assert sorted(one) == [at for at in kept if self.written[at][1][0] == key]
        assert found["_offset"].to_pylist() == [
            at for _, at in sorted(((*self.written[at][1][:2], at), at) for at in kept)
        ]

    def revisions(self) -> list[int]:
        """Offsets of the rows that say something else than the one before them."""
        said: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        found = []
        for at, _, row in self.left():
            if said.get(row[:2]) != bits(row):
                found.append(at)
            said[row[:2]] = bits(row)
        return found

    @precondition(lambda self: self.written)
    @rule()
    def counts(self) -> None:
        counts, kept = self.table.counts(), self.revisions()
        assert sorted(counts) == self.there()
        for key, count in counts.items():
            rows = [at for at, _, row in self.left() if row[0] == key]
            assert len(set(kept) & set(rows)) <= count <= len(rows)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=25, stateful_step_count=20, suppress_health_check=list(HealthCheck))
