from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from penstock.hub import Hub
from penstock.log import Stream
from penstock_tests.waiting import PATIENCE_S

Call = Callable[..., Any]
Spawn = Callable[..., subprocess.Popen[bytes]]


def offsets(call: Call, *args: object) -> list[int]:
    found = call("stream", "tail", "trades", "--json", "--columns", "_offset", *args)
    assert found.code == 0, found.err
    return [row["_offset"] for row in found.json]


@pytest.mark.parametrize(
    "args, expected",
    [
        ([], range(10, 20)),
        (["-n", "3"], range(17, 20)),
        (["-n", "0"], range(0)),
        (["-n", "100"], range(20)),
        (["--start", "start"], range(20)),
        (["--start", "18"], range(18, 20)),
        (["--start", "20"], range(0)),
        (["--start", "1000"], range(0)),
        (["--start", "end", "--no-follow"], range(0)),
        (["--start", "end", "--timeout", "0"], range(0)),
        (["--start", "2025-11-20T00:53:36Z"], range(16, 20)),
        (["--start", "2025-11-20T01:53:36+01:00"], range(16, 20)),
        (["--start", "2025-11-20"], range(20)),
        (["--start", "2025-11-21"], range(0)),
        (["--start", "2025-11-20T00:53:36Z", "--timeout", "0"], range(16, 20)),
        (["-n", "2", "--timeout", "0"], range(18, 20)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_where_it_begins(call: Call, trades: Stream, args: list[str], expected: range) -> None:
    assert offsets(call, *args) == list(expected)


def test_where_it_begins_when_the_oldest_rows_are_gone(call: Call, trades: Stream) -> None:
    trades.seal()
    trades.append([{"symbol": "A", "ts_event": 1, "price": 1.0, "size": 1}] * 3)
    trades.change(retention={"bytes": 0})
    trades.retain()
    assert offsets(call) == [20, 21, 22]
    assert offsets(call, "--start", "start") == [20, 21, 22]
    found = call("stream", "tail", "trades", "--start", "3")
    assert found.code == 1
    assert "expected an offset from 20 on, got 3" in found.err


def test_documents_are_lines_of_json_as_they_were_appended(call: Call, hub: Hub) -> None:
    stream = hub.streams.get("x")
    stream.append([{"foo": "bär", "n": [1, {"deep": None}]}, {"x": float("nan")}])
    assert call("stream", "tail", "x").out == '{"foo":"bär","n":[1,{"deep":null}]}\n{"x":{"$numberDouble":"NaN"}}\n'
    assert call("stream", "tail", "x", "--json").out == call("stream", "tail", "x").out


def test_tables_are_aligned_text(call: Call, trades: Stream) -> None:
    found = call("stream", "tail", "trades", "-n", "2", "--columns", "symbol,ts_event,price,_offset")
    assert found.out == (
        "symbol  ts_event               price  _offset\n"
        "A       2025-11-20T00:53:38Z   104.5       18\n"
        "B       2025-11-20T00:53:39Z  104.75       19\n"
    )


def test_a_terminal_gets_the_columns_it_has_room_for(
    call: Call, trades: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setenv("NO_COLOR", "1")
    found = call("stream", "tail", "trades", "-n", "1", terminal=True)
    assert found.out.split()[:2] == ["symbol", "ts_event"]
    assert "sequence" not in found.out
    assert found.err.startswith("penstock: no room for ")
    assert found.err.endswith("sequence; --columns chooses, --json shows all\n")
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    assert call("stream", "tail", "trades", "-n", "1", terminal=True).out.startswith("\033[1m")


def test_an_unknown_column(call: Call, trades: Stream) -> None:
    found = call("stream", "tail", "trades", "--columns", "prise")
    assert found.code == 2
    assert "did you mean 'price'?" in found.err


def test_following_shows_rows_as_they_come(spawn: Spawn, trades: Stream) -> None:
    process = spawn("stream", "tail", "trades", "-n", "1", "-f", "--json", "--columns", "size")
    assert process.stdout is not None
    assert process.stdout.readline() == b'{"size":19}\n'
    for size in (100, 101):
        trades.append({"symbol": "A", "ts_event": 1, "price": 1.0, "size": size})
        assert process.stdout.readline() == b'{"size":%d}\n' % size


def test_following_ends_when_nothing_comes(call: Call, trades: Stream) -> None:
    found = call("stream", "tail", "trades", "-n", "1", "--timeout", "0.1", "--json", "--columns", "size")
    assert (found.code, found.out) == (0, '{"size":19}\n')


def test_following_from_the_end_and_a_schema_that_widens(spawn: Spawn, hub: Hub, trades: Stream) -> None:
    import pyarrow as pa

    process = spawn("stream", "tail", "trades", "--start", "18", "-f")
    assert process.stdout is not None
    assert [process.stdout.readline().split()[0] for _ in range(3)] == [b"symbol", b"A", b"B"]
    trades.widen(pa.schema([*trades.schema, pa.field("venue", pa.string())]))
    trades.append({"symbol": "C", "ts_event": 1, "price": 1.0, "size": 1, "venue": "X"})
    seen = [process.stdout.readline().split()]
    while seen[-1][0] != b"C":
        seen.append(process.stdout.readline().split())
    hub.streams.drop("trades")
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert b"was dropped" in err


def test_no_follow_with_a_timeout_contradicts_itself(call: Call, trades: Stream) -> None:
    found = call("stream", "tail", "trades", "--no-follow", "--timeout", "1")
    assert found.code == 2
    assert "--timeout ends following; leave out --no-follow" in found.err
