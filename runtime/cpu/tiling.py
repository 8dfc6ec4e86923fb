"""Arguments that lie across a kernel's loops are read in tiles.

The innermost loop would go down their columns, one element from each cache line, and have lost the line again when the
next row asks for its neighbour. So a tile of ``DEEP`` rows and ``WIDE`` columns is first copied to a buffer on the
stack, along the lines of memory, and read from there.
"""

from __future__ import annotations

import functools

from passes.loop_ir import LoopKernel

DEEP = 64
WIDE = 32
MOST = 4  # arguments: their buffers stay in the first-level cache, or near it


@functools.lru_cache(1024)
def tiled(kernel: LoopKernel) -> tuple[int, ...]:
    """The arguments that an elementwise kernel reads across: contiguous along the axis around the innermost one."""
    if len(kernel.roles) < 2 or set(kernel.roles) != {"p"} or any(a.combine for a in kernel.args):
        return ()
    gathered = {i.attr for i in kernel.instructions() if i.op == "load" and i.args}
    across = [n for n, a in enumerate(kernel.args) if a.mode == "r" and a.strides.endswith("1s") and n not in gathered]
    return tuple(across[:MOST])
