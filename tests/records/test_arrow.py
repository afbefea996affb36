from __future__ import annotations

import collections
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import RecordError, SchemaMismatch, TypeMismatch
from penstock.records import DOCUMENT, TRADES, batch_to_rows, conform, encode_document, rows_to_batch, to_batches

ROWS: list[dict[str, Any]] = [
    {"symbol": "A", "ts_event": i, "ts_recv": None, "price": float(i), "size": i, "side": "B", "sequence": i}
    for i in range(5)
]
BATCH = rows_to_batch(ROWS, TRADES)


def rows_of(batches: list[pa.RecordBatch]) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch_to_rows(batch)]


class Stream:
    """Something with the stream capsule and nothing else."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.data.__arrow_c_stream__(requested_schema)


class Array:
    def __init__(self, data: Any) -> None:
        self.data = data

    def __arrow_c_array__(self, requested_schema: object = None) -> object:
        return self.data.__arrow_c_array__(requested_schema)


TABLE = pa.Table.from_batches([BATCH.slice(0, 2), BATCH.slice(2, 0), BATCH.slice(2)])


@pytest.mark.parametrize(
    "make",
    [
        lambda: ROWS,
        lambda: tuple(ROWS),
        lambda: iter(ROWS),
        lambda: (dict(row) for row in ROWS),
        lambda: collections.deque(ROWS),
        lambda: [collections.OrderedDict(row) for row in ROWS],
        lambda: BATCH,
        lambda: TABLE,
        lambda: TABLE.to_reader(),
        lambda: Stream(TABLE),
        lambda: Array(BATCH),
        lambda: BATCH.to_struct_array(),
    ],
)
def test_each_form(make: Any) -> None:
    batches = to_batches(make(), TRADES, where="trades")
    assert rows_of(batches) == ROWS
    assert all(batch.schema == TRADES and batch.num_rows for batch in batches)
    for batch in batches:
        batch.validate(full=True)


def test_one_dict_is_one_row() -> None:
    assert rows_of(to_batches(ROWS[0], TRADES)) == ROWS[:1]
    assert rows_of(to_batches({"foo": "bar"})) == [{"foo": "bar"}]
    assert rows_of(to_batches(collections.OrderedDict(a=1))) == [{"a": 1}]


def test_a_dict_of_columns_is_one_document() -> None:
    columns = {"a": [1, 2, 3], "b": [4, 5, 6]}
    assert rows_of(to_batches(columns)) == [columns]
    with pytest.raises(TypeMismatch, match=r"expected string for `symbol`, got list \['A'\]"):
        to_batches({name: [value] for name, value in ROWS[0].items()}, TRADES)


def test_dicts_without_schema_are_documents() -> None:
    [batch] = to_batches([{"a": 1}, {"b": {"$x": b"1"}}])
    assert batch.schema.equals(DOCUMENT, check_metadata=True)
    assert batch_to_rows(batch) == [{"a": 1}, {"b": {"$x": b"1"}}]


@pytest.mark.parametrize("schema", [None, TRADES, DOCUMENT])
def test_no_rows(schema: pa.Schema | None) -> None:
    assert to_batches([], schema) == []
    assert to_batches(iter(()), schema) == []
    assert to_batches(BATCH.slice(0, 0), schema) == []
    assert to_batches(TABLE.slice(0, 0), schema) == []
    assert to_batches(TABLE.slice(0, 0).to_reader(), schema) == []


def test_arrow_without_schema_is_kept_as_it_is() -> None:
    batch = pa.record_batch(
        [
            pa.array(["a", "b"]).dictionary_encode(),
            pa.array(["a", "b"], pa.string_view()),
            pa.array([1, 2], pa.uint8()),
        ],
        ["d", "v", "i"],
    ).replace_schema_metadata({"k": "v"})
    for data in (batch, pa.Table.from_batches([batch]), Stream(batch), Array(batch)):
        [found] = to_batches(data)
        assert found.equals(batch)
        assert found.schema.equals(batch.schema, check_metadata=True)
    assert to_batches(batch)[0] is batch


def test_many_rows_come_in_several_batches() -> None:
    batches = to_batches(({"a": i} for i in range(150_000)), pa.schema([("a", pa.int64())]))
    assert [batch.num_rows for batch in batches] == [65536, 65536, 150_000 - 131072]
    assert pa.Table.from_batches(batches).column("a").to_pylist() == list(range(150_000))
    with pytest.raises(TypeMismatch) as caught:
        to_batches(({"a": "x" if i == 70_000 else i} for i in range(80_000)), pa.schema([("a", pa.int64())]), where="s")
    assert caught.value.row == 70_000


async def _async_rows() -> AsyncIterator[dict[str, int]]:
    yield {"a": 1}


class Lazy:
    def collect(self) -> None: ...


@pytest.mark.parametrize(
    "data, message",
    [
        (5, "got int 5 - at s; give rows such as"),
        (None, "got None - at s"),
        ("text", "got string 'text' - at s"),
        (b"{}", r"got bytes b'\{\}' - at s"),
        (object(), "got object"),
        (np.ones(3), r"got numpy array of shape \(3,\) and dtype float64"),
        (pa.array([1]), "got .*Int64Array|got Array|got"),
        (pa.chunked_array([[1]]), "a single column needs a name"),
        (Lazy(), r"collect the lazy frame first: data.collect\(\)"),
        (_async_rows(), "collect the async iterator first"),
        ([[("a", 1)]], r"expected a dict for each row, got list .* - at s\[0\]"),
        ([{"a": 1}, 5], r"expected a dict for each row, got int 5 - at s\[1\]"),
        ([{"a": 1}, None], r"got None - at s\[1\]"),
        ({}, r"expected a row with at least one column, got \{\} - at s\[0\]"),
        ({1}, "expected a dict for each row"),
        ([BATCH], "expected a dict for each row"),
    ],
)
def test_refused_data(data: Any, message: str) -> None:
    with pytest.raises((TypeMismatch, RecordError), match=message):
        to_batches(data, where="s")


def test_errors_of_a_generator_pass() -> None:
    def rows() -> Iterator[dict[str, int]]:
        yield {"a": 1}
        raise LookupError("the user's own")

    with pytest.raises(LookupError, match="the user's own"):
        to_batches(rows())


def test_reader_that_fails() -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield BATCH
        raise ValueError("feed gone")

    with pytest.raises(ValueError, match="feed gone"):
        to_batches(pa.RecordBatchReader.from_batches(TRADES, batches()))


def test_rows_that_are_null_are_no_rows() -> None:
    """A struct array is a batch, unless a whole row is null: its members would pass for values."""
    structs = pa.array([{"a": 1}, None], pa.struct({"a": pa.int64()}))
    for data in (structs, pa.chunked_array([structs]), structs.slice(1)):
        with pytest.raises(TypeMismatch, match=r"cannot be imported as RecordBatch.*give a table, a batch or a frame"):
            to_batches(data)
    assert rows_of(to_batches(structs.slice(0, 1))) == [{"a": 1}]


def test_slices_of_structs_bring_no_neighbours() -> None:
    structs = pa.array([{"a": 1}, {"a": 2}, {"a": 3}], pa.struct({"a": pa.int64()})).slice(0, 1)
    schema = pa.schema([("a", pa.int64())])
    for data in (structs, Array(structs), Stream(pa.chunked_array([structs])), pa.record_batch(structs)):
        for wanted in (None, schema):
            assert rows_of(to_batches(data, wanted)) == [{"a": 1}]
    assert rows_of(to_batches(pa.table(pa.chunked_array([structs])), schema)) == [{"a": 1}]


def test_broken_batches_are_refused() -> None:
    """Arrow reads a message whose offsets point past its text; whoever then asks for the text reads foreign memory."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([("a", pa.string())])) as writer:
        writer.write_batch(pa.record_batch([pa.array(["x", "yz"])], ["a"]))
    message = sink.getvalue().to_pybytes()
    offsets = np.array([0, 1, 3], np.int32)
    assert message.count(offsets.tobytes()) == 1
    bent = message.replace(offsets.tobytes(), np.add(offsets, np.array([0, 0, 10**6])).astype(np.int32).tobytes())
    for data in (pa.ipc.open_stream(bent), pa.ipc.open_stream(bent).read_next_batch()):
        with pytest.raises(TypeMismatch, match=r"got RecordBatch.* - at s; give a table, a batch or a frame"):
            to_batches(data, where="s")


