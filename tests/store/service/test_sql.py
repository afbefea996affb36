"""SQL of strangers: one question at a time, over tables and nothing else, within memory and time."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from penstock.errors import FrameTooLarge, KeyNotFound, PenstockError, StoreError, UsageError
from penstock.store import Client, Server, connect, serve
from penstock.store.query import Limits, ask
from penstock.store.service import asked, desk
from penstock.store.service.asked import Question

NOON = 1_767_268_800_000_000_000
Frame = Callable[..., pa.Table]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all: each has a process for its queries."""
    with serve(tmp_path_factory.mktemp("sql") / "hub", memory="64m", port=0, keep=None) as found:
        yield found


@pytest.fixture
def filled(client: Client, frame: Frame) -> Client:
    client.write("historical/minute", frame(100))
    return client


def test_a_question_is_answered(filled: Client) -> None:
    found = filled.sql('select count(*) as n, max(x) as high from "historical/minute"')
    assert found.to_pylist() == [{"n": 100, "high": 99.0}]
    assert filled.sql('-- how many?\nfrom "historical/minute" /* all */ select count(*) as n;')["n"].to_pylist() == [
        100
    ]
    assert filled.sql('with a as (select x from "historical/minute") select sum(x) as s from a')["s"][0].as_py() == 4950
    assert filled.sql('describe "historical/minute"')["column_name"].to_pylist() == ["symbol", "ts_event", "x"]
    assert filled.sql("select 1 as one where false").num_rows == 0
    with pytest.raises(KeyNotFound, match="no table 'historical/minut'"):
        filled.sql('select * from "historical/minut"')
    with pytest.raises(StoreError, match="Table with name nothing does not exist"):
        filled.sql("select * from nothing")


FILES = [
    "select * from read_csv('{file}')",
    "select * from read_csv_auto('{file}')",
    "select * from read_parquet('{file}')",
    "select * from read_json('{file}')",
    "select * from read_ndjson_objects('{file}')",
    "select * from read_text('{file}')",
    "select * from read_blob('{file}')",
    "select * from sniff_csv('{file}')",
    "select * from parquet_metadata('{file}')",
    "select * from glob('/etc/*')",
    "select * from '{file}'",
    "from '{file}'",
    "select * from query('select * from read_csv(''{file}'')')",
    "select (select content from read_text('{file}'))",
    "with a as (select * from read_text('{file}')) select * from a",
    "select/**/*/**/from/**/read_text('{file}') -- 1",
    "select * from sqlite_scan('{file}', 'a')",
    "select * from read_csv('http://127.0.0.1:9/x.csv')",
    "select * from read_parquet('s3://bucket/x')",
    "select getenv('HOME')",
    "select * from duckdb_secrets()",
    "select * from secret",  # a variable of the server's, which duckdb would find in a program of one's own
    "select * from frames",
    "select * from enable_logging()",
]
STATEMENTS = [
    "copy (select 1) to '{out}'",
    "copy \"historical/minute\" to '{out}' (format parquet)",
    "select 1; copy (select 1) to '{out}'",
    "copy (select 1) to '{out}'; select 1",
    "/* select */ copy (select 1) to '{out}' -- select",
    "explain analyze copy (select 1) to '{out}'",
    "export database '{out}'",
    "import database '{out}'",
    "attach '{out}'",
    "attach '{file}' as a (type sqlite)",
    "install httpfs",
    "load httpfs",
    "load '{file}'",
    "force install 'x' from 'http://127.0.0.1:9'",
    "set enable_external_access = true",
    "set global memory_limit = '100GB'",
    "reset memory_limit",
    "pragma enable_external_access",
    "pragma database_list",
    "pragma temp_directory='{out}'",
    "call pragma_version()",
    "create table a as select 1",
    "create secret (type s3)",
    "create macro f() as table select 1",
    "prepare a as select 1",
    "execute a",
    "insert into \"historical/minute\" values ('A', 1, 1.0)",
    'delete from "historical/minute"',
    'drop table "historical/minute"',
    "use memory",
    "detach memory",
    "checkpoint",
    "begin",
    "set variable a = 1",
    "select 1; select 2",
    "",
    " ; ",
    "-- nothing",
]


