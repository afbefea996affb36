"""How types, values and their places are spelled in error messages."""

from __future__ import annotations

import difflib
import reprlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["Spot", "near", "place", "type_name", "value_text"]

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxdict = _SHORT.maxlist = _SHORT.maxtuple = 3
_ARROW_NAMES = {"halffloat": "float16", "float": "float32", "double": "float64"}
_PYTHON_NAMES = {"str": "string", "NoneType": "None"}


def type_name(type_: pa.DataType) -> str:
    """The type as a user would write it: float64 where Arrow's own text is "double"."""
    text = str(type_)
    return _ARROW_NAMES.get(text, text)


def value_text(value: Any) -> str:
    """Type and short repr of a value ("string 'N/A'", "None"); never raises, never longer than about 100 characters."""
    if value is None:
        return "None"
    kind = type(value)
    name = _PYTHON_NAMES.get(kind.__name__, kind.__name__)
    if isinstance(value, np.generic):
        name = f"numpy {name}"
    elif isinstance(value, np.ndarray):
        return f"numpy array of shape {value.shape} and dtype {value.dtype}"
    elif kind is datetime and value.tzinfo is None:
        name = "naive datetime"
    try:
        text = " ".join(_SHORT.repr(value).split())  # errors are one line
    except Exception:  # the repr is the user's code
        return name
    return name if len(text) > 80 else f"{name} {text}"


def place(where: str, row: int | None, path: str = "") -> str:
    """Where a value stands: "at trades[3].price", "at trades[3] $.a[2].b"."""
    if len(path) > 120:
        path = f"{path[:60]}…{path[-40:]}"
    if not where and row is None and path:
        return f"at {path}"
    subject = where or "rows"
    if row is not None:
        subject = f"{subject}[{row}]"
    if path.startswith("$"):
        return f"at {subject} {path}"
    return f"at {subject}.{path}" if path else f"at {subject}"


def near(name: Any, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None."""
    found = difflib.get_close_matches(str(name)[:100], list(known), n=1)
    return found[0] if found else None


class Spot:
    """Where the values of one column stand, asked only when one does not fit.

    `row(i)` is the row number of value i, `path(i)` its path, with `$` for the row itself.
    """

    __slots__ = ("column", "path", "row", "where")

    def __init__(
        self,
        where: str,
        row: Callable[[int], int],
        path: Callable[[int], str] = lambda i: "$",
        column: str | None = None,
    ) -> None:
        self.where = where
        self.row = row
        self.path = path
        self.column = column

    def member(self, name: str) -> Spot:
        """The place of a member of each value."""
        return Spot(self.where, self.row, lambda i: f"{self.path(i)}.{name}", self.column or name)

    def items(self, lengths: Sequence[int]) -> Spot:
        """The place of the items of lists, given the length of each."""
        stops = list(accumulate(lengths))

        def path(i: int) -> str:
            owner = bisect_right(stops, i)
            return f"{self.path(owner)}[{i - stops[owner] + lengths[owner]}]"

        return Spot(self.where, lambda i: self.row(bisect_right(stops, i)), path, self.column)

    def facts(self, i: int) -> dict[str, Any]:
        """The `where`, `row`, `path` and `column` of an error about value i."""
        row, path = self.row(i), self.path(i)
        text = "" if path == "$" else self.column if path == f"$.{self.column}" else path
        return {"where": place(self.where, row, text or ""), "row": row, "path": path, "column": self.column}
