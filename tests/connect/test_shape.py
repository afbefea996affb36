from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.connect import Dataset
from penstock.errors import SourceError
from penstock.records import TRADES

CSV = "Date,Price,Qty\n2024-01-02 09:30:00,101.5,100\n2024-01-02 09:30:01,102,200\n"
ASKED: dict[str, Any] = {
    "schema": TRADES,
    "time": "Date",
    "tz": "America/New_York",
    "rename": {"Price": "price", "Qty": "size"},
    "constants": {"symbol": "ACME"},
}


def file(tmp_path: Path, text: str = CSV) -> Path:
    path = tmp_path / "t.csv"
    path.write_text(text)
    return path


def rows(data: Any, **options: Any) -> list[dict[str, Any]]:
    return [row for batch in Dataset(data, **options) for row in batch.to_pylist()]


def test_a_foreign_csv_as_trades(tmp_path: Path) -> None:
    (batch,) = Dataset(file(tmp_path), **ASKED)
    assert batch.schema == TRADES
    first = batch.to_pylist()[0]
    assert first == {
        "symbol": "ACME",
        "ts_event": 1704205800_000000000,
        "ts_recv": None,
        "price": 101.5,
        "size": 100,
        "side": None,
        "sequence": None,
    }


def test_types_of_text_are_found(tmp_path: Path) -> None:
    text = "i,f,b,s,e,t\n1,1,true,x,,2024-01-02T00:00Z\n2,2.5,False,1,,2024-01-03T00:00Z\n"
    (batch,) = Dataset(file(tmp_path, text), time="t")
    assert [(f.name, str(f.type)) for f in batch.schema] == [
        ("i", "int64"),
        ("f", "double"),
        ("b", "bool"),
        ("s", "string"),
        ("e", "string"),
        ("ts_event", "int64"),
    ]
    assert batch.to_pylist()[1] == {
        "i": 2, "f": 2.5, "b": False, "s": "1", "e": None, "ts_event": 1704240000_000000000,
    }  # fmt: skip


def test_columns_and_renames_without_a_schema(tmp_path: Path) -> None:
    assert rows(file(tmp_path), columns=["Qty"], rename={"Qty": "size"}, constants={"v": 1.5}) == [
        {"size": 100, "v": 1.5},
        {"size": 200, "v": 1.5},
    ]
    found = rows(file(tmp_path), columns=["Qty"], time="Date", tz="UTC")
    assert list(found[0]) == ["Qty", "ts_event"]


def test_padded_cells(tmp_path: Path) -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.float64())])
    assert rows(file(tmp_path, "a, b\n 1 , 2.5\n"), schema=schema) == [{"a": 1, "b": 2.5}]


@pytest.mark.parametrize(
    "text, message",
    [
        ("2024-01-02 09:30:00,N/A,1", "expected float64, got string 'N/A' - at {file}:3, column `Price`; set on_bad="),
        ("2024-01-02 09:30:00,1,1.5", "expected int64, got string '1.5' - at {file}:3, column `Qty`; set on_bad="),
        ("2024-01-02 09:30:00,,", "expected a value, got an empty cell - at {file}:3, column `Price`"),
        (",1,1", "expected a time, got an empty cell - at {file}:3, column `Date`; fill it, or set on_bad="),
        (
            "soon,1,1",
            "expected a time such as 2013-09-01T17:00:00.083Z, got string 'soon' - at {file}:3, column `Date`",
        ),
        ("2024-03-10 02:30,1,1", "expected a local time that exists, got string '2024-03-10 02:30' - at {file}:3"),
        (
            "2024-11-03 01:30,1,1",
            "expected a local time that happens once, got string '2024-11-03 01:30' - at {file}:3",
        ),
        ("2024-01-02,1", "expected 3 cells, got 2 - at {file}:3; set on_bad="),
    ],
)
def test_bad_cells_are_named(tmp_path: Path, text: str, message: str) -> None:
    good, *rest = CSV.splitlines()[1:]
    path = file(tmp_path, "\n".join([CSV.splitlines()[0], good, text, *rest]) + "\n")
    data = Dataset(path, **ASKED)
    seen: list[dict[str, Any]] = []
    with pytest.raises(SourceError) as caught:
        seen.extend(row for batch in data for row in batch.to_pylist())
    assert str(caught.value).startswith(message.format(file=path))
    assert [row["price"] for row in seen] == [101.5]  # what stands before it was handed over

    errors: list[dict[str, Any]] = []
    data = Dataset(path, **ASKED, on_bad="skip", errors=errors.extend)
    assert [row["price"] for batch in data for row in batch.to_pylist()] == [101.5, 102.0]
    assert data.statistics().skipped == 1
    assert [(e["source"], e["row"], e["line"]) for e in errors] == [(str(path), 1, 3)]


