"""`penstock store` on folders, and as the classic session with processes."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import penstock as ps
from penstock.cli.store import where
from penstock_tests.waiting import PATIENCE_S

NOON = 1_767_268_800_000_000_000
Call = Callable[..., Any]
LINES = b"""{"symbol": "AAPL", "ts_event": "2026-01-01T12:00:00Z", "close": 10.5}
{"symbol": "MSFT", "ts_event": 1767268800000000000, "close": 20.5}

{"symbol": "AAPL", "ts_event": "2026-01-01T12:01:00Z", "close": 11.5}
"""


@pytest.fixture(autouse=True)
def nobody_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """What listens on this machine does not matter."""
    monkeypatch.setattr(where, "answers", lambda: False)


@pytest.fixture
def data(call: Call, place: Path) -> Path:
    """A folder with three rows."""
    assert call("store", "write", "historical/minute", "--dir", "data", stdin=LINES).code == 0
    return place / "data"


def test_ls(call: Call, data: Path) -> None:
    assert call("store", "ls", "--dir", "data").out == "historical/minute\n"
    assert call("store", "ls", "historical", "--hub", "data").out == "historical/minute\n"
    found = call("store", "ls", "historical/minute", "--dir", "data", "--json")
    assert found.json == [{"path": "historical/minute/AAPL"}, {"path": "historical/minute/MSFT"}]
    found = call("store", "ls", "historical/minut", "--dir", "data")
    assert (found.code, found.out) == (1, "")
    assert "did you mean 'historical/minute'" in found.err
    found = call("store", "ls", "../x", "--dir", "data")
    assert (found.code, found.err.startswith("penstock: expected a path")) == (2, True)


def test_read(call: Call, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_HUB", "data")
    found = call("store", "read", "historical/minute/AAPL")
    assert found.out.splitlines()[0].split() == ["symbol", "ts_event", "close"]
    assert found.out.splitlines()[1].split() == ["AAPL", "2026-01-01T12:00:00Z", "10.5"]
    assert call("store", "read", "historical/minute/AAPL", "--json", "-n", 1).json == [
        {"symbol": "AAPL", "ts_event": NOON + 60_000_000_000, "close": 11.5}
    ]
    found = call(
        "store", "read", "historical/minute", "--start", "2026-01-01T12:01:00Z", "--columns", "close", "--format", "csv"
    )
    assert found.out == '"close"\n11.5\n'
    assert call("store", "read", "historical/minute", "--end", NOON, "--json").out == ""
    assert call("store", "read", "historical/minute", "-o", "x.parquet").err == "penstock: wrote 3 rows to x.parquet\n"
    assert pq.read_table(data.parent / "x.parquet").num_rows == 3
    assert call("store", "read", "historical/minute", "--json", "--format", "csv").code == 2
    assert call("store", "read", "historical/minute", "--start", "2026").code == 2
    assert call("store", "read", "historical/minute/IBM").code == 1
    assert call("store", "read", "historical/minute", "--format", "arrow", terminal=True).code == 2


def test_corrections_as_of_and_revisions(call: Call, data: Path) -> None:
    (row, *_) = call("store", "read", "historical/minute/AAPL", "--columns", "ts_known", "--json", "--dir", "data").json
    line = b'{"ts_event": "2026-01-01T12:00:00Z", "close": 99.0}'
    assert call("store", "write", "historical/minute/AAPL", "--dir", "data", stdin=line).code == 0
    read = ["store", "read", "historical/minute/AAPL", "--columns", "close", "--json", "--dir", "data"]
    assert [r["close"] for r in call(*read).json] == [99.0, 11.5]
    assert [r["close"] for r in call(*read, "--as-of", row["ts_known"]).json] == [10.5, 11.5]
    assert [r["close"] for r in call(*read, "--revisions").json] == [10.5, 99.0, 11.5]


def test_write_files_and_what_is_no_row(call: Call, place: Path) -> None:
    frame = pa.table({"symbol": ["A"] * 3, "ts_event": NOON + np.arange(3), "close": [1.0, 2.0, 3.0]})
    pq.write_table(frame, place / "a.parquet")
    (place / "a.ndjson").write_bytes(LINES)
    assert call("store", "write", "t", "a.parquet", "--json", "--dir", "data").json == [{"path": "t", "rows": 3}]
    assert call("store", "write", "t", "a.ndjson", "--dir", "data").err == "penstock: wrote 3 rows to t\n"
    found = call("store", "write", "t", "--dir", "data", stdin=b"{}\nnonsense\n")
    assert found.code == 1
    assert "expected a JSON object per line, got" in found.err
    assert "at line 2 of stdin" in found.err
    found = call("store", "write", "t", "--dir", "data", stdin=b'{"symbol": "A", "ts_event": 5, "close": "x"}')
    assert found.code == 1
    assert "expected float64 for `close`, got string 'x'" in found.err
    assert call("store", "write", "t", "--dir", "data", stdin=b"").err == "penstock: wrote 0 rows to t\n"
    assert (
        call(
            "store", "write", "t", "--dir", "data", stdin=b'{"symbol": "A", "ts_event": 6, "close": 1.0, "note": "x"}'
        ).code
        == 0
    )


def test_stats_and_compact(call: Call, data: Path) -> None:
    found = call("store", "stats", "--dir", "data")
    assert re.search(r"^rows +3$", found.out, re.MULTILINE)
    assert call("store", "stats", "2", "--dir", "data", "--json").json[0]["table"]["historical/minute"]["keys"] == {
        "AAPL": 2,
        "MSFT": 1,
    }
    out = call("store", "stats", "2", "--dir", "data").out
    assert re.search(r"^historical/minute +3 +3 +0", out, re.MULTILINE)
    assert re.search(r"^historical/minute/AAPL +2$", out, re.MULTILINE)
    assert (
        call("store", "compact", "--due", "--dir", "data").out
        == "historical/minute: rolled 0 rows, joined 0 files into 0, removed 0\n"
    )
    (facts,) = call("store", "compact", "historical/minute", "--dir", "data", "--json").json
    assert (facts["table"], facts["rolled"]["rows"]) == ("historical/minute", 3)
    assert call("store", "compact", "none", "--dir", "data").code == 1
    assert call("store", "stats", "5", "--dir", "data").code == 2


def test_drop(call: Call, data: Path) -> None:
    found = call("store", "drop", "historical/minute/AAPL", "--dir", "data")
    assert found.code == 2
    assert "key 'historical/minute/AAPL' would be removed for good; give --yes" in found.err
    found = call("store", "drop", "historical/minute/AAPL", "--dir", "data", stdin=b"n\n", terminal=True)
    assert (found.code, found.err.endswith("nothing was dropped\n")) == (1, True)
    found = call("store", "drop", "historical/minute/AAPL", "--dir", "data", stdin=b"y\n", terminal=True)
    assert found.code == 0
    assert call("store", "ls", "historical/minute", "--dir", "data").out == "historical/minute/MSFT\n"
    found = call("store", "drop", "historical/minut", "--dir", "data", "--yes")
    assert (found.code, "did you mean 'historical/minute'" in found.err) == (1, True)
    found = call("store", "drop", "historical/minute", "--dir", "data", "--yes", "--json")
    assert found.json == [{"path": "historical/minute", "keys": 1}]
    assert call("store", "ls", "--dir", "data", "--json").out == ""


def test_import_and_export(call: Call, place: Path) -> None:
    frame = pa.table({"sym": ["A"] * 3 + ["B"] * 2, "when": [1, 2, 3, 1, 2], "close": np.arange(5.0)})
    pq.write_table(frame, place / "a.parquet")
    options = ["--rename", "sym=symbol", "--time", "when", "--unit", "s", "--dir", "data"]
    assert call("store", "import", "daily", "a.parquet", *options, "--partition", "year", "--json").json == [
        {"path": "daily", "rows": 5, "skipped": 0, "resumed_at": 0}
    ]
    assert (
        call("store", "import", "daily", "a.parquet", *options).err == "penstock: wrote 0 rows to daily; 5 were there\n"
    )
    with ps.store.open(place / "data") as store:
        assert store.table("daily").layout.partition == "year"
        assert store.read("daily/B")["ts_event"].to_pylist() == [10**9, 2 * 10**9]
    bare = ["--columns", "when,close", "--time", "when", "--unit", "s", "--dir", "data"]
    found = call("store", "import", "daily/C", "a.parquet", *bare)
    assert found.err == "penstock: wrote 5 rows to daily/C\n"
    found = call("store", "import", "new/D", "a.parquet", *bare)
    assert found.code == 0
    assert call("store", "ls", "new", "--dir", "data").out == "new/D\n"
    found = call("store", "import", "plain", "a.parquet", "--time", "when", "--dir", "data")
    assert found.code == 2
    assert "expected a column symbol, or a path TABLE/KEY, got 'plain'" in found.err
    assert call("store", "import", "daily", "none.parquet", "--dir", "data").code == 1
    assert call("store", "import", "daily", "a.parquet", "--rename", "x", "--dir", "data").code == 2
    for name in ("x.csv", "x.parquet", "x.arrow"):
        assert call("store", "export", "daily", name, "--dir", "data").err == f"penstock: wrote 8 rows to {name}\n"
    assert call("store", "export", "daily/A", "y.csv", "--columns", "close", "--dir", "data", "--json").json == [
        {"path": "daily/A", "file": "y.csv", "rows": 3}
    ]
    assert (place / "y.csv").read_text() == '"close"\n0\n1\n2\n'
    assert call("store", "export", "daily", "x.doc", "--dir", "data").code == 2


def test_which_store(call: Call, data: Path, place: Path) -> None:
    found = call("store", "ls")
    assert found.code == 2
    assert found.err == (
        "penstock: expected a store: --dir, --uri, $PENSTOCK_HUB, or the folder ./penstock-data, got none - here, and no"
        " server answers at grpc://127.0.0.1:8815; penstock store serve --dir DIR starts one\n"
    )
    assert call("--hub", "data", "store", "ls").out == "historical/minute\n"
    assert call("store", "ls", "--dir", "data", "--uri", "grpc://x").code == 2
    assert call("store", "ls", "--dir", "nowhere").code == 1
    assert not (place / "nowhere").exists()
    assert call("store", "repl", "--dir", "nowhere").code == 1
    data.rename(place / "penstock-data")
    assert call("store", "ls").out == "historical/minute\n"
    found = call("store", "repl", stdin=b"stats\nls\n")
    assert found.code == 0
    assert re.search(r"config.root_path +\S+penstock-data", found.out)
    assert call("store", "repl", stdin=b"foo\n").code == 1


def test_shells_complete_paths(shell: Call, data: Path) -> None:
    words = {"COMP_WORDS": "penstock store read --dir data historical/minute/A", "COMP_CWORD": "5"}
    found = shell(**words, _PENSTOCK_COMPLETE="bash_complete")
    assert found.out == "plain,historical/minute/AAPL\n"


def test_serve_refuses_what_cannot_be_meant(call: Call, place: Path) -> None:
    assert call("store", "serve", "--dir", "data", "--tls-key", "k.pem").code == 2
    assert call("store", "serve", "--dir", "data", "--memory", "much").code == 2
    assert call("store", "serve", "--dir", "data", "--bind", "0.0.0.0").code == 2
    found = call("store", "serve", "--dir", "data", "--bind", "192.0.2.1", "--tokens", "none.json")
    assert found.code == 1
    assert "warning: there is no key in none.json: nobody can connect" in found.err


@pytest.mark.slow
def test_the_classic_session(
    spawn: Callable[..., subprocess.Popen[bytes]], shell: Call, place: Path, need: Callable[[object, str], None]
) -> None:
    """serve, feed, collect; then ls, stats, read and the prompt, on the server that is found by itself."""
    with socket.socket() as probe:
        need(probe.connect_ex(("127.0.0.1", 8815)) != 0, "port 8815 to be free on this machine")
    server = spawn("store", "serve", "--dir", "data", "--memory", "1g")
    assert server.stderr is not None
    assert server.stderr.readline().startswith(b"penstock: store at grpc://127.0.0.1:8815: ")
    feed = spawn("feed", "fake", "--symbols", "AAPL,MSFT", "--delay", "0.05", "--port", "0", "--seed", "7")
    assert feed.stderr is not None
    found = re.search(rb"ws://[\d.]+:\d+", feed.stderr.readline())
    assert found is not None
    collected = shell("collect", "--uri", found[0].decode(), "--count", "40", "--hub", "data")
    assert collected.code == 0, collected.err
    assert shell("store", "ls", "historical/minute").out == "historical/minute/AAPL\nhistorical/minute/MSFT\n"
    assert shell("store", "read", "historical/minute/AAPL", "--json", "-n", "1").json[0]["symbol"] == "AAPL"
    session = shell("store", "repl", stdin=b"head historical/minute/AAPL 3\nstats\n")
    assert session.code == 0, session.err
    numbers = dict(re.findall(r"^(\S+) +(\S+)\s*$", session.out, re.MULTILINE))
    assert int(numbers["memory.used"]) > 0
    assert int(numbers["memory.used"]) + int(numbers["memory.free"]) == int(numbers["memory.max"]) == 1 << 30
    assert numbers["config.root_path"] == str(place / "data")
    assert json.loads(shell("store", "stats", "--json").out)["memory"]["max"] == 1 << 30
    assert shell("store", "compact").code == 0
    assert shell("store", "export", "historical/minute", "m.parquet").code == 0
    assert shell("store", "import", "copy", "m.parquet").code == 0
    server.terminate()
    assert server.wait(PATIENCE_S) == 143
