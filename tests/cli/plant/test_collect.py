"""`penstock collect`: a plant's messages in a table, each once."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock as ps
from penstock.records import batch_to_rows

Call = Callable[..., Any]
Spawn = Callable[..., subprocess.Popen[bytes]]


@pytest.mark.slow
def test_a_collector_that_is_killed_writes_each_row_once(spawn: Spawn, place: Path, kit: Any) -> None:
    feed = spawn("feed", "fake", "--symbols", "A,B", "--delay", "0.005", "--port", 0, "--data", "f")
    url = kit.url_of(feed)
    with ps.open(place / "c") as hub, ps.store.open(hub) as store:

        def written() -> int:
            return store.table("m").stream.next_offset if store.exists("m") else 0

        for _ in range(4):
            before = written()
            running = spawn("collect", "--uri", url, "--into", "m", "--data", "c")
            kit.wait_until(lambda: written() > before)  # noqa: B023
            running.kill()
            running.wait()
        code, said = kit.ended(feed, signal.SIGINT)
        sent = int(said.split("stopped; ")[1].split(" ")[0].replace(",", ""))
        assert code == 130
        url = kit.url_of(spawn("plant", "serve", "--data", "f", "--port", url.rpartition(":")[2]))
        running = spawn("collect", "--uri", url, "--into", "m", "--data", "c")
        kit.wait_until(lambda: written() >= sent)
        code, said = kit.ended(running, signal.SIGINT)
        assert (code, "penstock: stopped; wrote " in said) == (130, True), said
        found = store.table("m").stream.read()
        with ps.open(place / "f") as source:
            bars = source.streams.get("bars").read()
        assert found.num_rows == bars.num_rows == sent
        for column in bars.schema.names:
            assert found[column].equals(bars[column])


def test_collect_makes_rows_of_documents_and_says_what_is_none(spawn: Spawn, call: Call, place: Path, kit: Any) -> None:
    bar = {
        "ev": "AM",
        "sym": "A",
        "v": 10,
        "vw": 2.0,
        "o": 1,
        "h": 3,
        "l": 1,
        "c": 2,
        "s": 60_000,
        "e": 120_000,
        "z": 5,
    }
    with ps.open(place / "h") as hub:
        wrong = [
            {"s": 1e300},
            {"s": 2**80},
            {"v": "x"},
            {"v": 1.5},
            {"v": None},
            {"sym": 5},
            {"c": []},
            {"z": 0, "v": "9"},
        ]
        odd = [{"ev": "AM", "sym": "A"}, *({**bar, **fields} for fields in wrong)]
        hub.streams.get("docs").append([bar, *odd, {**bar, "sym": "B"}])
    url = kit.url_of(spawn("plant", "serve", "--data", "h", "--port", 0))
    found = call("collect", "--uri", url, "--count", 2, "--json")
    assert found.json == [{"table": "historical/minute", "rows": 2, "skipped": 9}]
    assert "a message is no row and is left out" in found.err
    with ps.store.open(place / "penstock-data") as store:
        (row,) = batch_to_rows(store.read("historical/minute/B").to_batches()[0])
    expected = {"ts_event": 60_000_000_000, "volume": 10, "trade_count": 2, "amount": 20.0, "open": 1.0, "revision": 0}
    assert {name: row[name] for name in expected} == expected
    for args, said in [
        (["--uri", "ws://127.0.0.1:1", "--timeout", 1], "no plant answers"),
        (["--uri", url, "--for", "3y"], "3y"),
        (["--uri", url, "--into", "../x"], "../x"),
    ]:
        found = call("collect", *args)
        assert found.code in (1, 2)
        assert said in found.err


def test_a_table_holds_rows_of_one_kind(spawn: Spawn, call: Call, place: Path, kit: Any) -> None:
    trade = {"symbol": "A", "ts_event": 1, "price": 1.0, "size": 1}
    with ps.open(place / "h") as hub:
        hub.streams.get("trades", schema=ps.records.TRADES).append(trade)
        hub.streams.get("quotes", schema=ps.records.QUOTES).append({"symbol": "A", "ts_event": 1, "bid_px": 1.0})
        hub.streams.get("docs").append(
            [{"ev": "T", "sym": "A", "t": 1, "p": 1.5, "s": 2}, {"ev": "Q", "sym": "A", "t": 1}]
        )
    url = kit.url_of(spawn("plant", "serve", "--data", "h", "--port", 0))
    base = ("collect", "--uri", url, "--count", 2)
    found = call(*base, "--into", "t", "--patterns", "T.*")
    assert found.out == "wrote 2 rows to t\n"
    found = call(*base, "--into", "t", "--patterns", "Q.*")
    assert (found.code, "a table holds rows of one kind: say which with patterns" in found.err) == (1, True), found.err
    found = call(*base, "--into", "u", "--patterns", "*.A")
    assert (found.code, "a table holds rows of one kind: say which with patterns" in found.err) == (1, True), found.err
