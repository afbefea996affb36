"""Values of windows that cannot be, named as the caller named them."""

from __future__ import annotations

from typing import Any

import pytest

from penstock import window as W
from penstock.errors import PenstockError, WindowError


@pytest.mark.parametrize("value", [0, -1, "1x", 1e12, float("nan"), True])
@pytest.mark.parametrize("more", [{}, {"relaxed": True}, {"every": 1}], ids=["fixed", "relaxed", "sliding"])
def test_an_interval_is_called_interval(value: Any, more: dict[str, Any]) -> None:
    with pytest.raises(PenstockError, match=r" - in interval"):
        W.emitter_for(interval=value, **more)


def test_more_windows_around_a_row_than_anybody_can_mean() -> None:
    W.SlidingWindow("10s", "100us")
    with pytest.raises(
        WindowError, match=r"expected every of at least size / 100,000, got every='1ns' with size=10"
    ) as caught:
        W.SlidingWindow(10, "1ns")
    assert "use a larger every" in str(caught.value)
