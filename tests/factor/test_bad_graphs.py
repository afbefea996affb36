"""Graphs that cannot be meant are refused with a next step; graphs that are only unusual are computed."""

from __future__ import annotations

import copy
import gc
import pickle
import random
import subprocess
import sys
import time
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from penstock import factor as f
from penstock.errors import FactorError
from penstock.factor.graph import topological
from penstock.factor.table import ALIASES, TABLE

f.operators()
close, volume = f.fields("close", "volume")
X = np.random.default_rng(0).uniform(1, 2, (10, 3))
BOTH = pytest.mark.parametrize("engine", ["llvm", "numpy"])
WINDOWED = sorted(name for name, op in TABLE.items() if any(p.kind == "Rows" for p in op.attributes))


def run(outputs, engine=None, dtype="float64"):
    program = f.compile(outputs, engine=engine, dtype=dtype)
    return program.batch({name: X for name in (*program.inputs, "unused")})


# ---- windows ----


def window(name, n):
    operator = TABLE[name]
    values = {"Rows": n, "Share": 0.3, "Number": 2.0, "Flag": True}
    return operator(*[close] * len(operator.operands), **{p.name: values[p.kind] for p in operator.attributes})


@pytest.mark.parametrize(
    "n, message",
    [
        (0, "must be at least [1234], got 0"),
        (-1, "must be at least [1234], got -1"),
        (-3, "must be at least [1234], got -3"),
        (np.int64(-3), "must be at least [1234], got -3"),
        (2.5, "must be a whole number of rows, got 2.5; round it"),
        (np.float32(2.5), "must be a whole number of rows, got 2.5; round it"),
        (float("nan"), "must be a whole number of rows, got nan"),
        (float("-inf"), "must be a whole number of rows, got -inf"),
        (True, "must be a number, got True"),
        (np.False_, "must be a number, got False"),
        (None, "must be a number, got None"),
        ("5", "must be a number, got '5'"),
        ([5], r"must be a number, got \[5\]"),
        (np.array([5]), r"must be a number, got array\(\[5\]\)"),
        (5 + 0j, r"must be a number, got \(5\+0j\)"),
        (Decimal(5), r"must be a number, got Decimal\('5'\)"),
        (Fraction(5, 2), r"must be a number, got Fraction\(5, 2\)"),
        (close, "must be a number, got close; operands come first, then attributes"),
        ((1 << 24) + 1, "must be at most 16777216, got 16777217"),
        (10**30, "must be at most 16777216, got 1000000"),
        (10**5000, "is too large, it has 16610 bits"),
    ],
    ids=lambda value: "huge" if isinstance(value, int) and value > 10**99 else repr(value)[:20],
)
def test_windows_that_cannot_be(n, message):
    for name in WINDOWED:
        with pytest.raises(FactorError, match=message) as caught:
            window(name, n)
        assert name in str(caught.value)


@pytest.mark.parametrize("n", [np.int8(5), np.int64(5), np.uint64(5), 5.0, np.float32(5), np.array(5), f.constant(5)])
def test_windows_may_be_any_whole_number(n):
    for name in WINDOWED:
        assert window(name, n) is window(name, 5)


@BOTH
def test_the_longest_windows_compile(engine):
    program = f.compile({"a": f.ts_sum(close, 1 << 20), "b": f.ts_delay(volume, 1 << 20)}, engine=engine)
    assert program.warmup == 1 << 20
    out = program.batch({"close": X, "volume": X})
    assert np.isnan(out["a"]).all()


def test_a_state_beyond_memory_is_refused():
    program = f.compile({"a": f.ts_sum(close, 1 << 24)}, engine="numpy")
    with pytest.raises(FactorError, match=r"state of 16777215 values for 100000000 symbols, \d+\.\d GiB, is too much"):
        program.make_engine(100_000_000, None)


# ---- numbers and operands ----


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**5000], ids=["large", "small", "huge"])
def test_numbers_beyond_any_float(value):
    for call in (lambda: close + value, lambda: f.constant(value), lambda: f.Factors(a=value)):
        with pytest.raises(FactorError, match=r"expected a number below 1.8e308, got int of \d+ bits"):
            call()
    with pytest.raises(FactorError, match="value is too large, it has"):
        f.nan_to(close, value)


