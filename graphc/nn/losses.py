"""Losses: how far a prediction is from what is wanted, as a tensor to minimise."""

from __future__ import annotations

import math
from typing import Any

from graphc.dims import Extent
from graphc.dtypes import float32, is_float
from graphc.errors import DTypeError, ShapeError
from graphc.node import Tensor
from graphc.ops import astype, equal, log_softmax, logical_and, mean, one_hot, permute_dims, square, sum, where
from graphc.ops.leaf import as_tensor
from graphc.ops.shape import normalize_axis


def mse_loss(input: Any, target: Any) -> Tensor:
    """Mean squared error: ``mean((input - target)**2)`` over all elements, a scalar.

    ``input`` and ``target`` have one shape; nothing is broadcast, because a target of shape (n,) beside a prediction
    of shape (n, 1) would be compared in all n*n pairs. Integers are converted to the other operand's float dtype.
    Over no elements the result is NaN and its gradient has no elements either.

    Raises ``ShapeError`` when the shapes differ.
    """
    left, right = as_tensor(input, "mse_loss: input"), as_tensor(target, "mse_loss: target")
    dtype = next((t.dtype for t in (left, right) if is_float(t.dtype)), float32)
    if not _may_be_equal(left.shape, right.shape):
        raise ShapeError(
            f"mse_loss: input and target must have the same shape, got {_show(left.shape)} and {_show(right.shape)}"
            f"\n  input:  {left.describe()}\n  target: {right.describe()}"
        )
    left, right = (t if is_float(t.dtype) else astype(t, dtype) for t in (left, right))
    return mean(square(left - right))


def cross_entropy(logits: Any, labels: Any, *, axis: int = -1, reduction: str = "mean") -> Tensor:
    """Cross entropy of ``softmax(logits)`` and the wanted classes, in the dtype of ``logits``.

    ``logits``: float, with the classes along ``axis``. ``labels``: either integers in the shape of ``logits`` without
    ``axis``, each from 0 to the number of classes less 1; or floats in the shape of ``logits``, the probabilities of
    the classes.

        loss = -log_softmax(logits)[label]        loss = -sum(labels * log_softmax(logits))

    ``reduction``: ``"mean"`` and ``"sum"`` over all samples give a scalar, ``"none"`` one loss per sample, in the
    shape of ``logits`` without ``axis``. A class whose logit is -inf (masked out) costs nothing unless it is wanted.
    Over no samples the mean is NaN, the sum 0.

    Raises ``ShapeError`` and ``DTypeError`` for labels that do not fit; a run with a label out of range raises
    ``IndexRangeError``.
    """
    scores, wanted = as_tensor(logits, "cross_entropy: logits"), as_tensor(labels, "cross_entropy: labels")
    if reduction not in ("mean", "sum", "none"):
        raise ShapeError(f"cross_entropy: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if not is_float(scores.dtype):
        raise DTypeError(f"cross_entropy: logits must be float, got {scores.describe()}")
    if scores.ndim == 0:
        raise ShapeError(f"cross_entropy: logits need an axis of classes, got the scalar {scores.describe()}")
    place = normalize_axis(axis, scores.ndim, "cross_entropy")
    samples = scores.shape[:place] + scores.shape[place + 1 :]
    if wanted.dtype.kind in "iu":
        _check_labels(scores, wanted, samples, "integer labels have the shape of logits without the axis of classes")
        each = _of_classes(scores, wanted, place)
    elif is_float(wanted.dtype):
        _check_labels(scores, wanted, scores.shape, "float labels are probabilities of classes, in the shape of logits")
        each = _of_probabilities(scores, astype(wanted, scores.dtype), place)
    else:
        raise DTypeError(
            f"cross_entropy: labels must be integers (classes) or floats (probabilities), got {wanted.describe()}"
        )
    if reduction == "none":
        return each
    return mean(each) if reduction == "mean" else sum(each)


def _of_classes(scores: Tensor, labels: Tensor, place: int) -> Tensor:
    hit = one_hot(labels, scores.shape[place], "bool")
    last = scores.ndim - 1
    hit = permute_dims(hit, (*range(place), last, *range(place, last)))
    # Chosen, not multiplied: 0 * -inf is NaN. log_softmax subtracts the largest logit first, so that large logits of
    # nearly equal size keep their difference, which logsumexp(logits) - logit loses.
    return -sum(where(hit, log_softmax(scores, place), 0), place)


def _of_probabilities(scores: Tensor, labels: Tensor, place: int) -> Tensor:
    absent = logical_and(equal(labels, 0), equal(scores, -math.inf))
    return -sum(labels * where(absent, 0, log_softmax(scores, place)), place)


def _check_labels(scores: Tensor, labels: Tensor, expected: tuple[Extent, ...], rule: str) -> None:
    if _may_be_equal(labels.shape, expected):
        return
    hint = ""
    if labels.dtype.kind in "iu" and _may_be_equal(labels.shape, scores.shape):
        hint = "\n  if these are one-hot rows, convert them: labels.astype('float32')"
    elif is_float(labels.dtype) and labels.ndim == scores.ndim - 1:
        hint = "\n  if these are class numbers, convert them: labels.astype('int64')"
    elif labels.ndim == len(expected) + 1 and labels.shape[-1] == 1:
        hint = "\n  drop the last axis: graphc.squeeze(labels, -1)"
    raise ShapeError(
        f"cross_entropy: {rule}: expected {_show(expected)}, got {_show(labels.shape)}"
        f"\n  logits: {scores.describe()}\n  labels: {labels.describe()}{hint}"
    )


def _may_be_equal(left: tuple[Extent, ...], right: tuple[Extent, ...]) -> bool:
    """Whether two shapes can be equal. A written 1 beside a symbolic extent cannot: it would be broadcast."""
    if len(left) != len(right):
        return False
    pairs = [(a, b) for a, b in zip(left, right, strict=True) if a != b]
    return not any((isinstance(a, int) and isinstance(b, int)) or 1 in (a, b) for a, b in pairs)


def _show(shape: tuple[Extent, ...]) -> str:
    parts = ["?" if str(extent).startswith("?") else str(extent) for extent in shape]
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
