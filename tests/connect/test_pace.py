from __future__ import annotations

import threading

import numpy as np
import pytest

from penstock.clock import ManualClock
from penstock.connect.pace import Pacer, speed_of
from penstock.errors import UsageError
from penstock.testing import ManualClock as Offered
from penstock_tests.waiting import PATIENCE_S

S = 1_000_000_000


@pytest.mark.parametrize(
    "pace, speed",
    [(None, None), ("max", None), ("recorded", 1.0), ("60x", 60.0), (" 0.5 × ", 0.5), (60, 60.0), (2.5, 2.5)],
)
def test_speeds(pace: object, speed: float | None) -> None:
    assert speed_of(pace) == speed


@pytest.mark.parametrize("pace", ["fast", "x60", "0x", 0, -1, float("inf"), float("nan"), True, [1]])
def test_no_speeds(pace: object) -> None:
    with pytest.raises(UsageError, match='expected "recorded", "max", a speed such as "60x", or a number above 0'):
        speed_of(pace)


def test_rows_are_due_by_their_distance_from_the_first() -> None:
    clock = ManualClock(1000 * S)
    pacer = Pacer(clock, 2.0, threading.Event())
    times = np.array([5, 5, 7, 8, 20]) * S
    assert pacer.take(times, 100) == (2, 0)
    clock.advance(1.25)  # 2.5 seconds of events: the third is due for 0.25 s
    assert pacer.take(times[2:], 100) == (1, S // 4)
    clock.advance(100)  # all are due, late by the oldest
    assert pacer.take(times[3:], 100) == (2, round(99.75 * S))


def test_no_more_than_asked_for() -> None:
    pacer = Pacer(ManualClock(), 1.0, threading.Event())
    assert pacer.take(np.zeros(10, np.int64), 3) == (3, 0)


def test_older_rows_go_at_once() -> None:
    clock = ManualClock()
    pacer = Pacer(clock, 1.0, threading.Event())
    assert pacer.take(np.array([10 * S, 3 * S, 11 * S]), 100)[0] == 2
    clock.advance(1)
    assert pacer.take(np.array([11 * S]), 100) == (1, 0)


def test_a_wait_ends_when_stopped() -> None:
    stopping = threading.Event()
    pacer = Pacer(ManualClock(), 1.0, stopping)
    assert pacer.take(np.array([0]), 1) == (1, 0)
    waiter = threading.Thread(target=lambda: found.append(pacer.take(np.array([S]), 1)))
    found: list[tuple[int, int]] = []
    waiter.start()
    stopping.set()
    waiter.join(PATIENCE_S)
    assert found == [(0, 0)]
    assert pacer.take(np.array([0]), 1) == (0, 0)


def test_max_waits_for_nothing() -> None:
    assert Pacer(ManualClock(), None, threading.Event()).take(np.array([0, S]), 5) == (5, 0)
    assert Offered is ManualClock
