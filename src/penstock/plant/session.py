"""One client's conversation with the plant, as a state machine without sockets, loop or clock.

`received` takes a message of the client and returns what to do: acts, in order. A client that has not shown its key
gets the greeting and nothing else: whatever it says but `auth` closes the connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penstock.errors import UsageError
from penstock.plant.limits import Limits, Rate
from penstock.plant.patterns import Pattern, split
from penstock.plant.protocol import (
    AUTH_FAILED,
    AUTH_SUCCESS,
    Action,
    Code,
    parse_action,
    status,
    statuses,
)
from penstock.tokens import Check

__all__ = ["Act", "Ask", "Authenticated", "Close", "Question", "Reply", "Session"]


@dataclass(frozen=True, slots=True)
class Reply:
    """Send this frame."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection."""

    code: Code
    reason: str


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The client is `who`: count it, then say so, or that there are too many."""

    who: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Subscribe, unsubscribe or make a snapshot: `patterns`, and `wrong` statuses for those that are none."""

    action: Action
    patterns: list[Pattern]
    wrong: list[bytes]


@dataclass(frozen=True, slots=True)
class Question:
    """For the handler behind the plant: any JSON value; the answer carries `id`."""

    id: int | str | None
    params: Any


Act = Reply | Close | Authenticated | Ask | Question

_AUTH_FIRST = Close(Code.POLICY, 'authenticate first: {"action":"auth","params":KEY}')
_MAX_WRONG = 100


class Session:
    """The state of one conversation.

    Takes   check: who a key belongs to; limits; now: ns, as in all methods.
    """

    def __init__(self, check: Check, limits: Limits, now: int) -> None:
        self._check, self._limits = check, limits
        self._opened = now
        self._rate = Rate(limits.actions_per_second, limits.actions_per_second * 10, now)
        self._wrong = 0
        self._closed = False
        self.who: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether the client has shown a good key."""
        return self.who is not None and not self._closed

    def overdue(self, now: int) -> Close | None:
        """What to do about a client that shows no key."""
        if self.who is None and not self._closed and now - self._opened >= self._limits.auth_seconds * 1e9:
            return self._close(Close(Code.POLICY, "no authentication in time"))
        return None

    def received(self, data: str | bytes, now: int) -> list[Act]:
        """What a message of the client leads to."""
        if self._closed:
            return []
        if not self._rate.take(now):
            return [self._close(Close(Code.POLICY, "too many messages"))]
        if not isinstance(data, str):
            return [self._close(Close(Code.UNSUPPORTED, "text frames only"))]
        try:
            action = parse_action(data)
        except UsageError as error:
            return self._refuse(str(error))
        if action.name == "auth":
            return self._auth(action.params)
        if self.who is None:
            return [self._close(_AUTH_FIRST)]
        if action.name == "ask":
            return [Question(action.id, action.question)]
        return self._ask(action)

    def _auth(self, key: str) -> list[Act]:
        if self.who is not None:
            return [Reply(AUTH_SUCCESS)]  # said twice: it is who it was
        self.who = self._check(key)
        if self.who is None:
            return [Reply(AUTH_FAILED), self._close(Close(Code.POLICY, "authentication failed"))]
        return [Authenticated(self.who)]

    def _ask(self, action: Action) -> list[Act]:
        patterns, wrong = [], []
        for text in split(action.params):
            try:
                patterns.append(Pattern.parse(text))
            except UsageError as error:
                wrong.append(status("error", f"invalid subscription: {text[:80]} ({error})"))
        if not patterns and not wrong:
            return self._refuse(f"params of {action.name} name no channel")
        if wrong and self._is_enough():
            return [self._close(Close(Code.POLICY, "too many errors"))]
        return [Ask(action, patterns, wrong[:20])]

    def _refuse(self, message: str) -> list[Act]:
        if self.who is None:
            return [self._close(_AUTH_FIRST)]
        if self._is_enough():
            return [self._close(Close(Code.POLICY, "too many errors"))]
        return [Reply(statuses(status("error", message)))]

    def _is_enough(self) -> bool:
        self._wrong += 1
        return self._wrong > _MAX_WRONG

    def _close(self, close: Close) -> Close:
        self._closed = True
        return close
