"""What was found wrong in the fastest open engine of its kind, each as a test of ours.

`FAULTS` lists them in groups, with the tests that hold us to them; those without a file stand below.
"""

from __future__ import annotations

import ast
import math
from pathlib import Path

import numpy as np
import pytest

from penstock import factor as f
from penstock.errors import FactorError
from penstock.factor import evaluate
from penstock.factor.table import TABLE, cross

f.operators()
x, y, close, volume = f.fields("x", "y", "close", "volume")
BOTH = pytest.mark.parametrize("engine", ["llvm", "numpy"])
DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])

FAULTS = {
    "numbers": {
        "one NaN ruins a series for good": [
            "test_a_missing_row_leaves",
            "test_long_runs.py::test_a_bad_row_leaves_no_trace",
        ],
        "one infinity ruins a series for good": [
            "test_an_infinity_leaves",
            "test_long_runs.py::test_a_bad_row_leaves_no_trace",
        ],
        "x / y > c becomes x > y * c": ["test_rewrites_keep_the_sign"],
        "rank(log(x)) and rank(sqrt(x)) become rank(x)": ["test_rewrites_keep_what_is_missing"],
        "log(x) - log(y) becomes log(x / y)": ["test_rewrites_keep_what_is_missing"],
        "regressions drift into noise": [
            "test_regressions_after_many_rows",
            "test_long_runs.py::test_a_million_rows_do_not_drift",
        ],
        "one outlier ruins the moments for good": [
            "test_an_outlier_among_equal_rows",
            "test_operators.py::test_one_outlier_leaves_no_trace",
        ],
        "exp, log and pow are of single precision": ["test_functions_are_exact", "test_elementary.py::*"],
        "ends of a long window are constant in a stream": ["test_places_in_long_windows"],
        "an own operator over keys reads foreign memory": ["test_an_own_operator_over_keys_from_a_later_row"],
        "max and min depend on the order of a NaN": ["test_missing_operands"],
        "a NaN as condition chooses": ["test_missing_operands"],
        "clipping a NaN gives a number": ["test_missing_operands"],
        "a regression begins with two rows": ["test_regressions_wait_for_their_window"],
        "correlation with a target far from 0 is NaN": ["test_correlation_far_from_zero"],
        "a NaN makes a row's correlation NaN": ["test_correlation_far_from_zero"],
        "counts of an aggregation count what is missing": ["test_aggregates_leave_out_what_is_missing"],
    },
    "bits": {
        "lanes change bits": ["test_bits.py::test_bits_do_not_depend_on_the_processor"],
        "how a graph is cut changes bits": ["test_bits.py::test_bits_do_not_depend_on_the_chunk"],
        "a stream is not its batch": [
            "test_random_programs.py::test_a_thousand_programs",
            "test_library_bits.py::test_all_ways",
        ],
        "a later start is another value": ["test_start_invariance.py::test_every_factor_of_a_library"],
        "float32 and float64 are other algorithms": ["test_operators.py::test_equals_an_independent_computation"],
    },
    "bad input": {
        "lists and frames are refused": ["test_bad_input.py::test_matrices_of_any_layout_and_kind_of_number"],
        "an unknown option is ignored": ["test_unknown_words_are_refused"],
        "an unknown output is ignored": ["test_unknown_words_are_refused"],
        "rows beyond the data are read": ["test_rows_are_those_of_the_data"],
        "rows far beyond the data crash": ["test_rows_are_those_of_the_data"],
        "no rows and a rank never return": ["test_bad_input.py::test_no_rows_no_symbols_one_row"],
        "no symbols never return": ["test_bad_input.py::test_no_rows_no_symbols_one_row"],
        "an output in the memory of an input": ["test_outputs_have_memory_of_their_own"],
        "an input that was not pushed is stale": [
            "test_bad_input.py::test_a_missing_input_names_itself",
            "test_live.py::test_what_a_stream_refuses",
        ],
        "an input pushed twice shifts the rows": ["test_live.py::test_a_second_push_replaces_the_first"],
        "an output can be pushed into": ["test_bad_input.py::test_what_a_stream_refuses"],
        "another universe, window, graph or bytes crash": [
            "test_snapshot_processes.py::test_both_sides_are_named",
            "test_snapshot_processes.py::test_no_bytes_do_harm",
        ],
        "a look-alike graph is taken": ["test_a_look_alike_is_refused"],
        "a truncated state": ["test_snapshot_processes.py::test_every_length_is_refused"],
        "minus one thread": ["test_executor.py::test_how_many_threads_there_can_be"],
        "only whole vectors of symbols": ["test_random_programs.py::test_a_thousand_programs"],
    },
    "bad graphs": {
        "two outputs of one rank": ["test_bad_graphs.py::test_unusual_outputs"],
        "a constant as output": ["test_bad_graphs.py::test_unusual_outputs"],
        "`if x > y` is silently true": ["test_bad_graphs.py::test_a_truth_of_a_node_is_refused"],
        "windows of 0, -3 and 2.5": ["test_bad_graphs.py::test_windows_that_cannot_be"],
        "names with blanks": ["test_bad_graphs.py::test_names_of_factors", "test_bad_graphs.py::test_names_of_fields"],
        "a delay of -1": ["test_table.py::test_calls_that_cannot_be_meant"],
        "a comparison as output": ["test_comparisons_are_numbers"],
        "numpy scalars as constants": ["test_graph.py::test_numpy_scalars_are_numbers_on_either_side"],
        "no unary minus, power, abs, ==": ["test_graph.py::test_every_operator_sign_builds_a_node"],
        "doubled inputs": ["test_graph.py::test_equal_expressions_are_one_node"],
        "doubled outputs, output named as input": ["test_bad_graphs.py::test_doubled_names"],
        "large and deep graphs": [
            "test_bad_graphs.py::test_ten_thousand_deep",
            "test_bad_graphs.py::test_ten_thousand_wide",
        ],
        "the same factors cannot be compiled twice": ["test_factors_compile_again"],
    },
    "running": {
        "the lock is held": ["test_signals.py::test_the_interpreter_is_free_while_a_program_runs"],
        "Ctrl-C is not heard": ["test_signals.py::test_ctrl_c_in_a_long_batch"],
        "every compilation starts afresh": ["../native/test_jit.py::test_code_is_translated_once"],
        "waiting threads are busy": ["test_executor.py::test_resting_threads_use_no_processor"],
        "history has to be pushed tick by tick": ["test_live.py::test_batches_and_ticks_mix"],
        "no change of universe": ["test_live.py::test_symbols_come_and_go"],
        "a state without header": ["test_snapshot.py::test_bytes_say_what_they_are"],
        "earlier rows do not warm up": ["test_earlier_rows_warm_up"],
        "nobody knows a program's inputs": ["test_a_program_knows_its_inputs"],
        "memory of the whole history": ["test_memory.py::test_a_batch_takes_no_more_memory_for_more_rows"],
    },
}


