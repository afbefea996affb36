"""Room for so many messages at a time, and none for those that send nothing."""

from __future__ import annotations

import threading

import pytest

from penstock.errors import UsageError
from penstock.store.service.gate import Gate


def entered(gate: Gate) -> threading.Event:
    """Set once another one has room."""
    found = threading.Event()

    def enter() -> None:
        gate.place().wait()
        found.set()

    threading.Thread(target=enter, daemon=True).start()
    return found


def test_those_that_have_a_message_keep_their_room_until_they_leave() -> None:
    gate = Gate(2, clock=lambda: 1e9)
    first, second = gate.place(), gate.place()
    for place in (first, second):
        place.wait()
        place.came()
    third = entered(gate)
    assert not third.wait(0.05)
    assert len(gate) == 2
    first.leave()
    assert third.wait(600)
    assert len(gate) == 2


def test_one_that_sends_nothing_makes_way() -> None:
    now = [0.0]
    gate = Gate(1, idle_s=5.0, clock=lambda: now[0])
    idle = gate.place()
    idle.wait()
    now[0] = 6.0
    other = gate.place()
    other.wait()  # has the room of the other
    assert len(gate) == 1
    idle.came()  # its message comes at last: one more than there is room for
    assert len(gate) == 2
    idle.leave()
    idle.leave()
    other.came()
    assert len(gate) == 1
    assert not entered(gate).wait(0.05)


def test_room_for_none_is_refused() -> None:
    with pytest.raises(UsageError, match="expected at least 1 place, got 0 - in a gate"):
        Gate(0)
