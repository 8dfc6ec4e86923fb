"""Arguments for an op or a public function: tensors that fit its domain, and everything else by what it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fuzz.catalogue import Entry, Parameter, parameters
from fuzz.fitted import FITTED, RefusedError
from graphc.dims import Extent, dim
from graphc.errors import GraphcError
from graphc.node import Tensor
from graphc.opdef import Domain, Kind, OpDef

if TYPE_CHECKING:
    from fuzz.drawing import Drawing

SCALARS: tuple[Any, ...] = (0, 1, 2, 3, -1, 0.5, -0.0, 0.1, 1e-3, 100, True)
ANY = Domain(("fiub",))
FLOAT = Domain(("f",))


class BuildError(Exception):
    """A public function raised something that is no error of graphc."""

    def __init__(self, name: str, arguments: Sequence[Any], keywords: dict[str, Any]) -> None:
        super().__init__(name)
        self.name, self.arguments, self.keywords = name, arguments, keywords


def call(d: Drawing, entry: Entry) -> list[Tensor]:
    """New tensors made by ``entry``; raises what graphc raises when it refuses the arguments."""
    special = FITTED.get(entry.name)
    by_sample = entry.samples and (entry.function is None or d.chance(30))
    if special is not None and not (by_sample and d.chance(50)):
        found = safely(f"gc.{entry.name}", *special(d))
    elif by_sample:
        assert entry.op is not None
        inputs = operands(d, entry.op)
        number = d.rng.randrange(len(entry.samples))
        found = safely(f"OPS[{entry.name!r}].samples[{number}]", entry.samples[number], inputs, {})
    else:
        if entry.function is None:
            raise RefusedError(f"{entry.name} has neither samples nor a public function")
        positional, keywords = drawn(d, entry)
        found = safely(f"gc.{entry.name}", entry.function, positional, keywords)
    return new_tensors(d, found)


def safely(name: str, function: Callable[..., Any], positional: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """The call; what is neither a result nor an error of graphc is a find."""
    try:
        inspect.signature(function).bind(*positional, **keywords)
    except TypeError as error:
        raise RefusedError(f"{name}: {error}") from error
    try:
        return function(*positional, **keywords)
    except GraphcError:
        raise
    except Exception as error:
        raise BuildError(name, positional, keywords) from error


def new_tensors(d: Drawing, made: Any) -> list[Tensor]:
    found = list(made) if isinstance(made, (list, tuple)) else [made]
    known = set(d.tensors)
    return [t for t in found if isinstance(t, Tensor) and t not in known]


# Tensors.


def operands(d: Drawing, op: OpDef) -> list[Tensor]:
    """One tensor for each input of an op's samples, inside its domain."""
    domain = op.domain
    dtypes: dict[str, Any] = {}
    if domain.shapes:
        shapes = d.pick(domain.shapes)
        found = []
        for kinds, shape in zip(domain.kinds, shapes, strict=True):
            extents = tuple(dim(e) if isinstance(e, str) else e for e in shape)
            index = bounded(d, domain, extents, kinds)
            found.append(d.like(extents, kinds, dtypes.get(kinds)) if index is None else index)
            dtypes.setdefault(kinds, found[-1].dtype)
        return found
    return operands_of(d, op, len(domain.kinds))


def operands_of(d: Drawing, op: OpDef, count: int) -> list[Tensor]:
    """The first ``count`` operands, which broadcast; those of one kind have one dtype."""
    found: list[Tensor] = []
    dtypes: dict[str, Any] = {}
    for kinds in op.domain.kinds[:count]:
        index = bounded(d, op.domain, None, kinds)
        if index is not None:
            found.append(index)
            continue
        x = widest(found)
        made = d.tensor(kinds, op.domain.rank) if x is None else d.partner(x, kinds, dtypes.get(kinds))
        dtypes.setdefault(kinds, made.dtype)
        found.append(d.tame(made, op))
    return found


def bounded(d: Drawing, domain: Domain, shape: tuple[Extent, ...] | None, kinds: str) -> Tensor | None:
    """A tensor of whole numbers within the domain's bounds, where values outside are an error."""
    if not domain.bounded or not set(kinds) & set("iu"):
        return None
    dtype = d.pick([k for k in ("int32", "int64", "uint8", "int8", "uint32") if np.dtype(k).kind in kinds])
    shape = d.shape() if shape is None else shape
    return d.leaf(dtype, shape, domain.low, domain.high, bounded=True)


def widest(tensors: Sequence[Tensor]) -> Tensor | None:
    return max(tensors, key=lambda t: t.ndim) if tensors else None


# Everything a public function takes.


def drawn(d: Drawing, entry: Entry) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments for the entry's public function."""
    assert entry.function is not None
    wanted = parameters(entry.function)
    tensors = [p for p in wanted if p.role == "tensor"]
    given = tensor_arguments(d, entry, tensors)
    first = next((t for t in given.values() if isinstance(t, Tensor)), None)
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for p in wanted:
        if p.role == "tensor":
            positional.append(given[p.name])
        elif p.role == "tensors":
            several = siblings(d)
            first = several[0]
            positional += several if p.spread else [several]
        elif not p.optional or d.chance(60):
            value = argument(d, p, first, entry)
            if value is not inspect.Parameter.empty:
                keywords[p.name] = value
    return positional, keywords


