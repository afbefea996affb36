"""Libraries of known factors: `f.library("alpha101")["alpha001"]`, `f.compile(mine | f.library("alpha158"))`.

Each is a module with a function `build(**readings) -> Library`; it is imported when it is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from typing import Any

from penstock.errors import FactorError
from penstock.factor.libraries.base import Library

__all__ = ["LIBRARIES", "Library", "library"]

LIBRARIES = {
    "alpha101": "the 101 formulas of arXiv 1601.00991",
    "alpha158": "Qlib's 158 factors of price and volume bars",
    "alpha360": "Qlib's 360: sixty rows of six fields, relative to the newest",
    "ta": "indicators with TA-Lib's conventions, at their usual parameters",
}


def library(name: str, **readings: Any) -> Library:
    """The factors of a library by name.

    Takes   name: one of `LIBRARIES`;
            readings: how ambiguous definitions are read; `help(penstock.factor.libraries.<name>.build)` lists them.
    Returns a `Library`: Factors that also know their formulas (`explain`) and other names (`alpha1`, `WQAlpha1`).
    Raises  FactorError for a library or reading there is not, with near matches.
    Cost    the first call imports and parses it: 10 to 100 ms.
    """
    if name not in LIBRARIES:
        near = difflib.get_close_matches(str(name), LIBRARIES, n=2)
        hint = f"did you mean {' or '.join(map(repr, near))}" if near else f"there are {', '.join(LIBRARIES)}"
        raise FactorError(f"there is no library {name!r}", hint=hint)
    build = importlib.import_module(f"penstock.factor.libraries.{name}").build
    known = inspect.signature(build).parameters
    for reading in readings:
        if reading not in known:
            near = difflib.get_close_matches(reading, known, n=2)
            there = f"its readings are {', '.join(known)}" if known else "it has none"
            hint = f"did you mean {' or '.join(near)}" if near else there
            raise FactorError(f"library {name!r} has no reading {reading!r}", hint=hint)
    made = build(**readings)
    assert isinstance(made, Library)
    return made
