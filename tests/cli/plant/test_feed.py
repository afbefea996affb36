"""`penstock feed`: made-up and recorded markets, over real sockets."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import penstock as ps

Call = Callable[..., Any]
Spawn = Callable[..., subprocess.Popen[bytes]]


def test_fake_ends_by_itself_and_keeps_to_its_own_streams(shell: Call, place: Path) -> None:
    args = (
        "feed",
        "fake",
        "--symbols",
        "A,B",
        "--ev",
        "AM,T,Q,A",
        "--delay",
        0,
        "--count",
        3,
        "--seed",
        1,
        "--port",
        0,
    )
    assert shell(*args, "--data", "f").code == 0
    assert shell(*args, "--data", "g").code == 0
    with ps.open(place / "f") as hub, ps.open(place / "g") as other:
        assert hub.streams.list() == ["bars", "quotes", "seconds", "trades"]
        for name, column in (("bars", "close"), ("trades", "price"), ("quotes", "bid_px"), ("seconds", "volume")):
            found = hub.streams.get(name).read()[column].to_pylist()
            assert len(found) == 6
            assert found == other.streams.get(name).read()[column].to_pylist()  # the same seed
    with ps.open(place / "mine") as hub:
        hub.streams.get("bars", schema=ps.records.BARS)
    found = shell(*args, "--data", "mine")
    assert found.code == 1
    assert found.err.startswith("penstock: the stream 'bars' is not of a made-up market - in hub ")


def test_fake_says_what_is_wrong(call: Call, spawn: Spawn, kit: Any) -> None:
    for args, code, said in [
        (["--symbols", "A,A"], 2, "expected symbols, each once, got 'A', 'A'"),
        (["--symbols", ""], 2, "expected symbols, each once, got ''"),
        (["--ev", "XX"], 2, "expected an event of AM, A, T, Q, got 'XX'"),
        (["--bind", "0.0.0.0"], 2, "expected tokens for an address that others can reach"),
        (["--bind", "192.0.2.1", "--tokens", "t.json"], 1, "cannot listen on 192.0.2.1:0"),
        (["--limit", "conections=3"], 2, "expected NAME=N with a name of actions_per_second, "),
        (["--limit", "connections=x"], 2, "got 'connections=x' - in --limit"),
        (["--tls-key", "k.pem"], 2, "--tls-key needs --tls-cert"),
        (["--tls-cert", "none.pem"], 2, "expected a PEM file with a certificate and its key"),
    ]:
        if "--tokens" in args:
            assert call("plant", "token", "add", "x", "--tokens", "t.json").code == 0
        found = call("feed", "fake", "--port", 0, "--data", "d", "--count", 1, "--delay", 0, *args)
        assert (found.code, said in found.err) == (code, True), found.err
    feed = spawn("feed", "fake", "--port", 0, "--data", "f")
    port = kit.url_of(feed).rpartition(":")[2]
    found = call("feed", "fake", "--port", port, "--data", "d")
    assert found.code == 1
    assert found.err == f"penstock: port {port} of 127.0.0.1 is taken; give another --port, or 0 for a free one\n"


def test_replay_goes_on_where_it_was_stopped(spawn: Spawn, shell: Call, place: Path, kit: Any) -> None:
    times = [1_700_000_000_000_000_000 + i * 20_000_000 for i in range(200)]
    rows = "\n".join(f"{t},A,{i}.5,{i + 1}" for i, t in enumerate(times))
    (place / "ticks.csv").write_text("when,symbol,price,size\n" + rows + "\n")
    args = ["feed", "replay", "ticks.csv", "--port", 0, "--data", "d", "--time", "when", "--schema", "trades"]
    running = spawn(*args)
    tail = spawn("tail", "--uri", kit.url_of(running), "--since", "start", "--json")
    first = kit.lines(tail, 20)
    assert first[0] == {"ev": "T", "sym": "A", "p": 0.5, "s": 1, "t": times[0] // 1_000_000}
    code, said = kit.ended(running, signal.SIGKILL)
    assert code == -signal.SIGKILL
    done = shell(*args, "--pace", "max", "--exit")
    assert done.code == 0, done.err
    with ps.open(place / "d") as hub:
        stream = hub.streams.get("ticks")
        assert stream.read()["size"].to_pylist() == list(range(1, 201))
        assert f"all is replayed: {200 - stream.read(0, 20).num_rows} rows" not in said
    again = shell(*args, "--pace", "max", "--exit", "--ev", "X", "--again")
    assert (again.code, "all is replayed: 200 rows" in again.err) == (0, True)


def test_replay_of_a_stream_and_its_errors(shell: Call, call: Call, place: Path) -> None:
    with ps.open(place / "h") as hub:
        hub.streams.get("t", schema=ps.records.TRADES).append(
            [{"symbol": "A", "ts_event": i, "price": 1.0, "size": 1} for i in range(10)]
        )
        hub.streams.get("docs").append({"a": 1})
    base = ("feed", "replay", "--port", 0, "--data", "d", "--exit", "--hub", "h")
    assert shell(*base, "--stream", "t", "--into", "copy").code == 0
    with ps.open(place / "d") as hub:
        assert len(hub.streams.get("copy")) == 10
    for args, code, said in [
        ([], 2, "give either a DATASET or --stream NAME"),
        (["x.csv", "--stream", "t"], 2, "give either"),
        (["--stream", "docs"], 2, "expected a stream with columns, got 'docs', which has documents"),
        (["x.csv"], 1, "x.csv"),
        (["--stream", "t", "--pace", "5y"], 2, "got '5y'"),
        (["--stream", "t", "--rename", "a"], 2, "expected OLD=NEW, got 'a' - in --rename"),
    ]:
        found = call(*base, *args)
        assert (found.code, said in found.err) == (code, True), found.err
