"""One definition, every way of running it, the same bits: random programs over wild data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import factor as f
from penstock.factor.machine_numpy import NumpyEngine
from penstock.factor.table import TABLE, Kind

f.operators()
NAMES = sorted(TABLE)
ENDLESS = {"ts_ema"}
INPUTS = ("a", "b", "c")


@st.composite
def programs(draw, without=frozenset(), size=16):
    """A program of random operators on inputs, constants and each other."""
    nodes = [*f.fields(*INPUTS), f.constant(draw(st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 0.5, float("nan")])))]
    for _ in range(draw(st.integers(1, size))):
        operator = TABLE[draw(st.sampled_from([n for n in NAMES if n not in without]))]
        args = [draw(st.sampled_from(nodes)) for _ in operator.operands]
        attrs = {}
        for p in operator.attributes:
            low = int(p.least or 1)
            attrs[p.name] = {
                "Rows": draw(st.integers(low, low + 7)),
                "Share": draw(st.sampled_from([0.0, 0.1, 0.25, 0.5])),
                "Number": draw(st.sampled_from([1.0, -2.5])),
                "Flag": draw(st.booleans()),
            }[p.kind]
        nodes.append(operator(*args, **attrs))
    outputs = {f"out{i}": node for i, node in enumerate(nodes[-5:])}
    return f.compile(outputs, dtype=draw(st.sampled_from(["float64", "float32"])), checked=True)


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


@settings(max_examples=120, deadline=None)
@given(programs(), st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 19), st.data())
def test_batch_equals_stream_equals_any_split_equals_restored(program, seed, rows, keys, data):
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


@settings(max_examples=60, deadline=None)
@given(programs(), st.integers(0, 2**31), st.data())
def test_order_of_symbols_does_not_matter(program, seed, data):
    keys = data.draw(st.integers(2, 19))
    panel = wild(seed, 30, keys, program.dtype)
    order = np.array(data.draw(st.permutations(range(keys))))
    shuffled = program.batch({name: np.ascontiguousarray(x[:, order]) for name, x in panel.items()})
    assert_same(shuffled, {name: x[:, order] for name, x in program.batch(panel).items()})


@settings(max_examples=60, deadline=None)
@given(programs(), st.integers(0, 2**31))
def test_absent_symbols_do_not_matter(program, seed):
    # A universe with room for more: symbols without data change nothing for the others, but where NaN is made a number.
    if any(node.op in ("nan_to", "is_nan") for node in program.plan.nodes):
        return
    panel = wild(seed, 30, 6, program.dtype)
    padded = {name: np.concatenate([x, np.full((30, 5), np.nan, x.dtype)], axis=1) for name, x in panel.items()}
    if any(node.op == "const" for node in program.plan.nodes):
        return  # constants are present for every symbol
    assert_same({name: x[:, :6] for name, x in program.batch(padded).items()}, program.batch(panel))


@settings(max_examples=60, deadline=None)
@given(programs(without=ENDLESS), st.integers(0, 2**31), st.integers(1, 40))
def test_a_later_start_gives_the_same_bits_once_warm(program, seed, first):
    rows = first + program.warmup + 10
    panel = wild(seed, rows, 5, program.dtype)
    whole = program.batch(panel)
    later = program.batch(part(panel, first, rows), first=first)
    warm = program.warmup
    assert_same(part(later, warm, None), part(whole, first + warm, None))


@settings(max_examples=60, deadline=None)
@given(programs(without=ENDLESS), st.integers(0, 2**31), st.sampled_from([np.nan, np.inf, 1e300]))
def test_a_bad_value_leaves_with_its_row(program, seed, value):
    rows = program.warmup + 20
    panel = wild(seed, rows, 4, program.dtype)
    spoiled = {name: x.copy() for name, x in panel.items()}
    with np.errstate(over="ignore"):
        spoiled["a"][5] = np.array(value).astype(program.dtype)
    after = 5 + program.warmup + 1
    assert_same(part(program.batch(spoiled), after, None), part(program.batch(panel), after, None))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("keys", [1, 19])
def test_bits_do_not_depend_on_the_chunk(monkeypatch, dtype, keys):
    nodes = f.fields(*INPUTS)
    outputs = {}
    for operator in TABLE.values():
        for n in (3, 7, 40):
            attrs = {
                p.name: {"Rows": n, "Share": 0.3, "Number": 2.0, "Flag": True}[p.kind] for p in operator.attributes
            }
            if all(attrs[p.name] >= (p.least or 0) for p in operator.attributes):
                outputs[f"{operator.name}_{n}"] = operator(*nodes[: len(operator.operands)], **attrs)
    program = f.compile(outputs, dtype=dtype)
    panel = wild(9, 130, keys, dtype)
    whole = program.batch(panel)
    for chunk in (0, 45 * keys, 81 * keys):
        monkeypatch.setattr(NumpyEngine, "CHUNK", chunk)
        assert_same(program.batch(panel), whole, f"chunk {chunk}")
    assert_same(ticks(program.stream(n=keys), panel, 0, 130), whole, "row by row")


@pytest.mark.parametrize("name", ["log", "exp", "pow"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_functions_do_not_depend_on_neighbours(name, dtype):
    # Libraries switch loops with length and alignment; a step must not notice.
    operator = TABLE[name]
    program = f.compile({"out": operator(*f.fields(*INPUTS[: len(operator.operands)]))}, dtype=dtype)
    x = np.abs(wild(4, 40, 67, dtype)["a"])
    panel = {"a": x, "b": x[::-1].copy()}
    whole = program.batch(panel)["out"]
    for first, stop in ((0, 1), (3, 12), (1, 66), (5, 67), (66, 67)):
        cut = program.batch({k: v[:, first:stop] for k, v in panel.items()})["out"]
        assert_same({"out": cut}, {"out": whole[:, first:stop]})


def test_every_kind_is_in_the_fuzz():
    assert {TABLE[name].kind for name in NAMES} == set(Kind) - {Kind.SOURCE}