def test_documents_from_arrow_are_checked() -> None:
    good = pa.record_batch([pa.array(['{"a":1}', '{"b":{"$date":"2026-01-01"}}'])], ["document"])
    [batch] = to_batches(good, DOCUMENT)
    assert len(batch_to_rows(batch)) == 2 or batch.schema == DOCUMENT
    for bad in ("[1]", "nope", "{}x"):
        data = pa.record_batch([pa.array(['{"a":1}', bad])], ["document"])
        with pytest.raises(RecordError, match=r"expected a JSON object, got .* - at s\[1\]"):
            to_batches(data, DOCUMENT, where="s")
    with pytest.raises(TypeMismatch, match="got null"):
        to_batches(pa.record_batch([pa.array(["{}", None])], ["document"]), DOCUMENT)
    with pytest.raises(
        SchemaMismatch, match=r"expected documents \(JSON\), got columns symbol, .* - at s; open another stream"
    ):
        to_batches(BATCH, DOCUMENT, where="s")
    own = to_batches([{"a": 1}])[0]
    assert to_batches(own, DOCUMENT)[0] is own
    views = good.cast(pa.schema([("document", pa.string_view())]))
    assert batch_to_rows(to_batches(views, DOCUMENT)[0])[0] == {"a": 1}


# ---- conform ----------------------------------------------------------------------------------------------------


