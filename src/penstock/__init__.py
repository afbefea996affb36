"""Live data to computation: from feed to factor to frame.

    import penstock as ps

    hub = ps.open("data")                              # streams live in a hub: a folder
    trades = hub.streams.get("trades", schema=ps.records.TRADES)
    trades.append({"symbol": "AAPL", "ts_event": 1, "price": 101.5, "size": 100})

Everything here is imported at first use; `import penstock` itself takes a few milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock import clock, connect, errors, factor, log, plant, records, store, window
    from penstock.hub import Hub, open, streams
    from penstock.window import Window

__version__ = "0.1.0"

__all__ = [
    "Hub",
    "Window",
    "__version__",
    "clock",
    "connect",
    "errors",
    "factor",
    "log",
    "open",
    "plant",
    "records",
    "store",
    "streams",
    "window",
]

_MODULES = frozenset({"clock", "connect", "errors", "factor", "log", "plant", "records", "store", "window"})
_NAMES = {"Hub": "penstock.hub", "open": "penstock.hub", "streams": "penstock.hub", "Window": "penstock.window"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"penstock.{name}")
    if name in _NAMES:
        # Not kept: `streams` belongs to whatever the default hub is at that moment.
        return getattr(import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'penstock' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
