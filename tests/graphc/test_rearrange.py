"""Joining, taking apart, and putting elements in another order: against NumPy, with extents that only data tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.dims import Symbol, dim, evaluate
from graphc.errors import DTypeError, FeedError, GraphcError, ShapeError
from graphc.node import Tensor

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def sessions() -> Iterator[list[graphc.Session]]:
    with graphc.Session(device="reference") as reference, graphc.Session(device="cpu") as cpu:
        yield [reference, cpu]


def tensor(*shape: Any, name: str = "x", dtype: str = "float32") -> Tensor:
    return graphc.placeholder(shape, dtype=dtype, name=name)


def counted(*shape: int) -> Array:
    return np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)


# Functions of one tensor of shape (n, 3, m), and NumPy's of the same.
ONE: list[tuple[Callable[[Any], Any], Callable[[Array], Array]]] = [
    (lambda x: graphc.flip(x), lambda x: np.flip(x)),
    (lambda x: graphc.flip(x, (0, -1)), lambda x: np.flip(x, (0, -1))),
    (lambda x: graphc.flip(x, ()), lambda x: x),
    (lambda x: graphc.roll(x, 1, 0), lambda x: np.roll(x, 1, 0)),
    (lambda x: graphc.roll(x, -5, -1), lambda x: np.roll(x, -5, -1)),
    (lambda x: graphc.roll(x, (1, -2, 4), (0, 1, 0)), lambda x: np.roll(x, (1, -2, 4), (0, 1, 0))),
    (lambda x: graphc.roll(x, 2, (0, 1)), lambda x: np.roll(x, 2, (0, 1))),
    (lambda x: graphc.roll(x, 7), lambda x: np.roll(x, 7)),
    (lambda x: graphc.roll(x, 3, 1), lambda x: x),
    (lambda x: graphc.tile(x, 2), lambda x: np.tile(x, 2)),
    (lambda x: graphc.tile(x, (2, 1, 3)), lambda x: np.tile(x, (2, 1, 3))),
    (lambda x: graphc.tile(x, (2, 1, 1, 2)), lambda x: np.tile(x, (2, 1, 1, 2))),
    (lambda x: graphc.tile(x, (0, 1, 1)), lambda x: np.tile(x, (0, 1, 1))),
    (lambda x: graphc.repeat(x, 3), lambda x: np.repeat(x, 3)),
    (lambda x: graphc.repeat(x, 2, 0), lambda x: np.repeat(x, 2, 0)),
    (lambda x: graphc.repeat(x, 2, -1), lambda x: np.repeat(x, 2, -1)),
    (lambda x: graphc.repeat(x, 0, 1), lambda x: np.repeat(x, 0, 1)),
    (lambda x: graphc.moveaxis(x, 0, -1), lambda x: np.moveaxis(x, 0, -1)),
    (lambda x: graphc.moveaxis(x, (0, 2), (1, 0)), lambda x: np.moveaxis(x, (0, 2), (1, 0))),
    (lambda x: graphc.tril(x), lambda x: np.tril(x)),
    (lambda x: graphc.tril(x, -1), lambda x: np.tril(x, -1)),
    (lambda x: graphc.triu(x, 1), lambda x: np.triu(x, 1)),
    (lambda x: graphc.pad(x, 1), lambda x: np.pad(x, 1)),
    (lambda x: graphc.pad(x, ((0, 2), (1, 0), (0, 0))), lambda x: np.pad(x, ((0, 2), (1, 0), (0, 0)))),
    (lambda x: graphc.concat([x]), lambda x: x),
    (lambda x: graphc.concat([x, x, x], axis=-1), lambda x: np.concatenate([x, x, x], -1)),
    (lambda x: graphc.concat([x, x[:1]], axis=0), lambda x: np.concatenate([x, x[:1]], 0)),
    (lambda x: graphc.concat([x, 2 * x], axis=None), lambda x: np.concatenate([x, 2 * x], None)),
    (lambda x: graphc.stack([x, -x], axis=1), lambda x: np.stack([x, -x], axis=1)),
    (lambda x: graphc.stack([x, -x], axis=-1), lambda x: np.stack([x, -x], axis=-1)),
    (lambda x: graphc.unstack(x, 1)[2], lambda x: x[:, 2]),
    (lambda x: graphc.split(x, 3, axis=1)[1], lambda x: x[:, 1:2]),
    (lambda x: graphc.split(x, [1, 1, 2], axis=1)[2], lambda x: x[:, 1:2]),
    (lambda x: graphc.concat(graphc.split(x, [1], axis=1)[::-1], axis=1), lambda x: np.roll(x, 2, 1)),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ONE)))
def test_follows_numpy(number: int, sessions: list[graphc.Session]) -> None:
    ours, theirs = ONE[number]
    x = tensor("n", 3, "m")
    symbolic = ours(x)
    for n, m in ((2, 4), (1, 1), (3, 0), (0, 2), (7, 2)):
        array = counted(n, 3, m)
        expected = theirs(array)
        fixed = tensor(n, 3, m)
        assert ours(fixed).shape == expected.shape
        values = {Symbol("n"): n, Symbol("m"): m}
        assert tuple(evaluate(e, values) for e in symbolic.shape) == expected.shape
        assert np.array_equal(sessions[0].run(ours(fixed), {fixed: array}), expected)
        for session in sessions:
            assert np.array_equal(session.run(symbolic, {x: array}), expected), (session.device, n, m)


def test_several_inputs_of_concat(sessions: list[graphc.Session]) -> None:
    """Extents add up, dtypes promote, empty parts leave nothing; what goes in may be computed, and read again."""
    x, y, z = tensor("n", 2), tensor("k", 2, name="y", dtype="int16"), tensor(1, 2, name="z", dtype="float64")
    joined = graphc.concat([x * 2, y, z, x[::-1]])
    assert str(joined.shape[0]) == "k + 2*n + 1"
    assert joined.dtype == np.float64
    for n, k in ((2, 3), (0, 1), (0, 0), (4, 0)):
        feeds = {x: counted(n, 2), y: counted(k, 2).astype(np.int16), z: counted(1, 2).astype(float)}
        expected = np.concatenate([feeds[x] * 2, feeds[y], feeds[z], feeds[x][::-1]])
        for session in sessions:
            found, total = session.run([joined, joined.sum(axis=0) + x.sum()], feeds)
            assert np.array_equal(found, expected)
            assert np.array_equal(total, expected.sum(axis=0) + feeds[x].sum())


def test_what_is_joined_is_differentiated_by_parts(sessions: list[graphc.Session]) -> None:
    """Each input gets its slice of the cotangent, for every size; a tensor joined twice gets the sum."""
    x, y = graphc.placeholder(("n", 2), dtype="float64"), graphc.placeholder(("k", 2), dtype="float64")
    joined = graphc.concat([x, y, x])
    w = graphc.placeholder(joined.shape, dtype="float64")
    asked = graphc.gradients(graphc.sum(joined * w), [x, y])
    for n, k in ((2, 3), (0, 1), (3, 0)):
        weights = np.random.default_rng(n).standard_normal((2 * n + k, 2))
        feeds = {x: np.zeros((n, 2)), y: np.zeros((k, 2)), w: weights}
        for session in sessions:
            dx, dy = session.run(asked, feeds)
            assert np.array_equal(dx, weights[:n] + weights[n + k :])
            assert np.array_equal(dy, weights[n : n + k])


def test_special_values_move_unchanged(sessions: list[graphc.Session]) -> None:
    """Bits of NaN, infinities, -0.0 and subnormals; no arithmetic is done on what is moved."""
    array = np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0, 2.0**-149, -(2.0**-149)], np.float32)
    x = tensor(8)
    asked = [
        x[::-1], graphc.roll(x, 3), graphc.concat([x, x]), graphc.take(x, [7, -1, 0]), graphc.pad(x, 1),
        graphc.tile(x, 2), graphc.repeat(x, 2), graphc.diagonal(graphc.broadcast_to(x, (8, 8))),
    ]  # fmt: skip
    expected = [
        array[::-1], np.roll(array, 3), np.tile(array, 2), array[[7, -1, 0]], np.pad(array, 1), np.tile(array, 2),
        np.repeat(array, 2), array,
    ]  # fmt: skip
    for session in sessions:
        for found, wanted in zip(session.run(asked, {x: array}), expected, strict=True):
            assert np.array_equal(found.view(np.uint32), np.ascontiguousarray(wanted).view(np.uint32))


def test_views_are_not_nodes_when_they_change_nothing() -> None:
    x = tensor("n", 3)
    for y in (graphc.flip(x, ()), graphc.roll(x, 3, 1), graphc.pad(x, 0), graphc.concat([x]), graphc.moveaxis(x, 0, 0)):
        assert y is x


# Creation.


def test_creation(sessions: list[graphc.Session]) -> None:
    n = dim("n")
    x = tensor("n")
    asked = [
        graphc.zeros((2, n)), graphc.ones((n,), "int8"), graphc.full((n, 2), 1.5), graphc.full((2,), 7),
        graphc.full((n,), True), graphc.eye(n), graphc.eye(n, 3, k=1, dtype="int32"), graphc.eye(2, n, k=-1),
        graphc.linspace(0, 1, 5), graphc.linspace(-1, 2, 4, "float64", endpoint=False), graphc.linspace(3, 4, 1),
    ]  # fmt: skip
    for size in (0, 1, 4):
        expected = [
            np.zeros((2, size), np.float32), np.ones(size, np.int8), np.full((size, 2), 1.5, np.float32), np.full(2, 7),
            np.full(size, True), np.eye(size, dtype=np.float32), np.eye(size, 3, 1, np.int32),
            np.eye(2, size, -1, np.float32), np.linspace(0, 1, 5, dtype=np.float32),
            np.linspace(-1, 2, 4, endpoint=False), np.full(1, 3, np.float32),
        ]  # fmt: skip
        for session in sessions:
            *found, _ = session.run([*asked, x], {x: np.zeros(size, np.float32)})
            for value, wanted in zip(found, expected, strict=True):
                assert value.dtype == wanted.dtype
                assert np.array_equal(value, wanted)


# What is refused.


@pytest.mark.parametrize(
    ("build", "error", "parts"),
    [
        (lambda x: graphc.concat([]), ShapeError, ("concat: needs a list or tuple of at least one tensor, got []",)),
        (lambda x: graphc.concat(x), ShapeError, ("concat: needs a list or tuple",)),
        (lambda x: graphc.concat([x, x[0]]), ShapeError, ("concat: tensors must have one rank, got 2 and 1", "stack")),
        (lambda x: graphc.concat([x, x[:, :2]]), ShapeError, ("concat: extents of axis 1 must be equal, got 4 and 2",)),
        (lambda x: graphc.concat([x, x], axis=2), ShapeError, ("concat: axis 2 does not exist",)),
        (lambda x: graphc.concat([x.sum(), x.sum()]), ShapeError, ("concat: a scalar has no axis", "stack")),
        (lambda x: graphc.stack([x, x[0]]), ShapeError, ("stack: tensors must have one shape, got ranks 2 and 1",)),
        (lambda x: graphc.stack([x, x[:, :2]]), ShapeError, ("must be equal, got 4 and 2",)),
        (lambda x: graphc.unstack(tensor("n")), ShapeError, ("unstack: how many", "symbolic extent n")),
        (lambda x: graphc.split(x, 2), ShapeError, ("split: axis 0", "3 elements", "2 equal parts")),
        (lambda x: graphc.split(x, 0), ShapeError, ("split: needs a number of parts, at least 1",)),
        (lambda x: graphc.split(x, [2, 1]), ShapeError, ("split: indices must increase within 0 to 3, got [2, 1]",)),
        (lambda x: graphc.split(x, [4]), ShapeError, ("split: indices must increase within 0 to 3",)),
        (lambda x: graphc.flip(x, 2), ShapeError, ("flip: axis 2 does not exist",)),
        (lambda x: graphc.roll(x, 1.5, 0), ShapeError, ("roll: a shift is an int, got 1.5",)),
        (lambda x: graphc.roll(x, (1, 2), 0), ShapeError, ("roll: 2 shifts (1, 2) do not match 1 axes 0",)),
        (lambda x: graphc.tile(x, -1), ShapeError, ("tile: a number of repetitions is an int of at least 0, got -1",)),
        (lambda x: graphc.repeat(x, [1, 2, 3], 0), ShapeError, ("repeat: repeats, one for all elements, is an int",)),
        (lambda x: graphc.moveaxis(x, (0, 1), 0), ShapeError, ("moveaxis: 2 axes (0, 1) need as many places, got 0",)),
        (lambda x: graphc.moveaxis(x, (0, 0), (0, 1)), ShapeError, ("moveaxis: axis (0, 0) names one axis twice",)),
        (lambda x: graphc.pad(x, -1), ShapeError, ("pad: pad_width must be an int of at least 0", "got -1")),
        (lambda x: graphc.pad(x, ((1, 1),)), ShapeError, ("pad: pad_width", "each of the 2 axes")),
        (lambda x: graphc.tril(x[0]), ShapeError, ("tril: needs at least two axes",)),
        (lambda x: graphc.triu(x, 0.5), ShapeError, ("triu: k is an int",)),
        (lambda x: graphc.full((2,), [1, 2]), ShapeError, ("full: the value is one number, got shape (2,)",)),
        (lambda x: graphc.zeros(3), ShapeError, ("zeros: the shape must be a tuple, got 3; write (3,)",)),
        (lambda x: graphc.ones(3, 4), ShapeError, ("ones: the shape is one tuple: ones((3, 4))",)),
        (lambda x: graphc.full(3, 4, 5), ShapeError, ("full: the shape must be a tuple, got 3",)),
        (lambda x: graphc.zeros((None,)), ShapeError, ("zeros: None is no extent of (None,)",)),
        (lambda x: graphc.arange(2, 5), ShapeError, ("arange: takes one extent", "write 2 + arange(3)")),
        (lambda x: graphc.linspace(0, 1, 2.0), DTypeError, ("linspace: start and stop are numbers and num is an int",)),
        (lambda x: graphc.linspace(0, 1, -1), ShapeError, ("linspace: num is at least 0, got -1",)),
        (lambda x: x.reshape(None), ShapeError, ("reshape: None is no extent of (None,)", "-1")),
        (lambda x: graphc.broadcast_to(x, (None, 3, 4)), ShapeError, ("None is no extent", "x.shape[axis]")),
        (lambda x: graphc.broadcast_arrays(x, x[:2]), ShapeError, ("must be equal, got 3 and 2",)),
    ],
)  # fmt: skip
def test_what_is_known_to_be_wrong(
    build: Callable[[Tensor], object], error: type[GraphcError], parts: tuple[str, ...]
) -> None:
    with pytest.raises(error) as raised:
        build(tensor(3, 4))
    for part in parts:
        assert part in str(raised.value)


def test_splits_past_the_end_are_found_when_data_is_fed(sessions: list[graphc.Session]) -> None:
    x = tensor("n")
    first, second = graphc.split(x, [3])
    for session in sessions:
        assert [len(v) for v in session.run([first, second], {x: counted(5)})] == [3, 2]
        assert [len(v) for v in session.run([first, second], {x: counted(3)})] == [3, 0]
        with pytest.raises(FeedError, match="at least 3 elements along n, and the feeds make it 2"):
            session.run(second, {x: counted(2)})


def test_broadcast_arrays() -> None:
    a, b, c = graphc.broadcast_arrays(tensor(3, 1), tensor("n"), 2.0)
    assert a.shape == b.shape == c.shape == (3, dim("n"))
    assert graphc.broadcast_arrays() == ()
