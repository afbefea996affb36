from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

import penstock as ps
from penstock.cli.tree import Commands
from penstock.hub import Hub
from penstock_tests.commands import commands

Call = Callable[..., Any]


ALL = dict(commands())


@pytest.mark.parametrize("path", ALL)
def test_every_command_explains_itself(call: Call, path: str) -> None:
    words = path.split()[1:]
    for flag in ("--help", "-h"):
        found = call(*words, flag)
        assert (found.code, found.err) == (0, "")
        assert found.out.startswith(f"Usage: {path} ")
    for parameter in ALL[path].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{path} {parameter.opts} has no help"


@pytest.mark.parametrize("path", ALL)
def test_every_command_knows_debug_and_those_on_streams_hub_and_json(path: str) -> None:
    known = {option for parameter in ALL[path].params for option in parameter.opts}
    assert "--debug" in known
    if " stream " in f"{path} ":
        assert "--hub" in known
        assert isinstance(ALL[path], Commands) or "--json" in known


def test_which_hub(call: Call, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("default", "env", "root", "group", "flag"):
        folder = place / ("penstock-data" if name == "default" else name)
        with ps.open(folder) as hub:
            hub.streams.get(name)

    def listed(*args: str) -> str:
        return str(call(*args).json[0]["name"])

    assert listed("stream", "ls", "--json") == "default"
    monkeypatch.setenv("PENSTOCK_HUB", "env")
    assert listed("stream", "ls", "--json") == "env"
    assert listed("--hub", "root", "stream", "ls", "--json") == "root"
    assert listed("--hub", "root", "stream", "--hub", "group", "ls", "--json") == "group"
    assert listed("--hub", "root", "stream", "--hub", "group", "ls", "--json", "--hub", "flag") == "flag"
    monkeypatch.setenv("PENSTOCK_HUB", "")
    assert listed("stream", "ls", "--json") == "default"


def test_options_come_from_the_environment_too(call: Call, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.streams.get("x").append([{"a": i} for i in range(5)])
    monkeypatch.setenv("PENSTOCK_STREAM_TAIL_COLUMNS", "_offset")
    monkeypatch.setenv("PENSTOCK_STREAM_TAIL_JSON", "1")
    monkeypatch.setenv("PENSTOCK_STREAM_TAIL_N", "1")
    assert call("stream", "tail", "x").out == '{"_offset":4}\n'
    assert call("stream", "tail", "x", "--columns", "document").out == '{"a":4}\n'


READS = [
    ["ls"], ["info", "x"], ["tail", "x"], ["read", "x"], ["groups", "x"], ["seek", "x", "g", "0"], ["retain", "x"],
    ["repair", "x"], ["repair", "x", "--check"], ["drop", "x", "--yes"],
]  # fmt: skip


@pytest.mark.parametrize("args", READS, ids=" ".join)
def test_only_append_makes_a_hub_or_a_stream(call: Call, place: Path, args: list[str]) -> None:
    found = call("stream", *args)
    assert found.code == 1
    assert found.err.startswith("penstock: expected a hub, got no hub.json - in ")
    assert not (place / "penstock-data").exists()
    with ps.open() as hub:
        found = call("stream", *args)
        assert found.code == (0 if args == ["ls"] else 1)
        assert hub.streams.list() == []


def test_shells_complete_names_of_streams(shell: Call, hub: Hub) -> None:
    hub.streams.get("trades")
    hub.streams.get("bars")
    words = {"COMP_WORDS": "penstock stream tail t", "COMP_CWORD": "3", "_PENSTOCK_COMPLETE": "bash_complete"}
    found = shell(**words)
    assert (found.code, found.out) == (0, "plain,trades\n")
    found = shell(**{**words, "COMP_WORDS": "penstock stream t", "COMP_CWORD": "2"})
    assert "plain,tail" in found.out
    assert shell(**{**words, "PENSTOCK_HUB": "nowhere"}).out.strip() == ""
