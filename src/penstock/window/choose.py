"""From options to an emitter: what `hub.streams.get(name, lazy=True, …)` means."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from penstock.errors import UsageError
from penstock.window.bars import Bars
from penstock.window.bars.emitter import BarWindow
from penstock.window.emitter import Emitter
from penstock.window.kinds import CountWindow, FixedTimeWindow, RelaxedTimeWindow, SessionWindow, SlidingWindow, span

__all__ = ["emitter_for"]

_CLOCK = ("by", "time", "lateness", "idle", "late")
_TAKES = {
    "emitter": (),
    "size": ("by", "time"),
    "interval": (*_CLOCK, "origin", "tz", "emit_empty"),
    "interval with relaxed": ("by",),
    "interval with every": (*_CLOCK, "origin"),
    "gap": _CLOCK,
}


def emitter_for(
    size: int | None = None,
    interval: Any = None,
    relaxed: bool = False,
    by: str | None = None,
    emitter: Emitter | Bars | None = None,
    gap: Any = None,
    every: Any = None,
    *,
    time: Any = None,
    lateness: Any = None,
    late: str | None = None,
    tz: str | None = None,
    origin: Any = None,
    emit_empty: bool | None = None,
    idle: Any = None,
    schema: pa.Schema | None = None,
) -> Emitter:
    """The emitter these options ask for.

        nothing              CountWindow(1): one row per window
        size=5               CountWindow(5)
        interval=2           FixedTimeWindow(2), aligned to the clock
        interval=2, relaxed  RelaxedTimeWindow(2)
        interval=2, every=1  SlidingWindow(2, 1)
        gap=30               SessionWindow(30)
        emitter=…            that emitter; of Bars, a BarWindow

    Takes   by, time, lateness, late, tz, origin, emit_empty, idle: as in those classes; schema: the stream's, so that
            missing columns show now. The clock is the stream's event column when it has one, else the time of append.
    Raises  UsageError for options that contradict each other, naming both; WindowError for values that cannot be.
    """
    kinds = {"emitter": emitter, "size": size, "interval": interval, "gap": gap}
    chosen = [name for name, value in kinds.items() if value is not None]
    if len(chosen) > 1:
        raise _both(chosen[0], kinds[chosen[0]], chosen[1], kinds[chosen[1]])
    kind = chosen[0] if chosen else "size"
    if relaxed or every is not None:
        name, value = ("relaxed", relaxed) if relaxed else ("every", every)
        if relaxed and every is not None:
            raise _both("relaxed", relaxed, "every", every)
        if kind != "interval":
            if chosen:
                raise _both(kind, kinds[kind], name, value)
            raise _alone("interval", name, value)
        kind = f"interval with {name}"
    options = {
        "by": by,
        "time": time,
        "lateness": lateness,
        "late": late,
        "tz": tz,
        "origin": origin,
        "emit_empty": emit_empty,
        "idle": idle,
    }
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if name not in _TAKES[kind] and not chosen:
            raise _alone("interval", name, value)
        if name not in _TAKES[kind]:
            first, _, second = kind.partition(" with ")
            raise _both(second or first, {**kinds, "relaxed": relaxed, "every": every}[second or first], name, value)
    if interval is not None:
        span(interval, "interval")
    found: Emitter
    if emitter is not None:
        if isinstance(emitter, Bars):
            emitter = BarWindow(emitter)
        if not isinstance(emitter, Emitter):
            raise UsageError(
                expected="an emitter, made: CountWindow(5) or an instance of a CustomWindow class",
                got=repr(emitter),
                where="in emitter",
            )
        found = emitter
    elif kind == "interval":
        found = FixedTimeWindow(interval, **given)
    elif kind == "interval with relaxed":
        found = RelaxedTimeWindow(interval, **given)
    elif kind == "interval with every":
        found = SlidingWindow(interval, every, **given)
    elif kind == "gap":
        found = SessionWindow(gap, **given)
    else:
        found = CountWindow(1 if size is None else size, **given)
    if schema is not None:
        found.bind(schema)
    return found


def _both(first: str, one: Any, second: str, other: Any) -> UsageError:
    return UsageError(
        expected=f"either {first} or {second}"
        if second in ("emitter", "size", "interval", "gap", "every")
        else f"no {second} with {first}",
        got=f"{first}={one!r} and {second}={other!r}",
        where="in window options",
        hint="leave one of the two out",
    )


def _alone(missing: str, name: str, value: Any) -> UsageError:
    return UsageError(
        expected=f"{missing} with {name}",
        got=f"{name}={value!r} alone",
        where="in window options",
        hint=f"such as {missing}=2, {name}={value!r}",
    )
