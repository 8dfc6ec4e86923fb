"""Laws as tables: operands that change nothing or decide everything, equal operands, and functions applied twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.dtypes import DType
from graphc.node import Node, Tensor
from graphc.opdef import OpDef
from graphc.ops.bitwise import (
    BITWISE_AND,
    BITWISE_INVERT,
    BITWISE_LEFT_SHIFT,
    BITWISE_OR,
    BITWISE_RIGHT_SHIFT,
    BITWISE_XOR,
)
from graphc.ops.comparison import (
    EQUAL,
    GREATER,
    GREATER_EQUAL,
    LESS,
    LESS_EQUAL,
    LOGICAL_AND,
    LOGICAL_NOT,
    LOGICAL_OR,
    LOGICAL_XOR,
    NOT_EQUAL,
)
from graphc.ops.elementwise import ABS, ADD, DIVIDE, MAXIMUM, MINIMUM, MULTIPLY, NEGATIVE, RELU, SIGN, SQUARE, SUBTRACT
from graphc.ops.power import POW
from graphc.ops.rounding import CEIL, FLOOR, ROUND, TRUNC
from passes.matching import Context, either_way, filled, fitted
from passes.simplify.rules import RULES

Number = Callable[[DType], Any]


def _least(dtype: DType) -> Any:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _most(dtype: DType) -> Any:
    return np.inf if dtype.kind == "f" else np.iinfo(dtype).max


def _all_bits(dtype: DType) -> Any:
    return -1 if dtype.kind == "i" else np.iinfo(dtype).max


def _is(value: Any) -> Number:
    return lambda dtype: value


# (op, dtype kinds of the operands, whether it may be the first one, the number): x op number = x. Each is exact because
# the exact result is x itself, which is a number of the dtype; a zero keeps its sign because only two zeros of unlike
# sign, or an exact difference of equals, give the zero of the rounding mode, 0.0.
NEUTRAL: tuple[tuple[OpDef, str, bool, Number], ...] = (
    (MULTIPLY, "fiu", True, _is(1)), (DIVIDE, "f", False, _is(1)), (POW, "fiu", False, _is(1)),
    (ADD, "f", True, _is(-0.0)), (ADD, "iu", True, _is(0)), (SUBTRACT, "fiu", False, _is(0)),
    (MAXIMUM, "fiu", True, _least), (MINIMUM, "fiu", True, _most),
    (BITWISE_OR, "iu", True, _is(0)), (BITWISE_XOR, "iu", True, _is(0)), (BITWISE_AND, "iu", True, _all_bits),
    (BITWISE_LEFT_SHIFT, "iu", False, _is(0)), (BITWISE_RIGHT_SHIFT, "iu", False, _is(0)),
    (LOGICAL_AND, "b", True, _is(True)), (LOGICAL_OR, "b", True, _is(False)), (LOGICAL_XOR, "b", True, _is(False)),
    (EQUAL, "b", True, _is(True)), (NOT_EQUAL, "b", True, _is(False)),
)  # fmt: skip

# (op, kinds, the number): x op number = number op x = number, for every x of these dtypes.
ABSORBING: tuple[tuple[OpDef, str, Number], ...] = (
    (MULTIPLY, "iu", _is(0)), (BITWISE_AND, "iu", _is(0)), (BITWISE_OR, "iu", _all_bits),
    (MAXIMUM, "iu", _most), (MINIMUM, "iu", _least),
    (LOGICAL_AND, "b", _is(False)), (LOGICAL_OR, "b", _is(True)),
)  # fmt: skip

# (op, kinds): x op x = x.
IDENTICAL: tuple[tuple[OpDef, str], ...] = (
    (MAXIMUM, "fiu"), (MINIMUM, "fiu"), (BITWISE_AND, "iu"), (BITWISE_OR, "iu"), (LOGICAL_AND, "b"), (LOGICAL_OR, "b"),
)  # fmt: skip

# (op, kinds, the number): x op x = number. NaN is neither below nor above itself, and not equal to itself.
DECIDED: tuple[tuple[OpDef, str, Any], ...] = (
    (SUBTRACT, "iu", 0), (BITWISE_XOR, "iu", 0), (LOGICAL_XOR, "b", False), (LESS, "fiub", False),
    (GREATER, "fiub", False), (NOT_EQUAL, "iub", False), (EQUAL, "iub", True), (LESS_EQUAL, "iub", True),
    (GREATER_EQUAL, "iub", True),
)  # fmt: skip

INVOLUTIONS = (NEGATIVE, LOGICAL_NOT, BITWISE_INVERT)
WHOLE = (FLOOR, CEIL, TRUNC, ROUND)
IDEMPOTENT = (ABS, RELU, SIGN)


def _by_op(*tables: Sequence[tuple[Any, ...]]) -> dict[OpDef, list[Any]]:
    """What the rows say of each op."""
    found: dict[OpDef, list[Any]] = {}
    for op, *rest in (row for table in tables for row in table):
        found.setdefault(op, []).append(rest)
    return found


_NEUTRAL, _ABSORBING, _IDENTICAL, _DECIDED = map(_by_op, (NEUTRAL, ABSORBING, IDENTICAL, DECIDED))


@RULES.on(*_NEUTRAL)
def neutral_operand(node: Node, context: Context) -> Tensor | None:
    """x op n = x, by the table NEUTRAL: x * 1, x / 1, x - 0, x + -0.0, max(x, -inf), ..."""
    kind = node.inputs[0].dtype.kind
    for kinds, first, number in _NEUTRAL[node.op]:
        if kind in kinds:
            for x, other in either_way(node) if first else (node.inputs,):
                if context.is_value(other, number(other.dtype)):
                    return fitted(x, node)
    return None


@RULES.on(*_ABSORBING)
def absorbing_operand(node: Node, context: Context) -> Tensor | None:
    """x op n = n, by the table ABSORBING, for integers and bools: x * 0, x & 0, ..."""
    kind = node.inputs[0].dtype.kind
    for kinds, number in _ABSORBING[node.op]:
        if kind in kinds:
            for x, other in either_way(node):
                if context.is_value(other, number(other.dtype)) and not context.may_fail(x):
                    return filled(node, number(other.dtype))
    return None


@RULES.on(*_by_op(IDENTICAL, DECIDED))
def equal_operands(node: Node, context: Context) -> Tensor | None:
    """x op x = x by the table IDENTICAL, or a number by the table DECIDED: max(x, x), x < x, for integers x - x, ..."""
    x, y = node.inputs
    if x is not y:
        return None
    if any(x.dtype.kind in kinds for (kinds,) in _IDENTICAL.get(node.op, ())):
        return x
    for kinds, number in _DECIDED.get(node.op, ()):
        if x.dtype.kind in kinds and not context.may_fail(x):
            return filled(node, number)
    return None


@RULES.on(MULTIPLY)
def multiply_by_itself(node: Node, context: Context) -> Tensor | None:
    """x * x = square(x), which is computed so"""
    return ops.square(node.inputs[0]) if node.inputs[0] is node.inputs[1] else None


@RULES.on(*INVOLUTIONS)
def involution(node: Node, context: Context) -> Tensor | None:
    """f(f(x)) = x for the sign, not, and invert: each turns bits, and turns them back"""
    inner = context.made_by(node.inputs[0], node.op)
    return None if inner is None else inner.inputs[0]


@RULES.on(*IDEMPOTENT)
def idempotence(node: Node, context: Context) -> Tensor | None:
    """f(f(x)) = f(x) for abs, relu and sign, whose results they map to themselves (abs of the least integer too)"""
    return None if context.made_by(node.inputs[0], node.op) is None else node.inputs[0]


@RULES.on(*WHOLE)
def rounding_of_whole_numbers(node: Node, context: Context) -> Tensor | None:
    """floor, ceil, trunc and round give whole numbers and zeros with x's sign, which all of them leave as they are"""
    return None if context.made_by(node.inputs[0], *WHOLE) is None else node.inputs[0]


@RULES.on(*WHOLE, ABS)
def identity_of_integers(node: Node, context: Context) -> Tensor | None:
    """floor(i) = i for integers, and abs(u) = u for unsigned ones"""
    x = node.inputs[0]
    return x if x.dtype.kind == "u" or (x.dtype.kind == "i" and node.op is not ABS) else None


@RULES.on(ABS, SQUARE)
def even_function(node: Node, context: Context) -> Tensor | None:
    """|-x| = |x|, (-x)**2 = |x|**2 = x**2: the sign goes before anything is rounded; integers wrap around alike"""
    inner = context.made_by(node.inputs[0], NEGATIVE, *((ABS,) if node.op is SQUARE else ()))
    return None if inner is None else node.rebuilt((inner.inputs[0],)).outputs[0]
