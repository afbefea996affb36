"""Keys of any type; numbers by first appearance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock import window as W
from penstock.errors import WindowError
from penstock.log.chunk import Chunk
from penstock.records import DOCUMENT, rows_to_batch
from penstock.window.keys import Keys
from penstock.window.pending import Rows


def rows(column: Any, first: int = 0) -> Rows:
    batch = pa.record_batch({"k": column})
    at = np.arange(first, first + batch.num_rows)
    return Rows(batch, at, at)


def documents(*found: dict[str, Any], first: int = 0) -> Rows:
    at = np.arange(first, first + len(found))
    return Rows(rows_to_batch(found, DOCUMENT), at, at)


VALUES = {
    pa.string(): ["b", "a", None, "b", "c"],
    pa.large_string(): ["b", "a", None, "b", "c"],
    pa.string_view(): ["b", "a", None, "b", "c"],
    pa.dictionary(pa.int8(), pa.string()): ["b", "a", None, "b", "c"],
    pa.dictionary(pa.uint16(), pa.large_string()): ["b", "a", None, "b", "c"],
    pa.binary(): [b"b", b"\xff", None, b"b", b""],
    pa.large_binary(): [b"b", b"\xff", None, b"b", b""],
    pa.binary_view(): [b"b", b"\xff", None, b"b", b""],
    pa.binary(2): [b"bb", b"\xff\xff", None, b"bb", b"cc"],
    pa.int64(): [5, -3, None, 5, 2**62],
    pa.uint64(): [5, 0, None, 5, 2**64 - 1],
    pa.int8(): [5, -3, None, 5, 7],
    pa.dictionary(pa.int32(), pa.int64()): [5, -3, None, 5, 7],
}


@pytest.mark.parametrize("type_", VALUES, ids=str)
def test_numbers_by_first_appearance(type_: pa.DataType) -> None:
    values = VALUES[type_]
    keys = Keys("k")
    array = pa.array(values, type_)
    keys.bind(pa.schema([("k", type_)]))
    assert keys.encode(rows(array)).tolist() == [0, 1, 2, 0, 3]
    assert keys.values == [values[0], values[1], None, values[4]]
    cut = Keys("k")
    numbers = [n for i in range(5) for n in cut.encode(rows(array.slice(i, 1), i)).tolist()]
    assert numbers == [0, 1, 2, 0, 3]
    assert cut.values == keys.values
    again = Keys("k")
    again.load(keys.values)
    assert again.encode(rows(array.slice(3))).tolist() == [0, 3]


def test_booleans() -> None:
    keys = Keys("k")
    assert keys.encode(rows(pa.array([True, None, False, True]))).tolist() == [0, 1, 2, 0]
    assert keys.values == [True, None, False]


def test_order_is_that_of_rows_not_of_the_dictionary() -> None:
    array = pa.DictionaryArray.from_arrays(pa.array([2, 0, 2, 1]), pa.array(["a", "b", "c"]))
    keys = Keys("k")
    assert keys.encode(rows(array)).tolist() == [0, 1, 0, 2]
    assert keys.values == ["c", "a", "b"]


def test_a_dictionary_may_hold_a_value_twice_and_null() -> None:
    array = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, None, 3]), pa.array(["a", "a", None, "b"]))
    keys = Keys("k")
    assert keys.encode(rows(array)).tolist() == [0, 0, 1, 1, 2]
    assert keys.values == ["a", None, "b"]


def test_a_wide_dictionary_under_few_rows() -> None:
    words = pa.array([f"w{i}" for i in range(1000)])
    keys = Keys("k")
    array = pa.DictionaryArray.from_arrays(pa.array([999, None, 3, 999]), words)
    assert keys.encode(rows(array)).tolist() == [0, 1, 2, 0]
    assert keys.values == ["w999", None, "w3"]
    assert keys.encode(rows(words.slice(3, 2))).tolist() == [2, 3]


def test_many_keys() -> None:
    count = 70_000
    values = np.random.default_rng(1).permutation(count).astype(np.int64)
    emitter = W.CountWindow(2, by="k")
    batch = pa.record_batch({"k": np.concatenate([values, values[::-1]])})
    windows = emitter.push(Chunk(batch, 0, np.arange(2 * count)))
    assert len(windows) == count
    assert [w.key for w in windows[:3]] == values[::-1][:3].tolist()
    assert list(windows[0].offsets) == [count - 1, count]


def test_documents_by_a_field() -> None:
    keys = Keys("sym")
    keys.bind(DOCUMENT)
    found = documents({"sym": "b", "x": 1}, {"sym": "a"}, {"x": 2}, {"sym": None}, {"sym": "b"})
    assert keys.encode(found).tolist() == [0, 1, 2, 2, 0]
    assert keys.values == ["b", "a", None]


def test_true_and_1_are_different_keys_of_documents() -> None:
    keys = Keys("k")
    found = documents({"k": 1}, {"k": True}, {"k": "1"}, {"k": False}, {"k": 0}, {"k": True})
    assert keys.encode(found).tolist() == [0, 1, 2, 3, 4, 1]
    again = Keys("k")
    again.load(keys.values)
    assert again.encode(found).tolist() == [0, 1, 2, 3, 4, 1]


@pytest.mark.parametrize("value", [1.5, [1], {"a": 1}])
def test_documents_whose_field_is_no_key(value: Any) -> None:
    with pytest.raises(
        WindowError, match=r"expected a string, integer or boolean as key, got .* in field 'k' of document 8"
    ):
        Keys("k").encode(documents({"k": "a"}, {"k": value}, first=7))


def test_documents_that_are_no_objects() -> None:
    batch = pa.record_batch([pa.array(["[1]"])], schema=DOCUMENT)
    with pytest.raises(WindowError, match=r"expected JSON objects, got .* - in field 'k' of documents 4 to 4"):
        Keys("k").encode(Rows(batch, np.array([4]), np.array([4])))


def test_the_document_itself_can_be_the_key() -> None:
    keys = Keys("document")
    assert keys.encode(documents({"a": 1}, {"a": 2}, {"a": 1})).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "type_", [pa.float64(), pa.list_(pa.int64()), pa.timestamp("ns"), pa.dictionary(pa.int8(), pa.float32())]
)
def test_types_that_are_no_keys(type_: pa.DataType) -> None:
    with pytest.raises(
        WindowError, match="expected strings, bytes, integers or booleans as keys, got .* in column 'k'"
    ):
        W.CountWindow(1, by="k").bind(pa.schema([("k", type_)]))


def test_unknown_column() -> None:
    with pytest.raises(
        WindowError, match=r"expected a column 'symbl', got columns symbol - in by; did you mean 'symbol'\?"
    ):
        W.FixedTimeWindow(1, by="symbl", time="append").bind(pa.schema([("symbol", pa.string())]))


@pytest.mark.parametrize("by", ["", 3, ["a"]])
def test_by_is_a_name(by: Any) -> None:
    with pytest.raises(WindowError, match="expected the name of a column for by, got"):
        W.CountWindow(1, by=by)
