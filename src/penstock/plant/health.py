"""What the plant answers to plain HTTP on its port: is it alive, is it ready, what does it count. No I/O."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from penstock.plant.metrics import prometheus
from penstock.plant.plant import Plant
from penstock.tokens import any_key

__all__ = ["LOOPBACK", "Page", "Pages", "is_loopback", "origin_fits", "page"]

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

_TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """An answer to plain HTTP: status, body, content type, further headers."""

    status: int
    body: str | bytes
    kind: str = _TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


Pages = Callable[[str, Mapping[str, str]], Page | None]
"""Of a path and the headers of a request: the answer, or None when there is no such page."""


def page(plant: Plant, path: str, headers: Mapping[str, str], *, is_ready: bool) -> Page | None:
    """The answer to GET `path`; None when there is no such page."""
    path = urlsplit(path).path
    if path == "/healthz":
        return Page(200, "ok\n")
    if path == "/readyz":
        if plant.failed:
            return Page(503, "".join(f"{name}: {why}\n" for name, why in plant.failed.items()))
        return Page(200, "ready\n") if is_ready else Page(503, "closing\n")
    if path == "/metrics":
        if not _may_see(plant, headers.get("Authorization", "")):
            return Page(401, "needs the header Authorization: Bearer KEY\n")
        return Page(200, prometheus(plant), "text/plain; version=0.0.4; charset=utf-8")
    return None


def _may_see(plant: Plant, authorization: str) -> bool:
    if plant.check is any_key:
        return True
    kind, _, key = authorization.partition(" ")
    return hmac.compare_digest(kind.lower().encode(), b"bearer") and plant.check(key.strip()) is not None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    return host in LOOPBACK or host.startswith("127.")


def origin_fits(origin: str, host_header: str, allowed: Collection[str]) -> bool:
    """Whether a browser's page of that origin may connect: one that is allowed, or one of this port of this machine.

    A page of another site could otherwise speak to a plant on loopback through its reader's browser.
    """
    if origin in allowed or "*" in allowed:
        return True
    found = urlsplit(origin)
    return found.scheme in ("http", "https") and found.netloc == host_header and (found.hostname or "") in LOOPBACK
