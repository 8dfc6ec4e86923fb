"""Accuracy, special values and vectorisation of `runtime.cpu.vmath`.

float32 is checked against float64 libm, float64 against the x87 long double; both references are good to
far less than the bounds' last digit. The error is in units in the last place of the exact result, where
subnormals all share the unit of the smallest one.
"""

import functools
import itertools
import platform
import re
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba import cfunc, types
from scipy import special

from runtime.cpu import vmath
from runtime.cpu._vmath_tables import ERF_SPLIT

FUNCTIONS = ("exp", "log", "tanh", "sigmoid", "log1p", "expm1", "erf")
DTYPES = ("float32", "float64")
INF, NAN = float("inf"), float("nan")
# Small enough that a chunk and its temporaries stay in the L2 cache.
CHUNK = 1 << 14

every_case = pytest.mark.parametrize(
    ("function", "dtype"), [pytest.param(f, d, id=f"{f}-{d}") for f in FUNCTIONS for d in DTYPES]
)
needs_long_double = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than float64 here"
)


@functools.cache
def compiled(function: str, dtype: str) -> Any:
    """A C function applying `function` to x[lo:hi]."""
    f = getattr(vmath, function)

    def kernel(x: Any, y: Any, lo: Any, hi: Any) -> None:
        for i in range(lo, hi):
            y[i] = f(x[i])

    pointer = types.CPointer(getattr(types, dtype))
    return cfunc(types.void(pointer, pointer, types.int64, types.int64))(kernel)


def apply(function: str, x: np.ndarray) -> np.ndarray:
    call = compiled(function, x.dtype.name).ctypes
    x = np.ascontiguousarray(x)
    y = np.empty_like(x)
    pointer = call.argtypes[0]
    call(x.ctypes.data_as(pointer), y.ctypes.data_as(pointer), 0, x.size)
    return y


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


def reference(function: str, x: np.ndarray) -> np.ndarray:
    own: dict[str, Callable[[np.ndarray], np.ndarray]] = {"erf": erf_reference, "sigmoid": sigmoid_reference}
    wide = np.float64 if x.dtype == np.float32 else np.longdouble
    f = own[function] if function in own else getattr(np, function)
    with np.errstate(all="ignore"):
        result: np.ndarray = f(x.astype(wide))
    return result


def worst_error(function: str, x: np.ndarray) -> tuple[float, Any]:
    """The largest error over x in ulp and where it is; inf where only one side is NaN or infinite."""
    got, exact, info = apply(function, x), reference(function, x), np.finfo(x.dtype)
    with np.errstate(all="ignore"):
        exponent = np.maximum(np.frexp(exact)[1] - 1, info.minexp)
        error = np.ldexp(np.abs(got - exact), info.nmant - exponent)
        # Half an ulp past the largest finite value is where rounding to nearest starts to give inf.
        overflow = np.abs(exact) >= exact.dtype.type(info.max) * (1 + exact.dtype.type(info.eps) / 4)
    special_match = (got == exact) | (np.isnan(got) & np.isnan(exact))
    special_match |= overflow & np.isinf(got) & (np.sign(got) == np.sign(exact))
    error[special_match] = 0
    error[np.isnan(error)] = np.inf
    worst = int(np.argmax(error))
    return float(error[worst]), x[worst]


def check_bound(function: str, dtype: str, chunks: Iterator[np.ndarray]) -> None:
    worst = max((worst_error(function, x) for x in chunks), key=lambda pair: pair[0])
    bound = vmath.ERROR_BOUND_ULP[function, dtype]
    assert worst[0] <= bound, f"{worst[0]:.4f} ulp at {worst[1]!r}, above the stated {bound}"


def float32_patterns(start: int, stop: int, step: int) -> Iterator[np.ndarray]:
    for low in range(start, stop, step * CHUNK):
        patterns = np.arange(low, min(low + step * CHUNK, stop), step, dtype=np.int64)
        x = patterns.astype(np.uint32).view(np.float32)
        x = x[np.isfinite(x)]
        if x.size:
            yield x


