"""Factors: written once, computed over history and tick by tick with the same bits.

    from penstock import factor as f
    close, volume = f.fields("close", "volume")
    mine = f.Factors(reversal=-f.rank(f.ts_delta(close, 5)), trend="close / ts_mean(close, 10) - 1")
    program = f.compile(mine)
    panel = program.batch(bars)
    live = program.stream(["AAPL", "MSFT"])

Besides the names below, every operator of the table is here under its name and its aliases (`f.ts_std`,
`f.stddev`); `help(f.ts_std)` shows its record.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = [
    "Cell",
    "Executor",
    "FactorWindow",
    "Factors",
    "Feed",
    "Flag",
    "Live",
    "Monoid",
    "Node",
    "Number",
    "Operator",
    "Program",
    "Ring",
    "Rows",
    "Series",
    "Share",
    "build",
    "compile",
    "composite",
    "constant",
    "cross",
    "cross_numpy",
    "elementwise",
    "evaluate",
    "field",
    "fields",
    "library",
    "operators",
    "parse",
    "window_state",
    "windowed",
]

_HOME = {
    "Cell": "table",
    "Executor": "executor",
    "FactorWindow": "feed",
    "Factors": "factors",
    "Feed": "feed",
    "Flag": "table",
    "Live": "live",
    "Monoid": "table",
    "Node": "graph",
    "Number": "table",
    "Operator": "table",
    "Program": "program",
    "Ring": "table",
    "Rows": "table",
    "Series": "table",
    "Share": "table",
    "build": "export",
    "compile": "program",
    "composite": "table",
    "constant": "graph",
    "cross": "table",
    "cross_numpy": "table",
    "elementwise": "table",
    "field": "graph",
    "fields": "graph",
    "library": "libraries",
    "parse": "text",
    "window_state": "ops.windowed",
    "windowed": "table",
}


def operators() -> dict[str, Any]:
    """The table: a record per operator name, with its signature, docstring, NaN rule, tolerance and aliases."""
    importlib.import_module("penstock.factor.ops")
    return dict(importlib.import_module("penstock.factor.table").TABLE)


def __getattr__(name: str) -> Any:
    if name == "evaluate":
        return importlib.import_module("penstock.factor.evaluate")
    if name in _HOME:
        return getattr(importlib.import_module(f"penstock.factor.{_HOME[name]}"), name)
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    table = importlib.import_module("penstock.factor.table")
    importlib.import_module("penstock.factor.ops")
    from penstock.errors import FactorError

    try:
        return table.lookup(name)
    except FactorError as error:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; {error.hint}") from None


def __dir__() -> list[str]:
    table = importlib.import_module("penstock.factor.table")
    importlib.import_module("penstock.factor.ops")
    return sorted({*__all__, *table.TABLE, *table.ALIASES})
