"""Time columns as files hold them → nanoseconds UTC, with the reason beside every cell that is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.clock import time_ns, utc
from penstock.errors import UsageError
from penstock.records.describe import near
from penstock.records.values import is_missing

__all__ = ["MISSING", "REASONS", "UNITS", "Times", "column_times", "local_times", "value_times", "zone_of"]

UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}

MISSING, NO_ZONE, TWICE, NEVER, UNREADABLE, OUT_OF_RANGE = range(1, 7)
REASONS = {
    MISSING: ("a time", 'fill it, or set on_bad="skip" to drop such rows'),
    NO_ZONE: (
        "a time with its zone",
        'set tz="UTC", or the zone the file was written in, such as tz="America/Chicago"',
    ),
    TWICE: ("a local time that happens once", "the clock was set back over it; write the file in UTC"),
    NEVER: ("a local time that exists", "the clock was set forward over it; check tz="),
    UNREADABLE: ("a time such as 2013-09-01T17:00:00.083Z", 'set on_bad="skip" to drop such rows'),
    OUT_OF_RANGE: ("a time between 1677 and 2262", "check unit="),
}
"""Why a cell is no time: what was expected, and the next step. Keys are the codes in `Times.why`."""

# A zone stands only after a time of day: the last part of 2013-09-01 is no offset.
_ZONED = r"^\d{4}-\d\d-\d\d[T ][\d:.]+(Z|[+-]\d\d(:?\d\d)?)$"
_NAIVE = r"^\d{4}-\d\d-\d\d[T ][\d:.]+$"
_DATE = r"^\d{4}-\d\d-\d\d$"
_NUMBER = r"^-?\d+$"
_QUARTER = 900 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Times:
    """ns  (rows,) int64, 0 where there is no time;  why  (rows,) int8: 0, or the key of the reason in `REASONS`."""

    ns: NDArray[np.int64]
    why: NDArray[np.int8]


def zone_of(name: str | None) -> ZoneInfo | None:
    """The zone of an IANA name.   Raises  UsageError, with the near names."""
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        from zoneinfo import available_timezones

        close = near(str(name), available_timezones())
        hint = f"did you mean {close!r}?" if close else 'give a name such as "America/New_York" or "UTC"'
        raise UsageError(expected="the name of a time zone", got=repr(name), where="in tz", hint=hint) from None


def column_times(column: pa.Array, *, unit: str = "ns", zone: ZoneInfo | None = None) -> Times:
    """Event times of one column.

    Takes   column: (rows,) integers or floats (counted in `unit` since 1970), timestamps, dates, or text: ISO 8601,
            or digits in `unit`; zone: where times without a zone were written.
    Returns Times. Typed timestamps and dates without a zone are UTC when `zone` is None, as their makers mean them;
            text with a time of day but no zone is refused then.
    Edges   Local times that the clock ran through twice, or never, are refused: nothing is guessed.
    Cost    O(rows), about 50 ns per row of text.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    missing = column.is_null().to_numpy(zero_copy_only=False)
    why = np.where(missing, MISSING, 0).astype(np.int8)
    if pa.types.is_integer(kind):
        return _counted(column, missing, why, unit)
    if pa.types.is_floating(kind):
        return _floats(column, why, unit)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        target = pa.timestamp("ns", tz=getattr(kind, "tz", None))
        ns = _each(column, lambda part: part.cast(target), why, OUT_OF_RANGE)
        return _placed(ns, why, zone if getattr(kind, "tz", None) is None else None)
    if _is_text(kind):
        return _texts(column, why, unit, zone)
    why[:] = np.where(missing, MISSING, UNREADABLE)
    return Times(np.zeros(len(column), np.int64), why)


def value_times(values: Sequence[Any], *, unit: str = "ns", zone: ZoneInfo | None = None) -> Times:
    """The same for Python values: ints, floats, text, datetimes, dates, numpy and pandas times, None.

    A datetime without a zone is refused when `zone` is None: nothing says which instant it means.
    """
    ns, why = np.zeros(len(values), np.int64), np.zeros(len(values), np.int8)
    groups: dict[type, list[tuple[int, Any]]] = {}
    for i, value in enumerate(values):
        if isinstance(value, np.number):
            value = value.item()
        if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
            why[i] = OUT_OF_RANGE
        elif type(value) in (int, float, str):
            groups.setdefault(type(value), []).append((i, value))
        elif is_missing(value):
            why[i] = MISSING
        else:
            ns[i], why[i] = _instant(value, zone)
    for group in groups.values():
        rows = [i for i, _ in group]
        found = column_times(pa.array([value for _, value in group]), unit=unit, zone=zone)
        ns[rows], why[rows] = found.ns, found.why
    return Times(ns, why)


def _instant(value: Any, zone: ZoneInfo | None) -> tuple[int, int]:
    if isinstance(value, datetime) and value.tzinfo is None:
        if zone is None:
            return 0, NO_ZONE
        found = local_times(np.array([time_ns(value.replace(tzinfo=UTC))]), zone)
        return int(found.ns[0]), int(found.why[0])
    if isinstance(value, date) and not isinstance(value, datetime):
        return _instant(datetime.combine(value, clock_time(), tzinfo=None if zone else UTC), zone)
    try:
        ns = time_ns(value)
    except UsageError:
        return 0, UNREADABLE
    return (ns, 0) if -(2**63) <= ns < 2**63 else (0, OUT_OF_RANGE)