@pytest.mark.parametrize("query", FILES)
def test_no_file_no_setting_no_network(filled: Client, query: str, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a,b\nhidden,2\n")
    with pytest.raises(StoreError, match="duckdb does not take the query") as met:
        filled.sql(query.format(file=tmp_path / "secret.csv"))
    assert "hidden" not in str(met.value)


@pytest.mark.parametrize("query", STATEMENTS)
def test_nothing_but_one_select(filled: Client, query: str, tmp_path: Path) -> None:
    with pytest.raises(PenstockError, match="expected one select, got |duckdb does not take the query: Parser Error"):
        filled.sql(query.format(file=tmp_path / "in", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert filled.read("historical/minute").num_rows == 100


def test_without_duckdb_there_is_no_sql_for_strangers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """polars reads any file that it is told to."""
    (tmp_path / "secret.csv").write_text("a\n1\n")
    query = f"select * from read_csv('{tmp_path / 'secret.csv'}')"
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert ask(query, {}, []).num_rows == 1  # for oneself
    with pytest.raises(
        UsageError, match="expected duckdb for SQL, got no such package - in store.sql; pip install duckdb"
    ):
        ask(query, {}, [], limits=Limits(1 << 24, 60.0))


BOMBS = [
    "select count(*) from range(1000000000000) t(a) where a % 7 = 9",
    "select count(*) from range(100) a, range(1000000000000) b where a.range + b.range < 0",
    "with recursive a as (select 1 as n union all select n + 1 from a) select max(n) from a",
    "select sleep_ms(3600000)",
]


@pytest.mark.parametrize("bomb", BOMBS, ids=["scan", "cross", "recursive", "sleep"])
def test_a_query_without_end_is_ended_and_others_are_served_meanwhile(
    filled: Client, server: Server, bomb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.sql("select 1")  # its process is there
    monkeypatch.setattr(desk, "_QUERY_S", 1.0)
    begun, ended = threading.Event(), threading.Event()
    ask_it = server.desk._asker.ask

    def told(question: Question) -> pa.Table:
        begun.set()
        return ask_it(question)

    monkeypatch.setattr(server.desk._asker, "ask", told)
    failed: list[Exception] = []

    def work() -> None:
        try:
            filled.sql(bomb)
        except Exception as error:
            failed.append(error)
        ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(600)
    served = 0
    with connect(server.url) as other:
        while not (ended.is_set() and served):
            assert other.read("historical/minute/A").num_rows == 100
            other.write("t", {"symbol": "A", "ts_event": NOON, "x": 1.0})
            served += 1
    thread.join()
    assert isinstance(failed[0], StoreError)
    assert "the query took more than 1 s - in store.sql; ask less" in str(failed[0])
    monkeypatch.undo()
    assert filled.sql("select 1 as one")["one"].to_pylist() == [1]  # the next one has the whole time


HUNGRY = [
    "select * from range(100000000)",
    "select list(range) from range(100000000)",
    "select range, repeat('x', 1000) from range(100000000) order by 1 desc",
    "select repeat('x', 1000000000)",  # one value, which duckdb's own limit is not for
    "select length(repeat('x', 2000000000))",
    "select list_sum(range(1000000000))",
]


@pytest.mark.parametrize("query", HUNGRY, ids=["rows", "list", "sort", "text", "length", "range"])
def test_a_query_over_its_memory_is_refused(filled: Client, query: str) -> None:
    filled.sql("select 1")
    before = filled.stats()["process"]["peak_bytes"]
    with pytest.raises(
        StoreError, match="an answer of at most 16777216 bytes, got more|Memory|engine|bad_alloc|too large"
    ):
        filled.sql(query)
    assert filled.stats()["memory"]["lent"] == 0
    assert filled.stats()["process"]["peak_bytes"] - before < 64 << 20  # it was not the server that took it
    assert filled.sql("select 1 as one")["one"].to_pylist() == [1]
    assert filled.read("historical/minute").num_rows == 100


def test_a_query_that_ends_its_process_is_told_and_the_next_one_has_another(
    filled: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanged = asked._exchanged

    def killed(process: subprocess.Popen[bytes], question: Question) -> pa.Table:
        process.kill()
        return exchanged(process, question)

    monkeypatch.setattr(asked, "_exchanged", killed)
    with pytest.raises(StoreError, match="the query has ended its engine \\(signal 9\\) - in store.sql; ask less"):
        filled.sql("select sleep_ms(3600000)")
    monkeypatch.undo()
    assert filled.sql("select 1 as one")["one"].to_pylist() == [1]


def test_a_process_that_hangs_is_ended(filled: Client, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    filled.sql("select 1")
    process = server.desk._asker._process
    assert process is not None
    monkeypatch.setattr(desk, "_QUERY_S", 0.1)
    monkeypatch.setattr(asked, "_GRACE_S", 0.1)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(StoreError, match="the query took more than 0.1 s - in store.sql; ask less"):
        filled.sql("select 1")
    monkeypatch.undo()
    assert filled.sql("select 1 as one")["one"].to_pylist() == [1]


def test_tables_over_the_budget_are_refused_before_they_are_read(tmp_path: Path, frame: Frame) -> None:
    with serve(tmp_path / "hub", memory=20_000, port=0, keep=None) as server, connect(server.url) as client:
        for symbol in "ABC":
            client.write("t", frame(400, symbol))
        with pytest.raises(
            FrameTooLarge, match="expected tables of at most 20000 bytes together, got about 48000 - in the query"
        ):
            client.sql('select * from "t"')
        assert client.sql('select count(*) as n from "t"', end=NOON + 10**9)["n"].to_pylist() == [3]


def test_what_a_query_may_take_counts_as_used(server: Server, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.write("u", pa.table({"symbol": ["A"] * 1000, "ts_event": NOON + np.arange(1000), "x": np.zeros(1000)}))
    during: list[int] = []
    ask_it = server.desk._asker.ask

    def told(question: Question) -> pa.Table:
        during.append(server.desk.cache.statistics().used)
        return ask_it(question)

    monkeypatch.setattr(server.desk._asker, "ask", told)
    assert client.sql('select sum(x) as s from "u"')["s"].to_pylist() == [0.0]
    assert during[0] > 32 << 20  # half of the budget, and the table
    assert client.stats()["memory"]["used"] < 1 << 20
