"""Ticks: one block in, one block out; nothing is allocated on the way; state is ready for each."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest

from penstock import factor as f
from penstock.errors import FactorError

high, low = f.fields("high", "low")
FACTORS = {
    "corr": f.ts_corr(high, low, 10) + f.ts_max(high, 70),
    "order": f.rank(f.ts_rank(low, 6)) - f.ts_median(high, 7),
    "mean": f.ts_ema(low, 5) * f.delay(high, 3),
}
BOTH = pytest.mark.parametrize("engine", ["llvm", "numpy"])


def panel(rows, keys):
    rng = np.random.default_rng(3)
    return rng.normal(5, 1, (rows, 2, keys))


@BOTH
def test_one_block_in_and_one_block_out(engine):
    program = f.compile(FACTORS, engine=engine)
    data = panel(90, 19)
    whole = program.batch({"high": data[:, 0], "low": data[:, 1]})
    live = program.stream(n=19)
    for t, rows in enumerate(data):
        block = live.tick(rows)
        assert block.shape == (3, 19)
        assert not block.flags.writeable
        for i, name in enumerate(program.outputs):
            assert block[i].tobytes() == whole[name][t].tobytes()
    assert live.ordinal == 90
    # What can be read as numbers is; and the other ways of giving a row go on from here.
    other = program.stream(state=live.snapshot())
    assert live.tick(data[0].tolist()).tobytes() == other.tick(data[0].astype(object)).tobytes()
    rows = {"high": data[1, 0], "low": data[1, 1]}
    assert live.step(**rows)["corr"].tobytes() == other.tick(data[1])[0].tobytes()


@pytest.mark.parametrize(
    "rows, message",
    [
        (np.zeros((3, 4)), r"expected rows of shape \(2, 4\): one each of high, low, got \(3, 4\) - in tick"),
        (np.zeros((2, 5)), r"expected rows of shape \(2, 4\): one each of high, low, got \(2, 5\) - in tick"),
        (np.zeros(4), r"got \(4,\) - in tick"),
        ([["a"] * 4] * 2, "expected numbers for 'rows of high, low'"),
    ],
)
def test_blocks_that_do_not_fit_leave_the_state_alone(rows, message):
    live = f.compile(FACTORS).stream(n=4)
    before = live.tick(np.ones((2, 4))).copy()
    with pytest.raises(FactorError, match=message):
        live.tick(rows)
    assert live.ordinal == 1
    assert live.block().tobytes() == before.tobytes()


@BOTH
def test_a_stream_of_no_inputs_ticks(engine):
    live = f.compile({"one": f.ts_sum(f.constant(1.0), 3)}, engine=engine).stream(n=2)
    got = [live.tick(np.zeros((0, 2)))[0, 0] for _ in range(4)]
    assert np.isnan(got[:2]).all()
    assert got[2:] == [3.0, 3.0]


def test_a_tick_allocates_nothing():
    program = f.compile(FACTORS, dtype="float32")
    live = program.stream(n=4096)
    data = panel(8, 4096).astype("float32")
    handles = [live.handle(name) for name in (*program.inputs, *program.outputs)]

    def ticks():
        for rows in data:
            live.tick(rows)
            live.push(handles[0], rows[0])
            live.push(handles[1], rows[1])
            live.run()
            live.current(handles[2])

    ticks()
    tracemalloc.start()
    try:
        ticks()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        ticks()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Views and numbers come and go; a row of 4,096 values would be 16,384 bytes.
    assert after - held < 4096
    assert peak - held < 8192
    # Compiled code has no way to ask for memory: it calls nothing but itself.
    text = program.new_engine.module.text
    assert {name for name in re.findall(r"^declare .*@([\w.]+)\(", text, re.M) if not name.startswith("llvm.")} == set()


@BOTH
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_is_made_of_rows_is_made_again_at_every_phase(engine, dtype):
    windows = {f"c{n}": f.ts_corr(high, f.delay(low, 2), n) for n in (5, 12, 47, 48, 51, 97)}
    windows |= {f"m{n}": f.ts_argmax(high, n) + f.ts_quantile(low, n, 0.3) for n in (4, 6, 50, 96)}
    program = f.compile(windows, dtype=dtype, engine=engine)
    data = {name: np.ascontiguousarray(panel(160, 17)[:, i], dtype) for i, name in enumerate(("high", "low"))}
    whole = program.batch(data)
    live = program.stream(n=17)
    for t in range(157):
        live.step(**{name: x[t] for name, x in data.items()})
        if t < 12 or t > 100:
            again = program.stream(state=live.snapshot())
            got = again.batch({name: x[t + 1 : t + 4] for name, x in data.items()})
            for name in whole:
                assert got[name].tobytes() == whole[name][t + 1 : t + 4].tobytes(), (name, t)
