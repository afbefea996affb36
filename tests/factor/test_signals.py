"""Beside other threads, signals and forks: a running program holds nobody up, and says when its state is of no use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from penstock import factor as f
from penstock.errors import FactorError
from penstock_tests.waiting import PATIENCE_S, until

close, volume = f.fields("close", "volume")
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks of POSIX")
BOTH = pytest.mark.parametrize("engine", ["llvm", "numpy"])

HEAD = """
import os, signal, sys, threading, time
import numpy as np
from penstock import factor as f
from penstock.errors import FactorError
close = f.field("close")
rng = np.random.default_rng(0)
"""

LONG = """
ranks = sum(f.ts_rank(close, 1000 + 25 * i) for i in range(20))
program = f.compile({"a": ranks, "b": f.rank(f.ts_quantile(close, 300, 0.3))}, engine=ENGINE)
data = {"close": rng.random((60_000, 64))}
crew = f.Executor(threads=2) if THREADS == 2 else None
live = program.stream(n=64, executor=crew)
live.batch({"close": data["close"][:100]})
before = live.snapshot()
print("ready", flush=True)
try:
    live.batch(data)
    print("ended too soon")
except KeyboardInterrupt:
    print("interrupted", flush=True)
try:
    live.step(close=rng.random(64))
    print("went on")
except FactorError as error:
    print(error)
again = program.stream(state=before)
again.step(close=rng.random(64))
print(again.ordinal, program.batch({"close": data["close"][:200]})["a"].shape)
"""

TICKS = """
program = f.compile({"a": f.ts_sum(close, 20), "b": f.rank(close)}, engine=ENGINE)
live = program.stream(n=300)
row = rng.random(300)
ticks = 0
print("ready", flush=True)
try:
    while True:
        live.step(close=row)
        ticks += 1
except KeyboardInterrupt:
    print("interrupted", flush=True)
try:
    state = live.snapshot()
    # Between two rows: every row that was counted is in it, and at most the one that was under way.
    print("whole", live.ordinal - ticks in (0, 1), program.stream(state=state).ordinal == live.ordinal)
except FactorError as error:
    print("torn" if "was begun and not finished" in str(error) else error)
"""


class Child:
    def __init__(self, script):
        self.process = subprocess.Popen([sys.executable, "-c", HEAD + script], stdout=-1, stderr=-1, text=True)

    def line(self):
        return self.process.stdout.readline().strip()

    def cpu(self):
        """Seconds of a processor that it has taken: what does not depend on who else is at work."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def work(self, seconds):
        """Wait until it has been at work for so long."""
        end = self.cpu() + seconds
        until(lambda: self.cpu() >= end)

    def interrupt(self):
        """The line that follows SIGINT, and the processor time that went by."""
        began = self.cpu()
        self.process.send_signal(signal.SIGINT)
        line = self.line()
        return self.cpu() - began, line

    def rest(self):
        with self.process:
            out, err = self.process.stdout.read(), self.process.stderr.read()
        assert self.process.returncode == 0, err
        return out.splitlines()


@POSIX
@pytest.mark.parametrize("engine, threads", [("llvm", 1), ("llvm", 2), ("numpy", 1)])
def test_ctrl_c_in_a_long_batch(engine, threads):
    child = Child(f"ENGINE, THREADS = {engine!r}, {threads}\n{LONG}")
    assert child.line() == "ready"
    child.work(0.3)  # well within the batch, which takes many seconds
    took, line = child.interrupt()
    assert line == "interrupted"
    assert took < 2 * threads  # some tenths
    refused, after = child.rest()
    assert "tick 100 was begun and not finished: it was interrupted, or another thread is at it; go on from" in refused
    assert after == "101 (200, 64)"


@POSIX
@BOTH
def test_ctrl_c_in_a_stream(engine):
    child = Child(f"ENGINE = {engine!r}\n{TICKS}")
    assert child.line() == "ready"
    child.work(0.2)
    took, line = child.interrupt()
    assert line == "interrupted"
    assert took < 1
    (said,) = child.rest()
    assert said in ("whole True True", "torn")


@BOTH
def test_what_breaks_a_row_off_leaves_a_state_that_says_so(engine):
    program = f.compile({"a": f.ts_sum(close, 3)}, engine=engine)
    live = program.stream(n=2)
    live.step(close=[1, 2])
    saved = live.snapshot()
    plain = live._engine.tick

    def broken(ordinal):
        plain(ordinal)
        raise KeyboardInterrupt

    live._engine.tick = broken
    with pytest.raises(KeyboardInterrupt):
        live.step(close=[1, 2])
    live._engine.tick = plain
    for call in (
        lambda: live.step(close=[1, 2]),
        lambda: live.batch({"close": np.ones((2, 2))}),
        live.snapshot,
        lambda: live.add_symbols(["A"]),
        lambda: live.drop_symbols([0]),
    ):
        with pytest.raises(FactorError, match="tick 1 was begun and not finished: .*; go on from a snapshot"):
            call()
    assert program.stream(state=saved).step(close=[1, 2])["a"].shape == (2,)


# ---- threads ----


def panel(rows, symbols, seed=0):
    rng = np.random.default_rng(seed)
    return {"close": rng.lognormal(0, 1, (rows, symbols)), "volume": rng.lognormal(0, 1, (rows, symbols))}


MIXED = {"a": f.ts_corr(f.rank(close), volume, 7), "b": f.ts_quantile(close, 9, 0.3), "c": f.zscore(volume)}


def in_threads(work, count):
    failures = []

    def guarded(i):
        try:
            work(i)
        except BaseException as error:
            failures.append(error)

    crew = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    assert not failures, failures


