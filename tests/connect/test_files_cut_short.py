"""Files that end before their contents do, and options of CSV files that cannot be."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from penstock.connect import Dataset
from penstock.errors import SourceError, UsageError


@pytest.mark.parametrize("kept", [30, -8], ids=["at its head", "at its end"])
def test_a_compressed_file_that_is_cut_short(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(50_000)))[:kept])
    with pytest.raises(SourceError, match=r"x\.csv\.gz does not unpack: Truncated.* - at .*x\.csv\.gz; it may be cut"):
        list(Dataset(path))


@pytest.mark.parametrize("delimiter", [";;", "", "\n", '"', "é", 5], ids=repr)
def test_a_delimiter_that_is_none(delimiter: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a;b\n1;2\n")
    with pytest.raises(UsageError, match=r"expected one character between cells, got .* - in delimiter; such as"):
        Dataset(path, delimiter=delimiter)
    assert next(iter(Dataset(path, delimiter=";"))).to_pylist() == [{"a": 1, "b": 2}]
