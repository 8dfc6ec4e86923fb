"""Tensors one after another along an axis, and taken apart again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dims import Dim, Extent, exact_div
from graphc.errors import DTypeError, ShapeError
from graphc.node import Node, Tensor, TensorType, attrs_of, make_node
from graphc.opdef import Domain, Inference, Kind, OpDef, register
from graphc.ops.leaf import as_operands, as_tensor
from graphc.ops.shape import expand_dims, normalize_axis, reshape, squeeze
from graphc.ops.slicing import part


def _infer_concat(c: Inference) -> tuple[TensorType, ...]:
    first, along = c.inputs[0], c.attrs["axis"]
    shape = list(first.shape)
    for tensor in c.inputs[1:]:
        if tensor.ndim != first.ndim:
            raise c.fail(f"tensors must have one rank, got {first.ndim} and {tensor.ndim}; stack makes a new axis")
        if tensor.dtype != first.dtype:
            raise c.fail(f"operands must have one dtype, got {first.dtype} and {tensor.dtype}", DTypeError)
        for axis, extent in enumerate(tensor.shape):
            if axis == along:
                shape[axis] = shape[axis] + extent
            else:
                shape[axis] = c.equal(shape[axis], extent, f"extents of axis {axis}")
    return (TensorType(tuple(shape), first.dtype),)


def _concat_vjp(node: Node, g: Tensor) -> list[Tensor | None]:
    axis = node.attrs["axis"]
    found: list[Tensor | None] = []
    start: Extent = 0
    for tensor in node.inputs:
        count = tensor.shape[axis]
        found.append(part(g, axis, start, count))
        start = start + count
    return found


CONCAT = register(
    OpDef(
        "concat", Kind.CONCAT, _infer_concat, lambda r, *arrays: np.concatenate(arrays, r.attrs["axis"]), _concat_vjp,
        cost=0,
        domain=Domain(
            ("fiub", "fiub"),
            shapes=(
                ((2,), (2,)), ((2, 3), (2, 3)), ((3, 1), (3, 1)), ((0, 2), (0, 2)), (("n", 3), ("n", 3)),
                ((2, 3, 2), (2, 3, 2)),
            ),
        ),
        samples=(
            lambda x, y: concat((x, y)),
            lambda x, y: concat((y, x, y), axis=-1),
            lambda x, y: concat((x, y[:1], x), axis=0),
            lambda x, y: concat((y, x), axis=None),
            lambda x, y: stack((x, y), axis=-1),
        ),
        doc="The inputs one after another along an axis.",
    )
)  # fmt: skip


def concat(tensors: Sequence[Any], axis: int | None = 0) -> Tensor:
    """The tensors one after another along ``axis``, or flattened for None; promoted to one dtype. All other extents
    must be equal.
    """
    operands = _operands(tensors, "concat")
    if axis is None:
        operands, axis = tuple(reshape(t, (-1,)) for t in operands), 0
    if operands[0].ndim == 0:
        raise ShapeError(f"concat: a scalar has no axis to join along, got {operands[0].describe()}; use stack")
    place = normalize_axis(axis, operands[0].ndim, "concat")
    return operands[0] if len(operands) == 1 else make_node(CONCAT, operands, attrs_of(axis=place)).outputs[0]


def stack(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors of one shape side by side along a new ``axis`` of the result; promoted to one dtype."""
    operands = _operands(tensors, "stack")
    first = operands[0]
    for tensor in operands[1:]:
        if tensor.ndim != first.ndim:
            raise ShapeError(
                f"stack: tensors must have one shape, got ranks {first.ndim} and {tensor.ndim}\n"
                f"  operands:\n    {first.describe()}\n    {tensor.describe()}"
            )
    place = normalize_axis(axis, first.ndim + 1, "stack")
    return concat([expand_dims(t, place) for t in operands], place)


def _operands(tensors: Any, what: str) -> tuple[Tensor, ...]:
    if not isinstance(tensors, (list, tuple)) or not tensors:
        raise ShapeError(f"{what}: needs a list or tuple of at least one tensor, got {tensors!r}")
    return as_operands(what, *tensors)


def unstack(x: Any, axis: int = 0) -> tuple[Tensor, ...]:
    """The slices of ``x`` along ``axis``, which they do not have any more. Its extent must be a number."""
    tensor = as_tensor(x, "unstack")
    place = normalize_axis(axis, tensor.ndim, "unstack")
    extent = tensor.shape[place]
    if isinstance(extent, Dim):
        raise ShapeError(
            f"unstack: how many tensors come out must be known, and axis {place} of {tensor.describe()} has the "
            f"symbolic extent {extent}"
        )
    return tuple(squeeze(part(tensor, place, i, 1), place) for i in range(extent))


def split(x: Any, indices_or_sections: Any, axis: int = 0) -> tuple[Tensor, ...]:
    """Consecutive parts of ``x`` along ``axis``: a number of equal ones, or those between increasing indices. The parts
    have all axes of ``x``.
    """
    tensor = as_tensor(x, "split")
    place = normalize_axis(axis, tensor.ndim, "split")
    extent = tensor.shape[place]
    if isinstance(indices_or_sections, (list, tuple)):
        bounds = _bounds(indices_or_sections, extent, tensor)
        last = (extent - bounds[-2] + 1,)  # the indices must not go past the end
        return tuple(part(tensor, place, a, b - a, last) for a, b in itertools.pairwise(bounds))
    sections = indices_or_sections
    if not isinstance(sections, (int, np.integer)) or isinstance(sections, bool) or sections < 1:
        raise ShapeError(f"split: needs a number of parts, at least 1, or a list of indices, got {sections!r}")
    try:
        size = exact_div(extent, int(sections))
    except ValueError as error:
        raise ShapeError(
            f"split: axis {place} of {tensor.describe()} has {extent} elements, which do not divide into {sections} "
            f"equal parts"
        ) from error
    return tuple(part(tensor, place, size * i, size) for i in range(int(sections)))


def _bounds(indices: Sequence[Any], extent: Extent, x: Tensor) -> list[Extent]:
    inside = all(isinstance(i, (int, np.integer)) and not isinstance(i, bool) and i >= 0 for i in indices)
    if not inside or sorted(indices) != list(indices) or (indices and isinstance(extent, int) and indices[-1] > extent):
        raise ShapeError(f"split: indices must increase within 0 to {extent}, got {indices!r} for {x.describe()}")
    return [0, *map(int, indices), extent]
