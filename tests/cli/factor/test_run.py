from __future__ import annotations

import io
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

from penstock import factor as f
from penstock.cli.factor import run as module
from penstock.cli.factor.data import Rows
from penstock.errors import FactorError
from penstock.hub import Hub
from penstock.records import BARS
from penstock_tests.waiting import PATIENCE_S, until

Call = Callable[..., Any]
START = 1_704_205_800_000_000_000
MINE = {"reversal": "-rank(ts_delta(close, 5))", "trend": "close / mean(close, 10) - 1"}


def same(a: pa.Table, b: pa.Table) -> bool:
    """Equal to the bit, NaN included."""
    return a.column_names == b.column_names and all(
        (np.array(a[n]).view("u8") == np.array(b[n]).view("u8")).all()
        if pa.types.is_floating(a[n].type)
        else a[n] == b[n]
        for n in a.column_names
    )


@pytest.mark.parametrize("file", ["bars.csv", "bars.parquet", "bars.arrow"])
def test_files_in_and_out(call: Call, bars: pa.Table, mine: Path, place: Path, file: str) -> None:
    want = f.compile(MINE).batch(bars)
    found = call("factor", "run", "mine.py", "--data", file, "-o", "x.parquet")
    assert (found.code, found.out, found.err) == (0, "", "penstock: wrote 120 rows to x.parquet\n")
    assert same(pq.read_table(place / "x.parquet"), want)
    found = call("factor", "run", "mine.py", "--data", file, "--format", "arrow")
    assert same(pa.ipc.open_stream(io.BytesIO(found.raw)).read_all(), want)
    rows = call("factor", "run", "mine.py", "--data", file, "--json").json
    assert [row["trend"] for row in rows] == [x if x == x else None for x in want["trend"].to_pylist()]
    found = call("factor", "run", "mine.py", "--data", file, "-n", 3)
    assert found.out.splitlines()[0].split() == ["symbol", "ts_event", "reversal", "trend"]
    assert [line.split()[:2] for line in found.out.splitlines()[1:]] == [
        [name, "2024-01-02T15:09:00Z"] for name in ("AAPL", "IBM", "MSFT")
    ]
    assert call("factor", "run", "mine.py", "--data", file, "-o", "x.csv").code == 0
    assert pcsv.read_csv(place / "x.csv").num_rows == 120


def test_streams_in_and_out(call: Call, hub: Hub, bars: pa.Table, mine: Path) -> None:
    hub.streams.get("bars", schema=bars.schema).append(bars)
    want = f.compile(MINE, dtype="float32").batch(bars)
    found = call("factor", "run", "mine.py", "--stream", "bars", "--into", "out", "--dtype", "float32", "--threads", 2)
    assert (found.code, found.out, found.err) == (0, "appended 120 rows to 'out', offsets 0 to 120\n", "")
    made = hub.streams.get("out").read()
    assert made.schema.field("trend").type == pa.float32()
    assert made["trend"].to_pylist()[30:] == want["trend"].to_pylist()[30:]
    found = call("factor", "run", "mine.py", "--stream", "bars", "--into", "out", "--dtype", "float32")
    assert (found.code, found.out) == (2, "")
    assert "stream 'out' has rows already; --append adds to them; or another name" in found.err
    args = ["--into", "out", "--dtype", "float32", "--append", "--json", "--start", 60]
    assert call("factor", "run", "mine.py", "--stream", "bars", *args).json == [
        {"stream": "out", "rows": 60, "first_offset": 120, "next_offset": 180}
    ]
    assert hub.streams.get("out").next_offset == 180


