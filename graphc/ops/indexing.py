"""Indices found in the data: the check that they are in range, gathers, and the scatter that is their derivative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.bounds import lower_bound
from graphc.dims import Extent, product
from graphc.dtypes import DTypeLike, as_dtype, bool_, int64
from graphc.errors import DTypeError, IndexRangeError, ShapeError
from graphc.node import Node, Tensor, TensorType, attrs_of, make_node
from graphc.opdef import Domain, Inference, Kind, OpDef, Routine, register
from graphc.ops.comparison import equal
from graphc.ops.elementwise import astype
from graphc.ops.leaf import arange, as_extent, as_tensor, constant
from graphc.ops.rules import DISCRETE
from graphc.ops.shape import broadcast_to, expand_dims, normalize_axis, permute_dims, reshape


def _infer_one_hot(c: Inference) -> tuple[TensorType, ...]:
    c.require_dtype("iu", "indices")
    shape = c.inputs[0].shape
    for axis, (wanted, found) in enumerate(zip(c.attrs.get("samples", shape), shape, strict=True)):
        c.equal(wanted, found, f"samples and their labels along axis {axis}")
    return (TensorType((*shape, c.attrs["extent"]), c.attrs["dtype"]),)


def _one_hot_view(node: Node) -> Tensor:
    checked = check_index(node.inputs[0], node.attrs["extent"])
    return astype(equal(expand_dims(checked, -1), arange(node.attrs["extent"])), node.attrs["dtype"])


def _one_hot_reference(r: Any, x: Any) -> Any:
    extent = r.extent(r.attrs["extent"])
    _check_range(r, x, extent)
    return (x[..., None] == np.arange(extent)).astype(r.dtype)


ONE_HOT = register(
    OpDef(
        "one_hot", Kind.COMPOSITE, _infer_one_hot, _one_hot_reference, DISCRETE, decompose=_one_hot_view,
        domain=Domain(("iu",), low=0, high=2, bounded=True),
        samples=(lambda x: one_hot(x, 3), lambda x: one_hot(x, 4, "int32"), lambda x: one_hot(x, 3, "bool")),
        doc="1 at the index, 0 elsewhere, along a new last axis.",
    )
)  # fmt: skip


# The check.


def _infer_check_index(c: Inference) -> tuple[TensorType, ...]:
    c.require_dtype("iu", "indices")
    return (TensorType(c.inputs[0].shape, int64),)


def _check_range(r: Any, x: Any, extent: int) -> None:
    if x.size and (x.min() < (-extent if r.attrs.get("wrap") else 0) or x.max() >= extent):
        raise IndexRangeError(index_message(r.node, int(x.min()), int(x.max()), extent))


def index_message(node: Node, low: int, high: int, extent: int) -> str:
    """What to say of indices from ``low`` to ``high`` into an axis of ``extent``."""
    least = -extent if node.attrs.get("wrap") else 0
    wanted = f"must be {least} to {extent - 1}" if extent else "have nothing to point to in an axis of extent 0"
    found = f"{low} to {high}" if low < high else f"{low}"
    kind = "labels" if "samples" in node.attrs else "indices"
    return (
        f"{node.attrs.get('what', node.op.name)} at {node.where}: {kind} {wanted}, found {found}\n"
        f"  operands:\n    {node.inputs[0].describe()}"
    )


def _check_reference(r: Any, x: Any) -> Any:
    extent = r.extent(r.attrs["extent"])
    _check_range(r, x, extent)
    wide = x.astype(np.int64)
    return np.where(wide < 0, wide + extent, wide)


def _emit_check_index(b: Any, attrs: Any, x: Any) -> Any:
    index, extent, zero = b.cast(x, int64), b.extent("extent"), b.const(0, int64)
    if attrs["wrap"] and b.dtype(x).kind == "i":
        index = b.select(b.compare("lt", index, zero), b.binary("add", index, extent), index)
    bad = b.binary("or_", b.compare("lt", index, zero), b.compare("ge", index, extent))
    b.guard(bad)
    return b.select(bad, zero, index)  # so that nothing is read outside its tensor before the run stops


CHECK_INDEX = register(
    OpDef(
        "check_index", Kind.SCALAR, _infer_check_index, _check_reference, DISCRETE, emit=_emit_check_index, cost=30,
        fallible=True,
        domain=Domain(("iu",), low=0, high=2, bounded=True),
        samples=(lambda x: check_index(x, 3), lambda x: check_index(x, 3, wrap=True)),
        doc="The indices as int64, counted from the front; a run in which one is out of range fails with its place.",
    )
)  # fmt: skip


# Gathers.


def _infer_gather(c: Inference) -> tuple[TensorType, ...]:
    x, layout = c.inputs[0], c.attrs["layout"]
    for tensor in c.inputs[1:]:
        if tensor.dtype != int64:
            raise c.fail(f"indices must be int64, got {tensor.dtype}", DTypeError)
    kept: list[Extent] = [1] * c.attrs["rank"]
    for axis, place in enumerate(layout):
        if place is not None:
            kept[place] = x.shape[axis]
    shape = c.broadcast([tuple(kept), *(t.shape for t in c.inputs[1:])])
    for axis, place in enumerate(layout):
        if place is not None:
            c.equal(x.shape[axis], shape[place], f"extents of axis {axis} of the source and axis {place} of the result")
    return (TensorType(shape, x.dtype),)


def _gather_reference(r: Any, x: Any, *indices: Any) -> Any:
    if not all(r.shape):
        return np.zeros(r.shape, x.dtype)
    given = iter(indices)
    grid = np.ogrid[tuple(slice(e) for e in r.shape)]
    places = [next(given) if place is None else grid[place] for place in r.attrs["layout"]]
    return np.broadcast_to(x[tuple(places)], r.shape)


def _emit_gather(b: Any, attrs: Any, source: Any, *indices: Any) -> Any:
    given = iter(indices)
    places = [next(given) if place is None else b.index(place) for place in attrs["layout"]]
    mask = None
    for key in attrs:
        # Of an axis that may be empty not even element 0 is read.
        if key.startswith("extent") and (lower_bound(attrs[key]) or 0) < 1:
            there = b.compare("gt", b.extent(key), b.const(0, int64))
            mask = there if mask is None else b.binary("and_", mask, there)
    return b.load(source, places, mask)


def _gather_vjp(node: Node, g: Tensor) -> list[Tensor | None]:
    """``g`` added up where its elements were read: as (outer, count, inner), at flat indices into the indexed axes,
    which are then split again and put back into their order.
    """
    x, *indices = node.inputs
    layout = node.attrs["layout"]
    indexed = [a for a, place in enumerate(layout) if place is None]
    kept = [a for a, place in enumerate(layout) if place is not None]
    block = [r for r in range(g.ndim) if r not in layout]
    first = block[0] if block else sum(1 for a in kept if a < indexed[0])
    before, after = [a for a in kept if layout[a] < first], [a for a in kept if layout[a] >= first]
    outer, inner = (product(x.shape[a] for a in axes) for axes in (before, after))
    count = product(g.shape[r] for r in block)
    at = _flat_index(indices, [x.shape[a] for a in indexed])
    padded = (*(1 for _ in range(g.ndim - at.ndim)), *at.shape)
    if all(padded[layout[a]] == 1 for a in kept):
        at = reshape(at, (count,))
    else:  # other indices in every row
        at = reshape(broadcast_to(at, g.shape), (outer, count, inner))
    total = product(x.shape[a] for a in indexed)
    added = scatter_add(at, reshape(g, (outer, count, inner)), total)
    order = [*before, *indexed, *after]
    split = reshape(added, tuple(x.shape[a] for a in order))
    return [permute_dims(split, tuple(order.index(a) for a in range(x.ndim))), *(None for _ in indices)]


def _flat_index(indices: Sequence[Tensor], extents: Sequence[Extent]) -> Tensor:
    """The position, in C order of axes of these extents, of the element at ``indices``."""
    flat = indices[0]
    for index, extent in zip(indices[1:], extents[1:], strict=True):
        flat = flat * extent + index
    return flat


GATHER = register(
    OpDef(
        "gather", Kind.GATHER, _infer_gather, _gather_reference, _gather_vjp, emit=_emit_gather, cost=6,
        domain=Domain(
            ("fiub", "iu"), low=-1, high=1, bounded=True,
            shapes=(
                ((2, 3, 2), (3, 2)), ((2, 2, 2), (1, 2)), ((2, 3, 2), (3, 0)), ((0, 3, 2), (3, 2)),
                (("n", 3, 2), (3, 2)), (("n", 3, 2), (1, "m")),
            ),
        ),
        samples=(
            lambda x, i: take(x, i, axis=-1),
            lambda x, i: take(x, i, axis=1),
            lambda x, i: take_along_axis(x, expand_dims(i, 0), axis=2),
            lambda x, i: x[:, i, i[:1]],
            lambda x, i: x[:, i, i[..., ::-1]],
        ),
        doc="Elements at given indices along some axes.",
    )
)  # fmt: skip


def _infer_scatter(c: Inference) -> tuple[TensorType, ...]:
    indices, updates = c.inputs
    if indices.dtype != int64:
        raise c.fail(f"indices must be int64, got {indices.dtype}", DTypeError)
    if updates.ndim != 3 or indices.ndim not in (1, 3):
        raise c.fail(f"needs updates of rank 3 and indices of rank 1 or 3, got {updates.ndim} and {indices.ndim}")
    for axis, extent in enumerate(indices.shape if indices.ndim == 3 else (None, *indices.shape)):
        if extent is not None:
            c.equal(extent, updates.shape[axis], f"extents of axis {axis} of indices and updates")
    outer, _, inner = updates.shape
    return (TensorType((outer, c.attrs["extent"], inner), updates.dtype),)


def _scatter_reference(r: Any, indices: Any, updates: Any) -> Any:
    result = np.zeros(r.shape, r.dtype)
    outer, _, inner = np.ogrid[tuple(slice(e) for e in updates.shape)]
    at = indices if indices.ndim == 3 else indices[:, None]
    with np.errstate(all="ignore"):
        np.add.at(result, (outer, at, inner), updates)
    return result


def _scatter_vjp(node: Node, g: Tensor) -> list[Tensor | None]:
    indices = node.inputs[0]
    at = indices if indices.ndim == 3 else expand_dims(indices, -1)
    return [None, gather(g, [at], (0, None, 2), rank=3)]


def _scatter_routine(node: Node) -> Routine:
    indices, updates = node.inputs
    outer, count, inner = updates.shape
    return Routine("scatter_add", (outer, node.attrs["extent"], inner, count, int(indices.ndim == 3)))


SCATTER_ADD = register(
    OpDef(
        "scatter_add", Kind.ROUTINE, _infer_scatter, _scatter_reference, _scatter_vjp, routine=_scatter_routine,
        domain=Domain(
            ("iu", "fiu"), low=0, high=2, bounded=True,
            shapes=(
                ((4,), (2, 4, 3)), ((2, 4, 3), (2, 4, 3)), ((0,), (2, 0, 3)), ((3,), (0, 3, 2)), (("n",), (1, "n", 5)),
                (("n", 4, "m"), ("n", 4, "m")),
            ),
        ),
        samples=(lambda i, x: scatter_add(astype(i, "int64"), x, 3),),
        doc="Updates added up, in the order of their position, at indices along the middle axis of zeros.",
    )
)  # fmt: skip


# The public functions.


def one_hot(indices: Any, extent: Any, dtype: DTypeLike = "float32") -> Tensor:
    """1 at each index along a new last axis of ``extent``, 0 elsewhere. A run with an index out of range raises
    ``IndexRangeError``.
    """
    attrs = attrs_of(extent=as_extent(extent, "one_hot"), dtype=as_dtype(dtype))
    return make_node(ONE_HOT, (as_tensor(indices, "one_hot"),), attrs).outputs[0]


def hits(labels: Tensor, extent: Extent, samples: tuple[Extent, ...], what: str) -> Tensor:
    """``one_hot`` of a loss's labels, in bool. Errors name the loss, ``what``; ``samples`` is the shape that the labels
    must turn out to have.
    """
    attrs = attrs_of(extent=extent, dtype=bool_, samples=samples, what=what)
    return make_node(ONE_HOT, (labels,), attrs).outputs[0]


def check_index(indices: Any, extent: Any, *, wrap: bool = False, what: str = "check_index") -> Tensor:
    """``indices`` as int64. A run in which one is not within ``0 <= i < extent`` raises ``IndexRangeError``, which
    names ``what``. With ``wrap``, -1 is the last index and ``-extent`` the first.
    """
    attrs = attrs_of(extent=as_extent(extent, "check_index"), wrap=bool(wrap), what=what)
    return make_node(CHECK_INDEX, (as_tensor(indices, "check_index"),), attrs).outputs[0]


def gather(x: Tensor, indices: Sequence[Tensor], layout: Sequence[int | None], *, rank: int) -> Tensor:
    """Elements of ``x``, in a result of ``rank`` axes: each axis of ``x`` follows the result's axis ``layout[axis]``,
    or the next of the ``indices`` for None. These are int64, in range, and broadcast to the result.
    """
    extents = {f"extent{a}": x.shape[a] for a, place in enumerate(layout) if place is None}
    return make_node(GATHER, (x, *indices), attrs_of(layout=tuple(layout), rank=rank, **extents)).outputs[0]


def scatter_add(indices: Tensor, updates: Tensor, extent: Extent) -> Tensor:
    """Zeros of shape ``(outer, extent, inner)`` to which ``updates`` of shape ``(outer, count, inner)`` are added along
    the middle axis, one after another, at ``indices``: int64, in range, of shape ``(count,)`` or that of the updates.
    """
    return make_node(SCATTER_ADD, (indices, updates), attrs_of(extent=extent)).outputs[0]


def as_index(value: Any, extent: Extent, what: str, *, wrap: bool = True) -> Tensor:
    """Integers that point into an axis of ``extent``, as an int64 tensor of indices from 0 on; with ``wrap``, negative
    ones count from the end. What is known when the line is written is checked there; the rest, in each run. Raises
    ``DTypeError`` and ``IndexRangeError``.
    """
    if isinstance(value, list) and not np.size(value):
        value = np.zeros(np.shape(value), np.int64)
    tensor = as_tensor(value, what)
    if tensor.dtype.kind not in "iu":
        raise DTypeError(f"{what}: indices are integers, got {tensor.describe()}; {_instead(tensor)}")
    array = tensor.node.attrs.get("value") if tensor.node.op.name == "constant" else None
    if array is None or not isinstance(extent, int):
        return check_index(tensor, extent, wrap=wrap, what=what)
    if array.size and (int(array.min()) < (-extent if wrap else 0) or int(array.max()) >= extent):
        node = make_node(CHECK_INDEX, (tensor,), attrs_of(extent=extent, wrap=wrap, what=what))
        raise IndexRangeError(index_message(node, int(array.min()), int(array.max()), extent))
    wide = array.astype(np.int64)
    return constant(np.where(wide < 0, wide + extent, wide))


def _instead(tensor: Tensor) -> str:
    if tensor.dtype.kind == "b":
        return (
            "how many elements a mask keeps is not known before a run: use where(mask, x, 0), or numpy.nonzero(mask) "
            "for a mask that is an array"
        )
    return "convert them with .astype('int64')"


def take(x: Any, indices: Any, axis: int | None = None) -> Tensor:
    """Elements of ``x`` at integer ``indices`` along ``axis``, which only a vector may leave out. The shape of the
    indices takes the place of that axis; negative ones count from the end. An index out of range raises
    ``IndexRangeError``, in the run if it is not known before.
    """
    tensor = as_tensor(x, "take")
    if axis is None and tensor.ndim != 1:
        raise ShapeError(f"take: which axis? {tensor.describe()} has {tensor.ndim} axes; pass axis=")
    place = normalize_axis(0 if axis is None else axis, tensor.ndim, "take")
    index = as_index(indices, tensor.shape[place], "take")
    more = index.ndim - 1
    layout = [None if a == place else a + (more if a > place else 0) for a in range(tensor.ndim)]
    spread = expand_dims(index, tuple(range(index.ndim, index.ndim + tensor.ndim - place - 1)))
    return gather(tensor, [spread], layout, rank=tensor.ndim + more)


def take_along_axis(x: Any, indices: Any, axis: int = -1) -> Tensor:
    """Elements of ``x`` along ``axis`` at an index for each place: ``indices`` has the rank of ``x``, and all other
    axes broadcast. Negative indices count from the end. An index out of range raises ``IndexRangeError``, in the run
    if it is not known before.
    """
    tensor = as_tensor(x, "take_along_axis")
    place = normalize_axis(axis, tensor.ndim, "take_along_axis")
    index = as_index(indices, tensor.shape[place], "take_along_axis")
    if index.ndim != tensor.ndim:
        raise ShapeError(
            f"take_along_axis: tensor and indices must have one rank, got {tensor.ndim} and {index.ndim}\n"
            f"  operands:\n    {tensor.describe()}\n    {index.describe()}"
        )
    others = [tuple(1 if a == place else e for a, e in enumerate(t.shape)) for t in (tensor, index)]
    try:
        shape = Inference(GATHER, (tensor, index), {}).broadcast(others)
    except ShapeError as error:
        raise ShapeError(
            f"take_along_axis: all axes but {place} of tensor and indices must broadcast together\n"
            f"  operands:\n    {tensor.describe()}\n    {index.describe()}"
        ) from error
    source = broadcast_to(tensor, (*shape[:place], tensor.shape[place], *shape[place + 1 :]))
    layout = [None if a == place else a for a in range(tensor.ndim)]
    return gather(source, [index], layout, rank=tensor.ndim)
