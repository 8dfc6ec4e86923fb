"""How a call is cut into blocks, and over how many threads. Blocks depend on shapes alone, so results do not
depend on threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from passes.loop_ir import LoopKernel
from runtime.cpu.printer import block_columns
from runtime.cpu.scalars import LANES

BLOCK = 16384  # elements of a block: enough to hide its cost, few enough for the second-level cache
MAX_SPLITS = 64
PARALLEL_WORK = 60_000  # below about this many simple operations one thread is faster than waking another
WAVE_CALL = 4 * PARALLEL_WORK  # below which a call is better one of several side by side than cut into blocks
WAVE_WORK = 32 * PARALLEL_WORK  # of all calls of a wave: some tens of microseconds
GEMM_PARTS = 4  # measured on two cores: more blocks cost BLAS its efficiency, fewer leave a core idle
GEMM_WORTH_CUTTING = 2**16  # simple operations
MACS_PER_OPERATION = 16
# Measured, in simple operations; every other primitive counts as a half.
_COSTLY = {
    "exp": 8, "exp2": 8, "expm1": 8, "log": 8, "log1p": 8, "log2": 12, "log10": 12, "sigmoid": 8, "tanh": 8, "erf": 8,
    "erfc": 32, "sin": 24, "cos": 24, "tan": 24, "asin": 12, "acos": 12, "atan": 16, "atan2": 20, "sinh": 20,
    "cosh": 12, "asinh": 28, "acosh": 28, "atanh": 32, "pow": 40, "hypot": 12, "floordiv": 40, "mod": 40, "fmod": 40,
}  # fmt: skip


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
    return 1 + sum(_COSTLY.get(i.attr, 0.5) for i in kernel.instructions())


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
        widest = block_columns(kernel) if reduced else BLOCK
        col_blocks = max(1, math.ceil(last / widest))
        cols = max(1, math.ceil(last / col_blocks))
    else:
        last, cols, col_blocks = 1, 1, 1
    if kernel.split:
        leading = math.prod(reduced) if columns else (math.prod(reduced[:-1]) if len(reduced) > 1 else reduced[-1])
        splits, per_split = _splits(leading, total, whole_lanes=not columns and len(reduced) == 1)
        return Grid(1, cols, col_blocks, per_split, splits * col_blocks, splits, work)
    count = math.prod(outer)
    if any(a.combine for a in kernel.args):
        splits = max(1, min(MAX_SPLITS, count, total // BLOCK))
        rows = max(1, math.ceil(count / splits))
        blocks = math.ceil(count / rows)
        return Grid(rows, cols, col_blocks, 0, blocks, blocks, work)
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
    blocks: int
    work: float


def gemm_grid(m: int, n: int, k: int, batch: int, epilogue: LoopKernel | None = None, cost: float = 0.0) -> GemmGrid:
    """Cut the longer side of the result, where there is enough work for several blocks: BLAS rearranges the operand on
    the other side once for each block. An epilogue that needs whole rows is cut by rows; ``cost`` is its work for each
    element.
    """
    # BLAS makes about sixteen multiply-adds in the time of one simple operation.
    work = m * n * (k / MACS_PER_OPERATION + cost)
    by_columns = n > m and (epilogue is None or epilogue.roles == "pp" or (m == 1 and epilogue.roles == "p"))
    longer = n if by_columns else m
    parts = GEMM_PARTS if batch == 1 and work >= GEMM_WORTH_CUTTING else 1
    size = max(1, math.ceil(longer / parts))
    if parts > 1:
        size = math.ceil(size / 4) * 4
    per_matrix = max(1, math.ceil(longer / size))
    empty = m == 0 or (n == 0 and epilogue is None)  # rows without columns still have sums
    return GemmGrid(size, per_matrix, by_columns, 0 if empty else batch * per_matrix, work * batch)


def epilogue_grid(kernel: LoopKernel, gemm: GemmGrid, m: int, n: int) -> Grid:
    """The grid of a product's epilogue: block for block that of the product."""
    blocks = gemm.blocks
    if kernel.roles == "p":
        size = gemm.size if gemm.by_columns else gemm.size * n
        return Grid(1, size, max(blocks, 1), 0, blocks, blocks, 0.0)
    if gemm.by_columns:
        return Grid(m, gemm.size, gemm.per_matrix, 0, blocks, blocks, 0.0)
    return Grid(gemm.size, n, 1, 0, blocks, blocks, 0.0)


def ways(work: float, blocks: int, threads: int) -> int:
    """Threads among which to share the blocks of a call."""
    if work < PARALLEL_WORK:
        return 1
    return max(1, min(threads, blocks))
