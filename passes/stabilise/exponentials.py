"""Exponentials that cancel, or that overflow in a quotient, and other ways to write functions that have a name."""

from __future__ import annotations

from graphc import ops
from graphc.node import Node, Tensor
from graphc.opdef import OpDef
from graphc.ops.elementwise import ADD, DIVIDE, MULTIPLY, NEGATIVE, SUBTRACT
from graphc.ops.exponential import ERF, EXP, EXPM1, SIGMOID, TANH
from graphc.ops.power import POW, RECIPROCAL
from graphc.ops.reduce import MAX, SUM
from graphc.ops.softmax import LOG_SOFTMAX, LOGSUMEXP, SOFTMAX
from graphc.ops.trigonometric import COS
from passes.matching import Context, either_way, fitted, moved_again
from passes.stabilise import forms
from passes.stabilise.forms import RULES, Reduced, Shifted

# Differences from 1.


@RULES.on(SUBTRACT)
def exp_minus_one(node: Node, context: Context) -> Tensor | None:
    """exp(x) - 1 = expm1(x)"""
    found = context.made_by(node.inputs[0], EXP)
    if found is None or not context.is_value(node.inputs[1], 1):
        return None
    return fitted(ops.expm1(found.inputs[0]), node)


@RULES.on(ADD)
def minus_one_plus_exp(node: Node, context: Context) -> Tensor | None:
    """exp(x) + -1 = expm1(x)"""
    for power, minus in either_way(node):
        found = context.made_by(power, EXP)
        if found is not None and context.is_value(minus, -1):
            return fitted(ops.expm1(found.inputs[0]), node)
    return None


@RULES.on(SUBTRACT)
def one_minus_exp(node: Node, context: Context) -> Tensor | None:
    """1 - exp(x) = -expm1(x)"""
    power = _taken_from_one(node, EXP, context)
    return None if power is None else fitted(ops.negative(ops.expm1(power.inputs[0])), node)


@RULES.on(SUBTRACT)
def one_minus_sigmoid(node: Node, context: Context) -> Tensor | None:
    """1 - sigmoid(x) = sigmoid(-x); not in derivatives, which would take a second exponential"""
    inner = _taken_from_one(node, SIGMOID, context)
    if inner is None or not forms.written(node):
        return None
    return fitted(ops.sigmoid(forms.negated(inner.inputs[0], context)), node)


@RULES.on(SUBTRACT)
def one_minus_erf(node: Node, context: Context) -> Tensor | None:
    """1 - erf(x) = erfc(x)"""
    inner = _taken_from_one(node, ERF, context)
    return None if inner is None else fitted(ops.erfc(inner.inputs[0]), node)


@RULES.on(ADD)
def one_plus_erf(node: Node, context: Context) -> Tensor | None:
    """1 + erf(x) = erfc(-x)"""
    for one, other in either_way(node):
        inner = context.made_by(other, ERF)
        if inner is not None and context.is_value(one, 1):
            return fitted(ops.erfc(forms.negated(inner.inputs[0], context)), node)
    return None


@RULES.on(SUBTRACT)
def one_minus_tanh(node: Node, context: Context) -> Tensor | None:
    """1 - tanh(x) = 2 * sigmoid(-2 * x)"""
    inner = _taken_from_one(node, TANH, context)
    return None if inner is None else fitted(2 * ops.sigmoid(inner.inputs[0] * -2), node)


@RULES.on(ADD)
def one_plus_tanh(node: Node, context: Context) -> Tensor | None:
    """1 + tanh(x) = 2 * sigmoid(2 * x)"""
    for one, other in either_way(node):
        inner = context.made_by(other, TANH)
        if inner is not None and context.is_value(one, 1):
            return fitted(2 * ops.sigmoid(inner.inputs[0] * 2), node)
    return None


@RULES.on(SUBTRACT)
def one_minus_cos(node: Node, context: Context) -> Tensor | None:
    """1 - cos(x) = 2 * sin(x / 2)**2"""
    inner = _taken_from_one(node, COS, context)
    return None if inner is None else fitted(2 * ops.square(ops.sin(inner.inputs[0] * 0.5)), node)


