"""Rounding, division with a remainder, and questions about a number's kind and sign."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.node import Tensor
from graphc.opdef import Domain, OpDef
from graphc.ops.elementwise import sign
from graphc.ops.leaf import as_operands, as_tensor, ones_like, zeros_like
from graphc.ops.rules import DISCRETE, STEPWISE, apply, binary_op, floating, numeric, to_bool, unary_op, vjps

_NUMERIC = Domain(("fiu",))


def _to_integer(name: str, numpy: Callable[..., Any], doc: str) -> OpDef:
    return unary_op(
        name, lambda x: numpy(x) if x.dtype.kind == "f" else x, STEPWISE,
        lambda b, a, x: b.unary(name, x) if b.dtype(x).kind == "f" else x, infer=numeric, domain=_NUMERIC, doc=doc,
    )  # fmt: skip


FLOOR = _to_integer("floor", np.floor, "The largest whole number not above x.")
CEIL = _to_integer("ceil", np.ceil, "The smallest whole number not below x.")
TRUNC = _to_integer("trunc", np.trunc, "x without its fraction.")
ROUND = _to_integer("round", np.rint, "The nearest whole number; halves go to the even one.")

# Quotients stay between 0.5 and 2 where gradients are checked, and cross 1 only where x = y.
_QUOTIENTS = Domain(("fiu", "fiu"), low=1.1, high=1.9)
FLOOR_DIVIDE = binary_op(
    "floor_divide", np.floor_divide, STEPWISE, primitive="floordiv", cost=20, domain=_QUOTIENTS,
    doc="Quotient rounded down; 0 for integers over 0.",
)  # fmt: skip
REMAINDER = binary_op(
    "remainder", np.remainder, vjps(lambda g, o, x, y: g, lambda g, o, x, y: -(g * floor_divide(x, y))),
    primitive="mod", cost=20, domain=_QUOTIENTS, doc="x - floor(x / y) * y, with the sign of y; 0 for integers over 0.",
)  # fmt: skip
FMOD = binary_op(
    "fmod", np.fmod, vjps(lambda g, o, x, y: g, lambda g, o, x, y: -(g * round((x - o) / y))),
    cost=20, domain=_QUOTIENTS, doc="x - trunc(x / y) * y, with the sign of x; 0 for integers over 0.",
)  # fmt: skip


def _kind_op(name: str, numpy: Callable[..., Any], emit: Callable[[Any, Any], Any], whole: bool, doc: str) -> OpDef:
    """A question about floats, to which every integer answers ``whole``."""
    return unary_op(
        name, lambda x: numpy(x) if x.dtype.kind == "f" else np.full(x.shape, whole), DISCRETE,
        lambda b, a, x: emit(b, x) if b.dtype(x).kind == "f" else b.compare("eq" if whole else "ne", x, x),
        infer=to_bool, domain=Domain(("fiub",)), doc=doc,
    )  # fmt: skip


def _below_infinity(b: Any, x: Any) -> Any:
    return b.compare("lt", b.unary("abs", x), b.literal(x, math.inf))


ISNAN = _kind_op("isnan", np.isnan, lambda b, x: b.compare("ne", x, x), False, "Whether x is NaN.")
ISINF = _kind_op(
    "isinf", np.isinf, lambda b, x: b.compare("eq", b.unary("abs", x), b.literal(x, math.inf)), False,
    "Whether x is an infinity.",
)  # fmt: skip
ISFINITE = _kind_op("isfinite", np.isfinite, _below_infinity, True, "Whether x is neither NaN nor an infinity.")


def _emit_signbit(b: Any, a: Any, x: Any) -> Any:
    if b.dtype(x).kind == "f":
        x = b.binary("copysign", b.literal(x, 1), x)
    return b.compare("lt", x, b.literal(x, 0))


SIGNBIT = unary_op(
    "signbit", lambda x: np.signbit(x) if x.dtype.kind == "f" else x < 0, DISCRETE, _emit_signbit,
    infer=lambda c: (numeric(c), to_bool(c))[1], domain=_NUMERIC, doc="Whether the sign bit is set: of -0.0 it is.",
)  # fmt: skip
COPYSIGN = binary_op(
    "copysign", np.copysign,
    vjps(lambda g, o, x, y: g * sign(x) * copysign(ones_like(g), y), lambda g, o, x, y: zeros_like(g)),
    infer=floating, domain=Domain(("f", "f"), away=(0.0,)), doc="The magnitude of x with the sign of y.",
)  # fmt: skip


# The public functions.


def floor(x: Any) -> Tensor:
    """The largest whole number not above ``x``, in its dtype."""
    return apply(FLOOR, as_tensor(x, "floor"))


def ceil(x: Any) -> Tensor:
    """The smallest whole number not below ``x``, in its dtype."""
    return apply(CEIL, as_tensor(x, "ceil"))


def trunc(x: Any) -> Tensor:
    """``x`` without its fraction, in its dtype."""
    return apply(TRUNC, as_tensor(x, "trunc"))


def round(x: Any) -> Tensor:
    """The whole number nearest to ``x``, in its dtype; halves go to the even one."""
    return apply(ROUND, as_tensor(x, "round"))


def floor_divide(x: Any, y: Any) -> Tensor:
    """``x // y``, broadcast: the quotient rounded down. Integers over 0 give 0."""
    return apply(FLOOR_DIVIDE, *as_operands("floor_divide", x, y))


def remainder(x: Any, y: Any) -> Tensor:
    """``x % y``, broadcast: what ``x // y`` leaves, with the sign of ``y``. Integers over 0 give 0."""
    return apply(REMAINDER, *as_operands("remainder", x, y))


def fmod(x: Any, y: Any) -> Tensor:
    """The remainder of C, broadcast: what ``trunc(x / y)`` leaves, with the sign of ``x``. Integers over 0 give 0."""
    return apply(FMOD, *as_operands("fmod", x, y))


def isnan(x: Any) -> Tensor:
    """Whether ``x`` is NaN; false for integers."""
    return apply(ISNAN, as_tensor(x, "isnan"))


def isinf(x: Any) -> Tensor:
    """Whether ``x`` is an infinity; false for integers."""
    return apply(ISINF, as_tensor(x, "isinf"))


def isfinite(x: Any) -> Tensor:
    """Whether ``x`` is neither NaN nor an infinity; true for integers."""
    return apply(ISFINITE, as_tensor(x, "isfinite"))


def signbit(x: Any) -> Tensor:
    """Whether the sign bit of ``x`` is set: below 0, and of -0.0."""
    return apply(SIGNBIT, as_tensor(x, "signbit"))


def copysign(x: Any, y: Any) -> Tensor:
    """The magnitude of ``x`` with the sign of ``y``, broadcast; floats."""
    return apply(COPYSIGN, *as_operands("copysign", x, y))
