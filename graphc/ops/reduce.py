"""Reductions: one value out of the elements along some axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.dims import product
from graphc.dtypes import is_float, true_divide_dtype
from graphc.errors import DTypeError, ShapeError
from graphc.node import Node, Tensor, TensorType, attrs_of, make_node
from graphc.opdef import Domain, Inference, Kind, NotDifferentiable, OpDef, Vjp, register
from graphc.ops.comparison import equal, logical_or, not_equal, where
from graphc.ops.elementwise import as_float, astype, divide, maximum, square
from graphc.ops.leaf import arange, as_tensor, extent_value, ones_like, zeros_like
from graphc.ops.power import sqrt
from graphc.ops.rules import DISCRETE
from graphc.ops.scan import products_of_others
from graphc.ops.shape import broadcast_to, expand_dims, normalize_axes, normalize_axis, permute_dims, reshape


def _infer(c: Inference) -> tuple[TensorType, ...]:
    c.require_dtype("b" if c.op.name in ("any", "all") else "fiu")
    x, axes = c.inputs[0], c.attrs["axis"]
    if c.op.name in ("max", "min"):
        for axis in axes:
            c.nonempty(x.shape[axis], f"axis {axis}")
    keep = c.attrs["keepdims"]
    return (TensorType(tuple(1 if i in axes else e for i, e in enumerate(x.shape) if keep or i not in axes), x.dtype),)


def restored(node: Node, reduced: Tensor) -> Tensor:
    """A reduction's result (or its cotangent) with the reduced axes back, at extent 1."""
    return reduced if node.attrs["keepdims"] else expand_dims(reduced, node.attrs["axis"])


def _sum_vjp(node: Node, g: Tensor) -> list[Tensor | None]:
    return [broadcast_to(restored(node, g), node.inputs[0].shape)]


def _extremum_vjp(node: Node, g: Tensor) -> list[Tensor | None]:
    x = node.inputs[0]
    hit = equal(x, restored(node, node.outputs[0]))
    share = restored(node, g) / sum(astype(hit, x.dtype), axis=node.attrs["axis"], keepdims=True)
    return [where(hit, broadcast_to(share, x.shape), zeros_like(x))]


def _prod_vjp(node: Node, g: Tensor) -> list[Tensor | None]:
    x, axes = node.inputs[0], node.attrs["axis"]
    order = (*(a for a in range(x.ndim) if a not in axes), *axes)
    turned = permute_dims(x, order)
    rows = reshape(turned, (*turned.shape[: x.ndim - len(axes)], product(x.shape[a] for a in axes)))
    others = reshape(products_of_others(rows, rows.ndim - 1), turned.shape)
    return [restored(node, g) * permute_dims(others, tuple(order.index(a) for a in range(x.ndim)))]


