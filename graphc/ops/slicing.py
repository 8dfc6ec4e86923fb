"""Slices, and their derivative: elements put back where a slice took them from, among zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.bounds import lower_bound
from graphc.dims import Extent
from graphc.dtypes import int64
from graphc.errors import ShapeError
from graphc.node import Node, Tensor, TensorType, attrs_of, make_node
from graphc.opdef import Domain, Inference, Kind, OpDef, Strided, register
from graphc.ops.leaf import as_tensor

_ANY = Domain(
    ("fiub",),
    shapes=(((4,),), ((3, 5),), ((2, 3, 4),), ((1, 3),), ((0, 3),), (("n", 4),), (("n", "m"),)),
)


def _infer_slice(c: Inference) -> tuple[TensorType, ...]:
    x, shape = c.inputs[0], c.attrs["shape"]
    for extent in c.attrs["positive"]:
        c.nonempty(extent, _asking(c, extent))
    _check_inside(c, x.shape, shape, "the input")
    return (TensorType(shape, x.dtype),)


def _asking(c: Inference, extent: Extent) -> str:
    """What needs ``extent`` to be at least 1: one element of its axis, by its index, or the bounds of a slice."""
    for whole, start, count in zip(c.inputs[0].shape, c.attrs["start"], c.attrs["shape"], strict=True):
        if count == 1 and extent in (start + 1, whole - start):
            from_end = start - whole
            return f"index {from_end if isinstance(from_end, int) else start}"
    return "the sliced axis"


def _check_inside(c: Inference, whole: Sequence[Extent], part: Sequence[Extent], what: str) -> None:
    """As far as it is known when the node is made: every element of the part lies inside the whole."""
    starts, steps = c.attrs["start"], c.attrs["step"]
    for axis, (start, step, count, extent) in enumerate(zip(starts, steps, part, whole, strict=True)):
        if isinstance(start, int) and isinstance(count, int) and isinstance(extent, int) and count:
            ends = sorted((start, start + step * (count - 1)))
            if ends[0] < 0 or ends[1] >= extent:
                raise c.fail(f"elements {ends[0]} to {ends[1]} of axis {axis} lie outside {what}, which has {extent}")


def _slice_reference(r: Any, x: Any) -> Any:
    return x[_slices(r, r.shape)]


def _slices(r: Any, counts: Sequence[int]) -> tuple[slice, ...]:
    """NumPy's slices for ``counts`` elements from each start in each step."""
    found = []
    for start, step, count in zip(r.attrs["start"], r.attrs["step"], counts, strict=True):
        first = r.extent(start) if count else 0
        stop = first + step * count
        found.append(slice(first, stop if stop >= 0 else None, step))
    return tuple(found)


def _slice_vjp(node: Node, g: Tensor) -> list[Tensor | None]:
    return [placed(g, node.attrs["start"], node.attrs["step"], node.inputs[0].shape)]


SLICE = register(
    OpDef(
        "slice", Kind.VIEW, _infer_slice, _slice_reference, _slice_vjp,
        index_map=lambda node: tuple(
            Strided(axis, step, start)
            for axis, (start, step) in enumerate(zip(node.attrs["start"], node.attrs["step"], strict=True))
        ),
        cost=0, domain=_ANY,
        samples=(
            lambda x: x[::-1], lambda x: x[..., ::2], lambda x: x[..., 1:], lambda x: x[..., -2:3],
            lambda x: x[:1, ...], lambda x: x[..., -1::-2], lambda x: x[-2:, ...], lambda x: x[..., 2:1],
        ),
        doc="Elements from a start in equal steps along each axis.",
    )
)  # fmt: skip


def _infer_pad(c: Inference) -> tuple[TensorType, ...]:
    x, shape = c.inputs[0], c.attrs["shape"]
    _check_inside(c, shape, x.shape, "the result")
    return (TensorType(shape, x.dtype),)


def _pad_reference(r: Any, x: Any) -> Any:
    result = np.zeros(r.shape, x.dtype)
    result[_slices(r, x.shape)] = x
    return result


def _emit_pad(b: Any, attrs: Any, source: Any) -> Any:
    indices, inside = [], []
    zero = b.const(0, int64)
    for axis, step in enumerate(attrs["step"]):
        i = b.index(axis)
        if f"start{axis}" in attrs:
            start = b.extent(f"start{axis}")
            i = b.binary("sub", i, start) if step > 0 else b.binary("sub", start, i)
            inside += [b.compare("ge", i, zero)]
            if abs(step) > 1:
                size = b.const(abs(step), int64)
                inside.append(b.compare("eq", b.binary("mod", i, size), zero))
                i = b.binary("floordiv", i, size)
            inside.append(b.compare("lt", i, b.extent(f"count{axis}")))
        indices.append(i)
    mask = inside[0]
    for condition in inside[1:]:
        mask = b.binary("and_", mask, condition)
    return b.load(source, indices, mask)


