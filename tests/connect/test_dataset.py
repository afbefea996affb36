from __future__ import annotations

import asyncio
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock
from penstock.clock import ManualClock
from penstock.connect import Dataset, DatasetStatistics
from penstock.errors import SourceError, UsageError
from penstock.testing import kill_at
from penstock_tests.waiting import PATIENCE_S

S = 1_000_000_000
SCHEMA = pa.schema([pa.field("ts_event", pa.int64(), nullable=False), ("n", pa.int64())])


def table(times: list[int]) -> pa.Table:
    return pa.table({"ts_event": pa.array(times, pa.int64()), "n": list(range(len(times)))}, SCHEMA)


@pytest.mark.parametrize(
    "make",
    [
        lambda t, _: t,
        lambda t, _: t.to_batches()[0],
        lambda t, _: pl.from_arrow(t),
        lambda t, _: t.to_pandas(),
        lambda t, _: t.to_pylist(),
        lambda t, _: iter(t.to_pylist()),
        lambda t, _: t.to_batches(max_chunksize=2),
        lambda t, folder: pq.write_table(t, folder / "a.parquet") or folder / "a.parquet",
    ],
    ids=["table", "batch", "polars", "pandas", "dicts", "iterator", "batches", "parquet"],
)
def test_everything_that_holds_rows(make: Any, hub: penstock.Hub, tmp_path: Path) -> None:
    rows = table([5, 6, 7, 8, 9])
    stream = hub.streams.get("s", schema=SCHEMA)
    found = Dataset(make(rows, tmp_path), schema=SCHEMA, batch_rows=2).stream(stream)
    assert stream.read().equals(rows)
    assert (found.rows, found.batches, found.skipped) == (5, 3, 0)
    assert found.bytes >= 80


def test_pandas_times_as_they_come() -> None:
    frame = pd.DataFrame({"when": pd.to_datetime(["2024-01-02 09:30"]), "x": [1.5]})
    assert [b.to_pylist() for b in Dataset(frame, time="when")] == [[{"ts_event": 1704187800 * S, "x": 1.5}]]
    (there,) = Dataset(frame, time="when", tz="America/New_York")
    assert there.column(0)[0].as_py() == 1704205800 * S


# -- documents and dicts


def test_dicts_without_a_schema_are_documents(hub: penstock.Hub) -> None:
    rows = [{"at": "1970-01-01T00:00:01Z", "v": [1]}, {"at": "1970-01-01T00:00:03Z", "v": {"x": 2}}]
    clock = ManualClock()
    came = threading.Semaphore(0)
    data = Dataset(rows, time="at", pace=1, clock=clock, progress=lambda s: came.release())
    stream = hub.streams.get("docs")
    runner = threading.Thread(target=data.stream, args=[stream])
    runner.start()
    assert came.acquire(timeout=PATIENCE_S)
    clock.advance(2)
    runner.join(PATIENCE_S)
    assert stream.rows() == rows
    assert (data.statistics().batches, data.statistics().seconds) == (2, 2.0)


def test_bad_dicts_are_named() -> None:
    rows: list[dict[str, Any]] = [
        {"t": 1, "n": 1},
        {"t": "x", "n": 2},
        {"t": 3, "n": "many"},
        {"n": 4},
        {"t": 5, "n": 5, "more": object()},
    ]
    errors: list[dict[str, Any]] = []
    data = Dataset(rows, schema=SCHEMA, time="t", on_bad="skip", errors=errors.extend, name="feed")
    assert [row for batch in data for row in batch.to_pylist()] == [{"ts_event": 1, "n": 1}, {"ts_event": 5, "n": 5}]
    assert [(e["source"], e["row"], e["column"]) for e in errors] == [
        ("feed", 1, "t"),
        ("feed", 2, "n"),
        ("feed", 3, "t"),
    ]
    with pytest.raises(SourceError, match="expected a time such as .*, got string 'x' - at feed row 1, column `t`"):
        list(Dataset(rows, schema=SCHEMA, time="t", name="feed"))
    with pytest.raises(SourceError, match="expected int64 .*, got string 'many' - at feed row 0, column `n`"):
        list(Dataset(rows[2:3], schema=SCHEMA, time="t", name="feed"))
    with pytest.raises(
        SourceError, match="expected dicts, record batches or frames, got int 3 - at list.0.; make each"
    ):
        list(Dataset([3]))


# -- pace


