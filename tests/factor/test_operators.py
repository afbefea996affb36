"""Every operator of the table against an independent two-pass computation in extended precision."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from penstock import factor as f
from penstock.factor.table import TABLE, Kind

f.operators()
LONG = np.longdouble
ROWS = 70


def windows(x, n):
    """(rows, keys, n); windows that begin before the first row hold NaN."""
    padded = np.concatenate([np.full((n - 1, x.shape[1]), np.nan, LONG), x.astype(LONG)])
    return np.lib.stride_tricks.sliding_window_view(padded, n, axis=0)


def spread(w):
    return w - w.mean(axis=-1, keepdims=True)


def holds_nan(*ws):
    return np.any([np.isnan(w).any(axis=-1) for w in ws], axis=0)


def blank(value, *ws):
    return np.where(holds_nan(*ws), np.nan, value)


def var(x, n):
    return (spread(windows(x, n)) ** 2).sum(-1) / (n - 1)


def mean(x, n):
    return windows(finite(x), n).sum(-1) / n


def cov(x, y, n):
    return (spread(windows(x, n)) * spread(windows(y, n))).sum(-1) / (n - 1)


def skew(x, n):
    d = spread(windows(x, n))
    g = (d**3).mean(-1) / (d**2).mean(-1) ** LONG(1.5)
    return g * np.sqrt(LONG(n * (n - 1))) / (n - 2)


def kurt(x, n):
    d = spread(windows(x, n))
    g = (d**4).mean(-1) / (d**2).mean(-1) ** 2 - 3
    return (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * g + 6)


def corr(x, y, n):
    return cov(x, y, n) / np.sqrt(var(x, n)) / np.sqrt(var(y, n))


def corr_or_zero(x, y, n):
    whole = np.isfinite(windows(x, n)).all(-1) & np.isfinite(windows(y, n)).all(-1)
    flat = whole & ((var(x, n) == 0) | (var(y, n) == 0))
    return np.where(flat, 0, corr(x, y, n))


def line(x, n):
    """Slope, R² and residual at the newest row of ordinary least squares."""
    w, at = windows(x, n), np.arange(n) - LONG(n - 1) / 2
    d = spread(w)
    slope = (d * at).sum(-1) / (at**2).sum()
    rsquare = slope * (d * at).sum(-1) / (d**2).sum(-1)
    return slope, rsquare, d[..., -1] - slope * at[-1]


def sorted_at(rows, q):
    place = LONG(q) * (rows.shape[-1] - 1)
    low = int(np.floor(float(q) * (rows.shape[-1] - 1)))
    below, above = rows[..., low], rows[..., min(low + 1, rows.shape[-1] - 1)]
    return np.where((below == above) | (place == low), below, below + (above - below) * (place - low))


def quantile(x, n, q):
    w = windows(x, n)
    return blank(sorted_at(np.sort(w, axis=-1), q), w)


def ts_rank(x, n, pct):
    w = windows(x, n)
    last = w[..., -1:]
    rank = (w < last).sum(-1) + ((w == last).sum(-1) + 1) / LONG(2)
    return blank(rank / n if pct else rank, w)


def drawdown(x, n):
    w = windows(np.where((x > 0) & np.isfinite(x), x, np.nan), n)
    return blank(np.max(1 - w / np.maximum.accumulate(w, axis=-1), axis=-1), w)


def ema(x, span):
    values = np.where(np.isfinite(x), x, np.nan).astype(np.float64)
    made = pd.DataFrame(values).ewm(span=span, adjust=False, ignore_na=True).mean().to_numpy()
    return np.where(np.isnan(values), np.nan, made)


def cumsum(x):
    there = np.isfinite(x)
    return np.where(there, np.where(there, x, 0).astype(LONG).cumsum(0), np.nan)


def delay(x, n):
    return np.concatenate([np.full((n, x.shape[1]), np.nan), x])[: len(x)]


def finite(x):
    return np.where(np.isfinite(x), x, np.nan).astype(LONG)


def row_mean(x):
    return pd_mean(finite(x))


def pd_mean(x):
    there = ~np.isnan(x)
    return np.where(there, x, 0).sum(1, keepdims=True) / there.sum(1, keepdims=True)


def row_std(x):
    d = finite(x) - row_mean(x)
    there = ~np.isnan(d)
    return np.sqrt(np.where(there, d * d, 0).sum(1, keepdims=True) / (there.sum(1, keepdims=True) - 1))


def row_quantile(x, q):
    made = [sorted_at(np.sort(row[~np.isnan(row)].astype(LONG)), q) if (~np.isnan(row)).any() else np.nan for row in x]
    return np.array(made, LONG)[:, None]


def grouped(x, group, what):
    out = np.full(x.shape, np.nan, LONG)
    for row in range(len(x)):
        for label in set(group[row][~np.isnan(group[row])]):
            mine = group[row] == label
            out[row, mine] = what(x[row, mine].astype(LONG))
    return out


def neutral(x):
    x = np.where(np.isfinite(x), x, np.nan)
    return x - (x[~np.isnan(x)].mean() if (~np.isnan(x)).any() else np.nan)


def truth(made, *xs):
    return np.where(np.any([np.isnan(x) for x in xs], axis=0), np.nan, made)


def order(x):
    return pd.DataFrame(x).rank(axis=1).to_numpy()


def present(x):
    return (~np.isnan(x)).sum(1, keepdims=True)


def among(x, value):
    return np.where(np.isnan(x), np.nan, value)


def clip(x, low, high):
    return np.minimum(np.maximum(x, low), high)


def argbest(x, n, best):
    w = windows(x, n)
    return blank(best(np.where(np.isnan(w), 0, w), axis=-1) + 1, w)


def paired(x, y, what):
    """`what(x, y)` of each row's pairs in extended precision, NaN elsewhere."""
    out = np.full(x.shape, np.nan, LONG)
    for row in range(len(x)):
        both = np.isfinite(x[row]) & np.isfinite(y[row])
        if both.any():
            out[row, both] = what(x[row, both].astype(LONG), y[row, both].astype(LONG))
    return out


