"""Operators that are NumPy functions: the same bits however they are run, and failures that say where."""

from __future__ import annotations

import copy
import pickle
import signal
import threading

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from penstock import factor as f
from penstock.errors import FactorError
from penstock.factor.graph import digests
from penstock.factor.llvm.engine import LlvmEngine
from penstock.factor.table import TABLE

f.operators()
ENGINES = ("llvm", "numpy")
x, y, group = f.fields("x", "y", "group")
pytestmark = pytest.mark.usefixtures("own")


@pytest.fixture
def cs_decile_mean(own):
    @f.cross_numpy(aliases=("decile_mean",), nan="NaN where x or y is")
    def cs_decile_mean(x: f.Series, y: f.Series, *, parts: f.Rows = 10):
        """The mean of y over the keys of about the same x."""
        out = np.full_like(x, np.nan)
        there = np.flatnonzero(~(np.isnan(x) | np.isnan(y)))
        for part in np.array_split(there[np.argsort(x[there], kind="stable")], parts):
            out[part] = y[part].mean() if len(part) else np.nan
        return out

    return cs_decile_mean


def panel(rows, keys, dtype="float64", seed=0):
    rng = np.random.default_rng([rows, keys, seed])
    made = {name: rng.normal(0, 1, (rows, keys)).cumsum(0) + 9 for name in "xy"}
    for values in made.values():
        for value in (np.nan, np.inf, -np.inf, 0.0, -0.0):
            values[rng.random(values.shape) < 0.03] = value
    return {name: values.astype(dtype) for name, values in made.items()}


def same(got, want):
    for name in want:
        assert got[name].dtype == want[name].dtype
        assert got[name].tobytes() == want[name].tobytes(), name


def ticks(live, data, first, stop):
    rows = [live.step(**{name: values[t] for name, values in data.items()}) for t in range(first, stop)]
    return {name: np.array([row[name] for row in rows]).reshape(-1, len(live.symbols)) for name in live.program.outputs}


@pytest.mark.parametrize("keys", [1, 7, 16, 64, 500])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_bits_are_the_same_however_it_is_run(cs_decile_mean, monkeypatch, dtype, keys):
    monkeypatch.setattr(LlvmEngine, "SHARE", 1)  # or so few values wake no second thread
    rows = 40
    data = panel(rows, keys, dtype)
    inner = cs_decile_mean(f.ts_delta(x, 2), y)
    factors = {
        "plain": inner,
        "through": f.ts_mean(f.cs_rank(inner), 5),
        "twice": cs_decile_mean(inner, x, parts=3) - cs_decile_mean(x, 1.5),
    }
    code, definition = (f.compile(factors, dtype=dtype, engine=engine) for engine in ENGINES)
    live = code.stream(n=keys)
    whole, state = live.batch(data), live.snapshot()
    same(code.batch(data), whole)
    same(definition.batch(data), whole)
    same(ticks(code.stream(n=keys), data, 0, rows), whole)
    same(ticks(definition.stream(n=keys), data, 0, rows), whole)
    with f.Executor(threads=3) as crew:
        same(code.batch(data, executor=crew), whole)
        same(ticks(code.stream(n=keys, executor=crew), data, 0, rows), whole)
    first, second = 13, 29
    live = code.stream(n=keys)
    begun = live.batch({name: values[:first] for name, values in data.items()})
    live = definition.stream(state=live.snapshot())
    middle = ticks(live, data, first, second)
    live = pickle.loads(pickle.dumps(code.stream(state=live.snapshot())))
    live = copy.copy(live)
    end = live.batch({name: values[second:] for name, values in data.items()})
    same({name: np.concatenate([begun[name], middle[name], end[name]]) for name in whole}, whole)
    assert live.snapshot() == state


def test_values_are_those_of_the_function(cs_decile_mean):
    data = panel(30, 64)
    got = f.compile({"a": "decile_mean(x, y, 4)", "b": "cs_decile_mean(x, y, parts=4) * 2"}).batch(data)
    with np.errstate(invalid="ignore"):  # inf - inf
        want = np.stack([cs_decile_mean.step(*row, parts=4) for row in zip(data["x"], data["y"], strict=True)])
    np.testing.assert_array_equal(got["a"], want)
    np.testing.assert_array_equal(got["b"], want * 2)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_a_function_is_given(engine, dtype):
    seen = []

    @f.cross_numpy()
    def cs_spy(x: f.Series, c: f.Series, *, a: f.Number, b: f.Flag = True):
        """Looks at what it is given, and changes it."""
        for row in (x, c):
            assert type(row) is np.ndarray
            assert row.flags.c_contiguous
            assert row.flags.writeable
            assert not np.signbit(row[np.isnan(row)]).any()
        seen.append((x.shape, x.dtype.name, c.tolist(), a, b))
        x[:] = 5
        x /= np.zeros_like(x)  # warnings of NumPy's floats are off
        return c

    data = {"x": np.array([[1.0, np.nan, 3.0], [1.0, 2.0, -np.inf]], dtype)}
    node = x - x / 0 * 0  # NaN of either sign
    out = f.compile({"spy": cs_spy(node, 2, 0.5), "kept": node, "same": x + 0}, dtype=dtype, engine=engine).batch(data)
    assert seen == [((3,), dtype, [2.0, 2.0, 2.0], 0.5, True)] * 2
    assert (out["spy"] == 2).all()
    np.testing.assert_array_equal(out["same"], data["x"])


