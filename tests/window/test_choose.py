"""What the options of `hub.streams.get(name, lazy=True, …)` mean."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from penstock import window as W
from penstock.errors import UsageError, WindowError

TRADES = pa.schema([("symbol", pa.string()), ("ts_event", pa.int64())])


class Half(W.CustomWindow):
    def cuts(self, pending: W.Window) -> list[int]:
        return []


@pytest.mark.parametrize(
    "options, kind, parameters",
    [
        ({}, W.CountWindow, {"size": 1}),
        ({"by": "symbol"}, W.CountWindow, {"size": 1, "by": "symbol"}),
        ({"size": 5}, W.CountWindow, {"size": 5}),
        ({"size": 5, "by": "symbol", "time": "append"}, W.CountWindow, {"by": "symbol", "time": "append"}),
        ({"interval": 2}, W.FixedTimeWindow, {"size_ns": 2 * 10**9, "origin_ns": 0, "late": "drop"}),
        ({"interval": 2, "relaxed": False}, W.FixedTimeWindow, {}),
        (
            {"interval": "1m", "tz": "Europe/Paris", "late": "side", "lateness": "5s", "emit_empty": True, "idle": 3},
            W.FixedTimeWindow,
            {"tz": "Europe/Paris", "late": "side", "lateness_ns": 5 * 10**9, "emit_empty": True},
        ),
        ({"interval": 2, "relaxed": True}, W.RelaxedTimeWindow, {"size_ns": 2 * 10**9}),
        ({"interval": 2, "relaxed": True, "by": "symbol"}, W.RelaxedTimeWindow, {"by": "symbol"}),
        ({"interval": 2, "every": 1}, W.SlidingWindow, {"size_ns": 2 * 10**9, "every_ns": 10**9}),
        ({"gap": "30s", "by": "symbol"}, W.SessionWindow, {"gap_ns": 30 * 10**9, "by": "symbol"}),
    ],
)
def test_options_choose_the_emitter(options: dict[str, Any], kind: type, parameters: dict[str, Any]) -> None:
    emitter = W.emitter_for(**options, schema=TRADES)
    assert type(emitter) is kind
    found = emitter.parameters()
    assert {name: found[name] for name in parameters} == parameters


def test_an_emitter_is_taken_as_it_is() -> None:
    mine = Half()
    assert W.emitter_for(emitter=mine) is mine
    assert isinstance(W.emitter_for(emitter=W.Bars("1m")), W.BarWindow)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"size": 5, "interval": 2}, "expected either size or interval, got size=5 and interval=2 - in window options"),
        ({"size": 5, "gap": 2}, "expected either size or gap, got size=5 and gap=2"),
        ({"interval": 5, "gap": 2}, "expected either interval or gap, got interval=5 and gap=2"),
        ({"emitter": 1, "size": 2}, "expected either emitter or size, got emitter=1 and size=2"),
        ({"size": 5, "relaxed": True}, "expected no relaxed with size, got size=5 and relaxed=True"),
        (
            {"relaxed": True},
            r"expected interval with relaxed, got relaxed=True alone .*; such as interval=2, relaxed=True",
        ),
        ({"every": 1}, "expected interval with every, got every=1 alone"),
        (
            {"interval": 2, "every": 1, "relaxed": True},
            "expected either relaxed or every, got relaxed=True and every=1",
        ),
        ({"gap": 2, "every": 1}, "expected either gap or every, got gap=2 and every=1"),
        ({"size": 5, "tz": "UTC"}, "expected no tz with size, got size=5 and tz='UTC'"),
        (
            {"tz": "UTC"},
            "expected interval with tz, got tz='UTC' alone - in window options; such as interval=2, tz='UTC'",
        ),
        ({"size": 5, "late": "drop"}, "expected no late with size, got size=5 and late='drop'"),
        ({"size": 5, "lateness": 0}, "expected no lateness with size, got size=5 and lateness=0"),
        ({"interval": 2, "relaxed": True, "lateness": 1}, "no lateness with relaxed, got relaxed=True and lateness=1"),
        (
            {"interval": 2, "relaxed": True, "time": "ts_event"},
            "no time with relaxed, got relaxed=True and time='ts_event'",
        ),
        ({"interval": 2, "every": 1, "emit_empty": True}, "no emit_empty with every, got every=1 and emit_empty=True"),
        ({"interval": 2, "every": 1, "tz": "UTC"}, "expected no tz with every, got every=1 and tz='UTC'"),
        ({"gap": 2, "origin": 1}, "expected no origin with gap, got gap=2 and origin=1"),
        ({"emitter": Half(), "by": "x"}, "expected no by with emitter, got emitter=<.*Half object .*> and by='x'"),
    ],
)
def test_options_that_contradict_each_other_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        W.emitter_for(**options)


@pytest.mark.parametrize("emitter", [Half, 5, "CountWindow"])
def test_an_emitter_is_an_instance(emitter: Any) -> None:
    with pytest.raises(UsageError, match="expected an emitter, made: .*, got"):
        W.emitter_for(emitter=emitter)


def test_a_schema_shows_mistakes_at_once() -> None:
    with pytest.raises(
        WindowError, match=r"expected a column 'sym', got columns symbol, ts_event - in by; did you mean"
    ):
        W.emitter_for(size=2, by="sym", schema=TRADES)
    with pytest.raises(WindowError, match="expected a column 'when'"):
        W.emitter_for(interval=2, time="when", schema=TRADES)
    W.emitter_for(size=2, by="sym")


@pytest.mark.parametrize("options", [{"size": 0}, {"size": True}, {"size": 2.5}, {"interval": 0}, {"gap": 0}])
def test_values_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(WindowError):
        W.emitter_for(**options)
