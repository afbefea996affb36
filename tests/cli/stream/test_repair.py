from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.hub import Hub
from penstock.log import Stream

Call = Callable[..., Any]


def files(hub: Hub) -> tuple[Path, Path]:
    """Data and index of the only segment."""
    folder = hub.path / "streams" / "trades"
    return next(folder.glob("*.arrow")), next(folder.glob("*.idx"))


@pytest.fixture
def damaged(hub: Hub, trades: Stream) -> Path:
    """The data file, a byte of whose third append has changed."""
    trades.close()
    data, _ = files(hub)
    content = bytearray(data.read_bytes())
    content[content.index(b"\xff\xff\xff\xff", len(content) // 2) + 100] ^= 1
    data.write_bytes(content)
    return data


def test_a_whole_stream(call: Call, trades: Stream) -> None:
    for args in (["--check"], []):
        found = call("stream", "repair", "trades", *args)
        assert (found.code, found.err) == (0, "")
        assert found.out.startswith("stream 'trades' is whole: 20 rows in 1 segment, ")
    (facts,) = call("stream", "repair", "trades", "--check", "--json").json
    assert [facts[key] for key in ("good", "rows", "lost", "problems", "mended")] == [True, 20, 0, [], []]


def test_changed_bytes_are_found_and_given_up_only_when_asked(call: Call, hub: Hub, damaged: Path) -> None:
    before = damaged.read_bytes()
    found = call("stream", "repair", "trades", "--check")
    assert found.code == 1
    assert f"found: {damaged} at byte " in found.out
    assert "stream 'trades' has 1 problem: 15 rows in 1 segment" in found.out
    found = call("stream", "repair", "trades")
    assert found.code == 1
    assert f"left: {damaged} at byte " in found.out
    assert found.out.endswith("next step: restore the files from a copy, or give these rows up with --give-up\n")
    assert damaged.read_bytes() == before
    assert call("stream", "read", "trades", "--json").code == 1
    found = call("stream", "repair", "trades", "--give-up")
    assert found.code == 0, found.out
    assert f"mended: {damaged} at byte " in found.out
    assert "stream 'trades' is whole: 15 rows in 1 segment" in found.out
    assert "; 5 rows given up; harmless leftovers: " in found.out
    found = call("stream", "read", "trades", "--json")
    assert (found.code, len(found.json)) == (0, 15)
    assert found.err.startswith("penstock: warning: ")
    assert call("stream", "repair", "trades", "--check").code == 0


def test_json_of_a_problem(call: Call, damaged: Path) -> None:
    (facts,) = call("stream", "repair", "trades", "--check", "--json").json
    assert facts["good"] is False
    (problem,) = facts["problems"]
    assert (problem["damage"], problem["file"], problem["loses"]) == ("message", str(damaged), True)
    assert problem["stop"] - problem["first"] == 5


def test_what_loses_nothing_is_mended_without_being_asked(call: Call, hub: Hub, trades: Stream) -> None:
    rows = trades.rows()
    trades.close()
    data, index = files(hub)
    index.unlink()
    found = call("stream", "repair", "trades", "--check")
    assert found.code == 1
    assert found.out.endswith("next step: the same without --check mends what loses no rows\n")
    assert not index.exists()
    found = call("stream", "repair", "trades")
    assert found.code == 0, found.out
    assert "mended: " in found.out
    assert index.exists()
    assert call("stream", "read", "trades", "--json").json == rows
    with data.open("ab") as file:
        file.write(b"torn")
    assert call("stream", "repair", "trades", "--check").code == 1
    assert call("stream", "repair", "trades").code == 0
    assert call("stream", "read", "trades", "--json").json == rows


def test_looking_and_giving_up_contradict_each_other(call: Call, trades: Stream) -> None:
    found = call("stream", "repair", "trades", "--check", "--give-up")
    assert (found.code, "--check changes nothing; leave out --give-up" in found.err) == (2, True)


def test_no_such_stream(call: Call, trades: Stream) -> None:
    found = call("stream", "repair", "trade")
    assert (found.code, "did you mean 'trades'?" in found.err) == (1, True)