def test_as_recorded_and_faster(hub: penstock.Hub) -> None:
    times = [10 * S, 11 * S, 11 * S, 14 * S]
    stream = hub.streams.get("s", schema=SCHEMA)
    clock = ManualClock(500 * S)
    appended = threading.Semaphore(0)
    data = Dataset(table(times), pace="2x", clock=clock, progress=lambda s: appended.release())
    runner = threading.Thread(target=data.stream, args=[stream])
    runner.start()
    for step, rows in [(0.0, 1), (0.5, 3), (1.5, 4)]:
        clock.advance(step)
        assert appended.acquire(timeout=PATIENCE_S)
        assert len(stream) == rows
    runner.join(PATIENCE_S)
    assert data.statistics() == DatasetStatistics(rows=4, batches=3, bytes=64, seconds=2.0)


def test_lag_is_counted() -> None:
    clock = ManualClock()
    found = []
    data = Dataset(table([0, S, 2 * S]), pace=1, clock=clock)
    for batch in data:
        found.append(batch.num_rows)
        clock.advance(1.75)
    assert found == [1, 1, 1]
    assert data.statistics().max_lag_ns == 3 * S // 2
    assert data.statistics().lag_ns == 3 * S // 2


def test_a_pace_needs_times() -> None:
    rows = pa.table({"n": [1], "timestmp": [2]})
    with pytest.raises(
        SourceError, match="expected a column with the event time, .*, got the columns 'n', 'timestmp' - "
    ):
        list(Dataset(rows, pace="recorded"))
    for options in ({"sort": True}, {"sort": "check"}, {"start": 5}):
        with pytest.raises(SourceError, match="in Dataset.'Table'.; set time='timestmp'"):
            list(Dataset(rows, **options))  # type: ignore[arg-type]


def test_stopping(hub: penstock.Hub) -> None:
    stream, stopping = hub.streams.get("s", schema=SCHEMA), threading.Event()
    data = Dataset(table([0, S]), pace=1, clock=ManualClock(), progress=lambda s: stopping.set())
    assert data.stream(stream, stopping=stopping).rows == 1
    assert list(data.batches(stopping=stopping)) == []


def test_a_cancelled_stream_ends(hub: penstock.Hub) -> None:
    stream = hub.streams.get("s", schema=SCHEMA)

    async def run() -> None:
        came = asyncio.Event()
        loop = asyncio.get_running_loop()
        data = Dataset(
            table([0, S]), pace=1, clock=ManualClock(), progress=lambda s: loop.call_soon_threadsafe(came.set)
        )
        task = asyncio.create_task(data.astream(stream))
        await came.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(stream) == 1
        assert (await Dataset(table([2])).astream(stream)).rows == 1

    asyncio.run(run())


# -- order, range, laps


def test_order() -> None:
    rows = table([1, 5, 3, 4, 6])
    data = Dataset(rows, batch_rows=2)
    assert [r["n"] for b in data for r in b.to_pylist()] == [0, 1, 2, 3, 4]
    assert data.statistics().out_of_order == 2
    assert [r["n"] for b in Dataset(rows, sort=True, batch_rows=2) for r in b.to_pylist()] == [0, 2, 3, 1, 4]
    with pytest.raises(SourceError) as caught:
        list(Dataset([rows.slice(0, 2), rows.slice(2)], sort="check", name="feed"))
    assert str(caught.value) == (
        "expected a time of at least 1970-01-01T00:00:00.000000005Z, got 1970-01-01T00:00:00.000000003Z - "
        "at row 2 of Dataset('feed'); set sort=True to sort the rows, or sort=False to keep their order"
    )
    assert len(list(Dataset(table([1, 1, 2]), sort="check"))) == 1


def test_range_of_times() -> None:
    rows = table([0, S, 2 * S, 3 * S])
    found = Dataset(rows, start="1970-01-01T00:00:01Z", stop=3 * S)
    assert [r["n"] for b in found for r in b.to_pylist()] == [1, 2]
    local = Dataset(rows, start="1970-01-01 01:00:02", tz="Europe/Paris")
    assert [r["n"] for b in local for r in b.to_pylist()] == [2, 3]
    with pytest.raises(UsageError, match="expected a time with its zone, got '1970-01-01 00:00' - in start"):
        Dataset(rows, start="1970-01-01 00:00")


