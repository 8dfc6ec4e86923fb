"""Kernels written by hand for ``Kind.ROUTINE``: running sums, the linear recurrence, scatter, permutation.

``ROUTINES`` has one ``RoutineKernel`` for each name that an op's ``routine`` may give. A call of it is bound so: the
label and the source (with a ``{name}`` to fill) come from ``source(dtype)``, with the dtype of the result; the argument
words are the sizes, then ``grid(sizes).words``, then the addresses of the operands, inputs before results; the kernel
is called for ``grid(sizes).blocks`` blocks. Operands are contiguous.

Blocks depend on the sizes alone, and each owns a part of the result that it computes in the order of the op's
definition: the same bits for every number of threads, and as the reference gives them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from graphc.dtypes import DType
from runtime.cpu.grid import BLOCK
from runtime.cpu.random_kernels import permutation_source

BLOCKS = 32  # enough to keep threads busy, where there is work for as many
LINE = 64  # elements: narrower columns would waste what memory brings in one go
RANGES = 4  # of indices: each walks all of them


@dataclass(frozen=True)
class RoutineGrid:
    """Blocks of one call, the words that tell the kernel their bounds, and the work in simple operations."""

    words: tuple[int, ...]
    blocks: int
    work: float


@dataclass(frozen=True)
class RoutineKernel:
    """A kernel: its label and source for a dtype, and its grid for the sizes that the op states."""

    source: Callable[[DType], tuple[str, str]]
    grid: Callable[[tuple[int, ...]], RoutineGrid]


_HEADER = """from numba import float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64
from runtime.cpu.intrinsics import *


"""

# Along the middle of (outer, n, inner): rows of columns, each from the one before.
_SCAN = """def {name}(args, scratch, lo, hi):
    w = ptr_int64(args)
    outer, n, inner, reverse, group, width, column_blocks = w[0], w[1], w[2], w[3], w[4], w[5], w[6]
    {POINTERS}
    step = -inner if reverse != 0 else inner
    for block in range(lo, hi):
        number = block // column_blocks
        first = (block - number * column_blocks) * width
        columns = min(width, inner - first)
        for o in range(number * group, min((number + 1) * group, outer)):
            at = o * n * inner + first
            if reverse != 0:
                at += (n - 1) * inner
            if columns == 1:
                value = {START}[at]
                y[at] = value
                for i in range(1, n):
                    at += step
                    value = {T}({NEXT_VALUE})
                    y[at] = value
            else:
                for c in range(columns):
                    y[at + c] = {START}[at + c]
                for i in range(1, n):
                    before = at
                    at += step
                    for c in range(columns):
                        y[at + c] = {T}({NEXT_ROW})
"""

_SCATTER = """def {name}(args, scratch, lo, hi):
    w = ptr_int64(args)
    outer, extent, inner, count, per_row = w[0], w[1], w[2], w[3], w[4]
    group, length, ranges, width, column_blocks = w[5], w[6], w[7], w[8], w[9]
    indices, x, y = ptr_int64(w[10]), ptr_{T}(w[11]), ptr_{T}(w[12])
    for block in range(lo, hi):
        row = block // column_blocks
        first = (block - row * column_blocks) * width
        columns = min(width, inner - first)
        number = row // ranges
        low = (row - number * ranges) * length
        high = min(low + length, extent)
        for o in range(number * group, min((number + 1) * group, outer)):
            result = o * extent * inner + first
            for e in range(low, high):
                for c in range(columns):
                    y[result + e * inner + c] = {T}(0)
            if per_row == 0:
                for k in range(count):
                    index = indices[k]
                    if low <= index and index < high:
                        source = (o * count + k) * inner + first
                        target = result + index * inner
                        for c in range(columns):
                            y[target + c] = {T}(y[target + c] + x[source + c])
            else:
                for k in range(count):
                    source = (o * count + k) * inner + first
                    for c in range(columns):
                        index = indices[source + c]
                        if low <= index and index < high:
                            target = result + index * inner + c
                            y[target] = {T}(y[target] + x[source + c])
"""


def _filled(text: str, dtype: DType, **parts: str) -> str:
    for key, value in {**parts, "T": str(dtype)}.items():
        text = text.replace("{" + key + "}", value)
    return _HEADER + text


def _sum_source(dtype: DType) -> tuple[str, str]:
    text = _filled(
        _SCAN, dtype, POINTERS="x, y = ptr_{T}(w[7]), ptr_{T}(w[8])", START="x", NEXT_VALUE="value + x[at]",
        NEXT_ROW="y[before + c] + x[at + c]",
    )  # fmt: skip
    return f"cumulative_sum_{dtype}", text


def _recurrence_source(dtype: DType) -> tuple[str, str]:
    text = _filled(
        _SCAN, dtype, POINTERS="a, b, y = ptr_{T}(w[7]), ptr_{T}(w[8]), ptr_{T}(w[9])", START="b",
        NEXT_VALUE="{T}(a[at] * value) + b[at]", NEXT_ROW="{T}(a[at + c] * y[before + c]) + b[at + c]",
    )  # fmt: skip
    return f"linear_recurrence_{dtype}", text


def _scatter_source(dtype: DType) -> tuple[str, str]:
    return f"scatter_add_{dtype}", _filled(_SCATTER, dtype)


def _columns(outer: int, inner: int, per_outer: int) -> tuple[int, int, int]:
    """Outer indices that share a block, columns of a block, and how many parts an outer index should still be cut
    into.
    """
    if per_outer <= BLOCK:
        return max(1, BLOCK // max(per_outer, 1)), max(inner, 1), 1
    parts = min(math.ceil(BLOCKS / outer), per_outer // BLOCK)
    width = math.ceil(inner / (min(parts, max(1, inner // LINE)) * LINE)) * LINE
    return 1, width, math.ceil(parts / math.ceil(inner / width))


def _scan_grid(sizes: tuple[int, ...]) -> RoutineGrid:
    outer, n, inner, _ = sizes
    if not outer * n * inner:
        return RoutineGrid((1, 1, 1), 0, 0.0)
    group, width, _ = _columns(outer, inner, n * inner)
    column_blocks = math.ceil(inner / width)
    return RoutineGrid((group, width, column_blocks), math.ceil(outer / group) * column_blocks, 2.0 * outer * n * inner)


def _scatter_grid(sizes: tuple[int, ...]) -> RoutineGrid:
    outer, extent, inner, count, _ = sizes
    if not outer * extent * inner:
        return RoutineGrid((1, 1, 1, 1, 1), 0, 0.0)
    group, width, parts = _columns(outer, inner, (extent + count) * inner)
    length = math.ceil(extent / min(parts, RANGES))
    ranges, column_blocks = math.ceil(extent / length), math.ceil(inner / width)
    blocks = math.ceil(outer / group) * ranges * column_blocks
    return RoutineGrid(
        (group, length, ranges, width, column_blocks), blocks, 1.0 * outer * inner * (extent + 2 * count)
    )


ROUTINES: dict[str, RoutineKernel] = {
    "cumulative_sum": RoutineKernel(_sum_source, _scan_grid),
    "linear_recurrence": RoutineKernel(_recurrence_source, _scan_grid),
    "scatter_add": RoutineKernel(_scatter_source, _scatter_grid),
    "permutation": RoutineKernel(lambda dtype: permutation_source(), lambda sizes: RoutineGrid((), 1, 4.0 * sizes[0])),
}
