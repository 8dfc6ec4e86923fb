"""Shifts, division and powers with NumPy's meaning for every operand: nothing traps, and nothing is undefined.

LLVM leaves a shift by the width or more, a division by zero, and the smallest integer over -1 undefined; on x86-64 the
last two stop the process. Each is an intrinsic that emits its instructions in place; all but integer powers and float
remainders are straight-line, so that the loop vectoriser takes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

Rule = Callable[[Any, bool, Any, Any], Any]


def _binary(name: str, integers: Rule | None, floats: Rule | None) -> Any:
    """The intrinsic ``name`` of two operands of one type, by a rule ``(builder, signed, x, y) -> value``."""

    def typing(typing_context: Any, x: Any, y: Any) -> Any:
        rule = integers if isinstance(x, types.Integer) else floats
        if x != y or rule is None:
            raise TypeError(f"{name} takes no {x} and {y}")
        signed = bool(getattr(x, "signed", True))

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return rule(builder, signed, *args)

        return x(x, x), codegen

    typing.__name__ = typing.__qualname__ = name
    return intrinsic(typing)


def _const(like: Any, value: float) -> Any:
    return ir.Constant(like.type, value)


def _shift_left(b: Any, signed: bool, x: Any, count: Any) -> Any:
    inside = b.icmp_unsigned("<", count, _const(x, x.type.width))  # a negative count is a large one here
    return b.select(inside, b.shl(x, count), _const(x, 0))


def _shift_right(b: Any, signed: bool, x: Any, count: Any) -> Any:
    inside = b.icmp_unsigned("<", count, _const(x, x.type.width))
    if signed:
        return b.ashr(x, b.select(inside, count, _const(x, x.type.width - 1)))
    return b.select(inside, b.lshr(x, count), _const(x, 0))


def _divide(b: Any, signed: bool, x: Any, y: Any) -> tuple[Any, Any]:
    """Quotient towards zero and remainder, and 0 and 0 where y is 0; the smallest integer over -1 is itself."""
    zero = _const(x, 0)
    undefined = b.icmp_unsigned("==", y, zero)
    if not signed:
        divisor = b.select(undefined, _const(x, 1), y)
        quotient = b.udiv(x, divisor)
    else:
        minus = b.icmp_unsigned("==", y, _const(x, -1))
        divisor = b.select(b.or_(undefined, minus), _const(x, 1), y)
        quotient = b.select(minus, b.sub(zero, x), b.sdiv(x, divisor))
    quotient = b.select(undefined, zero, quotient)
    return quotient, b.select(undefined, zero, b.sub(x, b.mul(quotient, y)))


def _turned(b: Any, remainder: Any, y: Any) -> Any:
    """Whether the remainder is not 0 and has another sign than the divisor."""
    zero = _const(y, 0)
    return b.and_(b.icmp_unsigned("!=", remainder, zero), b.icmp_signed("<", b.xor(remainder, y), zero))


def _floor_divide(b: Any, signed: bool, x: Any, y: Any) -> Any:
    quotient, remainder = _divide(b, signed, x, y)
    if not signed:
        return quotient
    return b.select(_turned(b, remainder, y), b.sub(quotient, _const(x, 1)), quotient)


def _remainder(b: Any, signed: bool, x: Any, y: Any) -> Any:
    _, remainder = _divide(b, signed, x, y)
    if not signed:
        return remainder
    return b.select(_turned(b, remainder, y), b.add(remainder, y), remainder)


def _fmod(b: Any, signed: bool, x: Any, y: Any) -> Any:
    return _divide(b, signed, x, y)[1]


def _call(b: Any, name: str, *args: Any) -> Any:
    kind = ir.FunctionType(args[0].type, [a.type for a in args])
    return b.call(b.module.declare_intrinsic(f"llvm.{name}", [args[0].type], kind), args)


def _float_remainder(b: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """The remainder with the divisor's sign, of an exact remainder with the dividend's; and whether it was moved."""
    zero = _const(x, 0.0)
    rest = b.frem(x, y)
    turned = b.xor(b.fcmp_ordered("<", rest, zero), b.fcmp_ordered("<", y, zero))
    moved = b.and_(turned, b.fcmp_unordered("!=", rest, zero))
    whole = b.fcmp_ordered("==", rest, zero)
    return b.select(whole, _call(b, "copysign", zero, y), b.select(moved, b.fadd(rest, y), rest)), moved


def _remainder_of_floats(b: Any, signed: bool, x: Any, y: Any) -> Any:
    return _float_remainder(b, x, y)[0]


def _floor_divide_floats(b: Any, signed: bool, x: Any, y: Any) -> Any:
    """NumPy's quotient: of the multiple of y that is left without the remainder, rounded to the nearest integer."""
    zero, one = _const(x, 0.0), _const(x, 1.0)
    rest = b.frem(x, y)
    _, moved = _float_remainder(b, x, y)
    quotient = b.fdiv(b.fsub(x, rest), y)
    quotient = b.select(moved, b.fsub(quotient, one), quotient)
    floor = _call(b, "floor", quotient)
    up = b.fcmp_ordered(">", b.fsub(quotient, floor), _const(x, 0.5))
    whole = b.select(up, b.fadd(floor, one), floor)
    signed_zero = _call(b, "copysign", zero, b.fdiv(x, y))
    result = b.select(b.fcmp_ordered("==", quotient, zero), signed_zero, whole)
    return b.select(b.fcmp_ordered("==", y, zero), b.fdiv(x, y), result)


def _integer_power(b: Any, signed: bool, x: Any, y: Any) -> Any:
    """x to the y by repeated squaring, wrapping around. Below 0 the exponent leaves 1 / x**-y without its fraction."""
    zero, one = _const(x, 0), _const(x, 1)
    negative = b.icmp_signed("<", y, zero) if signed else ir.Constant(ir.IntType(1), 0)
    result, base, exponent = (cgutils.alloca_once_value(b, v) for v in (one, x, b.select(negative, zero, y)))
    body, done = b.append_basic_block("power"), b.append_basic_block("power.done")
    head = b.append_basic_block("power.head")
    b.branch(head)
    b.position_at_end(head)
    left = b.load(exponent)
    b.cbranch(b.icmp_unsigned("!=", left, zero), body, done)
    b.position_at_end(body)
    factor = b.load(base)
    odd = b.trunc(left, ir.IntType(1))
    b.store(b.select(odd, b.mul(b.load(result), factor), b.load(result)), result)
    b.store(b.mul(factor, factor), base)
    b.store(b.lshr(left, one), exponent)
    b.branch(head)
    b.position_at_end(done)
    if not signed:
        return b.load(result)
    parity = b.select(b.trunc(y, ir.IntType(1)), _const(x, -1), one)
    inverse = b.select(b.icmp_unsigned("==", x, _const(x, -1)), parity, zero)
    inverse = b.select(b.icmp_unsigned("==", x, one), one, inverse)
    return b.select(negative, inverse, b.load(result))


shift_left = _binary("shift_left", _shift_left, None)
shift_right = _binary("shift_right", _shift_right, None)
floor_divide = _binary("floor_divide", _floor_divide, _floor_divide_floats)
remainder = _binary("remainder", _remainder, _remainder_of_floats)
fmod = _binary("fmod", _fmod, lambda b, signed, x, y: b.frem(x, y))
integer_power = _binary("integer_power", _integer_power, None)
