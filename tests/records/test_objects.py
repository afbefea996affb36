"""Python objects that cannot be rows: in frames of polars, in lists."""

from __future__ import annotations

from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from penstock.errors import TypeMismatch
from penstock.records import to_batches


def test_a_polars_column_of_objects_is_not_its_addresses() -> None:
    frame = pl.DataFrame({"n": [1], "thing": pl.Series([object()], dtype=pl.Object)})
    with pytest.raises(TypeMismatch, match=r"expected one type for `thing`, got Object .* - at things\.thing; convert"):
        to_batches(frame, where="things")
    assert to_batches(frame.select("n"))[0].to_pylist() == [{"n": 1}]


@pytest.mark.parametrize(
    "value",
    [pa.record_batch({"a": [1]}), pa.table({"a": [1, 2]}), pd.DataFrame({"a": [1, 2]})],
    ids=lambda v: type(v).__name__,
)
def test_errors_are_one_line(value: Any) -> None:
    """Tables have reprs of many lines."""
    with pytest.raises(TypeMismatch, match=r"expected a dict for each row, got ") as caught:
        to_batches([value])
    assert "\n" not in str(caught.value)
