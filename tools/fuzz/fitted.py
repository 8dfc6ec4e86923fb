"""Arguments that must fit their tensor in a way that no parameter's name says: for these functions, by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import graphc as gc
from graphc.dims import Extent, product
from graphc.errors import GraphcError
from graphc.node import Tensor

if TYPE_CHECKING:
    from fuzz.drawing import Drawing

Call = tuple[Callable[..., Any], list[Any], dict[str, Any]]
INTEGERS = ("int64", "int32", "uint8", "int16")


class RefusedError(GraphcError):
    """Nothing fits here: the line is left out."""


def _index(d: Drawing, shape: tuple[Extent, ...], high: Any, low: int = 0) -> Tensor:
    """A leaf of indices from ``low`` to ``high - 1``."""
    if not isinstance(high, int) or high <= 0:
        raise RefusedError("indices need an axis of a known extent")
    dtype = d.pick(INTEGERS if low >= 0 else ("int64", "int32", "int8"))
    return d.leaf(dtype, shape, max(low, -100), min(high, 100) - 1, bounded=True)


# Shapes.


def _reshape(d: Drawing) -> Call:
    x = d.tensor("fiub", 1)
    factors: list[Extent] = d.rng.sample(list(x.shape), x.ndim)
    if d.chance(40) and len(factors) > 1:
        factors = [product(factors[:2]), *factors[2:]]
    elif d.chance(20):
        factors = [1, *factors]
    elif d.chance(20):
        factors = [-1, *factors[1:]]
    return gc.reshape, [x, tuple(factors)], {}


def _broadcast_to(d: Drawing) -> Call:
    x = d.tensor("fiub", accept=lambda t: t.ndim < 4)
    shape = [d.pick(d.extents) if e == 1 and d.chance(80) else e for e in x.shape]
    return gc.broadcast_to, [x, (d.pick(d.extents), *shape) if d.chance(60) and x.ndim < 3 else tuple(shape)], {}


def _expand_dims(d: Drawing) -> Call:
    x = d.tensor("fiub", accept=lambda t: t.ndim < 4)
    return gc.expand_dims, [x, d.rng.randint(-x.ndim - 1, x.ndim)], {}


def _squeeze(d: Drawing) -> Call:
    x = d.existing(lambda t: any(e == 1 for e in t.shape)) or d.leaf("float32", (1, *d.shape(1)))
    return gc.squeeze, [x, d.pick([i for i, e in enumerate(x.shape) if e == 1] or [0])], {}


def _permute_dims(d: Drawing) -> Call:
    x = d.tensor("fiub", 2)
    return gc.permute_dims, [x, tuple(d.rng.sample(range(x.ndim), x.ndim))], {}


def _moveaxis(d: Drawing) -> Call:
    x = d.tensor("fiub", 2)
    return gc.moveaxis, [x, d.rng.randrange(-x.ndim, x.ndim), d.rng.randrange(-x.ndim, x.ndim)], {}


def _concat(d: Drawing) -> Call:
    x = d.tensor("fiub", 1, lambda t: t.ndim <= 3)
    axis = d.rng.randrange(-x.ndim, x.ndim)
    parts = [x]
    for _ in range(d.pick((0, 1, 1, 2))):
        shape = list(x.shape)
        shape[axis] = d.pick(d.extents) if d.chance(50) else shape[axis]
        parts.append(d.like(tuple(shape), x.dtype.kind, x.dtype))
    return gc.concat, [d.rng.sample(parts, len(parts))], {"axis": None if d.chance(10) else axis}


def _split(d: Drawing) -> Call:
    x = d.tensor("fiub", 1)
    axis = d.rng.randrange(x.ndim)
    extent = x.shape[axis]
    parts: Any = [d.rng.randint(0, extent)] if isinstance(extent, int) and d.chance(60) else d.pick((1, 2, extent))
    return gc.split, [x, parts], {"axis": axis}


def _pad(d: Drawing) -> Call:
    x = d.tensor("fiub", 1)
    width = tuple((d.rng.randint(0, 2), d.rng.randint(0, 2)) for _ in x.shape)
    return gc.pad, [x, d.pick((width, 1, 2))], {}


def _key(d: Drawing, x: Tensor) -> tuple[Any, ...]:
    """Something to index with: slices of any step, numbers, new axes, Ellipsis, tensors."""
    parts: list[Any] = []
    for extent in x.shape:
        size = extent if isinstance(extent, int) else 3
        kind = d.pick(("slice", "slice", "slice", "all", "number", "new", "array"))
        if kind == "new":
            parts += [None, slice(None)]
        elif kind == "number" and size:
            parts.append(d.rng.randrange(-size, size))
        elif kind == "array" and isinstance(extent, int) and d.chance(60):
            parts.append(_index(d, d.shape(d.pick((0, 1, 1))), size, -size))
        elif kind == "slice":
            ends = [d.pick((None, d.rng.randint(-size - 1, size + 1))) for _ in range(2)]
            parts.append(slice(*ends, d.pick((None, 1, 1, -1, 2, -2, 3))))
        else:
            parts.append(slice(None))
    if d.chance(30):
        place = d.rng.randint(0, len(parts))
        parts[place:] = [Ellipsis, *parts[place + 1 :]]
    return tuple(parts[: d.rng.randint(1, len(parts))])


def _getitem(d: Drawing) -> Call:
    x = d.tensor("fiub", 1, lambda t: t.ndim <= 3)
    key = _key(d, x)
    return (lambda tensor, index: tensor[index]), [x, key if len(key) > 1 or d.chance(50) else key[0]], {}


# Products.


def _matmul(d: Drawing) -> Call:
    x = d.tensor("f" if d.chance(85) else "fiu", 1, lambda t: t.ndim <= 3)
    inner = x.shape[-1]
    y = d.existing(lambda t: t.dtype == x.dtype and 1 <= t.ndim <= 3 and t.shape[max(t.ndim - 2, 0)] == inner)
    if y is None or d.chance(20):
        y = d.leaf(x.dtype, (inner, *d.shape(d.pick((0, 1, 1)))))
    return gc.matmul, [x, y], {}


def _outer(d: Drawing) -> Call:
    x = d.like(d.shape(1), "fiu")
    return gc.outer, [x, d.like(d.shape(1), x.dtype.kind, x.dtype)], {}


EQUATIONS = (
    "ij,jk->ik", "ij,ij->", "i,j->ij", "bij,bjk->bik", "ij->ji", "ij->", "i,i", "...i,...i->...", "ij,jk,kl->il",
    "bij,jk->ibk", "ij,ik->jk", "ii->i", "iij->j",
)  # fmt: skip


def _einsum(d: Drawing) -> Call:
    equation = d.pick(EQUATIONS)
    extents = {letter: d.pick(d.extents) for letter in "bijkl"}
    dtype = d.pick(("float32", "float32", "float64"))
    operands = [
        d.like(tuple(extents[c] for c in term.replace("...", "b")), "f", dtype)
        for term in equation.split("->")[0].split(",")
    ]
    return gc.einsum, [equation, *operands], {}


def _tensordot(d: Drawing) -> Call:
    x = d.tensor("f", 2)
    count = d.pick((0, 1, 1, 2))
    shared = x.shape[x.ndim - count :]
    return gc.tensordot, [x, d.like((*shared, *d.shape(1)), "f", x.dtype)], {"axes": count}


# Indices.


def _one_hot(d: Drawing) -> Call:
    extent = d.pick((3, 3, 5, 2))
    dtype = d.pick(("float32", "float64", "int32", "bool", "uint8"))
    return gc.one_hot, [_index(d, d.shape()[:2], extent + d.chance(5)), extent], {"dtype": dtype}


def _take(d: Drawing) -> Call:
    x = d.tensor("fiub", 1)
    axis = d.rng.randrange(-x.ndim, x.ndim)
    extent = x.shape[axis]
    indices = _index(d, d.shape(d.pick((0, 1, 1, 2))), extent, -extent if isinstance(extent, int) else 0)
    return gc.take, [x, indices], {"axis": axis}


def _take_along_axis(d: Drawing) -> Call:
    x = d.tensor("fiub", 1, lambda t: t.ndim <= 3)
    axis = d.rng.randrange(-x.ndim, x.ndim)
    shape = list(x.shape)
    shape[axis] = d.pick(d.extents)
    return gc.take_along_axis, [x, _index(d, tuple(shape), x.shape[axis])], {"axis": axis}


def _embedding(d: Drawing) -> Call:
    weight = d.existing(lambda t: t.ndim == 2 and t.dtype.kind == "f" and t.shape[0] not in (0, 1))
    weight = weight if weight is not None else d.leaf("float32", (5, 3))
    return gc.nn.embedding, [_index(d, d.shape(d.pick((0, 1, 2))), weight.shape[0]), weight], {}


def _classes(d: Drawing) -> tuple[Tensor, Tensor, dict[str, Any]]:
    logits = d.tensor("f", 1)
    labels = _index(d, logits.shape[:-1], logits.shape[-1])
    return logits, labels, {"reduction": d.pick(("mean", "sum", "none"))}


def _cross_entropy(d: Drawing) -> Call:
    logits, labels, options = _classes(d)
    if d.chance(30):
        labels = gc.softmax(d.like(logits.shape, "f", logits.dtype))
    elif d.chance(30):
        options["weight"] = d.like(logits.shape[-1:], "f", logits.dtype)
    if d.chance(30):
        options["label_smoothing"] = 0.25
    return gc.nn.cross_entropy, [logits, labels], options


def _nll_loss(d: Drawing) -> Call:
    logits, labels, options = _classes(d)
    return gc.nn.nll_loss, [gc.log_softmax(logits), labels], options


# Values of nothing.


def _known(d: Drawing) -> Extent:
    """A number, or an extent that a placeholder has."""
    return d.pick([3, 1, *(e for t in d.sources for e in t.shape)])


def _arange(d: Drawing) -> Call:
    return gc.arange, [_known(d), d.pick(("int64", "float32", "int32", "uint8", "float64"))], {}


def _eye(d: Drawing) -> Call:
    return gc.eye, [_known(d), *([_known(d)] if d.chance(50) else [])], {"k": d.rng.randint(-2, 2)}


def _linspace(d: Drawing) -> Call:
    ends = [round(d.rng.uniform(-2, 2), 1) for _ in range(2)]
    return gc.linspace, [*ends, d.pick((0, 1, 2, 5))], {"endpoint": d.chance(50)}


def _random(name: str, *arguments: Callable[[Drawing], Any]) -> Callable[[Drawing], Call]:
    def fitted(d: Drawing) -> Call:
        seed = {"seed": d.rng.randint(0, 3)} if d.chance(30) else {}
        return getattr(gc.random, name), [a(d) for a in arguments], seed

    return fitted


def _sizes(d: Drawing) -> tuple[Extent, ...]:
    return tuple(_known(d) for _ in range(d.pick((0, 1, 1, 2))))


def _word(d: Drawing) -> str:
    return d.pick(("uint32", "uint64"))


def _low(d: Drawing) -> int:
    return d.rng.randint(-3, 0)


def _high(d: Drawing) -> int:
    return d.pick((1, 3, 100, 2**31, 2**40))


FITTED: dict[str, Callable[[Drawing], Call]] = {
    "reshape": _reshape, "broadcast_to": _broadcast_to, "expand_dims": _expand_dims, "squeeze": _squeeze,
    "permute_dims": _permute_dims, "moveaxis": _moveaxis, "concat": _concat, "split": _split, "pad": _pad,
    "getitem": _getitem, "matmul": _matmul, "outer": _outer, "einsum": _einsum, "tensordot": _tensordot,
    "one_hot": _one_hot, "take": _take, "take_along_axis": _take_along_axis, "embedding": _embedding,
    "cross_entropy": _cross_entropy, "nll_loss": _nll_loss, "arange": _arange, "eye": _eye, "linspace": _linspace,
    "permutation": _random("permutation", _known), "bits": _random("bits", _sizes, _word),
    "integers": _random("integers", _low, _high, _sizes),
}  # fmt: skip
