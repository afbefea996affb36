"""Streams that cannot be read are tried again, ever more seldom."""

from __future__ import annotations

from penstock.plant.unread import Unread

SECOND = 1_000_000_000


def test_pauses_double_up_to_a_minute() -> None:
    unread, now, waited = Unread(), 0, []
    unread.add("a", "damaged", now)
    for _ in range(8):
        pause = 0
        while not unread.due(now + pause):
            pause += SECOND
        waited.append(pause // SECOND)
        now += pause
        unread.add("a", "damaged still", now)
    assert waited == [1, 2, 4, 8, 16, 32, 60, 60]
    unread.add("b", "too", now)
    assert unread.why == {"a": "damaged still", "b": "too"}
    assert unread.due(now + SECOND) == ["b"]
    unread.remove("a")
    unread.remove("a")
    assert unread.why == {"b": "too"}
    unread.add("a", "anew", now)
    assert unread.due(now + SECOND) == ["b", "a"]
