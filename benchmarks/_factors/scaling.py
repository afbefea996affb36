"""How time and memory grow with rows, symbols and threads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from _factors.kun import Kun
from _factors.market import BARS, market
from _factors.operators import spent
from _report import rounds, show
from penstock import factor as f

ROWS = (125, 500, 2000, 8000)
SYMBOLS = (16, 64, 256, 1024, 4096, 16384)

_MEMORY = """
import resource, sys
sys.path.insert(0, {here!r})
import numpy as np
from _factors.market import market
from penstock import factor as f
program = f.compile(f.library("alpha101"), dtype="float32")
panel = {{name: x[:, :64].copy() for name, x in market(64, 64).items()}}
program.batch(panel)
rows, live = {rows}, program.stream(n=64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for row in range(rows):
    for name in program.inputs:
        live.push(name, panel[name][row % 64])
    live.run()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, len(live.snapshot()))
"""


def curves(kun: Kun | None, options: Any) -> list[dict[str, Any]]:
    """Speed of 82 alphas over history, along rows and along symbols."""
    library = f.library("alpha101")
    made = kun.library("alpha101") if kun is not None else None
    names = made.names if made is not None else list(library)
    program = f.compile({name: library[name] for name in names}, dtype="float32")
    shapes = [(512, rows) for rows in ROWS] + [(symbols, max(60, 131072 // symbols)) for symbols in SYMBOLS]
    shown: list[dict[str, Any]] = []
    for symbols, rows in shapes:
        panel = market(rows, symbols)
        cells = rows * symbols * len(names)
        sides: dict[str, Callable[[], float]] = {
            "penstock": lambda x=panel, c=cells: c / spent(lambda: program.batch(x)) / 1e6
        }
        if made is not None:
            given = made.given({one: panel[one] for one in BARS})
            out = {one: np.zeros((rows, symbols), np.float32) for one in names}
            sides["KunQuant"] = lambda g=given, o=out, c=cells, r=rows: c / spent(lambda: made.run(g, o, r)) / 1e6
        shown += show(
            f"{len(names)} alphas, {symbols} symbols x {rows} rows",
            rounds(sides, options.rounds),
            "M values/s",
            "penstock",
        )
    return shown


def threads(options: Any) -> list[dict[str, Any]]:
    """Wall time of alphas over history with 1 thread and more; of two threads on two processors at best a half."""
    import time

    program = f.compile(f.library("alpha101"), dtype="float32")
    shown: list[dict[str, Any]] = []
    for symbols, rows in ((512, 1000), (4096, 250)):
        panel = market(rows, symbols)
        cells = rows * symbols * len(program.outputs)
        sides: dict[str, Callable[[], float]] = {}
        for count in range(1, options.threads + 1):
            executor = f.Executor(threads=count) if count > 1 else None

            def once(executor: Any = executor, panel: Any = panel, cells: int = cells) -> float:
                began = time.perf_counter()
                program.batch(panel, executor=executor)
                return cells / (time.perf_counter() - began) / 1e6

            sides[f"{count} thread{'s' if count > 1 else ''}"] = once
        title = f"{len(program.outputs)} alphas, {symbols} x {rows}, wall time"
        shown += show(title, rounds(sides, max(5, options.rounds)), "M values/s", "1 thread")
    return shown


def memory() -> None:
    """What ticks add to a process, and what its snapshot takes, for ever longer streams."""
    print("\nmemory that ticks of 101 alphas x 64 symbols add to a process, and the snapshot after them")
    for rows in (1000, 10_000, 100_000):
        script = _MEMORY.format(here=str(Path(__file__).parent.parent), rows=rows)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        grown, kept = map(int, done.stdout.split())
        print(f"  {rows:>8,} ticks: {grown:,} KiB more at most, snapshot of {kept:,} bytes")


def scaling(options: Any, kun: Kun | None) -> list[dict[str, Any]]:
    memory()
    return [*threads(options), *curves(kun, options)]
