"""What a client of Alpaca's dialect may say, as a state machine."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Any

import msgspec

from penstock.errors import UsageError
from penstock.plant.alpaca.words import CHANNELS, error, frame
from penstock.plant.limits import Limits
from penstock.plant.patterns import Pattern
from penstock.plant.protocol import Action, Code
from penstock.plant.session import Act, Ask, Authenticated, Close, Reply, Session
from penstock.tokens import Check

__all__ = ["AlpacaSession", "Lists"]


@dataclass(frozen=True, slots=True)
class Lists(Ask):
    """Subscribe or unsubscribe: symbols by channel."""

    channels: dict[str, list[str]] = field(default_factory=dict)


class AlpacaSession(Session):
    """The state of one conversation.

    Takes   packed: whether it speaks MessagePack. The key is the name of a token, the secret is the token: whoever
            `check` says that the token belongs to must be the one that the key says.
    """

    def __init__(self, check: Check, limits: Limits, now: int, *, packed: bool) -> None:
        super().__init__(check, limits, now)
        self._packed = packed

    def received(self, data: str | bytes, now: int) -> list[Act]:
        """What a message of the client leads to."""
        if self._closed:
            return []
        if not self._rate.take(now):
            return [self._error(400, "too many messages"), self._close(Close(Code.POLICY, "too many messages"))]
        try:
            found = msgspec.json.decode(data) if isinstance(data, str) else msgspec.msgpack.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
            return self._faulty(400)
        if not isinstance(found, dict):
            return self._faulty(400)
        action = found.pop("action", None)
        if action == "auth":
            return self._show(found)
        if self.who is None:
            return [self._error(401), self._close(Close(Code.POLICY, "authenticate first"))]
        if action not in ("subscribe", "unsubscribe"):
            return self._faulty(400)
        return self._lists(action, found)

    def _show(self, found: dict[Any, Any]) -> list[Act]:
        if self.who is not None:
            return [self._error(403)]
        key, secret = found.get("key"), found.get("secret")
        who = self._check(secret) if isinstance(key, str) and isinstance(secret, str) else None
        # A plant without tokens knows nobody by name: any pair is good.
        if who is None or (who and not hmac.compare_digest(who.encode(), str(key).encode("utf-8", "surrogatepass"))):
            return [self._error(402), self._close(Close(Code.POLICY, "authentication failed"))]
        self.who = who
        return [Authenticated(who)]

    def _lists(self, action: str, found: dict[Any, Any]) -> list[Act]:
        channels: dict[str, list[str]] = {}
        for name, symbols in found.items():
            if name not in CHANNELS:
                return self._faulty(400, f"no channel {name!r:.40}")
            if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
                return self._faulty(400, f"{name} is no list of symbols")
            try:
                for symbol in symbols:
                    Pattern.parse(f"T.{symbol}")
            except UsageError:
                return self._faulty(400, f"{name} has a symbol that can be none")
            if symbols:
                channels[name] = symbols
        return [Lists(Action(action, ""), [], [], channels)]

    def _faulty(self, code: int, more: str = "") -> list[Act]:
        if self.who is None or self._is_enough():
            return [self._error(code, more), self._close(Close(Code.POLICY, "too many errors"))]
        return [self._error(code, more)]

    def _error(self, code: int, more: str = "") -> Reply:
        return Reply(frame(error(code, more), packed=self._packed))