def _taken_from_one(node: Node, op: OpDef, context: Context) -> Node | None:
    """The node of f(x) in 1 - f(x), for the function ``op``."""
    found = context.made_by(node.inputs[1], op)
    return found if found is not None and context.is_value(node.inputs[0], 1) else None


# Quotients of exponentials.


@RULES.on(DIVIDE)
def softmax_by_hand(node: Node, context: Context) -> Tensor | None:
    """exp(x) / sum(exp(x)) = softmax(x)"""
    power = context.made_by(node.inputs[0], EXP)
    total = None if power is None else forms.reduction(node.inputs[1], SUM, context)
    if power is None or total is None or total.stopped or not total.restored(power.outputs[0]):
        return None
    x = power.inputs[0]
    again = context.made_by(total.node.inputs[0], EXP)
    if again is None or not context.same(x, again.inputs[0]) or not forms.has_elements(x, total.axes):
        return None
    return forms.along_axes(ops.softmax, x, total.axes)


@RULES.on(DIVIDE, RECIPROCAL, POW)
def sigmoid_by_hand(node: Node, context: Context) -> Tensor | None:
    """1 / (1 + exp(-x)) = sigmoid(x), also as reciprocal or power, and exp(x) / (1 + exp(x)) = sigmoid(x)"""
    base, exponent = (node.inputs[0], node.inputs[-1]) if node.op is POW else (node.inputs[-1], None)
    power = _one_plus_exp(base, context)
    if power is None or (exponent is not None and not context.is_value(exponent, -1)):
        return None
    if node.op is not DIVIDE or context.is_value(node.inputs[0], 1):
        return fitted(ops.sigmoid(forms.negated(power.inputs[0], context)), node)
    above = context.made_by(node.inputs[0], EXP)
    if above is None or not context.same(above.inputs[0], power.inputs[0]):
        return None
    return fitted(ops.sigmoid(power.inputs[0]), node)


