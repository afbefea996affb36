"""Sub-protocol `penstock.arrow.v1`: messages as Arrow.

A binary frame is one whole Arrow IPC stream: a schema and one record batch, the stream's own columns and types, times
in ns. Its first column `_seq` (int64) is the offset of each row; schema metadata `penstock.stream` and `penstock.ev`
say where it is from, and `penstock.root` of which stream, made when and of what name, that one is a copy of a copy.
Text frames are statuses, as in the market's protocol.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa

__all__ = ["SEQ", "decode", "encode"]

SEQ: Final = "_seq"
"""The column of offsets."""

_FIELD: Final = pa.field(SEQ, pa.int64(), nullable=False)


def encode(batch: pa.RecordBatch, seq: np.ndarray[Any, Any], stream: str, event: str | None, root: str) -> bytes:
    """An Arrow IPC stream of one batch with its offsets.   Cost  about 40 µs, and one copy of the rows."""
    schema = batch.schema
    metadata = {**(schema.metadata or {}), b"penstock.stream": stream.encode(), b"penstock.root": root.encode()}
    if event is not None:
        metadata[b"penstock.ev"] = event.encode()
    made = pa.schema([_FIELD, *schema], metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, made) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays([pa.array(seq, pa.int64()), *batch.columns], schema=made))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def decode(payload: bytes) -> pa.RecordBatch:
    """The batch of a binary frame, its column `_seq` included.   Raises  pyarrow.ArrowInvalid."""
    with pa.ipc.open_stream(payload) as reader:
        return reader.read_next_batch()
