"""Bars by compiled loops and by NumPy."""

from __future__ import annotations

import pytest

from penstock.window.bars import kernel


@pytest.fixture(params=["compiled", "numpy"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every row by compiled loops, or none."""
    how: str = request.param
    monkeypatch.setattr(kernel, "AFTER", 0 if how == "compiled" else None)
    return how
