"""Activations, in the formulas and with the defaults of ``torch.nn.functional``.

Values and derivatives of every order stay finite for finite arguments of any size, and exact to rounding: what would
overflow, or meet an infinity as 0 * inf, is replaced before it is computed, not after. A kink has the derivative of its
left side, as in PyTorch. Integers become float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphc.custom import custom_gradient
from graphc.dtypes import float32
from graphc.errors import ArgumentError
from graphc.node import Tensor
from graphc.ops import (
    abs,
    erfc,
    exp,
    expm1,
    greater,
    greater_equal,
    less,
    less_equal,
    logaddexp,
    sigmoid,
    sign,
    square,
    tanh,
    where,
)
from graphc.ops.elementwise import as_float
from graphc.ops.leaf import as_tensor

__all__ = [
    "celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_sigmoid", "mish", "prelu",
    "relu6", "selu", "silu", "softplus", "softsign", "tanhshrink",
]  # fmt: skip
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


# Piecewise linear ones.


def hardtanh(x: Any, low: float = -1.0, high: float = 1.0) -> Tensor:
    """``x`` kept within ``low`` and ``high``; derivative 0 at both ends. Raises ``ArgumentError`` if low >= high."""
    if not low < high:
        raise ArgumentError(f"hardtanh: low must be less than high, got low={low} and high={high}")
    tensor = as_float(x, "hardtanh")
    return _between(tensor, low, high, tensor, low, high)


def relu6(x: Any) -> Tensor:
    """``min(max(x, 0), 6)``; derivative 0 at both ends."""
    return hardtanh(as_float(x, "relu6"), 0.0, 6.0)


def hardsigmoid(x: Any) -> Tensor:
    """``relu6(x + 3) / 6``."""
    tensor = as_float(x, "hardsigmoid")
    return _between(tensor, -3.0, 3.0, tensor / 6 + 0.5, 0.0, 1.0)


def hardswish(x: Any) -> Tensor:
    """``x * relu6(x + 3) / 6``."""
    tensor = as_float(x, "hardswish")
    inner = where(greater_equal(abs(tensor), 3), 0, tensor)
    return _between(tensor, -3.0, 3.0, inner * (inner + 3) / 6, 0.0, tensor)


def leaky_relu(x: Any, negative_slope: float = 0.01) -> Tensor:
    """``x`` above 0, ``negative_slope * x`` below."""
    tensor = as_float(x, "leaky_relu")
    return where(greater(tensor, 0), tensor, tensor * negative_slope)


def prelu(x: Any, weight: Any) -> Tensor:
    """``x`` above 0, ``weight * x`` below; ``weight`` broadcasts."""
    tensor = as_float(x, "prelu")
    above = greater(tensor, 0)
    return where(above, tensor, as_tensor(weight, "prelu: weight") * where(above, 0, tensor))


# Exponential below 0.


def elu(x: Any, alpha: float = 1.0) -> Tensor:
    """``x`` above 0, ``alpha * (exp(x) - 1)`` below."""
    tensor = as_float(x, "elu")
    above = greater(tensor, 0)
    return where(above, tensor, alpha * expm1(where(above, 0, tensor)))


def selu(x: Any) -> Tensor:
    """``scale * elu(x, alpha)`` with the constants that keep mean 0 and variance 1 (G. Klambauer et al., NeurIPS
    2017).
    """
    return _SELU_SCALE * elu(as_float(x, "selu"), _SELU_ALPHA)


def celu(x: Any, alpha: float = 1.0) -> Tensor:
    """``x`` above 0, ``alpha * (exp(x / alpha) - 1)`` below. Raises ``ArgumentError`` unless alpha > 0."""
    if not alpha > 0:
        raise ArgumentError(f"celu: alpha must be positive, got {alpha}")
    tensor = as_float(x, "celu")
    above = greater(tensor, 0)
    return where(above, tensor, alpha * expm1(where(above, 0, tensor) / alpha))


# x times a gate that rises from 0 to 1.


def silu(x: Any) -> Tensor:
    """``x * sigmoid(x)``, also called swish."""
    return _gated(as_float(x, "silu"), sigmoid, lambda t, gate: gate * (1 - gate))


def mish(x: Any) -> Tensor:
    """``x * tanh(softplus(x))``."""
    return _gated(
        as_float(x, "mish"), lambda t: tanh(softplus(t)), lambda t, gate: (1 - square(gate)) * sigmoid(t)
    )  # fmt: skip


def gelu(x: Any, approximate: str = "none") -> Tensor:
    """``x`` times the probability that a standard normal number is below ``x`` (D. Hendrycks and K. Gimpel, 2016).

    ``approximate="tanh"`` takes ``x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2``. Raises
    ``ArgumentError`` for another word.
    """
    if approximate not in ("none", "tanh"):
        raise ArgumentError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    # Neither gate is written as 1 plus what goes to -1, of which little is left below 0.
    if approximate == "none":
        return _gated(
            as_float(x, "gelu"), lambda t: 0.5 * erfc(t * -math.sqrt(0.5)),
            lambda t, gate: exp(square(t) * -0.5) * math.sqrt(0.5 / math.pi),
        )  # fmt: skip
    once = math.sqrt(8 / math.pi)
    cubed = 0.044715 * once
    return _gated(
        as_float(x, "gelu"), lambda t: sigmoid(t * (once + cubed * square(t))),
        lambda t, gate: gate * (1 - gate) * (once + 3 * cubed * square(t)),
    )  # fmt: skip


# Smooth ones of other kinds.


def softplus(x: Any, beta: float = 1.0) -> Tensor:
    """``log(1 + exp(beta * x)) / beta``, without overflow and without PyTorch's threshold, for which there is no need.
    Raises ``ArgumentError`` unless beta > 0.
    """
    if not beta > 0:
        raise ArgumentError(f"softplus: beta must be positive, got {beta}")
    tensor = as_float(x, "softplus")
    if beta == 1:
        return logaddexp(tensor, 0)
    scaled = tensor * beta
    linear = greater(scaled, _limit(tensor))
    return where(linear, tensor, logaddexp(where(linear, 0, scaled), 0) / beta)


def log_sigmoid(x: Any) -> Tensor:
    """``log(sigmoid(x))``, exact where sigmoid underflows."""
    return -logaddexp(-as_float(x, "log_sigmoid"), 0)


def softsign(x: Any) -> Tensor:
    """``x / (1 + |x|)``."""
    tensor = as_float(x, "softsign")
    # For a large x all but the last digits of the quotient are those of 1, and its derivative is what is left.
    small = less(abs(tensor), 1)
    inner, outer = where(small, tensor, 0), where(small, 1, tensor)
    return where(small, inner / (1 + abs(inner)), sign(outer) * (1 - 1 / (1 + abs(outer))))


def tanhshrink(x: Any) -> Tensor:
    """``x - tanh(x)``."""
    tensor = as_float(x, "tanhshrink")
    return tensor - tanh(tensor)


def _between(x: Tensor, low: float, high: float, inside: Tensor, below: float, above: Any) -> Tensor:
    """``inside`` between ``low`` and ``high``, ``below`` and ``above`` at and beyond them; NaN is taken as inside."""
    return where(less_equal(x, low), below, where(greater_equal(x, high), above, inside))


def _limit(x: Tensor) -> float:
    """A number whose ``exp(-limit) * limit**2`` is below the least positive one of the dtype."""
    return 128.0 if x.dtype == float32 else 768.0


def _gated(x: Tensor, gate: Callable[[Tensor], Tensor], slope: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """``x * gate(x)``, where ``slope(x, gate(x))`` is the gate's derivative. Beyond the limit the gate is 0 or 1 to the
    last bit, and x to any power times any derivative of it is 0; so it is computed at the limit there.
    """
    limit = _limit(x)

    def within(x: Tensor) -> tuple[Tensor, Tensor]:
        above = where(less(x, -limit), -limit, x)
        return above, where(greater(above, limit), limit, above)

    def forward(x: Tensor) -> Tensor:
        above, inner = within(x)
        return above * gate(inner)

    def derivative(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
        _, inner = within(x)
        opened = gate(inner)
        return g * (opened + inner * slope(inner, opened))

    gated: Tensor = custom_gradient(forward, derivative)(x)
    return gated
