"""The branch for rare arguments: once for a vector, and nothing that a neighbour could notice."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from numba import njit
from vmath_checks import NAN, Array, apply, bits, compiled, neighbours

from runtime.cpu import vmath
from runtime.cpu.vmath_rare import LANES

LIMIT = 2.0**44
every_case = pytest.mark.parametrize(
    ("function", "dtype"), [*itertools.product(("sin", "cos", "tan"), ("float32", "float64"))]
)


def mixed(dtype: str) -> Array:
    """Common arguments with rare ones among them, one in five and in groups, in no order."""
    rng = np.random.default_rng(7)
    info = np.finfo(dtype)
    common = rng.uniform(-10, 10, 400)
    rare = np.ldexp(rng.choice([-1.0, 1.0], 100) * rng.uniform(1, 2, 100), rng.integers(44, info.maxexp, 100))
    border = next(neighbours([LIMIT], dtype, 8))[0]
    special = [np.inf, -np.inf, NAN, 0.0, -0.0, info.max, -info.max]
    x = np.concatenate([common, rare]).astype(dtype)
    rng.shuffle(x)
    return np.concatenate([x, border, np.array(special, dtype)])


@every_case
def test_a_value_does_not_depend_on_its_neighbours(function: str, dtype: str) -> None:
    x = mixed(dtype)
    alone = np.concatenate([apply(function, x[i : i + 1]) for i in range(x.size)])
    for order in (np.arange(x.size), np.argsort(np.abs(x)), np.arange(x.size)[::-1], np.roll(np.arange(x.size), 3)):
        found, wanted = apply(function, x[order]), alone[order]
        same = (bits(found) == bits(wanted)) | (np.isnan(found) & np.isnan(wanted))
        assert same.all(), x[order][~same]
    assert (np.isnan(alone) == ~np.isfinite(x)).all()


@every_case
@pytest.mark.parametrize("lane", range(16))
def test_one_rare_lane(function: str, dtype: str, lane: int) -> None:
    x = np.linspace(-3, 3, 64).astype(dtype)
    wanted = apply(function, x)
    rare: Array = np.array([1.5 * 2.0**100], dtype)
    x[lane::16], wanted[lane::16] = rare[0], apply(function, rare)[0]
    assert (bits(apply(function, x)) == bits(wanted)).all()


@every_case
def test_the_branch_is_taken_once_for_a_vector(function: str, dtype: str) -> None:
    """The loop holds the vector form, or the call of it, and only its remainder the scalar one."""
    stem = f"graphc_{function}_f{dtype[-2:]}"
    bodies = re.findall(r"^define (?:(?!^define).)*?^}", compiled(function, dtype).inspect_llvm(), re.M | re.S)
    kernels = [body for body in bodies if f"@{stem}" not in body.split("(")[0]]
    lanes = "|".join(map(str, LANES))
    assert any(re.search(rf"@{stem}_(?:each\(.*i64 (?:{lanes})\)|(?:{lanes})\()", body) for body in kernels)


def test_several_in_one_kernel() -> None:
    sin, cos, tan = vmath.sin, vmath.cos, vmath.tan

    def several(x: Array, y: Array, a: Array, b: Array, c: Array, d: Array) -> None:
        for i in range(x.size):
            a[i], b[i], c[i], d[i] = sin(x[i]), cos(y[i]), sin(y[i]), tan(x[i])

    x, y = mixed("float32"), mixed("float64")
    found = np.empty_like(x), np.empty_like(y), np.empty_like(y), np.empty_like(x)
    njit(several)(x, y, *found)
    wanted = apply("sin", x), apply("cos", y), apply("sin", y), apply("tan", x)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)
