"""Data that is already in memory → pieces: frames, tables, batches, and iterables of dicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.connect.shape import SKIP, Bad, Piece, Shape
from penstock.connect.times import REASONS, value_times
from penstock.errors import RecordError, SourceError
from penstock.records import DOCUMENT, rows_to_batch, to_batches
from penstock.records.describe import value_text

__all__ = ["frame_pieces", "is_frame", "row_pieces"]


def is_frame(data: Any) -> bool:
    """Whether `data` is columns (a frame, a table, a batch), rather than an iterable of things."""
    arrow = hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__")
    return arrow or (hasattr(data, "columns") and hasattr(data, "dtypes"))


def frame_pieces(data: Any, batch_rows: int, *, source: str, first: int = 0) -> Iterator[Piece]:
    """Pieces of a frame, without a copy where its memory is Arrow's already."""
    row = first
    for batch in to_batches(data, where=source):
        for start in range(0, batch.num_rows, batch_rows):
            part = batch.slice(start, batch_rows)
            yield Piece(source, part, np.arange(row, row + part.num_rows), row + part.num_rows)
            row += part.num_rows


def row_pieces(data: Iterable[Any], batch_rows: int, shape: Shape, *, time: str | None, source: str) -> Iterator[Piece]:
    """Pieces of an iterable of dicts, batches, or frames.

    Takes   shape: what dicts become; without a schema each is kept as a JSON document;
            time: the key of the event time of documents.
    Edges   A dict that does not fit is one of its piece's `bad`; at most `batch_rows` dicts are held.
    """
    row = 0
    held: list[Mapping[str, Any]] = []
    for item in data:
        if isinstance(item, Mapping):
            held.append(item)
            if len(held) == batch_rows:
                yield _dicts(held, row, shape, time, source)
                row, held = row + len(held), []
            continue
        if held:
            yield _dicts(held, row, shape, time, source)
            row, held = row + len(held), []
        if not is_frame(item):
            raise SourceError(
                expected="dicts, record batches or frames",
                got=value_text(item),
                where=f"at {source}[{row}]",
                hint="make each row a dict",
            )
        for piece in frame_pieces(item, batch_rows, source=source, first=row):
            yield piece
            row = piece.stop
    if held:
        yield _dicts(held, row, shape, time, source)


def _dicts(given: Sequence[Mapping[str, Any]], first: int, shape: Shape, time: str | None, source: str) -> Piece:
    bad: dict[int, Bad] = {}
    schema = DOCUMENT if shape.schema is None else shape.schema
    rows = [shape.row(row) for row in given]
    event = shape.event if shape.schema is not None else shape.asked.get(time or "", time)
    times = None
    if event is not None and (shape.schema is None or event in schema.names):
        found = value_times([row.get(event) for row in rows], unit=shape.unit, zone=shape.zone)
        for i in np.flatnonzero(found.why).tolist():
            expected, hint = REASONS[int(found.why[i])]
            key = next((k for k in given[i] if shape.rename.get(k, k) == event), time or event)
            got = value_text(given[i].get(key))
            bad[i] = Bad(source, first + i, None, key, expected, got, hint, _shown(given[i]))
        times = found.ns
        if shape.schema is not None and pa.types.is_int64(schema.field(event).type):
            for row, ns in zip(rows, times.tolist(), strict=True):
                row[event] = ns
    todo, batches = [(0, len(rows))], []
    while todo:
        start, stop = todo.pop()
        try:
            some = [rows[i] for i in range(start, stop) if i not in bad]
            batches.append(rows_to_batch(some, schema, where=source, first=first + start))
        except RecordError as error:
            if stop - start > 1:
                middle = (start + stop) // 2
                todo += [(middle, stop), (start, middle)]
                continue
            bad[start] = Bad(
                source, first + start, None, getattr(error, "column", None), str(error.expected), str(error.got),
                SKIP, _shown(given[start]),
            )  # fmt: skip
    good = np.array([i for i in range(len(rows)) if i not in bad], np.int64)
    batch = pa.Table.from_batches(batches, schema).combine_chunks().to_batches() if len(good) else batches[:1]
    return Piece(
        source,
        batch[0] if batch else rows_to_batch([], schema),
        good + first,
        first + len(rows),
        fitted=True,
        times=None if times is None else times[good],
        bad=[bad[i] for i in sorted(bad)],
    )


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A refused row as JSON can hold it."""
    plain = (str, int, float, bool, NoneType)
    return {str(key): value if isinstance(value, plain) else repr(value) for key, value in row.items()}
