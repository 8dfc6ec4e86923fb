"""Leaves: values that come from outside the graph, and the conversion of Python values to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dims import Dim, Extent, dim
from graphc.dtypes import DType, DTypeLike, as_dtype, float32, is_weak, promote, weak_dtype
from graphc.errors import DTypeError, ShapeError
from graphc.expr import cast
from graphc.node import Node, Tensor, TensorType, attrs_of, frozen, make_node
from graphc.opdef import Domain, Inference, Kind, NotDifferentiable, OpDef, register

_LEAF = NotDifferentiable("a leaf has no inputs")
_NO_INPUT = Domain(kinds=())


def _declared(c: Inference) -> tuple[TensorType, ...]:
    return (TensorType(c.attrs["shape"], c.attrs["dtype"]),)


PLACEHOLDER = register(
    OpDef("placeholder", Kind.LEAF, _declared, None, _LEAF, domain=_NO_INPUT, doc="A value fed to every run.")
)
CONSTANT = register(
    OpDef(
        "constant",
        Kind.LEAF,
        lambda c: (TensorType(c.attrs["value"].shape, c.attrs["value"].dtype),),
        lambda r: r.attrs["value"],
        _LEAF,
        domain=_NO_INPUT,
        doc="A value written into the graph.",
    )
)


def extent_in(node: Node, value: int) -> int:
    """The value of an extent, which must fit the dtype of the tensor that stands for it."""
    dtype = node.results[0].dtype
    if dtype.kind in "iu" and value > np.iinfo(dtype).max:
        raise DTypeError(
            f"the extent {node.attrs['extent']} is {value} in this run, which does not fit {dtype} ({node.where}); "
            f"convert what it meets to a wider dtype"
        )
    return value


EXTENT = register(
    OpDef(
        "extent",
        Kind.LEAF,
        lambda c: (TensorType((), c.attrs["dtype"]),),
        lambda r: np.asarray(extent_in(r.node, r.extent(r.attrs["extent"])), r.dtype),
        _LEAF,
        domain=_NO_INPUT,
        doc="The value of a symbolic extent, known when data is fed.",
    )
)


def _arange_emit(b: Any, attrs: Any) -> Any:
    return b.cast(b.index(0), attrs["dtype"])


ARANGE = register(
    OpDef(
        "arange",
        Kind.SCALAR,
        lambda c: (TensorType((c.attrs["extent"],), c.attrs["dtype"]),),
        lambda r: np.arange(r.extent(r.attrs["extent"])).astype(r.dtype),
        _LEAF,
        emit=_arange_emit,
        domain=_NO_INPUT,
        samples=(lambda: arange(5), lambda: arange(0), lambda: arange(3, "float32"), lambda: arange(2, "uint8")),
        doc="0, 1, 2, ... along one axis.",
    )
)


def as_shape(shape: Any, what: str) -> tuple[Extent, ...]:
    """A shape from ints, names, None and extents; ``ShapeError`` for anything else."""
    if isinstance(shape, np.ndarray):
        raise ShapeError(f"{what}: the shape is a tuple, got an array of shape {shape.shape}; write a.shape for it")
    if isinstance(shape, (int, np.integer, str, Dim)) or shape is None:
        raise ShapeError(f"{what}: the shape must be a tuple, got {shape!r}; write ({shape!r},) for one axis")
    return tuple(as_extent(e, f"{what}: shape {tuple(shape)!r}") for e in shape)


def as_extent(extent: Any, what: str) -> Extent:
    """One extent: a non-negative int, ``None`` (anonymous), a name, or a ``Dim``."""
    if extent is None:
        return dim()
    if isinstance(extent, str):
        try:
            return dim(extent)
        except ValueError as error:
            raise ShapeError(f"{what}: {error}") from error
    if isinstance(extent, Dim):
        return extent
    if isinstance(extent, (int, np.integer)) and not isinstance(extent, bool):
        if extent < 0:
            raise ShapeError(f"{what}: an extent is at least 0, got {extent}")
        return int(extent)
    raise ShapeError(f"{what}: an extent is an int, a name, None or a Dim, got {extent!r}")


def placeholder(shape: Sequence[Any], dtype: DTypeLike = "float32", name: str | None = None) -> Tensor:
    """A value that each run is fed with.

    ``shape`` holds ints, names (the same name is the same extent everywhere in one graph), ``None`` for an extent
    without a name, or arithmetic on ``Dim``. Raises ``ShapeError`` and ``DTypeError``.
    """
    what = f"placeholder {name!r}" if name else "placeholder"
    if name is not None and not isinstance(name, str):
        raise DTypeError(f"placeholder: name must be a str, got {name!r}")
    attrs = attrs_of(shape=as_shape(shape, what), dtype=as_dtype(dtype))
    return make_node(PLACEHOLDER, (), attrs, name).outputs[0]


def constant(value: Any, dtype: DTypeLike | None = None, name: str | None = None) -> Tensor:
    """A value written into the graph. Arrays keep their dtype, lists of floats and Python floats become float32.

    Raises ``DTypeError`` for values that are not numbers and ``ShapeError`` for a ragged list.
    """
    if isinstance(value, Tensor):
        raise DTypeError(f"constant: {value.describe()} is already a tensor")
    array = as_array(value, "constant", dtype)
    return make_node(CONSTANT, (), attrs_of(value=frozen(array)), name).outputs[0]


def as_array(value: Any, what: str, dtype: DTypeLike | None = None) -> np.ndarray[Any, Any]:
    """A NumPy array of ``dtype``. When None, arrays and NumPy scalars keep theirs, lists and Python floats give
    float32.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ShapeError(f"{what}: the nested list is ragged (its rows differ in length): {error}") from error
    if isinstance(value, int) and array.dtype.kind == "O":
        raise DTypeError(f"{what}: the integer {str(value)[:20]}... is too large for every integer dtype")
    if array.dtype.kind not in "biuf":
        raise DTypeError(
            f"{what}: an array of dtype {array.dtype} holds no plain numbers; pass bool, integer or float values"
        )
    if dtype is not None:
        return _converted(array, as_dtype(dtype), what)
    if not isinstance(value, (np.ndarray, np.generic)) and array.dtype.kind == "f":
        array = array.astype(float32)
    return array.astype(as_dtype(array.dtype), copy=False)


