"""The files of a stream, and bytes of theirs that are not what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from penstock.log import Stream
from penstock.log.format import ENTRY_DTYPE, arrow_name, index_name

__all__ = ["append_bytes", "data_of", "entries_of", "flip", "index_of", "numbers", "spoil"]


def data_of(stream: Stream, first: int = 0) -> Path:
    return stream._folder / arrow_name(first)


def index_of(stream: Stream, first: int = 0) -> Path:
    return stream._folder / index_name(first)


def entries_of(stream: Stream, first: int = 0) -> Any:
    return np.frombuffer(index_of(stream, first).read_bytes(), ENTRY_DTYPE)


def append_bytes(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def spoil(path: Path, at: int, data: bytes) -> None:
    """Write `data` over what is there: in place, for the file may be mapped."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def flip(path: Path, at: int) -> None:
    """Another bit in one byte."""
    spoil(path, at, bytes([path.read_bytes()[at] ^ 4]))


def numbers(stream: Stream, *bounds: Any) -> list[int]:
    """The column `n`."""
    return list(stream.read(*bounds)["n"].to_pylist())
