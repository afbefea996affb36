"""Logarithm, exponential and power in the words of the machine, so that every machine gives the same bits.

All of it is float64 arithmetic; float32 is widened first and rounded once at the end. Errors, measured against 200-bit
arithmetic over all binary orders: `log` 0.75 ulp, `exp` 0.8, `pow` 1.3; in float32 0.5 ulp, all three.

Source  for the form of log: Tang (1990), ACM TOMS 16(4); for exact sums and products: Dekker (1971), Numerische
        Mathematik 18. The polynomials are interpolated at Chebyshev nodes.
"""

from __future__ import annotations

import math

from penstock.factor.table import Value

__all__ = ["Elementary", "exp", "log", "pow"]

Machine = Value

_LN2_HIGH, _LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
"""ln 2 in two parts; the first has 32 bits, so that a multiple of it is exact."""

_TINY, _UP = 2.0**-1022, 2.0**54
_ROOT2 = math.sqrt(2.0)

_LOG = (
    0.666666666666667,
    0.3999999999989889,
    0.28571428626253836,
    0.22222211089379493,
    0.18182892432537032,
    0.15331611722050653,
    0.14617807153462828,
)
"""(2 atanh(s) - 2 s) / s³ in powers of s²."""

_TAIL = (
    0.4000000000000003,
    0.2857142857133801,
    0.22222222271326808,
    0.1818180821092188,
    0.1538557746330829,
    0.1328586883754184,
    0.1291471218397585,
)
"""(2 atanh(s) - 2 s - 2/3 s³) / s⁵ in powers of s²."""

_THIRD_HIGH, _THIRD_LOW = 0.6666666666666666, 3.700743415417188e-17

_EXP = (
    0.5,
    0.16666666666666669,
    0.041666666666623824,
    0.008333333333330039,
    0.0013888888917367081,
    0.00019841269863171557,
    2.4801521057868204e-05,
    2.7557268276905696e-06,
    2.7620201591031547e-07,
    2.5100472505694996e-08,
)
"""(e^r - 1 - r) / r² in powers of r."""


def _polynomial(x: Value, coefficients: tuple[float, ...]) -> Value:
    made: Value = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        made = made * x + c
    return made


def _parts(m: Machine, x: Value) -> tuple[Value, Value]:
    """(k, t) with x = 2^k (1 + t) and 1 + t between √½ and √2, for a finite x > 0; t is exact."""
    tiny = x < _TINY
    x = m.where(tiny, x * _UP, x)
    k = m.exponent(x)
    f = m.fraction(x)
    large = f > _ROOT2
    f = m.where(large, f * 0.5, f)
    k = m.where(large, k + 1.0, k)
    return m.where(tiny, k - 54.0, k), f - 1.0


def _log(m: Machine, x: Value) -> Value:
    """The logarithm of a finite x > 0."""
    k, t = _parts(m, x)
    s = t / (2.0 + t)
    z = s * s
    half = 0.5 * t * t
    return k * _LN2_HIGH - ((half - (s * (half + z * _polynomial(z, _LOG)) + k * _LN2_LOW)) - t)


def log(m: Machine, x: Value) -> Value:
    """The natural logarithm: -inf at zero, NaN below."""
    x = m.wide(x)
    made = _log(m, x)
    edge = m.where(x == 0.0, -math.inf, x * math.nan)
    return m.narrow(m.where(x > 0.0, m.where(x < math.inf, made, x), edge))


def _exp(m: Machine, x: Value, rest: Value) -> Value:
    """The exponential of x + rest, for x from -746 to 710 and a small rest."""
    k = m.floor(x * (1.0 / math.log(2.0)) + 0.5)
    r = x - k * _LN2_HIGH
    low = rest - k * _LN2_LOW
    near = r + low
    # 1 + r as a sum of two, so that only the last addition counts.
    first = 1.0 + r
    made = first + (((1.0 - first) + r) + (low + near * near * _polynomial(near, _EXP)))
    half = m.floor(k * 0.5)
    # Two steps, of which only the second can round: results down to the smallest denormal are rounded once.
    return made * m.power_of_two(half) * m.power_of_two(k - half)


