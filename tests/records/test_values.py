"""What `exact_kinds` says of pyarrow must be so: each such value is stored as it is, or refused aloud."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.records.values import converter, exact_kinds, is_missing

TYPES = [
    pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.float64(),
    pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view(), pa.bool_(),
]  # fmt: skip
BY_KIND: dict[type, st.SearchStrategy[Any]] = {
    int: st.integers() | st.sampled_from([2**7, 2**8, 2**31, 2**53 + 1, 2**63, 2**64, -1]),
    float: st.floats(),
    str: st.text() | st.sampled_from(["\ud800", "\x00"]),
    bytes: st.binary(),
    bool: st.booleans(),
    type(None): st.none(),
}


@pytest.mark.parametrize("type_", TYPES, ids=str)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_pyarrow_keeps_them_or_fails(type_: pa.DataType, data: st.DataObject) -> None:
    kinds = exact_kinds(type_, True)
    assert exact_kinds(type_, False) == kinds - {type(None)}
    values = data.draw(st.lists(st.one_of(*(BY_KIND[kind] for kind in kinds)), max_size=4))
    try:
        stored = pa.array(values, type_)
    except (pa.ArrowException, OverflowError, UnicodeError):
        return
    for value, back in zip(values, stored.to_pylist(), strict=True):
        assert value == back or (value != value and back != back)


@pytest.mark.parametrize(
    "type_",
    [pa.float32(), pa.timestamp("us"), pa.date32(), pa.decimal128(5, 2), pa.list_(pa.int8()), pa.null()],
    ids=str,
)
def test_the_rest_is_looked_at_one_by_one(type_: pa.DataType) -> None:
    assert exact_kinds(type_, True) == frozenset()


def test_no_converter_for_what_rows_cannot_fill() -> None:
    for type_ in (pa.list_(pa.int8()), pa.month_day_nano_interval(), pa.dictionary(pa.int8(), pa.string())):
        assert converter(type_) is None


def test_is_missing() -> None:
    assert is_missing(None)
    assert is_missing(np.datetime64("NaT", "ns"))
    assert is_missing(np.timedelta64("NaT", "ns"))
    for value in (0, "", float("nan"), np.datetime64(0, "ns"), [], False):
        assert not is_missing(value)
