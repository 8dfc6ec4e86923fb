"""Normalisation: layer norm, RMS norm, batch norm, as functions and as layers.

Means and variances are taken in two passes over the data, ``mean((x - mean(x))**2)``: the difference of the mean square
and the squared mean would lose every digit where the mean is large.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphc import init as initializers
from graphc.dims import Extent, product
from graphc.dtypes import DTypeLike
from graphc.errors import ArgumentError, ShapeError
from graphc.nn.module import Module, check_float, layer_name
from graphc.nn.reduction import may_be_equal, show
from graphc.node import Node, Tensor
from graphc.ops import divide, expand_dims, maximum, mean, rsqrt, square, squeeze
from graphc.ops.elementwise import as_float
from graphc.ops.leaf import as_tensor, extent_value
from graphc.ops.shape import normalize_axes, normalize_axis
from graphc.state import Update, assign, parameter

Axis = int | tuple[int, ...]


def layer_norm(x: Any, axis: Axis = -1, weight: Any = None, bias: Any = None, *, epsilon: float = 1e-5) -> Tensor:
    """``(x - mean) / sqrt(variance + epsilon) * weight + bias`` over the axes ``axis`` (J. Ba et al., 2016).

    ``weight`` and ``bias`` have the shape of those axes. Raises ``ShapeError``.
    """
    tensor = as_float(x, "layer_norm")
    axes = normalize_axes(axis, tensor.ndim, "layer_norm")
    centred = tensor - mean(tensor, axes, keepdims=True)
    scaled = centred * rsqrt(mean(square(centred), axes, keepdims=True) + epsilon)
    return _affine(scaled, weight, bias, axes, "layer_norm")


def rms_norm(x: Any, axis: Axis = -1, weight: Any = None, *, epsilon: float | None = None) -> Tensor:
    """``x / sqrt(mean(x**2) + epsilon) * weight`` over the axes ``axis`` (B. Zhang and R. Sennrich, NeurIPS 2019).

    ``weight`` has the shape of those axes. ``epsilon=None`` takes the gap between 1 and the next number of the dtype.
    Raises ``ShapeError``.
    """
    tensor = as_float(x, "rms_norm")
    axes = normalize_axes(axis, tensor.ndim, "rms_norm")
    if epsilon is None:
        epsilon = float(np.finfo(tensor.dtype).eps)
    scaled = tensor * rsqrt(mean(square(tensor), axes, keepdims=True) + epsilon)
    return _affine(scaled, weight, None, axes, "rms_norm")


def batch_norm(
    x: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None, *,
    training: bool = False, axis: int = 1, epsilon: float = 1e-5,
) -> Tensor:  # fmt: skip
    """``(x - mean) / sqrt(variance + epsilon) * weight + bias`` for each channel along ``axis`` (S. Ioffe and
    C. Szegedy, ICML 2015).

    ``training=True`` takes mean and variance over all other axes of ``x``, else they are ``running_mean`` and
    ``running_var``. These, ``weight`` and ``bias`` have one number for each channel. Nothing is updated: the layer
    ``BatchNorm`` keeps running values. Raises ``ShapeError``, and ``ArgumentError`` when running values are missing.
    """
    tensor = as_float(x, "batch_norm")
    channel = normalize_axis(axis, tensor.ndim, "batch_norm")
    if training:
        centre, variance = _statistics(tensor, channel)
    elif running_mean is None or running_var is None:
        raise ArgumentError("batch_norm: without training=True it needs running_mean and running_var")
    else:
        centre = _aligned(running_mean, tensor, (channel,), "batch_norm: running_mean")
        variance = _aligned(running_var, tensor, (channel,), "batch_norm: running_var")
    return _normalised(tensor, centre, variance, weight, bias, channel, epsilon)


def _normalised(
    x: Tensor, centre: Tensor, variance: Tensor, weight: Any, bias: Any, channel: int, epsilon: float
) -> Tensor:
    return _affine((x - centre) * rsqrt(variance + epsilon), weight, bias, (channel,), "batch_norm")


def _statistics(x: Tensor, channel: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel, with the other axes at extent 1."""
    others = tuple(a for a in range(x.ndim) if a != channel)
    if not others:
        raise ShapeError(f"batch_norm: the input needs an axis besides that of channels, got {x.describe()}")
    centre = mean(x, others, keepdims=True)
    return centre, mean(square(x - centre), others, keepdims=True)


