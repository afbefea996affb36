"""Alpaca's market data protocol on the plant's server: its own clients connect unchanged, at `/v2/…`.

    plant   [{"T":"success","msg":"connected"}]
    client  {"action":"auth","key":NAME,"secret":TOKEN}
    plant   [{"T":"success","msg":"authenticated"}]                                or [{"T":"error","code":402,…}]
    client  {"action":"subscribe","trades":["AAPL"],"bars":["*"]}                  or unsubscribe
    plant   [{"T":"subscription","trades":["AAPL"],"quotes":[],"bars":["*"],…}]    the whole set, each time
    plant   [{"T":"t","S":"AAPL",…}, {"T":"b",…}, …]

In MessagePack if the request says `Content-Type: application/msgpack`, else in JSON.

words        codes, channels, frames
encoding     rows and statuses as Alpaca's messages
session      what a client may say
subscriber   the lists of one client, as patterns of the plant
"""

from __future__ import annotations

from penstock.plant.alpaca.encoding import AlpacaEncoding
from penstock.plant.alpaca.session import AlpacaSession
from penstock.plant.alpaca.subscriber import AlpacaSubscriber
from penstock.plant.alpaca.words import is_alpaca, is_packed

__all__ = ["AlpacaEncoding", "AlpacaSession", "AlpacaSubscriber", "is_alpaca", "is_packed"]
