from __future__ import annotations

import datetime
import io
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

from penstock.hub import Hub
from penstock.log import Stream
from penstock.records import tensor_column, tensor_field
from penstock_tests.waiting import PATIENCE_S

Call = Callable[..., Any]


def loaded(form: str, data: bytes, *, stream: bool = True) -> pa.Table:
    source = pa.BufferReader(data)
    if form == "parquet":
        return pq.read_table(source)
    if form == "arrow":
        return (pa.ipc.open_stream(source) if stream else pa.ipc.open_file(source)).read_all()
    return pcsv.read_csv(io.BytesIO(data))


@pytest.mark.parametrize("form", ["parquet", "arrow", "csv"])
def test_formats_on_stdout_and_in_files(call: Call, trades: Stream, place: Path, form: str) -> None:
    table = trades.read()
    found = call("stream", "read", "trades", "--format", form)
    assert (found.code, found.err) == (0, "")
    again = loaded(form, found.raw)
    assert again.to_pylist() == table.to_pylist()
    if form != "csv":
        assert again.schema.equals(trades.schema)
    found = call("stream", "read", "trades", "-o", f"x.{form}")
    assert (found.code, found.out, found.err) == (0, "", f"penstock: wrote 20 rows to x.{form}\n")
    assert loaded(form, (place / f"x.{form}").read_bytes(), stream=False).to_pylist() == table.to_pylist()
    assert sorted(os.listdir(place)) == ["penstock-data", f"x.{form}"]


def test_arrow_files_of_either_kind_read_by_others(call: Call, trades: Stream, place: Path) -> None:
    import polars

    for name, read in (
        ("x.arrow", polars.read_ipc),
        ("x.arrows", polars.read_ipc_stream),
        ("x.feather", polars.read_ipc),
    ):
        assert call("stream", "read", "trades", "-o", name).code == 0
        assert read(place / name).height == 20


def test_json_is_one_object_per_row(call: Call, trades: Stream, place: Path) -> None:
    rows = trades.rows()
    for args in (["--json"], ["--format", "json"], ["--format", "json", "--json"]):
        assert call("stream", "read", "trades", *args).json == rows
    assert call("stream", "read", "trades", "-o", "x.ndjson").code == 0
    assert call("stream", "append", "again", "x.ndjson", "--schema", "trades").code == 0
    assert call("stream", "read", "again", "--json").json == rows


def test_text_is_the_default_and_documents_are_json_lines(call: Call, hub: Hub, trades: Stream, place: Path) -> None:
    found = call("stream", "read", "trades", "--columns", "symbol,size")
    assert found.out.splitlines()[:3] == ["symbol  size", "A          0", "B          1"]
    assert call("stream", "read", "trades", "--columns", "symbol,size", "-o", "x.txt").code == 0
    assert (place / "x.txt").read_text() == found.out
    hub.streams.get("x").append([{"a": 1}, {"b": [2]}])
    assert call("stream", "read", "x").out == '{"a":1}\n{"b":[2]}\n'
    assert call("stream", "read", "x", "--format", "csv").out == '"document"\n"{""a"":1}"\n"{""b"":[2]}"\n'


@pytest.mark.parametrize(
    "args, sizes",
    [
        (["--start", "18"], [18, 19]),
        (["--stop", "2"], [0, 1]),
        (["--start", "3", "--stop", "5"], [3, 4]),
        (["--start", "2025-11-20T00:53:22Z", "--stop", "2025-11-20T00:53:24Z"], [2, 3]),
        (["--start", "end"], []),
        (["--start", "5", "--stop", "5"], []),
    ],
)
def test_a_part(call: Call, trades: Stream, args: list[str], sizes: list[int]) -> None:
    assert [row["size"] for row in call("stream", "read", "trades", "--json", *args).json] == sizes
    for form in ("table", "csv", "parquet", "arrow"):
        found = call("stream", "read", "trades", "--format", form, *args)
        assert (found.code, found.err) == (0, "")
        if form in ("parquet", "arrow"):
            assert loaded(form, found.raw)["size"].to_pylist() == sizes


def test_columns_that_the_log_makes(call: Call, trades: Stream) -> None:
    (row,) = call("stream", "read", "trades", "--start", "19", "--columns", "_offset,_created,size", "--json").json
    assert (row["_offset"], row["size"]) == (19, 19)
    assert datetime.datetime.fromisoformat(row["_created"][:26] + "+00:00").year >= 2025


def test_csv_of_columns_that_have_no_form_in_it(call: Call, hub: Hub) -> None:
    schema = pa.schema([("many", pa.list_(pa.int64())), ("raw", pa.binary()), tensor_field("image", (2,), np.float32)])
    columns = [pa.array([[1, 2], None]), pa.array([b"\x00", None]), tensor_column(np.ones((2, 2), np.float32))]
    hub.streams.get("x", schema=schema).append(pa.RecordBatch.from_arrays(columns, schema=schema))
    found = call("stream", "read", "x", "--format", "csv")
    assert found.out == '"many","raw","image"\n"[1,2]","AA==","[1.0,1.0]"\n,,"[1.0,1.0]"\n'
    words = pa.table({"word": pa.array(["a", "b", "a"]).dictionary_encode()})
    hub.streams.get("words", schema=words.schema).append(words)
    assert call("stream", "read", "words", "--format", "csv").out == '"word"\n"a"\n"b"\n"a"\n'


@pytest.mark.parametrize(
    "args, said",
    [
        (["--json", "--format", "csv"], "--json and --format csv are two formats; give one"),
        (["-o", "x.xlsx"], "the format of x.xlsx is not known by its name; give --format"),
        (["--format", "xlsx"], "'xlsx' is not one of"),
        (["--columns", "nothing"], "expected a column of symbol, "),
    ],
)
def test_calls_that_cannot_be_meant(call: Call, trades: Stream, args: list[str], said: str) -> None:
    found = call("stream", "read", "trades", *args)
    assert (found.code, found.out, said in found.err) == (2, "", True), found.err


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_bytes_are_not_for_a_terminal(call: Call, trades: Stream, form: str) -> None:
    found = call("stream", "read", "trades", "--format", form, terminal=True)
    assert (found.code, found.out) == (2, "")
    assert f"{form} is not for a terminal; give -o FILE, or send it into a pipe" in found.err


def test_a_file_that_is_there_stays_whole_when_writing_ends_early(
    spawn: Callable[..., subprocess.Popen[bytes]], hub: Hub, place: Path
) -> None:
    hub.streams.get("x").append([{"text": "x" * 200, "i": i} for i in range(200_000)])
    (place / "x.csv").write_text("what was there")
    process = spawn("stream", "read", "x", "-o", "x.csv")
    while not list(place.glob(".x.csv.*.new")):  # until it has begun to write
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) in ((143, b""), (0, b"penstock: wrote 200,000 rows to x.csv\n"))
    if process.returncode:
        assert (place / "x.csv").read_text() == "what was there"
    assert sorted(os.listdir(place)) == ["penstock-data", "x.csv"]


def test_a_damaged_segment_is_said_with_its_place(call: Call, hub: Hub, trades: Stream) -> None:
    trades.close()
    (path,) = (hub.path / "streams" / "trades").glob("*.arrow")
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    found = call("stream", "read", "trades")
    assert (found.code, found.err.count("\n")) == (1, 1)
    assert f"in {path} at byte " in found.err
    assert "penstock stream repair trades" in found.err
