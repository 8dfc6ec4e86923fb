"""Roots of squares, and variances by the difference of two moments."""

from __future__ import annotations

from graphc import ops
from graphc.node import Node, Tensor
from graphc.ops.elementwise import SUBTRACT
from graphc.ops.power import POW, SQRT
from passes.matching import Context, moved_again
from passes.stabilise import forms
from passes.stabilise.forms import RULES


@RULES.on(SQRT, POW)
def root_of_square(node: Node, context: Context) -> Tensor | None:
    """sqrt(x**2) = |x|, with a derivative at 0 and no overflow"""
    if node.op is POW and not context.is_value(node.inputs[1], 0.5):
        return None
    inner, views = context.moved(node.inputs[0])
    pair = forms.factors(inner, context)
    if pair is None or not context.same(*pair):
        return None
    return moved_again(views, ops.abs(pair[0]))


@RULES.on(SUBTRACT)
def variance_by_two_passes(node: Node, context: Context) -> Tensor | None:
    """mean(x * y) - mean(x) * mean(y) = mean((x - mean(x)) * (y - mean(y))), of which the variance is one case"""
    total = forms.averaged(node.inputs[0], context)
    product = None if total is None else forms.factors(total.inputs[0], context)
    means = forms.factors(node.inputs[1], context)
    if total is None or product is None or means is None:
        return None
    for x, y in (product, product[::-1]):
        centred = [_centred(t, mean, total, context) for t, mean in zip((x, y), means, strict=True)]
        if centred[0] is not None and centred[1] is not None:
            square = ops.square(centred[0]) if x is y and means[0] is means[1] else centred[0] * centred[1]
            return ops.mean(square, total.attrs["axis"], keepdims=total.attrs["keepdims"])
    return None


def _centred(x: Tensor, mean: Tensor, total: Node, context: Context) -> Tensor | None:
    """``x - mean``, if ``mean`` is that of x over the axes of ``total``."""
    summed = forms.averaged(mean, context)
    if summed is None or summed.attrs != total.attrs or x.shape != total.inputs[0].shape:
        return None
    if not context.same(summed.inputs[0], x):
        return None
    return x - (mean if total.attrs["keepdims"] else ops.expand_dims(mean, total.attrs["axis"]))
