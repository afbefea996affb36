"""Without llvmlite NumPy computes: the same bits, and whoever asks for machine code is told what is missing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from penstock import factor as f

WITHOUT = """
import importlib.util, sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "llvmlite":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Without())
plain = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.partition(".")[0] == "llvmlite" else plain(name, package)
import numpy as np
from penstock import factor as f
from penstock.errors import FactorError
"""

RUN = (
    WITHOUT
    + """
library, dtype, source, state, out = sys.argv[1:]
program = f.compile(f.library(library), dtype=dtype)
assert program.engine == "numpy"
data = {name: x for name, x in np.load(source).items() if name in program.inputs}
live = program.stream(state=state)  # saved by compiled code
first = live.ordinal
rows = [live.step(**{name: x[t] for name, x in data.items()}) for t in range(first, first + 3)]
rest = live.batch({name: x[first + 3 :] for name, x in data.items()})
whole = program.batch(data)
for name in program.outputs:
    got = np.concatenate([[row[name] for row in rows], rest[name]])
    assert got.tobytes() == whole[name][first:].tobytes(), name
np.savez(out, **whole)
live.snapshot(state)
assert not [name for name in sys.modules if name.startswith("llvmlite")]
"""
)


def bars(rows, symbols):
    rng = np.random.default_rng(5)
    close = 30 * np.exp(rng.normal(0, 0.02, (rows, symbols)).cumsum(0))
    panel = {"close": close, "open": close * rng.uniform(0.98, 1.02, close.shape)}
    panel["high"] = np.maximum(close, panel["open"]) * rng.uniform(1, 1.02, close.shape)
    panel["low"] = np.minimum(close, panel["open"]) * rng.uniform(0.98, 1, close.shape)
    panel["vwap"], panel["cap"] = (panel["high"] + panel["low"]) / 2, close * 1e6
    panel["volume"] = rng.lognormal(10, 1, close.shape).round()
    gone = rng.random(close.shape) < 0.01
    panel = {name: np.where(gone, np.nan, x) for name, x in panel.items()}
    for name, count in (("sector", 2), ("industry", 3), ("subindustry", 4)):
        panel[name] = np.broadcast_to(np.arange(symbols) % count, close.shape).astype(float)
    return panel


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("library", ["alpha101", "alpha158", "alpha360", "ta"])
def test_a_process_without_llvmlite_gives_the_same_bits(tmp_path, library, dtype):
    program = f.compile(f.library(library), dtype=dtype)
    assert program.engine == "llvm"
    panel = bars(program.warmup + 20, 6)
    np.savez(tmp_path / "data.npz", **panel)
    data = {name: panel[name] for name in program.inputs}
    live = program.stream(n=6)
    live.batch({name: x[: program.warmup] for name, x in data.items()})
    live.snapshot(tmp_path / "state")
    live.batch({name: x[program.warmup :] for name, x in data.items()})
    files = [str(tmp_path / name) for name in ("data.npz", "state", "out.npz")]
    done = subprocess.run(
        [sys.executable, "-c", RUN, library, dtype, *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    whole = program.batch(data)
    with np.load(tmp_path / "out.npz") as out:
        assert not [name for name in whole if out[name].tobytes() != whole[name].tobytes()]
    assert (tmp_path / "state").read_bytes() == live.snapshot()


ASK = (
    WITHOUT
    + """
try:
    f.compile({"a": f.field("x") + 1}, engine="llvm")
except FactorError as error:
    print(error)
print(f.compile({"a": f.field("x") + 1}, engine="numpy").batch({"x": [[1.0]]})["a"].tolist())
with f.Executor(threads=2) as crew:
    print(f.compile({"a": f.field("x") + 1}).stream(n=1, executor=crew).step(x=[1.0])["a"].tolist())
print(f.library("alpha101").explain("alpha101").splitlines()[0])
"""
)


def test_who_asks_for_machine_code_is_told_what_is_missing():
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    said, one, two, three = done.stdout.splitlines()
    assert said == (
        "engine 'llvm' takes llvmlite, which is not installed; "
        'pip install llvmlite, or leave engine out: "numpy" gives the same bits, slower'
    )
    assert (one, two, three) == ("[[2.0]]", "[2.0]", "alpha101")


def test_importing_factors_loads_neither_llvmlite_nor_frames():
    script = """
import sys
from penstock import factor as f
f.library("alpha101")
f.parse("rank(close)")
print(sorted({name.partition(".")[0] for name in sys.modules} & {"llvmlite", "pandas", "polars", "duckdb", "matplotlib"}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
