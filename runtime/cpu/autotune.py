"""``Session(autotune=True)``: the splits of matrix products measured once, and remembered on disk (split_records.py).

A product is measured when it is first bound: on scratch matrices, through the kernel and the runner that will compute
it, every candidate in turn for some rounds, within ``BUDGET`` seconds. The fastest run of each counts, and the usual
split stays unless another is clearly faster. Splits differ in how they round, so results may differ in the last bits
from those without ``autotune``; the same choice gives the same bits for every number of threads that share it.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from runtime.cpu import grid
from runtime.cpu.binding import Bound
from runtime.cpu.blas import Library
from runtime.cpu.fixed_kernels import GEMM_WORDS
from runtime.cpu.frame import Arena, Frame, Request, Run, address_of
from runtime.cpu.products import (
    PARTS,
    WORTH_CUTTING,
    Product,
    Split,
    Splits,
    blocks_of,
    deep_split,
    gemm_words,
    needs_scratch,
    usual_split,
)
from runtime.cpu.runner_source import COLUMNS, FIRST
from runtime.cpu.split_records import SplitRecords
from runtime.store import aligned_empty

log = logging.getLogger("graphc.autotune")
BUDGET = 0.05  # seconds for a product
ROUNDS = 15
FEWEST_ROUNDS = 3  # with fewer, chance would choose
HOPELESS = 1.5  # times the fastest, after the first rounds
CLEARLY = 0.97  # of the time of the usual split
TINY = 2**8  # simple operations, below which a call costs more than the product
HUGE = 2**29  # multiply-adds, above which every split is fast, and few can be tried in time
SCRATCH = 2**26  # bytes
BLOCK_BYTES = 2**19  # of a block of the result that an epilogue finds in the cache


def candidates(product: Product, libraries: Sequence[Library]) -> list[Split]:
    """Every split worth trying, the usual one first; of those that make the same blocks, one."""
    usual = usual_split(product, libraries)
    several = PARTS if product.work >= WORTH_CUTTING else (1,)
    largest = max(BLOCK_BYTES, _block_bytes(product, usual))
    found = {_cut(product, usual): usual}
    for library, by_columns, parts in itertools.product(libraries, (False, True), several):
        if library.own and parts != several[-1]:
            continue  # a thread computes neighbours together, so that fewer blocks are no faster
        split = Split(library.name, by_columns, parts)
        if split.suits(product) and (not product.epilogue or _block_bytes(product, split) <= largest):
            found.setdefault(_cut(product, split), split)
    deep = deep_split(product)
    if any(library.own for library in libraries) and deep.suits(product):
        found.setdefault(_cut(product, deep), deep)
    return list(found.values())


def _cut(product: Product, split: Split) -> tuple[str, int, bool]:
    blocks = blocks_of(product, split)
    if blocks.per_matrix == 1:
        return split.library, -blocks.depth, False
    return split.library, blocks.size, split.by_columns


def _block_bytes(product: Product, split: Split) -> int:
    blocks = blocks_of(product, split)
    return blocks.size * (product.m if split.by_columns else product.n) * product.dtype.itemsize


class TunedSplits(Splits):
    """Splits that were measured on this machine, by this session or an earlier one. ``runner`` gives the program
    runner.
    """

    def __init__(self, libraries: Sequence[Library], threads: int, runner: Callable[[], Run]) -> None:
        super().__init__(libraries)
        self._threads = threads
        self._runner = runner
        self._records = SplitRecords(libraries, threads)

    def split(self, product: Product, kernel: int) -> Split:
        """The split of a product, whose kernel is at address ``kernel``; measured unless it is known, tiny or huge."""
        usual = super().split(product, kernel)
        splits = candidates(product, list(self.libraries.values()))
        if len(splits) == 1 or not self._is_worth_it(product):
            return usual
        found = self._records.find(product)
        if found not in splits:
            found = self._fastest(product, splits, kernel)
            self._records.add(product, found)
        return found

    def _is_worth_it(self, product: Product) -> bool:
        huge = product.batch * product.m * product.n * product.k > HUGE
        return product.work >= TINY and not huge and sum(_sizes(product)) * product.dtype.itemsize <= SCRATCH

    def _fastest(self, product: Product, splits: Sequence[Split], kernel: int) -> Split:
        start = time.perf_counter()
        trial = _Trial(product, kernel, self._threads, self._runner())
        requests = {split: trial.request(split, self.libraries[split.library]) for split in splits}
        times, rounds = _race(requests, start + BUDGET)
        usual, best = splits[0], min(splits, key=times.__getitem__)
        if rounds < FEWEST_ROUNDS or times[best] > CLEARLY * times[usual]:
            best = usual
        log.info(
            "%s: %s in %.1f us, usually %s in %.1f us; %d rounds of %d splits in %.0f ms", product, best,
            1e6 * times[best], usual, 1e6 * times[usual], rounds, len(splits), 1e3 * (time.perf_counter() - start),
        )  # fmt: skip
        return best


def _race(requests: Mapping[Split, Request], deadline: float) -> tuple[dict[Split, float], int]:
    """The shortest time of each request in seconds, and the number of whole rounds."""
    times = dict.fromkeys(requests, math.inf)
    for done in range(ROUNDS):
        for split, request in requests.items():
            start = time.perf_counter()
            if start > deadline:
                return times, done
            request.run(())
            times[split] = min(times[split], time.perf_counter() - start)
        if done + 1 >= FEWEST_ROUNDS:
            fastest = min(times.values())
            requests = {split: r for split, r in requests.items() if times[split] <= HOPELESS * fastest}
    return times, ROUNDS


class _Trial:
    """A product on scratch matrices."""

    def __init__(self, product: Product, kernel: int, threads: int, run: Run) -> None:
        self._product, self._kernel, self._threads, self._run = product, kernel, threads, run
        self._matrices = [aligned_empty((max(1, size),), product.dtype) for size in _sizes(product)]
        for matrix in self._matrices:
            matrix[...] = 0.5
        self._factors = np.array([1.0, float(product.adds)], product.dtype)
        self._arena = Arena(threads)

    def request(self, split: Split, library: Library) -> Request:
        """The product as a program of one call."""
        product = self._product
        blocks, leading, item = blocks_of(product, split), _leading(product), product.dtype.itemsize
        steps = [
            0 if shared else size // product.batch * item
            for shared, size in zip(product.shared, _sizes(product), strict=False)
        ]
        words = gemm_words(product, split, blocks, library, leading, [(product.batch, steps[0], steps[1])])
        at = GEMM_WORDS.index
        for name, matrix in zip("abc", self._matrices, strict=True):
            words[at(name)] = address_of(matrix)
        words[at("alpha")] = address_of(self._factors)
        words[at("beta")] = address_of(self._factors) + item
        ways = grid.ways(product.work, blocks.calls, self._threads)
        table = np.array([[self._kernel, 0, blocks.calls, ways, 0]], np.int64).reshape(-1, COLUMNS)
        nothing, patches = np.zeros(1, np.int64), np.zeros((0, 3), np.int64)
        bound = Bound(table, np.array(words, np.int64), patches, nothing, 0, (), 0, needs_scratch(product, split))
        return Request(self._run, bound, Frame(np.zeros(FIRST, np.int64), nothing, nothing, 0), self._arena, [], [])


def _leading(product: Product) -> tuple[int, int]:
    """The distances between rows of both operands, with gaps of some length where there are gaps."""
    along = (product.m if product.trans[0] else product.k, product.k if product.trans[1] else product.n)
    lda, ldb = (max(1, 2 * n if gap else n) for n, gap in zip(along, product.gaps, strict=True))
    return lda, ldb


def _sizes(product: Product) -> tuple[int, int, int]:
    """Elements of both operands and the result."""
    rows = (product.k if product.trans[0] else product.m, product.n if product.trans[1] else product.k)
    a, b = (
        n * step * (1 if shared else product.batch)
        for n, step, shared in zip(rows, _leading(product), product.shared, strict=True)
    )
    return a, b, product.batch * product.m * product.n
