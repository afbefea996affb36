"""Streams of a few numbers, and of numbers with times; what windows of them hold."""

from __future__ import annotations

import pyarrow as pa

import penstock as ps

__all__ = ["EVENTS", "events", "left", "ns", "numbers"]

EVENTS = pa.schema({"ts_event": pa.int64(), "key": pa.string(), "n": pa.int64()})


def numbers(hub: ps.Hub, count: int, name: str = "s") -> ps.log.Stream:
    """Append documents with n from 0, or from the stream's end, on."""
    stream = hub.streams.get(name)
    start = stream.next_offset
    stream.append([{"n": start + n} for n in range(count)])
    return stream


def events(hub: ps.Hub, *times: float, key: str = "k") -> ps.log.Stream:
    """Append rows to `e` with these times, in seconds; n is a row's offset."""
    stream = hub.streams.get("e", schema=EVENTS)
    start = stream.next_offset
    stream.append([{"ts_event": int(t * 1e9), "key": key, "n": start + n} for n, t in enumerate(times)])
    return stream


def ns(window: ps.Window) -> list[int]:
    """The `n` of its rows."""
    return [row["n"] for row in window.data]


def left(hub: ps.Hub, name: str = "s", group: str = "default") -> list[int]:
    """Offsets that the group has still to do."""
    return [item.offset for item in hub.streams.get(name).buffer(group)]
