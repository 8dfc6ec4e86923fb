"""`asin`, `acos`, `atan` and `atan2`, each in the precision of its operands.

After S. Moshier's Cephes and FDLIBM. asin and acos take a polynomial in x^2 up to |x| = 1/2 and, beyond it,
pi/2 - asin(x) = 2 asin(sqrt((1 - x) / 2)). The angle of a point is the arc tangent of a quotient of at most tan(pi/8),
turned by a multiple of pi/4: of y / x, (y - x) / (y + x) or -x / y. Square root and quotient keep their remainders.
"""

from __future__ import annotations

from typing import Any

from runtime.cpu._vmath_tables import THREE_QUARTERS_PI
from runtime.cpu.vmath_emitter import Emitter, Pair, function

_TAN_PI_8 = 0.41421356237309503


def _half_angle(e: Emitter, a: Any) -> tuple[Any, Any, Any]:
    """(near, t, rest): asin(a) = t + rest where near, a < 1/2; elsewhere pi/2 - asin(a) = 2 (t + rest)."""
    near = e.compare(a, "<", e.const(0.5))
    z = e.select(near, e.mul(a, a), e.mul(e.sub(e.const(1.0), a), e.const(0.5)))
    root = e.sqrt(z)
    remainder = e.div(e.fma(e.neg(root), root, z), e.add(root, root))
    t = e.select(near, a, root)
    root_low = e.select(e.ir.or_(near, e.compare(root, "==", e.const(0.0))), e.const(0.0), remainder)
    return near, t, e.fma(e.mul(t, z), e.polynomial(z, e.fmt.asin), root_low)


def _emit_asin(e: Emitter, x: Any) -> Any:
    near, t, rest = _half_angle(e, e.abs(x))
    factor = e.select(near, e.const(1.0), e.const(-2.0))
    base, base_low = (e.select(near, e.const(0.0), e.const(part)) for part in e.fmt.half_pi)
    high, low = e.quick_sum(base, e.mul(factor, t))
    return e.copysign(e.add(high, e.add(low, e.fma(factor, rest, base_low))), x)


def _emit_acos(e: Emitter, x: Any) -> Any:
    near, t, rest = _half_angle(e, e.abs(x))
    negative = e.compare(x, "<", e.const(0.0))
    factor = e.select(near, e.copysign(e.const(1.0), e.neg(x)), e.copysign(e.const(2.0), x))

    def turned(part: float) -> Any:
        return e.select(near, e.const(part), e.select(negative, e.const(2 * part), e.const(0.0)))

    base, base_low = map(turned, e.fmt.half_pi)
    high, low = e.quick_sum(base, e.mul(factor, t))
    return e.add(high, e.add(low, e.fma(factor, rest, base_low)))


def _quotient(e: Emitter, over: Pair, under: Pair) -> Pair:
    quotient = e.div(over[0], under[0])
    minus = e.neg(quotient)
    rest = e.add(e.fma(minus, under[0], over[0]), e.fma(minus, under[1], over[1]))
    return quotient, e.div(rest, under[0])


def _angle(e: Emitter, a: Any, b: Any, turned: Any = None) -> Any:
    """The angle of (b, a), 0 <= a, b, finite and not both 0; taken from pi where ``turned``."""
    zero = e.const(0.0)
    low = e.compare(a, "<", e.mul(b, e.const(_TAN_PI_8)))
    high = e.compare(a, ">", e.mul(b, e.const(1 / _TAN_PI_8)))
    outside = e.ir.or_(low, high)
    difference, difference_low = e.exact_sum(a, e.neg(b))
    total, total_low = e.exact_sum(a, b)
    over = e.select(low, a, e.select(high, e.neg(b), difference))
    under = e.select(low, b, e.select(high, a, total))
    t, t_low = _quotient(
        e, (over, e.select(outside, zero, difference_low)), (under, e.select(outside, zero, total_low))
    )
    z = e.mul(t, t)
    rest = e.fma(e.mul(t, z), e.polynomial(z, e.fmt.atan), t_low)
    base = []
    for half_pi, three_quarters_pi in zip(e.fmt.half_pi, THREE_QUARTERS_PI[e.fmt.bits], strict=True):
        part = e.select(low, zero, e.select(high, e.const(half_pi), e.const(half_pi / 2)))
        if turned is not None:
            other = e.select(high, e.const(half_pi), e.const(three_quarters_pi))
            part = e.select(turned, e.select(low, e.const(2 * half_pi), other), part)
        base.append(part)
    if turned is not None:
        t, rest = e.select(turned, e.neg(t), t), e.select(turned, e.neg(rest), rest)
    total, total_low = e.quick_sum(base[0], t)
    return e.add(total, e.add(total_low, e.add(rest, base[1])))


def _emit_atan(e: Emitter, x: Any) -> Any:
    # Far beyond 1 / eps the result is pi/2, as it is at infinity.
    return e.copysign(_angle(e, e.at_most(e.abs(x), 2.0 ** (e.fmt.mantissa_bits + 10)), e.const(1.0)), x)


def _emit_atan2(e: Emitter, y: Any, x: Any) -> Any:
    zero, one, inf = e.const(0.0), e.const(1.0), e.const(float("inf"))
    a, b = e.abs(y), e.abs(x)
    # Sums must not overflow, nor remainders underflow.
    largest = e.select(e.compare(a, ">", b), a, b)
    shrink = e.select(e.compare(largest, ">", e.const(2.0 ** (e.fmt.bias - 2))), e.const(0.25), one)
    tiny = e.compare(largest, "<", e.const(2.0 ** (2 * e.fmt.mantissa_bits - e.fmt.bias)))
    scale = e.select(tiny, e.const(2.0 ** (2 * e.fmt.mantissa_bits)), shrink)
    infinite = e.compare(largest, "==", inf)
    up, right = (
        e.select(infinite, e.select(e.compare(leg, "==", inf), one, zero), e.mul(leg, scale)) for leg in (a, b)
    )
    right = e.select(e.compare(largest, "==", zero), one, right)
    turned = e.ir.icmp_signed("<", e.bits(x), e.int_const(0))
    value = e.copysign(_angle(e, up, right, turned), y)
    return e.select(e.ir.or_(e.is_nan(x), e.is_nan(y)), e.add(x, y), value)


asin = function("asin", _emit_asin)
acos = function("acos", _emit_acos)
atan = function("atan", _emit_atan)
atan2 = function("atan2", _emit_atan2, arity=2)
