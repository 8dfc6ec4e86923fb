"""Elementary functions that LLVM's loop vectoriser can widen.

Each is a Numba intrinsic over float32 or float64 operands of one type, giving the same type. A call to libm would keep
a kernel's loop scalar. Each function here is instead emitted into the loop as straight-line arithmetic: fused
multiply-adds, comparisons, selects, and integer operations on the bits of the float. There is no fast-math flag, and
no branch but that of `vmath_rare`, for arguments of 2^44 and more of the trigonometric functions.

Schemes, after the published descriptions in Cody and Waite (Software Manual for the Elementary Functions), FDLIBM,
Cephes and SLEEF; coefficients and error tables are this package's own (see `_vmath_tables`):

- exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln2/2, r taken in two Cody-Waite steps. Adding and subtracting
  1.5 * 2^mantissa_bits rounds x / ln 2 and leaves n in the low bits, which avoids a conversion to integer (undefined
  for NaN). 2^n is applied as two factors, or by AVX-512's own instruction: either way a subnormal result is rounded
  once, and an overflow gives inf.
- exp2(x) is the same with n = round(x); x - n is exact.
- expm1(x) = (2^n - 1) + 2^n r + 2^n r^2 q(r), the large terms summed with their rounding errors kept.
- log(x) = e ln2 + log(1 + f), 2/3 <= 1 + f < 4/3, where 1 + f = x / 2^e is cut out of the bits. float32 takes a
  polynomial in f; float64 a polynomial in s^2, s = f / (2 + f), which halves the degree.
- log2 and log10 scale that sum, f - f^2/2 of it as a pair, so that powers of the base are exact.
- log1p(x) is log(u) of u = 1 + x rounded, corrected by the rounding error of u; with e = 0, f is x itself.
- tanh(x) = expm1(2|x|) / (expm1(2|x|) + 2), with the sign of x.
- sigmoid(x) = 1 / (1 + exp(-|x|)), over exp(-|x|) instead of 1 when x < 0: nothing cancels or overflows.
- erf(x) = x + x p(x^2) near 0, and 1 - exp(-p(|x|)) with the sign of x beyond `ERF_SPLIT`.
- erfc(x) = exp(-x^2) p(t) / (1 + 2x), t = (x - k) / (x + k), x^2 as a pair; 1 - erf(x) up to 1/2.
- the others are described where they are: `vmath_trigonometric`, `vmath_inverse`, `vmath_hyperbolic`, `vmath_power`.

The bounds in `ERROR_BOUND_ULP` assume round-to-nearest with subnormals on, and a kernel compiled without `fastmath`:
Numba would put its flags on these operations too, and the error compensation would be optimised away. On a target
with no fused multiply-add instruction `llvm.fma` becomes a libm call: the results are the same, the loop stays scalar.
"""

from runtime.cpu.vmath_exponential import erf, erfc, exp, exp2, expm1, log, log1p, log2, log10, sigmoid, tanh
from runtime.cpu.vmath_hyperbolic import acosh, asinh, atanh, cosh, sinh
from runtime.cpu.vmath_inverse import acos, asin, atan, atan2
from runtime.cpu.vmath_power import hypot, pow
from runtime.cpu.vmath_trigonometric import cos, sin, tan

# Largest error in units in the last place of the exact result, over the sweeps of the tests: of float32, of float64.
_BOUNDS = {
    "exp": (0.9, 0.9), "exp2": (0.9, 0.9), "expm1": (0.9, 0.95),
    "log": (0.9, 0.9), "log1p": (0.9, 0.9), "log2": (0.75, 0.8), "log10": (0.75, 0.8),
    "tanh": (1.6, 1.6), "sigmoid": (2.5, 2.5), "erf": (1.1, 1.15), "erfc": (0.55, 1.4),
    "sin": (0.51, 0.85), "cos": (0.51, 0.85), "tan": (0.51, 0.95),
    "asin": (0.65, 0.7), "acos": (0.65, 0.7), "atan": (0.85, 0.9), "atan2": (0.85, 0.9),
    "sinh": (0.8, 0.8), "cosh": (0.75, 0.75), "asinh": (0.51, 0.55), "acosh": (0.51, 0.55), "atanh": (0.51, 0.55),
    "pow": (0.51, 0.85), "hypot": (0.51, 0.8),
}  # fmt: skip
ERROR_BOUND_ULP: dict[tuple[str, str], float] = {
    (name, f"float{bits}"): bound
    for name, bounds in _BOUNDS.items()
    for bits, bound in zip((32, 64), bounds, strict=True)
}

__all__ = [
    "ERROR_BOUND_ULP", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "erf", "erfc", "exp",
    "exp2", "expm1", "hypot", "log", "log1p", "log2", "log10", "pow", "sigmoid", "sin", "sinh", "tan", "tanh",
]  # fmt: skip
