"""Alpha101 beside KunQuant's, which has 82 of them: how many cells differ, and which reading accounts for it.

    python benchmarks/alpha101.py                       # the table; takes a C++ compiler and about a minute
    python benchmarks/alpha101.py docs/alpha101.md      # the whole page, as it stands in the repository

Both compute in float64 on the same random walks without gaps. Cells are compared once all windows are full; they differ
if further apart than 1e-6 of their size plus 1e-9. A reading (`adv`, `ts_rank`, `windows`, `ties`) is named where
undoing it brings the two apart again.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from penstock import factor as f
from penstock.factor.libraries import alpha101

ROWS, SYMBOLS = 420, 64
PEER = {"adv": "shares", "ts_rank": "place", "windows": "round", "ties": "apart"}
BECAUSE = {
    1: "no - 0.5 at the end",
    10: "no rank around it",
    13: "order of rounding errors: covariances of few ranks are often equal",
    15: "order of rounding errors: correlations over 3 rows of ranks are often equal",
    16: "order of rounding errors: covariances of few ranks are often equal",
    27: "a correlation that is not defined makes it 1",
    29: "sum over 2 rows in place of ts_min",
    32: "the mean over 7 rows is divided by 7 once more",
    36: "the mean over 200 rows is divided by 200 once more",
    38: "ranks open in place of close",
    45: "correlations over 2 rows come out beside 1, and their rank is noise",
    47: "the mean over 5 rows is divided by 5 once more",
    50: "order of rounding errors: correlations over 5 rows of ranks are often equal",
    72: "0.0001 is added above and below",
    74: "a correlation that is not defined makes it 0",
    75: "a correlation that is not defined makes it 0",
    78: "order of rounding errors: correlations over 6 rows of ranks are often equal",
    81: "a correlation that is not defined makes it 0",
    85: "a correlation that is not defined is 1, and order of rounding errors",
    88: "order of rounding errors: sums of ranks",
    92: "order of rounding errors: means of 0 and 1",
    94: "order of rounding errors: correlations of places",
    96: "order of rounding errors: correlations of places over 4 rows",
    98: "order of rounding errors: means of places",
}


def walks() -> dict[str, np.ndarray[Any, Any]]:
    """Prices and volumes without gaps; labels of four sectors, eight industries, sixteen subindustries."""
    rng = np.random.default_rng(11)
    close = 40 * np.exp(rng.normal(0, 0.02, (ROWS, SYMBOLS)).cumsum(0) + rng.normal(0, 0.5, SYMBOLS))
    open_ = close * np.exp(rng.normal(0, 0.01, close.shape))
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, 0.01, close.shape)))
    low = np.minimum(open_, close) / np.exp(np.abs(rng.normal(0, 0.01, close.shape)))
    volume = np.exp(rng.normal(12, 0.6, close.shape) + rng.normal(0, 1, SYMBOLS))
    panel = {"open": open_, "high": high, "low": low, "close": close, "volume": volume}
    panel["vwap"] = (open_ + high + low + close) / 4
    panel["cap"] = close * np.exp(rng.normal(18, 1, SYMBOLS))
    for name, parts in (("sector", 4), ("industry", 2), ("subindustry", 1)):
        panel[name] = np.broadcast_to(np.arange(SYMBOLS) % 16 // parts, close.shape).astype(float)
    return panel


def peer(panel: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """KunQuant's alphas in float64, statistics not incremental."""
    from KunQuant.Driver import KunCompilerConfig
    from KunQuant.jit import cfake
    from KunQuant.Op import Builder, Input, Output
    from KunQuant.predefined.Alpha101 import AllData, all_alpha
    from KunQuant.runner import KunRunner
    from KunQuant.Stage import Function

    names = ("open", "close", "high", "low", "volume", "vwap")
    with (builder := Builder()):
        data = AllData(**{name: Input(name) for name in names})
        for alpha in all_alpha:
            Output(alpha(data), alpha.__name__)
    config = KunCompilerConfig(
        input_layout="TS", output_layout="TS", dtype="double", blocking_len=4, options={"no_fast_stat": True}
    )
    with tempfile.TemporaryDirectory() as folder:
        made = [("m", Function(builder.ops), config)]
        library = cfake.compileit(made, "lib", cfake.CppCompilerConfig(), folder)
        executor = KunRunner.createSingleThreadExecutor()
        inputs = {name: np.ascontiguousarray(panel[name]) for name in names}
        return {k: v.copy() for k, v in KunRunner.runGraph(executor, library.getModule("m"), inputs, 0, ROWS).items()}


