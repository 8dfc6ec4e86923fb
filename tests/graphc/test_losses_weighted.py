"""Losses in all their forms against NumPy transcriptions of PyTorch's formulas, and their gradients against
differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from scipy import special

import graphc
from graphc import nn
from graphc.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError

Array = np.ndarray[Any, Any]
EPS = float(np.finfo(np.float32).eps)
STEP = float(np.finfo(np.float64).eps) ** (1 / 3)
REDUCTIONS = ("none", "sum", "mean")


@pytest.fixture(params=["reference", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def evaluate(device: str, fetches: Any, feeds: dict[Any, Any] | None = None) -> Any:
    with graphc.Session(device=device) as session:
        return session.run(fetches, feeds or {})


def reduce(each: Array, reduction: str) -> Any:
    return each if reduction == "none" else each.sum() if reduction == "sum" else each.mean()


def check_gradient(loss: Callable[..., graphc.Tensor], arrays: Sequence[Array], wrt: int = 0) -> None:
    """The gradient of the summed loss against central differences in float64, as in tests/registry."""
    inputs = [graphc.placeholder(a.shape, dtype=a.dtype) for a in arrays]
    target = loss(*inputs)
    target = target.sum() if target.ndim else target
    slope = graphc.gradients(target, inputs[wrt])
    with graphc.Session(device="reference") as session:
        feeds = dict(zip(inputs, arrays, strict=True))
        found = session.run(slope, feeds)
        for place in np.ndindex(arrays[wrt].shape):
            ends = []
            for sign in (1, -1):
                moved = arrays[wrt].copy()
                moved[place] += sign * STEP
                ends.append(float(session.run(target, {**feeds, inputs[wrt]: moved})))
            numeric = (ends[0] - ends[1]) / (2 * STEP)
            assert abs(found[place] - numeric) <= 200 * STEP**2 * (1 + abs(ends[0]) + abs(numeric)), place


def agree(device: str, loss: graphc.Tensor, feeds: dict[Any, Any], expected: Any, units: float = 16) -> None:
    found = evaluate(device, loss, feeds)
    np.testing.assert_allclose(found, expected, rtol=units * EPS, atol=units * EPS)
    assert np.asarray(found).dtype == np.float32
    assert np.shape(found) == np.shape(expected)


# Differences of two tensors.


def rng(seed: int = 5) -> np.random.Generator:
    return np.random.default_rng(seed)


LEFT = rng(1).standard_normal((4, 3)).astype(np.float32)
RIGHT = (LEFT + rng(2).standard_normal((4, 3)) * 1.5).astype(np.float32)


def huber64(d: Array, delta: float) -> Array:
    size = np.abs(d.astype(np.float64))
    return np.where(size < delta, size**2 / 2, delta * (size - delta / 2))


PAIRED: list[tuple[str, Callable[..., graphc.Tensor], Callable[[Array, Array], Array]]] = [
    ("mse", nn.mse_loss, lambda a, b: (a - b) ** 2),
    ("l1", nn.l1_loss, lambda a, b: np.abs(a - b)),
    ("huber", nn.huber_loss, lambda a, b: huber64(a - b, 1.0)),
    ("huber of 2", lambda a, b, **k: nn.huber_loss(a, b, delta=2.0, **k), lambda a, b: huber64(a - b, 2.0)),
    ("smooth l1", nn.smooth_l1_loss, lambda a, b: huber64(a - b, 1.0)),
    (
        "smooth l1 of 0.5",
        lambda a, b, **k: nn.smooth_l1_loss(a, b, beta=0.5, **k),
        lambda a, b: huber64(a - b, 0.5) / 0.5,
    ),
    ("smooth l1 of 0", lambda a, b, **k: nn.smooth_l1_loss(a, b, beta=0, **k), lambda a, b: np.abs(a - b)),
]


@pytest.mark.parametrize(("name", "loss", "formula"), PAIRED, ids=[p[0] for p in PAIRED])
def test_paired_losses(device: str, name: str, loss: Any, formula: Any) -> None:
    a, b = graphc.placeholder((None, 3)), graphc.placeholder((None, 3))
    each = formula(LEFT.astype(np.float64), RIGHT.astype(np.float64))
    for reduction in REDUCTIONS:
        agree(device, loss(a, b, reduction=reduction), {a: LEFT, b: RIGHT}, reduce(each, reduction))
    agree(device, loss(a, b), {a: LEFT, b: RIGHT}, each.mean())
    for wrt in (0, 1):
        check_gradient(loss, [LEFT.astype(np.float64), RIGHT.astype(np.float64)], wrt)


@pytest.mark.parametrize("loss", [nn.huber_loss, nn.smooth_l1_loss])
def test_large_errors_have_the_slope_of_their_sign(device: str, loss: Any) -> None:
    """Their square overflows; the branch that is not chosen must not reach the gradient as 0 * inf."""
    x = graphc.placeholder((6,))
    value = loss(x, graphc.constant(np.zeros(6, np.float32)), reduction="none")
    feed = np.array([1e20, -1e30, 3e38, -3e38, np.inf, 0.0], np.float32)
    found, slope = evaluate(device, [value, graphc.gradients(value.sum(), x)], {x: feed})
    np.testing.assert_allclose(found, np.abs(feed), rtol=1e-6)
    assert slope.tolist() == [1, -1, 1, -1, 1, 0]


def test_nan_stays_nan(device: str) -> None:
    x = graphc.placeholder(())
    one = graphc.constant(1.0)
    losses = [
        nn.mse_loss(x, one), nn.l1_loss(x, one), nn.huber_loss(x, one), nn.smooth_l1_loss(x, one), nn.kl_div(x, one),
        nn.kl_div(one, x), nn.binary_cross_entropy(x, one), nn.binary_cross_entropy_with_logits(x, one),
        nn.hinge_embedding_loss(x, one), nn.hinge_embedding_loss(x, -one),
    ]  # fmt: skip
    assert np.isnan(evaluate(device, losses, {x: np.nan})).all()


# Kullback-Leibler divergence.


@pytest.mark.parametrize("logarithms", [False, True])
def test_kl_div(device: str, logarithms: bool) -> None:
    target = rng(3).dirichlet(np.ones(4), 5).astype(np.float32)
    target[0, 1] = target[2, 3] = 0
    score = np.log(rng(4).dirichlet(np.ones(4), 5)).astype(np.float32)
    score[0, 1] = -np.inf  # both are 0 there
    x, t = graphc.placeholder((None, 4)), graphc.placeholder((None, 4))
    with np.errstate(divide="ignore"):
        fed = np.log(target) if logarithms else target
    with np.errstate(invalid="ignore"):
        each = special.xlogy(target, target.astype(np.float64)) - np.where(target == 0, 0, target * score.astype(float))
    feeds = {x: score, t: fed}
    for reduction in REDUCTIONS:
        loss = nn.kl_div(x, t, reduction=reduction, log_target=logarithms)
        agree(device, loss, feeds, reduce(each, reduction))
    loss = nn.kl_div(x, t, reduction="batchmean", log_target=logarithms)
    agree(device, loss, feeds, each.sum() / 5)
    slopes = evaluate(device, graphc.gradients(loss, [x, t]), feeds)
    assert all(np.isfinite(s).all() for s in slopes)
    np.testing.assert_allclose(slopes[0], -target / 5, rtol=4 * EPS, atol=EPS)


def test_gradients_of_kl_div() -> None:
    p, q = rng(3).dirichlet(np.ones(3), 2), np.log(rng(4).dirichlet(np.ones(3), 2))
    for wrt in (0, 1):
        check_gradient(nn.kl_div, [q, p], wrt)
        check_gradient(lambda a, b: nn.kl_div(a, b, log_target=True), [q, np.log(p)], wrt)


# Cosine and hinge.


def test_cosine_similarity(device: str) -> None:
    x, y = graphc.placeholder((4, 3)), graphc.placeholder((4, 3))
    left, right = LEFT.copy(), RIGHT.copy()
    left[0] = 0
    wide, other = left.astype(np.float64), right.astype(np.float64)
    sizes = [np.maximum(np.linalg.norm(v, axis=1), 1e-8) for v in (wide, other)]
    expected = (wide * other).sum(1) / (sizes[0] * sizes[1])
    value = nn.cosine_similarity(x, y)
    found, slope = evaluate(device, [value, graphc.gradients(value.sum(), x)], {x: left, y: right})
    np.testing.assert_allclose(found, expected, rtol=16 * EPS, atol=16 * EPS)
    assert np.isfinite(slope).all()
    check_gradient(nn.cosine_similarity, [LEFT.astype(np.float64), RIGHT.astype(np.float64)])
    along = evaluate(device, nn.cosine_similarity(x.T, graphc.constant(right[:1].T), 0), {x: left})
    np.testing.assert_allclose(along, (wide @ other[0]) / (sizes[0] * sizes[1][0]), rtol=16 * EPS, atol=16 * EPS)


def test_cosine_and_hinge_embedding_loss(device: str) -> None:
    sign = np.array([1, -1, -1, 1], np.int64)
    x, y, t = graphc.placeholder((4, 3)), graphc.placeholder((4, 3)), graphc.placeholder((4,), dtype="int64")
    wide, other = LEFT.astype(np.float64), RIGHT.astype(np.float64)
    cosine = (wide * other).sum(1) / np.linalg.norm(wide, axis=1) / np.linalg.norm(other, axis=1)
    each = np.where(sign == 1, 1 - cosine, np.maximum(0, cosine - 0.2))
    for reduction in REDUCTIONS:
        loss = nn.cosine_embedding_loss(x, y, t, margin=0.2, reduction=reduction)
        agree(device, loss, {x: LEFT, y: RIGHT, t: sign}, reduce(each, reduction))
    distance = np.array([0.3, 0.4, 2.0, 0.1], np.float32)
    d = graphc.placeholder((4,))
    each = np.where(sign == 1, distance, np.maximum(0, 1.5 - distance.astype(np.float64)))
    loss = nn.hinge_embedding_loss(d, t, margin=1.5, reduction="none")
    agree(device, loss, {d: distance, t: sign}, each)
    assert evaluate(device, graphc.gradients(loss.sum(), d), {d: distance, t: sign}).tolist() == [1, -1, 0, 1]


# Cross entropy with weights, ignored labels and smoothing: PyTorch's cross_entropy_loss, transcribed.

LOGITS = (2 * rng().standard_normal((6, 4, 5))).astype(np.float32)
WEIGHT = np.array([0.5, 2.0, 1.0, 0.0], np.float32)


def cross_entropy64(
    logits: Array, labels: Array, weight: Array, ignored: int | None, smoothing: float, reduction: str
) -> Any:
    """For logits of shape (n, classes, m) and labels of shape (n, m)."""
    each = special.log_softmax(logits.astype(np.float64), axis=1)
    kept = np.ones(labels.shape, bool) if ignored is None else labels != ignored
    safe = np.where(kept, labels, 0)
    w = weight.astype(np.float64)
    share = np.where(kept, w[safe], 0)
    nll = -np.take_along_axis(each, safe[:, None], 1)[:, 0] * share
    smooth = np.where(kept, -(each * w[:, None]).sum(1), 0)
    total = (1 - smoothing) * nll + smoothing / logits.shape[1] * smooth
    if reduction == "none":
        return total
    return total.sum() if reduction == "sum" else total.sum() / share.sum()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("ignored", [None, 2, -100])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_of_classes(
    device: str, weighted: bool, ignored: int | None, smoothing: float, reduction: str
) -> None:
    labels = rng(8).integers(0, 4, (6, 5))
    if ignored == -100:
        labels[1, 2:] = labels[4] = -100
    weight = WEIGHT if weighted else np.ones(4, np.float32)
    x, y = graphc.placeholder((None, 4, 5)), graphc.placeholder((None, 5), dtype="int64")
    loss = nn.cross_entropy(
        x, y, axis=1, weight=weight if weighted else None, ignore_index=ignored, label_smoothing=smoothing,
        reduction=reduction,
    )  # fmt: skip
    expected = cross_entropy64(LOGITS, labels, weight, ignored, smoothing, reduction)
    agree(device, loss, {x: LOGITS, y: labels}, expected, units=64)
    if smoothing == 0:
        same = nn.nll_loss(
            nn.log_softmax(x, 1), y, axis=1, weight=weight if weighted else None, ignore_index=ignored,
            reduction=reduction,
        )  # fmt: skip
        agree(device, same, {x: LOGITS, y: labels}, expected, units=64)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_of_probabilities(device: str, smoothing: float, reduction: str) -> None:
    labels = rng().dirichlet(np.ones(4), (6, 5)).transpose(0, 2, 1).astype(np.float32)
    x, y = graphc.placeholder((None, 4, 5)), graphc.placeholder((None, 4, 5))
    loss = nn.cross_entropy(x, y, axis=1, weight=WEIGHT, label_smoothing=smoothing, reduction=reduction)
    smoothed = labels * (1 - smoothing) + smoothing / 4
    each = special.log_softmax(LOGITS.astype(np.float64), axis=1)
    samples = -(each * smoothed * WEIGHT[:, None]).sum(1)
    agree(device, loss, {x: LOGITS, y: labels}, reduce(samples, reduction), units=64)


def test_gradients_of_weighted_cross_entropy() -> None:
    logits = LOGITS[:3, :, 0].astype(np.float64)
    labels = np.array([1, 3, 2])
    for reduction in REDUCTIONS:
        check_gradient(
            lambda x, y, r=reduction: nn.cross_entropy(
                x, y, weight=WEIGHT.astype(np.float64), ignore_index=2, label_smoothing=0.2, reduction=r
            ),
            [logits, labels],
        )
        check_gradient(
            lambda x, y, r=reduction: nn.cross_entropy(x, y, weight=WEIGHT.astype(np.float64), reduction=r),
            [logits, special.softmax(logits, -1)],
            1,
        )


def test_symbolic_classes_are_smoothed_and_weighted(device: str) -> None:
    x, y = graphc.placeholder((None, "classes")), graphc.placeholder((None,), dtype="int64")
    w = graphc.placeholder(("classes",))
    loss = nn.cross_entropy(x, y, weight=w, label_smoothing=0.1)
    labels = np.array([0, 1, 2, 1])
    expected = cross_entropy64(LOGITS[:4, :, :1], labels[:, None], WEIGHT, None, 0.1, "mean")
    agree(device, loss, {x: LOGITS[:4, :, 0], y: labels, w: WEIGHT}, expected, units=64)


def test_ignored_samples_alone(device: str) -> None:
    x, y = graphc.placeholder((2, 3)), graphc.placeholder((2,), dtype="int64")
    losses = [nn.cross_entropy(x, y, ignore_index=-1, reduction=r) for r in ("mean", "sum")]
    slope = graphc.gradients(losses[1], x)
    mean, total, found = evaluate(device, [*losses, slope], {x: np.ones((2, 3), np.float32), y: [-1, -1]})
    assert np.isnan(mean)
    assert total == 0
    assert (found == 0).all()
    with pytest.raises(IndexRangeError, match="found -1"):
        evaluate(device, nn.cross_entropy(x, y), {x: np.ones((2, 3), np.float32), y: [-1, 0]})


def test_bad_arguments_of_cross_entropy() -> None:
    x, y = graphc.placeholder((2, 3), name="x"), graphc.placeholder((2,), dtype="int64")
    with pytest.raises(ArgumentError, match=r"label_smoothing must be from 0 to 1, got 1\.5"):
        nn.cross_entropy(x, y, label_smoothing=1.5)
    with pytest.raises(ShapeError, match=r"(?s)weight needs one number for each class: expected \(3,\), got \(2,\)"):
        nn.cross_entropy(x, y, weight=[1.0, 2.0])
    with pytest.raises(ShapeError, match=r"expected \(3,\), got \(\)"):
        nn.cross_entropy(x, y, weight=1.0)
    with pytest.raises(ArgumentError, match="ignore_index names an integer label"):
        nn.cross_entropy(x, nn.softmax(x), ignore_index=0)
    with pytest.raises(DTypeError, match="labels must be integers"):
        nn.nll_loss(x, nn.softmax(x))
    with pytest.raises(ShapeError, match="nll_loss: integer labels have the shape of log_probabilities"):
        nn.nll_loss(x, x.astype("int64"))


# Binary cross entropy.


def bce64(x: Array, z: Array, positive: float | Array = 1.0) -> Array:
    wide = x.astype(np.float64)
    return positive * z * np.logaddexp(0, -wide) + (1 - z) * np.logaddexp(0, wide)


def test_binary_cross_entropy_with_logits(device: str) -> None:
    z = rng().uniform(0, 1, (4, 3)).astype(np.float32)
    z[0], z[1] = 0, 1
    positive, weight = np.array([2.0, 0.5, 1.0], np.float32), rng(6).uniform(0.5, 2, (4, 3)).astype(np.float32)
    x, t = graphc.placeholder((None, 3)), graphc.placeholder((None, 3))
    each = bce64(LEFT, z.astype(np.float64))
    for reduction in REDUCTIONS:
        loss = nn.binary_cross_entropy_with_logits(x, t, reduction=reduction)
        agree(device, loss, {x: LEFT, t: z}, reduce(each, reduction))
    loss = nn.binary_cross_entropy_with_logits(x, t, pos_weight=positive, weight=weight)
    agree(device, loss, {x: LEFT, t: z}, (bce64(LEFT, z.astype(np.float64), positive) * weight).mean())
    for wrt in (0, 1):
        check_gradient(nn.binary_cross_entropy_with_logits, [LEFT.astype(np.float64), z.astype(np.float64)], wrt)


def test_logits_of_any_size(device: str) -> None:
    """Certain and right costs exp(-|x|), to all its digits; certain and wrong costs |x|; infinite and right nothing."""
    x, z = graphc.placeholder((8,)), graphc.placeholder((8,))
    loss = nn.binary_cross_entropy_with_logits(x, z, reduction="none")
    logits = np.array([30, -30, 1e4, -1e4, 3e38, -3e38, np.inf, -np.inf], np.float32)
    right = (logits > 0).astype(np.float32)
    found, slope = evaluate(device, [loss, graphc.gradients(loss.sum(), x)], {x: logits, z: right})
    np.testing.assert_allclose(found, np.exp(-np.abs(logits.astype(np.float64))), rtol=64 * EPS, atol=1e-44)
    np.testing.assert_allclose(np.abs(slope[:2]), math.exp(-30), rtol=64 * EPS)
    assert (slope[2:] == 0).all()
    found, slope = evaluate(device, [loss, graphc.gradients(loss.sum(), x)], {x: logits, z: 1 - right})
    np.testing.assert_allclose(found, np.abs(logits), rtol=EPS)
    np.testing.assert_allclose(slope, np.sign(logits), rtol=EPS)


def test_binary_cross_entropy(device: str) -> None:
    p = rng(7).uniform(0.01, 0.99, (4, 3)).astype(np.float32)
    z = rng().uniform(0, 1, (4, 3)).astype(np.float32)
    weight = rng(6).uniform(0.5, 2, (3,)).astype(np.float32)
    x, t = graphc.placeholder((None, 3)), graphc.placeholder((None, 3))
    each = -(z * np.log(p.astype(np.float64)) + (1 - z.astype(np.float64)) * np.log1p(-p.astype(np.float64)))
    for reduction in REDUCTIONS:
        loss = nn.binary_cross_entropy(x, t, reduction=reduction)
        agree(device, loss, {x: p, t: z}, reduce(each, reduction))
    agree(device, nn.binary_cross_entropy(x, t, weight=weight), {x: p, t: z}, (each * weight).mean())
    for wrt in (0, 1):
        # Between a quarter and three quarters, where third derivatives stay below some hundreds.
        check_gradient(nn.binary_cross_entropy, [0.25 + p.astype(np.float64) / 2, z.astype(np.float64)], wrt)


def test_certain_probabilities(device: str) -> None:
    """Wrong ones cost 100, with a slope of 1e12 that still says where to go; right ones nothing."""
    x, z = graphc.placeholder((4,)), graphc.placeholder((4,))
    loss = nn.binary_cross_entropy(x, z, reduction="none")
    feeds = {x: np.array([0, 0, 1, 1], np.float32), z: np.array([0, 1, 0, 1], np.float32)}
    value, slope = evaluate(device, [loss, graphc.gradients(loss.sum(), x)], feeds)
    assert value.tolist() == [0, 100, 100, 0]
    np.testing.assert_allclose(slope, [1, -1e12, 1e12, -1], rtol=1e-6)
    tiny = np.array([1e-38, 1e-42, 1e-13, 1e-9], np.float32)
    value, slope = evaluate(device, [loss, graphc.gradients(loss.sum(), x)], {x: tiny, z: np.ones(4, np.float32)})
    np.testing.assert_allclose(value, -np.log(tiny.astype(np.float64)), rtol=16 * EPS)
    np.testing.assert_allclose(slope, [-1e12, -1e12, -1e12, -1e9], rtol=16 * EPS)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda a: nn.huber_loss(a, a, delta=0), ArgumentError, "huber_loss: delta must be positive, got 0"),
        (lambda a: nn.smooth_l1_loss(a, a, beta=-1), ArgumentError, "smooth_l1_loss: beta must be at least 0, got -1"),
        (lambda a: nn.kl_div(a, a, reduction="x"), ArgumentError, "'mean', 'sum', 'batchmean' or 'none', got 'x'"),
        (lambda a: nn.kl_div(1.0, 1.0, reduction="batchmean"), ArgumentError, "scalars have none"),
        (lambda a: nn.cosine_similarity(a, a, epsilon=0), ArgumentError, "epsilon must be positive, got 0"),
        (lambda a: nn.l1_loss(a, a.T), ShapeError, r"must have the same shape, got \(2, 3\) and \(3, 2\)"),
        (lambda a: nn.binary_cross_entropy(a, a[:, 0]), ShapeError, r"same shape, got \(2, 3\) and \(2,\)"),
        (lambda a: nn.mse_loss(a, a, reduction="avg"), ArgumentError, "mse_loss: reduction must be"),
    ],
)  # fmt: skip
def test_bad_arguments(make: Callable[[Any], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make(graphc.placeholder((2, 3)))


def test_a_probability_near_one_has_one_value_for_its_loss_and_its_slope() -> None:
    """The compiler takes 1 - sigmoid(x) as sigmoid(-x): all that is decided by it must see the same number."""
    x = graphc.placeholder(("n",), name="x")
    loss = nn.binary_cross_entropy(graphc.sigmoid(x), graphc.zeros_like(x), reduction="none")
    points = np.array([16, 18, 20, 40, 90, 200], np.float32)
    for device in ("reference", "cpu"):
        with graphc.Session(device) as session:
            value, slope = session.run([loss, graphc.gradients(graphc.sum(loss), x)], {x: points})
        assert np.all(np.isfinite(value))
        assert np.all(value >= 15.9)
        assert np.all((slope >= 0) & (slope <= 1))
