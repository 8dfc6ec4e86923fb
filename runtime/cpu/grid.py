"""How a call is cut into blocks, and over how many threads. Blocks depend on shapes alone, so results do not
depend on threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from passes.loop_ir import LoopKernel
from runtime.cpu.printer import COLUMNS
from runtime.cpu.scalars import LANES

BLOCK = 16384  # elements of a block: enough to hide its cost, few enough for the second-level cache
MAX_SPLITS = 64
PARALLEL_WORK = 60_000  # below about this many simple operations one thread is faster than waking another
GEMM_PARTS = 4  # measured on two cores: more blocks cost BLAS its efficiency, fewer leave a core idle
GEMM_WORTH_CUTTING = 2**20  # multiply-adds
_COSTLY = {"exp", "log", "log1p", "expm1", "tanh", "sigmoid", "erf", "pow", "sin", "cos"}


@dataclass(frozen=True)
class Grid:
    """Blocks of one call, and the words that tell the kernel their bounds."""

    rows: int
    cols: int
    col_blocks: int
    per_split: int
    blocks: int
    splits: int
    work: float


def work_per_element(kernel: LoopKernel) -> float:
    """Simple operations per element, roughly."""
    return 1 + sum(8.0 if i.attr in _COSTLY else 0.5 for i in kernel.instructions())


def loop_grid(kernel: LoopKernel, extents: tuple[int, ...], cost: float) -> Grid:
    """The grid of a loop kernel over axes of these extents."""
    roles = kernel.roles
    total = math.prod(extents)
    work = total * cost
    columns = roles.endswith("p")
    outer = [e for e, r in zip(extents, roles, strict=True) if r == "p"]
    reduced = [e for e, r in zip(extents, roles, strict=True) if r == "r"]
    if columns:
        last = outer.pop()
        widest = COLUMNS if reduced else BLOCK
        cols = min(max(last, 1), widest)
        if reduced and last > 2 * LANES and total > BLOCK:
            cols = LANES
        col_blocks = math.ceil(last / cols)
    else:
        last, cols, col_blocks = 1, 1, 1
    if kernel.split:
        leading = math.prod(reduced) if columns else (math.prod(reduced[:-1]) if len(reduced) > 1 else reduced[-1])
        splits, per_split = _splits(leading, total, whole_lanes=not columns and len(reduced) == 1)
        return Grid(1, cols, col_blocks, per_split, splits * col_blocks, splits, work)
    count = math.prod(outer)
    per_row = max(1, math.prod(reduced) * cols)
    rows = max(1, min(max(count, 1), BLOCK // per_row))
    row_blocks = math.ceil(count / rows)
    return Grid(rows, cols, col_blocks, 0, row_blocks * col_blocks, 1, work)


def _splits(leading: int, total: int, *, whole_lanes: bool) -> tuple[int, int]:
    splits = max(1, min(MAX_SPLITS, total // BLOCK, leading))
    per_split = max(1, math.ceil(leading / splits))
    if whole_lanes:
        per_split = math.ceil(per_split / LANES) * LANES
    return max(1, math.ceil(leading / per_split)), per_split


@dataclass(frozen=True)
class GemmGrid:
    """Blocks of a matrix product: rows or columns of the result per block."""

    size: int
    per_matrix: int
    by_columns: bool
    work: float


def gemm_grid(m: int, n: int, k: int, batch: int) -> GemmGrid:
    """Cut the longer side of the result, where there is enough work for several blocks."""
    macs = m * n * k
    by_columns = n >= 2 * m
    longer = n if by_columns else m
    parts = GEMM_PARTS if batch == 1 and macs >= GEMM_WORTH_CUTTING else 1
    size = max(1, math.ceil(longer / parts))
    if parts > 1:
        size = math.ceil(size / 4) * 4
    # BLAS makes about sixteen multiply-adds in the time of one simple operation.
    return GemmGrid(size, max(1, math.ceil(longer / size)), by_columns, macs * batch / 16)


def ways(work: float, blocks: int, threads: int) -> int:
    """Threads among which to share the blocks of a call."""
    if work < PARALLEL_WORK:
        return 1
    return max(1, min(threads, blocks))