def local_times(naive: NDArray[np.int64], zone: ZoneInfo) -> Times:
    """Wall-clock ns in `zone` → ns UTC.

    Zones are asked once per quarter hour that occurs: since 1970 every change of a clock lies on one. Python's
    zone data is used, not Arrow's, because the `tzdata` package brings it to machines that have none.
    """
    quarters, where = np.unique(naive // _QUARTER, return_inverse=True)
    shifts = np.empty(len(quarters), np.int64)
    codes = np.zeros(len(quarters), np.int8)
    for i, quarter in enumerate(quarters.tolist()):
        wall = utc(quarter * _QUARTER).replace(tzinfo=None)
        first, second = (_offset_ns(wall, zone, fold) for fold in (0, 1))
        if first != second:
            codes[i] = TWICE if first > second else NEVER
        shifts[i] = first
    return Times(np.asarray(naive - shifts[where], np.int64), codes[where])


def _offset_ns(wall: datetime, zone: ZoneInfo, fold: int) -> int:
    offset = zone.utcoffset(wall.replace(tzinfo=zone, fold=fold))
    return (offset or timedelta()) // timedelta(microseconds=1) * 1000


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view")


def _counted(column: pa.Array, missing: NDArray[np.bool_], why: NDArray[np.int8], unit: str) -> Times:
    factor = UNITS[unit]
    filled = column.fill_null(0) if column.null_count else column
    ns = filled.cast(pa.int64(), safe=False).to_numpy().copy()
    limit = np.iinfo(np.int64).max // factor
    far = (ns > limit) | (ns < -limit)
    if pa.types.is_uint64(column.type):
        far |= ns < 0
    why[far & ~missing] = OUT_OF_RANGE
    ns[far] = 0
    return Times(ns * factor, why)


def _floats(column: pa.Array, why: NDArray[np.int8], unit: str) -> Times:
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False) * float(UNITS[unit])
    why[np.isnan(values)] = MISSING
    far = ~(np.abs(values) < 2.0**63)
    why[far & (why == 0)] = OUT_OF_RANGE
    return Times(np.rint(np.where(far, 0.0, values)).astype(np.int64), why)


def _placed(naive: NDArray[np.int64], why: NDArray[np.int8], zone: ZoneInfo | None) -> Times:
    if zone is None:
        return Times(naive, why)
    placed = local_times(naive, zone)
    return Times(placed.ns, np.where(why != 0, why, placed.why).astype(np.int8))


def _texts(column: pa.Array, why: NDArray[np.int8], unit: str, zone: ZoneInfo | None) -> Times:
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    ns = np.zeros(len(text), np.int64)
    open_ = why == 0
    empty = open_ & _mask(pc.equal(text, ""))
    why[empty] = MISSING
    open_ &= ~empty
    for pattern in (_NAIVE, _ZONED, _NUMBER, _DATE):
        if not open_.any():
            break
        rows = np.flatnonzero(open_ & _mask(pc.match_substring_regex(text, pattern)))
        if len(rows) == 0:
            continue
        open_[rows] = False
        part = text if len(rows) == len(text) else text.take(pa.array(rows))
        codes = np.zeros(len(rows), np.int8)
        if pattern == _NUMBER:
            numbers = _each(part, lambda some: some.cast(pa.int64()), codes, OUT_OF_RANGE)
            found = _counted(pa.array(numbers), codes != 0, codes, unit)
        else:
            # By the year, since pyarrow before 23 wraps around what it should refuse.
            year = pc.utf8_slice_codeunits(part, 0, 4).cast(pa.int16()).to_numpy()
            far = (year < 1678) | (year > 2261)
            if far.any():
                part = pc.if_else(pa.array(far), "1970-01-01", part)
            kind = pa.timestamp("ns", "UTC" if pattern == _ZONED else None)
            found = Times(_each(part, partial(pa.Array.cast, target_type=kind), codes, UNREADABLE), codes)
            if pattern != _ZONED:
                found = _placed(found.ns, codes, zone)
            if pattern == _NAIVE and zone is None:
                found.why[found.why == 0] = NO_ZONE
            found.why[far] = OUT_OF_RANGE
        ns[rows] = found.ns
        why[rows] = found.why
    why[open_] = UNREADABLE
    return Times(ns, why)


def _mask(found: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(found.fill_null(False).to_numpy(zero_copy_only=False), np.bool_)


def _each(
    column: pa.Array, cast: Callable[[pa.Array], pa.Array], why: NDArray[np.int8], code: int
) -> NDArray[np.int64]:
    """The int64 values of cast(column); cells that do not cast are 0 and marked. Halves until it finds them."""
    out = np.zeros(len(column), np.int64)
    todo: list[tuple[int, int]] = [(0, len(column))]
    while todo:
        start, stop = todo.pop()
        try:
            values: Any = cast(column.slice(start, stop - start))
        except pa.ArrowInvalid:
            if stop - start == 1:
                why[start] = code
            else:
                middle = (start + stop) // 2
                todo += [(middle, stop), (start, middle)]
            continue
        if not pa.types.is_int64(values.type):
            values = values.cast(pa.int64())
        out[start:stop] = values.fill_null(0).to_numpy()
    return out
