# Written by `python -m penstock.factor.stubs` from the operator table; a test compares them.

from typing import TypeAlias

from penstock.factor import evaluate as evaluate
from penstock.factor.executor import Executor as Executor
from penstock.factor.export import build as build
from penstock.factor.factors import Factors as Factors
from penstock.factor.feed import FactorWindow as FactorWindow
from penstock.factor.feed import Feed as Feed
from penstock.factor.graph import Node as Node
from penstock.factor.graph import constant as constant
from penstock.factor.graph import field as field
from penstock.factor.graph import fields as fields
from penstock.factor.libraries import library as library
from penstock.factor.live import Live as Live
from penstock.factor.ops.windowed import window_state as window_state
from penstock.factor.program import Program as Program
from penstock.factor.program import compile as compile
from penstock.factor.table import Cell as Cell
from penstock.factor.table import Flag as Flag
from penstock.factor.table import Monoid as Monoid
from penstock.factor.table import Number as Number
from penstock.factor.table import Operator as Operator
from penstock.factor.table import Ring as Ring
from penstock.factor.table import Rows as Rows
from penstock.factor.table import Series as Series
from penstock.factor.table import Share as Share
from penstock.factor.table import composite as composite
from penstock.factor.table import cross as cross
from penstock.factor.table import cross_numpy as cross_numpy
from penstock.factor.table import elementwise as elementwise
from penstock.factor.table import windowed as windowed
from penstock.factor.text import parse as parse

_Operand: TypeAlias = Node | float

def operators() -> dict[str, Operator]: ...
def abs(x: _Operand) -> Node:
    """|x|."""

def add(x: _Operand, y: _Operand) -> Node:
    """The sum x + y."""

def and_(x: _Operand, y: _Operand) -> Node:
    """1 where both are nonzero, else 0; NaN if either is. Written `x & y`."""

def ceil(x: _Operand) -> Node:
    """The smallest whole number not below x."""

def clip(x: _Operand, low: _Operand, high: _Operand) -> Node:
    """Keep x within `low` and `high`."""

def cs_bucket(x: _Operand, n: int) -> Node:
    """The bucket, 1 to n, of each key when its row is cut into n of equal size by rank; ties share a bucket."""

def cs_corr(x: _Operand, y: _Operand) -> Node:
    """Pearson's correlation of x and y over the row's keys that have both, within ±1, given to each of them."""

def cs_count(x: _Operand) -> Node:
    """How many keys of the row are present, given to each of them."""

def cs_demean(x: _Operand) -> Node:
    """Subtract the mean of the row."""

def cs_diff_weighted_sum(x: _Operand, w: _Operand) -> Node:
    """Subtract the sum of x * w over the row: the weighted mean, for weights with a sum of 1."""

def cs_group_sum(x: _Operand, group: _Operand) -> Node:
    """The sum of the present keys with the same `group` in this row, given to each of them."""

def cs_indneutralize(x: _Operand, group: _Operand) -> Node:
    """Subtract the mean of the keys with the same group in its row."""

def cs_mean(x: _Operand) -> Node:
    """The mean of the row's finite keys, given to each of them."""

def cs_order(x: _Operand) -> Node:
    """The place of each key in its row: 1 the smallest, the mean of ties."""

def cs_quantile(x: _Operand, q: float) -> Node:
    """The q-quantile of the row, linear between neighbours, given to each present key."""

def cs_rank(x: _Operand) -> Node:
    """The rank of each key in its row as a share, in (0, 1]: the mean of ties over the number of keys present."""

def cs_regress_residual(y: _Operand, x: _Operand) -> Node:
    """What is left of y beside its least-squares line on x, with intercept, through the row's keys that have both."""

def cs_scale(x: _Operand, a: float = 1.0) -> Node:
    """Scale by a over the sum of the row's absolute values, which then is a; NaN for a row of zeros."""

def cs_std(x: _Operand) -> Node:
    """The sample standard deviation (ddof 1) of the row's finite keys, given to each of them."""

def cs_sum(x: _Operand) -> Node:
    """The sum of the row's present keys, given to each of them."""

def cs_winsorize(x: _Operand, q: float = 0.01) -> Node:
    """Clip to the q- and (1 - q)-quantiles of its row."""

def cs_zscore(x: _Operand) -> Node:
    """How many standard deviations each key is above the mean of its row."""

def div(x: _Operand, y: _Operand) -> Node:
    """The quotient x / y; ±inf for a zero divisor, NaN for 0 / 0."""

def eq(x: _Operand, y: _Operand) -> Node:
    """1 where x == y, else 0; NaN if either is."""

def exp(x: _Operand) -> Node:
    """The exponential: e to the power x."""

def finite(x: _Operand) -> Node:
    """Put NaN in place of ±inf."""

def floor(x: _Operand) -> Node:
    """The largest whole number not above x."""