@RULES.on(DIVIDE)
def tanh_by_hand(node: Node, context: Context) -> Tensor | None:
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x)) = tanh(x)"""
    above, below = context.made_by(node.inputs[0], SUBTRACT), context.made_by(node.inputs[1], ADD)
    pair = None if above is None else _opposite_powers(above, context)
    if pair is None or below is None:
        return None
    powers = [context.made_by(t, EXP) for t in below.inputs]
    terms = [p.inputs[0] for p in powers if p is not None]
    if len(terms) == 2 and any(context.same(pair[0], a) and context.same(pair[1], b) for a, b in (terms, terms[::-1])):
        return ops.tanh(pair[0])
    return None


@RULES.on(DIVIDE, MULTIPLY)
def sinh_by_hand(node: Node, context: Context) -> Tensor | None:
    """(exp(x) - exp(-x)) / 2 = sinh(x)"""
    for difference, half in (node.inputs,) if node.op is DIVIDE else either_way(node):
        found = context.made_by(difference, SUBTRACT)
        pair = None if found is None else _opposite_powers(found, context)
        if pair is not None and context.is_value(half, 2 if node.op is DIVIDE else 0.5):
            return fitted(ops.sinh(pair[0]), node)
    return None


def _opposite_powers(node: Node, context: Context) -> tuple[Tensor, Tensor] | None:
    """x and -x, where the inputs of ``node`` are their exponentials."""
    powers = [context.made_by(t, EXP) for t in node.inputs]
    x, y = (None if p is None else p.inputs[0] for p in powers)
    return (x, y) if x is not None and y is not None and forms.opposite(x, y, context) else None


@RULES.on(DIVIDE)
def tanh_of_half(node: Node, context: Context) -> Tensor | None:
    """expm1(x) / (exp(x) + 1) = tanh(x / 2), and -expm1(x) / (1 + exp(x)) = tanh(-x / 2)"""
    power = _one_plus_exp(node.inputs[1], context)
    if power is None:
        return None
    minus = context.made_by(node.inputs[0], NEGATIVE)
    above = context.made_by(node.inputs[0] if minus is None else minus.inputs[0], EXPM1)
    if above is None or not context.same(above.inputs[0], power.inputs[0]):
        return None
    return fitted(ops.tanh(power.inputs[0] * (0.5 if minus is None else -0.5)), node)


@RULES.on(DIVIDE)
def over_one_plus_exp(node: Node, context: Context) -> Tensor | None:
    """a / (1 + exp(x)) = a * sigmoid(-x)"""
    power = _one_plus_exp(node.inputs[1], context)
    if power is None:
        return None
    return fitted(node.inputs[0] * ops.sigmoid(forms.negated(power.inputs[0], context)), node)


@RULES.on(DIVIDE)
def softmax_of_two(node: Node, context: Context) -> Tensor | None:
    """exp(x) / (exp(x) + exp(y)) = sigmoid(x - y)"""
    above, total = context.made_by(node.inputs[0], EXP), context.made_by(node.inputs[1], ADD)
    if above is None or total is None:
        return None
    for one, other in either_way(total):
        x, y = context.made_by(one, EXP), context.made_by(other, EXP)
        if x is not None and y is not None and context.same(x.inputs[0], above.inputs[0]):
            return fitted(ops.sigmoid(above.inputs[0] - y.inputs[0]), node)
    return None


def _one_plus_exp(tensor: Tensor, context: Context) -> Node | None:
    """The node of exp(x) in ``1 + exp(x)``."""
    total = context.made_by(tensor, ADD)
    if total is not None:
        for power, one in either_way(total):
            found = context.made_by(power, EXP)
            if found is not None and context.is_value(one, 1):
                return found
    return None


# Around softmax.


@RULES.on(SUBTRACT)
def minus_logsumexp(node: Node, context: Context) -> Tensor | None:
    """x - logsumexp(x) = log_softmax(x)"""
    x = node.inputs[0]
    found = forms.reduction(node.inputs[1], LOGSUMEXP, context)
    if found is None or found.stopped or not found.restored(x):
        return None
    inner, axes = found.node, {*found.axes}
    while inner.attrs["keepdims"]:  # logsumexp over several axes is that of one after another
        within = context.made_by(inner.inputs[0], LOGSUMEXP)
        if within is None or not within.attrs["keepdims"]:
            break
        inner, axes = within, {*axes, *within.attrs["axis"]}
    return forms.along_axes(ops.log_softmax, x, sorted(axes)) if context.same(inner.inputs[0], x) else None


@RULES.on(EXP)
def exp_of_log_softmax(node: Node, context: Context) -> Tensor | None:
    """exp(log_softmax(x)) = softmax(x); not in derivatives, where the logarithm is at hand"""
    inner, views = context.moved(node.inputs[0])
    found = context.made_by(inner, LOG_SOFTMAX)
    if found is None or not forms.written(node):
        return None
    return moved_again(views, forms.along_axes(ops.softmax, found.inputs[0], found.attrs["axis"]))


@RULES.on(SOFTMAX, LOG_SOFTMAX)
def softmax_of_shifted(node: Node, context: Context) -> Tensor | None:
    """softmax(x - max(x)) = softmax(x), and so for its logarithm"""
    found = forms.shifted(node.inputs[0], node.attrs["axis"], context)
    return None if found is None else node.rebuilt((found.x,)).outputs[0]


@RULES.on(ADD)
def logsumexp_by_hand(node: Node, context: Context) -> Tensor | None:
    """m + logsumexp(x - m) = logsumexp(x), for m = max(x)"""
    for total, shift in either_way(node):
        found = forms.reduction(total, LOGSUMEXP, context)
        inner = None if found is None else forms.shifted(found.node.inputs[0], found.axes, context)
        if found is not None and inner is not None and _adds_back(shift, total, found, inner, context):
            views = context.moved(total)[1]
            return fitted(moved_again(views, found.node.rebuilt((inner.x,)).outputs[0]), node)
    return None


def _adds_back(shift: Tensor, total: Tensor, found: Reduced, inner: Shifted, context: Context) -> bool:
    """Whether ``shift`` is the m that was subtracted, element for element, and as much kept from gradients."""
    added = forms.reduction(shift, MAX, context)
    if found.stopped or added is None or added.stopped != inner.largest.stopped:
        return False
    if not context.same(added.node.outputs[0], inner.largest.node.outputs[0]):
        return False
    if found.shape == found.kept() == total.shape:
        return added.restored(inner.x)
    aligned = added.shape == () or (added.shape == added.dropped() and added.axes == found.axes)
    return found.shape == found.dropped() == total.shape and aligned
