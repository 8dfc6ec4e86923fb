"""Operations on the bits of integers. Of bools, the bitwise functions are the logical ones, as in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.node import Tensor, TensorType
from graphc.opdef import Domain, Inference
from graphc.ops.comparison import logical_and, logical_not, logical_or, logical_xor
from graphc.ops.leaf import as_operands, as_tensor
from graphc.ops.rules import DISCRETE, apply, binary_op, same_type, unary_op

_INTEGERS = Domain(("iu", "iu"))


def _integral(c: Inference) -> tuple[TensorType, ...]:
    c.require_dtype("iu", instead="compare first for a mask, as in (x > 0) & (y > 0), or convert with .astype('int64')")
    return same_type(c)


BITWISE_AND = binary_op(
    "bitwise_and", np.bitwise_and, DISCRETE, infer=_integral, primitive="bitand", commutative=True, domain=_INTEGERS,
    doc="Bits set in both.",
)  # fmt: skip
BITWISE_OR = binary_op(
    "bitwise_or", np.bitwise_or, DISCRETE, infer=_integral, primitive="bitor", commutative=True, domain=_INTEGERS,
    doc="Bits set in at least one.",
)  # fmt: skip
BITWISE_XOR = binary_op(
    "bitwise_xor", np.bitwise_xor, DISCRETE, infer=_integral, primitive="bitxor", commutative=True, domain=_INTEGERS,
    doc="Bits set in exactly one.",
)  # fmt: skip
BITWISE_LEFT_SHIFT = binary_op(
    "bitwise_left_shift", np.left_shift, DISCRETE, infer=_integral, primitive="shl", domain=_INTEGERS,
    doc="Bits moved up; 0 for a shift by the width or more, or by a negative number.",
)  # fmt: skip
BITWISE_RIGHT_SHIFT = binary_op(
    "bitwise_right_shift", np.right_shift, DISCRETE, infer=_integral, primitive="shr", domain=_INTEGERS,
    doc="Bits moved down, the sign kept; the sign alone for a shift by the width or more, or by a negative number.",
)  # fmt: skip


def _emit_invert(b: Any, a: Any, x: Any) -> Any:
    dtype = b.dtype(x)
    return b.binary("bitxor", x, b.const(-1 if dtype.kind == "i" else int(np.iinfo(dtype).max), dtype))


BITWISE_INVERT = unary_op(
    "bitwise_invert", np.invert, DISCRETE, _emit_invert, infer=_integral, domain=Domain(("iu",)),
    doc="Every bit turned.",
)  # fmt: skip


# The public functions.


def bitwise_and(x: Any, y: Any) -> Tensor:
    """``x & y``, broadcast: the bits set in both integers, or the logical and of bools."""
    left, right = as_operands("bitwise_and", x, y)
    return logical_and(left, right) if left.dtype.kind == "b" else apply(BITWISE_AND, left, right)


def bitwise_or(x: Any, y: Any) -> Tensor:
    """``x | y``, broadcast: the bits set in at least one of the integers, or the logical or of bools."""
    left, right = as_operands("bitwise_or", x, y)
    return logical_or(left, right) if left.dtype.kind == "b" else apply(BITWISE_OR, left, right)


def bitwise_xor(x: Any, y: Any) -> Tensor:
    """``x ^ y``, broadcast: the bits set in exactly one of the integers, or whether exactly one bool holds."""
    left, right = as_operands("bitwise_xor", x, y)
    return logical_xor(left, right) if left.dtype.kind == "b" else apply(BITWISE_XOR, left, right)


def bitwise_invert(x: Any) -> Tensor:
    """``~x``: every bit of the integer turned, or the logical not of a bool."""
    tensor = as_tensor(x, "bitwise_invert")
    return logical_not(tensor) if tensor.dtype.kind == "b" else apply(BITWISE_INVERT, tensor)


def bitwise_left_shift(x: Any, y: Any) -> Tensor:
    """``x << y``, broadcast; integers. What leaves the width is lost; a shift by the width or more gives 0."""
    return apply(BITWISE_LEFT_SHIFT, *as_operands("bitwise_left_shift", x, y))


def bitwise_right_shift(x: Any, y: Any) -> Tensor:
    """``x >> y``, broadcast; integers. The sign is kept; a shift by the width or more gives 0, or -1 below 0."""
    return apply(BITWISE_RIGHT_SHIFT, *as_operands("bitwise_right_shift", x, y))
