"""The prompt: through pipes, and on a real terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

import penstock as ps
from penstock.store import Client, Server
from penstock.store.service import complete
from penstock.store.service.desk import Desk
from penstock.store.service.repl import Prompt, history_file, run

Frame = Callable[..., pa.Table]


@pytest.fixture(params=["client", "desk"])
def store(request: pytest.FixtureRequest, server: Server, client: Client, frame: Frame) -> Client | Desk:
    """A client and a desk: the prompt is the same on both."""
    client.write("historical/minute", pa.concat_tables([frame(100, "AAPL"), frame(20, "MSFT")]))
    return client if request.param == "client" else server.desk


def asked(store: object, *lines: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = run(store, io.StringIO("\n".join(lines) + "\n"), out, err)
    return code, out.getvalue(), err.getvalue()


def test_stats_show_used_free_max_and_root(store: Client | Desk, server: Server) -> None:
    code, out, err = asked(store, "head historical/minute/AAPL 1", "stats")
    assert (code, err) == (0, "")
    numbers = dict(re.findall(r"^(\S+) +(\S+)\s*$", out, re.MULTILINE))
    used, free, most = (int(numbers[f"memory.{name}"]) for name in ("used", "free", "max"))
    assert used + free == most == 64 << 20
    assert used > 0
    assert numbers["config.root_path"] == str(server.desk.store.hub.path)
    assert numbers["config.max_memory"] == str(64 << 20)
    out = asked(store, "stats 1")[1]
    assert "TABLE" in out
    assert "historical/minute/AAPL" in out
    assert re.search(r"historical/minute/MSFT +20", asked(store, "stats 2")[1])


def test_rows_schema_ls(store: Client | Desk) -> None:
    assert asked(store, "ls")[1].split() == ["historical/minute"]
    assert asked(store, "ls historical/minute/A*")[1].split() == ["historical/minute/AAPL"]
    out = asked(store, "head historical/minute/AAPL 2")[1].splitlines()
    assert out[0].split() == ["symbol", "ts_event", "x"]
    assert out[1].split() == ["AAPL", "2026-01-01", "12:00:00.000000000Z", "0"]
    assert len(out) == 3
    assert asked(store, "tail historical/minute/AAPL")[1].splitlines()[-1].split()[-1] == "99"
    assert re.search(r"ts_event +int64", asked(store, "schema historical/minute")[1])
    out = asked(store, "describe historical/minute/MSFT")[1]
    assert re.search(r"x +20 +0 +0 +9.5 +19", out)
    assert re.search(r"symbol +20 +0 +MSFT +- +MSFT", out)


def test_queries(store: Client | Desk) -> None:
    query = 'select symbol, count(*) as n from "historical/minute" group by symbol order by symbol'
    for line in (query, f"query {query};"):
        assert asked(store, line)[1].split() == ["symbol", "n", "AAPL", "100", "MSFT", "20"]
    assert "… 40 more rows" in asked(store, "select * from range(100)")[1]


def test_plot(store: Client | Desk) -> None:
    out = asked(store, "plot historical/minute/AAPL x")[1].splitlines()
    assert out[0].startswith("99 ┤")
    assert out[-2].startswith(" 0 ┤")
    assert out[-1].split() == ["2026-01-01T12:00:00Z", "2026-01-01T12:01:39Z"]


def test_what_goes_wrong_is_told_and_the_prompt_goes_on(store: Client | Desk) -> None:
    code, out, err = asked(
        store, "foo", "head", "head x", "head historical/minute/AAPL many", "stats 7", "select nothing",
        "plot historical/minute symbol", 'head "', "# a comment", "", "evict", "ls",
    )  # fmt: skip
    assert code == 1
    lines = err.splitlines()
    assert len(lines) == 8
    assert lines[0].startswith(
        "expected a command of describe, evict, exit, head, help, ls, plot, query, schema, stats, tail, got 'foo'"
    )
    assert lines[1].startswith("expected head KEY [N], got 0 words")
    assert lines[2].startswith("no table 'x'")
    assert lines[3].startswith("expected a number of rows, got 'many'")
    assert lines[4].startswith("expected level 0, 1 or 2")
    assert lines[5].startswith("duckdb does not take the query")
    assert lines[6].startswith("expected a column of numbers, got string")
    assert lines[7] == "ValueError: No closing quotation"
    assert out.split()[-1] == "historical/minute"


def test_help_and_exit(store: Client | Desk) -> None:
    code, out, _ = asked(store, "help", "exit", "foo")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        "describe", "evict", "exit", "head", "help", "ls", "plot", "query", "schema", "stats", "tail",
    ]  # fmt: skip
    assert len(asked(store, "help plot", "quit")[1].splitlines()) == 1


def test_completion(store: Client | Desk) -> None:
    prompt = Prompt(store, io.StringIO(), io.StringIO(), io.StringIO())
    assert prompt.completenames("s") == ["schema", "stats"]
    assert prompt.complete_head("hist", "head hist", 5, 9) == ["historical/minute"]
    assert prompt.complete_head("historical/minute", "", 5, 9) == ["historical/minute/AAPL", "historical/minute/MSFT"]
    assert prompt.complete_head("historical/minute/M", "", 5, 9) == ["historical/minute/MSFT"]
    line = "plot historical/minute/AAPL "
    assert prompt.complete_plot("", line, len(line), len(line)) == ["symbol", "ts_event", "x"]
    assert prompt.complete_plot("hist", "plot hist", 5, 9) == ["historical/minute"]
    assert prompt.complete_query('"his', 'query select "his', 13, 17) == ['"historical/minute"']
    line = 'query select * from "historical/minute" where ts'
    assert prompt.complete_query("ts", line, len(line) - 2, len(line)) == ["ts_event"]
    assert complete.columns(store, "nothing", "") == []
    assert complete.paths(store, "nothing/") == []


def test_where_lines_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_file() == tmp_path / "penstock" / "store_history"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert history_file() == tmp_path / ".local" / "state" / "penstock" / "store_history"


def test_on_a_terminal_it_has_a_prompt_completion_and_a_history(
    server: Server, client: Client, frame: Frame, tmp_path: Path
) -> None:
    client.write("historical/minute", frame(3, "AAPL"))
    ours, theirs = pty.openpty()
    source = str(Path(ps.__file__).parent.parent)
    env = {**os.environ, "PYTHONPATH": source, "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-m", "penstock", "store", "repl", "--uri", server.url]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, close_fds=True)
    os.close(theirs)
    seen = b""

    def until(mark: bytes, *, interrupting: bool = False) -> None:
        nonlocal seen
        deadline = time.monotonic() + 30
        while mark not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([ours], [], [], 0.5)[0]:
                seen += os.read(ours, 4096)
            elif interrupting:  # readline misses a signal that comes just before it waits
                process.send_signal(signal.SIGINT)
        seen = seen.partition(mark)[2]

    try:
        until(b"help lists the commands")
        until(b"store> ")
        os.write(ours, b"head hist\t/A\t\n")
        until(b"historical/minute/AAPL")
        until(b"12:00:02")
        until(b"store> ")
        os.write(ours, b"nonsense\n")
        until(b"\x1b[31mexpected a command of")
        until(b"store> ")
        os.write(ours, b"half a li")
        until(b"half a li")
        process.send_signal(signal.SIGINT)  # leaves the line
        until(b"store> ", interrupting=True)
        os.write(ours, b"exit\n")
        assert process.wait(600) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert "head historical/minute/AAPL" in (tmp_path / "penstock" / "store_history").read_text()