def exp(m: Machine, x: Value) -> Value:
    """The exponential: inf above 709.78, 0 below -745.2."""
    x = m.wide(x)
    there = m.present(x)
    held = m.where(there & (x > -746.0), x, -746.0)
    held = m.where(held < 710.0, held, 710.0)
    return m.narrow(m.where(there, _exp(m, held, 0.0), x))


def _two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    s = a + b
    other = s - a
    return s, (a - (s - other)) + (b - other)


def _split(a: Value) -> tuple[Value, Value]:
    c = a * 134217729.0
    high = c - (c - a)
    return high, a - high


def _two_product(a: Value, b: Value) -> tuple[Value, Value]:
    p = a * b
    (ah, al), (bh, bl) = _split(a), _split(b)
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


def _log_pair(m: Machine, x: Value) -> tuple[Value, Value]:
    """The logarithm as a sum of two, to about 2^-64 of itself, for a finite x > 0."""
    k, t = _parts(m, x)
    d, d_low = _two_sum(t, 2.0)
    s = t / d
    p, e = _two_product(s, d)
    s_low = ((t - p) - e - s * d_low) / d
    q, q_low = _two_product(s, s)
    q_low = q_low + 2.0 * s * s_low
    w, w_low = _two_product(q, _THIRD_HIGH)
    w_low = w_low + (q * _THIRD_LOW + q_low * _THIRD_HIGH) + q * q * _polynomial(q, _TAIL)
    u, u_low = _two_product(s, w)
    u_low = u_low + s * w_low + s_low * w
    high, low = _two_sum(2.0 * s, u)
    low = low + (2.0 * s_low + u_low)
    total, error = _two_sum(k * _LN2_HIGH, high)
    error = error + (low + k * _LN2_LOW)
    made = total + error
    return made, error - (made - total)


def pow(m: Machine, x: Value, y: Value) -> Value:
    """The power x ** y by IEEE 754's rules for `pow`; neither is NaN."""
    x, y = m.wide(x), m.wide(y)
    size = m.abs(x)
    ordinary = (size > 0.0) & (size < math.inf)
    base = m.where(ordinary, size, 1.0)
    # Beyond 2^64 the result is 0, 1 or inf already, and halves of larger numbers would overflow.
    far = 2.0**64
    power = m.where(y > far, far, m.where(y < -far, -far, y))
    if m.double:
        high, low = _log_pair(m, base)
        product, error = _two_product(power, high)
        error = error + power * low
    else:
        product, error = power * _log(m, base), 0.0
    held = m.where(product > -746.0, product, -746.0)
    held = m.where(held < 710.0, held, 710.0)
    made = _exp(m, held, m.where(held == product, error, 0.0 * product) if m.double else 0.0)
    up = ((y > 0.0) & (size > 1.0)) | ((y < 0.0) & (size < 1.0))
    extreme = m.where(y == 0.0, 1.0, m.where(up, math.inf, 0.0 * base))
    made = m.where(ordinary, made, extreme)
    whole = m.floor(y) == y
    odd = whole & ~(m.floor(y * 0.5) * 2.0 == y)
    negative = x < 0.0
    made = m.where(odd & (negative | (1.0 / x == -math.inf)), -made, made)
    return m.narrow(m.where(negative & ~whole & ordinary, math.nan, made))


class Elementary:
    """These three as words of a machine: a library's own differ in the last bit with version, length and neighbours."""

    def log(self, x: Value) -> Value:
        return log(self, x)

    def exp(self, x: Value) -> Value:
        return exp(self, x)

    def pow(self, x: Value, y: Value) -> Value:
        return pow(self, x, y)
