"""What the stabilising rules share: the list they are added to, the patterns they look for, and the stable forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from graphc import ops
from graphc.dims import Extent, product
from graphc.node import Node, Tensor
from graphc.opdef import OpDef
from graphc.ops.elementwise import (
    ABS,
    DIVIDE,
    MINIMUM,
    MULTIPLY,
    NEGATIVE,
    RELU,
    SQUARE,
    STOP_GRADIENT,
    SUBTRACT,
)
from graphc.ops.leaf import EXTENT
from graphc.ops.reduce import MAX, SUM
from graphc.ops.shape import BROADCAST_TO, EXPAND_DIMS, RESHAPE, SQUEEZE
from passes.matching import VIEWS, Context, either_way
from passes.rewriting import Rules

RULES = Rules("stabilise")


def written(node: Node) -> bool:
    """Whether the user wrote the node. What a derivative brings is left alone where a stable form costs more."""
    return node.role == "forward"


# Reductions and the tensors that they are combined with again.


class Reduced(NamedTuple):
    """A reduction seen through views that insert or remove axes of extent 1, and through ``stop_gradient``.

    ``shape`` is what it has after them; what reads it may broadcast it further, to the right.
    """

    node: Node
    shape: tuple[Extent, ...]
    stopped: bool

    @property
    def axes(self) -> tuple[int, ...]:
        return tuple(self.node.attrs["axis"])

    def restored(self, like: Tensor) -> bool:
        """Whether its elements meet those that they were made of, when it is combined with a tensor of the shape of
        ``like``, which is that of what was reduced.
        """
        kept = self.kept()
        return len(kept) == like.ndim and (1,) * (len(kept) - len(self.shape)) + self.shape == kept

    def kept(self) -> tuple[Extent, ...]:
        """The shape with every reduced axis at extent 1."""
        return tuple(1 if i in self.axes else e for i, e in enumerate(self.node.inputs[0].shape))

    def dropped(self) -> tuple[Extent, ...]:
        """The shape without the reduced axes."""
        return tuple(e for i, e in enumerate(self.node.inputs[0].shape) if i not in self.axes)


def reduction(tensor: Tensor, op: OpDef, context: Context) -> Reduced | None:
    """The reduction by ``op`` that ``tensor`` shows, perhaps broadcast."""
    shape, stopped, outside = tensor.shape, False, True
    for _ in range(VIEWS):
        node = context.made_by(tensor, BROADCAST_TO, EXPAND_DIMS, SQUEEZE, RESHAPE, STOP_GRADIENT)
        if node is None or (node.op is BROADCAST_TO and not outside):
            break
        stopped |= node.op is STOP_GRADIENT
        outside &= node.op is BROADCAST_TO or node.op is STOP_GRADIENT
        tensor = node.inputs[0]
        if outside:
            shape = tensor.shape
    found = context.made_by(tensor, op)
    return None if found is None else Reduced(found, shape, stopped)


class Shifted(NamedTuple):
    """``x - m``, where m is the largest element of x along some axes."""

    x: Tensor
    largest: Reduced


def shifted(tensor: Tensor, axes: tuple[int, ...], context: Context) -> Shifted | None:
    """``tensor`` as x - m with one m along ``axes``."""
    node = context.made_by(tensor, SUBTRACT)
    if node is None:
        return None
    x, shift = node.inputs
    found = reduction(shift, MAX, context)
    if found is None or not found.restored(x) or not set(axes) <= set(found.axes):
        return None
    return Shifted(x, found) if context.same(found.node.inputs[0], x) else None


# Parts of expressions.


def factors(tensor: Tensor, context: Context) -> tuple[Tensor, Tensor] | None:
    """x and y of ``x * y``; x twice for its square."""
    node = context.made_by(tensor, SQUARE, MULTIPLY)
    return None if node is None else (node.inputs[0], node.inputs[-1])


def averaged(tensor: Tensor, context: Context) -> Node | None:
    """The sum of which ``tensor`` is the mean: divided by the number of elements added up."""
    node = context.made_by(tensor, DIVIDE)
    total = None if node is None else context.made_by(node.inputs[0], SUM)
    if node is None or total is None or tensor.shape != total.outputs[0].shape:
        return None
    count, divisor = product(total.inputs[0].shape[a] for a in total.attrs["axis"]), node.inputs[1]
    extent = context.made_by(divisor, EXTENT)
    if extent is not None:
        return total if extent.attrs["extent"] == count else None
    return total if isinstance(count, int) and context.is_value(divisor, divisor.dtype.type(count)) else None


def negated(tensor: Tensor, context: Context) -> Tensor:
    """``-tensor``, without a second sign where there is one."""
    node = context.made_by(tensor, NEGATIVE)
    return ops.negative(tensor) if node is None else node.inputs[0]


def opposite(x: Tensor, y: Tensor, context: Context) -> bool:
    """Whether ``y`` is written as -x: with a sign, or as a multiple of the same tensor."""
    for a, b in ((x, y), (y, x)):
        minus = context.made_by(a, NEGATIVE)
        if minus is not None and context.same(minus.inputs[0], b):
            return True
    left, right = context.made_by(x, MULTIPLY), context.made_by(y, MULTIPLY)
    if left is None or right is None:
        return False
    for a, c in either_way(left):
        for b, d in either_way(right):
            value = context.value(c)
            if value is not None and context.is_value(d, -value) and context.same(a, b):
                return True
    return False


def never_positive(tensor: Tensor, context: Context) -> bool:
    """Whether ``tensor`` is written so that no element is above 0, and its exponential not above 1."""
    node = context.made_by(tensor, NEGATIVE, MINIMUM)
    if node is None:
        return False
    if node.op is MINIMUM:
        return any(context.is_value(t, 0) for t in node.inputs)
    return context.made_by(node.inputs[0], ABS, SQUARE, RELU) is not None


def has_elements(x: Tensor, axes: tuple[int, ...]) -> bool:
    """Whether no axis is known to have no elements: over none, a sum of exponentials is 0 and a maximum an error."""
    return all(x.shape[a] != 0 for a in axes)


# Stable forms.


def along_axes(function: Callable[[Tensor, int], Tensor], x: Tensor, axes: Sequence[int]) -> Tensor:
    """A ``function`` along one axis, such as softmax, along several: they become one, and are put back."""
    if len(axes) == 1:
        return function(x, axes[0])
    order = [*(a for a in range(x.ndim) if a not in axes), *axes]
    turned = ops.permute_dims(x, order)
    rows = ops.reshape(turned, (*turned.shape[: -len(axes)], product(x.shape[a] for a in axes)))
    found = ops.reshape(function(rows, rows.ndim - 1), turned.shape)
    return ops.permute_dims(found, [order.index(a) for a in range(x.ndim)])


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x))"""
    return ops.logaddexp(x, 0)


def log_sigmoid(x: Tensor, context: Context) -> Tensor:
    """log(1 / (1 + exp(-x))) = -log(1 + exp(-x))"""
    return ops.negative(softplus(negated(x, context)))


def log_one_minus_exp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0: log1p(-exp(x)) below -log 2, x + log(expm1(-x)) above (after M. Maechler, "Accurately
    computing log(1 - exp(-|a|))", 2012). The branch not taken is computed at -1, where its derivatives are finite.
    """
    near = ops.greater(x, -math.log(2))
    away = ops.full_like(x, -1)
    above, below = ops.where(near, x, away), ops.where(near, away, x)
    return ops.where(near, above + ops.log(ops.expm1(-above)), ops.log1p(-ops.exp(below)))
