"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import settings

# No deadline: a loaded machine is no failure. In CI the examples are the same in every run.
settings.register_profile("penstock", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("penstock")


def _need(condition: object, reason: str) -> None:
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have what this test needs: {reason}")
    pytest.skip(reason)


@pytest.fixture
def need() -> Callable[[object, str], None]:
    """`need(condition, reason)`: skip with the reason when something is not there; with CI=true, fail."""
    return _need
