"""What `penstock stream append` says of a file that does not fit: in the words of the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
SKIP = "--on-bad skip leaves such rows out"


@pytest.mark.parametrize(
    "content, said, is_row",
    [
        (b"a,a\n1,2\n", "expected each column once, got 'a' twice", False),
        (b"", "got an empty file", False),
        (b"a,b\n1\n", "expected 2 cells, got 1", True),
        (b"a,b\n1,\xe9t\xe9\n", "expected text in UTF-8, got string", True),
        (b"a,n\xe9\n1,2\n", "expected column names in UTF-8, got 'n\ufffd'", False),
    ],
    ids=["columns", "empty", "ragged", "cell", "name"],
)
def test_skipping_is_offered_where_it_helps(content: bytes, said: str, is_row: bool, call: Call, place: Path) -> None:
    (place / "x.csv").write_bytes(content)
    found = call("stream", "append", "s", "x.csv")
    assert (found.code, found.out) == (1, "")
    assert said in found.err
    assert (SKIP in found.err) is is_row
    assert call("stream", "append", "s", "x.csv", "--on-bad", "skip").code == (0 if is_row else 1)


def test_a_time_without_zone_needs_no_option_that_is_not_there(call: Call, place: Path) -> None:
    (place / "x.csv").write_text("symbol,ts_event,price,size\nA,2024-01-02 09:30:00,1.5,3\n")
    found = call("stream", "append", "s", "x.csv", "--schema", "trades")
    assert (found.code, found.out) == (1, "")
    assert "tz=" not in found.err
    assert "write such times with their zone: 2026-11-20T09:30:00Z" in found.err