def apart(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> float:
    """The share of cells that differ."""
    same = np.isclose(x, y, rtol=1e-6, atol=1e-9, equal_nan=True)
    return float(1 - same.mean())


def rows() -> list[dict[str, Any]]:
    """A row per alpha: name, formula, reading, lookback, inputs, and how the peer differs."""
    library = f.library("alpha101")
    panel = walks()
    theirs = peer(panel) if importlib.util.find_spec("KunQuant") and shutil.which("g++") else {}
    usual = f.compile(library)
    runs = {"": usual.batch(panel), "all": f.compile(f.library("alpha101", **PEER)).batch(panel)}
    for reading in PEER:
        rest = {name: value for name, value in PEER.items() if name != reading}
        runs[reading] = f.compile(f.library("alpha101", **rest)).batch(panel)
    since = f.compile(f.library("alpha101", **PEER)).lookback
    table = []
    for number, text in alpha101.FORMULAS.items():
        name = f"alpha{number:03}"
        one = f.compile({name: library[name]}, engine="numpy")
        row = {"name": name, "formula": text, "reading": library.note(name), "lookback": one.warmup}
        row |= {"inputs": one.inputs, "why": "", "apart": None, "left": None}
        if name in theirs:
            warm = since[name]
            share = {key: apart(made[name][warm:], theirs[name][warm:]) for key, made in runs.items()}
            row |= {"apart": share[""], "left": share["all"]}
            why = [reading for reading in PEER if share[reading] > share["all"] + 0.001]
            if share["all"] > 0:
                why.append(BECAUSE.get(number, "order of rounding errors"))
            row["why"] = ", ".join(why) if share[""] else ""
        table.append(row)
    return table


def percent(share: float | None) -> str:
    """A share as the table shows it."""
    if share is None:
        return "not there"
    return "0" if share == 0 else "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def page(table: list[dict[str, Any]]) -> str:
    """The page of the documentation."""
    readings = str(alpha101.__doc__).partition("Inputs are")[2].strip()
    lines = [
        "# Alpha101",
        "",
        '`f.library("alpha101")` has all 101 formulas of Z. Kakushadze, "101 Formulaic Alphas" (2015),',
        "[arXiv 1601.00991](https://arxiv.org/abs/1601.00991). This page is written by `python benchmarks/alpha101.py",
        "docs/alpha101.md`.",
        "",
        "```python",
        "import pyarrow as pa",
        "",
        "import penstock as ps",
        "from penstock import factor as f",
        "",
        "trades = pa.Table.from_batches(ps.connect.samples.market(20_000))",
        'bars = ps.window.Bars("1m").batch(trades)             # columns symbol, ts_event, open ... vwap',
        'program = f.compile(f.library("alpha101").select("alpha012", "alpha041", "WQAlpha101"))',
        "panel = program.batch(bars)",
        'print(f.library("alpha101").explain("alpha058"))      # formula, reading, graph, inputs, warm-up',
        "```",
        "",
        "## Readings",
        "",
        "Inputs are " + readings,
        "",
        f"The paper trades {', '.join(alpha101.DELAY_0)} at the close of the row itself, all others a day later.",
        "",
        "## Beside KunQuant",
        "",
        f"KunQuant 0.1.12 has 82 of them. On {ROWS} rows of {SYMBOLS} random walks without gaps, in float64 and with",
        "full windows, *apart* is the share of cells that differ by more than a millionth; *left* is what of it is",
        "left when Penstock takes KunQuant's readings, " + ", ".join(f'`{k}="{v}"`' for k, v in PEER.items()),
        "(KunQuant has no way to take the paper's). *Why* names the readings that matter, and what KunQuant computes",
        "otherwise than the paper has it. Beside that it fills what is not defined (a division by 0, a correlation",
        "with a side that does not move, rows before a window is full) with 0, 1 or 0.0001 in about half of them,",
        "which shows in data with gaps and flat stretches and not here.",
        "",
        "| alpha | formula | readings that play a part | rows until warm | needs | apart | left | why |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table:
        formula = "`" + row["formula"].replace("|", "\\|") + "`"
        cells = [row["name"], formula, row["reading"].replace("|", "\\|"), str(row["lookback"])]
        cells += [", ".join(row["inputs"]), percent(row["apart"]), percent(row["left"]), row["why"]]
        if row["apart"] is None:
            cells[-2] = ""
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the differences, or write the page."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("page", nargs="?", type=Path, help="write the documentation page there")
    target = parser.parse_args().page
    table = rows()
    if all(row["apart"] is None for row in table):
        sys.exit("KunQuant or its C++ compiler is not installed: pip install KunQuant, apt install g++")
    if target:
        target.write_text(page(table), "utf-8")
        return
    for row in table:
        if row["apart"]:
            print(f"{row['name']}  {percent(row['apart']):>8} {percent(row['left']):>8}  {row['why']}")
    equal = sum(row["apart"] == 0 for row in table)
    left = sum(row["left"] == 0 for row in table)
    print(f"{equal} of 82 equal as they are, {left} with KunQuant's readings")


if __name__ == "__main__":
    main()