def _reference(function: Callable[..., Any]) -> Callable[..., Any]:
    def reference(r: Any, x: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(x, axis=r.attrs["axis"], keepdims=r.attrs["keepdims"]).astype(x.dtype)

    return reference


def _register(
    name: str, numpy: Callable[..., Any], combine: str, vjp: Vjp | NotDifferentiable, doc: str, kinds: str = "fiu"
) -> OpDef:
    samples = (
        lambda x: _reduce(op, x, -1, False),
        lambda x: _reduce(op, x, 0, True),
        lambda x: _reduce(op, x, None, False),
    )
    domain = Domain((kinds,), rank=1, empty=combine not in ("maximum", "minimum"))
    op: OpDef = register(
        OpDef(
            name, Kind.REDUCE, _infer, _reference(numpy), vjp, reduce=combine, domain=domain, samples=samples, doc=doc
        )
    )
    return op


SUM = _register("sum", np.sum, "add", _sum_vjp, "Sum of the elements.")
MAX = _register("max", np.max, "maximum", _extremum_vjp, "Largest element; NaN if one is NaN.")
MIN = _register("min", np.min, "minimum", _extremum_vjp, "Smallest element; NaN if one is NaN.")

PROD = _register("prod", np.prod, "mul", _prod_vjp, "Product of the elements.")
ANY = _register("any", np.any, "or_", DISCRETE, "Whether at least one element is true.", "b")
ALL = _register("all", np.all, "and_", DISCRETE, "Whether all elements are true.", "b")

Axis = int | tuple[int, ...] | None


def _reduce(op: OpDef, x: Any, axis: Axis, keepdims: bool) -> Tensor:
    tensor = as_tensor(x, op.name)
    if tensor.dtype.kind == "b" and "b" not in op.domain.kinds[0]:
        tensor = astype(tensor, "int64")
    axes = normalize_axes(axis, tensor.ndim, op.name)
    if not axes:
        return tensor
    return make_node(op, (tensor,), attrs_of(axis=axes, keepdims=bool(keepdims))).outputs[0]


def sum(x: Any, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """Sum over ``axis`` (an int, several, or all for None). Floats keep their dtype; integers add up in 64 bits.

    The order of addition is fixed by the shape, so the same data gives the same bits on any number of threads.
    """
    return _reduce(SUM, _widened(as_tensor(x, "sum")), axis, keepdims)


def _widened(x: Tensor) -> Tensor:
    """Integers and bools in 64 bits."""
    return astype(x, "uint64" if x.dtype.kind == "u" else "int64") if x.dtype.kind in "biu" else x


def prod(x: Any, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """Product over ``axis``. Floats keep their dtype; integers multiply in 64 bits. Its derivatives are right of every
    order, zeros among the factors or not.
    """
    return _reduce(PROD, _widened(as_tensor(x, "prod")), axis, keepdims)


def any(x: Any, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """Whether at least one element along ``axis`` is true (of numbers: not 0); False over no elements."""
    return _reduce(ANY, _truth(as_tensor(x, "any")), axis, keepdims)


def all(x: Any, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """Whether all elements along ``axis`` are true (of numbers: not 0); True over no elements."""
    return _reduce(ALL, _truth(as_tensor(x, "all")), axis, keepdims)


def _truth(x: Tensor) -> Tensor:
    return x if x.dtype.kind == "b" else not_equal(x, 0)


def count_nonzero(x: Any, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """Number (int64) of elements along ``axis`` that are not 0."""
    return sum(_truth(as_tensor(x, "count_nonzero")), axis, keepdims=keepdims)


def max(x: Any, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """Largest element over ``axis``; NaN if one is NaN. Equal largest elements share the cotangent."""
    return _reduce(MAX, x, axis, keepdims)


def min(x: Any, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """Smallest element over ``axis``; NaN if one is NaN. Equal smallest elements share the cotangent."""
    return _reduce(MIN, x, axis, keepdims)


def mean(x: Any, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """Arithmetic mean over ``axis``; integers and bools give float32. NaN over no elements."""
    tensor = as_tensor(x, "mean")
    tensor = astype(tensor, true_divide_dtype(tensor.dtype))
    axes = normalize_axes(axis, tensor.ndim, "mean")
    count = extent_value(product(tensor.shape[a] for a in axes), tensor.dtype)
    return divide(sum(tensor, axes, keepdims=keepdims), count)


def var(x: Any, axis: Axis = None, *, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """Mean of the squared distances from the mean over ``axis``, by two passes; the sum is divided by the number of
    elements less ``correction`` (1 for the unbiased estimate). Integers and bools give float32.
    """
    if isinstance(correction, bool) or not isinstance(correction, (int, float)):
        raise DTypeError(f"var: correction is a number, got {correction!r}")
    tensor = as_float(x, "var")
    axes = normalize_axes(axis, tensor.ndim, "var")
    total = sum(square(tensor - mean(tensor, axes, keepdims=True)), axes, keepdims=keepdims)
    count = product(tensor.shape[a] for a in axes)
    if isinstance(count, int):
        return total / float(count - correction if count > correction else 0)
    return total / maximum(extent_value(count, tensor.dtype) - float(correction), 0)


def std(x: Any, axis: Axis = None, *, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """Square root of ``var``; where that is 0, the derivative is taken as 0."""
    variance = var(x, axis, correction=correction, keepdims=keepdims)
    flat = equal(variance, 0)
    return where(flat, zeros_like(variance), sqrt(where(flat, ones_like(variance), variance)))


def argmax(x: Any, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
    """Index (int64) of the first largest element along ``axis``, or in C order when None; the first NaN if there
    is one.
    """
    return _arg(max, x, axis, keepdims, "argmax")


def argmin(x: Any, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
    """Index (int64) of the first smallest element along ``axis``, or in C order when None; the first NaN if there
    is one.
    """
    return _arg(min, x, axis, keepdims, "argmin")


def _arg(extremum: Callable[..., Tensor], x: Any, axis: int | None, keepdims: bool, what: str) -> Tensor:
    tensor = as_tensor(x, what)
    if axis is None:
        flat = _arg(extremum, tensor.reshape(-1), 0, False, what)
        return flat.reshape((1,) * tensor.ndim) if keepdims else flat
    place = normalize_axis(axis, tensor.ndim, what)
    extent = tensor.shape[place]
    if extent == 0:
        raise ShapeError(f"{what}: axis {axis} of {tensor.describe()} has no elements")
    hit = equal(tensor, extremum(tensor, place, keepdims=True))
    if is_float(tensor.dtype):
        hit = logical_or(hit, not_equal(tensor, tensor))
    positions = expand_dims(arange(extent), tuple(i for i in range(tensor.ndim) if i != place))
    return min(where(hit, positions, extent_value(extent, np.dtype(np.int64))), place, keepdims=keepdims)
