"""Records: the schemas that move, and the ways in and out of them.

Everything that moves is an Arrow record batch. This package makes batches of dicts, frames and arrays, refuses what
does not fit with the place and the next step, and gives rows, documents and arrays back as they went in.
"""

from __future__ import annotations

from penstock.records.arrow import conform, to_batches
from penstock.records.documents import decode_document, encode_document
from penstock.records.rows import batch_to_rows, rows_to_batch
from penstock.records.schemas import BARS, DOCUMENT, ERRORS, QUOTES, TRADES, event_column, event_times, is_document
from penstock.records.tensors import tensor_array, tensor_column, tensor_field
from penstock.records.widening import widen

__all__ = [
    "BARS",
    "DOCUMENT",
    "ERRORS",
    "QUOTES",
    "TRADES",
    "batch_to_rows",
    "conform",
    "decode_document",
    "encode_document",
    "event_column",
    "event_times",
    "is_document",
    "rows_to_batch",
    "tensor_array",
    "tensor_column",
    "tensor_field",
    "to_batches",
    "widen",
]
