"""Copies and pickles: programs are made again, streams go on from the same state, apart from each other."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys

import numpy as np
import pytest

from penstock import factor as f

close, volume = f.fields("close", "volume")
FACTORS = {"s": f.ts_sum(close, 5), "r": f.rank(f.ts_std(volume, 4)), "e": f.ema(close, 3)}
BOTH = pytest.mark.parametrize("engine", ["llvm", "numpy"])
WAYS = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x))}


def panel(rows, symbols=3):
    rng = np.random.default_rng(0)
    return {"close": rng.normal(5, 1, (rows, symbols)), "volume": rng.normal(5, 1, (rows, symbols))}


def row(data, t):
    return {name: x[t] for name, x in data.items()}


@BOTH
@pytest.mark.parametrize("way", WAYS)
def test_a_copied_stream_goes_its_own_way(engine, way):
    program = f.compile(FACTORS, dtype="float32", engine=engine)
    data = panel(30)
    whole = program.batch(data)
    live = program.stream(["A", "B", "C"])
    live.batch({name: x[:17] for name, x in data.items()})
    other = WAYS[way](live)
    assert other.snapshot() == live.snapshot()
    for _ in range(3):
        other.step(close=[1e6] * 3, volume=[1e6] * 3)
    other.drop_symbols(["B"])
    rest = live.batch({name: x[17:] for name, x in data.items()})
    assert all(rest[name].tobytes() == whole[name][17:].tobytes() for name in whole)
    assert (live.ordinal, other.ordinal) == (30, 20)


@pytest.mark.parametrize("way", ["copy", "deepcopy"])
def test_a_copied_stream_keeps_its_threads(way):
    data = panel(20, 50)
    with f.Executor(threads=2) as crew:
        live = f.compile(FACTORS).stream(n=50, executor=crew)
        live.batch(data)
        other = WAYS[way](live)
        assert other._executor is crew
        assert other.step(**row(data, 0))["r"].tobytes() == live.step(**row(data, 0))["r"].tobytes()


def test_a_copied_executor_is_the_same_one():
    crew = f.Executor(threads=2)
    program, data = f.compile(FACTORS), panel(5, 40)
    want = program.batch(data, executor=crew)
    other = copy.copy(crew)
    del crew
    gc.collect()
    assert program.batch(data, executor=other)["r"].tobytes() == want["r"].tobytes()
    other.close()


@BOTH
def test_programs_hold_no_data_and_are_not_copied(engine):
    program = f.compile(FACTORS, engine=engine)
    assert copy.copy(program) is program
    assert copy.deepcopy({"p": program})["p"] is program
    again = pickle.loads(pickle.dumps(program))
    assert again.digest == program.digest
    assert again.engine == program.engine
    assert again.batch(panel(9))["r"].tobytes() == program.batch(panel(9))["r"].tobytes()


def test_operators_are_found_by_name():
    for operator in f.operators().values():
        assert pickle.loads(pickle.dumps(operator)) is copy.copy(operator) is copy.deepcopy(operator) is operator


@pytest.mark.parametrize("name", ["alpha101", "alpha158", "alpha360", "ta"])
def test_libraries(name):
    library = f.library(name)
    again = pickle.loads(pickle.dumps(library))
    assert again == library == copy.copy(library) == copy.deepcopy(library)
    assert again.explain(next(iter(again))) == library.explain(next(iter(library)))


CHILD = """
import pickle, sys
live, program, factors, operator = pickle.load(sys.stdin.buffer)
data = {"close": [[1.0, 2, 3]], "volume": [[3.0, 2, 1]]}
print(live.ordinal, live.step(close=[1, 2, 3], volume=[3, 2, 1])["r"].tobytes().hex())
print(program.batch(data)["r"].tobytes().hex(), list(factors), operator.name)
"""


@BOTH
def test_another_process_reads_them(engine):
    program = f.compile(FACTORS, engine=engine)
    live = program.stream(n=3)
    live.batch(panel(12))
    sent = pickle.dumps((live, program, f.Factors(FACTORS), f.ts_sum))
    done = subprocess.run([sys.executable, "-c", CHILD], input=sent, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    one, two = done.stdout.decode().splitlines()
    assert one == f"12 {live.step(close=[1, 2, 3], volume=[3, 2, 1])['r'].tobytes().hex()}"
    small = {"close": np.array([[1.0, 2, 3]]), "volume": np.array([[3.0, 2, 1]])}
    assert two == f"{program.batch(small)['r'].tobytes().hex()} ['s', 'r', 'e'] ts_sum"
