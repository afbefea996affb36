from __future__ import annotations

import pytest

from penstock.cli.stream.when import columns_of, when


@pytest.mark.parametrize(
    "text, found",
    [(None, None), ("start", "start"), ("end", "end"), ("12", 12), ("1,000", 1000), ("1_000", 1000), ("-3", -3),
     ("2026-11-20", "2026-11-20"), ("2026-11-20T09:30:00Z", "2026-11-20T09:30:00Z")],
)  # fmt: skip
def test_when(text: str | None, found: object) -> None:
    assert when(text) == found


def test_columns() -> None:
    assert columns_of(None) is None
    assert columns_of("a, b,,_offset") == ["a", "b", "_offset"]
