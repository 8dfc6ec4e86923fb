"""Gradients made smaller: all together by their norm, or each element by its value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc.dtypes import is_float
from graphc.errors import DTypeError, UpdateError
from graphc.node import Tensor
from graphc.ops import equal, maximum, minimum, negative, sqrt, square, sum, where
from graphc.ops.leaf import as_tensor
from graphc.optim.hyperparameters import Hyperparameter, in_dtype, positive


def global_norm(grads: Iterable[Any]) -> Tensor:
    """The Euclidean norm of all elements of ``grads`` together, a scalar of their widest dtype; where it is 0, its
    derivative is taken as 0.
    """
    return _norm(_floats(grads, "global_norm"))


def clip_by_norm(grads: Iterable[Any], max_norm: Hyperparameter) -> list[Tensor]:
    """``grads`` scaled down together where their :func:`global_norm` is above ``max_norm`` (R. Pascanu, T. Mikolov and
    Y. Bengio, ICML 2013), in PyTorch's formula.

        g' = g * min(1, max_norm / (norm + 1e-6))

    Shapes and dtypes are kept. A NaN anywhere makes everything NaN, and an infinity zeros and NaN.
    """
    max_norm = positive(max_norm, "clip_by_norm: max_norm")
    known = _floats(grads, "clip_by_norm")
    norm = _norm(known)
    scale = minimum(in_dtype(max_norm, norm.dtype) / (norm + 1e-6), 1.0)
    return [g * scale.astype(g.dtype) for g in known]


def clip_by_value(grads: Iterable[Any], max_value: Hyperparameter) -> list[Tensor]:
    """``grads`` with every element brought into ``[-max_value, max_value]``; NaN stays."""
    max_value = positive(max_value, "clip_by_value: max_value")
    clipped = []
    for g in _floats(grads, "clip_by_value"):
        bound = in_dtype(max_value, g.dtype)
        clipped.append(minimum(maximum(g, negative(bound) if isinstance(bound, Tensor) else -bound), bound))
    return clipped


def _norm(grads: list[Tensor]) -> Tensor:
    dtype = max((g.dtype for g in grads), key=lambda dtype: dtype.itemsize)
    total, *squares = [sum(square(g)).astype(dtype) for g in grads]
    for one in squares:
        total = total + one
    none = equal(total, 0)
    return where(none, 0, sqrt(where(none, 1, total)))


def _floats(grads: Iterable[Any], what: str) -> list[Tensor]:
    if isinstance(grads, Tensor):
        raise UpdateError(f"{what}: expected a list of gradients, got one tensor; write [{grads.name}]")
    found = [as_tensor(g, what) for g in grads]
    for g in found:
        if not is_float(g.dtype):
            raise DTypeError(f"{what}: gradients must be float, got {g.describe()}")
    if not found:
        raise UpdateError(f"{what}: no gradients were given")
    return found
