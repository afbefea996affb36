from __future__ import annotations

import collections
import dataclasses
import enum
import json
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import RecordError, TypeMismatch
from penstock.records import decode_document, encode_document
from penstock.records.documents import MAX_DEPTH, decode_documents

EARLY, LATE = datetime(2, 1, 1), datetime(9998, 1, 1)  # noqa: DTZ001 - hypothesis adds the zone
EAST = timezone(timedelta(hours=5, minutes=30))


def same(left: object, right: object) -> bool:
    """Equal, with equal types, and nan equal to nan."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return (math.isnan(left) and math.isnan(right)) or (
            left == right and math.copysign(1, left) == math.copysign(1, right)
        )
    if isinstance(left, Decimal):
        return str(left) == str(right)
    if isinstance(left, (datetime, time)) and left.tzinfo is not None:
        return left == right and left.utcoffset() == right.utcoffset()
    return left == right


offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**300])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["$date", "$", "$$", '"$x', "$AAPL"])
    | st.binary(max_size=8)
    | st.datetimes()
    | st.datetimes(timezones=offsets, min_value=EARLY, max_value=LATE)
    | st.dates()
    | st.times()
    | st.times(timezones=offsets)
    | st.timedeltas()
    | st.decimals()
    | st.uuids()
)
keys = st.text(max_size=5) | st.sampled_from(["$date", "$binary", "$", "$$", "$$x", "$numberDouble", "base64", "$uuid"])
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)
documents = st.dictionaries(keys, values, min_size=1, max_size=4)


@settings(max_examples=400, deadline=None)
@given(documents)
def test_comes_back_equal(document: dict[str, object]) -> None:
    text = encode_document(document)
    json.loads(text)  # valid for everyone
    assert same(decode_document(text), document)
    assert same(decode_document(text.decode()), document)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        keys,
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=4),
            lambda i: st.lists(i, max_size=3) | st.dictionaries(keys, i, max_size=2),
            max_leaves=6,
        ),
        min_size=1,
    )
)
def test_others_json_survives_a_second_trip(document: dict[str, object]) -> None:
    """What a foreign producer wrote, "$" keys and all, reads the same after we stored it ourselves."""
    read = decode_document(json.dumps(document))
    assert same(decode_document(encode_document(read)), read)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60))
def test_bytes_from_anywhere_raise_only_record_errors(text: bytes | str) -> None:
    try:
        assert isinstance(decode_document(text), dict)
    except RecordError:
        pass  # any other exception fails the test


def test_plain_json_stays_plain() -> None:
    assert (
        encode_document({"foo": "bar", "n": 1, "x": 1.0, "y": [True, None]})
        == b'{"foo":"bar","n":1,"x":1.0,"y":[true,null]}'
    )


@pytest.mark.parametrize(
    "value, text",
    [
        (float("nan"), '{"$numberDouble":"NaN"}'),
        (float("-inf"), '{"$numberDouble":"-Infinity"}'),
        (2**70, '{"$numberInteger":"1180591620717411303424"}'),
        (2**64 - 1, "18446744073709551615"),
        (datetime(2026, 11, 20, 9, 30, 0, 1, tzinfo=EAST), '{"$date":"2026-11-20T09:30:00.000001+05:30"}'),
        (datetime(2026, 11, 20, 9, 30), '{"$date":"2026-11-20T09:30:00"}'),  # noqa: DTZ001 - naive stays naive
        (date(2026, 11, 20), '{"$date":"2026-11-20"}'),
        (time(9, 30), '{"$time":"09:30:00"}'),
        (timedelta(days=-1, microseconds=1), '{"$duration":[-1,0,1]}'),
        (b"\x00\xff", '{"$binary":{"base64":"AP8=","subType":"00"}}'),
        (Decimal("1.10"), '{"$numberDecimal":"1.10"}'),
        (UUID(int=1), '{"$uuid":"00000000-0000-0000-0000-000000000001"}'),
        ({"$date": 1}, '{"$$date":1}'),
    ],
)
def test_tags(value: object, text: str) -> None:
    """The stored form is a contract: golden text."""
    assert encode_document({"a": value}).decode() == f'{{"a":{text}}}'
    assert same(decode_document(f'{{"a":{text}}}'), {"a": value})


class Side(enum.StrEnum):
    BUY = "buy"


class Level(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    "value, back",
    [
        ((1, (2,)), [1, [2]]),
        (np.float64(1.5), 1.5),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float16("nan"), float("nan")),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.longdouble("inf"), float("inf")),
        (Side.BUY, "buy"),
        (Level.ONE, 1),
        (bytearray(b"a"), b"a"),
    ],
)
def test_relatives_of_plain_values(value: object, back: object) -> None:
    assert same(decode_document(encode_document({"a": [value]})), {"a": [back]})


@dataclasses.dataclass
class Point:
    x: int = 1


class Frame:
    def to_dict(self) -> dict[str, int]:
        return {"x": 1}


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value, hint",
    [
        (np.ones(3), "tolist"),
        ({1}, "sorted"),
        (frozenset(), "sorted"),
        (1j, "real"),
        (np.complex64(1), "real"),
        (memoryview(b"a"), "bytes(value)"),
        (Point(), "asdict"),
        (object(), "convert"),
        (Frame(), "to_dict"),
        (Hostile(), "convert"),
        (np.datetime64("2026-01-01"), "datetime"),
        (np.timedelta64(1, "ns"), "datetime"),
        (np.longdouble(1) + np.finfo(np.longdouble).eps, "float(value)"),
        (np.longdouble("1e400"), "float(value)"),
        (enum.Enum("E", "A").A, "convert"),
        ((i for i in "a"), "convert"),
        ("\ud800", "errors"),
        pytest.param(10**5000, "bytes", id="long-int"),
    ],
)
def test_refused_values(value: object, hint: str) -> None:
    with pytest.raises(TypeMismatch) as caught:
        encode_document({"a": [0, {"b": value}]}, where="s", row=3)
    assert caught.value.path == "$.a[1].b"
    assert caught.value.row == 3
    assert "at s[3] $.a[1].b; " in str(caught.value)
    assert hint in str(caught.value)
    assert len(str(caught.value)) < 300


def test_refused_pandas_values() -> None:
    pd = pytest.importorskip("pandas")
    for value in (pd.NaT, pd.NA):
        with pytest.raises(TypeMismatch, match="use None for a missing value"):
            encode_document({"a": value})
    for value in (pd.Timestamp(1, unit="ns"), pd.Timedelta(1, unit="ns")):
        with pytest.raises(TypeMismatch, match="documents keep microseconds"):
            encode_document({"a": value})
    stamp = pd.Timestamp("2026-01-01T00:00:00.000001", tz="UTC")
    assert decode_document(encode_document({"a": stamp})) == {"a": stamp.to_pydatetime()}


@pytest.mark.parametrize("key", [1, None, b"a", 1.5, (1,), True])
def test_refused_keys(key: object) -> None:
    with pytest.raises(
        TypeMismatch, match=r"expected string keys, got key .*at \$\.a; convert the keys with str\(key\)"
    ):
        encode_document({"a": {key: 1}})


def test_refused_surrogate_key() -> None:
    with pytest.raises(TypeMismatch, match="keys that UTF-8 can hold"):
        encode_document({"\udc00": 1})


def test_refused_documents() -> None:
    with pytest.raises(TypeMismatch, match=r"expected a dict, got list \[1\] - at s\[0\]; give a dict"):
        encode_document([1], where="s", row=0)  # type: ignore[arg-type]
    with pytest.raises(TypeMismatch, match=r"expected a document with at least one key, got \{\} - at s\[0\]"):
        encode_document({}, where="s", row=0)


def depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, (dict, list)) + max(map(depth, inner), default=0)


def test_depth_limit_is_the_same_on_both_paths() -> None:
    for special in (1, float("nan")):
        document: dict[str, object] = {"x": special}
        for _ in range(MAX_DEPTH - 1):
            document = {"a": document}
        assert depth(document) == MAX_DEPTH
        assert same(decode_document(encode_document(document)), document)
        with pytest.raises(TypeMismatch, match="at most 100 levels of nesting"):
            encode_document({"a": document})
        with pytest.raises(TypeMismatch, match="at most 100 levels of nesting"):
            encode_document({"a": [document]})


def test_cycles_are_refused() -> None:
    document: dict[str, object] = {}
    document["me"] = [document]
    with pytest.raises(TypeMismatch, match="or a value that contains itself") as caught:
        encode_document(document)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[1]",
        b"1",
        b"null",
        b'"a"',
        b"{",
        b'{"a":1}x',
        b"NaN",
        b'{"a":NaN}',
        b'{"a":"\xff"}',
        '{"a":"\ud800"}',
        b'{"a":1e999}',
        b'{"a":"\\ud800"}',
    ],
)
def test_undecodable(text: bytes | str) -> None:
    with pytest.raises(RecordError, match=r"expected a JSON object, got .* - at s\[7\]; "):
        decode_document(text, where="s", row=7)


@pytest.mark.parametrize("levels", [500, 5_000, 200_000])
@pytest.mark.parametrize("leaf", ["1", '"$"'])
def test_deep_foreign_text_never_crashes(levels: int, leaf: str) -> None:
    text = '{"a":' * levels + leaf + "}" * levels
    try:
        value: object = decode_document(text)
    except RecordError:
        return
    else:
        for _ in range(levels):
            value = value["a"]  # type: ignore[index]


@pytest.mark.parametrize(
    "text",
    [
        '{"a":{"$date":5}}',
        '{"a":{"$date":"soon"}}',
        '{"a":{"$oid":"x"}}',
        '{"a":{"$ref":"x","$id":1}}',
        '{"a":{"$$x":1,"$x":2}}',
        '{"$date":"2026-01-01"}',
        '{"a":{"$numberInteger":1.5}}',
        '{"a":{"$numberInteger":"' + "9" * 5000 + '"}}',
        '{"a":{"$numberDouble":"1.5"}}',
        '{"a":{"$numberDecimal":"x"}}',
        '{"a":{"$duration":"abc"}}',
        '{"a":{"$duration":[1.5,0,0]}}',
        '{"a":{"$duration":[1000000000,0,0]}}',
        '{"a":{"$binary":"eA=="}}',
        '{"a":{"$binary":{"base64":"?","subType":"00"}}}',
        '{"a":{"$binary":null}}',
        '{"a":{"$uuid":1}}',
        '{"a":{"$time":"25:00"}}',
    ],
)
def test_objects_of_others_are_left_alone(text: str) -> None:
    assert decode_document(text) == json.loads(text)


def test_accepts_each_kind_of_buffer() -> None:
    text = encode_document({"a": float("inf")})
    for form in (text, bytearray(text), memoryview(text), text.decode()):
        assert decode_document(form) == {"a": float("inf")}


def test_order_of_keys_is_kept() -> None:
    document = {"z": 1, "a": b"x", "m": {"z": 1, "a": 2}}
    assert list(decode_document(encode_document(document))) == ["z", "a", "m"]


def test_mapping_that_is_no_dict() -> None:
    document = collections.defaultdict(int, {"a": collections.OrderedDict(b=1)})
    assert decode_document(encode_document(document)) == {"a": {"b": 1}}
    assert len(document) == 1


@pytest.mark.parametrize(
    "documents",
    [
        [],
        [{"a": 1}],
        [{"a": 1.5}, {"b": [1, {"c": None}]}, {"d": "x, y] ["}],
        [{"a": 1}, {"price": "$5"}, {"when": datetime(2026, 11, 20, tzinfo=UTC)}],
        [{"a": 2**70}, {"a": float("inf")}],
    ],
)
def test_many_at_once_come_back_as_one_by_one(documents: list[dict[str, object]]) -> None:
    texts = [encode_document(document).decode() for document in documents]
    assert decode_documents(texts) == documents == [decode_document(text) for text in texts]


@pytest.mark.parametrize(
    "texts", [['{"a":1}', '{"a":1},{"b":2}'], ['{"a":1}', ""], ['{"a":1}', "[1]"], ['{"a":', "1}"]]
)
def test_many_at_once_say_which_is_no_object(texts: list[str]) -> None:
    with pytest.raises(RecordError, match="expected a JSON object") as caught:
        decode_documents(texts)
    assert caught.value.row == (0 if texts[0] == '{"a":' else 1)
