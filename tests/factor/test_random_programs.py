"""A thousand programs drawn from the operator table, each run in every way there is: the same bits, state included."""

from __future__ import annotations

import random

import numpy as np
import pytest

from penstock import factor as f
from penstock.factor.table import ALIASES, TABLE, Kind, cross

f.operators()
BUILT_IN = tuple(sorted(TABLE))
SYMBOLS = (1, 7, 16, 64, 500)
DTYPES = ("float64", "float32")
ROWS = 40
EACH = 50
SLOW = [(dtype, keys, part) for dtype in DTYPES for keys in SYMBOLS for part in (1, 2)]
INPUTS = ("a", "b", "c", "g")
ODD_NAN = (0x7FF0000000000001, 0xFFF8000000000000, 0x7FFFFFFFFFFFFFFF)
ODD_NAN_32 = (0x7F800001, 0xFFC00000, 0x7FFFFFFF)
WINDOWS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 17, 25)


@pytest.fixture(scope="module")
def names():
    """The table's operators and five of a user's own, which leave the table afterwards."""
    before, aliases = set(TABLE), set(ALIASES)
    range_ = f.Monoid(
        "low, high",
        2,
        lambda m, x: (x, x),
        lambda m, a, b, na, nb: (
            m.where((a[0] <= b[0]) | ~m.present(a[0]), a[0], b[0]),
            m.where((a[1] >= b[1]) | ~m.present(a[1]), a[1], b[1]),
        ),
    )

    @f.elementwise(nan="NaN where an operand is")
    def own_relu(m, x: f.Series, *, low: f.Number = 0.0):
        """The larger of x and low."""
        return m.where(x >= low, x, m.where(m.present(x), low, m.nan))

    @f.composite()
    def own_spread(x: f.Series, y: f.Series, *, n: f.Rows = 3):
        """A mean distance."""
        return f.ts_mean(f.cs_rank(x) - y, n)

    @f.windowed(state=f.window_state(range_), lookback=lambda n: n - 1)
    def own_range(m, s, x: f.Series, *, n: f.Rows):
        """Highest less lowest of the last n rows."""
        low, high = m.window(s, range_, n, x)
        return high - low

    @cross()
    def own_share(m, x: f.Series):
        """Of the row's sum."""
        return x / m.row_sum(m.abs(x))

    @f.cross_numpy()
    def own_next(x: f.Series, y: f.Series, *, n: f.Rows = 2):
        """The key n places further of x in the order of y."""
        out = np.full_like(x, np.nan)
        order = np.argsort(y, kind="stable")
        out[order] = x[np.roll(order, n)]
        return out

    yield tuple(sorted(TABLE))
    for name in set(TABLE) - before:
        del TABLE[name]
    for name in set(ALIASES) - aliases:
        del ALIASES[name]


@pytest.fixture(scope="module")
def crews():
    with f.Executor(threads=2) as two, f.Executor(threads=3) as three:
        yield two, three


def draw(rng, names):
    """Outputs of one to ten random operators on inputs, constants and each other."""
    a, b, c, g = f.fields(*INPUTS)
    nodes = [a, b, c, f.constant(rng.choice([0.0, -0.0, 1.0, -1.0, 2.5, float("nan"), float("inf")]))]
    made = []
    for _ in range(rng.randint(1, 10)):
        operator = TABLE[rng.choice(names)]
        # What was made last is used most: deep rather than wide.
        args = [rng.choice(made[-3:] if made and rng.random() < 0.6 else nodes) for _ in operator.operands]
        if operator.operands[-1].name == "group" and rng.random() < 0.8:
            args[-1] = g
        attrs = {}
        for p in operator.attributes:
            low = int(p.least or 1)
            attrs[p.name] = {
                "Rows": max(low, rng.choice(WINDOWS)),
                "Share": rng.choice([0.0, 0.1, 0.25, 0.5]),
                "Number": rng.choice([1.0, -2.5, 0.0]),
                "Flag": rng.random() < 0.5,
            }[p.kind]
        made.append(operator(*args, **attrs))
        nodes.append(made[-1])
    return {f"out{i}": node for i, node in enumerate(made[-4:])}


