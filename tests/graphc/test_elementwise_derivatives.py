"""Derivatives of elementwise functions where a formula would give NaN or lose all digits, and those of higher order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import graphc

INF = math.inf
LOG2 = math.log(2)


@pytest.fixture(scope="module")
def session() -> Iterator[graphc.Session]:
    with graphc.Session(device="reference") as found:
        yield found


def derivatives(
    session: graphc.Session,
    function: Callable[..., Any],
    point: Sequence[float],
    dtype: str = "float64",
    order: int = 1,
) -> list[list[float]]:
    """For each order up to ``order``, the derivatives by each argument, in turn, of the previous order's sum."""
    xs = [graphc.placeholder((), dtype=dtype) for _ in point]
    target, found = function(*xs), []
    for _ in range(order):
        parts = graphc.gradients(target, xs, unreachable="zero")
        found.append(parts)
        target = parts[0]
        for part in parts[1:]:
            target = target + part
    return [[float(v) for v in values] for values in session.run(found, dict(zip(xs, point, strict=True)))]


@pytest.mark.parametrize(
    ("function", "point", "expected"),
    [
        (graphc.hypot, (0.0, 0.0), (0, 0)),
        (graphc.hypot, (0.0, -2.0), (0, -1)),
        (graphc.atan2, (0.0, 0.0), (0, 0)),
        (graphc.atan2, (0.0, -2.0), (-0.5, 0)),
        (graphc.logaddexp, (-INF, 1.0), (0, 1)),
        (graphc.logaddexp, (-INF, -INF), (0.5, 0.5)),
        (graphc.logaddexp, (INF, INF), (0.5, 0.5)),
        (graphc.logaddexp, (INF, 0.0), (1, 0)),
        (graphc.logaddexp, (1000.0, 0.0), (1, 0)),
        (graphc.pow, (0.0, 0.0), (0, 0)),
        (graphc.pow, (0.0, 1.0), (1, 0)),
        (graphc.pow, (0.0, 2.5), (0, 0)),
        (graphc.pow, (-2.0, 3.0), (12, None)),
        (graphc.pow, (INF, -1.0), (0, 0)),
        (graphc.remainder, (-7.0, 2.0), (1, 4)),
        (graphc.fmod, (-7.0, 2.0), (1, 3)),
        (graphc.remainder, (7.0, INF), (1, 0)),
        (graphc.copysign, (-3.0, 2.0), (-1, 0)),
        (graphc.copysign, (0.0, -2.0), (0, 0)),
        (graphc.abs, (0.0,), (0,)),
        (graphc.sigmoid, (INF,), (0,)),
        (graphc.tanh, (-INF,), (0,)),
        (graphc.erf, (INF,), (0,)),
        (graphc.erfc, (-INF,), (0,)),
        (graphc.exp, (-INF,), (0,)),
        (graphc.exp2, (-INF,), (0,)),
        (graphc.atan, (INF,), (0,)),
        (graphc.asinh, (-INF,), (0,)),
        (graphc.acosh, (1.0,), (INF,)),
        (graphc.acosh, (INF,), (0,)),
        (graphc.asin, (1.0,), (INF,)),
        (graphc.acos, (-1.0,), (-INF,)),
        (graphc.sqrt, (0.0,), (INF,)),
        (graphc.rsqrt, (INF,), (0,)),
        (graphc.reciprocal, (-INF,), (0,)),
        (graphc.log2, (INF,), (0,)),
    ],
)  # fmt: skip
def test_first_derivatives_at_edges(
    session: graphc.Session, function: Callable[..., Any], point: Sequence[float], expected: Sequence[float | None]
) -> None:
    (found,) = derivatives(session, function, point)
    assert len(found) == len(expected)
    for got, wanted in zip(found, expected, strict=True):
        assert wanted is None or got == wanted, found