def _pad_vjp(node: Node, g: Tensor) -> list[Tensor | None]:
    return [sliced(g, node.attrs["start"], node.attrs["step"], node.inputs[0].shape)]


PAD = register(
    OpDef(
        "pad", Kind.GATHER, _infer_pad, _pad_reference, _pad_vjp, emit=_emit_pad, cost=6, domain=_ANY,
        samples=(
            lambda x: pad(x, 1),
            lambda x: pad(x, ((0, 0),) * (x.ndim - 1) + ((0, 2),)),
            lambda x: placed(x, (1,) * x.ndim, (3,) * x.ndim, tuple(3 * e + 1 for e in x.shape)),
            lambda x: placed(x, tuple(e - 1 for e in x.shape), (-1,) * x.ndim, x.shape),
            lambda x: placed(x, (*(0 for _ in x.shape[1:]), 2 * x.shape[-1]), (*(1 for _ in x.shape[1:]), -2),
                             (*x.shape[:-1], 2 * x.shape[-1] + 1)),
        ),
        doc="The elements in equal steps from a start along each axis, and zeros around and between them.",
    )
)  # fmt: skip


def sliced(
    x: Tensor, start: Sequence[Extent], step: Sequence[int], shape: Sequence[Extent], positive: Sequence[Extent] = ()
) -> Tensor:
    """``shape`` elements of ``x``, along each axis those at ``start``, ``start + step``, ...; all must exist.
    ``positive`` are extents that must be at least 1 for them to.
    """
    wanted = tuple(shape)
    required = tuple(e for e in positive if not _is_positive(e))
    if not required and wanted == x.shape and all(s == 1 for s in step) and all(s == 0 for s in start):
        return x
    attrs = attrs_of(start=tuple(start), step=tuple(step), shape=wanted, positive=required)
    return make_node(SLICE, (x,), attrs).outputs[0]


def _is_positive(extent: Extent) -> bool:
    least = lower_bound(extent)
    return least is not None and least >= 1


def part(x: Tensor, axis: int, start: Extent, count: Extent, positive: Sequence[Extent] = ()) -> Tensor:
    """``count`` elements of ``x`` from ``start`` along one axis; they must exist. ``positive`` as in ``sliced``."""
    starts: list[Extent] = [0] * x.ndim
    starts[axis] = start
    return sliced(x, starts, [1] * x.ndim, (*x.shape[:axis], count, *x.shape[axis + 1 :]), positive)


def placed(x: Tensor, start: Sequence[Extent], step: Sequence[int], shape: Sequence[Extent]) -> Tensor:
    """Zeros of ``shape`` with the elements of ``x``, along each axis, at ``start``, ``start + step``, ...; all must
    fit.
    """
    wanted = tuple(shape)
    moved = [a for a in range(x.ndim) if step[a] != 1 or start[a] != 0 or wanted[a] != x.shape[a]]
    if not moved:
        return x
    places = {f"start{a}": start[a] for a in moved} | {f"count{a}": x.shape[a] for a in moved}
    attrs = attrs_of(start=tuple(start), step=tuple(step), shape=wanted, **places)
    return make_node(PAD, (x,), attrs).outputs[0]


def pad(x: Any, pad_width: Any) -> Tensor:
    """``x`` with zeros around it: ``pad_width`` of them at every end, or one pair ``(before, after)`` for each axis."""
    tensor = as_tensor(x, "pad")
    pairs = _pairs(pad_width, tensor)
    shape = tuple(e + before + after for e, (before, after) in zip(tensor.shape, pairs, strict=True))
    return placed(tensor, tuple(before for before, _ in pairs), (1,) * tensor.ndim, shape)


def _pairs(pad_width: Any, x: Tensor) -> list[tuple[int, int]]:
    pairs = [(pad_width, pad_width)] * x.ndim if isinstance(pad_width, (int, np.integer)) else pad_width
    fits = isinstance(pairs, (list, tuple)) and len(pairs) == x.ndim
    if not fits or not all(isinstance(p, (list, tuple)) and len(p) == 2 and all(map(_is_count, p)) for p in pairs):
        raise ShapeError(
            f"pad: pad_width must be an int of at least 0, or one pair (before, after) for each of the {x.ndim} axes "
            f"of {x.describe()}, got {pad_width!r}"
        )
    return [(int(before), int(after)) for before, after in pairs]


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= 0)