def row_corr(x, y):
    if len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        return np.nan
    return (spread(x) * spread(y)).sum() / np.sqrt((spread(x) ** 2).sum()) / np.sqrt((spread(y) ** 2).sum())


def row_residual(y, x):
    if (x == x[0]).all():
        return y - y.mean()
    dx, dy = x - x.mean(), y - y.mean()
    return dy - dx * ((dx * dy).sum() / (dx * dx).sum())


REFERENCE = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "neg": lambda x: -x,
    "abs": np.abs,
    "sign": np.sign,
    "sqrt": np.sqrt,
    "log": lambda x: np.log(x.astype(LONG)),
    "exp": lambda x: np.exp(x.astype(LONG)),
    "pow": lambda x, y: truth(np.power(x.astype(LONG), y), x, y),
    "floor": np.floor,
    "ceil": np.ceil,
    "min": np.minimum,
    "max": np.maximum,
    "lt": lambda x, y: truth(x < y, x, y),
    "le": lambda x, y: truth(x <= y, x, y),
    "gt": lambda x, y: truth(x > y, x, y),
    "ge": lambda x, y: truth(x >= y, x, y),
    "eq": lambda x, y: truth(x == y, x, y),
    "ne": lambda x, y: truth(x != y, x, y),
    "and_": lambda x, y: truth((x != 0) & (y != 0), x, y),
    "or_": lambda x, y: truth((x != 0) | (y != 0), x, y),
    "not_": lambda x: truth(x == 0, x),
    "where": lambda c, x, y: truth(np.where(c != 0, x, y), c),
    "nan_to": lambda x, value: np.where(np.isnan(x), value, x),
    "is_nan": np.isnan,
    "finite": finite,
    "snap": lambda x: x,
    "clip": clip,
    "signed_power": lambda x, y: truth(np.sign(x) * np.power(np.abs(x).astype(LONG), y), x, y),
    "ts_sum": lambda x, n: windows(x, n).sum(-1),
    "ts_product": lambda x, n: windows(x, n).prod(-1),
    "ts_mean": mean,
    "ts_var": var,
    "ts_std": lambda x, n: np.sqrt(var(x, n)),
    "ts_skew": skew,
    "ts_kurt": kurt,
    "ts_min": lambda x, n: windows(x, n).min(-1),
    "ts_max": lambda x, n: windows(x, n).max(-1),
    "ts_argmin": lambda x, n: argbest(x, n, np.argmin),
    "ts_argmax": lambda x, n: argbest(x, n, np.argmax),
    "ts_rank": ts_rank,
    "ts_quantile": quantile,
    "ts_rank_pct": lambda x, n: ts_rank(x, n, True),
    "ts_median": lambda x, n: quantile(x, n, 0.5),
    "ts_delay": delay,
    "ts_delta": lambda x, n: x - delay(x, n),
    "ts_returns": lambda x, n: x.astype(LONG) / delay(x, n) - 1,
    "ts_cov": cov,
    "ts_corr": corr,
    "ts_corr_or_zero": corr_or_zero,
    "ts_decay_linear": lambda x, n: (windows(x, n) * np.arange(1, n + 1)).sum(-1) / (n * (n + 1) / 2),
    "ts_slope": lambda x, n: line(x, n)[0],
    "ts_rsquare": lambda x, n: line(x, n)[1],
    "ts_resid": lambda x, n: line(x, n)[2],
    "ts_absdev": lambda x, c, n: np.abs(windows(x, n) - c[..., None]).sum(-1) / n,
    "ts_mad": lambda x, n: np.abs(spread(windows(x, n))).sum(-1) / n,
    "ts_zscore": lambda x, n: (x - mean(x, n)) / np.sqrt(var(x, n)),
    "ts_count": lambda x, n: windows((~np.isnan(x)).astype(float), n).sum(-1),
    "ts_max_drawdown": drawdown,
    "ts_ema": ema,
    "ts_cumsum": cumsum,
    "ts_since_min": lambda x, n: n - argbest(x, n, lambda w, axis: n - 1 - np.argmin(w[..., ::-1], axis)),
    "ts_since_max": lambda x, n: n - argbest(x, n, lambda w, axis: n - 1 - np.argmax(w[..., ::-1], axis)),
    "cs_count": lambda x: among(x, present(x)),
    "cs_sum": lambda x: among(x, np.nansum(x.astype(LONG), axis=1, keepdims=True)),
    "cs_order": order,
    "cs_rank": lambda x: pd.DataFrame(x).rank(axis=1, pct=True).to_numpy(),
    "cs_quantile": lambda x, q: among(x, row_quantile(x, q)),
    "cs_group_sum": lambda x, g: among(x, grouped(x, g, np.nansum)),
    "cs_corr": lambda x, y: paired(x, y, row_corr),
    "cs_regress_residual": lambda y, x: paired(y, x, row_residual),
    "cs_diff_weighted_sum": lambda x, w: x - among(x * w, np.nansum((x * w).astype(LONG), axis=1, keepdims=True)),
    "cs_mean": lambda x: among(finite(x), row_mean(x)),
    "cs_std": lambda x: among(finite(x), row_std(x)),
    "cs_demean": lambda x: finite(x) - row_mean(x),
    "cs_zscore": lambda x: (finite(x) - row_mean(x)) / row_std(x),
    "cs_scale": lambda x, a: finite(x) * a / np.nansum(np.abs(finite(x)), axis=1, keepdims=True),
    "cs_winsorize": lambda x, q: clip(x, row_quantile(x, q), row_quantile(x, 1 - q)),
    "cs_bucket": lambda x, n: np.ceil(order(x) * n / present(x)),
    "cs_indneutralize": lambda x, g: grouped(x, g, neutral),
}

