"""`sin`, `cos` and `tan`, accurate for every finite argument.

|x| is taken modulo pi/2 in one of two ways. Below 2^44, in three steps with fused multiply-adds, after W. J. Cody and
W. Waite, Software Manual for the Elementary Functions (1980): n pi/2 is subtracted in parts of 53 bits, the first
exactly. Above, after M. H. Payne and R. N. Hanek, "Radian reduction for trigonometric functions", SIGNUM Newsletter 18
(1983): the mantissa, an integer, is multiplied by those bits of 2/pi alone that its exponent leaves below 4. That is
done behind a branch, for the elements that need it (`vmath_rare`).

float32 is reduced and evaluated in float64, and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeAlias

from llvmlite import ir

from runtime.cpu._vmath_tables import COS, COS_SHORT, HALF_PI, SIN, SIN_SHORT, TWO_OVER_PI
from runtime.cpu.vmath_emitter import Emitter, Pair, function, of_both
from runtime.cpu.vmath_rare import beyond

# The quadrant in the low bits of an integer, and the rest of the argument.
Reduced: TypeAlias = tuple[Any, Any, Any]

_I64, _I128 = ir.IntType(64), ir.IntType(128)
_LARGE = 2.0**44
# 2^44 is an integer of 53 bits times 2^-8: two more of the bits before the point of 2/pi count modulo 4.
_ZEROS = 10
_FIRST_EXPONENT = 1023 + 44
_WORDS = 19


def _reduce_small(e: Emitter, a: Any, narrow: bool) -> Reduced:
    """0 <= a < 2^44."""
    magic = 1.5 * 2.0**52
    shifted = e.fma(a, e.const(2 / 3.141592653589793), e.const(magic))
    minus_n = e.sub(e.const(magic), shifted)
    r = e.fma(minus_n, e.const(HALF_PI[0]), a)  # exact: below 1, and a multiple of 2^-53
    quadrant = e.bits(shifted)
    if narrow:
        return quadrant, e.fma(minus_n, e.const(HALF_PI[1]), r), e.const(0.0)
    second, second_low = e.exact_product(minus_n, e.const(HALF_PI[1]))
    r, r_low = e.exact_sum(r, second)
    r_low = e.fma(minus_n, e.const(HALF_PI[2]), e.add(r_low, second_low))
    return (quadrant, *e.quick_sum(r, r_low))


def _funnel(e: Emitter, high: Any, low: Any, shift: Any) -> Any:
    """The upper 64 bits of high:low, moved up by ``shift`` modulo 64."""
    signature = ir.FunctionType(_I64, [_I64] * 3)
    return e.ir.call(e.ir.module.declare_intrinsic("llvm.fshl", [_I64], signature), [high, low, shift])


def _two_over_pi(e: Emitter, word: Any) -> list[Any]:
    """Four words of 64 bits of 2/pi from the one with number ``word`` on. Its point stands `_ZEROS` bits behind the
    start.
    """
    name, module = "graphc_two_over_pi", e.ir.module
    table = module.globals.get(name)
    if table is None:
        stream = TWO_OVER_PI >> (TWO_OVER_PI.bit_length() + _ZEROS - 64 * _WORDS)
        words = [(stream >> (64 * (_WORDS - 1 - k))) % 2**64 for k in range(_WORDS)]
        kind = ir.ArrayType(_I64, _WORDS)
        table = ir.GlobalVariable(module, kind, name)
        table.linkage, table.global_constant, table.initializer = "internal", True, ir.Constant(kind, words)
    first = e.int_const(0)
    return [e.ir.load(e.ir.gep(table, [first, e.ir.add(word, e.int_const(k))], inbounds=True)) for k in range(4)]


def _reduce_large(e: Emitter, a: Any, narrow: bool) -> Reduced:
    """2^44 <= a < inf, in a loop over single elements."""
    b = e.ir
    # a is an integer m of 53 bits, times a power of two. Of 2/pi the 192 bits from ``offset`` on count: their product
    # with m has two bits before the point, which are the quadrant, and more than enough behind it.
    m = b.or_(b.and_(e.bits(a), e.int_const(2**52 - 1)), e.int_const(2**52))
    offset = b.sub(b.lshr(e.bits(a), e.int_const(52)), e.int_const(_FIRST_EXPONENT))
    words = _two_over_pi(e, b.lshr(offset, e.int_const(6)))
    windows = [_funnel(e, high, low, offset) for high, low in pairwise(words)]
    product, middle = _times_wide(e, m, windows)
    quadrant = b.lshr(b.add(product, e.int_const(2**61)), e.int_const(62))
    # What the quadrant, rounded to the nearest, leaves: 128 bits behind the point, the first of them the sign.
    high, low = _funnel(e, product, middle, e.int_const(2)), b.shl(middle, e.int_const(2))
    half, low_half = e.int_const(32), e.int_const(2**32 - 1)
    signed = b.sitofp(b.ashr(high, half), e.float_type)
    others = [
        b.uitofp(limb, e.float_type) for limb in (b.and_(high, low_half), b.lshr(low, half), b.and_(low, low_half))
    ]
    turn, error = e.quick_sum(e.mul(signed, e.const(2.0**-32)), e.mul(others[0], e.const(2.0**-64)))
    turn, rest = e.quick_sum(turn, e.mul(others[1], e.const(2.0**-96)))
    rest = e.fma(others[2], e.const(2.0**-128), e.add(error, rest))
    r, r_low = e.pair_product(e.quick_sum(turn, rest), (e.const(HALF_PI[0]), e.const(HALF_PI[1])))
    return quadrant, r, e.const(0.0) if narrow else r_low


def _times_wide(e: Emitter, m: Any, words: list[Any]) -> tuple[Any, Any]:
    """The words before the last two and the last of the product of m and three words, modulo 2^192."""
    b = e.ir
    m, width = b.zext(m, _I128), ir.Constant(_I128, 64)
    first, second, third = (b.mul(m, b.zext(word, _I128)) for word in words)
    second = b.add(second, b.lshr(third, width))
    first = b.add(first, b.lshr(second, width))
    return b.trunc(first, _I64), b.trunc(second, _I64)


def _sine_and_cosine(e: Emitter, r: Any, r_low: Any, narrow: bool) -> tuple[Pair, Pair]:
    """sin and cos of r + r_low as sums that are not rounded yet."""
    z = e.mul(r, r)
    half_z = e.mul(z, e.const(0.5))
    cosine, cosine_low = e.quick_sum(e.const(1.0), e.neg(half_z))
    correction = e.polynomial(z, COS_SHORT if narrow else COS)
    if not narrow:
        z_low = e.fma(r, r, e.neg(z))
        cosine_low = e.sub(cosine_low, e.fma(r, r_low, e.mul(z_low, e.const(0.5))))
    cosine_low = e.fma(e.mul(z, z), correction, cosine_low)
    tail = e.mul(e.mul(r, z), e.polynomial(z, SIN_SHORT if narrow else SIN))
    if not narrow:
        tail = e.fma(r_low, cosine, tail)
    return (r, tail), (cosine, cosine_low)


def _is_odd(e: Emitter, quadrant: Any) -> Any:
    return e.ir.trunc(quadrant, ir.IntType(1))


def _signed(e: Emitter, value: Any, sign: Any) -> Any:
    """``value``, negated where the sign bit of the integer ``sign`` is set."""
    sign_bit = e.ir.and_(sign, e.int_const(2**63))
    return e.from_bits(e.ir.xor(e.bits(value), sign_bit))


def _emit_sin(e: Emitter, x: Any, reduced: Reduced, narrow: bool) -> Any:
    quadrant, r, r_low = reduced
    value = _sine_in(e, quadrant, r, r_low, narrow)
    second_half = e.ir.shl(quadrant, e.int_const(62))
    return _signed(e, value, e.ir.xor(second_half, e.bits(x)))


def _emit_cos(e: Emitter, x: Any, reduced: Reduced, narrow: bool) -> Any:
    quadrant, r, r_low = reduced
    ahead = e.ir.add(quadrant, e.int_const(1))
    value = _sine_in(e, ahead, r, r_low, narrow)
    return _signed(e, value, e.ir.shl(ahead, e.int_const(62)))


def _sine_in(e: Emitter, quadrant: Any, r: Any, r_low: Any, narrow: bool) -> Any:
    """|sin| in a quadrant: sin(r) or cos(r)."""
    sine, cosine = _sine_and_cosine(e, r, r_low, narrow)
    odd = _is_odd(e, quadrant)
    return e.add(e.select(odd, cosine[0], sine[0]), e.select(odd, cosine[1], sine[1]))


def _emit_tan(e: Emitter, x: Any, reduced: Reduced, narrow: bool) -> Any:
    quadrant, r, r_low = reduced
    sine, cosine = (e.quick_sum(*pair) for pair in _sine_and_cosine(e, r, r_low, narrow))
    odd = _is_odd(e, quadrant)
    over, over_low = (e.select(odd, c, s) for c, s in zip(cosine, sine, strict=True))
    under, under_low = (e.select(odd, s, c) for c, s in zip(cosine, sine, strict=True))
    if narrow:
        value = e.div(over, under)
    else:
        inverse = e.div(e.const(1.0), under)
        quotient = e.mul(over, inverse)
        rest = e.add(e.fma(e.neg(quotient), under, over), e.fma(e.neg(quotient), under_low, over_low))
        value = e.fma(rest, inverse, quotient)
    turned = e.ir.shl(quadrant, e.int_const(63))
    return _signed(e, value, e.ir.xor(turned, e.bits(x)))


def _of_reduced(name: str, emit: Callable[..., Any]) -> Callable[..., Any]:
    """The rule for both types out of ``emit(e, x, reduced, narrow)``."""

    def near(e: Emitter, x: Any, narrow: bool) -> Any:
        return emit(e, x, _reduce_small(e, e.abs(x), narrow), narrow)

    def far(e: Emitter, x: Any, narrow: bool) -> Any:
        a = e.abs(x)
        value = emit(e, x, _reduce_large(e, a, narrow), narrow)
        return e.select(e.compare(a, "<", e.const(float("inf"))), value, e.const(float("nan")))

    return lambda e, x: beyond(e, name, _LARGE, x, of_both(near)(e, x), of_both(far))


sin = function("sin", _of_reduced("sin", _emit_sin))
cos = function("cos", _of_reduced("cos", _emit_cos))
tan = function("tan", _of_reduced("tan", _emit_tan))
