"""Losses between two tensors of one shape, in the formulas and with the defaults of ``torch.nn.functional``.

``reduction`` is "mean" or "sum" over all elements, a scalar, or "none". Integers are converted to the other operand's
float dtype. Over no elements the mean is NaN, and its gradient has no elements either. Operands of different shapes
raise ``ShapeError``, other reductions ``ArgumentError``.
"""

from __future__ import annotations

import math
from typing import Any

from graphc.errors import ArgumentError
from graphc.nn.reduction import REDUCTIONS, check_reduction, matched, reduced
from graphc.node import Tensor
from graphc.ops import abs, divide, equal, exp, less, log, maximum, sqrt, square, sum, where
from graphc.ops.leaf import as_operands, extent_value
from graphc.ops.shape import normalize_axis


def mse_loss(input: Any, target: Any, *, reduction: str = "mean") -> Tensor:
    """Squared error ``(input - target)**2``. Nothing is broadcast."""
    check_reduction(reduction, "mse_loss")
    left, right = matched(input, target, "mse_loss")
    return reduced(square(left - right), reduction)


def l1_loss(input: Any, target: Any, *, reduction: str = "mean") -> Tensor:
    """Absolute error ``|input - target|``."""
    check_reduction(reduction, "l1_loss")
    left, right = matched(input, target, "l1_loss")
    return reduced(abs(left - right), reduction)


def huber_loss(input: Any, target: Any, *, delta: float = 1.0, reduction: str = "mean") -> Tensor:
    """``d**2 / 2`` where the error ``d`` is less than ``delta``, else ``delta * (|d| - delta / 2)`` (P. Huber, 1964).
    Raises ``ArgumentError`` unless delta > 0.
    """
    check_reduction(reduction, "huber_loss")
    if not delta > 0:
        raise ArgumentError(f"huber_loss: delta must be positive, got {delta}")
    left, right = matched(input, target, "huber_loss")
    size, small, inside = _inside(left - right, delta)
    return reduced(where(small, 0.5 * square(inside), delta * (size - 0.5 * delta)), reduction)


def smooth_l1_loss(input: Any, target: Any, *, beta: float = 1.0, reduction: str = "mean") -> Tensor:
    """``huber_loss`` with ``delta=beta``, divided by beta; with ``beta=0`` the absolute error. Raises
    ``ArgumentError`` for a negative beta.
    """
    check_reduction(reduction, "smooth_l1_loss")
    if not beta >= 0:
        raise ArgumentError(f"smooth_l1_loss: beta must be at least 0, got {beta}")
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    left, right = matched(input, target, "smooth_l1_loss")
    size, small, inside = _inside(left - right, beta)
    return reduced(where(small, square(inside) * (0.5 / beta), size - 0.5 * beta), reduction)


def _inside(difference: Tensor, limit: float) -> tuple[Tensor, Tensor, Tensor]:
    """The size of the difference, whether it is below the limit, and the difference with 0 where it is not, so that
    no square overflows.
    """
    size = abs(difference)
    small = less(size, limit)
    return size, small, where(small, difference, 0)


def kl_div(input: Any, target: Any, *, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """Kullback-Leibler divergence ``target * (log(target) - input)`` of probabilities ``target`` from those whose
    logarithms are ``input``; where a target is 0, it is 0.

    ``log_target=True`` takes logarithms of the targets. ``reduction="mean"`` divides by the number of elements, as in
    PyTorch; the divergence itself is ``"batchmean"``, which divides by the extent of the first axis.
    """
    check_reduction(reduction, "kl_div", (*REDUCTIONS[:2], "batchmean", "none"))
    left, right = as_operands("kl_div", *matched(input, target, "kl_div"))
    absent = equal(right, -math.inf if log_target else 0)
    # Where a probability is 0, the other may be 0 too, and its logarithm infinite.
    present = where(absent, 0 if log_target else 1, right)
    chance, logarithm = (exp(present), present) if log_target else (present, log(present))
    each = where(absent, 0, chance * (logarithm - where(absent, 0, left)))
    if reduction == "batchmean":
        if not each.ndim:
            raise ArgumentError(
                "kl_div: reduction='batchmean' divides by the extent of the first axis; scalars have none"
            )
        return divide(sum(each), extent_value(each.shape[0], each.dtype))
    return reduced(each, reduction)


def hinge_embedding_loss(input: Any, target: Any, *, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """``input`` (a distance) where ``target`` is 1, ``max(0, margin - input)`` where it is -1."""
    check_reduction(reduction, "hinge_embedding_loss")
    left, right = matched(input, target, "hinge_embedding_loss")
    return reduced(where(equal(right, 1), left, _above_zero(margin - left)), reduction)


def cosine_similarity(x: Any, y: Any, axis: int = -1, *, epsilon: float = 1e-8) -> Tensor:
    """``sum(x * y) / (max(|x|, epsilon) * max(|y|, epsilon))`` along ``axis``, for the Euclidean norms of ``x`` and
    ``y``, which broadcast. Raises ``ArgumentError`` unless epsilon > 0.
    """
    if not epsilon > 0:
        raise ArgumentError(f"cosine_similarity: epsilon must be positive, got {epsilon}")
    left, right = (t if t.dtype.kind == "f" else t.astype("float32") for t in as_operands("cosine_similarity", x, y))
    product = left * right
    place = normalize_axis(axis, product.ndim, "cosine_similarity") - product.ndim
    sizes = (sqrt(maximum(sum(square(t), place), epsilon**2)) for t in (left, right))
    return sum(product, place) / math.prod(sizes)


def cosine_embedding_loss(
    x: Any, y: Any, target: Any, *, axis: int = -1, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """With the cosine ``c`` of ``x`` and ``y`` along ``axis``: ``1 - c`` where ``target`` is 1, ``max(0, c - margin)``
    where it is -1.
    """
    check_reduction(reduction, "cosine_embedding_loss")
    cosine, wanted = matched(cosine_similarity(x, y, axis), target, "cosine_embedding_loss")
    return reduced(where(equal(wanted, 1), 1 - cosine, _above_zero(cosine - margin)), reduction)


def _above_zero(x: Tensor) -> Tensor:
    return where(less(x, 0), 0, x)
