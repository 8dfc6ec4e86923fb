"""Optimisers: steps, learning rates, slots and given gradients. The rules are in test_optim_rules.py."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from graphc.errors import ShapeError, UpdateError

Array = np.ndarray[Any, Any]
EPS = float(np.finfo(np.float32).eps)


@pytest.fixture(params=["reference", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def weight(value: Any, **more: Any) -> graphc.Tensor:
    return graphc.parameter(np.asarray(value, more.pop("dtype", np.float32)), **more)


def targets(update: graphc.Update) -> list[graphc.Tensor]:
    return [assign.inputs[0] for assign in update]


def gradient_steps(
    device: str, optimizer: optim.Optimizer, start: Array, gradients: Iterable[Array]
) -> tuple[Array, list[Any]]:
    """The parameter after one step per given gradient, and the final values of its slots."""
    w = graphc.parameter(start, name="w")
    g = graphc.placeholder(start.shape, dtype=start.dtype)
    update = optimizer.apply([(g, w)])
    slots = [t for t in targets(update) if t is not w]
    with graphc.Session(device=device) as session:
        step = session.compile(update, feeds=[g])
        for value in gradients:
            step(value)
        return session.get(w), [session.get(s) for s in slots]


# Steps.


def test_sgd_is_one_step_downhill(device: str) -> None:
    w, g = np.array([1.0, -2.0, 3.0], np.float32), np.array([0.5, 0.25, -7.0], np.float32)
    found, slots = gradient_steps(device, optim.SGD(0.1), w, [g])
    # Rounded once with a fused multiply-add, twice without.
    assert np.abs(found - (w.astype(np.float64) - 0.1 * g)).max() <= EPS * 4
    assert slots == []


def test_sgd_is_written_so_that_it_can_become_one_gemm() -> None:
    w = weight([[1.0]])
    x = graphc.placeholder((None, 1))
    (assign,) = optim.SGD(0.1).minimize((x @ w).sum())
    assert assign.inputs[0] is w
    difference = assign.inputs[1].node
    assert difference.op.name == "subtract"
    assert difference.inputs[0] is w
    product = difference.inputs[1].node
    assert product.op.name == "multiply"
    assert [t.node.op.name for t in product.inputs] == ["constant", "gradient"]


def test_adams_first_step_is_the_learning_rate(device: str) -> None:
    found, (step, m, v) = gradient_steps(device, optim.Adam(0.25), np.zeros(3, np.float32), [np.float32([4, -1e-3, 0])])
    np.testing.assert_allclose(found, [-0.25, 0.25 / (1 + 1e-5), 0.0], rtol=12 * EPS)
    assert step == 1
    np.testing.assert_allclose(m, [0.4, -1e-4, 0], rtol=4 * EPS)
    np.testing.assert_allclose(v, [0.016, 1e-9, 0], rtol=4 * EPS)


def test_adam_mixes_dtypes(device: str) -> None:
    narrow, wide = weight([1.0], name="narrow"), weight([1.0], dtype=np.float64, name="wide")
    update = optim.Adam(0.1).apply([([3.0], narrow), (np.array([3.0]), wide)])
    with graphc.Session(device=device) as session:
        session.run(update)
        a, b = session.get(narrow), session.get(wide)
    assert (a.dtype, b.dtype) == (np.float32, np.float64)
    assert abs(b[0] - (1 - 0.1 * 3 / (3 + 1e-8))) <= 1e-15
    assert abs(a[0] - 0.9) <= 4 * EPS


def test_linear_regression(device: str) -> None:
    # y = 2x + 1 on 11 points, plain gradient descent: the same as NumPy in double precision.
    x, y = np.arange(11.0).reshape(-1, 1), 2 * np.arange(11.0).reshape(-1, 1) + 1
    px, py = graphc.placeholder((None, 1)), graphc.placeholder((None, 1))
    layer = nn.Linear(1, 1, init=graphc.init.constant(0.5))
    loss = nn.mse_loss(layer(px), py)
    train = optim.SGD(0.01).minimize(loss, layer)
    with graphc.Session(device=device) as session:
        step = session.compile([loss, train], feeds=[px, py])
        losses = [float(step(x, y)[0]) for _ in range(100)]
        w, b = float(session.get(layer.weight)[0, 0]), float(session.get(layer.parameters()[1])[0])
    expected_w, expected_b = 0.5, 0.0
    for _ in range(100):
        error = expected_w * x + expected_b - y
        expected_w, expected_b = expected_w - 0.02 * (error * x).mean(), expected_b - 0.02 * error.mean()
    # The iteration contracts, so rounding does not pile up: a few eps of the largest terms, about 20 in each residual.
    assert abs(w - expected_w) <= 100 * EPS
    assert abs(b - expected_b) <= 200 * EPS
    assert losses[-1] < 0.1 < losses[0]
    assert losses == sorted(losses, reverse=True)


def test_an_empty_batch_changes_nothing_under_a_summed_loss(device: str) -> None:
    x = graphc.placeholder((None, 2))
    w = weight([[1.0], [2.0]])
    train = optim.SGD(0.1).minimize(graphc.square(x @ w).sum())
    with graphc.Session(device=device) as session:
        session.run(train, {x: np.zeros((0, 2), np.float32)})
        assert session.get(w).tolist() == [[1.0], [2.0]]


# Learning rates.


def test_a_learning_rate_may_be_fed_or_computed(device: str) -> None:
    rate = graphc.placeholder((), name="rate")
    w = weight([8.0])
    update = optim.SGD(rate).minimize(w.sum())
    with graphc.Session(device=device) as session:
        session.run(update, {rate: 0.5})
        session.run(update, {rate: 2.0})
        assert session.get(w) == 8 - 0.5 - 2.0


def test_a_float64_rate_serves_float32_parameters(device: str) -> None:
    rate = graphc.parameter(np.float64(0.5), trainable=False)
    for optimizer in (optim.SGD(rate), optim.Momentum(rate), optim.Adam(rate, epsilon=0.0)):
        w = weight([8.0])
        update = optimizer.minimize(w.sum())
        with graphc.Session(device=device) as session:
            session.run(update)
            assert session.get(w).dtype == np.float32
            assert abs(session.get(w)[0] - 7.5) <= 8 * EPS


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "0.1", None, True, np.array([0.1])])
def test_a_learning_rate_is_a_number(value: Any) -> None:
    with pytest.raises(UpdateError, match=r"Adam: learning_rate must be a number, at least 0, got"):
        optim.Adam(value)


def test_a_learning_rate_tensor_is_a_float_scalar() -> None:
    for bad in (graphc.placeholder((1,)), graphc.placeholder((), dtype="int64")):
        with pytest.raises(UpdateError, match="SGD: learning_rate must be a number or a float scalar, got placeholder"):
            optim.SGD(bad)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: optim.Adam(beta1=1.0), "Adam: beta1 must be a number, at least 0 and less than 1, got 1.0"),
        (lambda: optim.Adam(beta2=-0.1), "Adam: beta2 must be"),
        (lambda: optim.Adam(epsilon=-1e-8), "Adam: epsilon must be a number, at least 0"),
        (lambda: optim.Momentum(0.1, momentum=1.5), "Momentum: momentum must be"),
        (lambda: optim.SGD(0.1, weight_decay=-1.0), "SGD: weight_decay must be a number, at least 0"),
        (lambda: optim.RMSprop(alpha=1.0), "RMSprop: alpha must be"),
        (lambda: optim.Adagrad(decay=math.nan), "Adagrad: decay must be"),
        (lambda: optim.Adagrad(initial_sum=weight(1.0, name="w")), "initial_sum must be a number, .* got w: parameter"),
        (lambda: optim.Adadelta(rho="0.9"), "Adadelta: rho must be a number, .* got '0.9'"),
        (lambda: optim.Lion(beta2=2), "Lion: beta2 must be"),
    ],
)
def test_other_settings_are_checked(make: Any, words: str) -> None:
    with pytest.raises(UpdateError, match=words):
        make()


# Slots.


def test_slots_are_parameters_named_after_theirs(device: str) -> None:
    layer = nn.Linear(2, 1, name="layer")
    loss = layer(graphc.placeholder((None, 2), name="x")).sum()
    update = optim.Adam().minimize(loss)
    by_name = {t.name: t for t in targets(update)}
    assert set(by_name) == {
        "layer.weight", "layer.weight/adam_m", "layer.weight/adam_v", "layer.weight/step",
        "layer.bias", "layer.bias/adam_m", "layer.bias/adam_v",
    }  # fmt: skip
    slots = [t for name, t in by_name.items() if "/" in name]
    assert not any(t.node.attrs["trainable"] for t in slots)
    assert by_name["layer.weight/adam_v"].shape == (2, 1)
    with graphc.Session(device=device) as session:
        session.run(update, {"x": [[1.0, 2.0]]})
        assert session.get("layer.weight/step") == 1
        assert session.get("layer.bias/adam_m") == pytest.approx(0.1, rel=2 * EPS)


KEPT = {
    "Momentum": ["momentum"],
    "AdamW": ["step", "adamw_m", "adamw_v"],
    "RMSprop": ["rmsprop_square"],
    "Adagrad": ["adagrad_sum"],
    "Adadelta": ["adadelta_square", "adadelta_delta"],
    "Lion": ["lion_m"],
}


@pytest.mark.parametrize("name", KEPT)
def test_training_goes_on_from_saved_slots(device: str, name: str, tmp_path: Path) -> None:
    w = weight([1.0, -2.0, 3.0], name="w")
    update = getattr(optim, name)(0.125).minimize(graphc.square(w).sum())
    assert {t.name for t in targets(update)} == {"w", *(f"w/{kind}" for kind in KEPT[name])}
    with graphc.Session(device=device) as session:
        step = session.compile(update)
        for _ in range(3):
            step()
        session.save(tmp_path / "state.safetensors")
        for _ in range(3):
            step()
        expected = {t.name: session.get(t) for t in targets(update)}
    with graphc.Session(device=device) as session:
        session.load(tmp_path / "state.safetensors")
        for _ in range(3):
            session.run(update)
        assert all((session.get(name) == value).all() for name, value in expected.items())


def test_each_minimize_has_slots_of_its_own(device: str) -> None:
    w = weight(1.0, name="w")
    adam = optim.Adam(0.5)
    first, second = adam.minimize(w * w), adam.minimize(-w)
    names = [t.name for t in targets(second)]
    assert [re.sub(r"_2$", "", n) for n in names] == [t.name for t in targets(first)]
    assert not {t.name for t in targets(first)} & {n for n in names if n != "w"}
    with graphc.Session(device=device) as session:
        session.run(first)
        session.run(second)
        # Both are first steps, one down and one up.
        assert session.get(w) == pytest.approx(1.0, abs=4 * EPS)
        with pytest.raises(UpdateError, match="'w' is assigned twice"):
            session.run([first, second])


def test_a_run_that_does_not_fetch_the_update_leaves_everything(device: str) -> None:
    w = weight(1.0, name="w")
    loss = w * w
    optim.Adam(0.5).minimize(loss)
    with graphc.Session(device=device) as session:
        session.run(loss)
        assert session.get(w) == 1.0


# Given gradients.


def test_apply_takes_changed_gradients(device: str) -> None:
    w = weight([3.0, -4.0])
    (g,) = graphc.gradients(graphc.square(w).sum(), [w])
    clipped = g / graphc.maximum(graphc.sqrt(graphc.square(g).sum()), 1.0)
    update = optim.SGD(1.0).apply([(clipped, w)])
    with graphc.Session(device=device) as session:
        session.run(update)
        np.testing.assert_allclose(session.get(w), [3 - 0.6, -4 + 0.8], rtol=4 * EPS)


def test_apply_refuses_what_does_not_fit() -> None:
    w, sgd = weight([1.0, 2.0], name="w"), optim.SGD(0.1)
    with pytest.raises(
        ShapeError, match=r"(?s)a gradient must have the shape of its parameter.*w: parameter float32\[2\]"
    ):
        sgd.apply([(graphc.placeholder((3,)), w)])
    with pytest.raises(ShapeError, match="must have the shape"):
        sgd.apply([(1.0, w)])
    with pytest.raises(ShapeError, match="must have the shape"):
        sgd.apply([(graphc.placeholder((1,)), w)])
    with pytest.raises(UpdateError, match=r"expected \(gradient, parameter\) pairs"):
        sgd.apply([w])  # type: ignore[list-item]
    with pytest.raises(UpdateError, match="only parameters can be updated, got placeholder"):
        sgd.apply([(w, graphc.placeholder((2,)))])
    with pytest.raises(UpdateError, match="'w' is assigned twice"):
        sgd.apply([(w, w), (w, w)])
    with pytest.raises(UpdateError, match=r"SGD\.apply: no gradients were given"):
        sgd.apply([])


def test_a_new_optimizer_is_a_subclass(device: str) -> None:
    class SignDescent(optim.Optimizer):
        def updates(self, step: optim.Step, pairs: optim.Pairs) -> Iterable[graphc.Update]:
            return [graphc.assign(w, w - step.rate(w.dtype) * graphc.sign(g)) for g, w in pairs]

    w = weight([3.0, -4.0])
    update = SignDescent(0.5).minimize(graphc.square(w).sum())
    with graphc.Session(device=device) as session:
        session.run(update)
        assert session.get(w).tolist() == [2.5, -3.5]
    with pytest.raises(NotImplementedError, match="Optimizer has no updates method"):
        optim.Optimizer(0.1).minimize(w.sum())
