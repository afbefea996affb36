"""Logarithm, exponential and power against 80-bit arithmetic, and at their edges against the standard's table."""

from __future__ import annotations

import numpy as np
import pytest

from penstock import factor as f
from penstock.factor.machine_numpy import NumpyMachine

LONG = np.longdouble


def spread(dtype, low, high, count=4000, seed=0):
    """Numbers of every order of size between two powers of two, and many near 1."""
    rng = np.random.default_rng(seed)
    with np.errstate(over="ignore", under="ignore"):
        made = np.exp2(rng.uniform(low, high, count).astype(LONG)).astype(dtype)
    return np.concatenate([made, 1 + rng.normal(0, 1e-3, count), rng.uniform(0.3, 3, count)]).astype(dtype)


def units(got, want):
    """The largest error in units of the last place."""
    with np.errstate(all="ignore"):
        rounded = want.astype(got.dtype)
        errors = np.abs(got.astype(LONG) - want) / np.spacing(np.abs(rounded)).astype(LONG)
    number = np.isfinite(rounded) & np.isfinite(got)
    assert (number | (got == rounded)).all()
    return float(errors[number].max())


LIMITS = {("float64", "log"): 0.8, ("float64", "exp"): 0.85, ("float64", "pow"): 1.3}


@pytest.mark.skipif(np.finfo(LONG).nmant < 63, reason="long double is float64 here")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_errors_are_as_stated(dtype):
    machine = NumpyMachine(np.dtype(dtype), 1)
    info = np.finfo(dtype)
    least, most = np.log2(info.smallest_subnormal.astype(LONG)), np.log2(info.max.astype(LONG))
    rng = np.random.default_rng(1)
    with np.errstate(all="ignore"):
        x = spread(dtype, float(least), float(most))
        x = x[np.isfinite(x) & (x > 0)]
        limit = LIMITS.get((dtype, "log"), 0.501)
        assert units(machine.log(x), np.log(x.astype(LONG))) < limit
        reach = float(most * np.log(LONG(2)))
        y = np.concatenate([rng.uniform(-reach * 1.05, reach, 6000), rng.normal(0, 1, 3000)]).astype(dtype)
        limit = LIMITS.get((dtype, "exp"), 0.501)
        assert units(machine.exp(y), np.exp(y.astype(LONG))) < limit
        # The reference's own error is its 64-bit logarithm times the exponent.
        power = (rng.uniform(-0.9, 0.9, x.size) * reach / np.log(x.astype(np.float64))).astype(dtype)
        good = np.isfinite(power)
        limit = LIMITS.get((dtype, "pow"), 0.501)
        want = np.power(x[good].astype(LONG), power[good].astype(LONG))
        assert units(machine.pow(x[good], power[good]), want) < limit


EDGES = [0.0, 1.0, 2.0, 0.5, 3.0, np.inf, 1e30, 2.5, 1e-30, 2.0**53 + 2, 2.0**24 + 1]


@pytest.mark.parametrize("engine", ["llvm", "numpy"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_powers_at_the_edges(engine, dtype):
    edges = np.array([sign * value for value in EDGES for sign in (1, -1)], dtype)
    edges = np.append(edges, [np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max, -np.finfo(dtype).max]).astype(
        dtype
    )
    x, y = (a.reshape(1, -1) for a in np.meshgrid(edges, edges))
    got = f.compile({"out": f.pow(*f.fields("x", "y"))}, dtype=dtype, engine=engine).batch({"x": x, "y": y})["out"]
    with np.errstate(all="ignore"):
        want = np.power(x.astype(LONG), y.astype(LONG)).astype(dtype)
        close = np.isclose(got, want, rtol=4 * np.finfo(dtype).eps, atol=0)
    assert (close | (np.isnan(got) & np.isnan(want))).all()
    assert (np.isnan(got) | (np.signbit(got) == np.signbit(want))).all()


@pytest.mark.parametrize("engine", ["llvm", "numpy"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_logarithms_and_exponentials_at_the_edges(engine, dtype):
    x = f.field("x")
    program = f.compile({"log": f.log(x), "exp": f.exp(x)}, dtype=dtype, engine=engine)
    nan, inf = np.nan, np.inf
    out = program.batch({"x": np.array([[0.0, -0.0, -1, inf, -inf, nan, 1, 1e4, -1e4]])})
    assert np.array_equal(out["log"][0, :7], [-inf, -inf, nan, inf, nan, nan, 0], equal_nan=True)
    assert np.array_equal(out["exp"][0, [0, 1, 3, 4, 5, 7, 8]], [1, 1, inf, 0, nan, inf, 0], equal_nan=True)