def ge(x: _Operand, y: _Operand) -> Node:
    """1 where x >= y, else 0; NaN if either is."""

def gt(x: _Operand, y: _Operand) -> Node:
    """1 where x > y, else 0; NaN if either is."""

def is_nan(x: _Operand) -> Node:
    """1 where x is NaN, else 0."""

def le(x: _Operand, y: _Operand) -> Node:
    """1 where x <= y, else 0; NaN if either is."""

def log(x: _Operand) -> Node:
    """The natural logarithm; -inf at zero, NaN below."""

def lt(x: _Operand, y: _Operand) -> Node:
    """1 where x < y, else 0; NaN if either is."""

def max(x: _Operand, y: _Operand) -> Node:
    """The larger of x and y; x where they are equal; NaN if either is."""

def min(x: _Operand, y: _Operand) -> Node:
    """The smaller of x and y; x where they are equal; NaN if either is."""

def mul(x: _Operand, y: _Operand) -> Node:
    """The product x * y."""

def nan_to(x: _Operand, value: float = 0.0) -> Node:
    """Put `value` in place of NaN. For infinities as well: `nan_to(finite(x))`."""

def ne(x: _Operand, y: _Operand) -> Node:
    """1 where x != y, else 0; NaN if either is."""

def neg(x: _Operand) -> Node:
    """-x."""

def not_(x: _Operand) -> Node:
    """1 where x is 0, else 0; NaN where x is. Written `~x`."""

def or_(x: _Operand, y: _Operand) -> Node:
    """1 where one is nonzero, else 0; NaN if either is. Written `x | y`."""

def pow(x: _Operand, y: _Operand) -> Node:
    """The power x ** y; NaN for x < 0 and fractional y. A constant y of 2 is defined as x * x, of 0.5 as sqrt(x)."""

def sign(x: _Operand) -> Node:
    """-1, 0 or 1; 0 for both zeros."""

def signed_power(x: _Operand, y: _Operand) -> Node:
    """The power of the size with the sign kept: sign(x) * |x| ** y."""

def snap(x: _Operand) -> Node:
    """Round to a multiple of 2 ** -36 (float32: 2 ** -14), so that numbers near 1 that differ by rounding are equal."""

def sqrt(x: _Operand) -> Node:
    """The square root; NaN below zero."""

def sub(x: _Operand, y: _Operand) -> Node:
    """The difference x - y."""

def ts_absdev(x: _Operand, center: _Operand, n: int) -> Node:
    """The mean distance of the last n rows from `center`'s current row."""

def ts_argmax(x: _Operand, n: int) -> Node:
    """Where in the window its largest row is: 1 the oldest … n the newest; the oldest of ties."""

def ts_argmin(x: _Operand, n: int) -> Node:
    """Where in the window its smallest row is: 1 the oldest … n the newest; the oldest of ties."""

def ts_corr(x: _Operand, y: _Operand, n: int) -> Node:
    """Pearson's correlation of the last n rows, within ±1; NaN if one side's rows are all equal."""

def ts_corr_or_zero(x: _Operand, y: _Operand, n: int) -> Node:
    """Pearson's correlation of the last n rows, within ±1; 0 if one side's rows are all equal."""

def ts_count(x: _Operand, n: int) -> Node:
    """How many of the last n rows are present."""

def ts_cov(x: _Operand, y: _Operand, n: int) -> Node:
    """The sample covariance (ddof 1) of the last n rows."""

def ts_cumsum(x: _Operand) -> Node:
    """The sum of all finite rows so far. It never forgets, and its rounding errors stay."""

def ts_decay_linear(x: _Operand, n: int) -> Node:
    """The mean of the last n rows with weights 1 (oldest) to n (newest); exactly their value if they are equal."""

def ts_delay(x: _Operand, n: int) -> Node:
    """The value n rows ago; NaN for the first n rows."""

def ts_delta(x: _Operand, n: int) -> Node:
    """The change over n rows: x - ts_delay(x, n)."""

def ts_ema(x: _Operand, span: int) -> Node:
    """The exponential mean with weight 2 / (span + 1) for the newest row, from the first finite row on."""

def ts_kurt(x: _Operand, n: int) -> Node:
    """The sample excess kurtosis of the last n rows, corrected for bias as pandas does; NaN for equal rows."""

def ts_mad(x: _Operand, n: int) -> Node:
    """The mean absolute deviation of the last n rows from their mean."""

def ts_max(x: _Operand, n: int) -> Node:
    """The largest of the last n rows; the older of equal zeros."""

def ts_max_drawdown(x: _Operand, n: int) -> Node:
    """The deepest fall (high - later low) / high within the last n rows of a price, 0 to 1."""

def ts_mean(x: _Operand, n: int) -> Node:
    """The mean of the last n rows; exactly their value if they are equal."""

def ts_median(x: _Operand, n: int) -> Node:
    """The median of the last n rows."""

