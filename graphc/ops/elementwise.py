"""Elementwise ops: arithmetic, the exponential family, activations and conversion.

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
from graphc.ops.comparison import equal, greater, less, where
from graphc.ops.leaf import as_operands, as_tensor, ones_like, zeros_like
from graphc.ops.rules import STEPWISE, apply, binary_op, floating, numeric, same_type, unary_op, vjps


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
POW = binary_op(
    "pow", np.power,
    vjps(
        lambda g, o, x, y: g * y * pow(x, where(equal(y, 0), zeros_like(y), y - 1)),  # 0 for y = 0, also where x is 0
        lambda g, o, x, y: g * o * log(where(equal(x, 0), ones_like(x), x)),
    ),
    infer=floating, cost=40, domain=Domain(("f", "f"), low=0.5), doc="First operand to the power of the second.",
)  # fmt: skip
MAXIMUM = binary_op(
    "maximum", np.maximum, vjps(_pick(True, "gt"), _pick(False, "gt")), commutative=True,
    doc="The larger; NaN if one is NaN. Equal operands share the cotangent.",
)  # fmt: skip
MINIMUM = binary_op(
    "minimum", np.minimum, vjps(_pick(True, "lt"), _pick(False, "lt")), commutative=True,
    doc="The smaller; NaN if one is NaN. Equal operands share the cotangent.",
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
    "sign",
    np.sign,
    STEPWISE,
    _emit_sign,
    infer=numeric,
    cost=3,
    domain=Domain(("fiu",)),
    doc="-1, 0 or 1; NaN for NaN.",
)
SQUARE = unary_op(
    "square", np.square, vjps(lambda g, o, x: g * (x * 2)), lambda b, a, x: b.binary("mul", x, x), infer=numeric,
    domain=Domain(("fiu",)), doc="x * x.",
)  # fmt: skip
SQRT = unary_op(
    "sqrt", np.sqrt, vjps(lambda g, o, x: g * 0.5 / o), lambda b, a, x: b.unary("sqrt", x), cost=4,
    domain=Domain(("f",), low=0.3), doc="Square root.",
)  # fmt: skip
EXP = unary_op(
    "exp", np.exp, vjps(lambda g, o, x: g * o), lambda b, a, x: b.unary("exp", x), cost=12, doc="e to the x."
)
LOG = unary_op(
    "log", np.log, vjps(lambda g, o, x: g / x), lambda b, a, x: b.unary("log", x), cost=12,
    domain=Domain(("f",), low=0.3), doc="Natural logarithm.",
)  # fmt: skip
LOG1P = unary_op(
    "log1p", np.log1p, vjps(lambda g, o, x: g / (x + 1)), lambda b, a, x: b.unary("log1p", x), cost=12,
    domain=Domain(("f",), low=-0.7), doc="log(1 + x), exact for small x.",
)  # fmt: skip
EXPM1 = unary_op(
    "expm1", np.expm1, vjps(lambda g, o, x: g * exp(x)), lambda b, a, x: b.unary("expm1", x), cost=12,
    doc="exp(x) - 1, exact for small x.",
)  # fmt: skip
TANH = unary_op(
    "tanh", np.tanh, vjps(lambda g, o, x: g * (1 - square(o))), lambda b, a, x: b.unary("tanh", x), cost=14,
    doc="Hyperbolic tangent.",
)  # fmt: skip


SIGMOID = unary_op(
    "sigmoid", expr.sigmoid, vjps(lambda g, o, x: g * (o * (1 - o))), lambda b, a, x: b.unary("sigmoid", x), cost=14,
    doc="Logistic function 1 / (1 + exp(-x)).",
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


def pow(x: Any, y: Any) -> Tensor:
    """``x ** y``, broadcast. Integer exponents from 0 to 4 are products, for every numeric dtype; otherwise floats
    only.
    """
    whole = isinstance(y, (int, float)) and y in (0, 1, 2, 3, 4)
    if whole and isinstance(x, Tensor) and (is_float(x.dtype) or (isinstance(y, int) and x.dtype.kind in "iu")):
        return _small_power(x, int(y))
    return apply(POW, *as_operands("pow", x, y))


def _small_power(x: Tensor, exponent: int) -> Tensor:
    if exponent == 0:
        return ones_like(x)
    if exponent == 1:
        return x
    squared = square(x)
    if exponent == 4:
        return square(squared)
    return squared if exponent == 2 else squared * x


def maximum(x: Any, y: Any) -> Tensor:
    """The larger of ``x`` and ``y``, broadcast; NaN if one is NaN. Where equal, each gets half the cotangent."""
    return apply(MAXIMUM, *as_operands("maximum", x, y))


def minimum(x: Any, y: Any) -> Tensor:
    """The smaller of ``x`` and ``y``, broadcast; NaN if one is NaN. Where equal, each gets half the cotangent."""
    return apply(MINIMUM, *as_operands("minimum", x, y))


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


def sqrt(x: Any) -> Tensor:
    """Square root; NaN below 0."""
    return apply(SQRT, as_float(x, "sqrt"))


def exp(x: Any) -> Tensor:
    """e to the power of ``x``."""
    return apply(EXP, as_float(x, "exp"))


def log(x: Any) -> Tensor:
    """Natural logarithm; -inf at 0, NaN below."""
    return apply(LOG, as_float(x, "log"))


def log1p(x: Any) -> Tensor:
    """``log(1 + x)``, exact for small ``x``."""
    return apply(LOG1P, as_float(x, "log1p"))


def expm1(x: Any) -> Tensor:
    """``exp(x) - 1``, exact for small ``x``."""
    return apply(EXPM1, as_float(x, "expm1"))


def tanh(x: Any) -> Tensor:
    """Hyperbolic tangent."""
    return apply(TANH, as_float(x, "tanh"))


def sigmoid(x: Any) -> Tensor:
    """Logistic function ``1 / (1 + exp(-x))``."""
    return apply(SIGMOID, as_float(x, "sigmoid"))


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