def _affine(x: Tensor, weight: Any, bias: Any, axes: tuple[int, ...], what: str) -> Tensor:
    if weight is not None:
        x = x * _aligned(weight, x, axes, f"{what}: weight")
    return x if bias is None else x + _aligned(bias, x, axes, f"{what}: bias")


def _aligned(value: Any, x: Tensor, axes: tuple[int, ...], what: str) -> Tensor:
    """A tensor in the shape of ``axes`` of ``x``, with the axes between and behind them at extent 1."""
    tensor = as_tensor(value, what)
    expected = tuple(x.shape[a] for a in axes)
    if not may_be_equal(tensor.shape, expected):
        raise ShapeError(
            f"{what} must have the shape of the normalised axes, {show(expected)}, got {show(tensor.shape)}"
            f"\n  input: {x.describe()}\n  {what.rpartition(' ')[2]}: {tensor.describe()}"
        )
    missing = tuple(a - axes[0] for a in range(axes[0], x.ndim) if a not in axes)
    return expand_dims(tensor, missing) if missing else tensor


class LayerNorm(Module):
    """Layer norm over the trailing axes, of extents ``shape`` (an int for the last axis alone).

    ``weight`` starts at 1 and ``bias`` at 0; both have ``shape``, and are None with ``affine=False``, the bias also
    with ``bias=False``. Raises ``DTypeError`` for a dtype that is not float.
    """

    def __init__(
        self, shape: int | Sequence[int], epsilon: float = 1e-5, affine: bool = True, bias: bool = True, *,
        dtype: DTypeLike = "float32", name: str | None = None,
    ) -> None:  # fmt: skip
        self.shape = _as_extents(shape)
        self.epsilon = epsilon
        self.weight, self.bias = _scale_and_shift(self, self.shape, affine, affine and bias, dtype, name)

    def forward(self, x: Any) -> Tensor:
        tensor = _trailing(x, self.shape, "LayerNorm")
        return layer_norm(tensor, _last(self.shape), self.weight, self.bias, epsilon=self.epsilon)

    def extra_repr(self) -> str:
        return f"shape={self.shape}, epsilon={self.epsilon}"


class RMSNorm(Module):
    """RMS norm over the trailing axes, of extents ``shape`` (an int for the last axis alone).

    ``weight`` starts at 1 and has ``shape``; it is None with ``affine=False``. Raises ``DTypeError`` for a dtype that
    is not float.
    """

    def __init__(
        self, shape: int | Sequence[int], epsilon: float | None = None, affine: bool = True, *,
        dtype: DTypeLike = "float32", name: str | None = None,
    ) -> None:  # fmt: skip
        self.shape = _as_extents(shape)
        self.epsilon = epsilon
        self.weight, _ = _scale_and_shift(self, self.shape, affine, False, dtype, name)

    def forward(self, x: Any) -> Tensor:
        return rms_norm(_trailing(x, self.shape, "RMSNorm"), _last(self.shape), self.weight, epsilon=self.epsilon)

    def extra_repr(self) -> str:
        return f"shape={self.shape}, epsilon={self.epsilon}"


