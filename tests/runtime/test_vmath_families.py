"""Accuracy, special values and vectorisation of the trigonometric and hyperbolic functions, of the exponentials and
logarithms to bases 2 and 10, and of erfc.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable

import llvmlite.binding as llvm
import numpy as np
import pytest
from scipy import special
from vmath_checks import (
    INF,
    NAN,
    WIDE_ENOUGH,
    apply,
    bits,
    check_bound,
    check_remainder_of_loop,
    check_specials,
    check_vectorised,
    errors,
    every_float32,
    float32_patterns,
    float64_samples,
    neighbours,
    tiny,
)

from runtime.cpu.vmath import ERROR_BOUND_ULP

DTYPES = ("float32", "float64")
TAN_PI_8 = 2**0.5 - 1
# Intervals with all float32 values, where the errors are largest or formulas change: as many as a second allows.
HARD: dict[str, tuple[float, float]] = {
    "exp2": (0.45, 0.5), "log2": (1.3, 1.4), "log10": (0.65, 0.7), "erfc": (0.48, 0.52), "sin": (3.1, 3.2),
    "cos": (1.55, 1.6), "tan": (1.55, 1.6), "asin": (0.48, 0.52), "acos": (0.48, 0.52), "atan": (0.41, 0.43),
    "sinh": (0.97, 1.03), "cosh": (0.34, 0.36), "asinh": (2.0**-12.1, 2.0**-11.9), "acosh": (1.0, 1.05),
    "atanh": (2.0**-12.1, 2.0**-11.9),
}  # fmt: skip
FUNCTIONS = tuple(HARD)
# Sampled uniformly in float64, besides the random exponents that every function gets.
RANGES: dict[str, list[tuple[float, float]]] = {
    "exp2": [(-1080, 1030), (-1, 1), (-1080, -1020), (1020, 1026)],
    "log2": [(0.5, 2), (1.3, 1.4), (0.999, 1.001), (1e-308, 1e-307)],
    "log10": [(0.5, 2), (1.3, 1.4), (0.999, 1.001), (0, 1e6)],
    "sin": [(-10, 10), (-1, 1), (0, 1e6), (2.0**43, 2.0**45)],
    "cos": [(-10, 10), (-1, 1), (0, 1e6), (2.0**43, 2.0**45)],
    "tan": [(-10, 10), (-1, 1), (0, 1e6), (2.0**43, 2.0**45)],
    "asin": [(-1, 1), (-0.01, 0.01), (0.999, 1), (0.45, 0.55)],
    "acos": [(-1, 1), (-0.01, 0.01), (0.999, 1), (-1, -0.999), (0.45, 0.55)],
    "atan": [(-10, 10), (-1, 1), (0.4, 0.43), (2.3, 2.5)],
    "sinh": [(-711, 711), (-2, 2), (0.9, 1.1), (708, 711)],
    "cosh": [(-711, 711), (-2, 2), (0.3, 0.4), (708, 711)],
    "asinh": [(-10, 10), (-0.1, 0.1)],
    "acosh": [(1, 10), (1, 1.01), (1, 2)],
    "atanh": [(-1, 1), (-0.1, 0.1), (0.99, 1)],
}
# Where a function passes between two formulas.
BORDERS: dict[str, dict[str, list[float]]] = {
    "float32": {
        "exp2": [128.0, -126.0, -149.5], "log2": [2 / 3, 4 / 3, 2.0**-126], "log10": [2 / 3, 4 / 3, 2.0**-126],
        "erfc": [0.5, -0.5, 9.2, 10.05], "sin": [2.0**44, 3.1415927], "cos": [2.0**44, 1.5707964],
        "tan": [2.0**44, 1.5707964], "asin": [0.5, -0.5], "acos": [0.5, -0.5],
        "atan": [TAN_PI_8, 1 / TAN_PI_8, 2.0**33], "sinh": [1.0, 89.4], "cosh": [0.3465736, 89.4],
        "asinh": [2.0**-12, 1.8e19], "acosh": [1.8e19], "atanh": [2.0**-12],
    },
    "float64": {
        "exp2": [1024.0, -1022.0, -1074.5], "log2": [2 / 3, 4 / 3, 2.0**-1022], "log10": [2 / 3, 4 / 3, 2.0**-1022],
        "sin": [2.0**44, 3.141592653589793, 2.0**52], "cos": [2.0**44, 1.5707963267948966],
        "tan": [2.0**44, 1.5707963267948966], "asin": [0.5, -0.5], "acos": [0.5, -0.5],
        "atan": [TAN_PI_8, 1 / TAN_PI_8, 2.0**62], "sinh": [1.0, 710.47], "cosh": [0.34657359, 710.47],
        "asinh": [2.0**-27, 2.0**60, 1e154], "acosh": [2.0**60, 1e154], "atanh": [2.0**-27],
    },
}  # fmt: skip
REFERENCES: dict[str, Callable[..., np.ndarray]] = {
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "asinh": np.arcsinh, "acosh": np.arccosh,
    "atanh": np.arctanh, "erfc": special.erfc,
}  # fmt: skip

every_case = pytest.mark.parametrize(
    ("function", "dtype"), [pytest.param(f, d, id=f"{f}-{d}") for f in FUNCTIONS for d in DTYPES]
)
needs_long_double = pytest.mark.skipif(not WIDE_ENOUGH, reason="long double is no wider than float64 here")


def reference(function: str) -> Callable[..., np.ndarray]:
    found: Callable[..., np.ndarray] = REFERENCES.get(function) or getattr(np, function)
    return found


@pytest.mark.parametrize("function", FUNCTIONS)
def test_float32_error(function: str) -> None:
    chunks = itertools.chain(
        float32_patterns(0, 2**32, 499),
        every_float32(*HARD[function]),
        neighbours(BORDERS["float32"][function], "float32"),
    )
    check_bound(function, reference(function), chunks)


@needs_long_double
@pytest.mark.parametrize("function", RANGES)
def test_float64_error(function: str) -> None:
    chunks = itertools.chain(float64_samples(RANGES[function], 8), neighbours(BORDERS["float64"][function], "float64"))
    check_bound(function, reference(function), chunks)


@needs_long_double
def test_float64_error_of_erfc() -> None:
    # A function of long double is not at hand. By the continued fraction (Abramowitz and Stegun, 7.1.14), evaluated
    # from the tail, beyond 2; below, as 1 - erf by its series of one sign, where erfc is above 0.004.
    x = np.random.default_rng(4).uniform(-6, 26.5, 40_000)
    wide = np.abs(x.astype(np.longdouble))
    root_pi = np.sqrt(4 * np.arctan(np.longdouble(1)))
    far = np.maximum(wide, 2)
    fraction = far.copy()
    for k in range(200, 0, -1):
        fraction = far + np.longdouble(k) / 2 / fraction
    tail = np.exp(-far * far) / root_pi / fraction
    near = np.minimum(wide, 2)
    term, total = near.copy(), near.copy()
    for k in range(1, 100):
        term = term * 2 * near * near / (2 * k + 1)
        total += term
    exact = np.where(wide > 2, tail, 1 - 2 / root_pi * np.exp(-near * near) * total)
    error = errors(apply("erfc", x), np.where(x < 0, 2 - exact, exact))
    # exp(-x^2) of long double is off by its argument's rounding, up to 350 * 2^-64; 1 - erf cancels 8 bits.
    assert error.max() <= ERROR_BOUND_ULP["erfc", "float64"] + 350 / 2**11


def test_arguments_closest_to_multiples_of_half_pi() -> None:
    # The float64, and the float32, closest to a multiple of pi/2 (J.-M. Muller, Elementary Functions, section 9.1);
    # exact results from arithmetic of 2500 bits.
    worst: list[tuple[str, float, float, float]] = [
        ("float64", 6381956970095103.0 * 2.0**797, -4.687165924254628e-19, -2.133485385753704e18),
        ("float32", 16367173.0 * 2.0**72, -1.6147697982476211e-09, -619283318.9506139),
    ]
    for dtype, argument, cosine, tangent in worst:
        x: np.ndarray = np.array([argument, -argument], dtype)
        for function, exact in (("cos", [cosine, cosine]), ("tan", [tangent, -tangent]), ("sin", [1, -1])):
            got = apply(function, x)
            assert errors(got, np.array(exact, np.longdouble)).max() <= 1, (function, dtype, got)


def special_cases(function: str, dtype: str) -> list[tuple[float, float]]:
    """(argument, exact result) pairs, those of C99 annex F."""
    info = np.finfo(dtype)
    smallest, biggest = float(info.smallest_subnormal), float(info.max)
    odd = [(x, x) for x in tiny(dtype)]
    ones = [(x, 1.0) for x in tiny(dtype)]
    rounded = info.dtype.type
    half_pi, pi = float(rounded(np.pi / 2)), float(rounded(np.pi))
    undefined = [(INF, NAN), (-INF, NAN)]
    beyond_one = [(float(np.nextafter(rounded(1), rounded(2))), NAN), (-1.5, NAN), (biggest, NAN), *undefined]
    not_positive = [(x, NAN) for x in (-smallest, -1.0, -biggest, -INF)]
    logarithm = [(0.0, -INF), (-0.0, -INF), (INF, INF), (1.0, 0.0), *not_positive]
    cases: dict[str, list[tuple[float, float]]] = {
        "exp2": [(-INF, 0.0), (INF, INF), (biggest, INF), (-biggest, 0.0), *ones],
        "log2": logarithm,
        "log10": logarithm,
        "erfc": [(-INF, 2.0), (INF, 0.0), (biggest, 0.0), (-biggest, 2.0), (30.0, 0.0), *ones],
        "sin": [*undefined, *odd],
        "cos": [*undefined, *ones],
        "tan": [*undefined, *odd],
        "asin": [(1.0, half_pi), (-1.0, -half_pi), *beyond_one, *odd],
        "acos": [(1.0, 0.0), (-1.0, pi), *beyond_one, *((x, half_pi) for x in tiny(dtype))],
        "atan": [(INF, half_pi), (-INF, -half_pi), (biggest, half_pi), (1.0, half_pi / 2), *odd],
        "sinh": [(INF, INF), (-INF, -INF), (biggest, INF), (-biggest, -INF), *odd],
        "cosh": [(INF, INF), (-INF, INF), (biggest, INF), (-biggest, INF), *ones],
        "asinh": [(INF, INF), (-INF, -INF), *odd],
        "acosh": [
            (1.0, 0.0),
            (INF, INF),
            *((x, NAN) for x in (1 - float(info.epsneg), 0.0, -1.0, -2.0, -biggest, -INF)),
        ],
        "atanh": [(1.0, INF), (-1.0, -INF), *beyond_one, *odd],
    }
    return cases[function]


@every_case
def test_special_values_are_exact(function: str, dtype: str) -> None:
    check_specials(function, dtype, special_cases(function, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_powers_of_the_base_are_exact(dtype: str) -> None:
    info = np.finfo(dtype)
    exponents = np.arange(info.minexp - info.nmant, info.maxexp).astype(dtype)
    powers = np.ldexp(np.ones(exponents.size, dtype), exponents.astype(int))
    np.testing.assert_array_equal(apply("exp2", exponents), powers)
    np.testing.assert_array_equal(apply("log2", powers), exponents)
    tens = np.arange(11 if dtype == "float32" else 23)
    np.testing.assert_array_equal(apply("log10", np.array([float(10 ** int(k)) for k in tens], dtype)), tens)


@every_case
def test_vector_body_and_scalar_remainder_agree(function: str, dtype: str) -> None:
    low, high = {"acosh": (1.0, 5.0)}.get(function, (0.001, 0.999))
    check_remainder_of_loop(function, np.random.default_rng(3).uniform(low, high, 131).astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", ["sin", "tan", "asin", "atan", "sinh", "asinh", "atanh", "cos", "cosh"])
def test_odd_and_even_to_the_bit(function: str, dtype: str) -> None:
    x = np.random.default_rng(5).uniform(0, 1, 4096).astype(dtype)
    there, back = apply(function, x), apply(function, -x)
    assert (bits(back) == bits(there if function.startswith("cos") else -there)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_sines_stay_within_one(dtype: str) -> None:
    x = (np.arange(-20000, 20001) * (np.pi / 2)).astype(dtype)
    for function in ("sin", "cos"):
        assert np.abs(apply(function, x)).max() <= 1


@every_case
def test_loop_is_vectorised(function: str, dtype: str) -> None:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("reads x86-64 assembly")
    if not llvm.get_host_cpu_features().get("fma"):
        pytest.skip("without a fused multiply-add instruction llvm.fma is a libm call")
    check_vectorised(function, dtype)