@pytest.mark.parametrize(
    "call",
    [
        lambda: not close,
        lambda: close and volume,
        lambda: close or volume,
        lambda: 1 < close < 2,
        lambda: close in [volume, close],
        lambda: max(close, volume),
        lambda: sorted([close, volume]),
        lambda: [volume, close].index(close),
        lambda: 1 if close > volume else 2,
        lambda: [1 for _ in range(3) if close > 1],
    ],
)
def test_a_truth_of_a_node_is_refused(call):
    with pytest.raises(FactorError, match="is not known before there is data; use f.where"):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: close // 2,
        lambda: close % 2,
        lambda: close @ volume,
        lambda: close << 1,
        lambda: close ^ volume,
        lambda: round(close),
        lambda: close[3],
        lambda: close(3),
        lambda: len(close),
        lambda: int(close),
        lambda: float(close),
        lambda: np.sqrt(close),
        lambda: np.add(close, 1),
    ],
)
def test_what_nodes_have_no_meaning_for_is_pythons_own_error(call):
    with pytest.raises(TypeError):
        call()


@pytest.mark.parametrize("name", ["a b", "a-b", "", " ", "1a", "a\n", "close\0", "a" + "\u0301", "-", "a,b", None, 1])
def test_names_of_factors(name):
    with pytest.raises(FactorError, match="expected a factor name of letters, digits, _ and ., got"):
        f.Factors({name: close})


def test_names_may_have_letters_of_any_alphabet():
    made = f.Factors({"动量.5": "rank(收盘) - clôture", "é": "clôture * 2"})
    program = f.compile(made)
    assert (program.inputs, program.outputs) == (("收盘", "clôture"), ("动量.5", "é"))
    out = program.batch({"收盘": np.array([[3.0, 1.0]]), "clôture": np.array([[0.5, 0.5]])})
    assert out["动量.5"].tolist() == [[0.5, 0.0]]
    assert f.parse(repr(made["动量.5"])) is made["动量.5"]


def test_a_mapping_may_stand_on_the_left():
    assert list({"a": "close"} | f.Factors(b="open")) == ["a", "b"]
    with pytest.raises(FactorError, match="there are two factors called 'a': close and open"):
        {"a": "close"} | f.Factors(a="open")


@pytest.mark.parametrize("name", ["a b", "a-b", "", " ", "1a", "a\n", "close\0", "a.b", "$a", None, 1])
def test_names_of_fields(name):
    with pytest.raises(FactorError, match="expected a field name of letters, digits and _, got"):
        f.field(name)


def test_doubled_names():
    with pytest.raises(FactorError, match="there are two factors called 'a'; rename one"):
        f.Factors({"a": close}, a=close)
    with pytest.raises(FactorError, match="two factors called 'a': close and volume; rename one"):
        f.Factors(a=close) | f.Factors(a=volume)
    assert list(f.Factors(a=close) | f.Factors(a=close)) == ["a"]
    for name in ("symbol", "ts_event"):
        with pytest.raises(FactorError, match=f"a factor cannot be called '{name}'"):
            f.Factors({name: close})
    with pytest.raises(FactorError, match="'close' is an input and an output; give the factor another name"):
        f.compile({"close": close + 1, "b": volume})


@pytest.mark.parametrize("value", ["1", "a", None, True, np.True_, 1j, close, [1], b"1", np.ones(2)], ids=range(10))
def test_a_constant_is_a_number(value):
    with pytest.raises(FactorError, match="expected a number, got .* - in constant"):
        f.constant(value)


@pytest.mark.parametrize("value", [[("a", close)], "close", 3, {"close"}], ids=range(4))
def test_factors_are_a_mapping(value):
    for call in (lambda: f.Factors(value), lambda: f.Factors(a=close) | value):
        with pytest.raises(FactorError, match="expected a mapping of names to expressions, got .*; f.Factors.alpha="):
            call()


# ---- unusual outputs ----


