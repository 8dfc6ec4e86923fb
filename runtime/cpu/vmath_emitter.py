"""What the vector functions are written with: the arithmetic of one floating-point type as LLVM instructions.

Sums and products that keep their rounding error are pairs ``(high, low)``, after T. J. Dekker, "A floating-point
technique for extending the available precision", Numerische Mathematik 18 (1971), and D. E. Knuth, The Art of Computer
Programming, volume 2, section 4.2.2.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from runtime.cpu import host
from runtime.cpu._vmath_tables import FLOAT32, FLOAT64, Format

Pair: TypeAlias = tuple[Any, Any]


class Emitter:
    """The instructions of one floating-point type at an IR builder's position."""

    def __init__(self, builder: Any, fmt: Format) -> None:
        self.ir = builder
        self.fmt = fmt
        self.float_type: Any = ir.FloatType() if fmt is FLOAT32 else ir.DoubleType()
        self.int_type: Any = ir.IntType(fmt.bits)

    def const(self, value: float) -> Any:
        return ir.Constant(self.float_type, value)

    def int_const(self, value: int) -> Any:
        return ir.Constant(self.int_type, value)

    def add(self, a: Any, b: Any) -> Any:
        return self.ir.fadd(a, b)

    def sub(self, a: Any, b: Any) -> Any:
        return self.ir.fsub(a, b)

    def mul(self, a: Any, b: Any) -> Any:
        return self.ir.fmul(a, b)

    def div(self, a: Any, b: Any) -> Any:
        return self.ir.fdiv(a, b)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return self.ir.fma(a, b, c)

    def neg(self, a: Any) -> Any:
        return self.ir.fneg(a)

    def _call(self, name: str, *args: Any) -> Any:
        signature = ir.FunctionType(self.float_type, [self.float_type] * len(args))
        return self.ir.call(self.ir.module.declare_intrinsic(f"llvm.{name}", [self.float_type], signature), args)

    def abs(self, a: Any) -> Any:
        return self._call("fabs", a)

    def sqrt(self, a: Any) -> Any:
        return self._call("sqrt", a)

    def trunc(self, a: Any) -> Any:
        return self._call("trunc", a)

    def copysign(self, magnitude: Any, sign: Any) -> Any:
        return self._call("copysign", magnitude, sign)

    def compare(self, a: Any, operator: str, b: Any) -> Any:
        """An ordered comparison: false where an operand is NaN."""
        return self.ir.fcmp_ordered(operator, a, b)

    def is_nan(self, a: Any) -> Any:
        return self.ir.fcmp_unordered("uno", a, a)

    def select(self, condition: Any, a: Any, b: Any) -> Any:
        return self.ir.select(condition, a, b)

    def at_most(self, x: Any, limit: float) -> Any:
        """The lesser of x and limit; NaN stays NaN, which a clamp by `llvm.minnum` would lose."""
        return self.select(self.compare(x, ">", self.const(limit)), self.const(limit), x)

    def at_least(self, x: Any, limit: float) -> Any:
        return self.select(self.compare(x, "<", self.const(limit)), self.const(limit), x)

    def bits(self, a: Any) -> Any:
        return self.ir.bitcast(a, self.int_type)

    def from_bits(self, a: Any) -> Any:
        return self.ir.bitcast(a, self.float_type)

    def power_of_two(self, biased_exponent: Any) -> Any:
        return self.from_bits(self.ir.shl(biased_exponent, self.int_const(self.fmt.mantissa_bits)))

    def scaled(self, x: Any, exponent: Any) -> Any:
        """x 2^exponent, rounded once; only where ``has_scaling``."""
        kinds = [self.float_type, ir.IntType(32)]
        signature = ir.FunctionType(self.float_type, kinds)
        if self.int_type != kinds[1]:
            exponent = self.ir.trunc(exponent, kinds[1])
        return self.ir.call(self.ir.module.declare_intrinsic("llvm.ldexp", kinds, signature), [x, exponent])

    def from_integer(self, value: Any) -> Any:
        """A non-negative integer below 2^mantissa_bits as a float. Such an integer is the mantissa of 2^mantissa_bits
        plus itself; AVX2 has no conversion from 64-bit integers.
        """
        magic = 2.0**self.fmt.mantissa_bits
        joined = self.ir.or_(value, self.int_const(bit_pattern(self.fmt, magic)))
        return self.sub(self.from_bits(joined), self.const(magic))

    def polynomial(self, x: Any, coefficients: Sequence[float]) -> Any:
        """Horner's rule: the fewest operations, and neighbouring iterations hide its latency."""
        total = self.const(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            total = self.fma(total, x, self.const(coefficient))
        return total

    # Pairs.

    def quick_sum(self, a: Any, b: Any) -> Pair:
        """a + b and its rounding error, where |a| >= |b| or a is 0."""
        total = self.add(a, b)
        return total, self.add(self.sub(a, total), b)

    def exact_sum(self, a: Any, b: Any) -> Pair:
        """a + b and its rounding error."""
        total = self.add(a, b)
        of_b = self.sub(total, a)
        return total, self.add(self.sub(a, self.sub(total, of_b)), self.sub(b, of_b))

    def exact_product(self, a: Any, b: Any) -> Pair:
        """a * b and its rounding error."""
        product = self.mul(a, b)
        return product, self.fma(a, b, self.neg(product))

    def pair_product(self, a: Pair, b: Pair) -> Pair:
        """The product of two pairs, to twice the precision less a few bits."""
        high, low = self.exact_product(a[0], b[0])
        return high, self.fma(a[0], b[1], self.fma(a[1], b[0], low))


@functools.cache
def has_scaling() -> bool:
    """Whether ``llvm.ldexp`` becomes a vector instruction: AVX-512 has one, and LLVM uses it from some version on. Else
    it is a call of libm for each element.
    """
    return llvm.llvm_version_info[0] >= 22 and "avx512f" in host.features()


def bit_pattern(fmt: Format, value: float) -> int:
    return int(np.float32(value).view(np.int32) if fmt is FLOAT32 else np.float64(value).view(np.int64))


def function(name: str, emit: Callable[..., Any], arity: int = 1) -> Any:
    """The Numba intrinsic ``name`` of float32 or float64 operands whose body is what ``emit`` puts out."""

    def rule(*operands: Any) -> Any:
        x = operands[0]
        if x not in (types.float32, types.float64) or any(other != x for other in operands):
            return None
        fmt = FLOAT32 if x == types.float32 else FLOAT64

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return emit(Emitter(builder, fmt), *args)

        return x(*operands), codegen

    def of_one(typing_context: Any, x: Any) -> Any:
        return rule(x)

    def of_two(typing_context: Any, x: Any, y: Any) -> Any:
        return rule(x, y)

    typing = of_one if arity == 1 else of_two
    typing.__name__ = typing.__qualname__ = name
    typing.__doc__ = f"{name} of float32 or float64 inside a Numba kernel; error in `ERROR_BOUND_ULP`."
    return intrinsic(typing)


def of_both(emit: Callable[..., Any]) -> Callable[..., Any]:
    """A rule for both types out of ``emit(e, *operands, narrow)`` in float64, where ``narrow`` says that operands and
    result are float32.
    """

    def rule(e: Emitter, *operands: Any) -> Any:
        if e.fmt is FLOAT64:
            return emit(e, *operands, False)
        wide = Emitter(e.ir, FLOAT64)
        value = emit(wide, *(e.ir.fpext(x, wide.float_type) for x in operands), True)
        return e.ir.fptrunc(value, e.float_type)

    return rule
