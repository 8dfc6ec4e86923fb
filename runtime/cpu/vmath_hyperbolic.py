"""`sinh`, `cosh`, `asinh`, `acosh` and `atanh`.

sinh and cosh are 2^(n-1) (p -+ 2^(-2n) / p), with exp(|x|) = 2^n p and p a pair; sinh is a polynomial below 1. The
inverses are logarithms: log(x + sqrt(x^2 + 1)), log(x + sqrt(x^2 - 1)) and log((1 + x) / (1 - x)) / 2, in which
arguments and logarithm are pairs, so that nothing is lost near 1; of float32 they are computed in float64.
"""

from __future__ import annotations

from typing import Any

from runtime.cpu.vmath_emitter import Emitter, Pair, function, of_both
from runtime.cpu.vmath_exponential import exp_pair, log_core, reduce_exp, times_power_of_two
from runtime.cpu.vmath_power import log_pair

_TINY = 2.0**-27  # below it asinh(x) and atanh(x) round to x
_HUGE = 2.0**60  # above it sqrt(x^2 +- 1) rounds to x


def _halves(e: Emitter, a: Any) -> tuple[Pair, Pair, Any, int]:
    """(p, q, bits, zero): exp(a) = 2^n p and exp(-a) = 2^n q, n = bits - zero, for a >= 0."""
    r, r_error, bits, zero = reduce_exp(e, e.at_most(a, e.fmt.exp_max + 1))
    p, p_low = e.quick_sum(*exp_pair(e, r, r_error))
    inverse = e.div(e.const(1.0), p)
    inverse_low = e.mul(inverse, e.fma(e.neg(p_low), inverse, e.fma(e.neg(p), inverse, e.const(1.0))))
    twice = e.ir.shl(e.ir.sub(bits, e.int_const(zero)), e.int_const(1))
    biased = e.ir.sub(e.int_const(e.fmt.bias), twice)
    biased = e.ir.select(e.ir.icmp_signed("<", biased, e.int_const(0)), e.int_const(0), biased)
    scale = e.power_of_two(biased)
    return (p, p_low), (e.mul(inverse, scale), e.mul(inverse_low, scale)), bits, zero


def _emit_cosh(e: Emitter, x: Any) -> Any:
    p, q, bits, zero = _halves(e, e.abs(x))
    high, low = e.exact_sum(p[0], q[0])
    return times_power_of_two(e, e.add(high, e.add(low, e.add(p[1], q[1]))), bits, zero + 1)


def _emit_sinh(e: Emitter, x: Any) -> Any:
    a = e.abs(x)
    p, q, bits, zero = _halves(e, a)
    high, low = e.quick_sum(p[0], e.neg(q[0]))
    far = times_power_of_two(e, e.add(high, e.add(low, e.sub(p[1], q[1]))), bits, zero + 1)
    z = e.mul(a, a)
    near = e.fma(e.mul(a, z), e.polynomial(z, e.fmt.sinh), a)
    return e.copysign(e.select(e.compare(a, "<", e.const(1.0)), near, far), x)


def _root(e: Emitter, square: Pair) -> Pair:
    root = e.sqrt(square[0])
    rest = e.add(e.fma(e.neg(root), root, square[0]), square[1])
    low = e.div(rest, e.add(root, root))
    return root, e.select(e.compare(root, ">", e.const(0.0)), low, e.const(0.0))


def _log_of_sum(e: Emitter, a: Any, root: Pair, *, larger: str) -> Any:
    """log(a + root), of a >= 0 below infinity; log(2 a) where a is huge."""
    ordered = (root[0], a) if larger == "root" else (a, root[0])
    high, low = e.quick_sum(*ordered)
    high, low = e.quick_sum(high, e.add(low, root[1]))
    huge = e.compare(a, ">", e.const(_HUGE))
    return e.add(*log_pair(e, e.select(huge, a, high), e.select(huge, e.const(0.0), low), huge))


def _emit_asinh(e: Emitter, x: Any, narrow: bool) -> Any:
    a, one = e.abs(x), e.const(1.0)
    if narrow:
        value = log_core(e, e.add(a, e.sqrt(e.fma(a, a, one))))
        small = e.fma(e.mul(e.mul(a, a), a), e.const(-1 / 6), a)
        value = e.select(e.compare(a, "<", e.const(2.0**-12)), small, value)
    else:
        square, square_low = e.exact_product(a, a)
        high, low = e.exact_sum(square, one)
        value = _log_of_sum(e, a, _root(e, (high, e.add(low, square_low))), larger="root")
        value = e.select(e.compare(a, "<", e.const(_TINY)), a, value)
    return e.copysign(e.select(e.compare(a, "<", e.const(float("inf"))), value, a), x)


def _emit_acosh(e: Emitter, x: Any, narrow: bool) -> Any:
    one, inf = e.const(1.0), e.const(float("inf"))
    if narrow:
        value = log_core(e, e.add(x, e.sqrt(e.mul(e.sub(x, one), e.add(x, one)))))
    else:
        square, square_low = e.exact_product(x, x)
        high, low = e.quick_sum(square, e.neg(one))
        value = _log_of_sum(e, x, _root(e, e.quick_sum(high, e.add(low, square_low))), larger="a")
    beyond = e.select(e.compare(x, "==", inf), inf, e.const(float("nan")))
    return e.select(e.ir.and_(e.compare(x, ">=", one), e.compare(x, "<", inf)), value, beyond)


def _emit_atanh(e: Emitter, x: Any, narrow: bool) -> Any:
    a, one, half = e.abs(x), e.const(1.0), e.const(0.5)
    if narrow:
        value = e.mul(log_core(e, e.div(e.add(one, a), e.sub(one, a))), half)
        small = e.fma(e.mul(e.mul(a, a), a), e.const(1 / 3), a)
        value = e.select(e.compare(a, "<", e.const(2.0**-12)), small, value)
    else:
        over, over_low = e.quick_sum(one, a)
        under, under_low = e.quick_sum(one, e.neg(a))
        quotient = e.div(over, under)
        minus = e.neg(quotient)
        rest = e.add(e.fma(minus, under, over), e.fma(minus, under_low, over_low))
        high, low = log_pair(e, *e.quick_sum(quotient, e.div(rest, under)))
        value = e.mul(e.add(high, low), half)
        value = e.select(e.compare(a, "<", e.const(_TINY)), a, value)
    beyond = e.select(e.compare(a, "==", one), e.const(float("inf")), e.const(float("nan")))
    return e.copysign(e.select(e.compare(a, "<", one), value, beyond), x)


sinh = function("sinh", _emit_sinh)
cosh = function("cosh", _emit_cosh)
asinh = function("asinh", of_both(_emit_asinh))
acosh = function("acosh", of_both(_emit_acosh))
atanh = function("atanh", of_both(_emit_atanh))
