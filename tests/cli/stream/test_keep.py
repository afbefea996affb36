from __future__ import annotations

import os
import pty
from collections.abc import Callable
from typing import Any

import pytest

from penstock.hub import Hub
from penstock.log import Stream
from penstock.log.meta import Meta, Retention
from penstock_tests.waiting import PATIENCE_S

Call = Callable[..., Any]


def segments(stream: Stream, count: int) -> None:
    """That many more sealed segments of a trade each, and one that is open."""
    for _ in range(count):
        stream.seal()
        stream.append({"symbol": "A", "ts_event": 1, "price": 1.0, "size": 1})


def retention(hub: Hub, name: str) -> Retention:
    return Meta.load(hub.path / "streams" / name).options.retention


def test_retain_drops_what_the_retention_lets_go(call: Call, hub: Hub, trades: Stream) -> None:
    segments(trades, 3)
    found = call("stream", "retain", "trades")
    assert (found.code, found.out) == (0, "dropped no segment of 'trades'; offsets 0 to 23 are kept\n")
    trades.change(retention={"bytes": 0})
    found = call("stream", "retain", "trades")
    assert found.out == "dropped 3 segments of 'trades'; offsets 22 to 23 are kept\n"
    assert call("stream", "retain", "trades", "--json").json == [
        {"stream": "trades", "segments_dropped": 0, "first_offset": 22, "next_offset": 23}
    ]


def test_retain_sets_the_retention(call: Call, hub: Hub, trades: Stream) -> None:
    assert call("stream", "retain", "trades", "--age", "7d", "--bytes", "1.5GB", "--until", "store").code == 0
    assert retention(hub, "trades") == Retention(7 * 86400 * 10**9, 1_500_000_000, "store")
    assert call("stream", "retain", "trades").code == 0
    assert retention(hub, "trades").until == "store"
    assert call("stream", "retain", "trades", "--bytes", "4GiB").code == 0
    assert retention(hub, "trades") == Retention(None, 4 << 30, None)
    assert call("stream", "retain", "trades", "--forever").code == 0
    assert retention(hub, "trades") == Retention()


@pytest.mark.parametrize(
    "args, said",
    [
        (["--age", "soon"], "expected a duration, got 'soon'"),
        (["--bytes", "much"], "'much' is no size; give bytes, or such as 500MB, 4GiB"),
        (["--forever", "--age", "1d"], "--forever and --age contradict each other"),
    ],
)
def test_retentions_that_cannot_be_meant(call: Call, hub: Hub, trades: Stream, args: list[str], said: str) -> None:
    found = call("stream", "retain", "trades", *args)
    assert (found.code, said in found.err) == (2, True), found.err
    assert retention(hub, "trades") == Retention()


def test_drop_needs_a_yes(call: Call, hub: Hub, trades: Stream) -> None:
    found = call("stream", "drop", "trades")
    assert found.code == 2
    assert "stream 'trades' with 20 rows (" in found.err
    assert "would be removed for good; give --yes" in found.err
    assert "trades" in hub.streams
    found = call("stream", "drop", "trades", "--yes")
    assert found.code == 0
    assert found.out.startswith("dropped stream 'trades' with 20 rows (")
    assert "trades" not in hub.streams
    hub.streams.get("x").append({"a": 1})
    assert call("stream", "drop", "x", "--yes", "--json").json[0]["rows"] == 1


@pytest.mark.parametrize(
    "answer, gone", [(b"y\n", True), (b"YES\n", True), (b"\n", False), (b"n\n", False), (b"", False)]
)
def test_drop_asks_on_a_terminal(call: Call, hub: Hub, trades: Stream, answer: bytes, gone: bool) -> None:
    found = call("stream", "drop", "trades", stdin=answer, terminal=True)
    assert found.code == (0 if gone else 1)
    assert "for good? [y/N] " in found.err
    assert ("trades" in hub.streams) != gone
    assert found.err.endswith("nothing was dropped\n") != gone


def test_ctrl_c_at_the_question_drops_nothing(environment: Call, hub: Hub, trades: Stream, place: object) -> None:
    import subprocess
    import sys

    master, slave = pty.openpty()
    command = [sys.executable, "-m", "penstock", "stream", "drop", "trades"]
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, cwd=str(place), env=environment(), start_new_session=True
    )
    os.close(slave)
    seen = b""
    try:
        while b"[y/N]" not in seen:
            seen += os.read(master, 1000)
        process.send_signal(2)
        assert process.wait(PATIENCE_S) == 130
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert "trades" in hub.streams
