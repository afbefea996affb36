from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.clock import iso
from penstock.connect.times import REASONS, column_times, local_times, value_times, zone_of
from penstock.errors import UsageError

CHICAGO = ZoneInfo("America/Chicago")


def shown(times: object) -> list[str]:
    ns, why = times.ns.tolist(), times.why.tolist()  # type: ignore[attr-defined]
    return [iso(t) if not w else REASONS[w][0] for t, w in zip(ns, why, strict=True)]


def test_text_of_every_form() -> None:
    text = [
        "2013-09-01T17:00:00.083Z",
        "2013-09-01 17:00:00.083-05:00",
        " 2013-09-01T17:00+0530 ",
        "2013-09-01",
        "1378072800083000000",
        None,
        "",
        "yesterday",
        "2013-02-30",
        "2013-09-01 17:00:00",
    ]
    assert shown(column_times(pa.array(text))) == [
        "2013-09-01T17:00:00.083000000Z",
        "2013-09-01T22:00:00.083000000Z",
        "2013-09-01T11:30:00.000000000Z",
        "2013-09-01T00:00:00.000000000Z",
        "2013-09-01T22:00:00.083000000Z",
        "a time",
        "a time",
        "a time such as 2013-09-01T17:00:00.083Z",
        "a time such as 2013-09-01T17:00:00.083Z",
        "a time with its zone",
    ]


def test_naive_text_in_a_zone() -> None:
    text = pa.array(["2013-09-01 17:00:00.083", "2013-12-01 17:00", "2013-09-01", "2013-09-01T17:00Z"])
    assert shown(column_times(text, zone=CHICAGO)) == [
        "2013-09-01T22:00:00.083000000Z",
        "2013-12-01T23:00:00.000000000Z",
        "2013-09-01T05:00:00.000000000Z",
        "2013-09-01T17:00:00.000000000Z",
    ]


def test_hours_that_happen_twice_or_never_are_refused() -> None:
    text = pa.array(["2013-11-03 01:30", "2013-11-03 00:59:59.9", "2013-11-03 02:00", "2013-03-10 02:30"])
    assert shown(column_times(text, zone=CHICAGO)) == [
        "a local time that happens once",
        "2013-11-03T05:59:59.900000000Z",
        "2013-11-03T08:00:00.000000000Z",
        "a local time that exists",
    ]


@pytest.mark.parametrize("unit, factor", [("ns", 1), ("us", 10**3), ("ms", 10**6), ("s", 10**9)])
def test_numbers_count_in_their_unit(unit: str, factor: int) -> None:
    far = 2**62 if factor > 1 else None
    found = column_times(pa.array([5, None, far]), unit=unit)
    assert found.ns[0] == 5 * factor
    assert shown(found)[1] == "a time"
    assert shown(found)[2] == ("a time between 1677 and 2262" if factor > 1 else "a time")
    assert column_times(pa.array(["5"]), unit=unit).ns[0] == 5 * factor
    assert column_times(pa.array([5.0]), unit=unit).ns[0] == 5 * factor


def test_floats_unsigned_and_other_types() -> None:
    assert shown(column_times(pa.array([0.25, float("nan"), float("inf")]), unit="s")) == [
        "1970-01-01T00:00:00.250000000Z",
        "a time",
        "a time between 1677 and 2262",
    ]
    assert shown(column_times(pa.array([2**63], pa.uint64()))) == ["a time between 1677 and 2262"]
    assert shown(column_times(pa.array([True, None]))) == ["a time such as 2013-09-01T17:00:00.083Z", "a time"]


def test_typed_timestamps_and_dates() -> None:
    naive = pa.array([datetime(2013, 9, 1, 17), None], pa.timestamp("ms"))  # noqa: DTZ001 - what Parquet often holds
    assert shown(column_times(naive)) == ["2013-09-01T17:00:00.000000000Z", "a time"]
    assert shown(column_times(naive, zone=CHICAGO))[0] == "2013-09-01T22:00:00.000000000Z"
    aware = pa.array([datetime(2013, 9, 1, 17, tzinfo=CHICAGO)], pa.timestamp("us", "America/Chicago"))
    assert shown(column_times(aware, zone=ZoneInfo("Asia/Tokyo"))) == ["2013-09-01T22:00:00.000000000Z"]
    assert shown(column_times(pa.array([date(2013, 9, 1)]), zone=CHICAGO)) == ["2013-09-01T05:00:00.000000000Z"]
    assert shown(column_times(aware.dictionary_encode())) == ["2013-09-01T22:00:00.000000000Z"]


def test_times_that_64_bits_do_not_hold() -> None:
    far = pa.array([datetime(2300, 1, 1), datetime(2000, 1, 1)], pa.timestamp("s"))  # noqa: DTZ001 - naive on purpose
    assert shown(column_times(far)) == ["a time between 1677 and 2262", "2000-01-01T00:00:00.000000000Z"]
    assert shown(column_times(pa.array(["2300-01-01T00:00Z", "99999999999999999999"]))) == [
        "a time between 1677 and 2262",
        "a time between 1677 and 2262",
    ]


def test_python_values() -> None:
    values = [
        5,
        np.int64(6),
        7.0,
        "1970-01-01T00:00:00.000000008Z",
        datetime(1970, 1, 1, tzinfo=UTC),
        pd.Timestamp(9, tz="UTC"),
        np.datetime64(10, "ns"),
        date(1970, 1, 2),
        None,
        pd.NaT,
        float("nan"),
        datetime(1970, 1, 1),  # noqa: DTZ001 - naive on purpose
        object(),
        2**70,
        True,
    ]
    found = value_times(values)
    assert found.ns[:8].tolist() == [5, 6, 7, 8, 0, 9, 10, 86_400 * 10**9]
    assert shown(found)[8:] == [
        *["a time"] * 3,
        "a time with its zone",
        "a time such as 2013-09-01T17:00:00.083Z",
        "a time between 1677 and 2262",
        "a time such as 2013-09-01T17:00:00.083Z",
    ]
    local = value_times([datetime(2013, 9, 1, 17), date(2013, 9, 1)], zone=CHICAGO)  # noqa: DTZ001 - naive on purpose
    assert shown(local) == ["2013-09-01T22:00:00.000000000Z", "2013-09-01T05:00:00.000000000Z"]


def test_unknown_zone() -> None:
    with pytest.raises(
        UsageError, match="expected the name of a time zone, got 'America/Chicgo' - in tz; did you mean"
    ):
        zone_of("America/Chicgo")
    assert zone_of(None) is None


@given(
    st.lists(st.datetimes(datetime(1975, 1, 1), datetime(2100, 1, 1)), min_size=1, max_size=20),  # noqa: DTZ001 - walls
    st.sampled_from(["America/New_York", "Europe/London", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]),
)
def test_local_times_agree_with_python(walls: list[datetime], name: str) -> None:
    zone = ZoneInfo(name)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    naive = np.array([(w.replace(tzinfo=UTC) - epoch) // timedelta(microseconds=1) * 1000 for w in walls])
    found = local_times(naive, zone)
    for wall, ns, why in zip(walls, found.ns.tolist(), found.why.tolist(), strict=True):
        first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        exists = first.astimezone(zone).replace(tzinfo=None) == wall
        assert (why == 0) == (first == second and exists)
        if why == 0:
            assert ns == (first - epoch) // timedelta(microseconds=1) * 1000
