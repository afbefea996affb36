"""A user's operators are tried before they are compiled: what cannot be meant is told by name, in both engines."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from penstock import factor as f
from penstock.errors import FactorError
from penstock.factor.table import ALIASES, TABLE

close = f.field("close")
PANEL = {"close": np.random.default_rng(3).uniform(1, 2, (20, 5))}
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _table():
    before, aliases = set(TABLE), set(ALIASES)
    yield
    for name in set(TABLE) - before:
        del TABLE[name]
    for name in set(ALIASES) - aliases:
        del ALIASES[name]


def along(lift, combine, *, parts=1, out=lambda m, summary: summary[0], over=lambda m, x: x, rows=0):
    """An operator over a window of n rows."""
    monoid = f.Monoid("own", parts, lift, combine)

    def step(m, s, x: f.Series, *, n: f.Rows):
        """A window."""
        return out(m, m.window(s, monoid, n + rows, over(m, x)))

    step.__name__ = f"own_{next(_numbers)}"
    return f.windowed(state=f.window_state(monoid), lookback=lambda n: n - 1)(step)


def alone(step):
    """An operator on one row and key."""

    def own(m, x: f.Series):
        """A value."""
        return step(m, x)

    own.__name__ = f"own_{next(_numbers)}"
    return f.elementwise()(own)


def stateful(state, lookback, step):
    def own(m, s, x: f.Series, *, n: f.Rows):
        """A value."""
        return step(m, s, x, n)

    own.__name__ = f"own_{next(_numbers)}"
    return f.windowed(state=state, lookback=lookback)(own)


def value(m, x):
    return (x,)


def total(m, a, b, na, nb):
    return (a[0] + b[0],)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: along(value, lambda m, a, b, na, nb: (a[0] - b[0],)),
            r"monoid 'own' is not associative: of three rows, .* in operator own_\d+\(n=6\) at test_trial.py",
        ),
        (lambda: along(value, lambda m, a, b, na, nb: ((a[0] + b[0]) / 2.0,)), "not associative"),
        (lambda: along(lambda m, x: (x, x), total), "a tuple of 1 from lift of the monoid 'own', got 2"),
        (lambda: along(lambda m, x: x, total), "a tuple of 1 from lift of the monoid 'own', got Number"),
        (
            lambda: along(value, lambda m, a, b, na, nb: (*a, *b)),
            "a tuple of 1 from combine of the monoid 'own', got 2",
        ),
        (lambda: along(value, lambda m, a, b, na, nb: None), "from combine of the monoid 'own', got NoneType"),
        (lambda: along(value, lambda m, a, b, na, nb: (1 // 0,)), "its step raised ZeroDivisionError: "),
        (lambda: along(value, lambda m, a, b: a), "its step raised TypeError: .*takes 3 positional arguments"),
        (lambda: along(value, lambda m, a, b, na, nb: (max(a[0], b[0]),)), "is not known while code .*; use m.where"),
        (lambda: along(value, total, out=lambda m, s: s), r"expected a value from its step, got \(a number,\)"),
        (
            lambda: along(value, total, out=lambda m, s: s[0] > 1.0),
            r"its step gives a mask.*; m.where\(mask, 1.0, 0.0\)",
        ),
        (lambda: along(value, total, over=lambda m, x: m.log(x)), "m.window must be given .* as they are: .*lift"),
        (lambda: along(value, total, rows=3), "m.window over 9 rows looks back 8, its ring keeps 5"),
        (lambda: alone(lambda m, x: None), "expected a value from its step, got None"),
        (lambda: alone(lambda m, x: np.log(x)), r"raised TypeError: .*; a step is written in \+ - "),
        (lambda: alone(lambda m, x: abs(x)), r"raised TypeError: bad operand type for abs\(\)"),
        (lambda: alone(lambda m, x: x**2), "raised TypeError: unsupported operand"),
        (lambda: alone(lambda m, x: math.floor(x)), "raised TypeError"),
        (lambda: alone(lambda m, x: (x > 1.0) * x), "a mask is no number; m.where"),
        (lambda: alone(lambda m, x: m.where(x, 1.0, 0.0)), "m.where takes a mask first"),
        (lambda: alone(lambda m, x: m.row_sum(x)), "m.row_sum is no word of operators that are elementwise"),
        (lambda: alone(lambda m, x: m.keys * x), "m.keys is no word"),
        (
            lambda: stateful(lambda n: [n], lambda n: n, lambda m, s, x, n: x),
            r"expected a mapping of names to Cell and Ring from its state, got \[6\]",
        ),
        (
            lambda: stateful(lambda n: {"past": f.Ring(n)}, lambda n: n - 1, lambda m, s, x, n: m.delay(s.past, x)),
            "its ring 'past' looks back 6 rows, its lookback says 5",
        ),
        (
            lambda: stateful(lambda n: {"past": f.Ring(n, 2)}, lambda n: n, lambda m, s, x, n: m.delay(s.past, x)),
            "the ring 'past' is of 2 operands, of which there are 1",
        ),
        (
            lambda: stateful(lambda n: {"past": f.Ring(n)}, lambda n: "n", lambda m, s, x, n: m.delay(s.past, x)),
            "expected rows, or None for what never forgets, from its lookback, got 'n'",
        ),
        (
            lambda: stateful(lambda n: {"last": f.Cell()}, lambda: 3, lambda m, s, x, n: x),
            "its lookback raised TypeError",
        ),
        (
            lambda: stateful(lambda n: {"last": f.Cell()}, lambda n: None, lambda m, s, x, n: m.delay(s.last, x)),
            "m.delay needs past rows",
        ),
        (
            lambda: stateful(lambda n: {"past": f.Ring(n)}, lambda n: n, lambda m, s, x, n: m.scan(s.past, max, x)),
            "m.scan takes a Cell of the state",
        ),
        (
            lambda: stateful(lambda n: {"last": f.Cell()}, lambda n: None, lambda m, s, x, n: s.first),
            "raised AttributeError: .*'first'",
        ),
        (
            lambda: stateful(lambda n: {"past": f.Ring(-1)}, lambda n: n, lambda m, s, x, n: m.delay(s.past, x)),
            "expected rows of a Ring a whole number from 1 to 16777216, got -1",
        ),
        (
            lambda: stateful(lambda n: {"last": f.Cell(0)}, lambda n: n, lambda m, s, x, n: x),
            "expected parts of a Cell a whole number from 1",
        ),
    ],
)
@pytest.mark.parametrize("engine", ["llvm", "numpy"])
def test_what_cannot_be_meant(engine, make, message):
    operator = make()
    args = (close, 6) if operator.attributes else (close,)
    with pytest.raises(FactorError, match=message):
        f.compile({"a": operator(*args)}, engine=engine)


def test_what_was_raised_is_the_cause():
    with pytest.raises(FactorError) as caught:
        f.compile({"a": alone(lambda m, x: {}["nothing"])(close)})
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.operator.startswith("own_")


def test_composites_that_fail_are_named():
    @f.composite()
    def own_failing(x: f.Series):
        """Nothing."""
        raise KeyError("nothing")

    with pytest.raises(FactorError, match="composite own_failing raised KeyError: 'nothing'"):
        f.compile({"a": own_failing(close)})


@pytest.mark.parametrize("parts", [0, -1, 1.0, "1", True])
def test_monoids_that_cannot_be(parts):
    with pytest.raises(FactorError, match="expected parts of a Monoid 'own' a whole number from 1"):
        f.Monoid("own", parts, value, total)


def test_names_and_arguments_that_cannot_be():
    def own(m, x: f.Series):
        """A value."""

    own.__name__ = "two words"
    with pytest.raises(FactorError, match="expected a name of letters, digits and _ for an operator, got 'two words'"):
        f.elementwise()(own)

    def many(m, *x: f.Series):
        """Values."""

    with pytest.raises(FactorError, match="many: 'x' stands for any number of arguments; name each of them"):
        f.elementwise()(many)


@pytest.mark.parametrize("n", [3, 6, 11])
def test_an_operator_may_look_at_its_rows_in_several_ways(n):
    least = f.Monoid("least", 1, value, lambda m, a, b, na, nb: (m.where(a[0] <= b[0], a[0], b[0]),))
    added = f.Monoid("added", 1, value, total)

    def step(m, s, x: f.Series, *, n: f.Rows):
        """The least, the sum and the sum again."""
        both = m.window(s, least, n, x)[0] + 1000.0 * m.window(s, added, n, x)[0]
        return both + 1e6 * m.fold(s, n, x, x, lambda sofar, old: sofar + old)

    step.__name__ = f"own_{next(_numbers)}"
    made = f.windowed(state=f.window_state(least), lookback=lambda n: n - 1)(step)(close, n)
    rows = np.lib.stride_tricks.sliding_window_view(PANEL["close"], n, axis=0)
    outs = []
    for engine in ("llvm", "numpy"):
        program = f.compile({"a": made}, engine=engine)
        outs.append(program.batch(PANEL)["a"])
        live = program.stream(n=5)
        outs.append(np.array([live.step(close=row)["a"] for row in PANEL["close"]]))
        live = program.stream(n=5)
        first = live.batch({"close": PANEL["close"][:7]})["a"]
        live = program.stream(state=live.snapshot())
        outs.append(np.concatenate([first, live.batch({"close": PANEL["close"][7:]})["a"]]))
    assert len({out.tobytes() for out in outs}) == 1
    np.testing.assert_allclose(outs[0][n - 1 :], rows.min(-1) + 1000 * rows.sum(-1) + 1e6 * rows.sum(-1), rtol=1e-14)


@pytest.mark.parametrize("engine", ["llvm", "numpy"])
def test_what_can_be_meant_is_left_alone(engine):
    spread = along(
        lambda m, x: (x, x),
        lambda m, a, b, na, nb: (m.where(a[0] <= b[0], a[0], b[0]), m.where(a[1] >= b[1], a[1], b[1])),
        parts=2,
        out=lambda m, s: s[1] - s[0],
    )
    mean = along(
        lambda m, x: (m.log(x),),
        lambda m, a, b, na, nb: (a[0] + (b[0] - a[0]) * (nb / (na + nb)),),
        out=lambda m, s: m.exp(s[0]),
    )
    leaky = stateful(
        lambda n: {"sum": f.Cell()},
        lambda n: None,
        lambda m, s, x, n: m.scan(s.sum, lambda old, x: m.where(m.present(old), old * (1.0 - 1.0 / n) + x, x), x),
    )
    before = stateful(lambda n: {"past": f.Ring(n)}, lambda n: n, lambda m, s, x, n: x - m.delay(s.past, x))
    sign = alone(lambda m, x: m.where((x > 1.5) & ~(x > 1.8), 1.0, m.nan))
    made = {"a": spread(close, 6), "b": mean(close, 9), "c": leaky(close, 5), "d": before(close, 2), "e": sign(close)}
    out = f.compile(made, engine=engine).batch(PANEL)
    x = PANEL["close"]
    assert (out["a"][5:] == np.ptp(np.lib.stride_tricks.sliding_window_view(x, 6, axis=0), axis=-1)).all()
    assert (out["d"][2:] == x[2:] - x[:-2]).all()
    assert np.isfinite(out["b"][8:]).all()
    assert np.isfinite(out["c"]).all()
    assert (np.isnan(out["e"]) == ~((x > 1.5) & ~(x > 1.8))).all()