def test_the_last_revision_counts(call: Call, hub: Hub) -> None:
    stream = hub.streams.get("bars", schema=pa.schema([("symbol", pa.string()), ("ts_event", pa.int64()), ("close", pa.float64()), ("revision", pa.int32())]))  # fmt: skip
    for symbol, tick, close, revision in [("A", 0, 1.0, 0), ("B", 0, 2.0, 0), ("A", 1, 3.0, 0), ("A", 0, 9.0, 1), ("A", 0, 5.0, 2)]:  # fmt: skip
        stream.append({"symbol": symbol, "ts_event": START + tick, "close": close, "revision": revision})
    found = call("factor", "run", "-e", "x = close", "--stream", "bars", "--json")
    assert [(row["symbol"], row["ts_event"] - START, row["x"]) for row in found.json] == [("B", 0, 2), ("A", 1, 3), ("A", 0, 5)]  # fmt: skip
    assert found.err == "penstock: 2 rows are left out: later revisions of them are there\n"
    found = call("factor", "run", "-e", "x = revision + 1", "--stream", "bars", "--stop", 3, "--json")
    assert [row["x"] for row in found.json] == [1, 1, 1]


def test_columns_of_other_names(call: Call, place: Path) -> None:
    (place / "daily.csv").write_text(
        "Date,Ticker,Close\n2024-01-02,A,1\n2024-01-02,B,2\n2024-01-03,A,3\n2024-01-03,B,\n"
    )
    given = ["--data", "daily.csv", "--symbol-column", "Ticker", "--time-column", "Date", "--rename", "Close=close"]
    found = call("factor", "run", "-e", "x = ts_delta(close, 1)", *given, "--json")
    assert found.json == [
        {"Ticker": "A", "Date": "2024-01-02", "x": None},
        {"Ticker": "B", "Date": "2024-01-02", "x": None},
        {"Ticker": "A", "Date": "2024-01-03", "x": 2},
        {"Ticker": "B", "Date": "2024-01-03", "x": None},
    ]


def test_several_files(call: Call, bars: pa.Table, place: Path) -> None:
    (place / "parts").mkdir()
    pcsv.write_csv(bars.slice(0, 50), place / "parts" / "a.csv")
    pcsv.write_csv(bars.slice(50), place / "parts" / "b.csv")
    want = call("factor", "run", "alpha101:alpha012", "--data", "bars.csv", "--json").out
    assert call("factor", "run", "alpha101:alpha012", "--data", "parts", "--json").out == want
    assert call("factor", "run", "alpha101:alpha012", "--data", "parts/*.csv", "--json").out == want


@pytest.mark.parametrize("shuffled", [False, True])
def test_stretches_give_the_same_bits(bars: pa.Table, monkeypatch: pytest.MonkeyPatch, shuffled: bool) -> None:
    if shuffled:
        bars = bars.take(np.random.default_rng(1).permutation(bars.num_rows))
    program = f.compile({**MINE, "e": "ts_ema(close, 7)", "g": "indneutralize(close, symbol_group)"})
    bars = bars.append_column("symbol_group", pa.array(["x" if s < "K" else "y" for s in bars["symbol"].to_pylist()]))
    want = program.batch(bars)
    rows = Rows("x", None, None, None, "symbol", "ts_event", (), None)
    for cells in (1, 100, 500):
        monkeypatch.setattr(module, "CELLS", cells)
        assert same(module.computed(program, bars, rows, None), want)
    twice = pa.concat_tables([bars, bars.slice(7, 1)])
    with pytest.raises(FactorError, match="counted from row"):
        module.computed(program, twice, rows, None)


def test_no_rows(call: Call, bars: pa.Table, place: Path) -> None:
    pq.write_table(bars.slice(0, 0), place / "none.parquet")
    found = call("factor", "run", "-e", "x = rank(close)", "--data", "none.parquet")
    assert (found.code, found.err) == (1, "penstock: expected rows, got a file without any - at none.parquet\n")
    pcsv.write_csv(bars.slice(0, 0), place / "none.csv")
    found = call("factor", "run", "-e", "x = rank(close)", "--data", "none.csv")
    assert (found.code, found.err) == (1, "penstock: expected rows, got a file without any - at none.csv\n")


