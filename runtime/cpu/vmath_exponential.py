"""Exponentials, logarithms, and what is made of them: `exp`, `exp2`, `expm1`, `log`, `log1p`, `log2`, `log10`, `tanh`,
`sigmoid` and `erf`, each in the precision of its operand. The schemes are described in `runtime.cpu.vmath`.
"""

from __future__ import annotations

from typing import Any

from runtime.cpu._vmath_tables import ERF_SPLIT, ERFC, ERFC_SHORT, FLOAT32, LOG2_E
from runtime.cpu.vmath_emitter import Emitter, Pair, bit_pattern, function, has_scaling, of_both


def reduce_exp(e: Emitter, x: Any) -> tuple[Any, Any, Any, int]:
    """(r, r_error, bits, zero): x = n ln2 + r + r_error; the integer `bits - zero` is n."""
    magic = 1.5 * 2.0**e.fmt.mantissa_bits
    shifted = e.fma(x, e.const(LOG2_E), e.const(magic))
    n = e.sub(shifted, e.const(magic))
    high = e.fma(n, e.const(-e.fmt.ln2_hi), x)
    r = e.fma(n, e.const(-e.fmt.ln2_lo), high)
    r_error = e.fma(n, e.const(-e.fmt.ln2_lo), e.sub(high, r))
    return r, r_error, e.bits(shifted), bit_pattern(e.fmt, magic)


def exp_core(e: Emitter, x: Any) -> Any:
    """exp of an x in [exp_min, exp_max], or of NaN."""
    magic = 1.5 * 2.0**e.fmt.mantissa_bits
    shifted = e.fma(x, e.const(LOG2_E), e.const(magic))
    n = e.sub(shifted, e.const(magic))
    r = e.fma(n, e.const(-e.fmt.ln2_lo), e.fma(n, e.const(-e.fmt.ln2_hi), x))
    return times_power_of_two(e, _exp_reduced(e, r), e.bits(shifted), bit_pattern(e.fmt, magic))


def _exp_reduced(e: Emitter, r: Any) -> Any:
    """exp(r), |r| <= ln2/2."""
    one = e.const(1.0)
    return e.fma(e.fma(r, e.polynomial(r, e.fmt.exp), one), r, one)


def exp_pair(e: Emitter, r: Any, r_error: Any) -> Pair:
    """exp(r + r_error), |r| <= ln2/2, as a sum that is not rounded yet."""
    tail = e.fma(e.mul(r, r), e.polynomial(r, e.fmt.exp), r_error)
    high, low = e.quick_sum(e.const(1.0), r)
    return high, e.add(low, tail)


def times_power_of_two(e: Emitter, p: Any, bits: Any, zero: int) -> Any:
    """p 2^(bits - zero), rounded once where the result is subnormal."""
    if has_scaling():
        return e.scaled(p, e.ir.sub(bits, e.int_const(zero)))
    # n halved with both halves biased at once; n + 2 bias is positive, so a logical shift serves, which
    # AVX2 has for 64-bit lanes and an arithmetic one it has not.
    both = e.ir.add(bits, e.int_const(2 * e.fmt.bias - zero))
    half = e.ir.lshr(both, e.int_const(1))
    return e.mul(e.mul(p, e.power_of_two(half)), e.power_of_two(e.ir.sub(both, half)))


def expm1_core(e: Emitter, x: Any, halved: bool) -> Any:
    """expm1(x), x clamped to where it is neither -1 nor inf; half of it if `halved`, so that 2^n fits."""
    r, r_error, bits, zero = reduce_exp(e, x)
    tail = e.fma(e.mul(r, r), e.polynomial(r, e.fmt.expm1), e.fma(r_error, r, r_error))

    one = e.const(0.5 if halved else 1.0)
    scale = e.power_of_two(e.ir.add(bits, e.int_const(e.fmt.bias - zero - int(halved))))
    base = e.sub(scale, one)
    base_error = e.sub(e.sub(scale, base), one)
    head = e.fma(scale, r, base)
    head_error = e.add(e.fma(scale, r, e.sub(base, head)), base_error)
    return e.add(head, e.fma(scale, tail, head_error))


