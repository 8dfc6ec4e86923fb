"""Reductions: one value out of the elements along some axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.dims import product
from graphc.dtypes import is_float, true_divide_dtype
from graphc.errors import ShapeError
from graphc.node import Node, Tensor, TensorType, attrs_of, make_node
from graphc.opdef import Domain, Inference, Kind, OpDef, Vjp, register
from graphc.ops.comparison import equal, logical_or, not_equal, where
from graphc.ops.elementwise import astype, divide
from graphc.ops.leaf import arange, as_tensor, extent_value, zeros_like
from graphc.ops.shape import broadcast_to, expand_dims, normalize_axes, normalize_axis


def _infer(c: Inference) -> tuple[TensorType, ...]:
    c.require_dtype("fiu")
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


def _reference(function: Callable[..., Any]) -> Callable[..., Any]:
    def reference(r: Any, x: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(x, axis=r.attrs["axis"], keepdims=r.attrs["keepdims"]).astype(x.dtype)

    return reference


def _register(name: str, numpy: Callable[..., Any], combine: str, vjp: Vjp, doc: str) -> OpDef:
    samples = (
        lambda x: _reduce(op, x, -1, False),
        lambda x: _reduce(op, x, 0, True),
        lambda x: _reduce(op, x, None, False),
    )
    domain = Domain(("fiu",), rank=1, empty=combine == "add")
    op: OpDef = register(
        OpDef(
            name, Kind.REDUCE, _infer, _reference(numpy), vjp, reduce=combine, domain=domain, samples=samples, doc=doc
        )
    )
    return op


SUM = _register("sum", np.sum, "add", _sum_vjp, "Sum of the elements.")
MAX = _register("max", np.max, "maximum", _extremum_vjp, "Largest element; NaN if one is NaN.")
MIN = _register("min", np.min, "minimum", _extremum_vjp, "Smallest element; NaN if one is NaN.")

Axis = int | tuple[int, ...] | None


def _reduce(op: OpDef, x: Any, axis: Axis, keepdims: bool) -> Tensor:
    tensor = as_tensor(x, op.name)
    if tensor.dtype.kind == "b":
        tensor = astype(tensor, "int64")
    axes = normalize_axes(axis, tensor.ndim, op.name)
    if not axes:
        return tensor
    return make_node(op, (tensor,), attrs_of(axis=axes, keepdims=bool(keepdims))).outputs[0]


def sum(x: Any, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """Sum over ``axis`` (an int, several, or all for None). Floats keep their dtype; integers add up in 64 bits.

    The order of addition is fixed by the shape, so the same data gives the same bits on any number of threads.
    """
    tensor = as_tensor(x, "sum")
    if tensor.dtype.kind in "biu":
        tensor = astype(tensor, "uint64" if tensor.dtype.kind == "u" else "int64")
    return _reduce(SUM, tensor, axis, keepdims)


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
