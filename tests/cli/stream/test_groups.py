from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from penstock.hub import Hub
from penstock.log import Stream

Call = Callable[..., Any]


@pytest.fixture
def seen(hub: Hub, trades: Stream) -> Callable[[], list[int]]:
    """`seen()` runs a consumer of group "mine", and gives the sizes that it is handed."""

    def run() -> list[int]:
        sizes: list[int] = []
        streaming = hub.streams.get("trades", lazy=True, size=3, group="mine", blocking=False)
        streaming.apply(lambda window: sizes.extend(row["size"] for row in window.data))
        return sizes

    return run


def test_groups(call: Call, seen: Callable[[], list[int]]) -> None:
    found = call("stream", "groups", "trades")
    assert (found.code, found.out, found.err) == (0, "", "penstock: no groups in stream 'trades'\n")
    assert call("stream", "groups", "trades", "--json").out == ""
    assert seen() == list(range(18))
    found = call("stream", "groups", "trades")
    assert found.out == "GROUP  DONE TO  LAG  NEEDS FROM\nmine        18    2          18\n"
    assert call("stream", "groups", "trades", "--json").json == [{"group": "mine", "offset": 18, "lag": 2, "low": 18}]


@pytest.mark.parametrize(
    "to, offset",
    [("start", 0), ("end", 20), ("7", 7), ("20", 20), ("2025-11-20T00:53:35Z", 15), ("2025-11-20T00:53:35.5Z", 16),
     ("2030-01-01", 20)],
)  # fmt: skip
def test_seek(call: Call, seen: Callable[[], list[int]], to: str, offset: int) -> None:
    assert seen() == list(range(18))
    found = call("stream", "seek", "trades", "mine", to)
    assert (found.code, found.err) == (0, "")
    assert found.out == f"group 'mine' of 'trades' goes on at offset {offset} (it was at 18)\n"
    assert seen() == list(range(offset, offset + (20 - offset) // 3 * 3))


def test_seek_by_time_of_append_where_rows_have_no_time(call: Call, hub: Hub) -> None:
    stream = hub.streams.get("x")
    for i in range(3):
        stream.append({"i": i})
    stream.group("g").close()
    created = next(iter(stream.chunks(2))).created[0]
    from penstock.clock import iso

    found = call("stream", "seek", "x", "g", iso(int(created)), "--json")
    assert found.json == [{"stream": "x", "group": "g", "before": 0, "offset": 2}]


def test_seek_makes_no_group_unless_asked(call: Call, seen: Callable[[], list[int]], trades: Stream) -> None:
    seen()
    found = call("stream", "seek", "trades", "mein", "0")
    assert found.code == 1
    assert found.err == "penstock: no group 'mein' - in stream 'trades'; did you mean 'mine'?\n"
    found = call("stream", "seek", "trades", "other", "0")
    assert "see `penstock stream groups`, or give --create" in found.err
    assert list(trades.metadata().groups) == ["mine"]
    assert call("stream", "seek", "trades", "other", "5", "--create").code == 0
    assert trades.metadata().groups["other"] == 5


def test_seek_of_a_group_in_use_is_refused(call: Call, trades: Stream) -> None:
    group = trades.group("mine")
    try:
        found = call("stream", "seek", "trades", "mine", "0")
        assert found.code == 1
        assert "group 'mine' of stream 'trades' is held by process" in found.err
    finally:
        group.close()


@pytest.mark.parametrize(
    "to, code, said", [("21", 1, "from 0 to 20"), ("-1", 2, "no such option"), ("noon", 2, "an offset")]
)
def test_seek_to_nowhere(call: Call, seen: Callable[[], list[int]], to: str, code: int, said: str) -> None:
    seen()
    found = call("stream", "seek", "trades", "mine", to)
    assert (found.code, said in found.err) == (code, True), found.err
