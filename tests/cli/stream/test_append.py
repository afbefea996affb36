from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.hub import Hub
from penstock.log import Stream
from penstock_tests.waiting import PATIENCE_S

Call = Callable[..., Any]
Spawn = Callable[..., subprocess.Popen[bytes]]

ROWS = [{"symbol": "A", "ts_event": i, "price": 1.5 + i, "size": i} for i in range(4)]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
TABLE = pa.Table.from_pylist(ROWS)


def full(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With the columns of TRADES that these rows do not have."""
    return [{**dict.fromkeys(ps.records.TRADES.names), **row} for row in rows]


def wait_for(stream: Stream, rows: int) -> None:
    assert stream.wait(rows - 1, PATIENCE_S), f"{stream!r} has not come to {rows} rows"


# -- JSON


def test_lines_of_json_make_a_hub_and_a_stream_of_documents(call: Call, place: Path) -> None:
    found = call("stream", "append", "x", stdin=b'{"foo": "bar"}\n\n  \n{"foo": [1, null]}')
    assert (found.code, found.out, found.err) == (0, "appended 2 rows to 'x', offsets 0 to 2\n", "")
    with ps.open() as hub:
        assert hub.streams.get("x").rows() == [{"foo": "bar"}, {"foo": [1, None]}]
    assert call("stream", "append", "x", stdin=b'{"a":1}\n', terminal=True).out.startswith("appended 1 row to 'x'")


def test_json_says_what_was_done(call: Call) -> None:
    found = call("stream", "append", "x", "--json", "--on-bad", "skip", stdin=b'{"a":1}\nno\n{"a":2}\n')
    assert found.json == [{"stream": "x", "rows": 2, "first_offset": 0, "next_offset": 2, "skipped": 1}]
    assert call("stream", "append", "x", "--json", stdin=b"").json == [
        {"stream": "x", "rows": 0, "first_offset": None, "next_offset": None, "skipped": 0}
    ]


def test_lines_become_rows_of_a_schema(call: Call, hub: Hub) -> None:
    found = call("stream", "append", "trades", "--schema", "trades", stdin=b"\xef\xbb\xbf" + LINES)
    assert found.code == 0, found.err
    assert hub.streams.get("trades").rows() == full(ROWS)
    assert call("stream", "append", "trades", stdin=LINES).code == 0  # now it knows them itself
    assert len(hub.streams.get("trades")) == 8


def test_times_may_be_text(call: Call, hub: Hub) -> None:
    schema = pa.schema([("ts_event", pa.int64()), ("at", pa.timestamp("ns", "UTC")), ("local", pa.timestamp("us"))])
    stream = hub.streams.get("x", schema=schema)
    text = b'{"ts_event":"2026-11-20T09:30:00.000000001Z","at":"2026-11-20T09:30:00Z","local":"2026-11-20T09:30:00Z"}'
    assert call("stream", "append", "x", stdin=text).code == 0
    table = stream.read()
    assert table["ts_event"][0].as_py() == 1_795_167_000_000_000_001
    assert [table[name].cast(pa.int64())[0].as_py() for name in ("at", "local")] == [
        1_795_167_000_000_000_000,
        1_795_167_000_000_000,
    ]
    found = call("stream", "append", "x", stdin=b'{"ts_event":"today"}')
    assert (found.code, "expected a time with its zone, got 'today' - at line 1 of stdin" in found.err) == (1, True)


def test_what_was_read_as_json_goes_in_again(call: Call, hub: Hub) -> None:
    rows = [{"a": float("inf"), "$b": {"c": [None, True]}}, {"text": "ü\n"}]
    hub.streams.get("x").append(rows)
    assert call("stream", "append", "y", stdin=call("stream", "read", "x", "--json").raw).code == 0
    assert hub.streams.get("y").rows() == rows


@pytest.mark.parametrize(
    "line, said",
    [
        (b'{"a":', "expected a JSON object, got "),
        (b"[1]", "expected a JSON object, got "),
        (b"12", "expected a JSON object, got "),
        (b"{}", "got {}"),
        (b'{"price": "N/A", "symbol": "A", "ts_event": 1, "size": 1}', "for `price`, got string 'N/A'"),
        (b'{"prise": 1, "symbol": "A", "ts_event": 1, "size": 1}', "prise"),
        (b'{"symbol": "A"}', "got "),
    ],
)
def test_a_bad_line_ends_it_naming_the_line_with_the_rows_before_it_in(
    call: Call, hub: Hub, line: bytes, said: str
) -> None:
    data = LINES + b"\n" + line + b"\n" + LINES
    found = call("stream", "append", "trades", "--schema", "trades", stdin=data)
    assert (found.code, found.out) == (1, "")
    assert said in found.err
    assert " - at line 6 of stdin" in found.err
    assert "--on-bad skip leaves such rows out; 4 rows before it are appended\n" in found.err
    assert found.err.count("\n") == 1
    assert hub.streams.get("trades").rows() == full(ROWS)
    found = call("stream", "append", "trades", "--on-bad", "skip", stdin=data)
    assert (found.code, found.out) == (0, "appended 8 rows to 'trades', offsets 4 to 12; 1 left out\n")
    assert found.err.startswith("penstock: warning: left out: expected ")
    assert hub.streams.get("trades").rows() == full(ROWS * 3)


def test_only_the_first_few_that_were_left_out_are_told(call: Call) -> None:
    found = call("stream", "append", "x", "--on-bad", "skip", stdin=b"no\n" * 20)
    assert found.err.count("\n") == 5
    assert "; 20 left out\n" in found.out


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    good=st.lists(st.booleans(), max_size=12),
    cuts=st.lists(st.integers(0, 400), max_size=6),
    skip=st.booleans(),
)
def test_any_cut_of_the_lines_gives_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, good: list[bool], cuts: list[int], skip: bool
) -> None:
    from penstock.cli.stream.intake import Intake, Tally, json_lines
    from penstock.errors import SourceError

    lines = [
        b'{"symbol":"A","ts_event":%d,"price":1.5,"size":%s}' % (i, b"1" if ok else b'"x"') for i, ok in enumerate(good)
    ]
    data = b"\n".join(lines)

    class Cut:
        """A file that gives out what it has in pieces."""

        def __init__(self) -> None:
            edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
            self.pieces = [data[a:b] for a, b in pairwise(edges) if b > a]

        def read1(self, size: int) -> bytes:
            return self.pieces.pop(0) if self.pieces else b""

    with ps.open(tmp_path_factory.mktemp("hub")) as hub:
        stream = hub.streams.get("x", schema=ps.records.TRADES)
        intake = Intake(Tally(stream), "stdin", "line", skip, lambda text: None)
        first_bad = good.index(False) if False in good else len(good)
        if skip or first_bad == len(good):
            json_lines(Cut(), intake, lambda size: None)  # type: ignore[arg-type]
            expected = [i for i, ok in enumerate(good) if ok]
        else:
            with pytest.raises(SourceError) as raised:
                json_lines(Cut(), intake, lambda size: None)  # type: ignore[arg-type]
            assert raised.value.line == first_bad + 1  # type: ignore[attr-defined]
            expected = list(range(first_bad))
        assert stream.read()["ts_event"].to_pylist() == expected
        assert intake.skipped == (good.count(False) if skip else 0)


def test_json_files(call: Call, hub: Hub, place: Path) -> None:
    for name, text in {
        "array.json": b'[{"a": 1},\n {"a": 2}]',
        "object.json": b'{\n "a": {"b": 1}\n}\n',
        "lines.json": b'{"a": 1}\n{"a": 2}\n',
        "lines.ndjson": b'{"a": 1}\n{"a": 2}\n',
        "unknown": b'{"a": 1}\n{"a": 2}\n',
        "array": b'[{"a": 1}, {"a": 2}]',
    }.items():
        (place / name).write_bytes(text)
        found = call("stream", "append", name, name)
        assert found.code == 0, found.err
        expected = [{"a": {"b": 1}}] if name == "object.json" else [{"a": 1}, {"a": 2}]
        assert hub.streams.get(name).rows() == expected
    assert call("stream", "append", "stdin", stdin=b'[{"a": 1}, {"a": 2}]').code == 0
    assert hub.streams.get("stdin").rows() == [{"a": 1}, {"a": 2}]


def test_bad_json_files(call: Call, place: Path) -> None:
    for text, said in (
        (b'[{"a": 1}, 2]', "at item 2 of bad.json"),
        (b"12", "expected a JSON object or an array of them"),
        (b'[{"a": 1}', "expected JSON, got "),
        (b"", "expected JSON, got "),
        (b'{"a": 1}\n{"a"', "at line 2 of bad.json"),
    ):
        (place / "bad.json").write_bytes(text)
        found = call("stream", "append", "x", "bad.json")
        assert (found.code, said in found.err) == (1, True), found.err


# -- tables


@pytest.fixture
def files(place: Path) -> Path:
    pq.write_table(TABLE, place / "rows.parquet")
    with pa.OSFile(str(place / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, TABLE.schema) as file:
        file.write_table(TABLE)
    with pa.OSFile(str(place / "rows.arrows"), "wb") as sink, pa.ipc.new_stream(sink, TABLE.schema) as stream:
        stream.write_table(TABLE)
    lines = ["symbol,ts_event,price,size", *(f"{r['symbol']},{r['ts_event']},{r['price']},{r['size']}" for r in ROWS)]
    (place / "rows.csv").write_text("\n".join(lines) + "\n")
    return place


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow", "rows.arrows", "rows.csv"])
def test_tables_from_files_and_from_stdin(call: Call, hub: Hub, files: Path, name: str) -> None:
    assert call("stream", "append", "own", name).code == 0
    stream = hub.streams.get("own")
    assert not stream.is_document
    assert stream.rows() == ROWS
    assert call("stream", "append", "trades", name, "--schema", "trades").code == 0
    assert hub.streams.get("trades").rows() == full(ROWS)
    if name == "rows.arrow":
        return  # the file format begins at its end
    form = name.partition(".")[2].rstrip("s")
    data = (files / name).read_bytes()
    found = call("stream", "append", "trades", "--format", form, stdin=data)
    assert (found.code, found.out) == (0, "appended 4 rows to 'trades', offsets 4 to 8\n"), found.err
    assert call("stream", "append", "new", "--format", form, stdin=data).code == 0
    assert hub.streams.get("new").rows() == ROWS
    if form != "csv":
        assert call("stream", "append", "new", stdin=data).code == 0  # known by its first bytes


def test_a_table_for_a_stream_of_documents_becomes_documents(call: Call, hub: Hub, files: Path) -> None:
    hub.streams.get("x").append({"a": 1})
    assert call("stream", "append", "x", "rows.parquet").code == 0
    assert hub.streams.get("x").rows() == [{"a": 1}, *ROWS]


@pytest.mark.parametrize("source", ["file", "stdin"])
def test_a_bad_row_of_a_csv_is_named_by_its_line(call: Call, hub: Hub, place: Path, source: str) -> None:
    text = 'symbol,ts_event,price,size\n"A\nB",1,1.5,1\n\nA,2,N/A,1\nA,3,1.5\nA,4,2.5,2\n'
    (place / "rows.csv").write_text(text)
    args = ("trades", "rows.csv") if source == "file" else ("trades", "--format", "csv")
    stdin = text.encode() if source == "stdin" else b""
    place_name = str(place / "rows.csv") if source == "file" else "stdin"
    found = call("stream", "append", *args, "--schema", "trades", stdin=stdin)
    assert found.code == 1
    assert "N/A" in found.err
    assert ("rows.csv:5" if source == "file" else "at line 5 of stdin") in found.err, (found.err, place_name)
    assert "--on-bad skip leaves such rows out; 1 row before it is appended" in found.err
    assert "on_bad" not in found.err
    assert hub.streams.get("trades").read()["ts_event"].to_pylist() == [1]
    found = call("stream", "append", *args, "--on-bad", "skip", "--json", stdin=stdin)
    assert found.code == 0, found.err
    assert [found.json[0][key] for key in ("rows", "skipped")] == [2, 2]
    assert "line 5" in found.err
    assert "line 6" in found.err
    assert hub.streams.get("trades").read()["ts_event"].to_pylist() == [1, 1, 4]


def test_csv_headers_that_do_not_fit(call: Call, hub: Hub) -> None:
    args = ("stream", "append", "trades", "--schema", "trades", "--format", "csv")
    assert "expected a column 'ts_event'" in call(*args, stdin=b"symbol,price,size\nA,1,1\n").err
    assert "expected a line with the column names, got nothing" in call(*args, stdin=b"").err
    assert call(*args, stdin=b" symbol ,ts_event, price,size,other\nA,1,1.5,2,x\n").code == 0
    assert hub.streams.get("trades").rows() == full([{"symbol": "A", "ts_event": 1, "price": 1.5, "size": 2}])


def test_broken_tables(call: Call, place: Path) -> None:
    (place / "x.parquet").write_bytes(b"PAR1 and nothing more")
    for found in (
        call("stream", "append", "x", "x.parquet"),
        call("stream", "append", "x", "--format", "arrow", stdin=b"no arrow at all, but long enough"),
        call("stream", "append", "x", "--format", "parquet", stdin=b"PAR1 and nothing more"),
    ):
        assert found.code == 1
        assert "Traceback" not in found.err
        assert "unexpected" not in found.err
        assert found.err.count("\n") == 1


def test_once_appends_each_row_once(call: Call, hub: Hub, files: Path) -> None:
    for _ in range(3):
        assert call("stream", "append", "x", "rows.parquet", "--once").code == 0
    assert hub.streams.get("x").rows() == ROWS
    assert call("stream", "append", "x", "rows.parquet").code == 0
    assert len(hub.streams.get("x")) == 8
    assert call("stream", "append", "x", "--once").code == 2
    (files / "x.ndjson").write_text("{}")
    assert call("stream", "append", "x", "x.ndjson", "--once").code == 2


def test_files_that_are_not_there_or_not_known(call: Call, files: Path) -> None:
    found = call("stream", "append", "x", "row.csv")
    assert (found.code, "no such file" in found.err, "did you mean 'rows.csv'" in found.err) == (1, True, True)
    found = call("stream", "append", "x", ".")
    assert "expected a file, got a folder" in found.err
    (files / "x.bin").write_bytes(b"\x00\x01")
    found = call("stream", "append", "x", "x.bin")
    assert "the format of the file is not known" in found.err
    assert "give --format, one of ndjson, json, csv, parquet, arrow" in found.err
    assert not (files / "penstock-data").exists()


# -- as they come


def test_rows_are_there_when_their_line_is_ended(spawn: Spawn, hub: Hub) -> None:
    stream = hub.streams.get("x")
    process = spawn("stream", "append", "x")
    assert process.stdin is not None
    for i in range(3):
        process.stdin.write(b'{"i":%d}\n{"half"' % i)
        process.stdin.flush()
        wait_for(stream, 2 * i + 1)
        assert len(stream) == 2 * i + 1
        process.stdin.write(b":1}\n")
        process.stdin.flush()
        wait_for(stream, 2 * i + 2)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (0, b"appended 6 rows to 'x', offsets 0 to 6\n", b"")


def test_csv_rows_and_arrow_batches_are_there_as_they_come(spawn: Spawn, hub: Hub) -> None:
    stream = hub.streams.get("trades", schema=ps.records.TRADES)
    process = spawn("stream", "append", "trades", "--format", "csv")
    assert process.stdin is not None
    process.stdin.write(b"symbol,ts_event,price,size\n")
    for i in range(2):
        process.stdin.write(b"A,%d,1.5,1\n" % i)
        process.stdin.flush()
        wait_for(stream, i + 1)
    assert process.communicate(timeout=PATIENCE_S)[1] == b""
    process = spawn("stream", "append", "trades")
    assert process.stdin is not None
    with pa.ipc.new_stream(process.stdin, TABLE.schema) as writer:
        for i in range(2):
            writer.write_table(TABLE)
            process.stdin.flush()
            wait_for(stream, 2 + 4 * (i + 1))
    assert process.communicate(timeout=PATIENCE_S)[1] == b""
    assert process.returncode == 0


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_says_what_was_appended(spawn: Spawn, hub: Hub, number: int, code: int) -> None:
    stream = hub.streams.get("x")
    process = spawn("stream", "append", "x")
    assert process.stdin is not None
    process.stdin.write(b'{"a":1}\n')
    process.stdin.flush()
    wait_for(stream, 1)
    process.send_signal(number)
    assert process.wait(PATIENCE_S) == code
    assert process.stderr is not None
    assert process.stderr.read() == b"penstock: stopped; appended 1 row to 'x'\n"


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_append_that_was_interrupted_is_counted_if_it_was_committed(hub: Hub, when: str) -> None:
    from penstock.cli.stream.intake import Tally

    stream = hub.streams.get("x")
    target = Tally(stream)
    target.append({"a": 0})

    class Interrupted:
        """The stream, with Ctrl-C before or after its commit."""

        last_origin = stream.last_origin

        def append(self, data: Any, **options: Any) -> range:
            if when == "after":
                stream.append(data, **options)
            raise KeyboardInterrupt

    target.stream = Interrupted()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        target.append({"a": 1})
    for _ in range(2):
        target.settle()
        assert target.rows == len(stream) == (2 if when == "after" else 1)


def test_many_producers_at_once(spawn: Spawn, hub: Hub) -> None:
    stream = hub.streams.get("x")
    processes = [spawn("stream", "append", "x") for _ in range(3)]

    def feed(number: int) -> None:
        data = b"".join(b'{"who":%d,"i":%d}\n' % (number, i) for i in range(500))
        assert processes[number].communicate(data, timeout=PATIENCE_S)[1] == b""

    threads = [threading.Thread(target=feed, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = stream.rows()
    for number in range(3):
        assert [row["i"] for row in rows if row["who"] == number] == list(range(500))
