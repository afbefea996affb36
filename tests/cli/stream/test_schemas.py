from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.cli.stream.schemas import schema_of
from penstock.errors import SourceError, UsageError
from penstock.log import Stream
from penstock.records import BARS, QUOTES, TRADES

SCHEMA = pa.schema([pa.field("a", pa.float64(), nullable=False), pa.field("b", pa.timestamp("us", "Europe/Berlin"))])


def test_ours_by_name() -> None:
    assert [schema_of(name) for name in ("trades", "quotes", "bars")] == [TRADES, QUOTES, BARS]


def test_from_files(tmp_path: Path) -> None:
    empty = SCHEMA.empty_table()
    pq.write_table(empty, tmp_path / "x.parquet")
    for name, writer in (("x.arrow", pa.ipc.new_file), ("x.arrows", pa.ipc.new_stream)):
        with pa.OSFile(str(tmp_path / name), "wb") as sink, writer(sink, SCHEMA) as file:
            file.write_table(empty)
    for kind in ("double!", "float64 not null", "float64!"):
        (tmp_path / "x.json").write_text(json.dumps({"a": kind, "b": "timestamp[us, tz=Europe/Berlin]"}))
        for name in ("x.json", "x.parquet", "x.arrow", "x.arrows"):
            assert schema_of(str(tmp_path / name)).equals(SCHEMA), name


def test_what_info_prints_is_a_schema_file(call: Callable[..., Any], trades: Stream, place: Path) -> None:
    (place / "columns.json").write_text(call("stream", "info", "trades", "--json").out)
    assert schema_of("columns.json").equals(TRADES)
    assert call("stream", "append", "y", "--schema", "columns.json", stdin=b"").code == 0
    assert (
        call("stream", "info", "y", "--json").json[0]["schema"]
        == call("stream", "info", "trades", "--json").json[0]["schema"]
    )


@pytest.mark.parametrize(
    "name, content, error, said",
    [
        ("nothing", None, UsageError, "expected trades, quotes, bars or a file, got "),
        ("x.json", b"{", SourceError, "expected a JSON object, got "),
        ("x.json", b"[]", SourceError, "expected an object of columns and types"),
        ("x.json", b'{"a": 1}', SourceError, "expected an object of columns and types"),
        ("x.json", b'{"a": "flaot"}', UsageError, "expected a type such as int64, .*, got 'flaot' - for column 'a'"),
        ("x.csv", b"a,b\n", SourceError, "expected a schema as JSON, Arrow or Parquet, got a csv"),
        ("x.bin", b"\x00\x00", SourceError, "got a file of another kind"),
        ("x.parquet", b"PAR1 no more", SourceError, "expected an Arrow or Parquet file"),
        ("x.arrow", b"\xff\xff\xff\xff no more", SourceError, "expected an Arrow or Parquet file"),
    ],
)
def test_what_is_none(tmp_path: Path, name: str, content: bytes | None, error: type[Exception], said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=said):
        schema_of(str(tmp_path / name))
