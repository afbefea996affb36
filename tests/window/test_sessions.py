"""Sessions against the wall clock of their zone, computed with datetime alone."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import WindowError
from penstock.window.grid import DAY_NS, Grid
from penstock.window.sessions import Sessions

S = 1_000_000_000
MINUTE, HOUR = 60 * S, 3600 * S
NY = "America/New_York"


def at(text: str, tz: str = NY, fold: int = 0) -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(tz), fold=fold)
    return int(moment.timestamp()) * S


def spans(found: Any) -> list[tuple[int, int]]:
    return list(zip(found[0].tolist(), found[1].tolist(), strict=True))


def calendar(sessions: Sessions, first: date, days: int) -> list[tuple[int, int, int]]:
    """(start, end, close) of all segments of these days, from datetime only."""
    zone, out = ZoneInfo(sessions.tz), []
    names = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    low, high = (names.index(name) for name in sessions.days.split("-"))
    for number in range(days):
        day = first + timedelta(days=number)
        if not low <= day.weekday() <= high or day.isoformat() in sessions.holidays:
            continue

        def moment(text: str, shift: int, day: date = day) -> int:
            clock = datetime.combine(day + timedelta(days=shift), time.fromisoformat(text))
            return int(clock.replace(tzinfo=zone).timestamp()) * S

        opens, closes = sessions.hours.split("-")
        night = closes <= opens
        cuts = [moment(opens, -night)]
        for rest in sessions.breaks:
            cuts += [moment(text, -(night and text > opens)) for text in rest.split("-")]
        cuts.append(moment(closes, 0))
        out += [(a, b, cuts[-1]) for a, b in zip(cuts[::2], cuts[1::2], strict=True)]
    return out


EXAMPLES = [
    Sessions("09:30-16:00", tz=NY),
    Sessions("09:30-16:00", tz=NY, breaks=["12:00-13:00"], holidays=["2026-03-10", date(2026, 3, 12)]),
    Sessions("18:00-17:00", tz=NY),
    Sessions("18:00-17:00", tz=NY, breaks=["23:00-23:30", "12:00-13:00"], closing="include"),
    Sessions("17:00-17:00", tz=NY, closing="include"),
    Sessions("09:00-15:30", tz="Asia/Kolkata", outside="keep"),
    Sessions("21:00-15:00", tz="Asia/Shanghai", breaks=["02:30-09:00", "11:30-13:30"], outside="keep"),
    Sessions("08:00-16:30", tz="Europe/London", closing="include", outside="keep"),
    Sessions("10:00-16:10", tz="Australia/Lord_Howe", days="mon-sun", closing="include"),
]


def window(sessions: Sessions, segments: list[tuple[int, int, int]], size: int, moment: int) -> Any:
    """(start, end, over) of the interval of one time, or None outside."""
    last = sessions.closing == "include"
    opens = {segment[0] for segment in segments}
    for start, end, close in segments:
        shut = last and moment == end == close and moment not in opens
        if start <= moment < end or shut:
            if size == DAY_NS:
                start, end = next(a for a, _, c in segments if c == close), close
            else:
                start += (moment - start - shut) // size * size
                end = min(start + size, end)
            return start, end, end + (last and end == close and end not in opens)
    if sessions.outside == "drop":
        return None
    start, end = Grid(size, tz=sessions.tz).span(moment)
    if size == DAY_NS:
        for _, _, close in segments:
            first = next(a for a, _, c in segments if c == close)
            if first <= moment < close:
                return first, close, close + (last and close not in opens)
    start = max([start, *(b for _, b, _ in segments if b <= moment)])
    end = min([end, *(a for a, _, _ in segments if a > moment)])
    return start, end, end


@pytest.mark.parametrize("sessions", EXAMPLES, ids=repr)
def test_intervals_are_those_of_the_calendar(sessions: Sessions) -> None:
    # Two weeks around the change of clocks of New York, London and Lord Howe.
    weeks = [date(2026, 3, 5), date(2026, 10, 29), date(2026, 3, 26), date(2026, 10, 1)]
    segments = {week: calendar(sessions, week - timedelta(days=8), 32) for week in weeks}
    borders = sorted({b for found in segments.values() for segment in found for b in segment[:2]})

    @settings(max_examples=60, deadline=None)
    @given(
        st.sampled_from(weeks),
        st.lists(
            st.tuples(st.integers(0, len(borders) - 1), st.integers(-2 * HOUR, 2 * HOUR) | st.integers(-1, 1)),
            min_size=1,
            max_size=10,
        ),
        st.sampled_from([MINUTE, 7 * MINUTE, HOUR, 5 * HOUR, DAY_NS]),
    )
    def check(week: date, near: list[tuple[int, int]], size: int) -> None:
        start = int(datetime.combine(week, time(), UTC).timestamp()) * S
        inside = [b for b in borders if start <= b < start + 12 * DAY_NS]
        times = [inside[i % len(inside)] + shift for i, shift in near]
        expected = [window(sessions, segments[week], size, t) for t in times]
        grid = sessions.grid(size)
        starts, ends, over, good = grid.assign(np.array(times))
        found = list(zip(starts.tolist(), ends.tolist(), over.tolist(), strict=True))
        assert [pair if ok else None for pair, ok in zip(found, good.tolist(), strict=True)] == expected
        all_starts, all_ends, all_over = grid.between(min(times), max(times))
        every = set(zip(all_starts.tolist(), all_ends.tolist(), all_over.tolist(), strict=True))
        assert set(expected) - {None} <= every
        assert (np.diff(all_starts) > 0).all()
        assert (all_starts[1:] >= all_ends[:-1]).all()
        in_session = [any(a <= t < b for a, b, _ in segments[week]) for t in times]
        assert sessions.open_at(np.array(times)).tolist() == in_session

    check()


@pytest.mark.parametrize(
    "close, hours", [("2026-03-06", 23), ("2026-03-09", 23), ("2026-03-08", 22), ("2026-11-01", 24)]
)
def test_an_overnight_session_has_the_hours_that_pass(close: str, hours: int) -> None:
    sessions = Sessions("18:00-17:00", tz=NY, days="mon-sun")
    end = at(close + "T17:00")
    starts, ends, over = sessions.grid(HOUR).between(end - hours * HOUR, end - 1)
    assert len(starts) == hours
    assert starts[0] == at((date.fromisoformat(close) - timedelta(days=1)).isoformat() + "T18:00")
    assert ends[-1] == over[-1] == end


def test_an_overnight_session_belongs_to_the_day_on_which_it_closes() -> None:
    sessions = Sessions("18:00-17:00", tz=NY)
    assert sessions.open_at([at("2026-03-01T18:00")]).all()  # Sunday evening
    assert not sessions.open_at([at("2026-03-06T18:00"), at("2026-03-01T17:59:59")]).any()


def test_hours_the_clock_jumps_over_or_shows_twice() -> None:
    night = Sessions("02:15-02:45", tz=NY, days="sun")
    low, high = at("2026-03-08T00:00"), at("2026-03-08T06:00")
    assert spans(night.grid(MINUTE).between(low, high)) == []  # both are the instant of the jump
    early = Sessions("02:30-03:30", tz=NY, days="sun")
    assert spans(early.grid(HOUR).between(low, high)) == [(at("2026-03-08T03:00"), at("2026-03-08T03:30"))]
    twice = Sessions("01:30-03:00", tz=NY, days="sun")
    low, high = at("2026-11-01T00:00"), at("2026-11-01T06:00")
    first = at("2026-11-01T01:30", fold=0)
    assert spans(twice.grid(DAY_NS).between(low, high)) == [(first, first + 2 * HOUR + 30 * MINUTE)]


def test_an_early_close() -> None:
    sessions = Sessions(
        "09:30-16:00",
        tz=NY,
        breaks=["12:00-13:00"],
        special={"2026-11-27": "09:30-12:30", date(2026, 12, 24): "09:30-14:00"},
    )
    day = spans(sessions.grid(DAY_NS).between(at("2026-11-27T00:00"), at("2026-11-27T23:00")))
    assert day == [(at("2026-11-27T09:30"), at("2026-11-27T12:00"))]
    day = spans(sessions.grid(5 * HOUR).between(at("2026-12-24T00:00"), at("2026-12-24T23:00")))
    assert day == [(at("2026-12-24T09:30"), at("2026-12-24T12:00")), (at("2026-12-24T13:00"), at("2026-12-24T14:00"))]


def test_a_session_is_a_value() -> None:
    one = Sessions("09:30-16:00", tz=NY, breaks=["12:00-13:00"], special={"2026-11-27": "09:30-13:00"})
    other = Sessions("09:30-16:00", tz=NY, breaks="12:00-13:00", special={date(2026, 11, 27): "09:30-13:00"})
    assert one == other
    assert hash(one) == hash(other)
    assert one != Sessions("09:30-16:00", tz=NY)
    assert repr(Sessions("09:30-16:00", tz=NY)) == "Sessions('09:30-16:00', tz='America/New_York')"
    assert repr(one) == (
        "Sessions('09:30-16:00', tz='America/New_York', breaks=['12:00-13:00'], special={'2026-11-27': '09:30-13:00'})"
    )
    assert eval(repr(one)) == one


def test_days_may_be_listed_and_go_around_the_week() -> None:
    friday = at("2026-03-06T12:00")
    open_on = [
        bool(Sessions("09:30-16:00", tz=NY, days="Fri-mon, wed").open_at([friday + i * DAY_NS])[0])
        for i in (0, 1, 3, 4, 5, 6)
    ]
    assert open_on == [True, True, True, False, True, False]


def test_no_times() -> None:
    sessions = Sessions("09:30-16:00", tz=NY, holidays="2026-03-05")
    assert len(sessions.open_at([])) == 0
    assert [len(column) for column in sessions.grid(HOUR).assign([])] == [0, 0, 0, 0]
    noon = at("2026-03-05T12:00")
    assert [len(column) for column in sessions.grid(HOUR).between(noon, noon)] == [0, 0, 0]
    assert not Sessions("09:30-16:00", tz=NY, days="sat").grid(HOUR).assign([noon])[3].any()


def test_times_far_apart_look_up_only_the_days_in_use() -> None:
    sessions = EXAMPLES[1]
    times = [at("1975-01-06T10:00"), at("2026-03-09T10:00"), at("2200-01-06T10:00")]
    starts, _, _, good = sessions.grid(HOUR).assign(times)
    assert good.all()
    assert (np.array(times) - starts == 30 * MINUTE).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Sessions("9-16", tz=NY), "expected hours such as \"09:30-16:00\", got '9-16' - in Sessions"),
        (lambda: Sessions("09:61-16:00", tz=NY), "expected hours such as"),
        (lambda: Sessions("24:00-16:00", tz=NY), "expected hours such as"),
        (lambda: Sessions(930, tz=NY), "expected hours such as"),  # type: ignore[arg-type]
        (lambda: Sessions("09:30-16:00", tz="Nowhere"), "expected the name of a time zone, got 'Nowhere' - in tz"),
        (
            lambda: Sessions("09:30-16:00", tz=NY, breaks=["16:00-17:00"]),
            "expected breaks inside 09:30-16:00, in order and apart, got '16:00-17:00' - in Sessions; write them as "
            '"12:00-13:00"',
        ),
        (lambda: Sessions("09:30-16:00", tz=NY, breaks=["12:00-13:00", "11:00-12:00"]), "expected breaks inside"),
        (
            lambda: Sessions("09:30-16:00", tz=NY, days="mon-fry"),
            'expected days such as "mon-fri" or "mon,wed,sun", got \'mon-fry\' - in Sessions',
        ),
        (
            lambda: Sessions("09:30-16:00", tz=NY, holidays=["Christmas"]),
            "expected a date, or text such as \"2026-12-25\", got 'Christmas' - in Sessions",
        ),
        (
            lambda: Sessions("09:30-16:00", tz=NY, outside="hide"),  # type: ignore[arg-type]
            "expected outside of 'drop' or 'keep', got 'hide' - in Sessions",
        ),
        (
            lambda: Sessions("09:30-16:00", tz=NY, closing="yes"),  # type: ignore[arg-type]
            "expected closing of 'exclude' or 'include', got 'yes' - in Sessions",
        ),
        (
            lambda: Sessions("09:30-16:00", tz=NY).grid(2 * DAY_NS),
            "expected an interval of at most a day with sessions, got 172800000000000 ns - in Sessions('09:30-16:00', "
            "tz='America/New_York'); make longer bars from the bars of one day, with tz and without sessions",
        ),
    ],
)
def test_what_cannot_be_sessions(make: Any, message: str) -> None:
    with pytest.raises(WindowError) as error:
        make()
    assert str(error.value).startswith(message)
