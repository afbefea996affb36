"""A value does not depend on where history began, once its lookback is past: for every factor of the libraries."""

from __future__ import annotations

import numpy as np
import pytest

from penstock import factor as f
from penstock.factor.table import TABLE

f.operators()
LIBRARIES = ("alpha101", "alpha158", "alpha360", "ta")
LATER = (1, 7, 64, 131)


def bars(rows, symbols, dtype, seed=0):
    """Prices and volumes with holes, whole days missing and symbols that come late."""
    rng = np.random.default_rng(seed)
    close = 30 * np.exp(rng.normal(0, 0.02, (rows, symbols)).cumsum(0))
    open_ = close * rng.uniform(0.98, 1.02, close.shape)
    high = np.maximum(open_, close) * rng.uniform(1, 1.02, close.shape)
    low = np.minimum(open_, close) * rng.uniform(0.98, 1, close.shape)
    volume = rng.lognormal(10, 1, close.shape).round()
    volume[rng.random(close.shape) < 0.02] = 0
    panel = {"open": open_, "high": high, "low": low, "close": close, "volume": volume, "vwap": (high + low) / 2}
    panel["cap"] = close * 1e6
    gone = rng.random(close.shape) < 0.01
    gone[rows // 2] = True
    gone[: rows // 3, 0] = True
    panel = {name: np.where(gone, np.nan, x).astype(dtype) for name, x in panel.items()}
    for name, count in (("sector", 2), ("industry", 3), ("subindustry", 4)):
        panel[name] = np.broadcast_to(np.arange(symbols) % count, close.shape).astype(dtype)
    return panel


def differing(program, panel, later):
    """Outputs whose bits past their own lookback depend on the rows before row `later`."""
    data = {name: panel[name] for name in program.inputs}
    whole = program.batch(data)
    got = program.batch({name: x[later:] for name, x in data.items()}, first=later)
    found = {}
    for name in program.outputs:
        rows = program.lookback[name]
        if got[name][rows:].tobytes() != whole[name][later + rows :].tobytes():
            word = f"u{whole[name].itemsize}"
            other = got[name][rows:].view(word) != whole[name][later + rows :].view(word)
            found[name] = f"{other.sum()} cells, first at row {np.argwhere(other)[0][0]} of the lookback's {rows}"
    return found


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_every_factor_of_a_library(library, dtype):
    program = f.compile(f.library(library), dtype=dtype)
    panel = bars(program.warmup + max(LATER) + 60, 9, dtype)
    forgetful = set(program.outputs) - set(program.endless)
    assert len(forgetful) >= {"alpha101": 101, "alpha158": 158, "alpha360": 360, "ta": 10}[library]
    for later in LATER:
        found = differing(program, panel, later)
        assert not {name: text for name, text in found.items() if name in forgetful}, later


def test_an_endless_factor_does_depend_on_its_start():
    program = f.compile(f.library("ta"))
    panel = bars(program.warmup + 100, 4, "float64")
    found = differing(program, panel, 40)
    assert found
    assert set(found) <= set(program.endless)


@pytest.mark.parametrize("engine", ["llvm", "numpy"])
def test_without_the_ordinal_only_rounding_differs(engine):
    # The order of merges depends on a row's number; what is merged does not.
    close = f.field("close")
    names = ("ts_mean", "ts_std", "ts_slope", "ts_decay_linear", "ts_min", "ts_argmax", "ts_rank")
    program = f.compile({name: getattr(f, name)(close, 20) for name in names}, engine=engine)
    x = np.random.default_rng(0).normal(100, 1, (120, 5))
    whole = program.batch({"close": x})
    later = program.batch({"close": x[7:]})
    for name in names:
        np.testing.assert_allclose(later[name][19:], whole[name][26:], rtol=1e-11)
    for name in ("ts_min", "ts_argmax", "ts_rank"):
        assert later[name][19:].tobytes() == whole[name][26:].tobytes()


def calls(operator):
    for n in (1, 2, 4, 5, 9, 16):
        attrs = {p.name: {"Rows": n, "Share": 0.3, "Number": 2.0, "Flag": True}[p.kind] for p in operator.attributes}
        if all(attrs[p.name] >= (p.least or 0) for p in operator.attributes):
            yield attrs


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
def test_every_operator_alone_under_another_and_inside_where(dtype):
    nodes = f.fields("a", "b", "c")
    outputs = {}
    for name, operator in TABLE.items():
        for i, attrs in enumerate(calls(operator)):
            made = operator(*nodes[: len(operator.operands)], **attrs)
            outputs[f"{name}.{i}"] = made
            outputs[f"{name}.{i}.over"] = f.ts_sum(f.rank(f.ts_delay(made, 3)), 6)
            inner = operator(*[f.ts_mean(f.nan_to(x), 5) for x in nodes[: len(operator.operands)]], **attrs)
            outputs[f"{name}.{i}.under"] = inner
            # The condition is warm at once, each branch at a time of its own.
            outputs[f"{name}.{i}.where"] = f.where(nodes[0] > 0, made, f.ts_max(f.is_nan(inner), 4))
    program = f.compile(outputs, dtype=dtype)
    rng = np.random.default_rng(3)
    panel = {}
    for name in ("a", "b", "c"):
        x = rng.normal(0, 2, (program.warmup + 80, 5))
        for value in (np.nan, np.inf, -np.inf, 0.0, -0.0):
            x[rng.random(x.shape) < 0.03] = value
        panel[name] = x.astype(dtype)
    for later in (1, 13, 50):
        found = differing(program, panel, later)
        assert not {name: text for name, text in found.items() if name not in program.endless}, later


def test_a_lookback_is_no_larger_than_it_must_be():
    # One row less and the value shows what was before: for each operator over one plain series.
    x = np.random.default_rng(4).normal(5, 1, (60, 3))
    a = f.field("a")
    for name in ("ts_sum", "ts_mean", "ts_std", "ts_rank", "ts_min", "ts_slope", "ts_decay_linear", "ts_quantile"):
        attrs = {"q": 0.4} if name == "ts_quantile" else {}
        program = f.compile({"out": f.ts_delay(getattr(f, name)(a, 7, **attrs), 4)})
        assert program.warmup == 10
        want = program.batch({"a": x})["out"][40]
        for cut in (9, 10):
            changed = np.zeros(3, bool)
            for value in (1e6, -1e6):  # one of them is on the other side of what is ranked
                other = x.copy()
                other[: 40 - cut] = value
                changed |= program.batch({"a": other})["out"][40] != want
            assert changed.all() if cut == 9 else not changed.any(), (name, cut)