def split_log(e: Emitter, x: Any) -> tuple[Any, Any]:
    """(biased exponent as an integer, m) of a normal positive x = m 2^exponent, 2/3 <= m < 4/3."""
    fmt = e.fmt
    one = fmt.bias << fmt.mantissa_bits
    bits = e.bits(x)
    # Moves the step of the exponent field from 1 to 2/3.
    moved = e.ir.add(bits, e.int_const(one - bit_pattern(fmt, 2.0 / 3.0)))
    biased = e.ir.lshr(moved, e.int_const(fmt.mantissa_bits))
    mantissa = e.ir.sub(bits, e.ir.shl(biased, e.int_const(fmt.mantissa_bits)))
    return biased, e.from_bits(e.ir.add(mantissa, e.int_const(one)))


def exponent_as_float(e: Emitter, biased: Any) -> Any:
    # Under 2^mantissa_bits an integer is the mantissa of 2^mantissa_bits plus itself; AVX2 has no
    # conversion from 64-bit integers.
    magic = 2.0**e.fmt.mantissa_bits
    joined = e.ir.or_(biased, e.int_const(bit_pattern(e.fmt, magic)))
    return e.sub(e.from_bits(joined), e.const(magic + e.fmt.bias))


def _log_tail(e: Emitter, f: Any) -> Any:
    """log(1 + f) - f, |f| <= 1/3."""
    if e.fmt is FLOAT32:
        return e.mul(e.mul(f, f), e.fma(f, e.polynomial(f, e.fmt.log), e.const(-0.5)))
    half_square = e.mul(e.mul(f, e.const(0.5)), f)
    s, series = _log_series(e, f, half_square)
    return e.fma(s, series, e.neg(half_square))


def _log_rest(e: Emitter, f: Any) -> Any:
    """log(1 + f) - f + f^2/2, |f| <= 1/3."""
    if e.fmt is FLOAT32:
        return e.mul(e.mul(f, f), e.mul(f, e.polynomial(f, e.fmt.log)))
    s, series = _log_series(e, f, e.mul(e.mul(f, e.const(0.5)), f))
    return e.mul(s, series)


def _log_series(e: Emitter, f: Any, half_square: Any) -> Pair:
    """(s, series): log(1 + f) - f + half_square = s * series, s = f / (2 + f)."""
    s = e.div(f, e.add(f, e.const(2.0)))
    z = e.mul(s, s)
    return s, e.fma(z, e.polynomial(z, e.fmt.log), half_square)


def _log_sum(e: Emitter, exponent: Any, f: Any, correction: Any = None) -> Any:
    """exponent * ln2 + log(1 + f) + correction, |f| <= 1/3."""
    tail = _log_tail(e, f)
    if correction is not None:
        tail = e.add(tail, correction)
    tail = e.fma(exponent, e.const(e.fmt.ln2_lo), tail)
    head = e.fma(exponent, e.const(e.fmt.ln2_hi), f)
    head_error = e.add(e.fma(exponent, e.const(e.fmt.ln2_hi), e.neg(head)), f)
    return e.add(head, e.add(head_error, tail))


def _log_based(e: Emitter, exponent: Any, f: Any, unit: Pair, of_2: Pair | None) -> Any:
    """The logarithm to another base: unit is that of e, of_2 that of 2 (None: it is 1), the product of whose first
    part with an exponent is exact.
    """
    # log(1 + f) = f - f^2/2 + rest, the first two terms exactly.
    square, square_low = e.exact_product(f, e.mul(f, e.const(-0.5)))
    series, series_low = e.quick_sum(f, square)
    series_low = e.add(series_low, e.add(_log_rest(e, f), square_low))
    high, low = e.exact_product(series, e.const(unit[0]))
    low = e.fma(series_low, e.const(unit[0]), e.fma(series, e.const(unit[1]), low))
    if of_2 is not None:
        low = e.fma(exponent, e.const(of_2[1]), low)
        exponent = e.mul(exponent, e.const(of_2[0]))
    head, head_error = e.quick_sum(exponent, high)
    return e.add(head, e.add(head_error, low))


