"""Running sums and products along an axis, and the linear recurrence that products and their derivatives are."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.bounds import max_extent
from graphc.dims import Extent, product
from graphc.dtypes import is_float
from graphc.errors import DTypeError, ShapeError
from graphc.node import Node, Tensor, TensorType, attrs_of, make_node
from graphc.opdef import Domain, Inference, Kind, OpDef, Routine, register
from graphc.ops.comparison import equal, where
from graphc.ops.elementwise import astype
from graphc.ops.joining import concat
from graphc.ops.leaf import arange, as_tensor, full_like, scalar
from graphc.ops.shape import broadcast_to, expand_dims, normalize_axis
from graphc.ops.slicing import part, placed

_SHAPES: tuple[tuple[int | str, ...], ...] = (
    (3,), (1,), (2, 4, 3), (0,), (2, 0, 3), (0, 3), ("n",), ("n", 3), (2, "n"),
)  # fmt: skip


def _infer_sum(c: Inference) -> tuple[TensorType, ...]:
    c.require_dtype("fiu")
    return (c.inputs[0].type,)


def _sum_reference(r: Any, x: Any) -> Any:
    turned = slice(None, None, -1 if r.attrs["reverse"] else 1)
    whole = (*(slice(None),) * r.attrs["axis"], turned)
    with np.errstate(all="ignore"):
        return np.cumsum(x[whole], axis=r.attrs["axis"], dtype=x.dtype)[whole]


def _sizes(node: Node) -> tuple[Extent, Extent, Extent]:
    shape, axis = node.outputs[0].shape, node.attrs["axis"]
    return product(shape[:axis]), shape[axis], product(shape[axis + 1 :])


CUMULATIVE_SUM = register(
    OpDef(
        "cumulative_sum", Kind.ROUTINE, _infer_sum, _sum_reference,
        lambda node, g: [_running_sum(g, node.attrs["axis"], reverse=not node.attrs["reverse"])],
        routine=lambda node: Routine("cumulative_sum", (*_sizes(node), int(node.attrs["reverse"]))),
        domain=Domain(("fiu",), shapes=tuple((s,) for s in _SHAPES)),
        samples=(
            lambda x: _running_sum(x, x.ndim - 1, reverse=False), lambda x: _running_sum(x, 0, reverse=False),
            lambda x: _running_sum(x, x.ndim - 1, reverse=True),
        ),
        doc="Sums of the elements up to each along an axis, or from it on; added one after another.",
    )
)  # fmt: skip


def _running_sum(x: Tensor, axis: int, *, reverse: bool) -> Tensor:
    return make_node(CUMULATIVE_SUM, (x,), attrs_of(axis=axis, reverse=reverse)).outputs[0]


def _infer_recurrence(c: Inference) -> tuple[TensorType, ...]:
    c.require_dtype("fiu")
    a, b = c.inputs
    if a.dtype != b.dtype:
        raise c.fail(f"operands must have one dtype, got {a.dtype} and {b.dtype}", DTypeError)
    if a.ndim != b.ndim:
        raise c.fail(f"operands must have one rank, got {a.ndim} and {b.ndim}")
    shape = tuple(c.equal(p, q, f"extents of axis {i}") for i, (p, q) in enumerate(zip(a.shape, b.shape, strict=True)))
    return (TensorType(shape, a.dtype),)


def _recurrence_reference(r: Any, a: Any, b: Any) -> Any:
    axis, reverse = r.attrs["axis"], r.attrs["reverse"]
    factors, terms = np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)
    result = np.empty(factors.shape, r.dtype)
    previous = None
    with np.errstate(all="ignore"):
        for i in range(len(result))[:: -1 if reverse else 1]:
            result[i] = previous = terms[i] if previous is None else factors[i] * previous + terms[i]
    return np.moveaxis(result, 0, axis)


def _recurrence_vjp(node: Node, g: Tensor) -> list[Tensor | None]:
    """With s[i] = g[i] + a[i+1] * s[i+1], the cotangent of b is s, and that of a[i] is s[i] * y[i-1]."""
    a, y = node.inputs[0], node.outputs[0]
    axis, reverse = node.attrs["axis"], node.attrs["reverse"]
    s = linear_recurrence(_moved(a, axis, forward=reverse), g, axis, reverse=not reverse)
    steps = _but_one(s, axis, at_end=reverse) * _but_one(y, axis, at_end=not reverse)
    return [_among_zeros(steps, axis, at_end=reverse, like=a), s]


def _but_one(x: Tensor, axis: int, *, at_end: bool) -> Tensor:
    """``x`` without its last element along ``axis``, or without its first."""
    return part(x, axis, int(not at_end), max_extent(x.shape[axis] - 1, 0))


def _among_zeros(x: Tensor, axis: int, *, at_end: bool, like: Tensor) -> Tensor:
    """``x`` with a zero in the place that ``_but_one`` left out of a tensor like ``like``."""
    start = [0] * x.ndim
    start[axis] = int(not at_end)
    return placed(x, start, [1] * x.ndim, like.shape)


def _moved(x: Tensor, axis: int, *, forward: bool) -> Tensor:
    """Every element in the place of the next one (of the one before it), with a zero where none comes in."""
    return _among_zeros(_but_one(x, axis, at_end=forward), axis, at_end=not forward, like=x)


LINEAR_RECURRENCE = register(
    OpDef(
        "linear_recurrence", Kind.ROUTINE, _infer_recurrence, _recurrence_reference, _recurrence_vjp,
        routine=lambda node: Routine("linear_recurrence", (*_sizes(node), int(node.attrs["reverse"]))),
        domain=Domain(("fiu", "fiu"), shapes=tuple((s, s) for s in _SHAPES)),
        samples=(
            lambda a, b: linear_recurrence(a, b, 0), lambda a, b: linear_recurrence(a, b, a.ndim - 1),
            lambda a, b: linear_recurrence(a, b, a.ndim - 1, reverse=True),
        ),
        doc="y[0] = b[0] and y[i] = a[i] * y[i-1] + b[i] along an axis, or from its end.",
    )
)  # fmt: skip


# The functions.


def linear_recurrence(a: Tensor, b: Tensor, axis: int, *, reverse: bool = False) -> Tensor:
    """``y[0] = b[0]``, ``y[i] = a[i] * y[i-1] + b[i]`` along ``axis``, from its end if ``reverse``. Shapes and dtypes
    of ``a`` and ``b`` are equal.

    Its derivative is a recurrence of the same kind, so that running products have derivatives of every order, zeros
    among the factors or not (G. Blelloch, "Prefix sums and their applications", 1990, section 1.4.1).
    """
    return make_node(LINEAR_RECURRENCE, (a, b), attrs_of(axis=axis, reverse=reverse)).outputs[0]


def products_of_others(x: Tensor, axis: int) -> Tensor:
    """For each element the product of all others along ``axis``. Float."""
    before = linear_recurrence(_moved(x, axis, forward=True), _first(x, axis, 1), axis)
    after = linear_recurrence(_moved(x, axis, forward=False), _first(x, axis, 1, reverse=True), axis, reverse=True)
    return before * after


def _first(x: Tensor, axis: int, value: Any, *, reverse: bool = False) -> Tensor:
    """``value`` in the first place along ``axis``, and in all others -0.0, which changes nothing it is added to."""
    places = expand_dims(arange(x.shape[axis]), tuple(a for a in range(x.ndim) if a != axis))
    first = equal(places, x.shape[axis] - 1 if reverse else 0)
    return where(first, value, full_like(x, -0.0 if is_float(x.dtype) else 0))


def cumulative_sum(x: Any, axis: int | None = None, *, include_initial: bool = False) -> Tensor:
    """Sum of the elements up to each, itself included, along ``axis``, which only a vector may leave out. Floats keep
    their dtype; integers add up in 64 bits. ``include_initial`` puts the empty sum, 0, in front.
    """
    tensor, place = _scanned(x, axis, "cumulative_sum")
    found = _running_sum(tensor, place, reverse=False)
    if not include_initial:
        return found
    shape = tuple(e + 1 if a == place else e for a, e in enumerate(found.shape))
    return placed(found, [int(a == place) for a in range(found.ndim)], [1] * found.ndim, shape)


def cumulative_prod(x: Any, axis: int | None = None, *, include_initial: bool = False) -> Tensor:
    """Product of the elements up to each, itself included, along ``axis``, which only a vector may leave out. Floats
    keep their dtype; integers multiply in 64 bits. ``include_initial`` puts the empty product, 1, in front.
    """
    tensor, place = _scanned(x, axis, "cumulative_prod")
    found = linear_recurrence(tensor, _first(tensor, place, tensor), place)
    if not include_initial:
        return found
    shape = tuple(1 if a == place else e for a, e in enumerate(found.shape))
    return concat([broadcast_to(scalar(1, found.dtype), shape), found], place)


def _scanned(x: Any, axis: int | None, what: str) -> tuple[Tensor, int]:
    tensor = as_tensor(x, what)
    if axis is None and tensor.ndim != 1:
        raise ShapeError(f"{what}: along which axis? {tensor.describe()} has {tensor.ndim}; pass axis=")
    if tensor.dtype.kind in "biu":
        tensor = astype(tensor, "uint64" if tensor.dtype.kind == "u" else "int64")
    return tensor, normalize_axis(0 if axis is None else axis, tensor.ndim, what)
