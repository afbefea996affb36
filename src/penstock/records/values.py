"""One Python value for one column type: accepted exactly, or refused with the next step."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
from pyarrow import types

from penstock.clock import time_ns

__all__ = ["Unfit", "converter", "exact_kinds", "is_missing", "is_uuid"]

_NS = 1_000_000_000
_PER_NS = {"s": _NS, "ms": 1_000_000, "us": 1_000, "ns": 1}
_COARSE_NS = {"W": 604_800 * _NS, "D": 86_400 * _NS, "h": 3_600 * _NS, "m": 60 * _NS}
_MANTISSA = {16: 11, 32: 24, 64: 53}
_MAXIMUM = {16: 65504.0, 32: float(np.finfo(np.float32).max), 64: math.inf}
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the origin of columns without a zone
_DAY_ONE = date(1970, 1, 1)
_MISSING_HINT = "use None for a missing value"


class Unfit(Exception):
    """A value that is not its column's: the next step, and what was expected if the type alone does not say it."""

    def __init__(self, hint: str, expected: str | None = None, got: str | None = None) -> None:
        super().__init__(hint)
        self.hint = hint
        self.expected = expected
        self.got = got


def is_uuid(type_: pa.DataType) -> bool:
    """Whether the type is Arrow's UUID extension, which pyarrow has since version 18."""
    return hasattr(pa, "UuidType") and isinstance(type_, pa.UuidType)


def is_missing(value: Any) -> bool:
    """None, pandas.NA, and the NaT of pandas and numpy."""
    if value is None:
        return True
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return bool(np.isnat(value))
    return type(value).__name__ in ("NAType", "NaTType")


@lru_cache(maxsize=512)
def exact_kinds(type_: pa.DataType, nullable: bool) -> frozenset[type]:
    """Classes whose values pyarrow takes for this column as they are, or fails loudly. Empty: look at each value.

    pyarrow alone is too kind: it cuts 1.5 to 1, takes True for 1.0, bytes for text, and drops a datetime's zone.
    """
    kinds: set[type] = set()
    if types.is_integer(type_):
        kinds = {int}
    elif types.is_float64(type_):
        kinds = {int, float}
    elif types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        kinds = {str}
    elif types.is_binary(type_) or types.is_large_binary(type_) or types.is_binary_view(type_):
        kinds = {bytes}
    elif types.is_boolean(type_):
        kinds = {bool}
    return frozenset(kinds | {type(None)} if kinds and nullable else kinds)


def converter(type_: pa.DataType, *, times: bool = False) -> Callable[[Any], Any] | None:
    """A function from a user's value (not missing) to one that pyarrow stores exactly; it raises Unfit.

    Takes   type_: a column type without children; times: an int64 column of event times, which takes datetimes too.
    Returns None for a type that rows cannot fill.
    """
    if types.is_integer(type_):
        plain = _integer(type_)
        return _event_time(plain) if times and types.is_int64(type_) else plain
    if types.is_floating(type_):
        return _floating(type_)
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        return _string
    if types.is_binary(type_) or types.is_large_binary(type_) or types.is_binary_view(type_):
        return _binary
    if types.is_fixed_size_binary(type_):
        return _fixed_binary(type_.byte_width)
    if types.is_boolean(type_):
        return _boolean
    if types.is_timestamp(type_):
        return _timestamp(type_)
    if types.is_date(type_):
        return _date
    if types.is_time(type_):
        return _time(type_.unit)
    if types.is_duration(type_):
        return _duration(type_.unit)
    if types.is_decimal(type_):
        return _decimal(type_)
    if types.is_null(type_):
        return _nothing
    if is_uuid(type_):
        return _uuid
    return None


