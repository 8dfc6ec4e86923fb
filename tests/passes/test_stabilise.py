"""The stable forms: what each rule makes of a graph; values and gradients where the form as written breaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.node import Tensor
from passes.graph import Graph
from passes.stabilise import stabilise
from runtime.fetches import flatten


def graph_of(*fetches: Any) -> Graph:
    return flatten(list(fetches)).graph


def counts(*fetches: Any) -> Counter[str]:
    return Counter(n.op.name for n in stabilise(graph_of(*fetches)).nodes)


def value_and_gradient(form: Callable[[Tensor], Tensor], x: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """On the CPU, in float32 throughout."""
    t = gc.placeholder(x.shape, name="x")
    y = form(t)
    with gc.Session() as session:
        value, gradient = session.run([y, gc.gradients(gc.sum(y), t)], {t: x.astype(np.float32)})
    return value, gradient


def test_log_of_softmax() -> None:
    x = gc.placeholder((2, 3), name="x")
    found = counts(gc.log(gc.softmax(x, 0)))
    assert found["log_softmax"] == 1
    assert found["softmax"] == found["log"] == 0
    rows = np.array([[1e4, 0.0, -1e4], [-1e4, 1e4, 1e4]])
    value, gradient = value_and_gradient(lambda t: gc.log(gc.softmax(t)), rows)
    np.testing.assert_allclose(value[0], [0, -1e4, -2e4])
    np.testing.assert_allclose(value[1], [-2e4 - np.log(2), -np.log(2), -np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(gradient, [[-2, 1, 1], [1, -0.5, -0.5]], atol=1e-6)


def test_log_of_one_plus() -> None:
    x = gc.placeholder((3,), name="x")
    for form in (lambda t: gc.log(1 + t), lambda t: gc.log(t + 1), lambda t: gc.log(t + gc.ones_like(t))):
        assert counts(form(x))["log1p"] == 1
        value, gradient = value_and_gradient(form, np.array([1e-10, 0.5, -1.0]))
        np.testing.assert_allclose(value, [1e-10, np.log(1.5), -np.inf], rtol=1e-6)
        np.testing.assert_allclose(gradient, [1, 1 / 1.5, np.inf], rtol=1e-6)
    for kept in (gc.log(x + 2), gc.log(x + gc.constant(np.ones((2, 1), np.float32))), gc.log(x - 1)):
        assert counts(kept)["log1p"] == 0


def test_exp_minus_one() -> None:
    x = gc.placeholder((3,), name="x")
    assert counts(gc.exp(x) - 1)["expm1"] == 1
    value, gradient = value_and_gradient(lambda t: gc.exp(t) - 1, np.array([1e-12, 0.0, 90.0]))
    np.testing.assert_allclose(value, [1e-12, 0, np.inf], rtol=1e-6)
    np.testing.assert_allclose(gradient, [1, 1, np.inf], rtol=1e-6)
    for kept in (gc.exp(x) - 2, 1 - gc.exp(x), gc.exp(x) - gc.constant(np.ones((2, 1), np.float32))):
        assert counts(kept)["expm1"] == 0


@pytest.mark.parametrize("keepdims", [False, True])
def test_log_of_sum_of_exp(keepdims: bool) -> None:
    x = gc.placeholder((2, 3), name="x")
    found = counts(gc.log(gc.sum(gc.exp(x), 1, keepdims=keepdims)))
    assert found["logsumexp"] == 1
    assert found["exp"] == found["log"] == 0
    rows = np.array([[1000.0, 1000.0, 0.0], [-1000.0, -1000.0, -1000.0]])
    value, gradient = value_and_gradient(lambda t: gc.log(gc.sum(gc.exp(t), 1, keepdims=keepdims)), rows)
    np.testing.assert_allclose(value.ravel(), [1000 + np.log(2), -1000 + np.log(3)], rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0.5, 0.5, 0], [1 / 3] * 3], rtol=1e-6)


def test_log_of_sum_of_exp_over_no_elements_stays() -> None:
    x = gc.placeholder((0, 2), name="x")
    with gc.Session() as session:
        np.testing.assert_array_equal(session.run(gc.log(gc.sum(gc.exp(x), 0)), {x: np.zeros((0, 2))}), [-np.inf] * 2)


def test_log_of_sigmoid() -> None:
    x = gc.placeholder((3,), name="x")
    assert counts(gc.log(gc.sigmoid(x)))["sigmoid"] == 0
    points = np.array([-1000.0, 0.0, 1000.0, -np.inf, np.inf, np.nan, 1e-6, -80.0])
    value, gradient = value_and_gradient(lambda t: gc.log(gc.sigmoid(t)), points)
    np.testing.assert_allclose(value, [-1000, -np.log(2), 0, -np.inf, 0, np.nan, -np.log(2), -80], rtol=1e-6)
    np.testing.assert_allclose(gradient[:3], [1, 0.5, 0])
    np.testing.assert_allclose(gradient[-2:], [0.5, 1], rtol=1e-6)


def test_log_of_sigmoid_has_all_derivatives_at_zero() -> None:
    x = gc.placeholder((3,), name="x")
    first = gc.gradients(gc.sum(gc.log(gc.sigmoid(x))), x)
    second = gc.gradients(gc.sum(first), x)
    third = gc.gradients(gc.sum(second), x)
    points = np.array([0.0, -0.0, 0.7])
    s = 1 / (1 + np.exp(-points))
    with gc.Session() as session:
        found = session.run([first, second, third], {x: points})
    expected = [1 - s, -s * (1 - s), -s * (1 - s) * (1 - 2 * s)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_it_runs_before_gradients_and_again_after() -> None:
    """A naive form that only the gradient brings is made stable too."""
    x = gc.placeholder((3,), name="x")
    with gc.Session() as session:
        step = session.compile(gc.log(gc.gradients(gc.sum(gc.log(1 + gc.exp(x))), x)))
        assert np.isfinite(step(np.array([-50.0, 0.0, 50.0]))).all()


# Barriers: an x of a pending gradient must still be there when the gradient is expanded.


def softmax_inside(x: Tensor) -> tuple[Tensor, Tensor]:
    inner = gc.softmax(x)
    return inner, gc.log(inner)


def exp_inside(x: Tensor) -> tuple[Tensor, Tensor]:
    inner = gc.exp(x)
    return inner, gc.log(gc.sum(inner, 1))


def exp_inside_a_broken_chain(x: Tensor) -> tuple[Tensor, Tensor]:
    inner = gc.exp(gc.log(1 + x))  # its input is rewritten, and it is built again
    return inner, gc.log(gc.sum(inner, 1))


def sum_inside(x: Tensor) -> tuple[Tensor, Tensor]:
    inner = gc.sum(gc.exp(x), 1)
    return inner, gc.log(inner)


def add_inside(x: Tensor) -> tuple[Tensor, Tensor]:
    inner = 1 + x
    return inner, gc.log(inner)


def one_inside(x: Tensor) -> tuple[Tensor, Tensor]:
    inner = gc.constant(1.0)
    return inner, gc.log(inner + x)


def broadcast_one_inside(x: Tensor) -> tuple[Tensor, Tensor]:
    inner = gc.ones_like(x)
    return inner, gc.log(x + inner)


def sigmoid_inside(x: Tensor) -> tuple[Tensor, Tensor]:
    inner = gc.sigmoid(x)
    return inner, gc.log(inner)


def exp_minus_one_inside(x: Tensor) -> tuple[Tensor, Tensor]:
    inner = gc.exp(x)
    return inner, inner - 1


def subtracted_one_inside(x: Tensor) -> tuple[Tensor, Tensor]:
    inner = gc.constant(1.0)
    return inner, gc.exp(x) - inner


BARRIERS = [
    softmax_inside, exp_inside, exp_inside_a_broken_chain, sum_inside, add_inside, one_inside, broadcast_one_inside,
    sigmoid_inside, exp_minus_one_inside, subtracted_one_inside,
]  # fmt: skip


@pytest.mark.parametrize("form", BARRIERS)
def test_a_gradient_with_respect_to_what_a_rule_looks_through(form: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
    x = gc.placeholder((2, 3), name="x")
    inner, y = form(x)
    fetches = [gc.gradients(gc.sum(gc.square(y)), inner), gc.gradients(gc.sum(y), x)]
    found = []
    for device in ("cpu", "reference"):
        with gc.Session(device) as session:
            found.append(session.run(fetches, {x: np.arange(1.0, 7.0).reshape(2, 3) / 8}))
    assert np.any(found[0][0] != 0)
    for mine, expected in zip(*found, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6)


def test_the_placeholder_itself_is_no_barrier() -> None:
    """The usual case: the derivative of the stable form is taken."""
    x = gc.placeholder((2, 3), name="x")
    y = gc.sum(gc.log(gc.softmax(x)))
    assert counts(y, gc.gradients(y, x))["log_softmax"] == 1
