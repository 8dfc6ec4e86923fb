"""How a call is cut into blocks, and over how many threads. Blocks depend on shapes alone, so results do not
depend on threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from passes.loop_ir import LoopKernel
from runtime.cpu.costs import cost_of
from runtime.cpu.printer import block_columns
from runtime.cpu.products import Blocks
from runtime.cpu.scalars import LANES
from runtime.cpu.tiling import DEEP, tiled

BLOCK = 16384  # elements of a block: enough to hide its cost, few enough for the second-level cache
MAX_SPLITS = 64
MAX_BLOCKS = 256  # of rows: longer ones are read faster, and so many share the work evenly
LEAST_ROWS = 8  # that a block adds up to a row of partial results, which are written and read once more
NARROW_COLUMNS = 256  # columns that are still read in pieces long enough
PARALLEL_WORK = 60_000  # below about this many simple operations one thread is faster than waking another
SMALL_CALL = 3 * PARALLEL_WORK  # below which waking threads for a call alone is much of its time
CHAIN_WORK = 2 * PARALLEL_WORK  # of a chain: what follows it finds its results in several caches
WAVE_WORK = 32 * PARALLEL_WORK  # of all calls of a wave: some tens of microseconds


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
    return 1 + sum(cost_of(i) for i in kernel.instructions())


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
        widest = block_columns(kernel) if reduced else (BLOCK // DEEP if tiled(kernel) else BLOCK)
        if reduced and not kernel.split and total <= MAX_SPLITS * BLOCK:  # partial results, say: in the cache
            widest = min(widest, max(NARROW_COLUMNS, BLOCK // max(1, math.prod(reduced))))
        col_blocks = max(1, math.ceil(last / widest))
        cols = max(1, math.ceil(last / col_blocks))
    else:
        last, cols, col_blocks = 1, 1, 1
    if kernel.split:
        leading = math.prod(reduced) if columns else (math.prod(reduced[:-1]) if len(reduced) > 1 else reduced[-1])
        most = max(1, min(MAX_SPLITS // col_blocks, leading // LEAST_ROWS)) if columns else MAX_SPLITS
        splits, per_split = _splits(leading, total, most, whole_lanes=not columns and len(reduced) == 1)
        return Grid(1, cols, col_blocks, per_split, splits * col_blocks, splits, work)
    count = math.prod(outer)
    if any(a.combine for a in kernel.args):
        wide = any(a.combine and set(a.strides) != {"0"} for a in kernel.args)
        splits = max(1, min(MAX_SPLITS, count // (LEAST_ROWS if wide else 1), total // BLOCK))
        rows = max(1, math.ceil(count / splits))
        blocks = math.ceil(count / rows)
        return Grid(rows, cols, col_blocks, 0, blocks, blocks, work)
    per_row = max(1, math.prod(reduced) * cols)
    rows = max(1, min(max(count, 1), BLOCK // per_row))
    if not columns:
        rows = max(rows, math.ceil(count / MAX_BLOCKS))
    row_blocks = math.ceil(count / rows)
    return Grid(rows, cols, col_blocks, 0, row_blocks * col_blocks, 1, work)


def _splits(leading: int, total: int, most: int, *, whole_lanes: bool) -> tuple[int, int]:
    splits = max(1, min(most, total // BLOCK, leading))
    per_split = max(1, math.ceil(leading / splits))
    if whole_lanes:
        per_split = math.ceil(per_split / LANES) * LANES
    return max(1, math.ceil(leading / per_split)), per_split


def epilogue_form(kernel: LoopKernel, m: int) -> str:
    """What blocks of a product with ``m`` rows a kernel can follow: of any "elements", or of whole "rows"."""
    return "elements" if kernel.roles == "pp" or (m == 1 and kernel.roles == "p") else "rows"


def following_grid(kernel: LoopKernel, blocks: Blocks, m: int, n: int) -> Grid:
    """The grid of a kernel that follows a product block for block, or another kernel that does: of a result of ``m`` x
    ``n`` elements for each matrix.
    """
    count = blocks.count
    if kernel.roles == "p":
        size = blocks.size if blocks.by_columns else blocks.size * n
        return Grid(1, size, max(count, 1), 0, count, count, 0.0)
    if blocks.by_columns:
        return Grid(m, blocks.size, blocks.per_matrix, 0, count, count, 0.0)
    return Grid(blocks.size, n, 1, 0, count, count, 0.0)


def ways(work: float, blocks: int, threads: int) -> int:
    """Threads among which to share the blocks of a call."""
    if work < PARALLEL_WORK:
        return 1
    return max(1, min(threads, blocks))