@BOTH
def test_one_program_in_many_threads(engine):
    program = f.compile(MIXED, engine=engine)
    data = [panel(80, 40, i) for i in range(6)]
    want = [f.compile(MIXED, engine="numpy").batch(x) for x in data]
    got = [None] * 6

    def work(i):
        for _ in range(5):
            got[i] = program.batch(data[i])
        live = program.stream(n=40)
        for t in range(80):
            row = live.step(**{name: x[t] for name, x in data[i].items()})
        assert all(row[name].tobytes() == want[i][name][-1].tobytes() for name in MIXED)

    in_threads(work, 6)
    assert all(g[name].tobytes() == w[name].tobytes() for g, w in zip(got, want, strict=True) for name in MIXED)


def test_threads_compile_at_once():
    want = f.compile(MIXED, engine="numpy").batch(panel(30, 5))
    got = [None] * 6
    outputs = [{**MIXED, f"own{i}": f.ts_mean(close, 2 + i)} for i in range(6)]

    def work(i):
        got[i] = f.compile(outputs[i]).batch(panel(30, 5))

    in_threads(work, 6)
    assert all(g[name].tobytes() == want[name].tobytes() for g in got for name in MIXED)


def test_the_interpreter_is_free_while_a_program_runs():
    # One call of compiled code, of some tenths of a second: another thread's clock goes on during all of it. Where
    # others want the processor too, the system may let that thread wait; not every time.
    program = f.compile({"a": f.ts_rank(close, 700)})
    data = {"close": np.random.default_rng(0).random((6000, 64))}

    def goes_on():
        stop, stamps = threading.Event(), []

        def beat():
            while not stop.is_set():
                stamps.append(time.monotonic())
                stop.wait(0.001)

        beside = threading.Thread(target=beat)
        beside.start()
        began = time.monotonic()
        program.batch(data)
        took = time.monotonic() - began
        stop.set()
        beside.join()
        inside = [began, *(t for t in stamps if began < t < began + took), began + took]
        return max(np.diff(inside)) < took / 2 and len(inside) > 10

    assert any(goes_on() for _ in range(30))


def test_a_stream_in_two_threads_at_once_refuses_one():
    program = f.compile({"a": f.ts_rank(close, 700)})
    live = program.stream(n=64)
    data = {"close": np.random.default_rng(0).random((6000, 64))}
    want = program.batch(data)
    began, got, refused = threading.Event(), [], []

    def work():
        began.set()
        got.append(live.batch(data))

    thread = threading.Thread(target=work)
    thread.start()
    began.wait()
    while thread.is_alive():
        try:
            live.snapshot()
        except FactorError as error:
            refused.append(str(error))
    thread.join()
    assert refused
    assert "another thread is at it" in refused[0]
    assert got[0]["a"].tobytes() == want["a"].tobytes()
    assert live.ordinal == 6000


EXIT = (
    HEAD
    + """
program = f.compile({"a": f.ts_rank(close, 1000), "b": f.rank(close)})
data = {"close": rng.random((60_000, 64))}
crews = [f.Executor(threads=3) for _ in range(3)]
lives = [program.stream(n=64, executor=crew) for crew in crews]
for live in lives:
    live.step(close=data["close"][0])
threading.Thread(target=lambda: program.batch(data), daemon=True).start()
time.sleep(0.1)
print("end", flush=True)
"""
)


def test_a_process_ends_though_threads_rest_and_compute():
    done = subprocess.run([sys.executable, "-c", EXIT], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


@POSIX
def test_a_signal_handler_cannot_take_a_row_in_the_middle_of_another():
    program = f.compile({"a": f.ts_sum(close, 3)}, engine="numpy")
    live = program.stream(n=2)
    plain, said = live._engine.tick, []

    def nested(ordinal):
        try:
            live.step(close=[5.0, 5.0])
        except FactorError as error:
            said.append(str(error))
        return plain(ordinal)

    live._engine.tick = nested
    live.step(close=[1.0, 2.0])
    live._engine.tick = plain
    assert "tick 0 was begun and not finished" in said[0]
    live.step(close=[1.0, 2.0])
    assert live.step(close=[1.0, 2.0])["a"].tolist() == [3.0, 6.0]


# ---- forks ----

FORK = (
    HEAD
    + """
volume = f.field("volume")
factors = {"a": f.ts_corr(f.rank(close), volume, 7), "c": f.zscore(volume)}
program = f.compile(factors)
data = {name: rng.random((50, 30)) for name in ("close", "volume")}
with f.Executor(threads=2) as crew:
    live = program.stream(n=30, executor=crew)
    live.batch(data)
    whole = program.batch(data)
    tick = {name: x[0] for name, x in data.items()}
    child = os.fork()
    if child == 0:
        # Compiled code, state and the executor (with threads of its own) go on in the child; so does compiling.
        ok = all(program.batch(data, executor=crew)[n].tobytes() == whole[n].tobytes() for n in factors)
        row = live.step(**tick)
        other = f.compile({"m": f.ts_mean(close, 4)}).batch(data)["m"]
        ok = ok and live.ordinal == 51 and np.isfinite(other[5:]).all()
        print("child", ok, row["a"].tobytes().hex()[:32], flush=True)
        sys.stdout.flush()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    row = live.step(**tick)
    print("parent", status, row["a"].tobytes().hex()[:32])
"""
)


@POSIX
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_goes_on():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    child, parent = (line.split() for line in done.stdout.splitlines())
    assert child[:2] == ["child", "True"]
    assert parent[:2] == ["parent", "0"]
    assert child[2] == parent[2]
