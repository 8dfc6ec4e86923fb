"""Ops that move elements without changing them: index maps, and the reinterpretation of C order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dims import Dim, Extent, exact_div, product
from graphc.errors import ShapeError
from graphc.node import Node, Tensor, TensorType, attrs_of, make_node
from graphc.opdef import Domain, Inference, Kind, OpDef, register
from graphc.ops.leaf import as_extent, as_shape, as_tensor
from graphc.ops.rules import unbroadcast

_ANY = Domain(("fiub",))


def normalize_axis(axis: Any, rank: int, what: str) -> int:
    """``axis`` counted from the front; ``ShapeError`` when there is no such axis."""
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        raise ShapeError(f"{what}: an axis is an int, got {axis!r}")
    if not -rank <= axis < rank:
        raise ShapeError(
            f"{what}: axis {axis} does not exist in a tensor of rank {rank} (axes go from {-rank} to {rank - 1})"
        )
    return int(axis) % rank


def normalize_axes(axis: Any, rank: int, what: str) -> tuple[int, ...]:
    """A sorted tuple of distinct axes; all of them for None."""
    if axis is None:
        return tuple(range(rank))
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    found = sorted(normalize_axis(a, rank, what) for a in axes)
    if len(set(found)) != len(found):
        raise ShapeError(f"{what}: axis {axis!r} names one axis twice in a tensor of rank {rank}")
    return tuple(found)


def _infer_broadcast(c: Inference) -> tuple[TensorType, ...]:
    x, shape = c.inputs[0], c.attrs["shape"]
    extra = len(shape) - x.ndim
    if extra < 0:
        raise c.fail(f"cannot broadcast rank {x.ndim} to the lower rank {len(shape)}")
    for axis, (mine, wanted) in enumerate(zip(x.shape, shape[extra:], strict=True)):
        if mine != 1:
            c.equal(mine, wanted, f"extents of axis {axis - x.ndim} (from {mine} to {wanted})")
    return (TensorType(shape, x.dtype),)


def _broadcast_map(node: Node) -> tuple[int | None, ...]:
    x, rank = node.inputs[0], node.outputs[0].ndim
    return tuple(None if e == 1 else rank - x.ndim + i for i, e in enumerate(x.shape))


BROADCAST_TO = register(
    OpDef(
        "broadcast_to", Kind.VIEW, _infer_broadcast, lambda r, x: np.broadcast_to(x, r.shape),
        lambda node, g: [unbroadcast(g, node.inputs[0])], index_map=_broadcast_map, cost=0, domain=_ANY,
        samples=(
            lambda x: broadcast_to(x, (2, *x.shape)),
            lambda x: broadcast_to(x, tuple(4 if e == 1 else e for e in x.shape)),
        ),
        doc="Repeat along new axes and axes of extent 1.",
    )
)  # fmt: skip


def _infer_permute(c: Inference) -> tuple[TensorType, ...]:
    x = c.inputs[0]
    return (TensorType(tuple(x.shape[a] for a in c.attrs["axes"]), x.dtype),)


def _permute_map(node: Node) -> tuple[int | None, ...]:
    axes = node.attrs["axes"]
    return tuple(axes.index(i) for i in range(len(axes)))


PERMUTE_DIMS = register(
    OpDef(
        "permute_dims", Kind.VIEW, _infer_permute, lambda r, x: np.transpose(x, r.attrs["axes"]),
        lambda node, g: [permute_dims(g, tuple(int(i) for i in np.argsort(node.attrs["axes"])))],
        index_map=_permute_map, cost=0, domain=_ANY,
        samples=(
            lambda x: permute_dims(x, tuple(range(x.ndim))[::-1]),
            lambda x: permute_dims(x, (*range(1, x.ndim), 0)[: x.ndim]),
        ),
        doc="Exchange axes.",
    )
)  # fmt: skip


def _infer_expand(c: Inference) -> tuple[TensorType, ...]:
    x = c.inputs[0]
    shape = list(x.shape)
    for axis in c.attrs["axes"]:
        shape.insert(axis, 1)
    return (TensorType(tuple(shape), x.dtype),)


def _expand_map(node: Node) -> tuple[int | None, ...]:
    axes = node.attrs["axes"]
    return tuple(i for i in range(node.outputs[0].ndim) if i not in axes)


EXPAND_DIMS = register(
    OpDef(
        "expand_dims", Kind.VIEW, _infer_expand, lambda r, x: np.expand_dims(x, r.attrs["axes"]),
        lambda node, g: [squeeze(g, node.attrs["axes"])], index_map=_expand_map, cost=0, domain=_ANY,
        samples=(lambda x: expand_dims(x, 0), lambda x: expand_dims(x, -1), lambda x: expand_dims(x, (0, -1))),
        doc="Insert axes of extent 1.",
    )
)  # fmt: skip


def _infer_squeeze(c: Inference) -> tuple[TensorType, ...]:
    x, axes = c.inputs[0], c.attrs["axes"]
    for axis in axes:
        if isinstance(x.shape[axis], int) and x.shape[axis] != 1:
            raise c.fail(f"axis {axis} has extent {x.shape[axis]}; only axes of extent 1 can go")
        c.equal(x.shape[axis], 1, f"axis {axis}; only axes of extent 1 can go")
    return (TensorType(tuple(e for i, e in enumerate(x.shape) if i not in axes), x.dtype),)


def _squeeze_map(node: Node) -> tuple[int | None, ...]:
    axes = node.attrs["axes"]
    kept = iter(range(node.outputs[0].ndim))
    return tuple(None if i in axes else next(kept) for i in range(node.inputs[0].ndim))


SQUEEZE = register(
    OpDef(
        "squeeze", Kind.VIEW, _infer_squeeze, lambda r, x: np.squeeze(x, r.attrs["axes"]),
        lambda node, g: [expand_dims(g, node.attrs["axes"])], index_map=_squeeze_map, cost=0, domain=_ANY,
        samples=(
            lambda x: squeeze(expand_dims(x, 0), 0),
            lambda x: squeeze(expand_dims(x, (0, -1)), (0, -1)),
        ),
        doc="Remove axes of extent 1.",
    )
)  # fmt: skip


def _infer_reshape(c: Inference) -> tuple[TensorType, ...]:
    x, shape = c.inputs[0], c.attrs["shape"]
    c.equal(product(x.shape), product(shape), f"numbers of elements of shapes {_show(x.shape)} and {_show(shape)}")
    return (TensorType(shape, x.dtype),)


def _show(shape: tuple[Extent, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


RESHAPE = register(
    OpDef(
        "reshape", Kind.RESHAPE, _infer_reshape, lambda r, x: np.reshape(x, r.shape),
        lambda node, g: [reshape(g, node.inputs[0].shape)], cost=0, domain=_ANY,
        samples=(lambda x: reshape(x, (-1,)), lambda x: reshape(x, x.shape[::-1]), lambda x: reshape(x, (1, *x.shape))),
        doc="The same elements in C order under another shape.",
    )
)  # fmt: skip


def broadcast_to(x: Any, shape: Sequence[Any]) -> Tensor:
    """``x`` repeated to ``shape`` along new leading axes and axes of extent 1; ``x`` itself when it has that shape."""
    tensor, wanted = as_tensor(x, "broadcast_to"), known_shape(shape, "broadcast_to")
    if tensor.shape == wanted:
        return tensor
    return make_node(BROADCAST_TO, (tensor,), attrs_of(shape=wanted)).outputs[0]


def broadcast_arrays(*tensors: Any) -> tuple[Tensor, ...]:
    """The tensors, each broadcast to the shape that all have together."""
    operands = [as_tensor(x, "broadcast_arrays") for x in tensors]
    shape = Inference(BROADCAST_TO, operands, {}).broadcast([t.shape for t in operands]) if operands else ()
    return tuple(broadcast_to(t, shape) for t in operands)


def known_shape(shape: Any, what: str) -> tuple[Extent, ...]:
    """The extents of ``shape``. None, which makes a new one in a placeholder, says nothing about a tensor that
    exists.
    """
    if isinstance(shape, (tuple, list)) and any(e is None for e in shape):
        raise ShapeError(
            f"{what}: None is no extent of {tuple(shape)!r}, as nothing decides it; write a number, or take it from a "
            f"tensor: x.shape[axis]"
        )
    return as_shape(shape, what)


def permute_dims(x: Any, axes: Sequence[int]) -> Tensor:
    """Axes in another order: result axis ``i`` is axis ``axes[i]`` of ``x``."""
    tensor = as_tensor(x, "permute_dims")
    if not isinstance(axes, (tuple, list)):
        raise ShapeError(
            f"permute_dims: axes must be a tuple with one axis for each of {tensor.describe()}, got {axes!r}"
        )
    order = tuple(normalize_axis(a, tensor.ndim, "permute_dims") for a in axes)
    if sorted(order) != list(range(tensor.ndim)):
        raise ShapeError(f"permute_dims: axes {tuple(axes)} must name each axis of {tensor.describe()} once")
    if order == tuple(range(tensor.ndim)):
        return tensor
    return make_node(PERMUTE_DIMS, (tensor,), attrs_of(axes=order)).outputs[0]


def matrix_transpose(x: Any) -> Tensor:
    """The last two axes exchanged. Rank at least 2."""
    tensor = as_tensor(x, "matrix_transpose")
    if tensor.ndim < 2:
        raise ShapeError(f"matrix_transpose: needs at least two axes, got {tensor.describe()}")
    return permute_dims(tensor, (*range(tensor.ndim - 2), tensor.ndim - 1, tensor.ndim - 2))


def expand_dims(x: Any, axis: int | tuple[int, ...]) -> Tensor:
    """New axes of extent 1 at the given places of the result."""
    tensor = as_tensor(x, "expand_dims")
    if axis is None:
        raise ShapeError("expand_dims: an axis is an int, got None")
    count = len(axis) if isinstance(axis, (tuple, list)) else 1
    axes = normalize_axes(axis, tensor.ndim + count, "expand_dims")
    return make_node(EXPAND_DIMS, (tensor,), attrs_of(axes=axes)).outputs[0] if axes else tensor


def squeeze(x: Any, axis: int | tuple[int, ...]) -> Tensor:
    """``x`` without the given axes, whose extents must be 1."""
    tensor = as_tensor(x, "squeeze")
    axes = normalize_axes(axis, tensor.ndim, "squeeze")
    return make_node(SQUEEZE, (tensor,), attrs_of(axes=axes)).outputs[0] if axes else tensor


def reshape(x: Any, shape: Sequence[Any]) -> Tensor:
    """The elements of ``x`` in C order under ``shape``; one extent may be -1. ``ShapeError`` when the counts
    cannot agree.
    """
    tensor = as_tensor(x, "reshape")
    if isinstance(shape, (int, str, Dim)) or shape is None:
        shape = (shape,)
    if any(e is None for e in shape):
        raise ShapeError(f"reshape: None is no extent of {tuple(shape)!r}; write -1 for the one to be worked out")
    unknown = [i for i, e in enumerate(shape) if isinstance(e, int) and e == -1]
    if len(unknown) > 1:
        raise ShapeError(f"reshape: at most one extent may be -1, got {tuple(shape)}")
    extents = [1 if i in unknown else as_extent(e, "reshape") for i, e in enumerate(shape)]
    if unknown:
        known = product(extents)
        try:
            extents[unknown[0]] = exact_div(product(tensor.shape), known)
        except ValueError as error:
            raise ShapeError(
                f"reshape: {tensor.describe()} has {product(tensor.shape)} elements, which {known} does not divide, "
                f"so -1 in {tuple(shape)} has no solution"
            ) from error
    wanted = tuple(extents)
    if tensor.shape == wanted:
        return tensor
    return make_node(RESHAPE, (tensor,), attrs_of(shape=wanted)).outputs[0]
