"""``custom_gradient``: whose rule is used, in every order, and what is refused where it is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.custom import RULE_ARGUMENT
from graphc.errors import FeedError, GradientError, ScopeError
from graphc.gradients import CUSTOM
from graphc.node import Tensor
from passes.gradient import expand_gradients
from passes.graph import Graph
from passes.pipeline import optimize

Array = np.ndarray[Any, Any]


@pytest.fixture(params=["reference", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(fetches: Any, feeds: dict[Any, Any] | None = None, device: str = "reference") -> Any:
    with graphc.Session(device=device) as session:
        return session.run(fetches, feeds or {})


def vector(name: str = "x", dtype: str = "float64") -> Tensor:
    return graphc.placeholder((3,), dtype=dtype, name=name)


POINTS = np.array([0.25, 1.0, -0.5])


# Whose rule is used.


def test_the_rule_replaces_the_derivative(device: str) -> None:
    seen: list[Any] = []

    def rule(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Wrong by a factor of ten, so that nothing else can be mistaken for it."""
        seen.append((g.type, y.type, x))
        return 10 * g * y

    f = graphc.custom_gradient(graphc.exp, rule)
    x = vector()
    y = f(2 * x)
    assert len(seen) == 1  # traced when the line was written
    assert (y.shape, y.dtype) == ((3,), np.float64)
    value, slope = run([y, graphc.gradients(y, x, grad_ys=[1.0, 2.0, 3.0])], {x: POINTS}, device)
    assert len(seen) == 1
    np.testing.assert_allclose(value, np.exp(2 * POINTS), rtol=1e-15)
    np.testing.assert_allclose(slope, 20 * np.array([1, 2, 3]) * np.exp(2 * POINTS), rtol=1e-14)


def test_second_and_third_derivatives_use_the_rule_again(device: str) -> None:
    # y = exp(x) with the rule dy = 10 y dx, in which y is the function's own value again.
    f = graphc.custom_gradient(graphc.exp, lambda g, y, x: 10 * g * y)
    x = vector()
    orders = [f(x)]
    for _ in range(3):
        orders.append(graphc.gradients(orders[-1].sum(), x))
    for n, found in enumerate(run(orders, {x: POINTS}, device)):
        np.testing.assert_allclose(found, 10.0**n * np.exp(POINTS), rtol=1e-13)


def test_identity_with_another_gradient(device: str) -> None:
    reverse = graphc.custom_gradient(lambda x: x, lambda g, y, x: -g)
    x = vector()
    y = reverse(x)
    assert y is not x
    value, gx, gy = run([y, *graphc.gradients((y * y).sum(), [x, y])], {x: POINTS}, device)
    assert value.tolist() == POINTS.tolist()
    assert gx.tolist() == (-2 * POINTS).tolist()
    assert gy.tolist() == (2 * POINTS).tolist()


def test_several_arguments_numbers_and_options(device: str) -> None:
    def scale(x: Tensor, factor: float, w: Tensor, *, power: int) -> Tensor:
        return graphc.multiply(x * factor, w**power)

    def rule(g: Tensor, y: Tensor, x: Tensor, factor: float, w: Tensor, *, power: int) -> Any:
        assert (factor, power) == (4.0, 2)
        return g * factor * 100, None, g * y

    f = graphc.custom_gradient(scale, rule)
    assert f.__name__ == "scale"
    x, w = vector("x"), vector("w")
    y = f(x, 4.0, w, power=2)
    gx, gw = run(graphc.gradients(y.sum(), [x, w]), {x: POINTS, w: [1.0, 2.0, 3.0]}, device)
    assert gx.tolist() == [400.0] * 3
    assert gw.tolist() == (4 * POINTS * [1, 4, 9]).tolist()


def test_one_tensor_given_twice(device: str) -> None:
    f = graphc.custom_gradient(lambda a, b: a * b, lambda g, y, a, b: (g, 10 * g))
    x = vector()
    assert run(graphc.gradients(f(x, x).sum(), x), {x: POINTS}, device).tolist() == [11.0] * 3


