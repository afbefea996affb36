"""One definition, every way of running it, the same bits: random programs over wild data."""

from __future__ import annotations

import platform
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from penstock import factor as f
from penstock.factor.llvm.engine import LlvmEngine
from penstock.factor.machine_numpy import NumpyEngine
from penstock.factor.table import TABLE, Kind
from penstock.native import jit

f.operators()
NAMES = sorted(TABLE)
ENDLESS = {"ts_cumsum", "ts_ema"}
INPUTS = ("a", "b", "c")


@st.composite
def programs(draw, without=frozenset(), size=16):
    """A program of random operators on inputs, constants and each other, as a function of the engine."""
    nodes = [*f.fields(*INPUTS), f.constant(draw(st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 0.5, float("nan")])))]
    for _ in range(draw(st.integers(1, size))):
        operator = TABLE[draw(st.sampled_from([n for n in NAMES if n not in without]))]
        args = [draw(st.sampled_from(nodes)) for _ in operator.operands]
        attrs = {}
        for p in operator.attributes:
            low = int(p.least or 1)
            attrs[p.name] = {
                "Rows": draw(st.integers(low, low + 7) | st.just(50)),
                "Share": draw(st.sampled_from([0.0, 0.1, 0.25, 0.5])),
                "Number": draw(st.sampled_from([1.0, -2.5])),
                "Flag": draw(st.booleans()),
            }[p.kind]
        nodes.append(operator(*args, **attrs))
    outputs = {f"out{i}": node for i, node in enumerate(nodes[-5:])}
    dtype = draw(st.sampled_from(["float64", "float32"]))
    return partial(f.compile, outputs, dtype=dtype, checked=True)


def wild(seed, rows, keys, dtype="float64"):
    """Inputs with holes, both zeros, infinities, denormals, ties, signs and constant stretches."""
    rng = np.random.default_rng(seed)
    made = {}
    for name in INPUTS:
        x = rng.normal(0, 1, (rows, keys)).cumsum(0) + 5
        x = np.where(rng.random(x.shape) < 0.2, np.round(x), x)
        x[rows // 3 : rows // 2] = x[rows // 3]
        specials = (0.0, -0.0, np.nan, np.inf, -np.inf, np.finfo(dtype).smallest_subnormal, 1e30, -1e-30)
        for value in specials:
            x[rng.random(x.shape) < 0.02] = value
        made[name] = x.astype(dtype)
    return made


def words(outputs):
    return {name: np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}") for name, x in outputs.items()}


def assert_same(got, want, note=""):
    got, want = words(got), words(want)
    for name in want:
        assert got[name].shape == want[name].shape
        differ = np.argwhere(got[name] != want[name])
        assert not len(differ), f"{note} {name} at {differ[0]}: {len(differ)} cells"


def ticks(live, data, first, stop):
    rows = [live.step(**{name: x[t] for name, x in data.items()}) for t in range(first, stop)]
    if not rows:
        return {name: np.empty((0, len(live.symbols)), live.program.dtype) for name in live.program.outputs}
    return {name: np.stack([row[name] for row in rows]) for name in live.program.outputs}


def glue(*parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def part(data, first, stop):
    return {name: x[first:stop] for name, x in data.items()}


BOTH = pytest.mark.parametrize("engine", ["llvm", "numpy"])


@settings(max_examples=60, deadline=None)
@given(programs(), st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 19), st.data())
def test_compiled_code_equals_the_definition(build, seed, rows, keys, data):
    code, definition = build(engine="llvm"), build(engine="numpy")
    panel = wild(seed, rows, keys, code.dtype)
    assert_same(code.batch(panel), definition.batch(panel))

    # Outputs and state: each goes on from what the other has kept.
    cut = data.draw(st.integers(0, rows), label="cut")
    live, other = code.stream(n=keys), definition.stream(n=keys)
    live.batch(part(panel, 0, cut))
    other.batch(part(panel, 0, cut))
    assert live.snapshot() == other.snapshot()
    live, other = code.stream(state=other.snapshot()), definition.stream(state=live.snapshot())
    assert_same(ticks(live, panel, cut, rows), other.batch(part(panel, cut, rows)))
    assert live.snapshot() == other.snapshot()


@BOTH
@settings(max_examples=60, deadline=None)
@given(programs(), st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 19), st.data())
def test_batch_equals_stream_equals_any_split_equals_restored(engine, build, seed, rows, keys, data):
    program = build(engine=engine)
    panel = wild(seed, rows, keys, program.dtype)
    whole = program.batch(panel)
    assert_same(ticks(program.stream(n=keys), panel, 0, rows), whole, "row by row")

    first = data.draw(st.integers(0, rows), label="first cut")
    second = data.draw(st.integers(first, rows), label="second cut")
    live = program.stream(n=keys)
    begin = live.batch(part(panel, 0, first))
    state = live.snapshot()
    restored = program.stream(state=state)
    middle = ticks(restored, panel, first, second)
    end = restored.batch(part(panel, second, rows))
    assert_same(glue(begin, middle, end), whole, "batch, snapshot, ticks, batch")

    # The state itself is the same value however it was reached.
    live.batch(part(panel, first, rows))
    assert live.snapshot() == restored.snapshot()


