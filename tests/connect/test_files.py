from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.connect import Dataset
from penstock.connect.files import Files, find_files, format_of
from penstock.errors import SourceError

TABLE = pa.table({"n": [1, 2, 3], "name": ["a", "b", "c"]})


def write(path: Path, table: pa.Table = TABLE) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    else:
        make = pa.ipc.new_file if path.suffix == ".feather" else pa.ipc.new_stream
        with pa.OSFile(str(path), "wb") as file, make(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return path


def rows(data: object, **options: object) -> list[dict[str, object]]:
    return [row for batch in Dataset(data, **options) for row in batch.to_pylist()]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a.parquet", "a.feather", "a.arrow", "a.csv"])
def test_each_format_reads_back(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    assert rows(path) == TABLE.to_pylist()
    assert rows(str(path), batch_rows=1) == TABLE.to_pylist()
    assert Dataset(path).schema.names == ["n", "name"]


def test_formats_without_their_suffix(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.feather", "a.arrow"):
        path = write(tmp_path / name).rename(tmp_path / "data")
        assert rows(path) == TABLE.to_pylist()
    (tmp_path / "data").write_bytes(b"n,name\n1,a\n")
    with pytest.raises(SourceError, match="the format of the file is not known - at .*data; set format= to one of"):
        rows(tmp_path / "data")
    assert rows(tmp_path / "data", format="csv") == [{"n": 1, "name": "a"}]
    assert format_of(tmp_path / "data") is None


def test_a_folder_in_natural_order(tmp_path: Path) -> None:
    for i in (10, 9, 1):
        write(tmp_path / f"part-{i}.parquet", pa.table({"n": [i]}))
    (tmp_path / "more").mkdir()
    write(tmp_path / "more" / "x.parquet", pa.table({"n": [0]}))
    for name in ("_SUCCESS.parquet", ".hidden.parquet", "notes.md"):
        (tmp_path / name).write_text("no data")
    assert [row["n"] for row in rows(tmp_path)] == [0, 1, 9, 10]
    assert [row["n"] for row in rows(str(tmp_path / "part-*.parquet"))] == [1, 9, 10]
    assert [row["n"] for row in rows([tmp_path / "part-9.parquet", tmp_path / "part-1.parquet"])] == [9, 1]
    assert Files(find_files(tmp_path)).total() == 4


def test_a_stream_of_a_hub_is_files_too(tmp_path: Path) -> None:
    import penstock

    with penstock.open(tmp_path / "hub") as hub:
        hub.streams.get("n", schema=TABLE.schema).append(TABLE)
    segments = [p for p in find_files(tmp_path / "hub") if p.suffix == ".arrow"]
    assert [row for path in segments for row in rows(path)] == TABLE.to_pylist()


def test_no_such_file(tmp_path: Path) -> None:
    write(tmp_path / "trades.parquet")
    with pytest.raises(SourceError, match=r"no such file - at .*/trade.parquet; did you mean 'trades.parquet'\?"):
        Dataset(tmp_path / "trade.parquet")
    with pytest.raises(SourceError, match="no such file - at .*zzz; the folder holds 1 other names"):
        Dataset(tmp_path / "zzz")
    with pytest.raises(SourceError, match="no such file - at .*; there is no folder .*/nowhere either"):
        Dataset(tmp_path / "nowhere" / "a.csv")


def test_nothing_in_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected data files, got an empty folder - in "):
        Dataset(tmp_path)
    (tmp_path / "readme.md").write_text("x")
    with pytest.raises(
        SourceError, match="expected data files, got only 'readme.md' - in .*; files are known by .arrow"
    ):
        Dataset(tmp_path)
    (tmp_path / "a.csv").touch()
    with pytest.raises(SourceError, match="expected a data file, got an empty file - at .*a.csv"):
        rows(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.parquet", "a.feather", "a.arrow"])
def test_a_file_cut_short(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-300] if name != "a.arrow" else path.read_bytes()[:-100])
    with pytest.raises(SourceError, match=f"the file does not read as .*: .* - at .*{name}; it may be cut short"):
        rows(path)


def test_files_that_do_not_fit_together(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    write(tmp_path / "b.parquet", pa.table({"n": [4], "nam": ["d"]}))
    with pytest.raises(
        SourceError,
        match="expected the columns of a.parquet, got one without 'name' and one with 'nam' - at .*b.parquet",
    ):
        rows(tmp_path)
    write(tmp_path / "b.parquet", pa.table({"n": ["4"], "name": ["d"]}))
    with pytest.raises(
        SourceError, match="the files do not fit together: expected int64 .* - at .*b.parquet; set schema"
    ):
        rows(tmp_path)
    write(tmp_path / "b.parquet").unlink()
    write(tmp_path / "b.csv")
    with pytest.raises(SourceError, match="expected files of one kind, got CSV files among typed ones"):
        rows(tmp_path)
    assert len(rows(tmp_path, schema=TABLE.schema)) == 6


def test_files_that_widen(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", pa.table({"n": pa.array([1], pa.int32()), "name": ["a"]}))
    write(tmp_path / "b.parquet", pa.table({"name": ["b"], "n": pa.array([2**40])}))
    batches = list(Dataset(tmp_path))
    assert {str(batch.schema.field("n").type) for batch in batches} == {"int64"}
    assert rows(tmp_path) == [{"n": 1, "name": "a"}, {"n": 2**40, "name": "b"}]


def test_csv_folder_takes_its_types_from_the_first(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("n,x\n1,2.5\n")
    (tmp_path / "2.csv").write_text("n,x\n2,\n")
    assert rows(tmp_path) == [{"n": 1, "x": 2.5}, {"n": 2, "x": None}]
    (tmp_path / "3.csv").write_text("n,x\n2.5,1\n")
    with pytest.raises(SourceError, match="expected int64, got string '2.5' - at .*3.csv:2, column `n`"):
        rows(tmp_path)
    (tmp_path / "3.csv").write_text("n,y\n2,1\n")
    with pytest.raises(SourceError, match="got one without 'x' and one with 'y'"):
        rows(tmp_path)