def test_every_fault_has_a_test():
    here, known = Path(__file__).parent, {}
    for group in FAULTS.values():
        for places in group.values():
            for place in places:
                file, _, name = place.rpartition("::")
                path = (here / file).resolve() if file else Path(__file__)
                if path not in known:
                    known[path] = {node.name for node in ast.parse(path.read_text()).body if hasattr(node, "name")}
                assert name == "*" or name in known[path], place


def run(outputs, engine=None, dtype="float64", **data):
    return f.compile(outputs, engine=engine, dtype=dtype).batch(
        {name: np.asarray(values, float).reshape(-1, 1) for name, values in data.items()}
    )


def column(out):
    return out[:, 0].tolist()


nan, inf = math.nan, math.inf


# ---- numbers ----


@BOTH
@DTYPES
def test_a_missing_row_leaves(engine, dtype):
    names = ("ts_mean", "ts_std", "ts_var", "ts_skew", "ts_kurt", "ts_sum", "ts_slope", "ts_rsquare", "ts_resid")
    outputs = {name: getattr(f, name)(x, 4 if name == "ts_kurt" else 3) for name in names}
    outputs |= {"cov": f.ts_cov(x, y, 3), "corr": f.ts_corr(x, y, 3)}
    values = [1, 2, 3, 4, nan, 6, 7, 8, 9, 10, 11]
    out = run(outputs, engine, dtype, x=values, y=np.arange(11.0) ** 2)
    np.testing.assert_array_equal(out["ts_mean"][:, 0], [nan, nan, 2, 3, nan, nan, nan, 7, 8, 9, 10])
    for name, got in out.items():
        first = 4 if name == "ts_kurt" else 3
        missing = [t < first - 1 or 4 <= t < 4 + first for t in range(11)]
        if name != "ts_skew":  # of rows in a line: 0, but for rounding
            assert np.isnan(got[:, 0]).tolist() == missing, name


