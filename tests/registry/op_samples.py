"""Samples of every op: nodes on placeholders, with arrays to feed, generated from the op's domain.

An op says which dtypes, ranks and values it takes, and how it is built when it has attributes. All else is decided
here: shapes (scalars, extents 0 and 1, broadcast pairs, symbolic axes) and values (inside the domain, and the ends of
each dtype).
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc
from graphc import ops
from graphc.dims import Symbol
from graphc.dtypes import SUPPORTED
from graphc.node import Tensor
from graphc.opdef import Kind, OpDef

Array = np.ndarray[Any, Any]
Shape = tuple[int | str, ...]

ALONE: tuple[tuple[Shape, ...], ...] = (
    ((),), ((1,),), ((3,),), ((2, 3),), ((1, 1),), ((2, 1, 3),), ((0,),), ((2, 0, 3),), (("n", 3),), (("n", "m"),),
)  # fmt: skip
TOGETHER: tuple[tuple[Shape, Shape], ...] = (
    ((), (3,)), ((3,), ()), ((2, 3), (3,)), ((2, 3), (2, 1)), ((2, 1), (1, 3)), ((1,), (2, 3)), ((0, 3), (1, 3)),
    ((2, 1), (0,)), (("n", 3), (3,)), (("n", 3), ()), (("n", 1), (1, "m")), (("n", 3), ("n", 1)),
)  # fmt: skip
PLAIN: Shape = (2, 3)
# These meet every shape, the others meet one: kernels differ by dtype and by layout, and not by both together.
EVERYWHERE = ("float32", "int64")
DEFAULTS = ("float32", "int64", "bool", "uint8")
EXTENTS = ({"n": 2, "m": 3}, {"n": 1, "m": 1}, {"n": 0, "m": 2})
SPECIAL = {
    "float32": (2.0**-149, 2.0**-126, 3.4028234663852886e38, 2.0**31, 2.0**63),
    "float64": (2.0**-1074, 2.0**-1022, 1.7976931348623157e308, 2.0**31, 2.0**63),
}


@dataclass(frozen=True)
class Sample:
    """A tensor made by one op, and arrays for its placeholders."""

    label: str
    result: Tensor
    inputs: tuple[Tensor, ...]
    arrays: tuple[Array, ...]
    values: Mapping[Symbol, int]

    @property
    def feeds(self) -> dict[Tensor, Array]:
        return dict(zip(self.inputs, self.arrays, strict=True))


def builders(op: OpDef) -> tuple[Callable[..., Tensor], ...]:
    """How the op's nodes are built from its inputs."""
    return op.samples or (getattr(ops, op.name),)


def dtype_sets(op: OpDef) -> list[tuple[np.dtype[Any], ...]]:
    """Every dtype that the op's inputs may have together, one dtype for each input."""
    found: dict[tuple[np.dtype[Any], ...], None] = {}
    for dtype in SUPPORTED:
        if any(dtype.kind in kinds for kinds in op.domain.kinds):
            found[tuple(dtype if dtype.kind in kinds else default(kinds) for kinds in op.domain.kinds)] = None
    return list(found)


def default(kinds: str) -> np.dtype[Any]:
    return next(np.dtype(d) for d in DEFAULTS if np.dtype(d).kind in kinds)


def shape_sets(op: OpDef) -> list[tuple[Shape, ...]]:
    """Shapes to try, one for each input."""
    domain, count = op.domain, len(op.domain.kinds)
    if domain.shapes:
        return list(domain.shapes)
    sets: list[tuple[Shape, ...]] = [shape * count for shape in ALONE]
    if count == 2:
        sets += TOGETHER
    if count == 3:
        sets += [order for pair in TOGETHER[::2] for order in ((*pair, pair[0]), (pair[1], pair[0], ()))]
    return [s for s in sets if all(len(shape) >= domain.rank and (domain.empty or 0 not in shape) for shape in s)]


def samples(op: OpDef, dtypes: tuple[np.dtype[Any], ...]) -> Iterator[Sample]:
    """All samples of ``op`` for inputs of ``dtypes``."""
    rng = np.random.default_rng(zlib.crc32(f"{op.name}{dtypes}".encode()))
    everywhere = len(dtype_sets(op)) <= 1 or str(dtypes[-1]) in EVERYWHERE
    sets = shape_sets(op)
    if not everywhere:
        sets = sets[:1] if op.domain.shapes else [(PLAIN,) * len(dtypes)]
    for build, shapes in itertools.product(builders(op), sets):
        inputs = placeholders(shapes, dtypes)
        result = build(*inputs)
        if result in set(inputs):
            continue  # such as a conversion to the dtype it has
        named = {e for shape in shapes for e in shape if isinstance(e, str)}
        for extents in EXTENTS if named else ({},):
            if not op.domain.empty and 0 in extents.values():
                continue
            numbers = [tuple(extents[e] if isinstance(e, str) else e for e in shape) for shape in shapes]
            arrays = spread(op, rng, numbers, dtypes)
            label = (
                f"{op.name}({', '.join(f'{d}{list(n)}' for d, n in zip(dtypes, shapes, strict=True))}) {extents or ''}"
            )
            yield Sample(label, result, inputs, arrays, {Symbol(k): v for k, v in extents.items() if k in named})
    if dtypes and not op.domain.bounded:
        yield from special_samples(op, dtypes)


