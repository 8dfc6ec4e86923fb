"""Hyperparameters: numbers, or float scalar tensors, checked where they are given."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any, TypeAlias

from graphc.dtypes import DType, is_float
from graphc.errors import UpdateError
from graphc.node import Tensor

Hyperparameter: TypeAlias = float | Tensor


def positive(value: Any, what: str) -> Hyperparameter:
    """A number above 0."""
    return _checked(value, what, "above 0", lambda v: 0 < v < math.inf)


def not_negative(value: Any, what: str) -> Hyperparameter:
    """A number of at least 0."""
    return _checked(value, what, "at least 0", lambda v: 0 <= v < math.inf)


def number(value: Any, what: str) -> float:
    """A number of at least 0, known now."""
    known = not_negative(value, what)
    if isinstance(known, Tensor):
        raise UpdateError(f"{what} must be a number, at least 0, got {known.describe()}")
    return known


def fraction(value: Any, what: str) -> Hyperparameter:
    """A number of at least 0 and less than 1."""
    return _checked(value, what, "at least 0 and less than 1", lambda v: 0 <= v < 1)


def whole(value: Any, what: str) -> int:
    """A whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise UpdateError(f"{what} must be a whole number of at least 1, got {value!r}")
    return int(value)


def in_dtype(value: Hyperparameter, dtype: DType) -> Hyperparameter:
    """A hyperparameter as it enters arithmetic in ``dtype``: numbers are weak as they are."""
    return value.astype(dtype) if isinstance(value, Tensor) else value


def _checked(value: Any, what: str, rule: str, holds: Callable[[float], bool]) -> Hyperparameter:
    """A number for which ``holds``, or a float scalar tensor, whose value nobody knows yet."""
    if isinstance(value, Tensor):
        if value.ndim or not is_float(value.dtype):
            raise UpdateError(f"{what} must be a number or a float scalar, got {value.describe()}")
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not holds(float(value)):
        raise UpdateError(f"{what} must be a number, {rule}, got {value!r}")
    return float(value)
