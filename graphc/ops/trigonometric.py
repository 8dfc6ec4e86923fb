"""Trigonometric and hyperbolic functions, their inverses, and the length and angle of a vector."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.node import Tensor
from graphc.opdef import Domain, OpDef
from graphc.ops.comparison import equal, where
from graphc.ops.elementwise import as_float, square
from graphc.ops.leaf import as_operands, ones_like
from graphc.ops.power import rsqrt, sqrt
from graphc.ops.rules import apply, binary_op, floating, unary_op, vjps


def _function(
    name: str, numpy: Any, derivative: Any, doc: str, *, cost: int = 24, low: float = -2.0, high: float = 2.0
) -> OpDef:
    """A row whose primitive has its name; ``derivative(g, o, x)`` is the cotangent of x."""
    return unary_op(
        name, numpy, vjps(derivative), lambda b, a, x: b.unary(name, x), cost=cost,
        domain=Domain(("f",), low=low, high=high), doc=doc,
    )  # fmt: skip


def _leg(x: Tensor) -> Tensor:
    """1 / sqrt(1 - x**2), without cancellation near 1."""
    return rsqrt((1 - x) * (1 + x))


SIN = _function("sin", np.sin, lambda g, o, x: g * cos(x), "Sine of x in radians.")
COS = _function("cos", np.cos, lambda g, o, x: -(g * sin(x)), "Cosine of x in radians.")
TAN = _function(
    "tan", np.tan, lambda g, o, x: g * (1 + square(o)), "Tangent of x in radians.", cost=32, low=-0.9, high=0.9
)
ASIN = _function("asin", np.arcsin, lambda g, o, x: g * _leg(x), "The angle with sine x.", low=-0.6, high=0.6)
ACOS = _function("acos", np.arccos, lambda g, o, x: -(g * _leg(x)), "The angle with cosine x.", low=-0.6, high=0.6)
ATAN = _function("atan", np.arctan, lambda g, o, x: g / (1 + square(x)), "The angle with tangent x.")
SINH = _function("sinh", np.sinh, lambda g, o, x: g * cosh(x), "Hyperbolic sine.")
COSH = _function("cosh", np.cosh, lambda g, o, x: g * sinh(x), "Hyperbolic cosine.")
ASINH = _function("asinh", np.arcsinh, lambda g, o, x: g / hypot(x, ones_like(x)), "Inverse of sinh.")
ACOSH = _function(
    "acosh", np.arccosh, lambda g, o, x: g / (sqrt(x - 1) * sqrt(x + 1)), "Inverse of cosh.", low=1.6, high=3.0
)
ATANH = _function("atanh", np.arctanh, lambda g, o, x: g / ((1 - x) * (1 + x)), "Inverse of tanh.", low=-0.6, high=0.6)


def _nonzero(length: Tensor) -> Tensor:
    """A length to divide by: 1 where it is 0, so that the direction of the origin is 0."""
    return where(equal(length, 0), ones_like(length), length)


def _over_square(x: Tensor, y: Tensor, other: Tensor) -> Tensor:
    """x / (y**2 + other**2), without overflow; 0 at the origin."""
    length = _nonzero(hypot(y, other))
    return x / length / length


_PLANE = Domain(("f", "f"), low=0.4)
HYPOT = binary_op(
    "hypot", np.hypot, vjps(lambda g, o, x, y: g * (x / _nonzero(o)), lambda g, o, x, y: g * (y / _nonzero(o))),
    infer=floating, commutative=True, cost=16, domain=_PLANE, doc="sqrt(x**2 + y**2), without overflow.",
)  # fmt: skip
ATAN2 = binary_op(
    "atan2", np.arctan2,
    vjps(lambda g, o, y, x: g * _over_square(x, y, x), lambda g, o, y, x: -(g * _over_square(y, y, x))),
    infer=floating, cost=32, domain=_PLANE, doc="The angle of the point (x, y), from -pi to pi; y comes first.",
)  # fmt: skip


# The public functions.


def sin(x: Any) -> Tensor:
    """Sine of ``x`` in radians; NaN for infinities."""
    return apply(SIN, as_float(x, "sin"))


def cos(x: Any) -> Tensor:
    """Cosine of ``x`` in radians; NaN for infinities."""
    return apply(COS, as_float(x, "cos"))


def tan(x: Any) -> Tensor:
    """Tangent of ``x`` in radians; NaN for infinities."""
    return apply(TAN, as_float(x, "tan"))


def asin(x: Any) -> Tensor:
    """The angle from -pi/2 to pi/2 with sine ``x``; NaN outside -1 to 1."""
    return apply(ASIN, as_float(x, "asin"))


def acos(x: Any) -> Tensor:
    """The angle from 0 to pi with cosine ``x``; NaN outside -1 to 1."""
    return apply(ACOS, as_float(x, "acos"))


def atan(x: Any) -> Tensor:
    """The angle from -pi/2 to pi/2 with tangent ``x``."""
    return apply(ATAN, as_float(x, "atan"))


def atan2(y: Any, x: Any) -> Tensor:
    """The angle of the point (``x``, ``y``), from -pi to pi, broadcast; ``y`` comes first. Zeros have signs, as in C.

    At the origin, where it has no derivative, the cotangents are 0.
    """
    return apply(ATAN2, *(as_float(t, "atan2") for t in as_operands("atan2", y, x)))


def hypot(x: Any, y: Any) -> Tensor:
    """``sqrt(x**2 + y**2)``, broadcast, without overflow; inf if one is infinite. Cotangents are 0 at the origin."""
    return apply(HYPOT, *(as_float(t, "hypot") for t in as_operands("hypot", x, y)))


def sinh(x: Any) -> Tensor:
    """Hyperbolic sine."""
    return apply(SINH, as_float(x, "sinh"))


def cosh(x: Any) -> Tensor:
    """Hyperbolic cosine."""
    return apply(COSH, as_float(x, "cosh"))


def asinh(x: Any) -> Tensor:
    """Inverse hyperbolic sine."""
    return apply(ASINH, as_float(x, "asinh"))


def acosh(x: Any) -> Tensor:
    """Inverse hyperbolic cosine, 0 or more; NaN below 1."""
    return apply(ACOSH, as_float(x, "acosh"))


def atanh(x: Any) -> Tensor:
    """Inverse hyperbolic tangent; infinite at -1 and 1, NaN beyond."""
    return apply(ATANH, as_float(x, "atanh"))
