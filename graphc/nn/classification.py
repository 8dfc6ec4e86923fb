"""Losses of classifiers, in the formulas of ``torch.nn.functional``, with the classes along ``axis``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.dims import Extent
from graphc.dtypes import is_float
from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.nn.activations import softplus
from graphc.nn.reduction import check_reduction, matched, may_be_equal, reduced, show
from graphc.node import Tensor
from graphc.ops import (
    astype,
    divide,
    equal,
    expand_dims,
    greater_equal,
    less,
    log,
    log1p,
    log_softmax,
    logical_and,
    maximum,
    not_equal,
    permute_dims,
    stop_gradient,
    sum,
    where,
)
from graphc.ops.indexing import hits
from graphc.ops.leaf import as_tensor, extent_value
from graphc.ops.shape import normalize_axis

_LEAST = 1e-12  # of a probability whose logarithm has the derivative 1 / p


def cross_entropy(
    logits: Any, labels: Any, *, axis: int = -1, weight: Any = None, ignore_index: int | None = None,
    label_smoothing: float = 0.0, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Cross entropy of ``softmax(logits)`` and the wanted classes, in the dtype of ``logits``.

    ``logits``: float, with the classes along ``axis``. ``labels``: either integers in the shape of ``logits`` without
    ``axis``, each from 0 to the number of classes less 1; or floats in the shape of ``logits``, the probabilities of
    the classes.

        loss = -log_softmax(logits)[label]        loss = -sum(labels * log_softmax(logits))

    ``weight``, one number for each class, multiplies its part. ``ignore_index`` is an integer label whose samples
    count for nothing. ``label_smoothing`` moves that part of each label to all classes alike. ``reduction``:
    ``"mean"`` and ``"sum"`` over all samples give a scalar, ``"none"`` one loss per sample, in the shape of ``logits``
    without ``axis``. The mean of integer labels is weighted: it divides by the sum of the weights of the labels that
    are not ignored. A class whose logit is -inf (masked out) costs nothing unless it is wanted. Over no samples the
    mean is NaN, the sum 0.

    Raises ``ShapeError``, ``DTypeError`` and ``ArgumentError`` for what does not fit; a run with a label out of range
    raises ``IndexRangeError``.
    """
    what = "cross_entropy"
    check_reduction(reduction, what)
    if not 0 <= label_smoothing <= 1:
        raise ArgumentError(f"{what}: label_smoothing must be from 0 to 1, got {label_smoothing}")
    scores, wanted, place = _operands(what, "logits", logits, labels, axis)
    each = log_softmax(scores, place)
    if wanted.dtype.kind in "iu":
        return _of_classes(what, each, wanted, place, _per_class(weight, scores, place, what), ignore_index,
                           label_smoothing, reduction)  # fmt: skip
    if ignore_index is not None:
        raise ArgumentError(f"{what}: ignore_index names an integer label, and these are probabilities")
    wanted = astype(wanted, scores.dtype)
    if label_smoothing:
        share = divide(label_smoothing, extent_value(scores.shape[place], scores.dtype))
        wanted = wanted * (1 - label_smoothing) + share
    return reduced(_of_probabilities(scores, each, wanted, place, _per_class(weight, scores, place, what)), reduction)