# Products and powers of wild values leave every range; ratios of the moments of denormals are ratios of zeros.
GENTLE = {"ts_product"}
NO_DENORMALS = {
    "ts_product",
    "ts_corr",
    "ts_corr_or_zero",
    "ts_skew",
    "ts_kurt",
    "ts_rsquare",
    "ts_zscore",
    "ts_std",
    "cs_std",
    "cs_zscore",
    "cs_scale",
}

# Inputs enter these with a rounding of their own size, which counts in units of their spread.
RATIOS = {"ts_corr", "ts_corr_or_zero", "ts_skew", "ts_kurt", "ts_rsquare", "ts_zscore"}


def data(name, keys, dtype, rng, wild):
    """Three operands and a group; wild: holes, both zeros, infinities, denormals, ties and constant stretches."""
    made = {}
    for i, letter in enumerate("abc"):
        x = 20 * np.exp(rng.normal(0, 0.05, (ROWS, keys)).cumsum(0)) + i
        if name in GENTLE:
            x = 1 + rng.normal(0, 0.05, (ROWS, keys))
        if wild:
            x = np.where(rng.random(x.shape) < 0.2, np.round(x), x)
            x[10:25] = x[10] if name not in GENTLE else 1.0
            x[rng.random(x.shape) < 0.1] *= -1
            for value in (0.0, -0.0, np.nan):
                x[rng.random(x.shape) < 0.02] = value
            if name not in NO_DENORMALS:
                x[rng.random(x.shape) < 0.02] = np.finfo(dtype).smallest_subnormal * 3
            x[40:44][rng.random((4, keys)) < 0.2] = np.inf
            x[42:46][rng.random((4, keys)) < 0.2] = -np.inf
        made[letter] = x.astype(dtype)
    made["g"] = rng.integers(0, 3, (ROWS, keys)).astype(dtype)
    if wild:
        made["g"][rng.random((ROWS, keys)) < 0.05] = np.nan
    return made


