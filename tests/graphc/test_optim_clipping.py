"""Clipping by the norm of all gradients together, and by value; as functions and as arguments of an optimiser."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import optim
from graphc.errors import DTypeError, UpdateError

Array = np.ndarray[Any, Any]
EPS = float(np.finfo(np.float32).eps)


@pytest.fixture(params=["reference", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(fetches: Any, feeds: dict[Any, Any] | None = None, device: str = "reference") -> Any:
    with graphc.Session(device=device) as session:
        return session.run(fetches, feeds or {})


def arrays(scale: float) -> list[Array]:
    rng = np.random.default_rng(0)
    return [(scale * rng.standard_normal(shape)).astype(np.float32) for shape in ((3, 4), (5,), ())]


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 1e3])
def test_by_norm(device: str, scale: float) -> None:
    values = arrays(scale)
    grads = [graphc.placeholder(v.shape, name=f"g{i}") for i, v in enumerate(values)]
    feeds = dict(zip(grads, values, strict=True))
    norm, clipped = run([optim.global_norm(grads), optim.clip_by_norm(grads, 0.5)], feeds, device)
    expected = math.sqrt(sum(float(np.square(v.astype(np.float64)).sum()) for v in values))
    assert norm == pytest.approx(expected, rel=20 * EPS)
    factor = min(1.0, 0.5 / (expected + 1e-6))
    for found, value in zip(clipped, values, strict=True):
        np.testing.assert_allclose(found, value * factor, rtol=24 * EPS)
        if factor == 1.0:
            assert np.array_equal(found, value)


def test_by_norm_of_both_precisions_keeps_dtypes(device: str) -> None:
    narrow, wide = graphc.constant(np.float32([3.0])), graphc.constant(np.float64([4.0]))
    assert optim.global_norm([narrow, wide]).dtype == np.float64
    a, b = run(optim.clip_by_norm([narrow, wide], 1.0), device=device)
    assert (a.dtype, b.dtype) == (np.float32, np.float64)
    assert b[0] == pytest.approx(4 / (5 + 1e-6), rel=1e-15)
    assert a[0] == pytest.approx(3 / (5 + 1e-6), rel=2 * EPS)


def test_a_zero_gradient_stays_zero(device: str) -> None:
    assert run(optim.clip_by_norm([np.zeros(3, np.float32)], 1e-3), device=device)[0].tolist() == [0.0] * 3


def test_what_is_not_finite_is_not_hidden(device: str) -> None:
    nan, infinite = np.float32([1.0, math.nan]), np.float32([1.0, -math.inf])
    (from_nan,), (from_infinite,) = run([optim.clip_by_norm([v], 1.0) for v in (nan, infinite)], device=device)
    assert np.isnan(from_nan).all()
    assert from_infinite[0] == 0
    assert np.isnan(from_infinite[1])
    by_value = run(optim.clip_by_value([nan, infinite], 0.5), device=device)
    np.testing.assert_array_equal(by_value, [[0.5, math.nan], [0.5, -0.5]])


def test_the_norm_of_zeros_has_a_derivative(device: str) -> None:
    """Zero, as that of ``std``; so has what is clipped by it."""
    x, y = graphc.placeholder((2,), name="x"), graphc.placeholder((), name="y")
    norm = optim.global_norm([x, y])
    clipped = optim.clip_by_norm([x, y], 0.5)
    fetches = [norm, *graphc.gradients(norm, [x, y]), graphc.gradients(clipped[0].sum() + clipped[1], y)]
    found = run(fetches, {x: [0, 0], y: 0}, device)
    assert [v.tolist() for v in found] == [0, [0, 0], 0, 1]
    found = run(fetches[:3], {x: [3, 0], y: 4}, device)
    np.testing.assert_allclose([found[0], *found[1], found[2]], [5, 0.6, 0, 0.8], rtol=4 * EPS)


def test_by_value(device: str) -> None:
    g = graphc.placeholder((5,), name="g")
    bound = graphc.placeholder((), dtype="float64", name="bound")
    value = np.float32([-3.0, -0.5, 0.0, 0.25, 7.0])
    fixed, fed = run([optim.clip_by_value([g], 0.5), optim.clip_by_value([g], bound)], {g: value, bound: 0.5}, device)
    assert fixed[0].tolist() == fed[0].tolist() == [-0.5, -0.5, 0.0, 0.25, 0.5]


@pytest.mark.parametrize("clip", [{"clip_norm": 0.5}, {"clip_value": 0.25}])
def test_an_optimizer_clips_before_anything_else(device: str, clip: dict[str, float]) -> None:
    """The gradients of all parameters together, and not what the weight decay adds."""
    u, w = graphc.parameter(np.float32([3.0, 1.0]), name="u"), graphc.parameter(np.float32([-4.0]), name="w")
    loss = (graphc.square(u).sum() + graphc.square(w).sum()) * 0.5  # the gradient is the parameter
    update = optim.SGD(1.0, weight_decay=0.5, **clip).minimize(loss)
    with graphc.Session(device=device) as session:
        session.run(update)
        found = [*session.get(u), *session.get(w)]
    start = np.array([3.0, 1.0, -4.0])
    clipped = start * 0.5 / (math.sqrt(26) + 1e-6) if "clip_norm" in clip else np.clip(start, -0.25, 0.25)
    np.testing.assert_allclose(found, start - clipped - 0.5 * start, rtol=30 * EPS, atol=4 * EPS)


def test_what_is_refused() -> None:
    w = graphc.parameter(np.float32([1.0]), name="w")
    with pytest.raises(UpdateError, match="SGD: give clip_norm or clip_value, not both"):
        optim.SGD(0.1, clip_norm=1.0, clip_value=1.0)
    for bad in (0.0, -1.0, math.nan, "1", True):
        with pytest.raises(UpdateError, match="Adam: clip_norm must be a number, above 0, got"):
            optim.Adam(clip_norm=bad)  # type: ignore[arg-type]
        with pytest.raises(UpdateError, match="clip_by_value: max_value must be a number, above 0"):
            optim.clip_by_value([w], bad)  # type: ignore[arg-type]
    with pytest.raises(UpdateError, match="max_norm must be a number or a float scalar, got w: parameter"):
        optim.clip_by_norm([w], w)
    with pytest.raises(UpdateError, match=r"clip_by_norm: expected a list of gradients, got one tensor; write \[w\]"):
        optim.clip_by_norm(w, 1.0)
    with pytest.raises(UpdateError, match="global_norm: no gradients were given"):
        optim.global_norm([])
    with pytest.raises(DTypeError, match="clip_by_norm: gradients must be float, got"):
        optim.clip_by_norm([graphc.parameter(np.int64(1))], 1.0)