def nll_loss(
    log_probabilities: Any, labels: Any, *, axis: int = -1, weight: Any = None, ignore_index: int | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``-log_probabilities[label]``: what ``cross_entropy`` makes of integer labels after its log-softmax. Arguments
    and errors are as there.
    """
    what = "nll_loss"
    check_reduction(reduction, what)
    scores, wanted, place = _operands(what, "log_probabilities", log_probabilities, labels, axis)
    if wanted.dtype.kind not in "iu":
        raise DTypeError(f"{what}: labels must be integers, got {wanted.describe()}")
    return _of_classes(
        what, scores, wanted, place, _per_class(weight, scores, place, what), ignore_index, 0.0, reduction
    )


def binary_cross_entropy_with_logits(
    logits: Any, target: Any, *, weight: Any = None, pos_weight: Any = None, reduction: str = "mean"
) -> Tensor:
    """Binary cross entropy of ``sigmoid(logits)`` and targets from 0 to 1, exact for logits of any size:

        loss = pos_weight * target * softplus(-logits) + (1 - target) * softplus(logits)

    ``weight`` and ``pos_weight`` broadcast to the shape of the operands. Raises ``ShapeError`` when their shapes
    differ, and ``ArgumentError`` for another reduction.
    """
    what = "binary_cross_entropy_with_logits"
    check_reduction(reduction, what)
    x, z = matched(logits, target, what)
    positive = z if pos_weight is None else z * as_tensor(pos_weight, f"{what}: pos_weight")
    each = _times(positive, softplus(-x)) + _times(1 - z, softplus(x))
    return reduced(_weighted(each, weight, x, what), reduction)


def binary_cross_entropy(probabilities: Any, target: Any, *, weight: Any = None, reduction: str = "mean") -> Tensor:
    """``-(target * log(p) + (1 - target) * log(1 - p))`` for probabilities p, with logarithms of at least -100 and
    derivatives of at most 1e12, as in PyTorch. From logits, ``binary_cross_entropy_with_logits`` is exact.

    ``weight`` broadcasts to the shape of the operands. Raises ``ShapeError`` when their shapes differ, and
    ``ArgumentError`` for another reduction.
    """
    what = "binary_cross_entropy"
    check_reduction(reduction, what)
    p, z = matched(probabilities, target, what)
    each = -(z * _bounded_log(p, complement=False) + (1 - z) * _bounded_log(p, complement=True))
    return reduced(_weighted(each, weight, p, what), reduction)


# Parts of them.


def _of_classes(
    what: str, each: Tensor, labels: Tensor, place: int, weight: Tensor | None, ignored: int | None, smoothing: float,
    reduction: str,
) -> Tensor:  # fmt: skip
    """The loss for logarithms of probabilities ``each`` and integer labels."""
    kept = None if ignored is None else not_equal(labels, ignored)
    samples = each.shape[:place] + each.shape[place + 1 :]
    hit = hits(labels if kept is None else where(kept, labels, 0), each.shape[place], samples, what)
    last = each.ndim - 1
    hit = permute_dims(hit, (*range(place), last, *range(place, last)))
    # Chosen, not multiplied: 0 * -inf is NaN. log_softmax subtracts the largest logit first, so that large logits of
    # nearly equal size keep their difference, which logsumexp(logits) - logit loses.
    parts = each if weight is None else each * weight
    loss = -sum(where(hit, parts, 0), place)
    if smoothing:
        share = divide(smoothing, extent_value(each.shape[place], each.dtype))
        loss = (1 - smoothing) * loss - share * sum(parts, place)
    if kept is not None:
        loss = where(kept, loss, 0)
    if reduction != "mean" or (weight is None and kept is None):
        return reduced(loss, reduction)
    total = astype(True, each.dtype) if weight is None else sum(where(hit, weight, 0), place)
    return divide(sum(loss), sum(where(kept, total, 0) if kept is not None else total))


def _of_probabilities(scores: Tensor, each: Tensor, labels: Tensor, place: int, weight: Tensor | None) -> Tensor:
    absent = logical_and(equal(labels, 0), equal(scores, -math.inf))
    parts = where(absent, 0, each)
    return -sum(labels * (parts if weight is None else parts * weight), place)


def _per_class(weight: Any, scores: Tensor, place: int, what: str) -> Tensor | None:
    """The weights of the classes, along their axis."""
    if weight is None:
        return None
    tensor = astype(as_tensor(weight, f"{what}: weight"), scores.dtype)
    if not may_be_equal(tensor.shape, (scores.shape[place],)):
        raise ShapeError(
            f"{what}: weight needs one number for each class: expected {show((scores.shape[place],))}, got "
            f"{show(tensor.shape)}\n  weight: {tensor.describe()}"
        )
    after = scores.ndim - 1 - place
    return expand_dims(tensor, tuple(range(1, 1 + after))) if after else tensor


def _weighted(each: Tensor, weight: Any, like: Tensor, what: str) -> Tensor:
    return each if weight is None else each * astype(as_tensor(weight, f"{what}: weight"), like.dtype)


def _times(weight: Tensor, value: Tensor) -> Tensor:
    """``weight * value``, which is 0 where the weight is, even if the value is infinite."""
    absent = logical_and(equal(weight, 0), equal(value, math.inf))
    return weight * where(absent, 0, value)


def _bounded_log(p: Tensor, *, complement: bool) -> Tensor:
    """``log(p)``, or ``log(1 - p)``, not below -100 and with a derivative that stops to grow near 0."""
    chance = 1 - p if complement else p
    plain = greater_equal(chance, _LEAST)
    least = float(np.finfo(p.dtype).smallest_subnormal)
    edge = maximum(log(where(equal(chance, 0), least, chance)), -100.0)
    # The second term is 0, and has the derivative that is wanted there.
    edge = stop_gradient(edge) + (chance - stop_gradient(chance)) / _LEAST
    value = log(where(plain, chance, 0.5))
    if complement:  # exact for small p; above, 1 - p is, and all depends on one and the same of its values
        small = less(p, 0.5)
        value = where(small, log1p(-where(small, p, 0)), value)
    return where(plain, value, edge)


def _operands(what: str, name: str, scores: Any, labels: Any, axis: int) -> tuple[Tensor, Tensor, int]:
    """Scores and labels, whose shapes fit, and the axis of classes from the front."""
    left, right = as_tensor(scores, f"{what}: {name}"), as_tensor(labels, f"{what}: labels")
    if not is_float(left.dtype):
        raise DTypeError(f"{what}: {name} must be float, got {left.describe()}")
    if left.ndim == 0:
        raise ShapeError(f"{what}: {name} need an axis of classes, got the scalar {left.describe()}")
    place = normalize_axis(axis, left.ndim, what)
    if right.dtype.kind in "iu":
        samples = left.shape[:place] + left.shape[place + 1 :]
        rule = f"integer labels have the shape of {name} without the axis of classes"
        _check_labels(what, name, left, right, samples, rule)
    elif is_float(right.dtype):
        rule = f"float labels are probabilities of classes, in the shape of {name}"
        _check_labels(what, name, left, right, left.shape, rule)
    else:
        raise DTypeError(f"{what}: labels must be integers (classes) or floats (probabilities), got {right.describe()}")
    return left, right, place


def _check_labels(
    what: str, name: str, scores: Tensor, labels: Tensor, expected: tuple[Extent, ...], rule: str
) -> None:
    if may_be_equal(labels.shape, expected):
        return
    hint = ""
    if labels.dtype.kind in "iu" and may_be_equal(labels.shape, scores.shape):
        hint = "\n  if these are one-hot rows, convert them: labels.astype('float32')"
    elif is_float(labels.dtype) and labels.ndim == scores.ndim - 1:
        hint = "\n  if these are class numbers, convert them: labels.astype('int64')"
    elif labels.ndim == len(expected) + 1 and labels.shape[-1] == 1:
        hint = "\n  drop the last axis: graphc.squeeze(labels, -1)"
    raise ShapeError(
        f"{what}: {rule}: expected {show(expected)}, got {show(labels.shape)}"
        f"\n  {name}: {scores.describe()}\n  labels: {labels.describe()}{hint}"
    )
