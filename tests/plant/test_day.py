from __future__ import annotations

import pytest

from penstock.clock import time_ns
from penstock.errors import UsageError
from penstock.plant.day import DayEnd


def test_a_day_ends_once() -> None:
    end = DayEnd("17:00 America/New_York", time_ns("2026-03-06T12:00:00Z"))
    assert end.over(time_ns("2026-03-06T21:59:59Z")) is None
    assert end.over(time_ns("2026-03-06T22:00:00Z")) == "2026-03-06"
    assert end.over(time_ns("2026-03-06T22:00:01Z")) is None
    assert end.over(time_ns("2026-03-08T20:59:59Z")) == "2026-03-07"
    assert end.over(time_ns("2026-03-08T21:00:00Z")) == "2026-03-08"  # summer time has begun


def test_without_a_zone_it_is_utc() -> None:
    end = DayEnd("00:00", time_ns("2026-01-01T00:00:00Z"))
    assert end.over(time_ns("2026-01-01T23:59:59Z")) is None
    assert end.over(time_ns("2026-01-02T00:00:00Z")) == "2026-01-02"


@pytest.mark.parametrize("text", ["", "24:00", "17", "17:00 Nowhere/Land", "17:00 ../etc", None], ids=repr)
def test_what_is_no_time_of_day(text: str) -> None:
    with pytest.raises(UsageError, match='expected a time of day such as "17:00 America/New_York"'):
        DayEnd(text, 0)
