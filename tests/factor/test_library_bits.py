"""Every factor of the libraries, run in every way there is: the same bits, state included."""

from __future__ import annotations

import numpy as np
import pytest

from penstock import factor as f

LIBRARIES = ("alpha101", "alpha158", "alpha360", "ta")
TICKS = 12


def bars(rows, symbols, dtype):
    """Bars with holes, flat stretches, no volume, an infinity, a price of zero, a symbol that never trades."""
    rng = np.random.default_rng([rows, symbols])
    close = 30 * np.exp(rng.normal(0, 0.02, (rows, symbols)).cumsum(0))
    close[rows // 2 : rows // 2 + 20] = close[rows // 2]
    close = np.where(rng.random(close.shape) < 0.3, close.round(), close)
    open_ = np.where(rng.random(close.shape) < 0.2, close, close * rng.uniform(0.98, 1.02, close.shape))
    high, low = np.maximum(open_, close), np.minimum(open_, close)
    volume = rng.lognormal(10, 1, close.shape).round()
    volume[rng.random(close.shape) < 0.03] = 0
    panel = {"open": open_, "high": high, "low": low, "close": close, "volume": volume, "vwap": (high + low) / 2}
    panel["cap"] = close * 1e6
    gone = rng.random(close.shape) < 0.01
    panel = {name: np.where(gone, np.nan, x) for name, x in panel.items()}
    panel["close"][rng.random(close.shape) < 0.002] = np.inf
    panel["low"][rng.random(close.shape) < 0.002] = -0.0
    if symbols > 3:
        for x in panel.values():
            x[:, 2] = np.nan
    for name, count in (("sector", 2), ("industry", 3), ("subindustry", 4)):
        panel[name] = np.broadcast_to(np.arange(symbols) % count, close.shape).astype(float)
        panel[name][rng.random(close.shape) < 0.02] = np.nan
    return {name: x.astype(dtype) for name, x in panel.items()}


def assert_same(got, want, note):
    different = [name for name in want if got[name].tobytes() != want[name].tobytes()]
    assert not different, note


def rows(data, first, stop):
    return {name: x[first:stop] for name, x in data.items()}


@pytest.mark.parametrize("symbols", [7, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 64))])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_all_ways(library, dtype, symbols):
    factors = f.library(library)
    code, definition = (f.compile(factors, dtype=dtype, engine=engine) for engine in ("llvm", "numpy"))
    count = code.warmup + 60
    panel = bars(count, symbols, dtype)
    data = {name: panel[name] for name in code.inputs}
    live = code.stream(n=symbols)
    whole, state = live.batch(data), live.snapshot()
    assert_same(definition.batch(data), whole, "the definition")
    for threads in (2, 3):
        with f.Executor(threads=threads) as crew:
            live = code.stream(n=symbols, executor=crew)
            assert_same(live.batch(data), whole, f"{threads} threads")
            assert live.snapshot() == state

    # From a snapshot in the middle, some ticks in either engine, then the rest at once in the other.
    cut = count - 40
    live = code.stream(n=symbols)
    live.batch(rows(data, 0, cut))
    begun = live.snapshot()
    for one, other in ((code, definition), (definition, code)):
        live = one.stream(state=begun)
        for t in range(cut, cut + TICKS):
            got = live.step(**{name: x[t] for name, x in data.items()})
            assert_same(got, {name: x[t] for name, x in whole.items()}, f"tick {t}, {one.engine}")
        live = other.stream(state=live.snapshot())
        want = {name: x[cut + TICKS :] for name, x in whole.items()}
        assert_same(live.batch(rows(data, cut + TICKS, count)), want, f"the rest, {other.engine}")
        assert live.snapshot() == state


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_row_by_row_from_the_first(library, dtype):
    program = f.compile(f.library(library), dtype=dtype)
    data = bars(program.warmup + 30, 16, dtype)
    data = {name: data[name] for name in program.inputs}
    live = program.stream(n=16)
    whole, state = live.batch(data), live.snapshot()
    blocks = np.stack(list(whole.values()), axis=1)
    live = program.stream(n=16)
    for t in range(len(blocks)):
        for at, x in enumerate(data.values()):
            live.push(at, x[t])
        live.run()
        assert live.block().tobytes() == blocks[t].tobytes(), t
    assert live.snapshot() == state
