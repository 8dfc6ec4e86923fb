"""Accuracy, special values and vectorisation of `pow`, `hypot` and `atan2`."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator

import llvmlite.binding as llvm
import numpy as np
import pytest
from vmath_checks import (
    CHUNK,
    WIDE_ENOUGH,
    WIDER,
    apply,
    bits,
    check_bound,
    check_remainder_of_loop,
    check_vectorised,
)

FUNCTIONS = ("pow", "hypot", "atan2")
every_case = pytest.mark.parametrize(
    ("function", "dtype"),
    [
        pytest.param(
            f, d, id=f"{f}-{d}",
            marks=pytest.mark.skipif(d == "float64" and not WIDE_ENOUGH, reason="long double is no wider than float64"),
        )
        for f in FUNCTIONS
        for d in ("float32", "float64")
    ],
)  # fmt: skip
REFERENCES: dict[str, Callable[..., np.ndarray]] = {"pow": np.power, "hypot": np.hypot, "atan2": np.arctan2}


def with_exponents(rng: np.random.Generator, dtype: str, least: int, most: int) -> np.ndarray:
    mantissa = rng.choice([-1.0, 1.0], CHUNK) * rng.uniform(1, 2, CHUNK)
    return np.ldexp(mantissa, rng.integers(least, most, CHUNK)).astype(dtype)


def planes(dtype: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Points of every length and direction, subnormal ones too."""
    rng = np.random.default_rng(30)
    info = np.finfo(dtype)
    lowest, highest = int(info.minexp) - int(info.nmant), int(info.maxexp)
    smallest = float(info.smallest_subnormal)
    for _ in range(10):
        yield with_exponents(rng, dtype, lowest, highest), with_exponents(rng, dtype, lowest, highest)
        x = with_exponents(rng, dtype, lowest, highest - 4)
        yield x, (x * rng.uniform(-8, 8, CHUNK)).astype(dtype)
        yield rng.uniform(-4, 4, CHUNK).astype(dtype), rng.uniform(-4, 4, CHUNK).astype(dtype)
        small = rng.integers(-50, 50, (2, CHUNK)) * smallest
        yield small[0].astype(dtype), (small[1] * rng.choice([1, 1e3, 1e6], CHUNK)).astype(dtype)


def powers(dtype: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Bases at every distance from 1, with exponents up to where the power leaves the range; whole exponents."""
    rng = np.random.default_rng(31)
    info = np.finfo(dtype)
    limit = float(np.log(np.float64(info.max)))
    for _ in range(10):
        size = rng.choice([1e-6, 1e-3, 0.1, 1, 10, limit], CHUNK)
        x = np.exp(rng.uniform(-1, 1, CHUNK) * size).astype(dtype)
        with np.errstate(all="ignore"):
            y = rng.uniform(-1.06, 1.04, CHUNK) * limit / np.abs(np.log(x.astype(np.float64)))
            yield x, np.where(np.isfinite(y), y, 1).astype(dtype)
        yield rng.uniform(-20, 20, CHUNK).astype(dtype), rng.integers(-30, 30, CHUNK).astype(dtype)
        smallest = float(info.smallest_subnormal)
        yield (rng.integers(1, 1000, CHUNK) * smallest).astype(dtype), rng.uniform(-1, 1, CHUNK).astype(dtype)


@every_case
def test_error(function: str, dtype: str) -> None:
    check_bound(function, REFERENCES[function], (powers if function == "pow" else planes)(dtype))


@every_case
def test_special_values(function: str, dtype: str) -> None:
    """Every pair of special values, as in the C library's function of the wider type, rounded."""
    info = np.finfo(dtype)
    whole = 2.0 ** (info.nmant + 1)
    positive = [
        0.0, 0.5, 1.0, 2.0, 2.5, 3.0, np.inf, float(info.max), float(info.smallest_subnormal), float(info.tiny),
        whole, whole + 2, whole - 1, whole / 2 + 0.5,
    ]  # fmt: skip
    values: np.ndarray = np.array([np.nan, *positive, *(-p for p in positive)], dtype)
    x, y = (grid.ravel() for grid in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        exact = REFERENCES[function](x.astype(WIDER[dtype]), y.astype(WIDER[dtype])).astype(dtype)
        got = apply(function, x, y)
        # Finite results are the business of the error bound; the last bit may differ.
        near = np.isfinite(exact) & (exact != 0) & (np.abs(got - exact) <= np.spacing(np.abs(exact)))
    same = (np.isnan(got) & np.isnan(exact)) | ((got == exact) & (np.signbit(got) == np.signbit(exact)))
    wrong = ~(same | near)
    assert not wrong.any(), [*zip(x[wrong], y[wrong], got[wrong], exact[wrong], strict=True)][:8]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_whole_powers_that_fit_are_exact(dtype: str) -> None:
    digits = np.finfo(dtype).nmant + 1
    pairs = [(b, k) for b in range(-12, 13) for k in range(1, 60) if b and abs(b) ** k < 2**digits]
    x, y = (np.array(part, dtype) for part in zip(*pairs, strict=True))
    np.testing.assert_array_equal(apply("pow", x, y), np.array([float(b**k) for b, k in pairs], dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_hypot_of_pythagorean_triples_is_exact_at_every_scale(dtype: str) -> None:
    info = np.finfo(dtype)
    scales = np.ldexp(np.ones(1, dtype), np.arange(int(info.minexp), int(info.maxexp) - 5))
    for a, b, c in ((3, 4, 5), (5, 12, 13), (8, 15, 17), (-7, 24, 25)):
        np.testing.assert_array_equal(apply("hypot", scales * a, scales * b), scales * c)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_vector_body_and_scalar_remainder_agree(function: str, dtype: str) -> None:
    rng = np.random.default_rng(3)
    check_remainder_of_loop(function, rng.uniform(0.1, 5, 131).astype(dtype), rng.uniform(-5, 5, 131).astype(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_hypot_is_symmetric_to_the_bit(dtype: str) -> None:
    for x, y in planes(dtype):
        assert (bits(apply("hypot", x, y)) == bits(apply("hypot", y, -x))).all()


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_loop_is_vectorised(function: str, dtype: str) -> None:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("reads x86-64 assembly")
    if not llvm.get_host_cpu_features().get("fma"):
        pytest.skip("without a fused multiply-add instruction llvm.fma is a libm call")
    check_vectorised(function, dtype, arity=2)
