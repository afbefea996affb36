from __future__ import annotations

import numpy as np
import pytest

from penstock import factor as f
from penstock.errors import FactorError

close, open_, volume, high = f.fields("close", "open", "volume", "high")


@pytest.mark.parametrize(
    "text, node",
    [
        ("close", close),
        ("$close", close),
        ("1.5e3", f.constant(1500)),
        (".5", f.constant(0.5)),
        ("-2", f.constant(-2)),
        ("- -2", f.constant(2)),
        ("close + open * 2", close + open_ * 2),
        ("close - open - 1", close - open_ - 1),
        ("close / open / 2", close / open_ / 2),
        ("-close^2", -(close**2)),
        ("2 ^ -close", 2**-close),
        ("close ^ open ^ 2", close**open_**2),
        ("close ** 2", close**2),
        ("(close < open) ? close : -open", f.where(close < open_, close, -open_)),
        ("close > 1 ? 1 : open > 1 ? 2 : 3", f.where(close > 1, 1, f.where(open_ > 1, 2, 3))),
        ("close > 1 && open <= 2 || volume == 3", ((close > 1) & (open_ <= 2)) | (volume == 3)),
        ("!(close != open)", ~(close != open_)),
        ("! close > open", ~(close > open_)),
        ("close >= open", close >= open_),
        ("-1 * correlation(rank(open), rank(volume), 10)", -1.0 * f.ts_corr(f.rank(open_), f.rank(volume), 10)),
        ("Ts_Rank(close, 10)", f.ts_rank(close, 10)),
        ("Ts_ArgMax(SignedPower(close, 2.), 5)", f.ts_argmax(f.signed_power(close, 2), 5)),
        ("max(close, 5)", f.ts_max(close, 5)),
        ("max(close, open)", f.max(close, open_)),
        ("min(close, 0.5)", f.min(close, 0.5)),
        ("max(close, -1)", f.max(close, -1)),
        ("Max($high, 30)", f.ts_max(high, 30)),
        ("Min($high, 30)", f.ts_min(high, 30)),
        ("Greater($open, $close)", f.max(open_, close)),
        ("Less($open, $close)", f.min(open_, close)),
        ("Rank($close, 5)", f.ts_rank(close, 5, pct=True)),
        ("Rank(close)", f.cs_rank(close)),
        ("RANK(close)", f.cs_rank(close)),
        ("rank(close)", f.cs_rank(close)),
        ("Mean($close, 5) / $close", f.ts_mean(close, 5) / close),
        ("Std($close, 5)/$close", f.ts_std(close, 5) / close),
        ("Ref($close, 1)", f.delay(close, 1)),
        ("Slope($close, 5)", f.ts_slope(close, 5)),
        ("Rsquare($close, 5)", f.ts_rsquare(close, 5)),
        ("Resi($close, 5)", f.ts_resid(close, 5)),
        ("Quantile($close, 5, 0.8)", f.ts_quantile(close, 5, 0.8)),
        ("IdxMax($high, 5)", f.ts_argmax(high, 5)),
        ("Corr($close, Log($volume+1), 5)", f.ts_corr(close, f.log(volume + 1), 5)),
        ("If($close > $open, 1, 0)", f.where(close > open_, 1, 0)),
        ("Power($close, 2)", f.pow(close, 2)),
        ("indneutralize(close, IndClass.industry)", f.indneutralize(close, f.field("industry"))),
        ("ts_quantile(close, q=0.8, n=5)", f.ts_quantile(close, 5, 0.8)),
        ("ts_rank(close, 5, pct=True)", f.ts_rank(close, 5, pct=True)),
        ("ts_rank(close, 5, True)", f.ts_rank(close, 5, pct=True)),
        ("ts_rank(close, 5, False) + True", f.ts_rank(close, 5) + f.field("True")),
        ("收盘 + $clôture", f.field("收盘") + f.field("clôture")),
        ("nan_to(close)", f.nan_to(close)),
        ("where(close, nan, inf)", f.where(close, float("nan"), float("inf"))),
        ("nan_to(close, -1)", f.nan_to(close, -1)),
        ("  close\n + 1 ", close + 1),
    ],
)
def test_reads(text, node):
    assert f.parse(text) is node


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "the expression is empty"),
        ("   ", "the expression is empty"),
        ("close +", r"expected a number, a name or '\(', got 'the end' - at column 8"),
        ("close close", "expected an operator or the end, got 'close' - at column 7, near 'close close'"),
        ("(close", r"expected '\)', got 'the end'"),
        ("close @ 2", "cannot read '@' - at column 7"),
        ("close ? 1", "expected ':', got 'the end'"),
        ("a < b < c", r"a comparison of a comparison .* write \(a < b\) & \(b < c\)"),
        ("rnak(close)", "there is no operator 'rnak' - at column 1, .* did you mean rank"),
        ("close(5)", "there is no operator 'close'"),
        ("stddev(close, 0)", r"ts_std\(x, n=0\): n must be at least 2, got 0 - at column 1"),
        ("sum(close, 2.5)", 'must be a whole number.*parse with fractional="floor"'),
        ("sum(close)", "ts_sum: n is missing"),
        ("sum(close, n=5, 3)", "a plain argument after a named one"),
        ("sum(close 5)", r"expected ',' or '\)', got '5'"),
        ("a.b", "cannot read the name 'a.b'"),
        ("(" * 300 + "x" + ")" * 300, "nested more than 64 deep .*; name the parts"),
        ("x^" * 300 + "x", "nested more than 64 deep"),
        ("1e99x", "expected an operator or the end"),
        ("'close'", 'cannot read "\'"'),
        ("x = 3", "expected an operator or the end, got '=' .*; write =="),
        ("close > 1 and open > 1", "expected an operator or the end, got 'and' .*; write &&"),
        ("not close", "expected an operator or the end, got 'close' .*; write !"),
        ("sum(close or open, 3)", r"expected ',' or '\)', got 'or' .*; write \|\|"),
        ("rank(True)", "expected a factor expression or a number, got bool True - in operand x of cs_rank"),
        ("sum(close, True)", r"ts_sum\(x, n=True\): n must be a number, got True"),
        ("ts_rank(close, 5, 1)", r"pct must be True or False, got 1"),
    ],
)
def test_refuses(text, message):
    with pytest.raises(FactorError, match=message):
        f.parse(text)


def test_errors_in_factors_name_the_factor():
    with pytest.raises(FactorError, match=r"in factor 'mine', at column 1") as caught:
        f.Factors(mine="rnak(close)")
    assert caught.value.column == 1


def test_long_sums_need_no_stack():
    node = f.parse(" + ".join(["close"] * 5000))
    assert f.compile({"x": node}).batch({"close": np.ones((1, 1))})["x"] == 5000


def test_fractional_windows_by_the_papers_convention():
    node = f.parse("ts_rank(decay_linear(close, 8.93345), 12.7)", fractional="floor")
    assert node is f.ts_rank(f.decay_linear(close, 8), 12)


def test_functions_may_stand_for_expressions():
    functions = {"ts_rank": lambda x, n: f.ts_rank(x, n, pct=True), "twice": lambda x: 2 * x}
    node = f.parse("Ts_Rank(twice(close), 5) + sum(open, 2)", functions=functions)
    assert node is f.ts_rank(2 * close, 5, pct=True) + f.ts_sum(open_, 2)


def test_names_may_stand_for_expressions():
    adv20 = f.ts_mean(volume, 20)
    assert f.parse("adv20 / volume", names={"adv20": adv20}) is adv20 / volume