@BOTH
@settings(max_examples=30, deadline=None)
@given(programs(), st.integers(0, 2**31), st.data())
def test_order_of_symbols_does_not_matter(engine, build, seed, data):
    program = build(engine=engine)
    keys = data.draw(st.integers(2, 19))
    panel = wild(seed, 30, keys, program.dtype)
    order = np.array(data.draw(st.permutations(range(keys))))
    shuffled = program.batch({name: np.ascontiguousarray(x[:, order]) for name, x in panel.items()})
    assert_same(shuffled, {name: x[:, order] for name, x in program.batch(panel).items()})


@BOTH
@settings(max_examples=30, deadline=None)
@given(programs(), st.integers(0, 2**31))
def test_absent_symbols_do_not_matter(engine, build, seed):
    program = build(engine=engine)
    # A universe with room for more: symbols without data change nothing for the others, but where NaN is made a number.
    if any(node.op in ("nan_to", "is_nan") for node in program.plan.nodes):
        return
    panel = wild(seed, 30, 6, program.dtype)
    padded = {name: np.concatenate([x, np.full((30, 5), np.nan, x.dtype)], axis=1) for name, x in panel.items()}
    if any(node.op == "const" for node in program.plan.nodes):
        return  # constants are present for every symbol
    assert_same({name: x[:, :6] for name, x in program.batch(padded).items()}, program.batch(panel))


@BOTH
@settings(max_examples=30, deadline=None)
@given(programs(without=ENDLESS), st.integers(0, 2**31), st.integers(1, 40))
def test_a_later_start_gives_the_same_bits_once_warm(engine, build, seed, first):
    program = build(engine=engine)
    assume(not program.endless)
    rows = first + program.warmup + 10
    panel = wild(seed, rows, 5, program.dtype)
    whole = program.batch(panel)
    later = program.batch(part(panel, first, rows), first=first)
    warm = program.warmup
    assert_same(part(later, warm, None), part(whole, first + warm, None))


@BOTH
@settings(max_examples=30, deadline=None)
@given(programs(without=ENDLESS), st.integers(0, 2**31), st.sampled_from([np.nan, np.inf, 1e300]))
def test_a_bad_value_leaves_with_its_row(engine, build, seed, value):
    program = build(engine=engine)
    assume(not program.endless)
    rows = program.warmup + 20
    panel = wild(seed, rows, 4, program.dtype)
    spoiled = {name: x.copy() for name, x in panel.items()}
    with np.errstate(over="ignore"):
        spoiled["a"][5] = np.array(value).astype(program.dtype)
    after = 5 + program.warmup + 1
    assert_same(part(program.batch(spoiled), after, None), part(program.batch(panel), after, None))


def everything(lengths):
    """Every operator of the table, with windows of each length."""
    nodes = f.fields(*INPUTS)
    outputs = {}
    for operator in TABLE.values():
        for n in lengths:
            attrs = {
                p.name: {"Rows": n, "Share": 0.3, "Number": 2.0, "Flag": True}[p.kind] for p in operator.attributes
            }
            if all(attrs[p.name] >= (p.least or 0) for p in operator.attributes):
                outputs[f"{operator.name}_{n}"] = operator(*nodes[: len(operator.operands)], **attrs)
    return outputs


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("keys", [1, 19])
def test_bits_do_not_depend_on_the_chunk(monkeypatch, dtype, keys):
    outputs = everything((3, 7, 50))
    program = f.compile(outputs, dtype=dtype, engine="numpy")
    panel = wild(9, 130, keys, dtype)
    whole = program.batch(panel)
    for chunk in (0, 45 * keys, 81 * keys):
        monkeypatch.setattr(NumpyEngine, "CHUNK", chunk)
        assert_same(program.batch(panel), whole, f"chunk {chunk}")
    assert_same(ticks(program.stream(n=keys), panel, 0, 130), whole, "row by row")

    code = f.compile(outputs, dtype=dtype, engine="llvm")
    for rows in (128, 1, 37):
        monkeypatch.setattr(LlvmEngine, "ROWS", rows)
        assert_same(code.batch(panel), whole, f"compiled, chunk {rows}")
    assert_same(ticks(code.stream(n=keys), panel, 0, 130), whole, "compiled, row by row")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("keys", [16, 200, 300, 1700])
