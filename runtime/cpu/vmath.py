"""Elementary functions that LLVM's loop vectoriser can widen.

`exp`, `log`, `tanh`, `sigmoid`, `log1p`, `expm1` and `erf` are Numba intrinsics over a float32 or a
float64, giving the same type. A call to libm would keep a kernel's loop scalar. Each function here is
instead emitted into the loop as straight-line arithmetic: fused multiply-adds, comparisons, selects, and
integer operations on the bits of the float. There is no branch, no table lookup, and no fast-math flag.

Schemes, after the published descriptions in Cody and Waite (Software Manual for the Elementary Functions),
FDLIBM, Cephes and SLEEF; coefficients and error tables are this module's own (see `_vmath_tables`):

- exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln2/2, r taken in two Cody-Waite steps. Adding and
  subtracting 1.5 * 2^mantissa_bits rounds x / ln 2 and leaves n in the low bits, which avoids a conversion
  to integer (undefined for NaN). 2^n is applied as two factors, so that a subnormal result is rounded
  once and an overflow gives inf.
- expm1(x) = (2^n - 1) + 2^n r + 2^n r^2 q(r), the large terms summed with their rounding errors kept.
- log(x) = e ln2 + log(1 + f), 2/3 <= 1 + f < 4/3, where 1 + f = x / 2^e is cut out of the bits. float32
  takes a polynomial in f; float64 a polynomial in s^2, s = f / (2 + f), which halves the degree.
- log1p(x) is log(u) of u = 1 + x rounded, corrected by the rounding error of u; with e = 0, f is x itself.
- tanh(x) = expm1(2|x|) / (expm1(2|x|) + 2), with the sign of x.
- sigmoid(x) = 1 / (1 + exp(-|x|)), over exp(-|x|) instead of 1 when x < 0: nothing cancels or overflows.
- erf(x) = x + x p(x^2) near 0, and 1 - exp(-p(|x|)) with the sign of x beyond `ERF_SPLIT`.

The bounds in `ERROR_BOUND_ULP` assume round-to-nearest with subnormals on, and a kernel compiled without
`fastmath`: Numba would put its flags on these operations too, and the error compensation would be
optimised away. On a target with no fused multiply-add instruction `llvm.fma` becomes a libm call: the
results are the same, the loop stays scalar.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from runtime.cpu._vmath_tables import ERF_SPLIT, FLOAT32, FLOAT64, LOG2_E, Format

# Largest error in units in the last place of the exact result, over the sweeps of the test.
ERROR_BOUND_ULP: dict[tuple[str, str], float] = {
    ("exp", "float32"): 0.9,
    ("exp", "float64"): 0.9,
    ("log", "float32"): 0.9,
    ("log", "float64"): 0.9,
    ("tanh", "float32"): 1.6,
    ("tanh", "float64"): 1.6,
    ("sigmoid", "float32"): 1.6,
    ("sigmoid", "float64"): 1.6,
    ("log1p", "float32"): 0.9,
    ("log1p", "float64"): 0.9,
    ("expm1", "float32"): 0.9,
    ("expm1", "float64"): 0.95,
    ("erf", "float32"): 1.1,
    ("erf", "float64"): 1.15,
}


class _Emitter:
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

    def abs(self, a: Any) -> Any:
        return self.ir.call(self.ir.module.declare_intrinsic("llvm.fabs", [self.float_type]), [a])

    def copysign(self, magnitude: Any, sign: Any) -> Any:
        signature = ir.FunctionType(self.float_type, [self.float_type, self.float_type])
        function = self.ir.module.declare_intrinsic("llvm.copysign", [self.float_type], signature)
        return self.ir.call(function, [magnitude, sign])

    def compare(self, a: Any, operator: str, b: Any) -> Any:
        """An ordered comparison: false where an operand is NaN."""
        return self.ir.fcmp_ordered(operator, a, b)

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

    def polynomial(self, x: Any, coefficients: Sequence[float]) -> Any:
        """Horner's rule: the fewest operations, and neighbouring iterations hide its latency."""
        total = self.const(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            total = self.fma(total, x, self.const(coefficient))
        return total


def _bit_pattern(fmt: Format, value: float) -> int:
    return int(np.float32(value).view(np.int32) if fmt is FLOAT32 else np.float64(value).view(np.int64))


def _reduce_exp(e: _Emitter, x: Any) -> tuple[Any, Any, Any, int]:
    """(r, r_error, bits, zero): x = n ln2 + r + r_error; the integer `bits - zero` is n."""
    magic = 1.5 * 2.0**e.fmt.mantissa_bits
    shifted = e.fma(x, e.const(LOG2_E), e.const(magic))
    n = e.sub(shifted, e.const(magic))
    high = e.fma(n, e.const(-e.fmt.ln2_hi), x)
    r = e.fma(n, e.const(-e.fmt.ln2_lo), high)
    r_error = e.fma(n, e.const(-e.fmt.ln2_lo), e.sub(high, r))
    return r, r_error, e.bits(shifted), _bit_pattern(e.fmt, magic)


def _exp_core(e: _Emitter, x: Any) -> Any:
    """exp of an x in [exp_min, exp_max], or of NaN."""
    r, r_error, bits, zero = _reduce_exp(e, x)
    tail = e.fma(e.mul(r, r), e.polynomial(r, e.fmt.exp), r_error)
    p = e.add(e.add(r, tail), e.const(1.0))
    # n halved with both halves biased at once; n + 2 bias is positive, so a logical shift serves, which
    # AVX2 has for 64-bit lanes and an arithmetic one it has not.
    both = e.ir.add(bits, e.int_const(2 * e.fmt.bias - zero))
    half = e.ir.lshr(both, e.int_const(1))
    return e.mul(e.mul(p, e.power_of_two(half)), e.power_of_two(e.ir.sub(both, half)))


def _expm1_core(e: _Emitter, x: Any, halved: bool) -> Any:
    """expm1(x), x clamped to where it is neither -1 nor inf; half of it if `halved`, so that 2^n fits."""
    r, r_error, bits, zero = _reduce_exp(e, x)
    tail = e.fma(e.mul(r, r), e.polynomial(r, e.fmt.expm1), e.fma(r_error, r, r_error))

    one = e.const(0.5 if halved else 1.0)
    scale = e.power_of_two(e.ir.add(bits, e.int_const(e.fmt.bias - zero - int(halved))))
    base = e.sub(scale, one)
    base_error = e.sub(e.sub(scale, base), one)
    head = e.fma(scale, r, base)
    head_error = e.add(e.fma(scale, r, e.sub(base, head)), base_error)
    return e.add(head, e.fma(scale, tail, head_error))


def _split_log(e: _Emitter, x: Any) -> tuple[Any, Any]:
    """(biased exponent as an integer, m) of a normal positive x = m 2^exponent, 2/3 <= m < 4/3."""
    fmt = e.fmt
    one = fmt.bias << fmt.mantissa_bits
    bits = e.bits(x)
    # Moves the step of the exponent field from 1 to 2/3.
    moved = e.ir.add(bits, e.int_const(one - _bit_pattern(fmt, 2.0 / 3.0)))
    biased = e.ir.lshr(moved, e.int_const(fmt.mantissa_bits))
    mantissa = e.ir.sub(bits, e.ir.shl(biased, e.int_const(fmt.mantissa_bits)))
    return biased, e.from_bits(e.ir.add(mantissa, e.int_const(one)))


def _exponent_as_float(e: _Emitter, biased: Any) -> Any:
    # Under 2^mantissa_bits an integer is the mantissa of 2^mantissa_bits plus itself; AVX2 has no
    # conversion from 64-bit integers.
    magic = 2.0**e.fmt.mantissa_bits
    joined = e.ir.or_(biased, e.int_const(_bit_pattern(e.fmt, magic)))
    return e.sub(e.from_bits(joined), e.const(magic + e.fmt.bias))


def _log_sum(e: _Emitter, exponent: Any, f: Any, correction: Any = None) -> Any:
    """exponent * ln2 + log(1 + f) + correction, |f| <= 1/3."""
    if e.fmt is FLOAT32:
        tail = e.mul(e.mul(f, f), e.fma(f, e.polynomial(f, e.fmt.log), e.const(-0.5)))
    else:
        s = e.div(f, e.add(f, e.const(2.0)))
        z = e.mul(s, s)
        half_square = e.mul(e.mul(f, e.const(0.5)), f)
        series = e.fma(z, e.polynomial(z, e.fmt.log), half_square)
        tail = e.fma(s, series, e.neg(half_square))
    if correction is not None:
        tail = e.add(tail, correction)
    tail = e.fma(exponent, e.const(e.fmt.ln2_lo), tail)
    head = e.fma(exponent, e.const(e.fmt.ln2_hi), f)
    head_error = e.add(e.fma(exponent, e.const(e.fmt.ln2_hi), e.neg(head)), f)
    return e.add(head, e.add(head_error, tail))


def _log_or_special(e: _Emitter, x: Any, value: Any) -> Any:
    """value where x is positive and finite; else what log gives at 0, below 0, at inf and at NaN."""
    zero, inf = e.const(0.0), e.const(float("inf"))
    special = e.select(e.compare(x, "<", zero), e.const(float("nan")), x)
    special = e.select(e.compare(x, "==", zero), e.const(float("-inf")), special)
    finite = e.ir.and_(e.compare(x, ">", zero), e.compare(x, "<", inf))
    return e.select(finite, value, special)


def _quotient(e: _Emitter, numerator: Any, t: Any, addend: float) -> Any:
    """numerator / (t + addend), corrected by the remainder of the division and the sum's own error."""
    divisor = e.add(t, e.const(addend))
    divisor_error = e.sub(t, e.sub(divisor, e.const(addend)))
    reciprocal = e.div(e.const(1.0), divisor)
    q = e.mul(numerator, reciprocal)
    remainder = e.fma(e.neg(q), divisor_error, e.fma(e.neg(q), divisor, numerator))
    return e.fma(remainder, reciprocal, q)


def _emit_exp(e: _Emitter, x: Any) -> Any:
    return _exp_core(e, e.at_least(e.at_most(x, e.fmt.exp_max), e.fmt.exp_min))


def _emit_expm1(e: _Emitter, x: Any) -> Any:
    clamped = e.at_least(e.at_most(x, e.fmt.exp_max), e.fmt.expm1_min)
    half = _expm1_core(e, clamped, halved=True)
    # Near 0 the halving would lose the last bit of a subnormal, and the sums the sign of -0.
    tiny = e.compare(e.abs(x), "<", e.const(2.0 ** -(e.fmt.mantissa_bits + 2)))
    return e.select(tiny, x, e.add(half, half))


def _emit_log(e: _Emitter, x: Any) -> Any:
    fmt = e.fmt
    subnormal = e.compare(x, "<", e.const(2.0 ** (1 - fmt.bias)))
    up = fmt.mantissa_bits + 1
    biased, m = _split_log(e, e.select(subnormal, e.mul(x, e.const(2.0**up)), x))
    exponent = _exponent_as_float(e, biased)
    exponent = e.select(subnormal, e.sub(exponent, e.const(float(up))), exponent)
    return _log_or_special(e, x, _log_sum(e, exponent, e.sub(m, e.const(1.0))))


def _emit_log1p(e: _Emitter, x: Any) -> Any:
    fmt, one = e.fmt, e.const(1.0)
    u = e.add(x, one)
    rounded_x = e.sub(u, one)
    u_error = e.add(e.sub(x, rounded_x), e.sub(one, e.sub(u, rounded_x)))
    biased, m = _split_log(e, u)
    exponent = _exponent_as_float(e, biased)
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


def _emit_tanh(e: _Emitter, x: Any) -> Any:
    magnitude = e.at_most(e.abs(x), e.fmt.tanh_max)
    t = _expm1_core(e, e.add(magnitude, magnitude), halved=False)
    return e.copysign(_quotient(e, t, t, 2.0), x)


def _emit_sigmoid(e: _Emitter, x: Any) -> Any:
    t = _exp_core(e, e.at_least(e.neg(e.abs(x)), e.fmt.exp_min))
    numerator = e.select(e.compare(x, "<", e.const(0.0)), t, e.const(1.0))
    return _quotient(e, numerator, t, 1.0)


def _emit_erf(e: _Emitter, x: Any) -> Any:
    magnitude = e.at_most(e.abs(x), e.fmt.erf_max)
    # Both formulas are computed everywhere; the clamp keeps exp's argument in its range.
    near = e.fma(x, e.polynomial(e.mul(magnitude, magnitude), e.fmt.erf_small), x)
    exponent = e.neg(e.polynomial(magnitude, e.fmt.erf_large))
    far = e.copysign(e.sub(e.const(1.0), _exp_core(e, exponent)), x)
    return e.select(e.compare(magnitude, "<", e.const(ERF_SPLIT)), near, far)


def _unary(name: str, emit: Callable[[_Emitter, Any], Any]) -> Any:
    """The Numba intrinsic `name` whose body is what `emit` puts out."""

    def typing(typingctx: Any, x: Any) -> Any:
        if x not in (types.float32, types.float64):
            return None
        fmt = FLOAT32 if x == types.float32 else FLOAT64

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return emit(_Emitter(builder, fmt), args[0])

        return x(x), codegen

    typing.__name__ = typing.__qualname__ = name
    typing.__doc__ = f"{name} of a float32 or float64 inside a Numba kernel; error in `ERROR_BOUND_ULP`."
    return intrinsic(typing)


exp = _unary("exp", _emit_exp)
log = _unary("log", _emit_log)
tanh = _unary("tanh", _emit_tanh)
sigmoid = _unary("sigmoid", _emit_sigmoid)
log1p = _unary("log1p", _emit_log1p)
expm1 = _unary("expm1", _emit_expm1)
erf = _unary("erf", _emit_erf)