def _converted(array: np.ndarray[Any, Any], dtype: DType, what: str) -> np.ndarray[Any, Any]:
    if dtype.kind in "iu" and array.dtype.kind in "iu" and array.size:
        info, low, high = np.iinfo(dtype), int(array.min()), int(array.max())
        if low < info.min or high > info.max:
            raise DTypeError(f"{what}: values from {low} to {high} do not fit {dtype} ({info.min} to {info.max})")
    found: np.ndarray[Any, Any] = cast(array, dtype)
    return found


def scalar(value: Any, dtype: DType) -> Tensor:
    """A 0-d constant of exactly ``dtype``; ``DTypeError`` if the integer does not fit, or a float meets integers."""
    if dtype.kind in "iub" and weak_dtype(value, dtype).kind == "f":
        raise DTypeError(f"{value} is a float, and {dtype} holds none; convert it on purpose, with int() or round()")
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        if not info.min <= int(value) <= info.max:
            raise DTypeError(f"{value} does not fit {dtype}, whose values go from {info.min} to {info.max}")
    try:
        array = np.asarray(value, dtype)
    except OverflowError as error:
        raise DTypeError(f"the integer {str(value)[:20]}... is too large for {dtype}") from error
    return make_node(CONSTANT, (), attrs_of(value=frozen(array))).outputs[0]