def test_several_values(device: str) -> None:
    def split(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x * 2, x > 0, x * 3

    def rule(g: Any, y: Any, x: Tensor) -> Tensor:
        first, sign, last = g
        assert sign is None  # bool: it has no cotangent
        return graphc.where(y[1], 100 * first + last, last)

    x = vector()
    twice, positive, thrice = graphc.custom_gradient(split, rule)(x)
    assert twice.node is thrice.node
    # The first value gets no cotangent here: its part is zero.
    fetches = [
        twice, positive, thrice, graphc.gradients(thrice.sum(), x), graphc.gradients((twice * thrice).sum(), x),
        graphc.gradients([twice, thrice], x, [graphc.ones_like(x), graphc.ones_like(x)]),
    ]  # fmt: skip
    a, b, c, alone, together, summed = run(fetches, {x: POINTS}, device)
    assert (a.tolist(), b.tolist(), c.tolist()) == ((2 * POINTS).tolist(), (POINTS > 0).tolist(), (3 * POINTS).tolist())
    assert alone.tolist() == [1.0] * 3
    assert together.tolist() == np.where(POINTS > 0, 100 * 3 * POINTS + 2 * POINTS, 2 * POINTS).tolist()
    assert summed.tolist() == [101.0, 101.0, 1.0]


def test_no_gradient_is_no_path() -> None:
    f = graphc.custom_gradient(lambda x, w: x * w, lambda g, y, x, w: (g * w, None))
    x, w = vector("x"), vector("w")
    y = f(x, w).sum()
    with pytest.raises(GradientError, match=r"(?s)no differentiable path leads to ys from:\n    w: .*rules that give"):
        graphc.gradients(y, [x, w])
    gx, gw = graphc.gradients(y, [x, w], unreachable="zero")
    assert run([gx, gw], {x: POINTS, w: POINTS})[1].tolist() == [0.0] * 3


def test_an_integer_argument_has_no_gradient(device: str) -> None:
    def pick(table: Tensor, label: Tensor) -> Tensor:
        return (table * graphc.one_hot(label, 3, dtype="float64")).sum()

    f = graphc.custom_gradient(pick, lambda g, y, table, label: (graphc.full_like(table, 7.0) * g, None))
    x, label = vector(), graphc.placeholder((), dtype="int64", name="label")
    value, slope = run([f(x, label), graphc.gradients(f(x, label), x)], {x: POINTS, label: 2}, device)
    assert value == POINTS[2]
    assert slope.tolist() == [7.0] * 3


def test_a_rule_with_a_gradient_in_it(device: str) -> None:
    """The derivative of the argument's own function, asked for inside the rule, twice as large."""

    def rule(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
        return graphc.gradients(graphc.tanh(x), x, grad_ys=2 * g)

    x = vector()
    y = graphc.custom_gradient(graphc.tanh, rule)(x)
    first = graphc.gradients(y.sum(), x)
    second = graphc.gradients(first.sum(), x)
    t = np.tanh(POINTS)
    found = run([first, second], {x: POINTS}, device)
    np.testing.assert_allclose(found, [2 * (1 - t * t), -4 * t * (1 - t * t)], rtol=1e-13)


def test_a_custom_function_in_a_rule(device: str) -> None:
    """The inner rule reads the outer cotangent from around it, so that each copy of the outer rule needs its own."""

    def outer_rule(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
        inner = graphc.custom_gradient(graphc.square, lambda h, z, u: 3 * h * u * graphc.stop_gradient(g))
        return inner(x) * g

    f = graphc.custom_gradient(lambda x: x + 1, outer_rule)
    x, v = vector("x"), vector("v")
    first = graphc.gradients(f(x), x, grad_ys=v)  # x**2 v
    second = graphc.gradients(first.sum(), x)  # 3 v x v
    third = graphc.gradients(second.sum(), x)  # 3 v v
    by_v = graphc.gradients(first.sum(), v)  # x**2
    weights = np.array([2.0, 3.0, 5.0])
    found = run([first, second, third, by_v], {x: POINTS, v: weights}, device)
    expected = [POINTS**2 * weights, 3 * POINTS * weights**2, 3 * weights**2, POINTS**2]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_what_only_the_rule_reads_is_reached_by_second_derivatives(device: str) -> None:
    w = graphc.parameter(np.array([2.0, 3.0, 4.0]), name="w")
    f = graphc.custom_gradient(graphc.square, lambda g, y, x: g * w * w)
    x = vector()
    y = f(x).sum()
    with pytest.raises(GradientError, match=r"no differentiable path leads to ys from:\n    w"):
        graphc.gradients(y, w)
    slope = graphc.gradients(y, x)
    assert run(graphc.gradients(slope.sum(), w), {x: POINTS}, device).tolist() == [4.0, 6.0, 8.0]
    # minimize takes the same paths: only the penalty depends on w, and through the rule alone.
    update = graphc.optim.SGD(0.5).minimize(y + slope.sum())
    assert next(a.inputs[0] for a in update) is w
    with graphc.Session(device=device) as session:
        session.run(update, {x: POINTS})
        assert session.get(w).tolist() == [0.0, 0.0, 0.0]


def test_saved_for_later_by_the_function(device: str) -> None:
    """A rule may read what the function computed on its way, as PyTorch's save_for_backward has it."""

    class Saved:
        def forward(self, x: Tensor) -> Tensor:
            self.root = graphc.sqrt(x)
            return self.root + 1

        def backward(self, g: Tensor, y: Tensor, x: Tensor) -> Tensor:
            return g * 0.5 / self.root

    saved = Saved()
    x = vector()
    y = graphc.custom_gradient(saved.forward, saved.backward)(x)
    slope = graphc.gradients(y.sum(), x)
    points = np.array([0.25, 1.0, 4.0])
    np.testing.assert_allclose(run(slope, {x: points}, device), 0.5 / np.sqrt(points), rtol=1e-15)
    assert [n.op.name for n in optimize(Graph((y, slope))).nodes].count("sqrt") == 1


# What nobody asks for.


def names(*fetches: Tensor) -> list[str]:
    return [n.op.name for n in expand_gradients(Graph(fetches)).nodes]


def test_gradients_nobody_asked_for_are_not_computed() -> None:
    def rule(g: Tensor, y: Tensor, x: Tensor, w: Tensor) -> Any:
        return graphc.sqrt(g * w), graphc.log(g * x)

    f = graphc.custom_gradient(lambda x, w: graphc.tanh(x * w), rule)
    x, w = vector("x"), vector("w")
    y = f(x, w).sum()
    both, gx, gw = graphc.gradients(y, [x, w]), graphc.gradients(y, x), graphc.gradients(y, w)
    costs = {"sqrt", "log", "tanh"}
    assert costs & set(names(y)) == {"tanh"}
    assert costs & set(names(gx)) == {"sqrt"}  # not even the value, which this rule does not read
    assert costs & set(names(gw)) == {"log"}
    assert costs & set(names(*both)) == {"sqrt", "log"}
    for fetches in ([y], [gx], both):
        left = {n.op for n in expand_gradients(Graph(tuple(fetches))).nodes}
        assert not left & {CUSTOM, RULE_ARGUMENT}


def test_a_rule_that_nobody_needs_needs_nothing(device: str) -> None:
    strength = graphc.placeholder((), dtype="float64", name="strength")
    never = graphc.parameter(graphc.init.ones(), shape=(3,), dtype="float64", name="never")
    same, other = graphc.placeholder(("n",), dtype="float64"), graphc.placeholder(("m",), dtype="float64")
    f = graphc.custom_gradient(lambda x: x * 2, lambda g, y, x: g * strength * never)
    h = graphc.custom_gradient(lambda x: x + 1, lambda g, y, x: g * other)
    x = vector()
    with graphc.Session(device=device) as session:
        y = f(x)
        assert session.run(y, {x: POINTS}).tolist() == (2 * POINTS).tolist()
        assert session.run([y, graphc.gradients(x * x, x, grad_ys=x)], {x: POINTS})[0].tolist() == (2 * POINTS).tolist()
        assert session.run(h(same), {same: [1.0, 2.0]}).tolist() == [2.0, 3.0]
        with pytest.raises(FeedError, match="strength"):
            session.run(graphc.gradients(y.sum(), x), {x: POINTS})
        assert session.run(graphc.gradients(y.sum(), x), {x: POINTS, strength: 3.0}).tolist() == [3.0] * 3
        with pytest.raises(FeedError, match=r"(?s)make them 2 and 3 .*n = 2 from .*m = 3 from"):
            session.run(graphc.gradients(h(same).sum(), same), {same: [1.0, 2.0], other: [1.0, 2.0, 3.0]})


# The other passes.


def test_rewrites_do_not_look_past_the_rule(device: str) -> None:
    """log(softmax(x)) is rewritten, but not when the softmax has a rule of its own."""
    x = vector()
    f = graphc.custom_gradient(lambda x: graphc.softmax(x, axis=0), lambda g, y, x: 5 * g)
    y = graphc.log(f(x)).sum()
    probability = np.exp(POINTS) / np.exp(POINTS).sum()
    value, slope = run([y, graphc.gradients(y, x)], {x: POINTS}, device)
    np.testing.assert_allclose(value, np.log(probability).sum(), rtol=1e-14)
    np.testing.assert_allclose(slope, 5 / probability, rtol=1e-14)


def test_naive_forms_are_stabilised_in_functions_and_in_rules() -> None:
    x = vector()
    f = graphc.custom_gradient(
        lambda x: graphc.log(graphc.softmax(x, axis=0)), lambda g, y, x: g * graphc.log(graphc.softmax(x, axis=0))
    )
    points = np.array([0.0, 1000.0, 2000.0])
    for fetched in run([f(x), graphc.gradients(f(x).sum(), x)], {x: points}, "cpu"):
        assert fetched.tolist() == [-2000.0, -1000.0, 0.0]


def test_the_rule_follows_what_it_reads_through_rewrites(device: str) -> None:
    """The argument is rewritten before gradients are taken; a derivative of the rule must still find it."""
    x = vector()
    inner = graphc.log(graphc.softmax(x, axis=0))
    y = graphc.custom_gradient(lambda u: u * 1, lambda g, y, u: g * u * u)(inner)
    second = graphc.gradients(graphc.gradients(y.sum(), inner).sum(), x)
    p = np.exp(POINTS) / np.exp(POINTS).sum()
    expected = 2 * np.log(p) - p * (2 * np.log(p)).sum()
    np.testing.assert_allclose(run(second, {x: POINTS}, device), expected, rtol=1e-13)


def test_nodes_of_a_rule_say_so() -> None:
    def rule(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
        return g * graphc.sqrt(x)  # the line

    x = vector()
    slope = graphc.gradients(graphc.custom_gradient(graphc.square, rule)(x).sum(), x)
    nodes = optimize(Graph((slope,))).nodes
    (root,) = [n for n in nodes if n.op.name == "sqrt"]
    assert root.role == "backward"
    assert root.where.function == "rule"
    assert {n.role for n in nodes if n.inputs} == {"backward"}


@pytest.mark.parametrize("stage", ["graph", "gradient", "optimized", "kernels"])
def test_pictures(stage: str) -> None:
    f = graphc.custom_gradient(graphc.exp, lambda g, y, x: g * y)
    w = graphc.parameter(graphc.init.ones(), shape=(3,), name="w")
    loss = f(w * 2).sum()
    fetches = [loss, graphc.gradients(loss, w), graphc.optim.SGD(0.1).minimize(loss)]
    for draw in ("dot", "mermaid", "json", "svg", "html"):
        assert getattr(graphc.export, draw)(fetches, stage=stage)
    drawn = {op for _, op in graphc.export.networkx(fetches, stage=stage).nodes(data="op")}
    assert ({"custom_gradient", "rule_argument"} <= drawn) == (stage == "graph")
    assert bool({"custom_gradient", "rule_argument"} & drawn) == (stage == "graph")


def test_deep_chains() -> None:
    f = graphc.custom_gradient(graphc.tanh, lambda g, y, x: g * (1 - y * y))
    x = vector()
    y: Tensor = x
    for _ in range(2000):
        y = f(y)
    first = graphc.gradients(y.sum(), x)
    second = graphc.gradients(first.sum(), x)
    graph = expand_gradients(Graph((y, first, second)))
    # Each function: its value, three nodes of its rule, and what the second sweep makes of these four.
    assert 2000 * 8 < len(graph.nodes) < 2000 * 30
    plain: Tensor = x
    for _ in range(2000):
        plain = graphc.tanh(plain)
    expected = run([graphc.gradients(plain.sum(), x)], {x: POINTS})
    np.testing.assert_allclose(run([first], {x: POINTS}), expected, rtol=1e-9)


# What is refused.


@pytest.mark.parametrize(
    ("forward", "rule", "words"),
    [
        (graphc.exp, lambda g, y, x: (g, g), "the rule <lambda> must return one cotangent (or None) for each of the 1"),
        (graphc.exp, lambda g, y, x: g.sum(), "gives argument 0 float64[] where the argument is float64[3]"),
        (graphc.exp, lambda g, y, x: graphc.expand_dims(g, 0), "float64[1, 3] where the argument is float64[3]"),
        (graphc.exp, lambda g, y, x: g.astype("float32"), "float32[3] where the argument is float64[3]"),
        (graphc.exp, lambda g, y, x: 1.0, "gives argument 0 float 1.0: return a tensor like it, or None\n    x: "),
        (graphc.exp, lambda g, x: g, "is called as rule(g, y, *arguments), here with 1 arguments: too many positional"),
        (graphc.exp, lambda g, y, x, w: g, "missing a required argument: 'w'"),
        (lambda x: 3.0, lambda g, y, x: g, "the function must return a tensor or a tuple of tensors, got float 3.0"),
        (lambda x: (x, None), lambda g, y, x: g, "must return a tensor or a tuple of tensors, got None"),
    ],
)
def test_rules_and_functions_that_do_not_fit(forward: Any, rule: Any, words: str) -> None:
    with pytest.raises(GradientError, match=re.escape(words)) as caught:
        graphc.custom_gradient(forward, rule)(vector())
    assert str(caught.value).startswith("custom_gradient of ")


def test_only_float_tensors_have_a_cotangent() -> None:
    x, label = vector(), graphc.placeholder((3,), dtype="int64", name="label")
    f = graphc.custom_gradient(lambda x, other: x * 2, lambda g, y, x, other: (g, g))
    with pytest.raises(GradientError, match=r"argument 1 a cotangent, and that is float 2.0, which has none"):
        f(x, 2.0)
    with pytest.raises(GradientError, match=r"(?s)argument 1 a cotangent, and only float tensors.*label: placeholder"):
        f(x, label)
    with pytest.raises(GradientError, match="the keyword argument 'other' is a tensor; give tensors by position"):
        f(x, other=x)


def test_a_function_depends_on_its_arguments_alone(device: str) -> None:
    w = graphc.parameter(np.ones(3), name="w")
    x, mask = vector("x"), graphc.placeholder((3,), dtype="bool", name="mask")

    def build(forward: Callable[[Tensor], Tensor]) -> Tensor:
        return graphc.custom_gradient(forward, lambda g, y, x: g)(x)

    hidden = w * 2
    for forward in (lambda x: x * w, lambda x: x + hidden, lambda x: graphc.gradients((x * w).sum(), x)):
        with pytest.raises(GradientError, match=r"(?s)the function depends on w: parameter .*make it an argument, or"):
            build(forward)
    fine = [
        build(lambda x: x * graphc.stop_gradient(w)), build(lambda x: graphc.where(mask, x, 0.0)),
        build(lambda x: x + graphc.constant(POINTS)), build(lambda x: x * (hidden > 0).astype("float64")),
    ]  # fmt: skip
    feeds = {x: POINTS, mask: [True, True, False]}
    for y in fine:
        assert run(graphc.gradients(y.sum(), x), feeds, device).tolist() == [1.0] * 3


def test_what_is_kept_from_a_rule_has_no_value(device: str) -> None:
    kept: list[Tensor] = []

    def rule(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
        kept.append(g)
        return g

    graphc.custom_gradient(graphc.exp, rule)(vector())
    with pytest.raises(ScopeError, match=r"cotangent: rule_argument .* was kept from the rule of a custom_gradient"):
        run(kept[0] * 2, device=device)


@pytest.mark.parametrize("n", [1, 4])
def test_symbolic_extents(device: str, n: int) -> None:
    x = graphc.placeholder(("n", 2), name="x")
    f = graphc.custom_gradient(lambda x: graphc.square(x).sum(axis=1), lambda g, y, x: graphc.expand_dims(g, 1) * x * 3)
    y = f(x)
    value = np.arange(2.0 * n, dtype=np.float32).reshape(n, 2)
    assert run(graphc.gradients(y.sum(), x), {x: value}, device).tolist() == (3 * value).tolist()
