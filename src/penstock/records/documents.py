"""JSON documents: a dict to text and back, nothing lost.

What JSON has, is stored as JSON. What it lacks is stored as an object with one "$" key, in the manner of MongoDB
Extended JSON v2, and comes back equal:

    float nan, inf     {"$numberDouble": "NaN"}             Decimal     {"$numberDecimal": "1.10"}
    int over 64 bits   {"$numberInteger": "1180591620…"}    UUID        {"$uuid": "f81d4fae-…"}
    datetime, date     {"$date": "2026-11-20T09:30:00+01:00"}, {"$date": "2026-11-20"}
    time               {"$time": "09:30:00"}                timedelta   {"$duration": [days, seconds, us]}
    bytes              {"$binary": {"base64": "3q2+7w==", "subType": "00"}}

A user's own key that begins with "$" gets one more "$". Aware datetimes keep their UTC offset (not the zone's
name), naive ones come back naive. Tuples come back as lists, numpy scalars as Python numbers, members of a str or
int enum as their value. Everything else is refused, with the path to it.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import msgspec
import numpy as np

from penstock.errors import RecordError, TypeMismatch
from penstock.records.describe import place, value_text

__all__ = ["MAX_DEPTH", "decode_document", "decode_documents", "encode_document"]

MAX_DEPTH = 100
"""Levels of nesting a document may have."""

_MAX_BITS = 14_000  # Python refuses to turn ints of more than 4,300 digits into text and back
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_decode_rows = msgspec.json.Decoder(list[dict[str, Any]]).decode
_INF = math.inf
_FINE_OFFSET = re.compile(r"([+-])(\d\d):(\d\d):(\d\d)\.(\d{6})$")


def encode_document(document: Mapping[str, Any], *, where: str = "", row: int | None = None) -> bytes:
    """A dict as JSON text in UTF-8.

    Takes   document: a dict with at least one key, all keys str, nested at most MAX_DEPTH deep;
            where, row: stream and row number for messages.
    Returns the JSON text; `decode_document` gives an equal dict.
    Raises  TypeMismatch with `path` (such as "$.a[2].b") for a value, key or nesting that cannot be kept.
    Cost    about 0.5 µs for a flat dict of five values.
    """
    if type(document) is not dict:
        if not isinstance(document, Mapping):
            raise TypeMismatch(
                expected="a dict",
                got=value_text(document),
                where=place(where, row),
                hint='give a dict such as {"value": 1.5}',
                path="$",
                row=row,
            )
        document = dict(document)
    if not document:
        raise TypeMismatch(
            expected="a document with at least one key",
            got="{}",
            where=place(where, row),
            hint="leave empty documents out",
            path="$",
            row=row,
        )
    try:
        if _plain(document, MAX_DEPTH):
            text = _encode(document)
            # A "$" that opens a string may open a key; only the slow walk can tell. (36 is "$": the search for one
            # byte takes 12 ns, the one for two bytes 130 ns.)
            if 36 not in text or b'"$' not in text:
                return text
        return _encode(_tagged(document, "$", MAX_DEPTH, where, row))
    except UnicodeEncodeError:
        return _encode(_tagged(document, "$", MAX_DEPTH, where, row))


def decode_document(
    text: bytes | bytearray | memoryview | str, *, where: str = "", row: int | None = None
) -> dict[str, Any]:
    """The dict of a JSON text.

    Objects written by others are read too: one with a "$" key that is no tag of ours comes back unchanged.

    Raises  RecordError if the text is no JSON object, or is nested too deep.
    Cost    about 0.4 µs for a flat dict of five values.
    """
    try:
        value = _decode(text)
        if type(value) is dict:
            if type(text) is memoryview:
                text = bytes(text)
            plain = "$" not in text if isinstance(text, str) else 36 not in text
            return value if plain else _restored_members(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError, TypeError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise RecordError(
            expected="a JSON object",
            got=f"{value_text(text)} ({reason})",
            where=place(where, row),
            hint='write documents such as {"value": 1.5}',
            row=row,
        ) from error
    raise RecordError(
        expected="a JSON object",
        got=f"JSON {value_text(value)}",
        where=place(where, row),
        hint='wrap it, such as {"value": …}',
        row=row,
    )


def decode_documents(texts: list[str]) -> list[dict[str, Any]]:
    """The dicts of many JSON texts, as `decode_document` of each.

    Cost    about 0.3 µs each: when no text has a "$", they are read as one JSON array.
    """
    joined = ",".join(texts)
    if "$" not in joined:
        try:
            rows = _decode_rows(f"[{joined}]")
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass  # one by one, to say which
        else:
            if len(rows) == len(texts):  # else a text was no single object
                return rows
    return [decode_document(text, row=i) for i, text in enumerate(texts)]


def _plain(members: dict[str, Any], depth: int) -> bool:
    """Whether msgspec alone writes these members so that they come back equal. The hot loop of every append."""
    for key in members:
        if type(key) is not str:
            return False
    return _plain_values(members.values(), depth)


def _plain_values(values: Iterable[Any], depth: int) -> bool:
    """The same of the values of a dict, or the items of a list."""
    for value in values:
        kind = type(value)
        if kind is str or value is None or kind is bool:
            continue
        if kind is float:
            if not -_INF < value < _INF:
                return False
        elif kind is int:
            if not -0x8000_0000_0000_0000 <= value <= 0xFFFF_FFFF_FFFF_FFFF:
                return False
        elif kind is dict:
            if depth <= 1 or not _plain(value, depth - 1):
                return False
        elif kind is list:
            if depth <= 1 or not _plain_values(value, depth - 1):
                return False
        else:
            return False
    return True


# ---- the slow walk ----------------------------------------------------------------------------------------------


def _tagged(value: Any, path: str, depth: int, where: str, row: int | None) -> Any:
    """A copy of `value` with tags for what JSON lacks, in which each value is exactly one of JSON's."""

    def refuse(expected: str, hint: str) -> TypeMismatch:
        return TypeMismatch(
            expected=expected, got=value_text(value), where=place(where, row, path), hint=hint, path=path, row=row
        )

    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        text = str.__str__(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise refuse(
                "text that UTF-8 can hold (no lone surrogates)", 'decode bytes with errors="replace"'
            ) from None
        return text
    if isinstance(value, (int, np.integer)) and not isinstance(value, np.timedelta64):
        number = int(value)
        if -(2**63) <= number < 2**64:
            return number
        if number.bit_length() > _MAX_BITS:
            raise refuse("an int of at most 4,000 digits", "store it as bytes")
        return {"$numberInteger": str(number)}
    if isinstance(value, (float, np.floating)):
        real = float(value)
        if math.isfinite(real):
            if real != value:
                raise refuse("a float of at most 64 bits", "convert it with float(value)")
            return real
        if isinstance(value, np.longdouble) and not isinstance(value, float) and np.isfinite(value):
            raise refuse("a float of at most 64 bits", "convert it with float(value)")
        return {"$numberDouble": "NaN" if real != real else "Infinity" if real > 0 else "-Infinity"}
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (dict, list, tuple, Mapping)):
        if depth <= 0:
            raise _too_deep(path, where, row)
        if isinstance(value, (list, tuple)):
            return [_tagged(item, f"{path}[{index}]", depth - 1, where, row) for index, item in enumerate(value)]
        return {
            _key(key, value, path, where, row): _tagged(item, f"{path}.{key}", depth - 1, where, row)
            for key, item in value.items()
        }
    tag = _tag(value)
    if tag is not None:
        return tag
    raise refuse("a JSON value, datetime, bytes, Decimal or UUID", _next_step(value))


