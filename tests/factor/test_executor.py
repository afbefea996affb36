from __future__ import annotations

import gc
import threading
import time

import numpy as np
import pytest

from penstock import factor as f
from penstock.errors import FactorError

close, volume = f.fields("close", "volume")
FACTORS = {
    "series": {"a": f.ts_corr(close, volume, 7), "b": f.ts_std(close, 3) / volume},
    "crossing": {"a": f.rank(f.ts_sum(f.rank(close), 5)), "b": f.zscore(volume) - f.scale(close), "c": f.log(close)},
}


def panel(rows, keys):
    rng = np.random.default_rng(0)
    return {name: rng.lognormal(0, 1, (rows, keys)) for name in ("close", "volume")}


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
