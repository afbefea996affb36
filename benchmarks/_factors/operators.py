"""One operator at a time over history: ns per value, ours in both engines, KunQuant's and pandas'."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from _factors.kun import Kun
from _factors.market import Array, prices
from _report import rounds, show
from penstock import factor as f

DTYPE = "float32"

# name: (ours, KunQuant's operator and arguments, pandas)
OPERATORS: dict[str, tuple[str, tuple[Any, ...] | None, Callable[[Any, Any], Any] | None]] = {
    "x + 1": ("a + 1", ("AddConst", "a", 1.0), lambda a, b: a + 1),
    "rank": ("cs_rank(a)", ("Rank", "a"), lambda a, b: a.rank(axis=1, pct=True)),
    "scale": ("cs_scale(a)", ("Scale", "a"), lambda a, b: a.div(a.abs().sum(axis=1), axis=0)),
    "std 20": ("ts_std(a, 20)", ("WindowedStddev", "a", 20), lambda a, b: a.rolling(20).std()),
    "std 240": ("ts_std(a, 240)", ("WindowedStddev", "a", 240), lambda a, b: a.rolling(240).std()),
    "correlation 10": (
        "ts_corr(a, b, 10)",
        ("WindowedCorrelation", "a", 10, "b"),
        lambda a, b: a.rolling(10).corr(b),
    ),
    "sum 20": ("ts_sum(a, 20)", ("WindowedSum", "a", 20), lambda a, b: a.rolling(20).sum()),
    "max 60": ("ts_max(a, 60)", ("WindowedMax", "a", 60), lambda a, b: a.rolling(60).max()),
    "argmax 10": ("ts_argmax(a, 10)", ("TsArgMax", "a", 10), None),
    "decay_linear 10": ("ts_decay_linear(a, 10)", ("DecayLinear", "a", 10), None),
    "ts_rank 10": ("ts_rank(a, 10)", ("TsRank", "a", 10), lambda a, b: a.rolling(10).rank()),
    "quantile 20": (
        "ts_quantile(a, 20, 0.8)",
        ("WindowedQuantile", "a", 20, 0.8),
        lambda a, b: a.rolling(20).quantile(0.8),
    ),
    "kurt 20": ("ts_kurt(a, 20)", ("WindowedKurt", "a", 20), lambda a, b: a.rolling(20).kurt()),
    "slope 20": ("ts_slope(a, 20)", ("WindowedLinearRegressionSlope", "a", 20), None),
    "max_drawdown 20": ("ts_max_drawdown(a, 20)", ("WindowedMaxDrawdown", "a", 20), None),
    "ema 20": ("ts_ema(a, 20)", ("ExpMovingAvg", "a", 20), lambda a, b: a.ewm(span=20, adjust=False).mean()),
    "log": ("log(a)", ("Log", "a"), lambda a, b: np.log(a)),
    "pow 1.7": ("a ** 1.7", None, lambda a, b: a**1.7),
    "group demean": ("cs_indneutralize(a, b)", None, None),
}


def spent(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def agree(name: str, got: Array, want: Array, where: str) -> None:
    """Nearly equal where both have a number; both have one nearly everywhere."""
    both = np.isfinite(got) & np.isfinite(want)
    scale = np.maximum(np.abs(want), np.nanmax(np.abs(want[both])) * 1e-2)
    wrong = np.abs(got - want)[both] > 1e-3 * scale[both]
    if wrong.mean() > 1e-3 or both.mean() < 0.9 * np.isfinite(want).mean():
        print(f"  {name}: {wrong.mean():.2%} of cells differ from {where}")


def operators(options: Any, kun: Kun | None) -> list[dict[str, Any]]:
    panel = prices(options.rows, options.symbols)
    cells = options.rows * options.symbols
    table: list[tuple[str, dict[str, float]]] = []
    shown: list[dict[str, Any]] = []
    short = max(250, options.rows // 10)
    for name, (text, call, frame) in OPERATORS.items():
        data = dict(panel)
        if name == "group demean":
            data["b"] = np.ascontiguousarray(np.tile(np.arange(options.symbols) % 30, (options.rows, 1)), DTYPE)
        sides: dict[str, Callable[[], float]] = {}
        programs = {engine: f.compile({"out": text}, dtype=DTYPE, engine=engine) for engine in ("llvm", "numpy")}
        mine, definition = (p.batch(data)["out"] for p in programs.values())
        if (mine.view("u4") != definition.view("u4")).any():
            raise SystemExit(f"{name}: the engines differ")
        for engine, program in programs.items():
            sides[f"penstock, {engine}"] = lambda program=program, data=data: (
                cells / spent(lambda: program.batch(data)) / 1e6
            )
        if kun is not None and call is not None:
            made = kun.operator(call)
            inputs = {k: x for k, x in data.items() if k in call}
            out = {"out": np.zeros_like(panel["a"])}
            made.run(inputs, out, options.rows)
            agree(name, mine, out["out"], "KunQuant")
            sides["KunQuant"] = lambda m=made, i=inputs, o=out: cells / spent(lambda: m.run(i, o, options.rows)) / 1e6
        if frame is not None and importlib.util.find_spec("pandas"):
            import pandas as pd

            few = {k: pd.DataFrame(x[:short]) for k, x in data.items()}
            size = short * options.symbols
            sides["pandas"] = lambda x=few, go=frame, size=size: size / spent(lambda: go(x["a"], x["b"])) / 1e6
        figures = rounds(sides, options.rounds)
        shown += show(f"{name}, {options.symbols} symbols", figures, "M values/s", "penstock, llvm")
        table.append((name, {side: 1000 / statistics.median(values) for side, values in figures.items()}))
    head = ["penstock, llvm", "penstock, numpy", "KunQuant", "pandas"]
    print(f"\n{'ns per value (median)':<24}" + "".join(f"{side:>18}" for side in head))
    for name, row in table:
        print(f"{name:<24}" + "".join(f"{row[side]:>18.2f}" if side in row else f"{'-':>18}" for side in head))
    return shown