@BOTH
@DTYPES
def test_an_infinity_leaves(engine, dtype):
    rng = np.random.default_rng(0)
    price, size = rng.normal(5, 1, 60), np.ones(60)
    size[20] = 0
    ratio = x / y
    names = (
        "ts_sum",
        "ts_mean",
        "ts_std",
        "ts_skew",
        "ts_kurt",
        "ts_slope",
        "ts_rsquare",
        "ts_resid",
        "ts_max",
        "ts_rank",
    )
    outputs = {name: getattr(f, name)(ratio, 10) for name in names}
    outputs |= {"cov": f.ts_cov(ratio, x, 10), "corr": f.ts_corr(x, ratio, 10), "ema": f.ema(ratio, 10)}
    got, want = run(outputs, engine, dtype, x=price, y=size), run(outputs, engine, dtype, x=price, y=np.ones(60))
    for name in outputs:
        if name != "ema":
            assert got[name][30:].tobytes() == want[name][30:].tobytes(), name
        assert np.isfinite(got[name][30:]).all(), name
    assert np.isnan(got["ema"][20, 0])
    assert np.isfinite(got["ema"][21:]).all()


@BOTH
def test_rewrites_keep_the_sign(engine):
    outputs = {"gt": x / y > 1, "lt": x / y < 1, "ge": x / y >= 1, "le": x / y <= 1}
    out = run(outputs, engine, x=[-2.0, 2, -1, 3], y=[-1.0, -1, -2, -3])
    assert column(out["gt"]) == [1, 0, 0, 0]
    assert column(out["lt"]) == [0, 1, 1, 1]
    assert column(out["ge"]) == [1, 0, 0, 0]
    assert column(out["le"]) == [0, 1, 1, 1]


@BOTH
def test_rewrites_keep_what_is_missing(engine):
    row = np.array([[-4.0, 1, 4, -1]])
    program = f.compile(
        {"log": f.rank(f.log(x)), "root": f.rank(f.sqrt(x)), "diff": f.log(x) - f.log(y)}, engine=engine
    )
    out = program.batch({"x": row, "y": row * 2})
    for name in ("log", "root"):
        np.testing.assert_array_equal(out[name], [[nan, 0.5, 1.0, nan]])
    assert np.isnan(out["diff"]).tolist() == [[True, False, False, True]]


@BOTH
def test_regressions_after_many_rows(engine):
    rng = np.random.default_rng(1)
    rows = 200_000 if engine == "llvm" else 30_000
    walk = (20 + np.sin(np.arange(rows) / 300) + rng.normal(0, 0.01, rows)).astype("float32")
    far = (1e4 + rng.normal(0, 1, rows)).astype("float32")
    outputs = {
        f"{name}_{kind}": getattr(f, name)(node, 20)
        for name in ("ts_slope", "ts_rsquare", "ts_resid")
        for kind, node in (("walk", x), ("far", y))
    }
    out = f.compile(outputs, engine=engine, dtype="float32").batch({"x": walk[:, None], "y": far[:, None]})
    at = np.arange(20) - 9.5
    for kind, series in (("walk", walk), ("far", far)):
        for row in (100, 10_000, rows - 1):
            w = series[row - 19 : row + 1].astype(float)
            slope = (at * (w - w.mean())).sum() / (at**2).sum()
            rsquare = slope**2 * (at**2).sum() / ((w - w.mean()) ** 2).sum()
            resid = w[-1] - w.mean() - slope * 9.5
            assert abs(out[f"ts_slope_{kind}"][row, 0] - slope) < 2e-6 * w.mean() / 20
            assert abs(out[f"ts_rsquare_{kind}"][row, 0] - rsquare) < 2e-3
            assert abs(out[f"ts_resid_{kind}"][row, 0] - resid) < 4e-7 * w.mean()


