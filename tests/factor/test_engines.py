"""Which engine a program gets, and what it leaves behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from penstock import factor as f
from penstock.factor.llvm.engine import LlvmEngine

close = f.field("close")


def test_compiled_code_is_the_default():
    assert f.compile({"a": close + 1}).engine == "llvm"
    assert f.compile({"a": close + 1}, engine="numpy").engine == "numpy"


def test_without_llvmlite_numpy_computes():
    script = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "llvmlite":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Without())
import importlib.util
plain = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "llvmlite" else plain(name, package)
from penstock import factor as f
program = f.compile({"a": f.ts_sum(f.field("x"), 2)})
with f.Executor(threads=2) as executor:
    print(program.engine, program.batch({"x": [[1.0], [2.0]]}, executor=executor)["a"].tolist())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "numpy [[nan], [3.0]]\n"


def test_memory_does_not_grow_with_history():
    program = f.compile({"a": f.rank(f.ts_mean(close, 5))})
    engine = program.new_engine(64, None)
    for rows in (300, 3000):
        engine.run([np.zeros((rows, 64))], 0, rows)
        assert engine._many._planes.nbytes <= program.new_engine(64, None).code.module.planes * 64 * 8 * 130


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_is_heard_between_calls(monkeypatch):
    monkeypatch.setattr(LlvmEngine, "CALL", 1 << 16)
    program = f.compile({"a": f.ts_rank(close, 2000)})
    data = {"close": np.random.default_rng(0).random((200_000, 16))}
    began = time.process_time()
    program.batch(data)
    whole = time.process_time() - began

    def heard():
        timer = threading.Timer(0.05, lambda: signal.raise_signal(signal.SIGINT))
        began = time.process_time()
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            program.batch(data)
            timer.join()
        timer.join()
        return time.process_time() - began

    # On a loaded machine the timer may be late, not each time.
    assert any(heard() < whole / 2 for _ in range(20))


def test_inputs_need_no_alignment():
    program = f.compile({"a": f.ts_sum(close, 3), "b": f.rank(close)}, dtype="float32")
    raw = np.arange(30 * 37 + 1, dtype="float32")
    whole = program.batch({"close": raw[1:].reshape(30, 37).copy()})
    shifted = program.batch({"close": raw[1:].reshape(30, 37)})
    assert all(whole[name].tobytes() == shifted[name].tobytes() for name in whole)


def test_no_rows_and_no_keys():
    program = f.compile({"a": f.ts_sum(close, 3), "b": f.rank(close)})
    assert program.batch({"close": np.zeros((0, 5))})["b"].shape == (0, 5)
    assert program.batch({"close": np.zeros((5, 0))})["b"].shape == (5, 0)


def test_compiled_programs_may_be_thrown_away():
    live = f.compile({"a": close * 3}).stream(n=2)
    assert live.step(close=[1, 2])["a"].tolist() == [3, 6]


def rows(keys, dtype):
    """Rows that are hard to put in order, by what is hard about them."""
    rng = np.random.default_rng(keys)
    normal = rng.normal(size=(3, keys))
    special = normal.copy()
    for value in (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42):
        special[rng.random(special.shape) < 0.06] = value
    outlier = normal.copy()
    outlier[:, 0], outlier[:, -1] = 1e30, -1e30
    close = 1 + rng.integers(0, 5 * keys, (3, keys)) * np.finfo(dtype).eps
    close[:, keys // 3] = -1e20
    unsigned = f"u{np.dtype(dtype).itemsize}"
    yield "walk", np.exp(normal.cumsum(0) * 0.02)
    yield "few values", rng.integers(-2, 2, (3, keys))
    yield "ties of three", rng.integers(0, max(2, keys // 3), (3, keys))
    yield "special", special
    yield "outlier", outlier
    yield "close, and an outlier", close
    yield "any bits", rng.integers(0, 2**32 - 1, (3, keys), "u4").astype(unsigned).view(dtype)
    yield "missing", np.full((3, keys), np.nan)
    yield "zeros of both signs", np.where(rng.random((3, keys)) < 0.5, 0.0, -0.0)
    yield "wide", rng.standard_cauchy((3, keys)) * 10.0 ** rng.integers(-30, 30, (3, keys))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_orders_of_hard_rows(dtype):
    expressions = {"order": "cs_order(x)", "low": "cs_quantile(x, 0.1)", "middle": "cs_quantile(x, 0.5)"}
    fast, plain = (f.compile(expressions, dtype=dtype, engine=engine) for engine in ("llvm", "numpy"))
    # Counted in pairs, sorted by the network in its smallest and largest size and just beyond, by digits.
    for keys in (2, 40, 41, 127, 128, 129, 513, 4097, 8192, 8193):
        for name, values in rows(keys, dtype):
            data = {"x": np.asarray(values, dtype)}
            got, want = fast.batch(data), plain.batch(data)
            for output in expressions:
                assert got[output].tobytes() == want[output].tobytes(), (keys, name, output)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_groups_that_change_and_are_small_or_large(dtype):
    expressions = {
        "sum": "cs_group_sum(x, g)",
        "apart": "cs_indneutralize(x, h)",
        "ranked": "cs_indneutralize(cs_rank(x), ts_delta(h, 1))",
        "one": f.cs_group_sum(f.field("x"), 1.0),
    }
    fast, plain = (f.compile(expressions, dtype=dtype, engine=engine) for engine in ("llvm", "numpy"))
    rng = np.random.default_rng(3)
    for keys in (1, 7, 33, 129, 600):
        for large, small in ((1, 2), (3, keys), (30, keys // 4 + 1), (keys // 8 + 1, keys // 3 + 1)):
            x = rng.normal(size=(40, keys)) * 10.0 ** rng.integers(-20, 20, (40, keys))
            x[rng.random(x.shape) < 0.1] = np.nan
            x[2, keys // 2], x[3, 0], x[3, -1] = np.inf, np.inf, -np.inf
            g = np.tile(rng.integers(0, large, keys), (40, 1)).astype(float)
            h = np.tile(rng.integers(-3, small, keys), (40, 1)).astype(float)
            g[4:, keys // 2], g[9:, keys // 3], g[20, 0], g[21:, 0] = large, np.nan, 0.0, -0.0
            h[7] = rng.integers(0, small, keys)
            data = {name: np.asarray(value, dtype) for name, value in (("x", x), ("g", g), ("h", h))}
            got, want, live = fast.batch(data), plain.batch(data), fast.stream(n=keys)
            for row in range(40):
                tick = live.step(**{name: value[row] for name, value in data.items()})
                for name in expressions:
                    assert tick[name].tobytes() == want[name][row].tobytes() == got[name][row].tobytes(), (keys, name)
