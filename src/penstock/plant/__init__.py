"""The ticker plant: streams of a hub over WebSocket, in the market's own protocol.

    service = penstock.plant.serve(hub, port=5000)             # streams go out as they are appended
    for message in penstock.plant.subscribe("ws://localhost:5000", "AM.*", since="start"): ...

From the log to the wire: `feed` reads a stream, `messages` writes its rows as JSON, `lanes` finds who gets them,
`parcels` are the frames, `outbox` keeps what one client has not taken yet. `session` is what a client may say,
`subscriber` what it gets, `history` what it missed; `plant` joins them. None of these has a socket, a loop or a
clock: `server` brings those.
"""

from __future__ import annotations

from penstock.plant.client import Subscription, subscribe
from penstock.plant.limits import Limits
from penstock.plant.plant import Plant
from penstock.plant.protocol import ARROW, Code, Policy
from penstock.plant.server import Server
from penstock.plant.service import Service, serve
from penstock.tokens import Token, Tokens

__all__ = [
    "ARROW",
    "Code",
    "Limits",
    "Plant",
    "Policy",
    "Server",
    "Service",
    "Subscription",
    "Token",
    "Tokens",
    "serve",
    "subscribe",
]
