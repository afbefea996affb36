from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from penstock.records.describe import near, place, type_name, value_text


@pytest.mark.parametrize(
    "type_, name",
    [
        (pa.float64(), "float64"),
        (pa.float32(), "float32"),
        (pa.float16(), "float16"),
        (pa.int8(), "int8"),
        (pa.string(), "string"),
    ],
)
def test_type_name(type_: pa.DataType, name: str) -> None:
    assert type_name(type_) == name


class Loud:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "None"),
        ("N/A", "string 'N/A'"),
        (1.5, "float 1.5"),
        (np.int8(1), "numpy int8 "),
        (np.ones((2, 3)), "numpy array of shape (2, 3) and dtype float64"),
        (Loud(), "Loud"),
        (pytest, "module"),
    ],
)
def test_value_text(value: object, text: str) -> None:
    assert value_text(value).startswith(text)


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, list(range(10**5)), {i: i for i in range(10**5)}, pytest.param(10**5000, id="long"), {"a" * 1000}],
)
def test_value_text_is_short(value: object) -> None:
    assert len(value_text(value)) < 120


def test_place() -> None:
    assert place("trades", 3, "price") == "at trades[3].price"
    assert place("trades", 3, "$.a[2].b") == "at trades[3] $.a[2].b"
    assert place("trades", None) == "at trades"
    assert place("trades", None, "price") == "at trades.price"
    assert place("", 3, "price") == "at rows[3].price"
    assert place("", None, "$.a") == "at $.a"
    assert place("", None) == "at rows"
    assert len(place("s", 1, "$." + "a" * 10**6)) < 130


def test_near() -> None:
    assert near("prize", ["price", "size"]) == "price"
    assert near("zzz", ["price"]) is None
    assert near(5, ["price"]) is None
