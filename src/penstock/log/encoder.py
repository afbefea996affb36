"""What a user appends, as messages of the stream's schema: the appending half before any file is touched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from penstock.errors import RowTooLarge
from penstock.log.format import NO_TIME, TEMPLATE
from penstock.log.message import Codec
from penstock.log.meta import DOCUMENT_KIND, Meta
from penstock.log.template import RowTemplate
from penstock.log.writer import Message
from penstock.records import event_column, event_times, to_batches

__all__ = ["Encoder", "is_rows", "kept"]


class Encoder:
    """Of one version of a stream's description; immutable, so that a thread that has one is not confused by a widening.

    `codec` is that of the messages it makes.
    """

    def __init__(self, meta: Meta) -> None:
        self.meta = meta
        self.schema = meta.schema
        self.event = event_column(meta.schema)
        self.codec = Codec(meta.schema)
        self.is_document = meta.kind == DOCUMENT_KIND
        self.where = f"stream {meta.name!r}"
        self._template = RowTemplate.of(meta.schema, self.event)

    def row(self, row: dict[str, Any]) -> list[Message] | None:
        """One dict by template; None when it needs the strict path."""
        if self._template is None or not row:
            return None
        found = self._template.encode(row, self.where)
        if found is None:
            return None
        message, event = found
        if len(message) > self.meta.options.max_row_bytes:
            self._too_large(len(message))
        time = NO_TIME if event is None else event
        return [(message, 1, time, time, TEMPLATE)]

    def messages(self, data: Any, *, whole: bool) -> list[Message]:
        """Any data, split so that no message is over `max_batch_bytes`; `whole`: not split."""
        messages: list[Message] = []
        batches = to_batches(data, self.schema, where=self.where)
        if whole and len(batches) > 1:
            batches = pa.Table.from_batches(batches).combine_chunks().to_batches()
        options = self.meta.options
        for batch in batches:
            step = batch.num_rows
            if not whole and (size := _nbytes(batch)) > options.max_batch_bytes:
                step = max(1, int(step * options.max_batch_bytes / size))
            for at in range(0, batch.num_rows, step):
                part = batch if step == batch.num_rows else batch.slice(at, step)
                message = self.codec.encode(part)
                if len(message) > options.max_row_bytes:
                    self._check_rows(part)
                messages.append((message, part.num_rows, *self._event_range(part), 0))
        return messages

    def _event_range(self, batch: pa.RecordBatch) -> tuple[int, int]:
        if self.event is None:
            return NO_TIME, NO_TIME
        times = event_times(batch, self.event)
        return int(times.min()), int(times.max())

    def _check_rows(self, batch: pa.RecordBatch) -> None:
        """Refuse a batch one of whose rows alone is over the limit."""
        if batch.num_rows == 1:
            self._too_large(_nbytes(batch))
        for i in range(batch.num_rows):
            size = _nbytes(batch.slice(i, 1))
            if size > self.meta.options.max_row_bytes:
                self._too_large(size, i)

    def _too_large(self, size: int, row: int | None = None) -> None:
        limit = self.meta.options.max_row_bytes
        raise RowTooLarge(
            expected=f"a row of at most {limit} bytes",
            got=f"{size} bytes",
            where=f"at {self.meta.name}[{row}]" if row is not None else f"in {self.where}",
            hint=f"split it, or open the stream with max_row_bytes={1 << (size - 1).bit_length()}",
            size=size,
            limit=limit,
        )


def _nbytes(batch: pa.RecordBatch) -> int:
    """Bytes of a batch's rows; of the buffers they lie in where pyarrow cannot tell (before 19, of text views)."""
    try:
        return int(batch.nbytes)
    except pa.ArrowException:
        return int(batch.get_total_buffer_size())


def is_rows(data: Any) -> bool:
    """Whether `data` is dicts and not a table."""
    return isinstance(data, dict | list | tuple) or not (
        hasattr(data, "__arrow_c_stream__")
        or hasattr(data, "__arrow_c_array__")
        or hasattr(data, "iloc")
        or isinstance(data, pa.RecordBatchReader)
    )


def kept(data: Any, where: str) -> Any:
    """`data`, or its contents when it can be read only once: an append may have to encode them a second time."""
    if isinstance(data, pa.RecordBatch | pa.Table) or hasattr(data, "iloc"):
        return data
    if is_rows(data):
        return list(data) if isinstance(data, Iterator) else data
    batches = to_batches(data, None, where=where)
    return pa.Table.from_batches(batches) if batches else []