class BatchNorm(Module):
    """Batch norm of ``channels`` along ``axis``.

    The call says which graph it is in: with ``model(x, training=True)`` mean and variance are the batch's, and with
    ``training=False`` the running ones. ``model.updates(loss)`` is the update that moves these, to run with the
    optimiser's:

        running = (1 - momentum) * running + momentum * batch

    where the batch's variance is the unbiased one, as in PyTorch (0 for one sample). ``running_mean`` starts at 0,
    ``running_var`` at 1; neither is trainable. ``weight`` starts at 1 and ``bias`` at 0; both are None with
    ``affine=False``. Raises ``DTypeError`` for a dtype that is not float.
    """

    def __init__(
        self, channels: int, axis: int = 1, epsilon: float = 1e-5, momentum: float = 0.1, affine: bool = True, *,
        dtype: DTypeLike = "float32", name: str | None = None,
    ) -> None:  # fmt: skip
        self.channels, self.axis, self.epsilon, self.momentum = channels, axis, epsilon, momentum
        name = layer_name(self, name)
        self.weight, self.bias = _scale_and_shift(self, (channels,), affine, affine, dtype, name)
        self.running_mean, self.running_var = (
            parameter(start, (channels,), dtype, f"{name}.{what}", trainable=False)
            for what, start in (("running_mean", initializers.zeros()), ("running_var", initializers.ones()))
        )

    def forward(self, x: Any) -> Tensor:
        tensor = as_float(x, "BatchNorm")
        channel = normalize_axis(self.axis, tensor.ndim, "BatchNorm")
        if not self.training:
            running = self.running_mean, self.running_var
            return batch_norm(tensor, *running, self.weight, self.bias, axis=channel, epsilon=self.epsilon)
        centre, variance = _statistics(tensor, channel)
        count = product(e for a, e in enumerate(tensor.shape) if a != channel)
        _batches.setdefault(self, []).append((weakref.ref(centre), weakref.ref(variance), count))
        return _normalised(tensor, centre, variance, self.weight, self.bias, channel, self.epsilon)

    def own_updates(self, used: set[Node]) -> Iterable[Update]:
        means, variances = [], []
        for centre, variance, count in ((m(), v(), n) for m, v, n in _batches.get(self, ())):
            if centre is not None and variance is not None and centre.node in used:
                others = tuple(
                    a for a in range(centre.ndim) if a != normalize_axis(self.axis, centre.ndim, "BatchNorm")
                )
                means.append(squeeze(centre, others))
                variances.append(squeeze(variance * _unbiased(count, variance), others))
        for running, batches in ((self.running_mean, means), (self.running_var, variances)):
            value = running
            for batch in batches:
                value = value * (1 - self.momentum) + self.momentum * batch.astype(running.dtype)
            if batches:
                yield assign(running, value)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, axis={self.axis}, epsilon={self.epsilon}, momentum={self.momentum}"


# What each batch norm computed of the batches it was called with; the graphs decide how long it lives.
_Batch = tuple["weakref.ref[Tensor]", "weakref.ref[Tensor]", Extent]
_batches: weakref.WeakKeyDictionary[BatchNorm, list[_Batch]] = weakref.WeakKeyDictionary()


def _unbiased(count: Extent, like: Tensor) -> Tensor:
    """``count / (count - 1)``, which makes a mean square an estimate of the variance without bias."""
    total = extent_value(count, like.dtype)
    return divide(total, maximum(total - 1, 1))


def _as_extents(shape: int | Sequence[int]) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(range(-len(shape), 0))


def _trailing(x: Any, shape: tuple[int, ...], what: str) -> Tensor:
    tensor = as_float(x, what)
    if tensor.ndim < len(shape) or not may_be_equal(tensor.shape[tensor.ndim - len(shape) :], shape):
        raise ShapeError(f"{what}: the last extents of the input must be {show(shape)}, got {tensor.describe()}")
    return tensor


def _scale_and_shift(
    layer: Module, shape: tuple[int, ...], scale: bool, shift: bool, dtype: DTypeLike, name: str | None
) -> tuple[Tensor | None, Tensor | None]:
    """The parameters ``weight`` and ``bias`` of a layer."""
    check_float(dtype, type(layer).__name__)
    name = layer_name(layer, name)
    weight = parameter(initializers.ones(), shape, dtype, f"{name}.weight") if scale else None
    return weight, parameter(initializers.zeros(), shape, dtype, f"{name}.bias") if shift else None
