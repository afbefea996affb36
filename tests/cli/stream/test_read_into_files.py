"""`penstock stream read -o`: files that cannot be made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.log import Stream

Call = Callable[..., Any]


def test_a_folder_that_is_not_there_is_named(call: Call, trades: Stream, place: Path) -> None:
    found = call("stream", "read", "trades", "-o", str(place / "none" / "x.csv"))
    assert (found.code, found.out) == (1, "")
    assert found.err == f"penstock: no such file or directory - at {place / 'none'}\n"
