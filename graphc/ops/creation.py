"""Tensors made from a shape or a rule: zeros, ones, full, eye, linspace, and the triangles of a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dims import Dim
from graphc.dtypes import DTypeLike, as_dtype
from graphc.errors import DTypeError, ShapeError
from graphc.node import Tensor
from graphc.ops.comparison import equal, less_equal, where
from graphc.ops.elementwise import astype
from graphc.ops.leaf import arange, as_tensor, constant, zeros_like
from graphc.ops.shape import broadcast_to, expand_dims, known_shape

_EXTENTS = (int, np.integer, Dim)


def full(shape: Sequence[Any], value: Any, dtype: DTypeLike | None = None) -> Tensor:
    """``value``, a number, everywhere in ``shape``, whose extents may be symbolic. Python floats give float32."""
    return _filled("full", shape, value, dtype)


def _zeros_or_ones(what: str, shape: Any, value: int, dtype: Any) -> Tensor:
    if isinstance(shape, _EXTENTS) and isinstance(dtype, _EXTENTS):
        raise ShapeError(f"{what}: the shape is one tuple: {what}(({shape}, {dtype}))")
    return _filled(what, shape, value, dtype)


def _filled(what: str, shape: Sequence[Any], value: Any, dtype: DTypeLike | None) -> Tensor:
    wanted = known_shape(shape, what)
    single = constant(value, dtype)
    if single.ndim:
        raise ShapeError(f"{what}: the value is one number, got shape {single.shape}; use broadcast_to")
    return broadcast_to(single, wanted)


def zeros(shape: Sequence[Any], dtype: DTypeLike = "float32") -> Tensor:
    """Zeros of ``shape``, whose extents may be symbolic."""
    return _zeros_or_ones("zeros", shape, 0, dtype)


def ones(shape: Sequence[Any], dtype: DTypeLike = "float32") -> Tensor:
    """Ones of ``shape``, whose extents may be symbolic."""
    return _zeros_or_ones("ones", shape, 1, dtype)


def eye(n_rows: Any, n_cols: Any = None, *, k: int = 0, dtype: DTypeLike = "float32") -> Tensor:
    """Ones on diagonal ``k`` (above the main one if positive) of an ``(n_rows, n_cols)`` matrix of zeros; square when
    ``n_cols`` is None.
    """
    rows, columns = arange(n_rows), arange(n_rows if n_cols is None else n_cols)
    return astype(equal(expand_dims(rows, 1) + _diagonal(k, "eye"), columns), dtype)


def _diagonal(k: Any, what: str) -> int:
    if not isinstance(k, (int, np.integer)) or isinstance(k, bool):
        raise ShapeError(f"{what}: k is an int, the number of a diagonal, got {k!r}")
    return int(k)


def linspace(start: float, stop: float, num: int, dtype: DTypeLike = "float32", *, endpoint: bool = True) -> Tensor:
    """``num`` evenly spaced numbers from ``start`` to ``stop``, which is the last of them unless ``endpoint`` is False.
    A constant: all three are numbers.
    """
    given = (start, stop, num)
    if not all(isinstance(v, (int, float, np.number)) for v in given) or not isinstance(num, (int, np.integer)):
        raise DTypeError(f"linspace: start and stop are numbers and num is an int, got {given!r}")
    if num < 0:
        raise ShapeError(f"linspace: num is at least 0, got {num}")
    values = np.linspace(float(start), float(stop), int(num), endpoint=bool(endpoint))
    return constant(values.astype(as_dtype(dtype)))


def tril(x: Any, k: int = 0) -> Tensor:
    """The last two axes of ``x`` with zeros above diagonal ``k``. Rank at least 2."""
    tensor, rows, columns = _matrix(x, "tril")
    return where(less_equal(columns, rows + _diagonal(k, "tril")), tensor, zeros_like(tensor))


def triu(x: Any, k: int = 0) -> Tensor:
    """The last two axes of ``x`` with zeros below diagonal ``k``. Rank at least 2."""
    tensor, rows, columns = _matrix(x, "triu")
    return where(less_equal(rows + _diagonal(k, "triu"), columns), tensor, zeros_like(tensor))


def _matrix(x: Any, what: str) -> tuple[Tensor, Tensor, Tensor]:
    """``x``, and the number of each row (as a column) and of each column."""
    tensor = as_tensor(x, what)
    if tensor.ndim < 2:
        raise ShapeError(f"{what}: needs at least two axes, got {tensor.describe()}")
    return tensor, expand_dims(arange(tensor.shape[-2]), 1), arange(tensor.shape[-1])
