"""Files in and out, and stored ranges as streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

import penstock as ps
import penstock.store
from penstock.clock import ManualClock
from penstock.errors import UsageError
from penstock.store import Store

NOON = 1_767_268_800_000_000_000
SECOND = 1_000_000_000
HALF_DAY = 43_200 * SECOND
SCHEMA = pa.schema(
    [pa.field("symbol", pa.string(), False), pa.field("ts_event", pa.int64(), False), ("price", pa.float64())]
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = penstock.store.open(tmp_path / "data")
    store.create("m/t", SCHEMA)
    return store


def ticks(rows: int = 10) -> pa.Table:
    columns = {"symbol": [f"S{n % 2}" for n in range(rows)], "ts_event": NOON + np.arange(rows) * HALF_DAY}
    return pa.table({**columns, "price": np.arange(rows) / 2}, SCHEMA)


@pytest.mark.parametrize("kind", ["parquet", "csv", "arrow"])
def test_out_and_in_again(kind: str, store: Store, tmp_path: Path) -> None:
    store.write("m/t", ticks())
    store.flush()
    store.write("m/t", ticks(12).slice(9))
    told: list[tuple[int, int]] = []
    path = tmp_path / f"out.{kind}"
    assert store.export("m/t", path, progress=lambda *numbers: told.append(numbers)) == 12
    assert told[-1] == (12, 13)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith((".out", "out"))] == [path.name]
    reads = {"parquet": pq.read_table, "csv": pyarrow.csv.read_csv, "arrow": pyarrow.feather.read_table}
    assert reads[kind](path).sort_by("ts_event").cast(SCHEMA).equals(ticks(12))
    store.create("u", SCHEMA)
    seen = []
    done = store.import_files("u", path, progress=seen.append, batch_rows=5)
    assert (done.rows, seen[-1].rows) == (12, 12)
    assert store.read("u").equals(store.read("m/t"))
    assert store.import_files("u", path).rows == 0  # it remembers
    store.flush()
    table = store.table("u")
    table.stream.seal()
    store.write("u", ticks(1))
    store.flush()
    assert table.stream.first_offset > 0  # the log has forgotten, the table's own log has not
    assert store.import_files("u", path).rows == 0
    assert table.last_origin("nobody") is None


def test_one_key(store: Store, tmp_path: Path) -> None:
    store.write("m/t", ticks())
    assert store.export("m/t/S1", tmp_path / "a.parquet", columns=["ts_event", "price"]) == 5
    assert store.import_files("m/t/NEW", tmp_path / "a.parquet", on_bad="stop").rows == 5
    assert store.read("m/t/NEW", columns="price").equals(store.read("m/t/S1", columns="price"))
    with pytest.raises(UsageError, match=r"expected a file that ends with .parquet, .csv or .arrow, got .*a.xls"):
        store.export("m/t", tmp_path / "a.xls")


def test_replay_comes_in_the_order_of_time(store: Store) -> None:
    store.write("m/t", ticks().slice(5))
    store.write("m/t", ticks().slice(0, 5))
    for _ in range(2):
        found = pa.Table.from_batches(store.replay("m/t"), SCHEMA)
        assert found.equals(ticks().combine_chunks())
        one = pa.Table.from_batches(store.replay("m/t/S1", NOON + HALF_DAY + 1, "2026-01-05T00:00:00Z"))
        assert one["price"].to_pylist() == [1.5, 2.5, 3.5][: one.num_rows]
        assert pa.Table.from_batches(store.replay("m/t/*")).num_rows == 10
        assert pa.Table.from_batches(store.replay("m/t/S[1]", columns=["price"])).num_rows == 5
        store.flush()


def test_replay_at_a_pace_into_a_stream(store: Store) -> None:
    store.write("m/t", ticks())
    clock = ManualClock()
    stream = store.hub.streams.get("again", schema=SCHEMA)
    source = store.replay("m/t", pace="43200x", clock=clock)
    for batch in source:
        stream.append(batch)
        clock.advance(1)  # half a day
    assert source.statistics().batches == 10
    assert stream.read().equals(ticks())


def test_replay_goes_on_where_it_stood(store: Store) -> None:
    known = store.table("m/t")
    store.write("m/t", ticks())
    as_of = max(known.read(columns=["ts_known"])["ts_known"].to_pylist())
    store.write("m/t", [{"symbol": "S0", "ts_event": NOON, "price": 99.0}])
    stream = store.hub.streams.get("again", schema=SCHEMA)
    assert store.replay("m/t", as_of=as_of).stream(stream).rows == 10
    assert store.replay("m/t", as_of=as_of).stream(stream).rows == 0
    assert stream.read()["price"][0].as_py() == 0.0
    assert store.replay("m/t").stream(store.hub.streams.get("now", schema=SCHEMA)).rows == 10
    assert ps.streams is not None


def test_tables_with_a_time_of_another_name(store: Store, tmp_path: Path) -> None:
    zone = pa.timestamp("us", "UTC")
    times = pa.array([NOON // 1000 + n * 60_000_000 for n in range(4)], zone)
    frame = pa.table({"sensor": ["a", "b", "a", "b"], "when": times, "x": [1.0, 2.0, 3.0, 4.0]})
    store.create("lab", frame.schema, key="sensor", time="when")
    store.write("lab", frame)
    store.flush()
    for kind in ("parquet", "arrow"):
        store.export("lab", tmp_path / f"lab.{kind}")
        store.create(kind, frame.schema, key="sensor", time="when")
        assert store.import_files(kind, tmp_path / f"lab.{kind}").rows == 4
        assert store.read(kind).equals(store.read("lab"))
    found = pa.Table.from_batches(store.replay("lab", pace="max"))
    assert found["ts_event"].to_pylist() == [NOON + n * 60 * SECOND for n in range(4)]
    assert found["x"].to_pylist() == [1.0, 2.0, 3.0, 4.0]
