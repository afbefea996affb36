from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.hub import Hub
from penstock.log import Stream

Call = Callable[..., Any]


def test_ls_lists_streams_with_what_they_hold(call: Call, hub: Hub, trades: Stream) -> None:
    hub.streams.get("mystream").append({"foo": "bar"})
    hub.streams.get("empty")
    hub.streams.get("trades", lazy=True, size=3, group="mine", blocking=False).apply(lambda window: None)
    found = call("stream", "ls")
    assert (found.code, found.err) == (0, "")
    lines = [re.split(r" {2,}", line) for line in found.out.splitlines()]
    assert lines[0] == ["STREAM", "KIND", "ROWS", "SIZE", "RATE", "LAST APPEND", "GROUPS (LAG)"]
    assert lines[1][:3] == ["empty", "document", "0"]
    assert lines[1][4:] == ["-", "-", "-"]
    assert lines[2][:3] == ["mystream", "document", "1"]
    assert lines[3][:3] == ["trades", "table", "20"]
    assert lines[3][5].endswith(" s ago")
    assert lines[3][6] == "mine 2"


def test_ls_json_has_an_object_per_stream(call: Call, hub: Hub, trades: Stream) -> None:
    hub.streams.get("trades", lazy=True, size=3, group="mine", blocking=False).apply(lambda window: None)
    (facts,) = call("stream", "ls", "--json").json
    metadata = trades.metadata()
    assert facts["name"] == "trades"
    assert facts["kind"] == "stream.table"
    assert (facts["rows"], facts["first_offset"], facts["next_offset"]) == (20, 0, 20)
    assert facts["bytes"] == metadata.bytes
    assert facts["groups"] == {"mine": {"offset": 18, "lag": 2, "low": 18}}
    assert facts["rate"] > 0
    assert facts["last_append"].endswith("Z")


def test_ls_takes_a_pattern(call: Call, hub: Hub) -> None:
    for name in ("ab", "ac", "b", "_own"):
        hub.streams.get(name)
    assert [facts["name"] for facts in call("stream", "ls", "a*", "--json").json] == ["ab", "ac"]
    assert [facts["name"] for facts in call("stream", "ls", "_*", "--json").json] == ["_own"]
    found = call("stream", "ls", "x*")
    assert (found.code, found.out, found.err) == (0, "", f"penstock: no streams like 'x*' in {hub.path}\n")


def test_ls_of_an_empty_hub(call: Call, hub: Hub) -> None:
    found = call("stream", "ls")
    assert (found.code, found.out, found.err) == (0, "", f"penstock: no streams in {hub.path}\n")


def test_ls_shows_the_others_when_one_cannot_be_read(call: Call, hub: Hub) -> None:
    hub.streams.get("good")
    hub.streams.get("broken")
    (hub.path / "streams" / "broken" / "meta.json").write_text("{")
    found = call("stream", "ls")
    assert found.code == 1
    assert "good" in found.out
    assert found.err.startswith("penstock: warning: expected the description of a stream")


def test_info_shows_all_about_a_stream(call: Call, hub: Hub, trades: Stream) -> None:
    hub.streams.get("trades", durability="group", retention={"age": "7d", "bytes": 10_000_000, "until": "store"})
    hub.streams.get("trades", lazy=True, group="mine", blocking=False).apply(lambda window: None)
    found = call("stream", "info", "trades")
    assert (found.code, found.err) == (0, "")
    for said in (
        "stream       trades\n",
        "kind         stream.table\n",
        "rows         20, offsets 0 to 20\n",
        "durability   group\n",
        "retention    604,800 s and 10.0 MB and what group 'store' has done\n",
        "attributes\n  venue  XNAS\n  of.a   1\n",
        "columns\n  symbol    string not null\n",
        "GROUP  DONE TO  LAG  NEEDS FROM\nmine        20    0          20\n",
    ):
        assert said in found.out


def test_info_json_is_one_object(call: Call, trades: Stream) -> None:
    (facts,) = call("stream", "info", "trades", "--json").json
    assert facts["schema"]["price"] == "double not null"
    assert facts["attributes"] == {"venue": "XNAS", "of": {"a": 1}}
    assert facts["retention"] == {"age_s": None, "bytes": None, "until": None}
    assert facts["durability"] == "os"
    assert facts["groups"] == {}
    trades.change(retention={"age": "90s"})
    (facts,) = call("stream", "info", "trades", "--json").json
    assert facts["retention"]["age_s"] == 90.0


@pytest.mark.parametrize("command", ["info", "tail", "read", "groups", "retain"])
def test_a_stream_that_is_not_there(call: Call, trades: Stream, place: Path, command: str) -> None:
    found = call("stream", command, "trade")
    assert (found.code, found.out) == (1, "")
    assert "no stream 'trade'" in found.err
    assert "did you mean 'trades'?" in found.err
    assert not (place / "penstock-data" / "streams" / "trade").exists()
