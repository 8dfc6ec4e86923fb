"""Results too large to stay in the cache are written past it.

An ordinary store to memory that is not in the cache reads the line first, and drives out another. So a kernel computes
a strip of such a result in a buffer on the stack, which stays in the first-level cache, and a second kernel, *flush*,
moves the strip to memory with non-temporal stores. Whether it does is a word of the kernel's arguments: the address of
flush, or 0 for a result that is written in its place. The values are the same.

A row that waits in a result's memory between two walks (passes/keep.py) waits on the stack then, if it is not too long.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from passes.loop_ir import Instr, LoopKernel, Stage
from passes.program import Buffer
from runtime.cpu import cache
from runtime.cpu.costs import cost_of
from runtime.cpu.tiling import tiled

STRIP = 1024  # elements
ROW = 4096  # elements at most of a row that waits on the stack
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
    it waits for memory. Beside more arithmetic, ordinary stores wait unnoticed.
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


@functools.lru_cache(1024)
def kept(kernel: LoopKernel) -> tuple[int, ...]:
    """The arguments whose rows a kernel writes and reads again, contiguous and whole, before it goes on to the next."""
    roles = kernel.roles
    if kernel.split or roles.count("r") != 1 or not (roles.startswith("p") and roles.endswith("r")):
        return ()
    accesses: dict[int, list[Instr]] = {}
    for instr in kernel.instructions():
        if instr.op in ("load", "store"):
            accesses.setdefault(instr.attr, []).append(instr)
    return tuple(n for n, arg in enumerate(kernel.args) if arg.strides.endswith("1") and _waits(accesses.get(n, [])))


def _waits(accesses: Sequence[Instr]) -> bool:
    """Whether an argument is written, and then read at the same places."""
    reads = [i for i in accesses if i.op == "load"]
    return bool(reads) and accesses[0].op == "store" and not any(i.args for i in reads)


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
