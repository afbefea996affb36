"""Memory: of the universe and the windows, not of history; nothing is kept from tick to tick."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
import weakref

import numpy as np
import pytest

from penstock import factor as f
from penstock.factor.graph import _interned

close, volume = f.fields("close", "volume")
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts pages as Linux tells them")

# The most that was held, less inputs and outputs.
GROWTH = """
import numpy as np
from penstock import factor as f
close = f.field("close")
factors = {f"a{i}": f.rank(f.ts_corr(f.ts_std(close, 20 + i), f.rank(close * i), 10)) for i in range(2, 10)}
program = f.compile({"a": sum(factors.values())}, dtype="float32", engine=ENGINE)
live = program.stream(n=1000)

def held():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

peaks = []
for rows in (500, 500, 5000):
    data = np.random.default_rng(0).random((rows, 1000), np.float32)
    out = live.batch({"close": data})["a"]
    peaks.append(held() - (data.nbytes + out.nbytes) / 2**20)
    del data, out
print(*peaks)
"""


@LINUX
@pytest.mark.parametrize("engine", ["llvm", pytest.param("numpy", marks=pytest.mark.slow)])
def test_a_batch_takes_no_more_memory_for_more_rows(engine):
    done = subprocess.run(
        [sys.executable, "-c", f"ENGINE = {engine!r}\n{GROWTH}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    _, short, long = map(float, done.stdout.split())
    # 10 times the rows; intermediate values of all of them would be 24 planes of 20 MB.
    assert long - short < 40


@pytest.mark.parametrize(
    "engine, count", [("llvm", 5000), ("numpy", 1000), pytest.param("llvm", 100_000, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("way", ["step", "push"])
def test_ticks_leave_nothing_behind(engine, count, way):
    program = f.compile({"a": f.rank(f.ts_mean(close, 5)), "b": f.ts_quantile(volume, 9, 0.3)}, engine=engine)
    live = program.stream(n=20)
    row = {"close": np.random.default_rng(0).random(20), "volume": np.random.default_rng(1).random(20)}

    def many(count):
        for _ in range(count):
            if way == "step":
                live.step(**row)
            else:
                live.push(0, row["close"])
                live.push(1, row["volume"])
                live.run()
                live.current("a")
                live.block()

    many(100)
    tracemalloc.start(1)
    many(200)
    gc.collect()
    before = tracemalloc.take_snapshot()
    many(count)
    gc.collect()
    after = tracemalloc.take_snapshot()
    tracemalloc.stop()
    here = [tracemalloc.Filter(False, tracemalloc.__file__)]
    grown = after.filter_traces(here).compare_to(before.filter_traces(here), "filename")
    # Objects, not bytes: a table of the interpreter's may double in between.
    assert sum(entry.count_diff for entry in grown) < 500


def test_streams_and_programs_go_when_nobody_has_them():
    program = f.compile({"a": f.ts_sum(close, 77)})
    live = program.stream(n=4)
    live.step(close=np.ones(4))
    gone = [weakref.ref(program), weakref.ref(live), weakref.ref(live._engine)]
    del program, live
    gc.collect()
    assert [ref() for ref in gone] == [None, None, None]


def test_nodes_go_when_nobody_has_them():
    gc.collect()
    before = len(_interned)
    for i in range(50):
        program = f.compile({"a": f.ts_zscore(close * (i + 0.123), 5)}, engine="numpy")
        program.batch({"close": np.ones((3, 2))})
    del program
    gc.collect()
    assert len(_interned) <= before + 5


def test_restoring_and_changing_a_universe_leaves_nothing_behind():
    program = f.compile({"a": f.ts_sum(close, 50)}, engine="numpy")
    live = program.stream([f"S{i}" for i in range(50)])
    live.batch({"close": np.ones((60, 50))})

    def turn():
        nonlocal live
        live.add_symbols(["X"])
        live.step(close=np.ones(51))
        live.drop_symbols(["X"])
        live = program.stream(state=live.snapshot())

    turn()
    gc.collect()
    tracemalloc.start(1)
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(200):
        turn()
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 100_000
