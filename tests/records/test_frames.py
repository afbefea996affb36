from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.errors import SchemaMismatch, TypeMismatch
from penstock.records import TRADES, batch_to_rows, to_batches

ROWS: list[dict[str, Any]] = [
    {"symbol": "A", "ts_event": i, "ts_recv": None, "price": float(i), "size": i, "side": "B", "sequence": i}
    for i in range(5)
]


def rows_of(batches: list[pa.RecordBatch]) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch_to_rows(batch)]


@pytest.fixture
def pd() -> Any:
    return pytest.importorskip("pandas")


def test_pandas(pd: Any) -> None:
    frame = pd.DataFrame(ROWS)
    frame["ts_recv"] = np.nan
    assert rows_of(to_batches(frame, TRADES)) == ROWS
    [batch] = to_batches(frame)
    assert batch.schema.names == TRADES.names
    assert not batch.schema.metadata
    assert to_batches(frame.iloc[:0], TRADES) == []
    # A filtered frame keeps row numbers as its index; they are no data.
    assert rows_of(to_batches(frame[frame["price"] > 2], TRADES)) == ROWS[3:]
    assert rows_of(to_batches(frame.iloc[::-1], TRADES)) == ROWS[::-1]


def test_pandas_subclass_and_capsule_are_the_same(pd: Any) -> None:
    class Frame(pd.DataFrame):  # type: ignore[misc]
        pass

    assert rows_of(to_batches(Frame({"a": [1]}))) == [{"a": 1}]


def test_pandas_index(pd: Any) -> None:
    named = pd.DataFrame({"price": [1.5, 2.5]}, index=pd.Index(["A", "B"], name="symbol"))
    assert rows_of(to_batches(named)) == [{"symbol": "A", "price": 1.5}, {"symbol": "B", "price": 2.5}]
    numbered = pd.DataFrame({"price": [1.5]}, index=pd.RangeIndex(1, name="n"))
    assert rows_of(to_batches(numbered)) == [{"n": 0, "price": 1.5}]
    levels = pd.DataFrame({"price": [1.5]}, index=pd.MultiIndex.from_tuples([("A", 1)], names=["symbol", "n"]))
    assert rows_of(to_batches(levels)) == [{"symbol": "A", "n": 1, "price": 1.5}]
    times = pd.DataFrame({"price": [1.5]}, index=pd.DatetimeIndex(["2026-01-01"], tz="UTC", name="ts_event"))
    schema = pa.schema([("price", pa.float64()), ("ts_event", pa.int64())])
    assert rows_of(to_batches(times, schema)) == [{"price": 1.5, "ts_event": 1767225600 * 10**9}]
    for unnamed in (times.rename_axis(None), named.rename_axis(None)):
        with pytest.raises(TypeMismatch, match=r"expected a named index, .*frame.index.name = \"ts\", or drop it"):
            to_batches(unnamed, where="s")
    with pytest.raises(TypeMismatch, match="expected a name for each level of the index"):
        to_batches(levels.rename_axis(["symbol", None]), where="s")
    with pytest.raises(TypeMismatch, match="expected a named index"):
        to_batches(levels.rename_axis([None, None]), where="s")


def test_pandas_missing_values(pd: Any) -> None:
    frame = pd.DataFrame(
        {
            "f": [1.5, np.nan],
            "i": [1.0, np.nan],
            "s": ["a", None],
            "b": pd.array([True, None], "boolean"),
            "n": pd.array([1, None], "Int64"),
        }
    )
    frame["t"] = pd.to_datetime(["2026-01-01", None], utc=True)
    schema = pa.schema(
        [
            ("f", pa.float64()),
            ("i", pa.int64()),
            ("s", pa.string()),
            ("b", pa.bool_()),
            ("n", pa.int64()),
            ("t", pa.timestamp("us", "UTC")),
        ]
    )
    first, second = rows_of(to_batches(frame, schema))
    assert first["i"] == 1
    assert np.isnan(second.pop("f"))
    assert set(second.values()) == {None}
    [own] = to_batches(frame)
    assert own.column("f").null_count == 0
    assert own.column("n").to_pylist() == [1, None]


def test_pandas_refused(pd: Any) -> None:
    with pytest.raises(
        SchemaMismatch, match="expected column names that are text, each once, got int 0 - at s; rename the columns"
    ):
        to_batches(pd.DataFrame([[1]]), where="s")
    with pytest.raises(SchemaMismatch, match="`a` more than once"):
        to_batches(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(SchemaMismatch, match="`a` more than once"):
        to_batches(pd.DataFrame({"a": [1]}, index=pd.Index([5], name="a")))
    with pytest.raises(
        TypeMismatch, match=r"expected one type for `a`, got object \(.*\) - at s.a; convert the column of the frame"
    ):
        to_batches(pd.DataFrame({"a": [1, "x"]}), where="s")
    with pytest.raises(TypeMismatch, match="a single column needs a name"):
        to_batches(pd.Series([1, 2], name="a"))


def test_pandas_categories_and_columns_that_are_arrow(pd: Any) -> None:
    frame = pd.DataFrame({"c": pd.Categorical(["a", "b", "a"]), "s": pd.array(["x", None, "y"], "string[pyarrow]")})
    [batch] = to_batches(frame)
    assert pa.types.is_dictionary(batch.schema.field("c").type)
    assert rows_of(to_batches(frame, pa.schema([("c", pa.string()), ("s", pa.string())]))) == [
        {"c": "a", "s": "x"},
        {"c": "b", "s": None},
        {"c": "a", "s": "y"},
    ]


def test_column_names_and_columns_without_a_name(pd: Any) -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    assert rows_of(to_batches(frame, pa.schema([("a", pa.float32())]))) == [{"a": 1.0}, {"a": 2.0}]
    naive = pd.DataFrame({"ts_event": pd.to_datetime(["2026-01-01"])})
    with pytest.raises(TypeMismatch, match="give the column its zone, such as UTC"):
        to_batches(naive, pa.schema([("ts_event", pa.int64())]))
