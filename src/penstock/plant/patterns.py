"""Which messages a subscription asks for: `AM.AAPL`, `AM.A*`, `AM.*`, `*.AAPL`, `*`.

A message has an event (`ev`, such as AM or T) and a symbol. A pattern names the event, or `*`, then after the first
period a symbol, or the beginning of symbols and `*`. `*` alone is every message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from penstock.errors import UsageError

__all__ = ["EVERY", "Pattern", "Wanted", "split"]

_EVENT = re.compile(r"[A-Za-z0-9_:-]{1,64}$|\*$")
_SYMBOL = re.compile(r"[^\s,*\x00-\x1f\x7f]{0,128}\*?$")


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern: event ("*" is any), and a symbol, or with `is_prefix` how symbols begin."""

    event: str
    symbol: str
    is_prefix: bool = False

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """The pattern of a text such as "AM.A*".   Raises  UsageError."""
        if text == "*":
            return EVERY
        event, dot, symbol = text.partition(".")
        if not dot or not symbol or not _EVENT.match(event) or not _SYMBOL.match(symbol):
            raise UsageError(
                expected="a channel such as AM.AAPL, AM.A*, AM.* or *",
                got=repr(text[:80]),
                hint="event and symbol are joined by a period; * may only end the symbol",
            )
        return cls(event, symbol.removesuffix("*"), symbol.endswith("*"))

    def __str__(self) -> str:
        star = "*" if self.is_prefix else ""
        return "*" if self == EVERY else f"{self.event}.{self.symbol}{star}"

    def may_be(self, event: str | None) -> bool:
        """Whether messages of that event can match; None: messages of any event."""
        return event is None or self.event in ("*", event)

    def takes_all(self, event: str | None) -> bool:
        """Whether every message of that event matches; None: every message."""
        return self.is_prefix and not self.symbol and (self.event == "*" or self.event == event)

    def matches(self, event: str, symbol: str) -> bool:
        """Whether a message matches."""
        if self.event not in ("*", event):
            return False
        return symbol.startswith(self.symbol) if self.is_prefix else symbol == self.symbol


EVERY = Pattern("*", "", True)
"""Every message."""


def split(text: str) -> list[str]:
    """The parts of a comma list, without blanks around them, each once, in order."""
    return list(dict.fromkeys(part for part in (part.strip() for part in text.split(",")) if part))


class Wanted:
    """A set of patterns, less those messages that another set has already.

    Frozen and hashable: subscribers who want the same share one. Cost of `matches`: one look-up for exact patterns, and
    one comparison for each other pattern.
    """

    __slots__ = ("_exact", "_hash", "_wild", "but", "patterns")

    def __init__(self, patterns: Iterable[Pattern], but: Iterable[Pattern] = ()) -> None:
        self.patterns = frozenset(patterns)
        self.but = frozenset(but)
        self._hash = hash((self.patterns, self.but))
        self._exact = {(p.event, p.symbol) for p in self.patterns if not p.is_prefix and p.event != "*"}
        self._wild = [p for p in self.patterns if p.is_prefix or p.event == "*"]

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Wanted) and self.patterns == other.patterns and self.but == other.but

    def __bool__(self) -> bool:
        return bool(self.patterns)

    @property
    def is_exact(self) -> bool:
        """Whether single symbols of single events are all it wants."""
        return not self._wild

    @property
    def keys(self) -> set[tuple[str, str]]:
        """(event, symbol) of the exact patterns."""
        return self._exact

    def takes_all(self, event: str | None) -> bool:
        """Whether it wants every message of that event; None: every message."""
        return not self.but and any(p.takes_all(event) for p in self._wild)

    def matches(self, event: str, symbol: str) -> bool:
        """Whether it wants the message."""
        if (event, symbol) not in self._exact and not any(p.matches(event, symbol) for p in self._wild):
            return False
        return not any(p.matches(event, symbol) for p in self.but)
