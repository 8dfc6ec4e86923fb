"""What ``minimize`` reaches, what it takes, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from graphc.errors import GradientError, UpdateError
from graphc.node import Node


@pytest.fixture(params=["reference", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def weight(value: Any, **more: Any) -> graphc.Tensor:
    return graphc.parameter(np.asarray(value, np.float32), **more)


def targets(update: graphc.Update) -> list[graphc.Tensor]:
    return [assign.inputs[0] for assign in update]


# What is minimised.


def test_minimize_takes_what_the_loss_reaches_in_order_of_creation() -> None:
    last_used, first_used = weight(1.0, name="a"), weight(2.0, name="b")
    frozen, cut, compared = weight(3.0, trainable=False), weight(4.0), weight(5.0)
    integer = graphc.parameter(np.int64(3))
    chosen = graphc.where(compared > 0, first_used, last_used) * frozen + integer.astype("float32")
    loss = chosen + graphc.stop_gradient(cut)
    assert [t.name for t in targets(optim.SGD(0.1).minimize(loss))] == ["a", "b"]


def test_minimize_goes_through_intermediate_gradients(device: str) -> None:
    w = weight(3.0)
    slope = graphc.gradients(w * w * w, w)
    update = optim.SGD(0.125).minimize(slope)  # d(3w^2)/dw = 6w = 18
    with graphc.Session(device=device) as session:
        session.run(update)
        assert session.get(w) == 3.0 - 18 * 0.125


def test_minimize_walks_deep_graphs() -> None:
    w = weight(1.0)
    loss = w
    for _ in range(100_000):
        loss = loss + 1.0
    (found,) = targets(optim.SGD(0.1).minimize(loss))
    assert found is w


@pytest.mark.parametrize("as_module", [True, False])
def test_minimize_takes_modules_and_lists(as_module: bool) -> None:
    layer = nn.Linear(2, 1, name="layer")
    layer.other = weight(1.0, trainable=False)  # type: ignore[attr-defined]
    loss = (graphc.placeholder((None, 2)) @ layer.weight + layer.bias).sum() * weight(1.0)
    update = optim.SGD(0.1).minimize(loss, layer if as_module else layer.parameters() * 2)
    assert [t.name for t in targets(update)] == ["layer.weight", "layer.bias"]


def test_a_modules_integers_are_left_out() -> None:
    layer = nn.Linear(2, 1, name="layer")
    layer.seen = graphc.parameter(np.int64(0), name="seen")  # type: ignore[attr-defined]
    loss = layer(graphc.placeholder((None, 2))).sum()
    assert [t.name for t in targets(optim.SGD(0.1).minimize(loss, layer))] == ["layer.weight", "layer.bias"]


def test_two_parts_trained_apart(device: str) -> None:
    a, b = weight(1.0, name="a"), weight(2.0, name="b")
    first, second = optim.SGD(1.0).minimize(a * b, [a]), optim.SGD(1.0).minimize(a * b, [b])
    with graphc.Session(device=device) as session:
        session.run([first, second])  # both read the values from before the run
        assert (session.get(a), session.get(b)) == (-1.0, 1.0)


# What is refused.


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda: weight([1.0, 2.0], name="w"), r"SGD\.minimize: the loss must be a scalar, got w: .*reduce it"),
        (lambda: graphc.placeholder((), dtype="int64"), "the loss must be float, got placeholder"),
        (lambda: 1.0, "the loss must be a tensor, got float"),
        (lambda: graphc.placeholder((), name="x") * 2, "depends on no trainable parameter\n  loss: multiply"),
        (lambda: weight(1.0, name="still", trainable=False) * 2, "no trainable parameter; .*trainable=False: still"),
        (lambda: graphc.stop_gradient(weight(1.0)), "depends on no trainable parameter"),
        (
            lambda: graphc.parameter(np.int64(3), name="count").astype("float32") * weight(1.0, trainable=False),
            "have trainable=False: parameter_.*; parameters that are not float have no gradient: count\n",
        ),
    ],
)
def test_losses_that_cannot_be_minimised(loss: Any, words: str) -> None:
    with pytest.raises(GradientError, match=words):
        optim.SGD(0.1).minimize(loss())


def test_parameters_that_cannot_be_minimised() -> None:
    w, other = weight(1.0, name="w"), weight(1.0, name="other")
    loss, sgd = w * graphc.stop_gradient(other), optim.SGD(0.1)
    with pytest.raises(
        GradientError, match=r"does not depend, through a differentiable path, on:\n    other: parameter"
    ):
        sgd.minimize(loss, [w, other])
    with pytest.raises(GradientError, match="no trainable parameter was given"):
        sgd.minimize(loss, [])
    with pytest.raises(GradientError, match="no trainable parameter was given: still"):
        sgd.minimize(loss, [weight(1.0, name="still", trainable=False)])
    with pytest.raises(UpdateError, match=r"params must be a list or a module, got one tensor; write \[w\]"):
        sgd.minimize(loss, w)  # type: ignore[arg-type]
    with pytest.raises(UpdateError, match="only parameters can be updated, got multiply"):
        sgd.minimize(loss, [loss])
    with pytest.raises(UpdateError, match="only parameters can be updated, got 'w'"):
        sgd.minimize(loss, ["w"])  # type: ignore[list-item]
    with pytest.raises(UpdateError, match=r"count: .*int64.* is not float and has no gradient"):
        sgd.minimize(loss, [graphc.parameter(np.int64(1), name="count")])


def test_nodes_are_said_to_come_from_the_users_line() -> None:
    w = weight(1.0)
    update = optim.Adam().minimize(w * w)
    pending: list[Node] = list(update)
    while pending:
        node = pending.pop()
        assert node.where.file == __file__
        pending += [t.node for t in node.inputs]