def calls(operator):
    """Attribute sets that reach the operator's different paths: a short, a ringed and a long window."""
    kinds = {p.name: p for p in operator.attributes}
    if any(p.kind == "Rows" for p in kinds.values()):
        least = max(int(p.least or 1) for p in kinds.values() if p.kind == "Rows")
        lengths = sorted({least, 3, 5, 20})
    else:
        lengths = [0]
    for length in lengths:
        attrs = {}
        for p in kinds.values():
            values = {"Rows": length, "Share": 0.3, "Number": 2.5, "Flag": length == 5}
            attrs[p.name] = values[p.kind]
        if all(attrs[p.name] >= (p.least or 0) for p in kinds.values() if p.kind == "Rows"):
            yield attrs


def close(got, want, scale, operator, dtype):
    """None if equal within the record's tolerance, else a text."""
    with np.errstate(all="ignore"):
        want = np.broadcast_to(np.asarray(want), got.shape)
        rounded = want.astype(dtype)
        same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
        error = np.abs(got.astype(LONG) - want)
        allowed = operator.tolerance * np.finfo(dtype).eps * np.maximum(np.abs(want), scale)
        bad = ~(same | (error <= allowed + np.finfo(dtype).tiny * (operator.tolerance > 0)))
    if not bad.any():
        return None
    row, key = np.argwhere(bad)[0]
    worst = np.nanmax(np.where(bad, error / np.maximum(np.abs(want), scale), 0)) / np.finfo(dtype).eps
    return f"{bad.sum()} cells, ({row}, {key}): got {got[row, key]!r}, want {want[row, key]!r}; worst {worst:.0f} eps"


def test_every_operator_has_a_reference():
    assert set(REFERENCE) == set(TABLE)


