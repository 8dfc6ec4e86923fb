"""Accuracy, special values and vectorisation of the exponential family of `runtime.cpu.vmath`.

float32 is checked against float64 libm, float64 against the x87 long double; both references are good to
far less than the bounds' last digit.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Iterator

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba import cfunc, types
from scipy import special
from vmath_checks import (
    CHUNK,
    INF,
    NAN,
    WIDE_ENOUGH,
    apply,
    check_bound,
    check_remainder_of_loop,
    check_specials,
    check_vectorised,
    compiled,
    every_float32,
    float32_patterns,
    float64_samples,
    tiny,
)

from runtime.cpu import vmath, vmath_exponential
from runtime.cpu._vmath_tables import ERF_SPLIT
from runtime.cpu.vmath_emitter import function, has_scaling

FUNCTIONS = ("exp", "log", "tanh", "sigmoid", "log1p", "expm1", "erf")
DTYPES = ("float32", "float64")

every_case = pytest.mark.parametrize(
    ("function", "dtype"), [pytest.param(f, d, id=f"{f}-{d}") for f in FUNCTIONS for d in DTYPES]
)
needs_long_double = pytest.mark.skipif(not WIDE_ENOUGH, reason="long double is no wider than float64 here")


def erf_reference(x: np.ndarray) -> np.ndarray:
    if x.dtype == np.float64:
        return np.asarray(special.erf(x))
    # erf(x) = 2 / sqrt(pi) exp(-x^2) sum of 2^k x^(2k+1) / (2k+1)!!, whose terms are all of one sign. Past 2
    # erfc is under 0.005, and float64 is enough for it.
    near = np.clip(x, -2, 2)
    square = 2 * near * near
    term, total = near.copy(), near.copy()
    for k in range(1, 80):
        term *= square
        term /= 2 * k + 1
        total += term
        if np.abs(term).max() < 1e-22:
            break
    pi = 4 * np.arctan(np.longdouble(1))
    total *= 2 / np.sqrt(pi) * np.exp(-near * near)
    far = np.sign(x) * (1 - special.erfc(np.abs(x).astype(np.float64)).astype(x.dtype))
    return np.asarray(np.where(np.abs(x) < 2, total, far))


def sigmoid_reference(x: np.ndarray) -> np.ndarray:
    t = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, t, 1) / (1 + t))


def reference(function: str) -> Callable[..., np.ndarray]:
    own: dict[str, Callable[..., np.ndarray]] = {"erf": erf_reference, "sigmoid": sigmoid_reference}
    found: Callable[..., np.ndarray] = own.get(function) or getattr(np, function)
    return found


@pytest.mark.parametrize("function", FUNCTIONS)
def test_float32_error_over_all_exponents(function: str) -> None:
    check_bound(function, reference(function), float32_patterns(0, 2**32, 97))


# Where the sweeps above found the largest errors.
FLOAT32_HARD: dict[str, tuple[float, float]] = {
    "exp": (27.0, 27.5),
    "log": (1.25, 1.5),
    "tanh": (0.0605, 0.063),
    "sigmoid": (4.5, 5.0),
    "log1p": (0.25, 0.5),
    "expm1": (0.25, 0.5),
    "erf": (0.98, 1.12),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_float32_error_over_every_value_of_hard_ranges(function: str) -> None:
    signs = (1,) if function == "log" else (1, -1)
    check_bound(function, reference(function), every_float32(*FLOAT32_HARD[function], signs))


# Ranges sampled uniformly, besides the random exponents that every function gets.
FLOAT64_RANGES: dict[str, list[tuple[float, float]]] = {
    "exp": [(-746, 710), (-1.5, 1.5), (-746, -708), (709, 710), (-1e-3, 1e-3)],
    "log": [(0.5, 2), (1.3, 1.4), (0.999, 1.001), (0, 10), (1e-308, 1e-307)],
    "tanh": [(-21, 21), (-1, 1), (-0.02, 0.02), (0.0605, 0.063)],
    "sigmoid": [(-746, 40), (-10, 10), (-5, -4.5), (-746, -708)],
    "log1p": [(-1, -0.9), (-0.5, 1), (0.3, 0.4), (-0.01, 0.01), (0, 100)],
    "expm1": [(-40, 710), (-2, 2), (0.34, 0.37), (-0.01, 0.01), (709, 710)],
    "erf": [(-6.1, 6.1), (-1.5, 1.5), (0.98, 1.12), (-0.01, 0.01)],
}


def near_one(function: str) -> Iterator[tuple[np.ndarray]]:
    """Arguments at every distance from where a logarithm has its zero or its pole."""
    rng = np.random.default_rng(21)
    for _ in range(40 if function in ("log", "log1p") else 0):
        mantissa = rng.uniform(1, 2, CHUNK)
        if function == "log":
            yield (1 + np.ldexp(rng.choice([-1.0, 1.0], CHUNK) * mantissa, rng.integers(-53, -1, CHUNK)),)
        else:
            yield (-1 + np.ldexp(mantissa, rng.integers(-53, -1, CHUNK)),)


@needs_long_double
@pytest.mark.parametrize("function", FUNCTIONS)
def test_float64_error(function: str) -> None:
    chunks = itertools.chain(float64_samples(FLOAT64_RANGES[function], 40), near_one(function))
    check_bound(function, reference(function), chunks)


def special_cases(function: str, dtype: str) -> list[tuple[float, float]]:
    """(argument, exact result) pairs."""
    info = np.finfo(dtype)
    smallest, biggest = float(info.smallest_subnormal), float(info.max)
    odd = [(x, x) for x in tiny(dtype)]
    cases: dict[str, list[tuple[float, float]]] = {
        "exp": [(-INF, 0.0), (INF, INF), (biggest, INF), (-biggest, 0.0)] + [(x, 1.0) for x in tiny(dtype)],
        "log": [(0.0, -INF), (-0.0, -INF), (INF, INF), (1.0, 0.0)]
        + [(x, NAN) for x in (-smallest, -1.0, -biggest, -INF)],
        "tanh": [(INF, 1.0), (-INF, -1.0), (30.0, 1.0), (-biggest, -1.0), *odd],
        "sigmoid": [(-INF, 0.0), (INF, 1.0), (-biggest, 0.0), (biggest, 1.0)] + [(x, 0.5) for x in tiny(dtype)],
        "log1p": [(-1.0, -INF), (INF, INF), (-INF, NAN), (-2.0, NAN), (-biggest, NAN), *odd],
        "expm1": [(-INF, -1.0), (INF, INF), (biggest, INF), (-biggest, -1.0), (-60.0, -1.0), *odd],
        "erf": [(INF, 1.0), (-INF, -1.0), (7.0, 1.0), (-biggest, -1.0), (0.0, 0.0), (-0.0, -0.0)],
    }
    return cases[function]


@every_case
def test_special_values_are_exact(function: str, dtype: str) -> None:
    check_specials(function, dtype, special_cases(function, dtype))


def test_subnormal_results_are_not_flushed() -> None:
    x = np.array([-87.4, -95.0, -100.0, -103.0, -103.9, -103.98], np.float32)
    want = np.exp(x.astype(np.float64)).astype(np.float32)
    assert (want[:5] > 0).all()
    assert want[5] == 0
    np.testing.assert_array_equal(apply("exp", x), want)
    np.testing.assert_array_equal(apply("sigmoid", x), want)


@needs_long_double
def test_subnormal_float64_results_are_not_flushed() -> None:
    x = np.array([-708.5, -720.0, -740.0, -745.0, -745.1, -745.2])
    want = np.exp(x.astype(np.longdouble)).astype(np.float64)
    assert (want[:5] > 0).all()
    assert want[5] == 0
    np.testing.assert_array_equal(apply("exp", x), want)
    np.testing.assert_array_equal(apply("sigmoid", x), want)


@every_case
def test_vector_body_and_scalar_remainder_agree(function: str, dtype: str) -> None:
    check_remainder_of_loop(function, np.random.default_rng(3).uniform(0.001, 5, 131).astype(dtype))


# Where a function passes between two formulas, or reaches the end of what its results can hold.
BORDERS: dict[tuple[str, str], list[float]] = {
    ("exp", "float32"): [88.72284, -87.33655, -103.97208],
    ("exp", "float64"): [709.782712893384, -708.3964185, -745.1332191],
    ("log", "float32"): [2 / 3, 4 / 3, 2.0**-126],
    ("log", "float64"): [2 / 3, 4 / 3, 2.0**-1022],
    ("tanh", "float32"): [2.0**-20, 9.0109, 10.0],
    ("tanh", "float64"): [2.0**-40, 19.0615, 20.0],
    ("sigmoid", "float32"): [-103.97208, -87.33655, 0.0, 16.6355],
    ("sigmoid", "float64"): [-745.1332191, -708.3964185, 0.0, 36.7],
    ("log1p", "float32"): [-1 / 3, 1 / 3, 2.0**24],
    ("log1p", "float64"): [-1 / 3, 1 / 3, 2.0**53],
    ("expm1", "float32"): [-17.3287, 2.0**-25, 88.72284],
    ("expm1", "float64"): [-37.42995, 2.0**-54, 709.782712893384],
    ("erf", "float32"): [ERF_SPLIT, 3.8325, 4.0],
    ("erf", "float64"): [ERF_SPLIT, 5.8636, 6.0],
}


@every_case
def test_monotone_across_borders(function: str, dtype: str) -> None:
    # Within the bound two neighbours may swap by an ulp; a larger step back is a seam between formulas.
    for border in BORDERS[function, dtype]:
        offsets: np.ndarray = np.arange(-5000, 5001).astype(dtype.replace("float", "int"))
        if border == 0.0:
            x = np.copysign(np.abs(offsets).view(dtype), offsets)
        else:
            centre: np.ndarray = np.full(1, border, dtype)
            x = np.sort((centre.view(offsets.dtype) + offsets).view(dtype))
        y = apply(function, x)
        ulp = np.spacing(np.abs(y[np.isfinite(y)]).max())
        highest = np.maximum.accumulate(y)
        back = np.subtract(highest, y, out=np.zeros_like(y), where=highest != y)
        assert back.max() <= ulp, (border, back.max() / ulp)


@every_case
def test_results_stay_in_the_range_of_the_function(function: str, dtype: str) -> None:
    low, high = {"tanh": (-1, 1), "erf": (-1, 1), "sigmoid": (0, 1), "exp": (0, INF), "expm1": (-1, INF)}.get(
        function, (-INF, INF)
    )
    x = np.linspace(-50 if function not in ("log", "log1p") else 0, 50, 200_001).astype(dtype)
    y = apply(function, x)
    assert (y >= low).all()
    assert (y <= high).all()


@every_case
def test_loop_is_vectorised(function: str, dtype: str) -> None:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("reads x86-64 assembly")
    if not llvm.get_host_cpu_features().get("fma"):
        pytest.skip("without a fused multiply-add instruction llvm.fma is a libm call")
    check_vectorised(function, dtype)


def test_other_types_are_refused() -> None:
    with pytest.raises(Exception, match="int64"):
        cfunc(types.float64(types.int64))(lambda x: vmath.exp(x))


def test_every_function_states_its_bounds() -> None:
    stated = {name for name, _ in vmath.ERROR_BOUND_ULP}
    assert stated == set(vmath.__all__) - {"ERROR_BOUND_ULP"}
    assert set(vmath.ERROR_BOUND_ULP) == {(name, dtype) for name in stated for dtype in DTYPES}


@pytest.mark.skipif(not has_scaling(), reason="this processor, or this LLVM, has no instruction that scales by 2^n")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["exp", "sigmoid", "exp2"])
def test_both_ways_to_scale_have_the_same_bits(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """AVX-512's instruction, and the product with two powers of two that other processors need."""
    largest = {"float32": 110.0, "float64": 760.0}[dtype]
    x = np.concatenate([np.linspace(-largest, largest, 200_001), [INF, -INF, NAN, 0.0, -0.0]]).astype(dtype)
    plain = apply(name, x)
    monkeypatch.setattr(vmath_exponential, "has_scaling", lambda: False)
    emit = getattr(vmath_exponential, f"_emit_{name}")
    monkeypatch.setattr(vmath, name, function(name, emit))
    compiled.cache_clear()
    try:
        assert apply(name, x).tobytes() == plain.tobytes()
    finally:
        compiled.cache_clear()
