"""`penstock plant handle` and `diff`, and all commands together."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock as ps
from penstock_tests.waiting import PATIENCE_S

Call = Callable[..., Any]
Spawn = Callable[..., subprocess.Popen[bytes]]


@pytest.mark.slow
def test_feed_tail_handle_tail_collect(spawn: Spawn, place: Path, kit: Any) -> None:
    """The five commands of the README, each in a process of its own."""
    feed = spawn("feed", "fake", "--symbols", "AAPL,MSFT,TSLA", "--delay", "0.05", "--port", 0, XDG_DATA_HOME="xdg")
    url = kit.url_of(feed)
    tail = spawn("tail", "--uri", url)
    bars = kit.lines(tail, 4)
    assert [bar["ev"] for bar in bars] == ["AM"] * 4
    assert {bar["sym"] for bar in bars} == {"AAPL", "MSFT", "TSLA"}
    assert list(bars[0]) == ["ev", "sym", "v", "vw", "o", "c", "h", "l", "s", "e", "n", "z"]

    node = spawn("plant", "handle", kit.AVERAGE, "--upstream", url, "--port", 0, "--timeout", 60, XDG_DATA_HOME="xdg")
    below = spawn("tail", "--uri", kit.url_of(node))
    averages = kit.lines(below, 3)
    assert [list(message) for message in averages] == [["ev", "a"]] * 3
    assert all(message["ev"] == "AVG" and message["a"] > 0 for message in averages)

    found = spawn("collect", "--uri", url, "--into", "historical/minute", "--count", 30, "--json")
    out, err = found.communicate(timeout=PATIENCE_S)
    assert found.returncode == 0, err
    assert json.loads(out)["rows"] >= 30
    with ps.open(place / "penstock-data", create=False) as hub, ps.store.open(hub) as store:
        table = store.read("historical/minute")
        assert table.schema.field("close").type == "double"
        assert table.schema.field("volume").type == "int64"
        assert len({*zip(table["symbol"].to_pylist(), table["ts_event"].to_pylist(), strict=True)}) == len(table) >= 30
        assert store.ls("historical/minute") == [f"historical/minute/{s}" for s in ("AAPL", "MSFT", "TSLA")]

    assert kit.ended(below, signal.SIGINT)[0] == 130
    assert kit.ended(tail, signal.SIGTERM)[0] == 143
    code, said = kit.ended(node, signal.SIGINT)
    assert code == 130
    assert " arrays handled, " in said
    assert " messages made, 0 failures\n" in said
    code, said = kit.ended(feed, signal.SIGTERM)
    assert code == 143
    assert said.startswith("penstock: stopped; ")
    assert sorted(path.name for path in (place / "xdg" / "penstock").iterdir()) == ["avg-0", "feed-0"]


def test_diff(call: Call, place: Path, kit: Any) -> None:
    with ps.open(place / "h") as hub:
        stream = hub.streams.get("x")
        for closes in ([1.0, 2.0], [3.0], [4.0, 6.0]):
            stream.append([{"ev": "AM", "c": c} for c in closes])
    (place / "old.kg").write_text(kit.AVERAGE.read_text())
    (place / "new.kg").write_text(kit.AVERAGE.read_text().replace("+/a%#a", "(+/a%#a)+(#a)=1"))
    args = ("plant", "diff", "old.kg", "new.kg", "--stream", "x", "--data", "h", "--timeout", 60)
    found = call(*args)
    assert found.code == 1
    assert found.out == (
        'they differ at offset 2 of \'x\', array 1\nold  {"ev":"AVG","a":3.0}\nnew  {"ev":"AVG","a":4.0}\n'
    )
    found = call(*args, "--json")
    assert found.code == 1
    assert found.json == [
        {
            "stream": "x", "arrays": 2, "messages": 1, "differ": True, "array": 1, "offset": 2,
            "old": {"ev": "AVG", "a": 3.0}, "new": {"ev": "AVG", "a": 4.0},
        }
    ]  # fmt: skip
    assert call(*args, "--start", 3).out == "no difference: 1 messages of 1 arrays of 'x'\n"
    found = call("plant", "diff", "old.kg", "none.kg", "--stream", "x", "--hub", "h")
    assert (found.code, "expected a handler's file, got 'none.kg'" in found.err) == (1, True)
    found = call("plant", "diff", "old.kg", "new.kg", "--stream", "y", "--hub", "h")
    assert (found.code, "no stream 'y'" in found.err) == (1, True)


def test_a_handler_that_does_not_load_is_an_error_at_once(call: Call, place: Path) -> None:
    (place / "bad.kg").write_text("onmsg::{")
    for file, said in (("bad.kg", "does not load"), ("none.kg", "which is not there")):
        found = call("plant", "handle", file, "--port", 0, "--data", "d", "--upstream", "ws://127.0.0.1:1")
        assert (found.code, said in found.err, found.err.count("\n")) == (1, True, 1), found.err