@BOTH
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_unusual_outputs(engine, dtype):
    outputs = {
        "number": 3,
        "nan": float("nan"),
        "minus_zero": -0.0,
        "input": close,
        "again": close,
        "twice": f.rank(close),
        "twice_again": f.rank(close),
        "equal": (close + 1) - 1,
        "truth": close > volume,
        "rank_of_a_number": f.rank(f.constant(3)),
        "of_a_number": f.ts_corr(f.constant(3), f.constant(4), 3),
        "group_is_a_number": f.indneutralize(close, f.constant(1)),
        "no_group": f.indneutralize(close, f.constant(float("nan"))),
        "inside_itself": f.ts_sum(f.ts_sum(f.ts_sum(close, 2), 2), 2),
    }
    out = run(outputs, engine, dtype)
    x = X.astype(dtype)
    assert (out["number"] == 3).all()
    assert np.isnan(out["nan"]).all()
    assert np.signbit(out["minus_zero"]).all()
    assert out["input"].tobytes() == out["again"].tobytes() == x.tobytes()
    assert out["input"] is not out["again"]
    assert out["twice"].tobytes() == out["twice_again"].tobytes()
    assert (out["truth"] == 0).all()
    assert (out["rank_of_a_number"] == np.array(2 / 3, dtype)).all()
    assert np.isnan(out["of_a_number"]).all()
    np.testing.assert_allclose(out["group_is_a_number"].sum(1), 0, atol=1e-6)
    assert np.isnan(out["no_group"]).all()
    assert np.isfinite(out["inside_itself"][3:]).all()


@BOTH
def test_every_operator_on_numbers_only(engine):
    values = {"Rows": 4, "Share": 0.3, "Number": 2.0, "Flag": True}
    outputs = {
        name: op(*[f.constant(2.0)] * len(op.operands), **{p.name: values[p.kind] for p in op.attributes})
        for name, op in TABLE.items()
    }
    program = f.compile(outputs, engine=engine)
    assert program.inputs == ()
    out = program.batch({"any": X})
    assert out["ts_sum"][-1].tolist() == [8, 8, 8]
    live = program.stream(n=3)
    for _ in range(10):
        row = live.step()
    assert all(row[name].tobytes() == out[name][-1].tobytes() for name in outputs)


# ---- size ----


def chain(step, n=10_000):
    node = close
    for i in range(n):
        node = step(node, i)
    return node


@pytest.mark.parametrize(
    "engine, step",
    [
        pytest.param("llvm", lambda node, i: node + (i % 7) * volume, id="sum"),
        pytest.param("numpy", lambda node, i: f.where(volume > i % 3, node, -node), id="where"),
        pytest.param("llvm", lambda node, i: f.ts_delay(node, 1), id="delay"),
        pytest.param(
            "llvm", lambda node, i: f.where(volume > i % 3, node, -node), id="compiled", marks=pytest.mark.slow
        ),
    ],
)
def test_ten_thousand_deep(engine, step):
    deep = chain(step)
    assert len(list(topological([deep]))) > 10_000
    began = time.process_time()
    program = f.compile({"a": deep}, engine=engine, checked=True)
    assert program.batch({name: X for name in program.inputs})["a"].shape == X.shape
    assert "…" in program.explain("a")
    assert "…" in repr(deep)
    assert program.stream(n=3).snapshot()
    assert time.process_time() - began < 20


def test_ten_thousand_deep_copies_and_pickles():
    deep = chain(lambda node, i: node + volume)
    assert copy.deepcopy(deep) is deep
    assert copy.copy(deep) is deep
    assert pickle.loads(pickle.dumps(deep)) is deep
    assert pickle.loads(pickle.dumps({"a": deep, "b": [deep]}))["b"][0] is deep
    assert f.Factors(a=deep) == f.Factors(a=pickle.loads(pickle.dumps(deep)))
    script = "import pickle,sys; n = pickle.load(sys.stdin.buffer); print(n.op, sys.getrecursionlimit())"
    done = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(deep), capture_output=True, check=True)
    assert done.stdout.split() == [b"add", b"1000"]
    del deep
    gc.collect()


def test_ten_thousand_wide():
    began = time.process_time()
    out = run({f"a{i}": f.ts_delay(close, 1 + i % 5) * float(i) for i in range(10_000)}, "numpy")
    assert len(out) == 10_000
    assert out["a7"][3].tolist() == (X[0] * 7.0).tolist()
    assert time.process_time() - began < 20


