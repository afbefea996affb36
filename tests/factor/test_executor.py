from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from penstock import factor as f
from penstock.errors import FactorError
from penstock.factor.llvm.engine import LlvmEngine
from penstock_tests.waiting import PATIENCE_S

close, volume = f.fields("close", "volume")
FACTORS = {
    "series": {"a": f.ts_corr(close, volume, 7), "b": f.ts_std(close, 3) / volume},
    "crossing": {"a": f.rank(f.ts_sum(f.rank(close), 5)), "b": f.zscore(volume) - f.scale(close), "c": f.log(close)},
}


def panel(rows, keys):
    rng = np.random.default_rng(0)
    return {name: rng.lognormal(0, 1, (rows, keys)) for name in ("close", "volume")}


@pytest.fixture
def eager(monkeypatch):
    """However little there is to do, all threads do it."""
    monkeypatch.setattr(LlvmEngine, "SHARE", 1)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("kind", FACTORS)
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("keys", [1, 30, 333])
def test_threads_do_not_change_bits(kind, threads, keys):
    program = f.compile(FACTORS[kind])
    data = panel(140, keys)
    whole = program.batch(data)
    with f.Executor(threads=threads) as executor:
        shared = program.batch(data, executor=executor)
        live = program.stream(n=keys, executor=executor)
        first = live.batch({name: x[:100] for name, x in data.items()})
        rows = [live.step(**{name: x[t] for name, x in data.items()}) for t in range(100, 140)]
        state = live.snapshot()
    for name in program.outputs:
        assert shared[name].tobytes() == whole[name].tobytes()
        ticks = np.stack([row[name] for row in rows])
        assert first[name].tobytes() + ticks.tobytes() == whole[name].tobytes()
    alone = program.stream(n=keys)
    alone.batch(data)
    assert alone.snapshot() == state


@pytest.mark.usefixtures("eager")
def test_a_restored_stream_keeps_its_threads():
    program = f.compile(FACTORS["crossing"])
    data = panel(10, 50)
    live = program.stream(n=50)
    live.batch(data)
    with f.Executor(threads=2) as executor:
        again = program.stream(state=live.snapshot(), executor=executor)
        again.add_symbols([1000])
        more = {name: np.append(x[0], 1.0) for name, x in data.items()}
        live.add_symbols([1000])
        assert again.step(**more)["a"].tobytes() == live.step(**more)["a"].tobytes()


@pytest.mark.usefixtures("eager")
def test_streams_in_several_python_threads_share_one_executor():
    program = f.compile(FACTORS["crossing"])
    data = panel(60, 100)
    want = program.batch(data)
    got = {}
    with f.Executor(threads=2) as executor:

        def follow(number):
            live = program.stream(n=100, executor=executor)
            rows = [live.step(**{name: x[t] for name, x in data.items()})["a"] for t in range(60)]
            got[number] = np.stack(rows)

        crew = [threading.Thread(target=follow, args=(i,)) for i in range(3)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
    assert all(got[i].tobytes() == want["a"].tobytes() for i in range(3))


@pytest.mark.usefixtures("eager")
def test_resting_threads_use_no_processor():
    program = f.compile(FACTORS["crossing"])
    with f.Executor(threads=2) as executor:
        program.batch(panel(5, 10), executor=executor)
        before, began = time.process_time(), time.monotonic()
        threading.Event().wait(0.2)
        assert time.process_time() - before < 0.5 * (time.monotonic() - began)


def test_the_interpreter_runs_beside_a_batch():
    program = f.compile({"a": f.ts_rank(close, 500)})
    data = {"close": np.random.default_rng(1).random((3000, 100))}
    seen = []
    thread = threading.Thread(target=lambda: seen.append(program.batch(data)))
    thread.start()
    turns = 0
    while thread.is_alive():
        turns += 1
    thread.join()
    assert seen
    assert turns > 100


@pytest.mark.usefixtures("eager")
def test_threads_end_with_their_executor():
    program = f.compile(FACTORS["crossing"])
    executor = f.Executor(threads=3)
    program.batch(panel(5, 10), executor=executor)

    def mine():
        return [t for t in threading.enumerate() if t.name.startswith("penstock-factor")]

    assert len(mine()) == 2
    del executor
    gc.collect()
    assert not mine()


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True, 257])
def test_how_many_threads_there_can_be(threads):
    with pytest.raises(FactorError, match="expected threads from 1 to 256, got .* - in Executor"):
        f.Executor(threads=threads)


def test_a_closed_executor():
    assert f.Executor().threads >= 1
    executor = f.Executor(threads=2)
    executor.close()
    assert repr(executor) == "Executor(threads=2, closed)"
    with pytest.raises(FactorError, match="this executor is closed; make another one"):
        f.compile(FACTORS["series"]).batch(panel(3, 20), executor=executor)


def test_the_numpy_engine_has_no_use_for_threads():
    program = f.compile(FACTORS["series"], engine="numpy")
    with f.Executor(threads=2) as executor:
        assert program.batch(panel(3, 2), executor=executor)["a"].shape == (3, 2)


def test_a_short_tick_is_computed_by_the_caller_alone(monkeypatch):
    program = f.compile(FACTORS["crossing"])
    data = {name: x[0] for name, x in panel(1, 50).items()}
    with f.Executor(threads=2) as executor:
        program.stream(n=50, executor=executor).step(**data)
        assert not [t for t in threading.enumerate() if t.name.startswith("penstock-factor")]
        monkeypatch.setattr(LlvmEngine, "SHARE", 100)
        program.stream(n=50, executor=executor).step(**data)
        assert [t for t in threading.enumerate() if t.name.startswith("penstock-factor")]


def child(script):
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


SETUP = """
import os, threading, warnings
import numpy as np
from penstock import factor as f
from penstock.factor.llvm.engine import LlvmEngine
LlvmEngine.SHARE = 1
program = f.compile({"a": f.rank(f.ts_sum(f.field("x"), 5))})
data = {"x": np.random.default_rng(0).random((50, 300))}
want = program.batch(data)["a"].tobytes()
executor = f.Executor(threads=3)
assert program.batch(data, executor=executor)["a"].tobytes() == want
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_has_threads_of_its_own():
    script = """
warnings.simplefilter("ignore")
held = threading.Event()
def hold():
    with executor._lock:
        held.set()
        threading.Event().wait(0.2)
thread = threading.Thread(target=hold)
thread.start()
held.wait()
pid = os.fork()
same = program.batch(data, executor=executor)["a"].tobytes() == want
if pid == 0:
    os._exit(0 if same else 1)
print(same, os.waitpid(pid, 0)[1])
"""
    assert child(SETUP + script) == "True 0\n"


def test_a_process_ends_with_an_executor_open():
    assert child(SETUP + "print('end')") == "end\n"
