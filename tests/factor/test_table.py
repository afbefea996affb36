from __future__ import annotations

import inspect

import numpy as np
import pytest

import penstock.factor
from penstock import factor as f
from penstock.errors import FactorError
from penstock.factor import stubs
from penstock.factor.table import ALIASES, TABLE, lookup

close = f.field("close")


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: f.ts_std(close, 1), r"ts_std\(x, n=1\): n must be at least 2, got 1"),
        (lambda: f.ts_sum(close, 0), r"ts_sum\(x, n=0\): n must be at least 1, got 0"),
        (lambda: f.ts_sum(close, -3), r"n must be at least 1, got -3"),
        (
            lambda: f.delay(close, -1),
            r"ts_delay\(x, n=-1\): n must be at least 1, got -1; a negative delay would look ahead",
        ),
        (lambda: f.ts_sum(close, 2.5), r"ts_sum\(x, n=2.5\): n must be a whole number of rows, got 2.5; round it"),
        (lambda: f.ts_sum(close, float("nan")), r"must be a whole number of rows, got nan"),
        (lambda: f.ts_sum(close, float("inf")), r"must be a whole number of rows, got inf"),
        (lambda: f.ts_sum(close, 1 << 25), r"n must be at most 16777216"),
        (lambda: f.ts_sum(close, "5"), r"n must be a number, got '5'"),
        (lambda: f.ts_sum(close, True), r"n must be a number, got True"),
        (lambda: f.ts_sum(close, close), r"n must be a number, got close; operands come first"),
        (lambda: f.ts_sum(close), r"ts_sum: n is missing; write ts_sum\(x, n\)"),
        (lambda: f.ts_sum(n=5), r"ts_sum: x is missing"),
        (lambda: f.ts_sum(close, 5, 6), r"expected ts_sum\(x, n\), got 3 arguments"),
        (lambda: f.ts_sum(close, 5, n=6), r"ts_sum: n is given twice"),
        (lambda: f.ts_sum(close, window=6), r"ts_sum has no argument 'window'; write ts_sum\(x, n\)"),
        (lambda: f.ts_quantile(close, 5, 1.5), r"ts_quantile\(x, q=1.5\): q must be between 0 and 1, got 1.5"),
        (lambda: f.ts_quantile(close, 5, float("nan")), r"q must be between 0 and 1, got nan"),
        (lambda: f.ts_rank(close, 5, 1), r"ts_rank\(x, pct=1\): pct must be True or False, got 1"),
        (lambda: f.winsorize(close, 0.7), r"cs_winsorize\(x, q=0.7\): q must be at most 0.5, got 0.7"),
        (lambda: f.quantile_bucket(close, 1), r"n must be at least 2, got 1"),
        (lambda: f.ts_kurt(close, 3), r"n must be at least 4, got 3"),
    ],
)
def test_calls_that_cannot_be_meant(call, message):
    with pytest.raises(FactorError, match=message):
        call()


# What the design names, the functions of WorldQuant's paper, and the operators of Qlib (but ChangeInstrument and Mask,
# which read another symbol's data, and the nodes P, PFeature, TResample of its data layer).
DESIGN = """abs sign sqrt log exp pow min max clip signed_power floor nan_to where ts_sum ts_product ts_mean ts_std ts_var
    ts_skew ts_kurt ts_min ts_max ts_argmin ts_argmax ts_rank ts_quantile ts_delay ts_delta ts_returns ts_cov ts_corr
    ts_decay_linear ts_slope ts_rsquare ts_resid ts_mad ts_median ts_zscore ts_count ts_max_drawdown ts_ema cs_rank
    cs_zscore cs_scale cs_demean cs_winsorize cs_quantile_bucket cs_indneutralize cs_corr cs_regress_residual"""
SHORT = """sum product mean std var skew kurt argmin argmax quantile delay delta returns cov corr decay_linear slope
    rsquare resid mad median zscore count max_drawdown ema rank scale demean winsorize quantile_bucket indneutralize"""
PAPER = """abs log sign rank delay correlation covariance scale delta signedpower decay_linear indneutralize ts_min
    ts_max ts_argmax ts_argmin ts_rank min max sum product stddev"""
QLIB = """Abs Sign Log Not Power Add Sub Mul Div Greater Less Gt Ge Lt Le Eq Ne And Or If Ref Mean Sum Std Var Skew Kurt
    Max IdxMax Min IdxMin Quantile Med Mad Rank Count Delta Slope Rsquare Resi WMA EMA Corr Cov"""


@pytest.mark.parametrize("names", [DESIGN, SHORT, PAPER, QLIB], ids=["design", "short", "paper", "qlib"])
def test_names_of_the_field(names):
    for name in names.split():
        operator = getattr(f, name)
        values = {p.name: 4 if p.kind == "Rows" else 0.5 for p in operator.attributes if p.required}
        node = operator(*f.fields(*"abc"[: len(operator.operands)]), **values)
        written = ", ".join([*"abc"[: len(operator.operands)], *map(str, values.values())])
        if name != "Rank":  # in text it is ts_rank with pct
            assert f.parse(f"{name}({written})") is node
    assert f.Rank(close, 5) is f.ts_rank_pct(close, 5)
    assert f.Max(close, 5) is f.ts_max(close, 5)


