from __future__ import annotations

import numpy as np
import pytest

from penstock import factor as f
from penstock.errors import FactorError

close, volume = f.fields("close", "volume")


@pytest.fixture
def program():
    return f.compile({"s": f.ts_sum(close, 6), "r": f.rank(volume), "e": f.ema(close, 3)})


def panel(rows, keys=3, seed=0):
    rng = np.random.default_rng(seed)
    return {"close": rng.normal(5, 1, (rows, keys)), "volume": rng.normal(5, 1, (rows, keys))}


def test_push_run_current(program):
    data = panel(8)
    whole = program.batch(data)
    live = program.stream(["A", "B", "C"])
    handles = {name: live.handle(name) for name in ("close", "volume", "s")}
    for t in range(8):
        live.push(handles["close"], data["close"][t])
        live.push("volume", data["volume"][t])
        live.run()
        assert live.current(handles["s"]).tobytes() == whole["s"][t].tobytes()
        assert live.current("r").tobytes() == whole["r"][t].tobytes()
    assert live.ordinal == 8
    view = live.current("s")
    assert not view.flags.writeable
    assert view.base is not None


def test_a_second_push_replaces_the_first(program):
    one, two = program.stream(n=3), program.stream(n=3)
    one.push("close", [9.0, 9, 9])
    assert one.step(close=[1, 2, 3], volume=[1, 2, 3])["e"].tolist() == [1, 2, 3]
    two.push("close", [9.0, 9, 9])
    two.push("close", [1, 2, 3])
    two.push("volume", [1, 2, 3])
    two.run()
    assert two.current("e").tolist() == [1, 2, 3]


def test_step_gives_copies_and_ignores_other_names(program):
    live = program.stream(n=3)
    out = live.step(close=[1, 2, 3], volume=[1, 2, 3], open=[0, 0, 0])
    out["e"][:] = -1
    assert live.current("e").tolist() == [1, 2, 3]


def test_inputs_may_be_any_numbers(program):
    live = program.stream(n=3)
    live.step(close=np.array([1, 2, 3], "i4"), volume=np.array([1, 2, 3], "f4"))
    live.step(close=[1, None, 3], volume=np.array([True, False, True]))
    assert np.isnan(live.current("e")[1])
    live.step(close=np.ma.array([1.0, 2, 3], mask=[0, 0, 1]), volume=np.arange(6.0)[::2])
    assert np.isnan(live.current("e")[2])
    live.step(close=np.array([1.0, None, 3], object), volume=[1, 2, 3])
    assert np.isnan(live.current("e")[1])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda live: live.step(close=[1, 2, 3]), "no row of 'volume' for tick 0 - in step; NaN stands"),
        (lambda live: live.step(close=[1, 2, 3], volum=[1, 2, 3]), "no row of 'volume' .* did you mean 'volum'"),
        (lambda live: live.run(), "no row of 'close', 'volume' for tick 0; push every input before run"),
        (
            lambda live: live.push("close", [1, 2]),
            r"expected 'close' of shape \(3,\), one value per symbol, got \(2,\)",
        ),
        (lambda live: live.push("close", [[1, 2, 3]]), r"got \(1, 3\)"),
        (lambda live: live.push("close", 3.0), r"got \(\)"),
        (lambda live: live.push("close", ["a", "b", "c"]), "expected numbers for 'close', got .*'a'.* - in push"),
        (lambda live: live.push("close", [1, "b", 2]), "expected numbers for 'close'"),
        (lambda live: live.push("close", np.zeros(3, complex)), "expected numbers for 'close', got complex128"),
        (lambda live: live.push("close", np.zeros(3, "M8[ns]")), "expected numbers for 'close', got datetime64"),
        (lambda live: live.push("s", [1, 2, 3]), "expected an input, got 's' - in push; inputs are close, volume"),
        (lambda live: live.push(99, [1, 2, 3]), "expected an input, got 99"),
        (lambda live: live.push("clos", [1, 2, 3]), "there is no input or output 'clos'; did you mean 'close'"),
        (lambda live: live.handle("zzz"), "there is no input or output 'zzz'; inputs are close, volume"),
        (lambda live: live.current("s"), "there is no row yet; push every input and run"),
        (lambda live: live.current("close"), "expected an output, got 'close'; outputs are s, r, e"),
        (lambda live: live.drop_symbols(["X"]), "'X' is not a symbol of this stream"),
        (lambda live: live.drop_symbols(["A", "B", "C"]), "a stream needs at least one symbol"),
        (lambda live: live.add_symbols(["A"]), "symbol 'A' is given twice"),
        (
            lambda live: live.batch({"close": np.zeros((2, 4)), "volume": np.zeros((2, 4))}),
            "expected 3 symbols in 'close', got 4",
        ),
    ],
)
def test_what_a_stream_refuses(program, call, message):
    live = program.stream(["A", "B", "C"])
    with pytest.raises(FactorError, match=message):
        call(live)
    # and is as before
    assert live.ordinal == 0
    assert live.step(close=[1, 2, 3], volume=[3, 2, 1])["e"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda p: p.stream(), "a stream needs its symbols"),
        (lambda p: p.stream([]), "a stream needs at least one symbol"),
        (lambda p: p.stream(n=0), "a stream needs at least one symbol"),
        (lambda p: p.stream("AAPL"), r"expected a list of symbols, got 'AAPL'; \['AAPL'\]"),
        (lambda p: p.stream(["A", "B", "A"]), "symbol 'A' is given twice"),
        (lambda p: p.stream([1.5]), "expected symbols that are texts or whole numbers, got 1.5"),
        (lambda p: p.stream([None]), "expected symbols that are texts or whole numbers, got None"),
        (lambda p: p.stream(["A"], n=3), "symbols and n are both given"),
        (
            lambda p: p.stream(["A"], first=-1),
            r"expected first a whole number from 0 to 2 \*\* 62, got -1 - in program.stream",
        ),
    ],
)
def test_universes_that_cannot_be(program, call, message):
    with pytest.raises(FactorError, match=message):
        call(program)


