from __future__ import annotations

import pytest

from penstock import factor as f
from penstock.factor.table import ALIASES, TABLE


@pytest.fixture
def own():
    """Operators registered by a test leave the table after it."""
    f.operators()
    names, aliases = set(TABLE), set(ALIASES)
    yield
    for name in set(TABLE) - names:
        del TABLE[name]
    for name in set(ALIASES) - aliases:
        del ALIASES[name]
