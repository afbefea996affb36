"""Windows over streams: clock × windower × logic. Pure: rows and marks in, windows out."""

from __future__ import annotations

from penstock.window.bars import Bars
from penstock.window.bars.emitter import BarWindow
from penstock.window.choose import emitter_for
from penstock.window.clocks import AppendClock, EventClock, MarkClock
from penstock.window.custom import CustomWindow
from penstock.window.emitter import Emitter, EmitterStatistics
from penstock.window.grid import Grid
from penstock.window.kinds import CountWindow, FixedTimeWindow, RelaxedTimeWindow, SessionWindow, SlidingWindow
from penstock.window.logic import Collect, Logic, Reduce
from penstock.window.sessions import Sessions
from penstock.window.window import Window

__all__ = [
    "AppendClock",
    "BarWindow",
    "Bars",
    "Collect",
    "CountWindow",
    "CustomWindow",
    "Emitter",
    "EmitterStatistics",
    "EventClock",
    "FixedTimeWindow",
    "Grid",
    "Logic",
    "MarkClock",
    "Reduce",
    "RelaxedTimeWindow",
    "SessionWindow",
    "Sessions",
    "SlidingWindow",
    "Window",
    "emitter_for",
]