def test_numpy_symbols_become_plain_ones(program):
    assert program.stream(np.array(["A", "B"])).symbols == ("A", "B")
    live = program.stream(np.arange(2))
    assert live.symbols == (0, 1)
    assert live.snapshot()


def test_symbols_come_and_go(program):
    data = panel(20, 4)
    four = program.batch(data)
    live = program.stream(["A", "B", "C"])
    live.batch({name: x[:8, :3] for name, x in data.items()})
    live.add_symbols(["D"])
    assert live.cold == {"s": 5}
    tail = [live.step(**{name: x[t] for name, x in data.items()}) for t in range(8, 20)]
    assert live.cold == {}
    got = np.stack([row["s"] for row in tail])
    assert np.isnan(got[:5, 3]).all()
    assert (got[:, :3].view("u8") == four["s"][8:, :3].view("u8")).all()
    # Warm, and with the bits of one that was there from the first row: the phase is the stream's.
    assert (got[5:, 3].view("u8") == four["s"][13:, 3].view("u8")).all()
    live.drop_symbols(["A", "C"])
    assert live.symbols == ("B", "D")
    one = live.step(close=[1, 2], volume=[1, 2])
    assert one["r"].tolist() == [0.5, 1.0]


def test_cold_counts_down(program):
    live = program.stream(n=1)
    assert live.cold == {"s": 5}
    for left in (4, 3, 2, 1):
        live.step(close=[1], volume=[1])
        assert live.cold == {"s": left}
        assert np.isnan(live.current("s")[0])
    live.step(close=[1], volume=[1])
    assert live.cold == {}
    assert np.isnan(live.current("s")[0])
    live.step(close=[1], volume=[1])
    assert live.current("s")[0] == 6


def test_batches_and_ticks_mix(program):
    data = panel(30)
    whole = program.batch(data)
    live = program.stream(n=3)
    first = live.batch({name: x[:17] for name, x in data.items()})
    assert live.current("s").tobytes() == first["s"][-1].tobytes()
    live.batch({name: x[17:17] for name, x in data.items()})
    assert live.ordinal == 17
    second = live.batch({name: x[17:] for name, x in data.items()})
    got = np.concatenate([first["s"], second["s"]])
    assert got.tobytes() == whole["s"].tobytes()


def test_streams_of_one_program_do_not_share_state(program):
    one, two = program.stream(n=1), program.stream(n=1)
    one.step(close=[5], volume=[1])
    assert two.step(close=[7], volume=[1])["e"].tolist() == [7]


@pytest.mark.parametrize("engine", ["llvm", "numpy"])
def test_all_outputs_in_one_block(engine):
    program = f.compile({"s": f.ts_sum(close, 2), "r": f.rank(volume)}, engine=engine)
    live = program.stream(n=3)
    with pytest.raises(FactorError, match="there is no row yet; push every input and run"):
        live.block()
    data = panel(4)
    whole = program.batch(data)
    for t in range(4):
        live.push(0, data["close"][t])
        live.push(1, data["volume"][t])
        live.run()
        rows = live.block()
        assert rows.shape == (2, 3)
        assert not rows.flags.writeable
        for i, name in enumerate(program.outputs):
            assert rows[i].tobytes() == whole[name][t].tobytes() == live.current(name).tobytes()
    live.batch(data)
    assert live.block()[0].tobytes() == live.current("s").tobytes()
