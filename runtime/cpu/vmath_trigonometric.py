"""`sin`, `cos` and `tan`, accurate for every finite argument.

|x| is taken modulo pi/2 in one of two ways. Below 2^44, in three steps with fused multiply-adds, after W. J. Cody and
W. Waite, Software Manual for the Elementary Functions (1980): n pi/2 is subtracted in parts of 53 bits, the first
exactly. Above, after M. H. Payne and R. N. Hanek, "Radian reduction for trigonometric functions", SIGNUM Newsletter 18
(1983): the mantissa, an integer, is multiplied by those bits of 2/pi alone that its exponent leaves below 4. Both are
computed for every element, so that the loop stays straight-line.

float32 is reduced and evaluated in float64, and rounded once.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, TypeAlias

from llvmlite import ir

from runtime.cpu._vmath_tables import COS, COS_SHORT, HALF_PI, SIN, SIN_SHORT, TWO_OVER_PI
from runtime.cpu.vmath_emitter import Emitter, Pair, function, of_both

# The quadrant in the low bits of an integer, and the rest of the argument.
Reduced: TypeAlias = tuple[Any, Any, Any]

_I64 = ir.IntType(64)
_LARGE = 2.0**44
_LOW = 2**32 - 1


def _funnel(e: Emitter, high: Any, low: Any, shift: Any) -> Any:
    """The upper 64 bits of high:low, moved up by ``shift`` modulo 64."""
    signature = ir.FunctionType(_I64, [_I64] * 3)
    return e.ir.call(e.ir.module.declare_intrinsic("llvm.fshl", [_I64], signature), [high, low, shift])


def _stream(e: Emitter, zeros: int, count: int) -> list[Any]:
    """``zeros`` zero bits and the bits of 2/pi after the point, in 64-bit words."""
    stream = TWO_OVER_PI >> (TWO_OVER_PI.bit_length() + zeros - 64 * count)
    return [e.int_const((stream >> (64 * (count - 1 - k))) % 2**64) for k in range(count)]


def _window(e: Emitter, words: list[Any], offset: Any, bits: int) -> list[Any]:
    """The words from the one that holds the bit at ``offset`` on: moved by 2^k places for each of the ``bits`` bits of
    the number of that word, and as many as stand behind the last. (A table in memory would be a load that the
    vectoriser cannot tell from the kernel's stores.)
    """
    for bit in reversed(range(bits)):
        moved = e.ir.icmp_unsigned("!=", e.ir.and_(offset, e.int_const(64 << bit)), e.int_const(0))
        words = [e.ir.select(moved, later, word) for word, later in zip(words, words[1 << bit :], strict=False)]
    return words


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


def _mantissa(e: Emitter, a: Any) -> Any:
    return e.ir.or_(e.ir.and_(e.bits(a), e.int_const(2**52 - 1)), e.int_const(2**52))


def _offset(e: Emitter, a: Any, large: Any, first: int) -> Any:
    """How many bits of the stream stand before those needed: by the biased exponent, less ``first``."""
    biased = e.ir.lshr(e.bits(a), e.int_const(52))
    return e.ir.select(large, e.ir.sub(biased, e.int_const(first)), e.int_const(0))


def _fraction(e: Emitter, quarters: Any) -> tuple[Any, Any, Any]:
    """(quadrant, high, low) of a number of quarter turns with 62 bits after the point, rounded to the nearest quadrant:
    high holds 42 of them, as a float; low the other 20, as an integer.
    """
    moved = e.ir.add(quarters, e.int_const(2**61))
    quadrant = e.ir.lshr(moved, e.int_const(62))
    rest = e.ir.and_(moved, e.int_const(2**62 - 1))
    high = e.sub(e.from_integer(e.ir.lshr(rest, e.int_const(20))), e.const(2.0**41))
    return quadrant, e.mul(high, e.const(2.0**-42)), e.ir.and_(rest, e.int_const(2**20 - 1))


def _reduce_large_narrow(e: Emitter, a: Any, large: Any) -> Reduced:
    """a >= 2^44 with a mantissa of 24 bits."""
    b = e.ir
    # a is an integer of 24 bits, times 2^E; of 2/pi the bits from E - 1 on count modulo 4.
    mantissa = b.lshr(_mantissa(e, a), e.int_const(52 - 23))
    offset = _offset(e, a, large, 1023 + 23 + 2)
    first, second, third = _window(e, _stream(e, 0, 4), offset, 1)
    high, low = _funnel(e, first, second, offset), _funnel(e, second, third, offset)
    carry = b.lshr(b.mul(mantissa, b.lshr(low, e.int_const(32))), e.int_const(32))
    quadrant, turn, rest = _fraction(e, b.add(b.mul(mantissa, high), carry))
    turn = e.fma(e.from_integer(rest), e.const(2.0**-62), turn)
    return quadrant, e.mul(turn, e.const(HALF_PI[0])), e.const(0.0)


def _reduce_large(e: Emitter, a: Any, large: Any) -> Reduced:
    """a >= 2^44 with a mantissa of 53 bits. The product with 192 bits of 2/pi is summed in limbs of 32 bits."""
    b = e.ir
    low_half = e.int_const(_LOW)
    half = e.int_const(32)
    mantissa = _mantissa(e, a)
    m0, m1 = b.and_(mantissa, low_half), b.lshr(mantissa, half)
    zeros = 10  # 2^44 is an integer of 53 bits times 2^-8; two places more count modulo 4
    offset = _offset(e, a, large, 1023 + 52 + 2 - zeros)
    words = _window(e, _stream(e, zeros, 19), offset, 4)
    windows = [_funnel(e, high, low, offset) for high, low in pairwise(words)]
    w = [limb for window in reversed(windows) for limb in (b.and_(window, low_half), b.lshr(window, half))]
    # Below limb 2 of the product only carries matter.
    limbs: list[Any] = []
    carry = b.lshr(b.mul(m0, w[1]), half)
    for k in range(2, 6):
        total = b.add(b.mul(m0, w[k]), carry)
        limbs.append(b.and_(total, low_half))
        carry = b.lshr(total, half)
    carry = b.lshr(b.mul(m1, w[0]), half)
    for k in range(4):
        total = b.add(b.add(b.mul(m1, w[k + 1]), carry), limbs[k])
        limbs[k] = b.and_(total, low_half)
        carry = b.lshr(total, half)
    quadrant, turn, rest = _fraction(e, b.or_(b.shl(limbs[3], half), limbs[2]))
    middle = e.from_integer(b.or_(b.shl(rest, half), limbs[1]))
    turn, turn_low = e.quick_sum(turn, e.mul(middle, e.const(2.0**-94)))
    turn_low = e.fma(e.from_integer(limbs[0]), e.const(2.0**-126), turn_low)
    return (quadrant, *e.pair_product((turn, turn_low), (e.const(HALF_PI[0]), e.const(HALF_PI[1]))))


def _reduce(e: Emitter, a: Any, narrow: bool) -> Reduced:
    """a, finite and not negative, is quadrant * pi/2 + r + r_low; |r| <= pi/4 and a little."""
    large = e.compare(a, ">=", e.const(_LARGE))
    far = _reduce_large_narrow(e, a, large) if narrow else _reduce_large(e, a, large)
    quadrant, r, r_low = (
        e.ir.select(large, there, here) for there, here in zip(far, _reduce_small(e, a, narrow), strict=True)
    )
    return quadrant, r, r_low


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


def _finite(e: Emitter, x: Any, a: Any, value: Any) -> Any:
    """``value`` where x is finite, else NaN."""
    return e.select(e.compare(a, "<", e.const(float("inf"))), value, e.sub(x, x))


def _emit_sin(e: Emitter, x: Any, narrow: bool) -> Any:
    a = e.abs(x)
    quadrant, r, r_low = _reduce(e, a, narrow)
    value = _sine_in(e, quadrant, r, r_low, narrow)
    second_half = e.ir.shl(quadrant, e.int_const(62))
    return _finite(e, x, a, _signed(e, value, e.ir.xor(second_half, e.bits(x))))


def _emit_cos(e: Emitter, x: Any, narrow: bool) -> Any:
    a = e.abs(x)
    quadrant, r, r_low = _reduce(e, a, narrow)
    ahead = e.ir.add(quadrant, e.int_const(1))
    value = _sine_in(e, ahead, r, r_low, narrow)
    return _finite(e, x, a, _signed(e, value, e.ir.shl(ahead, e.int_const(62))))


def _sine_in(e: Emitter, quadrant: Any, r: Any, r_low: Any, narrow: bool) -> Any:
    """|sin| in a quadrant: sin(r) or cos(r)."""
    sine, cosine = _sine_and_cosine(e, r, r_low, narrow)
    odd = _is_odd(e, quadrant)
    return e.add(e.select(odd, cosine[0], sine[0]), e.select(odd, cosine[1], sine[1]))


def _emit_tan(e: Emitter, x: Any, narrow: bool) -> Any:
    a = e.abs(x)
    quadrant, r, r_low = _reduce(e, a, narrow)
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
    return _finite(e, x, a, _signed(e, value, e.ir.xor(turned, e.bits(x))))


sin = function("sin", of_both(_emit_sin))
cos = function("cos", of_both(_emit_cos))
tan = function("tan", of_both(_emit_tan))
