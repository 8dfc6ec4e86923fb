"""Matrix products at known extents: what their speed depends on, how they are split, and the words of their calls.

A ``Split`` is the whole choice of how a product is computed. A rule makes it of the product's extents alone, so that
results do not depend on the machine's mood; ``Session(autotune=True)`` measures instead (autotune.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.dtypes import DType
from runtime.cpu.blas import OWN, Library
from runtime.cpu.fixed_kernels import DEEP_BYTES, GEMM_WORDS, MOST_OF_K, RESULT_BYTES
from runtime.cpu.microkernel import tile_rows, vector_length

MACS_PER_OPERATION = 16
WORTH_CUTTING = 2**16  # simple operations
PARTS = (1, 2, 4, 8, 16)  # into which a result may be cut; graphc's own kernel loses nothing by the most
FEWEST = 4  # parts of a single product: more cost BLAS its efficiency, fewer leave a core idle
FINER = 4  # times as many, at most, so that blocks are computed directly
DIRECT = 10**6  # multiply-adds that OpenBLAS computes directly (sgemm_small_kernel_permit_skylakex.c)
DIRECT_DOTS = 1200, 32  # largest result and smallest ``k`` where it makes dot products of rows
MULTIPLE = 4  # rows or columns of a block, where there are several
OWN_MULTIPLES = 8, 16  # rows, and columns, of graphc's own kernel; the same for tiles of every form
FILLED, DIRECT_FILLED = 0.7, 0.95  # of the own kernel's tiles, at least; the latter where BLAS computes directly
DEEP_WORK = 180_000  # simple operations for which k is cut: smaller calls share their launch with others
LONG = 8  # times the extents of a result is a long k
REGION = 2**19  # bytes of the result that a thread computes before what follows on them


@dataclass(frozen=True)
class Product:
    """A product of ``m`` x ``k`` and ``k`` x ``n`` matrices, ``batch`` times.

    ``gaps`` says of both operands whether their rows lie apart from one another, ``shared`` whether one matrix serves
    the whole batch; ``adds`` that the result is added to what is there. The ``epilogue`` is "" (none), "elements" (it
    takes blocks of any form) or "rows" (whole rows). ``cost`` is its work for each element.
    """

    dtype: DType
    m: int
    n: int
    k: int
    batch: int = 1
    trans: tuple[bool, bool] = (False, False)
    gaps: tuple[bool, bool] = (False, False)
    shared: tuple[bool, bool] = (False, False)
    adds: bool = False
    epilogue: str = ""
    cost: float = 0.0

    @property
    def work(self) -> float:
        """Simple operations, roughly: BLAS makes about sixteen multiply-adds in the time of one."""
        return self.batch * self.m * self.n * (self.k / MACS_PER_OPERATION + self.cost)


@dataclass(frozen=True)
class Split:
    """How a product is computed: by the library of that name, which may be graphc's own kernel, each result cut into so
    many ``parts``, blocks of rows or of columns; or ``along_k``, which only the own kernel does, into partial results.
    """

    library: str
    by_columns: bool
    parts: int
    along_k: bool = False

    def suits(self, product: Product) -> bool:
        """Whether the product can be computed so."""
        if self.along_k:
            return self.library == OWN and _can_cut_k(product)
        return not (self.by_columns and product.epilogue == "rows")


@dataclass(frozen=True)
class Blocks:
    """Blocks of a product: ``size`` rows or columns of a result each. Or whole results, each made in ``of_k`` blocks
    that take ``depth`` of ``k``.
    """

    size: int
    per_matrix: int
    by_columns: bool
    count: int
    depth: int = 0
    of_k: int = 1

    @property
    def calls(self) -> int:
        """How many blocks threads can share."""
        return self.count * self.of_k


def together(product: Product, split: Split, blocks: Blocks) -> int:
    """How many blocks a thread computes at once, where graphc does it itself; else 0."""
    if split.library != OWN:
        return 0
    size = blocks.size * (product.m if split.by_columns else product.n) * product.dtype.itemsize
    return max(1, REGION // max(1, size))


def needs_scratch(product: Product, split: Split) -> bool:
    """Whether the kernel needs the threads' scratch memory."""
    return split.library == OWN and (product.trans[1] or split.along_k)


def usual_split(product: Product, libraries: Sequence[Library]) -> Split:
    """What the first of the libraries does: graphc's own kernel where the result fills its tiles or OpenBLAS is slow,
    or else the first BLAS; and cuts of the longer side of the result, where there is enough work for several blocks, or
    of ``k``, where that is better.
    """
    if libraries[0].own and _can_cut_k(product) and _is_better_cut_along_k(product):
        return deep_split(product)
    real = next(library for library in libraries if not library.own)
    usual = _usual_of_blas(product, real)
    if libraries[0].own and _filled(product) >= _least_filled(product, usual, real):
        return Split(libraries[0].name, _by_columns(product), PARTS[-1] if _is_long(product) else 1)
    return usual


def _least_filled(product: Product, usual: Split, library: Library) -> float:
    """What part of its tiles a result must fill for graphc's own kernel to be faster than BLAS. OpenBLAS is slow where
    blocks are narrow, and yet too large to be computed directly.
    """
    if not library.direct:
        return FILLED
    if _is_direct(product, usual):
        return DIRECT_FILLED
    return 0.0 if min(product.m, product.n) > 1 and _macs(product, usual) > DIRECT else FILLED


