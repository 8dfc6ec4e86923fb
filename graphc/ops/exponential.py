"""Exponentials, logarithms, and the functions made of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc import expr
from graphc.node import Tensor
from graphc.opdef import Domain
from graphc.ops.comparison import equal, logical_and, where
from graphc.ops.elementwise import abs, as_float, square
from graphc.ops.leaf import as_operands, zeros_like
from graphc.ops.rules import apply, binary_op, floating, unary_op, vjps

_POSITIVE = Domain(("f",), low=0.3)

EXP = unary_op(
    "exp", np.exp, vjps(lambda g, o, x: g * o), lambda b, a, x: b.unary("exp", x), cost=12, doc="e to the x."
)
EXP2 = unary_op(
    "exp2", np.exp2, vjps(lambda g, o, x: g * o * math.log(2)), lambda b, a, x: b.unary("exp2", x), cost=12,
    doc="2 to the x.",
)  # fmt: skip
EXPM1 = unary_op(
    "expm1", np.expm1, vjps(lambda g, o, x: g * exp(x)), lambda b, a, x: b.unary("expm1", x), cost=12,
    doc="exp(x) - 1, exact for small x.",
)  # fmt: skip
LOG = unary_op(
    "log", np.log, vjps(lambda g, o, x: g / x), lambda b, a, x: b.unary("log", x), cost=12, domain=_POSITIVE,
    doc="Natural logarithm.",
)  # fmt: skip
LOG1P = unary_op(
    "log1p", np.log1p, vjps(lambda g, o, x: g / (x + 1)), lambda b, a, x: b.unary("log1p", x), cost=12,
    domain=Domain(("f",), low=-0.7), doc="log(1 + x), exact for small x.",
)  # fmt: skip
LOG2 = unary_op(
    "log2", np.log2, vjps(lambda g, o, x: g / x * math.log2(math.e)), lambda b, a, x: b.unary("log2", x), cost=12,
    domain=_POSITIVE, doc="Logarithm to base 2.",
)  # fmt: skip
LOG10 = unary_op(
    "log10", np.log10, vjps(lambda g, o, x: g / x * math.log10(math.e)), lambda b, a, x: b.unary("log10", x), cost=12,
    domain=_POSITIVE, doc="Logarithm to base 10.",
)  # fmt: skip
TANH = unary_op(
    "tanh", np.tanh, vjps(lambda g, o, x: g * (1 - square(o))), lambda b, a, x: b.unary("tanh", x), cost=14,
    doc="Hyperbolic tangent.",
)  # fmt: skip
SIGMOID = unary_op(
    "sigmoid", expr.sigmoid, vjps(lambda g, o, x: g * (o * (1 - o))), lambda b, a, x: b.unary("sigmoid", x), cost=14,
    doc="Logistic function 1 / (1 + exp(-x)).",
)  # fmt: skip
_GAUSS = 2 / math.sqrt(math.pi)
ERF = unary_op(
    "erf", expr.erf, vjps(lambda g, o, x: g * (exp(-square(x)) * _GAUSS)), lambda b, a, x: b.unary("erf", x), cost=24,
    doc="Error function 2 / sqrt(pi) * integral of exp(-t**2) from 0 to x.",
)  # fmt: skip
ERFC = unary_op(
    "erfc", expr.erfc, vjps(lambda g, o, x: g * (exp(-square(x)) * -_GAUSS)), lambda b, a, x: b.unary("erfc", x),
    cost=36, doc="1 - erf(x), exact where erf rounds to 1.",
)  # fmt: skip


def _emit_logaddexp(b: Any, a: Any, x: Any, y: Any) -> Any:
    # Equal infinities differ by NaN; every pair of equals differs by 0.
    apart = b.select(b.compare("eq", x, y), b.literal(x, 0), b.sub(x, y))
    smaller = b.unary("exp", b.unary("neg", b.unary("abs", apart)))
    return b.add(b.binary("maximum", x, y), b.unary("log1p", smaller))


def _share(g: Tensor, mine: Tensor, other: Tensor) -> Tensor:
    """The cotangent's part by ``exp(mine) / (exp(mine) + exp(other))``; halves for equal infinities."""
    same_infinity = logical_and(equal(mine, other), equal(abs(mine), math.inf))
    return g * sigmoid(where(same_infinity, zeros_like(g), mine - other))


LOGADDEXP = binary_op(
    "logaddexp", np.logaddexp, vjps(lambda g, o, x, y: _share(g, x, y), lambda g, o, x, y: _share(g, y, x)),
    infer=floating, emit=_emit_logaddexp, commutative=True, cost=28, domain=Domain(("f", "f"), low=0.1),
    doc="log(exp(x) + exp(y)), without overflow.",
)  # fmt: skip


# The public functions.


def exp(x: Any) -> Tensor:
    """e to the power of ``x``."""
    return apply(EXP, as_float(x, "exp"))


def exp2(x: Any) -> Tensor:
    """2 to the power of ``x``; exact for whole ``x``."""
    return apply(EXP2, as_float(x, "exp2"))


def expm1(x: Any) -> Tensor:
    """``exp(x) - 1``, exact for small ``x``."""
    return apply(EXPM1, as_float(x, "expm1"))


def log(x: Any) -> Tensor:
    """Natural logarithm; -inf at 0, NaN below."""
    return apply(LOG, as_float(x, "log"))


def log1p(x: Any) -> Tensor:
    """``log(1 + x)``, exact for small ``x``."""
    return apply(LOG1P, as_float(x, "log1p"))


def log2(x: Any) -> Tensor:
    """Logarithm to base 2; exact for powers of 2, -inf at 0, NaN below."""
    return apply(LOG2, as_float(x, "log2"))


def log10(x: Any) -> Tensor:
    """Logarithm to base 10; exact for powers of 10 that are floats, -inf at 0, NaN below."""
    return apply(LOG10, as_float(x, "log10"))


def logaddexp(x: Any, y: Any) -> Tensor:
    """``log(exp(x) + exp(y))``, broadcast, without overflow; -inf where both are -inf."""
    left, right = as_operands("logaddexp", x, y)
    return apply(LOGADDEXP, as_float(left, "logaddexp"), as_float(right, "logaddexp"))


def tanh(x: Any) -> Tensor:
    """Hyperbolic tangent."""
    return apply(TANH, as_float(x, "tanh"))


def sigmoid(x: Any) -> Tensor:
    """Logistic function ``1 / (1 + exp(-x))``."""
    return apply(SIGMOID, as_float(x, "sigmoid"))


def erf(x: Any) -> Tensor:
    """Error function: ``2 / sqrt(pi)`` times the integral of ``exp(-t**2)`` from 0 to ``x``."""
    return apply(ERF, as_float(x, "erf"))


def erfc(x: Any) -> Tensor:
    """``1 - erf(x)``, exact where ``erf(x)`` rounds to 1."""
    return apply(ERFC, as_float(x, "erfc"))