def test_text_that_is_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"s\nok\n\xff\xfe\n")
    with pytest.raises(SourceError, match=r"expected text in UTF-8, got string '.*xff.*xfe' - at .*:3, column `s`"):
        rows(path)


def test_zone_is_needed(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match='expected a time with its zone, got string .* set tz="UTC", or the zone'):
        rows(file(tmp_path), time="Date")


def test_missing_columns(tmp_path: Path) -> None:
    path = file(tmp_path)
    with pytest.raises(
        SourceError,
        match="expected a column 'price', got the columns 'Date', 'Price', 'Qty' - in .*; set rename={'Price'",
    ):
        rows(path, **{**ASKED, "rename": {"Qty": "size"}})
    with pytest.raises(SourceError, match="expected a column 'symbol', .*; set rename= or constants={'symbol': ...}"):
        rows(path, **{**ASKED, "constants": {}})
    for options in ({"columns": ["Dat"]}, {"rename": {"Dat": "x"}}, {"time": "Dat"}):
        with pytest.raises(SourceError, match="expected a column 'Dat', got the columns 'Date', 'Price', 'Qty'"):
            rows(path, **options)


def test_names_that_clash(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="two columns would be named 'Qty' - in .*; choose with columns= or rename="):
        rows(file(tmp_path), rename={"Price": "Qty"})
    with pytest.raises(SourceError, match="expected each column once, got 'a' twice - in .*; rename one in the file"):
        rows(file(tmp_path, "a,a\n1,2\n"))


def test_typed_data_that_does_not_fit() -> None:
    table = pa.table({"n": pa.array([1.0, 2.0, 2.5, 4.0])})
    schema = pa.schema([pa.field("n", pa.int64(), nullable=False)])
    with pytest.raises(SourceError, match=r"expected int64, got float 2.5 - at Table row 2, column `n`"):
        rows(table, schema=schema)
    assert rows(table, schema=schema, on_bad="skip") == [{"n": 1}, {"n": 2}, {"n": 4}]
    with pytest.raises(SourceError, match="expected int64, got list .* - at Table row 0, column `n`"):
        rows(pa.table({"n": [[1]]}), schema=schema)
    with pytest.raises(SourceError, match="expected a value, got None - at Table row 1, column `n`"):
        rows(pa.table({"n": [1, None]}), schema=schema)


def test_missing_times_in_typed_data() -> None:
    table = pa.table({"t": pa.array([1, None, 3], pa.timestamp("ns", "UTC"))})
    with pytest.raises(SourceError, match="expected a time, got None - at Table row 1, column `t`"):
        rows(table, time="t")
    assert rows(table, time="t", on_bad="skip") == [{"ts_event": 1}, {"ts_event": 3}]


def test_other_times_of_a_schema(tmp_path: Path) -> None:
    schema = pa.schema(
        [("ts_event", pa.int64()), ("ts_recv", pa.int64()), ("seen", pa.timestamp("ms", "UTC")), ("n", pa.int64())]
    )
    text = "ts_event,ts_recv,seen,n\n2024-01-02T00:00Z,2024-01-02T00:00:01Z,2024-01-02T00:00:02.5Z,1\n5,,,2\n"
    found = rows(file(tmp_path, text), schema=schema)
    base = 1704153600_000000000
    assert [(r["ts_event"], r["ts_recv"]) for r in found] == [(base, base + 10**9), (5, None)]
    assert found[0]["seen"].isoformat() == "2024-01-02T00:00:02.500000+00:00"
    assert found[1]["seen"] is None


def test_event_column_named_by_the_schema(tmp_path: Path) -> None:
    schema = pa.schema(
        [("when", pa.timestamp("us", "UTC")), ("x", pa.float64())], metadata={b"penstock.event": b"when"}
    )
    (batch,) = Dataset(file(tmp_path), schema=schema, time="Date", tz="UTC", rename={"Price": "x"})
    assert batch.schema.equals(schema, check_metadata=True)
    assert batch.column(0)[1].as_py().isoformat() == "2024-01-02T09:30:01+00:00"


@given(
    st.lists(st.one_of(st.integers(-5, 5).map(str), st.sampled_from(["", "x", "1.5"])), max_size=30), st.integers(1, 7)
)
def test_any_cut_gives_the_same_rows(cells: list[str], size: int) -> None:
    """Frames of text cells: the good rows, the bad rows and their numbers do not depend on the batches."""
    schema = pa.schema([pa.field("n", pa.int64(), nullable=False)])
    values = [None if c in ("", "x", "1.5") else int(c) for c in cells]
    table = pa.table({"n": pa.array(values, pa.int64())})
    for whole in (size, 1 << 16):
        errors: list[dict[str, Any]] = []
        data = Dataset(table, schema=schema, batch_rows=whole, on_bad="skip", errors=errors.extend)
        assert [r["n"] for b in data for r in b.to_pylist()] == [v for v in values if v is not None]
        assert [e["row"] for e in errors] == [i for i, v in enumerate(values) if v is None]
