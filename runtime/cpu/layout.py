"""Where a loop kernel finds its numbers: the order of the words in its argument block."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from passes.loop_ir import LoopKernel
from runtime.cpu.streaming import streamed

GRID = 4  # rows per block, columns per block, column blocks, and the reduced range per split


@dataclass(frozen=True)
class Layout:
    """Word numbers: axis extents from 0, then the grid, then each argument's address, run-time strides and how it is
    written, then integers.
    """

    grid: int
    address: tuple[int, ...]
    stride: dict[tuple[int, int], int]
    split_stride: dict[int, int]
    flush: dict[int, int]
    extents: int
    guards: int
    size: int


@lru_cache(1024)
def layout_of(kernel: LoopKernel) -> Layout:
    """The layout of one kernel's argument block."""
    place = len(kernel.roles)
    grid, place = place, place + GRID
    address: list[int] = []
    stride: dict[tuple[int, int], int] = {}
    split_stride: dict[int, int] = {}
    flush: dict[int, int] = {}
    for number, arg in enumerate(kernel.args):
        address.append(place)
        place += 1
        for axis, kind in enumerate(arg.strides):
            if kind == "s":
                stride[number, axis] = place
                place += 1
        if arg.per_split:
            split_stride[number] = place
            place += 1
        if number in streamed(kernel):
            flush[number] = place
            place += 1
    extents, place = place, place + kernel.extents
    guards, place = place, place + kernel.guards
    return Layout(grid, tuple(address), stride, split_stride, flush, extents, guards, place)