def test_laps_go_on_in_time_and_number(hub: penstock.Hub) -> None:
    schema = pa.schema([*SCHEMA, ("ts_recv", pa.int64())])
    rows = pa.table({"ts_event": [5 * S, 70 * S], "n": [0, 1], "ts_recv": [6 * S, None]}, schema)
    stream = hub.streams.get("s", schema=schema)
    Dataset(rows, loop=3, name="feed").stream(stream)
    assert stream.read()["ts_event"].to_pylist() == [t * S for t in (5, 70, 125, 190, 245, 310)]
    assert stream.read()["ts_recv"].to_pylist() == [6 * S, None, 126 * S, None, 246 * S, None]
    assert stream.last_origin("feed") == (6, 0)
    for_ever = Dataset(rows, loop=None, name="feed").batches()
    assert [next(for_ever).num_rows for _ in range(5)] == [2] * 5
    assert list(Dataset(rows.slice(0, 0), loop=None)) == []


def test_laps_of_a_timestamp_column() -> None:
    schema = pa.schema([("when", pa.timestamp("us", "UTC"))], metadata={b"penstock.event": b"when"})
    rows = pa.table({"when": pa.array([0, 1], pa.timestamp("us", "UTC"))}, schema)
    found = [t.value for b in Dataset(rows, schema=schema, loop=2) for t in b.column(0)]
    assert found == [0, 1, 60_000_000, 60_000_001]


# -- resuming


@given(st.integers(0, 30), st.integers(1, 7), st.integers(1, 7), st.booleans(), st.integers(1, 3))
def test_a_stopped_replay_goes_on_where_it_stood(
    tmp_path_factory: pytest.TempPathFactory, rows: int, first: int, second: int, sort: bool, laps: int
) -> None:
    """Stopped after any batch and run again with any other batch size: each row once, in order."""
    folder = tmp_path_factory.mktemp("hub")
    data = table([(i * 7) % 10 for i in range(rows)])
    with penstock.open(folder) as hub:
        once, twice = hub.streams.get("once", schema=SCHEMA), hub.streams.get("twice", schema=SCHEMA)
        Dataset(data, name="feed", sort=sort, loop=laps).stream(once)
        stopping = threading.Event()
        part = Dataset(data, name="feed", sort=sort, loop=laps, batch_rows=first, progress=lambda s: stopping.set())
        part.stream(twice, stopping=stopping)
        rest = Dataset(data, name="feed", sort=sort, loop=laps, batch_rows=second).stream(twice)
        assert twice.read().equals(once.read())
        assert rest.resumed_at == min(first, rows)
        assert Dataset(data, name="feed", sort=sort, loop=laps).stream(twice).rows == 0


def test_who_is_remembered(hub: penstock.Hub, tmp_path: Path) -> None:
    stream = hub.streams.get("s", schema=SCHEMA)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        pq.write_table(table([1, 2]), tmp_path / folder / "a.parquet")
        Dataset(tmp_path / folder / "a.parquet").stream(stream)
    assert len(stream) == 4  # two files of one name are two sources
    Dataset(tmp_path / "one" / "a.parquet").stream(stream)
    assert len(stream) == 4
    Dataset(tmp_path / "one" / "a.parquet", resume=False).stream(stream)
    assert len(stream) == 6
    Dataset(table([1])).stream(stream)
    Dataset(table([1])).stream(stream)
    assert len(stream) == 8  # frames have no name of their own
    both = [tmp_path / "one" / "a.parquet", tmp_path / "two"]
    Dataset(both).stream(stream)
    assert Dataset(both).stream(stream).rows == 0


def test_data_that_was_cut(hub: penstock.Hub) -> None:
    stream = hub.streams.get("s", schema=SCHEMA)
    Dataset(table([1, 2, 3]), name="feed").stream(stream)
    with pytest.raises(SourceError, match="expected at least the 3 rows that were replayed before, got 2 - in Dataset"):
        Dataset(table([1, 2]), name="feed").stream(stream)


