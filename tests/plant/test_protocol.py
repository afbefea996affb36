from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from penstock.errors import UsageError
from penstock.plant.protocol import (
    AUTH_FAILED,
    CONNECTED,
    Action,
    Policy,
    binary_frame,
    parse_action,
    statuses,
    text_frame,
)


def parsed(data: bytes) -> Any:
    """The frame as another implementation reads it."""
    reader = StreamReader()
    reader.feed_data(data)
    parser = Frame.parse(reader.read_exact, mask=False)
    with pytest.raises(StopIteration) as end:
        next(parser)
    assert not reader.buffer
    return end.value.value


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 1 << 20])
def test_frames_are_what_others_read(size: int) -> None:
    payload = b"x" * size
    text, binary = parsed(text_frame(payload)), parsed(binary_frame(payload))
    assert (text.opcode, text.data, text.fin) == (Opcode.TEXT, payload, True)
    assert (binary.opcode, binary.data, binary.fin) == (Opcode.BINARY, payload, True)


def test_the_words_of_the_market() -> None:
    assert json.loads(parsed(CONNECTED).data) == [
        {"ev": "status", "status": "connected", "message": "Connected Successfully"}
    ]
    assert json.loads(parsed(AUTH_FAILED).data)[0]["status"] == "auth_failed"
    assert json.loads(parsed(statuses()).data) == []


def test_actions() -> None:
    assert parse_action('{"action":"auth","params":"k"}') == Action("auth", "k")
    assert parse_action('{"action":"subscribe","params":"AM.*"}') == Action("subscribe", "AM.*")
    full = parse_action(
        '{"action":"subscribe","params":"AM.*","since":"start","seq":true,"conflate":true,"policy":"drop_oldest","more":1}'
    )
    assert full == Action("subscribe", "AM.*", "start", True, 0, False, Policy.DROP_OLDEST)
    assert parse_action('{"action":"subscribe","params":"A.*","since":{"bars":7},"conflate":250}').conflate == 250


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "expected a JSON object, got ''"),
        ("nonsense", "expected a JSON object, got 'nonsense'"),
        ("[" * 100_000, "expected a JSON object"),
        ("[]", "expected a JSON object such as"),
        ('{"action":"shout"}', "expected an action of auth, subscribe, unsubscribe, snapshot, ask, got 'shout'"),
        ('{"action":["auth"]}', "expected an action of"),
        ('{"action":"auth","params":1}', "expected params to be a text, got 1"),
        ('{"action":"subscribe","params":"A.*","since":-1}', "expected since to be an offset"),
        ('{"action":"subscribe","params":"A.*","since":{"*":5}}', "in since to be 0, all of the streams"),
        ('{"action":"subscribe","params":"A.*","since":{"a":"b"}}', "expected since to be an offset"),
        ('{"action":"subscribe","params":"A.*","seq":1}', "expected seq to be true or false, got 1"),
        ('{"action":"subscribe","params":"A.*","conflate":0}', "expected conflate to be true"),
        ('{"action":"subscribe","params":"A.*","policy":"run"}', "expected a policy of conflate, drop_oldest"),
        ('{"action":"subscribe","params":"A.*","since":1,"snapshot":true}', "either since or snapshot"),
    ],
    ids=range(14),
)
def test_what_is_no_action(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        parse_action(text)
    assert len(str(error.value)) < 400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
words = st.fixed_dictionaries(
    {},
    optional={
        "action": st.sampled_from(["auth", "subscribe", "unsubscribe", "snapshot"]) | json_values,
        **{name: json_values for name in ("params", "since", "seq", "conflate", "snapshot", "policy")},
    },
)


@given(st.text() | words.map(json.dumps) | json_values.map(json.dumps))
def test_anything_is_an_action_or_a_usage_error(text: str) -> None:
    try:
        assert isinstance(parse_action(text), Action)
    except UsageError as error:
        str(error).encode()
