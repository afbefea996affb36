"""Which rows and columns a reader wants, in users' words: offsets, times, names."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.clock import time_ns
from penstock.errors import OffsetError, UsageError
from penstock.log.chunk import Chunk

__all__ = ["Bound", "Columns", "When", "bound", "is_oldest"]

When = int | np.integer[Any] | str | datetime | np.datetime64 | None

_MADE = {
    "_offset": pa.field("_offset", pa.int64(), nullable=False),
    "_created": pa.field("_created", pa.timestamp("ns", "UTC"), nullable=False),
}


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of what is to be read: an offset, or a time (ns) and the offset it comes to, if it comes to one."""

    offset: int
    time: int | None = None


def is_oldest(value: When) -> bool:
    """Whether it means the oldest row, whichever that is."""
    return value is None or (isinstance(value, str) and value == "start")


def bound(value: When, first: int, following: int, name: str, stream: str, offset_of: Callable[[int], int]) -> Bound:
    """What `value` means in a stream that has offsets `first` to `following`.

    Takes   name: of the argument, "start" or "stop"; stream: its name; offset_of: the offset of a time.
    Raises  OffsetError for a negative offset, and for a start that has expired; UsageError for anything else.
    """
    if value is None:
        return Bound(first if name == "start" else following)
    if isinstance(value, str) and value in ("start", "end"):
        return Bound(first if value == "start" else following)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        if value < 0:
            raise OffsetError(
                expected=f"an offset from {first} to {following}",
                got=f"{value}",
                where=f"in {name} of stream {stream!r}",
                hint=f"offsets count from 0; for the last rows use {name}=stream.next_offset - n",
            )
        if name == "start" and value < first:
            raise OffsetError(
                expected=f"an offset from {first} on",
                got=f"{value}",
                where=f"in {name} of stream {stream!r}",
                hint='older rows were dropped by its retention; start at "start"',
            )
        return Bound(int(value))
    try:
        moment = time_ns(value, name=name)
    except UsageError:
        raise UsageError(
            expected='an offset, "start", "end", or a time with its zone',
            got=repr(value),
            where=f"in {name} of stream {stream!r}",
            hint='times are aware datetimes or text such as "2026-11-20T09:30:00Z"',
        ) from None
    return Bound(offset_of(moment), moment)


class Columns:
    """Columns asked for: the stream's own, and what the log knows of each row, "_offset" and "_created".

    Takes   names: None for the stream's own; schema: the stream's.
    Raises  UsageError for an unknown name, or none at all.
    """

    def __init__(self, names: Sequence[str] | None, schema: pa.Schema, stream: str) -> None:
        self.names = [names] if isinstance(names, str) else None if names is None else list(names)
        known = [*schema.names, *(name for name in _MADE if name not in schema.names)]
        if self.names == []:
            raise UsageError(expected="at least one column", got="none", where=f"in columns of stream {stream!r}")
        for name in self.names or ():
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                raise UsageError(
                    expected=f"a column of {', '.join(known)}",
                    got=repr(name),
                    where=f"in stream {stream!r}",
                    hint=f"did you mean {near[0]!r}?" if near else None,
                )

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """The schema of what `batch` gives for rows of `schema`."""
        if self.names is None:
            return schema
        fields = [schema.field(name) if name in schema.names else _MADE[name] for name in self.names]
        return pa.schema(fields, schema.metadata)

    def batch(self, chunk: Chunk) -> pa.RecordBatch:
        """The columns of a chunk's rows; no copy of the stream's own."""
        batch = chunk.batch
        if self.names is None:
            return batch
        own = batch.schema.names
        columns = [batch.column(name) if name in own else _made(name, chunk) for name in self.names]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema(batch.schema))


def _made(name: str, chunk: Chunk) -> pa.Array:
    if name == "_offset":
        return pa.array(np.arange(chunk.first, chunk.stop, dtype=np.int64))
    return pa.array(chunk.created).cast(_MADE["_created"].type)