@pytest.mark.parametrize(
    "args, code, message",
    [
        ([], 2, "no rows are given; --data FILE or --stream NAME"),
        (["--data", "bars.csv", "--stream", "bars"], 2, "--data and --stream are two sources; give one"),
        (["--data", "bars.csv", "--start", "0"], 2, "--start and --stop are for a --stream"),
        (["--data", "bars.csv", "--json", "--format", "csv"], 2, "--json and --format csv are two formats"),
        (["--data", "bars.csv", "--into", "x", "-o", "y.csv"], 2, "--into takes no file and no format"),
        (["--data", "bars.csv", "--append"], 2, "--append is for --into"),
        (["--data", "bars.csv", "-o", "y.xyz"], 2, "the format of y.xyz is not known by its name; give --format"),
        (["--data", "bars.csv", "--rename", "x"], 2, "expected OLD=NEW, got 'x' - in --rename"),
        (["--data", "bars.csv", "--threads", "0"], 2, "invalid value for '--threads'"),
        (["--data", "bar.csv"], 1, "no such file - at bar.csv; did you mean 'bars.csv'"),
        (["--data", "bars.csv", "--time-column", "time"], 1, "column 'time' is missing - in bars.csv with 'symbol', 'ts_event'"),
        (["--data", "bars.csv", "--rename", "Close=close"], 1, "column 'Close' is missing - in bars.csv with 'symbol', 'ts_event', 'open', 'close', 'volume'; --rename close=close reads another column"),
        (["--stream", "bras"], 1, "did you mean"),
        (["--stream", "words"], 1, "expected a stream with columns, got documents - in stream 'words'"),
        (["--data", "ragged.csv"], 1, "the file does not read as csv: CSV parse error"),
        (["--data", "text.csv"], 1, "expected numbers for 'close', got string"),
        (["--data", "empty.csv"], 1, "empty file"),
        (["--data", "cut.parquet"], 1, "does not read as parquet"),
        (["--data", "twice.csv"], 1, "there are two rows of 'A'"),
    ],
    ids=range(19),
)  # fmt: skip
def test_bad_calls(call: Call, hub: Hub, bars: pa.Table, place: Path, args: list[str], code: int, message: str) -> None:
    hub.streams.get("bars", schema=bars.schema).append(bars)
    hub.streams.get("words").append({"word": "x"})
    (place / "ragged.csv").write_text("symbol,ts_event,close\nA,1,2\nB,3\n")
    (place / "text.csv").write_text("symbol,ts_event,close\nA,1,much\n")
    (place / "twice.csv").write_text("symbol,ts_event,close\nA,1,2\nA,1,2\n")
    (place / "empty.csv").write_text("")
    (place / "cut.parquet").write_bytes((place / "bars.parquet").read_bytes()[:-20])
    found = call("factor", "run", "-e", "x = rank(close)", *args)
    assert (found.code, found.out) == (code, "")
    assert len(found.err.splitlines()) == 1
    assert message in found.err


def test_a_terminal_takes_no_binary(call: Call, bars: pa.Table) -> None:
    found = call("factor", "run", "-e", "close", "--data", "bars.csv", "--format", "parquet", terminal=True)
    assert (found.code, found.out) == (2, "")
    assert "parquet is not for a terminal" in found.err


def test_as_a_process(shell: Call, bars: pa.Table, mine: Path, place: Path) -> None:
    found = shell("factor", "run", "mine.py", "--data", "bars.parquet", "-n", 1, "--json")
    assert (found.code, found.err) == (0, "")
    assert found.json[0]["trend"] == np.array(f.compile(MINE).batch(bars)["trend"])[-1]
    found = shell("factor", "run", "mine.py", "--data", "bars.parquet", "--engine", "numpy", "-o", "no/where.csv")
    assert (found.code, found.out) == (1, "")
    assert "no such file or directory - at no" in found.err


