"""A million rows: errors are those of the window, not of the history, and what was bad leaves with its row."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

from penstock import factor as f
from penstock.factor.table import TABLE, Kind

f.operators()
ROWS = 1_000_000
CHUNK = 1 << 16
LENGTH = 20
ENDLESS = {"ts_ema", "ts_cumsum"}
ALONG_TIME = sorted(name for name, op in TABLE.items() if name.startswith("ts_"))
WINDOWED = [name for name in ALONG_TIME if name not in ENDLESS]


def independent():
    """The two-pass computations of test_operators.py."""
    place = Path(__file__).with_name("test_operators.py")
    spec = importlib.util.spec_from_file_location("operators_reference", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def attributes(operator, n):
    kinds = {"Rows": n, "Share": 0.3, "Number": 2.0, "Flag": True}
    return {
        p.name: max(kinds[p.kind], p.least or 0) if p.kind == "Rows" else kinds[p.kind] for p in operator.attributes
    }


def test_all_operators_along_time_are_here():
    assert {name for name, op in TABLE.items() if op.kind is Kind.WINDOWED} <= set(ALONG_TIME)


def walk(dtype, level, rows=ROWS):
    """Three prices around `level`, each of which comes back to it, with ties."""
    rng = np.random.default_rng([int(level), dtype == "float32"])
    panel = {}
    for name in "abc":
        steps = rng.normal(0, 0.01, (rows, 2))
        x = np.empty_like(steps)
        value = np.zeros(2)
        for first in range(0, rows, 1000):  # a walk that is pulled back every thousand rows
            part = steps[first : first + 1000].cumsum(0) + value
            x[first : first + 1000] = part
            value = part[-1] * 0.5
        panel[name] = (level * np.exp(x)).round(4 if level < 1e3 else 1).astype(dtype)
    return panel


@pytest.mark.slow
@pytest.mark.parametrize("level", [20.0, 1e5])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_million_rows_do_not_drift(dtype, level):
    reference = independent()
    names = [name for name in WINDOWED if name != "ts_product" or level < 1e3]
    nodes = f.fields(*"abc")
    attrs = {name: attributes(TABLE[name], LENGTH) for name in names}
    program = f.compile({n: TABLE[n](*nodes[: len(TABLE[n].operands)], **attrs[n]) for n in names}, dtype=dtype)
    panel = walk(dtype, level)
    if "ts_product" in names:
        panel["a"] = (panel["a"] / dtype_of(dtype)(level)).astype(dtype)  # or twenty prices would leave the range
    live = program.stream(n=2)
    kept = []
    for first in range(0, ROWS, CHUNK):
        stop = min(ROWS, first + CHUNK)
        out = live.batch({name: panel[name][first:stop] for name in program.inputs})
        # The last rows of each stretch: from row 65,536 to the millionth.
        kept.append((stop, {name: x[-50:].copy() for name, x in out.items()}))
    assert kept[-1][0] == live.ordinal == ROWS
    for name in names:
        operator = TABLE[name]
        for stop, got in kept:
            xs = [panel[letter][stop - 120 : stop].astype(np.float64) for letter in "abc"[: len(operator.operands)]]
            with np.errstate(all="ignore"):
                want = np.asarray(reference.REFERENCE[name](*xs, **attrs[name]))[-50:]
                scale = np.broadcast_to(reference.reach(operator, xs, attrs[name]), xs[0].shape)[-50:]
            problem = reference.close(got[name], want, scale, operator, dtype)
            assert problem is None, f"{name} before row {stop}: {problem}"


def dtype_of(name):
    return np.dtype(name).type


@pytest.mark.slow
def test_what_never_forgets_after_a_million_rows():
    x = walk("float64", 20.0)["a"]
    x[123_456, 0], x[234_567, 1] = np.nan, np.inf
    a = f.field("a")
    out = f.compile({"e": f.ts_ema(a, 20), "c": f.ts_cumsum(a)}).batch({"a": x})
    tail = x[-3000:]  # (1 - 2 / 21) ** 3000 is 1e-130
    want = tail[0].copy()
    for row in tail[1:]:
        want += (row - want) * (2 / 21)
    np.testing.assert_allclose(out["e"][-1], want, rtol=1e-14)
    for key in (0, 1):
        exact = math.fsum(x[np.isfinite(x[:, key]), key])
        assert abs(out["c"][-1, key] - exact) <= 1e-11 * exact


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, -1e38, 5e-324], ids=str)
def test_a_bad_row_leaves_no_trace(value, dtype):
    rng = np.random.default_rng(7)
    nodes = f.fields(*"abc")
    outputs = {}
    for n in (1, 3, 4, 5, 20, 63):
        for name in WINDOWED:
            operator = TABLE[name]
            outputs[f"{name}_{n}"] = operator(*nodes[: len(operator.operands)], **attributes(operator, n))
    panel = {letter: rng.normal(100, 1, (220, 3)).astype(dtype) for letter in "abc"}
    spoiled = {name: x.copy() for name, x in panel.items()}
    with np.errstate(over="ignore", under="ignore"):
        bad = np.array(value).astype(dtype)
    spoiled["a"][70], spoiled["b"][71, 0], spoiled["c"][72, 1:] = bad, bad, bad
    program = f.compile(outputs, dtype=dtype)
    good, got = program.batch(panel), program.batch(spoiled)
    for name in outputs:
        after = 73 + program.lookback[name]
        assert good[name][after:].tobytes() == got[name][after:].tobytes(), name
        assert good[name][:70].tobytes() == got[name][:70].tobytes(), name


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_what_never_forgets_leaves_a_bad_row_out(value):
    x = np.random.default_rng(8).normal(5, 1, (60, 1))
    spoiled = x.copy()
    spoiled[20] = value
    program = f.compile({"e": f.ts_ema(f.field("a"), 5), "c": f.ts_cumsum(f.field("a"))})
    got, want = program.batch({"a": spoiled}), program.batch({"a": np.delete(x, 20, 0)})
    for name in program.outputs:
        assert np.isnan(got[name][20]).all()
        assert np.delete(got[name], 20, 0).tobytes() == want[name].tobytes()


@pytest.mark.parametrize("engine", ["llvm", "numpy"])
@pytest.mark.parametrize("rounds", [1, 1000, 800_000_000])
def test_late_rows_are_as_exact_as_early_ones(engine, rounds):
    # Where a ring is depends on the row's number modulo the window; these numbers are multiples of all of them.
    nodes = f.fields(*"abc")
    outputs = {}
    for n in (2, 3, 5, 7, 8, 13, 24):
        for name in ALONG_TIME:
            operator = TABLE[name]
            kinds = attributes(operator, max(n, 4))
            outputs[f"{name}_{n}"] = operator(*nodes[: len(operator.operands)], **kinds)
    program = f.compile(outputs, engine=engine)
    panel = {letter: np.random.default_rng(9).normal(5, 1, (60, 2)) for letter in "abc"}
    first = math.lcm(*range(2, 25)) * rounds
    whole, late = program.batch(panel), program.batch(panel, first=first)
    for name in outputs:
        assert whole[name].tobytes() == late[name].tobytes(), name
    live = program.stream(n=2, first=first)
    live.batch({name: x[:31] for name, x in panel.items()})
    live = program.stream(state=live.snapshot())
    for t in range(31, 60):
        row = live.step(**{name: x[t] for name, x in panel.items()})
    assert all(row[name].tobytes() == whole[name][-1].tobytes() for name in outputs)
