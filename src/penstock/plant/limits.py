"""How much of the plant one client, and all of them, may take."""

from __future__ import annotations

from dataclasses import dataclass, fields

from penstock.errors import UsageError

__all__ = ["Limits", "Rate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a plant.

    message_bytes          of one message from a client; more: close 1009
    subscriptions          patterns of one connection; more: status error
    histories              subscriptions of one connection that read from the log at once; more: status error
    connections            of all clients; more: HTTP 503
    connections_per_token  of one token, or of all without tokens; more: status max_connections, then close 1008
    actions_per_second     messages from one client, and ten times as many at once; more: close 1008
    auth_seconds           until a client has shown its key; later: close 1008
    stalled_seconds        for which a client may take nothing of what waits for it; later: close 1008
    questions              of one connection that wait for an answer; more: status ask_error
    outbox_bytes, outbox_messages   that wait for one client; more: its policy takes effect
    send_buffer            bytes that the kernel holds for one client; None: as the system has it
    """

    message_bytes: int = 256 << 10
    subscriptions: int = 10_000
    histories: int = 8
    connections: int = 4_000
    connections_per_token: int = 2_000
    actions_per_second: int = 20
    auth_seconds: float = 10.0
    stalled_seconds: float = 60.0
    questions: int = 8
    outbox_bytes: int = 4 << 20
    outbox_messages: int = 50_000
    send_buffer: int | None = 512 << 10

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise UsageError(expected=f"{field.name} above 0", got=repr(value), where="in Limits")


class Rate:
    """A budget of acts: `per_second`, and up to `burst` at once. Times are handed in, in ns."""

    __slots__ = ("_burst", "_left", "_per_ns", "_seen")

    def __init__(self, per_second: float, burst: float, now: int) -> None:
        self._per_ns, self._burst = per_second / 1e9, burst
        self._left, self._seen = burst, now

    def take(self, now: int) -> bool:
        """Spend one; False when there is none left."""
        self._left = min(self._burst, self._left + (now - self._seen) * self._per_ns)
        self._seen = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