def _integer(type_: pa.DataType) -> Callable[[Any], int]:
    signed = types.is_signed_integer(type_)
    low = -(2 ** (type_.bit_width - 1)) if signed else 0
    high = 2 ** (type_.bit_width - signed) - 1

    def convert(value: Any) -> int:
        if isinstance(value, (bool, np.bool_)):
            raise Unfit("use 0 or 1, or a bool column")
        if isinstance(value, (int, np.integer)) and not isinstance(value, np.timedelta64):
            number = int(value)
            if low <= number <= high:
                return number
            raise Unfit("use a wider integer column", expected=f"{type_} ({low} to {high})")
        if isinstance(value, (float, np.floating)):
            real = float(value)
            if math.isnan(real):
                raise Unfit(_MISSING_HINT)
            if not real.is_integer():
                raise Unfit("round it, or use a float64 column")
            if abs(real) > 2**53:
                raise Unfit("a float this large is not exact; give an int")
            return convert(int(real))
        if isinstance(value, str):
            raise Unfit("convert it with int(), or use None for a missing value")
        if isinstance(value, (datetime, np.datetime64)):
            raise Unfit("use a timestamp column, an int64 column named ts_…, or penstock.clock.time_ns(value)")
        raise Unfit("convert it with int()")

    return convert


def _event_time(plain: Callable[[Any], int]) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        if isinstance(value, (datetime, np.datetime64)):
            return _in_range(_instant_ns(value))
        return plain(value)

    return convert


def _instant_ns(value: Any) -> int:
    """Nanoseconds of an aware datetime or a numpy datetime64 (UTC by the convention of its makers)."""
    if isinstance(value, np.datetime64):
        return _numpy_ns(value, "use unit ns or coarser")
    if value.tzinfo is None:
        raise Unfit("give it its zone, such as value.replace(tzinfo=UTC)")
    return time_ns(value)


def _numpy_ns(value: Any, hint: str) -> int:
    """Nanoseconds of a numpy time as an int of any size: numpy's own conversion wraps around, or overflows."""
    unit, count = np.datetime_data(value.dtype)
    raw = int(value.astype(np.int64)) * count
    if unit in ("Y", "M") and isinstance(value, np.datetime64):
        if abs(raw) > 12 * 100_000:
            raise Unfit("64-bit counts of this unit end there", expected="a time the column's unit can hold")
        unit, raw = "D", int(value.astype("datetime64[D]").astype(np.int64))
    scale = _PER_NS.get(unit) or _COARSE_NS.get(unit)
    if scale is None:
        raise Unfit(hint)
    return raw * scale


def _in_range(count: int) -> int:
    if -(2**63) < count < 2**63:
        return count
    raise Unfit("64-bit counts of this unit end there", expected="a time the column's unit can hold")


def _whole(ns: int, unit: str, kind: str) -> int:
    count, rest = divmod(ns, _PER_NS[unit])
    if rest:
        raise Unfit(f"round it, or use a {kind} column of a finer unit", expected=f"whole {unit}")
    return _in_range(count)


def _timestamp(type_: pa.DataType) -> Callable[[Any], int]:
    zone, unit = type_.tz, type_.unit

    def convert(value: Any) -> int:
        if isinstance(value, np.datetime64):
            return _whole(_instant_ns(value), unit, "timestamp")
        if not isinstance(value, datetime):
            raise Unfit("give an aware datetime or a numpy datetime64")
        if zone is not None:
            return _whole(_instant_ns(value), unit, "timestamp")
        if value.tzinfo is not None:
            raise Unfit('give the column its zone (tz="UTC"), or drop it with value.replace(tzinfo=None)')
        delta = value - _EPOCH
        extra = int(getattr(value, "nanosecond", 0))
        return _whole(_timedelta_us(delta) * 1000 + extra, unit, "timestamp")

    return convert


