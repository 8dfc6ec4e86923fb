"""Gradients as a graph rewrite: what is left of the request, what is shared, and higher order."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.gradients import GRADIENT
from graphc.node import Tensor
from graphc.ops.rules import VjpByInput
from passes.gradient import expand_gradients
from passes.graph import Graph
from passes.pipeline import optimize
from runtime.fetches import flatten

DEVICES = ("cpu", "reference")


def expanded(*fetches: Any) -> Graph:
    graph = expand_gradients(flatten(list(fetches)).graph)
    assert not any(n.op is GRADIENT for n in graph.nodes)
    return graph


def counts(graph: Graph) -> Counter[str]:
    return Counter(n.op.name for n in graph.nodes)


def run(fetches: Any, feeds: dict[Tensor, Any], device: str = "cpu") -> Any:
    with gc.Session(device) as session:
        return session.run(fetches, feeds)


def chain(x: Tensor, length: int) -> Tensor:
    for _ in range(length):
        x = gc.tanh(x)
    return x


def test_one_sweep_serves_all_gradients_of_one_y() -> None:
    a, b = gc.placeholder((3,), name="a"), gc.placeholder((3,), name="b")
    y = gc.sum(chain(a * b, 20))
    together = expanded(*gc.gradients(y, [a, b]))
    apart = expanded(gc.gradients(y, a), gc.gradients(y, b))
    alone = expanded(gc.gradients(y, a))
    assert counts(together)["square"] == counts(alone)["square"] == 20
    assert len(together.nodes) <= len(alone.nodes) + 1
    # Two requests have a cotangent each, so they are two sweeps until equal nodes are merged.
    assert len(optimize(flatten([gc.gradients(y, a), gc.gradients(y, b)]).graph).nodes) == len(
        optimize(flatten(gc.gradients(y, [a, b])).graph).nodes
    )
    assert counts(apart)["square"] <= 40


def test_requests_with_one_cotangent_share_a_sweep() -> None:
    a, b, g = (gc.placeholder((3,), name=n) for n in "abg")
    y = chain(a * b, 20)
    graph = expanded(gc.gradients(y, a, g), gc.gradients(y, b, g))
    assert counts(graph)["square"] == 20


def test_higher_order() -> None:
    x = gc.placeholder((4,), "float64", name="x")
    orders = [gc.sum(gc.exp(x * 2) * x)]
    for _ in range(4):
        orders.append(gc.sum(gc.gradients(orders[-1], x)))
    expanded(*orders)
    points = np.array([0.1, -0.3, 0.5, 1.0])
    expected = [np.sum(np.exp(2 * points) * (2**k * points + k * 2 ** (k - 1))) for k in range(5)]
    for device in DEVICES:
        np.testing.assert_allclose(run(orders, {x: points}, device), expected, rtol=1e-12)


def test_gradient_of_a_gradient_with_respect_to_the_cotangent() -> None:
    x, v = gc.placeholder((3,), name="x"), gc.placeholder((3,), name="v")
    pulled = gc.gradients(gc.exp(x), x, v)
    pushed = gc.gradients(pulled, v, gc.ones_like(pulled))
    np.testing.assert_allclose(run(pushed, {x: [0.0, 1.0, 2.0], v: [5.0, 5, 5]}), np.exp([0, 1, 2]), rtol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_that_expand_to_one_tensor_stay_two(device: str) -> None:
    """The derivatives of x + y are equal, and yet a function of both has two partial derivatives."""
    x, y, v = (gc.placeholder((3,), name=n) for n in "xyv")
    gx, gy = gc.gradients(gc.sum(x + y), [x, y])
    z = gc.sum(gx * 2 + gy * 3)
    feeds = {x: np.zeros(3), y: np.zeros(3)}
    np.testing.assert_array_equal(run(gc.gradients(z, [gx, gy]), feeds, device), [[2.0] * 3, [3.0] * 3])
    # The cotangent that the user gave comes back as the result: they are still two tensors.
    pulled = gc.gradients(x + 1, x, v)
    z = gc.sum(pulled * 2 + v * 3)
    found = run(gc.gradients(z, [pulled, v]), {x: np.zeros(3), v: np.ones(3)}, device)
    np.testing.assert_array_equal(found, [[2.0] * 3, [5.0] * 3])


def test_an_intermediate_tensor_and_the_target_itself() -> None:
    x = gc.placeholder((3,), name="x")
    middle = gc.exp(x)
    y = gc.sum(middle * middle)
    points = np.array([0.0, 1.0, -1.0])
    for device in DEVICES:
        to_middle, to_x, to_y = run(gc.gradients(y, [middle, x, y]), {x: points}, device)
        np.testing.assert_allclose(to_middle, 2 * np.exp(points), rtol=1e-6)
        np.testing.assert_allclose(to_x, 2 * np.exp(2 * points), rtol=1e-6)
        assert to_y == 1


def test_no_path_is_left_after_an_inner_expansion() -> None:
    x = gc.placeholder((3,), name="x")
    first = gc.gradients(gc.sum(2 * x), x)  # a constant once it is expanded
    second = gc.gradients(gc.sum(first), x)
    for device in DEVICES:
        np.testing.assert_array_equal(run(second, {x: np.ones(3)}, device), np.zeros(3))


def test_several_targets_are_summed_with_their_weights() -> None:
    x = gc.placeholder((3,), name="x")
    targets = [gc.sum(x * x), x * 3]
    found = gc.gradients(targets, x, [gc.constant(2.0), gc.constant(np.array([1, 0, -1], np.float32))])
    for device in DEVICES:
        np.testing.assert_array_equal(run(found, {x: [1.0, 2.0, 3.0]}, device), [7, 8, 9])


def test_derivatives_that_nobody_asks_for_are_not_built() -> None:
    x, y = (gc.placeholder((3,), name=n) for n in "xy")
    node = (x * y).node
    assert isinstance(node.op.vjp, VjpByInput)
    found = node.op.vjp.of(node, gc.ones_like(x), lambda t: t is y)
    assert found[0] is None
    assert found[1] is not None
    assert all(g is not None for g in node.op.vjp(node, gc.ones_like(x)))


def test_backward_nodes_take_the_users_line() -> None:
    x = gc.placeholder((3,), name="x")
    y = gc.sum(gc.tanh(x))
    graph = expanded(gc.gradients(y, x))
    backward = [n for n in graph.nodes if n.role == "backward"]
    (tanh,) = [n for n in graph.nodes if n.op.name == "tanh"]
    assert backward
    assert {n.where.line for n in backward if n.op.name == "square"} == {tanh.where.line}
