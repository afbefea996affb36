"""Units of time, and the clock that tests move."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest

from penstock.clock import WALL, ManualClock, duration_ns, iso, time_ns, utc
from penstock.errors import UsageError

NINE_THIRTY = 1_795_167_000_000_000_000


@pytest.mark.parametrize(
    "value, ns",
    [
        (0, 0),
        (2, 2_000_000_000),
        (0.25, 250_000_000),
        ("500ms", 500_000_000),
        ("1m30s", 90_000_000_000),
        ("1h", 3_600_000_000_000),
        ("1.5h", 5_400_000_000_000),
        ("2 min", 120_000_000_000),
        ("1d", 86_400_000_000_000),
        ("1w", 604_800_000_000_000),
        ("7us", 7_000),
        ("7µs", 7_000),
        (timedelta(days=1, microseconds=1), 86_400_000_001_000),
        (np.timedelta64(5, "ms"), 5_000_000),
        (pd.Timedelta("1us"), 1_000),
        (np.float64(0.5), 500_000_000),
    ],
)
def test_durations(value: object, ns: int) -> None:
    assert duration_ns(value) == ns


@pytest.mark.parametrize(
    "value",
    ["", "1 fortnight", "m", "-1s", None, True, float("nan"), float("inf"), -1, "1m x", [], np.timedelta64("NaT", "s")],
)
def test_no_duration(value: object) -> None:
    with pytest.raises(UsageError, match="expected a "):
        duration_ns(value, name="interval")


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 11, 20, 9, 30, tzinfo=UTC),
        datetime(2026, 11, 20, 4, 30, tzinfo=timezone(timedelta(hours=-5))),
        "2026-11-20T09:30:00Z",
        "2026-11-20 09:30Z",
        "2026-11-20T10:30:00+01:00",
        "2026-11-20T10:30:00.000000000+0100",
        np.datetime64("2026-11-20T09:30"),
        pd.Timestamp("2026-11-20T09:30Z"),
    ],
)
def test_times(value: object) -> None:
    assert time_ns(value) == NINE_THIRTY


def test_nanoseconds_are_kept() -> None:
    assert time_ns("2026-11-20T09:30:00.123456789Z") == NINE_THIRTY + 123_456_789
    assert time_ns(pd.Timestamp("2026-11-20T09:30:00.123456789Z")) == NINE_THIRTY + 123_456_789
    assert time_ns("1969-12-31T23:59:59.999999999Z") == -1
    assert time_ns("2026-11-20") == time_ns("2026-11-20T00:00Z")


@pytest.mark.parametrize(
    "value, message",
    [
        (datetime(2026, 11, 20, 9, 30), "a datetime with a time zone"),  # noqa: DTZ001
        ("2026-11-20T09:30:00", "a time with its zone"),
        ("yesterday", "a time with its zone"),
        ("2026-13-01T00:00Z", "a time with its zone"),
        (17, "a time with its zone"),
        (None, "a time with its zone"),
        (np.datetime64("NaT", "ns"), "a time that fits"),
        (np.datetime64("3000-01-01"), "a time that fits"),
        (pd.NaT, "a time"),
    ],
)
def test_no_time(value: object, message: str) -> None:
    with pytest.raises(UsageError, match=f"expected {message}.* - in start"):
        time_ns(value, name="start")


def test_text_of_a_time() -> None:
    assert iso(NINE_THIRTY + 1) == "2026-11-20T09:30:00.000000001Z"
    assert iso(-1) == "1969-12-31T23:59:59.999999999Z"
    assert utc(NINE_THIRTY) == datetime(2026, 11, 20, 9, 30, tzinfo=UTC)


def test_a_manual_clock_moves_only_forward() -> None:
    clock = ManualClock(5)
    assert clock.advance(1.5, ns=1) == 1_500_000_006 == clock.now_ns()
    with pytest.raises(UsageError, match="a step forward"):
        clock.advance(-1)


def test_waiting_on_a_manual_clock_ends_when_it_moved() -> None:
    clock, event, woken = ManualClock(), threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (clock.wait(event, 10), woken.set()))
    thread.start()
    while not woken.wait(0.001):  # the thread may begin to wait at any of these
        clock.advance(1)
    thread.join()
    assert clock.now_ns() >= 10_000_000_000
    event.set()
    assert clock.wait(event, 10)


def test_the_wall_clock_is_the_machines() -> None:
    before = time.time_ns()
    assert before <= WALL.now_ns() <= time.time_ns()
    event = threading.Event()
    event.set()
    assert WALL.wait(event, 10)
