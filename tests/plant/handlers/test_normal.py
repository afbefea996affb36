from __future__ import annotations

import datetime
import struct

import numpy as np
import pytest

from penstock.errors import HandlerError
from penstock.plant.handlers import wire
from penstock.plant.handlers.normal import Unfit, messages


@pytest.mark.parametrize("nothing", [None, 0, np.int64(0), [], (), np.array([]), np.array(0)])
def test_nothing(nothing):
    assert messages(nothing) == []


def test_numbers_of_numpy_become_plain():
    given = {
        "i": np.int64(3),
        "f": np.float32(0.5),
        "b": np.bool_(True),
        "a": np.arange(3),
        "n": np.nan,
        "inf": -np.inf,
    }
    got = messages(given)[0]
    assert got == {"i": 3, "f": 0.5, "b": True, "a": [0, 1, 2], "n": None, "inf": None}
    assert {type(value) for value in got.values()} == {int, float, bool, list, type(None)}


def test_arrays_of_messages_and_nested_values():
    array = np.empty(2, object)
    array[:] = [{"v": {"k": [np.int8(1), [None]]}}, {"v": np.array([["a", "b"]])}]
    assert messages(array) == [{"v": {"k": [1, [None]]}}, {"v": [["a", "b"]]}]


@pytest.mark.parametrize(
    "given, text",
    [
        (1, "expected a message, a list of messages or nothing, got int 1"),
        (True, "expected a message, a list of messages or nothing, got bool True"),
        ("a", "expected a message, a list of messages or nothing, got str 'a'"),
        ([{"a": 1}, 2], "expected a message, a list of messages or nothing, got int 2 at [1]"),
        ({1: 2}, "expected text as a key, got int 1 in the result"),
        (
            {"d": datetime.date(2026, 1, 2)},
            "expected a number, text, a list or a map, got date datetime.date(2026, 1, 2) at the result.d",
        ),
        ({"b": b"x"}, "expected a number, text, a list or a map, got bytes b'x' at the result.b"),
        ({"z": 1j}, "expected a number, text, a list or a map, got complex 1j at the result.z"),
        ({"n": 1 << 64}, "expected an integer of 64 bits, got int 18446744073709551616 at the result.n"),
        ({"o": object}, "expected a number, text, a list or a map, got type <class 'object'> at the result.o"),
    ],
)
def test_what_is_no_message(given, text):
    with pytest.raises(Unfit) as error:
        messages(given)
    assert str(error.value) == text


def test_a_value_within_itself():
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(Unfit, match="nested at most 32 deep"):
        messages({"l": loop})


def test_frames_that_cannot_be():
    with pytest.raises(
        HandlerError, match="expected a frame of at most 268435456 bytes from a handler, got one of 4294967295"
    ):
        wire.size(struct.pack(">I", 2**32 - 1))
    with pytest.raises(HandlerError, match="what is no frame"):
        wire.unpack(b"\xc1")
    with pytest.raises(HandlerError, match="expected at most 256 MiB between a plant and a handler"):
        wire.pack({"x": b"0" * (wire.LARGEST + 1)})