@pytest.mark.parametrize(
    ("function", "point", "expected"),
    [
        (graphc.hypot, (1e30, 1e30), (2**-0.5, 2**-0.5)),
        (graphc.hypot, (1e-30, 0.0), (1, 0)),
        (graphc.atan2, (1e30, 1e30), (0.5e-30, -0.5e-30)),
        (graphc.atan2, (1e-30, 1e-30), (0.5e30, -0.5e30)),
        (graphc.asinh, (1e30,), (1e-30,)),
        (graphc.acosh, (1e30,), (1e-30,)),
        (graphc.asin, (1 - 2.0**-24,), (2**11.5,)),
        (graphc.atanh, (1 - 2.0**-24,), (2.0**23,)),
        (graphc.erf, (5.0,), (2 / math.sqrt(math.pi) * math.exp(-25),)),
        (graphc.logaddexp, (88.0, 89.0), (1 / (1 + math.e), math.e / (1 + math.e))),
    ],
)
def test_first_derivatives_keep_their_digits_in_float32(
    session: graphc.Session, function: Callable[..., Any], point: Sequence[float], expected: Sequence[float]
) -> None:
    (found,) = derivatives(session, function, point, "float32")
    # A handful of float32 operations, each of which may lose a few units in the last place.
    np.testing.assert_allclose(found, expected, rtol=16 * 2.0**-23)


@pytest.mark.parametrize(
    ("function", "point", "expected"),
    [
        # d/dx of (d/dx + d/dy), and d/dy.
        (graphc.logaddexp, (1.0, 1.0), (0, 0)),
        (lambda x, y: graphc.logaddexp(x, 2.0) + y, (2.0, 0.0), (0.25, 0)),
        (lambda x: graphc.logaddexp(x, -INF), (-1.0,), (0,)),
        (lambda x: graphc.pow(x, 1.0 * x / x * 2), (3.0,), (2,)),
        (lambda x, y: graphc.pow(x, 2.0) + y, (0.0, 0.0), (2, 0)),
        (lambda x, y: graphc.pow(x, y), (0.0, 2.0), (2, 0)),
        (lambda x, y: graphc.pow(x, y), (0.0, 1.0), (None, None)),
        (lambda x: graphc.hypot(x, 0.0), (0.0,), (None,)),
        (lambda x: graphc.sin(x), (0.0,), (0,)),
        (lambda x: graphc.cosh(x), (0.0,), (1,)),
        (lambda x: graphc.clip(x, 0.0, 1.0) ** 2, (1.0,), (2,)),
        (lambda x: graphc.remainder(x, 3.0) ** 2, (7.0,), (2,)),
        (lambda x: graphc.exp2(x), (0.0,), (LOG2**2,)),
    ],
)
def test_second_derivatives_are_finite_and_right(
    session: graphc.Session, function: Callable[..., Any], point: Sequence[float], expected: Sequence[float | None]
) -> None:
    _, found = derivatives(session, function, point, order=2)
    assert all(math.isfinite(v) for v in found)
    for got, wanted in zip(found, expected, strict=True):
        assert wanted is None or got == pytest.approx(wanted, abs=1e-12)


def test_sine_four_times_over(session: graphc.Session) -> None:
    found = derivatives(session, graphc.sin, (0.7,), order=4)
    s, c = math.sin(0.7), math.cos(0.7)
    np.testing.assert_allclose([d[0] for d in found], [c, -s, -c, s], rtol=1e-14)


@pytest.mark.parametrize("function", [graphc.floor, graphc.ceil, graphc.round, graphc.trunc])
def test_steps_end_a_path(session: graphc.Session, function: Callable[..., Any]) -> None:
    x = graphc.placeholder(())
    with pytest.raises(graphc.errors.GradientError, match="no differentiable path"):
        graphc.gradients(function(x), x)
    assert session.run(graphc.gradients(function(x) * x, x), {x: 2.6}) == session.run(function(x), {x: 2.6})
