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
    timer = threading.Timer(0.2, lambda: signal.raise_signal(signal.SIGINT))
    began = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        program.batch(data)
    assert time.monotonic() - began < 5
    timer.join()


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
