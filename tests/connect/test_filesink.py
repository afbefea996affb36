from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest

import penstock
from penstock.connect import Dataset, FileSink
from penstock.errors import SourceError, UsageError

ROWS = pa.table({"n": [1, 2, 3], "x": [0.5, None, 1.5]})


@pytest.mark.parametrize("format", ["parquet", "arrow", "csv"])
def test_what_goes_in_comes_out(tmp_path: Path, format: str) -> None:
    sink = FileSink(tmp_path / "out" / "deep", format=format)
    assert sink.put(ROWS.slice(0, 2)).name == f"{0:020d}.{format}"
    FileSink(tmp_path / "out" / "deep", format=format).put(ROWS.slice(2))  # numbers go on
    assert pa.Table.from_batches(list(Dataset(tmp_path / "out"))).to_pylist() == ROWS.to_pylist()
    assert sorted(p.suffix for p in sink.folder.iterdir()) == [f".{format}"] * 2


def test_a_window_replaces_its_own_file(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "out")
    with penstock.open(tmp_path / "hub") as hub:
        stream = hub.streams.get("s", schema=ROWS.schema)
        stream.append(ROWS)
        for group in ("a", "b"):  # the second reads the same windows again, as after a crash
            windows = hub.streams.get("s", lazy=True, size=2, blocking=False, group=group)
            windows.apply(lambda window: sink.put(window) and None)
        stream.append(ROWS.slice(0, 1))
        hub.streams.get("s", lazy=True, size=2, blocking=False, group="a").apply(
            lambda window: sink.put(window) and None
        )
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert [row["n"] for batch in Dataset(tmp_path / "out") for row in batch.to_pylist()] == [1, 2, 3, 1]


def test_bad_calls(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected one of 'parquet', 'arrow', 'csv', got 'xls' - in FileSink"):
        FileSink(tmp_path, format="xls")
    with pytest.raises(UsageError, match="expected rows, got a Table of none - in FileSink.put"):
        FileSink(tmp_path).put(ROWS.slice(0, 0))


def test_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match="parquet files cannot be written: .* - in .*file"):
        FileSink(tmp_path / "file")
    sink = FileSink(tmp_path / "gone", format="csv")
    nested = pa.table({"n": [[1]]})
    with pytest.raises(SourceError, match='csv files cannot be written: .*; check the folder, or use format="parquet"'):
        sink.put(nested)
    assert list(sink.folder.iterdir()) == []
    os.rmdir(sink.folder)
    with pytest.raises(SourceError, match="csv files cannot be written: .* - in .*gone"):
        sink.put(ROWS)