@BOTH
@DTYPES
def test_an_outlier_among_equal_rows(engine, dtype):
    values = np.ones(80)
    values[20] = 1e9
    outputs = {"mean": f.ts_mean(x, 10), "std": f.ts_std(x, 10), "var": f.ts_var(x, 10), "cov": f.ts_cov(x, y, 10)}
    out = run(outputs, engine, dtype, x=values, y=np.arange(80.0))
    assert column(out["mean"][30:]) == [1.0] * 50
    for name in ("std", "var", "cov"):
        assert column(out[name][30:]) == [0.0] * 50, name


@BOTH
def test_functions_are_exact(engine):
    exact = run(
        {"exp": f.exp(x), "log": f.log(y), "pow": f.pow(y, 1.2)}, engine, x=[89, -88, 700, 1], y=[1 + 1e-5, 3, 1e300, 2]
    )
    for got, want in zip(column(exact["exp"]), map(math.exp, (89, -88, 700, 1)), strict=True):
        assert abs(got - want) <= 2e-16 * want
    for got, want in zip(column(exact["log"]), map(math.log, (1 + 1e-5, 3, 1e300, 2)), strict=True):
        assert abs(got - want) <= 2.3e-16 * want
    for got, want in zip(column(exact["pow"])[:2], (math.pow(1 + 1e-5, 1.2), math.pow(3, 1.2)), strict=True):
        assert abs(got - want) <= 4.5e-16 * want
    near = np.array([1 + 1e-5, 1 + 1.2e-7, 0.99999], "float32")
    got = run({"log": f.log(x)}, engine, "float32", x=near)["log"][:, 0]
    np.testing.assert_array_equal(got, np.log(near.astype(float)).astype("float32"))
    got = run({"exp": f.exp(x)}, engine, "float32", x=[88, 89, -100])["exp"][:, 0]
    np.testing.assert_array_equal(got, np.array([math.exp(88), inf, math.exp(-100)], "float32"))


@BOTH
@pytest.mark.parametrize("n", [144, 400, 800])
def test_places_in_long_windows(engine, n):
    values = np.random.default_rng(n).normal(0, 1, (n + 120, 3)).round(1)
    program = f.compile({"low": f.ts_argmin(x, n), "high": f.ts_argmax(x, n)}, engine=engine)
    whole = program.batch({"x": values})
    live = program.stream(n=3)
    rows = [live.step(x=row) for row in values]
    windows = np.lib.stride_tricks.sliding_window_view(values, n, axis=0)
    for name, best in (("low", np.argmin), ("high", np.argmax)):
        np.testing.assert_array_equal(whole[name][n - 1 :], best(windows, axis=-1) + 1)
        assert np.stack([row[name] for row in rows]).tobytes() == whole[name].tobytes()


@BOTH
def test_an_own_operator_over_keys_from_a_later_row(engine):
    before = set(TABLE)
    try:

        @cross()
        def weighted_rest(m, x: f.Series, w: f.Series):
            """What x is above the row's sum of x w."""
            return x - m.row_sum(x * w)

        program = f.compile({"out": weighted_rest(x, y)}, engine=engine)
        rng = np.random.default_rng(0)
        data = {"x": rng.random((20, 9)), "y": rng.random((20, 9))}
        want = data["x"] - (data["x"] * data["y"]).sum(1, keepdims=True)
        np.testing.assert_allclose(program.batch(data)["out"], want, rtol=1e-13)
        later = program.batch({name: v[5:] for name, v in data.items()}, first=5)["out"]
        np.testing.assert_allclose(later, want[5:], rtol=1e-13)
        ones = f.compile({"out": weighted_rest(f.constant(1), y)}, engine=engine).batch(data)["out"]
        np.testing.assert_allclose(ones, np.broadcast_to(1 - data["y"].sum(1, keepdims=True), ones.shape), rtol=1e-13)
        live = program.stream(n=9)
        live.batch({name: v[:5] for name, v in data.items()})
        assert live.batch({name: v[5:] for name, v in data.items()})["out"].tobytes() == later.tobytes()
    finally:
        for name in set(TABLE) - before:
            del TABLE[name]


