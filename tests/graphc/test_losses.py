"""Losses: their values and gradients against NumPy, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import ArgumentError, DTypeError, FeedError, IndexRangeError, ShapeError

Array = np.ndarray[Any, Any]
EPS = float(np.finfo(np.float32).eps)


@pytest.fixture(params=["reference", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def evaluate(device: str, fetches: Any, feeds: dict[Any, Any] | None = None) -> Any:
    with graphc.Session(device=device) as session:
        return session.run(fetches, feeds or {})


# Mean squared error.


def test_mse_loss_and_its_gradient(device: str) -> None:
    a, b = graphc.placeholder((None, 2)), graphc.placeholder((None, 2))
    left, right = [[1.0, 2.0], [3.0, 5.0]], [[0.0, 4.0], [3.0, 1.0]]
    loss = nn.mse_loss(a, b)
    value, gradient = evaluate(device, [loss, graphc.gradients(loss, a)], {a: left, b: right})
    assert value == (1 + 4 + 0 + 16) / 4  # exact in float32
    assert gradient.tolist() == [[0.5, -1.0], [0.0, 2.0]]


def test_mse_loss_converts_integers(device: str) -> None:
    prediction, target = graphc.placeholder((2,)), graphc.placeholder((2,), dtype="int64")
    loss = nn.mse_loss(prediction, target)
    assert loss.dtype == np.float32
    assert evaluate(device, loss, {prediction: [1.5, 2.0], target: [1, 4]}) == (0.25 + 4) / 2
    # Bytes must not wrap around: 1 - 3 is -2, not 254.
    pixels = graphc.constant(np.array([1, 3], np.uint8)), graphc.constant(np.array([3, 3], np.uint8))
    assert evaluate(device, nn.mse_loss(*pixels)) == 2.0


@pytest.mark.parametrize(
    ("left", "right"), [((4, 1), (4,)), ((4, 2), (4, 3)), (("n", 1), ("n",)), (("n", 1), ("n", "k")), ((3,), ())]
)
def test_mse_loss_broadcasts_nothing(left: tuple[Any, ...], right: tuple[Any, ...]) -> None:
    with pytest.raises(ShapeError, match=r"(?s)must have the same shape.*input:  left: .*target: right: "):
        nn.mse_loss(graphc.placeholder(left, name="left"), graphc.placeholder(right, name="right"))


def test_mse_loss_over_nothing_is_nan(device: str) -> None:
    a = graphc.placeholder((None,))
    assert np.isnan(evaluate(device, nn.mse_loss(a, a), {a: np.zeros(0, np.float32)}))


# Cross entropy.


def log_softmax64(logits: Array, axis: int) -> Array:
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis, keepdims=True)
    found: Array = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
    return found


def picked64(logits: Array, labels: Array, axis: int) -> Array:
    found: Array = -np.take_along_axis(log_softmax64(logits, axis), np.expand_dims(labels, axis), axis).squeeze(axis)
    return found


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
@pytest.mark.parametrize("axis", [-1, 1, 0])
def test_cross_entropy_of_classes(device: str, axis: int, dtype: str) -> None:
    rng = np.random.default_rng(1)
    logits = (3 * rng.standard_normal((4, 5, 6))).astype(np.float32)
    samples = np.delete(logits.shape, axis)
    labels = rng.integers(0, logits.shape[axis], samples).astype(dtype)
    x, y = graphc.placeholder((None, None, None)), graphc.placeholder((None, None), dtype=dtype)
    each, total, mean = (nn.cross_entropy(x, y, axis=axis, reduction=r) for r in ("none", "sum", "mean"))
    found = evaluate(device, [each, total, mean], {x: logits, y: labels})
    expected = picked64(logits, labels.astype(np.int64), axis)
    # Six terms of the sum, exp and log to 2 ulp, the shift and two differences: each within eps of at most 16.
    bound = 12 * EPS * 16
    assert np.abs(found[0] - expected).max() <= bound
    assert abs(found[1] - expected.sum()) <= expected.size * bound
    assert abs(found[2] - expected.mean()) <= 2 * bound
    assert all(part.dtype == np.float32 for part in found)


def test_cross_entropy_gradient_is_softmax_less_one_hot(device: str) -> None:
    logits = np.random.default_rng(2).standard_normal((6, 4)).astype(np.float32)
    labels = np.array([0, 3, 1, 1, 2, 0])
    x, y = graphc.placeholder((None, 4)), graphc.placeholder((None,), dtype="int64")
    found = evaluate(device, graphc.gradients(nn.cross_entropy(x, y), x), {x: logits, y: labels})
    expected = (np.exp(log_softmax64(logits, -1)) - np.eye(4)[labels]) / 6
    assert np.abs(found - expected).max() <= 12 * EPS / 6


def test_cross_entropy_of_probabilities(device: str) -> None:
    rng = np.random.default_rng(3)
    logits = rng.standard_normal((5, 4)).astype(np.float32)
    labels = rng.dirichlet(np.ones(4), 5).astype(np.float32)
    x, p = graphc.placeholder((None, 4)), graphc.placeholder((None, 4))
    loss = nn.cross_entropy(x, p)
    found, gradient = evaluate(device, [loss, graphc.gradients(loss, x)], {x: logits, p: labels})
    wide = labels.astype(np.float64)
    assert abs(found + (wide * log_softmax64(logits, -1)).sum(-1).mean()) <= 16 * EPS * 4
    expected = (np.exp(log_softmax64(logits, -1)) * wide.sum(-1, keepdims=True) - wide) / 5
    assert np.abs(gradient - expected).max() <= 16 * EPS / 5


def test_one_hot_probabilities_and_classes_agree(device: str) -> None:
    logits = np.random.default_rng(4).standard_normal((5, 4)).astype(np.float32)
    labels = np.array([0, 1, 2, 3, 0])
    x, y = graphc.placeholder((None, 4)), graphc.placeholder((None,), dtype="int64")
    hard, soft = nn.cross_entropy(x, y), nn.cross_entropy(x, graphc.one_hot(y, 4))
    found = evaluate(device, [hard, soft], {x: logits, y: labels})
    assert abs(found[0] - found[1]) <= 4 * EPS * 4


def test_cross_entropy_keeps_small_differences_of_large_logits(device: str) -> None:
    # logsumexp(logits) - logit would round at 1e4, to a multiple of 2**-10.
    x, y = graphc.placeholder((None, 2)), graphc.placeholder((None,), dtype="int64")
    found = evaluate(
        device,
        nn.cross_entropy(x, y, reduction="none"),
        {x: np.array([[1e4, 1e4 + 1], [-1e4, -1e4]], np.float32), y: [0, 1]},
    )
    np.testing.assert_allclose(found, [1 + math.log1p(math.exp(-1)), math.log(2)], rtol=8 * EPS)


@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_of_masked_classes(device: str, soft: bool) -> None:
    x, y = graphc.placeholder((None, 3)), graphc.placeholder((None,), dtype="int64")
    loss = nn.cross_entropy(x, graphc.one_hot(y, 3) if soft else y)
    feeds = {x: np.array([[0.0, 0.0, -np.inf], [-np.inf, 0.0, -np.inf]], np.float32), y: [1, 1]}
    value, gradient = evaluate(device, [loss, graphc.gradients(loss, x)], feeds)
    np.testing.assert_allclose(value, math.log(2) / 2, rtol=8 * EPS)
    np.testing.assert_allclose(gradient, [[0.25, -0.25, 0.0], [0.0, 0.0, 0.0]], atol=4 * EPS)
    assert np.isposinf(evaluate(device, loss, {**feeds, y: [2, 1]}))


def test_narrow_labels_count_beyond_their_dtype(device: str) -> None:
    # Classes 0, 256, 512 ... share their low byte.
    x, y = graphc.placeholder((None, 600)), graphc.placeholder((None,), dtype="uint8")
    found = evaluate(device, nn.cross_entropy(x, y), {x: np.zeros((2, 600), np.float32), y: [5, 250]})
    assert abs(found - math.log(600)) <= 600 * EPS * math.log(600)


def test_cross_entropy_of_no_samples(device: str) -> None:
    x, y = graphc.placeholder((None, 3)), graphc.placeholder((None,), dtype="int64")
    losses = [nn.cross_entropy(x, y, reduction=r) for r in ("mean", "sum", "none")]
    mean, total, each = evaluate(device, losses, {x: np.zeros((0, 3), np.float32), y: np.zeros(0, np.int64)})
    assert np.isnan(mean)
    assert total == 0
    assert each.shape == (0,)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_out_of_range_fails_the_run(device: str, label: int) -> None:
    x, y = graphc.placeholder((None, 3)), graphc.placeholder((None,), dtype="int64", name="classes")
    loss = nn.cross_entropy(x, y)
    with pytest.raises(
        IndexRangeError, match=r"(?s)^cross_entropy at .*test_losses\.py.*: labels must be 0 to 2, found .*classes"
    ):
        evaluate(device, loss, {x: np.zeros((2, 3), np.float32), y: [1, label]})


def test_as_many_labels_as_samples(device: str) -> None:
    x, y = graphc.placeholder((None, 3), name="x"), graphc.placeholder((None,), dtype="int64", name="y")
    loss = nn.cross_entropy(x, y)
    with pytest.raises(
        FeedError, match=r"(?s)^cross_entropy at .*test_losses\.py.* make them 2 and 1 \(samples and their"
    ) as error:
        evaluate(device, loss, {x: np.zeros((2, 3), np.float32), y: [1]})
    assert "2 from axis 0 of 'x' (shape (2, 3))" in str(error.value)
    assert "1 from axis 0 of 'y' (shape (1,))" in str(error.value)
    with pytest.raises(FeedError, match=r"^nll_loss at "):
        evaluate(device, nn.nll_loss(x, y, ignore_index=-1), {x: np.zeros((2, 3), np.float32), y: [1]})


@pytest.mark.parametrize(
    ("shape", "dtype", "error", "words"),
    [
        (("n", 3), "int64", ShapeError, r"expected \(n,\), got \(n, 3\).*one-hot rows.*astype\('float32'\)"),
        (("n", 1), "int64", ShapeError, r"expected \(n,\), got \(n, 1\).*squeeze\(labels, -1\)"),
        (("n", 7, 2), "int64", ShapeError, r"expected \(n,\), got \(n, 7, 2\)"),
        ((1,), "int64", ShapeError, r"expected \(n,\), got \(1,\)"),
        (("n",), "float32", ShapeError, r"expected \(n, 3\), got \(n,\).*class numbers.*astype\('int64'\)"),
        (("n", 4), "float32", ShapeError, r"expected \(n, 3\), got \(n, 4\)"),
        (("n",), "bool", DTypeError, r"integers \(classes\) or floats \(probabilities\), got labels: .*bool"),
    ],
)
def test_labels_that_do_not_fit(shape: Any, dtype: str, error: type[Exception], words: str) -> None:
    labels = graphc.placeholder(shape, dtype=dtype, name="labels")
    with pytest.raises(error, match=f"(?s)cross_entropy: .*{words}"):
        nn.cross_entropy(graphc.placeholder(("n", 3), name="logits"), labels)


def test_cross_entropy_refuses_other_bad_arguments() -> None:
    x, y = graphc.placeholder((2, 3), name="x"), graphc.placeholder((2,), dtype="int64")
    with pytest.raises(ArgumentError, match="reduction must be 'mean', 'sum' or 'none', got 'average'"):
        nn.cross_entropy(x, y, reduction="average")
    with pytest.raises(DTypeError, match="logits must be float, got"):
        nn.cross_entropy(y, y)
    with pytest.raises(ShapeError, match="need an axis of classes"):
        nn.cross_entropy(graphc.placeholder(()), y)
    with pytest.raises(ShapeError, match="axis 2 does not exist in a tensor of rank 2"):
        nn.cross_entropy(x, y, axis=2)
