"""`penstock tail` and `penstock plant serve`, over real sockets."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import penstock as ps

Call = Callable[..., Any]
Spawn = Callable[..., subprocess.Popen[bytes]]


def test_tail_survives_a_restart_of_the_feed(spawn: Spawn, kit: Any) -> None:
    args = ("feed", "fake", "--delay", "0.02", "--seed", 7, "--data", "f")
    feed = spawn(*args, "--port", 0)
    url = kit.url_of(feed)
    tail = spawn("tail", "--uri", url, "--seq", "--json", "--since", "start")
    seen = kit.lines(tail, 5)
    code, said = kit.ended(feed, signal.SIGTERM)
    sent = int(said.split("stopped; ")[1].split(" ")[0])
    assert code == 143
    assert kit.url_of(spawn(*args, "--port", url.rpartition(":")[2])) == url
    seen += kit.lines(tail, sent)
    assert [message["seq"] for message in seen] == list(range(sent + 5))
    assert {message["stream"] for message in seen} == {"bars"}
    times = [message["s"] for message in seen]
    assert times == sorted(set(times))  # bars go on where the last run ended
    _, said = kit.ended(tail, signal.SIGINT)
    assert said.startswith(f"penstock: the plant at {url} was lost: ")
    assert said.count("; looking for it\n") == 1
    assert f"penstock: connected again to {url}\n" in said


def test_serve_with_tokens(spawn: Spawn, call: Call, shell: Call, place: Path, monkeypatch: Any, kit: Any) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place / "config"))
    made = call("plant", "token", "add", "me")
    key = made.out.strip()
    file = place / "config" / "penstock" / "tokens.json"
    assert made.err == f"penstock: the key of 'me' is shown this once; plants with --tokens {file} let it in at once\n"
    assert key not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert call("plant", "token", "add", "me").code == 2
    assert [row["name"] for row in call("plant", "token", "ls", "--json").json] == ["me"]
    with ps.open(place / "penstock-data") as hub:
        hub.streams.get("x").append([{"ev": "X", "sym": "A", "n": 1.10}, {"ev": "X", "sym": "B", "n": 2}])
    server = spawn("plant", "serve", "--port", 0, "--tokens", file)
    url = kit.url_of(server)
    options = ("--uri", url, "--since", "start", "--count", 2)
    found = shell("tail", *options, "--token", key)
    assert found.out == '{"ev": "X", "sym": "A", "n": 1.1}\n{"ev": "X", "sym": "B", "n": 2}\n'
    found = shell("tail", *options, "--json", PENSTOCK_TOKEN=key)
    assert found.out == '{"ev":"X","sym":"A","n":1.1}\n{"ev":"X","sym":"B","n":2}\n'
    found = shell("tail", *options, "--token", "wrong")
    assert (found.code, "the plant refuses the key" in found.err) == (1, True)
    assert call("plant", "token", "revoke", "me").code == 0
    found = call("plant", "token", "revoke", "me")
    assert (found.code, "expected the name of a token (none), got 'me'" in found.err) == (2, True)
    assert kit.ended(server, signal.SIGINT)[0] == 130


def test_tls(spawn: Spawn, call: Call, place: Path, kit: Any) -> None:
    import trustme

    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    server.cert_chain_pems[0].write_to_path(place / "server.pem")
    server.private_key_pem.write_to_path(place / "server.key")
    authority.cert_pem.write_to_path(place / "ca.pem")
    feed = spawn("feed", "fake", "--port", 0, "--data", "f", "--tls-cert", "server.pem", "--tls-key", "server.key")
    url = kit.url_of(feed)
    assert url.startswith("wss://")
    assert len(call("tail", "--uri", url, "--ca", "ca.pem", "--since", "start", "--count", 1, "--json").json) == 1
    found = call("tail", "--uri", url)
    assert (found.code, "certificate verify failed" in found.err) == (1, True)


def test_tail_says_what_is_wrong(call: Call, spawn: Spawn, place: Path, kit: Any) -> None:
    with ps.open(place / "h") as hub:
        hub.streams.get("bars", schema=ps.records.BARS)
    url = kit.url_of(spawn("plant", "serve", "--data", "h", "--port", 0))
    for args, code, said in [
        (["--uri", "ws://127.0.0.1:1"], 1, "no plant answers at ws://127.0.0.1:1: "),
        (["--uri", "localhost"], 2, "expected a URL such as ws://localhost:5000"),
        (["--uri", url, "--patterns", "XX.*"], 1, "no such channel: XX.* (this plant has AM)"),
        (["--uri", url, "--patterns", "AM"], 2, "expected a channel such as AM.AAPL"),
        (["--uri", url, "--since", "7"], 1, "expected since at most 0, the end of stream 'bars', got 7"),
        (["--uri", url, "--since", "yesterday"], 2, "yesterday"),
        (["--uri", url, "--plain", "--since", "start"], 2, "since, snapshot, conflate and arrow need a plant"),
        (["--uri", url, "--ca", "none.pem"], 2, "expected a PEM file of certificates, got 'none.pem'"),
    ]:
        found = call("tail", *args)
        assert (found.code, said in found.err) == (code, True), found.err
    assert call("tail", "--uri", url, "--timeout", 0, "--log", "WARN", "--conflate").code == 0
