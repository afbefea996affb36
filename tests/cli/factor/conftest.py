"""Bars and factors to compute, in the folder where the command is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

START = 1_704_205_800_000_000_000  # 2024-01-02T14:30:00Z
MINUTE = 60_000_000_000
SYMBOLS = ["AAPL", "IBM", "MSFT"]

PYTHON = """\
from penstock import factor as f

close, volume = f.fields("close", "volume")
mine = f.Factors(reversal=-f.rank(f.ts_delta(close, 5)), trend="close / mean(close, 10) - 1")
alone = close / volume
known = f.library("alpha101").select("alpha012")
"""


def market(rows: int = 40) -> pa.Table:
    rng = np.random.default_rng(7)
    close = 100 + rng.normal(size=(rows, 3)).cumsum(0)
    return pa.table(
        {
            "symbol": SYMBOLS * rows,
            "ts_event": np.repeat(START + MINUTE * np.arange(rows), 3),
            "open": (close + rng.normal(size=close.shape)).reshape(-1),
            "close": close.reshape(-1),
            "volume": rng.integers(1, 1000, close.size),
        }
    )


@pytest.fixture
def bars(place: Path) -> pa.Table:
    """Forty minutes of three symbols, also as bars.parquet, bars.csv, bars.arrow."""
    table = market()
    pq.write_table(table, place / "bars.parquet")
    pcsv.write_csv(table, place / "bars.csv")
    with pa.ipc.new_file(str(place / "bars.arrow"), table.schema) as file:
        file.write_table(table)
    return table


@pytest.fixture
def mine(place: Path) -> Path:
    """mine.py."""
    path = place / "mine.py"
    path.write_text(PYTHON)
    return path
