"""Elements in another order or several times, out of views: flip, roll, tile, repeat, moveaxis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dims import Extent
from graphc.dtypes import int64
from graphc.errors import ShapeError
from graphc.node import Node, Tensor, TensorType, attrs_of, make_node
from graphc.opdef import Domain, Inference, Kind, OpDef, register
from graphc.ops.leaf import as_tensor
from graphc.ops.shape import broadcast_to, expand_dims, normalize_axes, normalize_axis, permute_dims, reshape
from graphc.ops.slicing import sliced


def _infer_roll(c: Inference) -> tuple[TensorType, ...]:
    return (c.inputs[0].type,)


def _emit_roll(b: Any, attrs: Any, source: Any) -> Any:
    """Element ``i`` comes from ``i - shift``, counted from the end where that is negative."""
    zero, indices = b.const(0, int64), []
    for axis, shift in enumerate(attrs["shift"]):
        i = b.index(axis)
        if shift:
            extent, moved = b.extent(f"extent{axis}"), b.extent(f"shift{axis}")
            if not isinstance(attrs[f"extent{axis}"], int):
                moved = b.binary("mod", moved, extent)  # a number is reduced when the node is made
            i = b.binary("sub", i, moved)
            i = b.select(b.compare("lt", i, zero), b.binary("add", i, extent), i)
        indices.append(i)
    return b.load(source, indices, None)


def _roll_vjp(node: Node, g: Tensor) -> list[Tensor | None]:
    return [_rolled(g, [-s for s in node.attrs["shift"]])]


ROLL = register(
    OpDef(
        "roll", Kind.GATHER, _infer_roll,
        lambda r, x: np.roll(x, r.attrs["shift"], tuple(range(x.ndim))), _roll_vjp, emit=_emit_roll, cost=6,
        domain=Domain(("fiub",), rank=1),
        samples=(
            lambda x: _rolled(x, [1] * x.ndim), lambda x: _rolled(x, [-4] + [0] * (x.ndim - 1)),
            lambda x: _rolled(x, [0] * (x.ndim - 1) + [7]),
        ),
        doc="Elements moved along axes; those moved past the end come in again at the start.",
    )
)  # fmt: skip


def _rolled(x: Tensor, shift: Sequence[int]) -> Tensor:
    """``x`` with each axis moved by its shift."""
    moves = [s % e if isinstance(e, int) and e else s for s, e in zip(shift, x.shape, strict=True)]
    moved = [a for a, s in enumerate(moves) if s and x.shape[a] != 0]
    if not moved:
        return x
    extents = {f"extent{a}": x.shape[a] for a in moved} | {f"shift{a}": moves[a] for a in moved}
    shifts = tuple(s if a in moved else 0 for a, s in enumerate(moves))
    return make_node(ROLL, (x,), attrs_of(shift=shifts, **extents)).outputs[0]


def roll(x: Any, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Tensor:
    """``x`` moved by ``shift`` along ``axis`` (each by its own, for several), or in C order for None. Elements moved
    past the end come in again at the start.
    """
    tensor = as_tensor(x, "roll")
    if axis is None:
        return reshape(roll(reshape(tensor, (-1,)), shift, 0), tensor.shape)
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    shifts = tuple(shift) if isinstance(shift, (tuple, list)) else (shift,) * len(axes)
    if len(shifts) != len(axes):
        raise ShapeError(f"roll: {len(shifts)} shifts {shift!r} do not match {len(axes)} axes {axis!r}")
    total = [0] * tensor.ndim
    for s, a in zip(shifts, axes, strict=True):
        total[normalize_axis(a, tensor.ndim, "roll")] += _count(s, "roll: a shift", least=None)
    return _rolled(tensor, total)


def flip(x: Any, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """``x`` in reverse order along ``axis`` (all axes for None)."""
    tensor = as_tensor(x, "flip")
    axes = normalize_axes(axis, tensor.ndim, "flip")
    start: list[Extent] = [tensor.shape[a] - 1 if a in axes else 0 for a in range(tensor.ndim)]
    return sliced(tensor, start, [-1 if a in axes else 1 for a in range(tensor.ndim)], tensor.shape)


def tile(x: Any, repetitions: int | Sequence[int]) -> Tensor:
    """Copies of ``x`` side by side: ``repetitions[a]`` of them along axis ``a``, counted from the last axis."""
    tensor = as_tensor(x, "tile")
    given = repetitions if isinstance(repetitions, (tuple, list)) else (repetitions,)
    counts = [_count(r, "tile: a number of repetitions") for r in given]
    counts = [1] * (tensor.ndim - len(counts)) + counts
    whole = expand_dims(tensor, tuple(range(len(counts) - tensor.ndim)))
    copies = expand_dims(whole, tuple(2 * a for a in range(whole.ndim)))
    shape = [e for pair in zip(counts, whole.shape, strict=True) for e in pair]
    return reshape(broadcast_to(copies, shape), tuple(r * e for r, e in zip(counts, whole.shape, strict=True)))


def repeat(x: Any, repeats: int, axis: int | None = None) -> Tensor:
    """Each element of ``x`` (each slice along ``axis``) ``repeats`` times in a row; in C order for None."""
    tensor = as_tensor(x, "repeat")
    count = _count(repeats, "repeat: repeats, one for all elements,")
    if axis is None:
        return repeat(reshape(tensor, (-1,)), count, 0)
    place = normalize_axis(axis, tensor.ndim, "repeat")
    before, extent, after = tensor.shape[:place], tensor.shape[place], tensor.shape[place + 1 :]
    copies = broadcast_to(expand_dims(tensor, place + 1), (*before, extent, count, *after))
    return reshape(copies, (*before, extent * count, *after))


def _count(value: Any, what: str, least: int | None = 0) -> int:
    wrong = not isinstance(value, (int, np.integer)) or isinstance(value, bool)
    if wrong or (least is not None and value < least):
        raise ShapeError(f"{what} is an int{'' if least is None else f' of at least {least}'}, got {value!r}")
    return int(value)


def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """The axes ``source`` of ``x`` at the places ``destination`` of the result; the others keep their order."""
    tensor = as_tensor(x, "moveaxis")
    ends = [tuple(a) if isinstance(a, (tuple, list)) else (a,) for a in (source, destination)]
    if len(ends[0]) != len(ends[1]):
        raise ShapeError(f"moveaxis: {len(ends[0])} axes {source!r} need as many places, got {destination!r}")
    for axes in ends:
        normalize_axes(axes, tensor.ndim, "moveaxis")
    origin, place = ([normalize_axis(a, tensor.ndim, "moveaxis") for a in axes] for axes in ends)
    order = [a for a in range(tensor.ndim) if a not in origin]
    for target, axis in sorted(zip(place, origin, strict=True)):
        order.insert(target, axis)
    return permute_dims(tensor, order)
