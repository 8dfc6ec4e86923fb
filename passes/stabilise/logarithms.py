"""Logarithms of what overflows, underflows or cancels before the logarithm is taken."""

from __future__ import annotations

import math

from graphc import ops
from graphc.node import Node, Tensor
from graphc.ops.elementwise import ADD, DIVIDE, MULTIPLY, NEGATIVE, SUBTRACT
from graphc.ops.exponential import EXP, EXPM1, LOG, LOG1P, SIGMOID
from graphc.ops.leaf import EXTENT
from graphc.ops.reduce import SUM
from graphc.ops.softmax import SOFTMAX
from passes.matching import Context, either_way, fitted, moved_again
from passes.stabilise import forms
from passes.stabilise.forms import RULES


@RULES.on(LOG)
def log_of_softmax(node: Node, context: Context) -> Tensor | None:
    """log(softmax(x)) = log_softmax(x), and so for the elements at indices, such as those of the wanted classes"""
    inner, views = context.moved(node.inputs[0], gathers=True)
    found = context.made_by(inner, SOFTMAX)
    if found is None:
        return None
    return moved_again(views, forms.along_axes(ops.log_softmax, found.inputs[0], found.attrs["axis"]))


@RULES.on(LOG)
def log_of_sum_of_exp(node: Node, context: Context) -> Tensor | None:
    """log(sum(exp(x))) = logsumexp(x)"""
    inner, views = context.moved(node.inputs[0])
    found = _sum_of_exp(inner, context)
    return None if found is None else moved_again(views, found)


@RULES.on(LOG)
def log_of_scaled_sum_of_exp(node: Node, context: Context) -> Tensor | None:
    """log(sum(exp(x)) / c) = logsumexp(x) - log(c), log(c * sum(exp(x))) = logsumexp(x) + log(c); numbers c > 0"""
    scaled = context.made_by(node.inputs[0], DIVIDE, MULTIPLY)
    if scaled is None:
        return None
    for total, factor in either_way(scaled) if scaled.op is MULTIPLY else (scaled.inputs,):
        if _is_positive(factor, context):
            found = _sum_of_exp(total, context)
            if found is not None:
                return found + ops.log(factor) if scaled.op is MULTIPLY else found - ops.log(factor)
    return None


def _is_positive(factor: Tensor, context: Context) -> bool:
    if context.made_by(factor, EXTENT) is not None:
        return True
    value = context.value(factor)
    return value is not None and 0 < value < math.inf


def _sum_of_exp(tensor: Tensor, context: Context) -> Tensor | None:
    total = context.made_by(tensor, SUM)
    inner = None if total is None else context.made_by(total.inputs[0], EXP)
    if total is None or inner is None or not forms.has_elements(inner.inputs[0], total.attrs["axis"]):
        return None
    return ops.logsumexp(inner.inputs[0], total.attrs["axis"], keepdims=total.attrs["keepdims"])


@RULES.on(LOG)
def log_of_sum_of_two_exp(node: Node, context: Context) -> Tensor | None:
    """log(exp(x) + exp(y)) = logaddexp(x, y)"""
    inner, views = context.moved(node.inputs[0])
    total = context.made_by(inner, ADD)
    if total is None:
        return None
    x, y = (context.made_by(t, EXP) for t in total.inputs)
    return None if x is None or y is None else moved_again(views, ops.logaddexp(x.inputs[0], y.inputs[0]))


@RULES.on(LOG)
def log_of_one_plus(node: Node, context: Context) -> Tensor | None:
    """log(1 + x) = log1p(x)"""
    inner, views = context.moved(node.inputs[0])
    total = context.made_by(inner, ADD)
    if total is not None:
        for x, one in either_way(total):
            if context.is_value(one, 1):
                return moved_again(views, fitted(_log1p(x, context), total))
    return None


@RULES.on(LOG)
def log_of_one_minus(node: Node, context: Context) -> Tensor | None:
    """log(1 - x) = log1p(-x)"""
    inner, views = context.moved(node.inputs[0])
    total = context.made_by(inner, SUBTRACT)
    if total is None or not context.is_value(total.inputs[0], 1):
        return None
    return moved_again(views, fitted(_log1p(forms.negated(total.inputs[1], context), context), total))


@RULES.on(LOG)
def log_of_minus_expm1(node: Node, context: Context) -> Tensor | None:
    """log(-expm1(x)) = log(1 - exp(x)), which has become the former, by two branches"""
    inner, views = context.moved(node.inputs[0])
    minus = context.made_by(inner, NEGATIVE)
    found = None if minus is None else context.made_by(minus.inputs[0], EXPM1)
    return None if found is None else moved_again(views, forms.log_one_minus_exp(found.inputs[0]))


@RULES.on(LOG)
def log_of_sigmoid(node: Node, context: Context) -> Tensor | None:
    """log(sigmoid(x)) = -log(1 + exp(-x))"""
    inner, views = context.moved(node.inputs[0])
    found = context.made_by(inner, SIGMOID)
    return None if found is None else moved_again(views, forms.log_sigmoid(found.inputs[0], context))


@RULES.on(LOG)
def log_of_exp(node: Node, context: Context) -> Tensor | None:
    """log(exp(x)) = x"""
    inner, views = context.moved(node.inputs[0])
    found = context.made_by(inner, EXP)
    return None if found is None else moved_again(views, found.inputs[0])


@RULES.on(LOG1P)
def log1p_of_exp(node: Node, context: Context) -> Tensor | None:
    """log1p(exp(x)) = logaddexp(x, 0), and log1p(-sigmoid(x)) = log(sigmoid(-x))"""
    inner, views = context.moved(node.inputs[0])
    found = _stable_log1p(inner, context)
    return None if found is None else moved_again(views, found)


def _stable_log1p(x: Tensor, context: Context) -> Tensor | None:
    power = context.made_by(x, EXP)
    if power is not None:
        safe = forms.never_positive(power.inputs[0], context)
        return None if safe else forms.softplus(power.inputs[0])
    minus = context.made_by(x, NEGATIVE)
    found = None if minus is None else context.made_by(minus.inputs[0], SIGMOID)
    return None if found is None else forms.log_sigmoid(forms.negated(found.inputs[0], context), context)


def _log1p(x: Tensor, context: Context) -> Tensor:
    found = _stable_log1p(x, context)
    return ops.log1p(x) if found is None else found
