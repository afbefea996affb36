from __future__ import annotations

import datetime
import decimal
import io
import json

import numpy as np
import pyarrow as pa
import pytest

from penstock.cli import out
from penstock.records import TRADES, tensor_column, tensor_field


@pytest.mark.parametrize(
    "number, text",
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_949, "99.9 kB"), (99_950, "100 kB"), (999_499, "999 kB"),
     (999_500, "1.0 MB"), (12_345_678, "12.3 MB"), (5e14, "500 TB"), (5e16, "50000 TB")],
)  # fmt: skip
def test_size(number: float, text: str) -> None:
    assert out.size(number) == text


def test_rate_count_and_rows() -> None:
    assert [out.rate(r) for r in (None, 0.0, 0.123, 9.99, 1234567.8)] == ["-", "0/s", "0.12/s", "10/s", "1,234,568/s"]
    assert [out.rows_text(n) for n in (0, 1, 1234)] == ["0 rows", "1 row", "1,234 rows"]
    assert out.count(1234567) == "1,234,567"


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0 s ago"), (59.4, "59 s ago"), (60, "1 min ago"), (7199, "120 min ago"), (7200, "2 h ago"),
     (172_800, "2 d ago"), (-5, "0 s ago")],
)  # fmt: skip
def test_age(seconds: float, text: str) -> None:
    now = 1_800_000_000_000_000_000
    assert out.age(now - round(seconds * 1e9), now) == text
    assert out.age(None, now) == "-"


def test_grid_sets_numbers_to_the_right_and_leaves_no_blanks_behind() -> None:
    assert out.grid(["A", "NUMBER"], [["long name", "1"], ["b", "22"]], right=(1,)) == (
        "A          NUMBER\nlong name       1\nb              22\n"
    )


def row(**values: object) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([values])


def test_json_of_what_json_has_no_form_for() -> None:
    schema = pa.schema(
        [
            pa.field("at", pa.timestamp("ns", "UTC")),
            pa.field("took", pa.duration("ns")),
            pa.field("number", pa.float64()),
            pa.field("price", pa.decimal128(10, 2)),
            pa.field("day", pa.date32()),
            pa.field("raw", pa.binary()),
            tensor_field("image", (2, 2), np.float32),
        ]
    )
    columns = [
        pa.array([1_500_000_000_123_456_789], pa.timestamp("ns", "UTC")),
        pa.array([1500], pa.duration("ns")),
        pa.array([float("nan")]),
        pa.array([decimal.Decimal("1.10")], pa.decimal128(10, 2)),
        pa.array([datetime.date(2026, 11, 20)]),
        pa.array([b"\x00\xff"]),
        tensor_column(np.arange(4, dtype=np.float32).reshape(1, 2, 2)),
    ]
    found = [json.loads(text) for text in out.json_rows(pa.RecordBatch.from_arrays(columns, schema=schema))]
    assert found == [
        {"at": "2017-07-14T02:40:00.123456789Z", "took": 1500, "number": None, "price": "1.10", "day": "2026-11-20",
         "raw": "AP8=", "image": [[0.0, 1.0], [2.0, 3.0]]}
    ]  # fmt: skip


def test_aligned_shows_times_as_text_with_the_digits_they_have() -> None:
    times = [1_378_072_800_000_000_000, 1_378_072_801_500_000_000]
    batch = pa.RecordBatch.from_pydict(
        {
            "symbol": pa.array(["ES", "a long symbol"]),
            "ts_event": pa.array(times),
            "price": pa.array([1640.25, None]),
            "size": pa.array([8, 12345]),
        }
    )
    assert out.Aligned(batch.schema).text(batch) == (
        "symbol         ts_event                    price   size\n"
        "ES             2013-09-01T22:00:00.000Z  1640.25      8\n"
        "a long symbol  2013-09-01T22:00:01.500Z        -  12345\n"
    )


def test_aligned_widths_only_grow_and_the_header_comes_once() -> None:
    shown = out.Aligned(pa.schema([("a", pa.int64())]))
    assert shown.text(row(a=1)) == "a\n1\n"
    assert shown.text(row(a=1000)) == "1000\n"
    assert shown.text(row(a=2)) == "   2\n"


def test_aligned_leaves_out_columns_that_a_terminal_has_no_room_for() -> None:
    batch = row(first="x" * 20, second="y" * 20, third="z" * 20)
    for width, kept in ((200, 3), (64, 3), (63, 2), (42, 2), (41, 1), (5, 1)):
        shown = out.Aligned(batch.schema, width=width)
        lines = shown.text(batch).splitlines()
        assert len(lines[0].split()) == kept
        assert shown.left_out == ["first", "second", "third"][kept:]
    everything = out.Aligned(batch.schema)
    assert len(everything.text(batch).splitlines()[1]) == 64


def test_aligned_cells_stay_on_their_line() -> None:
    batch = row(text="a\nb\x1b[31m" + "x" * 100, many=[1, 2], far=datetime.datetime(9999, 1, 1, tzinfo=datetime.UTC))
    text = out.Aligned(batch.schema).text(batch)
    line = text.splitlines()[1]
    assert line.startswith("a\\nb\\x1b[31m")
    assert "…" in line
    assert "[1,2]" in line
    assert "9999-01-01" in line
    assert len(text.splitlines()) == 2


def test_aligned_of_no_rows_is_a_header() -> None:
    empty = pa.RecordBatch.from_arrays([pa.array([], f.type) for f in TRADES], schema=TRADES)
    assert out.Aligned(TRADES).text(empty).split() == TRADES.names


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_only_where_it_is_welcome(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert out.styled(Terminal())
    assert not out.styled(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not out.styled(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not out.styled(Terminal())
