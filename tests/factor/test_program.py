from __future__ import annotations

import numpy as np
import pytest

from penstock import factor as f
from penstock.errors import FactorError

close, volume, open_ = f.fields("close", "volume", "open")


def mine():
    return f.Factors(
        reversal=-f.rank(f.ts_delta(close, 5)),
        vol=f.ts_std(close / f.delay(close, 1) - 1, 20),
        trend="close / ts_mean(close, 10) - 1",
        vol_corr="-1 * correlation(rank(open), rank(volume), 10)",
    )


def test_the_example():
    program = f.compile(mine(), dtype="float64")
    assert program.inputs == ("close", "open", "volume")
    assert program.outputs == ("reversal", "vol", "trend", "vol_corr")
    assert program.lookback == {"reversal": 5, "vol": 20, "trend": 9, "vol_corr": 9}
    assert program.warmup == 20
    assert program.endless == ()
    rng = np.random.default_rng(0)
    panel = {name: np.exp(rng.normal(0, 0.01, (50, 4)).cumsum(0)) for name in program.inputs}
    out = program.batch(panel)
    assert list(out) == list(program.outputs)
    x = panel["close"]
    np.testing.assert_allclose(
        out["trend"][9:], [x[t] / x[t - 9 : t + 1].mean(0) - 1 for t in range(9, 50)], rtol=1e-12
    )
    live = program.stream(["A", "B", "C", "D"])
    for t in range(50):
        got = live.step(**{name: x[t] for name, x in panel.items()})
    for name in program.outputs:
        assert (got[name].view("u8") == out[name][-1].view("u8")).all()


def test_explain_shows_passes_stages_and_state():
    program = f.compile(mine())
    assert program.explain("vol_corr") == "\n".join(
        [
            "vol_corr: warm after 9 rows",
            "  written   as it was given",
            "            (-1) * ts_corr(cs_rank(open), cs_rank(volume), n=10)",
            "  expand    composites become the operators they are made of",
            "            (-1) * ts_corr(cs_order(open) / cs_count(open), cs_order(volume) / cs_count(volume), n=10)",
            "  simplify  exact rules, and arithmetic on constants",
            "            -ts_corr(cs_order(open) / cs_count(open), cs_order(volume) / cs_count(volume), n=10)",
            "  stage   2 over keys: cs_order, cs_count, cs_order, cs_count",
            "  stage   3 along time: div, div, ts_corr, neg",
            "  state     18 values of float64 per symbol",
        ]
    )
    assert "never forgets" in f.compile({"e": f.ema(close, 5)}).explain("e")
    assert all(f"{name}:" in program.explain() for name in program.outputs)
    assert program.describe().endswith("rows per key")
    with pytest.raises(FactorError, match="there is no output 'nothing'; outputs are reversal"):
        program.explain("nothing")


def test_programs_print_and_have_a_digest():
    program = f.compile(mine())
    assert repr(program) == "Program(3 inputs, 4 outputs, float64, warm after 20 rows)"
    assert program.digest == f.compile(mine()).digest
    assert program.digest != f.compile(mine(), dtype="float32").digest
    assert repr(program.stream(n=3)) == "Live(3 symbols, 0 rows, 4 outputs)"


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: f.compile({}), "there is no factor to compile"),
        (lambda: f.compile(f.Factors()), "there is no factor to compile"),
        (lambda: f.compile(close), r"expected f.Factors or a mapping .*, got Node; name it"),
        (lambda: f.compile([close]), r"expected f.Factors or a mapping .*, got list"),
        (lambda: f.compile({"a": close}, dtype="int32"), "expected dtype 'float64' or 'float32', got 'int32'"),
        (lambda: f.compile({"a": close}, dtype="nonsense"), "expected dtype 'float64' or 'float32', got 'nonsense'"),
        (lambda: f.compile({"a": close}, engine="abacus"), "expected an engine of 'llvm', 'numpy', got 'abacus'"),
        (lambda: f.compile({"close": close}), "'close' is an input and an output; give the factor another name"),
        (lambda: f.Factors({"a b": close}), "expected a factor name of letters, digits, _ and ., got 'a b'"),
        (lambda: f.Factors({"": close}), "expected a factor name"),
        (lambda: f.Factors({3: close}), "expected a factor name .* got 3"),
        (lambda: f.Factors(symbol=close), "a factor cannot be called 'symbol'"),
        (lambda: f.Factors({"a": close}, a=volume), "there are two factors called 'a'"),
        (lambda: f.Factors(a=close) | f.Factors(a=volume), "two factors called 'a': close and volume; rename one"),
        (lambda: f.Factors(a=None), "expected a factor expression or a number, got NoneType None - in factor 'a'"),
    ],
)
def test_what_cannot_be_compiled(call, message):
    with pytest.raises(FactorError, match=message):
        call()


