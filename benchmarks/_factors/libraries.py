"""Whole libraries, the same factors on both sides: compile, history, ticks, state."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from _factors.kun import Kun, Made
from _factors.market import BARS, Panel, market
from _factors.operators import spent
from _report import rounds, show
from penstock import factor as f

HISTORY = ((64, 2600), (1024, 500), (4096, 250))
TICKS = (16, 512, 4096, 16384)
LAPS = {16: 4000, 512: 2000, 4096: 1000, 16384: 300}
"""Ticks of ours per round; the other side has as many as fit into `PATIENCE` seconds."""

PATIENCE = 3.0


@contextmanager
def empty_cache() -> Iterator[None]:
    """No compiled code on disk, for as long as this lasts."""
    before = os.environ.get("PENSTOCK_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PENSTOCK_CACHE"] = folder
        try:
            yield
        finally:
            os.environ.pop("PENSTOCK_CACHE")
            if before is not None:
                os.environ["PENSTOCK_CACHE"] = before


def both(name: str, kun: Kun | None, dtype: str) -> tuple[f.Program, Made | None, Made | None]:
    """Our program and their modules for history and for ticks, of what both have; prints what compiling took."""
    library = f.library(name)
    batch = stream = None
    names = list(library)
    if kun is not None:
        batch, stream = (kun.library(name, stream, dtype) for stream in (False, True))
        names = [one for one in batch.names if one in library]
        print(
            f"\nKunQuant compiles {len(batch.names)} factors in {batch.seconds:.2f} s, {stream.seconds:.2f} s for ticks"
        )
    mine = {one: library[one] for one in names}
    with empty_cache():
        times = []
        for _ in range(2):
            began = time.perf_counter(), time.process_time()
            program = f.compile(mine, dtype=dtype)
            times.append((time.perf_counter() - began[0], time.process_time() - began[1]))
        print(
            f"penstock compiles {len(names)} factors of {name}, {dtype}: "
            + ", ".join(
                f"{word} {wall:.2f} s ({cpu:.2f} s CPU)"
                for word, (wall, cpu) in zip(("cold", "cached"), times, strict=True)
            )
        )
        if len(library) > len(names):
            began = time.perf_counter(), time.process_time()
            f.compile(library, dtype=dtype)
            wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
            print(f"  all {len(library)} of {name}, cold: {wall:.2f} s ({cpu:.2f} s CPU)")
    few, many = (len(program.stream(n=n).snapshot()) for n in (64, 1088))
    print(f"  state {(many - few) / 1024:,.0f} bytes per symbol, {few - 64 * (many - few) / 1024:,.0f} beside")
    return program, batch, stream


def history(name: str, program: f.Program, made: Made | None, options: Any, dtype: str) -> list[dict[str, Any]]:
    """CPU time over whole histories, one thread."""
    shown: list[dict[str, Any]] = []
    names = program.outputs
    for symbols, rows in HISTORY:
        panel = market(rows, symbols, dtype)
        cells = rows * symbols * len(names)
        sides = {"penstock": lambda panel=panel, cells=cells: cells / spent(lambda: program.batch(panel)) / 1e6}
        if made is not None:
            given = made.given({one: panel[one] for one in BARS})
            out = {one: np.zeros((rows, symbols), dtype) for one in made.names}
            made.run(given, out, rows)
            sides["KunQuant"] = lambda m=made, g=given, o=out, c=cells, r=rows: c / spent(lambda: m.run(g, o, r)) / 1e6
        shown += show(
            f"{name}, {len(names)} factors, {dtype}, {symbols} x {rows}",
            rounds(sides, options.rounds),
            "M values/s",
            "penstock",
        )
    return shown


def our_ticks(program: f.Program, panel: Panel, executor: f.Executor | None = None) -> Callable[[int], None]:
    """A function of the row: all inputs in, run, all outputs copied into one array."""
    symbols = next(iter(panel.values())).shape[1]
    live = program.stream(n=symbols, executor=executor)
    handles = [(live.handle(name), panel[name]) for name in program.inputs]
    to = np.zeros((len(program.outputs), symbols), program.dtype)

    def tick(row: int) -> None:
        for handle, x in handles:
            live.push(handle, x[row])
        live.run()
        to[:] = live.block()

    return tick


def latencies(tick: Callable[[int], None], rows: int, laps: int, patience: float) -> list[float]:
    """Seconds of each of `laps` ticks, or of as many as there is patience for, 20 at least."""
    took: list[float] = []
    stop = time.perf_counter() + patience
    for lap in range(laps):
        began = time.perf_counter()
        tick(lap % rows)
        took.append(time.perf_counter() - began)
        if began > stop and lap >= 20:
            break
    return took


def ticks(name: str, program: f.Program, made: Made | None, options: Any, dtype: str) -> list[dict[str, Any]]:
    """Wall time of one tick: push everything, run, and copy everything out."""
    shown: list[dict[str, Any]] = []
    for symbols in TICKS:
        panel = market(64, symbols, dtype)
        sides: dict[str, Callable[[int], None]] = {"penstock": our_ticks(program, panel)}
        for threads in range(2, options.threads + 1):
            executor = f.Executor(threads=threads)
            sides[f"penstock, {threads} threads"] = our_ticks(program, panel, executor)
        if made is not None:
            sides["KunQuant"] = made.ticks(panel, dtype)
            for threads in range(2, options.threads + 1):
                sides[f"KunQuant, {threads} threads"] = made.ticks(panel, dtype, made.kun.pool(threads))
        took: dict[str, list[float]] = {side: [] for side in sides}
        for tick in sides.values():
            latencies(tick, 64, 20, PATIENCE)
        medians: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(options.rounds):
            for side, tick in sides.items():
                one = latencies(tick, 64, LAPS[symbols], PATIENCE)
                took[side] += one
                medians[side].append(statistics.median(one) * 1e6)
        shown += show(
            f"{name}, {len(program.outputs)} factors, {dtype}, a tick of {symbols}", medians, "us", "penstock"
        )
        for side, values in took.items():
            p50, p99, p999 = np.quantile(values, (0.5, 0.99, 0.999)) * 1e6
            tail = f"p99.9 {p999:,.0f}" if len(values) > 1000 else f"worst {max(values) * 1e6:,.0f}"
            print(f"    {side}: {len(values)} ticks, p50 {p50:,.0f}, p99 {p99:,.0f}, {tail} us")
    return shown


def libraries(options: Any, kun: Kun | None) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    for name, dtype in (("alpha101", "float32"), ("alpha158", "float32"), ("alpha101", "float64")):
        program, batch, stream = both(name, kun, dtype)
        shown += history(name, program, batch, options, dtype)
        if dtype == "float32":
            shown += ticks(name, program, stream, options, dtype)
    return shown