def tensor_arguments(d: Drawing, entry: Entry, wanted: Sequence[Parameter]) -> dict[str, Any]:
    if entry.op is not None and entry.op.domain.kinds:
        made: list[Any] = list(operands_of(d, entry.op, len(wanted)))
        if len(made) < len(wanted):
            raise RefusedError(f"{entry.name} takes {len(wanted)} tensors, and its domain says {len(made)}")
        if entry.op.kind is Kind.SCALAR and len(made) > 1 and not entry.op.domain.bounded and d.chance(25):
            made[d.rng.randrange(len(made))] = scalar(d)
        return {p.name: t for p, t in zip(wanted, made, strict=False)}
    found: dict[str, Any] = {}
    for p in wanted:
        first = next(iter(found.values()), None)
        if first is None:
            found[p.name] = d.tensor("f" if d.chance(75) else "fiub", d.pick((0, 1, 1, 2)))
        elif p.name in ("indices", "labels"):
            found[p.name] = d.leaf(d.pick(("int32", "int64")), d.shape(), 0, 0, bounded=True)
        elif p.name in ("target", "targets"):
            found[p.name] = d.like(first.shape, first.dtype.kind, first.dtype)
        else:
            found[p.name] = d.partner(first, first.dtype.kind, first.dtype)
    return found


def scalar(d: Drawing) -> Any:
    """A Python number, or a symbolic extent that something fed decides."""
    known = [e for t in d.sources for e in t.shape if not isinstance(e, int)]
    return d.pick(known) if known and d.chance(20) else d.pick(SCALARS)


def siblings(d: Drawing) -> list[Tensor]:
    """A few tensors of one rank and dtype."""
    x = d.tensor("fiub", 1, lambda t: t.ndim <= 3)
    return [x, *(d.like(x.shape, x.dtype.kind, x.dtype) for _ in range(d.pick((0, 1, 1, 2))))]


def argument(d: Drawing, p: Parameter, x: Tensor | None, entry: Entry) -> Any:
    """A value by the parameter's name; ``inspect.Parameter.empty`` for one that is left at its default."""
    rank = x.ndim if x is not None else 0
    draw = BY_NAME.get(p.name)
    if draw is not None:
        return draw(d, x, rank, p)
    if p.annotation == "bool" or isinstance(p.default, bool):
        return d.chance(50)
    if not p.optional:
        raise RefusedError(f"{entry.name}: nothing is known of an argument called {p.name!r}")
    return inspect.Parameter.empty


def _axis(d: Drawing, x: Tensor | None, rank: int, p: Parameter) -> Any:
    if ("None" in p.annotation or "Axis" in p.annotation) and d.chance(20):
        return None
    if ("tuple" in p.annotation or "Axis" in p.annotation) and d.chance(40):
        return tuple(i if d.chance(70) else i - rank for i in range(rank) if d.chance(55))
    return d.rng.randrange(-rank, rank) if rank else 0


def _axes(d: Drawing, x: Tensor | None, rank: int, p: Parameter) -> Any:
    return tuple(d.rng.sample(range(rank), rank))


def _shape(d: Drawing, x: Tensor | None, rank: int, p: Parameter) -> Any:
    known = [2, 3, *(e for t in d.sources for e in t.shape)]
    return tuple(d.pick(known) for _ in range(d.pick((0, 1, 1, 2))))


def _dtype(d: Drawing, x: Tensor | None, rank: int, p: Parameter) -> Any:
    from fuzz.drawing import DTYPES

    return d.pick(DTYPES)


def _whole(low: int, high: int) -> Callable[..., int]:
    return lambda d, x, rank, p: d.rng.randint(low, high)


def _real(low: float, high: float) -> Callable[..., float]:
    return lambda d, x, rank, p: round(d.rng.uniform(low, high), 2)


BY_NAME: dict[str, Callable[..., Any]] = {
    "axis": _axis, "axes": _axes, "shape": _shape, "dtype": _dtype, "shift": _whole(-4, 4), "repeats": _whole(0, 3),
    "repetitions": lambda d, x, rank, p: tuple(d.rng.randint(1, 2) for _ in range(rank)), "k": _whole(-3, 3),
    "diagonal": _whole(-3, 3), "source": lambda d, x, rank, p: d.rng.randrange(-rank, rank) if rank else 0,
    "destination": lambda d, x, rank, p: d.rng.randrange(-rank, rank) if rank else 0, "correction": _whole(0, 1),
    "value": lambda d, x, rank, p: d.pick(SCALARS), "min": _real(-2, 0), "max": _real(0, 2), "low": _real(-2, 0),
    "high": _real(1, 3), "p": _real(0, 1), "alpha": _real(0.1, 2), "negative_slope": _real(0, 0.5),
    "beta": _real(0.1, 2), "delta": _real(0.1, 2), "label_smoothing": _real(0, 0.5), "seed": _whole(0, 9),
    "mean": _real(-1, 1), "std": _real(0.1, 2), "reduction": lambda d, x, rank, p: d.pick(("mean", "sum", "none")),
    "extent": lambda d, x, rank, p: d.pick((3, 4)), "num_classes": lambda d, x, rank, p: d.pick((3, 4)),
    "approximate": lambda d, x, rank, p: d.pick(("none", "tanh")),
}  # fmt: skip