@pytest.mark.parametrize("function", FUNCTIONS)
def test_float32_error_over_all_exponents(function: str) -> None:
    check_bound(function, "float32", float32_patterns(0, 2**32, 97))


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
    low, high = (int(np.float32(edge).view(np.int32)) for edge in FLOAT32_HARD[function])
    sign = 2**31
    chunks = [float32_patterns(low, high, 1)]
    if function != "log":
        chunks.append(float32_patterns(low + sign, high + sign, 1))
    check_bound(function, "float32", itertools.chain(*chunks))


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


def float64_samples(function: str, chunks: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(20)
    for _ in range(chunks):
        for low, high in FLOAT64_RANGES[function]:
            yield rng.uniform(low, high, CHUNK)
        sign = rng.choice([-1.0, 1.0], CHUNK)
        mantissa = sign * rng.uniform(1, 2, CHUNK)
        yield np.ldexp(mantissa, rng.integers(-1074, 1024, CHUNK))
        yield np.ldexp(mantissa, rng.integers(-60, 11, CHUNK))
        if function == "log":
            yield 1 + np.ldexp(mantissa, rng.integers(-53, -1, CHUNK))
        if function == "log1p":
            yield -1 + np.ldexp(np.abs(mantissa), rng.integers(-53, -1, CHUNK))


@needs_long_double
@pytest.mark.parametrize("function", FUNCTIONS)
def test_float64_error(function: str) -> None:
    check_bound(function, "float64", float64_samples(function, chunks=40))


def bits(x: np.ndarray) -> np.ndarray:
    return x.view(np.uint32 if x.dtype == np.float32 else np.uint64)


def tiny(dtype: str) -> list[float]:
    """Both signs of 0, the smallest subnormal, the largest, and the smallest normal value."""
    info = np.finfo(dtype)
    smallest = float(info.smallest_subnormal)
    values = [0.0, smallest, 3 * smallest, float(info.tiny) - smallest, float(info.tiny), 1e-30]
    return values + [-value for value in values]


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
    return [*cases[function], (NAN, NAN), (-NAN, NAN)]


@every_case
def test_special_values_are_exact(function: str, dtype: str) -> None:
    for argument, result in special_cases(function, dtype):
        # One value runs the scalar remainder of the loop, many run its vector body.
        for count in (1, 64):
            got = apply(function, np.full(count, argument, dtype))
            if np.isnan(result):
                assert np.isnan(got).all(), (argument, count, got[0])
            else:
                want = np.full(count, result, dtype)
                assert (bits(got) == bits(want)).all(), (argument, count, got[0])


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
    x = np.random.default_rng(3).uniform(0.001, 5, 131).astype(dtype)
    whole = bits(apply(function, x))
    for size in (1, 3, 7, 15, 33, 130):
        assert (bits(apply(function, x[:size])) == whole[:size]).all(), size


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


def assembly(function: str, dtype: str) -> str:
    """The host's assembly for the kernel as Numba optimised it."""
    module = llvm.parse_assembly(compiled(function, dtype).inspect_llvm())
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    return str(machine.emit_assembly(module))


@every_case
def test_loop_is_vectorised(function: str, dtype: str) -> None:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("reads x86-64 assembly")
    if not llvm.get_host_cpu_features().get("fma"):
        pytest.skip("without a fused multiply-add instruction llvm.fma is a libm call")
    text = assembly(function, dtype)
    suffix = "ps" if dtype == "float32" else "pd"
    assert re.search(rf"\bvfn?m(add|sub)\w*{suffix}\s.*%[yz]mm", text)
    symbols = set(re.findall(r"\b(?:fma|exp|log|log1p|expm1|tanh|erf)f?\b(?:@PLT)?", text))
    assert not symbols, f"libm calls left: {symbols}"


def test_other_types_are_refused() -> None:
    with pytest.raises(Exception, match="int64"):
        cfunc(types.float64(types.int64))(lambda x: vmath.exp(x))