def test_bad_rows_and_resuming(hub: penstock.Hub, tmp_path: Path) -> None:
    """Bad rows go to the error stream once, whatever is run again; after a repair the replay goes on."""
    path = tmp_path / "a.csv"
    path.write_text("ts_event,n\n1,1\n2,x\n3,3\nbad\n5,5\n")
    stream, errors = hub.streams.get("s", schema=SCHEMA), hub.streams.get("s.errors")
    with pytest.raises(SourceError, match="a.csv:3, column `n`"):
        Dataset(path, schema=SCHEMA).stream(stream)
    assert stream.read()["n"].to_pylist() == [1]
    skipping = Dataset(path, schema=SCHEMA, on_bad="skip", errors=errors)
    assert skipping.stream(stream).skipped == 2
    assert stream.read()["n"].to_pylist() == [1, 3, 5]
    assert skipping.stream(stream) == DatasetStatistics(resumed_at=5, seconds=skipping.statistics().seconds)
    assert [(e["row"], e["line"], e["raw"]) for e in errors.rows()] == [
        (1, 3, {"ts_event": "2", "n": "x"}),
        (3, 5, "bad"),
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*that no append had committed:penstock.errors.PenstockWarning")
def test_killed_replays_double_nothing(tmp_path: Path) -> None:
    """SIGKILL in the middle of a replay of a real file, eight times, each run going on after the last."""
    rows = 1_000_000
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"ts_event": np.arange(rows), "n": np.arange(rows)}, SCHEMA), path)
    code = textwrap.dedent(
        f"""
        import pyarrow as pa, penstock
        from penstock.connect import Dataset
        schema = pa.schema([pa.field("ts_event", pa.int64(), nullable=False), ("n", pa.int64())])
        stream = penstock.open({str(tmp_path / "hub")!r}).streams.get("s", schema=schema)
        say = lambda s: s.batches % 100 or print("batches", s.batches, flush=True)
        Dataset({str(path)!r}, batch_rows=50, progress=say).stream(stream)
        """
    )
    with penstock.open(tmp_path / "hub") as hub:
        stream = hub.streams.get("s", schema=SCHEMA)
        for run in range(1, 9):
            before = len(stream)
            kill_at([sys.executable, "-c", code], f"batches {run * 100}")
            # Not 50 rows in each batch: a piece of the file ends with a shorter one.
            assert before + run * 100 * 49 <= len(stream) < rows
        Dataset(path).stream(stream)
        assert np.array_equal(stream.read()["n"].to_numpy(), np.arange(rows))


# -- options that cannot be meant


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sort": "yes"}, "expected True, False or 'check', got 'yes' - in sort"),
        ({"on_bad": "ignore"}, "expected 'stop' or 'skip', got 'ignore' - in on_bad"),
        ({"unit": "min"}, "expected 'ns', 'us', 'ms' or 's', got 'min' - in unit"),
        ({"format": "xls"}, "expected None, 'parquet', 'arrow' or 'csv', got 'xls' - in format"),
        ({"batch_rows": 0}, "expected a number of at least 1, got 0 - in batch_rows"),
        ({"loop": -1}, "expected a number of at least 1, got -1 - in loop"),
        ({"columns": "n"}, "expected a list of names, got 'n' - in columns; set columns=['n']"),
        ({"header": []}, "expected a list of names, got [] - in header"),
        ({"pace": "fast"}, "got 'fast' - in pace"),
        ({"tz": "Mars"}, "expected the name of a time zone, got 'Mars' - in tz"),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Dataset(table([1]), **options)
    assert message in str(caught.value)


def test_data_that_is_none() -> None:
    with pytest.raises(UsageError, match="expected a path, a frame, or an iterable of dicts, got int 5 - in Dataset"):
        Dataset(5)
    with pytest.raises(UsageError, match="got dict .* - in Dataset; give .row. for one row"):
        Dataset({"n": 1})
    with pytest.raises(
        UsageError, match="expected data that can be read again, got an iterator - in loop; give a list"
    ):
        Dataset(iter([{"n": 1}]), loop=2)


def test_schema() -> None:
    assert Dataset(table([1])).schema == SCHEMA
    assert Dataset([{"a": 1}]).schema.names == ["document"]
    assert Dataset(iter([]), schema=SCHEMA).schema == SCHEMA
    with pytest.raises(SourceError, match="expected rows to tell the types from, got an iterator - .*; set schema="):
        _ = Dataset(iter([{"a": 1}])).schema
    with pytest.raises(SourceError, match="expected rows to tell the types from, got no rows"):
        _ = Dataset([]).schema


def test_the_numbers_of_a_big_frame() -> None:
    rows = pa.table({"ts_event": np.arange(200_000), "n": np.arange(200_000)}, SCHEMA)
    data = Dataset(rows)
    assert pa.Table.from_batches(list(data)).equals(rows)
    assert data.statistics().batches == 13
