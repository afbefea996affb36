from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from penstock.errors import UsageError
from penstock.store.service.sizes import bytes_of, pieces


@pytest.mark.parametrize(
    "text, size",
    [
        ("1g", 1 << 30),
        ("64m", 64 << 20),
        ("64MiB", 64 << 20),
        ("64MB", 64_000_000),
        ("1.5k", 1536),
        ("100", 100),
        (7, 7),
        ("5 B", 5),
    ],
)
def test_sizes(text: Any, size: int) -> None:
    assert bytes_of(text, "memory") == size


@pytest.mark.parametrize("wrong", ["", "x", "0", 0, -1, True, None, "1x", "-5m", 1.5])
def test_what_is_no_size(wrong: Any) -> None:
    with pytest.raises(UsageError, match='expected a size, such as "512m" or "1g", got'):
        bytes_of(wrong, "memory")


def test_pieces_are_all_of_the_frame() -> None:
    frame = pa.table({"x": range(1000)})
    found = list(pieces(frame, 1000))
    assert len(found) == 8
    assert pa.Table.from_batches(found).equals(frame)
    assert list(pieces(frame.slice(0, 0))) == []
