"""Signs, powers of two, and constants of integers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc import ops
from graphc.node import Node, Tensor
from graphc.ops.elementwise import ADD, DIVIDE, MULTIPLY, NEGATIVE, SUBTRACT
from graphc.ops.power import POW
from passes.matching import Context, either_way, fitted
from passes.simplify.rules import RULES


def _minus(tensor: Tensor, context: Context) -> Tensor | None:
    """x where ``tensor`` is -x."""
    inner = context.made_by(tensor, NEGATIVE)
    return None if inner is None else inner.inputs[0]


@RULES.on(MULTIPLY, DIVIDE)
def times_minus_one(node: Node, context: Context) -> Tensor | None:
    """x * -1 = x / -1 = -x: exact, zeros and infinities turn their signs, NaN stays; integers wrap around alike"""
    for x, factor in either_way(node) if node.op is MULTIPLY else (node.inputs,):
        if x.dtype.kind != "u" and context.is_value(factor, -1):
            return fitted(ops.negative(x), node)
    return None


@RULES.on(DIVIDE)
def divide_by_power_of_two(node: Node, context: Context) -> Tensor | None:
    """x / c = x * (1 / c) for c = 2**k: both round x * 2**-k, as 1 / c is exact (and normal: subnormals are slow)"""
    x, divisor = node.inputs
    value = context.value(divisor)
    if value is None or not np.isfinite(value) or abs(math.frexp(value)[0]) != 0.5 or abs(value) == 1:
        return None
    limits = np.finfo(divisor.dtype)
    with np.errstate(all="ignore"):
        inverse = 1 / value
    if not limits.smallest_normal <= abs(inverse) <= limits.max:
        return None
    return fitted(x * ops.constant(inverse), node)


@RULES.on(ADD)
def add_of_negative(node: Node, context: Context) -> Tensor | None:
    """x + -y = x - y, which is how IEEE 754 defines the difference; integers are a ring"""
    for x, minus in either_way(node):
        y = _minus(minus, context)
        if y is not None:
            return x - y
    return None


@RULES.on(SUBTRACT)
def subtract_negative(node: Node, context: Context) -> Tensor | None:
    """x - -y = x + y: x - z is x + -z, and --y is y"""
    y = _minus(node.inputs[1], context)
    return None if y is None else node.inputs[0] + y


@RULES.on(SUBTRACT)
def subtract_from_zero(node: Node, context: Context) -> Tensor | None:
    """-0.0 - x = -x for floats (-0.0 + -x is -x, its zeros too), 0 - x = -x for signed integers"""
    zero, x = node.inputs
    wanted = {"f": -0.0, "i": 0}.get(x.dtype.kind)
    return None if wanted is None or not context.is_value(zero, wanted) else fitted(ops.negative(x), node)


@RULES.on(NEGATIVE)
def negative_of_difference(node: Node, context: Context) -> Tensor | None:
    """-(i - j) = j - i for integers, modulo a power of two"""
    inner = context.made_by(node.inputs[0], SUBTRACT)
    if inner is None or node.inputs[0].dtype.kind not in "iu":
        return None
    return inner.inputs[1] - inner.inputs[0]


@RULES.on(MULTIPLY, DIVIDE)
def two_signs(node: Node, context: Context) -> Tensor | None:
    """-x * -y = x * y, -x / -y = x / y: the sign of the result is that of both together, its size knows none"""
    x, y = (_minus(t, context) for t in node.inputs)
    if x is None or y is None:
        return None
    return x * y if node.op is MULTIPLY else x / y


@RULES.on(MULTIPLY, DIVIDE)
def sign_into_constant(node: Node, context: Context) -> Tensor | None:
    """-x * c = x * -c, -x / c = x / -c, c / -x = -c / x, for a number c; so for -(x * c)"""
    pairs = either_way(node) if node.op is MULTIPLY else (node.inputs, node.inputs[::-1])
    for place, (minus, other) in enumerate(pairs):
        x = _minus(minus, context)
        value = None if x is None else context.value(other)
        if x is not None and value is not None:
            number = _constant(np.negative, value)
            return fitted(x * number if node.op is MULTIPLY else number / x if place else x / number, node)
    return None


@RULES.on(NEGATIVE)
def negative_of_multiple(node: Node, context: Context) -> Tensor | None:
    """-(x * c) = x * -c, for a number c"""
    inner = context.made_by(node.inputs[0], MULTIPLY)
    if inner is not None:
        for x, factor in either_way(inner):
            value = context.value(factor)
            if value is not None:
                return fitted(x * _constant(np.negative, value), node)
    return None


@RULES.on(ADD, MULTIPLY)
def integer_constants(node: Node, context: Context) -> Tensor | None:
    """(i + c) + d = i + (c + d), (i * c) * d = i * (c * d), for integers, modulo a power of two"""
    if node.inputs[0].dtype.kind not in "iu":
        return None
    for inner, second in either_way(node):
        found, d = context.made_by(inner, node.op), context.value(second)
        if found is None or d is None:
            continue
        for x, first in either_way(found):
            c = context.value(first)
            if c is not None:
                number = _constant(np.add if node.op is ADD else np.multiply, c, d)
                return fitted(x + number if node.op is ADD else x * number, node)
    return None


@RULES.on(POW)
def power_of_two(node: Node, context: Context) -> Tensor | None:
    """x ** 2 = x * x: the only rule that may change a last bit, and to the correctly rounded one"""
    return fitted(ops.square(node.inputs[0]), node) if context.is_value(node.inputs[1], 2) else None


def _constant(function: np.ufunc, *values: Any) -> Tensor:
    """A number computed now, in the dtype of ``values``; integers wrap around."""
    with np.errstate(all="ignore"):
        return ops.constant(np.asarray(function(*values), values[0].dtype))
