"""One client of Alpaca's dialect: lists of symbols by channel, held as patterns of the plant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.plant.alpaca.encoding import AlpacaEncoding
from penstock.plant.alpaca.session import AlpacaSession, Lists
from penstock.plant.alpaca.words import CHANNELS, error, frame
from penstock.plant.outbox import Wire
from penstock.plant.patterns import Pattern
from penstock.plant.protocol import Action
from penstock.plant.session import Ask
from penstock.plant.subscriber import Subscriber

if TYPE_CHECKING:
    from penstock.plant.plant import Plant

__all__ = ["AlpacaSubscriber"]

_WITH_TRADES = ("corrections", "cancelErrors")


class AlpacaSubscriber(Subscriber):
    """A client of a plant that speaks Alpaca's dialect.

    Takes   packed: in MessagePack.
    """

    def __init__(self, plant: Plant, wire: Wire, *, packed: bool, peer: str, now: int) -> None:
        super().__init__(plant, wire, is_arrow=False, peer=peer, now=now)
        self._packed = packed
        self.session = AlpacaSession(plant.check, plant.limits, now, packed=packed)
        self.outbox.encoding = AlpacaEncoding(packed)
        self.lists: dict[str, dict[str, None]] = {channel: {} for channel in CHANNELS}

    def tick(self, now: int) -> None:
        """Close it if it has not shown a key in time, or takes nothing of what waits for it."""
        is_shut = self.session.who is None and not self.outbox.is_closed
        if is_shut and now - self.opened >= self.plant.limits.auth_seconds * 1e9:
            self.outbox.say(frame(error(404), packed=self._packed))
        super().tick(now)

    def _answer(self, ask: Ask, now: int) -> None:
        assert isinstance(ask, Lists)
        said: list[dict[str, Any]] = []
        wanted = {channel: dict(symbols) for channel, symbols in self.lists.items()}
        for channel, symbols in ask.channels.items():
            event, _ = CHANNELS[channel]
            if ask.action.name == "unsubscribe":
                for symbol in symbols:
                    wanted[channel].pop(symbol, None)
            elif self.plant.serves(Pattern(event, "", True)):
                wanted[channel].update(dict.fromkeys(symbols))
            else:
                said.append(error(410, f"there are no {channel}"))
        for channel in _WITH_TRADES:
            # Whoever has the trades of a symbol is told of their corrections too, as with Alpaca.
            if self.plant.serves(Pattern(CHANNELS[channel][0], "", True)):
                wanted[channel] = dict(wanted["trades"])
        patterns = {
            Pattern.parse(f"{CHANNELS[channel][0]}.{symbol}"): None for channel in wanted for symbol in wanted[channel]
        }
        if len(patterns) > self.plant.limits.subscriptions:
            said.append(error(405))
        else:
            self.lists = wanted
            self._hold(patterns)
        said.append({"T": "subscription", **{channel: list(symbols) for channel, symbols in self.lists.items()}})
        self.outbox.say(frame(*said, packed=self._packed))

    def _hold(self, patterns: dict[Pattern, None]) -> None:
        """Hold these patterns and no other."""
        encoding = AlpacaEncoding(self._packed, frozenset(self.lists["bars"]), frozenset(self.lists["updatedBars"]))
        if encoding != self.outbox.encoding:
            self._leave_all()
            self.outbox.encoding = encoding
        for pattern in [held for held in self.held if held not in patterns]:
            self._forget(pattern)
        self._subscribe(Action("subscribe", ""), [pattern for pattern in patterns if pattern not in self.held])
        self._join_all()
