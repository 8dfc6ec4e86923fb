"""Indices found in the data: one-hot rows, and the check that an index is in range."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dtypes import DTypeLike, as_dtype
from graphc.errors import IndexRangeError
from graphc.node import Node, Tensor, TensorType, attrs_of, make_node
from graphc.opdef import Domain, Inference, Kind, OpDef, register
from graphc.ops.comparison import equal
from graphc.ops.elementwise import astype
from graphc.ops.leaf import arange, as_extent, as_tensor
from graphc.ops.rules import DISCRETE
from graphc.ops.shape import expand_dims


def _infer_one_hot(c: Inference) -> tuple[TensorType, ...]:
    c.require_dtype("iu", "indices")
    return (TensorType((*c.inputs[0].shape, c.attrs["extent"]), c.attrs["dtype"]),)


def _one_hot_view(node: Node) -> Tensor:
    columns = arange(node.attrs["extent"])
    checked = astype(check_index(node.inputs[0], node.attrs["extent"]), columns.dtype)
    return astype(equal(expand_dims(checked, -1), columns), node.attrs["dtype"])


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


def _infer_check_index(c: Inference) -> tuple[TensorType, ...]:
    c.require_dtype("iu", "indices")
    return (c.inputs[0].type,)


def _check_range(r: Any, x: Any, extent: int) -> None:
    if x.size and (x.min() < 0 or x.max() >= extent):
        raise IndexRangeError(index_message(r.node, int(x.min()), int(x.max()), extent))


def index_message(node: Node, low: int, high: int, extent: int) -> str:
    """What to say of indices from ``low`` to ``high`` into an axis of ``extent``."""
    return (
        f"{node.op.name} at {node.where}: indices must be 0 to {extent - 1}, found {low} to {high}\n"
        f"  operands:\n    {node.inputs[0].describe()}"
    )


def _check_reference(r: Any, x: Any) -> Any:
    _check_range(r, x, r.extent(r.attrs["extent"]))
    return x


def _emit_check_index(b: Any, attrs: Any, x: Any) -> Any:
    wide = b.cast(x, np.dtype(np.int64))
    low = b.compare("lt", wide, b.const(0, np.dtype(np.int64)))
    b.guard(b.binary("or_", low, b.compare("ge", wide, b.extent("extent"))))
    return x


CHECK_INDEX = register(
    OpDef(
        "check_index", Kind.SCALAR, _infer_check_index, _check_reference, DISCRETE, emit=_emit_check_index, cost=30,
        fallible=True,
        domain=Domain(("iu",), low=0, high=2, bounded=True), samples=(lambda x: check_index(x, 3),),
        doc="The indices themselves; a run in which one is out of range fails with its place.",
    )
)  # fmt: skip


def one_hot(indices: Any, extent: Any, dtype: DTypeLike = "float32") -> Tensor:
    """1 at each index along a new last axis of ``extent``, 0 elsewhere. A run with an index out of range raises
    ``IndexRangeError``.
    """
    attrs = attrs_of(extent=as_extent(extent, "one_hot"), dtype=as_dtype(dtype))
    return make_node(ONE_HOT, (as_tensor(indices, "one_hot"),), attrs).outputs[0]


def check_index(indices: Any, extent: Any) -> Tensor:
    """``indices`` unchanged; a run in which one is not within ``0 <= i < extent`` raises ``IndexRangeError``."""
    attrs = attrs_of(extent=as_extent(extent, "check_index"))
    return make_node(CHECK_INDEX, (as_tensor(indices, "check_index"),), attrs).outputs[0]
