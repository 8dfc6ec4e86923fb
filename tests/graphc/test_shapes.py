"""Shape rules when a line is written: broadcasting, reshape, axes; and the whole text of what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import ops
from graphc.errors import FeedError, ShapeError
from graphc.node import Tensor

HERE = "tests/graphc/test_shapes.py"


def tensor(*shape: Any, name: str = "x", dtype: str = "float32") -> Tensor:
    return graphc.placeholder(shape, dtype=dtype, name=name)


def text_of(build: Callable[[], object]) -> str:
    with pytest.raises(ShapeError) as error:
        build()
    return str(error.value)


# Broadcasting.


@pytest.mark.parametrize(
    ("a", "b", "result"),
    [
        ((), (), ()), ((), (3,), (3,)), ((2, 3), (3,), (2, 3)), ((2, 1), (1, 3), (2, 3)),
        ((4, 1, 3), (2, 1), (4, 2, 3)),
        ((0,), (1,), (0,)), ((0, 3), (3,), (0, 3)), ((1,), (1,), (1,)), (("n", 3), (3,), ("n", 3)),
        (("n", 3), (1, 1), ("n", 3)),
        (("n", "m"), ("m",), ("n", "m")), (("n", 1), ("n", 3), ("n", 3)), (("n",), (), ("n",)),
    ],
)  # fmt: skip
def test_broadcasting(a: Any, b: Any, result: Any) -> None:
    wanted = tensor(*result).shape
    for left, right in ((a, b), (b, a)):
        node = (tensor(*left) + tensor(*right)).node
        assert node.results[0].shape == wanted
        assert node.constraints == ()


def test_a_symbolic_extent_takes_a_number_as_a_constraint() -> None:
    n = tensor("n")
    for node in ((n + tensor(3)).node, (tensor(3) + n).node):
        assert node.results[0].shape == (3,)
        assert [set(map(str, pair)) for pair in node.constraints] == [{"n", "3"}]


def test_two_names_meet_as_a_constraint_and_a_name_is_preferred() -> None:
    node = (tensor("n") + tensor("m")).node
    assert [tuple(map(str, pair)) for pair in node.constraints] == [("n", "m")]
    node = (tensor(None) + tensor("m")).node
    assert str(node.results[0].shape[0]) == "m"
    assert len(node.constraints) == 1


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_a_symbolic_extent_never_broadcasts(device: str) -> None:
    x, y, one = tensor("n", name="x"), tensor("m", name="y"), tensor(1, name="one")
    with graphc.Session(device=device) as session:
        assert np.array_equal(session.run(x + y, {x: [1.0], y: [2.0]}), [3])
        assert np.array_equal(session.run(x + one, {x: [1.0, 2.0], one: [2.0]}), [3, 4])
        with pytest.raises(FeedError) as error:
            session.run(x + y, {x: [1.0], y: [1.0, 2.0, 3.0]})
    text = str(error.value)
    assert f"add at {HERE}:" in text
    assert "the feeds make them 1 and 3 (extents of axis -1):" in text
    assert "n = 1 from axis 0 of 'x'" in text
    assert "m = 3 from axis 0 of 'y'" in text


def test_extents_that_differ() -> None:
    x, y = tensor(2, 3, name="x"), tensor(2, 4, name="y")
    text = text_of(lambda: x + y)
    assert text == (
        "add: extents of axis -1 must be equal, got 3 and 4\n"
        "  operands:\n"
        f"    x: placeholder float32[2, 3] ({x.node.where})\n"
        f"    y: placeholder float32[2, 4] ({y.node.where})"
    )
    assert str(x.node.where) == f"{HERE}:{x.node.where.line} in tensor"


@pytest.mark.parametrize(
    ("build", "parts"),
    [
        (lambda: tensor(3) * tensor(2), ("multiply:", "axis -1", "3 and 2")),
        (lambda: tensor(3, 2) < tensor(2, 2), ("less:", "axis -2", "3 and 2")),
        (lambda: tensor(0) + tensor(2), ("add:", "0 and 2")),
        (lambda: graphc.where(tensor(3, dtype="bool"), tensor(2), 1.0), ("where:", "3 and 2", "bool[3]", "float32[2]")),
        (lambda: tensor(2, 3) @ tensor(2, 3),
         ("matmul:", "columns of the first and the rows of the second", "3 and 2")),
        (lambda: tensor(3) @ tensor(2), ("matmul:", "3 and 2")),
        (lambda: tensor(2, 2, 3) @ tensor(4, 3, 2), ("matmul:", "2 and 4")),
        (lambda: tensor() @ tensor(2), ("matmul:", "a scalar has no matrix product; use * instead")),
        (lambda: graphc.broadcast_to(tensor(3), (2, 4)), ("broadcast_to:", "from 3 to 4", "3 and 4")),
        (lambda: graphc.broadcast_to(tensor(2, 3), (3,)), ("broadcast_to:", "rank 2 to the lower rank 1")),
        (lambda: graphc.squeeze(tensor(2, 3), 0), ("squeeze:", "axis 0 has extent 2; only axes of extent 1 can go")),
        (lambda: tensor(2, 3).reshape(5), ("reshape:", "shapes (2, 3) and (5,)", "6 and 5")),
        (lambda: tensor(2, 3).reshape(4, -1),
         ("reshape:", "6 elements, which 4 does not divide", "-1 in (4, -1) has no solution")),
        (lambda: tensor(2, 3).reshape(0, -1), ("reshape:", "6 elements, which 0 does not divide")),
        (lambda: tensor("n", 3).reshape(0, -1), ("reshape:", "3*n elements, which 0 does not divide")),
        (lambda: tensor(2, 3).reshape(-1, -1), ("reshape:", "at most one extent may be -1, got (-1, -1)")),
        (lambda: tensor(2, 3).reshape(-2, 3), ("reshape:", "an extent is at least 0, got -2")),
        (lambda: tensor(2, 3).reshape(2.0, 3), ("reshape:", "an extent is an int, a name, None or a Dim, got 2.0")),
        (lambda: tensor(2, 3).sum(axis=2),
         ("sum:", "axis 2 does not exist in a tensor of rank 2 (axes go from -2 to 1)")),
        (lambda: tensor(2, 3).sum(axis=-3), ("sum:", "axis -3 does not exist")),
        (lambda: tensor(2, 3).mean(axis=(0, -2)), ("mean:", "axis (0, -2) names one axis twice in a tensor of rank 2")),
        (lambda: tensor(2, 3).max(axis=1.5), ("max:", "an axis is an int, got 1.5")),
        (lambda: tensor(2, 3).max(axis=True), ("max:", "an axis is an int, got True")),
        (lambda: tensor(2, 0).max(axis=1), ("max:", "axis 1 has no elements", "float32[2, 0]")),
        (lambda: graphc.softmax(tensor(2, 0)), ("softmax:", "axis 1 has no elements")),
        (lambda: graphc.softmax(tensor()), ("softmax:", "axis -1 does not exist")),
        (lambda: graphc.argmax(tensor(3), axis=1), ("argmax:", "axis 1 does not exist in a tensor of rank 1")),
        (lambda: tensor(3).sum(axis=0).sum(axis=0), ("sum:", "axis 0 does not exist in a tensor of rank 0")),
        (lambda: graphc.permute_dims(tensor(2, 3), (0, 0)),
         ("permute_dims:", "axes (0, 0) must name each axis", "float32[2, 3]")),
        (lambda: graphc.permute_dims(tensor(2, 3), (0,)), ("permute_dims:", "axes (0,) must name each axis")),
        (lambda: graphc.permute_dims(tensor(2, 3), 0), ("permute_dims:", "axes must be a tuple", "got 0")),
        (lambda: graphc.expand_dims(tensor(3), None), ("expand_dims:", "an axis is an int, got None")),
        (lambda: tensor(3).mT, ("matrix_transpose:", "needs at least two axes", "float32[3]")),
        (lambda: graphc.expand_dims(tensor(3), 3), ("expand_dims:", "axis 3 does not exist in a tensor of rank 2")),
        (lambda: graphc.placeholder(3, name="p"),
         ("placeholder 'p':", "must be a tuple, got 3; write (3,) for one axis")),
        (lambda: graphc.placeholder((-1,)), ("placeholder:", "an extent is at least 0, got -1")),
        (lambda: graphc.placeholder((2.5,)), ("placeholder:", "got 2.5")),
        (lambda: graphc.placeholder(("a b",)), ("placeholder:", "must be an identifier, got 'a b'")),
        (lambda: graphc.placeholder((True,)), ("placeholder:", "got True")),
        (lambda: ops.gemm_add(tensor(2, 3), tensor(2, 3), tensor(2, 3)),
         ("gemm_add:", "inner extents", "3 and 2")),
    ],
)  # fmt: skip
def test_what_is_known_to_be_wrong(build: Callable[[], object], parts: tuple[str, ...]) -> None:
    text = text_of(build)
    assert text.startswith(parts[0])
    for part in parts[1:]:
        assert part in text
    if "operands" in text:
        assert f"({HERE}:" in text


def test_reshape() -> None:
    assert tensor(2, 3).reshape(-1).shape == (6,)
    assert tensor(2, 3).reshape(3, -1).shape == (3, 2)
    assert tensor(0, 3).reshape(-1, 3).shape == (0, 3)
    assert tensor().reshape(1, 1).shape == (1, 1)
    assert tensor(1).reshape(()).shape == ()
    n = graphc.dim("n")
    assert tensor("n", 6).reshape(-1, 3).shape == (2 * n, 3)
    assert tensor("n", 6).reshape("n", 2, -1).shape == (n, 2, 3)
    assert tensor("n", "m").reshape(-1).shape == (n * graphc.dim("m"),)
    assert tensor("n", 6).reshape(n, 6).node.op.name == "placeholder"
    assert str(tensor("n").reshape(2, -1).shape[1]) == "(n)/(2)"


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_reshape_that_only_the_data_can_judge(device: str) -> None:
    x = tensor("n", name="x")
    with graphc.Session(device=device) as session:
        assert session.run(x.reshape(2, -1), {x: np.arange(6.0)}).shape == (2, 3)
        with pytest.raises(FeedError, match=r"reshape at .*: \(n\)/\(2\) is 7/2, which is not exact"):
            session.run(x.reshape(2, -1), {x: np.arange(7.0)})
        with pytest.raises(FeedError, match=r"(?s)reshape at .*them 7 and 6 \(numbers of elements.*n = 7 from axis 0"):
            session.run(x.reshape(2, 3), {x: np.arange(7.0)})


def test_matmul_follows_numpy() -> None:
    shapes = [
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (3, 4)),
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)),
        ((5, 2, 3), (3,)),
    ]
    for a, b in [*shapes, ((3,), (5, 3, 4)), ((5, 1, 2, 3), (4, 3, 2)), ((0, 3), (3, 2)), ((2, 0), (0, 2))]:
        assert (tensor(*a) @ tensor(*b)).shape == np.matmul(np.zeros(a), np.zeros(b)).shape


@pytest.mark.parametrize("axis", [None, 0, -1, 1, (0, 1), (-1, 0), ()])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions_follow_numpy(axis: Any, keepdims: bool) -> None:
    for name in ("sum", "max", "min", "mean"):
        result = getattr(graphc, name)(tensor(2, 3, 4), axis=axis, keepdims=keepdims)
        assert result.shape == getattr(np, name)(np.ones((2, 3, 4)), axis=axis, keepdims=keepdims).shape


def test_extents_are_values() -> None:
    x = tensor("n", 3)
    mean = graphc.mean(x)
    assert mean.dtype == np.float32
    assert (x * x.shape[0]).dtype == np.float32
    assert (x.astype("int8") * x.shape[0]).dtype == np.int8