@pytest.mark.parametrize("engine", ENGINES)
def test_results_are_rounded_to_the_programs_dtype(engine):
    @f.cross_numpy()
    def cs_made(x: f.Series, *, kind: f.Rows):
        """Results of several kinds."""
        return [x > 2, np.arange(3), x.astype("f8") / 3, pd.Series(x * 1e39), np.longdouble(x)[::-1]][kind - 1]

    data = {"x": np.array([[1.0, 2.0, 3.0]], "f4")}
    program = f.compile({f"k{i}": cs_made(x, i) for i in range(1, 6)}, dtype="float32", engine=engine)
    out = {name: values[0].tolist() for name, values in program.batch(data).items()}
    third = np.float32([1 / 3, 2 / 3, 1]).tolist()
    assert out == {"k1": [0, 0, 1], "k2": [0, 1, 2], "k3": third, "k4": [np.inf] * 3, "k5": [3, 2, 1]}


def failing(make):
    """An operator that is `make(x)` where x begins with 13, else x."""

    @f.cross_numpy()
    def cs_bad(x: f.Series):
        """Fails at times."""
        return make(x) if x[0] == 13 else x


def unlucky(x):
    raise ZeroDivisionError("no luck")


def count(rows, keys, at):
    """Rows that begin with their number less `at` plus 13: a function fails at row `at`."""
    made = np.zeros((rows, keys))
    made[:, 0] = np.arange(rows) - at + 13
    return {"x": made}


