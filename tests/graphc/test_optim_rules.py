"""Each optimiser's rule against its definition, written out in NumPy in double precision, over several steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import optim

Array = np.ndarray[Any, Any]
Rule = Callable[[Array, Sequence[Array], Sequence[float], float], Array]
STEPS = 30


@pytest.fixture(params=["reference", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# The definitions: parameters after steps along the gradients, at these rates, with this weight decay.


def sgd(w: Array, grads: Sequence[Array], rates: Sequence[float], decay: float) -> Array:
    for g, rate in zip(grads, rates, strict=True):
        w = w - rate * (g + decay * w)
    return w


def momentum(nesterov: bool) -> Rule:
    def rule(w: Array, grads: Sequence[Array], rates: Sequence[float], decay: float) -> Array:
        buffer = np.zeros_like(w)
        for given, rate in zip(grads, rates, strict=True):
            g = given + decay * w
            buffer = 0.8 * buffer + g
            w = w - rate * (g + 0.8 * buffer if nesterov else buffer)
        return w

    return rule


def adam(decoupled: bool, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> Rule:
    def rule(w: Array, grads: Sequence[Array], rates: Sequence[float], decay: float) -> Array:
        m, v = np.zeros_like(w), np.zeros_like(w)
        for t, (given, rate) in enumerate(zip(grads, rates, strict=True), 1):
            g = given if decoupled else given + decay * w
            w = w - rate * decay * w if decoupled else w
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g**2
            w = w - rate * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + epsilon)
        return w

    return rule


def rmsprop(centered: bool, factor: float) -> Rule:
    def rule(w: Array, grads: Sequence[Array], rates: Sequence[float], decay: float) -> Array:
        square, mean, buffer = (np.zeros_like(w) for _ in range(3))
        for given, rate in zip(grads, rates, strict=True):
            g = given + decay * w
            square = 0.99 * square + 0.01 * g**2
            mean = 0.99 * mean + 0.01 * g
            average = np.sqrt(square - mean**2 if centered else square) + 1e-8
            buffer = factor * buffer + g / average
            w = w - rate * buffer
        return w

    return rule


def adagrad(slowing: float, start: float) -> Rule:
    def rule(w: Array, grads: Sequence[Array], rates: Sequence[float], decay: float) -> Array:
        total = np.full_like(w, start)
        for t, (given, rate) in enumerate(zip(grads, rates, strict=True), 1):
            g = given + decay * w
            total = total + g**2
            w = w - rate / (1 + (t - 1) * slowing) * g / (np.sqrt(total) + 1e-10)
        return w

    return rule


def adadelta(w: Array, grads: Sequence[Array], rates: Sequence[float], decay: float) -> Array:
    square, moved = np.zeros_like(w), np.zeros_like(w)
    for given, rate in zip(grads, rates, strict=True):
        g = given + decay * w
        square = 0.9 * square + 0.1 * g**2
        delta = np.sqrt(moved + 1e-6) / np.sqrt(square + 1e-6) * g
        moved = 0.9 * moved + 0.1 * delta**2
        w = w - rate * delta
    return w


def lion(w: Array, grads: Sequence[Array], rates: Sequence[float], decay: float) -> Array:
    m = np.zeros_like(w)
    for g, rate in zip(grads, rates, strict=True):
        c = 0.9 * m + 0.1 * g
        assert np.abs(c).min() > 1e-4  # or rounding decides the sign
        w = w - rate * (np.sign(c) + decay * w)
        m = 0.99 * m + 0.01 * g
    return w


RULES: dict[str, tuple[Callable[..., optim.Optimizer], Rule]] = {
    "SGD": (optim.SGD, sgd),
    "Momentum": (lambda rate, **o: optim.Momentum(rate, 0.8, **o), momentum(False)),
    "Nesterov": (lambda rate, **o: optim.Momentum(rate, 0.8, nesterov=True, **o), momentum(True)),
    "Adam": (optim.Adam, adam(False)),
    "Adam, other settings": (lambda rate, **o: optim.Adam(rate, 0.5, 0.9, 1e-2, **o), adam(False, 0.5, 0.9, 1e-2)),
    "Adam, no memory": (lambda rate, **o: optim.Adam(rate, 0.0, 0.0, 1e-3, **o), adam(False, 0.0, 0.0, 1e-3)),
    "AdamW": (optim.AdamW, adam(True)),
    "RMSprop": (optim.RMSprop, rmsprop(False, 0.0)),
    "RMSprop, momentum": (lambda rate, **o: optim.RMSprop(rate, momentum=0.7, **o), rmsprop(False, 0.7)),
    "RMSprop, centered": (lambda rate, **o: optim.RMSprop(rate, centered=True, **o), rmsprop(True, 0.0)),
    "RMSprop, both": (lambda rate, **o: optim.RMSprop(rate, momentum=0.7, centered=True, **o), rmsprop(True, 0.7)),
    "Adagrad": (optim.Adagrad, adagrad(0.0, 0.0)),
    "Adagrad, decay": (lambda rate, **o: optim.Adagrad(rate, 0.25, 0.5, **o), adagrad(0.25, 0.5)),
    "Adadelta": (optim.Adadelta, adadelta),
    "Lion": (optim.Lion, lion),
}


def numbers(dtype: str = "float64") -> tuple[Array, list[Array]]:
    """A parameter, and a gradient for each step, around 1."""
    rng = np.random.default_rng(0)
    grads = rng.standard_normal((STEPS, 5)) + rng.choice([-1, 1], 5)
    return rng.standard_normal(5).astype(dtype), list(grads.astype(dtype))


def after(device: str, optimizer: optim.Optimizer, start: Array, grads: Iterable[Array], **feeds: float) -> Array:
    """The parameter after one step along each gradient."""
    w = graphc.parameter(start, name="w")
    g = graphc.placeholder(start.shape, dtype=start.dtype, name="g")
    update = optimizer.apply([(g, w)])
    with graphc.Session(device=device) as session:
        for value in grads:
            session.run(update, {g: value, **feeds})
        return np.asarray(session.get(w))


def closeness(dtype: str, rates: Sequence[float]) -> float:
    """Gradients are given, so errors only add up: those of 30 steps, each of at most about 6 rates (momentum gathers
    that much) with what it was computed from, averages that carry a rounding or two from every step before.
    """
    return float(np.finfo(dtype).eps) * sum(6 * rate * (2 * t + 10) for t, rate in enumerate(rates)) + 30 * float(
        np.finfo(dtype).eps
    )


@pytest.mark.parametrize("decay", [0.0, 0.125])
@pytest.mark.parametrize("name", RULES)
def test_rule_in_double_precision(device: str, name: str, decay: float) -> None:
    make, rule = RULES[name]
    w, grads = numbers()
    found = after(device, make(0.0625, weight_decay=decay), w, grads)
    rates = [0.0625] * STEPS
    assert np.abs(found - rule(w, grads, rates, decay)).max() <= closeness("float64", rates)


@pytest.mark.parametrize("name", RULES)
def test_rule_in_single_precision(device: str, name: str) -> None:
    make, rule = RULES[name]
    w, grads = numbers("float32")
    found = after(device, make(0.0625, weight_decay=0.125), w, grads)
    rates = [0.0625] * STEPS
    expected = rule(w.astype(np.float64), [g.astype(np.float64) for g in grads], rates, 0.125)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= closeness("float32", rates)


@pytest.mark.parametrize("name", RULES)
def test_rule_with_a_schedule_and_with_tensors(device: str, name: str) -> None:
    make, rule = RULES[name]
    w, grads = numbers()
    decay = graphc.placeholder((), dtype="float64", name="decay")
    schedule = optim.schedules.warmup(5, optim.schedules.cosine(0.0625, 20, end=0.01))
    rates = [0.0625 * t / 5 for t in range(5)]
    rates += [0.01 + 0.0525 * (1 + math.cos(math.pi * min(t, 20) / 20)) / 2 for t in range(25)]
    found = after(device, make(schedule, weight_decay=decay), w, grads, decay=0.125)
    assert np.abs(found - rule(w, grads, rates, 0.125)).max() <= closeness("float64", rates)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda p: optim.Momentum(0.0625, p(0.8)), momentum(False)),
        (lambda p: optim.Adam(0.0625, p(0.5), p(0.9), p(1e-2)), adam(False, 0.5, 0.9, 1e-2)),
        (lambda p: optim.AdamW(0.0625, p(0.9), p(0.0), p(1e-3), weight_decay=p(0.0)), adam(True, 0.9, 0.0, 1e-3)),
        (lambda p: optim.RMSprop(0.0625, p(0.99), p(1e-8), p(0.7)), rmsprop(False, 0.7)),
        (lambda p: optim.Adagrad(0.0625, p(0.25), 0.5, p(1e-10)), adagrad(0.25, 0.5)),
        (lambda p: optim.Adadelta(0.0625, p(0.9), p(1e-6)), adadelta),
        (lambda p: optim.Lion(0.0625, p(0.9), p(0.99)), lion),
    ],
)
def test_every_hyperparameter_may_be_a_tensor(device: str, make: Any, rule: Rule) -> None:
    w, grads = numbers()
    optimizer = make(lambda value: graphc.parameter(np.float64(value), trainable=False))
    rates = [0.0625] * STEPS
    # 1 - 0.9 is taken in the dtype of the tensor, here double precision as well.
    assert np.abs(after(device, optimizer, w, grads) - rule(w, grads, rates, 0.0)).max() <= closeness("float64", rates)


def test_centered_rmsprop_survives_a_constant_gradient(device: str) -> None:
    """The variance of a constant gradient is 0 in the long run, and in floating point now and then below."""
    w = graphc.parameter(np.zeros(64, np.float32), name="w")
    constant = np.linspace(0.1, 1.0, 64, dtype=np.float32)
    update = optim.RMSprop(1e-3, alpha=0.5, centered=True, epsilon=1e-3).apply([(constant, w)])
    with graphc.Session(device=device) as session:
        step = session.compile(update)
        for _ in range(100):
            step()
        square, mean = session.get("w/rmsprop_square"), session.get("w/rmsprop_mean")
        assert (square - mean * mean <= 0).any()
        assert np.isfinite(session.get(w)).all()


@pytest.mark.parametrize("done", [0, 1, 9, 999, 30_000, 999_999, 2**24 + 1, 10**12])
def test_adam_corrects_its_bias_precisely_at_any_step(device: str, done: int) -> None:
    w, g = graphc.parameter(np.zeros(1, np.float32), name="w"), graphc.placeholder((1,))
    update = optim.Adam(1.0, epsilon=1e-3).apply([(g, w)])
    with graphc.Session(device=device) as session:
        session.compile(update)
        session.set("w/step", done)
        session.set("w/adam_m", [0.25])
        session.set("w/adam_v", [0.5])
        session.run(update, {g: [0.0]})
        found = float(session.get(w)[0])
        assert session.get("w/step") == done + 1
    t = done + 1
    m = 0.9 * 0.25 / (1 - 0.9**t)
    v = 0.999 * 0.5 / -math.expm1(t * math.log(0.999))
    # About a dozen roundings; 1 - 0.999**t in float32 would err by 6e-5 at the first step.
    assert abs(found / -(m / (math.sqrt(v) + 1e-3)) - 1) <= 12 * np.finfo(np.float32).eps


@pytest.mark.parametrize("name", RULES)
def test_one_kernel_updates_one_parameter(name: str) -> None:
    """All that is done to a parameter and its slots is one loop; scalars that all share may be one more."""
    make, _ = RULES[name]
    weights = [graphc.parameter(graphc.init.ones(), shape=(n, 3), name=f"w{n}") for n in (2, 3, 4)]
    grads = [graphc.placeholder(w.shape, name=f"g{w.name}") for w in weights]
    update = make(0.1, weight_decay=0.5).apply(zip(grads, weights, strict=True))
    with graphc.Session() as session:
        kernels = session.compile(update).kernels
        assert sum(any(n.results[0].shape for n in k.nodes) for k in kernels) == 3
        assert len(kernels) <= 4