def extent_value(extent: Extent, dtype: DType) -> Tensor:
    """An extent as a 0-d tensor: a constant when it is a number already."""
    if isinstance(extent, int):
        return scalar(extent, dtype)
    return make_node(EXTENT, (), attrs_of(extent=extent, dtype=dtype)).outputs[0]


def arange(extent: Any, dtype: DTypeLike = "int64") -> Tensor:
    """``0, 1, ..., extent - 1``; the extent may be symbolic. Shape ``(extent,)``."""
    if isinstance(dtype, (int, np.integer, Dim)):
        start, stop = as_extent(extent, "arange"), as_extent(dtype, "arange")
        raise ShapeError(f"arange: takes one extent, got {start} and {stop}; write {start} + arange({stop - start})")
    attrs = attrs_of(extent=as_extent(extent, "arange"), dtype=as_dtype(dtype))
    return make_node(ARANGE, (), attrs).outputs[0]


def as_tensor(value: Any, what: str) -> Tensor:
    """``value`` as a tensor, on its own (no partner decides its dtype)."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Dim):
        return extent_value(value, np.dtype(np.int64))
    return make_node(CONSTANT, (), attrs_of(value=frozen(as_array(value, what)))).outputs[0]


def as_operands(what: str, *values: Any) -> tuple[Tensor, ...]:
    """Operands of an elementwise op: scalars and extents take the dtype of the tensors they meet, then all are
    promoted.

    Returns tensors of one dtype.
    """
    first = values[0]
    if isinstance(first, Tensor) and all(isinstance(v, Tensor) and v.dtype == first.dtype for v in values):
        return values
    partner = next((v.dtype for v in values if isinstance(v, Tensor)), None)
    strong = [_strong(v, what, partner) for v in values if not is_weak(v) and not isinstance(v, Dim)]
    if not strong:
        strong = [as_tensor(values[0], what)]
        values = (strong[0], *values[1:])
    dtypes = [t.dtype for t in strong]
    dtype = dtypes[0] if all(d == dtypes[0] for d in dtypes) else promote(*dtypes)
    for value in values:
        if is_weak(value):
            dtype = _wider(dtype, weak_dtype(value, dtype))
    remaining = iter(strong)
    return tuple(_operand(v, dtype, remaining) for v in values)


def _strong(value: Any, what: str, partner: DType | None) -> Tensor:
    """An operand that is no scalar. A list, like one, takes the dtype of the tensor it meets, if the kind fits."""
    if partner is not None and isinstance(value, (list, tuple)):
        kind = as_array(value, what).dtype.kind
        if _KINDS[kind] <= _KINDS[partner.kind]:
            return constant(value, partner)
    return as_tensor(value, what)


_KINDS = {"b": 0, "u": 1, "i": 1, "f": 2}


def _wider(dtype: DType, weak: DType) -> DType:
    return weak if weak != dtype and dtype.kind in "biu" else dtype


def _operand(value: Any, dtype: DType, strong: Any) -> Tensor:
    from graphc.ops.elementwise import astype

    if is_weak(value):
        return scalar(value, dtype)
    if isinstance(value, Dim):
        return extent_value(value, dtype)
    return astype(next(strong), dtype)


def zeros_like(x: Tensor) -> Tensor:
    """Zeros of the shape and dtype of ``x``."""
    return full_like(x, 0)


def ones_like(x: Tensor) -> Tensor:
    """Ones of the shape and dtype of ``x``."""
    return full_like(x, 1)


def full_like(x: Tensor, value: Any) -> Tensor:
    """``value`` everywhere, in the shape and dtype of ``x``."""
    from graphc.ops.shape import broadcast_to

    return broadcast_to(scalar(value, x.dtype), x.shape)


__all__ = [
    "arange", "as_array", "as_extent", "as_operands", "as_shape", "as_tensor", "constant", "extent_value", "full_like",
    "ones_like", "placeholder", "scalar", "zeros_like",
]  # fmt: skip
