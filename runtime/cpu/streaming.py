"""Results too large to stay in the cache are written past it.

An ordinary store to memory that is not in the cache reads the line first, and drives out another. So a kernel computes
a strip of such a result in a buffer on the stack, which stays in the first-level cache, and a second kernel, *flush*,
moves the strip to memory with non-temporal stores. Whether it does is a word of the kernel's arguments: the address of
flush, or 0 for a result that is written in its place. The values are the same.
"""

from __future__ import annotations

import functools
from pathlib import Path

from passes.loop_ir import LoopKernel, Stage
from passes.program import Buffer
from runtime.cpu import cache
from runtime.cpu.costs import cost_of
from runtime.cpu.tiling import tiled

STRIP = 1024  # elements
CHEAP = 8  # simple operations for each element
SHARE = 4  # of the cache: results of at least 1/SHARE of it are gone from it before anybody reads them
_DEFAULT_CACHE = 2**25
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}

FLUSH = """from runtime.cpu.intrinsics import copy_bytes, fence, stream_line


def {name}(target, source, lo, count):
    \"\"\"Move ``count`` bytes past the caches; with none, wait until all have arrived.\"\"\"
    if count == 0:
        fence()
        return
    done = min(-target & 63, count)
    copy_bytes(target, source, done)
    while done + 64 <= count:
        stream_line(target + done, source + done)
        done += 64
    copy_bytes(target + done, source + done, count - done)
"""


@functools.lru_cache(1024)
def streamed(kernel: LoopKernel) -> tuple[int, ...]:
    """The arguments that a kernel can write past the cache: contiguous, not read, and written by a stage so cheap that
    it waits for memory. Beside more arithmetic, ordinary stores wait unnoticed: a softmax whose rows were flushed at
    their ends took 1.1 to 1.3 times as long.
    """
    if tiled(kernel):  # tiles are narrow
        return ()
    loads = {i.attr for i in kernel.instructions() if i.op == "load"}
    cheap = [stage for stage in kernel.numbered if _cost(kernel, stage) <= CHEAP]
    stored = {i.attr for stage in cheap for _, i in stage if i.op == "store"}
    return tuple(
        n
        for n, arg in enumerate(kernel.args)
        if n in stored - loads and arg.mode == "w" and arg.strides.endswith("1") and not (arg.combine or arg.per_split)
    )


def _cost(kernel: LoopKernel, stage: Stage) -> float:
    """Simple operations for each element of the innermost loop."""
    return sum(cost_of(i) for n, i in stage if kernel.levels[n] == 2)


def worth_streaming(buffer: Buffer, size: int) -> bool:
    """Whether a buffer of so many bytes is out of the cache again before it is read: what the next kernels read stays
    if it can.
    """
    return size >= cache_size() // SHARE if buffer.kind == "output" else size >= cache_size()


@functools.cache
def cache_size() -> int:
    """Bytes of the processor's largest cache."""
    sizes = [_DEFAULT_CACHE]
    try:
        texts = [p.read_text().strip() for p in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
        sizes = [int(t.rstrip("KMG")) * _UNITS.get(t[-1:], 1) for t in texts] or sizes
    except (OSError, ValueError):
        pass
    return max(sizes)


def flush_address() -> int:
    """The address of flush, compiled when the first large result is met."""
    name = cache.kernel_name("flush", FLUSH)
    return cache.kernel_cache.get(name, lambda: FLUSH.replace("{name}", name), cache.Counters()).address
