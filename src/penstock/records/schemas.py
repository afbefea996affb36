"""The market schemas, the document schema, and what can be said of any schema: its event time, what widens it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import SchemaMismatch, TypeMismatch
from penstock.records.describe import near, place, type_name

__all__ = ["BARS", "DOCUMENT", "ERRORS", "QUOTES", "TRADES", "event_column", "event_times", "is_document"]

KIND = b"penstock.kind"
EVENT = b"penstock.event"
DTYPE = b"penstock.dtype"


def _ordered(text: str) -> pa.Schema:
    """A schema from "name type, name type!, …"; "!" means the column may not hold nulls."""
    types = {
        "string": pa.string(),
        "binary": pa.binary(),
        "int64": pa.int64(),
        "int32": pa.int32(),
        "float64": pa.float64(),
    }
    fields = []
    for item in text.split(","):
        name, kind = item.split()
        fields.append(pa.field(name, types[kind.rstrip("!")], nullable=not kind.endswith("!")))
    return pa.schema(fields)


DOCUMENT = pa.schema([pa.field("document", pa.string(), nullable=False)], metadata={KIND: b"document"})
"""One JSON object per row, as text."""

TRADES = _ordered(
    "symbol string!, ts_event int64!, ts_recv int64, price float64!, size int64!, side string, sequence int64"
)
"""One trade per row. Times are ns since 1970 in UTC; price in the quote currency; size in shares or contracts."""

QUOTES = _ordered(
    "symbol string!, ts_event int64!, ts_recv int64, bid_px float64, ask_px float64, bid_sz int64, ask_sz int64, "
    "sequence int64"
)
"""One top-of-book quote per row. A side that is absent is null."""

BARS = _ordered(
    "symbol string!, ts_event int64!, ts_close int64!, open float64, high float64, low float64, close float64, "
    "volume int64!, amount float64!, vwap float64, trade_count int64!, revision int32!"
)
"""One bar per row, [ts_event, ts_close); amount is the sum of price times size; revision counts re-issues, from 0."""

ERRORS = _ordered(
    "stream string!, consumer string!, first_offset int64, next_offset int64, key string, error string!, "
    "message string!, detail string, attempts int32!, raw binary"
)
"""What could not be done, one row each: rows [first_offset, next_offset) of `stream` in the hands of `consumer` (a
group, or a source), the class and message of the error, its traceback, and the bytes that could not be read."""


def is_document(schema: pa.Schema) -> bool:
    """Whether rows of this schema are JSON documents (one column `document`, kind `document`)."""
    return bool(schema.metadata) and schema.metadata.get(KIND) == b"document" and schema.names == ["document"]


def event_column(schema: pa.Schema) -> str | None:
    """Name of the event time column: what schema metadata `penstock.event` names, else `ts_event` if there.

    Raises  SchemaMismatch if the metadata names a column the schema does not have.
    """
    named = (schema.metadata or {}).get(EVENT)
    if named is None:
        return "ts_event" if "ts_event" in schema.names else None
    name = str(named.decode("utf-8", "replace"))
    if name in schema.names:
        return name
    close = near(name, schema.names)
    raise SchemaMismatch(
        expected="schema metadata penstock.event to name a column",
        got=repr(name),
        hint=f"did you mean {close!r}?" if close else f"columns: {', '.join(schema.names)}",
        column=name,
    )


def event_times(batch: pa.RecordBatch, column: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Event times of a batch.

    Takes   batch: n rows (a RecordBatch or Table); column: int64 (ns), a timestamp of any unit and zone, or date32.
            A timestamp without zone is read as UTC.
    Returns (n,) int64, ns since 1970 in UTC. Read-only and without a copy for int64 and timestamp[ns].
    Raises  SchemaMismatch for a missing column or another type; TypeMismatch for a null (`row` is the first) and
            for a time outside 1677 to 2262, which int64 nanoseconds cannot hold.
    Cost    O(1) for int64 and timestamp[ns], else O(n).
    """
    if column not in batch.schema.names:
        close = near(column, batch.schema.names)
        raise SchemaMismatch(
            expected=f"an event time column `{column}`",
            got=f"columns {', '.join(batch.schema.names) or '(none)'}",
            hint=f"did you mean {close!r}?" if close else "name the column in schema metadata penstock.event",
            column=column,
        )
    values = batch.column(column)
    type_ = values.type
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if not (pa.types.is_int64(type_) or pa.types.is_timestamp(type_) or pa.types.is_date32(type_)):
        raise SchemaMismatch(
            expected=f"int64 (ns), timestamp or date32 for `{column}`",
            got=type_name(type_),
            hint="give the event time as int64 nanoseconds or as a timestamp",
            column=column,
        )
    if values.null_count:
        row = values.is_null().to_numpy(zero_copy_only=False).argmax()
        raise TypeMismatch(
            expected=f"a time for `{column}`",
            got="null",
            where=place("", int(row), column),
            hint="drop such rows, or fill the event time",
            column=column,
            row=int(row),
        )
    if not pa.types.is_int64(type_):
        nanoseconds = pa.timestamp("ns", getattr(type_, "tz", None))
        try:
            values = pc.cast(values, nanoseconds).view(pa.int64())
        except pa.ArrowInvalid as error:
            raise TypeMismatch(
                expected=f"times from 1677 to 2262 for `{column}`",
                got=str(error),
                hint="int64 nanoseconds hold no other years",
                column=column,
            ) from error
    return values.to_numpy()  # type: ignore[no-any-return]
