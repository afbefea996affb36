"""The parameters of Bars, checked and in one form, so that a snapshot can say what it was made for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penstock.clock import duration_ns, time_ns
from penstock.errors import WindowError
from penstock.window.grid import Grid
from penstock.window.sessions import SessionGrid, Sessions

__all__ = ["Options"]

_CHOICES = {
    "late": ("revise", "drop", "side"),
    "label": ("start", "end"),
    "fill": ("none", "previous", "nan"),
    "closed": ("left", "right"),
}
_UNITS = (("d", 86_400_000_000_000), ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000))


@dataclass(frozen=True, slots=True)
class Options:
    """Durations and `origin` in ns; the rest as given to Bars."""

    interval: int
    by: str
    price: str
    size: str | None
    time: str
    lateness: int
    late: str
    revise_for: int
    label: str
    fill: str
    sessions: Sessions | None
    tz: str | None
    origin: int
    closed: str

    @classmethod
    def of(cls, *, interval: Any, lateness: Any, revise_for: Any, origin: Any, **rest: Any) -> Options:
        """The options a call of Bars asks for.

        Raises  WindowError for a combination that cannot work, UsageError for durations or times that are none.
        """
        for name, allowed in _CHOICES.items():
            if rest[name] not in allowed:
                raise WindowError(
                    expected=f"{name} of {', '.join(map(repr, allowed))}", got=repr(rest[name]), where="in Bars"
                )
        for name in ("by", "price", "size", "time"):
            column = rest[name]
            if not (isinstance(column, str) and column) and not (name == "size" and column is None):
                raise WindowError(expected=f"the name of a column for {name}", got=repr(column), where="in Bars")
        size = duration_ns(interval, name="interval of Bars")
        if not size:
            raise WindowError(expected="an interval of at least 1 ns", got=repr(interval), where="in Bars")
        origin_ns = origin if type(origin) is int else time_ns(origin, name="origin of Bars")
        sessions = rest["sessions"]
        if sessions is not None:
            if not isinstance(sessions, Sessions):
                raise WindowError(expected="penstock.window.Sessions for sessions", got=repr(sessions), where="in Bars")
            if rest["tz"] is not None or origin_ns:
                raise WindowError(
                    "sessions have a zone and a start of their own", where="in Bars", hint="leave out tz and origin"
                )
        keep = 10 * size if revise_for is None else duration_ns(revise_for, name="revise_for of Bars")
        late = duration_ns(lateness, name="lateness of Bars")
        return cls(interval=size, lateness=late, revise_for=keep, origin=origin_ns, **rest)

    def grid(self) -> Grid | SessionGrid:
        if self.sessions is not None:
            return self.sessions.grid(self.interval)
        return Grid(self.interval, origin_ns=self.origin, tz=self.tz)

    def shown(self) -> dict[str, Any]:
        """Plain values, as one would write them."""
        out: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        for name in ("interval", "lateness", "revise_for"):
            out[name] = _text(out[name])
        out["sessions"] = repr(self.sessions) if self.sessions else None
        return out


def _text(ns: int) -> str:
    for unit, length in _UNITS:
        if ns and ns % length == 0:
            return f"{ns // length}{unit}"
    return f"{ns}ns"