def placeholders(shapes: tuple[Shape, ...], dtypes: tuple[np.dtype[Any], ...]) -> tuple[Tensor, ...]:
    return tuple(
        graphc.placeholder(s, dtype=d, name=f"x{i}") for i, (s, d) in enumerate(zip(shapes, dtypes, strict=True))
    )


def spread(
    op: OpDef, rng: np.random.Generator, shapes: list[tuple[int, ...]], dtypes: tuple[np.dtype[Any], ...]
) -> tuple[Array, ...]:
    """Values inside the op's domain. Floats are distinct, by far more than a difference steps, and away from kinks."""
    low, high = op.domain.low, op.domain.high
    count = sum(int(np.prod(s)) for s in shapes)
    grid = low + (high - low) * (rng.permutation(count) + rng.uniform(0.3, 0.7, count)) / max(count, 1)
    for kink in op.domain.away:
        near = np.abs(grid - kink) < 0.1
        grid[near] += np.where(grid[near] < kink, -0.1, 0.1)
    arrays = []
    for shape, dtype in zip(shapes, dtypes, strict=True):
        size = int(np.prod(shape))
        part, grid = grid[:size], grid[size:]
        if dtype.kind == "f":
            flat = part.astype(dtype)
        elif dtype.kind == "b":
            flat = rng.integers(0, 2, size).astype(bool)
        else:
            start = max(int(low), 0 if dtype.kind == "u" else -5) if op.domain.bounded else -5 * (dtype.kind == "i")
            flat = rng.integers(start, int(high) + 1 if op.domain.bounded else 6, size).astype(dtype)
        arrays.append(flat.reshape(shape))
    return tuple(arrays)


def special_values(dtype: np.dtype[Any]) -> Array:
    """NaN, infinities, zeros of both signs, subnormals; the ends of an integer type."""
    if dtype.kind == "f":
        ends = SPECIAL[str(dtype)]
        points = (0.0, 0.5, 1.0, 1.5, 2.5, 89.0, 130.0, np.inf, *ends)
        return np.array([np.nan, *points, *(-p for p in points)], dtype)
    if dtype.kind == "b":
        return np.array([False, True])
    info = np.iinfo(dtype)
    inside = [v for v in (-2, -1, 0, 1, 2) if v >= info.min]
    return np.array([info.min, info.min + 1, *inside, info.max // 2 + 1, info.max - 1, info.max], dtype)


def special_samples(op: OpDef, dtypes: tuple[np.dtype[Any], ...]) -> Iterator[Sample]:
    """Special values: every combination for ops of single elements; one in a row of plain ones for ops that combine."""
    if op.domain.shapes:
        yield from _among_plain(op, dtypes)
        return
    if op.kind in (Kind.REDUCE, Kind.COMPOSITE):
        arrays: tuple[Array, ...] = tuple(_rows(special_values(d)) for d in dtypes)
    else:
        grids = np.meshgrid(*(special_values(d) for d in dtypes), indexing="ij")
        arrays = tuple(g.ravel() for g in grids)
        if op.domain.rank > 1:
            arrays = tuple(a[None] for a in arrays)
    inputs = placeholders(tuple(a.shape for a in arrays), dtypes)
    for build in builders(op):
        result = build(*inputs)
        if result not in set(inputs):
            yield Sample(f"{op.name} of special {dtypes[-1]} values", result, inputs, arrays, {})


def _rows(values: Array) -> Array:
    """Each value in a row of its own, between 1 and 2, so that no overflow depends on the order of addition."""
    ones = np.ones_like(values)
    return np.stack([ones, values, ones + ones if values.dtype.kind != "b" else ones], axis=1)


def _among_plain(op: OpDef, dtypes: tuple[np.dtype[Any], ...]) -> Iterator[Sample]:
    """For ops with shapes of their own: one special value in the first input, all else at most 1."""
    rng = np.random.default_rng(0)
    shapes = op.domain.shapes[0]
    inputs = placeholders(shapes, dtypes)
    for build in builders(op)[:1]:
        result = build(*inputs)
        for value in special_values(dtypes[0]):
            arrays = tuple(rng.uniform(0.3, 0.9, s).astype(d) for s, d in zip(shapes, dtypes, strict=True))
            arrays[0].flat[0] = value
            yield Sample(f"{op.name} of {dtypes[0]} {value}", result, inputs, arrays, {})
