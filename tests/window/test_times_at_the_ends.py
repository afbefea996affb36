"""A row whose window lies beyond what nanoseconds hold is set aside; it does not stop the consumer for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import penstock as ps
from penstock.errors import WindowError
from penstock.hub import Hub

SECOND = 10**9
NOON = 1_767_268_800 * SECOND
GOOD = [NOON, NOON + SECOND, NOON + 6 * SECOND, NOON + 12 * SECOND]
KINDS: dict[str, dict[str, Any]] = {
    "fixed": {"interval": 5},
    "fixed by": {"interval": 5, "by": "symbol"},
    "late": {"interval": 5, "lateness": 100},
    "days": {"interval": "1d", "tz": "Europe/Berlin"},
    "empty": {"interval": 5, "emit_empty": True},
    "sliding": {"interval": 5, "every": 1},
    "session": {"gap": 5},
    "bars": {"bars": "5s"},
}


def rows(times: list[int]) -> list[dict[str, Any]]:
    return [{"symbol": "A", "ts_event": time, "price": 1.0, "size": 1} for time in times]


def windows(hub: Hub, name: str, times: list[list[int]], options: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """The windows of a stream, as (start, end, times), and its errors, as (offset, message)."""
    stream = hub.streams.get(name, schema=ps.records.TRADES)
    for some in times:
        stream.append(rows(some))
    options = dict(options)
    if "bars" in options:
        options["emitter"] = ps.window.Bars(options.pop("bars"))
    found: list[Any] = []
    streaming = hub.streams.get(name, lazy=True, blocking=False, flush=True, group="g", **options)
    streaming.apply(lambda w: found.append((w.start_ns, w.end_ns, w.table["ts_event"].to_pylist())))
    if f"{name}.errors" not in hub.streams:
        return found, []
    return found, [(row["first_offset"], row["message"]) for row in hub.streams.get(f"{name}.errors").rows()]


@pytest.mark.parametrize(
    "kind, bad",
    # A session before all others is one like any other.
    [(kind, bad) for kind in KINDS for bad in (2**63 - 1, -(2**63)) if kind != "session" or bad > 0],
)
def test_a_time_at_the_end_of_time(kind: str, bad: int, tmp_path: Path) -> None:
    with ps.open(tmp_path / "hub") as hub:
        expected, none = windows(hub, "good", [GOOD], KINDS[kind])
        assert none == []
        at_once, one = windows(hub, "at once", [[GOOD[0], bad, *GOOD[1:]]], KINDS[kind])
        in_parts, same = windows(hub, "in parts", [GOOD[:1], [bad], GOOD[1:]], KINDS[kind])
        assert at_once == in_parts == expected
        assert one == same
        assert [offset for offset, _ in one] == [1]
        assert "expected" in one[0][1]


def test_on_error_stop_raises(tmp_path: Path) -> None:
    with ps.open(tmp_path / "hub") as hub:
        hub.streams.get("s", schema=ps.records.TRADES).append(rows([NOON, 2**63 - 1]))
        with pytest.raises(WindowError, match=r"expected a window within int64 nanoseconds \(years 1677 to 2262\)"):
            hub.streams.get("s", lazy=True, blocking=False, interval=5, on_error="stop").apply(print)
