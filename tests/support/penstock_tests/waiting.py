"""Conditions that something else brings about: waited for, never slept for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

__all__ = ["PATIENCE_S", "reaches", "until"]

PATIENCE_S = 120.0
"""For what takes milliseconds. A machine may be loaded and slow; only what never comes is a failure."""


def until(condition: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
    """Wait in this thread until `condition()` is true; returns what it gave."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {condition}"
        time.sleep(0.002)
    return found


async def reaches(condition: Callable[[], Any]) -> None:
    """Wait in a task until `condition()` is true, which another thread makes it."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - another thread sets no event of this loop
            await asyncio.sleep(0.005)
