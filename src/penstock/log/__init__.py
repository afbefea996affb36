"""Durable streams: segment format, append, read, groups, retention."""

from __future__ import annotations

from penstock.log.check import Damage, Problem, Report
from penstock.log.chunk import Chunk
from penstock.log.folder import Folder
from penstock.log.meta import Metadata, Options, Retention
from penstock.log.positions import Group, Position
from penstock.log.reader import Reader
from penstock.log.stream import Item, Stream, StreamStatistics

__all__ = [
    "Chunk",
    "Damage",
    "Folder",
    "Group",
    "Item",
    "Metadata",
    "Options",
    "Position",
    "Problem",
    "Reader",
    "Report",
    "Retention",
    "Stream",
    "StreamStatistics",
]
