"""Conditions and choices by them; conversions of dtype."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc import ops
from graphc.dims import Extent
from graphc.dtypes import DType, bool_, int64
from graphc.node import Node, Tensor
from graphc.ops.comparison import (
    EQUAL,
    GREATER,
    GREATER_EQUAL,
    LESS,
    LESS_EQUAL,
    LOGICAL_NOT,
    NOT_EQUAL,
    WHERE,
)
from graphc.ops.elementwise import ASTYPE, STOP_GRADIENT
from graphc.ops.indexing import CHECK_INDEX
from graphc.ops.leaf import ARANGE
from graphc.ops.reduce import SUM
from graphc.ops.shape import BROADCAST_TO
from passes.matching import Context, either_way, fitted
from passes.simplify.rules import RULES

_TOTAL = {EQUAL: ops.not_equal, NOT_EQUAL: ops.equal}  # NaN is unequal to everything, so one of the two holds
_ORDERED = {
    LESS: ops.greater_equal, GREATER_EQUAL: ops.less, GREATER: ops.less_equal, LESS_EQUAL: ops.greater,
}  # fmt: skip


@RULES.on(LOGICAL_NOT)
def not_of_comparison(node: Node, context: Context) -> Tensor | None:
    """not (x == y) is x != y; for integers and bools, not (x < y) is x >= y, and so on"""
    inner = context.made_by(node.inputs[0], *_TOTAL, *_ORDERED)
    if inner is None:
        return None
    ordered = inner.inputs[0].dtype.kind != "f"
    opposite = _TOTAL.get(inner.op) or (_ORDERED.get(inner.op) if ordered else None)
    return None if opposite is None else opposite(*inner.inputs)


@RULES.on(WHERE)
def where_choices_are_one(node: Node, context: Context) -> Tensor | None:
    """where(c, x, x) = x"""
    condition, x, y = node.inputs
    return fitted(x, node) if x is y and not context.may_fail(condition) else None


@RULES.on(WHERE)
def where_condition_is_known(node: Node, context: Context) -> Tensor | None:
    """where(True, x, y) = x, where(False, x, y) = y"""
    value = context.value(node.inputs[0])
    if value is None:
        return None
    taken, dropped = (1, 2) if value else (2, 1)
    return None if context.may_fail(node.inputs[dropped]) else fitted(node.inputs[taken], node)


@RULES.on(WHERE)
def where_not(node: Node, context: Context) -> Tensor | None:
    """where(not c, x, y) = where(c, y, x)"""
    inner = context.made_by(node.inputs[0], LOGICAL_NOT)
    return None if inner is None else fitted(ops.where(inner.inputs[0], node.inputs[2], node.inputs[1]), node)


@RULES.on(WHERE)
def where_of_bools(node: Node, context: Context) -> Tensor | None:
    """where(c, True, False) = c, where(c, False, True) = not c"""
    condition, x, y = node.inputs
    if x.dtype != bool_:
        return None
    if context.is_value(x, True) and context.is_value(y, False):
        return fitted(condition, node)
    return fitted(~condition, node) if context.is_value(x, False) and context.is_value(y, True) else None


@RULES.on(WHERE)
def where_of_where(node: Node, context: Context) -> Tensor | None:
    """where(c, where(c, x, y), z) = where(c, x, z), and so for z"""
    condition, x, y = node.inputs
    for place, choice in ((1, x), (2, y)):
        inner = context.made_by(choice, WHERE)
        if inner is not None and inner.inputs[0] is condition and not context.may_fail(inner.inputs[3 - place]):
            taken = inner.inputs[place]
            return fitted(ops.where(condition, *((taken, y) if place == 1 else (x, taken))), node)
    return None


@RULES.on(STOP_GRADIENT)
def stop_gradient_is_done(node: Node, context: Context) -> Tensor | None:
    """stop_gradient(x) = x, once gradients are expanded"""
    return node.inputs[0]


@RULES.on(ASTYPE)
def conversion_of_conversion(node: Node, context: Context) -> Tensor | None:
    """x converted twice = x converted once, where the dtype between loses nothing that the last one shows"""
    inner = context.made_by(node.inputs[0], ASTYPE)
    if inner is None:
        return None
    x = inner.inputs[0]
    return (
        ops.astype(x, node.attrs["dtype"]) if _is_passed(x.dtype, inner.attrs["dtype"], node.attrs["dtype"]) else None
    )


def _is_passed(first: DType, between: DType, last: DType) -> bool:
    """Whether first -> between -> last is first -> last.

    Integers keep their low bits from one to the other, so a dtype between of at least the last one's width shows it
    all. Otherwise it must hold every value of the first. Then only one thing may differ: a float saturates where
    integers wrap around, so that from integers through floats the last one must hold every value too.
    """
    integers = all(dtype.kind in "iu" for dtype in (first, between, last))
    if integers and between.itemsize >= last.itemsize:
        return True
    if not _holds(between, first):
        return False
    return not (first.kind in "iu" and between.kind == "f" and last.kind in "iu") or _holds(last, first)


def _holds(wide: DType, narrow: DType) -> bool:
    """Whether every value of ``narrow`` is one of ``wide``."""
    if narrow.kind == "b" or wide == narrow:
        return True
    if narrow.kind == "f":
        return wide.kind == "f" and wide.itemsize >= narrow.itemsize
    if wide.kind == "f":
        return bool(np.iinfo(narrow).max <= 2 ** (np.finfo(wide).nmant + 1))
    return wide.kind in "iu" and bool(np.can_cast(narrow, wide))


@RULES.on(SUM)
def sum_of_one_hot(node: Node, context: Context) -> Tensor | None:
    """sum(where(i == 0, 1, 2, ..., x, 0)) = x + 0.0 for an index i in range and an x that does not vary"""
    axes, keep = node.attrs["axis"], node.attrs["keepdims"]
    choice = context.made_by(node.inputs[0], WHERE)
    if choice is None or len(axes) != 1 or context.value(choice.inputs[2]) != 0:
        return None
    (axis,), shape = axes, choice.outputs[0].shape
    x = choice.inputs[1]
    repeated = context.made_by(x, BROADCAST_TO)
    x = x if repeated is None else repeated.inputs[0]
    place = axis - (len(shape) - x.ndim)
    if (place >= 0 and x.shape[place] != 1) or not _is_one_hot(choice.inputs[0], axis, shape, context):
        return None
    if place >= 0 and not keep:
        x = ops.squeeze(x, place)
    return fitted(x if x.dtype.kind != "f" else x + 0.0, node)


def _is_one_hot(condition: Tensor, axis: int, shape: Sequence[Extent], context: Context) -> bool:
    """Whether exactly one element of ``condition`` is true along ``axis`` of ``shape``."""
    equality = context.made_by(condition, EQUAL)
    if equality is None:
        return False
    for index, count in either_way(equality):
        checked, _ = context.moved(index)
        counted, _ = context.moved(count)
        if checked.node.op is not CHECK_INDEX or counted.node.op is not ARANGE or counted.dtype != int64:
            continue
        extent = counted.shape[0]
        along = len(shape) - count.ndim
        moves = [e for a, e in enumerate(count.shape) if e != 1 or a + along == axis]
        still = index.ndim + axis < len(shape) or index.shape[axis - len(shape)] == 1
        if still and moves == [extent] and checked.node.attrs["extent"] == extent == shape[axis]:
            return True
    return False