@pytest.mark.slow
def test_ten_thousand_wide_compiled():
    began = time.process_time()
    out = run({f"a{i}": close * float(i) + volume for i in range(10_000)}, "llvm")
    assert out["a7"].tolist() == (X * 7.0 + X).tolist()
    assert time.process_time() - began < 60


def test_a_graph_that_doubles_at_every_level_has_one_node_per_level():
    assert len(list(topological([chain(lambda node, i: node * node, 200)]))) == 201
    assert run({"a": chain(lambda node, i: (node + node) * 0.5, 200)})["a"].tobytes() == X.tobytes()


def test_composites_that_use_themselves():
    before = set(TABLE)
    try:

        @f.composite()
        def endless_one(x: f.Series):
            """Itself."""
            return TABLE["endless_one"](x + 1)

        with pytest.raises(FactorError, match="composites are nested more than 64 deep; does one use itself"):
            f.compile({"a": endless_one(close)})
    finally:
        for name in set(TABLE) - before:
            del TABLE[name]


# ---- text ----

WORDS = [
    *(sorted(TABLE) + sorted(ALIASES)),
    *("close $open vwap IndClass.sector a.b nan inf True False n q pct value a é 名 _ $ $$x x.y.z ⅝ x⁰ '").split(),
    *("( ( ( ) ) ) , , = + - * / ^ ? : < > & | ! ~ @ ** <= >= == != && || \\").split(),
    *("1 2 5 2.5 0 1e5 1e999 1e-999 .5 1. 0x10 1_0").split(),
    "9" * 400,
    "\0",
    "\u2028",
    " ",
    "\n",
    "\t",
]


def read(text, **options):
    """Whether it is read; refused it must be with a place."""
    refused = None
    try:
        node = f.parse(text, **options)
    except FactorError as error:
        refused = error
    if refused is None:
        assert isinstance(node, f.Node)
        return True
    assert refused.column >= 1
    assert f"at column {refused.column}" in str(refused)
    return False


@pytest.mark.parametrize("seed", range(4))
def test_random_text_is_read_or_refused_with_its_place(seed):
    rng = random.Random(seed)
    pattern = "-1 * correlation(rank(open), ts_rank(volume, 10, pct=True), 10) > 3 ? Mean($close, 5) : nan_to(vwap)"
    good = 0
    for _ in range(2500):
        kind = rng.random()
        if kind < 0.6:
            text = "".join(rng.choice(WORDS) for _ in range(rng.randrange(0, 14)))
        elif kind < 0.8:
            text = "".join(
                chr(rng.choice([rng.randrange(32, 127), rng.randrange(0x3000)])) for _ in range(rng.randrange(20))
            )
        else:
            letters = list(pattern)
            for _ in range(rng.randrange(1, 5)):
                at = rng.randrange(len(letters))
                letters[at : at + rng.randrange(0, 3)] = [rng.choice(WORDS)]
            text = "".join(letters)
        good += read(text, fractional=rng.choice(["refuse", "floor"]))
    assert 100 < good < 2400


@pytest.mark.parametrize("n", [1, 63, 64, 65, 1000, 20_000])
@pytest.mark.parametrize(
    "text",
    [
        lambda n: "(" * n + "x" + ")" * n,
        lambda n: "-" * n + "x",
        lambda n: "!" * n + "x",
        lambda n: "~" * n + "x",
        lambda n: "-~" * n + "x",
        lambda n: "-+!~" * n + "x",
        lambda n: "x" + "+x" * n,
        lambda n: "x" + "^x" * n,
        lambda n: "x^-" * n + "x",
        lambda n: "x?x:" * n + "x",
        lambda n: "x?" * n + "x" + ":x" * n,
        lambda n: "abs(" * n + "x" + ")" * n,
        lambda n: "nan_to(x=" * n + "x" + ")" * n,
        lambda n: "add(" + ",".join("x" * n) + ")",
        lambda n: "1" * n,
        lambda n: "x" * n,
        lambda n: "x." * n + "x",
        lambda n: " " * n + "@",
        lambda n: "(" * n,
        lambda n: ")" * n,
    ],
    ids=lambda make: make(2),
)
def test_long_and_deep_text(text, n):
    began = time.process_time()
    read(text(n))
    assert time.process_time() - began < 10


