"""Operators on one row and key: arithmetic, comparison, logic, functions.

Arithmetic is IEEE 754 in the program's dtype, without contraction: x / 0 is ±inf, 0 / 0 is NaN. Truth is 1 or 0;
a comparison with NaN is NaN, not false, so that rows before a window is full stay NaN through `where`.
"""

from __future__ import annotations

from penstock.factor.table import Number, Series, Value, elementwise

__all__ = [
    "abs",
    "add",
    "and_",
    "ceil",
    "div",
    "eq",
    "exp",
    "finite",
    "floor",
    "ge",
    "gt",
    "is_nan",
    "le",
    "log",
    "lt",
    "max",
    "min",
    "mul",
    "nan_to",
    "ne",
    "neg",
    "not_",
    "or_",
    "pow",
    "sign",
    "snap",
    "sqrt",
    "sub",
    "where",
]

Machine = Value


@elementwise(aliases=("Add",))
def add(m: Machine, x: Series, y: Series) -> Value:
    """The sum x + y."""
    return x + y


@elementwise(aliases=("Sub",))
def sub(m: Machine, x: Series, y: Series) -> Value:
    """The difference x - y."""
    return x - y


@elementwise(aliases=("Mul",))
def mul(m: Machine, x: Series, y: Series) -> Value:
    """The product x * y."""
    return x * y


@elementwise(aliases=("Div",))
def div(m: Machine, x: Series, y: Series) -> Value:
    """The quotient x / y; ±inf for a zero divisor, NaN for 0 / 0."""
    return x / y


@elementwise(aliases=("Neg",))
def neg(m: Machine, x: Series) -> Value:
    """-x."""
    return -x


@elementwise(aliases=("Abs",))
def abs(m: Machine, x: Series) -> Value:
    """|x|."""
    return m.abs(x)


@elementwise(aliases=("Sign",))
def sign(m: Machine, x: Series) -> Value:
    """-1, 0 or 1; 0 for both zeros."""
    return m.where(x > 0.0, 1.0, m.where(x < 0.0, -1.0, m.where(x == 0.0, 0.0, m.nan)))


@elementwise(aliases=("Sqrt",))
def sqrt(m: Machine, x: Series) -> Value:
    """The square root; NaN below zero."""
    return m.sqrt(x)


@elementwise(aliases=("Log", "ln"), tolerance=4)
def log(m: Machine, x: Series) -> Value:
    """The natural logarithm; -inf at zero, NaN below."""
    return m.log(x)


@elementwise(aliases=("Exp",), tolerance=4)
def exp(m: Machine, x: Series) -> Value:
    """The exponential: e to the power x."""
    return m.exp(x)


@elementwise(aliases=("Power", "power"), tolerance=4)
def pow(m: Machine, x: Series, y: Series) -> Value:
    """The power x ** y; NaN for x < 0 and fractional y. A constant y of 2 is defined as x * x, of 0.5 as sqrt(x).

    NaN spreads, also where IEEE would give 1 (x ** 0, 1 ** y): a missing operand is a missing result.
    """
    return m.where(m.present(x) & m.present(y), m.pow(x, y), m.nan)


@elementwise(aliases=("Floor",))
def floor(m: Machine, x: Series) -> Value:
    """The largest whole number not above x."""
    return m.floor(x)


@elementwise(aliases=("Ceil",))
def ceil(m: Machine, x: Series) -> Value:
    """The smallest whole number not below x."""
    return -m.floor(-x)


@elementwise(aliases=("Less", "minimum"))
def min(m: Machine, x: Series, y: Series) -> Value:
    """The smaller of x and y; x where they are equal; NaN if either is."""
    return m.where((x <= y) | ~m.present(x), x, y)


@elementwise(aliases=("Greater", "maximum"))
def max(m: Machine, x: Series, y: Series) -> Value:
    """The larger of x and y; x where they are equal; NaN if either is."""
    return m.where((x >= y) | ~m.present(x), x, y)


def _truth(m: Machine, mask: Value, x: Value, y: Value) -> Value:
    return m.where(m.present(x) & m.present(y), m.where(mask, 1.0, 0.0), m.nan)


@elementwise(aliases=("Lt",))
def lt(m: Machine, x: Series, y: Series) -> Value:
    """1 where x < y, else 0; NaN if either is."""
    return _truth(m, x < y, x, y)


@elementwise(aliases=("Le",))
def le(m: Machine, x: Series, y: Series) -> Value:
    """1 where x <= y, else 0; NaN if either is."""
    return _truth(m, x <= y, x, y)


@elementwise(aliases=("Gt",))
def gt(m: Machine, x: Series, y: Series) -> Value:
    """1 where x > y, else 0; NaN if either is."""
    return _truth(m, x > y, x, y)


@elementwise(aliases=("Ge",))
def ge(m: Machine, x: Series, y: Series) -> Value:
    """1 where x >= y, else 0; NaN if either is."""
    return _truth(m, x >= y, x, y)


@elementwise(aliases=("Eq",))
def eq(m: Machine, x: Series, y: Series) -> Value:
    """1 where x == y, else 0; NaN if either is."""
    return _truth(m, x == y, x, y)


@elementwise(aliases=("Ne",))
def ne(m: Machine, x: Series, y: Series) -> Value:
    """1 where x != y, else 0; NaN if either is."""
    return _truth(m, x != y, x, y)


@elementwise(aliases=("And", "logical_and"))
def and_(m: Machine, x: Series, y: Series) -> Value:
    """1 where both are nonzero, else 0; NaN if either is. Written `x & y`."""
    return _truth(m, (x != 0.0) & (y != 0.0), x, y)


@elementwise(aliases=("Or", "logical_or"))
def or_(m: Machine, x: Series, y: Series) -> Value:
    """1 where one is nonzero, else 0; NaN if either is. Written `x | y`."""
    return _truth(m, (x != 0.0) | (y != 0.0), x, y)


@elementwise(aliases=("Not", "logical_not"))
def not_(m: Machine, x: Series) -> Value:
    """1 where x is 0, else 0; NaN where x is. Written `~x`."""
    return _truth(m, x == 0.0, x, x)


@elementwise(aliases=("If",), nan="NaN where the condition is; an unchosen NaN does not matter")
def where(m: Machine, condition: Series, x: Series, y: Series) -> Value:
    """Choose x where the condition is nonzero, y where it is 0, NaN where it is NaN."""
    return m.where(m.present(condition), m.where(condition != 0.0, x, y), m.nan)


@elementwise(nan="never NaN unless `value` is")
def nan_to(m: Machine, x: Series, value: Number = 0.0) -> Value:
    """Put `value` in place of NaN. For infinities as well: `nan_to(finite(x))`."""
    return m.where(m.present(x), x, value)


@elementwise(nan="never NaN")
def is_nan(m: Machine, x: Series) -> Value:
    """1 where x is NaN, else 0."""
    return m.where(m.present(x), 0.0, 1.0)


@elementwise(tolerance=1 << 15, nan="NaN where x is")
def snap(m: Machine, x: Series) -> Value:
    """Round to a multiple of 2 ** -36 (float32: 2 ** -14), so that numbers near 1 that differ by rounding are equal.

    For what is ranked afterwards: correlations of few ranks are often equal, but come out a bit apart.
    """
    # Next to the large number only multiples of the grid's step are representable.
    large = 1.5 * 2.0**16 if m.double else 1.5 * 2.0**9
    return (x + large) - large


@elementwise(nan="NaN where x is NaN or infinite")
def finite(m: Machine, x: Series) -> Value:
    """Put NaN in place of ±inf."""
    return m.where(m.finite(x), x, m.nan)
