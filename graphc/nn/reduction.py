"""What losses share: operands of one shape, and the reduction over all elements or samples."""

from __future__ import annotations

from typing import Any

from graphc.dims import Extent
from graphc.dtypes import float32, is_float
from graphc.errors import ArgumentError, ShapeError
from graphc.node import Tensor
from graphc.ops import astype, mean, sum
from graphc.ops.leaf import as_tensor

REDUCTIONS = ("mean", "sum", "none")


def check_reduction(reduction: str, what: str, known: tuple[str, ...] = REDUCTIONS) -> None:
    """``ArgumentError`` for a word that names no reduction."""
    if reduction not in known:
        words = ", ".join(repr(word) for word in known[:-1])
        raise ArgumentError(f"{what}: reduction must be {words} or {known[-1]!r}, got {reduction!r}")


def reduced(each: Tensor, reduction: str) -> Tensor:
    """The mean or the sum of all elements, or the elements themselves."""
    if reduction == "none":
        return each
    return mean(each) if reduction == "mean" else sum(each)


def matched(input: Any, target: Any, what: str) -> tuple[Tensor, Tensor]:
    """Both as float tensors. ``ShapeError`` when the shapes differ: nothing is broadcast, because a target of shape
    (n,) beside a prediction of shape (n, 1) would be compared in all n*n pairs.
    """
    left, right = as_tensor(input, f"{what}: input"), as_tensor(target, f"{what}: target")
    if not may_be_equal(left.shape, right.shape):
        raise ShapeError(
            f"{what}: input and target must have the same shape, got {show(left.shape)} and {show(right.shape)}"
            f"\n  input:  {left.describe()}\n  target: {right.describe()}"
        )
    dtype = next((t.dtype for t in (left, right) if is_float(t.dtype)), float32)
    left, right = (t if is_float(t.dtype) else astype(t, dtype) for t in (left, right))
    return left, right


def may_be_equal(left: tuple[Extent, ...], right: tuple[Extent, ...]) -> bool:
    """Whether two shapes can be equal. A written 1 beside a symbolic extent cannot: it would be broadcast."""
    if len(left) != len(right):
        return False
    pairs = [(a, b) for a, b in zip(left, right, strict=True) if a != b]
    return not any((isinstance(a, int) and isinstance(b, int)) or 1 in (a, b) for a, b in pairs)


def show(shape: tuple[Extent, ...]) -> str:
    """A shape for a message."""
    parts = ["?" if str(extent).startswith("?") else str(extent) for extent in shape]
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