def test_deep_text_near_the_end_of_the_stack():
    limit = sys.getrecursionlimit()

    def at_depth(n):
        return at_depth(n - 1) if n else read("(" * 60 + "x" + ")" * 60)

    frame, used = sys._getframe(), 0
    while frame is not None:
        frame, used = frame.f_back, used + 1
    # A parser takes ten frames per level; there is room for them from anywhere but the very end.
    assert at_depth(limit - used - 700)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: f.parse(None), "expected the text of an expression, got NoneType"),
        (lambda: f.parse(b"close"), "expected the text of an expression, got bytes"),
        (lambda: f.parse(close), "expected the text of an expression, got Node"),
        (lambda: f.parse("x", fractional="round"), "expected fractional 'refuse' or 'floor', got 'round'"),
        (lambda: f.parse("1e999 * x"), "the number '1e999' is too large - at column 1, .*; infinity is written"),
        (lambda: f.parse("x⁰ + 1"), "cannot read the name 'x⁰' - at column 1"),
        (lambda: f.parse("1 + adv", names={"adv": "volume"}), r"expected a factor expression or a number, got str"),
        (lambda: f.parse("1 + g(x)", functions={"g": lambda x: "y"}), "what g gives.*|expected a factor expression"),
        (lambda: f.parse("1 + g(x)", functions={"g": lambda: close}), "g: too many positional arguments - at column 5"),
        (lambda: f.parse("g(x, k=1)", functions={"g": lambda x: x}), "g: got an unexpected keyword argument 'k'"),
        (
            lambda: f.parse("g(x)", functions={"g": lambda x: f.ts_sum(x, 0)}),
            "n must be at least 1, got 0 - at column 1",
        ),
        (lambda: f.parse("nan_to(x, value=1, value=2)"), "'value' is given twice - at column 20"),
        (lambda: f.parse("sum(x, inf)", fractional="floor"), "n must be a whole number of rows, got inf"),
        (lambda: f.parse("sum(x, n=0.5)", fractional="floor"), "n must be at least 1, got 0"),
    ],
)
def test_what_parse_refuses(call, message):
    with pytest.raises(FactorError, match=message):
        call()


def test_fractional_windows_may_be_named():
    assert f.parse("ts_rank(close, n=12.7)", fractional="floor") is f.ts_rank(close, 12)
    assert f.parse("g(close)", functions={"g": lambda x: 3}) is f.constant(3)
    assert f.parse("adv * 2", names={"adv": 3}) is f.constant(3) * 2
    assert f.parse("-~-~close") is -(~-(~close))
    inverted = ~close
    minus = -inverted
    assert f.parse("--~+close") is -minus


# ---- programs ----


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: f.compile({"a": close}, engine=["llvm"]), r"expected an engine of 'llvm', 'numpy', got \['llvm'\]"),
        (lambda: f.compile({"a": close}, engine=""), "expected an engine of"),
        (lambda: f.compile({"a": close}, dtype=">f8"), "expected dtype 'float64' or 'float32', got '>f8'"),
        (lambda: f.compile({"a": close}, dtype="float16"), "expected dtype 'float64' or 'float32', got 'float16'"),
        (lambda: f.compile({"a": close}, dtype=complex), "expected dtype 'float64' or 'float32'"),
        (lambda: f.compile(None), "expected f.Factors or a mapping of names to expressions, got NoneType"),
        (lambda: f.compile("close"), "expected f.Factors or a mapping of names to expressions, got str"),
        (lambda: f.compile({}), "there is no factor to compile"),
        (lambda: f.compile({1: close}), "expected a factor name"),
        (
            lambda: f.compile({"a": [close]}),
            r"expected a factor expression or a number, got list \[close\] - in factor 'a'",
        ),
        (lambda: f.compile({"a": True}), "expected a factor expression or a number, got bool True"),
        (lambda: f.compile({"a": "close +"}), "in factor 'a', at column 8"),
    ],
)
def test_programs_that_cannot_be(call, message):
    with pytest.raises(FactorError, match=message):
        call()