def _usual_of_blas(product: Product, library: Library) -> Split:
    """BLAS rearranges an operand once for each block: few blocks, more only where it computes them directly then."""
    fewest = FEWEST if product.batch == 1 and _is_long(product) else 1
    parts = [parts for parts in PARTS if fewest <= parts <= FINER * fewest]
    splits = [Split(library.name, _by_columns(product), number) for number in parts]
    if library.direct and _is_long(product):
        return next((split for split in splits if _is_direct(product, split)), splits[0])
    return splits[0]


def deep_split(product: Product) -> Split:
    """A cut along ``k``, into blocks of one of the own kernel's pieces at least."""
    pieces = math.ceil(product.k * product.dtype.itemsize / DEEP_BYTES)
    return Split(OWN, by_columns=False, parts=min(pieces, MOST_OF_K), along_k=True)


def _can_cut_k(product: Product) -> bool:
    result = product.m * product.n * product.dtype.itemsize
    long = product.k * product.dtype.itemsize > DEEP_BYTES
    return long and product.batch == 1 and 0 < result <= RESULT_BYTES and product.work >= DEEP_WORK


def _is_better_cut_along_k(product: Product) -> bool:
    """Where the result has few blocks of its own. Or where rows meet a weight: each thread then reads those rows of the
    weight that it updates, when the weight's gradient is cut by rows, and that are still in its cache.
    """
    by_columns = _by_columns(product)
    longer, multiple = product.n if by_columns else product.m, OWN_MULTIPLES[by_columns]
    is_like_a_layer = product.trans == (False, False) and product.m >= 2 * OWN_MULTIPLES[0]
    return longer <= (FEWEST - 1) * multiple or (is_like_a_layer and product.k >= LONG * max(product.m, product.n))


def _by_columns(product: Product) -> bool:
    return product.n > product.m and product.epilogue != "rows"


def _is_long(product: Product) -> bool:
    return product.work >= WORTH_CUTTING


def _filled(product: Product) -> float:
    """How much of the tiles of graphc's own kernel the result fills."""
    rows, columns = tile_rows() // 2, vector_length(product.dtype.itemsize)
    if product.m < 2 * rows or product.n < columns:
        return 0.0
    return product.m * product.n / (math.ceil(product.m / rows) * rows * math.ceil(product.n / columns) * columns)


def _is_direct(product: Product, split: Split) -> bool:
    """Whether OpenBLAS for AVX-512 computes the blocks without rearranging operands."""
    macs = _macs(product, split)
    largest, smallest = DIRECT_DOTS
    dots = product.trans == (False, True)
    return macs <= DIRECT and not (dots and (macs > largest * product.k or product.k < smallest))


def _macs(product: Product, split: Split) -> int:
    """Multiply-adds of a block."""
    return blocks_of(product, split).size * (product.m if split.by_columns else product.n) * product.k


def blocks_of(product: Product, split: Split) -> Blocks:
    """The blocks into which ``split`` cuts the product."""
    if split.along_k:
        lanes = vector_length(product.dtype.itemsize)
        depth = math.ceil(product.k / split.parts / lanes) * lanes
        return Blocks(product.m, 1, False, 1, depth, math.ceil(product.k / depth))
    longer = product.n if split.by_columns else product.m
    size = max(1, math.ceil(longer / split.parts))
    if split.parts > 1:
        multiple = OWN_MULTIPLES[split.by_columns] if split.library == OWN else MULTIPLE
        size = math.ceil(size / multiple) * multiple
    per_matrix = max(1, math.ceil(longer / size))
    empty = product.m == 0 or (product.n == 0 and not product.epilogue)  # rows without columns still have sums
    return Blocks(size, per_matrix, split.by_columns, 0 if empty else product.batch * per_matrix)


def gemm_words(
    product: Product, split: Split, blocks: Blocks, library: Library, leading: tuple[int, int],
    batch: Sequence[tuple[int, int, int]],
) -> list[int]:  # fmt: skip
    """The argument words of a product but for its addresses. ``leading`` are the distances of both operands' rows,
    ``batch`` the extent and the steps in bytes of each batch axis from the innermost.
    """
    if blocks.depth:
        along_a, along_b = leading[0] if product.trans[0] else 1, 1 if product.trans[1] else leading[1]
        step = blocks.depth * product.dtype.itemsize
        batch = [(blocks.of_k, along_a * step, along_b * step)]
    trans_a, trans_b = (ord("T" if trans else "N") for trans in product.trans)
    words = {
        "function": library.gemm(product.dtype), "trans_a": trans_a, "trans_b": trans_b,
        "m": product.m, "n": product.n, "k": product.k, "lda": leading[0], "ldb": leading[1],
        "block": blocks.size, "blocks_per_matrix": blocks.per_matrix, "by_columns": int(blocks.by_columns),
        "batch_axes": len(batch), "set_threads": library.set_threads,
        "together": together(product, split, blocks), "depth": blocks.depth, "of_k": blocks.of_k,
    }  # fmt: skip
    return [words.get(name, 0) for name in GEMM_WORDS] + [word for axis in batch for word in axis]


class Splits:
    """How a session splits its products: by the rule, with the first of its BLAS libraries."""

    def __init__(self, libraries: Sequence[Library]) -> None:
        self.libraries = {library.name: library for library in libraries}
        self._usual = tuple(libraries)

    def split(self, product: Product, kernel: int) -> Split:
        """The split of a product, whose kernel is at address ``kernel``."""
        return usual_split(product, self._usual)