@BOTH
@DTYPES
def test_missing_operands(engine, dtype):
    outputs = {
        "max": f.max(x, y),
        "min": f.min(x, y),
        "clip": f.clip(x, -3, 3),
        "where": f.where(x > 0, 1, 2),
        "sign": f.sign(x),
        "sum": x + y,
        "filled": f.nan_to(f.finite(x / 0), 7),
    }
    out = run(outputs, engine, dtype, x=[nan, 3, 1], y=[3, nan, 2])
    for name in ("max", "min", "sum"):
        assert np.isnan(out[name][:, 0]).tolist() == [True, True, False], name
    for name in ("clip", "where", "sign"):
        assert np.isnan(out[name][:, 0]).tolist() == [True, False, False], name
    assert column(out["filled"]) == [7, 7, 7]


@BOTH
def test_regressions_wait_for_their_window(engine):
    outputs = {name: getattr(f, name)(x, 4) for name in ("ts_slope", "ts_rsquare", "ts_resid")}
    out = run(outputs, engine, x=[1, 2, 4, 3, nan, 1, 2, 3, 5])
    for name in outputs:
        assert np.isnan(out[name][:, 0]).tolist() == [True] * 3 + [False] + [True] * 4 + [False], name


def test_correlation_far_from_zero():
    rng = np.random.default_rng(0)
    target = 1000 + rng.normal(0, 1, (5, 300))
    factor = target + rng.normal(0, 0.2, target.shape)
    for dtype, allowed in (("float64", 1e-12), ("float32", 1e-4)):
        made = evaluate.ic(factor.astype(dtype), target.astype(dtype))["factor"]
        want = [np.corrcoef(a, b)[0, 1] for a, b in zip(factor, target, strict=True)]
        np.testing.assert_allclose(made, want, atol=allowed)
    factor[2, 7], target[3, 9] = nan, inf
    made = evaluate.ic(factor, target)["factor"]
    keep = np.arange(300) != 7
    np.testing.assert_allclose(made[2], np.corrcoef(factor[2, keep], target[2, keep])[0, 1], atol=1e-12)
    assert np.isfinite(made).all()


def test_aggregates_leave_out_what_is_missing():
    values = np.array([[1.0], [nan], [3], [5], [nan]])
    labels = np.array(["a", "a", "a", "b", "c"])
    out = evaluate.aggregate(values, labels, ["sum", "mean", "min", "max", "count", "first", "last"])
    assert out["factor_count"].tolist()[:2] == [2, 1]
    for name, want in (
        ("sum", [4, 5]),
        ("mean", [2, 5]),
        ("min", [1, 5]),
        ("max", [3, 5]),
        ("first", [1, 5]),
        ("last", [3, 5]),
    ):
        assert out[f"factor_{name}"].tolist()[:2] == want, name
    assert out["factor_count"].tolist()[2] == 0
    assert math.isnan(out["factor_sum"][2])


# ---- input ----


def test_unknown_words_are_refused():
    program = f.compile({"a": close + 1})
    for call in (
        lambda: f.compile({"a": close}, fast_stat=True),
        lambda: program.batch({"close": np.ones((1, 1))}, skip_check=True),
        lambda: program.stream(n=1, length=3),
    ):
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            call()
    live = program.stream(n=1)
    live.step(close=[1.0])
    with pytest.raises(FactorError, match="there is no input or output 'b'"):
        live.current("b")
    with pytest.raises(FactorError, match="there is no output 'b'; outputs are a"):
        program.explain("b")
    # Columns of the data that a program does not need are not looked at.
    assert program.batch({"close": np.ones((1, 1)), "b": "anything"})["a"].tolist() == [[2.0]]