def test_equal_schema_is_the_same_object() -> None:
    assert conform(BATCH, TRADES) is BATCH
    noted = BATCH.replace_schema_metadata({"k": "v"})
    assert conform(noted, TRADES) is noted
    assert to_batches(BATCH, TRADES)[0] is BATCH


def test_order_and_missing_columns() -> None:
    shuffled = BATCH.select(["size", "price", "ts_event", "symbol"])
    found = conform(shuffled, TRADES)
    assert found.schema.equals(TRADES, check_metadata=True)
    assert found.column("side").null_count == 5
    assert found.column("price").equals(BATCH.column("price"))
    # No column was copied.
    assert found.column("price").buffers()[1].address == BATCH.column("price").buffers()[1].address


def test_refused_columns() -> None:
    with pytest.raises(
        SchemaMismatch,
        match=r"expected float64 for `price`, got no such column \(columns: size\) - at s; add the column",
    ):
        conform(BATCH.select(["size"]), TRADES.remove(0).remove(0), where="s")
    wider = BATCH.append_column("venue", pa.array(["X"] * 5))
    with pytest.raises(
        SchemaMismatch, match="got unknown column 'venue' - at s; open the stream with the wider schema"
    ) as caught:
        conform(wider, TRADES, where="s")
    assert caught.value.column == "venue"
    renamed = BATCH.rename_columns(["prize" if name == "price" else name for name in TRADES.names])
    with pytest.raises(SchemaMismatch, match=r"got unknown column 'prize' - at s; did you mean 'price'\?"):
        conform(renamed, TRADES, where="s")
    twice = pa.record_batch([pa.array([1]), pa.array([1])], ["a", "a"])
    for pair in ((twice, TRADES), (BATCH, twice.schema), (twice, pa.schema([("a", pa.int64())]))):
        with pytest.raises(SchemaMismatch, match="`a` more than once"):
            conform(*pair)


