"""What "equal" means for each op, and ``emit`` evaluated with NumPy.

Integers, bools, moved elements and elementwise arithmetic that IEEE 754 rounds correctly must agree to the bit.
Elsewhere the bound follows from the op: units in the last place for functions of one element, ``n * eps * sum|x|`` for
sums of n terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.dims import Dim, Symbol, evaluate
from graphc.expr import NumpyBuilder
from graphc.node import Node
from graphc.opdef import Kind, OpDef
from runtime.cpu.vmath import ERROR_BOUND_ULP

Array = np.ndarray[Any, Any]
# NumPy states an error below 4 units for its own vector functions.
NUMPY_ULP = 4.0
INEXACT = {name for name, _ in ERROR_BOUND_ULP}


class _Recorder(NumpyBuilder):
    """Notes which inexact primitives an ``emit`` rule uses."""

    def __init__(self, shape: tuple[int, ...], extents: Mapping[str, int]) -> None:
        super().__init__(shape, extents)
        self.inexact: list[str] = []
        self.summands: Array = np.zeros(())  # the largest operand of a sum of inexact values, at each element
        self.extremum = False

    def unary(self, name: str, x: Any) -> Any:
        if name in INEXACT:
            self.inexact.append(name)
        return super().unary(name, x)

    def binary(self, name: str, x: Any, y: Any) -> Any:
        if name in INEXACT:
            self.inexact.append(name)
        if name in ("add", "sub") and self.inexact:
            self.summands = np.maximum(self.summands, np.maximum(np.abs(x), np.abs(y)))
        self.extremum |= name in ("maximum", "minimum")
        return super().binary(name, x, y)

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        self.inexact.append("fma")
        return super().fma(x, y, z)


def emitted(node: Node, arrays: tuple[Array, ...], values: Mapping[Symbol, int]) -> tuple[Array, _Recorder]:
    """The value that the node's ``emit`` rule gives."""
    assert node.op.emit is not None
    shape = tuple(evaluate(e, values) for e in node.results[0].shape)
    extents = {k: evaluate(v, values) for k, v in node.attrs.items() if isinstance(v, (int, Dim))}
    builder = _Recorder(shape, extents)
    source = arrays[:1] if node.op.kind is Kind.GATHER else ()
    value = node.op.emit(builder, node.attrs, *source, *(np.broadcast_to(a, shape) for a in arrays[len(source) :]))
    return np.broadcast_to(value, shape), builder


def ulp_bound(inexact: list[str], dtype: np.dtype[Any]) -> float:
    """How far the CPU may be from NumPy in units in the last place, for these primitives in a row; 0 for none."""
    return sum(ERROR_BOUND_ULP.get((n, str(dtype)), 0.5) + NUMPY_ULP for n in inexact)


def allowance(
    op: OpDef, node: Node, arrays: tuple[Array, ...], expected: Array, inexact: list[str], summands: Array | float = 0.0
) -> Array | float:
    """Largest difference allowed at each element; 0 means that the bits must agree. The error of a sum is that of its
    ``summands``, however small it is itself.
    """
    if expected.dtype.kind != "f" or all(a.dtype.kind != "f" for a in arrays):
        return 0.0
    with np.errstate(all="ignore"):
        eps = float(np.finfo(expected.dtype).eps)
        wide = [np.abs(a.astype(np.longdouble)) for a in arrays]
        if op.kind is Kind.SCALAR:
            size = np.maximum(np.abs(expected), np.asarray(summands, expected.dtype))
            return ulp_bound(inexact, expected.dtype) * np.spacing(np.where(np.isfinite(size), size, 1))
        if op.kind is Kind.REDUCE and op.reduce == "add":
            total = wide[0].sum(axis=node.attrs["axis"], keepdims=node.attrs["keepdims"])
            terms = wide[0].size // max(expected.size, 1)
            return np.asarray(terms * eps * total)
        if op.kind is Kind.REDUCE and op.reduce == "mul":
            return np.asarray(wide[0].size // max(expected.size, 1) * eps * np.abs(expected))
        if op.kind is Kind.MATMUL:
            # n products rounded, n sums, on both sides; the factor and the last sum of gemm_add on top.
            left, right = wide[0], wide[1]
            if op.name == "gemm_add":
                return np.asarray((2 * left.shape[1] + 4) * eps * (abs(node.attrs["scale"]) * (left @ right) + wide[2]))
            return np.asarray(2 * left.shape[-1] * eps * (left @ right))
        if op.kind is Kind.COMPOSITE:
            # x - max is exact to a rounding that both sides share; exp, a sum of n terms, log or a quotient follow.
            axis = node.attrs["axis"]
            terms = arrays[0].shape[axis[0]]
            finite = np.where(np.isfinite(wide[0]), wide[0], 0)
            largest = np.max(finite, axis=axis, keepdims=node.attrs.get("keepdims", True))
            return np.asarray((terms + 4 * NUMPY_ULP) * eps * (1 + largest))
    return 0.0


def difference(
    label: str, what: str, found: Any, expected: Array, allowed: Array | float, *, signed_zeros: bool = True
) -> str | None:
    """One line about the first element that differs by more than allowed, or None. NaN equals NaN; zeros have signs."""
    found = np.asarray(found)
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return (
            f"{label}: {what} gives {found.dtype}{list(found.shape)}, expected {expected.dtype}{list(expected.shape)}"
        )
    if expected.dtype.kind != "f":
        wrong = found != expected
    else:
        with np.errstate(all="ignore"):
            both_nan = np.isnan(found) & np.isnan(expected)
            same = (found == expected) & ((np.signbit(found) == np.signbit(expected)) | (not signed_zeros))
            gap = np.abs(found.astype(np.longdouble) - expected.astype(np.longdouble))
            near = np.isfinite(found) & np.isfinite(expected) & (gap <= allowed) & (np.asarray(allowed) > 0)
            wrong = ~(both_nan | same | near)
    if not wrong.any():
        return None
    place = tuple(int(i[0]) for i in np.nonzero(wrong)) if wrong.ndim else ()
    return f"{label}: {what} gives {found[place]!r}, expected {expected[place]!r} at {place}; {int(wrong.sum())} differ"
