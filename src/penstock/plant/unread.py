"""Streams that cannot be read now, and when to try again."""

from __future__ import annotations

from typing import Final

__all__ = ["Unread"]

_FIRST_NS: Final = 1_000_000_000
_LONGEST_NS: Final = 60_000_000_000


class Unread:
    """Names of streams with what is wrong; each is due again after a second, then after twice as long, up to a minute.

    Times are handed in, in ns.
    """

    def __init__(self) -> None:
        self.why: dict[str, str] = {}
        self._due: dict[str, tuple[int, int]] = {}  # when, and the pause after that

    def add(self, name: str, why: str, now: int) -> None:
        """It could not be read, for the first time or once more."""
        pause = self._due[name][1] if name in self._due else _FIRST_NS
        self.why[name], self._due[name] = why, (now + pause, min(pause * 2, _LONGEST_NS))

    def due(self, now: int) -> list[str]:
        """Those to be tried again."""
        return [name for name, (when, _) in self._due.items() if now >= when]

    def remove(self, name: str) -> None:
        """It can be read again, or is gone."""
        self.why.pop(name, None)
        self._due.pop(name, None)