def _key(key: Any, owner: Any, path: str, where: str, row: int | None) -> str:
    if not isinstance(key, str):
        raise TypeMismatch(
            expected="string keys",
            got=f"key {value_text(key)}",
            where=place(where, row, path),
            hint="convert the keys with str(key)",
            path=path,
            row=row,
        )
    text = str.__str__(key)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TypeMismatch(
            expected="keys that UTF-8 can hold (no lone surrogates)",
            got=f"key {value_text(text)}",
            where=place(where, row, path),
            hint='decode bytes with errors="replace"',
            path=path,
            row=row,
        ) from None
    return "$" + text if text.startswith("$") else text


def _too_deep(path: str, where: str, row: int | None) -> TypeMismatch:
    return TypeMismatch(
        expected=f"at most {MAX_DEPTH} levels of nesting",
        got="more, or a value that contains itself",
        where=place(where, row, path),
        hint="flatten the document, or break the cycle",
        path=path,
        row=row,
    )


def _tag(value: Any) -> dict[str, Any] | None:
    if type(value).__name__ == "NaTType":  # pandas' missing time is a datetime by class
        return None
    if isinstance(value, datetime):
        if getattr(value, "nanosecond", 0):
            return None
        return {"$date": value.isoformat()}
    if isinstance(value, date):
        return {"$date": value.isoformat()}
    if isinstance(value, time):
        return {"$time": value.isoformat()}
    if isinstance(value, timedelta):
        if getattr(value, "nanoseconds", 0):
            return None
        return {"$duration": [value.days, value.seconds, value.microseconds]}
    if isinstance(value, (bytes, bytearray)):
        return {"$binary": {"base64": base64.b64encode(value).decode(), "subType": "00"}}
    if isinstance(value, Decimal):
        return {"$numberDecimal": str(value)}
    if isinstance(value, UUID):
        return {"$uuid": str(value)}
    return None


