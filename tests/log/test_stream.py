"""What users do with a stream: append, read, tail, metadata."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.errors import (
    OffsetError,
    RowTooLarge,
    SchemaMismatch,
    TypeMismatch,
    UsageError,
)
from penstock.log import Folder, Stream
from penstock.records import TRADES, tensor_array, tensor_column, tensor_field
from penstock_tests.waiting import PATIENCE_S

TRADE = {"symbol": "AAPL", "ts_event": 1_000, "price": 1.5, "size": 3}


def trade(**changes: Any) -> dict[str, Any]:
    return {**dict.fromkeys(TRADES.names), **TRADE, **changes}


# -- appending


def forms() -> Iterator[tuple[str, Callable[[pa.Table], Any]]]:
    yield "rows", lambda table: table.to_pylist()
    yield "tuple of rows", lambda table: tuple(table.to_pylist())
    yield "iterator of rows", lambda table: iter(table.to_pylist())
    yield "table", lambda table: table
    yield "batch", lambda table: table.combine_chunks().to_batches()[0]
    yield "reader", lambda table: table.to_reader(max_chunksize=2)
    yield "chunked table", lambda table: pa.concat_tables([table.slice(0, 2), table.slice(2)])
    yield "polars", lambda table: __import__("polars").from_arrow(table)
    yield "pandas", lambda table: table.to_pandas()
    yield "duckdb", lambda table: __import__("duckdb").from_arrow(table)
    yield "dictionary", lambda table: table.set_column(1, "text", table.column(1).dictionary_encode())
    yield "views", lambda table: table.set_column(1, "text", table.column(1).cast(pa.string_view()))
    yield "other order", lambda table: table.select(["text", "n"])
    yield "narrower", lambda table: table.set_column(0, "n", table.column(0).cast(pa.int8()))


FORMS = dict(forms())


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_rows(form: str, hub: Folder, prices: pa.Schema, again: Callable[..., Stream]) -> None:
    table = pa.table({"n": [1, 2, 3], "text": ["a", None, "é🙂"]}, prices)
    stream = hub.stream("s", schema=prices)
    assert stream.append(FORMS[form](table)) == range(3)
    assert stream.append(FORMS[form](table)) == range(3, 6)
    assert again("s").read() == pa.concat_tables([table, table])


def test_one_dict_and_nothing(hub: Folder, prices: pa.Schema) -> None:
    stream = hub.stream("s", schema=prices)
    assert stream.append({"n": 1, "text": "a"}) == range(0, 1)
    empty: list[Any] = [[], (), iter(()), prices.empty_table(), pa.table({"n": pa.array([], "int8")})]
    for nothing in empty:
        assert stream.append(nothing) == range(1, 1)
    assert len(stream) == 1
    assert bool(stream)
    assert repr(stream) == "Stream('s', stream.table, offsets 0 to 1)"


def test_documents_come_back_as_they_went_in(hub: Folder, again: Callable[..., Stream]) -> None:
    stream = hub.stream("docs")
    documents = [
        {"foo": "bar"},
        {"when": datetime(2026, 11, 20, tzinfo=UTC), "price": Decimal("1.10"), "raw": b"\0"},
        {"deep": {"list": [1, 2.5, None, "é"]}, "$odd": True},
    ]
    stream.append(documents[0])
    stream.append(documents[1:])
    assert stream.is_document
    assert stream.rows() == again("docs").rows() == documents
    assert stream.rows(1, 2) == documents[1:2]


def test_a_table_of_documents_and_rows_of_another_table_in_a_document_stream(hub: Folder) -> None:
    stream = hub.stream("docs")
    stream.append({"a": 1})
    copied = hub.stream("copy")
    copied.append(stream.read())
    assert copied.is_document
    assert copied.rows() == [{"a": 1}]
    stream.append(pa.table({"x": [1, None]}))
    assert stream.rows() == [{"a": 1}, {"x": 1}, {"x": None}]


def test_an_empty_stream_without_schema_takes_that_of_its_first_table(
    hub: Folder, again: Callable[..., Stream]
) -> None:
    stream, other = hub.stream("s"), again("s")
    table = pa.table({"x": pa.array([1, 2], pa.int32()), "name": ["a", "b"]})
    assert stream.append(pa.table({"x": pa.array([], pa.int32())})) == range(0)
    assert stream.is_document
    stream.append(table)
    assert stream.metadata().kind == "stream.table"
    assert stream.read() == table
    # the other one still believes in documents
    assert other.append({"x": 3, "name": "c"}) == range(2, 3)
    assert other.append(table) == range(3, 5)
    assert other.read()["x"].to_pylist() == stream.read()["x"].to_pylist() == [1, 2, 3, 1, 2]
    with pytest.raises(TypeMismatch, match="expected int32 for `x`, got string 'no'"):
        again("s").append({"x": "no"})


def test_a_first_table_that_cannot_be_a_schema_changes_nothing(hub: Folder) -> None:
    stream = hub.stream("s")
    with pytest.raises(SchemaMismatch, match="expected each column name once, got `a` more than once"):
        stream.append(pa.table([[1], [2]], names=["a", "a"]))
    with pytest.raises(SchemaMismatch, match=r"timestamp or date32 for `ts_event`, got string - in stream 's'"):
        stream.append(pa.table({"ts_event": ["x"]}))
    assert stream.is_document
    assert stream.append({"still": "documents"}) == range(0, 1)


def test_dictionary_columns(hub: Folder, again: Callable[..., Stream]) -> None:
    schema = pa.schema(
        [("x", pa.dictionary(pa.int16(), pa.string())), ("l", pa.list_(pa.dictionary(pa.int8(), "string")))]
    )
    stream = hub.stream("s", schema=schema)
    first = pa.table({"x": pa.array(["a", "b", "a"]).dictionary_encode(), "l": [["p"], None, ["p", "q"]]})
    stream.append(first)
    stream.append({"x": "c", "l": ["q"]})
    stream.append([{"x": None, "l": []}])
    table = again("s").read()
    assert table.schema.field("x").type == schema.field("x").type
    assert table["x"].to_pylist() == ["a", "b", "a", "c", None]
    assert table["l"].to_pylist() == [["p"], None, ["p", "q"], ["q"], []]
    assert [row["x"] for row in stream.rows(1, 4)] == ["b", "a", "c"]
    [path] = stream._folder.glob("*.arrow")
    with pa.ipc.open_stream(path.read_bytes()) as plain:
        assert plain.read_all()["x"].to_pylist() == ["a", "b", "a", "c", None]


def test_tensors_and_nested_columns(hub: Folder, again: Callable[..., Stream]) -> None:
    schema = pa.schema(
        [
            tensor_field("image", (2, 3), np.float32),
            ("tags", pa.list_(pa.string())),
            ("point", pa.struct({"x": "int8"})),
        ]
    )
    images = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    stream = hub.stream("s", schema=schema)
    stream.append({"image": images[0], "tags": ["a"], "point": {"x": 1}})
    stream.append(
        pa.table([tensor_column(images[1:3]), [["b", "c"], None], [{"x": 2}, None]], schema=schema),
    )
    stream.append([{"image": images[3], "tags": [], "point": None}])
    table = again("s").read()
    assert np.array_equal(tensor_array(table["image"]), images)
    assert table["tags"].to_pylist() == [["a"], ["b", "c"], None, []]
    assert table["point"].to_pylist() == [{"x": 1}, {"x": 2}, None, None]


def test_string_views_as_a_schema(hub: Folder, again: Callable[..., Stream]) -> None:
    schema = pa.schema([("v", pa.string_view()), ("b", pa.binary_view()), ("l", pa.large_string())])
    stream = hub.stream("s", schema=schema)
    rows = [{"v": "short", "b": b"x", "l": "y"}, {"v": "longer than twelve bytes", "b": None, "l": "z" * 100}]
    for row in rows:
        stream.append(row)
    stream.append(rows)
    assert again("s").rows() == rows * 2
    assert again("s").read(1, 3).schema.equals(schema)


def test_rows_of_one_call_stay_together_and_are_split_for_the_disk(hub: Folder, prices: pa.Schema) -> None:
    stream = hub.stream("s", schema=prices, max_batch_bytes=1000)
    n = 5000
    stream.append(pa.table({"n": range(n), "text": ["x" * (i % 9) for i in range(n)]}, prices))
    assert stream.statistics().appends > 50
    assert stream.read()["n"].to_pylist() == list(range(n))
    before = stream.statistics().appends
    stream.append(pa.table({"n": range(n), "text": ["x"] * n}, prices), origin=("maker", 1))
    assert stream.statistics().appends == before + 1


def test_origins(hub: Folder, prices: pa.Schema, again: Callable[..., Stream]) -> None:
    stream = hub.stream("s", schema=prices, segment_bytes=2000)
    assert stream.last_origin("a") is None
    for i in range(40):
        stream.append({"n": i, "text": "x"}, origin=("a" if i % 3 else "b", i, i * 2))
    stream.append([{"n": 99, "text": None}], origin=("c", -5))
    stream.append({"n": 100})
    batches = [pa.record_batch({"n": [i], "text": ["t"]}, prices) for i in range(200, 205)]
    before = stream.statistics().appends
    stream.append(pa.Table.from_batches(batches), origin=("d", 7))
    assert stream.statistics().appends == before + 1  # one commit, however the table came
    other = again("s")
    assert other.metadata().segments > 3
    assert (other.last_origin("a"), other.last_origin("b"), other.last_origin("c")) == ((38, 76), (39, 78), (-5, 0))
    for origin in (("a",), ("a", "b"), (1, 2), ("a", 1, 2, 3), ("a", 2**63), ("a", True)):
        with pytest.raises(UsageError, match=r"expected an origin \(who, position\)"):
            stream.append({"n": 1}, origin=origin)  # type: ignore[arg-type]


# -- reading


def test_read_ranges_and_columns(hub: Folder, prices: pa.Schema) -> None:
    stream = hub.stream("s", schema=prices, segment_bytes=1500)
    for i in range(0, 60, 3):
        stream.append([{"n": j, "text": str(j)} for j in range(i, i + 3)])
    assert stream.metadata().segments > 3
    for start, stop in [
        (0, 60),
        (None, None),
        (7, 8),
        (10, 50),
        (59, 60),
        (60, 60),
        (60, 99),
        (99, None),
        (5, 3),
        (4, None),
    ]:
        expected = list(range(60))[slice(start, stop)]
        assert stream.read(start, stop)["n"].to_pylist() == expected, (start, stop)
        assert [row["n"] for row in stream.rows(start, stop)] == expected
    assert stream.read("start", "end").num_rows == 60
    assert stream.read("end").num_rows == 0
    assert stream.read(np.int64(58))["n"].to_pylist() == [58, 59]
    table = stream.read(10, 12, columns=["text", "_offset", "_created"])
    assert table.schema.names == ["text", "_offset", "_created"]
    assert table["_offset"].to_pylist() == [10, 11]
    assert table["_created"].type == pa.timestamp("ns", "UTC")
    assert stream.read(columns="n").schema.names == ["n"]
    created = stream.read(columns=["_created"])["_created"].cast(pa.int64()).to_pylist()
    assert created == sorted(created)
    assert all(abs(datetime.now(UTC).timestamp() * 1e9 - moment) < 60e9 for moment in created)


def test_read_by_append_time(hub: Folder, prices: pa.Schema) -> None:
    stream = hub.stream("s", schema=prices, segment_bytes=600)
    for i in range(20):
        stream.append([{"n": 2 * i}, {"n": 2 * i + 1}])
    created = stream.read(columns=["_created"])["_created"].cast(pa.int64()).to_pylist()
    for at in (0, 1, 13, 20, 39):
        moment = np.datetime64(created[at], "ns")
        first = created.index(created[at])
        assert stream.read(moment)["n"].to_pylist() == list(range(first, 40))
        assert stream.read(stop=moment)["n"].to_pylist() == list(range(first))
        after = np.datetime64(created[at] + 1, "ns")
        assert stream.read(after)["n"].to_pylist() == [i for i in range(40) if created[i] > created[at]]
    assert stream.read(datetime.now(UTC) + timedelta(days=1)).num_rows == 0
    assert stream.read("2020-01-01T00:00:00Z").num_rows == 40
    assert stream.read("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z").num_rows == 0
    assert hub.stream("empty").read("2020-01-01T00:00:00Z").num_rows == 0


def test_read_by_event_time_picks_rows(hub: Folder) -> None:
    stream = hub.stream("trades", schema=TRADES, segment_bytes=4000)
    events = np.random.default_rng(1).permutation(200)
    for at in range(0, 200, 5):
        stream.append([trade(ts_event=int(e) * 1_000_000_000, size=int(e)) for e in events[at : at + 5]])
    stream.append(trade(ts_event=77_000_000_000, size=77))
    assert stream.metadata().segments > 2

    def seconds(s: int) -> str:
        return f"1970-01-01T00:{s // 60:02d}:{s % 60:02d}Z"

    found = stream.read(seconds(50), seconds(80))["size"].to_pylist()
    assert found == [int(e) for e in events if 50 <= e < 80] + [77]
    assert stream.read(start=seconds(190)).num_rows == 10
    assert stream.read(stop=seconds(3), columns=["_offset"])["_offset"].to_pylist() == sorted(
        np.flatnonzero(events < 3).tolist()
    )
    assert stream.read(100, seconds(50))["size"].to_pylist() == [int(e) for e in events[100:] if e < 50]
    assert stream.read("1970-01-01T01:00:00Z").num_rows == 0


def test_event_times_pick_whole_appends_for_chunks(hub: Folder) -> None:
    stream = hub.stream("trades", schema=TRADES)
    for second in range(10):
        stream.append([trade(ts_event=second * 10**9 + i) for i in range(3)])
    chunks = list(stream.chunks("1970-01-01T00:00:04.000000001Z", "1970-01-01T00:00:06.000000001Z"))
    assert (chunks[0].first, chunks[-1].stop) == (12, 21)
    assert list(stream.chunks("1970-01-01T01:00:00Z")) == []
    assert list(stream.chunks(stop="1960-01-01T01:00:00Z")) == []


def test_chunks_know_their_rows(hub: Folder, prices: pa.Schema) -> None:
    stream = hub.stream("s", schema=prices)
    for i in range(5):
        stream.append({"n": i})
    stream.append([{"n": 5}, {"n": 6}])
    stream.append(pa.table({"n": range(7, 5007), "text": ["long enough to stand alone"] * 5000}, prices))
    stream.append({"n": 5007})
    chunks = list(stream.chunks(2, 5005))
    assert chunks[0].first == 2
    assert all(left.stop == right.first for left, right in pairwise(chunks))
    assert chunks[-1].stop == 5005
    assert [n for chunk in chunks for n in chunk.batch["n"].to_pylist()] == list(range(2, 5005))
    created = np.concatenate([chunk.created for chunk in chunks])
    assert len(created) == 5003
    assert (np.diff(created) >= 0).all()
    assert len(set(created[5 - 2 : 7 - 2])) == 1
    whole = chunks[0]
    assert len(whole.slice(1, 2)) == 1
    assert whole.slice(1, 2).first == 3


def test_large_rows_are_views_of_the_file(hub: Folder) -> None:
    schema = pa.schema([tensor_field("x", (100_000,), np.float64)])
    stream = hub.stream("s", schema=schema)
    stream.append({"x": np.arange(100_000.0)})
    stream.append({"x": np.zeros(100_000)})
    before = pa.total_allocated_bytes()
    table = stream.read()
    assert pa.total_allocated_bytes() - before < 100_000
    assert tensor_array(table["x"])[0, -1] == 99_999.0


# -- following


def test_tail_begins_at_the_call_and_ends_after_the_timeout(hub: Folder, prices: pa.Schema) -> None:
    stream = hub.stream("s", schema=prices)
    stream.append({"n": 0})
    tail = stream.tail(timeout=0.05)
    stream.append({"n": 1})
    assert [batch["n"].to_pylist() for batch in tail] == [[1]]
    assert [batch.schema.names for batch in stream.tail("start", timeout=0, columns=["_offset"])] == [["_offset"]]
    assert [n for batch in stream.tail(0, timeout=0) for n in batch["n"].to_pylist()] == [0, 1]


def test_tail_wakes_for_another_object(hub: Folder, prices: pa.Schema, again: Callable[..., Stream]) -> None:
    stream = hub.stream("s", schema=prices)
    other = again("s")
    seen: list[int] = []
    half = threading.Event()

    def follow() -> None:
        for batch in other.tail("start"):
            seen.extend(batch["n"].to_pylist())
            if len(seen) >= 500:
                half.set()
            if len(seen) == 1000:
                return

    thread = threading.Thread(target=follow)
    thread.start()
    for i in range(500):
        stream.append({"n": i})
    assert half.wait(PATIENCE_S)
    stream.append([{"n": i} for i in range(500, 1000)])
    thread.join(PATIENCE_S)
    assert seen == list(range(1000))


def test_waiting_for_an_offset(hub: Folder) -> None:
    stream = hub.stream("s")
    stream.append({"a": 1})
    assert stream.wait(0, 0)
    assert not stream.wait(1, 0)
    assert not stream.wait(1, 0.05)
    # Longer than a reader sleeps at a time, and a row that does not suffice comes before.
    timers = [threading.Timer(after, stream.append, args=({"a": 2},)) for after in (0.05, 0.3)]
    for timer in timers:
        timer.start()
    assert stream.wait(2, PATIENCE_S)
    for timer in timers:
        timer.join()


def test_chunks_stop_by_an_event(hub: Folder) -> None:
    stream = hub.stream("s")
    stopping = threading.Event()
    stopping.set()
    stream.append({"a": 1})
    assert list(stream.chunks(follow=True, stopping=stopping)) == []
    follow = stream.chunks(follow=True, stopping=(ended := threading.Event()))
    assert len(next(follow)) == 1
    threading.Timer(0.05, ended.set).start()
    assert list(follow) == []


def test_following_over_segments_seals_and_widening(hub: Folder, prices: pa.Schema) -> None:
    stream = hub.stream("s", schema=prices, segment_bytes=700)
    reader = stream.reader()
    assert reader.poll() is None
    seen: list[int] = []
    for i in range(50):
        stream.append({"n": i, "text": "text"})
        if i % 7 == 3:
            stream.seal()
        if i == 30:
            stream.widen(pa.schema([*prices, ("extra", pa.float64())]))
        while (chunk := reader.poll()) is not None:
            seen += chunk.batch["n"].to_pylist()
            assert chunk.batch.schema.names == ["n", "text", *(["extra"] if i > 30 else [])]
    assert seen == list(range(50))
    assert stream.metadata().segments > 7


def test_a_reader_may_skip(hub: Folder, prices: pa.Schema) -> None:
    stream = hub.stream("s", schema=prices, segment_bytes=900)
    for i in range(40):
        stream.append([{"n": 2 * i}, {"n": 2 * i + 1}])
    reader = stream.reader(0)
    seen = []
    for offset in (0, 1, 5, 5, 3, 37, 38, 77, 79):
        reader.seek(offset)
        chunk = reader.poll_until(reader.offset + 1)
        assert chunk is not None
        seen.append((chunk.first, chunk.batch["n"].to_pylist()))
    assert seen == [(n, [n]) for n in (0, 1, 5, 6, 7, 37, 38, 77, 79)]
    reader.seek(100)
    assert reader.poll() is None
    whole, entries = stream.reader(), 0
    while (found := whole.entries()) is not None:
        entries += len(found)
    assert (entries, whole.offset) == (40, 80)


def test_async_twins(hub: Folder, prices: pa.Schema) -> None:
    stream = hub.stream("s", schema=prices)

    async def main() -> None:
        seen: list[int] = []

        async def follow() -> None:
            async for batch in stream.atail("start", columns=["n"]):
                seen.extend(batch["n"].to_pylist())
                if len(seen) == 30:
                    return

        task = asyncio.create_task(follow())
        assert await stream.aappend({"n": 0}) == range(0, 1)
        await asyncio.gather(*(stream.aappend({"n": i}, origin=("me", i)) for i in range(1, 30)))
        await asyncio.wait_for(task, PATIENCE_S)
        assert sorted(seen) == list(range(30))
        assert (await stream.aread(10, 12)).num_rows == 2
        assert [batch async for batch in stream.atail(timeout=0.01)] == []
        forever: asyncio.Future[Any] = asyncio.ensure_future(anext(stream.atail()))
        await asyncio.sleep(0)
        forever.cancel()
        with pytest.raises(asyncio.CancelledError):
            await forever

    asyncio.run(main())


def test_buffer_is_what_a_group_has_still_to_do(hub: Folder) -> None:
    from penstock.log import Position

    stream = hub.stream("s")
    stream.append([{"i": i} for i in range(10)])
    assert [item.data["i"] for item in stream.buffer()] == list(range(10))
    group = stream.group("default")
    group.commit(Position(6, low=4))
    items = stream.buffer()
    assert [(item.offset, item.processed) for item in items] == [
        (4, True), (5, True), (6, False), (7, False), (8, False), (9, False),
    ]  # fmt: skip
    assert all(item.created.tzinfo is UTC for item in items)
    assert [item.offset for item in stream.buffer(limit=2)] == [4, 5]
    assert stream.buffer(limit=0) == []
    assert len(stream.buffer("other")) == 10
    assert stream.metadata().groups == {"default": 4}
    group.close()


# -- what it is


def test_metadata_and_statistics(hub: Folder) -> None:
    stream = hub.stream("trades", schema=TRADES, attributes={"venue": "XNAS", "level": 2})
    stream.append([trade(), trade()])
    found = stream.metadata()
    assert (found.name, found.kind, found.first_offset, found.next_offset, found.rows) == (
        "trades",
        "stream.table",
        0,
        2,
        2,
    )
    assert found.schema.equals(TRADES)
    assert found.attributes == {"venue": "XNAS", "level": 2}
    assert found.bytes > 500
    assert abs((datetime.now(UTC) - found.created).total_seconds()) < 60
    assert found.as_dict()["schema"]["price"] == "double not null"
    assert found.as_dict()["rows"] == 2
    statistics = stream.statistics()
    assert (statistics.appends, statistics.rows, statistics.next_offset) == (1, 2, 2)
    assert statistics.bytes == found.bytes


def test_attributes_are_shared_and_changed(hub: Folder, again: Callable[..., Stream]) -> None:
    stream, other = hub.stream("s", attributes={"a": 1}), again("s", attributes={"b": [1, None]})
    assert stream.attributes == other.attributes == {"a": 1, "b": [1, None]}
    other.set_attributes({"a": None, "c": {"x": 1}})
    assert stream.attributes == {"b": [1, None], "c": {"x": 1}}
    stream.attributes["mine"] = 1
    assert "mine" not in stream.attributes
    hub.stream("s")
    assert again("s").attributes == {"b": [1, None], "c": {"x": 1}}


def test_widening(hub: Folder, again: Callable[..., Stream]) -> None:
    narrow = pa.schema([pa.field("n", pa.int32(), nullable=False), ("f", pa.float32())])
    stream = hub.stream("s", schema=narrow)
    stale, reading = again("s"), again("s")
    stream.append([{"n": 1, "f": 0.5}])
    follow = reading.reader()
    wide = pa.schema([pa.field("n", pa.int64()), ("f", pa.float64()), ("new", pa.string())])
    stream.widen(wide)
    assert stream.schema.equals(wide)
    stream.append({"n": 2**40, "f": 1e300, "new": "x"})
    assert stale.schema.equals(wide)
    # one that encodes with the old schema until it is told
    stale._encoder = type(stale._encoder)(stale._meta.__class__(**{**_fields(stale._meta), "schema": narrow}))
    assert stale.append({"n": 3, "f": 0.25}) == range(2, 3)
    stale._encoder = type(stale._encoder)(stale._meta.__class__(**{**_fields(stale._meta), "schema": narrow}))
    assert stale.append(iter([{"n": 4, "f": 0.5}, {"n": 5, "f": None}])) == range(3, 5)
    assert stale.append(pa.table({"n": pa.array([6], pa.int32()), "f": pa.array([1.0], pa.float32())})) == range(5, 6)
    rows = [
        {"n": 1, "f": 0.5, "new": None},
        {"n": 2**40, "f": 1e300, "new": "x"},
        {"n": 3, "f": 0.25, "new": None},
        {"n": 4, "f": 0.5, "new": None},
        {"n": 5, "f": None, "new": None},
        {"n": 6, "f": 1.0, "new": None},
    ]
    for reader in (stream, stale, reading, again("s")):
        assert reader.rows() == rows
        assert reader.read(columns=["new", "n"])["new"].to_pylist()[1] == "x"
    seen = [row for chunk in iter(follow.poll, None) for row in chunk.batch.to_pylist()]
    assert seen[0] == {"n": 1, "f": 0.5}
    assert seen[1:] == rows[1:]
    # asked for with a narrower schema, it stays as it is
    assert again("s", schema=narrow).schema.equals(wide)
    with pytest.raises(SchemaMismatch, match=r"for column `f`, got string - in stream 's'"):
        stream.widen(pa.schema([("f", pa.string())]))
    with pytest.raises(SchemaMismatch, match="expected typed columns"):
        hub.stream("s", schema=hub.stream("docs").schema)


def _fields(meta: Any) -> dict[str, Any]:
    return {name: getattr(meta, name) for name in meta.__slots__}


def test_a_widening_between_two_messages_of_one_append_commits_none_twice(hub: Folder) -> None:
    """The description says more than the open segment: what a process killed between the two would leave."""
    narrow = pa.schema([("n", pa.int32())])
    stream = hub.stream("s", schema=narrow, segment_bytes=1500, max_batch_bytes=8)
    stream.append([{"n": i} for i in range(4)])
    other = Folder(hub.path).stream("s")
    meta = other._meta
    type(meta)(**{**_fields(meta), "schema": pa.schema([("n", pa.int64())])}).save(other._folder)
    stream.append(pa.table({"n": pa.array(range(4, 40), pa.int32())}))
    assert [row["n"] for row in other.rows()] == list(range(40))


def test_metadata_of_a_schema_is_kept(hub: Folder, again: Callable[..., Stream]) -> None:
    plain = pa.schema([("when", pa.timestamp("us", "UTC")), ("x", pa.int64())])
    stream = hub.stream("s", schema=plain)
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    stream.append({"when": moment, "x": 1})
    again("s", schema=plain.with_metadata({"penstock.event": "when", "more": "text"}))
    stream.append({"when": moment + timedelta(days=1), "x": 2})
    assert stream.schema.metadata == {b"penstock.event": b"when", b"more": b"text"}
    assert stream.read("2026-01-01T12:00:00Z")["x"].to_pylist() == [2]
    assert stream.read(stop="2026-01-01T12:00:00Z")["x"].to_pylist() == [1]


def test_options_are_the_same_for_all(hub: Folder, prices: pa.Schema, again: Callable[..., Stream]) -> None:
    stream = hub.stream("s", schema=prices)
    stream.append({"n": 0})
    again("s", segment_bytes=600, durability="always")
    stream.seal()  # options are looked at when a segment begins
    for i in range(1, 20):
        stream.append({"n": i, "text": "x" * 50})
    assert stream.metadata().segments > 5
    assert stream._writer().durability == "always"
    assert [row["n"] for row in again("s").rows()] == list(range(20))


@pytest.mark.parametrize("durability", ["group", "always"])
def test_durable_appends(hub: Folder, prices: pa.Schema, durability: str, again: Callable[..., Stream]) -> None:
    stream = hub.stream("s", schema=prices, durability=durability, segment_bytes=2000)
    threads = [
        threading.Thread(target=lambda k=k: [stream.append({"n": 100 * k + i}) for i in range(10)]) for k in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    found = [row["n"] for row in again("s").rows()]
    assert sorted(found) == sorted(100 * k + i for k in range(8) for i in range(10))
    for k in range(8):
        assert [n for n in found if n // 100 == k] == [100 * k + i for i in range(10)]
    stream.sync()
    stream.close()
    stream.sync()


def test_mark_bounds_later_append_times(hub: Folder) -> None:
    stream = hub.stream("s")
    stream.append({"i": 0})
    offset, moment = stream.mark()
    assert offset == 1
    stream.append({"i": 1})
    created = stream.read(columns=["_created"])["_created"].cast(pa.int64()).to_pylist()
    assert created[0] <= moment <= created[1]


# -- refusals


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda s: s.read(-1), OffsetError, r"expected an offset from 0 to 3, got -1 - in start of stream 's'; offsets count"),
        (lambda s: s.read(stop=-5), OffsetError, r"got -5 - in stop of stream 's'; .*stop=stream.next_offset - n"),
        (lambda s: s.read("yesterday"), UsageError, r"expected an offset, \"start\", \"end\", or a time with its zone, got 'y"),
        (lambda s: s.read(datetime(2026, 1, 1)), UsageError, r"a time with its zone, got datetime.datetime"),  # noqa: DTZ001
        (lambda s: s.read(1.5), UsageError, r"got 1.5 - in start"),
        (lambda s: s.read(True), UsageError, r"got True - in start"),
        (lambda s: s.read(columns=["m"]), UsageError, r"a column of n, text, _offset, _created, got 'm' - in stream 's'"),
        (lambda s: s.read(columns=["tex"]), UsageError, r"did you mean 'text'\?"),
        (lambda s: s.tail(columns=["nope"]), UsageError, r"expected a column of n, text"),
        (lambda s: s.read(columns=[]), UsageError, r"expected at least one column, got none"),
        (lambda s: s.append({}), TypeMismatch, r"expected a row with at least one column, got \{\}"),
        (lambda s: s.append({"n": "x"}), TypeMismatch, r"expected int64 for `n`, got string 'x' - at stream 's'\[0\].n"),
        (lambda s: s.append([{"n": 1}, {"n": None}]), TypeMismatch, r"at stream 's'\[1\].n"),
        (lambda s: s.append({"n": 1, "texts": "x"}), SchemaMismatch, r"did you mean 'text'\?"),
        (lambda s: s.append("row"), TypeMismatch, r"expected a dict, dicts, an Arrow batch or table, or a dataframe"),
        (lambda s: s.append(None), TypeMismatch, r"expected a dict, dicts, .* got None"),
        (lambda s: s.append(pa.table({"n": ["x"]})), TypeMismatch, r"expected int64 for `n`, got string"),
        (lambda s: s.append(pa.table({"m": [1]})), SchemaMismatch, r"unknown column 'm'"),
        (lambda s: s.set_attributes({"a": object()}), UsageError, r"expected attributes: a dict of JSON values"),
        (lambda s: s.set_attributes({1: 2}), UsageError, r"expected attributes: a dict of JSON values, got \{1: 2\}"),
        (lambda s: s.change(schema={"n": int}), UsageError, r"expected a pyarrow.Schema, got dict"),
        (lambda s: s.change(schema=pa.schema([])), UsageError, r"expected a schema with columns, got an empty one"),
        (lambda s: s.change(retention={"days": 3}), UsageError, r"expected a retention of age, bytes, until, got days"),
        (lambda s: s.change(retention="3d"), UsageError, r"expected a retention of age, bytes, until"),
        (lambda s: s.change(retention={"bytes": -1}), UsageError, r"expected a number of bytes, at least 0, got -1"),
        (lambda s: s.change(retention={"age": "soon"}), UsageError, r"expected a duration, got 'soon' - in retention age"),
        (lambda s: s.change(retention={"until": 5}), UsageError, r"expected the name of a group, got 5"),
        (lambda s: s.change(durability="maybe"), UsageError, r'expected durability "os", "group" or "always", got .maybe.'),
        (lambda s: s.change(segment_bytes=0), UsageError, r"expected segment_bytes of at least 1, got 0"),
        (lambda s: s.change(segment_byte=9), UsageError, r"expected an option of durability, .* did you mean 'segment_bytes'"),
        (lambda s: s.group(""), UsageError, r"expected a group name: printable text of at most 200 bytes, .* got ''"),
        (lambda s: s.group("g" * 300), UsageError, r"expected a group name"),
    ],
)  # fmt: skip
def test_messages(
    call: Callable[[Stream], Any], error: type[Exception], message: str, hub: Folder, prices: pa.Schema
) -> None:
    stream = hub.stream("s", schema=prices)
    stream.append([{"n": 1}, {"n": 2}, {"n": 3}])
    with pytest.raises(error, match=message):
        call(stream)
    assert stream.read()["n"].to_pylist() == [1, 2, 3]
    assert stream.append({"n": 4}) == range(3, 4)


def test_event_time_columns_must_be_times(hub: Folder) -> None:
    for schema in (
        pa.schema([("ts_event", pa.string())]),
        pa.schema([("ts_event", pa.int32())]),
        pa.schema([("x", pa.int64())]).with_metadata({"penstock.event": "y"}),
    ):
        with pytest.raises(SchemaMismatch, match=r"penstock.event|ts_event"):
            hub.stream("s", schema=schema)
    assert hub.names() == []


def test_documents_then_a_schema(hub: Folder, prices: pa.Schema) -> None:
    hub.stream("s")
    assert hub.stream("s", schema=prices).schema.equals(prices)  # nothing in it yet
    hub.stream("d").append({"a": 1})
    with pytest.raises(
        SchemaMismatch, match=r"expected JSON documents, got a schema with columns n, text - in stream 'd'"
    ):
        hub.stream("d", schema=prices)


def test_rows_that_are_too_large(hub: Folder, prices: pa.Schema) -> None:
    stream = hub.stream("s", schema=prices)
    with pytest.raises(
        RowTooLarge, match=r"expected a row of at most 67108864 bytes, got 1000\d+ bytes - in stream 's'"
    ) as e:
        stream.append({"n": 1, "text": "x" * 100_000_000})
    assert e.value.__dict__["limit"] == 64 << 20
    assert e.value.__dict__["size"] > 100_000_000
    with pytest.raises(RowTooLarge, match=r"split it, or open the stream with max_row_bytes=134217728"):
        stream.append(pa.table({"n": [1], "text": ["x" * 100_000_000]}, prices))
    small = hub.stream("small", schema=prices, max_row_bytes=1000)
    with pytest.raises(RowTooLarge, match=r"at small\[2\]"):
        small.append([{"n": 0}, {"n": 1}, {"n": 2, "text": "y" * 2000}, {"n": 3}])
    assert stream.next_offset == small.next_offset == 0
    small.append([{"n": i, "text": "z" * 300} for i in range(10)])
    assert len(small) == 10
    docs = hub.stream("docs", max_row_bytes=1000)
    with pytest.raises(RowTooLarge, match=r"got 1\d\d\d bytes"):
        docs.append({"a": "x" * 1500})


def test_documents_that_are_none(hub: Folder) -> None:
    stream = hub.stream("s")
    for data, message in (
        ({"a": {1, 2}}, r"sorted\(value\)"),
        ({1: "a"}, "expected string keys"),
        ({"a": np.array([1])}, "tolist"),
        ([{"a": 1}, []], "expected a dict for each row"),
        (5, "expected a dict, dicts"),
    ):
        with pytest.raises(TypeMismatch, match=message):
            stream.append(data)
    assert stream.next_offset == 0


def test_many_threads_append_and_read(hub: Folder, prices: pa.Schema) -> None:
    stream = hub.stream("s", schema=prices, segment_bytes=20_000)
    errors: list[BaseException] = []
    done = threading.Event()

    def produce(k: int) -> None:
        for i in range(200):
            if i % 10:
                stream.append({"n": 1000 * k + i, "text": str(i)})
            else:
                stream.append([{"n": 1000 * k + i, "text": "list"}])

    def consume() -> None:
        try:
            while not done.is_set():
                table = stream.read()
                offsets = stream.read(columns=["_offset"])["_offset"].to_pylist()
                assert offsets == list(range(len(offsets)))
                assert table.num_rows <= len(offsets)
        except BaseException as error:
            errors.append(error)

    readers = [threading.Thread(target=consume) for _ in range(2)]
    writers = [threading.Thread(target=produce, args=(k,)) for k in range(8)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join(PATIENCE_S)
    done.set()
    for thread in readers:
        thread.join(PATIENCE_S)
    assert errors == []
    found = stream.read()["n"].to_pylist()
    for k in range(8):
        assert [n for n in found if n // 1000 == k] == [1000 * k + i for i in range(200)]