@pytest.mark.parametrize("wild", [False, True], ids=["plain", "wild"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", sorted(TABLE))
def test_equals_an_independent_computation(name, dtype, wild):
    operator = TABLE[name]
    for keys in (1, 7, 64):
        rng = np.random.default_rng([keys, wild])
        panel = data(name, keys, dtype, rng, wild)
        letters = list("abc"[: len(operator.operands)])
        if operator.operands[-1].name == "group":
            letters[-1] = "g"
        xs = [panel[letter] for letter in letters]
        nodes = f.fields(*letters)
        for attrs in calls(operator):
            got = f.compile({"out": operator(*nodes, **attrs)}, dtype=dtype, checked=True).batch(panel)["out"]
            assert got.dtype == dtype
            with np.errstate(all="ignore"):
                want = REFERENCE[name](*[x.astype(np.float64) for x in xs], **attrs)
            problem = close(got, want, reach(operator, xs, attrs), operator, dtype)
            assert problem is None, f"{operator.usage()} {attrs} {dtype} keys={keys}: {problem}"


def reach(operator, xs, attrs):
    """The largest finite input in the window (or row) to the power `degree`; in ratios over the spread."""
    if operator.name in RATIOS:
        with np.errstate(all="ignore"):
            made = [np.max(np.abs(windows(x, attrs["n"])), axis=-1) / np.sqrt(var(x, attrs["n"])) for x in xs]
        return np.nan_to_num(np.max(made, axis=0), nan=1, posinf=1)
    if operator.degree == 0:
        return LONG(1)
    sizes = np.max([np.where(np.isfinite(x), np.abs(x), 0) for x in xs], axis=0)
    n = attrs.get("n", 1)
    largest = windows(sizes, n) if operator.name.startswith("ts_") else sizes[..., None]
    largest = np.nanmax(largest, axis=-1)
    if operator.name.startswith("cs_"):
        largest = np.broadcast_to(largest.sum(1, keepdims=True), largest.shape)
    if operator.name in ("ts_ema", "ts_cumsum"):
        largest = np.maximum.accumulate(largest, axis=0)
    return largest**operator.degree * {"ts_sum": n, "ts_cumsum": ROWS}.get(operator.name, 1)


def warms_up(operator):
    """Whether a NaN shows that it is not warm: not for what gives a number for everything."""
    return operator.kind is not Kind.CROSS and not operator.nan.startswith("never NaN")


@pytest.mark.parametrize("name", sorted(n for n in TABLE if warms_up(TABLE[n])))
def test_rows_before_the_lookback_are_nan_and_later_ones_are_not(name):
    operator = TABLE[name]
    rng = np.random.default_rng(5)
    panel = {letter: np.abs(rng.normal(5, 1, (60, 4))) for letter in "abc"}
    nodes = f.fields(*"abc"[: len(operator.operands)])
    for attrs in calls(operator):
        program = f.compile({"out": operator(*nodes, **attrs)})
        out = program.batch(panel)["out"]
        assert np.isnan(out[: program.warmup]).all()
        assert np.isfinite(out[program.warmup :]).all(), attrs


def test_records_are_complete():
    for operator in TABLE.values():
        assert operator.doc[0].isupper() or not operator.doc[0].isalpha() or operator.doc.startswith("x"), operator.name
        assert operator.nan
        if operator.kind is Kind.WINDOWED:
            assert operator.state is not None
            assert operator.lookback is not None
    assert TABLE["ts_var"].usage() == "ts_var(x, n)"
    assert str(f.ts_quantile.__signature__) == "(x, n, q)"
    assert "sample variance" in f.ts_var.__doc__


def test_one_outlier_leaves_no_trace():
    # Running sums keep a value of 1e300 forever; here its rounding leaves with its row.
    x = np.random.default_rng(2).normal(100, 1, (300, 1))
    spoiled = x.copy()
    spoiled[100], spoiled[120], spoiled[130] = 1e300, np.inf, np.nan
    a = f.field("a")
    names = {
        n: TABLE[n](a, n=20) for n in ("ts_sum", "ts_var", "ts_skew", "ts_kurt", "ts_slope", "ts_rsquare", "ts_product")
    }
    program = f.compile(names)
    good, bad = program.batch({"a": x}), program.batch({"a": spoiled})
    for name in names:
        assert (good[name][150:].view("u8") == bad[name][150:].view("u8")).all(), name


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_error_does_not_grow_with_history(dtype):
    rng = np.random.default_rng(3)
    x = (20 * np.exp(rng.normal(0, 0.01, (60_000, 1)).cumsum(0) * 0.1)).astype(dtype)
    program = f.compile({n: TABLE[n](f.field("a"), n=20) for n in ("ts_slope", "ts_rsquare", "ts_var")}, dtype=dtype)
    out = program.batch({"a": x})
    tail = x[-400:].astype(np.float64)
    for name, want in (("ts_slope", line(tail, 20)[0]), ("ts_rsquare", line(tail, 20)[1]), ("ts_var", var(tail, 20))):
        error = np.nanmax(np.abs(out[name][-380:] - want[20:]) / np.nanmax(np.abs(want[20:])))
        assert error < 2000 * np.finfo(dtype).eps, name


@pytest.mark.parametrize("engine", ["llvm", "numpy"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_rows_that_cannot_be_correlated(engine, dtype):
    nan, inf = np.nan, np.inf
    a = [[1, 2, 3, 4], [1, nan, 3, inf], [5, 5, 5, 5], [1, 2, 3, 4], [nan] * 4, [1, nan, nan, 4], [1, 2, 3, 1e30]]
    b = [[2, 4, 6, 8], [2, 4, 6, 8], [1, 2, 3, 4], [7, 7, 7, 7], [1, 2, 3, 4], [nan, 1, 1, 1], [3, 2, 1, 1e-30]]
    x, y = f.fields("a", "b")
    program = f.compile({"corr": f.cs_corr(x, y), "left": f.cs_regress_residual(y, x)}, dtype=dtype, engine=engine)
    panel = {"a": np.array(a, dtype), "b": np.array(b, dtype)}
    out = program.batch(panel)
    same = [[1] * 4, [1, nan, 1, nan], [nan] * 4, [nan] * 4, [nan] * 4, [nan] * 4]
    np.testing.assert_array_equal(out["corr"][:6], np.array(same, dtype))
    left = [[0] * 4, [0, nan, 0, nan], [-1.5, -0.5, 0.5, 1.5], [0] * 4, [nan] * 4, [nan, nan, nan, 0]]
    np.testing.assert_array_equal(out["left"][:6], np.array(left, dtype))
    assert np.isfinite(out["corr"][6]).all()
    np.testing.assert_allclose(out["left"][6], [1, 0, -1, 0], atol=1e-6)  # the large one is fitted
    alone = program.batch({name: values[:, :1] for name, values in panel.items()})
    assert np.isnan(alone["corr"]).all()
    assert alone["left"][:4, 0].tolist() == [0] * 4
    nobody = program.batch({name: values[:, :0] for name, values in panel.items()})
    assert nobody["corr"].shape == nobody["left"].shape == (7, 0)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_correlations_of_rows_know_no_unit(dtype):
    # Squares of these overflow and vanish, and the means are much larger than what is about them.
    rng = np.random.default_rng(8)
    huge = 1e30 if dtype == "float32" else 1e250
    x, y = f.fields("a", "b")
    program = f.compile({"corr": f.cs_corr(x, y), "left": f.cs_regress_residual(y, x)}, dtype=dtype)
    for keys in (3, 64, 700):
        for size, offset in ((1, 0), (huge, 3), (1 / huge, 3), (1, 1e4)):
            a = rng.normal(0, 1, (6, keys))
            b = (rng.normal(0, 1, (6, keys)) + a + offset / 9).astype(dtype)
            a = ((a + offset) * size).astype(dtype)
            out = program.batch({"a": a, "b": b})
            eps = np.finfo(dtype).eps
            assert np.abs(out["corr"] - paired(a, b, row_corr)).max() < 8 * eps
            assert np.abs(out["left"] - paired(b, a, row_residual)).max() < 8 * eps * np.abs(b).max()


def test_two_regressors_one_after_the_other():
    rng = np.random.default_rng(9)
    panel = {name: rng.normal(5, 1, (20, 50)) for name in "abc"}
    a, b, c = f.fields(*"abc")
    residual = f.cs_regress_residual
    got = f.compile({"out": residual(residual(c, a), residual(b, a))}).batch(panel)["out"]
    for row in range(20):
        design = np.stack([np.ones(50), panel["a"][row], panel["b"][row]], axis=1)
        fit = design @ np.linalg.lstsq(design, panel["c"][row], rcond=None)[0]
        np.testing.assert_allclose(got[row], panel["c"][row] - fit, atol=1e-12)


# ---- squares and higher powers beyond the dtype ----

FREE = ("corr", "corr_or_zero", "rsquare", "skew", "kurt")
MADE_OF_POWERS = f.compile(
    {
        "corr": f.ts_corr(f.field("x"), f.field("y"), 9),
        "corr_or_zero": f.ts_corr_or_zero(f.field("x"), f.field("y"), 9),
        "rsquare": f.ts_rsquare(f.field("x"), 9),
        "skew": f.ts_skew(f.field("x"), 9),
        "kurt": f.ts_kurt(f.field("x"), 9),
        "slope": f.ts_slope(f.field("x"), 9),
        "cov": f.ts_cov(f.field("x"), f.field("y"), 9),
        "var": f.ts_var(f.field("x"), 9),
    },
    engine="numpy",
)


@pytest.mark.parametrize("engine", ["llvm", "numpy"])
@pytest.mark.parametrize("dtype, most", [("float64", 1010), ("float32", 114)])
def test_what_is_made_of_powers_is_right_or_nan(engine, dtype, most):
    # Times a power of two all roundings are the same: another value than the scaled one comes of a lost range.
    program = f.compile(MADE_OF_POWERS.factors, dtype=dtype, engine=engine)
    rng = np.random.default_rng(5)
    x, y = rng.normal(0, 1, (2, 40, 5)).astype(dtype)
    plain = program.batch({"x": x, "y": y})
    tiny = np.finfo(dtype).tiny
    there = {name: [] for name in program.outputs}
    for power in range(-most, most + 1, most // 57):
        scale = np.ldexp(np.ones((), dtype), power)
        out = program.batch({"x": x * scale, "y": y})
        for name, values in out.items():
            power_of = 0 if name in FREE else 2 if name == "var" else 1
            with np.errstate(over="ignore", under="ignore"):
                want = np.ldexp(plain[name], power * power_of)
            # Where a sum of powers is just large enough, its smallest parts may have lost digits.
            lost = 1000 * np.finfo(dtype).eps * (1 if name in FREE else np.maximum(np.abs(want), tiny))
            right = (values == want) | (np.abs(values - want) <= lost)
            assert (right | np.isnan(values))[8:].all(), (name, power)
            there[name] += [power] * bool(np.isfinite(values[8:]).all())
    for name, powers in there.items():
        least = {"skew": 3, "kurt": 4}.get(name, 2)
        assert max(powers) > most / least * 0.9
        assert min(powers) < -most / least * 0.9


def test_a_square_that_vanishes_is_no_equal_row():
    x = np.array([[1.0], [2], [4], [3]]) * 1e-200
    y = np.array([[1.0], [2], [4], [3]])
    flat = np.full((4, 1), 7.0)
    factors = {"c": f.ts_corr_or_zero(f.field("x"), f.field("y"), 4)}
    program = f.compile(factors, engine="numpy")
    assert np.isnan(program.batch({"x": x, "y": y})["c"][3, 0])
    assert program.batch({"x": flat, "y": y})["c"][3, 0] == 0


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("engine", ["llvm", "numpy"])
def test_decay_of_equal_rows_is_their_value(engine, dtype):
    values = np.array([0.1, 10 / 19, -0.3, 1e30, 1e-30, 0.0, np.inf])
    made = {f"n{n}": f.ts_decay_linear(f.field("x"), n) for n in (1, 2, 4, 5, 10, 17, 40)}
    out = f.compile(made, dtype=dtype, engine=engine).batch({"x": np.tile(values, (120, 1))})
    for name, x in out.items():
        warm = int(name[1:]) - 1
        assert np.isnan(x[:warm]).all()
        # Where they began in a block shows in no bit: a rank along time finds them equal.
        assert (x[warm:] == values.astype(dtype)).all(), name
