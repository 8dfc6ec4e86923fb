"""Reductions and running sums: shapes, dtypes, empty axes, special values, and derivatives where a factor is zero."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.dims import Symbol, evaluate
from graphc.errors import DTypeError, GraphcError, ShapeError
from graphc.node import Tensor

Array = np.ndarray[Any, Any]
AXES: list[Any] = [None, 0, 1, -1, (0, 2), (1, 2), (-1, 0), (0, 1, 2), ()]


@pytest.fixture(scope="module")
def sessions() -> Iterator[list[graphc.Session]]:
    with graphc.Session(device="reference") as reference, graphc.Session(device="cpu") as cpu:
        yield [reference, cpu]


def tensor(*shape: Any, name: str = "x", dtype: str = "float32") -> Tensor:
    return graphc.placeholder(shape, dtype=dtype, name=name)


def theirs(name: str, x: Array, axis: Any, keepdims: bool) -> Array:
    """NumPy's value, in graphc's dtype."""
    if name in ("any", "all"):
        return np.asarray(getattr(np, name)(x, axis=axis, keepdims=keepdims))
    if name == "count_nonzero":
        return np.asarray(np.count_nonzero(x, axis=axis, keepdims=keepdims))
    if name == "logsumexp":
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims)), x.dtype)
    if axis == ():
        wide = np.dtype(np.int64) if name == "prod" and x.dtype.kind in "bi" else x.dtype
        return x.astype(wide) if name == "prod" else np.zeros_like(x)
    return np.asarray(getattr(np, name)(x, axis=axis, keepdims=keepdims))


@pytest.mark.parametrize("name", ["prod", "any", "all", "count_nonzero", "var", "std", "logsumexp"])
@pytest.mark.parametrize("keepdims", [False, True])
def test_follows_numpy(name: str, keepdims: bool, sessions: list[graphc.Session]) -> None:
    rng = np.random.default_rng(0)
    floats = rng.uniform(-2, 2, (2, 3, 4)).astype(np.float32) * (rng.random((2, 3, 4)) < 0.7)
    arrays = [floats] if name in ("var", "std", "logsumexp") else [floats, floats > 0, floats.astype(np.int8)]
    for array, axis in itertools.product(arrays, AXES):
        x = tensor("a", 3, "c", dtype=str(array.dtype))
        found = getattr(graphc, name)(x, axis, keepdims=keepdims)
        expected = theirs(name, array, axis, keepdims)
        values = {Symbol("a"): 2, Symbol("c"): 4}
        assert tuple(evaluate(e, values) for e in found.shape) == expected.shape
        assert found.dtype == expected.dtype
        # 24 terms, each sum or product rounded, functions of a few units; magnitudes stay below 2**24
        eps = 64 * float(np.finfo(np.float32).eps)
        for session in sessions if axis in (None, 1, (0, 2)) else sessions[:1]:
            value = session.run(found, {x: array})
            assert np.all(np.abs(np.subtract(value, expected, dtype=float)) <= eps * np.maximum(np.abs(expected), 1))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_over_no_elements(shape: tuple[int, ...], sessions: list[graphc.Session]) -> None:
    x = tensor("n", "m")
    array = np.zeros(shape, np.float32)
    for axis in (None, 0, 1):
        asked = [f(x, axis) for f in (graphc.prod, graphc.any, graphc.all, graphc.count_nonzero)]
        expected = [np.prod(array, axis), np.any(array, axis), np.all(array, axis), np.count_nonzero(array, axis)]
        for session in sessions:
            for value, wanted in zip(session.run(asked, {x: array}), expected, strict=True):
                assert np.array_equal(value, wanted)
    for session in sessions:
        assert np.isnan(session.run(graphc.var(x), {x: array}))


@pytest.mark.parametrize("correction", [0, 1, 1.5, 4, 5])
def test_variance_with_a_correction(correction: float, sessions: list[graphc.Session]) -> None:
    """Fixed and symbolic extents; infinite or NaN where nothing is left to divide by, as in NumPy."""
    array = np.array([[1.0, 2.0, 4.0, 8.0], [3.0, 3.0, 3.0, 3.0]])
    with np.errstate(all="ignore"):
        left = max(4 - correction, 0)
        expected = np.square(array - array.mean(axis=1, keepdims=True)).sum(axis=1) / left
    for x in (tensor(2, 4, dtype="float64"), tensor(2, "n", dtype="float64")):
        for session in sessions:
            found = session.run(graphc.var(x, 1, correction=correction), {x: array})
            assert np.allclose(found, expected, rtol=1e-15, equal_nan=True)
            root = session.run(graphc.std(x, 1, correction=correction), {x: array})
            assert np.allclose(root, np.sqrt(expected), rtol=1e-15, equal_nan=True)


def test_variance_far_from_zero_is_not_cancelled_away(sessions: list[graphc.Session]) -> None:
    """The mean of squares less the square of the mean would be off by thousands here."""
    array = (4096 + np.array([0, 1, 2, 3])).astype(np.float32) * 1024
    x = tensor(4)
    for session in sessions:
        assert session.run(graphc.var(x), {x: array}) == np.float32(1.25 * 1024**2)


def test_logsumexp_over_several_axes_does_not_overflow(sessions: list[graphc.Session]) -> None:
    array = np.array([[1000.0, 1000.0], [-np.inf, -np.inf]])
    x = tensor(2, 2, dtype="float64")
    for session in sessions:
        assert np.isclose(session.run(graphc.logsumexp(x), {x: array}), 1000 + np.log(2), rtol=1e-15)
        assert session.run(graphc.logsumexp(x, (0, 1)), {x: np.full((2, 2), -np.inf)}) == -np.inf


@pytest.mark.parametrize("name", ["prod", "max", "min"])
def test_nan_propagates(name: str, sessions: list[graphc.Session]) -> None:
    x = tensor("n", 5)
    array = np.ones((3, 5), np.float32)
    array[1, 3] = np.nan
    for session in sessions:
        assert np.array_equal(np.isnan(session.run(getattr(graphc, name)(x, 1), {x: array})), [False, True, False])
        assert np.isnan(session.run(getattr(graphc, name)(x), {x: array}))


def test_nan_is_true_and_so_is_minus_infinity(sessions: list[graphc.Session]) -> None:
    x = tensor(2, 2)
    array = np.array([[np.nan, -np.inf], [-0.0, 0.0]], np.float32)
    for session in sessions:
        assert np.array_equal(session.run(graphc.all(x, 1), {x: array}), [True, False])
        assert np.array_equal(session.run(graphc.any(x, 1), {x: array}), [True, False])
        assert session.run(graphc.count_nonzero(x), {x: array}) == 2


@pytest.mark.parametrize("size", [1, 300, 70_000])
def test_any_and_all_find_the_one_element(size: int, sessions: list[graphc.Session]) -> None:
    x = tensor("n", dtype="bool")
    for place in {0, size // 2, size - 1}:
        array = np.zeros(size, bool)
        array[place] = True
        some, every, none = sessions[1].run([graphc.any(x), graphc.all(~x), graphc.all(x)], {x: array})
        assert some
        assert not every
        assert none == (size == 1)


def test_large_products_of_integers_wrap_around(sessions: list[graphc.Session]) -> None:
    x = tensor("n", dtype="int32")
    array = np.full(1000, 3, np.int32)
    for session in sessions:
        assert session.run(graphc.prod(x), {x: array}) == np.prod(array.astype(np.int64))


# Derivatives of products.


def products(x: Array, order: int) -> Array:
    """The derivative of prod(x) by each element (order 1), or by each pair (order 2), from the definition."""
    n = len(x)
    found = np.zeros((n,) * order)
    for place in np.ndindex(found.shape):
        if len(set(place)) == order:
            found[place] = np.prod(np.delete(x, list(place)))
    return found


@pytest.mark.parametrize("zeros", [(), (1,), (0, 3), (1, 2, 3), (0, 1, 2, 3)])
def test_derivatives_of_prod_with_zeros(zeros: tuple[int, ...], sessions: list[graphc.Session]) -> None:
    array = np.array([2.0, -3.0, 0.5, 5.0])
    array[list(zeros)] = 0
    x, v = tensor("n", dtype="float64"), tensor("n", dtype="float64", name="v")
    slope = graphc.gradients(graphc.prod(x), x)
    second = graphc.gradients(graphc.sum(slope * v), x)
    weights = np.array([1.0, 10.0, 100.0, 1000.0])
    for session in sessions:
        found, more = session.run([slope, second], {x: array, v: weights})
        assert np.allclose(found, products(array, 1), rtol=1e-14, atol=0)
        assert np.allclose(more, products(array, 2) @ weights, rtol=1e-14, atol=0)


def test_third_derivative_of_prod_where_all_is_zero(sessions: list[graphc.Session]) -> None:
    """d3/dx dy dz of xyz is 1, at 0 too."""
    x = tensor(3, dtype="float64")
    total = graphc.prod(x)
    for axis in range(3):
        total = graphc.gradients(total, x)[axis]
    for session in sessions:
        assert session.run(total, {x: np.zeros(3)}) == 1


@pytest.mark.parametrize("axis", [(0, 2), (1,), None])
def test_derivative_of_prod_over_several_axes(axis: Any, sessions: list[graphc.Session]) -> None:
    array = np.random.default_rng(5).uniform(-2, 2, (2, 3, 4))
    array[0, 1, 2] = array[1, 0, 0] = array[1, 0, 3] = 0
    x = tensor("a", 3, "c", dtype="float64")
    slope = graphc.gradients(graphc.sum(graphc.prod(x, axis)), x)
    axes = tuple(range(3)) if axis is None else axis
    expected = np.zeros_like(array)
    for place in np.ndindex(array.shape):
        ones = array.copy()
        ones[place] = 1
        kept = tuple(slice(None) if a in axes else place[a] for a in range(3))
        expected[place] = np.prod(ones[kept])
    for session in sessions:
        assert np.allclose(session.run(slope, {x: array}), expected, rtol=1e-13, atol=0)


def test_derivative_of_std_where_all_is_equal(sessions: list[graphc.Session]) -> None:
    x = tensor(2, 3, dtype="float64")
    slope = graphc.gradients(graphc.sum(graphc.std(x, 1)), x)
    array = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0]])
    distance = array[1] - 2
    for session in sessions:
        found = session.run(slope, {x: array})
        assert np.array_equal(found[0], [0, 0, 0])
        assert np.allclose(found[1], distance / 3 / array[1].std(), rtol=1e-14)


# Running sums and products.


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint16", "bool"])
@pytest.mark.parametrize("initial", [False, True])
def test_running_sums_and_products(dtype: str, initial: bool, sessions: list[graphc.Session]) -> None:
    """Added one after another, so that the bits are NumPy's."""
    rng = np.random.default_rng(2)
    for shape, axis in (((5,), None), ((4, 3), 0), ((4, 3), -1), ((2, 0, 3), 1), ((2, 700), 1)):
        array = rng.uniform(-1.5, 3, shape)
        array = (np.abs(array) if dtype == "uint16" else array).astype(dtype)
        x = tensor(*(f"s{e}" if e > 2 else e for e in shape), dtype=dtype)
        asked = [f(x, axis, include_initial=initial) for f in (graphc.cumulative_sum, graphc.cumulative_prod)]
        wide = array.astype({"b": "int64", "i": "int64", "u": "uint64"}.get(array.dtype.kind, dtype))
        place = axis or 0
        with np.errstate(all="ignore"):
            expected = [np.cumsum(wide, place), np.cumprod(wide, place)]
        if initial:
            first = [1 if a == place % len(shape) else e for a, e in enumerate(shape)]
            starts = (np.zeros(first, wide.dtype), np.ones(first, wide.dtype))
            expected = [np.concatenate(pair, place) for pair in zip(starts, expected, strict=True)]
        for session in sessions:
            for value, wanted in zip(session.run(asked, {x: array}), expected, strict=True):
                assert value.dtype == wanted.dtype
                assert np.array_equal(value, wanted)