def wild(dtype, keys):
    """Holes, both zeros, infinities, denormals, ties, huge and tiny numbers; columns that are constant or absent."""
    rng = np.random.default_rng([keys, dtype == "float32"])
    kind = np.finfo(dtype)
    panel = {}
    for name in INPUTS[:3]:
        x = rng.normal(0, 1, (ROWS, keys)).cumsum(0) + 5
        x = np.where(rng.random(x.shape) < 0.2, np.round(x), x)
        x[ROWS // 3 : ROWS // 2] = x[ROWS // 3]
        specials = (0.0, -0.0, np.nan, np.inf, -np.inf, kind.smallest_subnormal * 3, 1e30, -1e-30, kind.max / 2)
        for value in specials:
            x[rng.random(x.shape) < 0.015] = value
        if keys > 6:
            x[:, 1], x[:, 2], x[:, 3], x[:, 4] = 0.1, np.nan, rng.choice([0.0, -0.0], ROWS), kind.tiny / 8
        panel[name] = x.astype(dtype)
        # NaN of other bits than numpy's: signalling, negative, with a payload.
        word, bits = (np.uint64, ODD_NAN) if dtype == "float64" else (np.uint32, ODD_NAN_32)
        for value in bits:
            panel[name].view(word)[rng.random(x.shape) < 0.005] = value
    panel["g"] = rng.integers(0, 4, (ROWS, keys)).astype(dtype)
    panel["g"][rng.random((ROWS, keys)) < 0.05] = np.nan
    return panel


def assert_same(got, want, note):
    for name in want:
        if got[name].tobytes() == want[name].tobytes():
            continue
        word = f"u{want[name].itemsize}"
        assert got[name].shape == want[name].shape, (note, name)
        row, key = np.argwhere(np.ascontiguousarray(got[name]).view(word) != want[name].view(word))[0]
        pytest.fail(
            f"{note}: {name} at row {row}, symbol {key}: {got[name][row, key]!r}, want {want[name][row, key]!r}"
        )


def ticks(live, data, first, stop):
    rows = []
    for t in range(first, stop):
        for at, x in enumerate(data.values()):
            live.push(at, x[t])
        live.run()
        rows.append(live.block().copy())
    made = np.array(rows, live.program.dtype).reshape(stop - first, len(live.program.outputs), len(live.symbols))
    return {name: np.ascontiguousarray(made[:, i]) for i, name in enumerate(live.program.outputs)}


def glue(*parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check(outputs, dtype, panel, rng, crews):
    """All ways of running these outputs."""
    code, definition = (f.compile(outputs, dtype=dtype, engine=engine) for engine in ("llvm", "numpy"))
    data = {name: panel[name] for name in code.inputs} or {"a": panel["a"]}
    keys = next(iter(data.values())).shape[1]
    fed = {name: panel[name] for name in code.inputs}

    def rows(first, stop):
        return {name: x[first:stop] for name, x in data.items()}

    live = code.stream(n=keys)
    whole, state = live.batch(data), live.snapshot()
    assert_same(code.batch(data), whole, "batch")
    assert_same(definition.batch(data), whole, "the definition")
    for crew in crews:
        live = code.stream(n=keys, executor=crew)
        assert_same(live.batch(data), whole, f"{crew.threads} threads")
        assert live.snapshot() == state, f"state of {crew.threads} threads"
    live = code.stream(n=keys)
    assert_same(ticks(live, fed, 0, ROWS), whole, "row by row")
    assert live.snapshot() == state, "state after ticks"

    # Cut at random, and go on in the other engine from a snapshot.
    first, second = sorted((rng.randint(0, ROWS), rng.randint(0, ROWS)))
    one, other = (code, definition) if rng.random() < 0.5 else (definition, code)
    live = one.stream(n=keys)
    begun = live.batch(rows(0, first))
    live = other.stream(state=live.snapshot())
    middle = ticks(live, fed, first, second)
    live = one.stream(state=live.snapshot())
    end = live.batch(rows(second, ROWS))
    assert_same(glue(begun, middle, end), whole, f"cut at {first} and {second}")
    assert live.snapshot() == state, f"state, cut at {first} and {second}"

    later = rng.randint(1, ROWS // 2)
    if not code.endless and later + code.warmup < ROWS:
        got = code.batch(rows(later, ROWS), first=later)
        warm = later + code.warmup
        want = {name: x[warm:] for name, x in whole.items()}
        assert_same({name: x[code.warmup :] for name, x in got.items()}, want, f"begun at row {later}")


def run(names, crews, dtype, keys, part, count):
    rng = random.Random(f"{dtype} {keys} {part}")
    panel = wild(dtype, keys)
    for number in range(count):
        outputs = draw(rng, names)
        try:
            check(outputs, dtype, panel, rng, crews)
        except BaseException:
            print(f"program {number}:", *(f"  {name} = {node!r}" for name, node in outputs.items()), sep="\n")
            raise
    return count


@pytest.mark.parametrize("keys", SYMBOLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_some_programs(names, crews, dtype, keys):
    assert run(names, crews, dtype, keys, 0, 3) == 3


@pytest.mark.slow
@pytest.mark.parametrize("dtype, keys, part", SLOW)
def test_a_thousand_programs(names, crews, dtype, keys, part):
    assert run(names, crews, dtype, keys, part, EACH) == EACH


def test_there_are_a_thousand():
    assert EACH * len(SLOW) >= 1000
    assert {(dtype, keys) for dtype, keys, _ in SLOW} == {(dtype, keys) for dtype in DTYPES for keys in SYMBOLS}


def test_every_operator_is_drawn(names):
    rng = random.Random(0)
    seen = {node.op for _ in range(600) for node in below(draw(rng, names).values())}
    assert seen - {"const", "field"} == set(names)
    assert {TABLE[name].kind for name in names} == set(Kind) - {Kind.SOURCE}
    assert len(set(names) - set(BUILT_IN)) == 5


def below(roots):
    from penstock.factor.graph import topological

    return topological(roots)
