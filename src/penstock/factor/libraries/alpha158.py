"""Qlib's 158 factors of daily bars, under its names: KMID … KSFT2, OPEN0 … VWAP0, and 29 families such as ROC5 … ROC60.

    f.library("alpha158")["RSQR20"]
    f.library("alpha158", windows=(5, 20))              # 13 + 2 * 29

Inputs are open, high, low, close, volume, vwap (adjusted prices, as Qlib has them). Expressions are Qlib's (its handler
`Alpha158`, MIT licence), and so are its conventions: `Std` of the sample (ddof 1), `Rank` as a share of the window with
the mean of ties, `IdxMax` from 1, the oldest row, the first of ties, `Quantile` linear between neighbours. It differs

* before a window is full and while it holds a NaN: Qlib takes the rows there are (min_periods=1), here it is NaN; as
  soon as a window is full of numbers the values are the same;
* in CNTP, CNTN and CNTD over a missing row: a comparison with NaN is false in Qlib and NaN here;
* in RSQR, CORR, CORD of rows that hardly move: Qlib makes NaN of a deviation below 2e-5, here only of equal rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penstock.errors import FactorError
from penstock.factor.libraries.base import Library

__all__ = ["BARS", "ROLLING", "WINDOWS", "build"]

WINDOWS = (5, 10, 20, 30, 60)

BARS = {
    "KMID": "($close - $open) / $open",
    "KLEN": "($high - $low) / $open",
    "KMID2": "($close - $open) / ($high - $low + 1e-12)",
    "KUP": "($high - Greater($open, $close)) / $open",
    "KUP2": "($high - Greater($open, $close)) / ($high - $low + 1e-12)",
    "KLOW": "(Less($open, $close) - $low) / $open",
    "KLOW2": "(Less($open, $close) - $low) / ($high - $low + 1e-12)",
    "KSFT": "(2 * $close - $high - $low) / $open",
    "KSFT2": "(2 * $close - $high - $low) / ($high - $low + 1e-12)",
    "OPEN0": "$open / $close",
    "HIGH0": "$high / $close",
    "LOW0": "$low / $close",
    "VWAP0": "$vwap / $close",
}
"""Shape of one bar, and its prices relative to the close."""

_UP, _DOWN = "Greater({0} - Ref({0}, 1), 0)", "Greater(Ref({0}, 1) - {0}, 0)"
_MOVED = "(Sum(Abs({0} - Ref({0}, 1)), d) + 1e-12)"
_FLOW = "Abs($close / Ref($close, 1) - 1) * $volume"

ROLLING = {
    "ROC": "Ref($close, d) / $close",
    "MA": "Mean($close, d) / $close",
    "STD": "Std($close, d) / $close",
    "BETA": "Slope($close, d) / $close",
    "RSQR": "Rsquare($close, d)",
    "RESI": "Resi($close, d) / $close",
    "MAX": "Max($high, d) / $close",
    "MIN": "Min($low, d) / $close",
    "QTLU": "Quantile($close, d, 0.8) / $close",
    "QTLD": "Quantile($close, d, 0.2) / $close",
    "RANK": "Rank($close, d)",
    "RSV": "($close - Min($low, d)) / (Max($high, d) - Min($low, d) + 1e-12)",
    "IMAX": "IdxMax($high, d) / d",
    "IMIN": "IdxMin($low, d) / d",
    "IMXD": "(IdxMax($high, d) - IdxMin($low, d)) / d",
    "CORR": "Corr($close, Log($volume + 1), d)",
    "CORD": "Corr($close / Ref($close, 1), Log($volume / Ref($volume, 1) + 1), d)",
    "CNTP": "Mean($close > Ref($close, 1), d)",
    "CNTN": "Mean($close < Ref($close, 1), d)",
    "CNTD": "Mean($close > Ref($close, 1), d) - Mean($close < Ref($close, 1), d)",
    "SUMP": f"Sum({_UP}, d) / {_MOVED}".format("$close"),
    "SUMN": f"Sum({_DOWN}, d) / {_MOVED}".format("$close"),
    "SUMD": f"(Sum({_UP}, d) - Sum({_DOWN}, d)) / {_MOVED}".format("$close"),
    "VMA": "Mean($volume, d) / ($volume + 1e-12)",
    "VSTD": "Std($volume, d) / ($volume + 1e-12)",
    "WVMA": f"Std({_FLOW}, d) / (Mean({_FLOW}, d) + 1e-12)",
    "VSUMP": f"Sum({_UP}, d) / {_MOVED}".format("$volume"),
    "VSUMN": f"Sum({_DOWN}, d) / {_MOVED}".format("$volume"),
    "VSUMD": f"(Sum({_UP}, d) - Sum({_DOWN}, d)) / {_MOVED}".format("$volume"),
}
"""The families over d rows."""


def build(*, windows: Sequence[int] = WINDOWS) -> Library:
    """The library.

    Takes   windows: the d of the rolling families, whole numbers of at least 2.
    Returns the 13 of one bar, then each family's, named by family and d: ROC5, ROC10 …
    Raises  FactorError for other windows.
    """
    days = list(windows) if isinstance(windows, Iterable) and not isinstance(windows, str) else [windows]
    for d in days:
        if isinstance(d, bool) or not isinstance(d, int) or d < 2:
            raise FactorError(
                expected="windows of whole numbers, at least 2", got=repr(windows), where="in library 'alpha158'"
            )
    texts = dict(BARS)
    for family, text in ROLLING.items():
        for d in days:
            texts[f"{family}{d}"] = text.replace(", d", f", {d}").replace("/ d", f"/ {d}")
    return Library("alpha158", texts, texts)
