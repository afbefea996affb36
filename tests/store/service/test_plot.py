from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import UsageError
from penstock.store.service.plot import plot

NOON = 1_767_268_800_000_000_000


def test_a_line_from_corner_to_corner() -> None:
    text = plot(NOON + np.arange(8) * 10**9, pa.chunked_array([[float(i) for i in range(8)]]), width=4, height=2)
    assert text == "7 ┤⠀⠀⣠⠞\n0 ┤⣠⠞⠁⠀\n   2026-01-01T12:00:00Z 2026-01-01T12:00:07Z\n"


def test_a_constant_and_a_single_value() -> None:
    for rows in (1, 5):
        text = plot(NOON + np.arange(rows), pa.chunked_array([[2.5] * rows]), width=10, height=3)
        assert text.count("2.5 ┤") == 2
    with pytest.raises(UsageError, match="expected numbers, got no rows with one - in plot"):
        plot(np.zeros(1, np.int64), pa.chunked_array([[float("nan")]]))
    with pytest.raises(UsageError, match="expected a column of numbers, got string - in plot"):
        plot(np.zeros(1, np.int64), pa.chunked_array([["a"]]))


@given(st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=300))
def test_any_numbers(values: list[float | None]) -> None:
    column = pa.chunked_array([pa.array([*values, 1.0], pa.float64())])
    lines = plot(NOON + np.arange(len(column)) * 1000, column, width=20, height=4).splitlines()
    assert len(lines) == 5
    assert {len(line.partition("┤")[2]) for line in lines[:4]} == {20}
