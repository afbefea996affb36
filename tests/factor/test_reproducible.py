from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.factor.reproducible import group_sums, row_sums

numbers = st.floats(allow_nan=True, allow_infinity=False, width=64)


@settings(max_examples=150, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=40), st.randoms())
def test_any_order_gives_the_same_bits(values, random):
    shuffled = values[:]
    random.shuffle(shuffled)
    pads = [math.nan] * random.randrange(5)
    with np.errstate(all="ignore"):
        one, two = row_sums(np.array([values])), row_sums(np.array([shuffled + pads]))
    assert one.view("u8") == two.view("u8")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=40))
def test_error_is_far_below_the_largest_term(values):
    exact = math.fsum(values)
    got = float(row_sums(np.array([values]))[0, 0])
    largest = max(map(abs, values))
    assert abs(got - exact) <= np.spacing(abs(exact)) + largest * 2.0**-80


def test_large_tiny_infinite_and_absent_terms():
    big = np.finfo(float).max
    with np.errstate(all="ignore"):
        rows = row_sums(
            np.array(
                [
                    [big, big, -big],
                    [big, big, 0],
                    [5e-324, 5e-324, 1],
                    [5e-324, 5e-324, -5e-324],
                    [np.inf, 1, np.nan],
                    [-np.inf, 1, 1e300],
                    [np.inf, -np.inf, 1],
                    [np.nan, np.nan, np.nan],
                ]
            )
        )
    assert rows.reshape(-1).tolist()[:6] == [big, np.inf, 1.0, 5e-324, np.inf, -np.inf]
    assert np.isnan(rows[6, 0])
    assert rows[7, 0] == 0


def test_many_terms_are_still_exact():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, 4096) * 10.0 ** rng.integers(-6, 6, 4096)
    assert row_sums(x[None])[0, 0] == math.fsum(x)
    assert row_sums(np.ascontiguousarray(x[::-1])[None])[0, 0] == math.fsum(x)


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_rows_of_their_own(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, 300) * 10.0 ** rng.integers(-200, 200, 300)
    x[rng.random(300) < 0.1] = np.nan
    x[7], x[8] = np.inf, 1e308
    group = rng.integers(0, 9, 300)
    with np.errstate(all="ignore"):
        got = group_sums(x, group, 10)
        for label in range(10):
            mine = x[group == label]
            want = row_sums(mine[None])[0, 0] if len(mine) else 0.0
            assert got[label] == want or (np.isnan(got[label]) and np.isnan(want))