def _log_or_special(e: Emitter, x: Any, value: Any) -> Any:
    """value where x is positive and finite; else what log gives at 0, below 0, at inf and at NaN."""
    zero, inf = e.const(0.0), e.const(float("inf"))
    special = e.select(e.compare(x, "<", zero), e.const(float("nan")), x)
    special = e.select(e.compare(x, "==", zero), e.const(float("-inf")), special)
    finite = e.ir.and_(e.compare(x, ">", zero), e.compare(x, "<", inf))
    return e.select(finite, value, special)


def _quotient(e: Emitter, numerator: Any, t: Any, addend: float) -> Any:
    """numerator / (t + addend), corrected by the remainder of the division and the sum's own error."""
    divisor = e.add(t, e.const(addend))
    divisor_error = e.sub(t, e.sub(divisor, e.const(addend)))
    reciprocal = e.div(e.const(1.0), divisor)
    q = e.mul(numerator, reciprocal)
    remainder = e.fma(e.neg(q), divisor_error, e.fma(e.neg(q), divisor, numerator))
    return e.fma(remainder, reciprocal, q)


def _emit_exp(e: Emitter, x: Any) -> Any:
    return exp_core(e, e.at_least(e.at_most(x, e.fmt.exp_max), e.fmt.exp_min))


def _emit_exp2(e: Emitter, x: Any) -> Any:
    magic = 1.5 * 2.0**e.fmt.mantissa_bits
    clamped = e.at_least(e.at_most(x, e.fmt.exp2_max), e.fmt.exp2_min)
    shifted = e.add(clamped, e.const(magic))
    fraction = e.sub(clamped, e.sub(shifted, e.const(magic)))
    r, r_error = e.exact_product(fraction, e.const(e.fmt.ln2[0]))
    r_error = e.fma(fraction, e.const(e.fmt.ln2[1]), r_error)
    p = e.add(*exp_pair(e, r, r_error))
    return times_power_of_two(e, p, e.bits(shifted), bit_pattern(e.fmt, magic))


def _emit_expm1(e: Emitter, x: Any) -> Any:
    clamped = e.at_least(e.at_most(x, e.fmt.exp_max), e.fmt.expm1_min)
    half = expm1_core(e, clamped, halved=True)
    # Near 0 the halving would lose the last bit of a subnormal, and the sums the sign of -0.
    tiny = e.compare(e.abs(x), "<", e.const(2.0 ** -(e.fmt.mantissa_bits + 2)))
    return e.select(tiny, x, e.add(half, half))


def normalised(e: Emitter, x: Any) -> Pair:
    """(exponent, m) of a positive finite x = m 2^exponent, 2/3 <= m < 4/3, the exponent as a float."""
    fmt = e.fmt
    subnormal = e.compare(x, "<", e.const(2.0 ** (1 - fmt.bias)))
    up = fmt.mantissa_bits + 1
    biased, m = split_log(e, e.select(subnormal, e.mul(x, e.const(2.0**up)), x))
    exponent = exponent_as_float(e, biased)
    return e.select(subnormal, e.sub(exponent, e.const(float(up))), exponent), m


def log_core(e: Emitter, x: Any) -> Any:
    """log of a positive finite x."""
    exponent, m = normalised(e, x)
    return _log_sum(e, exponent, e.sub(m, e.const(1.0)))


def _emit_log(e: Emitter, x: Any) -> Any:
    return _log_or_special(e, x, log_core(e, x))


def _emit_log2(e: Emitter, x: Any) -> Any:
    exponent, m = normalised(e, x)
    value = _log_based(e, exponent, e.sub(m, e.const(1.0)), e.fmt.log2_e, None)
    return _log_or_special(e, x, value)


def _emit_log10(e: Emitter, x: Any) -> Any:
    exponent, m = normalised(e, x)
    value = _log_based(e, exponent, e.sub(m, e.const(1.0)), e.fmt.log10_e, e.fmt.log10_2)
    return _log_or_special(e, x, value)


