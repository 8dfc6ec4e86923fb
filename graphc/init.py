"""Initialisers: how a parameter's first value is drawn, deterministically from the session's seed.

Fan-in and fan-out follow the weight layout (in, out). Formulas: X. Glorot and Y. Bengio, AISTATS 2010; K. He et al.,
ICCV 2015.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from graphc.errors import ArgumentError

Array = np.ndarray[Any, Any]


@runtime_checkable
class Initializer(Protocol):
    """Draws a first value: an array of ``shape`` and ``dtype``, from ``rng`` alone."""

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> Array: ...


@dataclass(frozen=True)
class _Full:
    value: float

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
        return np.full(shape, self.value, dtype)


@dataclass(frozen=True)
class _Normal:
    mean: float
    std: float

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
        return (self.mean + self.std * rng.standard_normal(shape)).astype(dtype)


@dataclass(frozen=True)
class _Uniform:
    low: float
    high: float

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
        drawn = rng.uniform(self.low, self.high, shape).astype(dtype)
        # Rounding to the dtype can reach high. It does so for half of the last gap, and low had only half of the first.
        return np.where(drawn >= float(self.high), dtype.type(self.low), drawn)


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) < 2:
        n = shape[0] if shape else 1
        return n, n
    receptive = math.prod(shape[:-2])
    return shape[-2] * receptive, shape[-1] * receptive


@dataclass(frozen=True)
class _Scaled:
    """Variance ``gain / fan``, with the fan taken by ``mode``: "in", or the average of in and out."""

    gain: float
    mode: str
    uniform: bool

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
        fan_in, fan_out = _fans(shape)
        fan = fan_in if self.mode == "in" else (fan_in + fan_out) / 2
        std = math.sqrt(self.gain / max(fan, 1))
        if self.uniform:
            limit = math.sqrt(3.0) * std
            return rng.uniform(-limit, limit, shape).astype(dtype)
        return (std * rng.standard_normal(shape)).astype(dtype)


def zeros() -> Initializer:
    """All 0."""
    return _Full(0.0)


def ones() -> Initializer:
    """All 1."""
    return _Full(1.0)


def constant(value: float) -> Initializer:
    """All ``value``."""
    return _Full(value)


def normal(mean: float = 0.0, std: float = 1.0) -> Initializer:
    """Normal with the given mean and standard deviation. Raises ``ArgumentError`` for a negative ``std``."""
    if not std >= 0:
        raise ArgumentError(f"init.normal: std must be at least 0, got {std}")
    return _Normal(mean, std)


def uniform(low: float = 0.0, high: float = 1.0) -> Initializer:
    """Uniform in ``[low, high)``. Raises ``ArgumentError`` when low exceeds high, or their difference is infinite."""
    if not low <= high:
        raise ArgumentError(f"init.uniform: low must not exceed high, got low={low} and high={high}")
    if not math.isfinite(high - low):
        raise ArgumentError(f"init.uniform: high - low must be finite, got low={low} and high={high}")
    return _Uniform(low, high)


def glorot_uniform() -> Initializer:
    """Uniform with variance ``2 / (fan_in + fan_out)``, for tanh and sigmoid networks."""
    return _Scaled(1.0, "average", True)


def glorot_normal() -> Initializer:
    """Normal with variance ``2 / (fan_in + fan_out)``."""
    return _Scaled(1.0, "average", False)


def he_uniform() -> Initializer:
    """Uniform with variance ``2 / fan_in``, for ReLU networks."""
    return _Scaled(2.0, "in", True)


def he_normal() -> Initializer:
    """Normal with variance ``2 / fan_in``, for ReLU networks."""
    return _Scaled(2.0, "in", False)
