"""Comparison, logic, and choice by a condition."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dtypes import bool_
from graphc.errors import DTypeError
from graphc.node import Tensor, TensorType
from graphc.opdef import Domain, Inference, Kind, OpDef, register
from graphc.ops.leaf import as_operands, as_tensor, zeros_like
from graphc.ops.rules import DISCRETE, apply, binary_op, compare_op, logical, unary_op, vjps

LESS = compare_op("less", "lt", np.less, "x < y.")
LESS_EQUAL = compare_op("less_equal", "le", np.less_equal, "x <= y.")
GREATER = compare_op("greater", "gt", np.greater, "x > y.")
GREATER_EQUAL = compare_op("greater_equal", "ge", np.greater_equal, "x >= y.")
EQUAL = compare_op("equal", "eq", np.equal, "x == y; NaN equals nothing.", commutative=True)
NOT_EQUAL = compare_op("not_equal", "ne", np.not_equal, "x != y; NaN differs from everything.", commutative=True)

_BOOLS = Domain(("b", "b"))
LOGICAL_AND = binary_op(
    "logical_and", np.logical_and, DISCRETE, infer=logical, primitive="and_", commutative=True, domain=_BOOLS,
    doc="Both.",
)  # fmt: skip
LOGICAL_OR = binary_op(
    "logical_or", np.logical_or, DISCRETE, infer=logical, primitive="or_", commutative=True, domain=_BOOLS,
    doc="At least one.",
)  # fmt: skip
LOGICAL_XOR = binary_op(
    "logical_xor", np.logical_xor, DISCRETE, infer=logical, primitive="xor", commutative=True, domain=_BOOLS,
    doc="Exactly one.",
)  # fmt: skip
LOGICAL_NOT = unary_op(
    "logical_not",
    np.logical_not,
    DISCRETE,
    lambda b, a, x: b.not_(x),
    infer=logical,
    domain=Domain(("b",)),
    doc="Not x.",
)


def _infer_where(c: Inference) -> tuple[TensorType, ...]:
    condition, x, y = c.inputs
    if condition.dtype != bool_:
        raise c.fail(f"the condition must be bool, got {condition.dtype}; compare it with something first", DTypeError)
    if x.dtype != y.dtype:
        raise c.fail(f"both choices must have one dtype, got {x.dtype} and {y.dtype}", DTypeError)
    return (TensorType(c.broadcast([condition.shape, x.shape, y.shape]), x.dtype),)


WHERE = register(
    OpDef(
        "where", Kind.SCALAR, _infer_where, lambda r, c, x, y: np.where(c, x, y),
        vjps(None, lambda g, o, c, x, y: where(c, g, zeros_like(g)), lambda g, o, c, x, y: where(c, zeros_like(g), g)),
        emit=lambda b, a, c, x, y: b.select(c, x, y), domain=Domain(("b", "fiub", "fiub")),
        doc="x where the condition holds, else y.",
    )
)  # fmt: skip


# The public functions.


def less(x: Any, y: Any) -> Tensor:
    """``x < y``, broadcast; bool."""
    return apply(LESS, *as_operands("less", x, y))


def less_equal(x: Any, y: Any) -> Tensor:
    """``x <= y``, broadcast; bool."""
    return apply(LESS_EQUAL, *as_operands("less_equal", x, y))


def greater(x: Any, y: Any) -> Tensor:
    """``x > y``, broadcast; bool."""
    return apply(GREATER, *as_operands("greater", x, y))


def greater_equal(x: Any, y: Any) -> Tensor:
    """``x >= y``, broadcast; bool."""
    return apply(GREATER_EQUAL, *as_operands("greater_equal", x, y))


def equal(x: Any, y: Any) -> Tensor:
    """``x == y``, broadcast; bool. NaN equals nothing."""
    return apply(EQUAL, *as_operands("equal", x, y))


def not_equal(x: Any, y: Any) -> Tensor:
    """``x != y``, broadcast; bool. NaN differs from everything."""
    return apply(NOT_EQUAL, *as_operands("not_equal", x, y))


def logical_and(x: Any, y: Any) -> Tensor:
    """Whether both hold; bool operands, broadcast."""
    return apply(LOGICAL_AND, *as_operands("logical_and", x, y))


def logical_or(x: Any, y: Any) -> Tensor:
    """Whether at least one holds; bool operands, broadcast."""
    return apply(LOGICAL_OR, *as_operands("logical_or", x, y))


def logical_xor(x: Any, y: Any) -> Tensor:
    """Whether exactly one holds; bool operands, broadcast."""
    return apply(LOGICAL_XOR, *as_operands("logical_xor", x, y))


def logical_not(x: Any) -> Tensor:
    """Whether ``x`` does not hold; bool operand."""
    return apply(LOGICAL_NOT, as_tensor(x, "logical_not"))


def where(condition: Any, x: Any, y: Any) -> Tensor:
    """``x`` where the bool ``condition`` holds, else ``y``; all three broadcast."""
    return apply(WHERE, as_tensor(condition, "where"), *as_operands("where", x, y))