def test_refused_nulls_name_the_first_row() -> None:
    column = pa.array([1.0, None, None])
    for schema in (
        pa.schema([pa.field("price", pa.float64(), nullable=False)]),
        pa.schema([pa.field("price", pa.float32(), nullable=False)]),
    ):
        for nullable in (True, False):
            batch = pa.RecordBatch.from_arrays([column], schema=pa.schema([pa.field("price", pa.float64(), nullable)]))
            with pytest.raises(
                TypeMismatch, match=r"for `price`, got null - at s\[8\]\.price; drop such rows"
            ) as caught:
                conform(batch, schema, where="s", first=7)
            assert (caught.value.column, caught.value.row) == ("price", 8)


@settings(max_examples=100, deadline=None)
@given(st.permutations(TRADES.names), st.integers(0, 5), st.sets(st.sampled_from(["ts_recv", "side", "sequence"])))
def test_any_order_and_cut_gives_the_same(names: list[str], cut: int, dropped: set[str]) -> None:
    data = BATCH.select([name for name in names if name not in dropped])
    whole = conform(data, TRADES)
    parts = to_batches(pa.Table.from_batches([data.slice(0, cut), data.slice(cut)]), TRADES)
    assert rows_of(parts) == batch_to_rows(whole)
    assert rows_of([whole]) == [{name: None if name in dropped else row[name] for name in TRADES.names} for row in ROWS]


# ---- frames of others ------------------------------------------------------------------------------------------


def test_polars() -> None:
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame(ROWS, schema_overrides={"ts_recv": pl.Int64}).with_columns(pl.col("side").cast(pl.Categorical))
    assert rows_of(to_batches(frame, TRADES)) == ROWS
    own = to_batches(frame)
    assert own[0].schema.field("symbol").type == pa.string_view()
    assert pa.types.is_dictionary(own[0].schema.field("side").type)
    assert to_batches(frame.clear(), TRADES) == []
    with pytest.raises(TypeMismatch, match=r"data.collect\(\)"):
        to_batches(frame.lazy())
    with pytest.raises(TypeMismatch, match="a single column needs a name"):
        to_batches(frame["price"])
    times = frame.with_columns(pl.from_epoch("ts_event", "us").dt.replace_time_zone("UTC"))
    assert rows_of(to_batches(times, TRADES)) == [{**row, "ts_event": row["ts_event"] * 1000} for row in ROWS]
    struct = pl.DataFrame({"s": [{"a": 1, "b": "x"}], "l": [[1, 2]]})
    assert rows_of(to_batches(struct)) == [{"s": {"a": 1, "b": "x"}, "l": [1, 2]}]


def test_duckdb() -> None:
    duckdb = pytest.importorskip("duckdb")
    relation = duckdb.sql("select 'A' as symbol, 1::bigint as ts_event, 1.5::double as price, 2::int as size")
    [row] = rows_of(to_batches(relation, TRADES))
    assert row == {
        "symbol": "A",
        "ts_event": 1,
        "ts_recv": None,
        "price": 1.5,
        "size": 2,
        "side": None,
        "sequence": None,
    }


def test_document_text_is_what_encode_document_writes() -> None:
    [batch] = to_batches({"a": float("nan")})
    assert batch.column(0)[0].as_py().encode() == encode_document({"a": float("nan")})


def test_text_that_one_batch_cannot_hold_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is 2 GiB of text in a column; here it is two rows."""
    import penstock.records.arrow as module

    def limited(rows: list[Any], schema: pa.Schema, **place: Any) -> pa.RecordBatch:
        if len(rows) > 2 or any(row["a"] == 99 for row in rows):
            raise RecordError(expected="at most 2 GiB of text", got="more", limit=2**31)
        return rows_to_batch(rows, schema, **place)

    monkeypatch.setattr(module, "rows_to_batch", limited)
    schema = pa.schema([("a", pa.int64())])
    rows = [{"a": i} for i in range(7)]
    batches = to_batches(rows, schema)
    assert rows_of(batches) == rows
    assert max(batch.num_rows for batch in batches) == 2
    with pytest.raises(RecordError, match="at most 2 GiB"):
        to_batches([*rows, {"a": 99}], schema)
