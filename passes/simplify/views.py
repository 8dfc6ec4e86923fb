"""Views of views, which move elements and compute nothing, and reductions of single elements."""

from __future__ import annotations

from graphc import ops
from graphc.dims import Extent
from graphc.node import Node, Tensor
from graphc.ops.reduce import ALL, ANY, MAX, MIN, PROD, SUM
from graphc.ops.shape import BROADCAST_TO, EXPAND_DIMS, PERMUTE_DIMS, RESHAPE, SQUEEZE
from graphc.ops.slicing import SLICE, sliced
from passes.matching import Context
from passes.simplify.rules import RULES


@RULES.on(BROADCAST_TO, RESHAPE)
def shape_is_the_same(node: Node, context: Context) -> Tensor | None:
    """broadcast_to(x, x.shape) = reshape(x, x.shape) = x"""
    x = node.inputs[0]
    return x if x.shape == node.outputs[0].shape else None


@RULES.on(BROADCAST_TO)
def broadcast_of_broadcast(node: Node, context: Context) -> Tensor | None:
    """broadcast_to(broadcast_to(x)) = broadcast_to(x), and so where leading axes were inserted"""
    inner = context.made_by(node.inputs[0], BROADCAST_TO, EXPAND_DIMS)
    if inner is None or (inner.op is EXPAND_DIMS and inner.attrs["axes"] != tuple(range(len(inner.attrs["axes"])))):
        return None
    return ops.broadcast_to(inner.inputs[0], node.attrs["shape"])


@RULES.on(PERMUTE_DIMS)
def permutation_of_permutation(node: Node, context: Context) -> Tensor | None:
    """permute_dims(permute_dims(x)) = one of them, or x"""
    inner = context.made_by(node.inputs[0], PERMUTE_DIMS)
    if inner is None:
        return None
    return ops.permute_dims(inner.inputs[0], tuple(inner.attrs["axes"][a] for a in node.attrs["axes"]))


@RULES.on(SLICE)
def slice_of_slice(node: Node, context: Context) -> Tensor | None:
    """x[a::s][b::t] = x[a + s * b::s * t], and x where that is all of it in order"""
    inner = context.made_by(node.inputs[0], SLICE)
    if inner is None:
        return None
    outer, within = node.attrs, inner.attrs
    starts = [a + s * b for a, s, b in zip(within["start"], within["step"], outer["start"], strict=True)]
    steps = [s * t for s, t in zip(within["step"], outer["step"], strict=True)]
    positive = dict.fromkeys((*within["positive"], *outer["positive"]))
    return sliced(inner.inputs[0], starts, steps, outer["shape"], tuple(positive))


@RULES.on(RESHAPE)
def reshape_of_reshape(node: Node, context: Context) -> Tensor | None:
    """reshape(reshape(x)) = reshape(x), and so of axes inserted or removed: the elements stay in C order"""
    inner = context.made_by(node.inputs[0], RESHAPE, EXPAND_DIMS, SQUEEZE)
    return None if inner is None else ops.reshape(inner.inputs[0], node.attrs["shape"])


@RULES.on(RESHAPE)
def reshape_of_unit_axes(node: Node, context: Context) -> Tensor | None:
    """a reshape that inserts and removes axes of extent 1 alone is expand_dims and squeeze"""
    x, shape = node.inputs[0], node.attrs["shape"]
    if [e for e in x.shape if e != 1] != [e for e in shape if e != 1]:
        return None
    inserted = _missing(shape, x.shape)
    if inserted is not None:
        return ops.expand_dims(x, inserted)
    removed = _missing(x.shape, shape)
    if removed is not None:
        return ops.squeeze(x, removed)
    bare = ops.squeeze(x, tuple(i for i, e in enumerate(x.shape) if e == 1))
    return ops.expand_dims(bare, tuple(i for i, e in enumerate(shape) if e == 1))


def _missing(long: tuple[Extent, ...], short: tuple[Extent, ...]) -> tuple[int, ...] | None:
    """The axes of extent 1 of ``long`` without which it is ``short``."""
    extra, at = [], 0
    for axis, extent in enumerate(long):
        if at < len(short) and extent == short[at]:
            at += 1
        elif extent == 1:
            extra.append(axis)
        else:
            return None
    return tuple(extra) if at == len(short) else None


@RULES.on(EXPAND_DIMS)
def expand_of_expand(node: Node, context: Context) -> Tensor | None:
    """expand_dims(expand_dims(x)) = one of them"""
    inner = context.made_by(node.inputs[0], EXPAND_DIMS)
    if inner is None:
        return None
    axes = node.attrs["axes"]
    others = [i for i in range(node.outputs[0].ndim) if i not in axes]
    return ops.expand_dims(inner.inputs[0], (*axes, *(others[a] for a in inner.attrs["axes"])))


@RULES.on(SQUEEZE)
def squeeze_of_squeeze(node: Node, context: Context) -> Tensor | None:
    """squeeze(squeeze(x)) = one of them"""
    inner = context.made_by(node.inputs[0], SQUEEZE)
    if inner is None:
        return None
    axes = inner.attrs["axes"]
    others = [i for i in range(inner.inputs[0].ndim) if i not in axes]
    return ops.squeeze(inner.inputs[0], (*axes, *(others[a] for a in node.attrs["axes"])))


@RULES.on(EXPAND_DIMS)
def expand_of_squeeze(node: Node, context: Context) -> Tensor | None:
    """expand_dims(squeeze(x)) = x for the same axes"""
    inner = context.made_by(node.inputs[0], SQUEEZE)
    same = inner is not None and inner.attrs["axes"] == node.attrs["axes"]
    return inner.inputs[0] if inner is not None and same else None


@RULES.on(SQUEEZE)
def squeeze_of_expand(node: Node, context: Context) -> Tensor | None:
    """squeeze(expand_dims(x)) of axes that were inserted = expand_dims(x) by the others"""
    inner = context.made_by(node.inputs[0], EXPAND_DIMS)
    if inner is None or not set(node.attrs["axes"]) <= set(inner.attrs["axes"]):
        return None
    removed = node.attrs["axes"]
    left = [a for a in inner.attrs["axes"] if a not in removed]
    return ops.expand_dims(inner.inputs[0], tuple(a - sum(r < a for r in removed) for a in left))


@RULES.on(MAX, MIN, PROD, ANY, ALL, SUM)
def reduction_of_single_elements(node: Node, context: Context) -> Tensor | None:
    """max, min, prod, any, all, and of integers the sum, along axes of extent 1 are the elements themselves"""
    x, axes = node.inputs[0], node.attrs["axis"]
    if any(x.shape[a] != 1 for a in axes) or (node.op is SUM and x.dtype.kind == "f"):
        return None
    return x if node.attrs["keepdims"] else ops.squeeze(x, axes)
