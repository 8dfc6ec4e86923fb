"""Elementwise ops: arithmetic, extremes, conversion.

Each is one row: types, NumPy's definition, the derivative, and ``emit``, what it does to one element.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import expr
from graphc.dtypes import SUPPORTED, DType, DTypeLike, as_dtype, is_float, true_divide_dtype
from graphc.node import NO_ATTRS, Tensor, TensorType, attrs_of, make_node
from graphc.opdef import Domain, Kind, NotDifferentiable, OpDef, register
from graphc.ops.comparison import equal, greater, less, less_equal, logical_and, logical_or, where
from graphc.ops.leaf import as_operands, as_tensor, scalar, zeros_like
from graphc.ops.rules import STEPWISE, apply, binary_op, floating, numeric, quiet, same_type, unary_op, vjps


def _pick(first: bool, strict: str) -> Callable[..., Tensor]:
    """Cotangent of maximum or minimum: to the winner; shared equally where both are equal."""

    def rule(g: Tensor, out: Tensor, x: Tensor, y: Tensor) -> Tensor:
        mine, other = (x, y) if first else (y, x)
        wins = greater(mine, other) if strict == "gt" else less(mine, other)
        return where(wins, g, where(equal(mine, other), g * 0.5, zeros_like(g)))

    return rule


ADD = binary_op("add", np.add, vjps(lambda g, o, x, y: g, lambda g, o, x, y: g), commutative=True, doc="Sum of two.")
SUBTRACT = binary_op(
    "subtract", np.subtract, vjps(lambda g, o, x, y: g, lambda g, o, x, y: -g), primitive="sub", doc="Difference."
)
MULTIPLY = binary_op(
    "multiply", np.multiply, vjps(lambda g, o, x, y: g * y, lambda g, o, x, y: g * x), primitive="mul",
    commutative=True, doc="Product of two.",
)  # fmt: skip
DIVIDE = binary_op(
    "divide", np.divide, vjps(lambda g, o, x, y: g / y, lambda g, o, x, y: -(g * o / y)), infer=floating,
    primitive="div", cost=4, domain=Domain(("f", "f"), low=0.5), doc="True quotient.",
)  # fmt: skip
MAXIMUM = binary_op(
    "maximum", np.maximum, vjps(_pick(True, "gt"), _pick(False, "gt")), commutative=True,
    doc="The larger; NaN if one is NaN. Equal operands share the cotangent.",
)  # fmt: skip
MINIMUM = binary_op(
    "minimum", np.minimum, vjps(_pick(True, "lt"), _pick(False, "lt")), commutative=True,
    doc="The smaller; NaN if one is NaN. Equal operands share the cotangent.",
)  # fmt: skip


def _emit_clip(b: Any, a: Any, x: Any, low: Any, high: Any) -> Any:
    return b.binary("minimum", b.binary("maximum", x, low), high)


def _inside(g: Tensor, o: Tensor, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return where(logical_and(less_equal(low, x), less_equal(x, high)), g, zeros_like(g))


def _below(g: Tensor, o: Tensor, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return where(logical_and(less(x, low), less_equal(low, high)), g, zeros_like(g))


def _above(g: Tensor, o: Tensor, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return where(logical_or(less(high, x), less(high, low)), g, zeros_like(g))


CLIP = register(
    OpDef(
        "clip", Kind.SCALAR, numeric, quiet(np.clip), vjps(_inside, _below, _above), emit=_emit_clip, cost=2,
        domain=Domain(("fiu", "fiu", "fiu")),
        doc="min(max(x, low), high); NaN if one is NaN. At both ends the cotangent goes to x.",
    )
)  # fmt: skip

NEGATIVE = unary_op(
    "negative", np.negative, vjps(lambda g, o, x: -g), lambda b, a, x: b.unary("neg", x), infer=numeric,
    domain=Domain(("fi",)), doc="Minus x.",
)  # fmt: skip
ABS = unary_op(
    "abs", np.abs, vjps(lambda g, o, x: g * sign(x)), lambda b, a, x: b.unary("abs", x), infer=numeric,
    domain=Domain(("fiu",), away=(0.0,)), doc="Absolute value; derivative 0 at 0.",
)  # fmt: skip


def _emit_sign(b: Any, a: Any, x: Any) -> Any:
    zero, one = b.literal(x, 0), b.literal(x, 1)
    minus = b.literal(x, -1) if b.dtype(x).kind != "u" else zero
    step = b.select(b.compare("gt", x, zero), one, b.select(b.compare("lt", x, zero), minus, zero))
    return b.select(b.compare("ne", x, x), x, step)


SIGN = unary_op(
    "sign", np.sign, STEPWISE, _emit_sign, infer=numeric, cost=3, domain=Domain(("fiu",)),
    doc="-1, 0 or 1; NaN for NaN.",
)  # fmt: skip
SQUARE = unary_op(
    "square", np.square, vjps(lambda g, o, x: g * (x * 2)), lambda b, a, x: b.binary("mul", x, x), infer=numeric,
    domain=Domain(("fiu",)), doc="x * x.",
)  # fmt: skip


def _emit_relu(b: Any, a: Any, x: Any) -> Any:
    return b.binary("maximum", x, b.literal(x, 0))


RELU = unary_op(
    "relu", lambda x: np.maximum(x, 0).astype(x.dtype), vjps(lambda g, o, x: where(greater(o, 0), g, zeros_like(g))),
    _emit_relu, infer=numeric, domain=Domain(("fi",), away=(0.0,)), doc="max(x, 0); derivative 0 at 0.",
)  # fmt: skip


def _cast_to(dtype: DType) -> Callable[..., Tensor]:
    return lambda x: astype(x, dtype)


ASTYPE = register(
    OpDef(
        "astype", Kind.SCALAR, lambda c: (TensorType(c.inputs[0].shape, c.attrs["dtype"]),),
        lambda r, x: expr.cast(x, r.dtype),
        lambda node, g: [astype(g, node.inputs[0].dtype)], emit=lambda b, a, x: b.cast(x, a["dtype"]),
        domain=Domain(("fiub",)), samples=tuple(_cast_to(d) for d in SUPPORTED),
        doc="The value converted to another dtype.",
    )
)  # fmt: skip

STOP_GRADIENT = unary_op(
    "stop_gradient", lambda x: x, NotDifferentiable("it is there to stop the gradient"), lambda b, a, x: x,
    infer=same_type, cost=0, domain=Domain(("fiub",)), doc="x, through which no gradient flows.",
)  # fmt: skip


# The public functions.


def add(x: Any, y: Any) -> Tensor:
    """``x + y``, broadcast. Numeric operands."""
    return apply(ADD, *as_operands("add", x, y))


def subtract(x: Any, y: Any) -> Tensor:
    """``x - y``, broadcast. Numeric operands."""
    return apply(SUBTRACT, *as_operands("subtract", x, y))


def multiply(x: Any, y: Any) -> Tensor:
    """``x * y``, broadcast. Numeric operands."""
    return apply(MULTIPLY, *as_operands("multiply", x, y))


def divide(x: Any, y: Any) -> Tensor:
    """True quotient ``x / y``, broadcast. Integers give float32."""
    left, right = as_operands("divide", x, y)
    dtype = true_divide_dtype(left.dtype)
    return apply(DIVIDE, astype(left, dtype), astype(right, dtype))


def maximum(x: Any, y: Any) -> Tensor:
    """The larger of ``x`` and ``y``, broadcast; NaN if one is NaN. Where equal, each gets half the cotangent."""
    return apply(MAXIMUM, *as_operands("maximum", x, y))


def minimum(x: Any, y: Any) -> Tensor:
    """The smaller of ``x`` and ``y``, broadcast; NaN if one is NaN. Where equal, each gets half the cotangent."""
    return apply(MINIMUM, *as_operands("minimum", x, y))


def clip(x: Any, min: Any = None, max: Any = None) -> Tensor:
    """``x`` with what is below ``min`` raised to it and what is above ``max`` lowered to it, broadcast; None is no
    limit. NaN if one is NaN; ``max`` where ``min`` is above it.

    Where ``x`` equals a limit, the whole cotangent goes to ``x``.
    """
    tensor = as_tensor(x, "clip")
    if min is None and max is None:
        return tensor
    given = [end for end in (min, max) if end is not None]
    tensor, *limits = as_operands("clip", tensor, *given)
    if min is None or max is None:
        limits.insert(0 if min is None else 1, _end_of(tensor.dtype, lowest=min is None))
    return apply(CLIP, tensor, *limits)


def _end_of(dtype: DType, *, lowest: bool) -> Tensor:
    """The least or largest value of a numeric dtype."""
    if is_float(dtype):
        return scalar(-np.inf if lowest else np.inf, dtype)
    return scalar(np.iinfo(dtype).min if lowest else np.iinfo(dtype).max, dtype)


def negative(x: Any) -> Tensor:
    """``-x``."""
    return apply(NEGATIVE, as_tensor(x, "negative"))


def abs(x: Any) -> Tensor:
    """Absolute value; the derivative at 0 is 0."""
    return apply(ABS, as_tensor(x, "abs"))


def sign(x: Any) -> Tensor:
    """-1, 0 or 1 by the sign of ``x``; NaN for NaN."""
    return apply(SIGN, as_tensor(x, "sign"))


def square(x: Any) -> Tensor:
    """``x * x``."""
    return apply(SQUARE, as_tensor(x, "square"))


def as_float(x: Any, what: str) -> Tensor:
    """``x`` as a float tensor; integers and bools become float32."""
    tensor = as_tensor(x, what)
    return tensor if is_float(tensor.dtype) else astype(tensor, "float32")


def relu(x: Any) -> Tensor:
    """``max(x, 0)``; the derivative at 0 is 0."""
    return apply(RELU, as_tensor(x, "relu"))


def astype(x: Any, dtype: DTypeLike) -> Tensor:
    """The values of ``x`` converted to ``dtype``; ``x`` itself when it has it already."""
    tensor, wanted = as_tensor(x, "astype"), as_dtype(dtype)
    if tensor.dtype == wanted:
        return tensor
    return make_node(ASTYPE, (tensor,), attrs_of(dtype=wanted)).outputs[0]


def stop_gradient(x: Any) -> Tensor:
    """``x`` as a value: no gradient flows through it (PyTorch's ``detach``)."""
    return make_node(STOP_GRADIENT, (as_tensor(x, "stop_gradient"),), NO_ATTRS).outputs[0]
