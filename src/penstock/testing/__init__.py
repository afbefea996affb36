"""What tests of streams need: a clock that moves when told, sources that follow a script, sinks that remember.

source = ScriptedSource({"n": 1}, PAUSE, {"n": 2}, ABORT, {"n": 3})
sink = CollectSink()
"""

from __future__ import annotations

from penstock.clock import ManualClock
from penstock.testing.processes import kill_at
from penstock.testing.scripted import ABORT, EOF, PAUSE, Mark, ScriptedSource
from penstock.testing.sinks import CollectSink

__all__ = ["ABORT", "EOF", "PAUSE", "CollectSink", "ManualClock", "Mark", "ScriptedSource", "kill_at"]