@BOTH
def test_rows_are_those_of_the_data(engine):
    # There are no row numbers to get wrong: `first` only says where in its stream the data begin.
    program = f.compile({"a": f.ts_sum(close, 3), "b": f.rank(close)}, engine=engine)
    values = np.random.default_rng(0).random((7, 5))
    for first in (0, 5, 100, 10**12):
        out = program.batch({"close": values}, first=first)
        assert out["a"].shape == (7, 5)
        np.testing.assert_allclose(out["a"][2:], values[:-2] + values[1:-1] + values[2:], rtol=1e-14)


@BOTH
def test_outputs_have_memory_of_their_own(engine):
    program = f.compile({"a": close, "b": close, "c": f.ts_sum(close, 2)}, engine=engine)
    values = np.random.default_rng(0).random((7, 5))
    kept = values.copy()
    out = program.batch({"close": values})
    arrays = [values, *out.values()]
    assert not any(np.shares_memory(one, other) for i, one in enumerate(arrays) for other in arrays[:i])
    for block in out.values():
        block[:] = -1
    assert (values == kept).all()
    live = program.stream(n=5)
    row = values[0].copy()
    got = live.step(close=row)
    row[:] = 99  # what was pushed is a copy
    got["a"][:] = -1  # and so is what came out
    assert live.current("a").tolist() == kept[0].tolist()
    with pytest.raises(ValueError, match="read-only"):
        live.current("a")[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        live.block()[0] = 1


def test_a_look_alike_is_refused():
    live = f.compile({"e": f.ema(close, 5)}).stream(n=3)
    live.step(close=[1, 2, 3])
    with pytest.raises(
        FactorError, match=r"made for ts_ema\(close, span=5\), this program has ts_ema\(close, span=50\)"
    ):
        f.compile({"e": f.ema(close, 50)}).stream(state=live.snapshot())
    with pytest.raises(
        FactorError, match=r"made for ts_ema\(close, span=5\), this program has ts_ema\(volume, span=5\)"
    ):
        f.compile({"e": f.ema(volume, 5)}).stream(state=live.snapshot())


@BOTH
def test_comparisons_are_numbers(engine):
    out = run({"gt": x > y, "both": (x > 0) & (y > 0), "no": ~(x > y)}, engine, "float32", x=[1, 3, nan], y=[2, 2, 2])
    np.testing.assert_array_equal(out["gt"][:, 0], [0, 1, nan])
    np.testing.assert_array_equal(out["both"][:, 0], [1, 1, nan])
    np.testing.assert_array_equal(out["no"][:, 0], [1, 0, nan])


def test_factors_compile_again():
    factors = f.Factors(a=f.rank(close), b="ts_sum(close, 3)")
    values = {"close": np.random.default_rng(0).random((5, 4))}
    one = f.compile(factors).batch(values)
    for options in ({}, {"dtype": "float32"}, {"engine": "numpy"}, {"checked": True}):
        two = f.compile(factors, **options).batch(values)
        np.testing.assert_allclose(two["b"], one["b"], rtol=1e-6)


@BOTH
def test_earlier_rows_warm_up(engine):
    program = f.compile({"a": f.ts_sum(close, 3), "e": f.ema(close, 3)}, engine=engine)
    values = np.random.default_rng(0).random((9, 4))
    whole = program.batch({"close": values})
    live = program.stream(n=4)
    live.batch({"close": values[:5]})
    rest = live.batch({"close": values[5:]})
    assert np.isfinite(rest["a"]).all()
    assert all(rest[name].tobytes() == whole[name][5:].tobytes() for name in whole)


def test_a_program_knows_its_inputs():
    program = f.compile({"a": close / volume, "b": f.ts_sum(x, 4)}, dtype="float32")
    assert program.inputs == ("close", "volume", "x")
    assert program.outputs == ("a", "b")
    assert program.dtype == np.float32
    assert program.lookback == {"a": 0, "b": 3}