def ts_min(x: _Operand, n: int) -> Node:
    """The smallest of the last n rows; the older of equal zeros."""

def ts_product(x: _Operand, n: int) -> Node:
    """The product of the last n rows."""

def ts_quantile(x: _Operand, n: int, q: float) -> Node:
    """The q-quantile of the last n rows, linear between neighbours."""

def ts_rank(x: _Operand, n: int, pct: bool = False) -> Node:
    """The rank of this row among the last n: 1 the smallest … n, the mean of ties; with pct divided by n."""

def ts_rank_pct(x: _Operand, n: int) -> Node:
    """The rank of this row among the last n as a share, in (0, 1]: the mean of ties over n."""

def ts_resid(x: _Operand, n: int) -> Node:
    """This row minus the least-squares line through the last n rows at this row."""

def ts_returns(x: _Operand, n: int = 1) -> Node:
    """The relative change over n rows: x / ts_delay(x, n) - 1."""

def ts_rsquare(x: _Operand, n: int) -> Node:
    """The share of the last n rows' variance that their least-squares line explains, 0 to 1; NaN for equal rows."""

def ts_since_max(x: _Operand, n: int) -> Node:
    """How many rows ago the largest of the last n was: 0 this row … n - 1; the newest of ties."""

def ts_since_min(x: _Operand, n: int) -> Node:
    """How many rows ago the smallest of the last n was: 0 this row … n - 1; the newest of ties."""

def ts_skew(x: _Operand, n: int) -> Node:
    """The sample skewness of the last n rows, corrected for bias as pandas does; NaN for equal rows."""

def ts_slope(x: _Operand, n: int) -> Node:
    """The slope of the least-squares line through the last n rows, per row."""

def ts_std(x: _Operand, n: int) -> Node:
    """The sample standard deviation (ddof 1) of the last n rows."""

def ts_sum(x: _Operand, n: int) -> Node:
    """The sum of the last n rows."""

def ts_var(x: _Operand, n: int) -> Node:
    """The sample variance (ddof 1) of the last n rows; exactly 0 for equal rows."""

def ts_zscore(x: _Operand, n: int) -> Node:
    """How many standard deviations this row is above the mean of the last n."""

def where(condition: _Operand, x: _Operand, y: _Operand) -> Node:
    """Choose x where the condition is nonzero, y where it is 0, NaN where it is NaN."""

Abs = abs
Add = add
And = and_
Ceil = ceil
Corr = ts_corr
Count = ts_count
Cov = ts_cov
Delta = ts_delta
Div = div
EMA = ts_ema
Eq = eq
Exp = exp
Floor = floor
Ge = ge
Greater = max
Gt = gt
IdxMax = ts_argmax
IdxMin = ts_argmin
If = where
IndNeutralize = cs_indneutralize
Kurt = ts_kurt
Le = le
Less = min
Log = log
Lt = lt
Mad = ts_mad
Max = ts_max
Mean = ts_mean
Med = ts_median
Min = ts_min
Mul = mul
Ne = ne
Neg = neg
Not = not_
Or = or_
Power = pow
Quantile = ts_quantile
Rank = ts_rank_pct
Ref = ts_delay
Resi = ts_resid
Rsquare = ts_rsquare
SMA = ts_mean
Sign = sign
SignedPower = signed_power
Skew = ts_skew
Slope = ts_slope
Sqrt = sqrt
Std = ts_std
Sub = sub
Sum = ts_sum
Var = ts_var
WMA = ts_decay_linear
argmax = ts_argmax
argmin = ts_argmin
bucket = cs_bucket
corr = ts_corr
correlation = ts_corr
count = ts_count
cov = ts_cov
covariance = ts_cov
cs_quantile_bucket = cs_bucket
decay_linear = ts_decay_linear
delay = ts_delay
delta = ts_delta
demean = cs_demean
ema = ts_ema
group_demean = cs_indneutralize
indneutralize = cs_indneutralize
kurt = ts_kurt
ln = log
logical_and = and_
logical_not = not_
logical_or = or_
mad = ts_mad
max_drawdown = ts_max_drawdown
maximum = max
mean = ts_mean
median = ts_median
minimum = min
power = pow
product = ts_product
quantile = ts_quantile
quantile_bucket = cs_bucket
rank = cs_rank
ref = ts_delay
regression_neut = cs_regress_residual
resid = ts_resid
returns = ts_returns
rolling_max = ts_max
rolling_mean = ts_mean
rolling_min = ts_min
rolling_std = ts_std
rolling_sum = ts_sum
rsquare = ts_rsquare
scale = cs_scale
signedpower = signed_power
skew = ts_skew
slope = ts_slope
sma = ts_mean
std = ts_std
stddev = ts_std
sum = ts_sum
var = ts_var
variance = ts_var
winsorize = cs_winsorize
wma = ts_decay_linear
zscore = cs_zscore
