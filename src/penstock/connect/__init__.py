"""Sources and sinks: how rows come in, and where results go.

from penstock.connect import Dataset, attach

Dataset("trades.parquet", pace="60x").stream(stream)     # a recording, sixty times as fast
WebSocket("ws://localhost:5000", subscribe="AM.*").stream(bars)   # market data, or a plant
attach(rows(), stream)                                   # anything that yields rows, batches or frames
"""

from __future__ import annotations

import penstock.connect.samples as samples
from penstock.connect.base import Plugin, Sink, Source, Target, aattach, attach, sink, sinks, source, sources
from penstock.connect.dataset import Dataset, DatasetStatistics
from penstock.connect.filesink import FileSink
from penstock.connect.websocket import WebSocket, WebSocketStatistics
from penstock.connect.websocketsink import WebSocketSink, WebSocketSinkStatistics

__all__ = [
    "Dataset",
    "DatasetStatistics",
    "FileSink",
    "Plugin",
    "Sink",
    "Source",
    "Target",
    "WebSocket",
    "WebSocketSink",
    "WebSocketSinkStatistics",
    "WebSocketStatistics",
    "aattach",
    "attach",
    "samples",
    "sink",
    "sinks",
    "source",
    "sources",
]
