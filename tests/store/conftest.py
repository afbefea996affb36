from __future__ import annotations

from pathlib import Path

import pytest

import penstock.store
from penstock.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty one."""
    return penstock.store.open(tmp_path / "data")