def _timedelta_us(delta: timedelta) -> int:
    return (delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds


def _date(value: Any) -> date:
    if isinstance(value, datetime):
        raise Unfit("use value.date(), or a timestamp column")
    if isinstance(value, date):
        return value
    if isinstance(value, np.datetime64) and np.datetime_data(value.dtype) == ("D", 1):
        return _DAY_ONE + timedelta(days=int(value.astype(np.int64)))
    raise Unfit("give a datetime.date")


def _time(unit: str) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        if isinstance(value, np.timedelta64):
            ns = _timedelta_ns(value)
            if not 0 <= ns < 86400 * 10**9:
                raise Unfit("a time of day is at least 0 and less than 24 h")
            return _whole(ns, unit, "time64")
        if not isinstance(value, time):
            raise Unfit("give a datetime.time")
        if value.tzinfo is not None:
            raise Unfit("drop the zone with value.replace(tzinfo=None), or use a timestamp column")
        seconds = (value.hour * 60 + value.minute) * 60 + value.second
        return _whole((seconds * 1_000_000 + value.microsecond) * 1000, unit, "time64")

    return convert


def _timedelta_ns(value: Any) -> int:
    if isinstance(value, np.timedelta64):
        return _numpy_ns(value, "use a unit from weeks to ns")
    return _timedelta_us(value) * 1000 + int(getattr(value, "nanoseconds", 0))


def _duration(unit: str) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        if isinstance(value, (timedelta, np.timedelta64)):
            return _whole(_timedelta_ns(value), unit, "duration")
        raise Unfit("give a datetime.timedelta")

    return convert


def _decimal(type_: pa.DataType) -> Callable[[Any], Decimal]:
    unit = Decimal((0, (1,), -type_.scale))
    exact = Context(prec=type_.precision, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact, InvalidOperation])

    def convert(value: Any) -> Decimal:
        if isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.timedelta64)):
            value = Decimal(int(value))
        if not isinstance(value, Decimal):
            is_float = isinstance(value, (float, np.floating))
            raise Unfit("use Decimal(str(value))" if is_float else "give a Decimal or an int")
        if not value.is_finite():
            raise Unfit(_MISSING_HINT)
        try:
            return value.quantize(unit, context=exact)
        except (Inexact, InvalidOperation):
            raise Unfit("round it, or use a wider decimal column") from None

    return convert


def _floating(type_: pa.DataType) -> Callable[[Any], float]:
    bits = type_.bit_width
    exact, maximum = 2 ** _MANTISSA[bits], _MAXIMUM[bits]

    def convert(value: Any) -> float:
        if isinstance(value, (bool, np.bool_)):
            raise Unfit("use 0.0 or 1.0, or a bool column")
        if isinstance(value, (float, np.floating)):
            real = float(value)
            if math.isfinite(real):
                if abs(real) > maximum:
                    raise Unfit("use a float64 column", expected=f"float{bits} (up to {maximum:.5g})")
            elif np.isfinite(value):
                raise Unfit("convert it with float()")
            return real
        if isinstance(value, (int, np.integer)) and not isinstance(value, np.timedelta64):
            if abs(int(value)) > exact:
                raise Unfit("an int this large is not exact as a float; use an int64 column or float(value)")
            return convert(float(value))
        if isinstance(value, str):
            raise Unfit("convert it with float(), or use None for a missing value")
        raise Unfit("convert it with float()")

    return convert


def _string(value: Any) -> str:
    if isinstance(value, str):
        text = str.__str__(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Unfit('decode bytes with errors="replace"', expected="text without lone surrogates") from None
        return text
    if isinstance(value, bytes):
        raise Unfit("decode it with value.decode(), or use a binary column")
    raise Unfit("convert it with str()")


def _binary(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise Unfit("encode it with value.encode()" if isinstance(value, str) else "convert it to bytes")


def _fixed_binary(width: int) -> Callable[[Any], bytes]:
    def convert(value: Any) -> bytes:
        data = _binary(value)
        if len(data) != width:
            raise Unfit("pad or cut it", expected=f"{width} bytes", got=f"{len(data)} bytes")
        return data

    return convert


def _boolean(value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise Unfit("use True or False")


def _uuid(value: Any) -> bytes:
    if isinstance(value, UUID):
        return value.bytes
    raise Unfit("use uuid.UUID(value)")


def _nothing(value: Any) -> None:
    raise Unfit("open the stream with a type for this column")
