"""Frames by name: what was streamed, as a dataframe, in milliseconds, corrections included.

    store = penstock.store.open("data")
    store.write("historical/minute", frame)
    store.read("historical/minute/AAPL", "2026-01-05", "2026-01-06", as_of="2026-01-05T15:00:00Z")

    server = penstock.store.serve("data", memory="1g"); store = penstock.store.connect(server.url)   # elsewhere

Rows go to a stream of the hub (the hot tier) and are rolled from there into a Delta table; a read joins both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.store.store import Store, open
from penstock.store.table import Table

if TYPE_CHECKING:
    from penstock.store.service import Client, Server, connect, serve

__all__ = ["Client", "Server", "Store", "Table", "connect", "open", "serve"]

_SERVICE = ("Client", "Server", "connect", "serve")


def __getattr__(name: str) -> Any:
    if name in _SERVICE:  # Flight is imported when it is used
        from penstock.store import service

        return getattr(service, name)
    raise AttributeError(f"module 'penstock.store' has no attribute {name!r}")
