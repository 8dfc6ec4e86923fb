"""Powers, roots and reciprocals."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc import expr
from graphc.dtypes import is_float, is_weak, weak_dtype
from graphc.errors import DTypeError
from graphc.node import Tensor
from graphc.opdef import Domain
from graphc.ops.comparison import equal, logical_or, where
from graphc.ops.elementwise import as_float, square
from graphc.ops.exponential import log
from graphc.ops.leaf import as_operands, ones_like, zeros_like
from graphc.ops.rules import apply, binary_op, numeric, unary_op, vjps


def _for_base(g: Tensor, o: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """y * x**(y - 1); 0 for y = 0, also where x is 0."""
    return g * y * pow(x, where(equal(y, 0), zeros_like(y), y - 1))


def _for_exponent(g: Tensor, o: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """x**y * log(x); 0 where x**y is 0, or x is: there its limit is 0 for y above 0."""
    return g * o * log(where(logical_or(equal(o, 0), equal(x, 0)), ones_like(g), x))


POW = binary_op(
    "pow", expr.power, vjps(_for_base, _for_exponent), infer=numeric, cost=40, domain=Domain(("fiu", "fiu"), low=0.5),
    doc="First operand to the power of the second.",
)  # fmt: skip
SQRT = unary_op(
    "sqrt", np.sqrt, vjps(lambda g, o, x: g * 0.5 / o), lambda b, a, x: b.unary("sqrt", x), cost=4,
    domain=Domain(("f",), low=0.3), doc="Square root.",
)  # fmt: skip
RSQRT = unary_op(
    "rsqrt", lambda x: (1 / np.sqrt(x)).astype(x.dtype), vjps(lambda g, o, x: g * -0.5 * o / x),
    lambda b, a, x: b.div(b.literal(x, 1), b.unary("sqrt", x)), cost=8, domain=Domain(("f",), low=0.4),
    doc="1 / sqrt(x).",
)  # fmt: skip
RECIPROCAL = unary_op(
    "reciprocal", np.reciprocal, vjps(lambda g, o, x: -(g * square(o))), lambda b, a, x: b.div(b.literal(x, 1), x),
    cost=4, domain=Domain(("f",), low=0.5), doc="1 / x.",
)  # fmt: skip


# The public functions.


def pow(x: Any, y: Any) -> Tensor:
    """``x ** y``, broadcast. Integers give an integer that wraps around: where an exponent is negative, the power
    without its fraction (0, 1 or -1).

    Raises ``DTypeError`` for a negative Python integer as the exponent of integers.
    """
    if is_weak(y) and isinstance(x, Tensor) and x.dtype.kind in "iu" and weak_dtype(y, x.dtype).kind != "f" and y < 0:
        raise DTypeError(
            f"pow: integers to the power {y} are fractions; got {x.describe()}; convert it with .astype('float32')"
        )
    whole = isinstance(y, (int, float)) and y in (0, 1, 2, 3, 4)
    if whole and isinstance(x, Tensor) and (is_float(x.dtype) or (isinstance(y, int) and x.dtype.kind in "iu")):
        return _small_power(x, int(y))
    return apply(POW, *as_operands("pow", x, y))


def _small_power(x: Tensor, exponent: int) -> Tensor:
    if exponent == 0:  # a choice, so that there is a derivative, which is zero
        return where(True, ones_like(x), x)
    if exponent == 1:
        return x
    squared = square(x)
    if exponent == 4:
        return square(squared)
    return squared if exponent == 2 else squared * x


def sqrt(x: Any) -> Tensor:
    """Square root; NaN below 0."""
    return apply(SQRT, as_float(x, "sqrt"))


def rsqrt(x: Any) -> Tensor:
    """``1 / sqrt(x)``; inf at 0, NaN below."""
    return apply(RSQRT, as_float(x, "rsqrt"))


def reciprocal(x: Any) -> Tensor:
    """``1 / x``; integers become float32."""
    return apply(RECIPROCAL, as_float(x, "reciprocal"))
