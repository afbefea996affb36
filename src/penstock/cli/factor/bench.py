"""`penstock factor bench`: what factors cost on this machine, in batch and tick by tick, on made-up rows."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from penstock.cli import out
from penstock.cli.factor.options import factor_options, program_options
from penstock.cli.progress import progress

if TYPE_CHECKING:
    from penstock.factor import Executor, Factors, Program

__all__ = ["bench", "compile_facts", "market", "run_facts"]


def _counts(ctx: click.Context, param: click.Parameter, value: str) -> list[int]:
    try:
        found = [int(word) for word in value.replace("_", "").split(",") if word.strip()]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise click.BadParameter(f"{value!r} is no list of counts; give such as 16,512", ctx, param)
    return found


@click.command(short_help="Time factors on made-up rows.")
@factor_options
@program_options
@click.option(
    "--symbols", metavar="N,N", default="16,512", show_default=True, callback=_counts, help="Symbols, per run."
)
@click.option("--rows", metavar="N", type=click.IntRange(1), default=1000, show_default=True, help="Rows per symbol.")
@click.option("--ticks", metavar="N", type=click.IntRange(1), default=1000, show_default=True, help="Ticks per run.")
@click.option(
    "--threads", metavar="N", type=click.IntRange(1, 256), default=1, show_default=True, help="To compute with."
)
def bench(
    factors: tuple[str, ...],
    expressions: tuple[str, ...],
    dtype: str,
    engine: str | None,
    symbols: list[int],
    rows: int,
    ticks: int,
    threads: int,
    as_json: bool,
) -> None:
    """Time FACTORS on made-up prices and volumes: compiling them, a batch of rows, and single ticks.

    NS/VALUE is the batch's time over rows x symbols x factors, the best of three. A tick is one push per input, one
    run, and a look at all outputs; P50 and P99 are of the microseconds that ticks take. Compilation is timed in a cache
    of its own: cold, and once more from the cache.
    """
    from contextlib import nullcontext

    from penstock.cli.factor.given import factors_of
    from penstock.factor import Executor

    found = factors_of(factors, expressions)
    with progress(f"compiling {len(found)} factors"):
        program, compiling = compile_facts(found, dtype, engine)
    facts = []
    with Executor(threads) if threads > 1 else nullcontext() as executor:
        for count in symbols:
            total = 4 + ticks / 100
            with progress(f"{count:,} symbols", total) as done:
                facts.append(run_facts(program, count, rows, ticks, executor, done))
    if as_json:
        for one in facts:
            out.print_json({**compiling, "threads": threads, **one})
        return
    cold, cached = compiling["compile_cold_s"], compiling["compile_cached_s"]
    kept = "" if cached is None else f", {cached * 1000:.0f} ms from the cache"
    what = f"{len(found):,} factors, {program.engine}, {program.dtype}"
    out.write(f"{what}: compiled in {cold:.3f} s{kept}\n")
    header = ["SYMBOLS", "ROWS", "BATCH", "NS/VALUE", "TICK P50", "P99"]
    cells = [
        [
            out.count(one["symbols"]),
            out.count(one["rows"]),
            f"{one['batch_s']:.3f} s",
            f"{one['ns_per_value']:.2f}",
            f"{one['tick_p50_us']:,.1f} µs",
            f"{one['tick_p99_us']:,.1f} µs",
        ]
        for one in facts
    ]
    out.write(out.grid(header, cells, right=range(6)))


def compile_facts(factors: Factors, dtype: str, engine: str | None) -> tuple[Program, dict[str, Any]]:
    """The program, and how long it took to make: for the first time, and with the code cached."""
    from time import perf_counter

    from penstock.factor import compile as compile_

    def once() -> tuple[Program, float]:
        before = perf_counter()
        program = compile_(factors, dtype=dtype, engine=engine)
        return program, perf_counter() - before

    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder, _cache(folder):
        program, cold = once()
        cached = once()[1] if program.engine == "llvm" else None
    facts = {"factors": len(factors), "engine": program.engine, "dtype": dtype}
    return program, {**facts, "compile_cold_s": cold, "compile_cached_s": cached}


@contextmanager
def _cache(folder: str) -> Iterator[None]:
    before = os.environ.get("PENSTOCK_CACHE")
    os.environ["PENSTOCK_CACHE"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["PENSTOCK_CACHE"]
        else:
            os.environ["PENSTOCK_CACHE"] = before


def market(inputs: Sequence[str], rows: int, symbols: int, dtype: Any) -> dict[str, Any]:
    """Made-up values for inputs, by their names: prices that wander, volumes, labels of groups; the same every time."""
    import numpy as np

    rng = np.random.default_rng(20_261_120)
    shape = rows, symbols
    close = 100 * np.exp(0.01 * rng.standard_normal(shape).cumsum(0))
    open_ = close * np.exp(0.002 * rng.standard_normal(shape))
    high = np.maximum(open_, close) * np.exp(0.002 * np.abs(rng.standard_normal(shape)))
    low = np.minimum(open_, close) * np.exp(-0.002 * np.abs(rng.standard_normal(shape)))
    volume = np.exp(10 + rng.standard_normal(shape)).round()
    vwap = (high + low + close) / 3
    known = {"open": open_, "high": high, "low": low, "close": close, "volume": volume, "vwap": vwap}
    known |= {"amount": volume * vwap, "cap": close * np.exp(15 + rng.standard_normal(symbols))}
    for name, size in (("sector", 11), ("industry", 25), ("subindustry", 70)):
        known[name] = np.broadcast_to(rng.integers(0, size, symbols), shape)
    made = {}
    for name in inputs:
        values = known[name] if name in known else 1 + rng.random(shape)
        made[name] = np.ascontiguousarray(values, dtype)
    return made


def run_facts(
    program: Program, symbols: int, rows: int, ticks: int, executor: Executor | None, done: Callable[[float], None]
) -> dict[str, Any]:
    """What one count of symbols costs."""
    from time import perf_counter, perf_counter_ns

    import numpy as np

    data = market(program.inputs or ("close",), rows, symbols, program.dtype)
    times = []
    for i in range(4):  # the first one warms memory and processor
        before = perf_counter()
        program.batch(data, executor=executor)
        times.append(perf_counter() - before)
        done(i + 1)
    live = program.stream(n=symbols, executor=executor)
    handles = [(live.handle(name), data[name]) for name in program.inputs]
    taken = np.empty(ticks)
    for i in range(-min(20, ticks), ticks):
        row = i % rows
        before_ns = perf_counter_ns()
        for handle, values in handles:
            live.push(handle, values[row])
        live.run()
        live.block()
        if i >= 0:
            taken[i] = (perf_counter_ns() - before_ns) / 1000
            if i % 100 == 99:
                done(4 + (i + 1) / 100)
    best = min(times[1:])
    return {
        "symbols": symbols,
        "rows": rows,
        "batch_s": best,
        "ns_per_value": best * 1e9 / (rows * symbols * len(program.outputs)),
        "ticks": ticks,
        "tick_p50_us": float(np.percentile(taken, 50)),
        "tick_p99_us": float(np.percentile(taken, 99)),
    }
