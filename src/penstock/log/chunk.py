"""Rows on their way: a record batch that knows its offsets and append times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["Chunk"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows of one stream.

    batch    the rows;  first  offset of row 0;  created  (rows,) int64, append time of each row in ns UTC,
    never decreasing along a stream.
    """

    batch: pa.RecordBatch
    first: int
    created: NDArray[np.int64]

    @property
    def stop(self) -> int:
        """Offset after the last row."""
        return self.first + int(self.batch.num_rows)

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def slice(self, start: int, stop: int) -> Chunk:
        """Rows `start` to `stop` (positions in this chunk), without a copy."""
        return Chunk(self.batch.slice(start, stop - start), self.first + start, self.created[start:stop])
