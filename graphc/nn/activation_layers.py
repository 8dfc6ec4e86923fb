"""Activations as layers, for use in ``Sequential``; each is the function of the same name."""

from __future__ import annotations

from typing import Any

from graphc import init as initializers
from graphc.dtypes import DTypeLike
from graphc.nn import activations
from graphc.nn.module import Module, check_float, layer_name
from graphc.node import Tensor
from graphc.ops import log_softmax, relu, sigmoid, softmax, tanh
from graphc.state import parameter


class ReLU(Module):
    """``max(x, 0)`` as a module."""

    def forward(self, x: Any) -> Tensor:
        return relu(x)


class ReLU6(Module):
    """``min(max(x, 0), 6)`` as a module."""

    def forward(self, x: Any) -> Tensor:
        return activations.relu6(x)


class LeakyReLU(Module):
    """``leaky_relu`` as a module."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Any) -> Tensor:
        return activations.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class PReLU(Module):
    """``prelu`` as a module with the parameter ``weight``: one number, or ``count`` of them along the last axis, each
    starting at ``start``. Raises ``DTypeError`` for a dtype that is not float.
    """

    def __init__(
        self, count: int = 1, start: float = 0.25, *, dtype: DTypeLike = "float32", name: str | None = None
    ) -> None:
        check_float(dtype, "PReLU")
        name = f"{layer_name(self, name)}.weight"
        self.weight = parameter(initializers.constant(start), (count,), dtype, name)

    def forward(self, x: Any) -> Tensor:
        return activations.prelu(x, self.weight)

    def extra_repr(self) -> str:
        return f"count={self.weight.shape[0]}"


class ELU(Module):
    """``elu`` as a module."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def forward(self, x: Any) -> Tensor:
        return activations.elu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class SELU(Module):
    """``selu`` as a module."""

    def forward(self, x: Any) -> Tensor:
        return activations.selu(x)


class GELU(Module):
    """``gelu`` as a module."""

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Any) -> Tensor:
        return activations.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """``silu`` as a module."""

    def forward(self, x: Any) -> Tensor:
        return activations.silu(x)


class Mish(Module):
    """``mish`` as a module."""

    def forward(self, x: Any) -> Tensor:
        return activations.mish(x)


class Softplus(Module):
    """``softplus`` as a module."""

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = beta

    def forward(self, x: Any) -> Tensor:
        return activations.softplus(x, self.beta)

    def extra_repr(self) -> str:
        return f"beta={self.beta}"


class Hardtanh(Module):
    """``hardtanh`` as a module."""

    def __init__(self, low: float = -1.0, high: float = 1.0) -> None:
        self.low, self.high = low, high

    def forward(self, x: Any) -> Tensor:
        return activations.hardtanh(x, self.low, self.high)

    def extra_repr(self) -> str:
        return f"low={self.low}, high={self.high}"


class Hardswish(Module):
    """``hardswish`` as a module."""

    def forward(self, x: Any) -> Tensor:
        return activations.hardswish(x)


class Tanh(Module):
    """Hyperbolic tangent as a module."""

    def forward(self, x: Any) -> Tensor:
        return tanh(x)


class Sigmoid(Module):
    """Logistic function as a module."""

    def forward(self, x: Any) -> Tensor:
        return sigmoid(x)


class Softmax(Module):
    """``softmax`` along ``axis`` as a module."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Any) -> Tensor:
        return softmax(x, self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


class LogSoftmax(Module):
    """``log_softmax`` along ``axis`` as a module."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Any) -> Tensor:
        return log_softmax(x, self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"
