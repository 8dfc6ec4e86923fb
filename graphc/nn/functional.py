"""Dropout and the look-up of rows, as functions."""

from __future__ import annotations

import numbers
from typing import Any

from graphc import random
from graphc.errors import ArgumentError, ShapeError
from graphc.node import Tensor
from graphc.ops import where
from graphc.ops.elementwise import as_float
from graphc.ops.indexing import as_index, take
from graphc.ops.leaf import as_tensor


def dropout(x: Any, p: float = 0.5, training: bool = True, *, seed: int | None = None) -> Tensor:
    """Each element 0 with probability ``p``, else divided by ``1 - p``; ``x`` itself when not ``training``.

    The elements are chosen anew after every run with updates; ``seed`` fixes the stream, as in ``graphc.random``.
    Raises ``ArgumentError`` for p outside 0 to 1.
    """
    check_probability(p, "dropout")
    tensor = as_float(x, "dropout")
    if not training or p == 0:
        return tensor
    if p == 1:
        return where(False, tensor, 0)  # zeros, and a derivative that is zero
    return where(random.bernoulli(1 - p, tensor.shape, seed=seed), tensor * (1 / (1 - p)), 0)


def embedding(indices: Any, weight: Any) -> Tensor:
    """Rows of the matrix ``weight`` at integer ``indices``: their shape, and the rows along a new last axis.

    An index out of range raises ``IndexRangeError``, in the run if it is not known before. Raises ``DTypeError`` for
    indices that are not integers, and ``ShapeError`` for a weight that is no matrix.
    """
    table = as_tensor(weight, "embedding: weight")
    if table.ndim != 2:
        raise ShapeError(f"embedding: weight must be a matrix of rows, got {table.describe()}")
    # Negative indices do not count from the end here.
    return take(table, as_index(indices, table.shape[0], "embedding", wrap=False), axis=0)


def check_probability(p: Any, what: str) -> None:
    """``ArgumentError`` unless ``p`` is a number from 0 to 1."""
    if isinstance(p, bool) or not isinstance(p, numbers.Real) or not 0 <= float(p) <= 1:
        raise ArgumentError(f"{what}: p must be a number from 0 to 1, got {p!r}")
