"""Sizes as people write them, and frames in pieces that are right for the wire."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa

from penstock.errors import UsageError

__all__ = ["bytes_of", "pieces"]

PIECE_BYTES: Final = 4 << 20
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(k|m|g|t)?(i?b)?", re.IGNORECASE)
_POWER: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def bytes_of(value: Any, name: str) -> int:
    """Bytes of a number, or of text: "64m" and "64MiB" are 64 · 1024², "64MB" is 64 · 1000².

    Raises  UsageError.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())):
        # As memory limits are written everywhere: a letter alone counts in 1024.
        base = 1000 if (found[3] or "").lower() == "b" and found[2] else 1024
        size = int(float(found[1]) * base ** _POWER[(found[2] or "").lower()])
        if size > 0:
            return size
    raise UsageError(expected='a size, such as "512m" or "1g"', got=repr(value), where=f"in {name}")


def pieces(frame: pa.Table, size: int = PIECE_BYTES) -> Iterator[pa.RecordBatch]:
    """The rows as record batches of about `size` bytes, views of the frame."""
    rows = max(1, int(size * frame.num_rows // max(frame.nbytes, 1))) if frame.num_rows else 1
    yield from frame.to_batches(max_chunksize=rows)
