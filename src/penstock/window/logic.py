"""What is made of a window's rows: `window.value`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from penstock.errors import WindowError

if TYPE_CHECKING:
    from penstock.window.window import Window

__all__ = ["Collect", "Logic", "Reduce"]


class Logic(Protocol):
    """A function of a closed window; it must depend on the window's rows and times alone."""

    def __call__(self, window: Window) -> Any: ...


class Collect:
    """The rows as dicts. What windows do when no logic is given."""

    def __call__(self, window: Window) -> list[dict[str, Any]]:
        return window.data


class Reduce:
    """Fold the rows into one value, in the order of their offsets.

    Takes   fn: (value so far, row as dict) -> next value; init: the value before the first row, or a function
            without arguments that makes it, so that windows never share a list or dict.
    """

    def __init__(self, fn: Callable[[Any, dict[str, Any]], Any], init: Any) -> None:
        if not callable(fn):
            raise WindowError(expected="a function (value, row) -> value", got=repr(fn), where="in Reduce")
        if isinstance(init, list | dict | set):
            raise WindowError(
                expected="an init that windows cannot share",
                got=repr(init),
                where="in Reduce",
                hint=f"give a function that makes it, such as {type(init).__name__}",
            )
        self.fn = fn
        self.init = init

    def __call__(self, window: Window) -> Any:
        value = self.init() if callable(self.init) else self.init
        for row in window.data:
            value = self.fn(value, row)
        return value
