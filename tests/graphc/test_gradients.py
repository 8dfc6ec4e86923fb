"""The request for gradients: the tour's numbers, errors when the line is written, higher order, shared sweeps."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import FeedError, GradientError
from graphc.gradients import GRADIENT
from graphc.node import Tensor
from passes.gradient import expand_gradients
from passes.graph import Graph

HERE = "tests/graphc/test_gradients.py"


def run(fetches: Any, feeds: Any = None) -> Any:
    with graphc.Session(device="reference") as session:
        return session.run(fetches, feeds)


def ones(*shape: int) -> Tensor:
    return graphc.parameter(np.ones(shape, np.float32))


# T1 and T3 of the tour.


def test_t1_a_mean_of_squares() -> None:
    x = ones(2, 2)
    y = x + 1
    res = graphc.mean(2 * y**2)
    grad = graphc.gradients(res, x)
    with graphc.Session(device="reference") as session:
        for _ in range(2):
            value, g = session.run([res, grad])
            assert value == 8
            assert np.array_equal(g, [[2, 2], [2, 2]])


def test_t1_accumulation_on_purpose() -> None:
    w, acc = graphc.parameter([1.0, 2.0], name="w"), graphc.parameter([0.0, 0.0], name="acc", trainable=False)
    x = graphc.placeholder((None, 2), name="x")
    g = graphc.gradients(graphc.sum((x * w) ** 2), w)
    add = graphc.assign(acc, acc + g)
    step = graphc.group(graphc.assign(w, w - 0.125 * acc), graphc.assign(acc, 0))
    with graphc.Session(device="reference") as session:
        for batch in ([[1, 0]], [[0, 1], [1, 1]]):
            session.run(add, {x: batch})
        assert np.array_equal(session.get(acc), [4, 8])
        session.run(step)
        assert np.array_equal(session.get(w), [0.5, 1])
        assert np.array_equal(session.get(acc), [0, 0])


def test_t3_leaf() -> None:
    x = ones(3, 3)
    y = x + 5
    out = graphc.mean(y * y)
    value, g = run([out, graphc.gradients(out, x)])
    assert value == 36
    np.testing.assert_allclose(g, np.full((3, 3), 4 / 3), rtol=1e-6)


def test_t3_vector_jacobian_products() -> None:
    a, b = graphc.parameter([2.0, 3.0]), graphc.parameter([6.0, 4.0])
    ga, gb = run(graphc.gradients(3 * a**3 - b**2, [a, b], grad_ys=[1.0, 1.0]))
    assert np.array_equal(ga, [36, 81])
    assert np.array_equal(gb, [-12, -8])
    x = graphc.parameter([10.0, 10.0, 10.0])
    np.testing.assert_allclose(run(graphc.gradients(x**2, x, grad_ys=[0.1, 1.0, 0.0001])), [2, 20, 0.002], rtol=1e-6)


def test_t3_intermediates() -> None:
    a = ones(2, 2)
    b = a + 2
    c = b**2
    out = graphc.sum(c)
    value, ga, gb, gc = run([out, *graphc.gradients(out, [a, b, c])])
    assert value == 36
    assert np.array_equal(ga, np.full((2, 2), 6))
    assert np.array_equal(gb, np.full((2, 2), 6))
    assert np.array_equal(gc, np.ones((2, 2)))


def test_t3_matrices() -> None:
    inp = graphc.constant([1.0, 2.0])
    w1, w2 = graphc.parameter([[1.0, 2.0], [3.0, 4.0]]), graphc.parameter([[2.0, 3.0], [4.0, 2.0]])
    y1 = w1 @ inp
    y2 = w2 @ y1
    out = graphc.sum(y2)
    found = run([y1, y2, out, *graphc.gradients(out, [w1, w2])])
    for value, expected in zip(found, ([5, 11], [43, 42], 85, [[6, 12], [5, 10]], [[5, 11], [5, 11]]), strict=True):
        assert np.array_equal(value, expected)


# What is refused when the line is written.


def test_a_gradient_of_something_not_scalar() -> None:
    x = ones(2)
    y = x * 2
    expected = (
        f"gradients: a gradient is created implicitly only for a scalar, and {y.describe()} has shape float32[2]; "
        f"reduce it (.sum(), .mean()) or pass grad_ys= with its shape"
    )
    with pytest.raises(GradientError, match=re.escape(expected)):
        graphc.gradients(y, x)
    assert f"({HERE}:{y.node.where.line} in " in expected


@pytest.mark.parametrize(
    ("build", "parts"),
    [
        (lambda x: graphc.gradients(x.sum(), []), ("xs is empty",)),
        (lambda x: graphc.gradients([], x), ("ys is empty",)),
        (lambda x: graphc.gradients(x.sum(), ["x"]), ("xs must be tensors, got str",)),
        (lambda x: graphc.gradients(3.0, x), ("ys must be tensors, got float",)),
        (lambda x: graphc.gradients(x.sum(), 3), ("xs must be tensors, got int",)),
        (lambda x: graphc.gradients(x.sum(), np.ones(2)), ("xs must be tensors, got float64",)),
        (lambda x: graphc.gradients(x.sum(), graphc.parameter(np.array([1, 2]), name="k")),
         ("xs must be float, got k: parameter int64[2]",)),
        (lambda x: graphc.gradients(x.astype("int32").sum(), x),
         ("ys must be float", "convert with .astype('float32')")),
        (lambda x: graphc.gradients(x.sum(), x, unreachable="none"), ("must be 'error' or 'zero', got 'none'",)),
        (lambda x: graphc.gradients(x, x, grad_ys=np.ones(3, np.float32)),
         ("grad_ys must have the shape of its y", "float32[3]")),
        (lambda x: graphc.gradients(x, x, grad_ys=1.0), ("grad_ys must have the shape of its y", "float32[]")),
        (lambda x: graphc.gradients([x, x * 2], x, grad_ys=[np.ones(2)]), ("2 ys need as many grad_ys, got 1",)),
        (lambda x: graphc.gradients([x], x, grad_ys=[1.0, 2.0]), ("1 ys need as many grad_ys, got 2",)),
        (lambda x: graphc.gradients([x, x * 2], x), ("only for a scalar",)),
    ],
)  # fmt: skip
def test_request_errors(build: Callable[[Tensor], object], parts: tuple[str, ...]) -> None:
    with pytest.raises(GradientError) as error:
        build(ones(2))
    assert str(error.value).startswith("gradients: ")
    for part in parts:
        assert part in str(error.value)


def test_no_path() -> None:
    x, y, z = ones(2), graphc.parameter([1.0], name="y"), ones(2)
    out = graphc.sum(graphc.stop_gradient(x) * z * (x > 0).astype("float32"))
    with pytest.raises(GradientError) as error:
        graphc.gradients(out, [x, y, z])
    assert str(error.value) == (
        f"gradients: no differentiable path leads to ys from:\n    {x.describe()}\n    {y.describe()}\n"
        f"  stop_gradient, integer results, comparisons, and rules that give None end a path; "
        f"unreachable='zero' gives zeros instead"
    )
    gx, gy, gz = run(graphc.gradients(out, [x, y, z], unreachable="zero"))
    assert np.array_equal(gx, [0, 0])
    assert np.array_equal(gy, [0])
    assert np.array_equal(gz, [1, 1])


def test_a_cotangent_for_each_y() -> None:
    x = ones(2)
    g = run(graphc.gradients([x * 2, x.sum()], x, grad_ys=[np.array([1.0, 10.0], np.float32), np.float32(100)]))
    assert np.array_equal(g, [102, 120])
    assert np.array_equal(run(graphc.gradients([x * 2], x, grad_ys=[[1.0, 10.0]])), [2, 20])
    assert np.array_equal(run(graphc.gradients(x * 2, x, grad_ys=x * 3)), [6, 6])
    assert np.array_equal(run(graphc.gradients(x * 2, x, grad_ys=[x * 3])), [6, 6])


def test_a_cotangent_has_the_precision_of_its_y() -> None:
    x = graphc.placeholder((2,), dtype="float64")
    assert np.array_equal(run(graphc.gradients(x * 1, x, grad_ys=[0.1, 0.2]), {x: [1, 2]}), [0.1, 0.2])


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_a_cotangent_of_another_symbolic_extent(device: str) -> None:
    x, v = graphc.placeholder(("n",), name="x"), graphc.placeholder(("m",), name="v")
    g = graphc.gradients(x * 2, x, grad_ys=v)
    with graphc.Session(device=device) as session:
        assert np.array_equal(session.run(g, {x: [1, 2], v: [3, 4]}), [6, 8])
        with pytest.raises(
            FeedError,
            match=r"gradient at .* and the feeds make them 2 and 3 \(extents of axis 0 of y",
        ):
            session.run(g, {x: [1, 2], v: [3, 4, 5]})


def test_a_power_of_0_has_a_derivative() -> None:
    """Zero, whatever x is; so an exponent that is a setting may be 0."""
    x = graphc.placeholder((4,), name="x")
    bad = np.array([0, -2, np.inf, np.nan], np.float32)
    for device in ("reference", "cpu"):
        with graphc.Session(device=device) as session:
            value, derivative = session.run([x**0.0, graphc.gradients(graphc.sum(x**0.0), x)], {x: bad})
        assert value.tolist() == [1, 1, 1, 1]
        assert derivative.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("grad_ys", [[None, 1.0], [1.0, None]])
def test_a_cotangent_that_is_none(grad_ys: list[float | None]) -> None:
    x = ones(2)
    place = grad_ys.index(None)
    with pytest.raises(GradientError, match=rf"gradients: grad_ys\[{place}\] is None; write graphc.ones_like\(y\)"):
        graphc.gradients([x.sum(), x.mean()], x, grad_ys=grad_ys)
    with pytest.raises(GradientError, match=r"gradients: grad_ys\[0\] is None"):
        graphc.gradients(x.sum(), x, grad_ys=[None])


def test_forms() -> None:
    x = ones(2)
    y = x.sum()
    assert isinstance(graphc.gradients(y, x), Tensor)
    assert isinstance(graphc.gradients(y, [x]), list)
    assert isinstance(graphc.gradients(y, (x,)), list)
    first, second = graphc.gradients(y, [x, x])
    assert first is second
    g = graphc.gradients(y, x)
    assert (g.shape, g.dtype, g.node.op) == (x.shape, x.dtype, GRADIENT)
    assert np.array_equal(run(graphc.gradients(y, y)), 1)


# Higher order.


@pytest.mark.parametrize(
    ("function", "derivatives"),
    [
        (lambda x: x**4, (lambda x: 4 * x**3, lambda x: 12 * x**2, lambda x: 24 * x)),
        (lambda x: graphc.exp(2 * x), tuple(lambda x, k=k: 2.0**k * np.exp(2 * x) for k in (1, 2, 3))),
        (lambda x: graphc.log(x), (lambda x: 1 / x, lambda x: -1 / x**2, lambda x: 2 / x**3)),
        (lambda x: 1 / x, (lambda x: -1 / x**2, lambda x: 2 / x**3, lambda x: -6 / x**4)),
        (lambda x: x**2.5, (lambda x: 2.5 * x**1.5, lambda x: 3.75 * x**0.5, lambda x: 1.875 * x**-0.5)),
        (lambda x: graphc.tanh(x), (
            lambda x: 1 - np.tanh(x) ** 2, lambda x: -2 * np.tanh(x) * (1 - np.tanh(x) ** 2),
            lambda x: (6 * np.tanh(x) ** 2 - 2) * (1 - np.tanh(x) ** 2),
        )),
        (lambda x: 3 * x + 1, (lambda x: 3 + 0 * x, lambda x: 0 * x, lambda x: 0 * x)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_three_orders(function: Callable[..., Any], derivatives: Any, device: str) -> None:
    x = graphc.placeholder((3,), dtype="float64")
    y, orders = function(x).sum(), []
    for _ in range(3):
        g = graphc.gradients(y, x, unreachable="zero")
        orders.append(g)
        y = g.sum()
    points = np.array([0.4, 1.0, 1.7])
    with graphc.Session(device=device) as session:
        for found, expected in zip(session.run(orders, {x: points}), derivatives, strict=True):
            np.testing.assert_allclose(found, expected(points), rtol=1e-13, atol=1e-13)


def test_mixed_derivatives() -> None:
    x, y = (graphc.placeholder((), dtype="float64", name=n) for n in "xy")
    gx = graphc.gradients(x**3 * y**2, x)
    gxy, gxx = graphc.gradients(gx, y), graphc.gradients(gx, x)
    assert run([gx, gxy, gxx], {x: 2, y: 3}) == [108, 72, 108]


def test_a_gradient_with_respect_to_a_gradient() -> None:
    x = graphc.placeholder((), dtype="float64")
    g = graphc.gradients(x**3, x)
    assert run([g, graphc.gradients(g**2 + g, g)], {x: 2}) == [12, 25]


# Choices and ties.


def test_the_branch_not_taken_gets_nothing() -> None:
    x, y = graphc.parameter([1.0, -1.0]), graphc.parameter([2.0, 3.0])
    out = graphc.sum(graphc.where(x > 0, x * 2, y * 3))
    gx, gy = run(graphc.gradients(out, [x, y]))
    assert np.array_equal(gx, [2, 0])
    assert np.array_equal(gy, [0, 3])


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_ties_share(device: str) -> None:
    x, y = graphc.parameter([[1.0, 3.0, 3.0]], name="x"), graphc.parameter([[1.0, 2.0, 4.0]], name="y")
    fetches = [
        graphc.gradients(graphc.max(x), x), graphc.gradients(graphc.min(x, axis=1).sum(), x),
        *graphc.gradients(graphc.sum(graphc.maximum(x, y)), [x, y]),
        *graphc.gradients(graphc.sum(graphc.minimum(x, y)), [x, y]),
        graphc.gradients(graphc.sum(graphc.relu(x - 3) + graphc.abs(x - 3)), x),
    ]  # fmt: skip
    expected = [
        [[0, 0.5, 0.5]], [[1, 0, 0]], [[0.5, 1, 0]], [[0.5, 0, 1]], [[0.5, 0, 1]], [[0.5, 1, 0]], [[-1, 0, 0]],
    ]  # fmt: skip
    with graphc.Session(device=device) as session:
        for found, wanted in zip(session.run(fetches), expected, strict=True):
            assert np.array_equal(found, wanted)


def test_a_power_of_zero() -> None:
    x, y = (graphc.placeholder((4,), dtype="float64", name=n) for n in "xy")
    gx, gy = run(graphc.gradients(graphc.sum(x**y), [x, y]), {x: [0, 0, 0, 2], y: [0, 1, 2, 0]})
    assert np.array_equal(gx, [0, 1, 0, 0])
    np.testing.assert_allclose(gy, [0, 0, 0, np.log(2)])
    second = graphc.gradients(graphc.gradients(graphc.sum(x**y), x).sum(), x)
    assert np.array_equal(run(second, {x: [0, 0, 0, 2], y: [0, 1, 2, 3]}), [0, 0, 2, 12])


def test_an_empty_tensor() -> None:
    x = graphc.placeholder((0, 3))
    assert run(graphc.gradients(x.sum(), x), {x: np.zeros((0, 3))}).shape == (0, 3)


# Sweeps.


def nodes(*outputs: Tensor) -> list[str]:
    return [n.op.name for n in expand_gradients(Graph(outputs)).nodes]


def test_one_request_makes_one_sweep() -> None:
    x, w1, w2 = ones(2, 3), ones(3, 3), ones(3, 1)
    hidden = graphc.tanh(x @ w1)
    out = graphc.sum(graphc.tanh(hidden @ w2))
    together = nodes(out, *graphc.gradients(out, [w1, w2]))
    apart = nodes(out, graphc.gradients(out, w1), graphc.gradients(out, w2))
    assert together.count("matmul") == 5
    assert together.count("square") == 2
    assert len(nodes(out, graphc.gradients(out, w1))) + 3 >= len(together)
    assert apart.count("square") <= 4


def test_two_requests_of_one_target_share_their_sweep() -> None:
    x, w1, w2 = ones(2, 3), ones(3, 3), ones(3, 1)
    out = graphc.sum(graphc.tanh(graphc.tanh(x @ w1) @ w2))
    seed = graphc.constant(1.0)
    together = nodes(out, *graphc.gradients(out, [w1, w2], grad_ys=seed))
    apart = nodes(out, graphc.gradients(out, w1, grad_ys=seed), graphc.gradients(out, w2, grad_ys=seed))
    assert sorted(apart) == sorted(together)


def test_a_long_chain() -> None:
    x = graphc.placeholder((2,), dtype="float64")
    y = x
    for factor in itertools.islice(itertools.cycle((2.0, 0.5)), 20_000):
        y = y * factor
    graph = expand_gradients(Graph((graphc.gradients(y.sum(), x),)))
    assert 20_000 < len(graph.nodes) < 100_000
    assert all(n.op is not GRADIENT for n in graph.nodes)
    assert np.array_equal(run(graphc.gradients(y.sum(), x), {x: [1, 2]}), [1, 1])


def test_backward_nodes_take_the_line_and_say_their_role() -> None:
    x = ones(2)
    y = graphc.exp(x)
    out = graphc.sum(y)
    graph = expand_gradients(Graph((graphc.gradients(out, x),)))
    backward = [n for n in graph.nodes if n.role == "backward"]
    assert backward
    assert {n.where for n in backward} <= {y.node.where, out.node.where, x.node.where}
    assert all(n.where.file == __file__ for n in graph.nodes)