BAD = [
    (unlucky, r"cs_bad raised ZeroDivisionError: no luck - in row 21 of factor 'mean'"),
    (lambda x: x[1:], r"expected an array of shape \(7,\) from cs_bad, got shape \(6,\) - in row 21 of factor 'mean'"),
    (lambda x: x[:, None], r"expected an array of shape \(7,\) from cs_bad, got shape \(7, 1\)"),
    (lambda x: x.sum(), r"got shape \(\) - in row 21 of factor 'mean'; one number for all is np.full_like\(x, number"),
    (lambda x: None, r"expected an array of shape \(7,\) from cs_bad, got NoneType"),
    (lambda x: x.tolist(), r"expected an array of shape \(7,\) from cs_bad, got list"),
    (lambda x: np.ma.masked_less(x, 0), r"got MaskedArray - in row 21 of factor 'mean'; return made.filled\(np.nan\)"),
    (lambda x: x + 0j, r"expected an array of shape \(7,\) from cs_bad, of real numbers, got dtype complex128"),
    (lambda x: x.astype(object), r"of real numbers, got dtype object"),
    (lambda x: x.astype("M8[s]"), r"of real numbers, got dtype datetime64\[s\]"),
    (lambda x: np.full(x.shape, "a"), r"of real numbers, got dtype <U1"),
]
IDS = ["raises", "short", "column", "number", "nothing", "list", "masked", "complex", "objects", "times", "texts"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("make, message", BAD, ids=IDS)
def test_what_fails_says_what_and_where(engine, make, message):
    failing(make)
    program = f.compile({"other": x * 2, "mean": "ts_mean(cs_bad(x), 3)"}, engine=engine)
    with pytest.raises(FactorError, match=message) as caught:
        program.batch(count(30, 7, 21))
    assert (caught.value.operator, caught.value.factor, caught.value.row) == ("cs_bad", "mean", 21)
    assert isinstance(caught.value.__cause__, ZeroDivisionError if make is unlucky else type(None))
    with pytest.raises(FactorError, match="in row 1021 of factor 'mean'"):
        program.batch(count(30, 7, 21), first=1000)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_stream_that_failed_goes_on_from_a_snapshot(engine):
    failing(unlucky)
    data = count(30, 7, 21)
    program = f.compile({"mean": "ts_mean(cs_bad(x), 3)"}, engine=engine)
    live = program.stream(n=7)
    ticks(live, data, 0, 21)
    state = live.snapshot()
    with pytest.raises(FactorError, match=r"no luck - in row 21 of factor 'mean'"):
        live.step(x=data["x"][21])
    for use in (
        lambda: live.step(x=data["x"][22]),
        live.snapshot,
        lambda: live.batch(data),
        lambda: live.add_symbols([9]),
    ):
        with pytest.raises(FactorError, match="tick 21 was begun and not finished: cs_bad failed in row 21; go on"):
            use()
    # The rest is as if the row had never been there.
    again = program.stream(state=state)
    got = ticks(again, data, 22, 30)
    want = program.batch({"x": np.delete(data["x"], 21, 0)})
    same(got, {"mean": want["mean"][21:]})

    live = program.stream(state=state)
    with pytest.raises(FactorError, match="no luck"):
        live.batch({"x": data["x"][20:]})
    with pytest.raises(FactorError, match="tick 21 was begun and not finished: cs_bad failed in row 22; go on"):
        live.step(x=data["x"][22])


def test_the_earliest_failure_is_told_in_every_engine_and_chunk(monkeypatch):
    monkeypatch.setattr(LlvmEngine, "SHARE", 1)

    @f.cross_numpy()
    def cs_first(x: f.Series):
        """Fails late."""
        if x[0] in (100, 90):
            raise ValueError("first")
        return x

    @f.cross_numpy()
    def cs_second(x: f.Series):
        """Comes after it, and fails early."""
        if x[0] in (70, 60, 90):
            raise ValueError("second")
        return x

    data = {"x": np.zeros((120, 64))}
    data["x"][:, 0] = np.arange(120)
    for outputs, message in (
        ({"a": cs_second(cs_first(x))}, "cs_second raised ValueError: second - in row 60 of factor 'a'"),
        ({"a": cs_second(cs_first(x - 30) + 30)}, "cs_second raised ValueError: second - in row 60 of factor 'a'"),
        ({"a": cs_first(x), "b": cs_second(x + 30)}, "cs_second raised ValueError: second - in row 30 of factor 'b'"),
        ({"b": cs_second(cs_first(x + 30))}, "cs_second raised ValueError: second - in row 30 of factor 'b'"),
        ({"b": cs_second(cs_first(x + 45) - 30)}, "cs_first raised ValueError: first - in row 45 of factor 'b'"),
        ({"b": cs_second(cs_first(x + 95) - 200)}, "cs_first raised ValueError: first - in row 5 of factor 'b'"),
    ):
        for engine in ENGINES:
            program = f.compile(outputs, engine=engine)
            with pytest.raises(FactorError) as caught:
                program.batch(data)
            assert str(caught.value) == message
            with pytest.raises(FactorError) as caught:
                ticks(program.stream(n=64), data, 0, 120)
            assert str(caught.value) == message
        with f.Executor(threads=3) as crew, pytest.raises(FactorError) as caught:
            f.compile(outputs, engine="llvm").batch(data, executor=crew)
        assert str(caught.value) == message


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_in_a_function(engine):
    calls = []

    def interrupt(x):
        calls.append(1)
        signal.raise_signal(signal.SIGINT)
        return x

    failing(interrupt)
    program = f.compile({"a": "cs_bad(x) + 1"}, engine=engine)
    data = count(4000, 3, 7)
    data["x"][7:, 0] = 13
    live = program.stream(n=3)
    with pytest.raises(KeyboardInterrupt):
        live.batch(data)
    assert len(calls) == 1  # the rows after it are not worth while
    with pytest.raises(FactorError, match="begun and not finished"):
        live.snapshot()
    with pytest.raises(KeyboardInterrupt):
        program.batch(data)


def test_streams_of_several_threads_at_once(cs_decile_mean):
    program = f.compile({"a": f.ts_mean(cs_decile_mean(x, y), 4)})
    data = [panel(60, 30, seed=seed) for seed in range(4)]
    want = [program.batch(one) for one in data]
    made = {}

    def work(i):
        made[i] = ticks(program.stream(n=30), data[i], 0, 60)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        same(made[i], want[i])


@pytest.mark.parametrize("engine", ENGINES)
def test_no_symbols_and_no_rows(engine):
    failing(unlucky)
    program = f.compile({"a": "cs_bad(x)"}, engine=engine)
    for shape in ((3, 0), (0, 3), (0, 0)):
        assert program.batch({"x": np.zeros(shape)})["a"].shape == shape


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_no_failure_of_the_function_is_raised_as_it_is(engine):
    def stop(x):
        raise SystemExit("enough")

    failing(stop)
    with pytest.raises(SystemExit, match="enough"):
        f.compile({"a": "cs_bad(x)"}, engine=engine).batch(count(30, 3, 7))


def test_names_may_have_letters_of_any_alphabet():
    @f.cross_numpy()
    def cs_größe(x: f.Series):
        """Itself."""
        return x

    @f.cross()
    def cs_länge(m, x: f.Series):
        """The share, in words whose registers stand on the left."""
        return 1.0 / m.row_sum(x) * x

    out = f.compile({"a": cs_größe(x), "b": "cs_länge(x)"}).batch({"x": np.ones((1, 4))})
    assert out["a"][0].tolist() == [1] * 4
    assert out["b"][0].tolist() == [0.25] * 4


def test_groups_may_be_texts():
    @f.cross_numpy()
    def cs_group_median(x: f.Series, group: f.Series):
        """The median of the keys with the same group."""
        out = np.full_like(x, np.nan)
        for label in np.unique(group[~np.isnan(group)]):
            mine = group == label
            out[mine] = np.nanmedian(x[mine])
        return out

    bars = pa.table(
        {
            "symbol": ["a", "b", "c", "d"],
            "ts_event": [1] * 4,
            "x": [1.0, 2.0, 4.0, 8.0],
            "group": ["tech", "oil", "tech", None],
        }
    )
    factors = {"m": cs_group_median(x, group), "n": f.cs_indneutralize(x, group)}
    out = f.compile(factors).batch(bars)
    assert np.isnan(out["m"][3].as_py())
    assert out["m"].to_pylist()[:3] == [2.5, 2.0, 2.5]
    assert out["n"].to_pylist()[:3] == [-1.5, 0.0, 1.5]


def test_a_new_version_takes_no_state_of_the_former():
    def define(version):
        TABLE.pop("cs_own", None)

        @f.cross_numpy(version=version)
        def cs_own(x: f.Series):
            """A row."""
            return x * version

        return f.compile({"a": f.ts_mean(cs_own(x), 3), "b": f.ts_mean(x, 2)})

    data = panel(9, 4)
    old = define(1)
    live = old.stream(n=4)
    live.batch(data)
    state = live.snapshot()
    assert define(1).digest == old.digest
    assert define(1).stream(state=state).cold == {}
    new = define(2)
    assert new.digest != old.digest
    assert new.stream(state=state).cold == {"a": 2}


def test_the_digest_names_operator_and_version(cs_decile_mean):
    node = cs_decile_mean(x, y)
    assert digests([node], lambda op: 1)[node] != digests([node], lambda op: 2 if op in TABLE else 1)[node]


def test_explain_shows_the_row(cs_decile_mean):
    data = panel(20, 5)
    program = f.compile({"a": f.ts_mean(cs_decile_mean(x, y, parts=2), 3)})
    assert "over keys: cs_decile_mean" in program.explain("a")
    reason = program.explain("a", data, symbol=3)
    assert reason.value == program.batch(data)["a"][-1, 3] or np.isnan(reason.value)
    assert "5 keys" in str(reason)
    failing(unlucky)
    program = f.compile({"mean": "ts_mean(cs_bad(x), 3) + 1"})
    with pytest.raises(FactorError, match="no luck - in row 4 of factor 'mean'") as caught:
        program.explain("mean", count(9, 2, 4), symbol=1)
    assert caught.value.factor == "mean"


def test_a_c_library_refuses_it(cs_decile_mean, tmp_path):
    message = r"operator 'cs_decile_mean' is a NumPy function, which a C library cannot call - in build; write it with f.cross"
    factors = {"a": f.ts_mean(cs_decile_mean(x, y), 3), "b": x * 2}
    for what in (factors, f.compile(factors)):
        with pytest.raises(FactorError, match=message):
            f.build(what, tmp_path / "libalpha.so")
    assert not list(tmp_path.iterdir())


def test_definitions_that_cannot_be():
    with pytest.raises(FactorError, match=r"operator nothing has no operand; annotate its rows: x: penstock"):

        @f.cross_numpy()
        def nothing(*, n: f.Rows):
            """Of nothing."""

    with pytest.raises(FactorError, match="expected Series, Rows, Share, Number or Flag"):

        @f.cross_numpy()
        def plain(x):
            """Not annotated."""

    with pytest.raises(FactorError, match="operator silent has no docstring"):

        @f.cross_numpy()
        def silent(x: f.Series):
            return x

    with pytest.raises(FactorError, match="there is an operator 'cs_rank' already"):

        @f.cross_numpy()
        def cs_rank(x: f.Series):
            """Taken."""