def test_running_products_keep_the_sign_of_zero(sessions: list[graphc.Session]) -> None:
    x = tensor(4)
    array = np.array([-0.0, 2.0, -1.0, np.inf], np.float32)
    with np.errstate(invalid="ignore"):
        expected = np.cumprod(array)
    for session in sessions:
        found = session.run(graphc.cumulative_prod(x), {x: array})
        assert np.array_equal(found, expected, equal_nan=True)
        assert np.array_equal(np.signbit(found[:3]), np.signbit(expected[:3]))


def test_derivatives_of_running_products_with_zeros(sessions: list[graphc.Session]) -> None:
    """dx[i] = sum over k >= i of g[k] * (product of x[j] for j <= k, j != i)."""
    array, weights = np.array([2.0, 0.0, 3.0, 0.0, 5.0]), np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    x = tensor("n", dtype="float64")
    y = graphc.cumulative_prod(x)
    slope = graphc.gradients(graphc.sum(y * weights), x)
    expected = [
        sum(weights[k] * np.prod(np.delete(array[: k + 1], i)) for k in range(i, len(array))) for i in range(len(array))
    ]
    for session in sessions:
        assert np.array_equal(session.run(slope, {x: array}), expected)


# What is refused.


@pytest.mark.parametrize(
    ("build", "error", "parts"),
    [
        (lambda x: graphc.prod(x, 2), ShapeError, ("prod: axis 2 does not exist",)),
        (lambda x: graphc.any(x, (0, 0)), ShapeError, ("any: axis (0, 0) names one axis twice",)),
        (lambda x: graphc.logsumexp(x, 1.5), ShapeError, ("logsumexp: an axis is an int, got 1.5",)),
        (lambda x: graphc.var(x, correction="1"), DTypeError, ("var: correction is a number, got '1'",)),
        (lambda x: graphc.cumulative_sum(x), ShapeError, ("cumulative_sum: along which axis?", "has 2", "axis=")),
        (lambda x: graphc.cumulative_prod(x, 2), ShapeError, ("cumulative_prod: axis 2 does not exist",)),
        (lambda x: graphc.logsumexp(x[:0]), ShapeError, ("logsumexp: axis 0 has no elements",)),
    ],
)  # fmt: skip
def test_what_is_known_to_be_wrong(
    build: Callable[[Tensor], object], error: type[GraphcError], parts: tuple[str, ...]
) -> None:
    with pytest.raises(error) as raised:
        build(tensor(3, 4))
    for part in parts:
        assert part in str(raised.value)


def test_methods() -> None:
    x = tensor("n", 3)
    for name in ("prod", "any", "all", "var", "std", "argmax", "argmin"):
        assert getattr(x, name)(axis=1).shape == (x.shape[0],)
        assert getattr(x, name)(axis=1, keepdims=True).shape == (x.shape[0], 1)
    assert x[:, :1].squeeze(1).shape == (x.shape[0],)
