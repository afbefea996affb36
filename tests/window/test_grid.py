"""Grid against calendars computed the slow way, and at the edges of int64."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import WindowError
from penstock.window.grid import DAY_NS, Grid, local_ns

S = 1_000_000_000
HOUR = 3600 * S
LOW, HIGH = -(2**63), 2**63 - 1

# Days whose clocks do something: the usual hour at 01:00 to 03:00, half an hour, at midnight, and whole days.
ODD_DAYS = [
    ("America/New_York", date(2026, 3, 8), 23),
    ("America/New_York", date(2026, 11, 1), 25),
    ("Europe/London", date(2026, 3, 29), 23),
    ("Europe/London", date(2026, 10, 25), 25),
    ("Australia/Sydney", date(2026, 10, 4), 23),
    ("Australia/Sydney", date(2026, 4, 5), 25),
    ("Australia/Lord_Howe", date(2026, 10, 4), 23.5),
    ("Australia/Lord_Howe", date(2026, 4, 5), 24.5),
    ("Asia/Kolkata", date(2026, 3, 8), 24),
    ("America/Sao_Paulo", date(2018, 11, 4), 23),  # 00:00 is jumped over
    ("America/Sao_Paulo", date(2018, 2, 17), 25),  # 23:00 comes twice
    ("America/Havana", date(2024, 11, 3), 25),  # 00:00 comes twice
    ("America/St_Johns", date(1990, 10, 27), 24),  # 00:01 of the 28th is 23:01 of the 27th again
    ("Pacific/Apia", date(2011, 12, 29), 24),
    ("Pacific/Apia", date(2011, 12, 30), 0),  # a day that was not
    ("UTC", date(2026, 2, 28), 24),
]


def instant(second: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)


@cache
def first_instant(tz: str, day: date) -> int:
    """The first minute at which the calendar of `tz` shows `day` or a later one, found by looking at each."""
    second = (day.toordinal() - date(1970, 1, 1).toordinal()) * 86_400 - 27 * 3600
    while instant(second).astimezone(ZoneInfo(tz)).date() < day:
        second += 60
    return second * S


def day_of(tz: str, time: int) -> date:
    shown = instant(time // S).astimezone(ZoneInfo(tz)).date()
    # After a jump back over midnight the old date shows again, but the new day has begun.
    return shown + timedelta(days=1) if first_instant(tz, shown + timedelta(days=1)) <= time else shown


def window(size: int, tz: str, time: int) -> tuple[int, int]:
    day = day_of(tz, time)
    if size >= DAY_NS:
        count = size // DAY_NS
        first = day - timedelta(days=(day - date(1970, 1, 1)).days % count)
        return first_instant(tz, first), first_instant(tz, first + timedelta(days=count))
    midnight, end = first_instant(tz, day), first_instant(tz, day + timedelta(days=1))
    start = midnight + (time - midnight) // size * size
    return start, min(start + size, end)


@pytest.mark.parametrize("tz, day, hours", ODD_DAYS)
def test_a_local_day_is_cut_into_hours_from_its_own_midnight(tz: str, day: date, hours: float) -> None:
    number = day.toordinal() - date(1970, 1, 1).toordinal()
    start, end = local_ns(tz, number, 0), local_ns(tz, number + 1, 0)
    assert (start, end) == (first_instant(tz, day), first_instant(tz, day + timedelta(days=1)))
    assert end - start == hours * HOUR
    if not hours:
        return
    grid = Grid(HOUR, tz=tz)
    starts, ends = grid.between(start, end - 1)
    assert starts.tolist() == list(range(start, end, HOUR))
    assert ends.tolist() == [*starts.tolist()[1:], end]
    assert Grid(DAY_NS, tz=tz).span(start) == (start, end)


@pytest.mark.parametrize("tz", sorted({tz for tz, _, _ in ODD_DAYS}))
def test_windows_of_local_time_are_those_of_the_calendar(tz: str) -> None:
    days = [first_instant(name, day) for name, day, _ in ODD_DAYS if name == tz]
    near = st.builds(lambda day, off: day + off, st.sampled_from(days), st.integers(-2 * DAY_NS, 2 * DAY_NS))
    sizes = st.sampled_from([S, 7 * 60 * S, HOUR, 7 * HOUR, DAY_NS, 2 * DAY_NS, 7 * DAY_NS])

    @settings(max_examples=60, deadline=None)
    @given(st.lists(near, min_size=1, max_size=20), sizes)
    def check(times: list[int], size: int) -> None:
        grid = Grid(size, tz=tz)
        starts, ends = grid.assign(np.array(times))
        assert list(zip(starts.tolist(), ends.tolist(), strict=True)) == [window(size, tz, t) for t in times]
        assert [grid.span(t) for t in times] == list(zip(starts.tolist(), ends.tolist(), strict=True))

    check()


@settings(deadline=None)
@given(
    st.sampled_from([None, "America/New_York", "Australia/Lord_Howe"]),
    st.sampled_from([HOUR // 2, 7 * HOUR, DAY_NS, 3 * DAY_NS]),
    st.integers(-(10**18), 4 * 10**18),
    st.integers(0, 12 * DAY_NS),
)
def test_between_gives_the_windows_of_all_instants(tz: str | None, size: int, low: int, length: int) -> None:
    grid = Grid(size, tz=tz)
    starts, ends = grid.between(low, low + length)
    assert (starts[1:] == ends[:-1]).all()
    assert starts[0] <= low < ends[0]
    assert starts[-1] <= low + length < ends[-1]
    inside = np.linspace(low, low + length, 50, dtype=np.int64)
    assert set(grid.assign(inside)[0].tolist()) <= set(starts.tolist())
    for a, b in pairwise(starts.tolist()):
        assert grid.next(a) == b
        assert grid.previous(b) == a
        assert grid.next(b - 1) == b
        assert grid.previous(a + 1) == a


@given(st.integers(1, 10**19), st.integers(LOW, HIGH), st.lists(st.integers(LOW, HIGH), min_size=1, max_size=5))
def test_no_window_wraps_around_int64(size: int, origin: int, times: list[int]) -> None:
    expected = [(t - (t - origin) % size, t - (t - origin) % size + size) for t in times]
    fits = size <= HIGH and all(low >= LOW and high <= HIGH for low, high in expected)
    try:
        starts, ends = Grid(size, origin_ns=origin).assign(np.array(times))
    except WindowError:
        assert not fits
    else:
        assert fits
        assert list(zip(starts.tolist(), ends.tolist(), strict=True)) == expected


@pytest.mark.parametrize("tz", [None, "UTC", "America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("time", [LOW, LOW + 1, HIGH - 1, HIGH])
@pytest.mark.parametrize("size", [HOUR, DAY_NS])
def test_a_window_over_the_edge_of_int64_is_refused(tz: str | None, time: int, size: int) -> None:
    grid = Grid(size, tz=tz)
    with pytest.raises(WindowError, match="within int64 nanoseconds"):
        grid.assign(np.array([time]))
    with pytest.raises(WindowError, match="within int64 nanoseconds"):
        grid.span(time)


@pytest.mark.parametrize("year", [1680, 1850, 1969, 1970, 2037, 2100, 2261])
def test_far_years(year: int) -> None:
    day = date(year, 7, 2)
    time = first_instant("UTC", day) + 5 * HOUR + 1
    for tz in ("America/New_York", "Asia/Kolkata"):
        start, end = Grid(DAY_NS, tz=tz).span(time)
        # Local mean time once had seconds, which the calendar above does not look at.
        shown = instant(start // S).astimezone(ZoneInfo(tz)).replace(tzinfo=None)
        assert (shown.time().isoformat(), shown.date()) == ("00:00:00", day_of(tz, time))
        assert end - start == 24 * HOUR
    assert Grid(HOUR).span(time) == (time - 1, time - 1 + HOUR)


def test_batches_over_many_years_look_up_only_the_days_in_use() -> None:
    times = np.array([-(6 * 10**18), 0, 8 * 10**18])
    grid = Grid(HOUR, tz="America/New_York")
    starts, ends = grid.assign(times)
    assert [grid.span(int(t)) for t in times] == list(zip(starts.tolist(), ends.tolist(), strict=True))


def test_weeks_start_where_origin_says() -> None:
    monday = Grid(7 * DAY_NS, tz="Europe/London", origin_ns=4 * DAY_NS)
    start, end = monday.span(first_instant("Europe/London", date(2026, 3, 29)))
    assert (start, end) == (
        first_instant("Europe/London", date(2026, 3, 23)),
        first_instant("Europe/London", date(2026, 3, 30)),
    )
    assert end - start == 7 * DAY_NS - HOUR


def test_no_times_have_no_windows() -> None:
    for tz in (None, "UTC"):
        starts, ends = Grid(5, tz=tz).assign([])
        assert (starts.dtype, len(starts), len(ends)) == (np.dtype(np.int64), 0, 0)


def test_a_grid_is_a_value() -> None:
    assert Grid(5, tz="UTC") == Grid(5, tz=ZoneInfo("UTC").key)
    assert {Grid(5), Grid(5, origin_ns=0)} == {Grid(5)}
    assert repr(Grid(5)) == "Grid(size_ns=5, origin_ns=0, tz=None)"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, {}), "expected size_ns of 1 to 2**63 - 1, got 0 - in Grid"),
        ((-5, {}), "expected size_ns of 1 to 2**63 - 1, got -5 - in Grid"),
        ((2**63, {}), f"expected size_ns of 1 to 2**63 - 1, got {2**63} - in Grid"),
        ((1.5, {}), "expected an integer of nanoseconds for size_ns, got 1.5 - in Grid"),
        ((True, {}), "expected an integer of nanoseconds for size_ns, got True - in Grid"),
        ((5, {"origin_ns": None}), "expected an integer of nanoseconds for origin_ns, got None - in Grid"),
        ((5, {"origin_ns": 2**63}), f"expected origin_ns within int64, got {2**63} - in Grid"),
        (
            (DAY_NS + 1, {"tz": "UTC"}),
            "expected size_ns of at most a day, or of whole days, with tz, got 86400000000001 ns - in Grid(tz='UTC'); "
            "leave tz out to count from the epoch",
        ),
        (
            (5, {"tz": "UTC", "origin_ns": 7}),
            "expected origin_ns of whole days with tz, got 7 ns - in Grid(tz='UTC'); leave tz out to put borders "
            "anywhere, or use Sessions for days that open at another hour",
        ),
        (
            (5, {"tz": "Mars/Olympus"}),
            "expected the name of a time zone, got 'Mars/Olympus' - in tz; use a name such as \"America/New_York\"; "
            "on a system without zone data, pip install tzdata",
        ),
    ],
)
def test_what_cannot_be_a_grid(arguments: tuple[int, dict[str, object]], message: str) -> None:
    size, options = arguments
    with pytest.raises(WindowError) as error:
        Grid(size, **options)  # type: ignore[arg-type]
    assert str(error.value) == message


@pytest.mark.parametrize("bad", ["", "../etc", 5, object()])
def test_a_zone_must_have_a_name(bad: object) -> None:
    with pytest.raises(WindowError, match="expected the name of a time zone"):
        Grid(5, tz=bad)  # type: ignore[arg-type]


def test_a_day_outside_the_calendar_is_refused() -> None:
    with pytest.raises(WindowError, match="expected a local day within years 1 to 9999, got day 9000000"):
        local_ns("UTC", 9_000_000, 0)