def test_wide_rows_are_ranked_and_summed_alike(dtype, keys):
    # Each number of keys takes another way through the sort.
    names = [name for name in TABLE if name.startswith("cs_")]
    nodes = f.fields(*INPUTS)
    calls = {"cs_quantile": {"q": 0.3}, "cs_scale": {"a": 2.0}, "cs_winsorize": {"q": 0.1}, "cs_bucket": {"n": 7}}
    outputs = {n: TABLE[n](*nodes[: len(TABLE[n].operands)], **calls.get(n, {})) for n in names}
    panel = wild(3, 6, keys, dtype)
    panel["a"][1] = np.nan
    panel["a"][2] = 1.0
    panel["a"][3] *= np.finfo(dtype).tiny
    panel["a"][4] = np.clip(panel["a"][4], -4, 4) * (np.finfo(dtype).max / 8)
    panel["b"][:5] = np.round(panel["b"][:5])
    code, definition = (f.compile(outputs, dtype=dtype, engine=engine) for engine in ("llvm", "numpy"))
    assert_same(code.batch(panel), definition.batch(panel))


def test_many_tiles_and_long_functions():
    # More key blocks than a tile, more instructions than a function, and planes that are used again.
    rng = np.random.default_rng(8)
    a, b, c = nodes = f.fields(*INPUTS)
    alpha = {}
    for i in range(60):
        x, y = (nodes[k] for k in rng.integers(0, 3, 2))
        n = int(rng.integers(2, 30))
        alpha[f"alpha{i}"] = (
            f.ts_corr(x, f.ts_mean(y, n), n) - f.ts_rank(x * y, 4) + (f.rank(x) if i % 3 else f.ts_std(c, n))
        )
    alpha["over"] = f.rank(f.rank(a) + f.ts_sum(f.rank(b), 5))
    panel = wild(4, 140, 300, "float32")
    code, definition = (f.compile(alpha, dtype="float32", engine=engine) for engine in ("llvm", "numpy"))
    assert_same(code.batch(panel), definition.batch(panel))
    series = {name: node for name, node in alpha.items() if name != "over"}
    series = {name: f.ts_rank(f.ts_max(node.args[0], 9), 5) for name, node in series.items()}
    code, definition = (f.compile(series, dtype="float32", engine=engine) for engine in ("llvm", "numpy"))
    assert_same(code.batch(panel), definition.batch(panel))


@BOTH
@pytest.mark.parametrize("name", ["log", "exp", "pow"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_functions_do_not_depend_on_neighbours(engine, name, dtype):
    # Libraries switch loops with length and alignment; a step must not notice.
    operator = TABLE[name]
    program = f.compile({"out": operator(*f.fields(*INPUTS[: len(operator.operands)]))}, dtype=dtype, engine=engine)
    x = np.abs(wild(4, 40, 67, dtype)["a"])
    panel = {"a": x, "b": x[::-1].copy()}
    whole = program.batch(panel)["out"]
    for first, stop in ((0, 1), (3, 12), (1, 66), (5, 67), (66, 67)):
        cut = program.batch({k: v[:, first:stop] for k, v in panel.items()})["out"]
        assert_same({"out": cut}, {"out": whole[:, first:stop]})


def test_every_kind_is_in_the_fuzz():
    assert {TABLE[name].kind for name in NAMES} == set(Kind) - {Kind.SOURCE}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("keys", [250, 2000])
def test_ranks_of_rows_that_are_hard_to_sort(dtype, keys):
    # Of a float64 the upper bits are sorted by, and few that agree in them put right; here many do.
    rng = np.random.default_rng(6)
    near = 1 + rng.integers(-9, 9, keys) * np.finfo(dtype).eps
    rows = [
        near,
        np.where(rng.random(keys) < 0.01, 1e30, near),
        np.where(rng.random(keys) < 0.5, -near, near),
        np.where(rng.random(keys) < 0.9, 0.0, rng.normal(0, 1, keys)),
        np.where(rng.random(keys) < 0.5, -0.0, 0.0),
        rng.integers(0, 3, keys) * np.finfo(dtype).smallest_subnormal,
        np.where(rng.random(keys) < 0.9, np.nan, near),
        np.where(rng.random(keys) < 0.3, np.inf, np.where(rng.random(keys) < 0.3, -np.inf, near)),
        np.full(keys, -np.inf),
        np.sort(rng.standard_cauchy(keys))[::-1],
    ]
    a = f.field("a")
    outputs = {"order": TABLE["cs_order"](a), "low": TABLE["cs_quantile"](a, 0.1), "high": TABLE["cs_quantile"](a, 0.9)}
    code, definition = (f.compile(outputs, dtype=dtype, engine=engine) for engine in ("llvm", "numpy"))
    panel = {"a": np.array(rows).astype(dtype)}
    assert_same(code.batch(panel), definition.batch(panel))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the processors of another family")
@pytest.mark.parametrize("cpu", ["x86-64", "x86-64-v3"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_bits_do_not_depend_on_the_processor(monkeypatch, cpu, dtype):
    # Without and with AVX2; the machine at hand, which may have AVX-512, is what all other tests use.
    target, triple, _, _ = jit._target()
    monkeypatch.setattr(jit, "_target", lambda: (target, triple, cpu, ""))
    outputs = everything((3, 7))
    panel = wild(11, 40, 19, dtype)
    code, definition = (f.compile(outputs, dtype=dtype, engine=engine) for engine in ("llvm", "numpy"))
    assert_same(code.batch(panel), definition.batch(panel))
