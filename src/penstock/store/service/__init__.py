"""The store on the network: a Flight server with a fixed amount of memory, its client, and a prompt.

`wire` is what they say to each other, `desk` what a server does without a network; `server` and `client` bring the
sockets.
"""

from __future__ import annotations

from penstock.store.service.client import Client, connect
from penstock.store.service.desk import Desk
from penstock.store.service.server import Server, serve

__all__ = ["Client", "Desk", "Server", "connect", "serve"]