def _emit_log1p(e: Emitter, x: Any) -> Any:
    fmt, one = e.fmt, e.const(1.0)
    u = e.add(x, one)
    rounded_x = e.sub(u, one)
    u_error = e.add(e.sub(x, rounded_x), e.sub(one, e.sub(u, rounded_x)))
    biased, m = split_log(e, u)
    exponent = exponent_as_float(e, biased)
    # 2^-exponent. At the largest exponent, where u_error is nothing beside u, it would leave the range.
    largest = e.int_const(2 * fmt.bias)
    in_range = e.ir.select(e.ir.icmp_unsigned(">", biased, largest), largest, biased)
    scaled_error = e.mul(u_error, e.power_of_two(e.ir.sub(largest, in_range)))
    near_zero = e.compare(exponent, "==", e.const(0.0))
    f = e.select(near_zero, x, e.sub(m, one))
    # scaled_error / (1 + f), the quotient by its series.
    first_order = e.fma(scaled_error, e.fma(f, f, e.neg(f)), scaled_error)
    correction = e.select(near_zero, e.const(0.0), first_order)
    value = e.copysign(_log_sum(e, exponent, f, correction), x)
    return _log_or_special(e, u, value)


def _emit_tanh(e: Emitter, x: Any) -> Any:
    magnitude = e.at_most(e.abs(x), e.fmt.tanh_max)
    t = expm1_core(e, e.add(magnitude, magnitude), halved=False)
    return e.copysign(_quotient(e, t, t, 2.0), x)


def _emit_sigmoid(e: Emitter, x: Any) -> Any:
    t = exp_core(e, e.at_least(e.neg(e.abs(x)), e.fmt.exp_min))
    numerator = e.select(e.compare(x, "<", e.const(0.0)), t, e.const(1.0))
    return e.div(numerator, e.add(t, e.const(1.0)))


def _emit_erf(e: Emitter, x: Any) -> Any:
    magnitude = e.at_most(e.abs(x), e.fmt.erf_max)
    # Both formulas are computed everywhere; the clamp keeps exp's argument in its range.
    near = e.fma(x, e.polynomial(e.mul(magnitude, magnitude), e.fmt.erf_small), x)
    exponent = e.neg(e.polynomial(magnitude, e.fmt.erf_large))
    far = e.copysign(e.sub(e.const(1.0), exp_core(e, exponent)), x)
    return e.select(e.compare(magnitude, "<", e.const(ERF_SPLIT)), near, far)


def _emit_erfc(e: Emitter, x: Any, narrow: bool) -> Any:
    one, two = e.const(1.0), e.const(2.0)
    near, near_low = e.quick_sum(one, e.neg(x))
    near = e.add(near, e.fma(e.neg(x), e.polynomial(e.mul(x, x), e.fmt.erf_small), near_low))
    a = e.at_most(e.abs(x), 28.0)
    square, square_low = e.exact_product(a, a)
    r, r_error, bits, zero = reduce_exp(e, e.at_least(e.neg(square), e.fmt.exp_min))
    p, p_low = exp_pair(e, *e.quick_sum(r, e.sub(r_error, square_low)))
    middle = e.const(3.0 if narrow else 4.0)
    t = e.div(e.sub(a, middle), e.add(a, middle))
    first, *others = ERFC_SHORT if narrow else ERFC
    over, over_low = e.quick_sum(e.const(first), e.mul(t, e.polynomial(t, others)))
    under, under_low = e.exact_sum(e.add(a, a), one)
    inverse = e.div(one, under)
    ratio = e.mul(over, inverse)
    rest = e.add(e.fma(e.neg(ratio), under, over), e.fma(e.neg(ratio), under_low, over_low))
    p_low = e.fma(p, e.mul(rest, inverse), e.mul(p_low, ratio))
    far = times_power_of_two(e, e.fma(p, ratio, p_low), bits, zero)
    far = e.select(e.compare(x, "<", e.const(0.0)), e.sub(two, far), far)
    return e.select(e.compare(e.abs(x), "<", e.const(0.5)), near, far)


exp = function("exp", _emit_exp)
exp2 = function("exp2", _emit_exp2)
expm1 = function("expm1", _emit_expm1)
log = function("log", _emit_log)
log1p = function("log1p", _emit_log1p)
log2 = function("log2", _emit_log2)
log10 = function("log10", _emit_log10)
tanh = function("tanh", _emit_tanh)
sigmoid = function("sigmoid", _emit_sigmoid)
erf = function("erf", _emit_erf)
erfc = function("erfc", of_both(_emit_erfc))