def test_ctrl_c(shell: Call, place: Path, bars: pa.Table) -> None:
    """While it compiles or computes, whichever it is a moment later."""
    (place / "slow.py").write_text(
        "import os, signal, threading\n"
        "from penstock import factor as f\n"
        "long = f.Factors({f'x{i}': f.ts_mean(f.field('close'), i + 2) for i in range(300)})\n"
        "threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
    )
    found = shell("factor", "run", "slow.py", "--data", "bars.parquet", PENSTOCK_CACHE="")
    assert (found.code, found.out, found.err) == (130, "", "")


def test_following(call: Call, spawn: Call, hub: Hub, bars: pa.Table, mine: Path) -> None:
    """Ended by Ctrl-C, and started again: each row once."""
    stream = hub.streams.get("bars", schema=BARS)
    rows = bars.to_pylist()
    stream.append([bar(row) for row in rows[:60]])
    args = ["factor", "run", "mine.py", "--stream", "bars", "--into", "live", "--follow"]
    process = spawn(*args)
    until(lambda: process.poll() is not None or "live" in hub.streams.list())
    assert process.poll() is None, process.communicate()
    assert hub.streams.get("live").wait(56, PATIENCE_S)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (130, b"")
    assert err == b"penstock: stopped; appended 57 rows to 'live'; 19 ticks of 3 symbols since it began\n"
    stream.append([bar(row) for row in rows[60:]])
    (found,) = call(*args, "--timeout", "0.2", "--idle", "50ms", "--json").json
    assert (found["rows"], found["ticks"], found["late"], found["waiting"]) == (63, 40, 0, 0)
    want = f.compile(MINE).batch(bars)
    assert same(hub.streams.get("live").read().select(want.column_names), want)
    named = ["--group", "named", "--into", "again", "--symbols", "MSFT,AAPL,IBM", "--every", "1m", "--timeout", "0.1"]
    assert [(one["ticks"], one["rows"]) for one in call(*args, *named, "--json").json] == [(40, 120)]
    found = call(*args, "--timeout", "0.1")
    assert found.out == "appended 0 rows to 'live'; 40 ticks of 3 symbols since it began\n"


def bar(row: dict[str, Any]) -> dict[str, Any]:
    close = row["close"]
    return {
        **{"symbol": row["symbol"], "ts_event": row["ts_event"], "ts_close": row["ts_event"] + 60_000_000_000},
        **{"open": row["open"], "high": close, "low": close, "close": close, "volume": row["volume"]},
        **{"amount": 0.0, "vwap": close, "trade_count": 1, "revision": 0},
    }


@pytest.mark.parametrize(
    "args, code, message",
    [
        (["--follow", "--data", "bars.csv"], 2, "--follow needs --stream and --into"),
        (["--follow", "--stream", "bars"], 2, "--follow needs --stream and --into"),
        (
            ["--follow", "--stream", "bars", "--into", "x", "-n", "3"],
            2,
            "--follow takes no file, no format, no --append",
        ),
        (
            ["--follow", "--stream", "bars", "--into", "x", "--stop", "3"],
            2,
            "--follow has no --stop; --timeout ends it",
        ),
        (["--follow", "--stream", "bras", "--into", "x"], 1, "did you mean"),
        (["--follow", "--stream", "bars", "--into", "x", "--idle", "soon"], 2, "expected a duration, got 'soon'"),
        (["--stream", "bars", "--timeout", "1"], 2, "--timeout are for --follow"),
    ],
    ids=range(7),
)
def test_bad_calls_of_follow(call: Call, hub: Hub, bars: pa.Table, args: list[str], code: int, message: str) -> None:
    hub.streams.get("bars", schema=BARS)
    found = call("factor", "run", "-e", "x = rank(close)", *args)
    assert (found.code, found.out) == (code, "")
    assert message in found.err
