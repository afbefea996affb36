from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.cli.factor.bench import market

Call = Callable[..., Any]


def test_numbers(call: Call, mine: Path) -> None:
    found = call("factor", "bench", "mine.py", "--symbols", "3,20", "--rows", 50, "--ticks", 150, "--json")
    assert (found.code, found.err) == (0, "")
    assert [(one["symbols"], one["rows"], one["ticks"], one["factors"]) for one in found.json] == [
        (3, 50, 150, 2),
        (20, 50, 150, 2),
    ]
    for one in found.json:
        assert one["compile_cold_s"] > one["compile_cached_s"] > 0
        assert one["ns_per_value"] == pytest.approx(one["batch_s"] * 1e9 / (50 * one["symbols"] * 2))
        assert 0 < one["tick_p50_us"] <= one["tick_p99_us"]


def test_a_table(call: Call) -> None:
    args = ["--symbols", "1_000", "--rows", 5, "--ticks", 3, "--engine", "numpy", "--dtype", "float32"]
    found = call("factor", "bench", "-e", "rank(anything)", *args)
    lines = found.out.splitlines()
    assert lines[0].startswith("1 factors, numpy, float32: compiled in ")
    assert "cache" not in lines[0]
    assert lines[1].split() == ["SYMBOLS", "ROWS", "BATCH", "NS/VALUE", "TICK", "P50", "P99"]
    assert lines[2].split()[:2] == ["1,000", "5"]


def test_threads_and_no_inputs(call: Call) -> None:
    args = ["--symbols", "40", "--rows", 30, "--ticks", 5, "--threads", 2, "--json"]
    assert call("factor", "bench", "-e", "rank(close)", *args).json[0]["threads"] == 2
    assert call("factor", "bench", "-e", "1 + 1", "--symbols", 2, "--rows", 3, "--ticks", 3).code == 0


def test_the_market_is_plausible() -> None:
    made = market(["open", "high", "low", "close", "vwap", "volume", "sector", "odd"], 30, 5, np.float32)
    assert all(x.shape == (30, 5) and x.dtype == np.float32 and np.isfinite(x).all() for x in made.values())
    assert (made["high"] >= made["low"]).all()
    assert (made["sector"] == made["sector"][0]).all()


@pytest.mark.parametrize("symbols", ["", "0", "many", "3,-1"])
def test_bad_counts(call: Call, symbols: str) -> None:
    found = call("factor", "bench", "-e", "close", "--symbols", symbols)
    assert (found.code, found.out) == (2, "")
    assert "is no list of counts; give such as 16,512" in found.err
