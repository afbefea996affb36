from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.connect.csvfile import header_of, read_csv
from penstock.errors import SourceError

TEXT = (
    b"\xef\xbb\xbfa, b ,c\n"  # line 1: a byte order mark, padded names
    b"1,2,3\n"
    b"\n"
    b'1,"x\ny",3\n'  # lines 4 and 5 are one row
    b"1,2\n"  # line 6, row 2: short
    b"4,5,6\n"
    b"7,8,9,10\n"  # line 8, row 4: long
    b"7,8,9\n"
    b"oops\n"  # line 10, row 6: the last one
)


def keep(names: object, source: str) -> list[str]:
    return list(names)  # type: ignore[call-overload]


@pytest.mark.parametrize("block", [24, 40, 1 << 20])
def test_rows_keep_their_numbers_and_lines(tmp_path: Path, block: int) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(TEXT)
    rows, cells, bad, stop = [], [], [], 0
    for piece in read_csv(path, keep, block=block):
        assert piece.stop > stop
        stop = piece.stop
        rows += piece.rows.tolist()
        cells += [row["b"] for row in piece.batch.to_pylist()]
        bad += piece.bad
        assert piece.line is not None
        assert [piece.line(row) for row in piece.rows.tolist()] == [
            {0: 2, 1: 4, 3: 7, 5: 9}[row] for row in piece.rows.tolist()
        ]
    assert (rows, stop) == ([0, 1, 3, 5], 7)
    assert cells == [b"2", b"x\ny", b"5", b"8"]
    assert [(b.row, b.line, b.expected, b.got, b.raw) for b in bad] == [
        (2, 6, "3 cells", "2", "1,2"),
        (4, 8, "3 cells", "4", "7,8,9,10"),
        (6, 10, "3 cells", "1", "oops"),
    ]


def test_a_file_of_ragged_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n1\n2\n")
    pieces = list(read_csv(path, keep))
    assert [b.line for piece in pieces for b in piece.bad] == [2, 3]
    assert sum(piece.batch.num_rows for piece in pieces) == 0
    assert pieces[-1].stop == 2


def test_names_given_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"1;2\n3;4\n5\n")
    pieces = list(read_csv(path, lambda names, source: ["y"], delimiter=";", header=["x", "y"]))
    assert [row for piece in pieces for row in piece.batch.to_pylist()] == [{"y": b"2"}, {"y": b"4"}]
    assert [(b.row, b.line) for piece in pieces for b in piece.bad] == [(2, 3)]


def test_compressed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"a\n1\n2\n"))
    assert [piece.batch.to_pylist() for piece in read_csv(path, keep)] == [[{"a": b"1"}, {"a": b"2"}]]


def test_header_only_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n")
    assert sum(piece.batch.num_rows for piece in read_csv(path, keep)) == 0


def test_no_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\n\n")
    with pytest.raises(SourceError, match="expected a line with the column names, got an empty file - in .*a.csv"):
        header_of(path, ",")


def test_a_quote_that_is_not_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b\n1,"2\n' + b"3,4\n" * 20)
    with pytest.raises(SourceError, match=r"a.csv does not read as CSV: .* look for a quote \(\"\) that is not closed"):
        list(read_csv(path, keep, block=32))


@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_characters="\x00\ufeff", codec="utf-8"), max_size=5), min_size=2, max_size=2
        ),
        max_size=12,
    ),
    st.sampled_from([64, 256, 1 << 20]),
)
def test_any_cells_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], block: int) -> None:
    # One cell may not be empty: a row of two empty cells is written as "," and stays a row.
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    path.write_bytes(("x,y\n" + "".join(line + "\n" for line in quoted)).encode())
    found = [piece for piece in read_csv(path, keep, block=block)]
    cells = [[row["x"].decode(), row["y"].decode()] for piece in found for row in piece.batch.to_pylist()]
    assert cells == rows
    numbers = np.concatenate([piece.rows for piece in found]) if found else np.zeros(0)
    assert numbers.tolist() == list(range(len(rows)))
