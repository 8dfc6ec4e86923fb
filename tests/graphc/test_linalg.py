"""Matrix products of every dtype, tensordot, vecdot, outer, diagonals: against NumPy, with symbolic extents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.dims import Symbol, evaluate
from graphc.errors import DTypeError, FeedError, GraphcError, ShapeError
from graphc.node import Tensor

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def sessions() -> Iterator[list[graphc.Session]]:
    with graphc.Session(device="reference") as reference, graphc.Session(device="cpu") as cpu:
        yield [reference, cpu]


def tensor(*shape: Any, name: str = "x", dtype: str = "float32") -> Tensor:
    return graphc.placeholder(shape, dtype=dtype, name=name)


def fixed(shape: tuple[int, ...], dtype: str, name: str) -> Tensor:
    return tensor(*shape, dtype=dtype, name=name)


def named(shape: tuple[int, ...], dtype: str, name: str) -> Tensor:
    """A placeholder whose extents above 1 are symbols; equal numbers are equal symbols."""
    return tensor(*(f"s{e}" if e != 1 else 1 for e in shape), dtype=dtype, name=name)


def drawn(shape: tuple[int, ...], dtype: str, seed: int) -> Array:
    values = np.random.default_rng(seed).uniform(-9, 9, shape)
    return (np.abs(values) if dtype.startswith("u") else values).astype(dtype)


def agree(found: Any, expected: Array, bound: Array) -> None:
    """The same bits for integers; sums of products within ``bound``, which is n * eps * sum|x * y|."""
    assert np.asarray(found).dtype == expected.dtype
    assert np.shape(found) == expected.shape
    gap = np.abs(np.subtract(found, expected, dtype=float))
    assert np.all(gap <= (bound if expected.dtype.kind == "f" else 0))


MATRICES = [
    ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (3,)), ((5, 1, 2, 3), (4, 3, 2)), ((0, 3), (3, 2)), ((2, 0), (0, 2)), ((1, 1), (1, 1)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "int64", "uint64"])
def test_matmul_of_integers(dtype: str, sessions: list[graphc.Session]) -> None:
    """NumPy's values, wrapping around in the dtype's own width."""
    for number, (a, b) in enumerate(MATRICES):
        x, y = drawn(a, dtype, 1), drawn(b, dtype, 2)
        if dtype == "int8":
            x, y = x * 11, y * 13  # overflows
        for p, q in (
            (tensor(*a, dtype=dtype), tensor(*b, dtype=dtype, name="y")),
            (named(a, dtype, "x"), named(b, dtype, "y")),
        ):
            for session in sessions if number < 4 else sessions[:1]:
                agree(session.run(p @ q, {p: x, q: y}), np.matmul(x, y), np.zeros(()))


@pytest.mark.parametrize(
    ("build", "pairs"),
    [
        (lambda x, y: x @ y, [(("n", 1), (1, 3)), ((2, "n"), (1, 3))]),
        (lambda x, y: graphc.vecdot(x, y), [((2, "n"), (2, 1)), ((1,), ("n",))]),
        (lambda x, y: graphc.tensordot(x, y, 1), [((2, "n"), (1, 3)), ((1,), ("n", 2))]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_an_extent_written_1_is_not_repeated_in_a_product(
    build: Any, pairs: Any, dtype: str, sessions: list[graphc.Session]
) -> None:
    """It asks the other to be 1, as between numbers."""
    for a, b in pairs:
        x, y = tensor(*a, dtype=dtype), tensor(*b, dtype=dtype, name="y")
        found = build(x, y)
        for session in sessions:
            for n, fits in ((1, True), (3, a[-1] != "n" and "n" not in b)):
                feeds = {t: np.ones([n if e == "n" else e for e in shape], dtype) for t, shape in ((x, a), (y, b))}
                if fits:
                    session.run(found, feeds)
                else:
                    with pytest.raises(FeedError):
                        session.run(found, feeds)


AXES: list[tuple[tuple[int, ...], tuple[int, ...], Any]] = [
    ((2, 3, 4), (3, 4, 5), 2), ((2, 3), (3, 4), 1), ((2, 3), (4, 5), 0), ((2, 3, 4), (4, 3, 2), ([0, 2], [2, 0])),
    ((2, 3, 4), (4, 5), (2, 0)), ((2, 3, 4), (2, 3, 4), 3), ((2, 3, 4), (4, 3), ((-1, 1), (0, -1))),
    ((0, 3), (3, 2), 1), ((2, 0), (0, 2), 1), ((2, 3, 4, 5), (5, 3), ([1, 3], [1, 0])),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
@pytest.mark.parametrize(("a", "b", "axes"), AXES)
def test_tensordot(dtype: str, a: Any, b: Any, axes: Any, sessions: list[graphc.Session]) -> None:
    x, y = drawn(a, dtype, 1), drawn(b, dtype, 2)
    expected = np.tensordot(x, y, axes)
    eps = float(np.finfo(dtype).eps) if dtype.startswith("f") else 0.0
    bound = 60 * eps * np.tensordot(np.abs(x), np.abs(y), axes).astype(float)
    for p, q in (
        (tensor(*a, dtype=dtype), tensor(*b, dtype=dtype, name="y")),
        (named(a, dtype, "x"), named(b, dtype, "y")),
    ):
        found = graphc.tensordot(p, q, axes)
        assert tuple(evaluate(e, {Symbol(f"s{i}"): i for i in range(6)}) for e in found.shape) == expected.shape
        for session in sessions:
            agree(session.run(found, {p: x, q: y}), expected, bound)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_vecdot_and_outer(dtype: str, sessions: list[graphc.Session]) -> None:
    for a, b, axis in (
        ((4,), (4,), -1),
        ((2, 4), (4,), -1),
        ((2, 4, 3), (4, 3), -2),
        ((2, 1, 4), (3, 4), -1),
        ((0,), (0,), -1),
    ):
        x, y = drawn(a, dtype, 3), drawn(b, dtype, 4)
        p, q = named(a, dtype, "x"), named(b, dtype, "y")
        wide = np.multiply(x, y, dtype=float)
        bound = 8 * float(np.finfo(np.float32).eps) * np.abs(wide).sum(axis=axis)
        expected = np.multiply(x, y).sum(axis=axis, dtype=dtype)
        for session in sessions:
            agree(session.run(graphc.vecdot(p, q, axis), {p: x, q: y}), np.asarray(expected), bound)
    p, q = tensor("n", dtype=dtype), tensor("m", dtype=dtype, name="y")
    x, y = drawn((3,), dtype, 5), drawn((2,), dtype, 6)
    for session in sessions:
        agree(session.run(graphc.outer(p, q), {p: x, q: y}), np.outer(x, y), np.zeros(()))


@pytest.mark.parametrize("offset", [0, 1, -1, 2, -3, 7])
def test_diagonal_and_trace(offset: int, sessions: list[graphc.Session]) -> None:
    x = tensor(2, "n", "m")
    asked = [graphc.diagonal(x, offset), graphc.trace(x, offset)]
    for n, m in ((3, 3), (2, 5), (5, 2), (1, 1), (0, 3), (3, 0)):
        array = np.arange(2 * n * m, dtype=np.float32).reshape(2, n, m)
        expected = [np.diagonal(array, offset, 1, 2), np.trace(array, offset, 1, 2)]
        for session in sessions:
            for value, wanted in zip(session.run(asked, {x: array}), expected, strict=True):
                assert np.array_equal(value, wanted), (n, m)


@pytest.mark.parametrize("offset", [0, 1, -2])
def test_the_derivative_of_a_trace_is_a_diagonal_of_ones(offset: int, sessions: list[graphc.Session]) -> None:
    x = tensor("n", "m", dtype="float64")
    slope = graphc.gradients(graphc.trace(x, offset), x)
    for n, m in ((3, 3), (2, 4), (4, 2), (0, 2)):
        for session in sessions:
            assert np.array_equal(session.run(slope, {x: np.zeros((n, m))}), np.eye(n, m, offset))


def test_the_gradient_of_a_quadratic_form(sessions: list[graphc.Session]) -> None:
    """d(x A x)/dx = (A + A') x, and its derivative again is A + A'."""
    a = np.random.default_rng(0).standard_normal((4, 4))
    x, matrix = tensor("n", dtype="float64"), tensor("n", "n", dtype="float64", name="A")
    form = graphc.tensordot(x, graphc.tensordot(matrix, x, 1), 1)
    slope = graphc.gradients(form, x)
    second = graphc.gradients(graphc.sum(slope * graphc.arange(matrix.shape[0], "float64")), x)
    values = np.array([1.0, -2.0, 3.0, 0.5])
    for session in sessions:
        first, more = session.run([slope, second], {x: values, matrix: a})
        assert np.allclose(first, (a + a.T) @ values, rtol=1e-13)
        assert np.allclose(more, (a + a.T) @ np.arange(4), rtol=1e-13)


@pytest.mark.parametrize(
    ("build", "error", "parts"),
    [
        (lambda x: x.astype("bool") @ x.astype("bool").mT, DTypeError, ("matmul: operands must be numbers", "astype")),
        (lambda x: x.astype("int8") @ x.astype("int8"), ShapeError, ("matmul:", "axis 1", "axis 0", "got 4 and 3")),
        (lambda x: graphc.outer(x, x[0]), ShapeError, ("outer: operands must be vectors", "reshape(-1)")),
        (lambda x: graphc.vecdot(x, x[:, :2]), ShapeError, ("vecdot:", "got 4 and 2")),
        (lambda x: graphc.vecdot(x, x, 0), ShapeError, ("vecdot: axis must be counted", "from -2 to -1, got 0")),
        (lambda x: graphc.tensordot(x, x), ShapeError, ()),
        (lambda x: graphc.tensordot(x, x, 1), ShapeError, ("tensordot: axis 1", "axis 0", "got 4 and 3")),
        (lambda x: graphc.tensordot(x, x, 3), ShapeError, ("tensordot: 3 axes cannot be summed over",)),
        (lambda x: graphc.tensordot(x, x, "ij"), ShapeError, ("tensordot: axes is an int or a pair of sequences",)),
        (lambda x: graphc.tensordot(x, x, ([0], [0, 1])), ShapeError, ("tensordot: as many axes of both",)),
        (lambda x: graphc.tensordot(x, x, ([0, 0], [0, 0])), ShapeError, ("tensordot: an axis is summed over once",)),
        (lambda x: graphc.diagonal(x[0]), ShapeError, ("diagonal: needs at least two axes, got 1",)),
        (lambda x: graphc.diagonal(x, 1.0), ShapeError, ("diagonal: offset is an int, got 1.0",)),
    ],
)  # fmt: skip
def test_what_is_known_to_be_wrong(
    build: Callable[[Tensor], object], error: type[GraphcError], parts: tuple[str, ...]
) -> None:
    if not parts:
        build(tensor(3, 4))
        return
    with pytest.raises(error) as raised:
        build(tensor(3, 4))
    for part in parts:
        assert part in str(raised.value)