def test_factors_are_mappings():
    both = f.Factors(a=close) | f.Factors(b="volume + 1", a=close)
    assert list(both) == ["a", "b"]
    assert both["b"] is volume + 1
    assert both == f.Factors(b=volume + 1, a=close)
    assert both != f.Factors(a=close)
    assert repr(f.Factors(a=close)) == "Factors(a=close)"
    with pytest.raises(KeyError, match="did you mean reversal"):
        mine()["reversl"]
    assert f.Factors({"KMID.2": close})["KMID.2"] is close


def test_constants_and_bare_inputs_are_outputs_like_others():
    program = f.compile({"c": 3, "x": close, "y": close, "s": f.ts_sum(f.constant(2), 3), "r": f.rank(f.constant(1))})
    out = program.batch({"close": np.array([[1.0, np.nan]] * 4)})
    assert out["c"].tolist() == [[3, 3]] * 4
    assert out["s"].tolist()[2:] == [[6, 6]] * 2
    assert np.isnan(out["s"][:2]).all()
    assert out["r"].tolist() == [[0.75, 0.75]] * 4
    assert np.array_equal(out["x"], out["y"], equal_nan=True)
    out["x"][:] = 0  # outputs are the caller's own
    assert np.isnan(out["y"][0, 1])


def test_a_program_without_inputs():
    program = f.compile({"c": 3})
    assert program.batch({"anything": np.zeros((2, 3))})["c"].shape == (2, 3)
    assert program.stream(n=2).step()["c"].tolist() == [3, 3]
    with pytest.raises(FactorError, match="no array in the dict says how many rows"):
        program.batch({})


def test_logic_and_missing_values():
    a, b = f.fields("a", "b")
    program = f.compile({"pick": f.where(a > b, 1, -1), "filled": f.nan_to(a / b, 7), "both": (a > 0) & (b > 0)})
    nan = np.nan
    out = program.batch({"a": np.array([[1.0, 2, nan, 0]]), "b": np.array([[2.0, 1, 1, 0]])})
    assert np.array_equal(out["pick"], [[-1, 1, nan, -1]], equal_nan=True)
    assert out["filled"].tolist() == [[0.5, 2, 7, 7]]
    assert np.array_equal(out["both"], [[1, 1, nan, 0]], equal_nan=True)


def test_one_bad_symbol_does_not_spoil_the_row():
    x = np.array([[1.0, 2, 3, np.inf, np.nan]])
    out = f.compile({n: getattr(f, n)(close) for n in ("demean", "scale", "zscore", "rank")}).batch({"close": x})
    assert out["demean"][0, :3].tolist() == [-1, 0, 1]
    assert np.isnan(out["demean"][0, 3:]).all()
    np.testing.assert_allclose(out["scale"][0, :3], [1 / 6, 1 / 3, 1 / 2])
    assert out["rank"][0, :4].tolist() == [0.25, 0.5, 0.75, 1.0]


def test_equal_keys_have_their_value_as_mean():
    x = np.full((1, 3), 0.1)
    out = f.compile({"d": f.demean(close), "z": f.zscore(close)}).batch({"close": x})
    assert out["d"].tolist() == [[0, 0, 0]]
    assert np.isnan(out["z"]).all()