def test_attributes_take_whole_floats_and_numpy_numbers():
    assert f.ts_sum(close, 5.0) is f.ts_sum(close, np.int32(5)) is f.ts_sum(close, n=5)
    assert f.ts_sum(close, f.constant(5)) is f.ts_sum(close, 5)
    assert f.returns(close) is f.returns(close, 1)


def test_unknown_names_suggest_near_ones():
    with pytest.raises(FactorError, match=r"there is no operator 'ts_stdd'; did you mean ts_std"):
        lookup("ts_stdd")
    with pytest.raises(FactorError, match=r"TABLE lists all"):
        lookup("zzzzzzz")
    with pytest.raises(AttributeError, match=r"no attribute 'corelation'; did you mean correlation"):
        _ = f.corelation
    with pytest.raises(AttributeError):
        _ = f.__wrong__


def test_public_names_exist_and_are_listed():
    for name in penstock.factor.__all__:
        assert getattr(f, name) is not None
        assert name in dir(f)
    assert f.stddev is f.ts_std
    assert {"ts_corr", "correlation", "rank"} <= set(dir(f))
    assert "ts_var" in f.operators()


def test_the_stub_file_is_up_to_date():
    path = penstock.factor.__file__.replace("__init__.py", "__init__.pyi")
    with open(path, encoding="utf-8") as file:
        assert file.read() == stubs.render(), "run python -m penstock.factor.stubs"


def test_names_and_aliases_are_unique_and_no_submodule_hides_one():
    assert not set(TABLE) & set(ALIASES)
    modules = {"graph", "table", "text", "layout", "machine", "passes", "rules", "program", "live", "frames", "stubs",
               "snapshot", "factors", "ops", "reproducible", "machine_numpy"}  # fmt: skip
    assert not modules & (set(TABLE) | set(ALIASES) | set(penstock.factor.__all__))


def test_an_own_composite(own):
    @f.composite(aliases=("spread",))
    def high_low(high: f.Series, low: f.Series, *, n: f.Rows = 3) -> object:
        """The mean distance of high and low."""
        return f.ts_mean(high - low, n)

    high, low = f.fields("high", "low")
    program = f.compile({"own": f.spread(high, low), "text": "spread(high, low, 2)"})
    out = program.batch({"high": np.full((4, 1), 3.0), "low": np.ones((4, 1))})
    assert out["own"].reshape(-1).tolist()[2:] == [2.0, 2.0]
    assert program.lookback == {"own": 2, "text": 1}
    assert str(inspect.signature(f.high_low)) == "(high, low, n=3)"


def test_an_own_monoid(own):
    log_sum = f.Monoid("log sum", 1, lambda m, x: (m.log(x),), lambda m, a, b, na, nb: (a[0] + b[0],))

    @f.windowed(state=f.window_state(log_sum), lookback=lambda n: n - 1)
    def ts_geometric(m, s, x: f.Series, *, n: f.Rows):
        """The geometric mean of the last n rows."""
        return m.exp(m.window(s, log_sum, n, x)[0] / n)

    panel = {"close": np.random.default_rng(0).uniform(1, 2, (40, 3))}
    program = f.compile({"own": ts_geometric(close, 6)})
    out = program.batch(panel)["own"]
    want = np.exp(np.lib.stride_tricks.sliding_window_view(np.log(panel["close"]), 6, axis=0).mean(-1))
    np.testing.assert_allclose(out[5:], want, rtol=1e-14)
    live = program.stream(n=3)
    rows = np.stack([live.step(close=row)["own"] for row in panel["close"]])
    assert (rows.view("u8") == out.view("u8")).all()


def test_definitions_that_cannot_be(own):
    def ts_sum(x: f.Series):
        """A name that is taken."""

    with pytest.raises(FactorError, match="there is an operator 'ts_sum' already"):
        f.composite()(ts_sum)

    def nameless(x: f.Series):
        return x

    with pytest.raises(FactorError, match="operator nameless has no docstring"):
        f.composite()(nameless)

    def odd(x: int):
        """An operand of no known kind."""

    with pytest.raises(FactorError, match=r"expected Series, Rows, Share, Number or Flag, got .*int.* at odd\(x\)"):
        f.composite()(odd)

    def late(n: f.Rows, x: f.Series):
        """An operand after an attribute."""

    with pytest.raises(FactorError, match="operand 'x' follows an attribute"):
        f.composite()(late)


def test_composites_that_cannot_be(own):
    @f.composite()
    def endless(x: f.Series):
        """Itself again."""
        return f.endless(x + 1)

    with pytest.raises(FactorError, match="nested more than 64 deep; does one use itself"):
        f.compile({"a": f.endless(close)})

    @f.composite()
    def nothing(x: f.Series):
        """A forgotten return."""

    with pytest.raises(FactorError, match="composite nothing must return a factor expression, got None"):
        f.compile({"a": f.nothing(close)})
