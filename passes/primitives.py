"""Which primitives an op is made of, and so whether its results are rounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from graphc.dtypes import DType, bool_, int64
from graphc.expr import Primitives
from graphc.node import Node
from graphc.opdef import Kind

# These choose or move values, or change their sign: no bit of a result is rounded.
_EXACT = {"const", "select", "compare", "not", "index", "extent", "load", "guard", "cast", "flat_index"}
_EXACT |= {"neg", "abs", "maximum", "minimum", "floor", "ceil", "trunc", "round", "copysign"}
_MOVING = {Kind.LEAF, Kind.VIEW, Kind.RESHAPE, Kind.CONCAT}
_EXACT_REDUCTIONS = {"maximum", "minimum"}


class _Counter(Primitives):
    """An expression builder whose values are dtypes: it counts what is called, by name."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def _call(self, name: str, dtype: DType) -> DType:
        self.calls[name] += 1
        return dtype

    def dtype(self, x: DType) -> DType:
        return x

    def const(self, value: float | int | bool, dtype: DType) -> DType:
        return self._call("const", dtype)

    def cast(self, x: DType, dtype: DType) -> DType:
        narrower = dtype.kind == "f" and (x.kind != "f" or x.itemsize > dtype.itemsize)
        return self._call("narrow" if narrower else "cast", dtype)

    def unary(self, name: str, x: DType) -> DType:
        return self._call(name, x)

    def binary(self, name: str, x: DType, y: DType) -> DType:
        return self._call(name, x)

    def compare(self, name: str, x: DType, y: DType) -> DType:
        return self._call("compare", bool_)

    def not_(self, x: DType) -> DType:
        return self._call("not", bool_)

    def select(self, condition: DType, x: DType, y: DType) -> DType:
        return self._call("select", x)

    def fma(self, x: DType, y: DType, z: DType) -> DType:
        return self._call("fma", x)

    def index(self, axis: int) -> DType:
        return self._call("index", int64)

    def flat_index(self) -> DType:
        return self._call("flat_index", int64)

    def load(self, source: DType, indices: Sequence[DType], mask: DType | None = None) -> DType:
        return self._call("load", source)

    def extent(self, key: str) -> DType:
        return self._call("extent", int64)

    def guard(self, bad: DType) -> None:
        self._call("guard", bool_)


def primitives(node: Node) -> Counter[str]:
    """How often the node's ``emit`` rule calls each primitive for one element; empty for an op without one."""
    counter = _Counter()
    if node.op.emit is not None:
        node.op.emit(counter, node.attrs, *(t.dtype for t in node.inputs))
    return counter.calls


def rounds(node: Node) -> bool:
    """Whether a float result of the node may be rounded; others are exact functions of the inputs' bits."""
    if not node.results or node.results[0].dtype.kind != "f" or node.op.kind in _MOVING:
        return False
    if node.op.kind is Kind.REDUCE:
        return node.op.reduce not in _EXACT_REDUCTIONS
    return node.op.emit is None or not primitives(node).keys() <= _EXACT