def _next_step(value: Any) -> str:
    name = type(value).__name__
    if name in ("NaTType", "NAType"):
        return "use None for a missing value"
    if isinstance(value, np.ndarray):
        return "use value.tolist(), or a stream with a tensor column"
    if isinstance(value, (set, frozenset)):
        return "use sorted(value) or list(value)"
    if isinstance(value, (datetime, np.datetime64, timedelta, np.timedelta64)):
        return "documents keep microseconds; use a datetime, or int nanoseconds"
    if isinstance(value, (complex, np.complexfloating)):
        return "use [value.real, value.imag]"
    if isinstance(value, memoryview):
        return "use bytes(value)"
    if hasattr(value, "__dataclass_fields__"):
        return "use dataclasses.asdict(value)"
    if hasattr(value, "to_dict"):
        return "use value.to_dict()"
    return "convert it to a dict, list, str or number"


# ---- and back ---------------------------------------------------------------------------------------------------


def _binary(body: Any) -> bytes:
    if set(body) != {"base64", "subType"}:
        raise ValueError("not a $binary body")
    return base64.b64decode(body["base64"], validate=True)


def _date(text: Any) -> date:
    text = _text(text)
    return _aware(text, datetime.fromisoformat) if len(text) > 10 else date.fromisoformat(text)


def _aware(text: str, parse: Callable[[str], Any]) -> Any:
    # CPython reads an offset under one second as UTC, and moves the instant with it.
    fine = _FINE_OFFSET.search(text)
    if fine is None:
        return parse(text)
    sign, *parts = fine.groups()
    hours, minutes, seconds, microseconds = map(int, parts)
    offset = timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=microseconds)
    return parse(text[: fine.start()]).replace(tzinfo=timezone(-offset if sign == "-" else offset))


def _text(body: Any) -> str:
    if type(body) is not str:
        raise ValueError("not the body of a tag")
    return body


def _double(body: Any) -> float:
    if body not in ("NaN", "Infinity", "-Infinity"):
        raise ValueError("not a $numberDouble body")
    return float(body)


def _duration(body: Any) -> timedelta:
    days, seconds, microseconds = body
    if not type(days) is type(seconds) is type(microseconds) is int:
        raise ValueError("not a $duration body")
    return timedelta(days, seconds, microseconds)


_TAGS: dict[str, Callable[[Any], Any]] = {
    "$binary": _binary,
    "$date": _date,
    "$duration": _duration,
    "$numberDecimal": lambda body: Decimal(_text(body)),
    "$numberDouble": _double,
    "$numberInteger": lambda body: int(_text(body)),
    "$time": lambda body: _aware(_text(body), time.fromisoformat),
    "$uuid": lambda body: UUID(_text(body)),
}


def _restored(value: Any) -> Any:
    if type(value) is list:
        return [_restored(item) for item in value]
    if type(value) is not dict:
        return value
    if len(value) == 1:
        [(key, body)] = value.items()
        read = _TAGS.get(key)
        if read is not None:
            try:
                return read(body)
            except (ValueError, TypeError, AttributeError, OverflowError, InvalidOperation, binascii.Error):
                pass  # somebody else's object with a key like ours: leave it
    return _restored_members(value)


def _restored_members(members: dict[str, Any]) -> dict[str, Any]:
    # Ours never hold a key with a single "$": such an object comes from elsewhere and its keys are its own.
    foreign = any(key.startswith("$") and not key.startswith("$$") for key in members)
    return {
        key[1:] if not foreign and key.startswith("$$") else key: _restored(value) for key, value in members.items()
    }
