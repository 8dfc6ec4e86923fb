"""`pow` and `hypot`, and the logarithm to twice the precision that the first of them needs.

x^y = exp(y log(x)): an error of the logarithm is multiplied by up to 709, so that it is computed as a pair, from
log(m) = 2 atanh((m - 1) / (m + 1)), whose first terms are summed as pairs too (after N. Shibata and F. Petrogalli,
"SLEEF: a portable vectorized library of C standard mathematical functions", IEEE TPDS 31, 2020). Special values are
those of C99, annex F.9.4.4. hypot scales by a power of two and corrects the root by its remainder. float32 is computed
in float64, where neither needs such care (x^y is 2^(y log2(x)) there), and rounded once.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from runtime.cpu._vmath_tables import EXP2_SHORT, FLOAT64, LOG2_SHORT, LOG_TAIL
from runtime.cpu.vmath_emitter import Emitter, Pair, function, of_both
from runtime.cpu.vmath_exponential import (
    exp_pair,
    exponent_as_float,
    normalised,
    reduce_exp,
    split_log,
    times_power_of_two,
)

_FAR = 200.0  # 2 to this power, and to its negative, is inf or 0 in float32


def _pair_of(value: Fraction) -> tuple[float, float]:
    return float(value), float(value - Fraction(float(value)))


def log_pair(e: Emitter, x: Any, x_low: Any = None, doubled: Any = None) -> Pair:
    """log(x + x_low) in float64, of a finite positive x (with x_low, at least 1); of twice that where ``doubled``."""
    exponent, m = normalised(e, x)
    one = e.const(1.0)
    under = e.add(m, one)
    under_low = e.sub(m, e.sub(under, one))
    over = e.sub(m, one)
    over_low = e.const(0.0)
    if x_low is not None:
        # m / x, a power of two, for x >= 1. Where x is so large that it is none, x_low is 0.
        places = e.ir.lshr(e.ir.sub(e.bits(x), e.bits(m)), e.int_const(e.fmt.mantissa_bits))
        shift = e.power_of_two(e.ir.sub(e.int_const(e.fmt.bias), places))
        over_low = e.select(e.compare(x_low, "==", over_low), over_low, e.mul(x_low, shift))
        under_low = e.add(under_low, over_low)
    if doubled is not None:
        exponent = e.select(doubled, e.add(exponent, one), exponent)
    inverse = e.div(one, under)
    s = e.mul(over, inverse)
    rest = e.add(e.fma(e.neg(s), under, over), e.fma(e.neg(s), under_low, over_low))
    s = e.quick_sum(s, e.mul(rest, inverse))
    z = e.pair_product(s, s)
    # 2 s + s z (2/3 + z (2/5 + z tail(z)))
    series = e.mul(z[0], e.polynomial(z[0], LOG_TAIL))
    inner = _plus(e, _pair_of(Fraction(2, 5)), (series, e.const(0.0)))
    outer = _plus(e, _pair_of(Fraction(2, 3)), e.pair_product(z, inner))
    cubic = e.pair_product(e.pair_product(s, z), outer)
    two = e.const(2.0)
    high, low = e.quick_sum(e.mul(s[0], two), cubic[0])
    low = e.add(low, e.fma(s[1], two, cubic[1]))
    head, head_low = e.quick_sum(e.mul(exponent, e.const(e.fmt.ln2_hi)), high)
    return e.quick_sum(head, e.add(head_low, e.fma(exponent, e.const(e.fmt.ln2_lo), low)))


def _plus(e: Emitter, constant: tuple[float, float], smaller: Pair) -> Pair:
    high, low = e.quick_sum(e.const(constant[0]), smaller[0])
    return high, e.add(low, e.add(e.const(constant[1]), smaller[1]))


def _power_of_positive(e: Emitter, x: Any, y: Any) -> Any:
    high, low = log_pair(e, x)
    p, p_low = e.exact_product(y, high)
    # Beyond the range of exp the low part may be NaN, and does not matter.
    within = e.compare(e.abs(p), "<", e.const(1100.0))
    p_low = e.select(within, e.fma(y, low, p_low), e.const(0.0))
    r, r_error, bits, zero = reduce_exp(e, e.at_least(e.at_most(p, e.fmt.exp_max), e.fmt.exp_min))
    value = e.add(*exp_pair(e, *e.quick_sum(r, e.add(r_error, p_low))))
    return times_power_of_two(e, value, bits, zero)


def _power_of_positive_narrow(e: Emitter, x: Any, y: Any) -> Any:
    """2^(y log2(x)) of float32 operands, x positive and finite: to 32 bits, in float64, where no x is subnormal."""
    biased, m = split_log(e, x)
    one, magic = e.const(1.0), e.const(1.5 * 2.0**52)
    s = e.div(e.sub(m, one), e.add(m, one))
    logarithm = e.fma(s, e.polynomial(e.mul(s, s), LOG2_SHORT), exponent_as_float(e, biased))
    p = e.at_least(e.at_most(e.mul(y, logarithm), _FAR), -_FAR)
    shifted = e.add(p, magic)
    root = e.polynomial(e.sub(p, e.sub(shifted, magic)), EXP2_SHORT)
    return e.from_bits(e.ir.add(e.bits(root), e.ir.shl(e.bits(shifted), e.int_const(52))))


def _emit_pow(e: Emitter, x: Any, y: Any) -> Any:
    b = e.ir
    zero, one, inf = e.const(0.0), e.const(1.0), e.const(float("inf"))
    a = e.abs(x)
    if e.fmt is FLOAT64:
        value = _power_of_positive(e, a, y)
    else:
        value = of_both(lambda wide, a, y, _: _power_of_positive_narrow(wide, a, y))(e, a, y)
    value = e.select(e.compare(a, "==", one), one, value)  # also for infinite y
    falling = e.compare(y, "<", zero)
    at_zero, at_infinity = e.compare(a, "==", zero), e.compare(a, "==", inf)
    grows = b.xor(at_infinity, falling)
    value = e.select(b.or_(at_zero, at_infinity), e.select(grows, inf, zero), value)
    whole = e.compare(e.trunc(y), "==", y)
    half = e.mul(y, e.const(0.5))
    odd = b.and_(whole, b.fcmp_unordered("!=", e.trunc(half), half))
    negative = b.icmp_signed("<", e.bits(x), e.int_const(0))
    undefined = b.and_(e.compare(x, "<", zero), b.and_(b.not_(whole), b.not_(at_infinity)))
    value = e.select(undefined, e.const(float("nan")), value)
    value = e.select(b.and_(odd, negative), e.neg(value), value)
    value = e.select(b.or_(e.is_nan(x), e.is_nan(y)), e.add(x, y), value)
    return e.select(b.or_(e.compare(x, "==", one), e.compare(y, "==", zero)), one, value)


def _emit_hypot(e: Emitter, x: Any, y: Any, narrow: bool) -> Any:
    b = e.ir
    inf = e.const(float("inf"))
    a, c = e.abs(x), e.abs(y)
    infinite = b.or_(e.compare(a, "==", inf), e.compare(c, "==", inf))
    if narrow:
        return e.select(infinite, inf, e.sqrt(e.fma(a, a, e.mul(c, c))))
    larger = e.compare(a, ">", c)
    long, short = e.select(larger, a, c), e.select(larger, c, a)
    # Scaled by a power of two, the longer leg lies between 2 and 4 (or below, where it is subnormal).
    biased = b.lshr(e.bits(long), e.int_const(e.fmt.mantissa_bits))
    biased = b.select(b.icmp_unsigned("==", biased, e.int_const(0)), e.int_const(1), biased)
    scale = e.power_of_two(b.sub(e.int_const(2 * e.fmt.bias + 1), biased))
    long, short = e.mul(long, scale), e.mul(short, scale)
    (first, first_low), (second, second_low) = e.exact_product(long, long), e.exact_product(short, short)
    high, low = e.quick_sum(first, second)
    low = e.add(low, e.add(first_low, second_low))
    root = e.sqrt(high)
    rest = e.add(e.fma(e.neg(root), root, high), low)
    root = e.select(e.compare(root, ">", e.const(0.0)), e.add(root, e.div(rest, e.add(root, root))), root)
    value = e.mul(e.mul(root, e.const(0.5)), e.power_of_two(biased))
    value = e.select(b.or_(e.is_nan(x), e.is_nan(y)), e.add(x, y), value)
    return e.select(infinite, inf, value)


pow = function("pow", _emit_pow, arity=2)
hypot = function("hypot", of_both(_emit_hypot), arity=2)
